# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Files that are wholly ours, the rules of udev among them, and records of what was before."""

from __future__ import annotations

import functools
import json
import re
import time

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

RULES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
         "/lib/udev/rules.d")
"""Where udev looks; of two files with one name the first counts."""

SOCKETS = ("/run/udev/control", "/run/udev/io.systemd.Udev")
"""One of them is there while udev runs; newer ones have only the second."""

RELOAD_TIMEOUT = 30.0
"""Seconds that udev or systemd may take to read its files again."""

UNIT_PATIENCE = 60.0
"""Seconds that a unit of ours is waited for."""

STUCK = ("a write about %s did not end in this boot: it is not touched before a reboot, which may wait for it too and then "
         "needs the power button")
"""Why what a record has as stuck is left alone."""

OWN_FOLDER = re.compile(r"/(\d*vfio-host(/[a-z]+)?|user@\d+\.service\.d|[a-z-]+\.target\.d)\Z")
"""Folders that are removed when nothing is left in them."""


def put(host, path, text):
    """Write ``text``, or remove the file for None; nothing when it is so already. Raises OSError and HostError."""
    if host.read(path) == text:
        return
    if text is not None:
        host.write(path, text)
        return
    host.remove(path)
    folder = path.rpartition("/")[0]
    if OWN_FOLDER.search(folder):
        host.remove_empty_folder(folder)


def put_back(host, texts):
    """As many of ``{path: text | None}`` as can be put back; the paths that could not."""
    left = []
    for path, text in texts.items():
        try:
            put(host, path, text)
        except (HostError, OSError):
            left.append(path)
    return left


def diff(before, after):
    """Ansible's form for ``{path: text | None}`` twice, only what differs."""
    return [{"before_header": path, "after_header": path, "before": before.get(path) or "", "after": after[path] or ""}
            for path in sorted(after) if before.get(path) != after[path]]


def tidied(run):
    """For the ``run(host, params, check_mode, ...)`` of a module: what killed writes left beside its files goes.

    That is a change like any other.
    """
    @functools.wraps(run)
    def wrapped(host, params, check_mode=False, *more, **named):
        result = run(host, params, check_mode, *more, **named)
        left = host.leftovers()
        empty = _empty(host, left)
        if left or empty:
            result["changed"] = True
            result["diff"] = list(result["diff"]) + [
                {"before_header": path, "after_header": path, "before": "left by a run that was killed\n", "after": ""}
                for path in left + empty]
        if not check_mode:
            for path in left:
                host.remove(path)
            for folder in empty:
                host.remove_empty_folder(folder)
        return result
    return wrapped


def _empty(host, left):
    """Folders of ours that have nothing in them but ``left`` and one another, the inner ones first.

    One that is not named after us is ours only if a run of ours was killed in it.
    """
    folders = {path.rpartition("/")[0] for path in left}
    folders |= {folder for folder in host.looked if "vfio-host" in folder}
    folders = {folder for folder in folders if OWN_FOLDER.search(folder)}
    folders |= {folder.rpartition("/")[0] for folder in folders if "/vfio-host/" in folder}
    found, gone = [], set(left)
    for folder in sorted(folders, key=len, reverse=True):
        if host.isdir(folder) and gone.issuperset(folder + "/" + name for name in host.listdir(folder)):
            found.append(folder)
            gone.add(folder)
    return found


# -- records -----------------------------------------------------------------------------------------


def read_record(host, path, check, remedy):
    """The record as a dict, {} without one. ``check(record)`` says whether it has the right form.

    Raises HostError with ``remedy`` for one that cannot be understood: what was before must not be guessed.
    """
    text = host.read(path)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        if found["schema"] != 1 or not check(found):
            raise ValueError("another form")
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise HostError("%s: what was before cannot be read (%s); %s" % (path, exc, remedy)) from exc


def render_record(record):
    """Text of a record, None for an empty one."""
    return json.dumps(dict(record, schema=1), indent=1, sort_keys=True) + "\n" if record else None


# -- udev ----------------------------------------------------------------------------------------------


def reload_udev(host):
    """Have a udev that runs read its rules again. [] or a warning: it reads them by itself at the next boot."""
    if not any(host.exists(socket) for socket in SOCKETS):
        return []
    return _told(host, ["udevadm", "control", "--reload"], "udev has not read its rules again, so they count from the "
                                                           "next boot")


def reload_systemd(host):
    """Have a systemd that runs read its units again. [] or a warning."""
    if not host.exists("/run/systemd/system"):
        return []
    return _told(host, ["systemctl", "daemon-reload"], "systemd has not read its units again, so they count from the "
                                                       "next boot")


def wait_for_units(host, units):
    """Return once none of these units of ours is at work, or about to be: what it makes is half there until then.

    Raises HostError when one is not over in time. Without systemd there are none.
    """
    end = time.monotonic() + UNIT_PATIENCE
    while units and host.exists("/run/systemd/system"):
        busy = _at_work(host, units)
        if not busy:
            return
        if time.monotonic() > end:
            raise HostError("%s is still at work after %g s, so nothing was changed; run this again when it is over: "
                            "systemctl status %s" % (busy[0], UNIT_PATIENCE, busy[0]))
        time.sleep(0.5)


def _at_work(host, units):
    """Those of ``units`` that run, or that systemd is to start."""
    text = host.run(["systemctl", "show", "-p", "Id", "-p", "ActiveState", "-p", "Job", "--"] + units,
                    timeout=RELOAD_TIMEOUT).stdout
    shown = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    return [one.get("Id") for one in shown
            if one.get("Job") or one.get("ActiveState") in ("activating", "deactivating", "reloading")]


def _told(host, argv, consequence):
    try:
        host.run(argv, timeout=RELOAD_TIMEOUT)
    except HostError as exc:
        return ["%s: %s" % (consequence, exc)]
    return []


def foreign_rules(host, own):
    """``[(path, rule)]`` of udev in the order in which it reads them, without the file ``own`` and without comments."""
    paths = {}
    for folder in RULES:
        for name in host.listdir(folder):
            if name.endswith(".rules"):
                paths.setdefault(name, folder + "/" + name)
    found = []
    for name in sorted(paths):
        if paths[name] == own:
            continue
        text = re.sub(r"\\\n\s*", " ", host.read(paths[name]) or "")
        found += [(paths[name], line.strip()) for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    return found
