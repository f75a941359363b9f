# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._settings.functions import RECORD, RULES, path_of, run
from ansible_collections.vfio.host.tests.unit.boot import functions as sysfs
from ansible_collections.vfio.host.tests.unit.boot.functions import SERIAL, SUBSYSTEM
from ansible_collections.vfio.host.tests.unit.settings.settings_host import AUDIO, GPU, NIC, PORT, Killed, SettingsHost

RELOAD = ["udevadm", "control", "--reload"]


@pytest.fixture
def host(tmp_path):
    return SettingsHost(str(tmp_path))


def ask(identity, **more):
    return dict({key: identity[key] for key in ("address", "vendor", "device")}, **more)


def go(host, *functions, check=False, state="present"):
    return run(host, {"functions": list(functions), "state": state}, check)


def nic(*methods, **more):
    return ask(NIC, reset_method=list(methods), **more)


def test_set_read_back_and_a_second_run_changes_nothing(host):
    result = go(host, nic("bus", "flr", d3cold_allowed=False, serial=SERIAL))
    assert result["changed"] and host.ran == [RELOAD]
    assert host.setting(NIC["address"]) == "bus flr" and host.setting(NIC["address"], "d3cold_allowed") == "0"
    assert result["functions"] == [{"address": NIC["address"], "reset_method": ["bus", "flr"], "d3cold_allowed": False,
                                    "managed": ["reset_method", "d3cold_allowed"]}]
    assert host.read(RULES).splitlines()[2:] == [
        'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="0000:03:00.0", ATTR{vendor}=="0x8086", ATTR{device}=="0x10d3", '
        'ATTR{reset_method}="bus flr", ATTR{d3cold_allowed}="0"']
    before, writes = host.tree(), list(host.writes)
    again = go(host, nic("bus", "flr", d3cold_allowed=False, serial=SERIAL))
    assert not again["changed"] and again["diff"] == [] and again["warnings"] == []
    assert (host.tree(), host.writes, host.ran) == (before, writes, [RELOAD])


@pytest.mark.parametrize("first, then", [
    ([], [nic("flr")]), ([], [nic()]), ([nic("flr")], [nic("bus"), ask(GPU, d3cold_allowed=False)]),
    ([nic("flr", d3cold_allowed=False)], [nic("flr")]), ([nic("flr")], []),
    ([nic("flr"), ask(GPU, reset_method=["pm"])], [nic("pm")]),
])
def test_check_mode_predicts_and_writes_nothing(host, first, then):
    go(host, *first)
    before, writes, ran = host.tree(), list(host.writes), list(host.ran)
    predicted = go(host, *then, check=True)
    assert (host.tree(), host.writes, host.ran) == (before, writes, ran)
    done = go(host, *then)
    assert predicted == done and done["changed"] and done["diff"]
    assert not go(host, *then, check=True)["changed"] and not go(host, *then)["changed"]


@pytest.mark.parametrize("function, shown", [
    (nic("bus"), "bus"), (nic(), ""), (ask(GPU, reset_method=["pm", "flr"]), "pm flr"),
])
def test_it_is_there_after_a_reboot(host, function, shown):
    go(host, function)
    host.boot()
    assert host.setting(function["address"]) == shown
    assert not go(host, function)["changed"]


def test_after_a_reboot_another_card_is_let_alone(host):
    go(host, nic("bus", d3cold_allowed=False))
    host.put("/sys/bus/pci/devices/0000:03:00.0/device", "0x1521\n")
    host.boot()
    assert host.setting(NIC["address"]) == "flr pm bus" and host.setting(NIC["address"], "d3cold_allowed") == "1"
    result = go(host, state="absent")
    assert "no longer there" in result["warnings"][0] and not host.exists(RULES) and not host.exists(RECORD)
    assert host.setting(NIC["address"]) == "flr pm bus"


