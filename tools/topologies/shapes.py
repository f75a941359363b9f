# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Topologies as QEMU devices: fixed ones with names, and random ones from a seed. Pure."""

from __future__ import annotations

import random

IOMMUS = {"intel": "intel-iommu,intremap=on,caching-mode=on", "amd": "amd-iommu,intremap=on"}

# (device, properties). Those of the PORTED lists have an I/O BAR: the bridge above one takes 4 KiB of the 36 KiB that
# the firmware has to give, and where it runs out it stops.
PORTED = (
    ("e1000e", {}), ("igb", {}), ("megasas-gen2", {}), ("virtio-net-pci", {"disable-legacy": "off"}),
    ("virtio-scsi-pci-transitional", {}), ("ich9-ahci", {}),
)
EXPRESS = (
    ("nvme", {"serial": "one"}), ("virtio-net-pci-non-transitional", {}),
    ("virtio-serial-pci", {"disable-legacy": "on"}), ("virtio-rng-pci-non-transitional", {}), ("virtio-gpu-pci", {}),
    ("qemu-xhci", {}), ("nec-usb-xhci", {}), ("pvscsi", {}), ("vmxnet3", {}),
)
"""Functions with a PCI Express capability where they are on an Express bus."""
# Not here: UHCI controllers, on which the firmware may spend 16 seconds
CONVENTIONAL_PORTED = (
    ("rtl8139", {}), ("ne2k_pci", {}), ("e1000", {}), ("pcnet", {}), ("i82550", {}), ("tulip", {}), ("lsi53c895a", {}),
    ("am53c974", {}), ("megasas", {}), ("ati-vga", {}),
    ("pci-testdev", {}),
)
CONVENTIONAL = (
    ("usb-ehci", {}), ("pci-ohci", {}), ("edu", {}), ("secondary-vga", {}), ("bochs-display", {}), ("i6300esb", {}),
    ("sdhci-pci", {}), ("pvpanic-pci", {}), ("ich9-intel-hda", {}), ("intel-hda", {}),
)
BOTH = (
    ("virtio-net-pci-non-transitional", {}), ("virtio-rng-pci", {"disable-legacy": "on"}), ("qemu-xhci", {}),
    ("vmxnet3", {}),
)
"""Devices that are conventional PCI on a conventional bus."""

WITH_ROM = (
    "e1000", "i82550", "igb", "megasas", "lsi", "ne2k", "nvme", "pcnet", "rtl8139", "tulip", "virtio-net",
    "virtio-scsi", "vmxnet3", "ati-vga", "bochs", "secondary-vga", "virtio-gpu", "pvscsi",
)
"""Without their option ROMs, which the firmware would run: names that begin so."""


