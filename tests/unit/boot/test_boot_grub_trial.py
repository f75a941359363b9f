# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB: the entry that boots once, and the fallback entry's script in the shells of small systems."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, edits, loader
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot.grub_host import GrubHost

KERNEL = "6.1.0-50-amd64"
IMAGE = "/boot/vfio-host-trial-%s.img" % KERNEL
MENU = "/boot/grub/grub.cfg"
SHELLS = [argv for argv in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(argv[0])]


@pytest.fixture
def host(tmp_path):
    found = GrubHost(str(tmp_path))
    found.write(IMAGE, "image")
    return found


def line(host):
    return loader.default_of(grub.view(host))["tokens"] + ["intel_iommu=on", loader.TRIAL]


def stage(host, image=IMAGE, kernel=KERNEL, tokens=None):
    wanted = line(host) if tokens is None else tokens
    edits.write(host, grub.trial(host, kernel, image, wanted))
    grub.generate(host)


def entry(host):
    found = [item for item in grub.view(host)["entries"] if item["id"] == loader.TRIAL_ID]
    return found[0] if found else None


def test_the_trial_entry_is_the_default_with_another_line_and_image(host):
    before = host.read(MENU)
    wanted = line(host)
    stage(host)
    made = entry(host)
    assert (made["tokens"], made["initrds"], made["kernel"]) == (wanted, [IMAGE], KERNEL)
    assert not made["managed"] and not made["default"]
    assert host.read(MENU).startswith(before.rstrip("\n"))
    body = host.read(MENU).split("43_vfio-host-trial ###\n")[1]
    assert "\tset root='hd0,msdos1'\n" in body and "\tload_video\n" in body
    assert "\tlinux\t/boot/vmlinuz-%s " % KERNEL in body
    assert grub.trial(host, KERNEL, IMAGE, wanted) == []


