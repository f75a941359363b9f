# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: iommu_parameters
short_description: The kernel parameters a host needs for an active IOMMU
version_added: "0.1.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - V(intel_iommu=on) where the firmware has a DMAR table and the kernel leaves the IOMMU off by itself, or does for all
    one knows, or has V(intel_iommu=off) on its command line, which a later V(intel_iommu=on) outweighs.
  - Nothing where the firmware has an IVRS table. An AMD IOMMU is on by default, and C(amd_iommu=on) is not a valid
    value.
  - The answer does not depend on whether the IOMMU is active already, so that it stays the same from run to run.
  - Fails when the firmware offers no IOMMU, and when the command line has what no parameter outweighs (V(iommu=off),
    V(amd_iommu=off)) or what vfio refuses (V(intremap=off)).
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
seealso:
  - plugin: vfio.host.kernel_parameters
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what has to be on the kernel command line
  ansible.builtin.debug:
    msg: "{{ probe.machine | vfio.host.iommu_parameters }}"
"""

RETURN = r"""
_value:
  description: Tokens of the kernel command line.
  type: list
  elements: str
  sample:
    - intel_iommu=on
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import parameters
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def iommu_parameters(machine):
    document = plain(machine, "vfio.host.iommu_parameters: the machine document")
    return call("iommu_parameters", parameters.iommu_parameters, document)


class FilterModule:
    """The filter vfio.host.iommu_parameters."""

    def filters(self):
        return {"iommu_parameters": iommu_parameters}
