# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initramfs of the small machines: busybox, init.sh, and the modules that SR-IOV needs. Pure but for init.sh."""

from __future__ import annotations

import gzip
import os

SHELL = b"#!/bin/busybox sh\n"
INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init.sh")
FOLDERS = ("bin", "dev", "modules", "proc", "sys")


def image(busybox, modules):
    """Bytes of the image. ``modules``: ``[(file name, bytes)]`` in the order in which they must be loaded."""
    with open(INIT, "rb") as script:
        init = SHELL + script.read()
    parts = [_member(name, mode=0o040755) for name in FOLDERS]
    parts.append(_member("dev/console", mode=0o020600, device=(5, 1)))
    parts.append(_member("bin/busybox", busybox, 0o100755))
    parts.append(_member("bin/sh", b"busybox", 0o120777))
    parts.append(_member("init", init, 0o100755))
    parts.append(_member("modules/order", "".join(name + "\n" for name, dummy in modules).encode("ascii")))
    parts += [_member("modules/" + name, data) for name, data in modules]
    parts.append(_member("TRAILER!!!", mode=0))
    return gzip.compress(b"".join(parts), 1)


def _member(name, data=b"", mode=0o100644, device=(0, 0)):
    """One entry of a cpio archive in the "newc" format (Linux, buffer-format.rst)."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode("ascii") + b"\0"
    return _padded(head) + _padded(data)


def _padded(data):
    return data + bytes(-len(data) % 4)
