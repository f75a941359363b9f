# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mediated devices and vGPU types are made, kept and taken back: all of it or nothing."""

from __future__ import annotations

import copy
import json
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _own_files
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.plugins.module_utils._mdev import manage, parents, persistence, wanted
from ansible_collections.vfio.host.tests.unit.killable import Killed
from ansible_collections.vfio.host.tests.unit.mdev.mdev_kernel import (
    HALF,
    IDS,
    IGPU,
    MINE,
    OTHERS,
    PCI,
    PF,
    PLAIN,
    QUARTER,
    VFS,
    Kernel,
    read_machine,
)

DEFINITION = "/etc/mdevctl.d/%s/%s" % (IGPU, MINE)


@pytest.fixture
def host(tmp_path):
    return Kernel(str(tmp_path))


def mdev(kind=QUARTER, uuid=MINE, **more):
    return dict({"parent": IGPU, "vendor": "8086", "device": "5912", "type": kind, "uuid": uuid}, **more)


def vgpu(number=0, kind="1155", **more):
    return dict({"parent": VFS[number], "vendor": "10de", "device": "26ba", "type": kind}, **more)


def go(host, *devices, state="present", check=False, policy="refuse", change=None):
    def read(machine):
        document = read_machine(machine)
        if change:
            change(document)
        return document

    params = {"devices": copy.deepcopy(list(devices)), "state": state, "mdevctl": policy}
    return manage.run(host, params, check, read)


def home(host, **more):
    return go(host, state="absent", **more)


def refused(host, *devices, **more):
    """The message of a refusal, before which nothing was changed."""
    before, changes = host.state(), host.changes
    with pytest.raises((ValueError, HostError)) as caught:
        go(host, *devices, **more)
    assert (host.state(), host.changes) == (before, changes)
    return str(caught.value)


def failed(host, *devices, **more):
    """The message of a run that failed and put back everything."""
    before = host.state()
    with pytest.raises(HostError) as caught:
        go(host, *devices, **more)
    assert host.state() == before
    assert "Everything is as it was before" in str(caught.value)
    return str(caught.value)


def test_they_are_made_and_kept(host):
    result = go(host, mdev(), vgpu())
    assert host.mdevs() == {MINE: QUARTER} and host.vgpu(VFS[0]) == "1155"
    assert result["changed"] and result["warnings"] == []
    assert result["devices"] == [
        {"parent": IGPU, "way": "mdev", "uuid": MINE, "before": None, "type": QUARTER, "wanted": True},
        {"parent": VFS[0], "way": "vgpu", "uuid": None, "before": None, "type": "1155", "wanted": True}]
    assert host.read(wanted.LIST).splitlines()[2:] == [
        "0000:00:02.0 8086 5912 - mdev %s %s" % (QUARTER, MINE), "0000:02:00.4 10de 26ba - vgpu 1155 -"]
    unit = host.read(persistence.UNIT)
    assert "After=nvidia-vgpud.service nvidia-vgpu-mgr.service vfio-host-sriov@%s.service\n" % PF in unit
    assert "ExecStart=/bin/sh %s %%i\n" % persistence.SCRIPT in unit and "types of %i\n" in unit
    assert "Wants=vfio-host-mediated@%s.service vfio-host-mediated@%s.service\n" % (IGPU, VFS[0]) in host.read(persistence.PULL)
    rules = host.read(persistence.RULES)
    assert rules.count('ENV{MDEV_STATE}=="registered"') == 2 and 'ATTR{device}=="0x26ba"' in rules


def test_the_record_is_there_before_the_first_write(host):
    seen, write_sysfs = [], host.write_sysfs
    host.write_sysfs = lambda path, value, timeout=10.0: (seen.append(host.exists(manage.RECORD)),
                                                          write_sysfs(path, value, timeout))
    go(host, mdev(), vgpu())
    assert seen == [True, True]


