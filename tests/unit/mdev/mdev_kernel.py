# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose cards are shared out: one makes mediated devices, virtual functions of the other have vGPU types."""

from __future__ import annotations

import os
import pathlib
import shutil

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result
from ansible_collections.vfio.host.tests.unit.hardware import fake_machine
from ansible_collections.vfio.host.tests.unit.killable import KillableHost

PCI = "/sys/bus/pci/devices/"
MDEVS = "/sys/bus/mdev/devices/"
IGPU, PF, PLAIN = "0000:00:02.0", "0000:02:00.0", "0000:00:19.0"
VFS = ("0000:02:00.4", "0000:02:00.5")
IDS = {IGPU: ("8086", "5912"), PF: ("10de", "26b9"), VFS[0]: ("10de", "26ba"), VFS[1]: ("10de", "26ba"),
       PLAIN: ("8086", "10d3")}
HALF, QUARTER = "i915-GVTg_V5_4", "i915-GVTg_V5_8"
COST = {HALF: 2, QUARTER: 1}
VGPUS = {"1155": "NVIDIA L40S-1B", "1160": "NVIDIA L40S-2Q"}
MINE = "11111111-2222-3333-4444-555555555555"
OTHERS = "99999999-2222-3333-4444-555555555555"


class Kernel(KillableHost):
    """The first card has four parts, of which a device takes two or one. Of the second one all have one type.

    ``refuse``: ``{(attribute's name, value): error}``; ``hang``: the same of a write that never ends. ``kill_at``: number
    of the change before which the run is killed. ``exclusive``: the first card too makes only one type at a time.
    """

    def __init__(self, root):
        super().__init__(root, self._command)
        self.hang, self.locked, self.writes = set(), False, []
        self.group = 30
        self.exclusive = False
        self.tree = tree = fake_machine.base(pathlib.Path(root), fake_machine.CMDLINE + " intel_iommu=on")
        tree.pci("0000:00:1c.0", "1b36:000c", "060400", group=1, buses=(2, 2), driver="pcieport",
                 express=fake_machine.ROOT_PORT, acs=(0x1F, 0x1D))
        for number, (address, driver) in enumerate(((IGPU, "i915"), (PF, "nvidia"), (VFS[0], "nvidia"),
                                                    (VFS[1], "nvidia"), (PLAIN, "e1000e"))):
            home = tree.pci(address, "%s:%s" % IDS[address], "030000" if address == IGPU else "020000" if address == PLAIN else "030200",
                            parent="0000:00:1c.0" if address.startswith("0000:02") else None, driver=driver,
                            group=10 + number, express=fake_machine.ENDPOINT)
            for field, value in zip(("vendor", "device"), IDS[address]):
                tree.write("%s/%s" % (home, field), "0x%s\n" % value)
            tree.folder("/sys/bus/pci/drivers/" + driver)
            tree.link(home + "/driver", "/sys/bus/pci/drivers/" + driver)
        for number, address in enumerate(VFS):
            tree.link("%s/virtfn%d" % (tree.homes[PF], number), tree.homes[address])
            tree.link(tree.homes[address] + "/physfn", tree.homes[PF])
            tree.write(tree.homes[address] + "/nvidia/current_vgpu_type", "0\n")
        for kind in COST:
            tree.write("%s/mdev_supported_types/%s/name" % (tree.homes[IGPU], kind), kind[5:] + "\n")
            tree.write("%s/mdev_supported_types/%s/create" % (tree.homes[IGPU], kind))
        tree.pci("0000:00:1f.2", "8086:2922", "010601", driver="ahci", group=6, msi=True)
        tree.disk("sda", tree.homes["0000:00:1f.2"] + "/ata1/host0/target0:0:0/0:0:0:0/block", partitions=1)
        tree.mount("/", "sda1")
        tree.nic("enp0s25", tree.homes[PLAIN], index=9)
        tree.addresses(("enp0s25", "10.0.2.15/24"))
        tree.route("enp0s25", "0.0.0.0", 0, "10.0.2.2", flags=3)
        tree.folder(MDEVS)
        tree.folder("/proc/1/fd")
        tree.write("/proc/uptime", "90000.00 0.00\n")  # has the time in which the host slept, unlike the stamps of dmesg
        tree.write("/proc/sys/kernel/random/boot_id", "first\n")
        tree.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        for folder in ("/etc/udev/rules.d", "/etc/systemd/system", "/var/lib", "/usr/local/lib"):
            tree.folder(folder)
        for path in ("/usr/bin/systemctl", "/usr/bin/udevadm", "/run/udev/control", "/run/systemd/system/x"):
            tree.write(path)
        self._show()

    def _command(self, argv, dummy):
        if argv[0] == "dmesg":
            lines = ["of another day"] + ["no room"] * len(self.writes)
            return Result(argv, 0, "".join("[%12.6f] %s: %s\n" % (100 + at, IGPU, line) for at, line in enumerate(lines)))
        return Result(argv, 0)

    def write_sysfs(self, path, value, timeout=10.0):
        self._change()
        assert timeout >= 60
        name = path.rpartition("/")[2]
        self.writes.append((name, value))
        if (name, value) in self.hang or self.locked:
            self.locked = True
            raise HostTimeout("writing %r to %s did not end within %g s" % (value, path, timeout))
        why = self.refuse.get((name, value)) or self._write(path, name, value)
        if why:
            raise HostError("writing %r to %s: %s" % (value, path, why))
        self._show()

    def _write(self, path, name, value):
        """What the kernel does, or its error."""
        if name == "create":
            kind = path.split("/")[-2]
            if self.exists(MDEVS + value):
                return "File exists"
            if self._left(kind) < 1:
                return "No space left on device"
            self.make(value, kind)
        elif name == "remove":
            self.end(path.split("/")[-2])
        elif name == "current_vgpu_type":
            address = path.split("/")[5]
            if value != "0" and (self.vgpu(address) != "0" or value not in self._creatable(address)):
                return "Operation not permitted"
            self.tree.write(path, value + "\n")
        else:
            raise AssertionError(path)
        return None

    def read_sysfs(self, path, timeout=10.0):
        if self.locked:
            raise HostTimeout("reading %s did not end" % path)
        return self.read_attribute(path)

    def make(self, uuid, kind):
        home = "%s/%s" % (self.tree.homes[IGPU], uuid)
        self.tree.write(home + "/remove")
        self.tree.link(home + "/mdev_type", "%s/mdev_supported_types/%s" % (self.tree.homes[IGPU], kind))
        self.tree.link(MDEVS + uuid, home)
        self.group += 1
        group = "/sys/kernel/iommu_groups/%d" % self.group
        self.tree.link("%s/devices/%s" % (group, uuid), home)
        self.tree.link(home + "/iommu_group", group)
        self._show()

    def end(self, uuid):
        os.unlink("%s/sys/kernel/iommu_groups/%s/devices/%s" % (self.root, self.group_of(uuid), uuid))
        os.unlink(self.root + MDEVS + uuid)
        shutil.rmtree("%s%s/%s" % (self.root, self.tree.homes[IGPU], uuid))

    def _left(self, kind):
        made = self.mdevs().values()
        if self.exclusive and any(one != kind for one in made):
            return 0
        return (4 - sum(COST[one] for one in made)) // COST[kind]

    def _creatable(self, address):
        """Only what the card's other virtual functions have; nothing for one that has a type."""
        if self.vgpu(address) != "0":
            return {}
        others = {self.vgpu(other) for other in VFS} - {"0"}
        return {kind: name for kind, name in VGPUS.items() if not others or kind in others}

    def _show(self):
        for kind in COST:
            path = "%s/mdev_supported_types/%s/available_instances" % (self.tree.homes[IGPU], kind)
            self.tree.write(path, "%d\n" % self._left(kind))
        for address in VFS:
            if self.exists(PCI + address):
                self.tree.write("%s/nvidia/creatable_vgpu_types" % self.tree.homes[address], "ID    : vGPU Name\n" + "".join(
                    "%s  : %s\n" % one for one in sorted(self._creatable(address).items())))

    # -- what is ------------------------------------------------------------------------------------

    def mdevs(self):
        return {uuid: os.path.basename(self.readlink(MDEVS + uuid + "/mdev_type")) for uuid in self.listdir(MDEVS)}

    def vgpu(self, address):
        return self.read_attribute(PCI + address + "/nvidia/current_vgpu_type")

    def group_of(self, uuid):
        return os.path.basename(self.readlink(MDEVS + uuid + "/iommu_group"))

    def reboot(self):
        self.hang, self.locked = set(), False
        self.tree.write("/proc/sys/kernel/random/boot_id", "another\n")
        for uuid in self.mdevs():
            self.end(uuid)
        for address in VFS:
            self.tree.write(self.tree.homes[address] + "/nvidia/current_vgpu_type", "0\n")
        self._show()

    def process(self, pid, command, node):
        """A process that has a node open, as /proc tells it."""
        self.tree.write("/proc/%d/stat" % pid, "%d (%s) S 1 1 1 0 -1" % (pid, command))
        os.makedirs(self.root + "/proc/%d/fd" % pid, exist_ok=True)
        os.symlink(node, self.root + "/proc/%d/fd/3" % pid)

    def state(self):
        """Everything that may be changed."""
        files = {}
        for top in ("/etc", "/var", "/usr/local"):
            for folder, dummy, names in os.walk(self.root + top):
                if not folder.startswith(self.root + "/etc/mdevctl.d/"):
                    files[folder] = None
                for name in names:
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        files[os.path.join(folder, name)] = file.read()
        return self.mdevs(), [self.vgpu(address) for address in VFS], files


def read_machine(host):
    """The machine document, read anew of the tree."""
    return _machine.collect(Host(host.root))
