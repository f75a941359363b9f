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
from ansible_collections.vfio.host.plugins.module_utils._sriov import persistence, wanted
from ansible_collections.vfio.host.tests.unit import shell_script
from ansible_collections.vfio.host.tests.unit.boot.functions import SERIAL, add_function, bind, link
from ansible_collections.vfio.host.tests.unit.shell_script import SHELLS

PF = {"address": "0000:03:00.0", "vendor": "8086", "device": "1572", "subsystem_vendor": "8086",
      "subsystem_device": "0000"}
MAC = "52:54:00:00:00:01"

KERNEL = r"""#!/bin/sh
# what the kernel does with a write of $1 to $2
pci=ROOT/sys/bus/pci
pf=$pci/devices/0000:03:00.0
echo "${2##*/} $1" >>ROOT/writes
case $2 in
*/sriov_numvfs)
    [ -e ROOT/makes_none ] && echo 0 >"$2" && exit 0
    n=0
    while [ "$n" -lt "$1" ]; do
        vf=$pci/devices/0000:03:02.$n
        mkdir -p "$vf" ROOT/sys/kernel/iommu_groups/2$n
        echo "(null)" >"$vf/driver_override"
        [ -e ROOT/no_iommu ] || ln -sfn "ROOT/sys/kernel/iommu_groups/2$n" "$vf/iommu_group"
        ln -sfn "$vf" "$pf/virtfn$n"
        [ "$(cat "$pf/sriov_drivers_autoprobe")" = 0 ] || ln -sfn "$pci/drivers/iavf" "$vf/driver"
        n=$((n + 1))
    done
    ;;
*/drivers_probe)
    vf=$pci/devices/$1
    [ -e "ROOT/refuses" ] && exit 0
    name=$(cat "$vf/driver_override")
    if [ "$name" = "(null)" ]; then
        [ "$(cat "$pf/sriov_drivers_autoprobe")" = 1 ] || exit 0
        name=iavf
    fi
    [ -d "$pci/drivers/$name" ] && ln -sfn "$pci/drivers/$name" "$vf/driver"
    ;;
esac
exit 0
"""


class Machine(Host):
    def __init__(self, root):
        super().__init__(root)
        self.write("/proc/cmdline", "ro quiet\n")
        self.write("/dev/kmsg", "")
        for name in ("vfio-pci", "iavf"):
            os.makedirs(self.path("/sys/bus/pci/drivers/" + name))
        self.write("/sys/bus/pci/drivers_probe", "")
        self.command("kernel", KERNEL)
        self.command("modprobe", "#!/bin/sh\nmkdir -p ROOT/sys/bus/pci/drivers/$2\n")
        self.command("ip", "#!/bin/sh\n[ -e ROOT/deaf ] && {\necho 'RTNETLINK answers: Operation not supported' >&2\nexit 2\n}\necho \"ip $*\" >>ROOT/writes\n")
        add_function(self, PF, driver="i40e", device_class="020000")
        self.attribute("sriov_numvfs", 0)
        self.attribute("sriov_drivers_autoprobe", 1)
        os.makedirs(self.path("/sys/bus/pci/devices/%s/net/ens3" % PF["address"]))
        self.ask()

    def command(self, name, text):
        self.write("/bin/" + name, text.replace("ROOT", self.root), mode=0o755)

    def attribute(self, name, value):
        self.write("/sys/bus/pci/devices/%s/%s" % (PF["address"], name), "%s\n" % value)

    def ask(self, count=2, **more):
        entry = dict({"address": PF["address"], "vendor": PF["vendor"], "device": PF["device"], "count": count}, **more)
        self.write(wanted.LIST, wanted.render(wanted.check([entry])))

    def driver(self, number):
        target = self.readlink("/sys/bus/pci/devices/0000:03:02.%d/driver" % number)
        return target and os.path.basename(target)

    def count(self):
        return self.read_attribute("/sys/bus/pci/devices/%s/sriov_numvfs" % PF["address"])

    def writes(self):
        return (self.read("/writes") or "").splitlines()

    def run_script(self, shell=None, address=PF["address"], rc=0):
        """Run it; returns what it said to the kernel log, without the prefix."""
        return shell_script.run(self, persistence.SCRIPT_TEXT, [address], shell, patience=150, rc=rc)


