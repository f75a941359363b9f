# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import booted, cmdline, edits, loader, pe, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import systemd_boot, uki
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import cpio, loader_contract, uki_files
from ansible_collections.vfio.host.tests.unit.boot.systemd_boot_host import (
    LINE,
    MACHINE,
    NEW,
    OLD,
    PLUGINS,
    UKIFY,
    ArchUki,
    DebianUki,
)

OURS = ["intel_iommu=on", "iommu=pt"]
IMAGE = "/efi/EFI/Linux/%s-%s.efi" % (MACHINE, NEW)
COUNTED = IMAGE.replace(".efi", "+3.efi")
DROP_IN_LINE = "intel_iommu=on iommu=pt\n"


def broken(host):
    def fail(argv, env):
        host.put((env.get("BOOT_ROOT") or uki.ASIDE) + "/EFI/Linux/half.efi", "MZ")
        return Result(argv, 1, "", "no space left")

    host.fail = fail


def debian_with_a_file(root):
    host = DebianUki(root)
    host.put("/etc/kernel/cmdline", LINE + "\n")
    return host


def one_counted(root):
    """The newest kernel has not been started yet."""
    host = DebianUki(root, tries=3)
    host.rename(COUNTED.replace(NEW, OLD), good=True)
    return host


HOSTS = {
    "kernel-install": DebianUki,
    "mkinitcpio": ArchUki,
    "kernel-install, a file": debian_with_a_file,
    "kernel-install, counted": lambda root: DebianUki(root, tries=3),
    "kernel-install, one counted": lambda root: one_counted(root),  # pylint: disable=unnecessary-lambda
    "mkinitcpio, drop-ins only": lambda root: ArchUki(root, sources=(("/etc/cmdline.d/root.conf", LINE + "\n"),)),
    "mkinitcpio, no file": lambda root: ArchUki(root, sources=()),
    "mkinitcpio before drop-ins": lambda root: ArchUki(root, script="/etc/kernel/cmdline"),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def debian(tmp_path):
    return DebianUki(str(tmp_path))


@pytest.fixture
def arch(tmp_path):
    return ArchUki(str(tmp_path))


def apply(host, wanted, owned=()):
    edits.write(host, uki.edits(host, wanted, list(owned)))
    uki.generate(host)


def evidence(host):
    return uki.evidence(host, booted.booted(host))


def secure_boot(host):
    host.put("%s/SecureBoot-%s" % (booted.EFIVARS, booted.GLOBAL_GUID), b"\x06\0\0\0\x01")


def hindered(host):
    """A kernel for which nobody has made an image; of mkinitcpio's nothing is known."""
    if not isinstance(host, DebianUki):
        pytest.skip("nothing is known that cannot be mended")
    host.put("/lib/modules/6.13.0/vmlinuz", uki_files.kernel("6.13.0"))


def arrives(host):
    """A new kernel; that of Arch is in the same images."""
    if isinstance(host, DebianUki):
        host.install("6.13.1-amd64")
    else:
        for name in ("arch-linux", "arch-linux-fallback"):
            host.make("/efi/EFI/Linux/%s.efi" % name)


def by_hand(host, entry, text):
    """An image that somebody has built with a line of its own. Of a file that says it for all nobody can."""
    if uki._dictated(host):
        pytest.skip("all images are made with one command line")
    image = pe.uki(host, entry["image"])
    line, initrd = [pe.read_section(host, entry["image"], name) for name in (".cmdline", ".initrd")]
    line = line.decode().rstrip("\0").replace(" quiet", " quiet " + text)
    host.put(entry["image"], uki_files.uki(image["uname"], line, initrd=initrd, os_id=image["osrel"]["ID"]))


PROMISES = [(kind, promise) for kind in list(HOSTS)[:2] for promise in loader_contract.PROMISES]
PROMISES += [(kind, promise) for kind in list(HOSTS)[2:] for promise in (
    loader_contract.comes_back, loader_contract.applies_once, loader_contract.changes_its_mind,
    loader_contract.comes_back_after_a_reboot, loader_contract.what_runs_once_gets_nowhere,
    loader_contract.what_runs_once_is_not_for_the_next_kernel,
    loader_contract.what_only_ours_say_is_told_of_an_ordinary_entry,
    loader_contract.says_what_is_there_without_a_fallback_entry)]  # fmt: skip
PROMISES += [("mkinitcpio, no file", loader_contract.a_killed_run_can_be_taken_back),
             ("mkinitcpio, no file", loader_contract.a_killed_way_back_is_finished_by_the_next),
             ("mkinitcpio, no file", loader_contract.what_an_administrator_has_on_one_entry_stays_his)]


@pytest.mark.parametrize("kind, promise", PROMISES, ids=lambda value: getattr(value, "__name__", value))
def test_contract(tmp_path_factory, promise, kind):
    promise(lambda: HOSTS[kind](str(tmp_path_factory.mktemp("host"))), "uki", broken=broken, hindered=hindered,
            arrives=arrives, stranger=stranger, by_hand=by_hand)  # fmt: skip


def stranger(host):
    path = "/efi/EFI/Linux/ffffffffffffffffffffffffffffffff-9.9.9.efi"
    host.put(path, uki_files.uki("9.9.9", "root=UUID=2 ro", os_id="aaa"))
    return path


# -- building --------------------------------------------------------------------------------


def test_images_are_built_aside_for_each_kernel(debian):
    apply(debian, OURS)
    assert [argv[:3] for argv in debian.calls] == [
        ["kernel-install", "--entry-token=literal:" + MACHINE, "add"]] * 2
    for version in (OLD, NEW):
        assert debian.uki(version)["cmdline"] == "%s systemd.machine_id=%s intel_iommu=on iommu=pt" % (LINE, MACHINE)
    assert not debian.exists(uki.ASIDE)
    debian.calls.clear()
    apply(debian, OURS, OURS)
    assert debian.calls == []  # what is right is not built again


def wrong(what):
    """A generator that succeeds and makes something else."""
    def make(host):
        def run(argv, env):
            version = [word for word in argv if not word.startswith("-")][2]
            line = host.line(env)
            image = {
                "line": uki_files.uki(version, line.replace(" iommu=pt", "")),
                "version": uki_files.uki("6.0", line),
                "initramfs": uki_files.uki(version, line, initrd=b""),
                "cut": uki_files.uki(version, line)[:-600],
                "nothing": None,
            }[what]
            if image is not None:
                host.put("%s/EFI/Linux/x.efi" % env["BOOT_ROOT"], image)
            return Result(argv, 0, "", "all is well")

        host.fail = run

    return make


@pytest.mark.parametrize(
    "what, reason",
    [("line", "its command line is"), ("version", "for the kernel 6.0"), ("initramfs", "no initramfs"),
     ("cut", "ends in the middle"), ("nothing", "made no image")],
)  # fmt: skip
def test_an_image_that_is_not_as_wanted_never_gets_in_place(debian, what, reason):
    wrong(what)(debian)
    before = {version: debian.read_bytes(IMAGE.replace(NEW, version)) for version in (OLD, NEW)}
    with pytest.raises(HostError, match=reason):
        apply(debian, OURS)
    assert before == {version: debian.read_bytes(IMAGE.replace(NEW, version)) for version in (OLD, NEW)}
    assert debian.listdir("/efi/EFI/Linux") == sorted("%s-%s.efi" % (MACHINE, version) for version in (OLD, NEW))


def test_a_partition_that_is_full_is_seen_before_anything_is_built(debian, monkeypatch):
    edits.write(debian, uki.edits(debian, OURS, []))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=0, f_bavail=1, f_frsize=1024))
    with pytest.raises(HostError, match="KiB free"):
        uki.generate(debian)
    assert debian.calls == []


