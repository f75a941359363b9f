# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import yaml

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import normalise, sort_key
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import select
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.machines import P8H67, at, build, p8h67_on

TWINS = P8H67 + """
07:00.0 endpoint 10de:1380 vga < 00:1c.5 multi
07:00.1 endpoint 10de:0fbc audio < 00:1c.5 multi
"""


def chosen(machine, **spec):
    spec.setdefault("name", "gpu")
    return [f["address"][5:] for f in select(machine, spec, matching)]


def error(machine, **spec):
    with pytest.raises(ValueError) as caught:
        chosen(machine, **spec)
    return str(caught.value)


@pytest.mark.parametrize("selector", [
    {"address": "01:00.0"},
    {"address": "0000:01:00.1"},
    {"address": "0000:01:00"},
    {"address": "01:00"},
    {"address": " 0000:01:00.0 "},
    {"id": "10de:1380"},
    {"id": "10DE:1380"},
    {"slot": "01:00"},
    {"serial": "52-54-00-FF-FF-12-34-56"},
    {"serial": "52:54:00:ff:ff:12:34:56"},
    {"behind": "00:01.0"},
    {"match": "vendor == '10de' && class_name == 'vga'"},
    {"match": "capabilities.msi && starts_with(address, '0000:01')"},
])
def test_the_whole_slot_is_the_default(selector):
    machine = p8h67_on()
    at(machine, "01:00.0")["serial"] = "52-54-00-ff-ff-12-34-56"
    assert chosen(machine, **selector) == ["01:00.0", "01:00.1"]


def test_listed_takes_only_what_matched():
    machine = p8h67_on()
    assert chosen(machine, address="01:00.0", functions="listed") == ["01:00.0"]
    assert chosen(machine, address="01:00", functions="listed") == ["01:00.0", "01:00.1"]
    assert chosen(machine, match="vendor == '1002' && class_name == 'audio'", functions="listed") == ["02:00.1"]


def test_a_twin_is_ambiguous_and_both_are_shown():
    message = error(build(TWINS), id="10de:1380")
    assert message.startswith("device gpu: id '10de:1380' selects 2 devices, wanted 1")
    assert "count: 2" in message
    assert "0000:01:00.0  10de:1380  vga" in message and "0000:07:00.0  10de:1380  vga" in message
    assert "0000:02:00.0" not in message


def test_count_takes_twins():
    assert chosen(build(TWINS), id="10de:1380", count=2) == ["01:00.0", "01:00.1", "07:00.0", "07:00.1"]
    assert "selects 2 devices, wanted 3" in error(build(TWINS), id="10de:1380", count=3)


def test_no_match_shows_endpoints_with_their_groups():
    machine = p8h67_on()
    at(machine, "00:1f.2")["driver"] = "ahci"
    message = error(machine, match="vendor == 'dead'")
    assert "selects 0 devices" in message
    row = next(line for line in message.splitlines() if line.startswith("  0000:00:1f.2"))
    assert row.split() == ["0000:00:1f.2", "8086:1c02", "sata", "ahci", "0000:00:1f.0", "0000:00:1f.3"]
    assert "0000:00:1c.0 " not in message  # a bridge is no candidate
    at(machine, "00:1f.2")["group_members"] = []
    assert "no group" in error(machine, address="09:00.0")


def test_a_long_table_is_cut():
    machine = build("\n".join("%02x:00.0 endpoint 8086:10d3 ethernet" % bus for bus in range(60)))
    message = error(machine, id="dead:beef")
    assert message.endswith("... and 20 more")


@pytest.mark.parametrize("spec, words", [
    ({"adress": "01:00.0"}, ["device gpu", "unknown key adress", "address", "count"]),
    ({}, ["device gpu", "exactly one of", "none"]),
    ({"address": "01:00.0", "id": "10de:1380"}, ["device gpu", "address and id"]),
    ({"address": "1:0"}, ["device gpu, address", "'1:0'", "0000:01:00.0"]),
    ({"address": "01:00.8"}, ["is not a PCI address"]),
    ({"address": "01:20.0"}, ["is not a PCI address"]),
    ({"id": "10de"}, ["device gpu, id", "10de:1380"]),
    ({"match": 3}, ["device gpu, match", "quotes"]),
    ({"match": "vendor = '10de'"}, ["device gpu, match", "JMESPath"]),
    ({"match": "vendr == '10de'"}, ["device gpu, match", "names vendr", "vendor"]),
    ({"match": "a || vendor.b == 'c' || contains(addresses, '1')"}, ["names a, addresses"]),
    ({"match": "starts_with(irq, '1')"}, ["device gpu, match", "JMESPath"]),
    ({"match": "vendor == '10de'] | [0"}, ["device gpu, match", "JMESPath"]),
    ({"match": "contains(id, `10`)"}, ["device gpu, match", "contains(id, `10`)", "JMESPath", "not int", "vendor == '10de'"]),
    ({"match": ""}, ["device gpu, match"]),
    ({"address": "01:00.0", "functions": "some"}, ["device gpu", "functions is 'some'", "all or listed"]),
    ({"address": "01:00.0", "count": "2"}, ["device gpu", "count is '2'"]),
    ({"address": "01:00.0", "count": True}, ["count is True"]),
    ({"address": "01:00.0", "count": 0}, ["count is 0"]),
    ({"address": "01:00.0", "name": ""}, ["has no name"]),
    ({"address": "01:00.0", "driver": "nouveau"}, ["device gpu", "driver is 'nouveau'", "vfio-pci", "mlx5_vfio_pci", "best"]),
    ({"address": "01:00.0", "driver": 5}, ["device gpu", "driver is 5"]),
])
def test_bad_entries_are_named(spec, words):
    message = error(p8h67_on(), **spec)
    for word in words:
        assert word in message


