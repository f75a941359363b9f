# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Whether a function's traffic to its neighbours is forced up to the IOMMU, as Linux judges it. Pure.

That is pci_acs_enabled() of drivers/pci/pci.c for the flags that IOMMU groups are made with: first the
quirk tables, whose answer is final, then the ACS capability by the kind of port.
"""

from __future__ import annotations

import functools
import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space, quirks

REQUIRED = 0x1D
"""Source validation 0x01, request redirect 0x04, completion redirect 0x08, upstream forwarding 0x10."""

PORTS = ("root_port", "downstream_port")
SINGLE_IS_FINE = ("endpoint", "legacy_endpoint", "upstream_port", "rc_endpoint")

KIND_NAMES = {
    "root_port": "root port",
    "upstream_port": "switch upstream port",
    "downstream_port": "switch downstream port",
    "pcie_to_pci": "PCIe-to-PCI bridge",
    "pci_to_pcie": "PCI-to-PCIe bridge",
    "rc_endpoint": "root complex endpoint",
    "rc_event_collector": "event collector",
    "conventional": "conventional PCI function",
}

_ACS_EDITED = ("disable_acs_redir=", "config_acs=")


@functools.lru_cache(maxsize=64)
def release(text):
    """``(major, minor)`` of a kernel release or series, or None."""
    found = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


@functools.lru_cache(maxsize=64)
def quirk_table(kernel):
    """The series whose quirk tables go with a kernel release; ``all`` for ``all`` and what is unknown."""
    running = release(kernel)
    if running is None:
        return "all"
    older = [series for series in quirks.SERIES if release(series) <= running]
    return older[-1] if older else quirks.SERIES[0]


def assumptions(kernel=None, firmware_table=None, cmdline="", iommu_active=False, rcba=None, override_acs=(),
                sysfs=False, uncovered=()):
    """What a judgement depends on besides the function itself.

    :param kernel: release or series of the kernel, ``all`` or None for the union of all tables.
    :param firmware_table: ``DMAR``, ``IVRS`` or None.
    :param cmdline: the kernel command line.
    :param iommu_active: the control words were read while the IOMMU was on, so they count.
    :param rcba: whether the Intel chipset's RCBA window is enabled, None when unknown.
    :param sysfs: configuration space comes from sysfs, whose files end where the kernel's own reach does.
    :param uncovered: addresses of functions that the firmware's table leaves out.
    :param override_acs: words of the override patch's option that are to be believed.
    """
    return {
        "kernel": kernel,
        "firmware_table": firmware_table,
        "cmdline": cmdline or "",
        "iommu_active": iommu_active,
        "rcba": rcba,
        "override_acs": tuple(override_acs),
        "sysfs": sysfs,
        "uncovered": frozenset(uncovered),
    }


def of_machine(machine):
    """The assumptions that hold for a machine document. The override patch is never believed."""
    host = machine["host"]
    return assumptions(
        kernel=host["kernel"]["release"],
        firmware_table=host["iommu"]["firmware_table"],
        cmdline=host["kernel"]["cmdline"],
        iommu_active=host["iommu"]["active"],
        rcba=host["iommu"]["rcba"],
        sysfs=machine["source"]["root"] != "lspci",
        uncovered=host["iommu"]["uncovered"] or (),
    )


def _said(answer, by, why, certain=True):
    return {"answer": answer, "certain": certain, "by": by, "why": why}


def judge(function, multifunction, taken):
    """``{answer, certain, by, why}`` for one function.

    :param multifunction: whether it is one of several functions of a device, as the kernel sees it.
    :param taken: see assumptions().
    ``by``: ``quirk``, ``acs``, ``single`` (nothing beside it), ``override``; of a negative answer
    ``quirk``, ``none`` (no capability), ``off`` (its controls are), ``kind`` (of bridge), ``unknown``.
    """
    return (
        _by_quirk(function, multifunction, taken)
        or _by_override(function, multifunction, taken["override_acs"])
        or _by_kind(function, multifunction, taken)
    )


def _by_quirk(function, multifunction, taken):
    identifier, kind = function["id"], function["port_type"]
    vendor, device = function["vendor"], function["device"]
    later = quirk_table(taken["kernel"]) != "5.4"
    if identifier in quirks.AMD_SOUTHBRIDGE:
        if multifunction and function["parent"] is None and taken["firmware_table"] == "IVRS":
            return _said(True, "quirk", "the kernel knows that this chipset's functions do not reach each other")
        return None
    if identifier in quirks.MULTIFUNCTION_ENDPOINTS or later and identifier in quirks.MULTIFUNCTION_ENDPOINTS_5_10:
        return _said(True, "quirk", "its vendor says that its functions do not reach each other")
    if vendor == "8086" and kind == "rc_endpoint" and (release(taken["kernel"]) or (5, 8)) >= (5, 8):
        return _said(True, "quirk", "the kernel isolates every root complex endpoint of Intel")
    if vendor == "8086" and kind in ("root_port", "unknown") and quirks.intel_pch(identifier):
        return _pch(function, taken)
    if identifier in quirks.PORTS or later and identifier in quirks.PORTS_5_10:
        return _said(True, "quirk", "the kernel knows that this port isolates")
    if kind == "root_port" and (
        identifier == quirks.AL_ROOT_PORT or vendor == "177d" and quirks.within(device, quirks.CAVIUM_ROOT_PORTS)
    ):
        return _said(True, "quirk", "the kernel knows that this root port isolates")
    if later and vendor == "1d17" and kind in PORTS:
        if quirks.within(device, quirks.ZHAOXIN_PORTS):
            return _said(True, "quirk", "the kernel knows that this port isolates")
        return _said(False, "quirk", "the kernel trusts no other port of this vendor")
    if later and vendor == "8088":
        if quirks.within(device, quirks.WANGXUN_NICS):
            return _said(True, "quirk", "its vendor says that its functions do not reach each other")
        return _said(False, "quirk", "the kernel trusts no other function of this vendor")
    return None


def _pch(function, taken):
    """Intel 5 to 9 series, X79 and X99 root ports (pci_quirk_intel_pch_acs)."""
    chipset = quirks.intel_pch(function["id"])
    running = release(taken["kernel"])
    if running and (5, 8) <= running < (5, 10):
        return _said(False, "quirk", "Linux 5.8 and 5.9 fail to arm the quirk for %s root ports" % chipset)
    if taken["rcba"] is False:
        return _said(False, "quirk", "the quirk for %s root ports is not armed: RCBA is disabled" % chipset)
    why = "the kernel isolates %s root ports by a quirk" % chipset
    if taken["rcba"] is None:
        return _said(True, "quirk", why + ", if RCBA is enabled, which could not be read", certain=False)
    return _said(True, "quirk", why)


def _by_override(function, multifunction, words):
    """The out-of-tree patch: never for what has ACS or is no PCI Express."""
    kind = function["port_type"]
    if not words or kind in ("conventional", "unknown") or (function["capabilities"] or {}).get("acs"):
        return None
    if (
        "id:" + function["id"] in words
        or "downstream" in words and kind in PORTS
        or "multifunction" in words and kind in SINGLE_IS_FINE and multifunction
    ):
        return _said(True, "override", "the override patch pretends so, which nothing verifies")
    return None


def _by_kind(function, multifunction, taken):
    kind = function["port_type"]
    if kind in PORTS or kind in SINGLE_IS_FINE and multifunction:
        return _by_capability(function, taken)
    if kind in SINGLE_IS_FINE:
        return _said(True, "single", "it is the only function of its device")
    if kind == "unknown":
        return _said(False, "unknown", "what kind of function it is could not be read", certain=False)
    if kind == "conventional":
        return _said(False, "kind", "it is conventional PCI, which has no ACS")
    if kind == "pcie_to_pci":
        return _said(False, "kind", "a PCIe-to-PCI bridge makes the requests of what is behind it its own")
    return _said(False, "kind", "a %s never isolates" % KIND_NAMES[kind])


def _by_capability(function, taken):
    found = function["capabilities"]
    if found and not found["complete"] and taken["sysfs"] and function["config_bytes"] == config_space.PLAIN:
        return _said(False, "none", "the kernel does not reach its extended configuration space, where ACS would be")
    if found is None or not found["complete"]:
        return _said(False, "unknown", "its ACS capability could not be read", certain=False)
    acs = found["acs"]
    if acs is None:
        return _said(False, "none", "it has no ACS capability")
    wanted = REQUIRED & acs["capability"]
    if taken["iommu_active"]:
        if acs["control"] & wanted == wanted:
            return _said(True, "acs", "its ACS capability is on")
        return _said(False, "off", "its ACS capability is there, but controls 0x%02x of 0x%02x are off"
                     % (wanted & ~acs["control"], wanted))
    if any(t.startswith("pci=") and any(e in t for e in _ACS_EDITED) for t in taken["cmdline"].split()):
        return _said(False, "off", "the command line edits ACS, and what it leaves on here is not known", certain=False)
    return _said(True, "acs", "it has an ACS capability, which the kernel turns on with the IOMMU")
