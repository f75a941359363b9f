# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Build the lab's disk image from the distribution's own packages, and cache it by its recipe.

Three steps, none of which needs a loop device or a mount on the building machine: mmdebstrap
installs the packages into a folder and fills a filesystem from it, sfdisk lays the partition
table around it, and one emulated boot with ``finish`` as init installs the boot loader from inside.
An image for UEFI gets an empty EFI system partition, which ``finish`` fills too.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shlex
import shutil
import tarfile
import tempfile
import time

from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._lab import profiles

BUILDER = 1
"""Part of the cache key: raise it when this file builds a different image from the same recipe."""

BUILD_TIMEOUT = 1800
FINISH_TIMEOUT = 1200
MIB = 1024 * 1024
SECTOR = 512
FIRST_START = 1 * MIB
"""Where the first partition begins: GRUB's BIOS boot partition, a megabyte, or the EFI system partition."""

WORKING = ".building"
"""Ending of the folder that an image is built in."""

LIB = "/usr/local/lib/vfio-host-lab"


def digest(recipe, scripts):
    """Cache key of a recipe (what :func:`build` takes): 16 hex digits."""
    text = json.dumps({"builder": BUILDER, "recipe": recipe, "scripts": scripts}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def root_start(recipe):
    """Where the root partition begins, in bytes: behind the first partition."""
    return FIRST_START + (recipe.get("esp") or 1) * MIB


def firmware(path):
    """``bios`` or ``efi``: what the disk image at ``path`` boots with, by the recipe beside it."""
    try:
        with open(os.path.join(os.path.dirname(path), "recipe.json"), "r", encoding="utf-8") as handle:
            return "efi" if json.load(handle).get("esp") else "bios"
    except (OSError, ValueError):
        return "bios"


def parse_index_targets(text, suite):
    """Mirrors for ``suite`` from ``apt-get indextargets``, as one-line sources.

    ``text`` has lines ``origin|label|uri|component``. Only Debian's own archives count; their
    suite names are replaced by those of ``suite``. Empty when the machine uses none of them.
    """
    suites = {"Debian": suite, "Debian-Security": suite + "-security"}
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 4:
            continue
        origin, label, uri, component = fields
        if origin == "Debian" and label in suites and component == "main":
            found.setdefault(label, "deb %s %s main" % (uri, suites[label]))
    if "Debian" not in found:
        return []
    return [found[label] for label in ("Debian", "Debian-Security") if label in found]


def machine_mirrors(host, suite):
    """Mirrors that the building machine's own package manager uses, or [] (mmdebstrap's default)."""
    if not host.which("apt-get"):
        return []
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(COMPONENT)"
    result = host.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], check=False)
    return parse_index_targets(result.stdout, suite) if result.rc == 0 else []


def machine_proxies(host):
    """apt proxy settings of the building machine, as options for mmdebstrap's apt."""
    if not host.which("apt-config"):
        return []
    text = host.run(["apt-config", "dump"], check=False).stdout
    return [line for line in text.splitlines() if "proxy" in line.lower() and '""' not in line]


def _early(entry):
    """Whether a file shall be there before the packages are installed."""
    return entry.get("early", False)


