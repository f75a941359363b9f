# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Our part of every initramfs image: put in, taken out, and read back from the image itself."""

from __future__ import annotations

import hashlib
import json
import os

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import initramfs_tools
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs.image import ImageError, read_image
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

GENERATORS = {initramfs_tools.NAME: initramfs_tools}
OTHERS = {"dracut": "dracut", "mkinitcpio": "mkinitcpio", "booster": "booster"}
"""Commands of generators that are not supported yet, to say what was found."""

STATE = asked.STATE_FOLDER + "/initramfs.json"

SPACE_FACTOR = 1.2
SPACE_RESERVE = 10 << 20
READ_TIMEOUT = 300.0
"""Seconds to unpack and read one image; an emulated machine needs a tenth of it."""


def choose(host, name):
    """The backend. Raises HostError with what was found."""
    refusals = []
    for candidate in GENERATORS.values():
        if name not in ("auto", candidate.NAME):
            continue
        found, against = candidate.evidence(host)
        if not against:
            return candidate, found
        refusals.append("not %s (%s)" % (candidate.NAME, "; ".join(against)))
    others = [title for command, title in OTHERS.items() if host.which(command)]
    raise HostError(
        "no supported initramfs generator: %s%s. Supported: %s"
        % ("; ".join(refusals), ", found %s" % ", ".join(others) if others else "", ", ".join(GENERATORS))
    )


def free_bytes(host, path):
    """Bytes that are free for root in the filesystem of ``path``."""
    status = os.statvfs(host.path(path))
    return status.f_bfree * status.f_frsize


def digest(files, devices):
    """What was verified: changes with our files, the list of devices and so with the release of the collection."""
    text = json.dumps([[path, content, mode] for path, content, mode in files])
    return hashlib.sha256(text.encode("utf-8") + b"\0" + (b"-" if devices is None else b"+" + devices)).hexdigest()


class _Images:
    """The images of the installed kernels, and what is remembered of the ones that were verified."""

    def __init__(self, host, generator, devices, absent):
        self.host = host
        self.generator = generator
        self.devices = devices
        self.absent = absent
        self.digest = "absent" if absent else digest(generator.files(), devices)
        self.paths, self.without = generator.images(host)
        self.state_text = host.read(STATE)
        self.remembered = self._parse(self.state_text)

    @staticmethod
    def _parse(text):
        try:
            images = json.loads(text or "")["images"]
            return dict(images)
        except (ValueError, KeyError, TypeError):
            return {}  # only ever saves work: without it the images are opened

    def _mark(self, path):
        status = self.host.stat(path)
        return [status.st_size, status.st_mtime_ns, status.st_ino, self.digest] if status else None

    def problems(self, version):
        """Why the image of this kernel is not right; empty when it is. Opens it unless it was verified as it is."""
        path = self.paths[version]
        mark = self._mark(path)
        if mark is not None and self.remembered.get(path) == mark:
            return []
        try:
            image = read_image(self.host, path, self.generator.wanted_paths(), READ_TIMEOUT)
        except ImageError as exc:
            self.remembered.pop(path, None)
            return [str(exc)]
        if self.absent:
            found = self.generator.gone(image)
        else:
            found = self.generator.problems(
                image, self.devices, self.generator.builtin_modules(self.host, version)
            )
        if found:
            self.remembered.pop(path, None)
        else:
            self.remembered[path] = mark
        return found

    def save(self):
        """Remember what was verified, of images that still exist."""
        images = {path: mark for path, mark in self.remembered.items() if path in self.paths.values()}
        text = json.dumps({"schema": 1, "images": images}, indent=2, sort_keys=True) + "\n"
        if text != self.state_text:
            self.host.write(STATE, text)


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


