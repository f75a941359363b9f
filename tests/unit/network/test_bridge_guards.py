# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each guard alone: a machine that has the reason, and the same machine without it."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._network import guards, model
from ansible_collections.vfio.host.plugins.module_utils._network.facts import UNPLACED, gather, read_network
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67


def link(name, **more):
    base = {
        "name": name, "index": 3, "type": 1, "mac": "52:54:00:00:00:" + name[-2:].rjust(2, "0"), "assigned": 0,
        "mtu": 1500, "up": True, "bridge": False, "master": None, "ports": [], "uppers": [], "wireless": False,
        "bus": "pci", "driver": "8139cp", "stp": None, "forward_delay": None,
    }  # fmt: skip
    return dict(base, **more)


FACTS = {
    "links": {"p1": link("p1", mac="52:54:00:00:00:01"), "p2": link("p2", mac="52:54:00:00:00:02")},
    "addresses": {"p2": ["192.0.2.2/24", "fe80::2/64"], "p1": ["fe80::1/64", "169.254.3.4/16"]},
    "default_routes": [{"family": 4, "interface": "p2", "gateway": "192.0.2.1"}],
    "ssh": {"client": "203.0.113.9", "server": "192.0.2.2", "interface": "p2", "unknown": False},
    "ssh_links": ["p2"],
    "root": None,
    "missing": [],
}


def reasons(change=None, ours=None, released=(), **options):
    facts = copy.deepcopy(FACTS)
    if change:
        change(facts)
    bridge = model.bridge_from(dict({"name": "br0", "ports": ["p1"]}, **options))
    return "; ".join(guards.refusals(bridge, facts, ours or {}, released))


def test_a_spare_interface_is_taken():
    assert reasons() == "" and reasons(addresses=["198.51.100.1/24"]) == ""


def port(**more):
    return lambda facts: facts["links"]["p1"].update(more)


@pytest.mark.parametrize(
    "change, message",
    [
        (port(wireless=True), "p1 is wireless"),
        (port(bus=None), "no physical Ethernet"),
        (port(type=32), "no physical Ethernet"),
        (port(bridge=True), "no physical Ethernet"),
        (port(master="bond0"), "in use by bond0"),
        (port(uppers=["p1.5"]), "p1.5 on top"),
        (port(assigned=1), "another random address"),
        (port(mac="52:54:00:00:00:02"), "the same MAC address as p2"),
        (lambda f: f["links"].pop("p1"), "p1 does not exist; network interfaces here: p2"),
        (lambda f: f["default_routes"].append({"family": 6, "interface": "p1", "gateway": None}), "IPv6 default route"),
        (lambda f: f["addresses"]["p1"].append("198.51.100.7/24"), "p1 has 198.51.100.7/24, which it would lose"),
        (lambda f: f["addresses"].update({UNPLACED: ["10.0.0.1/32"]}), "10.0.0.1/32 is on no interface that"),
        (lambda f: f["ssh"].update(unknown=True), "not known over which interface"),
        (lambda f: f.update(ssh_links=["p1"]), "p1 carries the SSH connection from 203.0.113.9"),
        (lambda f: f.update(root="nfs"), "the root filesystem may need the network: nfs"),
        (lambda f: f.update(missing=["/proc/net/route: x"]), "cannot be read"),
        (lambda f: f["links"].update(br0=link("br0")), "br0 is an interface already and no bridge"),
        (lambda f: f["links"].update(br0=link("br0", bridge=True)), "was not made by this collection"),
    ],
)
def test_each_reason(change, message):
    assert message in reasons(change)


def test_a_random_address_is_no_matter_with_a_mac():
    assert reasons(port(assigned=1), mac="52:54:00:00:00:77") == ""


def test_a_port_of_this_very_bridge_is_no_reason():
    def change(facts):
        facts["links"]["p1"].update(master="br0", uppers=["br0"])
        facts["links"]["br0"] = link("br0", bridge=True, bus=None)

    assert reasons(change, ours={"br0": ["p1"]}) == ""


def test_a_port_of_another_bridge_of_ours():
    assert "belongs to our bridge br9" in reasons(ours={"br9": ["p1"]})


def test_a_port_that_leaves_may_not_carry_the_connection_either():
    assert "p2 carries the SSH connection" in reasons(released=["p2"])


@pytest.mark.parametrize(
    "address, message",
    [
        ("192.0.2.3/24", "in the network of 192.0.2.2/24 on p2"),
        ("203.0.113.1/24", "would move the SSH client 203.0.113.9"),
        ("192.0.2.129/1", "would move the gateway 192.0.2.1"),
    ],
)
def test_an_address_that_takes_other_traffic(address, message):
    assert message in reasons(addresses=[address])


def test_a_gateway_outside_every_network_counts():
    def change(facts):
        facts["default_routes"][0].update(gateway="10.9.9.1")

    assert "the gateway 10.9.9.1" in reasons(change, addresses=["10.9.9.2/24"])


def removal(change=None, ports=("p1",)):
    facts = copy.deepcopy(FACTS)
    facts["links"]["br0"] = link("br0", bridge=True, bus=None, ports=["p1"])
    if change:
        change(facts)
    return "; ".join(guards.removal_refusals("br0", list(ports), facts))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: f["links"]["br0"]["ports"].append("vnet3"), "vnet3 still uses it"),
        (lambda f: f["links"]["br0"].update(uppers=["br0.7"]), "br0.7 sits on top"),
        (lambda f: f["links"]["br0"].update(bridge=False), "is no bridge"),
        (lambda f: f.update(ssh_links=["br0"]), "br0 carries the SSH connection"),
        (lambda f: f.update(ssh_links=["p1"]), "p1 carries the SSH connection"),
        (lambda f: f["ssh"].update(unknown=True), "not known over which interface"),
        (lambda f: f.update(root="nfs"), "may need the network"),
        (lambda f: f["default_routes"][0].update(interface="br0"), "the only IPv4 default route"),
    ],
)
def test_each_reason_not_to_remove(change, message):
    assert removal() == ""
    assert message in removal(change)


def test_a_root_over_nfs_keeps_the_bridge_from_its_interface(tmp_path):
    machine = p8h67(tmp_path)
    machine.mount("/", fstype="nfs4", source="10.0.2.9:/root", options="rw,addr=10.0.2.9")
    host = Host(str(tmp_path))
    assert "enp0s25" in gather(host, read_network(host))["root"]
    local = Host(p8h67(tmp_path / "local").root)
    assert gather(local, read_network(local))["root"] is None
