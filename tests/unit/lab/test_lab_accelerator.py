# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware virtualisation is taken only when a kernel really ran on it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result
from ansible_collections.vfio.host.plugins.module_utils._lab import accelerator

PANIC = "[    1.2] Kernel panic - not syncing: No working init found.\n"


class Machine:
    """Stands between the module and ``os``: whether /dev/kvm is there and opens; all else is the real one."""

    def __init__(self, monkeypatch, there=True, opens=True):
        exists, access = os.path.exists, os.access
        monkeypatch.setattr(os.path, "exists", lambda path: there if path == "/dev/kvm" else exists(path))
        monkeypatch.setattr(
            os, "access", lambda path, *args, **kw: opens if path == "/dev/kvm" else access(path, *args, **kw)
        )
        self.calls = []

    def choose(self, answer):
        """``answer``: the Result's fields after argv, or the exception that running it raises."""
        def commands(argv, dummy):
            self.calls.append(argv)
            assert os.path.getsize(argv[argv.index("-initrd") + 1]) == 0
            if isinstance(answer, Exception):
                raise answer
            return Result(argv, *answer)

        return accelerator.choose(Host(commands=commands), "/cache/0123/disk.img")


def test_a_kernel_that_ran_to_its_panic(monkeypatch):
    machine = Machine(monkeypatch)
    assert machine.choose((0, PANIC)) == ("kvm", "an ordinary kernel boots on /dev/kvm")
    (argv,) = machine.calls
    assert argv[0] == "qemu-system-x86_64" and argv[argv.index("-kernel") + 1] == "/cache/0123/vmlinuz"
    assert not os.path.exists(argv[argv.index("-initrd") + 1])


@pytest.mark.parametrize(
    "answer, why",
    [
        ((0, ""), "does not boot on it: it printed nothing"),
        ((0, "early\nlate\n"), "does not boot on it: late"),
        ((1, "early\n", "x\nkvm: failed to create a VM\n"), "does not boot on it: kvm: failed to create a VM"),
        (HostTimeout("too long"), "did not finish booting within 20 s"),
        (HostError("qemu-system-x86_64: No such file or directory"), "does not start with /dev/kvm: qemu-system"),
    ],
)
def test_anything_else_is_emulation(monkeypatch, answer, why):
    chosen, reason = Machine(monkeypatch).choose(answer)
    assert chosen == "tcg" and why in reason


@pytest.mark.parametrize(
    "state, why", [({"there": False}, "has no /dev/kvm"), ({"opens": False}, "is not open to this user")]
)
def test_without_the_device_nothing_is_tried(monkeypatch, state, why):
    machine = Machine(monkeypatch, **state)
    chosen, reason = machine.choose((0, PANIC))
    assert chosen == "tcg" and why in reason and machine.calls == []
