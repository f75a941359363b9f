# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What a kernel command line, as a list of tokens, says about the IOMMU. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens


def options(line, name):
    """``[(option, token)]`` of all occurrences of a key with comma-separated options, in order."""
    return [(option, token) for token in line if tokens.key(token) == name
            for option in (tokens.value(token) or "").split(",")]


def turned_off(line, table):
    """Tokens that turn the IOMMU off and that no other parameter outweighs.

    ``iommu=off`` stays (iommu_setup of the kernel has nothing that takes it back), and so does ``amd_iommu=off``.
    A later ``intel_iommu=on`` outweighs ``intel_iommu=off``, so that is none of them.
    """
    names = {"DMAR": ("iommu",), "IVRS": ("iommu", "amd_iommu")}.get(table, ())
    return list(dict.fromkeys(token for name in names for option, token in options(line, name) if option == "off"))


def intel_state(line):
    """``on`` or ``off``, the last word that the line has about an Intel IOMMU, or None."""
    found = [option for option, dummy in options(line, "intel_iommu") if option in ("on", "off")]
    return found[-1] if found else None


def intel_default(config):
    """What the kernel does with an Intel IOMMU unasked: ``on``, ``but graphics``, ``off``; None when unknown.

    :param config: ``{option: y, m or n}`` of the kernel's configuration, or None.
    """
    config = config or {}
    if config.get("INTEL_IOMMU_DEFAULT_ON") == "y":
        return "on"
    if config.get("INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF") == "y":  # Debian's own
        return "but graphics"
    return "off" if config.get("INTEL_IOMMU_DEFAULT_ON") == "n" else None


def remapping_off(line):
    """The token that turns the remapping of interrupts off, or None: the last word counts (setup_irqremap)."""
    found = None
    for token in line:
        if tokens.key(token) == "nointremap":
            found = token
        elif tokens.key(token) == "intremap":
            for option in (tokens.value(token) or "").split(","):
                found = token if option == "off" else None if option == "on" else found
    return found
