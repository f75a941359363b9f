# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""From device names in guests to the functions that the plan chose for them. Pure."""

from __future__ import annotations


def resolve(guests, plan):
    """``guests`` with each device name replaced by ``{name, functions}`` of ``plan["devices"]``.

    Inputs are not changed. Raises ValueError for a name that the plan does not know, for a device
    named twice in one guest, and for one device in two guests that shall both run.
    """
    known = {str(device["name"]): device for device in plan["devices"]}
    running, resolved = {}, []
    for guest in guests:
        owner = str(guest.get("name"))
        devices = []
        for entry in guest.get("devices") or []:
            name = str(entry)
            if name not in known:
                raise ValueError(
                    "guest %s: device %s is not in the plan; known are: %s"
                    % (owner, name, ", ".join(sorted(known)) or "none")
                )
            if any(name == device["name"] for device in devices):
                raise ValueError("guest %s: device %s is listed twice" % (owner, name))
            if guest.get("state", "running") == "running" and running.setdefault(name, owner) != owner:
                raise ValueError(
                    "device %s: guests %s and %s shall both run with it; let one be defined or shutoff"
                    % (name, running[name], owner)
                )
            devices.append({"name": name, "functions": [dict(item) for item in known[name]["functions"]]})
        resolved.append(dict(guest, devices=devices))
    return resolved
