# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which installation a boot entry is of: two may share one /boot, and one that was made anew may have kept the old one's.

The machine id in an entry's name tells, or its ``root=`` where that says more: an image that was made once and cloned
has entries with the machine id of where it was made.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens

ENTRY_TOKEN = "/etc/kernel/entry-token"
MACHINE_ID = re.compile(r"^[0-9a-f]{32}(?=-|$)")
FOLDERS = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "partuuid", "PARTLABEL": "partlabel"}
"""Folders ``/dev/disk/by-*`` in which udev has what ``root=`` may begin with."""


def machine_ids(host):
    """The ids that kernel-install may use for this system."""
    found = []
    match = re.search(r"^KERNEL_INSTALL_MACHINE_ID=[\"']?([0-9a-f]{32})", host.read("/etc/machine-info") or "", re.M)
    if match:
        found.append(match.group(1))
    found.append((host.read("/etc/machine-id") or "").strip())
    return [one for one in found if re.match(r"^[0-9a-f]{32}$", one)]


def entry_token(host):
    """What the names of kernel-install's entries begin with where somebody has said so, or None."""
    text = host.read(ENTRY_TOKEN)
    return text.split()[0] if text is not None and text.strip() else None


def root(host, line):
    """What a command line starts, for a comparison: the device as it is called here, and the subvolume; None without."""
    said = tokens.effective(line, "root")
    if not said:
        return None
    kind, equals, name = said.partition("=")
    path = "/dev/disk/by-%s/%s" % (FOLDERS[kind], name) if equals and kind in FOLDERS else said
    flags = [flag.partition("=") for flag in (tokens.effective(line, "rootflags") or "").split(",")]
    subvolumes = {(key, value.lstrip("/")) for key, dummy, value in flags if key in ("subvol", "subvolid")}
    return host.real(path) if path.startswith("/") else path, sorted(subvolumes)


def running(host):
    """The command line that runs, as tokens."""
    return tokens.split(host.read("/proc/cmdline") or "")


def spoken(line):
    """What a command line says of its root, for a message."""
    said = [token for token in tokens.for_kernel(line) if tokens.key(token) in ("root", "rootflags", "ostree")]
    return " ".join(said) or "no root="


def belongs(host, names, fields, line):
    """Whether an entry starts this installation.

    ``names``: what the entry's file is called (without ``.conf``), and what that is a link to. ``line``: its command
    line, with variables put in. An installation with ``ostree=`` is never the one that this is asked for.
    """
    if any(tokens.key(token) == "ostree" for token in line):
        return False
    ids = set(fields.get("machine-id", ())) | {match.group(0) for match in map(MACHINE_ID.match, names) if match}
    if ids & set(machine_ids(host)):
        return True
    here, there = root(host, running(host)), root(host, line)
    token = entry_token(host)
    if not ids and token and any(name.startswith(token + "-") for name in names) and None in (here, there):
        return True  # a token may be that of another installation too, so a root= that is said counts for more
    return here == there and (there is not None or not ids)
