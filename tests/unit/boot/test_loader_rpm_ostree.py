# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, record
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, bootc, grubby, rpm_ostree
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import rpm_ostree as stand_in
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import trees
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply, evidence, lines

WANTED = ["intel_iommu=on", "iommu=pt"]
LINE = "root=UUID=1 rw console=tty0 console=ttyS0 intel_iommu=off"


def make(folder):
    return stand_in.make(Machine(folder, {"rpm-ostree": stand_in.run}), LINE)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def host(tmp_path):
    return make(tmp_path)


def deployments(host):
    return json.loads(host.read(stand_in.SYSROOT))


def test_it_is_recognised_by_what_booted(host):
    found, against = evidence(rpm_ostree, host)
    assert (found, against) == (["ostree=/ostree/boot.1/fedora/abc/0 on the running command line"], [])
    assert evidence(bootc, host)[1] != []
    trees.fedora(host)  # grubby's files are there too, in the image
    stand_in.make(host, LINE)
    assert any("ostree system" in sentence for sentence in evidence(grubby, host)[1])
    assert any("ostree system" in sentence for sentence in evidence(bls, host)[1])


@pytest.mark.parametrize(
    "path, text, reason",
    [("/proc/cmdline", "ro\n", "no ostree="), ("/run/ostree-booted", None, "ostree did not start"),
     ("/usr/sbin/rpm-ostree", None, "not installed")],
)  # fmt: skip
def test_what_it_is_not_for(host, path, text, reason):
    host.write(path, text) if text else host.remove(path)
    assert any(reason in sentence for sentence in evidence(rpm_ostree, host)[1])


def test_one_transaction_and_the_running_deployment_stays(host):
    running = deployments(host)[0]["kargs"]
    apply(rpm_ostree, host, WANTED, [])
    changing = [argv for argv in host.calls if len(argv) > 2 and "kargs" in argv and "=" in argv[2]
                and "--deploy-index" not in argv[2]]  # fmt: skip
    assert changing == [["rpm-ostree", "kargs", "--append=intel_iommu=on", "--append=iommu=pt"]]
    new, old = deployments(host)
    assert new["kargs"] == running + WANTED
    assert old["kargs"] == running and old["booted"]
    assert list(lines(rpm_ostree, host).values()) == [running + WANTED]
    assert [entry["managed"] for entry in rpm_ostree.view(host)["entries"]] == [True, False]
    assert rpm_ostree.edits(host, WANTED, WANTED) == []
    assert rpm_ostree.recorded(host) == WANTED


def test_the_way_back_takes_out_ours_alone_and_our_file(host):
    running = deployments(host)[0]["kargs"]
    apply(rpm_ostree, host, WANTED, [])
    apply(rpm_ostree, host, [], WANTED)
    assert deployments(host)[0]["kargs"] == running
    assert not host.exists(rpm_ostree.STATE)
    assert rpm_ostree.recorded(host) is None
    assert rpm_ostree.edits(host, [], WANTED) == []


def test_a_key_that_is_there_with_another_value_does_not_stop_ours(host):
    apply(rpm_ostree, host, ["intel_iommu=on"], [])
    assert deployments(host)[0]["kargs"][-1] == "intel_iommu=on"
    assert "intel_iommu=off" in deployments(host)[0]["kargs"]


def test_a_bare_name_does_not_take_a_value_away(host):
    """libostree's delete of a bare key removes its only value, whatever it is."""
    line = ["nosmt=force"]
    assert stand_in.delete(line, "nosmt") is None and line == []
    found = deployments(host)
    found[0]["kargs"].append("nosmt=force")
    host.write(stand_in.SYSROOT, json.dumps(found))
    apply(rpm_ostree, host, [], ["nosmt"])
    assert "nosmt=force" in deployments(host)[0]["kargs"]


def test_ours_that_is_overridden_comes_to_the_end_again(host):
    apply(rpm_ostree, host, ["intel_iommu=on"], [])
    stand_in.run(host, ["rpm-ostree", "kargs", "--append=intel_iommu=off"])
    rpm_ostree.generate(host)
    assert deployments(host)[0]["kargs"][-2:] == ["intel_iommu=off", "intel_iommu=on"]
    assert deployments(host)[0]["kargs"].count("intel_iommu=on") == 1


def test_a_pending_upgrade_is_built_upon_and_not_dropped(host):
    found = deployments(host)
    found.insert(0, dict(found[0], checksum="def", version="40.2", booted=False, staged=True))
    host.write(stand_in.SYSROOT, json.dumps(found))
    apply(rpm_ostree, host, WANTED, [])
    assert [one["checksum"] for one in deployments(host)] == ["def", "abc"]
    assert deployments(host)[0]["kargs"][-2:] == WANTED


