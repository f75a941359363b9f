# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.provisional import predict
from ansible_collections.vfio.host.tests.unit.assignment.machines import P8H67, P8H67_GROUPS, at, build, groups_of

Z97 = """
00:00.0 conventional 8086:0c00 host_bridge
00:01.0 root_port 8086:0c01 pci_bridge multi
00:01.2 root_port 8086:0c09 pci_bridge multi
01:00.0 legacy_endpoint 1002:6798 vga < 00:01.0 multi
01:00.1 endpoint 1002:aaa0 audio < 00:01.0 multi
02:00.0 legacy_endpoint 1002:6798 vga < 00:01.2 multi
02:00.1 endpoint 1002:aaa0 audio < 00:01.2 multi
00:1c.4 root_port 8086:8c98 pci_bridge multi acs
00:1c.7 root_port 8086:8c9e pci_bridge multi acs
07:00.0 upstream_port 1b21:1184 pci_bridge < 00:1c.4
08:01.0 downstream_port 1b21:1184 pci_bridge < 07:00.0
08:07.0 downstream_port 1b21:1184 pci_bridge < 07:00.0
0c:00.0 endpoint 8086:10d3 ethernet < 08:07.0
0d:00.0 endpoint 1b21:0612 sata < 00:1c.7
"""

RYZEN_NO_ACS = """
00:03.0 conventional 1022:1452 host_bridge multi
00:03.1 root_port 1022:1453 pci_bridge multi
00:03.2 root_port 1022:1453 pci_bridge multi
23:00.0 legacy_endpoint 10de:1c03 vga < 00:03.1 multi
23:00.1 endpoint 10de:10f1 audio < 00:03.1 multi
24:00.0 legacy_endpoint 10de:1080 3d < 00:03.2 multi
24:00.1 endpoint 10de:0e09 audio < 00:03.2 multi
00:14.0 conventional 1022:790b smbus multi
00:14.3 conventional 1022:790e isa_bridge multi
"""

B650E = """
00:01.0 conventional 1022:14da host_bridge multi
00:01.1 root_port 1022:14db pci_bridge multi acs
00:02.2 root_port 1022:14db pci_bridge multi acs
01:00.0 upstream_port 1002:1478 pci_bridge < 00:01.1
02:00.0 downstream_port 1002:1479 pci_bridge < 01:00.0 acs
03:00.0 legacy_endpoint 1002:744c vga < 02:00.0 multi acs
03:00.1 endpoint 1002:ab30 audio < 02:00.0 multi acs
05:00.0 upstream_port 1022:43f4 pci_bridge < 00:02.2
06:00.0 downstream_port 1022:43f5 pci_bridge < 05:00.0
06:08.0 downstream_port 1022:43f5 pci_bridge < 05:00.0
07:00.0 endpoint 2646:5013 nvme < 06:00.0
"""


def predicted(text):
    groups, uncertain = predict(build(text))
    assert not uncertain
    return {frozenset(members) for members in groups.values()}


def test_the_how_tos_machine_with_acs_on_the_chipset_ports():
    assert predicted(P8H67) == groups_of(P8H67_GROUPS)


def test_without_acs_the_chipset_ports_and_what_is_behind_them_are_one():
    bare = P8H67.replace(" acs", "")
    assert frozenset(["0000:00:1c.0", "0000:00:1c.5", "0000:00:1c.6", "0000:00:1c.7", "0000:02:00.0", "0000:02:00.1",
                      "0000:03:00.0", "0000:04:00.0", "0000:05:00.0", "0000:06:00.0"]) in predicted(bare)


def test_a_second_cpu_port_joins_the_first_and_switch_ports_take_their_own_child():
    assert predicted(Z97) == groups_of("""
        00:00.0
        00:01.0 00:01.2 01:00.0 01:00.1 02:00.0 02:00.1
        00:1c.4
        00:1c.7
        07:00.0
        08:01.0
        08:07.0 0c:00.0
        0d:00.0
        """)


def test_early_firmware_merges_root_ports_with_the_dummy_host_bridge():
    assert predicted(RYZEN_NO_ACS) == groups_of("""
        00:03.0 00:03.1 00:03.2 23:00.0 23:00.1 24:00.0 24:00.1
        00:14.0 00:14.3
        """)


def test_later_firmware_with_acs_separates_the_cards():
    with_acs = "\n".join(line + " acs" if " root_port " in line else line for line in RYZEN_NO_ACS.splitlines())
    assert predicted(with_acs) == groups_of("""
        00:03.0
        00:03.1
        00:03.2
        23:00.0 23:00.1
        24:00.0 24:00.1
        00:14.0 00:14.3
        """)


