# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other slots, other kernels, a second card: on the how-to's machine and on smaller ones."""

from __future__ import annotations

import copy
import json
import random

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.what_if import compare, what_if
from ansible_collections.vfio.host.tests.unit.machines import at, build, full, p8h67_on, refresh, use

SWITCH = """
00:01.0 root_port 8086:0151 pci_bridge acs
00:1c.0 root_port 8086:a110 pci_bridge acs
00:1c.4 root_port 1b36:000c pci_bridge
01:00.0 upstream_port 10b5:8747 pci_bridge < 00:01.0
02:08.0 downstream_port 10b5:8747 pci_bridge < 01:00.0 acs
02:10.0 downstream_port 10b5:8747 pci_bridge < 01:00.0 acs
03:00.0 endpoint 10de:1380 vga < 02:08.0 multi
03:00.1 endpoint 10de:0fbc audio < 02:08.0 multi
04:00.0 endpoint 144d:a80a nvme < 02:10.0
05:00.0 endpoint 8086:1521 ethernet < 00:1c.0
"""


def groups(machine):
    return {frozenset(group["members"]) for group in machine["groups"]}


def group_of(machine, address):
    return next((group["members"] for group in machine["groups"] if full(address) in group["members"]), None)


def addresses(text):
    return [full(address) for address in text.split()]


def with_buses(machine, buses):
    """Bridges with the secondary bus numbers that firmware gave them."""
    for address, secondary in buses.items():
        at(machine, address)["bus"] = {"secondary": secondary, "subordinate": secondary}
    return machine


def test_nothing_assumed_changes_nothing():
    machine = build()
    result = what_if(machine, {})
    assert compare(machine, result) == []
    assert result["source"]["what_if"] == {"moved": {}}
    assert {group["source"] for group in result["groups"]} == {"predicted"}


def test_the_input_is_not_changed():
    machine = p8h67_on()
    before = copy.deepcopy(machine)
    what_if(machine, {"move": [{"device": "02:00", "to": "00:1c.5"}], "remove": ["03:00"], "iommu": True,
                      "kernel": "5.4", "add": [{"to": "05:00.0", "like": "06:00"}], "override_acs": ["downstream"]})
    assert machine == before


def test_a_second_card_on_the_processors_port_joins_the_group():
    """What the how-to warns of: both cards of a processor without ACS on its ports are one group."""
    machine = build()
    result = what_if(machine, {"add": [{"port": "00:01.1", "like": "00:01.0"}, {"to": "00:01.1", "like": "01:00.0"}]})
    assert group_of(result, "01:00.0") == addresses("00:01.0 00:01.1 01:00.0 01:00.1 07:00.0 07:00.1")
    assert at(result, "00:01.0")["multifunction"] is True
    second = at(result, "07:00.0")
    assert (second["id"], second["parent"], second["class_name"]) == ("10de:1380", "0000:00:01.1", "vga")
    assert {entry["address"] for entry in compare(machine, result)} == set(group_of(result, "01:00.0"))
    assert [e for e in compare(machine, result) if e["address"] == "0000:07:00.0"][0]["before"] is None
    # a port with ACS beside it stays out of it
    isolated = build("00:01.0 root_port 8086:0151 pci_bridge acs\n01:00.0 endpoint 10de:1380 vga < 00:01.0")
    result = what_if(isolated, {"add": [{"port": "00:01.1", "like": "00:01.0"}, {"to": "00:01.1", "like": "01:00.0"}]})
    assert group_of(result, "01:00.0") == ["0000:01:00.0"]


def test_a_card_in_another_slot():
    machine = with_buses(build(SWITCH), {"00:1c.4": 9})
    result = what_if(machine, {"move": [{"device": "05:00.0", "to": "00:1c.4"}]})
    assert result["source"]["what_if"]["moved"] == {"0000:05:00.0": "0000:09:00.0"}
    assert group_of(machine, "05:00.0") == ["0000:05:00.0"]
    assert group_of(result, "09:00.0") == addresses("00:1c.4 09:00.0")
    assert compare(machine, result) == [
        {"address": "0000:00:1c.4", "was": "0000:00:1c.4", "before": addresses("00:1c.4"),
         "after": addresses("00:1c.4 09:00.0")},
        {"address": "0000:09:00.0", "was": "0000:05:00.0", "before": addresses("05:00.0"),
         "after": addresses("00:1c.4 09:00.0")},
    ]


