# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions, groups and platform of whole trees."""

from __future__ import annotations

import json
import struct

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import names, network_backend, platform
from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import FakeMachine, base, p8h67


def functions(document):
    return {function["address"]: function for function in document["functions"]}


@pytest.fixture
def machine(tmp_path):
    p8h67(tmp_path)
    return collect(Host(str(tmp_path)))


def test_document_is_plain_and_complete(machine):
    assert json.loads(json.dumps(machine)) == machine
    assert machine["schema"] == 2
    assert [missing["input"] for missing in machine["source"]["missing"]] == ["/run/udev/data"]
    assert machine["host"]["usage_unknown"] == []
    assert [f["address"] for f in machine["functions"]] == sorted(functions(machine))


def test_a_function(machine):
    display = functions(machine)["0000:01:00.0"]
    expected = {
        "id": "1234:1111", "class": "030000", "class_name": "vga", "vendor_name": "QEMU",
        "device_name": "Virtual Video Controller", "revision": "02", "driver": None, "driver_override": None,
        "modules": ["bochs"], "parent": "0000:00:01.0", "port_type": "endpoint", "is_bridge": False,
        "multifunction": True, "physfn": None, "boot_vga": False, "reset_methods": ["pm", "bus"], "irq": 11,
        "numa_node": None, "group": "1", "confidence": "actual", "used_by": [],
        "group_members": ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"],
        "resources": [{"bar": 0, "start": 0xF0000000, "size": 0x1000000, "flags": ["mem", "prefetchable"]}],
    }
    assert {key: display[key] for key in expected} == expected
    assert functions(machine)["0000:00:19.0"]["serial"] == "52-54-00-ff-ff-12-34-56"
    assert functions(machine)["0000:00:1f.2"]["modules"] == ["ahci"]
    # function 2 of a slot is on a multifunction device whatever its own header says
    assert functions(machine)["0000:00:1f.2"]["multifunction"] is True


def test_groups_are_the_kernels(machine):
    members = {group["number"]: group["members"] for group in machine["groups"]}
    assert members["6"] == ["0000:00:1f.0", "0000:00:1f.2"]
    assert list(members) == [str(number) for number in range(7)]
    assert {group["source"] for group in machine["groups"]} == {"actual"}


def test_iommu_state(machine):
    assert machine["host"]["iommu"] == {
        "active": True, "vendor": "intel", "firmware_table": "DMAR", "units": ["dmar0"],
        "reason": "active: dmar0, 7 groups", "interrupt_remapping": True, "unsafe_interrupts": None, "rmrr": None,
        "rcba": None, "uncovered": None,
    }
    assert machine["host"]["cpu"] == {"vendor": "AuthenticAMD", "model": None, "count": 2, "cores": None,
                                      "threads": None, "gigantic_pages": None}


