# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: resolve_guests
author:
  - vfio.host contributors (@vfio-host)
version_added: "0.1.0"
short_description: Give guests the PCI functions behind their device names
description:
  - Replaces each device name in a list of guests by the device's name and its functions, as P(vfio.host.plan#filter)
    chose them, which is what M(vfio.host.guests) takes.
  - Fails for a name that the plan does not know, and for one device in two guests that shall both run.
positional: plan
options:
  _input:
    description: Guests; C(devices) of each is a list of device names and may be missing.
    type: list
    elements: dict
    required: true
  plan:
    description: What P(vfio.host.plan#filter) returned.
    type: dict
    required: true
seealso:
  - module: vfio.host.guests
"""

EXAMPLES = r"""
- name: Define and start the guests
  vfio.host.guests:
    guests: "{{ vfio_host_guests | vfio.host.resolve_guests(plan) }}"
"""

RETURN = r"""
_value:
  description: The guests, with C(devices) as dictionaries of C(name) and C(functions).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.vfio.host.plugins.module_utils._guest.resolve import resolve


def resolve_guests(guests, plan):
    try:
        return resolve(guests, plan)
    except ValueError as exc:
        raise AnsibleFilterError("resolve_guests: %s" % exc) from exc


class FilterModule:
    def filters(self):
        return {"resolve_guests": resolve_guests}
