#!/usr/bin/env python
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what the probe reads on this machine, so that it can be read again anywhere.

    sudo python3 tools/record_tree.py machine.tar.gz
    mkdir tree && tar -xzf machine.tar.gz -C tree    # then iommu_info with root: tree

No list of inputs can go stale: the probe runs here, and every path it looks at is recorded. Needs
Python 3.8 and the collection's ``plugins`` folder beside it. Nothing is masked (addresses, MACs,
serial numbers), but of a process's environment only SSH_CONNECTION is kept.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import types

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def import_collection():
    """Make ``ansible_collections.vfio.host`` this checkout; Ansible itself is not needed."""
    for name in ("ansible_collections", "ansible_collections.vfio", "ansible_collections.vfio.host"):
        package = types.ModuleType(name)
        package.__path__ = [HERE] if name.endswith(".host") else []
        sys.modules.setdefault(name, package)
    from ansible_collections.vfio.host.plugins.module_utils import _host, _machine

    return _host.Host, _machine.collect


def recorder(base):
    """A Host class that remembers: ``touched`` (paths looked at) and ``contents`` (path: bytes)."""

    class Recorder(base):
        def __init__(self, root="/"):
            super().__init__(root)
            self.touched, self.contents = set(), {}

        def _outside(self, parts):  # every path and every link on the way comes through here
            self.touched.add("/" + "/".join(parts))
            return super()._outside(parts)

        def readlink(self, path):
            self.touched.add(os.path.join(self.real(os.path.dirname(path)), os.path.basename(path)))
            return super().readlink(path)

        def listdir(self, path):
            names = super().listdir(path)
            self.touched.update(os.path.join(self.real(path), name) for name in names)
            return names

        def read_bytes(self, path, *args, **options):
            data = super().read_bytes(path, *args, **options)
            if data is not None and path.endswith("/environ"):
                data = b"\0".join(entry for entry in data.split(b"\0") if entry.startswith(b"SSH_CONNECTION="))
            if data is not None:
                self.contents[self.real(path)] = data
            return data

    return Recorder


def entries(host):
    """``(TarInfo, bytes)`` of all that was touched and exists; the size is what was read, not stat's."""
    for path in sorted(host.touched - {"/"}):
        outside = os.path.join(host.root, path[1:])
        if not os.path.lexists(outside) and path not in host.contents:
            continue
        info = tarfile.TarInfo(path[1:])
        data = host.contents.get(path, b"")  # a file that was only listed is recorded empty
        if os.path.islink(outside):
            target = os.readlink(outside)
            info.type = tarfile.SYMTYPE
            info.linkname = os.path.relpath(target, os.path.dirname(path)) if target.startswith("/") else target
        elif os.path.isdir(outside):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        info.size = len(data)
        yield info, data


def record(host, archive):
    with tarfile.open(archive, "w:gz") as tar:
        for info, data in entries(host):
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: %s FILE.tar.gz" % sys.argv[0])
    Host, collect = import_collection()
    machine = recorder(Host)()
    for missing in collect(machine)["source"]["missing"]:
        print("missing: %(input)s: %(why)s" % missing)
    record(machine, sys.argv[1])
