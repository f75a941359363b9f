# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The record of what each physical function was before us: ``/var/lib/vfio-host/sriov.json``.

``{"schema": 1, "functions": {address: {vendor, device, numvfs, autoprobe, wanted, drivers, found, settings,
ours, kept, counts, stuck}}}``. ``numvfs`` and ``autoprobe`` are what was before, ``wanted`` the count that was asked.
``drivers``: ``{virtual function: {driver, module, override}}`` of those that were there before, ``found``: ``{index:
{mac, ...}}`` of these. ``settings``: ``{index: {mac, ...}}`` as it was before a setting of ours; ``ours``:
``{index: [setting]}``. Indexes are text, as JSON has them.

``kept``: id of the boot in which those that were there before still are: they have what is in ``found``, but for what
is ours. ``counts``: what else runs that did not end may have left instead of ``wanted``. ``stuck``: id of the boot in
which a write about it never ended; it is not touched again before another boot. These three may be missing.
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
            and all(isinstance(count, int) for count in entry.get("counts", []))
            for entry in found["functions"].values())

    found = files.read_record(host, STATE, check, "set sriov_numvfs of each card by hand, then remove this file")
    return dict(found.get("functions", {}))


def write(host, functions):
    """Write it, or remove it when there is nothing to remember. Raises OSError."""
    files.put(host, STATE, files.render_record({"functions": functions} if functions else {}))


def begun(entry, count, kept):
    """A record as it is on disk before the first write of a run that makes ``count``. Pure.

    :param kept: whether the virtual functions that are there stay.
    """
    return dict(entry, wanted=count, counts=sorted((set(entry.get("counts", [])) | {entry["wanted"]}) - {count}),
                kept=entry.get("kept") if kept else None)


def ended(entry, ours):
    """The same after its last write. Pure."""
    return dict({name: value for name, value in entry.items() if name not in ("counts", "stuck")}, ours=ours)


def counts(entry):
    """How many virtual functions there may be if nobody but us has set them. Pure."""
    return {0, entry["numvfs"], entry["wanted"]} | set(entry.get("counts", []))


def same_card(entry, now):
    """Whether a record is about the card that is there now. Pure."""
    return bool(entry and now) and all(entry[name] == now[name] for name in ("vendor", "device"))
