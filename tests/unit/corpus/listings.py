# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases of tests/corpus/listings as machines: a recorded tree each, read by the real probe.

The form of a case is in the README.md beside them. Addresses there have no domain when it is 0000; everything
here takes and gives full ones, but for the text of a case.
"""

from __future__ import annotations

import json
import os
import re

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import base, config_space

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LISTINGS = os.path.join(CHECKOUT, "tests", "corpus", "listings")

ADDRESS = re.compile(r"^([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
PORT_TYPES = {"endpoint": 0, "legacy_endpoint": 1, "root_port": 4, "upstream_port": 5, "downstream_port": 6,
              "pcie_to_pci": 7, "rc_endpoint": 9, "conventional": None}
DISKS = {"0106": "010601", "0108": "010802"}
"""Classes whose programming interface drivers go by; of the others it is taken for 00."""

ACS_CAPABILITY = 0x1F
ACS_ON = 0x1D
"""What the kernel switches on: source validation, both redirects, upstream forwarding."""

LINE = re.compile(r"^(\S+?)(?: ([0-9a-f]{4}))?(?: ([0-9a-f]{4}:[0-9a-f]{4}))?$")


def numbers():
    """Of the listings, in their order."""
    return sorted(int(name[:-5]) for name in os.listdir(LISTINGS) if name.endswith(".json"))


def load(number):
    """A case as it is written, with what it takes over from another one (``like``) put in."""
    with open(os.path.join(LISTINGS, "%02d.json" % number), encoding="utf-8") as handle:
        case = json.load(handle)
    if "like" in case:
        model = load(case["like"])
        taken = _flipped(model["inferred"], case["flip"])
        if "same_groups_as" in case:  # the very machine: its functions too
            case["machine"] = model["given"]["groups"]
        else:  # the same silicon
            taken = [entry for entry in taken if entry["fact"] in BY_ID]
        case["inferred"] = taken + case["inferred"]
    return case


BY_ID = ("ports", "acs", "firmware_acs", "kernel", "firmware_table")
"""Facts about silicon and kernel; the others are about one machine's addresses."""


def flip(case, **facts):
    """The case with other values of facts: ``flip(load(7), firmware_acs=True)``."""
    return dict(case, inferred=_flipped(case["inferred"], facts))


def _flipped(inferred, facts):
    assert set(facts) <= {entry["fact"] for entry in inferred}, "a flip of a fact that the case has not"
    return [dict(entry, of=facts[entry["fact"]]) if entry["fact"] in facts else entry for entry in inferred]


def change(case, variant):
    """The case in one of its variants: the facts of its ``change`` come last, so they win."""
    return dict(case, inferred=case["inferred"] + variant["change"])


def full(address):
    """``01:00.0`` as ``0000:01:00.0``; what is no PCI address as it is."""
    return "0000:" + address if ADDRESS.match(address) and address.count(":") == 1 else address


def short(address):
    """``0000:01:00.0`` as a case writes it."""
    return address[5:] if address.startswith("0000:") else address


def group_sets(case):
    """``{number: set of full addresses}``: the listed groups, with the functions that the listing leaves out."""
    groups = {}
    for number, members in case["given"]["groups"].items():
        groups[number] = {full(line.split(" ")[0]) for line in members}
    for number, members in fact(case, "groups", {}).items():
        groups.setdefault(number, set()).update(full(address) for address in members)
    return groups


def compared(case):
    """Those of group_sets() that the listing gives: what a prediction is held against, as a set of frozensets."""
    same = {full(address) for address in case.get("same_groups_as", {}).get("of", ())}
    return {frozenset(members) for number, members in group_sets(case).items()
            if number in case["given"]["groups"] or members & same}


def fact(case, name, default=None):
    """The value of a fact: the last one, or all entries of a mapping together."""
    found = [entry["of"] for entry in case["inferred"] if entry["fact"] == name]
    if not found:
        return default
    if name != "host_uses" and all(isinstance(value, dict) for value in found):
        return {key: value for mapping in found for key, value in mapping.items()}
    return found[-1]


