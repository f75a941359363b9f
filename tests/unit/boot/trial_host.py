# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded host with a boot loader and a generator of a few lines, that can be rebooted and killed."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot import tokens, trial
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import functions
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.killable import Killed, half_written, state

KERNEL = "6.1.0-50-amd64"
IMAGE = "/boot/initrd.img-" + KERNEL
BASE = ["root=UUID=1", "ro", "quiet"]
CONTENT = asked.render([asked.identity(functions.GPU)])
PARAMS = {
    "state": "staged", "parameters": ["intel_iommu=on"], "devices_content": CONTENT, "loader": "auto",
    "generator": "auto", "panic": 30, "deadline": 900, "watchdog": False, "retry": False, "rebuild_timeout": 900,
}  # fmt: skip


class FakeLoader:
    """The menu is generated from settings and the trial's own file; the one-shot is a third file."""

    NAME = "fake"
    SETTINGS = "/etc/fake/line"
    TRIAL_FILE = "/etc/fake/trial"
    MENU = "/boot/fake.cfg"
    ENVIRONMENT = "/boot/fake.env"

    def __init__(self):
        self.obstacles = []
        self.damage = None  # what generating does to the default entry by mistake
        self.forget = True  # whether starting an entry once uses the one-shot up

    def trial_obstacles(self, host):
        return list(self.obstacles)

    def recorded(self, host):
        return []

    def generated(self, host):
        return [self.MENU]

    def generate(self, host):
        default = {
            "id": "default", "title": "Fake", "kernel": KERNEL, "tokens": tokens.split(host.read(self.SETTINGS)),
            "default": True, "initrds": [IMAGE],
        }  # fmt: skip
        text = host.read(self.TRIAL_FILE)
        found = [default] if text is None else [default, json.loads(text)]
        if text is not None and self.damage:
            default.update(self.damage)
        host.write(self.MENU, json.dumps(found))

    def view(self, host):
        found = [
            loaders.entry(
                item["id"], item["title"], item["kernel"], item["tokens"], initrds=item["initrds"],
                default=item["default"], managed=not loaders.ours(item["id"]),
            )
            for item in json.loads(host.read(self.MENU))
        ]  # fmt: skip
        return loaders.view(found)

    def trial(self, host, kernel, image, line):
        after = None
        if kernel is not None:
            after = json.dumps({
                "id": loaders.TRIAL_ID, "title": "Trial", "kernel": kernel, "tokens": list(line), "default": False,
                "initrds": [image],
            })  # fmt: skip
        before = host.read(self.TRIAL_FILE)
        return [] if before == after else [loaders.Edit(self.TRIAL_FILE, before, after)]

    def once(self, host):
        return host.read(self.ENVIRONMENT)

    def set_once(self, host, entry_id):
        if entry_id is None:
            host.remove(self.ENVIRONMENT)
        else:
            host.write(self.ENVIRONMENT, entry_id)

    def use_up(self, host):
        host.remove(self.ENVIRONMENT)


class TracingLoader(FakeLoader):
    """As GRUB: an entry that was started once leaves an empty choice behind."""

    def once(self, host):
        return host.read(self.ENVIRONMENT) or None

    def once_traces(self, host):
        return host.exists(self.ENVIRONMENT)

    def use_up(self, host):
        host.write(self.ENVIRONMENT, "")


class FakeGenerator:
    NAME = "initramfs-tools"
    HOOK = "/etc/fake/90vfio-host/hook"
    FOLDERS = ("/etc/fake/90vfio-host",)
    WANTED = "etc/vfio-host/devices"

    def __init__(self):
        self.fail = None

    def files(self):
        return [(self.HOOK, "our hook\n", 0o755)]

    def refusals(self, host):
        return []

    def wanted_paths(self):
        return frozenset((self.WANTED,))

    def images(self, host):
        return [{"kernel": KERNEL, "path": IMAGE, "options": ("-x",)}], []

    def problems(self, image, devices):
        return [] if image.files.get(self.WANTED) == devices else ["its list is another one"]

    def build(self, host, version, path, timeout, devices=None, options=()):
        assert options == ("-x",)
        if self.fail:
            raise HostError(self.fail)
        if host.read(self.HOOK) != "our hook\n":
            raise HostError("built without our files")
        files = {"init": b"init"}
        if host.exists(devices):
            files[self.WANTED] = host.read_bytes(devices)
        host.write(path, gzip.compress(archive(files), mtime=0))
        return "built"


