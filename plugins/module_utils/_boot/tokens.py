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
        "acpi_osi",
        "console",
        "crashkernel",
        "earlycon",
        "ifname",
        "initcall_blacklist",
        "ip",
        "memmap",
        "modprobe.blacklist",
        "nameserver",
        "netconsole",
        "rd.break",
        "rd.driver.blacklist",
        "rd.driver.post",
        "rd.driver.pre",
        "rd.dm.uuid",
        "rd.lvm.lv",
        "rd.lvm.vg",
        "rd.md.uuid",
        "rd.route",
        "rd.systemd.mask",
        "rd.systemd.wants",
        "rd.znet",
        "rdblacklist",
        "systemd.mask",
        "systemd.setenv",
        "systemd.wants",
        "video",
        "vlan",
    )
)
"""Keys that may be given several times and mean all of it (names as :func:`key` returns them)."""

COMMA_LIST_KEYS = frozenset(
    (
        "initcall_blacklist",
        "modprobe.blacklist",
        "rd.driver.blacklist",
        "rd.driver.post",
        "rd.driver.pre",
        "rdblacklist",
    )
)
"""Those of them whose one occurrence may hold several, with commas between."""

LIST_PREFIXES = ("rd.luks.", "luks.")
"""Whole families of such keys (``rd.luks.uuid``, ``rd.luks.name``, ``rd.luks.options``)."""

LAST_LIST_KEYS = frozenset(("module_blacklist", "pci_stub.ids", "usbcore.quirks", "vfio_pci.ids"))
"""Keys whose value is a list, and of which the kernel keeps the last occurrence only.

They are strings to the kernel (``module_param_string`` in ``vfio_pci.c``, ``core_param`` in
``kernel/module``), so a second ``vfio-pci.ids=`` takes the place of the first.
"""

CPU_KEYS = frozenset(("irqaffinity", "isolcpus", "kthread_cpus", "nohz_full", "rcu_nocbs"))
"""Keys whose value is a list of processors, ``2-5`` as well as ``2,3,4,5``, behind flags for ``isolcpus``."""

FIRST_KEYS = frozenset(("default_hugepagesz", "isolcpus", "nohz_full"))
"""Keys of which the kernel keeps the first occurrence and rejects a later one that says otherwise.

``housekeeping_setup`` ("nohz_full= must match isolcpus=") and, since Linux 5.8, ``default_hugepagesz_setup``.
"""

SIZE, PAGES = "hugepagesz", "hugepages"
"""A pair by position: ``hugepages=`` is about the ``hugepagesz=`` before it, and the first of a size counts."""

