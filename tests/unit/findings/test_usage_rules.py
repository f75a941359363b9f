# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host needs for itself: VH2xx, each with the near miss."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings import usage
from ansible_collections.vfio.host.plugins.module_utils._findings.rules import evaluate
from ansible_collections.vfio.host.tests.unit.machines import P8H67, at, build, full, p8h67_on, use

PAGES = pathlib.Path(__file__).resolve().parents[3] / "docs" / "findings"
XHCI, GPU, IGPU, CARD2 = "03:00.0", "01:00.0", "00:02.0", "02:00.0"


def found(machine, code):
    """``{place: evidence}`` of a code."""
    return {f.get("device") or f["host"]: f["evidence"] for f in evaluate(machine) if f["code"] == code}


def places(machine, code):
    return sorted(found(machine, code))


@pytest.mark.parametrize("entry", usage.RULES, ids=lambda entry: entry["code"])
def test_each_rule_has_its_page(entry):
    text = (PAGES / (entry["code"] + ".md")).read_text(encoding="utf-8")
    severity = "**%s**" % entry["severity"]
    if entry["severity"] != "info":
        severity += ", can be acknowledged" if entry["acknowledgeable"] else ", cannot be acknowledged"
    assert text.startswith("# %s: %s\n\n%s\n\n## What\n" % (entry["code"], entry["title"], severity))
    for part in ("## How we know", "## Why it matters", "## What to do"):
        assert text.count(part + "\n") == 1
    assert "!" not in text and "\u2014" not in text


def test_every_use_can_be_acknowledged():
    rules = {entry["code"]: entry for entry in usage.RULES}
    assert all(rules[code]["acknowledgeable"] and rules[code]["severity"] == "refuse" for code in usage._USES)


@pytest.mark.parametrize("code", ["VH201", "VH202", "VH203", "VH204", "VH206", "VH207", "VH208", "VH209"])
def test_uses_by_their_code(code):
    assert places(p8h67_on(), code) == []
    machine = use(use(p8h67_on(), XHCI, code, "kind", "a need", "sda"), XHCI, code, "kind", "another")
    assert found(machine, code) == {full(XHCI): ["kind: a need <- sda <- 0000:03:00.0",
                                                 "kind: another <- 0000:03:00.0"]}
    assert places(machine, "VH200") == []


@pytest.mark.parametrize("code", [None, "VH299", "VH215"])
def test_a_use_without_a_rule_is_a_use_all_the_same(code):
    assert places(use(p8h67_on(), XHCI, code, "sound", "pulseaudio"), "VH200") == [full(XHCI)]


@pytest.mark.parametrize("need, touched, free", [
    ("disk", ["00:1f.2", XHCI], [GPU, "04:00.0"]),
    ("ssh", ["04:00.0", XHCI], [GPU, "00:1f.2"]),
    ("network", ["04:00.0", XHCI], [GPU, "00:1f.2"]),
    ("display", [GPU, CARD2], [XHCI, "00:1f.2"]),
    ("other", [GPU, XHCI, "00:1f.2", "00:1f.0"], ["00:01.0", "00:00.0"]),
])
def test_unknown_needs_refuse_what_they_may_be_about(need, touched, free):
    machine = p8h67_on()
    assert places(machine, "VH205") == []
    machine["host"]["usage_unknown"] = [need]
    machine["source"]["missing"] = [{"input": "pool", "why": "VH205: it names no disk"}, {"input": "x", "why": "y"}]
    evidence = found(machine, "VH205")
    assert {full(address) for address in touched} <= set(evidence)
    assert not {full(address) for address in free} & set(evidence)
    assert evidence[full(touched[0])] == ["unknown: " + need, "pool (it names no disk)"]


def test_a_probe_that_did_not_look_is_no_all_clear():
    machine = p8h67_on()
    machine["host"]["ssh"]["unknown"] = True
    assert places(machine, "VH205") and full(GPU) not in places(machine, "VH205")
    del machine["host"]["usage_unknown"]
    assert full(GPU) in places(machine, "VH205")
    machine = p8h67_on()
    at(machine, GPU)["used_by"] = None
    assert places(machine, "VH205") == [full(GPU)]


@pytest.mark.parametrize("driver, devices, unknown", [
    ("xhci_hcd", None, True), ("xhci_hcd", [], False), ("vfio-pci", None, False), (None, None, False),
])
def test_a_usb_controller_whose_devices_nobody_saw(driver, devices, unknown):
    machine = p8h67_on()
    at(machine, XHCI).update(driver=driver, usb_devices=devices)
    assert places(machine, "VH205") == ([full(XHCI)] if unknown else [])


def test_the_last_display():
    machine = p8h67_on()
    assert places(machine, "VH210") == []  # three of them
    at(machine, GPU)["driver"] = "vfio-pci"
    assert places(machine, "VH210") == []
    card = at(machine, CARD2)
    machine["host"]["requested"] = [{key: card.get(key) for key in (
        "address", "vendor", "device", "subsystem_vendor", "subsystem_device", "serial", "driver")}]
    evidence = found(machine, "VH210")
    assert list(evidence) == [full(IGPU)]
    assert evidence[full(IGPU)][1:] == ["given away or asked for: 0000:01:00.0, 0000:02:00.0",
                                        "there is no serial and no network console either"]
    machine["host"]["consoles"].append({"name": "ttyS0", "kind": "serial"})
    assert found(machine, "VH210")[full(IGPU)][-1] == "the kernel also writes to ttyS0"
    machine["host"]["consoles"] = []  # unknown: nothing is said of them
    assert "console" not in " ".join(found(machine, "VH210")[full(IGPU)])


