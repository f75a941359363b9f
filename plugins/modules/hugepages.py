#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hugepages
short_description: Keep pools of huge pages for guests, now and after each boot
version_added: "0.3.0"
description:
  - Sets how many huge pages the kernel holds, for the machine or by NUMA node, reads the numbers back, and keeps them
    over a reboot with a file of its own for C(systemd-tmpfiles).
  - Huge pages are taken away from everything that does not ask for them. What would not leave the host its reserve is
    refused with the numbers, before anything is changed.
  - A running kernel gives huge pages only where it finds free memory in one piece. Where it gives fewer than were
    asked for, the pools go back to what they were, and the error says what was possible.
  - Pages of 2 MiB are what this is for. Pages of 1 GiB seldom succeed at run time; reserve these on the kernel command
    line, see P(vfio.host.kernel_parameters#filter).
extends_documentation_fragment:
  - vfio.host.attributes
options:
  pages:
    description:
      - The pools. With O(state=present) this is the whole list that the collection owns; a pool that is no longer
        listed goes back to what it was.
    type: list
    elements: dict
    default: []
    suboptions:
      size:
        description: Size of a page, as V(2MiB).
        type: str
        default: 2MiB
      count:
        description: How many pages of this size there shall be in all, those that are in use included.
        type: int
        required: true
      node:
        description:
          - Number of the NUMA node whose pool this is. Without it the count is that of the machine, and the kernel
            spreads the pages over the nodes.
        type: int
  state:
    description:
      - V(present) keeps the pools of O(pages).
      - V(absent) takes the file out and gives each pool the number it had before.
    type: str
    choices: [present, absent]
    default: present
  host_reserve:
    description:
      - Memory that huge pages must leave, of what there is and of what is available now. Bytes, or a number with
        V(KiB), V(MiB), V(GiB).
    type: str
    default: 1GiB
  partial:
    description:
      - Whether fewer pages than asked for are accepted, with a warning. What is missing is tried again at the next
        boot, and not by each run.
    type: bool
    default: false
  timeout:
    description: Seconds that the kernel may take for one pool. It moves memory together meanwhile.
    type: int
    default: 60
notes:
  - A pool is never made smaller than what is in use or promised to a process.
  - A pool that somebody else sets at each boot too (C(vm.nr_hugepages) in a file of C(sysctl.d), another file in
    C(tmpfiles.d)) is refused with the name of the file.
  - A pool of the machine becomes pools of its nodes, or the other way round, by way of O(state=absent).
  - A guest of libvirt uses them with C(<memoryBacking><hugepages/>). A size that is not the kernel's default needs a
    mount of C(hugetlbfs) with this C(pagesize=) as well.
seealso:
  - module: vfio.host.kernel_cmdline
  - module: vfio.host.guests
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Two gigabytes in pages of 2 MiB
  vfio.host.hugepages:
    pages:
      - {size: 2MiB, count: 1024}

- name: By NUMA node, near the cards
  vfio.host.hugepages:
    pages:
      - {size: 2MiB, count: 2048, node: 0}
      - {size: 2MiB, count: 512, node: 1}
    host_reserve: 4GiB

- name: Give them back
  vfio.host.hugepages:
    state: absent
"""

RETURN = r"""
pages:
  description: The pools, with what they are now. In check mode with what they would be.
  type: list
  elements: dict
  returned: success
  contains:
    size:
      description: Bytes of a page.
      type: int
    node:
      description: Number of the NUMA node, or null for the machine.
      type: int
    wanted:
      description: The count that was asked for, or null for a pool that goes back to what it was.
      type: int
    before:
      description: The count before this run.
      type: int
    count:
      description: The count now.
      type: int
    free:
      description: How many of them nobody uses. In check mode as they are.
      type: int
  sample:
    - {size: 2097152, node: null, wanted: 1024, before: 0, count: 1024, free: 1024}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._memory import hugepages


def main():
    module = AnsibleModule(
        argument_spec={
            "pages": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "size": {"type": "str", "default": "2MiB"},
                    "count": {"type": "int", "required": True},
                    "node": {"type": "int"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "host_reserve": {"type": "str", "default": "1GiB"},
            "partial": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: hugepages.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
