# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Our part of every initramfs image: put in, taken out, and read back from the image itself.

There are two sorts of images. Some are *built* here, by the generator, for an installed kernel. Others are
*carried* by a boot entry: a copy on the EFI partition, the section of a UKI. The boot loader's backend renews
those, and they are opened and compared like the others.

A generator is one module beside this one. Its interface:

``NAME``, ``FOLDERS``
    Value of the option ``generator``; folders that are ours alone and go when they are empty.
``unusable(host)`` -> ``[reason]``
    Why it cannot work here, whatever builds the images of new kernels.
``evidence(host)`` -> ``(found, against)``
    What speaks for it building the images here, and what rules it out.
``files()`` -> ``[(path, text, mode)]``
    Ours on the host. Without a list of devices they put nothing that binds into an image.
``refusals(host)`` -> ``[reason]``
    Why images would not stay right although we build them.
``images(host)`` -> ``([{kernel, path, options}], [versions without an image])``
    The images that it builds, of the installed kernels.
``wanted_paths()``, ``problems(image, devices, builtin=None)``, ``gone(image)``
    Paths in an image whose contents are needed; how it differs from what is wanted; what of ours is in it.
``build(host, version, path, timeout, devices=None, options=())`` -> what the tool said
    An image of one kernel at any path; ``devices`` is the path of another list than the host's.
``published(host, version, path, timeout, without=())``
    What has to follow when a new image is in its place, ``without`` the hooks of these names.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, edits, pe
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import (
    dracut,
    initramfs_tools,
    mkinitcpio,
    modules,
)
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs.image import Image, ImageError, read_image
from ansible_collections.vfio.host.plugins.module_utils._host import NEW, HostError

GENERATORS = {generator.NAME: generator for generator in (initramfs_tools, dracut, mkinitcpio)}
OTHERS = {"booster": "booster", "tinyramfs": "tinyramfs", "mkinitfs": "mkinitfs", "genkernel": "genkernel"}
"""Commands of generators that are not supported, to say what was found."""

STATE = asked.STATE_FOLDER + "/initramfs.json"
ORIGINALS = asked.STATE_FOLDER + "/images"
"""Images as they were before us, to be put back where one built without us holds the same."""

PENDING = "pending"
"""Remembered of an image from right before it is replaced until what follows has ended: hooks, the boot loader's part."""

SPACE_FACTOR = 1.2
SPACE_RESERVE = 10 << 20
CARRIER_RESERVE = 2 << 20
"""What is left free on a filesystem that images are only copied to; EFI partitions are small."""
ROUNDS = 3
"""How often images are looked for until none is stale: a kernel may be installed meanwhile."""
READ_TIMEOUT = 300.0
"""Seconds to unpack and read one image; an emulated machine needs a tenth of it."""


# -- which generator -----------------------------------------------------------------------


def choose(host, name):
    """``(generator, what it was recognised by)``. Raises HostError with what was found."""
    refusals = []
    claims = []
    for candidate in GENERATORS.values():
        if name not in ("auto", candidate.NAME):
            continue
        if name == candidate.NAME:
            found, against = ["generator: %s" % name], candidate.unusable(host)
        else:
            found, against = candidate.evidence(host)
        if against:
            refusals.append("not %s (%s)" % (candidate.NAME, "; ".join(against)))
        else:
            claims.append((candidate, found))
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise HostError(
            "it is not clear what builds the images here: %s. Remove what is left of the one that is not used, or give "
            "generator" % "; ".join("%s (%s)" % (item.NAME, ", ".join(found)) for item, found in claims)
        )
    others = [
        title for command, title in list(OTHERS.items()) + [(known, known) for known in GENERATORS]
        if host.which(command) and title != name
    ]
    raise HostError(
        "no supported initramfs generator: %s%s. Supported: %s; give generator if you know better"
        % ("; ".join(refusals), ", found %s" % ", ".join(others) if others else "", ", ".join(GENERATORS))
    )


# -- room ----------------------------------------------------------------------------------


def free_bytes(host, path):
    """Bytes that are free for root in the filesystem of ``path``."""
    status = os.statvfs(host.path(path))
    return status.f_bfree * status.f_frsize


def read_only(host, path):
    """Whether the filesystem of ``path`` is mounted read-only."""
    return bool(os.statvfs(host.path(path)).f_flag & os.ST_RDONLY)


