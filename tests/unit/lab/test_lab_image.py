# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's image: its key in the cache, its sources, the command that fills it."""

from __future__ import annotations

import copy
import io
import os
import shlex
import tarfile

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host, Result
from ansible_collections.vfio.host.plugins.module_utils._lab import image

RECIPE = {
    "suite": "bookworm",
    "packages": ["udev", "kmod"],
    "offline_packages": ["qemu-utils", "odd; name"],
    "files": [{"path": "/etc/hostname", "content": "lab\n", "mode": "0640"}],
    "size": 6144,
}
SCRIPTS = {"customize": "a\n", "offline": "b\n", "finish": "c\n"}


# the key


def test_digest_is_sixteen_hex_digits_and_does_not_depend_on_order():
    turned = {name: RECIPE[name] for name in reversed(list(RECIPE))}
    assert image.digest(turned, dict(reversed(list(SCRIPTS.items())))) == image.digest(RECIPE, SCRIPTS)
    assert len(image.digest(RECIPE, SCRIPTS)) == 16 and int(image.digest(RECIPE, SCRIPTS), 16)


@pytest.mark.parametrize(
    "name, value",
    [
        ("suite", "trixie"),
        ("packages", ["udev"]),
        ("packages", ["kmod", "udev"]),
        ("offline_packages", []),
        ("files", [{"path": "/etc/hostname", "content": "lab\n", "mode": "0644"}]),
        ("files", [{"path": "/etc/hostname", "content": "lab2\n", "mode": "0640"}]),
        ("size", 6145),
    ],
)
def test_digest_changes_with_the_recipe(name, value):
    assert image.digest(dict(RECIPE, **{name: value}), SCRIPTS) != image.digest(RECIPE, SCRIPTS)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_digest_changes_with_each_script(name):
    assert image.digest(RECIPE, dict(SCRIPTS, **{name: "other\n"})) != image.digest(RECIPE, SCRIPTS)


def test_digest_changes_with_the_builder(monkeypatch):
    before = image.digest(RECIPE, SCRIPTS)
    monkeypatch.setattr(image, "BUILDER", image.BUILDER + 1)
    assert image.digest(RECIPE, SCRIPTS) != before


# where packages come from

DEBIAN = "Debian|Debian|http://deb.example.org/debian/|main"
SECURITY = "Debian|Debian-Security|http://security.example.org/debian-security/|main"
FROM_DEBIAN = "deb http://deb.example.org/debian/ bookworm main"
FROM_SECURITY = "deb http://security.example.org/debian-security/ bookworm-security main"


@pytest.mark.parametrize(
    "lines, expected",
    [
        ([DEBIAN], [FROM_DEBIAN]),
        ([SECURITY, DEBIAN], [FROM_DEBIAN, FROM_SECURITY]),
        ([DEBIAN, DEBIAN.replace("deb.", "other.")], [FROM_DEBIAN]),
        ([DEBIAN.replace("main", "non-free"), DEBIAN], [FROM_DEBIAN]),
        ([SECURITY], []),
        (["Ubuntu|Ubuntu|http://archive.example.org/ubuntu/|main"], []),
        (["Debian|Debian Backports|http://deb.example.org/debian/|main"], []),
        (["somebody|Debian|http://evil.example.org/|main"], []),
        (["", "no fields", DEBIAN + "|more"], []),
        ([], []),
    ],
)
def test_sources_of_the_building_machine(lines, expected):
    assert image.parse_index_targets("\n".join(lines) + "\n", "bookworm") == expected


def machine(tmp_path, tool, answer):
    """A Host with one tool that gives one answer, and the calls that were made."""
    calls = []

    def commands(argv, dummy):
        calls.append(argv)
        return Result(argv, *answer)

    host = Host(str(tmp_path), commands)
    if tool:
        host.write("/usr/bin/" + tool, "")
    return host, calls


