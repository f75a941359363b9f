# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of lspci, as they are printed, pasted, cut and forged."""

from __future__ import annotations

import json
import random
import time

import pytest

from ansible_collections.vfio.host.plugins.module_utils._dump_machine import from_dump
from ansible_collections.vfio.host.plugins.module_utils._hardware import dump, pci
from ansible_collections.vfio.host.tests.unit.hardware.fake_lspci import render, rows, space
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import (
    ENDPOINT,
    PCIE_TO_PCI,
    ROOT_PORT,
)

ACS = (0x1F, 0x1D)
VF = b"\xff\xff\xff\xff"


def desk():
    """A port without ACS above a card, one with ACS above a NIC that has two virtual functions, a legacy bridge."""
    machine = {
        "0000:00:00.0": space("8086:0150", "060000"),
        "0000:00:01.0": space("8086:0151", "060400", bus=(0, 1, 1), express=ROOT_PORT),
        "0000:00:1c.0": space("1b36:000c", "060400", bus=(0, 2, 2), express=ROOT_PORT, acs=ACS),
        "0000:00:1c.4": space("1b36:000c", "060400", bus=(0, 3, 4), express=ROOT_PORT, acs=ACS),
        "0000:00:1f.0": space("8086:1c4a", "060100", multifunction=True),
        "0000:01:00.0": space("10de:1380", "030000", express=ENDPOINT, multifunction=True),
        "0000:01:00.1": space("10de:0fbc", "040300", express=ENDPOINT, multifunction=True),
        "0000:02:00.0": space("8086:1521", "020000", express=ENDPOINT, vfs=(2, 0x80, 4, 0x1520)),
        "0000:02:10.0": VF + space("8086:1520", "020000", express=ENDPOINT, acs=ACS)[4:],
        "0000:02:10.4": VF + space("8086:1520", "020000", express=ENDPOINT, acs=ACS)[4:],
        "0000:03:00.0": space("1b21:1080", "060400", bus=(3, 4, 4), express=PCIE_TO_PCI),
        "0000:04:00.0": space("13f6:8788", "040100"),
        "0000:04:01.0": space("1106:3044", "0c0010"),
    }
    assert all(isinstance(data, bytes) for data in machine.values())
    return machine


def by_address(functions):
    return {function["address"]: function for function in functions}


def groups(machine):
    return [group["members"] for group in machine["groups"]]


DESK_GROUPS = [
    ["0000:00:00.0"], ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"], ["0000:00:1c.0"], ["0000:00:1c.4"],
    ["0000:00:1f.0"], ["0000:02:00.0"], ["0000:02:10.0"], ["0000:02:10.4"],
    ["0000:03:00.0", "0000:04:00.0", "0000:04:01.0"],
]


def test_topology_ids_and_groups():
    machine = from_dump(render(desk()))
    functions = by_address(machine["functions"])
    assert list(functions) == sorted(desk())
    assert {a: f["parent"] for a, f in functions.items() if f["parent"]} == {
        "0000:01:00.0": "0000:00:01.0", "0000:01:00.1": "0000:00:01.0", "0000:02:00.0": "0000:00:1c.0",
        "0000:02:10.0": "0000:00:1c.0", "0000:02:10.4": "0000:00:1c.0", "0000:03:00.0": "0000:00:1c.4",
        "0000:04:00.0": "0000:03:00.0", "0000:04:01.0": "0000:03:00.0"}
    assert groups(machine) == DESK_GROUPS
    assert {group["confidence"] for group in machine["groups"]} == {"predicted"}
    card = functions["0000:01:00.0"]
    assert [card[name] for name in ("id", "class", "class_name")] == ["10de:1380", "030000", "vga"]
    assert set(card) == set(pci.blank("0000:01:00.0"))
    assert json.loads(json.dumps(machine)) == machine


def test_virtual_functions_get_the_ids_of_their_physical_one():
    functions = by_address(dump.parse(render(desk()))["functions"])
    virtual = functions["0000:02:10.4"]
    assert (virtual["id"], virtual["physfn"], virtual["multifunction"]) == ("8086:1520", "0000:02:00.0", False)
    assert functions["0000:02:00.0"]["physfn"] is None
    orphaned = {a: d for a, d in desk().items() if a != "0000:02:00.0"}
    found = dump.parse(render(orphaned))
    virtual = by_address(found["functions"])["0000:02:10.0"]
    assert (virtual["id"], virtual["physfn"], virtual["multifunction"]) == ("ffff:ffff", None, None)
    assert any("0000:02:10.0" in entry["input"] and "SR-IOV" in entry["why"] for entry in found["missing"])


