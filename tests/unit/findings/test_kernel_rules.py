# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each rule about kernel and host with a machine that has what it finds, and near misses without it."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._findings import kernel
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import DOCS, View
from ansible_collections.vfio.host.tests.unit.machines import at, build, use

PAGES = pathlib.Path(__file__).resolve().parents[3] / DOCS
TABLE = {entry["code"]: entry for entry in kernel.RULES}
CHECKED = sorted(code for code in TABLE if TABLE[code]["check"])
"""VH320 is about what is asked for, so a plan makes it."""
GIB = 2**30


def evidence(code, machine):
    """The evidence of a code on a machine, None when it is not found; at most once, and at the host."""
    places = list(TABLE[code]["check"](View(machine)))
    assert len(places) <= 1 and all(place["host"] for place in places)
    return "\n".join(places[0]["evidence"]) if places else None


def host(code, section, **values):
    """Evidence on a desktop where one section of its host is changed."""
    machine = build()
    machine["host"][section].update(values)
    return evidence(code, machine)


@pytest.mark.parametrize("code", CHECKED)
def test_an_ordinary_desktop_has_none_of_these(code):
    assert evidence(code, build()) is None


@pytest.mark.parametrize("code", CHECKED)
def test_nothing_is_said_of_what_is_unknown(code):
    machine = build()
    machine["host"]["kernel"].update(release=None, cmdline="", config=None, builtin=None)
    machine["host"]["product"].update(vendor=None, name=None, virtual=None)
    machine["host"]["cpu"].update(vendor=None, count=None)
    machine["host"]["boot"].update(firmware=None, loader="unknown")
    machine["host"]["initramfs"].update(generator="unknown")
    machine["host"]["memory"].update(total=None, available=None)
    machine["host"]["numa"] = []
    assert evidence(code, machine) is None


@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_rule_has_a_page(code):
    lines = (PAGES / (code + ".md")).read_text(encoding="utf-8").splitlines()
    severity = TABLE[code]["severity"]
    if severity != "info":  # each of these is about the host, and only what is about a function can be acknowledged
        assert TABLE[code]["acknowledgeable"] is False
    assert lines[0] == "# %s: %s" % (code, TABLE[code]["title"])
    assert lines[2] == ("**info**" if severity == "info" else "**%s**, cannot be acknowledged" % severity)


@pytest.mark.parametrize("values", [{"builtin": ["vfio_pci"]}, {"config": {"VFIO_PCI": "y"}}])
def test_301_vfio_pci_is_built_in(values):
    assert "6.1.0-28-amd64" in host("VH301", "kernel", **values)


@pytest.mark.parametrize("values", [{"builtin": ["vfio", "xhci_pci"]}, {"config": {"VFIO_PCI": "m"}}])
def test_301_it_is_a_module(values):
    assert host("VH301", "kernel", **values) is None


def test_302_built_in_drivers_are_named_with_what_they_claim():
    machine = build()
    for address in ("00:1a.0", "00:1d.0", "03:00.0"):
        at(machine, address).update(modules=["xhci_pci"], builtin_modules=["xhci_pci"])
    use(machine, "00:1d.0", "VH207", "usb", "the only keyboard")
    at(machine, "00:1f.3").update(modules=["i2c_i801"], builtin_modules=["i2c_i801"])
    at(machine, "00:1c.0").update(modules=["pcieport"], builtin_modules=["pcieport"])
    assert evidence("VH302", machine) == (
        "xhci_pci is built into the kernel and claims 0000:00:1a.0 8086:1c2d usb, 0000:03:00.0 1b21:1042 usb.")


@pytest.mark.parametrize("change", [
    {"modules": ["xhci_pci"], "builtin_modules": []},
    {"modules": ["vfio_pci"], "builtin_modules": ["vfio_pci"]},
    {"builtin_modules": ["xhci_pci"], "physfn": "0000:02:00.0"},
    {"builtin_modules": ["xhci_pci"], "used_by": [{"kind": "usb", "what": "the only keyboard", "finding": "VH207"}]},
])
def test_302_a_driver_that_is_a_module_or_beside_the_point(change):
    machine = build()
    at(machine, "03:00.0").update(change)
    assert evidence("VH302", machine) is None


def test_302_many_functions_are_counted():
    machine = build("\n".join("00:%02x.0 endpoint 8086:1572 usb" % slot for slot in range(1, 24)))
    for function in machine["functions"]:
        function["builtin_modules"] = ["xhci_pci"]
    assert evidence("VH302", machine).endswith("0000:00:0a.0 8086:1572 usb and 13 more.")


