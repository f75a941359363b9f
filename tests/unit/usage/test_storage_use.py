# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From mount points and swap to the functions that carry them."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import assign_uses, collect
from ansible_collections.vfio.host.plugins.module_utils._usage import storage
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import PCI_PATH, FakeMachine, p8h67

AHCI = PCI_PATH + "/0000:00:1f.2"


@pytest.fixture
def machine(tmp_path):
    return FakeMachine(tmp_path)


def chains(machine):
    """Chains of a tree whose uses are all known."""
    uses, unknowns = storage.read(Inputs(Host(machine.root)))
    assert unknowns == []
    return [use["chain"] for use in uses]


def unknown(machine):
    return storage.read(Inputs(Host(machine.root)))[1]


def sata(machine, name, port, **more):
    return machine.disk(name, "%s/ata%d/host%d/target0:0:0/0:0:0:0/block" % (AHCI, port, port), **more)


def test_partition(machine):
    sata(machine, "sda", 1, partitions=2)
    machine.mount("/", "sda2")
    assert chains(machine) == [["/", "/dev/sda2", "sda", "0000:00:1f.2"]]


def test_lvm_over_partition(machine):
    sata(machine, "sda", 1, partitions=3)
    machine.virtual_disk("dm-0", slaves=["sda3"], mapper="vg-root")
    machine.mount("/", "dm-0", source="/dev/mapper/vg-root")
    assert chains(machine) == [["/", "/dev/mapper/vg-root", "sda3", "sda", "0000:00:1f.2"]]


def test_crypt_over_lvm_over_md_over_two_controllers(machine):
    sata(machine, "sda", 1, partitions=1)
    machine.disk("sdb", PCI_PATH + "/0000:00:1c.0/0000:03:00.0/ata9/host9/block", partitions=1)
    machine.virtual_disk("md0", slaves=["sda1", "sdb1"])
    machine.virtual_disk("dm-0", slaves=["md0"], mapper="vg-root")
    machine.virtual_disk("dm-1", slaves=["dm-0"], mapper="crypt")
    machine.mount("/", "dm-1")
    assert chains(machine) == [
        ["/", "/dev/mapper/crypt", "dm-0", "md0", "sda1", "sda", "0000:00:1f.2"],
        ["/", "/dev/mapper/crypt", "dm-0", "md0", "sdb1", "sdb", "0000:03:00.0"],
    ]


def test_virtio(machine):
    machine.disk("vda", PCI_PATH + "/0000:00:04.0/virtio1/block", partitions=1)
    machine.mount("/", "vda1")
    assert chains(machine) == [["/", "/dev/vda1", "vda", "0000:00:04.0"]]


def test_nvme(machine):
    machine.disk("nvme0n1", PCI_PATH + "/0000:00:1d.0/0000:04:00.0/nvme/nvme0", partitions=2)
    machine.mount("/", "nvme0n1p2")
    assert chains(machine) == [["/", "/dev/nvme0n1p2", "nvme0n1", "0000:04:00.0"]]


def test_nvme_with_native_multipath_uses_every_controller(machine):
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    machine.disk("nvme0n1", subsystem, partitions=1)
    for number in (0, 1):
        home = "%s/0000:00:1d.0/0000:0%d:00.0/nvme/nvme%d" % (PCI_PATH, 4 + number, number)
        machine.folder(home)
        machine.link("%s/nvme%d" % (subsystem, number), home)
    machine.mount("/", "nvme0n1p1")
    assert [chain[-1] for chain in chains(machine)] == ["0000:04:00.0", "0000:05:00.0"]
    machine.folder("/sys/devices/virtual/nvme-fabrics/ctl/nvme2")
    machine.link(subsystem + "/nvme2", "/sys/devices/virtual/nvme-fabrics/ctl/nvme2")
    assert [u["kind"] for u in unknown(machine)] == ["disk"]


def test_usb_disk_is_its_controllers(machine):
    machine.disk("sdb", PCI_PATH + "/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block", partitions=1)
    machine.mount("/", "sdb1")
    assert chains(machine)[0][-1] == "0000:00:14.0"


def test_slash_in_a_device_name(machine):
    machine.disk("cciss!c0d0", PCI_PATH + "/0000:06:00.0/cciss0/block", partitions=1)
    machine.mount("/", "cciss!c0d0p1")
    assert chains(machine) == [["/", "/dev/cciss/c0d0p1", "cciss!c0d0", "0000:06:00.0"]]


def test_btrfs_over_two_disks(machine):
    for name, port in (("sda", 1), ("sdb", 2)):
        sata(machine, name, port, partitions=1)
        machine.link("/sys/fs/btrfs/1234/devices/%s1" % name, "/sys/class/block/%s1" % name)
    machine.mount("/", fstype="btrfs", source="/dev/sda1", number="0:32")
    assert [chain[2] for chain in chains(machine)] == ["sda", "sdb"]


