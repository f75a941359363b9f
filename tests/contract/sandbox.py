# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program on a recorded tree as if that were the machine: its own mounts, its own root, the host's /usr to read.

Needs root and unshare. What the tree has below /usr and /proc is seen as it is recorded, as far as the program reads
it; /usr itself is the host's, read-only, and ``/stubs`` comes first among the commands.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from ansible_collections.vfio.host.plugins.module_utils._host import Result

LINKS = ("bin", "sbin", "lib", "lib64")

INSIDE = r"""
set -e
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
mount --bind /dev/null "$root/dev/null"
cd "$root"
exec chroot "$root" /usr/bin/env -i PATH=/stubs:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/ "$@"
"""


def possible():
    """Whether a program can be run in a root of its own here."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


def copy(source, target):
    """The tree of a recorded host, for a program to work on."""
    shutil.copytree(source, target, symlinks=True)


def stub(root, name, text):
    path = os.path.join(root, "stubs", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)
    os.chmod(path, 0o755)


def run(root, argv, timeout=120):
    """Run ``argv`` with ``root`` as the machine; a Result. The tree is left without what was added for it."""
    hidden = os.path.join(root, "usr")
    aside = os.path.join(root, ".usr")
    if os.path.exists(hidden):
        os.rename(hidden, aside)
    os.mkdir(hidden)
    made = []
    for name in LINKS:
        path = os.path.join(root, name)
        if not os.path.lexists(path) and os.path.exists("/" + name):
            os.symlink("usr/" + name, path)
            made.append(path)
    os.makedirs(os.path.join(root, "tmp"), exist_ok=True)
    null = os.path.join(root, "dev/null")
    os.makedirs(os.path.dirname(null), exist_ok=True)
    with open(null, "w", encoding="utf-8"):
        made.append(null)
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", INSIDE, "sh", root] + list(argv), check=False, capture_output=True,
            text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        for path in made:
            os.unlink(path)
        os.rmdir(hidden)
        if os.path.exists(aside):
            os.rename(aside, hidden)
    return Result(argv, done.returncode, done.stdout, done.stderr)


def tree(root, ignore=()):
    """``{path: content or link}`` of the files; what begins with one of ``ignore`` is left out."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in files + [name for name in names if os.path.islink(os.path.join(folder, name))]:
            outside = os.path.join(folder, name)
            path = outside[len(root):]
            if path.startswith(("/stubs/", "/stubs", "/usr/") + tuple(ignore)):
                continue
            if os.path.islink(outside):
                found[path] = "-> " + os.readlink(outside)
            else:
                with open(outside, "rb") as handle:
                    found[path] = handle.read().decode("utf-8", "backslashreplace")
    return found
