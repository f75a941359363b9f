# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script of the unit, run on a recorded sysfs whose paths are written into a copy of it.

A recorded sysfs does nothing by itself, so a small stand-in for the kernel is told of each write.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._mdev import persistence, wanted
from ansible_collections.vfio.host.tests.unit import shell_script
from ansible_collections.vfio.host.tests.unit.boot.functions import SERIAL, add_function, link
from ansible_collections.vfio.host.tests.unit.shell_script import SHELLS

GPU = {"address": "0000:03:00.0", "vendor": "8086", "device": "5912", "subsystem_vendor": "8086", "subsystem_device": "0000"}
HERE = "/sys/bus/pci/devices/" + GPU["address"]
TYPE = "i915-GVTg_V5_4"
UUIDS = ("11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555")

KERNEL = r"""#!/bin/sh
# what the kernel does with a write of $1 to $2
echo "${2##*/} $1" >>ROOT/writes
case $2 in
*/create)
    [ -e ROOT/none_left ] && exit 0
    mkdir -p "ROOT/sys/devices/0000:03:00.0/$1"
    ln -sfn "../mdev_supported_types/$(basename "$(dirname "$2")")" "ROOT/sys/devices/0000:03:00.0/$1/mdev_type"
    ln -sfn "ROOT/sys/devices/0000:03:00.0/$1" "ROOT/sys/bus/mdev/devices/$1"
    ;;
*/current_vgpu_type)
    [ -e ROOT/none_left ] && echo 0 >"$2"
    ;;
esac
exit 0
"""


class Machine(Host):
    def __init__(self, root):
        super().__init__(root)
        self.write("/proc/cmdline", "ro quiet\n")
        self.write("/bin/kernel", KERNEL.replace("ROOT", root), mode=0o755)
        add_function(self, GPU, driver="i915", device_class="030000")
        self.write("%s/mdev_supported_types/%s/create" % (HERE, TYPE), "")
        os.makedirs(self.path("/sys/bus/mdev/devices"))
        self.ask()

    def ask(self, way="mdev", kind=TYPE, uuids=UUIDS[:1], **more):
        item = dict({"parent": GPU["address"], "vendor": "8086", "device": "5912", "serial": None, "way": way,
                     "state": [GPU["address"], kind]}, **more)
        self.write(wanted.LIST, wanted.render([dict(item, uuid=uuid) for uuid in uuids]))

    def ask_vgpu(self, current="0", creatable="ID    : vGPU Name\n1155  : NVIDIA L40S-1B\n11556 : other\n"):
        self.ask("vgpu", "1155", (None,))
        self.write(HERE + "/nvidia/current_vgpu_type", current + "\n")
        self.write(HERE + "/nvidia/creatable_vgpu_types", creatable)

    def made(self):
        return self.listdir("/sys/bus/mdev/devices")

    def writes(self):
        return (self.read("/writes") or "").splitlines()

    def run_script(self, shell=None, parent=GPU["address"], rc=0):
        """Run it; returns what it said to the kernel log, without the prefix."""
        return shell_script.run(self, persistence.SCRIPT_TEXT, [parent], shell, patience=300, rc=rc)


