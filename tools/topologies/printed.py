# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What init.sh prints: read it, and make a recorded tree of it for the probe."""

from __future__ import annotations

import os
import re

BEGIN, END = "vfio.host topology begins", "vfio.host topology ends: "
HEADER = re.compile(r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) [0-9a-f]{4}: ([0-9a-f]{4}):([0-9a-f]{4})")
ROW = re.compile(r"[0-9a-f]{2,3}:((?: [0-9a-f]{2}){16})")
WORDS = ("Path", "Physical function", "IOMMU group")


def read(text):
    """``{kernel, cmdline, tables, functions}``.

    ``tables``: ``{name: bytes}``. ``functions``: ``{address: {vendor, device, config, Path, ...}}``, ``config`` as
    bytes, and of WORDS those that were printed. Raises ValueError for a print that is not whole.
    """
    text = text.replace("\r", "")
    if BEGIN not in text or END not in text:
        raise ValueError("the print has no begin or no end")
    body, dummy, end = text.partition(BEGIN)[2].partition(END)
    found = {"kernel": "", "cmdline": "", "tables": {}, "functions": {}}
    function = {}
    for line in body.splitlines():
        header, row = HEADER.fullmatch(line), ROW.fullmatch(line)
        word, dummy, value = line.strip().partition(": ")
        if header:
            function = {"vendor": header.group(2), "device": header.group(3), "config": b""}
            found["functions"][header.group(1)] = function
        elif row:
            function["config"] += bytes.fromhex(row.group(1))
        elif word in WORDS:
            function[word] = value
        elif word == "Kernel":
            found["kernel"] = value
        elif word == "Command line":
            found["cmdline"] = value
        elif word.startswith("ACPI "):
            found["tables"][word[5:]] = bytes.fromhex(value)
        elif line:
            raise ValueError("a line that is no part of the print: %r" % line)
    if end.split()[:1] != [str(len(found["functions"]))]:
        raise ValueError("%d functions were printed, the end says %r" % (len(found["functions"]), end.splitlines()[0]))
    cut = [address for address, function in found["functions"].items() if len(function["config"]) not in (256, 4096)]
    if cut:
        raise ValueError("configuration space of %s is cut" % " ".join(cut))
    return found


def groups(found):
    """The kernel's groups: a set of frozensets of addresses. Functions in no group are in none."""
    members = {}
    for address, function in found["functions"].items():
        if "IOMMU group" in function:
            members.setdefault(function["IOMMU group"], set()).add(address)
    return {frozenset(group) for group in members.values()}


def parents(found):
    """``{address: address of the bridge above, or None}`` by the nesting of folders in sysfs."""
    above = {}
    for address, function in found["functions"].items():
        names = function["Path"].split("/")[:-1]
        above[address] = names[-1] if names[-1] in found["functions"] else None
    return above


def write_tree(found, root):
    """A recorded tree below ``root``, as docs/machine_document.md has them."""
    _write(root, "/proc/sys/kernel/osrelease", found["kernel"] + "\n")
    _write(root, "/proc/cmdline", found["cmdline"] + "\n")
    for name, data in found["tables"].items():
        _write(root, "/sys/firmware/acpi/tables/" + name, data)
    for address, function in found["functions"].items():
        home = function["Path"]
        _write(root, home + "/vendor", "0x%s\n" % function["vendor"])
        _write(root, home + "/device", "0x%s\n" % function["device"])
        _write(root, home + "/class", "0x%06x\n" % int.from_bytes(function["config"][9:12], "little"))
        _write(root, home + "/config", function["config"])
        _link(root, "/sys/bus/pci/devices/" + address, home)
        if "Physical function" in function:
            _link(root, home + "/physfn", found["functions"][function["Physical function"]]["Path"])
        if "IOMMU group" in function:
            group = "/sys/kernel/iommu_groups/" + function["IOMMU group"]
            _link(root, home + "/iommu_group", group)
            _link(root, "%s/devices/%s" % (group, address), home)


def _outside(root, path):
    path = os.path.join(root, path.lstrip("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _write(root, path, data):
    with open(_outside(root, path), "wb") as handle:
        handle.write(data if isinstance(data, bytes) else data.encode("ascii"))


def _link(root, path, target):
    os.symlink(os.path.relpath(target, os.path.dirname(path)), _outside(root, path))
