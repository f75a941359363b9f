# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Virtual functions as wanted: their number, settings and drivers, now and at each boot; and the way home.

A physical function's count goes 0 -> N -> 0: the kernel takes another number only from 0, which ends the virtual
functions that are there. So nothing is done while somebody has one of these.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _own_files
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._sriov import prediction, wanted as asking
from ansible_collections.vfio.host.plugins.module_utils._sriov.plan import Plan
from ansible_collections.vfio.host.plugins.module_utils._sriov.transaction import Transaction, shown

FOREIGN = (
    ("/etc/udev/rules.d", "sriov_numvfs"), ("/etc/sysfs.d", "sriov_numvfs"), ("/etc/systemd/system", "sriov_numvfs"),
    ("/etc/systemd/network", "SR-IOVVirtualFunctions"), ("/etc/NetworkManager/system-connections", "[sriov]"),
)
"""Where others set the same at each boot, and the word that tells."""


@_own_files.tidied
def run(host, params, check_mode, read_machine):
    """Bring the virtual functions to what ``params`` asks; the module's result.

    :param params: ``{functions, state, allow_shared_group}``.
    :param read_machine: ``host -> machine document``.
    Raises ValueError for bad input and for what would share a group, HostError when something is held or a step failed;
    then everything is as before, or the message says what is not.
    """
    plan = Plan(host, params, read_machine)
    if plan.changed and not check_mode:
        Transaction(host, plan).apply()
    return _result(host, plan)


def _result(host, plan):
    vfs = [_virtual(plan, step, vf) for step in plan.steps for vf in step["item"]["vfs"]]
    return {
        "changed": plan.changed,
        "functions": [{"address": step["address"], "before": step["now"]["numvfs"], "count": step["count"],
                       "wanted": step["count"] if step["item"] else None} for step in plan.steps + plan.back],
        "vfs": vfs,
        "warnings": plan.warnings + _foreign(host, plan),
        "diff": _diff(plan) if plan.changed else [],
    }


def _virtual(plan, step, vf):
    address = step["vfs"][vf["index"]]
    group = plan.groups[address]
    reasons = list(group["reasons"])
    if step["recreate"]:
        reasons.append(prediction.RENUMBERED)
    return {
        "address": address, "index": vf["index"], "pf": step["address"], "driver": vf["driver"],
        "bound": vf["driver"] not in (None, asking.HOST), "group_members": group["members"],
        "isolated": group["isolated"], "reasons": reasons,
        **{name: vf[name] for name in asking.SETTINGS}
    }


def _foreign(host, plan):
    """Warnings about files of others that set the same at each boot."""
    if not any(step["count"] for step in plan.steps):
        return []
    found = []
    for folder, word in FOREIGN:
        for name in host.listdir(folder):
            path = folder + "/" + name
            if path not in plan.files and word in (host.read(path, 1 << 16) or ""):
                found.append(path)
    return ["%s: says %s too; if that is about the same card, whoever comes first wins: remove it there, or here"
            % (path, dict(FOREIGN)[path.rpartition("/")[0]]) for path in found]


def _diff(plan):
    """Files, and what each physical function has. The record is left out: it is only known afterwards."""
    found = [{"before_header": path, "after_header": path, "before": plan.texts[path] or "",
              "after": plan.files[path] or ""}
             for path in sorted(plan.files) if plan.texts[path] != plan.files[path]]
    moved = [step for step in plan.steps + plan.back if step["moves"]]
    if moved:
        found.append({"before_header": "virtual functions", "after_header": "virtual functions",
                      "before": "".join(_lines(step, False) for step in moved),
                      "after": "".join(_lines(step, True) for step in moved)})
    return found


def _lines(step, after):
    now = step["now"]
    count, probe = (step["count"], step["autoprobe"]) if after else (now["numvfs"], now["autoprobe"])
    lines = ["%s: count %d, autoprobe %s\n" % (step["address"], count, {True: "on", False: "off"}.get(probe, "-"))]
    for index, values in sorted(step["settings"].items()):
        told = {} if step["recreate"] else step["told"].get(index, {})
        for name in asking.SETTINGS:
            if name in values and (after or not step["recreate"]):
                lines.append("%s %d: %s %s\n" % (step["address"], index, name,
                                                 shown(values[name] if after else told.get(name))))
    drivers = {bind["address"]: bind["driver"] for bind in step.get("binds", [])}
    drivers.update({vf: was["driver"] for vf, was in step.get("restores", {}).items()})
    drivers.update(dict.fromkeys(step.get("frees", []), asking.HOST))
    for address in sorted(drivers, key=sort_key):
        if after:
            lines.append("%s %s\n" % (address, drivers[address] or "no driver"))
        elif address in step["drivers"]:
            lines.append("%s %s\n" % (address, step["drivers"][address]["driver"] or "no driver"))
    return "".join(lines)