def check_room(host, folder, size, reserve=SPACE_RESERVE):
    """Raise HostError unless an image of about ``size`` bytes can be written beside those in ``folder``."""
    if read_only(host, folder):
        raise HostError("%s is mounted read-only: mount it for writing (mount -o remount,rw) and run again" % folder)
    needed = int(size * SPACE_FACTOR) + reserve
    left = sum(os.path.getsize(host.path(path)) for path in host.leftovers([folder]))  # they go before the build
    free = free_bytes(host, folder) + left
    if free < needed:
        raise HostError(
            "%s has %d MiB free and %d MiB are needed to build an image beside the old one (%d MiB): "
            "remove kernels that are no longer used" % (folder, free >> 20, -(-needed >> 20), size >> 20)
        )


# -- one image -----------------------------------------------------------------------------


def parts_of(host, path):
    """``(path, offset, length)`` of the initramfs in a file: all of an image, a section of a UKI. Raises ImageError."""
    if host.read_bytes(path, 2) != b"MZ":
        return path, 0, None
    try:
        found = pe.sections(host, path).get(".initrd")
    except pe.PeError as exc:
        raise ImageError(str(exc)) from exc
    if found is None:
        raise ImageError("%s has no initramfs in it (no section .initrd)" % path)
    return (path,) + tuple(found)


def open_image(host, paths, wanted, members=False):
    """Read what a boot entry loads: images one after the other, as the kernel does, or a UKI. Raises ImageError."""
    whole = Image()
    for path in paths:
        dummy, offset, length = parts_of(host, path)
        image = read_image(host, path, wanted, READ_TIMEOUT, offset=offset, length=length, members=members)
        whole.names |= image.names
        whole.files.update(image.files)
        whole.members.update(image.members)
    return whole


def check_image(host, generator, image, devices, version):
    """How an image differs from what is wanted for a kernel; empty when it is right."""
    found = generator.problems(image, devices)
    if devices is None:
        return found
    inside = image.versions()
    if version is None and len(inside) == 1:
        version = next(iter(inside))
    if version is None:
        return found + modules.missing(image, set(modules.ALWAYS))
    if inside and version not in inside:
        found.append("it holds modules of %s, not of %s" % (", ".join(sorted(inside)), version))
    wanted, dummy = modules.needed(host, version, devices)
    found += modules.missing(image, wanted)
    if modules.serial_asked(devices):
        found += modules.lacking_tools(image, ("od",))
    return found


def build_image(host, generator, version, path, timeout, devices_path=None, options=(), check=None):
    """Build an image of one kernel at ``path``, read it back, and only then put it there. Returns what the tool said.

    ``devices_path``: the list that it takes instead of the host's. ``check``: function of the read image
    that returns sentences. Raises HostError; what was at ``path`` is then as it was.
    """
    folder, name = posixpath.split(path)
    new = posixpath.join(folder, NEW + name)
    old = host.stat(path)
    host.remove(new)
    try:
        said = generator.build(host, version, new, timeout, devices=devices_path, options=options)
        try:
            if check is None:
                devices = host.read_bytes(devices_path or asked.DEVICES)
                reasons = check_image(
                    host, generator, open_image(host, [new], generator.wanted_paths()), devices, version
                )
            else:
                reasons = check(new)
        except ImageError as exc:
            reasons = [str(exc)]
        if reasons:
            raise HostError(
                "%s was built, but read back: %s. The tool said: %s" % (path, "; ".join(reasons), said or "nothing")
            )
        host.replace(new, path, mode=old.st_mode & 0o7777 if old else 0o600)
    except BaseException:
        host.remove(new)
        raise
    return said


# -- our files -----------------------------------------------------------------------------


def digest(files, devices):
    """What was verified: changes with our files, the list of devices and so with the release of the collection."""
    text = json.dumps([[path, content, mode] for path, content, mode in files])
    return hashlib.sha256(text.encode("utf-8") + b"\0" + (b"-" if devices is None else b"+" + devices)).hexdigest()


def _file_changes(host, files, absent):
    """``[(path, before | None, after | None, mode)]`` of the files that differ, the mode counted."""
    found = []
    for path, text, mode in files:
        before = host.read(path)
        if before is None and host.exists(path):
            raise HostError("%s exists and cannot be read as a file: move it away first" % path)
        after = None if absent else text
        status = host.stat(path)
        right_mode = absent or (status is not None and status.st_mode & 0o777 == mode)
        if before != after or not right_mode:
            found.append((path, before, after, mode))
    return found