def test_a_busy_daemon_is_a_failure_that_says_what_to_do(host):
    host.write("/run/rpm-ostree-busy", "1")
    with pytest.raises(HostError, match="rpm-ostree cancel"):
        apply(rpm_ostree, host, WANTED, [])
    assert len(deployments(host)) == 1


def test_a_change_that_did_not_happen_is_a_failure(host):
    real = host.tools["rpm-ostree"]
    host.tools["rpm-ostree"] = lambda host, argv, stdin: (
        Result(argv, 0, "No changes.\n") if "--append=iommu=pt" in argv else real(host, argv, stdin)
    )
    with pytest.raises(HostError, match="expected was"):
        apply(rpm_ostree, host, ["iommu=pt"], [])


def test_a_tool_that_answers_nothing_any_more_leaves_it_to_the_next_run(host, monkeypatch):
    """Not even what is there can be read: the record has to say that something may be."""
    tool = host.tools["rpm-ostree"]
    before = sorted(deployments(host)[0]["kargs"])

    def fails(host_, originals):
        host_.tools["rpm-ostree"] = lambda host, argv, stdin: Result(argv, 1, "", "error: no daemon\n")
        raise HostError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(cmdline.record, "settled", fails)
        with pytest.raises(HostError, match="no room.*could not be put back.*no daemon"):
            loader_contract.go(host, WANTED)
    host.tools["rpm-ostree"] = tool
    loader_contract.go(host, (), "absent")
    assert sorted(deployments(host)[0]["kargs"]) == before and record.read(host) is None


def test_a_foreign_file_in_our_place_is_refused(host):
    host.write(rpm_ostree.STATE, "mine\n")
    with pytest.raises(ValueError, match="not from this collection"):
        rpm_ostree.edits(host, WANTED, [])


def test_a_lost_record_and_a_killed_removal_leave_nothing_behind(host):
    apply(rpm_ostree, host, WANTED, [])
    made = rpm_ostree.edits(host, [], WANTED)
    host.write(made[0].path, made[0].after)  # killed here, and the record is gone
    assert rpm_ostree.recorded(host) == WANTED
    assert rpm_ostree.edits(host, [], WANTED) != []
    rpm_ostree.generate(host)
    assert not set(deployments(host)[0]["kargs"]) & set(WANTED)


def test_what_there_is_instead_of_a_fallback_entry_and_a_trial_is_said(host):
    assert rpm_ostree.fallback(host, WANTED) == []
    assert "rpm-ostree rollback" in rpm_ostree.fallback_unavailable(host)
    assert "rpm-ostree rollback" in rpm_ostree.trial_obstacles(host)[0]


PAGES = ["hugepagesz=1G", "hugepages=4"]
THEIRS = [
    ("root=UUID=1 rw hugepagesz=2M hugepages=4", PAGES),
    ("root=UUID=1 rw intel_iommu=on quiet intel_iommu=off", ["intel_iommu=on"]),
]
"""Lines of an administrator that have a token of ours, which is not in force: half of a pair, or defeated by another."""


def theirs(folder, line):
    found = stand_in.make(Machine(folder, {"rpm-ostree": stand_in.run}), line)
    found.theirs = deployments(found)[0]["kargs"]
    found.write("/proc/cmdline", "ostree=/ostree/boot.1/fedora/abc/0\n")  # what still runs is another matter
    return found


@pytest.mark.parametrize("line, wanted", THEIRS)
def test_what_an_administrator_has_too_is_neither_moved_nor_taken_away(tmp_path, line, wanted):
    host = theirs(tmp_path, line)
    loader_contract.go(host, wanted)
    assert deployments(host)[0]["kargs"] == host.theirs + wanted
    assert loader_contract.go(host, wanted)["changed"] is False
    loader_contract.go(host, ["iommu=pt"])
    assert deployments(host)[0]["kargs"] == host.theirs + ["iommu=pt"]
    loader_contract.go(host, wanted)
    assert deployments(host)[0]["kargs"] == host.theirs + wanted
    loader_contract.go(host, (), "absent")
    assert deployments(host)[0]["kargs"] == host.theirs
    assert loader_contract.go(host, (), "absent")["changed"] is False


