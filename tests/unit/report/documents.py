# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine documents that the reports are tried on."""

from __future__ import annotations

import os
import tarfile

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit import machines

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

SCATTERED = """
00:01.0 root_port 8086:347a pci_bridge acs
01:00.0 endpoint 10de:1380 vga < 00:01.0
00:02.0 root_port 8086:347a pci_bridge acs
02:00.0 endpoint 10de:1380 vga < 00:02.0
00:03.0 rc_endpoint 8086:1533 ethernet
"""
SCATTERED_GROUPS = """
00:01.0
00:02.0
01:00.0 02:00.0
00:03.0
"""
"""A group whose members are not beside one another in the tree."""

HOSTILE = "<script>alert(1)</script>\"'&\x00\x1b[31m\u202egpj\u2028\ud800" + "W" * 5000


def recorded(name, folder):
    """The document of a recorded tree of ``tests/corpus``, unpacked into ``folder``."""
    with tarfile.open(os.path.join(CHECKOUT, "tests", "corpus", name + ".tar.xz")) as archive:
        (
            archive.extractall(str(folder), filter="data")
            if hasattr(tarfile, "data_filter")
            else archive.extractall(str(folder))
        )
    return _machine.collect(Host(str(folder)))


def listing1():
    """The how-to's machine, with what its host needs."""
    machine = machines.p8h67_on()
    machines.use(machine, "00:1f.2", "VH201", "disk", "/", "/dev/mapper/vg-root", "sda3", "sda")
    return machines.use(machine, "00:02.0", "VH203", "display", "boot display", "boot_vga")


def scattered():
    return machines.build(SCATTERED, SCATTERED_GROUPS)


def nothing():
    """A container: no PCI function, no IOMMU."""
    machine = machines.build("")
    machine["host"]["iommu"].update(firmware_table=None, vendor=None, reason="the firmware tables are not readable")
    machine["source"].update(privileged=False, missing=[{"input": "/sys/bus/pci/devices", "why": "not there"}])
    return machines.refresh(machine)


def hostile():
    """Every text that a machine can choose is an attack."""

    def poison(value):
        if isinstance(value, dict):
            return {key: poison(item) for key, item in value.items()}
        return (
            [poison(item) for item in value]
            if isinstance(value, list)
            else HOSTILE if isinstance(value, str) else value
        )

    machine = listing1()
    for key in ("product", "cpu"):
        machine["host"][key] = poison(machine["host"][key])
    machine["host"]["kernel"].update(release=HOSTILE, cmdline=HOSTILE)
    machine["host"]["iommu"].update(reason=HOSTILE, units=[HOSTILE])
    machine["source"]["missing"] = [{"input": HOSTILE, "why": HOSTILE}]
    for function in machine["functions"]:
        function.update(
            vendor_name=HOSTILE,
            device_name=HOSTILE,
            driver=HOSTILE,
            serial=HOSTILE,
            holders=[{"pid": 1, "command": HOSTILE, "node": HOSTILE}],
            usb_devices=[{"path": HOSTILE, "id": HOSTILE, "product": HOSTILE, "kinds": [HOSTILE], "port": HOSTILE}],
        )
        function["assignment"] = dict(function["assignment"], obstacles=[{"code": "VH201", "text": HOSTILE}])
        for use in function["used_by"]:
            use.update(what=HOSTILE, chain=[HOSTILE])
        function["isolates"] = {"answer": False, "certain": False, "why": HOSTILE}
    for group in machine["groups"]:
        group.update(number=HOSTILE, members=group["members"] + [HOSTILE], reasons=[HOSTILE])
    for finding in machine["findings"]:
        finding.update(title=HOSTILE, remedy=HOSTILE, evidence=[HOSTILE], docs="javascript:alert(1)//" + HOSTILE)
    return machine
