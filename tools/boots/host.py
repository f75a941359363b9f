# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab host as a test sees it: commands, modules, playbooks, reboots, power cuts, and its files as hashes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(CHECKOUT, ".build")
LABS = os.path.join(BUILD, "lab")

BOOT_DEADLINE = 420
"""Seconds that a boot may take: two emulated machines side by side need a third of it."""

CPUS = 1
"""A boot has little to do side by side, and emulated CPUs wait for one another: two on a busy machine stall for minutes."""

HASHED = ("/etc", "/boot", "/boot/efi", "/efi", "/usr/lib/dracut", "/usr/lib/kernel", "/usr/lib/systemd/system", "/var/lib/vfio-host")
"""What must be byte for byte as it was after the way back; what is not there is left out."""

BOARDS = {
    # UEFI starts the first display that it finds, and that has to be the host's own.
    image: [{"move": "cpu_port", "to": "03.0"}]
    for image in ("bookworm-grub-efi-dracut", "trixie-grub-efi-dracut", "trixie-systemd-boot", "trixie-uki")
}
"""Changes of the lab's board, by image."""

EXEMPT = {
    r"/boot/(efi/)?loader/random-seed": "a random seed, new at every boot",
    r"/boot/grub/grubenv": "GRUB's environment block: the choice of a one-shot entry leaves its padding",
    r"/etc/(ld\.so\.cache|mtab|resolv\.conf|machine-id|adjtime|\.updated)": "kept by the system itself",
    r"/etc/ssh/ssh_host_.*": "made at the first boot",
    r"/etc/apt/.*": "state of the package manager",
}
"""Files (regular expressions) that may differ, and why."""


SSH_MAC = "52:54:00:12:34:56"
"""Of the lab's NIC for SSH: what QEMU gives the first one."""


class Failed(Exception):
    """Something on the host is not as it has to be; the text says what."""


class Skipped(Exception):
    """What a step needs is not here; the text says what, and how to get it. It has then shown nothing."""


