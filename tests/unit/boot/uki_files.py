# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unified kernel images and kernels as bytes, as small as they can be."""

from __future__ import annotations

import struct


def pe(sections, align=512):
    """A PE image with these sections, ``[(name, bytes)]``, each padded as ukify and objcopy do."""
    head = bytearray(64)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 64)
    optional = 16
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, optional, 0) + bytes(optional)
    start = len(head) + len(coff) + 40 * len(sections)
    start = -(-start // align) * align
    table = b""
    body = b""
    for name, data in sections:
        raw = -(-len(data) // align) * align
        table += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(data), 0x1000, raw, start + len(body), 0, 0, 0, 0, 0
        )
        body += data + bytes(raw - len(data))
    return (bytes(head) + coff + table).ljust(start, b"\0") + body


def kernel(version):
    """The beginning of an x86 kernel image."""
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x100)
    said = version.encode() + b" (builder) #1 SMP\0"
    data[0x300: 0x300 + len(said)] = said
    return bytes(data)


def uki(version, cmdline, initrd=b"initrd", os_id="debian"):
    osrel = 'ID=%s\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID=13\n' % os_id
    sections = [(".text", b"code"), (".osrel", osrel.encode()), (".uname", version.encode())]
    if cmdline is not None:
        sections.append((".cmdline", cmdline.encode() + b"\0"))
    return pe(sections + [(".linux", kernel(version)), (".initrd", initrd)])
