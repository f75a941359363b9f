# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions go to vfio-pci at boot: the identity check, the file that says it, what it was before."""

from __future__ import annotations

import json
import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

STATE = asked.STATE_FOLDER + "/binding.json"
TRIAL = asked.STATE_FOLDER + "/trial.json"
SYSFS = "/sys/bus/pci/devices/"

CONFIG_SIZE = 4096
DSN = 0x0003
"""Id of the Device Serial Number extended capability (PCI Express Base Specification 7.9.3)."""


# -- pure ----------------------------------------------------------------------------------


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


def merge(state, wanted, live, before_trial=None):
    """The record of former drivers: kept for a function that is the same card, new for one that is not.

    ``before_trial``: ``{address: driver}`` from before a trial boot, in which the functions are bound already.
    """
    records = {}
    before_trial = before_trial or {}
    for item in wanted:
        ids = {field: item[field] for field in ("vendor", "device", "subsystem_vendor", "subsystem_device")}
        old = state.get(item["address"])
        if old is not None and {field: old.get(field) for field in ids} == ids:
            records[item["address"]] = old
        else:
            driver = live[item["address"]]["driver"]
            if asked.is_vfio(driver):
                driver = before_trial.get(item["address"], driver)
            records[item["address"]] = dict(ids, driver=driver)
    return records


def render_state(records):
    return json.dumps({"schema": 1, "functions": records}, indent=2, sort_keys=True) + "\n"


# -- with a host ---------------------------------------------------------------------------


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


def still_given(host, state, wanted):
    """Records of functions that are no longer wanted and stay on vfio-pci until the next boot."""
    return {
        address: record
        for address, record in state.items()
        if address not in wanted and asked.is_vfio(driver_of(host, address))
    }


def before_trial(host):
    """``{address: driver | None}`` that the record of a trial boot has (see _boot/trial.py), {} without one."""
    try:
        return dict(json.loads(host.read(TRIAL) or "")["drivers"])
    except (ValueError, KeyError, TypeError):
        return {}


def _bound(driver, wanted):
    return driver is not None and asked.module_of(driver) == asked.module_of(wanted)


def read_state(host):
    """``(text | None, {address: record})``. Raises HostError for a record that cannot be read."""
    text = host.read(STATE)
    if text is None:
        return None, {}
    try:
        document = json.loads(text)
        functions = document["functions"]
        if document["schema"] != 1 or not isinstance(functions, dict):
            raise ValueError("unknown schema")
    except (ValueError, KeyError, TypeError) as exc:
        raise HostError(
            "%s cannot be understood (%s): it records the former drivers; repair it or move it away" % (STATE, exc)
        ) from exc
    return text, functions


def run(host, params, check_mode):
    """Record which functions are bound at boot.

    ``params``: ``{devices: [identity], state: present|absent, when: boot}``. Returns the module's
    result. Raises ValueError for bad input, HostError when a function is not what was asked.
    """
    before = host.read(asked.DEVICES)
    state_before, state = read_state(host)
    given = params["devices"] or []
    wanted = [asked.identity(item, "devices[%d]" % index) for index, item in enumerate(given)]
    if params["state"] == "absent":
        return _absent(host, before, state_before, state, wanted, check_mode)

    after = asked.render(wanted)
    live = {item["address"]: read_function(host, item["address"]) for item in wanted}
    problems = []
    for item, raw in zip(wanted, given):
        problems.extend(mismatches(item, live[item["address"]], (raw.get("class") or "").lower() or None))
    if problems:
        raise HostError(
            "nothing was changed, since these are not what was asked: %s. "
            "Cards may have moved: read the machine again and plan again" % "; ".join(problems)
        )
    released = still_given(host, state, live)
    state_after = render_state(dict(merge(state, wanted, live, before_trial(host)), **released))
    changed = before != after or state_before != state_after
    if changed and not check_mode:
        # the record first: once the file is there, what the driver was can no longer be learnt
        if state_before != state_after:
            host.write(STATE, state_after)
        if before != after:
            host.write(asked.DEVICES, after)
    names = {item["address"]: raw.get("name") for item, raw in zip(wanted, given)}
    functions = [
        {
            "address": item["address"],
            "name": names[item["address"]],
            "driver": live[item["address"]]["driver"],
            "wanted": item["driver"],
            "bound": _bound(live[item["address"]]["driver"], item["driver"]),
        }
        for item in sorted(wanted, key=lambda one: one["address"])
    ]
    return {
        "changed": changed,
        "functions": functions,
        "content": after,
        "reboot_required": bool(released) or not all(function["bound"] for function in functions),
        "diff": _diff([(asked.DEVICES, before, after), (STATE, state_before, state_after)]),
    }


def _absent(host, before, state_before, state, given, check_mode):
    addresses = set(state) | {item["address"] for item in given}
    if before is not None:
        try:
            addresses |= {item["address"] for item in asked.parse(before)}
        except ValueError:
            pass  # it goes anyway; the record names the functions too
    functions = []
    for address in sorted(addresses):
        driver = driver_of(host, address)
        functions.append(
            {"address": address, "name": None, "driver": driver, "wanted": None, "bound": asked.is_vfio(driver)}
        )
    changed = before is not None or state_before is not None
    if changed and not check_mode:
        host.remove(asked.DEVICES)
        host.remove_empty_folder(asked.ASKED_FOLDER)
        host.remove(STATE)
        host.remove_empty_folder(asked.STATE_FOLDER)
    return {
        "changed": changed,
        "functions": functions,
        "content": "",
        "reboot_required": any(function["bound"] for function in functions),
        "diff": _diff([(asked.DEVICES, before, None), (STATE, state_before, None)]),
    }


def _diff(files):
    return [
        {"before_header": path, "after_header": path, "before": before or "", "after": after or ""}
        for path, before, after in files
        if before != after
    ]
