# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VH1xx: each on a machine that has it, and on the same machine with one fact changed."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings.rules import RULES, evaluate
from ansible_collections.vfio.host.tests.unit.machines import (
    P8H67, P8H67_GROUPS, at, build, full, p8h67_on, refresh)

SWITCH = """
00:1c.0 root_port 8086:a338 pci_bridge acs
07:00.0 upstream_port 1b21:1184 pci_bridge < 00:1c.0
08:01.0 downstream_port 1b21:1184 pci_bridge < 07:00.0
08:03.0 downstream_port 1b21:1184 pci_bridge < 07:00.0
0c:00.0 endpoint 8086:10d3 ethernet < 08:03.0
"""
TWO_CARDS = """
00:01.0 root_port 8086:0c01 pci_bridge multi
00:01.1 root_port 8086:0c05 pci_bridge multi
01:00.0 endpoint 10de:1380 vga < 00:01.0
02:00.0 endpoint 1002:6798 vga < 00:01.1
"""
AMD = """
00:01.0 conventional 1022:1482 host_bridge multi
00:01.1 root_port 1022:1483 pci_bridge multi
01:00.0 endpoint 144d:a808 nvme < 00:01.1
"""
CARD = """
00:01.0 root_port 8086:2f02 pci_bridge acs
01:00.0 endpoint 10de:1380 vga < 00:01.0 multi acs
01:00.1 endpoint 10de:0fbc audio < 00:01.0 multi acs
"""
CONVENTIONAL = P8H67 + "06:01.0 conventional 10ec:8139 ethernet < 05:00.0\n"
ALIAS = """
00:1c.0 root_port 8086:a338 pci_bridge acs
05:00.0 endpoint 1b4b:9230 sata < 00:1c.0 multi acs
05:00.1 endpoint 1b4b:91a4 sata < 00:1c.0 multi acs
"""
RCIEP = "00:05.0 rc_endpoint 8086:2f28 1080 multi\n00:05.1 rc_endpoint 8086:2f29 1080 multi\n"


def iommu(machine, **values):
    machine["host"]["iommu"].update(values)
    return refresh(machine)


def kernel(machine, **values):
    machine["host"]["kernel"].update(values)
    return refresh(machine)


def without(machine, address):
    at(machine, address).update(group=None, group_members=[], confidence="unknown")
    for group in machine["groups"]:
        group["members"] = [a for a in group["members"] if a != full(address)]
    return refresh(machine)


def torn(text, groups, option=None):
    """The kernel's groups as given, whatever the ports say; with the override patch's option."""
    return kernel(build(text, groups=groups), acs_override=option)


def before(machine, groups=None, functions=None):
    """The last run found other groups or functions."""
    found = {f["address"]: {"id": f["id"], "subsystem": "", "class": f["class"], "serial": None} for f in machine["functions"]}
    found.update(functions or {})
    found = {address: item for address, item in found.items() if item}
    machine["host"]["previous"] = {
        "functions": found, "groups": groups or [group["members"] for group in machine["groups"]]}
    return refresh(machine)


def asked(machine, address, identifier="10de:1380", serial=None):
    vendor, device = identifier.split(":")
    machine["host"]["requested"] = [{
        "address": full(address), "vendor": vendor, "device": device, "subsystem_vendor": "1043",
        "subsystem_device": "84bb", "serial": serial, "driver": "vfio-pci"}]
    return refresh(machine)


SPLIT = "00:01.0\n00:01.1\n01:00.0\n02:00.0"
TOGETHER = "00:01.0 00:01.1 01:00.0 02:00.0"

