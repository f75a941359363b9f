# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Debian's hooks for what has to follow a new image (copies for a boot loader, flashing)."""

from __future__ import annotations

import re

HOOKS = "/etc/initramfs/post-update.d"


NAME = re.compile(r"^[A-Za-z0-9_-]+\Z")
"""Of a file that run-parts(8) takes for a hook."""


def run(host, version, path, timeout, without=()):
    """As update-initramfs does after it put an image in place. Raises HostError when a hook fails.

    :param without: names of hooks that are left out: they do in place what the boot loader's backend does beside it.
    """
    names = host.listdir(HOOKS)
    if not set(without) & set(names):
        if names:
            host.run(["run-parts", "--arg=" + version, "--arg=" + path, HOOKS], timeout=timeout)
        return
    for name in names:
        about = host.stat(HOOKS + "/" + name)
        if name not in without and NAME.match(name) and about and about.st_mode & 0o111:
            host.run([HOOKS + "/" + name, version, path], timeout=timeout)
