# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions have to go together with the selected ones, and what forbids it. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment import provisional
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._findings.rules import finding


class Groups:
    """The IOMMU groups a plan works on: actual while the IOMMU is active, else predicted."""

    def __init__(self, machine):
        self.functions = {f["address"]: f for f in machine["functions"]}
        self.actual = bool(machine["host"]["iommu"]["active"])
        self.uncertain = set()
        if self.actual:
            self._members = {a: self._actual(f) for a, f in self.functions.items()}
        else:
            self._members, self.uncertain = provisional.predict(machine)

    def _actual(self, function):
        """Members from both directions, or None: the function's own list and everyone with its number."""
        number = function.get("group")
        if number is None or function.get("confidence") != "actual":
            return None
        same = [f["address"] for f in self.functions.values() if f.get("group") == number]
        return sorted(set(same) | set(function.get("group_members") or []) | {function["address"]}, key=sort_key)

    def members(self, address):
        """Sorted addresses of the group, or None when the function is in none."""
        return self._members[address]

    def is_bridge(self, address):
        return bool(address in self.functions and self.functions[address].get("is_bridge"))

    def describe(self, address):
        """``0000:01:00.0 10de:1380 vga, driver nouveau``"""
        function = self.functions.get(address)
        if function is None:
            return "%s (no PCI function of the machine document)" % address
        return "%s %s %s, %s" % (
            address,
            function["id"],
            function["class_name"],
            "driver %s" % function["driver"] if function.get("driver") else "no driver",
        )


def close(groups, selected, owners):
    """The closure of one device's selection.

    :param groups: Groups of the machine.
    :param selected: addresses the device selects.
    :param owners: address -> names of the plan's devices that select it.
    Returns ``{"members": [...], "companions": [bridges left alone], "findings": [...]}``.
    """
    findings = []
    members = set()
    reported = set()
    silent = [a for a in selected if groups.functions[a].get("capabilities") is None]
    for address in silent:
        evidence = "nothing of %s is readable beyond the first 64 bytes of configuration space" % address
        findings.append(finding("VH111", [evidence], device=address))
    for address in selected:
        if groups.is_bridge(address):
            findings.append(finding("VH102", [groups.describe(address)], device=address))
        group = groups.members(address)
        if group is None:
            findings.append(finding("VH112", [groups.describe(address)], device=address))
            continue
        members.update(group)
        if tuple(group) in reported:
            continue
        reported.add(tuple(group))
        unread = [a for a in group if a in groups.uncertain and a not in silent]
        if unread:
            findings.append(finding("VH111", ["not readable enough: " + groups.describe(a) for a in unread],
                                    device=address))
        foreign = [a for a in group if a not in selected and not groups.is_bridge(a)]
        if foreign:
            evidence = ["in the %s group of %s: %s%s" % (
                "actual" if groups.actual else "predicted", address, groups.describe(a), _owner(owners, a))
                for a in foreign]
            if not groups.actual:
                evidence.append("the prediction knows no quirks and may be too large: with the IOMMU on, the "
                                "kernel's own groups decide")
            findings.append(finding("VH101", evidence, device=address))
    companions = [a for a in members if groups.is_bridge(a) and a not in selected]
    return {
        "members": sorted(members, key=sort_key),
        "companions": sorted(companions, key=sort_key),
        "findings": findings,
    }


def _owner(owners, address):
    names = owners.get(address)
    return " (selected by %s: a group cannot be split)" % ", ".join(names) if names else ""
