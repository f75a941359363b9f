# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule about devices: a machine that has it, and the same machine with one fact changed that has not."""

from __future__ import annotations

import copy
import pathlib
import re

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings import devices
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import DOCS, View, make
from ansible_collections.vfio.host.plugins.module_utils._hardware import pci, reset_quirks
from ansible_collections.vfio.host.tests.unit import machines
from ansible_collections.vfio.host.tests.unit.machines import at, full, refresh, use

RULES = {entry["code"]: entry for entry in devices.RULES}
PAGES = pathlib.Path(__file__).resolve().parents[3] / DOCS

BOARD = """
00:00.0 conventional 8086:0c00 host_bridge
00:01.0 root_port 8086:0c01 pci_bridge acs
01:00.0 endpoint 10de:1380 vga < 00:01.0 multi
01:00.1 endpoint 10de:0fbc audio < 00:01.0 multi
00:14.0 conventional 8086:8cb1 usb
00:1c.0 root_port 8086:7ab8 pci_bridge acs
02:00.0 endpoint 8086:1521 ethernet < 00:1c.0
00:1c.4 root_port 8086:7abc pci_bridge acs
03:00.0 endpoint 8086:1572 ethernet < 00:1c.4
00:1d.0 root_port 8086:7ab0 pci_bridge acs
04:00.0 endpoint 144d:a808 nvme < 00:1d.0
00:1f.0 conventional 8086:8cc4 isa_bridge
"""
"""All is well here: every port isolates, every function resets, the host's disk is 04:00.0."""


def board():
    return use(machines.build(BOARD), "04:00.0", "VH201", "disk", "/", "nvme0n1")


def found(machine, code):
    """What the rule finds, as findings; the document is left as it is."""
    before = copy.deepcopy(machine)
    result = [make(RULES[code], place) for place in RULES[code]["check"](View(machine))]
    assert machine == before
    return result


def set_to(address, **fields):
    return lambda machine: at(machine, address).update(fields)


def both(*steps):
    def step(machine):
        for one in steps:
            one(machine)
    return step


def identity(address, ident, **fields):
    vendor, device = ident.split(":")
    return set_to(address, vendor=vendor, device=device, id=ident, **fields)


def capability(address, **fields):
    return lambda machine: at(machine, address)["capabilities"].update(fields)


def link(address, speed, width, max_speed=8.0, max_width=16):
    return set_to(address, link={"speed": speed, "width": width, "max_speed": max_speed, "max_width": max_width})


def interface(address, speed, name="enp2s0", wireless=False, kind="physical"):
    def step(machine):
        machine["host"]["network"]["interfaces"] = [{
            "name": name, "index": 2, "kind": kind, "wireless": wireless, "mac": None, "permanent_mac": None,
            "operstate": "up", "mtu": 1500, "speed": speed, "master": None, "lower": [], "addresses": [],
            "function": full(address)}]
    return step


def used(address):
    return set_to(address, used_by=[{"kind": "network", "what": "default route IPv4", "chain": [], "finding": "VH204"}])


def unused(address):
    return set_to(address, used_by=[])


def add(line, **fields):
    def step(machine):
        function = machines.function(line)
        function.update(fields)
        machine["functions"].append(function)
        machine["functions"].sort(key=lambda f: pci.sort_key(f["address"]))
    return step


def virtual(*addresses):
    return both(*[add("%s endpoint 8086:154c ethernet < 00:1c.4" % a, physfn=full("03:00.0")) for a in addresses])


def drop(address):
    return lambda machine: machine["functions"].remove(at(machine, address))


def no_acs(address):
    return capability(address, acs=None)


def rmrr(machine):
    machine["host"]["iommu"]["rmrr"] = [{"start": 0x7F000000, "end": 0x7F0FFFFF, "functions": [full("02:00.0")]}]


