# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module from options to the tree: make, repair, refuse, put back, remove."""

from __future__ import annotations

import json

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._network.bridge import run
from ansible_collections.vfio.host.tests.unit.network.fake_machine import ETC, FakeMachine

NETDEV = ETC + "25-vfio-host-br0.netdev"
NETWORK = ETC + "25-vfio-host-br0.network"
PORT = ETC + "25-vfio-host-br0-port-enp4s0.network"
RECORD = "/var/lib/vfio-host/bridges.json"
BR0 = {"name": "br0", "ports": ["enp4s0"]}


@pytest.fixture
def machine(tmp_path):
    return FakeMachine(tmp_path)


def go(machine, *bridges, state="present", check=False, backend="auto", wait=5):
    params = {"bridges": list(bridges), "state": state, "backend": backend, "wait": wait}
    machine.calls = []
    return run(machine.host, params, check, machine.clock)


def refused(machine, *bridges, **more):
    before = machine.files()
    with pytest.raises((HostError, ValueError)) as caught:
        go(machine, *bridges, **more)
    assert machine.calls == [] and machine.files() == before
    return str(caught.value)


# -- making


def test_a_bridge_is_made(machine):
    result = go(machine, BR0)
    assert result["changed"] and result["backend"] == "networkd"
    assert result["bridges"] == [
        {"name": "br0", "mac": "52:54:00:00:04:00", "ports": ["enp4s0"], "files": [PORT, NETDEV, NETWORK]}
    ]
    assert machine.ports("br0") == ["enp4s0"] and machine.attribute("br0", "address") == "52:54:00:00:04:00"
    assert machine.calls == ["networkctl reload", "networkctl reconfigure enp4s0"]
    assert json.loads(machine.host.read(RECORD)) == {"ports": {"enp4s0": {"up": False, "mtu": 1500}}}


def test_a_second_run_executes_nothing(machine):
    go(machine, BR0)
    before = machine.files()
    result = go(machine, BR0)
    assert not result["changed"] and result["diff"] == [] and machine.calls == []
    assert machine.files() == before and result["bridges"][0]["files"] == [PORT, NETDEV, NETWORK]


def test_check_mode_predicts_and_touches_nothing(machine):
    before = machine.files()
    predicted = go(machine, BR0, check=True)
    assert predicted["changed"] and machine.calls == [] and machine.files() == before
    assert predicted == go(machine, BR0)
    headers = [entry["after_header"] for entry in predicted["diff"]]
    assert headers == [PORT, NETDEV, NETWORK, "br0 in the running network"]


def test_addresses_mtu_and_stp_arrive(machine):
    addresses = ["198.51.100.1/24", "203.0.113.7/32", "2001:db8::1/64"]
    asked = dict(BR0, addresses=addresses, mtu=9000, stp=True, forward_delay=4)
    go(machine, asked)
    assert machine.attribute("br0", "mtu") == machine.attribute("enp4s0", "mtu") == "9000"
    assert machine.attribute("br0", "bridge/stp_state") == "1"
    assert not go(machine, asked)["changed"]


def test_two_bridges_in_one_run(machine):
    go(machine, BR0, {"name": "br1", "ports": ["enp5s0"]})
    assert machine.ports("br0") == ["enp4s0"] and machine.ports("br1") == ["enp5s0"]
    assert machine.calls.count("networkctl reload") == 1


def test_only_the_changed_bridge_is_touched(machine):
    go(machine, BR0)
    go(machine, BR0, {"name": "br1", "ports": ["enp5s0"]})
    assert machine.calls == ["networkctl reload", "networkctl reconfigure enp5s0"]


# -- repairing and changing


def test_a_missing_bridge_comes_back(machine):
    go(machine, BR0)
    machine.delete("br0")
    result = go(machine, BR0)
    assert result["changed"] and machine.ports("br0") == ["enp4s0"]
    assert [entry["before"] for entry in result["diff"]] == ["bridge br0: missing\n"]


def test_a_port_that_left_comes_back(machine):
    go(machine, BR0)
    machine.leave("enp4s0")
    assert go(machine, BR0, check=True)["changed"] and machine.ports("br0") == []
    result = go(machine, BR0)
    assert machine.ports("br0") == ["enp4s0"] and not go(machine, BR0)["changed"]
    assert result["diff"][0]["before"] == "port enp4s0 master: none\n"


@pytest.mark.parametrize(
    "attribute, value, repaired, command",
    [
        ("address", "52:54:00:ff:ff:ff", "52:54:00:00:04:00", "ip link set dev br0 address 52:54:00:00:04:00"),
        ("bridge/stp_state", "1", "0", "ip link set dev br0 type bridge stp_state 0"),
        ("mtu", "1400", "1500", None),
    ],
)
def test_what_networkd_sets_only_once_is_set_again(machine, attribute, value, repaired, command):
    asked = dict(BR0, mtu=1500)
    go(machine, asked)
    machine.set("br0", attribute, value)
    assert go(machine, asked)["changed"]
    assert machine.attribute("br0", attribute) == repaired
    assert command is None or command in machine.calls


