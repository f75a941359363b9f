# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The audit of one host as a page that needs nothing but itself: no script, no font, no picture from elsewhere. Pure.

Everything that comes from the machine goes through ``esc()``.
"""

from __future__ import annotations

import re
from html import escape

from ansible_collections.vfio.host.plugins.module_utils._report import model, svg
from ansible_collections.vfio.host.plugins.module_utils._report.model import Audit, clean, short
from ansible_collections.vfio.host.plugins.module_utils._report.style import STYLE

DOCS = "https://github.com/vfio-host/vfio.host/blob/main/"
DOCS_PATH = re.compile(r"^docs/findings/VH[0-9]{3}\.md$")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TONES = {"good": "assignable", "bad": "never", "careful": "unknown"}
WORDS = {"refuse": "refuse", "warn": "warning", "info": "for the record"}
PLACES = 12
"""So many places of one finding are open; the rest unfolds."""


def page(machine, name=None, plan=None, index=None):
    """The page as text. It is the same for the same document.

    :param plan: what vfio.host.plan made of the document, to show what is asked for.
    :param index: file name of the fleet's page, to link back to.
    ValueError for a document of another schema.
    """
    audit = Audit(machine, name)
    sections = [
        (
            "assign",
            "What can be assigned" if audit.active else "What could be assigned with the IOMMU on",
            _offers(audit),
        ),
        ("plan", "What is asked for", _plan(audit, plan)),
        ("topology", "Topology", _topology(audit)),
        ("findings", "Findings", _findings(audit)),
        ("groups", "IOMMU groups", _groups(audit)),
        ("functions", "Functions", _functions(audit)),
        ("missing", "What could not be read", _missing(audit)),
        ("machine", "The machine", _facts(audit)),
    ]
    sections = [section for section in sections if section[2]]
    navigation = "".join('<a href="#%s">%s</a>' % (anchor, words) for anchor, words, dummy in sections)
    body = [
        '<header>%s<h1>%s</h1>%s%s</header>'
        % (
            '<p class="back"><a href="%s">All hosts</a></p>' % esc(index) if index else "",
            esc(audit.name),
            '<p class="muted">%s</p>' % esc(audit.product) if audit.product and audit.product != audit.name else "",
            _headline(audit),
        ),
        '<nav aria-label="Sections">%s</nav>' % navigation,
        "<main>",
    ]
    body += [
        '<section id="%s" aria-labelledby="h-%s"><h2 id="h-%s">%s</h2>%s</section>'
        % (anchor, anchor, anchor, words, content)
        for anchor, words, content in sections
    ]
    body.append(
        "</main><footer>Made by vfio.host from the machine document of this host. It holds addresses and serial "
        "numbers; look before you share it.</footer>"
    )
    return document("%s: PCI audit" % audit.name, "".join(body))


def document(title, body):
    """A whole HTML document with our style and a policy that forbids it to load anything."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="%s">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        "<title>%s</title>\n<style>%s</style>\n</head>\n<body>\n%s\n%s\n</body>\n</html>\n"
        % (POLICY, esc(title), STYLE, svg.symbols(), body)
    )


def esc(value, longest=model.LONGEST):
    """Text of the machine's as HTML."""
    return escape(clean(value, longest))


def _anchor(row):
    return "f-%s" % re.sub("[^0-9a-f]", "-", row.first["address"])


def _headline(audit):
    items = [
        '<li class="%s">%s<span>%s</span></li>'
        % (tone, svg.sign(TONES[tone]) if tone in TONES else '<span class="sign"></span>', esc(text))
        for tone, text in audit.headline()
    ]
    return '<ul class="headline">%s</ul>' % "".join(items)


# what can be assigned, what is asked for


