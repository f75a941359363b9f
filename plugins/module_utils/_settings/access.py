# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Device nodes of VFIO for one group of users, and how much memory these may lock: what QEMU needs without root.

RECORD: ``{"schema": 1, "gids": [n], "boot": id, "nodes": {path: [uid, gid, mode]}, "unfinished": true}``. ``gids``: the
group that runs have given nodes to; more than one while a run is under way, which ``unfinished`` says. ``nodes`` is
what they were in the boot with this id: in another one the kernel has made them anew.

Limits come from PAM (LIMITS), for a login and for what systemd starts for a user: systemd sets its own limits first and
then calls PAM. Where the PAM service ``systemd-user`` has no pam_limits, each member of the group gets a drop-in for
``user@UID.service`` instead; one for ``user@.service`` would raise the limit of everybody.
"""

from __future__ import annotations

import re
import stat

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import parse_size
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._settings import pam

RECORD = asked.STATE_FOLDER + "/vfio_access.json"
RULES = "/etc/udev/rules.d/90-vfio-host-access.rules"
LIMITS_FOLDER = "/etc/security/limits.d"
LIMITS = LIMITS_FOLDER + "/90-vfio-host.conf"
UNITS = "/etc/systemd/system"
UNIT = UNITS + "/user@%d.service.d/90-vfio-host.conf"

HEADER = "# Written by the Ansible collection vfio.host (module vfio_access), which replaces this file as a whole.\n"

RULES_TEXT = HEADER + """\
# /dev/vfio/vfio is not named here. The kernel makes it 0666: alone it gives access to no device, and QEMU needs it.
# Only new nodes: what libvirt has given to a guest since stays with it. Groups without an IOMMU (noiommu-7) are not
# named either: with one of them a device reaches all of the host's memory.
ACTION=="add", SUBSYSTEM=="vfio", KERNEL=="[0-9]*", OWNER="root", GROUP="{group}", MODE="0660"
ACTION=="add", SUBSYSTEM=="vfio-dev", KERNEL=="vfio[0-9]*", OWNER="root", GROUP="{group}", MODE="0660"
# What /dev/vfio/vfio is for the first, this is for the second. The kernel keeps it to root.
ACTION=="add", SUBSYSTEM=="misc", KERNEL=="iommu", OWNER="root", GROUP="{group}", MODE="0660"
"""

NODES = (("/dev/vfio", re.compile(r"^\d+\Z"), 0o600), ("/dev/vfio/devices", re.compile(r"^vfio\d+\Z"), 0o600),
         ("/dev", re.compile(r"^iommu\Z"), 0o660))
"""Folder, names, and the mode that the kernel gives; the owner is root."""

CONTAINER = "/dev/vfio/vfio"
GROUP_MODE = 0o660
WORLD = 0o007

NAME = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
SYSTEM_GID_MAX = 999
EVERYBODY = ("nobody", "nogroup", "users")


# -- what is asked -----------------------------------------------------------------------------------


def check_group(host, group):
    """Number of a group that may have the nodes. Raises ValueError with the remedy."""
    if not group:
        raise ValueError("group: name the group whose members may use the devices, like kvm")
    if not NAME.match(group):
        raise ValueError("group: %r is not the name of a group, like kvm" % group)
    if group in EVERYBODY:
        raise ValueError("group: %s is everybody, and who has a device of the host has much of the host; take a group "
                         "for this, like kvm" % group)
    found = _group(host, group)
    if found is None:
        raise ValueError("group: %s is not in /etc/group, and udev needs it there early in the boot; make it with "
                         "groupadd --system %s, and put the users into it" % (group, group))
    gid = found[0]
    if gid == 0:
        raise ValueError("group: %s is root's own, which has the devices already; take a group for this, like kvm"
                         % group)
    if gid > SYSTEM_GID_MAX:
        raise ValueError("group: %s has number %d, and udev of systemd 258 and 259 gives devices to system groups only "
                         "(up to %d); make one with groupadd --system" % (group, gid, SYSTEM_GID_MAX))
    return gid


def _group(host, group):
    """``(gid, names of its members)``, None for a group that is not in /etc/group."""
    for line in (host.read("/etc/group") or "").splitlines():
        parts = line.split(":")
        if len(parts) == 4 and parts[0] == group and parts[2].isdigit():
            return int(parts[2]), [name for name in parts[3].split(",") if name]
    return None


def check_memlock(memlock):
    """KiB, ``"unlimited"``, or None. Raises ValueError."""
    if memlock in (None, ""):
        return None
    if memlock == "unlimited":
        return memlock
    try:
        size = parse_size(memlock, "memlock")
    except ValueError as exc:
        raise ValueError("%s, or unlimited" % exc) from exc
    if size % 1024:
        raise ValueError("memlock: %r is not a whole number of KiB" % memlock)
    return size // 1024


# -- what is -------------------------------------------------------------------------------------------


def read_record(host):
    """The record, {} without one. Raises HostError for one that cannot be understood."""
    def check(record):
        return all(isinstance(gid, int) for gid in record["gids"]) and all(
            path.startswith("/dev/") and len(was) == 3 and all(isinstance(number, int) for number in was)
            for path, was in record["nodes"].items())

    return files.read_record(host, RECORD, check, "a reboot without %s brings the kernel's own permissions back: "
                             "remove both files and reboot" % RULES)


def read_nodes(host):
    """``{path: (uid, gid, mode)}`` of the nodes that are there now."""
    found = {}
    for folder, name, dummy in NODES:
        for entry in host.listdir(folder):
            path = folder + "/" + entry
            about = host.stat(path) if name.match(entry) else None
            if about is not None and stat.S_ISCHR(about.st_mode):
                found[path] = (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode))
    return found


def _kernels(path):
    """What the kernel makes of a node."""
    return next((0, 0, mode) for folder, name, mode in NODES if path.rpartition("/")[0] == folder)


def _members(host, group):
    """Numbers of the users in a group, by their own entry or by the group's; without root."""
    gid, names = _group(host, group)
    found = set()
    for line in (host.read("/etc/passwd") or "").splitlines():
        parts = line.split(":")
        if len(parts) == 7 and parts[2].isdigit() and parts[3].isdigit():
            if int(parts[3]) == gid or parts[0] in names:
                found.add(int(parts[2]))
    return sorted(found - {0})