@pytest.mark.parametrize("line, wanted", THEIRS)
def test_a_failed_run_leaves_the_line_of_an_administrator_as_it_was(tmp_path, line, wanted, monkeypatch):
    host = theirs(tmp_path, line)
    with monkeypatch.context() as patch:
        patch.setattr(cmdline.record, "settled", loader_contract._no_room)
        with pytest.raises(HostError, match="no room"):
            loader_contract.go(host, wanted)
        assert deployments(host)[0]["kargs"] == host.theirs
    loader_contract.go(host, wanted)
    with monkeypatch.context() as patch:
        patch.setattr(cmdline.record, "settled", loader_contract._no_room)
        for more in (["iommu=pt"], "present"), ((), "absent"):
            with pytest.raises(HostError, match="no room"):
                loader_contract.go(host, *more)
            assert deployments(host)[0]["kargs"] == host.theirs + wanted


@pytest.mark.parametrize("line, wanted", THEIRS)
def test_a_killed_run_does_not_take_what_an_administrator_has_too(tmp_path_factory, line, wanted):
    made = []

    def make_one():
        made.append(theirs(tmp_path_factory.mktemp("host"), line))
        return made[-1]

    def finished(host):
        loader_contract.go(host, wanted)
        assert deployments(host)[0]["kargs"] == host.theirs + wanted

    def back(host):
        loader_contract.go(host, (), "absent")
        assert deployments(host)[0]["kargs"] == host.theirs

    def there(host):
        loader_contract.go(host, wanted)

    for first, dying, finish in (
        (lambda host: None, there, finished), (lambda host: None, there, back), (there, back, back),
        (there, lambda host: loader_contract.go(host, ["iommu=pt"]), finished),
    ):  # fmt: skip
        loader_contract._each_death(make_one, (stand_in.SYSROOT,), first, dying, finish)
        assert [deployments(host)[0]["kargs"] for host in made] == [host.theirs for host in made]


@pytest.mark.parametrize("line, wanted", THEIRS)
def test_a_deployment_from_before_us_keeps_what_an_administrator_has_too(tmp_path, line, wanted):
    """After rpm-ostree rollback nothing of ours is on the line that boots next."""
    host = theirs(tmp_path, line)
    loader_contract.go(host, wanted)
    found = deployments(host)
    host.write(stand_in.SYSROOT, json.dumps([dict(found[1], staged=False), dict(found[0], staged=False)]))
    loader_contract.go(host, (), "absent")
    assert deployments(host)[0]["kargs"] == host.theirs


def test_ours_go_without_our_file_too(host):
    running = deployments(host)[0]["kargs"]
    loader_contract.go(host, WANTED)
    host.remove(rpm_ostree.STATE)
    loader_contract.go(host, (), "absent")
    assert deployments(host)[0]["kargs"] == running


def test_the_path_that_ostree_writes_anew_is_no_failure(host):
    """A deployment that is not staged has another ostree= than the line that it was made of."""
    real = host.tools["rpm-ostree"]

    def deployed(host, argv, stdin):
        result = real(host, argv, stdin)
        host.write(stand_in.SYSROOT, host.read(stand_in.SYSROOT).replace("/boot.1/", "/boot.0/"))
        return result

    host.tools["rpm-ostree"] = deployed
    loader_contract.go(host, WANTED)
    assert deployments(host)[0]["kargs"][-3:] == ["ostree=/ostree/boot.0/fedora/abc/0"] + WANTED


@pytest.mark.parametrize(
    "line, target, delete, append",
    [
        ("a b", "a b", [], []),
        ("a b", "a b c", [], ["c"]),
        ("a b c", "a b", ["c"], []),
        ("a b c d", "a c d", ["b"], []),
        ("a on q off on", "a on q off", ["on", "q", "off"], ["q", "off"]),
        ("s=2 p=4 s=1 p=4", "s=2 p=4", ["p=4", "s=1"], []),
        ("x x x", "x", ["x", "x"], []),
        ("a b", "b a", ["a"], ["a"]),
    ],
)
def test_steps_for_a_tool_that_deletes_the_first_and_appends_at_the_end(line, target, delete, append):
    found = rpm_ostree.steps(line.split(), target.split())
    assert (sorted(found[0]), found[1]) == (sorted(delete), append)
    made = line.split()
    for token in found[0]:
        assert stand_in.delete(made, token) is None
    assert made + found[1] == target.split()


def broken(host):
    host.write("/run/rpm-ostree-busy", "1")


@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise):
    promise(lambda: make(tmp_path_factory.mktemp("host")), "rpm_ostree", ignore=(stand_in.SYSROOT,), broken=broken)
