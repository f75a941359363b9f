#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_cmdline
short_description: Keep parameters on the kernel command line of the next boot
version_added: "0.1.0"
description:
  - Puts kernel parameters behind those that are there, in a file of its own, and generates the boot menu.
  - Whether the menu has to be generated is told by reading it back, so a run that failed or was killed is repaired by
    the next one. Parameters of others stay as they are and in their order.
  - Says what the running kernel was given, what is configured, and what boots next, and whether a reboot is needed.
  - Recovery entries are left alone, so that there always is an entry without these parameters.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  parameters:
    description:
      - The parameters, one token each, for example V(intel_iommu=on).
      - Letters, digits and C(_.,:=/@%+-) only, since more would need quoting that not every boot loader does alike.
      - With O(state=present) this is the whole list that the collection owns; one that is no longer listed is taken
        out. An empty list means that it owns none.
      - With O(state=absent) it may be left out. What is listed then only counts for RV(reboot_required).
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) keeps O(parameters) on the command line of each ordinary boot entry.
      - V(absent) takes out what the collection has put in.
    type: str
    choices: [present, absent]
    default: present
  loader:
    description:
      - The boot loader. V(auto) goes by what has booted the system and refuses when that is not clear.
    type: str
    choices: [auto, grub]
    default: auto
notes:
  - If generating the menu fails, the file and the menu are put back as they were.
  - A warning about an overridden parameter is given by the run that changes something; RV(overridden) tells it always.
seealso:
  - module: vfio.host.vfio_binding
  - module: vfio.host.initramfs
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Turn the IOMMU on
  vfio.host.kernel_cmdline:
    parameters:
      - intel_iommu=on
  register: cmdline

- name: Tell whether the machine has to be rebooted
  ansible.builtin.debug:
    var: cmdline.reboot_required

- name: Take out what the collection has put in
  vfio.host.kernel_cmdline:
    state: absent
"""

RETURN = r"""
loader:
  description: The boot loader that was used, or null when none was recognised and there was nothing to do.
  type: str
  returned: success
  sample: grub
evidence:
  description: What the boot loader was recognised by, with O(loader=auto).
  type: list
  elements: str
  returned: success
owned:
  description: The parameters that the collection owns now.
  type: list
  elements: str
  returned: success
  sample: [intel_iommu=on]
regenerated_because:
  description: Why the boot menu was, or in check mode would be, generated. Empty when it was right.
  type: list
  elements: str
  returned: success
running:
  description: Command line of the running kernel.
  type: list
  elements: str
  returned: success
configured:
  description: What the configuration comes to, or null when it takes a shell to know.
  type: list
  elements: str
  returned: success
next_boot:
  description: The ordinary entries of the boot menu. In check mode as they are.
  type: list
  elements: dict
  returned: success
  contains:
    kernel:
      description: Version of the kernel.
      type: str
    id:
      description: Identifier of the entry, or null.
      type: str
    title:
      description: Title of the entry.
      type: str
    tokens:
      description: Its command line.
      type: list
      elements: str
overridden:
  description: Parameters of others that are without effect, since one of O(parameters) comes later.
  type: list
  elements: dict
  returned: success
  contains:
    ours:
      description: The parameter that counts.
      type: str
    theirs:
      description: The parameter without effect.
      type: str
    file:
      description: The file that sets it, or null when that is not known.
      type: str
  sample:
    - {ours: intel_iommu=on, theirs: intel_iommu=off, file: /etc/default/grub}
reboot_required:
  description:
    - Whether the running kernel lacks a wanted parameter, or with O(state=absent) still has one that was taken out.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError


def main():
    module = AnsibleModule(
        argument_spec={
            "parameters": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "loader": {"type": "str", "choices": ["auto", *cmdline.LOADERS], "default": "auto"},
            "conflicts": {"type": "str", "choices": ["override", "keep", "refuse"], "default": "override"},
            "fallback_entry": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        result = cmdline.run(Host(), module.params, module.check_mode)
    except (ValueError, HostError) as exc:
        module.fail_json(msg=str(exc))
    for warning in result.pop("warnings"):
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
