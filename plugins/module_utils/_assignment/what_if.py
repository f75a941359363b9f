# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document as it would be under other assumptions: predicted, never known. Pure."""

from __future__ import annotations

import copy
import re

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import normalise, slot_of, sort_key
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import functions_of
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, names, pci, prediction

OPTIONS = ("override_acs", "kernel", "iommu", "remove", "move", "add")
_ONE_SLOT = ("root_port", "downstream_port")
_OVERRIDE = re.compile(r"^(downstream|multifunction|id:[0-9a-f]{4}:[0-9a-f]{4})$")
_ID = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")
_CLASS = re.compile(r"^[0-9a-f]{6}$")

_IOMMU_OFF = ("iommu=off", "intel_iommu=off", "amd_iommu=off")
_TABLES = {"GenuineIntel": "DMAR", "AuthenticAMD": "IVRS"}
_VENDORS = {"DMAR": "intel", "IVRS": "amd"}

_OF_ONE_CARD = {
    "driver": None, "driver_override": None, "serial": None, "used_by": [], "usb_devices": None, "holders": None,
    "irq": None, "rmrr": None, "power_state": None,
}
"""What a second card of the same kind does not have from the first."""

_GIVEN = ("id", "class", "subsystem_vendor", "subsystem_device", "vendor_name", "device_name", "port_type",
          "capabilities", "resources", "link")
"""What may be told of a function of a new card."""

_CAPABILITIES = {
    "complete": True, "acs": None, "ats": False, "flr": False, "af_flr": False, "msi": True, "msix": False,
    "power_management": True, "no_soft_reset": None, "sriov": None,
}
"""Of a function of a new card of which nothing is told: a card without ACS, as nearly all are."""


def what_if(machine, changes):
    """A new machine document: the machine with ``changes``, its groups predicted.

    :param changes: a dict of any of OPTIONS, done in this order:
        ``override_acs``: words of the override patch's option; ``kernel``: release or series whose quirk tables are
        used, or ``all``; ``iommu``: true takes for granted that the firmware offers one and nothing turns it off;
        ``remove``: ``[slot]``; ``move``: ``[{device: slot, to: port}]``; ``add``: ``[{to: port, like: slot}]``,
        ``[{to: port, functions: [{id, class, ...}]}]`` or ``[{port: new address, like: port}]``.
    ``source.what_if`` has the changes, and ``moved``, ``{old address: new address or null}``. With ``override_acs``,
    ``groups`` are what the patch would have the kernel form, and ``predicted_groups`` and ``isolates`` stay what
    the hardware does: a plan goes by these. Raises ValueError naming value, place and remedy.
    """
    functions_of(machine)
    changes = _checked(changes)
    result = copy.deepcopy(machine)
    topology = _Topology(result["functions"])
    for number, slot in enumerate(changes.get("remove", [])):
        topology.remove(slot, "remove[%d]" % number)
    for number, entry in enumerate(changes.get("move", [])):
        topology.move(entry["device"], entry["to"], "move[%d]" % number)
    originals = _Topology(copy.deepcopy(machine["functions"]))
    for number, entry in enumerate(changes.get("add", [])):
        _add(topology, originals, entry, "add[%d]" % number)
    moved = {old: new for old, new in topology.now.items() if old != new}
    result["functions"] = topology.sorted()
    for function in result["functions"]:
        function.update(group=None, group_members=[], confidence="unknown")
        for use in function["used_by"]:
            use["chain"] = [moved.get(part) or part for part in use["chain"]]
    _rename_in_host(result["host"], moved)
    _assume(result["host"], changes)
    result["source"]["what_if"] = dict(changes, moved=moved)
    result["groups"] = []
    return _overridden(result, changes["override_acs"]) if "override_acs" in changes else _machine.complete(result)


def _overridden(machine, words):
    """Complete a document whose groups are those of a kernel with the override patch."""
    taken = dict(acs.of_machine(machine), override_acs=tuple(words))
    machine["groups"] = prediction.predict(machine["functions"], taken)
    reasons = [group["reasons"] for group in machine["groups"]]
    groups = {a: group for group in machine["groups"] for a in group["members"]}
    for function in machine["functions"]:
        if function["address"] in groups:
            group = groups[function["address"]]
            function.update(group_members=group["members"], confidence=group["confidence"])
    _machine.complete(machine)  # which finds the reasons of groups in the hardware, where these have none
    for group, why in zip(machine["groups"], reasons):
        group["reasons"] = why
    return machine


