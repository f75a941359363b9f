# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot.grub_host import CUSTOM, GrubHost, menu_text

MENU = "/boot/grub/grub.cfg"
ASKED = {"parameters": ["intel_iommu=on"], "state": "present", "loader": "auto"}
CONDITIONAL = """\
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""
if [ -e /nonexistent/serial ]; then
    GRUB_CMDLINE_LINUX_DEFAULT="quiet console=ttyS0"
fi
"""
UUID = "11111111-2222-3333-4444-555555555555"


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
    assert len([entry for entry in menu["entries"] if grub_menu.ordinary(entry)]) == 3
    assert grub_menu.default_entry(menu)["title"] == "Debian GNU/Linux"


def test_default_by_identifier_below_a_submenu():
    chosen = "gnulinux-advanced-%s>gnulinux-6.0.0-1-amd64-advanced-%s" % (UUID, UUID)
    menu = grub_menu.parse_menu(menu_text().replace('set default="0"', 'set default="%s"' % chosen))
    assert grub_menu.default_entry(menu)["kernel"] == "6.0.0-1-amd64"


@pytest.fixture
def host(tmp_path):
    return GrubHost(str(tmp_path))


@pytest.mark.parametrize("cut", [200, 4000, 5000])
def test_a_menu_that_was_cut_is_not_complete(host, cut):
    assert grub_menu.parse_menu(menu_text()[:cut])["complete"] is False
    host.write(MENU, menu_text()[:cut])
    assert any("ends in the middle" in reason for reason in grub.view(host)["problems"])


def test_the_stand_in_makes_what_debian_made(host):
    assert host.read(MENU) == menu_text()


def test_problems_name_entry_and_kernel(host):
    assert grub.view(host)["problems"] == []
    host.write("/boot/vmlinuz-6.9", "")
    host.remove("/boot/initrd.img-6.1.0-50-amd64")
    problems = grub.view(host)["problems"]
    assert problems[0] == MENU + " has no entry for the installed kernel 6.9"
    assert "'Debian GNU/Linux' of %s: /boot/initrd.img-6.1.0-50-amd64 is not there" % MENU in problems[1]
    host.remove(MENU)
    assert grub.view(host)["problems"] == [MENU + " cannot be read"]


@pytest.mark.parametrize("prefix", ["", "/boot", "/@/boot", "/@boot", "/BOOT/ubuntu_x@", "/ROOT/ubuntu_x@/boot"])
def test_files_below_what_only_grub_sees(host, prefix):
    """A filesystem for /boot, a subvolume of its own for it, a pool of ZFS."""
    host.boot_prefix = prefix
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    seen = grub.view(host)
    assert seen["problems"] == []
    assert seen["entries"][0]["initrds"] == ["/boot/initrd.img-6.1.0-50-amd64"]
    assert cmdline.run(host, ASKED, True)["changed"] is cmdline.run(host, ASKED, False)["changed"] is True
    assert cmdline.run(host, ASKED, False)["changed"] is False
    host.remove("/boot/initrd.img-6.1.0-50-amd64")
    assert "%s/initrd.img-6.1.0-50-amd64 is not there" % prefix in grub.view(host)["problems"][0]


def test_entries_of_others_are_seen_and_not_managed(host):
    host.write(MENU, menu_text() + CUSTOM)
    seen = grub.view(host)
    assert seen["problems"] == []
    assert [(entry["title"], entry["managed"]) for entry in seen["entries"]][-1] == ("mine", False)


