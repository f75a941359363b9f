# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of Debian releases and a static busybox, unpacked from packages into a cache; nothing is installed.

A kernel is kept uncompressed: QEMU starts such a one through its PVH entry, and it need not unpack itself in
emulation, which takes longer than all the rest of a boot.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile

import initramfs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._lab import image

PACKAGES = ("linux-image-amd64", "busybox-static")
MODULE = "nvme"
"""The driver whose virtual functions QEMU emulates."""

DEADLINE = 600
KERNEL = re.compile(r"(?:^|/)boot/vmlinuz-([^/]+)$")
BUSYBOX = re.compile(r"(?:^|/)bin/busybox$")
NEEDS = re.compile(rb"depends=([^\0]*)\0")


def ready(cache, suite):
    """``{release, kernel, initrd}`` of a Debian release, fetched into ``cache`` unless it is there.

    ``kernel`` and ``initrd`` are paths. Raises RuntimeError, with mmdebstrap's words, when that fails.
    """
    folder = os.path.join(cache, suite)
    if not os.path.isdir(folder):
        os.makedirs(cache, exist_ok=True)
        work = tempfile.mkdtemp(prefix=suite + ".", dir=cache)
        try:
            _fetch(suite, work)
            os.rename(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    names = os.listdir(os.path.join(folder, "modules"))
    initrd = os.path.join(folder, "initrd.img")
    data = initramfs.image(_content(folder, "busybox"), _ordered(folder, names))
    with open(initrd + ".new", "wb") as handle:
        handle.write(data)
    os.replace(initrd + ".new", initrd)
    return {"release": _content(folder, "release").decode("ascii"),
            "kernel": os.path.join(folder, "vmlinux"), "initrd": initrd}


def _content(folder, name):
    with open(os.path.join(folder, name), "rb") as handle:
        return handle.read()


def _ordered(folder, names):
    """``[(file name, bytes)]`` of the modules, each behind those that it needs."""
    modules = {name: _content(folder, "modules/" + name) for name in sorted(names)}
    order = []

    def add(name):
        if name in modules and name not in order:
            for other in needs(modules[name]):
                add(other + ".ko")
            order.append(name)

    for name in modules:
        add(name)
    return [(name, modules[name]) for name in order]


def needs(module):
    """Names of the modules that a module's own .modinfo says it needs, with underscores."""
    found = NEEDS.search(module)
    return [name.replace("-", "_") for name in found.group(1).decode("ascii").split(",") if name] if found else []


def _fetch(suite, work):
    """Packages into ``work``: vmlinux, release, busybox, modules/."""
    host = Host()
    argv = ["mmdebstrap", "--quiet", "--variant=extract", "--format=tar", "--architectures=amd64",
            '--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    argv += ["--aptopt=" + line.rstrip(";") for line in image.machine_proxies(host)]
    argv += ["--include=" + ",".join(PACKAGES), suite, "-"] + image.machine_mirrors(host, suite)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(["timeout", "--kill-after=10", str(DEADLINE)] + argv, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=said)
        try:
            _unpack(process.stdout, work)
            while process.stdout.read(1 << 20):
                pass
        except tarfile.ReadError:
            pass  # it ended early, and its words say why
        finally:
            process.stdout.close()
            if process.wait() != 0:
                said.seek(0)
                words = said.read().decode("utf-8", "replace")[-2000:]
                raise RuntimeError("mmdebstrap for %s failed:\n%s" % (suite, words))


def _unpack(stream, work):
    """Keep of the archive what a boot needs; the modules are chosen when all have been seen."""
    modules = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            kernel = KERNEL.search(member.name)
            module = re.search(r"/([^/]+)\.ko(\.[a-z0-9]+)?$", member.name)
            if not member.isfile() or not (kernel or module or BUSYBOX.search(member.name)):
                continue
            data = archive.extractfile(member).read()
            if module:
                modules[module.group(1).replace("-", "_")] = (data, module.group(2))
            else:
                _write(work, "vmlinux" if kernel else "busybox", _kernel(data) if kernel else data)
            if kernel:
                _write(work, "release", kernel.group(1).encode("ascii"))
    os.mkdir(os.path.join(work, "modules"))
    wanted = [MODULE]
    for name in wanted:
        if name not in modules:
            continue  # built in
        data = _plain(*modules[name])
        _write(work, "modules/%s.ko" % name, data)
        wanted += [other for other in needs(data) if other not in wanted]


def _kernel(data):
    """The ELF file in a bzImage: setup_sects, payload_offset and payload_length of Linux Documentation/x86/boot.rst."""
    offset, length = struct.unpack_from("<II", data, 0x248)
    begin = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[begin:begin + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # the last four bytes are no part of it: they give the size
        done = subprocess.run(["zstd", "-d", "-c"], input=payload[:-4], capture_output=True, check=True, timeout=60)
        return done.stdout
    raise RuntimeError("a kernel packed as %s is not understood here" % payload[:6].hex())


def _plain(data, packed):
    if packed is None:
        return data
    if packed == ".xz":
        return lzma.decompress(data)
    raise RuntimeError("modules packed as %s are not understood here" % packed)


def _write(work, name, data):
    with open(os.path.join(work, name), "wb") as handle:
        handle.write(data)
