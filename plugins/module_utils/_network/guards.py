# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What must hold before a link is touched. Pure: facts in, reasons to refuse out. Unknown means refuse.

``facts`` is ``{links: {name: link}, addresses: {name: [cidr]}, default_routes: [{family, interface, gateway}],
ssh: {client, server, interface, unknown: bool}, ssh_links: [names the connection runs over], root: reason|None,
missing: [what could not be read]}``; an address that is on no known interface is under ``UNPLACED``.
"""

from __future__ import annotations

import ipaddress
import re

from ansible_collections.vfio.host.plugins.module_utils._network.facts import UNPLACED
from ansible_collections.vfio.host.plugins.module_utils._network.links import ARPHRD_ETHER, NET_ADDR_RANDOM


def refusals(bridge, facts, ours, released=()):
    """Reasons not to build or change ``bridge``.

    :param ours: bridge name -> ports, as our files on the host have them.
    :param released: ports of ours that this change takes out of the bridge.
    """
    name = bridge["name"]
    links = facts["links"]
    found = []
    live = links.get(name)
    if live is not None and not live["bridge"]:
        found.append("%s is an interface already and no bridge: choose another name" % name)
    elif live is not None and name not in ours:
        found.append(
            "%s exists already and was not made by this collection: use it as it is, choose another name, or remove it"
            % name
        )
    found += _machine(facts)
    for port in bridge["ports"]:
        found += _port(port, bridge, facts, ours)
    found += _connection([name] + bridge["ports"] + list(released), facts)
    for address in bridge["addresses"]:
        found += _overlap(address, name, bridge["ports"], facts)
    return ["bridge %s: %s" % (name, reason) for reason in found]


def removal_refusals(name, ports, facts):
    """Reasons not to remove our bridge ``name`` with our ``ports``."""
    live = facts["links"].get(name)
    found = _connection([name] + list(ports), facts)
    guests = [port for port in (live["ports"] if live else []) if port not in ports]
    if guests:
        found.append(
            "%s still %s: shut down the guests or take these ports out first"
            % (", ".join(guests), "uses it" if len(guests) == 1 else "use it")
        )
    if live and not live["bridge"]:
        found.append("the interface of that name is no bridge")
    if live and live["uppers"]:
        found.append("%s sits on top of it: remove that first" % ", ".join(live["uppers"]))
    found += _machine(facts)
    for family in (4, 6):
        through = [r["interface"] for r in facts["default_routes"] if r["family"] == family]
        if name in through and all(interface == name for interface in through):
            found.append("it carries the only IPv%d default route of this host" % family)
    return ["bridge %s: %s" % (name, reason) for reason in found]


def _machine(facts):
    found = ["%s cannot be read, so nothing is touched" % missing for missing in facts["missing"]]
    if facts["root"]:
        found.append("the root filesystem may need the network: %s" % facts["root"])
    return found


def _port(port, bridge, facts, ours):
    name = bridge["name"]
    link = facts["links"].get(port)
    if link is None:
        known = [other for other, found in sorted(facts["links"].items()) if found and found["bus"]]
        return ["port %s does not exist; network interfaces here: %s" % (port, ", ".join(known) or "none")]
    found = []
    if link["wireless"]:
        found.append("port %s is wireless: an access point drops the frames of guests' addresses" % port)
    elif link["type"] != ARPHRD_ETHER or not link["bus"] or link["bridge"]:
        found.append("port %s is no physical Ethernet interface on PCI or USB" % port)
    if link["master"] not in (None, name):
        found.append("port %s is in use by %s: take it out there first" % (port, link["master"]))
    for other in sorted(ours):
        if other != name and port in ours[other]:
            found.append("port %s belongs to our bridge %s: remove that one first" % (port, other))
    others = [upper for upper in link["uppers"] if upper != name]
    if others:
        found.append("port %s has %s on top, which would lose its network" % (port, ", ".join(others)))
    if bridge["mac"] is None and port == bridge["ports"][0] and link["assigned"] == NET_ADDR_RANDOM:
        found.append("port %s has another random address after each boot: give the bridge a mac" % port)
    twins = [
        other["name"] for other in facts["links"].values() if other and other["bus"] and other["mac"] == link["mac"]
    ]
    if len(twins) > 1:
        twins.remove(port)
        found.append("port %s has the same MAC address as %s" % (port, ", ".join(sorted(twins))))
    for route in facts["default_routes"]:
        if route["interface"] == port:
            found.append(
                "port %s carries the IPv%d default route: use another interface, or move the route first"
                % (port, route["family"])
            )
    lost = [address for address in facts["addresses"].get(port, []) if not _interface(address).ip.is_link_local]
    mine = [_interface(address).ip for address in bridge["addresses"]]
    adrift = [a for a in facts["addresses"].get(UNPLACED, []) if _interface(a).ip not in mine]
    if adrift and link["up"] and link["master"] != name:
        found.append("%s is on no interface that can be told, so perhaps on port %s" % (", ".join(adrift), port))
    if lost:
        found.append(
            "port %s has %s, which it would lose: take the address off the interface and give it in addresses"
            % (port, ", ".join(lost))
        )
    return found


def _connection(touched, facts):
    ssh = facts["ssh"]
    if ssh["unknown"]:
        return ["this is an SSH connection, but not known over which interface: nothing is touched"]
    return [
        "%s carries the SSH connection from %s: use another interface" % (interface, ssh.get("client"))
        for interface in touched
        if interface in facts["ssh_links"]
    ]


def _overlap(address, name, ports, facts):
    """A network that is reached elsewhere already: two routes to it, and answers may leave by the wrong one."""
    wanted = _interface(address).network
    found = []
    for other in sorted(facts["addresses"]):
        if other in ports or other in (name, UNPLACED):
            continue
        for text in facts["addresses"][other]:
            there = _interface(text)
            if not there.ip.is_link_local and there.version == wanted.version and there.network.overlaps(wanted):
                found.append("addresses: %s is in the network of %s on %s" % (address, text, other))
    for what, text in (
        [("the SSH client", facts["ssh"].get("client"))]
        + [("the gateway", r["gateway"]) for r in facts["default_routes"] if r["interface"] != name]
    ):
        ip = _interface(text).ip if text else None
        if ip is not None and not ip.is_link_local and ip in wanted:
            found.append("addresses: %s would move %s %s to the bridge" % (address, what, ip))
    return found


def _interface(text):
    return ipaddress.ip_interface(re.sub("%[^/]*", "", str(text)))  # fe80::1%eth0/64: the zone is no part of it
