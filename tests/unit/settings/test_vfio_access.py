# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._settings.access import LIMITS, RECORD, RULES, UNIT, run
from ansible_collections.vfio.host.plugins.module_utils._settings.pam import sets_limits
from ansible_collections.vfio.host.tests.unit.settings.settings_host import PAM, Killed, SettingsHost

KVM, VFIO = 106, 990
RELOAD = ["udevadm", "control", "--reload"]
DAEMON_RELOAD = ["systemctl", "daemon-reload"]


@pytest.fixture
def host(tmp_path):
    return machine(tmp_path)


def machine(path):
    found = SettingsHost(str(path))
    found.node("/dev/vfio/7")
    found.node("/dev/vfio/12")
    found.node("/dev/vfio/devices/vfio0")
    found.node("/dev/vfio/noiommu-3")
    found.node("/dev/vfio/vfio", mode=0o666)
    found.node("/dev/iommu", mode=0o660)
    return found


def go(host, group="kvm", memlock=None, check=False, state="present"):
    return run(host, {"group": group, "memlock": memlock, "state": state}, check)


def home(host, check=False):
    return go(host, None, check=check, state="absent")


def without_pam(host):
    """A systemd whose PAM service for users has no pam_limits, as it comes from its makers."""
    host.put("/usr/lib/pam.d/systemd-user", "account required pam_limits.so\nsession optional pam_systemd.so\n")


def test_given_to_the_group_and_a_second_run_changes_nothing(host):
    result = go(host)
    assert result["changed"] and host.ran == [RELOAD] and result["files"] == [RULES] and result["warnings"] == []
    assert host.nodes == {
        "/dev/vfio/7": (0, KVM, 0o660), "/dev/vfio/12": (0, KVM, 0o660), "/dev/vfio/devices/vfio0": (0, KVM, 0o660),
        "/dev/iommu": (0, KVM, 0o660), "/dev/vfio/vfio": (0, 0, 0o666), "/dev/vfio/noiommu-3": (0, 0, 0o600)}
    assert [line for line in host.read(RULES).splitlines() if line[0] != "#"] == [
        'ACTION=="add", SUBSYSTEM=="vfio", KERNEL=="[0-9]*", OWNER="root", GROUP="kvm", MODE="0660"',
        'ACTION=="add", SUBSYSTEM=="vfio-dev", KERNEL=="vfio[0-9]*", OWNER="root", GROUP="kvm", MODE="0660"',
        'ACTION=="add", SUBSYSTEM=="misc", KERNEL=="iommu", OWNER="root", GROUP="kvm", MODE="0660"']
    before, changes = host.tree(), host.changes
    again = go(host)
    assert not again["changed"] and again["diff"] == [] and (host.tree(), host.changes, host.ran) == (
        before, changes, [RELOAD])


@pytest.mark.parametrize("pam", [True, False])
@pytest.mark.parametrize("first, then", [
    ({}, {"memlock": "8GiB"}), ({"memlock": "8GiB"}, {"memlock": "unlimited"}), ({"memlock": "8GiB"}, {}),
    ({}, {"group": "vfio"}), ({"memlock": "1GiB"}, {"group": None, "state": "absent"}),
])
def test_check_mode_predicts_and_writes_nothing(host, first, then, pam):
    if not pam:
        without_pam(host)
    go(host, **first)
    before, changes, ran = host.tree(), host.changes, list(host.ran)
    predicted = go(host, check=True, **then)
    assert (host.tree(), host.changes, host.ran) == (before, changes, ran)
    done = go(host, **then)
    assert predicted == done and done["changed"] and done["diff"]
    assert not go(host, check=True, **then)["changed"] and not go(host, **then)["changed"]


def test_absent_gives_back_what_was_and_leaves_no_file(host):
    without_pam(host)
    host.node("/dev/vfio/12", gid=VFIO, mode=0o640)
    before = host.tree()
    go(host, memlock="8GiB")
    go(host, "vfio", memlock="unlimited")
    assert host.nodes["/dev/vfio/7"] == (0, VFIO, 0o660)
    assert home(host, check=True)["changed"] and home(host)["changed"]
    assert host.tree() == before and not host.exists("/var/lib/vfio-host")
    assert not any(name.startswith("user@") for name in host.listdir("/etc/systemd/system"))
    assert not home(host)["changed"]