def test_a_menu_without_entries_of_10_linux_is_a_problem(host):
    host.write(MENU, "### BEGIN /etc/grub.d/00_header ###\n### END /etc/grub.d/00_header ###\n")
    assert grub.view(host)["problems"] == [MENU + " has no entry from /etc/grub.d/10_linux"]


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
        (["GRUB_CMDLINE_LINUX=a\nif [ -e /x ]; then\n    GRUB_CMDLINE_LINUX=b\nfi"], None),
        (["GRUB_CMDLINE_LINUX=a\nif [ -e /x ]\nthen\nGRUB_CMDLINE_LINUX=b\nfi"], None),
        (["GRUB_CMDLINE_LINUX=a\ncase x in\ny) GRUB_CMDLINE_LINUX=b ;;\nesac"], None),
        (["GRUB_CMDLINE_LINUX=a\n[ -e /x ] && GRUB_CMDLINE_LINUX=b"], None),
        (["GRUB_CMDLINE_LINUX=a\n[ -e /x ] ||\nGRUB_CMDLINE_LINUX=b"], None),
        (["GRUB_CMDLINE_LINUX=a\nadd() {\nGRUB_CMDLINE_LINUX=b\n}"], None),
        (["GRUB_CMDLINE_LINUX=a\n  GRUB_CMDLINE_LINUX=b"], ["b"]),
        (["GRUB_CMDLINE_LINUX=a;\nGRUB_X='it is if; then'  # && (\nGRUB_Y=${GRUB_X} exit=1"], ["a"]),
        (["GRUB_CMDLINE_LINUX=a\nX=1 GRUB_CMDLINE_LINUX=b"], None),
        (["GRUB_CMDLINE_LINUX=a; GRUB_CMDLINE_LINUX=b"], None),
        (["GRUB_CMDLINE_LINUX=a true"], None),
        (["GRUB_CMDLINE_LINUX=a\nunset GRUB_CMDLINE_LINUX"], None),
        (["GRUB_CMDLINE_LINUX=a\n: ${GRUB_CMDLINE_LINUX:=b}"], None),
        (["GRUB_CMDLINE_LINUX=a\n. /etc/more"], None),
        (["GRUB_CMDLINE_LINUX=a\nsource /etc/more"], None),
        (["GRUB_CMDLINE_LINUX=a\neval \"$x\""], None),
        (["exit 0\nGRUB_CMDLINE_LINUX=a"], None),
        (["GRUB_CMDLINE_LINUX=a", "if [ -e /x ]; then\n    GRUB_TERMINAL=console\nfi"], ["a"]),
        (["GRUB_CMDLINE_LINUX=a", "if [ -e /x ]; then\n    exit 0\nfi", "GRUB_CMDLINE_LINUX=b"], None),
        (["GRUB_CMDLINE_LINUX=a\nexport GRUB_CMDLINE_LINUX\n# if GRUB_CMDLINE_LINUX=b\nGRUB_X=\"if $GRUB_CMDLINE_LINUX\""], ["a"]),
    ],
)
def test_settings_are_read_without_running_them(texts, expected):
    assert grub_menu.evaluate([("/f%d" % index, text) for index, text in enumerate(texts)])[0] == expected


