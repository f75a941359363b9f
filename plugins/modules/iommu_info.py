#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iommu_info
short_description: Read a machine's PCI functions, IOMMU groups, and what the host itself needs
version_added: "0.1.0"
author: vfio.host contributors (@vfio-host)
description:
  - Reads the machine once and returns the I(machine document) that everything else in this
    collection is computed from.
  - It says, for every PCI function, what it is, which IOMMU group it is in, and what the host itself
    uses it for; for the host, the state of the IOMMU and why, boot, network, and the SSH connection.
  - Where the kernel has formed no groups yet, they are predicted from topology, ACS and the kernel's tables of
    quirks, and each group says why it is what it is.
  - Runs no command and changes nothing. What cannot be read is named in the document and never
    taken for absent. A read that does not end within five seconds counts as one that cannot be made.
extends_documentation_fragment:
  - vfio.host.attributes.info
options:
  root:
    description:
      - Folder that holds the tree to read. Anything but V(/) is a tree recorded on another machine.
      - A plain copy of C(/sys/devices), C(/sys/bus/pci), C(/sys/kernel/iommu_groups), C(/proc) and C(/etc) files under
        their own paths will do. What is missing in it is a missing input.
    type: path
    default: /
  roms:
    description:
      - Also read the expansion ROMs of displays, to tell whether they have an EFI image.
      - The kernel shows a ROM only after a write to its C(rom) attribute, which lets the ROM answer on the bus for a
        moment. That is done only for displays that no driver uses, or vfio-pci while no guest has them, and never in
        check mode. ROMs in a recorded tree are always read.
    type: bool
    default: false
    version_added: "0.2.0"
notes:
  - Run it as the superuser. Otherwise configuration space beyond 64 bytes cannot be read, so
    port types and capabilities are unknown, and so may be the SSH connection.
"""

EXAMPLES = r"""
- name: Read the machine
  vfio.host.iommu_info:
  register: __host
  become: true

- name: Show the groups
  ansible.builtin.debug:
    msg: "{{ __host.machine.groups }}"

- name: Refuse to go on where the host's own needs are not known
  ansible.builtin.assert:
    that: __host.machine.host.usage_unknown | length == 0

- name: Read a tree that was recorded on another machine
  vfio.host.iommu_info:
    root: /srv/trees/p8h67
  delegate_to: localhost
"""

RETURN = r"""
machine:
  description:
    - The machine document. Every field is specified in C(docs/machine_document.md) of the collection.
  returned: success
  type: dict
  contains:
    schema:
      description: Version of the document's form.
      type: int
      returned: success
      sample: 2
    source:
      description: Where the document comes from and which inputs were missing.
      type: dict
      returned: success
      sample: {root: /, privileged: true, missing: []}
    host:
      description:
        - Kernel, CPU, IOMMU, boot, initramfs, network, SSH connection, libvirt, QEMU, memory, and
          what of the host's own needs could not be determined (C(usage_unknown)).
      type: dict
      returned: success
    functions:
      description: The PCI functions, sorted by address.
      type: list
      elements: dict
      returned: success
    groups:
      description:
        - The IOMMU groups to decide by, the kernel's where it formed any, else the predicted ones. Each has C(members),
          C(source) (V(actual) or V(predicted)), C(confidence) and C(reasons). Numbers change from boot to boot.
      type: list
      elements: dict
      returned: success
    predicted_groups:
      description: The groups as predicted, always.
      type: list
      elements: dict
      returned: success
    findings:
      description: Findings of rules over the document, the worst first, each with a code that has a page in C(docs/findings).
      type: list
      elements: dict
      returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vfio.host.plugins.module_utils import _imports

_imports.compile_once()  # concerns what is imported from here on

from ansible_collections.vfio.host.plugins.module_utils._answer import exit_json
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._machine import read


def main():
    spec = {"root": {"type": "path", "default": "/"}, "roms": {"type": "bool", "default": False}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    root = module.params["root"]
    if not os.path.isdir(root):
        module.fail_json(msg="root: %s is not a folder; give the folder that holds a recorded tree" % root)
    try:
        machine = read(Host(root), module.params["roms"] and not module.check_mode)
    except HostError as exc:
        module.fail_json(msg="root: %s: %s" % (root, exc))
    exit_json(module, changed=False, machine=machine)


if __name__ == "__main__":
    main()
