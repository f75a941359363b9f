# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import os
import struct

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot import edits, loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import initramfs_tools as tools
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage, modules
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, systemd_boot
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import uki as uki_loader
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU

DEVICES = asked.render([asked.identity(GPU)])
KERNELS = ("6.1.0-50-amd64", "6.0.0-1-amd64")
MODULES = "usr/lib/modules.d/kernel/drivers/vfio/"


class Builder(Host):
    """A recorded Debian host on which mkinitramfs puts into an image what the real one does."""

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.fail = None
        self.order = None
        self.built = 0
        self.more = {}
        self.write("/usr/sbin/update-initramfs", "mkinitramfs ${OPTS}\n")
        self.write("/usr/share/initramfs-tools/init", "")
        self.write(asked.DEVICES, DEVICES)
        for version in KERNELS:
            self.write("/boot/vmlinuz-" + version, "")
            self.write("/lib/modules/%s/modules.builtin" % version, "kernel/drivers/pci/pci-stub.ko\n")
            self.image(version)
        self.write("/boot/vmlinuz-5.0-removed", "")
        self.write("/boot/initrd.img-5.0-removed", "")

    def image(self, version, path=None, devices=asked.DEVICES):
        files = {"init": b"", "scripts/init-top/udev": b""}
        scripts = ["udev"]
        if self.exists(tools.SCRIPT):
            files[tools.IN_IMAGE_SCRIPT] = self.read_bytes(tools.SCRIPT)
            scripts.insert(0, "00-vfio-host")
        if self.exists(tools.HOOK) and self.exists(devices):
            files[tools.IN_IMAGE_DEVICES] = self.read_bytes(devices)
            for name in ("pci/vfio-pci.ko", "vfio.ko", "vfio_iommu_type1.ko.xz"):
                files[MODULES + name] = b""
        scripts = self.order or scripts
        files[tools.IN_IMAGE_ORDER] = "".join(
            '/scripts/init-top/%s "$@"\n[ -e /conf/param.conf ] && . /conf/param.conf\n' % name for name in scripts
        ).encode()
        self.built += 1
        files.update(self.more)
        data = gzip.compress(archive(files), mtime=self.built)  # two builds are never alike
        self.write(path or "/boot/initrd.img-" + version, data)

    def command(self, argv, stdin, env=None):
        self.calls.append(argv)
        if self.fail is not None:
            return self.fail(argv)
        return self.command_that_works(argv, env)

    def command_that_works(self, argv, env=None):
        if argv[0] == "mkinitramfs":
            self.image(argv[-1], argv[2], (env or {}).get("VFIO_HOST_DEVICES", asked.DEVICES))
        return Result(argv, 0, "%s  %s\n" % ("0" * 40, argv[-1]), "")

    def tree(self):
        found = {}
        for folder, dummy, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as handle:
                    found[path[len(self.root):]] = (handle.read(), os.stat(path).st_mode, os.stat(path).st_mtime_ns)
        return found


@pytest.fixture
def host(tmp_path):
    return Builder(str(tmp_path))


@pytest.fixture
def opened(monkeypatch):
    """Paths of the images that were opened."""
    paths = []
    real = manage.read_image

    def spy(host, path, *rest, **more):
        paths.append(path)
        return real(host, path, *rest, **more)

    monkeypatch.setattr(manage, "read_image", spy)
    return paths


class Loader:
    """A boot loader whose entries load what is told; refresh() does what is told."""

    NAME = "loader"

    def __init__(self, entries=(), refresh=None):
        self.entries = entries
        self.asked = []
        self.then = refresh

    def view(self, dummy):
        return loaders.view(self.entries)

    def refresh(self, host, kernels):
        self.asked.append(kernels)
        if self.then:
            self.then()


def go(host, state="present", check=False, loader=None, **more):
    params = {"state": state, "generator": "auto", "rebuild_timeout": 900, "devices_content": None}
    return manage.run(host, dict(params, **more), check, loader or Loader())


def built(version):
    return ["mkinitramfs", "-o", "/boot/.vfio-host-new-initrd.img-" + version, version]


