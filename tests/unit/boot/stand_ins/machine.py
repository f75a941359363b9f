# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded host on which stand-ins of commands run, and what every test of a backend does with it."""

from __future__ import annotations

import os

from ansible_collections.vfio.host.plugins.module_utils._boot import booted, edits
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result


class Machine(Host):
    """``calls``: the commands that ran. ``tools``: ``{name: function(host, argv, stdin) -> Result}``."""

    def __init__(self, root, tools=None):
        super().__init__(str(root), commands=self.command)
        self.calls = []
        self.tools = {}
        for name, tool in (tools or {}).items():
            self.install(name, tool)

    def install(self, name, tool):
        self.tools[name] = tool
        self.write("/usr/sbin/" + name, "#!/bin/sh\n", mode=0o755)

    def uninstall(self, name):
        del self.tools[name]
        self.remove("/usr/sbin/" + name)

    def command(self, argv, stdin, env=None):
        self.calls.append(list(argv))
        name = os.path.basename(argv[0])
        if name not in self.tools:
            raise HostError("%s: No such file or directory" % argv[0])
        return self.tools[name](self, list(argv), stdin) or Result(argv, 0)

    def tree(self):
        """Every file with its content and mode, and every link, by its path on the host."""
        found = {}
        for folder, dummy, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                inside = path[len(self.root):]
                if os.path.islink(path):
                    found[inside] = os.readlink(path)
                else:
                    with open(path, "rb") as handle:
                        found[inside] = (handle.read(), os.stat(path).st_mode & 0o7777)
        return found

    def link(self, path, target):
        outside = self.root + path
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        os.symlink(target, outside)


def apply(backend, host, wanted, owned, fallback=True):
    """What the transaction does: write the edits, the fallback entry, generate. Returns the edits."""
    made = backend.edits(host, wanted, owned)
    own = backend.fallback(host, wanted if wanted else None) if fallback else []
    made += [edit for edit in own if edit.path not in [one.path for one in made]]
    edits.write(host, made)
    backend.generate(host)
    return made


def evidence(backend, host):
    return backend.evidence(host, booted.booted(host))


def lines(backend, host):
    """``{id: tokens}`` of the entries that are ordinary."""
    return {entry["id"]: entry["tokens"] for entry in backend.view(host)["entries"] if entry["managed"]}
