# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the boxes of the topology stand: nothing overlaps, every group has its frame."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._report import layout, model
from ansible_collections.vfio.host.tests.unit.report import documents, server


def placed(machine):
    audit = model.Audit(machine)

    def key(row):
        group = audit.group_of(row.first["address"])
        return group and group.label

    return layout.place(audit.rows, key)


def inside(box, frame):
    return (
        frame["x"] <= box["x"]
        and box["x"] + box["w"] <= frame["x"] + frame["w"]
        and frame["y"] <= box["y"]
        and box["y"] + box["h"] <= frame["y"] + frame["h"]
    )


@pytest.mark.parametrize("make", [documents.listing1, documents.scattered, server.build])
def test_nothing_overlaps_and_all_is_inside(make):
    plan = placed(make())
    whole = {"x": 0, "y": 0, "w": plan["width"], "h": plan["height"]}
    for shapes in (plan["boxes"], plan["enclosures"]):
        for upper, lower in zip(shapes, shapes[1:]):
            assert upper["y"] + upper["h"] < lower["y"]
        assert all(inside(shape, whole) for shape in shapes)
    assert all(box["w"] > 200 for box in plan["boxes"])


def test_a_frame_holds_exactly_its_group():
    plan = placed(documents.listing1())
    frames = {frame["group"]: frame for frame in plan["enclosures"]}
    assert len(frames) == len(plan["enclosures"]) == 15
    within = {
        group: sorted(a for box in plan["boxes"] if inside(box, frame) for a in box["row"].addresses)
        for group, frame in frames.items()
    }
    assert within["1"] == ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"]
    assert within["9"] == ["0000:00:1c.7", "0000:05:00.0", "0000:06:00.0"]
    assert within["11"] == ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"]


def test_a_scattered_group_has_a_frame_for_each_piece():
    frames = [frame["group"] for frame in placed(documents.scattered())["enclosures"]]
    assert frames == ["0", "2", "1", "2", "3"]


def test_each_function_hangs_on_its_parent():
    plan = placed(documents.listing1())
    boxes = {box["row"].first["address"]: box for box in plan["boxes"]}
    child, parent = boxes["0000:06:00.0"], boxes["0000:05:00.0"]
    assert child["x"] == parent["x"] + layout.STEP
    middle = child["y"] + child["h"] / 2.0
    arms = [line for line in plan["lines"] if line[1] == line[3] == middle]
    assert len(arms) == 1 and arms[0][2] == child["x"]
    rails = [line for line in plan["lines"] if line[0] == line[2] == arms[0][0] and line[3] == middle]
    assert rails and parent["x"] < rails[0][0] < child["x"] and rails[0][1] == parent["y"] + parent["h"]


def test_a_server_is_a_page_of_sensible_length():
    plan = placed(server.build())
    assert plan["width"] <= 1100 and plan["height"] < 9000
