# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_text
short_description: What a machine can assign and why, as text for a terminal
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Tells the state of the IOMMU and why, how many functions can be assigned, which ones, the tree of all functions with
    group and verdict beside each, and every finding with its evidence and what to do about it.
  - Functions that are alike share a line, so that a large server stays readable.
  - Plain ASCII of at most 100 columns, without double quotes and backslashes, which M(ansible.builtin.debug) would
    escape.
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
seealso:
  - plugin: vfio.host.audit_html
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what can be assigned on the host
  ansible.builtin.debug:
    msg: "{{ probe.machine | vfio.host.audit_text(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from ansible_collections.vfio.host.plugins.module_utils._report import terminal
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def audit_text(machine, name=None):
    return call("audit_text", terminal.report, plain(machine, "vfio.host.audit_text: the machine document"), name)


class FilterModule:
    """The filter vfio.host.audit_text."""

    def filters(self):
        return {"audit_text": audit_text}
