# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trial boot is staged, runs, falls back, and goes without a trace, wherever the run is killed."""

from __future__ import annotations

import gzip
import json

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._binding import manage as binding
from ansible_collections.vfio.host.plugins.module_utils._binding import record as binding_record
from ansible_collections.vfio.host.plugins.module_utils._boot import trial
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import functions
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.boot.trial_host import (
    BASE,
    CONTENT,
    IMAGE,
    KERNEL,
    FakeGenerator,
    FakeLoader,
    Killed,
    TracingLoader,
    TrialHost,
    install,
    run,
)

TRIAL_IMAGE = "/boot/vfio-host-trial-%s.img" % KERNEL


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = TrialHost(str(tmp_path))
    install(monkeypatch, found)
    return found


# -- staging


def test_check_mode_predicts_and_writes_not_one_byte(host):
    before = host.tree()
    predicted = run(host, check=True)
    assert host.tree() == before
    done = run(host)
    assert predicted["changed"] and done["changed"]
    for key in ("outcome", "needed", "because", "kernel", "line", "digest", "diff", "available", "deadline"):
        assert predicted[key] == done[key], key


def test_staged_leaves_the_default_as_it_was_and_adds_the_rest(host):
    before = host.tree()
    result = run(host)
    assert result["outcome"] == "staged" and result["needed"] and result["because"]
    after = host.tree()
    added = {path for path in set(after) - set(before) if after[path][0] is not None}
    assert added == {
        trial.STATE, trial.DEVICES, trial.SERVICE, trial.TIMER, trial.WANTS, TRIAL_IMAGE, FakeLoader.TRIAL_FILE,
        FakeLoader.ENVIRONMENT,
    }  # fmt: skip
    assert {path for path in before if before[path] != after[path]} == {FakeLoader.MENU}
    assert loaders.default_of(host.loader.view(host))["tokens"] == BASE
    trial_entry = host.loader.view(host)["entries"][-1]
    assert trial_entry["tokens"] == BASE + ["intel_iommu=on", "vfio_host=trial", "panic=30"] == result["line"]
    assert host.loader.once(host) == loaders.TRIAL_ID


def test_a_second_staging_changes_nothing(host):
    run(host)
    before = host.tree()
    result = run(host)
    assert (result["changed"], result["outcome"], host.tree()) == (False, "staged", before)


def test_staging_something_else_takes_the_place_of_the_first(host):
    run(host)
    result = run(host, parameters=["intel_iommu=on", "iommu=pt"])
    assert result["changed"] and "iommu=pt" in host.loader.view(host)["entries"][-1]["tokens"]


def test_staged_again_when_the_default_changed_meanwhile(host):
    run(host)
    host.write(FakeLoader.SETTINGS, "root=UUID=1 ro quiet nosmt")
    host.loader.generate(host)
    assert run(host, check=True)["changed"]
    assert "nosmt" in run(host)["line"]


def test_staged_again_when_the_one_shot_was_taken_back(host):
    run(host)
    host.loader.set_once(host, None)
    assert run(host)["changed"] and host.loader.once(host) == loaders.TRIAL_ID


def test_what_is_for_init_stays_behind(host):
    assert trial.trial_line(["ro", "--", "single"], [], ["a=1"], ["b"]) == ["ro", "a=1", "b", "--", "single"]


def test_ours_is_replaced_and_nothing_else_moves(host):
    line = trial.trial_line(["ro", "iommu=pt", "quiet"], ["iommu=pt"], ["intel_iommu=on"], ["vfio_host=trial"])
    assert line == ["ro", "quiet", "intel_iommu=on", "vfio_host=trial"]


def test_a_dracut_image_reboots_where_it_would_open_a_shell(host):
    host.generator.NAME = "dracut"
    assert run(host)["line"][-3:] == ["panic=30", "rd.shell=0", "rd.emergency=reboot"]


def test_no_panic_and_a_watchdog_where_asked(host):
    with pytest.raises(ValueError, match="/dev/watchdog"):
        run(host, watchdog=True)
    host.write("/dev/watchdog", "")
    line = run(host, watchdog=True, panic=0)["line"]
    assert trial.WATCHDOG in line and not [token for token in line if token.startswith("panic")]