def test_a_virtual_function_on_a_bus_of_its_own():
    machine = {
        "0000:00:1c.0": space("1b36:000c", "060400", bus=(0, 2, 3), express=ROOT_PORT, acs=ACS),
        "0000:02:00.0": space("8086:10fb", "020000", express=ENDPOINT, vfs=(1, 0x100, 2, 0x10ED)),
        "0000:03:00.0": VF + space("8086:10ed", "020000", express=ENDPOINT)[4:],
    }
    found = dump.parse(render(machine))
    virtual = by_address(found["functions"])["0000:03:00.0"]
    assert (virtual["parent"], virtual["physfn"]) == ("0000:00:1c.0", "0000:02:00.0")
    assert not any("bus" in entry["input"] for entry in found["missing"])


@pytest.mark.parametrize("change", [
    lambda text: text.replace("0000:", ""),
    lambda text: text.replace("\n", "\r\n"),
    lambda text: "\n".join("> " + line for line in text.splitlines()),
    lambda text: "\n".join("   > > " + line for line in text.splitlines()),
    lambda text: "Hello, on 10:30 I ran\nuser@desk:~$ lspci -D -xxxx\n```\n%s\n```\n10: 30 thanks" % text,
    lambda text: text.replace(" ", "\xa0"),
    lambda text: text + "\n\nAnd once more:\n\n" + text,
    lambda text: text.upper().replace("CLASS", "Class"),
    lambda text: "\n".join(line for line in text.splitlines() if "rev" in line) + "\n" + text,
], ids=["no -D", "CRLF", "quoted", "quoted more", "in a message", "hard spaces", "twice", "capitals", "listed before"])
def test_the_same_dump_in_other_dress(change):
    plain = dump.parse(render(desk()))
    found = dump.parse(change(render(desk())))
    for function in found["functions"] + plain["functions"]:
        function["device_name"] = function["vendor_name"] = None
    assert found == plain


def test_an_ordinary_users_dump_is_the_cautious_answer():
    machine = from_dump(render(desk(), limit=64))
    assert machine["source"]["privileged"] is False
    assert {group["confidence"] for group in machine["groups"]} >= {"partial"}
    assert any("sudo lspci -D -xxxx > dump.txt" in entry["why"] for entry in machine["source"]["missing"])
    # topology is in the first 64 bytes
    assert by_address(machine["functions"])["0000:01:00.0"]["parent"] == "0000:00:01.0"
    for sure in DESK_GROUPS:
        if not sure[0].startswith("0000:02:1"):
            assert any(set(sure) <= set(cautious) for cautious in groups(machine))


def test_three_x_leave_acs_unknown():
    machine = from_dump(render(desk(), limit=256))
    port = by_address(machine["functions"])["0000:00:1c.0"]
    assert (port["port_type"], port["capabilities"]["complete"]) == ("root_port", False)
    assert any("four x" in entry["why"] and "0000:00:1c.0" in entry["input"] for entry in machine["source"]["missing"])
    assert "partial" in {group["confidence"] for group in machine["groups"]}


def test_words_between_the_bytes():
    machine = {"0000:01:00.0": space("10de:1380", "030000")}
    between = ["Subsystem: Somebody", "Region 0: Memory at f6000000 (32-bit, non-prefetchable) [size=16M]",
               "Region 5: I/O ports at e000 [size=128]", "Expansion ROM at f7000000 [disabled] [size=512K]",
               "NUMA node: 1", "IOMMU group: 7", "Kernel driver in use: nouveau", "Kernel modules: nvidiafb, nouveau"]
    title = "VGA compatible controller [0300]: NVIDIA Corporation GM107 [GeForce GTX 750 Ti] [10de:1380]"
    found = dump.parse(render(machine, between=between, names={"0000:01:00.0": title}))
    function = found["functions"][0]
    assert (function["driver"], function["modules"], function["numa_node"]) == ("nouveau", ["nouveau", "nvidiafb"], 1)
    assert (function["vendor_name"], function["device_name"]) == (None, "NVIDIA Corporation GM107 [GeForce GTX 750 Ti]")
    assert function["resources"] == [
        {"bar": 0, "start": 0xF6000000, "size": 16 << 20, "flags": ["mem"]},
        {"bar": 5, "start": 0xE000, "size": 128, "flags": ["io"]},
        {"bar": "rom", "start": 0xF7000000, "size": 512 << 10, "flags": ["mem"]},
    ]
    assert found["groups"] == {"0000:01:00.0": "7"}
    assert not any(entry["input"] == "drivers" for entry in found["missing"])


