# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What follows from what was read: predicted groups and reasons, findings, verdicts. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment import judgement
from ansible_collections.vfio.host.plugins.module_utils._findings import rules
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, prediction


def complete(machine):
    """Fill in what follows from the rest: predicted groups, reasons, assignment and findings. Pure.

    ``groups`` holds the kernel's groups or nothing; then the predicted ones take their place.
    """
    functions = machine["functions"]
    machine["predicted_groups"] = prediction.predict(functions, acs.of_machine(machine))
    if machine["groups"]:
        reasons = prediction.explainer(functions)
        for group in machine["groups"]:
            group["reasons"] = reasons(group["members"])
    else:
        machine["groups"] = [dict(group) for group in machine["predicted_groups"]]
        by_address = {function["address"]: function for function in functions}
        for group in machine["groups"]:
            for address in group["members"]:
                by_address[address].update(group_members=group["members"], confidence=group["confidence"])
    _reserve(machine)
    machine["findings"] = rules.evaluate(machine)
    judgement.judge(machine)
    return machine


def _reserve(machine):
    """Set ``rmrr``: by the group's own regions where there are any, else by the firmware's table."""
    listed = machine["host"]["iommu"]["rmrr"]
    tied = {address for region in listed or [] for address in region["functions"]}
    regions = {a: g["reserved_regions"] for g in machine["groups"] for a in g["members"]}
    for function in machine["functions"]:
        known = regions.get(function["address"])
        if function["is_bridge"]:
            function["rmrr"] = False
        elif known is not None:
            function["rmrr"] = any(region["type"] == "direct" for region in known)
        elif listed is not None:
            # The kernel lets USB controllers and displays go (device_rmrr_is_relaxable)
            function["rmrr"] = function["address"] in tied and not function["class"].startswith(("0c03", "03"))
