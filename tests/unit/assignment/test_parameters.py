# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters: each rule on a machine that has what it is about, and on one that has not."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.isolated_cpus import parse, show
from ansible_collections.vfio.host.plugins.module_utils._assignment.parameters import (
    OPTIONS, iommu_parameters, kernel_parameters)
from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.module_utils._assignment.report import report
from ansible_collections.vfio.host.plugins.module_utils._assignment.verify import verify
from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.machines import build, full, p8h67_on, refresh

GIB = 2**30
ON = {"INTEL_IOMMU_DEFAULT_ON": "y", "INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF": "n", "INTEL_IOMMU": "y", "VFIO_PCI": "m"}
DEBIAN = {"INTEL_IOMMU_DEFAULT_ON": "n", "INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF": "y", "INTEL_IOMMU": "y", "VFIO_PCI": "m"}
OFF = {"INTEL_IOMMU_DEFAULT_ON": "n", "INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF": "n", "INTEL_IOMMU": "y", "VFIO_PCI": "m"}
IGPU = full("00:02.0")
CARD = full("01:00.0")
ACKNOWLEDGED = [{"code": "VH142", "host": "acs_override"}]


def machine(config=None, cmdline="quiet", table="DMAR", release="6.1.0-28-amd64", nodes=1, **more):
    made = build(table=table, cmdline=cmdline)
    made["host"]["kernel"].update(config=config, release=release, **more)
    if nodes > 1:
        made["host"]["numa"] = [{"node": n, "cpus": 4, "memory": (16 << 30) // nodes, "distances": {}}
                                for n in range(nodes)]
    return made


def wanted(made, functions=(), **options):
    found = kernel_parameters(made, options, functions)
    assert found["problems"] == []
    return found["parameters"]


def problem(made, code="VH320", functions=(), **options):
    """The text of the problems of a kind, which must be the only kind."""
    found = kernel_parameters(made, options, functions)["problems"]
    assert {entry["code"] for entry in found} == {code}
    return "\n".join(entry["text"] for entry in found)


def notes(made, functions=(), **options):
    return "\n".join(kernel_parameters(made, options, functions)["notes"])


# -- the IOMMU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config, cmdline, functions, expected", [
    (OFF, "quiet", (), ["intel_iommu=on"]),
    (None, "quiet", (), ["intel_iommu=on"]),
    (ON, "quiet", (), []),
    (ON, "quiet intel_iommu=on", (), []),
    (ON, "quiet intel_iommu=off", (), ["intel_iommu=on"]),
    (ON, "quiet intel_iommu=sm_on,off", (), ["intel_iommu=on"]),
    (ON, "quiet intel_iommu=off intel_iommu=on", (), ["intel_iommu=on"]),  # as it is after our own
    (ON, "quiet intel_iommu=sm_off", (), []),
    (ON, "quiet -- intel_iommu=off", (), []),  # init's, not the kernel's
    (DEBIAN, "quiet", (), []),
    (DEBIAN, "quiet", (CARD,), []),
    (DEBIAN, "quiet", (IGPU,), ["intel_iommu=on"]),
    (DEBIAN, "quiet intel_iommu=off", (), ["intel_iommu=on"]),
    (ON, "quiet", (IGPU,), []),
    (ON, "quiet intel_iommu=intgpu_off", (IGPU,), ["intel_iommu=on"]),
    (ON, "quiet intel_iommu=intgpu_off", (CARD,), []),
])
def test_an_intel_iommu_is_asked_for_only_where_that_is_needed(config, cmdline, functions, expected):
    assert wanted(machine(config, cmdline), functions) == expected
    if IGPU not in functions:
        assert iommu_parameters(machine(config, cmdline)) == expected


@pytest.mark.parametrize("config", [ON, DEBIAN, OFF, None])
def test_the_answer_is_the_same_after_the_reboot(config):
    before = machine(config)
    after = p8h67_on()
    after["host"]["kernel"].update(config=config, cmdline=" ".join(["quiet"] + iommu_parameters(before)))
    assert iommu_parameters(after) == iommu_parameters(before)


@pytest.mark.parametrize("cmdline", ["quiet", "quiet amd_iommu=on", "quiet iommu=pt"])
@pytest.mark.parametrize("config", [None, {"AMD_IOMMU": "y"}])
def test_an_amd_iommu_is_never_asked_for(cmdline, config):
    assert wanted(machine(config, cmdline, table="IVRS")) == iommu_parameters(machine(config, table="IVRS")) == []