@pytest.mark.parametrize("name", ["initramfs-tools", "dracut"])
def test_what_a_trial_adds_is_told_apart(host, name):
    host.generator.NAME = name
    host.write("/dev/watchdog", "")
    line = run(host, watchdog=True, panic=3600)["line"] + ["later=1", "panic=5"]
    ordinary, ours = loaders.apart(line)
    assert ordinary == BASE + ["intel_iommu=on", "later=1", "panic=5"]
    assert ours[:3] == [loaders.TRIAL, "panic=3600", trial.WATCHDOG] and len(ours) == (5 if name == "dracut" else 3)


@pytest.mark.parametrize("line, wanted", [
    ("isolcpus=2-3", ["isolcpus=4-7"]), ("hugepagesz=1G hugepages=2", ["hugepagesz=1G", "hugepages=4"]),
])
def test_what_would_not_be_in_force_is_not_tried(host, line, wanted):
    """The kernel keeps the first: the trial would be for nothing, and fall back."""
    host.write(FakeLoader.SETTINGS, " ".join(BASE) + " " + line)
    host.loader.generate(host)
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="%s would not be in force in the trial.*default entry" % ", ".join(wanted)):
            run(host, parameters=wanted, check=check)
        assert host.tree() == before


def test_what_is_done_instead_promises_the_fallback_entry_where_there_is_one(host, monkeypatch):
    host.loader.obstacles = ["no way"]
    at_once = "the change goes to the ordinary entries at once; "
    assert run(host)["instead"] == at_once + "the entry vfio-host-fallback starts the host without it"
    monkeypatch.setattr(host.loader, "fallback_unavailable", lambda host_: None, raising=False)
    assert run(host)["instead"] == at_once + "the entry vfio-host-fallback starts the host without it"
    monkeypatch.setattr(host.loader, "fallback_unavailable", lambda host_: "there is none: press e", raising=False)
    result = run(host)
    assert (result["available"], result["instead"]) == (False, at_once + "there is none: press e")


@pytest.mark.parametrize("name, value", [("deadline", 10), ("deadline", 90000), ("panic", -1), ("panic", 5000)])
def test_senseless_numbers_are_refused(host, name, value):
    with pytest.raises(ValueError, match=name):
        run(host, **{name: value})


def test_the_list_of_the_host_is_tried_when_none_is_given(host):
    host.write(asked.DEVICES, CONTENT)
    run(host, devices_content="")
    assert host.read(trial.DEVICES) == CONTENT


def test_without_any_list_only_the_parameters_are_tried(host):
    result = run(host, devices_content=None)
    assert result["outcome"] == "staged" and not host.exists(trial.DEVICES)
    assert run(host, devices_content=None)["changed"] is False


def test_a_list_that_lost_its_last_newline_is_the_same(host):
    assert run(host)["digest"] == run(host, devices_content=CONTENT.rstrip("\n"))["digest"]


def test_the_timer_runs_in_the_trial_only_and_in_emergency_mode_too(host):
    run(host, deadline=120)
    for path in (trial.SERVICE, trial.TIMER):
        text = host.read(path)
        assert "ConditionKernelCommandLine=vfio_host=trial\n" in text and "DefaultDependencies=no\n" in text
    assert "OnBootSec=120s\n" in host.read(trial.TIMER)
    assert "Wants=vfio-host-trial.timer" in host.read("/etc/systemd/system/sysinit.target.d/vfio-host-trial.conf")


# -- what stands against it


def test_obstacles_are_told_and_nothing_is_done(host):
    host.loader.obstacles = ["its environment block is on LVM"]
    before = host.tree()
    result = run(host)
    assert (result["available"], result["changed"], host.tree()) == (False, False, before)
    assert result["obstacles"] == ["its environment block is on LVM"] and "fallback" in result["instead"]


def test_a_loader_without_the_functions_cannot(host, monkeypatch):
    class Plain:
        NAME = "plain"

        def recorded(self, host):
            return None

    monkeypatch.setattr(trial, "choose_loader", lambda host_, name: Plain())
    result = run(host)
    assert result["available"] is False and "plain cannot start an entry once" in result["obstacles"][0]


def test_without_systemd_nobody_would_take_the_host_back(host):
    import os

    os.rmdir(host.path("/run/systemd/system"))
    assert "systemd does not run" in run(host)["obstacles"][0]