def test_check_predicts_and_touches_nothing_then_the_run_does_it(host):
    before = host.tree()
    predicted = go(host, check=True)
    assert host.tree() == before
    done = go(host)
    assert predicted == done
    assert done["changed"] is done["reboot_required"] is True
    assert host.calls == [built(version) for version in sorted(KERNELS)]
    assert [diff["after_header"] for diff in done["diff"]][:2] == [tools.HOOK, tools.SCRIPT]
    assert [image["rebuilt"] for image in done["images"]] == [True, True]
    for path in (tools.HOOK, tools.SCRIPT):
        assert host.stat(path).st_mode & 0o777 == 0o755


def test_second_run_opens_and_executes_nothing(host, opened):
    go(host)
    before = host.tree()
    host.calls.clear()
    opened.clear()
    result = go(host)
    assert (result["changed"], result["diff"], host.calls, opened) == (False, [], [], [])
    assert host.tree() == before


def test_what_is_not_remembered_is_opened_not_rebuilt(host, opened):
    go(host)
    host.remove(manage.STATE)
    host.calls.clear()
    opened.clear()
    assert go(host)["changed"] is False
    assert len(opened) == 2 and host.calls == []
    opened.clear()
    go(host)
    assert opened == []


def test_an_image_that_somebody_rebuilt_is_opened(host, opened):
    go(host)
    opened.clear()
    host.calls.clear()
    host.image(KERNELS[0])
    assert go(host)["changed"] is False
    assert opened == ["/boot/initrd.img-" + KERNELS[0]] and host.calls == []


def test_an_image_without_ours_is_rebuilt_alone(host):
    go(host)
    host.calls.clear()
    host.write("/boot/initrd.img-" + KERNELS[0], gzip.compress(archive({"init": b""})))
    result = go(host)
    assert result["changed"] is True
    assert host.calls == [built(KERNELS[0])]
    assert "our script is not in it" in result["images"][1]["because"]


def test_an_unreadable_image_is_rebuilt(host):
    go(host)
    host.write("/boot/initrd.img-" + KERNELS[0], b"garbage")
    assert "unknown format" in go(host, check=True)["images"][1]["because"][0]
    assert go(host)["changed"] is True


def test_a_changed_list_rebuilds_every_image(host):
    go(host)
    host.calls.clear()
    host.write(asked.DEVICES, asked.render([asked.identity(GPU), asked.identity(AUDIO)]))
    assert go(host)["images"][0]["because"] == ["its /etc/vfio-host/devices is not the one of the host"]
    assert len(host.calls) == 2


def test_the_expected_list_stands_for_the_file_in_check_mode_only(host):
    go(host)
    text = asked.render([asked.identity(AUDIO)])
    assert go(host, check=True, devices_content=DEVICES)["changed"] is False
    assert go(host, check=True, devices_content=DEVICES.rstrip("\n"))["changed"] is False
    assert go(host, check=True, devices_content=text)["changed"] is True
    with pytest.raises(HostError, match="devices_content is not what"):
        go(host, devices_content=text)


@pytest.mark.parametrize("path", [tools.HOOK, tools.SCRIPT])
def test_files_of_ours_are_repaired(host, path):
    go(host)
    for damage in (lambda: host.write(path, "#!/bin/sh\n", mode=0o755), lambda: os.chmod(host.path(path), 0o644)):
        damage()
        before = host.tree()
        assert go(host, check=True)["changed"] is True
        assert host.tree() == before
        assert go(host)["changed"] is True
        assert go(host)["changed"] is False


def test_udev_before_ours_is_a_failure_by_name(host):
    host.order = ["udev", "00-vfio-host"]
    with pytest.raises(HostError, match="initrd.img-6.0.0-1-amd64 was built, but read back: .*udev before our script"):
        go(host)


@pytest.mark.parametrize(
    "order, reason", [(["udev"], "does not run our script"), (["00-vfio-host"], "does not run udev")]
)
def test_an_order_without_one_of_them_is_a_failure(host, order, reason):
    host.order = order
    with pytest.raises(HostError, match=reason):
        go(host)


