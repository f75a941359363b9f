# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Files changed together: kept, written one after the other, and put back when a later step fails."""

from __future__ import annotations

import os
import posixpath

MARGIN = 1 << 16
"""Bytes that stay free: folders and journals need some too."""


def kept(host, paths):
    """``{path: (bytes, mode) | None}`` of files as they are now, to be put back by :func:`put_back`."""
    found = {}
    for path in paths:
        status = host.stat(path)
        data = host.read_bytes(path, limit=1 << 30) if status else None
        found[path] = None if data is None else (data, status.st_mode & 0o7777)
    return found


def put_back(host, before):
    """Make files what :func:`kept` saw. Files that are so already are not touched."""
    for path, was in before.items():
        if kept(host, [path])[path] == was:
            continue
        if was is None:
            host.remove(path)
        else:
            host.write(path, was[0], mode=was[1])


def write(host, edits):
    """Carry out edits, in order."""
    for edit in edits:
        if edit.after is None:
            host.remove(edit.path)
        else:
            host.write(edit.path, edit.after, mode=edit.mode)


def room(host, path):
    """``(folder, device, read-only, bytes free)`` of the filesystem that a path is or would be on.

    What a killed write left beside it counts as free: it goes before anything else is written there.
    """
    folder = posixpath.dirname(host.real(path))
    while folder != "/" and not host.isdir(folder):
        folder = posixpath.dirname(folder)
    status = os.statvfs(host.path(folder))
    device = os.stat(host.path(folder)).st_dev
    left = sum(os.path.getsize(host.path(name)) for name in host.leftovers([folder], built=False))
    return folder, device, bool(status.f_flag & os.ST_RDONLY), status.f_bavail * status.f_frsize + left


def room_for_copy(host, copy, size):
    """Whether a file as it was before us can be kept: a convenience must not be what fills a disk."""
    return room(host, copy)[3] >= 3 * size + (256 << 20)


def obstacles(host, sizes):
    """Why files cannot be written: ``[reason]``. ``sizes``: ``{path: bytes}``, what is written beside what is there."""
    found = []
    needed = {}
    for path, size in sizes.items():
        folder, device, read_only, free = room(host, path)
        if read_only:
            found.append("%s is on a read-only filesystem: mount it writable first" % folder)
            continue
        needed.setdefault(device, [folder, free, MARGIN])[2] += size
    for folder, free, size in needed.values():
        if free < size:
            found.append(
                "the filesystem of %s has %d KiB free and %d KiB are needed: remove an old kernel, or make room"
                % (folder, free >> 10, -(-size >> 10))
            )
    return sorted(set(found))


def clean(host, paths):
    """Remove what a killed write left beside these files."""
    for path in host.leftovers({posixpath.dirname(host.real(path)) for path in paths}, built=False):
        host.remove(path)


def diff(edits):
    """The edits as Ansible shows them."""
    return [
        {"before_header": edit.path, "after_header": edit.path, "before": edit.before or "", "after": edit.after or ""}
        for edit in edits
        if edit.before != edit.after
    ]
