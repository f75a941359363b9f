#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mediated_devices
short_description: Make mediated devices and give vGPU types, now and at each boot
version_added: "0.3.0"
description:
  - Makes the mediated devices (mdev) of a function whose driver shares it out, each with its type and UUID. The function
    stays with its driver.
  - Where NVIDIA's driver for vGPU hosts uses no mediated devices, gives a virtual function its vGPU type
    (C(nvidia/current_vgpu_type)). Which of the two a function has, the driver tells.
  - The whole list is one transaction. If one step fails, devices, types and files are what they were, and the error has
    the step and what the kernel said.
  - Nothing that somebody has open is ended or changed; the error names who it is. Mediated devices of others are never
    touched.
  - Keeps them over a reboot and over a reload of the driver, with a unit of systemd, a rule of udev, and a script that
    compares the card first. The script never ends or changes what is there.
  - A function about which a write to sysfs never ended is refused until the next boot; what is to go back to what it was
    there is left with a warning, and a run after that boot does the rest.
  - Remembers what there was before (C(/var/lib/vfio-host/mediated_devices.json)), and gives it back with O(state=absent),
    or when an entry is taken off the list.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  devices:
    description:
      - The mediated devices and vGPU types. With O(state=present) this is the whole list that the collection owns; what is
        no longer listed goes back to what it was.
      - If one of them cannot be had, nothing is changed.
    type: list
    elements: dict
    default: []
    suboptions:
      parent:
        description:
          - Address of the function that is shared out, for example V(0000:00:02.0). Of a card with virtual functions, that
            of one of these; they have to be there.
        type: str
        required: true
      vendor:
        description: Vendor id, four hexadecimal digits. Another card at this address is refused, now and at each boot.
        type: str
        required: true
      device:
        description: Device id, four hexadecimal digits. Of a virtual function its own.
        type: str
        required: true
      serial:
        description: Serial number (C(xx-xx-xx-xx-xx-xx-xx-xx)); compared now and at each boot when it is given.
        type: str
      type:
        description:
          - Id or name of the type. A name has to be that of one type only.
          - Of a mediated device as in C(mdev_supported_types), for example V(i915-GVTg_V5_4) or V(nvidia-35).
          - Of a vGPU as in C(nvidia/creatable_vgpu_types), the number or the name.
        type: str
        required: true
      uuid:
        description:
          - UUID of a mediated device. If it is left out, it is computed from the host's machine id, the parent, the type
            and O(devices[].name), and is the same at each run.
        type: str
      name:
        description:
          - A name of your own, for computing the UUID. Without it the number of the entry among those of one type on one
            parent is taken, so a device changes its UUID when an entry before it is taken out.
        type: str
  state:
    description:
      - V(present) makes what O(devices) asks.
      - V(absent) gives back what there was before and takes the files out.
    type: str
    choices: [present, absent]
    default: present
  mdevctl:
    description:
      - What to do where C(mdevctl) has a definition for one of the UUIDs (C(/etc/mdevctl.d)).
      - V(refuse) changes nothing and names it.
      - V(import) takes it over, and gives it back on the way home. One for another type or parent is refused, and one with
        attributes, since only mdevctl sets these.
    type: str
    choices: [refuse, import]
    default: refuse
notes:
  - What is asked here is kept by the collection's own unit and not by mdevctl, also where that is installed. mdevctl knows a
    parent by its address only, would give a device to whatever card is there, and has no vGPU types. Both work side by side
    on one parent, each with its own UUIDs.
  - Attributes of mediated devices are not set. Leave devices that need some to mdevctl.
  - Types of one card may exclude each other, and how many vGPUs fit is not told before. Where only trying tells, a warning
    says so; if it does not come out, everything is put back.
  - A vGPU's name is looked up among what can be made now. The number is safer.
  - libvirt takes a mediated device by its UUID, and a virtual function with a vGPU type as a PCI device with
    C(managed='no'), since NVIDIA's driver stays bound to it.
  - Right after a boot the unit may still be making them. It is waited for, up to a minute; if it is not over then, the
    run is refused.
  - With C(vfio_host=off) on the kernel command line nothing is made at boot.
  - Mediated devices were tried on an emulated host with a driver made for that, vGPU types against a stand-in of
    NVIDIA's interface only. No real card was tried for this release.
seealso:
  - module: vfio.host.sriov
  - module: vfio.host.guests
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Two mediated devices of an Intel GPU
  vfio.host.mediated_devices:
    devices:
      - {parent: "0000:00:02.0", vendor: "8086", device: "5912", type: i915-GVTg_V5_4, name: desk1}
      - {parent: "0000:00:02.0", vendor: "8086", device: "5912", type: i915-GVTg_V5_4, name: desk2}
  register: mediated

- name: A vGPU type for a virtual function of an NVIDIA card
  vfio.host.mediated_devices:
    devices:
      - {parent: "0000:41:00.4", vendor: "10de", device: "26b9", type: "1155"}

- name: Give back what there was
  vfio.host.mediated_devices:
    state: absent
"""

RETURN = r"""
devices:
  description: What is asked for, in the order of the list, and what goes back to what it was. In check mode as it would be.
  type: list
  elements: dict
  returned: success
  contains:
    parent:
      description: Address of the function that is shared out.
      type: str
    way:
      description: V(mdev) for a mediated device, V(vgpu) for the vGPU type of a virtual function.
      type: str
    uuid:
      description: UUID of the mediated device, or null.
      type: str
    before:
      description: Id of the type that it had before this run, or null when there was none.
      type: str
    type:
      description: Id of the type that it has now, or null when there is none.
      type: str
    wanted:
      description: Whether it is on the list. False for one that goes back to what it was.
      type: bool
  sample:
    - parent: "0000:00:02.0"
      way: mdev
      uuid: 5f1c4f0e-8a5e-5b9c-9c11-3d5c0b0f9b7a
      before: null
      type: i915-GVTg_V5_4
      wanted: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import read
from ansible_collections.vfio.host.plugins.module_utils._mdev import manage


def main():
    module = AnsibleModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "parent": {"type": "str", "required": True},
                    "vendor": {"type": "str", "required": True},
                    "device": {"type": "str", "required": True},
                    "serial": {"type": "str"},
                    "type": {"type": "str", "required": True},
                    "uuid": {"type": "str"},
                    "name": {"type": "str"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "mdevctl": {"type": "str", "choices": ["refuse", "import"], "default": "refuse"},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: manage.run(Host(), module.params, module.check_mode, read))


if __name__ == "__main__":
    main()
