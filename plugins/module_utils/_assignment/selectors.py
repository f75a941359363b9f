# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions a device entry of the user means. Pure; JMESPath comes in as ``matcher``."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import device_of, normalise, slot_of, sort_key
from ansible_collections.vfio.host.plugins.module_utils._binding.variants import BEST
from ansible_collections.vfio.host.plugins.module_utils._sriov import prediction

SELECTORS = ("address", "id", "match", "slot", "serial", "behind", "usb_of", "vf_of")
KEYS = ("name",) + SELECTORS + ("index", "functions", "count", "exclude", "driver")
MAX_CANDIDATES = 40
"""Rows of a candidate table at most: a server has hundreds of functions."""

_ID = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")
_SERIAL = re.compile(r"^[0-9a-f]{2}(-[0-9a-f]{2}){7}$")
_USB = re.compile(r"^(\d+-\d+(\.\d+)*|usb\d+-port\d+)$")


def select(machine, spec, matcher):
    """The functions one device entry selects, sorted by address.

    :param machine: machine document (schema 2).
    :param spec: ``{name, address | id | match | slot | serial | behind | usb_of | vf_of, index: number of a virtual
        function, functions: all|listed, count: slots, exclude: [address, slot or id], driver}``; the driver is the plan's.
    :param matcher: ``(expression, functions) -> functions``; raises ValueError on a bad expression.
    Raises ValueError naming the device, the value and the remedy; where the selection is not
    exactly ``count`` slots (default 1) the message holds a table of the candidates. A virtual function counts by
    itself, wherever it is, and is not part of its physical one: unbound, that one would take it away.
    """
    name, selector = check_spec(spec)
    functions = sorted(functions_of(machine), key=lambda f: sort_key(f["address"]))
    left_out = _excluded(functions, name, spec.get("exclude") or [])
    matched = _matched(functions, name, selector, spec[selector], matcher)
    if spec.get("index") is not None:
        matched = _numbered(functions, name, spec[selector], spec["index"], matched)
    excluded = [f for f in matched if f["address"] in left_out]
    matched = [f for f in matched if f["address"] not in left_out]
    found = {f["address"] for f in matched}
    matched = [f for f in matched if f.get("physfn") not in found]
    devices = {device_of(f) for f in matched}
    wanted = spec.get("count", 1)
    if len(devices) != wanted:
        raise ValueError(_miscount(name, selector, spec[selector], functions, matched, excluded, len(devices), wanted))
    if spec.get("functions", "all") == "listed":
        return matched
    return [f for f in functions if device_of(f) in devices and f["address"] not in left_out]


def _excluded(functions, name, given):
    """Addresses that an entry leaves out; an item that leaves nothing out is an error, since it is a slip."""
    if not isinstance(given, list):
        raise ValueError("device %s: exclude is %r; it is a list of addresses, slots and ids" % (name, given))
    found = set()
    for item in given:
        place = "device %s, exclude" % name
        if isinstance(item, str) and _ID.match(item.strip().lower()):
            hits = {f["address"] for f in functions if f["id"] == item.strip().lower()}
        else:
            address = normalise(item, place)
            hits = {f["address"] for f in functions if address in (f["address"], slot_of(f["address"]))}
        if not hits:
            raise ValueError("%s: %s is nothing on this machine" % (place, item))
        found |= hits
    return found


def functions_of(machine):
    """``machine['functions']`` once the document is one we can read; else ValueError."""
    if not isinstance(machine, dict) or machine.get("schema") != 2 or not isinstance(machine.get("functions"), list):
        raise ValueError(
            "the machine document is not one of schema 2 with a list of functions (found schema %r); "
            "pass what vfio.host.iommu_info returns as 'machine'"
            % (machine.get("schema") if isinstance(machine, dict) else machine)
        )
    return machine["functions"]


def check_spec(spec):
    """``(name, selector key)`` of a device entry in order; else ValueError."""
    if not isinstance(spec, dict):
        raise ValueError("a device entry must be a mapping with a name and a selector, not %r" % (spec,))
    name = spec.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the device entry %r has no name; give it one, guests refer to it" % (spec,))
    unknown = sorted(str(key) for key in spec if key not in KEYS)
    if unknown:
        raise ValueError(
            "device %s: unknown key%s %s; known keys are %s"
            % (name, "s" if len(unknown) > 1 else "", ", ".join(unknown), ", ".join(KEYS))
        )
    given = [key for key in SELECTORS if spec.get(key) is not None]
    if len(given) != 1:
        raise ValueError(
            "device %s: exactly one of %s selects it, found %s"
            % (name, ", ".join(SELECTORS), " and ".join(given) or "none")
        )
    if spec.get("functions", "all") not in ("all", "listed"):
        raise ValueError("device %s: functions is %r; it is all or listed" % (name, spec["functions"]))
    count = spec.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError("device %s: count is %r; it is a number of slots, 1 or more" % (name, count))
    index = spec.get("index")
    if index is not None and given[0] != "vf_of":
        raise ValueError("device %s: index goes with vf_of, the physical function, and not with %s" % (name, given[0]))
    if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
        raise ValueError("device %s: index is %r; it is the number of a virtual function, 0 or more" % (name, index))
    driver = spec.get("driver")
    if driver is not None and driver != BEST and not asked.is_vfio(driver):
        raise ValueError("device %s: driver is %r; it is %s, a variant of it like mlx5_vfio_pci, or %s"
                         % (name, driver, asked.DRIVER, BEST))
    return name, given[0]


