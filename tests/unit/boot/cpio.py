# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images to read: cpio archives in the "newc" format, as GNU cpio writes them."""

from __future__ import annotations


def member(name, data=b"", mode=0o100644, magic=b"070701"):
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = magic + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def archive(files, magic=b"070701"):
    """``files``: {name: bytes}. Padded to 512 bytes."""
    data = b"".join(member(name, content, magic=magic) for name, content in files.items())
    data += member("TRAILER!!!", magic=magic)
    return data + bytes(-len(data) % 512)


def _padded(data):
    return data + bytes(-len(data) % 4)
