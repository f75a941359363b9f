# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the user wrote about guests, checked and completed. Pure.

A guest here is a dict: name, state, autostart, memory (bytes), vcpus, devices
[{name, functions [{address, vendor, device}]}], disks [{path, format, size (bytes or None), readonly,
block}], network, kernel, initrd, cmdline, serial_log (str or None each), display (none or vnc).
An absent guest has only name and state.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import parse_size

_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$")
_ID = re.compile(r"^[0-9a-f]{4}$")
_MIB = 2**20


def normalise(raws):
    """Checked guests, in the user's order. Raises ValueError naming guest, option and remedy."""
    guests = [_guest(raw) for raw in raws]
    _refuse_twins(guests)
    return guests


def _guest(raw):
    name = _name(raw.get("name"))
    where = "guest %s" % name
    state = raw.get("state") or "running"
    if state not in ("running", "shutoff", "defined", "absent"):
        raise ValueError("%s: state %r; choose running, shutoff, defined or absent" % (where, state))
    if state == "absent":
        return {"name": name, "state": state}
    memory, vcpus = raw.get("memory"), raw.get("vcpus")
    for option, value in (("memory", memory), ("vcpus", vcpus)):
        if value is None:
            raise ValueError("%s: %s is missing" % (where, option))
    memory = parse_size(memory, "%s: memory" % where)
    if memory % _MIB:
        # QEMU rounds odd sizes up at start, so the running guest would never match what was asked.
        raise ValueError("%s: memory: %d bytes are not whole MiB; round to a multiple of 1 MiB" % (where, memory))
    if isinstance(vcpus, bool) or not isinstance(vcpus, int) or vcpus < 1:
        raise ValueError("%s: vcpus: %r; write a whole number from 1" % (where, vcpus))
    devices = _devices(raw.get("devices") or [], where)
    guest = {
        "name": name,
        "state": state,
        "autostart": bool(raw.get("autostart")),
        "memory": memory,
        "vcpus": vcpus,
        "devices": devices,
        "disks": [_disk(disk, where) for disk in raw.get("disks") or []],
        "network": _text(raw.get("network"), "%s: network" % where),
        "cmdline": _text(raw.get("cmdline"), "%s: cmdline" % where),
        "display": raw.get("display") or ("none" if devices else "vnc"),
    }
    for option in ("kernel", "initrd", "serial_log"):
        guest[option] = _path(raw.get(option), "%s: %s" % (where, option))
    for option in ("initrd", "cmdline"):
        if guest[option] and not guest["kernel"]:
            raise ValueError("%s: %s needs kernel, for it is handed to a kernel booted directly" % (where, option))
    if guest["display"] not in ("none", "vnc"):
        raise ValueError("%s: display %r; choose none or vnc" % (where, guest["display"]))
    if (raw.get("firmware") or "bios") != "bios":
        raise ValueError("%s: firmware %r; only bios is supported" % (where, raw.get("firmware")))
    return guest


def _name(name):
    text = _text(name, "guest name")
    if not text or "/" in text or text != text.strip() or text in (".", ".."):
        raise ValueError("guest name %r: use a name without slashes and without spaces around it" % (name,))
    return text


def _text(value, what):
    """None for nothing; control characters cannot stand in XML and never belong in these."""
    if value is None or value == "":
        return None
    text = str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("%s: %r has control characters; take them out" % (what, text))
    return text


def _path(value, what):
    path = _text(value, what)
    if path is not None and not path.startswith("/"):
        raise ValueError("%s: %r is not an absolute path on the host" % (what, path))
    return path


def _devices(raws, where):
    devices, seen = [], {}
    for raw in raws:
        name = _text(raw.get("name"), "%s: device name" % where)
        place = "%s: device %s" % (where, name)
        if not name or any(name == device["name"] for device in devices):
            raise ValueError("%s: device name %r is empty or used twice" % (where, name))
        functions = [_function(function, place) for function in raw.get("functions") or []]
        if not functions:
            raise ValueError("%s: no functions; name the PCI functions to assign" % place)
        if len(functions) > 8:
            raise ValueError("%s: %d functions do not fit one slot (8); split it" % (place, len(functions)))
        for function in functions:
            other = seen.setdefault(function["address"], name)
            if other != name or functions.count(function) > 1:
                raise ValueError("%s: %s is also in device %s" % (place, function["address"], other))
        devices.append({"name": name, "functions": sorted(functions, key=lambda item: item["address"])})
    return devices


def _function(raw, place):
    address = str(raw.get("address") or "").lower()
    if not _ADDRESS.match(address):
        raise ValueError("%s: %r is not a PCI address; write it like 0000:01:00.0" % (place, raw.get("address")))
    function = {"address": address}
    for key in ("vendor", "device"):
        value = raw.get(key)
        if value is not None and not _ID.match(str(value)):
            raise ValueError("%s: %s %r of %s is not four lower-case hex digits" % (place, key, value, address))
        function[key] = None if value is None else str(value)
    return function


def _disk(raw, where):
    path = _path(raw.get("path"), "%s: disk path" % where)
    if path is None:
        raise ValueError("%s: a disk has no path" % where)
    place = "%s: disk %s" % (where, path)
    kind = raw.get("format") or ("qcow2" if path.endswith(".qcow2") else "raw")
    if kind not in ("raw", "qcow2"):
        raise ValueError("%s: format %r; choose raw or qcow2" % (place, kind))
    if (raw.get("bus") or "virtio") != "virtio":
        raise ValueError("%s: bus %r; only virtio is supported" % (place, raw.get("bus")))
    size = raw.get("size")
    size = None if size in (None, "") else parse_size(size, "%s: size" % place)
    if size is not None and size % 512:
        raise ValueError("%s: size: %d bytes are not whole sectors of 512" % (place, size))
    block = path.startswith("/dev/")
    if block and size is not None:
        raise ValueError("%s: a block device is not created; leave out size" % place)
    return {"path": path, "format": kind, "size": size, "readonly": bool(raw.get("readonly")), "block": block}


def _refuse_twins(guests):
    names, functions, disks = set(), {}, {}
    for guest in guests:
        if guest["name"] in names:
            raise ValueError("guest %s is listed twice; names must differ" % guest["name"])
        names.add(guest["name"])
        paths = [disk["path"] for disk in guest.get("disks", [])]
        if len(set(paths)) != len(paths):
            raise ValueError("guest %s: a disk path is listed twice" % guest["name"])
        if guest["state"] != "running":
            continue
        for device in guest["devices"]:
            for function in device["functions"]:
                other = functions.setdefault(function["address"], guest["name"])
                if other != guest["name"]:
                    raise ValueError(
                        "guests %s and %s shall both run with %s; give it to one, or let one be defined or shutoff"
                        % (other, guest["name"], function["address"])
                    )
        for disk in guest["disks"]:
            other, readonly = disks.setdefault(disk["path"], (guest["name"], disk["readonly"]))
            if other != guest["name"] and not (readonly and disk["readonly"]):
                raise ValueError(
                    "guests %s and %s shall both run with disk %s; two guests that write one disk destroy it"
                    % (other, guest["name"], disk["path"])
                )