class Shape:
    """One machine. ``iommu`` is ``intel`` or ``amd``; the root bus is ``pcie.0``, with the board's own functions."""

    def __init__(self, name, iommu):
        self.name = name
        self.iommu = iommu
        self.devices = []

    def arguments(self):
        """QEMU's arguments for the devices and the IOMMU."""
        argv = []
        devices = [",".join([driver] + ["%s=%s" % pair for pair in properties.items()])
                   for driver, properties in self.devices]
        # AMD's own PCI function takes the first slot that is free, so it comes last; Intel's has to come first
        devices.insert(len(devices) if self.iommu == "amd" else 0, IOMMUS[self.iommu])
        for device in devices:
            argv += ["-device", device]
        return argv

    def add(self, driver, bus, address, together=False, **properties):
        """One function at ``address`` (``slot.function``). Returns its id, also the name of the bus behind it."""
        name = "d%d" % len(self.devices)
        given = dict(properties)
        if driver.startswith(WITH_ROM):
            given["romfile"] = ""
        if together:
            given["multifunction"] = "on"
        self.devices.append((driver, dict(given, id=name, bus=bus, addr=address)))
        return name

    def device(self, kind, bus, address, together=False):
        """One of the endpoints above, ``(device, properties)``."""
        return self.add(kind[0], bus, address, together, **kind[1])

    def number(self):
        """A chassis number that no other has."""
        return len(self.devices) + 1

    def port(self, bus, address, acs=True, together=False):
        """A root port. Below an upstream port it stands for a downstream port with ACS, which QEMU has not."""
        return self.add("pcie-root-port", bus, address, together, chassis=self.number(),
                        **{"io-reserve": 0, "disable-acs": "off" if acs else "on"})

    def upstream(self, bus, address="0.0", together=False):
        return self.add("x3130-upstream", bus, address, together)

    def downstream(self, bus, address, together=False):
        """A switch's downstream port, without ACS."""
        return self.add("xio3130-downstream", bus, address, together, chassis=self.number(), hotplug="off")

    def to_pci(self, bus, address="0.0", together=False):
        """A PCI Express to PCI bridge."""
        return self.add("pcie-pci-bridge", bus, address, together)

    def dmi_bridge(self, bus, address, together=False):
        """A conventional bridge with a PCI Express neighbour above: Intel's DMI-to-PCI bridge (82801)."""
        return self.add("i82801b11-bridge", bus, address, together)

    def pci_bridge(self, bus, address, together=False):
        """A conventional PCI-to-PCI bridge."""
        return self.add("pci-bridge", bus, address, together, chassis_nr=self.number(), shpc="off", **{"io-reserve": 0})

    def expander(self, address, number):
        """A second root bus with a number of its own."""
        return self.add("pxb-pcie", "pcie.0", address, bus_nr=number)

    def sriov(self, bus, address, count):
        """An NVMe controller with virtual functions, which init.sh makes."""
        system = "s%d" % len(self.devices)
        self.devices.append(("nvme-subsys", {"id": system}))
        return self.add("nvme", bus, address, serial=system, subsys=system, sriov_max_vfs=count,
                        sriov_vq_flexible=2 * count, sriov_vi_flexible=count)


# -- fixed -----------------------------------------------------------------------------------------

NVME, NIC, XHCI, HDA, NET = EXPRESS[0], PORTED[0], EXPRESS[5], CONVENTIONAL[8], EXPRESS[1]
EHCI, OLD_NIC, EDU = CONVENTIONAL[0], CONVENTIONAL_PORTED[0], CONVENTIONAL[2]


def ports(shape):
    """Root ports with and without ACS, endpoints with one and several functions behind them."""
    for slot, acs in ((1, True), (2, False), (3, True), (4, False)):
        port = shape.port("pcie.0", "%x.0" % slot, acs)
        shape.device(NVME, port, "0.0", together=slot > 2)
        if slot > 2:
            shape.device(HDA, port, "0.1")
            shape.device(XHCI, port, "0.3")


def multifunction_ports(shape):
    """Several ports in one slot: all with ACS, none, mixed, and mixed with an endpoint."""
    slots = {1: (True, True), 2: (False, False, False), 3: (True, False, True, False), 4: (False, True)}
    for slot, functions in slots.items():
        for number, acs in enumerate(functions):
            port = shape.port("pcie.0", "%x.%d" % (slot, number), acs, together=True)
            if number != 2:
                shape.device(NET, port, "0.0")
    shape.device(EHCI, "pcie.0", "4.5")


def switch(shape):
    """A switch whose downstream ports have no ACS: groups look separate and are not."""
    for slot, acs in ((1, True), (2, False)):
        upstream = shape.upstream(shape.port("pcie.0", "%x.0" % slot, acs))
        for below in range(3):
            shape.device(NVME, shape.downstream(upstream, "%x.0" % below), "0.0")


def switch_multifunction(shape):
    """A switch with all its downstream ports in one slot."""
    upstream = shape.upstream(shape.port("pcie.0", "1.0"))
    for number in range(4):
        shape.device(NVME, shape.downstream(upstream, "3.%d" % number, together=True), "0.0")