@pytest.mark.parametrize("functions", [(), (CARD,), (IGPU,)])
@pytest.mark.parametrize("table", ["DMAR", "IVRS"])
@pytest.mark.parametrize("config", [None, ON, OFF, DEBIAN])
def test_no_answer_ever_has_amd_iommu(table, config, functions):
    every = {"passthrough": True, "hugepages": [{"count": 1, "size": "1GiB"}], "isolated_cpus": "1"}
    assert not [token for token in wanted(machine(config, table=table), functions, **every)
                if tokens.key(token) == "amd_iommu"]


def test_amd_iommu_on_by_hand_is_refused():
    text = problem(machine(table="IVRS"), parameters=["amd_iommu=on"])
    assert "amd_iommu=on: the kernel knows no such value" in text
    assert wanted(machine(table="IVRS"), parameters=["amd_iommu=pgtbl_v2"]) == ["amd_iommu=pgtbl_v2"]


@pytest.mark.parametrize("table, cmdline, token", [
    ("IVRS", "quiet amd_iommu=off", "amd_iommu=off"), ("IVRS", "iommu=off", "iommu=off"),
    ("DMAR", "iommu=pt,off", "iommu=pt,off"), ("DMAR", "iommu=off iommu=force", "iommu=off"),
])
def test_what_turns_it_off_for_good_is_for_its_owner_to_remove(table, cmdline, token):
    text = problem(machine(OFF, cmdline, table), "VH122")
    assert text.startswith(token + " turns the IOMMU off, and no other parameter turns it on again")
    assert ("amd_iommu=on is no value" in text) == ("amd" in token)
    with pytest.raises(ValueError, match="no other parameter turns it on again"):
        iommu_parameters(machine(OFF, cmdline, table))


@pytest.mark.parametrize("table, cmdline", [("DMAR", "amd_iommu=off"), ("IVRS", "intel_iommu=off"), ("DMAR", "iommu=pt")])
def test_words_for_another_machine_turn_nothing_off(table, cmdline):
    wanted(machine(OFF, cmdline, table))


@pytest.mark.parametrize("cmdline, off", [
    ("intremap=off", True), ("nointremap", True), ("intremap=on,off", True), ("intremap=off intremap=on", False),
    ("intremap=nosid", False), ("intremap=on", False),
])
def test_interrupts_have_to_be_remapped(cmdline, off):
    for table in ("DMAR", "IVRS"):
        made = machine(OFF, cmdline, table)
        if off:
            assert "turns the remapping of interrupts off" in problem(made, "VH126")
            made["host"]["iommu"]["unsafe_interrupts"] = True
        wanted(made)


def test_no_table_no_parameter():
    assert "no kernel parameter helps" in problem(machine(table=None), "VH120")
    with pytest.raises(ValueError, match="firmware"):
        iommu_parameters(machine(table=None))
    assert wanted(machine(table=None), iommu=False) == []


def test_an_smmu_needs_none():
    made = p8h67_on(table=None)
    made["host"]["iommu"].update(vendor="arm", units=["smmu3.0x1"])
    made["host"]["kernel"]["machine"] = "aarch64"
    assert wanted(made) == iommu_parameters(made) == []
    assert wanted(made, passthrough=True) == ["iommu.passthrough=1"]


@pytest.mark.parametrize("table, option", [("DMAR", "INTEL_IOMMU"), ("IVRS", "AMD_IOMMU")])
def test_a_kernel_without_the_driver(table, option):
    assert "without CONFIG_%s" % option in problem(machine({option: "n"}, table=table))
    wanted(machine({option: "y"}, table=table))


def test_igfx_off_is_noted_and_refused_where_it_matters():
    made = machine(OFF, "intel_iommu=igfx_off")
    assert "these cannot be assigned" in notes(made, [CARD]) and wanted(made, [CARD]) == ["intel_iommu=on"]
    assert "igfx_off keeps the graphics" in problem(made, functions=[IGPU])
    assert "igfx_off" not in notes(machine(OFF), [IGPU])


