# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose kernel gives huge pages as Linux does: spread over the nodes, fewer where memory is fragmented."""

from __future__ import annotations

import os

from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._memory.hugepages import MACHINE, NODES, POOL, folder_of

MIB = 2**20
SIZE = 2 * MIB


class HugepagesHost(Host):
    """4 GiB on two nodes. ``most``: as many pages as a node's memory yields; ``broken``: paths that refuse a write."""

    def __init__(self, root, nodes=2, most=10**6, available=3 << 30):
        super().__init__(root, commands=lambda argv, stdin: None)
        self.nodes, self.most, self.broken, self.writes = nodes, most, set(), []
        self.first_try = None  # as many pages as the first write to a pool gives
        self.used = dict.fromkeys(range(nodes), 0)
        self.put("/proc/meminfo", "MemTotal:    4194304 kB\nMemAvailable: %d kB\nHugepagesize:       2048 kB\n"
                 % (available // 1024))
        self.put("/usr/bin/systemd-tmpfiles", "")
        self.count = dict.fromkeys(range(nodes), 0)
        for node in range(nodes):
            self.put("%s/node%d/meminfo" % (NODES, node),
                     "Node %d MemTotal: 2097152 kB\nNode %d MemFree: 1048576 kB\nNode %d FilePages: 524288 kB\n"
                     % (node, node, node))
        self.reserved = 0
        self.show()

    def put(self, path, text):
        where = self.path(path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "w", encoding="utf-8") as file:
            file.write(text)

    def show(self):
        total, used = sum(self.count.values()), sum(self.used.values())
        self._pool(folder_of(SIZE, None), total, total - used)
        self.put(folder_of(SIZE, None) + "/resv_hugepages", "%d\n" % self.reserved)
        for node, count in self.count.items():
            self._pool(folder_of(SIZE, node), count, count - self.used[node])

    def _pool(self, folder, total, free):
        for name, number in (("nr", total), ("free", free), ("surplus", 0)):
            self.put("%s/%s_hugepages" % (folder, name), "%d\n" % number)

    def write_sysfs(self, path, value, timeout=10.0):
        folder, dummy, name = path.rpartition("/")
        assert name == "nr_hugepages" and timeout > 0
        if path in self.broken:
            raise HostError("writing %r to %s: Device or resource busy" % (value, path))
        if self.first_try is not None and path not in [written for written, dummy in self.writes]:
            value = str(min(int(value), self.first_try))
        self.writes.append((path, int(value)))
        node = POOL.match(folder).group(1)
        if node is not None:
            self._set(int(node), int(value))
        else:
            each, more = divmod(int(value), self.nodes)
            for number in range(self.nodes):
                self._set(number, each + (1 if number < more else 0))
        self.show()

    def _set(self, node, count):
        self.count[node] = max(self.used[node], min(count, max(self.most, self.count[node])))

    def boot(self):
        """What a reboot does: nothing is left, then systemd-tmpfiles reads its files."""
        self.count = dict.fromkeys(self.count, 0)
        for name in self.listdir("/etc/tmpfiles.d"):
            for line in self.read("/etc/tmpfiles.d/" + name).splitlines():
                fields = line.split()
                if fields and fields[0] == "w":
                    self.write_sysfs(fields[1], fields[6])
        self.show()

    def tree(self):
        """Everything but time, as ``{path: bytes}``."""
        found = {}
        for folder, dummy, names in os.walk(self.root):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    found[os.path.join(folder, name)] = file.read()
        return found

    def total(self, node=None):
        return int(self.read(folder_of(SIZE, node) + "/nr_hugepages"))


__all__ = ["MACHINE", "MIB", "SIZE", "HugepagesHost"]
