# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identity carried over, and other people's parts of a domain kept."""

from __future__ import annotations

import copy

import guest_samples
import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import canonical as form
from ansible_collections.vfio.host.plugins.module_utils._guest.merge import carry_over, merge
from test_guest_canonical import recorded, wanted


def merged(raw, actual):
    mine = carry_over(wanted(raw), actual)
    domain = merge(mine, actual)
    # whatever libvirt fills in on top, our own part of the result must be right
    assert form.differences(mine, domain) == []
    return domain


def buses(domain):
    hostdevs = domain.findall("devices/hostdev")
    return {form.source_address(hostdev): hostdev.find("address").get("bus") for hostdev in hostdevs}


@pytest.mark.parametrize("name", sorted(guest_samples.ALL))
def test_merging_the_same_changes_nothing(name):
    actual = recorded(name)
    assert form.render(merged(guest_samples.ALL[name](), actual)) == form.render(actual)


def adopted():
    return {
        "name": "adopted",
        "memory": "1GiB",
        "vcpus": 2,
        "display": "vnc",
        "disks": [{"path": "/srv/new.raw"}],
        "network": "br0",
        "devices": [{"name": "gpu", "functions": guest_samples.functions("0000:01:00.0", "0000:01:00.1")}],
    }


def test_a_domain_of_somebody_else_keeps_its_identity_and_its_other_parts():
    actual = recorded("foreign")
    domain = merged(adopted(), actual)
    text = form.render(domain)
    assert domain.findtext("uuid") == actual.findtext("uuid")
    assert domain.find("os/type").get("machine") == "pc-q35-7.2"
    assert [card.find("mac").get("address") for card in domain.findall("devices/interface")] == ["52:54:00:aa:bb:cc"]
    for kept in ("<hugepages />", "libosinfo:os", "qemu:arg", "<rng ", 'passwd="hush"'):
        assert kept in text
    for gone in ("cdrom'", "/srv/sata.raw", "0xc21f", "qemu64", 'current="1"', "cirrus", 'match="exact"', "old.qcow2", "0.0.0.0"):
        assert gone not in text
    # both functions come together at the bus of the one that was found first
    assert buses(domain) == {"0000:01:00.0": "0x05", "0000:01:00.1": "0x05"}
    disk = domain.find("devices/disk")
    assert disk.find("address").get("bus") == "0x04"


def test_addresses_of_another_machine_type_are_dropped():
    domain = merged(adopted(), recorded("foreign_i440fx"))
    assert domain.find("os/type").get("machine") == "q35"
    assert [item.get("model") for item in domain.findall("devices/controller")] == ["pcie-root-port"]
    assert domain.find("devices/rng") is not None
    placed = [item.tag for item in domain.find("devices") if item.find("address") is not None]
    assert set(placed) == {"hostdev"}


def test_devices_stay_in_their_slots_when_the_list_is_reordered():
    raw = guest_samples.devices()
    before = buses(recorded("devices"))
    raw["devices"].reverse()
    assert buses(merged(raw, recorded("devices"))) == before


def test_a_device_keeps_its_guest_slot_when_the_card_moved_on_the_host():
    raw = guest_samples.devices()
    raw["devices"][0]["functions"] = guest_samples.functions("0000:05:00.0", "0000:05:00.1")
    assert buses(merged(raw, recorded("devices"))) == {
        "0000:05:00.0": "0x01",
        "0000:05:00.1": "0x01",
        "0000:03:00.2": "0x02",
    }


def test_a_new_device_takes_a_free_root_port_before_a_new_one():
    # libvirt gave buses 3 to 6 to its own devices; 7 is new, and it is free once it is there
    raw = guest_samples.devices()
    raw["devices"].insert(0, {"name": "third", "functions": guest_samples.functions("0000:06:00.0")})
    domain = merged(raw, recorded("devices"))
    assert buses(domain)["0000:06:00.0"] == "0x07"
    assert domain.find("devices/controller[@index='7']") is not None
    without = copy.deepcopy(domain)
    for hostdev in without.findall("devices/hostdev"):
        if form.source_address(hostdev) == "0000:06:00.0":
            without.find("devices").remove(hostdev)
    raw["devices"][0]["functions"] = guest_samples.functions("0000:07:00.0")
    assert buses(merged(raw, without))["0000:07:00.0"] == "0x07"


def test_a_bus_with_a_stranger_on_it_is_not_taken():
    actual = recorded("devices")
    actual.find("devices/disk/address").set("bus", "0x02")
    assert buses(merged(guest_samples.devices(), actual))["0000:03:00.2"] == "0x05"  # free now


def test_the_bus_of_a_usb_device_is_no_pci_bus():
    actual = recorded("devices")
    keyboard = actual.find("devices/input")
    keyboard.append(form.parse("<address type='usb' bus='1' port='1'/>"))
    assert buses(merged(guest_samples.devices(), actual)) == buses(recorded("devices"))


def test_a_drive_address_is_no_place_for_a_virtio_disk():
    actual = recorded("foreign")
    address = actual.find("devices/disk/address")
    address.attrib.clear()
    address.attrib.update(type="drive", controller="0", bus="0x00", target="0", unit="0")
    assert merged(adopted(), actual).find("devices/disk/address") is None


def test_a_changed_serial_port_takes_its_mirror_with_it():
    domain = merged(dict(guest_samples.kernel(), serial_log=None), recorded("kernel"))
    assert domain.find("devices/console") is None
    assert merged(guest_samples.kernel(), recorded("kernel")).find("devices/console") is not None


def test_inputs_are_not_changed():
    actual, mine = recorded("foreign"), wanted(adopted())
    before = form.render(actual), form.render(mine)
    merge(carry_over(mine, actual), actual)
    assert (form.render(actual), form.render(mine)) == before
