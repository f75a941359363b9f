#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bridge
short_description: Give guests a network bridge over an Ethernet interface
version_added: "0.1.0"
description:
  - Makes Linux bridges over network interfaces that the host itself can spare, keeps them after a reboot, and repairs
    them when the running network differs from what is asked.
  - Writes files of its own for the network service that runs the host, and never changes a file of somebody else.
  - Refuses, before anything is changed, an interface that carries the running SSH connection, a default route, or
    addresses of its own, one that is wireless or no physical Ethernet interface, and one that is in use elsewhere.
  - When the bridge is not up with its ports in time, the files and links are put back as they were, and the module
    fails.
options:
  bridges:
    description:
      - The bridges to make or to remove. Other bridges are left as they are.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the bridge, at most 15 characters.
        type: str
        required: true
      ports:
        description:
          - Network interfaces to put into the bridge. Needed unless O(state=absent).
          - Ports that others put in, such as those of guests, stay.
        type: list
        elements: str
        default: []
      addresses:
        description:
          - Addresses of the host on the bridge, with prefix length, such as V(192.0.2.10/24).
          - Without them and without O(bridges[].dhcp) the host has no address on the bridge at all, not even a
            link-local one, and guests share only the wire with it.
        type: list
        elements: str
        default: []
      dhcp:
        description:
          - Ask for an address for the host on the bridge. The module does not wait for the answer.
          - A default route that comes with it ranks behind the routes the host has.
        type: bool
        default: false
      mac:
        description:
          - MAC address of the bridge. The default is that of the first port, so that switch and DHCP server see
            one and the same host, whichever ports join later.
        type: str
      mtu:
        description:
          - MTU of the bridge and its ports. Left as it is when not given.
        type: int
      stp:
        description:
          - Whether the bridge speaks the spanning tree protocol. With one uplink there is no loop to find, and
            some switches shut down a port that speaks it.
        type: bool
        default: false
      forward_delay:
        description:
          - Seconds a port listens and learns before it forwards. Must be 2 to 30 with O(bridges[].stp).
        type: int
        default: 0
  state:
    description:
      - V(present) makes and repairs the bridges.
      - V(absent) removes the bridges that this module made, with its files, and gives the ports back. It refuses while
        a guest is connected. A bridge that was made by others is left alone, with a warning.
    type: str
    choices: [present, absent]
    default: present
  backend:
    description:
      - The service that runs the network. V(auto) finds out, and refuses when it is none that is supported.
    type: str
    choices: [auto, networkd]
    default: auto
  wait:
    description:
      - Seconds to wait until the bridges are up with their ports. A cable need not be plugged in.
    type: int
    default: 30
extends_documentation_fragment:
  - vfio.host.attributes
notes:
  - What a port was before (up or down, MTU) is kept in C(/var/lib/vfio-host/bridges.json) until the port is given back.
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: A bridge for guests over the second interface
  vfio.host.bridge:
    bridges:
      - name: br0
        ports: [enp4s0]

- name: The host has an address on the bridge too
  vfio.host.bridge:
    bridges:
      - name: br0
        ports: [enp4s0]
        addresses: [192.0.2.10/24]

- name: Give the interface back
  vfio.host.bridge:
    bridges:
      - name: br0
    state: absent
"""

RETURN = r"""
backend:
  description: The service that runs the network; V(null) when there was nothing to remove.
  returned: success
  type: str
  sample: networkd
bridges:
  description: The bridges that are there now, or would be. Empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the bridge.
      type: str
      sample: br0
    mac:
      description: Its MAC address.
      type: str
      sample: 52:54:00:12:34:56
    ports:
      description: The ports that were asked for.
      type: list
      elements: str
      sample: [enp4s0]
    files:
      description: The files that make it.
      type: list
      elements: str
      sample: [/etc/systemd/network/25-vfio-host-br0.netdev]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._network.bridge import run


def main():
    module = AnsibleModule(
        argument_spec={
            "bridges": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "ports": {"type": "list", "elements": "str", "default": []},
                    "addresses": {"type": "list", "elements": "str", "default": []},
                    "dhcp": {"type": "bool", "default": False},
                    "mac": {"type": "str"},
                    "mtu": {"type": "int"},
                    "stp": {"type": "bool", "default": False},
                    "forward_delay": {"type": "int", "default": 0},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "backend": {"type": "str", "choices": ["auto", "networkd"], "default": "auto"},
            "wait": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = run(Host(), module.params, module.check_mode)
    except (ValueError, HostError) as exc:
        module.fail_json(msg=str(exc))
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
