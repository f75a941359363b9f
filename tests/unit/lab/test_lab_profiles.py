# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's arguments of the lab's machines."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._lab import profiles

KEYS = {"host_key": "/s,1/host_key", "authorized_key": "/s,1/user_key.pub"}


def arguments(profile="p8h67", accelerator="tcg", **changed):
    asked = {
        "name": "demo", "memory": 4096, "cpus": 2, "disk": "/s,1/root.qcow2", "console": "/s,1/console.log",
        "monitor": "/s,1/monitor.sock", "ssh_port": 2222, "keys": KEYS,
    }  # fmt: skip
    return profiles.machine_arguments(profile, accelerator, **dict(asked, **changed))


def values(argv, option):
    return [value for name, value in zip(argv, argv[1:]) if name == option]


def test_a_comma_in_a_path_is_doubled_where_qemu_reads_options():
    argv = arguments()
    assert values(argv, "-drive") == ["if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file=/s,,1/root.qcow2"]
    assert values(argv, "-fw_cfg") == [
        "name=opt/vfio.host/host_key,file=/s,,1/host_key",
        "name=opt/vfio.host/authorized_key,file=/s,,1/user_key.pub",
    ]
    assert values(argv, "-qmp") == ["unix:/s,,1/monitor.sock,server=on,wait=off"]
    # the short form takes all that follows as the path
    assert values(argv, "-serial") == ["file:/s,1/console.log"]


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="lab profile 'sparc': known are amd, p8h67"):
        arguments("sparc")


@pytest.mark.parametrize("internet, restrict", [(False, "on"), (True, "off")])
def test_the_outside_is_reached_only_when_asked(internet, restrict):
    ssh, lan = values(arguments(internet=internet), "-netdev")
    assert ssh == "user,id=ssh,restrict=%s,hostfwd=tcp:127.0.0.1:2222-:22" % restrict
    assert "restrict=on" in lan.split(",")


def test_closed_to_the_outside_unless_said():
    assert "restrict=on" in values(arguments(), "-netdev")[0].split(",")


@pytest.mark.parametrize(
    "profile, iommu, other", [("p8h67", "intel-iommu", "amd-iommu"), ("amd", "amd-iommu", "intel-iommu")]
)
def test_only_the_cpus_root_port_has_no_acs(profile, iommu, other):
    devices = values(arguments(profile), "-device")
    without = [device for device in devices if "disable-acs=on" in device]
    assert len(without) == 1 and "id=cpu_port" in without[0] and "addr=01.0" in without[0]
    assert len([device for device in devices if device.startswith("pcie-root-port")]) == 5
    # Intel's comes before all that is behind it; AMD's is a PCI function and must leave the board its slots.
    place = next(number for number, device in enumerate(devices) if device.startswith(iommu))
    assert place == (0 if profile == "p8h67" else len(profiles.BOARD))
    assert not any(device.startswith(other) for device in devices)


def test_profiles_differ_in_their_iommu_only():
    intel, amd = arguments("p8h67"), arguments("amd")
    assert [value for value in intel if value not in amd] == [profiles.IOMMU["p8h67"]]
    assert [value for value in amd if value not in intel] == [profiles.IOMMU["amd"]]


@pytest.mark.parametrize(
    "accelerator, machine, cpu", [("kvm", "q35,kernel-irqchip=split", "host"), ("tcg", "q35", "max")]
)
def test_accelerators(accelerator, machine, cpu):
    argv = arguments(accelerator=accelerator)
    assert values(argv, "-machine") == [machine] and values(argv, "-cpu") == [cpu]
    assert values(argv, "-accel")[0].split(",")[0] == accelerator


def test_no_two_devices_share_an_address_or_an_id():
    places = [(dict(part.split("=", 1) for part in properties.split(",")), address)
              for dummy, address, properties in profiles.BOARD]  # fmt: skip
    addresses = [(properties["bus"], address) for properties, address in places]
    ids = [properties["id"] for properties, dummy in places if "id" in properties]
    assert len(set(addresses)) == len(addresses) and len(set(ids)) == len(ids)


def test_the_finishing_boot_runs_what_it_is_told_as_init():
    argv = profiles.finish_arguments("/a,b/disk.img", "/k", "/i", "/c", "/lib/finish")
    assert values(argv, "-drive") == ["if=none,id=root,format=raw,cache=unsafe,file=/a,,b/disk.img"]
    assert values(argv, "-append")[0].split()[-1] == "init=/lib/finish" and "-no-reboot" in argv


def test_the_probe_ends_by_itself_on_hardware_virtualisation():
    argv = profiles.probe_arguments("/k", "/i")
    assert values(argv, "-accel") == ["kvm"] and "-no-reboot" in argv
    assert "panic=-1" in values(argv, "-append")[0].split() and values(argv, "-serial") == ["stdio"]
