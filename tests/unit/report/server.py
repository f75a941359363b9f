# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A made-up server with about 300 functions: two sockets, accelerators behind switches, drives, NICs with VFs."""

from __future__ import annotations

from ansible_collections.vfio.host.tests.unit import machines

NAMES = {
    "8086:09a2": ("Intel Corporation", "Ice Lake Memory Map/VT-d"),
    "8086:347a": ("Intel Corporation", "Ice Lake PCIe Root Port A"),
    "10b5:9797": ("PLX Technology, Inc.", "PEX 9797 97-lane, 25-port PCI Express Gen 3 (8.0 GT/s) Switch"),
    "10de:20b0": ("NVIDIA Corporation", "GA100 [A100 SXM4 40GB]"),
    "144d:a80a": ("Samsung Electronics Co Ltd", "NVMe SSD Controller PM9A1/PM9A3/980PRO"),
    "8086:1592": ("Intel Corporation", "Ethernet Controller E810-C for QSFP"),
    "8086:1889": ("Intel Corporation", "Ethernet Adaptive Virtual Function"),
    "1a03:2000": ("ASPEED Technology, Inc.", "ASPEED Graphics Family"),
    "1000:0014": ("Broadcom / LSI", "MegaRAID Tri-Mode SAS3516"),
}


def lines():
    """One line a function, in the form of ``machines.build``; and the virtual functions with their physical one."""
    found, virtual = [], {}
    for socket, base in enumerate((0x00, 0x80)):
        for slot in range(4):  # the chipset's own functions
            found.append("%02x:%02x.0 rc_endpoint 8086:09a2 iommu multi" % (base, slot))
            found += [
                "%02x:%02x.%d rc_endpoint 8086:%04x 1080 multi" % (base, slot, number, 0x3440 + slot * 8 + number)
                for number in range(1, 8)
            ]
        for number in range(2):  # two switches with four accelerators each
            bus = base + 0x10 + number * 0x10
            found.append("%02x:%02x.0 root_port 8086:347a pci_bridge acs" % (base, 0x10 + number))
            found.append("%02x:00.0 upstream_port 10b5:9797 pci_bridge < %02x:%02x.0" % (bus, base, 0x10 + number))
            for port in range(4):
                acs = " acs" if number == 0 else ""
                found.append(
                    "%02x:%02x.0 downstream_port 10b5:9797 pci_bridge < %02x:00.0%s" % (bus + 1, port, bus, acs)
                )
                found.append("%02x:00.0 endpoint 10de:20b0 3d < %02x:%02x.0" % (bus + 2 + port, bus + 1, port))
        for drive in range(12):  # a port for each drive
            bus = base + 0x30 + drive
            found.append("%02x:%02x.%d root_port 8086:347a pci_bridge multi acs" % (base, 0x14 + drive // 8, drive % 8))
            found.append("%02x:00.0 endpoint 144d:a80a nvme < %02x:%02x.%d" % (bus, base, 0x14 + drive // 8, drive % 8))
        found.append("%02x:1a.0 root_port 8086:347a pci_bridge acs" % base)
        bus = base + 0x50
        for port in range(2):  # a NIC with two ports, 32 virtual functions each
            physical = "%02x:00.%d" % (bus, port)
            found.append("%s endpoint 8086:1592 ethernet < %02x:1a.0 multi acs" % (physical, base))
            for number in range(32):
                address = "%02x:%02x.%d" % (bus, 1 + port * 8 + number // 8, number % 8)
                found.append("%s endpoint 8086:1889 ethernet < %02x:1a.0 acs" % (address, base))
                virtual[address] = physical
    found.append("00:1c.0 root_port 8086:a190 pci_bridge")
    found.append("60:00.0 pci_to_pcie 1a03:1150 pci_bridge < 00:1c.0")
    found.append("61:00.0 conventional 1a03:2000 vga < 60:00.0")
    found.append("00:1d.0 root_port 8086:347a pci_bridge acs")
    found.append("62:00.0 endpoint 1000:0014 raid < 00:1d.0")
    found.append("00:1f.0 conventional 8086:a1c1 isa_bridge multi")
    found.append("00:1f.4 conventional 8086:a1a3 smbus multi")
    return found, virtual


def build():
    """The machine document, with the IOMMU on and its groups as they are predicted."""
    text, virtual = lines()
    predicted = machines.build("\n".join(text))["predicted_groups"]
    groups = "\n".join(" ".join(address[5:] for address in group["members"]) for group in predicted)
    machine = machines.build("\n".join(text), groups, cmdline="quiet intel_iommu=on")
    machine["host"]["product"].update(vendor="Example", name="Twin-socket server", board=None)
    machine["host"]["cpu"].update(model="Two sockets of 32 cores", count=128, cores=64)
    machine["host"]["memory"].update(total=1 << 40)
    for function in machine["functions"]:
        function["vendor_name"], function["device_name"] = NAMES.get(function["id"], ("Intel Corporation", None))
        if function["class"] == "108000":
            function.update({"class": "088000", "class_name": "0880"})
        function["physfn"] = (
            machines.full(virtual[function["address"][5:]]) if function["address"][5:] in virtual else None
        )
        if function["class_name"] == "nvme":
            function["driver"] = "nvme"
        elif function["id"] == "8086:1592":
            function["driver"] = "ice"
        elif function["id"] == "8086:1889":
            function["driver"] = "iavf"
    machines.use(machine, "30:00.0", "VH201", "disk", "/", "/dev/mapper/vg-root", "nvme0n1p3", "nvme0n1")
    machines.use(machine, "31:00.0", "VH201", "disk", "/srv", "md0", "nvme1n1")
    machines.use(machine, "50:00.0", "VH202", "network", "SSH 192.0.2.9 to 192.0.2.2", "bond0", "ens1f0")
    machines.use(machine, "61:00.0", "VH203", "display", "boot display", "boot_vga")
    return machine