def test_with_secure_boot_an_image_has_to_be_signed(debian, monkeypatch):
    secure_boot(debian)
    with pytest.raises(HostError, match="not signed"):
        apply(debian, OURS)
    monkeypatch.setattr(pe, "signed", lambda host, path: True)
    apply(debian, OURS, OURS)
    assert "iommu=pt" in debian.uki(NEW)["cmdline"]


def test_a_signed_image_is_not_replaced_by_one_that_is_not(debian, monkeypatch):
    monkeypatch.setattr(pe, "signed", lambda host, path: path == IMAGE)
    with pytest.raises(HostError, match="not signed"):
        apply(debian, OURS)


def test_a_kernel_that_is_not_installed_has_no_new_image(debian):
    debian.remove("/boot/vmlinuz-" + OLD)
    with pytest.raises(HostError, match="is not installed"):
        apply(debian, OURS)


def test_new_images_get_into_the_uki(debian):
    uki.refresh(debian, [OLD, NEW])
    assert debian.calls == []
    debian.put("/boot/initrd.img-" + NEW, "initrd with vfio")
    uki.refresh(debian, [OLD])
    assert debian.calls == []
    uki.refresh(debian, [OLD, NEW])
    assert len(debian.calls) == 1
    assert pe.read_section(debian, IMAGE, ".initrd") == b"initrd with vfio"


def test_an_initramfs_behind_others_is_found(debian):
    data = b"microcode" + b"\0" * 3 + b"initrd " + NEW.encode() + b"\0"
    debian.put(IMAGE, uki_files.uki(NEW, LINE, initrd=data))
    uki.refresh(debian, [NEW])
    assert debian.calls == []


# -- where no file says the command line -----------------------------------------------------


TRIAL_LINE = LINE + " vfio_host=trial panic=30 rd.shell=0 rd.emergency=reboot\n"