def _offers(audit):
    offers = audit.offers()
    if not offers:
        return "<p>Nothing. The findings say why, and what would change it.</p>"
    items = []
    for offer in offers:
        cards = [esc(model.span(card)) for card in offer["cards"]]
        where = "".join("<code>%s</code> " % card for card in cards[:6])
        if len(cards) > 6:
            where = '<details class="inline"><summary>%s <code>%s</code> to <code>%s</code></summary>%s</details>' % (
                model.count(len(cards), "device"),
                cards[0],
                cards[-1],
                "".join("<code>%s</code> " % card for card in cards),
            )
        text = esc(offer["what"])
        if len(cards) > 1:
            text = "each: " + text
        if offer["together"]:
            text += ' <strong>only together with %s</strong>' % esc(
                model.listing([short(a) for a in offer["together"]])
            )
        items.append('<li><div class="where">%s</div><div>%s</div></li>' % (where, text))
    return '<ul class="offers">%s</ul>' % "".join(items)


def _plan(audit, plan):
    if not plan:
        return ""
    rows = []
    for device in plan["devices"]:
        found = [f for f in plan["findings"] if f.get("device") in device["selected"] and f["severity"] == "refuse"]
        verdict = "refused: " + model.listing(sorted({clean(f["code"], 12) for f in found})) if found else "ok"
        rows.append([esc(device["name"]), _codes(device["selected"]), esc(verdict)])
    head = "<p>%s</p>" % (
        "The plan is refused; nothing would be changed." if plan["refused"] else "The plan can be carried out."
    )
    return head + table(("device", "functions", "verdict"), rows) + _finding_list(model.merged(plan["findings"]), {})


# topology


def _topology(audit):
    if not audit.rows:
        return ""
    used = [
        word
        for word in model.VERDICTS
        if any(row.functions and not row.first.get("is_bridge") and audit.word(row.first) == word for row in audit.rows)
    ]
    legend = [
        "<li>%s<span><strong>%s</strong>: %s</span></li>" % ((svg.sign(word),) + model.VERDICTS[word]) for word in used
    ]
    if any(row.functions and model.open_port(row.first) for row in audit.rows):
        legend.append(
            "<li>%s<span><strong>does not isolate</strong>: what is behind it can reach its neighbours past the "
            "IOMMU</span></li>" % svg.sign("open")
        )
    note = "Frames are IOMMU groups%s; a group goes to one guest as a whole or not at all." % (
        "" if audit.active else " as predicted (dashed)"
    )
    if not audit.active:
        note += " The verdicts are for the IOMMU turned on."
    return (
        '<p>%s Choose a box to read more.</p><ul class="legend">%s</ul>'
        '<div class="scroll" role="region" tabindex="0" aria-label="Topology, scrolls sideways">%s</div>'
        % (note, "".join(legend), svg.draw(audit, _anchor))
    )


# findings


def _findings(audit):
    if not audit.findings:
        return "<p>None.</p>"
    return _finding_list(audit.findings, {a: _anchor(row) for row in audit.rows for a in row.addresses})


def _finding_list(findings, anchors):
    return "".join(_finding(entry, anchors) for entry in findings)


def _finding(entry, anchors):
    finding = entry["finding"]
    severity = finding["severity"]
    places = ["<li>%s</li>" % _place(place, evidence, anchors) for place, evidence in entry["places"]]
    shown = "<ul>%s</ul>" % "".join(places[:PLACES])
    if len(places) > PLACES:
        shown += "<details><summary>and %d more</summary><ul>%s</ul></details>" % (
            len(places) - PLACES,
            "".join(places[PLACES:]),
        )
    notes = " (acknowledged)" if finding.get("acknowledged") else ""
    if len(places) > 1:
        notes += ' <span class="muted">in %d places</span>' % len(places)
    return (
        '<article class="finding %s"><h3><span class="tag">%s</span> %s %s%s</h3>%s'
        '<p class="remedy"><strong>What to do:</strong> %s %s</p></article>'
        % (
            severity,
            WORDS[severity],
            esc(finding["code"], 12),
            esc(finding["title"]),
            notes,
            shown,
            esc(finding["remedy"]),
            _docs(finding),
        )
    )


def _place(place, evidence, anchors):
    kind, what = place
    members = [what] if kind == "device" else what if kind == "group" else []
    if kind == "host":
        where = "the host (%s)" % esc(what, 40)
    else:
        where = "".join(_link(address, anchors) for address in members[:12])
        if len(members) > 12:
            where += "and %d more" % (len(members) - 12)
    facts = "".join("<li>%s</li>" % esc(fact) for fact in evidence)
    return "%s<ul>%s</ul>" % (where, facts)