@pytest.fixture
def machine(tmp_path):
    return Machine(str(tmp_path))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_devices_are_made_once(machine, shell):
    machine.ask(uuids=UUIDS, serial=SERIAL)
    assert machine.run_script(shell) == ["%s made, %s of 0000:03:00.0" % (uuid, TYPE) for uuid in UUIDS]
    assert machine.made() == list(UUIDS) and machine.writes() == ["create " + uuid for uuid in UUIDS]
    assert machine.run_script(shell) == [] and len(machine.writes()) == 2


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_a_vgpu_type_is_given_once(machine, shell):
    machine.ask_vgpu()
    assert machine.run_script(shell) == ["0000:03:00.0 has vGPU type 1155"]
    assert machine.run_script(shell) == [] and machine.writes() == ["current_vgpu_type 1155"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_what_is_there_is_never_changed(machine, shell):
    machine.ask_vgpu("1160")
    assert machine.run_script(shell, rc=1) == ["0000:03:00.0 left to the host: has type 1160, asked 1155; it is not changed, "
                                               "since somebody may use it"]
    machine.ask()
    machine.run_script(shell)
    link(machine, HERE + "/mdev_supported_types/other", "/sys/devices/0000:03:00.0/%s/mdev_type" % UUIDS[0])
    assert machine.run_script(shell, rc=1) == [
        "0000:03:00.0 left to the host: %s is other of 0000:03:00.0, asked %s; it is not changed, since somebody may use it"
        % (UUIDS[0], TYPE)]
    assert machine.writes() == ["create " + UUIDS[0]]


@pytest.mark.parametrize("change, why", [
    ({"device": "5913"}, "is 8086:5912, asked 8086:5913"),
    ({"serial": "00-00-00-00-00-00-00-01"}, "has serial number %s, asked 00-00-00-00-00-00-00-01" % SERIAL),
    ({"kind": "i915-x"}, "its driver does not offer i915-x"),
])
@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_another_card_or_driver_is_left(machine, change, why, shell):
    machine.ask(**change)
    assert machine.run_script(shell, rc=1) == ["0000:03:00.0 left to the host: " + why] and machine.writes() == []


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_what_the_driver_does_not_do(machine, shell):
    machine.write("/none_left", "")
    assert "did not make %s, type %s (is one left?)" % (UUIDS[0], TYPE) in machine.run_script(shell, rc=1)[0]
    machine.ask_vgpu()
    assert machine.run_script(shell, rc=1) == ["0000:03:00.0 left to the host: its driver did not take type 1155"]
    machine.ask_vgpu(creatable="11556 : other\n")
    assert "does not offer type 1155 now" in machine.run_script(shell, rc=1)[0]
    os.unlink(machine.root + HERE + "/nvidia/creatable_vgpu_types")
    assert "does not offer type 1155 now" in machine.run_script(shell, rc=1)[0]
    os.unlink(machine.root + HERE + "/nvidia/current_vgpu_type")
    assert "offers no vGPU types" in machine.run_script(shell, rc=1)[0]
    os.unlink(machine.root + HERE + "/driver")
    assert "it is not there, or no driver of it" in machine.run_script(shell, rc=1)[0]


def test_it_can_be_switched_off(machine):
    machine.write("/proc/cmdline", "ro vfio_host=off\n")
    assert machine.run_script() == ["off on the kernel command line, everything is left to the host"]
    assert machine.writes() == []


def test_what_nobody_asked(machine):
    assert machine.run_script(parent="0000:09:00.0") == [] and machine.writes() == []
    assert machine.run_script(parent="../../x", rc=1) == ["../../x is no function"]
    machine.remove(wanted.LIST)
    assert machine.run_script() == []


@pytest.mark.parametrize("line", [
    "8086 5912 - mdev ../x " + UUIDS[0], "8086 5912 - mdev a/b " + UUIDS[0], "8086 5912 - mdev a x", "8086 5912 - mdev a",
    "8086 5912 - vgpu 0 -", "8086 5912 - vgpu x -", "8086 5912 - other 1 -", "8086 $(id) - mdev a " + UUIDS[0],
    "8086 5912 - mdev %s %s more" % (TYPE, UUIDS[0])])
def test_a_damaged_line_makes_nothing(machine, line):
    machine.write(wanted.LIST, "%s %s\n" % (GPU["address"], line))
    assert machine.run_script(rc=1) == ["0000:03:00.0 left to the host: its line in %s is damaged"
                                        % (machine.root + wanted.LIST)]
    assert machine.writes() == []


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing(tmp_path):
    path = tmp_path / "mediated_devices"
    path.write_text(persistence.SCRIPT_TEXT)
    done = subprocess.run(["shellcheck", str(path)], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stdout.decode()
