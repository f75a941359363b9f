# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded hosts that systemd-boot started: with kernel-install as on Debian 13, by hand as on Arch, with UKIs.

``kernel-install`` and ``bootctl`` have stand-ins that do what systemd 257's do to the files: without a file of its own
a new kernel gets the running line, with ``KERNEL_INSTALL_CONF_ROOT`` no other folder is looked into, and where there is
``/etc/kernel/tries`` what is made has a counter in its name, which the loader changes. What is a comment in
``/etc/kernel/cmdline`` goes by the version of the plugin that is installed.
"""

from __future__ import annotations

import os
import subprocess

from ansible_collections.vfio.host.plugins.module_utils._boot import booted, entries, pe
from ansible_collections.vfio.host.plugins.module_utils._host import Host, Result
from ansible_collections.vfio.host.tests.unit.boot import uki_files

PLUGINS = "/usr/lib/kernel/install.d/"
LOADERENTRY = {252: "tr -s \"$IFS\" ' ' <cmdline\n", 257: "grep -Gv '^\\s*#' cmdline | tr -s \"$IFS\" ' '\n"}
UKIFY = {257: "path.read_text().split()\n", 261: "[word for line in lines if not line.startswith('#')]\n"}
"""What systemd's plugins do with ``/etc/kernel/cmdline``, since these versions."""

MACHINE = "0123456789abcdef0123456789abcdef"
UUID = "11111111-2222-3333-4444-555555555555"
OLD, NEW = "6.12.48-amd64", "6.12.57-amd64"
LINE = "root=UUID=1 ro console=ttyS0 quiet"

ENTRY = """\
# Boot Loader Specification type#1 entry
# File created by /usr/lib/kernel/install.d/90-loaderentry.install (systemd 257.13-1~deb13u1)
title      Debian GNU/Linux 13 (trixie)
version    %(version)s
machine-id %(machine)s
sort-key   debian
options    %(line)s
linux      /%(machine)s/%(version)s/linux
initrd     /%(machine)s/%(version)s/initrd.img-%(version)s
"""
OTHER_SYSTEM = """\
title      Another Linux
version    9.9.9
machine-id ffffffffffffffffffffffffffffffff
sort-key   aaa
options    root=UUID=2 ro
linux      /ffffffffffffffffffffffffffffffff/9.9.9/linux
"""
ARCH = """\
title   Arch Linux
linux   /vmlinuz-linux
initrd  /intel-ucode.img
initrd  /initramfs-linux%s.img
options root=UUID=1 rw quiet
"""