def test_absent_gives_back_what_was_and_leaves_no_file(host):
    host.kernel(path_of(NIC["address"], "reset_method"), "pm flr")
    before = host.tree()
    go(host, nic("flr", d3cold_allowed=False))
    go(host, nic("pm"), ask(GPU, d3cold_allowed=False))
    assert host.setting(NIC["address"], "d3cold_allowed") == "1"
    assert go(host, state="absent", check=True)["changed"] and host.setting(NIC["address"]) == "pm"
    assert go(host, nic("pm"), state="absent")["changed"]
    assert host.tree() == before and not host.exists("/var/lib/vfio-host")
    assert not go(host, state="absent")["changed"] and go(host, state="absent")["warnings"] == []


def test_absent_on_a_bare_machine_does_nothing(host):
    before = host.tree()
    assert not go(host, state="absent")["changed"] and host.tree() == before and host.ran == []


def test_what_is_no_longer_listed_goes_back(host):
    go(host, nic("bus"), ask(GPU, reset_method=["pm"], d3cold_allowed=False))
    result = go(host, ask(GPU, reset_method=["pm"]))
    assert host.setting(NIC["address"]) == "flr pm bus" and host.setting(GPU["address"]) == "pm"
    assert host.setting(GPU["address"], "d3cold_allowed") == "1" and NIC["address"] not in host.read(RULES)
    assert [one["managed"] for one in result["functions"]] == [["reset_method"], []]


def test_an_order_that_left_methods_out_can_have_them_again(host):
    go(host, nic("flr"))
    assert go(host, nic("bus", "pm"))["changed"] and host.setting(NIC["address"]) == "bus pm"
    host.boot()
    assert go(host, nic("flr"))["changed"]


def test_bus_of_a_card_with_two_functions(host):
    assert host.setting(GPU["address"]) == "flr pm bus"  # as Linux shows it at boot, before it has seen the second one
    with pytest.raises(ValueError, match=r"functions\[0\].reset_method: 'bus' would reset 0000:01:00.1.*flr pm for"):
        go(host, ask(GPU, reset_method=["flr", "bus"]))
    go(host, ask(GPU, reset_method=["pm"]))
    predicted = go(host, state="absent", check=True)
    assert go(host, state="absent") == predicted
    assert host.setting(GPU["address"]) == "flr pm"  # what it was, but for the one that never worked


VF = dict(SUBSYSTEM, address="0000:03:10.0", vendor="8086", device="10ed")
OTHER_SLOT = dict(VF, address="0000:03:01.0")


def neighbour(host, identity, kernel_refuses=True):
    """Another function on the NIC's bus: then the kernel resets that bus for none of them."""
    sysfs.add_function(host, identity, driver="vfio-pci", device_class="020000")
    if identity is VF:
        sysfs.link(host, path_of(NIC["address"], "").rstrip("/"), path_of(VF["address"], "physfn"))
    if kernel_refuses:
        host.methods[NIC["address"]] = ["flr", "pm"]


def neighbour_goes(host, identity=None):
    identity = identity or VF
    shutil.rmtree(host.path("/sys/bus/pci/devices/" + identity["address"]))
    host.methods[NIC["address"]] = ["flr", "pm", "bus"]


def refused(host, words, *functions):
    before, writes = host.tree(), list(host.writes)
    for check in (True, False):
        with pytest.raises((ValueError, HostError), match=words):
            go(host, *functions, check=check)
    assert (host.tree(), host.writes) == (before, writes)


def test_bus_of_a_card_whose_virtual_functions_came_later(host):
    go(host, nic("flr", "bus"))
    neighbour(host, VF)
    again = go(host, nic("flr", "bus"))
    assert not again["changed"] and again["warnings"] == []  # what is set already stays
    refused(host, r"functions\[0\].reset_method: 'bus' would reset 0000:03:10.0 too.*it offers flr pm for", nic("bus"))
    assert go(host, nic("pm", "flr"))["changed"] and not go(host, nic("pm", "flr"))["changed"]


