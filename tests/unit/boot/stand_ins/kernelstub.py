# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernelstub 3.1: what it makes of its configuration, its faults included. A host of Pop!_OS to run it on."""

from __future__ import annotations

import functools
import gzip
import json
import os
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.unit.boot import uki_files

CONFIGURATION = "/etc/kernelstub/configuration"
UUID = "11111111-2222-3333-4444-555555555555"
PARTITION = "66666666-2222-3333-4444-555555555555"
VERSIONS = ("6.8.0-76060800daily20240311-generic", "6.9.3-76060903-generic")

DEFAULT = {
    "kernel_options": ["quiet", "splash"], "esp_path": "/boot/efi", "setup_loader": False, "manage_mode": False,
    "force_update": False, "live_mode": False, "config_rev": 3,
}  # fmt: skip


def run(host, argv, stdin=None):
    """``kernelstub [-a OPTIONS] [-d OPTIONS] [-o OPTIONS] [-l | -n] [-s | -m] [-f] [-v] [--preserve-live-mode]``"""
    options = {}
    rest = argv[1:]
    while rest:
        word = rest.pop(0)
        name = {"--add-options": "-a", "--delete-options": "-d", "--options": "-o", "--loader": "-l",
                "--manage-only": "-m", "--no-loader": "-n", "--stub": "-s", "--force-update": "-f",
                "--verbose": "-v"}.get(word, word)  # fmt: skip
        options[name] = rest.pop(0) if name in ("-a", "-d", "-o") else True
    text = host.read(CONFIGURATION)
    config = {"default": dict(DEFAULT)} if text is None else json.loads(text)
    config.setdefault("user", dict(config["default"]))
    user = config["user"]
    if isinstance(user["kernel_options"], str):
        user["kernel_options"] = _parse(user["kernel_options"].split())
    if user["config_rev"] < 3:
        if isinstance(config["default"]["kernel_options"], str):
            config["default"]["kernel_options"] = _parse(config["default"]["kernel_options"].split())
        user["config_rev"] = config["default"]["config_rev"] = 3
    if options.get("--preserve-live-mode") and user["live_mode"]:
        return Result(argv, 0, "", "kernelstub: WARNING  Live mode is enabled!\n")
    user["live_mode"] = False
    latest, previous = _kernels(host)
    if latest is None:
        return Result(argv, 0, "", "kernelstub: ERROR    Can't find the kernel image '/vmlinuz'!\n")  # and ends with 0
    if "-o" in options:
        user["kernel_options"] = _parse(options["-o"].split())
    for name, key, value in (("-l", "setup_loader", True), ("-n", "setup_loader", False),
                             ("-s", "manage_mode", False), ("-m", "manage_mode", True)):  # fmt: skip
        if name in options:
            user[key] = value
    if "-a" in options:
        for option in _parse(options["-a"].split(" ")):
            if option not in user["kernel_options"]:
                user["kernel_options"].append(option)
    if "-d" in options:
        # through a set: the order is any, doubles are gone
        user["kernel_options"] = sorted(set(user["kernel_options"]) - set(_parse(options["-d"].split(" "))), key=hash)
    force = bool(options.get("-f") or user["force_update"])
    name = _name(host)
    esp = user["esp_path"]
    line = "root=UUID=%s ro %s" % (UUID, " ".join(user["kernel_options"]))
    folder = "%s/EFI/%s-%s" % (esp, name, UUID)
    _copy(host, latest, folder, "")
    if user["setup_loader"]:
        if force or not host.exists(esp + "/loader/loader.conf"):
            host.write(esp + "/loader/loader.conf", "default %s-current\n" % name)
        _entry(host, esp, name, "current", "", line)
    if previous is not None:
        _copy(host, previous, folder, "-previous")
        if user["setup_loader"]:
            _entry(host, esp, name, "oldkern", "-previous", line)
    host.write(folder + "/cmdline", host.read("/proc/cmdline") or "")
    if not user["manage_mode"]:
        return Result(argv, 1, "", "kernelstub: the firmware's boot entry is not part of this stand-in\n")
    host.write(CONFIGURATION, json.dumps(config, indent=2))
    return Result(argv, 0)


def _parse(options):
    """Words with a quote are joined with the next ones; what they came from stays behind as empty words."""
    for index, option in enumerate(options):
        if '"' in option:
            for step in range(1, len(options) - index):
                following = options[index + step]
                option = "%s %s" % (option, following)
                options[index + step] = ""
                if '"' in following:
                    break
        options[index] = option
    return options