def test_a_tool_that_does_nothing_is_a_failure(host):
    host.fail = lambda argv: Result(argv, 0, "", "W: something is odd.")
    before = host.tree()
    with pytest.raises(HostError, match="new-initrd.img-6.0.0-1-amd64 does not exist.*is odd"):
        go(host)
    assert host.tree() == before


@pytest.mark.parametrize("again", [False, True])
def test_a_failed_build_puts_the_files_back(host, again):
    if again:
        go(host)
        host.write(tools.SCRIPT, "old\n", mode=0o700)
        host.image(KERNELS[0])
    before = host.tree()

    def fail(argv):
        host.write(argv[2], "half")
        return Result(argv, 1, "", "No space left on device")

    host.fail = fail
    with pytest.raises(HostError, match="No space left.*already rebuilt: none; not rebuilt: /boot/initrd.img-6"):
        go(host)
    after = host.tree()
    assert {path: entry[:2] for path, entry in before.items()} == {path: entry[:2] for path, entry in after.items()}


def hook_fails(host):
    host.write("/etc/initramfs/post-update.d/copy", "", mode=0o755)
    host.fail = lambda argv: Result(argv, 1, "", "copy: no space") if argv[0] == "run-parts" else host.command_that_works(argv)


def hook_works(host):
    host.fail = None
    host.calls.clear()


@pytest.mark.parametrize("then", ["present", "absent"])
def test_a_hook_that_fails_after_the_build_is_made_good(host, then):
    """The image is in its place then, and takes devices at the next boot: neither run may deny that."""
    images = {version: host.read_bytes("/boot/initrd.img-" + version) for version in KERNELS}
    hook_fails(host)
    with pytest.raises(HostError, match="already rebuilt: /boot/initrd.img-%s; not" % KERNELS[1]):
        go(host)
    hook_works(host)
    predicted = go(host, then, check=True)
    done = go(host, then)
    assert predicted["changed"] is done["changed"] is True
    ran = [" ".join(argv) for argv in host.calls if argv[0] == "run-parts"]
    assert any(KERNELS[1] in line for line in ran), ran  # the hooks of the image that has ours already
    assert go(host, then)["changed"] is False
    if then == "absent":
        assert {version: host.read_bytes("/boot/initrd.img-" + version) for version in KERNELS} == images
        assert not host.exists(manage.STATE)


def test_too_little_space_is_refused_with_numbers(host, monkeypatch):
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 5 << 20)
    before = host.tree()
    with pytest.raises(HostError, match=r"/boot has 5 MiB free and 11 MiB are needed"):
        go(host)
    assert host.tree() == before
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 12 << 20)
    assert go(host)["changed"] is True
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 0)
    assert go(host)["changed"] is False


def test_check_mode_finds_too_little_space_too(host, monkeypatch):
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 5 << 20)
    with pytest.raises(HostError, match="/boot has 5 MiB free"):
        go(host, check=True)


def test_a_read_only_boot_is_refused_before_anything_is_written(host, monkeypatch):
    monkeypatch.setattr(manage, "read_only", lambda dummy, path: path == "/boot")
    before = host.tree()
    with pytest.raises(HostError, match="/boot is mounted read-only"):
        go(host)
    assert host.tree() == before


def test_a_full_efi_partition_is_found_before_the_build(host, monkeypatch):
    host.image(KERNELS[0], "/efi/token/initrd.img")
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 0 if path.startswith("/efi") else 1 << 40)
    before = host.tree()
    entry = loaders.entry("a", "A", KERNELS[0], [], initrds=["/efi/token/initrd.img"])
    with pytest.raises(HostError, match="/efi/token has 0 MiB free"):
        go(host, loader=Loader([entry]))
    assert host.tree() == before


def test_what_a_killed_run_left_goes_and_counts_as_room(host, monkeypatch):
    host.write("/boot/.vfio-host-new-initrd.img-" + KERNELS[0], b"x" * (8 << 20))
    monkeypatch.setattr(manage, "free_bytes", lambda dummy, path: 4 << 20)
    assert go(host)["changed"] is True
    assert not [name for name in host.listdir("/boot") if name.startswith(".")]


