# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.machines import (
    P8H67, P8H67_GROUPS, at, build, on_vfio, p8h67_on, refresh, use)

GPU = {"name": "gaming_gpu", "address": "0000:01:00.0"}


def plan(machine, *devices, **more):
    return make_plan(machine, list(devices), more.get("acknowledge", []), matching)


def codes(made):
    return [(f["code"], f["severity"]) for f in made["findings"]]


def only(made, code):
    return [f for f in made["findings"] if f["code"] == code]


def test_the_gpu_of_the_how_to():
    made = plan(p8h67_on(), GPU)
    assert made["refused"] is False and made["findings"] == []
    device = made["devices"][0]
    assert device["name"] == "gaming_gpu" and device["confidence"] == "actual"
    assert device["selected"] == ["0000:01:00.0", "0000:01:00.1"]
    assert device["group_members"] == ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"]
    assert device["companions"] == ["0000:00:01.0"]
    assert device["functions"] == made["identities"]
    assert made["identities"][0] == {
        "address": "0000:01:00.0", "vendor": "10de", "device": "1380", "subsystem_vendor": "1043",
        "subsystem_device": "84bb", "class": "030000", "serial": None, "name": "gaming_gpu",
        "path": "0000:00/01.0/00.0"}


def test_nothing_asked_is_nothing_found():
    made = plan(build(table=None))
    assert made == {"devices": [], "identities": [], "findings": [], "refused": False, "parameters": [],
                    "hugepages": [], "notes": []}


def test_identities_are_sorted_by_address():
    made = plan(p8h67_on(), {"name": "b", "address": "02:00"}, {"name": "a", "address": "01:00"})
    assert [i["address"] for i in made["identities"]] == [
        "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:02:00.1"]
    assert [d["name"] for d in made["devices"]] == ["b", "a"]


# -- the group ---------------------------------------------------------------------------------


def test_a_foreign_member_refuses_and_is_named():
    machine = p8h67_on()
    at(machine, "00:1f.2")["driver"] = "ahci"
    made = plan(machine, {"name": "smbus", "address": "00:1f.3", "functions": "listed"})
    assert made["refused"] and codes(made) == [("VH101", "refuse")]
    assert made["findings"][0]["device"] == "0000:00:1f.3"
    assert made["findings"][0]["evidence"][:2] == [
        "in the actual group of 0000:00:1f.3: 0000:00:1f.0 8086:1c4a isa_bridge, no driver",
        "in the actual group of 0000:00:1f.3: 0000:00:1f.2 8086:1c02 sata, driver ahci"]
    assert "functions of one slot that do not isolate" in made["findings"][0]["evidence"][2]


@pytest.mark.parametrize("driver, expected", [(None, []), ("skx_uncore", [("VH101", "refuse")])])
def test_a_host_bridge_without_a_driver_is_left_alone(driver, expected):
    text = """
    00:02.0 conventional 1234:1111 vga
    00:03.0 conventional 1022:1482 host_bridge multi
    00:03.1 root_port 1022:1483 pci_bridge multi
    0b:00.0 endpoint 10de:1c03 vga < 00:03.1 multi
    0b:00.1 endpoint 10de:10f1 audio < 00:03.1 multi
    """
    machine = build(text, groups="00:02.0\n00:03.0 00:03.1 0b:00.0 0b:00.1", table="IVRS")
    at(machine, "00:03.0")["driver"] = driver
    made = plan(refresh(machine), {"name": "gpu", "address": "0b:00.0"})
    assert [c for c in codes(made) if c[1] == "refuse"] == expected
    assert ("0000:00:03.0" in made["devices"][0]["companions"]) == (driver is None)


def test_a_group_is_not_split_between_two_devices():
    made = plan(p8h67_on(), {"name": "picture", "address": "01:00.0", "functions": "listed"},
                {"name": "sound", "address": "01:00.1", "functions": "listed"})
    assert codes(made) == [("VH101", "refuse")] * 2
    assert "selected by sound: a group cannot be split" in made["findings"][0]["evidence"][0]