def test_what_is_below_a_card_goes_with_it():
    buses = {"00:01.0": 1, "01:00.0": 2, "02:08.0": 3, "02:10.0": 4, "00:1c.0": 5, "00:1c.4": 7}
    machine = with_buses(build(SWITCH), buses)
    use(machine, "04:00.0", "VH201", "disk", "/", "nvme0n1")
    machine["host"]["framebuffer"] = {"name": "efifb", "start": 0, "end": 1, "function": "0000:03:00.0"}
    machine["host"]["network"]["interfaces"] = [
        {"name": "eth%d" % number, "index": number, "kind": "physical", "wireless": False, "mac": None,
         "permanent_mac": None, "operstate": "up", "mtu": 1500, "speed": None, "master": None, "lower": [],
         "addresses": [], "function": full(a)} for number, a in enumerate(("05:00.0", "03:00.1"))]
    result = what_if(machine, {"move": [{"device": "0000:01:00", "to": "00:1c.4"}]})
    moved = result["source"]["what_if"]["moved"]
    assert moved == {full(a): full(b) for a, b in (
        ("01:00.0", "07:00.0"), ("02:08.0", "08:08.0"), ("02:10.0", "08:10.0"), ("03:00.0", "09:00.0"),
        ("03:00.1", "09:00.1"), ("04:00.0", "0a:00.0"))}
    assert at(result, "09:00.1")["parent"] == "0000:08:08.0"
    assert at(result, "07:00.0")["bus"] == {"secondary": 8, "subordinate": 10}
    assert at(result, "08:10.0")["bus"] == {"secondary": 10, "subordinate": 10}
    assert at(result, "00:1c.4")["bus"] == {"secondary": 7, "subordinate": 10}
    assert at(result, "0a:00.0")["used_by"][0]["chain"] == ["/", "nvme0n1", "0000:0a:00.0"]
    assert result["host"]["framebuffer"]["function"] == "0000:09:00.0"
    assert [i["function"] for i in result["host"]["network"]["interfaces"]] == addresses("05:00.0 09:00.1")
    assert [f["address"] for f in result["functions"]] == sorted(f["address"] for f in result["functions"])
    # the port without ACS swallows the whole card
    assert len(group_of(result, "09:00.0")) == 7
    held = [{obstacle["code"] for obstacle in at(m, a)["assignment"]["obstacles"]}
            for m, a in ((machine, "03:00.0"), (result, "09:00.0"))]
    assert "VH201" not in held[0] and "VH201" in held[1]


def test_virtual_functions_go_with_their_card_and_are_not_copied():
    machine = with_buses(build(SWITCH), {"00:1c.0": 5, "00:1c.4": 7})
    virtual = copy.deepcopy(at(machine, "05:00.0"))
    virtual.update(address="0000:05:10.0", physfn="0000:05:00.0", id="8086:1520")
    machine["functions"].append(virtual)
    at(machine, "05:00.0")["capabilities"]["sriov"] = {"total_vfs": 7, "num_vfs": 1, "offset": 128, "stride": 4,
                                                       "vf_device": "1520"}
    refresh(machine)
    result = what_if(machine, {"move": [{"device": "05:00", "to": "00:1c.4"}]})
    assert result["source"]["what_if"]["moved"] == {"0000:05:00.0": "0000:07:00.0", "0000:05:10.0": "0000:07:10.0"}
    assert (at(result, "07:10.0")["physfn"], at(result, "07:10.0")["parent"]) == ("0000:07:00.0", "0000:00:1c.4")
    result = what_if(machine, {"add": [{"to": "00:1c.4", "like": "05:00"}]})
    assert [f["id"] for f in result["functions"] if f["parent"] == "0000:00:1c.4"] == ["8086:1521"]
    with pytest.raises(ValueError, match="0000:05:10 is a virtual function, part of the card at 0000:05:00"):
        what_if(machine, {"move": [{"device": "05:10.0", "to": "00:1c.4"}]})


def test_two_cards_change_places():
    machine = with_buses(build(), {"00:1c.5": 3, "00:1c.6": 4})
    result = what_if(machine, {"move": [{"device": "04:00", "to": "05:00.0"}, {"device": "03:00", "to": "00:1c.6"},
                                        {"device": "06:01", "to": "00:1c.5"}]})
    moved = result["source"]["what_if"]["moved"]
    assert moved == {"0000:03:00.0": "0000:04:00.0", "0000:04:00.0": "0000:03:00.0"}
    assert at(result, "03:00.0")["id"] == at(machine, "04:00.0")["id"]
    assert compare(machine, result) == []


def test_a_card_that_is_taken_out():
    machine = build()
    result = what_if(machine, {"remove": ["06:00"]})
    gone = [entry for entry in compare(machine, result) if entry["address"] is None]
    before = addresses("00:1c.7 05:00.0 06:00.0")
    assert gone == [{"address": None, "was": "0000:06:00.0", "before": before, "after": None}]
    assert "0000:06:00.0" not in [f["address"] for f in result["functions"]]
    assert [f for f in what_if(machine, {"remove": ["05:00.0"]})["functions"] if f["address"] >= "0000:05"] == []


