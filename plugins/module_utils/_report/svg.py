# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The topology as SVG, to stand in a page whose style names its colors. Pure."""

from __future__ import annotations

import unicodedata
from html import escape

from ansible_collections.vfio.host.plugins.module_utils._report import layout, model

SIGNS = {
    "assignable": "M3 9l4 4 8-9",
    "card": "M3 9l4 4 8-9",
    "with_group": "M7 6H5a3.5 3.5 0 000 7h2M11 6h2a3.5 3.5 0 010 7h-2M6 9.5h6",
    "host_uses": "M2 9l7-6 7 6M4 8v7h10V8M8 15v-4h2v4",
    "never": "M9 2a7 7 0 100 14A7 7 0 009 2M4 4l10 10",
    "no_iommu": "M9 2l6 2v5c0 4-3 6-6 7-3-1-6-3-6-7V4zM4 14L15 3",
    "unknown": "M6 6a3 3 0 116 1c0 2-3 2-3 4M9 14v1",
    "open": "M8 5V3a3.5 3.5 0 017 0v2M3 8h9v7H3z",
}
"""Paths in a field of 18 by 18, drawn as strokes. ``open``: an open lock, for a bridge that does not isolate."""


def symbols():
    """Definitions of the signs, once in a page."""
    return '<svg width="0" height="0" class="defs" aria-hidden="true">%s</svg>' % "".join(
        '<symbol id="sign-%s" viewBox="0 0 18 18"><path d="%s"/></symbol>' % sign for sign in sorted(SIGNS.items())
    )


def sign(name, x=None, y=None):
    """One sign of 18 by 18; without a place, for use in a line of text."""
    use = '<use href="#sign-%s"/>' % name
    if x is None:
        return '<svg class="sign s-%s" width="18" height="18" viewBox="0 0 18 18" aria-hidden="true">%s</svg>' % (
            name,
            use,
        )
    return '<svg class="sign s-%s" x="%g" y="%g" width="18" height="18">%s</svg>' % (name, x, y, use)


def draw(audit, anchor):
    """The topology of a model.Audit. ``anchor(row)`` is the id of what says more about a row."""
    plan = layout.place(audit.rows, lambda row: _group_key(audit, row))
    parts = [
        '<svg class="topology" role="img" aria-labelledby="topology-title topology-desc" viewBox="0 0 %g %g" '
        'width="%g" height="%g">' % (plan["width"], plan["height"], plan["width"], plan["height"]),
        '<title id="topology-title">Topology of %s</title>' % escape(audit.name),
        '<desc id="topology-desc">%s in %s, as a tree from the root buses down. The tables below say the same '
        'in words.</desc>' % (model.count(len(audit.functions), "function"), model.count(len(audit.groups), "group")),
    ]
    by_key = {}
    for row in audit.rows:
        if row.functions:
            by_key.setdefault(_group_key(audit, row), row)
    pieces = {}
    for enclosure in plan["enclosures"]:
        pieces[enclosure["group"]] = pieces.get(enclosure["group"], 0) + 1
    for enclosure in plan["enclosures"]:
        parts.append(_enclosure(audit, enclosure, by_key[enclosure["group"]], pieces[enclosure["group"]]))
    parts += (
        ['<path class="rail" d="%s"/>' % " ".join("M%g %gL%g %g" % line for line in plan["lines"])]
        if plan["lines"]
        else []
    )
    for head in plan["heads"]:
        parts.append(
            '<g><rect class="root" x="%g" y="%g" width="%g" height="%g" rx="6"/>%s</g>'
            % (
                head["x"],
                head["y"],
                head["w"],
                head["h"],
                _text("bus " + head["row"].bus, head["x"] + 12, head["y"] + 20, 100, "mono strong"),
            )
        )
    for box in plan["boxes"]:
        parts.append(_box(audit, box, anchor(box["row"])))
    parts.append("</svg>")
    return "".join(parts)


def _group_key(audit, row):
    groups = [audit.group_of(address) for address in row.addresses]
    if None in groups:
        return None
    return (groups[0].label, groups[-1].label)


def _enclosure(audit, enclosure, row, pieces):
    group = audit.group_of(row.first["address"])
    one = len(row.functions) == 1 or len(group.members) > 1
    words = audit.group_cell(row)
    title = "%s %s%s" % ("Group" if one else "Groups", words, "" if group.actual else ", predicted")
    if one:
        title += ": " + model.listing([model.short(model.clean(a, 40)) for a in group.members], 12)
    classes = "group c%d%s" % (group.color, " predicted" if not group.actual else "")
    y = enclosure["y"]
    result = '<g><title>%s</title><rect class="%s" x="%g" y="%g" width="%g" height="%g" rx="8"/>' % (
        escape(title),
        classes,
        enclosure["x"],
        y,
        enclosure["w"],
        enclosure["h"],
    )
    middle = y + enclosure["h"] / 2.0
    label = ("group " if one else "groups ") + words
    result += _text(label, layout.RIGHT + 12, middle + (4 if pieces == 1 else -4), 128, "label t%d" % group.color)
    if pieces > 1:
        result += _text("in %d places" % pieces, layout.RIGHT + 12, middle + 11, 128, "small muted")
    return result + "</g>"


