# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Huge pages that are reserved at boot: their kernel parameters, and what a command line says of them. Pure.

``hugepages=`` belongs to the ``hugepagesz=`` before it, so these two always come as a pair.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import parse_size, show_size
from ansible_collections.vfio.host.plugins.module_utils._memory.hugepages import show_page

GIGANTIC = 2**30
"""Pages of this size and above are reserved at boot: a running kernel seldom has that much in one piece."""

BY_NODE_SINCE = (5, 16)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}


def parameters(machine, pages, default_size, reserve):
    """``{tokens, problems, notes, runtime}`` for checked pages (``hugepages.check_pages``).

    ``runtime`` are the pages that the module hugepages sets. :param default_size: text, or None or empty for the
    kernel's own. :param reserve: bytes that all pages together must leave.
    """
    boot = [page for page in pages if page["size"] >= GIGANTIC and page["count"]]
    problems, notes, found = [], [], []
    if default_size:
        size = parse_size(default_size, "default_hugepage_size")
        if size != 2**21:
            problems += _size_problems(machine, size)
        found.append("default_hugepagesz=%s" % _short(size))
    for size in sorted({page["size"] for page in boot}):
        mine = [page for page in boot if page["size"] == size]
        problems += _size_problems(machine, size)
        by_node = mine[0]["node"] is not None
        if by_node:
            problems += _node_problems(machine, mine)
        elif len(machine["host"]["numa"]) > 1:
            notes.append("The %d pages of %s are spread over all NUMA nodes; give a node to each entry to say where."
                         % (mine[0]["count"], show_page(size)))
        value = ",".join("%d:%d" % (page["node"], page["count"]) for page in sorted(mine, key=lambda p: p["node"])) if (
            by_node) else "%d" % mine[0]["count"]
        found += ["hugepagesz=%s" % _short(size), "hugepages=%s" % value]
        others = [count for other, count in pairs(_line(machine)) if other == size and count != value]
        if others:
            notes.append("The running command line has hugepages=%s for pages of %s. If that is not from an earlier "
                         "run, take it out where it is set: of two, the kernel takes the first."
                         % (others[0], show_page(size)))
    if pages:
        problems += _reserve_problems(machine, pages, reserve)
        if (machine["host"]["kernel"]["config"] or {}).get("HUGETLBFS") == "n":
            problems.append("Kernel %s is built without huge pages (CONFIG_HUGETLBFS); boot another one."
                            % machine["host"]["kernel"]["release"])
    return {"tokens": found, "problems": list(dict.fromkeys(problems)), "notes": notes,
            "runtime": [page for page in pages if page["size"] < GIGANTIC]}


def _short(size):
    """``1G``, ``2M`` as the kernel's memparse() reads it."""
    for letter in "GMK":
        if size % _UNITS[letter] == 0:
            return "%d%s" % (size // _UNITS[letter], letter)
    raise ValueError("default_hugepage_size: %d is no page size" % size)


def _line(machine):
    return tokens.for_kernel(tokens.split(machine["host"]["kernel"]["cmdline"]))


def pairs(line):
    """``[(bytes of a page, text of the count)]`` in order; a count before any size is of the kernel's default, None."""
    found, size = [], None
    for token in line:
        name, value = tokens.key(token), tokens.value(token) or ""
        if name in ("hugepagesz", "default_hugepagesz"):
            match = re.match(r"^(\d+)([KMG]?)$", value.upper())
            size = int(match.group(1)) * _UNITS[match.group(2)] if match else 0
        elif name == "hugepages":
            found.append((size, value))
    return found


def total(value):
    """How many pages ``4`` or ``0:2,1:4`` are."""
    return sum(int(part.rpartition(":")[2]) for part in value.split(",") if part.rpartition(":")[2].isdigit())


def _size_problems(machine, size):
    host = machine["host"]
    if any(pool["size"] == size for pool in host["memory"]["hugepages"]):
        return []
    if size == GIGANTIC and host["cpu"].get("gigantic_pages"):
        return []
    there = ", ".join(show_page(pool["size"]) for pool in host["memory"]["hugepages"]) or "none that is known"
    why = " (no pdpe1gb in /proc/cpuinfo)" if size == GIGANTIC and host["cpu"].get("gigantic_pages") is False else ""
    return ["Pages of %s: this machine does not have them%s; it has: %s." % (show_page(size), why, there)]


def _node_problems(machine, pages):
    host = machine["host"]
    nodes = {node["node"]: node for node in host["numa"]}
    found = []
    release = re.match(r"^(\d+)\.(\d+)", host["kernel"]["release"] or "")
    if not release or (int(release.group(1)), int(release.group(2))) < BY_NODE_SINCE:
        found.append("Huge pages by NUMA node at boot need Linux 5.16, and this is %s: give a total without a node, or "
                     "boot a later kernel." % (host["kernel"]["release"] or "unknown"))
    for page in pages:
        node, size = nodes.get(page["node"]), page["size"] * page["count"]
        if node is None:
            found.append("There is no NUMA node %d; there are: %s."
                         % (page["node"], ", ".join(map(str, sorted(nodes))) or "none that is known"))
        elif node["memory"] is not None and size > node["memory"]:
            found.append("%d pages of %s are %s, and NUMA node %d has %s."
                         % (page["count"], show_page(page["size"]), show_size(size), page["node"],
                            show_size(node["memory"])))
    return found


def _reserve_problems(machine, pages, reserve):
    memory = machine["host"]["memory"]
    if memory["total"] is None:
        return ["How much memory this machine has is unknown, so whether huge pages leave enough is too."]
    wanted = sum(page["size"] * page["count"] for page in pages)
    named = {page["size"] for page in pages}
    others = sum(pool["size"] * pool["total"] for pool in memory["hugepages"] if pool["size"] not in named)
    if wanted + others + reserve <= memory["total"]:
        return []
    return ["The huge pages asked for take %s%s, and %s are reserved for the host: %s of %s. Ask for fewer, or lower "
            "the reserve." % (show_size(wanted), ", other pools %s" % show_size(others) if others else "",
                              show_size(reserve), show_size(wanted + others + reserve), show_size(memory["total"]))]
