# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each rule about GPUs with a machine that has what it finds, and near misses without it."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.vfio.host.plugins.module_utils._findings import gpu
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import DOCS, View
from ansible_collections.vfio.host.tests.unit.machines import at, build, full

PAGES = pathlib.Path(__file__).resolve().parents[3] / DOCS
TABLE = {entry["code"]: entry for entry in gpu.RULES}
MIB = 2**20
GIB = 2**30

TURING = """
00:01.0 root_port 8086:1901 pci_bridge
01:00.0 endpoint 10de:1f08 vga < 00:01.0 multi
01:00.1 endpoint 10de:10f9 audio < 00:01.0 multi
01:00.2 endpoint 10de:1ada usb < 00:01.0 multi
01:00.3 endpoint 10de:1adb serial < 00:01.0 multi
00:02.0 rc_endpoint 8086:3e92 vga
"""
VEGA = """
00:03.1 root_port 1022:1483 pci_bridge
09:00.0 upstream_port 1022:1470 pci_bridge < 00:03.1
0a:00.0 downstream_port 1022:1471 pci_bridge < 09:00.0
0b:00.0 legacy_endpoint 1002:687f vga < 0a:00.0 multi
0b:00.1 endpoint 1002:aaf8 audio < 0a:00.0 multi
"""
APU = """
00:08.1 root_port 1022:15db pci_bridge
38:00.0 legacy_endpoint 1002:15dd vga < 00:08.1 multi
38:00.1 endpoint 1002:15de audio < 00:08.1 multi
38:00.2 endpoint 1022:15df 1080 < 00:08.1 multi
38:00.3 endpoint 1022:15e0 usb < 00:08.1 multi
"""
SERVER = """
00:1c.0 root_port 8086:a190 pci_bridge
02:00.0 pcie_to_pci 1a03:1150 pci_bridge < 00:1c.0
03:00.0 conventional 1a03:2000 vga < 02:00.0
3a:00.0 root_port 8086:2030 pci_bridge
3b:00.0 endpoint 10de:20f1 3d < 3a:00.0
"""


def found(code, machine):
    """``{device address or topic: evidence}`` of what a rule finds on a machine."""
    places = list(TABLE[code]["check"](View(machine)))
    result = {place.get("device") or place["host"]: "\n".join(place["evidence"]) for place in places}
    assert len(result) == len(places)
    return result


def changed(code, text, address, **values):
    """What a rule finds when one function is changed."""
    machine = build(text)
    at(machine, address).update(values)
    return found(code, machine)


def one(code, text, old, new):
    """What a rule finds when the machine is written differently."""
    assert text.count(old) == 1
    return found(code, build(text.replace(old, new)))


CARD = full("01:00.0")


@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_rule_has_a_page(code):
    lines = (PAGES / (code + ".md")).read_text(encoding="utf-8").splitlines()
    severity = TABLE[code]["severity"]
    assert lines[0] == "# %s: %s" % (code, TABLE[code]["title"])
    assert lines[2] == ("**info**" if severity == "info" else "**%s**, can be acknowledged" % severity)


@pytest.mark.parametrize("text", [TURING, VEGA, APU, SERVER])
@pytest.mark.parametrize("code", sorted(TABLE))
def test_unknowns_are_accepted(code, text):
    machine = build(text)
    machine["host"]["product"]["virtual"] = None
    for function in machine["functions"]:
        function.update(rom=None, boot_vga=None, resizable_bars=None, resources=[], capabilities=None,
                        reset_methods=None, multifunction=None, numa_node=None, link=None, device_name=None)
    assert isinstance(found(code, machine), dict)