def _units_there(host):
    """Drop-ins of ours, by the numbers of their users."""
    found = []
    for name in host.listdir(UNITS):
        match = re.match(r"^user@(\d+)\.service\.d\Z", name)
        if match and host.exists(UNIT % int(match.group(1))):
            found.append(int(match.group(1)))
    return found


# -- what is to be done -----------------------------------------------------------------------------


def render_limits(group, memlock):
    return HEADER + "@%s - memlock %s\n" % (group, memlock)


def render_unit(memlock):
    return HEADER + "[Service]\nLimitMEMLOCK=%s\n" % ("infinity" if memlock == "unlimited" else "%dK" % memlock)


def node_targets(nodes, gid, record):
    """``({path: (uid, gid, mode)}, deferred)``, with ``gid`` None on the way home. Pure.

    ``record``: that of this boot. A node whose owner is not root was given to a guest by libvirt and is left to it;
    only what everybody may do is taken away.
    """
    targets, deferred = {}, []
    for path, (uid, owner, mode) in sorted(nodes.items()):
        if gid is None:
            if uid == 0 and record and owner in record["gids"]:
                was = record["nodes"].get(path) or _kernels(path)
                targets[path] = (was[0], was[1], was[2] & ~WORLD)
        elif uid != 0:
            targets[path] = (uid, owner, mode & ~WORLD)
            deferred.append({"node": path, "why": "it belongs to user %d, as when libvirt has started a guest" % uid})
        else:
            targets[path] = (0, gid, GROUP_MODE)
    return targets, deferred


def _texts_wanted(host, group, memlock):
    """``{path: text | None}`` of all files but the record; None for those that go."""
    wanted = {RULES: None, LIMITS: None}
    wanted.update({UNIT % uid: None for uid in _units_there(host)})
    if group:
        wanted[RULES] = RULES_TEXT.format(group=group)
    if group and memlock is not None:
        wanted[LIMITS] = render_limits(group, memlock)
        if _has_user_units(host) and not pam.sets_limits(host, "systemd-user"):
            wanted.update({UNIT % uid: render_unit(memlock) for uid in _members(host, group)})
    return wanted


def _has_user_units(host):
    return any(host.exists(folder + "/systemd/system/user@.service") for folder in ("/usr/lib", "/lib", "/etc"))


def _check_rules(host):
    """Refuse the rule of somebody else that opens the nodes to everybody; warnings about others that win over ours."""
    warnings = []
    for path, rule in files.foreign_rules(host, RULES):
        if not re.search(r'SUBSYSTEM\s*==\s*"[^"]*vfio[^"]*"', rule):
            continue
        last = path.rpartition("/")[2] > RULES.rpartition("/")[2]
        mode = re.search(r'MODE\s*(:?)=\s*"(0?[0-7]{3,4})"', rule)
        if mode and int(mode.group(2), 8) & WORLD and (last or mode.group(1)):
            raise ValueError("%s gives the devices to everybody, and wins over ours: %s. Remove it: who has a device "
                             "of the host has much of the host" % (path, rule))
        if last and re.search(r"(GROUP|MODE|OWNER)\s*:?=[^=]", rule):
            warnings.append("%s sets permissions too, and the last rule wins: %s" % (path, rule))
    return warnings


