# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import mediated_devices
from ansible_collections.vfio.host.tests.unit.mdev.mdev_kernel import IGPU, QUARTER, Kernel, read_machine
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module

ASKED = {"devices": [{"parent": IGPU, "vendor": "8086", "device": "5912", "type": "GVTg_V5_8", "name": "desk1"}]}


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = Kernel(str(tmp_path))
    monkeypatch.setattr(mediated_devices, "Host", lambda: found)
    monkeypatch.setattr(mediated_devices, "read", read_machine)
    return found


def test_check_run_and_second_run(host):
    before = host.state()
    predicted = run_module(mediated_devices, ASKED, check=True)
    assert host.state() == before
    done = run_module(mediated_devices, ASKED)
    assert predicted.pop("invocation", None) == done.pop("invocation", None) and predicted == done and done["changed"]
    assert host.mdevs() == {done["devices"][0]["uuid"]: QUARTER}
    again = run_module(mediated_devices, ASKED, diff=False)
    assert again["changed"] is False and "diff" not in again
    assert run_module(mediated_devices, {"state": "absent"})["changed"] is True and host.state() == before


def test_a_refusal_is_a_failure(host):
    result = run_module(mediated_devices, {"devices": [dict(ASKED["devices"][0], type="nvidia-35")]})
    assert result["failed"] is True and "devices[0].type: 'nvidia-35'" in result["msg"]
