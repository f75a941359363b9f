# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import (
    booted,
    cmdline,
    edits,
    entries,
    loader,
    record,
    tokens,
)
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import systemd_boot
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import loader_contract, uki_files
from ansible_collections.vfio.host.tests.unit.boot.systemd_boot_host import (
    LINE,
    LOADERENTRY,
    MACHINE,
    NEW,
    OLD,
    OTHER_SYSTEM,
    PLUGINS,
    Arch,
    ArchUki,
    Debian,
    DebianUki,
)

OURS = ["intel_iommu=on", "iommu=pt"]
ENTRIES = "/boot/efi/loader/entries/"
SHELLS = [shell for shell in (["sh"], ["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def debian(tmp_path):
    return Debian(str(tmp_path))


@pytest.fixture
def arch(tmp_path):
    return Arch(str(tmp_path))


def apply(host, wanted, owned=()):
    changes = systemd_boot.edits(host, wanted, list(owned))
    edits.write(host, changes)
    return changes


def go(host, parameters, state="present", check=False, **more):
    return cmdline.run(host, dict({"parameters": list(parameters), "state": state, "loader": "auto"}, **more), check)


def evidence(host):
    return systemd_boot.evidence(host, booted.booted(host))


def full(monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=0, f_bavail=1, f_frsize=1024, f_bsize=1024))


def default(host):
    return loader.default_of(systemd_boot.view(host))


def without_an_entry(host):
    """A kernel for which kernel-install has not made one; by hand, an entry without its kernel."""
    if isinstance(host, Debian):
        host.put("/lib/modules/6.13.0/modules.dep", "")
        host.put("/boot/vmlinuz-6.13.0", uki_files.kernel("6.13.0"))
    else:
        host.remove("/boot/vmlinuz-linux")


class Counted(Debian):
    """Every entry has a counter in its name."""

    def __init__(self, root):
        super().__init__(root, tries=3)


def debian_with_a_file(root):
    host = Debian(root)
    host.put("/etc/kernel/cmdline", LINE + "\n")
    return host


def arch_with_two_entries(root):
    host = Arch(root)
    host.put("/boot/loader/entries/mine.conf", host.read("/boot/loader/entries/arch.conf"))
    return host


HOSTS = {"Debian": Debian, "Arch": Arch, "Counted": Counted, "Debian, a file": debian_with_a_file, "Arch, two entries": arch_with_two_entries}
BY_HAND = (loader_contract.what_an_administrator_has_on_one_entry_stays_his,
           loader_contract.what_an_administrator_has_on_one_entry_outlives_a_killed_run)  # fmt: skip
PROMISES = [(kind, promise) for kind in list(HOSTS)[:3] for promise in loader_contract.PROMISES
            if kind != "Arch" or promise not in BY_HAND]  # fmt: skip
PROMISES += [(kind, promise) for kind in list(HOSTS)[3:] for promise in BY_HAND]


@pytest.mark.parametrize("kind, promise", PROMISES, ids=lambda value: getattr(value, "__name__", value))
def test_contract(tmp_path_factory, promise, kind):
    arrives = (lambda host: host.install("6.13.1-amd64")) if kind == "Debian" else None
    promise(lambda: HOSTS[kind](str(tmp_path_factory.mktemp("host"))), "systemd_boot", hindered=without_an_entry, arrives=arrives,
            stranger=stranger, by_hand=loader_contract.in_options)  # fmt: skip


def stranger(host):
    path = systemd_boot.partitions(host)[0] + "/loader/entries/stranger.conf"
    host.put(path, OTHER_SYSTEM.replace("sort-key   aaa", "sort-key   zzz"))
    return path


def test_an_entry_with_somebody_elses_that_comes_during_the_way_back(debian, monkeypatch):
    first = loader_contract.managed(debian, "systemd_boot")[0]
    loader_contract.in_options(debian, first, "iommu=pt")
    before = {entry["id"]: entry["tokens"] for entry in loader_contract.managed(debian, "systemd_boot")}
    go(debian, OURS)
    text, copy = debian.read(first["source"]), ENTRIES + "copy.conf"
    monkeypatch.setattr(systemd_boot, "generate", lambda host: host.exists(copy) or host.put(copy, text))
    go(debian, [], "absent")
    assert {entry["id"]: entry["tokens"] for entry in loader_contract.managed(debian, "systemd_boot")} == dict(
        before, copy=before[first["id"]])
    assert go(debian, [], "absent")["changed"] is False


# -- entries ---------------------------------------------------------------------------------


def test_only_the_options_of_the_ordinary_entries_change(debian):
    other = debian.read(ENTRIES + "other-9.9.9.conf")
    name = "%s%s-%s.conf" % (ENTRIES, MACHINE, NEW)
    before = debian.read(name)
    changes = apply(debian, OURS)
    assert {edit.path: edit.own for edit in changes} == {
        name: False, name.replace(NEW, OLD): False, "/etc/kernel/cmdline": False}
    machine = "systemd.machine_id=" + MACHINE
    assert debian.read(name) == before.replace(machine, machine + " intel_iommu=on iommu=pt")
    assert debian.read(ENTRIES + "other-9.9.9.conf") == other
    assert debian.read("/etc/kernel/cmdline") == LINE + " intel_iommu=on iommu=pt\n"
    assert debian.calls == []
    assert apply(debian, OURS, OURS) == []


def test_a_token_of_somebody_else_stays_when_ours_goes(debian):
    debian.put("/etc/kernel/cmdline", "# mine\nroot=UUID=1 iommu=pt\nquiet")
    name = "%s%s-%s.conf" % (ENTRIES, MACHINE, NEW)
    debian.put(name, debian.read(name).replace("quiet", "iommu=pt quiet"))
    before = loader_contract.tree(debian)
    apply(debian, OURS)
    assert debian.read("/etc/kernel/cmdline") == "# mine\nroot=UUID=1 iommu=pt\nquiet intel_iommu=on iommu=pt"
    apply(debian, [], OURS)
    assert loader_contract.tree(debian) == before


def test_where_somebody_else_has_all_of_them_ours_are_there_too(debian):
    debian.put("/etc/kernel/cmdline", LINE + " intel_iommu=on iommu=pt\n")
    before = loader_contract.tree(debian)
    apply(debian, OURS)
    assert debian.read("/etc/kernel/cmdline") == LINE + " intel_iommu=on iommu=pt intel_iommu=on iommu=pt\n"
    apply(debian, [], OURS)
    assert loader_contract.tree(debian) == before


def test_the_next_kernel_gets_ours_and_not_what_only_runs(debian):
    debian.put("/proc/cmdline", LINE + " vfio_host=trial panic=10\n")
    apply(debian, OURS)
    debian.install("6.13.1-amd64")
    lines = {entry["kernel"]: entry["tokens"] for entry in systemd_boot.view(debian)["entries"] if entry["managed"]}
    machine = ["systemd.machine_id=" + MACHINE]
    assert lines["6.13.1-amd64"] == LINE.split() + OURS + machine
    assert tokens.lacking(systemd_boot.configured(debian)[0], OURS) == []
    assert apply(debian, OURS, OURS) == []


def next_kernel(host):
    host.install("6.13.1-amd64")
    return [entry["tokens"] for entry in systemd_boot.view(host)["entries"] if entry["kernel"] == "6.13.1-amd64"][0]


def test_a_comment_for_the_next_kernel(debian):
    """systemd's plugin leaves it out, since 257."""
    debian.put("/etc/kernel/cmdline", "# iommu=off\n%s\n # not \"this\n" % LINE)
    before = loader_contract.tree(debian)
    go(debian, OURS)
    assert systemd_boot.configured(debian)[0] == LINE.split() + OURS
    go(debian, [], "absent")
    assert loader_contract.tree(debian) == before
    go(debian, OURS)
    assert next_kernel(debian) == LINE.split() + OURS + ["systemd.machine_id=" + MACHINE]


@pytest.mark.parametrize("path", ["/etc/kernel/cmdline", "/usr/lib/kernel/cmdline"])
@pytest.mark.parametrize("plugin", ["older", "overridden", "gone"])
def test_a_comment_that_the_next_kernel_gets_is_refused(debian, plugin, path):
    """Ours would be on its command line, and may be undone by what is said there to be wrong."""
    text = "%s\n # iommu=off\n" % LINE
    debian.put(path, text)
    name = PLUGINS + debian.PLUGIN
    if plugin == "overridden":
        name = "/etc/kernel/install.d/" + debian.PLUGIN
    debian.put(name, LOADERENTRY[252])
    if plugin == "gone":
        debian.remove(name)
    before = loader_contract.tree(debian)
    assert systemd_boot.configured(debian)[0] == text.split()
    for check in (True, False):
        with pytest.raises(HostError, match="%s, line 2: .*90-loaderentry.install.*# iommu=off" % path):
            go(debian, OURS, check=check)
        assert loader_contract.tree(debian) == before
    debian.put(PLUGINS + debian.PLUGIN, LOADERENTRY[257])
    debian.remove("/etc/kernel/install.d/" + debian.PLUGIN)
    go(debian, OURS)
    debian.put(PLUGINS + debian.PLUGIN, LOADERENTRY[252])
    go(debian, [], "absent")
    assert debian.read(path) == text
    assert next_kernel(debian) == text.split() + ["systemd.machine_id=" + MACHINE]


def test_the_command_line_of_the_vendor_is_taken_over(debian):
    debian.put("/usr/lib/kernel/cmdline", "root=/dev/vendor\n")
    apply(debian, OURS)
    assert debian.read("/etc/kernel/cmdline") == "root=/dev/vendor intel_iommu=on iommu=pt\n"
    assert debian.read("/usr/lib/kernel/cmdline") == "root=/dev/vendor\n"


def test_what_kernel_install_would_take_is_said(debian):
    debian.put("/proc/cmdline", "BOOT_IMAGE=/x initrd=\\y " + LINE)
    line, origin = systemd_boot.configured(debian)
    assert line == LINE.split()
    assert set(origin.values()) == {"/proc/cmdline"}


@pytest.mark.parametrize("kind", [Debian, DebianUki], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("once", ["vfio_host=trial panic=30 rd.shell=0 rd.emergency=reboot", "vfio_host=off"])
@pytest.mark.parametrize("first", [[], OURS], ids=["nothing", "parameters"])
def test_a_kernel_that_comes_in_an_entry_of_ours(tmp_path, kind, once, first):
    """Nothing is wanted, and the fallback is there: what it runs with is not for the next kernel."""
    host = kind(str(tmp_path))
    before = loader_contract.tree(host, ("/proc/cmdline",))
    version = "6.13.1-amd64"
    host.put("/proc/cmdline", "%s systemd.machine_id=%s %s\n" % (LINE, MACHINE, once))
    go(host, first)
    go(host, [])
    assert host.read("/etc/kernel/cmdline") == LINE + "\n"
    assert go(host, [])["changed"] is False
    images = {"/boot/vmlinuz-" + version: uki_files.kernel(version), "/boot/initrd.img-" + version: "i"}
    images["/lib/modules/%s/modules.dep" % version] = ""
    for path, data in images.items():
        host.put(path, data)
    host.kernel_install(["kernel-install", "add", version, "/boot/vmlinuz-" + version], {})
    result = go(host, [])
    lines = {entry["kernel"]: entry["tokens"] for entry in result["next_boot"] if entry["managed"]}
    assert lines[version] == LINE.split() + ["systemd.machine_id=" + MACHINE]
    go(host, OURS)
    assert host.read("/etc/kernel/cmdline") == "%s %s\n" % (LINE, " ".join(OURS))
    go(host, [], "absent")
    after = loader_contract.tree(host, ("/proc/cmdline",))
    assert {path: after[path] for path in before} == before
    assert all(version in path for path in set(after) - set(before))


def test_a_file_for_the_next_kernel_goes_with_the_fallback(debian):
    before = loader_contract.tree(debian)
    go(debian, [])
    assert debian.exists("/etc/kernel/cmdline")
    go(debian, [], fallback_entry=False)
    assert loader_contract.tree(debian) == before


def test_a_file_for_the_next_kernel_that_somebody_has_changed_since_stays(debian):
    go(debian, [])
    debian.put("/etc/kernel/cmdline", "root=/dev/mine\n")
    go(debian, [], "absent")
    assert debian.read("/etc/kernel/cmdline") == "root=/dev/mine\n"


HUGE = ["hugepagesz=1G", "hugepages=4", "hugepagesz=2M", "hugepages=8"]
EXCHANGED = ["hugepagesz=1G", "hugepages=8", "hugepagesz=2M", "hugepages=4"]


@pytest.mark.parametrize("kind", [Debian, Arch, DebianUki, ArchUki], ids=lambda kind: kind.__name__)
def test_numbers_of_huge_pages_are_exchanged(tmp_path, kind):
    """The same words in another order: a number belongs to the size before it."""
    host = kind(str(tmp_path))
    before = loader_contract.tree(host)
    go(host, HUGE)
    assert go(host, EXCHANGED)["changed"] is True
    found = [entry for entry in go(host, EXCHANGED)["next_boot"] if entry["managed"]]
    assert found and all(tokens.huge(entry["tokens"]) == {1 << 30: "8", 1 << 21: "4"} for entry in found)
    assert go(host, EXCHANGED)["changed"] is False
    go(host, [], "absent")
    assert loader_contract.tree(host) == before


@pytest.mark.parametrize("path", ["%s%s-%s.conf" % (ENTRIES, MACHINE, NEW), "/etc/kernel/cmdline",
                                  "/usr/lib/kernel/cmdline"])  # fmt: skip
def test_what_could_not_be_given_back_is_not_edited(debian, path):
    text = (debian.read(path) or LINE + " x=y\n").encode()
    debian.put(path, text.replace(b"trixie", b"tr\xf6xie").replace(b"x=y", b"x=\xf6"))
    before = loader_contract.tree(debian)
    for check in (True, False):
        with pytest.raises(HostError, match="%s is not UTF-8 text" % path):
            go(debian, OURS, check=check)
        assert loader_contract.tree(debian) == before
    go(debian, [], "absent")
    assert loader_contract.tree(debian) == before


def test_an_installed_kernel_without_an_entry_is_a_problem(debian):
    debian.remove("%s%s-%s.conf" % (ENTRIES, MACHINE, OLD))
    assert systemd_boot.view(debian)["problems"] == [
        "the installed kernel %s has no entry in loader/entries" % OLD]


def test_a_missing_file_is_a_problem_of_ours_only(debian):
    assert systemd_boot.view(debian)["problems"] == []  # the other system's kernel is not there
    debian.remove("/boot/efi/%s/%s/initrd.img-%s" % (MACHINE, OLD, OLD))
    assert [reason for reason in systemd_boot.view(debian)["problems"] if "does not exist" in reason]


def test_entries_with_boot_counting(debian):
    name = "%s%s-%s.conf" % (ENTRIES, MACHINE, NEW)
    debian.put(name.replace(".conf", "+2-1.conf"), debian.read(name))
    debian.remove(name)
    assert default(debian)["id"] == "%s-%s" % (MACHINE, NEW)
    apply(debian, OURS)
    assert tokens.lacking(default(debian)["tokens"], OURS) == []


def test_by_hand_nothing_but_the_entry_is_edited(arch):
    changes = apply(arch, OURS)
    assert [edit.path for edit in changes] == ["/boot/loader/entries/arch.conf"]
    assert systemd_boot.configured(arch)[0] is None
    seen = {entry["id"]: entry for entry in systemd_boot.view(arch)["entries"]}
    assert seen["arch"]["kernel"] == "6.17.8-arch1-1"
    assert seen["arch"]["initrds"] == ["/boot/intel-ucode.img", "/boot/initramfs-linux.img"]
    assert (seen["arch-fallback"]["managed"], seen["arch-fallback"]["recovery"]) == (False, True)
    assert seen["void"]["managed"] is False


# -- what booted -----------------------------------------------------------------------------


def test_evidence(debian, tmp_path_factory):
    found, against = evidence(debian)
    assert against == []
    assert found == ["systemd-boot 257.13-1~deb13u1 started this system",
                     "the booted entry is %s-%s.conf" % (MACHINE, NEW)]
    assert evidence(Arch(str(tmp_path_factory.mktemp("arch"))))[1] == []


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda host: host.text_variable("LoaderInfo", "GRUB 2.12"), "GRUB 2.12 started"),
        (lambda host: host.text_variable("StubInfo", "systemd-stub 257"), "unified kernel image"),
        (lambda host: host.text_variable("LoaderEntrySelected", "x.efi"), "unified kernel image"),
        (lambda host: host.put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=1"), "BOOT_IMAGE="),
        (lambda host: host.put("/etc/kernelstub/configuration", "{}"), "kernelstub"),
        (lambda host: host.put("/etc/kernel/proxmox-boot-uuids", "AAAA"), "proxmox-boot-tool"),
        (lambda host: host.put("/proc/cmdline", "root=UUID=1 ostree=/o"), "ostree"),
        (lambda host: host.put("/usr/bin/sdbootutil", ""), "sdbootutil owns"),
        (lambda host: host.put("/proc/self/mountinfo", ""), "no EFI partition"),
        (lambda host: host.text_variable("LoaderDevicePartUUID", "AAAA"), "is not among the mounted ones"),
        (lambda host: shutil.rmtree(host.path("/sys/firmware/efi")), "LoaderInfo"),
        (lambda host: [host.remove("%s%s-%s.conf" % (ENTRIES, MACHINE, one)) for one in (OLD, NEW)], "is one of this"),
    ],
)  # fmt: skip
def test_evidence_against(debian, change, reason):
    change(debian)
    assert [sentence for sentence in evidence(debian)[1] if reason in sentence]


def test_two_partitions_that_could_be_the_one(debian):
    debian.remove("%s/LoaderDevicePartUUID-%s" % (booted.EFIVARS, booted.LOADER_GUID))
    assert systemd_boot.partitions(debian) == ["/boot/efi"]
    debian.put("/mnt/EFI/systemd/systemd-bootx64.efi", "")
    debian.put("/proc/self/mountinfo", debian.read("/proc/self/mountinfo")
               + "61 22 254:9 / /mnt rw - vfat /dev/vdb1 rw\n")
    with pytest.raises(HostError, match="cannot be told"):
        systemd_boot.partitions(debian)


def test_a_stick_with_entries_is_not_read_and_xbootldr_is(debian):
    line = "%d 22 254:9 / %s rw - vfat /dev/%s rw\n"
    debian.put("/media/stick/loader/entries/x.conf", "linux /x\noptions root=UUID=1\n")
    debian.put("/boot/loader/entries/y.conf", "linux /vmlinuz-%s\noptions root=UUID=1\n" % NEW)
    debian.put("/proc/self/mountinfo", debian.read("/proc/self/mountinfo")
               + line % (61, "/media/stick", "sdb1") + line % (62, "/boot", "vda3"))
    assert systemd_boot.partitions(debian) == ["/boot/efi", "/boot"]
    assert [entry["managed"] for entry in systemd_boot.view(debian)["entries"] if entry["id"] == "y"] == [True]


# -- default ---------------------------------------------------------------------------------


def test_the_default_by_order(debian):
    debian.put("/boot/efi/loader/loader.conf", "timeout 3\n")
    assert default(debian)["id"] == "other-9.9.9"  # its sort key is the first
    debian.remove(ENTRIES + "other-9.9.9.conf")
    assert default(debian)["kernel"] == NEW


@pytest.mark.parametrize(
    "setting, variable, expected",
    [
        ("", "%s-%s.conf" % (MACHINE, OLD), OLD),
        ("default %s-%s.conf\n" % (MACHINE, OLD), None, OLD),
        ("default %s-%s*\n" % (MACHINE.upper(), OLD), None, OLD),
        ("default %s-%s.conf\n" % (MACHINE, NEW), "%s-%s.conf" % (MACHINE, OLD), OLD),
        ("default %s-*\n" % MACHINE, "gone.conf", NEW),
        ("default @saved\n", None, OLD),
        ("default auto-windows\n", None, None),
        ("default %s-%s\n" % (MACHINE, OLD), None, None),  # without .conf it depends on the loader's version
    ],
)
def test_the_default_as_it_is_chosen(debian, setting, variable, expected):
    debian.put("/boot/efi/loader/loader.conf", setting)
    debian.text_variable("LoaderEntryLastBooted", "%s-%s.conf" % (MACHINE, OLD))
    if variable:
        debian.text_variable("LoaderEntryDefault", variable)
    found = default(debian)
    assert (found and found["kernel"]) == expected
    assert bool(systemd_boot.view(debian)["problems"]) is (expected is None)


def test_an_entry_that_has_used_up_its_tries_is_not_the_default(debian):
    debian.put("/boot/efi/loader/loader.conf", "")
    debian.remove(ENTRIES + "other-9.9.9.conf")
    name = "%s%s-%s" % (ENTRIES, MACHINE, NEW)
    debian.put(name + "+0-3.conf", debian.read(name + ".conf"))
    debian.remove(name + ".conf")
    assert default(debian)["kernel"] == OLD


@pytest.mark.parametrize("info", ["systemd-boot 257", "systemd-boot 249"])
@pytest.mark.parametrize("keys", [True, False])
def test_our_own_entries_are_never_first(debian, keys, info):
    debian.text_variable("LoaderInfo", info)
    debian.put("/boot/efi/loader/loader.conf", "")
    debian.remove(ENTRIES + "other-9.9.9.conf")
    if not keys:
        for version in (OLD, NEW):
            name = "%s%s-%s.conf" % (ENTRIES, MACHINE, version)
            debian.put(name, debian.read(name).replace("sort-key", "#"))
    edits.write(debian, systemd_boot.fallback(debian, []))
    edits.write(debian, systemd_boot.trial(debian, NEW, "/boot/vfio-host-trial-x.img", ["a"]))
    order = [entry["id"] for entry in systemd_boot.view(debian)["entries"]]
    assert len(order) == 5
    assert order[:2] == ["%s-%s" % (MACHINE, NEW), "%s-%s" % (MACHINE, OLD)]
    assert default(debian)["kernel"] == NEW


RECORDED = ["u.efi", MACHINE + "-2.conf", MACHINE + "-1.conf", "-vfio-host-trial.conf",
            "-vfio-host-fallback-2.conf", "-vfio-host-fallback-1.conf"]  # fmt: skip
"""LoaderEntries as systemd-boot 252.39-1~deb12u2 and 257.13-1~deb13u1 left it in a machine with these entries."""


@pytest.mark.parametrize("key", ["debian", None])
def test_the_order_is_the_one_that_the_real_loader_has(debian, key):
    shutil.rmtree(debian.path(ENTRIES))
    for name in RECORDED:
        version = name.rsplit("-", 1)[1][0] if "trial" not in name and ".conf" in name else "2"
        text = "title D\nversion %s\nlinux /linux\ninitrd /i.img\noptions quiet\n" % version
        if name.startswith(MACHINE) and key:
            text += "sort-key %s\nmachine-id %s\n" % (key, MACHINE)
        if name.endswith(".conf"):
            debian.put(ENTRIES + name, text)
        elif key:
            debian.put("/boot/efi/EFI/Linux/" + name, uki_files.uki("6", "t=uki"))
    assert [item["id"] for item in systemd_boot.read_entries(debian)] == [
        name for name in RECORDED if key or name != "u.efi"]


# -- fallback --------------------------------------------------------------------------------


def test_the_fallback_entry(debian):
    apply(debian, OURS)
    edits.write(debian, systemd_boot.fallback(debian, OURS))
    assert systemd_boot.fallback(debian, OURS) == []
    assert debian.read("%s-vfio-host-fallback-%s.conf" % (ENTRIES, NEW)) == (
        "# Managed by the vfio.host collection. Do not edit: it is replaced.\n"
        "title Debian GNU/Linux 13 (trixie) (without vfio)\n"
        "version %s\nlinux /%s/%s/linux\ninitrd /%s/%s/initrd.img-%s\n"
        "options %s systemd.machine_id=%s vfio_host=off\n" % (NEW, MACHINE, NEW, MACHINE, NEW, NEW, LINE, MACHINE)
    )
    assert os.stat(debian.path(systemd_boot.PLUGIN)).st_mode & 0o777 == 0o755
    debian.remove("/boot/efi/%s/%s/linux" % (MACHINE, NEW))
    problems = systemd_boot.view(debian)["problems"]
    assert len([reason for reason in problems if "does not exist" in reason and "fallback" in reason]) == 1


def test_a_fallback_goes_with_its_kernel(debian):
    edits.write(debian, systemd_boot.fallback(debian, OURS))
    debian.remove("%s%s-%s.conf" % (ENTRIES, MACHINE, OLD))
    changes = systemd_boot.fallback(debian, OURS)
    assert [(edit.path, edit.after) for edit in changes] == [
        ("%s-vfio-host-fallback-%s.conf" % (ENTRIES, OLD), None)]


def test_a_plugin_of_somebody_else_is_not_replaced(debian):
    debian.put(systemd_boot.PLUGIN, "#!/bin/sh\n")
    with pytest.raises(HostError, match="move it away"):
        systemd_boot.fallback(debian, OURS)
    assert systemd_boot.fallback(debian, None) == []


def run_plugin(host, shell, command, layout="bls", root="/boot/efi"):
    """The plugin as kernel-install runs it, the absolute paths in it led into the recorded tree."""
    text = systemd_boot.PLUGIN_TEXT
    for path in (record.PATH, "/etc/kernel/cmdline", "/etc/os-release"):
        assert path in text
        text = text.replace(path, host.root + path)
    environment = {
        "PATH": os.environ["PATH"], "KERNEL_INSTALL_LAYOUT": layout, "KERNEL_INSTALL_ENTRY_TOKEN": MACHINE,
        "KERNEL_INSTALL_MACHINE_ID": MACHINE, "KERNEL_INSTALL_BOOT_ROOT": host.root + root,
    }  # fmt: skip
    argv = shell + ["-c", text, "95-vfio-host.install", command, NEW, "/entry", "/boot/vmlinuz"]
    found = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("rest", [
    "", " -- quux", " x=\"a b\" iommu=pt vfio_host=trial *",
    " panic=5 vfio_host=trial panic=30 systemd.watchdog_sec=60 rd.shell=0 rd.emergency=reboot panic= panic=9",
    " vfio_host=trial panic=3x panic=9 vfio_host=trial vfio_host=off panic=7 rd.shell=0",
])  # fmt: skip
def test_the_plugin_writes_what_the_backend_does(debian, shell, rest):
    misleading = {"/x": {"text": ' "tokens": [\n  "quiet"\n', "mode": 1, "after": ""}}
    record.write(debian, record.new("systemd_boot", OURS, False, misleading))
    apply(debian, OURS)
    name = "%s%s-%s.conf" % (ENTRIES, MACHINE, NEW)
    debian.put(name, debian.read(name).replace(" console", rest + " console") if "--" not in rest
               else debian.read(name).replace("iommu=pt", "iommu=pt" + rest))
    edits.write(debian, systemd_boot.fallback(debian, OURS))
    path = "%s-vfio-host-fallback-%s.conf" % (ENTRIES, NEW)
    wanted = debian.read(path)
    assert loader.OFF in wanted and "intel_iommu" not in wanted and "panic=30" not in wanted
    assert wanted.count("panic=") == rest.count("panic=") - rest.count("panic=30")
    debian.remove(path)
    run_plugin(debian, shell, "add")
    assert debian.read(path) == wanted
    run_plugin(debian, shell, "remove")
    assert not debian.exists(path)
    assert not [one for one in debian.listdir(ENTRIES) if one.startswith(".")]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_plugin_with_unified_kernel_images(tmp_path, shell):
    from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import uki

    host = DebianUki(str(tmp_path))
    record.write(host, record.new("uki", OURS, False, {}))
    edits.write(host, uki.edits(host, OURS, []))
    uki.generate(host)
    edits.write(host, uki.fallback(host, OURS))
    path = "/efi/loader/entries/-vfio-host-fallback-%s.conf" % NEW
    wanted = host.read(path)
    assert "efi /EFI/Linux/%s-%s.efi\n" % (MACHINE, NEW) in wanted
    host.remove(path)
    run_plugin(host, shell, "add", layout="uki", root="/efi")
    assert host.read(path) == wanted


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("stale", [True, False])
def test_the_plugin_makes_no_fallback_for_an_image_with_a_counter(tmp_path, shell, stale):
    from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import uki

    host = DebianUki(str(tmp_path), tries=3)
    host.rename("/efi/EFI/Linux/%s-%s+3.efi" % (MACHINE, OLD), good=True)
    go(host, OURS)
    path = "/efi/loader/entries/-vfio-host-fallback-%s.conf" % NEW
    if stale:  # of the same kernel, before it was installed once more
        host.put(path, "title x\n")
    run_plugin(host, shell, "add", layout="uki", root="/efi")
    assert not host.exists(path)
    assert go(host, OURS)["changed"] is False and uki.view(host)["problems"] == []


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_an_entry_with_a_counter_has_a_fallback(tmp_path, shell):
    """What it loads keeps its name, unlike an image."""
    host = Debian(str(tmp_path), tries=3)
    go(host, OURS)
    path = "%s-vfio-host-fallback-%s.conf" % (ENTRIES, NEW)
    wanted = host.read(path)
    assert "linux /%s/%s/linux\n" % (MACHINE, NEW) in wanted
    entry = "%s%s-%s+3.conf" % (ENTRIES, MACHINE, NEW)
    for good in (False, True):
        host.remove(path)
        run_plugin(host, shell, "add")
        assert host.read(path) == wanted
        entry = host.rename(entry, good)
        assert systemd_boot.view(host)["problems"] == []
        assert go(host, OURS)["changed"] is False
    go(host, [], "absent")
    assert not [name for name in host.listdir(ENTRIES) if "vfio-host" in name]


def test_without_a_record_the_plugin_still_switches_off(debian):
    apply(debian, OURS)
    run_plugin(debian, ["sh"], "add")
    assert "intel_iommu=on iommu=pt vfio_host=off\n" in debian.read("%s-vfio-host-fallback-%s.conf" % (ENTRIES, NEW))


# -- images ----------------------------------------------------------------------------------


def test_images_that_were_built_get_onto_the_partition(debian):
    target = "/boot/efi/%s/%s/initrd.img-%s" % (MACHINE, NEW, NEW)
    old = debian.read("/boot/efi/%s/%s/initrd.img-%s" % (MACHINE, OLD, OLD))
    for version in (OLD, NEW):
        debian.put("/boot/initrd.img-" + version, "new " + version)
    systemd_boot.refresh(debian, [NEW])
    assert debian.read(target) == "new " + NEW
    assert debian.read(target.replace(NEW, OLD)) == old
    before = os.stat(debian.path(target)).st_ino
    systemd_boot.refresh(debian, [NEW])
    assert os.stat(debian.path(target)).st_ino == before
    assert debian.listdir(os.path.dirname(target)) == ["initrd.img-" + NEW, "linux"]


def test_a_partition_that_is_full_is_seen_before_anything_is_copied(debian, monkeypatch):
    debian.put("/boot/initrd.img-" + NEW, "new")
    before = loader_contract.tree(debian)
    full(monkeypatch)
    with pytest.raises(HostError, match="KiB free"):
        systemd_boot.refresh(debian, [NEW])
    assert loader_contract.tree(debian) == before


def test_images_that_are_used_where_they_are_built(arch):
    before = loader_contract.tree(arch)
    systemd_boot.refresh(arch, ["6.17.8-arch1-1"])
    assert loader_contract.tree(arch) == before


# -- trial -----------------------------------------------------------------------------------


def test_a_trial_entry_beside_the_others(debian):
    before = loader_contract.tree(debian)
    image = "/boot/vfio-host-trial-%s.img" % NEW
    debian.put(image, "trial")
    line = LINE.split() + ["intel_iommu=on", loader.TRIAL]
    assert systemd_boot.trial_obstacles(debian) == []
    assert systemd_boot.trial_binary(debian, NEW, image, line, check=True) is True
    assert systemd_boot.trial_binary(debian, NEW, image, line) is True
    assert systemd_boot.trial_binary(debian, NEW, image, line, check=True) is False
    edits.write(debian, systemd_boot.trial(debian, NEW, image, line))
    assert systemd_boot.trial(debian, NEW, image, line) == []
    found = [entry for entry in systemd_boot.view(debian)["entries"] if entry["id"] == loader.TRIAL_ID]
    assert [(entry["tokens"], entry["default"], entry["managed"], entry["kernel"]) for entry in found] == [
        (line, False, False, NEW)]
    assert debian.read(found[0]["initrds"][-1]) == "trial"
    assert systemd_boot.view(debian)["problems"] == []
    assert default(debian)["kernel"] == NEW
    edits.write(debian, systemd_boot.trial(debian, None, None, []))
    assert systemd_boot.trial_binary(debian, None, None, [], check=True) is True
    systemd_boot.trial_binary(debian, None, None, [])
    debian.remove(image)
    assert loader_contract.tree(debian) == before


def test_a_trial_image_on_the_partition_is_not_copied(arch):
    arch.put("/boot/vfio-host-trial-6.img", "trial")
    assert systemd_boot.trial_binary(arch, "6.17.8-arch1-1", "/boot/vfio-host-trial-6.img", ["a"]) is False
    edits.write(arch, systemd_boot.trial(arch, "6.17.8-arch1-1", "/boot/vfio-host-trial-6.img", ["a"]))
    text = arch.read("/boot/loader/entries/-vfio-host-trial.conf")
    assert "initrd /intel-ucode.img\ninitrd /vfio-host-trial-6.img\noptions a\n" in text


def test_the_choice_for_one_boot(debian):
    assert systemd_boot.once(debian) is None
    with pytest.raises(HostError, match="no entry"):
        systemd_boot.set_once(debian, loader.TRIAL_ID)
    edits.write(debian, systemd_boot.trial(debian, NEW, "/x.img", ["a"]))
    systemd_boot.set_once(debian, loader.TRIAL_ID)
    assert debian.calls == [["bootctl", "set-oneshot", "--", "-vfio-host-trial.conf"]]
    assert systemd_boot.once(debian) == loader.TRIAL_ID
    systemd_boot.set_once(debian, None)
    assert systemd_boot.once(debian) is None


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda host: host.variable("LoaderFeatures", (0x7).to_bytes(8, "little")), "cannot|does not say"),
        (lambda host: host.remove("%s/LoaderFeatures-%s" % (booted.EFIVARS, booted.LOADER_GUID)), "does not say"),
        (lambda host: host.remove("/usr/bin/bootctl"), "bootctl is not"),
        (lambda host: shutil.rmtree(host.path(booted.EFIVARS)), "no EFI variables"),
        (lambda host: host.put("/proc/self/mountinfo", host.read("/proc/self/mountinfo").replace(
            "efivarfs rw", "efivarfs ro")), "read-only"),
        (lambda host: host.put("/boot/efi/loader/loader.conf", "default other*\n"), "default entry"),
    ],
)  # fmt: skip
def test_trial_obstacles(debian, change, reason):
    import re

    change(debian)
    assert [sentence for sentence in systemd_boot.trial_obstacles(debian) if re.search(reason, sentence)]


def test_damaged_entries_are_no_crash(debian):
    debian.put(ENTRIES + "bad.conf", b"\xff\xfe\0linux\n\n=\noptions")
    debian.put("/boot/efi/EFI/Linux/x.efi", "MZ")
    assert systemd_boot.view(debian)["problems"] == []
    assert entries.parse(debian.read(ENTRIES + "bad.conf"))
