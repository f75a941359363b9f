# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions bound in one transaction, against the bare writes that it makes, on a tree of files.

What the kernel would do with a write is done to the tree in both cases, at the same cost; the time that a real driver
takes for its probe comes on top of both.
"""

from __future__ import annotations

import os
import time

from ansible_collections.vfio.host.plugins.module_utils._binding import live, record
from ansible_collections.vfio.host.plugins.module_utils._host import Host, Result

DEVICES, DRIVERS = "/sys/bus/pci/devices/", "/sys/bus/pci/drivers/"
NATIVE = "iavf"


class Tree(Host):
    """``count`` virtual functions, each alone in its group."""

    def __init__(self, root, count):
        super().__init__(root, commands=lambda argv, stdin: Result(argv, 0))
        self.addresses = ["0000:02:%02x.%d" % (n >> 3, n & 7) for n in range(count)]
        for driver in (NATIVE, "vfio-pci"):
            os.makedirs(root + DRIVERS + driver, exist_ok=True)
            for name in ("bind", "unbind"):
                self._put(DRIVERS + driver + "/" + name, "")
        self._put(live.PROBE, "")
        for number, address in enumerate(self.addresses):
            folder = root + DEVICES + address
            group = "/sys/kernel/iommu_groups/%d" % number
            os.makedirs(folder)
            os.makedirs(root + group)
            self._put(DEVICES + address + "/driver_override", "(null)\n")
            os.symlink(os.path.relpath(root + group, folder), folder + "/iommu_group")
            self._put("/dev/vfio/%d" % number, "")
            self._bind(address, NATIVE)

    def _put(self, path, text):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        with open(self.root + path, "w", encoding="ascii") as handle:
            handle.write(text)

    def _bind(self, address, driver):
        os.symlink("../../drivers/" + driver, self.root + DEVICES + address + "/driver")

    def effect(self, path, value):
        """What the kernel does with a write."""
        name = path.rpartition("/")[2]
        if name == "unbind":
            os.unlink(self.root + DEVICES + value + "/driver")
        elif name == "drivers_probe":
            self._bind(value, "vfio-pci")
        elif name == "bind":
            self._bind(value, path.split("/")[-2])

    def write_sysfs(self, path, value, timeout=10.0):
        super().write_sysfs(path, value, timeout)
        self.effect(path, value.strip())

    def vfio_viable(self, path):
        with open(self.root + path, "rb"):
            return True


def bare(tree):
    """Seconds for the writes alone."""
    def write(path, value):
        fd = os.open(tree.root + path, os.O_WRONLY)
        os.write(fd, value.encode("ascii"))
        os.close(fd)
        tree.effect(path, value.strip())

    began = time.perf_counter()
    for address in tree.addresses:
        write(DEVICES + address + "/driver_override", "vfio-pci\n")
        write(DEVICES + address + "/driver/unbind", address)
        write(live.PROBE, address)
    return time.perf_counter() - began


def transaction(tree):
    """Seconds for the transaction: what was before read, each write by the child, each function checked."""
    began = time.perf_counter()
    before = {address: record.as_it_is(tree, address) for address in tree.addresses}
    live.bind(tree, [{"address": address, "driver": "vfio-pci"} for address in tree.addresses], before)
    seconds = time.perf_counter() - began
    assert all(tree.readlink(DEVICES + address + "/driver").endswith("vfio-pci") for address in tree.addresses)
    return seconds


def measure(folder, count, tries):
    """``(bare, transaction)``: least seconds of several tries."""
    found = []
    for name, call in (("bare", bare), ("transaction", transaction)):
        found.append(min(call(Tree(os.path.join(folder, "%s%d" % (name, n)), count)) for n in range(tries)))
    return tuple(found)