def _link(address, anchors):
    text = "<code>%s</code> " % esc(short(str(address)), 60)
    return '<a href="#%s">%s</a>' % (anchors[address], text.strip()) + " " if address in anchors else text


def _docs(finding):
    path = str(finding.get("docs"))
    if not DOCS_PATH.match(path):
        return ""
    return '<a href="%s%s">More about %s</a>' % (DOCS, path, esc(finding["code"], 12))


# groups and functions


def _groups(audit):
    if not audit.groups:
        return ""
    several = [group for group in audit.groups if len(group.members) > 1 or group.partial]
    single = [group for group in audit.groups if group not in several]
    rows = [_group(audit, group) for group in several]
    text = table(("group", "members", "why"), rows) if rows else ""
    if single:
        text += "<details><summary>%s with one function each</summary>%s</details>" % (
            model.count(len(single), "group"),
            table(("group", "member", "why"), [_group(audit, group) for group in single]),
        )
    return text


def _group(audit, group):
    state = "the kernel's" if group.actual else "predicted"
    if group.partial:
        state = "cautious: not all was readable"
    members = []
    for address in group.members[:40]:
        function = audit.functions.get(address)
        words = (
            "no PCI function"
            if function is None
            else ("bridge" if function.get("is_bridge") else model.class_words(function))
        )
        members.append(
            "<li><code>%s</code> <span class=\"muted\">%s</span></li>" % (esc(short(str(address)), 60), esc(words))
        )
    if len(group.members) > 40:
        members.append("<li>and %d more</li>" % (len(group.members) - 40))
    reasons = "".join("<li>%s</li>" % esc(reason) for reason in list(group.reasons)[:12])
    if len(group.reasons) > 12:
        reasons += "<li>and %d more</li>" % (len(group.reasons) - 12)
    return [
        '<strong class="t%d">%s</strong><br><span class="muted">%s</span>' % (group.color, esc(group.label), state),
        "<ul>%s</ul>" % "".join(members),
        "<ul>%s</ul>" % reasons,
    ]


def _functions(audit):
    note = "" if audit.active else "<p>The verdicts are for the IOMMU turned on.</p>"
    functions = "".join(_function(audit, row) for row in audit.rows if row.functions)
    return note + functions if functions else ""


def _function(audit, row):
    function = row.first
    bridge = function.get("is_bridge")
    word = audit.word(function)
    if bridge:
        mark = svg.sign("open") if model.open_port(function) else '<span class="sign"></span>'
        verdict = "bridge"
    else:
        mark, verdict = svg.sign(word), model.VERDICTS[word][0]
    several = " (%d alike)" % len(row.functions) if len(row.functions) > 1 else ""
    summary = '%s<code>%s</code>%s <span class="name">%s</span> <span class="verdict s-%s">%s</span>' % (
        mark,
        esc(model.span(row.addresses)),
        several,
        esc(model.model_name(function) or model.class_words(function)),
        "" if bridge else word,
        verdict,
    )
    facts = _function_facts(audit, row)
    content = "<dl>%s</dl>" % "".join("<dt>%s</dt><dd>%s</dd>" % fact for fact in facts if fact[1])
    return '<details class="function"><summary>%s</summary><div id="%s">%s</div></details>' % (
        summary,
        _anchor(row),
        content,
    )


def _function_facts(audit, row):
    function = row.first
    assignment = function.get("assignment") or {}
    bridge = function.get("is_bridge")
    group = audit.group_cell(row)
    isolates = function.get("isolates") or {}
    link = function.get("link")
    reset = function.get("reset_methods")
    alike = len(row.functions) > 1
    obstacles = "".join(
        "<li>%s %s</li>" % (esc(o["code"], 12), esc(o["text"])) for o in assignment.get("obstacles") or []
    )
    needs = "".join(
        "<li>%s: %s</li>" % (esc(use["what"]), " &gt; ".join(esc(step, 80) for step in use["chain"]))
        for use in function.get("used_by") or []
    )
    usb = "".join(
        "<li>%s %s (%s)</li>" % (esc(d.get("id")), esc(d.get("product") or ""), esc(", ".join(d.get("kinds") or [])))
        for d in (function.get("usb_devices") or [])[:30]
    )
    holders = "".join(
        "<li>%s (pid %s) has %s</li>" % (esc(h.get("command"), 60), esc(h.get("pid"), 12), esc(h.get("node"), 80))
        for h in (function.get("holders") or [])[:20]
    )
    return [
        ("functions", _codes(row.addresses, 80) if alike else ""),
        ("name", esc(model.device_name(function))),
        (
            "id",
            "<code>%s</code>%s"
            % (
                esc(function["id"]),
                ", subsystem <code>%s:%s</code>"
                % (esc(function.get("subsystem_vendor")), esc(function.get("subsystem_device"))),
            ),
        ),
        ("class", esc("%s (%s)" % (model.class_words(function), function["class"]))),
        ("verdict", "" if bridge else esc("%s: %s" % model.VERDICTS[audit.word(function)])),
        ("in the way", "<ul>%s</ul>" % obstacles if obstacles and not bridge else ""),
        ("goes along", _codes(assignment.get("together_with") or []) if not alike else ""),
        ("needed for", "<ul>%s</ul>" % needs if needs else ""),
        ("held by", "<ul>%s</ul>" % holders if holders and not alike else ""),
        ("USB devices", "<ul>%s</ul>" % usb if usb and not alike else ""),
        ("group", esc("%s, %s" % (group, clean(function.get("confidence")))) if group else "none"),
        (
            "isolates",
            (
                esc(
                    "%s%s: %s"
                    % (
                        "yes" if isolates.get("answer") else "no",
                        "" if isolates.get("certain") else ", probably",
                        isolates.get("why"),
                    )
                )
                if isolates.get("answer") is not None
                else ""
            ),
        ),
        ("kind", esc((function.get("port_type") or "").replace("_", " "))),
        ("behind it", esc(model.bus_words(function)) if bridge else ""),
        ("driver", esc(function.get("driver") or "none")),
        ("virtual function of", esc(short(function["physfn"])) if function.get("physfn") else ""),
        ("reset", "" if bridge or reset is None else esc(", ".join(reset) or "none")),
        (
            "link",
            (
                esc(
                    "%s GT/s x%s of %s GT/s x%s"
                    % tuple(link.get(k) for k in ("speed", "width", "max_speed", "max_width"))
                )
                if link
                else ""
            ),
        ),
        ("NUMA node", esc(function.get("numa_node")) if function.get("numa_node") is not None else ""),
        ("serial number", esc(function["serial"]) if function.get("serial") and not alike else ""),
    ]


def _codes(addresses, most=24):
    addresses = list(addresses)
    text = " ".join("<code>%s</code>" % esc(short(str(address)), 60) for address in addresses[:most])
    return text + (" and %d more" % (len(addresses) - most) if len(addresses) > most else "")


# the rest


def _missing(audit):
    missing = audit.machine["source"].get("missing") or []
    if not missing:
        return ""
    items = ["<li><code>%s</code>: %s</li>" % (esc(entry["input"]), esc(entry["why"])) for entry in missing[:200]]
    if len(missing) > 200:
        items.append("<li>and %d more</li>" % (len(missing) - 200))
    text = "<ul>%s</ul>" % "".join(items)
    return (
        text
        if len(items) <= 12
        else "<details><summary>%s</summary>%s</details>" % (model.count(len(missing), "input"), text)
    )


def _facts(audit):
    return "<dl>%s</dl>" % "".join("<dt>%s</dt><dd>%s</dd>" % (what, esc(text)) for what, text in audit.facts())


def table(heads, rows):
    """A table whose rows become blocks on a phone; ``rows`` is HTML."""
    head = "".join('<th scope="col">%s</th>' % words for words in heads)
    body = "".join(
        "<tr>%s</tr>" % "".join('<td data-label="%s">%s</td>' % cell for cell in zip(heads, row)) for row in rows
    )
    return "<table><thead><tr>%s</tr></thead><tbody>%s</tbody></table>" % (head, body)
