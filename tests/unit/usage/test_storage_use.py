# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From mount points and swap to the functions that carry them."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vfio.host.plugins.module_utils._gathering import assign_uses
from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
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
    assert {u["kind"] for u in unknown(machine)} == {"disk", "network"}


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
    machine.write(machine.virtual_disk("loop0") + "/loop/backing_file", "/tmp/core.img\n")
    machine.mount("/tmp", fstype="tmpfs", source="tmpfs", number="0:21")
    machine.mount("/snap/core", "loop0", fstype="squashfs")
    machine.virtual_disk("zram0")
    machine.mount("/tmp/z", "zram0")
    machine.disk("mmcblk0", "/sys/devices/platform/soc/mmc0/block")
    machine.mount("/boot", "mmcblk0")
    assert len(chains(machine)) == 1


def test_root_in_memory_uses_no_disk(machine):
    machine.mount("/", fstype="tmpfs", source="tmpfs", number="0:20")
    assert chains(machine) == []


@pytest.mark.parametrize("fstype, source, kinds", [
    ("nfs4", "srv:/root", ["disk", "network"]), ("overlay", "overlay", ["disk"]), ("zfs", "rpool/ROOT", ["disk"]),
    ("9p", "hostshare", ["disk"]), ("virtiofs", "root", ["disk"]), ("fuse.mergerfs", "a:b", ["disk"]),
])
def test_root_on_something_that_names_no_disk_is_unknown(machine, fstype, source, kinds):
    machine.mount("/", fstype=fstype, source=source)
    assert [(u["kind"], u["input"]) for u in unknown(machine)] == [(kind, "/") for kind in kinds]


def test_a_zfs_pool_beside_root_is_unknown_once(machine):
    sata(machine, "sda", 1)
    machine.mount("/", "sda")
    machine.mount("/tank", fstype="zfs", source="tank")
    machine.mount("/tank/a", fstype="zfs", source="tank/a")
    assert [u["input"] for u in unknown(machine)] == ["/tank"]


def test_filesystems_in_user_space_beside_root_are_not_followed(machine):
    sata(machine, "sda", 1)
    machine.mount("/", "sda")
    machine.mount("/etc/pve", fstype="fuse", source="/dev/fuse", number="0:40")
    assert len(chains(machine)) == 1


NIC = PCI_PATH + "/0000:00:1c.0/0000:04:00.0"
NIC2 = PCI_PATH + "/0000:00:19.0"
TO_SERVER = ["192.0.2.9", "enp4s0", "0000:04:00.0"]


@pytest.fixture
def networked(machine):
    """A machine with its disk in place, and an interface on the network of the server 192.0.2.9, another beside it."""
    sata(machine, "sda", 1)
    machine.mount("/boot", "sda", number="8:1")
    machine.nic("enp4s0", NIC)
    machine.nic("enp0s25", NIC2, index=3)
    machine.addresses(("enp4s0", "192.0.2.2/24"), ("enp0s25", "203.0.113.2/24"))
    return machine


@pytest.mark.parametrize("fstype, source, options", [
    ("nfs4", "srv:/root", "rw,vers=4.2,clientaddr=192.0.2.2,addr=192.0.2.9"), ("cifs", "//srv/x", "rw,addr=192.0.2.9"),
    ("ceph", "192.0.2.9:6789:/x", "rw,name=admin"), ("ceph", "x@fsid.fs=/", "rw,mon_addr=192.0.2.9:6789"),
])
@pytest.mark.parametrize("point", ["/", "/srv"])
def test_filesystem_of_a_server_is_the_interfaces_to_it(networked, point, fstype, source, options):
    networked.mount(point, fstype=fstype, source=source, options=options)
    networked.mount("/", "sda", number="8:1")
    found = [chain for chain in chains(networked) if chain[-1] != "0000:00:1f.2"]
    assert found == [[point, "%s (%s)" % (source, fstype)] + TO_SERVER]


def test_network_root_for_the_bridge_guard(networked):
    host = Host(networked.root)
    networked.mount("/", "sda", number="8:1")
    assert storage.network_root(host) is None
    networked.mounts = []
    networked.mount("/", fstype="nfs4", source="srv:/", options="rw,addr=192.0.2.9")
    assert storage.network_root(host) == "/ is reached over enp4s0"
    networked.mounts = []
    networked.mount("/", fstype="nfs4", source="srv:/")
    assert "names no address" in storage.network_root(host)
    networked.mounts = []
    networked.mount("/", fstype="zfs", source="rpool/ROOT")
    assert storage.network_root(host) is None