def functions(case):
    """``{address: {id, class, port, acs, multifunction, bus, parent, physfn}}`` of a case, all that a tree needs."""
    lines = [line for members in case.get("machine", case["given"]["groups"]).values() for line in members]
    stated = {full(a): text for name in ("ids", "functions") for a, text in fact(case, name, {}).items()}
    absent = {full(address) for address in fact(case, "absent", ())}
    found = {}
    for line in lines + list(fact(case, "functions", {})):
        address, code, ids = LINE.match(line).groups()
        address = full(address)
        if not ADDRESS.match(address) or address in absent:
            continue
        if address in stated:
            code, ids = stated[address].split(" ")
        assert code and ids, "no class or id for %s" % address
        found[address] = {"id": ids, "class": DISKS.get(code, code + "00")}
    _add_ports(case, found)
    _add_buses(case, found)
    for virtual, physical in fact(case, "vfs", {}).items():
        if full(virtual) in found:
            found[full(virtual)]["physfn"] = full(physical)
    return found


def _add_ports(case, found):
    ports, acs = fact(case, "ports"), set(_all(case, "acs"))
    if fact(case, "firmware_acs"):
        acs.update(*[entry["ids"] for entry in case["inferred"] if entry["fact"] == "firmware_acs"])
    slots = {full(slot + ".0")[:-2] for slot in fact(case, "multifunction", ())}
    for address, function in found.items():
        names = [short(address), function["id"]]
        function["port"] = next(ports[name] for name in names if name in ports)
        function["acs"] = bool(acs.intersection(names))
        function["multifunction"] = address[:-2] in slots
        function["physfn"] = None


def _all(case, name):
    return [value for entry in case["inferred"] if entry["fact"] == name for value in entry["of"]]


def _add_buses(case, found):
    owner = {}
    for bridge, bus in fact(case, "buses", {}).items():
        found[full(bridge)]["bus"] = int(bus, 16)
        owner[full(bridge)[:5] + bus] = full(bridge)
    for address, function in found.items():
        function["parent"] = owner.get(address[:7])
        bridge = function["class"].startswith("0604")
        assert bridge == ("bus" in function), "%s: buses name bridges, and all of them" % address
    for address, function in found.items():
        while address is not None and "bus" in function:  # the highest bus below each bridge above
            above = found[address]
            above["last_bus"] = max(above.get("last_bus", 0), function["bus"])
            address = above["parent"]


# -- the tree --------------------------------------------------------------------------------------


def build(case, root, iommu):
    """A recorded tree of a case below ``root``; with ``iommu`` the listed groups, and ACS as Linux sets it."""
    found = functions(case)
    table = fact(case, "firmware_table")
    intel = table == "DMAR"
    cmdline = "BOOT_IMAGE=/boot/vmlinuz root=UUID=1 ro"
    if iommu and intel:
        cmdline += " intel_iommu=on"
    machine = base(root, cmdline, table)
    release = fact(case, "kernel")
    machine.write("/proc/sys/kernel/osrelease", release + "\n")
    arch = fact(case, "machine", "x86_64")
    machine.write("/proc/sys/kernel/arch", arch + "\n")
    machine.write("/proc/cpuinfo", _cpuinfo("GenuineIntel" if intel else "AuthenticAMD", arch))
    machine.write("/lib/modules/%s/modules.alias" % release, "")
    for unit in fact(case, "units", {"DMAR": ["dmar0"], "IVRS": ["ivhd0"]}.get(table)) if iommu else ():
        machine.folder("/sys/devices/virtual/iommu/" + unit)
        machine.link("/sys/class/iommu/" + unit, "/sys/devices/virtual/iommu/" + unit)
    groups = {a: number for number, members in group_sets(case).items() for a in members} if iommu else {}
    for number, members in group_sets(case).items() if iommu else ():
        for name in members:
            if not ADDRESS.match(name):
                machine.link("/sys/kernel/iommu_groups/%s/devices/%s" % (number, name), "/sys/devices/platform/" + name)
    uses = {kind: full(address) for kind, address in fact(case, "host_uses", {}).items()}
    for address in sorted(found, key=lambda a: (_depth(found, a), a)):
        _add_function(machine, case, address, found, groups.get(address), uses)
    _use(machine, found, uses, fact(case, "nics", {}))
    return machine


