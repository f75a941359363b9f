# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write about guests: what is completed and what is refused."""

from __future__ import annotations

import guest_samples
import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import spec


def guest(**more):
    return dict({"name": "a", "memory": "64MiB", "vcpus": 1}, **more)


def device(name, *addresses):
    return {"name": name, "functions": [{"address": address} for address in addresses]}


def test_defaults():
    assert spec.normalise([guest()]) == [
        {
            "name": "a",
            "state": "running",
            "autostart": False,
            "memory": 64 * 2**20,
            "vcpus": 1,
            "devices": [],
            "disks": [],
            "network": None,
            "kernel": None,
            "initrd": None,
            "cmdline": None,
            "serial_log": None,
            "display": "vnc",
        }
    ]


def test_a_guest_with_a_device_has_no_display_unless_asked():
    with_device = guest(devices=[device("g", "0000:01:00.0")])
    assert spec.normalise([with_device])[0]["display"] == "none"
    assert spec.normalise([dict(with_device, display="vnc")])[0]["display"] == "vnc"


def test_formats_follow_the_suffix():
    disks = [{"path": "/a.qcow2"}, {"path": "/a.img"}, {"path": "/b.img", "format": "qcow2", "size": "1MiB"}]
    found = spec.normalise([guest(disks=disks)])[0]["disks"]
    assert [disk["format"] for disk in found] == ["qcow2", "raw", "qcow2"]
    assert found[2]["size"] == 2**20


def test_functions_are_sorted_and_an_empty_network_is_none():
    found = spec.normalise([guest(devices=[device("g", "0000:01:00.1", "0000:01:00.0")], network="")])[0]
    assert [item["address"] for item in found["devices"][0]["functions"]] == ["0000:01:00.0", "0000:01:00.1"]
    assert found["network"] is None


def test_an_absent_guest_needs_only_a_name():
    assert spec.normalise([{"name": "a", "state": "absent"}]) == [{"name": "a", "state": "absent"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "guest name 'a/b'"),
        ({"name": ""}, "guest name ''"),
        ({"name": " a"}, "guest name ' a'"),
        ({"name": "a\nb"}, "control characters"),
        ({"state": "paused"}, "guest a: state 'paused'"),
        ({"memory": None}, "guest a: memory is missing"),
        ({"vcpus": None}, "guest a: vcpus is missing"),
        ({"memory": "1GB"}, "guest a: memory: '1GB' is not a size"),
        ({"memory": 2**20 + 4096}, "guest a: memory: .* not whole MiB"),
        ({"vcpus": 0}, "guest a: vcpus: 0"),
        ({"vcpus": "two"}, "guest a: vcpus: 'two'"),
        ({"vcpus": True}, "guest a: vcpus: True"),
        ({"display": "spice"}, "guest a: display 'spice'"),
        ({"firmware": "efi"}, "guest a: firmware 'efi'"),
        ({"kernel": "boot/k"}, "guest a: kernel: 'boot/k' is not an absolute path"),
        ({"cmdline": "quiet"}, "guest a: cmdline needs kernel"),
        ({"initrd": "/i"}, "guest a: initrd needs kernel"),
        ({"kernel": "/k", "cmdline": "a\x00b"}, "guest a: cmdline: .* control characters"),
        ({"disks": [{"path": "a.raw"}]}, "guest a: disk path: 'a.raw' is not an absolute path"),
        ({"disks": [{}]}, "guest a: a disk has no path"),
        ({"disks": [{"path": "/a", "format": "vmdk"}]}, "disk /a: format 'vmdk'"),
        ({"disks": [{"path": "/a", "bus": "sata"}]}, "disk /a: bus 'sata'"),
        ({"disks": [{"path": "/a", "size": "1G"}]}, "disk /a: size: '1G' is not a size"),
        ({"disks": [{"path": "/a", "size": 1000}]}, "whole sectors"),
        ({"disks": [{"path": "/dev/sdb", "size": "1GiB"}]}, "disk /dev/sdb: a block device is not created"),
        ({"disks": [{"path": "/a"}, {"path": "/a"}]}, "guest a: a disk path is listed twice"),
        ({"devices": [device("g")]}, "guest a: device g: no functions"),
        ({"devices": [device("", "0000:01:00.0")]}, "device name None is empty"),
        ({"devices": [device("g", "01:00.0")]}, "device g: '01:00.0' is not a PCI address"),
        ({"devices": [device("g", "0000:01:20.0")]}, "is not a PCI address"),
        ({"devices": [device("g", "0000:01:00.0"), device("g", "0000:02:00.0")]}, "'g' is empty or used twice"),
        ({"devices": [device("g", "0000:01:00.0"), device("h", "0000:01:00.0")]}, "is also in device g"),
        ({"devices": [device("g", "0000:01:00.0", "0000:01:00.0")]}, "is also in device g"),
        ({"devices": [device("g", *["0000:01:%02x.0" % n for n in range(9)])]}, "9 functions do not fit"),
        ({"devices": [{"name": "g", "functions": [{"address": "0000:01:00.0", "vendor": "0x10de"}]}]}, "'0x10de'"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        spec.normalise([guest(**change)])


def test_names_differ():
    with pytest.raises(ValueError, match="guest a is listed twice"):
        spec.normalise([guest(), guest()])


def test_two_running_guests_share_no_function_and_no_written_disk():
    one = guest(devices=[device("g", "0000:01:00.0")])
    two = dict(one, name="b")
    with pytest.raises(ValueError, match="a and b shall both run with 0000:01:00.0"):
        spec.normalise([one, two])
    spec.normalise([one, dict(two, state="defined")])
    shared = {"disks": [{"path": "/d"}]}
    with pytest.raises(ValueError, match="a and b shall both run with disk /d"):
        spec.normalise([guest(**shared), guest(name="b", **shared)])
    shared = {"disks": [{"path": "/d", "readonly": True}]}
    spec.normalise([guest(**shared), guest(name="b", **shared)])


def test_the_samples_are_accepted():
    assert [item["name"] for item in spec.normalise([make() for make in guest_samples.ALL.values()])]