def test_a_compute_card_is_no_display():
    only = "\n".join(line for line in P8H67.splitlines() if not line.startswith(("01:", "02:")))
    assert places(build(only), "VH210") == [full(IGPU)]
    assert places(build(only.replace("016a vga", "016a 3d")), "VH210") == []


def test_the_firmwares_framebuffer():
    machine = p8h67_on()
    held = {"name": "simpledrm", "start": 0xD0000000, "end": 0xD07E8FFF, "function": full(GPU)}
    machine["host"]["framebuffer"] = held
    evidence = found(machine, "VH211")[full(GPU)]
    assert evidence[0].startswith("simpledrm has 0xd0000000 to 0xd07e8fff in /proc/iomem") and "6.1.0" in evidence[1]
    for function in (None, "0000:77:00.0"):
        machine["host"]["framebuffer"] = dict(held, function=function)
        assert places(machine, "VH211") == []


def test_the_only_console():
    machine = p8h67_on()
    assert places(machine, "VH212") == ["console"]
    machine["host"]["consoles"].append({"name": "netcon0", "kind": "network"})
    assert places(machine, "VH212") == []
    machine["host"]["consoles"] = []
    assert places(machine, "VH212") == []
    assert places(use(p8h67_on(), GPU, "VH208", "platform", "chipset", "LPC bridge"), "VH212") == ["console"]
    assert places(use(p8h67_on(), GPU, "VH208", "platform", "BMC", "its remote screen"), "VH212") == []


def test_what_hangs_off_each_usb_controller():
    machine = p8h67_on()
    stick = {"path": "1-3", "id": "0781:5583", "product": None, "kinds": ["storage"], "port": "usb1-port3"}
    hub = dict(stick, path="1-1", kinds=["hub"])
    at(machine, XHCI)["usb_devices"] = [hub, stick]
    assert places(machine, "VH213") == []
    at(machine, "00:1a.0")["usb_devices"] = []
    assert found(machine, "VH213") == {"usb": ["0000:00:1a.0 8086:1c2d usb: nothing",
                                               "0000:03:00.0 1b21:1042 usb: storage 0781:5583 at 1-3"]}


def hold(machine, address, command, node, driver=None):
    at(machine, address).update(holders=[{"pid": 7, "command": command, "node": node}], driver=driver)
    return machine


@pytest.mark.parametrize("command, node, driver, code", [
    ("qemu-system-x86", "/dev/vfio/14", "vfio-pci", "VH215"),
    ("qemu-system-x86", "/dev/vfio/devices/vfio0", "mlx5_vfio_pci", "VH215"),
    ("qemu-system-x86", "/dev/vfio/14", "i915", None),
    ("pipewire", "/dev/snd/controlC1", "snd_hda_intel", "VH216"),
    ("pipewire", "/dev/snd/pcmC1D3p", "snd_hda_intel", None),
    ("systemd-logind", "/dev/dri/card0", "i915", None),
    ("acpid", "/dev/input/event3", "xhci_hcd", None),
])
def test_holders_that_are_no_use(command, node, driver, code):
    machine = hold(p8h67_on(), GPU, command, node, driver)
    for each in ("VH215", "VH216"):
        assert places(machine, each) == ([full(GPU)] if each == code else [])


def test_nobody_looked_who_has_devices_open():
    machine = p8h67_on()
    assert places(machine, "VH217") == []
    for function in machine["functions"]:
        function["holders"] = None
    machine["source"]["missing"] = [{"input": "/proc/*/fd", "why": "only root sees it"}]
    assert found(machine, "VH217") == {"processes": ["only root sees it"]}
    machine["source"]["missing"] = []
    assert found(machine, "VH217")["processes"]
    machine["source"]["root"] = "lspci"
    assert places(machine, "VH217") == []


def test_one_machine_of_many_functions_is_quick_and_readable():
    lines = ["%02x:%02x.%d endpoint 8086:1521 ethernet multi" % (bus, slot, fn)
             for bus in range(4) for slot in range(32) for fn in range(8)]
    machine = build("\n".join(lines))
    assert [f["code"] for f in evaluate(machine) if f["code"].startswith("VH2")] == ["VH212"]


NIC, VFS = "04:00.0", ("04:10.0", "04:10.2")
BOTH = P8H67 + "".join("%s endpoint 10ec:8169 ethernet < 00:1c.6\n" % address for address in VFS)


@pytest.mark.parametrize("driver", ["igb", None])
def test_virtual_functions_end_with_the_driver_of_their_physical_one(driver):
    machine = build(BOTH)
    for address in VFS:
        at(machine, address).update(physfn=full(NIC), driver="vfio-pci")
    at(machine, NIC)["driver"] = driver
    assert found(machine, "VH218") == {
        full(NIC): ["0000:04:00.0 10ec:8168 ethernet has 2 of them, 0000:04:10.0 to 0000:04:10.2"]}
    at(machine, NIC)["driver"] = "vfio-pci"
    assert places(machine, "VH218") == []
    assert places(build(BOTH), "VH218") == []


def test_virtual_functions_that_are_asked_for_at_boot():
    machine = p8h67_on()
    machine["host"]["sriov"] = [{"address": full(NIC), "count": 4}, {"address": full(XHCI), "count": 0}]
    for driver in ("igb", "vfio-pci"):
        at(machine, NIC)["driver"] = driver
        assert found(machine, "VH218") == {
            full(NIC): ["/etc/vfio-host/sriov asks for 4 virtual functions of 0000:04:00.0 10ec:8168 ethernet"]}
    del machine["host"]["sriov"]  # a document of an older release
    assert places(machine, "VH218") == []