NO_RESET = set_to("02:00.0", reset_methods=[])
CARD_WITHOUT_RESET = both(set_to("01:00.0", reset_methods=[]), set_to("01:00.1", reset_methods=[]))
SRIOV = {"total_vfs": 64, "num_vfs": 0, "vf_device": "154c", "offset": 16, "stride": 1}
SPLITTABLE = capability("03:00.0", sriov=SRIOV)
GATEWAY = identity("02:00.0", "10ec:8168")
TWIN = identity("03:00.0", "8086:1521")
STICK = {"path": "1-3", "id": "0781:5581", "product": "Ultra", "kinds": ["storage"], "port": 3}
HUB = {"path": "1-4", "id": "05e3:0610", "product": None, "kinds": ["hub"], "port": 4}
SLEEPY = set_to("01:00.0", power_state="D3cold")
DENIED = identity("02:00.0", "8086:37c8")
INTX = both(identity("02:00.0", "1814:0601"), set_to("02:00.0", irq=16), set_to("00:14.0", irq=16))
SILENT = set_to("02:00.0", capabilities=None, multifunction=None, config_bytes=256)
SLOW = both(link("02:00.0", 2.5, 4, 5.0, 4), link("00:1c.0", 2.5, 4, 8.0, 4))
ASM1083 = add("05:00.0 pcie_to_pci 1b21:1080 pci_bridge < 00:1c.0")
VMD = add("00:0e.0 rc_endpoint 8086:9a0b raid")
PCI_SLOT = both(add("05:00.0 pcie_to_pci 104c:8240 pci_bridge < 00:1c.0"), set_to("02:00.0", parent=full("05:00.0")))
SWITCH = both(add("01:00.2 upstream_port 1002:1478 pci_bridge < 00:01.0"), drop("01:00.0"), drop("01:00.1"),
              add("05:00.0 downstream_port 1002:1479 pci_bridge < 01:00.2"),
              add("06:00.0 endpoint 1002:744c vga < 05:00.0"),
              link("01:00.2", 2.5, 16), link("00:01.0", 2.5, 16))