def files_archive(files, scripts):
    """A tar archive (bytes) of the recipe's files and scripts, all owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in files:
            _add(archive, entry["path"], entry["content"], int(entry["mode"], 8))
        for name, content in sorted(scripts.items()):
            _add(archive, "%s/%s" % (LIB, name), content, 0o755)
    return buffer.getvalue()


def _add(archive, path, content, mode):
    data = content.encode("utf-8")
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def mmdebstrap_command(recipe, mirrors, proxies, stage):
    """The argv that installs the packages and fills ``stage/disk.img``'s root filesystem."""
    start = root_start(recipe)
    early = ["tar-in %s /" % shlex.quote(stage + "/early.tar")] if any(map(_early, recipe["files"])) else []
    hooks = [
        "tar-in %s /" % shlex.quote(stage + "/files.tar"),
        'chroot "$1" %s/customize' % LIB,
    ]
    if recipe["offline_packages"]:
        names = " ".join(shlex.quote(name) for name in recipe["offline_packages"])
        hooks.append('chroot "$1" %s/offline %s' % (LIB, names))
    # A bind mount that is not recursive shows the tree without the /proc and /dev mounted in it.
    hooks.append(
        'tree=$(mktemp -d) && mount --bind "$1" "$tree" && '
        "mke2fs -q -t ext4 -L lab-root -E offset=%d,lazy_itable_init=1,nodiscard -d \"$tree\" %s %dk && "
        'umount "$tree" && rmdir "$tree"'
        % (start, shlex.quote(stage + "/disk.img"), (recipe["size"] * MIB - start - MIB) // 1024)
    )
    argv = ["mmdebstrap", "--variant=minbase", "--format=null", "--dpkgopt=force-unsafe-io"]
    argv += ["--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\""]
    argv += ["--aptopt=" + line.rstrip(";") for line in proxies]
    argv += ["--include=" + ",".join(recipe["packages"])]
    argv += ["--essential-hook=" + hook for hook in early]
    argv += ["--customize-hook=" + hook for hook in hooks]
    argv += ["--architectures=amd64", recipe["suite"], "-"]
    return argv + mirrors


def build(host, recipe, scripts, cache, mirrors, log):
    """Build the image into ``cache`` and return its path.

    :param recipe: dict with ``suite``, ``packages``, ``offline_packages``, ``files``, ``size`` (MiB),
        ``esp`` (MiB of the EFI system partition; 0 or missing: an image for BIOS).
    :param scripts: name to text of ``customize`` and ``offline``, which run in the tree in this
        order, and ``finish``, which runs as init in the one boot that completes the image.
    Raises HostError with the end of the log. One build at a time works in a cache; another waits for
    it and takes its image. A build that is killed leaves a folder that the next one removes.
    """
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w", encoding="ascii") as lock:
        _lock(lock)
        target = os.path.join(cache, digest(recipe, scripts))
        if not os.path.exists(target):
            for name in os.listdir(cache):
                if name.endswith(WORKING):
                    shutil.rmtree(os.path.join(cache, name))
            _build(host, recipe, scripts, target, mirrors, log)
        return os.path.join(target, "disk.img")


def _lock(handle):
    """Wait for the lock of a cache, no longer than a build may take; it goes with the process."""
    end = time.monotonic() + BUILD_TIMEOUT + FINISH_TIMEOUT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as exc:
            if time.monotonic() > end:
                raise HostError("another build holds %s for too long" % handle.name) from exc
        time.sleep(1)


def _build(host, recipe, scripts, target, mirrors, log):
    work = target + WORKING
    os.makedirs(work)
    # As an ordinary user mmdebstrap works in a user namespace whose root is somebody else to the
    # filesystem, and home folders are closed to others: so stage where anybody may pass through.
    stage = tempfile.mkdtemp(prefix="vfio-host-lab-", dir="/var/tmp")
    try:
        os.chmod(stage, 0o711)
        disk = os.path.join(stage, "disk.img")
        with open(disk, "wb") as handle:
            handle.truncate(recipe["size"] * MIB)
        os.chmod(disk, 0o666)
        archives = {
            "files.tar": files_archive(recipe["files"], scripts),
            "early.tar": files_archive(filter(_early, recipe["files"]), {}),
        }
        for name, content in archives.items():
            with open(os.path.join(stage, name), "wb") as handle:
                handle.write(content)
            os.chmod(os.path.join(stage, name), 0o644)
        mirrors = mirrors or machine_mirrors(host, recipe["suite"])
        command = mmdebstrap_command(recipe, mirrors, machine_proxies(host), stage)
        host.run(command, timeout=BUILD_TIMEOUT, log=log)
        _partition(host, disk, recipe, log)
        os.chmod(disk, 0o600)
        shutil.move(disk, os.path.join(work, "disk.img"))
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    _finish(host, work, recipe, log)
    with open(os.path.join(work, "recipe.json"), "w", encoding="utf-8") as handle:
        json.dump(recipe, handle, indent=2, sort_keys=True)
    os.rename(work, target)


def partition_table(recipe):
    """The disk's layout for sfdisk; the root partition is the second one in either case."""
    kind, name = ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "esp") if recipe.get("esp") else (
        "21686148-6449-6E6F-744E-656564454649", "bios-boot")
    first, root = FIRST_START // SECTOR, root_start(recipe) // SECTOR
    return (
        "label: gpt\n"
        "start=%d, size=%d, type=%s, name=%s\n"
        "start=%d, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n" % (first, root - first, kind, name, root)
    )


def _partition(host, disk, recipe, log):
    host.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], stdin=partition_table(recipe), log=log)
    if recipe.get("esp"):
        # Small clusters: with fewer than 65525 of them the firmware takes it for FAT16, whatever it says itself.
        host.run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", "LAB-ESP", "--offset", str(FIRST_START // SECTOR), disk,
                  str(recipe["esp"] * 1024)], log=log)


def _finish(host, work, recipe, log):
    """Boot the image once with its own kernel, ``finish`` as init, to install the boot loader from inside."""
    disk = os.path.join(work, "disk.img")
    for name in ("vmlinuz", "initrd.img"):
        _extract(host, disk, root_start(recipe), "/" + name, os.path.join(work, name))
    console = os.path.join(work, "finish.log")
    argv = ["qemu-system-x86_64"] + profiles.finish_arguments(
        disk, os.path.join(work, "vmlinuz"), os.path.join(work, "initrd.img"), console, LIB + "/finish"
    )
    host.run(argv, timeout=FINISH_TIMEOUT, log=log)
    with open(console, "r", encoding="utf-8", errors="replace") as handle:
        text = handle.read()
    if "vfio-host-lab: finished" not in text:
        raise HostError("the image could not be finished from inside; its console ended with:\n%s" % text[-3000:])
    # The kernel stays beside the image: the accelerator probe boots it.
    os.unlink(os.path.join(work, "initrd.img"))


def _extract(host, disk, start, path, target):
    """Copy one file out of the root filesystem of a disk image, following one link."""
    source = "%s?offset=%d" % (disk, start)
    info = host.run(["debugfs", "-R", "stat %s" % path, source]).stdout
    for line in info.splitlines():
        if line.startswith("Fast link dest:"):
            path = "/" + line.split('"')[1].lstrip("/")
    host.run(["debugfs", "-R", "dump %s %s" % (path, target), source])
    if not os.path.exists(target) or os.path.getsize(target) == 0:
        raise HostError("%s is not in the image that was built" % path)
