# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit on a terminal: what it says, and that it stays readable."""

from __future__ import annotations

import json
import re

import pytest

from ansible_collections.vfio.host.plugins.module_utils._report import model, terminal
from ansible_collections.vfio.host.tests.unit import machines
from ansible_collections.vfio.host.tests.unit.report import documents, server


@pytest.fixture(scope="module")
def big():
    return server.build()


def tree(lines):
    """The lines of the tree by address: ``{address: line}``."""
    return {found.group(1): line for line in lines for found in [re.search(r"[+`]- ([0-9a-f]{2}:\S+)", line)] if found}


@pytest.mark.parametrize(
    "make", [documents.listing1, documents.scattered, documents.nothing, documents.hostile, server.build]
)
def test_lines_are_narrow_ascii_that_ansible_prints_as_they_are(make):
    lines = terminal.report(make(), "host")
    for line in lines:
        assert len(line) <= 100 and line.isascii() and line == line.rstrip(), line
        assert json.dumps(line) == '"%s"' % line


def test_headline_first_then_refusals():
    lines = terminal.report(documents.listing1(), "desk")
    assert lines[0] == "desk" and lines[3].startswith("The IOMMU is on (dmar0): active.")
    severities = [line.split()[0] for line in lines if re.match(r"  (REFUSE|WARN|INFO) VH", line)]
    assert "REFUSE" in severities and severities == sorted(severities, key=["REFUSE", "WARN", "INFO"].index)


def test_evidence_and_remedies_are_wrapped_and_not_cut():
    machine = documents.listing1()
    text = " ".join(" ".join(terminal.report(machine)).split())
    for finding in machine["findings"]:
        for sentence in [finding["remedy"]] + finding["evidence"]:
            assert " ".join(sentence.replace('"', "'").split()) in text


def test_off_says_so_and_marks_the_groups_as_predicted():
    text = "\n".join(terminal.report(machines.build()))
    assert "The IOMMU is off: the kernel's default is off." in text
    assert "15 IOMMU groups, predicted (P1 to P15)" in text and "once the IOMMU is on" in text
    assert "can be assigned now" not in text
    assert tree(text.splitlines())["03:00.0"].split()[1] == "P14"


def test_the_tree_has_verdict_group_and_use_beside_each_function():
    drawn = tree(terminal.report(documents.listing1()))
    assert drawn["01:00.0"].startswith("with its card      1  |  +- 01:00.0 vga")
    assert drawn["01:00.1"].startswith("with its card      1  |  `- 01:00.1 audio")
    assert "(does not isolate)" in drawn["00:01.0"] and "(does not isolate)" not in drawn["00:1c.0"]
    assert drawn["00:1f.2"].startswith("host uses") and "</>" in drawn["00:1f.2"]
    assert drawn["06:00.0"].startswith("assignable") and "|     `- 06:00.0" in drawn["06:00.0"]
    assert len(drawn) == 22


def test_what_can_be_assigned_has_cards_together_and_not_what_the_host_uses():
    lines = terminal.report(documents.listing1())
    start = lines.index("Can be assigned now")
    offers = "\n".join(lines[start : lines.index("", start)])
    assert "01:00.0-1  vga, audio" in offers and "03:00.0" in offers
    assert "00:1f" not in offers and "00:02.0" not in offers


def test_three_hundred_functions_stay_readable(big):
    assert len(big["functions"]) > 280
    lines = terminal.report(big)
    assert len(lines) < 270
    drawn = tree(lines)
    assert any("50:01.0 to 50:08.7 (64)" in line or "50:01.0 to 50:0c.7 (64)" in line for line in drawn.values())
    assert "(7)" in drawn["00:01.1-7"]
    # what differs stays on a line of its own
    assert "</>" in drawn["30:00.0"] and "SSH" in drawn["50:00.0"] and "ethernet" in drawn["50:00.1"]