def run(host, parameters, state="present", **more):
    return cmdline.run(host, dict({"parameters": list(parameters), "state": state, "loader": "auto"}, **more), False)


def lines(host):
    return {version: host.uki(version)["cmdline"].split() for version in (OLD, NEW)}


def with_lines_of_their_own(host):
    host.put(IMAGE.replace(NEW, OLD), uki_files.uki(
        OLD, " old=1 " + LINE, initrd=host.read_bytes("/boot/initrd.img-" + OLD)))
    host.put("/etc/kernel/install.conf", "# layout is below\n")
    host.put("/usr/lib/kernel/install.conf.d/uki.conf", "layout=uki\nuki_generator=ukify\n")
    host.put("/etc/kernel/uki.conf", "[UKI]\n")


def test_each_image_keeps_its_own_line(debian):
    with_lines_of_their_own(debian)
    debian.put(IMAGE.replace(NEW, OLD), uki_files.uki(OLD, " BOOT_IMAGE=/x old=1 " + LINE + " systemd.machine_id=" + MACHINE))
    before = lines(debian)
    shown = run(debian, OURS)["diff"][1]["after"]
    assert "old=1 %s systemd.machine_id=%s intel_iommu=on iommu=pt" % (LINE, MACHINE) in shown
    assert lines(debian) == {version: line + OURS for version, line in before.items()}
    assert debian.read("/etc/kernel/cmdline") == "%s %s\n" % (LINE, " ".join(OURS))
    debian.put("/proc/cmdline", TRIAL_LINE)
    run(debian, (), "absent")
    assert lines(debian) == before
    assert not debian.exists("/etc/kernel/cmdline") and not debian.exists("/var/lib/vfio-host")


def test_an_image_with_somebody_elses_that_comes_during_the_way_back(debian, monkeypatch):
    by_hand(debian, {"image": IMAGE}, "iommu=pt")
    before = lines(debian)
    run(debian, OURS)
    line, new, generate = debian.uki(NEW)["cmdline"], IMAGE.replace(NEW, "6.13"), uki.generate

    def one_comes(host):
        if not host.exists(new):
            for path, data in {"/lib/modules/6.13/modules.dep": "", "/boot/vmlinuz-6.13": uki_files.kernel("6.13"),
                               "/boot/initrd.img-6.13": "i", new: uki_files.uki("6.13", line)}.items():  # fmt: skip
                host.put(path, data)
        generate(host)

    monkeypatch.setattr(uki, "generate", one_comes)
    run(debian, (), "absent")
    assert lines(debian) == before
    assert debian.uki("6.13")["cmdline"].split() == before[NEW]
    assert not debian.exists("/var/lib/vfio-host")


def test_a_file_that_an_administrator_has_taken_over_says_it_for_all(debian):
    with_lines_of_their_own(debian)
    run(debian, OURS)
    debian.put("/etc/kernel/cmdline", debian.read("/etc/kernel/cmdline").replace("quiet", "quiet mine=1"))
    run(debian, OURS[:1])
    for line in lines(debian).values():
        assert line == (LINE + " mine=1 intel_iommu=on systemd.machine_id=" + MACHINE).split()
    run(debian, (), "absent")
    assert debian.read("/etc/kernel/cmdline") == LINE + " mine=1\n"


@pytest.mark.parametrize("once", ["vfio_host=trial panic=30", "vfio_host=off"])
def test_an_image_with_the_line_of_a_trial_is_built_anew_once_a_file_says_its_line(debian, once):
    debian.put("/proc/cmdline", "%s %s\n" % (LINE, once))
    debian.install("6.13.1-amd64")
    debian.put("/etc/kernel/cmdline", "%s %s\n" % (LINE, once))
    for dummy in range(2):
        with pytest.raises(HostError, match="nothing was changed: /etc/kernel/cmdline has %s: " % once.split()[0]):
            run(debian, OURS)
    debian.put("/etc/kernel/cmdline", LINE + "\n")
    assert run(debian, OURS)["changed"] is True and run(debian, OURS)["changed"] is False
    for entry in uki.view(debian)["entries"]:
        if entry["managed"]:
            assert entry["tokens"] == LINE.split() + OURS + ["systemd.machine_id=" + MACHINE]


def test_kernel_install_that_does_not_take_a_line_for_one_image(debian):
    with_lines_of_their_own(debian)
    before = loader_contract.tree(debian)
    debian.fail = lambda argv, env: debian.kernel_install(argv, {"BOOT_ROOT": env["BOOT_ROOT"]})
    debian.put("/etc/kernel/install.conf", "layout=uki\n")
    with pytest.raises(HostError, match="write it to /etc/kernel/cmdline"):
        run(debian, OURS)
    debian.put("/etc/kernel/install.conf", "# layout is below\n")
    assert loader_contract.tree(debian) == before


