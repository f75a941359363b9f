# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run is killed before each of its changes, one that works and one that fails: the next ends it, or undoes it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._binding import live
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.binding.kernel import DEVICES, NATIVE, Kernel, Killed
from ansible_collections.vfio.host.tests.unit.binding.test_live import (
    AUDIO_AT,
    GPU_AT,
    NIC_AT,
    OVERRIDE,
    VFIO,
    booted,
    by_id,
    give,
    go,
    ours,
    override_by_hand,
)

NOTHING = [None, None, False, False]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def killed_at(host, at, fails=False, **arguments):
    """Whether the run came to its ``at``-th change and was killed before it."""
    host.changes, host.kill_at = 0, at
    try:
        go(host, **arguments)
    except Killed:
        return True
    except HostError:
        assert fails
    finally:
        host.kill_at = None
    return False


def virgin(host):
    """Each function on its own driver."""


def overridden(host):
    """Overrides that the kernel has not acted on, and one that it has."""
    override_by_hand(host, GPU_AT, "vfio-pci")
    override_by_hand(host, AUDIO_AT, "pci-stub")
    override_by_hand(host, NIC_AT, "e1000e")


def half_bound(host):
    """One without a driver, one on the way to vfio-pci, one that a guest has."""
    host.write_sysfs(DEVICES + GPU_AT + "/driver/unbind", GPU_AT)
    host.write_sysfs(DEVICES + NIC_AT + "/driver/unbind", NIC_AT)
    override_by_hand(host, NIC_AT, "vfio-pci")
    give(host, AUDIO_AT, "vfio-pci")


def unloaded(host):
    """The host's drivers are there as long as they have a function."""
    release = host._release
    host.lonely.update(NATIVE.values())

    def without_its_last(address):
        driver = host.driver(address)
        release(address)
        if driver in host.lonely:
            host.unload(driver)

    host._release = without_its_last


STARTS = [virgin, overridden, half_bound, unloaded]
FAILURES = {
    "it works": ((), ()),
    "a write is refused": ([("drivers_probe", NIC_AT)], ()),
    "the driver does not take it": ((), ["vfio-pci"]),
}


def trouble(host, failure):
    host.refuse.update(FAILURES[failure][0])
    host.fail.update(FAILURES[failure][1])


def calm(host):
    host.refuse.clear()
    host.fail.clear()


def each_point(tmp_path, start, prepare, failure, **arguments):
    """``(at, host, state before)`` for each change of the run, killed before it."""
    for at in range(1, 200):
        host = Kernel(str(tmp_path / str(at)))
        start(host)
        before = host.state()
        prepare(host)
        trouble(host, failure)
        killed = killed_at(host, at, failure != "it works", **arguments)
        calm(host)
        if not killed:
            break
        yield at, host, before
    assert at > 3


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("failure", sorted(FAILURES))
@pytest.mark.parametrize("then", ["again", "back", "it fails, then back", "left to the boot, then back"])
def test_a_run_there_that_is_killed_is_finished_or_undone_by_the_next(tmp_path, start, failure, then):
    for at, host, before in each_point(tmp_path, start, lambda host: None, failure):
        if then == "again":
            go(host)
            assert host.state() == dict.fromkeys(before, VFIO), at
            assert not go(host)["changed"], at
        elif then == "it fails, then back":
            bound = [address for address, now in host.state().items() if now == VFIO]
            trouble(host, "the driver does not take it")
            with_error = len(bound) < len(before)
            try:
                go(host)
                assert not with_error, at
            except HostError as exc:
                assert "Every function is back at the driver that it had" in str(exc), at
            calm(host)
            assert {a: now for a, now in host.state().items() if a not in bound} == {
                a: was for a, was in before.items() if a not in bound}, at
        elif then == "left to the boot, then back":
            go(host, when="boot")
            assert not go(host, when="boot")["changed"], at
        go(host, (), state="absent")
        assert (host.state(), ours(host)) == (before, NOTHING), at


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("then", ["again", "there"])
def test_a_run_back_that_is_killed_is_finished_or_undone_by_the_next(tmp_path, start, fails, then):
    for at in range(1, 200):
        host = Kernel(str(tmp_path / str(at)))
        start(host)
        before = host.state()
        go(host)
        host.fail.update(["e1000e"] if fails else [])
        killed = killed_at(host, at, fails, devices=(), state="absent")
        calm(host)
        if not killed:
            break
        if then == "there":
            go(host)
            assert host.state() == dict.fromkeys(before, VFIO), at
        go(host, (), state="absent")
        assert (host.state(), ours(host)) == (before, NOTHING), at
    assert at > 3