def cases():
    new = [mdev(HALF), vgpu()]
    return [((), new), (new, [mdev(QUARTER)]), (new, []), (new, [vgpu(1, "1160")]), (new, [vgpu(0, "1160")]),
            ((), [mdev(uuid=None), mdev("GVTg_V5_8", uuid=None), mdev(uuid=None, name="desk")]),
            ([mdev(HALF), mdev(HALF, OTHERS)], [mdev(QUARTER), mdev(QUARTER, OTHERS)])]


@pytest.mark.parametrize("before, after", cases())
def test_check_mode_predicts_what_the_run_does_and_writes_nothing(host, before, after):
    if before:
        go(host, *before)
    state, changes = host.state(), host.changes
    predicted = go(host, *after, check=True)
    assert (host.state(), host.changes) == (state, changes) and predicted["changed"] and predicted["diff"]
    assert predicted == go(host, *after)
    state, changes = host.state(), host.changes
    again = go(host, *after)
    assert (again["changed"], again["diff"]) == (False, []) and (host.state(), host.changes) == (state, changes)


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("before, after", cases())
def test_the_way_home_is_what_was_before(host, before, after, rebooted):
    state = host.state()
    if before:
        go(host, *before)
    go(host, *after)
    if rebooted:
        host.reboot()
        state = ({},) + state[1:]
    predicted = home(host, check=True)
    assert predicted == home(host)
    assert host.state() == state and not home(host)["changed"]


def test_computed_uuids_differ_and_stay(host):
    asked = [mdev(uuid=None), mdev(uuid=None), mdev(uuid=None, name="desk")]
    uuids = [one["uuid"] for one in go(host, *asked)["devices"]]
    assert len(set(uuids)) == 3 and uuids == [one["uuid"] for one in go(host, *asked)["devices"]]
    assert uuids[0] == wanted.device_uuid("0123456789abcdef0123456789abcdef", IGPU, QUARTER, "0")
    assert uuids[2] == go(host, asked[2])["devices"][0]["uuid"] and list(host.mdevs()) == [uuids[2]]


def test_types_of_virtual_functions_come_back(host):
    host.write_sysfs(PCI + VFS[0] + parents.CURRENT, "1160", 60)
    before = host.state()
    go(host, vgpu(0, "1155"))
    assert host.vgpu(VFS[0]) == "1155" and host.writes[1:] == [("current_vgpu_type", "0"), ("current_vgpu_type", "1155")]
    go(host, vgpu(0, "1160"))
    home(host)
    assert host.state() == before


def test_a_device_that_was_there_stays_on_the_way_home(host):
    host.make(MINE, QUARTER)
    before = host.state()
    result = go(host, mdev())
    assert result["devices"][0]["before"] == QUARTER and host.writes == []
    go(host, mdev(HALF))
    assert host.mdevs() == {MINE: HALF}
    home(host)
    assert host.state() == before


def test_a_vgpu_by_its_name_when_nothing_more_can_be_made(host):
    go(host, vgpu(0, "NVIDIA L40S-1B"))
    assert parents.read(host, VFS[0])["types"] == {}
    assert not go(host, vgpu(0, "NVIDIA L40S-1B"))["changed"]


