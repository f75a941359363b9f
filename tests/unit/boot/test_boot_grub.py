# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, grub_common, grub_menu
from ansible_collections.vfio.host.tests.unit.boot.grub_host import CUSTOM, menu_text


def test_the_menu_of_debian_12():
    menu = grub_menu.parse_menu(menu_text())
    assert menu["complete"] is True
    assert menu["default"] == "0"
    assert [(entry["path"], entry["kernel"], entry["recovery"]) for entry in menu["entries"]] == [
        ("0", "6.1.0-50-amd64", False),
        ("1>0", "6.1.0-50-amd64", False),
        ("1>1", "6.1.0-50-amd64", True),
        ("1>2", "6.0.0-1-amd64", False),
        ("1>3", "6.0.0-1-amd64", True),
    ]
    assert menu["entries"][0]["tokens"] == ["root=/dev/sda1", "ro", "console=ttyS0", "intel_iommu=off", "quiet"]
    assert len(grub.managed(menu)) == 3
    assert grub_menu.default_entry(menu)["title"] == "Debian GNU/Linux"


def test_default_by_identifier_below_a_submenu():
    menu = grub_menu.parse_menu(menu_text().replace('set default="0"', 'set default="gnulinux-advanced-x>%s"' % (
        "gnulinux-6.0.0-1-amd64-advanced-11111111-2222-3333-4444-555555555555")))
    assert grub_menu.default_entry(menu)["kernel"] == "6.0.0-1-amd64"


@pytest.mark.parametrize("cut", [200, 4000, 5000])
def test_a_menu_that_was_cut_is_not_complete(cut):
    menu = grub_menu.parse_menu(menu_text()[:cut])
    assert menu["complete"] is False
    assert any("ends in the middle" in reason for reason in grub.missing_in(menu, [], []))


def test_missing_names_entry_and_kernel():
    menu = grub_menu.parse_menu(menu_text())
    assert grub.missing_in(menu, ["6.1.0-50-amd64", "6.0.0-1-amd64"], ["quiet"]) == []
    reasons = grub.missing_in(menu, ["6.9"], ["intel_iommu=on"])
    assert len(reasons) == 4
    assert "no entry for the installed kernel 6.9" in reasons[0]
    assert grub.missing_in(None, [], []) == ["/boot/grub/grub.cfg cannot be read"]


def test_entries_of_others_do_not_count():
    menu = grub_menu.parse_menu(menu_text() + CUSTOM)
    assert menu["complete"] is True
    assert grub.missing_in(menu, ["6.1.0-50-amd64"], ["quiet"]) == []


def test_a_menu_without_entries_of_10_linux_is_missing():
    menu = grub_menu.parse_menu("### BEGIN /etc/grub.d/00_header ###\n### END /etc/grub.d/00_header ###\n")
    assert grub.missing_in(menu, [], []) == ["/boot/grub/grub.cfg has no entry from /etc/grub.d/10_linux"]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("linux\t/boot/vmlinuz a='b c' \"d e\" f\\ g # h", ["linux", "/boot/vmlinuz", "a=b c", "d e", "f g"]),
        ("menuentry 'it'\\''s' {", ["menuentry", "it's", "{"]),
        ("a#b ''", ["a#b", ""]),
    ],
)
def test_words(line, expected):
    assert grub_menu.words(line) == expected


@pytest.mark.parametrize(
    "texts, expected",
    [
        (['GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=a'], ["a", "quiet"]),
        (["GRUB_CMDLINE_LINUX='a b'", 'GRUB_CMDLINE_LINUX="${GRUB_CMDLINE_LINUX} c"'], ["a", "b", "c"]),
        (["GRUB_CMDLINE_LINUX_DEFAULT=a", "GRUB_CMDLINE_LINUX_DEFAULT+=' b' # c"], ["a", "b"]),
        (["#GRUB_CMDLINE_LINUX=a\nexport GRUB_CMDLINE_LINUX=b"], ["b"]),
        (['GRUB_CMDLINE_LINUX="$(cat /etc/x)"'], None),
        (["GRUB_CMDLINE_LINUX=`x`"], None),
        (['GRUB_CMDLINE_LINUX="$OTHER"'], None),
        (['GRUB_CMDLINE_LINUX="a\nb"'], None),
    ],
)
def test_settings_are_read_without_running_them(texts, expected):
    assert grub_menu.evaluate([("/f%d" % index, text) for index, text in enumerate(texts)])[0] == expected


def test_where_a_setting_comes_from():
    files = [("/a", "GRUB_CMDLINE_LINUX=x"), ("/b", 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX y"')]
    dummy, origin = grub_menu.evaluate(files)
    assert origin == {"x": "/a", "y": "/b"}


def test_record_and_render_agree():
    assert grub.parse_record(grub.render(["a=b", "c"])) == ["a=b", "c"]
    assert grub.parse_record(grub.render([], pending=True)) == []
    with pytest.raises(ValueError, match="not from this collection"):
        grub.parse_record("GRUB_TIMEOUT=1\n")