def test_mirrors_are_those_of_apt(tmp_path):
    host, calls = machine(tmp_path, "apt-get", (0, DEBIAN + "\n"))
    assert image.machine_mirrors(host, "bookworm") == [FROM_DEBIAN]
    assert calls[0][:2] == ["apt-get", "indextargets"]


@pytest.mark.parametrize("tool, answer", [(None, (0, DEBIAN)), ("apt-get", (100, DEBIAN))])
def test_without_apt_mmdebstrap_takes_its_own_mirror(tmp_path, tool, answer):
    assert image.machine_mirrors(machine(tmp_path, tool, answer)[0], "bookworm") == []


def test_proxies_are_those_of_apt(tmp_path):
    text = 'APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy:3142";\nAcquire::https::Proxy "";\n'
    host = machine(tmp_path, "apt-config", (0, text))[0]
    assert image.machine_proxies(host) == ['Acquire::http::Proxy "http://proxy:3142";']
    assert image.machine_proxies(machine(tmp_path / "other", None, (0, text))[0]) == []


# the command


def command(recipe=None, mirrors=(), proxies=(), stage="/var/tmp/it's a $(stage)"):
    return image.mmdebstrap_command(recipe or RECIPE, list(mirrors), list(proxies), stage)


def hooks(argv):
    return [argument.partition("=")[2] for argument in argv if argument.startswith("--customize-hook=")]


def test_hooks_survive_any_folder_and_any_name():
    stage = "/var/tmp/it's a $(stage)"
    files, customize, offline, filesystem = hooks(command(stage=stage))
    assert shlex.split(files) == ["tar-in", stage + "/files.tar", "/"]
    assert shlex.split(customize) == ["chroot", "$1", image.LIB + "/customize"]
    assert shlex.split(offline) == ["chroot", "$1", image.LIB + "/offline", "qemu-utils", "odd; name"]
    assert stage + "/disk.img" in shlex.split(filesystem)


def test_the_filesystem_leaves_room_for_the_partition_tables():
    words = shlex.split(hooks(command())[-1])
    kib = int(words[words.index("/var/tmp/it's a $(stage)/disk.img") + 1].rstrip("k"))
    assert kib * 1024 == 6144 * image.MIB - 2 * image.MIB - image.MIB
    assert any(word.startswith("offset=%d," % (2 * image.MIB)) for word in words)


def test_the_filesystem_lies_behind_the_efi_system_partition():
    words = shlex.split(hooks(command(dict(RECIPE, esp=128)))[-1])
    assert any(word.startswith("offset=%d," % (129 * image.MIB)) for word in words)
    assert "%dk" % ((6144 - 129 - 1) * 1024) in words


def partitions(recipe):
    """``[(start, size or None, type), ...]`` of a layout, in sectors."""
    lines = [dict(field.strip().split("=") for field in line.split(","))
             for line in image.partition_table(recipe).splitlines()[1:]]
    return [(int(line["start"]), int(line["size"]) if "size" in line else None, line["type"]) for line in lines]