def test_a_member_the_document_does_not_know_is_foreign():
    machine = p8h67_on()
    for address in ("01:00.0", "01:00.1", "00:01.0"):
        at(machine, address)["group_members"] = at(machine, address)["group_members"] + ["0000:01:00.7"]
    evidence = only(plan(machine, GPU), "VH101")[0]["evidence"]
    assert "0000:01:00.7 (no PCI function of the machine document)" in evidence[0]


def test_a_platform_device_is_a_member_like_any_other():
    machine = p8h67_on()
    for address in ("01:00.0", "01:00.1", "00:01.0"):
        at(machine, address)["group_members"] = at(machine, address)["group_members"] + ["107c580000.hvs"]
    made = plan(machine, GPU)
    assert "107c580000.hvs (no PCI function" in only(made, "VH101")[0]["evidence"][0]
    assert made["devices"][0]["group_members"][-1] == "107c580000.hvs"


def test_members_are_found_by_the_number_too():
    machine = p8h67_on()
    at(machine, "01:00.0")["group_members"] = []
    at(machine, "03:00.0")["group"] = at(machine, "01:00.0")["group"]
    made = plan(machine, GPU)
    assert "0000:03:00.0" in only(made, "VH101")[0]["evidence"][0]


def test_one_device_over_two_groups():
    groups = P8H67_GROUPS.replace("02:00.0 02:00.1", "02:00.0\n02:00.1")
    card = P8H67.replace("< 00:1c.0 multi", "< 00:1c.0 multi acs")
    made = plan(build(card, groups=groups), {"name": "gpu", "address": "02:00.0"})
    assert made["findings"] == []
    assert made["devices"][0]["group_members"] == ["0000:02:00.0", "0000:02:00.1"]
    listed = plan(build(card, groups=groups), {"name": "gpu", "address": "02:00.0", "functions": "listed"})
    assert not listed["refused"] and listed["devices"][0]["selected"] == ["0000:02:00.0"]


def test_a_bridge_is_never_assigned():
    made = plan(p8h67_on(), {"name": "port", "address": "00:01.0"})
    assert ("VH102", "refuse") in codes(made)
    assert not only(plan(p8h67_on(), GPU), "VH102")


def test_no_group_although_the_iommu_is_active():
    machine = p8h67_on()
    at(machine, "01:00.0").update(group=None, group_members=[], confidence="unknown")
    assert ("VH112", "refuse") in codes(plan(machine, GPU))
    guessed = p8h67_on()
    at(guessed, "01:00.0")["confidence"] = "predicted"
    assert ("VH112", "refuse") in codes(plan(guessed, GPU))


# -- while the IOMMU is off --------------------------------------------------------------------


def test_with_the_iommu_off_groups_are_predicted():
    made = plan(build(), GPU, {"name": "second", "address": "02:00"})
    assert not made["refused"]
    assert codes(made) == [("VH110", "info"), ("VH121", "info")]
    assert made["devices"][0]["confidence"] == "predicted"
    assert made["devices"][0]["companions"] == ["0000:00:01.0"]
    assert made["devices"][1]["group_members"] == ["0000:02:00.0", "0000:02:00.1"]


def test_a_predicted_foreign_member_refuses():
    machine = build()
    machine["host"]["iommu"]["rcba"] = False
    made = plan(refresh(machine), {"name": "second", "address": "02:00"})
    assert made["refused"]
    assert "predicted group" in only(made, "VH101")[0]["evidence"][0]
    assert any("RCBA is disabled" in fact for fact in only(made, "VH101")[0]["evidence"])


def test_groups_of_an_inactive_iommu_are_not_believed():
    # vfio's no-IOMMU mode makes groups that isolate nothing.
    machine = p8h67_on()
    machine["host"]["iommu"]["active"] = False
    assert plan(machine, GPU)["devices"][0]["confidence"] == "predicted"


def test_partial_inputs_refuse():
    machine = build()
    at(machine, "00:01.0")["port_type"] = "unknown"
    refresh(machine)
    made = plan(machine, GPU)
    assert "0000:00:01.0" in only(made, "VH111")[0]["evidence"][0]
    assert not only(plan(machine, {"name": "second", "address": "02:00"}), "VH111")
    machine["host"]["iommu"]["rcba"] = None
    assert only(plan(refresh(machine), {"name": "second", "address": "02:00"}), "VH111")


