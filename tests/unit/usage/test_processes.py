# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has devices open, and what of that is a use."""

from __future__ import annotations

import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import inputs as reading
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._usage import holders, processes
from ansible_collections.vfio.host.tests.unit.usage.desks import (
    GPU,
    GPU_AUDIO,
    IGPU,
    XHCI,
    Found,
    machine,
    node,
    opens,
    plug,
)

SATA = "0000:00:17.0"


def held(found, address):
    return [(h["pid"], h["command"], h["node"]) for h in found.by_address[address]["holders"]]


def test_a_desktop_with_xorg_and_pipewire(tmp_path):
    made = machine(tmp_path)
    opens(made, 700, "Xorg", "/dev/dri/card0", "/dev/dri/card0", "/dev/input/event3", "/home/alice/x")
    opens(made, 800, "pipewire", "/dev/snd/controlC1", "/dev/snd/controlC0", "/dev/snd/seq")
    opens(made, 801, "firefox", "/dev/dri/renderD128 (deleted)")
    found = Found(made)
    assert held(found, IGPU) == [(700, "Xorg", "/dev/dri/card0"), (801, "firefox", "/dev/dri/renderD128")]
    assert held(found, GPU_AUDIO) == [(800, "pipewire", "/dev/snd/controlC1")]
    assert found.by_address["0000:00:01.0"]["holders"] == [] == found.by_address[GPU]["holders"]
    assert found.of("VH206") == {(IGPU, "Xorg has /dev/dri/card0 open"), (IGPU, "firefox has /dev/dri/renderD128 open")}


def test_a_sound_server_that_plays_is_a_use(tmp_path):
    made = machine(tmp_path)
    opens(made, 800, "pipewire", "/dev/snd/controlC1", "/dev/snd/pcmC1D3p")
    assert Found(made).of("VH206") == {(GPU_AUDIO, "pipewire has /dev/snd/pcmC1D3p open")}


@pytest.mark.parametrize("command", holders.KEEPERS)
def test_an_idle_server_is_not_in_use(tmp_path, command):
    made = machine(tmp_path)
    node(made, "13:67", XHCI, "usb1/1-3/input/event3", "input/event3")
    opens(made, 500, command, "/dev/dri/card0", "/dev/input/event3")
    opens(made, 501, "acpid", "/dev/input/event3")
    found = Found(made)
    assert len(held(found, XHCI)) == 2 and len(held(found, IGPU)) == 1
    assert found.of("VH206") == set()
    opens(made, 502, "plasmashell", "/dev/dri/card0")
    assert found.of("VH206") != Found(made).of("VH206")


def test_a_guest_holds_its_group(tmp_path):
    made = machine(tmp_path)
    for address in (GPU, GPU_AUDIO, "0000:00:01.0"):
        made.link("/sys/kernel/iommu_groups/14/devices/" + address, made.homes[address])
    node(made, "511:0", XHCI, "vfio-dev/vfio0", "vfio/devices/vfio0")
    opens(made, 900, "qemu-system-x86", "/dev/vfio/vfio", "/dev/vfio/14", "/dev/vfio/devices/vfio0")
    found = Found(made)
    assert held(found, GPU) == held(found, GPU_AUDIO) == [(900, "qemu-system-x86", "/dev/vfio/14")]
    assert held(found, XHCI) == [(900, "qemu-system-x86", "/dev/vfio/devices/vfio0")]
    assert found.by_address["0000:00:01.0"]["holders"] == []
    found.by_address[GPU]["driver"] = "vfio-pci"
    holder = found.by_address[GPU]["holders"][0]
    assert holders.weigh(found.by_address[GPU], holder) == "guest"
    # A guest that has a part of a function (a mediated device) needs the host's driver on it
    assert holders.weigh(found.by_address[GPU_AUDIO], holder) == "use"


def test_a_mediated_device_leads_to_its_parent(tmp_path):
    made = machine(tmp_path)
    home = made.homes[IGPU] + "/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    made.folder(home)
    made.link("/sys/kernel/iommu_groups/20/devices/83b8f4f2", home)
    opens(made, 900, "qemu-system-x86", "/dev/vfio/20")
    assert Found(made).of("VH206") == {(IGPU, "qemu-system-x86 has /dev/vfio/20 open")}


def test_nvidias_driver_names_its_nodes_elsewhere(tmp_path):
    made = machine(tmp_path)
    made.write("/proc/driver/nvidia/gpus/%s/information" % GPU, "Model: \t GTX\nDevice Minor: \t 0\n")
    opens(made, 610, "nvidia-persiste", "/dev/nvidiactl", "/dev/nvidia0")
    assert Found(made).of("VH206") == {(GPU, "nvidia-persiste has /dev/nvidia0 open")}


def test_disks_are_followed_through_their_layers(tmp_path):
    made = machine(tmp_path)
    made.pci(SATA, "8086:a352", "010601", driver="ahci")
    made.disk("sdb", made.homes[SATA] + "/ata2/host1/target1:0:0/1:0:0:0/block", partitions=1)
    made.virtual_disk("dm-3", slaves=["sdb1"], mapper="vg-guest")
    opens(made, 900, "qemu-system-x86", "/dev/dm-3")
    found = Found(made)
    assert found.of("VH206") == {(SATA, "qemu-system-x86 has /dev/dm-3 open")}
    assert held(found, IGPU) == []


def test_a_usb_device_that_is_open(tmp_path):
    made = machine(tmp_path)
    plug(made, "1-3", XHCI, interfaces=(("03", "00", "00"),))
    node(made, "189:4", XHCI, "usb1/1-3", "bus/usb/001/005")
    opens(made, 300, "usbhid-ups", "/dev/bus/usb/001/005")
    assert Found(made).of("VH206") == {(XHCI, "usbhid-ups has /dev/bus/usb/001/005 open")}


def test_many_holders_stay_readable(tmp_path):
    made = machine(tmp_path)
    for number in range(30):
        opens(made, 1000 + number, "app%02d" % number, "/dev/dri/renderD128")
    uses = Found(made).of("VH206")
    assert len(uses) == holders.NAMED + 1 and (IGPU, "and 20 more") in uses


def test_what_nobody_could_look_at_is_unknown(tmp_path, monkeypatch):
    made = machine(tmp_path)
    opens(made, 700, "Xorg", "/dev/dri/card0")
    assert "/proc/*/fd" not in Found(made).missing()
    monkeypatch.setattr(processes, "LIMIT", 2)
    found = Found(made)
    assert found.held is None and found.by_address[IGPU]["holders"] is None and "/proc/*/fd" in found.missing()
    monkeypatch.undo()
    inputs = reading.Inputs(Host(made.root))
    monkeypatch.setattr(inputs.host, "privileged", lambda: False)
    assert processes.read(inputs) is None and "only root" in inputs.missing[0]["why"]


def test_a_tree_without_processes(tmp_path):
    made = machine(tmp_path / "x")
    (tmp_path / "x/proc/1/fd/0").unlink()
    (tmp_path / "x/proc/1/fd/1").unlink()
    (tmp_path / "x/proc/1/fd").rmdir()
    assert Found(made).held is None
