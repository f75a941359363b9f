# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the SSH connection and the default routes to the functions that carry them."""

from __future__ import annotations

import os

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
    machine.nic("ppp0", index=7, kind="ppp")
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


# -- what sysfs gives no lower interface for -----------------------------------------------------


def pair_of_nics(machine, *addresses):
    """enp4s0 and enp0s25, with addresses as given."""
    machine.nic("enp4s0", NIC)
    machine.nic("enp0s25", NIC2, index=3, mac="52:54:00:00:00:19")
    machine.addresses(*addresses)


def functions(machine, finding="VH202"):
    """Functions of a tree whose uses are all known."""
    dummy, dummy, uses, unknowns = use(machine)
    assert unknowns == []
    return [u["function"] for u in uses if u["finding"] == finding]


def set_attribute(machine, name, attribute, value):
    machine.write("/sys/devices/virtual/net/%s/%s" % (name, attribute), value + "\n")


def table(machine, number, *lines):
    """Append an IPv4 routing table to fib_trie, which tells it without interfaces."""
    with open(machine.outside("/proc/net/fib_trie"), "a") as handle:
        handle.write("Id %s:\n  +-- 0.0.0.0/0 3 0 5\n%s" % (number, "".join("     %s\n" % line for line in lines)))


def test_open_vswitch(machine):
    """The switch's internal port has no link to the ports of the datapath."""
    pair_of_nics(machine)
    for name in ("enp4s0", "enp0s25"):
        machine.link({"enp4s0": NIC, "enp0s25": NIC2}[name] + "/net/%s/master" % name, "/sys/class/net/ovs-system")
    machine.nic("ovs-system", index=5)
    machine.nic("br-int", index=6)
    machine.addresses(("br-int", "192.0.2.2/24"))
    connect(machine)
    assert sorted(functions(machine)) == ["0000:00:19.0", "0000:04:00.0"]


def test_a_tunnel_beside_open_vswitch_is_no_port_of_it(machine):
    pair_of_nics(machine, ("enp4s0", "203.0.113.2/24"))
    machine.link(NIC2 + "/net/enp0s25/master", "/sys/class/net/ovs-system")
    machine.nic("ovs-system", index=5)
    machine.nic("tun0", index=6)
    set_attribute(machine, "tun0", "tun_flags", "0x1001")
    machine.addresses(("tun0", "192.0.2.2/24"))
    connect(machine, client="192.0.2.9")
    assert functions(machine) == ["0000:04:00.0"]


def test_open_vswitch_in_user_space_is_unknown(machine):
    machine.nic("ovs-netdev", index=5)
    machine.nic("br0", index=6)
    set_attribute(machine, "br0", "tun_flags", "0x1002")
    machine.addresses(("br0", "192.0.2.2/24"))
    connect(machine)
    assert use(machine)[0]["unknown"] is True


@pytest.mark.parametrize("kind", ["macvlan", "macvtap", "ipvlan", "team", "vrf", None])
def test_kinds_that_have_links_below(machine, kind):
    machine.nic("enp4s0", NIC)
    machine.nic("x0.1", kind=kind, lower=["enp4s0"], index=9)
    machine.addresses(("x0.1", "192.0.2.2/24"))
    connect(machine)
    assert functions(machine) == ["0000:04:00.0"]


def test_an_alias_is_its_interface(machine):
    machine.nic("enp4s0", NIC)
    machine.addresses(("enp4s0:1", "192.0.2.2/24"))
    connect(machine)
    assert functions(machine) == ["0000:04:00.0"]


def test_vlan_below_a_bridge_on_a_host_with_ipv6_only(machine):
    machine.nic("br-lan", kind="bridge", lower=["enp4s0.100"], index=5)
    machine.nic("enp4s0.100", kind="vlan", lower=["enp4s0"], master="br-lan", index=4)
    machine.nic("enp4s0", NIC)
    machine.write("/proc/net/if_inet6", "20010db8000000000000000000000002 05 40 00 80 br-lan\n")
    connect(machine, "2001:db8::2", "2001:db8::9")
    session, dummy, uses, unknowns = use(machine)
    assert (session["interface"], unknowns) == ("br-lan", [])
    assert uses[0]["chain"][1:] == ["br-lan", "enp4s0.100", "enp4s0", "0000:04:00.0"]


def test_all_ports_of_a_bond_count_also_those_that_are_down(machine):
    pair_of_nics(machine)
    machine.write(NIC2 + "/net/enp0s25/operstate", "down\n")
    machine.nic("bond0", kind="bond", lower=["enp4s0", "enp0s25"], index=4)
    machine.addresses(("bond0", "192.0.2.2/24"))
    connect(machine)
    assert sorted(functions(machine)) == ["0000:00:19.0", "0000:04:00.0"]