def test_an_image_is_read_before_it_takes_the_place_of_the_old_one(host):
    old = host.read_bytes("/boot/initrd.img-" + KERNELS[0])
    host.order = ["udev", "00-vfio-host"]
    with pytest.raises(HostError, match="udev before our script"):
        go(host)
    assert host.read_bytes("/boot/initrd.img-" + KERNELS[0]) == old
    assert not [name for name in host.listdir("/boot") if name.startswith(".")]


def test_the_mode_of_an_image_is_kept(host):
    os.chmod(host.path("/boot/initrd.img-" + KERNELS[0]), 0o640)
    go(host)
    assert host.stat("/boot/initrd.img-" + KERNELS[0]).st_mode & 0o7777 == 0o640


def test_updates_that_are_switched_off_are_refused(host):
    host.write(tools.CONFIGURATION, "update_initramfs=no\n")
    before = host.tree()
    with pytest.raises(HostError, match="update_initramfs=no"):
        go(host)
    assert host.tree() == before


def test_absent_leaves_nothing_in_files_and_images(host):
    before = {path: entry[:2] for path, entry in host.tree().items() if "initrd" not in path}
    go(host)
    host.calls.clear()
    tree = host.tree()
    predicted = go(host, "absent", check=True)
    assert host.tree() == tree
    done = go(host, "absent")
    assert predicted == done and done["changed"] is True
    assert len(host.calls) == 2
    assert {path: entry[:2] for path, entry in host.tree().items() if "initrd" not in path} == before
    assert not host.exists(asked.STATE_FOLDER)
    host.calls.clear()
    assert go(host, "absent")["changed"] is False
    assert host.calls == []


def test_a_killed_removal_is_finished_by_the_next_run(host):
    go(host)
    host.remove(tools.HOOK)
    host.remove(tools.SCRIPT)
    assert go(host, "absent")["changed"] is True
    assert len(host.calls) == 4


def test_a_first_run_that_was_killed_is_taken_out_by_absent_though_that_is_killed_too(host, monkeypatch):
    calls = []

    def killed(argv):
        calls.append(argv)
        if len(calls) == 2:
            raise KeyboardInterrupt
        host.image(argv[-1], argv[2])
        return Result(argv, 0)

    host.fail = killed
    with pytest.raises(KeyboardInterrupt):
        go(host)
    host.fail = None
    for path in (tools.HOOK, tools.SCRIPT):  # what a killed absent had got to
        host.remove(path)
    assert go(host, "absent")["changed"] is True
    assert tools.gone(manage.read_image(host, "/boot/initrd.img-" + sorted(KERNELS)[0], ())) == []


def test_a_kernel_that_is_installed_meanwhile_is_not_left_out(host):
    real = host.command

    def command(argv, stdin, env=None):
        if not host.exists("/boot/vmlinuz-7.0"):
            host.write("/lib/modules/7.0/modules.builtin", "")
            host.write("/boot/vmlinuz-7.0", "")
            host.write("/boot/initrd.img-7.0", gzip.compress(archive({"init": b""})))  # from before our hook was there
        return real(argv, stdin, env)

    host.commands = command
    result = go(host)
    assert [(image["kernel"], image["rebuilt"]) for image in result["images"]] == [
        ("6.0.0-1-amd64", True), ("6.1.0-50-amd64", True), ("7.0", True),
    ]  # fmt: skip
    assert go(host)["changed"] is False


def test_an_image_that_keeps_ours_on_removal_is_a_failure(host):
    go(host)
    keeps = host.read_bytes("/boot/initrd.img-" + KERNELS[0])

    def fail(argv):
        host.write(argv[2], keeps)
        return Result(argv, 0, "", "")

    host.fail = fail
    with pytest.raises(HostError, match="scripts/init-top/00-vfio-host is still in it"):
        go(host, "absent")
    assert host.exists(tools.SCRIPT) and host.exists(manage.STATE)


def test_absent_on_a_host_that_never_had_it_opens_nothing(host, opened):
    assert go(host, "absent")["changed"] is False
    assert opened == []


