# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Why a function cannot be taken from its driver, or from a guest, while the host runs. Pure.

Everything is told by the machine document: what the host uses, who has a node open, the kernel's groups.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import device_of, sort_key
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import listed, stays
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs
from ansible_collections.vfio.host.plugins.module_utils._sriov import wanted as sriov
from ansible_collections.vfio.host.plugins.module_utils._usage import holders, network

HARMLESS = (None, "pci-stub", "pcieport")
"""Drivers, beside those of vfio, with which the kernel calls a group viable (vfio_dev_viable, drivers/vfio)."""


def to_bind(machine, addresses, on_list, known):
    """``{address: [sentence]}`` of what stands against binding each of ``addresses`` now.

    :param on_list: every address that is or will be on vfio-pci, these included.
    :param known: the same of functions that are not to be asked about any more.
    A card and a group go as a whole: what holds one function of it holds the others. A virtual function is a card by itself.
    """
    functions = {function["address"]: function for function in machine["functions"]}
    found = {address: _against(functions, functions.get(address), address, on_list, machine) for address in addresses}
    return _spread(dict(found, **known), functions, "is held")


def to_return(machine, homes, on_list, known):
    """``{address: [sentence]}`` of what stands against giving each of ``homes`` back to the host now.

    :param homes: ``{address: the driver that it goes back to, or None}``.
    :param on_list: every address that stays given away.
    :param known: the same as the answer, as far as it is known already, of these or of others.
    """
    functions = {function["address"]: function for function in machine["functions"]}
    found = dict(known)
    for address, home in homes.items():
        function = functions.get(address)
        found[address] = found.get(address, []) + (_missing(address) if function is None else (
            _held(function, ("guest", "use")) + _beneath(functions, address, ("guest", "use"))
            + ([] if _harmless(home) else _left_behind(functions, function, homes, on_list))))
    return _spread(found, functions, "cannot go home now")


def both_listed(text, addresses):
    """Sentences about those of ``addresses`` that shall have virtual functions, by the text of that list."""
    counts = sriov.listed(text)
    return ["%s is to have %d virtual functions at each boot, by %s, which needs its own driver: have none there first "
            "(role sriov, count: 0), or leave it out here" % (address, counts[address], sriov.LIST)
            for address in addresses if counts.get(address)]


def _against(functions, function, address, on_list, machine):
    if function is None:
        return _missing(address)
    found = _used(function)
    # ALSA waits in unbind until even the controls are closed (snd_card_free), so they count here.
    found += _held(function, ("use", "guest", "control"))
    found += _beneath(functions, address, ("use", "guest", "control"))
    interfaces = machine["host"]["network"]["interfaces"]
    found += network.held(function, network.interfaces_of(address, interfaces))
    unknown = machine["host"]["usage_unknown"]
    if unknown:
        found.append("what the host uses is not known in full (%s)" % ", ".join(unknown))
    if function["group"] is None:
        found.append("it has no IOMMU group: the IOMMU is off")
    for member in sorted(function["group_members"] or (), key=sort_key):
        other = functions.get(member)
        if member in on_list or other is None or stays(other):
            continue
        if not _harmless(other["driver"]):
            found.append("%s is in the same group and on driver %s: the kernel would not call the group viable"
                         % (member, other["driver"]))
    return found + _bridges(functions, function, machine)


def _left_behind(functions, function, leaving, on_list):
    """What stays of a group when a function goes to a driver of the host: the kernel would not call it viable any more.

    While a guest has another member that driver is refused (iommu_device_use_default_domain, since 5.19), and the function
    would be without any. The node of a group is one of all its members; with iommufd each function has its own.
    """
    found = []
    for member in sorted(set(function["group_members"] or ()) - set(leaving), key=sort_key):
        if member in on_list:
            found.append("%s is in the same group and stays given away, and a group goes as a whole: list both, or neither" % member)
        if member in functions:
            found += ["%s of the same group: %s" % (member, why) for why in _held(functions[member], ("guest",))]
    return found


def _harmless(driver):
    return asked.is_vfio(driver) or driver in HARMLESS


def _missing(address):
    return ["the machine document does not have %s" % address]


def _used(function):
    return ["the host uses it: %s" % use["what"] for use in function["used_by"] if use["kind"] != "process"]


def _beneath(functions, address, kinds):
    """Who has what ends with a function's driver: its virtual functions, and of a VMD controller all behind it."""
    virtual = sorted((f["address"] for f in functions.values() if f.get("physfn") == address), key=sort_key)
    found = []
    if virtual:
        found.append("it has virtual functions (%s), which end with its driver: have none first (role sriov, count: 0)"
                     % listed(virtual))
    below, todo = [], [address]
    while todo:
        here = todo.pop()
        more = [f for f in functions.values() if here in (f.get("physfn"), f.get("parent")) and f not in below]
        below += more
        todo += [f["address"] for f in more]
    for function in sorted(below, key=lambda one: sort_key(one["address"])):
        # What the host needs of a function behind another is in the used_by of both
        why = _used(function) if function.get("physfn") else []
        where = "a virtual function of it" if function.get("physfn") == address else "behind it"
        found += ["%s, %s: %s" % (function["address"], where, sentence) for sentence in why + _held(function, kinds)]
    return found


def _held(function, kinds):
    if function["holders"] is None:
        return ["which processes have it open is not known"]
    pairs = sorted({
        (holder["command"] or "a process", holder["pid"], holder["node"])
        for holder in function["holders"] if holders.weigh(function, holder) in kinds
    })
    return ["%s (process %d) has %s open" % pair for pair in pairs]


def _spread(found, functions, so):
    """Each function with what holds those that go with it: functions of its card, members of its group. ``so``: a verb."""

    def device(address):
        return device_of(functions.get(address) or {"address": address})

    whole = {}
    for address in sorted(found, key=sort_key):
        function = functions.get(address) or {}
        together = {device(address)} | {device(a) for a in function.get("group_members") or ()}
        joined = set().union(together, *(whole[part] for part in together if part in whole))
        for part in joined:
            whole[part] = joined
    spread = {}
    for address in found:
        own = list(found[address])
        for other in sorted(found, key=sort_key):
            if other != address and device(other) in whole[device(address)] and found[other]:
                own.append("%s goes with it, and %s" % (other, so))
        spread[address] = own
    return spread


def _bridges(functions, function, machine):
    """Bridges of its group on a driver that takes their DMA for the host (iommu_device_use_default_domain), like shpchp.

    Until 5.18 vfio let a bridge have any driver (vfio_dev_driver_allowed).
    """
    kernel = acs.release((machine["host"].get("kernel") or {}).get("release"))
    if kernel is not None and kernel < (5, 19):
        return []
    bridges = [functions[member] for member in sorted(function["group_members"] or (), key=sort_key) if member in functions]
    return ["bridge %s is in the same group and on driver %s: the kernel would not call the group viable; keep that driver "
            "off it" % (other["address"], other["driver"]) for other in bridges
            if other["is_bridge"] and not _harmless(other["driver"])]