def compare(before, after):
    """Functions whose group is another one: ``[{address, was, before, after}]``, sorted by address.

    ``address`` is the function's in ``after``, ``was`` the one in ``before``; null where it is not in that document.
    ``before`` and ``after`` are the members of its group, null for no group. Members that only moved are the same.
    """
    known = {function["address"] for function in functions_of(before)}
    there = {function["address"] for function in functions_of(after)}
    moved = (after["source"].get("what_if") or {}).get("moved", {})
    now = {address: moved.get(address, address if address in there else None) for address in known}
    was = {new: old for old, new in now.items() if new is not None}
    old_groups, new_groups = [{a: g["members"] for g in m["groups"] for a in g["members"]} for m in (before, after)]
    changed = []
    for address in sorted(there | {a for a in known if now[a] is None}, key=sort_key):
        old, new = (was.get(address), address) if address in there else (address, None)
        first, second = old_groups.get(old), new_groups.get(new)
        if old is None or new is None or {now.get(a, a) for a in first or ()} != set(second or ()):
            changed.append({"address": new, "was": old, "before": first, "after": second})
    return changed


# -- input -----------------------------------------------------------------------------------------


def _checked(changes):
    unknown = sorted(set(changes) - set(OPTIONS))
    if unknown:
        raise ValueError("%s: not known; there are %s" % (", ".join(unknown), ", ".join(OPTIONS)))
    given = {name: value for name, value in changes.items() if value not in (None, [], False)}
    for name in ("override_acs", "remove", "move", "add"):
        if not isinstance(given.get(name, []), list):
            raise ValueError("%s: %r is no list; write one, even of one entry" % (name, given[name]))
    for word in given.get("override_acs", []):
        if not isinstance(word, str) or not _OVERRIDE.match(word):
            raise ValueError("override_acs: %r is no word of the patch's option; write downstream, multifunction or an "
                             "id like id:10de:1380" % (word,))
    kernel = given.get("kernel")
    if kernel is not None and not isinstance(kernel, str):
        raise ValueError('kernel: %r is not text; put the series in quotes: "6.10"' % (kernel,))
    if kernel not in (None, "all") and acs.release(kernel) is None:
        raise ValueError("kernel: %r is no kernel; write a series or release like 6.12, or all" % kernel)
    if not isinstance(given.get("iommu", True), bool):
        raise ValueError("iommu: %r is neither true nor false" % (given["iommu"],))
    for number, entry in enumerate(given.get("move", [])):
        _keys(entry, "move[%d]" % number, [("device", "to")])
    for number, entry in enumerate(given.get("add", [])):
        _keys(entry, "add[%d]" % number, [("to", "like"), ("to", "functions"), ("port", "like")])
    return given


def _keys(entry, place, forms):
    if not isinstance(entry, dict) or tuple(sorted(entry)) not in [tuple(sorted(form)) for form in forms]:
        raise ValueError("%s: %r is not in order; write a mapping with %s" % (
            place, entry, ", or with ".join(" and ".join(form) for form in forms)))


# -- topology --------------------------------------------------------------------------------------


