# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rows of the tree to coordinates: a tree that grows downwards, as wide as a page. Pure; units are pixels at 100 %."""

from __future__ import annotations

WIDTH = 1000
LEFT, STEP = 40, 28
RIGHT = 856
"""Boxes end here; beyond it stand the groups' names."""
HEAD, BOX, BRIDGE = 30, 44, 30
"""Heights of a root bus, of a function and of a bridge."""
NEAR, FAR = 6, 16
"""Between two boxes of one enclosure, and of two."""
PAD = 5


def place(rows, group_of):
    """Where everything stands.

    :param rows: rows of the tree, each with ``bus``, ``depth``, ``first`` and ``functions``.
    :param group_of: row -> what identifies its group (anything that can be compared), None for none.
    :return: ``{width, height, boxes, heads, lines, enclosures}``: ``boxes`` and ``heads`` as ``{x, y, w, h, row}``,
        ``lines`` as ``(x1, y1, x2, y2)``, ``enclosures`` as ``{x, y, w, h, group, rows}``: one for each run of rows of
        one group, so a group whose members are not adjacent has several.
    """
    boxes, heads, lines, enclosures = [], [], [], []
    rails = {}  # depth -> (x, y) where the line down to the children at this depth starts
    y, before = 0, None
    for row in rows:
        if row.bus is not None:
            y += FAR if heads else PAD
            heads.append({"x": LEFT - STEP, "y": y, "w": 120, "h": HEAD, "row": row})
            y += HEAD
            rails, before = {0: (LEFT - 16, y)}, None
            continue
        group = group_of(row)
        joined = before is not None and group is not None and group == before
        y += NEAR if joined else FAR
        x = LEFT + row.depth * STEP
        height = BRIDGE if row.first.get("is_bridge") else BOX
        box = {"x": x, "y": y, "w": RIGHT - x, "h": height, "row": row}
        boxes.append(box)
        start = rails.get(row.depth)
        if start:
            middle = y + height / 2.0
            lines.append((start[0], start[1], start[0], middle))
            lines.append((start[0], middle, x, middle))
            rails[row.depth] = (start[0], middle)
        y += height
        rails[row.depth + 1] = (x + STEP - 16, y)
        if group is not None:
            if joined:
                _grow(enclosures[-1], box)
            else:
                enclosures.append(
                    {
                        "x": x - PAD,
                        "y": box["y"] - PAD,
                        "w": WIDTH - 4 - x + PAD,
                        "h": height + 2 * PAD,
                        "group": group,
                        "rows": 1,
                    }
                )
        before = group
    return {"width": WIDTH, "height": y + FAR, "boxes": boxes, "heads": heads, "lines": lines, "enclosures": enclosures}


def _grow(enclosure, box):
    right = enclosure["x"] + enclosure["w"]
    enclosure["x"] = min(enclosure["x"], box["x"] - PAD)
    enclosure["w"] = right - enclosure["x"]
    enclosure["h"] = box["y"] + box["h"] + PAD - enclosure["y"]
    enclosure["rows"] += 1