def test_bus_comes_back_once_the_virtual_functions_are_gone(host):
    bare = host.tree()
    go(host, nic("flr", d3cold_allowed=False))
    neighbour(host, VF)
    predicted = go(host, state="absent", check=True)
    assert "/reset_method: bus does not come back while 0000:03:10.0 is there" in predicted["warnings"][0]
    assert predicted == go(host, state="absent") and host.setting(NIC["address"]) == "flr pm"
    assert host.setting(NIC["address"], "d3cold_allowed") == "1" and not host.exists(RULES)
    writes = list(host.writes)
    for check in (True, False):
        again = go(host, state="absent", check=check)
        assert not again["changed"] and again["warnings"] == predicted["warnings"] and host.writes == writes
    neighbour_goes(host)
    assert go(host, state="absent")["warnings"] == [] and host.tree() == bare


def test_bus_that_did_not_come_back_comes_with_the_next_boot(host):
    bare = host.tree()
    go(host, nic("flr"))
    neighbour(host, VF)
    go(host, state="absent")
    neighbour_goes(host)
    host.boot()  # the kernel lists them before virtual functions are made
    writes = list(host.writes)
    neighbour(host, VF)
    assert go(host, state="absent")["warnings"] == [] and host.writes == writes
    neighbour_goes(host)
    host.put("/proc/sys/kernel/random/boot_id", "boot 1\n")
    assert host.tree() == bare


def test_bus_that_did_not_come_back_is_still_what_was_before(host):
    bare = host.tree()
    go(host, nic("flr"))
    neighbour(host, VF)
    go(host, state="absent")
    go(host, nic("pm", d3cold_allowed=False))
    result = go(host, ask(NIC, d3cold_allowed=False))
    assert "bus does not come back" in result["warnings"][0] and host.setting(NIC["address"]) == "flr pm"
    assert not go(host, ask(NIC, d3cold_allowed=False))["changed"]
    neighbour_goes(host)
    assert go(host, ask(NIC, d3cold_allowed=False))["changed"] and host.setting(NIC["address"]) == "flr pm bus"
    go(host, state="absent")
    assert host.tree() == bare


@pytest.mark.parametrize("gone", [True, False])
def test_killed_on_the_way_home_with_virtual_functions(tmp_path, gone):
    number, killed = 0, True
    while killed:
        number += 1
        host = SettingsHost(str(tmp_path / str(number)))
        bare = host.tree()
        go(host, nic("flr"))
        neighbour(host, VF)
        host.changes, host.kill_at = 0, number
        try:
            go(host, state="absent")
            killed = False
        except Killed:
            pass
        host.kill_at = None
        if not gone:
            go(host, state="absent")
        neighbour_goes(host)
        assert go(host, state="absent")["warnings"] == [] and host.tree() == bare, number
    assert number > 3


def test_bus_with_a_card_in_another_slot(host):
    neighbour(host, OTHER_SLOT)
    refused(host, "'bus' would reset 0000:03:01.0 too", nic("flr", "pm", "bus"))  # as the kernel shows it at boot
    go(host, nic("flr"))
    predicted = go(host, state="absent", check=True)
    assert predicted == go(host, state="absent") and host.setting(NIC["address"]) == "flr pm"
    assert not host.exists(RECORD) and not go(host, state="absent")["changed"]


def below(host, path, header=0):
    """Where the NIC's folder really is, as sysfs has it."""
    flat = host.path("/sys/bus/pci/devices/" + NIC["address"])
    there = "/sys/devices/%s/%s" % (path, NIC["address"])
    os.makedirs(os.path.dirname(host.path(there)))
    os.rename(flat, host.path(there))
    sysfs.link(host, there, "/sys/bus/pci/devices/" + NIC["address"])
    host.write(there + "/config", sysfs.config_space(header_type=header))


def test_a_root_bus_is_reset_for_nobody(host):
    below(host, "pci0000:00")
    for slot in range(9):
        neighbour(host, dict(VF, address="0000:03:1%d.0" % slot))
    host.kernel(path_of(NIC["address"], "reset_method"), "flr pm")
    refused(host, "does not offer 'bus' for 0000:03:00.0; it offers flr pm", nic("bus"))


