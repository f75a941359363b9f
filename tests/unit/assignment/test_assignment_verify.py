# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment.parameters import (
    effective, iommu_parameters)
from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.module_utils._assignment.verify import verify
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.machines import at, build, on_vfio, p8h67_on

BOTH = ["01:00.0", "01:00.1"]
DEVICES = [{"name": "gpu", "address": "01:00.0"}]


def before():
    """The plan as it was made before the reboot, with the IOMMU off."""
    return make_plan(build(), DEVICES, [], matching)


def failed(machine, plan=None, parameters=("intel_iommu=on",)):
    return {c["check"]: (c["wanted"], c["found"])
            for c in verify(machine, plan or before(), list(parameters)) if not c["ok"]}


def test_a_machine_that_came_back_as_planned():
    checks = verify(on_vfio(p8h67_on(), BOTH), before(), ["intel_iommu=on"])
    assert all(c["ok"] is True for c in checks)
    assert [c["check"] for c in checks] == [
        "kernel parameter intel_iommu=on", "IOMMU",
        "IOMMU group of 0000:01:00.0 (gpu)", "IOMMU group of 0000:01:00.1 (gpu)",
        "identity of 0000:01:00.0", "driver of 0000:01:00.0", "identity of 0000:01:00.1", "driver of 0000:01:00.1"]
    assert all(set(c) == {"check", "ok", "wanted", "found", "text"} for c in checks)
    assert all(isinstance(c["wanted"], str) and isinstance(c["found"], str) for c in checks)


def test_the_old_entry_booted():
    wrong = failed(build())
    assert wrong["kernel parameter intel_iommu=on"] == ("intel_iommu=on", "not there")
    assert wrong["IOMMU"] == ("active", "inactive: the kernel's default is off")
    assert wrong["IOMMU group of 0000:01:00.0 (gpu)"][1] == "no group"
    assert wrong["driver of 0000:01:00.0"] == ("vfio-pci", "none")


def test_another_driver_was_faster():
    machine = on_vfio(p8h67_on(), BOTH)
    at(machine, "01:00.1")["driver"] = "snd_hda_intel"
    assert failed(machine) == {"driver of 0000:01:00.1": ("vfio-pci", "snd_hda_intel")}


def test_the_actual_group_is_larger_than_predicted():
    machine = on_vfio(p8h67_on(), BOTH)
    members = at(machine, "01:00.0")["group_members"] + ["0000:00:1b.0"]
    for address in ("01:00.0", "01:00.1", "00:01.0", "00:1b.0"):
        at(machine, address).update(group="1", group_members=members)
    wrong = failed(machine)
    assert sorted(wrong) == ["IOMMU group of 0000:01:00.0 (gpu)", "IOMMU group of 0000:01:00.1 (gpu)"]
    assert "also 0000:00:1b.0 8086:1c20 audio" in wrong["IOMMU group of 0000:01:00.0 (gpu)"][1]


@pytest.mark.parametrize("key, value", [
    ("vendor", "1002"), ("device", "1381"), ("subsystem_vendor", "1458"), ("subsystem_device", "3652"),
    ("class", "030200"), ("serial", "00-00-00-00-00-00-00-01")])
def test_another_card_is_at_the_address(key, value):
    machine = on_vfio(p8h67_on(), BOTH)
    at(machine, "01:00.0")[key] = value
    assert list(failed(machine)) == ["identity of 0000:01:00.0"]


def test_the_function_is_gone():
    machine = on_vfio(p8h67_on(), BOTH)
    machine["functions"] = [f for f in machine["functions"] if f["address"] != "0000:01:00.1"]
    wrong = failed(machine)
    assert wrong["function 0000:01:00.1"][1] == "no function at this address"
    assert wrong["IOMMU group of 0000:01:00.1 (gpu)"][1] == "no function at this address"


def test_an_empty_plan_asks_only_for_its_parameters():
    empty = make_plan(build(), [], [], matching)
    assert verify(build(), empty, []) == []
    assert [c["ok"] for c in verify(build(), empty, ["quiet", "intel_iommu=on"])] == [True, False]


@pytest.mark.parametrize("cmdline, wanted, found", [
    ("quiet intel_iommu=on", "intel_iommu=on", "intel_iommu=on"),
    ("intel_iommu=on intel_iommu=off", "intel_iommu=on", "intel_iommu=off"),
    ("intel_iommu=off intel_iommu=on", "intel_iommu=on", "intel_iommu=on"),
    ("intel_iommu=on intel-iommu=off", "intel_iommu=on", "intel-iommu=off"),
    ("intel_iommu=on,sm_on", "intel_iommu=on", "intel_iommu=on"),
    ("xintel_iommu=on", "intel_iommu=on", None),
    ("quiet -- intel_iommu=on", "intel_iommu=on", None),
    ('dyndbg="file a.c +p; intel_iommu=on" quiet', "intel_iommu=on", None),
    ("quietly", "quiet", None),
    ("console=tty0 console=ttyS0", "console=tty0", "console=tty0"),
    ("console=ttyS0", "console=tty0", "console=ttyS0"),
    ("", "intel_iommu=on", None),
])
def test_what_the_kernel_was_told(cmdline, wanted, found):
    assert effective(cmdline, wanted) == found


def test_parameters_by_firmware_table():
    assert iommu_parameters(build()) == ["intel_iommu=on"]
    assert iommu_parameters(p8h67_on()) == ["intel_iommu=on"]
    assert iommu_parameters(build(table="IVRS")) == []
    assert iommu_parameters(p8h67_on(table=None)) == []
    with pytest.raises(ValueError, match="firmware"):
        iommu_parameters(build(table=None))


@pytest.mark.parametrize("wanted, found, ok", [
    ("mlx5_vfio_pci", "mlx5_vfio_pci", True), ("mlx5-vfio-pci", "mlx5_vfio_pci", True),
    ("mlx5_vfio_pci", "vfio-pci", False), ("vfio_pci", "vfio-pci", True), (None, "mlx5_vfio_pci", False),
    ("best", "mlx5_vfio_pci", True), ("best", "vfio-pci", True), ("best", "nouveau", False), ("best", None, False),
])
def test_the_driver_that_the_entry_names(wanted, found, ok):
    plan = make_plan(build(), [dict(DEVICES[0], driver=wanted)], [], matching)
    machine = on_vfio(p8h67_on(), BOTH)
    at(machine, "01:00.0")["driver"] = found
    at(machine, "01:00.1")["driver"] = found
    wrong = failed(machine, plan)
    assert sorted(wrong) == ([] if ok else ["driver of 0000:01:00.0", "driver of 0000:01:00.1"])
    if not ok:
        assert wrong["driver of 0000:01:00.0"] == (
            "vfio-pci or a variant of it" if wanted == "best" else wanted or "vfio-pci", found or "none")
