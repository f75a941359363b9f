# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the SSH connection and the default routes to the functions that carry them."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
from ansible_collections.vfio.host.plugins.module_utils._usage import network, ssh
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import PCI_PATH, FakeMachine, p8h67

NIC = PCI_PATH + "/0000:00:1c.0/0000:04:00.0"
NIC2 = PCI_PATH + "/0000:00:19.0"


@pytest.fixture
def machine(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.process("self", "python3", "1")
    machine.nic("lo", index=1)
    machine.addresses()
    machine.route("none", "203.0.113.0", 24, "0.0.0.0")
    return machine


def connect(machine, server="192.0.2.2", client="198.51.100.7"):
    machine.write("/proc/self/environ", "A=1\0SSH_CONNECTION=%s 50000 %s 22\0B=2\0" % (client, server))


def use(machine):
    """``(session, network, uses, unknowns)`` of a tree."""
    inputs = Inputs(Host(machine.root))
    session, net = ssh.read(inputs), network.read(inputs)
    uses, unknowns = network.use(session, net)
    return session, net, uses, unknowns


def interfaces(machine):
    return {interface["name"]: interface for interface in use(machine)[1]["interfaces"]}


def test_plain_nic_with_hyphen(machine):
    machine.nic("lan-1", NIC)
    machine.addresses(("lan-1", "192.0.2.2/24"))
    connect(machine)
    session, dummy, uses, unknowns = use(machine)
    assert session == {"client": "198.51.100.7", "server": "192.0.2.2", "interface": "lan-1", "unknown": False}
    assert unknowns == []
    assert [(u["finding"], u["chain"]) for u in uses] == [
        ("VH202", ["SSH 198.51.100.7 to 192.0.2.2", "lan-1", "0000:04:00.0"]),
    ]


def test_bridge_over_nic_and_a_guests_tap(machine):
    machine.nic("br-lan", kind="bridge", lower=["enp4s0", "vnet0"], index=3)
    machine.nic("enp4s0", NIC, master="br-lan")
    machine.nic("vnet0", index=4)
    machine.addresses(("br-lan", "192.0.2.2/24"))
    connect(machine)
    session, dummy, uses, unknowns = use(machine)
    assert session["interface"] == "br-lan" and unknowns == []
    assert [u["chain"][1:] for u in uses] == [["br-lan", "enp4s0", "0000:04:00.0"]]
    found = interfaces(machine)
    assert (found["br-lan"]["kind"], found["enp4s0"]["master"]) == ("bridge", "br-lan")
    assert (found["enp4s0"]["kind"], found["vnet0"]["kind"], found["lo"]["kind"]) == ("physical", "virtual", "loopback")


def test_vlan_over_bond_over_two_nics(machine):
    machine.nic("bond0.10", kind="vlan", lower=["bond0"], index=5)
    machine.nic("bond0", kind="bond", lower=["enp4s0", "enp0s25"], index=4)
    machine.nic("enp4s0", NIC, master="bond0")
    machine.nic("enp0s25", NIC2, master="bond0")
    machine.addresses(("bond0.10", "192.0.2.2/24"))
    connect(machine)
    uses = use(machine)[2]
    assert [u["chain"][1:] for u in uses] == [
        ["bond0.10", "bond0", "enp0s25", "0000:00:19.0"], ["bond0.10", "bond0", "enp4s0", "0000:04:00.0"],
    ]
    assert [interfaces(machine)[name]["kind"] for name in ("bond0.10", "bond0")] == ["vlan", "bond"]


def test_default_routes_of_both_families(machine):
    machine.nic("enp4s0", NIC)
    machine.nic("enp0s25", NIC2, index=3)
    machine.route("enp4s0", "0.0.0.0", 0, "192.0.2.1", flags=3)
    machine.route("*", "0.0.0.0", 0, flags=0x201)
    zeros = "0" * 32
    rows = [(zeros, "00", "fd" + "0" * 29 + "1", "00000003", "enp0s25"), (zeros, "00", zeros, "00200200", "lo"),
            ("fd" + zeros[2:], "40", zeros, "00000001", "enp0s25")]
    machine.write("/proc/net/ipv6_route", "".join(
        "%s %s %s 00 %s 00000400 00000001 00000000 %s %s\n" % (to, prefix, zeros, via, flags, name)
        for to, prefix, via, flags, name in rows))
    dummy, net, uses, unknowns = use(machine)
    assert net["default_routes"] == [
        {"family": 4, "interface": "enp4s0", "gateway": "192.0.2.1"},
        {"family": 6, "interface": "enp0s25", "gateway": "fd00::1"},
    ]
    assert [(u["finding"], u["chain"]) for u in uses] == [
        ("VH204", ["default route IPv4", "enp4s0", "0000:04:00.0"]),
        ("VH204", ["default route IPv6", "enp0s25", "0000:00:19.0"]),
    ]
    assert unknowns == []


def test_ssh_over_ipv6_with_a_zone(machine):
    machine.nic("enp4s0", NIC)
    machine.write("/proc/net/if_inet6", "fe8000000000000000fc00fffe000001 02 40 20 80   enp4s0\n")
    connect(machine, "fe80::fc:ff:fe00:1%enp4s0", "fe80::2%enp4s0")
    session, dummy, uses, unknowns = use(machine)
    assert session["server"] == "fe80::fc:ff:fe00:1" and session["interface"] == "enp4s0"
    assert len(uses) == 1 and interfaces(machine)["enp4s0"]["addresses"] == ["fe80::fc:ff:fe00:1/64"]


def test_mapped_addresses_are_ipv4(machine):
    machine.nic("enp4s0", NIC)
    machine.addresses(("enp4s0", "192.0.2.2/24"))
    connect(machine, "::ffff:192.0.2.2", "::ffff:192.0.2.9")
    assert use(machine)[0] == {"client": "192.0.2.9", "server": "192.0.2.2", "interface": "enp4s0", "unknown": False}


def test_two_nics_on_one_network_are_both_in_use(machine):
    machine.nic("enp4s0", NIC)
    machine.nic("enp0s25", NIC2, index=3)
    machine.addresses(("enp4s0", "192.0.2.2/24"), ("enp0s25", "192.0.2.3/24"))
    connect(machine)
    assert {u["chain"][-1] for u in use(machine)[2]} == {"0000:04:00.0", "0000:00:19.0"}
    # and no address is put where it may not be
    assert interfaces(machine)["enp4s0"]["addresses"] == []


def test_an_address_without_a_connected_route_counts_for_the_way_to_the_client(machine):
    machine.nic("enp4s0", NIC)
    machine.addresses(("enp4s0", "192.0.2.2/32"))
    machine.route("enp4s0", "0.0.0.0", 0, "192.0.2.1", flags=3)
    connect(machine)
    session, dummy, uses, unknowns = use(machine)
    assert session["interface"] == "enp4s0" and unknowns == []
    assert "VH202" in [u["finding"] for u in uses]


def test_wide_routes_hold_no_address(machine):
    """A VPN's 0.0.0.0/1 is around every address and holds none."""
    machine.nic("tun0", index=9)
    machine.nic("enp4s0", NIC)
    machine.route("tun0", "128.0.0.0", 1)
    machine.addresses(("enp4s0", "192.0.2.2/32"))
    machine.route("enp4s0", "198.51.100.0", 24, "192.0.2.1", flags=3)
    connect(machine)
    assert use(machine)[0]["interface"] == "enp4s0"


def test_local_run(machine):
    machine.nic("enp4s0", NIC)
    session, dummy, uses, unknowns = use(machine)
    assert session == {"client": None, "server": None, "interface": None, "unknown": False}
    assert uses == [] and unknowns == []


def test_ssh_to_the_machine_itself_needs_no_nic(machine):
    machine.nic("enp4s0", NIC)
    connect(machine, "127.0.0.1", "127.0.0.1")
    session, dummy, uses, unknowns = use(machine)
    assert (session["interface"], session["unknown"], uses, unknowns) == ("lo", False, [], [])


def test_no_interface_has_the_address(machine):
    machine.nic("enp4s0", NIC)
    connect(machine)
    session, dummy, uses, unknowns = use(machine)
    assert session["unknown"] is True and [u["kind"] for u in unknowns] == ["ssh"]


def test_address_on_something_virtual_is_unknown(machine):
    machine.nic("ppp0", index=7)
    machine.addresses(("ppp0", "192.0.2.2/24"))
    machine.route("ppp0", "0.0.0.0", 0)
    connect(machine)
    session, dummy, uses, unknowns = use(machine)
    assert session["unknown"] is True and uses == []
    assert sorted(u["kind"] for u in unknowns) == ["network", "ssh"]


def test_lower_links_in_a_loop_end(machine):
    machine.nic("a", lower=["b"], index=8)
    machine.nic("b", lower=["a"], index=9)
    machine.route("a", "0.0.0.0", 0)
    assert [u["kind"] for u in use(machine)[3]] == ["network"]


def test_nic_off_pci_is_known_to_need_no_function(machine):
    machine.nic("end0", "/sys/devices/platform/fd580000.ethernet")
    machine.route("end0", "0.0.0.0", 0)
    dummy, net, uses, unknowns = use(machine)
    assert uses == [] and unknowns == []


def test_permanent_address(machine):
    home = NIC + "/net/enp4s0"
    machine.nic("enp4s0", NIC, mac="52:54:00:00:00:04")
    assert interfaces(machine)["enp4s0"]["permanent_mac"] == "52:54:00:00:00:04"
    machine.write(home + "/addr_assign_type", "3\n")
    assert interfaces(machine)["enp4s0"]["permanent_mac"] is None
    machine.write(home + "/bonding_slave/perm_hwaddr", "52:54:00:00:00:05\n")
    assert interfaces(machine)["enp4s0"]["permanent_mac"] == "52:54:00:00:00:05"


def test_bonding_masters_is_no_interface(machine):
    machine.write("/sys/class/net/bonding_masters", "bond0\n")
    assert list(interfaces(machine)) == ["lo"]


# -- the session -------------------------------------------------------------------------------


def session(machine):
    return ssh.read(Inputs(Host(machine.root)))


def test_sudo_strips_the_variable_and_an_ancestor_has_it(machine):
    machine.process("self", "python3", "400", environ="SUDO_USER=me\0")
    machine.process("400", "sudo", "300", environ="SUDO_USER=me\0")
    environ = "XSSH_CONNECTION=no\0SSH_CONNECTION=198.51.100.7 1 192.0.2.2 22\0"
    machine.process("300", "sh (x) y", "200", environ=environ)
    assert session(machine) == {"client": "198.51.100.7", "server": "192.0.2.2", "unknown": False}


def test_below_an_ssh_server_whose_environment_is_unreadable(machine):
    machine.process("self", "python3", "400", environ=None)
    machine.process("400", "sudo", "300", environ=None)
    machine.process("300", "sshd", "1", environ=None)
    assert session(machine)["unknown"] is True


def test_below_a_login_that_is_unreadable_is_local(machine):
    machine.process("self", "python3", "400", environ="")
    machine.process("400", "login", "1", environ=None)
    assert session(machine)["unknown"] is False


def test_an_ancestor_that_cannot_be_looked_at(machine):
    machine.process("self", "python3", "400", environ="")
    inputs = Inputs(Host(machine.root))
    assert ssh.read(inputs)["unknown"] is True
    assert [miss["input"] for miss in inputs.missing] == ["/proc/400/stat"]


def test_a_remote_session_cut_from_its_ancestors(machine):
    machine.write("/proc/self/sessionid", "7\n")
    assert session(machine)["unknown"] is False
    machine.write("/run/systemd/sessions/7", "UID=0\nREMOTE=1\nREMOTE_HOST=198.51.100.7\n")
    assert session(machine)["unknown"] is True


def test_a_connection_without_addresses(machine):
    connect(machine, "UNKNOWN", "UNKNOWN")
    found, dummy, uses, unknowns = use(machine)
    assert found == {"client": None, "server": None, "interface": None, "unknown": True}
    assert [u["kind"] for u in unknowns] == ["ssh"]


def test_ancestors_in_a_loop_end(machine):
    machine.process("self", "python3", "400")
    machine.process("400", "sh", "400")
    assert session(machine)["unknown"] is True


def test_document(tmp_path):
    machine = p8h67(tmp_path)
    connect(machine, "10.0.2.15", "10.0.2.2")
    document = collect(Host(str(tmp_path)))
    nic = [f for f in document["functions"] if f["address"] == "0000:00:19.0"][0]
    assert [u["finding"] for u in nic["used_by"]] == ["VH202", "VH204"]
    assert document["host"]["usage_unknown"] == []
    assert document["host"]["ssh"]["interface"] == "enp0s25"


def test_document_without_the_function_in_use(tmp_path):
    machine = p8h67(tmp_path)
    connect(machine, "10.0.2.15", "10.0.2.2")
    (tmp_path / (machine.homes["0000:00:19.0"][1:] + "/uevent")).unlink()
    assert collect(Host(str(tmp_path)))["host"]["usage_unknown"] == ["network", "ssh"]
