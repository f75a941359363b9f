# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.module_utils._assignment.report import report
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching
from ansible_collections.vfio.host.tests.unit.machines import at, build, p8h67_on, use


def text(machine, *devices, **more):
    lines = report(machine, make_plan(machine, list(devices), more.get("acknowledge", []), matching))
    assert all(line == line.rstrip() and "\n" not in line and line.isascii() for line in lines)
    return "\n".join(lines)


def test_a_plan_that_stands():
    machine = p8h67_on()
    at(machine, "01:00.0").update(driver="nouveau", vendor_name="NVIDIA", device_name="GM107")
    assert text(machine, {"name": "gaming_gpu", "address": "01:00.0"}) == """\
OK: 1 device, 2 functions for vfio-pci

gaming_gpu: ok
  address       id         class  driver now  name
  0000:01:00.0  10de:1380  vga    nouveau     NVIDIA GM107
  0000:01:00.1  10de:0fbc  audio  -           -
  actual group also has bridges, left alone: 0000:00:01.0

The kernel command line
      + intel_iommu=on
      - Whether the kernel turns an Intel IOMMU on by itself is not known: its configuration cannot
        be read. intel_iommu=on does no harm."""


def test_a_command_line_that_needs_nothing_says_so():
    machine = p8h67_on()
    machine["host"]["kernel"]["config"] = {"INTEL_IOMMU_DEFAULT_ON": "y"}
    seen = text(machine, {"name": "gpu", "address": "01:00.0"})
    assert "\nThe kernel command line\n  needs nothing\n      - Kernel 6.1.0-28-amd64 turns an Intel IOMMU on" in seen
    assert "The kernel command line" not in text(machine)


def test_a_refused_plan_says_why_and_what_next():
    machine = use(build(), "00:1f.2", "VH201", "disk", "/", "/dev/sda2", "sda")
    seen = text(machine, {"name": "disk", "address": "00:1f.2", "functions": "listed"},
                {"name": "usb", "address": "03:00.0"})
    assert seen.startswith("REFUSED: 2 devices, 2 functions for vfio-pci; 2 findings stand against it\n")
    assert "\ndisk: REFUSED\n" in seen and "\nusb: ok\n" in seen
    assert "REFUSE VH201 0000:00:1f.2: A disk the host uses is behind this function" in seen
    assert "- disk: / <- /dev/sda2 <- sda <- 0000:00:1f.2" in seen
    assert "predicted group also has: 0000:00:1f.0, 0000:00:1f.3" in seen
    assert "predicted group has nothing else" in seen
    assert "[docs/findings/VH201.md]" in seen
    assert "\nThe host\n  INFO VH110 Groups are predicted" in seen


def test_an_acknowledged_finding_is_marked():
    machine = use(p8h67_on(), "01:00.0", "VH203", "display", "boot display")
    seen = text(machine, {"name": "gpu", "address": "01:00.0"}, acknowledge=[{"code": "VH203", "device": "01:00.0"}])
    assert "OK: " in seen and "WARN VH203 0000:01:00.0: The host's display is on this function (acknowledged)" in seen


def test_every_finding_is_shown():
    machine = p8h67_on()
    plan = make_plan(machine, [], [{"code": "VH203", "device": "01:00.0"}], matching)
    assert "VH190" in "\n".join(report(machine, plan))
