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


@pytest.mark.parametrize("owned, line, theirs, expected", [
    ("a b", "a", "", "a b"),
    ("a b", "a", "a", "b"),
    ("a b", "b a a", "a", "a b"),
    ("a b", "a a", "a a", "b"),
    ("2M 4 1G 4", "4 2M 4", "4", "2M 1G 4"),
    ("2M 4 1G 4", "4 2M 4 1G 4", "4", "2M 4 1G 4"),
    ("", "a", "a", ""),
])  # fmt: skip
def test_what_is_there_no_more_often_than_others_have_it_is_not_ours(owned, line, theirs, expected):
    assert tokens.own(owned.split(), line.split(), theirs.split()) == expected.split()


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
        ("vfio_pci.ids=1:2,3:4", "vfio-pci.ids=3:4", True),
        ("vfio_pci.ids=1:2 vfio-pci.ids=3:4", "vfio-pci.ids=1:2", False),
        ("vfio_pci.ids=10de:1380,10de:1381", "vfio_pci.ids=10de:138", False),
        ("intel_iommu=on,sm_on", "intel_iommu=on", True),
        ("intel_iommu=sm_on,sm_off", "intel_iommu=sm_on", False),
        ("rd.driver.pre=vfio-pci rd.driver.pre=e1000e", "rd.driver.pre=vfio-pci", True),
        ("initcall_blacklist=a,b initcall_blacklist=c", "initcall_blacklist=b", True),
        ("module_blacklist=a module_blacklist=b", "module_blacklist=a", False),
        ("modprobe.blacklist=a modprobe.blacklist=b,c", "modprobe.blacklist=a,c", True),
        ("isolcpus=2-5", "isolcpus=2,3,4,5", True),
        ("isolcpus=domain,2-5", "isolcpus=2-5", True),
        ("isolcpus=managed_irq,2-5", "isolcpus=2-5", False),
        ("isolcpus=2-5 isolcpus=2-6", "isolcpus=2-5", True),
        ("isolcpus=2-5 isolcpus=2-6", "isolcpus=2-6", False),
        ("nohz_full=2-5", "nohz_full=5,4,2-3", True),
        ("nohz_full=2-3 nohz_full=4-7", "nohz_full=4-7", False),
        ("rcu_nocbs=2-3 rcu_nocbs=4-7", "rcu_nocbs=4-7", True),
        ("irqaffinity=2-3 irqaffinity=4-7", "irqaffinity=4-7", True),
        ("default_hugepagesz=2M default_hugepagesz=1G", "default_hugepagesz=1G", False),
        ("default_hugepagesz=1024M default_hugepagesz=2M", "default_hugepagesz=1G", True),
        ("isolcpus=0-N", "isolcpus=0-N", True),
        ("systemd.mask=a.service systemd.mask=b.service", "systemd.mask=a.service", True),
        ("rd.luks.uuid=1 rd.luks.name=2=root rd.luks.uuid=3", "rd.luks.uuid=1", True),
        ("ip=192.0.2.1::192.0.2.254:255.255.255.0::eth0:none ip=eth1:dhcp", "ip=eth1:dhcp", True),
        ("memmap=1G$4G memmap=2G$8G", "memmap=1G$4G", True),
        ("video=HDMI-A-1:1920x1080 video=efifb:off", "video=efifb:off", True),
        ("earlycon=uart,mmio32,0xfe earlycon", "earlycon=uart,mmio32,0xfe", True),
        ("pcie_acs_override=downstream,multifunction", "pcie_acs_override=downstream", True),
        ("console=ttyS0,115200", "console=ttyS0", False),
        ("console=tty0 console=ttyS0", "console=tty0", True),
        ("quiet", "quiet", True),
        ("ro", "quiet", False),
        ("ro -- intel_iommu=on", "intel_iommu=on", False),
    ],
)
def test_what_is_in_force(line, wanted, expected):
    assert tokens.has(tokens.split(line), wanted) is expected


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("intel_iommu=on", "intel_iommu=off", True),
        ("intel_iommu=on", "intel_iommu=sm_on", False),
        ("iommu=pt", "iommu=nopt", True),
        ("iommu=pt", "iommu=force", False),
        ("vfio-pci.ids=1:2", "vfio_pci.ids=3:4", True),
        ("vfio-pci.ids=1:2,3:4", "vfio_pci.ids=3:4", False),
        ("console=tty0", "console=ttyS0", False),
        ("rd.driver.pre=a", "rd.driver.pre=b", False),
        ("initcall_blacklist=a", "initcall_blacklist=b", False),
        ("rd.luks.uuid=1", "rd.luks.uuid=2", False),
        ("hugepages=4", "hugepages=512", False),
        ("isolcpus=2-3", "isolcpus=2,3", False),
        ("isolcpus=2-3", "isolcpus=2-4", True),
        ("default_hugepagesz=1G", "default_hugepagesz=1024M", False),
        ("quiet", "quiet", False),
        ("mitigations=off", "mitigations=auto", True),
    ],
)
def test_conflicts_go_both_ways_or_not_at_all(one, other, expected):
    assert tokens.conflicts(one, other) is expected
    if "," not in one + other:
        assert tokens.conflicts(other, one) is expected


