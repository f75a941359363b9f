#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab
version_added: "0.1.0"
short_description: Start and stop a lab host, an emulated machine with a real IOMMU
description:
  - Boots a machine with an emulated IOMMU from a copy-on-write overlay over an image of
    M(vfio.host.lab_image), waits until it answers over SSH, and writes an inventory for it.
  - The machine has a key pair and a host key of its own, on a free port of the loopback address.
  - Everything of a lab lies in one folder named for it, which O(state=absent) removes.
  - Run it on the controller. The role P(vfio.host.lab#role) does.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  name:
    description: Name of the lab; labs of different names run side by side.
    type: str
    required: true
  states:
    description: Folder in which each lab has its own folder.
    type: path
    required: true
  state:
    description:
      - V(present) starts the lab unless it runs, from a fresh overlay.
      - V(absent) ends it and removes its folder.
    type: str
    choices: [present, absent]
    default: present
  image:
    description: Disk image to boot from; it is not written to. Required with O(state=present).
    type: path
  profile:
    description:
      - The machine. V(p8h67) is the one of the how-to that this collection comes from, with Intel VT-d.
        V(amd) is the same machine with AMD-Vi.
    type: str
    choices: [p8h67, amd]
    default: p8h67
  accelerator:
    description:
      - V(auto) tries hardware virtualisation by booting a kernel on it, and takes software emulation otherwise.
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  memory:
    description: Memory in MiB.
    type: int
    default: 4096
  cpus:
    description: Number of CPUs.
    type: int
    default: 2
  internet:
    description: Whether the machine may open connections to the outside.
    type: bool
    default: false
  timeout:
    description: Seconds that the machine may take until it answers over SSH.
    type: int
    default: 300
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Start a lab
  vfio.host.lab:
    name: demo
    states: .build/lab
    image: .build/cache/lab/9a550ac1edda48d5/disk.img
  delegate_to: localhost

- name: Take it away again
  vfio.host.lab:
    name: demo
    states: .build/lab
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
lab:
  description: What is known of the running lab.
  type: dict
  returned: when O(state=present), not in check mode
  contains:
    name: {description: Its name., type: str}
    profile: {description: Its machine., type: str}
    accelerator: {description: V(kvm) or V(tcg)., type: str}
    reason: {description: Why that accelerator was chosen., type: str}
    port: {description: Loopback port of its SSH server., type: int}
    pid: {description: Process id of QEMU., type: int}
    folder: {description: Its state folder., type: str}
    console: {description: File with the text of its serial console., type: str}
    inventory: {description: File with an inventory that has it as its only host., type: str}
    boot_seconds: {description: From the start to the first answer over SSH., type: float}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._lab import accelerator, machine


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "states": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "image": {"type": "path"},
            "profile": {"type": "str", "choices": ["p8h67", "amd"], "default": "p8h67"},
            "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
            "memory": {"type": "int", "default": 4096},
            "cpus": {"type": "int", "default": 2},
            "internet": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    options = module.params
    host = Host()
    try:
        lab = machine.Lab(host, options["name"], options["states"])
        if options["state"] == "absent":
            changed = lab.exists()
            if changed and not module.check_mode:
                lab.remove()
            module.exit_json(**_result(module, changed, "" if not changed else lab.folder, ""))
        changed = lab.pid() is None
        if module.check_mode:
            module.exit_json(**_result(module, changed, "" if changed else lab.folder, lab.folder))
        reason = lab.facts().get("reason")
        if changed:
            missing = [tool for tool in ("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen") if not host.which(tool)]
            if missing:
                module.fail_json(
                    msg="these commands are missing: %s. On Debian and Ubuntu they are in the packages qemu-system-x86, "
                    "qemu-utils and openssh-client." % ", ".join(missing)
                )
            chosen, reason = options["accelerator"], "asked for"
            if chosen == "auto":
                chosen, reason = accelerator.choose(host, options["image"])
            lab.start(
                options["image"], options["profile"], chosen, options["memory"], options["cpus"],
                options["internet"], options["timeout"], reason,
            )  # fmt: skip
        result = _result(module, changed, "" if changed else lab.folder, lab.folder)
        module.exit_json(lab=lab.facts(), **result)
    except (HostError, ValueError) as exc:
        module.fail_json(msg=str(exc))


def _result(module, changed, before, after):
    result = {"changed": changed}
    if module._diff:
        result["diff"] = {"before": before + "\n", "after": after + "\n"}
    return result


if __name__ == "__main__":
    main()