def switch_acs(shape):
    """Switches whose downstream ports have ACS, all or some, alone in their slots or not."""
    upstream = shape.upstream(shape.port("pcie.0", "1.0"))
    for below in range(3):
        shape.device(NVME, shape.port(upstream, "%x.0" % below), "0.0")
    upstream = shape.upstream(shape.port("pcie.0", "2.0"))
    for number, acs in enumerate((True, False, True)):
        shape.device(NIC, shape.port(upstream, "0.%d" % number, acs, together=True), "0.0")
    shape.device(NVME, shape.downstream(upstream, "1.0"), "0.0")


def pcie_to_pci(shape):
    """Conventional functions behind PCIe-to-PCI bridges, below a port with ACS, one without, and on the root bus."""
    for above in (shape.port("pcie.0", "1.0"), shape.port("pcie.0", "2.0", acs=False)):
        behind = shape.to_pci(above)
        shape.device(OLD_NIC, behind, "1.0")
        shape.device(EHCI, behind, "2.0", together=True)
        shape.device(EDU, behind, "2.1")
    shape.device(EDU, shape.to_pci("pcie.0", "3.0"), "1.0")


def legacy(shape):
    """Conventional bridges on the root bus, one below another, with devices on each bus."""
    first = shape.dmi_bridge("pcie.0", "1e.0")
    shape.device(OLD_NIC, first, "1.0")
    second = shape.pci_bridge(first, "2.0")
    shape.device(EHCI, second, "1.0", together=True)
    shape.device(EDU, second, "1.1")
    shape.device(EDU, shape.pci_bridge("pcie.0", "2.0"), "4.0")
    shape.device(EDU, shape.port("pcie.0", "3.0"), "0.0")


def twins(shape):
    """The same card four times: only the address tells which is which."""
    for slot, acs in ((1, True), (2, True), (3, False), (4, False)):
        port = shape.port("pcie.0", "%x.0" % slot, acs)
        shape.device(NET, port, "0.0", together=True)
        shape.device(NET, port, "0.1")


def root_complex(shape):
    """Functions on the root bus: single and several, conventional and PCI Express, one alone that says it is not."""
    shape.device(NIC, "pcie.0", "1.0")
    shape.device(EHCI, "pcie.0", "2.0")
    shape.device(NVME, "pcie.0", "3.0", together=True)
    shape.device(XHCI, "pcie.0", "3.1")
    shape.device(HDA, "pcie.0", "3.4")
    shape.device(XHCI, "pcie.0", "4.0", together=True)
    shape.device(EHCI, "pcie.0", "5.0", together=True)
    shape.device(EHCI, "pcie.0", "5.7", together=True)


def sriov(shape):
    """Virtual functions: behind a port with ACS, behind one without, and below a switch."""
    shape.sriov(shape.port("pcie.0", "1.0"), "0.0", 4)
    shape.sriov(shape.port("pcie.0", "2.0", acs=False), "0.0", 2)
    shape.sriov(shape.downstream(shape.upstream(shape.port("pcie.0", "3.0")), "0.0"), "0.0", 3)


def deep(shape):
    """Switch below switch below switch, then a PCIe-to-PCI bridge and two conventional ones."""
    bus = shape.port("pcie.0", "1.0")
    for level in range(3):
        upstream = shape.upstream(bus)
        shape.device(NVME, shape.port(upstream, "4.0"), "0.0")
        bus = shape.port(upstream, "1.0", acs=level != 1)
    bus = shape.to_pci(bus)
    for dummy in range(2):
        shape.device(EDU, bus, "1.0")
        bus = shape.pci_bridge(bus, "2.0")
    shape.device(OLD_NIC, bus, "1.0")


