# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import kernel_cmdline
from ansible_collections.vfio.host.tests.unit.boot.grub_host import GrubHost
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = GrubHost(str(tmp_path))
    monkeypatch.setattr(kernel_cmdline, "Host", lambda: found)
    return found


def test_check_run_and_second_run(host):
    arguments = {"parameters": ["intel_iommu=on"]}
    before = host.tree()
    predicted = run_module(kernel_cmdline, arguments, check=True)
    assert host.tree() == before
    done = run_module(kernel_cmdline, arguments)
    assert (predicted["changed"], predicted["diff"]) == (done["changed"], done["diff"]) == (True, predicted["diff"])
    assert "intel_iommu=on overrides intel_iommu=off from /etc/default/grub" in str(done["warnings"])
    again = run_module(kernel_cmdline, arguments, diff=False)
    assert again["changed"] is False and "diff" not in again
    assert again["reboot_required"] is True


def test_bad_input_fails_with_its_reason(host):
    result = run_module(kernel_cmdline, {"parameters": ["a=$b"]})
    assert result["failed"] is True and "a=$b" in result["msg"]


def test_a_refusal_is_a_failure(host):
    host.write("/proc/cmdline", "ro\n")
    result = run_module(kernel_cmdline, {"parameters": ["a=b"]})
    assert result["failed"] is True and "BOOT_IMAGE=" in result["msg"]
