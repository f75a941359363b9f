# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All guests in one pass, with a libvirt in memory."""

from __future__ import annotations

import os

import guest_samples
import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest.connection import Libvirt
from ansible_collections.vfio.host.plugins.module_utils._guest.manage import run
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.killable import killed_before
from fake_libvirt import FakeConnection


class Bench:
    """A host below a folder, a libvirt in memory, and a run of the module's core on both."""

    def __init__(self, root):
        self.root = root
        self.connection = FakeConnection()
        self.commands = []
        for path, text in {
            "etc/machine-id": guest_samples.MACHINE_ID + "\n",
            "proc/meminfo": "MemTotal:        4194304 kB\n",
            "dev/kvm": "",
            "usr/bin/qemu-img": "",
            "usr/sbin/libvirtd": "",
            "srv/there.raw": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.function("0000:01:00.0")

    def function(self, address, driver="vfio-pci"):
        folder = self.root / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "driver").symlink_to("../../drivers/" + driver)

    def command(self, argv, stdin):
        self.commands.append(argv)
        if "fail" in argv[5]:
            return Result(argv, 1, "", "no room")
        with open(str(self.root) + argv[5], "w", encoding="ascii") as disk:
            disk.write("QFI")
        return Result(argv, 0)

    def run(self, *guests, check=False, connect=None, **options):
        params = {"guests": list(guests), "host_reserve": "1GiB", "shutdown_timeout": 0, "force_off": False}
        params.update(options)
        return run(
            Host(self.root, commands=self.command),
            params,
            check,
            connect or (lambda: Libvirt(self.connection, 5)),
            pause=lambda seconds: None,
        )

    def files(self):
        return sorted(str(path) for path in self.root.rglob("*"))


@pytest.fixture(name="bench")
def bench_(tmp_path):
    return Bench(tmp_path)


def guest(**more):
    return dict({"name": "a", "memory": "256MiB", "vcpus": 1}, **more)


GPU = {"devices": [{"name": "gpu", "functions": [{"address": "0000:01:00.0"}]}]}


def actions(result):
    return [entry["actions"] for entry in result["guests"]]


def test_define_start_and_then_nothing(bench):
    first = bench.run(guest(**GPU))
    assert first["changed"]
    assert actions(first) == [["define", "start"]]
    assert (first["guests"][0]["state_before"], first["guests"][0]["state"]) == ("absent", "running")
    bench.connection.calls.clear()
    second = bench.run(guest(**GPU))
    assert not second["changed"]
    assert second["diff"] == []
    assert bench.connection.calls == []
    assert second["guests"][0]["uuid"] == first["guests"][0]["uuid"]
    assert bench.connection.closed


def test_no_guests_need_no_libvirt(bench):
    def connect():
        raise AssertionError("not asked for")

    assert bench.run(connect=connect)["changed"] is False


@pytest.mark.parametrize("state", ["running", "defined", "shutoff", "absent"])
def test_check_mode_tells_what_the_run_does_and_does_nothing(bench, state):
    bench.run(guest(name="old"))
    guests = [
        guest(state=state, autostart=True, disks=[{"path": "/srv/new.raw", "size": "1MiB"}], **GPU),
        guest(name="old", memory="512MiB", state=state),
    ]
    bench.connection.calls.clear()
    files = bench.files()
    predicted = bench.run(*guests, check=True)
    assert bench.connection.calls == []
    assert bench.files() == files
    assert predicted == bench.run(*guests)
    assert bench.run(*guests)["changed"] is False


def test_a_bare_host_in_check_mode_predicts_new_guests(bench):
    def connect():
        raise HostError("the Python binding of libvirt is not installed")

    (bench.root / "sys/bus/pci/devices/0000:01:00.0/driver").unlink()
    result = bench.run(guest(**GPU), check=True, connect=connect)
    assert actions(result) == [["define", "start"]]
    assert "has driver none and not vfio-pci" in result["problems"][0]
    assert "predicted as new" in result["warnings"][0]
    with pytest.raises(HostError, match="binding of libvirt"):
        bench.run(guest(**GPU), connect=connect)