def test_a_kernel_without_an_image_is_warned_of(host):
    host.remove("/boot/initrd.img-" + KERNELS[0])
    result = go(host)
    assert [image["kernel"] for image in result["images"]] == [KERNELS[1]]
    assert KERNELS[0] in result["warnings"][0]


def test_no_image_at_all_is_refused(host):
    for version in KERNELS:
        host.remove("/boot/initrd.img-" + version)
    with pytest.raises(HostError, match="no installed kernel has an image"):
        go(host)


@pytest.mark.parametrize(
    "path, text, reason",
    [
        ("/usr/sbin/update-initramfs", None, r"no /usr/sbin/update-initramfs\).*, found .*dracut"),
        ("/usr/sbin/update-initramfs", "exec dracut\n", "another generator's.*found .*dracut"),
        ("/usr/share/initramfs-tools/init", None, "no /usr/share/initramfs-tools/init"),
    ],
)
@pytest.mark.parametrize("generator", ["auto", "initramfs-tools"])
def test_other_generators_are_refused(host, path, text, reason, generator):
    host.write("/usr/bin/dracut", "")
    host.remove(path) if text is None else host.write(path, text)
    with pytest.raises(HostError, match=reason):
        go(host, generator=generator)


def test_two_that_both_would_build_are_refused_unless_one_is_named(host, monkeypatch):
    monkeypatch.setattr(manage.dracut, "evidence", lambda dummy: (["its own hook"], []))
    monkeypatch.setattr(manage.dracut, "unusable", lambda dummy: [])
    before = host.tree()
    with pytest.raises(HostError, match=r"not clear .*initramfs-tools \(/usr/sbin/.*dracut \(its own hook\)"):
        go(host)
    assert host.tree() == before
    assert go(host, generator="initramfs-tools")["changed"] is True


@pytest.mark.parametrize("command", ["booster", "mkinitfs"])
def test_what_is_not_known_is_refused_by_name(host, command):
    host.remove("/usr/sbin/update-initramfs")
    host.write("/usr/bin/" + command, "")
    with pytest.raises(HostError, match="no supported initramfs generator: .*found %s. Supported: " % command):
        go(host)


def test_modules_may_be_built_in(host):
    go(host)
    image = manage.read_image(host, "/boot/initrd.img-" + KERNELS[0], tools.wanted_paths())
    image.names = {name for name in image.names if ".ko" not in name}
    missing = ["the module %s is not in it" % name for name in modules.ALWAYS]
    assert tools.problems(image, DEVICES.encode(), set()) == missing
    assert manage.check_image(host, tools, image, DEVICES.encode(), KERNELS[0]) == missing
    assert tools.problems(image, DEVICES.encode(), set(modules.ALWAYS)) == []
    for version in KERNELS:
        text = "".join("kernel/drivers/vfio/%s.ko\n" % name for name in ("pci/vfio-pci", "vfio", "vfio_iommu_type1"))
        host.write("/lib/modules/%s/modules.builtin" % version, text)
    assert "vfio_pci" in tools.builtin_modules(host, KERNELS[0])
    assert manage.check_image(host, tools, image, DEVICES.encode(), KERNELS[0]) == []


def depmod(host, version, more=""):
    host.write(
        "/lib/modules/%s/modules.dep" % version,
        "kernel/vfio/pci/vfio-pci.ko: kernel/vfio/pci/vfio-pci-core.ko kernel/vfio/vfio.ko\n"
        "kernel/vfio/pci/vfio-pci-core.ko: kernel/vfio/vfio.ko\n"
        "kernel/vfio/vfio.ko:\nkernel/vfio/vfio_iommu_type1.ko: kernel/vfio/vfio.ko\n" + more,
    )


def test_what_a_module_needs_has_to_be_in_the_image_too(host):
    depmod(host, KERNELS[1])
    with pytest.raises(HostError, match="6.0.0-1-amd64 was built, but read back: the module vfio_pci_core is not"):
        go(host)
    host.more = {MODULES + "pci/vfio-pci-core.ko": b""}
    assert go(host)["changed"] is True


