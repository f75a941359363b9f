# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that the next boot needs without being mounted."""

from __future__ import annotations

import struct
import uuid

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._usage import boot_storage
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import PCI_PATH, FakeMachine

ESP = "11111111-2222-3333-4444-555555555555"
LUKS = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


@pytest.fixture
def machine(tmp_path):
    """Root on sda1; sdb on another controller, with partitions that nothing uses; udev knows them all."""
    machine = FakeMachine(tmp_path)
    machine.disk("sda", PCI_PATH + "/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block", partitions=2)
    machine.disk("sdb", PCI_PATH + "/0000:00:1c.0/0000:03:00.0/ata9/host9/block", partitions=2)
    for name in ("sda", "sda1", "sda2", "sdb", "sdb1", "sdb2"):
        machine.udev(name)
    machine.mount("/", "sda1")
    return machine


def read(machine):
    return boot_storage.read(Inputs(Host(machine.root)))


def found(machine):
    """``[(what, chain after it)]`` of a tree whose needs are all known."""
    uses, unknowns = read(machine)
    assert unknowns == []
    return [(use["what"], use["chain"][1:]) for use in uses]


SDB1 = ["/dev/sdb1", "sdb", "0000:03:00.0"]


def whats(machine):
    return [what for what, dummy in found(machine)]


def test_nothing_more(machine):
    machine.write("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\nproc /proc proc\n# /dev/sdb1 /x ext4\ntmpfs /tmp tmpfs\n")
    machine.write("/etc/crypttab", "# none\nswap /dev/sda1 /dev/urandom swap\n")
    assert found(machine) == []


@pytest.mark.parametrize("options", ["umask=0077,noauto", "x-systemd.automount", "nofail"])
def test_fstab_entry_that_is_not_mounted(machine, options):
    machine.udev("sdb1", ID_FS_UUID="ABCD-0001")
    machine.write("/etc/fstab", "UUID=\"abcd-0001\" /boot/efi vfat %s 0 1\n" % options)
    machine.mount("/boot/efi", fstype="autofs", source="systemd-1", number="0:40")
    assert found(machine) == [("/boot/efi in /etc/fstab, not mounted now", SDB1)]


@pytest.mark.parametrize("spec, properties, link", [
    ("LABEL=a\\040b", {"ID_FS_LABEL": "a b"}, None), ("PARTUUID=" + ESP, {"ID_PART_ENTRY_UUID": ESP}, None),
    ("PARTLABEL=x", {"ID_PART_ENTRY_NAME": "x"}, None), ("/dev/disk/by-id/x-part1", {}, "disk/by-id/x-part1"),
    ("/dev/sdb1", {}, None),
])
def test_names_by_udev(machine, spec, properties, link):
    machine.udev("sdb1", *[link] if link else [], **properties)
    machine.write("/etc/fstab", spec + " /data ext4 noauto\n")
    assert found(machine) == [("/data in /etc/fstab, not mounted now", SDB1)]


def test_names_by_links_and_by_the_kernel(machine):
    machine.link("/dev/disk/by-label/a\\x20b", "/dev/sdb1")
    machine.write("/etc/fstab", "LABEL=a\\040b /data ext4 noauto\n")
    assert found(machine) == [("/data in /etc/fstab, not mounted now", SDB1)]
    home = PCI_PATH + "/0000:00:1c.0/0000:03:00.0/ata9/host9/block/sdb/sdb1"
    machine.write(home + "/uevent", "DEVNAME=sdb1\nPARTUUID=%s\n" % ESP)
    machine.write("/etc/fstab", "PARTUUID=%s /data ext4 noauto\n" % ESP.upper())
    assert found(machine) == [("/data in /etc/fstab, not mounted now", SDB1)]


