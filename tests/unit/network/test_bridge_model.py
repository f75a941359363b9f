# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options: what is taken, what is said about the rest."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._network import model


def item(**more):
    return dict({"name": "br0", "ports": ["enp4s0"]}, **more)


def test_a_bridge_is_made_complete():
    assert model.bridge_from(item(mac="52-54-00-AA-BB-CC", addresses=["192.0.2.10/24", "192.0.2.10/24"])) == {
        "name": "br0",
        "ports": ["enp4s0"],
        "addresses": ["192.0.2.10/24"],
        "dhcp": False,
        "mac": "52:54:00:aa:bb:cc",
        "mtu": None,
        "stp": False,
        "forward_delay": 0,
    }


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a b", "sixteen-letters-", "br0\n", "en*", "!br0", "%i", "all", "default", "lo", "42", None],
)
def test_names_that_are_refused(name):
    with pytest.raises(ValueError, match="no interface name"):
        model.bridge_from(item(name=name))
    with pytest.raises(ValueError, match="bridge br0: ports: .* no interface name"):
        model.bridge_from(item(ports=[name]))


@pytest.mark.parametrize("name", ["br0", "enx525400aabbcc", "eth0.5", "_x", "br-lan"])
def test_names_that_are_taken(name):
    assert model.bridge_from(item(name=name))["name"] == name


@pytest.mark.parametrize(
    "more, message",
    [
        ({"ports": []}, "no ports"),
        ({"ports": ["br0"]}, "never the bridge itself"),
        ({"ports": ["a0", "a0"]}, "each port once"),
        ({"mac": "52:54:00:aa:bb"}, "no MAC address"),
        ({"mac": "00:00:00:00:00:00"}, "no MAC address"),
        ({"mac": "53:54:00:aa:bb:cc"}, "multicast"),
        ({"addresses": ["192.0.2.10"]}, "prefix length is missing"),
        ({"addresses": ["192.0.2.300/24"]}, "does not appear"),
        ({"addresses": ["192.0.2.0/24"]}, "network's own or broadcast"),
        ({"addresses": ["192.0.2.255/24"]}, "network's own or broadcast"),
        ({"addresses": ["127.0.0.5/8"]}, "cannot be the address"),
        ({"addresses": ["224.0.0.5/24"]}, "cannot be the address"),
        ({"addresses": ["::/64"]}, "cannot be the address"),
        ({"mtu": 500}, "outside 576 to 65535"),
        ({"mtu": 1000, "addresses": ["2001:db8::1/64"]}, "too small for IPv6"),
        ({"forward_delay": 31}, "forward_delay"),
        ({"forward_delay": -1}, "forward_delay"),
        ({"stp": True}, "2 to 30 with stp"),
    ],
)
def test_options_that_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        model.bridge_from(item(**more))


@pytest.mark.parametrize("address", ["192.0.2.0/31", "192.0.2.255/32", "2001:db8::/64"])
def test_addresses_at_the_edge_are_taken(address):
    assert model.bridge_from(item(addresses=[address]))["addresses"] == [address]


@pytest.mark.parametrize(
    "items, message",
    [
        ([item(), item(ports=["a0"])], "named twice"),
        ([item(), item(name="br1")], "port enp4s0 is named in br0 and in br1"),
        ([item(ports=["br1"]), item(name="br1", ports=["a0"])], "is a bridge of this list itself"),
    ],
)
def test_lists_that_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        model.bridges_from(items)


def test_absent_needs_no_ports():
    assert model.bridges_from([{"name": "br0"}], "absent")[0]["ports"] == []
