# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints of QEMU machines (tools/topologies/run.py --keep): with the IOMMU off the kernel's groups are predicted."""

from __future__ import annotations

import glob
import lzma
import os
import re

import pytest

from ansible_collections.vfio.host.tools.topologies import comparison, printed

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PRINTS = sorted(glob.glob(os.path.join(CHECKOUT, "tests", "corpus", "topologies-qemu", "*.txt.xz")))


def load(path):
    """The prints of the boots with the IOMMU off and on."""
    with lzma.open(path, "rt", encoding="utf-8") as handle:
        before, dummy, after = handle.read().partition(printed.END)
    count, dummy, rest = after.partition("\n")
    return before + printed.END + count, rest


def ports():
    return load(next(path for path in PRINTS if os.path.basename(path) == "ports-intel.txt.xz"))


@pytest.mark.parametrize("path", PRINTS, ids=lambda path: os.path.basename(path)[:-len(".txt.xz")])
def test_prediction_is_what_the_kernel_did(path):
    functions, groups, differences = comparison.compare(*load(path))
    assert differences == []
    assert functions > groups > 4


def test_there_are_prints():
    assert len(PRINTS) >= 8


def test_another_group_is_told_with_its_addresses():
    off, on = ports()
    number = re.search(r"0000:02:00\.0 .*?IOMMU group: (\d+)", on, re.DOTALL).group(1)
    assert "\tIOMMU group: %s\n" % number in on
    moved = re.sub(r"(0000:02:00\.0 .*?IOMMU group: )\d+", r"\g<1>99", on, count=1, flags=re.DOTALL)
    differences = comparison.compare(off, moved)[2]
    assert "predicted with the IOMMU off, not so: 0000:00:02.0 0000:02:00.0" in differences
    assert "predicted with the IOMMU off, missing: 0000:02:00.0" in differences


def test_a_function_that_lost_its_group_is_a_difference():
    off, on = ports()
    lost = re.sub(r"(0000:01:00\.0 .*?)\tIOMMU group: \d+\n", r"\g<1>", on, count=1, flags=re.DOTALL)
    assert any("not so: 0000:01:00.0" in line for line in comparison.compare(off, lost)[2])


def test_the_prediction_sees_nothing_of_the_boot_that_it_is_held_against():
    off, on = ports()
    assert comparison.compare(on, on)[2] == ["the kernel formed groups with the IOMMU off"]
    assert comparison.compare(off, off)[2] == ["the kernel formed no groups with the IOMMU on"]


def test_other_bus_numbers_are_a_difference():
    off, on = ports()
    differences = comparison.compare(off, on.replace("0000:03:00.3", "0000:03:00.4"))[2]
    assert differences == ["the two boots have different functions or bus numbers"]


def test_bus_numbers_that_are_not_the_nesting_are_a_difference():
    off, on = ports()
    nested = "/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    assert nested in off
    moved = "/sys/devices/pci0000:00/0000:00:03.0/0000:01:00.0"
    differences = comparison.compare(off.replace(nested, moved), on.replace(nested, moved))[2]
    assert "IOMMU off: 0000:01:00.0 is below 0000:00:03.0 in sysfs, below 0000:00:01.0 by bus numbers" in differences


@pytest.mark.parametrize("damage", [
    lambda text: text[:len(text) // 2],
    lambda text: text.replace("f0: ", "[    3.1] f0: ", 1),
    lambda text: re.sub(r"\n30: .*", "", text, count=1),
    lambda text: text.replace("ends: ", "ends: 1"),
], ids=["cut", "kernel message", "row lost", "count"])
def test_a_print_that_is_not_whole_is_no_result(damage):
    off, dummy = ports()
    printed.read(off)
    with pytest.raises(ValueError):
        printed.read(damage(off))
