# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What of the kernel command line is ours, kept on the host, and what files of others were before us."""

from __future__ import annotations

import hashlib
import json
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import Edit
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

FOLDER = "/var/lib/vfio-host"
PATH = FOLDER + "/cmdline.json"

TRIAL = FOLDER + "/trial.json"
"""There for as long as a trial boot is: the record of :mod:`_boot.trial`."""

REMOVED = "/run/vfio-host/cmdline-removed.json"
"""Tokens that we took out and that still run. It ends with the boot that ends them."""


def new(loader, owned, pending, originals, theirs=None):
    """A record. ``pending``: a run has begun and not ended; ``owned`` then are all that may be there.

    ``theirs``: which of the same others have on an entry, ``{id: tokens}``, for as long as it has not ended: it is not
    known then which entries it had come to, and a token on one may be ours or theirs.
    """
    found = {"schema": 1, "loader": loader, "tokens": list(owned), "pending": pending, "originals": originals}
    return dict(found, theirs=theirs) if theirs else found


def read(host):
    """The record, or None when there is none. Raises HostError for one that cannot be understood."""
    text = host.read(PATH)
    if text is None:
        if host.exists(PATH):
            raise HostError("%s exists and cannot be read as a file: move it away first" % PATH)
        return None
    try:
        found = json.loads(text)
        right = (
            found["schema"] == 1
            and isinstance(found["loader"], str)
            and isinstance(found["pending"], bool)
            and all(isinstance(token, str) for token in found["tokens"])
            and all(
                set(was) == {"text", "mode", "after"} and isinstance(was["mode"], int)
                for was in found["originals"].values()
            )
            and all(isinstance(line, list) for line in found.get("theirs", {}).values())
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise HostError(
            "%s cannot be understood, so it is not known which kernel parameters are ours: "
            "take them out by hand and remove the file" % PATH
        )
    return found


def own(host, entry_id, owned, line):
    """What of ``owned`` can be ours on the line of an entry, by what a run that has not ended has noted of others."""
    theirs = (read(host) or {}).get("theirs", {})
    return tokens.own(owned, line, theirs.get(entry_id, []))


def write(host, found):
    host.write(PATH, json.dumps(found, indent=1, sort_keys=True) + "\n", mode=0o600)


def remove(host):
    host.remove(PATH)
    host.remove_empty_folder(FOLDER)


def removed(host):
    """Tokens that were taken out since this boot. What cannot be understood is as good as nothing: it was ours."""
    try:
        found = json.loads(host.read(REMOVED) or "[]")
    except ValueError:
        return []
    return [token for token in found if isinstance(token, str)] if isinstance(found, list) else []


def note_removed(host, found):
    if found != removed(host):
        host.write(REMOVED, json.dumps(found) + "\n", mode=0o600)


def digest(text):
    return hashlib.sha256((text or "").encode("utf-8", "backslashreplace")).hexdigest()


def noted(host, edits, originals, owned):
    """``originals`` with what these edits are about to change in place.

    What holds one of ``owned`` already, and was not noted then, is no original.

    A file keeps its first original for as long as nobody else has changed it since. After that only
    our tokens can be taken out of it, and it has no original any more. ``after`` names both what the
    file is and what it is about to be, since a run may be killed between record and file.
    """
    found = dict(originals)
    for edit in edits:
        was = originals.get(edit.path)
        if edit.own or edit.before == edit.after:
            continue
        new = digest(edit.after)
        if was is None:
            if _holds(edit.before or "", owned):
                continue
            status = host.stat(edit.path)
            mode = status.st_mode & 0o7777 if status else edit.mode
            found[edit.path] = {"text": edit.before, "mode": mode, "after": new}
        elif edit.before == was["text"]:
            found[edit.path] = dict(was, after=new)
        elif ours(edit.before, was):
            found[edit.path] = dict(was, after="%s %s" % (digest(edit.before), new))
        else:
            del found[edit.path]
    return found


def _holds(text, words):
    return any(re.search(r"(?<![^\s\"'])%s(?![^\s\"'])" % re.escape(word), text) for word in words)


def ours(text, was):
    """Whether a file still is what we wrote."""
    return text is not None and digest(text) in was["after"].split()


def settled(host, originals):
    """``originals`` with one digest each, for a record that is not pending."""
    found = {}
    for path, was in originals.items():
        text = host.read(path)
        found[path] = dict(was, after=digest(text)) if ours(text, was) else was
    return found


def restored(host, edits, originals):
    """Edits of the way back: a file that still is what we wrote becomes what it was, byte for byte."""
    found = [edit for edit in edits if edit.path not in originals]
    by_path = {edit.path: edit for edit in edits}
    for path, was in originals.items():
        text = host.read(path)
        if ours(text, was):
            if text != was["text"]:
                found.append(Edit(path, text, was["text"], mode=was["mode"], own=False))
        elif path in by_path and text != was["text"]:  # nothing of ours is in what was before us
            found.append(by_path[path])
    return found
