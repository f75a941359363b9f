# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded sysfs with a kernel behind it that binds and unbinds as Linux does, and a driver that does not."""

from __future__ import annotations

import os
import shutil

from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result
from ansible_collections.vfio.host.tests.unit.boot import functions
from ansible_collections.vfio.host.tests.unit.killable import Killed, half_written

DEVICES = "/sys/bus/pci/devices/"
DRIVERS = "/sys/bus/pci/drivers/"
NIC = dict(functions.SUBSYSTEM, address="0000:03:00.0", vendor="8086", device="10d3")
GPU, AUDIO = functions.GPU, functions.AUDIO
NATIVE = {GPU["address"]: "bochs-drm", AUDIO["address"]: "snd_hda_intel", NIC["address"]: "e1000e"}
VFIO = ("vfio-pci", "mlx5_vfio_pci")
GROUPS = {GPU["address"]: "7", AUDIO["address"]: "7", NIC["address"]: "8"}
CLASSES = {GPU["address"]: "030000", AUDIO["address"]: "040300", NIC["address"]: "020000"}


class Kernel(Host):
    """A card with two functions in group 7 and a NIC in group 8, each on its own driver.

    ``refuse``: ``(attribute's name, address)`` that give an error; ``hang``: the same, for ever. ``fail``: drivers
    whose probe fails. ``missing``: drivers of which there is no module. ``lonely``: those whose module does not stay
    loaded without a function. ``full``: paths for which the disk has no room. ``kill_at``: number of the change before
    which the run is killed. ``groups``: false for a kernel that has nodes of functions instead of groups. ``said``: what
    the kernel says at the next write to sysfs; ``log`` has what it said, of which ``ring`` lines are kept.
    """

    def __init__(self, root):
        super().__init__(root, commands=self._command)
        self.refuse, self.hang, self.fail, self.said, self.writes = set(), set(), set(), [], []
        self.missing, self.lonely, self.full = set(), set(), set()
        self.locked, self.open_groups, self.groups, self.opened = set(), set(), True, []
        self.kill_at, self.changes, self.modules = None, 0, []
        self.log, self.ring, self.stamps, self.clock = [], 1000, True, 100.5
        self.persistent, self.smi, self.smi_fails = set(), [], False
        for driver in sorted(set(NATIVE.values())):
            os.makedirs(self.path(DRIVERS + driver), exist_ok=True)
        for identity in (GPU, AUDIO, NIC):
            address = identity["address"]
            functions.add_function(self, identity, driver=NATIVE[address], group=GROUPS[address],
                                   device_class=CLASSES[address])
        self.put("/proc/sys/kernel/random/boot_id", "first\n")
        self.put("/proc/uptime", "90000.00 0.00\n")  # has the time in which the host slept, unlike the stamps of dmesg

    def put(self, path, text):
        where = self.path(path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "w", encoding="utf-8") as handle:
            handle.write(text)

    def _command(self, argv, dummy):
        if argv[0] == "modprobe":
            return Result(argv, 0 if self._modprobe(argv[-1], "-n" in argv) else 1)
        if argv[0] == "nvidia-smi":
            self._change()
            self.smi.append(argv[1:])
            if self.smi_fails:
                return Result(argv, 2, "", "Failed to initialize NVML: Driver/library version mismatch")
            (self.persistent.add if argv[4] == "1" else self.persistent.discard)(argv[2])
            return Result(argv, 0)
        if argv[0] == "dmesg":
            return Result(argv, 0, "".join(line + "\n" for line in self.log))
        raise HostError("%s: not here" % argv[0])

    def _modprobe(self, name, dry):
        """A driver that comes probes every function that has none and that it matches."""
        if name == "vfio_iommu_type1":
            return True
        if name in self.missing or name not in VFIO and name not in NATIVE.values():
            return False
        if not dry and not self.isdir(DRIVERS + name):
            os.makedirs(self.path(DRIVERS + name))
            taken = [address for address in NATIVE if self._probe(address, name)]
            if name in self.lonely and not taken:
                self.unload(name)
                return False
        if not dry:
            self.modules.append(name)
        return True

    def say(self, *lines):
        for line in lines:
            self.clock += 0.25
            self.log = (self.log + [("[%12.6f] " % self.clock if self.stamps else "") + line])[-self.ring:]

    def unload(self, driver):
        os.rmdir(self.path(DRIVERS + driver))

    # -- changes, any of which may be the last thing that happens ----------------------------

    def _change(self, written=None):
        self.changes += 1
        if self.kill_at and self.changes >= self.kill_at:  # what runs after the end changes nothing any more
            if written and self.changes == self.kill_at:
                half_written(self, written)
            raise Killed()

    def write(self, path, data, mode=0o644):
        if path.startswith(("/etc/", "/var/", "/run/")):
            self._change(None if path.startswith("/run/") else path)
        if path in self.full:
            os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
            raise OSError(28, "No space left on device")
        super().write(path, data, mode)

    def remove(self, path):
        self._change()
        return super().remove(path)

    def write_sysfs(self, path, value, timeout=10.0):
        self._change()
        value = value.strip()
        name = path.rpartition("/")[2]
        parts = path.split("/")
        address = parts[5] if path.startswith(DEVICES) else value
        self.writes.append((name, address, value))
        self.say(*self.said)
        self.said = []
        if (name, address) in self.hang or address in self.locked:
            self.locked.add(address)  # as the kernel does: it keeps the lock of the device
            raise HostTimeout("writing %r to %s did not end within 10 s" % (value, path))
        if (name, address) in self.refuse:
            raise HostError("writing %r to %s: Device or resource busy" % (value, path))
        if name == "driver_override":
            self.put(path, (value or "(null)") + "\n")
        elif name == "unbind":
            self._release(address)
        elif name == "bind":
            busy = self.driver(address) is not None
            if not self._probe(address, parts[5]):
                raise HostError("writing %r to %s: %s" % (
                    value, path, "Device or resource busy" if busy else "No such device"))
        elif name == "drivers_probe":
            override = self.override(address)
            self._probe(address, override or NATIVE[address])
        else:
            raise AssertionError(path)

    def read_sysfs(self, path, timeout=10.0):
        if path.startswith(DEVICES) and path.split("/")[5] in self.locked:
            raise HostTimeout("reading %s did not end within 10 s" % path)
        return self.read_attribute(path)

    def _release(self, address):
        os.unlink(self.root + DEVICES + address + "/driver")
        self._nodes()

    def _probe(self, address, driver):
        if self.driver(address) is not None or driver in self.fail or not self.isdir(DRIVERS + driver):
            return False
        override = self.override(address)
        if override != driver and (override or driver in VFIO):  # pci_match_device; what is for guests has to be named
            return False
        if driver not in VFIO and driver != NATIVE[address]:
            return False
        functions.bind(self, address, driver)
        self._nodes()
        return True

    def _nodes(self):
        for number, address in enumerate(sorted(NATIVE) if not self.groups else ()):
            shutil.rmtree(self.root + DEVICES + address + "/vfio-dev", ignore_errors=True)
            if self.driver(address) in VFIO:
                os.makedirs(self.path(DEVICES + address + "/vfio-dev/vfio%d" % number))
                self.put("/dev/vfio/devices/vfio%d" % number, "")
        for group in set(GROUPS.values()) if self.groups else ():
            node = self.root + "/dev/vfio/" + group
            wanted = any("vfio" in (self.driver(a) or "") for a, number in GROUPS.items() if number == group)
            if wanted:
                self.put("/dev/vfio/" + group, "")
            elif os.path.exists(node):
                os.unlink(node)

    def vfio_open(self, path, timeout=10.0):
        if not self.exists(path):
            raise HostError("%s: No such file or directory" % path)
        self.opened.append(path)

    def vfio_viable(self, path):
        group = path.rpartition("/")[2]
        if group in self.open_groups:
            return None
        return all("vfio" in (self.driver(a) or "vfio") for a, number in GROUPS.items() if number == group)

    # -- what is ------------------------------------------------------------------------------

    def driver(self, address):
        link = self.readlink(DEVICES + address + "/driver")
        return os.path.basename(link) if link else None

    def override(self, address):
        text = self.read_attribute(DEVICES + address + "/driver_override")
        return None if text == "(null)" else text

    def state(self):
        return {address: (self.driver(address), self.override(address)) for address in NATIVE}

    def reboot(self):
        """As without a list in the image: every function at its own driver."""
        self.locked.clear()
        self.hang.clear()
        shutil.rmtree(self.root + "/run", ignore_errors=True)
        for address, driver in NATIVE.items():
            self.put(DEVICES + address + "/driver_override", "(null)\n")
            functions.bind(self, address, driver)
        self._nodes()
        self.put("/proc/sys/kernel/random/boot_id", "second\n")

    def machine(self, **changes):
        """The machine document that the module would read. ``changes``: ``address=`` fields to replace."""
        document = []
        for address in NATIVE:
            members = sorted(a for a, number in GROUPS.items() if number == GROUPS[address])
            function = {
                "address": address, "driver": self.driver(address), "group": int(GROUPS[address]),
                "group_members": members, "is_bridge": False, "class": CLASSES[address], "used_by": [], "holders": [],
            }
            if address in self.persistent and function["driver"] == NATIVE[address]:
                function["holders"] = [{"pid": 812, "command": "nvidia-persiste", "node": "/dev/nvidia0"}]
            function.update(changes.get(address, {}))
            document.append(function)
        interfaces = [interface()] if self.driver(NIC["address"]) == "e1000e" else []
        network = {"interfaces": changes.get("interfaces", interfaces)}
        return {"functions": document, "host": {"usage_unknown": changes.get("unknown", []), "network": network}}


def interface(**fields):
    """One that is up with nothing on it."""
    return dict({"name": "enp3s0", "function": NIC["address"], "master": None, "lower": [],
                 "addresses": ["fe80::5054:ff:fe12:3456/64"]}, **fields)
