# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import sriov
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module
from ansible_collections.vfio.host.tests.unit.sriov.kernel import PF, PORT, Kernel, read_machine, vf

ASKED = {"functions": [{"address": PF, "vendor": "8086", "device": "10c9", "count": 2,
                        "vfs": [{"index": 0, "mac": "52:54:00:00:00:01", "trust": True}]}]}


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = Kernel(str(tmp_path))
    monkeypatch.setattr(sriov, "Host", lambda: found)
    monkeypatch.setattr(sriov, "read", read_machine)
    return found


def test_check_run_and_second_run(host):
    before = host.state()
    predicted = run_module(sriov, ASKED, check=True)
    assert host.state() == before
    done = run_module(sriov, ASKED)
    assert predicted.pop("invocation", None) == done.pop("invocation", None) and predicted == done and done["changed"]
    assert [function["address"] for function in done["vfs"]] == [vf(0), vf(1)]
    again = run_module(sriov, ASKED, diff=False)
    assert again["changed"] is False and "diff" not in again
    assert run_module(sriov, {"state": "absent"})["changed"] is True and host.state() == before


def test_a_refusal_is_a_failure(host):
    result = run_module(sriov, {"functions": [dict(ASKED["functions"][0], count=65)]})
    assert result["failed"] is True and "functions[0].count: 65" in result["msg"]


def test_a_shared_group_is_a_warning_where_that_is_accepted(tmp_path, monkeypatch):
    found = Kernel(str(tmp_path), acs=False)
    monkeypatch.setattr(sriov, "Host", lambda: found)
    monkeypatch.setattr(sriov, "read", read_machine)
    result = run_module(sriov, dict(ASKED, allow_shared_group=True))
    assert PORT in str(result["warnings"]) and not result["vfs"][0]["bound"]
