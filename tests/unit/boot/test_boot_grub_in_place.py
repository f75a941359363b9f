# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB without drop-ins: what happens to /etc/default/grub, byte for byte."""

from __future__ import annotations

import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, record
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_in_place
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot.grub_host import GrubHost

SETTINGS = "/etc/default/grub"


def make(path, text, **more):
    return GrubHost(str(path), drop_ins=False, defaults=text, **more)


def go(host, parameters=("intel_iommu=on",), state="present", check=False, **more):
    return cmdline.run(host, dict(more, parameters=list(parameters), state=state, loader="auto"), check)


@pytest.mark.parametrize(
    "before, after",
    [
        ('A="quiet"', 'A="quiet a=1 b"'),
        ("A='quiet'", "A='quiet a=1 b'"),
        ("A=quiet", 'A="quiet a=1 b"'),
        ("A=", 'A="a=1 b"'),
        ('A=""', 'A="a=1 b"'),
        ('A="quiet  "', 'A="quiet  a=1 b"'),
        ('A="  quiet   splash"', 'A="  quiet   splash a=1 b"'),
        ('A="quiet"  # mine', 'A="quiet a=1 b"  # mine'),
        ('A="quiet"   ', 'A="quiet a=1 b"   '),
        ('\texport A="quiet"', '\texport A="quiet a=1 b"'),
        ('A="dyndbg=\\"file x +p\\""', 'A="dyndbg=\\"file x +p\\" a=1 b"'),
        ('A="old"\nA="quiet"', 'A="old"\nA="quiet a=1 b"'),
        ('A+=" quiet"', 'A+=" quiet a=1 b"'),
        ("#A=quiet\nB=1", '#A=quiet\nB=1\nA="a=1 b"'),
        ('A="quiet"\r', 'A="quiet a=1 b"\r'),
    ],
)
@pytest.mark.parametrize("ending", ["\n", ""])
def test_one_line_is_edited_and_not_a_byte_beside_it(before, after, ending):
    name = "GRUB_CMDLINE_LINUX_DEFAULT"
    text = "# first\n\n" + before.replace("A", name) + ending
    wanted = "# first\n\n" + after.replace("A", name) + ("\n" if "#A" in before else ending)
    done = grub_in_place.edited(text, ["a=1", "b"], [])
    assert done == wanted
    assert grub_in_place.edited(done, ["a=1", "b"], ["a=1", "b"]) == done
    back = grub_in_place.edited(done, [], ["a=1", "b"])
    assert "a=1" not in back and " b" not in back
    for word in ("quiet", "splash", "mine", "dyndbg"):
        assert back.count(word) == text.count(word)


@pytest.mark.parametrize(
    "line",
    [
        'A="$A more"',
        "A=$(cat /etc/more)",
        'A="`cat /etc/more`"',
        'A="quiet \\',
        'A="quiet',
        "A=a'b'",
        'A="a""b"',
        "A=a; B=c",
        "[ -e /x ] && A=quiet",
        'if true; then A="x"; fi',
        ". /etc/more",
        'eval "$more"',
        'A="quiet" true',
    ],
)
def test_what_takes_a_shell_is_refused_with_its_line(tmp_path, line):
    text = "# first\n" + line.replace("A", "GRUB_CMDLINE_LINUX_DEFAULT") + "\n"
    with pytest.raises(HostError, match="/etc/default/grub line 2"):
        grub_in_place.edited(text, ["a=1"], [])
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    host.write(SETTINGS, text)
    before = host.tree()
    with pytest.raises(HostError, match="line 2"):
        go(host)
    assert (host.tree(), host.calls) == (before, [])


@pytest.mark.parametrize(
    "text, line",
    [
        ('A="quiet"\nif [ -e /x ]; then\n    A="quiet x"\nfi\n', 2),
        ('A="quiet"\nif [ -e /x ]\nthen\nA="quiet x"\nfi\n', 2),
        ('if [ -e /x ]; then\nexit 0\nfi\nA="quiet"\n', 1),
    ],
)
def test_a_line_that_may_not_be_executed_is_not_edited(tmp_path, text, line):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    host.write(SETTINGS, text.replace("A", "GRUB_CMDLINE_LINUX_DEFAULT"))
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="/etc/default/grub line %d" % line):
            go(host, check=check)
        assert (host.tree(), host.calls) == (before, [])


