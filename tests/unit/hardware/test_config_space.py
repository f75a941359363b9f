# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration space, from bytes."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import config_space as build


@pytest.mark.parametrize("number, name", sorted(config_space.PORT_TYPES.items()) + [(2, "unknown")])
def test_port_types(number, name):
    assert config_space.describe(build(0x8086, 1, 0x060400, express=number))["port_type"] == name


def test_acs_serial_and_flr_are_read():
    more = {"acs": (0x1F, 0x1D), "dsn": 0x525400FFFF123456, "flr": True, "msi": True, "ats": True}
    found = config_space.describe(build(0x8086, 0x10D3, 0x020000, express=0, **more))
    assert found["serial"] == "52-54-00-ff-ff-12-34-56"
    assert found["capabilities"]["acs"] == {"capability": 0x1F, "control": 0x1D}
    flags = ("complete", "flr", "af_flr", "msi", "msix", "ats")
    assert [found["capabilities"][name] for name in flags] == [True, True, False, True, False, True]


def test_sriov_counts():
    found = config_space.describe(build(0x8086, 1, 0x020000, express=0, total_vfs=7))
    assert found["capabilities"]["sriov"] == {
        "total_vfs": 7, "num_vfs": 3, "offset": 0x80, "stride": 2, "vf_device": "10ca"}


def test_link_resizable_bars_soft_reset_and_bus_numbers():
    found = config_space.describe(build(0x10DE, 1, 0x030000, express=0, link=(3, 8, 4, 16), no_soft_reset=True,
                                        rebar=[(0, 4, [4]), (1, 8, [6, 8, 13])]))
    assert found["link"] == {"speed": 8.0, "width": 8, "max_speed": 16.0, "max_width": 16}
    assert found["resizable_bars"] == [
        {"bar": 0, "size": 1 << 24, "sizes": [1 << 24]},
        {"bar": 1, "size": 1 << 28, "sizes": [1 << 26, 1 << 28, 1 << 33]}]
    assert found["capabilities"]["no_soft_reset"] is True
    assert config_space.describe(build(0x10DE, 1, 0x030000, express=9))["link"] is None
    bridge = config_space.describe(build(0x8086, 1, 0x060400, bridge=True, express=4, buses=(3, 5)))
    assert bridge["bus"] == {"secondary": 3, "subordinate": 5}


def test_intels_double_word_acs_registers():
    wide = {"express": 4, "acs": (0x1F, 0x1D), "wide_acs": True}
    assert config_space.describe(build(0x8086, 0xA110, 0x060400, **wide))["capabilities"]["acs"]["control"] == 0x1D
    assert config_space.describe(build(0x8086, 0xA330, 0x060400, **wide))["capabilities"]["acs"]["control"] == 0


def test_zeros_that_an_archiver_added_are_no_capabilities():
    data = build(0x8086, 1, 0x060400, bridge=True, express=4, acs=(1, 1))
    padded = config_space.trim(data[:64] + bytes(4032))
    assert len(padded) == 64 and config_space.describe(padded)["capabilities"] is None
    assert config_space.trim(data) == data
    plain = build(0x8086, 1, 0x060000, size=256)  # announces no list: nothing was lost
    assert config_space.trim(plain) == plain


def rom(*kinds):
    """Images of 512 bytes: their code types."""
    data = b""
    for number, kind in enumerate(kinds):
        image = bytearray(512)
        image[0:2], image[0x18:0x1A] = b"\x55\xaa", b"\x1c\x00"
        image[0x1C:0x20], image[0x2C], image[0x30] = b"PCIR", 1, kind
        image[0x31] = 0x80 if number == len(kinds) - 1 else 0
        data += bytes(image)
    return data


@pytest.mark.parametrize("data, kinds", [
    (rom(0), ["legacy"]), (rom(0, 3), ["legacy", "efi"]), (rom(3), ["efi"]), (rom(1), ["other"]), (b"", []),
    (b"\xff" * 512, []), (rom(0)[:0x1a], []), (rom(0, 3)[:520], ["legacy"]), (rom(0)[:0x18] + b"\xff\xff" + rom(0)[0x1a:], []),
])
def test_images_of_an_expansion_rom(data, kinds):
    assert [image["kind"] for image in config_space.rom_images(data)] == kinds
    assert all(image["size"] == 512 for image in config_space.rom_images(data))


def test_conventional_with_advanced_features():
    found = config_space.describe(build(0x8086, 1, 0x020000, af_flr=True, size=256))
    assert found["port_type"] == "conventional"
    assert found["capabilities"]["af_flr"] and found["capabilities"]["complete"]


def test_the_64_bytes_of_a_plain_user_are_unknown_not_absent():
    found = config_space.describe(build(0x8086, 1, 0x060400, bridge=True, express=4, acs=(1, 1))[:64])
    assert found == dict(config_space.BLANK, is_bridge=True, multifunction=False, bus={"secondary": 0, "subordinate": 0})


def test_without_extended_space_the_capabilities_are_incomplete():
    found = config_space.describe(build(0x8086, 1, 0x060400, express=4, acs=(1, 1))[:256])
    assert found["port_type"] == "root_port"
    assert found["capabilities"]["complete"] is False


def test_all_ones_is_unreadable():
    assert config_space.describe(b"\xff" * 4096)["capabilities"] is None
    assert config_space.describe(None)["port_type"] == "unknown"


def test_a_virtual_function_has_ids_of_all_ones_and_is_readable():
    data = bytearray(build(0xFFFF, 0xFFFF, 0x020000, express=0, flr=True))
    assert config_space.describe(bytes(data))["capabilities"]["flr"] is True


@pytest.mark.parametrize("value", [0, 0xFFFFFFFFFFFFFFFF])
def test_a_serial_number_that_tells_nothing_is_none(value):
    assert config_space.describe(build(0x8086, 1, 0x020000, express=0, dsn=value))["serial"] is None


def test_loops_in_both_lists_end():
    data = bytearray(build(0x8086, 1, 0x020000, express=0, msi=True, dsn=1, acs=(1, 1)))
    data[0x61] = 0x40  # the second capability points back at the first
    data[0x143] = 0x10  # and so does the second extended one
    found = config_space.describe(bytes(data))
    assert found["capabilities"]["msi"] and found["capabilities"]["acs"]


def test_a_list_cut_short_does_not_raise():
    data = build(0x8086, 1, 0x020000, express=0, dsn=1, acs=(1, 1), total_vfs=4)
    serials = {config_space.describe(data[:size])["serial"] for size in range(64, 512)}
    assert serials == {None, "00-00-00-00-00-00-00-01"}