def test_a_lost_address_comes_back(machine):
    asked = dict(BR0, addresses=["198.51.100.1/24"])
    go(machine, asked)
    machine.addresses["br0"] = []
    machine.routes()
    assert go(machine, asked)["changed"] and machine.addresses["br0"] == ["198.51.100.1/24"]


def test_a_file_that_was_changed_is_written_again(machine):
    go(machine, BR0)
    text = machine.host.read(NETWORK)
    machine.put(NETWORK, text + "DHCP=yes\n")
    result = go(machine, BR0)
    assert machine.host.read(NETWORK) == text and [d["before_header"] for d in result["diff"]] == [NETWORK]


def test_a_port_can_be_exchanged(machine):
    go(machine, BR0)
    machine.bridge("vnet0")  # any link serves as a guest's
    machine.join("vnet0", "br0")
    result = go(machine, {"name": "br0", "ports": ["enp5s0"], "mac": "52:54:00:00:04:00"})
    assert result["changed"] and machine.ports("br0") == ["enp5s0", "vnet0"]
    assert not machine.host.exists(PORT) and "ip link set dev enp4s0 nomaster down" in machine.calls
    assert list(json.loads(machine.host.read(RECORD))["ports"]) == ["enp5s0"]


@pytest.mark.parametrize(
    "name, attribute, value, what",
    [
        ("br0", "flags", "0x1002", "br0 is up: no"),
        ("br0", "bridge/forward_delay", "1500", "br0 forward_delay: 15"),
        ("enp4s0", "flags", "0x1002", "port enp4s0 is up: no"),
        ("enp4s0", "mtu", "1400", "port enp4s0 mtu: 1400"),
    ],
)
def test_each_difference_is_seen_and_repaired(machine, name, attribute, value, what):
    asked = dict(BR0, mtu=1500, stp=True, forward_delay=4)
    go(machine, asked)
    machine.set(name, attribute, value)
    assert go(machine, asked)["diff"][0]["before"] == what + "\n"
    assert not go(machine, asked)["changed"]


def test_a_port_that_vanishes_meanwhile_fails_the_change(machine):
    machine.vanishing = "enp4s0"
    with pytest.raises(HostError, match="port enp4s0: missing"):
        go(machine, BR0)
    assert not machine.host.exists(NETDEV)


# -- refusing


def test_the_ssh_interface_is_refused(machine):
    message = refused(machine, {"name": "br0", "ports": ["enp0s25"]})
    assert "enp0s25 carries the SSH connection from 192.0.2.9" in message
    assert "carries the IPv4 default route" in message and "192.0.2.2/24, which it would lose" in message


def test_a_port_below_the_ssh_interface_is_refused(machine):
    """SSH over a bond: its lower interface carries the connection too."""
    machine.link("bond0")
    machine.symlink("/sys/class/net/bond0/lower_enp4s0", "/sys/class/net/enp4s0")
    machine.put("/sys/class/net/bond0/bonding/mode", "active-backup 1\n")
    machine.addresses = {"bond0": ["192.0.2.2/24"]}
    machine.defaults = []
    machine.routes()
    assert "enp4s0 carries the SSH connection" in refused(machine, BR0)


def test_an_ssh_connection_over_an_unknown_interface_refuses_all(machine):
    machine.addresses = {}
    machine.defaults = []
    machine.routes()
    assert "not known over which interface" in refused(machine, BR0)


def test_ssh_connection_is_found_in_an_ancestor(machine):
    machine.put("/proc/self/environ", "HOME=/root\0")
    machine.put("/proc/self/stat", "77 (python3) S 70 0 0")
    machine.put("/proc/70/environ", "SSH_CONNECTION=192.0.2.9 50000 192.0.2.2 22\0")
    assert "carries the SSH connection" in refused(machine, {"name": "br0", "ports": ["enp0s25"]})


def test_without_ssh_the_default_route_still_counts(machine):
    machine.put("/proc/self/environ", "HOME=/root\0")
    machine.addresses = {}
    machine.routes()
    message = refused(machine, {"name": "br0", "ports": ["enp0s25"]})
    assert "carries the IPv4 default route" in message and "SSH" not in message


def test_a_port_that_does_not_exist(machine):
    message = refused(machine, {"name": "br0", "ports": ["enp9s0"]})
    assert "port enp9s0 does not exist; network interfaces here: enp0s25, enp4s0, enp5s0" in message


def test_a_bridge_of_others_is_not_taken(machine):
    machine.bridge("br0")
    assert "was not made by this collection" in refused(machine, BR0)