def test_cores_and_their_threads():
    text = "\n\n".join(
        "processor\t: %d\nphysical id\t: %d\ncore id\t\t: %d\nflags\t\t: fpu %s lm" % (n, n % 4 // 2, n % 2, flag)
        for n, flag in enumerate(["pdpe1gb"] * 8))
    found = platform.cpu(text)
    assert (found["count"], found["cores"], found["gigantic_pages"]) == (8, 4, True)
    assert found["threads"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert platform.cpu(text.replace("pdpe1gb", "pdpe1g"))["gigantic_pages"] is False
    assert platform.cpu(text.replace("core id", "core", 1))["threads"] is None


def test_iommu_off(tmp_path):
    p8h67(tmp_path, iommu=False)
    machine = collect(Host(str(tmp_path)))
    assert ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1"] in [group["members"] for group in machine["groups"]]
    assert {group["source"] for group in machine["groups"]} == {"predicted"}
    assert machine["host"]["iommu"]["active"] is False
    assert "no intel_iommu=on" in machine["host"]["iommu"]["reason"]
    assert {f["confidence"] for f in machine["functions"]} == {"predicted"}
    assert {f["group"] for f in machine["functions"]} == {None}
    # the use of a device does not depend on the IOMMU
    assert functions(machine)["0000:00:1f.2"]["used_by"][0]["finding"] == "VH201"


def test_a_member_that_is_no_pci_function_is_in_the_group(tmp_path):
    machine = p8h67(tmp_path)
    machine.folder("/sys/devices/platform/INTC1234:00")
    machine.link("/sys/kernel/iommu_groups/6/devices/INTC1234:00", "/sys/devices/platform/INTC1234:00")
    found = functions(collect(Host(str(tmp_path))))["0000:00:1f.2"]
    assert found["group_members"] == ["0000:00:1f.0", "0000:00:1f.2", "INTC1234:00"]


def test_groups_of_vfio_without_iommu_are_none(tmp_path):
    machine = base(tmp_path, table=None)
    machine.pci("0000:00:03.0", "8086:10d3", "020000", group=0)
    machine.write("/sys/kernel/iommu_groups/0/name", "vfio-noiommu\n")
    found = collect(Host(str(tmp_path)))
    assert [group["source"] for group in found["groups"]] == ["predicted"] and found["functions"][0]["group"] is None
    assert found["host"]["iommu"]["active"] is False


def test_unreadable_config_is_named(tmp_path):
    machine = p8h67(tmp_path)
    machine.pci("0000:00:1b.0", "8086:293e", "040300", config=b"\xff" * 4096)
    found = collect(Host(str(tmp_path)))
    assert functions(found)["0000:00:1b.0"]["capabilities"] is None
    assert [miss["input"] for miss in found["source"]["missing"]] == ["config of 0000:00:1b.0", "/run/udev/data"]


def test_virtual_function_knows_its_physical_one(tmp_path):
    machine = p8h67(tmp_path)
    home = machine.pci("0000:00:19.1", "8086:10ca", "020000", express=0)
    machine.link(home + "/physfn", machine.homes["0000:00:19.0"])
    found = functions(collect(Host(str(tmp_path))))["0000:00:19.1"]
    assert (found["physfn"], found["multifunction"]) == ("0000:00:19.0", False)


def test_an_empty_tree_gives_a_document_that_knows_nothing(tmp_path):
    machine = collect(Host(str(tmp_path)))
    assert machine["functions"] == []
    assert {"disk", "ssh"} <= set(machine["host"]["usage_unknown"])
    assert "/sys/bus/pci/devices" in [miss["input"] for miss in machine["source"]["missing"]]


def test_reset_methods_before_linux_5_15(tmp_path):
    machine = base(tmp_path)
    for address in ("0000:00:03.0", "0000:00:04.0"):
        home = machine.pci(address, "8086:10d3", "020000")
        (tmp_path / (home[1:] + "/reset_method")).unlink()
    machine.write(machine.homes["0000:00:03.0"] + "/reset", "")
    found = functions(collect(Host(str(tmp_path))))
    assert [found[a]["reset_methods"] for a in sorted(found)] == [["unknown"], []]


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code, slug", [
    ("030000", "vga"), ("030200", "3d"), ("040300", "audio"), ("0c0330", "usb"), ("010802", "nvme"),
    ("000000", "other"), ("ff0000", "other"), ("088000", "0880"),
])
def test_class_names(code, slug):
    assert names.class_name(code) == slug


def test_pci_names_stop_at_the_next_vendor():
    text = "1111  One\n\taaaa  A\n\t\t1af4 1100  sub\n# note\n\tbbbb  B\n2222  Two\n\tcccc  C"
    wanted = {("1111", "bbbb"), ("1111", "cccc"), ("2222", "cccc"), ("3333", "aaaa")}
    assert names.pci_names(text, wanted) == {
        ("1111", "bbbb"): ("One", "B"), ("1111", "cccc"): ("One", None), ("2222", "cccc"): ("Two", "C"),
        ("3333", "aaaa"): (None, None),
    }


