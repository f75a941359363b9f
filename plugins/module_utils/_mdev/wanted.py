# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is asked of functions that are shared out in parts, checked; and the list of it that the unit reads. Pure.

``/etc/vfio-host/mediated_devices`` has one line for each part, fields parted by a blank, ``-`` for none::

    parent vendor device serial way type uuid
"""

from __future__ import annotations

import re
import uuid

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._guest.identity import NAMESPACE
from ansible_collections.vfio.host.plugins.module_utils._settings.functions import identity_field

LIST = asked.ASKED_FOLDER + "/mediated_devices"
HEADER = (
    "# Managed by the vfio.host collection (module mediated_devices). Do not edit: it is replaced.\n"
    "# parent vendor device serial way type uuid\n"
)

UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
TYPE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.+-]*\Z")
"""What is a word for the script too; the kernel joins the driver's name and the type's with a dash."""
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def check(devices):
    """``[{place, parent, vendor, device, serial, type, uuid, name}]`` of the option ``devices``; None for not given.

    Raises ValueError that names value, place and remedy.
    """
    found = []
    for number, given in enumerate(devices):
        place = "devices[%d]" % number
        item = {"place": place, "parent": identity_field(given.get("parent"), "address", place + ".parent")}
        for field in ("vendor", "device", "serial"):
            item[field] = identity_field(given.get(field), field, "%s.%s" % (place, field))
        item["type"] = str(given.get("type") or "").strip()
        if not item["type"]:
            raise ValueError("%s.type: it is empty; give the id or the name of a type" % place)
        item["uuid"] = str(given["uuid"]).lower() if given.get("uuid") else None
        if item["uuid"] and not UUID.match(item["uuid"]):
            raise ValueError("%s.uuid: %r is no UUID like 9f3a1c52-0b6e-4d0e-8a67-3c1de52b7f10; leave it out, and it is "
                             "computed" % (place, given["uuid"]))
        item["name"] = given.get("name") or None
        if item["name"] and item["uuid"]:
            raise ValueError("%s.name: %s is for computing a UUID, and one is given; leave one of them out"
                             % (place, item["name"]))
        if item["name"] and not NAME.match(item["name"]):
            raise ValueError("%s.name: %r has other characters than letters, digits, dot, dash and underscore"
                             % (place, item["name"]))
        found.append(item)
    return found


def device_uuid(machine_id, parent, kind, name):
    """Version 5 UUID (str); ``name``: its own, or its number among those of one type on one parent."""
    return str(uuid.uuid5(NAMESPACE, "%s/mdev/%s/%s/%s" % (machine_id, parent, kind, name)))


def render(items):
    """Text of LIST, None when there is nothing to do at boot. ``items``: see manage, with ``way`` and ``state``."""
    lines = [" ".join([item["parent"], item["vendor"], item["device"], item["serial"] or "-", item["way"],
                       item["state"][1], item["uuid"] or "-"]) + "\n"
             for item in sorted(items, key=lambda one: (sort_key(one["parent"]), one["uuid"] or ""))]
    return HEADER + "".join(lines) if lines else None
