# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures: a recorded tree gives its document again, and a masked one the same document, masked."""

from __future__ import annotations

import base64
import io
import ipaddress
import os
import random
import subprocess
import sys
import tarfile

import pytest

from ansible_collections.vfio.host.plugins.module_utils import _machine, _recording
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._masking import Masker
from ansible_collections.vfio.host.plugins.modules import capture_info
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import ENDPOINT, p8h67
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DSN = "52-54-00-ff-ff-12-34-56"
UUID = "3b7d5a10-3c41-4f0b-9d1c-6a1f0b0e7c55"
SECRETS = ("0a:1b:2c:3d:4e:5f", "0a1b2c3d4e5f", DSN, "10.0.2.15", "10.0.2.2", "0202000A", UUID, "alice", "paperclip",
           "2001:db8:1:2::15", "20010db8000100020000000000000015", "fileserver")


@pytest.fixture
def machine(tmp_path):
    """A host on which everything that masking knows of occurs; its DSN is on two functions."""
    fake = p8h67(tmp_path / "machine")
    fake.pci("0000:00:1a.0", "8086:10d3", "020000", express=ENDPOINT, dsn=0x525400FFFF123456, group=7)
    fake.nic("enx0a1b2c3d4e5f", fake.homes["0000:00:1a.0"], index=5, mac="0a:1b:2c:3d:4e:5f")
    fake.write("/proc/self/environ", "SECRET=x\0SSH_CONNECTION=10.0.2.2 5000 10.0.2.15 22\0USER=alice\0")
    fake.write("/proc/net/if_inet6", "20010db8000100020000000000000015 05 40 00 80 enx0a1b2c3d4e5f\n")
    fake.write("/proc/net/ipv6_route",
               "20010db8000100020000000000000000 40 %s 00 %s 00000100 00000001 00000000 00000001 enx0a1b2c3d4e5f\n"
               "%s 00 %s 00 20010db8000100020000000000000001 00000100 00000001 00000000 00000003 enx0a1b2c3d4e5f\n"
               % (("0" * 32,) * 4))
    fake.write("/proc/sys/kernel/hostname", "paperclip\n")
    fake.write("/etc/machine-id", "5f2d1c\n")
    fake.virtual_disk("dm-0", slaves=["sda1"], mapper="paperclip--vg-home")
    fake.mount("/home/alice", "dm-0", source="/dev/mapper/paperclip--vg-home")
    fake.mount("/srv", fstype="nfs4", source="fileserver.example:/srv")
    fake.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=%s ip=10.0.2.15::10.0.2.2 intel_iommu=on\n" % UUID)
    fake.write("/etc/vfio-host/devices", "0000:00:1a.0 8086 10d3 1af4 1100 %s vfio-pci\n" % DSN)
    fake.write("/sys/class/dmi/id/product_name", "Paper\n")
    fake.write("/lib/modules/6.1.0-18-amd64/modules.builtin", "kernel/drivers/vfio/vfio.ko\n")
    return fake


def record(root, mask=False):
    return _recording.record(_recording.Recorder(root), mask)