def test_vfio_virqfd_is_wanted_where_the_kernel_has_it_as_a_module(host):
    host.more = {MODULES + "pci/vfio-pci-core.ko": b""}
    depmod(host, KERNELS[0])
    depmod(host, KERNELS[1], "kernel/vfio/vfio_virqfd.ko:\n")
    with pytest.raises(HostError, match="6.0.0-1-amd64 was built, but read back: the module vfio_virqfd is not in it"):
        go(host)
    host.more[MODULES + "vfio_virqfd.ko"] = b""
    assert go(host)["changed"] is True


def test_a_variant_driver_is_wanted_where_the_kernel_has_it(host):
    host.write(asked.DEVICES, asked.render([asked.identity(dict(GPU, driver="nvgrace-gpu-vfio-pci"))]))
    host.more = {MODULES + "pci/vfio-pci-core.ko": b""}
    depmod(host, KERNELS[0])
    depmod(host, KERNELS[1], "kernel/vfio/nvgrace-gpu-vfio-pci.ko:\n")
    with pytest.raises(HostError, match="6.0.0-1.* the module nvgrace_gpu_vfio_pci is not in it"):
        go(host)
    host.more[MODULES + "nvgrace-gpu-vfio-pci.ko"] = b""
    result = go(host)
    assert [text for text in result["warnings"] if "nvgrace" in text] == [
        "the kernel 6.1.0-50-amd64 has no nvgrace-gpu-vfio-pci: booted with it, devices for it stay with the host"
    ]


def test_an_image_with_modules_of_another_kernel_is_not_right(host):
    for version in KERNELS:
        host.more["usr/lib/modules/5.0/kernel/x.ko"] = b""
    with pytest.raises(HostError, match="it holds modules of 5.0, not of 6.0.0-1-amd64"):
        go(host)


def test_a_serial_number_needs_od_in_the_image(host):
    host.write(asked.DEVICES, asked.render([asked.identity(dict(GPU, serial="00-11-22-33-44-55-66-77"))]))
    with pytest.raises(HostError, match="the command od is not in it"):
        go(host)
    host.more["usr/bin/od"] = b""
    assert go(host)["changed"] is True


def test_without_a_list_the_image_holds_none(host):
    host.remove(asked.DEVICES)
    assert go(host)["changed"] is True
    assert go(host)["changed"] is False


# -- what boot entries carry ---------------------------------------------------------------


def entry(path, kernel=KERNELS[0], **more):
    return loaders.entry("a", "A", kernel, [], **dict({"initrds": [path]}, **more))


def test_copies_are_renewed_and_read_back(host):
    copy = "/efi/token/initrd.img"
    host.image(KERNELS[0], copy)

    def renew():
        host.write(copy, host.read_bytes("/boot/initrd.img-" + KERNELS[0]))

    loader = Loader([entry("/boot/initrd.img-" + KERNELS[1], KERNELS[1]), entry(copy)], renew)
    before = host.tree()
    predicted = go(host, check=True, loader=loader)
    assert host.tree() == before and loader.asked == []
    done = go(host, loader=loader)
    assert predicted == done
    assert loader.asked == [sorted(KERNELS)]
    assert [(image["path"], image["built"], image["rebuilt"]) for image in done["images"]][2] == (copy, False, True)
    host.calls.clear()
    assert go(host, loader=loader)["changed"] is False
    assert (host.calls, len(loader.asked)) == ([], 1)


def test_what_was_built_is_told_to_the_loader_though_every_entry_is_right(host):
    """Some copies are on partitions that only the loader's own tool mounts and compares."""
    loader = Loader()
    go(host, loader=loader)
    go(host, loader=loader)
    assert loader.asked == [sorted(KERNELS)]


def test_a_copy_that_is_not_renewed_is_a_failure(host):
    host.image(KERNELS[0], "/efi/token/initrd.img")
    with pytest.raises(HostError, match="loader was asked to renew /efi/token/initrd.img, but read back: our script"):
        go(host, loader=Loader([entry("/efi/token/initrd.img")]))
    assert not host.exists(tools.HOOK)