def test_where_a_setting_comes_from():
    files = [("/a", "GRUB_CMDLINE_LINUX=x"), ("/b", 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX y"')]
    dummy, origin = grub_menu.evaluate(files)
    assert origin == {"x": "/a", "y": "/b"}


def test_what_a_shell_decides_is_no_expectation_of_the_menu(host):
    host.write("/etc/default/grub", CONDITIONAL)
    predicted = cmdline.run(host, ASKED, True)
    done = cmdline.run(host, ASKED, False)
    assert predicted["changed"] is done["changed"] is True and done["configured"] is None
    assert [entry["tokens"][2:] for entry in done["next_boot"] if entry["managed"]] == [["quiet", "intel_iommu=on"]] * 3
    assert cmdline.run(host, ASKED, False)["changed"] is False
    cmdline.run(host, dict(ASKED, state="absent"), False)
    assert host.read("/etc/default/grub") == CONDITIONAL and not host.exists(grub.DROP_IN)


def test_record_and_render_agree():
    assert grub.parse_record(grub.render(["a=b", "c"])) == ["a=b", "c"]
    old = grub.render(["a=b"]).split("# what", maxsplit=1)[0] + "# pending: not generated\n"
    assert grub.parse_record(old) == ["a=b"]
    with pytest.raises(ValueError, match="not from this collection"):
        grub.parse_record("GRUB_TIMEOUT=1\n")


def test_a_word_with_a_space_reaches_the_kernel_in_quotes(host):
    text = "GRUB_CMDLINE_LINUX_DEFAULT='quiet dyndbg=\"file drivers/vfio/* +p\"'\n"
    host.write("/etc/default/grub", text)
    grub.generate(host)
    seen = grub.view(host)
    assert seen["problems"] == []
    assert seen["entries"][0]["tokens"][-2:] == ["quiet", '"dyndbg=file drivers/vfio/* +p"']
    assert tokens.has(seen["entries"][0]["tokens"], grub.configured(host)[0][-1])


# -- a default that counts -----------------------------------------------------------------

MINE = """\
menuentry 'A: memory test' {
 linux16 /memtest
}
menuentry 'B: the old kernel' --id old {
 linux /vmlinuz-5 root=/dev/sda1 ro
}
submenu 'C: more' --id more {
 menuentry 'C0' { linux /vmlinuz-c0
}
 menuentry 'C1' { chainloader +1
}
}
menuentry 'D: another system' {
 chainloader +1
}
"""
BACKENDS = {"grub": {}, "grub_in_place": {"drop_ins": False}}


def counting(tmp_path, default, saved=None, backend="grub", scripts=(("45_mine", MINE),), ours=False):
    """A host with entries behind ours, started by GRUB_DEFAULT; ``ours``: ours is there already."""
    found = GrubHost(str(tmp_path), **BACKENDS[backend])
    for name, text in scripts:
        found.write("/etc/grub.d/" + name, "#!/bin/sh\ncat <<'X'\n%sX\n" % text, mode=0o755)
    if ours:
        cmdline.run(found, ASKED, False)
    found.write("/etc/default/grub", found.read("/etc/default/grub") + "\nGRUB_DEFAULT='%s'\n" % default)
    if saved:
        found.editenv(["grub-editenv", "/boot/grub/grubenv", "set", "saved_entry=" + saved])
    found.mkconfig(["grub-mkconfig", "-o", MENU])
    found.calls.clear()
    return found


def starts(host):
    menu = grub_common.menu_of(host)
    return grub_menu.started(menu["all"], grub_menu.asked(menu, grub_common.saved_entry(host)))["title"]


def refused(host, said, **more):
    """By check mode and by the run in the same words, and nothing is touched."""
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="^nothing was changed: " + said):
            cmdline.run(host, dict(ASKED, **more), check)
        assert (host.tree(), host.calls) == (before, [])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "default, saved, was, now, place, name",
    [
        ("3", None, "B: the old kernel", "A: memory test", "GRUB_DEFAULT=3", "'old'"),
        ("saved", "3", "B: the old kernel", "A: memory test", "saved_entry=3 in /boot/grub/grubenv", "grub-set-default 'old'"),
        ("4>1", None, "C1", "B: the old kernel", "GRUB_DEFAULT=4>1", "'more>C1'"),
        ("5", None, "D: another system", "C0", "GRUB_DEFAULT=5", "'D: another system'"),
        ("2", None, "A: memory test", "Without VFIO: Debian GNU/Linux", "GRUB_DEFAULT=2", "'A: memory test'"),
        ("2>7", None, "A: memory test", "Without VFIO: Debian GNU/Linux", "GRUB_DEFAULT=2>7", "'A: memory test'"),
        ("6", None, "Debian GNU/Linux", "D: another system", "GRUB_DEFAULT=6", "gnulinux-simple-%s'" % UUID),
    ],
)
def test_a_number_is_refused_that_would_mean_another_entry(tmp_path, backend, default, saved, was, now, place, name):
    host = counting(tmp_path, default, saved, backend)
    assert starts(host) == was
    refused(host, "the default would be '%s' instead of '%s', for %s counts .* correct it first.*%s" % (now, was, place, name))
    assert cmdline.run(host, dict(ASKED, fallback_entry=False), False)["changed"] is True
    assert starts(host) == was


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("default, saved", [
    ("0", None), ("1>2", None), ("old", None), ("B: the old kernel", None), ("more>1", None), ("9", None),
    ("saved", "old"), ("saved", None), ("saved", "1>2"),
])  # fmt: skip
def test_a_name_or_a_number_in_front_of_ours_goes_on_meaning_the_same(tmp_path, backend, default, saved):
    host = counting(tmp_path, default, saved, backend)
    was = starts(host)
    assert cmdline.run(host, ASKED, True)["changed"] is cmdline.run(host, ASKED, False)["changed"] is True
    assert starts(host) == was
    assert cmdline.run(host, ASKED, False)["changed"] is False
    cmdline.run(host, dict(ASKED, state="absent"), False)
    assert starts(host) == was


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_that_counts_ours_is_refused_on_the_way_back(tmp_path, backend):
    """The remedy is enough by itself: the menu need not be made by hand."""
    host = counting(tmp_path, "4", backend=backend, ours=True)
    assert starts(host) == "B: the old kernel"
    refused(host, "the default would be 'C0' instead of 'B: the old kernel', for GRUB_DEFAULT=4 counts", state="absent")
    assert cmdline.run(host, dict(ASKED, parameters=["iommu=pt"]), False)["changed"] is True
    host.write("/etc/default/grub", host.read("/etc/default/grub").replace("GRUB_DEFAULT='4'", "GRUB_DEFAULT='old'"))
    assert cmdline.run(host, dict(ASKED, state="absent"), False)["changed"] is True
    assert starts(host) == "B: the old kernel"
    assert not host.exists(grub_common.FALLBACK)


