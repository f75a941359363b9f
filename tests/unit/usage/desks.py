# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines with displays, USB trees and processes: what the fake machine of the hardware tests does not have."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import inputs as reading
from ansible_collections.vfio.host.plugins.module_utils._hardware import pci
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._usage import (
    chipset,
    console,
    display,
    holders,
    processes,
    usb,
)
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import FakeMachine, base

IGPU, GPU, GPU_AUDIO, XHCI, XHCI2, LPC = (
    "0000:00:02.0", "0000:01:00.0", "0000:01:00.1", "0000:00:14.0", "0000:03:00.0", "0000:00:1f.0")
KEYBOARD_BITS = "KEY=10000 7f ffffffffffffffff fffffffffffffffe"


def machine(root, text=False):
    """A desktop: integrated graphics with the monitor, a second GPU, two xHCI controllers, the chipset."""
    made = base(root)
    made.pci(IGPU, "8086:3e92", "030000", driver="i915", boot_vga=1)
    made.pci("0000:00:01.0", "8086:1901", "060400", driver="pcieport", express=4)
    made.pci(GPU, "1002:67df", "030000", parent="0000:00:01.0", driver="amdgpu", boot_vga=0)
    made.pci(GPU_AUDIO, "1002:aaf0", "040300", parent="0000:00:01.0", driver="snd_hda_intel")
    made.pci(XHCI, "8086:a36d", "0c0330", driver="xhci_hcd")
    made.pci("0000:00:1c.0", "8086:a338", "060400", driver="pcieport", express=4)
    made.pci(XHCI2, "1b21:1242", "0c0330", parent="0000:00:1c.0", driver="xhci_hcd")
    made.pci(LPC, "8086:a305", "060100")
    made.pci("0000:00:1f.3", "8086:a348", "040300", driver="snd_hda_intel")
    made.pci("0000:00:1f.4", "8086:a323", "0c0500", driver="i801_smbus")
    made.write("/proc/consoles", "tty0                 -WU (EC  p  )    4:7\n")
    node(made, "226:0", IGPU, "drm/card0", "dri/card0")
    node(made, "226:1", GPU, "drm/card1", "dri/card1")
    node(made, "226:128", IGPU, "drm/renderD128", "dri/renderD128")
    node(made, "116:2", "0000:00:1f.3", "sound/card0/controlC0", "snd/controlC0")
    node(made, "116:3", GPU_AUDIO, "sound/card1/controlC1", "snd/controlC1")
    node(made, "116:4", GPU_AUDIO, "sound/card1/pcmC1D3p", "snd/pcmC1D3p")
    for card, address, status in (("card0", IGPU, "connected"), ("card1", GPU, "disconnected")):
        home = made.homes[address] + "/drm/" + card
        made.link("/sys/class/drm/" + card, home)
        made.write("%s/%s-DP-1/status" % (home, card), status + "\n")
        made.link("/sys/class/drm/%s-DP-1" % card, "%s/%s-DP-1" % (home, card))
    for bus, address in ((1, XHCI), (2, XHCI2)):
        made.write("%s/usb%d/bDeviceClass" % (made.homes[address], bus), "09\n")
        made.link("/sys/bus/usb/devices/usb%d" % bus, "%s/usb%d" % (made.homes[address], bus))
    opens(made, 1, "systemd", "/dev/null", "/dev/watchdog9")
    return made


def node(made, number, address, below, name):
    """A character device: ``below`` the function's folder, ``name`` below /dev."""
    home = "%s/%s" % (made.homes[address], below)
    made.write(home + "/uevent", "MAJOR=1\nMINOR=1\nDEVNAME=%s\n" % name)
    made.link("/sys/dev/char/" + number, home)


def opens(made, pid, command, *nodes):
    made.process(str(pid), command, "1")
    made.folder("/proc/%d/fd" % pid)
    for number, path in enumerate(nodes):
        if path.startswith("/"):
            made.link("/proc/%d/fd/%d" % (pid, number), path)


def plug(made, name, address, ids="046d:c31c", product="Keyboard", interfaces=(("03", "01", "01"),), device_class="00"):
    """A USB device ``1-3`` at a controller; ``interfaces`` of class, subclass, protocol."""
    bus = name.partition("-")[0]
    parent = name.rpartition(".")[0]
    home = "%s/usb%s/%s%s" % (made.homes[address], bus, parent + "/" if parent else "", name)
    vendor, device = ids.split(":")
    values = {"idVendor": vendor, "idProduct": device, "product": product, "bDeviceClass": device_class}
    for key, value in values.items():
        made.write("%s/%s" % (home, key), value + "\n")
    made.link("/sys/bus/usb/devices/" + name, home)
    for number, codes in enumerate(interfaces):
        interface = "%s/%s:1.%d" % (home, name, number)
        for key, value in zip(("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"), codes):
            made.write("%s/%s" % (interface, key), value + "\n")
        made.link("/sys/bus/usb/devices/%s:1.%d" % (name, number), interface)
    return home


def session(made, number, **values):
    """logind's file of a session; by default an active Wayland one on the seat."""
    content = dict({"USER": "alice", "ACTIVE": "1", "REMOTE": "0", "TYPE": "wayland", "SEAT": "seat0"}, **values)
    made.write("/run/systemd/sessions/%s" % number,
               "# This is private data. Do not parse.\n" + "".join("%s=%s\n" % pair for pair in content.items()))


def typed(made, *paths):
    """/proc/bus/input/devices with a keyboard at each path below /sys, and a power button."""
    entries = ["N: Name=\"Power\"\nS: Sysfs=/devices/LNXSYSTM:00/input/input0\nB: EV=3\nB: KEY=10000000000000 0\n"]
    entries += ["N: Name=\"kbd\"\nS: Sysfs=%s\nB: EV=120013\nB: %s\n" % (path, KEYBOARD_BITS) for path in paths]
    made.write("/proc/bus/input/devices", "\n".join(entries) + "\n")


class Found:
    """All that the readers of this folder find on a tree, put together as the probe does it."""

    def __init__(self, made):
        self.inputs = reading.Inputs(Host(made.root))
        self.functions = pci.read(self.inputs)
        self.by_address = {function["address"]: function for function in self.functions}
        for function in self.functions:
            function["used_by"] = []
        self.console = console.read(self.inputs, self.functions)
        self.held = processes.read(self.inputs)
        holders.place(self.functions, self.held)
        buses = usb.read(self.inputs, self.functions)
        for function in self.functions:
            function["usb_devices"] = buses.get(function["address"])
        self.uses, self.unknowns = list(self.console["uses"]), []
        for uses, unknowns in (
            display.use(self.functions, self.console["framebuffer"], self.console["sessions"],
                        display.read(self.inputs)),
            holders.use(self.functions),
            usb.use(self.inputs, self.functions),
            chipset.uses(self.inputs, self.functions),
        ):
            self.uses += uses
            self.unknowns += unknowns

    def of(self, code):
        """``{(function, what)}`` of the uses with a code."""
        return {(use["function"], use["what"]) for use in self.uses if use["finding"] == code}

    def missing(self):
        return [entry["input"] for entry in self.inputs.missing]


__all__ = ["FakeMachine", "Found", "machine", "node", "opens", "plug", "session", "typed"]
