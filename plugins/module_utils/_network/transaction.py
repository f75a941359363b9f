# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Change the running network in one go, or put everything back.

Whoever moves the NIC of the running connection one day arms the dead man's switch at the start of
``apply`` and ends it after ``_settle``: nothing outside this file touches links or files.
"""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._network import links as sysfs

RECORD = "/var/lib/vfio-host/bridges.json"
"""What the ports were before: ``{"ports": {name: {"up": bool, "mtu": int}}}``."""

POLL = 0.25
COMMAND_TIMEOUT = 30.0


def apply(host, backend, changes, wait, clock):
    """Make all ``changes`` or none. Raises HostError, with what could not be undone, if any.

    A change is ``{name, keep: bool, existed: bool, files: {path: text | None}, before: {path: text | None},
    ports: [...], old_ports: [...], released: [...], tune: [words for ip link], untune: [words],
    done: callable() -> [what is not yet so]}``. ``keep`` is False when the bridge is to go; a text of None is a
    file that is not there; ports and old_ports are those of our files after and before, and released are the
    ones that leave.
    """
    record = read_record(host)
    known = {port: dict(was) for port, was in record.items()}
    try:
        for change in changes:
            for port in change["ports"] if change["keep"] else []:
                link = sysfs.read_link(host, port)
                if link is None:
                    raise HostError("port %s has just gone" % port)
                record.setdefault(port, {"up": link["up"], "mtu": link["mtu"]})
        _write_record(host, record)
        for change in changes:
            _make(host, backend, change)
        _activate(host, backend, changes)
        for change in changes:
            if change["keep"] and change["tune"]:
                _ip(host, ["set", "dev", change["name"]] + change["tune"])
            for port in change["released"]:
                _give_back(host, backend, port, change["name"], record.get(port))
        _settle(changes, wait, clock)
    except (HostError, OSError) as exc:
        # asked before the way back adds lines of its own
        said = backend.log(host)
        problems = _undo(host, backend, changes, known)
        message = str(exc)
        message += (
            "; what could not be put back: %s" % "; ".join(problems)
            if problems
            else "; the files and links are as they were before"
        )
        if said:
            message += "\n%s logged:\n%s" % (backend.NAME, said)
        raise HostError(message) from exc
    kept = [port for change in changes if change["keep"] for port in change["ports"]]
    for change in changes:
        for port in change["released"]:
            if port not in kept:
                record.pop(port, None)
    _write_record(host, record)


def _make(host, backend, change):
    """The files, and the end of a bridge that goes. The marker comes first and goes last: a run that is
    cut short leaves something that the next one recognises as ours."""
    marker = backend.marker(change["files"])
    order = sorted(change["files"], key=lambda path: (path != marker, path))
    if not change["keep"]:
        order.reverse()
    for path in order:
        if path == marker and not change["keep"]:
            _delete(host, change["name"])
        _put(host, path, change["files"][path])


def _put(host, path, text):
    if text is None:
        host.remove(path)
    elif host.read(path) != text:
        host.write(path, text)


def _activate(host, backend, changes):
    """Load the files, and configure anew each link whose configuration comes from one."""
    seen = backend.observe(host)
    names = []
    for change in changes:
        if change["keep"]:
            names += [name for name in [change["name"]] + change["ports"] if sysfs.read_link(host, name)]
        for port in change["released"]:
            link = sysfs.read_link(host, port)
            if link is not None and port not in names and backend.claims(link, seen):
                names.append(port)
    backend.activate(host, names)


def _give_back(host, backend, port, bridge, was):
    """Out of the bridge, and as it was before, unless somebody else's file configures it now."""
    link = sysfs.read_link(host, port)
    if link is None:
        return
    words = ["nomaster"] if link["master"] == bridge else []
    if was and was.get("mtu") and was["mtu"] != link["mtu"]:
        words += ["mtu", str(was["mtu"])]
    if was and not was.get("up") and link["up"] and not backend.claims(link, backend.observe(host)):
        words += ["down"]
    if words:
        _ip(host, ["set", "dev", port] + words)


def _delete(host, name):
    """networkd never deletes a link of its own accord (systemd.netdev(5))."""
    link = sysfs.read_link(host, name)
    if link is not None and link["bridge"]:
        _ip(host, ["delete", "dev", name, "type", "bridge"])


def _ip(host, words):
    host.run(["ip", "link"] + words, timeout=COMMAND_TIMEOUT)


def _settle(changes, wait, clock):
    end = clock.monotonic() + wait
    while True:
        missing = [what for change in changes for what in change["done"]()]
        if not missing:
            return
        if clock.monotonic() >= end:
            raise HostError("not so after %g s: %s" % (wait, "; ".join(missing)))
        clock.sleep(POLL)


def _undo(host, backend, changes, record):
    """Files and links as they were. Returns what did not work, and goes on after each failure."""
    problems = []

    def attempt(action, *arguments):
        try:
            action(*arguments)
        except (HostError, OSError) as exc:
            problems.append(str(exc))

    for change in changes:
        for path in sorted(change["before"]):
            attempt(_put, host, path, change["before"][path])
    for change in changes:
        if change["keep"] and not change["existed"]:
            attempt(_delete, host, change["name"])
    added = {change["name"]: [p for p in change["ports"] if p not in change["old_ports"]] for change in changes}
    was = read_record(host)
    attempt(
        _activate,
        host,
        backend,
        [
            dict(change, keep=change["existed"], ports=change["old_ports"], released=added[change["name"]])
            for change in changes
        ],
    )
    for change in changes:
        if change["keep"] and change["existed"] and change["untune"]:
            attempt(_ip, host, ["set", "dev", change["name"]] + change["untune"])
        for port in added[change["name"]]:
            attempt(_give_back, host, backend, port, change["name"], was.get(port))
    attempt(_write_record, host, record)
    return problems


def forget(host, ports):
    """Take these out of the record."""
    _write_record(host, {port: was for port, was in read_record(host).items() if port not in ports})


def read_record(host):
    """``{port: {"up": bool, "mtu": int}}`` as it was before us."""
    try:
        ports = json.loads(host.read(RECORD) or "{}").get("ports", {})
    except (ValueError, AttributeError):
        ports = {}
    return ports if isinstance(ports, dict) else {}


def _write_record(host, record):
    if record:
        _put(host, RECORD, json.dumps({"ports": record}, indent=1, sort_keys=True) + "\n")
    elif host.remove(RECORD):
        host.remove_empty_folder("/var/lib/vfio-host")
