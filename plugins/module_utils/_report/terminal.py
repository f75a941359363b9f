# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The audit as lines for a terminal. Pure.

Plain ASCII without double quotes and backslashes, so that the lines look the same when Ansible prints them as JSON.
"""

from __future__ import annotations

import textwrap

from ansible_collections.vfio.host.plugins.module_utils._report import model
from ansible_collections.vfio.host.plugins.module_utils._report.model import Audit, short

WIDTH = 100
PLACES = 8
"""So many functions of one finding get their evidence; the rest are named."""


def report(machine, name=None):
    """List of lines, at most WIDTH columns each. ValueError for a document of another schema."""
    audit = Audit(machine, name)
    lines = [audit.name, "=" * min(len(audit.name), WIDTH), ""]
    for dummy, sentence in audit.headline():
        lines += _wrap(sentence, "", "  ")
    lines += _assignable(audit) + _tree(audit) + _groups(audit) + _findings(audit) + _missing(audit)
    return [_ascii(line) for line in lines]


def _ascii(line):
    return (
        model.clean(line, WIDTH)
        .encode("ascii", "replace")
        .decode("ascii")
        .replace('"', "'")
        .replace("\\", "/")
        .rstrip()
    )


def _wrap(sentence, first, rest):
    return textwrap.wrap(sentence, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [
        first
    ]


def _heading(words):
    return ["", words, "-" * len(words)]


def _assignable(audit):
    offers = audit.offers()
    lines = _heading("Can be assigned now" if audit.active else "Could be assigned with the IOMMU on") if offers else []
    for offer in offers:
        where = model.listing([model.span(card) for card in offer["cards"]], 24)
        words = "%s  %s" % (where, offer["what"])
        if len(offer["cards"]) > 1:
            words = "%s  each: %s" % (where, offer["what"])
        if offer["together"]:
            words += "; only together with %s" % model.listing([short(a) for a in offer["together"]])
        lines += _wrap(words, "  ", "      ")
    return lines


# the tree


def _tree(audit):
    if not audit.rows:
        return []
    width = max(5, max(len(audit.group_cell(row)) for row in audit.rows if row.functions))
    lines = _heading("Functions" if audit.active else "Functions (the verdicts are for the IOMMU turned on)") + [
        "%-13s  %*s" % ("verdict", width, "group")
    ]
    for row in audit.rows:
        if row.bus is not None:
            lines.append("%s[%s]" % (" " * (width + 17), row.bus))
            continue
        head = "%-13s  %*s  " % (_verdict(audit, row), width, audit.group_cell(row))
        branch = "".join("|  " if goes_on else "   " for goes_on in row.open) + ("`- " if row.last else "+- ")
        line = head + branch + _label(row)
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 3] + "...")
    return lines


def _verdict(audit, row):
    if row.first.get("is_bridge"):
        return "-"
    return model.VERDICTS[audit.word(row.first)][0]


def _label(row):
    function = row.first
    parts = [model.span(row.addresses)]
    if len(row.functions) > 1:
        parts.append("(%d)" % len(row.functions))
    if function.get("is_bridge"):
        behind = model.bus_words(function)
        if behind:
            parts[0] += "-[%s]" % behind.split(" ")[1]
        parts.append(model.port_words(function))
        if model.open_port(function):
            parts.append("(does not isolate)")
    else:
        parts.append(model.class_words(function))
        needed = model.uses(function)
        if needed:
            parts.append("<%s>" % model.listing(needed, 2))
        if function.get("driver"):
            parts.append("[%s]" % model.clean(function["driver"], 30))
    ids = {f["id"] for f in row.functions}
    parts.append(function["id"] if len(ids) == 1 else "%s:..." % function["vendor"])
    if len(ids) == 1:
        parts.append(model.model_name(function))
    return " ".join(part for part in parts if part)


# groups


def _groups(audit):
    """Groups that tie several functions together, or that say something is not known, with their reasons."""
    shown = [g for g in audit.groups if g.partial or len([a for a in g.members if not _bridge(audit, a)]) > 1]
    if not shown:
        return []
    lines = _heading("Groups of several functions")
    for group in shown:
        members = [short(model.clean(a, 40)) + (" (bridge)" if _bridge(audit, a) else "") for a in group.members]
        lines += _wrap(
            "%s%s: %s" % (group.label, "?" if group.partial else "", model.listing(members, 16)), "  ", "      "
        )
        for reason in list(group.reasons)[:PLACES]:
            lines += _wrap("- " + model.clean(reason), "      ", "        ")
        if len(group.reasons) > PLACES:
            lines.append("      - and %s more" % model.count(len(group.reasons) - PLACES, "reason"))
    return lines


def _bridge(audit, address):
    return bool(audit.functions.get(address, {}).get("is_bridge"))


# findings


def _findings(audit):
    if not audit.findings:
        return []
    lines = _heading("Findings")
    for entry in audit.findings:
        lines += _finding(entry)
    return lines


def _finding(entry):
    finding, places = entry["finding"], entry["places"]
    head = "%s %s: %s" % (finding["severity"].upper(), finding["code"], model.clean(finding["title"]))
    if finding.get("acknowledged"):
        head += " (acknowledged)"
    if len(places) > 1:
        head += " (%d times)" % len(places)
    lines = _wrap(head, "  ", "    ")
    for place, evidence in places[:PLACES]:
        where = place_words(place)
        if len(places) > 1 or not any(where in fact for fact in evidence):
            lines += _wrap(where, "    ", "      ")
        for fact in evidence:
            lines += _wrap("- " + model.clean(fact), "      ", "        ")
    if len(places) > PLACES:
        rest = model.listing([place_words(place) for place, dummy in places[PLACES:]], 40)
        lines += _wrap("also: " + rest, "    ", "      ")
    lines += _wrap(
        "-> %s [%s]" % (model.clean(finding["remedy"]), model.clean(finding["docs"], 60)), "      ", "         "
    )
    return lines


def place_words(place):
    """``01:00.0``, ``the group of 00:01.0, 01:00.0``, ``the host (memory)``"""
    kind, what = place
    if kind == "device":
        return short(model.clean(what, 40))
    if kind == "group":
        return "the group of %s" % model.listing([short(model.clean(a, 40)) for a in what], 6)
    return "the host (%s)" % model.clean(what, 40)


def _missing(audit):
    missing = audit.machine["source"].get("missing") or []
    if not missing:
        return []
    lines = _heading("Not readable")
    for entry in missing[:20]:
        lines += _wrap("- %s: %s" % (model.clean(entry["input"]), model.clean(entry["why"])), "  ", "    ")
    if len(missing) > 20:
        lines.append("  - and %d more; the JSON file has them all" % (len(missing) - 20))
    return lines
