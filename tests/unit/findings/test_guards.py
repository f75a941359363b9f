# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.assignment.machines import at, build, p8h67_on, use


def plan(machine, address, **more):
    return make_plan(machine, [dict(more, name="x", address=address)], [], matching)


def codes(machine, address, **more):
    return [(f["code"], f["severity"]) for f in plan(machine, address, **more)["findings"]]


USES = [
    ("VH201", "00:1f", "00:1f.2", "disk", ("/", "/dev/sda2", "sda")),
    ("VH202", "03:00.0", "03:00.0", "network", ("ssh from 192.0.2.7", "enp3s0")),
    ("VH203", "01:00.0", "01:00.0", "display", ("boot display",)),
    ("VH204", "03:00.0", "03:00.0", "network", ("default route", "enp3s0")),
]


@pytest.mark.parametrize("code, selected, used, kind, chain", USES)
def test_what_the_host_uses_is_refused(code, selected, used, kind, chain):
    machine = use(p8h67_on(), used, code, kind, *chain)
    made = plan(machine, selected)
    assert made["refused"] and [f["code"] for f in made["findings"]] == [code]
    assert made["findings"][0]["device"] == "0000:" + used
    assert made["findings"][0]["evidence"] == [kind + ": " + " <- ".join(chain + ("0000:" + used,))]
    assert made["findings"][0]["remedy"]


@pytest.mark.parametrize("code, selected, used, kind, chain", USES)
def test_what_the_host_does_not_use_is_not_refused(code, selected, used, kind, chain):
    assert codes(p8h67_on(), selected) == []
    other = use(p8h67_on(), "00:02.0", code, kind, *chain)  # not selected
    assert codes(other, selected) == []


def test_several_uses_of_one_kind_are_one_finding():
    machine = use(use(p8h67_on(), "00:1f.2", "VH201", "disk", "/", "sda1"), "00:1f.2", "VH201", "disk", "swap", "sda2")
    made = plan(machine, "00:1f")
    assert [f["code"] for f in made["findings"]] == ["VH201"]
    assert len(made["findings"][0]["evidence"]) == 2


@pytest.mark.parametrize("code", [None, "VH299"])
def test_a_use_without_a_rule_is_a_use_all_the_same(code):
    machine = use(p8h67_on(), "01:00.1", code, "sound", "pulseaudio")
    assert codes(machine, "01:00.0") == [("VH200", "refuse")]


@pytest.mark.parametrize("kind, refused, free", [
    ("disk", ["00:1f", "03:00.0"], ["01:00.0"]),
    ("ssh", ["04:00.0", "03:00.0"], ["01:00.0", "00:1f"]),
    ("network", ["04:00.0", "03:00.0"], ["01:00.0", "00:1f"]),
    ("display", ["01:00.0", "02:00.0"], ["03:00.0", "00:1f"]),
    ("weather", ["01:00.0", "03:00.0", "00:1f"], []),
])
def test_unknown_usage_refuses_what_it_may_be_about(kind, refused, free):
    for entry in (kind, {"kind": kind, "why": "not readable"}):
        machine = p8h67_on()
        machine["host"]["usage_unknown"] = [entry]
        for address in refused:
            assert ("VH205", "refuse") in codes(machine, address)
        for address in free:
            assert ("VH205", "refuse") not in codes(machine, address)


def test_the_evidence_says_what_was_not_found():
    machine = p8h67_on()
    machine["host"]["usage_unknown"] = ["display"]
    machine["source"]["missing"] = [
        {"input": "boot display", "why": "VH205: none is marked boot_vga"},
        {"input": "/usr/share/misc/pci.ids", "why": "no vendor and device names"},
    ]
    assert plan(machine, "01:00.0")["findings"][0]["evidence"] == [
        "unknown: display", "boot display (none is marked boot_vga)"]


def test_an_unknown_ssh_path_counts_without_the_list():
    machine = p8h67_on()
    machine["host"]["ssh"]["unknown"] = True
    assert ("VH205", "refuse") in codes(machine, "04:00.0")
    assert ("VH205", "refuse") not in codes(machine, "01:00.0")


def test_a_probe_that_did_not_look_is_no_all_clear():
    machine = p8h67_on()
    del machine["host"]["usage_unknown"]
    assert ("VH205", "refuse") in codes(machine, "01:00.0")
    machine = p8h67_on()
    at(machine, "01:00.0")["used_by"] = None
    assert ("VH205", "refuse") in codes(machine, "01:00.0")


def test_no_firmware_table():
    made = plan(build(table=None), "01:00.0")
    assert ("VH120", "refuse") in [(f["code"], f["severity"]) for f in made["findings"]]
    assert made["findings"][0]["host"] == "iommu"
    assert "VH120" not in dict(codes(build(), "01:00.0"))
    assert "VH120" not in dict(codes(p8h67_on(table=None), "01:00.0"))  # active without either table: Arm


def test_an_inactive_iommu_that_can_be_turned_on():
    assert dict(codes(build(), "01:00.0"))["VH121"] == "info"
    assert "VH121" not in dict(codes(p8h67_on(), "01:00.0"))


@pytest.mark.parametrize("table, cmdline, off", [
    ("DMAR", "quiet iommu=off", True),
    ("IVRS", "quiet iommu=off", True),
    ("IVRS", "amd_iommu=off", True),
    ("DMAR", "amd_iommu=off", False),
    ("DMAR", "intel_iommu=off", False),
    ("IVRS", "amd_iommu=fullflush", False),
])
def test_a_command_line_that_turns_it_off(table, cmdline, off):
    found = dict(codes(build(table=table, cmdline=cmdline), "01:00.0"))
    assert (found.get("VH122") == "refuse") is off
    assert ("VH121" in found) is not off


def test_poor_choices_are_warned_about():
    assert codes(p8h67_on(), "04:00.0") == [("VH130", "warn")]
    made = plan(p8h67_on(), "06:00.0")
    assert [f["code"] for f in made["findings"]] == ["VH130"] and not made["refused"]
    assert "behind the conventional PCI bridge 0000:05:00.0" in made["findings"][0]["evidence"][0]
    assert codes(p8h67_on(), "00:1a.0") == []  # conventional, but in the chipset
    assert codes(p8h67_on(), "03:00.0") == []