GRUB = """\
set() { eval "$1"; }
for name in load_video insmod search echo; do eval "$name() { :; }"; done
linux() { fails linux; }
initrd() { fails initrd; }
boot() { fails boot || return 1; printf boot; exit; }
configfile() { printf "configfile $1"; }
fails() { case " $FAILS " in *" $1 "*) return 1 ;; esac; }
prefix='(hd0)/boot/grub'
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="only there is set a name like others")
@pytest.mark.parametrize(
    "fails, done",
    [("", "boot"), ("linux initrd", "menu"), ("initrd", "menu"), ("boot", "menu"), ("linux initrd boot", "menu")],
)
@pytest.mark.parametrize("device_tree", [False, True])
def test_what_grub_cannot_load_or_start_leads_to_the_ordinary_default(host, fails, done, device_tree):
    """A kernel that was removed since, say. Without it GRUB waits at its menu for somebody with a keyboard."""
    if device_tree:  # comes last, and is for the kernel that was loaded
        text = host.read("/etc/grub.d/10_linux")
        host.write("/etc/grub.d/10_linux", text.replace('    echo "$1}"\n', '    echo "$1\techo tree"\n    echo "$1}"\n'), mode=0o755)
        grub.generate(host)
    stage(host)
    body = host.read(MENU).split("--id 'vfio-host-trial' {\n")[1].split("\n}\n")[0]
    assert ("echo tree" in body) is device_tree
    ran = subprocess.run(["bash", "-c", GRUB + body], env={"FAILS": fails}, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("boot" if done == "boot" else "configfile (hd0)/boot/grub/grub.cfg", "")


@pytest.mark.skipif(not shutil.which("grub-script-check"), reason="grub-script-check is not installed")
def test_grub_understands_the_menu(host):
    cmdline.run(host, {"parameters": ["iommu=pt"], "state": "present", "loader": "auto"}, False)
    stage(host)
    done = subprocess.run(["grub-script-check", host.path(MENU)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_goes_without_a_trace(host):
    before = host.tree()
    stage(host)
    assert not grub.once_traces(host)
    grub.set_once(host, loader.TRIAL_ID)
    assert grub.once(host) == loader.TRIAL_ID and grub.once_traces(host)
    grub.set_once(host, None)
    assert grub.once(host) is None and not grub.once_traces(host)
    stage(host, kernel=None)
    assert host.tree() == before


def test_boot_of_its_own_and_early_images(tmp_path):
    host = GrubHost(str(tmp_path))
    host.boot_prefix = ""
    host.write(IMAGE, "image")
    host.write("/boot/amd-ucode.img", "")
    grub.generate(host)
    stage(host)
    assert "\tlinux\t/vmlinuz-%s " % KERNEL in host.read(MENU)
    assert "\tinitrd\t/amd-ucode.img /vfio-host-trial-%s.img\n" % KERNEL in host.read(MENU)
    assert entry(host)["initrds"] == ["/boot/amd-ucode.img", IMAGE]


def test_a_subvolume_is_in_front_as_it_is_for_the_kernel(tmp_path):
    host = GrubHost(str(tmp_path))
    host.boot_prefix = "/@/boot"
    host.write(IMAGE, "image")
    grub.generate(host)
    assert grub.view(host)["problems"] == []
    stage(host)
    assert "\tinitrd\t/@/boot/vfio-host-trial-%s.img\n" % KERNEL in host.read(MENU)


def test_it_never_saves_itself_as_default(host):
    host.write("/etc/default/grub", host.read("/etc/default/grub") + "GRUB_SAVEDEFAULT=true\n")
    grub.generate(host)
    assert host.read(MENU).count("\tsavedefault\n") > 0
    cmdline.run(host, {"parameters": [], "state": "present", "loader": "auto"}, False)
    stage(host)
    ours = host.read(MENU).split("### BEGIN /etc/grub.d/42_vfio-host ###")[1]
    assert loader.TRIAL_ID in ours and loader.FALLBACK_ID in ours
    assert "savedefault" not in ours


USERS = "#!/bin/sh\ncat <<'E'\nset superusers=\"root\"\nexport superusers\npassword_pbkdf2 root grub.pbkdf2.x\nE\n"


def guarded(host, options, users=USERS):
    """Entries of 10_linux with these options, and users in front of them."""
    text = host.read("/etc/grub.d/10_linux")
    host.write("/etc/grub.d/10_linux", text.replace("--class os ", "--class os %s" % options), mode=0o755)
    host.write("/etc/grub.d/01_users", users, mode=0o755)
    grub.generate(host)


def headers(host, title):
    return [text for text in host.read(MENU).splitlines() if text.strip().startswith("menuentry '%s" % title)]


def test_who_may_start_the_default_entry_may_start_the_trial(host):
    """Else GRUB asks for a password on the console, and a host without a keyboard waits there."""
    guarded(host, "--unrestricted ")
    assert grub.trial_obstacles(host) == []
    stage(host)
    assert headers(host, "Trial boot") == [
        "menuentry 'Trial boot (vfio.host)' --class debian --class gnu-linux --class gnu --class os --unrestricted "
        "--id 'vfio-host-trial' {"
    ]


def test_the_users_of_an_entry_go_with_it_and_its_key_does_not(host):
    guarded(host, "--users 'a b' --hotkey=d --class=x ", users="#!/bin/sh\n")
    assert grub.trial_obstacles(host) == []
    stage(host)
    assert headers(host, "Trial boot")[0].endswith("--class os --users 'a b' --class=x --id 'vfio-host-trial' {")


@pytest.mark.parametrize(
    "options, custom", [("", False), ("--users alice ", False), ("--unrestricted --users= ", False), ("", True)]
)
def test_a_default_that_asks_for_a_password_is_an_obstacle(host, options, custom):
    guarded(host, options, users="#!/bin/sh\n" if custom else USERS)
    if custom:
        host.write("/boot/grub/custom.cfg", "superusers=root\n")
    reasons = grub.trial_obstacles(host)
    assert len(reasons) == 1
    assert "asks for a password before it starts the default entry 'Debian GNU/Linux'" in reasons[0]


def test_a_submenu_that_asks_for_a_password_is_one_too(host):
    """The trial would start, and the way back would not."""
    guarded(host, "--unrestricted ")
    host.write(MENU, host.read(MENU).replace('set default="0"', 'set default="1>0"'))
    assert ["asks for a password" in reason for reason in grub.trial_obstacles(host)] == [True]


def test_a_password_that_nobody_has_set_is_none(host):
    """The Fedora family has the words in every menu, and the password in a file of its own."""
    users = "#!/bin/sh\ncat <<'E'\nif [ -f ${prefix}/user.cfg ]; then\n  source ${prefix}/user.cfg\n" \
        "  if [ -n \"${GRUB2_PASSWORD}\" ]; then\n    set superusers=\"root\"\n  fi\nfi\nE\n"
    guarded(host, "", users=users)
    assert grub.trial_obstacles(host) == []
    host.write("/boot/grub/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.x\n")
    assert ["asks for a password" in reason for reason in grub.trial_obstacles(host)] == [True]


def test_entries_without_vfio_ask_whom_the_ordinary_ones_ask(host):
    guarded(host, "--unrestricted ")
    cmdline.run(host, {"parameters": ["iommu=pt"], "state": "present", "loader": "auto"}, False)
    safe = headers(host, "Without VFIO")
    assert len(safe) == 2 and all(" --unrestricted " in text for text in safe)


def test_what_others_have_quoted_stays_quoted(host):
    host.write("/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT='quiet dyndbg=\"file a +p\" $later'\n")
    grub.generate(host)
    wanted = line(host)
    assert '"dyndbg=file a +p"' in wanted and "$later" in wanted
    stage(host)
    assert entry(host)["tokens"] == wanted
    assert ' dyndbg="file a +p" $later intel_iommu=on vfio_host=trial\n' in host.read(MENU)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kernel": "6.0.0-1-amd64"}, "starts kernel 6.1.0-50-amd64, not 6.0.0-1-amd64"),
        ({"image": "/var/tmp/x.img"}, "not in the folder of the kernel"),
    ],
)
def test_what_cannot_be_named_to_grub_is_refused(host, change, said):
    before = host.tree()
    with pytest.raises(HostError, match=said):
        stage(host, **change)
    assert host.tree() == before


def test_a_default_of_others_is_refused(host):
    host.write(MENU, host.read(MENU).replace('set default="0"', 'set default="9"'))
    with pytest.raises(HostError, match="no ordinary default entry"):
        stage(host, tokens=["ro"])


def test_a_kernel_that_is_started_in_two_ways_is_refused(host):
    linux = "\tlinux\t/boot/vmlinuz-%s root=PARTUUID=1 ro panic=-1\n" % KERNEL
    host.write(MENU, host.read(MENU).replace("\tlinux\t", linux + "\tlinux\t", 1))
    with pytest.raises(HostError, match="GRUB_FORCE_PARTUUID"):
        stage(host)


def test_a_foreign_script_in_our_place_is_refused(host):
    host.write(grub_common.TRIAL, "#!/bin/sh\n", mode=0o755)
    with pytest.raises(ValueError, match="not from this collection"):
        stage(host)


@pytest.mark.parametrize(
    "prepare, said",
    [
        (lambda host: setattr(host, "abstraction", "lvm"), "is on lvm, where GRUB cannot write"),
        (lambda host: setattr(host, "abstraction", "diskfilter mdraid1x"), "is on diskfilter mdraid1x"),
        (lambda host: setattr(host, "filesystem", "btrfs"), "is on btrfs"),
        (lambda host: setattr(host, "filesystem", "zfs"), "is on zfs"),
        (lambda host: setattr(host, "filesystem", ""), "is on [?]"),
        (lambda host: host.remove("/boot/grub/grubenv"), "there is no environment block"),
        (lambda host: host.write("/boot/grub/grubenv", "short"), "is not an environment block"),
        (lambda host: host.write(MENU, host.read(MENU).replace("next_entry", "x")), "does not look at next_entry"),
        (lambda host: host.remove("/usr/bin/grub-probe"), "grub-probe is not installed"),
        (lambda host: host.remove("/usr/bin/grub-editenv"), "grub-editenv is not installed"),
    ],
)
def test_obstacles(host, prepare, said):
    assert grub.trial_obstacles(host) == []
    prepare(host)
    reasons = grub.trial_obstacles(host)
    assert len(reasons) == 1
    assert re.search(said, reasons[0])


def test_an_entry_chosen_by_an_administrator_is_seen(host):
    host.editenv(["grub-editenv", "/boot/grub/grubenv", "set", "next_entry=mine", "saved_entry=x"])
    assert grub.once(host) == "mine"
    grub.set_once(host, None)
    assert grub_menu.environment(host.read("/boot/grub/grubenv")) == {"saved_entry": "x"}


# -- the script of the fallback entry ------------------------------------------------------


def made(tmp_path, shell, default, ours, entries=None, added=None):
    """What the script prints, with a stand-in for 10_linux that shows what it is given."""
    script = tmp_path / "42_vfio-host"
    linux = tmp_path / "10_linux"
    text = grub_common.FALLBACK_TEXT.replace("=/etc/grub.d/10_linux", "=%s" % linux)
    script.write_text(text.replace("=/etc/default/vfio-host-grub", "=%s" % (tmp_path / "added")))
    linux.write_text(entries or (
        "#!/bin/sh\necho 'function x {'\necho }\n"
        "echo \"menuentry 'It'\\\\''s' --class a \\$menuentry_id_option 'gnulinux-6.1-advanced-x' {\"\n"
        "echo \"	linux /vmlinuz [$GRUB_CMDLINE_LINUX_DEFAULT] $GRUB_DISABLE_RECOVERY $GRUB_DISABLE_SUBMENU\"\n"
        "echo }\necho 'if [ x ]; then y; fi'\n"
    ))
    linux.chmod(0o755)
    if added is not None:
        (tmp_path / "added").write_text(added)
    environment = {"PATH": os.environ["PATH"], "GRUB_CMDLINE_LINUX_DEFAULT": default}
    if ours is not None:
        environment["VFIO_HOST_TOKENS"] = ours
    done = subprocess.run(shell + [str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
@pytest.mark.parametrize(
    "default, ours, line",
    [
        ("quiet a=1 b", "a=1 b", "quiet vfio_host=off"),
        ("quiet a=1 b later", "a=1 b", "quiet later vfio_host=off"),
        ("a=1 quiet a=1", "a=1", "a=1 quiet vfio_host=off"),
        ("a=1", "a=1", "vfio_host=off"),
        ("a=10 xa=1", "a=1", "a=10 xa=1 vfio_host=off"),
        ("quiet", None, "quiet vfio_host=off"),
        ("", "", "vfio_host=off"),
        ("z=4 z=4 y z=4", "z=4 y z=4", "z=4 vfio_host=off"),
    ],
)
def test_the_fallback_lacks_ours_and_no_more(tmp_path, shell, default, ours, line):
    done = made(tmp_path, shell, default, ours)
    assert done.stdout.splitlines() == [
        "submenu 'Without VFIO (vfio.host)' $menuentry_id_option 'vfio-host-fallback' {",
        "menuentry 'Without VFIO: It'\\''s' --class a $menuentry_id_option 'vfio-host-fallback-6.1-advanced-x' {",
        "\tlinux /vmlinuz [%s] true y" % line,
        "}",
        "}",
    ]
    assert done.stderr == ""


def test_ours_are_read_from_the_file_where_there_are_no_drop_ins(tmp_path):
    done = made(tmp_path, ["sh"], "quiet a=1", None, added='VFIO_HOST_TOKENS="a=1"\n')
    assert "[quiet vfio_host=off]" in done.stdout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_a_failure_never_keeps_the_menu_from_being_made(tmp_path, shell):
    done = made(tmp_path, shell, "quiet", "", entries="#!/bin/sh\necho half\nexit 1\n")
    assert done.stdout == "" and "there is no fallback entry" in done.stderr
    assert made(tmp_path, shell, "quiet", "", entries="#!/bin/sh\nexit 0\n").stdout == ""


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_scripts_are_clean(tmp_path, host):
    stage(host)
    for text in (grub_common.FALLBACK_TEXT, host.read(grub_common.TRIAL)):
        path = tmp_path / "script"
        path.write_text(text)
        done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
        assert done.stdout == ""