def test_a_bridge_name_that_is_no_bridge(machine):
    assert "is an interface already and no bridge" in refused(machine, {"name": "enp5s0", "ports": ["enp4s0"]})


def test_unreadable_routes_refuse(machine):
    machine.host.remove("/proc/net/route")
    machine.put("/proc/self/environ", "")
    assert "/proc/net/route: IPv4 routes unknown cannot be read" in refused(machine, BR0)


@pytest.mark.parametrize(
    "mountinfo, word",
    [
        ("21 1 0:20 / / rw - nfs4 server:/root rw\n", "nfs4"),
        ("", "no root filesystem"),
    ],
)
def test_a_root_on_the_network_refuses(machine, mountinfo, word):
    machine.put("/proc/self/mountinfo", mountinfo)
    message = refused(machine, BR0)
    assert "the root filesystem may need the network" in message and word in message


def test_a_root_on_iscsi_refuses(machine):
    for path in ("/sys/class/block/sda", "/sys/class/block/sda1", "/sys/dev/block/8:1"):
        machine.host.remove(path)
    machine.disk("platform/host2/session1/target2:0:0/2:0:0:1/block/sda")
    assert "the root filesystem may need the network" in refused(machine, BR0)


def test_a_root_on_zfs_does_not(machine):
    machine.put("/proc/self/mountinfo", "21 1 0:20 / / rw - zfs rpool/root rw\n")
    assert go(machine, BR0)["changed"]


def test_other_backends_are_refused_with_what_was_found(machine):
    index = machine.attribute("enp0s25", "ifindex")
    machine.put("/run/NetworkManager/devices/" + index, "[device]\nmanaged=true\n")
    machine.host.write("/sys/fs/cgroup/system.slice/NetworkManager.service/cgroup.procs", "1\n")
    machine.put("/run/systemd/netif/links/" + index, "ADMIN_STATE=unmanaged\n")
    message = refused(machine, BR0)
    assert "run by: networkmanager (networkmanager manages enp0s25)" in message
    message = refused(machine, BR0, backend="networkd")
    assert "backend networkd was asked for, but this host uses networkmanager" in message


def test_no_service_at_all_is_refused(machine):
    machine.put("/run/systemd/netif/links/" + machine.attribute("enp0s25", "ifindex"), "ADMIN_STATE=unmanaged\n")
    assert "no service was found that manages a link" in refused(machine, BR0)


def test_all_reasons_of_all_bridges_at_once(machine):
    message = refused(machine, {"name": "br0", "ports": ["enp0s25"]}, {"name": "br1", "ports": ["nothere"]})
    assert "bridge br0: " in message and "bridge br1: port nothere" in message


def test_a_bridge_that_carries_ssh_is_not_changed_but_may_stay(machine):
    asked = dict(BR0, addresses=["198.51.100.1/24"])
    go(machine, asked)
    machine.put("/proc/self/environ", "SSH_CONNECTION=198.51.100.9 50000 198.51.100.1 22\0")
    assert not go(machine, asked)["changed"]
    assert "br0 carries the SSH connection" in refused(machine, dict(asked, mtu=1400))
    assert "br0 carries the SSH connection" in refused(machine, BR0, state="absent")


# -- putting back


@pytest.mark.parametrize("broken", ["reload", "reconfigure"])
def test_a_command_that_fails_leaves_all_as_it_was(machine, broken):
    before = machine.files()
    machine.broken = {broken}
    with pytest.raises(HostError, match="%s is broken" % broken):
        go(machine, BR0)
    assert machine.files() == before
    assert not machine.host.exists("/sys/class/net/br0") and not machine.host.exists("/var/lib/vfio-host")


def test_a_port_that_never_joins_leaves_all_as_it_was(machine):
    before = machine.files()
    machine.broken = {"join"}
    with pytest.raises(HostError) as caught:
        go(machine, BR0, wait=3)
    assert "not so after 3 s: port enp4s0 master: none, not br0" in str(caught.value)
    assert "networkd says so" in str(caught.value) and "as they were before" in str(caught.value)
    assert machine.clock.now <= 4 and machine.calls.count("networkctl reload") == 2
    assert machine.files() == before and not machine.host.exists("/sys/class/net/br0")
    assert machine.attribute("enp4s0", "flags") == "0x1002"


def test_a_failed_change_returns_to_the_old_bridge(machine):
    go(machine, BR0)
    before = machine.files()
    machine.broken = {"join"}
    with pytest.raises(HostError, match="port enp5s0 master: none, not br0"):
        go(machine, {"name": "br0", "ports": ["enp4s0", "enp5s0"], "stp": True, "forward_delay": 4})
    assert machine.files() == before and machine.ports("br0") == ["enp4s0"]
    assert machine.attribute("br0", "bridge/stp_state") == "0" and machine.attribute("enp5s0", "flags") == "0x1002"
    machine.broken = set()
    assert not go(machine, BR0)["changed"]


