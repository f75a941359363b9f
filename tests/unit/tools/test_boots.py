# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests on booted hosts take for trouble in a kernel log."""

from __future__ import annotations

import os
import sys

import pytest

TOOLS = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
sys.path.insert(0, TOOLS)

from boots import host  # noqa: E402  # pylint: disable=wrong-import-position,import-error


@pytest.mark.parametrize("line, trouble, on_purpose", [
    ("Call Trace:", True, False),
    ("INFO: task python3:812 blocked for more than 120 seconds.", True, False),
    ("general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP", True, True),
    ("Oops: 0002 [#1] SMP NOPTI", True, True),
    ("BUG: kernel NULL pointer dereference, address: 0000000000000008", True, True),
    ("WARNING: CPU: 0 PID: 1 at drivers/iommu/intel/iommu.c:5", True, True),
    ("DMAR: [DMA Read] Request device [01:00.0] fault addr 0x1000", True, True),
    ("vfio-pci 0000:01:00.0: vfio_ecap_init: hiding ecap 0x19@0x1d0", False, False),
])
def test_lines_of_the_kernel_log_that_must_not_be_there(line, trouble, on_purpose):
    log = "[    1.000000] started\n[  100.500000] %s\n" % line
    assert bool(host.trouble(log)) is trouble and bool(host.trouble(log, hangs=True)) is on_purpose
