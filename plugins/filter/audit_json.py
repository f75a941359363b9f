# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_json
short_description: A machine document as the text of a file
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - The document as JSON that does not differ from one run to the next while the machine stays as it is. What changes
    by itself, the free memory and the power states of functions, is V(null) in it, which means unknown.
  - Every filter that takes a machine document takes this one, once P(ansible.builtin.from_json#filter) has read it.
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
seealso:
  - plugin: vfio.host.audit_html
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Keep the document
  ansible.builtin.copy:
    content: "{{ probe.machine | vfio.host.audit_json }}"
    dest: "{{ inventory_hostname | vfio.host.audit_file('json') }}"
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: JSON.
  type: str
"""

from ansible_collections.vfio.host.plugins.module_utils._report import saved
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def audit_json(machine):
    return call("audit_json", saved.text, plain(machine, "vfio.host.audit_json: the machine document"))


class FilterModule:
    """The filter vfio.host.audit_json."""

    def filters(self):
        return {"audit_json": audit_json}
