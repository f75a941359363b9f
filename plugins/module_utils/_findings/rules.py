# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""All rules in one table, and what they find on a machine. Pure.

Codes are stable: a user can look one up in docs/findings and acknowledge one for one device.
VH1xx: isolation, the IOMMU and the plan itself. VH2xx: what the host needs for itself.
VH3xx: the kernel, the boot and what the host has to give. VH4xx: the device itself.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._findings import devices, gpu, isolation, kernel, usage
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import View, make, rank

RULES = {entry["code"]: entry for part in (isolation, usage, kernel, devices, gpu) for entry in part.RULES}


def evaluate(machine):
    """Every finding of a machine document, the worst first."""
    view = View(machine)
    found = [make(entry, place) for entry in RULES.values() if entry["check"] for place in entry["check"](view)]
    return sorted(found, key=rank)


def finding(code, place):
    """One finding that a check cannot see, made by whoever did. KeyError for a code that is not in the table."""
    return make(RULES[code], place)