def test_the_way_back_works_before_libvirt_is_there(bench):
    def connect():
        raise HostError("the Python binding of libvirt is not installed")

    with pytest.raises(HostError, match="binding of libvirt"):  # there may be guests, and they cannot be asked
        bench.run(guest(state="absent"), connect=connect)
    (bench.root / "usr/sbin/libvirtd").unlink()
    assert bench.run(guest(state="absent"), connect=connect)["changed"] is False
    with pytest.raises(HostError, match="binding of libvirt"):
        bench.run(guest(state="absent"), guest(name="b"), connect=connect)


def test_nothing_is_changed_when_one_guest_cannot_run(bench):
    bench.function("0000:02:00.0", "nouveau")
    bad = guest(name="b", devices=[{"name": "two", "functions": [{"address": "0000:02:00.0"}]}])
    with pytest.raises(HostError, match="nothing was changed; guest b: device two: 0000:02:00.0 has driver nouveau"):
        bench.run(guest(**GPU), bad)
    assert bench.connection.calls == []
    assert bench.connection.closed
    assert bench.run(dict(bad, state="defined"))["guests"][0]["state"] == "shutoff"


def test_kvm_is_needed_for_a_definition_already(bench):
    (bench.root / "dev/kvm").unlink()
    with pytest.raises(HostError, match="/dev/kvm is missing"):
        bench.run(guest(state="defined"))


def test_a_running_guest_is_redefined_but_never_restarted(bench):
    bench.run(guest())
    bench.connection.calls.clear()
    result = bench.run(guest(memory="512MiB"))
    assert bench.connection.calls == [("define", "a")]
    assert result["restart_required"] == ["a"]
    again = bench.run(guest(memory="512MiB"))
    assert again["changed"] is False
    assert again["restart_required"] == ["a"]
    assert again["guests"][0]["live_differences"][0] == "domain/memory: 262144, wanted 524288"


def test_the_former_definition_comes_back_when_libvirt_drops_a_part(bench):
    bench.run(guest(state="defined"))
    bench.connection.drop = "devices/memballoon"
    with pytest.raises(HostError, match="guest a: libvirt did not keep the definition.*memballoon: missing"):
        bench.run(guest(state="defined", memory="512MiB"))
    assert '<memory unit="KiB">262144</memory>' in bench.connection.domains["a"].inactive
    with pytest.raises(HostError, match="guest b: libvirt did not keep"):
        bench.run(guest(name="b", state="defined"))
    assert list(bench.connection.domains) == ["a"]


def test_libvirts_own_words_reach_the_user(bench):
    bench.connection.refuse_start = "Requested operation is not valid: PCI device 0000:01:00.0 is in use by x"
    with pytest.raises(HostError, match="guest a: starting it: .*PCI device 0000:01:00.0 is in use by x"):
        bench.run(guest(**GPU))


def test_memory_is_judged_before_anything_else(bench):
    big = guest(memory="3GiB", **GPU)
    bench.run(big)  # 3 of 4 GiB, 1 reserved: exactly full
    with pytest.raises(ValueError, match=r"memory: .* 3072 MiB pinned \(a 3072 MiB\).*4224 MiB of 4096 MiB"):
        bench.run(big, host_reserve="1152MiB")
    with pytest.raises(ValueError, match="memory"):
        bench.run(big, host_reserve="1152MiB", check=True)


def test_running_guests_of_others_count_and_ours_without_devices_do_not(bench):
    bench.run(guest(name="other", memory="1GiB"))
    pinned = guest(memory="2304MiB", **GPU)
    with pytest.raises(ValueError, match=r"other running guests have 1024 MiB \(other 1024 MiB\)"):
        bench.run(pinned)
    bench.run(pinned, guest(name="other", memory="1GiB"))
    assert bench.run(pinned, guest(name="other", memory="1GiB"))["changed"] is False


