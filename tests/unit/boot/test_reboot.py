# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import reboot
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError


@pytest.fixture
def host(tmp_path):
    found = Host(root=str(tmp_path))
    found.write(reboot.BOOT_ID, "one\n")
    return found


def run(host, digest="a", state="present", check=False):
    return reboot.run(host, {"digest": digest, "state": state}, check)


def test_remembered_before_the_reboot_and_known_after_it(host):
    assert run(host)["changed"] and not run(host)["rebooted"]
    host.write(reboot.BOOT_ID, "two\n")
    again = run(host)
    assert (again["changed"], again["rebooted"]) == (False, True)
    assert run(host)["rebooted"], "asked once more it is no other"


def test_another_change_has_its_own_reboot(host):
    run(host)
    host.write(reboot.BOOT_ID, "two\n")
    other = run(host, "b")
    assert (other["changed"], other["rebooted"]) == (True, False)


def test_forgotten_when_it_is_in_force(host):
    run(host)
    assert run(host, None, "absent")["changed"] and not host.exists(reboot.STATE)
    assert run(host, None, "absent")["changed"] is False
    host.write(reboot.BOOT_ID, "two\n")
    assert not run(host)["rebooted"]


def test_check_mode_writes_nothing(host):
    assert run(host, check=True)["changed"] and not host.exists(reboot.STATE)
    run(host)
    assert run(host, None, "absent", check=True)["changed"] and host.exists(reboot.STATE)


def test_bad_input_is_refused(host):
    with pytest.raises(ValueError, match="digest"):
        run(host, "")
    host.write(reboot.STATE, '{"schema": 1, "digest": 5}')
    with pytest.raises(HostError, match="cannot be understood"):
        run(host)
    host.remove(reboot.STATE)
    host.remove(reboot.BOOT_ID)
    with pytest.raises(HostError, match="cannot be read"):
        run(host)