@pytest.mark.parametrize("header, hotplug", [(0, True), (0x80, True), (0, False)])
def test_a_slot_with_hot_plug_is_reset_alone(host, header, hotplug):
    below(host, "pci0000:00/0000:00:1c.0", header)
    if hotplug:
        host.put("/sys/bus/pci_express/drivers/pciehp/0000:00:1c.0:pcie204/x", "")
    alone = hotplug and not header
    neighbour(host, VF, kernel_refuses=not alone)
    if not alone:
        return refused(host, "'bus' would reset 0000:03:10.0 too", nic("bus"))
    assert go(host, nic("bus"))["changed"] and host.setting(NIC["address"]) == "bus"
    assert go(host, state="absent")["warnings"] == [] and host.setting(NIC["address"]) == "flr pm bus"


def test_what_the_kernel_takes_no_longer_does_not_stop_the_way_home(host):
    host.put("/sys/module/vendor_reset/initstate", "live\n")
    host.kernel(path_of(GPU["address"], "reset_method"), "device_specific pm")
    go(host, ask(GPU, reset_method=["pm"]), nic("flr"))
    shutil.rmtree(host.path("/sys/module/vendor_reset"))
    predicted = go(host, state="absent", check=True)
    result = go(host, state="absent")
    assert predicted["changed"] and result["changed"] and host.setting(NIC["address"]) == "flr pm bus"
    assert "takes 'device_specific pm' no longer" in result["warnings"][0] and "it is flr pm now" in result["warnings"][0]
    assert host.setting(GPU["address"]) == "flr pm" == " ".join(result["functions"][0]["reset_method"])
    assert not host.exists(RECORD) and not host.exists(RULES) and not go(host, state="absent")["changed"]


def test_vendor_reset_is_not_listed_before_it_was_written(host):
    asked = ask(GPU, reset_method=["device_specific", "pm"])
    with pytest.raises(ValueError, match="does not offer 'device_specific' for 0000:01:00.0; it offers flr pm"):
        go(host, asked)
    host.put("/sys/module/vendor_reset/initstate", "live\n")
    assert go(host, asked)["changed"] and host.setting(GPU["address"]) == "device_specific pm"
    os.unlink(host.path("/sys/module/vendor_reset/initstate"))
    os.rmdir(host.path("/sys/module/vendor_reset"))
    host.boot()
    assert host.setting(GPU["address"]) == "device_specific pm" and not go(host, asked)["changed"]


@pytest.mark.parametrize("functions, words", [
    ([nic("flr"), nic("pm")], r"functions\[1\].address: 0000:03:00.0 is given twice, by functions\[0\] too"),
    ([ask(NIC)], r"functions\[0\]: nothing is asked of 0000:03:00.0"),
    ([dict(nic("flr"), address="3:0.0")], r"functions\[0\].address: '3:0.0' is not like 0000:01:00.0"),
    ([dict(nic("flr"), vendor="0x8086")], r"functions\[0\].vendor: '0x8086' is not four hexadecimal digits"),
    ([nic("flr", serial="5")], r"functions\[0\].serial: '5' is not like"),
    ([nic("flr"), ask(GPU, reset_method=["default"])], r"functions\[1\].reset_method: 'default' is no method; leave"),
    ([nic("flr\"; x")], r"functions\[0\].reset_method: 'flr\"; x' is no reset method"),
    ([nic("flr", "flr")], r"functions\[0\].reset_method: flr is given twice"),
    ([ask(NIC, reset_method="flr")], r"functions\[0\].reset_method: 'flr' is not a list"),
    ([ask(NIC, d3cold_allowed="no")], r"functions\[0\].d3cold_allowed: 'no' is neither"),
    ([nic("acpi")], r"functions\[0\].reset_method: the kernel does not offer 'acpi'.*it offers flr pm bus.*default"),
    ([ask(AUDIO, reset_method=["flr"])], r"functions\[0\].reset_method: the kernel knows no way to reset 0000:01:00.1"),
    ([ask(PORT, d3cold_allowed=False)], r"functions\[0\].address: 0000:00:01.0 is a bridge"),
    ([dict(nic("flr"), address="0000:09:00.0")], r"functions\[0\].address: 0000:09:00.0 does not exist"),
    ([nic("flr"), dict(ask(GPU, d3cold_allowed=False), device="2222")],
     r"functions\[1\].device: 0000:01:00.0 has 1111, asked 2222.*Cards may have moved"),
    ([nic("flr", serial="00-00-00-00-00-00-00-01")], r"functions\[0\].serial: 0000:03:00.0 has 52-54-00-ff-ff-12"),
])
def test_refused_with_its_place_and_nothing_changed(host, functions, words):
    before = host.tree()
    for check in (True, False):
        with pytest.raises(ValueError, match=words):
            go(host, *functions, check=check)
    assert host.tree() == before and host.writes == [] and host.ran == []


