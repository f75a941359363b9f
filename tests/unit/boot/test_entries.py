# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import entries

DEBIAN = (
    "# Boot Loader Specification type#1 entry\n"
    "# File created by /usr/lib/kernel/install.d/90-loaderentry.install (systemd 257)\n"
    "title      Debian GNU/Linux 13 (trixie)\n"
    "version    6.12.57-amd64\n"
    "machine-id 0123456789abcdef0123456789abcdef\n"
    "sort-key   debian\n"
    "options    root=UUID=1 ro console=ttyS0 systemd.machine_id=0123456789abcdef0123456789abcdef\n"
    "linux      /debian/6.12.57-amd64/linux\n"
    "initrd     /debian/6.12.57-amd64/initrd.img-6.12.57-amd64\n"
)
RHEL8 = (
    "title Red Hat Enterprise Linux (4.18.0-147.el8.x86_64) 8.1 (Ootpa)\n"
    "version 4.18.0-147.el8.x86_64\n"
    "linux /vmlinuz-4.18.0-147.el8.x86_64\n"
    "initrd /initramfs-4.18.0-147.el8.x86_64.img $tuned_initrd\n"
    "options $kernelopts $tuned_params\n"
    "id rhel-20191002000000-4.18.0-147.el8.x86_64\n"
    "grub_users $grub_users\n"
)


def test_the_fields_of_an_entry():
    fields = entries.parse(DEBIAN)
    assert entries.first(fields, "sort-key") == "debian"
    assert entries.first(fields, "efi") is None
    assert entries.initrds(fields) == ["/debian/6.12.57-amd64/initrd.img-6.12.57-amd64"]
    assert entries.option_tokens(fields)[:3] == ["root=UUID=1", "ro", "console=ttyS0"]
    assert "File" not in fields and "#" not in fields


def test_variables_stay_tokens_and_can_be_expanded():
    found = entries.option_tokens(entries.parse(RHEL8))
    assert found == ["$kernelopts", "$tuned_params"]
    assert entries.variables(found) == ["kernelopts", "tuned_params"]
    assert entries.expand(found, {"kernelopts": "root=/dev/x ro"}) == (["root=/dev/x", "ro"], ["tuned_params"])
    assert entries.initrds(entries.parse(RHEL8)) == ["/initramfs-4.18.0-147.el8.x86_64.img", "$tuned_initrd"]


@pytest.mark.parametrize("text", [DEBIAN, RHEL8, RHEL8.replace("\n", "\r\n"), DEBIAN.replace("ro con", "ro  con\t")])
def test_adding_and_taking_out_gives_the_same_bytes(text):
    added = entries.edit(text, [], ["intel_iommu=on", "iommu=pt"])
    assert entries.option_tokens(entries.parse(added))[-2:] == ["intel_iommu=on", "iommu=pt"]
    assert added.replace(" intel_iommu=on iommu=pt", "") == text
    assert entries.edit(added, ["intel_iommu=on", "iommu=pt"], []) == text


def test_only_one_of_two_equal_tokens_goes_and_it_is_the_last():
    text = "options a=1 quiet a=1 ro\nlinux /a=1\n"
    assert entries.edit(text, ["a=1"], []) == "options a=1 quiet ro\nlinux /a=1\n"
    assert entries.edit(text, ["a=1", "a=1"], []) == "options quiet ro\nlinux /a=1\n"
    assert entries.edit(text, ["a=1", "a=1", "a=1"], []) == "options quiet ro\nlinux /a=1\n"


def test_a_part_of_a_token_is_not_the_token():
    text = "options xintel_iommu=on intel_iommu=on,sm_on \"a intel_iommu=on b\"\n"
    assert entries.edit(text, ["intel_iommu=on"], []) == text


def test_an_empty_list_takes_nothing_out():
    assert entries.edit(DEBIAN, [], []) == DEBIAN


def test_several_options_lines():
    text = "options a\nlinux /l\noptions  b c \n"
    assert entries.option_tokens(entries.parse(text)) == ["a", "b", "c"]
    added = entries.edit(text, [], ["x=1"])
    assert added == "options a\nlinux /l\noptions  b c x=1 \n"
    assert entries.edit(added, ["a"], []) == "linux /l\noptions  b c x=1 \n"
    assert entries.edit(added, ["x=1"], ["y"]) == "options a\nlinux /l\noptions  b c y \n"


def test_what_is_for_init_stays_behind_ours():
    text = "options a -- single\noptions b\n"
    assert entries.edit(text, [], ["x=1"]) == "options a x=1 -- single\noptions b\n"
    assert entries.edit("options a x=1 -- single\n", ["x=1"], []) == "options a -- single\n"


