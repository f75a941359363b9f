# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of findings and its pages."""

from __future__ import annotations

import os
import pathlib
import re

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings import devices, gpu, isolation, kernel, usage
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import DOCS, SEVERITIES, on_device, rank
from ansible_collections.vfio.host.plugins.module_utils._findings.rules import RULES, finding

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
PAGES = CHECKOUT / DOCS


def page(code):
    return (PAGES / (code + ".md")).read_text(encoding="utf-8")


def test_at_least_forty_codes_none_of_them_twice():
    codes = [entry["code"] for part in (isolation, usage, kernel, devices, gpu) for entry in part.RULES]
    assert len(codes) == len(set(codes)) == len(RULES) >= 40


def test_every_code_has_a_page_and_every_page_a_code():
    assert sorted(p.stem for p in PAGES.glob("VH*.md")) == sorted(RULES)


def test_the_index_has_every_code_with_its_title_and_severity():
    rows = re.findall(r"^\| \[(VH\d{3})\]\((VH\d{3})\.md\) \| (.*?) \| (\w+) \|$", page("README"), re.MULTILINE)
    assert rows == [(code, code, RULES[code]["title"], RULES[code]["severity"]) for code in sorted(RULES)]


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_page_says_what_how_why_and_what_to_do(code):
    entry, text = RULES[code], page(code)
    assert text.startswith("# %s: %s\n" % (code, entry["title"]))
    severity = "**%s**" % entry["severity"]
    if entry["severity"] != "info":
        severity += ", can be acknowledged" if entry["acknowledgeable"] else ", cannot be acknowledged"
    assert text.splitlines()[2] == severity
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What", "How we know", "Why it matters", "What to do"]
    for linked in re.findall(r"\]\((VH\d+)\.md\)", text):
        assert linked in RULES
    assert all(len(part.strip()) > 3 for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_finding_is_complete(code):
    made = finding(code, on_device("0000:01:00.0", "a fact"))
    assert set(made) == {"code", "severity", "device", "title", "evidence", "remedy", "docs", "acknowledged"}
    assert os.path.exists(CHECKOUT / made["docs"]) and made["severity"] in SEVERITIES
    assert all(made[key] for key in ("title", "remedy", "evidence")) and made["acknowledged"] is False
    assert made["remedy"].endswith(".") and not made["title"].endswith(".")


def test_isolation_cannot_be_acknowledged_and_usage_can():
    assert not any(RULES[code]["acknowledgeable"] for code in ("VH101", "VH102", "VH111", "VH112", "VH124"))
    assert all(entry["acknowledgeable"] for code, entry in RULES.items()
               if code.startswith("VH2") and entry["severity"] == "refuse")


def test_the_worst_comes_first():
    made = [finding(code, on_device(address, "a fact")) for code, address in (
        ("VH105", "0000:01:00.0"), ("VH103", "0000:01:00.0"), ("VH112", "0000:02:00.0"), ("VH112", "0000:01:00.0"))]
    assert [(f["code"], f["device"]) for f in sorted(made, key=rank)] == [
        ("VH112", "0000:01:00.0"), ("VH112", "0000:02:00.0"), ("VH103", "0000:01:00.0"), ("VH105", "0000:01:00.0")]
