# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages: well formed, complete, nothing from the machine becomes markup, nothing is loaded."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest

from ansible_collections.vfio.host.plugins.module_utils._report import html, index, saved, style
from ansible_collections.vfio.host.tests.unit import machines
from ansible_collections.vfio.host.tests.unit.report import documents, server

VOID = {"meta", "br", "link", "img", "input"}
TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "h1",
    "h2",
    "h3",
    "p",
    "a",
    "nav",
    "main",
    "section",
    "ul",
    "li",
    "div",
    "span",
    "strong",
    "code",
    "details",
    "summary",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "dl",
    "dt",
    "dd",
    "br",
    "article",
    "footer",
    "svg",
    "symbol",
    "path",
    "use",
    "g",
    "rect",
    "text",
    "desc",
}


class Page(HTMLParser):
    """Checks the nesting; collects tags, links, ids and text."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.links, self.ids, self.attributes, self.texts = [], [], [], [], set(), []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src"):
                self.links.append((tag, value))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def hosts():
    return [
        {"name": "off", "machine": machines.build(), "why": None, "page": True},
        {"name": "on", "machine": documents.listing1(), "why": None, "page": True},
        {"name": "quiet", "machine": machines.p8h67_on(), "why": None, "page": False},
        {"name": "gone", "machine": None, "why": "Connection refused", "page": True},
        {"name": documents.HOSTILE, "machine": documents.hostile(), "why": None, "page": True},
    ]


PAGES = {
    "listing1": lambda: html.page(documents.listing1(), "desk", index="index.html"),
    "off": lambda: html.page(machines.build()),
    "scattered": lambda: html.page(documents.scattered()),
    "nothing": lambda: html.page(documents.nothing()),
    "hostile": lambda: html.page(documents.hostile(), documents.HOSTILE),
    "server": lambda: html.page(server.build()),
    "index": lambda: index.index(hosts()),
}


@pytest.fixture(scope="module", params=sorted(PAGES))
def source(request):
    return PAGES[request.param]()


def test_page_is_well_formed_and_loads_nothing(source):
    page = Page(source)
    assert set(page.tags) <= TAGS
    assert not [
        name for name in page.attributes if name.startswith("on") or name in ("src", "srcset", "style", "xlink:href")
    ]
    for tag, link in page.links:
        assert (
            link.startswith("#")
            if tag == "use"
            else re.match(
                r"(#[\w-]+|[\w.-]+\.html|%sdocs/findings/VH\d{3}\.md)$" % re.escape(html.DOCS),
                link,
            )
        ), link
    assert "default-src 'none'" in source and "script" not in html.POLICY
    assert not re.search(r"url\(|@import|expression", source.split("</style>")[0])
    assert len(page.ids) == len(set(page.ids))
    missing = {link[1:] for dummy, link in page.links if link.startswith("#")} - set(page.ids)
    assert not missing


def test_page_is_utf8_without_characters_that_are_not_seen(source):
    source.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", source)


def test_hostile_names_stay_text():
    page = Page(PAGES["hostile"]())
    assert "script" not in page.tags and "<script>alert(1)</script>\"'&" in page.text
    assert "W" * 401 not in page.text


def test_every_function_group_and_finding_is_there():
    machine = documents.listing1()
    page = Page(PAGES["listing1"]())
    for function in machine["functions"]:
        assert "f-" + re.sub("[:.]", "-", function["address"]) in page.ids
        assert function["address"][5:] in page.text
    for finding in machine["findings"]:
        assert finding["code"] in page.text and finding["remedy"] in page.text
        assert all(" ".join(fact.split()) in page.text for fact in finding["evidence"])
    for group in machine["groups"]:
        assert "group %s " % group["number"] in page.text
        assert all(" ".join(reason.split()) in page.text for reason in group["reasons"])
    assert "needed for /" in page.text and "/dev/mapper/vg-root > sda3 > sda" in page.text
    assert page.text.count("does not isolate") >= 3


def test_predicted_groups_are_dashed_and_said_to_be_predicted():
    off, on = PAGES["off"](), PAGES["listing1"]()
    assert 'class="group c1 predicted"' in off and "as predicted (dashed)" in off and "What could be assigned" in off
    assert not re.search('class="group[^"]*predicted"', on) and "What could be assigned" not in on


def test_a_scattered_group_says_in_how_many_places_it_is():
    assert PAGES["scattered"]().count(">in 2 places</text>") == 2 and ">in 2 places</text>" not in PAGES["listing1"]()


def test_the_drawing_has_a_name_and_each_box_a_tooltip():
    drawing = re.search(r'<svg class="topology".*</svg>', PAGES["listing1"](), re.DOTALL).group()
    assert 'role="img"' in drawing and "<title id=\"topology-title\">Topology of desk</title>" in drawing
    boxes = re.findall(r'<a href="#f-[^"]+"><title>([^<]+)</title>', drawing)
    assert len(boxes) == 22 and all("group" in text for text in boxes)


def test_missing_inputs_are_named():
    assert "/sys/bus/pci/devices : not there" in Page(PAGES["nothing"]()).text


def test_a_plan_is_shown():
    finding = {
        "code": "VH201",
        "severity": "refuse",
        "device": "0000:00:1f.2",
        "title": "In use",
        "evidence": ["/ is there"],
        "remedy": "Leave it.",
        "docs": "docs/findings/VH201.md",
        "acknowledged": False,
    }
    plan = {
        "devices": [{"name": "disks", "selected": ["0000:00:1f.2"]}, {"name": "card", "selected": ["0000:03:00.0"]}],
        "findings": [finding],
        "refused": True,
    }
    page = Page(html.page(documents.listing1(), plan=plan))
    assert "disks 00:1f.2 refused: VH201 card 03:00.0 ok" in page.text and "The plan is refused" in page.text


def test_a_server_is_small_and_quick():
    machine = server.build()
    start = time.process_time()
    source = html.page(machine)
    assert time.process_time() - start < 2
    assert len(source.encode()) < 1000000
    assert "64 functions" in source


def test_the_same_document_gives_the_same_page():
    assert PAGES["listing1"]() == PAGES["listing1"]()


def test_saved_document_leaves_out_what_changes_by_itself():
    machine, later = documents.listing1(), documents.listing1()
    later["host"]["memory"]["available"] -= 12345678
    later["functions"][3]["power_state"] = "D3hot"
    assert saved.text(machine) == saved.text(later)
    later["functions"][3]["driver"] = "nouveau"
    assert saved.text(machine) != saved.text(later)
    again = json.loads(saved.text(machine))
    assert html.page(again) == html.page(machine)
    assert machine["host"]["memory"]["available"] is not None


# colors


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255.0 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colors", [style.LIGHT, style.DARK])
def test_contrast_of_everything_that_is_written(colors):
    papers = ["page", "paper"]
    pairs = [
        (ink, paper) for ink in ("ink", "muted", "link", "good", "bad", "warn", "host", "grey") for paper in papers
    ]
    pairs += [("ink", kind + "-paper") for kind in ("good", "bad", "warn", "host")]
    pairs += [("bad", "bad-paper"), ("warn", "warn-paper"), ("host", "host-paper"), ("muted", "host-paper")]
    pairs += [(ink, "bridge") for ink in ("ink", "muted", "warn")]
    pairs += [("c%d" % n, paper) for n in range(1, 7) for paper in ("paper", "p%d" % n)] + [
        ("muted", "p%d" % n) for n in range(1, 7)
    ]
    assert {
        pair: round(contrast(colors[pair[0]], colors[pair[1]]), 2)
        for pair in pairs
        if contrast(colors[pair[0]], colors[pair[1]]) < 4.5
    } == {}


# the fleet


def test_index_has_the_worst_first_and_links_only_to_pages():
    source = index.index(hosts()[:4])
    rows = re.findall(r"<tr>(.*?)</tr>", source.split("<tbody>")[1])
    assert [re.search("gone|off|on|quiet", Page("<table>%s</table>" % row).text).group() for row in rows] == [
        "gone",
        "off",
        "on",
        "quiet",
    ]
    assert "not read" in rows[0] and "Connection refused" in rows[0] and "href=\"gone" not in rows[0]
    assert 'href="off.html"' in rows[1] and "once it is on" in rows[1] and "groups are predicted" in rows[1]
    assert 'href="on.html"' in rows[2] and "predicted" not in rows[2]
    assert ".html" not in rows[3]
    assert "4 hosts: 3 read, 1 not." in source


def test_index_names_a_document_that_it_cannot_read():
    source = index.index([{"name": "old", "machine": dict(documents.listing1(), schema=1), "why": None, "page": True}])
    assert "not read" in source and "schema" in source


@pytest.mark.parametrize("host, name", [("desk1", "desk1.html"), ("web-1.example.net", "web-1.example.net.html")])
def test_a_plain_name_is_its_own_file(host, name):
    assert index.file_name(host, "html") == name


@pytest.mark.parametrize(
    "host", ["../../etc/x", "/etc/passwd", "..", ".", "", "index", "Index", "a b", "-\n", "x" * 300, "\ud800"]
)
def test_a_dangerous_name_becomes_a_safe_one(host):
    name = index.file_name(host, "html")
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.html", name) and name.lower() != "index.html" and len(name) < 130


def test_different_hosts_have_different_files():
    names = ["a b", "a_b", "a/b", "../a", "a", ".a", "index"]
    assert len({index.file_name(name, "html") for name in names}) == len(names)
