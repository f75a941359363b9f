#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guests
author:
  - vfio.host contributors (@vfio-host)
version_added: "0.1.0"
short_description: Define, start, stop and remove libvirt guests with assigned PCI devices
description:
  - Brings all guests of a host to the wanted state in one execution.
  - The definition is compared by meaning and not by text. What libvirt or somebody else added to a domain stays in it;
    a disk, network card, assigned device or display more than wanted is taken out.
  - Every guest is judged before anything is changed. In check mode, what would make the run fail is returned in
    RV(problems) and warned about instead, because earlier steps that check mode only predicted may cure it.
  - A running guest is never restarted. A changed definition takes effect at its next start, see RV(restart_required).
  - The functions must be bound to C(vfio-pci), or to a variant of it, already. libvirt is told not to touch drivers.
  - All memory of a guest with assigned devices is pinned, so guests that do not fit into the host together are refused.
extends_documentation_fragment:
  - vfio.host.attributes
requirements:
  - python3-libvirt on the host (in check mode every guest is predicted as new without it)
options:
  guests:
    description:
      - The guests. Guests of the host that are not listed are left alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the guest, without slashes.
        type: str
        required: true
      state:
        description:
          - V(running) defines and starts, V(defined) defines and leaves it on or off, V(shutoff) defines and shuts
            down, V(absent) shuts down and removes the definition. Disks are never removed.
        type: str
        choices: [running, shutoff, defined, absent]
        default: running
      autostart:
        description: Whether the host starts the guest when it boots.
        type: bool
        default: false
      memory:
        description:
          - Bytes, or a number with C(KiB), C(MiB), C(GiB) or C(TiB); whole MiB.
          - Needed unless O(guests[].state=absent).
        type: raw
      vcpus:
        description:
          - Number of virtual CPUs, as cores of one socket.
          - Needed unless O(guests[].state=absent).
        type: int
      devices:
        description: Devices to assign. Each gets a slot of its own in the guest, behind its own root port.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the device; it stays in the same guest slot as long as it has this name.
            type: str
            required: true
          functions:
            description:
              - Functions of the device, as P(vfio.host.plan#filter) returns them. C(address) is needed, like
                V(0000:01:00.0). If C(vendor) and C(device) are given, the guest is not started with another card there.
            type: list
            elements: dict
            required: true
      disks:
        description: Disks, in the order in which the guest sees them.
        type: list
        elements: dict
        suboptions:
          path:
            description: Absolute path of an image, or of a block device below C(/dev).
            type: path
            required: true
          format:
            description: Format of the image; V(qcow2) by default for a path that ends in C(.qcow2), else V(raw).
            type: str
            choices: [raw, qcow2]
          size:
            description:
              - Size to create the image with when there is none, written as O(guests[].memory). Images grow as they are
                filled. An image that is there is never resized.
            type: raw
          bus:
            description: Bus of the disk.
            type: str
            choices: [virtio]
            default: virtio
          readonly:
            description: Whether the guest can only read it.
            type: bool
            default: false
      network:
        description: Bridge of the host for one virtio network card; none without.
        type: str
      firmware:
        description: Firmware of the guest.
        type: str
        choices: [bios]
        default: bios
      kernel:
        description: Path on the host of a kernel to boot directly, instead of from a disk.
        type: path
      initrd:
        description: Path on the host of the initial RAM disk for O(guests[].kernel).
        type: path
      cmdline:
        description: Command line for O(guests[].kernel).
        type: str
      serial_log:
        description:
          - File on the host that receives what the guest writes to its serial port. Its folder must be there, best
            below C(/var/log/libvirt). Without it the port is a pseudo terminal (C(virsh console)).
        type: path
      display:
        description:
          - V(vnc) gives an emulated display on port 5900 or a later one of the host's loopback interface.
          - V(none) by default for a guest with devices, else V(vnc).
        type: str
        choices: [none, vnc]
  uri:
    description: libvirt to connect to.
    type: str
    default: qemu:///system
  host_reserve:
    description: Memory that pinned guests must leave to the host, written as O(guests[].memory).
    type: raw
    default: 1GiB
  shutdown_timeout:
    description: Seconds that a guest may take to shut down when it is asked to.
    type: int
    default: 60
  force_off:
    description: Whether to turn off a guest that did not shut down in time. It loses what it has not written.
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait for one answer of libvirt. What libvirt does later than that is not undone.
      - After its installation libvirt examines QEMU at the first question, which takes minutes on a slow machine.
    type: int
    default: 300
seealso:
  - plugin: vfio.host.resolve_guests
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Run one guest with a graphics card
  vfio.host.guests:
    guests:
      - name: desk1
        memory: 8GiB
        vcpus: 4
        devices:
          - name: gaming_gpu
            functions:
              - {address: "0000:01:00.0", vendor: 10de, device: "1380"}
              - {address: "0000:01:00.1", vendor: 10de, device: "0fbc"}
        disks:
          - {path: /var/lib/libvirt/images/desk1.qcow2, size: 64GiB}
        network: br0

- name: Take the devices from the plan
  vfio.host.guests:
    guests: "{{ vfio_host_guests | vfio.host.resolve_guests(plan) }}"

- name: Remove a guest that does not listen to the power button
  vfio.host.guests:
    guests:
      - {name: desk1, state: absent}
    shutdown_timeout: 10
    force_off: true
"""

RETURN = r"""
guests:
  description: One entry for each guest, in the given order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the guest.
      type: str
    uuid:
      description: UUID of the domain; empty for an absent one.
      type: str
    state_before:
      description: V(running), V(shutoff) or V(absent).
      type: str
    state:
      description: The same after the run, predicted in check mode.
      type: str
    actions:
      description: What was done, of V(create_disk), V(define), V(autostart), V(start), V(stop), V(undefine).
      type: list
      elements: str
    differences:
      description: Where the definition was not what was wanted, by path.
      type: list
      elements: str
    live_differences:
      description: Where the running guest is not what is wanted.
      type: list
      elements: str
    restart_required:
      description: Whether the guest runs with an older definition.
      type: bool
    changed:
      description: Whether anything was done for this guest.
      type: bool
  sample:
    - name: desk1
      uuid: 4b1e2c6a-3e0a-5cd8-8a2e-0d6f3f6b7a10
      state_before: absent
      state: running
      actions: [define, start]
      differences: ["domain: missing"]
      live_differences: []
      restart_required: false
      changed: true
restart_required:
  description: Names of the guests that run with an older definition.
  returned: success
  type: list
  elements: str
  sample: []
problems:
  description: What would make the run fail, with a remedy each. Only in check mode; a real run fails with them.
  returned: success
  type: list
  elements: str
  sample: []
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

from ansible_collections.vfio.host.plugins.module_utils._guest.connection import Libvirt
from ansible_collections.vfio.host.plugins.module_utils._guest.manage import run
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError

try:
    import libvirt
except ImportError:
    libvirt = None

SYSTEM_PYTHON = "/usr/bin/python3"

GUEST_SPEC = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["running", "shutoff", "defined", "absent"], "default": "running"},
    "autostart": {"type": "bool", "default": False},
    "memory": {"type": "raw"},
    "vcpus": {"type": "int"},
    "devices": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "functions": {"type": "list", "elements": "dict", "required": True},
        },
    },
    "disks": {
        "type": "list",
        "elements": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "format": {"type": "str", "choices": ["raw", "qcow2"]},
            "size": {"type": "raw"},
            "bus": {"type": "str", "choices": ["virtio"], "default": "virtio"},
            "readonly": {"type": "bool", "default": False},
        },
    },
    "network": {"type": "str"},
    "firmware": {"type": "str", "choices": ["bios"], "default": "bios"},
    "kernel": {"type": "path"},
    "initrd": {"type": "path"},
    "cmdline": {"type": "str"},
    "serial_log": {"type": "path"},
    "display": {"type": "str", "choices": ["none", "vnc"]},
}


def use_system_python():
    """Go on under the distribution's Python when it alone has the binding (it comes as a package)."""
    if has_respawned() or os.path.realpath(sys.executable or "") == os.path.realpath(SYSTEM_PYTHON):
        return
    interpreter = probe_interpreters_for_module([SYSTEM_PYTHON], "libvirt")
    if interpreter:
        respawn_module(interpreter)


def main():
    module = AnsibleModule(
        argument_spec={
            "guests": {"type": "list", "elements": "dict", "required": True, "options": GUEST_SPEC},
            "uri": {"type": "str", "default": "qemu:///system"},
            "host_reserve": {"type": "raw", "default": "1GiB"},
            "shutdown_timeout": {"type": "int", "default": 60},
            "force_off": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if libvirt is None and module.params["guests"]:
        use_system_python()

    def connect():
        if libvirt is None:
            raise HostError(missing_required_lib("libvirt (Debian: python3-libvirt)", reason="to manage guests"))
        return Libvirt.open(libvirt, module.params["uri"], module.params["timeout"])

    try:
        result = run(Host(), module.params, module.check_mode, connect)
    except (ValueError, HostError) as exc:
        module.fail_json(msg=str(exc))
    for text in result.pop("warnings"):
        module.warn(text)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
