# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The driver for assignment that the kernel itself would take for a function: vfio-pci or a variant for its family."""

from __future__ import annotations

import fnmatch

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import SYSFS
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

BEST = "best"
PREFIX = "vfio_pci:"
LIMIT = 64 * 1024 * 1024


def best(aliases, modalias):
    """Name of the module whose ``vfio_pci:`` alias fits most closely, vfio-pci where none does. Pure.

    :param aliases: text of modules.alias. :param modalias: of the function, ``pci:v000015B3d0000101E...``.
    The closest has the most characters that are given: what modprobe's and libvirt's own choice comes to.
    """
    wanted = PREFIX + modalias.partition(":")[2]
    found = []
    for line in aliases.splitlines():
        if line.startswith("alias " + PREFIX):
            dummy, pattern, module = line.split()
            if fnmatch.fnmatchcase(wanted, pattern):
                found.append((len(pattern.replace("*", "")), module))
    chosen = max(found)[1] if found else asked.DRIVER
    return asked.DRIVER if asked.module_of(chosen) == asked.module_of(asked.DRIVER) else chosen


def resolved(host, item):
    """A device of the user with ``driver: best`` replaced by a name, for the running kernel.

    Raises HostError when that cannot be told.
    """
    if item.get("driver") != BEST:
        return item
    address = str(item["address"]).lower()
    modalias = host.read_attribute(SYSFS + address + "/modalias")
    release = host.read_attribute("/proc/sys/kernel/osrelease")
    aliases = host.read("/lib/modules/%s/modules.alias" % release, LIMIT) if release else None
    if not modalias or aliases is None:
        raise HostError(
            "%s: which driver is best cannot be told, since %s cannot be read; name the driver" % (
                address, "its modalias" if not modalias else "/lib/modules/%s/modules.alias" % release))
    return dict(item, driver=best(aliases, modalias))
