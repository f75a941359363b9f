# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which network service manages the host's links, from its run-time state."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

CGROUPS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice", "/sys/fs/cgroup/unified/system.slice")


def read(inputs, interfaces):
    """``{backend, evidence}``; two services that both manage links are ``unknown``.

    Loopback and virtual links do not count: a service may manage those of containers only.
    """
    host = inputs.host
    links = {i["name"]: i["index"] for i in interfaces if i["kind"] in ("physical", "bridge", "bond", "vlan")}
    managed = {
        "networkd": _networkd(host, links),
        "networkmanager": _networkmanager(host, links),
        "ifupdown": _ifupdown(host, links),
    }
    evidence = ["%s manages %s" % (name, " ".join(links)) for name, links in sorted(managed.items()) if links]
    found = [name for name in sorted(managed) if managed[name]]
    generated = _netplan(host)
    if generated:
        evidence.append("netplan wrote %s" % " ".join(generated))
        if len(found) == 1 and found[0] != "ifupdown":  # netplan drives one of the two others
            found = ["netplan"]
    if not evidence:
        evidence.append("no service was found that manages a link")
    return {"backend": found[0] if len(found) == 1 else "unknown", "evidence": evidence}


def _running(host, unit):
    """True when a systemd service has a control group; without systemd there is nothing to say."""
    if not host.exists("/run/systemd/system"):
        return True
    return any(host.exists("%s/%s" % (folder, unit)) for folder in CGROUPS)


def _networkd(host, links):
    # The folder outlives the service (RuntimeDirectoryPreserve), hence the look at the service
    if not _running(host, "systemd-networkd.service"):
        return []
    managed = []
    for name, index in links.items():
        state = pci.parse_uevent(host.read("/run/systemd/netif/links/%s" % index) or "")
        if state.get("ADMIN_STATE") in ("configured", "configuring", "failed", "initialized"):
            managed.append(name)
    return managed


def _networkmanager(host, links):
    if not _running(host, "NetworkManager.service"):
        return []
    managed = []
    for name, index in links.items():
        state = pci.parse_uevent(host.read("/run/NetworkManager/devices/%s" % index) or "")
        if state.get("managed") in ("true", "yes", "1"):
            managed.append(name)
    return managed


def _ifupdown(host, links):
    """Links that /etc/network/interfaces configures and that are up by it (``ifstate``).

    ifupdown2 keeps no such file: there the configuration alone counts.
    """
    folder = "/etc/network/interfaces.d"
    paths = ["/etc/network/interfaces"] + ["%s/%s" % (folder, name) for name in host.listdir(folder)]
    asked = parse_interfaces("\n".join(host.read(path) or "" for path in paths))
    if not asked:
        return []
    state = host.read("/run/network/ifstate")
    up = {line.split("=")[0].strip() for line in (state or "").splitlines()}
    return [name for name in links if name in asked and (name in up or state is None)]


def parse_interfaces(text):
    """Names in ``iface`` stanzas of interfaces(5), loopback left out."""
    return set(re.findall(r"^\s*iface\s+(\S+)", text, re.MULTILINE)) - {"lo"}


def _netplan(host):
    """Files that netplan generated for the running boot."""
    found = []
    for folder in ("/run/systemd/network", "/run/NetworkManager/system-connections"):
        found += ["%s/%s" % (folder, name) for name in host.listdir(folder) if "netplan-" in name]
    return found
