# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Proxmox with ``proxmox-boot-tool``: kernels are copied to one or more EFI partitions that are not mounted.

Two ways, told apart by what booted, as the tool does it for each partition:

- systemd-boot: the first line of ``/etc/kernel/cmdline`` is the command line of every entry (the tool reads no other
  line, and ends without a word to the caller where ``root=`` is missing in it).
- GRUB (a BIOS, or GRUB in ``EFI/proxmox`` on the partition): a drop-in, as on Debian; the tool runs ``update-grub``
  with the partition in the place of ``/boot``.

``proxmox-boot-tool refresh`` skips a partition that it cannot mount or does not know, and still ends with 0. So every
partition is mounted read-only on a folder of our own, read back and compared, the images too; what was missing is a
failure. A partition that somebody has mounted is read where it is.

There is no fallback entry of our own with systemd-boot, since the entries are on partitions that are only mounted to
be read, see :func:`fallback_unavailable`. With GRUB there is the one of Debian's backend.
"""

from __future__ import annotations

import contextlib
import fnmatch
import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import booted as boots
from ansible_collections.vfio.host.plugins.module_utils._boot import entries, loader, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, grub, grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "proxmox"

UUIDS = "/etc/kernel/proxmox-boot-uuids"
CMDLINE = "/etc/kernel/cmdline"
TOOL = "proxmox-boot-tool"
BY_UUID = "/dev/disk/by-uuid/"
MOUNTS = "/proc/self/mounts"
OWN = "/run/vfio-host/esp-"
"""Where we mount; the partition's UUID follows."""

MOUNT_TIMEOUT = 30.0
REFRESH_TIMEOUT = 900.0
"""Seconds: kernels and images of every version are copied to every partition."""

UUID = re.compile(r"^[0-9a-fA-F]{4}-[0-9a-fA-F]{4}$")
SYSTEMD_BOOT, GRUB = "systemd-boot", "grub"
GRUB_BINARIES = ("grubx64.efi", "grubaa64.efi")
CHUNK = 1 << 30


# -- pure --------------------------------------------------------------------------------------


def edit_first_line(text, wanted, owned):
    """``/etc/kernel/cmdline`` with ``wanted`` as ours in its first line, which is all that the tool reads of it."""
    first, newline, rest = text.partition("\n")
    after = bls.edit_line(first, wanted, owned)
    return after.rstrip("\n") + newline + rest if after != first else text


# -- the partitions ----------------------------------------------------------------------------


def uuids(host):
    return [line.strip() for line in (host.read(UUIDS) or "").splitlines() if line.strip()]


def variant(host, booted=None):
    """``systemd-boot`` or ``grub`` by what started this system, or None."""
    seen = booted or boots.booted(host)
    if (seen["loader"] or "").startswith("systemd-boot"):
        return SYSTEMD_BOOT
    return GRUB if seen["boot_image"] else None