def test_every_mount_and_swap_counts_once(machine):
    sata(machine, "sda", 1, partitions=3)
    machine.mount("/", "sda1")
    machine.mount("/srv/bind", "sda1")
    machine.mount("/with\\040space", "sda2")
    machine.mount("/proc", fstype="proc", source="proc", number="0:5")
    machine.write("/proc/swaps", "Filename Type\n/dev/sda3 partition 1 0 -2\n/swap\\040file file 1 0 -3\n")
    assert [chain[:2] for chain in chains(machine)] == [
        ["/", "/dev/sda1"], ["/with space", "/dev/sda2"], ["swap", "/dev/sda3"],
    ]


def test_swap_by_mapper_name(machine):
    sata(machine, "sda", 1)
    machine.virtual_disk("dm-1", slaves=["sda"], mapper="vg-swap")
    machine.mount("/", "sda")
    machine.write("/proc/swaps", "Filename Type\n/dev/mapper/vg-swap partition 1 0 -2\n")
    assert chains(machine)[-1] == ["swap", "/dev/mapper/vg-swap", "sda", "0000:00:1f.2"]


def test_loop_memory_and_disks_off_pci_need_no_function(machine):
    sata(machine, "sda", 1)
    machine.mount("/", "sda")
    machine.virtual_disk("loop0")
    machine.mount("/snap/core", "loop0", fstype="squashfs")
    machine.virtual_disk("zram0")
    machine.mount("/tmp/z", "zram0")
    machine.disk("mmcblk0", "/sys/devices/platform/soc/mmc0/block")
    machine.mount("/boot", "mmcblk0")
    assert len(chains(machine)) == 1


def test_root_in_memory_uses_no_disk(machine):
    machine.mount("/", fstype="tmpfs", source="tmpfs", number="0:20")
    assert chains(machine) == []


@pytest.mark.parametrize("fstype, source", [("nfs4", "srv:/root"), ("overlay", "overlay"), ("zfs", "rpool/ROOT")])
def test_root_on_something_that_names_no_disk_is_unknown(machine, fstype, source):
    machine.mount("/", fstype=fstype, source=source)
    assert [(u["kind"], u["input"]) for u in unknown(machine)] == [("disk", "/")]


def test_a_zfs_pool_beside_root_is_unknown_once(machine):
    sata(machine, "sda", 1)
    machine.mount("/", "sda")
    machine.mount("/tank", fstype="zfs", source="tank")
    machine.mount("/tank/a", fstype="zfs", source="tank/a")
    assert [u["input"] for u in unknown(machine)] == ["/tank"]


def test_network_mounts_beside_root_are_not_ours(machine):
    sata(machine, "sda", 1)
    machine.mount("/", "sda")
    machine.mount("/mnt", fstype="nfs4", source="srv:/x")
    machine.mount("/etc/pve", fstype="fuse", source="/dev/fuse")
    assert len(chains(machine)) == 1


@pytest.mark.parametrize("home", [
    "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block", "/sys/devices/virtual/block",
])
def test_disk_over_the_network_is_unknown(machine, home):
    machine.disk("nbd0", home)
    machine.mount("/", "nbd0")
    assert len(unknown(machine)) == 1


def test_missing_pieces_are_unknown(machine):
    assert [u["input"] for u in unknown(machine)] == ["/"]
    machine.mount("/", number="8:99", source="/dev/sda1")
    assert "8:99" in unknown(machine)[0]["why"]
    machine.virtual_disk("dm-0", slaves=["gone"])
    machine.mount("/data", "dm-0")
    assert "gone" in unknown(machine)[1]["why"]


def test_slaves_in_a_loop_end(machine):
    machine.virtual_disk("dm-0", slaves=["dm-1"])
    machine.virtual_disk("dm-1", slaves=["dm-0"])
    machine.mount("/", "dm-0")
    assert "cannot be followed" in unknown(machine)[0]["why"]


def test_document_refuses_to_know_a_root_it_cannot_follow(tmp_path):
    machine = p8h67(tmp_path)
    machine.mount("/data", fstype="zfs", source="tank")
    document = collect(Host(str(tmp_path)))
    assert document["host"]["usage_unknown"] == ["disk"]
    assert document["source"]["missing"][0]["input"] == "/data"
    assert document["source"]["missing"][0]["why"].startswith("VH205: ")


def test_use_reaches_the_endpoints_above(tmp_path):
    """A disk in a VMD domain: the VMD function is as much in use as the disk's own."""
    functions = [
        {"address": "0000:00:0e.0", "is_bridge": False, "parent": None},
        {"address": "10000:e0:06.0", "is_bridge": True, "parent": "0000:00:0e.0"},
        {"address": "10000:e1:00.0", "is_bridge": False, "parent": "10000:e0:06.0"},
    ]
    use = {"kind": "disk", "what": "/", "chain": ["/"], "function": "10000:e1:00.0", "finding": "VH201"}
    assert assign_uses(functions, [use]) == []
    assert [len(function["used_by"]) for function in functions] == [1, 0, 1]


def test_use_of_a_function_that_was_not_read_is_unknown():
    use = {"kind": "network", "what": "SSH", "chain": [], "function": "0000:09:00.0", "finding": "VH202"}
    assert [unknown["kind"] for unknown in assign_uses([], [use])] == ["ssh"]