def run(host, params, check_mode):
    """Bring our files and every image to what is asked.

    ``params``: ``{state: present|absent, generator: auto|initramfs-tools, rebuild_timeout: int,
    devices_content: str | None}``. Returns the module's result. Raises HostError: nothing half
    done is left, apart from images of other kernels that were already right.
    """
    absent = params["state"] == "absent"
    generator, found = choose(host, params["generator"])
    devices = _devices(host, params.get("devices_content"), check_mode)
    changes = _file_changes(host, generator.files(), absent)
    images = _Images(host, generator, devices, absent)
    if absent and not changes and images.state_text is None:
        # never here, or taken out to the end: the record goes last
        return _result(False, generator, found, images, {}, changes)
    if not images.paths and not absent:
        raise HostError("no installed kernel has an image in /boot: there is nothing that could take devices at boot")

    stale = {}
    for version in sorted(images.paths):
        reasons = images.problems(version)
        if reasons:
            stale[version] = reasons
    changed = bool(changes or stale) or (absent and images.state_text is not None)
    if not check_mode:
        if changes or stale:
            _apply(host, generator, images, changes, stale, params["rebuild_timeout"])
        if absent:
            host.remove(STATE)
            host.remove_empty_folder(asked.STATE_FOLDER)
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


def _check_space(host, images, stale):
    size = max(images.host.stat(images.paths[version]).st_size for version in stale)
    needed = int(size * SPACE_FACTOR) + SPACE_RESERVE
    free = free_bytes(host, "/boot")
    if free < needed:
        raise HostError(
            "/boot has %d MiB free and %d MiB are needed to build an image beside the old one (%d MiB): "
            "remove kernels that are no longer used" % (free >> 20, -(-needed >> 20), size >> 20)
        )


def _apply(host, generator, images, changes, stale, timeout):
    if stale:
        reasons = generator.refusals(host)
        if reasons:
            raise HostError("images cannot be built: %s" % "; ".join(reasons))
        _check_space(host, images, stale)
    modes = {path: host.stat(path).st_mode & 0o7777 for path, before, dummy, dummy in changes if before is not None}
    done = []
    try:
        for path, dummy, after, mode in changes:
            if after is None:
                host.remove(path)
            else:
                host.write(path, after, mode=mode)
        for version in sorted(stale):
            said = generator.build(host, version, timeout)
            reasons = images.problems(version)
            if reasons:
                raise HostError(
                    "%s was built, but read back: %s. The tool said: %s"
                    % (images.paths[version], "; ".join(reasons), said or "nothing")
                )
            done.append(version)
    except (HostError, OSError) as exc:
        for path, before, dummy, mode in changes:
            if before is None:
                host.remove(path)
            else:
                host.write(path, before, mode=modes[path])
        raise HostError(
            "%s. The files in /etc/initramfs-tools are as they were; images already rebuilt: %s; not rebuilt: %s"
            % (exc, ", ".join(done) or "none", ", ".join(version for version in sorted(stale) if version not in done))
        ) from exc


def _result(changed, generator, found, images, stale, changes):
    diff = [
        {"before_header": path, "after_header": path, "before": before or "", "after": after or ""}
        for path, before, after, dummy in changes
        if before != after
    ]
    for version in sorted(stale):
        path = images.paths[version]
        diff.append(
            {
                "before_header": path,
                "after_header": path,
                "before": "".join(reason + "\n" for reason in stale[version]),
                "after": "nothing of vfio.host in it\n" if images.absent else "as asked\n",
            }
        )
    warnings = [
        "the kernel %s has no initramfs image: booted with it, devices stay with the host" % version
        for version in images.without
    ]
    return {
        "changed": changed,
        "generator": generator.NAME,
        "evidence": found,
        "images": [
            {
                "kernel": version,
                "path": images.paths[version],
                "rebuilt": version in stale,
                "because": stale.get(version, []),
            }
            for version in sorted(images.paths)
        ],
        "reboot_required": changed,
        "warnings": [] if images.absent else warnings,
        "diff": diff,
    }