COMMENTED = "# console=ttyS1\n" + LINE + "\n"


def test_a_comment_that_ukify_gets_is_refused(debian):
    """Until 2026 systemd's plugin takes every word of the file."""
    debian.put("/etc/kernel/cmdline", COMMENTED)
    before = loader_contract.tree(debian)
    for check in (True, False):
        with pytest.raises(HostError, match="/etc/kernel/cmdline, line 1: .*60-ukify.install.*# console=ttyS1"):
            cmdline.run(debian, {"parameters": OURS, "state": "present", "loader": "auto"}, check)
        assert loader_contract.tree(debian) == before
    assert uki.configured(debian)[0] == COMMENTED.split()


def test_what_is_said_in_a_comment_that_came_later_is_built_on_the_way_back(debian):
    debian.put("/etc/kernel/cmdline", LINE + "\n")
    run(debian, OURS)
    debian.put("/etc/kernel/cmdline", "# console=ttyS1\n" + debian.read("/etc/kernel/cmdline"))
    run(debian, (), "absent")
    assert debian.read("/etc/kernel/cmdline") == COMMENTED
    assert lines(debian)[NEW] == COMMENTED.split() + ["systemd.machine_id=" + MACHINE]
    assert run(debian, (), "absent")["changed"] is False
    assert run(debian, ())["changed"] is True
    assert run(debian, ())["changed"] is False


def test_a_comment_that_ukify_leaves_out(debian):
    debian.put(PLUGINS + debian.PLUGIN, UKIFY[261])
    debian.put("/etc/kernel/cmdline", COMMENTED)
    run(debian, OURS)
    assert lines(debian)[NEW] == LINE.split() + OURS + ["systemd.machine_id=" + MACHINE]
    debian.put("/etc/kernel/cmdline", " " + debian.read("/etc/kernel/cmdline"))
    with pytest.raises(HostError, match="line 1: .*60-ukify.install"):
        run(debian, OURS)


@pytest.mark.parametrize("path", ["/etc/kernel/cmdline", "/etc/cmdline.d/50-mine.conf"])
def test_a_comment_and_mkinitcpio(tmp_path, path):
    """It leaves out lines that begin with the sign, and no others."""
    host = ArchUki(str(tmp_path), sources=(("/etc/kernel/cmdline", LINE + "\n"), (path, COMMENTED)))
    run(host, OURS)
    assert "ttyS1" not in pe.text(host, "/efi/EFI/Linux/arch-linux.efi", ".cmdline")
    run(host, (), "absent")
    host.put(path, " " + COMMENTED)
    assert "console=ttyS1" in uki.configured(host)[0]
    before = loader_contract.tree(host)
    for check in (True, False):
        with pytest.raises(HostError, match="%s, line 1: .*mkinitcpio.* # console=ttyS1" % path):
            cmdline.run(host, {"parameters": OURS, "state": "present", "loader": "auto"}, check)
        assert loader_contract.tree(host) == before


def test_a_device_tree_needs_a_file(debian):
    debian.put("/etc/kernel/devicetree", "x.dtb\n")
    assert [reason for reason in uki.unusable(debian) if "device tree" in reason]
    debian.put("/etc/kernel/cmdline", LINE + "\n")
    assert uki.unusable(debian) == []


@pytest.mark.parametrize("kind", ["kernel-install", "mkinitcpio, no file"])
def test_a_new_initramfs_does_not_bring_the_running_line(tmp_path, kind):
    host = HOSTS[kind](str(tmp_path))
    kernels = [NEW] if kind == "kernel-install" else [ArchUki.VERSION]
    before = [entry["tokens"] for entry in uki.view(host)["entries"]]
    host.put("/proc/cmdline", TRIAL_LINE)
    host.put("/boot/initrd.img-" + NEW, "another")
    uki.refresh(host, kernels)
    assert host.calls
    assert [entry["tokens"] for entry in uki.view(host)["entries"]] == before


@pytest.mark.parametrize("options", ['"-S autodetect"', "(-S autodetect)"])
def test_mkinitcpio_takes_a_line_beside_other_options(tmp_path, monkeypatch, options):
    monkeypatch.setattr(ArchUki, "PRESET", ArchUki.PRESET.replace('"-S autodetect"', options))
    host = ArchUki(str(tmp_path), sources=())
    before = loader_contract.tree(host)
    run(host, OURS)
    assert all(entry["tokens"] == LINE.split() + OURS for entry in uki.view(host)["entries"] if entry["managed"])
    run(host, (), "absent")
    assert loader_contract.tree(host) == before