@pytest.mark.parametrize("title, vendor_name, device_name", [
    ("VGA compatible controller: NVIDIA Corporation GM107", None, "NVIDIA Corporation GM107"),
    ("Signal processing controller: Intel Corporation Device a379", "Intel Corporation", None),
    ("0300: 10de:1380", None, None),
    ("Class [0300]: Device [10de:1380]", None, None),
    ("Non-Volatile memory controller [0108]: Somebody SSD [x] [10de:1380]", None, "Somebody SSD [x]"),
])
def test_names_of_a_title(title, vendor_name, device_name):
    text = render({"0000:01:00.0": space("10de:1380", "030000")}, names={"0000:01:00.0": title})
    function = dump.parse(text)["functions"][0]
    assert (function["vendor_name"], function["device_name"]) == (vendor_name, device_name)


def test_groups_that_the_dump_names_are_the_actual_ones():
    text = render(desk(), between=["IOMMU group: 3"])
    machine = from_dump(text)
    assert [(g["number"], g["source"]) for g in machine["groups"]] == [("3", "actual")]
    assert machine["host"]["iommu"]["active"] is True
    assert [group["members"] for group in machine["predicted_groups"]] == DESK_GROUPS


@pytest.mark.parametrize("bridge, table, vendor", [("8086:0150", "DMAR", "intel"), ("1022:1450", "IVRS", "amd"),
                                                   ("1af4:0000", None, None)])
def test_the_vendor_of_the_iommu_is_a_guess_and_called_one(bridge, table, vendor):
    machine = from_dump(render({"0000:00:00.0": space(bridge, "060000")}))
    iommu = machine["host"]["iommu"]
    assert (iommu["firmware_table"], iommu["vendor"], iommu["active"]) == (table, vendor, None)
    assert any(entry["input"] == "/sys/firmware/acpi/tables" and "unknown" in entry["why"]
               for entry in machine["source"]["missing"])
    told = from_dump(render({"0000:00:00.0": space(bridge, "060000")}), {"firmware_table": "IVRS", "kernel": "5.10.0"})
    assert told["host"]["iommu"]["vendor"] == "amd"
    assert (told["host"]["kernel"]["release"], told["host"]["kernel"]["quirk_table"]) == ("5.10.0", "5.10")
    assert not any(entry["input"] in ("/sys/firmware/acpi/tables", "kernel") for entry in told["source"]["missing"])


@pytest.mark.parametrize("context, words", [
    ({"kernel": "newest"}, "kernel: 'newest' is no kernel release"),
    ({"kernel": 6.1}, "kernel: 6.1 is not text"),
    ({"firmware_table": "ACPI"}, "firmware_table: 'ACPI' is no IOMMU table"),
    ({"kernal": "6.1"}, "kernal: not known"),
])
def test_bad_context_is_an_error(context, words):
    with pytest.raises(ValueError, match=words):
        from_dump("", context)


def test_nothing_is_known_of_what_the_host_needs():
    machine = from_dump(render(desk()))
    assert machine["host"]["usage_unknown"] == ["disk", "display", "network", "other", "ssh"]
    assert machine["host"]["boot"]["firmware"] is None
    assert machine["host"]["libvirt"]["installed"] is None


# -- topology that does not add up ------------------------------------------------------------------


