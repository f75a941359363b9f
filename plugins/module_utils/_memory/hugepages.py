# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Pools of huge pages at run time: set, read back, kept over a reboot, and given back.

A pool is one page size, of the whole machine or of one NUMA node. What it was before is in RECORD, what it shall be
after a reboot in DROP_IN. RECORD: ``{"schema": 1, "pools": {folder: {"before": n, "wanted": n, "given": n}}}``;
``given`` is there when the kernel gave fewer pages than wanted and that was accepted.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import mem_total, parse_size, show_size
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

RECORD = "/var/lib/vfio-host/hugepages.json"
DROP_IN = "/etc/tmpfiles.d/vfio-host-hugepages.conf"
HEADER = "# Written by the Ansible collection vfio.host (module hugepages), which replaces this file as a whole.\n"

MACHINE = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"
POOL = re.compile(r"^(?:%s|%s/node(\d+)/hugepages)/hugepages-(\d+)kB$" % (re.escape(MACHINE), re.escape(NODES)))

SYSCTL = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d")


# -- what is asked ------------------------------------------------------------------------------


def folder_of(size, node):
    """Folder of a pool in sysfs; ``node`` None means the whole machine."""
    home = MACHINE if node is None else "%s/node%d/hugepages" % (NODES, node)
    return "%s/hugepages-%dkB" % (home, size // 1024)


def describe(folder):
    """``2 MiB pages of node 1`` for a person."""
    node, size = POOL.match(folder).groups()
    return "%s pages of %s" % (show_page(int(size) * 1024), "the machine" if node is None else "node %s" % node)


def show_page(size):
    """``2 MiB``, ``1 GiB``."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if size % factor == 0:
            return "%d %s" % (size // factor, unit)
    return "%d KiB" % (size // 1024)


def check_pages(pages):
    """``[{size, node, count}]`` with sizes in bytes. Raises ValueError that names the entry."""
    found = []
    for number, entry in enumerate(pages):
        place = "pages[%d]" % number
        size = parse_size(entry.get("size") or "2MiB", place + ", size")
        node, count = entry.get("node"), entry.get("count")
        if size % 1024:
            raise ValueError("%s, size: %r is no page size" % (place, entry["size"]))
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError("%s, count: %r is not a number of pages, 0 or more" % (place, count))
        if node is not None and (not isinstance(node, int) or isinstance(node, bool) or node < 0):
            raise ValueError("%s, node: %r is not the number of a NUMA node" % (place, node))
        for other in found:
            if other["size"] == size and other["node"] == node:
                raise ValueError("%s: %s are given twice" % (place, describe(folder_of(size, node))))
            if other["size"] == size and None in (other["node"], node):
                raise ValueError("%s: %s pages are given both for the machine and for a node; give each node its "
                                 "number, or the machine its total" % (place, show_page(size)))
        found.append({"size": size, "node": node, "count": count})
    return found


# -- what is -----------------------------------------------------------------------------------------


def read_pool(host, folder):
    """``{total, free, reserved}``, or None when there is no such pool.

    ``total`` is what was set: pages that the kernel lent beyond it (surplus) are left out.
    """
    total, free = (_number(host, folder, name) for name in ("nr_hugepages", "free_hugepages"))
    if total is None or free is None:
        return None
    surplus = _number(host, folder, "surplus_hugepages") or 0
    return {"total": total - surplus, "free": free, "used": total - free,
            "reserved": _number(host, folder, "resv_hugepages") or 0}


def _number(host, folder, name):
    text = host.read_attribute(folder + "/" + name) or ""
    return int(text) if text.isdigit() else None


def _all_pools(host):
    """``{folder: pool}`` of the whole machine, every size."""
    found = {}
    for name in host.listdir(MACHINE):
        pool = read_pool(host, MACHINE + "/" + name) if POOL.match(MACHINE + "/" + name) else None
        if pool:
            found[MACHINE + "/" + name] = pool
    return found


def read_record(host):
    """``{folder: entry}``; {} without a record. Raises HostError for one that cannot be understood."""
    def check(found):
        return all(POOL.match(folder) and isinstance(entry["before"], int) and isinstance(entry["wanted"], int)
                   for folder, entry in found["pools"].items())

    remedy = "set the pools and remove %s by hand, then remove this file" % DROP_IN
    return dict(files.read_record(host, RECORD, check, remedy).get("pools", {}))


def _foreign(host, wanted):
    """Sentences about settings of others that set the same pools at each boot."""
    found = []
    default = re.search(r"^Hugepagesize:\s+(\d+) kB", host.read("/proc/meminfo") or "", re.MULTILINE)
    size = int(default.group(1)) * 1024 if default else 2 * 2**20
    ours = [page for page in wanted if page["size"] == size]
    total = ours[0]["count"] if len(ours) == 1 and ours[0]["node"] is None else None
    for path in ["/etc/sysctl.conf"] + _configs(host, SYSCTL):
        for value in re.findall(r"^\s*-?\s*vm[./]nr_hugepages(?:_mempolicy)?\s*=\s*(\S+)", host.read(path) or "",
                                re.MULTILINE):
            if ours and value != str(total):
                found.append("%s sets vm.nr_hugepages = %s" % (path, value))
    sizes = {"hugepages-%dkB" % (page["size"] // 1024) for page in wanted}
    for path in _configs(host, TMPFILES):
        for line in (host.read(path) or "").splitlines():
            if path != DROP_IN and re.match(r"\s*w", line) and "nr_hugepages" in line and (
                    any(name in line for name in sizes)):
                found.append("%s has %r" % (path, line.strip()))
    return found


def _configs(host, folders):
    return ["%s/%s" % (folder, name) for folder in folders for name in host.listdir(folder) if name.endswith(".conf")]


# -- what is to be done ------------------------------------------------------------------------------


def render(targets):
    """Text of the drop-in for ``{folder: count}``; None for none."""
    lines = ["w %s/nr_hugepages - - - - %d\n" % (folder, targets[folder]) for folder in sorted(targets)]
    return HEADER + "".join(lines) if lines else None


def restore_target(entry, now):
    """The count to go back to, or None when somebody has set the pool since."""
    low, high = sorted((entry["before"], entry["wanted"]))
    return entry["before"] if low <= now <= high or now == entry.get("given") else None


def _steps(host, wanted, record, partial):
    """``(steps, warnings)``; a step is ``{folder, pool, target, before, wanted}``.

    ``wanted`` is None for a pool that goes back to what it was.
    """
    steps, warnings = [], []
    for page in wanted:
        folder = folder_of(page["size"], page["node"])
        pool = read_pool(host, folder)
        if pool is None:
            raise ValueError("%s: this machine has no %s; it has %s"
                             % (folder, describe(folder), _there(host) or "no huge pages at all"))
        entry = record.get(folder)
        target = page["count"]
        if partial and entry and entry["wanted"] == target and entry.get("given") == pool["total"] < target:
            target = pool["total"]  # what the kernel could not give is tried again at the next boot
            warnings.append(_short(folder, page["count"], pool["total"]) + "; accepted, see partial")
        steps.append({"folder": folder, "pool": pool, "target": target, "wanted": page["count"],
                      "before": entry["before"] if entry else pool["total"]})
    named = {step["folder"] for step in steps}
    for folder in sorted(set(record) - named):
        if any(_overlap(folder, other) for other in named):
            # What each node had before a total for the machine was set, or the other way round, nobody knows
            raise ValueError("pages: %s were set by an earlier run, and now %s; run it with state: absent first"
                             % (describe(folder), ", ".join(describe(o) for o in sorted(named) if _overlap(folder, o))))
        entry, pool = record[folder], read_pool(host, folder)
        target = restore_target(entry, pool["total"]) if pool else None
        if pool is None:
            warnings.append("%s: there is no such pool any more" % describe(folder))
        elif target is None:
            warnings.append("%s: %d pages were wanted and there are %d, so somebody has set them since; left as they "
                            "are" % (describe(folder), entry["wanted"], pool["total"]))
        if pool:
            steps.append({"folder": folder, "pool": pool, "target": pool["total"] if target is None else target,
                          "wanted": None, "before": entry["before"]})
    return steps, warnings


def _overlap(one, other):
    """Whether one is a pool of the machine and the other a node's part of it."""
    (node, size), (other_node, other_size) = POOL.match(one).groups(), POOL.match(other).groups()
    return size == other_size and (node is None) != (other_node is None)


def _there(host):
    return ", ".join(describe(MACHINE + "/" + name) for name in host.listdir(MACHINE)
                     if POOL.match(MACHINE + "/" + name))


def _short(folder, wanted, given):
    return "%s: %d were asked for, the kernel gave %d, since free memory is too fragmented or too little" % (
        describe(folder), wanted, given)


def _check_use(host, steps):
    """Refuse to take pages that are in use or promised to a process."""
    machine = _all_pools(host)
    change = {}
    for step in steps:
        used = step["pool"]["used"]
        if step["target"] < step["pool"]["total"] and step["target"] < used:
            raise ValueError("%s: %d are in use, so they cannot become %d; stop the guests that use them, or keep at "
                             "least %d" % (describe(step["folder"]), used, step["target"], used))
        whole = MACHINE + "/" + step["folder"].rpartition("/")[2]
        change[whole] = change.get(whole, 0) + step["target"] - step["pool"]["total"]
    for folder, number in change.items():
        pool = machine.get(folder)
        if pool and number < 0 and pool["free"] + number < pool["reserved"]:
            raise ValueError("%s: %d are free and %d of these are promised to processes, so %d fewer are too many; "
                             "stop the guests that use them"
                             % (describe(folder), pool["free"], pool["reserved"], -number))


def _check_memory(host, steps, reserve):
    """Refuse what would not leave the host its reserve, of what is free now and of all there is."""
    more = sum((step["target"] - step["pool"]["total"]) * _size(step["folder"]) for step in steps)
    if more <= 0 and all(step["target"] <= step["pool"]["total"] for step in steps):
        return
    meminfo = host.read("/proc/meminfo")
    total = mem_total(meminfo)
    pools = sum(pool["total"] * _size(folder) for folder, pool in _all_pools(host).items())
    what = ", ".join("%d %s" % (step["target"], describe(step["folder"])) for step in steps
                     if step["target"] > step["pool"]["total"])
    if pools + more + reserve > total:
        raise ValueError(
            "pages: with %s, all huge pages take %s, and %s are reserved for the host: %s of %s. Ask for fewer pages, "
            "or lower host_reserve" % (what, show_size(pools + more), show_size(reserve),
                                       show_size(pools + more + reserve), show_size(total)))
    available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    if not available:
        raise ValueError("/proc/meminfo: no MemAvailable line; whether huge pages leave the host enough is unknown")
    available = int(available.group(1)) * 1024
    if more + reserve > available:
        raise ValueError(
            "pages: %s take %s more, and %s are reserved for the host, but only %s are available now. Ask for fewer "
            "pages, stop something, lower host_reserve, or run this right after a reboot"
            % (what, show_size(more), show_size(reserve), show_size(available)))
    for step in steps:
        _check_node(host, step)


def _check_node(host, step):
    node, size = POOL.match(step["folder"]).groups()
    more = (step["target"] - step["pool"]["total"]) * int(size) * 1024
    if node is None or more <= 0:
        return
    text = host.read("%s/node%s/meminfo" % (NODES, node)) or ""
    sizes = [re.search(r"\b%s:\s+(\d+) kB" % name, text) for name in ("MemFree", "FilePages")]
    if not all(sizes):
        raise ValueError("%s/node%s/meminfo: how much memory node %s has free is unknown" % (NODES, node, node))
    free = sum(int(found.group(1)) for found in sizes) * 1024
    if more > free:
        raise ValueError("%s: %d take %s more, and node %s has %s that are free or hold copies of files. Ask for "
                         "fewer pages there" % (describe(step["folder"]), step["target"], show_size(more), node,
                                                show_size(free)))


def _size(folder):
    return int(POOL.match(folder).group(2)) * 1024


# -- doing it ---------------------------------------------------------------------------------------


@files.tidied
def run(host, params, check_mode):
    """Bring the pools to what ``params`` asks; the module's result.

    ``params``: ``{pages, state, host_reserve, partial, timeout}``. Raises ValueError and HostError, after which the
    pools, the drop-in and the record are what they were.
    """
    reserve = parse_size(params["host_reserve"], "host_reserve")
    wanted = check_pages(params["pages"] or [])
    if params["state"] == "absent":
        wanted = []
    record = read_record(host)
    text = host.read(DROP_IN)
    if wanted and not host.which("systemd-tmpfiles"):
        raise HostError("systemd-tmpfiles is not installed, so huge pages would be gone after a reboot; reserve them "
                        "with hugepages= on the kernel command line instead")
    foreign = _foreign(host, wanted)
    if foreign:
        raise ValueError("pages: others set these pools at each boot too: %s. Remove it there, or here"
                         % "; ".join(foreign))
    steps, warnings = _steps(host, wanted, record, params["partial"])
    _check_use(host, steps)
    _check_memory(host, steps, reserve)
    if text is not None and not record and not wanted:
        warnings.append("%s is removed; what the pools were before is not known, so they stay as they are" % DROP_IN)

    new = {step["folder"]: {"before": step["before"], "wanted": step["wanted"]}
           for step in steps if step["wanted"] is not None}
    after = render({folder: entry["wanted"] for folder, entry in new.items()})
    moved = [step for step in steps if step["target"] != step["pool"]["total"]]
    bare = {folder: {key: entry[key] for key in ("before", "wanted")} for folder, entry in record.items()}
    changed = bool(moved) or text != after or bare != new
    if changed and not check_mode:
        warnings += _apply(host, steps, moved, record, new, (text, after), params)
    return {
        "changed": changed,
        "pages": [_shown(host, step, check_mode) for step in steps],
        "warnings": warnings,
        "diff": _diff(host, steps, text, after, check_mode) if changed else [],
    }


def _apply(host, steps, moved, record, new, texts, params):
    """Record first, then the drop-in, then the pools; everything goes back when one pool does not come out."""
    text, after = texts
    warnings = []
    try:
        _write_record(host, dict(record, **new))
        files.put(host, DROP_IN, after)
        for step in sorted(moved, key=lambda step: step["target"] - step["pool"]["total"]):
            given = _set(host, step["folder"], step["target"], params["timeout"])
            if given < step["target"] and params["partial"] and step["wanted"] is not None:
                new[step["folder"]]["given"] = given
                warnings.append(_short(step["folder"], step["target"], given) + "; the next boot tries again")
            elif given != step["target"]:
                raise HostError(_failure(step, given))
        for step in steps:
            if step["wanted"] is not None and step not in moved and "given" in record.get(step["folder"], {}):
                if step["pool"]["total"] < step["wanted"]:
                    new[step["folder"]]["given"] = record[step["folder"]]["given"]
        _write_record(host, new)
    except HostError:
        _undo(host, moved, record, text, params["timeout"])
        raise
    return warnings


def _failure(step, given):
    if step["target"] > step["pool"]["total"]:
        return ("%s. It is back at %d, and nothing else was changed. Ask for fewer, run this right after a reboot, or "
                "accept fewer with partial: true"
                % (_short(step["folder"], step["target"], given), step["pool"]["total"]))
    return ("%s: %d were to stay, and %d are there, since pages came into use meanwhile. Everything is as before; run "
            "this again" % (describe(step["folder"]), step["target"], given))


def _set(host, folder, count, timeout):
    """Write a count, and once more if the kernel gave fewer: its first try moves memory together. What it is then."""
    for dummy in range(2):
        host.write_sysfs(folder + "/nr_hugepages", str(count), timeout)
        pool = read_pool(host, folder)
        if pool is None:
            raise HostError("%s: cannot be read any more" % folder)
        if pool["total"] >= count:
            break
    return pool["total"]


def _undo(host, moved, record, text, timeout):
    for step in moved:
        try:
            host.write_sysfs(step["folder"] + "/nr_hugepages", str(step["pool"]["total"]), timeout)
        except HostError:
            pass  # the error that led here is the one to tell
    files.put(host, DROP_IN, text)
    _write_record(host, record)


def _write_record(host, pools):
    files.put(host, RECORD, files.render_record({"pools": pools} if pools else {}))


def _shown(host, step, check_mode):
    pool = step["pool"] if check_mode else read_pool(host, step["folder"]) or step["pool"]
    node, size = POOL.match(step["folder"]).groups()
    return {
        "size": int(size) * 1024,
        "node": None if node is None else int(node),
        "wanted": step["wanted"],
        "before": step["pool"]["total"],
        "count": step["target"] if check_mode else pool["total"],
        "free": pool["free"],
    }


def _diff(host, steps, text, after, check_mode):
    def lines(count):
        return "".join("%s: %d\n" % (describe(step["folder"]), count(step)) for step in steps)

    def now(step):
        return step["target"] if check_mode else read_pool(host, step["folder"])["total"]

    return [
        {"before_header": DROP_IN, "after_header": DROP_IN, "before": text or "", "after": after or ""},
        {"before_header": "huge pages", "after_header": "huge pages",
         "before": lines(lambda step: step["pool"]["total"]), "after": lines(now)},
    ]