def test_vrf_has_its_addresses_in_another_table(machine):
    """Its connected route is not in /proc/net/route; the main table leads elsewhere."""
    pair_of_nics(machine, ("enp4s0", "198.51.100.2/24"))
    machine.route("enp4s0", "0.0.0.0", 0, "198.51.100.1", flags=3)
    machine.nic("mgmt", kind="vrf", lower=["enp0s25"], index=8)
    machine.link(NIC2 + "/net/enp0s25/master", "/sys/class/net/mgmt")
    table(machine, "1001", "|-- 0.0.0.0", "   /0 universe UNICAST", "|-- 192.0.2.2", "   /32 host LOCAL")
    connect(machine)
    assert "0000:00:19.0" in functions(machine) and "0000:00:19.0" in functions(machine, "VH204")
    # the same address in the main table's network is still the VRF's
    machine.route("enp4s0", "192.0.2.0", 24)
    assert "0000:00:19.0" in functions(machine)


@pytest.mark.parametrize("line, expected", [
    ("/0 universe UNICAST", ["0000:00:19.0", "0000:04:00.0"]), ("/0 universe UNREACHABLE", ["0000:04:00.0"]),
])
def test_default_route_of_another_table_may_use_any_address(machine, line, expected):
    pair_of_nics(machine, ("enp4s0", "192.0.2.2/24"), ("enp0s25", "203.0.113.2/24"))
    machine.route("enp4s0", "0.0.0.0", 0, "192.0.2.1", flags=3)
    table(machine, "100", "|-- 0.0.0.0", "   " + line)
    assert sorted(set(functions(machine, "VH204"))) == expected


def test_several_next_hops_of_ipv6_all_count(machine):
    pair_of_nics(machine)
    row = "0" * 32 + " 00 " + "0" * 32 + " 00 fe80%028d 00000400 00000001 00000000 00000003 %s\n"
    machine.write("/proc/net/ipv6_route", row % (1, "enp4s0") + row % (1, "enp0s25"))
    assert sorted(functions(machine, "VH204")) == ["0000:00:19.0", "0000:04:00.0"]


def test_answers_that_leave_by_another_interface_count_too(machine):
    pair_of_nics(machine, ("enp4s0", "192.0.2.2/24"), ("enp0s25", "203.0.113.2/24"))
    machine.route("enp0s25", "0.0.0.0", 0, "203.0.113.1", flags=3)
    connect(machine)
    assert functions(machine) == ["0000:04:00.0", "0000:00:19.0"]
    assert use(machine)[0]["interface"] == "enp4s0"


def test_routed_host_with_its_address_on_lo(machine):
    """Packets come in by either uplink; an address on lo must not pass for a session of the machine with itself."""
    pair_of_nics(machine, ("enp4s0", "198.51.100.2/31"), ("enp0s25", "198.51.100.4/31"))
    with open(machine.outside("/proc/net/fib_trie"), "a") as handle:
        handle.write("     |-- 192.0.2.2\n        /32 host LOCAL\n")
    machine.route("enp4s0", "0.0.0.0", 0, "198.51.100.3", flags=3)
    connect(machine, "192.0.2.2", "198.18.0.9")
    assert sorted(functions(machine)) == ["0000:00:19.0", "0000:04:00.0"]
    machine.write("/proc/net/if_inet6", "20010db8000000000000000000000002 01 80 00 80 lo\n")
    connect(machine, "2001:db8::2", "2001:db8:9::9")
    assert sorted(functions(machine)) == ["0000:00:19.0", "0000:04:00.0"]


@pytest.mark.parametrize("kind, attribute", [("wireguard", None), (None, "tun_flags"), ("vxlan", None)])
def test_tunnel_may_be_carried_by_whatever_has_an_address(machine, kind, attribute):
    pair_of_nics(machine, ("enp4s0", "203.0.113.2/24"))
    machine.nic("wg0", kind=kind, index=9)
    if attribute:
        set_attribute(machine, "wg0", attribute, "0x1001")
    machine.addresses(("wg0", "192.0.2.2/24"))
    connect(machine, client="192.0.2.9")
    assert functions(machine) == ["0000:04:00.0"]
    assert use(machine)[2][0]["chain"][1:] == ["wg0", "enp4s0", "0000:04:00.0"]
    # a dial-up line may carry it as well, and names no hardware
    machine.nic("ppp0", kind="ppp", index=10)
    assert use(machine)[0]["unknown"] is True


def test_tunnel_without_anything_below_is_unknown(machine):
    machine.nic("tun0", index=9)
    machine.addresses(("tun0", "192.0.2.2/24"))
    connect(machine)
    assert use(machine)[0]["unknown"] is True


