# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import initramfs_tools as tools
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU

DEVICES = asked.render([asked.identity(GPU)])
KERNELS = ("6.1.0-50-amd64", "6.0.0-1-amd64")
MODULES = "usr/lib/modules/6.1/kernel/drivers/vfio/"


class Builder(Host):
    """A recorded Debian host on which update-initramfs puts into an image what the real one does."""

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.fail = None
        self.order = None
        self.built = 0
        self.write("/usr/sbin/update-initramfs", "mkinitramfs ${OPTS}\n")
        self.write("/usr/share/initramfs-tools/init", "")
        self.write(asked.DEVICES, DEVICES)
        for version in KERNELS:
            self.write("/boot/vmlinuz-" + version, "")
            self.write("/lib/modules/%s/modules.builtin" % version, "kernel/drivers/pci/pci-stub.ko\n")
            self.image(version)
        self.write("/boot/vmlinuz-5.0-removed", "")
        self.write("/boot/initrd.img-5.0-removed", "")

    def image(self, version):
        files = {"init": b"", "scripts/init-top/udev": b""}
        scripts = ["udev"]
        if self.exists(tools.SCRIPT):
            files[tools.IN_IMAGE_SCRIPT] = self.read_bytes(tools.SCRIPT)
            scripts.insert(0, "00-vfio-host")
        if self.exists(tools.HOOK) and self.exists(asked.DEVICES):
            files[tools.IN_IMAGE_DEVICES] = self.read_bytes(asked.DEVICES)
            for name in ("pci/vfio-pci.ko", "vfio.ko", "vfio_iommu_type1.ko.xz"):
                files[MODULES + name] = b""
        scripts = self.order or scripts
        files[tools.IN_IMAGE_ORDER] = "".join(
            '/scripts/init-top/%s "$@"\n[ -e /conf/param.conf ] && . /conf/param.conf\n' % name for name in scripts
        ).encode()
        self.built += 1
        files["build"] = b"x" * self.built  # two builds are never alike
        self.write("/boot/initrd.img-" + version, gzip.compress(archive(files)))

    def command(self, argv, stdin):
        self.calls.append(argv)
        if self.fail is not None:
            return self.fail(argv)
        self.image(argv[-1])
        return Result(argv, 0, "update-initramfs: Generating\n", "")

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

    def spy(host, path, wanted, timeout):
        paths.append(path)
        return real(host, path, wanted, timeout)

    monkeypatch.setattr(manage, "read_image", spy)
    return paths


def go(host, state="present", check=False, **more):
    params = {"state": state, "generator": "auto", "rebuild_timeout": 900, "devices_content": None}
    return manage.run(host, dict(params, **more), check)


def test_check_predicts_and_touches_nothing_then_the_run_does_it(host):
    before = host.tree()
    predicted = go(host, check=True)
    assert host.tree() == before
    done = go(host)
    assert predicted == done
    assert done["changed"] is done["reboot_required"] is True
    assert host.calls == [["update-initramfs", "-u", "-k", version] for version in sorted(KERNELS)]
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
    assert host.calls == [["update-initramfs", "-u", "-k", KERNELS[0]]]
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
    host.fail = lambda argv: Result(argv, 0, "", "W: /boot is ro mounted.")
    before = host.tree()
    with pytest.raises(HostError, match="our script is not in it.*ro mounted"):
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
        host.write("/boot/initrd.img-%s.new" % argv[-1], "half")
        return Result(argv, 1, "", "No space left on device")

    host.fail = fail
    with pytest.raises(HostError, match="No space left.*already rebuilt: none; not rebuilt: 6"):
        go(host)
    after = host.tree()
    assert {path: entry[:2] for path, entry in before.items()} == {path: entry[:2] for path, entry in after.items()}


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
    host.calls.clear()
    assert go(host, "absent")["changed"] is False
    assert host.calls == []


def test_a_killed_removal_is_finished_by_the_next_run(host):
    go(host)
    host.remove(tools.HOOK)
    host.remove(tools.SCRIPT)
    assert go(host, "absent")["changed"] is True
    assert len(host.calls) == 4


def test_an_image_that_keeps_ours_on_removal_is_a_failure(host):
    go(host)
    host.fail = lambda argv: Result(argv, 0, "", "")
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
        ("/usr/sbin/update-initramfs", None, r"no /usr/sbin/update-initramfs\), found dracut"),
        ("/usr/sbin/update-initramfs", "exec dracut\n", "another generator's.*found dracut"),
        ("/usr/share/initramfs-tools/init", None, "no /usr/share/initramfs-tools/init"),
    ],
)
@pytest.mark.parametrize("generator", ["auto", "initramfs-tools"])
def test_other_generators_are_refused(host, path, text, reason, generator):
    host.write("/usr/bin/dracut", "")
    host.remove(path) if text is None else host.write(path, text)
    with pytest.raises(HostError, match=reason):
        go(host, generator=generator)


def test_modules_may_be_built_in(host):
    go(host)
    image = manage.read_image(host, "/boot/initrd.img-" + KERNELS[0], tools.wanted_paths())
    image.names = {name for name in image.names if ".ko" not in name}
    missing = ["the module %s is not in it" % name for name in tools.MODULES]
    assert tools.problems(image, DEVICES.encode(), set()) == missing
    assert tools.problems(image, DEVICES.encode(), set(tools.MODULES)) == []
    for version in KERNELS:
        host.write("/lib/modules/%s/modules.builtin" % version, "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert "vfio_pci" in tools.builtin_modules(host, KERNELS[0])


def test_without_a_list_the_image_holds_none(host):
    host.remove(asked.DEVICES)
    assert go(host)["changed"] is True
    assert go(host)["changed"] is False
