# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mkinitcpio, with a stand-in that runs our real install hook under bash as mkinitcpio does."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage, mkinitcpio, script
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU

KERNEL = "6.12.1-arch1-1"
LIST = asked.render([asked.identity(GPU), asked.identity(dict(AUDIO, driver="mlx5_vfio_pci"))])
PRESET = """\
# mkinitcpio preset file for the 'linux' package

#ALL_config="/etc/mkinitcpio.conf"
ALL_kver="/boot/vmlinuz-linux"

PRESETS=('default' 'fallback')

default_image="/boot/initramfs-linux.img"
#default_uki="/efi/EFI/Linux/arch-linux.efi"
fallback_image="/boot/initramfs-linux-fallback.img"
fallback_options="-S autodetect"
"""

STAND_IN = r"""
# mkinitcpio's functions, which say what they were asked for; add_module knows what is in $HAS.
add_file() { echo "file $1 $2 $3"; }
add_dir() { :; }
add_symlink() { echo "link $1 $2"; }
add_runscript() { echo "runscript"; }
add_module() {
    local name=${1%\?}
    name=${name//-/_}
    if [[ " $HAS " == *" $name "* ]]; then echo "module $name"; elif [[ $1 != *\? ]]; then echo "error $1"; fi
}
map() { local f=$1 a; shift; for a in "$@"; do "$f" "$a"; done; }
source "$1"
build
"""


