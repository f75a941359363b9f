# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""proxmox-boot-tool: refresh and status, over partitions of :mod:`mount`.

It ends with 0 where it has skipped a partition, writes the entries from the first line of /etc/kernel/cmdline, and
keeps a partition's entry of another maker. With GRUB it makes a menu of the settings, which is update-grub's work.
"""

from __future__ import annotations

import os
import re

from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import mount

UUIDS = "/etc/kernel/proxmox-boot-uuids"
CMDLINE = "/etc/kernel/cmdline"
ROOT = "/var/tmp/espmounts"
PIN = "/etc/default/grub.d/proxmox-kernel-pin.cfg"


def run(host, argv, stdin=None):
    if argv[1:] == ["refresh"]:
        return _refresh(host, argv)
    if argv[1:2] == ["status"]:
        return _status(host, argv)
    if len(argv) < 2:
        return Result(argv, 0, "", "USAGE: %s <commands> [ARGS]\n" % argv[0])
    return Result(argv, 1, "", "Invalid/unknown command '%s'.\n" % argv[1])


def kernels(host):
    return [name[len("vmlinuz-"):] for name in host.listdir("/boot") if re.match(r"vmlinuz-\d", name)]


def first_line(text):
    """The shell's read: blanks at both ends go with IFS, which is set empty here, so nothing goes."""
    return text.split("\n")[0]


def _refresh(host, argv):
    out = ["Running hook script 'proxmox-auto-removal'..", "Running hook script 'zz-proxmox-boot'.."]
    said = []
    if host.exists("/run/refresh-fails"):
        return Result(argv, 1, "\n".join(out) + "\n", "cp: error writing: No space left on device\n")
    if host.read(UUIDS) is None:
        said.append("No %s found, skipping ESP sync." % UUIDS)
        return Result(argv, 0, "\n".join(out) + "\n", "\n".join(said) + "\n")
    text = host.read(CMDLINE)
    if text is not None:
        line = first_line(text)
        if "root=" not in line:
            # the hook script ends with 1, and set -e ends the tool with it
            return Result(argv, 1, "\n".join(out) + "\n", "No root= parameter in %s found!\n" % CMDLINE)
    else:
        said.append("No %s found - falling back to /proc/cmdline" % CMDLINE)
        line = re.sub(r"\binitrd=([0-9a-zA-Z\\/.-])*\s*", "", (host.read("/proc/cmdline") or "").rstrip("\n"))
    for uuid in (host.read(UUIDS) or "").split("\n"):
        if uuid:
            _partition(host, uuid, line, said)
    return Result(argv, 0, "\n".join(out) + "\n", "\n".join(said) + "\n")


def _partition(host, uuid, line, said):
    if not re.search("[0-9a-fA-F]{4}-[0-9a-fA-F]{4}", uuid):
        said.append("WARN: %s read from %s does not look like a VFAT-UUID - skipping" % (uuid, UUIDS))
        return
    device = "/dev/disk/by-uuid/" + uuid
    if not host.exists(device):
        said.append("WARN: %s does not exist - clean '%s'! - skipping" % (device, UUIDS))
        return
    folder = "%s/%s" % (ROOT, uuid)
    os.makedirs(host.root + folder, exist_ok=True)
    result = mount.run(host, ["mount", device, folder])
    if result.rc:
        said.extend([result.stderr.strip(), "mount of %s failed - skipping" % device])
        return
    try:
        _mounted(host, folder, device, line, said)
    finally:  # its mounts are in a namespace of its own, and go with it when it is killed
        mount.umount(host, ["umount", folder])
    os.rmdir(host.root + folder)


def _mounted(host, folder, device, line, said):
    grub = not host.isdir("/sys/firmware/efi") or host.exists(folder + "/EFI/proxmox/grubx64.efi")
    if not grub and not host.exists(folder + "/loader/loader.conf"):
        said.append("%s contains no loader.conf - skipping" % device)
    elif not grub and not host.isdir(folder + "/EFI/proxmox"):
        said.append("%s/EFI/proxmox does not exist- skipping" % device)
    elif grub and not host.isdir(folder + "/grub"):
        said.append("%s contains no grub directory - skipping" % device)
    else:
        said.append("Copying and configuring kernels on %s" % device)
        _copy(host, folder, grub, line, said)
        _remove_old(host, folder, grub, said)


