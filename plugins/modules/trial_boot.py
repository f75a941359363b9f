#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: trial_boot
short_description: Start a change of the boot configuration once, while the default entry stays as it is
version_added: "0.3.0"
description:
  - With O(state=staged) it builds an initramfs image of its own, makes a boot entry C(vfio-host-trial) from the default
    one with the wanted parameters, and has the boot loader start it once, at the next boot. The default entry and its
    images stay as they are, byte for byte, which is compared before the entry is chosen.
  - A host that does not come back needs no hands. The boot loader starts the default entry at the next power cycle;
    O(panic) has a kernel that panics reboot, and an initramfs that finds no root; and a systemd timer, which only
    exists in the trial, reboots the host after O(deadline) seconds unless the trial was confirmed.
  - With O(state=confirmed), over a new connection and after looking, that timer is stopped. Then make the change
    permanent with M(vfio.host.kernel_cmdline), M(vfio.host.vfio_binding) and M(vfio.host.initramfs), which needs no
    further reboot, and take the trial away with O(state=absent).
  - What fell back is not tried again by itself.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  state:
    description:
      - V(staged) has the next boot be the trial. It does nothing when the host already runs with what is wanted, or
        the ordinary entries already have it.
      - V(confirmed) keeps the running trial from going back at its deadline. It fails when this boot is not the trial.
      - V(absent) takes the entry, its image and the timer away. What the host runs with stays until the next boot.
    type: str
    choices: [staged, confirmed, absent]
    default: staged
  parameters:
    description:
      - The whole list of parameters that the collection is to own, as for M(vfio.host.kernel_cmdline).
    type: list
    elements: str
    default: []
  devices_content:
    description:
      - The list to try, the text that M(vfio.host.vfio_binding) returns in check mode. It is not written to
        C(/etc/vfio-host/devices).
      - When it is empty or left out, the list of the host counts.
    type: str
  loader:
    description:
      - The boot loader, as for M(vfio.host.kernel_cmdline).
    type: str
    default: auto
  generator:
    description:
      - What builds the image, as for M(vfio.host.initramfs).
    type: str
    default: auto
  panic:
    description:
      - Seconds after which a kernel that panics, or an initramfs that cannot go on, reboots. V(0) leaves that as the
        default entry has it.
      - initramfs-tools heeds it by itself. In an image of mkinitcpio, which would open a shell, a hook of ours does, for
        busybox and for systemd. An image of dracut reboots at once where it would open a shell, with V(0) too.
    type: int
    default: 30
  deadline:
    description:
      - Seconds from the start of the trial until the host goes back to its default entry by itself, from 60 to 86400.
    type: int
    default: 900
  watchdog:
    description:
      - Whether systemd is told on the command line to keep the machine's watchdog (C(/dev/watchdog)), which resets a
        machine whose kernel or PID 1 hangs. A watchdog that the firmware does not arm cannot see a kernel that hangs
        before systemd.
    type: bool
    default: false
  retry:
    description:
      - Whether to try again what has fallen back.
    type: bool
    default: false
  rebuild_timeout:
    description:
      - Seconds that building the image may take.
    type: int
    default: 900
notes:
  - What it has put where is recorded in C(/var/lib/vfio-host/trial.json) before it is written. A run that was killed is
    repaired by the next one, or taken back with O(state=absent).
  - If staging fails, everything is taken back and the message names the step.
  - The trial can be chosen in the boot menu by hand, too; then it also goes back unless it is confirmed. A host goes back
    at its deadline once for each staging.
  - Where a kernel that is installed meanwhile would get the running command line, C(/etc/kernel/cmdline) is made of the
    default entry's, until the trial is taken away. It is recorded as M(vfio.host.kernel_cmdline) records its own.
seealso:
  - module: vfio.host.kernel_cmdline
  - module: vfio.host.vfio_binding
  - module: vfio.host.initramfs
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Try a parameter and a list of devices at the next boot
  vfio.host.trial_boot:
    parameters:
      - intel_iommu=on
    devices_content: "{{ binding.content }}"
  register: trial

- name: Reboot into it
  ansible.builtin.reboot:
  when: trial.outcome == 'staged'

- name: The machine is as it should be, so it stays
  vfio.host.trial_boot:
    state: confirmed

- name: Take the trial away, once the change is permanent
  vfio.host.trial_boot:
    state: absent
"""

RETURN = r"""
available:
  description: Whether an entry can be started once on this host.
  type: bool
  returned: success
obstacles:
  description: Why not.
  type: list
  elements: str
  returned: success
  sample: ["the boot loader proxmox cannot start an entry once"]
instead:
  description: What is done in its place, or null.
  type: str
  returned: success
needed:
  description: Whether there is anything to try.
  type: bool
  returned: success
because:
  description: How the running system differs from what is wanted.
  type: list
  elements: str
  returned: success
  sample: ["intel_iommu=on is not in force", "0000:01:00.0 is on nouveau"]
outcome:
  description:
    - V(none), V(staged) (starts at the next boot), V(running) (this boot is the trial) or V(fell_back) (it was started,
      or was to be, and the host is in another entry now). In check mode as it would be.
  type: str
  returned: success
evidence:
  description: What says so. For a trial that fell back also the end of its kernel log, where a journal has it.
  type: list
  elements: str
  returned: success
confirmed:
  description: Whether the running trial was confirmed.
  type: bool
  returned: success
digest:
  description: Digest of what was wanted, or null.
  type: str
  returned: success
loader:
  description: The boot loader, or null when it is not known.
  type: str
  returned: success
generator:
  description: What builds the image, or null when that is not known.
  type: str
  returned: success
kernel:
  description: Version of the kernel of the default entry, which the trial has too, or null.
  type: str
  returned: success
line:
  description: Command line of the trial.
  type: list
  elements: str
  returned: success
deadline:
  description: Seconds from its start until it goes back, or null.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._answer import answer
from ansible_collections.vfio.host.plugins.module_utils._boot import trial
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["staged", "confirmed", "absent"], "default": "staged"},
            "parameters": {"type": "list", "elements": "str", "default": []},
            "devices_content": {"type": "str"},
            "loader": {"type": "str", "default": "auto"},
            "generator": {"type": "str", "default": "auto"},
            "panic": {"type": "int", "default": 30},
            "deadline": {"type": "int", "default": 900},
            "watchdog": {"type": "bool", "default": False},
            "retry": {"type": "bool", "default": False},
            "rebuild_timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    answer(module, lambda: trial.run(Host(), module.params, module.check_mode), (ValueError, HostError, OSError))


if __name__ == "__main__":
    main()
