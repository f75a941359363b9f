# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Kernel parameters that turn the IOMMU on, and how to read a running command line. Pure."""

from __future__ import annotations

MANY_VALUED = ("console", "earlycon", "initcall_blacklist", "module_blacklist", "modprobe.blacklist", "pci",
               "rd.driver.pre", "systemd.mask", "systemd.wants", "video")
"""Keys that may stand on a command line several times, each with its own effect."""


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
        "AMD-Vi in the firmware setup (docs/findings.md#vh120)" % (table,)
    )


def tokens(cmdline):
    """The kernel's tokens of a command line, as written: double quotes keep spaces together, ``--`` ends them."""
    result = []
    token = ""
    quoted = False
    for char in cmdline.strip() + " ":
        if char == '"':
            quoted = not quoted
        if char.isspace() and not quoted:
            if token == "--":
                break
            if token:
                result.append(token)
            token = ""
        else:
            token += char
    return result


def effective(cmdline, wanted):
    """What the command line says about the key of one wanted token: its last token, or None.

    For a key that may stand several times: ``wanted`` itself when it is there.
    """
    key = _key(wanted)
    same = [token for token in tokens(cmdline) if _key(token) == key]
    if "=" in wanted and key in MANY_VALUED:
        return wanted if wanted in same else None
    return same[-1] if same else None


def _key(token):
    """The name before ``=``; the kernel takes - and _ in it as the same."""
    return token.split("=")[0].strip('"').replace("-", "_")