# -- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device, words", [
    (mdev(parent="00:02.0"), "devices[0].parent: '00:02.0' is not like 0000:01:00.0"),
    (mdev(vendor="8087"), "devices[0].vendor: 0000:00:02.0 has 8086, asked 8087"),
    (mdev(device="5913"), "devices[0].device: 0000:00:02.0 has 5912, asked 5913"),
    (mdev(serial="00-00-00-00-00-00-00-01"), "devices[0].serial: 0000:00:02.0 has none"),
    (mdev(parent="0000:07:00.0"), "devices[0].parent: 0000:07:00.0 does not exist"),
    (mdev("i915-x"), "devices[0].type: 'i915-x' is neither id nor name of a type of 0000:00:02.0, which has:\n"
                     "  i915-GVTg_V5_4  GVTg_V5_4  (2 left)"),
    (mdev(""), "devices[0].type: it is empty"),
    (mdev(uuid="1-2"), "devices[0].uuid: '1-2' is no UUID"),
    (mdev(name="x"), "devices[0].name: x is for computing a UUID, and one is given"),
    (mdev(uuid=None, name="a b"), "devices[0].name: 'a b' has other characters"),
    (vgpu(uuid=MINE), "devices[0].uuid: 0000:02:00.4 is given away itself"),
    (vgpu(kind="0"), "devices[0].type: 0 is no type"),
    (vgpu(kind="7"), "devices[0].type: 7 cannot be made on 0000:02:00.4 now, which can have:\n  1155  NVIDIA L40S-1B\n"),
    (vgpu(kind="L40S"), "devices[0].type: 'L40S' is neither id nor name"),
    (mdev(parent=PLAIN, device="10d3"), "0000:00:19.0 is on e1000e, which offers neither mediated devices"),
    (mdev(parent=PF, vendor="10de", device="26b9"), "give one of its virtual functions, which do: 0000:02:00.4, 0000:02:00.5"),
])
def test_what_cannot_be_had_is_refused(host, device, words):
    assert words in refused(host, device)


def test_more_refusals(host):
    assert "devices[1]: %s is that of devices[0] too" % MINE in refused(host, mdev(), mdev(HALF))
    assert "devices[1]: %s is that of devices[0] too" % VFS[0] in refused(host, vgpu(), vgpu())
    host.make(OTHERS, HALF)
    said = refused(host, mdev(HALF), mdev(HALF, uuid=None))
    assert "devices[0].type: 2 more of %s are asked and 1 left" % HALF in said and QUARTER in said
    assert "there is a device %s already, %s of %s, asked %s of %s" % (OTHERS, HALF, IGPU, QUARTER, IGPU) in refused(
        host, mdev(uuid=OTHERS))
    host.tree.write("%s/mdev_supported_types/%s/name" % (host.tree.homes[IGPU], HALF), "GVTg_V5_8\n")
    assert "is the name of more than one type" in refused(host, mdev("GVTg_V5_8"))
    os.unlink("%s%s/mdev_supported_types/%s/available_instances" % (host.root, host.tree.homes[IGPU], HALF))
    assert "how many of %s are left is not known" % HALF in refused(host, mdev(HALF))
    host.tree.write(host.tree.homes[VFS[0]] + "/mdev_supported_types/x/create")
    assert "which of them counts is not known" in refused(host, vgpu())
    host.tree.write(host.tree.homes[VFS[1]] + "/nvidia/current_vgpu_type", "?\n")
    assert "'?' is no id of a type" in refused(host, vgpu(1))
    os.unlink(host.root + "/usr/bin/systemctl")
    assert "systemctl is not installed" in refused(host, mdev())


def test_a_record_that_cannot_be_understood(host):
    host.tree.write(manage.RECORD, '{"schema": 1, "cards": {}, "devices": {"x": {}}}')
    assert manage.RECORD in refused(host, mdev())


def test_what_only_trying_tells_is_a_warning(host):
    host.exclusive = True
    result = go(host, mdev(), check=True)
    assert result["warnings"] == []
    assert "only by trying" in go(host, mdev(), mdev(HALF, OTHERS), check=True)["warnings"][0]
    assert "No space left on device" in failed(host, mdev(), mdev(HALF, OTHERS))
    assert "only by trying" in go(host, vgpu(0), vgpu(1))["warnings"][0] and host.vgpu(VFS[1]) == "1155"
    assert "only by trying" in go(host, vgpu(0, "1160"), vgpu(1, "1160"))["warnings"][0] and host.vgpu(VFS[1]) == "1160"


