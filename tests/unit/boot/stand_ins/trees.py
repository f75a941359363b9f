# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the Fedora family as their installers leave them: kernels, entries, GRUB's files."""

from __future__ import annotations

import os

MACHINE = "7b92728670d64c65879a91ae405012ed"
STRANGER = "9" * 32
"""Of another installation: its entries sort first."""

HEADER = "# GRUB Environment Block\n"


def block(text, size=1024):
    return HEADER + text + "#" * (size - len(HEADER) - len(text))


MENU = '''#
set pager=1
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
### BEGIN /etc/grub.d/10_linux ###
insmod part_gpt
search --no-floppy --fs-uuid --set=root 1111
if [ -z "${kernelopts}" ]; then
  set kernelopts="%s "
fi

insmod blscfg
blscfg
### END /etc/grub.d/10_linux ###
'''


def _kernel(host, version):
    host.write("/boot/vmlinuz-" + version, "kernel", mode=0o755)
    host.write("/boot/initramfs-%s.img" % version, "image", mode=0o600)


def _entry(host, name, version, options, title, images="/initramfs-%s.img", rest=""):
    host.write(
        "/boot/loader/entries/%s-%s.conf" % (MACHINE, name),
        "title %s\nversion %s\nlinux /vmlinuz-%s\ninitrd %s\noptions %s\n%s"
        % (title, version, version, images % version, options, rest),
        mode=0o600,
    )


def install(host, version):
    """A kernel as its package and ``20-grub.install`` (or kernel-install's ``90-loaderentry``) put it there."""
    texts = [host.read(path) for path in ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline")]
    words = next((text for text in texts if text is not None), host.read("/proc/cmdline")).split()
    line = " ".join(word for word in words if not word.startswith(("BOOT_IMAGE=", "initrd=")))
    if "kernelopts=" in (host.read("/boot/grub2/grubenv") or ""):
        line = "$kernelopts $tuned_params"
    _kernel(host, version)
    _entry(host, version, version, line, "Linux (%s)" % version)


def entry_path(name):
    return "/boot/loader/entries/%s.conf" % name


def stranger(host, version="9.9.9-1.fc40.x86_64", root="root=UUID=2222 ro"):
    """An entry of another installation that has the same /boot. Returns its path."""
    if not host.exists("/boot/vmlinuz-" + version):
        _kernel(host, version)
    path = entry_path("%s-%s" % (STRANGER, version))
    host.write(path, "title Other Linux (%s)\nversion %s\nlinux /vmlinuz-%s\ninitrd /initramfs-%s.img\noptions %s\n" % (
        version, version, version, version, root))
    return path


def fedora(host, root="root=UUID=1111 ro rootflags=subvol=root rhgb quiet"):
    """Fedora 40 with a /boot of its own: two kernels and the rescue entry, each with its own options."""
    rest = "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n"
    versions = ("6.8.9-300.fc40.x86_64", "6.9.4-200.fc40.x86_64")
    for version in versions:
        _kernel(host, version)
        _entry(host, version, version, root, "Fedora Linux (%s) 40 (Forty)" % version, rest=rest)
    _kernel(host, "0-rescue-" + MACHINE)
    _entry(host, "0-rescue", "0-rescue-" + MACHINE, root, "Fedora Linux (0-rescue-%s) 40" % MACHINE, rest=rest)
    host.write("/boot/grub2/grub.cfg", MENU % root, mode=0o600)
    host.write("/boot/grub2/grubenv", block("saved_entry=%s-%s\nboot_success=0\n" % (MACHINE, versions[1])), mode=0o600)
    host.link("/etc/grub2.cfg", "../boot/grub2/grub.cfg")
    host.write(
        "/etc/default/grub",
        'GRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR="$(sed \'s, release .*$,,g\' /etc/system-release)"\nGRUB_DEFAULT=saved\n'
        'GRUB_CMDLINE_LINUX="rootflags=subvol=root rhgb quiet"\nGRUB_ENABLE_BLSCFG=true\n',
    )
    host.write("/usr/lib/kernel/install.d/20-grub.install", "", mode=0o755)
    host.write("/etc/kernel/cmdline", root + "\n")
    host.write("/etc/machine-id", MACHINE + "\n")
    host.write("/etc/os-release", 'NAME="Fedora Linux"\nVERSION="40 (Forty)"\nID=fedora\n')
    host.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-%s %s\n" % (versions[1], root))
    host.write("/proc/sys/kernel/osrelease", versions[1] + "\n")
    return host


def rhel8(host, release="8.10"):
    """RHEL 8: the entries say $kernelopts, and the environment block beside GRUB on the EFI partition has it."""
    root = (
        "root=/dev/mapper/rhel-root ro crashkernel=auto resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root "
        "rd.lvm.lv=rhel/swap console=ttyS0,115200 pci=nomsi"
    )
    versions = ("4.18.0-513.5.1.el8_9.x86_64", "4.18.0-553.22.1.el8_10.x86_64")
    for version in versions:
        _kernel(host, version)
        _entry(
            host, version, version, "$kernelopts $tuned_params",
            "Red Hat Enterprise Linux (%s) %s" % (version, release), images="/initramfs-%s.img $tuned_initrd",
            rest="id rhel-20240101000000-%s\ngrub_users $grub_users\n"
            "grub_arg --unrestricted\ngrub_class kernel\n" % version,
        )  # fmt: skip
    _kernel(host, "0-rescue-" + MACHINE)
    _entry(host, "0-rescue", "0-rescue-" + MACHINE, "$kernelopts", "Red Hat Enterprise Linux (0-rescue) %s" % release)
    host.write("/boot/efi/EFI/redhat/grub.cfg", MENU % root, mode=0o700)
    host.write(
        "/boot/efi/EFI/redhat/grubenv",
        block("saved_entry=%s-%s\nkernelopts=%s \nboot_success=0\n" % (MACHINE, versions[1], root)), mode=0o700,
    )  # fmt: skip
    host.link("/boot/grub2/grubenv", "../efi/EFI/redhat/grubenv")
    host.link("/etc/grub2-efi.cfg", "../boot/efi/EFI/redhat/grub.cfg")
    host.write("/sys/firmware/efi/fw_platform_size", "64\n")
    host.write(
        "/etc/default/grub",
        'GRUB_TIMEOUT=5\nGRUB_DEFAULT=saved\nGRUB_CMDLINE_LINUX="%s"\nGRUB_ENABLE_BLSCFG=true\n'
        % root.split(" ", 2)[2],
    )
    host.write("/usr/lib/kernel/install.d/20-grub.install", "", mode=0o755)
    os.makedirs(host.root + "/etc/kernel")
    host.write("/etc/machine-id", MACHINE + "\n")
    host.write("/etc/os-release", 'NAME="Red Hat Enterprise Linux"\nVERSION="%s (Ootpa)"\nID="rhel"\n' % release)
    host.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-%s %s\n" % (versions[1], root))
    host.write("/proc/sys/kernel/osrelease", versions[1] + "\n")
    return host