@pytest.mark.parametrize("attribute, function, words", [
    ("reset_method", nic("flr"), "no function of this machine has a file reset_method; Linux 5.15"),
    ("d3cold_allowed", ask(NIC, d3cold_allowed=False), "without power management"),
])
def test_a_kernel_without_the_file(host, attribute, function, words):
    for identity in (GPU, AUDIO, NIC, PORT):
        if host.exists(path_of(identity["address"], attribute)):
            os.unlink(host.path(path_of(identity["address"], attribute)))
    with pytest.raises(ValueError, match=words):
        go(host, function)


def test_a_value_that_is_neither_0_nor_1_is_no_guess(host):
    host.put(path_of(NIC["address"], "d3cold_allowed"), "auto\n")
    with pytest.raises(ValueError, match="cannot be understood"):
        go(host, ask(NIC, d3cold_allowed=False))


def test_without_udev_it_would_not_last(host):
    host.remove("/usr/bin/udevadm")
    with pytest.raises(HostError, match="udevadm is not installed"):
        go(host, nic("flr"))
    assert not go(host, state="absent")["changed"]


@pytest.mark.parametrize("socket", ["/run/udev/control", "/run/udev/io.systemd.Udev"])
def test_a_udev_that_does_not_run_is_not_told(host, socket):
    host.remove("/run/udev/control")
    go(host, nic("flr"))
    assert host.ran == []
    host.put(socket, "")
    go(host, nic("pm"))
    assert host.ran == [RELOAD]


def test_a_udev_that_does_not_answer_is_a_warning(host):
    host.fail.add("udevadm")
    assert "count from the next boot" in go(host, nic("flr"))["warnings"][0] and host.setting(NIC["address"]) == "flr"


@pytest.mark.parametrize("broken", [path_of(NIC["address"], "reset_method"), RULES, RECORD])
def test_a_failure_leaves_everything_as_it_was(host, broken):
    host.boot()
    before = host.tree()
    host.broken.add(broken)
    with pytest.raises(HostError, match="(Invalid argument|No space left).*Settings and rules are as before"):
        go(host, ask(GPU, d3cold_allowed=False), nic("flr"))
    assert host.tree() == before and not host.exists("/var/lib/vfio-host")


def test_a_value_that_the_kernel_does_not_keep_is_a_failure(host, monkeypatch):
    monkeypatch.setattr(host, "kernel", lambda path, value: True)
    with pytest.raises(HostError, match="flr was written, and the kernel says flr pm bus"):
        go(host, nic("flr"))
    assert not host.exists(RULES) and not host.exists(RECORD)


def test_a_write_that_hangs_is_not_followed_by_another(host):
    host.hang.add(path_of(NIC["address"], "d3cold_allowed"))
    with pytest.raises(HostError, match="did not end.*but not .*:03:00.0/d3cold_allowed, .*/reset_method: run this"):
        go(host, ask(GPU, d3cold_allowed=False), nic("flr", d3cold_allowed=False))
    assert [path for path, dummy in host.writes].count(path_of(NIC["address"], "d3cold_allowed")) == 1
    assert host.setting(GPU["address"], "d3cold_allowed") == "1" and not host.exists(RULES)
    host.hang.clear()
    host.boot()
    go(host, state="absent")
    assert host.setting(NIC["address"]) == "flr pm bus" and not host.exists(RECORD)


