# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with cards that make virtual functions, and a kernel that makes, binds and ends them as Linux does."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result
from ansible_collections.vfio.host.tests.unit.hardware import fake_machine
from ansible_collections.vfio.host.tests.unit.killable import KillableHost

DEVICES = "/sys/bus/pci/devices/"
DRIVERS = "/sys/bus/pci/drivers/"
PF, OTHER, PLAIN = "0000:02:00.0", "0000:05:00.0", "0000:00:19.0"
PORT, OTHER_PORT = "0000:00:1c.0", "0000:00:1d.0"
IDS = {PF: ("8086", "10c9"), OTHER: ("8086", "1572")}
NIC = {PF: "ens2", OTHER: "ens5"}
ACS = (0x1F, 0x1D)


def vf(number, physical=PF):
    """Address of a virtual function: offset 0x80, stride 2, as fake_machine.config_space() has them."""
    at = 0x80 + 2 * number
    return "0000:%02x:%02x.%d" % (int(physical[5:7], 16) + (at >> 8), at >> 3 & 0x1F, at & 7)


class Kernel(KillableHost):
    """Two cards with SR-IOV, each behind a port of its own.

    ``acs``: whether the ports isolate. ``refuse``, ``hang``: ``(attribute's name, address)`` that give an error, or
    never end. ``kill_at``: number of the change before which the run is killed. ``mute``: settings the driver
    does not tell. ``deaf``: settings it refuses. ``shift``: virtual functions are so many places further on.
    ``lost``: so many do not appear. ``failed_at``: number of the change that was refused last.

    What ``ip`` does is as in iproute2, the answers of the driver as in the kernel: ``silent``: ``{index: times}`` that the
    driver leaves a virtual function out since it is busy with it; ``busy``: times that it says so to who sets something.
    ``keeps_mac``: it takes no address away. ``old_ip``: a release without a list of VLANs.
    ``units``: ``{name: [(ActiveState, Job)]}``, what systemd says of a unit of ours, one after the other; ``over()`` is
    called after the last.
    """

    def __init__(self, root, acs=True, iommu=True, total=64):
        super().__init__(root, self._command)
        self.acs, self.iommu, self.total = acs, iommu, total
        self.hang, self.mute, self.deaf = set(), set(), set()
        self.writes, self.ran = [], []
        self.shift = self.lost = self.busy = self.failed_at = 0
        self.silent, self.keeps_mac, self.old_ip = {}, False, False
        self.fail_driver, self.locked, self.said = None, set(), []
        self.units, self.over = {}, lambda: None
        self.number = 20
        self.vfinfo = {PF: {}, OTHER: {}}
        self.tree_of = tree = fake_machine.base(
            pathlib.Path(root), fake_machine.CMDLINE + (" intel_iommu=on" if iommu else ""))
        if iommu:
            tree.folder("/sys/devices/virtual/iommu/dmar0")
            tree.link("/sys/class/iommu/dmar0", "/sys/devices/virtual/iommu/dmar0")
        port = {"driver": "pcieport", "express": fake_machine.ROOT_PORT, "acs": ACS if acs else None}
        tree.pci(PORT, "1b36:000c", "060400", group=self._group(1), buses=(2, 4), **port)
        tree.pci(OTHER_PORT, "1b36:000c", "060400", group=self._group(2), buses=(5, 5), **port)
        for address, above, group in ((PF, PORT, 3 if acs else 1), (OTHER, OTHER_PORT, 4 if acs else 2)):
            tree.pci(address, "%s:%s" % IDS[address], "020000", parent=above, driver="igb", group=self._group(group),
                     express=fake_machine.ENDPOINT, total_vfs=total, dsn=0x525400FFFF123456)
            home = tree.homes[address]
            for field, value in zip(("vendor", "device"), IDS[address]):
                tree.write("%s/%s" % (home, field), "0x%s\n" % value)
            for field, value in (("sriov_totalvfs", total), ("sriov_numvfs", 0), ("sriov_drivers_autoprobe", 1)):
                tree.write("%s/%s" % (home, field), "%d\n" % value)
            tree.nic(NIC[address], home, index=int(address[5:7]))
        tree.pci(PLAIN, "8086:10d3", "020000", driver="e1000e", group=self._group(5), express=9)
        for field, value in (("vendor", "8086"), ("device", "10d3")):
            tree.write("%s/%s" % (tree.homes[PLAIN], field), "0x%s\n" % value)
        tree.nic("enp0s25", tree.homes[PLAIN], index=9)
        tree.pci("0000:00:1f.2", "8086:2922", "010601", driver="ahci", group=self._group(6), msi=True)
        tree.disk("sda", tree.homes["0000:00:1f.2"] + "/ata1/host0/target0:0:0/0:0:0:0/block", partitions=1)
        tree.mount("/", "sda1")
        tree.addresses(("enp0s25", "10.0.2.15/24"))
        tree.route("enp0s25", "0.0.0.0", 0, "10.0.2.2", flags=3)
        tree.folder("/proc/1/fd")
        tree.write("/proc/uptime", "90000.00 0.00\n")  # has the time in which the host slept, unlike the stamps of dmesg
        tree.write("/proc/sys/kernel/random/boot_id", "first\n")
        for name in ("igb", "igbvf", "e1000e"):
            tree.folder(DRIVERS + name)
        for folder in ("/etc/udev/rules.d", "/etc/systemd/system", "/var/lib", "/usr/local/lib"):
            tree.folder(folder)
        for name in ("systemctl", "ip", "udevadm"):
            tree.write("/usr/bin/" + name)
        for address, name in ((PF, "igb"), (OTHER, "igb"), (PLAIN, "e1000e")):
            self.bind(address, name)

    def _group(self, number):
        return number if self.iommu else None

    def put(self, path, text):
        self.tree_of.write(path, text)

    def bind(self, address, name):
        self._symlink(DRIVERS + name, self.real(DEVICES + address) + "/driver")
        self.put(DRIVERS + name + "/bind", "")

    def _symlink(self, target, name):
        outside = self.root + name
        if os.path.lexists(outside):
            os.unlink(outside)
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        os.symlink(os.path.relpath(self.root + target, os.path.dirname(outside)), outside)

    # -- commands ------------------------------------------------------------------------------

    def _command(self, argv, dummy):
        self.ran.append(argv)
        if argv[0] == "modprobe":
            if argv[-1] in ("vfio-pci", "mlx5_vfio_pci"):
                os.makedirs(self.path(DRIVERS + argv[-1]), exist_ok=True)
            return Result(argv, 0)
        if argv[0] == "dmesg":
            said = self.said if self.writes else []
            return Result(argv, 0, "".join("[  100.500000] %s\n" % line for line in ["%s: of another day" % PF] + said))
        if argv[:2] == ["systemctl", "show"]:
            return Result(argv, 0, "\n".join(map(self._unit, argv[argv.index("--") + 1:])))
        if argv[0] in ("systemctl", "udevadm"):
            return Result(argv, 1 if argv[0] in self.deaf else 0, "", "no")
        if argv[:-1] == ["ip", "-json", "-details", "link", "show", "dev"]:
            if argv[-1] not in NIC.values():
                return Result(argv, 1, "", 'Device "%s" does not exist.\n' % argv[-1])
            return Result(argv, 0, json.dumps([self._show(argv[-1])]) + "\n")
        if argv[:4] == ["ip", "link", "set", "dev"]:
            return self._set(argv)
        raise HostError("%s: not here" % argv[0])

    def _unit(self, name):
        """What it is now, one property a line; a unit without a job has no line of one."""
        left = self.units.get(name) or [("inactive", 0)]
        state, job = left.pop(0)
        if not left and name in self.units:
            del self.units[name]
            self.over()
        return "%sId=%s\nActiveState=%s\n" % ("Job=%d\n" % job if job else "", name, state)

    def _physical(self, nic):
        return next(address for address, name in NIC.items() if name == nic)

    def _show(self, nic):
        infos = []
        for number, info in sorted(self.vfinfo[self._physical(nic)].items()):
            if self.silent.get(number):
                self.silent[number] -= 1
                continue
            vlan = {name: info[name] for name in ("vlan", "qos") if info[name]}
            if info.get("protocol"):
                vlan["protocol"] = info["protocol"]
            entry = {"vf": number, "link_type": "ether", "address": info["mac"], "broadcast": "ff:ff:ff:ff:ff:ff"}
            entry.update(vlan if self.old_ip else {"vlan_list": [vlan]})
            entry.update({"rate": {"max_tx": 0, "min_tx": 0}, "link_state": "auto"})
            entry.update({name: info[name] for name in ("spoofchk", "trust") if name not in self.mute})
            infos.append(entry)
        found = {"ifindex": int(self._physical(nic)[5:7]), "ifname": nic, "link_type": "ether", "mtu": 1500}
        return dict(found, vfinfo_list=infos) if self.vfinfo[self._physical(nic)] else found

    def _set(self, argv):
        self._change()
        nic, number, words = argv[4], int(argv[6]), argv[7:]
        if nic not in NIC.values():
            return Result(argv, 1, "", 'Cannot find device "%s"\n' % nic)
        if self.busy:
            self.busy -= 1
            return Result(argv, 2, "", "RTNETLINK answers: Resource temporarily unavailable\n")
        info = self.vfinfo[self._physical(nic)].get(number)
        if info is None or self.keeps_mac and words == ["mac", "00:00:00:00:00:00"]:
            return Result(argv, 2, "", "RTNETLINK answers: Invalid argument\n")
        info.pop("protocol" if words[0] == "vlan" else None, None)
        for name, value in zip(words[::2], words[1::2]):
            if name in self.deaf:
                return Result(argv, 2, "", "RTNETLINK answers: Operation not supported\n")
            info[name] = {"on": True, "off": False}.get(value, int(value) if value.isdigit() else value)
        return Result(argv, 0)

    def write_sysfs(self, path, value, timeout=10.0):
        self._change()
        value = value.strip()
        name = path.rpartition("/")[2]
        address = path.split("/")[5] if path.startswith(DEVICES) else value
        self.writes.append((name, address, value))
        if (name, address) in self.hang or address in self.locked:
            self.locked.add(address)
            raise HostTimeout("writing %r to %s did not end within %g s" % (value, path, timeout))
        if (name, address, value) in self.refuse or (name, address) in self.refuse:
            self.failed_at = self.changes
            raise HostError("writing %r to %s: %s" % (
                value, path, self.refuse.get((name, address, value)) or self.refuse[(name, address)]))
        if name == "sriov_numvfs":
            assert timeout >= 60
            self._count(address, int(value), path)
        elif name == "sriov_drivers_autoprobe":
            self.put(path, value + "\n")
        elif name == "driver_override":
            self.put(path, (value or "(null)") + "\n")
        elif name == "unbind":
            self._release(address)
        elif name == "bind":
            if not self._probe(address, path.split("/")[5]):
                raise HostError("writing %r to %s: No such device" % (value, path))
        elif name == "drivers_probe":
            self._probe(address, self.override(address) or "igbvf")
        else:
            raise AssertionError(path)

    def read_sysfs(self, path, timeout=10.0):
        if path.startswith(DEVICES) and path.split("/")[5] in self.locked:
            raise HostTimeout("reading %s did not end within %g s" % (path, timeout))
        return super().read_attribute(path)

    def read_attribute(self, path):
        """Reading these takes the device's lock, so whoever does it without a deadline may wait for ever."""
        assert path.rpartition("/")[2] not in ("sriov_numvfs", "driver_override"), "%s is read without a deadline" % path
        return super().read_attribute(path)

    def _count(self, address, count, path):
        if count == self.count(address):
            return
        if count and self.count(address):
            raise HostError("writing '%d' to %s: Device or resource busy" % (count, path))
        if count > self.total:
            raise HostError("writing '%d' to %s: Numerical result out of range" % (count, path))
        home = self.real(DEVICES + address)
        for name in self.listdir(home):
            if name.startswith("virtfn"):
                self._end_of(os.path.basename(self.readlink(home + "/" + name)))
                os.unlink(self.root + home + "/" + name)
        self.vfinfo[address] = {}
        self.put(home + "/sriov_numvfs", "%d\n" % count)
        for number in range(count - self.lost):
            self.make(address, number)

    def make(self, address, number):
        """One virtual function: probed by itself only where that is on."""
        at = vf(number + self.shift, address)
        above = PORT if address == PF else OTHER_PORT
        group = self._group(self.number if self.acs else 1 if address == PF else 2)
        self.number += 1
        config = fake_machine.config_space(0xFFFF, 0xFFFF, 0x020000, express=fake_machine.ENDPOINT)
        home = self.tree_of.pci(at, "8086:10ca", "020000", parent=above, group=group, config=config)
        for field, value in (("vendor", "8086"), ("device", "10ca")):
            self.put("%s/%s" % (home, field), "0x%s\n" % value)
        self._symlink(self.real(DEVICES + address), home + "/physfn")
        self._symlink(home, "%s/virtfn%d" % (self.real(DEVICES + address), number))
        self.vfinfo[address][number] = {"mac": "00:00:00:00:00:00", "vlan": 0, "qos": 0, "spoofchk": True,
                                        "trust": False}
        if self.autoprobe(address):
            self._probe(at, "igbvf")

    def _end_of(self, address):
        home = self.real(DEVICES + address)
        link = self.readlink(home + "/iommu_group")
        if link:
            group = "/sys/kernel/iommu_groups/" + os.path.basename(link)
            os.unlink("%s%s/devices/%s" % (self.root, group, address))
            if not self.listdir(group + "/devices"):
                shutil.rmtree(self.root + group)
                if self.exists("/dev/vfio/" + os.path.basename(link)):
                    os.unlink(self.root + "/dev/vfio/" + os.path.basename(link))
        for name in self.listdir(home + "/net"):
            os.unlink(self.root + "/sys/class/net/" + name)
        os.unlink(self.root + DEVICES + address)
        shutil.rmtree(self.root + home)

    def _probe(self, address, driver):
        if self.driver(address) is not None or driver == self.fail_driver or not self.isdir(DRIVERS + driver):
            return False
        override = self.override(address)
        if override not in (None, driver):
            return False
        home = self.real(DEVICES + address)
        physical = os.path.basename(self.readlink(home + "/physfn"))
        if not self.autoprobe(physical) and not override:
            return False
        self.bind(address, driver)
        if driver == "igbvf":
            self.tree_of.nic("v" + address.replace(":", "").replace(".", ""), home, index=100 + self.number)
        else:
            self.put("/dev/vfio/" + os.path.basename(self.readlink(home + "/iommu_group")), "")
        return True

    def _release(self, address):
        home = self.real(DEVICES + address)
        for name in self.listdir(home + "/net"):
            os.unlink(self.root + "/sys/class/net/" + name)
            shutil.rmtree("%s%s/net/%s" % (self.root, home, name))
        os.unlink(self.root + home + "/driver")

    def vfio_viable(self, path):
        members = self.listdir("/sys/kernel/iommu_groups/%s/devices" % os.path.basename(path))
        return all("vfio" in (self.driver(a) or "vfio") or self.driver(a) == "pcieport" for a in members)

    # -- what is ------------------------------------------------------------------------------

    def driver(self, address):
        link = self.readlink(DEVICES + address + "/driver")
        return os.path.basename(link) if link else None

    def override(self, address):
        text = super().read_attribute(DEVICES + address + "/driver_override")
        return None if text in ("(null)", None) else text

    def count(self, address):
        return int(super().read_attribute(DEVICES + address + "/sriov_numvfs"))

    def autoprobe(self, address):
        return self.read_attribute(DEVICES + address + "/sriov_drivers_autoprobe") == "1"

    def virtual(self, physical):
        """Addresses of the virtual functions of a card that are there."""
        return [address for address in self.listdir(DEVICES)
                if os.path.basename(self.readlink(DEVICES + address + "/physfn") or "") == physical]

    def boot(self):
        return self.read_attribute("/proc/sys/kernel/random/boot_id")

    def process(self, pid, command, node):
        """A process that has a node open, as /proc tells it."""
        self.put("/proc/%d/stat" % pid, "%d (%s) S 1 1 1 0 -1" % (pid, command))
        os.makedirs(self.root + "/proc/%d/fd" % pid, exist_ok=True)
        os.symlink(node, self.root + "/proc/%d/fd/3" % pid)

    def reboot(self):
        """No card has virtual functions afterwards, and nothing hangs."""
        self.hang, self.locked = set(), set()
        self.put("/proc/sys/kernel/random/boot_id", self.boot() + "again\n")
        for address in IDS:
            self._count(address, 0, "")
            self.put(DEVICES + address + "/sriov_drivers_autoprobe", "1\n")

    def state(self):
        """Everything that may be changed: cards, virtual functions, settings, files."""
        cards = {address: (self.count(address), self.autoprobe(address)) for address in IDS}
        virtual = {address: (self.driver(address), self.override(address)) for address in self.listdir(DEVICES)
                   if self.exists(DEVICES + address + "/physfn")}
        files = {}
        for top in ("/etc", "/var", "/usr/local"):
            for folder, dummy, names in os.walk(self.root + top):
                files[folder] = None
                for name in names:
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        files[os.path.join(folder, name)] = file.read()
        return cards, virtual, json.dumps(self.vfinfo, sort_keys=True), files

    def files(self):
        """The files beside the record, by their path on the machine."""
        return {path[len(self.root):]: text for path, text in self.state()[3].items() if "/var/" not in path}


def read_machine(host):
    """The machine document, read anew of the tree."""
    fresh = Host(host.root)
    return _machine.collect(fresh)


__all__ = ["IDS", "NIC", "OTHER", "OTHER_PORT", "PF", "PLAIN", "PORT", "Kernel", "read_machine", "vf"]