class TestHost:
    """A lab by its name. ``image``: flavour of the role lab; ``profile``: its machine; ``without``: a file to remove first."""

    def __init__(self, name, image, profile="p8h67", without=""):
        self.name, self.image, self.profile, self.without = name, image, profile, without
        self.folder = os.path.join(LABS, name)
        self.points = (1, sys.maxsize)

    # -- the machine -----------------------------------------------------------------------

    def up(self):
        self._lab("lab_up")
        # Where udev is slow, networkd 257 was seen to let go of an interface that it had by the properties of udev.
        self.run("sed -i 's/^Path=.*/PermanentMACAddress=%s/' /etc/systemd/network/10-ssh.network" % SSH_MAC)
        if self.without:
            self.run("rm " + shlex.quote(self.without))
        # Emulated, bochs needs some 20 s for its first picture, which is when the kernel calls a CPU stuck.
        self.run("echo kernel.watchdog_thresh=30 >/etc/sysctl.d/90-lab.conf; sysctl -q -p /etc/sysctl.d/90-lab.conf")

    def down(self):
        self._lab("lab_down")

    def _lab(self, playbook):
        variables = {
            "lab_name": self.name, "lab_states": LABS, "lab_cache": os.path.join(BUILD, "cache", "lab"),
            "lab_image": self.image, "lab_profile": self.profile, "lab_timeout": BOOT_DEADLINE, "lab_cpus": CPUS, "lab_board": BOARDS.get(self.image, []),
        }  # fmt: skip
        argv = ["ansible-playbook", "vfio.host." + playbook, "-e", json.dumps(variables)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2400, check=False)
        if done.returncode:
            raise Failed("%s ended with %d:\n%s" % (playbook, done.returncode, done.stdout[-3000:]))

    def lab(self):
        """The lab itself, for its power switch."""
        from ansible_collections.vfio.host.plugins.module_utils._host import Host
        from ansible_collections.vfio.host.plugins.module_utils._lab.machine import Lab

        return Lab(Host(), self.name, LABS)

    @property
    def inventory(self):
        return os.path.join(self.folder, "inventory.yml")

    def ssh(self):
        with open(self.inventory, encoding="utf-8") as handle:
            group = json.loads(handle.read().split("---\n", 1)[1])
        ((dummy, host),) = group["lab"]["hosts"].items()
        argv = ["ssh", "-i", host["ansible_ssh_private_key_file"], "-p", str(host["ansible_port"])]
        return argv + shlex.split(host["ansible_ssh_common_args"]) + ["root@" + host["ansible_host"]]

    # -- what runs on it -------------------------------------------------------------------

    def run(self, command, timeout=300, check=True, given=None):
        """Standard output of a command line on the host; ``given`` (str or bytes) is its standard input."""
        if isinstance(given, str):
            given = given.encode("utf-8")
        done = subprocess.run(self.ssh() + [command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, check=False,
                              **({"stdin": subprocess.DEVNULL} if given is None else {"input": given}))
        output, errors = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        if check and done.returncode:
            raise Failed("%r ended with %d: %s" % (command, done.returncode, (errors or output)[-1500:]))
        return output

    def module(self, name, arguments, check_mode=False, fail=False, interpreter=None):
        """The result of one module of the collection as a dict. ``fail``: it has to refuse, and its result says why."""
        argv = ["ansible", "-i", self.inventory, "lab", "-m", "vfio.host." + name, "--diff"]
        argv += ["-a", json.dumps(arguments)] if arguments else []  # an empty dict is no dict to it
        argv += ["--check"] if check_mode else []
        argv += ["-e", "ansible_python_interpreter=" + interpreter] if interpreter else []
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=1800, check=False)
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        start = text.find("=> {")
        if start < 0:
            if fail is None:
                return None
            raise Failed("module %s gave no answer: %s" % (name, (done.stderr + text)[-1500:]))
        result = json.loads(text[start + 3:])
        if fail is not None and bool(done.returncode) != bool(fail):
            raise Failed("module %s %s: %s" % (name, "did not refuse" if fail else "failed", result.get("msg") or text[-1500:]))
        return result

    def playbook(self, name, *arguments, fail=False):
        """``(output, recap, seconds)`` of a playbook of the collection, or of a file."""
        begun = time.monotonic()
        where = name if name.endswith(".yml") else "vfio.host." + name
        argv = ["ansible-playbook", "-i", self.inventory, where, *arguments]
        lines = []
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout:
                sys.stdout.write("    " + line)
                sys.stdout.flush()
                lines.append(line)
        output = "".join(lines)
        if bool(process.returncode) != bool(fail):
            raise Failed("%s ended with %d:\n%s" % (name, process.returncode, output[-2500:]))
        found = re.findall(r"^\S+\s+: (ok=\d+ .*)$", output, re.MULTILINE)
        recap = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[-1])} if found else {}
        return output, recap, time.monotonic() - begun

    # -- what one step tells a later one, of another run too ---------------------------------

    def remember(self, seen):
        with open(os.path.join(self.folder, "seen.json"), "w", encoding="utf-8") as handle:
            json.dump(seen, handle)

    def remembered(self):
        with open(os.path.join(self.folder, "seen.json"), encoding="utf-8") as handle:
            return json.load(handle)

    # -- boots -----------------------------------------------------------------------------

    def boot_id(self):
        return self.run("cat /proc/sys/kernel/random/boot_id", timeout=60).strip()

    def cmdline(self):
        return self.run("cat /proc/cmdline").split()

    def reboot(self):
        """Reboot as a person would, and wait."""
        was = self.boot_id()
        self.run("systemctl reboot", check=False)
        self.wait_for_boot(was)

    def wait_for_boot(self, was, deadline=BOOT_DEADLINE, settle=True):
        """Wait until the host answers from another boot than ``was``."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            try:
                if self.boot_id() != was:
                    break
            except (Failed, subprocess.TimeoutExpired):
                pass
            time.sleep(2)
        else:
            raise Failed("the host did not come back within %d s; its console ends with:\n%s" % (deadline, self.lab().console()))
        if settle:
            self.run("systemctl is-system-running --wait", check=False, timeout=deadline)

    # -- what it is ------------------------------------------------------------------------

    def files(self):
        """``{path: description}``: type, mode, owner and hash or target of everything below HASHED."""
        with open(os.path.join(HERE, "hashing.py"), encoding="utf-8") as script:
            done = subprocess.run(self.ssh() + ["python3", "-", *HASHED], stdin=script, stdout=subprocess.PIPE, text=True,
                                  timeout=600, check=True)  # fmt: skip
        found = json.loads(done.stdout)
        return {path: what for path, what in found.items() if not any(re.fullmatch(pattern, path) for pattern in EXEMPT)}

    def drivers(self, *addresses):
        """``{address: driver or None}``."""
        found = {}
        for address in addresses:
            text = self.run("readlink /sys/bus/pci/devices/%s/driver" % address, check=False).strip()
            found[address] = os.path.basename(text) if text else None
        return found

    def log(self):
        """What our script has said in the kernel log of this boot."""
        return [line.split("vfio-host: ", 1)[1] for line in self.run("dmesg").splitlines() if "vfio-host: " in line]

    def kernel_trouble(self, hangs=False):
        """Lines of the kernel log that must not be there. ``hangs``: a task does on purpose, which the kernel may tell."""
        return trouble(self.run("dmesg"), hangs)


def trouble(log, hangs=False):
    pattern = r"Oops|BUG:|WARNING:|general protection fault|DMAR:.*fault|AMD-Vi:.*FAULT"
    pattern += "" if hangs else r"|Call Trace|blocked for more than"
    return [line for line in log.splitlines() if re.search(pattern, line)]


def differences(before, after):
    """Sentences about two results of :meth:`TestHost.files`."""
    found = ["%s is new" % path for path in sorted(set(after) - set(before))]
    found += ["%s is gone" % path for path in sorted(set(before) - set(after))]
    found += ["%s is not as it was" % path for path in sorted(set(before) & set(after)) if before[path] != after[path]]
    return found
