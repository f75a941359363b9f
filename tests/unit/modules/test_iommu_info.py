# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module end to end."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
from ansible_collections.vfio.host.plugins.modules import iommu_info
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


@pytest.mark.parametrize("check", [False, True])
def test_module_returns_the_document(tmp_path, check):
    p8h67(tmp_path)
    result = run_module(iommu_info, {"root": str(tmp_path)}, check=check)
    assert result["changed"] is False
    assert result["machine"] == collect(Host(str(tmp_path)))


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    result = run_module(iommu_info, {"root": str(tmp_path / "none")})
    assert result["failed"] is True
    assert "none is not a folder" in result["msg"]
