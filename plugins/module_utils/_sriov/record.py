# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The record of what each physical function was before us: ``/var/lib/vfio-host/sriov.json``.

``{"schema": 1, "functions": {address: {vendor, device, numvfs, autoprobe, wanted, drivers, found, settings,
ours}}}``. ``numvfs`` and ``autoprobe`` are what was before, ``wanted`` the count that was asked.
``drivers``: ``{virtual function: {driver, module, override}}`` of those that were there before, ``found``: ``{index:
{mac, ...}}`` of these. ``settings``: ``{index: {mac, ...}}`` as it was before a setting of ours; ``ours``:
``{index: [setting]}``. Indexes are text, as JSON has them.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files as files

STATE = asked.STATE_FOLDER + "/sriov.json"


def read(host):
    """``{address: record}``, {} without one. Raises HostError for one that cannot be understood."""
    def check(found):
        return all(
            isinstance(entry["numvfs"], int) and isinstance(entry["wanted"], int) and "autoprobe" in entry
            and isinstance(entry["drivers"], dict) and isinstance(entry["settings"], dict)
            and isinstance(entry["ours"], dict) and isinstance(entry["found"], dict)
            and entry["vendor"] and entry["device"]
            for entry in found["functions"].values())

    found = files.read_record(host, STATE, check, "set sriov_numvfs of each card by hand, then remove this file")
    return dict(found.get("functions", {}))


def write(host, functions):
    """Write it, or remove it when there is nothing to remember. Raises OSError."""
    files.put(host, STATE, files.render_record({"functions": functions} if functions else {}))


def same_card(entry, now):
    """Whether a record is about the card that is there now. Pure."""
    return bool(entry and now) and all(entry[name] == now[name] for name in ("vendor", "device"))
