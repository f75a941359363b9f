# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Interfaces, routes, and the PCI functions that carry the SSH connection and the default routes.

Addresses come from /proc alone (no command): it lists the local IPv4 addresses without their
interface, which is then the one with the narrowest connected route around the address. What /proc
does not show, and what is done about it:

- IPv4 routes of other tables (policy routing, VRF): fib_trie names their prefixes, not their
  interfaces. A default route in one, or an address in a VRF, may be on any interface that has an
  address, so all of these count.
- further next hops of an IPv4 route: only the first is listed. Losing another one leaves the first,
  so they do not count, but where the host's own address is on no wire (a routed host, which is where
  several next hops are usual) every interface that has an address does.
- the other end of a tunnel: it may be reached by any interface that has an address.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct

from ansible_collections.vfio.host.plugins.module_utils._assignment_state import is_vfio
from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

NET = "/sys/class/net"
READS = 3
"""How often the interfaces are read at most while they change."""
FINDING_SSH = "VH202"
FINDING_ROUTE = "VH204"

RTF_REJECT = 0x200
"""Flag of an unreachable route, Linux include/uapi/linux/route.h."""

DATAPATH = "ovs-system"
"""Interface that Open vSwitch's kernel datapath makes; it is the master of the switch's ports."""

WITHOUT_INTERFACES = ("uio", "igb_uio", "pci-stub")
"""What names of drivers begin with that give the host no interface of a NIC, beside those of vfio."""

OVERLAYS = ("vxlan", "geneve", "gretap", "ip6gretap")
"""Kinds of Ethernet over IP: as a bridge's port one may be the way out, where a guest's tap is not."""


# -- parsing (pure) ------------------------------------------------------------------------


def parse_routes4(text):
    """Main-table routes from /proc/net/route: ``[{network, interface, gateway or None}]``."""
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            if int(fields[3], 16) & RTF_REJECT:
                continue
            destination, gateway, mask = [_host_order(fields[n]) for n in (1, 2, 7)]
            network = ipaddress.ip_network("%s/%s" % (destination, mask), strict=False)
        except (IndexError, ValueError, struct.error):
            continue
        gateway = None if gateway == "0.0.0.0" else gateway
        routes.append({"network": network, "interface": fields[0], "gateway": gateway})
    return routes


def _host_order(digits):
    # The kernel prints the address as a number of its own byte order; ours are little-endian
    return socket.inet_ntoa(struct.pack("<L", int(digits, 16)))


def parse_routes6(text):
    """Routes from /proc/net/ipv6_route (all tables), those over loopback and unreachable ones left out.

    A route with several next hops has a line for each.
    """
    routes = []
    for line in text.splitlines():
        fields = line.split()
        try:
            if int(fields[8], 16) & RTF_REJECT or fields[9] == "lo":
                continue
            gateway = ipaddress.IPv6Address(int(fields[4], 16))
            network = ipaddress.IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False)
        except (IndexError, ValueError):
            continue
        routes.append({"network": network, "interface": fields[9], "gateway": str(gateway) if int(gateway) else None})
    return routes


def parse_fib(text):
    """``{local: [IPv4Address], hidden: [IPv4Address], defaults: [table]}`` from /proc/net/fib_trie.

    ``local`` are the host's own addresses, sorted, each once; ``hidden`` those of them that are in a
    table other than the two usual ones (of a VRF), so that /proc/net/route cannot place them;
    ``defaults`` the other tables that have a default route, by number.
    """
    found = {"Main": set(), "Local": set()}
    defaults = []
    table, prefix = "", None
    for line in text.splitlines():
        words = line.split()
        if line[:1].strip() and line.rstrip().endswith(":"):
            table, prefix = line.strip()[:-1], None
        elif words[:1] == ["|--"] and len(words) == 2:
            prefix = words[1]
        elif words == ["/32", "host", "LOCAL"] and prefix:
            try:
                found.setdefault(table, set()).add(ipaddress.IPv4Address(prefix))
            except ValueError:
                pass
        elif prefix == "0.0.0.0" and len(words) == 3 and (words[0], words[2]) == ("/0", "UNICAST"):
            number = table[len("Id "):]
            if table.startswith("Id ") and number not in defaults:
                defaults.append(number)
    usual = found["Main"] | found["Local"]
    everywhere = set().union(*found.values())
    return {"local": sorted(everywhere), "hidden": sorted(everywhere - usual), "defaults": defaults}


