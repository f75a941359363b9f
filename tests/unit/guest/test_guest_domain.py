# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted XML: escaping, placement of functions, identity."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import guest_samples
import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import domain, identity, spec


def build(raw):
    return domain.build(spec.normalise([raw])[0], guest_samples.MACHINE_ID)


def places(tree):
    return [
        tuple(hostdev.find("address").get(key) for key in ("bus", "slot", "function", "multifunction"))
        for hostdev in tree.findall("devices/hostdev")
    ]


def test_what_users_write_never_becomes_markup():
    raw = dict(guest_samples.kernel(), name="a&amp;<name>]]>", cmdline="x=\"1\" y='2' <&>", kernel="/k&<>")
    again = ET.fromstring(ET.tostring(build(raw)))
    assert again.findtext("name") == raw["name"]
    assert again.findtext("os/cmdline") == raw["cmdline"]
    assert again.findtext("os/kernel") == raw["kernel"]
    assert len(again.findall("name")) == 1


def test_functions_of_a_slot_stay_in_one_slot_behind_an_own_root_port():
    tree = build(guest_samples.devices())
    assert places(tree) == [
        ("0x01", "0x00", "0x0", "on"),
        ("0x01", "0x00", "0x1", None),
        ("0x02", "0x00", "0x0", None),  # host function 2 alone: function 0 must be there
    ]
    ports = [(item.get("index"), item.get("model")) for item in tree.findall("devices/controller")]
    assert ports == [("1", "pcie-root-port"), ("2", "pcie-root-port")]
    assert {item.get("managed") for item in tree.findall("devices/hostdev")} == {"no"}


@pytest.mark.parametrize(
    ("addresses", "numbers"),
    [
        (["0000:01:00.0", "0000:01:00.3"], [0, 3]),
        (["0000:01:00.1", "0000:01:00.3"], [0, 1]),
        (["0000:01:00.0", "0000:02:00.0"], [0, 1]),
    ],
)
def test_guest_function_numbers(addresses, numbers):
    assert domain.guest_functions(addresses) == numbers


def test_disk_names():
    assert [domain.disk_target(index) for index in (0, 25, 26, 27, 702)] == ["vda", "vdz", "vdaa", "vdab", "vdaaa"]


def test_aliases_hold_only_what_libvirt_takes_and_stay_different():
    assert domain.device_alias("gaming_gpu", 1) == "ua-gaming_gpu-1"
    odd = {domain.device_alias(name, 0) for name in ("a b", "a/b", "a_b")}
    assert len(odd) == 3
    assert not any(set(" /") & set(alias) for alias in odd)


def test_memory_is_pinned_memory():
    tree = build(guest_samples.devices())
    assert tree.findtext("memory") == tree.findtext("currentMemory") == "262144"
    assert tree.find("devices/memballoon").get("model") == "none"


def test_displays():
    assert build(guest_samples.kernel()).find("devices/graphics") is None
    assert build(guest_samples.kernel()).find("devices/video/model").get("type") == "none"
    graphics = build(guest_samples.vnc()).find("devices/graphics")
    assert graphics.get("listen") == graphics.find("listen").get("address") == "127.0.0.1"


def test_identity_depends_on_host_and_name_alone():
    one = identity.guest_uuid("m1", "a"), identity.guest_mac("m1", "a", 0)
    assert one == (identity.guest_uuid("m1", "a"), identity.guest_mac("m1", "a", 0))
    assert one == ("9491f39a-c99a-50ec-b85a-bdaa487f7cd0", "52:54:00:34:e2:43")
    others = [("m2", "a", 0), ("m1", "b", 0)]
    assert not {identity.guest_uuid(*other[:2]) for other in others} & {one[0]}
    assert not {identity.guest_mac(*other) for other in [*others, ("m1", "a", 1)]} & {one[1]}