def test_a_copy_alone_that_is_stale_is_renewed_without_a_build(host):
    go(host)
    host.calls.clear()
    host.write("/efi/initrd", gzip.compress(archive({"init": b""})))

    def renew():
        host.write("/efi/initrd", host.read_bytes("/boot/initrd.img-" + KERNELS[0]))

    loader = Loader([entry("/efi/initrd")], renew)
    assert go(host, loader=loader)["changed"] is True
    assert (host.calls, loader.asked) == ([], [[KERNELS[0]]])


def test_images_that_an_entry_loads_together_are_one(host):
    go(host)
    host.write("/efi/ucode", archive({"kernel/x86/microcode/x.bin": b""}))
    host.write("/efi/initrd", host.read_bytes("/boot/initrd.img-" + KERNELS[0]))
    result = go(host, loader=Loader([entry(None, initrds=["/efi/ucode", "/efi/initrd"])]))
    assert (result["changed"], result["images"][2]["path"]) == (False, "/efi/ucode + /efi/initrd")


@pytest.mark.parametrize("more", [{"managed": False}, {"recovery": True}])
def test_entries_that_are_not_ordinary_are_left(host, more):
    assert len(go(host, loader=Loader([entry("/efi/none", **more)]))["images"]) == 2


def test_our_own_entries_and_kernels_that_are_gone_are_left(host):
    own = loaders.entry(loaders.TRIAL_ID, "T", KERNELS[0], [], initrds=["/boot/vfio-host-trial.img"])
    result = go(host, loader=Loader([own, entry("/efi/none", "9.9")]))
    assert len(result["images"]) == 2
    assert "starts the kernel 9.9, whose modules are not installed" in result["warnings"][0]


def test_an_unknown_boot_loader_is_a_warning(host, monkeypatch):
    def refuse(dummy, dummy2):
        raise HostError("nothing recognised")

    monkeypatch.setattr(manage.cmdline, "choose", refuse)
    params = {"state": "present", "generator": "auto", "rebuild_timeout": 900, "devices_content": None}
    assert "only images in /boot are checked" in manage.run(host, params, False)["warnings"][0]


def test_the_initramfs_in_a_uki_is_read(host):
    go(host)
    inside = archive({"kernel/x86/microcode/x.bin": b""}) + host.read_bytes("/boot/initrd.img-" + KERNELS[0])
    host.write("/efi/a.efi", uki({".linux": b"kernel", ".initrd": inside, ".osrel": b"ID=x"}))
    host.write("/efi/b.efi", uki({".linux": b"kernel"}))
    right = entry(None, initrds=(), image="/efi/a.efi")
    assert go(host, loader=Loader([right]))["changed"] is False
    wrong = entry(None, initrds=(), image="/efi/b.efi")
    predicted = go(host, check=True, loader=Loader([right, wrong]))
    assert predicted["images"][3]["because"] == ["/efi/b.efi has no initramfs in it (no section .initrd)"]


def uki(sections):
    """A PE file with these sections, as ukify puts them in."""
    table = b""
    data = b""
    at = 0x1000
    for name, content in sections.items():
        raw = content + bytes(-len(content) % 512)
        table += struct.pack("<8sIIII16x", name.encode(), len(content), at, len(raw), 0x1000 + len(data))
        data += raw
        at += 0x100000
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 0, 0)
    return (head + table).ljust(0x1000, b"\0") + data


# -- the way back --------------------------------------------------------------------------


def images_of(host):
    return {version: host.read_bytes("/boot/initrd.img-" + version) for version in KERNELS}


def test_the_original_comes_back_byte_for_byte_where_nothing_else_changed(host):
    os.makedirs(host.path("/var/lib"))
    before = images_of(host)
    go(host)
    host.write(asked.DEVICES, asked.render([asked.identity(GPU), asked.identity(AUDIO)]))
    go(host)
    assert host.exists(manage.ORIGINALS + "/boot-initrd.img-" + KERNELS[0])
    go(host, "absent")
    assert images_of(host) == before
    assert not host.exists(asked.STATE_FOLDER)