def install(path, devices, has):
    """What mkinitcpio is asked for by our install hook, as lists of words. ``devices``: another list, or None."""
    done = subprocess.run(
        ["bash", "-c", STAND_IN, "mkinitcpio", path], timeout=30, capture_output=True, text=True, check=False,
        env=dict(os.environ, HAS=has, **({asked.VARIABLE: devices} if devices else {})),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


class Machine(Host):
    """A recorded Arch host on which mkinitcpio reads its configuration, then its drop-ins, and builds."""

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.has = "vfio_pci vfio vfio_iommu_type1 mlx5_vfio_pci"
        self.write("/usr/bin/mkinitcpio", "_d_config --nopost\n")
        self.write("/etc/mkinitcpio.conf", "HOOKS=(base udev autodetect)\nMODULES=(amdgpu)\n")
        self.write("/etc/mkinitcpio.d/linux.preset", PRESET)
        self.write("/boot/vmlinuz-linux", "")
        self.write(asked.DEVICES, LIST)
        self.write("/lib/modules/%s/pkgbase" % KERNEL, "linux\n")
        self.write("/lib/modules/%s/vmlinuz" % KERNEL, "")
        names = self.has.split()
        for name in names:
            self.write("/lib/modules/%s/kernel/%s.ko" % (KERNEL, name), "")
        self.write("/lib/modules/%s/modules.dep" % KERNEL, "".join("kernel/%s.ko:\n" % name for name in names))
        for path in ("/boot/initramfs-linux.img", "/boot/initramfs-linux-fallback.img"):
            self.image(KERNEL, path)

    def hooks(self, config):
        """The words of HOOKS: of the configuration and, only when none is named, of the drop-ins."""
        paths = [config or "/etc/mkinitcpio.conf"]
        if not config:
            folder = "/etc/mkinitcpio.conf.d"
            paths += ["%s/%s" % (folder, name) for name in self.listdir(folder) if name.endswith(".conf")]
        found = []
        for path in paths:
            match = re.search(r"^HOOKS=\((.*)\)$", self.read(path), re.M)
            if match:
                words = match.group(1).split()
                found = [word for item in words for word in (found if item == '"${HOOKS[@]}"' else [item])]
        return found

    def image(self, version, path, devices=asked.DEVICES, config=None):
        hooks = self.hooks(config)
        early = []
        emergency = []
        files = {"usr/bin/" + name: b"" for name in ("sh", "modprobe", "readlink", "sleep")}
        for hook in hooks:
            if hook == "udev":
                early.append(hook)
            elif hook == "systemd":
                files["usr/lib/systemd/systemd"] = b""
            elif hook == "vfio-host":
                self.ours(version, files, early, emergency, devices)
            elif hook not in ("base", "autodetect"):
                return 1
        text = 'EARLYHOOKS="%s"\n' % "".join(" " + name for name in early)
        files["config"] = (text + 'EMERGENCYHOOKS="%s"\n' % " ".join(emergency)).encode()
        self.write(path, gzip.compress(archive(files)))
        return 0

    def ours(self, version, files, early, emergency, devices):
        for words in install(self.path(mkinitcpio.INSTALL), self.path(devices), self.has):
            if words[0] == "file":
                inside = words[1] if words[1].startswith("/etc/initcpio") else devices
                files[words[2].lstrip("/")] = self.read_bytes(inside)
            elif words[0] == "link":
                files[words[1].lstrip("/")] = b""
            elif words[0] == "module":
                files["usr/lib/modules/%s/kernel/%s.ko" % (version, words[1])] = b""
            elif words[0] == "runscript":
                files[mkinitcpio.IN_IMAGE_HOOK] = self.read_bytes(mkinitcpio.HOOK)
                for point, names in (("early", early), ("emergency", emergency)):
                    if "run_%shook() {" % point in self.read(mkinitcpio.HOOK):
                        names.append("vfio-host")

    def command(self, argv, stdin, env=None):
        self.calls.append((argv, env))
        options = dict(zip(argv, argv[1:]))
        code = self.image(
            options["-k"], options["-g"], (env or {}).get(asked.VARIABLE, asked.DEVICES), options.get("-c"))
        return Result(argv, code, "", "Hook 'x' cannot be found" if code else "")


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


def go(host, state="present", check=False):
    params = {"state": state, "generator": "auto", "rebuild_timeout": 900, "devices_content": None}
    return manage.run(host, params, check, Loader)


def test_every_image_of_every_preset_gets_it(host):
    predicted = go(host, check=True)
    done = go(host)
    assert predicted == done and done["generator"] == "mkinitcpio"
    assert done["evidence"] == ["/etc/mkinitcpio.d/linux.preset"]
    new = "/boot/.vfio-host-new-initramfs-linux"
    assert [argv for argv, dummy in host.calls] == [
        ["mkinitcpio", "--nocolor", "-k", KERNEL, "-g", new + "-fallback.img", "-S", "autodetect", "--nopost"],
        ["mkinitcpio", "--nocolor", "-k", KERNEL, "-g", new + ".img", "--nopost"],
    ]
    image = manage.read_image(host, "/boot/initramfs-linux.img", mkinitcpio.wanted_paths())
    assert image.files[mkinitcpio.IN_IMAGE_SCRIPT] == script.TEXT.encode()
    assert mkinitcpio.early_hooks(image.files["config"]) == ["vfio-host", "udev"]
    host.calls.clear()
    assert go(host)["changed"] is False and host.calls == []


def test_absent_takes_it_out(host):
    go(host)
    assert go(host, "absent")["changed"] is True
    assert not any(host.exists(path) for path, dummy, dummy2 in mkinitcpio.files())
    assert not host.exists(mkinitcpio.FOLDER)
    assert mkinitcpio.gone(manage.read_image(host, "/boot/initramfs-linux.img", ())) == []
    assert go(host, "absent")["changed"] is False


def test_with_systemd_a_unit_runs_it_before_udev(host):
    host.write("/etc/mkinitcpio.conf", "HOOKS=(base systemd autodetect)\n")
    assert go(host)["changed"] is True
    image = manage.read_image(host, "/boot/initramfs-linux.img", mkinitcpio.wanted_paths())
    unit = image.files[mkinitcpio.IN_IMAGE_UNIT].decode()
    assert "Before=systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service\n" in unit
    assert "DefaultDependencies=no" in unit and "TimeoutStartSec=" in unit and "ExecStart=-/bin/sh " in unit
    image.names.discard(mkinitcpio.IN_IMAGE_WANT)
    assert "systemd in it does not start vfio-host.service" in mkinitcpio.problems(image, LIST.encode())


def test_a_drop_in_that_sets_hooks_anew_after_ours_is_a_failure(host):
    host.write("/etc/mkinitcpio.conf.d/95-mine.conf", "HOOKS=(base udev)\n")
    before = host.read_bytes("/boot/initramfs-linux-fallback.img")
    with pytest.raises(HostError, match="our script is not in it"):
        go(host)
    assert host.read_bytes("/boot/initramfs-linux-fallback.img") == before
    assert not host.exists(mkinitcpio.CONFIGURATION)


def test_udev_before_our_hook_is_a_failure(host):
    host.write("/etc/mkinitcpio.conf.d/95-mine.conf", "HOOKS=(base udev vfio-host)\n")
    with pytest.raises(HostError, match="it runs udev before our hook"):
        go(host)


def test_an_image_that_may_not_be_complete_is_a_failure(host):
    host.write("/etc/mkinitcpio.conf", "HOOKS=(base udev no-such-hook)\n")
    with pytest.raises(HostError, match="ended with 1"):
        go(host)


def test_a_preset_that_names_a_configuration_is_refused_since_no_drop_in_is_read(host):
    host.write("/etc/mkinitcpio.d/linux.preset", PRESET.replace("#ALL_config", "ALL_config"))
    with pytest.raises(HostError, match="linux.preset names the configuration /etc/mkinitcpio.conf for default"):
        go(host)
    assert not host.exists(mkinitcpio.HOOK)


def test_an_old_one_that_reads_no_drop_ins_is_refused(host):
    host.write("/usr/bin/mkinitcpio", "#!/bin/bash\n")
    with pytest.raises(HostError, match="reads no drop-ins"):
        go(host)
    assert not host.exists(mkinitcpio.HOOK)


def test_an_image_without_a_shell_is_refused_with_the_remedy(host):
    go(host)
    image = manage.read_image(host, "/boot/initramfs-linux.img", mkinitcpio.wanted_paths())
    image.names.discard("usr/bin/sh")
    assert mkinitcpio.problems(image, LIST.encode()) == ["the command sh is not in it (the hook base brings it)"]


@pytest.mark.parametrize(
    "has, modules",
    [
        ("", []),
        ("vfio_pci vfio vfio_iommu_type1", ["vfio_pci", "vfio", "vfio_iommu_type1"]),
        ("vfio_pci vfio_virqfd mlx5_vfio_pci", ["vfio_pci", "vfio_virqfd", "mlx5_vfio_pci"]),
    ],
)
def test_modules_that_a_kernel_does_not_have_are_no_error(tmp_path, has, modules):
    (tmp_path / "hook").write_text(mkinitcpio.INSTALL_TEXT)
    (tmp_path / "list").write_text(LIST)
    lines = install(str(tmp_path / "hook"), str(tmp_path / "list"), has)
    assert [words[1] for words in lines if words[0] == "module"] == modules
    assert not [words for words in lines if words[0] == "error"]


def test_without_a_list_nothing_goes_into_an_image(tmp_path):
    (tmp_path / "hook").write_text(mkinitcpio.INSTALL_TEXT)
    assert install(str(tmp_path / "hook"), None, "vfio_pci") == []


def test_the_way_back_goes_into_the_image_of_a_trial_without_a_list_too(tmp_path):
    (tmp_path / "hook").write_text(mkinitcpio.INSTALL_TEXT)
    lines = install(str(tmp_path / "hook"), str(tmp_path / "none"), "vfio_pci")
    assert {words[2] for words in lines if words[0] == "file"} == {
        "/" + mkinitcpio.IN_IMAGE_BACK, "/" + mkinitcpio.IN_IMAGE_BACK_UNIT}
    assert [words[0] for words in lines if words[0] != "file"] == ["runscript", "link"]
    hook = tmp_path / "runtime"
    hook.write_text(mkinitcpio.HOOK_TEXT.replace("/usr/lib/vfio-host", str(tmp_path)))
    done = subprocess.run(["sh", "-euc", '. "$1"; run_earlyhook; echo on', "sh", str(hook)], capture_output=True, text=True,
                          check=False)
    assert (done.stdout, done.stderr) == ("on\n", "")


BACK = [
    ("ro quiet vfio_host=trial panic=30", "30"),
    ("ro panic=5 vfio_host=trial panic=30 -- panic=1 vfio_host=off", "30"),
    ("vfio_host=trial panic=-1", "0"),
    ("vfio_host=trial panic=0", None),
    ("vfio_host=trial panic=x", None),
    ("vfio_host=trial", None),
    ("ro panic=30", None),
    ("ro panic=30 -- vfio_host=trial", None),
    ("ro x=* vfio_host=trial2 panic=30", None),
    ("x=* vfio_host=trial panic=30", "30"),
]


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "ash"]], ids=lambda argv: argv[0])
@pytest.mark.parametrize("line, seconds", BACK)
def test_a_trial_that_ends_in_a_shell_reboots_and_nothing_else_does(tmp_path, shell, line, seconds):
    """mkinitcpio's init opens a shell where the root file system is not found, and heeds no panic=."""
    if not shutil.which(shell[0]):
        pytest.skip("%s is not installed" % shell[0])
    (tmp_path / "cmdline").write_text(line + "\n")
    text = mkinitcpio.BACK_TEXT
    for name in ("/proc/cmdline", "/proc/sysrq-trigger", "/dev/kmsg"):
        assert name in text
        text = text.replace(name, str(tmp_path / name.rsplit("/", 1)[1]))
    said = tmp_path / "said"
    functions = "sleep() { echo sleep $1 >>'%s'; }\nreboot() { echo reboot $1 >>'%s'; return 1; }\nsync() { :; }\n" % (said, said)
    back = tmp_path / "back"
    back.write_text(text.replace("#!/bin/sh\n", functions, 1))
    done = subprocess.run(shell + ["-eu", str(back)], capture_output=True, text=True, check=False, cwd=str(tmp_path), timeout=30)
    assert done.stderr == ""
    if seconds is None:
        assert not said.exists() and not (tmp_path / "sysrq-trigger").exists()
    else:
        assert said.read_text() == "sleep %s\nreboot -f\n" % seconds
        assert (tmp_path / "sysrq-trigger").read_text() == "b\n"
        assert "vfio-host: " in (tmp_path / "kmsg").read_text()


