# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Interfaces, routes, and the PCI functions that carry the SSH connection and the default routes.

Addresses come from /proc alone (no command): it lists the local IPv4 addresses without their
interface, which is then the one with the narrowest connected route around the address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

NET = "/sys/class/net"
FINDING_SSH = "VH202"
FINDING_ROUTE = "VH204"

RTF_REJECT = 0x200
"""Flag of an unreachable route, Linux include/uapi/linux/route.h."""


# -- parsing (pure) ------------------------------------------------------------------------


def parse_routes4(text):
    """Main-table routes from /proc/net/route: ``[{network, interface, gateway or None}]``."""
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or int(fields[3], 16) & RTF_REJECT:
            continue
        destination, gateway, mask = [_host_order(fields[n]) for n in (1, 2, 7)]
        routes.append({
            "network": ipaddress.ip_network("%s/%s" % (destination, mask), strict=False),
            "interface": fields[0],
            "gateway": None if gateway == "0.0.0.0" else gateway,
        })
    return routes


def _host_order(digits):
    # The kernel prints the address as a number of its own byte order; ours are little-endian
    return socket.inet_ntoa(struct.pack("<L", int(digits, 16)))


def parse_routes6(text):
    """Routes from /proc/net/ipv6_route, those over loopback and unreachable ones left out."""
    routes = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or int(fields[8], 16) & RTF_REJECT or fields[9] == "lo":
            continue
        gateway = ipaddress.IPv6Address(int(fields[4], 16))
        routes.append({
            "network": ipaddress.IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False),
            "interface": fields[9],
            "gateway": str(gateway) if int(gateway) else None,
        })
    return routes


def parse_local4(text):
    """The host's own IPv4 addresses from /proc/net/fib_trie, sorted, each once."""
    found = set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text))
    return sorted(ipaddress.IPv4Address(address) for address in found)


def parse_inet6(text):
    """``[(interface, IPv6Interface)]`` from /proc/net/if_inet6."""
    rows = [line.split() for line in text.splitlines()]
    return [
        (row[5], ipaddress.IPv6Interface("%s/%d" % (ipaddress.IPv6Address(int(row[0], 16)), int(row[2], 16))))
        for row in rows
        if len(row) >= 6
    ]


def place4(addresses, routes):
    """Interfaces that may hold each address: ``[(IPv4Interface, [interface, ...])]``.

    Two interfaces on one network give two; none when no connected route is around the address
    (then the prefix is 32). Routes wider than /8 are no sign of an address.
    """
    placed = []
    for address in addresses:
        if address.is_loopback:
            placed.append((ipaddress.IPv4Interface("%s/8" % address), ["lo"]))
            continue
        around = [r for r in routes if not r["gateway"] and r["network"].prefixlen >= 8 and address in r["network"]]
        longest = max([r["network"].prefixlen for r in around], default=32)
        names = sorted({r["interface"] for r in around if r["network"].prefixlen == longest})
        placed.append((ipaddress.IPv4Interface("%s/%d" % (address, longest)), names))
    return placed


def default_routes(routes):
    """``[{family, interface, gateway}]`` of the routes to everywhere."""
    return [
        {"family": r["network"].version, "interface": r["interface"], "gateway": r["gateway"]}
        for r in routes
        if r["network"].prefixlen == 0
    ]


def holders(server, placed):
    """Names of the interfaces that may hold ``server`` (text); empty when none is known."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return []
    names = set()
    for interface, candidates in placed:
        if interface.ip == address:
            names.update(candidates)
    return ["lo"] if address.is_loopback else sorted(names)


def way_to(client, routes):
    """Name of the interface that packets to ``client`` leave by, or None."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return None
    around = [r for r in routes if r["network"].version == address.version and address in r["network"]]
    return max(around, key=lambda r: r["network"].prefixlen)["interface"] if around else None


def ways_down(name, interfaces, above=()):
    """Every way from an interface to one without lower ones: ``[(name, ..., lowest)]``.

    :param interfaces: ``{name: interface}``.
    """
    if name in above or name not in interfaces:
        return []
    lower = interfaces[name]["lower"]
    if not lower:
        return [above + (name,)]
    return [way for below in lower for way in ways_down(below, interfaces, above + (name,))]


# -- reading -------------------------------------------------------------------------------


