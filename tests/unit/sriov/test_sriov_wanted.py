# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked, and what is refused before anything is touched."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._sriov import physical, wanted
from ansible_collections.vfio.host.tests.unit.sriov.kernel import OTHER, PF

MAC = "52:54:00:00:00:01"


def entry(**changes):
    return dict({"address": PF, "vendor": "8086", "device": "10c9", "count": 4}, **changes)


def one(**setting):
    return entry(vfs=[dict({"index": 2}, **setting)])


@pytest.mark.parametrize("given, words", [
    (entry(address="0000:02:00"), ["functions[0].address", "0000:02:00.0"]),
    (entry(address="nic"), ["functions[0].address", "'nic'"]),
    (entry(vendor="intel"), ["functions[0].vendor", "'intel'", "four hexadecimal"]),
    (entry(device="10c"), ["functions[0].device", "'10c'"]),
    (entry(serial="12"), ["functions[0].serial", "'12'"]),
    (entry(count=-1), ["functions[0].count", "-1", "sriov_totalvfs"]),
    (entry(count=70000), ["functions[0].count", "70000"]),
    (entry(count=True), ["functions[0].count", "True"]),
    (entry(driver="igbvf"), ["functions[0].driver", "'igbvf'", "host"]),
    (entry(vfs=[{"index": 4}]), ["functions[0].vfs[0].index", "4", "0 to 3"]),
    (entry(vfs=[{"index": -1}]), ["functions[0].vfs[0].index", "-1"]),
    (entry(count=0, vfs=[{"index": 0}]), ["functions[0].vfs[0].index", "are none"]),
    (entry(vfs=[{"index": 1}, {"index": 1}]), ["functions[0].vfs[1].index", "functions[0].vfs[0]"]),
    (one(mac="52:54:00"), ["functions[0].vfs[0].mac", "'52:54:00'", "quotes"]),
    (one(mac="41134608001"), ["functions[0].vfs[0].mac", "quotes"]),
    (one(mac="01:54:00:00:00:01"), ["functions[0].vfs[0].mac", "multicast"]),
    (one(mac="00:00:00:00:00:00"), ["functions[0].vfs[0].mac", "leave mac out"]),
    (entry(vfs=[{"index": 0, "mac": MAC}, {"index": 1, "mac": MAC.replace(":", "-")}]),
     ["functions[0].vfs[1].mac", MAC, "functions[0].vfs[0]"]),
    (one(vlan=4095), ["functions[0].vfs[0].vlan", "4095", "4094"]),
    (one(vlan=-1), ["functions[0].vfs[0].vlan", "-1"]),
    (one(vlan=1, qos=8), ["functions[0].vfs[0].qos", "8"]),
    (one(qos=3), ["functions[0].vfs[0].qos", "no vlan"]),
    (one(driver="nouveau"), ["functions[0].vfs[0].driver", "'nouveau'"]),
])
def test_bad_input_is_named_with_its_place_and_a_remedy(given, words):
    with pytest.raises(ValueError) as caught:
        wanted.check([given])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_mac_address_is_given_once_over_all_cards():
    with pytest.raises(ValueError, match=r"functions\[1\].vfs\[0\].mac: .* that of functions\[0\].vfs\[0\] too"):
        wanted.check([one(mac=MAC), dict(one(mac=MAC), address=OTHER)])


def test_a_card_is_given_once():
    with pytest.raises(ValueError, match=r"functions\[1\].address: .* given twice"):
        wanted.check([entry(), entry(address="02:00.0")])


def test_every_virtual_function_has_an_entry():
    found = wanted.check([entry(vendor="8086", driver="vfio_pci", vfs=[{"index": 3, "mac": MAC.upper(), "vlan": 0,
                                                                        "driver": "host"}])])[0]
    assert [vf["driver"] for vf in found["vfs"]] == ["vfio-pci"] * 3 + ["host"]
    assert found["vfs"][3] == {"index": 3, "place": "functions[0].vfs[0]", "driver": "host", "mac": MAC, "vlan": 0,
                               "qos": 0, "trust": None, "spoof_check": None}
    assert found["vfs"][0]["place"] == "functions[0]" and not wanted.autoprobe(found["vfs"])
    assert wanted.autoprobe(wanted.check([entry(driver="host")])[0]["vfs"])