STUCK = "0000:03:00.0: a write about it did not end in this boot.*power button"


@pytest.mark.parametrize("attribute, function", [("d3cold_allowed", nic("flr", d3cold_allowed=False)),
                                                 ("reset_method", nic("flr"))])
def test_what_hangs_is_not_written_again_in_this_boot(host, attribute, function):
    bare = host.tree()
    path = path_of(NIC["address"], attribute)
    host.hang.add(path)
    with pytest.raises(HostError, match="did not end.*but not .*run this again after the next boot"):
        go(host, ask(GPU, d3cold_allowed=False), function)
    assert host.setting(GPU["address"], "d3cold_allowed") == "1"
    host.writes.clear()
    refused(host, r"functions\[1\].address: " + STUCK, ask(GPU, d3cold_allowed=False), function)
    predicted = go(host, ask(GPU, d3cold_allowed=False), check=True)
    assert predicted == go(host, ask(GPU, d3cold_allowed=False)) and "run this again after it" in predicted["warnings"][0]
    assert not go(host, ask(GPU, d3cold_allowed=False))["changed"] and NIC["address"] not in host.read(RULES)
    assert go(host, state="absent")["changed"] and host.setting(GPU["address"], "d3cold_allowed") == "1"
    for check in (True, False):
        again = go(host, state="absent", check=check)
        assert not again["changed"] and again["warnings"] == predicted["warnings"]
    assert not [one for one in host.writes if one[0] == path] and host.exists(RECORD) and not host.exists(RULES)
    host.hang.clear()
    host.boot()
    assert go(host, state="absent")["warnings"] == []
    host.put("/proc/sys/kernel/random/boot_id", "boot 1\n")
    assert host.tree() == bare


def test_a_way_home_that_hangs_is_over_with_the_next_boot(host):
    go(host, nic("flr"), ask(GPU, d3cold_allowed=False))
    host.hang.add(path_of(NIC["address"], "reset_method"))
    with pytest.raises(HostError, match="did not end"):
        go(host, state="absent")
    assert host.exists(RULES) and host.setting(GPU["address"], "d3cold_allowed") == "0"
    host.writes.clear()
    assert go(host, state="absent")["changed"] and not host.exists(RULES)
    assert [path for path, dummy in host.writes] == [path_of(GPU["address"], "d3cold_allowed")]
    host.hang.clear()
    host.boot()
    assert go(host, state="absent")["warnings"] == [] and not host.exists(RECORD)
    assert host.setting(NIC["address"]) == "flr pm bus"


def test_a_write_that_hangs_while_it_is_put_back_is_not_repeated(host):
    """The first write of the failing run ends, the one that puts it back does not."""
    host.broken.add(path_of(NIC["address"], "reset_method"))
    write, back = host.write_sysfs, path_of(GPU["address"], "d3cold_allowed")

    def hangs_later(path, value, timeout=10.0):
        write(path, value, timeout)
        host.hang.add(back)

    host.write_sysfs = hangs_later
    with pytest.raises(HostError, match="but not .*/0000:01:00.0/d3cold_allowed: run this again after the next boot"):
        go(host, ask(GPU, d3cold_allowed=False), nic("flr"))
    host.write_sysfs = write
    host.broken.clear()
    host.writes.clear()
    refused(host, r"0000:01:00.0: a write about it did not end", ask(GPU, d3cold_allowed=False), nic("flr"))
    assert go(host, nic("flr"))["changed"] and back not in dict(host.writes)


def test_after_the_boot_a_function_that_hung_is_taken_again(host):
    host.hang.add(path_of(NIC["address"], "reset_method"))
    with pytest.raises(HostError):
        go(host, nic("flr"))
    host.hang.clear()
    host.boot()
    assert go(host, nic("flr"))["changed"] and "stuck" not in host.read(RECORD) and not go(host, nic("flr"))["changed"]


