# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mount and umount on a recorded host: a device's content is below :data:`CONTENT`, a mount point is a link to it."""

from __future__ import annotations

import os

from ansible_collections.vfio.host.plugins.module_utils._host import Result

CONTENT = "/stand-in/partitions/"
MOUNTS = "/proc/self/mounts"


def run(host, argv, stdin=None):
    """``mount [-t TYPE] [-o OPTIONS] DEVICE FOLDER``"""
    rest = argv[1:]
    options = "rw"
    while rest[0].startswith("-"):
        if rest[0] == "-o":
            options = rest[1]
        rest = rest[2:]
    device, folder = rest
    content = CONTENT + os.path.basename(device)
    lines = [line.split(" ") for line in (host.read(MOUNTS) or "").splitlines()]
    if not host.exists(device):
        return Result(argv, 32, "", "mount: %s: special device %s does not exist.\n" % (folder, device))
    read_only = "ro" in options.split(",")
    for line in lines:
        if host.real(line[0]) == host.real(device) and ("ro" in line[3].split(",")) != read_only:
            return Result(argv, 32, "", "mount: %s: %s already mounted or mount point busy.\n" % (folder, device))
    if host.exists("/run/mount-fails"):
        return Result(argv, 32, "", "mount: %s: wrong fs type, bad option, bad superblock on %s.\n" % (folder, device))
    outside = host.root + folder
    if not os.path.isdir(outside):
        if "X-mount.mkdir" not in options:
            return Result(argv, 32, "", "mount: %s: mount point does not exist.\n" % folder)
        os.makedirs(outside)
    os.rmdir(outside)
    os.symlink(os.path.relpath(host.root + content, os.path.dirname(outside)), outside)
    with open(host.root + MOUNTS, "a", encoding="utf-8") as handle:
        handle.write("%s %s vfat %s 0 0\n" % (device, folder, "ro" if read_only else "rw"))
    return Result(argv, 0)


def umount(host, argv, stdin=None):
    """``umount FOLDER``"""
    folder = argv[1]
    lines = (host.read(MOUNTS) or "").splitlines(True)
    kept = [line for line in lines if line.split(" ")[1] != folder]
    if len(kept) == len(lines):
        return Result(argv, 32, "", "umount: %s: not mounted.\n" % folder)
    os.unlink(host.root + folder)
    os.mkdir(host.root + folder)
    with open(host.root + MOUNTS, "w", encoding="utf-8") as handle:
        handle.write("".join(kept))
    return Result(argv, 0)
