# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which display the host boots on, and which ones show a graphical session."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._usage import display
from ansible_collections.vfio.host.tests.unit.usage.desks import GPU, IGPU, Found, machine, opens, session


@pytest.mark.parametrize("functions, used, unknown", [
    ([("vga", True), ("vga", False)], [0], []),
    ([("vga", None)], [0], []),
    ([("vga", None), ("3d", None), ("usb", None)], [0], []),
    ([("vga", None), ("display", None)], [], ["display"]),
    ([("vga", False), ("vga", False)], [], ["display"]),
    ([("3d", None), ("usb", None)], [], []),
])
def test_boot_display(functions, used, unknown):
    given = [
        {"address": "0000:0%d:00.0" % number, "class_name": name, "boot_vga": boot}
        for number, (name, boot) in enumerate(functions)
    ]
    uses, unknowns = display.use(given)
    assert [use["function"] for use in uses] == [given[number]["address"] for number in used]
    assert [entry["kind"] for entry in unknowns] == unknown
    assert {use["finding"] for use in uses} <= {"VH203"}


def shown(made):
    return {address for address, dummy in Found(made).of("VH209")}


def test_a_wayland_session_is_on_the_card_with_the_monitor(tmp_path):
    made = machine(tmp_path)
    opens(made, 700, "gnome-shell", "/dev/dri/card0", "/dev/dri/card1")
    assert shown(made) == set()
    session(made, "2")
    assert Found(made).of("VH209") == {(IGPU, "graphical session of alice")}
    made.write(made.homes[GPU] + "/drm/card1/card1-DP-1/status", "connected\n")
    assert shown(made) == {IGPU, GPU}
    opens(made, 700, "gnome-shell")
    (tmp_path / "proc/700/fd/1").unlink()  # it no longer has the second card
    assert shown(made) == {IGPU}


@pytest.mark.parametrize("values", [
    {"TYPE": "tty"}, {"ACTIVE": "0"}, {"REMOTE": "1"}, {"SEAT": ""},
])
def test_other_sessions_show_nothing(tmp_path, values):
    made = machine(tmp_path)
    opens(made, 700, "gnome-shell", "/dev/dri/card0")
    session(made, "2", **values)
    assert shown(made) == set() and Found(made).unknowns == []


def test_a_session_without_known_cards(tmp_path):
    given = [{"address": address, "class_name": "vga", "boot_vga": boot, "holders": None}
             for address, boot in (("0000:01:00.0", False), ("0000:02:00.0", True))]
    x11 = {"id": "2", "user": None, "type": "x11", "seat": "seat0", "active": True, "remote": False}
    uses, unknowns = display.use(given, None, [x11], {})
    assert [use["function"] for use in uses if use["finding"] == "VH209"] == ["0000:02:00.0"] and unknowns == []
    given[1]["boot_vga"] = None
    uses, unknowns = display.use(given, None, [x11], {})
    assert uses == [] and [entry["input"] for entry in unknowns] == ["boot display", "graphical session of somebody"]
    cards = {"card0": {"function": "0000:01:00.0", "connected": ["DP-1"]},
             "card1": {"function": "0000:02:00.0", "connected": []}}
    uses, unknowns = display.use(given, None, [x11], cards)
    assert [use["function"] for use in uses] == ["0000:01:00.0"]


def test_the_framebuffers_owner_is_a_boot_display(tmp_path):
    given = [{"address": address, "class_name": name, "boot_vga": boot, "holders": []}
             for address, name, boot in (("0000:01:00.0", "display", None), ("0000:02:00.0", "vga", True))]
    held = {"name": "efifb", "start": 1, "end": 2, "function": "0000:01:00.0"}
    uses = display.use(given, held)[0]
    assert [(use["function"], use["chain"][1]) for use in uses] == [
        ("0000:01:00.0", "framebuffer efifb"), ("0000:02:00.0", "boot_vga")]
    assert [use["function"] for use in display.use(given, dict(held, function=None))[0]] == ["0000:02:00.0"]


def test_the_firmwares_display_is_one_although_its_own_driver_has_ended_the_framebuffer():
    given = [{"address": address, "class_name": name, "boot_vga": boot, "holders": []}
             for address, name, boot in (("0000:01:00.0", "display", None), ("0000:02:00.0", "vga", True))]
    uses = display.use(given, None, firmware="0000:01:00.0")[0]
    assert [(use["function"], use["chain"][1]) for use in uses] == [
        ("0000:01:00.0", "the firmware's framebuffer at the start"), ("0000:02:00.0", "boot_vga")]
    uses = display.use(given, None, firmware="0000:02:00.0")[0]
    assert [(use["function"], use["chain"][1]) for use in uses] == [("0000:02:00.0", "boot_vga")]


def test_a_session_on_the_firmwares_framebuffer():
    given = [{"address": "0000:01:00.0", "class_name": "vga", "boot_vga": True,
              "holders": [{"pid": 7, "command": "sway", "node": "/dev/dri/card0"}]}]
    wayland = {"id": "2", "user": "bob", "type": "wayland", "seat": "seat0", "active": True, "remote": False}
    held = {"name": "simpledrm", "start": 1, "end": 2, "function": "0000:01:00.0"}
    uses = display.use(given, held, [wayland], {"card0": {"function": None, "connected": ["Unknown-1"]}})[0]
    assert uses[1]["chain"] == ["graphical session of bob", "card0", "0000:01:00.0"]
