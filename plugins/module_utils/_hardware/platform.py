# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the host is apart from its PCI functions: kernel, CPU, IOMMU, boot, memory, packages."""

from __future__ import annotations

import json
import re
import zlib

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs
from ansible_collections.vfio.host.plugins.module_utils._sriov import wanted as sriov

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


CONFIG_OPTIONS = (
    "INTEL_IOMMU", "INTEL_IOMMU_DEFAULT_ON", "INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF", "AMD_IOMMU", "IRQ_REMAP",
    "IOMMU_DEFAULT_PASSTHROUGH", "VFIO", "VFIO_PCI", "VFIO_PCI_IGD", "VFIO_PCI_VGA", "VFIO_IOMMU_TYPE1",
    "KVM", "IOMMUFD", "CPU_ISOLATION", "NO_HZ_FULL", "RCU_NOCB_CPU", "HUGETLBFS",
)
"""Options of the kernel's configuration that matter here."""

BUILTIN = ("vfio", "vfio_pci", "vfio_iommu_type1", "kvm", "xhci_pci", "nvme", "ahci", "i915", "amdgpu", "nouveau",
           "simpledrm", "snd_hda_intel", "igb", "ixgbe", "e1000e")
"""Modules of which it matters whether they are built into the kernel."""

FOUND = "/var/lib/vfio-host/found.json"
"""What the last run found, in short; written by the site playbook."""


def kernel(inputs, cpuinfo):
    host = inputs.host
    release = inputs.text("/proc/sys/kernel/osrelease", "the running kernel is unknown").strip() or None
    cmdline = inputs.text("/proc/cmdline", "what the kernel was started with is unknown").strip()
    modules = host.read("/lib/modules/%s/modules.builtin" % release) if release else None
    return {
        "release": release,
        "cmdline": cmdline,
        "machine": host.read_attribute("/proc/sys/kernel/arch") or machine(cpuinfo),
        "config": _config(host, release),
        "builtin": parse_builtin(modules) if modules else None,
        "acs_override": override_option(cmdline),
        "quirk_table": acs.quirk_table(release),
    }


def override_option(cmdline):
    """Value of the override patch's option, None without it."""
    values = [t.partition("=")[2] for t in cmdline.split() if t.startswith("pcie_acs_override=")]
    return ",".join(values) if values else None


def parse_builtin(text):
    """Those of BUILTIN that modules.builtin lists, sorted."""
    listed = {re.sub(r"\.ko.*$", "", line.rpartition("/")[2]).replace("-", "_") for line in text.splitlines()}
    return sorted(listed & set(BUILTIN))


def _config(host, release):
    """``{option: "y", "m" or "n"}`` from the kernel's configuration, or None."""
    text = host.read("/boot/config-%s" % release) or host.read("/lib/modules/%s/config" % release) if release else None
    if not text:
        packed = host.read_bytes("/proc/config.gz", 1 << 20)
        try:
            text = zlib.decompress(packed, 31).decode("ascii", "replace") if packed else None  # 31: gzip's header
        except zlib.error:
            text = None
    return parse_config(text) if text else None


def parse_config(text):
    """The options of CONFIG_OPTIONS; one that the text does not set is ``n``. None for what is no configuration."""
    found = dict(re.findall(r"^CONFIG_(\w+)=([ym])$", text, re.MULTILINE))
    return {option: found.get(option, "n") for option in CONFIG_OPTIONS} if found else None


def product(inputs, cpuinfo):
    """What the machine says of itself (DMI), and whether it is a virtual one."""
    def said(name):
        text = inputs.host.read_attribute("/sys/class/dmi/id/" + name)
        return text or None

    virtual = None
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if flags:
        virtual = " hypervisor " in flags.group(1) + " "
    return {
        "vendor": said("sys_vendor"),
        "name": said("product_name"),
        "board": said("board_name"),
        "firmware": said("bios_version"),
        "firmware_date": said("bios_date"),
        "virtual": virtual,
    }


def numa(inputs):
    """``[{node, cpus, memory, distances}]``, [] when unknown."""
    host = inputs.host
    home = "/sys/devices/system/node"
    nodes = sorted(int(name[4:]) for name in host.listdir(home) if re.match(r"^node\d+$", name))
    result = []
    for node in nodes:
        folder = "%s/node%d" % (home, node)
        size = re.search(r"MemTotal:\s+(\d+) kB", host.read(folder + "/meminfo") or "")
        cpus = host.read_attribute(folder + "/cpulist")
        distances = (host.read_attribute(folder + "/distance") or "").split()
        result.append({
            "node": node,
            "cpus": None if cpus is None else count_list(cpus),
            "memory": int(size.group(1)) * 1024 if size else None,
            "distances": {str(n): int(d) for n, d in zip(nodes, distances) if d.isdigit()},
        })
    return result


def count_list(text):
    """How many numbers a list like ``0-3,8`` has."""
    total = 0
    for part in text.split(","):
        first, dummy, last = part.partition("-")
        if first.strip().isdigit() and (last or first).strip().isdigit():
            total += max(int(last or first) - int(first) + 1, 0)
    return total


