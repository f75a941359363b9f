# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dracut, with a stand-in that runs our real module-setup.sh under bash as dracut does."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import dracut, manage, script
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU

KERNELS = ("6.12.1-a", "6.11.0-b")
LIST = asked.render([asked.identity(GPU), asked.identity(dict(AUDIO, driver="mlx5_vfio_pci"))])

STAND_IN = r"""
# dracut's functions, which say what they were asked for; "modinfo" knows the modules in $HAS.
set -u
initdir=/initdir kernel=$1 moddir=$2 hostonly=-h
instmods() { echo "instmods hostonly=$hostonly $*"; }
inst_simple() { echo "file $1 $2"; }
inst_multiple() { echo "multiple $*"; }
inst_hook() { echo "hook $1 $2 $3"; }
modinfo() { [[ " $HAS " == *" $3 "* ]]; }
source "$2/module-setup.sh"
check || exit 9
depends
installkernel || exit 8
install || exit 7
"""


def setup(root, devices, kernel="6.12.1-a", has="vfio_pci"):
    """What dracut is asked for by our module, as lines."""
    path = os.path.join(root, "module-setup.sh")
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(dracut.SETUP_TEXT)
    done = subprocess.run(
        ["bash", "-c", STAND_IN, "dracut", kernel, root], timeout=30, capture_output=True, text=True, check=False,
        env=dict(os.environ, HAS=has, **({asked.VARIABLE: devices} if devices else {})),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class Machine(Host):
    """A recorded host on which dracut builds what our module asks for, at the path that it is given."""

    hooks = "var/lib/dracut/hooks/"

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.systemd = True
        self.omitted = set()
        self.write("/usr/bin/dracut", "")
        self.write("/usr/lib/dracut/modules.d/99base/module-setup.sh", "")
        self.write("/usr/lib/kernel/install.d/50-dracut.install", "")
        self.write(asked.DEVICES, LIST)
        for version in KERNELS:
            self.write("/lib/modules/%s/vmlinuz" % version, "")
            self.write("/lib/modules/%s/modules.dep" % version, "".join(
                "kernel/drivers/vfio/%s.ko.xz:\n" % name
                for name in ("pci/vfio-pci", "vfio", "vfio_iommu_type1", "pci/mlx5/mlx5-vfio-pci")))
            self.image(version, "/boot/initramfs-%s.img" % version)

    def image(self, version, path, devices=asked.DEVICES):
        files = {"early_cpio": b"1", "usr/lib/modules/%s/kernel/fs/ext4/ext4.ko" % version: b""}
        files.update({"usr/bin/" + name: b"" for name in ("sh", "modprobe", "readlink", "sleep")})
        if self.systemd:
            files["usr/lib/systemd/systemd"] = b""
            files["usr/lib/systemd/system/initrd.target.wants/dracut-pre-udev.service"] = b""
        if self.exists(dracut.CONFIGURATION) and self.exists(dracut.MODULE + "/module-setup.sh"):
            for line in setup(self.path(dracut.MODULE), self.path(devices), version, "mlx5_vfio_pci"):
                words = line.split()
                if words[0] == "file":
                    files[words[2].lstrip("/")] = self.outside(words[1])
                elif words[0] == "hook":
                    name = "%s/%s-%s" % (words[1], words[2], os.path.basename(words[3]))
                    files[self.hooks + name] = self.outside(words[3])
                elif words[0] == "instmods":
                    for name in words[2:]:
                        files["usr/lib/modules/%s/kernel/drivers/vfio/%s.ko.xz" % (version, name)] = b""
        for name in self.omitted:
            files = {path: data for path, data in files.items() if name not in path}
        early = archive({"kernel/x86/microcode/GenuineIntel.bin": b"x"})
        self.write(path, early + gzip.compress(archive(files)))

    @staticmethod
    def outside(path):
        with open(path, "rb") as handle:
            return handle.read()

    def command(self, argv, stdin, env=None):
        self.calls.append((argv, env))
        self.image(argv[-1], argv[-2], (env or {}).get(asked.VARIABLE, asked.DEVICES))
        return Result(argv, 0)


@pytest.fixture
def host(tmp_path):
    return Machine(str(tmp_path))


class Loader:
    NAME = "loader"

    @staticmethod
    def view(dummy):
        return loaders.view([])

    @staticmethod
    def refresh(dummy, kernels):
        assert kernels


def go(host, state="present", check=False, generator="auto"):
    params = {"state": state, "generator": generator, "rebuild_timeout": 900, "devices_content": None}
    return manage.run(host, params, check, Loader)


@pytest.mark.parametrize("hooks", dracut.HOOK_FOLDERS)
def test_every_kernel_gets_it_wherever_dracut_puts_hooks(host, hooks):
    host.hooks = hooks
    predicted = go(host, check=True)
    done = go(host)
    assert predicted == done and done["generator"] == "dracut"
    assert [argv[-1] for argv, dummy in host.calls] == sorted(KERNELS)
    assert host.calls[0] == (
        ["dracut", "--quiet", "--force", "--no-uefi", "/boot/.vfio-host-new-initramfs-6.11.0-b.img", "6.11.0-b"],
        {"NO_POST_UPDATE_HOOKS": "1"},
    )
    image = manage.read_image(host, "/boot/initramfs-6.12.1-a.img", dracut.wanted_paths())
    assert image.files[dracut.IN_IMAGE_SCRIPT] == script.TEXT.encode()
    assert "usr/lib/modules/6.12.1-a/kernel/drivers/vfio/mlx5_vfio_pci.ko.xz" in image.names
    host.calls.clear()
    assert go(host)["changed"] is False and host.calls == []


def test_absent_takes_it_out_with_its_folder(host):
    go(host)
    done = go(host, "absent")
    assert done["changed"] is True
    for path, dummy, dummy2 in dracut.files():
        assert not host.exists(path)
    assert not host.exists(dracut.MODULE)
    for version in KERNELS:
        assert dracut.gone(manage.read_image(host, "/boot/initramfs-%s.img" % version, ())) == []
    assert go(host, "absent")["changed"] is False


@pytest.mark.parametrize(
    "omitted, reason",
    [
        ("vfio-pci", "the module vfio_pci is not in it"),
        ("vfio_pci", "the module mlx5_vfio_pci is not in it"),
        ("initrd.target.wants", "systemd in it does not start dracut-pre-udev.service"),
        ("00-vfio-host.sh", "the hook pre-udev/00-vfio-host.sh is not in it"),
        ("vfio-host/bind", "our script is not in it"),
        ("vfio-host/devices", "its /etc/vfio-host/devices is not the one of the host"),
        ("bin/readlink", "the command readlink is not in it"),
    ],
)
def test_an_image_that_lacks_something_is_a_failure_and_the_old_one_stays(host, omitted, reason):
    if omitted == "vfio-pci":
        omitted = "/vfio_pci"
    before = host.read_bytes("/boot/initramfs-6.11.0-b.img")
    host.omitted.add(omitted)
    with pytest.raises(HostError, match=reason):
        go(host)
    assert host.read_bytes("/boot/initramfs-6.11.0-b.img") == before
    assert not host.exists(dracut.MODULE) and not host.exists(dracut.CONFIGURATION)


def test_without_systemd_the_init_of_dracut_runs_the_hook(host):
    host.systemd = False
    assert go(host)["changed"] is True


def test_another_list_for_an_image_beside_the_others(host):
    go(host)
    text = asked.render([asked.identity(AUDIO)])
    host.write("/run/list", text)
    manage.build_image(host, dracut, KERNELS[0], "/boot/trial.img", 60, devices_path="/run/list")
    assert host.calls[-1][1] == {"NO_POST_UPDATE_HOOKS": "1", asked.VARIABLE: "/run/list"}
    image = manage.read_image(host, "/boot/trial.img", dracut.wanted_paths())
    assert image.files[dracut.IN_IMAGE_DEVICES] == text.encode()


# -- what builds the images ----------------------------------------------------------------


def test_a_kernel_install_layout_is_found(host):
    for version in KERNELS:
        host.remove("/boot/initramfs-%s.img" % version)
        host.write("/efi/0123456789abcdef0123456789abcdef/%s/initrd" % version, "")
    found, without = dracut.images(host)
    assert [item["path"] for item in found] == [
        "/efi/0123456789abcdef0123456789abcdef/%s/initrd" % version for version in sorted(KERNELS)]
    assert without == []


def test_debian_names_its_images_otherwise_and_modules_alone_are_no_kernel(host):
    host.write("/boot/initrd.img-" + KERNELS[0], "")
    host.remove("/boot/initramfs-%s.img" % KERNELS[1])
    host.write("/lib/modules/6.0-dkms-only/modules.dep", "")
    found, without = dracut.images(host)
    assert [item["path"] for item in found] == ["/boot/initrd.img-" + KERNELS[0]]
    assert without == [KERNELS[1]]


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda host: host.remove("/usr/bin/dracut"), "no command dracut"),
        (lambda host: shutil.rmtree(host.path("/usr/lib/dracut")), "no /usr/lib/dracut/modules.d"),
        (lambda host: host.remove("/usr/lib/kernel/install.d/50-dracut.install"), "nothing has it build the image"),
        (
            lambda host: host.write("/etc/kernel/install.conf", "layout=bls\ninitrd_generator=mkinitcpio\n"),
            "initrd_generator=mkinitcpio in /etc/kernel/install.conf",
        ),
        (
            lambda host: (host.write("/usr/bin/mkinitcpio", ""), host.write("/etc/mkinitcpio.d/linux.preset", "")),
            "mkinitcpio has presets",
        ),
        (
            lambda host: (host.write("/usr/sbin/update-initramfs", "mkinitramfs"),
                          host.write("/usr/share/initramfs-tools/init", "")),
            "/usr/sbin/update-initramfs builds the images",
        ),
    ],
)
def test_dracut_that_is_only_installed_does_not_count(host, change, reason):
    change(host)
    found, against = dracut.evidence(host)
    assert found == [] and reason in against[0]


