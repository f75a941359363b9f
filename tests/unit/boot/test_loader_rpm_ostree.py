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


def broken(host):
    host.write("/run/rpm-ostree-busy", "1")


@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise):
    promise(lambda: make(tmp_path_factory.mktemp("host")), "rpm_ostree", ignore=(stand_in.SYSROOT,), broken=broken)
