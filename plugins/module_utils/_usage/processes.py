# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which processes have device nodes of PCI functions open.

A node is followed by its name to its device and from there to the function on the device's path. Nothing is
opened: of a process only the links in /proc/PID/fd are read, and its name. What it means: holders.py.
"""

from __future__ import annotations

import os
import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci
from ansible_collections.vfio.host.plugins.module_utils._usage import block, ssh

CHARACTER = "/sys/dev/char"
NVIDIA = "/proc/driver/nvidia/gpus"
GROUPS = "/sys/kernel/iommu_groups"

LIMIT = 200000
"""Open files that are looked at, over all processes."""

USBFS = "189:"
"""Character devices of the USB core: their folder has another name than their node."""


def read(inputs):
    """``{PCI address: [{pid, command, node}]}``, or None when not all processes could be looked at."""
    host = inputs.host
    why = _blind(host)
    opened = _opened(host) if why is None else {}
    if why is None and opened is None:
        why = "more than %d open files" % LIMIT
    if why:
        inputs.miss("/proc/*/fd", "which processes have devices open is unknown: " + why)
        return None
    owners = _owners(host, {node for nodes in opened.values() for node in nodes})
    held = {}
    for pid, nodes in sorted(opened.items()):
        wanted = [node for node in sorted(nodes) if owners.get(node)]
        command = ssh.parse_stat(host.read("/proc/%d/stat" % pid))[0] if wanted else None
        for node in wanted:
            for address in owners[node]:
                held.setdefault(address, []).append({"pid": pid, "command": command, "node": node})
    return held


def _blind(host):
    """Why not every process can be looked at, or None."""
    if not host.privileged():
        return "only root sees what others have open"
    if host.live and ssh.parse_stat(host.read("/proc/2/stat"))[0] != "kthreadd":
        return "this is a container that sees its own processes only"
    if not any(host.isdir("/proc/%s/fd" % pid) for pid in host.listdir("/proc") if pid.isdigit()):
        return "there is no /proc/PID/fd"
    return None


def _opened(host):
    """``{pid: {node, ...}}`` of everything open below /dev; None when there is too much."""
    opened, left = {}, LIMIT
    for pid in host.listdir("/proc"):
        if not pid.isdigit() or pid == str(host.pid()):
            continue
        folder = "/proc/%s/fd" % pid
        names = host.listdir(folder)
        left -= len(names)
        if left < 0:
            return None
        nodes = {_node(folder, host.readlink("%s/%s" % (folder, name)) or "") for name in names} - {None}
        if nodes:
            opened[int(pid)] = nodes
    return opened


def _node(folder, target):
    """Path below /dev that a link of /proc/PID/fd leads to, or None; in a recorded tree the link is relative."""
    if target.startswith("../"):
        target = os.path.normpath(folder + "/" + target)
    target = target[:-len(" (deleted)")] if target.endswith(" (deleted)") else target
    return target if target.startswith("/dev/") else None


def _owners(host, nodes):
    """``{node: sorted PCI addresses}`` of those nodes that belong to PCI functions."""
    owners = {}
    names = {os.path.basename(node) for node in nodes}
    for number in host.listdir(CHARACTER) if nodes else ():
        target = host.readlink("%s/%s" % (CHARACTER, number)) or ""
        addresses = pci.addresses_in(target)
        if addresses and (os.path.basename(target) in names or number.startswith(USBFS)):
            event = pci.parse_uevent(host.read("%s/%s/uevent" % (CHARACTER, number)) or "")
            owners["/dev/" + event.get("DEVNAME", os.path.basename(target))] = addresses[-1:]
    for node in nodes:
        group = re.match(r"/dev/vfio/(?:noiommu-)?(\d+)$", node)
        if group:
            owners[node] = _members(host, group.group(1))
    if any(re.match(r"/dev/nvidia\d+$", node) for node in nodes):
        owners.update(_nvidia(host))
    blocks = None
    for node in nodes:
        name = node[len("/dev/"):].replace("/", "!")
        if node not in owners and host.exists("%s/%s" % (block.BLOCK, name)):
            blocks = blocks or block.Blocks(host)
            owners[node] = sorted({way[-1] for way in blocks.down(name)[0] if pci.ADDRESS.match(way[-1])})
    return {node: owners[node] for node in nodes if owners.get(node)}


def _members(host, group):
    """Functions of an IOMMU group; of a mediated device the one that it is part of."""
    folder = "%s/%s/devices" % (GROUPS, group)
    paths = [pci.addresses_in(host.real("%s/%s" % (folder, name))) for name in host.listdir(folder)]
    return sorted({path[-1] for path in paths if path})


def _nvidia(host):
    """``{node: [address]}``: NVIDIA's own driver has no device in sysfs, but tells each GPU's number."""
    owners = {}
    for address in host.listdir(NVIDIA):
        text = host.read("%s/%s/information" % (NVIDIA, address)) or ""
        minor = re.search(r"^Device Minor:\s*(\d+)\s*$", text, re.MULTILINE)
        if minor and pci.ADDRESS.match(address):
            owners["/dev/nvidia" + minor.group(1)] = [address]
    return owners