def test_remnants_of_another_one_are_named_when_nothing_fits(host):
    host.write("/etc/kernel/install.conf", "initrd_generator=booster\n")
    host.write("/usr/bin/booster", "")
    with pytest.raises(HostError, match="initrd_generator=booster.*found booster"):
        go(host)
    assert go(host, generator="dracut")["changed"] is True


# -- the module of ours --------------------------------------------------------------------


def lines_of(tmp_path, text, **more):
    path = tmp_path / "list"
    path.write_text(text)
    return setup(str(tmp_path), str(path), **more)


def test_without_a_list_nothing_goes_into_an_image(tmp_path):
    assert setup(str(tmp_path), str(tmp_path / "none")) == []


def test_modules_go_into_host_only_images_too(tmp_path):
    lines = lines_of(tmp_path, LIST, has="mlx5_vfio_pci vfio_virqfd")
    assert [line for line in lines if line.startswith("instmods")] == [
        "instmods hostonly= vfio_pci vfio vfio_iommu_type1",
        "instmods hostonly= vfio_virqfd",
        "instmods hostonly= mlx5_vfio_pci",
    ]
    assert [line for line in lines if line.startswith("hook")] == ["hook pre-udev 00 %s/vfio-host.sh" % tmp_path]


def test_what_the_kernel_does_not_have_is_not_asked_for(tmp_path):
    lines = lines_of(tmp_path, LIST, has="")
    assert [line for line in lines if line.startswith("instmods")] == [
        "instmods hostonly= vfio_pci vfio vfio_iommu_type1"
    ]


def test_a_strange_name_of_a_driver_is_not_run(tmp_path):
    text = LIST + "0000:09:00.0 1234 1111 1af4 1100 - $(touch${IFS}x)vfio_pci\n"
    assert len(lines_of(tmp_path, text, has="")) == len(lines_of(tmp_path, LIST, has=""))


def test_the_hook_leaves_the_shell_that_runs_the_boot_alone(tmp_path):
    """dracut reads hooks into its own shell: an exit there would end the boot's."""
    script_path = tmp_path / "bind"
    script_path.write_text("#!/bin/sh\nlist=changed\nexit 3\n")
    hook = tmp_path / "hook.sh"
    hook.write_text(dracut.HOOK_TEXT.replace("/usr/lib/vfio-host/bind", str(script_path)))
    done = subprocess.run(
        ["sh", "-euc", 'list=kept; . "$1"; echo "$list"', "sh", str(hook)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "kept\n", "")


@pytest.mark.parametrize("text", [dracut.SETUP_TEXT, dracut.HOOK_TEXT], ids=["setup", "hook"])
def test_shellcheck_is_content(tmp_path, text):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    path = tmp_path / "script"
    path.write_text(text)
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
