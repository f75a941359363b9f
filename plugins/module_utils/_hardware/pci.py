# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""PCI functions from sysfs, one pass over /sys/bus/pci/devices."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space, names
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

DEVICES = "/sys/bus/pci/devices"
PCI_IDS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
CONFIG_LIMIT = 4096

ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")

IORESOURCE = ((0x100, "io"), (0x200, "mem"), (0x2000, "prefetchable"), (0x100000, "64bit"))
"""Flag bits of a resource, Linux include/linux/ioport.h."""


_UNUSED = "0x0000000000000000 0x0000000000000000 0x0000000000000000"


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
        if line == _UNUSED:
            continue
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


def blank(address):
    """A function of which nothing but its address is known: every field of the document."""
    function = {
        "address": address,
        "parent": None,
        "vendor": "ffff",
        "device": "ffff",
        "id": "ffff:ffff",
        "subsystem_vendor": "0000",
        "subsystem_device": "0000",
        "class": "ff0000",
        "class_name": "other",
        "vendor_name": None,
        "device_name": None,
        "revision": None,
        "driver": None,
        "driver_override": None,
        "modalias": None,
        "modules": [],
        "builtin_modules": [],
        "variant_modules": [],
        "physfn": None,
        "boot_vga": None,
        "reset_methods": None,
        "resources": [],
        "rom": None,
        "irq": None,
        "numa_node": None,
        "d3cold_allowed": None,
        "power_state": None,
        "config_bytes": 0,
        "port_type_inferred": False,
        "isolates": {"answer": False, "certain": False, "by": "unknown", "why": "nothing of it could be read"},
        "rmrr": None,
        "group": None,
        "group_members": [],
        "confidence": "unknown",
        "used_by": [],
        "usb_devices": None,
        "holders": None,
        "assignment": {"verdict": "unknown", "obstacles": [], "together_with": []},
    }
    function.update(config_space.BLANK)
    return function


def read(inputs, roms=False):
    """All PCI functions, sorted by address, without use (see _usage); of the group only its number (see groups).

    :param roms: also read expansion ROMs, which on a live machine takes a write to ``rom``.
    """
    found = inputs.host.listdir(DEVICES)
    if not found:
        inputs.miss(DEVICES, "no PCI function is known")
    functions, express = [], set()
    for address in found:
        function = _function(inputs, address, roms, express) if ADDRESS.match(address) else None
        if function:
            functions.append(function)
    functions.sort(key=lambda function: sort_key(function["address"]))
    if not inputs.host.live and not any(function["reset_methods"] for function in functions):
        for function in functions:  # a tree without these files says nothing of resets
            function["reset_methods"] = None
    infer(functions, express)
    _note_unread(inputs, functions)
    _name(inputs, functions)
    return functions


ATTRIBUTES = (
    "uevent", "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision", "modalias", "config",
    "driver_override", "boot_vga", "reset_method", "reset", "resource", "irq", "numa_node", "d3cold_allowed", "power_state",
    "current_link_speed", "current_link_width", "max_link_speed", "max_link_width", "secondary_bus_number",
    "subordinate_bus_number",
)
"""What is read of each function; links and the ROM aside."""

_ALWAYS = ("uevent", "config", "driver_override", "reset_method", "resource", "irq", "numa_node", "d3cold_allowed",
           "power_state")


