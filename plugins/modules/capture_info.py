#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: capture_info
short_description: Read a machine so that it can be read again elsewhere
version_added: "0.2.0"
author: vfio.host contributors (@vfio-host)
description:
  - Returns the machine document, as M(vfio.host.iommu_info) does, and on request an archive of every file that it
    was computed from. M(vfio.host.iommu_info) with O(vfio.host.iommu_info#module:root) on the unpacked archive gives
    the same document again.
  - Runs no command and writes nothing on the machine; a read that does not end within five seconds counts as one that
    cannot be made. The same machine gives the same archive, apart from what
    changes by itself, such as free memory.
extends_documentation_fragment:
  - vfio.host.attributes.info
options:
  root:
    description:
      - Folder that holds the tree to read. Anything but V(/) is a tree recorded on another machine.
    type: path
    default: /
  tree:
    description:
      - Whether to return the archive too.
    type: bool
    default: false
  mask:
    description:
      - Whether to replace what tells whose machine it is, in the document and in the archive. Masked are MAC and IP
        addresses, serial numbers of devices, disks and boards, UUIDs and labels, and the names of the machine, of its
        users and of the file servers it mounts from. Of an IPv4 address the second and the third byte are masked, of
        an IPv6 address all behind the first two bytes.
      - The same secret gets the same mask everywhere, so that groups, uses and findings stay what they are.
      - Masks are made with the machine's C(/etc/machine-id), which is not returned. Where there is none, each
        capture masks anew.
    type: bool
    default: false
  limit:
    description:
      - Bytes that the archive may have. Most are well below 2 MB; a server with thousands of functions has more.
    type: int
    default: 33554432
notes:
  - Run it as the superuser, for the reasons that M(vfio.host.iommu_info) gives.
  - Look at what is masked before you publish it. A name that the machine's owner gave to a volume, a folder or a
    network interface is recognised only when it holds the name of the machine or of a user.
seealso:
  - module: vfio.host.iommu_info
"""

EXAMPLES = r"""
- name: Read the machine and everything that its document was computed from
  vfio.host.capture_info:
    tree: true
    mask: true
  register: capture
  become: true
"""

RETURN = r"""
machine:
  description:
    - The machine document, see RV(vfio.host.iommu_info#module:machine).
    - Its C(source) has C(capture) too, with C(masked) and a C(fingerprint), which two captures share when they are of
      one machine in one state; free memory, sessions and running processes do not count.
  returned: success
  type: dict
tree:
  description: The archive, a C(tar.gz) in base64.
  returned: when O(tree=true)
  type: str
tree_bytes:
  description: Size of the archive.
  returned: when O(tree=true)
  type: int
"""

import base64
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vfio.host.plugins.module_utils import _imports

_imports.compile_once()  # concerns what is imported from here on

from ansible_collections.vfio.host.plugins.module_utils import _recording
from ansible_collections.vfio.host.plugins.module_utils._answer import exit_json
from ansible_collections.vfio.host.plugins.module_utils._host import HostError


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "tree": {"type": "bool", "default": False},
            "mask": {"type": "bool", "default": False},
            "limit": {"type": "int", "default": 33554432},
        },
        supports_check_mode=True,
    )
    root, limit = module.params["root"], module.params["limit"]
    if not os.path.isdir(root):
        module.fail_json(msg="root: %s is not a folder; give the folder that holds a recorded tree" % root)
    try:
        machine, data = _recording.capture(root, module.params["mask"])
    except HostError as exc:
        module.fail_json(msg="root: %s: %s" % (root, exc))
    result = {"changed": False, "machine": machine}
    if module.params["tree"]:
        if len(data) > limit:
            module.fail_json(msg="limit: the archive has %d bytes, %d are allowed; give a higher limit or leave out tree"
                             % (len(data), limit))
        result.update(tree=base64.b64encode(data).decode("ascii"), tree_bytes=len(data))
    exit_json(module, **result)


if __name__ == "__main__":
    main()
