# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that a file may hold makes the readers of disks and network raise or hang."""

from __future__ import annotations

import os
import random

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._usage import block, boot_storage, network, ssh, storage
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import PCI_PATH, FakeMachine, p8h67

SEEDS = {
    network.parse_routes4: "Iface Destination\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    network.parse_routes6: "fd000000000000000000000000000000 40 %s 00 %s 00000100 1 0 00000001 eth0\n" % ("0" * 32, "0" * 32),
    network.parse_fib: "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.2\n        /32 host LOCAL\nId 7:\n |-- 0.0.0.0\n /0 link UNICAST\n",
    network.parse_inet6: "fd000000000000000000000000000002 04 40 00 82 eth0\n",
    network.parse_pppoe: "Id Address Device\n0000002A 52:54:00:00:00:99 eth0\n",
    network.parse_speed: "1000",
    block.parse_mounts: "27 1 254:0 / /a\\040b rw - ext4 /dev/vda rw,discard\n28 1 0:5 / / rw - overlay overlay rw,lowerdir=/a:/b\n",
    block.parse_udev: "S:disk/by-id/x\nE:ID_FS_TYPE=ext4\nE:X\n",
    storage.parse_swaps: "Filename Type\n/dev/sda3 partition 1 0 -2\n",
    boot_storage.parse_fstab: "UUID=1 /\\040b ext4 noauto,device=/dev/sdb 0 1\n",
    boot_storage.parse_crypttab: "name UUID=1 /key:UUID=2 luks,header=/x\n",
    boot_storage.parse_unit: "[Mount]\nWhat=/dev/sda\n",
    boot_storage.parse_cmdline: "root=UUID=1 rd.luks.name=a=b cryptdevice=UUID=1:x rd.lvm.lv=a/b \"resume=/dev/x y\"\n",
    boot_storage.parse_arrays: "ARRAY /dev/md1 UUID=11111111:22223333:44445555:55555555\n",
    boot_storage.parse_volume_group: "physical_volumes {\nid = \"abcdef-0123-4567-89ab-cdef-0123-456789\"\n}\n",
    ssh.parse_stat: "1 (a b) c) S 300 1 1",
    ssh.parse_connection: "192.0.2.9 50000 192.0.2.2 22",
}
BINARY = {
    block.parse_pool_cache: b"\0\0\0\x04name\0\0\0\x09\0\0\0\x01\0\0\0\x05rpool\0\0\0\0\0\0\x04path\0\0\0\x09\0\0\0\x01\0\0\0\x08/dev/sda",
    boot_storage.parse_boot_entry: bytes(10) + b"d\0\0\0\x04\x01\x2a\0" + bytes(36) + b"\2\2\x7f\xff\4\0",
    boot_storage.parse_loader_partition: bytes(4) + "11111111-2222-3333-4444-555555555555".encode("utf-16-le"),
}
FILES = ("/proc/net/route", "/proc/net/ipv6_route", "/proc/net/fib_trie", "/proc/net/if_inet6", "/proc/self/mountinfo",
         "/proc/swaps", "/proc/cmdline", "/etc/fstab", "/etc/crypttab", "/proc/self/stat", "/proc/self/environ",
         "/etc/zfs/zpool.cache", "/sys/firmware/efi/efivars/BootCurrent-8be4df61-93ca-11d2-aa0d-00e098032b8c")


def spoiled(chance, data):
    """Bytes of ``data`` with pieces cut, doubled, replaced or put elsewhere."""
    data = bytearray(data)
    for dummy in range(chance.randrange(1, 6)):
        at, length = chance.randrange(len(data) + 1), chance.randrange(12)
        piece = bytes(chance.choice(b"\0\n \t:/,=-.%fFxz09\xff\\(){}\"") for dummy in range(chance.randrange(8)))
        data[at:at + length * chance.randrange(2)] = piece * chance.choice((1, 1, 1, 9))
    return bytes(data)


@pytest.mark.parametrize("parse", list(SEEDS) + list(BINARY), ids=lambda parse: parse.__name__)
def test_no_parser_raises(parse):
    chance = random.Random(parse.__name__)
    for dummy in range(1500):
        if parse in BINARY:
            parse(spoiled(chance, BINARY[parse]))
        else:
            parse(spoiled(chance, SEEDS[parse].encode()).decode("utf-8", "backslashreplace"))


def everything(root):
    inputs = Inputs(Host(str(root)))
    net = network.read(inputs)
    found = [storage.read(inputs), boot_storage.read(inputs), network.use(ssh.read(inputs), net)]
    for uses, unknowns in found:
        assert all(set(use) == {"kind", "what", "chain", "function", "finding"} for use in uses)
        assert all(use["chain"][-1] == use["function"] for use in uses)
        assert all(set(unknown) == {"kind", "input", "why"} for unknown in unknowns)
        assert all(unknown["kind"] in ("disk", "network", "ssh") for unknown in unknowns)
    return found


def test_no_reader_raises(tmp_path):
    machine = p8h67(tmp_path)
    chance = random.Random(7)
    seeds = [text.encode() for text in SEEDS.values()] + list(BINARY.values())
    for dummy in range(150):
        for path in FILES:
            machine.write(path, spoiled(chance, chance.choice(seeds)))
        everything(tmp_path)


def test_empty_tree(tmp_path):
    disks, boot, net = everything(tmp_path)
    assert {u["kind"] for dummy, unknowns in (disks, boot, net) for u in unknowns} == {"disk", "network", "ssh"}


@pytest.mark.parametrize("target", ["self", "/nowhere/at/all", "../../../../../../etc/passwd"])
def test_links_that_lead_nowhere_or_to_themselves(tmp_path, target):
    machine = p8h67(tmp_path)
    before = everything(tmp_path)
    for folder in ("/sys/class/net", "/sys/class/block", "/sys/dev/block", "/sys/fs/ext4", "/dev/disk/by-uuid"):
        machine.folder(folder)
        os.symlink("wrong" if target == "self" else target, machine.outside(folder + "/wrong"))
    assert everything(tmp_path) == before
    # and when something needs them
    machine.link("/sys/class/net/enp0s25/lower_wrong", "/sys/class/net/wrong")
    os.unlink(machine.outside("/sys/class/block/sda1"))
    os.symlink("sda1" if target == "self" else target, machine.outside("/sys/class/block/sda1"))
    machine.write("/etc/fstab", "UUID=wrong /x ext4 noauto\n")
    disks, boot, net = everything(tmp_path)
    assert disks[0] == [] and disks[1]
    assert [unknown["input"] for unknown in boot[1]] == ["/x in /etc/fstab, not mounted now"]


def test_a_mesh_of_interfaces_takes_no_time(tmp_path):
    machine = FakeMachine(tmp_path)
    names = ["n%d" % number for number in range(60)]
    for number, name in enumerate(names):
        machine.nic(name, lower=[other for other in names if other != name], index=number + 2)
    machine.addresses(("n0", "192.0.2.2/24"))
    machine.route("n0", "0.0.0.0", 0, "192.0.2.1", flags=3)
    assert [u["kind"] for u in everything(tmp_path)[2][1]] == ["ssh", "network"]


def test_a_thousand_layers(tmp_path):
    machine = FakeMachine(tmp_path)
    for number in range(1000):
        machine.virtual_disk("dm-%d" % number, slaves=["dm-%d" % (number + 1)] if number < 999 else ["sda"])
    machine.disk("sda", PCI_PATH + "/0000:00:1f.2/ata1/block")
    machine.mount("/", "dm-0")
    assert [use["function"] for use in everything(tmp_path)[0][0]] == ["0000:00:1f.2"]