def test_an_entry_that_is_off_is_not_tried(host):
    host.write(FakeLoader.SETTINGS, "root=UUID=1 vfio_host=off")
    host.loader.generate(host)
    assert "vfio_host=off" in run(host)["obstacles"][0]


def test_an_entry_that_says_that_it_is_a_trial_is_not_tried(host):
    """A trial that fails would leave a host that goes back from its ordinary entry."""
    host.write(FakeLoader.SETTINGS, "root=UUID=1 vfio_host=trial panic=30 rd.shell=0 quiet")
    host.loader.generate(host)
    before = host.tree()
    for check in (True, False):
        result = run(host, check=check)
        assert (result["available"], result["changed"]) == (False, False)
        assert "'Fake' has vfio_host=trial" in result["obstacles"][0]
        assert "take vfio_host=trial panic=30 rd.shell=0 out" in result["obstacles"][0]
        assert host.tree() == before


def test_nothing_to_try_when_the_host_runs_with_it(host):
    host.write("/proc/cmdline", "ro intel_iommu=on\n")
    functions.bind(host, functions.GPU["address"], "vfio-pci")
    result = run(host)
    assert (result["needed"], result["changed"], result["outcome"]) == (False, False, "none")


def test_nothing_to_try_when_the_default_has_it_already(host):
    host.write(FakeLoader.SETTINGS, "ro intel_iommu=on")
    host.loader.generate(host)
    assert run(host, check=True)["needed"], "its image has no list"
    host.write(IMAGE, gzip.compress(archive({FakeGenerator.WANTED: CONTENT.encode()})))
    assert run(host)["needed"] is False


def test_what_is_no_longer_wanted_is_taken_back(host):
    run(host)
    host.write("/proc/cmdline", "ro intel_iommu=on\n")
    functions.bind(host, functions.GPU["address"], "vfio-pci")
    assert run(host)["changed"] and host.loader.once(host) is None and not host.exists(trial.STATE)


def test_removal_is_a_change_to_try_too(host):
    host.write("/var/lib/vfio-host/cmdline.json", json.dumps(
        {"schema": 1, "loader": "fake", "tokens": ["iommu=pt"], "pending": False, "originals": {}}))
    host.write("/proc/cmdline", "root=UUID=1 ro quiet iommu=pt\n")
    host.write(FakeLoader.SETTINGS, "root=UUID=1 ro iommu=pt quiet")
    host.loader.generate(host)
    result = run(host, parameters=[], devices_content=None)
    assert "iommu=pt is there" in result["because"] and result["line"][:3] == BASE


@pytest.mark.parametrize("theirs", [0, 1, 2])
def test_a_smaller_list_is_confirmed_beside_tokens_that_an_administrator_has_too(host, theirs):
    """Ours goes and theirs stay: the trial is as wanted then, and until then the host is not."""
    line = BASE + ["pci=noaer"] * theirs + ["x=1", "pci=noaer"]
    host.write("/var/lib/vfio-host/cmdline.json", json.dumps(
        {"schema": 1, "loader": "fake", "tokens": ["x=1", "pci=noaer"], "pending": False, "originals": {}}))
    host.write("/proc/cmdline", " ".join(line) + "\n")
    host.write(FakeLoader.SETTINGS, " ".join(line))
    host.loader.generate(host)
    smaller = {"parameters": ["x=1"], "devices_content": None}
    result = run(host, **smaller)
    assert result["because"] == ["pci=noaer is there"] and result["line"].count("pci=noaer") == theirs
    host.reboot()
    result = run(host, **smaller)
    assert (result["outcome"], result["because"]) == ("running", [])
    host.write("/proc/cmdline", host.read("/proc/cmdline") + " pci=noaer")
    assert run(host, **smaller)["because"] == ["pci=noaer is there"]


def test_a_full_boot_is_found_before_anything_is_written(host, monkeypatch):
    monkeypatch.setattr(manage, "free_bytes", lambda host_, path: 1 << 20)
    before = host.tree()
    with pytest.raises(HostError, match="/boot has 1 MiB free"):
        run(host)
    with pytest.raises(HostError, match="/boot has 1 MiB free"):
        run(host, check=True)
    assert host.tree() == before


# -- failing


def test_a_failed_build_is_taken_back(host):
    host.generator.fail = "no space left"
    before = host.tree()
    with pytest.raises(HostError, match="building the image .* no space left.*taken back"):
        run(host)
    assert host.tree() == before