CASES = [
    # code, what makes it so, place, words of the evidence, what makes it not so
    ("VH130", GATEWAY, "02:00.0", "Realtek NIC", identity("02:00.0", "8086:8168")),
    ("VH130", GATEWAY, "02:00.0", "10ec:8168", set_to("02:00.0", **{"class": "028000"})),
    ("VH130", PCI_SLOT, "02:00.0", "conventional PCI bridge 0000:05:00.0 104c:8240",
     set_to("05:00.0", port_type="upstream_port")),
    ("VH130", both(PCI_SLOT, add("06:00.0 pcie_to_pci 104c:8240 pci_bridge < 05:00.0"),
                   set_to("05:00.0", port_type="upstream_port"), set_to("02:00.0", parent=full("06:00.0"))),
     "02:00.0", "0000:06:00.0", set_to("06:00.0", port_type="downstream_port")),
    ("VH130", identity("00:14.0", "1b21:1042"), "00:14.0", "ASMedia controller", identity("00:14.0", "8086:1042")),
    ("VH130", ASM1083, "05:00.0", "nothing behind it", set_to("05:00.0", port_type="upstream_port")),
    ("VH130", ASM1083, "05:00.0", "ASMedia bridge", identity("05:00.0", "104c:8240")),
    ("VH130", ASM1083, "05:00.0", "ASMedia bridge", set_to("02:00.0", parent=full("05:00.0"))),

    ("VH132", TWIN, "8086:1521", "0000:02:00.0, 0000:03:00.0", identity("03:00.0", "8086:1572")),
    ("VH132", TWIN, "8086:1521", "2 functions are 8086:1521 ethernet", set_to("03:00.0", physfn=full("02:00.0"))),
    ("VH132", TWIN, "8086:1521", "2 functions", set_to("03:00.0", **{"class": "010802"})),
    ("VH132", TWIN, "8086:1521", "2 functions", used("02:00.0")),
    ("VH132", both(TWIN, set_to("02:00.0", subsystem_device="0001")), "8086:1521", "subsystem ids differ",
     drop("02:00.0")),
    ("VH418", both(TWIN, used("02:00.0")), "8086:1521", "the host uses 0000:02:00.0: network default route IPv4",
     unused("02:00.0")),
    ("VH418", both(TWIN, used("02:00.0")), "8086:1521", "0000:03:00.0", identity("03:00.0", "8086:1572")),

    ("VH401", both(NO_RESET, set_to("02:00.0", parent=None)), "02:00.0", "root bus",
     set_to("02:00.0", reset_methods=["pm"])),
    ("VH401", both(VMD, CARD_WITHOUT_RESET, set_to("01:00.0", parent=full("00:0e.0")),
                   set_to("01:00.1", parent=full("00:0e.0"))), "01:00.0", "root bus",
     both(set_to("01:00.0", parent=full("00:01.0")), set_to("01:00.1", parent=full("00:01.0")))),
    ("VH401", both(NO_RESET, set_to("02:00.0", **{"class": "080501"})), "02:00.0", "no reset method",
     set_to("02:00.0", **{"class": "088000"})),
    ("VH401", NO_RESET, "02:00.0", "alone on its bus", set_to("02:00.0", reset_methods=["unknown"])),
    ("VH401", NO_RESET, "02:00.0", "has no reset method", set_to("02:00.0", reset_methods=None)),
    ("VH401", NO_RESET, "02:00.0", "8086:1521", used("02:00.0")),
    ("VH401", NO_RESET, "02:00.0", "8086:1521", set_to("02:00.0", **{"class": "130000"})),
    ("VH401", both(CARD_WITHOUT_RESET, identity("01:00.0", "10de:2342")), "01:00.1",
     "0000:01:00.0 10de:2342 does not come back", identity("01:00.0", "10de:1380")),
    ("VH401", both(CARD_WITHOUT_RESET, add("01:00.2 upstream_port 1022:43e9 pci_bridge < 00:01.0 multi")), "01:00.0",
     "also reset the bridge 0000:01:00.2", drop("01:00.2")),

    ("VH402", identity("02:00.0", "1022:149c"), "02:00.0", "flr is known not to work",
     set_to("02:00.0", reset_methods=["pm", "bus"])),
    ("VH402", identity("02:00.0", "1b21:1164"), "02:00.0", "without it there is left: flr",
     identity("02:00.0", "1b21:1165")),
    ("VH402", both(identity("01:00.0", "1002:67df"), set_to("01:00.0", reset_methods=["pm"])), "01:00.0",
     "left: nothing", set_to("01:00.0", parent=None)),
    ("VH402", identity("02:00.0", "1022:149c"), "02:00.0", "flr", used("02:00.0")),
    ("VH402", identity("02:00.0", "1022:149c"), "02:00.0", "flr", set_to("02:00.0", reset_methods=None)),
    ("VH419", both(identity("02:00.0", "1022:149c"), set_to("02:00.0", reset_methods=["unknown"])), "reset",
     "what this kernel uses is unknown", identity("02:00.0", "1022:149d")),
    ("VH419", both(identity("02:00.0", "1022:149c"), set_to("02:00.0", reset_methods=["pm", "bus"])), "reset",
     "flr or af_flr does not work; left: pm bus", set_to("02:00.0", reset_methods=["flr", "bus"])),
    ("VH419", both(identity("02:00.0", "1022:149c"), set_to("02:00.0", reset_methods=None)), "reset", "unknown",
     identity("02:00.0", "1022:149d")),
    ("VH419", both(identity("02:00.0", "168c:003e"), set_to("02:00.0", reset_methods=[])), "reset", "none of its own",
     used("02:00.0")),

    ("VH403", CARD_WITHOUT_RESET, "01:00.0", "resets 0000:01:00.0, 0000:01:00.1",
     both(set_to("01:00.0", reset_methods=["flr"]), set_to("01:00.1", reset_methods=["flr"]))),
    ("VH403", both(CARD_WITHOUT_RESET, used("01:00.1")), "01:00.0", "the host uses 0000:01:00.1", used("01:00.0")),
    ("VH403", CARD_WITHOUT_RESET, "01:00.0", "the bus behind 0000:00:01.0", drop("01:00.1")),
    ("VH403", CARD_WITHOUT_RESET, "01:00.0", "no reset of its own", identity("01:00.1", "10de:22ce")),

    ("VH404", both(link("01:00.0", 8.0, 4), link("00:01.0", 8.0, 4)), "01:00.0", "runs at x4",
     link("00:01.0", 8.0, 4, 8.0, 4)),
    ("VH404", SLOW, "02:00.0", "it can 5 GT/s, and the port 0000:00:1c.0", set_to("02:00.0", power_state="D3hot")),
    ("VH404", SLOW, "02:00.0", "2.5 GT/s", set_to("02:00.0", **{"class": "030000"})),
    ("VH404", SLOW, "02:00.0", "2.5 GT/s", set_to("00:1c.0", link=None)),
    ("VH404", both(link("02:00.0", 2.5, 4), link("00:1c.0", 2.5, 4)), "02:00.0", "x4", link("02:00.0", 8.0, 16)),
    ("VH420", both(link("01:00.0", 8.0, 4), link("00:01.0", 8.0, 4, 8.0, 4)), "links",
     "x4 of x16; the port above it can no more", link("01:00.0", 8.0, 16)),
    ("VH420", both(link("01:00.0", 2.5, 16), link("00:01.0", 2.5, 16)), "links", "2.5 GT/s of 8 GT/s; it may be idle",
     set_to("01:00.0", **{"class": "020000"})),
    ("VH420", SWITCH, "links", "0000:01:00.2 1002:1478 pci_bridge: 2.5 GT/s of 8 GT/s; it may be idle",
     drop("06:00.0")),
    ("VH420", both(link("02:00.0", 2.5, 4, 2.5, 8), set_to("02:00.0", parent=None)), "links", "is unknown",
     link("02:00.0", None, 0, 2.5, 8)),
    ("VH420", link("02:00.0", 2.5, 4, 2.5, 8), "links", "is unknown", link("02:00.0", 2.5, 4, None, None)),
    ("VH420", link("02:00.0", 2.5, 4, 2.5, 8), "links", "what the port above it can is unknown",
     set_to("02:00.0", physfn=full("03:00.0"))),

    ("VH405", SLEEPY, "01:00.0", "power state is D3cold", set_to("01:00.0", power_state="D3hot")),
    ("VH405", SLEEPY, "01:00.0", "d3cold_allowed is 1", set_to("01:00.0", d3cold_allowed=False)),
    ("VH405", SLEEPY, "01:00.0", "10de:1380", set_to("01:00.0", d3cold_allowed=None)),
    ("VH405", SILENT, "02:00.0", "does not answer", set_to("02:00.0", config_bytes=64)),
    ("VH415", SILENT, "02:00.0", "reads all ones", set_to("02:00.0", config_bytes=64)),
    ("VH415", set_to("00:1c.0", capabilities=None), "00:1c.0", "all ones", set_to("00:1c.0", config_bytes=0)),

    ("VH406", both(rmrr, refresh), "02:00.0", "0x7f000000 to 0x7f0fffff", set_to("02:00.0", rmrr=False)),
    ("VH406", set_to("02:00.0", rmrr=True), "02:00.0", "RMRR", set_to("02:00.0", rmrr=None)),
    ("VH413", DENIED, "02:00.0", "QAT C62X", identity("02:00.0", "8086:37ca")),
    ("VH413", DENIED, "02:00.0", "denylist", set_to("02:00.0", driver="vfio-pci")),
    ("VH413", DENIED, "02:00.0", "denylist", set_to("02:00.0", driver="qat_vfio_pci")),

    ("VH407", SPLITTABLE, "sriov", "64 virtual functions are possible, 0 are there", capability("03:00.0", sriov=None)),
    ("VH407", SPLITTABLE, "sriov", "0000:03:00.0 8086:1572 ethernet", both(no_acs("00:1c.4"), refresh)),
    ("VH407", both(SPLITTABLE, capability("00:1c.4", complete=False), refresh), "sriov", "is not certain",
     set_to("03:00.0", capabilities=None)),
    ("VH408", both(SPLITTABLE, no_acs("00:1c.4"), refresh), "03:00.0",
     "0000:00:1c.4 8086:7abc pci_bridge does not",
     both(capability("00:1c.4", acs={"capability": 0x1F, "control": 0}), refresh)),
    ("VH408", both(SPLITTABLE, no_acs("00:1c.4"), refresh), "03:00.0", "can have 64 virtual functions",
     capability("03:00.0", sriov=dict(SRIOV, total_vfs=0))),
    ("VH408", both(SPLITTABLE, no_acs("00:1c.4"), virtual("03:02.0", "03:02.1"), refresh), "03:00.0",
     "in its group now: 0000:03:02.0, 0000:03:02.1", capability("03:00.0", sriov=None)),
    ("VH408", both(SPLITTABLE, VMD, set_to("03:00.0", parent=full("00:0e.0"))),
     "03:00.0", "VMD controller", set_to("03:00.0", parent=None)),
    ("VH417", both(virtual("03:02.0", "03:02.1"), used("03:00.0")), "03:00.0", "0000:03:02.0, 0000:03:02.1",
     unused("03:00.0")),
    ("VH417", both(virtual("03:02.0"), used("03:00.0")), "03:00.0", "default route", drop("03:02.0")),
    ("VH417", both(virtual("03:02.0"), used("03:00.0")), "03:00.0", "default route", drop("03:00.0")),
    ("VH409", set_to("03:00.0", variant_modules=["mlx5_vfio_pci"]), "vfio variants",
     "mlx5_vfio_pci is made for 0000:03:00.0", set_to("03:00.0", variant_modules=[])),
    ("VH409", set_to("03:00.0", variant_modules=["pds_vfio_pci"]), "vfio variants", "pds_vfio_pci",
     set_to("03:00.0", driver="pds-vfio-pci")),

    ("VH410", unused("04:00.0"), "disk controllers", "0000:04:00.0 144d:a808 nvme", used("04:00.0")),
    ("VH410", unused("04:00.0"), "disk controllers", "does not use", set_to("04:00.0", **{"class": "020000"})),
    ("VH411", interface("02:00.0", 10000), "nics", "enp2s0 runs at 10000 Mb/s", interface("02:00.0", 5000)),
    ("VH411", interface("02:00.0", 25000), "nics", "25000", used("02:00.0")),
    ("VH411", interface("02:00.0", 10000), "nics", "8086:1521", interface("02:00.0", 10000, kind="bond")),
    ("VH412", interface("02:00.0", 1000), "nics", "enp2s0 runs at 1000 Mb/s", interface("02:00.0", 2500)),
    ("VH412", interface("02:00.0", 100), "nics", "100 Mb/s", interface("02:00.0", None)),
    ("VH412", interface("02:00.0", 1000), "nics", "8086:1521", interface("00:14.0", 1000)),
    ("VH412", interface("02:00.0", 1000), "nics", "8086:1521", interface("02:00.0", 1000, wireless=True)),

    ("VH414", INTX, "02:00.0", "line 16 is that of 0000:00:14.0, 0000:02:00.0", identity("02:00.0", "8086:1521")),
    ("VH414", both(INTX, set_to("00:14.0", irq=17)), "02:00.0", "no other PCI function has line 16", used("02:00.0")),
    ("VH414", both(INTX, set_to("02:00.0", irq=None)), "02:00.0", "is unknown", identity("02:00.0", "8086:1572")),
    ("VH421", set_to("02:00.0", **{"class": "028000"}), "02:00.0", "class of wireless",
     set_to("02:00.0", **{"class": "020000"})),
    ("VH421", interface("02:00.0", None, "wlp2s0", wireless=True), "02:00.0", "wireless interface wlp2s0",
     interface("02:00.0", None, "wlp2s0")),
    ("VH422", set_to("00:14.0", **{"class": "0c0340"}), "00:14.0", "USB4", set_to("00:14.0", **{"class": "0c0330"})),
]