def _copy(host, folder, grub, line, said):
    for version in kernels(host):
        names = ["vmlinuz-" + version, "initrd.img-" + version]
        if not host.exists("/boot/" + names[1]):
            said.append("No initrd-image /boot/%s found - skipping" % names[1])
            continue
        where = folder if grub else "%s/EFI/proxmox/%s" % (folder, version)
        for name in names:
            host.write("%s/%s" % (where, name), host.read_bytes("/boot/" + name))
        if grub:
            said.append("\tCopying kernel %s" % version)
            continue
        said.append("\tCopying kernel and creating boot-entry for %s" % version)
        title = "Proxmox Virtual Environment"
        if not host.isdir("/etc/pve"):
            for product, name in (("proxmox-mailgateway", "Proxmox Mailgateway"),
                                  ("proxmox-backup", "Proxmox Backup Server")):  # fmt: skip
                if host.isdir("/usr/share/doc/" + product):
                    title = name
                    break
        host.write(
            "%s/loader/entries/proxmox-%s.conf" % (folder, version),
            "title    %s\nversion  %s\noptions  %s\nlinux    /EFI/proxmox/%s/%s\ninitrd   /EFI/proxmox/%s/%s\n"
            % (title, version, line, version, names[0], version, names[1]),
        )


def _remove_old(host, folder, grub, said):
    known = kernels(host)
    pin = host.read("/etc/kernel/next-boot-pin") or host.read("/etc/kernel/proxmox-boot-pin") or ""
    if grub:
        for name in host.listdir(folder):
            version = name[len("vmlinuz-"):]
            if name.startswith("vmlinuz-") and version not in known:
                said.append("\tRemoving old version %s" % version)
                host.remove("%s/vmlinuz-%s" % (folder, version))
                host.remove("%s/initrd.img-%s" % (folder, version))
        _pin_grub(host, first_line(pin))
        host.write(folder + "/grub/grub.cfg", _menu(host), mode=0o600)
        return
    wanted = "proxmox-%s.conf" % first_line(pin) if first_line(pin) else "proxmox-*"
    path = folder + "/loader/loader.conf"
    text = host.read(path)
    if re.search("^default ", text, re.M):
        host.write(path, re.sub("^default .*", "default " + wanted, text, flags=re.M))
    for version in host.listdir(folder + "/EFI/proxmox"):
        if version not in known and host.isdir(folder + "/EFI/proxmox/" + version):
            said.append("\tRemoving old version %s" % version)
            for name in host.listdir(folder + "/EFI/proxmox/" + version):
                host.remove("%s/EFI/proxmox/%s/%s" % (folder, version, name))
            os.rmdir(host.path(folder + "/EFI/proxmox/" + version))
            host.remove("%s/loader/entries/proxmox-%s.conf" % (folder, version))


def _pin_grub(host, version):
    if not version:
        host.remove(PIN)
        return
    found = re.findall(r"gnulinux-advanced-(.+)['] \{$", host.read("/boot/grub/grub.cfg") or "", re.M)
    root = "\n".join(found)
    host.write(PIN, 'GRUB_DEFAULT="gnulinux-advanced-%s>gnulinux-%s-advanced-%s"\n' % (root, version, root))


def _menu(host):
    """What grub-mkconfig makes of the settings: one entry a kernel, and those of our own script."""
    paths = ["/etc/default/grub"]
    paths += ["/etc/default/grub.d/" + name for name in host.listdir("/etc/default/grub.d") if name.endswith(".cfg")]
    line = " ".join(grub_menu.evaluate([(path, host.read(path)) for path in paths])[0])
    drop_in = host.read("/etc/default/grub.d/90-vfio-host.cfg") or ""
    ours = re.search('VFIO_HOST_TOKENS="(.*)"', drop_in)
    text = 'set default="0"\n### BEGIN /etc/grub.d/10_linux ###\n'
    for version in sorted(kernels(host), reverse=True):
        text += _menu_entry(version, "gnulinux-%s-advanced-1" % version, line)
    text += "### END /etc/grub.d/10_linux ###\n"
    if host.exists("/etc/grub.d/42_vfio-host"):
        rest = " ".join(word for word in line.split() if word not in (ours.group(1).split() if ours else []))
        text += "### BEGIN /etc/grub.d/42_vfio-host ###\n"
        for version in sorted(kernels(host), reverse=True):
            text += _menu_entry(version, "vfio-host-fallback-%s" % version, rest + " vfio_host=off")
        text += "### END /etc/grub.d/42_vfio-host ###\n"
    return text