def _write_files(host, generator, changes):
    for path, dummy, after, mode in changes:
        if after is None:
            host.remove(path)
        else:
            host.write(path, after, mode=mode)
    for folder in generator.FOLDERS:
        host.remove_empty_folder(folder)


# -- all images ----------------------------------------------------------------------------


class _Images:
    """The images of the installed kernels, built and carried, and what is remembered of the ones that were verified.

    An item is ``{kernel, path, paths, options, built, folder}``; ``path`` names it.
    """

    def __init__(self, host, generator, devices, absent, loader, unknown):
        self.host = host
        self.generator = generator
        self.devices = devices
        self.absent = absent
        self.loader = loader
        self.digest = "absent" if absent else digest(generator.files(), devices)
        built, without = generator.images(host)
        self.items = [dict(item, paths=[item["path"]], built=True) for item in built]
        self.warnings = []
        self._carried(unknown)
        self.items.sort(key=lambda item: (not item["built"], item["kernel"] or "", item["path"]))
        covered = {item["kernel"] for item in self.items}
        for version in without:
            if version not in covered and not absent:
                self.warnings.insert(
                    0, "the kernel %s has no initramfs image: booted with it, devices stay with the host" % version
                )
        self.state_text = host.read(STATE)
        self.remembered, self.originals = self._parse(self.state_text)

    def _carried(self, unknown):
        """Add what boot entries load that is not built here."""
        if self.loader is None:
            if not self.absent:
                self.warnings.append(
                    "only images in /boot are checked, since the boot loader is not known: %s" % unknown)
            return
        try:
            entries = self.loader.view(self.host)["entries"]
        except HostError as exc:
            self.warnings.append("only images in /boot are checked, since the boot entries cannot be read: %s" % exc)
            return
        real = self.host.real
        known = {real(item["path"]) for item in self.items}
        for entry in entries:
            if not entry["managed"] or loaders.ours(entry["id"]) or entry["recovery"]:
                continue
            paths = [entry["image"]] if entry["image"] else list(entry["initrds"])
            if not paths or known & {real(path) for path in paths}:
                continue
            kernel = entry["kernel"]
            if kernel and not self.host.isdir("/lib/modules/" + kernel):
                self.warnings.append(
                    "the boot entry %r starts the kernel %s, whose modules are not installed: its image is not checked"
                    % (entry["title"] or entry["id"], kernel)
                )
                continue
            known |= {real(path) for path in paths}
            self.items.append(
                {"kernel": kernel, "path": " + ".join(paths), "paths": paths, "options": (), "built": False}
            )

    @staticmethod
    def _parse(text):
        try:
            document = json.loads(text or "")
            return dict(document["images"]), dict(document.get("originals") or {})
        except (ValueError, KeyError, TypeError):
            return {}, {}  # only ever saves work: without it the images are opened

    def _mark(self, item):
        marks = [self.host.stat(path) for path in item["paths"]]
        if None in marks:
            return None
        return [[mark.st_size, mark.st_mtime_ns, mark.st_ino] for mark in marks] + [self.digest]

    def check(self, item, paths):
        """Open and compare; sentences."""
        try:
            image = open_image(self.host, paths, self.generator.wanted_paths())
        except ImageError as exc:
            return [str(exc)]
        if self.absent:
            return self.generator.gone(image)
        return check_image(self.host, self.generator, image, self.devices, item["kernel"])

    def stale(self):
        """``{path: sentences}`` of the images that are not right."""
        found = {item["path"]: self.problems(item) for item in self.items}
        return {path: reasons for path, reasons in found.items() if reasons}

    def problems(self, item):
        """Why an image is not right; empty when it is. Opens it unless it was verified as it is."""
        if self.remembered.get(item["path"]) == PENDING:
            return ["a build of it was begun, and the hooks that follow did not end well"]
        mark = self._mark(item)
        if mark is not None and self.remembered.get(item["path"]) == mark:
            return []
        found = self.check(item, item["paths"])
        if found:
            self.remembered.pop(item["path"], None)
        else:
            self.verified(item)
        return found

    def verified(self, item):
        mark = self._mark(item)
        if mark is not None:
            self.remembered[item["path"]] = mark

    def begin(self, item):
        """From here on the image counts as not right, until its hooks have run: what they copy cannot all be read."""
        self.remembered[item["path"]] = PENDING
        self.save()

    def save(self):
        """Remember what was verified, of images that still exist, and which originals are kept."""
        paths = {item["path"] for item in self.items}
        document = {"schema": 1, "images": {path: mark for path, mark in self.remembered.items() if path in paths}}
        if self.originals:
            document["originals"] = self.originals
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        if text != self.state_text:
            self.host.write(STATE, text)
            self.state_text = text

    def variants(self):
        """Warnings for drivers that a kernel lacks."""
        found = []
        if self.absent:
            return found
        for version in sorted({item["kernel"] for item in self.items if item["kernel"]}):
            for driver in modules.needed(self.host, version, self.devices)[1]:
                found.append("the kernel %s has no %s: booted with it, devices for it stay with the host" % (
                    version, driver))
        return found

    # -- images as they were before us --

    def keep(self, item):
        """Keep a copy of an image that has nothing of ours in it, if there is room for it."""
        host = self.host
        if self.absent or item["path"] in self.originals:
            return
        try:
            image = open_image(host, item["paths"], self.generator.wanted_paths())
            if self.generator.gone(image):
                return
            copy = "%s/%s" % (ORIGINALS, item["path"].strip("/").replace("/", "-"))
            if not edits.room_for_copy(host, copy, host.stat(item["path"]).st_size):
                return
            host.copy(item["path"], copy)
        except (HostError, OSError):
            return  # a convenience: without it, an image is built when ours is taken out
        self.originals[item["path"]] = {"copy": copy, "kernel": item["kernel"]}
        self.save()

    def original(self, item, built):
        """Path of the kept original when ``built``, an image without ours, holds the same; else None."""
        known = self.originals.get(item["path"])
        if not known or not self.host.exists(known["copy"]):
            return None
        try:
            both = [open_image(self.host, [path], (), members=True) for path in (built, known["copy"])]
        except ImageError:
            return None
        return known["copy"] if both[0].content() == both[1].content() else None

    def forget(self):
        """Nothing of ours is in any image: the copies go, and the record last."""
        for known in self.originals.values():
            self.host.remove(known["copy"])
        for name in self.host.listdir(ORIGINALS):
            self.host.remove(posixpath.join(ORIGINALS, name))
        self.host.remove_empty_folder(ORIGINALS)
        self.host.remove(STATE)
        self.host.remove_empty_folder(asked.STATE_FOLDER)