@pytest.mark.parametrize("code, cause, place, words, cure", CASES,
                         ids=["%s-%d" % (case[0], number) for number, case in enumerate(CASES)])
def test_a_rule_finds_its_fact_and_is_silent_without_it(code, cause, place, words, cure):
    machine = board()
    assert found(machine, code) == []
    cause(machine)
    where = {"device": full(place)} if re.match(r"[0-9a-f]{2}:[0-9a-f]{2}\.", place) else {"host": place}
    here = [f for f in found(machine, code) if where.items() <= f.items()]
    assert len(here) == 1
    assert words in "; ".join(here[0]["evidence"])
    cure(machine)
    assert not [f for f in found(machine, code) if where.items() <= f.items()]


def test_every_rule_has_a_case_and_a_page_that_says_the_same():
    assert {case[0] for case in CASES} == set(RULES)
    for code, rule in RULES.items():
        text = (PAGES / (code + ".md")).read_text(encoding="utf-8")
        severity = "**%s**" % rule["severity"]
        if rule["severity"] != "info":
            severity += ", can be acknowledged" if rule["acknowledgeable"] else ", cannot be acknowledged"
        assert text.startswith("# %s: %s\n\n%s\n\n" % (code, rule["title"], severity))
        sections = ["## What", "## How we know", "## Why it matters", "## What to do"]
        assert re.findall(r"^## .*", text, re.MULTILINE) == sections


