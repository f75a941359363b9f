# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The Fedora family (Fedora, RHEL and its rebuilds from 8 on): GRUB with entries that ``grubby`` is for.

``20-grub.install``, which makes the entries of new kernels, says that this is such a host: ``grubby`` alone is packaged
by others too. It is not run. ``--args`` takes every value of the same key away before it adds (``--args=pci=noaer``
removes somebody's ``pci=nomsi``), ``--remove-args`` of a bare name removes all its values, names go into regular
expressions as they are (a ``.`` matches any character), ``--update-kernel=ALL`` rewrites the rescue entry too, and it
writes files in place. Nobody could own exactly some tokens that way. So the same files are edited, each atomically, in
the order in which one may be left without the next:

1. ``GRUB_CMDLINE_LINUX`` in ``/etc/default/grub``: ``grub2-mkconfig`` makes ``kernelopts`` (RHEL 8), the entries
   (Fedora, RHEL 9.0 to 9.2, later with ``--update-bls-cmdline``) and ``/etc/kernel/cmdline`` again from it.
2. ``kernelopts`` in GRUB's environment block: RHEL 8's entries say ``options $kernelopts``, and so will the next one's.
   The block has a fixed size of mostly 1024 bytes; what does not fit is refused.
3. The ``options`` of every ordinary entry that does not say ``$kernelopts``.
4. ``/etc/kernel/cmdline``, which the next kernel's entry is made from where ``kernelopts`` is not used. It is made
   where there is none, also because grubby would make it from the last entry, which is our fallback entry. It is
   written last: when it is older than ``/etc/default/grub``, installing a kernel runs ``grub2-mkconfig``.

No version is asked for: what is done follows from what the entries say, and a host on which no entry would carry ours
is refused.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries, installation, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, grub_common
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "grubby"
LASTING = bls.LASTING

ASSIGNMENT = re.compile(r"^(?P<head>[ \t]*(?:export[ \t]+)?GRUB_CMDLINE_LINUX(?P<plus>\+?)=)(?P<value>.*)$")
PLAIN = re.compile(r"^(?P<open>\"(?P<double>[^\"\\$`]*)\"|'(?P<single>[^']*)')[ \t]*(?:#.*)?$")
BARE = re.compile(r"^(?P<bare>[A-Za-z0-9_.,:=/@%+-]*)[ \t]*(?:#.*)?$")
OWN_LINE = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX %s"\n'
OWN = re.compile(r"^GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX ([^\"\\$`]*)\"$")


# -- pure --------------------------------------------------------------------------------------


def edit_defaults(text, wanted, owned):
    """``/etc/default/grub`` with ``wanted`` as ours in ``GRUB_CMDLINE_LINUX``; all else stays byte for byte.

    Ours go into the last assignment when it is one plain string. Where a shell is needed to know it, a line of our
    own is added at the end, which any shell adds up.
    """
    lines = text.splitlines(True)
    found = _assignments(lines)
    line = [token for dummy, value in found for token in tokens.split(value)]
    if bls.settled(line, wanted, owned):
        return text
    remove, add = bls.change(line, wanted, owned)
    for token in reversed(remove):
        for index, value in reversed(_assignments(lines)):
            if token in tokens.split(value):
                lines[index] = _with_value(lines[index], bls.edit_line(value, [], [token]).rstrip("\n"))
                break
    lines = [one for one in lines if one]
    if add:
        last = [index for index, one in enumerate(lines) if ASSIGNMENT.match(one.rstrip("\n"))][-1:]
        known = dict(_assignments(lines))
        if last and last[0] in known:
            value = known[last[0]]
            lines[last[0]] = _with_value(lines[last[0]], bls.edit_line(value, add, []).rstrip("\n"))
        else:
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.append(OWN_LINE % tokens.join(add))
    return "".join(lines)


def _assignments(lines):
    """``[(index, value)]`` of the assignments that are one plain string, and of lines of our own."""
    found = []
    for index, line in enumerate(lines):
        own = OWN.match(line.rstrip("\n"))
        match = ASSIGNMENT.match(line.rstrip("\n"))
        if own:
            found.append((index, own.group(1)))
        elif match:
            plain = PLAIN.match(match.group("value")) or BARE.match(match.group("value"))
            if plain:
                found.append((index, next(text for text in plain.groupdict().values() if text is not None)
                              .strip("\"'") if plain.re is PLAIN else plain.group("bare")))  # fmt: skip
    return found


def _with_value(line, value):
    """The line with another value; "" for a line of our own that has nothing left to say."""
    ending = "\n" if line.endswith("\n") else ""
    own = OWN.match(line.rstrip("\n"))
    if own:
        return (OWN_LINE % value.strip()).rstrip("\n") + ending if value.strip() else ""
    match = ASSIGNMENT.match(line.rstrip("\n"))
    old = match.group("value")
    plain = PLAIN.match(old)
    if plain:
        quote = old[0]
        rest = old[len(plain.group("open")):]
        return match.group("head") + quote + value + quote + rest + ending
    rest = old[len(BARE.match(old).group("bare")):]
    quote = '"' if re.search(r"\s", value) else ""
    return match.group("head") + quote + value + quote + rest + ending


# -- the interface -----------------------------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found, against = bls.common_evidence(host, booted)
    reasons = unusable(host)
    if not reasons:
        found.append("GRUB_ENABLE_BLSCFG=true in %s, and %s" % (bls.DEFAULTS, bls.family(host)))
    return found, against + reasons


def unusable(host):
    reasons = bls.common_reasons(host)
    if bls.family(host) is None:
        reasons.append("no %s, so this is no host of the Fedora family" % bls.FEDORA)
    if host.read(bls.DEFAULTS) is None:
        reasons.append("no %s" % bls.DEFAULTS)
    if (host.read("/sys/hypervisor/type") or "").strip() == "xen":
        reasons.append("Xen: its menu entries are not made from the entries in %s" % bls.FOLDERS[0])
    return reasons


def recorded(host):
    return None


def edits(host, wanted, owned):
    items = [item for item in bls.read_entries(host) if bls.ordinary(item)]
    if wanted and not items:
        raise HostError("%s has no ordinary entry" % bls.folder_of(host))
    found = []
    text = host.read(bls.DEFAULTS)
    if text is not None:
        after = edit_defaults(text, wanted, owned)
        if after != text:
            found.append(bls.edited(host, bls.DEFAULTS, text, after))
    found += _environment_edits(host, wanted, owned)
    found += bls.entry_edits(host, wanted, owned)
    found += bls.cmdline_edits(host, wanted, owned)
    return found


def _by_environment(item):
    return "kernelopts" in entries.variables(entries.option_tokens(item["fields"]))


def _environment_edits(host, wanted, owned):
    """Edit of ``kernelopts`` where an entry says it, or where it is set for others to say it."""
    path = grub_common.environment_path(host)
    text = host.read(path)
    known = bls.environment(text)
    used = any(_by_environment(item) for item in bls.read_entries(host) if item["belongs"])
    value = known.get("kernelopts")
    if value is None and not used:
        return []
    there = installation.root(host, tokens.split(value or ""))
    if not used and there is not None and there != installation.root(host, installation.running(host)):
        return []  # another installation's, whose entries say it
    if value is None:
        value = bls.values(host).get("kernelopts")
        if value is None:
            raise HostError(
                "entries say $kernelopts, and neither GRUB's environment block nor grub.cfg gives it a value"
            )
        if not wanted:
            return []  # what grub.cfg sets is made again from /etc/default/grub
    if text is None:
        raise HostError("entries say $kernelopts, but there is no environment block (%s)" % path)
    line = tokens.split(value)
    if bls.settled(line, wanted, owned):
        return []
    after = bls.edit_line(value, wanted, owned).rstrip("\n")
    if after == value:
        return []
    try:
        return [bls.edited(host, path, text, bls.set_environment(text, "kernelopts", after))]
    except ValueError as exc:
        raise HostError("%s cannot take the parameters: %s" % (path, exc)) from exc


def configured(host):
    path = grub_common.environment_path(host)
    known = bls.environment(host.read(path))
    items = [item for item in bls.read_entries(host) if bls.ordinary(item)] if bls.folders(host) else []
    if "kernelopts" in known and items and all(_by_environment(item) for item in items):
        line = tokens.split(known["kernelopts"])
        return line, {token: path for token in line}
    line, origin = bls.configured(host)
    text = host.read(bls.DEFAULTS) or ""
    for dummy, value in _assignments(text.splitlines(True)):
        for token in tokens.split(value):
            if token in origin:
                origin[token] = bls.DEFAULTS  # where a person looks for it
    return line, origin


generated = bls.generated
generate = bls.generate
refresh = bls.refresh
view = bls.view
hindrances = bls.hindrances
fallback = bls.fallback
shelter = bls.shelter
trial_obstacles = bls.trial_obstacles
trial = bls.trial
once = bls.once
once_traces = bls.once_traces
set_once = bls.set_once