def test_modules_by_id_by_class_and_several():
    text = (
        "alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau\nalias pci:v000010DEd00001380sv*sd*bc*sc*i* nvidia\n"
        "alias pci:v000010DEd00001381sv*sd*bc*sc*i* other\nalias pci:v*d*sv*sd*bc0Csc03i30* xhci_pci\n"
        "alias usb:v1d6Bp0001d*dc*dsc*dp*ic*isc*ip*in* hub\n"
    )
    gpu = "pci:v000010DEd00001380sv00001043sd00000000bc03sc00i00"
    usb = "pci:v00001033d00000194sv00000000sd00000000bc0Csc03i30"
    loadable, variants = names.modules_for(text + "alias vfio_pci:v000010DEd00001380sv*sd*bc*sc*i* nvgrace\n"
                                           "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n", [gpu, usb])
    assert loadable == {gpu: ["nouveau", "nvidia"], usb: ["xhci_pci"]}
    assert variants == {gpu: ["nvgrace"], usb: []}


def test_built_in_drivers():
    usb = "pci:v00001033d00000194sv00000000sd00000000bc0Csc03i30"
    text = "xhci_pci.alias=pci:v*d*sv*sd*bc0Csc03i30*\0xhci_pci.license=GPL\0ahci.alias=pci:v*d*sv*sd*bc01sc06i01*\0"
    assert names.builtin_for(text, [usb]) == {usb: ["xhci_pci"]}


# -- platform ----------------------------------------------------------------------------------


@pytest.mark.parametrize("table, units, groups, cmdline, vendor, words", [
    (None, [], 0, "", None, "neither a DMAR nor an IVRS"),
    ("DMAR", [], 0, "quiet", "intel", "no intel_iommu=on"),
    ("DMAR", [], 0, "intel_iommu=on,sm_on intel_iommu=off", "intel", "says intel_iommu=off"),
    ("DMAR", [], 0, "iommu=off intel_iommu=on", "intel", "says iommu=off"),
    ("DMAR", [], 0, "intel_iommu=on", "intel", "its log says why"),
    ("IVRS", [], 0, "amd_iommu=off", "amd", "says amd_iommu=off"),
    ("DMAR", ["dmar0"], 0, "", "intel", "no PCI function is in a group"),
    ("IVRS", ["ivhd0"], 9, "", "amd", "active: ivhd0, 9 groups"),
    (None, ["smmu3.0x1"], 3, "", "arm", "active"),
])
def test_iommu_reasons(table, units, groups, cmdline, vendor, words):
    found = platform.judge_iommu(table, units, groups, cmdline)
    assert found["vendor"] == vendor and words in found["reason"] and found["active"] == (groups > 0)


def info(name):
    return b"\x06\0\0\0" + (name + "\0").encode("utf-16-le")


@pytest.mark.parametrize("cmdline, loader_info, loader", [
    ("BOOT_IMAGE=/vmlinuz ro", None, "grub"),
    ("ro", info("systemd-boot 252.22-1"), "systemd-boot"),
    ("BOOT_IMAGE=/vmlinuz", info("GRUB 2.12"), "grub"),
    ("BOOT_IMAGE=/vmlinuz", info("systemd-boot 252"), "unknown"),
    ("ro", info("rEFInd"), "unknown"),
    ("ro", None, "unknown"),
])
def test_loader(cmdline, loader_info, loader):
    found, evidence = platform.judge_loader(cmdline, loader_info)
    assert found == loader and evidence


def test_boot_of_the_tree(machine):
    assert machine["host"]["boot"] == {
        "firmware": "bios", "loader": "grub", "evidence": ["/proc/cmdline has BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64"],
    }
    assert machine["host"]["memory"] == {"total": 4028440 * 1024, "available": None, "hugepages": []}


