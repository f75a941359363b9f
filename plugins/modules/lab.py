#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab
version_added: "0.1.0"
short_description: Start, stop and switch a lab host, an emulated machine with a real IOMMU
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
      - The others are for a lab that was started before. Its disks, its firmware's variables and its keys stay.
      - V(stopped) cuts the power. The machine gets no chance to write anything, as at a real power cut.
      - V(started) switches it on again unless it is on. V(restarted) cuts the power first if it is on.
      - The SSH port stays the same if it is free; the inventory and C(known_hosts) are right in any case.
    type: str
    choices: [present, absent, stopped, started, restarted]
    default: present
  image:
    description: Disk image to boot from; it is not written to. Required with O(state=present).
    type: path
  firmware:
    description:
      - What the machine boots with. V(auto) takes what O(image) was built for; an image of another origin is for BIOS.
      - UEFI has a variable store of its own in each lab, empty at first.
      - Only with O(state=present).
    type: str
    choices: [auto, bios, efi]
    default: auto
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
  board:
    description:
      - Changes of the machine's board, made one after the other, whenever the machine is switched on.
      - A place is C(BUS/SLOT.FUNCTION), such as V(cpu_port/00.0), and V(SLOT.FUNCTION) on the root bus. The buses of
        the root ports are V(cpu_port), V(pch_port0), V(pch_port5), V(pch_port6) and V(pch_port7).
      - With O(state=started) and O(state=restarted), leaving it out keeps the board as it was and an empty list
        is the profile's own board.
    type: list
    elements: dict
    suboptions:
      add:
        description: A device to add, by QEMU's name for it, such as V(nvme), V(ide-hd) or V(pcie-root-port).
        type: str
      at:
        description: Where to add it. A device without an address, such as C(ide-hd), is at a bus alone, V(ide.1).
          C(nvme-subsys) is on no bus.
        type: str
      properties:
        description: QEMU's properties of the added device, as V(name=value,name=value).
        type: str
      disk:
        description: Name of a disk to make for the added device. It is kept until the lab is removed.
        type: str
      size:
        description: Size of that disk in MiB; 1024 if it is left out.
        type: int
      move:
        description: The id or the place of a device to move. What is behind it moves along.
        type: str
      to:
        description: The place to move it to.
        type: str
      remove:
        description: The id or the place of a device to remove.
        type: str
  wait:
    description: Whether to wait until the machine answers over SSH when it is switched on.
    type: bool
    default: true
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

- name: Cut its power
  vfio.host.lab:
    name: demo
    states: .build/lab
    state: stopped
  delegate_to: localhost

- name: Switch it on with one more port in front of all others, so that all buses get other numbers
  vfio.host.lab:
    name: demo
    states: .build/lab
    state: started
    board:
      - {move: cpu_port, to: "03.0"}
      - {add: pcie-root-port, at: "01.0", properties: "id=new_port,chassis=9"}
      - {add: nvme, at: new_port/00.0, properties: serial=second, disk: second}
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
  returned: when O(state) is not V(absent), not in check mode
  contains:
    name: {description: Its name., type: str}
    profile: {description: Its machine., type: str}
    accelerator: {description: V(kvm) or V(tcg)., type: str}
    reason: {description: Why that accelerator was chosen., type: str}
    port: {description: Loopback port of its SSH server., type: int}
    pid: {description: Process id of QEMU; of the last one when it is off., type: int}
    firmware: {description: V(bios) or V(efi)., type: str}
    board: {description: The changes of its board., type: list}
    memory: {description: MiB., type: int}
    cpus: {description: Number of CPUs., type: int}
    internet: {description: Whether it may open connections to the outside., type: bool}
    image: {description: The disk image below its own disk., type: str}
    folder: {description: Its state folder., type: str}
    console: {description: File with the text of its serial console., type: str}
    inventory: {description: File with an inventory that has it as its only host., type: str}
    boot_seconds: {description: From the start to the first answer over SSH; missing without O(wait)., type: float}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._lab import accelerator, image, machine, profiles


