# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The record of what each function was before we came: ``/var/lib/vfio-host/binding.json``. Of functions that the next
boot gives back it is in ``/run/vfio-host/binding.json`` until then, should they be wanted again.

``{"schema": 1, "functions": {address: {vendor, device, subsystem_vendor, subsystem_device, driver, module, override,
driverctl, persistence, returning, stuck}}}``. ``driver`` None: it had none. ``module`` is the driver's, which may have another name;
``override`` what driver_override said; ``driverctl`` the text of driverctl's file that was taken over;
``persistence`` is true where NVIDIA's daemon had the function open. ``returning``: id of the boot in which a run was about
to change its driver, there or back: as long as it is here that run did not end, and what is half-way returns to this.
``stuck``: id of the boot in which a write about it never ended; it is not touched again before another boot. All but
ids and driver may be missing.
"""

from __future__ import annotations

import json
import posixpath

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import SYSFS, driver_of
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

STATE = asked.STATE_FOLDER + "/binding.json"
LEAVING = "/run/vfio-host/binding.json"
TRIAL = asked.STATE_FOLDER + "/trial.json"

IDS = ("vendor", "device", "subsystem_vendor", "subsystem_device")


def render(records):
    return json.dumps({"schema": 1, "functions": records}, indent=2, sort_keys=True) + "\n"


def merge(records, wanted, now, before_trial=None):
    """The record with every wanted function: kept for a function that is the same card, new for one that is not. Pure.

    One that has got a driver of the host meanwhile is taken from that one: what it was on before may have been a guest's.

    :param now: ``{address: {driver, module, override}}`` as it is.
    :param before_trial: ``{address: driver}`` from before a trial boot, in which the functions are bound already.
    """
    merged = {}
    before_trial = before_trial or {}
    for item in wanted:
        address = item["address"]
        ids = {field: item[field] for field in IDS}
        old = records.get(address)
        if old is not None and {field: old.get(field) for field in ids} == ids:
            merged[address] = _renewed(old, now[address])
            continue
        was = dict(now[address])
        if asked.is_vfio(was["driver"]) and address in before_trial:
            was = {"driver": before_trial[address], "module": None, "override": None}
        merged[address] = dict(ids, **was)
    return merged


def _renewed(old, now):
    """A record, with the driver of the host that the function has got since; not where driverctl had decided. Pure."""
    native = now["driver"] is not None and not asked.is_vfio(now["driver"])
    if not native or now["driver"] == old.get("driver") or "driverctl" in old:
        return old
    return dict(_unmarked(old), **now)


def moving(records, addresses, boot):
    """The same with the mark of a run that is about to change the drivers of these. Pure."""
    return {address: dict(old, returning=boot) if address in addresses else old for address, old in records.items()}


def settled(records, addresses):
    """The same without that mark, for functions that are where they shall be. Pure."""
    return {address: _unmarked(old) if address in addresses else old for address, old in records.items()}


def _unmarked(record):
    return {field: value for field, value in record.items() if field != "returning"}


def unfinished(record, now, boot):
    """Whether a run of this boot about the function did not end, and nobody has given it to another driver since. Pure."""
    return bool(boot) and record.get("returning") == boot and now["driver"] in (None, record.get("driver"))


def at_home(record, now, boot):
    """Whether nothing of ours is left on a function. Pure. ``now``: as of as_it_is(); ``boot``: id of this boot."""
    if unfinished(record, now, boot):
        return (now["driver"], now["override"]) == (record.get("driver"), record.get("override"))
    if asked.is_vfio(now["driver"]) and now["driver"] != record.get("driver"):
        return False
    return not asked.is_vfio(now["override"]) or now["override"] == record.get("override")


# -- with a host ---------------------------------------------------------------------------


def read(host, path=STATE):
    """``(text | None, {address: record})``. Raises HostError for a record that cannot be read."""
    text = host.read(path)
    if text is None:
        return None, {}
    try:
        document = json.loads(text)
        functions = document["functions"]
        if document["schema"] != 1 or not isinstance(functions, dict):
            raise ValueError("unknown schema")
    except (ValueError, KeyError, TypeError) as exc:
        raise HostError(
            "%s cannot be understood (%s): it records the former drivers; repair it or move it away" % (path, exc)
        ) from exc
    return text, functions


def before_trial(host):
    """``{address: driver | None}`` that the record of a trial boot has (see _boot/trial.py), {} without one."""
    try:
        return dict(json.loads(host.read(TRIAL) or "")["drivers"])
    except (ValueError, KeyError, TypeError):
        return {}


def as_it_is(host, address):
    """``{driver, module, override}`` of a function now, each a name or None."""
    driver = driver_of(host, address)
    link = host.readlink("%s%s/driver/module" % (SYSFS, address)) if driver else None
    override = host.read_sysfs(SYSFS + address + "/driver_override")
    return {
        "driver": driver,
        "module": posixpath.basename(link) if link else None,
        "override": None if override in (None, "", "(null)") else override,
    }


def boot_id(host):
    return host.read_attribute("/proc/sys/kernel/random/boot_id")


def stuck(records, boot):
    """Addresses about which a write never ended in this boot."""
    return {address for address, record in records.items() if boot and record.get("stuck") == boot}


def still_given(host, records, wanted):
    """Records of functions that are no longer wanted and are on vfio-pci, or half-way there or back."""
    boot = boot_id(host)
    return {
        address: record
        for address, record in records.items()
        if address not in wanted and _same(host, address, record) and not at_home(record, as_it_is(host, address), boot)
    }


def _same(host, address, record):
    """Whether the function is there and of the make that was recorded; another card is none of ours."""
    for field in ("vendor", "device"):
        text = host.read_attribute(SYSFS + address + "/" + field)
        if text is None or text[2:].lower() != record.get(field):
            return False
    return True