def unpack(data, folder):
    os.makedirs(str(folder))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert all(not member.linkname.startswith("/") for member in tar)
        tar.extractall(str(folder), **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return str(folder)


def without_source(document):
    return {name: part for name, part in document.items() if name != "source"}


def test_a_recorded_tree_gives_the_same_document(machine, tmp_path):
    os.rename(machine.outside("/lib"), machine.outside("/usr/lib"))
    os.symlink("/usr/lib", machine.outside("/lib"))
    document, entries = record(machine.root)
    root = unpack(_recording.archive(entries), tmp_path / "tree")
    again = _machine.collect(Host(root))
    assert without_source(again) == without_source(document)
    assert again["source"]["missing"] == document["source"]["missing"]
    with open(root + "/proc/self/environ", "rb") as handle:
        assert handle.read() == b"SSH_CONNECTION=10.0.2.2 5000 10.0.2.15 22"
    # and once more from the recorded tree: nothing is lost on the way
    assert _recording.archive(record(root)[1]) == _recording.archive(entries)


def test_a_masked_tree_gives_the_masked_document(machine, tmp_path):
    plain, dummy = record(machine.root)
    masked, entries = record(machine.root, mask=True)
    again = _machine.collect(Host(unpack(_recording.archive(entries), tmp_path / "tree")))
    assert without_source(again) == without_source(masked)
    assert masked["groups"] == plain["groups"]
    for kind in ("findings", "functions"):
        assert len(masked[kind]) == len(plain[kind])
    codes = [[(f["code"], f.get("device")) for f in document["findings"]] for document in (plain, masked)]
    assert codes[0] == codes[1]
    for before, after in zip(plain["functions"], masked["functions"]):
        assert [use["finding"] for use in before["used_by"]] == [use["finding"] for use in after["used_by"]]
        assert before["assignment"]["verdict"] == after["assignment"]["verdict"]
        different = {name for name in before if before[name] != after[name]}
        assert different <= {"serial", "used_by", "assignment"}


def test_no_secret_is_left(machine):
    plain, dummy = record(machine.root)
    masked, entries = record(machine.root, mask=True)
    secret_bytes = bytes.fromhex(DSN.replace("-", ""))[::-1]
    for secret in SECRETS:
        assert secret not in repr(masked), secret
        for info, data in entries:
            assert secret not in info.name + info.linkname, (secret, info.name)
            assert secret.encode() not in data and secret_bytes not in data, (secret, info.name)
    held = repr(plain) + repr([(info.name, data) for info, data in record(machine.root)[1]])
    assert [secret for secret in SECRETS if secret not in held] == []


def test_relations_between_secrets_stay(machine):
    masked = record(machine.root, mask=True)[0]
    serials = {f["serial"] for f in masked["functions"] if f["serial"]}
    assert len(serials) == 1 and serials == {entry["serial"] for entry in masked["host"]["requested"]}
    ssh = masked["host"]["ssh"]
    assert ssh["server"] in [address.partition("/")[0] for interface in masked["host"]["network"]["interfaces"]
                             for address in interface["addresses"]]
    network = ipaddress.ip_network(ssh["server"] + "/24", strict=False)
    assert ipaddress.ip_address(ssh["client"]) in network
    mac = next(i["mac"] for i in masked["host"]["network"]["interfaces"] if i["name"].startswith("enx"))
    assert any(i["name"] == "enx" + mac.replace(":", "") for i in masked["host"]["network"]["interfaces"])


def test_the_same_machine_gives_the_same_archive(machine):
    first, second = [record(machine.root, mask=True) for dummy in range(2)]
    assert first[0] == second[0]
    assert _recording.archive(first[1]) == _recording.archive(second[1])
    names = [info.name for info, data in first[1]]
    assert names == sorted(names) and all(info.mtime == 0 for info, data in first[1])
    machine.write("/etc/machine-id", "another\n")
    assert record(machine.root, mask=True)[0] != first[0]


def test_masks_cannot_be_made_without_the_key(machine):
    os.unlink(machine.outside("/etc/machine-id"))
    assert record(machine.root, mask=True)[0] != record(machine.root, mask=True)[0]
    entries = record(machine.root, mask=True)[1]
    assert not any(info.name == "etc/machine-id" for info, data in entries)


def test_the_fingerprint_is_of_what_lasts(machine):
    before = record(machine.root)[0]["source"]["capture"]
    assert before == {"masked": False, "fingerprint": before["fingerprint"]}
    machine.write("/proc/meminfo", "MemTotal:        4028440 kB\nMemAvailable: 77 kB\n")
    assert record(machine.root)[0]["source"]["capture"] == before
    assert record(machine.root, mask=True)[0]["source"]["capture"] != before
    machine.pci("0000:00:1d.0", "8086:1c26", "0c0320", group=8)
    assert record(machine.root)[0]["source"]["capture"] != before


def test_what_cannot_be_read_is_not_recorded_as_empty(machine, tmp_path, monkeypatch):
    """A file that is there and not readable (root's), one that is empty, one that was only listed."""
    secret = machine.outside("/sys/firmware/acpi/tables/DMAR")
    machine.write("/proc/swaps", "")

    def refusing(path, *more, **options):
        if path == secret:
            raise PermissionError(13, "no", path)
        return opened(path, *more, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", refusing)
    document, entries = record(machine.root)
    monkeypatch.undo()
    assert document["host"]["iommu"]["firmware_table"] == "DMAR"
    again = Host(unpack(_recording.archive(entries), tmp_path / "tree"))
    assert again.exists("/sys/firmware/acpi/tables/DMAR") and again.read("/sys/firmware/acpi/tables/DMAR") is None
    assert again.read("/proc/swaps") == ""
    assert not again.exists("/proc/nothing")
    assert without_source(_machine.collect(again)) == without_source(document)


def test_what_processes_have_open_is_not_recorded(machine):
    recorder = _recording.Recorder(machine.root)
    machine.folder("/proc/77/fd")
    os.symlink("/home/alice/diary", machine.outside("/proc/77/fd/3"))
    os.symlink("/dev/dri/card0", machine.outside("/proc/77/fd/4"))
    for name in recorder.listdir("/proc/77/fd"):
        recorder.readlink("/proc/77/fd/" + name)
    assert [info.name for info, data in _recording.entries(recorder) if "/fd/" in info.name] == ["proc/77/fd/4"]


@pytest.mark.parametrize("text, changed", [
    ("0000:01:00.0 10de:1380 at 00:1f.2", False),
    ("Linux 6.1.0-18-amd64, QEMU 7.2, 8.0 GT/s, 00:00:00:00:00:00, ff:ff:ff:ff:ff:ff, 127.0.0.1, ::1, 0.0.0.0", False),
    ("pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00", False),
    ("/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", False),
    ("05-06 13:14:15 2026", False),
    ("52:54:00:12:34:56", True),
    ("enx525400123456", True),
    ("bridge of 52-54-00-ff-ff-12-34-56", True),
    ("/dev/disk/by-uuid/3b7d5a10-3c41-4f0b-9d1c-6a1f0b0e7c55", True),
    ("SSH 192.0.2.9 to 192.0.2.2", True),
    ("SSH 2001:db8::9", True),
    ("fe80::5054:ff:fe12:3456", True),
    ("nfs 198.51.100.7:/srv", True),
])
def test_forms_that_are_masked(text, changed):
    masker = Masker(b"key")
    assert (masker.text(text) != text) is changed
    assert masker.text(text) == masker.text(text)
    assert Masker(b"other").text(text) != masker.text(text) or not changed


def test_words_that_only_their_place_shows_to_be_secret():
    paths = {"/dev/disk/by-id/ata-Disk_S3Z9NB0K-part1", "/dev/disk/by-uuid/ABCD-1234", "/sys/class/block/sda"}
    masker = Masker(b"key", paths, {
        "/sys/devices/usb1/1-3/serial": b"A1B2C3\n",
        "/sys/devices/virtual/block/dm-0/dm/uuid": b"LVM-QkXxTlYpZ0aBcDeFgHiJkLmNoPqRsTuV\n",
        "/run/udev/data/b8:0": b"E:ID_SERIAL_SHORT=WX99\nE:ID_MODEL=Disk\nE:ID_FS_LABEL=sda\n",
        "/run/systemd/sessions/2": b"USER=bob\nACTIVE=1\n",
        "/usr/share/misc/pci.ids": b"USER=Disk\n",
    }, ["paper-clip.example"])
    for text in ("ata-Disk_S3Z9NB0K-part2", "root=UUID=ABCD-1234", "A1B2C3", "LVM-QkXxTlYpZ0aBcDeFgHiJkLmNoPqRsTuV",
                 "by WX99", "session of bob", "/dev/mapper/paper--clip-root", "paper-clip"):
        assert masker.text(text) != text, text
    assert masker.text("LVM-QkXxTlYpZ0aBcDeFgHiJkLmNoPqRsTuV").startswith("LVM-masked")
    for text in ("ID_MODEL=Disk", "/dev/sda", "ACTIVE=1", "bobsled", "Disk"):
        assert masker.text(text) == text


@pytest.mark.parametrize("seed", range(5))
def test_networks_keep_their_shape(seed):
    """Two addresses share a prefix before masking exactly when they share it afterwards."""
    choice = random.Random(seed)
    masker = Masker(b"key")
    for bits, low in ((32, 0x0A000000), (128, 0x20010DB8 << 96)):
        base = low | choice.getrandbits(bits - 32 if bits == 128 else 24)
        for dummy in range(20):
            shared = choice.randrange(32 if bits == 128 else 8, bits)
            other = base ^ 1 << (bits - 1 - shared) ^ choice.getrandbits(bits - shared) >> 1
            masked = masker.number(base, bits) ^ masker.number(other, bits)
            assert bits - masked.bit_length() == shared
        network = ipaddress.ip_network((base, bits - 20 if bits == 128 else 22), strict=False)
        there = masker.number(int(network.network_address), bits, network.prefixlen)
        assert there % network.num_addresses == 0
        assert masker.number(base, bits) // network.num_addresses == there // network.num_addresses


def test_a_name_that_the_system_has_too_is_left_alone(machine):
    machine.write("/proc/sys/kernel/hostname", "pci\n")
    document = record(machine.root, mask=True)[0]
    assert document["functions"] and document["host"]["iommu"]["active"]


# -- the module and the tool ------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
def test_the_module_returns_document_and_archive(machine, tmp_path, check):
    result = run_module(capture_info, {"root": machine.root, "tree": True, "mask": True}, check=check)
    document, entries = record(machine.root, mask=True)
    assert result["changed"] is False
    assert result["machine"] == document
    data = base64.b64decode(result["tree"])
    assert len(data) == result["tree_bytes"]
    assert data == _recording.archive(entries)
    assert "tree" not in run_module(capture_info, {"root": machine.root})


def test_an_archive_beyond_the_limit_is_refused(machine):
    result = run_module(capture_info, {"root": machine.root, "tree": True, "limit": 1000})
    assert result["failed"] is True
    assert result["msg"].startswith("limit: the archive has ") and "1000 are allowed" in result["msg"]
    assert "is not a folder" in run_module(capture_info, {"root": machine.root + "/none"})["msg"]


def test_the_tool_records_this_machine(tmp_path):
    archive = str(tmp_path / "here.tar.gz")
    subprocess.run([sys.executable, "-I", os.path.join(CHECKOUT, "tools", "record_tree.py"), "--mask", archive],
                   check=True, stdout=subprocess.DEVNULL, timeout=60)
    with open(archive, "rb") as handle:
        root = unpack(handle.read(), tmp_path / "tree")
    assert _machine.collect(Host(root))["host"]["kernel"]["release"] == os.uname().release
