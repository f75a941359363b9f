# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions are made, set, given to their drivers, and taken back: all of it or nothing."""

from __future__ import annotations

import copy
import os
import shutil

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._sriov import manage, persistence, physical, record, transaction
from ansible_collections.vfio.host.plugins.module_utils._sriov.wanted import LIST
from ansible_collections.vfio.host.tests.unit.killable import Killed
from ansible_collections.vfio.host.tests.unit.sriov.kernel import (
    DEVICES,
    DRIVERS,
    NIC,
    OTHER,
    PF,
    PLAIN,
    Kernel,
    read_machine,
    vf,
)

MAC = "52:54:00:00:00:01"
VFIO = ("vfio-pci", "vfio-pci")


@pytest.fixture
def host(tmp_path):
    return Kernel(str(tmp_path))


def first(count=3, **more):
    return dict({"address": PF, "vendor": "8086", "device": "10c9", "count": count}, **more)


def second(count=2, **more):
    return dict({"address": OTHER, "vendor": "8086", "device": "1572", "count": count}, **more)


SET = {"index": 1, "mac": MAC, "vlan": 100, "qos": 2, "trust": True, "spoof_check": False}


def go(host, *functions, state="present", check=False, shared=False, change=None):
    def read(machine):
        document = read_machine(machine)
        if change:
            change(document)
        return document

    params = {"functions": copy.deepcopy(list(functions)), "state": state, "allow_shared_group": shared}
    return manage.run(host, params, check, read)


def refused(host, *functions, **more):
    """The message of a refusal, before which nothing was changed."""
    before, changes = host.state(), host.changes
    with pytest.raises((ValueError, HostError)) as caught:
        go(host, *functions, **more)
    assert (host.state(), host.changes) == (before, changes)
    return str(caught.value)


def failed(host, *functions, **more):
    """The message of a run that failed and put back everything."""
    before = host.state()
    with pytest.raises(HostError) as caught:
        go(host, *functions, **more)
    assert host.state() == before
    assert "Everything is as it was before" in str(caught.value)
    return str(caught.value)


def test_virtual_functions_are_made_set_and_bound(host):
    result = go(host, first(vfs=[SET]), second())
    assert host.state()[0] == {PF: (3, False), OTHER: (2, False)}
    assert host.state()[1] == dict.fromkeys([vf(0), vf(1), vf(2), vf(0, OTHER), vf(1, OTHER)], VFIO)
    assert host.vfinfo[PF][1] == {"mac": MAC, "vlan": 100, "qos": 2, "trust": True, "spoofchk": False}
    assert result["changed"] and result["warnings"] == []
    assert [(f["before"], f["count"], f["wanted"]) for f in result["functions"]] == [(0, 3, 3), (0, 2, 2)]
    assert [(v["address"], v["index"], v["pf"], v["driver"], v["bound"], v["isolated"], v["group_members"])
            for v in result["vfs"]][:2] == [(vf(0), 0, PF, "vfio-pci", True, True, [vf(0)]),
                                            (vf(1), 1, PF, "vfio-pci", True, True, [vf(1)])]
    above, uncertain = result["vfs"][0]["reasons"]
    assert "behind 0000:00:1c.0" in above and "once the count" in uncertain


def test_the_order_is_record_autoprobe_count_settings_drivers(host):
    seen = []
    write_sysfs, command = host.write_sysfs, host.commands
    host.write_sysfs = lambda path, value, timeout=10.0: (
        seen.append((path.rpartition("/")[2], value.strip(), host.exists(record.STATE))),
        write_sysfs(path, value, timeout))
    host.commands = lambda argv, stdin: (seen.append((argv[0], argv[-1], True)), command(argv, stdin))[1]
    go(host, first(1, vfs=[dict(SET, index=0)]))
    assert seen[0][0] == "dmesg"  # what an error quotes came after it
    assert seen[1:3] == [("sriov_drivers_autoprobe", "0", True), ("sriov_numvfs", "1", True)]
    names = [name for name, dummy, dummy2 in seen]
    order = [names.index(name) for name in ("sriov_numvfs", "ip", "driver_override", "drivers_probe")]
    assert order == sorted(order)
    assert names[-2:] == ["systemctl", "udevadm"]


def test_a_second_run_changes_nothing(host):
    go(host, first(vfs=[SET]), second())
    before, changes = host.state(), host.changes
    again = go(host, first(vfs=[SET]), second())
    assert (again["changed"], again["diff"]) == (False, []) and (host.state(), host.changes) == (before, changes)
    assert [v["isolated"] for v in again["vfs"]] == [True] * 5


def cases():
    new = [first(vfs=[SET]), second()]
    return [((), new), (new, [first(vfs=[SET])]), (new, []), (new, [first(5, vfs=[SET])]),
            (new, [first(vfs=[dict(SET, vlan=7)])]),
            (new, [first(driver="host"), second(vfs=[{"index": 0, "driver": "host"}])]), (new, [first(0)]),
            ((), [first(driver="host"), second(vfs=[{"index": 1, "driver": "host"}])]),
            (new, [first(vfs=[{"index": 1}])])]


@pytest.mark.parametrize("before, after", cases())
def test_check_mode_predicts_what_the_run_does_and_writes_nothing(host, before, after):
    if before:
        go(host, *before)
    state, changes = host.state(), host.changes
    predicted = go(host, *after, check=True)
    assert (host.state(), host.changes) == (state, changes) and predicted["changed"]
    assert predicted == go(host, *after)
    assert not go(host, *after)["changed"]


