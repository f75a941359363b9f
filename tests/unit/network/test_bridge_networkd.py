# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of systemd-networkd, ours and other people's."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._network import model
from ansible_collections.vfio.host.plugins.module_utils._network.backends import networkd

ETC = "/etc/systemd/network/"
PORT = {"name": "enp4s0", "mac": "52:54:00:00:04:00", "assigned": 0, "bridge": False, "driver": "8139cp", "index": 3}


def files(foreign=(), own=None, link=None, **options):
    item = dict({"name": "br0", "ports": ["enp4s0"], "mac": "52:54:00:00:04:00"}, **options)
    found = networkd.files(
        model.bridge_from(item), {"enp4s0": dict(PORT, **(link or {}))}, {"own": own or {}, "foreign": list(foreign)}
    )
    return {path[len(ETC):]: text for path, text in found.items()}


def test_the_three_files():
    header = networkd.HEADER
    assert files() == {
        "25-vfio-host-br0.netdev": header
        + "\n[NetDev]\nName=br0\nKind=bridge\nMACAddress=52:54:00:00:04:00\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n",
        "25-vfio-host-br0.network": header
        + "\n[Match]\nName=br0\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nConfigureWithoutCarrier=yes\n"
        "IPv6AcceptRA=no\nLinkLocalAddressing=no\n",
        "25-vfio-host-br0-port-enp4s0.network": header
        + "\n[Match]\nPermanentMACAddress=52:54:00:00:04:00\n\n[Link]\nRequiredForOnline=no\n\n"
        "[Network]\nBridge=br0\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    }


def test_a_port_without_an_address_of_its_own_goes_by_name():
    text = files(link={"assigned": 3})["25-vfio-host-br0-port-enp4s0.network"]
    assert "[Match]\nName=enp4s0\n" in text


def test_addresses_and_dhcp():
    text = files(addresses=["192.0.2.1/24", "2001:db8::1/64"], mtu=9000)["25-vfio-host-br0.network"]
    assert "Address=192.0.2.1/24\nAddress=2001:db8::1/64\n" in text and "MTUBytes=9000\n" in text
    assert "LinkLocalAddressing" not in text and "DHCP" not in text
    text = files(dhcp=True)["25-vfio-host-br0.network"]
    assert "DHCP=yes\n" in text and "[DHCPv4]\nClientIdentifier=mac\nRouteMetric=2048\n" in text
    assert "ConfigureWithoutCarrier" not in text and "LinkLocalAddressing" not in text


@pytest.mark.parametrize(
    "name, match, prefix",
    [
        ("10-ssh.network", "Name=enp0s25", "25"),
        ("80-all.network", "Name=*", "25"),
        ("20-wired.network", "Name=en*", "15"),
        ("20-wired.network", "Name=eth0 en?s0 enp4s0", "15"),
        ("10-wired.network", "Name=en*", "05"),
        ("10-wired.network", "Name=en*\nName=", "25"),
        ("10-wired.network", "Name=!en*", "05"),  # does not match the port, but the bridge
        ("10-wired.network", "Name=!en* br*", "25"),
        ("10-mac.network", "MACAddress=5254.0000.0400", "05"),
        ("10-mac.network", "PermanentMACAddress=52-54-00-00-04-00", "05"),
        ("10-mac.network", "MACAddress=52:54:00:00:00:19", "25"),
        ("10-driver.network", "Driver=8139*", "05"),
        ("10-driver.network", "Driver=e1000e\nName=en*", "25"),
        ("10-type.network", "Type=ether", "05"),
        ("10-type.network", "Type=wlan", "25"),
        ("10-kind.network", "Kind=bridge", "05"),
        ("10-kind.network", "Kind=veth", "25"),
        ("10-path.network", "Path=pci-0000:04:00.0", "05"),  # not judged, so it counts
        ("10-path.network", "Path=pci-0000:00:19.0\nName=enp0s25", "25"),
        ("10-empty.network", "", "25"),
    ],
)
def test_other_files_decide_our_number(name, match, prefix):
    text = "# a comment\n[Match]\n%s\n[Network]\nDHCP=yes\n" % match
    assert sorted(files([(ETC + name, text)]))[0].startswith(prefix + "-vfio-host-br0")


def test_a_file_that_comes_before_all_of_ours_is_refused():
    with pytest.raises(ValueError, match="00-all.network matches br0 and enp4s0 .* narrow its .Match."):
        files([(ETC + "00-all.network", "[Match]\nName=*\n")])


def test_a_number_once_chosen_stays():
    own = {ETC + "15-vfio-host-br0.netdev": "x"}
    assert sorted(files(own=own))[0].startswith("15-")


def test_another_netdev_of_that_name_is_refused():
    with pytest.raises(ValueError, match="br0 is defined by /etc/systemd/network/99-x.netdev already"):
        files([(ETC + "99-x.netdev", "[NetDev]\nName=br0\nKind=bridge\n")])


def test_a_name_that_file_names_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="-port-"):
        files(name="br0-port-x")


def test_ownership_is_read_from_file_names():
    own = {ETC + "25-vfio-host-br-lan.netdev": "a", ETC + "25-vfio-host-br-lan-port-x-port-y.network": "b"}
    assert networkd.owned({"own": own, "foreign": []}) == {"br-lan": {"files": own, "ports": ["x-port-y"]}}
