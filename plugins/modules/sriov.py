#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sriov
short_description: Make the virtual functions of SR-IOV cards for guests, now and at each boot
version_added: "0.3.0"
description:
  - Sets how many virtual functions a physical function has, what the card lets each of them do (MAC address, VLAN,
    trust, spoof check), and gives them to vfio-pci. The physical function stays with the host.
  - The number goes from 0 to the one that is asked, since the kernel takes no other way. What ends virtual functions is
    refused while somebody has one of them, with the name of who it is. The host's drivers are kept off before the first
    one is made.
  - All cards are one transaction. If one step fails, the numbers, settings, drivers and files are what they were, and
    the error has the step and what the kernel said.
  - A card about which a write to sysfs never ended is refused until the next boot; one that is to go back to what it
    was is left with a warning, its files are taken out, and a run after that boot does the rest.
  - Says where the virtual functions will be and in which IOMMU groups, before they are made. Those that would share a
    group are refused, since a guest could not have them alone.
  - Keeps them over a reboot and over a reload of the card's driver, with a unit of systemd, a rule of udev, and a
    script that compares the card first. The script never takes virtual functions away, and leaves those that have a
    driver.
  - Remembers what each card had before (C(/var/lib/vfio-host/sriov.json)), and gives it back with O(state=absent), or
    when a card is taken off the list. A run that was killed is finished or taken back by the next one.
  - A card that guests got meanwhile, or that has no driver of its own, is not touched on the way home. A warning says so,
    and a run after it is the host's again gives back what it had. One that C(/etc/vfio-host/devices) gives to guests at
    the next boot gets no virtual functions back until then either.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  functions:
    description:
      - The physical functions. With O(state=present) this is the whole list that the collection owns; one that is no
        longer listed goes back to what it was.
      - If one of them is not what is asked, or cannot do it, nothing is changed.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description:
          - Address of the physical function, for example V(0000:03:00.0). One that C(/etc/vfio-host/devices) gives to
            guests at the next boot is refused, unless O(functions[].count) is V(0).
        type: str
        required: true
      vendor:
        description: Vendor id, four hexadecimal digits. Another card at this address is refused, now and at each boot.
        type: str
        required: true
      device:
        description: Device id, four hexadecimal digits.
        type: str
        required: true
      serial:
        description: Serial number (C(xx-xx-xx-xx-xx-xx-xx-xx)); compared now and at each boot when it is given.
        type: str
      count:
        description:
          - How many virtual functions there shall be, at most what C(sriov_totalvfs) says.
          - With V(0) the entry may stay when the physical function itself is given to guests, and keeps the record of
            what it had before.
        type: int
        required: true
      driver:
        description:
          - The driver of the virtual functions, V(vfio-pci) or a variant of it like V(mlx5_vfio_pci).
          - V(host) leaves them to the host's own drivers.
        type: str
        default: vfio-pci
      vfs:
        description:
          - What is asked of single virtual functions. What is left out here, the card's driver decides, and what was
            asked earlier and is not any more goes back to what it was.
        type: list
        elements: dict
        default: []
        suboptions:
          index:
            description: Number of the virtual function, from 0.
            type: int
            required: true
          mac:
            description: MAC address. Not two of the list may have the same.
            type: str
          vlan:
            description: VLAN that the card puts its frames into, V(1) to V(4094), or V(0) for none.
            type: int
          qos:
            description: Priority in the VLAN tag, V(0) to V(7). It needs O(functions[].vfs[].vlan).
            type: int
          trust:
            description: Whether the guest may do what the card lets trusted ones only do, like other MAC addresses.
            type: bool
          spoof_check:
            description: Whether the card drops frames that have another sender than its MAC address.
            type: bool
          driver:
            description: The driver of this one, see O(functions[].driver), which it replaces.
            type: str
  state:
    description:
      - V(present) makes the virtual functions of O(functions).
      - V(absent) gives every card back what it had before and takes the files out.
    type: str
    choices: [present, absent]
    default: present
  allow_shared_group:
    description:
      - Accept virtual functions that share their IOMMU group, or of which that is not known, with a warning. Those that
        share it with something that stays on a driver of the host, as the physical function does, no guest can use;
        they are made and get no driver.
    type: bool
    default: false
