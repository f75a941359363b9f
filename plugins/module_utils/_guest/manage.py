# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""All guests of a host in one pass: check, read, plan, then act.

Nothing is changed before every guest has been judged, so a mistake in the last guest of the list
leaves the first one alone.
"""

from __future__ import annotations

import os
import time

from ansible_collections.vfio.host.plugins.module_utils import _own_files
from ansible_collections.vfio.host.plugins.module_utils._guest import preflight, sizing, spec
from ansible_collections.vfio.host.plugins.module_utils._guest.canonical import (
    canonical,
    differences,
    parse,
    redact,
    render,
)
from ansible_collections.vfio.host.plugins.module_utils._guest.domain import build
from ansible_collections.vfio.host.plugins.module_utils._guest.merge import carry_over, merge
from ansible_collections.vfio.host.plugins.module_utils._host import NEW, HostError


@_own_files.tidied
def run(host, params, check_mode, connect, virt_type="kvm", pause=time.sleep):
    """Bring the guests to what ``params`` says; returns the module's result.

    :param connect: callable without arguments that returns a Libvirt. HostError from it is a
        prediction in check mode (libvirt is not installed yet: no guest exists) and an error else.
    :param virt_type: ``kvm``, or ``qemu`` to try definitions where there is no hardware help.
    Raises ValueError for what the user wrote, HostError for what the machine did.
    """
    guests = spec.normalise(params["guests"])
    reserve = sizing.parse_size(params["host_reserve"], "host_reserve")
    if not guests:
        return _result([], [], [])
    machine_id = host.read_attribute("/etc/machine-id")
    if not machine_id:
        raise HostError("/etc/machine-id is missing or empty; run systemd-machine-id-setup")
    warnings = []
    # On a host without libvirt there is no guest to remove: the way back works from any point.
    nothing = all(guest["state"] == "absent" for guest in guests) and not installed(host)
    libvirt = None if nothing else _connect(connect, check_mode, warnings)
    try:
        existing = libvirt.domains() if libvirt else {}
        _check_memory(host, guests, existing, reserve, libvirt)
        plans = [_plan(host, guest, existing.get(guest["name"]), libvirt, machine_id, virt_type) for guest in guests]
        problems = ["guest %s: %s" % (plan["name"], text) for plan in plans for text in plan["problems"]]
        if problems and not check_mode:
            raise HostError("nothing was changed; " + "; ".join(problems))
        if not check_mode:
            _apply(host, libvirt, plans, params, pause)
    finally:
        if libvirt:
            libvirt.close()
    return _result(plans, problems, warnings)


def installed(host):
    """Whether a libvirt daemon, monolithic or modular, is on the host."""
    return bool(host.which("libvirtd") or host.which("virtqemud"))


def _connect(connect, check_mode, warnings):
    try:
        return connect()
    except HostError as exc:
        if not check_mode:
            raise
        warnings.append("libvirt cannot be asked yet, so every guest is predicted as new: %s" % exc)
        return None


def _check_memory(host, guests, existing, reserve, libvirt):
    def on_huge_pages(name):
        """Whether its memory is in the pools, where the kernel itself does not overcommit. merge() keeps that."""
        if name not in existing:
            return False
        views = [True, False] if existing[name]["active"] else [False]
        return all(
            parse(libvirt.xml(name, live=live)).find("memoryBacking/hugepages") is not None for live in views
        )

    pinned = []
    for guest in guests:
        if guest["state"] == "running" and guest["devices"] and not on_huge_pages(guest["name"]):
            now = existing.get(guest["name"], {"active": False})
            pinned.append((guest["name"], max(guest["memory"], now["memory"]) if now["active"] else guest["memory"]))
    if not pinned:
        return
    # Guests of ours without devices can be swapped, so they are the user's affair.
    ours = {guest["name"] for guest in guests}
    others = [
        (name, now["memory"])
        for name, now in sorted(existing.items())
        if now["active"] and name not in ours and not on_huge_pages(name)
    ]
    meminfo = host.read("/proc/meminfo")
    sizing.check_budget(sizing.mem_total(meminfo), reserve, pinned, others, sizing.huge_pages(meminfo))


def _plan(host, guest, now, libvirt, machine_id, virt_type):
    """One guest's plan: what it is, what shall be done, and what stands in the way."""
    before = "absent" if now is None else ("running" if now["active"] else "shutoff")
    plan = {
        "name": guest["name"],
        "state_before": before,
        "state": before,
        "actions": [],
        "differences": [],
        "live_differences": [],
        "problems": [],
        "disks": [],
        "diff": [],
        "guest": guest,
        "uuid": None,
    }
    old = canonical(parse(libvirt.xml(guest["name"]))) if now else None
    if guest["state"] == "absent":
        _plan_absent(plan, now, old)
        return plan
    wanted = canonical(build(guest, machine_id, virt_type))
    if old is None:
        plan["differences"] = ["domain: missing"]
        target = wanted
    else:
        wanted = carry_over(wanted, old)
        plan["differences"] = differences(wanted, old)
        if not now["persistent"]:
            plan["differences"].append("domain: transient, wanted persistent")
        target = merge(wanted, old)
    plan["uuid"] = wanted.findtext("uuid")
    plan["wanted"], plan["target"], plan["old"] = wanted, target, old
    for disk in guest["disks"]:
        if disk["size"] is not None and host.stat(disk["path"]) is None:
            plan["disks"].append(disk)
            text = "%s, %d bytes\n" % (disk["format"], disk["size"])
            plan["diff"].append(_diff("disk %s" % disk["path"], "", text))
    if plan["disks"]:
        plan["actions"].append("create_disk")
    if plan["differences"]:
        plan["actions"].append("define")
        after = target if old is None or differences(wanted, old) else old
        plan["diff"].append(_diff("guest %s: definition" % guest["name"], _show(old), _show(after)))
    _plan_state(plan, guest, now)
    if before == "running" and plan["state"] == "running":
        plan["live_differences"] = differences(wanted, canonical(parse(libvirt.xml(guest["name"], live=True))))
    if plan["actions"]:
        plan["problems"] = preflight.problems(host, guest, "start" in plan["actions"])
    return plan


