# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""One page for the hosts of a run, and what their files are called. Pure."""

from __future__ import annotations

import hashlib
import re

from ansible_collections.vfio.host.plugins.module_utils._report import html, model, svg
from ansible_collections.vfio.host.plugins.module_utils._report.model import Audit


def file_name(host, suffix):
    """Name of a host's file: its own where that is safe, else made safe, with what tells it from another's."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", host).lstrip(".")[:100]
    if safe != host or safe.lower() in ("", "index"):
        safe += "-" + hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return "%s.%s" % (safe, suffix)


def index(hosts):
    """The page as text.

    :param hosts: ``[{name, machine, why, page}]``; ``machine`` null where it could not be read, ``why`` says so then;
        ``page`` whether the host's own page was written.
    Hosts that could not be read come first, then those without an IOMMU, then by refusals and warnings.
    """
    entries = sorted((_entry(host) for host in hosts), key=lambda entry: entry["rank"])
    read = [entry for entry in entries if entry["audit"]]
    rows = [_row(entry) for entry in entries]
    sentences = [
        (
            "good" if len(read) == len(entries) else "bad",
            "%s: %d read, %d not." % (model.count(len(entries), "host"), len(read), len(entries) - len(read)),
        )
    ]
    on = sum(1 for entry in read if entry["audit"].active)
    sentences.append(
        (
            "plain",
            "The IOMMU is on on %d of them, and %s can be assigned there."
            % (on, model.count(sum(entry["free"] for entry in read if entry["audit"].active), "function")),
        )
    )
    headline = "".join(
        '<li class="%s">%s<span>%s</span></li>'
        % (tone, svg.sign(html.TONES[tone]) if tone in html.TONES else '<span class="sign"></span>', words)
        for tone, words in sentences
    )
    hosts_table = html.table(("host", "IOMMU", "can be assigned", "refusals", "warnings", "note"), rows)
    body = (
        '<header><h1>PCI audit</h1><ul class="headline">%s</ul></header><main><section aria-labelledby="h-hosts">'
        '<h2 id="h-hosts">Hosts</h2>%s</section></main>' % (headline, hosts_table)
    )
    return html.document("PCI audit of %s" % model.count(len(entries), "host"), body)


def _entry(host):
    name = str(host["name"])
    entry = {"name": name, "page": host.get("page"), "why": host.get("why"), "audit": None, "free": 0}
    if host.get("machine"):
        try:
            entry["audit"] = Audit(host["machine"], name)
        except ValueError as exc:
            entry["why"] = str(exc)
    if not entry["audit"]:
        entry["rank"] = (0, 0, 0, 0, name)
        return entry
    audit = entry["audit"]
    entry["free"] = sum(1 for function in audit.endpoints if audit.free(function))
    numbers = audit.severities()
    entry["rank"] = (1, int(audit.active), -numbers["refuse"], -numbers["warn"], name)
    return entry


def _row(entry):
    escaped = html.esc(entry["name"])
    audit = entry["audit"]
    if not audit:
        return [
            "<strong>%s</strong>" % escaped,
            svg.sign("never") + " not read",
            "",
            "",
            "",
            html.esc(entry["why"] or "the host gave no answer"),
        ]
    link = '<a href="%s">%s</a>' % (html.esc(file_name(entry["name"], "html")), escaped) if entry["page"] else escaped
    numbers = audit.severities()
    later = "" if audit.active or not entry["free"] else " once it is on"
    groups = "" if audit.active or not audit.groups else "groups are predicted"
    return [
        link,
        svg.sign("assignable" if audit.active else "no_iommu") + (" on" if audit.active else " off"),
        "%d of %d%s" % (entry["free"], len(audit.endpoints), later),
        str(numbers["refuse"]),
        str(numbers["warn"]),
        "; ".join(filter(None, (html.esc(audit.product), groups))),
    ]
