# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Start and stop one lab. Everything about a lab lives in its own state folder.

The folder is named for the lab and holds: the overlay disk, the firmware's variables, the SSH keys made for this
lab, ``known_hosts``, the serial console's text, QEMU's log and pid, and the inventory.

A test runner drives a lab that exists like a person with a hand on the power button::

    lab = Lab(Host(), "try", ".build/lab")
    lab.power_off()                      # a power cut; the disk and the firmware's variables stay
    lab.power_on()                       # the same machine again, returns when it answers over SSH
    lab.shell("cat /proc/cmdline").stdout
    lab.monitor("system_reset")          # the reset button
    lab.console()                        # what it said on its serial console since it was switched on
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

FIRMWARES = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)
"""UEFI for QEMU as Debian and Ubuntu install it: the code and an empty variable store."""

QUIET_START = 2
"""Seconds after which a QEMU that could not start has ended."""

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

        A recycled pid is not mistaken for it: the process must be QEMU, by whatever path, with this lab's overlay as an
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
        program = os.path.basename(command.split("\0", 1)[0])
        ours = program.startswith("qemu-system-") and self.file("root.qcow2") in command.replace(",,", ",")
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

    def start(self, image, profile, accelerator, memory, cpus, internet, timeout, reason="", firmware="bios",
              board=None, wait=True):
        """Boot from a fresh overlay over ``image`` and wait for SSH. Returns the facts.

        ``reason`` is why that accelerator was chosen; it is only written down. ``firmware`` is ``bios`` or ``efi``,
        ``board`` a list of changes, see :func:`profiles.board`.
        Raises HostError with the end of the serial console when it does not come up; the machine
        is stopped then, and its folder stays for a look.
        """
        profiles.board(board)
        template = efi_files(self.host)[1] if firmware == "efi" else None
        self.remove()
        os.makedirs(self.folder, mode=0o700)
        begun = time.monotonic()
        self.host.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.abspath(image),
                       self.file("root.qcow2")])  # fmt: skip
        if template:
            shutil.copyfile(template, self.file("efivars.fd"))
        for key in ("host_key", "user_key"):
            self.host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vfio-host-lab", "-f", self.file(key)])
        facts = {
            "name": self.name, "profile": profile, "accelerator": accelerator, "memory": memory, "cpus": cpus,
            "internet": internet, "firmware": firmware, "board": list(board or []), "reason": reason,
            "inventory": self.file("inventory.yml"), "image": os.path.abspath(image), "folder": self.folder,
            "console": self.file("console.log"),
        }  # fmt: skip
        self._power_on(facts)
        if wait:
            try:
                self.wait(timeout)
            except HostError:
                self.stop()
                raise
            self._remember(boot_seconds=round(time.monotonic() - begun, 1))  # keys and overlay included
        return self.facts()

    def _power_on(self, facts):
        """Start QEMU as ``facts`` say, on the port that they name if it is free, and write all down."""
        for name, size in profiles.disks(facts["board"]).items():
            disk = self.file("disk-%s.qcow2" % name)
            if not os.path.exists(disk):
                self.host.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "%dM" % size])
        for dummy in range(5):
            port = facts.pop("port", None) or free_port()
            pid = self._launch(port, facts)
            if pid:
                break
        else:
            raise HostError("QEMU does not start; %s says:\n%s" % (self.file("qemu.log"), self._qemu_log()))
        facts.update(pid=pid, port=port)
        # Before anything else: a QEMU whose pid nobody knows could not be stopped.
        self._write("lab.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
        with open(self.file("host_key.pub"), "r", encoding="utf-8") as handle:
            host_key = " ".join(handle.read().split()[:2])
        self._write("known_hosts", "[127.0.0.1]:%d %s\n" % (port, host_key))
        self._write("inventory.yml", inventory(facts))

    def _remember(self, **changed):
        facts = dict(self.facts(), **changed)
        self._write("lab.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")

    # -- power -----------------------------------------------------------------------------

    def running(self):
        """Whether the machine is on."""
        return self.pid() is not None

    def power_off(self, timeout=15):
        """Cut the power: the guest gets no chance to write anything. True if the machine was on.

        Its disks, keys and firmware variables stay as they are at this moment.
        """
        return self._end((signal.SIGKILL,), timeout)

    def power_on(self, wait=True, board=None, timeout=300):
        """Switch a lab on again that was started before: same disk, same variables, same keys. Returns the facts.

        ``board`` is a new list of changes of the board; None leaves the board as it was. The SSH port is the same if
        it is free. A machine that is on stays as it is. Raises HostError when there is no such lab, and with
        the end of the serial console when it does not answer over SSH in time; it stays on then, for a look.
        """
        facts = self.facts()
        if not os.path.exists(self.file("root.qcow2")) or "profile" not in facts:
            raise HostError("there is no lab %s in %s to switch on" % (self.name, os.path.dirname(self.folder)))
        begun = time.monotonic()
        if not self.running():
            if board is not None:
                profiles.board(board)
                facts["board"] = list(board)
            self._keep_console()
            facts.pop("boot_seconds", None)
            self._power_on(facts)
        if wait:
            self.wait(timeout)
            self._remember(boot_seconds=round(time.monotonic() - begun, 1))
        return self.facts()

    def _keep_console(self):
        """QEMU empties the console's file; what the machine said before is kept once."""
        if os.path.exists(self.file("console.log")):
            os.replace(self.file("console.log"), self.file("console.previous.log"))

    def wait(self, timeout=300):
        """Return when the machine answers over SSH; HostError when it does not in time, or its QEMU ends."""
        self._wait(self.pid(), timeout)

    def shell(self, command, timeout=60, check=False, stdin=None):
        """Run a shell command inside, as root, over SSH. Returns a Result."""
        return self.host.run(ssh_command(self.facts()) + [command], timeout=timeout, check=check, stdin=stdin)

    def monitor(self, command, timeout=10, **arguments):
        """Give QEMU one command through its monitor (QMP), such as ``system_reset``. Returns its answer.

        Raises HostError when the machine is off or QEMU refuses.
        """
        if not self.running():
            raise HostError("lab %s is off" % self.name)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                # A socket's path has 107 bytes at most; the folder's may be longer.
                connection.connect("/proc/self/fd/%d/monitor.sock" % folder)
                with connection.makefile("rw", encoding="utf-8") as stream:
                    stream.readline()  # QEMU's greeting
                    _ask(stream, {"execute": "qmp_capabilities"})
                    return _ask(stream, {"execute": command, "arguments": arguments})
        except (OSError, ValueError) as exc:
            raise HostError("lab %s: its monitor does not answer %s: %s" % (self.name, command, exc)) from exc
        finally:
            os.close(folder)

    def _launch(self, port, facts):
        firmware = None
        if facts["firmware"] == "efi":
            firmware = (efi_files(self.host)[0], self.file("efivars.fd"))
        keys = {"host_key": self.file("host_key"), "authorized_key": self.file("user_key.pub")}
        argv = profiles.machine_arguments(
            facts["profile"], facts["accelerator"], self.name, facts["memory"], facts["cpus"], self.file("root.qcow2"),
            self.file("console.log"), "monitor.sock", port, keys, facts["internet"], firmware, facts["board"],
            self.file("disk-%s.qcow2"),
        )  # fmt: skip
        with open(self.file("qemu.log"), "wb") as log:
            # The monitor's path is relative to the folder: a socket's path has 107 bytes at most.
            process = subprocess.Popen(
                ["qemu-system-x86_64"] + argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            process.wait(timeout=QUIET_START)
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
            if pid is None or _gone(pid):
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
        return self._end((signal.SIGTERM, signal.SIGKILL), timeout)

    def _end(self, signals, timeout):
        pid = self.pid()
        if pid is None:
            return False
        for number in signals:
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
    """Whether a process has ended; one that nobody waited for yet has, ours or another's.

    Its first thread may be gone while others still end: they hold the lock of the disk until they have.
    """
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    except OSError:
        pass
    try:
        with open("/proc/%d/stat" % pid, "rb") as handle:
            fields = handle.read().rpartition(b")")[2].split()  # from the third, the state; the 20th counts the threads
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def efi_files(host):
    """``(code, empty variable store)`` of UEFI for QEMU; HostError when this machine has none."""
    for pair in FIRMWARES:
        if all(host.exists(path) for path in pair):
            return pair
    raise HostError("this machine has no UEFI for QEMU (looked for %s). On Debian and Ubuntu it is in the package ovmf."
                    % ", ".join(pair[0] for pair in FIRMWARES))


def _ask(stream, request):
    """One question to QEMU's monitor and its answer; events that come in between are passed over."""
    stream.write(json.dumps(request) + "\n")
    stream.flush()
    while True:
        line = stream.readline()
        if not line:
            raise ValueError("it has closed the connection")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"].get("desc", str(answer["error"])))
        if "return" in answer:
            return answer["return"]


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