CASES = [
    # code, machine that has it, machine that has not
    ("VH103", build(SWITCH), build(SWITCH.replace("pci_bridge < 07:00.0", "pci_bridge < 07:00.0 acs"))),
    ("VH103", build(SWITCH), build(SWITCH.rsplit("\n", 2)[0])),  # nothing behind it
    ("VH104", build(TWO_CARDS), build(TWO_CARDS.replace("pci_bridge multi", "pci_bridge multi acs"))),
    ("VH104", build(TWO_CARDS), build(TWO_CARDS.rsplit("\n", 2)[0])),  # one card
    ("VH105", build(), iommu(build(), rcba=False)),
    ("VH106", iommu(build(P8H67.replace("8086:244e", "8086:1c1e")), rcba=False), build(P8H67.replace("8086:244e", "8086:1c1e"))),
    ("VH106", kernel(build(P8H67.replace("8086:244e", "8086:1c1e")), release="5.9.1"), build(P8H67.replace("8086:244e", "8086:1c1e"))),
    ("VH106", build(), build(P8H67.replace("8086:244e", "8086:1c1e"))),
    ("VH107", build(CARD), build(CARD.replace(" multi acs", " multi"))),
    ("VH107", build(CARD), build(CARD.replace(" vga", " ethernet").replace(" audio", " ethernet"))),
    ("VH108", torn(TWO_CARDS, SPLIT), torn(TWO_CARDS, TOGETHER)),
    ("VH109", kernel(build(RCIEP), release="5.4.0", quirk_table="5.4"), kernel(build(RCIEP), release="5.10.0", quirk_table="5.10")),
    ("VH112", without(p8h67_on(), "03:00.0"), p8h67_on()),
    ("VH112", without(p8h67_on(), "03:00.0"), without(p8h67_on(), "00:00.0")),  # nobody wants a host bridge
    ("VH113", build(CONVENTIONAL), build()),
    ("VH114", build(ALIAS), build(ALIAS.replace("9230", "91a4"))),
    ("VH115", build(), build(P8H67.replace("8086:0151 pci_bridge", "8086:0151 pci_bridge acs").replace("8086:244e", "8086:1c1e"))),
    ("VH116", build(AMD, table="IVRS"), build(AMD.replace("pci_bridge multi", "pci_bridge multi acs"), table="IVRS")),
    ("VH116", build(AMD, table="IVRS"), build(AMD.replace("1022", "8086"), table="DMAR")),
    ("VH120", build(table=None), build()),
    ("VH121", build(), p8h67_on()),
    ("VH121", build(), build(cmdline="iommu=off")),
    ("VH122", build(cmdline="iommu=off"), build(cmdline="intel_iommu=off")),
    ("VH122", build(table="IVRS", cmdline="amd_iommu=off"), build(cmdline="amd_iommu=off")),
    ("VH123", iommu(build(table=None), units=["smmu3.0x1"]), build(table=None)),
    ("VH124", iommu(p8h67_on(), interrupt_remapping=False), p8h67_on()),
    ("VH124", iommu(p8h67_on(), interrupt_remapping=False), iommu(p8h67_on(), interrupt_remapping=None)),
    ("VH124", iommu(p8h67_on(), interrupt_remapping=False), iommu(p8h67_on(), interrupt_remapping=False, unsafe_interrupts=True)),
    ("VH124", iommu(p8h67_on(), interrupt_remapping=False), iommu(build(), interrupt_remapping=False)),
    ("VH125", iommu(p8h67_on(), unsafe_interrupts=True), p8h67_on()),
    ("VH122", build(table="IVRS", cmdline="amd_iommu=fullflush,off"), build(table="IVRS", cmdline="amd_iommu=fullflush")),
    ("VH126", build(cmdline="intremap=off"), build(cmdline="intremap=off intremap=on")),
    ("VH126", build(cmdline="nointremap"), build(cmdline="intremap=nosid")),
    ("VH126", build(cmdline="intremap=off"), iommu(build(cmdline="intremap=off"), unsafe_interrupts=True)),
    ("VH126", build(cmdline="intremap=off"), build(groups=P8H67_GROUPS, cmdline="intremap=off")),
    ("VH127", build(cmdline="intel_iommu=on"), build()),
    ("VH127", build(cmdline="intel_iommu=on"), p8h67_on()),
    ("VH127", kernel(build(), config={"INTEL_IOMMU_DEFAULT_ON": "y"}), kernel(build(), config={"INTEL_IOMMU_DEFAULT_ON": "n"})),
    ("VH127", kernel(build(), config={"INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF": "y"}),
     kernel(build(cmdline="intel_iommu=off"), config={"INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF": "y"})),
    ("VH127", kernel(build(table="IVRS"), config={"AMD_IOMMU": "y"}),
     kernel(build(table="IVRS", cmdline="amd_iommu=off"), config={"AMD_IOMMU": "y"})),
    ("VH121", build(), build(cmdline="intel_iommu=on")),
    ("VH140", kernel(p8h67_on(), acs_override="downstream"), p8h67_on()),
    ("VH141", torn(TWO_CARDS, SPLIT, "downstream,multifunction"), torn(TWO_CARDS, SPLIT)),
    ("VH141", torn(TWO_CARDS, SPLIT, "downstream"), torn(TWO_CARDS, TOGETHER, "downstream")),  # the kernel has no patch
    ("VH150", before(p8h67_on(), groups=[["0000:01:00.0"]]), before(p8h67_on())),
    ("VH150", before(p8h67_on(), groups=[["0000:01:00.0"]]), before(build(), groups=[["0000:01:00.0"]])),  # predicted
    ("VH151", asked(build(), "07:00.0"), asked(build(), "01:00.0")),
    ("VH151", asked(build(), "01:00.0", "10de:9999"), asked(build(), "01:00.0")),
    ("VH151", asked(build(), "01:00.0", serial="00-11-22-33-44-55-66-77"), asked(build(), "01:00.0")),
    ("VH152", before(build(), functions={"0000:09:00.0": {"id": "8086:10d3"}}), before(build())),
    ("VH152", before(build(), functions={"0000:04:00.0": None}), before(build())),
    ("VH152", before(build(), functions={"0000:04:00.0": {"id": "8086:10d3"}}), before(build())),
]


