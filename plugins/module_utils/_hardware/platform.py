# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the host is apart from its PCI functions: kernel, CPU, IOMMU, boot, memory, packages."""

from __future__ import annotations

import re

LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Written by the loader that started the kernel (systemd Boot Loader Interface)."""

ACPI_TABLES = "/sys/firmware/acpi/tables"
IOMMU_UNITS = "/sys/class/iommu"

GENERATORS = (
    ("initramfs-tools", ("/usr/sbin/mkinitramfs", "/sbin/mkinitramfs")),
    ("dracut", ("/usr/bin/dracut", "/sbin/dracut")),
    ("mkinitcpio", ("/usr/bin/mkinitcpio",)),
)
LIBVIRT = ("/usr/sbin/libvirtd", "/usr/sbin/virtqemud")
QEMU = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-aarch64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")


def kernel(inputs, cpuinfo):
    return {
        "release": inputs.text("/proc/sys/kernel/osrelease", "the running kernel is unknown").strip() or None,
        "cmdline": inputs.text("/proc/cmdline", "what the kernel was started with is unknown").strip(),
        "machine": inputs.host.read_attribute("/proc/sys/kernel/arch") or machine(cpuinfo),
    }


def machine(cpuinfo):
    """Machine name from the text of /proc/cpuinfo, for kernels before 6.1; None when unclear."""
    if re.search(r"^flags\s*:.*\blm\b", cpuinfo, re.MULTILINE):
        return "x86_64"
    if re.search(r"^CPU architecture\s*: 8", cpuinfo, re.MULTILINE):
        return "aarch64"
    return None


def cpu(cpuinfo):
    """``{vendor, count}`` from the text of /proc/cpuinfo."""
    vendor = re.search(r"^(?:vendor_id|CPU implementer)\s*: (.*)$", cpuinfo, re.MULTILINE)
    return {
        "vendor": vendor.group(1).strip() if vendor else None,
        "count": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
    }


def memory(inputs):
    found = re.search(r"^MemTotal:\s+(\d+) kB", inputs.text("/proc/meminfo", "memory size unknown"), re.MULTILINE)
    return {"total": int(found.group(1)) * 1024 if found else None}


def iommu(inputs, cmdline, groups):
    """State of the IOMMU and one sentence why; ``groups`` as groups.read() returns them."""
    tables = [table for table in ("DMAR", "IVRS") if inputs.host.exists("%s/%s" % (ACPI_TABLES, table))]
    units = inputs.host.listdir(IOMMU_UNITS)
    return judge_iommu(tables[0] if tables else None, units, len(groups), cmdline)


def judge_iommu(table, units, group_count, cmdline):
    """Pure part of iommu(). The vendor comes from the firmware's table, never from the CPU."""
    vendor = {"DMAR": "intel", "IVRS": "amd"}.get(table)
    if vendor is None and any("smmu" in unit for unit in units):
        vendor = "arm"
    active = group_count > 0
    if active:
        reason = "active: %s, %d groups" % (", ".join(units) or "no unit named", group_count)
    elif units:
        reason = "%s there, but no PCI function is in a group" % ", ".join(units)
    elif table is None:
        reason = "the firmware offers neither a DMAR nor an IVRS table: switch VT-d or AMD-Vi on in its setup"
    else:
        reason = "the firmware offers a %s table, but %s" % (table, _why_off(vendor, cmdline))
    return {"active": active, "vendor": vendor, "firmware_table": table, "units": units, "reason": reason}


def _why_off(vendor, cmdline):
    tokens = cmdline.split()
    for token in reversed(tokens):
        name, dummy, value = token.partition("=")
        if name in ("iommu", vendor + "_iommu") and "off" in value.split(","):
            return "the command line says %s" % token
    if vendor == "intel" and not any(t.startswith("intel_iommu=") and "on" in t[12:].split(",") for t in tokens):
        return "this kernel leaves the IOMMU off and the command line has no intel_iommu=on"
    return "the kernel has no unit of it: its log says why"


def boot(inputs, cmdline):
    """``{firmware, loader, evidence}``: what booted, not what is installed."""
    host = inputs.host
    efi = host.isdir("/sys/firmware/efi")
    info = host.read_bytes(LOADER_INFO, 512) if efi else None
    loader, evidence = judge_loader(cmdline, info)
    return {"firmware": "efi" if efi else "bios", "loader": loader, "evidence": evidence}


def judge_loader(cmdline, loader_info):
    """``(loader, evidence)``. Signs that contradict each other give ``unknown``.

    :param loader_info: bytes of the EFI variable (four bytes of attributes, then UTF-16), or None.
    """
    said = set()
    evidence = []
    image = next((token for token in cmdline.split() if token.startswith("BOOT_IMAGE=")), None)
    if image:
        said.add("grub")
        evidence.append("/proc/cmdline has %s" % image)
    if loader_info:
        name = loader_info[4:].decode("utf-16-le", "replace").rstrip("\0")
        evidence.append("LoaderInfo is %r" % name)
        said.add({"systemd-boot": "systemd-boot", "GRUB": "grub"}.get(name.split(" ")[0], "unknown"))
    if not evidence:
        evidence.append("/proc/cmdline has no BOOT_IMAGE= and there is no LoaderInfo")
    return (said.pop() if len(said) == 1 else "unknown"), evidence


def initramfs(inputs):
    """The one generator that is installed; two or none are ``unknown``."""
    found = [name for name, paths in GENERATORS if _any(inputs.host, paths)]
    return {"generator": found[0] if len(found) == 1 else "unknown"}


def installed(inputs, paths):
    return {"installed": _any(inputs.host, paths)}


def _any(host, paths):
    return any(host.exists(path) for path in paths)
