# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Whether a service of PAM sets the limits of /etc/security/limits.d when a session begins."""

from __future__ import annotations

import re

FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")
"""Where PAM looks for a service; the first file counts."""

_LINE = re.compile(r"^-?(\w+)\s+(\[[^]]*\]|\S+)\s+(\S+)")


def stack(host, service):
    """Text of a service, None when there is none."""
    for folder in FOLDERS:
        text = host.read("%s/%s" % (folder, service))
        if text is not None:
            return text
    return None


def sets_limits(host, service, seen=()):
    """Whether pam_limits is among the modules of a service's sessions, those that it includes among them."""
    text = stack(host, service)
    if text is None or service in seen:
        return False
    seen = tuple(seen) + (service,)
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] == ["@include"]:
            if len(words) > 1 and sets_limits(host, words[1], seen):
                return True
            continue
        match = _LINE.match(line.strip())
        if not match or match.group(1).lower() != "session":
            continue
        control, module = match.group(2).lower(), match.group(3)
        if control in ("include", "substack"):
            if sets_limits(host, module, seen):
                return True
        elif module.rpartition("/")[2] == "pam_limits.so":
            return True
    return False