def test_what_could_not_be_put_back_is_in_the_record(host):
    host.broken.add(path_of(NIC["address"], "reset_method"))
    write = host.write_sysfs

    def breaks_later(path, value, timeout=10.0):
        write(path, value, timeout)
        host.broken.add(path_of(GPU["address"], "d3cold_allowed"))

    host.write_sysfs = breaks_later
    with pytest.raises(HostError, match="but not .*/0000:01:00.0/d3cold_allowed"):
        go(host, ask(GPU, d3cold_allowed=False), nic("flr"))
    host.write_sysfs = write
    host.broken.clear()
    assert go(host, state="absent")["changed"]
    assert host.setting(GPU["address"], "d3cold_allowed") == "1" and not host.exists(RECORD)


@pytest.mark.parametrize("way", ["finish", "home"])
@pytest.mark.parametrize("start, then", [
    ([], [nic("flr", d3cold_allowed=False), ask(GPU, d3cold_allowed=False)]),
    ([nic("flr"), ask(GPU, d3cold_allowed=False)], [nic("bus", "pm")]),
    ([nic("flr", d3cold_allowed=False)], []),
])
def test_killed_anywhere_the_next_run_finishes_it_or_takes_it_back(tmp_path, start, then, way):
    def fresh(number):
        found = SettingsHost(str(tmp_path / str(number)))
        bare = {path[len(found.root):]: text for path, text in found.tree().items()}
        go(found, *start)
        return found, bare

    straight, dummy = fresh(0)
    straight.changes = 0
    go(straight, *then)
    end = {path[len(straight.root):]: text for path, text in straight.tree().items()}
    assert straight.changes > 2
    for number in range(1, straight.changes + 1):
        host, bare = fresh(number)
        host.changes, host.kill_at = 0, number
        with pytest.raises(Killed):
            go(host, *then)
        host.kill_at = None
        if way == "finish":
            predicted = go(host, *then, check=True)
            assert go(host, *then)["changed"] is predicted["changed"]
            assert not go(host, *then)["changed"]
        else:
            go(host, state="absent")
        left = {path[len(host.root):]: text for path, text in host.tree().items()}
        assert left == (end if way == "finish" else bare), number


def test_what_somebody_has_set_since_stays(host):
    go(host, nic("flr"))
    host.kernel(path_of(NIC["address"], "reset_method"), "pm")
    result = go(host, state="absent")
    assert "somebody has set it to pm since" in result["warnings"][0]
    assert host.setting(NIC["address"]) == "pm" and not host.exists(RECORD) and not host.exists(RULES)


def test_the_rule_of_somebody_else_is_a_warning(host):
    host.put("/usr/lib/udev/rules.d/99-x.rules",
             '# ATTR{reset_method}="x"\nKERNEL=="*", \\\n  ATTR{reset_method}="pm"\nATTR{d3cold_allowed}=="1", NAME=""')
    assert [w for w in go(host, nic("flr", d3cold_allowed=False))["warnings"] if "99-x.rules sets reset_method" in w]
    assert len(go(host, nic("flr", d3cold_allowed=False))["warnings"]) == 1
    assert go(host, ask(NIC, d3cold_allowed=False))["warnings"] == []


@pytest.mark.parametrize("text", ["{}", "x", '{"schema": 2, "functions": {}}',
                                  '{"schema": 1, "functions": {"0000:03:00.0": {"vendor": "8086", "device": "10d3", '
                                  '"settings": {"reset_method": {"before": ["; rm"], "ours": [["flr"]]}}}}}'])
def test_a_record_that_cannot_be_read_refuses(host, text):
    host.put(RECORD, text)
    with pytest.raises(HostError, match=RECORD):
        go(host, state="absent")


def test_rules_without_a_record(host):
    go(host, nic("flr"))
    host.remove(RECORD)
    result = go(host, state="absent")
    assert "stay until the next boot" in result["warnings"][0] and not host.exists(RULES)