def test_303_little_memory():
    assert "have 2.8 GiB together" in host("VH303", "memory", total=int(3.8 * GIB))
    assert "have 0.0 GiB together" in host("VH303", "memory", total=GIB // 2)
    assert host("VH303", "memory", total=4 * GIB) is None


def test_304_few_cpus():
    assert host("VH304", "cpu", count=3) == "The host has 3 logical CPUs."
    assert host("VH304", "cpu", count=1) == "The host has 1 logical CPU."
    assert host("VH304", "cpu", count=4) is None


def nodes(*sizes):
    return [{"node": number, "cpus": cpus, "memory": memory, "distances": {}}
            for number, (cpus, memory) in enumerate(sizes)]


def two_sockets(*sizes):
    machine = build()
    machine["host"]["numa"] = nodes(*sizes)
    for function in machine["functions"]:
        function["numa_node"] = 0
    at(machine, "01:00.0")["numa_node"] = at(machine, "01:00.1")["numa_node"] = 1
    at(machine, "03:00.0")["numa_node"] = None
    return machine


def test_305_which_functions_are_near_which_node():
    said = evidence("VH305", two_sockets((8, 32 * GIB), (8, None))).splitlines()
    assert len(said) == 3
    assert said[0].startswith("Node 0 has 8 CPUs and 32.0 GiB of memory; near it: 0000:00:02.0")
    assert "00:1f.0" not in said[0]  # the board's own
    assert said[1] == ("Node 1 has 8 CPUs and an unknown amount of memory; near it: "
                       "0000:01:00.0 10de:1380 vga, 0000:01:00.1 10de:0fbc audio.")
    assert said[2].endswith(": 0000:03:00.0 1b21:1042 usb.")


def test_305_all_is_known_but_the_cpus():
    machine = two_sockets((8, 32 * GIB), (None, 32 * GIB))
    for function in machine["functions"]:
        function["numa_node"] = 0
    said = evidence("VH305", machine).splitlines()
    assert said[1:] == ["Node 1 has an unknown number of CPUs and 32.0 GiB of memory; near it: "
                        "no function that one would assign."]


def test_305_one_node_is_no_news():
    assert evidence("VH305", two_sockets((16, 64 * GIB))) is None


@pytest.mark.parametrize("size, lacks", [
    ((8, 0), "no memory"), ((0, 32 * GIB), "no CPUs"), ((0, 0), "no CPUs and no memory"),
])
def test_313_a_device_near_a_poor_node(size, lacks):
    said = evidence("VH313", two_sockets((8, 32 * GIB), size))
    assert "Node 1 has %s, and near it are: 0000:01:00.0" % lacks in said


@pytest.mark.parametrize("sizes", [
    ((8, 32 * GIB), (8, 32 * GIB)), ((8, 32 * GIB), (None, None)), ((8, 32 * GIB), (8, 32 * GIB), (0, 0)),
])
def test_313_nodes_that_are_complete_unknown_or_far_from_everything(sizes):
    assert evidence("VH313", two_sockets(*sizes)) is None


def test_306_a_kernel_without_vfio_pci():
    assert TABLE["VH306"]["severity"] == "refuse"
    assert "6.1.0-28-amd64" in host("VH306", "kernel", config={"KVM": "y", "VFIO_PCI": "n"})
    assert "6.1.0-28-amd64" in host("VH306", "kernel", config={"KVM": "y"})
    assert host("VH306", "kernel", config={"KVM": "y", "VFIO_PCI": "m"}) is None
    assert host("VH306", "kernel", config={}) is None
    assert host("VH306", "kernel", config={"VFIO_PCI": "n"}, builtin=None) is not None


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci"])
def test_306_what_works_outweighs_the_file(driver):
    machine = build()
    machine["host"]["kernel"]["config"] = {"VFIO_PCI": "n"}
    at(machine, "01:00.0")["driver"] = driver
    assert evidence("VH306", machine) is None
    assert host("VH306", "kernel", config={"VFIO_PCI": "n"}, builtin=["vfio_pci"]) is None


def test_308_a_virtual_machine():
    assert host("VH308", "product", virtual=True, vendor="QEMU", name=None) == "The machine is virtual: QEMU."
    assert host("VH308", "product", virtual=True, vendor=None, name=None) == "The machine is virtual."
    assert host("VH308", "product", virtual=False, vendor="QEMU") is None


def test_309_what_the_collection_does_not_configure():
    assert host("VH309", "boot", loader="rEFInd", evidence=["LoaderInfo is 'rEFInd 0.14'", "more"]) == (
        "The boot loader is rEFInd: LoaderInfo is 'rEFInd 0.14'.")
    assert host("VH309", "boot", loader="unknown", evidence=[]) == "The boot loader is unknown."
    assert host("VH309", "initramfs", generator="booster") == "The initramfs generator is booster."


@pytest.mark.parametrize("firmware, line", [(None, "quiet"), ("bios", "")])
def test_309_nothing_is_known_of_the_boot(firmware, line):
    machine = build(cmdline=line)
    machine["host"]["boot"].update(firmware=firmware, loader="unknown")
    assert evidence("VH309", machine) is None


def test_309_knows_what_the_collection_configures():
    assert {cmdline.backend("grub").NAME, cmdline.backend("systemd_boot").NAME} == {"grub", "systemd_boot"}
    assert kernel.LOADERS == ("grub", "systemd-boot")
    assert kernel.GENERATORS == tuple(manage.GENERATORS)


def pages(*counts):
    return [{"size": size, "total": total, "free": total} for size, total in counts]


def test_310_huge_pages_leave_little():
    said = host("VH310", "memory", hugepages=pages((2 << 20, 3584), (GIB, 8)))
    assert "15.0 GiB of 16.0 GiB are reserved" in said and "1.0 GiB remain" in said
    assert host("VH310", "memory", hugepages=pages((2 << 20, 3072), (GIB, 8))) is None
    assert host("VH310", "memory", total=GIB, hugepages=pages((2 << 20, 0))) is None
    assert host("VH310", "memory", total=None, hugepages=pages((2 << 20, 3584))) is None


@pytest.mark.parametrize("token", ["amd_iommu=on", "iommu=pt", "iommu=pt,nobypass", "iommu.passthrough=1"])
def test_314_a_parameter_that_does_nothing(token):
    assert evidence("VH314", build(cmdline="quiet %s ro" % token)).startswith(token + ": ")


@pytest.mark.parametrize("line", [
    "intel_iommu=on", "amd_iommu=force_isolation", "iommu=nopt", "other=pt", "iommu.passthrough=0", "quiet -- iommu=pt",
])
def test_314_a_parameter_that_does_something(line):
    assert evidence("VH314", build(cmdline=line)) is None


TWINS = """
00:01.0 root_port 8086:0151 pci_bridge
01:00.0 endpoint 144d:a808 nvme < 00:01.0
00:1c.0 root_port 8086:1c10 pci_bridge
02:00.0 endpoint 144d:a808 nvme < 00:1c.0
00:1f.2 conventional 8086:1c02 sata multi
"""


@pytest.mark.parametrize("line, entry", [
    ("vfio-pci.ids=10de:1380,144d:a808", "144d:a808"),
    ("vfio_pci.ids=144D:A808", "144D:A808"),
    ('"vfio-pci.ids=144d:a808:ffffffff:84bb"', "144d:a808:ffffffff:84bb"),
    ("vfio-pci.ids=144d:a808:ffffffff:ffffffff:010800:ffff00", "144d:a808:ffffffff:ffffffff:010800:ffff00"),
])
def test_315_ids_that_mean_twins(line, entry):
    said = evidence("VH315", build(TWINS, cmdline=line))
    assert said == "%s means 0000:01:00.0 144d:a808 nvme, 0000:02:00.0 144d:a808 nvme." % entry


def test_315_one_that_the_host_uses():
    machine = use(build(TWINS, cmdline="vfio-pci.ids=8086:1c02"), "00:1f.2", "VH201", "disk", "/")
    assert evidence("VH315", machine) == "8086:1c02 means 0000:00:1f.2 8086:1c02 sata (the host uses it: /)."


@pytest.mark.parametrize("line", [
    "vfio-pci.ids=8086:1c02", "vfio-pci.ids=144d:a808:1043:1111", "vfio-pci.ids=144d:a808:1111", "other.ids=144d:a808",
    "vfio-pci.ids=144d:a808:ffffffff:ffffffff:020000:ff0000", "vfio-pci.ids=144d,zz:1,,:", "vfio-pci.ids",
    "quiet -- vfio-pci.ids=144d:a808",
])
def test_315_ids_that_are_unique_or_mean_nothing(line):
    assert evidence("VH315", build(TWINS, cmdline=line)) is None


@pytest.mark.parametrize("token", [
    "video=efifb:off", "video=vesafb:off,efifb:off", "video=simplefb:off", "initcall_blacklist=foo,sysfb_init",
])
def test_316_a_framebuffer_that_stays(token):
    machine = build(cmdline="quiet " + token)
    assert evidence("VH316", machine) is None
    machine["host"]["framebuffer"] = {"name": "BOOTFB", "start": 0xD0000000, "end": 0xD02FFFFF,
                                      "function": "0000:01:00.0"}
    said = evidence("VH316", machine)
    assert token in said and "BOOTFB in a BAR of 0000:01:00.0" in said
    machine["host"]["framebuffer"]["function"] = None
    assert "shows BOOTFB." in evidence("VH316", machine)


def test_316_nobody_asked():
    machine = build(cmdline="quiet video=HDMI-A-1:1920x1080 initcall_blacklist=foo")
    machine["host"]["framebuffer"] = {"name": "BOOTFB", "start": 1, "end": 2, "function": None}
    assert evidence("VH316", machine) is None
