# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script of the image, run on a recorded sysfs whose paths are written into a copy of it.

A recorded sysfs does not bind anything, so a small stand-in for the kernel is told of each write.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import initramfs_tools as tools
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import script
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit import shell_script
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU, SERIAL, add_function, bind, config_space
from ansible_collections.vfio.host.tests.unit.shell_script import SHELLS

ADDRESS = GPU["address"]
DAMAGED = "0000:01:00.0 left to the host: its line in %s is damaged"


KERNEL = r"""#!/bin/sh
# what the kernel does with a write of $1 to $2
folder=ROOT/sys/bus/pci/devices/$1
case $2 in
*/unbind) rm "$folder/driver" ;;
*/drivers_probe)
    [ -e ROOT/refuses ] && exit 0
    name=$(cat "$folder/driver_override")
    [ -n "$name" ] && [ -d "ROOT/sys/bus/pci/drivers/$name" ] || exit 0
    ln -sfn "ROOT/sys/bus/pci/drivers/$name" "$folder/driver"
    ;;
esac
exit 0
"""


class Machine(Host):
    def __init__(self, root):
        super().__init__(root)
        self.write("/proc/cmdline", "ro quiet\n")
        self.write("/dev/kmsg", "")
        os.makedirs(self.path("/sys/bus/pci/drivers/vfio-pci"))
        self.modprobe("echo $2 >> ROOT/loaded\n[ $2 = vfio_iommu_type1 ] || mkdir -p ROOT/sys/bus/pci/drivers/$2\n")
        self.write("/bin/kernel", KERNEL.replace("ROOT", root), mode=0o755)
        add_function(self, GPU)
        self.list([GPU])

    def modprobe(self, text):
        self.write("/bin/modprobe", "#!/bin/sh\n" + text.replace("ROOT", self.root), mode=0o755)

    def list(self, identities, extra=""):
        self.write(asked.DEVICES, asked.render([asked.identity(item) for item in identities]) + extra)

    def override(self, address=ADDRESS):
        return self.read_attribute("/sys/bus/pci/devices/%s/driver_override" % address)

    def driver(self, address=ADDRESS):
        link = self.readlink("/sys/bus/pci/devices/%s/driver" % address)
        return link and os.path.basename(link)

    def boot(self, shell=None, change=None):
        """Run the script; returns what it said to the kernel log, without the prefix."""
        text = change(script.TEXT) if change else script.TEXT
        return shell_script.run(self, text, (), shell)


@pytest.fixture
def machine(tmp_path):
    return Machine(str(tmp_path))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_the_right_card_is_taken(machine, shell):
    add_function(machine, AUDIO, device_class="040300")
    machine.list([GPU, dict(AUDIO, serial=SERIAL)])
    assert machine.boot(shell) == ["0000:01:00.0 taken", "0000:01:00.1 taken"]
    assert (machine.override(), machine.driver()) == ("vfio-pci", "vfio-pci")


def test_vfio_pci_is_loaded_when_it_is_not_there(machine):
    os.rmdir(machine.path("/sys/bus/pci/drivers/vfio-pci"))
    assert machine.boot() == ["0000:01:00.0 taken"]


def test_without_vfio_pci_nothing_is_touched(machine):
    os.rmdir(machine.path("/sys/bus/pci/drivers/vfio-pci"))
    machine.write("/bin/modprobe", "#!/bin/sh\nexit 1\n", mode=0o755)
    assert machine.boot() == ["0000:01:00.0 left to the host: vfio-pci cannot be loaded"]
    assert machine.override() == "(null)"


@pytest.mark.parametrize(
    "change, why",
    [
        ({"vendor": "10de", "device": "1380"}, "is 1234:1111, asked 10de:1380"),
        ({"subsystem_device": "0001"}, "is subsystem 1af4:1100, asked 1af4:0001"),
        ({"address": "0000:09:00.0"}, "is not there"),
        ({"serial": "00-00-00-00-00-00-00-01"}, "has serial number %s, asked 00-00-00-00-00-00-00-01" % SERIAL),
    ],
)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_what_is_not_the_same_card_is_left(machine, change, why, shell):
    machine.list([dict(GPU, **change)])
    assert machine.boot(shell) == ["%s left to the host: %s" % (change.get("address", ADDRESS), why)]
    assert (machine.override(), machine.driver()) == ("(null)", None)


