# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Boot Loader Specification, type 1: the small files in ``loader/entries``. Pure functions over their text.

A file is lines of ``key value``. ``options`` may be there several times: the lines are joined by a space.
"""

from __future__ import annotations

import functools
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens

LINE = re.compile(r"^[ \t]*([A-Za-z0-9_-]+)(?:[ \t]+(.*?))?[ \t]*$")
COUNTER = re.compile(r"^(.+)\+(\d+)(?:-(\d+))?$")
COMMENT = re.compile(r"^\s*#")
FLUSH_COMMENT = re.compile(r"^#")
"""Lines of a file with a command line that nobody means for the kernel; who reads it may leave out fewer, or none."""
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


# -- reading -------------------------------------------------------------------------------


def parse(text):
    """``{key: [value, …]}`` in the order of the file; comments and what is no ``key value`` are left out."""
    found = {}
    for line in text.splitlines():
        match = None if line.lstrip().startswith("#") else LINE.match(line)
        if match:
            found.setdefault(match.group(1), []).append(match.group(2) or "")
    return found


def first(fields, key, default=None):
    """The last value of a key that means one thing (as the loaders take it), or ``default``."""
    return fields[key][-1] if fields.get(key) else default


def option_tokens(fields):
    """The command line of a parsed entry as tokens; variables of GRUB (``$tuned_params``) stay as they are."""
    return tokens.split(" ".join(fields.get("options", [])))


def initrds(fields):
    """Paths of the initramfs images as written. GRUB's entries may name several in one line."""
    return [path for value in fields.get("initrd", []) for path in value.split()]


def variables(line):
    """Names of the variables in tokens or a text, in order: GRUB puts their values in."""
    text = line if isinstance(line, str) else tokens.join(line)
    return [match.group(1) or match.group(2) for match in VARIABLE.finditer(text)]


def expand(line, values):
    """Tokens with the variables of ``values`` (``{name: text}``) put in: ``(tokens, [name without a value])``."""
    unknown = []

    def value(match):
        name = match.group(1) or match.group(2)
        if name not in values:
            unknown.append(name)
        return values.get(name, "")

    return tokens.split(VARIABLE.sub(value, tokens.join(line))), unknown


def split_name(name):
    """``(id, tries left | None, tries done)`` of a file name with boot counting or without (``x+3-1.conf``)."""
    stem = re.sub(r"\.(conf|efi)$", "", name, flags=re.I)
    match = COUNTER.match(stem)
    if match is None:
        return stem, None, 0
    return match.group(1), int(match.group(2)), int(match.group(3) or 0)


# -- editing -------------------------------------------------------------------------------


def edit(text, remove, add, base=None):
    """The text with the last occurrence of each token of ``remove`` gone from ``options`` and ``add`` there.

    Everything else stays byte for byte. What is added goes to the end of the last ``options`` line, or in front
    of ``--``: what follows that is for init. ``base`` (tokens) begins an ``options`` line where there is none; for
    None that is a ValueError, as such an entry may get its command line from elsewhere (``default_kernelopts``).
    """
    lines = text.splitlines(True)
    places = [index for index, line in enumerate(lines) if _key(line) == "options"]
    if add and not places:
        if base is None:
            raise ValueError("the entry has no line 'options'")
        return _ended(text) + "options %s\n" % tokens.join(list(base) + list(add))
    emptied = _change(lines, places, remove, add, _behind_key)
    return "".join(line for index, line in enumerate(lines) if index not in emptied)


def edit_line(text, remove, add):
    """The same for a file that is one command line in one line or several, as ``/etc/kernel/cmdline``."""
    lines = text.splitlines(True)
    places = [index for index, line in enumerate(lines) if line.strip() and not COMMENT.match(line)]
    if not places:
        return _ended(text) + tokens.join(add) + "\n" if add else text
    emptied = _change(lines, places, remove, add, lambda line: 0)
    return "".join(line for index, line in enumerate(lines) if index not in emptied)


def line_tokens(text, left_out=COMMENT):
    """Tokens of such a file; ``left_out``: the lines that are none to who reads it, None where it takes every word."""
    return tokens.split("\n".join(line for line in text.splitlines() if not (left_out and left_out.match(line))))


def false_comments(text, left_out):
    """``[(number, line)]`` of what looks like a comment in such a file, and is none to who reads it."""
    return [(number, line) for number, line in enumerate(text.splitlines(), 1)
            if COMMENT.match(line) and not (left_out and left_out.match(line))]  # fmt: skip