def test_a_card_with_its_own_switch_and_acs_on_its_functions():
    assert predicted(B650E) == groups_of("""
        00:01.0
        00:01.1
        00:02.2
        01:00.0
        02:00.0
        03:00.0
        03:00.1
        05:00.0
        06:00.0 07:00.0
        06:08.0
        """)


def test_functions_behind_a_conventional_bridge_share_its_group():
    text = """
    00:1c.7 root_port 8086:1c1e pci_bridge multi acs
    05:00.0 conventional 1b21:1080 pci_bridge < 00:1c.7
    06:00.0 conventional 1102:0002 audio < 05:00.0
    06:01.0 conventional 10ec:8139 ethernet < 05:00.0
    """
    assert predicted(text) == groups_of("00:1c.7\n05:00.0 06:00.0 06:01.0")


@pytest.mark.parametrize("token", ["pci=disable_acs_redir=0000:00:1c.0", "pci=config_acs=0x0@0000:00:1c.0"])
def test_a_command_line_that_edits_acs_counts_as_no_acs(token):
    machine = build(cmdline="quiet " + token)
    assert "0000:04:00.0" in predict(machine)[0]["0000:02:00.0"]


BLIND = {
    "port type": lambda f: f.update(port_type="unknown"),
    "no acs key": lambda f: f.update(capabilities={}),
    "no capabilities": lambda f: f.update(capabilities=None),
    "multifunction": lambda f: f.update(multifunction=None),
    "partial": lambda f: f.update(confidence="partial"),
    "no extended space": lambda f: f["capabilities"].update(complete=False, acs=None),
}


@pytest.mark.parametrize("how", sorted(BLIND))
def test_what_cannot_be_read_isolates_nothing(how):
    machine = build()
    BLIND[how](at(machine, "00:1c.0"))
    groups, uncertain = predict(machine)
    assert uncertain == {"0000:00:1c.0"}
    assert "0000:00:1c.0" in groups["0000:02:00.0"]
    assert groups["0000:01:00.0"] == ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"]


def test_acs_does_not_matter_for_an_endpoint_alone():
    machine = build()
    at(machine, "03:00.0")["capabilities"].update(complete=False)
    assert predict(machine)[1] == set()
    at(machine, "01:00.0")["capabilities"].update(complete=False)
    assert predict(machine)[1] == {"0000:01:00.0"}


def test_functions_of_one_slot_that_may_be_multifunction():
    machine = build("""
    00:03.0 conventional 1022:1452 host_bridge
    00:03.1 root_port 1022:1453 pci_bridge
    23:00.0 endpoint 10de:1c03 vga < 00:03.1
    """)
    for function in machine["functions"][:2]:
        function.update(port_type="unknown", multifunction=None)
    assert predict(machine)[0]["0000:23:00.0"] == ["0000:00:03.0", "0000:00:03.1", "0000:23:00.0"]


def test_an_unreadable_root_port_may_be_a_conventional_bridge():
    # As a PCIe-to-PCI bridge it would make what is behind it its own.
    machine = build()
    at(machine, "05:00.0")["port_type"] = "unknown"
    groups, dummy = predict(machine)
    assert groups["0000:06:00.0"] == ["0000:00:1c.7", "0000:05:00.0", "0000:06:00.0"]


def test_a_whole_document_that_is_not_readable():
    unprivileged = build()
    unprivileged["source"]["privileged"] = False
    assert len(predict(unprivileged)[1]) == len(unprivileged["functions"])
    orphan = build()
    at(orphan, "01:00.0")["parent"] = "0000:00:09.0"
    assert predict(orphan)[1] == {"0000:01:00.0"}
    vmd = build("10000:e1:00.0 endpoint 8086:0a54 nvme")
    assert predict(vmd)[1] == {"10000:e1:00.0"}


def test_less_knowledge_never_makes_a_group_smaller():
    machine = build()
    known, dummy = predict(machine)
    for function in machine["functions"]:
        blind = copy.deepcopy(machine)
        at(blind, function["address"])["port_type"] = "unknown"
        worse, dummy = predict(blind)
        for address, members in known.items():
            assert set(members) <= set(worse[address]), (function["address"], address)


def test_a_loop_of_parents_is_an_error():
    machine = build()
    at(machine, "00:01.0")["parent"] = "0000:01:00.0"
    with pytest.raises(ValueError, match="loop"):
        predict(machine)
