# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document of a machine of which there is only a dump of ``lspci``."""

from __future__ import annotations

import os

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, dump, platform
from ansible_collections.vfio.host.plugins.module_utils._host import Host

SOURCE = "lspci"
"""``source.root`` of such a document."""

TABLES = {"DMAR": "intel", "IVRS": "amd"}
CONTEXT = ("kernel", "firmware_table", "cmdline")
NEEDS = ("disk", "display", "network", "other", "ssh")


def from_dump(text, context=None):
    """Machine document from the text of ``lspci -D -xxxx``; see dump.parse() for what is understood.

    :param context: what the dump cannot tell and somebody knows: ``{kernel: release, firmware_table: DMAR or IVRS,
        cmdline: text}``, each of which may be left out.
    No text raises: ``source.missing`` names what is not known. ValueError for a bad context.
    """
    context = _checked(context or {})
    found = dump.parse(text)
    functions = found["functions"]
    machine = _machine.collect(Host(os.devnull))  # nothing can be read below it: every field at its unknown value
    machine["source"] = {
        "root": SOURCE,
        "privileged": found["privileged"],
        "missing": found["missing"] + _untold(context, functions),
    }
    machine["functions"] = functions
    machine["groups"] = _groups(functions, found["groups"])
    _tell_host(machine["host"], context, found, machine["groups"])
    return _machine.complete(machine)


def _checked(context):
    unknown = sorted(set(context) - set(CONTEXT))
    if unknown:
        raise ValueError("%s: not known; there are %s" % (", ".join(unknown), ", ".join(CONTEXT)))
    for name, value in context.items():
        if value is not None and not isinstance(value, str):
            raise ValueError('%s: %r is not text; put it in quotes, as in "6.1"' % (name, value))
    table = context.get("firmware_table")
    if table is not None and table not in TABLES:
        raise ValueError("firmware_table: %r is no IOMMU table; write DMAR (Intel VT-d) or IVRS (AMD-Vi)" % table)
    kernel = context.get("kernel")
    if kernel is not None and kernel != "all" and acs.release(kernel) is None:
        raise ValueError("kernel: %r is no kernel release; write what uname -r says, such as 6.1.0-18-amd64" % kernel)
    return {name: value for name, value in context.items() if value is not None}


def _untold(context, functions):
    """What the dump is silent about, in the form of ``source.missing``."""
    missing = [{"input": "the host's own needs",
                "why": "VH205: a dump of PCI functions says nothing of disks, network, displays and who uses them"}]
    if "kernel" not in context:
        missing.append({"input": "kernel", "why": "release unknown: predicted with the quirk tables of all kernels"})
    if "cmdline" not in context:
        missing.append({"input": "/proc/cmdline", "why": "what the kernel was started with is unknown"})
    if "firmware_table" not in context:
        missing.append({"input": platform.ACPI_TABLES, "why": _guess(functions)[1]})
    return missing


def _guess(functions):
    """``(firmware table or None, sentence)`` by the vendor of what is on the root bus; a guess, and called one."""
    for function in functions:
        if function["class"].startswith("0806") and function["vendor"] == "1022":
            return "IVRS", "an IVRS table is taken for granted: %s is AMD's IOMMU" % function["address"]
    for function in functions:
        if function["class"].startswith("0600") and function["vendor"] in ("8086", "1022"):
            table, maker = ("DMAR", "Intel") if function["vendor"] == "8086" else ("IVRS", "AMD")
            return table, "whether there is an IOMMU is unknown; %s is %s's host bridge, so its table would be %s" % (
                function["address"], maker, table)
    return None, "whether there is an IOMMU is unknown, and no host bridge tells whose it would be"


def _groups(functions, numbers):
    """The kernel's groups, where ``lspci -v`` printed their numbers."""
    members = {}
    for function in functions:
        function["group"] = numbers.get(function["address"])
        members.setdefault(function["group"], []).append(function["address"])
    members.pop(None, None)
    for function in functions:
        if function["group"]:
            function.update(group_members=members[function["group"]], confidence="actual")
    return [{
        "number": number, "members": sorted(members[number], key=sort_key), "source": "actual", "confidence": "actual",
        "reasons": [], "bounds": None, "type": None, "reserved_regions": None,
    } for number in sorted(members, key=int)]


def _tell_host(host, context, found, groups):
    """Put into the host section what is known, and null where its unknown value would claim something."""
    kernel, iommu = host["kernel"], host["iommu"]
    kernel.update(
        release=context.get("kernel"),
        cmdline=context.get("cmdline", ""),
        acs_override=platform.override_option(context.get("cmdline", "")),
        quirk_table=acs.quirk_table(context.get("kernel")),
    )
    guessed, why = _guess(found["functions"])
    table = context.get("firmware_table", guessed)
    if groups:
        why = "active: the dump names %d groups" % len(groups)
    elif "firmware_table" in context:
        why = "unknown: the dump names no groups; the firmware is said to offer a %s table" % table
    iommu.update(
        active=True if groups else None,
        vendor=TABLES.get(table),
        firmware_table=table,
        reason=why,
        rcba=found["rcba"],
    )
    host["cpu"]["count"] = host["boot"]["firmware"] = host["libvirt"]["installed"] = host["qemu"]["installed"] = None
    host["usage_unknown"] = sorted(NEEDS)