@pytest.mark.parametrize("made, words", [
    (machine(ON, "intel_iommu=off"), "A later intel_iommu=on outweighs it"),
    (machine(ON), "on by itself: intel_iommu=on is not needed"),
    (machine(DEBIAN), "apart from the graphics of Intel"),
    (machine(None), "its configuration cannot be read"),
])
def test_what_is_worth_knowing(made, words):
    assert words in notes(made)
    assert words not in notes(machine(OFF))


# -- passthrough -------------------------------------------------------------------------------


def test_passthrough():
    assert wanted(machine(OFF), passthrough=True) == ["intel_iommu=on", "iommu=pt"]
    assert wanted(machine(OFF)) == ["intel_iommu=on"]
    assert wanted(machine(table="IVRS"), passthrough=True) == ["iommu=pt"]
    assert "groups do not change" in notes(machine(OFF), passthrough=True)


def test_passthrough_that_the_kernel_does_by_itself():
    does = dict(ON, IOMMU_DEFAULT_PASSTHROUGH="y")
    assert wanted(machine(does), passthrough=True) == []
    assert wanted(machine(does, "iommu=nopt"), passthrough=True) == ["iommu=pt"]
    assert wanted(machine(does, "iommu.passthrough=0"), passthrough=True) == ["iommu=pt"]
    assert wanted(machine(dict(ON, IOMMU_DEFAULT_PASSTHROUGH="n")), passthrough=True) == ["iommu=pt"]


@pytest.mark.parametrize("cmdline, noted", [
    ("iommu=pt", True), ("iommu=soft,pt", True), ("iommu.passthrough=1", True), ("iommu=nopt", False),
    ("iommu.passthrough=0", False)])
def test_passthrough_of_others_is_noted_and_changes_nothing(cmdline, noted):
    assert ("neither needs it nor minds it" in notes(machine(OFF, cmdline))) is noted
    assert "neither needs" not in notes(machine(OFF, cmdline), passthrough=True)
    assert wanted(machine(OFF, cmdline)) == ["intel_iommu=on"]


# -- huge pages --------------------------------------------------------------------------------


def pages(made, *entries, **more):
    return wanted(made, iommu=False, hugepages=list(entries), **more)


def unfit(made, *entries, **more):
    return problem(made, iommu=False, hugepages=list(entries), **more)


ONE = {"size": "1GiB", "count": 4}


def test_pages_of_1_gib_are_reserved_at_boot_and_others_at_run_time():
    assert pages(machine(), ONE) == ["hugepagesz=1G", "hugepages=4"]
    assert pages(machine(), {"count": 512}) == []
    found = kernel_parameters(machine(), {"hugepages": [ONE, {"count": 512}, {"size": "4MiB", "count": 1}]})
    assert found["hugepages"] == [{"size": 2**21, "node": None, "count": 512}, {"size": 2**22, "node": None, "count": 1}]
    assert pages(machine(), {"size": "1GiB", "count": 0}) == []


def test_digits_that_a_template_made_are_numbers():
    assert pages(machine(nodes=2), {"size": "1GiB", "count": "4", "node": "1"}) == ["hugepagesz=1G", "hugepages=1:4"]
    with pytest.raises(ValueError, match="count: 'four' is not a number"):
        pages(machine(), {"count": "four"})


def test_the_default_size_only_when_asked_for():
    assert pages(machine(), ONE, default_hugepage_size="1GiB") == ["default_hugepagesz=1G", "hugepagesz=1G", "hugepages=4"]
    assert pages(machine(), default_hugepage_size="2MiB") == ["default_hugepagesz=2M"]
    assert "Pages of 3 MiB" in unfit(machine(), default_hugepage_size="3MiB")


def test_by_numa_node():
    two = machine(nodes=2)
    entries = [{"size": "1GiB", "count": 4, "node": 1}, {"size": "1GiB", "count": 2, "node": 0}]
    assert pages(two, *entries) == ["hugepagesz=1G", "hugepages=0:2,1:4"]
    assert "spread over all NUMA nodes" in notes(two, hugepages=[ONE])
    assert "spread over" not in notes(machine(), hugepages=[ONE]) + notes(two, hugepages=entries)


@pytest.mark.parametrize("release, works", [
    ("5.15.0-91-generic", False), ("5.16.0", True), ("6.1.0", True), ("4.18.0-553.el8", False), (None, False)])
