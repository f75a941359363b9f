# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small sysfs and proc trees, laid out as the kernel lays them out, with relative links."""

from __future__ import annotations

import os
import struct

ENDPOINT, LEGACY_ENDPOINT, ROOT_PORT, PCIE_TO_PCI = 0, 1, 4, 7

PCI_PATH = "/sys/devices/pci0000:00"


def config_space(vendor, device, code, bridge=False, multifunction=False, express=None, flr=False, af_flr=False,
                 msi=False, msix=False, acs=None, dsn=None, total_vfs=None, ats=False, size=4096, buses=None, link=None,
                 rebar=None, rcba=None, no_soft_reset=None, wide_acs=False):
    """Bytes of a configuration space; ``express`` is a port type, ``acs`` (capability, control).

    ``buses`` (secondary, subordinate); ``link`` (speed code, width, most speed, most width); ``rebar``
    [(bar, size exponent above 1 MiB, [exponents offered])]; ``rcba`` bit 0 at 0xf0; ``wide_acs``: double words.
    """
    data = bytearray(size)
    if buses:
        data[0x19], data[0x1A] = buses
    if rcba is not None and size > 0xF4:
        struct.pack_into("<I", data, 0xF0, 0xFED1C000 | int(rcba))
    struct.pack_into("<HHHH", data, 0, vendor, device, 0, 0)
    data[0x08:0x0C] = bytes([2]) + code.to_bytes(3, "little")
    data[0x0E] = (1 if bridge else 0) | (0x80 if multifunction else 0)
    plain = []
    if express is not None:
        body = struct.pack("<HI", express << 4 | 2, (1 << 28) if flr else 0)
        if link:
            speed, width, most_speed, most_width = link
            body += struct.pack("<IIHH", 0, most_speed | most_width << 4, 0, speed | width << 4)
        plain.append((0x10, body))
    if no_soft_reset is not None:
        plain.append((0x01, struct.pack("<HH", 3, 8 if no_soft_reset else 0)))
    if msi:
        plain.append((0x05, b"\0\0"))
    if msix:
        plain.append((0x11, b"\0\0"))
    if af_flr:
        plain.append((0x13, b"\x06\x03"))
    pointer, at = 0x34, 0x40
    for number, body in plain:
        data[0x06] |= 0x10
        data[pointer] = at
        data[at] = number
        data[at + 2:at + 2 + len(body)] = body
        pointer, at = at + 1, at + 0x20
    extended = []
    if dsn is not None:
        extended.append((0x03, dsn.to_bytes(8, "little")))
    if acs is not None:
        extended.append((0x0D, struct.pack("<II" if wide_acs else "<HH", *acs)))
    if ats:
        extended.append((0x0F, b"\0\0"))
    if total_vfs is not None:
        extended.append((0x10, struct.pack("<IHHHHHHHHH", 0, 0, 0, total_vfs, 3, 0, 0x80, 2, 0, 0x10CA)))  # from +6 on
    if rebar:
        body = b"".join(struct.pack("<II", sum(1 << 4 + e for e in offered), place | len(rebar) << 5 | exponent << 8)
                        for place, exponent, offered in rebar)
        extended.append((0x15, body))
    at = 0x100
    for number, (name, body) in enumerate(extended):
        following = at + 0x40 if number + 1 < len(extended) else 0
        struct.pack_into("<I", data, at, name | 1 << 16 | following << 20)
        start = at + (6 if name == 0x10 else 4)
        data[start:start + len(body)] = body
        at = following
    return bytes(data)


