# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees recorded from the booted lab (tools/record_tree.py): the probe and the plan on what a real kernel shows."""

from __future__ import annotations

import os
import tarfile

import pytest
import yaml

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._assignment import plan, verify
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.plugin_utils import _jmespath

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CORPUS = os.path.join(CHECKOUT, "tests", "corpus")
CHOSEN = ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:02:00.1"]


@pytest.fixture(scope="module", params=["off", "on", "amd"])
def recorded(request, tmp_path_factory):
    """(name, machine document): the bare host with the IOMMU off, the same after site, and with AMD-Vi."""
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(os.path.join(CORPUS, "lab-%s.tar.xz" % request.param)) as archive:
        archive.extractall(str(folder), filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(str(folder))
    return request.param, _machine.collect(Host(str(folder)))


@pytest.fixture(scope="module")
def variables():
    with open(os.path.join(CHECKOUT, "playbooks", "vars", "lab.yml"), encoding="utf-8") as handle:
        return yaml.safe_load(handle)


def by_address(machine):
    return {function["address"]: function for function in machine["functions"]}


def test_every_function_of_the_profile_is_there(recorded):
    dummy, machine = recorded
    addresses = set(by_address(machine))
    assert {"0000:00:01.0", "0000:00:02.0", "0000:00:19.0", "0000:00:1f.2", "0000:03:00.0", "0000:04:00.0"} <= addresses
    assert set(CHOSEN) <= addresses


def test_the_kernels_own_groups(recorded):
    name, machine = recorded
    members = sorted(group["members"] for group in machine["groups"])
    if name == "off":
        assert not machine["host"]["iommu"]["active"]
        assert {group["source"] for group in machine["groups"]} == {"predicted"}
    assert ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"] in members
    assert ["0000:02:00.0", "0000:02:00.1"] in members
    assert ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"] in members


def test_what_the_host_needs(recorded):
    dummy, machine = recorded
    functions = by_address(machine)
    assert {use["finding"] for use in functions["0000:00:02.0"]["used_by"]} == {"VH203"}
    assert "VH201" in {use["finding"] for use in functions["0000:00:1f.2"]["used_by"]}
    assert {"VH202", "VH204"} <= {use["finding"] for use in functions["0000:00:19.0"]["used_by"]}
    assert all(not functions[address]["used_by"] for address in CHOSEN)
    assert machine["host"]["usage_unknown"] == []


def test_the_plan_of_the_demo(recorded, variables):
    name, machine = recorded
    result = plan.make_plan(machine, variables["vfio_host_devices"], [], _jmespath.matching)
    assert not result["refused"]
    assert [identity["address"] for identity in result["identities"]] == CHOSEN
    assert {device["confidence"] for device in result["devices"]} == {"predicted" if name == "off" else "actual"}
    assert [device["companions"] for device in result["devices"]] == [["0000:00:01.0"], []]


@pytest.mark.parametrize("address, code", [("0000:00:02.0", "VH203"), ("0000:00:1f.2", "VH201"), ("0000:00:19.0", "VH202")])
def test_what_the_host_needs_is_refused(recorded, address, code):
    dummy, machine = recorded
    devices = [{"name": "wanted", "address": address, "functions": "listed"}]
    result = plan.make_plan(machine, devices, [], _jmespath.matching)
    assert result["refused"]
    assert code in {f["code"] for f in result["findings"] if f["severity"] == "refuse" and f.get("device") == address}


def test_the_verdict_after_the_reboot(recorded, variables):
    name, machine = recorded
    result = plan.make_plan(machine, variables["vfio_host_devices"], [], _jmespath.matching)
    checks = verify.verify(machine, result, [] if name == "amd" else ["intel_iommu=on"])
    assert all(check["ok"] for check in checks) == (name == "on")