def test_a_number_that_is_wrong_in_the_settings_is_seen_before_the_menu_has_it(tmp_path):
    host = counting(tmp_path, "old")
    host.write("/etc/default/grub", host.read("/etc/default/grub").replace("GRUB_DEFAULT='old'", "GRUB_DEFAULT=3"))
    refused(host, "the default would be 'A: memory test' instead of 'B: the old kernel', for GRUB_DEFAULT=3")


def test_a_number_that_kernels_have_moved_is_not_for_us_to_refuse(tmp_path):
    """They come with a menu of their own, or would have moved it with the next."""
    host = counting(tmp_path, "4", scripts=(("30_mine", MINE),))
    host.write("/etc/default/grub", host.read("/etc/default/grub") + "GRUB_DISABLE_SUBMENU=y\n")
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    assert starts(host) == "A: memory test"
    host.write("/boot/vmlinuz-6.9.0-1-amd64", "")
    assert cmdline.run(host, ASKED, True)["changed"] is cmdline.run(host, ASKED, False)["changed"] is True
    assert starts(host) == "Debian GNU/Linux, with Linux 6.0.0-1-amd64"


@pytest.mark.parametrize("body", ["chainloader +1", "linux /vmlinuz-7"])
def test_a_number_that_others_have_moved_meanwhile_keeps_the_menu_from_its_place(tmp_path, body):
    """An entry more of os-prober, for one: with the menu of this run the host would start another system."""
    host = counting(tmp_path, "2", scripts=(("40_custom", MINE),))
    text = "#!/bin/sh\ncat <<'X'\nmenuentry 'found' {\n %s\n}\nX\n" % body
    host.write("/etc/grub.d/30_os-prober", text, mode=0o755)
    before = host.tree()
    with pytest.raises(HostError, match="the default would be 'found' instead of 'A: memory test', for GRUB_DEFAULT=2 counts"):
        cmdline.run(host, ASKED, False)
    assert host.tree() == before


@pytest.mark.parametrize("default", ["2", "vfio-host-fallback", "Without VFIO (vfio.host)>1"])
def test_an_entry_of_ours_that_is_the_default_does_not_go(tmp_path, default):
    host = counting(tmp_path, default, ours=True)
    refused(host, "the default would be '.*' instead of 'Without VFIO: .* means an entry of ours, which goes", state="absent")


def test_a_default_that_another_script_sets_is_named_with_it(tmp_path):
    host = counting(tmp_path, "0", scripts=(("45_mine", MINE + "set default=3\n"),))
    refused(host, "the default would be 'A: memory test' .* for set default=3 in /etc/grub.d/45_mine .*[(]set default='old'[)]")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", None),
        ("GRUB_DEFAULT=2\n", "2"),
        ("GRUB_DEFAULT=2\nexport GRUB_DEFAULT='1>a b' # c\n", "1>a b"),
        ("GRUB_DEFAULT=saved\n", "${saved_entry}"),
        ("GRUB_DEFAULT=\n", "0"),
        ("# GRUB_DEFAULT=3\n", None),
        ("GRUB_DEFAULT=$x\n", None),
        ("GRUB_DEFAULT=2\nif a; then\n    GRUB_DEFAULT=3\nfi\n", None),
    ],
)
def test_the_default_in_the_settings(text, expected):
    assert grub_menu.default_setting([("/f", text)]) == expected