def test_an_image_that_is_not_as_wanted_is_taken_back(host, monkeypatch):
    monkeypatch.setattr(host.generator, "problems", lambda image, devices: ["the module vfio is not in it"])
    before = host.tree()
    with pytest.raises(HostError, match="read back: the module vfio is not in it"):
        run(host)
    assert host.tree() == before


@pytest.mark.parametrize("damage", [{"tokens": BASE + ["x"]}, {"kernel": "5"}, {"id": "other"}, {"initrds": []}])
def test_a_default_that_would_change_is_put_back(host, damage):
    host.loader.damage = damage
    before = host.tree()
    with pytest.raises(HostError, match="the default entry would not be what it was"):
        run(host)
    assert host.tree() == before


@pytest.mark.parametrize("change", [{"tokens": BASE + ["x"]}, {"title": "Other"}, {"initrds": ["/boot/other"]}])
def test_another_entry_that_would_change_is_put_back(host, monkeypatch, change):
    """An administrator's settings that were never generated would come with the trial."""
    original = host.loader.view

    def pending(host_):
        seen = original(host_)
        other = loaders.entry("other", "An older kernel", "5", BASE)
        if any(entry["id"] == loaders.TRIAL_ID for entry in seen["entries"]):
            other.update(change)
        return loaders.view(seen["entries"] + [other])

    monkeypatch.setattr(host.loader, "view", pending)
    before = host.tree()
    with pytest.raises(HostError, match="the default entry would not be what it was: entries"):
        run(host)
    assert host.tree() == before


def test_an_image_of_the_default_that_would_change_is_found(host, monkeypatch):
    build = host.generator.build

    def careless(host_, version, path, timeout, devices=None, options=()):
        host_.write(IMAGE, b"another one")
        return build(host_, version, path, timeout, devices, options)

    monkeypatch.setattr(host.generator, "build", careless)
    with pytest.raises(HostError, match="the default entry would not be what it was.*files"):
        run(host)
    assert host.loader.once(host) is None


def test_an_entry_with_another_line_is_taken_back(host, monkeypatch):
    make = host.loader.trial
    monkeypatch.setattr(
        host.loader, "trial", lambda host_, kernel, image, line: make(host_, kernel, image, line[1:])
    )
    before = host.tree()
    with pytest.raises(HostError, match="its command line is ro quiet"):
        run(host)
    assert host.tree() == before


def test_a_one_shot_that_does_not_stick_is_a_failure(host, monkeypatch):
    monkeypatch.setattr(host.loader, "set_once", lambda host_, entry_id: None)
    before = host.tree()
    with pytest.raises(HostError, match="does not say that it starts"):
        run(host)
    assert host.tree() == before


# -- the trial boot itself


def test_the_trial_runs_and_is_confirmed_once(host):
    run(host)
    assert host.reboot() == loaders.TRIAL_ID
    result = run(host)
    assert (result["changed"], result["outcome"], result["confirmed"]) == (False, "running", False)
    assert run(host, "confirmed", check=True)["changed"] and host.timer == "active"
    done = run(host, "confirmed")
    assert done["changed"] and done["confirmed"] and host.timer == "inactive"
    again = run(host, "confirmed")
    assert again["changed"] is False and run(host)["confirmed"]


def test_the_drivers_from_before_are_remembered(host):
    run(host)
    host.reboot()
    identity = asked.identity(functions.GPU)
    params = {"devices": [identity], "state": "present", "when": "boot"}
    result = binding.run(host, params, False)
    assert not result["reboot_required"], "it is bound already"
    record = binding_record.read(host)[1][functions.GPU["address"]]
    assert record["driver"] == "nouveau", "not the driver that it has in the trial"
    host.write(trial.STATE, "{")
    assert binding_record.before_trial(host) == {}


def test_what_is_not_as_wanted_in_the_trial_is_told(host):
    run(host)
    host.reboot()
    assert run(host)["because"] == []
    functions.bind(host, functions.GPU["address"], "nouveau")
    result = run(host)
    assert result["because"] == ["0000:01:00.0 is on nouveau"] and result["outcome"] == "running"
    assert "vfio-host: 0000:01:00.0 left to the host: is a bridge" in result["evidence"]