@pytest.mark.parametrize("before, after", cases())
def test_the_way_home_is_what_was_before(host, before, after):
    state = host.state()
    if before:
        go(host, *before)
    go(host, *after)
    predicted = go(host, state="absent", check=True)
    assert predicted == go(host, state="absent") and predicted["vfs"] == []
    assert host.state() == state and not go(host, state="absent")["changed"]


def test_sixty_four_in_one_transaction(host):
    go(host, first(64))
    assert host.state()[1] == dict.fromkeys([vf(n) for n in range(64)], VFIO)


def test_sixty_four_or_none(host):
    host.refuse = {("drivers_probe", vf(60)): "Device or resource busy"}
    assert vf(60) in failed(host, first(64, vfs=[SET]))


# -- what somebody else made ------------------------------------------------------------------


def give_a_fence(host):
    host.write_sysfs(DEVICES + PF + "/sriov_numvfs", "2", 60)
    host.vfinfo[PF][0].update(vlan=33, mac="02:11:22:33:44:55")
    host.changes, host.writes = 0, []


@pytest.fixture
def made(host):
    """Two virtual functions that were there before us, on the host's driver, one with a VLAN."""
    give_a_fence(host)
    assert host.driver(vf(0)) == "igbvf"
    return host


def test_those_that_are_there_are_kept_when_the_number_is_right(made):
    before = made.state()
    result = go(made, first(2, vfs=[SET]))
    assert made.count(PF) == 2 and not any(name == "sriov_numvfs" for name, dummy, dummy2 in made.writes)
    assert made.state()[1] == dict.fromkeys([vf(0), vf(1)], VFIO) and not made.autoprobe(PF)
    assert made.vfinfo[PF][0]["vlan"] == 33 and result["functions"][0]["before"] == 2
    assert not go(made, first(2, vfs=[SET]))["changed"]
    go(made, state="absent")
    assert made.state() == before


def test_another_number_goes_by_0_and_comes_back_with_settings_and_drivers(made):
    before = made.state()
    go(made, first(4))
    assert [write for write in made.writes if write[0] == "sriov_numvfs"] == [
        ("sriov_numvfs", PF, "0"), ("sriov_numvfs", PF, "4")]
    go(made, first(4, vfs=[SET]))
    go(made, state="absent")
    assert made.state() == before


def test_others_that_took_their_place_have_the_fence_again_later(made):
    before = made.state()
    go(made, first(4))
    go(made, first(2))
    assert made.vfinfo[PF][0]["vlan"] == 0
    predicted = go(made, state="absent", check=True)
    assert predicted == go(made, state="absent") and made.state() == before


def test_those_that_were_made_again_at_boot_have_the_fence_again_later(made):
    before = made.state()
    go(made, first(2))
    made.reboot()
    made.write_sysfs(DEVICES + PF + "/sriov_numvfs", "2", 60)
    go(made, first(2))
    go(made, state="absent")
    assert made.state() == before


def test_what_somebody_has_set_since_on_those_that_stayed_is_left(made):
    go(made, first(2, vfs=[SET]))
    made.vfinfo[PF][0]["vlan"] = 44
    go(made, state="absent")
    assert made.vfinfo[PF][0]["vlan"] == 44 and made.vfinfo[PF][1]["vlan"] == 0


@pytest.mark.parametrize("broken", [("sriov_numvfs", PF, "4"), ("sriov_numvfs", PF, "0"), ("drivers_probe", vf(3)),
                                    ("driver_override", vf(3)), ("sriov_drivers_autoprobe", PF, "0")])
def test_a_step_that_fails_puts_back_what_was_there(made, broken):
    made.refuse = {broken: "Cannot allocate memory"}
    said = failed(made, first(4, vfs=[SET]))
    assert "Cannot allocate memory" in said and broken[1] in said


# -- held -------------------------------------------------------------------------------------


def use(address, **fields):
    def change(document):
        for function in document["functions"]:
            if function["address"] == address:
                function.update(fields)
    return change


