# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Who makes the next kernel's command line of ``/etc/kernel/cmdline``, and what that takes for a comment.

systemd's plugins of kernel-install hand every word of the file to the kernel: for entries before 257, for unified
kernel images until 2026. Fedora's does so still. What is said in a comment to be wrong would be in force, a quote in it
would swallow what follows. Which one a host has is told by the plugin itself, since distributions take over single
changes.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

FOLDERS = ("/etc/kernel/install.d", "/run/kernel/install.d", "/usr/local/lib/kernel/install.d",
           "/usr/lib/kernel/install.d")  # fmt: skip
"""Where plugins are; one in an earlier folder takes the place of another of its name."""

CMDLINE = "/etc/kernel/cmdline"
VENDOR_CMDLINE = "/usr/lib/kernel/cmdline"
"""Read where there is no file of the administrator's."""

ENTRY, UKI, FEDORA = "90-loaderentry.install", "60-ukify.install", "20-grub.install"
MKINITCPIO = ("mkinitcpio", entries.FLUSH_COMMENT)
"""Not a plugin, and it reads the same file."""

FILTERS = (
    (re.compile(r"grep\s+-\w*v\w*\s+['\"]\^\\s\*#"), entries.COMMENT),
    (re.compile(r"startswith\(['\"]#['\"]\)"), entries.FLUSH_COMMENT),
)
"""How the plugins that leave comments out do it."""


def reader(host, plugin):
    """``(plugin, the lines that it leaves out | None)``. One that is not there, or not known, leaves nothing out."""
    for folder in FOLDERS:
        if host.exists("%s/%s" % (folder, plugin)):
            text = host.read("%s/%s" % (folder, plugin)) or ""
            found = [left_out for how, left_out in FILTERS if how.search(text)]
            return plugin, found[0] if found else None
    return plugin, None


def refuse_comments(path, text, read_by):
    """Raise HostError for what looks like a comment and would get to the kernel. ``read_by``: of :func:`reader`."""
    name, left_out = read_by
    for number, line in entries.false_comments(text, left_out):
        remedy = "Write %s without it" % CMDLINE if path.startswith("/usr/") else "Take it out"
        raise HostError(
            "%s, line %d: %s of this host is not known to leave this out, so the next kernel would get it as parameters: %s. %s"
            % (path, number, name, line, remedy)
        )
