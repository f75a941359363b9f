# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""bootc without rpm-ostree: the command line belongs to the image, so it is looked at and never changed.

What a bootc image boots with is in ``/usr/lib/bootc/kargs.d``, which is content of the image and read-only on the host.
Where rpm-ostree is there, ``rpm-ostree kargs`` adds parameters of this machine alone, which ``bootc upgrade`` keeps:
then the backend rpm_ostree does it. Without it there is ``bootc loader-entries set-options-for-source``, from ostree
2026.1 on; what it staged cannot be read back before the reboot, and what cannot be read back is not done here. So
parameters that the image has are found in force, and others are refused with the file that the image needs.
"""

from __future__ import annotations

import json
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries, loader, tokens
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "bootc"

FOLDERS = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
KARGS = "/usr/lib/bootc/kargs.d"
CONTAINER = re.compile(r"^\s*container-image-reference\s*=", re.M)
"""In the origin of a deployment that was made from an image."""
STAGED = ("/run/ostree/staged-deployment", "/run/composefs/staged-deployment")


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found = []
    against = []
    paths = [token for token in booted["tokens"] if token.startswith(("ostree=", "composefs="))]
    if paths:
        found.append("%s on the running command line" % paths[0])
    else:
        against.append("neither ostree= nor composefs= on the running command line, so no image of bootc is running")
    deployed = [token.split("=", 1)[1] for token in paths if token.startswith("ostree=")]
    if deployed and host.which("rpm-ostree"):
        against.append("rpm-ostree is installed, and is what adds parameters of this machine")
    origin = host.read(host.real(deployed[0]) + ".origin") if deployed else None
    if origin is not None and not CONTAINER.search(origin):
        against.append("the deployment that runs was not made from a container image (%s.origin)" % host.real(deployed[0]))
    against.extend(unusable(host))
    return found, against


def unusable(host):
    reasons = []
    if not host.which("bootc"):
        reasons.append("bootc is not installed")
    if host.which("bootc") and not _items(host):
        reasons.append("no entry with a command line in %s: an image that is one file cannot be changed" % FOLDERS[0])
    return reasons


def recorded(host):
    return None


def edits(host, wanted, owned):
    if wanted:
        raise HostError(
            "the command line of this host belongs to its bootc image. Put a file 10-vfio-host.toml into %s of the "
            "image, with the line kargs = %s, and run bootc upgrade; or, for this machine alone and with a bootc that "
            "has it: bootc loader-entries set-options-for-source --source vfio-host --options %s"
            % (KARGS, json.dumps(list(wanted)), json.dumps(tokens.join(wanted)))
        )
    return []


def generated(host):
    return []


def generate(host):
    """Nothing is written, so nothing is generated."""


def refresh(host, kernels):
    """The initramfs is part of the image."""


def _items(host):
    """``[{id, fields, left, path}]`` of entries with a command line, the one that boots by default first."""
    found = []
    for folder in FOLDERS:
        for name in host.listdir(folder):
            text = host.read("%s/%s" % (folder, name)) if name.endswith(".conf") else None
            fields = entries.parse(text or "")
            if fields.get("options"):
                found.append({"id": name[: -len(".conf")], "fields": fields, "left": None,
                              "path": "%s/%s" % (folder, name)})  # fmt: skip
        if found:
            break
    if found and all(item["id"].startswith("ostree-") for item in found):
        # ostree counts them: the highest version boots, whatever the file is called
        return sorted(found, key=lambda item: -_number(entries.first(item["fields"], "version", "0")))
    return entries.order(found)


def _number(text):
    return int(text) if text.isdigit() else 0


def view(host):
    """The entries; the first has to carry what is wanted, the others are the way back."""
    items = _items(host)
    problems = [] if items else ["no entry with a command line in %s" % FOLDERS[0]]
    problems += [
        "a deployment is staged (%s), and what it boots with is not known before the next reboot: reboot first" % path
        for path in STAGED
        if host.exists(path)
    ]
    shown = []
    for index, item in enumerate(items):
        fields = item["fields"]
        shown.append(loader.entry(
            item["id"], entries.first(fields, "title", item["id"]), None, entries.option_tokens(fields),
            managed=index == 0, default=index == 0, source=item["path"],
        ))  # fmt: skip
    return loader.view(shown, problems)


def configured(host):
    """What the next image says is not known here."""
    return None, {}


def fallback(host, owned):
    return []


def fallback_unavailable(host):
    """Why there is no fallback entry, and what is there instead."""
    return (
        "the entries are those of the images, so there is no fallback entry: the image before stays in the boot menu, "
        "and bootc rollback makes it the default again"
    )


def trial_obstacles(host):
    return [
        "an image cannot be started once: the one before stays in the boot menu, which is the way back (choose it "
        "there, or bootc rollback)"
    ]