def _function(inputs, address, roms, express):
    host = inputs.host
    home = host.real("%s/%s" % (DEVICES, address))
    raw = host.read_folder(home, _ALWAYS, CONFIG_LIMIT, links=("driver", "physfn", "iommu_group"))
    event = parse_uevent(_text(raw["uevent"]))
    config = config_space.trim(raw["config"])
    if not config_space.readable(config) or len(config) <= config_space.HEADER:
        raw.update(host.read_folder(home, [a for a in ATTRIBUTES if a not in _ALWAYS], CONFIG_LIMIT))
    elif "PCI_ID" not in event:
        raw.update(host.read_folder(home, ("vendor", "device", "subsystem_vendor", "subsystem_device", "class"), 64))
    function = blank(address)
    if not _identify(function, event, raw, config):
        inputs.miss("%s/%s" % (DEVICES, address), "the ids of %s are unknown; the function is left out" % address)
        return None
    code = function["class"]
    above = addresses_in(home)[:-1]
    override = _text(raw["driver_override"])
    boot_vga = _text(host.read_folder(home, ("boot_vga",), 64)["boot_vga"]) if code.startswith("03") else ""
    driver, physfn, group = [(raw[link] or "").rstrip("/").rpartition("/")[2] for link in ("driver", "physfn", "iommu_group")]
    function.update(
        class_name=names.class_name(code),
        driver=event.get("DRIVER") or driver or None,
        driver_override=override if override not in ("", "(null)") else None,
        modalias=event.get("MODALIAS") or _text(raw.get("modalias")) or None,
        parent=above[-1] if above else None,
        physfn=physfn or None,
        group=group if group.isdigit() else None,
        boot_vga=boot_vga == "1" if boot_vga else None,
        reset_methods=_reset_methods(host, home, raw["reset_method"]),
        resources=parse_resources(_text(raw["resource"])),
        irq=_int(_text(raw["irq"])) or None,
        numa_node=_node(_text(raw["numa_node"])),
        d3cold_allowed={"0": False, "1": True}.get(_text(raw["d3cold_allowed"])),
        power_state=_text(raw["power_state"]) if _text(raw["power_state"]) not in ("", "unknown") else None,
        config_bytes=len(config or b""),
    )
    function.update(config_space.describe(config))
    if function["is_bridge"] is None:
        function["is_bridge"] = code[:4] in ("0604", "0607") or bool(_text(raw.get("secondary_bus_number")))
    if function["bus"] is None and function["is_bridge"]:
        function["bus"] = _bus(_text(raw.get("secondary_bus_number")), _text(raw.get("subordinate_bus_number")))
    if raw.get("max_link_width") is not None:
        express.add(address)
        function["link"] = function["link"] or _link(raw)
    if not function["multifunction"] and function["multifunction"] is not None:
        # As the kernel does: function 1 and up are on a multifunction device, virtual functions never
        function["multifunction"] = not address.endswith(".0") and function["physfn"] is None
    if roms or not host.live:
        function["rom"] = _rom(host, home, function)
    return function


def _text(data):
    """Text of an attribute without the newline, and without the zeros that an archiver pads it with."""
    return (data or b"").rstrip(b"\0").decode("utf-8", "backslashreplace").strip()


def _hex(text, digits):
    """``0x8086`` to ``8086``; an empty string for anything else."""
    try:
        text = "%0*x" % (digits, int(text, 16))
    except ValueError:
        return ""
    return text if len(text) == digits and text[0] != "-" else ""


def _identify(function, event, raw, config):
    """Ids and class: from uevent, else the attributes, else configuration space. False when there are none."""
    vendor, dummy, device = event.get("PCI_ID", "").partition(":")
    vendor, device = [_hex(part or _text(raw.get(name)), 4) for part, name in ((vendor, "vendor"), (device, "device"))]
    code = _hex(event.get("PCI_CLASS") or _text(raw.get("class")), 6)
    sub_vendor, dummy, sub_device = event.get("PCI_SUBSYS_ID", "").partition(":")
    sub_vendor = _hex(sub_vendor or _text(raw.get("subsystem_vendor")), 4)
    sub_device = _hex(sub_device or _text(raw.get("subsystem_device")), 4)
    if config_space.readable(config):
        words = ["%04x" % int.from_bytes(config[at:at + 2], "little") for at in (0, 2, 0x2C, 0x2E)]
        vendor, device = vendor or words[0], device or words[1]
        if config[0x0E] & 0x7F == 0:
            sub_vendor, sub_device = sub_vendor or words[2], sub_device or words[3]
        code = code or "%06x" % (int.from_bytes(config[8:12], "little") >> 8)
        function["revision"] = "%02x" % config[8]
    elif raw.get("revision"):
        function["revision"] = _hex(_text(raw["revision"]), 2) or None
    if not vendor or not device:
        return False
    function.update({
        "vendor": vendor,
        "device": device,
        "id": "%s:%s" % (vendor, device),
        "subsystem_vendor": sub_vendor or "0000",
        "subsystem_device": sub_device or "0000",
        "class": code or "ff0000",
    })
    return True


def _bus(secondary, subordinate):
    numbers = _int(secondary), _int(subordinate)
    return None if None in numbers else {"secondary": numbers[0], "subordinate": numbers[1]}