def test_only_what_nothing_can_make_work_cannot_be_acknowledged():
    assert [code for code, rule in RULES.items() if not rule["acknowledgeable"]] == ["VH406"]
    assert [code for code, rule in RULES.items() if rule["severity"] == "refuse"] == ["VH406", "VH413"]


def test_nothing_is_found_where_nothing_is_known():
    machine = board()
    for function in machine["functions"]:
        unknown = pci.blank(function["address"])
        function.update({key: unknown[key] for key in unknown if key not in ("address", "parent")}, is_bridge=None)
    machine["host"]["iommu"]["rmrr"] = None
    assert [(code, found(machine, code)) for code in RULES if found(machine, code)] == []


def test_the_desktop_of_the_first_listing():
    machine = machines.build(machines.P8H67.replace("06:00.0 conventional 1102:0002 audio < 05:00.0", ""))
    place = {code: [f.get("device", f.get("host")) for f in found(machine, code)] for code in RULES}
    assert place["VH130"] == [full("03:00.0"), full("04:00.0"), full("05:00.0")]
    assert sum(len(places) for places in place.values()) <= 6


def test_a_card_is_named_once():
    machine = board()
    CARD_WITHOUT_RESET(machine)
    assert [f["device"] for f in found(machine, "VH403")] == [full("01:00.0")]


