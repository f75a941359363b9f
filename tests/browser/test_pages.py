# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages in headless Chromium: how wide they are, what they load, whether their text can be read."""

from __future__ import annotations

import html as markup
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import pytest

from ansible_collections.vfio.host.plugins.module_utils._report import html, index
from ansible_collections.vfio.host.tests.unit import machines
from ansible_collections.vfio.host.tests.unit.report import documents, server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed")

MEASURE = """
<script>
for (const details of document.querySelectorAll("details")) details.open = true;
const luminance = rgb => { const [r, g, b] = rgb.map(v => { v /= 255;
  return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const parse = color => (color.match(/[\\d.]+/g) || []).map(Number);
const paper = element => { for (let e = element; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
let least = 99, where = "", texts = 0;
for (const e of document.body.querySelectorAll(":not(svg *):not(script)")) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  texts++;
  const one = luminance(parse(getComputedStyle(e).color).slice(0, 3)), other = luminance(paper(e));
  const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
  if (ratio < least) { least = ratio; where = e.outerHTML.slice(0, 120); }
}
const outside = [], drawing = document.querySelector(".topology");
for (const text of document.querySelectorAll(".topology text")) {
  const box = text.getBBox(), frame = (text.parentElement.querySelector("rect.box, rect.root") || drawing);
  const limits = frame === drawing ? {x: 0, width: drawing.viewBox.baseVal.width} : frame.getBBox();
  if (box.x < limits.x || box.x + box.width > limits.x + limits.width) outside.push(text.textContent);
}
const result = document.createElement("pre");
result.id = "measured";
result.textContent = JSON.stringify({
  inner: innerWidth, scroll: document.scrollingElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  page: getComputedStyle(document.body).backgroundColor, least, where, texts, outside,
  labels: [...document.querySelectorAll(".topology .label")].map(e => e.textContent),
  drawn: drawing && drawing.getBoundingClientRect().width,
  loaded: performance.getEntriesByType("resource").map(e => e.name),
});
parent.document.body.append(result);
</script>
"""

PAGES = {
    "listing1": lambda: html.page(documents.listing1(), "desk", index="index.html"),
    "scattered": lambda: html.page(documents.scattered(), "scattered"),
    "nothing": lambda: html.page(documents.nothing(), "container"),
    "hostile": lambda: html.page(documents.hostile(), documents.HOSTILE),
    "server": lambda: html.page(server.build(), "server"),
    "index": lambda: index.index(
        [
            {"name": "desk", "machine": documents.listing1(), "why": None, "page": True},
            {"name": "off", "machine": machines.build(), "why": None, "page": True},
            {"name": documents.HOSTILE, "machine": None, "why": documents.HOSTILE, "page": False},
        ]
    ),
}
LOOKS = {"phone": (360, "dark"), "desk": (1200, "light")}


def chromium(folder, path, scheme="light"):
    """``(dumped document, messages on the console)``"""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--user-data-dir=%s" % (folder / "profile"),
        "--window-size=1400,1000",
        "--enable-logging=stderr",
        "--blink-settings=preferredColorScheme=%d" % (scheme == "light"),
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=40,
        check=True,
        env=dict(os.environ, HOME=str(folder)),
    )
    return done.stdout.decode("utf-8"), [
        line for line in done.stderr.decode("utf-8", "replace").splitlines() if "CONSOLE" in line
    ]


def measure(folder, source, width=1200, scheme="light"):
    """What a copy of a page says of itself, in a frame of this width: a window may not be as narrow as a phone.

    The copy alone may run a script.
    """
    copy = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", source).replace(
        "</body>", MEASURE + "</body>"
    )
    path = folder / "measured.html"
    path.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>'
        '<iframe style="width:%dpx;height:900px;border:0" srcdoc="%s"></iframe></body>' % (width, markup.escape(copy)),
        encoding="utf-8",
    )
    dumped, console = chromium(folder, path, scheme)
    found = re.search('<pre id="measured">(.*?)</pre>', dumped, re.DOTALL)
    assert found, "the page's script did not run: %s" % console
    return dict(json.loads(markup.unescape(found.group(1))), console=console)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module", params=sorted(PAGES))
def measured(request, folder):
    source = PAGES[request.param]()
    return request.param, {look: measure(folder, source, *how) for look, how in LOOKS.items()}


def test_no_page_scrolls_sideways(measured):
    dummy, looks = measured
    for look, (width, dummy) in LOOKS.items():
        assert looks[look]["inner"] == width
        assert looks[look]["scroll"] <= width, look


def test_dark_and_light_differ_and_both_can_be_read(measured):
    dummy, looks = measured
    assert looks["phone"]["dark"] and not looks["desk"]["dark"]
    assert looks["phone"]["page"] != looks["desk"]["page"]
    for found in looks.values():
        assert found["texts"] >= 10 and found["least"] >= 4.5, found["where"]


def test_text_of_the_drawing_stays_in_its_box(measured):
    name, looks = measured
    for found in looks.values():
        assert found["outside"] == []
        if name not in ("index", "nothing"):
            assert found["drawn"] >= 850  # legible on a phone too: its box scrolls
    if name == "listing1":
        assert sorted(looks["desk"]["labels"]) == sorted("group %d" % number for number in range(15))


def test_nothing_is_loaded_and_the_console_is_silent(measured):
    dummy, looks = measured
    for found in looks.values():
        assert found["loaded"] == [] and found["console"] == []


@pytest.mark.parametrize("name", ["hostile", "index"])
def test_the_page_itself_breaks_no_rule_of_its_policy(name, folder):
    path = folder / "page.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    dumped, console = chromium(folder, path)
    assert console == [] and "</html>" in dumped


@pytest.fixture
def listener():
    """``(address, list of requested paths)`` of a server on this machine."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # the name that the standard library calls
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *dummy):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    yield "http://127.0.0.1:%d" % service.server_port, asked
    service.shutdown()
    service.server_close()
    thread.join()


def test_the_policy_would_stop_what_slipped_in(listener, folder):
    address, asked = listener
    smuggled = (
        '<img src="%s/image"><link rel="stylesheet" href="%s/style"><script src="%s/script"></script>'
        '<script>document.title = "run"</script>' % ((address,) * 3)
    )
    source = PAGES["nothing"]().replace("<main>", smuggled + "<main>")
    path = folder / "smuggled.html"
    path.write_text(source, encoding="utf-8")
    dumped, console = chromium(folder, path)
    assert asked == [] and "<title>run</title>" not in dumped and console
    # the control: without the policy the same page does ask, so the check above can fail
    path.write_text(re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", source), encoding="utf-8")
    dumped, dummy = chromium(folder, path)
    assert {"/image", "/style", "/script"} <= set(asked) and "<title>run</title>" in dumped
