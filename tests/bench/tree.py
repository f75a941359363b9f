# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Synthetic machines of any size: root ports with ACS, each with a card of seven functions; eight to a step."""

from __future__ import annotations

import pathlib

from ansible_collections.vfio.host.tests.unit.hardware import fake_machine

CARDS = ("8086:1572 020000", "10de:1380 030000", "144d:a808 010802", "8086:293e 040300", "1033:0194 0c0330")


def build(folder, functions, groups=True):
    """A tree with that many functions (a multiple of eight), with the kernel's groups or without."""
    machine = fake_machine.base(pathlib.Path(folder))
    number = 0
    for step in range(functions // 8):
        domain, place = divmod(step, 248)
        port = "%04x:00:%02x.%d" % (domain, 1 + place // 8, place % 8)
        bus = 1 + place
        add(machine, port, "8086:2f02", "060400", driver="pcieport", express=4, acs=(0x1F, 0x1D), buses=(bus, bus),
            multifunction=True, group=number if groups else None)
        number += 1
        ids, code = CARDS[step % len(CARDS)].split(" ")
        for part in range(7):
            add(machine, "%04x:%02x:00.%d" % (domain, bus, part), ids, code, parent=port, express=0, multifunction=True,
                msi=True, link=(3, 8, 4, 16), flr=True, group=number if groups else None)
        number += 1
    use(machine)
    return machine.root


def use(machine):
    """What an ordinary host needs of it: a root disk and the NIC of its default route, on the first two cards."""
    machine.disk("sda", machine.homes["0000:03:00.0"] + "/ata1/host0/target0:0:0/0:0:0:0/block", partitions=2)
    machine.mount("/", "sda1")
    machine.nic("enp1s0", machine.homes["0000:01:00.0"])
    machine.addresses(("enp1s0", "10.0.2.15/24"))
    machine.route("enp1s0", "0.0.0.0", 0, "10.0.2.2", flags=3)
    machine.write("/proc/consoles", "tty0                 -WU (EC p  )    4:7\n")
    machine.write("/proc/iomem", "00001000-0009ffff : System RAM\n")
    machine.folder("/proc/1/fd")
    machine.write(machine.homes["0000:02:00.0"] + "/boot_vga", "1\n")


def add(machine, address, ids, code, **options):
    """A function with the attributes that lspci reads besides those that the probe does."""
    home = machine.pci(address, ids, code, **options)
    for name, value in zip(("vendor", "device", "class"), (*ids.split(":"), code)):
        machine.write("%s/%s" % (home, name), "0x%s\n" % value)