def test_units_of_others_are_named(host):
    host.tree.write("/etc/systemd/system/vgpu.service", "ExecStart=/bin/sh -c 'echo 1155 >.../current_vgpu_type'\n")
    assert "/etc/systemd/system/vgpu.service: says current_vgpu_type too" in go(host, vgpu())["warnings"][0]


# -- held -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [[], [mdev(HALF), vgpu(0, "1160")]])
def test_what_somebody_has_is_not_ended_or_changed(host, after):
    go(host, mdev(), vgpu())
    host.process(70, "qemu-system-x86", "/dev/vfio/" + host.group_of(MINE))
    host.process(71, "qemu-kvm", "/dev/vfio/12")
    said = refused(host, *after)
    assert "%s: qemu-system-x86 (process 70) has /dev/vfio/%s open" % (MINE, host.group_of(MINE)) in said
    assert "%s: qemu-kvm (process 71) has /dev/vfio/12 open" % VFS[0] in said
    assert not go(host, mdev(), vgpu())["changed"]


def test_another_device_of_the_parent_may_be_open(host):
    host.make(OTHERS, QUARTER)
    go(host, mdev())
    host.process(70, "qemu-system-x86", "/dev/vfio/" + host.group_of(OTHERS))
    home(host)
    assert host.mdevs() == {OTHERS: QUARTER}


def test_unknown_is_held(host):
    go(host, mdev())

    def blind(document):
        for function in document["functions"]:
            function["holders"] = None

    assert "which processes have it open is not known" in refused(host, state="absent", change=blind)
    assert "does not have %s" % IGPU in refused(host, state="absent", change=lambda document: document["functions"].clear())


# -- others ---------------------------------------------------------------------------------------


def define(host, path=DEFINITION, **more):
    host.tree.write(path, json.dumps(dict({"mdev_type": QUARTER, "start": "auto"}, **more)))


def test_a_definition_of_mdevctl_is_refused_or_taken_over(host):
    define(host)
    define(host, "/etc/mdevctl.d/%s/%s" % (IGPU, OTHERS))
    host.make(MINE, QUARTER)
    before = host.state()
    said = refused(host, mdev())
    assert "mdevctl undefine -u " + MINE in said and DEFINITION in said
    assert go(host, mdev(), policy="import", check=True) == go(host, mdev(), policy="import")
    assert host.listdir("/etc/mdevctl.d/" + IGPU) == [OTHERS] and not go(host, mdev())["changed"]
    assert not go(host, mdev(), policy="import")["changed"]
    home(host)
    assert host.state() == before


@pytest.mark.parametrize("text, words", [
    ({"attrs": [{"x": "1"}]}, "attributes"), ({"mdev_type": HALF}, "says %s of" % HALF), (None, "cannot be understood")])
def test_a_definition_that_says_something_else_is_not_taken_over(host, text, words):
    if text:
        define(host, **text)
    else:
        host.tree.write(DEFINITION, "{")
    assert words in refused(host, mdev(), policy="import")


def test_a_definition_written_anew_stays(host):
    define(host)
    go(host, mdev(), policy="import")
    define(host, start="manual")
    assert "somebody has written it anew" in home(host)["warnings"][0]
    assert "manual" in host.read(DEFINITION) and host.mdevs() == {}


def test_devices_of_others_are_not_touched(host):
    host.make(OTHERS, HALF)
    go(host, mdev())
    go(host, mdev(uuid=None))
    home(host)
    assert host.mdevs() == {OTHERS: HALF}


def test_what_somebody_made_of_ours_is_left(host):
    go(host, mdev())
    host.end(MINE)
    host.make(MINE, HALF)
    assert "and it is not one of this list" in refused(host, mdev())
    assert "somebody has made %s of %s of it since" % (HALF, IGPU) in home(host)["warnings"][0]
    assert host.mdevs() == {MINE: HALF} and not host.exists(manage.RECORD)


# -- failed, killed, hanging -----------------------------------------------------------------------