def _depth(found, address):
    parent = found[address]["parent"]
    return 0 if parent is None else 1 + _depth(found, parent)


def _cpuinfo(vendor, machine):
    if machine == "aarch64":
        text = "CPU implementer\t: 0x41\nCPU architecture: 8\n\n"
    else:
        text = "vendor_id\t: %s\nflags\t\t: fpu lm\n\n" % vendor
    return "".join("processor\t: %d\n%s" % (number, text) for number in range(8))


def _add_function(machine, case, address, found, group, uses):
    function = found[address]
    vendor, device = [int(part, 16) for part in function["id"].split(":")]
    express = PORT_TYPES[function["port"]]
    acs = (ACS_CAPABILITY, ACS_ON if group is not None else 0) if function["acs"] else None
    splits = function["id"] in fact(case, "sriov", ())
    config = config_space(
        *([0xFFFF, 0xFFFF] if function["physfn"] else [vendor, device]), int(function["class"], 16),
        bridge="bus" in function, multifunction=function["multifunction"] and not function["physfn"], express=express,
        acs=acs, total_vfs=8 if splits else None, size=256 if express is None else 4096,
        buses=(function["bus"], function["last_bus"]) if "bus" in function else None,
        rcba=fact(case, "rcba") if address == "0000:00:1f.0" else None)
    parent = function["parent"]
    if parent is None:  # a root bus of its own for each domain and first bus
        parent = "root " + address[:7]
        machine.homes[parent] = "/sys/devices/pci" + address[:7]
    home = machine.pci(address, function["id"], function["class"], parent=parent, group=group, config=config,
                       driver="pcieport" if "bus" in function and express is not None else None,
                       boot_vga=int(uses.get("display") == address) if function["class"].startswith("03") else None)
    if function["physfn"]:
        machine.link(home + "/physfn", machine.homes[function["physfn"]])


def _use(machine, found, uses, nics):
    """What the host needs, as the kernel shows it: a mounted disk, an address with the default route."""
    if "disk" not in uses:
        machine.disk("mmcblk0", "/sys/devices/platform/mmc/mmc_host/mmc0/mmc0:0001/block", partitions=1)
        machine.mount("/", "mmcblk0p1")
    elif found[uses["disk"]]["class"] == "010802":
        machine.disk("nvme0n1", machine.homes[uses["disk"]] + "/nvme/nvme0", partitions=1)
        machine.mount("/", "nvme0n1p1")
    else:
        machine.disk("sda", machine.homes[uses["disk"]] + "/ata1/host0/target0:0:0/0:0:0:0/block", partitions=1)
        machine.mount("/", "sda1")
    machine.write("/proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n")
    speeds = {full(address): speed for address, speed in nics.items()}
    for number, address in enumerate(sorted(set(speeds) | {uses.get("network")} - {None})):
        home = machine.homes[address]
        machine.nic("eth%d" % number, home, index=2 + number, mac="52:54:00:00:00:%02x" % number)
        if address in speeds:
            machine.write("%s/net/eth%d/speed" % (home, number), "%d\n" % speeds[address])
        if address == uses.get("network"):
            machine.addresses(("eth%d" % number, "192.0.2.2/24"))
            machine.route("eth%d" % number, "0.0.0.0", 0, "192.0.2.1", flags=3)


def document(case, root, iommu):
    """The machine document of a case, by the real probe."""
    build(case, root, iommu)
    return _machine.collect(Host(str(root)))
