# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which modules an image must hold, by what this kernel has as a file, has built in, or has not at all."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked

ALWAYS = ("vfio_pci", "vfio", "vfio_iommu_type1")
OPTIONAL = ("vfio_virqfd",)
"""A module of its own up to Linux 6.1, a part of vfio since."""


def module_of(path):
    """Name of a module as the kernel says it: ``kernel/drivers/vfio/pci/vfio-pci.ko.xz`` is ``vfio_pci``."""
    return re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")


def present(names):
    """Modules that the paths in an image are."""
    return {module_of(name) for name in names if ".ko" in name}


def folder(version):
    return "/lib/modules/" + version


def builtin(host, version):
    """Names of the modules that the kernel needs no file for."""
    text = host.read(folder(version) + "/modules.builtin") or ""
    return {module_of(line) for line in text.splitlines()}


def dependencies(host, version):
    """``{module: set of modules}`` of the module files; None where depmod has not run."""
    text = host.read(folder(version) + "/modules.dep", 64 << 20)
    if text is None:
        return None
    found = {}
    for line in text.splitlines():
        path, dummy, needs = line.partition(":")
        found[module_of(path)] = {module_of(need) for need in needs.split()}
    return found


def needed(host, version, devices):
    """``(modules, variants)``: what an image of this kernel must hold for the list (bytes or None) to be bound, and
    the drivers in the list that this kernel does not have: their devices stay with the host."""
    drivers = drivers_of(devices)
    if not drivers:
        return set(), []
    there = builtin(host, version)
    files = dependencies(host, version)
    wanted = set(ALWAYS)
    lacking = []
    for driver in sorted(drivers - {asked.DRIVER}):
        module = asked.module_of(driver)
        if files is None or module in files or module in there:
            wanted.add(module)
        else:
            lacking.append(driver)
    for module in OPTIONAL:
        if files and module in files:
            wanted.add(module)
    for module in list(wanted):
        wanted |= (files or {}).get(module, set())
    return wanted - there, lacking


def drivers_of(devices):
    """Drivers in the bytes of a list; a list that cannot be understood asks for vfio-pci alone."""
    if devices is None:
        return set()
    try:
        listed = asked.parse(devices.decode("utf-8", "backslashreplace"))
    except ValueError:
        return {asked.DRIVER}
    return {item["driver"] for item in listed} | {asked.DRIVER}


def lacking(image, there):
    """Sentences for what every list needs; ``there``: modules that need no file, None to say nothing."""
    if there is None:
        return []
    return missing(image, set(ALWAYS) - there)


def missing(image, wanted):
    """Sentences for the modules that an image lacks."""
    there = present(image.names)
    return ["the module %s is not in it" % module for module in sorted(wanted, key=_rank) if module not in there]


def _rank(module):
    return (ALWAYS.index(module) if module in ALWAYS else len(ALWAYS), module)


def lacking_tools(image, tools):
    """Sentences for the commands of our script that an image lacks."""
    there = {name.rsplit("/", 1)[1] for name in image.names if re.match(r"(usr/)?s?bin/[^/]+\Z", name)}
    return ["the command %s is not in it" % tool for tool in tools if tool not in there]


def serial_asked(devices):
    """Whether a line of the list (bytes) wants a serial number compared, which takes od."""
    return bool(re.search(rb"^[0-9a-f:.]+ (?:[0-9a-f]{4} ){4}[0-9a-f]{2}-", devices, re.M))