def _kernels(host):
    """``(latest, previous)`` as (kernel, initrd); None for one that is not there."""
    found = []
    for name in host.listdir("/boot"):
        version = name[len("vmlinuz-"):]
        if name.startswith("vmlinuz-") and host.exists("/boot/initrd.img-" + version):
            found.append(version)
    found.sort(key=functools.cmp_to_key(entries.compare_versions), reverse=True)
    pairs = [("/boot/vmlinuz-" + version, "/boot/initrd.img-" + version) for version in found]
    return (pairs + [None, None])[0], (pairs + [None, None])[1]


def _name(host):
    match = re.search(r'^NAME="?([^"\n]*)', host.read("/etc/os-release") or "", re.M)
    name = match.group(1) if match else "Linux"
    for char, other in ((" ", "_"), ("~", "-"), ("!", ""), ("'", "")):
        name = name.replace(char, other)
    return name


def _copy(host, pair, folder, ending):
    data = host.read_bytes(pair[0])
    gzipped = data[:2] == b"\x1f\x8b" and not ending
    host.write("%s/vmlinuz%s.efi" % (folder, ending), gzip.decompress(data) if gzipped else data)
    host.write("%s/initrd.img%s" % (folder, ending), host.read_bytes(pair[1]))


def _entry(host, esp, name, which, ending, line):
    title = re.search(r'^NAME="?([^"\n]*)', host.read("/etc/os-release") or "", re.M)
    host.write(
        "%s/loader/entries/%s-%s.conf" % (esp, name, which),
        "title %s\nlinux /EFI/%s-%s/vmlinuz%s.efi\ninitrd /EFI/%s-%s/initrd.img%s\noptions %s\n"
        % (title.group(1), name, UUID, ending, name, UUID, ending, line),
    )


def make(host):
    """Pop!_OS as its installer leaves it: kernelstub --loader --manage-only --force-update, a recovery partition."""
    def put(path, data):
        path = host.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data if isinstance(data, bytes) else data.encode())

    user = dict(DEFAULT, kernel_options=["quiet", "systemd.show_status=false", "loglevel=0", "splash"],
                setup_loader=True, manage_mode=True, force_update=True)  # fmt: skip
    put(CONFIGURATION, json.dumps({"default": dict(DEFAULT), "user": user}, indent=2))
    put("/etc/os-release", 'NAME="Pop!_OS"\nVERSION="22.04 LTS"\nID=pop\nVERSION_ID="22.04"\n')
    put("/proc/cmdline", "initrd=\\EFI\\x\\initrd.img root=UUID=%s ro quiet splash\n" % UUID)
    for version in VERSIONS:
        put("/boot/vmlinuz-" + version, uki_files.kernel(version))
        put("/boot/initrd.img-" + version, "image " + version)
    put("/boot/efi/EFI/systemd/systemd-bootx64.efi", "")
    put("/boot/efi/loader/entries/Recovery-1234.conf",
        "title Pop!_OS Recovery\nlinux /EFI/Recovery-1234/vmlinuz.efi\ninitrd /EFI/Recovery-1234/initrd.gz\n"
        "options boot=casper hostname=recovery noprompt\n")
    put("/boot/efi/EFI/Recovery-1234/vmlinuz.efi", uki_files.kernel("5.19"))
    put("/boot/efi/EFI/Recovery-1234/initrd.gz", "image")
    put("/proc/self/mountinfo", (
        "22 1 254:2 / / rw,relatime shared:1 - ext4 /dev/vda2 rw\n"
        "24 23 0:21 / /sys/firmware/efi/efivars rw,nosuid - efivarfs efivarfs rw\n"
        "60 22 254:1 / /boot/efi rw,relatime shared:99 - vfat /dev/vda1 rw,fmask=0077\n"
    ))
    efivars = "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    for name, text in (("LoaderInfo", "systemd-boot 249.11"), ("LoaderEntrySelected", "pop_os-current.conf"),
                       ("LoaderDevicePartUUID", PARTITION)):  # fmt: skip
        put(efivars % name, b"\7\0\0\0" + (text + "\0").encode("utf-16-le"))
    put(efivars % "LoaderFeatures", b"\7\0\0\0" + (0x1FFF).to_bytes(8, "little"))
    put("/dev/vda1", "")
    host.link("/dev/disk/by-partuuid/" + PARTITION, "../../vda1")
    put("/usr/bin/bootctl", "")
    result = run(host, ["kernelstub"])
    assert result.rc == 0, result.stderr
    return host


def bootctl(host, argv, stdin=None):
    """``bootctl set-oneshot -- ID``"""
    path = host.root + "/sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    if argv[-1]:
        with open(path, "wb") as handle:
            handle.write(b"\7\0\0\0" + (argv[-1] + "\0").encode("utf-16-le"))
    elif os.path.exists(path):
        os.unlink(path)
    return Result(argv, 0)