class _Topology:
    """Functions that can be taken out, moved and added. ``now``: ``{address at first: address now, or None}``."""

    def __init__(self, functions):
        self.functions = {function["address"]: function for function in functions}
        self.now = {address: address for address in self.functions}

    def sorted(self):
        return [self.functions[address] for address in sorted(self.functions, key=sort_key)]

    def card(self, value, place):
        """Addresses of a slot's functions, their virtual functions, and all below them, in order."""
        slot = slot_of(normalise(value, place))
        found = {a for a in self.functions if slot_of(a) == slot}
        if not found:
            raise ValueError("%s: there is nothing in slot %s; lspci -D lists what there is" % (place, slot))
        if all(self.functions[a]["physfn"] is not None for a in found):
            raise ValueError("%s: %s is a virtual function, part of the card at %s; give that one" % (
                place, slot, slot_of(self.functions[min(found)]["physfn"])))
        size = 0
        while size != len(found):
            size = len(found)
            found |= {a for a, f in self.functions.items() if f["parent"] in found or f["physfn"] in found}
        return slot, sorted(found, key=sort_key)

    def port(self, value, place):
        address = normalise(value, place)
        port = self.functions.get(address)
        if port is None or not port["is_bridge"]:
            raise ValueError("%s: %s is %s; give the address of a port or bridge, such as %s" % (
                place, address, "not there" if port is None else "no bridge (%s)" % port["class_name"],
                ", ".join([f["address"] for f in self.sorted() if f["is_bridge"]][:4]) or "none, there is no bridge"))
        return port

    def remove(self, value, place):
        for address in self.card(value, place)[1]:
            del self.functions[address]
            self.now.update({old: None for old, new in self.now.items() if new == address})

    def move(self, value, to, place):
        slot, card = self.card(value, place + ".device")
        port = self.port(to, place + ".to")
        if port["address"] in card:
            raise ValueError("%s.to: %s is on the card itself; give a port outside of it" % (place, port["address"]))
        if self.functions[card[0]]["parent"] is None:
            raise ValueError("%s.device: %s is on a root bus, so it is part of the processor or the chipset; give a "
                             "card behind a port" % (place, slot))
        renamed = self.plug(slot, {address: self.functions.pop(address) for address in card}, port, place)
        self.now.update({old: renamed[new] for old, new in self.now.items() if new in renamed})

    def plug(self, slot, card, port, place):
        """Put functions ``{address: function}``, of which those in ``slot`` are the card itself, behind a port.

        Returns ``{address: address it has there}``.
        """
        domain = port["address"].split(":")[0]
        behind = self._behind(port)
        first = (port["bus"] or {}).get("secondary") or (
            int(behind[0].split(":")[1], 16) if behind else self._free_bus(domain, place))
        buses = {slot.rpartition(":")[0]: first}
        port["bus"] = {"secondary": first, "subordinate": first}
        for address in card:
            bus = address.rpartition(":")[0]
            if bus not in buses:
                buses[bus] = self._free_bus(domain, place, buses.values())
        number = self._free_slot(port, behind, int(slot.rpartition(":")[2], 16), place)
        renamed = {}
        for address in card:
            device, function = address.rpartition(":")[2].split(".")
            if slot_of(address) == slot:
                device = "%02x" % number
            renamed[address] = "%s:%02x:%s.%s" % (domain, buses[address.rpartition(":")[0]], device, function)
        parents = {address: function["parent"] for address, function in card.items()}
        for old, function in card.items():
            top = slot_of(old) == slot or function["physfn"] is not None and slot_of(function["physfn"]) == slot
            function.update(
                address=renamed[old],
                parent=port["address"] if top else renamed[parents[old]],
                physfn=renamed.get(function["physfn"]),
                numa_node=port["numa_node"],
            )
            if function["bus"] and function["bus"]["secondary"]:
                below = [int(renamed[a].split(":")[1], 16) for a in card if old in _chain(parents, a)]
                secondary = buses.get("%s:%02x" % (old.split(":")[0], function["bus"]["secondary"]))
                secondary = secondary or self._free_bus(domain, place, buses.values())
                buses[old] = secondary
                function["bus"] = {"secondary": secondary, "subordinate": max(below + [secondary])}
            if slot_of(old) == slot:
                function["link"] = _link(function["link"], port["link"])
            self.functions[renamed[old]] = function
        port["bus"]["subordinate"] = max(buses.values())
        return renamed

    def _behind(self, port):
        """Addresses of the functions right behind a port, virtual ones aside."""
        return sorted((a for a, f in self.functions.items() if f["parent"] == port["address"] and f["physfn"] is None),
                      key=sort_key)

    @staticmethod
    def _free_slot(port, behind, wanted, place):
        if behind and port["port_type"] in _ONE_SLOT:
            raise ValueError("%s.to: %s is behind port %s already, which has one slot; remove or move that first" % (
                place, slot_of(behind[0]), port["address"]))
        if port["port_type"] in _ONE_SLOT:
            return 0
        taken = {int(slot_of(a).rpartition(":")[2], 16) for a in behind}
        free = [slot for slot in [wanted] + list(range(32)) if slot not in taken]
        if not free:
            raise ValueError("%s.to: all 32 slots behind %s are taken" % (place, port["address"]))
        return free[0]

    def _free_bus(self, domain, place, more=()):
        used = {int(a.split(":")[1], 16) for a in self.functions if a.split(":")[0] == domain} | set(more)
        used |= {f["bus"]["secondary"] for a, f in self.functions.items() if f["bus"] and a.split(":")[0] == domain}
        free = [number for number in (max(used) + 1, *range(1, 256)) if number not in used and number < 256]
        if not free:
            raise ValueError("%s: domain %s has no bus number left" % (place, domain))
        return free[0]


def _chain(parents, address):
    """What is above an address, as far as ``{address: parent}`` says."""
    chain = []
    here = parents[address]
    while here in parents and here not in chain:
        chain.append(here)
        here = parents[here]
    return chain


def _link(card, port):
    """The link that a card gets in a port; None where one of them is not known."""
    if not card or not port:
        return card and dict(card, speed=None, width=None)
    return dict(card, **{
        now: min(card[most], port[most]) if card[most] and port[most] else None
        for now, most in (("speed", "max_speed"), ("width", "max_width"))})


