# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import reboot
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.modules import reboot_record
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = Host(root=str(tmp_path))
    found.write(reboot.BOOT_ID, "one\n")
    monkeypatch.setattr(reboot_record, "Host", lambda: found)
    return found


def test_check_run_and_second_run(host):
    predicted = run_module(reboot_record, {"digest": "a"}, check=True)
    assert not host.exists(reboot.STATE)
    done = run_module(reboot_record, {"digest": "a"})
    assert predicted == done and done["changed"]
    again = run_module(reboot_record, {"digest": "a"}, diff=False)
    assert again["changed"] is False and "diff" not in again


def test_a_digest_is_needed(host):
    assert run_module(reboot_record, {})["failed"] is True
    assert run_module(reboot_record, {"digest": ""})["failed"] is True
