# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_html
short_description: What a machine can assign and why, as one page of HTML
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - The same as P(vfio.host.audit_text#filter) as a page, with the topology drawn, the IOMMU groups as frames around
    their members, and everything that is known of each function.
  - The page is one file. It has no script and loads nothing, which its content security policy also forbids.
  - It is the same text for the same document.
positional: name
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  name:
    description:
      - What the host is called. The name of its product by default.
    type: str
  plan:
    description:
      - A plan, from P(vfio.host.plan#filter), to show what is asked for.
    type: dict
  index:
    description:
      - File name of the page of P(vfio.host.audit_index#filter), to link back to.
    type: str
seealso:
  - plugin: vfio.host.audit_index
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ probe.machine | vfio.host.audit_html(inventory_hostname) }}"
    dest: "{{ inventory_hostname | vfio.host.audit_file('html') }}"
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: A document of HTML.
  type: str
"""

from ansible_collections.vfio.host.plugins.module_utils._report import html
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def audit_html(machine, name=None, plan=None, index=None):
    return call(
        "audit_html",
        html.page,
        plain(machine, "vfio.host.audit_html: the machine document"),
        name,
        plain(plan, "vfio.host.audit_html: the plan"),
        index,
    )


class FilterModule:
    """The filter vfio.host.audit_html."""

    def filters(self):
        return {"audit_html": audit_html}