def test_an_original_that_is_outdated_does_not_come_back(host):
    os.makedirs(host.path("/var/lib"))
    before = images_of(host)
    go(host)
    host.more = {"etc/new": b"since then"}
    go(host, "absent")
    after = images_of(host)
    assert after[KERNELS[0]] != before[KERNELS[0]]
    image = manage.read_image(host, "/boot/initrd.img-" + KERNELS[0], ())
    assert "etc/new" in image.names and tools.gone(image) == []


def test_originals_are_not_kept_where_there_is_little_room(host, monkeypatch):
    os.makedirs(host.path("/var/lib"))
    monkeypatch.setattr(edits, "room", lambda dummy, path: ("/var/lib", 1, False, 100 << 20))
    go(host)
    assert not host.exists(manage.ORIGINALS)


# -- an image beside the others ------------------------------------------------------------


def test_an_image_at_another_path_with_another_list(host):
    text = asked.render([asked.identity(AUDIO)])
    host.remove(asked.DEVICES)
    host.write("/run/list", text)
    for path, content, mode in tools.files():
        host.write(path, content, mode=mode)
    before = images_of(host)
    manage.build_image(host, tools, KERNELS[0], "/boot/vfio-host-trial.img", 60, devices_path="/run/list")
    image = manage.read_image(host, "/boot/vfio-host-trial.img", tools.wanted_paths())
    assert image.files[tools.IN_IMAGE_DEVICES] == text.encode()
    assert images_of(host) == before
    assert host.stat("/boot/vfio-host-trial.img").st_mode & 0o777 == 0o600


def test_without_its_hook_such_an_image_is_refused(host):
    host.write("/run/list", DEVICES)
    with pytest.raises(HostError, match="our script is not in it"):
        manage.build_image(host, tools, KERNELS[0], "/boot/vfio-host-trial.img", 60, devices_path="/run/list")
    assert not host.exists("/boot/vfio-host-trial.img")


@pytest.mark.parametrize("loader, replaced", [(systemd_boot, True), (uki_loader, True), (grub, False)])
def test_a_hook_that_rewrites_what_boots_in_place_is_not_run(host, loader, replaced):
    hooks = "/etc/initramfs/post-update.d/"
    for name, mode in (("systemd-boot", 0o755), ("zz-flash", 0o755), ("notes.txt", 0o755), ("off", 0o644)):
        host.write(hooks + name, "", mode=mode)
    without = getattr(loader, "REPLACED_HOOKS", ())
    tools.published(host, KERNELS[0], "/boot/initrd.img-" + KERNELS[0], 60, without)
    ours = [argv for argv in host.calls if hooks[:-1] in argv[0] or argv[0] == "run-parts"]
    if replaced:
        assert ours == [[hooks + "zz-flash", KERNELS[0], "/boot/initrd.img-" + KERNELS[0]]]
    else:
        assert [argv[0] for argv in ours] == ["run-parts"]


def test_the_loader_says_which_hooks_it_replaces(host, monkeypatch):
    asked_for = []
    monkeypatch.setattr(tools, "published", lambda *args: asked_for.append(args[-1]))
    loader = Loader()
    loader.REPLACED_HOOKS = ("systemd-boot",)
    go(host, loader=loader)
    assert asked_for == [("systemd-boot",)] * len(KERNELS)


def test_what_follows_a_new_image_runs_with_its_final_name(host):
    host.write("/etc/initramfs/post-update.d/zz-flash", "")
    host.write(tools.STATE + KERNELS[0], "old")
    go(host)
    assert [argv for argv in host.calls if argv[-1] == "/etc/initramfs/post-update.d"][1] == [
        "run-parts", "--arg=" + KERNELS[0], "--arg=/boot/initrd.img-" + KERNELS[0], "/etc/initramfs/post-update.d",
    ]  # fmt: skip
    assert host.read(tools.STATE + KERNELS[0]) == "0" * 40 + "  /boot/initrd.img-%s\n" % KERNELS[0]
    assert not host.exists(tools.STATE + KERNELS[1])
