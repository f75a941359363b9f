# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import initramfs
from ansible_collections.vfio.host.tests.unit.boot.test_boot_initramfs import KERNELS, Builder
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = Builder(str(tmp_path))
    monkeypatch.setattr(initramfs, "Host", lambda: found)
    return found


def test_check_run_and_second_run(host):
    before = host.tree()
    predicted = run_module(initramfs, {}, check=True)
    assert host.tree() == before
    done = run_module(initramfs, {})
    for key in ("changed", "diff", "images", "reboot_required"):
        assert predicted[key] == done[key]
    again = run_module(initramfs, {"devices_content": ""}, diff=False)
    assert again["changed"] is False and "diff" not in again


def test_a_kernel_without_an_image_is_a_warning(host):
    host.remove("/boot/initrd.img-" + KERNELS[0])
    assert KERNELS[0] in str(run_module(initramfs, {})["warnings"])


def test_a_refusal_is_a_failure(host):
    host.remove("/usr/sbin/update-initramfs")
    result = run_module(initramfs, {})
    assert result["failed"] is True and "no supported initramfs generator" in result["msg"]
