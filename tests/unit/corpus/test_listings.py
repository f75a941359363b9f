# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published listings of real machines: the groups that the probe predicts before the IOMMU is on, and the advice."""

from __future__ import annotations

import os
import re

import pytest

from ansible_collections.vfio.host.plugins.module_utils._assignment import plan
from ansible_collections.vfio.host.plugins.module_utils._assignment.what_if import what_if
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, prediction, quirks
from ansible_collections.vfio.host.plugins.plugin_utils import _jmespath
from ansible_collections.vfio.host.tests.unit.corpus import listings

NUMBERS = listings.numbers()
STATES = {"off": False, "on": True}
CASES = {number: listings.load(number) for number in NUMBERS}
KERNEL_LISTED = (1, 17, 18, 24)
WITHOUT_PCI_GROUPS = (35,)
"""Listings whose groups hold no PCI function."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """``(number, variant name or None, state) -> machine document``, each made once."""
    made = {}

    def get(number, variant, state):
        key = (number, variant, state)
        if key not in made:
            case = CASES[number]
            if variant:
                case = listings.change(case, next(v for v in case["variants"] if v["name"] == variant))
            made[key] = listings.document(case, tmp_path_factory.mktemp("listing"), STATES[state])
        return made[key]

    return get


def sets(groups):
    return {frozenset(group["members"]) for group in groups}


def held(case, groups):
    """Of the groups, those that the listing speaks of: all of them when it is complete."""
    named = set().union(*listings.compared(case))
    return {group for group in sets(groups) if case["given"]["complete"] or group & named}


# -- groups ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in WITHOUT_PCI_GROUPS])
def test_the_groups_are_predicted(documents, number, state):
    machine = documents(number, None, state)
    assert held(CASES[number], machine["predicted_groups"]) == listings.compared(CASES[number])
    assert {group["confidence"] for group in machine["predicted_groups"]} == {"predicted"}


def test_the_first_listing_group_by_group(documents):
    machine = documents(1, None, "off")
    listed = [[listings.full(a) for a in members] for members in CASES[1]["given"]["groups"].values()]
    assert len(listed) == 15
    assert [group["members"] for group in sorted(machine["groups"], key=lambda g: listed.index(g["members"]))] == listed


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in WITHOUT_PCI_GROUPS])
def test_which_groups_decide(documents, number):
    off, on = documents(number, None, "off"), documents(number, None, "on")
    assert {group["source"] for group in off["groups"]} == {"predicted"} and not off["host"]["iommu"]["active"]
    assert {group["source"] for group in on["groups"]} == {"actual"} and on["host"]["iommu"]["active"]
    listed = {n: sorted(m) for n, m in listings.group_sets(CASES[number]).items()}
    assert {group["number"]: group["members"] for group in on["groups"]} == listed


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in WITHOUT_PCI_GROUPS])
def test_no_disagreement_is_reported_where_there_is_none(documents, number):
    assert not [f for f in documents(number, None, "on")["findings"] if f["code"] == "VH108"]


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in WITHOUT_PCI_GROUPS])
def test_every_group_says_why(documents, number):
    for state in STATES:
        assert all(group["reasons"] for group in documents(number, None, state)["groups"])


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in KERNEL_LISTED])
def test_the_inferred_kernel_decides_nothing(documents, number):
    """Where a case infers a kernel, any other one gives the same groups."""
    machine = documents(number, None, "off")
    for series in quirks.SERIES:
        functions = [dict(function) for function in machine["functions"]]
        groups = prediction.predict(functions, dict(acs.of_machine(machine), kernel=series))
        assert sets(groups) == sets(machine["predicted_groups"]), series


# -- one fact flipped --------------------------------------------------------------------------------


def flipped(number, folder, **facts):
    return listings.document(listings.flip(CASES[number], **facts), folder, False)


def group_of(machine, address):
    groups = [group for group in machine["groups"] if listings.full(address) in group["members"]]
    return groups[0]["members"] if groups else None


@pytest.mark.parametrize("number, switched", [(7, True), (8, False), (14, True), (15, False)])
def test_the_firmware_setting_makes_one_listing_of_the_other(documents, tmp_path, number, switched):
    other = {7: 8, 8: 7, 14: 15, 15: 14}[number]
    machine, wanted = flipped(number, tmp_path, firmware_acs=switched), documents(other, None, "off")
    common = {address for address in functions(machine) if address.startswith("0000:00:")} & set(functions(wanted))
    assert len(common) > 5

    def parts(groups):
        return {frozenset(common.intersection(group["members"])) for group in groups} - {frozenset()}

    assert parts(machine["groups"]) == parts(wanted["groups"])
    assert parts(machine["groups"]) != parts(documents(number, None, "off")["groups"])


@pytest.mark.parametrize("number, one, other", [
    (7, "23:00.0", "24:00.0"),
    (8, "26:00.0", "27:00.0"),
    (14, "01:00.0", "04:00.0"),
])
def test_the_firmware_setting_parts_the_cards(tmp_path, number, one, other):
    for switched in (False, True):
        folder = tmp_path / str(switched)
        folder.mkdir()
        machine = flipped(number, folder, firmware_acs=switched)
        assert (group_of(machine, one) != group_of(machine, other)) == switched


@pytest.mark.parametrize("release, like", [("5.8.0", 18), ("5.9.16", 18), ("5.10.0", 17), ("6.12.15", 17)])
def test_the_kernel_makes_one_listing_of_the_other(tmp_path, release, like):
    machine = flipped(17, tmp_path, kernel=release)
    assert held(CASES[like], machine["predicted_groups"]) == listings.compared(CASES[like])


# -- advice ------------------------------------------------------------------------------------------


def said():
    """Every expectation of every case: before the IOMMU is on and after, unless it is about one of these states."""
    for number in NUMBERS:
        case = CASES[number]
        sources = [(None, line["text"], line["expect"]) for line in case["advice"]]
        sources += [(variant["name"], variant["why"], variant["expect"]) for variant in case.get("variants", ())]
        for variant, text, expectations in sources:
            for expected in expectations:
                for state in [expected["state"]] if "state" in expected else STATES:
                    name = "%02d-%s-%s" % (number, state, re.sub(r"[^0-9A-Za-z]+", "_", str(expected))[:60])
                    pending = expected.get("pending")
                    marks = [pytest.mark.xfail(strict=True, reason=pending)] if pending else []
                    yield pytest.param(number, variant, state, text, expected, id=name, marks=marks)


@pytest.mark.parametrize("number, variant, state, text, expected", list(said()))
def test_advice(documents, number, variant, state, text, expected):
    kind = next(key for key in CHECKS if key in expected)
    CHECKS[kind](documents(number, variant, state), expected)


def functions(machine):
    return {function["address"]: function for function in machine["functions"]}


def texts(found):
    place = [found.get("device") or "", found.get("host") or ""] + list(found.get("group") or ())
    return " ".join(place + [found["title"], found["remedy"]] + found["evidence"])


def make_plan(machine, devices, functions="all"):
    entries = []
    for number, addresses in enumerate(devices):
        words = ", ".join('"%s"' % listings.full(address) for address in addresses)
        entries.append({"name": "device%d" % number, "match": "contains(`[%s]`, address)" % words,
                        "count": len({address[:-2] for address in addresses}), "functions": functions})
    return plan.make_plan(machine, entries, [], _jmespath.matching)


def assignable(machine, expected):
    """Nothing stands against these, which are all that has to go together; a plan of them is not refused."""
    wanted = {listings.full(address) for address in expected["assignable"]}
    for address in wanted:
        judged = functions(machine)[address]["assignment"]
        assert judged["verdict"] == "assignable", judged
        card = {listings.full(other) for other in expected.get("same_card", ())}
        assert set(judged["together_with"]) == wanted - {address} | card
        if expected.get("alone_in_group"):
            assert group_of(machine, address) == [address]
    made = make_plan(machine, [sorted(wanted)], "listed")
    assert not made["refused"], made["findings"]
    assert {identity["address"] for identity in made["identities"]} == wanted


def verdict(machine, expected):
    for address in expected["of"]:
        assert functions(machine)[listings.full(address)]["assignment"]["verdict"] in expected["verdict"]


def finding(machine, expected):
    """One finding of the code has all the words."""
    found = [texts(f) for f in machine["findings"] if f["code"] == expected["finding"]]
    words = [listings.full(word) for word in expected.get("says", ())]
    assert any(all(has_word(text, word) for word in words) for text in found), found


def has_word(text, word):
    """``0000:00:01.1`` is also said by naming the slot with the port: 0000:00:01 with 'any port of'."""
    if word in text:
        return True
    return bool(listings.ADDRESS.match(word) and re.search(r"any port of [^.]*%s(?![.0-9a-f])" % word[:-2], text))


def no_finding(machine, expected):
    assert not [f for f in machine["findings"] if f["code"] == expected["no_finding"]]


def planned(machine, expected):
    made = make_plan(machine, expected["plan"], expected.get("functions", "all"))
    assert made["refused"] == expected["refused"]
    assert set(expected["codes"]) <= {f["code"] for f in made["findings"]}


def planned_without(machine, expected):
    made = make_plan(machine, expected["plan_without"])
    assert expected["code"] not in {f["code"] for f in made["findings"]}


def companions(machine, expected):
    made = make_plan(machine, [[expected["companions"]]])
    assert made["devices"][0]["companions"] == [listings.full(address) for address in expected["are"]]


def reason(machine, expected):
    address = listings.full(expected["reason"])
    text = " ".join(next(group["reasons"] for group in machine["groups"] if address in group["members"]))
    assert all(listings.full(word) in text for word in expected["says"]), text


def together(machine, expected):
    judged = functions(machine)[listings.full(expected["together"])]["assignment"]
    assert {listings.full(address) for address in expected["with"]} <= set(judged["together_with"])


def only_bridges(machine, expected):
    members = group_of(machine, expected["only_bridges"][0])
    assert members == [listings.full(address) for address in expected["only_bridges"]]
    for address in members:
        judged = functions(machine)[address]["assignment"]
        assert judged["verdict"] == "never" and not judged["together_with"]
        assert make_plan(machine, [[address]])["refused"]


def separate(machine, expected):
    groups = [tuple(group_of(machine, address)) for address in expected["separate"]]
    assert len(set(groups)) == len(groups)


def same_group(machine, expected):
    assert group_of(machine, expected["group_of"]) == [listings.full(address) for address in expected["is"]]


def supposed(machine, expected):
    """What the what-if filter says: group_of has these members, and so many cards are behind its ports."""
    after = what_if(machine, expected["what_if"])
    members = group_of(after, expected["group_of"])
    assert {listings.full(address) for address in expected["has"]} <= set(members)
    slots = {a.rpartition(".")[0] for a in members if not functions(after)[a]["is_bridge"]}
    assert len(slots) == expected["cards"]
    assert group_of(machine, expected["group_of"]) != members


def page(dummy, expected):
    path = os.path.join(listings.CHECKOUT, "docs", "findings", expected["page"] + ".md")
    with open(path, encoding="utf-8") as handle:
        text = " ".join(handle.read().split())
    assert all(word in text for word in expected["says"]), [word for word in expected["says"] if word not in text]


def numbers_do_not_matter(machine, dummy):
    """No finding and no reason names a group by its number: with other numbers all is as it was."""
    parts = [f["evidence"] + [f["title"], f["remedy"]] for f in machine["findings"]]
    parts += [group["reasons"] for group in machine["groups"]]
    for group in machine["groups"]:
        if group["number"] is not None:
            assert not re.search(r"\bgroup %s\b" % group["number"], " ".join(text for part in parts for text in part))


def iommu_active(machine, expected):
    assert machine["host"]["iommu"]["active"] is expected["iommu_active"]


def no_group(machine, expected):
    for address in expected["no_group"]:
        assert functions(machine)[listings.full(address)]["group"] is None
    assert not [group for group in machine["groups"] if group["source"] == "actual"]


CHECKS = {
    "what_if": supposed,
    "assignable": assignable,
    "verdict": verdict,
    "finding": finding,
    "no_finding": no_finding,
    "plan": planned,
    "plan_without": planned_without,
    "companions": companions,
    "reason": reason,
    "together": together,
    "only_bridges": only_bridges,
    "separate": separate,
    "group_of": same_group,
    "page": page,
    "numbers_do_not_matter": numbers_do_not_matter,
    "iommu_active": iommu_active,
    "no_group": no_group,
}


def test_every_advice_is_asserted():
    for number in NUMBERS:
        for line in CASES[number]["advice"]:
            assert line["expect"], "listing %d: %s" % (number, line["text"])


def test_every_inferred_fact_has_a_reason():
    for number in NUMBERS:
        assert all(entry["why"].strip() for entry in CASES[number]["inferred"]), number