def test_behind_vmd():
    machine = {
        "0000:00:0e.0": space("8086:467f", "010400", express=9),
        "10000:e0:06.0": space("8086:464d", "060400", bus=(0xE0, 0xE1, 0xE1), express=ROOT_PORT, acs=ACS),
        "10000:e1:00.0": space("144d:a80a", "010802", express=ENDPOINT),
    }
    found = from_dump(render(machine))
    assert by_address(found["functions"])["10000:e0:06.0"]["parent"] == "0000:00:0e.0"
    assert groups(found) == [sorted(machine)]
    machine["0000:00:0f.0"] = machine["0000:00:0e.0"]
    found = from_dump(render(machine))
    assert by_address(found["functions"])["10000:e0:06.0"]["parent"] == dump.UNKNOWN_PARENT
    assert any("10000:e0" in entry["input"] for entry in found["source"]["missing"])


def test_a_bus_without_a_bridge_is_a_root_bus_only_when_it_looks_like_one():
    part = {a: d for a, d in desk().items() if a not in ("0000:00:01.0", "0000:00:1c.0")}
    found = from_dump(render(part))
    assert by_address(found["functions"])["0000:01:00.0"]["parent"] == dump.UNKNOWN_PARENT
    assert next(g for g in found["groups"] if "0000:01:00.0" in g["members"])["confidence"] == "partial"
    assert any(entry["input"] == "bridge above bus 0000:01 0000:02" for entry in found["source"]["missing"])
    server = {
        "0000:17:00.0": space("8086:2030", "060400", bus=(0x17, 0x18, 0x18), express=ROOT_PORT, acs=ACS),
        "0000:17:05.0": space("8086:2034", "088000", express=9),
        "0000:18:00.0": space("10de:1380", "030000", express=ENDPOINT),
    }
    assert by_address(dump.parse(render(server))["functions"])["0000:17:05.0"]["parent"] is None


def test_an_unread_bridge_may_lead_anywhere():
    machine = {"0000:00:1e.0": b"\xff" * 64, "0000:05:01.0": space("1106:3044", "0c0010")}
    title = "PCI bridge: Intel Corporation 82801 PCI Bridge"
    found = dump.parse(render(machine, names={"0000:00:1e.0": title}))
    assert by_address(found["functions"])["0000:05:01.0"]["parent"] == dump.UNKNOWN_PARENT
    assert any("all ones" in entry["why"] for entry in found["missing"])
    machine["0000:00:1e.0"] = space("8086:244e", "060401", bus=(0, 6, 6))
    assert by_address(dump.parse(render(machine))["functions"])["0000:05:01.0"]["parent"] is None


@pytest.mark.parametrize("bus", [(0, 1, 1), (1, 1, 1), (1, 0, 0), (2, 1, 4)])
def test_a_loop_of_buses_ends(bus):
    machine = {
        "0000:00:01.0": space("8086:0151", "060400", bus=(0, 1, 2), express=ROOT_PORT),
        "0000:01:00.0": space("10b5:8747", "060400", bus=bus, express=5),
        "0000:02:00.0": space("10b5:8747", "060400", bus=(2, 2, 2), express=6),
    }
    found = from_dump(render(machine))
    functions = by_address(found["functions"])
    assert functions["0000:01:00.0"]["parent"] == "0000:00:01.0"
    assert functions["0000:02:00.0"]["parent"] == dump.UNKNOWN_PARENT
    assert any("0000:02:00.0" in entry["input"] for entry in found["source"]["missing"])


def test_two_bridges_to_one_bus():
    machine = desk()
    machine["0000:00:1c.0"] = space("1b36:000c", "060400", bus=(0, 1, 1), express=ROOT_PORT, acs=ACS)
    functions = by_address(dump.parse(render(machine))["functions"])
    assert functions["0000:01:00.0"]["parent"] == dump.UNKNOWN_PARENT


def test_two_machines_in_one_text():
    other = {"0000:01:00.0": space("1002:67df", "030000", express=ENDPOINT)}
    found = dump.parse(render(desk()) + "\n" + render(other))
    assert by_address(found["functions"])["0000:01:00.0"]["id"] == "10de:1380"
    assert any(entry["input"] == "second dump of 0000:01:00.0" for entry in found["missing"])


# -- cut and forged ---------------------------------------------------------------------------------


