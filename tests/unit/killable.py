# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which any change may be the last thing that happens."""

from __future__ import annotations

import os

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
