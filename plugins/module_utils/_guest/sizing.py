# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Sizes and the memory budget of a host. Pure."""

from __future__ import annotations

import re

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"^([0-9]+)\s*([A-Za-z]*)$")


def parse_size(value, what):
    """Bytes from an int, ``"268435456"``, ``"256MiB"``, ``"2 GiB"``.

    Raises ValueError that names ``what`` for anything else; decimal units (GB) and bare letters (G)
    are refused because people mean either by them.
    """
    if not isinstance(value, (int, str)):
        raise ValueError("%s: %r is not a size; write bytes or a number with KiB, MiB, GiB or TiB" % (what, value))
    match = _SIZE.match(str(value).strip())
    if not match or match.group(2) not in _UNITS:
        raise ValueError("%s: %r is not a size; write bytes or a number with KiB, MiB, GiB or TiB" % (what, value))
    size = int(match.group(1)) * _UNITS[match.group(2)]
    if size <= 0:
        raise ValueError("%s: %r is not a size; it must be more than 0" % (what, value))
    return size


def show_size(size):
    """``1536 MiB`` for people: whole MiB, rounded down."""
    return "%d MiB" % (size // 2**20)


def mem_total(meminfo):
    """Bytes of ``MemTotal`` in the text of /proc/meminfo; ValueError when it is not there."""
    match = re.search(r"^MemTotal:\s+([0-9]+) kB$", meminfo or "", re.MULTILINE)
    if not match:
        raise ValueError("/proc/meminfo: no MemTotal line; the memory for pinned guests cannot be judged")
    return int(match.group(1)) * 1024


def huge_pages(meminfo):
    """Bytes that lie in pools of huge pages, used or not: no guest without such pages gets any of it.

    ``Hugetlb`` counts pages of every size (Linux 4.16 and newer), the other two lines those of the default size.
    """
    lines = dict(re.findall(r"^(\w+):\s+([0-9]+)", meminfo or "", re.MULTILINE))
    if "Hugetlb" in lines:
        return int(lines["Hugetlb"]) * 1024
    return int(lines.get("HugePages_Total", 0)) * int(lines.get("Hugepagesize", 0)) * 1024


def check_budget(total, reserve, pinned, others, huge=0):
    """Refuse guests that cannot all be pinned at once.

    All memory of a guest with an assigned device is pinned: it can be neither swapped nor
    overcommitted. ``pinned`` and ``others`` are lists of (name, bytes): ours with devices that shall
    run, and everything else that runs already, both without guests on huge pages; ``huge`` is what is
    in those. Raises ValueError with the numbers.
    """
    needed = sum(size for dummy, size in pinned)
    running = sum(size for dummy, size in others)
    if not pinned or needed + running + reserve + huge <= total:
        return
    raise ValueError(
        "memory: guests with assigned devices need %s pinned (%s), other running guests have %s%s, %s are "
        "reserved for the host%s: %s of %s. Give the guests less memory, stop some, or lower host_reserve%s"
        % (
            show_size(needed),
            _list(pinned),
            show_size(running),
            " (%s)" % _list(others) if others else "",
            show_size(reserve),
            " and %s are in huge pages, which these guests do not use" % show_size(huge) if huge else "",
            show_size(needed + running + reserve + huge),
            show_size(total),
            " or the number of huge pages" if huge else "",
        )
    )


def _list(sizes):
    return ", ".join("%s %s" % (name, show_size(size)) for name, size in sizes)
