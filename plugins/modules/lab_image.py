#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
version_added: "0.1.0"
short_description: Build and cache the disk image of a lab host
description:
  - Builds a bootable disk image from Debian's own packages with mmdebstrap and keeps it in a cache
    under the hash of its recipe. An image that is there is used as it is.
  - Needs no loop device and no mount on the building machine, and no root where user namespaces work.
  - Run it on the controller. The role P(vfio.host.lab#role) does.
extends_documentation_fragment:
  - vfio.host.attributes
options:
  cache:
    description: Folder that images are kept in.
    type: path
    required: true
  log:
    description: File that the output of the build is appended to.
    type: path
    required: true
  suite:
    description: Debian release to install.
    type: str
    default: bookworm
  mirrors:
    description:
      - Sources to install from, in the one-line form of C(sources.list).
      - Empty means those that the building machine's own package manager uses or, where it uses none of
        Debian's, the default of mmdebstrap.
    type: list
    elements: str
    default: []
  size:
    description: Size of the disk, in MiB. Only what is used takes space.
    type: int
    default: 6144
  esp:
    description:
      - Size of the EFI system partition, in MiB, for an image that UEFI boots; at least 40, since it is FAT32.
      - Without one the image is for BIOS.
    type: int
    default: 0
  packages:
    description: Packages to install.
    type: list
    elements: str
    required: true
  offline_packages:
    description: Packages to have ready for an installation without a network.
    type: list
    elements: str
    default: []
  files:
    description: Files to put into the image.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the image.
        type: str
        required: true
      content:
        description: The text of the file.
        type: str
        required: true
      mode:
        description: Permissions, as a string of octal digits.
        type: str
        default: "0644"
      early:
        description:
          - Whether to put it there before the packages are installed too, for what they read at that time.
          - Not for a configuration file that a package brings itself.
        type: bool
        default: false
  scripts:
    description: The texts of the scripts V(customize), V(offline) and V(finish); see the files of the role.
    type: dict
    required: true
author:
  - vfio.host contributors (@vfio-host)
"""

EXAMPLES = r"""
- name: Make sure that the lab's image is built
  vfio.host.lab_image:
    cache: .build/cache/lab
    log: .build/logs/lab_image.log
    packages: "{{ __lab_packages }}"
    files: "{{ __lab_files }}"
    scripts: "{{ __lab_scripts }}"
  delegate_to: localhost
"""

RETURN = r"""
image:
  description: Path of the disk image (raw).
  type: str
  returned: always
  sample: .build/cache/lab/9a550ac1edda48d5/disk.img
recipe_hash:
  description: Hash of the recipe, which is the image's folder in the cache.
  type: str
  returned: always
  sample: 9a550ac1edda48d5
seconds:
  description: How long the build took.
  type: float
  returned: when an image was built
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.plugins.module_utils._lab import image

TOOLS = ("mmdebstrap", "mke2fs", "debugfs", "sfdisk", "qemu-system-x86_64", "apt-get")

SMALLEST_ESP = 40


def main():
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "path", "required": True},
            "log": {"type": "path", "required": True},
            "suite": {"type": "str", "default": "bookworm"},
            "mirrors": {"type": "list", "elements": "str", "default": []},
            "size": {"type": "int", "default": 6144},
            "esp": {"type": "int", "default": 0},
            "packages": {"type": "list", "elements": "str", "required": True},
            "offline_packages": {"type": "list", "elements": "str", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "early": {"type": "bool", "default": False},
                },
            },
            "scripts": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["esp"] and options["esp"] < SMALLEST_ESP:
        module.fail_json(msg="esp %d: an EFI system partition has at least %d MiB" % (options["esp"], SMALLEST_ESP))
    recipe = {name: options[name] for name in ("suite", "packages", "offline_packages", "files", "size", "esp")}
    cache = os.path.abspath(options["cache"])
    key = image.digest(recipe, options["scripts"])
    path = os.path.join(cache, key, "disk.img")
    result = {"changed": not os.path.exists(path), "image": path, "recipe_hash": key}
    if module._diff:
        result["diff"] = {"before": "" if result["changed"] else path + "\n", "after": path + "\n"}
    if not result["changed"] or module.check_mode:
        module.exit_json(**result)

    host = Host()
    tools = TOOLS + (("mkfs.vfat",) if options["esp"] else ())
    missing = [tool for tool in tools if not host.which(tool)]
    if missing:
        module.fail_json(
            msg="these commands are missing: %s. On Debian and Ubuntu they are in the packages mmdebstrap, e2fsprogs, "
            "fdisk, dosfstools, qemu-system-x86 and apt." % ", ".join(missing)
        )
    begun = time.monotonic()
    os.makedirs(os.path.dirname(os.path.abspath(options["log"])), exist_ok=True)
    try:
        image.build(host, recipe, options["scripts"], cache, options["mirrors"], os.path.abspath(options["log"]))
    except HostError as exc:
        module.fail_json(msg="The image was not built: %s\nThe log is %s." % (exc, options["log"]))
    module.exit_json(seconds=round(time.monotonic() - begun, 1), **result)


if __name__ == "__main__":
    main()
