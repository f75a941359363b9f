# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: report
short_description: A plan as text for a terminal
version_added: "0.1.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Tells for each device of a plan its functions, its IOMMU group, the verdict, and every finding with its evidence
    and what to do about it.
positional: machine
options:
  _input:
    description:
      - The plan, from P(vfio.host.plan#filter).
    type: dict
    required: true
  machine:
    description:
      - The machine document the plan was made from, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
seealso:
  - plugin: vfio.host.plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ plan | vfio.host.report(probe.machine) }}"

- name: Stop where the plan is refused
  ansible.builtin.fail:
    msg: "{{ plan | vfio.host.report(probe.machine) | join('\n') }}"
  when: plan.refused
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import report as text
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def report(plan, machine):
    return call(
        "report",
        text.report,
        plain(machine, "vfio.host.report: the machine document"),
        plain(plan, "vfio.host.report: the plan"),
    )


class FilterModule:
    """The filter vfio.host.report."""

    def filters(self):
        return {"report": report}