@_own_files.tidied
def run(host, params, check_mode, loader=None):
    """Bring our files and every image to what is asked.

    ``params``: ``{state: present|absent, generator: auto|NAME, rebuild_timeout: int, devices_content: str | None}``.
    ``loader``: the backend of the boot loader; found out when not given. Returns the module's result. Raises
    HostError: nothing half done is left, apart from images that were already right.
    """
    absent = params["state"] == "absent"
    generator, found = choose(host, params["generator"])
    devices = _devices(host, params.get("devices_content"), check_mode)
    changes = _file_changes(host, generator.files(), absent)
    unknown = None
    if loader is None:
        try:
            loader = cmdline.choose(host, "auto")[0]
        except HostError as exc:
            unknown = str(exc)
    if absent and not changes and host.read(STATE) is None:
        # never here, or taken out to the end: the record goes last
        return _result(False, generator, found, _Images(host, generator, devices, absent, None, None), {}, changes)
    images = _Images(host, generator, devices, absent, loader, unknown)
    if not images.items and not absent:
        raise HostError("no installed kernel has an image: there is nothing that could take devices at boot")

    stale = images.stale()
    changed = bool(changes or stale) or (absent and images.state_text is not None)
    if stale:
        _check_obstacles(host, generator, images, stale)
    if not check_mode:
        if changes or stale:
            _apply(host, generator, images, changes, stale, params["rebuild_timeout"])
            for dummy in range(ROUNDS):
                images.save()
                images = _Images(host, generator, devices, absent, loader, unknown)
                late = images.stale()
                if not late:
                    break
                _check_obstacles(host, generator, images, late)
                _apply(host, generator, images, [], late, params["rebuild_timeout"])
                stale.update(late)
        if absent:
            images.forget()
        else:
            images.save()
    return _result(changed, generator, found, images, stale, changes)


def _devices(host, expected, check_mode):
    """Bytes of the list of devices, or None. ``expected`` stands for it in check mode, where it is not written yet."""
    devices = host.read_bytes(asked.DEVICES)
    if not expected or not expected.strip():
        return devices
    content = (expected.rstrip("\n") + "\n").encode("utf-8")  # templating may take the last newline
    if check_mode:
        return content
    if devices != content:
        raise HostError(
            "devices_content is not what %s holds: something changed it since vfio_binding wrote it" % asked.DEVICES
        )
    return devices