def huge_pages_for(bench, name):
    domain = bench.connection.domains[name]
    backed = "<memoryBacking><hugepages /></memoryBacking><os>"
    domain.inactive = domain.inactive.replace("<os>", backed)
    domain.live = domain.live.replace("<os>", backed)


def test_huge_pages_are_no_memory_for_guests_that_do_not_use_them(bench):
    (bench.root / "proc/meminfo").write_text("MemTotal:        4194304 kB\nHugetlb:         1048576 kB\n")
    bench.run(guest(memory="2GiB", **GPU))
    with pytest.raises(ValueError, match=r"and 1024 MiB are in huge pages.*: 4097 MiB of 4096 MiB.*of huge pages"):
        bench.run(guest(memory="2049MiB", **GPU))
    huge_pages_for(bench, "a")
    assert bench.run(guest(memory="2GiB", **GPU), host_reserve="4GiB")["changed"] is False


def test_a_guest_of_others_on_huge_pages_is_counted_once(bench):
    (bench.root / "proc/meminfo").write_text("MemTotal:        4194304 kB\nHugetlb:         1048576 kB\n")
    bench.run(guest(name="other", memory="1GiB"))
    with pytest.raises(ValueError, match=r"other running guests have 1024 MiB"):
        bench.run(guest(memory="2GiB", **GPU))
    huge_pages_for(bench, "other")
    bench.run(guest(memory="2GiB", **GPU))


def test_a_running_guest_counts_with_what_it_has_until_its_restart(bench):
    bench.run(guest(memory="3GiB", **GPU))
    with pytest.raises(ValueError, match="a 3072 MiB"):
        bench.run(guest(memory="256MiB", **GPU), host_reserve="2GiB")


def test_disks_are_made_once_sparse_and_private(bench):
    disks = [
        {"path": "/srv/new.raw", "size": "8GiB"},
        {"path": "/srv/new.qcow2", "size": "1MiB"},
        {"path": "/srv/there.raw", "size": "1MiB"},
    ]
    first = bench.run(guest(disks=disks))
    assert actions(first) == [["create_disk", "define", "start"]]
    made = os.stat(str(bench.root / "srv/new.raw"))
    assert made.st_size == 8 * 2**30
    assert made.st_blocks == 0
    assert made.st_mode & 0o777 == 0o600
    assert bench.commands == [["qemu-img", "create", "-q", "-f", "qcow2", "/srv/.vfio-host-new-new.qcow2", "1048576"]]
    assert (bench.root / "srv/there.raw").stat().st_size == 0
    assert bench.run(guest(disks=disks))["changed"] is False


def test_a_disk_that_cannot_be_made_leaves_nothing_behind(bench):
    with pytest.raises(HostError, match="disk /srv/fail.qcow2: .*no room"):
        bench.run(guest(disks=[{"path": "/srv/fail.qcow2", "size": "1MiB"}]))
    assert not (bench.root / "srv/fail.qcow2").exists()


def test_a_run_that_is_killed_while_it_makes_a_disk_leaves_none_that_is_empty(tmp_path):
    disks = [{"path": "/srv/new.raw", "size": "8MiB"}, {"path": "/srv/new.qcow2", "size": "1MiB"}]
    number, seen = 0, {"changes": 1}
    while seen["changes"] >= number:
        number += 1
        (tmp_path / str(number)).mkdir()
        bench = Bench(tmp_path / str(number))
        before = bench.files()
        with killed_before(Host(bench.root, commands=bench.command), number) as seen:
            bench.run(guest(disks=disks))
        bench.run(guest(disks=disks))
        assert bench.run(guest(disks=disks))["changed"] is False
        assert (bench.root / "srv/new.raw").stat().st_size == 8 << 20 and (bench.root / "srv/new.qcow2").read_text() == "QFI"
        assert set(bench.files()) - set(before) == {str(bench.root / "srv/new.raw"), str(bench.root / "srv/new.qcow2")}, number
    assert number > 4