def test_machine_name_of_older_kernels():
    assert platform.machine("flags\t\t: fpu vme lm sse\n") == "x86_64"
    assert platform.machine("CPU architecture: 8\n") == "aarch64"
    assert platform.machine("flags : fpu\n") is None


@pytest.mark.parametrize("paths, generator", [
    ([], "unknown"),
    (["/usr/sbin/mkinitramfs"], "initramfs-tools"),
    (["/usr/bin/dracut"], "dracut"),
    (["/usr/bin/mkinitcpio"], "mkinitcpio"),
    (["/usr/bin/dracut", "/usr/sbin/mkinitramfs"], "unknown"),
])
def test_initramfs_generator(tmp_path, paths, generator):
    machine = base(tmp_path)
    for path in paths:
        machine.write(path)
    assert collect(Host(str(tmp_path)))["host"]["initramfs"] == {"generator": generator}


def backend(tmp_path, interfaces=None):
    links = interfaces or [{"name": "enp0s25", "index": 2, "kind": "physical"}]
    return network_backend.read(Inputs(Host(str(tmp_path))), links)


def networkd(machine, index=2, state="configured"):
    machine.folder("/run/systemd/system")
    machine.folder("/sys/fs/cgroup/system.slice/systemd-networkd.service")
    machine.write("/run/systemd/netif/links/%d" % index, "# private\nADMIN_STATE=%s\n" % state)


def networkmanager(machine, index=2):
    machine.folder("/run/systemd/system")
    machine.folder("/sys/fs/cgroup/system.slice/NetworkManager.service")
    machine.write("/run/NetworkManager/devices/%d" % index, "[device]\nmanaged=true\n")


def ifupdown(machine, name="enp0s25"):
    machine.write("/etc/network/interfaces", "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n")
    machine.write("/etc/network/interfaces.d/setup", "auto %s\niface %s inet dhcp\n" % (name, name))
    machine.write("/run/network/ifstate", "lo=lo\n%s=%s\n" % (name, name))


@pytest.mark.parametrize("prepare, name", [
    ([], "unknown"), ([networkd], "networkd"), ([networkmanager], "networkmanager"), ([ifupdown], "ifupdown"),
    ([networkd, ifupdown], "unknown"),
])
def test_network_backend(tmp_path, prepare, name):
    for step in prepare:
        step(FakeMachine(tmp_path))
    found = backend(tmp_path)
    assert found["backend"] == name and len(found["evidence"]) == max(1, len(prepare))