def codes(machine):
    return [f["code"] for f in evaluate(machine)]


@pytest.mark.parametrize("code, has, has_not", CASES, ids=["%s-%d" % (c[0], n) for n, c in enumerate(CASES)])
def test_the_one_has_it_and_the_other_has_not(code, has, has_not):
    assert code in codes(has)
    assert code not in codes(has_not)
    found = next(f for f in evaluate(has) if f["code"] == code)
    assert found["evidence"] and all(isinstance(fact, str) and fact for fact in found["evidence"])


def test_every_rule_with_a_check_is_among_the_cases():
    checked = {code for code, entry in RULES.items() if code.startswith("VH1") and entry["check"]} - {"VH130", "VH132"}
    assert checked == {case[0] for case in CASES}


def evidence(machine, code):
    return " ".join(fact for f in evaluate(machine) if f["code"] == code for fact in f["evidence"])


def test_evidence_names_who_is_meant():
    assert "0000:01:00.0" in evidence(build(TWO_CARDS), "VH104") and "0000:02:00.0" in evidence(build(TWO_CARDS), "VH104")
    assert "0000:08:01.0, 0000:08:03.0" in evidence(build(SWITCH), "VH103")
    assert "0000:0c:00.0 8086:10d3 ethernet" in evidence(build(SWITCH), "VH103")
    assert "any port of 0000:00:01" in evidence(build(), "VH115")
    assert "the same device is at 0000:01:00.0" in evidence(asked(build(), "07:00.0"), "VH151")
    assert "0000:02:00.0" in evidence(torn(TWO_CARDS, SPLIT, "downstream"), "VH141")


def test_a_card_that_moved_is_reported_at_each_twin():
    """One of them may be the host's own display, and the plan shows findings of its own devices only."""
    machine = build(TWO_CARDS)
    twins = [full("01:00.0"), full("02:00.0")]
    for function in machine["functions"]:
        if function["address"] in twins:
            function.update(vendor="10de", device="1380", subsystem_vendor="1043", subsystem_device="84bb")
    found = [f["device"] for f in evaluate(asked(machine, "07:00.0")) if f["code"] == "VH151"]
    assert found == twins


def test_a_group_within_the_bounds_of_a_partial_prediction_is_no_disagreement():
    machine = iommu(p8h67_on(), rcba=None)
    assert "VH108" not in codes(machine)
    at(machine, "00:1c.5")["port_type"] = "unknown"
    assert "VH108" not in codes(refresh(machine))


def test_a_function_that_no_iommu_covers_is_no_disagreement():
    groups = P8H67_GROUPS.replace("00:1f.0 00:1f.2 00:1f.3", "00:1f.2 00:1f.3")
    assert "VH108" not in codes(build(groups=groups))


def test_a_hundred_functions_are_named_by_ten():
    text = "".join("00:%02x.%d root_port 1022:1483 pci_bridge multi\n%02x:00.0 endpoint 144d:a808 nvme < 00:%02x.%d\n"
                   % (1 + n // 8, n % 8, n + 1, 1 + n // 8, n % 8) for n in range(100))
    assert "and 90 more" in evidence(build(text, table="IVRS"), "VH116")


def test_the_checks_change_nothing():
    machine = torn(TWO_CARDS, SPLIT, "downstream")
    copied = copy.deepcopy(machine)
    evaluate(machine)
    assert machine == copied


def test_an_override_without_effect_is_said():
    words = "no group is smaller than without it: this kernel seems to lack the patch"
    assert words in evidence(torn(TWO_CARDS, TOGETHER, "downstream"), "VH140")
    assert words not in evidence(torn(TWO_CARDS, SPLIT, "downstream"), "VH140")
    assert words not in evidence(kernel(build(TWO_CARDS), acs_override="downstream"), "VH140")
