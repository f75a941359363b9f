# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trial boot with the real backends of the boot loaders, on recorded hosts."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, trial
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import functions, grub_host, systemd_boot_host
from ansible_collections.vfio.host.tests.unit.boot.trial_host import FakeGenerator, run

HOSTS = {
    "grub": (grub_host.GrubHost, "6.1.0-50-amd64"),
    "systemd_boot": (systemd_boot_host.Debian, systemd_boot_host.NEW),
    "systemd_boot_by_hand": (systemd_boot_host.Arch, systemd_boot_host.ArchUki.VERSION),
    "uki": (systemd_boot_host.DebianUki, systemd_boot_host.NEW),
    "uki_mkinitcpio": (systemd_boot_host.ArchUki, systemd_boot_host.ArchUki.VERSION),
}


class Generator(FakeGenerator):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def images(self, host):
        return [{"kernel": self.kernel, "path": "/boot/initrd.img-" + self.kernel, "options": ("-x",)}], []


@pytest.fixture(params=sorted(HOSTS))
def host(request, tmp_path, monkeypatch):
    kind, kernel = HOSTS[request.param]
    found = kind(str(tmp_path))
    found.kernel = kernel
    found.generator = Generator(kernel)
    found.write(trial.BOOT_ID, "boot-1\n")
    os.makedirs(found.path("/run/systemd/system"))
    found.write("/lib/modules/%s/modules.builtin" % kernel, "a/vfio-pci.ko\na/vfio.ko\na/vfio_iommu_type1.ko\n")
    functions.add_function(found, functions.GPU, driver="nouveau")
    inner = found.commands

    def commands(argv, *more):
        if argv[0] in ("systemctl", "journalctl", "dmesg"):
            return Result(argv, 0)
        return inner(argv, *more)

    found.commands = commands
    monkeypatch.setattr(trial, "choose_generator", lambda host_, name: found.generator)
    monkeypatch.setitem(manage.GENERATORS, found.generator.NAME, found.generator)
    return found


def tree(host):
    """Every file with its content, apart from where the one-shot is kept."""
    found = {}
    for folder, dummy, names in os.walk(host.root):
        for name in names:
            path = os.path.join(folder, name)
            inside = path[len(host.root):]
            if inside.endswith("/grubenv") or "LoaderEntryOneShot" in inside or inside.startswith("/script"):
                continue
            if os.path.islink(path):
                found[inside] = os.readlink(path)
                continue
            with open(path, "rb") as handle:
                found[inside] = handle.read()
    return found


def test_staged_and_taken_back_without_a_trace(host):
    loader = cmdline.choose(host, "auto")[0]
    before = tree(host)
    default = loaders.default_of(loader.view(host))
    predicted = run(host, check=True)
    assert tree(host) == before, "check mode writes nothing"
    done = run(host)
    assert (predicted["available"], predicted["outcome"], predicted["line"]) == (True, "staged", done["line"])
    assert predicted["diff"] == done["diff"] and done["obstacles"] == []
    assert done["line"] == default["tokens"] + ["intel_iommu=on", "vfio_host=trial", "panic=30"]
    assert loader.once(host) == loaders.TRIAL_ID
    assert loaders.default_of(loader.view(host)) == default
    after = tree(host)
    assert run(host)["changed"] is False and tree(host) == after
    assert run(host, "absent")["changed"]
    assert tree(host) == before and loader.once(host) is None
    assert run(host, "absent")["changed"] is False


def test_a_failure_at_the_end_is_taken_back(host, monkeypatch):
    loader = cmdline.choose(host, "auto")[0]
    before = tree(host)
    monkeypatch.setattr(loader, "once", lambda host_: None)
    with pytest.raises(HostError, match="Everything was taken back"):
        run(host)
    assert tree(host) == before


@pytest.mark.parametrize("what, flags, free", [("MiB free", 0, 1), ("read-only", os.ST_RDONLY, 1 << 30)])
def test_no_room_where_the_default_entry_lies_is_refused(host, monkeypatch, what, flags, free):
    """It is no reason to go on without a trial."""
    loader = cmdline.choose(host, "auto")[0]
    default = loaders.default_of(loader.view(host))
    full = host.path(os.path.dirname(default["image"] or default["initrds"][-1]))
    real = os.statvfs

    def statvfs(path):
        found = real(path)
        if str(path) != full:
            return found
        return SimpleNamespace(f_flag=flags, f_bavail=free, f_bfree=free, f_frsize=1024)

    monkeypatch.setattr(os, "statvfs", statvfs)
    before = tree(host)
    for check in (True, False):
        with pytest.raises(HostError, match=what):
            run(host, check=check)
    assert tree(host) == before


def test_it_is_running_after_the_reboot(host):
    loader = cmdline.choose(host, "auto")[0]
    run(host)
    entry = [item for item in loader.view(host)["entries"] if item["id"].startswith(loaders.TRIAL_ID)][0]
    host.write(trial.BOOT_ID, "boot-2\n")
    loader.set_once(host, None)
    begin = ["BOOT_IMAGE=/boot/vmlinuz-" + host.kernel] if loader.NAME == "grub" else ["initrd=\\x"]
    host.write("/proc/cmdline", " ".join(begin + entry["tokens"]) + "\n")
    functions.bind(host, functions.GPU["address"], "vfio-pci")
    result = run(host)
    assert (result["outcome"], result["because"]) == ("running", [])
    assert run(host, "confirmed")["confirmed"]