def test_450_nvidia_without_audio():
    without = "\n".join(line for line in TURING.splitlines() if " audio " not in line)
    assert "No function beside 0000:01:00.0 10de:1f08 vga is of class 0403." in found("VH450", build(without))[CARD]
    assert found("VH450", build(TURING)) == {}
    assert one("VH450", without, "10de:1f08 vga", "10de:1f08 3d") == {}
    assert one("VH450", without, "10de:1f08 vga", "10de:089f vga") == {}
    assert CARD in one("VH450", without, "10de:1f08 vga", "10de:08a0 vga")
    assert one("VH450", without, "10de:1f08 vga", "1b36:1f08 vga") == {}
    assert one("VH450", without, "10de:1f08 vga < 00:01.0", "10de:1f08 vga") == {}  # no card


def test_450_a_twin_has_audio():
    twin = VEGA + "00:03.2 root_port 1022:1483 pci_bridge\n10:00.0 legacy_endpoint 1002:687f vga < 00:03.2\n"
    assert "0000:0b:00.0 has the same id" in found("VH450", build(twin))[full("10:00.0")]
    assert found("VH450", build(twin.replace("10:00.0 legacy_endpoint 1002:687f", "10:00.0 endpoint 1002:6860"))) == {}


def test_451_all_functions_of_a_card_once():
    said = found("VH451", build(TURING))
    assert list(said) == [CARD]
    assert said[CARD].startswith("The card has 4 functions: 0000:01:00.0 10de:1f08 vga, 0000:01:00.1 10de:10f9 audio,")
    # a second display function of the same card says nothing more
    assert list(one("VH451", TURING, "10de:1adb serial", "10de:1adb display")) == [CARD]
    # and the GPU need not be the first
    assert list(found("VH451", build(TURING.replace("1f08 vga", "1f08 audio").replace("10f9 audio", "10f9 vga")))) == [
        full("01:00.1")]


def test_451_two_functions_bridges_virtual_ones_and_those_of_a_cpu():
    assert found("VH451", build(VEGA)) == {}
    assert found("VH451", build(VEGA + "0b:00.2 endpoint 1002:ab29 pci_bridge < 0a:00.0 multi\n")) == {}
    assert found("VH451", build(APU)) == {}
    machine = build(TURING)
    for address in ("01:00.2", "01:00.3"):
        at(machine, address)["physfn"] = CARD
    assert found("VH451", machine) == {}


def images(*kinds):
    return [{"kind": kind, "size": 65536} for kind in kinds]


def test_452_a_rom_without_efi_image():
    assert "no EFI image" in changed("VH452", TURING, "01:00.0", rom=images("legacy", "other"))[CARD]
    assert "its copy" not in changed("VH452", TURING, "01:00.0", rom=images("legacy"))[CARD]
    assert "its copy" in changed("VH452", TURING, "01:00.0", rom=images("legacy"), boot_vga=True)[CARD]
    for rom in (images("legacy", "efi"), images("efi"), [], None):
        assert changed("VH452", TURING, "01:00.0", rom=rom) == {}


def test_453_a_rom_with_only_an_efi_image():
    assert "0000:01:00.0 10de:1f08 vga" in changed("VH453", TURING, "01:00.0", rom=images("efi"))["gpu"]
    for rom in (images("legacy", "efi"), images("legacy"), images("other"), [], None):
        assert changed("VH453", TURING, "01:00.0", rom=rom) == {}


def test_454_the_gpu_that_the_firmware_used():
    assert CARD in changed("VH454", TURING, "01:00.0", boot_vga=True)
    assert changed("VH454", TURING, "01:00.0", boot_vga=False) == {}
    assert changed("VH454", TURING, "00:02.0", boot_vga=True) == {}
    assert changed("VH454", SERVER, "03:00.0", boot_vga=True) == {}


@pytest.mark.parametrize("device", ["0640", "06c0", "0fbf", "1040", "10c3", "10df", "1140", "117f", "1200", "127f"])
def test_455_before_kepler(device):
    assert CARD in one("VH455", TURING, "10de:1f08", "10de:" + device)
    assert one("VH463", TURING, "10de:1f08", "10de:" + device) == {}