def expanders(shape):
    """More root buses, as on machines with several root complexes."""
    for slot, number in ((1, 0x40), (2, 0x80)):
        bus = shape.expander("%x.0" % slot, number)
        shape.device(NVME, shape.port(bus, "0.0", acs=number == 0x40, together=True), "0.0")
        shape.device(NVME, shape.port(bus, "0.1", together=True), "0.0")
        shape.device(EDU, shape.to_pci(shape.port(bus, "1.0")), "1.0")


def empty(shape):
    """Ports and bridges with nothing behind them, with and without ACS."""
    for slot, acs in ((1, True), (2, False)):
        shape.port("pcie.0", "%x.0" % slot, acs)
        upstream = shape.upstream(shape.port("pcie.0", "%x.0" % (slot + 4), acs))
        shape.downstream(upstream, "0.0")
        shape.downstream(upstream, "1.0")
    shape.to_pci(shape.port("pcie.0", "3.0"))
    shape.pci_bridge("pcie.0", "4.0")


def corrected_ports(shape):
    """Downstream ports where only an upstream port can be: Linux takes them for something else."""
    shape.device(NVME, shape.downstream(shape.port("pcie.0", "1.0"), "0.0"), "0.0")
    wrong = shape.downstream(shape.port("pcie.0", "2.0"), "0.0")
    shape.device(NVME, shape.downstream(wrong, "0.0"), "0.0")


def uncovered(shape):
    """A root bus that the firmware's table leaves out."""
    shape.device(NVME, shape.port("pcie.0", "1.0"), "0.0")
    outside = shape.add("pxb-pcie", "pcie.0", "2.0", bus_nr=0x40, bypass_iommu="on")
    shape.device(NVME, shape.port(outside, "1.0"), "0.0")


FIXED = (
    (ports, "intel"), (multifunction_ports, "intel"), (switch, "intel"), (switch_multifunction, "amd"),
    (switch_acs, "intel"),
    (pcie_to_pci, "intel"), (pcie_to_pci, "amd"), (legacy, "intel"), (legacy, "amd"), (twins, "intel"),
    (root_complex, "intel"), (root_complex, "amd"), (sriov, "intel"), (sriov, "amd"), (deep, "intel"), (deep, "amd"),
    (expanders, "intel"), (empty, "amd"), (multifunction_ports, "amd"),
    (corrected_ports, "intel"), (uncovered, "intel"),
)


def fixed():
    """The named topologies, with both vendors' IOMMU where it may matter."""
    shapes = []
    for build, iommu in FIXED:
        shape = Shape("%s-%s" % (build.__name__.replace("_", "-"), iommu), iommu)
        build(shape)
        shapes.append(shape)
    return shapes


# -- random ----------------------------------------------------------------------------------------

LARGEST = 24
"""Devices of a random machine: each one costs time in emulation."""

WINDOWS = 7
"""Bridges whose I/O window the firmware must find room for, see PORTED."""

DEEPEST = 6