def test_a_different_verdict_or_driver_ends_a_fold(big):
    changed = json.loads(json.dumps(big))
    machines.at(changed, "50:02.3")["driver"] = "vfio-pci"
    drawn = tree(terminal.report(changed))
    assert "[vfio-pci]" in drawn["50:02.3"] and "50:01.0" in "".join(drawn)
    machines.at(changed, "50:02.3")["driver"] = "iavf"
    machines.at(changed, "50:02.3")["assignment"] = {"verdict": "unknown", "obstacles": [], "together_with": []}
    assert tree(terminal.report(changed))["50:02.3"].startswith("unknown")


def test_every_function_is_in_exactly_one_row_even_below_itself():
    machine = documents.listing1()
    machines.at(machine, "00:1c.0")["parent"] = "0000:00:1c.5"
    machines.at(machine, "00:1c.5")["parent"] = "0000:00:1c.0"
    machines.at(machine, "00:1d.0")["parent"] = "0000:00:1d.0"
    machines.at(machine, "04:00.0")["parent"] = "0000:77:00.0"
    rows = model.Audit(machine).rows
    drawn = [address for row in rows for address in row.addresses]
    assert sorted(drawn) == sorted(f["address"] for f in machine["functions"])


def test_a_very_deep_tree_is_drawn():
    machine = documents.listing1()
    ports = ["0000:%02x:00.0" % number for number in range(0x40, 0xF0)]
    for number, address in enumerate(ports):
        port = dict(machines.at(machine, "00:1c.0"), address=address, parent=ports[number - 1] if number else None)
        machine["functions"].append(port)
    lines = terminal.report(machine)
    assert set(machines.full(a) for a in tree(lines)) >= set(ports)


def test_no_pci_at_all_is_said_first():
    lines = terminal.report(documents.nothing())
    assert "No PCI function can be seen here" in lines[3]
    text = " ".join(line.strip() for line in lines)
    assert "the firmware tables are not readable" in text and "/sys/bus/pci/devices: not there" in text
    assert "Functions" not in lines


def test_unknown_is_said():
    machine = machines.p8h67_on()
    machine["source"]["privileged"] = False
    machine["host"]["usage_unknown"] = ["disk"]
    machine["groups"][1]["confidence"] = "partial"
    text = " ".join(line.strip() for line in terminal.report(machine))
    assert "Read without root's rights" in text and "where the host has its disk from" in text
    assert "Marked with ?: 1 group" in text and " 1?  +- 00:01.0" in text
    assert "Marked with ?" not in " ".join(terminal.report(machines.p8h67_on()))


def test_alike_findings_are_one_with_many_places():
    finding = {
        "code": "VH130",
        "severity": "warn",
        "title": "A poor choice",
        "remedy": "Choose another.",
        "docs": "docs/findings/VH130.md",
        "acknowledged": False,
    }
    merged = model.merged(
        [
            dict(finding, device="0000:03:00.0", evidence=["a"]),
            dict(finding, device="0000:04:00.0", evidence=["b"]),
            dict(finding, device="0000:05:00.0", evidence=["c"], acknowledged=True),
            dict(finding, severity="refuse", host="iommu", evidence=["d"]),
        ]
    )
    assert [(entry["severity"], len(entry["places"])) for entry in merged] == [("refuse", 1), ("warn", 2), ("warn", 1)]


@pytest.mark.parametrize(
    "addresses, text",
    [
        (["0000:01:00.0"], "01:00.0"),
        (["0000:00:18.0", "0000:00:18.1", "0000:00:18.2"], "00:18.0-2"),
        (["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"], "00:1f.0,2,3"),
        (["0000:02:10.0", "0000:02:11.7"], "02:10.0 to 02:11.7"),
        (["10000:02:10.0"], "10000:02:10.0"),
    ],
)
def test_span(addresses, text):
    assert model.span(addresses) == text


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema"):
        terminal.report(dict(documents.listing1(), schema=1))