def test_an_entry_that_is_no_mapping():
    with pytest.raises(ValueError, match="must be a mapping"):
        select(p8h67_on(), "gpu", matching)


def test_an_unquoted_address_says_to_quote_it():
    spec = yaml.safe_load("{name: gpu, address: 01:00.0}")
    assert spec["address"] == 60.0  # the trap of YAML 1.1
    assert "quotes" in error(p8h67_on(), **spec)


@pytest.mark.parametrize("machine", [None, [], {}, {"schema": 3, "functions": []}, {"schema": 1}])
def test_a_document_that_is_none(machine):
    with pytest.raises(ValueError, match="schema 2"):
        select(machine, {"name": "gpu", "address": "01:00.0"}, matching)


def test_addresses():
    assert normalise("10000:E1:00.0", "here") == "10000:e1:00.0"
    order = ["0000:00:1f.3", "0000:0a:00.0", "0001:00:00.0", "10000:00:00.0"]
    assert sorted(reversed(order), key=sort_key) == order


def test_a_serial_number_tells_twins_apart():
    machine = build(TWINS)
    at(machine, "07:00.0")["serial"] = "00-00-00-00-00-00-00-07"
    assert chosen(machine, serial="00-00-00-00-00-00-00-07") == ["07:00.0", "07:00.1"]
    assert "serial 'aa-" in error(machine, serial="aa-00-00-00-00-00-00-07")


def test_behind_a_port_is_everything_below_it_but_bridges():
    machine = p8h67_on()
    assert chosen(machine, behind="00:1c.7") == ["06:00.0"]
    assert "is no bridge of this machine" in error(machine, behind="06:00.0")
    assert "nothing on this machine matches" in error(build(P8H67.replace("06:00.0 conventional 1102:0002 audio < 05:00.0", "")),
                                                      behind="00:1c.7")


USB = [{"path": "1-2.1", "id": "046d:c52b", "product": "Receiver", "kinds": ["keyboard"], "port": "usb1-port2"}]


@pytest.mark.parametrize("value", ["1-2.1", "usb1-port2", "046d:c52b", "046D:C52B"])
def test_the_controller_of_a_usb_port(value):
    machine = p8h67_on()
    at(machine, "03:00.0")["usb_devices"] = USB
    assert chosen(machine, usb_of=value) == ["03:00.0"]
    assert "nothing on this machine matches" in error(machine, usb_of="2-1")


@pytest.mark.parametrize("spec, word", [
    ({"slot": "01:00.0"}, "is a function; write its slot, 0000:01:00"),
    ({"serial": "123"}, "'123' is not a serial number"),
    ({"usb_of": "left front"}, "'left front' is no USB port; write 1-3"),
    ({"behind": "somewhere"}, "'somewhere' is not a PCI address"),
    ({"id": "10de:1380", "exclude": "01:00.0"}, "exclude is '01:00.0'; it is a list"),
    ({"id": "10de:1380", "exclude": ["0a:00.0"]}, "exclude: 0a:00.0 is nothing on this machine"),
    ({"id": "10de:1380", "exclude": [7]}, "7 is not text"),
])
def test_a_bad_selector_is_named_with_its_remedy(spec, word):
    assert word in error(p8h67_on(), **spec)


@pytest.mark.parametrize("exclude", [["07:00.0"], ["0000:07:00"], ["07:00"]])
def test_exclude_leaves_out_before_it_is_counted(exclude):
    assert chosen(build(TWINS), id="10de:1380", exclude=exclude) == ["01:00.0", "01:00.1"]


def test_exclude_leaves_a_function_of_the_slot_out():
    assert chosen(p8h67_on(), slot="01:00", exclude=["10de:0fbc"]) == ["01:00.0"]


@pytest.mark.parametrize("exclude, words, shown", [
    (["10de:1380"], "exclude leaves out all 2 functions that match; take one out of it", ["01:00.0", "07:00.0"]),
    (["01:00.0", "07:00"], "exclude leaves out all 2 functions that match", ["01:00.0", "07:00.0"]),
])
def test_exclude_that_leaves_nothing_says_so_and_shows_what_it_leaves_out(exclude, words, shown):
    message = error(build(TWINS), id="10de:1380", exclude=exclude)
    assert "selects 0 devices, wanted 1; " + words in message and "nothing on this machine matches" not in message
    assert [line.split()[0][5:] for line in message.splitlines()[2:]] == shown


