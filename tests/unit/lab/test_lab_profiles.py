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


# firmware


def test_uefi_has_its_code_read_only_and_its_variables_to_write():
    drives = values(arguments(firmware=("/f,1/code.fd", "/s,1/efivars.fd")), "-drive")
    assert drives[:2] == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/f,,1/code.fd",
        "if=pflash,unit=1,format=raw,file=/s,,1/efivars.fd",
    ]
    assert not any("pflash" in drive for drive in values(arguments(), "-drive"))


def test_a_reboot_resets_the_machine():
    argv = arguments()
    assert "-no-reboot" not in argv and "-action" not in argv and "-watchdog-action" not in argv


# changes of the board


def places(changes):
    """``{place: device}`` of a changed board."""
    found = {}
    for device, address, properties in profiles.board(changes):
        bus = dict(part.split("=", 1) for part in properties.split(",") if part)["bus"]
        found["/".join(filter(None, [bus, address])).replace("pcie.0/", "")] = device
    return found


def test_a_board_without_changes_is_the_profiles():
    assert profiles.board() == profiles.board([]) == profiles.board(None) == profiles.BOARD
    assert arguments(changes=[]) == arguments()


def test_a_card_moves_to_another_port_with_all_it_has():
    before = places([])
    after = places([{"remove": "pch_port5/00.0"}, {"move": "cpu_port/00.0", "to": "pch_port5/00.0"},
                    {"move": "hda1", "to": "pch_port5/00.1"}])
    assert after["pch_port5/00.0"] == "secondary-vga" and after["pch_port5/00.1"] == "ich9-intel-hda"
    assert not [place for place in after if place.startswith("cpu_port/")]
    assert len(after) == len(before) - 1
    changes = [{"move": "cpu_port/00.0", "to": "05.0"}, {"remove": "hda1"}]
    device, address, properties = next(entry for entry in profiles.board(changes) if entry[0] == "secondary-vga")
    assert (address, sorted(properties.split(","))) == ("05.0", ["bus=pcie.0", "multifunction=on"])


def test_a_port_in_front_of_all_others_shifts_the_buses():
    changes = [{"move": "cpu_port", "to": "03.0"},
               {"add": "pcie-root-port", "at": "01.0", "properties": "id=new,chassis=9"}]
    after = places(changes)
    assert after["01.0"] == after["03.0"] == "pcie-root-port" and after["cpu_port/00.0"] == "secondary-vga"


def test_a_bus_comes_before_what_is_on_it():
    changes = [{"move": "cpu_port", "to": "03.0"}, {"add": "nvme", "at": "new/00.0", "disk": "second"},
               {"add": "pcie-root-port", "at": "01.0", "properties": "id=new,chassis=9"},
               {"add": "ide-hd", "at": "sata.2", "disk": "third"},
               {"add": "ahci", "at": "05.0", "properties": "id=sata"}]
    order = [properties.split(",") for dummy, dummy, properties in profiles.board(changes)]
    for bus, owner in (("cpu_port", "cpu_port"), ("new", "new"), ("sata.2", "sata")):
        users = [number for number, parts in enumerate(order) if "bus=" + bus in parts]
        assert users and min(users) > [number for number, parts in enumerate(order) if "id=" + owner in parts][0]


def test_a_twin_at_the_old_place():
    after = places([{"move": "cpu_port/00.0", "to": "05.0"},
                    {"add": "secondary-vga", "at": "cpu_port/00.0", "properties": "multifunction=on"}])
    assert after["05.0"] == after["cpu_port/00.0"] == "secondary-vga"


def test_a_removed_sound_card_has_no_codec():
    argv = arguments(changes=[{"remove": "hda1"}])
    assert [value for value in values(argv, "-device") if "hda1" in value] == []
    assert [value for value in values(argv, "-device") if value.startswith("hda-duplex,bus=hda2.0")]


def test_disks_are_drives_of_the_lab():
    changes = [{"add": "ide-hd", "at": "ide.1", "disk": "a", "size": 64},
               {"add": "nvme", "at": "05.0", "properties": "serial=x", "disk": "b"}]
    assert profiles.disks(changes) == {"a": 64, "b": profiles.DISK_SIZE} and profiles.disks() == {}
    argv = arguments(changes=changes, disk_file="/s,1/disk-%s.qcow2")
    assert values(argv, "-drive")[:2] == [
        "if=none,id=disk-a,format=qcow2,cache=unsafe,discard=unmap,file=/s,,1/disk-a.qcow2",
        "if=none,id=disk-b,format=qcow2,cache=unsafe,discard=unmap,file=/s,,1/disk-b.qcow2",
    ]
    devices = values(argv, "-device")
    assert "ide-hd,drive=disk-a,bus=ide.1" in devices and "nvme,addr=05.0,serial=x,drive=disk-b,bus=pcie.0" in devices
    assert argv.index("if=none,id=disk-b,format=qcow2,cache=unsafe,discard=unmap,file=/s,,1/disk-b.qcow2") < argv.index(
        "nvme,addr=05.0,serial=x,drive=disk-b,bus=pcie.0")


