# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Debian's hooks for what has to follow a new image (copies for a boot loader, flashing)."""

from __future__ import annotations

HOOKS = "/etc/initramfs/post-update.d"


def run(host, version, path, timeout):
    """As update-initramfs does after it put an image in place. Raises HostError when a hook fails."""
    if host.listdir(HOOKS):
        host.run(["run-parts", "--arg=" + version, "--arg=" + path, HOOKS], timeout=timeout)
