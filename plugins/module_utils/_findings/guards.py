# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules that look at one machine or one selected function and return findings. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._findings.rules import RULES, finding

_USB = ("0c03",)
UNKNOWN_TOUCHES = {
    "disk": ("01", "0805") + _USB,
    "ssh": ("02",) + _USB,
    "network": ("02",) + _USB,
    "display": ("03",),
}
"""What could not be found out -> beginnings of the class codes it may be about (a USB controller
can carry the root disk and the NIC). A word that is not here is about everything."""

_TURNED_OFF = {
    "intel": ("iommu=off",),
    "amd": ("iommu=off", "amd_iommu=off"),
}
"""Tokens that no added parameter outweighs, by vendor (intel_iommu=on does outweigh intel_iommu=off)."""


def host_findings(machine):
    """VH120, VH121 and VH122: whether this machine can have an active IOMMU."""
    iommu = machine["host"]["iommu"]
    if iommu["active"]:
        return []
    reason = ["IOMMU inactive: %s" % (iommu.get("reason") or "no reason known")]
    if iommu.get("firmware_table") is None:
        return [finding("VH120", reason + ["neither DMAR nor IVRS in the ACPI tables"], host="iommu")]
    tokens = (machine["host"]["kernel"].get("cmdline") or "").split()
    vendor = "amd" if iommu["firmware_table"] == "IVRS" else "intel"
    off = [token for token in tokens if token in _TURNED_OFF[vendor]]
    if off:
        return [finding("VH122", ["%s is on the running command line" % token for token in off], host="iommu")]
    return [finding("VH121", reason + ["firmware table %s is there" % iommu["firmware_table"]], host="iommu")]


def usage_findings(machine, function):
    """VH200 to VH205: what the host needs this function for, or may need it for."""
    found = []
    uses = function.get("used_by")
    by_code = {}
    for use in uses or []:
        code = use.get("finding")
        if code not in RULES:
            code = "VH200"  # a use we have no rule for is a use all the same
        by_code.setdefault(code, []).append(_chain(use))
    for code in sorted(by_code):
        found.append(finding(code, by_code[code], device=function["address"]))
    unknown = _unknown(machine)
    if uses is None:
        unknown.append(("everything", "the machine document says nothing about this function's uses"))
    evidence = ["unknown: %s%s" % (kind, " (%s)" % why if why else "")
                for kind, why in unknown if _touches(kind, function["class"])]
    if evidence:
        for entry in machine["source"].get("missing") or []:
            if str(entry.get("why")).startswith("VH205"):
                evidence.append("%s (%s)" % (entry.get("input"), entry["why"].partition(": ")[2]))
        found.append(finding("VH205", evidence, device=function["address"]))
    return found


def _chain(use):
    """``disk: / <- /dev/sda2 <- sda <- 0000:00:1f.2``"""
    links = [str(link) for link in use.get("chain") or []] or [str(use.get("what"))]
    return "%s: %s" % (use.get("kind"), " <- ".join(links))


def _unknown(machine):
    """``[(kind, why)]`` of what the probe could not find out about the host's own needs.

    A document without the list is one of a probe that did not look: everything is unknown.
    """
    host = machine["host"]
    entries = host.get("usage_unknown")
    if entries is None:
        return [("everything", "the machine document has no host.usage_unknown")]
    result = []
    for entry in entries:
        if isinstance(entry, dict):
            result.append((str(entry.get("kind")), str(entry.get("why") or "")))
        else:
            result.append((str(entry), ""))
    if (host.get("ssh") or {}).get("unknown") and "ssh" not in [kind for kind, dummy in result]:
        result.append(("ssh", "the path of the SSH connection"))
    return result


def _touches(kind, class_code):
    beginnings = UNKNOWN_TOUCHES.get(kind)
    return beginnings is None or class_code.startswith(beginnings)


def choice_findings(machine, function):
    """VH130: devices that are known to be poor at being assigned."""
    evidence = []
    if function["vendor"] == "10ec" and function["class"].startswith("0200"):
        evidence.append("%s %s is a Realtek NIC" % (function["address"], function["id"]))
    functions = {f["address"]: f for f in machine["functions"]}
    bridge = functions.get(function.get("parent"))
    if bridge is not None and bridge.get("port_type") in ("pcie_to_pci", "conventional"):
        evidence.append("%s is behind the conventional PCI bridge %s %s"
                        % (function["address"], bridge["address"], bridge["id"]))
    return [finding("VH130", evidence, device=function["address"])] if evidence else []
