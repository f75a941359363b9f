#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reboot_record
short_description: Remember what a reboot is for, so that there is one for each change at most
version_added: "0.3.0"
description:
  - Before a reboot, remembers in C(/var/lib/vfio-host/reboot.json) a digest of what it is for and the boot it was asked
    in. When the same is asked again and the host was rebooted since, RV(rebooted) says so. Another reboot would not
    help then, and a run that reboots all the same is a loop.
  - It does not reboot. The role P(vfio.host.reboot#role) does, and goes by this.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  state:
    description:
      - V(present) remembers O(digest), V(absent) forgets, which is for when the change is in force.
    type: str
    choices: [present, absent]
    default: present
  digest:
    description:
      - Any text that is the same exactly when the change is. Needed with O(state=present).
    type: str
seealso:
  - module: ansible.builtin.reboot
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Remember what the reboot is for
  vfio.host.reboot_record:
    digest: "{{ parameters | join(' ') | hash('sha256') }}"
  register: reboot

- name: Reboot, unless that was of no use before
  ansible.builtin.reboot:
  when: not reboot.rebooted

- name: The change is in force
  vfio.host.reboot_record:
    state: absent
"""

RETURN = r"""
rebooted:
  description: Whether the host was rebooted since just this digest was remembered.
  type: bool
  returned: success
boot_id:
  description: The kernel's name for this boot.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._boot import reboot
from ansible_collections.vfio.host.plugins.module_utils._host import Host


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "digest": {"type": "str"},
        },
        required_if=[("state", "present", ("digest",))],
        supports_check_mode=True,
    )
    answer(module, lambda: reboot.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
