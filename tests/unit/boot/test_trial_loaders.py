# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trial boot with the real backends of the boot loaders, on recorded hosts."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, record, trial
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import functions, grub_host, systemd_boot_host
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grub_editenv, trees
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine
from ansible_collections.vfio.host.tests.unit.boot.loader_contract import alive, kill_after
from ansible_collections.vfio.host.tests.unit.boot.trial_host import FakeGenerator, run
from ansible_collections.vfio.host.tests.unit.killable import Killed

NEXT = "6.13.1-amd64"


def fedora(root, family=True):
    """Without a file that says what a kernel gets."""
    found = trees.fedora(Machine(root, {
        "grub2-editenv": grub_editenv.run,
        "grub2-probe": lambda host, argv, stdin: Result(argv, 0, "xfs\n" if "--target=fs" in argv else "\n"),
    }))  # fmt: skip
    found.remove(bls.CMDLINE)
    if not family:
        found.remove(bls.FEDORA)
    return found


def rebuilt(host):
    for name in ("arch-linux", "arch-linux-fallback"):
        host.make("/efi/EFI/Linux/%s.efi" % name)


HOSTS = {
    "grubby": (fedora, "6.9.4-200.fc40.x86_64"),
    "bls": (lambda root: fedora(root, family=False), "6.9.4-200.fc40.x86_64"),
    "grub": (grub_host.GrubHost, "6.1.0-50-amd64"),
    "systemd_boot": (systemd_boot_host.Debian, systemd_boot_host.NEW),
    "systemd_boot_by_hand": (systemd_boot_host.Arch, systemd_boot_host.ArchUki.VERSION),
    "uki": (systemd_boot_host.DebianUki, systemd_boot_host.NEW),
    "uki_mkinitcpio": (systemd_boot_host.ArchUki, systemd_boot_host.ArchUki.VERSION),
    "uki_mkinitcpio_without_a_file": (
        lambda root: systemd_boot_host.ArchUki(root, sources=()), systemd_boot_host.ArchUki.VERSION),
}  # fmt: skip
ARRIVES = {
    "grubby": lambda host: trees.install(host, NEXT), "bls": lambda host: trees.install(host, NEXT),
    "systemd_boot": lambda host: host.install(NEXT), "uki": lambda host: host.install(NEXT),
    "uki_mkinitcpio": rebuilt, "uki_mkinitcpio_without_a_file": rebuilt,
}  # fmt: skip
"""What a package with a new kernel does, where its tool could take the running line."""


class Generator(FakeGenerator):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def images(self, host):
        return [{"kernel": self.kernel, "path": "/boot/initrd.img-" + self.kernel, "options": ("-x",)}], []


@pytest.fixture(params=sorted(HOSTS))
def host(request, tmp_path, monkeypatch):
    kind, kernel = HOSTS[request.param]
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    found = kind(str(tmp_path))
    found.name = request.param
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


def started(host):
    """The host was rebooted into its trial."""
    loader = cmdline.choose(host, "auto")[0]
    entry = [item for item in loader.view(host)["entries"] if item["id"].startswith(loaders.TRIAL_ID)][0]
    host.write(trial.BOOT_ID, "boot-2\n")
    loader.set_once(host, None)
    begin = [word for word in host.read("/proc/cmdline").split() if word.startswith(("BOOT_IMAGE=", "initrd="))]
    host.write("/proc/cmdline", " ".join(begin + entry["tokens"]) + "\n")


def test_it_is_running_after_the_reboot(host):
    run(host)
    started(host)
    functions.bind(host, functions.GPU["address"], "vfio-pci")
    result = run(host)
    assert (result["outcome"], result["because"]) == ("running", [])
    assert run(host, "confirmed")["confirmed"]


# -- kernels that come meanwhile -------------------------------------------------------------


def go(host, parameters=(), state="present", **more):
    """The module kernel_cmdline."""
    return cmdline.run(host, dict({"parameters": list(parameters), "state": state, "loader": "auto"}, **more), False)


def managed(host):
    return [entry for entry in cmdline.choose(host, "auto")[0].view(host)["entries"] if entry["managed"]]


def lasting(host):
    """What is there for a time, and what came of the reboot."""
    gone = ("/proc/cmdline", trial.BOOT_ID, record.REMOVED)
    return {path: what for path, what in tree(host).items() if path not in gone}


