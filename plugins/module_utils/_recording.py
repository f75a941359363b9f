# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Record what the probe reads, so that it can be read again anywhere.

No list of inputs can go stale: the probe runs, and every path it looks at is recorded. Nothing is
written on the machine; the archive is bytes, and the same for the same machine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile

from ansible_collections.vfio.host.plugins.module_utils import _machine, _watch
from ansible_collections.vfio.host.plugins.module_utils._host import READ_LIMIT, Host
from ansible_collections.vfio.host.plugins.module_utils._masking import Masker


class Recorder(Host):
    """A Host that remembers.

    ``touched``: paths that were looked at; ``contents``: ``{path: bytes}`` of what was read; ``unread``: paths
    that are there and could not be read.
    """

    def __init__(self, root="/"):
        super().__init__(root)
        self.touched, self.contents, self.unread = set(), {}, set()

    def _link(self, inside):  # every path and every link on the way comes through here
        self.touched.add(inside)
        return super()._link(inside)

    def readlink(self, path):
        self.touched.add(os.path.join(self.real(os.path.dirname(path)), os.path.basename(path)))
        return super().readlink(path)

    def listdir(self, path):
        names = super().listdir(path)
        self.touched.update(os.path.join(self.real(path), name) for name in names)
        return names

    def read_bytes(self, path, limit=READ_LIMIT):
        data = super().read_bytes(path, limit)
        self._keep(self.real(path), data)
        return data

    def read_folder(self, path, names, limit=READ_LIMIT, links=()):
        found = super().read_folder(path, names, limit, links)
        home = self.real(path)
        self.touched.update(home + "/" + name for name in links)
        for name in names:
            data = found[name]
            if super().readlink(home + "/" + name) is None:  # what is behind a link went through read_bytes()
                self.touched.add(home + "/" + name)
                self._keep(home + "/" + name, data)
        return found

    def _keep(self, path, data):
        if data is None:
            self.unread.add(path)
            return
        if path.endswith("/environ"):  # of a process's environment nothing else is anybody's business
            data = b"\0".join(entry for entry in data.split(b"\0") if entry.startswith(b"SSH_CONNECTION="))
        if len(data) >= len(self.contents.get(path, b"")):
            self.contents[path] = data


def entries(host, masker=None):
    """``[(TarInfo, bytes)]`` of all that a Recorder touched and that exists, sorted by path.

    A file that was only listed is recorded empty. One that could not be read becomes a folder: it is there, and
    reading it fails. With ``masker``, names, links and contents are masked.
    """
    found = {}
    for path in sorted(host.touched - {"/"}):
        outside = os.path.join(host.root, path[1:])
        if not os.path.lexists(outside) and path not in host.contents:
            continue
        info = tarfile.TarInfo(path[1:])
        data = host.contents.get(path, b"")
        if os.path.islink(outside):
            try:
                target = os.readlink(outside)
            except OSError:  # a process that has ended since, or is nobody's business
                continue
            if re.match(r"/proc/[^/]+/fd/", path) and not target.startswith("/dev/"):
                continue  # what a process has open besides devices
            info.type = tarfile.SYMTYPE
            info.linkname = os.path.relpath(target, os.path.dirname(path)) if target.startswith("/") else target
        elif os.path.isdir(outside) or path in host.unread and path not in host.contents:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        if masker:
            info.name, info.linkname = masker.path(path)[1:], masker.text(info.linkname)
            data = masker.content(path, data)
        info.size = len(data)
        found[info.name] = (info, data)
    return [found[name] for name in sorted(found)]


def archive(found):
    """The bytes of a tar.gz of entries(): the same entries always give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in found:
            tar.addfile(info, io.BytesIO(data))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as stream:
        stream.write(plain.getvalue())
    return packed.getvalue()


def capture(root="/", mask=False):
    """``(machine document, bytes of the archive)`` of the machine or of a recorded tree; see record().

    Raises HostTimeout when reads hang.
    """
    def work(host):
        machine, found = record(host, mask)
        return machine, archive(found)

    return _watch.watched(Recorder(root), work)


def record(host, mask=False):
    """``(machine document, entries)`` of a Recorder.

    The document's ``source.capture`` is ``{masked, fingerprint}``. With ``mask``, what tells whose machine it is
    is replaced in both, the same everywhere, so that the tree still gives this very document.
    """
    machine = _machine.collect(host)
    masker = None
    if mask:
        plain = Host(host.root)
        names = [plain.read_attribute(path) for path in ("/proc/sys/kernel/hostname", "/etc/hostname")]
        masker = Masker(_key(plain), host.touched, host.contents, [name for name in names if name])
        machine = masker.document(machine)
    machine["source"]["capture"] = {"masked": mask, "fingerprint": fingerprint(machine)}
    return machine, entries(host, masker)


def _key(host):
    """What masks are made with: fixed for a machine and not recorded, else drawn anew for each capture."""
    number = host.read_bytes("/etc/machine-id", 256)
    return hashlib.sha256(b"vfio.host mask " + (number if number and number.strip() else os.urandom(32))).digest()


_VOLATILE_HOST = ("memory", "sessions", "ssh")
_VOLATILE_FUNCTION = ("holders", "power_state", "link", "used_by", "assignment")
_VOLATILE_INTERFACE = ("speed", "operstate", "addresses")


def fingerprint(machine):
    """Digest of what of a machine document does not change from one minute to the next.

    Two captures with one fingerprint are of one machine in one state: memory, sessions, processes, sleeping
    devices, and what follows from them, are left out.
    """
    host = {name: value for name, value in machine["host"].items() if name not in _VOLATILE_HOST}
    host["network"] = dict(host["network"], interfaces=[
        {name: value for name, value in interface.items() if name not in _VOLATILE_INTERFACE}
        for interface in host["network"]["interfaces"]])
    stable = {
        "schema": machine["schema"],
        "source": {name: machine["source"][name] for name in ("root", "privileged")},
        "host": host,
        "functions": [{name: value for name, value in function.items() if name not in _VOLATILE_FUNCTION}
                      for function in machine["functions"]],
        "groups": machine["groups"],
    }
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode("utf-8")).hexdigest()[:32]
