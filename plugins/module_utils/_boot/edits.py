# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Files changed together: kept, written one after the other, and put back when a later step fails."""

from __future__ import annotations


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


def diff(edits):
    """The edits as Ansible shows them."""
    return [
        {"before_header": edit.path, "after_header": edit.path, "before": edit.before or "", "after": edit.after or ""}
        for edit in edits
        if edit.before != edit.after
    ]
