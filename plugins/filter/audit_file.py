# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_file
short_description: File name of a host's audit
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - The host's own name where that is a safe file name. Else it is made safe, with a part that tells it from others,
    so that no host writes outside the folder or over another's files.
positional: suffix
options:
  _input:
    description:
      - Name of the host in the inventory.
    type: str
    required: true
  suffix:
    description:
      - V(html) or V(json).
    type: str
    required: true
seealso:
  - plugin: vfio.host.audit_index
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show where the page is
  ansible.builtin.debug:
    msg: "{{ inventory_hostname | vfio.host.audit_file('html') }}"
"""

RETURN = r"""
_value:
  description: A file name without a folder.
  type: str
  sample: desk1.html
"""

from ansible_collections.vfio.host.plugins.module_utils._report import index
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call


def audit_file(host, suffix):
    return call("audit_file", index.file_name, host, suffix)


class FilterModule:
    """The filter vfio.host.audit_file."""

    def filters(self):
        return {"audit_file": audit_file}
