# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What a bridge is: the asked one, normalised, and how a live one differs from it. Pure.

A *bridge* is ``{name, ports: [name], addresses: [cidr], dhcp: bool, mac: str|None, mtu: int|None,
stp: bool, forward_delay: int}``; a *link* is what ``links.read_link`` returns.
"""

from __future__ import annotations

import ipaddress
import re

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
"""Names taken: IFNAMSIZ leaves 15 bytes; globs, quotes and ``%`` mean something to the backends."""

RESERVED = ("all", "default", "lo")
"""``all`` and ``default`` are folders of /proc/sys/net, no interfaces; ``lo`` is the loopback."""

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


def check_name(name, where):
    """The name itself; ValueError when it can be no interface of ours."""
    if not isinstance(name, str) or not NAME.match(name) or name in RESERVED or name.isdigit():
        raise ValueError(
            "%s: %r is no interface name that can be used here: 1 to 15 characters, letters, digits, '_', '.' and "
            "'-', not only digits, not %s" % (where, name, ", ".join(RESERVED))
        )
    return name


def check_mac(text, where):
    """A unicast MAC address in lower case with colons."""
    mac = str(text).strip().lower().replace("-", ":")
    if not MAC.match(mac) or mac == "00:00:00:00:00:00":
        raise ValueError("%s: %r is no MAC address: write it as 52:54:00:12:34:56" % (where, text))
    if int(mac[:2], 16) & 1:
        raise ValueError("%s: %s is a multicast address: the first byte must be even" % (where, mac))
    return mac


def check_address(text, where):
    """A host address with its prefix length, in its shortest form."""
    try:
        if "/" not in str(text):
            raise ValueError("the prefix length is missing")
        address = ipaddress.ip_interface(str(text).strip())
    except ValueError as exc:
        raise ValueError("%s: %r: %s; write it as 192.0.2.10/24 or 2001:db8::10/64" % (where, text, exc)) from exc
    ip = address.ip
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
        raise ValueError("%s: %s cannot be the address of a bridge" % (where, ip))
    network = address.network
    if ip.version == 4 and network.prefixlen < 31 and ip in (network.network_address, network.broadcast_address):
        raise ValueError("%s: %s is the network's own or broadcast address: give a host's" % (where, address))
    return address.with_prefixlen


def bridge_from(item, state="present"):
    """One entry of the option ``bridges``, checked and complete. ValueError names what is wrong."""
    name = check_name(item.get("name"), "bridges: name")
    where = "bridge %s" % name
    ports = [check_name(port, where + ": ports") for port in item.get("ports") or []]
    if state == "present" and not ports:
        raise ValueError("%s: no ports: name the network interface that the bridge shall use" % where)
    if name in ports or len(set(ports)) != len(ports):
        raise ValueError("%s: ports: %s: each port once, and never the bridge itself" % (where, ", ".join(ports)))
    addresses = []
    for text in item.get("addresses") or []:
        address = check_address(text, where + ": addresses")
        if address not in addresses:
            addresses.append(address)
    mtu = item.get("mtu")
    if mtu is not None and not 576 <= mtu <= 65535:
        raise ValueError("%s: mtu: %d is outside 576 to 65535" % (where, mtu))
    if mtu is not None and mtu < 1280 and any(":" in address for address in addresses):
        raise ValueError("%s: mtu: %d is too small for IPv6, which needs 1280" % (where, mtu))
    stp = bool(item.get("stp"))
    delay = item.get("forward_delay") or 0
    # br_set_forward_delay() refuses anything else while STP is on
    if not 0 <= delay <= 30 or (stp and delay < 2):
        raise ValueError(
            "%s: forward_delay: %d: the kernel takes 0 to 30 seconds, and 2 to 30 with stp; 15 is its own default"
            % (where, delay)
        )
    mac = item.get("mac")
    return {
        "name": name,
        "ports": ports,
        "addresses": addresses,
        "dhcp": bool(item.get("dhcp")),
        "mac": None if mac is None else check_mac(mac, where + ": mac"),
        "mtu": mtu,
        "stp": stp,
        "forward_delay": delay,
    }


def bridges_from(items, state="present"):
    """All entries; ValueError when two are in each other's way."""
    bridges = [bridge_from(item, state) for item in items or []]
    names = [bridge["name"] for bridge in bridges]
    taken = {}
    for bridge in bridges:
        if names.count(bridge["name"]) > 1:
            raise ValueError("bridge %s is named twice: write one entry with all its ports" % bridge["name"])
        for port in bridge["ports"]:
            if port in names:
                raise ValueError("bridge %s: port %s is a bridge of this list itself" % (bridge["name"], port))
            if port in taken:
                raise ValueError(
                    "port %s is named in %s and in %s: it can be in one only" % (port, taken[port], bridge["name"])
                )
            taken[port] = bridge["name"]
    return bridges


def differences(bridge, links, addresses, strangers):
    """How the running network differs from what is asked: list of ``(what, now, wanted)``.

    :param links: name -> link or None. :param addresses: cidrs the bridge has now; the length of a
        prefix is not compared, as it is told from routes.
    :param strangers: name -> file in force for that link although ours should be, or None.
    """
    name = bridge["name"]
    live = links.get(name)
    if live is None:
        return [("bridge %s" % name, "missing", "there")]
    found = []

    def compare(what, now, wanted):
        if now != wanted:
            found.append((what, _word(now), _word(wanted)))

    compare("%s is up" % name, live["up"], True)
    compare("%s mac" % name, live["mac"], bridge["mac"])
    compare("%s stp" % name, live["stp"], bridge["stp"])
    if bridge["stp"]:  # without STP the kernel forwards at once, whatever the delay says
        compare("%s forward_delay" % name, live["forward_delay"], bridge["forward_delay"])
    if bridge["mtu"] is not None:
        compare("%s mtu" % name, live["mtu"], bridge["mtu"])
    there = [ipaddress.ip_interface(address).ip for address in addresses]
    for address in bridge["addresses"]:
        compare("%s address %s" % (name, address), ipaddress.ip_interface(address).ip in there, True)
    for port in bridge["ports"]:
        link = links.get(port)
        if link is None:
            compare("port %s" % port, "missing", "there")
            continue
        compare("port %s master" % port, link["master"], name)
        compare("port %s is up" % port, link["up"], True)
        if bridge["mtu"] is not None:
            compare("port %s mtu" % port, link["mtu"], bridge["mtu"])
    for interface in [name] + bridge["ports"]:
        if strangers.get(interface):
            compare("%s is configured by" % interface, strangers[interface], "our file")
    return found


def _word(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
