#!/usr/bin/env python
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what the probe reads on this machine, so that it can be read again anywhere.

    sudo python3 tools/record_tree.py [--mask] machine.tar.gz
    mkdir tree && tar -xzf machine.tar.gz -C tree    # then iommu_info with root: tree

Needs Python 3.8 and the collection's ``plugins`` folder beside this one. Of a process's environment only
SSH_CONNECTION is kept. With --mask, MAC and IP addresses, serial numbers, UUIDs, and the names of the machine and
its users are replaced. playbooks/capture.yml does the same from afar.
"""

from __future__ import annotations

import argparse
import os
import sys
import types

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def import_collection():
    """Make ``ansible_collections.vfio.host`` this checkout; Ansible itself is not needed."""
    for name in ("ansible_collections", "ansible_collections.vfio", "ansible_collections.vfio.host"):
        package = types.ModuleType(name)
        package.__path__ = [HERE] if name.endswith(".host") else []
        sys.modules.setdefault(name, package)


def main(arguments):
    parser = argparse.ArgumentParser(description="Record what the probe reads on this machine.")
    parser.add_argument("archive", metavar="FILE.tar.gz")
    parser.add_argument("--mask", action="store_true", help="replace what tells whose machine it is")
    chosen = parser.parse_args(arguments)
    sys.dont_write_bytecode = True
    import_collection()
    from ansible_collections.vfio.host.plugins.module_utils import _recording

    machine, data = _recording.capture(mask=chosen.mask)
    for missing in machine["source"]["missing"]:
        print("missing: %(input)s: %(why)s" % missing)
    with open(chosen.archive, "wb") as handle:
        handle.write(data)


if __name__ == "__main__":
    main(sys.argv[1:])
