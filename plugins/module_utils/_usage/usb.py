# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What hangs off the USB controllers, and the host's only keyboard.

Sources: /sys/bus/usb/devices; /proc/bus/input/devices for keyboards on other ways (the board's own, Bluetooth).
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

FINDING = "VH207"
DEVICES = "/sys/bus/usb/devices"
INPUT = "/proc/bus/input/devices"

DEVICE = re.compile(r"^(\d+)-(\d+)(?:\.\d+)*$")
INTERFACE = re.compile(r"^(\d+-\d+(?:\.\d+)*):\d+\.\d+$")

KINDS = (
    ("09", "hub"), ("030101", "keyboard"), ("030102", "mouse"), ("08", "storage"),
    ("0206", "network"), ("020a", "network"), ("020c", "network"), ("020d", "network"), ("020e", "network"),
    ("0202ff", "network"), ("e00103", "network"), ("ef0401", "network"),
    ("e00101", "bluetooth"), ("01", "audio"), ("0e", "video"),
)
"""Beginning of class, subclass and protocol of an interface (usb.org's class codes) -> kind. Of networks: CDC
Ethernet, mobile, EEM, NCM, MBIM, and the three spellings of RNDIS."""

REPEAT = 1 << 0x14
LETTERS = 0xFFFFFFFE
"""A keyboard repeats (EV_REP) and has all of the first 31 keys; a power button has neither."""


def read(inputs, functions):
    """``{controller's address: [{path, id, product, kinds, port}]}`` of controllers whose buses the host has.

    ``path`` is the kernel's name (``1-3.2``: bus, port, port of the hub there), ``port`` the controller's own port
    (``usb1-port3``).
    """
    host = inputs.host
    found, interfaces, typed = {}, {}, _typed(host)
    known = {function["address"] for function in functions if function["class"].startswith("0c03")}
    homes = {name: host.real("%s/%s" % (DEVICES, name)) for name in host.listdir(DEVICES)}
    for name, home in homes.items():
        interface = INTERFACE.match(name)
        if interface:
            interfaces.setdefault(interface.group(1), []).append(home)
        elif re.match(r"^usb\d+$", name):
            for address in pci.addresses_in(home)[-1:]:
                found.setdefault(address, [])
    for name in sorted(homes, key=_natural):
        device, addresses = DEVICE.match(name), pci.addresses_in(homes[name])
        if device and addresses:
            kinds = _kinds(host, homes[name], interfaces.get(name, ()), typed)
            found.setdefault(addresses[-1], []).append(_device(host, name, homes[name], device, kinds))
    if not homes and any(function["driver"] for function in functions if function["address"] in known):
        inputs.miss(DEVICES, "what hangs off the USB controllers is unknown")
    return {address: devices for address, devices in found.items() if address in known}


def _natural(name):
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _device(host, name, home, match, kinds):
    found = host.read_folder(home, ("idVendor", "idProduct", "product"), 4096)
    raw = {key: _text(value) for key, value in found.items()}
    ids = raw["idVendor"].lower(), raw["idProduct"].lower()
    return {
        "path": name,
        "id": "%s:%s" % ids if all(re.match(r"^[0-9a-f]{4}$", part) for part in ids) else None,
        "product": raw["product"] or None,
        "kinds": kinds,
        "port": "usb%s-port%s" % match.groups(),
    }


def _text(data):
    return (data or b"").rstrip(b"\0").decode("utf-8", "backslashreplace").strip()


def _kinds(host, home, interfaces, typed):
    """What a device is, from its interfaces; a network driver or a keyboard below it counts as well."""
    kinds = {"hub"} if host.read_attribute(home + "/bDeviceClass") == "09" else set()
    for interface in interfaces:
        parts = host.read_folder(interface, ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"), 64)
        code = "".join(_text(parts[key]).lower() for key in parts)
        kinds.update(kind for beginning, kind in KINDS if code.startswith(beginning))
        if "net" in host.listdir(interface):
            kinds.add("network")
        if any(path.startswith(interface + "/") and "/bluetooth/" not in path for path in typed):
            kinds.add("keyboard")
    return sorted(kinds) or ["other"]


def parse_keyboards(text):
    """Paths in sysfs of the keyboards that /proc/bus/input/devices lists, ``/sys`` in front."""
    found = []
    for entry in text.split("\n\n"):
        path = re.search(r"^S: Sysfs=(\S+)", entry, re.MULTILINE)
        events = re.search(r"^B: EV=([0-9a-f]+)", entry, re.MULTILINE)
        keys = re.search(r"^B: KEY=(?:.* )?([0-9a-f]+)\s*$", entry, re.MULTILINE)
        if not (path and events and keys):
            continue
        if int(events.group(1), 16) & REPEAT and int(keys.group(1), 16) & LETTERS == LETTERS:
            found.append("/sys" + path.group(1))
    return found


def _typed(host):
    return parse_keyboards(host.read(INPUT) or "")


def use(inputs, functions):
    """``(uses, unknowns)``: the controller with all the keyboards that the host has. ``usb_devices`` are set already.

    A keyboard that hangs off no PCI function (the board's own) speaks for the host to keep one anyhow.
    """
    keyboards = {}
    for function in functions:
        for device in function["usb_devices"] or ():
            if "keyboard" in device["kinds"]:
                keyboards.setdefault(function["address"], []).append(device["path"])
    for path in _typed(inputs.host):
        address = (pci.addresses_in(path) or [None])[-1]
        keyboards.setdefault(address, []).append("Bluetooth" if "/bluetooth/" in path else path.rpartition("/")[2])
    if len(keyboards) != 1:
        return [], []
    address = list(keyboards)[0]
    paths = keyboards[address]
    if address not in {function["address"] for function in functions if function["class"].startswith("0c03")}:
        return [], []
    chain = ["the only keyboard", paths[0], address]
    return [{"kind": "usb", "what": chain[0], "chain": chain, "function": address, "finding": FINDING}], []