def test_iscsi_is_the_interfaces_to_its_target(networked):
    session = "/sys/devices/platform/host3/session1"
    networked.disk("sdb", session + "/target3:0:0/3:0:0:1/block", partitions=1)
    networked.mount("/", "sdb1")
    assert {u["kind"] for u in unknown(networked)} == {"disk", "network"}
    networked.write(session + "/connection1:0/iscsi_connection/connection1:0/address", "192.0.2.9\n")
    assert ["/", "/dev/sdb1", "sdb"] + TO_SERVER in chains(networked)


def test_nvme_over_tcp_is_the_interfaces_to_its_target(networked):
    home = "/sys/devices/virtual/nvme-fabrics/ctl/nvme2"
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys2"
    networked.disk("nvme2n1", subsystem, partitions=1)
    networked.write(home + "/transport", "tcp\n")
    networked.link(subsystem + "/nvme2", home)
    networked.mount("/", "nvme2n1p1")
    assert {u["kind"] for u in unknown(networked)} == {"disk", "network"}
    networked.write(home + "/address", "traddr=192.0.2.9,trsvcid=4420,src_addr=192.0.2.2\n")
    assert ["/", "/dev/nvme2n1p1", "nvme2n1"] + TO_SERVER in chains(networked)


def test_nvme_over_fibre_channel_is_its_adapter(machine):
    home = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0"
    machine.disk("nvme0n1", home)
    machine.write(home + "/transport", "fc\n")
    machine.write(home + "/address", "traddr=nn-0x1:pn-0x2,host_traddr=nn-0x20:pn-0x10\n")
    for number, port in ((1, "0x10"), (2, "0x11")):
        adapter = "%s/0000:00:1d.0/0000:0%d:00.0/host%d/fc_host/host%d" % (PCI_PATH, 4 + number, number, number)
        machine.write(adapter + "/port_name", port + "\n")
        machine.link("/sys/class/fc_host/host%d" % number, adapter)
    machine.mount("/", "nvme0n1")
    assert chains(machine) == [["/", "/dev/nvme0n1", "0000:05:00.0"]]


def test_fibre_channel_over_ethernet_is_its_interface(networked):
    networked.nic("enp4s0.100-fcoe", kind="vlan", lower=["enp4s0"], index=9)
    networked.disk("sdb", "/sys/devices/virtual/net/enp4s0.100-fcoe/ctlr_0/host5/rport-5:0-0/target5:0:0/block")
    networked.mount("/", "sdb")
    assert ["/", "/dev/sdb", "enp4s0.100-fcoe", "enp4s0", "0000:04:00.0"] in chains(networked)


@pytest.mark.parametrize("name, home", [
    ("nbd0", "/sys/devices/virtual/block"), ("rbd0", "/sys/devices/rbd/0/block"), ("drbd1", "/sys/devices/virtual/block"),
    ("sdb", "/sys/devices/platform/vhci_hcd.0/usb9/9-1/9-1:1.0/host7/target7:0:0/block"),
])
def test_disk_over_a_network_that_nothing_names_is_unknown_both_ways(machine, name, home):
    machine.disk(name, home)
    machine.mount("/data", name)
    machine.mount("/", fstype="tmpfs", source="tmpfs", number="0:20")
    assert {u["kind"] for u in unknown(machine)} == {"disk", "network"}


def test_sas_and_multipath_over_two_adapters(machine):
    for number, name in ((3, "sda"), (4, "sdb")):
        machine.disk(name, "%s/0000:00:1c.0/0000:0%d:00.0/host%d/port-%d:0/expander-%d:0/port-%d:0:4/end_device-%d:0:4/"
                     "target%d:0:4/%d:0:4:0/block" % ((PCI_PATH,) + (number,) * 8))
    machine.virtual_disk("dm-0", slaves=["sda", "sdb"], mapper="mpatha")
    machine.virtual_disk("dm-1", slaves=["dm-0"], mapper="mpatha-part1")
    machine.mount("/", "dm-1")
    assert [chain[-1] for chain in chains(machine)] == ["0000:03:00.0", "0000:04:00.0"]


def test_bcache_card_reader_and_vmd(machine):
    sata(machine, "sda", 1, partitions=1)
    machine.disk("nvme0n1", PCI_PATH + "/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme0")
    machine.virtual_disk("bcache0", slaves=["nvme0n1", "sda1"])
    machine.disk("mmcblk0", PCI_PATH + "/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block", partitions=1)
    machine.mount("/", "bcache0")
    machine.mount("/boot", "mmcblk0p1")
    assert sorted(chain[-1] for chain in chains(machine)) == ["0000:00:1a.0", "0000:00:1f.2", "10000:e1:00.0"]


