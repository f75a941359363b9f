# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""A plan as text for a terminal: what goes where, what stands against it, what to do next. Pure."""

from __future__ import annotations

import textwrap

from ansible_collections.vfio.host.plugins.module_utils._assignment.closure import Groups
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import functions_of, table

WIDTH = 100
"""Columns at most; a line of evidence is wrapped, a table row is not."""


def report(machine, plan):
    """List of lines of ASCII text without colours."""
    functions_of(machine)
    groups = Groups(machine)
    lines = [_headline(plan)]
    shown = []
    for device in plan["devices"]:
        findings = [f for f in plan["findings"] if f not in shown and _concerns(f, device["selected"])]
        shown += findings
        lines += [""] + _device(groups, device, findings)
    rest = [f for f in plan["findings"] if f not in shown]
    if rest:
        lines += ["", "The host"]
        for finding in rest:
            lines += _finding(finding)
    if plan.get("parameters") or plan.get("notes"):
        lines += ["", "The kernel command line"]
        lines += _wrap("+ " + " ".join(plan["parameters"])) if plan["parameters"] else ["  needs nothing"]
        for note in plan["notes"]:
            lines += _wrap("- " + note)
    return lines


def _concerns(finding, selected):
    return finding.get("device") in selected or any(a in selected for a in finding.get("group", ()))


def _headline(plan):
    refusals = sum(1 for f in plan["findings"] if f["severity"] == "refuse")
    what = "%s, %s for vfio-pci" % (_count(len(plan["devices"]), "device"),
                                    _count(len(plan["identities"]), "function"))
    if plan["refused"]:
        return "REFUSED: %s; %s stand%s against it" % (
            what, _count(refusals, "finding"), "s" if refusals == 1 else "")
    return "OK: %s" % what


def _count(number, noun):
    return "%d %s%s" % (number, noun, "" if number == 1 else "s")


def _device(groups, device, findings):
    refused = any(f["severity"] == "refuse" for f in findings)
    lines = ["%s: %s" % (device["name"], "REFUSED" if refused else "ok")]
    rows = [("address", "id", "class", "driver now", "name")]
    for address in device["selected"]:
        function = groups.functions[address]
        rows.append((
            address,
            function["id"],
            function["class_name"],
            function.get("driver") or "-",
            " ".join(str(function[key]) for key in ("vendor_name", "device_name") if function.get(key)) or "-",
        ))
    lines += table(rows)
    others = [a for a in device["group_members"] if a not in device["selected"] and a not in device["companions"]]
    if device["companions"]:
        lines.append("  %s group also has bridges, left alone: %s" % (
            device["confidence"], ", ".join(device["companions"])))
    if others:
        lines.append("  %s group also has: %s" % (device["confidence"], ", ".join(others)))
    if device["group_members"] and not others and not device["companions"]:
        lines.append("  %s group has nothing else" % device["confidence"])
    for finding in findings:
        lines += _finding(finding)
    return lines


def _finding(finding):
    head = "  %s %s %s%s" % (
        finding["severity"].upper(),
        finding["code"],
        "%s: " % finding["device"] if finding.get("device") else "",
        finding["title"],
    )
    lines = [head + (" (acknowledged)" if finding.get("acknowledged") else "")]
    for fact in finding["evidence"]:
        lines += _wrap("- " + fact)
    if finding["severity"] == "info" or finding.get("acknowledged"):
        return lines
    return lines + _wrap("-> %s [%s]" % (finding["remedy"], finding["docs"]))


def _wrap(text):
    mark = text.split(" ")[0]
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * (7 + len(mark)),
        break_long_words=False, break_on_hyphens=False,
    )