def _check_obstacles(host, generator, images, stale):
    """Refuse before anything is touched what would end in the middle: too little room, a loader that cannot follow."""
    reasons = generator.refusals(host)
    if reasons:
        raise HostError("images cannot be built: %s" % "; ".join(reasons))
    sizes = {}
    kernels = {item["kernel"] for item in images.items if item["path"] in stale}
    for item in images.items:
        # a copy is made anew when what it is a copy of is
        if item["path"] not in stale and (item["built"] or item["kernel"] not in kernels):
            continue
        for path in item["paths"]:
            status = host.stat(path)
            folder = posixpath.dirname(path)
            key = (folder, item["built"])
            sizes[key] = max(sizes.get(key, 0), status.st_size if status else 0)
    for (folder, built), size in sorted(sizes.items()):
        if host.isdir(folder):
            check_room(host, folder, size, SPACE_RESERVE if built else CARRIER_RESERVE)


def _apply(host, generator, images, changes, stale, timeout):
    modes = {path: host.stat(path).st_mode & 0o7777 for path, before, dummy, dummy in changes if before is not None}
    todo = [item for item in images.items if item["path"] in stale]
    done = []
    first = images.state_text is None
    try:
        if first and not images.absent:
            images.save()  # from here on, absent knows that there is something to take out
        _write_files(host, generator, changes)
        for item in todo:
            if not item["built"]:
                continue
            for path in host.leftovers([posixpath.dirname(item["path"])]):
                host.remove(path)
            images.keep(item)
            _build(host, generator, images, item, timeout)
            done.append(item["path"])
            without = getattr(images.loader, "REPLACED_HOOKS", ())
            generator.published(host, item["kernel"], item["path"], timeout, without)
        _renew(host, images, done)
        for item in todo:
            if item["built"]:
                images.verified(item)
    except (HostError, OSError) as exc:
        for path, before, dummy, mode in changes:
            if before is None:
                host.remove(path)
            else:
                host.write(path, before, mode=modes[path])
        for folder in generator.FOLDERS:
            host.remove_empty_folder(folder)
        if first and not done:
            images.forget()
        raise HostError(
            "%s. Our files in /etc and /usr are as they were; images already rebuilt: %s; not rebuilt: %s"
            % (exc, ", ".join(done) or "none", ", ".join(i["path"] for i in todo if i["path"] not in done) or "none")
        ) from exc


def _build(host, generator, images, item, timeout):
    """Build one image; on the way back, the original takes the place of one that holds the same."""
    original = []

    def check(new):
        reasons = images.check(item, [new])
        if not reasons and images.absent:
            original.append(images.original(item, new))
        if not reasons:
            images.begin(item)
        return reasons

    build_image(
        host, generator, item["kernel"], item["path"], timeout, options=item["options"], check=check
    )
    if original and original[0]:
        host.copy(original[0], item["path"], mode=host.stat(item["path"]).st_mode & 0o7777)


def _renew(host, images, done):
    """Have the boot loader renew what its entries carry of what was built or is not right by now, and read it back."""
    carried = [item for item in images.items if not item["built"]]
    late = [item for item in carried if images.problems(item)]
    kernels = {item["kernel"] for item in images.items if item in late or item["path"] in done}
    if not kernels or images.loader is None:
        return
    images.loader.refresh(host, sorted(kernels - {None}))
    for item in carried:
        reasons = images.problems(item)
        if reasons:
            raise HostError(
                "the boot loader %s was asked to renew %s, but read back: %s"
                % (images.loader.NAME, item["path"], "; ".join(reasons))
            )
        if item in late:
            done.append(item["path"])


def _result(changed, generator, found, images, stale, changes):
    diff = [
        {"before_header": path, "after_header": path, "before": before or "", "after": after or ""}
        for path, before, after, dummy in changes
        if before != after
    ]
    for path in sorted(stale):
        diff.append(
            {
                "before_header": path,
                "after_header": path,
                "before": "".join(reason + "\n" for reason in stale[path]),
                "after": "nothing of vfio.host in it\n" if images.absent else "as asked\n",
            }
        )
    return {
        "changed": changed,
        "generator": generator.NAME,
        "evidence": found,
        "images": [
            {
                "kernel": item["kernel"],
                "path": item["path"],
                "built": item["built"],
                "rebuilt": item["path"] in stale,
                "because": stale.get(item["path"], []),
            }
            for item in images.items
        ],
        "reboot_required": changed,
        "warnings": images.variants() + images.warnings,
        "diff": diff,
    }