def test_a_line_that_is_not_utf_8_is_not_given_to_another_image(debian):
    debian.put(IMAGE, debian.read_bytes(IMAGE).replace(b"quiet", b"qui\xf6t"))
    before = loader_contract.tree(debian)
    for check in (True, False):
        with pytest.raises(HostError, match="not UTF-8"):
            cmdline.run(debian, {"parameters": OURS, "state": "present", "loader": "auto"}, check)
    assert loader_contract.tree(debian) == before


# -- mkinitcpio ------------------------------------------------------------------------------


# -- images as they were before us -----------------------------------------------------------


OURS_IN_IT = {"scripts/vfio-host": b"#!/bin/sh"}


def in_boot(host, files):
    for version in (OLD, NEW):
        host.put("/boot/initrd.img-" + version, cpio.archive(dict(files, init=b"x")))


@pytest.fixture
def packed_anew(tmp_path):
    """kernel-install has dracut make the first part anew each time: the same in it, in other bytes."""
    class Host(DebianUki):
        times = 0
        known = {}

        def kernel_install(self, argv, env):
            self.times += 1
            first = cpio.archive({"etc/first": b"y", **self.known}).replace(b"070701" + b"0" * 8, b"070701%08X" % self.times)
            version = [word for word in argv if not word.startswith("-")][2]
            path = "/boot/initrd.img-" + version
            second = self.read_bytes(path)
            self.put(path, first + second)
            try:
                return super().kernel_install(argv, env)
            finally:
                self.put(path, second)

    host = Host(str(tmp_path))
    in_boot(host, {})
    for version in (OLD, NEW):
        host.kernel_install(["kernel-install", "add", version, "/boot/vmlinuz-" + version], {})
    return host


def images(host):
    return {version: host.read_bytes(IMAGE.replace(NEW, version)) for version in (OLD, NEW)}


def go(host, parameters=()):
    """The module kernel_cmdline, which keeps a record of what is ours."""
    state = "present" if parameters else "absent"
    cmdline.run(host, {"parameters": list(parameters), "state": state, "loader": "auto", "fallback_entry": False}, False)


@pytest.mark.parametrize("known", [{}, {"etc/hostname": b"here"}])
@pytest.mark.parametrize("first", ["initramfs", "line"])
def test_an_image_is_byte_for_byte_as_it_was_however_it_is_packed(packed_anew, first, known):
    host, before = packed_anew, images(packed_anew)
    host.known = known  # dracut may know more of a host than when the image was made
    go(host, OURS)
    assert host.listdir(uki.ORIGINALS)
    in_boot(host, OURS_IN_IT)
    uki.refresh(host, [OLD, NEW])
    for step in ("initramfs", "line") if first == "initramfs" else ("line", "initramfs"):
        assert host.exists(uki.ORIGINALS)  # for as long as something of ours is in it
        if step == "initramfs":
            in_boot(host, {})
            uki.refresh(host, [OLD, NEW])
        else:
            go(host)
    assert images(host) == before
    assert not host.exists("/var/lib/vfio-host")


def test_an_image_that_holds_something_else_now_is_not_put_back(packed_anew):
    host, before = packed_anew, images(packed_anew)
    go(host, OURS)
    in_boot(host, {"usr/bin/newer": b"z"})
    go(host)
    assert not any(images(host)[version] == before[version] for version in (OLD, NEW))
    assert b"usr/bin/newer" in images(host)[NEW] and not host.exists(uki.ORIGINALS)


@pytest.mark.parametrize("section", [".osrel", ".text", ".cmdline"])
def test_the_rest_of_an_image_counts_too(packed_anew, section):
    host = packed_anew
    go(host, OURS)
    (copy, *dummy) = sorted(host.listdir(uki.ORIGINALS))
    path = uki.ORIGINALS + "/" + copy
    data = bytearray(host.read_bytes(path))
    data[pe.sections(host, path)[section][0]] ^= 1
    host.put(path, bytes(data))
    go(host)
    assert bytes(data) not in images(host).values()


def test_an_image_with_something_of_ours_is_no_original(packed_anew):
    host = packed_anew
    in_boot(host, OURS_IN_IT)
    uki.refresh(host, [OLD, NEW])
    for name in host.listdir(uki.ORIGINALS):
        host.remove(uki.ORIGINALS + "/" + name)
    go(host, OURS)
    assert host.listdir(uki.ORIGINALS) == []


def test_an_image_with_somebody_elses_is_one_all_the_same(packed_anew):
    host = packed_anew
    by_hand(host, {"image": IMAGE}, "iommu=pt")
    before = images(host)
    for parameters in (OURS[:1], OURS, OURS[:1], OURS):
        go(host, parameters)
        assert len(host.listdir(uki.ORIGINALS)) == 2
    go(host)
    assert images(host) == before
    assert not host.exists("/var/lib/vfio-host")


