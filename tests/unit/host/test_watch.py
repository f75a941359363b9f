# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads that never end: played by a host whose read sleeps."""

from __future__ import annotations

import time

import pytest

from ansible_collections.vfio.host.plugins.module_utils import _machine, _watch
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostTimeout
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67


class Hanging(Host):
    """Reading ``stuck`` paths takes a minute."""

    stuck = ()

    def read_bytes(self, path, *args, **options):
        self._hang(path)
        return super().read_bytes(path, *args, **options)

    def _read_in(self, path, folder, name, limit):
        self._hang(path + "/" + name)
        return super()._read_in(path, folder, name, limit)

    def _hang(self, path):
        if path.endswith(self.stuck) and path not in self.blocked:
            self.current = path
            time.sleep(60)


@pytest.fixture
def host(tmp_path):
    p8h67(tmp_path)
    return Hanging(str(tmp_path))


def test_what_hangs_is_missing_and_the_rest_is_there(host, monkeypatch):
    monkeypatch.setattr(_watch, "READ_TIMEOUT", 0.5)
    host.stuck = ("0000:00:19.0/config", "/proc/swaps")
    host_without = Host(host.root)
    began = time.monotonic()
    machine = _watch.watched(host, _machine.collect, timeout=0.5)
    assert time.monotonic() - began < 10
    assert host.blocked and all(path.endswith(host.stuck) for path in host.blocked)
    assert set(host.blocked) <= {missing["input"] for missing in machine["source"]["missing"]}
    functions = {f["address"]: f for f in machine["functions"]}
    assert functions["0000:00:19.0"]["capabilities"] is None and functions["0000:01:00.0"]["capabilities"]
    assert len(functions) == len(_machine.collect(host_without)["functions"])


def test_nothing_hangs_and_the_document_is_the_same(host):
    assert _machine.read(host) == _machine.collect(Host(host.root))
    assert host.blocked == set()


def test_too_many_hanging_reads_are_an_error_that_names_them(host):
    host.stuck = ("config",)
    with pytest.raises(HostTimeout, match="8 reads did not end.*0000:00:00.0/config"):
        _watch.watched(host, _machine.collect, timeout=0.1)


def test_a_long_computation_is_no_hanging_read(host):
    def work(this):
        this.read("/proc/cmdline")
        this.current = None
        time.sleep(1)
        return "done"

    assert _watch.watched(host, work, timeout=0.2) == "done"


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_child_that_only_waits_for_a_cpu_does_not_hang(host):
    """Between two reads a slow machine may compute for long; the last path read is not to blame."""
    def work(this):
        this.read("/proc/cmdline")
        busy(1)
        return "done"

    assert _watch.watched(host, work, timeout=0.2) == "done"
    assert host.blocked == set()


def test_a_read_that_spins_in_the_kernel_is_given_up_too(host, monkeypatch):
    monkeypatch.setattr(_watch, "STARVED_TIMEOUT", 0.5)

    def work(this):
        if "/proc/cmdline" not in this.blocked:
            this.read("/proc/cmdline")
            busy(5)
        return "done"

    assert _watch.watched(host, work, timeout=0.2) == "done"
    assert host.blocked == {"/proc/cmdline"}


def test_what_was_read_before_the_child_came_is_not_to_blame(host):
    host.read("/proc/cmdline")

    def work(this):
        time.sleep(1)
        return "done"

    assert _watch.watched(host, work, timeout=0.2) == "done"
    assert host.blocked == set()


def test_an_error_of_the_child_is_told():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        _watch.watched(Host(), lambda host: 1 // 0)


def test_what_is_done_meanwhile_is_done_once_and_here(host):
    host.stuck = ("0000:00:19.0/config",)
    done = []
    machine = _watch.watched(host, _machine.collect, timeout=0.3, meanwhile=lambda: done.append(host.blocked))
    assert machine["functions"] and host.blocked
    assert len(done) == 1
