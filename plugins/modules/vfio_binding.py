#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_binding
short_description: Give PCI functions to vfio-pci, now and at each boot
version_added: "0.1.0"
description:
  - Checks that each function still is the one that was asked for, then writes the list that the script in the initramfs
    goes by (C(/etc/vfio-host/devices)). At each boot the functions are bound before any other driver takes them.
  - Binds them now as well, where nothing on the running host stands against it. All that are bound now are one
    transaction. If one step fails, every function is put back at the driver that it had, the files are as they were,
    and the error has the step and what the kernel said.
  - Each write to sysfs has a deadline. A function about which a write never ended is not touched again before a reboot.
  - Goes by address and identity together, never by vendor and device id alone, so an identical second card stays with
    the host.
  - Remembers the driver and the override that each function had before (C(/var/lib/vfio-host/binding.json)), and gives
    them back with O(state=absent), or when a function is taken off the list.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  devices:
    description:
      - The functions, as C(vfio.host.plan) returns them in C(identities). With O(state=present) the whole list.
      - If one of them is not what is asked, nothing is changed and all differences are named.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address of the function, for example V(0000:01:00.0).
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
      subsystem_vendor:
        description: Subsystem vendor id, four hexadecimal digits.
        type: str
        required: true
      subsystem_device:
        description: Subsystem device id, four hexadecimal digits.
        type: str
        required: true
      class:
        description: Class code, six hexadecimal digits; compared when it is given.
        type: str
      serial:
        description: Serial number (C(xx-xx-xx-xx-xx-xx-xx-xx)); compared now and at each boot when it is given.
        type: str
      path:
        description:
          - Root bus, then slot and function at each bridge on the way, like V(0000:00/01.0/00.0); compared now and at
            each boot when it is given. It tells which of two cards of one make has the address when bus numbers shift.
        type: str
      name:
        description: A name to show in the result.
        type: str
      driver:
        description:
          - The driver to bind to, V(vfio-pci) or a variant of it for this device, like V(mlx5_vfio_pci) or
            V(nvgrace-gpu-vfio-pci).
          - V(best) takes the one whose alias in C(modules.alias) of the running kernel fits most closely.
          - Where a kernel has no such variant the device stays with the host at the boot, and the kernel log says so. If
            it shall be bound now, that is an error before anything is changed.
        type: str
        default: vfio-pci
  state:
    description:
      - V(present) writes the list and binds, V(absent) takes the list away and gives the functions back.
    type: str
    choices: [present, absent]
    default: present
  when:
    description:
      - When functions change their driver.
      - V(boot) leaves it to the next boot.
      - V(auto) does it now for every card that is free, and leaves the others to the next boot; RV(deferred) has who holds
        them. A card, and an IOMMU group, goes as a whole.
      - V(now) fails where one of them is not free, before anything is touched.
      - Not free is what the host uses, what a process has open (of sound devices the controls too, since their driver
        waits for them in unbind), and what is in a group with a function on a driver of the host. A function that a
        running guest has is never taken from it.
      - On the way back a function whose former driver cannot be loaded stays where it is until the next boot, and its
        card with it. So does one while a guest has another function of its group.
      - A group cannot be split. A function that is taken off the list while another of its group stays on it is not
        given back now; list both, or neither.
      - A NIC is not free while its interface is a port of a bridge or bond, has a VLAN or the like on it, or an address
        that is not link-local, nor while none of its interfaces is here, since a container may have it.
      - A physical function of SR-IOV is not free while it has virtual functions, which end with its driver. One that
        M(vfio.host.sriov) is to make some of at each boot (C(/etc/vfio-host/sriov)) is refused.
    type: str
    choices: [boot, auto, now]
    default: auto
  driverctl:
    description:
      - What to do where C(driverctl) has an override for one of the functions (C(/etc/driverctl.d)). It would be loaded
        for whatever card is at this address, beside this module's list.
      - V(refuse) fails with the command that takes it out.
      - V(import) takes the file away and remembers it. On the way back the function gets it again.
    type: str
    choices: [refuse, import]
    default: refuse
    version_added: "0.3.0"
  nvidia_persistence:
    description:
      - What to do with a function that C(nvidia-persistenced) has open.
      - V(keep) takes the daemon for a user like any other.
      - V(release) has it let go of the functions that are bound now (C(nvidia-smi -pm 0)), and keep them again on the
        way back.
    type: str
    choices: [keep, release]
    default: keep
    version_added: "0.3.0"
notes:
  - For the next boots the list has an effect only once M(vfio.host.initramfs) has put it into the images.
seealso:
  - module: vfio.host.initramfs
  - module: vfio.host.kernel_cmdline
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Give a graphics card to vfio-pci at the next boot
  vfio.host.vfio_binding:
    devices:
      - address: "0000:01:00.0"
        vendor: "10de"
        device: "1381"
        subsystem_vendor: "1043"
        subsystem_device: "84bb"
        name: gaming_gpu
      - address: "0000:01:00.1"
        vendor: "10de"
        device: "0fbc"
        subsystem_vendor: "1043"
        subsystem_device: "84bb"
        name: gaming_gpu

- name: Give a NIC to vfio-pci at once, or fail and say who holds it
  vfio.host.vfio_binding:
    when: now
    devices:
      - address: "0000:03:00.0"
        vendor: "8086"
        device: "10d3"
        subsystem_vendor: "8086"
        subsystem_device: "0000"

- name: Leave everything to the host again
  vfio.host.vfio_binding:
    state: absent
"""

RETURN = r"""
functions:
  description: The functions that were asked for, or with O(state=absent) those that had been.
  type: list
  elements: dict
  returned: success
  contains:
    address:
      description: Address of the function.
      type: str
    name:
      description: The name that was given, or null.
      type: str
    driver:
      description: The driver it has now, or null. In check mode the one it would have.
      type: str
    wanted:
      description: The driver it will have; with O(state=absent) the one it had before, null where that was none or is not known.
      type: str
    bound:
      description: Whether it is bound to the driver for assignment now.
      type: bool
deferred:
  description: The functions that do not change their driver now although they shall, with who or what holds each.
  type: list
  elements: dict
  returned: success
  contains:
    address:
      description: Address of the function.
      type: str
    why:
      description: Sentences.
      type: list
      elements: str
content:
  description:
    - The text of C(/etc/vfio-host/devices), in check mode as it would be.
      For O(vfio.host.initramfs#module:devices_content).
  type: str
  returned: success
reboot_required:
  description: Whether a function is not bound yet, or with O(state=absent) still bound.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._binding import manage
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import read


def main():
    module = AnsibleModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "address": {"type": "str", "required": True},
                    "vendor": {"type": "str", "required": True},
                    "device": {"type": "str", "required": True},
                    "subsystem_vendor": {"type": "str", "required": True},
                    "subsystem_device": {"type": "str", "required": True},
                    "class": {"type": "str"},
                    "serial": {"type": "str"},
                    "path": {"type": "str"},
                    "name": {"type": "str"},
                    "driver": {"type": "str", "default": "vfio-pci"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "when": {"type": "str", "choices": ["boot", "auto", "now"], "default": "auto"},
            "nvidia_persistence": {"type": "str", "choices": ["keep", "release"], "default": "keep"},
            "driverctl": {"type": "str", "choices": ["refuse", "import"], "default": "refuse"},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: manage.run(Host(), module.params, module.check_mode, read))


if __name__ == "__main__":
    main()