def test_an_image_without_the_way_back_is_not_right(host):
    go(host)
    for lacks in (mkinitcpio.IN_IMAGE_BACK, mkinitcpio.IN_IMAGE_CONFIG):
        image = manage.read_image(host, "/boot/initramfs-linux.img", mkinitcpio.wanted_paths())
        assert mkinitcpio.problems(image, LIST.encode()) == []
        image.files[lacks] = b'EARLYHOOKS="vfio-host udev"\n'
        assert len(mkinitcpio.problems(image, LIST.encode())) == 1
    host.write("/etc/mkinitcpio.conf", "HOOKS=(base systemd autodetect)\n")
    host.remove("/boot/initramfs-linux.img")
    host.image(KERNEL, "/boot/initramfs-linux.img")
    image = manage.read_image(host, "/boot/initramfs-linux.img", mkinitcpio.wanted_paths())
    assert mkinitcpio.problems(image, LIST.encode()) == []
    unit = image.files[mkinitcpio.IN_IMAGE_BACK_UNIT].decode()
    assert "IgnoreOnIsolate=yes\n" in unit and "ConditionKernelCommandLine=vfio_host=trial\n" in unit
    image.names.discard(mkinitcpio.IN_IMAGE_BACK_WANT)
    assert mkinitcpio.problems(image, LIST.encode()) == ["systemd in it does not start vfio-host-back.service in an emergency"]


