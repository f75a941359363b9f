# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The SSH connection we came through, if any."""

from __future__ import annotations

SERVERS = ("sshd", "sshd-session", "sshd-auth", "dropbear")
"""Command names of SSH servers (15 characters at most, as the kernel keeps them)."""

LIMIT = 64
"""Ancestors looked at; more would be a loop."""


def parse_stat(text):
    """``(command, parent pid)`` from /proc/PID/stat, or ``(None, None)``.

    The command may itself hold spaces and brackets: it ends at the last one.
    """
    head, bracket, tail = (text or "").rpartition(")")
    fields = tail.split()
    if not bracket or len(fields) < 2 or not fields[1].isdigit():
        return None, None
    return head.partition("(")[2], fields[1]


def parse_connection(value):
    """``(client, server)`` addresses of SSH_CONNECTION, ``(None, None)`` when it names none.

    A zone (``%eth0``) and the IPv4-mapped prefix are taken off.
    """
    fields = value.split()
    if len(fields) != 4 or "UNKNOWN" in fields:
        return None, None
    return _address(fields[0]), _address(fields[2])


def _address(text):
    text = text.split("%")[0]
    return text[len("::ffff:"):] if text.startswith("::ffff:") and "." in text else text


def read(inputs):
    """``{client, server, unknown}``.

    sudo takes SSH_CONNECTION from the environment, so our ancestors are asked until one has it.
    Without it we are local, unless an SSH server is among them or one could not be looked at.
    """
    host = inputs.host
    pid = "self"
    for dummy in range(LIMIT):
        value = _variable(host.read_bytes("/proc/%s/environ" % pid), b"SSH_CONNECTION")
        if value:
            client, server = parse_connection(value)
            if server is None:
                inputs.miss("SSH_CONNECTION", "it names no address: %s" % value)
            return {"client": client, "server": server, "unknown": server is None}
        command, parent = parse_stat(host.read("/proc/%s/stat" % pid))
        if parent is None:
            inputs.miss("/proc/%s/stat" % pid, "whether this is an SSH session is unknown")
            return {"client": None, "server": None, "unknown": True}
        if command in SERVERS:
            inputs.miss("/proc/%s/environ" % pid, "below %s, but no ancestor shows SSH_CONNECTION" % command)
            return {"client": None, "server": None, "unknown": True}
        if parent in ("0", "1"):
            remote = _remote_session(host)
            if remote:
                inputs.miss(remote, "logind calls this session remote, but no ancestor shows SSH_CONNECTION")
            return {"client": None, "server": None, "unknown": bool(remote)}
        pid = parent
    inputs.miss("/proc/%s/stat" % pid, "whether this is an SSH session is unknown: too many ancestors")
    return {"client": None, "server": None, "unknown": True}


def _remote_session(host):
    """logind's file of our session when it says that it is remote, else None.

    The session id stays when a process is cut from its ancestors, as an asynchronous task is.
    """
    number = host.read_attribute("/proc/self/sessionid") or "none"
    path = "/run/systemd/sessions/" + number
    return path if "REMOTE=1" in (host.read(path) or "").splitlines() else None


def _variable(environ, name):
    for entry in (environ or b"").split(b"\0"):
        key, dummy, value = entry.partition(b"=")
        if key == name:
            return value.decode("ascii", "replace")
    return None
