# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Names: class slugs, vendor and device names of pci.ids, modules of modules.alias. Pure."""

from __future__ import annotations

import fnmatch

CLASSES = {
    "0100": "scsi", "0101": "ide", "0104": "raid", "0106": "sata", "0107": "sas", "0108": "nvme",
    "0200": "ethernet", "0280": "wireless",
    "0300": "vga", "0301": "xga", "0302": "3d", "0380": "display",
    "0400": "video", "0401": "multimedia_audio", "0403": "audio",
    "0500": "memory", "0580": "memory",
    "0600": "host_bridge", "0601": "isa_bridge", "0604": "pci_bridge", "0607": "cardbus_bridge",
    "0700": "serial", "0780": "communication",
    "0806": "iommu", "0805": "sd_host",
    "0b40": "processing", "0c00": "firewire", "0c03": "usb", "0c05": "smbus",
    "0d11": "bluetooth", "1080": "signal_processing", "1180": "signal_processing", "1200": "accelerator",
}
"""Our slug for a base class and subclass; a name of pci.ids where it is short enough."""


def class_name(code):
    """Slug for a class code of six hex digits; its first four digits when there is none."""
    if code[:2] == "00" or code[:2] == "ff":
        return "other"
    return CLASSES.get(code[:4], code[:4])


def pci_names(text, wanted):
    """Names from the text of pci.ids.

    :param wanted: set of ``(vendor, device)``, four hex digits each.
    :return: ``{(vendor, device): (vendor name or None, device name or None)}`` for all wanted.
    """
    text = "\n" + text
    names = {}
    devices = {}
    for vendor, device in wanted:
        devices.setdefault(vendor, set()).add(device)
    for vendor in devices:
        vendor_name, found = _vendor(text, vendor, devices[vendor])
        for device in devices[vendor]:
            names[(vendor, device)] = (vendor_name, found.get(device))
    return names


def _vendor(text, vendor, devices):
    # Searched, not read line by line: 35,000 lines are slow on an emulated host
    start = text.find("\n%s  " % vendor)
    if start < 0:
        return None, {}
    at = text.find("\n", start + 1)
    vendor_name = text[start + 7:at if at >= 0 else None].strip()
    found = {}
    while 0 <= at < len(text) - 1:
        end = text.find("\n", at + 1)
        line = text[at + 1:end if end >= 0 else None]
        if line[:1] not in ("\t", "#", ""):
            break
        if line[:1] == "\t" and line[1:5] in devices:
            found[line[1:5]] = line[5:].strip()
        at = end
    return vendor_name, found


def modules_for(text, modaliases):
    """Kernel modules that would claim devices, from the text of modules.alias.

    :param modaliases: iterable of sysfs modaliases, ``pci:v00008086d...``.
    :return: two ``{modalias: [module, ...]}``, sorted, for all given: drivers that bind by themselves, and
        vfio drivers made for the device (``vfio_pci:`` aliases), without vfio-pci, which takes any.
    """
    matcher = _Matcher(modaliases)
    for line in text.split("\n"):
        if line.startswith("alias pci:v"):
            matcher.take(*line[6:].partition(" ")[::2])
        elif line.startswith("alias vfio_pci:v"):
            pattern, dummy, module = line[11:].partition(" ")
            if module.strip() != "vfio_pci":
                matcher.take(pattern, module, variant=True)
    return matcher.found, matcher.variants


def builtin_for(text, modaliases):
    """``{modalias: [module, ...]}`` of built-in drivers, from modules.builtin.modinfo (NUL between entries)."""
    matcher = _Matcher(modaliases)
    for entry in text.split("\0"):
        module, dummy, pattern = entry.partition(".alias=")
        if pattern.startswith("pci:v"):
            matcher.take(pattern, module)
    return matcher.found


class _Matcher:
    """Modaliases against patterns; vendor and device are compared before a pattern is tried."""

    def __init__(self, modaliases):
        self.found = {alias: [] for alias in modaliases}
        self.variants = {alias: [] for alias in self.found}
        self.by_ids = {}
        for alias in self.found:
            self.by_ids.setdefault((alias[5:13], alias[14:22]), []).append(alias)
        self.by_vendor = {}
        for (vendor, dummy), aliases in self.by_ids.items():
            self.by_vendor.setdefault(vendor, []).extend(aliases)

    def take(self, pattern, module, variant=False):
        vendor = "*" if pattern[5:6] == "*" else pattern[5:13]
        device = pattern[6 + len(vendor):]
        if vendor == "*":
            candidates = self.found
        elif device[:1] == "*":
            candidates = self.by_vendor.get(vendor, ())
        else:
            candidates = self.by_ids.get((vendor, device[:8]), ())
        target = self.variants if variant else self.found
        module = module.strip()
        for alias in candidates:
            if module not in target[alias] and fnmatch.fnmatchcase(alias, pattern):
                target[alias] = sorted(target[alias] + [module])
