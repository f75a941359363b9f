# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""PCI functions from sysfs, one pass over /sys/bus/pci/devices."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space, names

DEVICES = "/sys/bus/pci/devices"
PCI_IDS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
CONFIG_LIMIT = 4096

ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")

IORESOURCE = ((0x100, "io"), (0x200, "mem"), (0x2000, "prefetchable"), (0x100000, "64bit"))
"""Flag bits of a resource, Linux include/linux/ioport.h."""


def addresses_in(path):
    """PCI functions on a path below /sys/devices, from the root bus down."""
    return [part for part in path.split("/") if ADDRESS.match(part)]


def parse_uevent(text):
    """``{KEY: value}`` of a uevent file."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def parse_resources(text):
    """BARs and ROM from a ``resource`` file: ``[{bar, start, size, flags}]``, unused ones left out.

    ``bar`` is 0 to 5 or ``"rom"``; bridge windows and the BARs of virtual functions, which follow
    in the file, belong to others. ``start`` and ``size`` are ints, bytes.
    """
    resources = []
    for number, line in enumerate(text.splitlines()[:7]):
        try:
            start, end, flags = [int(field, 16) for field in line.split()]
        except ValueError:
            continue
        if flags:
            resources.append({
                "bar": "rom" if number == 6 else number,
                "start": start,
                "size": end - start + 1 if end > start else 0,
                "flags": [name for bit, name in IORESOURCE if flags & bit],
            })
    return resources


def read(inputs):
    """All PCI functions, sorted by address, without group and use (see groups, _usage)."""
    found = inputs.host.listdir(DEVICES)
    if not found:
        inputs.miss(DEVICES, "no PCI function is known")
    functions = [function for function in (_function(inputs, address) for address in found) if function]
    _note_unread(inputs, functions)
    _name(inputs, functions)
    return functions


def _function(inputs, address):
    host = inputs.host
    home = host.real("%s/%s" % (DEVICES, address))
    event = parse_uevent(host.read(home + "/uevent") or "")
    if "PCI_ID" not in event:
        inputs.miss(home + "/uevent", "the ids of %s are unknown; the function is left out" % address)
        return None
    vendor, device = event["PCI_ID"].lower().split(":")
    sub_vendor, sub_device = event.get("PCI_SUBSYS_ID", "0000:0000").lower().split(":")
    code = event.get("PCI_CLASS", "0").lower().zfill(6)
    override = host.read_attribute(home + "/driver_override")
    boot_vga = host.read_attribute(home + "/boot_vga") if code.startswith("03") else None
    config = host.read_bytes(home + "/config", CONFIG_LIMIT)
    described = config_space.describe(config)
    physfn = host.readlink(home + "/physfn")
    above = addresses_in(home)[:-1]
    function = {
        "address": address,
        "vendor": vendor,
        "device": device,
        "id": event["PCI_ID"].lower(),
        "subsystem_vendor": sub_vendor,
        "subsystem_device": sub_device,
        "class": code,
        "class_name": names.class_name(code),
        "vendor_name": None,
        "device_name": None,
        "revision": (host.read_attribute(home + "/revision") or "").replace("0x", "") or None,
        "driver": event.get("DRIVER"),
        "driver_override": override if override not in ("", "(null)") else None,
        "modules": [],
        "modalias": event.get("MODALIAS"),
        "parent": above[-1] if above else None,
        "physfn": physfn.rsplit("/", 1)[-1] if physfn else None,
        "boot_vga": boot_vga == "1" if boot_vga else None,
        "reset_methods": _reset_methods(host, home),
        "resources": parse_resources(host.read(home + "/resource") or ""),
        "irq": _int(host.read_attribute(home + "/irq")) or None,
        "numa_node": _node(host.read_attribute(home + "/numa_node")),
        "config_bytes": len(config or b""),
    }
    function.update(described)
    if function["is_bridge"] is None:
        function["is_bridge"] = code[:4] in ("0604", "0607")
    if not function["multifunction"]:
        # As the kernel does: function 1 and up are on a multifunction device, virtual functions never
        function["multifunction"] = not address.endswith(".0") and function["physfn"] is None
    return function


def _reset_methods(host, home):
    """Enabled reset methods in the kernel's order; ``["unknown"]`` before Linux 5.15, which names none."""
    text = host.read_attribute(home + "/reset_method")
    if text is None:
        return ["unknown"] if host.exists(home + "/reset") else []
    return text.split()


def _int(text):
    try:
        return int(text or "")
    except ValueError:
        return None


def _node(text):
    node = _int(text)
    return None if node is None or node < 0 else node


def _note_unread(inputs, functions):
    short = [f["address"] for f in functions if f["capabilities"] is None]
    if short:
        why = "the function does not answer" if inputs.host.privileged() else "only root may read beyond 64 bytes"
        inputs.miss("config of " + " ".join(short), "capabilities and port type unknown: " + why)
    plain = [f["address"] for f in functions if f["capabilities"] and not f["capabilities"]["complete"]]
    if plain:
        why = "ACS, ATS, SR-IOV and serial number unknown: 256 bytes only"
        inputs.miss("extended config of " + " ".join(plain), why)


def _name(inputs, functions):
    """Fill in vendor and device names and the modules that would claim each function."""
    if not functions:
        return
    host = inputs.host
    text = next((text for text in (host.read(path) for path in PCI_IDS) if text), None)
    if text is None:
        inputs.miss(PCI_IDS[0], "no vendor and device names")
    known = names.pci_names(text or "", {(f["vendor"], f["device"]) for f in functions})
    release = host.read_attribute("/proc/sys/kernel/osrelease") or ""
    aliases = inputs.text("/lib/modules/%s/modules.alias" % release, "which modules would claim a function is unknown")
    modules = names.modules_for(aliases, {f["modalias"] for f in functions if f["modalias"]})
    for function in functions:
        function["vendor_name"], function["device_name"] = known[(function["vendor"], function["device"])]
        function["modules"] = modules.get(function["modalias"], [])