PAIRS = "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=512".split()


@pytest.mark.parametrize(
    "line, wanted, lost",
    [
        (PAIRS, PAIRS, []),
        (PAIRS, "hugepagesz=2M hugepages=512".split(), []),
        (PAIRS, "hugepagesz=1G hugepages=512".split(), ["hugepagesz=1G", "hugepages=512"]),
        ("hugepagesz=2M hugepages=512 hugepagesz=1G hugepages=4".split(), PAIRS, []),
        ("hugepagesz=1024M hugepages=4".split(), PAIRS[:2], []),
        ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=4".split(), PAIRS[:2], PAIRS[:2]),
        ("hugepagesz=1G hugepages=0:2,1:4".split(), "hugepagesz=1G hugepages=0:2,1:4".split(), []),
        ("hugepages=4".split(), ["hugepages=4"], []),
        ("hugepagesz=1G hugepages=4".split(), ["hugepages=4"], ["hugepages=4"]),
        ("ro quiet".split(), ["quiet", "splash"], ["splash"]),
        (["hugepagesz=1G"] + PAIRS[:2], PAIRS[:2], PAIRS[:2]),  # a size that was named before: ignored, and so is what follows
        (PAIRS[:2] + PAIRS[:2], PAIRS[:2], []),
    ],
)
def test_pairs_by_position(line, wanted, lost):
    assert tokens.lacking(line, wanted) == lost


@pytest.mark.parametrize(
    "line, unit, theirs",
    [
        ("hugepagesz=1G hugepages=2", PAIRS[:2], ["hugepagesz=1G hugepages=2"]),
        ("hugepagesz=1024M hugepages=2 quiet", PAIRS[:2], ["hugepagesz=1024M hugepages=2"]),
        ("hugepagesz=1G", PAIRS[:2], ["hugepagesz=1G"]),
        ("hugepagesz=1G hugepages=4", PAIRS[:2], []),
        ("hugepagesz=2M hugepages=4", PAIRS[:2], []),
        ("hugepages=8 hugepagesz=1G hugepages=2", ["hugepages=4"], ["hugepages=8"]),
        ("isolcpus=2-3 isolcpus=8", ["isolcpus=4-7"], ["isolcpus=2-3"]),
        ("isolcpus=4-7 isolcpus=2-3", ["isolcpus=4,5,6,7"], []),
        ("mitigations=auto mitigations=nosmt", ["mitigations=off"], ["mitigations=nosmt"]),
        ("intel_iommu=off iommu=nopt", ["intel_iommu=on"], ["intel_iommu=off"]),
        ("console=ttyS0", ["console=tty0"], []),
        ("ro -- isolcpus=2-3", ["isolcpus=4-7"], []),
    ],
)
def test_what_of_a_line_is_in_force_against_a_unit(line, unit, theirs):
    assert tokens.opposed(line.split(), unit) == [{"ours": " ".join(unit), "theirs": text} for text in theirs]


@pytest.mark.parametrize("unit, wins", [(["isolcpus=2"], True), (PAIRS[:2], True), (["hugepages=4"], True),
                                        (["default_hugepagesz=1G"], True), (["rcu_nocbs=2"], False), (["quiet"], False)])
def test_which_the_first_wins(unit, wins):
    assert tokens.first_wins(unit) is wins


def test_pairs_survive_as_they_are_given():
    same = "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=4 hugepagesz=1G".split()
    assert tokens.check(PAIRS) == PAIRS
    assert tokens.check(same[:4]) == same[:4]
    assert tokens.units(["a"] + PAIRS) == [["a"], PAIRS[:2], PAIRS[2:]]
    with pytest.raises(ValueError, match="would not heed hugepagesz=1G hugepages=8"):
        tokens.check(PAIRS[:2] + ["hugepagesz=1G", "hugepages=8"])


def test_ours_together_go_before_the_same_words_of_others():
    line = PAIRS[:2] + ["quiet", "hugepagesz=2M", "hugepages=4"]
    assert tokens.without(line, PAIRS[:2]) == ["quiet", "hugepagesz=2M", "hugepages=4"]
    assert tokens.without(["a", "b", "a"], []) == ["a", "b", "a"]


def test_in_order():
    assert tokens.in_order("a b c".split(), "a c".split())
    assert not tokens.in_order("a b c".split(), "c a".split())


def test_effective_value_is_the_last():
    assert tokens.effective(["root=a", "root=b", "--", "root=c"], "root") == "b"
    assert tokens.effective(["ro"], "root") is None
    assert tokens.effective(["isolcpus=2", "isolcpus=3"], "isolcpus") == "2"


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
