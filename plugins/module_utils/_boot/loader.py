# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What a boot loader backend is, and the data that it speaks in.

A backend is one module in ``loaders/``. It holds no state and decides no policy: what is wanted
and what was ours comes from the caller, and it answers with plain data. All of it:

``NAME``
    Value of the option ``loader``.
``evidence(host, booted)`` -> ``(found, against)``
    Sentences that speak for this loader having started this system, and that rule it out.
    ``booted`` is :func:`_boot.booted.booted`. Decide by what booted, never by which command is there.
``unusable(host)`` -> ``[reason]``
    Why the backend cannot work here, whatever booted.
``recorded(host)`` -> ``[token] | None``
    What our own file on the host says that we own, for a host whose record was lost; None where
    only the record can say it.
``edits(host, wanted, owned)`` -> ``[Edit]``
    The files that the backend itself writes so that ``wanted`` is on the command line of every
    ordinary entry, of the next kernel to be installed too. ``owned`` are the tokens that we put
    there before: those that are no longer wanted go, one at a time and exactly. Only reads.
    ``wanted`` empty and ``owned`` given is the way back. No edit is returned for a file that is right.
    Where entries have lines of their own, :func:`_boot.record.own` says what of ``owned`` is ours on one of them: a run
    that was killed may not have come to it, and others may have the same there.
``generated(host)`` -> ``[path]``
    Files that :func:`generate` may rewrite; the transaction keeps them, and puts them back on failure.
``generate(host)`` -> None
    Run what turns the edited files into boot entries, so that the files in place are never half
    written. Raises HostError.
``undo(host, tried, seen)`` -> None
    Optional, where what boots is not in files that can be kept. Called after a failure, when all files are as before:
    make what boots follow. ``seen`` is the view before, which tells how much of ``tried`` was there. Raises HostError.
``refresh(host, kernels)`` -> None
    Have the entries of these kernels carry the initramfs images that were just built (copy to the
    EFI partition, build the UKI). Nothing to do where they are used where they are built.
``REPLACED_HOOKS``
    Optional: names of the distribution's hooks after a new image that do, in place, what refresh() does. They are not
    run: a power cut in the middle of one leaves half a file that boots.
``view(host)`` -> :func:`view`
    The next boot, read back from what was generated.
``configured(host)`` -> ``(tokens | None, {token: path})``
    What the next kernel to be installed would get, and which file says so. None: needs a shell to know.
``fallback(host, owned)`` -> ``[Edit]``
    Files that make an entry for the same kernel without ``owned`` and with ``vfio_host=off``.
    Empty where that entry exists as it should. Where a kernel that is installed would get the running line, LASTING too.
    ``owned`` are all of our tokens that are on ordinary entries now or after the edits.
    ``owned=None`` takes it away. Whether generate() is needed: always called after edits.
    A file that edits() makes too is made as edits() says.
``LASTING``
    Optional: paths of files that are made where there are none and stay, without our tokens, for as long as there is an
    entry of our own (``/etc/kernel/cmdline``: without it a kernel gets the line that runs when it is installed).
``shelter(host, owned)`` -> ``[Edit]``
    Optional, with LASTING: what makes them. Empty where they are there, or nothing would take the running line.
    ``owned`` are our tokens on the ordinary entries. Of fallback(), and for the time of a trial.
``fallback_unavailable(host)`` -> ``str | None``
    Optional, for a backend that cannot make one: why there is none, and what is there instead.
``fallback_gaps(host)`` -> ``[sentence]``
    Optional: ordinary entries that have none for now, why, and what mends it, where others may have one.

What :mod:`_boot.cmdline` does with it: it notes in the record, for as long as a run lasts, which of our tokens others
have on each ordinary entry (by the ids of view()), writes the edits and those of the fallback together, calls
generate(), asks for both again (a kernel may have been installed, a fallback may follow from what was
generated) until none is left, and reads the view back. Whether a parameter is an administrator's is
told from the lines of the ordinary entries and from configured(), without ``owned``; such a one is not
in ``wanted``. An Edit with ``own=False`` is remembered with its original text.

``hindrances(host, edits, wanted)`` -> ``[reason]``
    Optional, so that check mode does not promise what a run can only refuse: why, with these edits (of ``edits`` and
    ``fallback``) written and generate() done, ``wanted`` would not be on every ordinary entry, or a problem of view()
    would still be there. Names the file and the remedy. Only reads; what is not known is no hindrance.

For the trial boot, where the loader can start an entry once. All others leave these four out:

``trial_obstacles(host)`` -> ``[reason]``
    Why an entry cannot be started once here (GRUB's environment block on LVM, no EFI variables, …). Not what can be
    mended (no room, read-only): the change would go on without a trial, so that is refused.
``trial(host, kernel, image, line)`` -> ``[Edit]``
    Files that make the entry ``TRIAL_ID`` with the kernel of the default entry (a version), the initramfs
    ``image`` (a path on the host) and the command line ``line`` (tokens), and leave every other entry
    as it is. ``kernel=None`` takes it away. Whether generate() left them so the caller has to look: settings
    that were edited and not generated since come into force with it.
``trial_binary(host, kernel, image, line, check=False)`` -> ``bool``
    Optional (``getattr(backend, "trial_binary", None)``), for what an Edit cannot carry: the initramfs copied to
    the EFI partition, a UKI. Same arguments as ``trial``; with ``kernel`` it is called before the edits of
    ``trial`` are written, with ``kernel=None`` after them, so an entry never names a file that is not there.
    True when something was to do; ``check`` only looks. Space is checked first; raises HostError.
    A backend whose trial entry is one binary (UKI) answers ``trial`` with no edits.
``once(host)`` -> ``str | None``
    Id of the entry that the next boot starts once.
``set_once(host, id | None)``
    Choose it, or take the choice back. Returns nothing; the caller reads it back with :func:`once`.
``once_traces(host)`` -> ``bool``
    Optional, where the loader leaves a trace of an entry that it has started once: whether there is one, or a choice that
    is still to be used. ``set_once(host, None)`` removes it. So a power cut before the choice is told from one after it.
"""

from __future__ import annotations

import re

TRIAL_ID = "vfio-host-trial"
FALLBACK_ID = "vfio-host-fallback"
"""Ids of our own entries: an entry whose id begins with one of these is not ordinary."""

OFF = "vfio_host=off"
"""On the command line: the script in the initramfs leaves every device to the host."""
TRIAL = "vfio_host=trial"
"""On the command line of the trial entry: how a host knows that it is in it."""
TRIAL_ADDS = re.compile(r"^(panic=\d+|systemd\.watchdog_sec=60|rd\.shell=0|rd\.emergency=reboot)$")
"""What module trial_boot puts right behind it."""


class Edit:
    """One file of an edit: ``path``, ``before`` and ``after`` (str, or None for no file), ``mode`` (int) of ``after``.

    ``own``: the file is ours alone and goes when nothing is left to say, else it is somebody's that
    we change in place, and what it was before us is recorded.
    """

    def __init__(self, path, before, after, mode=0o644, own=True):
        self.path = path
        self.before = before
        self.after = after
        self.mode = mode
        self.own = own

    def __repr__(self):
        return "Edit(%r)" % self.path


def entry(entry_id, title, kernel, tokens, managed=True, default=False, initrds=(), image=None, recovery=False,
          source=None):
    """One boot entry as a dict.

    ``kernel``: version, or None when it cannot be told. ``tokens``: its command line, without what the
    loader itself adds in front (``BOOT_IMAGE=``, ``initrd=``). ``managed``: an ordinary entry that has
    to carry ours. ``default``: what boots when nobody chooses. ``initrds``: paths of its initramfs
    images on the host; ``image``: path of its UKI. ``recovery``: a rescue entry, ours included.
    ``source``: the file, or the section of a file, that it was read from.
    """
    return {
        "id": entry_id, "title": title, "kernel": kernel, "tokens": list(tokens), "managed": managed,
        "default": default, "initrds": list(initrds), "image": image, "recovery": recovery, "source": source,
    }  # fmt: skip


def view(entries, problems=()):
    """The next boot: ``{"entries": [entry], "problems": [sentence]}``.

    ``problems``: what makes it unsafe or incomplete: a menu that ends in the middle, an installed kernel
    without an entry, an entry whose files are missing.
    """
    return {"entries": list(entries), "problems": list(problems)}


def apart(line):
    """``(ordinary, ours)``: a command line without what only an entry of our own says, and that."""
    ordinary, own = [], []
    behind = False
    for token in line:
        behind = token == TRIAL or behind and bool(TRIAL_ADDS.match(token))
        (own if behind or token == OFF else ordinary).append(token)
    return ordinary, own


def stuck(place, line, file=None):
    """What an ordinary entry says that only one of ours may: ``[sentence]``. ``file``: where its line is written, if not
    in ``place``.

    The tools that give a kernel its line take the one that runs where no file says it.
    """
    found = []
    own = apart(line)[1]
    for token, ran, more in ((TRIAL, "a trial boot", ", and what it tried"), (OFF, "the entry without VFIO", "")):
        if token in own:
            out = " ".join(one for one in own if (one == OFF) is (token == OFF))
            remedy = "Take %s out%s" % (out, more) if file is None else (
                "Write its command line to %s without %s%s: then it is built with that" % (file, out, more))
            found.append("%s has %s: its kernel was installed while %s ran, and got that command line. %s" % (
                place, token, ran, remedy))
    return found


def default_of(seen):
    """The entry of a view that boots by default, or None when that cannot be told."""
    for candidate in seen["entries"]:
        if candidate["default"]:
            return candidate
    return None


def ours(entry_id):
    """Whether an entry is one of our own, not an ordinary one."""
    return (entry_id or "").startswith((TRIAL_ID, FALLBACK_ID))