@pytest.mark.parametrize("broken", [("create", OTHERS), ("current_vgpu_type", "1160"), ("remove", "1"),
                                    ("current_vgpu_type", "0"), wanted.LIST, persistence.RULES])
def test_a_step_that_fails_puts_everything_back(host, broken):
    go(host, mdev(HALF), vgpu())
    host.refuse = {broken: "Cannot allocate memory"}
    if isinstance(broken, str):
        host.remove(broken)
    said = failed(host, mdev(), mdev(uuid=OTHERS), vgpu(0, "1160"))
    assert (broken if isinstance(broken, str) else broken[0]) in said and "The kernel said: %s: no room" % IGPU in said


def test_a_write_that_is_not_what_it_seems(host):
    host._write = lambda path, name, value: None
    assert "the kernel took it, and there is nothing" in failed(host, mdev())


def test_a_write_that_never_ends(host):
    host.hang = {("create", OTHERS)}
    with pytest.raises(HostError) as caught:
        go(host, mdev(), mdev(uuid=OTHERS))
    assert "did not end within 60 s" in str(caught.value) and "the record is kept" in str(caught.value)
    assert "%s: left alone" % MINE in str(caught.value) and host.exists(manage.RECORD)
    host.reboot()
    home(host)
    assert host.mdevs() == {} and not host.exists(manage.RECORD)


def unread(host):
    """Reading some of a function about which a write hangs would not end either."""
    host.locked = False
    read = host.read_sysfs

    def read_sysfs(path, timeout=10.0):
        assert IGPU not in path
        return read(path, timeout)

    host.read_sysfs = read_sysfs


STUCK = "%s: a write about it did not end in this boot" % IGPU


def test_what_hangs_is_not_written_again_in_this_boot(host):
    before = host.state()
    host.hang = {("create", MINE)}
    with pytest.raises(HostError) as caught:
        go(host, vgpu(), mdev())
    assert "did not end within 60 s" in str(caught.value)
    host.writes, whole = [], host.read_sysfs
    unread(host)
    for check in (True, False):
        said = refused(host, vgpu(), mdev(), check=check)
        assert "devices[1].parent: " + STUCK in said and "power button" in said
    predicted = go(host, vgpu(), check=True)
    assert len(predicted["warnings"]) == 1 and predicted["warnings"][0].startswith("%s: " % MINE)
    assert STUCK in predicted["warnings"][0] and predicted == go(host, vgpu()) and not go(host, vgpu())["changed"]
    assert go(host, state="absent", check=True) == home(host) and host.vgpu(VFS[0]) == "0"
    again = home(host)
    assert not again["changed"] and again["warnings"] == predicted["warnings"]
    assert host.exists(manage.RECORD) and not host.exists(wanted.LIST) and ("create", MINE) not in host.writes
    host.read_sysfs = whole
    host.reboot()
    assert home(host)["warnings"] == [] and host.state() == before


def test_a_way_home_that_hangs_is_over_with_the_next_boot(host):
    before = host.state()
    go(host, mdev(), vgpu())
    host.hang = {("remove", "1")}
    with pytest.raises(HostError):
        home(host)
    host.writes, whole = [], host.read_sysfs
    unread(host)
    assert home(host)["changed"] and ("remove", "1") not in host.writes and not host.exists(wanted.LIST)
    assert host.vgpu(VFS[0]) == "0" and host.mdevs() == {MINE: QUARTER} and not home(host)["changed"]
    host.read_sysfs = whole
    host.reboot()
    assert home(host)["warnings"] == [] and host.state() == before


def test_after_the_boot_a_function_that_hung_is_taken_again(host):
    host.hang = {("create", MINE)}
    with pytest.raises(HostError):
        go(host, mdev())
    host.reboot()
    assert go(host, mdev())["changed"] and "stuck" not in host.read(manage.RECORD) and not go(host, mdev())["changed"]