def test_a_card_that_is_described():
    machine = build()
    result = what_if(machine, {"remove": ["03:00"], "add": [{"to": "00:1c.5", "functions": [
        {"id": "1002:73bf", "class": "030000", "device_name": "Navi 21"}, {"id": "1002:ab28", "class": "040300"}]}]})
    card = [f for f in result["functions"] if f["parent"] == "0000:00:1c.5"]
    assert [(f["id"], f["class_name"], f["port_type"], f["multifunction"]) for f in card] == [
        ("1002:73bf", "vga", "endpoint", True), ("1002:ab28", "audio", "endpoint", True)]
    assert group_of(result, card[0]["address"]) == [f["address"] for f in card]
    assert group_of(result, card[0]["address"]) and card[0]["confidence"] == "predicted"
    conventional = what_if(machine, {"add": [{"to": "05:00.0", "functions": [{"id": "1102:0004", "class": "040100"}]}]})
    assert group_of(conventional, "06:01.0") == addresses("00:1c.7 05:00.0 06:00.0 06:01.0")


def test_the_override_patch_is_shown_and_not_believed():
    machine = build()
    result = what_if(machine, {"override_acs": ["downstream", "multifunction"]})
    assert group_of(result, "01:00.0") == ["0000:01:00.0"]
    told = next(g for g in result["groups"] if g["members"] == ["0000:01:00.0"])
    assert "nothing verifies" in " ".join(told["reasons"])
    assert at(result, "01:00.0")["group_members"] == ["0000:01:00.0"]
    # what the hardware does has not changed, and plans go by that
    assert result["predicted_groups"] == machine["predicted_groups"]
    assert at(result, "00:01.0")["isolates"] == at(machine, "00:01.0")["isolates"]
    assert "VH140" in {finding["code"] for finding in result["findings"]}
    by_id = what_if(machine, {"override_acs": ["id:8086:0151"]})
    assert group_of(by_id, "01:00.0") == addresses("01:00.0 01:00.1")


def test_another_kernel():
    lines = """
00:14.0 rc_endpoint 8086:06ed usb multi
00:14.3 rc_endpoint 8086:06f0 wireless multi
"""
    machine = build(lines)
    assert group_of(machine, "00:14.3") == ["0000:00:14.3"]
    old = what_if(machine, {"kernel": "5.4"})
    assert group_of(old, "00:14.3") == addresses("00:14.0 00:14.3")
    assert (old["host"]["kernel"]["release"], old["host"]["kernel"]["quirk_table"]) == ("5.4", "5.4")
    assert what_if(machine, {"kernel": "all"})["host"]["kernel"]["quirk_table"] == "all"
    assert group_of(what_if(old, {"kernel": "6.18"}), "00:14.3") == ["0000:00:14.3"]


def test_as_if_the_iommu_were_on():
    machine = build(table=None, cmdline="quiet intel_iommu=off")
    assert {"VH120"} <= {finding["code"] for finding in machine["findings"]}
    result = what_if(machine, {"iommu": True})
    assert (result["host"]["iommu"]["firmware_table"], result["host"]["kernel"]["cmdline"]) == ("DMAR", "quiet")
    assert not {"VH120", "VH122"} & {finding["code"] for finding in result["findings"]}
    assert at(machine, "04:00.0")["assignment"]["verdict"] == "no_iommu"
    assert at(result, "04:00.0")["assignment"]["verdict"] == "assignable"


def test_control_words_of_a_running_iommu_still_count():
    """Firmware that locks ACS off is not forgotten because a card moves."""
    for control, members in ((0, "00:1c.0 02:00.0"), (0x1D, "02:00.0")):
        machine = build("00:1c.0 root_port 1b36:000c pci_bridge acs\n02:00.0 endpoint 10de:1380 vga < 00:1c.0\n"
                        "00:1d.0 root_port 1b36:000c pci_bridge acs", groups="00:1c.0 02:00.0\n00:1d.0")
        at(machine, "00:1c.0")["capabilities"]["acs"]["control"] = control
        assert group_of(what_if(refresh(machine), {"remove": ["00:1d.0"]}), "02:00.0") == addresses(members)


