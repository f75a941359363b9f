# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Consoles, sessions and the firmware's framebuffer."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._usage import console
from ansible_collections.vfio.host.tests.unit.usage.desks import GPU, IGPU, Found, machine, node, session

CONSOLES = """tty0                 -WU (EC  p  )    4:7
ttyS0                -W- (EC  p a)    4:64
netcon0              -W- (E      )
hvc0                 -W- (E  p   )  229:0
pstore-1             -W- (E    a )
ttyS1                -W- (   p   )    4:65
"""
IOMEM = """00000000-00000fff : Reserved
d0000000-dfffffff : PCI Bus 0000:00
  d0000000-d0ffffff : %s
    d0000000-d07e8fff : BOOTFB
      d0000000-d07e8fff : simpledrm
  df000000-dfffffff : 0000:01:00.0
fee00000-fee00fff : Local APIC
"""


def test_consoles_that_the_kernel_writes_to():
    assert [(c["name"], c["kind"]) for c in console.parse_consoles(CONSOLES)] == [
        ("tty0", "screen"), ("ttyS0", "serial"), ("netcon0", "network"), ("hvc0", "virtual"), ("pstore-1", "other")]


def test_consoles_of_a_tree_whose_proc_is_empty(tmp_path):
    made = machine(tmp_path)
    made.write("/proc/consoles", "")
    assert "/proc/consoles" in Found(made).missing()
    made.write("/sys/class/tty/console/active", "tty0 ttyS0\n")
    found = Found(made)
    assert [c["kind"] for c in found.console["consoles"]] == ["screen", "serial"]
    assert "/proc/consoles" not in found.missing()


def test_a_serial_console_on_a_card_is_a_use(tmp_path):
    made = machine(tmp_path)
    made.write("/proc/consoles", "ttyS4 -W- (EC p a) 4:68\n")
    node(made, "4:68", GPU, "tty/ttyS4", "ttyS4")  # any function will do
    made.link("/sys/class/tty/ttyS4", made.homes[GPU] + "/tty/ttyS4")
    assert Found(made).of("VH200") == {(GPU, "serial console")}
    made.write("/proc/consoles", "ttyS0 -W- (EC p a) 4:64\n")
    made.folder("/sys/devices/pnp0/00:04/tty/ttyS0")
    made.link("/sys/class/tty/ttyS0", "/sys/devices/pnp0/00:04/tty/ttyS0")
    assert Found(made).of("VH200") == set()


def test_sessions(tmp_path):
    made = machine(tmp_path)
    session(made, "2")
    session(made, "c1", USER="gdm", TYPE="x11", ACTIVE="0", REMOTE="1", SEAT="")
    made.write("/run/systemd/sessions/7", b"\xff\xfe=\0\nACTIVE=yes\n")
    made.write("/run/systemd/sessions/2.ref", "")
    found = Found(made).console["sessions"]
    assert found[1] == {"id": "7", "user": None, "type": None, "seat": None, "active": None, "remote": None}
    assert found[0] == {"id": "2", "user": "alice", "type": "wayland", "seat": "seat0", "active": True, "remote": False}
    assert found[2] == {"id": "c1", "user": "gdm", "type": "x11", "seat": None, "active": False, "remote": True}
    assert len(found) == 3


@pytest.mark.parametrize("text, expected", [
    (IOMEM % IGPU, ("simpledrm", IGPU)),
    ("f0001000-f0001fff : efifb\n", ("efifb", IGPU)),  # by its BAR: every fake one is there, the first function wins
    ("e0000000-e07fffff : efifb\n", ("efifb", None)),
    (IOMEM.replace("BOOTFB", "i915").replace("simpledrm", "i915") % IGPU, None),
    ("000a0000-000bffff : Video RAM area\n", None),
])
def test_the_firmwares_framebuffer(tmp_path, text, expected):
    made = machine(tmp_path)
    made.write("/proc/iomem", text)
    found = Found(made)
    made_of = found.console["framebuffer"]
    if expected and expected[1] and "BOOTFB" not in text:
        expected = (expected[0], found.functions[0]["address"])
    assert (made_of and (made_of["name"], made_of["function"])) == expected
    assert "/proc/iomem" not in found.missing()


def screen(kind, base, wide=False):
    """The first bytes of struct boot_params."""
    params = bytearray(0x40)
    params[0x0F] = kind
    params[0x18:0x1C] = (base & 0xFFFFFFFF).to_bytes(4, "little")
    params[0x36:0x3A] = (2 if wide else 0).to_bytes(4, "little")
    params[0x3A:0x3E] = (base >> 32).to_bytes(4, "little")
    return bytes(params)


@pytest.mark.parametrize("params, expected", [
    (screen(console.VIDEO_EFI, 0xC3000000), 0xC3000000),
    (screen(console.VIDEO_VLFB, 0xE0000000), 0xE0000000),
    (screen(console.VIDEO_EFI, 0x4000000000, wide=True), 0x4000000000),
    (screen(console.VIDEO_EFI, 0x40C3000000), 0xC3000000),  # without the flag the upper half is none
    (screen(0x01, 0xC3000000), None),  # a text screen
    (screen(console.VIDEO_EFI, 0), None),
    (screen(console.VIDEO_EFI, 0xC3000000)[:0x20], None),
    (b"", None),
])
def test_the_screen_that_the_firmware_has_set_up(params, expected):
    assert console.screen_base(params) == expected


def test_the_firmwares_screen_is_on_the_function_in_whose_bar_it_lies(tmp_path):
    made = machine(tmp_path)
    made.write("/sys/kernel/boot_params/data", screen(console.VIDEO_EFI, 0xF0001000))
    found = Found(made)
    assert found.console["firmware"] == found.functions[0]["address"]
    made.write("/sys/kernel/boot_params/data", screen(console.VIDEO_EFI, 0xE0000000))
    assert Found(made).console["firmware"] is None


@pytest.mark.parametrize("text", [None, "", "00000000-00000000 : Reserved\n  00000000-00000000 : BOOTFB\n"])
def test_addresses_that_are_hidden_are_unknown(tmp_path, text):
    made = machine(tmp_path)
    if text is not None:
        made.write("/proc/iomem", text)
    found = Found(made)
    assert found.console["framebuffer"] is None and "/proc/iomem" in found.missing()
