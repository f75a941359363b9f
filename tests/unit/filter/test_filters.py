# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.plugins.test import core

from ansible_collections.vfio.host.plugins.filter import (
    iommu_parameters, kernel_parameters, plan, report, select, verify)
from ansible_collections.vfio.host.plugins.plugin_utils import _jmespath
from ansible_collections.vfio.host.tests.unit.machines import build, on_vfio, p8h67_on

GPU = {"name": "gpu", "match": "vendor == '10de' && class_name == 'vga'"}


def filters(module):
    return module.FilterModule().filters()


def test_the_whole_way():
    machine = build()
    made = filters(plan)["plan"](machine, [GPU], acknowledge=[])
    assert not made["refused"]
    assert filters(report)["report"](made, machine)[0].startswith("OK: ")
    tokens = filters(iommu_parameters)["iommu_parameters"](machine)
    after = on_vfio(p8h67_on(), ["01:00.0", "01:00.1"])
    assert all(c["ok"] for c in filters(verify)["verify"](after, made, tokens))
    assert [f["id"] for f in filters(select)["select"](after, GPU)] == ["10de:1380", "10de:0fbc"]


def test_inputs_are_not_changed():
    machine = p8h67_on()
    before = repr(machine)
    plan.plan(machine, [GPU])
    assert repr(machine) == before


@pytest.mark.parametrize("call, words", [
    (lambda: plan.plan(p8h67_on(), [{"name": "x", "adress": "1"}]), "vfio.host.plan: device x: unknown key adress"),
    (lambda: plan.plan("text", []), "vfio.host.plan: the machine document is not one of schema 2"),
    (lambda: plan.plan({"schema": 1, "functions": []}, []), "schema 2 .*found schema 1"),
    (lambda: plan.plan({"schema": 2, "functions": []}, []), "vfio.host.plan: the input has not the documented form"),
    (lambda: plan.plan(p8h67_on(), [object()]), "vfio.host.plan: devices: cannot be read as plain data"),
    (lambda: select.select_functions(p8h67_on(), GPU["name"]), "vfio.host.select: a device entry must be a mapping"),
    (lambda: iommu_parameters.iommu_parameters(build(table=None)), "vfio.host.iommu_parameters: .*firmware"),
    (lambda: plan.plan(p8h67_on(), [], kernel={"passthru": True}), "vfio.host.plan: unknown option passthru"),
    (lambda: kernel_parameters.kernel_parameters(build(), {"passthru": True}), "vfio.host.kernel_parameters: unknown opt"),
    (lambda: kernel_parameters.kernel_parameters({}), "vfio.host.kernel_parameters: the input has not the documented"),
    (lambda: report.report({}, p8h67_on()), "vfio.host.report: the input has not the documented form"),
    (lambda: verify.verify(p8h67_on(), None, []), "vfio.host.verify: the input has not the documented form"),
])
def test_bad_input_is_an_error_of_the_filter(call, words):
    with pytest.raises(AnsibleFilterError, match=words):
        call()


def test_without_jmespath_only_match_is_missing(monkeypatch):
    monkeypatch.setattr(_jmespath, "jmespath", None)
    assert not plan.plan(p8h67_on(), [{"name": "gpu", "address": "01:00.0"}])["refused"]
    with pytest.raises(AnsibleFilterError, match="jmespath on the controller"):
        plan.plan(p8h67_on(), [GPU])


def test_kernel_parameters_with_and_without_the_acknowledgement():
    make = filters(kernel_parameters)["kernel_parameters"]
    assert make(build())["parameters"] == ["intel_iommu=on"]
    options = {"isolated_cpus": "1,5", "acs_override": "downstream", "hugepages": [{"size": "1GiB", "count": 2}]}
    found = make(build(), options, ["0000:01:00.0"])
    assert found["parameters"] == ["intel_iommu=on", "hugepagesz=1G", "hugepages=2", "isolcpus=1,5"]
    assert [p["code"] for p in found["problems"]] == ["VH142"] and found["override"] == "downstream"
    found = make(build(), options, acknowledge=[{"code": "VH142", "host": "acs_override"}])
    assert found["parameters"][-1] == "pcie_acs_override=downstream" and found["problems"] == []


@pytest.mark.parametrize("driver, wanted, given", [
    ("vfio-pci", "nouveau", True), ("vfio_pci", None, True), ("mlx5_vfio_pci", "mlx5_core", True),
    ("nvgrace-gpu-vfio-pci", None, True), ("nouveau", "nouveau", False), ("vfio-pci-core", None, False), (None, None, False),
    ("vfio-pci", "vfio-pci", False)])
def test_revert_sees_what_is_still_given_away(driver, wanted, given):
    path = os.path.join(os.path.dirname(__file__), "..", "..", "..", "playbooks", "tasks", "reverted.yml")
    with open(path, encoding="utf-8") as tasks:
        text = yaml.safe_load(tasks)[-1]["vars"]["__vfio_host_still_given"]
    environment = jinja2.Environment()
    environment.tests.update(core.TestModule().tests())
    functions = [{"address": "0000:01:00.0", "driver": driver}, {"address": "0000:02:00.0", "driver": "vfio-pci"}]
    listed = {"functions": [{"address": "0000:01:00.0", "wanted": wanted}]}
    said = environment.from_string(text).render(__vfio_host_machine={"functions": functions}, vfio_devices_result=listed)
    assert said == ("['0000:01:00.0']" if given else "[]")