def test_the_list_for_the_boot():
    functions = wanted.check([
        dict(entry(count=1, serial="52-54-00-ff-ff-12-34-56"), address=OTHER, driver="host"), entry(count=2, vfs=[
            {"index": 1, "mac": MAC, "vlan": 5, "qos": 3, "trust": True, "spoof_check": False}])])
    functions[1]["vfs"][0]["driver"] = None
    assert wanted.render(functions) == wanted.HEADER + (
        "pf 0000:02:00.0 8086 10c9 - 2 0\n"
        "vf 0000:02:00.0 0 - - - - - -\n"
        "vf 0000:02:00.0 1 vfio-pci 52:54:00:00:00:01 5 3 on off\n"
        "pf 0000:05:00.0 8086 10c9 52-54-00-ff-ff-12-34-56 1 1\n"
        "vf 0000:05:00.0 0 host - - - - -\n")
    assert wanted.render(wanted.check([entry(count=0)])) is None


NOW = {"vendor": "8086", "device": "10c9", "serial": None, "driver": "igb", "physfn": None, "total": 8, "numvfs": 0,
       "autoprobe": True, "vfs": {}}


@pytest.mark.parametrize("given, changes, words", [
    (entry(), None, ["functions[0].address", "does not exist"]),
    (entry(), {"device": "10ca"}, ["8086:10ca", "asked 8086:10c9"]),
    (entry(serial="52-54-00-ff-ff-12-34-56"), {}, ["functions[0].serial", "none", "asked 52-54"]),
    (entry(), {"physfn": OTHER, "total": None}, ["functions[0].address", "virtual function itself", OTHER]),
    (entry(), {"total": None}, ["functions[0].address", "no SR-IOV"]),
    (entry(), {"driver": "vfio-pci"}, ["functions[0].address", "on vfio-pci", "vfio_binding"]),
    (entry(), {"driver": None}, ["functions[0].address", "no driver"]),
    (entry(), {"driver": "pci-stub"}, ["functions[0].address", "on pci-stub"]),
    (entry(count=9), {}, ["functions[0].count", "9", "8"]),
    (entry(), {"autoprobe": None}, ["functions[0]", "sriov_drivers_autoprobe"]),
])
def test_a_card_that_is_not_it_or_cannot_do_it(given, changes, words):
    with pytest.raises(ValueError) as caught:
        physical.check(wanted.check([given])[0], None if changes is None else dict(NOW, **changes))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_card_that_can_do_it():
    physical.check(wanted.check([entry(count=8)])[0], NOW)
    physical.check(wanted.check([entry(driver="host")])[0], dict(NOW, autoprobe=None))


def test_what_ip_tells_in_older_and_newer_releases():
    told = physical.parse_settings(
        '[{"ifname": "ens2", "vfinfo_list": [{"vf": 0, "mac": "52:54:00:00:00:0A", "vlan": 7, "spoofchk": true},'
        '{"vf": 1, "address": "52:54:00:00:00:01", "vlan_list": [{"vlan": 9, "qos": 2, "protocol": "802.1ad"}], "trust": false}]}]')
    assert told == {
        0: {"mac": "52:54:00:00:00:0a", "vlan": 7, "qos": 0, "trust": None, "spoof_check": True,
            "protocol": None},
        1: {"mac": "52:54:00:00:00:01", "vlan": 9, "qos": 2, "trust": False, "spoof_check": None,
            "protocol": "802.1ad"}}
    assert physical.parse_settings('[{"ifname": "ens2"}]') == {}


def test_a_mac_address_is_set_before_the_spoof_check_and_taken_away_after_it():
    def order(mac):
        return [name for name, dummy in physical.commands("ens2", 1, {"mac": mac, "spoof_check": True, "trust": True})]

    assert order(MAC) == ["mac", "spoof_check", "trust"] and order(physical.NO_MAC) == ["spoof_check", "trust", "mac"]


def test_vlan_and_priority_are_one_command():
    values = physical.differing({"vlan": 9, "qos": 3}, {"vlan": 9, "qos": 0})
    assert physical.commands("ens2", 1, values) == [("vlan", "ip link set dev ens2 vf 1 vlan 9 qos 3".split())]
