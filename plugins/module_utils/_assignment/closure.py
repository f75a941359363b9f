# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions have to go together with the selected ones, and what forbids it. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import on_device, stays
from ansible_collections.vfio.host.plugins.module_utils._findings.rules import finding


class Groups:
    """The IOMMU groups a plan works on: the kernel's where it formed any, else the predicted ones."""

    def __init__(self, machine):
        self.functions = {f["address"]: f for f in machine["functions"]}
        self.actual = bool(machine["host"]["iommu"]["active"]) and any(
            group["source"] == "actual" for group in machine["groups"])
        groups = [group for group in machine["groups"] if self.actual or group["source"] == "predicted"]
        groups = groups or machine["predicted_groups"]
        self._groups = {address: group for group in groups for address in group["members"]}
        self._numbers = {}
        for function in self.functions.values():
            self._numbers.setdefault(function["group"], set()).update([function["address"]], function["group_members"])

    def members(self, address):
        """Sorted addresses of the group, or None when the function is in none.

        Of the kernel's groups all that the document says in any place: a member more refuses, one less would not.
        """
        function, group = self.functions[address], self._groups.get(address)
        if self.actual and (function["group"] is None or function["confidence"] != "actual"):
            return None
        if not self.actual:
            return None if group is None else group["members"]
        return sorted(self._numbers[function["group"]] | set(group["members"] if group else ()), key=sort_key)

    def unread(self, address):
        """Functions whose isolation is not certain, where the extent of the group depends on them."""
        group = self._groups.get(address)
        if group is None or group["confidence"] != "partial":
            return []
        wide = group["bounds"]["largest"]
        chain = [self.functions[a]["parent"] for a in wide if a in self.functions]
        asked = sorted(set(wide) | {a for a in chain if a in self.functions}, key=sort_key)
        return [a for a in asked if not self.functions[a]["isolates"]["certain"]] or wide

    def reasons(self, address):
        """Why the group is what it is: sentences."""
        return self._groups[address]["reasons"] if address in self._groups else []

    def is_bridge(self, address):
        return bool(address in self.functions and self.functions[address].get("is_bridge"))

    def stays(self, address):
        """Whether a member is left to the host: a bridge, or a host bridge without a driver."""
        return address in self.functions and stays(self.functions[address])

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
        findings.append(finding("VH111", on_device(address, evidence)))
    for address in selected:
        if groups.is_bridge(address):
            findings.append(finding("VH102", on_device(address, groups.describe(address))))
        group = groups.members(address)
        if group is None:
            findings.append(finding("VH112", on_device(address, groups.describe(address))))
            continue
        members.update(group)
        if tuple(group) in reported:
            continue
        reported.add(tuple(group))
        unread = [a for a in groups.unread(address) if a not in silent]
        if unread:
            evidence = ["not readable enough: " + groups.describe(a) for a in unread]
            findings.append(finding("VH111", on_device(address, *evidence)))
        foreign = [a for a in group if a not in selected and not groups.stays(a)]
        if foreign:
            evidence = ["in the %s group of %s: %s%s" % (
                "actual" if groups.actual else "predicted", address, groups.describe(a), _owner(owners, a))
                for a in foreign]
            evidence += groups.reasons(address)
            findings.append(finding("VH101", on_device(address, *evidence)))
    companions = [a for a in members if groups.stays(a) and a not in selected]
    return {
        "members": sorted(members, key=sort_key),
        "companions": sorted(companions, key=sort_key),
        "findings": findings,
    }


def _owner(owners, address):
    names = owners.get(address)
    return " (selected by %s: a group cannot be split)" % ", ".join(names) if names else ""