class LoaderHost(Host):
    """``calls``: the commands that ran. ``fail``: None, or a callable in the place of kernel-install."""

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.fail = None

    def variable(self, name, value):
        self.put("%s/%s-%s" % (booted.EFIVARS, name, booted.LOADER_GUID), b"\x07\0\0\0" + value)

    def text_variable(self, name, text):
        self.variable(name, (text + "\0").encode("utf-16-le"))

    def put(self, path, data):
        """A file, without the pains that Host.write takes."""
        path = self.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data if isinstance(data, bytes) else data.encode())

    def started_by(self, entry, esp, stub=None, info="systemd-boot 257.13-1~deb13u1"):
        self.text_variable("LoaderInfo", info)
        self.text_variable("LoaderEntrySelected", entry)
        self.text_variable("LoaderDevicePartUUID", UUID)
        self.variable("LoaderFeatures", (0x1FFF).to_bytes(8, "little"))
        if stub:
            self.text_variable("StubInfo", stub)
        self.put("/proc/self/mountinfo", (
            "22 1 254:2 / / rw,relatime shared:1 - ext4 /dev/vda2 rw\n"
            "23 22 0:20 / /sys rw - sysfs sysfs rw\n"
            "24 23 0:21 / /sys/firmware/efi/efivars rw,nosuid - efivarfs efivarfs rw\n"
            "60 22 254:1 / %s rw,relatime shared:99 - vfat /dev/vda1 rw,fmask=0077\n" % esp
        ))  # fmt: skip
        os.makedirs(self.root + "/dev/disk/by-partuuid")
        os.symlink("../../vda1", self.root + "/dev/disk/by-partuuid/" + UUID)
        self.put("/proc/cmdline", "initrd=\\x " + LINE + "\n")
        self.put("/etc/machine-id", MACHINE + "\n")
        self.put("/etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID=13\n')
        for name in ("bootctl", "kernel-install"):
            self.put("/usr/bin/" + name, "")

    def command(self, argv, stdin, env=None):
        self.calls.append(argv)
        if argv[:2] == ["bootctl", "set-oneshot"]:
            self.text_variable("LoaderEntryOneShot", argv[-1])
            return Result(argv, 0)
        if argv[0] == "kernel-install":
            return self.fail(argv, env or {}) if self.fail else self.kernel_install(argv, env or {})
        return Result(argv, 127, "", "no stand-in for this")

    def kernel_install(self, argv, env):
        return Result(argv, 1, "", "no stand-in for this")

    def install(self, version):
        """As the kernel's package and its postinst do on Debian."""
        self.put("/lib/modules/%s/modules.dep" % version, "")
        self.put("/boot/vmlinuz-" + version, uki_files.kernel(version))
        self.put("/boot/initrd.img-" + version, "initrd " + version)
        self.kernel_install(["kernel-install", "add", version, "/boot/vmlinuz-" + version], {})

    def counter(self, env):
        """What boot counting adds to the name of what is made."""
        text = self.read(env.get("KERNEL_INSTALL_CONF_ROOT", "/etc/kernel") + "/tries")
        return "" if text is None else "+%d" % int(text)

    def remove_others(self, folder, stem, suffix):
        for name in self.listdir(folder):
            if name == stem + suffix or name.startswith(stem + "+") and name.endswith(suffix):
                self.remove(folder + "/" + name)

    def rename(self, path, good):
        """The loader starts an entry with a counter, or it is found to be good. Returns the path that it has then."""
        stem, left, done = entries.split_name(os.path.basename(path))
        name = stem + ("" if good else "+%d-%d" % (left - 1, done + 1)) + os.path.splitext(path)[1]
        os.rename(self.path(path), self.path(os.path.dirname(path)) + "/" + name)
        return os.path.dirname(path) + "/" + name

    def line(self, env=None):
        """Command line of a new kernel, as the plugin of this host makes it."""
        folder = (env or {}).get("KERNEL_INSTALL_CONF_ROOT")
        texts = [self.read(one + "/cmdline") for one in ([folder] if folder else ["/etc/kernel", "/usr/lib/kernel"])]
        texts = [text for text in texts if text is not None]
        plugin = self.read(PLUGINS + self.PLUGIN)
        rows = texts[0].splitlines() if texts else []
        if plugin == LOADERENTRY[257]:
            rows = [row for row in rows if not row.lstrip().startswith("#")]
        elif plugin == UKIFY[261]:
            rows = [row for row in rows if not row.startswith("#")]
        words = " ".join(rows).split() if texts else [
            word for word in self.read("/proc/cmdline").split() if not word.startswith(("BOOT_IMAGE=", "initrd="))]
        if not any(word.startswith("systemd.machine_id=") for word in words):
            words.append("systemd.machine_id=" + MACHINE)
        return " ".join(words)


class Debian(LoaderHost):
    """Debian 13, the EFI partition at /boot/efi, two kernels, and another system's entry."""

    PLUGIN = "90-loaderentry.install"

    def __init__(self, root, tries=None):
        super().__init__(root)
        if tries is not None:
            self.put("/etc/kernel/tries", "%d\n" % tries)
        self.started_by("%s-%s.conf" % (MACHINE, NEW), "/boot/efi")
        self.put(PLUGINS + self.PLUGIN, LOADERENTRY[257])
        self.put("/boot/efi/EFI/systemd/systemd-bootx64.efi", "")
        self.put("/boot/efi/loader/loader.conf", "timeout 3\n#console-mode keep\n")
        self.put("/boot/efi/loader/entries.srel", "type1\n")
        self.put("/boot/efi/loader/entries/other-9.9.9.conf", OTHER_SYSTEM)
        self.put("/boot/efi/loader/loader.conf", "default %s-*\n" % MACHINE)
        for version in (OLD, NEW):
            self.install(version)
        self.calls.clear()

    def kernel_install(self, argv, env):
        version = argv[2]
        root = env.get("BOOT_ROOT", "/boot/efi")
        folder = "%s/%s/%s" % (root, MACHINE, version)
        self.put(folder + "/linux", self.read_bytes("/boot/vmlinuz-" + version))
        self.put(folder + "/initrd.img-" + version, self.read_bytes("/boot/initrd.img-" + version))
        values = {"version": version, "machine": MACHINE, "line": self.line(env)}
        stem, counter = "%s-%s" % (MACHINE, version), self.counter(env)
        if counter:
            self.remove_others(root + "/loader/entries", stem, ".conf")
        self.put("%s/loader/entries/%s%s.conf" % (root, stem, counter), ENTRY % values)
        return Result(argv, 0)


class Arch(LoaderHost):
    """Arch with entries by hand, the EFI partition at /boot."""

    def __init__(self, root):
        super().__init__(root)
        self.started_by("arch.conf", "/boot", info="systemd-boot 257.6-1-arch")
        self.put("/boot/EFI/systemd/systemd-bootx64.efi", "")
        self.put("/boot/loader/loader.conf", "timeout 3\n")
        self.put("/boot/loader/entries/arch.conf", ARCH % "")
        self.put("/boot/loader/entries/arch-fallback.conf", ARCH % "-fallback")
        self.put("/boot/loader/entries/void.conf", OTHER_SYSTEM.replace("machine-id", "#"))
        self.put("/boot/vmlinuz-linux", uki_files.kernel("6.17.8-arch1-1"))
        self.put("/lib/modules/6.17.8-arch1-1/vmlinuz", uki_files.kernel("6.17.8-arch1-1"))
        for name in ("intel-ucode", "initramfs-linux", "initramfs-linux-fallback"):
            self.put("/boot/%s.img" % name, name)
        self.put("/boot/loader/loader.conf", "default arch.conf\n")


class DebianUki(LoaderHost):
    """Debian 13 with layout=uki, the EFI partition at /efi, two kernels."""

    PLUGIN = "60-ukify.install"

    def __init__(self, root, tries=None):
        super().__init__(root)
        if tries is not None:
            self.put("/etc/kernel/tries", "%d\n" % tries)
        self.started_by("%s-%s.efi" % (MACHINE, NEW), "/efi", stub="systemd-stub 257.13-1~deb13u1")
        self.put("/efi/EFI/systemd/systemd-bootx64.efi", "")
        self.put("/efi/loader/loader.conf", "")
        self.put(PLUGINS + self.PLUGIN, UKIFY[257])
        self.put("/etc/kernel/install.conf", "layout=uki\nuki_generator=ukify\n")
        self.put("/usr/bin/ukify", "")
        for version in (OLD, NEW):
            self.install(version)
        self.calls.clear()

    def kernel_install(self, argv, env):
        version = [word for word in argv if not word.startswith("-")][2]
        folders = [env.get("KERNEL_INSTALL_CONF_ROOT", "/etc/kernel")]
        paths = [folders[0] + "/install.conf"]
        if "KERNEL_INSTALL_CONF_ROOT" not in env:
            folders.append("/usr/lib/kernel")
        for folder in folders:
            paths += ["%s/install.conf.d/%s" % (folder, name) for name in self.listdir(folder + "/install.conf.d")]
        if not any("layout=uki" in (self.read(path) or "").split() for path in paths):
            return Result(argv, 0)  # another layout, by what is on the partition
        image = uki_files.uki(version, " " + self.line(env), initrd=self.read_bytes("/boot/initrd.img-" + version))
        folder = env.get("BOOT_ROOT", "/efi") + "/EFI/Linux"
        stem, counter = "%s-%s" % (MACHINE, version), self.counter(env)
        if counter and self.exists("%s/%s.efi" % (folder, stem)):
            self.remove_others(folder, stem, ".efi")
        self.put("%s/%s%s.efi" % (folder, stem, counter), image)
        return Result(argv, 0)

    def uki(self, version):
        return pe.uki(self, "/efi/EFI/Linux/%s-%s.efi" % (MACHINE, version))


class ArchUki(LoaderHost):
    """Arch with mkinitcpio's presets for UKIs, the EFI partition at /efi. The command line is in one file."""

    PRESET = (
        "#ALL_config=\"/etc/mkinitcpio.conf\"\nALL_kver=\"/boot/vmlinuz-linux\"\n\nPRESETS=('default' 'fallback')\n\n"
        "default_uki=\"/efi/EFI/Linux/arch-linux.efi\"\n#default_options=\"--splash /x.bmp\"\n"
        "fallback_uki=\"/efi/EFI/Linux/arch-linux-fallback.efi\"\nfallback_options=\"-S autodetect\"\n"
    )
    VERSION = "6.17.8-arch1-1"

    def __init__(self, root, sources=(("/etc/kernel/cmdline", LINE + "\n"),), script="/etc/cmdline.d"):
        super().__init__(root)
        self.started_by("arch-linux.efi", "/efi", stub="systemd-stub 257.6-1-arch", info="systemd-boot 257.6-1-arch")
        self.put("/efi/EFI/systemd/systemd-bootx64.efi", "")
        self.put("/efi/loader/loader.conf", "")
        self.put("/usr/bin/mkinitcpio", "cmdline_dir='%s'" % script)
        self.put("/etc/mkinitcpio.d/linux.preset", self.PRESET)
        self.put("/boot/vmlinuz-linux", uki_files.kernel(self.VERSION))
        self.put("/lib/modules/%s/vmlinuz" % self.VERSION, uki_files.kernel(self.VERSION))
        for path, text in sources:
            self.put(path, text)
        for name in ("arch-linux", "arch-linux-fallback"):
            self.make("/efi/EFI/Linux/%s.efi" % name)
        self.calls.clear()

    def make(self, path, given=None):
        """As mkinitcpio puts it together (``build_uki``). ``given``: the file of ``--cmdline``."""
        paths = [path for path in ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline") if self.exists(path)][:1]
        paths += ["/etc/cmdline.d/" + name for name in self.listdir("/etc/cmdline.d") if name.endswith(".conf")]
        paths = [given] if given else paths
        rows = [row for one in paths or ["/proc/cmdline"] for row in self.read(one).splitlines()]
        line = " ".join(row for row in rows if row and not row.startswith("#"))
        self.put(path, uki_files.uki(self.VERSION, line + " \n", os_id="arch"))

    def command(self, argv, stdin, env=None):
        if argv[0] != "mkinitcpio":
            return super().command(argv, stdin, env)
        self.calls.append(argv)
        if self.fail:
            return self.fail(argv, env or {})
        assert argv[1] == "-p" and "/" in argv[2]
        found = {}
        for row in self.read(argv[2]).splitlines():
            if row.startswith(". "):
                assert self.read(row[2:].strip("'")) == self.PRESET
            name, dummy, value = row.partition("=")
            found[name] = value.strip("'()")
        assert found[found["PRESETS"] + "_image"] == ""
        options = subprocess.run(  # the preset is a shell script, and its options are put behind the others
            ["bash", "-c", "%s\n%s\nprintf '%%s ' \"${%s_options[@]}\"" % (
                self.PRESET, "\n".join(row for row in self.read(argv[2]).splitlines() if not row.startswith(". ")),
                found["PRESETS"])],
            stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.split()  # fmt: skip
        given = options[options.index("--cmdline") + 1] if "--cmdline" in options else None
        self.make(found[found["PRESETS"] + "_uki"], given)
        return Result(argv, 0)
