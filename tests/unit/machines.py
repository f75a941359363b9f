# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machine documents of schema 2 for tests, from one line a function.

``build("00:01.0 root_port 8086:0151 pci_bridge, 01:00.0 endpoint 10de:1380 vga < 00:01.0 multi, ...")``
Change a function with ``at(machine, "01:00.0").update(...)``, then ``refresh(machine)``.
"""

from __future__ import annotations

import copy
import re

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, pci
from ansible_collections.vfio.host.plugins.module_utils._hardware.names import class_name

CLASSES = {
    "vga": "030000", "3d": "030200", "display": "038000", "audio": "040300", "usb": "0c0330", "ethernet": "020000",
    "nvme": "010802", "sata": "010601", "pci_bridge": "060400", "host_bridge": "060000", "isa_bridge": "060100",
    "smbus": "0c0500", "communication": "078000", "wireless": "028000", "1300": "130000", "1080": "108000",
    "iommu": "080600", "raid": "010400", "sas": "010700", "serial": "070002",
}
LINE = re.compile(
    r"^(?P<address>[0-9a-f:.]+) (?P<port>\w+) (?P<id>[0-9a-f]{4}:[0-9a-f]{4}) (?P<klass>\w+)"
    r"(?: < (?P<parent>[0-9a-f:.]+))?(?P<words>(?: \w+)*)$"
)
ACS = {"capability": 0x1F, "control": 0}

P8H67 = """
00:00.0 conventional 8086:0158 host_bridge
00:01.0 root_port 8086:0151 pci_bridge
01:00.0 endpoint 10de:1380 vga < 00:01.0 multi
01:00.1 endpoint 10de:0fbc audio < 00:01.0 multi
00:02.0 conventional 8086:016a vga
00:16.0 conventional 8086:1c3a communication
00:1a.0 conventional 8086:1c2d usb
00:1b.0 rc_endpoint 8086:1c20 audio
00:1c.0 root_port 8086:1c10 pci_bridge multi
00:1c.5 root_port 8086:1c1a pci_bridge multi
00:1c.6 root_port 8086:1c1c pci_bridge multi
00:1c.7 root_port 8086:244e pci_bridge multi
00:1d.0 conventional 8086:1c26 usb
00:1f.0 conventional 8086:1c4a isa_bridge multi
00:1f.2 conventional 8086:1c02 sata multi
00:1f.3 conventional 8086:1c22 smbus multi
02:00.0 legacy_endpoint 1002:6611 vga < 00:1c.0 multi
02:00.1 endpoint 1002:aab0 audio < 00:1c.0 multi
03:00.0 endpoint 1b21:1042 usb < 00:1c.5
04:00.0 endpoint 10ec:8168 ethernet < 00:1c.6
05:00.0 pcie_to_pci 1b21:1080 pci_bridge < 00:1c.7
06:00.0 conventional 1102:0002 audio < 05:00.0
"""
"""Listing 1 of the field's best-known how-to, with a card in the conventional slot. Its chipset ports are isolated by a
quirk."""

P8H67_GROUPS = """
00:00.0
00:01.0 01:00.0 01:00.1
00:02.0
00:16.0
00:1a.0
00:1b.0
00:1c.0
00:1c.5
00:1c.6
00:1c.7 05:00.0 06:00.0
00:1d.0
00:1f.0 00:1f.2 00:1f.3
02:00.0 02:00.1
03:00.0
04:00.0
"""


def full(address):
    return address if address.count(":") == 2 else "0000:" + address


def groups_of(text):
    """Set of frozensets of addresses from one line a group."""
    return {frozenset(full(a) for a in line.split()) for line in text.strip().splitlines()}


def function(line, active=False):
    found = LINE.match(line.strip())
    if not found:
        raise ValueError("bad line: %s" % line)
    words = found.group("words").split()
    vendor, device = found.group("id").split(":")
    klass = found.group("klass")
    bridge = klass == "pci_bridge"
    result = pci.blank(full(found.group("address")))
    result.update({
        "vendor": vendor,
        "device": device,
        "id": found.group("id"),
        "subsystem_vendor": "1043",
        "subsystem_device": "84bb",
        "class": CLASSES[klass],
        "class_name": class_name(CLASSES[klass]),
        "revision": "01",
        "driver": "pcieport" if bridge else None,
        "modalias": "pci:v0000%sd0000%s" % (vendor.upper(), device.upper()),
        "parent": full(found.group("parent")) if found.group("parent") else None,
        "port_type": found.group("port"),
        "is_bridge": bridge,
        "multifunction": "multi" in words,
        "config_bytes": 4096,
        "reset_methods": [] if bridge else ["flr", "bus"],
        "resizable_bars": [],
        "d3cold_allowed": True,
        "power_state": "D0",
        "rmrr": False,
        "holders": [],
        "capabilities": {
            "complete": True,
            "acs": dict(ACS, control=0x1D if active else 0) if "acs" in words else None,
            "ats": False,
            "flr": not bridge,
            "af_flr": False,
            "msi": True,
            "msix": False,
            "power_management": True,
            "no_soft_reset": True,
            "sriov": None,
        },
    })
    return result


def host(active, table, cmdline):
    """The host section of a machine with nothing special about it: a desktop with 16 GiB and eight CPUs."""
    return {
        "kernel": {
            "release": "6.1.0-28-amd64", "cmdline": cmdline, "machine": "x86_64", "config": None, "builtin": [],
            "acs_override": None, "quirk_table": acs.quirk_table("6.1.0-28-amd64"),
        },
        "product": {"vendor": "ASUS", "name": "P8H67-M PRO", "board": "P8H67-M PRO", "firmware": "3904",
                    "firmware_date": "04/27/2013", "virtual": False},
        "cpu": {"vendor": "GenuineIntel", "model": "Xeon E3-1245 v2", "count": 8, "cores": 4,
                "threads": [[0, 4], [1, 5], [2, 6], [3, 7]], "gigantic_pages": True},
        "numa": [{"node": 0, "cpus": 8, "memory": 16 << 30, "distances": {"0": 10}}],
        "iommu": {
            "active": active,
            "vendor": {"DMAR": "intel", "IVRS": "amd"}.get(table),
            "firmware_table": table,
            "units": ["dmar0"] if active else [],
            "reason": "active" if active else "the kernel's default is off",
            "interrupt_remapping": True if active else None,
            "unsafe_interrupts": False,
            "rmrr": [],
            "rcba": True,
            "uncovered": [],
        },
        "boot": {"firmware": "efi", "loader": "grub", "evidence": []},
        "initramfs": {"generator": "initramfs-tools"},
        "network": {"backend": "networkd", "evidence": [], "interfaces": [], "default_routes": []},
        "ssh": {"client": None, "server": None, "interface": None, "unknown": False},
        "libvirt": {"installed": True},
        "qemu": {"installed": True},
        "memory": {"total": 16 << 30, "available": 14 << 30, "hugepages": []},
        "consoles": [{"name": "tty0", "kind": "screen"}],
        "sessions": [],
        "framebuffer": None,
        "requested": [],
        "sriov": [],
        "previous": None,
        "usage_unknown": [],
    }


def build(functions=P8H67, groups=None, table="DMAR", cmdline="quiet"):
    """A machine document. With ``groups`` (text, one line a group) its IOMMU is active, else off."""
    active = groups is not None
    machine = {
        "schema": _machine.SCHEMA,
        "source": {"root": "/", "privileged": True, "missing": []},
        "host": host(active, table, cmdline),
        "functions": [function(line, active) for line in functions.splitlines() if line.strip()],
        "groups": [],
        "predicted_groups": [],
        "findings": [],
    }
    machine["functions"].sort(key=lambda f: pci.sort_key(f["address"]))
    for number, line in enumerate((groups or "").strip().splitlines()):
        members = [full(a) for a in line.split()]
        machine["groups"].append({
            "number": str(number), "members": members, "source": "actual", "confidence": "actual", "reasons": [],
            "bounds": None, "type": "DMA-FQ", "reserved_regions": []})
        for address in members:
            at(machine, address).update(group=str(number), group_members=members, confidence="actual")
    return _machine.complete(machine)


def refresh(machine):
    """Everything that follows from the rest, made anew after a change."""
    if machine["groups"] and machine["groups"][0]["source"] == "predicted":
        machine["groups"] = []
    return _machine.complete(machine)


def p8h67_on(**more):
    return build(groups=P8H67_GROUPS, cmdline="quiet intel_iommu=on", **more)


def at(machine, address):
    """The function of a machine at an address."""
    return next(f for f in machine["functions"] if f["address"] == full(address))


def use(machine, address, code, kind, *chain):
    """The host uses a function, as the probe would say it."""
    entry = {"kind": kind, "what": chain[0], "chain": list(chain) + [full(address)], "finding": code}
    at(machine, address)["used_by"].append(entry)
    return refresh(machine)


def on_vfio(machine, addresses):
    """A copy with these functions on vfio-pci, as after the reboot."""
    result = copy.deepcopy(machine)
    for address in addresses:
        at(result, address)["driver"] = "vfio-pci"
    return refresh(result)