def test_absent_on_a_bare_machine_does_nothing(host):
    before = host.tree()
    assert not home(host)["changed"] and host.tree() == before and host.ran == []


def test_nodes_of_another_boot_go_back_to_what_the_kernel_makes(host):
    host.node("/dev/vfio/7", gid=VFIO, mode=0o640)
    go(host)
    host.boots = 5
    host.put("/proc/sys/kernel/random/boot_id", "boot 6\n")
    assert not go(host)["changed"]
    host.node("/dev/vfio/9", gid=KVM, mode=0o660)
    home(host)
    assert host.nodes["/dev/vfio/7"] == host.nodes["/dev/vfio/9"] == (0, 0, 0o600)
    assert host.nodes["/dev/iommu"] == (0, 0, 0o660)


def test_what_another_group_has_is_not_taken_on_the_way_back(host):
    go(host)
    host.node("/dev/vfio/7", gid=VFIO, mode=0o660)
    home(host)
    assert host.nodes["/dev/vfio/7"] == (0, VFIO, 0o660) and host.nodes["/dev/vfio/12"] == (0, 0, 0o600)


def test_a_node_that_libvirt_has_given_to_a_guest_stays_with_it(host):
    host.node("/dev/vfio/7", uid=64055, gid=KVM, mode=0o600)
    result = go(host)
    assert host.nodes["/dev/vfio/7"] == (64055, KVM, 0o600)
    assert result["deferred"] == [{"node": "/dev/vfio/7",
                                   "why": "it belongs to user 64055, as when libvirt has started a guest"}]
    assert not go(host)["changed"]
    home(host)
    assert host.nodes["/dev/vfio/7"] == (64055, KVM, 0o600)


@pytest.mark.parametrize("uid, after", [(0, (0, KVM, 0o660)), (64055, (64055, 0, 0o660))])
def test_a_node_that_is_open_to_everybody_is_repaired_and_stays_so(host, uid, after):
    host.node("/dev/vfio/7", uid=uid, mode=0o666)
    assert "/dev/vfio/7: %d:0 0666" % uid in go(host, check=True)["diff"][-1]["before"]
    go(host)
    assert host.nodes["/dev/vfio/7"] == after
    home(host)
    assert host.nodes["/dev/vfio/7"] == (uid, 0, 0o660)


@pytest.mark.parametrize("memlock, limit", [("8GiB", "8388608"), ("1048576", "1024"), ("unlimited", "unlimited")])
def test_the_limit_of_pam(host, memlock, limit):
    result = go(host, memlock=memlock)
    assert host.read(LIMITS).splitlines()[1:] == ["@kvm - memlock " + limit] and result["files"] == [LIMITS, RULES]
    assert DAEMON_RELOAD not in host.ran


def test_the_limit_of_systemd_where_pam_does_not_set_it(host):
    without_pam(host)
    go(host, memlock="8GiB")
    # alice by name, bob by his own group
    assert host.listdir("/etc/systemd/system") == ["user@1000.service.d", "user@1002.service.d"]
    assert host.read(UNIT % 1000).splitlines()[1:] == ["[Service]", "LimitMEMLOCK=8388608K"]
    assert host.ran == [RELOAD, DAEMON_RELOAD]
    host.put("/etc/group", host.read("/etc/group").replace(":alice,", ":dave,"))
    assert go(host, memlock="unlimited")["changed"]
    assert host.read(UNIT % 1003).splitlines()[2] == "LimitMEMLOCK=infinity" and not host.exists(UNIT % 1000)
    host.put("/usr/lib/pam.d/systemd-user", PAM)
    go(host, memlock="unlimited")
    assert host.listdir("/etc/systemd/system") == []


def test_without_user_units_there_is_nothing_to_drop_in(host):
    without_pam(host)
    host.remove("/usr/lib/systemd/system/user@.service")
    go(host, memlock="8GiB")
    assert host.listdir("/etc/systemd/system") == []


