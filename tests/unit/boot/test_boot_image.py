# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
import time

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import image as reader
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit.boot.cpio import archive, member

EARLY = archive({"kernel/x86/microcode/GenuineIntel.bin": b"\1\2\3" * 100})
MAIN = archive({".": b"", "bin/big": b"x" * 300000, "./etc/wanted": b"content\n", "odd": b"123"})


ZSTD = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"
"""A frame of nothing."""


def filtered(command):
    def make(data):
        if not shutil.which(command[0]):
            pytest.skip("%s is not installed" % command[0])
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout

    return make


COMPRESS = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": filtered(["zstd", "-q", "-c"]),
    "lz4 legacy": filtered(["lz4", "-q", "-l", "-c"]),
    "lz4": filtered(["lz4", "-q", "-c"]),
}


@pytest.fixture
def read(tmp_path):
    def go(data, wanted=("etc/wanted",), timeout=30.0):
        (tmp_path / "image").write_bytes(data)
        return reader.read_image(Host(str(tmp_path)), "/image", wanted, timeout)

    return go


@pytest.mark.parametrize("early", [b"", EARLY, EARLY + bytes(512) + EARLY])
@pytest.mark.parametrize("form", sorted(COMPRESS))
def test_each_format_with_and_without_microcode(read, form, early):
    image = read(early + COMPRESS[form](MAIN))
    assert image.files == {"etc/wanted": b"content\n"}
    assert {"bin/big", "odd", "etc/wanted", "."} <= image.names
    assert ("kernel/x86/microcode/GenuineIntel.bin" in image.names) is bool(early)


@pytest.mark.parametrize("form", sorted(COMPRESS))
def test_a_cut_image_is_refused(read, form):
    data = COMPRESS[form](MAIN)
    with pytest.raises(reader.ImageError, match="/image cannot be read"):
        read(EARLY + data[: len(data) // 2])


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "no archive"),
        (bytes(4096), "no archive"),
        (b"something else", "unknown format"),
        (EARLY + b"something else", "unknown format"),
        (EARLY[:100], "ends in the middle"),
        (EARLY[:300], "ends in the middle"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(b"not cpio at all"), "not a cpio archive"),
        (gzip.compress(MAIN + b"more"), "not a cpio archive"),
        (gzip.compress(MAIN) + b"more", "cannot be read"),
        (bz2.compress(MAIN) + b"more", "cannot be read"),
        (b"070701" + b"Z" * 200, "damaged"),
        (member("a").replace(b"00000002", b"00FFFFFF"), "name in its archive is too long"),
        (member("a" * 8) + b"#" * 200, "damaged"),
    ],
)
def test_damage_is_named(read, data, reason):
    with pytest.raises(reader.ImageError, match=reason):
        read(data)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(reader.ImageError, match="/none does not exist"):
        reader.read_image(Host(str(tmp_path)), "/none", ())


def test_later_archives_win_and_streams_may_follow_each_other(read):
    later = archive({"etc/wanted": b"new"}, magic=b"070702")
    assert read(gzip.compress(MAIN + later)).files == {"etc/wanted": b"new"}
    assert read(gzip.compress(MAIN) + gzip.compress(later)).files == {"etc/wanted": b"new"}
    assert read(lzma.compress(MAIN) + bytes(8) + lzma.compress(later)).files == {"etc/wanted": b"new"}


def test_a_wanted_file_has_a_limit(read, monkeypatch):
    monkeypatch.setattr(reader, "FILE_LIMIT", 5)
    with pytest.raises(reader.ImageError, match="etc/wanted in it has 8 bytes"):
        read(MAIN)


def test_a_bomb_is_stopped(read, monkeypatch):
    monkeypatch.setattr(reader, "SIZE_LIMIT", 200000)
    with pytest.raises(reader.ImageError, match="unpacks to more than"):
        read(gzip.compress(MAIN))


def test_too_many_names_are_refused(read, monkeypatch):
    monkeypatch.setattr(reader, "NAMES_LIMIT", 2)
    with pytest.raises(reader.ImageError, match="more than 2 files"):
        read(MAIN)


def test_the_deadline_counts(read):
    with pytest.raises(reader.ImageError, match="deadline"):
        read(gzip.compress(MAIN), timeout=-1)


def test_a_filter_that_hangs_is_ended(read, monkeypatch):
    monkeypatch.setitem(reader.FILTERS, "zstd", ["sleep", "60"])
    started = time.monotonic()
    with pytest.raises(reader.ImageError, match="did not end within"):
        read(ZSTD, timeout=1.0)
    assert time.monotonic() - started < 20