class TrialHost(Host):
    """``fuse``: after so many changes the process is killed."""

    def __init__(self, root):
        self.fuse = None
        super().__init__(root, commands=self.command)
        self.calls = []
        self.timer = "inactive"
        self.journal = {}
        self.loader = FakeLoader()
        self.generator = FakeGenerator()
        self.write("/proc/cmdline", "root=UUID=1 ro quiet\n")
        self.write(trial.BOOT_ID, "boot-1\n")
        self.write("/usr/bin/journalctl", "")
        for folder in ("/run/systemd/system", "/etc/systemd/system", "/var/lib", "/sys/bus/pci/drivers/vfio-pci"):
            os.makedirs(self.path(folder))
        self.write(FakeLoader.SETTINGS, tokens.join(BASE))
        self.write(IMAGE, gzip.compress(archive({"init": b"init"}), mtime=0))
        self.write("/lib/modules/%s/modules.builtin" % KERNEL, "a/vfio-pci.ko\na/vfio.ko\na/vfio_iommu_type1.ko\n")
        self.loader.generate(self)
        functions.add_function(self, functions.GPU, driver="nouveau")
        self.boots = 1

    # -- being killed

    def _changed(self, written=None):
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                if written:
                    half_written(self, written)
                raise Killed()

    def write(self, path, data, mode=0o644):
        super().write(path, data, mode)
        self._changed(path)

    def replace(self, source, target, mode=None):
        super().replace(source, target, mode)
        self._changed()

    def remove(self, path):
        gone = super().remove(path)
        if gone:
            self._changed()
        return gone

    def command(self, argv, stdin):
        self.calls.append(argv)
        if argv[0] == "systemctl" and argv[1] == "stop":
            self.timer = "inactive"
        self._changed()
        if argv[0] == "dmesg":
            return Result(argv, 0, "[ 1.0] Linux\n[ 2.0] vfio-host: 0000:01:00.0 left to the host: is a bridge\n")
        if argv[0] == "journalctl":
            return Result(argv, 0, self.journal.get(argv[argv.index("-b") + 1], ""))
        if argv[:2] == ["systemctl", "is-active"]:
            return Result(argv, 0 if self.timer == "active" else 3, self.timer + "\n")
        return Result(argv, 0)

    # -- booting

    def reboot(self, works=True, power_cut=False):
        """Start what the loader would. ``works``: whether the trial stays up, else the host boots once more."""
        self.boots += 1
        super().write(trial.BOOT_ID, "boot-%d\n" % self.boots)
        seen = self.loader.view(self)
        chosen = loaders.default_of(seen)
        wanted = self.loader.once(self)
        if wanted is not None:
            found = [entry for entry in seen["entries"] if entry["id"] == wanted]
            assert found, "the one-shot points to nothing"
            assert self.exists(found[0]["initrds"][0]), "the entry of the one-shot has no image"
            chosen = found[0]
            if self.loader.forget:
                self.loader.use_up(self)
        if chosen["id"] == loaders.TRIAL_ID and not works:
            return self.reboot()
        super().write("/proc/cmdline", tokens.join(["BOOT_IMAGE=/vmlinuz"] + chosen["tokens"]) + "\n")
        in_trial = loaders.TRIAL in chosen["tokens"]
        self.timer = "active" if self.exists(trial.WANTS) and self.starts(trial.TIMER) else "inactive"
        functions.bind(self, functions.GPU["address"], "vfio-pci" if in_trial else "nouveau")
        return chosen["id"]

    def starts(self, unit):
        """Whether systemd would start a unit, by its conditions."""
        found = re.findall(r"^Condition(\w+)=(.*)$", self.read(unit), re.M)
        for name, value in found:
            if name == "KernelCommandLine":
                held = value in self.read("/proc/cmdline").split()
            else:
                assert name == "PathExists" and value.startswith("!")
                held = not self.exists(value[1:])
            if not held:
                return False
        return True

    def expire(self):
        """The deadline passes: what the timer's service writes is written, and the host reboots. False without it."""
        if self.timer != "active" or not self.starts(trial.SERVICE):
            return False
        for command in re.findall(r"^ExecStart=-/bin/sh -c '(.*)'$", self.read(trial.SERVICE), re.M):
            if "/dev/kmsg" not in command:
                inside = re.sub(r"(?<![\w/])/(?=var/|etc/)", self.root + "/", command)
                subprocess.run(["sh", "-c", inside], stderr=subprocess.DEVNULL, check=False)
        return self.reboot()

    def tree(self):
        """Every file and folder."""
        return state(self.root)


def install(monkeypatch, host):
    """Have the code find this host's loader and generator."""
    monkeypatch.setattr(trial, "choose_loader", lambda host_, name: host.loader)
    monkeypatch.setattr(trial, "choose_generator", lambda host_, name: host.generator)
    monkeypatch.setattr(trial, "named_loader", lambda name: host.loader)
    monkeypatch.setitem(manage.GENERATORS, "initramfs-tools", host.generator)


def run(host, state="staged", check=False, **more):
    return trial.run(host, dict(PARAMS, state=state, **more), check)