def test_by_node_since_linux_5_16(release, works):
    made = machine(nodes=2, release=release)
    entry = {"size": "1GiB", "count": 2, "node": 0}
    if works:
        assert pages(made, entry) == ["hugepagesz=1G", "hugepages=0:2"]
    else:
        assert "need Linux 5.16" in unfit(made, entry) and "give a total without a node" in unfit(made, entry)
        assert pages(made, ONE) == ["hugepagesz=1G", "hugepages=4"]


def test_a_node_that_is_not_there_or_too_small():
    assert "no NUMA node 2; there are: 0, 1" in unfit(machine(nodes=2), {"size": "1GiB", "count": 1, "node": 2})
    text = unfit(machine(nodes=2), {"size": "1GiB", "count": 9, "node": 1})
    assert "9 pages of 1 GiB are 9216 MiB, and NUMA node 1 has 8192 MiB" in text
    assert pages(machine(nodes=2), {"size": "1GiB", "count": 8, "node": 1})


@pytest.mark.parametrize("gigantic, pools, works", [
    (True, [], True), (False, [], False), (None, [], False), (None, [{"size": GIB, "total": 0, "free": 0}], True)])
def test_the_cpu_must_know_pages_of_1_gib(gigantic, pools, works):
    made = machine()
    made["host"]["cpu"]["gigantic_pages"] = gigantic
    made["host"]["memory"]["hugepages"] = pools
    if works:
        assert pages(made, ONE)
    else:
        assert "Pages of 1 GiB: this machine does not have them" in unfit(made, ONE)
        assert ("no pdpe1gb in /proc/cpuinfo" in unfit(made, ONE)) == (gigantic is False)
        assert pages(made, {"count": 4}) == []


def test_the_host_keeps_its_reserve():
    assert pages(machine(), {"size": "1GiB", "count": 15})
    text = unfit(machine(), {"size": "1GiB", "count": 15}, host_reserve="2GiB")
    assert "take 15360 MiB, and 2048 MiB are reserved for the host: 17408 MiB of 16384 MiB" in text
    assert "take 16384 MiB" in unfit(machine(), {"size": "1GiB", "count": 14}, {"count": 1024})
    made = machine()
    made["host"]["memory"]["hugepages"] = [{"size": 2**21, "total": 1024, "free": 0}]
    assert "other pools 2048 MiB" in unfit(made, {"size": "1GiB", "count": 14})
    made["host"]["memory"]["total"] = None
    assert "unknown" in unfit(made, ONE)


def test_a_kernel_without_huge_pages():
    assert "CONFIG_HUGETLBFS" in unfit(machine({"HUGETLBFS": "n"}), ONE)
    assert pages(machine({"HUGETLBFS": "y"}), ONE)


@pytest.mark.parametrize("cmdline, said", [
    ("hugepagesz=1G hugepages=2", True), ("hugepagesz=1G hugepages=4", False), ("hugepagesz=2M hugepages=2", False),
    ("hugepages=2", False), ("default_hugepagesz=1G hugepages=2", True)])
def test_another_count_on_the_running_line_is_noted(cmdline, said):
    assert ("the kernel takes the first" in notes(machine(cmdline=cmdline), iommu=False, hugepages=[ONE])) is said


# -- CPUs --------------------------------------------------------------------------------------


def test_isolated_cpus():
    assert wanted(machine(), iommu=False, isolated_cpus="1-3,5-7") == ["isolcpus=1-3,5-7"]
    assert wanted(machine(), iommu=False, isolated_cpus="7, 3", isolated_flags=["managed_irq", "domain"], nohz_full=True,
                  rcu_nocbs=True) == ["isolcpus=domain,managed_irq,3,7", "nohz_full=3,7", "rcu_nocbs=3,7"]
    assert wanted(machine(), iommu=False) == wanted(machine(), iommu=False, isolated_cpus="") == []
    assert "The host keeps CPU 0-2,4-6." in notes(machine(), isolated_cpus="3,7")


@pytest.mark.parametrize("cpus, words", [
    ("1-8", "There is no CPU 8; there are 0-7"), ("0-3", "CPU 0 and the other threads of its core (0,4)"),
    ("1-7", "has 4: CPU 0"), ("4", "has 4: CPU 0"),
])
def test_cpus_that_cannot_be_isolated(cpus, words):
    assert words in problem(machine(), iommu=False, isolated_cpus=cpus)