def test_the_boot_in_which_it_was_staged_is_not_the_trial(host):
    run(host)
    line = json.loads(host.read(trial.STATE))["line"]
    host.write("/proc/cmdline", " ".join(line))
    assert run(host, parameters=["iommu=pt"])["outcome"] == "staged"
    with pytest.raises(HostError, match="not the trial"):
        run(host, "confirmed")


def test_another_trial_does_not_begin_in_a_running_one(host):
    run(host)
    host.reboot()
    before = host.tree()
    with pytest.raises(HostError, match="trial of something else"):
        run(host, parameters=["iommu=pt"])
    assert host.tree() == before


def test_a_timer_that_does_not_stop_is_no_confirmation(host, monkeypatch):
    run(host)
    host.reboot()
    command = host.commands
    monkeypatch.setattr(
        host, "commands", lambda argv, stdin: (command(argv, stdin), setattr(host, "timer", "active"))[0]
    )
    host.timer = "active"
    with pytest.raises(HostError, match="does not stop"):
        run(host, "confirmed")
        run(host, "confirmed")
    assert json.loads(host.read(trial.STATE))["step"] == "staged"


def test_nothing_is_confirmed_once_the_deadline_has_passed(host):
    run(host)
    host.reboot()
    host.write(trial.EXPIRED, "not confirmed within 900 s\n")
    with pytest.raises(HostError, match="deadline has passed"):
        run(host, "confirmed")


def test_a_loader_that_does_not_forget_is_made_to(host):
    host.loader.forget = False
    run(host)
    host.reboot()
    result = run(host, "confirmed")
    assert result["warnings"] and host.loader.once(host) is None


def test_only_a_running_trial_is_confirmed(host):
    with pytest.raises(HostError, match="nothing was staged"):
        run(host, "confirmed")
    run(host)
    with pytest.raises(HostError, match=r"not the trial \(staged\)"):
        run(host, "confirmed")
    host.reboot(works=False)
    with pytest.raises(HostError, match=r"not the trial \(fell back\)"):
        run(host, "confirmed")


def test_what_fell_back_is_not_tried_again_unless_asked(host):
    run(host)
    assert host.reboot(works=False) == "default"
    host.journal["-1"] = "Linux version 6\nKernel command line: ro vfio_host=trial\nKernel panic - not syncing\n"
    before = host.tree()
    with pytest.raises(HostError, match="not tried again by itself(.|\n)*Kernel panic - not syncing") as caught:
        run(host)
    assert "say retry" in str(caught.value) and host.tree() == before
    with pytest.raises(HostError, match="not tried again"):
        run(host, check=True)
    assert run(host, parameters=["iommu=pt"], check=True)["changed"], "another change is not the same"
    assert run(host, retry=True)["outcome"] == "staged"


def test_the_journal_of_another_boot_is_no_evidence(host):
    run(host)
    host.reboot(works=False)
    host.journal["-1"] = "Linux version 6\nKernel command line: ro\nall well\n"
    with pytest.raises(HostError, match="no journal has a boot with vfio_host=trial"):
        run(host)


def test_a_deadline_that_passed_is_told(host):
    run(host)
    host.reboot()
    host.write(trial.EXPIRED, "not confirmed within 900 s\n")
    host.reboot()
    with pytest.raises(HostError, match="went back by itself: not confirmed within 900 s"):
        run(host)


def kernel_of_the_trial(host):
    """A kernel was installed meanwhile, got the running line and is the default."""
    host.write(FakeLoader.SETTINGS, host.read("/proc/cmdline").replace("BOOT_IMAGE=/vmlinuz ", ""))
    host.loader.generate(host)


@pytest.mark.parametrize("content", [CONTENT, None], ids=["list", "no list"])
def test_the_host_goes_back_once_for_each_staging(host, content):
    """Where the entry that it goes back to has the trial's command line it would do so for ever."""
    for retry in (False, True):
        run(host, devices_content=content, retry=retry)
        assert not host.exists(trial.EXPIRED)
        assert host.reboot() == loaders.TRIAL_ID and host.timer == "active"
        kernel_of_the_trial(host)
        assert host.expire() == "default"
        assert host.read(trial.EXPIRED) == "not confirmed within 900 s\n"
        assert host.timer == "inactive" and host.expire() is False
        with pytest.raises(HostError, match="'Fake' has vfio_host=trial.*take vfio_host=trial panic=30 out"):
            run(host, "confirmed")
        host.write(FakeLoader.SETTINGS, " ".join(BASE))
        host.loader.generate(host)
        host.reboot()
        with pytest.raises(HostError, match="went back by itself: not confirmed within 900 s"):
            run(host, devices_content=content)