def parse_inet6(text):
    """``[(interface, IPv6Interface)]`` from /proc/net/if_inet6."""
    found = []
    for row in [line.split() for line in text.splitlines()]:
        try:
            address = "%s/%d" % (ipaddress.IPv6Address(int(row[0], 16)), int(row[2], 16))
            found.append((row[5], ipaddress.IPv6Interface(address)))
        except (IndexError, ValueError):
            continue
    return found


def parse_pppoe(text):
    """Names of the interfaces that carry PPP over Ethernet, from /proc/net/pppoe."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return sorted({row[2] for row in rows if len(row) == 3})


def parse_speed(text):
    """Mb/s from the ``speed`` attribute, or None: the kernel says -1, or that unsigned, for unknown."""
    if not (text or "").isascii() or not (text or "").isdigit():
        return None
    return int(text) if 0 < int(text) < 0xFFFFFFFF else None


def place4(addresses, routes, hidden=()):
    """Interfaces that may hold each address: ``[(IPv4Interface, [interface, ...])]``.

    Two interfaces on one network give two; none when no connected route is around the address
    (then the prefix is 32), or when it is ``hidden``, that is, of another table. Routes wider
    than /8 are no sign of an address.
    """
    placed = []
    for address in addresses:
        if address.is_loopback:
            placed.append((ipaddress.IPv4Interface("%s/8" % address), ["lo"]))
            continue
        around = [r for r in routes if not r["gateway"] and r["network"].prefixlen >= 8 and address in r["network"]]
        if address in hidden:
            around = []
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


def _ip(text):
    try:
        return ipaddress.ip_address(text or "")
    except ValueError:
        return None


def holders(server, placed):
    """Names of the interfaces that may hold ``server`` (text); empty when none is known."""
    address = _ip(server)
    if address is None:
        return []
    names = set()
    for interface, candidates in placed:
        if interface.ip == address:
            names.update(candidates)
    return ["lo"] if address.is_loopback else sorted(names)


def ways_to(client, routes):
    """Names of the interfaces that packets to ``client`` may leave by: all of the narrowest route."""
    address = _ip(client)
    if address is None:
        return []
    around = [r for r in routes if r["network"].version == address.version and address in r["network"]]
    longest = max([r["network"].prefixlen for r in around], default=0)
    return list(dict.fromkeys(r["interface"] for r in around if r["network"].prefixlen == longest))


def way_to(client, routes):
    """The first of :func:`ways_to`, or None."""
    return next(iter(ways_to(client, routes)), None)


def ways_down(name, interfaces):
    """Every way from an interface to one without lower ones: ``[(name, ..., lowest)]``.

    No interface is gone through twice: a way that comes to one where another way has been ends
    there, so that every link is on some way, and loops and meshes end.

    :param interfaces: ``{name: interface}``; only ``lower`` is looked at.
    """
    ways = []
    seen = set()
    todo = [(name,)] if name in interfaces else []
    while todo:
        way = todo.pop()
        lower = [] if way[-1] in seen else [n for n in interfaces[way[-1]]["lower"] if n in interfaces]
        seen.add(way[-1])
        if not lower:
            ways.append(way)
        todo += [way + (below,) for below in reversed(lower)]
    return ways


# -- reading -------------------------------------------------------------------------------


def read(inputs):
    """``{interfaces, default_routes}`` as the document has them, and what :func:`use` needs besides.

    ``routes``, ``placed`` (see :func:`place4`), ``hidden_defaults`` (numbers of IPv4 tables),
    ``beneath`` (``{name: [names]}`` below interfaces that have no ``lower`` of their own), ``lines``,
    ``tunnels``, ``overlays`` (see :func:`beneath`) and ``vrf_ports`` (names), ``physfn``
    (``{virtual function: physical one}``), ``unread`` (routing tables that could not be read, by path).
    """
    host = inputs.host
    details = _interfaces(host)
    interfaces = [interface for interface, dummy in details]
    virtual = {found["name"]: more for found, more in details if found["kind"] not in ("physical", "loopback")}
    unread = []
    routes = parse_routes4(_never_empty(inputs, "/proc/net/route", "IPv4 routes unknown", unread))
    if host.exists("/proc/net/ipv6_route"):  # absent without IPv6
        routes += parse_routes6(_never_empty(inputs, "/proc/net/ipv6_route", "IPv6 routes unknown", unread))
    fib = parse_fib(_never_empty(inputs, "/proc/net/fib_trie", "IPv4 addresses unknown", []))
    placed = place4(fib["local"], routes, fib["hidden"])
    placed += [(address, [name]) for name, address in parse_inet6(host.read("/proc/net/if_inet6") or "")]
    for interface in interfaces:
        interface["addresses"] = [str(address) for address, names in placed if names == [interface["name"]]]
    net = {"interfaces": interfaces, "default_routes": default_routes(routes), "routes": routes, "placed": placed}
    net.update(beneath(interfaces, virtual, parse_pppoe(host.read("/proc/net/pppoe") or "")))
    vrfs = {name for name, more in virtual.items() if more["type"] == "vrf"}
    functions = {interface["function"] for interface in interfaces} - {None}
    net.update(
        hidden_defaults=fib["defaults"],
        vrf_ports=[interface["name"] for interface in interfaces if interface["master"] in vrfs],
        physfn={function: above for function in functions for above in [physical_function(host, function)] if above},
        unread=unread,
    )
    return net


def _never_empty(inputs, path, why, unread):
    """Text of a file with a header or an entry always; empty, it was copied by a tool that trusts sizes."""
    text = inputs.host.read(path)
    if not (text or "").strip("\0 \n"):
        inputs.miss(path, why)
        unread.append(path)
        return ""
    return text


def physical_function(host, function):
    """The physical function above a virtual one, or None: without it the virtual one is gone."""
    link = host.readlink("%s/%s/physfn" % (pci.DEVICES, function))
    return link.rstrip("/").rsplit("/", 1)[-1] if link else None


def _interfaces(host):
    """What _interface() gives of each. udev renames one right after its driver made it: then all are read again."""
    for dummy in range(READS):
        names = host.listdir(NET)
        found = [_interface(host, name) for name in names if host.isdir("%s/%s" % (NET, name))]
        if host.listdir(NET) == names:
            break
    return found


def _interface(host, name):
    """``(interface, {type, index, link, tun})``: the document's, and what tells what a virtual one is."""
    home = host.real("%s/%s" % (NET, name))
    entries = host.listdir(home)
    event = pci.parse_uevent(host.read(home + "/uevent") or "")
    mac = host.read_attribute(home + "/address")
    master = host.readlink(home + "/master") if "master" in entries else None
    functions = pci.addresses_in(home)
    mtu = host.read_attribute(home + "/mtu") or ""
    link = host.read_attribute(home + "/iflink") if "device" not in entries else None
    index = event.get("IFINDEX", "")
    interface = {
        "name": name,
        "index": int(index) if re.match(r"[0-9]{1,9}$", index) else None,
        "kind": _kind(name, entries, event),
        "wireless": event.get("DEVTYPE") == "wlan" or "phy80211" in entries,
        "mac": mac or None,
        "permanent_mac": _permanent_mac(host, home, entries, mac),
        "operstate": host.read_attribute(home + "/operstate"),
        "mtu": int(mtu) if re.match(r"[0-9]{1,9}$", mtu) else None,
        "speed": parse_speed(host.read_attribute(home + "/speed")),
        "master": master.rsplit("/", 1)[-1] if master else None,
        "lower": [entry[len("lower_"):] for entry in entries if entry.startswith("lower_")],
        "addresses": [],
        "function": functions[-1] if functions else None,
    }
    return interface, {"type": event.get("DEVTYPE"), "index": index, "link": link, "tun": "tun_flags" in entries}


