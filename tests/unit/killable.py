# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which any change may be the last thing that happens."""

from __future__ import annotations

import contextlib
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host


class Killed(BaseException):
    """The run ended here, without a chance to say or do anything."""


def half_written(host, path):
    """What a write of ``path`` leaves that is killed before its file takes the place of the old one."""
    folder = os.path.dirname(host.path(path))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".vfio-host-h4lf_0ne"), "w", encoding="utf-8") as file:
        file.write("hal")


class KillableHost(Host):
    """``kill_at``: number of the change before which the run is killed. ``refuse``: paths that cannot be written."""

    def __init__(self, root, commands):
        super().__init__(root, commands=commands)
        self.kill_at, self.changes, self.refuse = None, 0, {}

    def _change(self, written=None):
        self.changes += 1
        if self.kill_at == self.changes:
            if written:
                half_written(self, written)
            raise Killed()

    def write(self, path, data, mode=0o644):
        self._change(path)
        if path in self.refuse:
            raise OSError(28, "No space left on device", path)
        super().write(path, data, mode)

    def remove(self, path):
        self._change()
        return super().remove(path)


@contextlib.contextmanager
def killed_before(host, number, whole_commands=False):
    """Within it, everything ends right before the ``number``-th change of a file or folder, or command.

    Yields ``{"changes": how many there were}``. What runs after the end (``finally``, ``except``) changes nothing any
    more, as with SIGKILL. Unlike :class:`KillableHost` this is below the door: a file may be written and not yet renamed.
    """
    seen = {"changes": 0, "inside": False}
    commands = host.commands
    kernels = tuple(host.path(folder) for folder in ("/sys", "/proc", "/run"))  # what a stand-in for the kernel does

    def mortal(real):
        def call(*args, **more):
            paths = [arg for arg in args if isinstance(arg, str)]
            if seen["inside"] or paths and paths[-1].startswith(kernels):  # of two paths the second is the one that changes
                return real(*args, **more)
            seen["changes"] += 1
            if seen["changes"] >= number:
                raise Killed()
            seen["inside"] = whole_commands and real == commands
            try:
                return real(*args, **more)
            finally:
                seen["inside"] = False
        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "unlink", "rmdir", "mkdir", "symlink", "truncate"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        patch.setattr(host, "commands", mortal(commands))
        try:
            yield seen
        except Killed:
            pass


def state(root):
    """``{path: (bytes or None for a folder, mode)}`` of all that is below a folder."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path[len(root):]] = (os.readlink(path).encode(), None)
                continue
            data = None
            if name in files:
                with open(path, "rb") as file:
                    data = file.read()
            found[path[len(root):]] = (data, os.stat(path).st_mode & 0o7777)
    return found
