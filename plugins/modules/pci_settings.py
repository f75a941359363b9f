#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pci_settings
short_description: How PCI functions are reset, and whether they may be switched off, now and at each boot
version_added: "0.3.0"
description:
  - Sets the reset methods of PCI functions and their order, and whether the kernel may switch a function off while it
    is idle (D3cold). Sets them now, reads them back, and keeps them over a reboot with a file of its own for C(udev).
  - Goes by address and identity together, now and at each boot. Another card at the address is refused, and a rule
    counts only while a card of this make is there.
  - Remembers what each function had before, and gives it back with O(state=absent), or when a function or one of its
    settings is taken off the list.
  - Where one of the settings does not come out, all of them and the rules are put back.
  - Does not ask who has a function, since neither setting disturbs a guest that runs with it. The kernel looks which of
    the methods the function has, without a reset and without its lock, and takes their order at the next reset, which is
    when the guest closes or resets it. At most the function is woken up for that, as C(lspci) does.
  - A function about which a write to sysfs never ended is refused until the next boot; one that is to go back to what it
    was is left with a warning, and a run after that boot does the rest.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  functions:
    description:
      - The functions. With O(state=present) this is the whole list that the collection owns; one that is no longer
        listed goes back to what it was.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address of the function, for example V(0000:01:00.0). Bridges are refused.
        type: str
        required: true
      vendor:
        description: Vendor id, four hexadecimal digits.
        type: str
        required: true
      device:
        description: Device id, four hexadecimal digits.
        type: str
        required: true
      serial:
        description:
          - Serial number (C(xx-xx-xx-xx-xx-xx-xx-xx)); compared at each run when it is given. The rule for the boot
            goes by address, vendor and device, since not every kernel shows the serial number to C(udev).
        type: str
      reset_method:
        description:
          - The reset methods, in the order in which the kernel shall try them, like V([flr, bus]). Each has to be one
            that the kernel offers for this function; others are refused with those it offers.
          - V([]) takes the ability to reset the function away. Without O(functions[].reset_method) the kernel's own
            order stays, or comes back.
          - V(device_specific) of the module C(vendor-reset) is taken when that module is loaded. The kernel does not
            list it before it was written, so check mode cannot tell whether the module knows this card; a run finds
            out, and puts everything back if not.
          - V(bus) is refused while there are other functions on the bus, like a second one of the card, its virtual
            functions, or another card on a conventional bus. The kernel shows it at boot, and does not do it. An entry
            that was set before virtual functions came stays. Behind a hot-plug port (pciehp) the kernel resets the slot
            of a card with one function instead, and V(bus) is taken.
        type: list
        elements: str
      d3cold_allowed:
        description: Whether the kernel may switch the function off. V(false) keeps it from D3cold.
        type: bool
  state:
    description:
      - V(present) keeps the settings of O(functions).
      - V(absent) takes the rules out and gives each function what it had before.
    type: str
    choices: [present, absent]
    default: present
notes:
  - Needs Linux 5.15 or newer for O(functions[].reset_method).
  - The kernel shows all methods of a function until somebody has written to the file. So the offered ones are those it
    shows now, and those it showed before the first run. If somebody else has left one out before, write the word
    C(default) into the file of the function once, by hand.
  - The ports above a function that may not be switched off are not switched off either.
  - V(bus) cannot come back on the way home while others are on the bus. Where these are virtual functions, a warning says
    so, and a run after they are gone gives it back; so does a reboot.
  - Where the kernel takes no longer what a function had before, since the module C(vendor-reset) is gone for example, the
    function gets the kernel's own order back, with a warning.
seealso:
  - module: vfio.host.vfio_binding
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Reset a NIC by FLR only, and never switch it off
  vfio.host.pci_settings:
    functions:
      - address: "0000:03:00.0"
        vendor: "8086"
        device: "10d3"
        reset_method: [flr]
        d3cold_allowed: false

- name: A graphics card that vendor-reset resets
  vfio.host.pci_settings:
    functions:
      - {address: "0000:0a:00.0", vendor: "1002", device: "67df", reset_method: [device_specific]}

- name: Give everything back
  vfio.host.pci_settings:
    state: absent
"""

RETURN = r"""
functions:
  description: The functions that were asked for, and those that go back. In check mode with what they would have.
  type: list
  elements: dict
  returned: success
  contains:
    address:
      description: Address of the function.
      type: str
    reset_method:
      description: The methods in their order, or null where the kernel has no such file.
      type: list
      elements: str
    d3cold_allowed:
      description: Whether the kernel may switch it off, or null where the kernel has no such file.
      type: bool
    managed:
      description: Which of the two the collection keeps from now on.
      type: list
      elements: str
  sample:
    - {address: "0000:03:00.0", reset_method: [flr], d3cold_allowed: false, managed: [reset_method, d3cold_allowed]}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._settings import functions


def main():
    module = AnsibleModule(
        argument_spec={
            "functions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "address": {"type": "str", "required": True},
                    "vendor": {"type": "str", "required": True},
                    "device": {"type": "str", "required": True},
                    "serial": {"type": "str"},
                    "reset_method": {"type": "list", "elements": "str"},
                    "d3cold_allowed": {"type": "bool"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: functions.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