def test_without_room_nothing_is_kept(packed_anew, monkeypatch):
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=0, f_bavail=200 << 10, f_frsize=1024)
                        if "/var/lib" in path else real(path))
    go(packed_anew, OURS)
    assert not packed_anew.exists(uki.ORIGINALS)


def test_mkinitcpio_gets_a_drop_in(arch):
    apply(arch, OURS)
    assert arch.read(uki.DROP_IN) == uki.HEADER + DROP_IN_LINE
    assert uki.recorded(arch) == OURS
    assert arch.read("/etc/kernel/cmdline") == LINE + "\n"
    for name in ("arch-linux", "arch-linux-fallback"):
        assert pe.text(arch, "/efi/EFI/Linux/%s.efi" % name, ".cmdline") == LINE + " intel_iommu=on iommu=pt"
    assert uki.configured(arch)[1]["iommu=pt"] == uki.DROP_IN


def test_mkinitcpio_without_any_file_keeps_the_root(tmp_path):
    """With our drop-in alone it would no longer take the running line."""
    host = ArchUki(str(tmp_path), sources=())
    host.put("/proc/cmdline", LINE + " vfio_host=trial\n")
    apply(host, OURS)
    assert host.read("/etc/kernel/cmdline") == LINE + "\n"
    assert pe.text(host, "/efi/EFI/Linux/arch-linux.efi", ".cmdline") == "initrd=\\x %s intel_iommu=on iommu=pt" % LINE


@pytest.mark.parametrize("line", [LINE, LINE + " -- quux"])
def test_mkinitcpio_where_a_drop_in_does_nothing(tmp_path, line):
    script = "/etc/kernel/cmdline" if line == LINE else "/etc/cmdline.d"
    host = ArchUki(str(tmp_path), sources=(("/etc/kernel/cmdline", line + "\n"),), script=script)
    apply(host, OURS)
    assert not host.exists(uki.DROP_IN)
    assert host.read("/etc/kernel/cmdline") == line.replace(LINE, LINE + " intel_iommu=on iommu=pt") + "\n"


def test_a_drop_in_of_somebody_else_is_not_replaced(arch):
    arch.put(uki.DROP_IN, "quiet\n")
    with pytest.raises(HostError, match="move it away"):
        uki.edits(arch, OURS, [])


# -- what booted, and who makes the images ---------------------------------------------------


def test_evidence(debian, tmp_path_factory):
    assert evidence(debian)[1] == []
    assert systemd_boot.evidence(debian, booted.booted(debian))[1] != []
    assert evidence(ArchUki(str(tmp_path_factory.mktemp("arch"))))[1] == []


@pytest.mark.parametrize("entry, stub", [("-vfio-host-trial.conf", False), ("-vfio-host-fallback-6.1.conf", True)])
def test_in_an_entry_of_ours_the_default_tells(debian, tmp_path_factory, entry, stub):
    from ansible_collections.vfio.host.tests.unit.boot.systemd_boot_host import Debian

    debian.text_variable("LoaderEntrySelected", entry)
    if not stub:
        debian.remove("%s/StubInfo-%s" % (booted.EFIVARS, booted.LOADER_GUID))
    assert cmdline.detect(debian)[0].NAME == "uki"
    host = Debian(str(tmp_path_factory.mktemp("host")))
    host.text_variable("LoaderEntrySelected", entry)
    assert cmdline.detect(host)[0].NAME == "systemd_boot"
    # the same, with an image of this system beside its entries
    host.put("/etc/kernel/install.conf", "layout=uki\n")
    host.put("/usr/bin/ukify", "")
    host.put("/boot/efi/EFI/Linux/%s-%s.efi" % (MACHINE, NEW), uki_files.uki(NEW, LINE))
    host.put("/boot/efi/loader/loader.conf", "default %s-*.conf\n" % MACHINE)
    assert cmdline.detect(host)[0].NAME == "systemd_boot"
    host.put("/boot/efi/loader/loader.conf", "default %s-*.efi\n" % MACHINE)
    assert cmdline.detect(host)[0].NAME == "uki"


def test_without_stub_info_the_entry_tells(debian):
    debian.remove("%s/StubInfo-%s" % (booted.EFIVARS, booted.LOADER_GUID))
    assert cmdline.detect(debian)[0].NAME == "uki"


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda host: host.text_variable("LoaderInfo", "rEFInd 0.14"), "rEFInd 0.14 started"),
        (lambda host: host.put("/etc/kernel/install.conf", "layout=bls\n"), "made by hand"),
        (lambda host: host.put("/etc/kernel/install.conf", "layout=uki\nuki_generator=dracut\n"), "uki_generator=d"),
        (lambda host: host.remove("/usr/bin/ukify"), "ukify is not installed"),
        (lambda host: [host.put("/usr/bin/mkinitcpio", ""), host.put("/etc/mkinitcpio.d/x.preset", ArchUki.PRESET)],
         "both kernel-install"),
        (lambda host: [host.remove(IMAGE.replace(NEW, version)) for version in (OLD, NEW)], "no image in EFI/Linux"),
        (lambda host: host.put("/etc/kernel/proxmox-boot-uuids", "A"), "proxmox"),
    ],
)  # fmt: skip
def test_evidence_against(debian, change, reason):
    change(debian)
    assert [sentence for sentence in evidence(debian)[1] if reason in sentence]