def read(inputs):
    """``{interfaces, default_routes}`` as the document has them, plus ``routes`` and ``placed``."""
    host = inputs.host
    interfaces = [_interface(host, name) for name in host.listdir(NET) if host.isdir("%s/%s" % (NET, name))]
    routes = parse_routes4(inputs.text("/proc/net/route", "IPv4 routes unknown"))
    routes += parse_routes6(host.read("/proc/net/ipv6_route") or "")  # absent without IPv6
    placed = place4(parse_local4(inputs.text("/proc/net/fib_trie", "IPv4 addresses unknown")), routes)
    placed += [(address, [name]) for name, address in parse_inet6(host.read("/proc/net/if_inet6") or "")]
    for interface in interfaces:
        interface["addresses"] = [str(address) for address, names in placed if names == [interface["name"]]]
    return {"interfaces": interfaces, "default_routes": default_routes(routes), "routes": routes, "placed": placed}


def _interface(host, name):
    home = host.real("%s/%s" % (NET, name))
    entries = host.listdir(home)
    event = pci.parse_uevent(host.read(home + "/uevent") or "")
    mac = host.read_attribute(home + "/address")
    master = host.readlink(home + "/master") if "master" in entries else None
    functions = pci.addresses_in(home)
    mtu = host.read_attribute(home + "/mtu") or ""
    return {
        "name": name,
        "index": int(event["IFINDEX"]) if event.get("IFINDEX", "").isdigit() else None,
        "kind": _kind(name, entries, event),
        "wireless": event.get("DEVTYPE") == "wlan" or "phy80211" in entries,
        "mac": mac or None,
        "permanent_mac": _permanent_mac(host, home, entries, mac),
        "operstate": host.read_attribute(home + "/operstate"),
        "mtu": int(mtu) if mtu.isdigit() else None,
        "master": master.rsplit("/", 1)[-1] if master else None,
        "lower": [entry[len("lower_"):] for entry in entries if entry.startswith("lower_")],
        "addresses": [],
        "function": functions[-1] if functions else None,
    }


def _kind(name, entries, event):
    if name == "lo":
        return "loopback"
    if "bridge" in entries:
        return "bridge"
    if "bonding" in entries:
        return "bond"
    if event.get("DEVTYPE") == "vlan":
        return "vlan"
    return "physical" if "device" in entries else "virtual"


def _permanent_mac(host, home, entries, mac):
    """The hardware's own address where sysfs tells it, else None.

    A bond changes its ports' addresses but keeps the old one; type 0 (NET_ADDR_PERM) says that
    the address in use is the hardware's.
    """
    if "bonding_slave" in entries:
        return host.read_attribute(home + "/bonding_slave/perm_hwaddr")
    if "device" in entries and host.read_attribute(home + "/addr_assign_type") == "0":
        return mac or None
    return None


# -- use -----------------------------------------------------------------------------------


def ssh_interfaces(ssh, network):
    """Interfaces that carry the SSH connection: all that may hold the server's address.

    Where the address is on none, or several layers down on none we see, the one that leads to
    the client counts: packets do leave by it.
    """
    if not ssh["server"]:
        return []
    names = holders(ssh["server"], network["placed"])
    if names:
        return names
    way = way_to(ssh["client"], network["routes"])
    return [way] if way else []


def use(ssh, network):
    """``(uses, unknowns)`` of the SSH connection and the default routes; pure.

    Sets ``ssh["interface"]`` and, when its hardware is not found, ``ssh["unknown"]``.
    """
    uses = []
    unknowns = []
    names = ssh_interfaces(ssh, network)
    ssh["interface"] = names[0] if names else None
    what = "SSH %s to %s" % (ssh["client"], ssh["server"])
    if ssh["server"] and not names:
        unknowns.append({"kind": "ssh", "input": what, "why": "no interface has the address"})
    for name in names:
        _follow("ssh", what, name, FINDING_SSH, network, uses, unknowns)
    if any(unknown["kind"] == "ssh" for unknown in unknowns):
        ssh["unknown"] = True
    elif ssh["unknown"]:
        unknowns.append({"kind": "ssh", "input": "SSH session", "why": "its addresses are unknown"})
    for route in network["default_routes"]:
        what = "default route IPv%d" % route["family"]
        _follow("network", what, route["interface"], FINDING_ROUTE, network, uses, unknowns)
    return uses, unknowns


def _follow(unknown_kind, what, name, finding, network, uses, unknowns):
    interfaces = {interface["name"]: interface for interface in network["interfaces"]}
    ways = ways_down(name, interfaces)
    found = False
    for way in ways:
        lowest = interfaces[way[-1]]
        found = found or lowest["kind"] in ("physical", "loopback")
        if lowest["function"]:
            address = lowest["function"]
            chain = [what] + list(way) + [address]
            entry = {"kind": "network", "what": what, "chain": chain, "function": address, "finding": finding}
            if entry not in uses:
                uses.append(entry)
    if not found:
        why = "%s leads to no hardware that is known" % name if ways else "there is no interface %s" % name
        unknowns.append({"kind": unknown_kind, "input": what, "why": why})