def _menu_entry(version, name, line):
    return (
        "menuentry 'Proxmox VE GNU/Linux, with Linux %s' $menuentry_id_option '%s' {\n"
        "\tlinux\t/vmlinuz-%s root=ZFS=rpool/ROOT/pve-1 ro       root=ZFS=rpool/ROOT/pve-1 boot=zfs %s\n"
        "\tinitrd\t/initrd.img-%s\n}\n" % (version, name, version, line, version)
    )


def _status(host, argv):
    if host.read(UUIDS) is None:
        return Result(argv, 2, "", "" if "--quiet" in argv else "E: %s does not exist.\n" % UUIDS)
    if "--quiet" in argv:
        return Result(argv, 0)
    out = "System currently booted with %s\n" % ("uefi" if host.isdir("/sys/firmware/efi") else "legacy bios")
    for uuid in (host.read(UUIDS) or "").split():
        content = mount.CONTENT + uuid
        parts = []
        if host.exists(content + "/loader/loader.conf"):
            parts.append("uefi (versions: %s)" % ", ".join(host.listdir(content + "/EFI/proxmox")))
        if host.isdir(content + "/grub"):
            names = [name[len("vmlinuz-"):] for name in host.listdir(content) if name.startswith("vmlinuz-")]
            parts.append("grub (versions: %s)" % ", ".join(names))
        out += "%s is configured with: %s\n" % (uuid, ", ".join(parts))
    return Result(argv, 0, out)


def make(host, loader="systemd-boot", partitions=("7A1B-22C3", "7A1C-0F00")):
    """A host of Proxmox VE on a mirror of ZFS, with two kernels and a partition on each disk."""
    line = "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet"
    for version in ("6.5.13-6-pve", "6.8.12-4-pve"):
        host.write("/boot/vmlinuz-" + version, "kernel " + version)
        host.write("/boot/initrd.img-" + version, "image " + version)
    host.write(UUIDS, "".join(uuid + "\n" for uuid in partitions))
    os.makedirs(host.root + "/etc/pve", exist_ok=True)
    host.write("/proc/self/mounts", "rpool/ROOT/pve-1 / zfs rw 0 0\n")
    host.write(CMDLINE, line + "\n")
    host.write("/etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="nmi=0"\n')
    for uuid in partitions:
        host.write("/dev/disk/by-uuid/" + uuid, "")
        content = mount.CONTENT + uuid
        os.makedirs(host.root + content + "/EFI/proxmox", exist_ok=True)
        if loader == "systemd-boot":
            host.write(content + "/loader/loader.conf", "timeout 3\ndefault proxmox-*\n")
        else:
            os.makedirs(host.root + content + "/grub", exist_ok=True)
    if loader in ("systemd-boot", "grub-efi"):
        host.write("/sys/firmware/efi/fw_platform_size", "64\n")
    if loader == "systemd-boot":
        name = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
        host.write(name, b"\7\0\0\0" + "systemd-boot 252.31-1\0".encode("utf-16-le"))
        host.write("/proc/cmdline", "initrd=\\EFI\\proxmox\\6.8.12-4-pve\\initrd.img-6.8.12-4-pve %s\n" % line)
    else:
        host.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-6.8.12-4-pve %s\n" % line)
        if loader == "grub-efi":
            for uuid in partitions:
                host.write(mount.CONTENT + uuid + "/EFI/proxmox/grubx64.efi", "MZ")
    os.makedirs(host.root + "/etc/default/grub.d", exist_ok=True)
    run(host, ["proxmox-boot-tool", "refresh"])
    return host
