# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.modules import vfio_binding
from ansible_collections.vfio.host.tests.unit.boot.functions import GPU, add_function
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = Host(str(tmp_path))
    add_function(found, GPU, driver="bochs-drm")
    monkeypatch.setattr(vfio_binding, "Host", lambda: found)
    return found


def test_an_identity_of_the_plan_is_taken_as_it_is(host):
    identity = dict(GPU, name="gaming_gpu", serial=None, **{"class": "030000"})
    predicted = run_module(vfio_binding, {"devices": [identity]}, check=True)
    assert not host.exists("/etc/vfio-host")
    done = run_module(vfio_binding, {"devices": [identity]})
    for key in ("changed", "diff", "functions", "content", "reboot_required"):
        assert predicted[key] == done[key]
    assert host.read("/etc/vfio-host/devices").endswith("\n0000:01:00.0 1234 1111 1af4 1100 - vfio-pci\n")
    again = run_module(vfio_binding, {"devices": [identity]}, diff=False)
    assert again["changed"] is False and "diff" not in again


def test_another_card_is_a_failure(host):
    result = run_module(vfio_binding, {"devices": [dict(GPU, device="1380")]})
    assert result["failed"] is True and "asked 1234:1380" in result["msg"]


def test_bad_input_names_the_place(host):
    result = run_module(vfio_binding, {"devices": [GPU, dict(GPU, address="1:2")]})
    assert result["failed"] is True and "devices[1]: address '1:2'" in result["msg"]


@pytest.mark.parametrize("key", ["vendor", "device", "subsystem_vendor", "subsystem_device"])
def test_a_part_of_the_identity_is_not_enough(host, key):
    result = run_module(vfio_binding, {"devices": [{k: v for k, v in GPU.items() if k != key}]})
    assert result["failed"] is True and key in result["msg"]