def test_what_cannot_be_put_back_is_said(machine):
    machine.broken = {"join", "delete"}
    with pytest.raises(HostError, match="what could not be put back: ip link delete .* delete is broken"):
        go(machine, BR0)


# -- removing


def test_absent_leaves_the_host_byte_for_byte(machine):
    before = machine.files()
    go(machine, BR0)
    predicted = go(machine, {"name": "br0"}, state="absent", check=True)
    assert machine.ports("br0") == ["enp4s0"] and machine.calls == []
    result = go(machine, {"name": "br0"}, state="absent")
    assert result == predicted and result["changed"] and result["bridges"] == []
    assert machine.files() == before and not machine.host.exists("/var/lib/vfio-host")
    assert not machine.host.exists("/sys/class/net/br0")
    assert machine.attribute("enp4s0", "flags") == "0x1002"
    assert not go(machine, {"name": "br0"}, state="absent")["changed"] and machine.calls == []


def test_absent_gives_back_mtu_and_leaves_an_up_port_up(machine):
    machine.set("enp4s0", "flags", "0x1003")
    go(machine, dict(BR0, mtu=9000))
    go(machine, BR0, state="absent")
    assert machine.attribute("enp4s0", "mtu") == "1500" and machine.attribute("enp4s0", "flags") == "0x1003"


def test_absent_hands_a_port_to_the_file_that_had_it(machine):
    machine.put(ETC + "50-lan.network", "[Match]\nName=enp4s0\n[Network]\nLinkLocalAddressing=no\n")
    machine.reload()
    go(machine, BR0)
    go(machine, BR0, state="absent")
    assert "networkctl reconfigure enp4s0" in machine.calls and machine.attribute("enp4s0", "flags") == "0x1003"


def test_absent_refuses_while_a_guest_is_connected(machine):
    go(machine, BR0)
    machine.bridge("vnet0")
    machine.join("vnet0", "br0")
    assert "vnet0 still uses it" in refused(machine, BR0, state="absent")


def test_absent_refuses_the_only_default_route(machine):
    machine.put("/proc/self/environ", "")
    go(machine, dict(BR0, dhcp=True))
    machine.defaults = [("br0", "198.51.100.254")]
    machine.routes()
    assert "the only IPv4 default route" in refused(machine, BR0, state="absent")
    machine.defaults = [("br0", "198.51.100.254"), ("enp0s25", "192.0.2.1")]
    machine.routes()
    assert go(machine, BR0, state="absent")["changed"]


def test_absent_leaves_a_bridge_of_others_with_a_warning(machine):
    machine.bridge("br0")
    result = go(machine, BR0, state="absent")
    assert not result["changed"] and result["warnings"] == ["br0 was not made by this collection and is left as it is"]


def test_absent_needs_no_running_backend(machine):
    machine.host.remove("/run/systemd/netif/links/" + machine.attribute("enp0s25", "ifindex"))
    assert not go(machine, BR0, state="absent")["changed"]


def test_absent_that_fails_puts_the_bridge_back(machine):
    go(machine, BR0)
    before = machine.files()
    machine.broken = {"delete"}
    with pytest.raises(HostError, match="delete is broken"):
        go(machine, BR0, state="absent")
    assert machine.files() == before and machine.ports("br0") == ["enp4s0"]


def test_a_removal_that_was_cut_short_is_finished(machine):
    """The .netdev goes last: what is left is still known to be ours."""
    before = machine.files()
    go(machine, BR0)
    machine.host.remove(PORT)
    machine.host.remove(NETWORK)
    machine.delete("br0")
    assert go(machine, BR0, state="absent")["changed"]
    assert not machine.host.exists(NETDEV) and machine.files().keys() - before.keys() <= {RECORD}


# -- other people's files


def test_an_earlier_file_in_another_folder_moves_ours_forward(machine):
    machine.put("/run/systemd/network/20-wired.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n")
    assert go(machine, BR0)["bridges"][0]["files"][0].startswith(ETC + "15-vfio-host-br0")
    assert not go(machine, BR0)["changed"]


def test_a_file_hidden_by_etc_does_not_count(machine):
    machine.put("/usr/lib/systemd/network/20-wired.network", "[Match]\nName=en*\n")
    machine.put(ETC + "20-wired.network", "")
    assert go(machine, BR0)["bridges"][0]["files"][0].startswith(ETC + "25-vfio-host-br0")


def test_a_file_that_networkd_prefers_all_the_same_fails_the_change(machine):
    go(machine, BR0)
    machine.netif("enp4s0", "/run/systemd/network/00-late.network")
    result = go(machine, BR0, check=True)
    assert result["diff"][0]["before"] == "enp4s0 is configured by: /run/systemd/network/00-late.network\n"