@pytest.mark.parametrize("machine", [p8h67_on(), build()])
def test_a_function_that_does_not_answer_refuses(machine):
    at(machine, "01:00.0").update(port_type="unknown", capabilities=None)
    found = only(plan(machine, GPU), "VH111")
    assert [f["severity"] for f in found] == ["refuse"]
    assert "nothing of 0000:01:00.0 is readable" in found[0]["evidence"][0]


# -- acknowledgements --------------------------------------------------------------------------


def shown():
    machine = use(p8h67_on(), "01:00.0", "VH203", "display", "boot display")
    return use(machine, "02:00.0", "VH203", "display", "boot display")


def test_an_acknowledgement_turns_one_finding_of_one_device():
    devices = [GPU, {"name": "second", "address": "02:00"}]
    made = plan(shown(), *devices, acknowledge=[{"code": "VH203", "device": "01:00.0"}])
    assert made["refused"]
    assert [(f["device"], f["severity"], f["acknowledged"]) for f in made["findings"]] == [
        ("0000:02:00.0", "refuse", False), ("0000:01:00.0", "warn", True)]
    both = plan(shown(), *devices, acknowledge=[
        {"code": "VH203", "device": "01:00.0"}, {"code": "VH203", "device": "0000:02:00.0"}])
    assert not both["refused"]


def test_another_code_is_not_acknowledged_with_it():
    machine = use(shown(), "01:00.0", "VH201", "disk", "/")
    made = plan(machine, GPU, acknowledge=[{"code": "VH203", "device": "01:00.0"}])
    assert codes(made) == [("VH201", "refuse"), ("VH203", "warn")]


@pytest.mark.parametrize("entry, why", [
    ({"code": "VH999", "device": "01:00.0"}, "there is no finding VH999"),
    ({"code": "vh203", "device": "01:00.0"}, "there is no finding vh203"),
    ({"code": "VH203", "device": "02:00.0"}, "has no finding VH203"),
    ({"code": "VH204", "device": "01:00.0"}, "has no finding VH204"),
])
def test_an_acknowledgement_in_vain_is_a_finding(entry, why):
    made = plan(shown(), GPU, acknowledge=[entry])
    assert made["refused"]
    assert why in only(made, "VH190")[0]["evidence"][0]
    assert only(made, "VH190")[0]["severity"] == "warn"


def test_after_the_hand_over_the_acknowledgement_stays_right():
    machine = on_vfio(p8h67_on(), ["01:00.0", "01:00.1"])
    assert plan(machine, GPU, acknowledge=[{"code": "VH203", "device": "01:00.0"}])["findings"] == []
    assert ("VH190", "warn") in codes(plan(machine, acknowledge=[{"code": "VH203", "device": "01:00.0"}]))


@pytest.mark.parametrize("code", ["VH101", "VH102", "VH111"])
def test_isolation_cannot_be_acknowledged(code):
    machine = {"VH101": p8h67_on(), "VH102": p8h67_on(), "VH111": build()}[code]
    if code == "VH111":
        at(machine, "01:00.0")["capabilities"] = None
        refresh(machine)
    address = {"VH101": "00:1f.3", "VH102": "00:01.0", "VH111": "01:00.0"}[code]
    made = plan(machine, {"name": "x", "address": address, "functions": "listed"},
                acknowledge=[{"code": code, "device": address}])
    assert (code, "refuse") in codes(made) and made["refused"]
    assert "%s cannot be acknowledged" % code in only(made, "VH190")[0]["evidence"][0]


@pytest.mark.parametrize("entry, words", [
    ("VH203", "exactly code and device"),
    ({"code": "VH203"}, "exactly code and device"),
    ({"code": "VH203", "device": "gpu"}, "is not a PCI address"),
    ({"code": "VH203", "device": "01:00"}, "is a slot"),
])
def test_an_acknowledgement_of_another_form_is_an_error(entry, words):
    with pytest.raises(ValueError, match=words):
        plan(shown(), GPU, acknowledge=[entry])


