# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps and saved documents through the filters, and tools/explain.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.vfio.host.plugins.filter import explain, group_changes, iommu_parameters, plan, report, select
from ansible_collections.vfio.host.plugins.filter import verify, what_if
from ansible_collections.vfio.host.tests.unit.hardware.fake_lspci import render
from ansible_collections.vfio.host.tests.unit.hardware.test_dump import DESK_GROUPS, desk
from ansible_collections.vfio.host.tests.unit.machines import build, p8h67_on

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CARD = {"name": "card", "address": "01:00"}


def tool(*arguments, stdin=None):
    """tools/explain.py, with nothing but the interpreter: no site-packages, no environment."""
    return subprocess.run([sys.executable, "-S", "-E", os.path.join(CHECKOUT, "tools", "explain.py"), *arguments],
                          input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, timeout=60)


def test_a_dump_becomes_a_document():
    machine = explain.explain("Help\n" + render(desk()), kernel="6.1.0")
    assert [group["members"] for group in machine["groups"]] == DESK_GROUPS
    assert machine["host"]["kernel"]["quirk_table"] == "6.1"


@pytest.mark.parametrize("text, options, words", [
    ("nothing here", {}, "of 12 characters has no line .* sudo lspci -D -xxxx > dump.txt"),
    ({"a": 1}, {}, "a dict is not the text of a dump"),
    (None, {}, "a NoneType is not the text of a dump"),
    ("x", {"firmware_table": "ACPI"}, "vfio.host.explain: firmware_table: 'ACPI' is no IOMMU table"),
    ("x", {"kernel": 6.1}, "vfio.host.explain: kernel: 6.1 is not text"),
])
def test_what_is_no_dump_is_an_error(text, options, words):
    with pytest.raises(AnsibleFilterError, match=words):
        explain.explain(text, **options)


@pytest.mark.parametrize("machine", [
    build(), p8h67_on(), explain.explain(render(desk())),
    what_if.what_if(build(), remove=["03:00"]),
], ids=["predicted", "actual", "explained", "what-if"])
def test_filters_take_a_saved_document_as_a_live_one(machine):
    saved = json.loads(json.dumps(machine))
    assert saved == machine
    for document in (machine, saved):
        made = plan.plan(document, [CARD])
        assert [entry["address"] for entry in made["identities"]] == ["0000:01:00.0", "0000:01:00.1"]
        assert report.report(made, document)
        assert [f["address"] for f in select.select_functions(document, CARD)] == ["0000:01:00.0", "0000:01:00.1"]
        assert verify.verify(document, made, [])
        assert iommu_parameters.iommu_parameters(document) is not None
        assert group_changes.group_changes(document, what_if.what_if(document)) == []
    assert plan.plan(saved, [CARD]) == plan.plan(machine, [CARD])


def test_a_plan_never_believes_the_override_patch():
    shown = what_if.what_if(build(), override_acs=["downstream", "multifunction"])
    made = plan.plan(shown, [dict(CARD, address="01:00.0", functions="listed")])
    refusal = next(finding for finding in made["findings"] if finding["code"] == "VH141")
    assert made["refused"] and refusal["severity"] == "refuse" and "0000:01:00.1" in " ".join(refusal["evidence"])


@pytest.mark.parametrize("machine", [{"machine": build()}, {"schema": 1, "functions": []}, "text", None])
def test_what_is_no_document_is_refused(machine):
    """A saved file is the document itself, not the module's whole result."""
    for call in (lambda: plan.plan(machine, [CARD]), lambda: select.select_functions(machine, CARD),
                 lambda: what_if.what_if(machine), lambda: group_changes.group_changes(build(), machine)):
        with pytest.raises(AnsibleFilterError, match="schema 2"):
            call()


def test_a_bad_assumption_names_the_filter():
    with pytest.raises(AnsibleFilterError, match=r"vfio.host.what_if: remove\[0\]: there is nothing in slot 0000:7f:00"):
        what_if.what_if(build(), remove=["7f:00"])


# -- make explain -----------------------------------------------------------------------------------


def test_the_tool_prints_the_report(tmp_path):
    dump = tmp_path / "dump.txt"
    dump.write_text(render(desk()), encoding="utf-8")
    page, document = str(tmp_path / "page.html"), str(tmp_path / "machine.json")
    done = tool(str(dump), "--kernel", "6.1", "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0000:01:00.0"[5:] in done.stdout and "not taken as root" not in done.stdout
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert tool("-", "--out", document, stdin=render(desk())).returncode == 0
    with open(document, encoding="utf-8") as handle:
        assert json.load(handle) == explain.explain(render(desk()))


def test_the_tool_tells_how_to_take_a_better_dump():
    done = tool("-", stdin=render(desk(), limit=64))
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("Take it again on that machine with: sudo lspci -D -xxxx > dump.txt")
    done = tool("-", stdin="hello")
    assert done.returncode == 1 and "sudo lspci -D -xxxx > dump.txt" in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["/nonexistent/dump.txt"], "No such file"),
    (["-", "--kernel", "newest"], "'newest' is no kernel release"),
    (["-", "--out", "page.pdf"], "page.pdf ends with neither"),
])
def test_the_tool_refuses_with_a_sentence(arguments, words):
    done = tool(*arguments, stdin=render(desk()))
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr
