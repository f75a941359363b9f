# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Functions that are the machine itself: IOMMU, LPC bridge and its companions, BMC, TPM, an armed watchdog."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

FINDING = "VH208"

COMPANIONS = ("0c05", "0c80", "0580", "1180")
"""SMBus, SPI (the flash with the firmware), power management, thermal: those in the slot of the LPC bridge."""

BMC_DISPLAYS = ("102b:0522", "102b:0524", "102b:0530", "102b:0532", "102b:0533", "102b:0534", "102b:0536", "102b:0538",
                "102b:053a")
"""Matrox cores in servers' management controllers (mgag200's table); each display of ASPEED (1a03) is one."""

BMC_FUNCTIONS = ("103c:3306", "103c:3307", "103c:22f6")
"""HPE iLO's own functions."""


def uses(inputs, functions):
    """``(uses, unknowns)`` of the kind ``platform``."""
    found = []
    for function in functions:
        found += [_use(what, link, function["address"]) for what, link in _by_class(function)]
    bridges = {f["address"].rpartition(".")[0] for f in functions if _is_lpc(f)}
    for function in functions:
        slot = function["address"].rpartition(".")[0]
        if slot in bridges and function["class"].startswith(COMPANIONS):
            found.append(_use("chipset", function["class_name"], function["address"]))
    for what, name, home in _in_sysfs(inputs.host):
        for address in pci.addresses_in(home)[-1:]:
            entry = _use(what, name, address)
            if not any((entry["what"], address) == (other["what"], other["function"]) for other in found):
                found.append(entry)
    return found, []


def _is_lpc(function):
    return function["class"].startswith("0601") and function["parent"] is None


def _by_class(function):
    """``[(what, link of the chain)]`` that ids and class tell."""
    display = function["class"].startswith("03")
    if function["class"].startswith("0806"):
        return [("IOMMU", "its own function")]
    if _is_lpc(function):
        return [("chipset", "LPC bridge")]
    if display and (function["vendor"] == "1a03" or function["id"] in BMC_DISPLAYS):
        return [("BMC", "its remote screen")]
    if function["class"].startswith("0c07") or function["id"] in BMC_FUNCTIONS:
        return [("BMC", "its interface to the host")]
    return []


def _in_sysfs(host):
    """``(what, name, path)`` of what the kernel drives: a watchdog only while it is armed."""
    for what, folder in (("IOMMU", "iommu"), ("TPM", "tpm"), ("BMC", "ipmi"), ("watchdog", "watchdog")):
        for name in host.listdir("/sys/class/" + folder):
            home = host.real("/sys/class/%s/%s" % (folder, name))
            if what != "watchdog" or host.read_attribute(home + "/state") == "active":
                yield what, name, home


def _use(what, link, address):
    return {"kind": "platform", "what": what, "chain": [what, link, address], "function": address, "finding": FINDING}
