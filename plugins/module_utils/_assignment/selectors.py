# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions a device entry of the user means. Pure; JMESPath comes in as ``matcher``."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import normalise, slot_of, sort_key

SELECTORS = ("address", "id", "match")
KEYS = ("name",) + SELECTORS + ("functions", "count")
MAX_CANDIDATES = 40
"""Rows of a candidate table at most: a server has hundreds of functions."""

_ID = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")


def select(machine, spec, matcher):
    """The functions one device entry selects, sorted by address.

    :param machine: machine document (schema 2).
    :param spec: ``{name, address | id | match, functions: all|listed, count: slots}``.
    :param matcher: ``(expression, functions) -> functions``; raises ValueError on a bad expression.
    Raises ValueError naming the device, the value and the remedy; where the selection is not
    exactly ``count`` slots (default 1) the message holds a table of the candidates.
    """
    name, selector = check_spec(spec)
    functions = sorted(functions_of(machine), key=lambda f: sort_key(f["address"]))
    matched = _matched(functions, name, selector, spec[selector], matcher)
    slots = {slot_of(f["address"]) for f in matched}
    wanted = spec.get("count", 1)
    if len(slots) != wanted:
        raise ValueError(_miscount(name, selector, spec[selector], functions, matched, len(slots), wanted))
    if spec.get("functions", "all") == "listed":
        return matched
    return [f for f in functions if slot_of(f["address"]) in slots]


def functions_of(machine):
    """``machine['functions']`` once the document is one we can read; else ValueError."""
    if not isinstance(machine, dict) or machine.get("schema") != 2 or not isinstance(machine.get("functions"), list):
        raise ValueError(
            "the machine document is not one of schema 2 with a list of functions (found schema %r); "
            "pass what vfio.host.iommu_info returns as 'machine'"
            % (machine.get("schema") if isinstance(machine, dict) else machine)
        )
    return machine["functions"]


def check_spec(spec):
    """``(name, selector key)`` of a device entry in order; else ValueError."""
    if not isinstance(spec, dict):
        raise ValueError("a device entry must be a mapping with a name and a selector, not %r" % (spec,))
    name = spec.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the device entry %r has no name; give it one, guests refer to it" % (spec,))
    unknown = sorted(str(key) for key in spec if key not in KEYS)
    if unknown:
        raise ValueError(
            "device %s: unknown key%s %s; known keys are %s"
            % (name, "s" if len(unknown) > 1 else "", ", ".join(unknown), ", ".join(KEYS))
        )
    given = [key for key in SELECTORS if spec.get(key) is not None]
    if len(given) != 1:
        raise ValueError(
            "device %s: exactly one of %s selects it, found %s"
            % (name, ", ".join(SELECTORS), " and ".join(given) or "none")
        )
    if spec.get("functions", "all") not in ("all", "listed"):
        raise ValueError("device %s: functions is %r; it is all or listed" % (name, spec["functions"]))
    count = spec.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError("device %s: count is %r; it is a number of slots, 1 or more" % (name, count))
    return name, given[0]


def _matched(functions, name, selector, value, matcher):
    place = "device %s, %s" % (name, selector)
    if selector == "address":
        address = normalise(value, place)
        return [f for f in functions if address in (f["address"], slot_of(f["address"]))]
    if not isinstance(value, str):
        raise ValueError("%s: %r is not text; put the value in quotes" % (place, value))
    if selector == "id":
        identifier = value.strip().lower()
        if not _ID.match(identifier):
            raise ValueError("%s: %r is not an id; write vendor:device like 10de:1380" % (place, value))
        return [f for f in functions if f["id"] == identifier]
    try:
        addresses = {f["address"] for f in matcher(value, functions)}
    except ValueError as exc:
        raise ValueError("%s: %s" % (place, exc)) from exc
    return [f for f in functions if f["address"] in addresses]


def _miscount(name, selector, value, functions, matched, found, wanted):
    text = "device %s: %s %r selects %d device%s, wanted %d" % (
        name, selector, value, found, "" if found == 1 else "s", wanted)
    if found:
        hint = "tell them apart by address, or give count: %d if all of them are meant" % found
        rows = matched
    else:
        hint = "nothing on this machine matches"
        rows = [f for f in functions if not f.get("is_bridge")] or functions
    return "%s; %s. Candidates:\n%s" % (text, hint, candidates(rows))


def candidates(functions):
    """A table of functions as text: address, id, class, driver and the group's other members."""
    rows = [("ADDRESS", "ID", "CLASS", "DRIVER", "GROUP WITH")]
    for function in functions[:MAX_CANDIDATES]:
        others = [a for a in function.get("group_members") or [] if a != function["address"]]
        if not function["group_members"]:
            others = ["no group"]
        rows.append((
            function["address"],
            function["id"],
            function["class_name"],
            function.get("driver") or "-",
            " ".join(others) or "-",
        ))
    lines = table(rows)
    if len(functions) > MAX_CANDIDATES:
        lines.append("  ... and %d more" % (len(functions) - MAX_CANDIDATES))
    return "\n".join(lines)


def table(rows, indent="  "):
    """Lines with the columns of ``rows`` (equally long tuples of str) under one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip()
        for row in rows
    ]
