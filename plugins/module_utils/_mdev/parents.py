# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Functions that a driver shares out in parts, as sysfs has them, and the parts: mediated devices and vGPU types.

Documentation/ABI/testing/sysfs-bus-vfio-mdev of the kernel has the one way. The other is that of NVIDIA's host driver
where it uses no mediated devices: each virtual function has one type, 0 for none, and is given away itself.

A part has a key: its UUID, or the address of the virtual function. Its state is ``[parent, type]``, None for nothing.
"""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import SYSFS, read_function
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._sriov.physical import virtual

MDEV, VGPU = "mdev", "vgpu"
DEVICES = "/sys/bus/mdev/devices/"
TYPES = "/mdev_supported_types"
CURRENT, CREATABLE = "/nvidia/current_vgpu_type", "/nvidia/creatable_vgpu_types"

TIMEOUT = 60.0
"""Seconds that a driver may take to make or end one."""


def read(host, address):
    """``{vendor, device, serial, driver, physfn, ways, types, below}``, None when it is not there.

    ``types``: ``{id: {name, available}}``, ``available`` None for not known; of a vGPU only what can be made now is
    listed. ``below``: those of its virtual functions that have a way.
    """
    live = read_function(host, address)
    if live is None:
        return None
    folder = SYSFS + address
    ways, types = [], {}
    if host.isdir(folder + TYPES):
        ways.append(MDEV)
        for kind in host.listdir(folder + TYPES):
            home = "%s%s/%s/" % (folder, TYPES, kind)
            left = host.read_sysfs(home + "available_instances") or ""
            types[kind] = {"name": host.read_sysfs(home + "name"), "available": int(left) if left.isdigit() else None}
    if host.exists(folder + CURRENT):
        ways.append(VGPU)
        types.update(parse_creatable(host.read_sysfs(folder + CREATABLE) or ""))
    physfn = host.readlink(folder + "/physfn")
    return {
        "vendor": live["vendor"], "device": live["device"], "serial": live["serial"], "driver": live["driver"],
        "physfn": posixpath.basename(physfn) if physfn else None, "ways": ways, "types": types,
        "below": [] if ways else [vf for dummy, vf in sorted(virtual(host, address).items())
                                  if host.exists(SYSFS + vf + TYPES) or host.exists(SYSFS + vf + CURRENT)],
    }


def parse_creatable(text):
    """``{id: {name, available}}`` of lines like ``1414 : NVIDIA H200X-1-18C``. Pure. Others are headings."""
    found = (re.match(r"\s*(\d+)\s*:\s*(.*?)\s*\Z", line) for line in text.splitlines())
    return {match.group(1): {"name": match.group(2), "available": None} for match in found if match}


def table(types):
    """The types of a function for an error. Pure."""
    return "".join("\n  %s  %s%s" % (kind, one["name"] or "-",
                                     "" if one["available"] is None else "  (%d left)" % one["available"])
                   for kind, one in sorted(types.items())) or " none"


def check(item, parent):
    """Raise ValueError when a function is not what was asked, or is not shared out. Pure. ``parent``: of read()."""
    address, place = item["parent"], item["place"]
    if parent is None:
        raise ValueError("%s.parent: %s does not exist; lspci -D lists what there is. Virtual functions have to be made "
                         "first (vfio.host.sriov, or the driver's own command)" % (place, address))
    for field in ("vendor", "device", "serial"):
        if item[field] is not None and parent[field] != item[field]:
            raise ValueError("%s.%s: %s has %s, asked %s; another card is there, read the machine again"
                             % (place, field, address, parent[field] or "none", item[field]))
    if len(parent["ways"]) == 1:
        return
    if parent["ways"]:
        raise ValueError("%s.parent: %s has mdev_supported_types and current_vgpu_type, and which of them counts is not "
                         "known; set it by hand" % (place, address))
    if asked.is_vfio(parent["driver"]):
        remedy = "take it off the list of vfio.host.vfio_binding, for its own driver has to have it"
    elif parent["below"]:
        remedy = "give one of its virtual functions, which do: %s" % ", ".join(parent["below"])
    else:
        remedy = ("it needs a driver that does: NVIDIA's for vGPU hosts (of newer cards its virtual functions, which have "
                  "to be made first), or i915 with enable_gvt=1 and kvmgt")
    raise ValueError("%s.parent: %s is on %s, which offers neither mediated devices (mdev_supported_types) nor vGPU types "
                     "(nvidia/current_vgpu_type); %s" % (place, address, parent["driver"] or "no driver", remedy))


# -- parts -----------------------------------------------------------------------------------------


def is_function(key):
    return ":" in key


def state(host, key):
    """What is there now. Raises HostError when that cannot be told."""
    if is_function(key):
        path = SYSFS + key + CURRENT
        text = host.read_sysfs(path) if host.exists(path) else "0"
        if not (text or "").isdigit():
            raise HostError("%s: %r is no id of a type, so what it has now is not known" % (path, text))
        return [key, str(int(text))] if int(text) else None
    home, kind = host.readlink(DEVICES + key), host.readlink(DEVICES + key + "/mdev_type")
    if home is None:
        return None
    if kind is None:
        raise HostError("%s%s: it has no mdev_type, so what it is is not known" % (DEVICES, key))
    return [posixpath.basename(posixpath.dirname(home)), posixpath.basename(kind)]


def nodes(host, key):
    """Device nodes of a mediated device."""
    group = host.readlink(DEVICES + key + "/iommu_group")
    found = ["/dev/vfio/" + posixpath.basename(group)] if group else []
    return found + ["/dev/vfio/devices/" + name for name in host.listdir(DEVICES + key + "/vfio-dev")]


def put(host, key, before, after):
    """One part from ``before`` to ``after``, one of which is None; read back."""
    if is_function(key):
        path, value = SYSFS + key + CURRENT, after[1] if after else "0"
    elif after:
        path, value = "%s%s%s/%s/create" % (SYSFS, after[0], TYPES, after[1]), key
    else:
        path, value = DEVICES + key + "/remove", "1"
    host.write_sysfs(path, value, TIMEOUT)
    now = state(host, key)
    if now != after:
        raise HostError("writing %r to %s: the kernel took it, and there is %s" % (value, path, shown(now)))


def shown(found):
    return "%s of %s" % (found[1], found[0]) if found else "nothing"
