# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The display that the host boots on. Pure."""

from __future__ import annotations

FINDING = "VH203"

WITH_OUTPUTS = ("vga", "xga", "display")
"""Classes with a connector to look at; a ``3d`` controller has none."""


def use(functions):
    """``(uses, unknowns)``: the firmware's display, or the only one there is."""
    displays = [function for function in functions if function["class_name"] in WITH_OUTPUTS]
    chosen = [function for function in displays if function["boot_vga"]]
    if not chosen and len(displays) > 1:
        why = "none of %s is marked boot_vga" % " ".join(function["address"] for function in displays)
        return [], [{"kind": "display", "input": "boot display", "why": why}]
    uses = []
    for function in chosen or displays:
        how = "boot_vga" if chosen else "the only display"
        address = function["address"]
        chain = ["boot display", how, address]
        uses.append({"kind": "display", "what": chain[0], "chain": chain, "function": address, "finding": FINDING})
    return uses, []
