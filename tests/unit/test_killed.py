# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed before any change of a file is finished by the next, or taken back without a trace.

The lab does the same to booted hosts (tools/boots/faults.py); loaders have it in their contract, and what writes to sysfs
in its own tests.
"""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.tests.unit.boot import test_boot_initramfs, test_dracut, test_mkinitcpio
from ansible_collections.vfio.host.tests.unit.killable import killed_before, state
from ansible_collections.vfio.host.tests.unit.memory import test_hugepages
from ansible_collections.vfio.host.tests.unit.memory.hugepages_host import HugepagesHost
from ansible_collections.vfio.host.tests.unit.network import test_bridge_run
from ansible_collections.vfio.host.tests.unit.network.fake_machine import FakeMachine


class Bridge:
    """A bridge on a machine whose networkd keeps the tree."""

    def __init__(self, root):
        self.machine = FakeMachine(root)
        self.host = self.machine.host

    def go(self, state_="present", check=False):
        return test_bridge_run.go(self.machine, test_bridge_run.BR0, state=state_, check=check)


class Pages:
    def __init__(self, root):
        self.host = HugepagesHost(root)

    def go(self, state_="present", check=False):
        pages = [test_hugepages.total(100)] if state_ == "present" else []
        return test_hugepages.go(self.host, *pages, check=check, state=state_)


class Images:
    """Of one generator; ``module`` has its stand-in."""

    def __init__(self, module, root):
        self.module = module
        self.host = (getattr(module, "Machine", None) or module.Builder)(root)

    def go(self, state_="present", check=False):
        return self.module.go(self.host, state_, check)


MAKERS = {
    "bridge": Bridge,
    "hugepages": Pages,
    "initramfs-tools": lambda root: Images(test_boot_initramfs, root),
    "dracut": lambda root: Images(test_dracut, root),
    "mkinitcpio": lambda root: Images(test_mkinitcpio, root),
}


def files_of(root):
    """Of an image only that it is there: two builds are never alike. Without what ends with a boot."""
    return {path: what if "initr" not in path else what[1] for path, what in state(root).items()
            if not path.startswith(("/sys/", "/run/", "/proc/"))}


@pytest.mark.parametrize("then", ["again", "back"])
@pytest.mark.parametrize("way", ["there", "home"])
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_killed_before_any_change(tmp_path, name, way, then):
    number = 0
    while True:
        number += 1
        root = str(tmp_path / str(number))
        one = MAKERS[name](root)
        one.go()
        one.go("absent")  # leaves the folders that packages have, which are not made here
        before = files_of(root)
        if way == "home":
            one.go()
        with killed_before(one.host, number, whole_commands=name == "bridge") as seen:
            one.go("present" if way == "there" else "absent")
        if then == "again":
            predicted = one.go(check=True)
            assert one.go()["changed"] is predicted["changed"]
            assert one.go()["changed"] is False
        one.go("absent")
        left = files_of(root)
        assert left == before, (number, {path for path in set(left) | set(before) if left.get(path) != before.get(path)})
        if seen["changes"] < number:
            break
    assert number > 3
