# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Kernel command lines as tokens: the kernel's own quoting, keys and who wins."""

from __future__ import annotations

import re

SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.,:=/@%+-]*$")
"""What means the same to the shell, to GRUB's script language and to the kernel without quoting."""

LIST_KEYS = frozenset(
    (
        "console",
        "earlycon",
        "initcall_blacklist",
        "modprobe.blacklist",
        "module_blacklist",
        "rd.driver.blacklist",
        "rd.driver.pre",
        "vfio_pci.ids",
    )
)
"""Keys that may be given several times and mean all of it (names as :func:`key` returns them)."""

OPTION_KEYS = {
    "amd_iommu": (),
    "intel_iommu": (frozenset(("on", "off")),),
    "iommu": (frozenset(("pt", "nopt")), frozenset(("off", "force"))),
    "pci": (),
}
"""Keys whose comma-separated options each act when they are met, over all occurrences.

Of each set of opposites the last one counts, of the others each one stays
(``intel_iommu_setup``, ``iommu_setup`` and ``pci_setup`` of the kernel).
"""


def split(line):
    """Tokens of a command line as the kernel's ``next_arg`` cuts them: quotes protect spaces and stay in the token."""
    tokens = []
    token = ""
    quoted = False
    for char in line:
        if char.isspace() and not quoted:
            if token:
                tokens.append(token)
            token = ""
            continue
        if char == '"':
            quoted = not quoted
        token += char
    if token:
        tokens.append(token)
    return tokens


def join(tokens):
    return " ".join(tokens)


def key(token):
    """Name of a parameter as the kernel compares it: ``-`` and ``_`` are the same (``parameq``)."""
    return token.lstrip('"').split("=", 1)[0].replace("-", "_")


def value(token):
    """The value without the quotes that the kernel takes off, or None for a bare word."""
    text = token
    if text.startswith('"'):
        text = text[1:]
        if text.endswith('"'):
            text = text[:-1]
    if "=" not in text:
        return None
    found = text.split("=", 1)[1]
    if found.startswith('"'):
        found = found[1:]
        if found.endswith('"'):
            found = found[:-1]
    return found


def for_kernel(tokens):
    """The tokens that the kernel reads: what follows ``--`` is for init."""
    tokens = list(tokens)
    return tokens[: tokens.index("--")] if "--" in tokens else tokens


def effective(tokens, name):
    """Value of the last occurrence of a single-valued key; None when it is not there (or a bare word)."""
    found = None
    for token in for_kernel(tokens):
        if key(token) == key(name):
            found = value(token)
    return found


def _options(tokens, name):
    found = []
    for token in for_kernel(tokens):
        if key(token) == name:
            found.extend(part for part in (value(token) or "").split(",") if part)
    return found


def has(tokens, wanted):
    """True when ``wanted`` is in force on this command line: there, and not overridden by a later token."""
    name = key(wanted)
    same = [token for token in for_kernel(tokens) if key(token) == name]
    if name in OPTION_KEYS:
        given = _options(tokens, name)
        for option in (value(wanted) or "").split(","):
            if option and option not in given:
                return False
            for opposites in OPTION_KEYS[name]:
                if option in opposites and [part for part in given if part in opposites][-1] != option:
                    return False
        return bool(same)
    if name in LIST_KEYS:
        given = set()
        for token in same:
            given.update((value(token) or "").split(","))
        return bool(same) and set((value(wanted) or "").split(",")) <= given
    return bool(same) and value(same[-1]) == value(wanted)


def conflicts(wanted, other):
    """True when two tokens cannot both be in force: the later one wins."""
    name = key(wanted)
    if key(other) != name or name in LIST_KEYS:
        return False
    if name in OPTION_KEYS:
        mine = set((value(wanted) or "").split(","))
        theirs = set((value(other) or "").split(","))
        return any(mine & pair and theirs & pair and mine & pair != theirs & pair for pair in OPTION_KEYS[name])
    return value(wanted) != value(other)


def overridden(tokens, ours):
    """Tokens of others that ours defeat: ``[{ours, theirs}]`` in the order of ``ours``."""
    found = []
    for mine in ours:
        for other in for_kernel(tokens):
            pair = {"ours": mine, "theirs": other}
            if other not in ours and conflicts(mine, other) and pair not in found:
                found.append(pair)
    return found


def replace(tokens, old, new):
    """Take the last occurrence of each of ``old`` out and append ``new``; nothing else moves."""
    kept = list(tokens)
    for token in reversed(list(old)):
        for index in range(len(kept) - 1, -1, -1):
            if kept[index] == token:
                del kept[index]
                break
    return kept + list(new)


def check(wanted):
    """The wanted tokens, unique and in order. Raises ValueError for one that would need quoting or a contradiction."""
    found = []
    for token in wanted:
        if not SAFE.match(token):
            raise ValueError(
                "parameters: %r is not a kernel parameter that can be written without quoting "
                "(letters, digits and _ . , : = / @ %% + - only, and a letter or digit first)" % (token,)
            )
        for other in found:
            if other != token and conflicts(token, other):
                raise ValueError("parameters: %s and %s contradict each other, give one of them" % (other, token))
        if token not in found:
            found.append(token)
    return found