def test_the_early_hook_survives_whatever_the_script_does(tmp_path):
    bind = tmp_path / "bind"
    bind.write_text("exit 3\n")
    hook = tmp_path / "hook"
    hook.write_text(mkinitcpio.HOOK_TEXT.replace("/usr/lib/vfio-host/bind", str(bind)))
    for shell in (["dash"], ["busybox", "ash"]):
        if shutil.which(shell[0]):
            done = subprocess.run(
                shell + ["-euc", '. "$1"; run_earlyhook; echo on', "sh", str(hook)], capture_output=True, text=True,
                check=False,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")


# -- presets -------------------------------------------------------------------------------


def test_presets_are_read_as_plain_assignments():
    found = mkinitcpio.assignments("p", PRESET + "PRESETS=()\nx_options=(-S 'auto detect')\nempty=\n")
    assert found["ALL_kver"] == ["/boot/vmlinuz-linux"]
    assert found["fallback_options"] == ["-S autodetect"]
    assert found["x_options"] == ["-S", "auto detect"]
    assert (found["PRESETS"], found["empty"]) == ([], [])


@pytest.mark.parametrize("line", ["x=$(uname -r)", "x=`date`", "echo 1", "if true; then", 'x="$y"', "x='open"])
def test_a_preset_that_only_a_shell_understands_is_refused(line):
    with pytest.raises(HostError, match="/p cannot be understood"):
        mkinitcpio.assignments("/p", line + "\n")


def test_a_preset_of_a_kernel_that_is_gone_is_refused(host):
    host.write("/etc/mkinitcpio.d/linux-zen.preset", PRESET.replace("linux", "linux-zen"))
    with pytest.raises(HostError, match="linux-zen.preset: the kernel '/boot/vmlinuz-linux-zen' of default is not"):
        go(host)


def test_a_preset_for_a_uki_alone_is_left_to_the_boot_loader(host):
    text = PRESET.replace("#default_uki", "default_uki").replace("default_image", "#default_image")
    host.write("/etc/mkinitcpio.d/linux.preset", text)
    assert [item["path"] for item in mkinitcpio.images(host)[0]] == ["/boot/initramfs-linux-fallback.img"]


@pytest.mark.parametrize("text", [mkinitcpio.INSTALL_TEXT, mkinitcpio.HOOK_TEXT, mkinitcpio.BACK_TEXT],
                         ids=["install", "hook", "back"])
def test_shellcheck_is_content(tmp_path, text):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    path = tmp_path / "script"
    path.write_text(text)
    done = subprocess.run(
        ["shellcheck", "-s", "bash" if "bash" in text[:12] else "dash", str(path)],
        capture_output=True, text=True, check=False,
    )
    assert done.stdout == ""