@pytest.mark.parametrize("when", range(1, 22))
def test_a_run_that_is_killed_is_finished_or_undone_by_the_next(host, when):
    """One in two is finished first, then all are undone. The last numbers are beyond the end."""
    define(host, "/etc/mdevctl.d/%s/%s" % (IGPU, OTHERS))
    host.write_sysfs(PCI + VFS[0] + parents.CURRENT, "1160", 60)
    before = host.state()
    first, asks = [mdev(HALF)], [mdev(), mdev(uuid=OTHERS), vgpu()]
    go(host, *first)
    host.kill_at = host.changes + when
    try:
        go(host, *asks, policy="import")
        assert when > 11
    except Killed:
        pass
    host.kill_at = None
    if when % 2:
        go(host, *asks, policy="import")
        assert host.mdevs() == {MINE: QUARTER, OTHERS: QUARTER} and host.vgpu(VFS[0]) == "1155"
        assert not go(host, *asks)["changed"]
    home(host)
    assert host.state() == before


@pytest.mark.parametrize("when", range(1, 16))
def test_a_way_home_that_is_killed(host, when):
    before = host.state()
    go(host, mdev(), vgpu())
    host.kill_at = host.changes + when
    try:
        home(host)
        assert when > 8
    except Killed:
        pass
    host.kill_at = None
    home(host)
    assert host.state() == before


@pytest.mark.parametrize("check", [True, False])
def test_the_unit_of_the_boot_is_waited_for(host, check):
    go(host, mdev(), vgpu())
    host.end(MINE)
    states, asked = ["Job=4\nActiveState=inactive", "ActiveState=activating", "ActiveState=inactive"], []

    def systemctl(argv, dummy):
        asked.append(argv)
        if argv[:2] != ["systemctl", "show"]:
            return Result(argv, 0)
        if len(states) == 1 and not host.mdevs():
            host.make(MINE, QUARTER)
        return Result(argv, 0, "Id=%s\n%s\n" % (argv[-1], states.pop(0)))

    host.commands = systemctl
    assert not go(host, mdev(), vgpu(), check=check)["changed"] and states == []
    assert asked[0][-2:] == [persistence.unit(IGPU), persistence.unit(VFS[0])]


def test_a_unit_that_is_not_over_in_time_refuses(host, monkeypatch):
    monkeypatch.setattr(_own_files, "UNIT_PATIENCE", 0.2)
    go(host, mdev())
    host.commands = lambda argv, dummy: Result(argv, 0, "Id=%s\nActiveState=activating\n" % argv[-1])
    for more in ({}, {"check": True}, {"state": "absent"}):
        assert "%s is still at work" % persistence.unit(IGPU) in refused(host, mdev(uuid=OTHERS), **more)


# -- after a reboot, other cards -------------------------------------------------------------------


def test_after_a_reboot_they_are_made_again(host):
    go(host, mdev(), vgpu())
    before = host.state()
    host.reboot()
    go(host, mdev(), vgpu())
    assert host.state() == before


def test_another_card_has_nothing_of_ours(host):
    go(host, mdev(), vgpu())
    host.reboot()
    host.tree.write(host.tree.homes[IGPU] + "/device", "0x3e92\n")
    os.unlink(host.root + PCI + VFS[0])
    result = home(host)
    assert [words.split(":")[-1] for words in result["warnings"]] == [
        " the card that it was part of is gone; there is nothing to give back"] * 2
    assert not host.exists(manage.RECORD) and not host.exists(wanted.LIST)
    assert IDS[IGPU][1] == "5912"


def test_what_the_driver_no_longer_offers_is_left(host):
    host.write_sysfs(PCI + VFS[0] + parents.CURRENT, "1160", 60)
    go(host, vgpu())
    host.reboot()
    host.write_sysfs(PCI + VFS[1] + parents.CURRENT, "1155", 60)
    assert "its driver does not offer it now" in home(host)["warnings"][0]