def machine(cpuinfo):
    """Machine name from the text of /proc/cpuinfo, for kernels before 6.1; None when unclear."""
    if re.search(r"^flags\s*:.*\blm\b", cpuinfo, re.MULTILINE):
        return "x86_64"
    if re.search(r"^CPU architecture\s*: 8", cpuinfo, re.MULTILINE):
        return "aarch64"
    return None


def cpu(cpuinfo):
    """``{vendor, model, count, cores, threads, gigantic_pages}`` from the text of /proc/cpuinfo."""
    vendor = re.search(r"^(?:vendor_id|CPU implementer)\s*: (.*)$", cpuinfo, re.MULTILINE)
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    count = len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))
    cores = {}
    for block in cpuinfo.split("\n\n"):
        ids = [re.search(r"^%s\s*: (\d+)$" % name, block, re.MULTILINE)
               for name in ("physical id", "core id", "processor")]
        if all(ids):
            cores.setdefault(tuple(int(found.group(1)) for found in ids[:2]), []).append(int(ids[2].group(1)))
    return {
        "vendor": vendor.group(1).strip() if vendor else None,
        "model": model.group(1).strip() if model else None,
        "count": count,
        "cores": len(cores) or None,
        "threads": sorted(cores.values()) if count and sum(map(len, cores.values())) == count else None,
        "gigantic_pages": "pdpe1gb" in flags.group(1).split() if flags else None,
    }


def memory(inputs):
    """Sizes in bytes: ``{total, available, hugepages: [{size, total, free}]}``."""
    host = inputs.host
    text = inputs.text("/proc/meminfo", "memory size unknown")
    pages = []
    for name in host.listdir("/sys/kernel/mm/hugepages"):
        size = re.match(r"^hugepages-(\d+)kB$", name)
        counts = [host.read_attribute("/sys/kernel/mm/hugepages/%s/%s" % (name, what)) or ""
                  for what in ("nr_hugepages", "free_hugepages")]
        if size and all(count.isdigit() for count in counts):
            pages.append({"size": int(size.group(1)) * 1024, "total": int(counts[0]), "free": int(counts[1])})

    def bytes_of(name):
        found = re.search(r"^%s:\s+(\d+) kB" % name, text, re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None

    return {"total": bytes_of("MemTotal"), "available": bytes_of("MemAvailable"), "hugepages": pages}


def requested(inputs):
    """What the list of devices for vfio-pci asks for, [] without one; an unreadable line is a missing input."""
    text = inputs.host.read(_assignment_state.DEVICES)
    if not text:
        return []
    try:
        return _assignment_state.parse(text)
    except ValueError as exc:
        inputs.miss(_assignment_state.DEVICES, "what was asked for is unknown: %s" % exc)
        return []


def sriov_requested(inputs):
    """Physical functions that shall have virtual ones at each boot: ``[{address, count}]``, [] without a list."""
    counts = sriov.listed(inputs.host.read(sriov.LIST))
    return [{"address": address, "count": count} for address, count in sorted(counts.items())]


def previous(inputs):
    """What the last run found (FOUND), or None."""
    text = inputs.host.read(FOUND)
    if not text:
        return None
    try:
        found = json.loads(text)
        return {"functions": dict(found["functions"]), "groups": [list(group) for group in found["groups"]]}
    except (ValueError, KeyError, TypeError):
        inputs.miss(FOUND, "what the last run found cannot be read")
        return None


def found_summary(machine):
    """What FOUND keeps of a machine document: identities, and the kernel's own groups without their numbers."""
    return {
        "functions": {f["address"]: {
            "id": f["id"],
            "subsystem": "%s:%s" % (f["subsystem_vendor"], f["subsystem_device"]),
            "class": f["class"],
            "serial": f["serial"],
        } for f in machine["functions"]},
        "groups": sorted(group["members"] for group in machine["groups"] if group["source"] == "actual"),
    }


def iommu(inputs, cmdline, groups, rcba, functions):
    """State of the IOMMU and one sentence why; ``groups`` as groups.read() returns them."""
    host = inputs.host
    tables = [table for table in ("DMAR", "IVRS") if host.exists("%s/%s" % (ACPI_TABLES, table))]
    units = host.listdir(IOMMU_UNITS)
    found = judge_iommu(tables[0] if tables else None, units, len(groups), cmdline)
    unsafe = host.read_attribute("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
    dmar, ivrs = [host.read_bytes("%s/%s" % (ACPI_TABLES, table)) if table in tables else None
                  for table in ("DMAR", "IVRS")]
    behind = {f["address"]: f["bus"]["secondary"] for f in functions if f["bus"]}
    found.update(
        interrupt_remapping=_interrupt_remapping(inputs, found["active"]),
        unsafe_interrupts={"Y": True, "1": True, "N": False, "0": False}.get(unsafe),
        rmrr=parse_rmrr(dmar, behind) if dmar else None,
        uncovered=left_out(functions, parse_drhd(dmar, behind) if dmar else parse_ivrs(ivrs) if ivrs else None),
        rcba=rcba,
    )
    return found


def _interrupt_remapping(inputs, active):
    """Whether interrupts are remapped: their chips are then called IR-... in /proc/interrupts (x86)."""
    text = inputs.host.read("/proc/interrupts")
    if not text:
        if active:
            inputs.miss("/proc/interrupts", "whether interrupts are remapped is unknown")
        return None
    if re.search(r"\sIR-", text):
        return True
    return False if re.search(r"\s(IO-APIC|PCI-MSI)", text) else None


def parse_rmrr(data, secondary):
    """``[{start, end, functions}]``: memory of the DMAR table that firmware reserves for functions.

    VT-d specification 8.4 and 8.3.1. :param secondary: ``{bridge: bus number behind it}``, to follow paths.
    """
    found = []
    at = 48
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 2:at + 4], "little")
        if size < 4:
            break
        if data[at:at + 2] == b"\x01\x00" and at + 24 <= len(data):
            segment = int.from_bytes(data[at + 6:at + 8], "little")
            found.append({
                "start": int.from_bytes(data[at + 8:at + 16], "little"),
                "end": int.from_bytes(data[at + 16:at + 24], "little"),
                "functions": _scope(data[at + 24:at + size], segment, secondary),
            })
        at += size
    return found