def test_virtual_functions_in_groups_of_their_own_are_not_named():
    machine = board()
    both(SPLITTABLE, no_acs("00:1c.4"), virtual("03:02.0"), refresh)(machine)
    for groups in ([], [{"members": [full("03:00.0")]}, {"members": [full("03:02.0")]}]):
        machine["groups"] = groups
        assert len(found(machine, "VH408")[0]["evidence"]) == 2


def test_no_rule_looks_at_every_function_for_every_function():
    class Counted(list):
        looked = 0

        def __iter__(self):
            for item in super().__iter__():
                Counted.looked += 1
                yield item

    port = machines.function("00:01.0 root_port 8086:0c01 pci_bridge")
    port["isolates"] = {"answer": False, "certain": True, "why": "it has no ACS capability"}
    functions = [port]
    for n in range(600):
        place = "%02x:%02x.%d" % (1 + n // 256, n // 8 % 32, n % 8)
        function = machines.function("%s endpoint 1814:0601 ethernet < 00:01.0" % place)
        function.update(irq=16, reset_methods=[])
        function["capabilities"]["sriov"] = SRIOV
        functions.append(function)
    view = View(dict(board(), functions=functions, groups=[]))
    view.machine["functions"] = Counted(functions)
    view._children = {parent: Counted(below) for parent, below in view._children.items()}
    view._slots = {slot: Counted(inside) for slot, inside in view._slots.items()}
    for code, rule in RULES.items():
        Counted.looked = 0
        assert len(list(rule["check"](view))) <= 600
        assert Counted.looked < 10 * 601, code


@pytest.mark.parametrize("count, rest", [(10, False), (11, True), (60, True)])
def test_a_server_with_many_alike_stays_readable(count, rest):
    lines = []
    for number in range(count):
        port = "%02x:%02x.0" % (0x10 + number // 32, number % 32)
        lines += ["%s root_port 8086:2030 pci_bridge acs" % port,
                  "%02x:00.0 endpoint 144d:a808 nvme < %s" % (0x20 + number, port)]
    machine = machines.build("\n".join(lines))
    for function in machine["functions"]:
        function["link"] = {"speed": 8.0, "width": 4, "max_speed": 8.0, "max_width": 4}
        if function["class_name"] == "nvme":
            function["link"]["max_speed"] = 16.0
            function["capabilities"]["sriov"] = SRIOV
    everything = [f for code in RULES for f in found(machine, code)]
    assert sorted(f["code"] for f in everything) == ["VH132", "VH407", "VH410", "VH420"]
    for finding in everything:
        assert ("and %d more" % (count - 10) in "; ".join(finding["evidence"])) == rest
        assert len(finding["evidence"]) <= 11


@pytest.mark.parametrize("ident, code, revision, on_root_bus, methods", [
    ("1022:149c", "0c0330", "00", False, ("flr", "af_flr")),
    ("d063:1000", "020000", "01", False, ("flr", "af_flr")),
    ("d063:1000", "020000", "02", False, ()),
    ("d063:1000", "020000", None, False, ()),
    ("1002:744c", "030000", "c8", False, ("pm",)),
    ("1002:744c", "030000", "c8", True, ()),
    ("1002:744c", "038000", "c8", False, ()),
    ("15b3:cb84", "020000", "00", False, ("pm",)),
    ("10de:2340", "030200", "a1", False, ("bus",)),
    ("10de:237f", "030200", "a1", False, ("bus",)),
    ("10de:2380", "030200", "a1", False, ()),
    ("1002:2340", "030200", "a1", False, ()),
    ("1b21:1164", "010601", "02", True, ("bus",)),
])
def test_faulty_resets_by_id_class_revision_and_place(ident, code, revision, on_root_bus, methods):
    vendor, device = ident.split(":")
    function = {"vendor": vendor, "device": device, "id": ident, "class": code, "revision": revision}
    assert reset_quirks.faulty_resets(function, on_root_bus) == methods
