# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs off USB controllers."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.tests.unit.usage.desks import KEYBOARD_BITS, XHCI, XHCI2, Found, machine, plug, typed

PS2 = "/devices/platform/i8042/serio0/input/input4"


def test_the_tree_of_each_controller(tmp_path):
    made = machine(tmp_path)
    plug(made, "1-1", XHCI, "05e3:0610", "Hub", (("09", "00", "01"),), "09")
    plug(made, "1-1.2", XHCI, "046d:c31c", "Keyboard K120", (("03", "01", "01"), ("03", "00", "00")))
    plug(made, "1-10", XHCI, "8087:0026", "", (("e0", "01", "01"),), "e0")
    plug(made, "2-1", XHCI2, "0781:5583", "Ultra Fit", (("08", "06", "50"),))
    found = Found(made)
    assert found.by_address[XHCI]["usb_devices"] == [
        {"path": "1-1", "id": "05e3:0610", "product": "Hub", "kinds": ["hub"], "port": "usb1-port1"},
        {"path": "1-1.2", "id": "046d:c31c", "product": "Keyboard K120", "kinds": ["keyboard"], "port": "usb1-port1"},
        {"path": "1-10", "id": "8087:0026", "product": None, "kinds": ["bluetooth"], "port": "usb1-port10"},
    ]
    assert [d["kinds"] for d in found.by_address[XHCI2]["usb_devices"]] == [["storage"]]
    assert found.by_address["0000:00:02.0"]["usb_devices"] is None


@pytest.mark.parametrize("codes, kind", [
    (("03", "01", "02"), "mouse"), (("03", "00", "00"), "other"), (("02", "06", "00"), "network"),
    (("02", "0d", "00"), "network"), (("02", "02", "01"), "other"), (("e0", "01", "03"), "network"),
    (("01", "01", "00"), "audio"), (("0e", "01", "00"), "video"), (("ff", "ff", "00"), "other"),
])
def test_kinds(tmp_path, codes, kind):
    made = machine(tmp_path)
    plug(made, "1-3", XHCI, interfaces=(codes,))
    assert Found(made).by_address[XHCI]["usb_devices"][0]["kinds"] == [kind]


def test_a_vendors_network_adapter_is_known_by_its_interface(tmp_path):
    made = machine(tmp_path)
    home = plug(made, "2-3", XHCI2, "0bda:8153", "USB 10/100/1000 LAN", (("ff", "ff", "00"),))
    made.folder(home + "/2-3:1.0/net/enx00")
    assert Found(made).by_address[XHCI2]["usb_devices"][0]["kinds"] == ["network"]


def test_the_only_keyboard_and_near_misses(tmp_path):
    made = machine(tmp_path)
    assert Found(made).of("VH207") == set()
    home = plug(made, "1-3", XHCI)
    typed(made, (home + "/1-3:1.0/0003:046D:C31C.0001/input/input5")[len("/sys"):])
    assert Found(made).of("VH207") == {(XHCI, "the only keyboard")}
    plug(made, "2-1", XHCI2)
    assert Found(made).of("VH207") == set()


def test_a_laptops_own_keyboard_is_another(tmp_path):
    made = machine(tmp_path)
    plug(made, "1-3", XHCI)
    typed(made, PS2)
    assert Found(made).of("VH207") == set()
    typed(made)  # the power button is none, nor is a mouse that has all keys and repeats none
    with open(made.outside("/proc/bus/input/devices"), "a") as handle:
        handle.write("\nS: Sysfs=%s\nB: EV=13\nB: %s\n" % (PS2, KEYBOARD_BITS))
    assert Found(made).of("VH207") == {(XHCI, "the only keyboard")}


def test_a_keyboard_that_does_not_say_so(tmp_path):
    made = machine(tmp_path)
    home = plug(made, "1-3", XHCI, interfaces=(("03", "00", "00"),))
    typed(made, (home + "/1-3:1.0/0003:1/input/input5")[len("/sys"):])
    found = Found(made)
    assert found.by_address[XHCI]["usb_devices"][0]["kinds"] == ["keyboard"]
    assert found.of("VH207") == {(XHCI, "the only keyboard")}


def test_a_bluetooth_keyboard_needs_the_adapters_controller(tmp_path):
    made = machine(tmp_path)
    home = plug(made, "1-10", XHCI, interfaces=(("e0", "01", "01"),))
    typed(made, (home + "/1-10:1.0/bluetooth/hci0/hci0:256/0005:1/input/input9")[len("/sys"):])
    found = Found(made)
    assert found.by_address[XHCI]["usb_devices"][0]["kinds"] == ["bluetooth"]
    assert found.of("VH207") == {(XHCI, "the only keyboard")}


def test_a_controller_without_a_bus_is_unknown(tmp_path):
    made = machine(tmp_path)
    (tmp_path / "sys/bus/usb/devices/usb2").unlink()
    found = Found(made)
    assert found.by_address[XHCI2]["usb_devices"] is None and found.by_address[XHCI]["usb_devices"] == []
    (tmp_path / "sys/bus/usb/devices/usb1").unlink()
    assert "/sys/bus/usb/devices" in Found(made).missing()