@pytest.mark.parametrize("then", ["back", "there"])
def test_an_override_that_is_given_back_alone_is_so_by_the_next_run(tmp_path, then):
    def prepare(host):
        go(host)
        booted(host, NIC_AT)

    for at, host, before in each_point(tmp_path, lambda host: by_id(host, NIC_AT), prepare, "it works", devices=(), state="absent"):
        if then == "there":
            go(host)
            assert host.driver(NIC_AT) == "vfio-pci" and not go(host)["changed"], at
        go(host, (), state="absent")
        assert (host.state(), ours(host)) == (before, NOTHING), at


@pytest.mark.parametrize("then", ["now", "boot"])
def test_a_way_back_at_the_next_boot_that_is_killed_forgets_nothing(tmp_path, then):
    for at, host, before in each_point(tmp_path, virgin, go, "it works", devices=(), state="absent", when="boot"):
        go(host, (), state="absent", when="boot")
        if then == "now":
            go(host)
            go(host, (), state="absent")
        else:
            host.reboot()
        assert (host.state(), ours(host)) == (before, NOTHING), at


def test_an_import_that_is_killed_is_finished_or_undone(tmp_path):
    for at, host, before in each_point(
            tmp_path, lambda host: host.put(OVERRIDE, "vfio-pci\n"), lambda host: None, "it works", driverctl="import"):
        go(host, (), state="absent")
        assert (host.state(), host.read(OVERRIDE)) == (before, "vfio-pci\n"), at


def keep(host):
    host.put("/usr/bin/nvidia-smi", "")
    host.persistent.add(GPU_AT)


@pytest.mark.parametrize("failure", sorted(FAILURES))
@pytest.mark.parametrize("then", ["back", "it fails, then back"])
def test_the_daemon_keeps_its_card_again_after_a_run_that_is_killed(tmp_path, failure, then):
    for at, host, before in each_point(tmp_path, keep, lambda host: None, failure, persistence="release"):
        if then != "back":
            trouble(host, "the driver does not take it")
            try:
                go(host, persistence="release")
            except HostError:
                pass
            calm(host)
        go(host, (), state="absent")
        assert (host.state(), ours(host), host.persistent) == (before, NOTHING, {GPU_AT}), at


@pytest.mark.parametrize("then", ["back", "it fails, then back"])
def test_a_function_that_somebody_has_taken_since_is_left_to_him(tmp_path, monkeypatch, then):
    """Killed while it had no driver; then it was given to another one by hand."""
    for dummy, host, before in each_point(tmp_path, virgin, lambda host: None, "it works"):
        if host.state()[NIC_AT] == (None, "vfio-pci"):
            break
    monkeypatch.setitem(NATIVE, NIC_AT, "igb")
    live.load(host, "igb")
    override_by_hand(host, NIC_AT, "")
    host.write_sysfs(live.PROBE, NIC_AT)
    assert host.state()[NIC_AT] == ("igb", None)
    if then != "back":
        trouble(host, "the driver does not take it")
        with pytest.raises(HostError, match="Every function is back at the driver that it had"):
            go(host)
        calm(host)
    go(host, (), state="absent")
    assert (host.state(), ours(host)) == (dict(before, **{NIC_AT: ("igb", None)}), NOTHING)
