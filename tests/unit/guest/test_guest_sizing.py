# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes and the memory budget."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import sizing

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("value", "size"),
    [(4096, 4096), ("4096", 4096), ("256MiB", 256 * MIB), ("2 GiB", 2 * GIB), (" 1TiB ", 2**40), ("3KiB", 3072)],
)
def test_sizes(value, size):
    assert sizing.parse_size(value, "memory") == size


@pytest.mark.parametrize("value", ["2GB", "2G", "2g", "1.5GiB", "-1", -1, 0, "0MiB", True, None, "", "GiB", [1], 1.5])
def test_a_bad_size_is_named_with_its_place(value):
    with pytest.raises(ValueError, match="guest a: memory: .* is not a size") as caught:
        sizing.parse_size(value, "guest a: memory")
    assert repr(value) in str(caught.value)


def test_mem_total():
    assert sizing.mem_total("MemFree: 1 kB\nMemTotal:        4012345 kB\n") == 4012345 * 1024
    for text in (None, "", "MemTotal: many\n"):
        with pytest.raises(ValueError, match="no MemTotal"):
            sizing.mem_total(text)


def test_what_fits_exactly_is_accepted_and_one_byte_more_is_not():
    sizing.check_budget(4 * GIB, GIB, [("a", 2 * GIB)], [("b", GIB)])
    with pytest.raises(ValueError, match="memory") as caught:
        sizing.check_budget(4 * GIB - 1, GIB, [("a", 2 * GIB)], [("b", GIB)])
    for number in ("a 2048 MiB", "b 1024 MiB", "4096 MiB of 4095 MiB", "host_reserve"):
        assert number in str(caught.value)


def test_nothing_pinned_is_never_refused():
    sizing.check_budget(GIB, GIB, [], [("b", 9 * GIB)])


def test_huge_pages_of_every_size_or_of_the_one_that_old_kernels_tell():
    assert sizing.huge_pages("HugePages_Total:  3\nHugepagesize:  2048 kB\nHugetlb:  2097152 kB\n") == 2 * GIB
    assert sizing.huge_pages("HugePages_Total:  512\nHugepagesize:  2048 kB\n") == GIB
    assert sizing.huge_pages("MemTotal: 1 kB\n") == 0
