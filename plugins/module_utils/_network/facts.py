# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What guards ask of the machine, from the same readers as the machine document: no command, no change."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import network_backend
from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._network.links import read_link
from ansible_collections.vfio.host.plugins.module_utils._usage import network, ssh, storage

UNPLACED = ""
"""Stands for the interface of an address that no connected route leads to."""


def read_network(host):
    """``{interfaces, default_routes, routes, placed, missing}``, see ``_usage/network.py``."""
    inputs = Inputs(host)
    return dict(network.read(inputs), missing=inputs.missing)


def backend(host, net):
    """``(name, evidence)`` of the service that runs the network."""
    found = network_backend.read(Inputs(host), net["interfaces"])
    return found["backend"], found["evidence"]


def addresses(net):
    """``{interface: [cidr]}``; an address that may be on either of two interfaces is given for both."""
    found = {}
    for address, names in net["placed"]:
        for name in names or [UNPLACED]:
            found.setdefault(name, []).append(str(address))
    return found


def gather(host, net):
    """The facts that ``guards.py`` describes."""
    session = ssh.read(Inputs(host))
    network.use(session, net)
    by_name = {interface["name"]: interface for interface in net["interfaces"]}
    carriers = network.ssh_interfaces(session, net)
    if session["client"]:
        # answers leave by the route to the client, which need not be where its packets come in
        carriers = carriers + [network.way_to(session["client"], net["routes"])]
    return {
        "links": {name: read_link(host, name) for name in by_name},
        "addresses": addresses(net),
        "default_routes": net["default_routes"],
        "ssh": session,
        "ssh_links": sorted({link for name in carriers for way in network.ways_down(name, by_name) for link in way}),
        "root": storage.network_root(host),
        "missing": ["%s: %s" % (item["input"], item["why"]) for item in net["missing"]],
    }