def test_unknown_cores_refuse():
    made = machine()
    made["host"]["cpu"]["threads"] = None
    assert "not known" in problem(made, iommu=False, isolated_cpus="1")
    del made["host"]["cpu"]["threads"]  # a document of an earlier version
    assert "not known" in problem(made, iommu=False, isolated_cpus="1")


def test_half_a_core_is_noted():
    assert "both sides (1,5)" in notes(machine(), isolated_cpus="1,2,6")
    assert "both sides" not in notes(machine(), isolated_cpus="1,5")


def test_flags_without_domain_are_noted():
    assert "without domain" in notes(machine(), isolated_cpus="1,5", isolated_flags=["managed_irq"])
    assert "without domain" not in notes(machine(), isolated_cpus="1,5", isolated_flags=["managed_irq", "domain"])


@pytest.mark.parametrize("option, more", [
    ("CPU_ISOLATION", {}), ("NO_HZ_FULL", {"nohz_full": True}), ("RCU_NOCB_CPU", {"rcu_nocbs": True})])
def test_what_the_kernel_was_built_without(option, more):
    assert "without CONFIG_" + option in problem(machine({option: "n"}), iommu=False, isolated_cpus="1", **more)
    wanted(machine({option: "y"}), iommu=False, isolated_cpus="1", **more)
    if more:
        wanted(machine({option: "n"}), iommu=False, isolated_cpus="1")


def test_managed_interrupts_since_5_6():
    more = {"iommu": False, "isolated_cpus": "1", "isolated_flags": ["managed_irq"]}
    assert "needs Linux 5.6" in problem(machine(release="5.4.0"), **more)
    assert wanted(machine(release="5.6.0"), **more)


@pytest.mark.parametrize("more", [{"nohz_full": True}, {"rcu_nocbs": True}, {"isolated_flags": ["domain"]}])
def test_options_of_isolation_need_cpus(more):
    assert "needs isolated_cpus" in problem(machine(), iommu=False, **more)


@pytest.mark.parametrize("text, numbers", [("0", {0}), ("1-3", {1, 2, 3}), ("1,3-4, 8", {1, 3, 4, 8})])
def test_lists_of_cpus(text, numbers):
    assert parse(text) == numbers and parse(show(numbers)) == numbers


@pytest.mark.parametrize("text", ["a", "3-1", "1,,2", "1-", "0-31:2/4", "all", "-1", "1 2"])
def test_no_list_of_cpus(text):
    with pytest.raises(ValueError, match="isolated_cpus"):
        parse(text)


# -- the override patch ------------------------------------------------------------------------


def plan(made, acknowledge=(), devices=(), **kernel):
    return make_plan(made, list(devices), list(acknowledge), matching, kernel)


def codes(made):
    return [(f["code"], f["severity"], f["acknowledged"]) for f in made["findings"]]


@pytest.mark.parametrize("kernel", [
    {"acs_override": "downstream,id:10de:1380"}, {"parameters": ["pcie_acs_override=downstream,id:10de:1380"]}])
def test_the_override_needs_its_acknowledgement_however_it_is_asked_for(kernel):
    refused = plan(machine(), **kernel)
    assert refused["refused"] and refused["parameters"] == [] and codes(refused) == [("VH142", "refuse", False)]
    accepted = plan(machine(), ACKNOWLEDGED, **kernel)
    assert not accepted["refused"] and codes(accepted) == [("VH142", "warn", True)]
    assert accepted["parameters"] == ["pcie_acs_override=downstream,id:10de:1380"]
    for made in (machine(), machine(cmdline="pcie_acs_override=downstream")):
        text = "\n".join(report(made, plan(made, ACKNOWLEDGED, **kernel)))
        assert "WARN VH142 The ACS override patch is to be asked for (acknowledged)" in text
        assert "no group that it makes counts" in text and "A kernel without the patch ignores it" in text
    assert codes(plan(machine())) == []