def _add(topology, originals, entry, place):
    if "port" in entry:
        _add_port(topology, originals, entry, place)
        return
    port = topology.port(entry["to"], place + ".to")
    if "functions" in entry:
        card = _new_card(entry["functions"], port, place + ".functions")
        topology.plug("0000:00:00", card, port, place)
        return
    slot, addresses = originals.card(entry["like"], place + ".like")
    card = {a: _another(originals.functions[a]) for a in addresses if originals.functions[a]["physfn"] is None}
    if port["address"] in card:
        raise ValueError("%s.to: %s is on the card that is copied; give another port" % (place, port["address"]))
    topology.plug(slot, card, port, place)


def _another(function):
    """A function of a second card of the same kind."""
    result = copy.deepcopy(function)
    result.update(copy.deepcopy(_OF_ONE_CARD), boot_vga=None if function["boot_vga"] is None else False)
    sriov = (result["capabilities"] or {}).get("sriov")
    if sriov:
        sriov["num_vfs"] = 0
    return result


def _add_port(topology, originals, entry, place):
    """An empty port at a free address, beside one that it is like."""
    like = originals.port(entry["like"], place + ".like")
    address = normalise(entry["port"], place + ".port")
    if address in topology.functions or slot_of(address) == address:
        raise ValueError("%s.port: %s is %s; give a free function such as %s.1" % (
            place, address, "taken" if address in topology.functions else "a slot", slot_of(like["address"])))
    if address.rpartition(":")[0] != like["address"].rpartition(":")[0]:
        raise ValueError("%s.port: %s is on another bus than %s, which it is to be like; give an address on its bus" % (
            place, address, like["address"]))
    port = _another(like)
    port.update(address=address, bus=None)
    topology.functions[address] = port
    mates = [f for a, f in topology.functions.items() if slot_of(a) == slot_of(address) and f["physfn"] is None]
    for function in mates if len(mates) > 1 else ():
        function["multifunction"] = True


def _new_card(described, port, place):
    """``{address: function}`` of a card that somebody describes; the addresses are placeholders."""
    if not isinstance(described, list) or not 1 <= len(described) <= 8:
        raise ValueError("%s: %r is no list of one to eight functions" % (place, described))
    behind_express = port["port_type"] in _ONE_SLOT
    card = {}
    for number, given in enumerate(described):
        spot = "%s[%d]" % (place, number)
        unknown = sorted(set(given) - set(_GIVEN)) if isinstance(given, dict) else []
        if not isinstance(given, dict) or unknown:
            raise ValueError("%s: %s; a function has id and class, and may have %s" % (
                spot, "unknown key " + ", ".join(unknown) if unknown else "%r is no mapping" % (given,),
                ", ".join(_GIVEN[2:])))
        for key, form, like in (("id", _ID, "10de:1380"), ("class", _CLASS, "030000")):
            if not isinstance(given.get(key), str) or not form.match(given[key]):
                raise ValueError('%s.%s: %r; write it in quotes, like "%s"' % (spot, key, given.get(key), like))
        function = pci.blank("0000:00:00.%d" % number)
        function.update(
            vendor=given["id"][:4],
            device=given["id"][5:],
            class_name=names.class_name(given["class"]),
            is_bridge=False,
            multifunction=len(described) > 1,
            port_type="endpoint" if behind_express else "conventional",
        )
        function.update(copy.deepcopy(given))
        function["capabilities"] = dict(_CAPABILITIES, **(given.get("capabilities") or {}))
        function["used_by"] = []
        card[function["address"]] = function
    return card


# -- the rest of the document ----------------------------------------------------------------------


def _rename_in_host(host, moved):
    for holder in host["network"]["interfaces"] + [host["framebuffer"] or {}]:
        if holder.get("function") in moved:
            holder["function"] = moved[holder["function"]]


def _assume(host, changes):
    """Change the host section as the changes say."""
    kernel, iommu = host["kernel"], host["iommu"]
    if "kernel" in changes:
        kernel["release"] = None if changes["kernel"] == "all" else changes["kernel"]
        kernel["quirk_table"] = acs.quirk_table(changes["kernel"])
    if "override_acs" in changes:
        kernel["acs_override"] = ",".join(changes["override_acs"])
    if changes.get("iommu"):
        kernel["cmdline"] = " ".join(token for token in kernel["cmdline"].split() if token not in _IOMMU_OFF)
        iommu["firmware_table"] = iommu["firmware_table"] or _TABLES.get(host["cpu"]["vendor"])
        iommu["vendor"] = iommu["vendor"] or _VENDORS.get(iommu["firmware_table"])
