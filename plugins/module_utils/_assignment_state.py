# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What was asked of the host: ``/etc/vfio-host/devices``, one function a line.

Written by ``vfio_binding``, read by ``initramfs`` and by the script in the image. A line is
``address vendor device subsystem_vendor subsystem_device serial driver path``, ``-`` for no serial. Two cards of one
make have the same ids and often no serial; the path (:func:`path_of`) tells them apart when bus numbers shift.
"""

from __future__ import annotations

import re

ASKED_FOLDER = "/etc/vfio-host"
STATE_FOLDER = "/var/lib/vfio-host"
DEVICES = ASKED_FOLDER + "/devices"
VARIABLE = "VFIO_HOST_DEVICES"
"""Environment of a build that takes another list than DEVICES into its image."""

HEADER = (
    "# Managed by the vfio.host collection (module vfio_binding). Do not edit: it is replaced.\n"
    "# address vendor device subsystem_vendor subsystem_device serial driver path\n"
)

FIELDS = ("address", "vendor", "device", "subsystem_vendor", "subsystem_device", "serial", "driver", "path")
REQUIRED = 7
"""Fields that a line has at least; a path may be missing."""
DRIVER = "vfio-pci"
VARIANT = re.compile(r"^[a-z0-9][a-z0-9_-]*[_-]vfio[_-]pci\Z")
"""Drivers of the kernel's vfio folder for one family of devices: ``mlx5_vfio_pci``, ``nvgrace-gpu-vfio-pci``."""

PATTERNS = {
    "address": (re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\Z"), "like 0000:01:00.0"),
    "serial": (re.compile(r"^[0-9a-f]{2}(-[0-9a-f]{2}){7}\Z"), "like 00-11-22-ff-fe-33-44-55"),
    "path": (re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}(/[01][0-9a-f]\.[0-7])+\Z"), "like 0000:00/01.0/00.0"),
}
ID = re.compile(r"^[0-9a-f]{4}\Z")


def module_of(driver):
    """Name of a driver's module as the kernel says it; two names of one driver have the same."""
    return driver.replace("-", "_")


def is_vfio(driver):
    """Whether a driver gives a function to guests: vfio-pci or a variant of it."""
    return isinstance(driver, str) and (module_of(driver) == "vfio_pci" or bool(VARIANT.match(driver)))


def identity(given, place="devices"):
    """A checked line as a dict of FIELDS, lower case; ``serial`` and ``path`` None when there is none.

    Raises ValueError that names the value, ``place`` and what is expected.
    """
    found = {}
    for field in FIELDS:
        value = given.get(field)
        if field == "driver":
            value = DRIVER if not value or value == "vfio_pci" else value
            if not is_vfio(value):
                raise ValueError(
                    "%s: driver %r is neither %s nor a variant of it like mlx5_vfio_pci" % (place, value, DRIVER)
                )
        elif field in ("serial", "path") and value in (None, "", "-"):
            value = None
        else:
            value = str(value).lower()
            pattern, example = PATTERNS.get(field, (ID, "four hexadecimal digits"))
            if not pattern.match(value):
                raise ValueError("%s: %s %r is not %s" % (place, field, given.get(field), example))
        found[field] = value
    return found


def path_of(link):
    """The way to a function from its link in /sys/bus/pci/devices: root bus, then slot and function at each bridge.

    ``../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0`` is ``0000:00/01.0/00.0``. Bus numbers behind the
    root are left out: they shift when a card comes or goes, and the way does not. None for anything else.
    """
    root, *steps = (link or "").rpartition("/pci")[2].split("/")
    found = "/".join([root] + [step.rpartition(":")[2] for step in steps])
    return found if PATTERNS["path"][0].match(found) else None


def render(identities):
    """Text of the file, sorted by address. Raises ValueError for an address given twice."""
    lines = []
    seen = set()
    for item in sorted(identities, key=lambda one: one["address"]):
        if item["address"] in seen:
            raise ValueError("devices: %s is given twice" % item["address"])
        seen.add(item["address"])
        fields = FIELDS if item.get("path") else FIELDS[:REQUIRED]
        lines.append(" ".join(item[field] or "-" for field in fields))
    return HEADER + "".join(line + "\n" for line in lines)


def parse(text):
    """The functions of the file as a list of dicts. Raises ValueError naming the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or line.startswith("#"):
            continue
        place = "%s line %d" % (DEVICES, number)
        if not REQUIRED <= len(parts) <= len(FIELDS):
            raise ValueError(
                "%s: %d fields, expected %d or %d: remove the file and run again"
                % (place, len(parts), REQUIRED, len(FIELDS))
            )
        found.append(identity(dict(zip(FIELDS, parts)), place))
    return found