def _matched(functions, name, selector, value, matcher):
    place = "device %s, %s" % (name, selector)
    if selector in ("address", "slot"):
        address = normalise(value, place)
        if selector == "slot" and "." in address:
            raise ValueError("%s: %s is a function; write its slot, %s" % (place, value, slot_of(address)))
        return [f for f in functions if address in (f["address"], slot_of(f["address"]))]
    if not isinstance(value, str):
        raise ValueError("%s: %r is not text; put the value in quotes" % (place, value))
    if selector == "id":
        identifier = value.strip().lower()
        if not _ID.match(identifier):
            raise ValueError("%s: %r is not an id; write vendor:device like 10de:1380" % (place, value))
        return [f for f in functions if f["id"] == identifier]
    if selector in _BY_TEXT:
        return _BY_TEXT[selector](functions, value.strip().lower(), place)
    try:
        addresses = {f["address"] for f in matcher(value, functions)}
    except ValueError as exc:
        raise ValueError("%s: %s" % (place, exc)) from exc
    return [f for f in functions if f["address"] in addresses]


def _by_serial(functions, value, place):
    number = value.replace(":", "-")
    if not _SERIAL.match(number):
        raise ValueError("%s: %r is not a serial number; write it like 52-54-00-ff-ff-12-34-56" % (place, value))
    return [f for f in functions if f.get("serial") == number]


def _behind(functions, value, place):
    """Everything below a bridge but the bridges there, whatever the numbers of the buses are today."""
    address = normalise(value, place)
    parents = {f["address"]: f.get("parent") for f in functions}
    if not any(f["address"] == address and f.get("is_bridge") for f in functions):
        raise ValueError("%s: %s is no bridge of this machine; write the address of a port" % (place, value))

    def below(at):
        for dummy in parents:
            at = parents.get(at)
            if at is None or at == address:
                break
        return at == address

    return [f for f in functions if not f.get("is_bridge") and below(f["address"])]


def _usb_of(functions, value, place):
    """The controller of a USB port (``1-3``, ``usb1-port3``), or that of a plugged device's id."""
    if not _USB.match(value) and not _ID.match(value):
        raise ValueError("%s: %r is no USB port; write 1-3 or usb1-port3, as in /sys/bus/usb/devices, or the id of a device "
                         "that is plugged in there, like 046d:c52b" % (place, value))
    return [f for f in functions
            if any(value in (device["path"], device["port"], device["id"]) for device in f.get("usb_devices") or ())]


def _vf_of(functions, value, place):
    """All virtual functions of a physical one."""
    address = normalise(value, place)
    if address == slot_of(address):
        raise ValueError("%s: %s is a slot; write the physical function, like %s.0" % (place, value, address))
    physical = next((f for f in functions if f["address"] == address), None)
    if physical is None:
        raise ValueError("%s: %s is no function of this machine; write the address of a physical one" % (place, value))
    if physical.get("physfn"):
        raise ValueError("%s: %s is a virtual function itself; write its physical one, %s"
                         % (place, value, physical["physfn"]))
    found = [f for f in functions if f.get("physfn") == address]
    if not found:
        raise ValueError("%s: %s has no virtual functions now; make them first (role sriov)" % (place, address))
    return found


_BY_TEXT = {"serial": _by_serial, "behind": _behind, "usb_of": _usb_of, "vf_of": _vf_of}


def _numbered(functions, name, physical, index, virtual):
    """The one of ``virtual`` that the kernel calls ``virtfn<index>`` at the function they are all of."""
    place, physical = "device %s, index" % name, normalise(physical, "device %s, vf_of" % name)
    if index >= len(virtual):
        raise ValueError("%s: there is no virtual function %d of %s: there are %d, from 0 on; make more (role sriov), or write "
                         "another number" % (place, index, physical, len(virtual)))
    try:
        wanted = prediction.addresses(next(f for f in functions if f["address"] == physical), index + 1)[index]
    except ValueError as exc:
        raise ValueError("%s: which of the virtual functions of %s is number %d is not known: %s. Probe as root, or "
                         "select it by address" % (place, physical, index, exc)) from exc
    found = [f for f in virtual if f["address"] == wanted]
    if not found:
        raise ValueError("%s: virtual function %d of %s should be %s, and is not there; select it by address"
                         % (place, index, physical, wanted))
    return found


def _miscount(name, selector, value, functions, matched, excluded, found, wanted):
    text = "device %s: %s %r selects %d device%s, wanted %d" % (
        name, selector, value, found, "" if found == 1 else "s", wanted)
    if found:
        hint = "tell them apart by address, or give count: %d if all of them are meant" % found
        rows = matched
    elif excluded:
        which = "all %d functions that match" % len(excluded) if len(excluded) > 1 else "the one function that matches"
        hint = "exclude leaves out %s; take one out of it, or select others" % which
        rows = excluded
    else:
        hint = "nothing on this machine matches"
        rows = [f for f in functions if not f.get("is_bridge")] or functions
    return "%s; %s. Candidates:\n%s" % (text, hint, candidates(rows))


def candidates(functions):
    """A table of functions as text: address, id, class, driver and the group's other members."""
    rows = [("ADDRESS", "ID", "CLASS", "DRIVER", "GROUP WITH")]
    for function in functions[:MAX_CANDIDATES]:
        others = [a for a in function.get("group_members") or [] if a != function["address"]]
        if not function["group_members"]:
            others = ["no group"]
        rows.append((
            function["address"],
            function["id"],
            function["class_name"],
            function.get("driver") or "-",
            " ".join(others) or "-",
        ))
    lines = table(rows)
    if len(functions) > MAX_CANDIDATES:
        lines.append("  ... and %d more" % (len(functions) - MAX_CANDIDATES))
    return "\n".join(lines)


def table(rows, indent="  "):
    """Lines with the columns of ``rows`` (equally long tuples of str) under one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip()
        for row in rows
    ]
