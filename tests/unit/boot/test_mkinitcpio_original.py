# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real mkinitcpio on a made-up tree, beside the stand-in of test_mkinitcpio.py: what one does, the other does.

Runs where VFIO_HOST_MKINITCPIO names a folder with mkinitcpio's sources (a checkout, nothing built). The
stand-in's own tests need none of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage, mkinitcpio
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import test_mkinitcpio as stand_in

SOURCE = os.environ.get("VFIO_HOST_MKINITCPIO")

pytestmark = pytest.mark.skipif(
    not SOURCE or not all(shutil.which(name) for name in ("bsdtar", "busybox")),
    reason="VFIO_HOST_MKINITCPIO names no sources of mkinitcpio, or bsdtar or busybox is missing",
)

BASE = r"""
build() {
    add_file "%(busybox)s" /usr/bin/busybox
    for applet in sh ash readlink sleep od modprobe; do add_symlink "/usr/bin/$applet" busybox; done
    add_file "%(source)s/init" /init
}
"""
UDEV = "build() { add_runscript; }\n"
SYSTEMD = "build() { add_file - /usr/lib/systemd/systemd 755 < /dev/null; }\n"
RUNTIME = "run_earlyhook() {\n    :\n}\n"

MODINFO = r"""#!/bin/bash
# -b ROOT -k VERSION -0 NAME, as mkinitcpio calls it
name=${!#//-/_}
for path in "%(root)s/lib/modules/$4/kernel/"*.ko; do
    base=${path##*/}; base=${base%%.ko}
    if [[ ${base//-/_} == "$name" ]]; then
        printf 'filename:%%s\0depends:\0' "$path"
        exit 0
    fi
done
exit 1
"""


class Real(stand_in.Machine):
    """As the stand-in, but commands are run: mkinitcpio itself, with every folder below the tree."""

    def __init__(self, root):
        super().__init__(root)
        outside = self.root
        library = outside + "/usr/lib/initcpio"
        shutil.copytree(SOURCE, library, ignore=shutil.ignore_patterns(".git", "test", "man"), dirs_exist_ok=True)
        for name in ("install", "hooks"):
            shutil.rmtree("%s/%s" % (library, name))
            os.makedirs("%s/%s" % (library, name))
        busybox = os.path.realpath(shutil.which("busybox"))
        stubs = {"install/base": BASE % {"busybox": busybox, "source": library}, "install/udev": UDEV,
                 "hooks/udev": RUNTIME, "install/systemd": SYSTEMD, "install/autodetect": "build() { :; }\n"}
        for name, text in stubs.items():
            self.write("/usr/lib/initcpio/" + name, text, mode=0o755)
        for name in ("kernel/amdgpu.ko", "modules.builtin", "modules.builtin.modinfo", "modules.order"):
            self.write("/lib/modules/%s/%s" % (stand_in.KERNEL, name), "")
        self.write("/bin/modinfo", MODINFO % {"root": outside}, mode=0o755)
        self.write("/bin/depmod", "#!/bin/sh\nexit 0\n", mode=0o755)
        text = self.read("/usr/lib/initcpio/mkinitcpio")
        for name, value in (
            ("BINDIR", outside + "/bin:/usr/sbin:/usr/bin"), ("SYSCONFDIR", outside + "/etc"),
            ("INITCPIO_LIBDIR", library),
            ("INITCPIO_SYSCONFDIR", outside + "/etc/initcpio"), ("VERSION", "41"),
        ):
            text = text.replace("@%s@" % name, value)
        for name, value in (  # releases up to 39 have these lines, which their Makefile replaces
            ("_f_functions", library + "/functions"), ("_f_config", outside + "/etc/mkinitcpio.conf"),
            ("_d_config", outside + "/etc/mkinitcpio.conf.d"), ("_d_presets", outside + "/etc/mkinitcpio.d"),
            ("_d_hooks", "%s/etc/initcpio/hooks:%s/hooks" % (outside, library)),
            ("_d_install", "%s/etc/initcpio/install:%s/install" % (outside, library)),
            ("PATH", outside + "/bin:/usr/sbin:/usr/bin"), ("export PATH", outside + "/bin:/usr/sbin:/usr/bin"),
        ):
            if "%VERSION%" in text:
                text = re.sub(r"(?m)^%s=.*$" % name, '%s="%s"' % (name, value), text)
        self.write("/usr/bin/mkinitcpio", text, mode=0o755)
        for version, path in self.made.items():
            self.run(["mkinitcpio", "-k", version, "-g", path])

    def image(self, version, path, devices=asked.DEVICES, config=None):
        self.made = dict(getattr(self, "made", {}), **{version: path})
        self.write(path, "")

    def command(self, argv, stdin, env=None):
        self.calls.append((argv, env))
        outside = [self.path(word) if word.startswith("/boot") else word for word in argv[1:]]
        # the hook names its files by their place on a host
        path = self.path(mkinitcpio.INSTALL)
        text = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as handle:
                text = handle.read()
            changed = text.replace("add_file /etc/", "add_file %s/etc/" % self.root)
            changed = changed.replace(":-/etc/", ":-%s/etc/" % self.root)
            with open(path, "w", encoding="utf-8") as handle:
                handle.write(changed)
        more = {key: self.path(value) for key, value in (env or {}).items()}
        try:
            done = subprocess.run(
                ["bash", self.path("/usr/bin/mkinitcpio"), "-r", self.root] + outside, capture_output=True, text=True,
                check=False, timeout=120, env=dict(os.environ, LC_ALL="C", **more),
            )
        finally:
            if text is not None:
                with open(path, "w", encoding="utf-8") as handle:
                    handle.write(text)
        return Result(argv, done.returncode, done.stdout, done.stderr)