@pytest.mark.parametrize(
    "more, reason",
    [
        ('default_cmdline="/etc/mine"\n', "default_cmdline"),
        ('ALL_cmdline="/etc/mine"\n', "ALL_cmdline"),
        ('default_options="--cmdline /etc/mine"\n', "default_options"),
        ("default_options=(--cmdline /etc/mine)\n", "default_options"),
        ('default_uki="$ESP/x.efi"\n', "needs a shell"),
    ],
)
def test_presets_that_are_refused(arch, more, reason):
    arch.put("/etc/mkinitcpio.d/linux.preset", ArchUki.PRESET + more)
    assert [sentence for sentence in uki.unusable(arch) if reason in sentence]


def test_a_drop_in_of_install_conf_counts(debian):
    debian.put("/etc/kernel/install.conf", "# nothing\n")
    debian.put("/etc/kernel/install.conf.d/uki.conf", "layout='uki'  # as wanted\n")
    assert uki.maker(debian) == ("kernel-install", [])


def test_a_damaged_image_of_ours_is_a_problem(debian):
    debian.put(IMAGE.replace(NEW, OLD), "MZ")
    debian.put("/efi/EFI/Linux/another.efi", "MZ")
    problems = uki.view(debian)["problems"]
    assert [reason for reason in problems if OLD in reason and "no PE image" in reason]
    assert not [reason for reason in problems if "another" in reason]


def test_the_view(debian):
    debian.put("/efi/EFI/Linux/another.efi", uki_files.uki("9", "root=UUID=9", os_id="zz"))
    seen = {entry["id"]: entry for entry in uki.view(debian)["entries"]}
    assert [entry["kernel"] for entry in seen.values() if entry["managed"]] == [NEW, OLD]
    assert seen["another"]["managed"] is False
    new = seen["%s-%s" % (MACHINE, NEW)]
    assert (new["default"], new["image"]) == (True, IMAGE)
    assert new["tokens"] == LINE.split() + ["systemd.machine_id=" + MACHINE]


# -- started by the firmware -----------------------------------------------------------------


def test_an_image_that_the_firmware_started(debian):
    for name in ("LoaderInfo", "LoaderEntrySelected"):
        debian.remove("%s/%s-%s" % (booted.EFIVARS, name, booted.LOADER_GUID))
    debian.text_variable("LoaderImageIdentifier", IMAGE[len("/efi"):].replace("/", "\\").upper())
    assert evidence(debian)[1] == []
    seen = uki.view(debian)
    assert loader.default_of(seen)["kernel"] == NEW
    assert seen["problems"] == []
    assert uki.fallback(debian, OURS) == []
    assert uki.trial_obstacles(debian) == [
        "the firmware starts the image, so there is no boot loader that could start another one once"]


# -- entries of our own ----------------------------------------------------------------------


def test_the_fallback_starts_the_same_image(debian):
    apply(debian, OURS)
    edits.write(debian, uki.fallback(debian, OURS))
    assert uki.fallback(debian, OURS) == []
    text = debian.read("/efi/loader/entries/-vfio-host-fallback-%s.conf" % NEW)
    assert "efi /EFI/Linux/%s-%s.efi\noptions %s systemd.machine_id=%s vfio_host=off\n" % (
        MACHINE, NEW, LINE, MACHINE) in text
    assert "sort-key" not in text
    assert loader.default_of(uki.view(debian))["id"] == "%s-%s" % (MACHINE, NEW)
    debian.remove(IMAGE)
    assert [reason for reason in uki.view(debian)["problems"] if "fallback" in reason and "does not exist" in reason]


def test_with_secure_boot_there_is_no_fallback(debian):
    edits.write(debian, uki.fallback(debian, OURS))
    secure_boot(debian)
    changes = uki.fallback(debian, OURS)
    assert len(changes) == 3 and all(edit.after is None for edit in changes)


def test_why_there_is_no_fallback(debian):
    assert uki.fallback_unavailable(debian) is None
    secure_boot(debian)
    assert "Secure Boot" in uki.fallback_unavailable(debian)
    assert run(debian, ())["warnings"] == [uki.fallback_unavailable(debian)]
    debian.remove("%s/LoaderInfo-%s" % (booted.EFIVARS, booted.LOADER_GUID))
    assert "the firmware starts the image" in uki.fallback_unavailable(debian)


