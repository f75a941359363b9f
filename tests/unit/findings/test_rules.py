# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import re

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings.rules import DOCS, RULES, SEVERITIES, finding

PAGE = pathlib.Path(__file__).resolve().parents[3].joinpath(DOCS).read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (VH\d{3})\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_code_has_a_section_and_every_section_a_code():
    assert sorted(SECTIONS) == sorted(RULES)
    assert re.findall(r"^## (VH\d+)", PAGE, re.MULTILINE) == sorted(RULES)


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_section_says_what_why_and_what_to_do(code):
    rule, text = RULES[code], SECTIONS[code]
    assert rule["severity"] in SEVERITIES
    assert "**%s**" % rule["title"] in text
    severity = rule["severity"]
    if severity != "info":
        severity += ", can be acknowledged" if rule["acknowledgeable"] else ", cannot be acknowledged"
    assert "(%s)" % severity in text
    for part in ("What:", "Why:", "What to do:"):
        assert part in text


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_finding_is_complete(code):
    made = finding(code, ["a fact"], device="0000:01:00.0")
    assert set(made) == {"code", "severity", "device", "title", "evidence", "remedy", "docs", "acknowledged"}
    assert made["docs"] == "docs/findings.md#" + code.lower()
    assert all(made[key] for key in ("title", "remedy", "evidence")) and made["acknowledged"] is False


def test_isolation_cannot_be_acknowledged_and_usage_can():
    assert not any(RULES[code]["acknowledgeable"] for code in ("VH101", "VH102", "VH111", "VH112"))
    assert all(rule["acknowledgeable"] for code, rule in RULES.items() if code.startswith("VH2"))
