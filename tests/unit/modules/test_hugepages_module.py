# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import hugepages
from ansible_collections.vfio.host.tests.unit.memory.hugepages_host import HugepagesHost
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = HugepagesHost(str(tmp_path))
    monkeypatch.setattr(hugepages, "Host", lambda: found)
    return found


def test_check_run_and_second_run(host):
    arguments = {"pages": [{"count": 512}]}
    before = host.tree()
    predicted = run_module(hugepages, arguments, check=True)
    assert host.tree() == before
    done = run_module(hugepages, arguments)
    assert predicted["changed"] is done["changed"] is True and predicted["diff"] == done["diff"]
    again = run_module(hugepages, arguments, diff=False)
    assert again["changed"] is False and "diff" not in again
    assert run_module(hugepages, {"state": "absent"})["changed"] is True and host.tree() == before


def test_a_refusal_is_a_failure(host):
    result = run_module(hugepages, {"pages": [{"count": 5000}]})
    assert result["failed"] is True and "reserved for the host" in result["msg"]


def test_fewer_pages_are_a_warning_where_that_is_accepted(host):
    host.most = 100
    result = run_module(hugepages, {"pages": [{"count": 512}], "partial": True})
    assert "the kernel gave 200" in str(result["warnings"]) and result["pages"][0]["count"] == 200
