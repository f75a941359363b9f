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
    assert found["capabilities"]["sriov"] == {"total_vfs": 7, "num_vfs": 3}


def test_conventional_with_advanced_features():
    found = config_space.describe(build(0x8086, 1, 0x020000, af_flr=True, size=256))
    assert found["port_type"] == "conventional"
    assert found["capabilities"]["af_flr"] and found["capabilities"]["complete"]


def test_the_64_bytes_of_a_plain_user_are_unknown_not_absent():
    found = config_space.describe(build(0x8086, 1, 0x060400, bridge=True, express=4, acs=(1, 1))[:64])
    assert found == {
        "port_type": "unknown", "is_bridge": True, "multifunction": False, "serial": None, "capabilities": None,
    }


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