@pytest.mark.parametrize("text, found", [
    (PAM, True), ("-session  [success=1 default=ignore] /lib/security/pam_limits.so conf=/x\n", True),
    ("# session required pam_limits.so\n", False), ("auth required pam_limits.so\n", False),
    ("@include common\n", True), ("session include common\n", True), ("session substack common\n", True),
    ("auth include common\n", False), ("session include self\n", False),
    ("session required \\\n  pam_limits.so\n", True),
    ("@include\nsession\n", False),
])
def test_pam_is_followed(host, text, found):
    host.put("/etc/pam.d/common", PAM)
    host.put("/etc/pam.d/self", text)
    assert sets_limits(host, "self") is found


def test_the_first_file_of_a_service_counts(host):
    host.put("/etc/pam.d/systemd-user", "session optional pam_systemd.so\n")
    assert sets_limits(host, "systemd-user") is False


@pytest.mark.parametrize("group, memlock, words", [
    (None, None, "group: name the group"), ("", "8GiB", "group: name the group"),
    ("k\", MODE=\"0666", None, "group: .* is not the name of a group"), ("wheel", None, "wheel is not in /etc/group"),
    ("users", None, "users is everybody"), ("nogroup", None, "nogroup is everybody"),
    ("root", None, "root is root's own"),
    ("staff", None, "staff has number 1001.*groupadd --system"),
    ("kvm", "8G", "memlock: '8G' is not a size.*or unlimited"),
    ("kvm", "0", "memlock: '0' is not a size"), ("kvm", "1025", "memlock: '1025' is not a whole number of KiB"),
])
def test_refused_with_its_reason_and_nothing_changed(host, group, memlock, words):
    before = host.tree()
    for check in (True, False):
        with pytest.raises(ValueError, match=words):
            go(host, group, memlock, check=check)
    assert host.tree() == before and host.changes == 0 and host.ran == []


@pytest.mark.parametrize("name, rule, refused", [
    ("99-mine.rules", 'SUBSYSTEM=="vfio", MODE="0666"', True),
    ("10-mine.rules", 'SUBSYSTEM=="vfio", MODE:="666"', True),
    ("10-mine.rules", 'SUBSYSTEM=="vfio", MODE="0666"', False),
    ("99-mine.rules", '# SUBSYSTEM=="vfio", MODE="0666"', False),
    ("99-mine.rules", 'SUBSYSTEM=="vfio-dev", \\\n  MODE="0662"', True),
    ("99-mine.rules", 'KERNEL=="vfio/vfio", MODE="0666"', False),
])
def test_a_rule_that_opens_the_nodes_to_everybody(host, name, rule, refused):
    host.put("/usr/lib/udev/rules.d/" + name, rule + "\n")
    if refused:
        with pytest.raises(ValueError, match="%s gives the devices to everybody" % name):
            go(host)
    else:
        assert go(host)["warnings"] == []
    host.put("/etc/udev/rules.d/" + name, "# not any more\n")
    assert go(host)["warnings"] == []


def test_a_later_rule_of_somebody_else_is_a_warning(host):
    host.put("/etc/udev/rules.d/99-mine.rules", 'SUBSYSTEM=="vfio", GROUP="vfio"\n')
    assert "the last rule wins" in go(host)["warnings"][0]


def test_what_stands_in_the_way_of_users_is_a_warning(host):
    host.node("/dev/vfio/vfio", gid=KVM, mode=0o660)
    host.put("/etc/pam.d/sshd", "session required pam_unix.so\n")
    host.put("/etc/security/limits.d/99-x.conf", "@kvm hard memlock 64\n@other - memlock 1\n")
    host.put("/etc/security/limits.d/10-x.conf", "@kvm hard memlock 64\n")
    warnings = go(host, memlock="8GiB")["warnings"]
    assert len(warnings) == 3 and host.nodes["/dev/vfio/vfio"] == (0, KVM, 0o660)
    for words, warning in zip(("vfio/vfio has mode 0660", "service sshd does not use", "99-x.conf sets"), warnings):
        assert words in warning


