# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI functions in a recorded sysfs."""

from __future__ import annotations

import os

SUBSYSTEM = {"subsystem_vendor": "1af4", "subsystem_device": "1100"}
GPU = dict(SUBSYSTEM, address="0000:01:00.0", vendor="1234", device="1111")
AUDIO = dict(SUBSYSTEM, address="0000:01:00.1", vendor="8086", device="293e")

SERIAL = "52-54-00-ff-ff-12-34-56"


def config_space(header_type=0x80, serial=SERIAL):
    """Configuration space with an AER capability and behind it, when there is one, the serial number."""
    config = bytearray(4096)
    config[0x0E] = header_type
    config[0x100:0x104] = (0x0001 | (1 << 16) | ((0x140 if serial else 0) << 20)).to_bytes(4, "little")
    if serial:
        number = int(serial.replace("-", ""), 16)
        config[0x140:0x144] = (0x0003 | (1 << 16)).to_bytes(4, "little")
        config[0x144:0x148] = (number & 0xFFFFFFFF).to_bytes(4, "little")
        config[0x148:0x14C] = (number >> 32).to_bytes(4, "little")
    return bytes(config)


def add_function(host, identity, driver=None, group="7", device_class="030000", config=None):
    folder = "/sys/bus/pci/devices/" + identity["address"]
    for field in ("vendor", "device", "subsystem_vendor", "subsystem_device"):
        host.write(folder + "/" + field, "0x%s\n" % identity[field])
    host.write(folder + "/class", "0x%s\n" % device_class)
    host.write(folder + "/config", config_space() if config is None else config)
    host.write(folder + "/driver_override", "(null)\n")
    if group:
        os.makedirs(host.path("/sys/kernel/iommu_groups/" + group), exist_ok=True)
        link(host, "/sys/kernel/iommu_groups/" + group, folder + "/iommu_group")
    if driver:
        bind(host, identity["address"], driver)


def bind(host, address, driver):
    os.makedirs(host.path("/sys/bus/pci/drivers/" + driver), exist_ok=True)
    link(host, "/sys/bus/pci/drivers/" + driver, "/sys/bus/pci/devices/%s/driver" % address)


def link(host, target, name):
    outside = host.root + name
    if os.path.lexists(outside):
        os.unlink(outside)
    os.symlink(os.path.relpath(host.root + target, os.path.dirname(outside)), outside)
