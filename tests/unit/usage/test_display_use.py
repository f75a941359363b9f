# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which display the host boots on."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._usage import display


@pytest.mark.parametrize("functions, used, unknown", [
    ([("vga", True), ("vga", False)], [0], []),
    ([("vga", None)], [0], []),
    ([("vga", None), ("3d", None), ("usb", None)], [0], []),
    ([("vga", None), ("display", None)], [], ["display"]),
    ([("vga", False), ("vga", False)], [], ["display"]),
    ([("3d", None), ("usb", None)], [], []),
])
def test_boot_display(functions, used, unknown):
    given = [
        {"address": "0000:0%d:00.0" % number, "class_name": name, "boot_vga": boot}
        for number, (name, boot) in enumerate(functions)
    ]
    uses, unknowns = display.use(given)
    assert [use["function"] for use in uses] == [given[number]["address"] for number in used]
    assert [entry["kind"] for entry in unknowns] == unknown
    assert {use["finding"] for use in uses} <= {"VH203"}