def test_conditions_about_something_else_do_not_matter(tmp_path):
    text = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nif [ -e /x ]; then\n    GRUB_TERMINAL=console\nfi\n'
    host = make(tmp_path, text)
    before = host.tree()
    assert go(host)["changed"] is True
    go(host, state="absent")
    assert host.tree() == before


def test_a_file_that_is_no_utf_8_is_refused(tmp_path):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    host.write(SETTINGS, b'# caf\xe9\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    before = host.tree()
    with pytest.raises(HostError, match="not UTF-8 text"):
        go(host)
    assert host.tree() == before


def test_the_original_comes_back_with_its_mode(tmp_path):
    text = "GRUB_CMDLINE_LINUX_DEFAULT=quiet\n# the end"
    host = make(tmp_path, text)
    os.chmod(host.path(SETTINGS), 0o640)
    before = host.tree()
    go(host)
    assert host.stat(SETTINGS).st_mode & 0o777 == 0o640
    assert record.read(host)["originals"][SETTINGS]["text"] == text
    go(host, ["iommu=pt"])
    assert record.read(host)["originals"][SETTINGS] == {
        "text": text, "mode": 0o640, "after": record.digest(host.read(SETTINGS)),
    }
    go(host, state="absent")
    assert host.tree() == before


def test_what_an_administrator_changed_since_stays_and_ours_goes(tmp_path):
    host = make(tmp_path, "GRUB_CMDLINE_LINUX_DEFAULT=quiet\n")
    go(host)
    host.write(SETTINGS, host.read(SETTINGS).replace("quiet", "splash") + "GRUB_TIMEOUT=1\n")
    assert go(host, ["intel_iommu=on", "iommu=pt"])["changed"] is True
    assert record.read(host)["originals"] == {}
    go(host, state="absent")
    assert host.read(SETTINGS) == 'GRUB_CMDLINE_LINUX_DEFAULT="splash"\nGRUB_TIMEOUT=1\n'


def test_a_token_by_hand_is_neither_added_nor_taken(tmp_path):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"\n')
    before = host.tree()
    result = go(host, ["intel_iommu=on", "iommu=pt"])
    assert (result["owned"], result["by_hand"]) == (["iommu=pt"], ["intel_iommu=on"])
    assert host.read(SETTINGS) == 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"\n'
    go(host, state="absent")
    assert host.tree() == before


def test_an_empty_list_takes_out_ours_only(tmp_path):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n')
    go(host, [])
    assert host.read(SETTINGS) == 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n'
    go(host, ["intel_iommu=on"])
    go(host, [])
    assert host.read(SETTINGS) == 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n'


def test_the_fallback_entry_leaves_ours_out(tmp_path):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n', prefix="grub2")
    result = go(host, ["intel_iommu=on", "iommu=pt", "hugepagesz=1G", "hugepages=4"])
    safe = [entry for entry in result["next_boot"] if (entry["id"] or "").startswith("vfio-host-fallback")]
    assert [entry["tokens"][2:] for entry in safe] == [["quiet", "iommu=pt", "vfio_host=off"]] * 2


def test_a_lost_record_does_not_make_ours_an_administrators(tmp_path):
    host = make(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    go(host)
    host.remove(record.PATH)
    assert go(host)["owned"] == ["intel_iommu=on"]
    host.remove(record.PATH)
    go(host, state="absent")
    assert host.read(SETTINGS) == 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'


def test_without_drop_ins_the_other_backend_is_refused_by_name(tmp_path):
    host = make(tmp_path, "GRUB_CMDLINE_LINUX_DEFAULT=quiet\n")
    with pytest.raises(HostError, match="loader grub cannot be used here: grub-mkconfig does not read"):
        cmdline.run(host, {"parameters": ["a"], "state": "present", "loader": "grub"}, False)
