# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Start and stop one lab. Everything about a lab lives in its own state folder.

The folder is named for the lab and holds: the overlay disk, the SSH keys made for this lab,
``known_hosts``, the serial console's text, QEMU's log and pid, and the inventory.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from ansible_collections.vfio.host.plugins.module_utils._lab import profiles

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}$")
CONSOLE_LINES = 30


def check_name(name):
    """Return ``name``; ValueError unless it can be part of a host name and a folder name."""
    if not NAME.fullmatch(name):
        raise ValueError("lab name %r: use up to 31 small letters, digits and hyphens" % name)
    return name


class Lab:
    """One lab by its name. ``folder`` is its own; nothing of it lies anywhere else."""

    def __init__(self, host, name, states):
        self.host = host
        self.name = check_name(name)
        self.folder = os.path.join(os.path.abspath(states), name)

    def file(self, name):
        return os.path.join(self.folder, name)

    # -- state -----------------------------------------------------------------------------

    def facts(self):
        """What was written down when the lab was started, or {}."""
        try:
            with open(self.file("lab.json"), "r", encoding="utf-8") as handle:
                return json.load(handle)
        except (OSError, ValueError):
            return {}

    def pid(self):
        """Process id of this lab's QEMU while it runs, else None.

        A recycled pid is not mistaken for it: the process must be QEMU with this lab's overlay as an
        argument.
        """
        pid = self.facts().get("pid")
        if not pid:
            return None
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as handle:
                command = handle.read().decode("utf-8", "replace")
        except OSError:
            return None
        ours = command.startswith("qemu-system-") and self.file("root.qcow2") in command.replace(",,", ",")
        return pid if ours else None

    def exists(self):
        """Whether there is anything of this lab: a process or a folder."""
        return os.path.isdir(self.folder)

    def console(self, lines=CONSOLE_LINES):
        """The end of the serial console, without terminal control sequences."""
        try:
            with open(self.file("console.log"), "r", encoding="utf-8", errors="replace") as handle:
                text = handle.read()
        except OSError:
            return ""
        text = re.sub(r"\x1b[\[(][0-9;?]*[A-Za-z=>]?", "", text.replace("\r", ""))
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    # -- start -----------------------------------------------------------------------------

    def start(self, image, profile, accelerator, memory, cpus, internet, timeout, reason=""):
        """Boot from a fresh overlay over ``image`` and wait for SSH. Returns the facts.

        ``reason`` is why that accelerator was chosen; it is only written down.
        Raises HostError with the end of the serial console when it does not come up; the machine
        is stopped then, and its folder stays for a look.
        """
        self.remove()
        os.makedirs(self.folder, mode=0o700)
        begun = time.monotonic()
        self.host.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.abspath(image),
                       self.file("root.qcow2")])  # fmt: skip
        for key in ("host_key", "user_key"):
            self.host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vfio-host-lab", "-f", self.file(key)])
        for dummy in range(5):
            port = free_port()
            pid = self._launch(port, profile, accelerator, memory, cpus, internet)
            if pid:
                break
        else:
            raise HostError("QEMU does not start; %s says:\n%s" % (self.file("qemu.log"), self._qemu_log()))
        with open(self.file("host_key.pub"), "r", encoding="utf-8") as handle:
            host_key = " ".join(handle.read().split()[:2])
        self._write("known_hosts", "[127.0.0.1]:%d %s\n" % (port, host_key))
        facts = {
            "name": self.name, "pid": pid, "port": port, "profile": profile, "accelerator": accelerator,
            "reason": reason, "inventory": self.file("inventory.yml"), "image": os.path.abspath(image),
            "folder": self.folder, "console": self.file("console.log"),
        }  # fmt: skip
        self._write("lab.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
        self._write("inventory.yml", inventory(facts))
        try:
            self._wait(pid, timeout)
        except HostError:
            self.stop()
            raise
        facts["boot_seconds"] = round(time.monotonic() - begun, 1)  # keys and overlay included
        self._write("lab.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
        return facts

    def _launch(self, port, profile, accelerator, memory, cpus, internet):
        keys = {"host_key": self.file("host_key"), "authorized_key": self.file("user_key.pub")}
        argv = profiles.machine_arguments(
            profile, accelerator, self.name, memory, cpus, self.file("root.qcow2"), self.file("console.log"),
            "monitor.sock", port, keys, internet,
        )  # fmt: skip
        with open(self.file("qemu.log"), "ab") as log:
            # The monitor's path is relative to the folder: a socket's path has 107 bytes at most.
            process = subprocess.Popen(
                ["qemu-system-x86_64"] + argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return process.pid
        if "Could not set up host forwarding" in self._qemu_log():
            return None  # somebody else took the port between our look and QEMU's
        raise HostError("QEMU ended with %s:\n%s" % (process.returncode, self._qemu_log()))

    def _qemu_log(self):
        with open(self.file("qemu.log"), "r", encoding="utf-8", errors="replace") as handle:
            return handle.read()[-3000:]

    def _wait(self, pid, timeout):
        end = time.monotonic() + timeout
        command = ssh_command(self.facts()) + ["true"]
        while time.monotonic() < end:
            if _gone(pid):
                raise HostError("lab %s: QEMU ended while the machine was booting:\n%s" % (self.name, self._qemu_log()))
            try:
                if self.host.run(command, timeout=20, check=False).rc == 0:
                    return
            except HostTimeout:
                pass
            time.sleep(1)
        raise HostError(
            "lab %s did not come up within %d s; its serial console (%s) ends with:\n%s"
            % (self.name, timeout, self.file("console.log"), self.console())
        )

    # -- stop ------------------------------------------------------------------------------

    def stop(self, timeout=15):
        """End the machine (its disk is thrown away, so no shutdown). True if it was running."""
        pid = self.pid()
        if pid is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except OSError as exc:
                if exc.errno == errno.ESRCH:
                    return True
                raise
            end = time.monotonic() + timeout
            while time.monotonic() < end:
                if _gone(pid):
                    return True
                time.sleep(0.05)
        raise HostError("lab %s: process %d does not end" % (self.name, pid))

    def remove(self):
        """Stop the machine and remove its folder. True if there was anything."""
        self.stop()
        if not self.exists():
            return False
        shutil.rmtree(self.folder)
        return True

    def _write(self, name, text):
        self.host.write(self.file(name), text, 0o600)


def _gone(pid):
    """Whether a process has ended; one of ours that nobody waited for yet has."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    return False


def free_port():
    """A TCP port on the loopback address that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as handle:
        handle.bind(("127.0.0.1", 0))
        return handle.getsockname()[1]


def ssh_command(facts):
    """The argv prefix that reaches a lab by its facts, with its own key and its known host key."""
    folder = facts["folder"]
    return [
        "ssh", "-F", "none", "-i", os.path.join(folder, "user_key"), "-p", str(facts["port"]), *ssh_options(folder),
        "root@127.0.0.1",
    ]  # fmt: skip


def ssh_options(folder):
    """SSH options of a lab: only its own key, only its own host key, nothing asked."""
    return [
        "-o", 'UserKnownHostsFile="%s"' % os.path.join(folder, "known_hosts"), "-o", "GlobalKnownHostsFile=none",
        "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8",
    ]  # fmt: skip


def inventory(facts):
    """An inventory (YAML text) with the lab as its one host, in the group ``lab``.

    Written as JSON, which is YAML: no quoting of ours can be wrong.
    """
    options = ["-F", "none"] + ssh_options(facts["folder"])
    variables = {
        "ansible_host": "127.0.0.1",
        "ansible_port": facts["port"],
        "ansible_user": "root",
        "ansible_ssh_private_key_file": os.path.join(facts["folder"], "user_key"),
        "ansible_ssh_common_args": " ".join("'%s'" % option for option in options),
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "vfio_host_lab_name": facts["name"],
        "vfio_host_lab_profile": facts["profile"],
        "vfio_host_lab_accelerator": facts["accelerator"],
        "vfio_host_lab_console": facts["console"],
    }
    tree = {"lab": {"hosts": {facts["name"]: variables}}}
    return "---\n" + json.dumps(tree, indent=2, sort_keys=True) + "\n"
