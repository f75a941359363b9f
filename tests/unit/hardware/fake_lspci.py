# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps as lspci prints them, made from bytes."""

from __future__ import annotations

import struct

from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import config_space


def space(ids, code, bus=None, vfs=None, **options):
    """Configuration space; ``bus`` (primary, secondary, subordinate), ``vfs`` (number, offset, stride, device)."""
    vendor, device = [int(part, 16) for part in ids.split(":")]
    if vfs:
        options["total_vfs"] = vfs[0]
    size = 4096 if options.get("express") is not None else 256
    data = bytearray(config_space(vendor, device, int(code, 16), bridge=bus is not None, size=size, **options))
    if bus:
        data[0x18:0x1B] = bytes(bus)
    if vfs:
        at = next(at for at in range(0x100, 0x400, 0x40) if data[at:at + 2] == b"\x10\0")
        struct.pack_into("<HHHHHHH", data, at + 0x0E, vfs[0], vfs[0], 0, vfs[1], vfs[2], 0, vfs[3])
    return bytes(data)


def rows(data):
    """The hex rows of one function."""
    return ["%02x: %s" % (at, " ".join("%02x" % byte for byte in data[at:at + 16])) for at in range(0, len(data), 16)]


def render(machine, limit=4096, domain=True, between=(), names=None):
    """The text of ``lspci -x``, ``-xxx`` or ``-xxxx`` (``limit`` bytes) for ``{address: bytes}``.

    ``domain`` is -D; ``between`` the lines that -v prints below each title; ``names`` {address: the title's words}.
    """
    lines = []
    for address, data in machine.items():
        name = (names or {}).get(address, "Class %02x%02x: Device %02x%02x:%02x%02x" % (
            data[0x0B], data[0x0A], data[1], data[0], data[3], data[2]))
        lines.append("%s %s (rev %02x)" % (address if domain else address.partition(":")[2], name, data[8]))
        lines += ["\t" + line for line in between]
        lines += rows(data[:limit]) + [""]
    return "\n".join(lines)