def test_exclude_that_leaves_nothing_of_one():
    message = error(p8h67_on(), address="01:00.0", exclude=["01:00.0"])
    assert "wanted 1; exclude leaves out the one function that matches" in message


def test_exclude_is_not_to_blame_where_nothing_matches():
    assert "nothing on this machine matches" in error(p8h67_on(), id="dead:beef", exclude=["01:00.0"])


# -- virtual functions --------------------------------------------------------------------------


def with_virtual(*virtual):
    """A NIC with two ports at 07:00, whose first port has virtual functions at these addresses."""
    lines = "\n".join("%s endpoint 8086:10ca ethernet < 00:1c.5" % a for a in virtual)
    machine = build(P8H67 + """
07:00.0 endpoint 8086:10c9 ethernet < 00:1c.5 multi
07:00.1 endpoint 8086:10c9 ethernet < 00:1c.5 multi
""" + lines)
    for address in virtual:
        at(machine, address)["physfn"] = "0000:07:00.0"
    at(machine, "07:00.0")["capabilities"]["sriov"] = {
        "total_vfs": 8, "num_vfs": len(virtual), "vf_device": "10ca", "offset": 0x80, "stride": 2}
    return machine


FAR, NEAR = ("07:10.0", "07:10.2", "07:10.4"), ("07:00.2", "07:00.4")


def test_a_virtual_function_is_a_device_of_its_own():
    machine = with_virtual(*FAR)
    assert chosen(machine, address="07:10.0") == ["07:10.0"]
    assert chosen(machine, match="physfn == '0000:07:00.0'", count=3) == list(FAR)
    assert chosen(machine, id="8086:10ca", exclude=["07:10.0"], count=2) == ["07:10.2", "07:10.4"]
    assert chosen(with_virtual(*NEAR), address="07:00.2") == ["07:00.2"]


def test_virtual_functions_are_counted_one_by_one():
    message = error(with_virtual(*FAR), slot="07:10")
    assert "selects 3 devices, wanted 1" in message and "count: 3" in message


@pytest.mark.parametrize("spec", [{"address": "07:00.0"}, {"address": "07:00"}, {"slot": "07:00"}, {"id": "8086:10c9"}])
@pytest.mark.parametrize("functions", ["all", "listed"])
def test_a_physical_function_does_not_come_with_its_virtual_ones(spec, functions):
    wanted = ["07:00.0", "07:00.1"] if functions == "all" or "address" not in spec or "." not in spec["address"] else ["07:00.0"]
    assert chosen(with_virtual(*NEAR), functions=functions, **spec) == wanted


def test_a_virtual_function_by_its_number():
    machine = with_virtual(*FAR)
    assert [chosen(machine, vf_of="07:00.0", index=number) for number in range(3)] == [[address] for address in FAR]
    assert chosen(machine, vf_of="0000:07:00.0", count=3) == list(FAR)
    assert "selects 3 devices, wanted 1" in error(machine, vf_of="07:00.0")


@pytest.mark.parametrize("spec, words", [
    ({"vf_of": "07:00.0", "index": 3}, ["device gpu, index", "no virtual function 3", "0000:07:00.0", "are 3", "role sriov"]),
    ({"vf_of": "07:00.1"}, ["device gpu, vf_of", "0000:07:00.1 has no virtual functions", "role sriov"]),
    ({"vf_of": "09:00.0", "index": 0}, ["device gpu, vf_of", "09:00.0 is no function of this machine"]),
    ({"vf_of": "07:10.0"}, ["device gpu, vf_of", "07:10.0 is a virtual function itself", "0000:07:00.0"]),
    ({"vf_of": "07:00", "index": 0}, ["device gpu, vf_of", "07:00 is a slot", "0000:07:00.0"]),
    ({"vf_of": "07:00.0", "index": "0"}, ["device gpu", "index is '0'", "0 or more"]),
    ({"vf_of": "07:00.0", "index": -1}, ["index is -1"]),
    ({"vf_of": "07:00.0", "index": True}, ["index is True"]),
    ({"address": "07:10.0", "index": 0}, ["device gpu", "index goes with vf_of"]),
])
def test_a_number_that_is_none_is_named_with_its_remedy(spec, words):
    message = error(with_virtual(*FAR), **spec)
    for word in words:
        assert word in message


@pytest.mark.parametrize("change, word", [
    ({"capabilities": None}, "could not be read"),
    ({"capabilities": {"sriov": {"total_vfs": 8, "num_vfs": 3, "vf_device": "10ca", "offset": 0x81, "stride": 2}}},
     "is not there"),
])
def test_a_number_that_cannot_be_told_is_refused(change, word):
    machine = with_virtual(*FAR)
    at(machine, "07:00.0").update(change)
    message = error(machine, vf_of="07:00.0", index=0)
    assert message.startswith("device gpu, index") and word in message and "by address" in message