@pytest.mark.parametrize(
    "more, why",
    [
        ({"device_class": "060400"}, "is a bridge"),
        ({"device_class": ""}, "its class cannot be read"),
        ({"group": None}, "has no IOMMU group (is the IOMMU off?)"),
        ({"config": config_space(serial=None)}, "has serial number that cannot be read, asked " + SERIAL),
        ({"config": b"\xff" * 4096}, "has serial number that cannot be read, asked " + SERIAL),
        ({"config": b""}, "has serial number that cannot be read, asked " + SERIAL),
    ],
)
def test_what_is_unknown_is_left(machine, more, why):
    shutil.rmtree(machine.path("/sys/bus/pci/devices/" + ADDRESS))
    add_function(machine, GPU, **more)
    machine.list([dict(GPU, serial=SERIAL)])
    assert machine.boot() == ["0000:01:00.0 left to the host: " + why]
    assert (machine.override(), machine.driver()) == ("(null)", None)


@pytest.mark.parametrize("line", ["ro vfio_host=off", "vfio_host=off quiet"])
def test_it_can_be_switched_off(machine, line):
    machine.write("/proc/cmdline", line + "\n")
    assert machine.boot() == ["off on the kernel command line, everything is left to the host"]
    assert machine.override() == "(null)"


def test_another_word_does_not_switch_it_off(machine):
    machine.write("/proc/cmdline", "ro xvfio_host=off vfio_host=offf\n")
    assert machine.boot() == ["0000:01:00.0 taken"]


@pytest.mark.parametrize(
    "line, said",
    [
        ("../../x 1 2 3 4 - vfio-pci", "a line of %s is damaged: ../../x"),
        (".. 1 2 3 4 - vfio-pci", "a line of %s is damaged: .."),
        ("0000:01:00.0 1234 1111 1af4 1100 - vfio-pci more", DAMAGED),
        ("0000:01:00.0 1234", DAMAGED),
        ("0000:01:00.0 1234 1111 1af4 1100 - nouveau", DAMAGED),
    ],
)
def test_a_damaged_line_takes_nothing(machine, line, said):
    machine.list([], line + "\n\n")
    assert machine.boot() == [said % (machine.root + asked.DEVICES)]
    assert machine.override() == "(null)"


def test_without_a_list_it_is_silent(machine):
    machine.remove(asked.DEVICES)
    assert machine.boot() == []


def test_a_driver_that_is_already_there_is_unbound_first(machine):
    bind(machine, ADDRESS, "bochs-drm")
    unbind = machine.path("/sys/bus/pci/drivers/bochs-drm") + "/unbind"
    machine.write("/sys/bus/pci/drivers/bochs-drm/unbind", "")
    assert machine.boot() == ["0000:01:00.0 taken"]
    with open(unbind, encoding="ascii") as handle:
        assert handle.read() == ADDRESS + "\n"


def test_what_vfio_pci_refuses_goes_back_to_the_host(machine):
    machine.write("/refuses", "")
    assert machine.boot() == ["0000:01:00.0 left to the host: vfio-pci did not take it"]
    assert machine.override() == ""


def test_one_bad_card_does_not_stop_the_others(machine):
    machine.list([dict(AUDIO, address="0000:00:09.0"), GPU, AUDIO])
    assert machine.boot() == [
        "0000:00:09.0 left to the host: is not there",
        "0000:01:00.0 taken",
        "0000:01:00.1 left to the host: is not there",
    ]


CARD = [GPU, AUDIO, dict(AUDIO, address="0000:02:00.0")]


@pytest.fixture
def card(machine):
    """Two functions of one card and one of another, all asked for."""
    add_function(machine, AUDIO, device_class="040300")
    add_function(machine, CARD[2], device_class="040300")
    machine.list(CARD)
    return machine


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_card_with_one_wrong_function_is_left_as_a_whole(card, wrong, shell):
    card.list([dict(item, subsystem_device="0001") if at == wrong else item for at, item in enumerate(CARD)])
    why = ["another function of its card is not what was asked"] * 2
    why[wrong] = "is subsystem 1af4:1100, asked 1af4:0001"
    assert card.boot(shell) == [
        "0000:01:00.0 left to the host: " + why[0],
        "0000:01:00.1 left to the host: " + why[1],
        "0000:02:00.0 taken",
    ]
    assert [card.driver(item["address"]) for item in CARD] == [None, None, "vfio-pci"]
    assert [card.override(item["address"]) for item in CARD[:2]] == ["(null)", "(null)"]


def test_a_function_that_is_not_there_does_not_cost_the_others_of_its_card(card):
    shutil.rmtree(card.path("/sys/bus/pci/devices/" + AUDIO["address"]))
    assert card.boot() == [
        "0000:01:00.0 taken", "0000:01:00.1 left to the host: is not there", "0000:02:00.0 taken",
    ]  # fmt: skip


def test_a_similar_slot_is_another_card(card):
    other = dict(AUDIO, address="0001:01:00.0")
    add_function(card, other, device_class="040300")
    card.list([dict(GPU, vendor="10de"), other])
    assert card.boot()[1] == "0001:01:00.0 taken"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