@pytest.mark.parametrize("device", ["0fc0", "0ffe", "1004", "103f", "1180", "11c0", "1280", "1380", "1b80", "2684"])
def test_463_kepler_and_later(device):
    assert one("VH455", TURING, "10de:1f08", "10de:" + device) == {}
    assert "10de:" + device in one("VH463", TURING, "10de:1f08", "10de:" + device)["gpu"]


def test_455_and_463_are_about_nvidia_with_outputs():
    assert one("VH455", VEGA, "1002:687f", "1002:0687") == {}
    for code in ("VH455", "VH463"):
        assert found(code, build(VEGA)) == {}
        assert found(code, build(SERVER)) == {}


def test_456_without_outputs():
    assert found("VH456", build(SERVER)) == {"gpu": "Class 0302, 3D controller: 0000:3b:00.0 10de:20f1 3d."}
    assert one("VH456", SERVER, "10de:20f1 3d", "10de:20f1 vga") == {}
    assert changed("VH456", SERVER, "3b:00.0", physfn="0000:3b:00.4") == {}


def test_457_part_of_the_cpu():
    assert found("VH457", build(TURING)) == {full("00:02.0"): "0000:00:02.0 8086:3e92 vga is part of the CPU."}
    said = found("VH457", build(APU))
    assert list(said) == [full("38:00.0")] and "0000:38:00.2 1022:15df " in said[full("38:00.0")]
    assert found("VH457", build(VEGA)) == {}
    # a discrete GPU of Intel's is behind a port
    assert one("VH457", TURING, "00:02.0 rc_endpoint 8086:3e92 vga", "02:00.0 endpoint 8086:56a0 vga < 00:01.0") == {}


def test_457_another_vendor_on_a_root_bus():
    assert one("VH457", TURING, "8086:3e92 vga", "1b36:0100 vga") == {}


def test_457_in_a_virtual_machine_a_root_bus_says_nothing():
    machine = build(TURING)
    machine["host"]["product"]["virtual"] = True
    assert found("VH457", machine) == {}


@pytest.mark.parametrize("methods, words", [
    (["pm", "bus"], "reset_method is pm bus: without device_specific"),
    (["bus", "device_specific"], "but bus is tried first"),
    ([], "no reset for it alone"),
    (["unknown"], "does not say how"),
    (None, "is not known"),
])
def test_458_a_family_that_does_not_reset(methods, words):
    said = changed("VH458", VEGA, "0b:00.0", reset_methods=methods)[full("0b:00.0")]
    assert "is a Vega 10 by its id" in said and words in said


def test_458_vendor_reset_is_at_work():
    assert changed("VH458", VEGA, "0b:00.0", reset_methods=["device_specific", "bus"]) == {}


@pytest.mark.parametrize("identifier, family", [
    ("1002:67df", "Polaris 10"), ("1002:67ff", "Polaris 11"), ("1002:699f", "Polaris 12"), ("1002:66af", "Vega 20"),
    ("1002:731f", "Navi 10"), ("1002:7360", "Navi 12"), ("1002:7340", "Navi 14"),
    ("1002:73bf", None), ("1002:15dd", None), ("1002:69a0", None), ("10de:67df", None),
])
def test_458_families(identifier, family):
    said = one("VH458", VEGA, "1002:687f", identifier)
    assert said == {} if family is None else "is a %s by" % family in said[full("0b:00.0")]


def test_458_an_id_is_of_one_family():
    ids = [device for devices in gpu.AMD_FAMILIES.values() for device in devices]
    assert len(ids) == len(set(ids)) and all(len(device) == 4 and int(device, 16) for device in ids)


def test_459_the_card_has_a_switch():
    said = found("VH459", build(VEGA))
    assert said == {full("0b:00.0"): "Above 0000:0b:00.0 1002:687f vga: "
                    "0000:0a:00.0 1022:1471 pci_bridge, 0000:09:00.0 1022:1470 pci_bridge."}
    assert found("VH459", build(VEGA.replace("1022:147", "1b21:118"))) == {}