@pytest.mark.parametrize("changes, words", [
    ({"moves": []}, "moves: not known; there are override_acs, "),
    ({"move": {"device": "02:00", "to": "00:1c.5"}}, "move: .* is no list"),
    ({"move": [{"device": "02:00"}]}, r"move\[0\]: .* write a mapping with device and to"),
    ({"move": [{"device": "02:00", "to": "00:1c.6"}]}, r"move\[0\].to: 0000:04:00 is behind port 0000:00:1c.6"),
    ({"move": [{"device": "02:00", "to": "00:1f.2"}]}, r"move\[0\].to: 0000:00:1f.2 is no bridge \(sata\)"),
    ({"move": [{"device": "02:00", "to": "00:1e.0"}]}, r"to: 0000:00:1e.0 is not there; .* such as 0000:00:01.0"),
    ({"move": [{"device": "12:00", "to": "00:1c.5"}]}, r"move\[0\].device: there is nothing in slot 0000:12:00"),
    ({"move": [{"device": "00:02.0", "to": "00:1c.5"}]}, r"move\[0\].device: 0000:00:02 is on a root bus"),
    ({"move": [{"device": "05:00", "to": "05:00.0"}]}, r"move\[0\].to: 0000:05:00.0 is on the card itself"),
    ({"move": [{"device": 3661, "to": "05:00.0"}]}, r"move\[0\].device: 3661 is not text .* quotes"),
    ({"remove": ["gpu"]}, r"remove\[0\]: 'gpu' is not a PCI address"),
    ({"remove": "06:00"}, "remove: '06:00' is no list"),
    ({"kernel": 6.1}, "kernel: 6.1 is not text; put the series in quotes"),
    ({"kernel": "latest"}, "kernel: 'latest' is no kernel; .* like 6.12, or all"),
    ({"iommu": "yes"}, "iommu: 'yes' is neither true nor false"),
    ({"override_acs": ["upstream"]}, "override_acs: 'upstream' is no word"),
    ({"override_acs": ["id:10DE:1380"]}, "override_acs: 'id:10DE:1380' is no word"),
    ({"add": [{"to": "00:1c.5"}]}, r"add\[0\]: .* to and like, or with to and functions, or with port and like"),
    ({"add": [{"to": "00:1c.6", "like": "01:00"}]}, r"add\[0\].to: 0000:04:00 is behind port"),
    ({"add": [{"port": "00:1c.6", "like": "00:1c.5"}]}, r"add\[0\].port: 0000:00:1c.6 is taken"),
    ({"add": [{"port": "07:00.0", "like": "00:1c.5"}]}, r"add\[0\].port: 0000:07:00.0 is on another bus"),
    ({"add": [{"port": "00:1b", "like": "00:1c.5"}]}, r"add\[0\].port: 0000:00:1b is a slot; .* such as 0000:00:1c.1"),
    ({"add": [{"port": "00:01.1", "like": "01:00.0"}]}, r"add\[0\].like: 0000:01:00.0 is no bridge"),
    ({"add": [{"to": "05:00.0", "functions": []}]}, r"add\[0\].functions: \[\] is no list of one to eight"),
    ({"add": [{"to": "05:00.0", "functions": [{"id": "10de:1380"}]}]}, r"\[0\].class: None; write it in quotes"),
    ({"add": [{"to": "05:00.0", "functions": [{"id": "1", "class": "030000"}]}]}, r"\[0\].id: '1'; .*10de"),
    ({"add": [{"to": "05:00.0", "functions": [{"name": "x"}]}]}, r"functions\[0\]: unknown key name"),
])
def test_bad_input_names_value_place_and_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        what_if(build(), changes)


def test_a_document_of_another_schema_is_refused():
    for machine in ({}, {"schema": 1, "functions": []}, []):
        with pytest.raises(ValueError, match="schema"):
            what_if(machine, {})


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_moved_the_tree_stays_one(seed):
    """Random moves, copies and removals: addresses are unique, parents lead up, all are in one group each."""
    choice = random.Random(seed)
    machine = build(choice.choice([SWITCH, None]) or build.__defaults__[0])
    for dummy in range(12):
        slots = [f["address"] for f in machine["functions"] if f["parent"]]
        ports = [f["address"] for f in machine["functions"] if f["is_bridge"]]
        if not slots:
            break
        change = choice.choice([
            {"move": [{"device": choice.choice(slots), "to": choice.choice(ports)}]},
            {"add": [{"to": choice.choice(ports), "like": choice.choice(slots)}]},
            {"remove": [choice.choice(slots)]},
        ])
        try:
            machine, before = what_if(machine, change), machine
        except ValueError:
            continue
        known = {f["address"]: f for f in machine["functions"]}
        assert len(known) == len(machine["functions"])
        assert json.loads(json.dumps(machine)) == machine
        for address, function in known.items():
            chain = [address]
            while function["parent"]:
                assert function["parent"] in known and function["parent"] not in chain
                chain.append(function["parent"])
                assert known[function["parent"]]["is_bridge"]
                function = known[function["parent"]]
        secondaries = [f["bus"]["secondary"] for f in known.values() if f["bus"]]
        assert len(secondaries) == len(set(secondaries))
        members = [a for g in machine["groups"] for a in g["members"]]
        assert sorted(members) == sorted(known)
        compare(before, machine)