def test_a_filter_that_is_not_installed_is_named(read, monkeypatch):
    monkeypatch.setitem(reader.FILTERS, "zstd", ["no-such-filter"])
    with pytest.raises(reader.ImageError, match="no-such-filter.*No such file"):
        read(ZSTD)


def test_a_python_without_lzma_says_so(read, monkeypatch):
    monkeypatch.setattr(reader, "lzma", None)
    with pytest.raises(reader.ImageError, match="compressed with xz, which this Python cannot read"):
        read(lzma.compress(MAIN))


@pytest.mark.parametrize("second", sorted(COMPRESS))
@pytest.mark.parametrize("first", sorted(COMPRESS))
def test_segments_of_any_format_follow_each_other(read, first, second):
    later = archive({"etc/wanted": b"new", "later": b""})
    padding = bytes(3)
    image = read(COMPRESS[first](MAIN) + padding + COMPRESS[second](later) + padding)
    assert image.files == {"etc/wanted": b"new"}
    assert {"bin/big", "later"} <= image.names


@pytest.mark.parametrize("form", sorted(COMPRESS))
def test_a_part_of_a_file_is_read_and_nothing_around_it(tmp_path, form):
    inside = EARLY + COMPRESS[form](MAIN)
    (tmp_path / "image").write_bytes(b"#" * 777 + inside + b"#" * 777)
    image = reader.read_image(Host(str(tmp_path)), "/image", ("etc/wanted",), offset=777, length=len(inside))
    assert image.files == {"etc/wanted": b"content\n"}
    short = len(inside) - len(COMPRESS[form](MAIN)) // 2
    with pytest.raises(reader.ImageError):
        reader.read_image(Host(str(tmp_path)), "/image", (), offset=777, length=short)


@pytest.mark.parametrize("options", [["--no-check"], ["--check", "-T2", "-B10000"]])
def test_frames_of_zstd_with_and_without_a_checksum(read, options):
    data = filtered(["zstd", "-q", "-c"] + options)(MAIN)
    assert read(data + data + gzip.compress(MAIN)).files == {"etc/wanted": b"content\n"}


def test_the_content_says_nothing_of_time(tmp_path):
    def content(data):
        (tmp_path / "image").write_bytes(data)
        return reader.read_image(Host(str(tmp_path)), "/image", (), members=True).content()

    later = MAIN.replace(b"070701" + b"0" * 8, b"070701" + b"0000000A")
    stamped = bytearray(MAIN)
    stamped[46:54] = b"5F000000"  # the time of the first member
    assert content(MAIN) == content(gzip.compress(MAIN)) == content(bytes(stamped)) == content(later)
    assert content(MAIN) != content(MAIN.replace(b"content", b"CONTENT"))
    assert content(MAIN) != content(MAIN.replace(b"000081A4", b"000081ED", 1))
    assert content(MAIN) != content(archive({".": b"", "bin/big": b"x" * 300000, "./etc/wanted": b"content\n"}))


def test_how_dracut_was_called_is_no_content(tmp_path):
    found = set()
    for text in (b"-q --force", b"--quiet --force"):
        (tmp_path / "image").write_bytes(archive({"usr/lib/dracut/build-parameter.txt": text, "init": b""}))
        found.add(reader.read_image(Host(str(tmp_path)), "/image", (), members=True).content())
    assert len(found) == 1


def test_the_day_on_which_accounts_were_made_is_no_content(tmp_path):
    def content(text):
        (tmp_path / "image").write_bytes(archive({"etc/shadow": text, "init": b""}))
        return reader.read_image(Host(str(tmp_path)), "/image", (), members=True).content()

    today = content(b"root:!unprovisioned:20783::::::\ndaemon:!*:20783::::::\n")
    assert content(b"root:!unprovisioned:20782::::::\ndaemon:!*:20782::::::\n") == today
    assert content(b"root:$y$j9T$abcdefghij:20783::::\ndaemon:!*:20783::::::\n") != today
    assert content(b"root:!unprovisioned:20783:1:::::\ndaemon:!*:20783:::::\n") != today


def test_the_kernels_whose_modules_are_in_it(read):
    names = {"usr/lib/modules/6.1-a/kernel/x.ko": b"", "lib/modules/6.2/y": b"", "usr/lib/modules/6.3": b""}
    assert read(archive(names)).versions() == {"6.1-a", "6.2"}
