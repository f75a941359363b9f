# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Predicted groups: real machines, the quirk tables, what is not known, and the kernel's own procedure as an oracle."""

from __future__ import annotations

import copy
import random

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, prediction, quirks
from ansible_collections.vfio.host.tests.unit.machines import P8H67, P8H67_GROUPS, at, build, full, function, groups_of

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


def groups(machine, **assumed):
    """``{frozenset of members}`` and the group entries by member."""
    taken = dict(acs.of_machine(machine), **assumed)
    made = prediction.predict(machine["functions"], taken)
    return {frozenset(g["members"]) for g in made}, {a: g for g in made for a in g["members"]}


def predicted(text, **assumed):
    made, entries = groups(build(text), **assumed)
    assert all(g["confidence"] == "predicted" and g["bounds"] is None and g["reasons"] for g in entries.values())
    return made


def test_the_how_tos_machine():
    assert predicted(P8H67) == groups_of(P8H67_GROUPS)


CHIPSET = frozenset(full(a) for a in "00:1c.0 00:1c.5 00:1c.6 00:1c.7 02:00.0 02:00.1 03:00.0 04:00.0 05:00.0 06:00.0".split())


@pytest.mark.parametrize("assumed", [{"rcba": False}, {"kernel": "5.8.0"}, {"kernel": "5.9.16-arch"}])
def test_without_the_quirk_the_chipset_ports_and_what_is_behind_them_are_one(assumed):
    assert CHIPSET in predicted(P8H67, **assumed)


@pytest.mark.parametrize("kernel", ["5.4.0-42-generic", "5.7.19", "5.10.0", "6.1.0", "7.2", None, "all"])
def test_every_other_kernel_arms_the_quirk(kernel):
    assert predicted(P8H67, kernel=kernel) == groups_of(P8H67_GROUPS)