notes:
  - Whether a driver can make virtual functions at all is known only once it is told to. If it cannot, everything is put
    back, and the error says so.
  - A driver may be busy with its virtual functions for a moment; it is asked again for some seconds. What it does not
    tell then, or a VLAN of another protocol than 802.1Q, is refused, since nothing could give it back.
  - Some drivers take no MAC address away. A virtual function that had none keeps ours then, with a warning, until it is
    made anew.
  - Many cards take their link down for a moment when the number changes. A warning says when the physical function
    carries the SSH connection or a default route.
  - Virtual functions do not exist while the initramfs runs, so they do not belong on the list of
    M(vfio.host.vfio_binding).
  - A virtual function for which C(driverctl) has another driver (C(/etc/driverctl.d)) is refused, with the command that
    takes it out, since its rule of udev would give it that driver first.
  - Right after a boot the unit may still be making them. It is waited for, up to a minute; if it is not over then, the
    run is refused.
  - With C(vfio_host=off) on the kernel command line nothing is made at boot.
seealso:
  - module: vfio.host.vfio_binding
  - module: vfio.host.guests
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Four virtual functions for guests, two of them with an address and a VLAN
  vfio.host.sriov:
    functions:
      - address: "0000:03:00.0"
        vendor: "8086"
        device: "1572"
        count: 4
        vfs:
          - {index: 0, mac: "52:54:00:12:34:00", vlan: 100}
          - {index: 1, mac: "52:54:00:12:34:01", vlan: 200, trust: true, spoof_check: false}

- name: Eight, of which the first stays with the host
  vfio.host.sriov:
    functions:
      - address: "0000:03:00.0"
        vendor: "8086"
        device: "1572"
        count: 8
        vfs:
          - {index: 0, driver: host}

- name: Give every card back what it had
  vfio.host.sriov:
    state: absent
"""

RETURN = r"""
functions:
  description: The physical functions that are asked for, and those that go back to what they were.
  type: list
  elements: dict
  returned: success
  contains:
    address:
      description: Address of the physical function.
      type: str
    before:
      description: How many virtual functions it had before this run.
      type: int
    count:
      description: How many it has now. In check mode how many it would have.
      type: int
    wanted:
      description: How many were asked for, or null for one that goes back to what it was.
      type: int
vfs:
  description: The virtual functions that are asked for. In check mode as they would be.
  type: list
  elements: dict
  returned: success
  contains:
    address:
      description: Address of the virtual function.
      type: str
    index:
      description: Its number.
      type: int
    pf:
      description: Address of its physical function.
      type: str
    driver:
      description: The driver that it has for guests, V(host) when it is left to the host's drivers, or null for none.
      type: str
    bound:
      description: Whether it is bound to a driver for guests.
      type: bool
    group_members:
      description: All members of its IOMMU group, itself included. Predicted for one that is made by this run.
      type: list
      elements: str
    isolated:
      description: Whether it is alone in its group, or null when that is not known.
      type: bool
    reasons:
      description: Sentences that say why.
      type: list
      elements: str
    mac:
      description: The MAC address that is asked, or null.
      type: str
    vlan:
      description: The VLAN that is asked, or null.
      type: int
    qos:
      description: The priority that is asked, or null.
      type: int
    trust:
      description: The trust that is asked, or null.
      type: bool
    spoof_check:
      description: The spoof check that is asked, or null.
      type: bool
  sample:
    - address: "0000:03:02.0"
      index: 0
      pf: "0000:03:00.0"
      driver: vfio-pci
      bound: true
      group_members: ["0000:03:02.0"]
      isolated: true
      reasons:
        - "0000:03:02.0 (ethernet 8086:154c) is behind 0000:00:01.0 (root port 8086:1901), which isolates: its ACS
          capability is on"
      mac: "52:54:00:12:34:00"
      vlan: 100
      qos: 0
      trust: null
      spoof_check: null
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import read
from ansible_collections.vfio.host.plugins.module_utils._sriov import manage


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
                    "count": {"type": "int", "required": True},
                    "driver": {"type": "str", "default": "vfio-pci"},
                    "vfs": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "index": {"type": "int", "required": True},
                            "mac": {"type": "str"},
                            "vlan": {"type": "int"},
                            "qos": {"type": "int"},
                            "trust": {"type": "bool"},
                            "spoof_check": {"type": "bool"},
                            "driver": {"type": "str"},
                        },
                    },
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allow_shared_group": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: manage.run(Host(), module.params, module.check_mode, read))


if __name__ == "__main__":
    main()