def _box(audit, box, target):
    row = box["row"]
    function = row.first
    x, y = box["x"], box["y"]
    bridge = function.get("is_bridge")
    open_port = model.open_port(function)
    word = audit.word(function)
    classes = "box bridge%s" % (" open" if open_port else "") if bridge else "box v-%s" % word
    content = ['<rect class="%s" x="%g" y="%g" width="%g" height="%g" rx="6"/>' % (classes, x, y, box["w"], box["h"])]
    if bridge:
        content += _bridge(row, x, y, box["w"], open_port)
    else:
        content += _endpoint(audit, row, x, y, box["w"], word)
    return '<a href="#%s"><title>%s</title>%s</a>' % (target, escape(tooltip(audit, row)), "".join(content))


def _bridge(row, x, y, width, open_port):
    function = row.first
    where = model.span(row.addresses)
    parts = [_text(where, x + 12, y + 20, 200, "mono strong")]
    at = x + 12 + _width(where, "mono") + 14
    words = [
        (
            model.count(len(row.functions), model.port_words(function))
            if len(row.functions) > 1
            else model.port_words(function)
        ),
        model.bus_words(function),
    ]
    line = ", ".join(word for word in words if word)
    right = x + width - (150 if open_port else 12)
    parts.append(_text(line, at, y + 20, right - at, ""))
    at += _width(line, "") + 14
    if right - at > 60:
        parts.append(_text(model.model_name(function), at, y + 20, right - at, "small muted"))
    if open_port:
        parts.append(sign("open", x + width - 140, y + 6))
        parts.append(_text("does not isolate", x + width - 12, y + 20, 200, "end s-open"))
    return parts


def _endpoint(audit, row, x, y, width, word):
    function = row.first
    where = model.span(row.addresses)
    if len(row.functions) > 1:
        where = "%d functions %s" % (len(row.functions), where)
    right = x + width - 132
    parts = [sign(word, x + 10, y + 6), _text(where, x + 36, y + 19, right - x - 40, "mono strong")]
    at = x + 36 + _width(where, "mono") + 12
    same = len({f["id"] for f in row.functions}) == 1
    name = model.model_name(function) if same else ""
    parts.append(_text(name or model.class_words(function), at, y + 19, right - at, ""))
    parts.append(_text(model.VERDICTS[word][0], x + width - 12, y + 19, 122, "strong end s-%s" % word))
    needed = model.uses(function)
    facts = [model.class_words(function)] if name else []
    facts.append(function["id"] if same else "vendor %s, several ids" % function["vendor"])
    if function.get("physfn"):
        facts.append("virtual")
    if function.get("driver"):
        facts.append("driver " + model.clean(function["driver"], 30))
    line = ", ".join(facts)
    parts.append(_text(line, x + 36, y + 36, width - 48, "small muted"))
    at = x + 36 + _width(line, "small") + 14
    if needed:
        parts.append(
            _text("needed for " + model.listing(needed, 3), at, y + 36, x + width - 12 - at, "small s-host_uses strong")
        )
    return parts


def tooltip(audit, row):
    """Some lines that say all about a row."""
    function = row.first
    lines = [
        "%s  %s" % (model.span(row.addresses), model.device_name(function)),
        "%s %s" % (model.class_words(function), function["id"]),
    ]
    group = audit.group_cell(row)
    lines.append("group %s" % group if group else "in no group")
    if function.get("is_bridge"):
        why = (function.get("isolates") or {}).get("why")
        lines += [model.clean(why)] if why else []
    else:
        lines.append("%s: %s" % model.VERDICTS[audit.word(function)])
        lines += [
            "%s: %s" % (model.clean(o["code"], 12), model.clean(o["text"], 160))
            for o in ((function.get("assignment") or {}).get("obstacles") or [])[:4]
        ]
    return "\n".join(lines)


def _width(text, classes):
    """Pixels that a text takes at most, nearly: the fonts are not ours to choose."""
    if "mono" in classes:
        return sum(15.0 if unicodedata.east_asian_width(c) in "WF" else 8.2 for c in text)
    size = (12.0 if "small" in classes else 13.5) * (1.1 if "strong" in classes else 1.0)
    return size * sum(_EM.get(c, 0.72 if c.isupper() else 0.62) if ord(c) < 0x250 else 1.05 for c in text)


_EM = dict(dict.fromkeys("WM@%mw", 1.0), **dict.fromkeys("ijl.,:;'|!() []/-ftr", 0.42))
"""Widths of letters in parts of the size, of the wide ones among the usual fonts."""


def _text(text, x, y, room, classes):
    """A line of text, cut where the room ends; the tooltip has it whole."""
    if room < 20 or not text:
        return ""
    if _width(text, classes) > room:
        while text and _width(text + "\N{HORIZONTAL ELLIPSIS}", classes) > room:
            text = text[:-1]
        text = text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return '<text x="%g" y="%g"%s>%s</text>' % (x, y, ' class="%s"' % classes if classes else "", escape(text))
