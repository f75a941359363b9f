# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Kernel parameters that turn the IOMMU on, and how to read a running command line. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens


def iommu_parameters(machine):
    """Kernel tokens this machine needs for an active IOMMU.

    AMD needs none: the kernel uses the IOMMU whenever the IVRS table is there, and amd_iommu=on is
    no valid value (kernel-parameters.txt). Raises ValueError when the firmware offers no IOMMU.
    """
    iommu = machine["host"]["iommu"]
    table = iommu.get("firmware_table")
    if table == "DMAR":
        return ["intel_iommu=on"]
    if table == "IVRS" or iommu.get("active"):
        return []
    raise ValueError(
        "host.iommu.firmware_table is %r: the firmware offers no IOMMU, no kernel parameter helps; turn on VT-d or "
        "AMD-Vi in the firmware setup (docs/findings/VH120.md)" % (table,)
    )


def effective(cmdline, wanted):
    """What a command line says about one wanted token: the token itself when it is in force, else the last
    token of the same key, or None.
    """
    line = tokens.for_kernel(tokens.split(cmdline))
    if tokens.has(line, wanted):
        return wanted
    same = [token for token in line if tokens.key(token) == tokens.key(wanted)]
    return same[-1] if same else None