def test_disk_of_a_virtual_function_needs_the_physical_one(machine):
    machine.disk("nvme0n1", PCI_PATH + "/0000:00:1d.0/0000:04:00.1/nvme/nvme0")
    machine.link("/sys/bus/pci/devices/0000:04:00.1/physfn", PCI_PATH + "/0000:00:1d.0/0000:04:00.0")
    machine.mount("/", "nvme0n1")
    assert chains(machine) == [
        ["/", "/dev/nvme0n1", "0000:04:00.1"], ["/", "/dev/nvme0n1", "0000:04:00.1", "0000:04:00.0"],
    ]


def test_a_thin_pool_is_followed_once(machine):
    sata(machine, "sda", 1, partitions=1)
    for name in ("dm-0", "dm-1"):
        machine.virtual_disk(name, slaves=["sda1"])
    machine.virtual_disk("dm-2", slaves=["dm-0", "dm-1"], mapper="vg-pool")
    machine.mount("/", "dm-2")
    assert chains(machine) == [["/", "/dev/mapper/vg-pool", "dm-0", "sda1", "sda", "0000:00:1f.2"]]


def test_a_mesh_of_slaves_takes_no_time(machine):
    for number in range(40):
        below = ["dm-%d" % n for n in (2 * number + 2, 2 * number + 3)] if number < 39 else []
        for name in ("dm-%d" % (2 * number), "dm-%d" % (2 * number + 1)):
            machine.virtual_disk(name, slaves=below)
    machine.mount("/", "dm-0")
    assert {u["kind"] for u in unknown(machine)} == {"disk"}


def test_bcachefs_over_two_disks(machine):
    for number, name in enumerate(("sda", "sdb")):
        sata(machine, name, number)
        machine.link("/sys/fs/bcachefs/1234/dev-%d/block" % number, "/sys/class/block/" + name)
    machine.mount("/", fstype="bcachefs", source="/dev/sda", number="0:32")
    assert [chain[1] for chain in chains(machine)] == ["/dev/sda", "/dev/sdb"]


def test_btrfs_whose_other_devices_are_not_listed_is_unknown(machine):
    sata(machine, "sda", 1)
    machine.mount("/", fstype="btrfs", source="/dev/sda", number="0:32")
    assert "other devices" in unknown(machine)[0]["why"]


def test_log_device_of_xfs(machine):
    sata(machine, "sda", 1)
    machine.disk("nvme0n1", PCI_PATH + "/0000:00:1d.0/0000:04:00.0/nvme/nvme0")
    machine.mount("/", "sda", fstype="xfs", options="rw,logdev=/dev/nvme0n1")
    assert [chain[-1] for chain in chains(machine)] == ["0000:00:1f.2", "0000:04:00.0"]


def test_filesystem_that_only_another_namespace_sees(machine):
    sata(machine, "sda", 1, partitions=1)
    sata(machine, "sdb", 2)
    machine.mount("/", "sda1", fstype="xfs")
    machine.folder("/sys/fs/xfs/sda1")
    machine.folder("/sys/fs/xfs/stats")
    assert len(chains(machine)) == 1
    machine.folder("/sys/fs/ext4/sdb")
    assert chains(machine)[1][:2] == ["ext4 filesystem, mounted where this process does not see it", "/dev/sdb"]


def test_loop_is_the_disk_of_its_file(machine):
    sata(machine, "sda", 1)
    machine.mount("/run/live", "sda")
    home = machine.virtual_disk("loop0")
    machine.mount("/", "loop0", fstype="squashfs")
    assert "on no filesystem" in unknown(machine)[0]["why"]  # the kernel always says which
    machine.write(home + "/loop/backing_file", "/run/live/root.img\n")
    assert ["/", "/dev/loop0", "/dev/sda", "0000:00:1f.2"] in chains(machine)
    machine.write(home + "/loop/backing_file", "/dev/sda\n")
    assert ["/", "/dev/loop0", "/dev/sda", "0000:00:1f.2"] in chains(machine)
    machine.write(home + "/loop/backing_file", "/on/itself.img\n")
    assert "itself" in unknown(machine)[0]["why"]