class FakeMachine:
    """A tree below ``root`` (a pathlib path). Every method takes paths as seen inside."""

    def __init__(self, root):
        self.root = str(root)
        self.homes = {}
        self.minor = 0
        self.mounts = []

    def outside(self, path):
        return self.root + path

    def write(self, path, data=""):
        outside = self.outside(path)
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        with open(outside, "wb") as handle:
            handle.write(data.encode() if isinstance(data, str) else data)

    def folder(self, path):
        os.makedirs(self.outside(path), exist_ok=True)

    def link(self, path, target):
        """A relative link from ``path`` to ``target``, both absolute inside."""
        outside = self.outside(path)
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        os.symlink(os.path.relpath(target, os.path.dirname(path)), outside)

    # -- PCI -------------------------------------------------------------------------------

    def pci(self, address, ids, code, parent=None, driver=None, group=None, boot_vga=None, subsystem="1af4:1100",
            config=None, **capabilities):
        """A function; ``config`` replaces the bytes that ``capabilities`` would make."""
        home = "%s/%s" % (self.homes[parent] if parent else PCI_PATH, address)
        self.homes[address] = home
        vendor, device = ids.split(":")
        modalias = "pci:v0000%sd0000%ssv0000%ssd0000%sbc%ssc%si%s" % tuple(
            text.upper() for text in (vendor, device, *subsystem.split(":"), code[:2], code[2:4], code[4:]))
        event = ["DRIVER=" + driver] if driver else []
        event += ["PCI_CLASS=%X" % int(code, 16), "PCI_ID=" + ids.upper(), "PCI_SUBSYS_ID=" + subsystem.upper(),
                  "PCI_SLOT_NAME=" + address, "MODALIAS=" + modalias]
        self.write(home + "/uevent", "\n".join(event) + "\n")
        self.write(home + "/revision", "0x02\n")
        self.write(home + "/irq", "11\n")
        self.write(home + "/numa_node", "-1\n")
        self.write(home + "/driver_override", "(null)\n")
        self.write(home + "/reset_method", "pm bus\n")
        self.write(home + "/resource", "0x00000000f0000000 0x00000000f0ffffff 0x0000000000042208\n"
                   + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n" * 12)
        if boot_vga is not None:
            self.write(home + "/boot_vga", "%d\n" % boot_vga)
        if config is None:
            capabilities.setdefault("size", 4096 if capabilities.get("express") is not None else 256)
            config = config_space(int(vendor, 16), int(device, 16), int(code, 16), bridge=code.startswith("0604"),
                                  **capabilities)
        self.write(home + "/config", config)
        self.link("/sys/bus/pci/devices/" + address, home)
        if group is not None:
            folder = "/sys/kernel/iommu_groups/%s" % group
            self.link("%s/devices/%s" % (folder, address), home)
            self.link(home + "/iommu_group", folder)
        return home

    # -- block devices ------------------------------------------------------------------------

    def disk(self, name, home, partitions=0, slaves=(), number=None):
        """A block device at ``home``/``name``; partitions are named ``name1`` or ``name`` + ``p1``."""
        home = "%s/%s" % (home, name)
        self._block(name, home, number)
        for partition in range(1, partitions + 1):
            below = "%s%s%d" % (name, "p" if name[-1].isdigit() else "", partition)
            self._block(below, "%s/%s" % (home, below), None)
            self.write("%s/%s/partition" % (home, below), "%d\n" % partition)
        for slave in slaves:
            self.link("%s/slaves/%s" % (home, slave), "/sys/class/block/" + slave)
        return home

    def _block(self, name, home, number):
        self.minor += 1
        number = number or "8:%d" % self.minor
        self.write(home + "/dev", number + "\n")
        self.link("/sys/class/block/" + name, home)
        self.link("/sys/dev/block/" + number, home)

    def virtual_disk(self, name, slaves=(), mapper=None):
        home = self.disk(name, "/sys/devices/virtual/block", slaves=slaves)
        if mapper:
            self.write(home + "/dm/name", mapper + "\n")
            self.link("/dev/mapper/" + mapper, "/dev/" + name)
        return home

    def udev(self, name, *links, **properties):
        """Entry of block device ``name`` in udev's database; ``links`` below /dev."""
        with open(self.outside("/sys/class/block/%s/dev" % name)) as handle:
            number = handle.read().strip()
        lines = ["S:" + link for link in links] + ["I:1", "E:ID_SERIAL=x"]
        lines += ["E:%s=%s" % item for item in sorted(properties.items())] + ["G:systemd", "V:1"]
        self.write("/run/udev/data/b" + number, "\n".join(lines) + "\n")

    def mount(self, point, name=None, fstype="ext4", source=None, number=None, options="rw"):
        """Mount block device ``name``, or something without one, at ``point``."""
        if name:
            with open(self.outside("/sys/class/block/%s/dev" % name)) as handle:
                number = handle.read().strip()
        self.mounts.append("30 1 %s / %s rw,relatime shared:1 - %s %s %s"
                           % (number or "0:99", point, fstype, source or "/dev/%s" % name, options))
        self.write("/proc/self/mountinfo", "\n".join(self.mounts) + "\n")

    # -- network ----------------------------------------------------------------------------------

    def nic(self, name, below=None, lower=(), kind=None, index=2, master=None, mac="52:54:00:00:00:01"):
        """An interface at ``below`` (sysfs folder of its device) or virtual; ``kind`` bridge, bond, vlan."""
        home = "%s/net/%s" % (below or "/sys/devices/virtual", name)
        event = ["DEVTYPE=" + kind] if kind else []
        self.write(home + "/uevent", "\n".join(event + ["INTERFACE=" + name, "IFINDEX=%d" % index]) + "\n")
        values = {"address": mac, "operstate": "up", "mtu": "1500", "addr_assign_type": "0"}
        for attribute, value in values.items():
            self.write("%s/%s" % (home, attribute), value + "\n")
        if below:
            self.link(home + "/device", below)
        if kind in ("bridge", "bond"):
            self.folder(home + {"bridge": "/bridge", "bond": "/bonding"}[kind])
        for other in lower:
            self.link("%s/lower_%s" % (home, other), "/sys/class/net/" + other)
        if master:
            self.link(home + "/master", "/sys/class/net/" + master)
        self.link("/sys/class/net/" + name, home)

    def addresses(self, *wanted):
        """``(interface, "192.0.2.2/24")`` each: their local entry and connected route."""
        trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n"
        for interface, cidr in wanted:
            address, dummy, prefix = cidr.partition("/")
            trie += "     |-- %s\n        /32 host LOCAL\n" % address
            if prefix != "32":
                self.route(interface, address, int(prefix))
        self.write("/proc/net/fib_trie", trie)

    def route(self, interface, destination, prefix, gateway="0.0.0.0", flags=1):
        path = "/proc/net/route"
        if not os.path.exists(self.outside(path)):
            self.write(path, "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n")
        mask = 0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF
        to, via = [int.from_bytes(bytes(map(int, text.split("."))), "big") for text in (destination, gateway)]
        to, via, mask = [int.from_bytes(value.to_bytes(4, "big"), "little") for value in (to & mask, via, mask)]
        with open(self.outside(path), "a") as handle:
            handle.write("%s\t%08X\t%08X\t%04X\t0\t0\t0\t%08X\t0\t0\t0\n" % (interface, to, via, flags, mask))

    # -- processes --------------------------------------------------------------------------------

    def process(self, pid, command, parent, environ=b""):
        """``environ`` None makes it unreadable (absent)."""
        self.write("/proc/%s/stat" % pid, "1 (%s) S %s 1 1 0 -1" % (command, parent))
        if environ is not None:
            self.write("/proc/%s/environ" % pid, environ)


CMDLINE = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 root=UUID=1 ro quiet"


def base(root, cmdline=CMDLINE, table="DMAR"):
    """What every host has; a local session."""
    machine = FakeMachine(root)
    machine.write("/proc/cmdline", cmdline + "\n")
    machine.write("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    machine.write("/proc/sys/kernel/arch", "x86_64\n")
    machine.write("/proc/cpuinfo", "".join("processor\t: %d\nvendor_id\t: AuthenticAMD\n" % n for n in range(2)))
    machine.write("/proc/interrupts", "  24:  0  0  IR-PCI-MSI 327680-edge  xhci_hcd\n")
    machine.write("/proc/meminfo", "MemTotal:        4028440 kB\nMemFree: 1 kB\n")
    machine.write("/usr/share/misc/pci.ids", "# ids\n1234  QEMU\n\t1111  Virtual Video Controller\n"
                  "8086  Intel Corporation\n\t10d3  82574L\n\t\t1af4 1100  sub\n\t2922  AHCI\n")
    machine.write("/lib/modules/6.1.0-18-amd64/modules.alias",
                  "alias pci:v00001234d00001111sv*sd*bc*sc*i* bochs\n"
                  "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n"
                  "alias pci:v*d*sv*sd*bc01sc06i01* ahci\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n")
    machine.process("self", "python3", "100")
    machine.process("100", "bash", "50")
    machine.process("50", "login", "1", environ=None)
    machine.folder("/sys/class/iommu")
    if table:
        machine.write("/sys/firmware/acpi/tables/" + table, "")
    machine.addresses()
    return machine


def p8h67(root, iommu=True):
    """The how-to's machine as the lab has it; with ``iommu`` its groups, else none."""
    machine = base(root, CMDLINE + (" intel_iommu=on" if iommu else ""))
    if iommu:
        machine.folder("/sys/devices/virtual/iommu/dmar0")
        machine.link("/sys/class/iommu/dmar0", "/sys/devices/virtual/iommu/dmar0")

    def add(address, ids, code, group, **more):
        machine.pci(address, ids, code, group=group if iommu else None, **more)

    add("0000:00:00.0", "8086:29c0", "060000", 0)
    add("0000:00:01.0", "8086:0151", "060400", 1, driver="pcieport", express=ROOT_PORT)
    add("0000:01:00.0", "1234:1111", "030000", 1, parent="0000:00:01.0", express=ENDPOINT, multifunction=True,
        boot_vga=0)
    add("0000:01:00.1", "8086:293e", "040300", 1, parent="0000:00:01.0", express=ENDPOINT, driver="snd_hda_intel")
    add("0000:00:02.0", "1b36:0100", "030000", 2, driver="qxl", boot_vga=1)
    add("0000:00:1c.0", "1b36:000c", "060400", 3, driver="pcieport", express=ROOT_PORT, acs=(0x1F, 0x1D))
    add("0000:02:00.0", "1002:5046", "030000", 4, parent="0000:00:1c.0", multifunction=True, boot_vga=0)
    add("0000:02:00.1", "8086:293e", "040300", 4, parent="0000:00:1c.0", express=ENDPOINT)
    add("0000:00:19.0", "8086:10d3", "020000", 5, driver="e1000e", express=9, dsn=0x525400FFFF123456, flr=True)
    add("0000:00:1f.0", "8086:2918", "060100", 6, multifunction=True)
    add("0000:00:1f.2", "8086:2922", "010601", 6, driver="ahci", msi=True)
    machine.write("/proc/consoles", "tty0                 -WU (EC p  )    4:7\n")
    machine.write("/proc/iomem", "00001000-0009ffff : System RAM\n")
    machine.folder("/proc/1/fd")
    machine.disk("sda", machine.homes["0000:00:1f.2"] + "/ata1/host0/target0:0:0/0:0:0:0/block", partitions=2)
    machine.mount("/", "sda1")
    machine.nic("enp0s25", machine.homes["0000:00:19.0"])
    machine.addresses(("enp0s25", "10.0.2.15/24"))
    machine.route("enp0s25", "0.0.0.0", 0, "10.0.2.2", flags=3)
    return machine
