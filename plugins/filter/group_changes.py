# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: group_changes
short_description: The PCI functions whose IOMMU group differs between two machine documents
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Compares the groups of two documents by their members, never by their numbers, which change from boot to boot.
  - Functions that P(vfio.host.what_if#filter) has moved are recognised; moving alone changes no group.
positional: after
options:
  _input:
    description: The machine document before, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  after:
    description: The machine document after, read later or made by P(vfio.host.what_if#filter).
    type: dict
    required: true
seealso:
  - plugin: vfio.host.what_if
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what another kernel would change
  ansible.builtin.debug:
    msg: "{{ probe.machine | vfio.host.group_changes(probe.machine | vfio.host.what_if(kernel='6.12')) }}"
"""

RETURN = r"""
_value:
  description:
    - One entry for each function with another group, one that is new, or one that is gone. C(address) is its address
      afterwards, C(was) the one before, each null where it was not there. C(before) and C(after) are the members of
      its group, null for none.
  type: list
  elements: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import what_if
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def group_changes(before, after):
    return call(
        "group_changes",
        what_if.compare,
        plain(before, "vfio.host.group_changes: the machine document before"),
        plain(after, "vfio.host.group_changes: the machine document after"),
    )


class FilterModule:
    """The filter vfio.host.group_changes."""

    def filters(self):
        return {"group_changes": group_changes}