def bars(*sizes):
    """Resizable BARs of a Radeon: BAR 0 is its memory, BAR 2 its doorbells."""
    return [{"bar": place, "size": size, "sizes": supported} for place, size, supported in sizes]


DOORBELLS = (2, 2 * MIB, [2 * MIB, 256 * MIB])


def test_460_a_small_window():
    small = bars(DOORBELLS, (0, 256 * MIB, [256 * MIB, 512 * MIB, 8 * GIB]))
    assert found_window(small) == {
        "gpu": "Resizable, and small now: 0000:0b:00.0 1002:687f vga (BAR 0: 256 of 8192 MiB)."}


def found_window(resizable):
    return changed("VH460", VEGA, "0b:00.0", resizable_bars=resizable)


@pytest.mark.parametrize("resizable", [
    bars(DOORBELLS, (0, 8 * GIB, [256 * MIB, 8 * GIB])),
    bars((0, 512 * MIB, [256 * MIB, 8 * GIB])),
    bars((0, 256 * MIB, [256 * MIB])),
    bars((0, 256 * MIB, [])),
    [],
    None,
])
def test_460_a_window_that_is_large_or_cannot_grow(resizable):
    assert found_window(resizable) == {}


def resource(place, length):
    return {"bar": place, "start": 0x4000000000, "size": length, "flags": ["mem", "64bit", "prefetchable"]}


def test_464_a_large_window():
    said = changed("VH464", SERVER, "3b:00.0", resources=[resource(0, 16 * MIB), resource(1, 64 * GIB)])
    assert said == {"gpu": "4 GiB or more: 0000:3b:00.0 10de:20f1 3d (BAR 1: 64.0 GiB)."}
    assert "gpu" in changed("VH464", SERVER, "3b:00.0", resources=[resource(1, 4 * GIB)])
    assert changed("VH464", SERVER, "3b:00.0", resources=[resource(1, 2 * GIB), resource("rom", 8 * GIB)]) == {}


def test_461_the_only_gpu():
    only = "\n".join(line for line in TURING.splitlines() if "00:02.0" not in line)
    assert "is the only GPU" in changed("VH461", only, "01:00.0", boot_vga=True)["gpu"]
    assert changed("VH461", only, "01:00.0", boot_vga=False) == {}
    machine = build(only.replace("10de:1adb serial", "10de:1f08 vga"))
    at(machine, "01:00.0")["boot_vga"] = True
    assert found("VH461", machine) == {}
    at(machine, "01:00.3")["physfn"] = CARD
    assert "gpu" in found("VH461", machine)
    assert changed("VH461", TURING, "01:00.0", boot_vga=True) == {}
    assert changed("VH461", TURING, "00:02.0", boot_vga=True) == {}
    assert changed("VH461", SERVER, "03:00.0", boot_vga=True) == {}
    management = "\n".join(line for line in SERVER.splitlines() if "3b:00.0" not in line)
    assert changed("VH461", management, "03:00.0", boot_vga=True) == {}


@pytest.mark.parametrize("identifier", ["1a03:2000", "1002:515e", "102b:0522", "102b:053f", "19e5:1711"])
@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_servers_management_display_is_no_gpu(code, identifier):
    machine = build(SERVER.replace("1a03:2000", identifier))
    at(machine, "03:00.0").update(boot_vga=True, rom=images("legacy"), resources=[resource(0, 8 * GIB)])
    assert "0000:03:00.0" not in str(found(code, machine))


@pytest.mark.parametrize("identifier", ["102b:0521", "102b:0540", "10de:0530", "1a03:1150"])
def test_other_displays_are_gpus(identifier):
    machine = build(SERVER.replace("1a03:2000", identifier))
    at(machine, "03:00.0")["boot_vga"] = True
    assert full("03:00.0") in found("VH454", machine)
