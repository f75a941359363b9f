# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What mounted filesystems and swap need, from the mount point down to PCI functions.

A use is ``{kind, what, chain, function, finding}``, see docs/machine_document.md; an unknown is
``{kind, input, why}``: something the host needs and whose function could not be found.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._usage import network
from ansible_collections.vfio.host.plugins.module_utils._usage.block import IN_MEMORY, MOUNTS, Blocks
from ansible_collections.vfio.host.plugins.module_utils._usage.block import lies_on, parse_mounts, unescape

FINDING = "VH201"

REMOTE = ("nfs", "nfs4", "cifs", "smb3", "ceph")
"""Filesystems of the kernel's that lie on a server; those in user space (FUSE) are not followed."""

VIRTIO = {"virtiofs": "virtiofs", "9p": "9pnet_virtio"}
"""Filesystems that a hypervisor gives by a virtio device, and the device's driver."""

INSTANCES = ("ext4", "xfs", "f2fs")
"""Filesystems that have a folder for each mounted device in /sys/fs, in whatever namespace it is mounted."""


def parse_swaps(text):
    """Paths of swap partitions from /proc/swaps; a swap file lies on a mounted filesystem."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [unescape(row[0]) for row in rows if len(row) >= 2 and row[1] == "partition"]


def servers(mount):
    """Addresses of the servers that a network filesystem is on, as its mount options or its source say."""
    if mount["fstype"] == "ceph":
        text = mount["options"].get("mon_addr", "").replace("/", ",") or mount["source"].split("/")[0]
        return re.findall(r"\[([0-9a-fA-F:.]+)\]", text) or re.findall(r"(?<![\w.])(\d+(?:\.\d+){3})(?![\w.])", text)
    return [address.partition("%")[0] for address in [mount["options"].get("addr", "")] if address]


def read(inputs):
    """``(uses, unknowns)`` of every mounted filesystem and every swap partition."""
    blocks = Blocks(inputs.host)
    if not blocks.mounts:
        inputs.miss(MOUNTS, "mounted filesystems are unknown")
    uses, unknowns, dummy = needed(blocks)
    return uses, unknowns


def needed(blocks):
    """``(uses, unknowns, names)``; ``names``: the block devices that are mounted or swapped to."""
    uses, unknowns = [], []
    wanted = _mounted(blocks, uses, unknowns)
    for path in parse_swaps(blocks.host.read("/proc/swaps") or ""):
        found = blocks.find(path)
        if not found:
            unknowns.append(unknown("swap", "%s is no block device that is known" % path))
        for name in found:
            wanted.setdefault(name, "swap")
    for name, fstype in _elsewhere(blocks):
        wanted.setdefault(name, "%s filesystem, mounted where this process does not see it" % fstype)
    if not any(mount["point"] == "/" for mount in blocks.mounts):
        unknowns.append(unknown("/", "no root filesystem is listed in %s" % MOUNTS))
    for name, what in wanted.items():
        follow(blocks, name, what, uses, unknowns)
    return uses, unknowns, list(wanted)


def unknown(what, why, kind="disk"):
    return {"kind": kind, "input": what, "why": why}


def follow(blocks, name, what, uses, unknowns):
    """Add the uses, or the unknowns, of a block device that is needed for ``what``."""
    ways, problems = blocks.down(name)
    uses += [use(what, way) for way in ways]
    unknowns += [unknown(what, why, kind) for kind, why in problems]


def use(what, way):
    chain = [what] + list(way)
    return {"kind": "disk", "what": what, "chain": chain, "function": chain[-1], "finding": FINDING}


def _mounted(blocks, uses, unknowns):
    """``{block device name: mount point}``; of several points the shortest.

    Adds the uses of what is on no block device, and the unknowns. A filesystem is looked at once.
    """
    wanted = {}
    seen = set()
    for mount in sorted(blocks.mounts, key=lambda m: len(m["point"])):
        point, fstype = mount["point"], mount["fstype"]
        key = mount["device"] if fstype != "zfs" else mount["source"].split("/")[0]  # a pool, not each dataset
        if key in seen:
            continue
        if fstype not in IN_MEMORY:
            seen.add(key)
        names, why = blocks.under(mount)
        if not names and not why:
            names, why = _on_no_device(blocks, mount, uses, unknowns)
        if why:
            unknowns.append(unknown(point, why))
        for name in names:
            wanted.setdefault(name, point)
    return wanted


def _on_no_device(blocks, mount, uses, unknowns):
    """``(names, why)`` as Blocks.under(), of a filesystem on the network, from a hypervisor, or over others."""
    point, fstype = mount["point"], mount["fstype"]
    if fstype in REMOTE:
        _remote(blocks, mount, uses, unknowns)
        return [], None
    if fstype in VIRTIO:
        folder = "/sys/bus/virtio/drivers/" + VIRTIO[fstype]
        homes = ["%s/%s" % (folder, name) for name in blocks.host.listdir(folder) if name.startswith("virtio")]
        ways = [way for home in homes for way in blocks.functions(blocks.host.real(home))]
        uses += [use(point, ("%s %s" % (fstype, mount["source"]),) + way) for way in ways]
        if homes:
            return [], None
    if point != "/" or fstype in IN_MEMORY:
        return [], None
    if fstype == "overlay":
        return _overlay(blocks, mount)
    return [], "%s (%s) does not say which disks it is on" % (mount["source"], fstype)


def _remote(blocks, mount, uses, unknowns):
    point, source = mount["point"], "%s (%s)" % (mount["source"], mount["fstype"])
    lost = [] if servers(mount) else ["%s names no address" % source]
    for address in servers(mount):
        ways, why = blocks.reach(address, mount["options"].get("clientaddr") or None)
        uses += [use(point, (source,) + way) for way in ways]
        lost += ["%s: %s" % (source, why)] if why else []
    for why in lost[:1]:
        unknowns += [unknown(point, why, kind) for kind in (("disk", "network") if point == "/" else ("network",))]


def _overlay(blocks, mount):
    """``(names, why)`` of a root that is laid over others: of all the filesystems its folders are on.

    A folder that was mounted only in the initramfs looks as if it were on the overlay itself, or in
    memory: then there is no telling.
    """
    options = mount["options"]
    folders = [f for f in options.get("lowerdir", "").split(":") + [options.get("upperdir", "")] if f]
    names = []
    for folder in folders:
        below = lies_on(folder, blocks.mounts) if folder.startswith("/") else None
        if below is None or below["fstype"] == "overlay":
            return names, "overlay over %s, which is not mounted where it can be seen" % folder
        found, why = blocks.under(below)
        names += found
        if why:
            return names, why
    return names, None if names else "overlay does not say which disks it is on"


def _elsewhere(blocks):
    """``[(name, fstype)]`` of all mounted block devices, as filesystems list them: other namespaces' too."""
    host = blocks.host
    known = set(blocks.names)
    found = [(name, fstype) for fstype in INSTANCES for name in host.listdir("/sys/fs/" + fstype) if name in known]
    for fstype, pattern in (("btrfs", "/sys/fs/btrfs/%s/devices"), ("bcachefs", "/sys/fs/bcachefs/%s")):
        for folder in host.listdir("/sys/fs/" + fstype):
            found += [(name, fstype) for name in blocks.of_filesystem(pattern % folder) if name in known]
    return found


def network_root(host):
    """Why the root filesystem may need the network, or None when it does not."""
    uses, unknowns, dummy = needed(Blocks(host))
    links = set(host.listdir(network.NET))
    for found in uses:
        over = links.intersection(found["chain"][1:-1])
        if found["what"] == "/" and over:
            return "/ is reached over %s" % " ".join(sorted(over))
    kinds = [mount["fstype"] for mount in parse_mounts(host.read(MOUNTS) or "") if mount["point"] == "/"]
    if kinds[-1:] == ["zfs"]:  # may name no disks, but a pool is not reached over a network either
        return None
    return next((found["why"] for found in unknowns if found["input"] == "/"), None)