def _plan_absent(plan, now, old):
    plan["state"] = "absent"
    if now is None:
        return
    if now["active"]:
        plan["actions"].append("stop")
    if now["persistent"]:
        plan["actions"].append("undefine")
    plan["differences"] = ["domain: there, not wanted"]
    plan["diff"].append(_diff("guest %s: definition" % plan["name"], _show(old), ""))


def _plan_state(plan, guest, now):
    before = {"state": plan["state_before"], "autostart": bool(now and now["autostart"])}
    after = {"state": "shutoff" if now is None else plan["state_before"], "autostart": guest["autostart"]}
    if before["autostart"] != after["autostart"]:
        plan["actions"].append("autostart")
    if guest["state"] == "running" and plan["state_before"] != "running":
        plan["actions"].append("start")
        after["state"] = "running"
    if guest["state"] == "shutoff" and plan["state_before"] == "running":
        plan["actions"].append("stop")
        after["state"] = "shutoff"
    plan["state"] = after["state"]
    if before != after:
        plan["diff"].append(_diff("guest %s: state" % plan["name"], _state_text(before), _state_text(after)))


def _apply(host, libvirt, plans, params, pause):
    # What frees memory and devices goes first, what takes them last.
    for plan in plans:
        if "stop" in plan["actions"]:
            _stop(libvirt, plan["name"], params["shutdown_timeout"], params["force_off"], pause)
        if "undefine" in plan["actions"]:
            libvirt.undefine(plan["name"])
    for plan in plans:
        for disk in plan["disks"]:
            _create_disk(host, disk)
        if "define" in plan["actions"]:
            _define(libvirt, plan)
        if "autostart" in plan["actions"]:
            libvirt.autostart(plan["name"], plan["guest"]["autostart"])
    for plan in plans:
        if "start" in plan["actions"]:
            libvirt.start(plan["name"])


def _define(libvirt, plan):
    name = plan["name"]
    libvirt.define(name, render(plan["target"]))
    left = differences(plan["wanted"], canonical(parse(libvirt.xml(name))))
    if not left:
        return
    if plan["old"] is None:
        libvirt.undefine(name)
    else:
        libvirt.define(name, render(plan["old"]))
    raise HostError(
        "guest %s: libvirt did not keep the definition, so the former one was put back: %s" % (name, "; ".join(left))
    )


def _stop(libvirt, name, timeout, force, pause):
    libvirt.shutdown(name)
    end = time.monotonic() + timeout
    while libvirt.active(name):
        if time.monotonic() >= end:
            if not force:
                raise HostError(
                    "guest %s did not shut down within %g s; shut it down inside, or set force_off to turn it off"
                    % (name, timeout)
                )
            libvirt.destroy(name)
            return
        pause(0.5)


def _create_disk(host, disk):
    """Make a disk that is not there; readable by nobody but root and, while it runs, the guest."""
    path = disk["path"]
    if host.exists(path):
        raise HostError("disk %s appeared meanwhile; run again" % path)
    folder, dummy, name = path.rpartition("/")
    new = "%s/%s%s" % (folder, NEW, name)  # an empty file in its place would pass for the disk, were this killed
    host.write(new, b"", mode=0o600)
    try:
        if disk["format"] == "raw":
            os.truncate(host.path(new), disk["size"])
        else:
            host.run(["qemu-img", "create", "-q", "-f", "qcow2", new, str(disk["size"])])
        host.replace(new, path)
    except (OSError, HostError) as exc:
        host.remove(new)
        raise HostError("disk %s: %s" % (path, exc)) from exc


def _show(domain):
    return "" if domain is None else render(redact(domain))


def _state_text(state):
    return "state: %s\nautostart: %s\n" % (state["state"], "yes" if state["autostart"] else "no")


def _diff(what, before, after):
    return {"before": before, "after": after, "before_header": what, "after_header": what}


def _not_ready(problems):
    """One warning for all of them: on a bare host check mode finds a handful, and each is expected."""
    if not problems:
        return []
    return ["not ready yet, and a run stops unless earlier steps see to it: %s" % "; ".join(problems)]


def _result(plans, problems, warnings):
    told = ("name", "uuid", "state_before", "state", "actions", "differences", "live_differences")
    shown = []
    for plan in plans:
        guest = {key: plan[key] for key in told}
        guest["restart_required"] = bool(plan["live_differences"])
        guest["changed"] = bool(plan["actions"])
        shown.append(guest)
    return {
        "changed": any(guest["changed"] for guest in shown),
        "guests": shown,
        "restart_required": [guest["name"] for guest in shown if guest["restart_required"]],
        "problems": problems,
        "warnings": warnings + _not_ready(problems),
        "diff": [part for plan in plans for part in plan["diff"]],
    }