def test_an_unknown_rcba_is_taken_as_enabled_and_said_to_be():
    made, entries = groups(build(P8H67), rcba=None)
    assert made == groups_of(P8H67_GROUPS)
    group = entries["0000:04:00.0"]
    assert group["confidence"] == "partial"
    assert group["bounds"] == {"smallest": [["0000:04:00.0"]], "largest": sorted(CHIPSET)}
    assert "could not be read" in " ".join(group["reasons"])
    assert entries["0000:01:00.0"]["confidence"] == "predicted"


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
    00:1c.7 root_port 8086:1c1e pci_bridge multi
    05:00.0 conventional 1b21:1080 pci_bridge < 00:1c.7
    06:00.0 conventional 1102:0002 audio < 05:00.0
    06:01.0 conventional 10ec:8139 ethernet < 05:00.0
    """
    assert predicted(text) == groups_of("00:1c.7\n05:00.0 06:00.0 06:01.0")


# -- quirk tables ---------------------------------------------------------------------------------

DUAL = """
00:03.0 root_port 8086:2f08 pci_bridge acs
05:00.0 endpoint %s ethernet < 00:03.0 multi
05:00.1 endpoint %s ethernet < 00:03.0 multi
"""
TOGETHER, APART = frozenset(["0000:05:00.0", "0000:05:00.1"]), frozenset(["0000:05:00.0"])


@pytest.mark.parametrize("identifier, kernel, wanted", [
    ("8086:1521", "5.4", APART),       # I350: its vendor vouches
    ("8086:1572", "6.18", TOGETHER),   # X710: nobody does
    ("14e4:16d7", "5.4", TOGETHER),    # Broadcom: since 5.10
    ("14e4:16d7", "5.10", APART),
    ("8088:1001", "6.1", APART),
    ("8088:0200", "6.1", TOGETHER),
])
def test_multifunction_endpoints(identifier, kernel, wanted):
    assert wanted in predicted(DUAL % (identifier, identifier), kernel=kernel)


def test_a_vendor_rule_is_final_over_a_capability():
    machine = build((DUAL % ("8088:0200", "8088:0200")).replace("multi", "multi acs"))
    assert TOGETHER in groups(machine)[0]


RCIEP = """
00:05.0 rc_endpoint 8086:2f28 1080 multi
00:05.1 rc_endpoint 8086:2f29 1080 multi
"""


def test_intels_root_complex_endpoints_are_isolated_since_after_5_4():
    assert len(predicted(RCIEP, kernel="6.1")) == 2
    assert len(predicted(RCIEP, kernel="5.4")) == 1
    assert len(predicted(RCIEP.replace("8086", "1022"), kernel="6.1")) == 1


def test_amds_old_southbridge_needs_an_ivrs_table_and_a_root_bus():
    text = "00:14.0 conventional 1002:4385 smbus multi\n00:14.3 conventional 1002:439d isa_bridge multi"
    assert len(predicted(text, firmware_table="IVRS")) == 2
    assert len(predicted(text, firmware_table="DMAR")) == 1


def test_a_port_with_dword_registers_is_judged_by_its_own_control_word():
    port = at(build("00:1c.0 root_port 8086:a110 pci_bridge multi acs"), "00:1c.0")
    port["capabilities"]["acs"] = {"capability": 0x0F, "control": 0x0D}
    taken = acs.assumptions(iommu_active=True)
    assert acs.judge(port, True, taken)["answer"]
    port["capabilities"]["acs"]["control"] = 0x05
    assert acs.judge(port, True, taken)["by"] == "off"


@pytest.mark.parametrize("identifier, alias", [("1b4b:9230", "05:00.1"), ("1180:e832", None), ("10b5:87b0", "05:00.1")])
def test_a_function_that_makes_requests_as_another(identifier, alias):
    text = """
    00:03.0 root_port 8086:2f08 pci_bridge acs
    05:00.0 endpoint %s sata < 00:03.0 multi acs
    05:00.1 endpoint 1b4b:91a4 sata < 00:03.0 multi acs
    """ % identifier
    assert (frozenset(["0000:05:00.0", full(alias)]) if alias else APART) in predicted(text)


def test_behind_a_vmd_all_is_in_the_group_of_the_endpoint():
    text = """
    00:0e.0 rc_endpoint 8086:467f raid
    10000:e0:06.0 root_port 8086:464d pci_bridge < 00:0e.0 acs
    10000:e1:00.0 endpoint 144d:a808 nvme < 10000:e0:06.0
    """
    assert predicted(text) == {frozenset(["0000:00:0e.0", "10000:e0:06.0", "10000:e1:00.0"])}
    assert len(predicted(text, kernel="5.4")) == 3


def test_the_amd_iommu_itself_is_in_no_group():
    text = "00:00.0 conventional 1022:1480 host_bridge multi\n00:00.2 conventional 1022:1481 iommu multi"
    assert predicted(text) == groups_of("00:00.0")


def test_the_table_of_each_data_set_is_complete():
    assert sum(len(devices) for devices in quirks.INTEL_PCH.values()) == 119
    assert quirks.intel_pch("8086:1c10") == "Cougarpoint" and quirks.intel_pch("8086:244e") is None
    assert quirks.intel_spt("8086:a110") and quirks.intel_spt("8086:a16a") and not quirks.intel_spt("8086:a16b")


# -- what is not known ------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["pci=disable_acs_redir=0000:00:1c.0", "pci=config_acs=0x0@0000:00:1c.0"])
def test_a_command_line_that_edits_acs_counts_as_no_acs(token):
    made, entries = groups(build(P8H67.replace("8086:1c1", "8086:a11").replace("bridge multi", "bridge multi acs"),
                                 cmdline="quiet " + token))
    assert "0000:04:00.0" in entries["0000:02:00.0"]["members"] and entries["0000:02:00.0"]["confidence"] == "partial"


def test_a_control_bit_that_is_off_while_the_iommu_is_on_counts():
    machine = build("00:03.0 root_port 1022:1453 pci_bridge acs\n05:00.0 endpoint 10de:1c03 vga < 00:03.0")
    assert len(groups(machine, iommu_active=False)[0]) == 2
    assert len(groups(machine, iommu_active=True)[0]) == 1  # the document has control 0
    at(machine, "00:03.0")["capabilities"]["acs"]["control"] = 0x1D
    assert len(groups(machine, iommu_active=True)[0]) == 2


BLIND = {
    "port type": lambda f: f.update(port_type="unknown"),
    "no capabilities": lambda f: f.update(capabilities=None),
    "no extended space": lambda f: f["capabilities"].update(complete=False, acs=None),
}
ACS_PORTS = P8H67.replace("8086:1c1", "8086:a33").replace("bridge multi", "bridge multi acs")


@pytest.mark.parametrize("how", sorted(BLIND))
def test_what_cannot_be_read_isolates_nothing_and_the_bounds_say_so(how):
    machine = build(ACS_PORTS)
    BLIND[how](at(machine, "00:1c.0"))
    dummy, entries = groups(machine)
    group = entries["0000:02:00.0"]
    assert "0000:00:1c.0" in group["members"] and group["confidence"] == "partial"
    assert group["bounds"]["smallest"] == [["0000:00:1c.0"], ["0000:02:00.0", "0000:02:00.1"]]
    assert entries["0000:01:00.0"]["confidence"] == "predicted"


def test_acs_does_not_matter_for_an_endpoint_alone():
    machine = build()
    at(machine, "03:00.0")["capabilities"].update(complete=False)
    assert groups(machine)[1]["0000:03:00.0"]["confidence"] == "predicted"
    at(machine, "02:00.0")["capabilities"].update(complete=False)
    assert groups(machine)[1]["0000:02:00.0"]["confidence"] == "partial"


def test_what_the_kernel_does_not_reach_is_not_there_but_a_dump_may_be_short():
    machine = build(ACS_PORTS)
    at(machine, "00:1c.0")["capabilities"].update(complete=False, acs=None)
    at(machine, "00:1c.0")["config_bytes"] = 256
    entry = groups(machine)[1]["0000:02:00.0"]
    assert "0000:00:1c.0" in entry["members"] and entry["confidence"] == "predicted"
    assert groups(machine, sysfs=False)[1]["0000:02:00.0"]["confidence"] == "partial"


@pytest.mark.parametrize("above, kind, joins", [
    ("root_port", "downstream_port", False), ("upstream_port", "downstream_port", True), ("root_port", "upstream_port", False)])
def test_a_port_that_cannot_be_what_it_says_is_an_endpoint_to_the_kernel(above, kind, joins):
    machine = build("""
    00:01.0 %s 8086:a338 pci_bridge acs
    01:00.0 %s 104c:8233 pci_bridge < 00:01.0
    02:00.0 endpoint 144d:a808 nvme < 01:00.0
    """ % (above, kind))
    assert (frozenset(["0000:01:00.0", "0000:02:00.0"]) in groups(machine)[0]) == joins


def test_a_parent_that_is_not_in_the_document_isolates_nothing():
    machine = build()
    for address in ("02:00.0", "03:00.0"):
        at(machine, address)["parent"] = "0000:00:09.0"
    group = groups(machine)[1]["0000:03:00.0"]
    assert group["members"] == ["0000:02:00.0", "0000:02:00.1", "0000:03:00.0"] and group["confidence"] == "partial"
    alone = build()
    at(alone, "03:00.0")["parent"] = "0000:00:09.0"  # what else is behind that bridge, nobody knows
    assert groups(alone)[1]["0000:03:00.0"]["confidence"] == "partial"


def test_less_knowledge_never_makes_a_group_smaller_and_stays_within_the_bounds():
    machine = build(ACS_PORTS)
    known = groups(machine)[1]
    for one in machine["functions"]:
        blind = copy.deepcopy(machine)
        at(blind, one["address"])["port_type"] = "unknown"
        worse = groups(blind)[1]
        for address, group in known.items():
            assert set(group["members"]) <= set(worse[address]["members"]), (one["address"], address)
            bounds = worse[address]["bounds"]
            assert bounds is None or set(group["members"]) <= set(bounds["largest"])


def test_virtual_functions_that_nobody_could_read_are_not_one_multifunction_device():
    machine = build("""
    00:03.0 root_port 8086:2f08 pci_bridge acs
    05:10.0 endpoint 8086:1520 ethernet < 00:03.0
    05:10.2 endpoint 8086:1520 ethernet < 00:03.0
    """)
    for address in ("05:10.0", "05:10.2"):
        at(machine, address).update(port_type="unknown", multifunction=False, physfn="0000:05:00.0")
    assert frozenset(["0000:05:10.0"]) in groups(machine)[0]


def test_a_loop_of_parents_ends():
    machine = build()
    at(machine, "00:01.0")["parent"] = "0000:01:00.0"
    assert groups(machine)[0]


# -- the override patch -----------------------------------------------------------------------------


@pytest.mark.parametrize("words, apart", [
    (("downstream",), True), (("multifunction",), False), (("id:8086:0c01", "id:8086:0c09"), True), ((), False)])
def test_the_override_patch_when_it_is_believed(words, apart):
    made, entries = groups(build(Z97), override_acs=words)
    assert (frozenset([full("01:00.0"), full("01:00.1")]) in made) == apart
    if apart:
        assert "nothing verifies" in " ".join(entries[full("01:00.0")]["reasons"])


def test_the_option_alone_is_never_believed():
    assert groups(build(Z97, cmdline="pcie_acs_override=downstream,multifunction"))[0] == predicted(Z97)


# -- the kernel's procedure -------------------------------------------------------------------------


def kernels_groups(functions, answer):
    """pci_device_group() step by step, in the order in which the kernel probes; ``answer``: address -> bool."""
    by_address = {f["address"]: f for f in functions}
    group_of, numbers = {}, iter(range(10 ** 6))

    def above(address):
        here = by_address[address]["parent"]
        while here:
            yield here
            here = by_address[here]["parent"]

    def path_is_fine(bridge):
        return all(answer[b] for b in [bridge] + list(above(bridge)))

    def alias_group(address, seen):  # get_pci_alias_group()
        if address in seen:
            return None
        seen.add(address)
        if address in group_of:
            return group_of[address]
        for other in partners(address):
            found = alias_group(other, seen)
            found = function_alias_group(other, seen) if found is None else found
            if found is not None:
                return found
        return None

    def function_alias_group(address, seen):  # get_pci_function_alias_group()
        if not by_address[address]["multifunction"] or answer[address]:
            return None
        for other in by_address:
            if other.rpartition(".")[0] == address.rpartition(".")[0] and other != address and not answer[other]:
                found = alias_group(other, seen)
                if found is not None:
                    return found
        return None

    def partners(address):
        bus = address.rpartition(":")[0]
        return [o for o in by_address if o != address and o.rpartition(":")[0] == bus
                and (o in names(address) or address in names(o))]

    def names(address):
        bus = address.rpartition(":")[0]
        return {"%s:%02x.%d" % (bus, n >> 3, n & 7) for n in quirks.aliases(by_address[address])}

    def group(address):
        for bridge in [address] + list(above(address)):
            conventional = by_address[bridge]["port_type"] in ("conventional", "pcie_to_pci")
            if bridge != address and conventional:
                if bridge in group_of:
                    return group_of[bridge]
                address = bridge
        top = address
        for bridge in above(address):
            if path_is_fine(bridge):
                break
            top = bridge
            if top in group_of:
                return group_of[top]
        seen = set()
        found = alias_group(top, seen)
        found = function_alias_group(top, seen) if found is None else found
        return next(numbers) if found is None else found

    for address in by_address:
        group_of[address] = group(address)
    sets = {}
    for address, number in group_of.items():
        sets.setdefault(number, set()).add(address)
    return {frozenset(s) for s in sets.values()}


def random_machine(rng):
    """A random tree in probe order: bridges before what is behind them."""
    lines, buses = [], [(None, 0, "root")]
    number = 0
    while buses and number < 12:
        parent, bus, kind = buses.pop(0)
        for slot in range(rng.randint(1, 4) if kind != "port" else 1):
            width = rng.choice([1, 1, 2, 4])
            for part in range(width):
                address = "%02x:%02x.%d" % (bus, slot, part)
                bridge = rng.random() < (0.6 if parent is None else 0.3)
                if kind in ("root",):
                    port = rng.choice(["root_port", "root_port", "conventional"]) if bridge else rng.choice(
                        ["rc_endpoint", "conventional"])
                elif kind == "switch":
                    bridge, port = True, "downstream_port"
                elif kind == "conventional":
                    port = "conventional"
                else:
                    port = rng.choice(["upstream_port", "pcie_to_pci", "conventional"]) if bridge else "endpoint"
                ids = rng.choice(["1022:1483", "8086:a338", "1b21:1184", "8086:1521", "10de:1c03", "1b4b:9230"])
                words = (" multi" if width > 1 else "") + (" acs" if rng.random() < 0.5 and port != "conventional" else "")
                lines.append("%s %s %s %s%s%s" % (address, port, ids, "pci_bridge" if bridge else "ethernet",
                                                  " < " + parent if parent else "", words))
                if bridge:
                    number += 1
                    behind = {"upstream_port": "switch", "root_port": "port", "downstream_port": "port"}.get(port, "conventional")
                    buses.append((address, number, behind))
    return [function(line) for line in lines]


@pytest.mark.parametrize("seed", range(300))
def test_the_same_groups_as_the_kernels_own_procedure(seed):
    functions = random_machine(random.Random(seed))
    made = prediction.predict(functions, acs.assumptions(kernel="6.1"))
    answer = {f["address"]: f["isolates"]["answer"] for f in functions}
    assert {frozenset(g["members"]) for g in made} == kernels_groups(functions, answer)