PLACES = {
    "add": {"type": "str"},
    "at": {"type": "str"},
    "properties": {"type": "str"},
    "disk": {"type": "str"},
    "size": {"type": "int"},
    "move": {"type": "str"},
    "to": {"type": "str"},
    "remove": {"type": "str"},
}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "states": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "stopped", "started", "restarted"],
                "default": "present",
            },
            "image": {"type": "path"},
            "firmware": {"type": "str", "choices": ["auto", "bios", "efi"], "default": "auto"},
            "profile": {"type": "str", "choices": ["p8h67", "amd"], "default": "p8h67"},
            "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
            "memory": {"type": "int", "default": 4096},
            "cpus": {"type": "int", "default": 2},
            "internet": {"type": "bool", "default": False},
            "board": {"type": "list", "elements": "dict", "options": PLACES},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    options = module.params
    if options["board"] is not None:
        options["board"] = [
            {key: value for key, value in change.items() if value is not None} for change in options["board"]
        ]
    try:
        lab = machine.Lab(Host(), options["name"], options["states"])
        profiles.board(options["board"])
        module.exit_json(**ACTIONS[options["state"]](module, lab))
    except (HostError, ValueError) as exc:
        module.fail_json(msg=str(exc))


def _absent(module, lab):
    changed = lab.exists()
    if changed and not module.check_mode:
        lab.remove()
    return _result(module, changed, lab.folder if changed else "", "")


def _present(module, lab):
    options, changed = module.params, not lab.running()
    result = _result(module, changed, "" if changed else lab.folder, lab.folder)
    if module.check_mode:
        return result
    if changed:
        _need_tools(module, lab.host)
        chosen, reason = options["accelerator"], "asked for"
        if chosen == "auto":
            chosen, reason = accelerator.choose(lab.host, options["image"])
        firmware = options["firmware"]
        if firmware == "auto":
            firmware = image.firmware(os.path.abspath(options["image"]))
        lab.start(
            options["image"], options["profile"], chosen, options["memory"], options["cpus"], options["internet"],
            options["timeout"], reason, firmware, options["board"], options["wait"],
        )  # fmt: skip
    return dict(result, lab=lab.facts())


def _stopped(module, lab):
    changed = _known(lab).running()
    result = _result(module, changed, "on" if changed else "off", "off")
    if module.check_mode:
        return result
    if changed:
        lab.power_off()
    return dict(result, lab=lab.facts())


def _switched_on(module, lab):
    options, before = module.params, _known(lab).running()
    changed = not before or options["state"] == "restarted"
    after = "on, switched off and on" if before and changed else "on"
    result = _result(module, changed, "on" if before else "off", after)
    if module.check_mode:
        return result
    if changed:
        _need_tools(module, lab.host)
        lab.power_off()
    lab.power_on(options["wait"], options["board"], options["timeout"])
    return dict(result, lab=lab.facts())


ACTIONS = {
    "present": _present,
    "absent": _absent,
    "stopped": _stopped,
    "started": _switched_on,
    "restarted": _switched_on,
}


def _known(lab):
    if not lab.facts():
        raise ValueError(
            "there is no lab %s in %s; state present starts one" % (lab.name, os.path.dirname(lab.folder))
        )
    return lab


def _need_tools(module, host):
    missing = [tool for tool in ("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen") if not host.which(tool)]
    if missing:
        module.fail_json(
            msg="these commands are missing: %s. On Debian and Ubuntu they are in the packages qemu-system-x86, "
            "qemu-utils and openssh-client." % ", ".join(missing)
        )


def _result(module, changed, before, after):
    result = {"changed": changed}
    if module._diff:
        result["diff"] = {"before": before + "\n", "after": after + "\n"}
    return result


if __name__ == "__main__":
    main()