def _link(raw):
    """The link as sysfs tells it: ``8.0 GT/s PCIe``, ``Unknown``; widths are numbers."""
    def speed(name):
        found = re.match(r"([0-9.]+) GT/s", _text(raw.get(name)))
        return float(found.group(1)) if found else None

    widths = _int(_text(raw.get("current_link_width"))), _int(_text(raw.get("max_link_width")))
    if not widths[1]:
        return None
    return {"speed": speed("current_link_speed"), "width": widths[0] or 0,
            "max_speed": speed("max_link_speed"), "max_width": widths[1]}


def _reset_methods(host, home, raw):
    """Enabled reset methods in the kernel's order; ``["unknown"]`` before Linux 5.15, which names none."""
    if raw is None:
        return ["unknown"] if host.exists(home + "/reset") else []
    return _text(raw).split()


def _rom(host, home, function):
    """Images of the expansion ROM, None when it was not read.

    On a live machine only of a display that no driver but vfio-pci has, and of none that a guest has:
    reading takes a write that lets the ROM answer on the bus.
    """
    path = home + "/rom"
    if not host.exists(path):
        return None
    if not host.live:
        data = host.read_bytes(path)
        return config_space.rom_images(data) if data and data.strip(b"\0") else None
    if not function["class"].startswith("03") or function["driver"] not in (None, "vfio-pci"):
        return None
    if function["driver"] and (host.read_attribute(home + "/enable") or "0") != "0":
        return None
    try:
        host.write_sysfs(path, "1")
        try:
            data = host.read_bytes(path)
        finally:
            host.write_sysfs(path, "0")
    except HostError:
        return None
    return config_space.rom_images(data) if data else None


def infer(functions, express):
    """Port types that follow from the topology, for functions whose capabilities nobody could read.

    :param express: addresses with link attributes in sysfs, which only PCI Express functions have.
    What is behind a bridge below a port may be a switch or a bridge to conventional PCI: its children tell.
    """
    by_address = {function["address"]: function for function in functions}
    express = express | {f["address"] for f in functions if f["port_type"] not in ("unknown", "conventional")}
    express_below = {f["parent"] for f in functions if f["address"] in express}
    for function in functions:
        if function["port_type"] != "unknown" or function["address"] not in express:
            continue
        parent = by_address.get(function["parent"])
        above = parent["port_type"] if parent else None
        kind = "unknown"
        if not function["is_bridge"]:
            kind = "endpoint"
        elif function["parent"] is None:
            kind = "root_port"
        elif above == "upstream_port":
            kind = "downstream_port"
        elif above in ("root_port", "downstream_port") and function["address"] in express_below:
            kind = "upstream_port"
        if kind != "unknown":
            function["port_type"], function["port_type_inferred"] = kind, True


def rcba_enabled(inputs, functions):
    """Whether the window is on that the quirk for Intel's root ports needs; None when unknown or not Intel.

    Bit 0 of the double word at 0xf0 of the LPC bridge 0000:00:1f.0 (pci_quirk_enable_intel_lpc_acs).
    """
    bridge = next((f for f in functions if f["address"] == "0000:00:1f.0"), None)
    if bridge is None or bridge["vendor"] != "8086":
        return None
    config = config_space.trim(inputs.host.read_bytes("%s/0000:00:1f.0/config" % DEVICES, config_space.PLAIN))
    if config is None or len(config) < 0xF4 or not any(config[config_space.HEADER:]):
        return None
    return bool(config[0xF0] & 1)


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
    """Fill in vendor and device names, and the modules that would claim each function."""
    if not functions:
        return
    host = inputs.host
    text = next((text for text in (host.read(path) for path in PCI_IDS) if text), None)
    if text is None:
        inputs.miss(PCI_IDS[0], "no vendor and device names")
    known = names.pci_names(text or "", {(f["vendor"], f["device"]) for f in functions})
    lists = "/lib/modules/%s/modules." % (host.read_attribute("/proc/sys/kernel/osrelease") or "")
    wanted = {f["modalias"] for f in functions if f["modalias"]}
    aliases = inputs.text(lists + "alias", "which modules would claim a function is unknown")
    loadable, variants = names.modules_for(aliases, wanted)
    builtin = names.builtin_for(host.read(lists + "builtin.modinfo") or "", wanted)  # since Linux 5.2
    for function in functions:
        function["vendor_name"], function["device_name"] = known[(function["vendor"], function["device"])]
        alias = function["modalias"]
        function["builtin_modules"] = builtin.get(alias, [])
        function["modules"] = sorted(set(loadable.get(alias, [])) | set(function["builtin_modules"]))
        function["variant_modules"] = variants.get(alias, [])
