# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: what_if
short_description: The machine document as it would be with other slots, another kernel or another IOMMU setting
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Returns a new machine document with the groups that are predicted under the given assumptions, and the findings and
    verdicts that follow from them. Nothing is changed on the machine.
  - O(remove) is done first, then O(move), then O(add), each in its order.
  - Addresses may be written like V(01:00.0), a slot like V(01:00). Write them in quotes, YAML reads them as numbers.
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine), also one that was saved, or that
        P(vfio.host.explain#filter) made.
    type: dict
    required: true
  override_acs:
    description:
      - Words of C(pcie_acs_override), the option of a patch that is not part of Linux, each V(downstream),
        V(multifunction) or an id like V(id:10de:1380).
      - The document's C(groups) are then those that a kernel with the patch would form. The patch changes what groups
        say and not what hardware does, so C(predicted_groups) stay what they are, and plans go by these.
    type: list
    elements: str
  kernel:
    description:
      - Release or series of another kernel, like V(6.12), whose quirk tables are used; V(all) means all tables.
    type: str
  iommu:
    description:
      - With V(true) it is taken for granted that the firmware offers the IOMMU and that no parameter turns it off.
    type: bool
    default: false
  remove:
    description: Slots whose card is taken out, with everything below it.
    type: list
    elements: str
  move:
    description:
      - Cards that are put into another slot. Each entry has C(device), the slot that the card is in, and C(to), the
        port or bridge of its new slot. What is below the card goes with it, and all of it gets new addresses.
    type: list
    elements: dict
  add:
    description:
      - Cards that are added. Each entry has C(to), a port or bridge, and either C(like), the slot of a card of which
        this is a second one, or C(functions), a list of functions with C(id) (V(10de:1380)) and C(class) (V(030000)).
      - An entry with C(port), a free address, and C(like), a port on the same bus, adds an empty port, as a second slot
        of a processor is one.
    type: list
    elements: dict
seealso:
  - plugin: vfio.host.group_changes
    plugin_type: filter
  - plugin: vfio.host.explain
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what would change if the graphics card were in the other slot
  ansible.builtin.debug:
    msg: "{{ probe.machine | vfio.host.group_changes(probe.machine | vfio.host.what_if(move=moves)) }}"
  vars:
    moves:
      - device: "0000:02:00"
        to: "0000:00:1c.5"

- name: Show the groups with a second card of the same kind on the processor's second port
  ansible.builtin.debug:
    msg: "{{ (probe.machine | vfio.host.what_if(add=cards)).groups }}"
  vars:
    cards:
      - port: "0000:00:01.1"
        like: "0000:00:01.0"
      - to: "0000:00:01.1"
        like: "0000:01:00"
"""

RETURN = r"""
_value:
  description:
    - A machine document. The C(source) of all its groups is V(predicted), and its own C(source) has C(what_if), the
      assumptions, with C(moved), which gives for each address that changed the new one, or null.
  type: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import what_if as assumed
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def what_if(machine, **changes):
    return call(
        "what_if",
        assumed.what_if,
        plain(machine, "vfio.host.what_if: the machine document"),
        plain(changes, "vfio.host.what_if: the assumptions"),
    )


class FilterModule:
    """The filter vfio.host.what_if."""

    def filters(self):
        return {"what_if": what_if}
