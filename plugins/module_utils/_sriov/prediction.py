# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Where virtual functions that do not exist yet will be, and in which IOMMU groups. Pure.

Virtual function ``n`` answers at the routing id of the physical one + offset + n * stride (PCI Express Base
Specification, Single Root I/O Virtualization). Its group follows from the way above it, as the physical one's does.
"""

from __future__ import annotations

import copy
import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._binding.obstacles import HARMLESS
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import stays
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, pci, prediction

RENUMBERED = ("its address follows from offset and stride as they are now; a card may give others once the count is "
              "written")


def routing(address):
    """``(domain, routing id)`` of an address."""
    domain, bus, slot, number = re.split("[:.]", address)
    return domain, int(bus, 16) << 8 | int(slot, 16) << 3 | int(number)


def addresses(physical, count):
    """Addresses of the first ``count`` virtual functions. Raises ValueError, without a place, when they are unknown.

    :param physical: the physical function in the machine document.
    """
    sriov = (physical["capabilities"] or {}).get("sriov")
    if not sriov:
        raise ValueError("its SR-IOV capability could not be read")
    if not sriov["offset"] or count > 1 and not sriov["stride"]:
        raise ValueError("its SR-IOV capability has offset %d and stride %d, which lead nowhere"
                         % (sriov["offset"], sriov["stride"]))
    domain, own = routing(physical["address"])
    last = own + sriov["offset"] + max(count - 1, 0) * sriov["stride"]
    if last > 0xFFFF:
        raise ValueError("number %d would be on bus %x, and there are 256" % (count - 1, last >> 8))
    found = []
    for index in range(count):
        at = own + sriov["offset"] + index * sriov["stride"]
        found.append("%s:%02x:%02x.%d" % (domain, at >> 8, at >> 3 & 0x1F, at & 7))
    return found


def room(machine, physical, found):
    """Why the kernel would refuse these addresses, or None: it takes no bus that the bridge above does not lead to."""
    bridge = next((f for f in machine["functions"] if f["address"] == physical["parent"]), None)
    last = max((routing(address)[1] >> 8 for address in found), default=0)
    if not bridge or not bridge["bus"] or last <= bridge["bus"]["subordinate"]:
        return None
    return ("the last of them would be on bus %02x, and the bridge above (%s) leads to %02x at most; ask for fewer, or "
            "have the kernel number the buses anew with pci=assign-busses" % (
                last, bridge["address"], bridge["bus"]["subordinate"]))


def _function(physical, address):
    """A virtual function as the machine document would have it."""
    sriov = physical["capabilities"]["sriov"]
    function = pci.blank(address)
    function.update({
        "vendor": physical["vendor"], "device": sriov["vf_device"],
        "id": "%s:%s" % (physical["vendor"], sriov["vf_device"]),
        "class": physical["class"], "class_name": physical["class_name"],
        "parent": physical["parent"], "physfn": physical["address"], "is_bridge": False, "multifunction": False,
        "port_type": physical["port_type"], "config_bytes": physical["config_bytes"],
        # without a neighbour in its device its own ACS is not asked for
        "capabilities": dict(physical["capabilities"], acs=None, sriov=None),
    })
    return function


def predict(machine, made, gone):
    """``{address: {members, certain, reasons}}`` of the virtual functions to be made.

    :param made: ``{physical address: [addresses]}``. :param gone: addresses that will no longer be there.
    ``certain`` False: something on the way could not be read, or the kernel's groups are not those predicted.
    """
    functions = [copy.deepcopy(f) for f in machine["functions"] if f["address"] not in gone]
    by_address = {function["address"]: function for function in functions}
    new = [_function(by_address[physical], address) for physical in sorted(made, key=sort_key)
           for address in made[physical]]
    order = sorted(functions + new, key=lambda function: sort_key(function["address"]))
    predicted = prediction.predict(order, acs.of_machine(machine))
    groups = {address: group for group in predicted for address in group["members"]}
    names = {function["address"] for function in new}
    found = {}
    for function in new:
        group = groups.get(function["address"])
        if group is None:
            found[function["address"]] = {"members": [], "certain": True, "reasons": ["no IOMMU covers it"]}
            continue
        reasons, certain = list(group["reasons"]), group["confidence"] == "predicted"
        if not certain:
            reasons.append("this is not certain, since something on the way could not be read")
        physical = by_address[function["physfn"]]
        if physical["group"] is not None:
            own = set(groups[physical["address"]]["members"]) if physical["address"] in groups else set()
            if own - names != set(physical["group_members"]) - set(gone):
                certain = False
                reasons.append("the kernel has %s in another group than predicted, so this is not certain"
                               % physical["address"])
        found[function["address"]] = {"members": group["members"], "certain": certain, "reasons": reasons}
    return found


def existing(machine, addresses_):
    """The same of virtual functions that are there."""
    reasons = {address: group["reasons"] for group in machine["groups"] for address in group["members"]}
    by_address = {function["address"]: function for function in machine["functions"]}
    found = {}
    for address in addresses_:
        function = by_address.get(address)
        known = function is not None and function["group"] is not None
        found[address] = {"members": list(function["group_members"]) if known else [], "certain": known,
                          "reasons": list(reasons.get(address, [])) if known else ["it has no IOMMU group"]}
    return found


def isolated(address, group):
    """Whether a virtual function is alone in its group; None when that is not known."""
    if not group["certain"]:
        return None
    return group["members"] == [address]


def in_the_way(machine, address, members, ours):
    """Members of a group that stay on a driver of the host, with which the kernel calls no group viable.

    :param ours: addresses of virtual functions that are or will be on a driver for assignment, or on none.
    """
    functions = {function["address"]: function for function in machine["functions"]}
    return [member for member in members if member != address and member not in ours and member in functions
            and not stays(functions[member]) and functions[member]["driver"] not in HARMLESS
            and not asked.is_vfio(functions[member]["driver"])]