FLOWS = {
    "alone": [],
    "permanent": [lambda host: go(host, ["intel_iommu=on"])],
    "permanent without a fallback entry": [lambda host: go(host, ["intel_iommu=on"], fallback_entry=False)],
    "no parameters": [go],
    "nothing at all": [lambda host: go(host, fallback_entry=False)],
    "there and back": [lambda host: go(host, ["intel_iommu=on"]), lambda host: go(host, state="absent")],
}
"""What kernel_cmdline does between a trial that was confirmed, and its end."""


@pytest.mark.parametrize("flow", sorted(FLOWS))
def test_a_kernel_that_comes_in_a_trial_gets_the_ordinary_line(host, flow):
    """Until the trial is taken away, and whatever is made of it; then nothing of it is left."""
    before = lasting(host)
    run(host)
    started(host)
    sheltered = lasting(host)
    ARRIVES.get(host.name, lambda host_: None)(host)
    arrived = {path for path, what in lasting(host).items() if sheltered.get(path) != what}
    run(host, "confirmed")
    for step in FLOWS[flow]:
        step(host)
        assert step(host)["changed"] is False
    for dummy in range(2):
        for entry in managed(host):
            assert not [token for token in entry["tokens"] if token.startswith(("vfio_host=", "panic="))], entry["id"]
            assert ("intel_iommu=on" in entry["tokens"]) is flow.startswith("permanent")
        run(host, "absent")
        assert run(host, "absent")["changed"] is False
        for step in FLOWS[flow]:
            if flow != "there and back":
                assert step(host)["changed"] is False
    go(host, state="absent")
    after = lasting(host)
    assert {path: after.get(path) for path in before if path not in arrived} == {
        path: what for path, what in before.items() if path not in arrived}
    assert set(after) - set(before) <= arrived


def test_a_file_for_the_next_kernel_that_somebody_changes_in_the_trial_is_his(host):
    before = lasting(host)
    run(host)
    made = [path for path in ("/etc/kernel/cmdline",) if path in set(lasting(host)) - set(before)]
    assert bool(made) is (host.name in ARRIVES and host.name != "uki_mkinitcpio")
    for path in made:
        host.write(path, "root=/dev/mine\n")
    run(host, "absent")
    after = lasting(host)
    assert {path for path in after if path not in before} == set(made)
    assert {path: after[path] for path in made} == {path: b"root=/dev/mine\n" for path in made}
    assert all("/EFI/Linux/" in path for path in before if before[path] != after[path])  # all images get what a file says


def test_kernel_cmdline_knows_where_the_record_of_a_trial_is():
    assert record.TRIAL == trial.STATE


def test_a_record_of_kernel_cmdline_that_cannot_be_read_does_not_keep_a_trial(host):
    run(host)
    host.write(record.PATH, "{")
    if host.name.startswith("uki"):  # what its images are made of is not known then
        with pytest.raises(HostError, match="cmdline.json cannot be understood"):
            run(host, "absent")
        return
    assert run(host, "absent")["changed"] is True and not host.exists(trial.STATE)
    assert run(host, "absent")["changed"] is False


@pytest.mark.parametrize("first", [None, (), ("iommu=pt",)], ids=["fresh", "fallback", "parameters"])
def test_killed_anywhere_it_is_staged_or_taken_back(host, first):
    """Whenever the trial may start, a kernel that comes in it gets the ordinary line."""
    if host.name not in ("grubby", "systemd_boot", "uki_mkinitcpio_without_a_file"):
        pytest.skip("what the others do is theirs")
    loader = cmdline.choose(host, "auto")[0]
    if first is not None:
        go(host, first)
    before = lasting(host)
    points = 0
    for prepare, state in ((lambda: None, "staged"), (lambda: run(host), "absent")):
        point = 0
        while True:
            prepare()
            killed = kill_after(host, point)
            try:
                run(host, state)
            except Killed:
                pass
            alive(host)
            if loader.once(host) == loaders.TRIAL_ID:
                assert host.exists("/etc/kernel/cmdline"), point
            run(host, "absent")
            assert lasting(host) == before, point
            if not killed():
                break
            points, point = points + 1, point + 1
    assert points > 20
