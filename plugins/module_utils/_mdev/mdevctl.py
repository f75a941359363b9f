# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What mdevctl keeps: ``/etc/mdevctl.d/PARENT/UUID``, JSON with ``mdev_type``, ``start`` and perhaps ``attrs``.

It starts those that are ``auto`` itself and knows no card but by its address, so a definition is not left beside a list
of ours: two would decide about one UUID.
"""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils._mdev import wanted

FOLDER = "/etc/mdevctl.d"


def definitions(host):
    """``{uuid: {path: text}}``; one may be defined for several parents."""
    found = {}
    for parent in host.listdir(FOLDER):
        for name in host.listdir("%s/%s" % (FOLDER, parent)):
            if wanted.UUID.match(name.lower()):
                path = "%s/%s/%s" % (FOLDER, parent, name)
                found.setdefault(name.lower(), {})[path] = host.read(path) or ""
    return found


def refusal(item, paths):
    """Why a run ends here, with the remedy. Pure."""
    return ("%s: nothing was changed, since mdevctl decides about %s already (%s). Run mdevctl undefine -u %s, set mdevctl: "
            "import, or take it off this list" % (item["place"], item["uuid"], ", ".join(sorted(paths)), item["uuid"]))


def obstacle(paths, state):
    """Why a definition cannot be taken over, or None. Pure. ``state``: what is asked."""
    path, text = sorted(paths.items())[0]
    if len(paths) > 1:
        return "it is defined more than once: %s" % ", ".join(sorted(paths))
    try:
        found = json.loads(text)
        is_now, attributes = [path.split("/")[3], found["mdev_type"]], found.get("attrs")
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return "%s cannot be understood (%s)" % (path, exc)
    if is_now != state:
        return "%s says %s of %s, asked %s of %s" % (path, is_now[1], is_now[0], state[1], state[0])
    if attributes:
        return "%s has attributes, which only mdevctl sets" % path
    return None