def test_bytes_that_were_cut_off_are_unknown_and_not_zero():
    data = space("1b36:000c", "060400", bus=(0, 1, 1), express=ROOT_PORT, acs=ACS)
    for kept, size in ((3, 0), (4, 64), (15, 64), (16, 256), (200, 256), (256, 4096)):
        text = "0000:00:01.0 PCI bridge: x\n" + "\n".join(rows(data)[:kept])
        function = dump.parse(text)["functions"][0]
        assert function["config_bytes"] == size
        assert function["is_bridge"] is True
    hole = rows(data)
    del hole[20]
    function = dump.parse("0000:00:01.0 PCI bridge: x\n" + "\n".join(hole))["functions"][0]
    assert function["config_bytes"] == 256
    assert function["capabilities"]["complete"] is False
    found = dump.parse("0000:00:01.0 PCI bridge: x\n" + "\n".join(rows(data)[:200]))
    assert any(entry["why"] == "the text was cut within it" for entry in found["missing"])


@pytest.mark.parametrize("seed", range(40))
def test_hostile_text_raises_nothing_and_stays_plain(seed):
    choice = random.Random(seed)
    lines = render(desk()).splitlines()
    for dummy in range(choice.randrange(1, 60)):
        at = choice.randrange(len(lines))
        kind = choice.randrange(6)
        if kind == 0:
            lines[at] = lines[at][:choice.randrange(len(lines[at]) + 1)]
        elif kind == 1:
            del lines[at:at + choice.randrange(300)]
        elif kind == 2:
            lines.insert(at, choice.choice(lines))
        elif kind == 3:
            lines[at] = "".join(chr(choice.randrange(0x2FF)) for dummy in range(60))
        elif kind == 4:
            digits = " ".join("%02x" % choice.randrange(256) for dummy in range(16))
            lines[at] = "%02x: %s" % (choice.randrange(256) * 16, digits)
        else:
            lines[at] = "%s:%02x:%02x.%d PCI bridge: x" % (
                choice.choice(["0000", "10000", "ffffffff"]), choice.randrange(256), choice.randrange(32),
                choice.randrange(8))
        if not lines:
            break
    machine = from_dump("\n".join(lines))
    known = by_address(machine["functions"])
    assert json.loads(json.dumps(machine)) == machine
    for address, function in known.items():
        assert set(function) >= set(pci.blank(address))
        assert function["parent"] in known or function["parent"] in (None, dump.UNKNOWN_PARENT)
        assert function["parent"] != address
    members = [address for group in machine["groups"] for address in group["members"]]
    assert len(set(members)) == len(members)


@pytest.mark.parametrize("seed", range(10))
def test_random_headers_of_bridges(seed):
    """Bus numbers of every kind: the parents are a forest."""
    choice = random.Random(seed)
    machine = {}
    for dummy in range(300):
        address = "0000:%02x:%02x.%d" % (choice.randrange(6), choice.randrange(32), choice.randrange(8))
        machine[address] = space("8086:0151", "060400", express=choice.choice([4, 5, 6, 7, 8]),
                                 bus=[choice.randrange(8) for dummy in range(3)])
    known = by_address(dump.parse(render(machine, limit=256))["functions"])
    for address in known:
        seen = []
        while address in known:
            assert address not in seen
            seen.append(address)
            address = known[address]["parent"]


def test_time_is_linear_in_functions():
    def took(count):
        physical = space("8086:1521", "020000", express=ENDPOINT)
        machine = {"%04x:%02x:%02x.%d" % (n >> 16, n >> 8 & 0xFF, n >> 3 & 0x1F, n & 7): physical for n in range(count)}
        text = render(machine, limit=64)
        start = time.process_time()
        found = dump.parse(text)
        assert len(found["functions"]) == count
        return time.process_time() - start

    took(1000)
    once, double = took(5000), took(10000)
    assert double < 3 * once + 0.2


def test_virtual_functions_that_are_only_claimed_cost_nothing():
    """A hundred capabilities that claim 65,535 functions each, and one function whose owner is looked for."""
    claiming = space("8086:1521", "020000", express=ENDPOINT, vfs=(0xFFFF, 1, 1, 0x1520))
    machine = {"0000:00:%02x.%d" % (n >> 3, n & 7): claiming for n in range(100)}
    times = []
    for more in ({}, {"ffff:00:00.0": VF + claiming[4:]}):
        text = render(dict(machine, **more))
        start = time.process_time()
        dump.parse(text)
        times.append(time.process_time() - start)
    assert times[1] < 3 * times[0] + 0.5