def test_what_is_on_no_disk_here_needs_none_and_what_may_be_is_unknown(machine):
    machine.write("/etc/fstab", "UUID=gone /data ext4 nofail\n")
    assert found(machine) == []
    machine.udev("sdb1", ID_FS_TYPE="crypto_LUKS")  # closed: the filesystem may be in it
    assert [u["input"] for u in read(machine)[1]] == ["/data in /etc/fstab, not mounted now"]
    machine.link("/sys/class/block/sdb1/holders/dm-0", "/sys/class/block/sdb1")
    assert found(machine) == []


def test_without_udev_an_unmounted_entry_is_unknown_and_a_mounted_one_is_not(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.disk("sda", PCI_PATH + "/0000:00:1f.2/ata1/block", partitions=2)
    machine.mount("/", "sda1")
    machine.write("/etc/fstab", "UUID=1 / ext4\nUUID=2 /boot ext4 noauto\n")
    assert [u["input"] for u in read(machine)[1]] == ["/boot in /etc/fstab, not mounted now"]


def test_swap_in_fstab(machine):
    machine.udev("sdb1", ID_FS_UUID="5")
    machine.write("/etc/fstab", "UUID=5 none swap sw\n/swapfile none swap sw\n/dev/zram0 none swap\n")
    assert found(machine) == [("swap in /etc/fstab", SDB1)]
    machine.write("/proc/swaps", "Filename Type\n/dev/sdb1 partition 1 0 -2\n")
    assert found(machine) == []


def test_unreadable_table_is_unknown(machine):
    machine.folder("/etc/crypttab")  # there, and not to be read
    assert [u["input"] for u in read(machine)[1]] == ["/etc/crypttab"]


def test_crypttab_with_key_and_header_apart(machine):
    machine.udev("sda2", ID_FS_UUID=LUKS)
    machine.udev("sdb1", ID_FS_UUID="6")
    machine.udev("sdb2", ID_FS_UUID="7")
    machine.write("/etc/crypttab", "data UUID=%s /key:UUID=6 luks,header=/h:UUID=7\n" % LUKS)
    assert whats(machine) == ["data in /etc/crypttab"] * 3


def test_open_luks_container_is_known_without_udev(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.disk("sda", PCI_PATH + "/0000:00:1f.2/ata1/block", partitions=1)
    home = machine.virtual_disk("dm-0", slaves=["sda1"], mapper="root")
    machine.write(home + "/dm/uuid", "CRYPT-LUKS2-%s-root\n" % LUKS.replace("-", ""))
    machine.mount("/", "dm-0")
    machine.write("/etc/crypttab", "root UUID=%s none luks\n" % LUKS)
    assert found(machine) == []


@pytest.mark.parametrize("token", [
    "resume=UUID=5", "rd.luks.key=/k:UUID=5", "cryptkey=UUID=5:ext4:/k", "cryptdevice=UUID=5:root", "mount.usr=UUID=5",
    "root=live:CDLABEL=stick", "rd.lvm.lv=vg-a/lv", "root=/dev/sdb1", "rd.luks.uuid=luks-" + LUKS, "rd.luks.name=%s=r" % LUKS,
])
def test_command_line(machine, token):
    machine.udev("sdb1", "vg-a/lv", ID_FS_UUID=LUKS if LUKS in token else "5", ID_FS_LABEL="stick")
    machine.write("/proc/cmdline", "ro quiet %s root=UUID=9\n" % token)
    assert found(machine) == [(token + " on the kernel command line", SDB1)]


def test_what_the_command_line_names_and_nothing_knows(tmp_path):
    """root= made the root that is mounted; where to resume from, or a key, may be anywhere."""
    machine = FakeMachine(tmp_path)
    machine.disk("sda", PCI_PATH + "/0000:00:1f.2/ata1/block")
    machine.mount("/", "sda")
    machine.write("/proc/cmdline", "root=UUID=1 resume=UUID=2 rd.luks.key=/k:UUID=3\n")
    assert [u["input"].split()[0] for u in read(machine)[1]] == ["resume=UUID=2", "rd.luks.key=/k:UUID=3"]


def test_resume_of_initramfs_tools(machine):
    machine.udev("sdb1", ID_FS_UUID="5")
    machine.write("/etc/initramfs-tools/conf.d/resume", "# x\nRESUME=none\n")
    assert found(machine) == []
    machine.write("/etc/initramfs-tools/conf.d/resume", "RESUME=UUID=5\n")
    assert found(machine) == [("hibernation image, /etc/initramfs-tools/conf.d/resume", SDB1)]


def test_systemd_units(machine):
    machine.write("/etc/systemd/system/mnt-data.mount", "[Mount]\nWhat = /dev/sdb1\nWhere=/mnt/data\n")
    machine.write("/etc/systemd/system/x.service", "[Service]\nWhat=/dev/sdb2\n")
    assert found(machine) == [("systemd unit mnt-data.mount", SDB1)]


# -- firmware --------------------------------------------------------------------------------------


def efi_variable(machine, name, data, guid="8be4df61-93ca-11d2-aa0d-00e098032b8c"):
    machine.write("/sys/firmware/efi/efivars/%s-%s" % (name, guid), b"\x07\0\0\0" + data)


def boot_entry(*nodes):
    path = b"".join(struct.pack("<BBH", kind, subtype, len(body) + 4) + body for kind, subtype, body in nodes)
    return struct.pack("<IH", 1, len(path)) + "debian".encode("utf-16-le") + b"\0\0" + path + b"\x7f\xff\x04\0"


DRIVE = (4, 1, struct.pack("<IQQ", 1, 2048, 4096) + uuid.UUID(ESP).bytes_le + b"\2\2")
STARTED = "EFI system partition that the firmware started"


def test_partition_that_the_loader_recorded(machine):
    machine.udev("sdb1", ID_PART_ENTRY_UUID=ESP)
    efi_variable(machine, "LoaderDevicePartUUID", ESP.upper().encode("utf-16-le") + b"\0\0",
                 "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
    assert found(machine) == [(STARTED, SDB1)]


def test_partition_of_the_current_boot_entry(machine):
    machine.udev("sdb1", ID_PART_ENTRY_UUID=ESP)
    efi_variable(machine, "BootCurrent", b"\x0a\0")
    efi_variable(machine, "Boot000A", boot_entry((1, 1, b"\0\0"), DRIVE, (4, 4, b"x\0")))
    assert found(machine) == [(STARTED, SDB1)]


def test_boot_over_the_network_starts_from_no_disk(machine):
    machine.udev("sdb1", ID_PART_ENTRY_TYPE=boot_storage.ESP_TYPE)
    efi_variable(machine, "BootCurrent", b"\x01\0")
    efi_variable(machine, "Boot0001", boot_entry((3, 11, bytes(33))))
    assert found(machine) == []


def test_efi_without_a_record(machine):
    machine.folder("/sys/firmware/efi")
    assert [u["input"] for u in read(machine)[1]] == [STARTED]
    machine.udev("sdb1", ID_PART_ENTRY_TYPE=boot_storage.ESP_TYPE)
    assert found(machine) == [("EFI system partition, which the firmware may have started", SDB1)]
    machine.udev("sdb1")
    machine.mount("/boot/efi", "sda2", fstype="vfat")
    assert found(machine) == []


def test_bios(machine):
    machine.udev("sdb1", ID_PART_ENTRY_TYPE=boot_storage.BIOS_BOOT_TYPE)
    assert found(machine) == [("partition for GRUB, from which the BIOS may start", SDB1)]
    machine.udev("sdb1", ID_PART_ENTRY_FLAGS="0x80", ID_PART_ENTRY_SCHEME="gpt")
    assert found(machine) == []
    machine.udev("sdb1", ID_PART_ENTRY_FLAGS="0x80", ID_PART_ENTRY_SCHEME="dos")
    assert found(machine) == [("partition marked active, from which the BIOS may start", SDB1)]
    machine.link("/sys/firmware/edd/int13_dev80/pci_dev", PCI_PATH + "/0000:00:1c.0/0000:03:00.0")
    assert found(machine) == [("the BIOS's first disk", ["int13_dev80", "0000:03:00.0"])]


# -- what belongs together ----------------------------------------------------------------------------


GROUP = "v" * 32
PV = "abcdef-0123-4567-89ab-cdef-0123-456789"


@pytest.fixture
def grouped(machine):
    """Root on a volume on sda2; sdb1 is a physical volume without an active volume on it."""
    machine.mounts = []
    home = machine.virtual_disk("dm-0", slaves=["sda2"], mapper="my--vg-root")
    machine.write(home + "/dm/uuid", "LVM-%s%s\n" % (GROUP, "l" * 32))
    machine.mount("/", "dm-0")
    machine.udev("sda2", ID_FS_TYPE="LVM2_member")
    machine.link("/sys/class/block/sda2/holders/dm-0", home)
    machine.udev("sdb1", ID_FS_TYPE="LVM2_member", ID_FS_UUID=PV)
    return machine


def test_physical_volume_without_an_active_volume(grouped):
    """Whose it is, LVM's backup tells; without that it may be the group's."""
    assert found(grouped) == [("may be of volume group my-vg, no active volume on it", SDB1)]
    text = "my-vg {\nid = \"%s\"\nphysical_volumes {\npv0 {\nid = \"%s\"\ndevice = \"/dev/sdq\"\n}\n}\nlogical_volumes {\n}\n}\n"
    grouped.write("/etc/lvm/backup/my-vg", text % ("x" * 38, PV))
    assert found(grouped) == [("volume group my-vg, no active volume on it", SDB1)]
    grouped.write("/etc/lvm/backup/my-vg", text % (PV, "y" * 38))
    assert found(grouped) == []


def test_physical_volume_below_another_volume_of_the_group(grouped):
    grouped.udev("sdb1")
    home = grouped.virtual_disk("dm-1", slaves=["sdb1"], mapper="my--vg-guest")
    grouped.write(home + "/dm/uuid", "LVM-%s%s\n" % (GROUP, "m" * 32))
    assert found(grouped) == [("volume group my-vg", SDB1)]
    grouped.write(home + "/dm/uuid", "LVM-%s%s\n" % ("w" * 32, "m" * 32))
    assert found(grouped) == []


def test_volume_group_when_nothing_tells_its_members(grouped):
    for name in ("sda", "sda1", "sda2", "sdb", "sdb1", "sdb2"):
        grouped.write("/run/udev/data/b" + open(grouped.outside("/sys/class/block/%s/dev" % name)).read().strip())
    assert [u["input"] for u in read(grouped)[1]] == ["volume group my-vg"]


@pytest.mark.parametrize("fstype", ["linux_raid_member", "isw_raid_member"])
def test_array_with_a_member_that_is_not_active(machine, fstype):
    machine.mounts = []
    machine.virtual_disk("md0", slaves=["sda2"])
    machine.mount("/", "md0")
    identity = {"ID_FS_UUID": LUKS} if fstype == "linux_raid_member" else {}
    machine.udev("sda2", ID_FS_TYPE=fstype, **identity)
    machine.udev("sdb1", ID_FS_TYPE=fstype, **identity)
    assert found(machine) == [("member of an md array that is not active in one", SDB1)]
    machine.udev("sdb1", ID_FS_TYPE="linux_raid_member", ID_FS_UUID=ESP)  # another array's
    assert found(machine) == []
    machine.write("/etc/mdadm/mdadm.conf", "ARRAY /dev/md1 metadata=1.2 UUID=11111111:22223333:44445555:55555555\n")
    assert whats(machine) == ["member of an md array that is not active in one"]


def test_pool_that_the_boot_imports(machine):
    machine.folder("/proc/spl/kstat/zfs/tank")
    machine.udev("sdb1", ID_FS_TYPE="zfs_member", ID_FS_LABEL="tank")
    assert found(machine) == [("ZFS pool tank", SDB1)]
    machine.udev("sdb1")
    assert [u["input"] for u in read(machine)[1]] == ["ZFS pool tank"]
