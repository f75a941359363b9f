# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""GRUB as Debian and Ubuntu set it up: a drop-in in ``/etc/default/grub.d``, then ``grub-mkconfig``.

``GRUB_CMDLINE_LINUX_DEFAULT`` goes to the ordinary entries only, behind ``GRUB_CMDLINE_LINUX``
(``/etc/grub.d/10_linux``): the recovery entries stay free of ours, which leaves a way in.
The interface is described in :mod:`_boot.loader`.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_common, grub_menu

NAME = "grub"

DROP_INS = "/etc/default/grub.d/"
DROP_IN = DROP_INS + "90-vfio-host.cfg"

generated = grub_common.generated
refresh = grub_common.refresh
view = grub_common.view
fallback = grub_common.fallback
trial_obstacles = grub_common.trial_obstacles
trial = grub_common.trial
once = grub_common.once
once_traces = grub_common.once_traces
set_once = grub_common.set_once


def render(wanted):
    """Text of the drop-in for a list of checked tokens."""
    line = tokens.join(wanted)
    return (
        grub_common.HEADER
        + 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT %s"\n' % line
        + "# what the fallback entry leaves out\n"
        + 'export VFIO_HOST_TOKENS="%s"\n' % line
    )


def parse_record(text):
    """Tokens that a drop-in of ours adds. Raises ValueError for a file that is not ours."""
    if not text.startswith("# Managed by the vfio.host collection"):
        raise ValueError("%s exists and is not from this collection: move it away first" % DROP_IN)
    match = re.search(r'^GRUB_CMDLINE_LINUX_DEFAULT="\$GRUB_CMDLINE_LINUX_DEFAULT (.*)"$', text, re.M)
    return tokens.split(match.group(1)) if match else []


def evidence(host, booted):
    """What speaks for GRUB with drop-ins and what rules it out, as sentences."""
    found = []
    against = []
    grub_common.started_by_grub(found, against, booted)
    reasons = unusable(host)
    against.extend(reasons)
    if not reasons:
        found.append("%s, and %s reads drop-ins" % (grub_common.DEFAULTS, grub_common.tool(host, "mkconfig")))
    return found, against


def unusable(host):
    """Why this backend cannot work here, whatever booted."""
    reasons = grub_common.unusable(host)
    if grub_common.tool(host, "mkconfig") and not grub_common.drop_ins_are_read(host):
        reasons.append("%s does not read /etc/default/grub.d" % grub_common.tool(host, "mkconfig"))
    return reasons


def recorded(host):
    """The tokens of our drop-in, or None. Raises ValueError when a foreign file is in its place."""
    text = host.read(DROP_IN)
    if text is None:
        if host.exists(DROP_IN):
            raise ValueError("%s exists and cannot be read as a file: move it away first" % DROP_IN)
        return None
    return parse_record(text)


def edits(host, wanted, owned):
    """The drop-in. ``owned`` does not matter: it holds all of ours and nothing else."""
    return grub_common.own_file(host, DROP_IN, render(wanted) if wanted else None)


def settings(host, edits=()):
    """``[(path, text)]`` of the settings in the order in which they are read, as they are with ``edits`` made."""
    changed = {edit.path: edit.after for edit in edits}
    paths = {DROP_INS + name for name in host.listdir(DROP_INS)} | {path for path in changed if path.startswith(DROP_INS)}
    paths = [grub_common.DEFAULTS] + sorted(path for path in paths if path.endswith(".cfg"))
    return [(path, (changed[path] if path in changed else host.read(path)) or "") for path in paths]


def configured(host):
    """``(tokens | None, {token: file})``: the settings as they are now, see :func:`grub_menu.evaluate`."""
    return grub_menu.evaluate(settings(host))


def hindrances(host, edits, wanted):
    """See :func:`taken_out`, and a default that would mean another entry."""
    files = settings(host, edits)
    return taken_out(files, wanted) + grub_common.hindrances(host, edits, files)


def taken_out(files, wanted):
    """A file that is read behind our drop-in and takes out of the variable what that puts there, or says otherwise."""
    line = grub_menu.evaluate(files)[0]
    lost = [] if line is None else tokens.lacking(line, wanted)
    if not lost:
        return []
    ours = [path for path, dummy in files].index(DROP_IN) + 1
    for end in range(ours + 1, len(files) + 1):
        if tokens.lacking(grub_menu.evaluate(files[:end])[0] or [], lost):
            return [
                "%s is read behind %s and takes %s out again: have it add to $GRUB_CMDLINE_LINUX_DEFAULT and say nothing "
                "against that, or give it a name before %s"
                % (files[end - 1][0], DROP_IN, ", ".join(lost), DROP_IN.rsplit("/", 1)[1])
            ]
    return []


def generate(host):
    """Make the menu, see :func:`grub_common.generate`."""
    grub_common.generate(host, configured(host)[0])