def _notes(host, group, memlock):
    """Warnings about what stands in the way of users."""
    found = []
    about = host.stat(CONTAINER)
    if about is not None and stat.S_ISCHR(about.st_mode) and about.st_mode & 0o006 != 0o006:
        found.append("%s has mode %04o here, the kernel's is 0666; users who are not in its group cannot start a guest "
                     "with a device" % (CONTAINER, stat.S_IMODE(about.st_mode)))
    if memlock is None:
        return found
    without = [name for name in ("login", "sshd") if pam.stack(host, name) is not None
               and not pam.sets_limits(host, name)]
    if without:
        found.append("memlock: the PAM service %s does not use pam_limits, so the limit does not count there; add "
                     "'session required pam_limits.so' to it" % " and ".join(without))
    later = [name for name in host.listdir(LIMITS_FOLDER) if name.endswith(".conf") and name > "90-vfio-host.conf"]
    for name in later:
        for line in re.findall(r"^\s*@%s\s+\S+\s+memlock\s.*$" % re.escape(group),
                               host.read(LIMITS_FOLDER + "/" + name) or "", re.MULTILINE):
            found.append("%s/%s sets the same limit, and the last one wins: %s" % (LIMITS_FOLDER, name, line.strip()))
    return found


# -- doing it --------------------------------------------------------------------------------------------


@files.tidied
def run(host, params, check_mode):
    """Bring nodes, rules and limits to what ``params`` asks; the module's result.

    ``params``: ``{group, memlock, state}``. Raises ValueError and HostError, after which everything is as it was.
    """
    memlock = check_memlock(params["memlock"])
    group, gid, warnings = None, None, []
    if params["state"] == "present":
        group, gid = params["group"], check_group(host, params["group"])
        if not host.which("udevadm"):
            raise HostError("udevadm is not installed, so the group would lose the devices at a reboot; install udev")
        warnings = _check_rules(host) + _notes(host, group, memlock)
    else:
        memlock = None
    record = read_record(host)
    boot = host.read_attribute("/proc/sys/kernel/random/boot_id")
    known = record if not record or record.get("boot") == boot else dict(record, boot=boot, nodes={})
    nodes = read_nodes(host)
    targets, deferred = node_targets(nodes, gid, known)
    moved = {path: target for path, target in targets.items() if target != nodes[path]}
    wanted = _texts_wanted(host, group, memlock)
    texts = {path: host.read(path) for path in list(wanted) + [RECORD]}
    if texts[RULES] is not None and not record and gid is None:
        warnings.append("%s is removed; whose the devices were before is not known, so they stay until the next boot"
                        % RULES)

    new = {}
    if gid is not None:
        new = {"gids": [gid], "boot": record.get("boot"), "nodes": record.get("nodes", {})}
        if moved or not record:
            before = {path: list(nodes[path]) for path in moved if path not in known.get("nodes", {})}
            new = {"gids": [gid], "boot": boot, "nodes": dict(known.get("nodes", {}), **before)}
    after = dict(wanted, **{RECORD: files.render_record(new)})
    changed = bool(moved) or texts != after
    if changed and not check_mode:
        gids = sorted(set(new.get("gids", []) + record.get("gids", [])))
        during = dict(new or record, gids=gids, unfinished=True) if gids else {}
        warnings += _apply(host, nodes, moved, texts, files.render_record(during), after)
    return {
        "changed": changed,
        "nodes": [{"path": path, "uid": now[0], "gid": now[1], "mode": "%04o" % now[2]}
                  for path, now in sorted(dict(nodes, **targets).items())],
        "deferred": deferred,
        "files": sorted(path for path, text in wanted.items() if text is not None),
        "warnings": warnings,
        "diff": files.diff(texts, wanted) + _diff(nodes, moved),
    }


def _apply(host, nodes, moved, texts, during, after):
    """Record first, then files, then nodes; everything goes back when one of them does not come out."""
    done, warnings = [], []
    try:
        files.put(host, RECORD, during)
        for path in sorted(after):
            if path != RECORD:
                files.put(host, path, after[path])
        warnings += _reload(host, texts, after)
        for path, target in sorted(moved.items()):
            done.append(path)
            host.set_owner(path, *target)
        files.put(host, RECORD, after[RECORD])
    except (HostError, OSError) as exc:
        left = _undo(host, nodes, done, texts)
        _reload(host, texts, after)
        raise HostError("%s. %s" % (exc, "Everything is as before" if not left else
                                    "Everything else is as before, but not %s: run this again" % ", ".join(left))
                        ) from exc
    return warnings


def _reload(host, texts, after):
    units = [path for path in after if path.startswith(UNITS) and texts[path] != after[path]]
    return files.reload_udev(host) + (files.reload_systemd(host) if units else [])


def _undo(host, nodes, done, texts):
    """Put back what was done; the places that could not be. The record stays for those."""
    left = []
    for path in done:
        uid, gid, mode = nodes[path]
        try:
            if read_nodes(host).get(path) not in (None, nodes[path]):
                host.set_owner(path, uid, gid, mode & ~WORLD)
        except HostError:
            left.append(path)
    return left + files.put_back(host, {path: text for path, text in texts.items() if not left or path != RECORD})


def _diff(nodes, moved):
    if not moved:
        return []

    def lines(found):
        return "".join("%s: %d:%d %04o\n" % ((path,) + tuple(found[path])) for path in sorted(moved))

    return [{"before_header": "device nodes", "after_header": "device nodes", "before": lines(nodes),
             "after": lines(moved)}]