def _change(lines, places, remove, add, begin):
    """Edit the lines at ``places``, tokens from ``begin(line)`` on; the places that have none left because of it."""
    emptied = set()
    for token in reversed(list(remove)):
        for index in reversed(places):
            line = _without(lines[index], token, begin)
            if line is not None:
                lines[index] = line
                emptied.add(index)
                break
    if add:
        for index in places:
            line = lines[index]
            ends = [start for start, end in _spans(line, begin) if line[start:end] == "--"]
            if ends:
                lines[index] = line[: ends[0]] + tokens.join(add) + " " + line[ends[0]:]
                break
        else:
            line = lines[places[-1]]
            body = line.rstrip()
            lines[places[-1]] = body + (" " if body else "") + tokens.join(add) + line[len(body):]
    return {index for index in emptied if not _spans(lines[index], begin)}


def _ended(text):
    return text if not text or text.endswith(("\n", "\r")) else text + "\n"


def _key(line):
    match = None if line.lstrip().startswith("#") else LINE.match(line.rstrip("\r\n"))
    return match.group(1) if match else None


def _behind_key(line):
    return re.match(r"[ \t]*\S+", line).end()


def _spans(line, begin):
    """``[(start, end)]`` of the tokens in a line, as the kernel cuts them."""
    found = []
    start = None
    quoted = False
    for index in range(begin(line), len(line)):
        char = line[index]
        if char.isspace() and (not quoted or char in "\r\n"):
            if start is not None:
                found.append((start, index))
            start = None
            continue
        if char == '"':
            quoted = not quoted
        start = index if start is None else start
    if start is not None:
        found.append((start, len(line)))
    return found


def _without(line, token, begin):
    """The line without the last such token and the space in front of it; None when it is not there."""
    spans = _spans(line, begin)
    for start, end in reversed(spans):
        if line[start:end] != token:
            continue
        if (start, end) == spans[0] and (len(spans) > 1 or not begin(line)):
            following = len(line[end:]) - len(line[end:].lstrip(" \t"))
            return line[:start] + line[end + following:]
        return line[:start].rstrip(" \t") + line[end:]
    return None


# -- order ---------------------------------------------------------------------------------


IGNORED = re.compile(r"[^A-Za-z0-9~^.-]*")
DIGITS = re.compile(r"[0-9]*")
LETTERS = re.compile(r"[A-Za-z]*")


def compare_versions(one, other):
    """-1, 0 or 1: the specification's order of versions (UAPI.10; ``systemd-analyze compare-versions``)."""
    a, b = one or "", other or ""
    while True:
        a, b = a[IGNORED.match(a).end():], b[IGNORED.match(b).end():]
        for char in "~-^.":
            if char == "-" and not (a and b):
                return _sign(bool(a), bool(b))
            if a.startswith(char) or b.startswith(char):
                if a.startswith(char) != b.startswith(char):
                    return -1 if a.startswith(char) else 1
                a, b = a[1:], b[1:]
        numeric = a[:1].isdigit() or b[:1].isdigit()
        left, right = [(DIGITS if numeric else LETTERS).match(text).group(0) for text in (a, b)]
        a, b = a[len(left):], b[len(right):]
        if numeric:  # a number is newer than none
            left, right = [(text != "", len(text.lstrip("0")), text.lstrip("0")) for text in (left, right)]
        if left != right:
            return _sign(left, right)


def _sign(left, right):
    return (left > right) - (left < right)


def order(entries):
    """Sort as the loaders do, the entry that boots by default first.

    ``entries``: dicts with ``id``, ``fields`` (:func:`parse`) and ``left`` (tries left or None). Entries without
    a try left come last, those with a ``sort-key`` before those without; then newest first.
    """
    return sorted(entries, key=functools.cmp_to_key(_compare))


def _compare(one, other):
    keys = [first(entry["fields"], "sort-key") for entry in (one, other)]
    for left, right in (
        (one.get("left") == 0, other.get("left") == 0),
        (not keys[0], not keys[1]),
    ):
        if left != right:
            return _sign(left, right)
    if keys[0]:
        for left, right in (
            (keys[0], keys[1]),
            (first(one["fields"], "machine-id", ""), first(other["fields"], "machine-id", "")),
        ):
            if left != right:
                return _sign(left, right)
        found = compare_versions(first(other["fields"], "version"), first(one["fields"], "version"))
        if found:
            return found
    return compare_versions(other["id"].lower(), one["id"].lower())
