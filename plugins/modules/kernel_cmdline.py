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
  - Puts kernel parameters on the command line of every ordinary boot entry, of each installed kernel and of those to
    come, the way the boot loader of the host wants it, and generates the entries where that is needed.
  - What the collection put there is recorded on the host, and only that is ever taken out. Parameters of others stay
    as they are and in their order.
  - Whether something is to be done is told by reading the entries back, so a run that failed or was killed is repaired
    by the next one. If a step fails, all files are put back as they were.
  - Says what the running kernel was given, what is configured for the next kernel, and what boots next, and whether a
    reboot is needed.
  - Recovery entries are left alone, and there is a fallback entry without these parameters and with C(vfio_host=off),
    with which the script in the initramfs leaves every device to the host.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  parameters:
    description:
      - The parameters, one token each, for example V(intel_iommu=on).
      - Letters, digits and C(_.,:=/@%+-) only, since more would need quoting that not every boot loader does alike.
      - Parameters that are pairs by position are kept as they are given, for example V(hugepagesz=1G),
        V(hugepages=4), V(hugepagesz=2M), V(hugepages=512).
      - One that an administrator has set already, in the same meaning, is not written again and not owned. Where he has
        it on some of the boot entries only, it is there once more, and exactly that one is taken out again.
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
      - The boot loader. V(auto) goes by what has booted the system, and refuses when none or more than one answers
        to that.
      - V(grub) is GRUB whose C(grub-mkconfig) reads drop-ins (Debian, Ubuntu), V(grub_in_place) is GRUB without (Arch,
        openSUSE), V(grubby) and V(bls) are GRUB with Boot Loader Specification entries (Fedora and its family).
    type: str
    choices:
      - auto
      - proxmox
      - rpm_ostree
      - bootc
      - kernelstub
      - uki
      - systemd_boot
      - grubby
      - bls
      - grub_in_place
      - grub
    default: auto
  conflicts:
    description:
      - What is done about a parameter that an administrator has set otherwise, where only one of both can be in force.
      - With V(override) his stays in his file, and ours comes later and is in force. A warning names both.
      - Of C(isolcpus), C(nohz_full), C(default_hugepagesz) and the pages of one size the kernel keeps the first, so
        nothing that comes later overrides an administrator's. With V(override) the module then fails, and names the
        file.
      - With V(keep) his stays in force and ours is not written. A warning names both.
      - With V(refuse) the module fails, and nothing is touched.
    type: str
    choices: [override, keep, refuse]
    default: override
    version_added: "0.3.0"
  fallback_entry:
    description:
      - Whether there is a boot entry for each kernel without what the collection adds and with C(vfio_host=off).
    type: bool
    default: true
    version_added: "0.3.0"
notes:
  - With GRUB the menu is generated beside the one in place, compared with what is wanted, and then put in place in one
    step.
  - With GRUB a default that is a number (C(GRUB_DEFAULT=3), or the saved entry) is refused where it would mean another
    entry with the fallback entry in the menu, or without it. Name the default by its id or title.
  - The record is C(/var/lib/vfio-host/cmdline.json).
  - Where kernel-install or mkinitcpio would give the next kernel the running command line, C(/etc/kernel/cmdline) is made
    with the default entry's, and goes with the parameters and the fallback entry.
  - Entries of another installation in the same folder are left alone; they are told by machine id and C(root=). With
    V(grubby) and V(bls) it fails where one of them boots by default, and where C(/etc/kernel/cmdline) would have to be
    made and no entry has the C(root=) that runs.
  - It fails where C(/etc/kernel/cmdline) has a comment that is not known to be left out by what reads it for the next
    kernel. kernel-install leaves comments out since systemd 257, for unified kernel images since 2026 only, and in the
    Fedora family not at all.
  - Unified kernel images get the line of C(/etc/kernel/cmdline) where an administrator has that file. Where not, each
    keeps the line that it has.
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

- name: Huge pages of two sizes, unless an administrator has set them otherwise
  vfio.host.kernel_cmdline:
    parameters:
      - hugepagesz=1G
      - hugepages=16
      - hugepagesz=2M
      - hugepages=512
    conflicts: refuse

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
by_hand:
  description: Those of O(parameters) that are in force without the collection, and so are not owned.
  type: list
  elements: str
  returned: success
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
  description:
    - What the next kernel to be installed gets, or null when it takes a shell to know. In check mode as it is.
  type: list
  elements: str
  returned: success
configured_by:
  description: The file that each configured parameter comes from, where that is known.
  type: dict
  returned: success
  sample: {"quiet": "/etc/default/grub", "intel_iommu=on": "/etc/default/grub.d/90-vfio-host.cfg"}
problems:
  description: What is wrong with the boot entries, for example an installed kernel that has none.
  type: list
  elements: str
  returned: success
next_boot:
  description: The boot entries, read back. In check mode as they are.
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
    default:
      description: Whether it is what boots when nobody chooses.
      type: bool
    managed:
      description: Whether it is an ordinary entry, which has to carry O(parameters).
      type: bool
    initrds:
      description: Paths of its initramfs images.
      type: list
      elements: str
    image:
      description: Path of its unified kernel image, or null.
      type: str
    recovery:
      description: Whether it is a recovery or fallback entry.
      type: bool
    source:
      description: The file, or the script that generated it.
      type: str
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
kept:
  description: With O(conflicts=keep), parameters that were not written, and those of others that stay in force.
  type: list
  elements: dict
  returned: success
  contains:
    ours:
      description: The parameter that was asked; of a pair by position both, as C(hugepagesz=1G hugepages=4).
      type: str
    theirs:
      description: The parameter that stays in force.
      type: str
    file:
      description: The file that sets it, or null when that is not known.
      type: str
reboot_required:
  description:
    - Whether the running kernel lacks a wanted parameter, or still has one that was taken out.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline
from ansible_collections.vfio.host.plugins.module_utils._host import Host


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
    answer(module, lambda: cmdline.run(Host(), module.params, module.check_mode))


if __name__ == "__main__":
    main()