def test_without_udev_it_would_not_last(host):
    host.remove("/usr/bin/udevadm")
    with pytest.raises(HostError, match="udevadm is not installed"):
        go(host)
    assert not home(host)["changed"]


@pytest.mark.parametrize("broken", ["/dev/vfio/devices/vfio0", RULES, RECORD, LIMITS, UNIT % 1002])
def test_a_failure_leaves_everything_as_it_was(host, broken):
    without_pam(host)
    before = host.tree()
    host.broken.add(broken)
    with pytest.raises(HostError, match="Everything is as before"):
        go(host, memlock="8GiB")
    assert host.tree() == before and not host.exists("/var/lib/vfio-host")


def test_what_could_not_be_put_back_is_in_the_record(host):
    set_owner = host.set_owner

    def once(path, *what):
        if path == "/dev/vfio/12":
            host.broken.update(["/dev/iommu", path])
        set_owner(path, *what)

    host.set_owner = once
    with pytest.raises(HostError, match="not /dev/iommu: run this again"):
        go(host)
    host.broken.clear()
    assert home(host)["changed"] and host.nodes["/dev/iommu"] == (0, 0, 0o660) and not host.exists(RECORD)


@pytest.mark.parametrize("way", ["finish", "home"])
@pytest.mark.parametrize("start, then", [
    (None, {"memlock": "8GiB"}), ({}, {"group": "vfio"}), ({"memlock": "8GiB"}, {"group": None, "state": "absent"}),
])
def test_killed_anywhere_the_next_run_finishes_it_or_takes_it_back(tmp_path, start, then, way):
    def fresh(number):
        found = machine(tmp_path / str(number))
        without_pam(found)
        found.node("/dev/vfio/7", mode=0o640)
        bare = tree(found)
        if start is not None:
            go(found, **start)
        return found, bare

    def tree(found):
        return {path.replace(found.root, ""): what for path, what in found.tree().items()}

    straight, dummy = fresh(0)
    straight.changes = 0
    go(straight, **then)
    assert straight.changes > 4
    for number in range(1, straight.changes + 1):
        host, bare = fresh(number)
        host.changes, host.kill_at = 0, number
        with pytest.raises(Killed):
            go(host, **then)
        host.kill_at = None
        if way == "finish":
            predicted = go(host, check=True, **then)
            assert go(host, **then)["changed"] is predicted["changed"]
            assert not go(host, **then)["changed"]
            assert tree(host) == tree(straight), number
        else:
            home(host)
            assert tree(host) == bare, number


@pytest.mark.parametrize("text", ["{}", '{"schema": 1, "gids": [1], "nodes": {"/etc/shadow": [0, 0, 0]}}',
                                  '{"schema": 1, "gids": ["x"], "nodes": {}}'])
def test_a_record_that_cannot_be_read_refuses(host, text):
    host.put(RECORD, text)
    with pytest.raises(HostError, match=RECORD):
        home(host)


def test_rules_without_a_record(host):
    go(host)
    host.remove(RECORD)
    assert "stay until the next boot" in home(host)["warnings"][0] and not host.exists(RULES)


def test_the_owner_of_a_file(tmp_path):
    host = Host(str(tmp_path))
    host.write("/dev/x", "", mode=0o666)
    host.set_owner("/dev/x", os.getuid(), os.getgid(), 0o640)
    assert host.stat("/dev/x").st_mode & 0o7777 == 0o640
    with pytest.raises(HostError, match="/dev/y: it cannot be given to 0:0 with mode 0600: No such file"):
        host.set_owner("/dev/y", 0, 0, 0o600)


def test_nobody_has_more_in_between(tmp_path, monkeypatch):
    host, modes = Host(str(tmp_path)), []
    host.write("/dev/x", "", mode=0o606)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: modes.append(os.stat(path).st_mode & 0o7777))
    host.set_owner("/dev/x", 0, 5, 0o660)
    assert modes == [0o600] and host.stat("/dev/x").st_mode & 0o7777 == 0o660
