# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module end to end, and the recorder against it."""

from __future__ import annotations

import importlib.util
import os
import tarfile

import pytest

from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
from ansible_collections.vfio.host.plugins.modules import iommu_info
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module

TOOL = os.path.join(os.path.dirname(__file__), "..", "..", "..", "tools", "record_tree.py")


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


def test_a_recorded_tree_gives_the_same_document(tmp_path):
    tool = _tool()
    machine = p8h67(tmp_path / "machine")
    machine.write("/proc/self/environ", "SECRET=x\0SSH_CONNECTION=10.0.2.2 1 10.0.2.15 22\0")
    os.rename(machine.outside("/lib"), machine.outside("/usr/lib"))
    os.symlink("/usr/lib", machine.outside("/lib"))
    recorder = tool.recorder(Host)(machine.root)
    document = collect(recorder)
    assert document["host"]["ssh"]["server"] == "10.0.2.15"
    tool.record(recorder, str(tmp_path / "tree.tar.gz"))
    os.mkdir(str(tmp_path / "tree"))
    with tarfile.open(str(tmp_path / "tree.tar.gz")) as tar:
        assert all(not member.linkname.startswith("/") for member in tar)
        environ = tar.extractfile("proc/self/environ").read()
        tar.extractall(str(tmp_path / "tree"), **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    again = collect(Host(str(tmp_path / "tree")))
    again["source"]["root"] = document["source"]["root"]
    assert again == document
    assert environ == b"SSH_CONNECTION=10.0.2.2 1 10.0.2.15 22"


def _tool():
    spec = importlib.util.spec_from_file_location("record_tree", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool
