# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Disks that the next boot needs without being mounted now.

What names them: /etc/fstab, /etc/crypttab, systemd's mount and swap units, the kernel command line, the
resume device of the initramfs, ZFS's list of pools, the firmware's own record of what it started.
What belongs to them: the members of arrays and the volumes of groups that the host uses, active or not.
"""

from __future__ import annotations

import re
import struct

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._hardware import pci
from ansible_collections.vfio.host.plugins.module_utils._usage import storage
from ansible_collections.vfio.host.plugins.module_utils._usage.block import TAGS, UDEV, Blocks, parse_options, unescape

FSTAB = "/etc/fstab"
CRYPTTAB = "/etc/crypttab"
RESUME = "/etc/initramfs-tools/conf.d/resume"
UNITS = "/etc/systemd/system"
MDADM = ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf")
LVM_BACKUP = "/etc/lvm/backup"

EFIVARS = "/sys/firmware/efi/efivars"
LOADER_PARTITION = EFIVARS + "/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Set by systemd-boot and other loaders: the partition they were started from (Boot Loader Interface)."""

EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
EDD_BOOT = "/sys/firmware/edd/int13_dev80"

FIRMWARE_RAID = ("isw_raid_member", "ddf_raid_member")

NO_DISKS = ("urandom", "random", "null", "zero", "hwrng", "nfs", "ram0", "zram0")
"""Names in /dev that stand in these files and are no disk of the host's."""


# -- parsing (pure) ------------------------------------------------------------------------


def parse_fstab(text):
    """``[{specs, point, fstype}]``; ``specs``: the device, and those that options name besides."""
    entries = []
    for line in text.splitlines():
        fields = [unescape(field) for field in line.split()]
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        words = (fields[3] if len(fields) > 3 else "").split(",")
        more = [value for key, dummy, value in (word.partition("=") for word in words)
                if key in ("device", "logdev", "rtdev", "x-systemd.requires")]
        specs = [spec for spec in [fields[0]] + more if _is_spec(spec)]
        entries.append({"specs": specs, "source": fields[0], "point": fields[1], "fstype": fields[2]})
    return entries


def _is_spec(text):
    tag, equals, value = text.partition("=")
    if tag in TAGS and equals:
        return bool(value)
    return text.startswith("/dev/") and text[len("/dev/"):] not in NO_DISKS and not text.startswith("/dev/zram")


def parse_crypttab(text):
    """``[(name, [specs])]``: the encrypted device, and those that hold its key or header."""
    found = []
    for line in text.splitlines():
        fields = [unescape(field) for field in line.split()]
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        options = parse_options(fields[3]) if len(fields) > 3 else {}
        apart = [fields[2]] if len(fields) > 2 else []
        apart += [options[key] for key in ("header",) if key in options]
        # a file on another device is /path:UUID=...
        specs = [fields[1]] + [text.rpartition(":")[2] if ":" in text else text for text in apart]
        found.append((fields[0], [spec for spec in specs if _is_spec(spec)]))
    return found


def parse_unit(text):
    """Device of a systemd mount or swap unit (``What=``), or None."""
    found = re.findall(r"^\s*What\s*=\s*(\S+)\s*$", text, re.MULTILINE)
    if not found:
        return None
    return found[-1] if _is_spec(found[-1]) else None


def parse_cmdline(line):
    """``[(parameter as it stands, [specs])]`` of a kernel command line that name disks.

    A volume is given as ``/dev/VG/LV``; for a group or a pool there is no path, so none is given.
    """
    found = []
    for token in tokens.split(line):
        key, value = tokens.key(token), tokens.value(token) or ""
        key = key[len("rd."):] if key.startswith("rd.") else key
        specs = []
        if key in ("root", "resume", "mount.usr", "cryptdevice", "cryptkey"):
            value = value[len("live:"):] if value.startswith("live:") else value
            value = value[len("CD"):] if value.startswith("CDLABEL=") else value
            specs = [re.split(r":(?!\d)", value)[0] if key.startswith("crypt") else value]
        elif key in ("luks.uuid", "luks.name", "luks.options", "luks.data"):
            name = re.match(r"(?:luks-)?([0-9a-fA-F-]{36})(?==|$)", value)
            specs = ["UUID=" + name.group(1)] if name else []
            specs += [value.partition("=")[2]] if key == "luks.data" else []
        elif key in ("luks.key", "luks.header"):
            specs = [value.rpartition(":")[2]]
        elif key == "lvm.lv" and value.count("/") == 1:
            specs = ["/dev/" + value]
        specs = [spec for spec in specs if _is_spec(spec)]
        if specs:
            found.append((token, specs))
    return found


def parse_arrays(text):
    """UUIDs (32 hex digits) of the arrays in mdadm.conf, or after ``rd.md.uuid=``."""
    found = re.findall(r"(?:uuid)\s*=\s*([0-9a-f]{8}(?:[:-]?[0-9a-f]{4,8}){3,4})", text, re.IGNORECASE)
    digits = [re.sub(r"[:-]", "", text).lower() for text in found]
    return [text for text in digits if len(text) == 32]


def parse_loader_partition(data):
    """Partition's UUID, lower case, from the EFI variable: four bytes of attributes, UTF-16; or None."""
    text = (data or b"")[4:].decode("utf-16-le", "replace").rstrip("\0").lower()
    return text if re.match(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", text) else None


def parse_boot_entry(data):
    """``(partition's UUID or None, over the network)`` of a Boot#### variable (EFI_LOAD_OPTION, UEFI 3.1.3).

    After the attributes: the length of the path list, a description in UTF-16, then path nodes of
    type, subtype, length; a hard drive's (4, 1) has the GUID, a network card's is (3, 11).
    """
    data = (data or b"")[4:]
    end = 6
    while end + 2 <= len(data) and data[end:end + 2] != b"\0\0":
        end += 2
    at, partition, remote = end + 2, None, False
    while at + 4 <= len(data):
        kind, subtype, length = struct.unpack_from("<BBH", data, at)
        if length < 4 or kind == 0x7F:
            break
        if (kind, subtype) == (4, 1) and at + 42 <= len(data) and data[at + 41] == 2:
            tail = data[at + 32:at + 40].hex()
            partition = "%08x-%04x-%04x-%s-%s" % (struct.unpack_from("<IHH", data, at + 24) + (tail[:4], tail[4:]))
        remote = remote or (kind, subtype) == (3, 11)
        at += length
    return partition, remote


def parse_volume_group(text):
    """Ids (32 characters) of the physical volumes in a metadata file of LVM's, as in /etc/lvm/backup."""
    part = text.partition("physical_volumes {")[2].partition("logical_volumes {")[0]
    found = re.findall(r"\bid\s*=\s*\"([A-Za-z0-9-]{38})\"", part)
    return [identity.replace("-", "") for identity in found]


# -- reading -------------------------------------------------------------------------------


def read(inputs):
    """``(uses, unknowns)`` of what the next boot needs and storage.read() does not have."""
    host = inputs.host
    blocks = Blocks(host)
    mounted, dummy, names = storage.needed(blocks)
    need = _Need(blocks, mounted, names)
    _tables(inputs, need)
    _units(host, need)
    _command_line(host, need)
    _pools(need)
    _firmware(inputs, need)
    _groups(host, need)
    _arrays(host, need)
    return need.uses, need.unknowns


class _Need:
    """What was found so far. A device that is in use already, itself or below another, is not said again."""

    def __init__(self, blocks, mounted, names):
        self.blocks = blocks
        self.uses, self.unknowns = [], []
        self.known = set(names) | {name for use in mounted for name in use["chain"][2:]}

    def add(self, what, specs, known=False):
        """Devices by what a file calls them. ``known``: what they are for is in use, so it may be unknown which."""
        for spec in specs:
            names = self.blocks.find(spec)
            if not names and not known and not self.blocks.all_shown():
                self.unknowns.append(storage.unknown(what, "%s is not known among the block devices" % spec))
            self.names(what, names)

    def names(self, what, names):
        for name in names:
            if name not in self.known:
                self.known.add(name)
                before = len(self.uses)
                storage.follow(self.blocks, name, what, self.uses, self.unknowns)
                self.known |= {link for use in self.uses[before:] for link in use["chain"][2:]}

    def unknown(self, what, why):
        self.unknowns.append(storage.unknown(what, why))


def _text(inputs, need, path, what):
    """Text of a configuration file; that it is missing is an answer, that it is unreadable is not."""
    text = inputs.host.read(path)
    if text is None and inputs.host.exists(path):
        need.unknown(path, "it cannot be read, so %s is unknown" % what)
    return text or ""


def _tables(inputs, need):
    """fstab (a ``noauto`` entry and one for automount too: /boot is often such) and crypttab."""
    points = {mount["point"].rstrip("/") for mount in need.blocks.mounts if mount["fstype"] != "autofs"}
    swaps = [path for path in storage.parse_swaps(inputs.host.read("/proc/swaps") or "") if "/zram" not in path]
    entries = parse_fstab(_text(inputs, need, FSTAB, "what else is mounted at boot"))
    listed = [entry for entry in entries if entry["fstype"] == "swap" and entry["specs"]]
    for entry in entries:
        swap = entry["fstype"] == "swap"
        # Of several swap devices any may be the one in use; of a mount point there is but one
        now = len(swaps) >= len(listed) if swap else entry["point"].rstrip("/") in points
        state = "" if now or swap else ", not mounted now"
        what = "%s in %s%s" % ("swap" if swap else entry["point"], FSTAB, state)
        need.add(what, entry["specs"], known=now)
        if entry["fstype"] == "zfs" and not now:
            _pool(need, what, entry["source"].split("/")[0])
    for name, specs in parse_crypttab(_text(inputs, need, CRYPTTAB, "what is decrypted at boot")):
        need.add("%s in %s" % (name, CRYPTTAB), specs)


def _units(host, need):
    for name in host.listdir(UNITS):
        if name.endswith((".mount", ".swap")):
            spec = parse_unit(host.read("%s/%s" % (UNITS, name)) or "")
            need.add("systemd unit %s" % name, [spec] if spec else [])


def _command_line(host, need):
    rooted = any(mount["point"] == "/" for mount in need.blocks.mounts)
    for token, specs in parse_cmdline(host.read("/proc/cmdline") or ""):
        # This line made the root filesystem that is mounted, and what it names for it is below that; not so
        # a key, which may be on a stick that was taken out, and what to resume from
        known = rooted and not re.search(r"resume|key|header|usr", tokens.key(token))
        need.add("%s on the kernel command line" % token, specs, known=known)
    for line in (host.read(RESUME) or "").splitlines():
        key, dummy, value = line.strip().partition("=")
        spec = value.strip("\"' ")
        if key == "RESUME" and _is_spec(spec):
            need.add("hibernation image, %s" % RESUME, [spec])


def _pools(need):
    for pool in sorted(set(need.blocks.cached_pools()) | set(need.blocks.pools())):
        _pool(need, "ZFS pool %s" % pool, pool)


def _pool(need, what, pool):
    names, why = need.blocks.members(pool)
    need.names(what, names)
    if why:
        need.unknown(what, why)


# -- what the firmware started ---------------------------------------------------------------


def _firmware(inputs, need):
    if inputs.host.isdir("/sys/firmware/efi"):
        _efi(inputs.host, need)
    else:
        _bios(inputs, need)


def _efi(host, need):
    """The EFI system partition: as the loader or the firmware recorded it, else all there are."""
    what = "EFI system partition that the firmware started"
    current = host.read_bytes("%s/BootCurrent-%s" % (EFIVARS, EFI_GLOBAL), 64) or b""
    number = struct.unpack_from("<H", current, 4)[0] if len(current) >= 6 else None
    entry = host.read_bytes("%s/Boot%04X-%s" % (EFIVARS, number, EFI_GLOBAL), 1 << 16) if number is not None else None
    started, remote = parse_boot_entry(entry)
    partition = parse_loader_partition(host.read_bytes(LOADER_PARTITION, 256))
    found = [name for text in (partition, started) if text for name in need.blocks.find("PARTUUID=" + text)]
    need.names(what, found)
    if found or remote and not partition:
        return
    candidates = need.blocks.having("ID_PART_ENTRY_TYPE", ESP_TYPE)
    need.names("EFI system partition, which the firmware may have started", candidates)
    points = {mount["point"] for mount in need.blocks.mounts if mount["fstype"] == "vfat"}
    if not candidates and not points & {"/boot", "/boot/efi", "/efi"}:
        need.unknown(what, "neither EFI variables, udev nor a mount point tell where it is")


def _bios(inputs, need):
    """Where the BIOS found GRUB is not recorded: every disk that may have it.

    That is the BIOS's first disk if the module edd is loaded, and every disk with a partition for GRUB
    (GPT), else with one that is marked active (MBR). /boot's own disks are in use anyway.
    """
    blocks = need.blocks
    first = pci.addresses_in(inputs.host.real(EDD_BOOT + "/pci_dev"))[-1:]
    for function in first:
        need.uses.append(storage.use("the BIOS's first disk", ("int13_dev80", function)))
    need.names("partition for GRUB, from which the BIOS may start", blocks.having("ID_PART_ENTRY_TYPE", BIOS_BOOT_TYPE))
    if not first:
        active = blocks.having("ID_PART_ENTRY_FLAGS", "0x80")
        active = [name for name in active if blocks.udev_value(name, "ID_PART_ENTRY_SCHEME") == "dos"]
        need.names("partition marked active, from which the BIOS may start", active)
    if not blocks.udev and not first and blocks.names:
        inputs.miss(UDEV, "whether the BIOS starts from another disk than that of /boot is unknown")


# -- what belongs together -------------------------------------------------------------------


def _groups(host, need):
    """Physical volumes of the volume groups in use: a group that lacks one is not activated at boot.

    The device mapper shows those below active volumes, under all of which we look. The others are
    in LVM's backup of the group's metadata. When that cannot be read, every physical volume that
    nothing is made of may belong to the group: neither sysfs nor udev says whose it is.
    """
    blocks = need.blocks
    groups = {}
    for name, (mapped, identity) in blocks.mappers.items():
        if identity.startswith("LVM-"):
            groups.setdefault(identity[len("LVM-"):][:32], []).append((name, mapped))
    for volumes in groups.values():
        if not need.known & {name for name, dummy in volumes}:
            continue
        group = _group_name(sorted(mapped for dummy, mapped in volumes))
        own = {name for name, dummy in volumes}
        need.names("volume group %s" % group, sorted({pv for name in own for pv in blocks.slaves(name)} - own))
        wanted = set(parse_volume_group(host.read("%s/%s" % (LVM_BACKUP, group)) or ""))
        members = blocks.having("ID_FS_TYPE", "LVM2_member")
        if wanted:
            rest = [n for n in members if blocks.udev_value(n, "ID_FS_UUID").replace("-", "") in wanted]
            need.names("volume group %s, no active volume on it" % group, rest)
        elif blocks.udev:
            rest = [n for n in members if not blocks.held(n)]
            need.names("may be of volume group %s, no active volume on it" % group, rest)
        else:
            need.unknown("volume group %s" % group, "neither %s nor udev tells its physical volumes" % LVM_BACKUP)


def _group_name(mapped):
    """Name of a volume group from the mapper's names of its volumes: up to the first single hyphen."""
    found = re.match(r"((?:[^-]|--)+)-(?!-)", mapped[0]) if mapped else None
    return found.group(1).replace("--", "-") if found else ""


def _arrays(host, need):
    """Members of md arrays in use, or of those that are set up at boot, that are not active in one now."""
    blocks = need.blocks
    listed = set(parse_arrays("\n".join(host.read(path) or "" for path in MDADM + ("/proc/cmdline",))))
    members = [(name, blocks.udev_value(name, "ID_FS_UUID").replace("-", "").lower()) for name in
               blocks.having("ID_FS_TYPE", "linux_raid_member")]
    wanted = listed | {identity for name, identity in members if name in need.known and identity}
    rest = [name for name, identity in members if identity in wanted]
    for fstype in FIRMWARE_RAID:  # its members are told apart by nothing that udev keeps
        members = blocks.having("ID_FS_TYPE", fstype)
        rest += members if need.known.intersection(members) else []
    need.names("member of an md array that is not active in one", rest)
