# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What mounted filesystems and swap need, from the mount point down to PCI functions.

A use is ``{kind, what, chain, function, finding}``, see docs/machine_document.md; an unknown is
``{kind, input, why}``: something the host needs and whose function could not be found.
"""

from __future__ import annotations

import os
import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

FINDING = "VH201"
MOUNTS = "/proc/self/mountinfo"
BLOCK = "/sys/class/block"

SPANNING = ("btrfs", "bcachefs")
"""Filesystems over several devices: mountinfo gives them an anonymous device number."""

IN_MEMORY = ("tmpfs", "ramfs", "rootfs")


def parse_mounts(text):
    """``[{device, point, fstype, source}]`` from /proc/self/mountinfo; see proc(5)."""
    mounts = []
    for line in text.splitlines():
        left, dummy, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) >= 6 and len(tail) >= 2:
            mounts.append({
                "device": fields[2],
                "point": _unescape(fields[4]),
                "fstype": tail[0],
                "source": _unescape(tail[1]),
            })
    return mounts


def parse_swaps(text):
    """Paths of swap partitions from /proc/swaps; a swap file lies on a mounted filesystem."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [_unescape(row[0]) for row in rows if len(row) >= 2 and row[1] == "partition"]


def _unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def read(inputs):
    """``(uses, unknowns)`` of every mounted filesystem and every swap partition."""
    host = inputs.host
    mounts = parse_mounts(inputs.text(MOUNTS, "mounted filesystems are unknown"))
    wanted, unknowns = _block_devices(host, mounts)
    for path in parse_swaps(host.read("/proc/swaps") or ""):
        wanted.setdefault(_device_name(host, path), "swap")
    if not any(mount["point"] == "/" for mount in mounts):
        unknowns.append(_unknown("/", "no root filesystem is listed in %s" % MOUNTS))
    uses = []
    for name, what in wanted.items():
        for names, home in _chains(host, name):
            why = "%s cannot be followed in %s" % (names[-1], BLOCK)
            functions, why = _hardware(host, home) if home else (None, why)
            if why:
                unknowns.append(_unknown(what, why))
            for function in functions or ():
                chain = [what, _path(host, names[0])] + list(names[1:]) + [function]
                use = {"kind": "disk", "what": what, "chain": chain, "function": function, "finding": FINDING}
                uses.append(use)
    return uses, unknowns


def _unknown(what, why):
    return {"kind": "disk", "input": what, "why": why}


def _block_devices(host, mounts):
    """``({block device name: mount point}, unknowns)``; of several points the shortest."""
    wanted = {}
    unknowns = []
    silent = set()
    for mount in sorted(mounts, key=lambda m: len(m["point"])):
        point = mount["point"]
        devices = []
        if not mount["device"].startswith("0:"):
            link = host.readlink("/sys/dev/block/" + mount["device"])
            if link:
                devices = [os.path.basename(link)]
            else:
                unknowns.append(_unknown(point, "no block device %s in /sys/dev/block" % mount["device"]))
        elif mount["fstype"] in SPANNING:
            devices = _members(host, mount)
        elif mount["fstype"] == "zfs" or (point == "/" and mount["fstype"] not in IN_MEMORY):
            pool = mount["source"].split("/")[0]  # one note for a pool, not one for each dataset
            if pool not in silent:
                unknowns.append(_unknown(point, "%s (%s) does not say which disks it is on" % (pool, mount["fstype"])))
            silent.add(pool)
        for name in devices:
            wanted.setdefault(name, point)
    return wanted, unknowns


def _members(host, mount):
    """All devices of a filesystem that spans several; those of its mount source at least."""
    devices = [_device_name(host, path) for path in mount["source"].split(":")]
    for folder in host.listdir("/sys/fs/btrfs"):
        listed = host.listdir("/sys/fs/btrfs/%s/devices" % folder)
        if devices[0] in listed:
            return listed
    return devices


def _device_name(host, path):
    """Kernel name of /dev/..., links followed; a slash in it is ``!`` in sysfs (cciss!c0d0)."""
    return host.real(path)[len("/dev/"):].replace("/", "!")


def _path(host, name):
    mapped = host.read_attribute("%s/%s/dm/name" % (BLOCK, name))
    return "/dev/mapper/" + mapped if mapped else "/dev/" + name.replace("!", "/")


def _chains(host, name, above=()):
    """Every way down from a block device: ``(names, sysfs folder of the last or None)``.

    A partition leads to its disk; dm, md, bcache and the like to their ``slaves``.
    """
    names = above + (name,)
    if name in above or not host.exists("%s/%s" % (BLOCK, name)):
        yield names, None
        return
    home = host.real("%s/%s" % (BLOCK, name))
    if host.exists(home + "/partition"):
        lower = [os.path.basename(os.path.dirname(home))]
    else:
        lower = host.listdir(home + "/slaves")
    if not lower:
        yield names, home
    for below in lower:
        yield from _chains(host, below, names)


def _hardware(host, home):
    """``(PCI functions, None)`` for a disk's folder, or ``(None, why)`` when they are not known.

    An empty list is an answer: the disk is in memory, in a file, or not on PCI.
    """
    functions = pci.addresses_in(home)
    if functions:
        return functions[-1:], None
    name = os.path.basename(home)
    if "/nvme-subsystem/" in home:  # native multipath: the disk hangs below no controller
        subsystem = os.path.dirname(home)
        controllers = [c for c in host.listdir(subsystem) if re.match(r"nvme\d+$", c)]
        found = [pci.addresses_in(host.real("%s/%s" % (subsystem, c))) for c in controllers]
        if found and all(found):
            return sorted({functions[-1] for functions in found}), None
        return None, "not every controller of %s is on PCI" % name
    if re.match(r"(loop|ram|zram)\d+$", name):
        return [], None  # a loop's file lies on a filesystem that is mounted, and listed, itself
    if "/virtual/" in home or re.search(r"/session\d+/", home):
        return None, "%s is reached through something that names no device" % name
    return [], None