def test_state_left_by_a_stopped_service_does_not_count(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.folder("/run/systemd/system")
    machine.write("/run/systemd/netif/links/2", "ADMIN_STATE=configured\n")
    machine.write("/run/NetworkManager/devices/2", "managed=true\n")
    assert backend(tmp_path) == {"backend": "unknown", "evidence": ["no service was found that manages a link"]}


def test_links_that_a_service_leaves_alone_do_not_count(tmp_path):
    machine = FakeMachine(tmp_path)
    networkd(machine, state="unmanaged")
    networkmanager(machine)
    assert backend(tmp_path)["backend"] == "networkmanager"


def test_virtual_links_do_not_count(tmp_path):
    networkd(FakeMachine(tmp_path))
    assert backend(tmp_path, [{"name": "ve-x", "index": 2, "kind": "virtual"}])["backend"] == "unknown"


def test_an_interface_that_ifupdown_did_not_bring_up_does_not_count(tmp_path):
    machine = FakeMachine(tmp_path)
    ifupdown(machine)
    machine.write("/run/network/ifstate", "lo=lo\n")
    assert backend(tmp_path)["backend"] == "unknown"


def test_netplan_over_networkd(tmp_path):
    machine = FakeMachine(tmp_path)
    networkd(machine)
    machine.write("/run/systemd/network/10-netplan-enp0s25.network", "")
    found = backend(tmp_path)
    assert found["backend"] == "netplan" and len(found["evidence"]) == 2


# -- what the firmware's tables cover ------------------------------------------------------------


def drhd(flags, *scopes, segment=0):
    """A DRHD structure; a scope is ``(kind, bus, path)``, the path pairs of slot and function."""
    body = b"".join(bytes([kind, 6 + 2 * len(path), 0, 0, 0, bus]) + bytes(n for step in path for n in step)
                    for kind, bus, path in scopes)
    return struct.pack("<HHBBHQ", 0, 16 + len(body), flags, 0, segment, 0xFED90000) + body


def test_functions_that_no_drhd_covers():
    functions = [{"address": a, "parent": p, "physfn": v} for a, p, v in (
        ("0000:00:02.0", None, None), ("0000:00:01.0", None, None), ("0000:01:00.0", "0000:00:01.0", None),
        ("0000:40:01.0", None, None), ("0000:41:00.1", "0000:40:01.0", "0000:41:00.0"), ("10000:e1:00.0", None, None))]
    explicit = bytes(48) + drhd(0, (1, 0, [(2, 0)])) + drhd(0, (2, 0, [(1, 0)]))
    assert platform.left_out(functions, platform.parse_drhd(explicit, {"0000:00:01.0": 1})) == ["0000:40:01.0"]
    behind = bytes(48) + drhd(0, (1, 0, [(1, 0), (0, 0)]))  # the path to 01:00.0, through the bridge
    assert platform.parse_drhd(behind, {"0000:00:01.0": 1})[1] == {"0000:01:00.0"}
    assert platform.left_out(functions, platform.parse_drhd(bytes(48) + drhd(1), {})) == []
    assert platform.left_out(functions, platform.parse_drhd(bytes(48) + drhd(1, segment=1), {})) != []
    assert platform.left_out(functions, platform.parse_drhd(bytes(48), {})) is None


def ivhd(kind, *entries):
    head = struct.pack("<BBHHHQHH", kind, 0, 0, 2, 0x40, 0xFEB80000, 0, 0) + bytes(4 if kind == 0x10 else 20)
    block = bytearray(head + b"".join(entries))
    struct.pack_into("<H", block, 2, len(block))
    return bytes(block)


def entry(kind, device):
    return struct.pack("<BHB", kind, device, 0) + bytes((4 << (kind >> 6)) - 4)


def test_functions_that_no_ivhd_covers():
    functions = [{"address": a, "parent": None, "physfn": None} for a in ("0000:00:00.0", "0000:00:01.0", "0000:03:00.0")]
    ranged = bytes(48) + ivhd(0x10, entry(0x42, 0xA0), entry(0x03, 0x08), entry(0x04, 0xFFFF))
    assert platform.left_out(functions, platform.parse_ivrs(ranged)) == ["0000:00:00.0"]
    # the kernel reads the blocks of the highest kind only
    both = ranged + ivhd(0x11, entry(0x01, 0))
    assert platform.left_out(functions, platform.parse_ivrs(both)) == []
    assert platform.left_out(functions, platform.parse_ivrs(bytes(48) + ivhd(0x10, entry(0x02, 0x300)))) == [
        "0000:00:00.0", "0000:00:01.0"]
    assert platform.left_out(functions, platform.parse_ivrs(bytes(48))) is None


@pytest.mark.parametrize("text, found", [
    (None, []),
    ("# pf 0000:09:00.0 8086 10c9 - 3 0\npf 0000:02:00.0 8086 10c9 - 2 0\nvf 0000:02:00.0 0 vfio-pci - - - - -\npf broken\n",
     [{"address": "0000:02:00.0", "count": 2}]),
])
def test_virtual_functions_that_are_asked_for(tmp_path, text, found):
    machine = p8h67(tmp_path)
    if text:
        machine.write("/etc/vfio-host/sriov", text)
    assert collect(Host(machine.root))["host"]["sriov"] == found