GUEST = [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/21"}]
DISK = {"kind": "disk", "what": "/srv is mounted from it", "chain": [], "finding": "VH201"}
OTHERS = [first(2), second(2), first(3, vfs=[dict(SET, vlan=5)]), first(3, driver="host"), first(0)]


@pytest.mark.parametrize("after", [OTHERS[0], OTHERS[2], OTHERS[3], OTHERS[4], OTHERS[1]])
@pytest.mark.parametrize("fields, word", [
    ({"holders": GUEST}, "qemu-system-x86 (process 9) has /dev/vfio/21 open"),
    ({"holders": None}, "which processes have it open is not known"),
    ({"used_by": [DISK]}, "the host uses it: /srv is mounted from it"),
])
def test_what_somebody_has_is_neither_ended_nor_changed(host, after, fields, word):
    go(host, first(vfs=[SET]))
    said = refused(host, after, change=use(vf(1), **fields))
    assert "%s: %s" % (vf(1), word) in said and "run this again" in said


def test_an_open_group_is_found_by_proc_itself(host):
    go(host, first())
    node = "/dev/vfio/" + host.readlink(DEVICES + vf(1) + "/iommu_group").rpartition("/")[2]
    host.process(77, "qemu-kvm", node)
    assert "%s: qemu-kvm (process 77) has %s open" % (vf(1), node) in refused(host, first(4))
    assert vf(1) in refused(host, state="absent")
    assert not go(host, first())["changed"]  # what is right already is no matter of who has it


def test_a_virtual_function_that_the_document_lacks_is_not_ended(host):
    go(host, first())

    def lose(document):
        document["functions"] = [f for f in document["functions"] if f["address"] != vf(2)]

    assert "%s: the machine document does not have it" % vf(2) in refused(host, first(1), change=lose)


@pytest.mark.parametrize("after", [first(3), first(2), first(0)])
def test_interfaces_of_virtual_functions_that_the_host_uses(made, after):
    name = made.listdir(DEVICES + vf(0) + "/net")[0]
    home = made.real(DEVICES + vf(0)) + "/net/" + name
    made._symlink("/sys/class/net/enp0s25", home + "/master")
    assert "its interface %s is a port of enp0s25" % name in refused(made, after)
    made.tree_of.folder(home + "/upper_vlan7")
    assert "vlan7 lies on its interface %s" % name in refused(made, after)


def test_an_address_on_an_interface(made):
    name = made.listdir(DEVICES + vf(0) + "/net")[0]

    def address(document):
        for interface in document["host"]["network"]["interfaces"]:
            if interface["name"] == name:
                interface["addresses"] = ["192.0.2.5/24"]

    assert "its interface %s has the address 192.0.2.5/24" % name in refused(made, first(0), change=address)


def test_an_interface_in_another_namespace(made):
    home = made.real(DEVICES + vf(1)) + "/net"
    name = made.listdir(home)[0]
    shutil.rmtree(made.root + home)
    os.unlink(made.root + "/sys/class/net/" + name)
    assert "%s: driver igbvf has it and no interface of it is here" % vf(1) in refused(made, first(0))


def test_unknown_use_of_the_host_means_no(made):
    def unknown(document):
        document["host"]["usage_unknown"] = ["ssh"]

    assert "not known in full (ssh)" in refused(made, first(0), change=unknown)


def test_reads_that_hang_mean_no(host):
    host.blocked.add("/proc/9/fd")
    assert "/proc/9/fd did not end" in refused(host, first())


# -- groups -----------------------------------------------------------------------------------


def test_a_shared_group_is_refused_before_anything_is_made(tmp_path):
    host = Kernel(str(tmp_path), acs=False)
    said = refused(host, first(2))
    assert "functions[0]: virtual function 0 (%s) shares its IOMMU group with 0000:00:1c.0, %s" % (vf(0), PF) in said
    assert "0000:00:1c.0 (root port 1b36:000c) does not isolate" in said and "allow_shared_group: true" in said


def test_a_shared_group_that_is_accepted(tmp_path):
    host = Kernel(str(tmp_path), acs=False)
    before = host.state()
    predicted = go(host, first(2), shared=True, check=True)
    assert predicted == go(host, first(2), shared=True)
    assert [(v["driver"], v["bound"], v["isolated"]) for v in predicted["vfs"]] == [(None, False, False)] * 2
    assert predicted["vfs"][0]["group_members"] == ["0000:00:1c.0", PF, vf(0), vf(1)]
    assert host.state()[1] == dict.fromkeys([vf(0), vf(1)], (None, None))
    assert "no guest can use it" in predicted["warnings"][0]
    assert not go(host, first(2), shared=True)["changed"] and "vf %s 0 - -" % PF in host.read(LIST)
    go(host, state="absent")
    assert host.state() == before


def test_virtual_functions_of_the_host_may_share(tmp_path):
    host = Kernel(str(tmp_path), acs=False)
    go(host, first(2, driver="host"))
    assert host.state()[1] == dict.fromkeys([vf(0), vf(1)], ("igbvf", None)) and host.autoprobe(PF)


def test_without_an_iommu(tmp_path):
    host = Kernel(str(tmp_path), iommu=False)
    assert "the IOMMU is off" in refused(host, first())
    result = go(host, first(2, driver="host"))
    assert result["vfs"][0]["driver"] == "host" and not go(host, first(2, driver="host"))["changed"]


def test_a_group_that_cannot_be_told_is_refused(host):
    def unread(document):
        for function in document["functions"]:
            if function["address"] == "0000:00:1c.0":
                function["capabilities"] = None
    assert "shares its IOMMU group" in refused(host, first(1), change=unread)


def test_a_kernel_with_other_groups_than_predicted_makes_it_uncertain(host):
    said = refused(host, first(1), change=use(PF, group_members=[PF, PLAIN]))
    assert "the kernel has %s in another group than predicted" % PF in said


def test_a_group_that_is_not_as_predicted_is_undone(host):
    make = host.make

    def together(address, number):
        make(address, number)
        host.number -= 1  # the next one goes into the same group

    host.make = together
    assert "was predicted alone in its IOMMU group" in failed(host, first(2))


def test_offset_and_stride_that_lead_nowhere(host):
    def blank(document):
        for function in document["functions"]:
            if function["address"] == PF:
                function["capabilities"]["sriov"].update(offset=0, stride=0)

    said = refused(host, first(2), change=blank)
    assert "functions[0].count" in said and "offset 0 and stride 0" in said


def test_a_bus_that_no_bridge_leads_to(host):
    host.total = 300
    for address in (OTHER,):
        host.put(host.real(DEVICES + address) + "/sriov_totalvfs", "300\n")
    said = refused(host, second(120))
    assert "functions[0].count: 120 is too many" in said and "bus 06" in said and "pci=assign-busses" in said


def test_a_card_that_numbers_anew_is_told(host):
    host.shift = 4
    result = go(host, first(2))
    assert [v["address"] for v in result["vfs"]] == [vf(4), vf(5)] and host.driver(vf(4)) == "vfio-pci"
    assert result["vfs"][0]["group_members"] == [vf(4)] and "numbers them anew" in result["warnings"][0]
    assert not go(host, first(2))["changed"]


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("setting, word", [
    ("mac", "mac"), ("vlan", "vlan"), ("trust", "trust"), ("spoofchk", "spoof_check")])
def test_a_setting_that_the_card_refuses(host, setting, word):
    host.deaf.add(setting)
    said = failed(host, first(vfs=[SET]))
    assert "functions[0].vfs[0].%s: ip link set dev %s vf 1 %s" % (word, NIC[PF], setting) in said


def test_a_setting_that_the_driver_does_not_tell(host):
    host.mute.add("trust")
    assert "functions[0].vfs[0].trust: on was set, and the driver does not tell it" in failed(host, first(vfs=[SET]))


@pytest.mark.parametrize("broken", [
    ("sriov_drivers_autoprobe", PF), ("sriov_numvfs", PF), ("sriov_numvfs", OTHER), ("driver_override", vf(1)),
    ("drivers_probe", vf(1, OTHER))])
def test_a_step_that_fails_leaves_nothing(host, broken):
    host.refuse = {broken: "Cannot allocate memory"}
    host.said = ["igb %s: not enough MMIO resources" % PF]
    said = failed(host, first(vfs=[SET]), second())
    assert broken[0] in said and "The kernel said: igb %s: not enough MMIO resources" % PF in said


@pytest.mark.parametrize("path", [LIST, persistence.SCRIPT, persistence.RULES, record.STATE])
def test_a_file_that_cannot_be_written_leaves_nothing(host, path):
    host.refuse = {path: ""}
    assert "No space left" in failed(host, first(vfs=[SET]))


def test_systemd_that_does_not_read_the_files(host):
    host.deaf.add("systemctl")
    before = host.state()
    with pytest.raises(HostError) as caught:
        go(host, first())
    assert "daemon-reload" in str(caught.value)
    assert host.state()[:3] == before[:3] and host.read(LIST) is None


def test_a_driver_that_makes_none(host):
    host.refuse = {("sriov_numvfs", PF): "No such file or directory"}
    assert "driver igb makes no virtual functions (it has no sriov_configure)" in failed(host, first())


def test_virtual_functions_that_do_not_appear(host, monkeypatch):
    monkeypatch.setattr(transaction, "APPEAR_TIMEOUT", 0.0)
    host.lost = 1
    assert "3 virtual functions were asked for, and 2 are there" in failed(host, first(3))


def test_a_write_that_never_ends_is_left_alone_and_told(host):
    host.hang = {("sriov_numvfs", PF)}
    with pytest.raises(HostError) as caught:
        go(host, second(), first())
    assert "did not end" in str(caught.value) and "Not put back: %s: left alone" % PF in str(caught.value)
    assert host.count(OTHER) == 0 and host.exists(record.STATE)


def test_a_bind_that_never_ends_leaves_its_card_and_undoes_the_other(host):
    host.hang = {("drivers_probe", vf(1))}
    with pytest.raises(HostError) as caught:
        go(host, second(), first())
    assert "Not put back: %s: left alone" % PF in str(caught.value) and host.exists(record.STATE)
    assert (host.count(PF), host.count(OTHER), host.read(LIST)) == (3, 0, None)


@pytest.mark.parametrize("hang", [("sriov_numvfs", PF), ("sriov_drivers_autoprobe", PF), ("drivers_probe", vf(1)),
                                  ("driver_override", vf(0))])
def test_what_hangs_is_neither_read_nor_written_again_in_this_boot(host, hang):
    before = host.state()
    host.hang = {hang}
    with pytest.raises(HostError):
        go(host, second(), first())
    seen, host.writes = len(host.virtual(PF)), []
    for asks in ([first()], [first(5), second()]):
        said = refused(host, *asks)
        assert "%s: a write about it" % PF in said and "power button" in said
    predicted = go(host, second(), check=True)
    assert predicted["warnings"][0].startswith("%s: a write about it" % PF) and predicted == go(host, second())
    assert host.count(OTHER) == 2 and not go(host, second())["changed"]
    assert go(host, state="absent", check=True) == go(host, state="absent") and not go(host, state="absent")["changed"]
    assert len(host.virtual(PF)) == seen and host.count(OTHER) == 0 and host.exists(record.STATE)
    assert not [write for write in host.writes if write[1] in {PF} | set(host.virtual(PF))]
    host.reboot()
    go(host, state="absent")
    assert host.state() == before


def test_a_way_home_that_hangs_is_over_with_the_next_boot(host):
    before = host.state()
    go(host, first())
    host.hang = {("sriov_numvfs", PF)}
    with pytest.raises(HostError):
        go(host, state="absent")
    assert host.read(LIST) is not None
    predicted = go(host, state="absent", check=True)
    assert predicted["changed"] and predicted == go(host, state="absent")
    assert host.read(LIST) is None and host.exists(record.STATE)  # nothing makes them again at the next boot
    host.reboot()
    assert go(host, state="absent")["warnings"] == [] and host.state() == before


def test_a_card_that_hangs_since_somebody_elses_write_is_not_waited_for(host):
    host.locked.add(PF)
    assert "did not end within" in refused(host, first())


def test_after_the_boot_a_card_that_hung_is_taken_again(host):
    host.hang = {("sriov_numvfs", PF)}
    with pytest.raises(HostError):
        go(host, first())
    host.reboot()
    go(host, first())
    assert host.count(PF) == 3 and "stuck" not in host.read(record.STATE) and not go(host, first())["changed"]


@pytest.mark.parametrize("broken", [("drivers_probe", vf(4)), ("sriov_numvfs", PF, "5"), ("sriov_numvfs", PF, "0")])
def test_a_card_that_was_to_go_home_has_them_again_when_another_fails(host, broken):
    go(host, first(3), second(2))
    host.refuse = {broken: "Cannot allocate memory"}
    failed(host, first(5))
    assert host.state()[1][vf(0, OTHER)] == VFIO and not host.autoprobe(OTHER)


def test_a_card_that_is_not_listed_any_more_goes_home_in_the_same_run(host):
    go(host, first(3), second(2))
    result = go(host, first(3))
    assert (host.count(PF), host.count(OTHER), host.autoprobe(OTHER)) == (3, 0, True)
    assert result["functions"][1] == {"address": OTHER, "before": 2, "count": 0, "wanted": None}
    assert OTHER not in host.read(LIST) + host.read(persistence.RULES) + host.read(persistence.PULL)


@pytest.mark.parametrize("when", range(1, 17))
def test_a_run_that_is_killed_is_finished_or_undone_by_the_next(host, when):
    """One in two is finished first, then all are undone. The last numbers are beyond the end."""
    before = host.state()
    asks = [first(2, vfs=[dict(index=1, mac=MAC)])]
    host.kill_at = when
    try:
        go(host, *asks)
        assert when > 14
    except Killed:
        pass
    host.kill_at = None
    if when % 2:
        go(host, *asks)
        assert host.count(PF) == 2 and host.vfinfo[PF][1]["mac"] == MAC and host.driver(vf(1)) == "vfio-pci"
        assert not go(host, *asks)["changed"]
    go(host, state="absent")
    assert host.state() == before


def was_nothing(host):
    """Nothing before us, then three."""
    before = host.state()
    go(host, first(3, vfs=[SET]))
    return before


def was_a_fence(host):
    """Two before us, one of them in a VLAN, then four."""
    give_a_fence(host)
    before = host.state()
    go(host, first(4, vfs=[SET]))
    return before


def was_a_fence_that_stayed(host):
    give_a_fence(host)
    before = host.state()
    go(host, first(2, vfs=[dict(SET, index=0)]))
    return before


THEN = [
    (was_nothing, [first(5, vfs=[SET])], {}), (was_nothing, [first(2)], {}),
    (was_a_fence, [], {}), (was_a_fence_that_stayed, [], {}),
    (was_nothing, [first(5, vfs=[SET])], {("drivers_probe", vf(4)): "Device or resource busy"}),
    (was_a_fence, [first(5)], {("drivers_probe", vf(4)): "Device or resource busy"}),
    (was_a_fence, [second(1)], {("drivers_probe", vf(0, OTHER)): "Device or resource busy"}),
]


def attempt(host, asks):
    """Run it; whether it was killed, or None when it failed."""
    try:
        go(host, *asks, state="present" if asks else "absent")
    except Killed:
        return True
    except HostError:
        return None
    return False


@pytest.mark.parametrize("ready, asks, broken", THEN, ids=range(len(THEN)))
def test_whichever_change_is_the_last_of_a_run_the_next_finishes_or_undoes_it(tmp_path, ready, asks, broken):
    whole = Kernel(str(tmp_path / "whole"))
    ready(whole)
    whole.changes, whole.refuse = 0, broken
    attempt(whole, asks)
    start = when = whole.failed_at  # until then it is as a run that does not fail
    whole.refuse = {}
    go(whole, *asks, state="present" if asks else "absent")
    killed = True
    while killed:
        when += 1
        for way in ("again", "absent") if asks else ("absent",):
            host = Kernel(str(tmp_path / ("%d-%s" % (when, way))))
            before = ready(host)
            host.changes, host.kill_at, host.refuse = 0, when, broken
            killed = attempt(host, asks)
            assert killed or (killed is None) == bool(broken)
            host.kill_at, host.refuse = None, {}
            if way == "again":
                go(host, *asks, state="present" if asks else "absent")
                assert host.state()[:3] == whole.state()[:3], when
                assert host.files() == whole.files(), when
                assert not go(host, *asks, state="present" if asks else "absent")["changed"]
            assert go(host, state="absent")["warnings"] == []
            assert host.state() == before, (when, way)
            shutil.rmtree(host.root)
    assert when > start + 5


# -- what drivers and releases of ip do -----------------------------------------------------------


def test_a_driver_that_is_busy_for_a_moment_is_asked_again(host):
    host.silent, host.busy = {0: 2, 1: 3}, 2
    go(host, first(vfs=[SET]))
    assert host.vfinfo[PF][1]["mac"] == MAC and not host.silent[1] and not host.busy


def test_a_virtual_function_that_is_not_told_for_a_moment_has_its_fence_again_later(made):
    before = made.state()
    made.silent = {0: 2}
    go(made, first(4))
    go(made, state="absent")
    assert made.state() == before


@pytest.mark.parametrize("asks", [first(4), first(2, vfs=[SET])])
def test_what_cannot_be_given_back_is_not_taken(made, monkeypatch, asks):
    monkeypatch.setattr(physical, "PATIENCE", 0.2)
    made.silent = {0: 1000}
    said = refused(made, asks)
    assert "ens2 does not tell what virtual function 0 has" in said and "give it back" in said


def test_a_card_whose_driver_tells_of_none_is_not_refused(made, monkeypatch):
    monkeypatch.setattr(physical, "PATIENCE", 0.2)
    made.silent = {0: 1000, 1: 1000}
    assert go(made, first(4))["changed"] and made.count(PF) == 4


def test_a_driver_that_stays_busy(host, monkeypatch):
    monkeypatch.setattr(physical, "PATIENCE", 0.2)
    host.busy = 1000
    said = failed(host, first(vfs=[SET]))
    assert "functions[0].vfs[0].mac: ip link set dev ens2 vf 1 mac" in said and "temporarily unavailable" in said


def test_a_refusal_is_not_repeated(host):
    host.deaf = {"trust"}
    said = failed(host, first(vfs=[SET]))
    assert "RTNETLINK answers: Operation not supported" in said
    assert len([argv for argv in host.ran if "trust" in argv]) == 1


def test_a_vlan_of_another_protocol_is_not_taken(made):
    made.vfinfo[PF][0]["protocol"] = "802.1ad"
    said = refused(made, first(4))
    assert "virtual function 0 is in VLAN 33 of protocol 802.1ad" in said and "ip link set dev ens2 vf 0 vlan 0" in said


@pytest.mark.parametrize("after", [[first(2)], []])
def test_a_driver_that_takes_no_address_away_keeps_ours_with_a_warning(host, after):
    host.write_sysfs(DEVICES + PF + "/sriov_numvfs", "2", 60)
    go(host, first(2, vfs=[SET]))
    host.keeps_mac = True
    result = go(host, *after, state="present" if after else "absent")
    assert "virtual function 1 keeps %s" % MAC in result["warnings"][0] and "Invalid argument" in result["warnings"][0]
    assert host.vfinfo[PF][1] == {"mac": MAC, "vlan": 0, "qos": 0, "trust": False, "spoofchk": True}
    again = go(host, *after, state="present" if after else "absent")
    assert not again["changed"] and not again["warnings"]


def test_an_older_release_of_ip(made):
    made.old_ip = True
    before = made.state()
    go(made, first(2, vfs=[SET]))
    assert not go(made, first(2, vfs=[SET]))["changed"]
    go(made, state="absent")
    assert made.state() == before


# -- after a reboot, other cards, other hands ---------------------------------------------------


def test_after_a_reboot_they_are_made_again(host):
    go(host, first(vfs=[SET]))
    before = host.state()
    host.reboot()
    assert go(host, first(vfs=[SET]))["functions"][0]["before"] == 0
    assert host.state() == before


UNIT = persistence.unit(PF)


@pytest.fixture
def busy(host):
    """Three of one card, of which the unit that makes them at boot has made two; and those of another one."""
    host.put("/run/systemd/system/x", "")
    go(host, first(3), second())
    last = host.real(DEVICES + PF) + "/virtfn2"
    target = host.real(last)
    os.unlink(host.root + last)
    host.over = lambda: host._symlink(target, last)
    host.ran.clear()
    return host


@pytest.mark.parametrize("states", [[("activating", 5), ("activating", 5)], [("inactive", 7), ("activating", 7)],
                                    [("deactivating", 0)]])
@pytest.mark.parametrize("check", [True, False])
def test_the_unit_of_the_boot_is_waited_for(busy, states, check):
    busy.units[UNIT] = list(states)
    changes = busy.changes
    assert not go(busy, first(3), second(), check=check)["changed"]
    assert busy.units == {} and busy.changes == changes
    asks = [argv for argv in busy.ran if argv[:2] == ["systemctl", "show"]]
    assert len(asks) == len(states) + 1 and asks[0][-2:] == [UNIT, persistence.unit(OTHER)]


@pytest.mark.parametrize("asks, more", [([first(3)], {}), ([first(3)], {"check": True}), ([second()], {}), ([], {"state": "absent"})])
def test_a_unit_that_is_not_over_in_time_refuses(busy, monkeypatch, asks, more):
    monkeypatch.setattr(_own_files, "UNIT_PATIENCE", 0.2)
    busy.units[UNIT] = [("activating", 5)] * 99
    said = refused(busy, *asks, **more)
    assert "%s is still at work after 0.2 s" % UNIT in said and "systemctl status %s" % UNIT in said


def test_without_systemd_no_unit_is_asked_for(busy):
    shutil.rmtree(busy.path("/run/systemd"))
    busy.over()
    assert not go(busy, first(3), second())["changed"] and busy.ran == [
        argv for argv in busy.ran if argv[0] != "systemctl"]


def test_the_unit_of_a_card_that_hangs_is_not_waited_for(busy):
    busy.over()
    busy.hang = {("sriov_numvfs", PF)}
    with pytest.raises(HostError):
        go(busy, first(5), second())
    busy.units[UNIT] = [("activating", 5)] * 99
    assert go(busy, second(3))["changed"]


def test_the_way_home_after_a_reboot(host):
    before = host.state()
    go(host, first(vfs=[SET]))
    host.reboot()
    go(host, state="absent")
    assert host.state() == before


def test_what_somebody_has_set_since_is_left(host):
    go(host, first(3))
    host.write_sysfs(DEVICES + PF + "/sriov_numvfs", "0", 60)
    host.write_sysfs(DEVICES + PF + "/sriov_numvfs", "5", 60)
    result = go(host, state="absent")
    assert host.count(PF) == 5 and "somebody has set them since" in result["warnings"][0]
    assert not host.exists(record.STATE) and not go(host, state="absent")["changed"]


def test_a_card_that_is_gone_has_nothing_to_give_back(host):
    go(host, first(3))
    host.put(host.real(DEVICES + PF) + "/device", "0x1111\n")
    result = go(host, state="absent")
    assert "is gone" in result["warnings"][0] and host.count(PF) == 3 and not host.exists(record.STATE)


def test_another_card_at_the_address_is_refused(host):
    host.put(host.real(DEVICES + PF) + "/device", "0x1111\n")
    assert "another card is there" in refused(host, first())


def test_a_record_that_cannot_be_understood(host):
    go(host, first())
    host.put(record.STATE, "{}")
    assert record.STATE in refused(host, first(2)) and record.STATE in refused(host, state="absent")


@pytest.mark.parametrize("command, word", [("systemctl", "systemd"), ("ip", "iproute2")])
def test_commands_that_are_missing(host, command, word):
    host.remove("/usr/bin/" + command)
    assert word in refused(host, first(vfs=[SET]))


@pytest.mark.parametrize("asks, override", [
    (first(), "igbvf"), (first(driver="mlx5_vfio_pci"), "vfio-pci"), (first(driver="host"), "vfio-pci"), (first(), "none"),
    (first(vfs=[{"index": 1, "driver": "host"}]), "mlx5_vfio_pci"),
])
@pytest.mark.parametrize("there", [False, True])
def test_another_driver_that_driverctl_has_for_a_virtual_function(host, asks, override, there):
    if there:
        go(host, asks)
    path = "/etc/driverctl.d/pci-" + vf(1)
    host.put(path, override + "\n")
    said = refused(host, asks)
    assert "functions[0]: driverctl" in said and "%s (%s: %s)" % (vf(1), path, override) in said
    assert "driverctl unset-override %s " % vf(1) in said
    assert go(host, first(1))["changed"] and go(host, state="absent")["changed"] and host.read(path) == override + "\n"


@pytest.mark.parametrize("asks, override", [(first(), "vfio_pci"), (first(driver="host"), "igbvf"), (first(1), "igbvf")])
def test_an_override_of_driverctl_that_says_the_same_or_is_about_others(host, asks, override):
    host.put("/etc/driverctl.d/pci-" + vf(1), override)
    go(host, asks)
    assert not go(host, asks)["changed"]


def test_an_override_of_driverctl_that_only_the_real_address_shows(host):
    host.put("/etc/driverctl.d/pci-" + vf(4), "igbvf")
    host.shift = 4
    assert "driverctl unset-override %s " % vf(4) in failed(host, first(2))


def for_guests(address, path=None):
    return asked.render([asked.identity({"address": address, "vendor": "8086", "device": "10c9", "path": path,
                                         "subsystem_vendor": "0000", "subsystem_device": "0000"})])


def test_a_card_that_the_next_boot_gives_to_guests_is_refused(host):
    host.put(asked.DEVICES, for_guests(PF))
    said = refused(host, second(), first(3))
    assert "functions[1].address: %s is in %s" % (PF, asked.DEVICES) in said and "vfio.host.vfio_binding" in said
    assert go(host, second())["changed"]


@pytest.mark.parametrize("before", [0, 3])
def test_a_card_of_that_list_can_have_none(host, before):
    """What refuses to give it to guests says to do this first."""
    go(host, first(before))
    host.put(asked.DEVICES, for_guests(PF))
    assert go(host, first(0))["changed"] is bool(before) and host.count(PF) == 0
    assert not go(host, first(0))["changed"] and go(host, first(0), second())["changed"]
    assert not go(host, first(0), second())["changed"]


def give(host, driver="vfio-pci"):
    """The physical function on another driver; on that of guests, a guest has it."""
    host._release(PF)
    if driver:
        host.tree_of.folder(DRIVERS + driver)
        host.bind(PF, driver)
    if driver == "vfio-pci":
        node = "/dev/vfio/" + host.readlink(DEVICES + PF + "/iommu_group").rpartition("/")[2]
        host.put(node, "")
        host.process(77, "qemu-kvm", node)


def take_home(host):
    if host.driver(PF):
        host._release(PF)
    host.bind(PF, "igb")
    host.tree_of.nic(NIC[PF], host.real(DEVICES + PF), index=2)


@pytest.mark.parametrize("driver", ["vfio-pci", "pci-stub", None])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_card_that_guests_have_may_stay_on_the_list_with_none(made, driver, recorded):
    if recorded:
        go(made, first(0))
    else:
        made.write_sysfs(DEVICES + PF + "/sriov_numvfs", "0", 60)
    give(made, driver)
    made.put(DEVICES + PF + "/sriov_drivers_autoprobe", "0\n")
    made.writes = []
    assert go(made, first(0), second(), check=True) == go(made, first(0), second())
    assert not go(made, first(0), second())["changed"] and made.count(OTHER) == 2
    assert not [write for write in made.writes if write[1] == PF]


def test_a_card_that_guests_have_and_that_has_some_is_refused(made):
    give(made)
    assert "functions[0].address: %s is on vfio-pci" % PF in refused(made, first(0))


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci", "pci-stub", "uio_pci_generic", None])
def test_the_way_home_of_a_card_that_guests_have_waits_until_it_is_home(made, driver):
    before = made.state()
    go(made, first(0), second())
    give(made, driver)
    made.writes, made.refuse = [], {("sriov_numvfs", PF): "No such file or directory"}
    for asks, more in (([second()], {}), ([], {"state": "absent"})):
        predicted = go(made, *asks, check=True, **more)
        assert "%s: it is on %s" % (PF, driver or "no driver") in predicted["warnings"][0]
        assert predicted == go(made, *asks, **more)
        again = go(made, *asks, **more)
        assert not again["changed"] and again["warnings"] == predicted["warnings"]
    assert not [write for write in made.writes if write[1] == PF] and made.count(OTHER) == 0
    assert made.exists(record.STATE) and made.read(LIST) is None
    made.refuse = {}
    take_home(made)
    assert go(made, state="absent")["changed"] and made.state() == before


def test_the_way_home_makes_none_on_a_card_that_the_next_boot_gives_to_guests(made):
    before = made.state()
    go(made, first(0))
    made.put(asked.DEVICES, for_guests(PF))
    made.writes = []
    predicted = go(made, state="absent", check=True)
    assert "%s: %s gives it to vfio-pci at the next boot" % (PF, asked.DEVICES) in predicted["warnings"][0]
    assert predicted == go(made, state="absent") and not predicted["changed"] and not made.writes
    made.put(asked.DEVICES, "x\n")
    assert "%s line 1" % asked.DEVICES in refused(made, state="absent")
    os.unlink(made.path(asked.DEVICES))
    os.rmdir(made.path("/etc/vfio-host"))
    go(made, state="absent")
    assert made.state() == before


def test_the_way_home_ends_those_of_a_card_that_the_next_boot_gives_to_guests(host):
    go(host, first(3))
    host.put(asked.DEVICES, for_guests(PF))
    assert go(host, state="absent")["warnings"] == []
    assert host.count(PF) == 0 and host.autoprobe(PF) and not host.exists(record.STATE)


def test_a_card_that_guests_have_and_that_had_none_has_nothing_to_give_back(host):
    go(host, first(3))
    host.reboot()
    give(host)
    host.writes = []
    assert go(host, state="absent")["warnings"] == [] and not host.writes
    assert not host.exists(record.STATE) and not go(host, state="absent")["changed"]


def test_a_card_is_known_on_that_list_by_its_way_when_bus_numbers_shift(host):
    way = asked.path_of(host.readlink(DEVICES + PF))
    assert way
    host.put(asked.DEVICES, for_guests("0000:07:00.0", way))
    assert "%s is in %s" % (PF, asked.DEVICES) in refused(host, first())
    host.put(asked.DEVICES, for_guests("0000:07:00.0", "0000:00/1f.0/00.0"))
    assert go(host, first())["changed"]


def test_a_list_that_cannot_be_understood_is_refused(host):
    host.put(asked.DEVICES, "0000:02:00.0 8086\n")
    assert "%s line 1" % asked.DEVICES in refused(host, first())
    assert not go(host, state="absent")["changed"]


def test_settings_need_an_interface(host):
    shutil.rmtree(host.root + host.real(DEVICES + PF) + "/net")
    assert "functions[0].vfs[0].mac: %s has no network interface" % PF in refused(host, first(vfs=[SET]))


def test_representors_are_not_the_interface(host):
    home = host.real(DEVICES + PF)
    host.put(home + "/net/ens2/phys_port_name", "p0\n")
    for name, port in (("ens2_0", "pf0vf0"), ("ens2_1", "pf0vf1")):
        host.tree_of.nic(name, home, index=60)
        host.put("%s/net/%s/phys_port_name" % (home, name), port + "\n")
    go(host, first(vfs=[SET]))
    assert host.vfinfo[PF][1]["mac"] == MAC
    host.put(home + "/net/ens2_0/phys_port_name", "p1\n")
    assert "which of them sets its virtual functions is not known" in refused(host, first(vfs=[dict(SET, vlan=1)]))


def test_a_link_that_carries_ssh_is_warned_of(host):
    ssh = {"kind": "network", "what": "SSH 192.0.2.9 to 192.0.2.2", "chain": [], "finding": "VH202"}
    result = go(host, first(), change=use(PF, used_by=[ssh]))
    assert "carries SSH 192.0.2.9 to 192.0.2.2" in result["warnings"][0]


def test_files_of_others_are_warned_of(host):
    host.put("/etc/udev/rules.d/70-nic.rules", 'ATTR{sriov_numvfs}="4"\n')
    assert "70-nic.rules: says sriov_numvfs too" in go(host, first())["warnings"][0]


# -- files ------------------------------------------------------------------------------------


def test_files_say_which_card_and_have_their_modes(host):
    go(host, first(vfs=[SET]), second())
    assert host.stat(persistence.SCRIPT).st_mode & 0o777 == 0o755
    assert host.stat(persistence.UNIT).st_mode & 0o777 == 0o644
    rules = host.read(persistence.RULES)
    assert ('ACTION=="add|bind", SUBSYSTEM=="pci", KERNEL=="%s", ATTR{vendor}=="0x8086", ATTR{device}=="0x10c9", '
            'ENV{DRIVER}=="?*", RUN+="/usr/bin/systemctl --no-block start vfio-host-sriov@%s.service"'
            % (PF, PF)) in rules
    assert rules.count("RUN+=") == 4 and 'KERNELS=="%s"' % OTHER in rules
    assert "Wants=vfio-host-sriov@%s.service vfio-host-sriov@%s.service\n" % (PF, OTHER) in host.read(persistence.PULL)
    assert "ExecStart=/bin/sh %s %%i\n" % persistence.SCRIPT in host.read(persistence.UNIT)
    assert ["systemctl", "daemon-reload"] in host.ran and ["udevadm", "control", "--reload"] in host.ran


def test_a_file_that_somebody_edited_is_put_right(host):
    go(host, first())
    text = host.read(persistence.RULES)
    host.put(persistence.RULES, "")
    result = go(host, first())
    assert result["changed"] and host.read(persistence.RULES) == text
    assert [entry["before_header"] for entry in result["diff"]] == [persistence.RULES]


def test_a_script_that_lost_its_mode_is_put_right(host):
    go(host, first())
    os.chmod(host.path(persistence.SCRIPT), 0o644)
    assert go(host, first(), check=True)["changed"] and go(host, first())["changed"]
    assert host.stat(persistence.SCRIPT).st_mode & 0o777 == 0o755 and not go(host, first())["changed"]


def test_count_0_keeps_a_card_without_any(host):
    go(host, first(0))
    assert host.count(PF) == 0 and host.autoprobe(PF) and host.read(LIST) is None
    assert not go(host, first(0))["changed"]


def test_mixed_drivers_leave_autoprobe_off(host):
    go(host, first(3, vfs=[{"index": 1, "driver": "host"}]))
    assert host.state()[1] == {vf(0): VFIO, vf(1): ("igbvf", None), vf(2): VFIO} and not host.autoprobe(PF)


def test_a_setting_that_is_no_longer_asked_goes_back(host):
    go(host, first(vfs=[SET]))
    go(host, first())
    assert host.vfinfo[PF][1] == {"mac": "00:00:00:00:00:00", "vlan": 0, "qos": 0, "trust": False, "spoofchk": True}
    assert not go(host, first())["changed"]