def test_what_the_override_tears_apart_is_no_isolation_for_all_that():
    torn = build("""
        00:01.0 root_port 8086:0c01 pci_bridge multi
        00:01.1 root_port 8086:0c05 pci_bridge multi
        01:00.0 endpoint 10de:1380 vga < 00:01.0
        02:00.0 endpoint 1002:6798 vga < 00:01.1
        """, groups="00:01.0\n00:01.1\n01:00.0\n02:00.0", cmdline="intel_iommu=on pcie_acs_override=downstream")
    torn["host"]["kernel"]["acs_override"] = "downstream"
    device, asked = [{"name": "gpu", "address": "01:00.0"}], {"acs_override": "downstream"}
    made = plan(refresh(torn), ACKNOWLEDGED, device, **asked)
    assert made["refused"] and ("VH141", "refuse", False) in codes(made) and ("VH142", "warn", True) in codes(made)
    both = ACKNOWLEDGED + [{"code": "VH141", "device": CARD}]
    assert not plan(torn, both, device, **asked)["refused"]


@pytest.mark.parametrize("entry", [
    {"code": "VH142", "device": CARD}, {"code": "VH140", "host": "acs_override"}, {"code": "VH142", "host": "isolation"}])
def test_no_other_acknowledgement_is_taken_for_it(entry):
    made = plan(machine(), [entry], acs_override="downstream")
    assert made["refused"] and ("VH142", "refuse", False) in codes(made) and ("VH190", "warn", False) in codes(made)


def test_an_acknowledgement_without_the_override_is_in_vain():
    assert codes(plan(machine(), ACKNOWLEDGED)) == [("VH190", "warn", False)]


def test_the_function_alone_leaves_it_out_too():
    found = kernel_parameters(machine(), {"iommu": False, "acs_override": "downstream"})
    assert found["parameters"] == [] and [p["code"] for p in found["problems"]] == ["VH142"]


@pytest.mark.parametrize("value", ["all", "downstream;", "id:10de", "downstream,multi"])
def test_what_the_patch_does_not_know(value):
    with pytest.raises(ValueError, match="acs_override"):
        kernel_parameters(machine(), {"acs_override": value})


@pytest.mark.parametrize("running, parameters, where", [
    ("downstream", ["pcie_acs_override=downstream"], "is on the running command line"),
    ("downstream", [], "is on the running command line"),
    (None, ["pcie_acs_override=downstream"], "is wanted and not on the running command line"),
])
def test_verification_says_each_time_that_isolation_is_not_verified(running, parameters, where):
    made = machine(acs_override=running)
    texts = [check["text"] for check in verify(made, plan(made), parameters) if check["check"] == "isolation"]
    assert len(texts) == 1 and texts[0].startswith("NOT VERIFIED: isolation: pcie_acs_override=downstream " + where)
    assert not [c for c in verify(machine(), plan(machine()), []) if c["check"] == "isolation"]


# -- written by hand, and together -------------------------------------------------------------


def test_what_is_written_by_hand_comes_last():
    assert wanted(machine(OFF), parameters=["pci=noaer"], passthrough=True) == ["intel_iommu=on", "iommu=pt", "pci=noaer"]


@pytest.mark.parametrize("options, words", [
    ({"parameters": ["iommu=nopt"], "passthrough": True}, "iommu=nopt contradicts iommu=pt"),
    ({"parameters": ["isolcpus=3"], "isolated_cpus": "2"}, "isolcpus=3 contradicts isolcpus=2"),
    ({"parameters": ["intel_iommu=off"]}, "intel_iommu=off turns the IOMMU off"),
    ({"parameters": ["iommu=off"]}, "iommu=off turns the IOMMU off"),
    ({"parameters": ["intremap=off"]}, "intremap=off turns the remapping of interrupts off"),
])
def test_what_is_written_by_hand_must_not_contradict(options, words):
    assert words in problem(machine(ON), **options)


def test_without_devices_the_iommu_may_be_off():
    assert wanted(machine(ON), iommu=False, parameters=["intel_iommu=off"]) == ["intel_iommu=off"]


@pytest.mark.parametrize("options, words", [
    ({"passthru": True}, "unknown option passthru"), ({"passthrough": "yes"}, "passthrough: 'yes' is no boolean"),
    ({"hugepages": {}}, "hugepages: {} is no list"), ({"hugepages": [{"size": "1GiB"}]}, "must have count"),
    ({"hugepages": [{"count": 1, "nodes": 1}]}, "can have size and node"), ({"parameters": [1]}, "1 is no text"),
    ({"isolated_flags": ["nohz"], "isolated_cpus": "1"}, "isolated_flags: 'nohz'"), ({"host_reserve": "1G"}, "host_reserve"),
    ([], "must be a mapping"),
])
def test_bad_options_are_errors_that_name_them(options, words):
    with pytest.raises(ValueError, match=words):
        kernel_parameters(machine(), options or [1])