def beneath(interfaces, virtual, pppoe):
    """``{beneath, lines, tunnels, overlays}``: what virtual interfaces lie on that sysfs gives no ``lower`` for. Pure.

    An internal port of Open vSwitch lies on the ports of the datapath; one end of a veth pair on what
    the other end is a port of; PPP on what carries PPP over Ethernet; others on the interface that
    ``iflink`` names. Of the rest ``tunnels`` are those that IP may carry; a veth whose other end is in
    another network namespace is in neither: nothing is known of it; nor of PPP over a line, in ``lines``.
    """
    by_name = {interface["name"]: interface for interface in interfaces}
    by_index = {str(interface["index"]): interface["name"] for interface in interfaces}
    ports = [interface["name"] for interface in interfaces if interface["master"] == DATAPATH]
    found = {}
    tunnels = []
    lines = []
    for name, more in virtual.items():
        if by_name[name]["lower"] or by_name[name]["kind"] == "bridge":
            continue
        linked = more["link"] not in (None, "", "0", more["index"])
        other = by_index.get(more["link"]) if linked else None
        plain = not more["type"] and not more["tun"] and not linked
        if name == DATAPATH or plain and DATAPATH in by_name and not by_name[name]["master"]:
            found[name] = [port for port in ports if port != name]
        elif other in virtual and virtual[other]["link"] == more["index"]:
            found[name] = [by_name[other]["master"]] if by_name[other]["master"] else []
        elif other:
            found[name] = [other]
        elif more["type"] == "ppp":
            found[name] = pppoe
            lines += [] if pppoe else [name]
        elif not linked:
            tunnels.append(name)
    return {
        "beneath": found,
        "lines": lines,
        "tunnels": tunnels,
        "overlays": [name for name in tunnels if virtual[name]["type"] in OVERLAYS],
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


def between(own, other, network):
    """Names of the interfaces that may carry what ``own`` and ``other`` (addresses, text) exchange.

    Those that may hold our address, as packets come in there, and those that lead to the other
    end, as answers leave there. Where our address is on no wire (on none that is known, or on ``lo``
    as a routed host's) packets may come in by every interface that has an address. ``own`` None: it
    does not matter where packets come in.
    """
    ends = [address for address in (_ip(own), _ip(other)) if address is not None]
    if any(end.is_loopback for end in ends) or _ip(other) in {held.ip for held, dummy in network["placed"]}:
        return ["lo"]  # the machine speaks with itself
    names = [name for name in holders(own, network["placed"]) if name != "lo"]
    ways = ways_to(other, network["routes"])
    if own is not None and not names:
        return list(dict.fromkeys(ways + wired(network)))
    return list(dict.fromkeys(names + ways))


def wired(network):
    """Names of the interfaces that have an address or a route and lead to hardware."""
    known = {name for dummy, names in network["placed"] for name in names} | set(network["vrf_ports"])
    known |= {route["interface"] for route in network["routes"]}
    graph = _graph(network)
    return [name for name in graph if name in known and _on_hardware(ways_down(name, graph), graph)]


def _graph(network):
    """``{name: interface}``, with ``lower`` filled in where sysfs gives none."""
    below = network["beneath"]
    return {
        interface["name"]: dict(interface, lower=interface["lower"] or below.get(interface["name"], []))
        for interface in network["interfaces"]
    }


def _on_hardware(ways, graph):
    return any(graph[name]["kind"] == "physical" for way in ways for name in way)


def carried(name, network):
    """``(ways, why)``: every way from an interface to PCI functions, ``[(interface, ..., function)]``.

    ``why`` is None, or says why it cannot be followed to hardware. No way and None: it needs no PCI
    function. A virtual function's physical one ends a way of its own.
    """
    graph = _graph(network)
    name = name if name in graph else name.split(":")[0]  # an alias such as eth0:1 is no interface
    if name not in graph:
        return [], "there is no interface %s" % name
    ways = ways_down(name, graph)
    why = None
    if name != "lo" and not _on_hardware(ways, graph):
        why = "%s leads to no hardware that is known" % name
    ends = [way for way in ways if way[-1] in network["tunnels"]]
    if why and ends or any(way[-1] in network["overlays"] for way in ends):
        under = [other for other in wired(network) if other != name]
        for other in under:
            ways += [ends[0] + way for way in ways_down(other, graph)]
        if network["lines"]:
            why = "%s may be carried by %s, which names no hardware" % (name, network["lines"][0])
        elif under:
            why = None
    found = []
    for way in ways:
        for place, link in enumerate(way):
            function = graph[link]["function"]
            if function:
                found.append(way[:place + 1] + (function,))
                above = network["physfn"].get(function)
                if above:
                    found.append(found[-1] + (above,))
    return list(dict.fromkeys(found)), why


def held(function, interfaces):
    """Why a function's driver must not be taken for the sake of its interfaces: sentences, empty when nobody has one.

    One that is up, with a link-local address or none and nothing on it, is nobody's.

    :param interfaces: its own, ``[{name, master, upper: [names of what lies on it], addresses}]``.
    """
    found = []
    for interface in interfaces:
        name = interface["name"]
        if interface["master"]:
            found.append("its interface %s is a port of %s" % (name, interface["master"]))
        found += ["%s lies on its interface %s" % (upper, name) for upper in interface["upper"]
                  if upper != interface["master"]]
        own = [address for address in interface["addresses"] if not ipaddress.ip_interface(address).ip.is_link_local]
        if own:
            found.append("its interface %s has the address %s" % (name, ", ".join(own)))
    driver = function["driver"]
    without = not driver or is_vfio(driver) or driver.startswith(WITHOUT_INTERFACES)
    if function["class"].startswith("02") and not interfaces and not without:
        found.append("driver %s has it and no interface of it is here: it may be in another network namespace, that of "
                     "a container" % driver)
    return found


def interfaces_of(address, interfaces):
    """The interfaces of a function in the form that held() takes, out of those of the machine document."""
    return [dict(interface, upper=[other["name"] for other in interfaces if interface["name"] in other["lower"]])
            for interface in interfaces if interface["function"] == address]


def ssh_interfaces(ssh, network):
    """Interfaces that carry the SSH connection, both ways; see :func:`between`."""
    return between(ssh["server"], ssh["client"], network) if ssh["server"] else []


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
    for path in network["unread"]:
        unknowns.append({"kind": "network", "input": path, "why": "it cannot be read, so default routes are unknown"})
    for route in network["default_routes"]:
        what = "default route IPv%d" % route["family"]
        _follow("network", what, route["interface"], FINDING_ROUTE, network, uses, unknowns)
    for table in network["hidden_defaults"]:
        what = "default route IPv4 in routing table %s" % table
        names = wired(network)
        for name in names:
            _follow("network", what, name, FINDING_ROUTE, network, uses, unknowns)
        if not names:
            unknowns.append({"kind": "network", "input": what, "why": "no interface that it may use is known"})
    return uses, unknowns


def _follow(unknown_kind, what, name, finding, network, uses, unknowns):
    ways, why = carried(name, network)
    known = {(use["what"], use["finding"], use["function"]) for use in uses}
    for way in ways:
        if (what, finding, way[-1]) not in known:
            known.add((what, finding, way[-1]))
            uses.append({"kind": "network", "what": what, "chain": [what] + list(way), "function": way[-1],
                         "finding": finding})
    unknown = {"kind": unknown_kind, "input": what, "why": why}
    if why and unknown not in unknowns:
        unknowns.append(unknown)