def _mounted(host, device):
    """Where a device is mounted: [path]."""
    found = []
    for line in (host.read(MOUNTS) or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 1 and fields[0].startswith("/") and host.real(fields[0]) == host.real(device):
            found.append(fields[1].replace("\\040", " "))
    return found


def release(host):
    """Unmount what a run that was killed has left: the tool cannot mount a partition that is mounted read-only."""
    for line in (host.read(MOUNTS) or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 1 and fields[1].startswith(OWN):
            host.run(["umount", fields[1]], timeout=MOUNT_TIMEOUT)
            host.remove_empty_folder(fields[1])


@contextlib.contextmanager
def partition(host, uuid):
    """A partition as a folder, for reading. Raises HostError where it cannot be mounted."""
    device = BY_UUID + uuid
    if not UUID.match(uuid):
        raise HostError("%s in %s is not the UUID of an EFI partition" % (uuid, UUIDS))
    if not host.exists(device):
        raise HostError("%s of %s is not there: proxmox-boot-tool clean takes it out" % (device, UUIDS))
    others = [path for path in _mounted(host, device) if not path.startswith(OWN)]
    if others:
        yield others[0]
        return
    release(host)
    folder = OWN + uuid
    options = "ro,nosuid,nodev,noexec,X-mount.mkdir=0700"
    host.run(["mount", "-t", "vfat", "-o", options, device, folder], timeout=MOUNT_TIMEOUT)
    try:
        yield folder
    finally:
        host.run(["umount", folder], timeout=MOUNT_TIMEOUT)
        host.remove_empty_folder(folder)
        host.remove_empty_folder(posixpath.dirname(folder))


def kind(host, folder):
    """How a partition starts this machine, by the tool's own rule; None: it skips it."""
    if host.isdir(boots.EFI) and not any(host.exists(folder + "/EFI/proxmox/" + name) for name in GRUB_BINARIES):
        ready = host.exists(folder + "/loader/loader.conf") and host.isdir(folder + "/EFI/proxmox")
        return SYSTEMD_BOOT if ready else None
    return GRUB if host.isdir(folder + "/grub") else None


# -- the interface -----------------------------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found = []
    against = []
    known = uuids(host)
    if known:
        found.append("%s has %s" % (UUIDS, ", ".join(known)))
        which = variant(host, booted)
        if which is None:
            against.append("neither systemd-boot nor GRUB says that it started this system")
        else:
            name = booted["loader"] if which == SYSTEMD_BOOT else "GRUB (BOOT_IMAGE=)"
            found.append("%s started this system" % name)
    against.extend(unusable(host))
    return found, against


def unusable(host):
    reasons = []
    if not uuids(host):
        reasons.append("%s names no partition" % UUIDS)
        return reasons
    if not host.which(TOOL):
        reasons.append("%s is not installed" % TOOL)
    if variant(host) == SYSTEMD_BOOT:
        first = (host.read(CMDLINE) or "").split("\n")[0]
        if host.read(CMDLINE) is None:
            reasons.append("no %s, so the tool takes the running command line: write that into it first" % CMDLINE)
        elif not any(token.startswith("root=") for token in tokens.split(first)):
            reasons.append("no root= in the first line of %s: the tool would not write an entry" % CMDLINE)
    if variant(host) == GRUB and host.read("/etc/default/grub") is None:
        reasons.append("no /etc/default/grub")
    return reasons


def recorded(host):
    return grub.recorded(host)


def edits(host, wanted, owned):
    which = variant(host)
    if which == GRUB:
        return grub.edits(host, wanted, owned)
    text = host.read(CMDLINE)
    if which is None or text is None:
        raise HostError("; ".join(unusable(host)) or "neither systemd-boot nor GRUB says that it started this system")
    after = edit_first_line(text, wanted, owned)
    return [] if after == text else [bls.edited(host, CMDLINE, text, after)]


def generated(host):
    """Nothing that can be kept: the partitions are not mounted. A refresh makes them what the files say."""
    return []


def generate(host):
    said = _refresh(host)
    seen = view(host)
    reasons = list(seen["problems"])
    line = configured(host)[0]
    for entry in seen["entries"]:
        lacks = [token for token in line or [] if entry["managed"] and token not in entry["tokens"]]
        if lacks:
            reasons.append("%s lacks %s" % (entry["source"], ", ".join(lacks)))
    if reasons:
        raise HostError("%s refresh ran, but: %s. It said: %s" % (TOOL, "; ".join(reasons), said))


def undo(host, tried, seen):
    """The files are as before: so are the partitions, after a refresh."""
    _refresh(host)


def _refresh(host):
    release(host)
    result = host.run([TOOL, "refresh"], timeout=REFRESH_TIMEOUT)
    return (result.stderr or result.stdout).strip()[-500:]


def refresh(host, kernels):
    """Have the partitions carry the images, and compare what they carry byte by byte."""
    said = _refresh(host)
    differ = []
    for uuid in uuids(host):
        with partition(host, uuid) as folder:
            for version in kernels:
                for path, copy in _files(host, folder, version):
                    if host.read_bytes(path, CHUNK) != host.read_bytes(copy, CHUNK):
                        differ.append("%s on %s is not %s" % (copy[len(folder):], uuid, path))
    if differ:
        raise HostError("%s refresh ran, but: %s. It said: %s" % (TOOL, "; ".join(differ), said))


def _files(host, folder, version):
    """``[(path, copy)]`` of a version that a partition has."""
    where = folder + "/EFI/proxmox/" + version if kind(host, folder) == SYSTEMD_BOOT else folder
    names = ["vmlinuz-" + version, "initrd.img-" + version]
    if not host.exists(where + "/" + names[0]):
        return []  # not one of the versions that the tool keeps
    return [("/boot/" + name, where + "/" + name) for name in names if host.exists("/boot/" + name)]


def view(host):
    """The entries of every partition: the firmware may start from any of them."""
    shown = []
    problems = []
    for uuid in uuids(host):
        try:
            with partition(host, uuid) as folder:
                found, wrong = _partition_view(host, uuid, folder)
                shown += found
                problems += wrong
        except HostError as exc:
            problems.append(str(exc))
    if not uuids(host):
        problems.append("%s names no partition" % UUIDS)
    return loader.view(shown, problems)


def _partition_view(host, uuid, folder):
    which = kind(host, folder)
    if which is None:
        return [], ["the tool skips the partition %s, which has no boot loader of it: proxmox-boot-tool init" % uuid]
    if which == GRUB:
        return _grub_view(host, uuid, folder)
    return _systemd_boot_view(host, uuid, folder)


def _systemd_boot_view(host, uuid, folder):
    items = []
    for name in host.listdir(folder + "/loader/entries"):
        text = host.read("%s/loader/entries/%s" % (folder, name))
        if name.endswith(".conf") and text is not None:
            stem, left, dummy = entries.split_name(name)
            items.append({"id": stem, "name": name, "left": left, "fields": entries.parse(text)})
    items = entries.order(items)
    pattern = entries.first(entries.parse(host.read(folder + "/loader/loader.conf") or ""), "default", "*")
    default = next((item for item in items if fnmatch.fnmatchcase(item["name"], pattern)
                    or fnmatch.fnmatchcase(item["id"], pattern)), items[0] if items else None)  # fmt: skip
    shown = []
    problems = []
    for item in items:
        fields = item["fields"]
        source = "%s:/loader/entries/%s" % (uuid, item["name"])
        managed = item["id"].startswith("proxmox-")
        version = entries.first(fields, "version") or item["id"][len("proxmox-"):]
        if managed:
            problems += _stale(host, folder, uuid, version, [entries.first(fields, "linux")] + entries.initrds(fields))
        shown.append(loader.entry(
            "%s@%s" % (item["id"], uuid), "%s %s on %s" % (entries.first(fields, "title", item["id"]), version, uuid),
            version, entries.option_tokens(fields), managed=managed, default=item is default,
            initrds=_image(host, version), source=source,
        ))  # fmt: skip
    if not any(entry["managed"] for entry in shown):
        problems.append("the partition %s has no entry of a kernel of Proxmox" % uuid)
    return shown, problems


def _grub_menu(host, folder):
    """``(menu | None, the saved entry | None)`` of a partition."""
    saved = grub_menu.environment(host.read(folder + "/grub/grubenv")).get("saved_entry")
    return grub_common.menu_of(host, folder + "/grub/grub.cfg"), saved


def _grub_view(host, uuid, folder):
    menu, saved = _grub_menu(host, folder)
    if menu is None:
        return [], ["the partition %s has no grub/grub.cfg" % uuid]
    default = grub_menu.default_entry(menu, saved)
    shown = []
    problems = [] if menu["complete"] else ["%s:/grub/grub.cfg ends in the middle" % uuid]
    for item in menu["entries"]:
        own = loader.ours(item["id"])
        managed = grub_menu.ordinary(item)
        version = item["kernel"]
        if managed:
            problems += _stale(host, folder, uuid, version, [item["image"]] + item["initrds"])
        shown.append(loader.entry(
            "%s@%s" % (item["id"] or item["path"], uuid), "%s on %s" % (item["title"], uuid), version, item["tokens"],
            managed=managed, default=item is default,
            initrds=_image(host, version),
            recovery=item["recovery"] or own, source="%s:/grub/grub.cfg %s" % (uuid, item["section"]),
        ))  # fmt: skip
    if not any(entry["managed"] for entry in shown):
        problems.append("%s:/grub/grub.cfg has no entry from /etc/grub.d/10_linux" % uuid)
    return shown, problems


def _image(host, version):
    """Where the image of a version can be opened: that the partition has the same is seen to apart."""
    path = "/boot/initrd.img-%s" % version
    return [path] if host.exists(path) else []


def _stale(host, folder, uuid, version, paths):
    """What an entry lacks on its partition: a file, or the size that the file in /boot has."""
    found = []
    for path in paths:
        copy = host.stat(folder + "/" + (path or "").lstrip("/")) if path else None
        if copy is None:
            found.append("%s: %s of the entry for %s does not exist" % (uuid, path, version))
            continue
        status = host.stat("/boot/" + posixpath.basename(path))
        if status and status.st_size != copy.st_size:
            found.append("%s: %s is not the one in /boot" % (uuid, path))
    return found


def configured(host):
    if variant(host) == GRUB:
        return grub.configured(host)
    text = host.read(CMDLINE)
    if text is None:
        return None, {}
    line = tokens.split(text.split("\n")[0])
    return line, {token: CMDLINE for token in line}


def hindrances(host, edits, wanted):
    """As with GRUB elsewhere, by the menu of each partition."""
    if variant(host) != GRUB:
        return []
    files = grub.settings(host, edits)
    found = grub.taken_out(files, wanted)
    for uuid in uuids(host):
        try:
            with partition(host, uuid) as folder:
                menu, saved = _grub_menu(host, folder)
        except HostError:
            continue  # view() says it
        moves = menu and grub_common.default_moves(host, menu, saved, "%s:/grub/grubenv" % uuid, edits, files)
        found += [reason for reason in moves or [] if reason not in found]
    return found


def fallback(host, owned):
    return grub.fallback(host, owned) if variant(host) == GRUB else []


def fallback_unavailable(host):
    """Why there is no fallback entry, and what is there instead. None where there is one."""
    if variant(host) == GRUB:
        return None
    return (
        "the entries are on partitions that are not mounted, and proxmox-boot-tool makes them all with one command "
        "line, so there is no fallback entry: press e in the boot menu and add %s" % loader.OFF
    )


def trial_obstacles(host):
    return [
        "proxmox-boot-tool makes all entries with one command line, so none can be started once with another: press e "
        "in the boot menu and add %s to start without ours" % loader.OFF
    ]