@pytest.mark.parametrize("asked_name", ["nvgrace-gpu-vfio-pci", "nvgrace_gpu_vfio_pci"])
@pytest.mark.parametrize("real", ["nvgrace-gpu-vfio-pci", "nvgrace_gpu_vfio_pci"])
def test_a_variant_driver_is_loaded_and_taken_by_the_name_that_the_kernel_has_for_it(machine, asked_name, real, shell):
    machine.modprobe("[ $2 = vfio_iommu_type1 ] || mkdir -p ROOT/sys/bus/pci/drivers/%s\n" % real)
    machine.list([dict(GPU, driver=asked_name)])
    assert machine.boot(shell) == ["0000:01:00.0 taken by " + real]
    assert (machine.override(), machine.driver()) == (real, real)


def test_a_variant_that_is_not_there_leaves_its_device_and_no_other(card):
    card.modprobe("exit 1\n")
    card.list([dict(CARD[2], driver="mlx5_vfio_pci"), GPU, AUDIO])
    assert card.boot() == [
        "0000:01:00.0 taken",
        "0000:01:00.1 taken",
        "0000:02:00.0 left to the host: mlx5_vfio_pci cannot be loaded",
    ]
    assert card.driver("0000:02:00.0") is None


def test_plain_vfio_pci_gives_way_to_the_variant(machine):
    os.makedirs(machine.path("/sys/bus/pci/drivers/mlx5_vfio_pci"))
    bind(machine, ADDRESS, "vfio-pci")
    machine.write("/sys/bus/pci/drivers/vfio-pci/unbind", "")
    machine.list([dict(GPU, driver="mlx5_vfio_pci")])
    assert machine.boot() == ["0000:01:00.0 taken by mlx5_vfio_pci"]


def test_what_is_bound_already_is_not_touched(machine):
    bind(machine, ADDRESS, "vfio-pci")
    assert machine.boot() == ["0000:01:00.0 taken"]
    assert machine.override() == "(null)"


def test_built_in_drivers_need_no_modprobe(machine):
    """vfio-pci and the card's driver are in the kernel: no module is loaded, the card changes hands all the same."""
    machine.modprobe("echo called >> ROOT/loaded\nexit 1\n")
    os.makedirs(machine.path("/sys/module/vfio_iommu_type1"))
    bind(machine, ADDRESS, "bochs-drm")
    machine.write("/sys/bus/pci/drivers/bochs-drm/unbind", "")
    assert machine.boot() == ["0000:01:00.0 taken"]
    assert not machine.exists("/loaded")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_a_driver_that_never_lets_go_costs_bounded_time_and_keeps_its_device(machine, shell):
    bind(machine, ADDRESS, "stuck")
    fifo = machine.path("/sys/bus/pci/drivers/stuck/unbind")
    os.mkfifo(fifo)  # a write to it blocks
    try:
        said = machine.boot(shell, lambda text: text.replace('"$tries" -ge 200', '"$tries" -ge 3'))
    finally:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # which ends the writer
    assert said == ["0000:01:00.0 left to the host: stuck does not let go of it"]
    assert (machine.override(), machine.driver()) == ("", "stuck")


@pytest.mark.parametrize(
    "driver", ["vfio-pci/../x", "-vfio-pci", "_vfio_pci", "vfio-pcix", "xvfio-pci", "Mlx5_vfio_pci", "a$b-vfio-pci"]
)
def test_a_name_that_is_no_vfio_driver_is_damage(machine, driver):
    machine.list([], "0000:01:00.0 1234 1111 1af4 1100 - %s\n" % driver)
    assert machine.boot() == [DAMAGED % (machine.root + asked.DEVICES)]
    assert asked.is_vfio(driver) is False


@pytest.mark.parametrize("text", [script.TEXT, tools.HOOK_TEXT], ids=["script", "hook"])
def test_prerequisites_are_none_and_nothing_else_is_done(tmp_path, text):
    path = tmp_path / "script"
    path.write_text(text)
    done = subprocess.run(["sh", str(path), "prereqs"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("text", [script.TEXT, tools.HOOK_TEXT], ids=["script", "hook"])
def test_shellcheck_is_content(tmp_path, text):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    path = tmp_path / "script"
    path.write_text(text)
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_ours_sorts_before_udev_for_tsort(tmp_path):
    """What mkinitramfs makes of scripts without prerequisites (``get_prereq_pairs | tsort``)."""
    if not shutil.which("tsort"):
        pytest.skip("tsort is not installed")
    names = ["00-vfio-host", "all_generic_ide", "blacklist", "keymap", "udev"]
    pairs = "".join("%s %s\n" % (name, name) for name in names)
    order = subprocess.run(["tsort"], input=pairs, capture_output=True, text=True, check=True).stdout.split()
    assert order.index("00-vfio-host") < order.index("udev")
