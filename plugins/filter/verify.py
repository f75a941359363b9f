# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: verify
short_description: Whether a host, after its reboot, is what its plan needs
version_added: "0.1.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Compares a machine document with a plan. Each kernel parameter must be in effect on the running command line (of a
    key that counts once, the last value wins), the IOMMU must be active, each group must hold nothing
    but the device's functions and bridges, and each function must be the very one of the plan and be on C(vfio-pci), or
    on the driver that the plan names for it.
positional: plan, parameters
options:
  _input:
    description:
      - The machine document read after the reboot, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  plan:
    description:
      - The plan, from P(vfio.host.plan#filter).
    type: dict
    required: true
  parameters:
    description:
      - Kernel tokens that must be in effect, such as those of P(vfio.host.iommu_parameters#filter).
    type: list
    elements: str
    default: []
seealso:
  - plugin: vfio.host.plan
    plugin_type: filter
  - plugin: vfio.host.iommu_parameters
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Stop where the host did not come back as planned
  ansible.builtin.assert:
    that: failed_checks | length == 0
    fail_msg: "{{ failed_checks }}"
  vars:
    checks: "{{ probe.machine | vfio.host.verify(plan, probe.machine | vfio.host.iommu_parameters) }}"
    failed_checks: "{{ checks | rejectattr('ok') }}"
"""

RETURN = r"""
_value:
  description:
    - The checks. Each has what was checked (C(check)), whether it holds (C(ok)), and what was C(wanted) and C(found),
      as text.
  type: list
  elements: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import verify as checks
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def verify(machine, plan, parameters=None):
    return call(
        "verify",
        checks.verify,
        plain(machine, "vfio.host.verify: the machine document"),
        plain(plan, "vfio.host.verify: the plan"),
        plain([] if parameters is None else parameters, "vfio.host.verify: parameters"),
    )


class FilterModule:
    """The filter vfio.host.verify."""

    def filters(self):
        return {"verify": verify}