OPTION_KEYS = {
    "amd_iommu": (frozenset(("pgtbl_v1", "pgtbl_v2")),),
    "intel_iommu": (frozenset(("on", "off")), frozenset(("sm_on", "sm_off"))),
    "iommu": (frozenset(("pt", "nopt")), frozenset(("off", "force"))),
    "pci": (),
    "pcie_acs_override": (),
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


def counting(name, same):
    """Of the occurrences of a single-valued key (as :func:`key` returns it) the one that counts."""
    return same[0] if name in FIRST_KEYS else same[-1]


def effective(tokens, name):
    """Value of the occurrence of a single-valued key that counts; None when it is not there (or a bare word)."""
    same = [token for token in for_kernel(tokens) if key(token) == key(name)]
    return value(counting(key(name), same)) if same else None


def _options(tokens, name):
    found = []
    for token in for_kernel(tokens):
        if key(token) == name:
            found.extend(part for part in (value(token) or "").split(",") if part)
    return found


def is_list(name):
    """Whether each occurrence of a key counts, beside the others."""
    return name in LIST_KEYS or name.startswith(LIST_PREFIXES)


def _parts(token):
    return [part for part in (value(token) or "").split(",") if part]


def _cpus(text):
    """A list of processors in a form that can be compared: flags, and each number. None when it is none."""
    flags = set()
    numbers = set()
    for part in (text or "").split(","):
        match = re.match(r"^(\d+)(?:-(\d+))?$", part)
        if not match:
            flags.add(part)  # a flag, or a form (0-N, 2-8:1/2) that is compared as it is written
        elif int(match.group(2) or match.group(1)) - int(match.group(1)) < 1 << 16:
            numbers.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return flags - {"domain"} if flags == {"domain"} else flags, numbers


def same_value(name, one, other):
    """Whether two values of a key mean the same."""
    if name in CPU_KEYS and one and other:
        return _cpus(one) == _cpus(other)
    if name in LAST_LIST_KEYS:
        return set((one or "").split(",")) == set((other or "").split(","))
    if name in (SIZE, "default_hugepagesz"):
        return _bytes(one) == _bytes(other)
    return one == other


def _bytes(text):
    """A size as the kernel's ``memparse`` reads it; the text itself when it is none."""
    match = re.match(r"^(\d+)([KMGT]?)B?$", (text or "").upper())
    return int(match.group(1)) << 10 * " KMGT".index(match.group(2) or " ") if match else text


def huge(tokens):
    """``{size in bytes or None for the default: pages}`` that the kernel makes of a line."""
    return {size: value(unit[-1]) for size, unit in _huge(tokens).items() if key(unit[-1]) == PAGES}


def _huge(tokens):
    """``{size: its tokens that count}``. A size that is named again is ignored, with the pages behind it."""
    found = {}
    size, heeded = None, True
    for token in for_kernel(tokens):
        if key(token) == SIZE:
            size = _bytes(value(token))
            heeded = size not in found
            found.setdefault(size, [token])
        elif key(token) == PAGES and heeded:
            found.setdefault(size, []).append(token)
            heeded = False
    return found


def has(tokens, wanted):
    """True when ``wanted`` is in force on this command line: there, and not overridden by another token.

    ``hugepagesz=`` and ``hugepages=`` are pairs: :func:`lacking` knows them, one alone is only looked for.
    """
    name = key(wanted)
    same = [token for token in for_kernel(tokens) if key(token) == name]
    if name in OPTION_KEYS:
        given = _options(tokens, name)
        for option in _parts(wanted):
            if option not in given:
                return False
            for opposites in OPTION_KEYS[name]:
                if option in opposites and [part for part in given if part in opposites][-1] != option:
                    return False
        return bool(same)
    if name in (SIZE, PAGES):
        return any(same_value(name, value(token), value(wanted)) for token in same)
    if is_list(name):
        if name not in COMMA_LIST_KEYS:
            return any(value(token) == value(wanted) for token in same)
        given = {part for token in same for part in _parts(token)}
        return bool(same) and set(_parts(wanted)) <= given
    if name in LAST_LIST_KEYS:
        return bool(same) and set(_parts(wanted)) <= set(_parts(same[-1]))
    return bool(same) and same_value(name, value(counting(name, same)), value(wanted))


def lacking(tokens, wanted):
    """Those of ``wanted`` that are not in force on this command line; of a pair both."""
    found = []
    pages = huge(tokens)
    for unit in units(wanted):
        if key(unit[-1]) == PAGES:
            size = _bytes(value(unit[0])) if len(unit) > 1 else None
            there = size in pages and pages[size] == value(unit[-1])
        else:
            there = has(tokens, unit[0])
        if not there:
            found.extend(unit)
    return found


def units(wanted):
    """Tokens in groups that belong together: ``hugepagesz=`` with the ``hugepages=`` behind it, the others alone."""
    found = []
    for token in wanted:
        if key(token) == PAGES and found and len(found[-1]) == 1 and key(found[-1][0]) == SIZE:
            found[-1].append(token)
        else:
            found.append([token])
    return found


def conflicts(wanted, other):
    """True when two tokens cannot both be in force: the later one wins, of :data:`FIRST_KEYS` the first."""
    name = key(wanted)
    if key(other) != name or is_list(name) or name in (SIZE, PAGES):
        return False
    if name in OPTION_KEYS:
        mine, theirs = set(_parts(wanted)), set(_parts(other))
        return any(mine & pair and theirs & pair and mine & pair != theirs & pair for pair in OPTION_KEYS[name])
    if name in LAST_LIST_KEYS:
        return not set(_parts(other)) <= set(_parts(wanted))
    return not same_value(name, value(wanted), value(other))


def first_wins(unit):
    """Whether what comes behind another of its kind is without effect; ``unit`` as :func:`units` has it."""
    return key(unit[-1]) in FIRST_KEYS or key(unit[-1]) == PAGES


def opposed(tokens, unit):
    """What is in force on a line without ours, and cannot be beside a unit (:func:`units`): ``[{ours, theirs}]``.

    Both as text, a pair as two words.
    """
    if key(unit[-1]) == PAGES:
        size = _bytes(value(unit[0])) if len(unit) > 1 else None
        theirs = _huge(tokens).get(size)
        if theirs is None or key(theirs[-1]) == PAGES and value(theirs[-1]) == value(unit[-1]):
            return []
        return [{"ours": join(unit), "theirs": join(theirs)}]
    return [pair for pair in overridden(tokens, unit) if has(tokens, pair["theirs"])]


def beyond(some, others):
    """Those of ``some`` that are not among ``others``, each as often as there are more of it."""
    rest = list(others)
    found = []
    for token in some:
        if token in rest:
            rest.remove(token)
        else:
            found.append(token)
    return found


def common(some, others):
    """Those of ``some`` that are among ``others`` too, each as often as it is in both."""
    return beyond(some, beyond(some, others))


def own(owned, line, theirs):
    """What of ``owned`` can be ours on a line where others have ``theirs``: what is there no more often is not."""
    missing = beyond([token for token in owned if token in theirs], beyond(line, theirs))
    return beyond(owned, missing)


def in_order(tokens, wanted):
    """Whether ``wanted`` is among ``tokens`` in this order."""
    rest = iter(tokens)
    return all(token in rest for token in wanted)


def overridden(tokens, ours):
    """Tokens of others that ours defeat: ``[{ours, theirs}]`` in the order of ``ours``."""
    found = []
    for mine in ours:
        for other in for_kernel(tokens):
            pair = {"ours": mine, "theirs": other}
            if other not in ours and conflicts(mine, other) and pair not in found:
                found.append(pair)
    return found


def without(tokens, old):
    """``tokens`` without ``old``: where they stand together the last such place, else each one's last occurrence."""
    kept = list(tokens)
    old = list(old)
    if not old:
        return kept
    for index in range(len(kept) - len(old), -1, -1):
        if kept[index : index + len(old)] == old:
            return kept[:index] + kept[index + len(old) :]
    for token in reversed(old):
        for index in range(len(kept) - 1, -1, -1):
            if kept[index] == token:
                del kept[index]
                break
    return kept


def replace(tokens, old, new):
    """Take ``old`` out (see :func:`without`) and append ``new``; nothing else moves."""
    return without(tokens, old) + list(new)


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
        if key(token) in (SIZE, PAGES) or token not in found:
            found.append(token)
    lost = lacking(found, found)
    if lost:
        raise ValueError(
            "parameters: the kernel would not heed %s, since the number of pages of that size is given before"
            % " ".join(lost)
        )
    return found
