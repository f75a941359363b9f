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
EXT_DSN, EXT_ACS, EXT_ATS, EXT_SRIOV = 0x03, 0x0D, 0x0F, 0x10


def _number(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


def readable(data):
    """False for nothing, a short read, or a function that fell off the bus (all ones).

    The header type is looked at, not the ids: those of a virtual function read all ones.
    """
    return data is not None and len(data) >= HEADER and data[0x0E] != 0xFF


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

    ``{port_type, is_bridge, multifunction, serial, capabilities}``; unreadable bytes give port
    type ``unknown`` and None for the rest. ``capabilities`` is None when the list was not read;
    its ``complete`` is False when only the extended ones were not.
    """
    if not readable(data):
        return {"port_type": "unknown", "is_bridge": None, "multifunction": None, "serial": None, "capabilities": None}
    plain = capabilities(data)
    kind = port_type(data, plain)
    extended = extended_capabilities(data)
    return {
        "port_type": kind,
        "is_bridge": is_bridge(data),
        "multifunction": multifunction(data),
        "serial": serial(data, extended),
        "capabilities": None if plain is None else _capabilities(data, plain, extended, kind),
    }


def _capabilities(data, plain, extended, kind):
    express, advanced = plain.get(EXPRESS), plain.get(AF)
    complete = extended is not None or kind == "conventional"
    extended = extended or {}
    acs, sriov = extended.get(EXT_ACS), extended.get(EXT_SRIOV)
    return {
        "complete": complete,
        "acs": acs and {"capability": _number(data, acs + 4, 2), "control": _number(data, acs + 6, 2)},
        "ats": EXT_ATS in extended,
        # Device Capabilities bit 28; the conventional twin is bit 1 of Advanced Features at +3
        "flr": bool(express and _number(data, express + 4, 4) >> 28 & 1),
        "af_flr": bool(advanced and data[advanced + 3] & 2),
        "msi": MSI in plain,
        "msix": MSIX in plain,
        "power_management": PM in plain,
        "sriov": sriov and {"total_vfs": _number(data, sriov + 0x0E, 2), "num_vfs": _number(data, sriov + 0x10, 2)},
    }