def test_a_disk_that_appeared_meanwhile_is_not_overwritten(bench):
    disk = {"path": "/srv/late.raw", "size": "1MiB"}

    def connect():  # after the disks were looked at comes only libvirt
        libvirt = Libvirt(bench.connection, 5)
        libvirt.define = lambda *args: pytest.fail("the disk comes first")
        libvirt.undefine = lambda name: (bench.root / "srv/late.raw").write_text("precious")
        return libvirt

    bench.run(guest(name="old", state="defined"))
    with pytest.raises(HostError, match="disk /srv/late.raw appeared meanwhile"):
        bench.run({"name": "old", "state": "absent"}, guest(disks=[disk]), connect=connect)
    assert (bench.root / "srv/late.raw").read_text() == "precious"


def test_diffs_show_both_sides_and_no_password(bench):
    bench.run(guest(state="defined"))
    domain = bench.connection.domains["a"]
    domain.inactive = domain.inactive.replace("<graphics ", '<graphics passwd="hush" ')
    definition = bench.run(guest(state="defined", memory="512MiB"))["diff"][0]
    assert definition["before_header"] == definition["after_header"] == "guest a: definition"
    before, after = definition["before"].splitlines(), definition["after"].splitlines()
    assert sorted(set(after) - set(before)) == [
        '  <currentMemory unit="KiB">524288</currentMemory>',
        '  <memory unit="KiB">524288</memory>',
    ]
    assert len(before) == len(after)
    assert "hush" not in str(definition)
    assert "hush" in domain.inactive


def test_absent_takes_the_definition_and_leaves_the_disks(bench):
    bench.run(guest(disks=[{"path": "/srv/there.raw"}]))
    result = bench.run({"name": "a", "state": "absent"})
    assert actions(result) == [["stop", "undefine"]]
    assert bench.connection.domains == {}
    assert (bench.root / "srv/there.raw").exists()
    assert bench.run({"name": "a", "state": "absent"})["changed"] is False


@pytest.mark.parametrize("state", ["shutoff", "absent"])
def test_a_guest_that_does_not_listen_is_turned_off_only_when_asked(bench, state):
    bench.run(guest())
    bench.connection.domains["a"].deaf = True
    with pytest.raises(HostError, match="did not shut down within 0 s; .* force_off"):
        bench.run(guest(state=state))
    assert bench.connection.domains["a"].isActive()
    result = bench.run(guest(state=state), force_off=True)
    assert result["guests"][0]["state"] == state
    assert ("destroy", "a") in bench.connection.calls


def test_devices_are_freed_before_they_are_taken(bench):
    bench.run(guest(**GPU))
    bench.connection.calls.clear()
    bench.run(guest(name="b", **GPU), guest(state="shutoff", **GPU))
    assert bench.connection.calls == [("shutdown", "a"), ("define", "b"), ("create", "b")]


def test_a_transient_guest_becomes_persistent_or_goes(bench):
    bench.run(guest())
    bench.connection.domains["a"].persistent = False
    result = bench.run(guest())
    assert actions(result) == [["define"]]
    assert bench.run(guest())["changed"] is False
    bench.connection.domains["a"].persistent = False
    assert actions(bench.run({"name": "a", "state": "absent"})) == [["stop"]]
    assert bench.connection.domains == {}


def test_a_guest_keeps_the_mac_address_that_it_has(bench):
    (bench.root / "sys/class/net/br0/bridge").mkdir(parents=True)
    bench.run(guest(network="br0", state="defined"))
    domain = bench.connection.domains["a"]
    start = domain.inactive.index("52:54:00:")
    domain.inactive = domain.inactive.replace(domain.inactive[start:start + 17], "52:54:00:01:02:03")
    assert bench.run(guest(network="br0", state="defined"))["changed"] is False


def test_without_a_machine_id_nothing_is_derived(bench):
    (bench.root / "etc/machine-id").write_text("")
    with pytest.raises(HostError, match="machine-id"):
        bench.run(guest())