@pytest.fixture
def machine(tmp_path):
    return Machine(str(tmp_path))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_they_are_made_set_and_bound(machine, shell):
    machine.ask(vfs=[{"index": 1, "mac": MAC, "vlan": 7, "qos": 2, "trust": True, "spoof_check": False}])
    assert machine.run_script(shell) == ["0000:03:00.0 has 2 virtual functions", "0000:03:02.0 taken by vfio-pci",
                                         "0000:03:02.1 taken by vfio-pci"]
    assert (machine.count(), machine.driver(0), machine.driver(1)) == ("2", "vfio-pci", "vfio-pci")
    assert machine.writes() == [
        "sriov_drivers_autoprobe 0", "sriov_numvfs 2", "driver_override vfio-pci", "drivers_probe 0000:03:02.0",
        "ip link set dev ens3 vf 1 mac " + MAC, "ip link set dev ens3 vf 1 vlan 7 qos 2",
        "ip link set dev ens3 vf 1 spoofchk off", "ip link set dev ens3 vf 1 trust on",
        "driver_override vfio-pci", "drivers_probe 0000:03:02.1"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_a_second_run_writes_nothing(machine, shell):
    machine.ask(vfs=[{"index": 1, "mac": MAC}])
    machine.run_script(shell)
    writes = machine.writes()
    assert machine.run_script(shell) == [] and machine.writes() == writes


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_the_hosts_drivers_take_what_is_theirs(machine, shell):
    machine.ask(3, vfs=[{"index": 1, "driver": "host"}])
    machine.run_script(shell)
    assert [machine.driver(n) for n in range(3)] == ["vfio-pci", "iavf", "vfio-pci"]
    assert machine.read_attribute("/sys/bus/pci/devices/0000:03:00.0/sriov_drivers_autoprobe") == "0"
    writes = machine.writes()
    assert machine.run_script(shell) == [] and machine.writes() == writes


def test_all_are_the_hosts(machine):
    machine.ask(driver="host")
    assert machine.run_script() == ["0000:03:00.0 has 2 virtual functions"]
    assert machine.driver(1) == "iavf" and machine.writes() == ["sriov_drivers_autoprobe 1", "sriov_numvfs 2"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_other_virtual_functions_are_never_taken_away(machine, shell):
    machine.attribute("sriov_numvfs", 4)
    said = machine.run_script(shell, rc=1)
    assert said == ["0000:03:00.0 left to the host: has 4 virtual functions, asked 2; they are not taken away, since "
                    "somebody may use them"]
    assert machine.writes() == []


def test_one_on_another_driver_is_not_touched(machine):
    machine.run_script()
    link(machine, "/sys/bus/pci/drivers/iavf", "/sys/bus/pci/devices/0000:03:02.0/driver")
    writes = machine.writes()
    assert machine.run_script(rc=1) == ["0000:03:02.0 left alone: it is on iavf, asked vfio-pci"]
    assert machine.writes() == writes


def test_one_that_lost_its_driver_gets_it_again(machine):
    machine.run_script()
    os.unlink(machine.root + "/sys/bus/pci/devices/0000:03:02.1/driver")
    assert machine.run_script() == ["0000:03:02.1 taken by vfio-pci"]


@pytest.mark.parametrize("change, why", [
    ({"device": "1573"}, "is 8086:1572, asked 8086:1573"),
    ({"serial": "00-00-00-00-00-00-00-01"}, "has serial number %s, asked 00-00-00-00-00-00-00-01" % SERIAL),
])
@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_another_card_is_left(machine, change, why, shell):
    machine.ask(**change)
    assert machine.run_script(shell, rc=1) == ["0000:03:00.0 left to the host: " + why]
    assert machine.writes() == [] and machine.count() == "0"


def test_the_right_serial_number_is_taken(machine):
    machine.ask(serial=SERIAL)
    assert machine.run_script()[0] == "0000:03:00.0 has 2 virtual functions"


def test_a_card_without_driver_or_on_vfio(machine):
    bind(machine, PF["address"], "vfio-pci")
    assert machine.run_script(rc=1) == ["0000:03:00.0 left to the host: is on vfio-pci itself"]
    os.unlink(machine.root + "/sys/bus/pci/devices/%s/driver" % PF["address"])
    assert machine.run_script(rc=1) == ["0000:03:00.0 left to the host: it is not there, or no driver of it"]
    assert machine.writes() == []


@pytest.mark.parametrize("line", ["ro vfio_host=off", "vfio_host=off quiet"])
def test_it_can_be_switched_off(machine, line):
    machine.write("/proc/cmdline", line + "\n")
    assert machine.run_script() == ["off on the kernel command line, everything is left to the host"]
    assert machine.writes() == []


@pytest.mark.parametrize("address", ["0000:09:00.0", "0000:03:00.1"])
def test_a_card_that_nobody_asked_about(machine, address):
    assert machine.run_script(address=address) == [] and machine.writes() == []


@pytest.mark.parametrize("address", ["../../x", "..", ""])
def test_what_is_no_address(machine, address):
    assert machine.run_script(address=address, rc=1) == ["%s is no physical function" % address]


def test_without_a_list_it_is_silent(machine):
    machine.remove(wanted.LIST)
    assert machine.run_script() == []


@pytest.mark.parametrize("line", ["pf 0000:03:00.0 8086 1572 - x 0", "pf 0000:03:00.0 8086 1572 - 2 5",
                                  "pf 0000:03:00.0 8086 1572 - 2 0 more", "pf 0000:03:00.0 8086 1572 - 0 0"])
def test_a_damaged_line_makes_nothing(machine, line):
    machine.write(wanted.LIST, line + "\n")
    assert machine.run_script(rc=1) == ["0000:03:00.0 left to the host: its line in %s is damaged"
                                        % (machine.root + wanted.LIST)]
    assert machine.writes() == []


@pytest.mark.parametrize("line", [
    "vf 0000:03:00.0 0 nouveau - - - - -", "vf 0000:03:00.0 0 vfio-pci", "vf 0000:03:00.0 x host - - - - -",
    "vf 0000:03:00.0 0 vfio-pci - - - - - more", "vf 0000:03:00.0 0 vfio-pci $(id) - - - -"])
def test_a_damaged_line_of_a_virtual_function_binds_nothing(machine, line):
    machine.write(wanted.LIST, "pf 0000:03:00.0 8086 1572 - 1 0\n%s\n" % line)
    assert "damaged" in machine.run_script(rc=1)[1] and machine.driver(0) is None


def test_what_the_card_does_not_do(machine):
    machine.write("/makes_none", "")
    assert machine.run_script(rc=1) == ["0000:03:00.0 left to the host: its driver made no 2 virtual functions"]


def test_a_setting_that_is_refused_leaves_it_without_a_driver(machine):
    machine.ask(vfs=[{"index": 0, "trust": True}])
    machine.write("/deaf", "")
    assert machine.run_script(rc=1) == [
        "0000:03:00.0 has 2 virtual functions", "0000:03:02.0 left without a driver: ens3 does not take its trust",
        "0000:03:02.1 taken by vfio-pci"]
    assert machine.driver(0) is None


@pytest.mark.parametrize("said", ["Resource temporarily unavailable", "Device or resource busy"])
def test_a_driver_that_is_busy_for_a_moment_is_asked_again(machine, said):
    machine.ask(vfs=[{"index": 0, "trust": True, "mac": MAC}])
    machine.command("ip", "#!/bin/sh\nif [ ! -e ROOT/asked ]; then\n: >ROOT/asked\necho 'RTNETLINK answers: %s' >&2\n"
                          "exit 2\nfi\necho \"ip $*\" >>ROOT/writes\n" % said)
    assert "0000:03:02.0 taken by vfio-pci" in machine.run_script()
    assert [line for line in machine.writes() if line.startswith("ip")] == [
        "ip link set dev ens3 vf 0 mac " + MAC, "ip link set dev ens3 vf 0 trust on"]


def test_a_driver_that_does_not_take_it(machine):
    machine.write("/refuses", "")
    assert machine.run_script(rc=1)[1] == "0000:03:02.0 left without a driver: vfio-pci did not take it"


def test_without_an_iommu(machine):
    machine.write("/no_iommu", "")
    assert "has no IOMMU group" in machine.run_script(rc=1)[1] and machine.driver(0) is None


def test_representors_are_not_asked(machine):
    home = "/sys/bus/pci/devices/%s/net/" % PF["address"]
    machine.write(home + "ens3/phys_port_name", "p0\n")
    machine.write(home + "a_vf/phys_port_name", "pf0vf0\n")
    machine.ask(vfs=[{"index": 0, "mac": MAC}])
    machine.run_script()
    assert "ip link set dev ens3 vf 0 mac " + MAC in machine.writes()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing(tmp_path):
    path = tmp_path / "sriov"
    path.write_text(persistence.SCRIPT_TEXT)
    done = subprocess.run(["shellcheck", str(path)], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_every_shell_can_read_it(tmp_path, shell):
    path = tmp_path / "sriov"
    path.write_text(persistence.SCRIPT_TEXT)
    assert subprocess.run(shell + ["-n", str(path)], check=False).returncode == 0
