# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""A PCI function as it is now, and whether it is the one that was asked for."""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked

SYSFS = "/sys/bus/pci/devices/"

CONFIG_SIZE = 4096
DSN = 0x0003
"""Id of the Device Serial Number extended capability (PCI Express Base Specification 7.9.3)."""


def serial_of(config):
    """The serial number in a function's configuration space as ``xx-xx-xx-xx-xx-xx-xx-xx``, or None.

    Written as lspci does: the upper register first, each from its high byte.
    """

    def register(at):
        return int.from_bytes(config[at: at + 4], "little")

    at = 0x100
    seen = set()
    while at >= 0x100 and at not in seen and at + 12 <= len(config):
        seen.add(at)
        header = register(at)
        if header in (0, 0xFFFFFFFF):
            return None
        if header & 0xFFFF == DSN:
            return "-".join(re.findall("..", "%08x%08x" % (register(at + 8), register(at + 4))))
        at = (header >> 20) & ~3
    return None


def mismatches(wanted, live, device_class=None):
    """How a live function differs from what was asked: a list of sentences, empty when it is the one."""
    address = wanted["address"]
    if live is None:
        return ["%s does not exist" % address]
    found = []
    for title, fields in (("", ("vendor", "device")), ("subsystem ", ("subsystem_vendor", "subsystem_device"))):
        is_now = ":".join(live[field] or "unknown" for field in fields)
        should = ":".join(wanted[field] for field in fields)
        if is_now != should:
            found.append("%s is %s%s, asked %s" % (address, title, is_now, should))
    if device_class and live["class"] != device_class:
        found.append("%s is of class %s, asked %s" % (address, live["class"] or "unknown", device_class))
    if wanted["serial"] and live["serial"] != wanted["serial"]:
        found.append("%s has serial number %s, asked %s" % (address, live["serial"] or "none", wanted["serial"]))
    if wanted.get("path") and live["path"] != wanted["path"]:
        found.append("%s is at %s, asked %s" % (address, live["path"] or "an unknown place", wanted["path"]))
    if live["header_type"] is None:
        found.append("%s: its configuration space cannot be read" % address)
    elif live["header_type"] != 0 or (live["class"] or "").startswith("06"):
        found.append("%s is a bridge: vfio-pci cannot take it" % address)
    return found


def read_function(host, address):
    """A live function: ids, class, serial, header type (int | None) and driver; None when it is not there."""
    folder = SYSFS + address
    if not host.exists(folder):
        return None
    live = {}
    for field in ("vendor", "device", "subsystem_vendor", "subsystem_device", "class"):
        text = host.read_attribute(folder + "/" + field)
        live[field] = text[2:].lower() if text and text.startswith("0x") else None
    config = host.read_bytes(folder + "/config", CONFIG_SIZE) or b""
    live["serial"] = serial_of(config)
    live["header_type"] = config[0x0E] & 0x7F if len(config) >= 64 else None
    live["path"] = asked.path_of(host.readlink(folder))
    live["driver"] = driver_of(host, address)
    return live


def driver_of(host, address):
    link = host.readlink(SYSFS + address + "/driver")
    return posixpath.basename(link) if link else None
