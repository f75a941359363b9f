# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""PCI configuration space: pure functions on the bytes of one function.

Offsets are those of the PCI Local Bus, PCI Express Base and PCI Bridge specifications, as named
in Linux ``include/uapi/linux/pci_regs.h``. Nothing here raises on short or strange bytes: what
cannot be read is None.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import quirks

PORT_TYPES = {
    0: "endpoint",
    1: "legacy_endpoint",
    4: "root_port",
    5: "upstream_port",
    6: "downstream_port",
    7: "pcie_to_pci",
    8: "pci_to_pcie",
    9: "rc_endpoint",
    10: "rc_event_collector",
}
"""PCI Express capability, bits 7:4 of the register at +2."""

HEADER = 64
"""Bytes that the kernel gives to anybody; more needs CAP_SYS_ADMIN."""

PLAIN = 256
"""Bytes of a function without extended configuration space (or where it cannot be reached)."""

PM, MSI, EXPRESS, MSIX, AF = 0x01, 0x05, 0x10, 0x11, 0x13
EXT_DSN, EXT_ACS, EXT_ATS, EXT_SRIOV, EXT_REBAR = 0x03, 0x0D, 0x0F, 0x10, 0x15

SPEEDS = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
"""Link speeds in GT/s by their code."""


def _number(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


def trim(data):
    """The bytes that were really read.

    An archiver that copies sysfs without privilege pads the 64 bytes it gets with zeros: then a
    capability list is announced and nothing but zeros follows.
    """
    if data and len(data) > HEADER and len(data) > 6 and data[0x06] & 0x10 and not any(data[HEADER:]):
        return data[:HEADER]
    return data


def readable(data):
    """False for nothing, a short read, zeros only, or a function that fell off the bus (all ones).

    The header type is looked at, not the ids: those of a virtual function read all ones.
    """
    return data is not None and len(data) >= HEADER and data[0x0E] != 0xFF and any(data[:HEADER])


def is_bridge(data):
    """True for header types 1 (PCI bridge) and 2 (CardBus bridge)."""
    return data[0x0E] & 0x7F in (1, 2)


def multifunction(data):
    """The multifunction bit of this function's own header."""
    return bool(data[0x0E] & 0x80)


def capabilities(data):
    """``{capability id: offset}`` of the plain list; None when it lies beyond what was read."""
    if not data[0x06] & 0x10:  # status register: there is a list
        return {}
    if len(data) < PLAIN:
        return None
    found = {}
    at = data[0x14 if data[0x0E] & 0x7F == 2 else 0x34] & 0xFC
    steps = 0
    while at >= HEADER and steps < 48:  # 48 capabilities fill the space: more is a loop
        if data[at] == 0xFF:
            break
        found.setdefault(data[at], at)
        at = data[at + 1] & 0xFC
        steps += 1
    return found


def extended_capabilities(data):
    """``{capability id: offset}`` of the extended list; None when it was not read."""
    if len(data) <= PLAIN:
        return None
    found = {}
    at = 0x100
    steps = 0
    while 0x100 <= at <= len(data) - 4 and steps < 480:
        header = _number(data, at, 4)
        if header in (0, 0xFFFFFFFF):
            break
        found.setdefault(header & 0xFFFF, at)
        at = (header >> 20) & 0xFFC
        steps += 1
    return found


def port_type(data, plain):
    """One of PORT_TYPES' names, ``conventional`` or ``unknown``; ``plain`` from capabilities()."""
    if plain is None:
        return "unknown"
    if EXPRESS not in plain:
        return "conventional"
    return PORT_TYPES.get(_number(data, plain[EXPRESS] + 2, 2) >> 4 & 0xF, "unknown")


def serial(data, extended):
    """Device serial number as lspci prints it (``00-01-02-ff-ff-03-04-05``), or None.

    All zeros and all ones tell no device from another, so they count as none.
    """
    at = (extended or {}).get(EXT_DSN)
    if at is None or at + 12 > len(data):
        return None
    raw = data[at + 4:at + 12][::-1]
    if raw in (b"\x00" * 8, b"\xff" * 8):
        return None
    return "-".join("%02x" % byte for byte in raw)


def describe(data):
    """Everything the document says from configuration space, for one function.

    Fields of the document, see BLANK; unreadable bytes leave them as they are there. ``capabilities``
    is None when the list was not read; its ``complete`` is False when only the extended ones were not.
    """
    if not readable(data):
        return dict(BLANK)
    plain = capabilities(data)
    kind = port_type(data, plain)
    extended = extended_capabilities(data)
    bridge = is_bridge(data)
    return {
        "port_type": kind,
        "is_bridge": bridge,
        "multifunction": multifunction(data),
        "bus": {"secondary": data[0x19], "subordinate": data[0x1A]} if bridge else None,
        "serial": serial(data, extended),
        "link": link(data, plain),
        "resizable_bars": resizable_bars(data, extended, kind),
        "capabilities": None if plain is None else _capabilities(data, plain, extended, kind),
    }


BLANK = {
    "port_type": "unknown",
    "is_bridge": None,
    "multifunction": None,
    "bus": None,
    "serial": None,
    "link": None,
    "resizable_bars": None,
    "capabilities": None,
}


def link(data, plain):
    """``{speed, width, max_speed, max_width}`` of the PCI Express link, or None without one."""
    at = (plain or {}).get(EXPRESS)
    if at is None or at + 0x14 > len(data):
        return None
    most, now = _number(data, at + 0x0C, 4), _number(data, at + 0x12, 2)
    if not most >> 4 & 0x3F:
        return None  # a root complex endpoint has none
    return {
        "speed": SPEEDS.get(now & 0xF),
        "width": now >> 4 & 0x3F,
        "max_speed": SPEEDS.get(most & 0xF),
        "max_width": most >> 4 & 0x3F,
    }


def resizable_bars(data, extended, kind):
    """``[{bar, size, sizes}]`` in bytes; None when extended space was not read."""
    if extended is None:
        return [] if kind == "conventional" else None
    at = extended.get(EXT_REBAR)
    if at is None or at + 12 > len(data):
        return []
    found = []
    for entry in range(min(_number(data, at + 8, 4) >> 5 & 7, 6)):
        if at + 12 + entry * 8 > len(data):
            break
        offered, control = _number(data, at + 4 + entry * 8, 4), _number(data, at + 8 + entry * 8, 4)
        sizes = [1 << 20 + bit for bit in range(28) if offered >> 4 + bit & 1]
        found.append({"bar": control & 7, "size": 1 << 20 + (control >> 8 & 0x3F), "sizes": sizes})
    return found


def rom_images(data):
    """``[{kind, size}]`` of the images in an expansion ROM (PCI Firmware Specification), [] for none."""
    images = []
    at = 0
    while at + 0x1A <= len(data) and data[at:at + 2] == b"\x55\xaa" and len(images) < 16:
        header = at + _number(data, at + 0x18, 2)
        if data[header:header + 4] != b"PCIR" or header + 0x16 > len(data):
            break
        size = _number(data, header + 0x10, 2) * 512
        images.append({"kind": {0: "legacy", 3: "efi"}.get(data[header + 0x14], "other"), "size": size})
        if data[header + 0x15] & 0x80 or not size:
            break
        at += size
    return images


def _acs(data, at):
    """The words of the ACS capability; Intel's 100 and 200 series have double words."""
    wide = quirks.intel_spt("%04x:%04x" % (_number(data, 0, 2), _number(data, 2, 2)))
    return {"capability": _number(data, at + 4, 2), "control": _number(data, at + (8 if wide else 6), 2)}


def _capabilities(data, plain, extended, kind):
    express, advanced, power = plain.get(EXPRESS), plain.get(AF), plain.get(PM)
    complete = extended is not None or kind == "conventional"
    extended = extended or {}
    acs, sriov = extended.get(EXT_ACS), extended.get(EXT_SRIOV)
    return {
        "complete": complete,
        "acs": _acs(data, acs) if acs else None,
        "ats": EXT_ATS in extended,
        # Device Capabilities bit 28; the conventional twin is bit 1 of Advanced Features at +3
        "flr": bool(express and _number(data, express + 4, 4) >> 28 & 1),
        "af_flr": bool(advanced and advanced + 3 < len(data) and data[advanced + 3] & 2),
        "msi": MSI in plain,
        "msix": MSIX in plain,
        "power_management": PM in plain,
        "no_soft_reset": bool(data[power + 4] & 8) if power and power + 4 < len(data) else None,
        "sriov": _sriov(data, sriov) if sriov else None,
    }


def _sriov(data, at):
    return {
        "total_vfs": _number(data, at + 0x0E, 2),
        "num_vfs": _number(data, at + 0x10, 2),
        "offset": _number(data, at + 0x14, 2),
        "stride": _number(data, at + 0x16, 2),
        "vf_device": "%04x" % _number(data, at + 0x1A, 2),
    }
