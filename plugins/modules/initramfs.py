#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: initramfs
short_description: Keep the boot-time binding in every initramfs image
version_added: "0.1.0"
description:
  - Puts a small script, the list of assigned functions and the VFIO modules into the image of every installed kernel.
    At boot the script runs before udev loads a driver, and gives a function to vfio-pci only if it still is the one
    that was asked for.
  - Then opens each image with a reader of its own and compares what is inside. An image that is stale or cannot be read
    is a failure. Images that boot entries carry elsewhere (a copy on the EFI partition, the section of a unified kernel
    image) are renewed through the boot loader and compared too.
  - Builds each image beside the old one, reads it, and only then puts it in its place, so that whatever ends the run
    leaves a whole image. Too little room, and a filesystem that is mounted read-only, are found before.
  - Images are built only when what is inside would differ. What was verified is remembered
    (C(/var/lib/vfio-host/initramfs.json)), so that a run with nothing to do opens nothing.
  - A card is taken whole or not at all. If one of its listed functions is not what was asked, all stay with the host.
  - The script says in the kernel log what it did (C(vfio-host:)). With C(vfio_host=off) on the kernel command line it
    does nothing.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  state:
    description:
      - V(present) puts it into each image, V(absent) takes it out of each image.
    type: str
    choices: [present, absent]
    default: present
  generator:
    description:
      - What builds the images. V(auto) goes by what builds them for new kernels, and refuses when that is not supported
        or not clear.
    type: str
    choices: [auto, initramfs-tools, dracut, mkinitcpio]
    default: auto
  rebuild_timeout:
    description:
      - Seconds that building one image may take.
    type: int
    default: 900
  devices_content:
    description:
      - The text that C(/etc/vfio-host/devices) has, as M(vfio.host.vfio_binding) returns it.
      - In check mode it stands for the file, which is not written then. Otherwise it has to be what the file holds.
      - When it is empty or left out, the file is read.
    type: str
notes:
  - If building fails, our files are put back as they were and the old image stays.
  - Needs room for one more image beside each image, on the EFI partition too where copies are there.
  - Where there is room in C(/var/lib/vfio-host), images are kept as they were. V(absent) puts them back, byte for
    byte, if an image built without ours holds the same apart from times.
seealso:
  - module: vfio.host.vfio_binding
  - module: vfio.host.kernel_cmdline
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Say which functions are assigned
  vfio.host.vfio_binding:
    devices: "{{ plan.identities }}"
  register: binding

- name: Bring it into every initramfs image
  vfio.host.initramfs:
    devices_content: "{{ binding.content }}"

- name: Take it out of every initramfs image
  vfio.host.initramfs:
    state: absent
"""

RETURN = r"""
generator:
  description: What builds the images.
  type: str
  returned: success
  sample: initramfs-tools
evidence:
  description: What it was recognised by.
  type: list
  elements: str
  returned: success
images:
  description: The images of the installed kernels, and those that boot entries carry.
  type: list
  elements: dict
  returned: success
  contains:
    kernel:
      description: Version of the kernel.
      type: str
    path:
      description: The image.
      type: str
    rebuilt:
      description: Whether it was, or in check mode would be, built.
      type: bool
    because:
      description: What was found inside that is not as asked.
      type: list
      elements: str
reboot_required:
  description: Whether something was changed that has an effect at the next boot.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._host import Host


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "generator": {
                "type": "str",
                "choices": ["auto", "initramfs-tools", "dracut", "mkinitcpio"],
                "default": "auto",
            },
            "rebuild_timeout": {"type": "int", "default": 900},
            "devices_content": {"type": "str"},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: manage.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
