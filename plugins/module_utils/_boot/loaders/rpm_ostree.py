# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""rpm-ostree (Silverblue, CoreOS, IoT, RHEL for Edge, and bootc systems that have it): ``rpm-ostree kargs``.

Every deployment has its own command line, and a change makes a new deployment, which is the default at the next boot.
The one that runs stays in the menu as it is: that is the way back, and what is done instead of a trial boot and of a
fallback entry.

What is ours is in a file of our own, :data:`STATE`, with ``+`` in front of what has to be there, ``-`` in front of
what has to go, and ``=`` in front of the same token of somebody else, once for each that was there before us (half of
a pair, or a token that a later one overrides). It is written first; then one transaction of rpm-ostree brings the new
deployment to it, which is read back. So a run that was killed in between can be run again, and what goes is known even
without a record: a token that the line has more often than somebody else had it. Without the file nothing is ours,
unless the record says that no run was cut off: ``rpm-ostree rollback`` has ours gone from the line, and theirs stay.

``--append`` and ``--delete`` are used, and not ``--append-if-missing``, which by its documentation does nothing when
the *key* is there. ``--delete`` takes the first of several equal ones, which is not ours: what stands behind it is
then deleted and appended too, in the same transaction, so that nothing of others has moved.
"""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils._boot import loader, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import Edit
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "rpm_ostree"

STATE = "/var/lib/vfio-host/kargs"
HEADER = "# Managed by the vfio.host collection (module kernel_cmdline). Do not edit: it is replaced.\n"
BOOTED = "/run/ostree-booted"
KARGS = ["rpm-ostree", "kargs"]

TIMEOUT = 120.0
"""Seconds to ask the daemon, which is started for it."""
DEPLOY_TIMEOUT = 900.0
"""Seconds to make a deployment: it checks out a tree, and makes an initramfs where one is made on the host."""


# -- pure --------------------------------------------------------------------------------------


def render(wanted, leaving, others):
    """Text of the state file, or None when there is nothing to say."""
    if not wanted and not leaving:
        return None
    marks = [("=", token) for token in others] + [("+", token) for token in wanted] + [("-", token) for token in leaving]
    return HEADER + "".join("%s %s\n" % pair for pair in marks)


def parse(text):
    """``(wanted, leaving, others)`` of a state file. Raises ValueError for one that is not ours."""
    if text is None:
        return [], [], []
    if not text.startswith("# Managed by the vfio.host collection"):
        raise ValueError("%s exists and is not from this collection: move it away first" % STATE)
    lines = text.splitlines()
    wanted, leaving, others = [[line[2:] for line in lines if line[:2] == mark] for mark in ("+ ", "- ", "= ")]
    return wanted, leaving, others


def target(line, wanted, leaving, others):
    """What a command line has to become: ours behind all else, and nothing of others touched or moved."""
    free = tokens.beyond(line, others)
    if not tokens.common(leaving, free) and not tokens.lacking(line, wanted):
        return line
    return tokens.replace(line, tokens.common(wanted + leaving, free), wanted)


def steps(line, wanted):
    """``(to delete, to append)`` that make one command line of another, with as few of its tokens gone as can be.

    The tool deletes the first of several equal tokens, and appends at the end.
    """
    for length in range(len(wanted), -1, -1):
        delete = tokens.beyond(line, wanted[:length])
        if tokens.beyond(wanted[:length], line) == [] and tokens.beyond(line, delete) == wanted[:length]:
            return delete, wanted[length:]
    return list(line), list(wanted)


def with_path(line, other):
    """The command line with the ``ostree=`` of another: ostree writes it anew for a deployment."""
    paths = [token for token in other if token.startswith("ostree=")]
    return [paths[-1] if paths and token.startswith("ostree=") else token for token in line]


# -- the interface -----------------------------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found = []
    against = []
    paths = [token for token in booted["tokens"] if token.startswith("ostree=")]
    if paths:
        found.append("%s on the running command line" % paths[0])
    else:
        against.append("no ostree= on the running command line, so no deployment of ostree is running")
    against.extend(unusable(host))
    return found, against


def unusable(host):
    reasons = []
    if not host.exists(BOOTED):
        reasons.append("no %s: ostree did not start this system" % BOOTED)
    if not host.which("rpm-ostree"):
        reasons.append("rpm-ostree is not installed")
    return reasons


def recorded(host):
    text = host.read(STATE)
    if text is None:
        return None
    wanted, leaving, dummy = parse(text)
    return wanted + leaving


def edits(host, wanted, owned):
    text = host.read(STATE)
    before, left, others = parse(text)
    known = before + left
    line = kargs(host)
    if text is None and _ended(host):  # only our file is lost
        known = list(owned)
        others = tokens.beyond([token for token in line if token in known], known)
    leaving = tokens.common(tokens.beyond(known, wanted), tokens.beyond(line, others))
    others = [token for token in others if token in wanted + leaving]
    others += [token for token in line if token in wanted and token not in known]
    after = render(wanted, leaving, others)
    if after == text and not leaving:
        return []
    return [Edit(STATE, text, after, mode=0o600)]


def _ended(host):
    """Whether there is a record, and no run was cut off or is under way."""
    known = record.read(host)
    return known is not None and not known["pending"]


def generated(host):
    return [STATE]


def generate(host):
    """One transaction that brings the next deployment to the state, read back."""
    wanted, leaving, others = parse(host.read(STATE))
    before = kargs(host)
    expected = target(before, wanted, leaving, others)
    if expected != before:
        _change(host, *steps(before, expected))
        after = kargs(host)
        if after != with_path(expected, after):
            said = "rpm-ostree kargs ran, but the next deployment has %r, expected was %r" % (
                tokens.join(after), tokens.join(expected),
            )  # fmt: skip
            try:
                _change(host, *steps(after, with_path(before, after)))
            except HostError as exc:
                said += "; and what was there could not be put back: %s" % exc
            raise HostError(said)
    text = render(wanted, [], [token for token in others if token in wanted])
    if text is None:
        host.remove(STATE)
    elif text != host.read(STATE):
        host.write(STATE, text, mode=0o600)


def undo(host, tried, seen):
    """One more transaction: of what was tried the next deployment has as much as it had."""
    before = [entry["tokens"] for entry in seen["entries"] if entry["managed"]]
    if not before:
        raise HostError("what the next deployment had on its command line is not known")
    wanted, dummy, others = parse(host.read(STATE))
    others += [token for token in before[0] if token in tried and token not in wanted + others]
    host.write(STATE, render(wanted, tokens.beyond(tried, wanted), others), mode=0o600)  # the next run can take it up
    generate(host)


def _change(host, delete, append):
    argv = KARGS + ["--delete=" + token for token in delete] + ["--append=" + token for token in append]
    if len(argv) > len(KARGS):
        host.run(argv, timeout=DEPLOY_TIMEOUT)


def refresh(host, kernels):
    """The initramfs is part of the deployment."""


def kargs(host, index=None):
    """The command line of a deployment, by default of the one that boots next."""
    argv = KARGS + ([] if index is None else ["--deploy-index=%d" % index])
    return tokens.split(host.run(argv, timeout=TIMEOUT).stdout)


def deployments(host):
    """What ``rpm-ostree status`` says of the deployments, the one that boots next first."""
    try:
        found = json.loads(host.run(["rpm-ostree", "status", "--json"], timeout=TIMEOUT).stdout)["deployments"]
        return [dict(one) for one in found]
    except (ValueError, KeyError, TypeError) as exc:
        raise HostError("rpm-ostree status --json cannot be understood: %s" % exc) from exc


def view(host):
    """The deployments. Only the one that boots next has to carry ours; the others are the way back."""
    try:
        found = deployments(host)
        entries = [_entry(host, index, one) for index, one in enumerate(found)]
    except HostError as exc:
        return loader.view([], [str(exc)])
    problems = [] if entries else ["rpm-ostree status --json shows no deployment"]
    return loader.view(entries, problems)


def _entry(host, index, one):
    name = "%s:%s.%s" % (one.get("osname"), one.get("checksum"), one.get("serial", 0))
    states = [state for state in ("staged", "booted", "pinned") if one.get(state)]
    title = "%s %s" % (one.get("osname"), one.get("version") or str(one.get("checksum"))[:12])
    return loader.entry(
        name, title + (" (%s)" % ", ".join(states) if states else ""), _kernel(host, one),
        kargs(host, None if index == 0 else index), managed=index == 0, default=index == 0, source="rpm-ostree",
    )  # fmt: skip


def _kernel(host, one):
    folder = "/ostree/deploy/%s/deploy/%s.%s/usr/lib/modules" % (
        one.get("osname"), one.get("checksum"), one.get("serial", 0),
    )  # fmt: skip
    found = host.listdir(folder)
    return found[0] if len(found) == 1 else None


def configured(host):
    """A new deployment takes over the command line of the one before it."""
    line = kargs(host)
    return line, {token: "rpm-ostree kargs" for token in line}


def fallback(host, owned):
    return []


def fallback_unavailable(host):
    """Why there is no fallback entry, and what is there instead."""
    return (
        "the entries are those of the deployments, so there is no fallback entry: the deployment that runs now stays "
        "in the boot menu as it is, and rpm-ostree rollback makes it the default again"
    )


def trial_obstacles(host):
    return [
        "a deployment cannot be started once: the one that runs now stays in the boot menu as it is, which is the way "
        "back (choose it there, or rpm-ostree rollback)"
    ]