def test_what_went_back_and_is_still_to_start_once_is_staged_again(host):
    """A reboot without the boot loader leaves the one-shot; the next trial has its deadline again."""
    run(host)
    host.write(trial.BOOT_ID, "boot-kexec\n")
    host.write(trial.EXPIRED, "not confirmed within 900 s\n")
    assert run(host, check=True)["changed"] and run(host)["changed"]
    assert not host.exists(trial.EXPIRED)


def test_the_host_goes_back_once_where_the_list_could_not_be_written(host):
    """Neither can what says that it went back: then nothing wants the timer any more."""
    run(host, devices_content=None)
    host.reboot()
    kernel_of_the_trial(host)
    host.write(trial.FOLDER, "in the way")
    assert host.expire() == "default"
    assert host.timer == "inactive" and host.expire() is False
    run(host, "absent")
    assert not host.exists(trial.SERVICE)


def test_a_reboot_around_the_loader_is_no_trial(host, monkeypatch):
    run(host)
    host.write(trial.BOOT_ID, "boot-kexec\n")
    result = run(host)
    assert result["outcome"] == "staged" and "without its boot loader" in result["evidence"][0]


def test_a_confirmed_trial_keeps_its_timer_from_being_started_again(host):
    """Whatever starts later, a login for example, has systemd start again what sysinit.target wants."""
    run(host)
    for path in (trial.TIMER, trial.SERVICE):
        assert "\nConditionPathExists=!%s\n" % trial.CONFIRMED in host.read(path)
    host.reboot()
    assert not host.exists(trial.CONFIRMED)
    run(host, "confirmed")
    assert host.exists(trial.CONFIRMED)
    host.reboot()
    run(host)
    assert not host.exists(trial.CONFIRMED), "the next trial has its deadline again"
    run(host, "absent")
    assert not host.exists(trial.FOLDER)


def test_confirmed_and_then_rebooted_can_be_staged_again(host):
    run(host)
    host.reboot()
    run(host, "confirmed")
    assert host.reboot() == "default"
    assert run(host)["outcome"] == "staged"


def test_a_record_that_cannot_be_read_stops_everything(host):
    host.write(trial.STATE, "{")
    for state in ("staged", "confirmed", "absent"):
        with pytest.raises(HostError, match="trial.json cannot be understood"):
            run(host, state)


# -- taking it away


def test_absent_leaves_nothing(host):
    before = host.tree()
    run(host)
    staged = host.tree()
    predicted = run(host, "absent", check=True)
    assert predicted["changed"] and host.tree() == staged
    done = run(host, "absent")
    assert done["diff"] == predicted["diff"] and host.tree() == before
    assert run(host, "absent")["changed"] is False


def test_absent_in_the_trial_stops_its_deadline(host):
    run(host)
    host.reboot()
    run(host, "absent")
    assert host.timer == "inactive" and host.reboot() == "default"


def test_absent_finds_what_a_lost_record_has_left(host):
    before = host.tree()
    run(host)
    host.remove(trial.STATE)
    assert run(host, "absent")["changed"] and host.tree() == before


def test_absent_leaves_another_ones_one_shot_alone(host):
    run(host)
    host.loader.set_once(host, "firmware-setup")
    run(host, "absent")
    assert host.loader.once(host) == "firmware-setup"


def test_absent_where_no_loader_is_known(host, monkeypatch):
    def unknown(host_, name):
        raise HostError("no supported boot loader")

    monkeypatch.setattr(trial, "choose_loader", unknown)
    assert run(host, "absent")["changed"] is False


def test_the_generators_files_stay_once_they_are_permanent(host):
    host.fuse = changes_until(host, FakeGenerator.HOOK)
    with pytest.raises(Killed):
        run(host)
    host.write(manage.STATE, "{}")
    run(host, "absent")
    assert host.exists(FakeGenerator.HOOK)


def changes_until(host, path):
    """How many changes a staging makes until this file is there."""
    for count in range(1, 100):
        host.fuse = count
        try:
            run(host)
        except Killed:
            pass
        there = host.exists(path)
        host.fuse = None
        run(host, "absent")
        if there:
            return count
    raise AssertionError(path)