def test_guests_tap_is_no_way_out_and_an_overlay_port_is(machine):
    pair_of_nics(machine, ("enp0s25", "203.0.113.2/24"))
    machine.nic("br0", kind="bridge", lower=["enp4s0", "vnet0"], index=5)
    machine.nic("vnet0", index=6)
    set_attribute(machine, "vnet0", "tun_flags", "0x1002")
    machine.addresses(("br0", "192.0.2.2/24"))
    connect(machine, client="192.0.2.9")
    assert functions(machine) == ["0000:04:00.0"]
    machine.nic("vx7", kind="vxlan", index=7)
    machine.link("/sys/devices/virtual/net/br0/lower_vx7", "/sys/class/net/vx7")
    assert sorted(functions(machine)) == ["0000:00:19.0", "0000:04:00.0"]
    # one that is tied to an interface lies on that
    set_attribute(machine, "vx7", "iflink", "2")
    assert functions(machine) == ["0000:04:00.0"]


def test_pppoe_lies_on_its_ethernet(machine):
    pair_of_nics(machine)
    machine.nic("ppp0", kind="ppp", index=9)
    machine.route("ppp0", "0.0.0.0", 0)
    machine.write("/proc/net/pppoe", "Id       Address              Device\n0000002A 52:54:00:00:00:99  enp0s25\n")
    assert functions(machine, "VH204") == ["0000:00:19.0"]


def test_veth(machine):
    machine.nic("veth0", index=8)
    set_attribute(machine, "veth0", "iflink", "9")
    machine.addresses(("veth0", "192.0.2.2/24"))
    connect(machine)
    assert use(machine)[0]["unknown"] is True  # its other end is in another network namespace
    machine.nic("veth1", index=9, master="br0")
    set_attribute(machine, "veth1", "iflink", "8")
    machine.nic("br0", kind="bridge", lower=["veth1", "enp4s0"], index=7)
    machine.nic("enp4s0", NIC)
    assert functions(machine) == ["0000:04:00.0"]


def test_virtual_function_needs_the_physical_one(machine):
    machine.nic("enp4s0v0", NIC.replace("04:00.0", "04:10.0"))
    machine.link("/sys/bus/pci/devices/0000:04:10.0/physfn", NIC)
    machine.addresses(("enp4s0v0", "192.0.2.2/24"))
    connect(machine)
    assert functions(machine) == ["0000:04:10.0", "0000:04:00.0"]


def test_two_interfaces_of_one_function_and_one_on_usb(machine):
    machine.nic("enp4s0", NIC)
    machine.nic("enp4s0d1", NIC, index=3)
    machine.nic("enx525400000007", PCI_PATH + "/0000:00:14.0/usb1/1-2/1-2:1.0", index=4)
    machine.route("enp4s0d1", "0.0.0.0", 0)
    machine.route("enx525400000007", "0.0.0.0", 0)
    assert functions(machine, "VH204") == ["0000:04:00.0", "0000:00:14.0"]


@pytest.mark.parametrize("text, speed", [
    ("10000", 10000), ("-1", None), ("4294967295", None), ("0", None), ("", None), ("fast", None), ("\u0661", None),
])
def test_speed(machine, text, speed):
    machine.nic("enp4s0", NIC)
    assert interfaces(machine)["enp4s0"]["speed"] is None
    machine.write(NIC + "/net/enp4s0/speed", text + "\n")
    assert interfaces(machine)["enp4s0"]["speed"] == speed


@pytest.mark.parametrize("path", ["/proc/net/route", "/proc/net/ipv6_route"])
def test_a_table_copied_as_empty_is_unknown(machine, path):
    machine.nic("enp4s0", NIC)
    assert use(machine)[3] == []
    machine.write(path, "")
    assert [(u["kind"], u["input"]) for u in use(machine)[3]] == [("network", path)]


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
    (tmp_path / "sys/bus/pci/devices/0000:00:19.0").unlink()
    assert collect(Host(str(tmp_path)))["host"]["usage_unknown"] == ["network", "ssh"]


def test_an_interface_that_is_renamed_while_it_is_read(machine):
    machine.nic("enp4s0", NIC, index=7)
    folder = os.path.join(machine.root, "sys/class/net")

    class Renaming(Host):
        def listdir(self, path):
            if path == "/sys/class/net" and not os.path.lexists(folder + "/enp4s0"):
                names = super().listdir(path)
                os.rename(folder + "/eth0", folder + "/enp4s0")
                return names
            return super().listdir(path)

    os.rename(folder + "/enp4s0", folder + "/eth0")
    found = network.read(Inputs(Renaming(machine.root)))["interfaces"]
    assert [interface["name"] for interface in found if interface["function"] == "0000:04:00.0"] == ["enp4s0"]