def fallbacks(host):
    return [name for name in host.listdir("/efi/loader/entries") if "fallback" in name]


@pytest.mark.parametrize("parameters", [OURS, []], ids=["parameters", "nothing"])
def test_an_image_with_a_counter_has_no_fallback_until_it_is_found_good(tmp_path, parameters):
    """The loader gives the image another name when it starts it: just when the fallback entry would be needed."""
    host = one_counted(str(tmp_path))
    before = loader_contract.tree(host)
    predicted = cmdline.run(host, {"parameters": parameters, "state": "present", "loader": "auto"}, True)
    assert loader_contract.tree(host) == before
    done = run(host, parameters)
    said = [warning for warning in done["warnings"] if COUNTED in warning]
    assert len(said) == 1 and "run it again" in said[0] and NEW in said[0]
    assert predicted["warnings"] == done["warnings"]
    assert (predicted["changed"], predicted["diff"]) == (done["changed"], done["diff"])
    path = COUNTED
    for good in (False, False, True):
        assert fallbacks(host) == ["-vfio-host-fallback-%s.conf" % OLD]
        assert uki.view(host)["problems"] == []
        again = run(host, parameters)
        assert again["changed"] is False and [warning for warning in again["warnings"] if path in warning]
        path = host.rename(path, good)
    assert path == IMAGE and uki.view(host)["problems"] == []
    assert run(host, parameters)["warnings"] == []
    assert fallbacks(host) == ["-vfio-host-fallback-%s.conf" % version for version in (OLD, NEW)]
    assert run(host, parameters)["changed"] is False
    run(host, (), "absent")
    assert loader_contract.tree(host) == {name.replace("+3.efi", ".efi"): was for name, was in before.items()}


def test_a_fallback_of_an_image_with_a_counter_is_taken_away(tmp_path):
    """Of an earlier release, or the kernel was installed once more."""
    host = one_counted(str(tmp_path))
    run(host, OURS)
    path = "/efi/loader/entries/-vfio-host-fallback-%s.conf" % NEW
    host.put(path, "title x\nefi /EFI/Linux/%s\noptions ro\n" % os.path.basename(COUNTED))
    assert run(host, OURS)["changed"] is True
    assert not host.exists(path)


def test_an_image_that_was_found_good_since_comes_back_byte_for_byte(tmp_path):
    host = DebianUki(str(tmp_path), tries=3)
    in_boot(host, {})
    for version in (OLD, NEW):
        host.kernel_install(["kernel-install", "add", version, "/boot/vmlinuz-" + version], {})
    before = host.read_bytes(COUNTED)
    go(host, OURS)
    assert host.rename(COUNTED, good=True) == IMAGE
    run(host, OURS)
    assert len(host.listdir(uki.ORIGINALS)) == 2
    go(host)
    assert host.read_bytes(IMAGE) == before and not host.exists(uki.ORIGINALS)


def test_a_trial(debian):
    before = loader_contract.tree(debian)
    image = "/boot/vfio-host-trial-%s.img" % NEW
    debian.put(image, "trial")
    line = LINE.split() + [loader.TRIAL]
    assert uki.trial_obstacles(debian) == []
    assert uki.trial_binary(debian, NEW, image, line) is True
    edits.write(debian, uki.trial(debian, NEW, image, line))
    uki.generate(debian)
    assert debian.calls == []
    assert uki.trial(debian, NEW, image, line) == []
    assert uki.trial_binary(debian, NEW, image, line, check=True) is False
    seen = uki.view(debian)
    assert seen["problems"] == []
    trial = [entry for entry in seen["entries"] if entry["id"] == loader.TRIAL_ID][0]
    assert (trial["tokens"], trial["kernel"], trial["default"], trial["managed"]) == (line, NEW, False, False)
    assert debian.read(trial["initrds"][0]) == "trial"
    uki.set_once(debian, loader.TRIAL_ID)
    assert uki.once(debian) == loader.TRIAL_ID
    debian.remove("%s/LoaderEntryOneShot-%s" % (booted.EFIVARS, booted.LOADER_GUID))
    edits.write(debian, uki.trial(debian, None, None, []))
    assert uki.trial_binary(debian, None, None, []) is True
    debian.remove(image)
    assert loader_contract.tree(debian) == before


def test_a_trial_with_secure_boot_is_refused(debian):
    secure_boot(debian)
    assert [sentence for sentence in uki.trial_obstacles(debian) if "Secure Boot" in sentence]


def test_what_is_configured_is_what_gets_into_the_image(arch):
    arch.put("/etc/cmdline.d/95-late.conf", "late=1\n")
    apply(arch, OURS)
    assert uki.configured(arch)[0] == tokens.split(pe.text(arch, "/efi/EFI/Linux/arch-linux.efi", ".cmdline"))
