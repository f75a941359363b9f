# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: select
short_description: The PCI functions a device entry means
version_added: "0.1.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Evaluates one device entry, as P(vfio.host.plan#filter) takes them, on the machine document.
  - Fails with a table of the candidates when the entry does not select exactly the wanted number of devices.
    The functions of one slot are one device.
positional: spec
requirements:
  - jmespath on the controller, for a device selected by C(match)
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  spec:
    description:
      - The device entry, see O(vfio.host.plan#filter:devices).
    type: dict
    required: true
seealso:
  - plugin: vfio.host.plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the addresses of a graphics card and its audio function
  ansible.builtin.debug:
    msg: "{{ probe.machine | vfio.host.select({'name': 'gpu', 'id': '10de:1380'}) | map(attribute='address') }}"
"""

RETURN = r"""
_value:
  description: The functions as they are in the machine document, sorted by address.
  type: list
  elements: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import select
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching


def select_functions(machine, spec):
    return call(
        "select",
        select,
        plain(machine, "vfio.host.select: the machine document"),
        plain(spec, "vfio.host.select: spec"),
        matching,
    )


class FilterModule:
    """The filter vfio.host.select."""

    def filters(self):
        return {"select": select_functions}
