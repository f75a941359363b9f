# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""GRUB whose ``grub-mkconfig`` reads ``/etc/default/grub`` and no drop-ins: Arch, openSUSE, RHEL 7.

The one line that sets ``GRUB_CMDLINE_LINUX_DEFAULT`` is edited, and not a byte beside it. The interface is
described in :mod:`_boot.loader`.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import Edit
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "grub_in_place"

SETS = re.compile(r"^[ \t]*(?:export[ \t]+)?GRUB_CMDLINE_LINUX_DEFAULT\+?=")
TOUCHES = re.compile(r"^[ \t]*[^#\n]*\bGRUB_CMDLINE_LINUX_DEFAULT\b")
SOURCES = re.compile(r"^[ \t]*(?:\.|source)[ \t]+(\S+)")
VALUE = re.compile(r"""(?P<value>"(?:[^"\\$`]|\\.)*"|'[^']*'|[^\s"'\\$`;&|#()<>]*)(?P<rest>[ \t]*(?:[ \t]\#.*)?)$""")

generated = grub_common.generated
refresh = grub_common.refresh
view = grub_common.view
fallback = grub_common.fallback
trial_obstacles = grub_common.trial_obstacles
trial = grub_common.trial
once = grub_common.once
once_traces = grub_common.once_traces
set_once = grub_common.set_once


# -- pure ----------------------------------------------------------------------------------


def find(text):
    """``(lines, index, head, value, rest)`` of the line to edit; index None when nothing sets it yet.

    Raises HostError, with the number of the line, for what only a shell can know.
    """
    lines = text.splitlines(True)
    place = None
    for number, line in enumerate(lines, 1):
        if SOURCES.match(line):
            raise HostError(
                "%s line %d takes in %s, so what GRUB_CMDLINE_LINUX_DEFAULT comes to is not known"
                % (grub_common.DEFAULTS, number, SOURCES.match(line).group(1))
            )
        if not TOUCHES.match(line):
            continue
        head = SETS.match(line)
        tail = VALUE.match(line[head.end():].rstrip("\r\n")) if head else None
        if tail is None:
            raise HostError(
                "%s line %d: it takes a shell to know GRUB_CMDLINE_LINUX_DEFAULT (a variable, a command, several "
                "strings or a line that goes on). Write it as one string in one line" % (grub_common.DEFAULTS, number)
            )
        ending = line[len(line.rstrip("\r\n")):]
        place = (number - 1, head.group(0), tail.group("value"), tail.group("rest") + ending)
    number = grub_menu.decided_by_shell(text)
    if number:
        raise HostError(
            "%s line %d: it takes a shell to know whether what sets GRUB_CMDLINE_LINUX or GRUB_CMDLINE_LINUX_DEFAULT is "
            "executed. Set both without conditions" % (grub_common.DEFAULTS, number)
        )
    if place is None:
        return lines, None, "", "", ""
    return (lines,) + place


def edited(text, wanted, owned):
    """The settings with ``wanted`` behind what is there and without those of ``owned`` that are not wanted."""
    lines, index, head, value, rest = find(text)
    quote = value[0] if value[:1] in ("'", '"') else ""
    inner = value[1:-1] if quote else value
    line = tokens.split(inner)
    gone = [token for token in owned if token in line and token not in wanted]
    if not gone and not tokens.lacking(line, wanted):
        return text
    inner = _taken_out(inner, [token for token in owned if token in line])
    if wanted:
        inner += ("" if not inner or inner[-1].isspace() else " ") + tokens.join(wanted)
    if index is None:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        return "".join(lines) + 'GRUB_CMDLINE_LINUX_DEFAULT="%s"\n' % inner
    quote = quote or '"'
    lines[index] = head + quote + inner + quote + rest
    return "".join(lines)


def _taken_out(text, old):
    """``text`` without the words ``old`` and the space before each; the rest stays as it is, spaces too."""
    parts = re.findall(r"\s+|\S+", text)
    words = [index for index, part in enumerate(parts) if not part.isspace()]
    left = tokens.without([parts[index] for index in words], old)
    for index in reversed(words):
        if left and parts[index] == left[-1]:
            left.pop()
            continue
        del parts[index]
        if index and parts[index - 1].isspace():
            del parts[index - 1]
        elif index < len(parts) and parts[index].isspace():
            del parts[index]
    return "".join(parts)


def tokens_text(wanted):
    return grub_common.HEADER + '# what the fallback entry leaves out\nVFIO_HOST_TOKENS="%s"\n' % tokens.join(wanted)


# -- with a host ---------------------------------------------------------------------------


def evidence(host, booted):
    """What speaks for GRUB without drop-ins and what rules it out, as sentences."""
    found = []
    against = []
    grub_common.started_by_grub(found, against, booted)
    reasons = unusable(host)
    against.extend(reasons)
    if not reasons:
        found.append("%s, and %s reads no drop-ins" % (grub_common.DEFAULTS, grub_common.tool(host, "mkconfig")))
    return found, against


def unusable(host):
    """Why this backend cannot work here, whatever booted."""
    reasons = grub_common.unusable(host)
    if grub_common.tool(host, "mkconfig") and grub_common.drop_ins_are_read(host):
        reasons.append("%s reads /etc/default/grub.d" % grub_common.tool(host, "mkconfig"))
    return reasons


def recorded(host):
    """The tokens that our file for the fallback entry names, or None."""
    text = host.read(grub_common.TOKENS)
    match = re.search(r'^VFIO_HOST_TOKENS="(.*)"$', text or "", re.M)
    return tokens.split(match.group(1)) if match else None


def settings(host):
    """Text of the settings. Raises HostError for one that could not be written back as it is."""
    data = host.read_bytes(grub_common.DEFAULTS)
    if data is None:
        raise HostError("%s cannot be read" % grub_common.DEFAULTS)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise HostError("%s is not UTF-8 text (byte %d)" % (grub_common.DEFAULTS, exc.start)) from exc


def edits(host, wanted, owned):
    """The settings, and our file that says what in them is ours."""
    found = grub_common.own_file(host, grub_common.TOKENS, tokens_text(wanted) if wanted else None)
    if not wanted and not owned:
        return found
    before = settings(host)
    after = edited(before, wanted, owned)
    if before != after:
        mode = host.stat(grub_common.DEFAULTS).st_mode & 0o7777
        found.append(Edit(grub_common.DEFAULTS, before, after, mode=mode, own=False))
    return found


def configured(host):
    """``(tokens | None, {token: file})``, see :func:`grub_menu.evaluate`."""
    return grub_menu.evaluate([(grub_common.DEFAULTS, host.read(grub_common.DEFAULTS) or "")])


def hindrances(host, edits, wanted):
    """A default that would mean another entry, see :func:`grub_common.hindrances`."""
    return grub_common.hindrances(host, edits, [(grub_common.DEFAULTS, host.read(grub_common.DEFAULTS) or "")])


def generate(host):
    """Make the menu, see :func:`grub_common.generate`."""
    grub_common.generate(host, configured(host)[0])