@pytest.mark.parametrize("recipe, first", [
    (RECIPE, (2048, 2048, "21686148-6449-6E6F-744E-656564454649")),
    (dict(RECIPE, esp=0), (2048, 2048, "21686148-6449-6E6F-744E-656564454649")),
    (dict(RECIPE, esp=128), (2048, 128 * 2048, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B")),
])
def test_the_root_partition_is_the_second_and_begins_where_its_filesystem_does(recipe, first):
    found = partitions(recipe)
    assert found[0] == first
    assert found[1] == (image.root_start(recipe) // 512, None, "0FC63DAF-8483-4772-8E79-3D69D8477DE4")
    assert first[0] + first[1] == found[1][0]


@pytest.mark.parametrize("esp", [None, 0, 64])
def test_only_an_image_with_an_efi_system_partition_gets_a_filesystem_for_it(tmp_path, esp):
    host, calls = machine(tmp_path, None, (0, ""))
    image._partition(host, "/s/disk.img", dict(RECIPE, esp=esp), None)
    assert [argv[0] for argv in calls] == ["sfdisk"] + (["mkfs.vfat"] if esp else [])
    if esp:
        assert "-s" in calls[1] and calls[1][calls[1].index("-s") + 1] == "1"
        assert esp * image.MIB // 512 > 65525  # or the firmware reads it as FAT16
        assert calls[1][-4:] == ["--offset", "2048", "/s/disk.img", "65536"]  # sectors; KiB


@pytest.mark.parametrize("text, expected", [
    ('{"esp": 128}', "efi"), ('{"esp": 0}', "bios"), ("{}", "bios"), ("no json", "bios"), (None, "bios"),
])
def test_an_images_firmware_is_in_the_recipe_beside_it(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    assert image.firmware(str(tmp_path / "disk.img")) == expected


def test_a_file_for_the_installation_is_there_before_the_packages():
    files = RECIPE["files"] + [{"path": "/etc/early", "content": "x", "mode": "0644", "early": True}]
    argv = command(dict(RECIPE, files=files))
    early = [argument.partition("=")[2] for argument in argv if argument.startswith("--essential-hook=")]
    assert [shlex.split(hook) for hook in early] == [["tar-in", "/var/tmp/it's a $(stage)/early.tar", "/"]]
    assert not any(argument.startswith("--essential-hook=") for argument in command())


def test_nothing_is_downloaded_when_nothing_is_asked():
    assert len(hooks(command(dict(RECIPE, offline_packages=[])))) == 3


def test_sources_come_last_and_proxies_are_options_of_apt():
    argv = command(mirrors=[FROM_DEBIAN, FROM_SECURITY], proxies=['Acquire::http::Proxy "http://proxy:3142";'])
    assert argv[0] == "mmdebstrap" and argv[-4:] == ["bookworm", "-", FROM_DEBIAN, FROM_SECURITY]
    assert '--aptopt=Acquire::http::Proxy "http://proxy:3142"' in argv
    assert "--include=udev,kmod" in argv and "--architectures=amd64" in argv
    assert command()[-2:] == ["bookworm", "-"]


def test_files_and_scripts_are_roots():
    with tarfile.open(fileobj=io.BytesIO(image.files_archive(RECIPE["files"], SCRIPTS))) as archive:
        found = {entry.name: (entry.mode, entry.uid, entry.gid, archive.extractfile(entry).read()) for entry in archive}
    lib = image.LIB.lstrip("/")
    assert found == {
        "etc/hostname": (0o640, 0, 0, b"lab\n"),
        lib + "/customize": (0o755, 0, 0, b"a\n"),
        lib + "/offline": (0o755, 0, 0, b"b\n"),
        lib + "/finish": (0o755, 0, 0, b"c\n"),
    }


# the cache


def build(tmp_path, monkeypatch, recipe=None):
    """Build with a builder that only remembers; returns (path, targets that were built)."""
    built = []
    monkeypatch.setattr(image, "_build", lambda host, recipe, scripts, target, *dummy: built.append(target))
    host = Host(str(tmp_path), lambda argv, dummy: pytest.fail("runs %s" % argv))
    return image.build(host, copy.deepcopy(recipe or RECIPE), SCRIPTS, str(tmp_path / "cache"), [], None), built


def test_an_image_that_is_there_is_not_built(tmp_path, monkeypatch):
    target = tmp_path / "cache" / image.digest(RECIPE, SCRIPTS)
    target.mkdir(parents=True)
    assert build(tmp_path, monkeypatch) == (str(target / "disk.img"), [])
    path, built = build(tmp_path, monkeypatch, dict(RECIPE, size=1024))
    assert built == [os.path.dirname(path)] and path != str(target / "disk.img")


def test_what_a_killed_build_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    for name in ("0123" + image.WORKING, "4567"):
        (cache / name).mkdir(parents=True)
    build(tmp_path, monkeypatch)
    assert sorted(os.listdir(str(cache))) == ["4567", "lock"]
