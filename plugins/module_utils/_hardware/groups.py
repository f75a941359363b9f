# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""IOMMU groups as the kernel formed them.

Group numbers change from boot to boot: they tie functions together inside one document and mean
nothing outside it.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

GROUPS = "/sys/kernel/iommu_groups"
NOIOMMU = "vfio-noiommu"
"""Name of the groups that vfio invents for a host without an IOMMU: no isolation at all."""


def read(inputs, functions):
    """Groups that hold a PCI function: ``[{number, members, source, reasons}]``, by number.

    Fills ``group``, ``group_members`` and ``confidence`` of every function. Members that are not
    PCI functions (platform devices) are listed too: they count for the group like any other.
    """
    host = inputs.host
    found = {}
    for function in functions:
        link = host.readlink("%s/%s/iommu_group" % (pci.DEVICES, function["address"]))
        number = link.rsplit("/", 1)[-1] if link else None
        if number and number not in found:
            found[number] = _members(host, number)
        function["group"] = number if number and found[number] is not None else None
    members = {number: set(names) for number, names in found.items() if names is not None}
    for function in functions:
        if function["group"]:
            members[function["group"]].add(function["address"])
    for function in functions:
        function["group_members"] = sorted(members.get(function["group"], ()))
        function["confidence"] = "actual" if members else "unknown"
    return [
        {"number": number, "members": sorted(members[number]), "source": "actual", "reasons": []}
        for number in sorted(members, key=int)
    ]


def _members(host, number):
    """Names in a group, or None for a group without an IOMMU."""
    if host.read_attribute("%s/%s/name" % (GROUPS, number)) == NOIOMMU:
        return None
    return host.listdir("%s/%s/devices" % (GROUPS, number))