def parse_drhd(data, secondary):
    """``(segments whose every function is covered, addresses, bridges with all behind them)``; None for no unit.

    VT-d specification 8.3: flag 0 of a DRHD structure covers all that no other unit of its segment names.
    """
    whole, single, bridges, found = set(), set(), set(), False
    at = 48
    while at + 16 <= len(data):
        size = int.from_bytes(data[at + 2:at + 4], "little")
        if size < 4:
            break
        if data[at:at + 2] == b"\0\0":
            found = True
            segment = int.from_bytes(data[at + 6:at + 8], "little")
            if data[at + 4] & 1:
                whole.add(segment)
            scope = data[at + 16:at + size]
            single.update(_scope(scope, segment, secondary, (1,)))
            bridges.update(_scope(scope, segment, secondary, (2,)))
        at += size
    return (whole, single, bridges) if found else None


def parse_ivrs(data):
    """The same of an IVRS table: ``(segments, addresses, ())``; None where nothing is understood.

    AMD I/O Virtualization Technology specification, 5.2.2: of the kinds of IVHD block the kernel takes the highest.
    """
    blocks = []
    at = 48
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 2:at + 4], "little")
        if size < 4:
            break
        if data[at] in (0x10, 0x11, 0x40):
            blocks.append((data[at], data[at:at + size]))
        at += size
    whole, single = set(), set()
    for kind, block in blocks:
        if kind == max(other for other, dummy in blocks):
            segment = int.from_bytes(block[16:18], "little")
            everything, devices = _ivhd(block[24 if kind == 0x10 else 40:])
            whole.update([segment] if everything else [])
            single.update("%04x:%02x:%02x.%d" % (segment, d >> 8, d >> 3 & 0x1F, d & 7) for d in devices)
    return (whole, single, ()) if whole or single else None


def _ivhd(data):
    """``(all functions, ids)`` of the device entries of an IVHD block."""
    everything, ids, start, at = False, set(), None, 0
    while at + 4 <= len(data) and at < 1 << 14:  # a real block has some dozens of entries
        kind, device = data[at], int.from_bytes(data[at + 1:at + 3], "little")
        if kind == 0x01:
            everything = True
        elif kind in (0x02, 0x42, 0x46):
            ids.add(device)
        elif kind in (0x03, 0x43, 0x47):
            start = device
        elif kind == 0x04 and start is not None:
            ids.update(range(start, device + 1))
            start = None
        elif kind == 0xF0 and at + 22 <= len(data):
            at += 22 + data[at + 21]
            continue
        at += 4 << (kind >> 6)
    return everything, ids


def left_out(functions, units):
    """Sorted addresses that no unit covers, virtual functions left to their physical one; None when unknown."""
    if units is None:
        return None
    whole, single, bridges = units
    parents = {f["address"]: f["parent"] for f in functions}
    found = []
    for function in functions:
        here, steps = function["address"], 0
        covered = int(here.split(":")[0], 16) in whole or here in single or function["physfn"] is not None
        while here and not covered and steps < 256:
            covered = here in bridges
            here, steps = parents.get(here), steps + 1
        if not covered and int(function["address"].split(":")[0], 16) < 0x10000:  # VMD's children have its requests
            found.append(function["address"])
    return found


def _scope(data, segment, secondary, kinds=(1, 2)):
    """Addresses of a device scope: entries of type, length, flags, reserved, id, start bus and a path."""
    addresses = []
    at = 0
    while at + 8 <= len(data) and data[at + 1] >= 8:
        bus, address = data[at + 5], None
        for step in range(at + 6, min(at + data[at + 1], len(data)) - 1, 2):
            if bus is None:
                address = None
                break
            address = "%04x:%02x:%02x.%d" % (segment, bus, data[step] & 0x1F, data[step + 1] & 7)
            bus = secondary.get(address)
        if data[at] in kinds and address:
            addresses.append(address)
        at += data[at + 1]
    return addresses


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