class Random:
    """One random machine. The same seed gives the same one with the same version of QEMU."""

    def __init__(self, seed, iommu, available):
        self.rng = random.Random("%s %d" % (iommu, seed))
        self.shape = Shape("seed-%d-%s" % (seed, iommu), iommu)
        self.available = available
        self.windows = WINDOWS

    def build(self):
        rng, shape = self.rng, self.shape
        slots = rng.sample(range(1, 0x1D), rng.randint(3, 9))
        root_buses = ["pcie.0"]
        for number in rng.sample((0x30, 0x60, 0x90, 0xC0), rng.choice((0, 0, 0, 1, 2))):
            root_buses.append(shape.expander("%x.0" % slots.pop(), number))
        kinds = ((self.root_port, 10), (self.to_pci, 1), (self.dmi_bridge, 1), (self.pci_bridge, 1),
                 (self.express, 2), (self.conventional, 3))
        for slot in slots:
            bus = rng.choice(root_buses)
            self.slot(bus, slot, kinds if bus == "pcie.0" else kinds[:2], 0)  # an expander takes such bridges only
        return shape

    def full(self):
        return len(self.shape.devices) >= LARGEST

    def slot(self, bus, slot, kinds, depth, many=0.35):
        """One slot with one function or several, of kinds by their weights."""
        if self.full():
            return
        rng = self.rng
        numbers = [0]
        if rng.random() < many:
            numbers += sorted(rng.sample(range(1, 8), rng.randint(1, 3)))
        alike = rng.choices(kinds, [weight for dummy, weight in kinds])[0] if rng.random() < 0.7 else None
        for number in numbers:
            make = (alike or rng.choices(kinds, [weight for dummy, weight in kinds])[0])[0]
            # Of the others the bit matters not: the kernel goes by the number
            together = number == 0 and len(numbers) > 1 or rng.random() < 0.2
            make(bus, "%x.%d" % (slot, number), together, depth)

    def chosen(self, plain, ported):
        """One of the devices that this QEMU has; of ``ported`` only while there is room."""
        kinds = plain
        if self.windows > 0 and self.rng.random() < 0.3:
            self.windows -= 1
            kinds = ported
        kinds = [kind for kind in kinds if kind[0] in self.available]
        return self.rng.choice(kinds)

    def express(self, bus, address, together, dummy):
        self.shape.device(self.chosen(EXPRESS, PORTED), bus, address, together)

    def conventional(self, bus, address, together, dummy):
        self.shape.device(self.chosen(CONVENTIONAL, CONVENTIONAL_PORTED), bus, address, together)

    def root_port(self, bus, address, together, depth):
        self.behind_port(self.shape.port(bus, address, self.rng.random() < 0.5, together), depth + 1)

    def downstream(self, bus, address, together, depth):
        self.behind_port(self.shape.downstream(bus, address, together), depth + 1)

    def behind_port(self, bus, depth):
        """What is in the one slot of a link: nothing, an endpoint, a bridge or a switch."""
        if self.full() or self.rng.random() < 0.15:
            return
        if self.rng.random() < 0.1:
            self.shape.sriov(bus, "0.0", self.rng.randint(1, 5))
            return
        kinds = ((self.express, 6), (self.conventional, 2), (self.upstream, 4), (self.to_pci, 3))
        self.slot(bus, 0, kinds if depth < DEEPEST else kinds[:2], depth)

    def upstream(self, bus, address, together, depth):
        below = self.shape.upstream(bus, address, together)
        for slot in self.rng.sample(range(0, 32), self.rng.randint(1, 3)):
            self.slot(below, slot, ((self.downstream, 3), (self.root_port, 3)), depth + 1)

    def to_pci(self, bus, address, together, depth):
        self.behind_bridge(self.shape.to_pci(bus, address, together), depth + 1)

    def dmi_bridge(self, bus, address, together, depth):
        self.behind_bridge(self.shape.dmi_bridge(bus, address, together), depth + 1)

    def pci_bridge(self, bus, address, together, depth):
        self.behind_bridge(self.shape.pci_bridge(bus, address, together), depth + 1)

    def behind_bridge(self, bus, depth):
        """A conventional bus. The firmware gives every bridge to one an I/O window."""
        self.windows -= 1
        kinds = ((self.both, 2), (self.conventional, 5), (self.pci_bridge, 2))
        if self.windows <= 0 or depth >= DEEPEST:
            kinds = kinds[:2]
        for slot in self.rng.sample(range(1, 32), self.rng.randint(0, 3)):
            self.slot(bus, slot, kinds, depth)

    def both(self, bus, address, together, dummy):
        self.shape.device(self.rng.choice([kind for kind in BOTH if kind[0] in self.available]), bus, address, together)


def from_seed(seed, iommu, available):
    """A random topology. ``available``: names of the devices that QEMU has."""
    return Random(seed, iommu, available).build()
