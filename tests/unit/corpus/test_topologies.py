# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints of emulated machines (tools/topologies/run.py --keep): the prediction against the kernel's groups, without QEMU."""

from __future__ import annotations

import glob
import lzma
import os

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import quirks
from ansible_collections.vfio.host.tools.topologies import comparison

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "corpus", "topologies")
BEGIN = "vfio.host topology begins"
NAMES = sorted(os.path.basename(path)[:-len(".txt.xz")] for path in glob.glob(os.path.join(FOLDER, "*.txt.xz")))


def prints(name):
    """What the machine printed with the IOMMU off, and with it on."""
    with lzma.open(os.path.join(FOLDER, name + ".txt.xz"), "rt", encoding="utf-8") as handle:
        dummy, off, on = handle.read().split(BEGIN)
    return BEGIN + off, BEGIN + on


@pytest.mark.parametrize("name", NAMES)
def test_predicted_with_the_iommu_off_as_the_kernel_formed_them(name):
    functions, groups, differences = comparison.compare(*prints(name))
    assert differences == []
    assert functions > 8 and groups > 4


def test_there_are_both_vendors_and_the_kinds_that_matter():
    assert {name.rpartition("-")[2] for name in NAMES} == {"amd", "intel"} and len(NAMES) >= 6


def test_a_wrong_quirk_is_seen(monkeypatch):
    """The same prints, with every function thought to make requests as function 0 of its bus too."""
    monkeypatch.setattr(quirks, "aliases", lambda function: [0])
    found = [comparison.compare(*prints(name))[2] for name in NAMES]
    assert any(found)
