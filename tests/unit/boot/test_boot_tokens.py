# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import tokens


@pytest.mark.parametrize(
    "line, expected",
    [
        ("ro  quiet\n", ["ro", "quiet"]),
        ('a="b c" d', ['a="b c"', "d"]),
        ('"a=b c" d', ['"a=b c"', "d"]),
        ("", []),
    ],
)
def test_split_keeps_the_kernels_quotes(line, expected):
    assert tokens.split(line) == expected


@pytest.mark.parametrize(
    "token, key, value",
    [
        ("intel_iommu=on", "intel_iommu", "on"),
        ("vfio-pci.ids=10de:1380", "vfio_pci.ids", "10de:1380"),
        ("quiet", "quiet", None),
        ('a="b c"', "a", "b c"),
        ('"a=b c"', "a", "b c"),
        ("a=b=c", "a", "b=c"),
    ],
)
def test_key_and_value(token, key, value):
    assert (tokens.key(token), tokens.value(token)) == (key, value)


@pytest.mark.parametrize(
    "line, wanted, expected",
    [
        ("intel_iommu=on", "intel_iommu=on", True),
        ("intel_iommu=off intel_iommu=on", "intel_iommu=on", True),
        ("intel_iommu=on intel_iommu=off", "intel_iommu=on", False),
        ("intel_iommu=on intel_iommu=sm_on", "intel_iommu=on", True),
        ("intel_iommu=on,off", "intel_iommu=on", False),
        ("intel_iommu=sm_on", "intel_iommu=on", False),
        ("intel_iommu", "intel_iommu=on", False),
        ("iommu=pt iommu=nopt", "iommu=pt", False),
        ("root=a root=b", "root=b", True),
        ("root=a root=b", "root=a", False),
        ("vfio_pci.ids=1:2 vfio-pci.ids=3:4", "vfio-pci.ids=1:2", True),
        ("console=tty0 console=ttyS0", "console=tty0", True),
        ("quiet", "quiet", True),
        ("ro", "quiet", False),
        ("ro -- intel_iommu=on", "intel_iommu=on", False),
    ],
)
def test_what_is_in_force(line, wanted, expected):
    assert tokens.has(tokens.split(line), wanted) is expected


def test_effective_value_is_the_last():
    assert tokens.effective(["root=a", "root=b", "--", "root=c"], "root") == "b"
    assert tokens.effective(["ro"], "root") is None


def test_overridden_names_what_is_defeated_only():
    line = tokens.split("console=tty0 intel_iommu=off intel_iommu=sm_on console=ttyS0 intel_iommu=on")
    assert tokens.overridden(line, ["intel_iommu=on", "console=ttyS0"]) == [
        {"ours": "intel_iommu=on", "theirs": "intel_iommu=off"}
    ]


def test_replace_moves_nothing_of_others():
    line = tokens.split("a b ours c ours")
    assert tokens.replace(line, ["ours"], ["new"]) == ["a", "b", "ours", "c", "new"]


@pytest.mark.parametrize(
    "bad", ["a b", "a='b'", 'a="b"', "a=$b", "a=`b`", "a\\b", "a\nb", "", "--", "-a", "a;b", "a{b", "#a", "a|b", "ü=1"]
)
def test_what_needs_quoting_is_refused(bad):
    with pytest.raises(ValueError, match="without quoting"):
        tokens.check(["quiet", bad])


def test_contradiction_is_refused_and_a_double_is_one():
    assert tokens.check(["iommu=pt", "iommu=pt"]) == ["iommu=pt"]
    with pytest.raises(ValueError, match="contradict"):
        tokens.check(["intel_iommu=on", "intel_iommu=off"])
