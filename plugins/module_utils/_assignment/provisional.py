# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""IOMMU groups as Linux will probably form them, for a machine whose IOMMU is still off.

The kernel's algorithm (pci_device_group() of 5.4 to 6.18) without its quirk tables. Missing
"isolated" quirks make a group too large here, which refuses too much; missing requester-id alias
quirks make it too small. So nothing is handed over on a prediction: it only decides
whether turning the IOMMU on is worth a reboot, and the plan is made again on actual groups.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import slot_of, sort_key

_ALONE_IS_FINE = ("endpoint", "legacy_endpoint", "upstream_port", "rc_endpoint")
_ACS_EDITED = ("disable_acs_redir=", "config_acs=")
_VMD_DOMAIN = 0x10000
"""Domains from here on hang below an Intel VMD function, whose group swallows them: not modelled."""


def predict(machine):
    """``(groups, uncertain)``: address -> sorted members of its group, and addresses not readable enough.

    A function of ``uncertain`` is taken as one that isolates nothing, so groups that hold no
    such function are right whatever it is in truth. Raises ValueError on a parent loop.
    """
    functions = {f["address"]: f for f in machine["functions"]}
    uncertain = {a for a, f in functions.items() if not _readable(machine, f, functions)}
    cmdline = (machine["host"]["kernel"].get("cmdline") or "").split()
    acs_kept = not any(t.startswith("pci=") and any(e in t for e in _ACS_EDITED) for t in cmdline)
    ok = {a: a not in uncertain and _isolates(f, acs_kept) for a, f in functions.items()}
    above = {a: _ancestors(a, functions) for a in functions}

    leader = {a: a for a in functions}

    def find(address):
        while leader[address] != address:
            address = leader[address]
        return address

    def union(one, other):
        leader[find(one)] = find(other)

    for address in functions:
        top = _climb(address, above, ok)
        union(address, top)
        if not ok[top]:  # then every function of its slot that does not isolate either
            for other in functions:
                if slot_of(other) == slot_of(top) and not ok[other]:
                    union(top, other)

    members = {}
    for address in functions:
        members.setdefault(find(address), []).append(address)
    groups = {a: sorted(members[find(a)], key=sort_key) for a in functions}
    return groups, uncertain


def _readable(machine, function, functions):
    """Whether config space was read far enough to know the port type and, where it counts, ACS.

    Without privilege the kernel gives 64 bytes only, without saying so; even root gets 256 where
    extended space cannot be reached.
    """
    parent = function.get("parent")
    capabilities = function.get("capabilities") or {}
    acs_counts = function.get("port_type") not in _ALONE_IS_FINE or function.get("multifunction")
    return bool(
        machine["source"].get("privileged")
        and function.get("port_type") not in (None, "unknown")
        and "acs" in capabilities
        and (capabilities.get("complete", True) or not acs_counts)
        and function.get("multifunction") is not None
        and function.get("confidence") != "partial"
        and (parent is None or parent in functions)
        and int(function["address"].split(":")[0], 16) < _VMD_DOMAIN
    )


def _isolates(function, acs_kept):
    """Whether peer-to-peer traffic of this function is forced upstream, once the IOMMU is on.

    The kernel sets every offered ACS bit when an IOMMU driver asks for it, so the capability
    counts and not the control word read today, unless the command line edits ACS.
    """
    kind = function["port_type"]
    has_acs = bool((function.get("capabilities") or {}).get("acs")) and acs_kept
    if kind in ("root_port", "downstream_port"):
        return has_acs
    if kind in _ALONE_IS_FINE:
        return has_acs or not function["multifunction"]
    return False  # conventional, pcie_to_pci, pci_to_pcie, rc_event_collector


def _ancestors(address, functions):
    """Bridges above a function, nearest first."""
    chain = []
    here = functions[address].get("parent")
    while here in functions:
        if here in chain or here == address:
            raise ValueError("machine document: the parents of %s form a loop at %s" % (address, here))
        chain.append(here)
        here = functions[here].get("parent")
    return chain


def _climb(address, above, ok):
    """The highest bridge above that does not isolate, else the function itself.

    This holds the requester-id step too: a bridge that makes requests its own never isolates.
    """
    top = address
    for bridge in above[address]:
        if not ok[bridge]:
            top = bridge
    return top