def test_every_parameter_can_be_written_without_quoting():
    every = {"passthrough": True, "hugepages": [dict(ONE, node=0), dict(ONE, node=1)], "default_hugepage_size": "1GiB",
             "isolated_cpus": "1-3,5-7", "isolated_flags": ["domain", "managed_irq"], "nohz_full": True,
             "rcu_nocbs": True, "acs_override": "downstream,multifunction,id:10de:1380"}
    assert set(every) | {"iommu", "host_reserve", "parameters"} == set(OPTIONS)
    found = kernel_parameters(machine(OFF, nodes=2), every, acknowledged=True)
    assert found["problems"] == [] and tokens.check(found["parameters"]) == found["parameters"] == [
        "intel_iommu=on", "iommu=pt", "default_hugepagesz=1G", "hugepagesz=1G", "hugepages=0:4,1:4",
        "isolcpus=domain,managed_irq,1-3,5-7", "nohz_full=1-3,5-7", "rcu_nocbs=1-3,5-7",
        "pcie_acs_override=downstream,multifunction,id:10de:1380"]


# -- in a plan ---------------------------------------------------------------------------------


def test_a_plan_has_the_parameters_and_refuses_what_does_not_fit():
    device = {"name": "gpu", "address": "01:00.0"}
    good = plan(machine(OFF), devices=[device], hugepages=[ONE, {"count": 8}])
    assert not good["refused"] and good["parameters"] == ["intel_iommu=on", "hugepagesz=1G", "hugepages=4"]
    assert good["hugepages"] == [{"size": 2**21, "node": None, "count": 8}]
    bad = plan(machine(OFF), devices=[device], hugepages=[{"size": "1GiB", "count": 99}])
    assert bad["refused"] and [f["code"] for f in bad["findings"] if f["severity"] == "refuse"] == ["VH320"]
    assert plan(machine(OFF))["parameters"] == []


def test_a_plan_says_once_what_the_machine_says_already():
    made = plan(machine(table="IVRS", cmdline="amd_iommu=off"), devices=[{"name": "gpu", "address": "01:00.0"}])
    assert [f["code"] for f in made["findings"]].count("VH122") == 1 and made["refused"]


def test_the_integrated_graphics_in_a_plan_make_debian_ask():
    igpu = {"name": "igpu", "address": "00:02.0"}
    assert plan(machine(DEBIAN), devices=[igpu])["parameters"] == ["intel_iommu=on"]
    assert plan(machine(DEBIAN), devices=[{"name": "gpu", "address": "01:00.0"}])["parameters"] == []


# -- huge pages after the boot -----------------------------------------------------------------


@pytest.mark.parametrize("cmdline, total, failed", [
    ("hugepagesz=1G hugepages=4", 4, {}),
    ("hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=9", 4, {}),
    ("hugepagesz=1G hugepages=4", 3, {"pages of 1024 MiB reserved at boot": ("4", "3")}),
    ("hugepagesz=2M hugepages=4", 0, {"pages of 1024 MiB reserved at boot": ("hugepages=4", "not there")}),
    ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=4", 2,
     {"pages of 1024 MiB reserved at boot": ("hugepages=4", "hugepages=2")}),
])
def test_reserved_pages_are_counted_after_the_boot(cmdline, total, failed):
    made = machine(cmdline=cmdline)
    made["host"]["memory"]["hugepages"] = [{"size": GIB, "total": total, "free": total}]
    checks = verify(made, plan(made), ["hugepagesz=1G", "hugepages=4"])
    assert {c["check"]: (c["wanted"], c["found"]) for c in checks if not c["ok"]} == failed
    assert [c["check"] for c in checks] == ["pages of 1024 MiB reserved at boot"]


def test_pages_by_node_are_counted_together():
    made = machine(cmdline="hugepagesz=1G hugepages=0:2,1:4")
    made["host"]["memory"]["hugepages"] = [{"size": GIB, "total": 6, "free": 6}]
    assert all(c["ok"] for c in verify(made, plan(made), ["hugepagesz=1G", "hugepages=0:2,1:4"]))
