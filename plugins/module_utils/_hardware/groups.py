# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""IOMMU groups as the kernel formed them.

Group numbers change from boot to boot: they tie functions together inside one document and mean
nothing outside it.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key

GROUPS = "/sys/kernel/iommu_groups"
NOIOMMU = "vfio-noiommu"
"""Name of the groups that vfio invents for a host without an IOMMU: no isolation at all."""


def read(inputs, functions):
    """Groups that hold a PCI function, in the form of the document, by number; without ``reasons``.

    The functions have the number of their group; this fills ``group_members`` and ``confidence``. Members that are not
    PCI functions (platform devices) are listed too: they count for the group like any other.
    """
    host = inputs.host
    found = {}
    if not any(function["group"] for function in functions):
        _from_folders(host, functions)
    for number in {function["group"] for function in functions} - {None}:
        found[number] = _members(host, number)
    for function in functions:
        if function["group"] and found[function["group"]] is None:
            function["group"] = None
    members = {number: set(names) for number, names in found.items() if names is not None}
    for function in functions:
        if function["group"]:
            members[function["group"]].add(function["address"])
    for function in functions:
        function["group_members"] = sorted(members.get(function["group"], ()), key=sort_key)
        function["confidence"] = "actual" if function["group"] else "unknown"
    return [_group(host, number, sorted(members[number], key=sort_key)) for number in sorted(members, key=int)]


def _from_folders(host, functions):
    """Group numbers from the groups' own folders, for a tree whose functions lost their links."""
    owners = {}
    for number in host.listdir(GROUPS):
        if number.isdigit():
            owners.update(dict.fromkeys(host.listdir("%s/%s/devices" % (GROUPS, number)), number))
    for function in functions:
        function["group"] = owners.get(function["address"])


def _group(host, number, members):
    return {
        "number": number,
        "members": members,
        "source": "actual",
        "confidence": "actual",
        "reasons": [],
        "bounds": None,
        "type": host.read_attribute("%s/%s/type" % (GROUPS, number)) or None,
        "reserved_regions": parse_reserved(host.read("%s/%s/reserved_regions" % (GROUPS, number))),
    }


def parse_reserved(text):
    """``[{start, end, type}]`` from a ``reserved_regions`` file, None without one."""
    if text is None:
        return None
    regions = []
    for line in text.splitlines():
        fields = line.split()
        try:
            regions.append({"start": int(fields[0], 16), "end": int(fields[1], 16), "type": fields[2]})
        except (IndexError, ValueError):
            continue
    return regions


def _members(host, number):
    """Names in a group, or None for a group without an IOMMU."""
    if host.read_attribute("%s/%s/name" % (GROUPS, number)) == NOIOMMU:
        return None
    return host.listdir("%s/%s/devices" % (GROUPS, number))