# -- killed after each change


def survive(host, action):
    """Kill ``action`` after its first change, its second, ... until it ends; yields each number."""
    count = 0
    while True:
        count += 1
        assert count < 200
        host.fuse = count
        try:
            action()
        except Killed:
            host.fuse = None
            yield count
            continue
        host.fuse = None
        return


def test_killed_anywhere_while_staging_then_run_again(host):
    before = host.tree()
    rounds = 0
    for count in survive(host, lambda: run(host)):
        rounds += 1
        assert run(host)["outcome"] == "staged", count
        assert host.read(FakeGenerator.HOOK) is None, count
        assert host.reboot() == loaders.TRIAL_ID, count
        run(host, "absent")
        assert host.reboot() == "default", count
        back = host.tree()
        for path in (trial.BOOT_ID, "/proc/cmdline"):
            back[path] = before[path]
        assert back == before, count
    assert rounds > 10


def test_killed_anywhere_while_staging_then_taken_back(host):
    before = host.tree()
    for count in survive(host, lambda: run(host)):
        run(host, "absent")
        assert host.tree() == before, count


def test_killed_anywhere_while_staging_then_a_power_cut(host):
    """The one-shot names a complete entry or none, and the default is what it was."""
    for count in survive(host, lambda: run(host)):
        default = loaders.default_of(host.loader.view(host))
        assert default["tokens"] == BASE, count
        assert host.exists(trial.STATE), "what was put where is recorded first: %d" % count
        if host.reboot() == loaders.TRIAL_ID:
            assert run(host)["outcome"] == "running", count
        run(host, "absent")
        host.reboot()


@pytest.mark.parametrize("earlier", [False, True], ids=["no trace", "trace of an earlier one"])
def test_what_was_never_started_is_tried_again_where_the_loader_can_tell(host, earlier):
    host.loader = TracingLoader()
    if earlier:
        host.loader.use_up(host)
    steps = set()
    for count in survive(host, lambda: run(host)):
        steps.add(json.loads(host.read(trial.STATE))["step"])
        chosen = host.loader.once(host) == loaders.TRIAL_ID
        host.reboot(works=False)
        if chosen:
            break
        assert run(host)["outcome"] == "staged", count
        assert host.reboot(works=False) == "default" and host.loader.once_traces(host)
        with pytest.raises(HostError, match="not tried again by itself"):
            run(host)
        run(host, "absent")
        host.loader.set_once(host, None)
        if earlier:
            host.loader.use_up(host)
    assert chosen and steps == {"preparing", "arming"}
    with pytest.raises(HostError, match="not tried again by itself"):
        run(host)


def test_where_the_loader_cannot_tell_it_is_refused(host):
    refused = 0
    for dummy in survive(host, lambda: run(host)):
        step = json.loads(host.read(trial.STATE))["step"]
        host.reboot(works=False)
        if step == "preparing":
            assert run(host)["outcome"] == "staged"
        else:
            refused += 1
            with pytest.raises(HostError, match="was started, or was to be"):
                run(host)
        run(host, "absent")
    assert refused >= 2


def test_killed_anywhere_while_taking_it_away(host):
    before = host.tree()
    run(host)
    staged = host.tree()
    rounds = 0
    while True:
        rounds += 1
        host.fuse = rounds
        try:
            run(host, "absent")
        except Killed:
            host.fuse = None
        else:
            host.fuse = None
            break
        if any(before.get(path) != what for path, what in host.tree().items() if what[0] is not None):
            assert host.exists(trial.STATE), "the record goes last: %d" % rounds
        if host.loader.once(host) is not None:
            assert host.exists(TRIAL_IMAGE) and host.exists(FakeLoader.TRIAL_FILE), rounds
        run(host, "absent")
        assert host.tree() == before, rounds
        run(host)
        assert host.tree() == staged, rounds
    assert rounds > 8


def test_killed_anywhere_while_confirming(host):
    run(host)
    host.reboot()
    for count in survive(host, lambda: run(host, "confirmed")):
        assert run(host, "confirmed")["confirmed"] and host.timer == "inactive", count
        record = json.loads(host.read(trial.STATE))
        host.write(trial.STATE, trial.render(dict(record, step="staged")))
        host.timer = "active"