def test_loops_in_a_ring_end(machine):
    for number in range(3):
        home = machine.virtual_disk("loop%d" % number)
        machine.write(home + "/loop/backing_file", "/m%d/file\n" % ((number + 1) % 3))
        machine.mount("/m%d" % number, "loop%d" % number)
    assert any("too many layers" in u["why"] for u in unknown(machine))


def test_compressed_memory_that_is_written_back(machine):
    sata(machine, "sda", 1, partitions=2)
    machine.write(machine.virtual_disk("zram0") + "/backing_dev", "/dev/sda2\n")
    machine.mount("/", "sda1")
    machine.write("/proc/swaps", "Filename Type\n/dev/zram0 partition 1 0 -2\n")
    assert chains(machine)[1] == ["swap", "/dev/zram0", "sda2", "sda", "0000:00:1f.2"]


def test_overlay_root(machine):
    sata(machine, "sda", 1)
    machine.mount("/media/root-ro", "sda")
    machine.mount("/media/root-rw", fstype="tmpfs", source="tmpfs", number="0:31")
    layers = "rw,lowerdir=/media/root-ro,upperdir=/media/%s,workdir=/media/w"
    machine.mount("/", fstype="overlay", source="overlay", number="0:32", options=layers % "root-rw/up")
    assert chains(machine) == [["/", "/dev/sda", "0000:00:1f.2"]]
    machine.mounts.pop()
    machine.mount("/", fstype="overlay", source="overlay", number="0:32", options=layers % "hidden")
    assert "/media/hidden" in unknown(machine)[0]["why"]


@pytest.mark.parametrize("fstype, driver", [("virtiofs", "virtiofs"), ("9p", "9pnet_virtio")])
def test_root_from_the_hypervisor(machine, fstype, driver):
    home = PCI_PATH + "/0000:00:05.0/virtio2"
    machine.folder(home)
    machine.link("/sys/bus/virtio/drivers/%s/virtio2" % driver, home)
    machine.mount("/", fstype=fstype, source="tag")
    assert chains(machine) == [["/", "%s tag" % fstype, "0000:00:05.0"]]


# -- ZFS -----------------------------------------------------------------------------------------


def pair(name, value):
    """A string in a packed XDR name-value list."""
    def text(data):
        return len(data).to_bytes(4, "big") + data + bytes(-len(data) % 4)
    return bytes(8) + text(name) + (9).to_bytes(4, "big") + (1).to_bytes(4, "big") + text(value)


def test_zfs_by_udevs_labels(machine):
    for number, label in enumerate(("rpool", "rpool", "other"), 1):
        name = "sd" + "xabc"[number]
        sata(machine, name, number, partitions=1)
        machine.udev(name + "1", ID_FS_TYPE="zfs_member", ID_FS_LABEL=label)
    machine.mount("/", fstype="zfs", source="rpool/ROOT/pve-1")
    assert [chain[:2] for chain in chains(machine)] == [["/", "/dev/sda1"], ["/", "/dev/sdb1"]]


def test_zfs_by_its_cache(machine):
    for number, name in enumerate(("sda", "sdb", "sdc"), 1):
        sata(machine, name, number, partitions=1)
    machine.link("/dev/disk/by-id/ata-X-part1", "/dev/sdb1")
    data = pair(b"name", b"rpool") + pair(b"path", b"/dev/sda1") + pair(b"path", b"/dev/disk/by-id/ata-X-part1")
    machine.write("/etc/zfs/zpool.cache", data + pair(b"name", b"tank") + pair(b"path", b"/dev/sdc1"))
    machine.mount("/", fstype="zfs", source="rpool/ROOT")
    assert [chain[1] for chain in chains(machine)] == ["/dev/sda1", "/dev/sdb1"]
    os.unlink(machine.outside("/dev/disk/by-id/ata-X-part1"))
    assert "by-id/ata-X" in unknown(machine)[0]["why"]


def test_zfs_volume(machine):
    sata(machine, "sda", 1)
    machine.udev("sda", ID_FS_TYPE="zfs_member", ID_FS_LABEL="rpool")
    machine.virtual_disk("zd0")
    machine.mount("/", "zd0")
    assert "pool of zd0" in unknown(machine)[0]["why"]
    machine.udev("zd0", "zvol/rpool/root")
    assert chains(machine) == [["/", "/dev/zd0", "/dev/sda", "0000:00:1f.2"]]


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
    missing = {entry["input"]: entry["why"] for entry in document["source"]["missing"]}
    assert missing["/data"].startswith("VH205: ")


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
