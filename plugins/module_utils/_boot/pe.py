# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Unified kernel images: PE files whose sections hold the kernel, the initramfs and the command line.

Every number in the file is checked against the file's size before it is used, and no more is read than asked for.
"""

from __future__ import annotations

import re
import stat
import struct

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

TEXT_LIMIT = 1 << 16
MAX_SECTIONS = 96
"""What Windows allows, and far more than a UKI has."""

OS_RELEASE = re.compile(r"^([A-Z0-9_]+)=(.*)$")


class PeError(HostError):
    """The file is no PE image, or a damaged one; the message names it."""


def sections(host, path):
    """``{name: (offset, length)}`` of the sections that the stub uses when nobody chooses a profile.

    A ``.profile`` begins another set of sections: the first of them adds to, and overrides, those before it.
    """
    with _opened(host, path) as (handle, size):
        begin = _read(handle, path, 0, 64, size)
        if begin[:2] != b"MZ":
            raise PeError("%s is no PE image" % path)
        header = struct.unpack_from("<I", begin, 0x3C)[0]
        coff = _read(handle, path, header, 24, size)
        if coff[:4] != b"PE\0\0":
            raise PeError("%s is no PE image" % path)
        count, optional = struct.unpack_from("<H", coff, 6)[0], struct.unpack_from("<H", coff, 20)[0]
        if not 0 < count <= MAX_SECTIONS:
            raise PeError("%s says that it has %d sections: it is damaged" % (path, count))
        table = _read(handle, path, header + 24 + optional, 40 * count, size)
    found = {}
    profiles = 0
    taken = set()
    for index in range(count):
        name, virtual, dummy, raw, offset = struct.unpack_from("<8sIIII", table, 40 * index)
        name = name.rstrip(b"\0").decode("ascii", "replace")
        if name == ".profile":
            profiles += 1
            if profiles > 1:
                break
            taken = set()
        length = min(virtual, raw) if virtual else raw
        if raw and offset + length > size:
            raise PeError("%s ends in the middle of %s: it is damaged" % (path, name))
        if name not in taken:
            found[name] = (offset, length)
            taken.add(name)
    return found


def signed(host, path):
    """Whether the image has a signature (an entry in its certificate table); nothing says whose."""
    with _opened(host, path) as (handle, size):
        header = struct.unpack_from("<I", _read(handle, path, 0, 64, size), 0x3C)[0]
        coff = _read(handle, path, header, 24, size)
        length = struct.unpack_from("<H", coff, 20)[0]
        optional = _read(handle, path, header + 24, length, size)
    if coff[:4] != b"PE\0\0" or length < 2:
        return False
    directories = {0x10B: 96, 0x20B: 112}.get(struct.unpack_from("<H", optional)[0])
    if directories is None or length < directories + 5 * 8:
        return False
    return struct.unpack_from("<I", optional, directories + 4 * 8 + 4)[0] > 0


def read_section(host, path, name, limit=TEXT_LIMIT):
    """Content of a section as bytes, or None when there is none. Raises PeError when it is longer than ``limit``."""
    found = sections(host, path)
    if name not in found:
        return None
    offset, length = found[name]
    if length > limit:
        raise PeError("%s of %s has %d bytes, more than the %d that are read" % (name, path, length, limit))
    with _opened(host, path) as (handle, size):
        return _read(handle, path, offset, length, size)


def text(host, path, name):
    """Text of a section without the zero bytes and the white space around it, or None."""
    data = read_section(host, path, name)
    return None if data is None else data.decode("utf-8", "backslashreplace").strip("\0 \t\r\n")


def uki(host, path):
    """``{cmdline, uname, osrel, sections}`` of a UKI; ``osrel`` is a dict. Raises PeError for what is none."""
    found = sections(host, path)
    if ".linux" not in found:
        raise PeError("%s has no kernel in it (no section .linux)" % path)
    return {
        "cmdline": text(host, path, ".cmdline"),
        "uname": text(host, path, ".uname") or None,
        "osrel": os_release(text(host, path, ".osrel") or ""),
        "sections": found,
    }


def os_release(content):
    """``{key: value}`` of an os-release file; quotes are taken off."""
    found = {}
    for line in content.splitlines():
        match = OS_RELEASE.match(line.strip())
        if match:
            value = match.group(2).strip()
            if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
                value = value[1:-1]
            found[match.group(1)] = value
    return found


def kernel_version(host, path, offset=0):
    """Version in the header of an x86 kernel image (``uname -r``), or None. ``offset``: of a ``.linux`` section."""
    try:
        with _opened(host, path) as (handle, size):
            begin = _read(handle, path, offset, 0x250, size)
            if begin[0x202:0x206] != b"HdrS":
                return None
            pointer = struct.unpack_from("<H", begin, 0x20E)[0]
            if not pointer:
                return None
            start = offset + pointer + 0x200
            said = _read(handle, path, start, min(256, size - start), size)
    except PeError:
        return None
    match = re.match(rb"[!-~]+", said.split(b"\0")[0])
    return match.group(0).decode("ascii") if match else None


class _opened:
    """A regular file as ``(handle, size)``; anything else is a PeError."""

    def __init__(self, host, path):
        self.path = path
        self.handle = None
        status = host.stat(path)
        if status is None or not stat.S_ISREG(status.st_mode):
            raise PeError("%s is not there, or no file" % path)
        self.size = status.st_size
        self.real = host.path(path)

    def __enter__(self):
        try:
            self.handle = open(self.real, "rb")
        except OSError as exc:
            raise PeError("%s: %s" % (self.path, exc.strerror)) from exc
        return self.handle, self.size

    def __exit__(self, *dummy):
        self.handle.close()


def _read(handle, path, offset, length, size):
    if offset < 0 or length < 0 or offset + length > size:
        raise PeError("%s ends too early: it is no PE image, or a damaged one" % path)
    try:
        handle.seek(offset)
        data = handle.read(length)
    except OSError as exc:
        raise PeError("%s: %s" % (path, exc.strerror)) from exc
    if len(data) != length:
        raise PeError("%s became shorter while it was read" % path)
    return data
