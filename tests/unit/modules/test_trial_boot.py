# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import trial_boot
from ansible_collections.vfio.host.tests.unit.boot.trial_host import CONTENT, TrialHost, install
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module

ARGS = {"parameters": ["intel_iommu=on"], "devices_content": CONTENT}


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = TrialHost(str(tmp_path))
    install(monkeypatch, found)
    monkeypatch.setattr(trial_boot, "Host", lambda: found)
    return found


def test_check_run_and_second_run(host):
    before = host.tree()
    predicted = run_module(trial_boot, ARGS, check=True)
    assert host.tree() == before
    done = run_module(trial_boot, ARGS)
    for key in ("changed", "diff", "outcome", "line"):
        assert predicted[key] == done[key]
    again = run_module(trial_boot, ARGS, diff=False)
    assert again["changed"] is False and "diff" not in again


def test_what_it_returns_is_what_it_documents(host):
    import yaml

    documented = set(yaml.safe_load(trial_boot.RETURN))
    assert set(run_module(trial_boot, ARGS, diff=False)) - {"invocation"} - {"changed"} == documented


def test_the_whole_way(host):
    run_module(trial_boot, ARGS)
    host.reboot()
    assert run_module(trial_boot, {"state": "confirmed"})["confirmed"]
    assert run_module(trial_boot, {"state": "absent"})["changed"]


def test_a_loader_that_did_not_forget_is_a_warning(host):
    host.loader.forget = False
    run_module(trial_boot, ARGS)
    host.reboot()
    assert "one-shot" in str(run_module(trial_boot, {"state": "confirmed"})["warnings"])


def test_a_refusal_is_a_failure(host):
    result = run_module(trial_boot, dict(ARGS, deadline=1))
    assert result["failed"] is True and "deadline" in result["msg"]
    assert run_module(trial_boot, {"state": "confirmed"})["failed"] is True
