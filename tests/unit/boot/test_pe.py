# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import random
import struct

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import pe
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit.boot import uki_files

IMAGE = uki_files.uki("6.12.57-amd64", "root=UUID=1 ro quiet ", initrd=b"i" * 1000)


@pytest.fixture
def host(tmp_path):
    found = Host(str(tmp_path))
    found.write("/a.efi", IMAGE)
    return found


def test_a_uki(host):
    found = pe.uki(host, "/a.efi")
    assert found["cmdline"] == "root=UUID=1 ro quiet"
    assert found["uname"] == "6.12.57-amd64"
    assert found["osrel"] == {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)", "VERSION_ID": "13"}
    assert pe.read_section(host, "/a.efi", ".initrd") == b"i" * 1000
    assert pe.read_section(host, "/a.efi", ".none") is None
    assert pe.kernel_version(host, "/a.efi", found["sections"][".linux"][0]) == "6.12.57-amd64"


def test_a_uki_without_a_command_line(host):
    host.write("/a.efi", uki_files.uki("6", None))
    assert pe.uki(host, "/a.efi")["cmdline"] is None


def test_a_section_that_is_longer_than_what_is_read(host):
    with pytest.raises(pe.PeError, match="more than the 10"):
        pe.read_section(host, "/a.efi", ".initrd", limit=10)


def test_the_first_profile_overrides_and_the_others_do_not_count(host):
    host.write("/a.efi", uki_files.pe([
        (".linux", b"k"), (".cmdline", b"base"), (".cmdline", b"twice"), (".profile", b"ID=main"),
        (".cmdline", b"main"), (".profile", b"ID=reset"), (".cmdline", b"reset"),
    ]))  # fmt: skip
    assert pe.text(host, "/a.efi", ".cmdline") == "main"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"MZ", bytes(100), b"MZ" + bytes(58) + struct.pack("<I", 0xFFFFFFF0), IMAGE[:100], IMAGE[:300],
        IMAGE.replace(b"PE\0\0", b"PX\0\0"), IMAGE[:-600], uki_files.pe([(".text", b"x")]),
    ],
)  # fmt: skip
def test_what_is_no_uki_or_is_damaged(host, data):
    host.write("/a.efi", data)
    with pytest.raises(pe.PeError, match="/a.efi"):
        pe.uki(host, "/a.efi")


def test_no_file(host):
    os.mkdir(host.path("/folder.efi"))
    os.mkfifo(host.path("/fifo.efi"))
    for path in ("/none.efi", "/folder.efi", "/fifo.efi"):
        with pytest.raises(pe.PeError):
            pe.uki(host, path)


def test_damage_never_does_more_than_a_clear_error(host):
    dice = random.Random(4)
    for dummy in range(300):
        data = bytearray(IMAGE)
        for dummy2 in range(dice.randint(1, 8)):
            data[dice.randrange(600)] = dice.randrange(256)
        with open(host.path("/a.efi"), "wb") as handle:
            handle.write(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            pe.uki(host, "/a.efi")
        except pe.PeError:
            pass


def test_the_version_of_a_kernel(host):
    host.write("/vmlinuz", uki_files.kernel("6.9.7-arch1-1"))
    assert pe.kernel_version(host, "/vmlinuz") == "6.9.7-arch1-1"
    for data in (b"", bytes(2000), uki_files.kernel("6")[:0x210], uki_files.kernel("6").replace(b"HdrS", b"xxxx")):
        host.write("/vmlinuz", data)
        assert pe.kernel_version(host, "/vmlinuz") is None
