#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_access
short_description: Let a group of users start QEMU with assigned devices
version_added: "0.3.0"
description:
  - Gives the device nodes of VFIO (C(/dev/vfio/N), C(/dev/vfio/devices/vfioN), and C(/dev/iommu) for these) to a group,
    with a rule for C(udev), and at once those that are there. They are never open to everybody; one that is, is
    repaired.
  - Raises how much memory the members of the group may lock, if asked. A guest with an assigned device has all of its
    memory locked.
  - Who may use a device that is bound to C(vfio-pci) can have it do anything within its IOMMU group. Put nobody into
    the group who shall not have the devices.
  - Not needed for guests of the system's libvirt, which gives QEMU its devices itself.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  group:
    description:
      - Name of the group. It has to be in C(/etc/group), and to be a system group (number below 1000), since newer
        versions of C(udev) give devices to no other. Groups of everybody, like V(users) and V(nogroup), are refused.
      - Required with O(state=present).
    type: str
  memlock:
    description:
      - How much memory a process of a member may lock, as V(8GiB), or V(unlimited). All guests that one process runs,
        and a reserve of about 1 GiB, have to fit. Without it the limit is left to the host.
      - Counts from the next login on.
    type: str
  state:
    description:
      - V(present) keeps the access of O(group).
      - V(absent) takes the files out and gives each node back as it was, but never to everybody.
    type: str
    choices: [present, absent]
    default: present
notes:
  - C(/dev/vfio/vfio) is left alone. The kernel makes it C(0666), since alone it gives access to no device, and QEMU
    has to open it.
  - A node that belongs to another user than root is in use by a guest of libvirt, and is left to it; see RV(deferred).
  - The limit is set by C(pam_limits), for a login and for what systemd starts for a user (C(systemctl --user)). Where
    the PAM service C(systemd-user) does not use C(pam_limits), each member of the group gets a drop-in
    C(user@UID.service.d/90-vfio-host.conf) instead. Run it again then when somebody joins or leaves the group.
seealso:
  - module: vfio.host.vfio_binding
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Members of kvm may start guests with devices, of up to 15 GiB
  vfio.host.vfio_access:
    group: kvm
    memlock: 16GiB

- name: Take that back
  vfio.host.vfio_access:
    state: absent
"""

RETURN = r"""
nodes:
  description: The device nodes that are there now. In check mode with what they would be.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: Path of the node.
      type: str
    uid:
      description: Number of its owner.
      type: int
    gid:
      description: Number of its group.
      type: int
    mode:
      description: Its mode, four octal digits.
      type: str
  sample:
    - {path: /dev/vfio/7, uid: 0, gid: 106, mode: "0660"}
deferred:
  description: The nodes that were not given to the group, and why.
  type: list
  elements: dict
  returned: success
  contains:
    node:
      description: Path of the node.
      type: str
    why:
      description: A sentence.
      type: str
files:
  description: The files that keep the access, in check mode those that would.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._settings import access


def main():
    module = AnsibleModule(
        argument_spec={
            "group": {"type": "str"},
            "memlock": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: access.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