@pytest.mark.parametrize("changes, error", [
    ([{}], "it must say one of add, move and remove"),
    ([{"at": "05.0"}], "it must say one of add, move and remove"),
    ([{"add": "nvme", "at": "05.0", "remove": "hda1"}], "it must say one of add, move and remove"),
    ([{"add": "nvme"}], "at which place"),
    ([{"add": "nvme,drive=x", "at": "05.0"}], "no name of a QEMU device"),
    ([{"add": "nvme", "at": "5"}], "'5' is no place; write BUS/SLOT.FUNCTION"),
    ([{"add": "nvme", "at": "cpu_port/20.0"}], "is no place"),
    ([{"add": "nvme", "at": "05.8"}], "is no place"),
    ([{"add": "nvme", "at": "02.0"}], "VGA is there"),
    ([{"add": "nvme", "at": "cpu_port/00.1"}], "ich9-intel-hda is there"),
    ([{"add": "nvme", "at": "1f.2"}], "the chipset's own"),
    ([{"add": "ide-hd", "at": "ide.0", "disk": "a"}], "ide.0 has the root disk"),
    ([{"add": "nvme", "at": "nowhere/00.0"}], "nvme is on nowhere, and no device has that id"),
    ([{"add": "nvme", "at": "05.0", "properties": "serial"}], "name=value"),
    ([{"add": "nvme", "at": "05.0", "properties": "bus=cpu_port"}], "bus follows from the place"),
    ([{"add": "nvme", "at": "05.0", "properties": "id=hda1"}], "the id hda1 is that of another device, ich9-intel-hda"),
    ([{"add": "nvme", "at": "05.0", "size": 5}], "there is none"),
    ([{"add": "nvme", "at": "05.0", "disk": "../x"}], "use up to 31"),
    ([{"add": "nvme", "at": "05.0", "disk": "a"}, {"add": "nvme", "at": "06.0", "disk": "a"}], "a disk a already"),
    ([{"add": "nvme", "at": "05.0", "to": "06.0"}], "to does not go with add"),
    ([{"add": "nvme-subsys", "at": "05.0", "properties": "id=vault"}], "nvme-subsys is on no bus"),
    ([{"add": "nvme-subsys", "properties": "nqn=vault"}], "it needs an id"),
    ([{"add": "nvme-subsys", "properties": "id=hda1"}], "the id hda1 is that of another device"),
    ([{"remove": "hda1", "at": "05.0"}], "at does not go with remove"),
    ([{"remove": "hda9"}], "there is no hda9; ids are cpu_port, hda0"),
    ([{"remove": "05.0"}], "there is no 05.0"),
    ([{"remove": "cpu_port"}], "is on cpu_port, and no device has that id"),
    ([{"remove": "19.0"}], "the NIC that the lab is reached by"),
    ([{"move": "hda1"}], "to where"),
    ([{"move": "hda1", "to": "1b.0"}], "ich9-intel-hda is there"),
    ([{"move": "cpu_port", "to": "cpu_port/01.0"}], "is behind itself"),
    ([{"move": "cpu_port/00.0", "to": "05.0"}], "ich9-intel-hda at cpu_port/00.1 cannot be seen"),
    ([{"add": "nvme", "at": "05.3"}], "nvme at pcie.0/05.3 cannot be seen, for there is no function 0"),
])
def test_changes_that_cannot_be_made_are_refused(changes, error):
    with pytest.raises(ValueError, match="lab's board.*" + error):
        profiles.board(changes)


def test_what_is_on_no_bus_comes_before_what_names_it():
    changes = [{"add": "nvme-subsys", "properties": "id=vault"},
               {"add": "nvme-subsys", "properties": "id=other"},
               {"add": "nvme", "at": "05.0", "properties": "serial=vault,subsys=vault,sriov_max_vfs=4"}]
    placed = profiles.board(changes)
    assert [entry for entry in placed if entry[0].startswith("nvme")] == [
        ("nvme-subsys", "", "id=vault"), ("nvme-subsys", "", "id=other"),
        ("nvme", "05.0", "serial=vault,subsys=vault,sriov_max_vfs=4,bus=pcie.0"),
    ]  # fmt: skip


def test_an_error_names_the_change():
    with pytest.raises(ValueError, match="change of the lab's board {remove: hda9}: "):
        profiles.board([{"move": "hda0", "to": "05.0"}, {"remove": "hda9", "add": None}])