def test_an_entry_without_options():
    with pytest.raises(ValueError):
        entries.edit("linux /l\n", [], ["x=1"])
    assert entries.edit("linux /l", [], ["x=1"], base=["$default_kernelopts"]) == (
        "linux /l\noptions $default_kernelopts x=1\n"
    )
    assert entries.edit("linux /l\noptions x=1\n", ["x=1"], []) == "linux /l\n"
    assert entries.edit("linux /l\noptions x=1\n", ["x=1"], ["y"]) == "linux /l\noptions y\n"


@pytest.mark.parametrize("text", ["options\nlinux /l\n", "  options \t\n", "options"])
def test_options_without_a_value(text):
    added = entries.edit(text, [], ["x=1"])
    assert entries.option_tokens(entries.parse(added)) == ["x=1"]


@pytest.mark.parametrize(
    "text, added",
    [
        ("root=1 ro\n", "root=1 ro x=1\n"),
        ("root=1 ro", "root=1 ro x=1"),
        ("  root=1\n\n# why\nquiet \t\n# end\n", "  root=1\n\n# why\nquiet x=1 \t\n# end\n"),
        ("root=1 -- single\nro\n", "root=1 x=1 -- single\nro\n"),
        ("# none\n", "# none\nx=1\n"),
        ("", "x=1\n"),
    ],
)
def test_a_file_that_is_one_command_line(text, added):
    assert entries.edit_line(text, [], ["x=1"]) == added
    assert entries.edit_line(added, ["x=1"], []) == text
    assert entries.line_tokens(added).count("x=1") == 1


def test_a_token_in_a_comment_of_such_a_file_stays():
    assert entries.edit_line("# x=1\nx=1 a\n", ["x=1", "x=1"], []) == "# x=1\na\n"
    assert entries.line_tokens("# x=1\nx=1 a\n") == ["x=1", "a"]


@pytest.mark.parametrize(
    "left_out, expected",
    [(entries.COMMENT, ["a"]), (entries.FLUSH_COMMENT, ["#", "y=2", "a"]), (None, ["#", "x=1", "#", "y=2", "a"])],
)
def test_what_is_a_comment_in_such_a_file_goes_by_who_reads_it(left_out, expected):
    assert entries.line_tokens("# x=1\n  # y=2\na\n", left_out) == expected


def test_comments_are_no_options():
    assert entries.edit("# options a\noptions b\n", ["a"], ["c"]) == "# options a\noptions b c\n"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("debian-6.1.conf", ("debian-6.1", None, 0)),
        ("debian-6.1+3.conf", ("debian-6.1", 3, 0)),
        ("debian-6.1+0-3.efi", ("debian-6.1", 0, 3)),
        ("debian-6.1+b1.conf", ("debian-6.1+b1", None, 0)),
        ("ARCH.CONF", ("ARCH", None, 0)),
    ],
)
def test_names_with_boot_counting(name, expected):
    assert entries.split_name(name) == expected


@pytest.mark.parametrize(
    "older, newer",
    [
        ("6.1.0-9-amd64", "6.1.0-10-amd64"),
        ("6.1~rc1", "6.1"),
        ("6.1", "6.1^p"),
        ("6.1-1", "6.1.1"),
        ("6.1.1", "6.1a"),
        ("6.1.a", "6.1.0"),
        ("", "0"),
        ("~", ""),
        ("arch", "vfio"),
    ],
)
def test_versions(older, newer):
    assert entries.compare_versions(older, newer) == -1
    assert entries.compare_versions(newer, older) == 1


@pytest.mark.parametrize("one, other", [("6.01", "6.1"), ("6.1_", "6.1"), (None, ""), ("a", "a")])
def test_equal_versions(one, other):
    assert entries.compare_versions(one, other) == 0


def test_the_order_of_entries():
    def entry(entry_id, left=None, **fields):
        return {"id": entry_id, "left": left, "fields": {key.replace("_", "-"): [fields[key]] for key in fields}}

    given = [
        entry("vfio-host-fallback"),
        entry("bad-9", left=0, sort_key="a", version="9"),
        entry("m-6.1.0-9", sort_key="debian", machine_id="m", version="6.1.0-9"),
        entry("m-6.1.0-10", sort_key="debian", machine_id="m", version="6.1.0-10"),
        entry("arch"),
        entry("other", sort_key="debian", machine_id="a", version="1"),
        entry("zz", sort_key="zz"),
    ]
    assert [found["id"] for found in entries.order(given)] == [
        "other", "m-6.1.0-10", "m-6.1.0-9", "zz", "vfio-host-fallback", "arch", "bad-9",
    ]  # fmt: skip