def both(tmp_path):
    for kind in (stand_in.Machine, Real):
        (tmp_path / kind.__name__).mkdir()
    return [kind(str(tmp_path / kind.__name__)) for kind in (stand_in.Machine, Real)]


def read(host, path="/boot/initramfs-linux.img"):
    return manage.read_image(host, path, mkinitcpio.wanted_paths())


OURS = {
    "etc/vfio-host/devices", "usr/lib/vfio-host/bind", "hooks/vfio-host",
    "usr/lib/systemd/system/vfio-host.service", "usr/lib/systemd/system/sysinit.target.wants/vfio-host.service",
    mkinitcpio.IN_IMAGE_BACK, mkinitcpio.IN_IMAGE_BACK_UNIT, mkinitcpio.IN_IMAGE_BACK_WANT,
}


@pytest.mark.parametrize("second", ["udev", "systemd"])
def test_an_image_has_of_ours_what_the_stand_ins_has(tmp_path, second):
    seen = []
    for host in both(tmp_path):
        host.write("/etc/mkinitcpio.conf", "HOOKS=(base %s)\nMODULES=()\n" % second)
        result = stand_in.go(host)
        image = read(host)
        assert mkinitcpio.problems(image, host.read_bytes(asked.DEVICES)) == []
        seen.append({
            "changed": result["changed"],
            "rebuilt": [item["rebuilt"] for item in result["images"]],
            "ours": OURS & image.names,
            "early": mkinitcpio.early_hooks(image.files["config"]) if second == "udev" else None,
            "emergency": mkinitcpio.early_hooks(image.files["config"], "EMERGENCYHOOKS"),
            "files": {path: image.files[path] for path in OURS if path in image.files},
            "modules": {name.rsplit("/", 1)[1] for name in image.names if "vfio" in name and ".ko" in name},
            "again": stand_in.go(host)["changed"],
        })
        assert stand_in.go(host, "absent")["changed"] is True
        assert mkinitcpio.gone(read(host)) == []
    assert seen[0] == seen[1]
    assert seen[1]["ours"] == OURS


def test_both_end_with_one_when_a_hook_is_missing(tmp_path):
    said = []
    for host in both(tmp_path):
        host.write("/etc/mkinitcpio.conf", "HOOKS=(base udev no-such-hook)\n")
        with pytest.raises(HostError) as caught:
            stand_in.go(host)
        said.append("ended with 1" in str(caught.value))
    assert said == [True, True]


def test_both_read_no_drop_in_when_a_configuration_is_named(tmp_path):
    for host in both(tmp_path):
        host.write("/etc/mkinitcpio.conf", "HOOKS=(base udev)\n")
        host.write("/boot/own.conf", "HOOKS=(base udev)\n")
        for path, text, mode in mkinitcpio.files():
            host.write(path, text, mode=mode)
        host.run(["mkinitcpio", "-k", stand_in.KERNEL, "-c", "/boot/own.conf", "-g", "/boot/initramfs-linux.img"])
        assert mkinitcpio.gone(read(host)) == []


def test_another_list_goes_through_the_environment(tmp_path):
    for host in both(tmp_path):
        host.write("/etc/mkinitcpio.conf", "HOOKS=(base udev)\n")
        stand_in.go(host)
        text = asked.render([])
        host.write("/run/list", text)
        manage.build_image(host, mkinitcpio, stand_in.KERNEL, "/boot/trial.img", 60, devices_path="/run/list")
        assert read(host, "/boot/trial.img").files["etc/vfio-host/devices"] == text.encode()