# -- the plan's own rules ----------------------------------------------------------------------


def test_two_devices_claim_the_same_function():
    made = plan(p8h67_on(), GPU, {"name": "other", "id": "10de:0fbc"})
    assert ("VH131", "refuse") in codes(made)
    assert "0000:01:00.0 is selected by gaming_gpu and other" in only(made, "VH131")[0]["evidence"]
    assert len(made["identities"]) == 2


def test_all_bad_entries_are_told_at_once():
    with pytest.raises(ValueError) as caught:
        plan(p8h67_on(), GPU, dict(GPU), {"name": "x", "adress": "1"}, {"name": "y", "id": "dead:beef"})
    message = str(caught.value)
    assert "device gaming_gpu: the name is used twice" in message
    assert "unknown key adress" in message and "device y" in message


@pytest.mark.parametrize("devices, acknowledge", [({}, []), (None, []), ([], {}), ([], "VH101")])
def test_lists_are_lists(devices, acknowledge):
    with pytest.raises(ValueError, match="must be a list"):
        make_plan(p8h67_on(), devices, acknowledge, matching)


def test_two_virtual_functions_are_for_two_guests():
    machine = build(P8H67 + "07:00.0 endpoint 8086:10c9 ethernet < 00:1c.5\n07:10.0 endpoint 8086:10ca ethernet < 00:1c.5\n"
                    "07:10.2 endpoint 8086:10ca ethernet < 00:1c.5",
                    groups=P8H67_GROUPS + "07:00.0\n07:10.0\n07:10.2\n", cmdline="intel_iommu=on")
    for address in ("07:10.0", "07:10.2"):
        at(machine, address)["physfn"] = "0000:07:00.0"
    made = plan(refresh(machine), {"name": "a", "address": "07:10.0"}, {"name": "b", "address": "07:10.2"})
    assert not made["refused"] and [d["selected"] for d in made["devices"]] == [["0000:07:10.0"], ["0000:07:10.2"]]


@pytest.mark.parametrize("driver", ["mlx5_vfio_pci", "best", "vfio-pci"])
def test_the_driver_of_an_entry_goes_to_its_functions(driver):
    made = plan(p8h67_on(), dict(GPU, driver=driver), {"name": "other", "address": "02:00"})
    assert [i.get("driver") for i in made["identities"]] == [driver, driver, None, None]
    assert [f["driver"] for f in made["devices"][0]["functions"]] == [driver, driver]
    assert "driver" not in made["identities"][2]


def test_an_acknowledgement_is_not_in_vain_once_the_function_is_on_a_variant():
    machine = use(p8h67_on(), "01:00.0", "VH203", "display", "boot display")
    accepted = [{"code": "VH203", "device": "01:00.0"}]
    at(machine, "01:00.0").update(used_by=[], driver="mlx5_vfio_pci")
    assert only(plan(refresh(machine), GPU, acknowledge=accepted), "VH190") == []


def test_a_physical_function_with_virtual_ones_stays_and_they_go():
    machine = build(P8H67 + "07:00.0 endpoint 8086:10c9 ethernet < 00:1c.5\n07:10.0 endpoint 8086:10ca ethernet < 00:1c.5",
                    groups=P8H67_GROUPS + "07:00.0\n07:10.0\n", cmdline="intel_iommu=on")
    at(machine, "07:10.0").update(physfn="0000:07:00.0", driver="vfio-pci")
    at(machine, "07:00.0")["driver"] = "igb"
    refresh(machine)
    physical, virtual = {"name": "pf", "address": "07:00.0"}, {"name": "vf", "address": "07:10.0"}
    assert ("VH218", "refuse") in codes(plan(machine, physical)) and plan(machine, physical)["refused"]
    assert at(machine, "07:00.0")["assignment"]["verdict"] == "host_uses"
    assert not plan(machine, virtual)["refused"] and at(machine, "07:10.0")["assignment"]["verdict"] == "assignable"
