# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: summary
short_description: What a later run compares a host with
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - The identities and the kernel's own groups of a machine document, without what changes from boot to boot.
  - The site playbook keeps it on the host as C(/var/lib/vfio-host/found.json). The next run of
    M(vfio.host.iommu_info) reads it, and the findings VH150 and VH152 say what changed since.
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep what was found
  ansible.builtin.copy:
    content: "{{ probe.machine | vfio.host.summary | to_nice_json }}\n"
    dest: /var/lib/vfio-host/found.json
    mode: "0644"
"""

RETURN = r"""
_value:
  description:
    - C(functions), for each address its C(id), C(subsystem), C(class) and C(serial), and C(groups), lists of members.
  type: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._hardware.platform import found_summary
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def summary(machine):
    return call("summary", found_summary, plain(machine, "vfio.host.summary: the machine document"))


class FilterModule:
    """The filter vfio.host.summary."""

    def filters(self):
        return {"summary": summary}
