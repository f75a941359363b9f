# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding import identity, manage, record
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError
from ansible_collections.vfio.host.tests.unit.boot.functions import (
    AUDIO,
    GPU,
    SERIAL,
    add_function,
    bind,
    config_space,
)


@pytest.fixture
def host(tmp_path):
    found = Host(str(tmp_path))
    add_function(found, GPU, driver="bochs-drm")
    add_function(found, AUDIO, driver="snd_hda_intel", device_class="040300", config=config_space(serial=None))
    return found


def go(host, devices=(GPU, AUDIO), state="present", check=False):
    return manage.run(host, {"devices": list(devices), "state": state, "when": "boot"}, check)


def files(host):
    return [host.read(asked.DEVICES), host.read(record.STATE)]


def test_check_predicts_then_the_run_does_it_once(host):
    predicted = go(host, check=True)
    assert files(host) == [None, None]
    assert not host.exists(asked.ASKED_FOLDER) and not host.exists(asked.STATE_FOLDER)
    done = go(host)
    assert predicted == done
    assert done["changed"] is True
    assert host.read(asked.DEVICES) == done["content"]
    assert [diff["after_header"] for diff in done["diff"]] == [asked.DEVICES, record.STATE]
    again = go(host)
    assert (again["changed"], again["diff"]) == (False, [])


def test_what_is_bound_is_told(host):
    result = go(host, [AUDIO, dict(GPU, name="gaming_gpu")])
    assert result["functions"][0] == {
        "address": "0000:01:00.0", "name": "gaming_gpu", "driver": "bochs-drm", "wanted": "vfio-pci", "bound": False,
    }
    assert result["reboot_required"] is True
    bind(host, GPU["address"], "vfio-pci")
    assert go(host)["reboot_required"] is True
    bind(host, AUDIO["address"], "vfio-pci")
    assert go(host)["reboot_required"] is False


def test_the_former_driver_is_recorded_the_first_time_only(host):
    go(host)
    bind(host, GPU["address"], "vfio-pci")
    assert go(host)["changed"] is False
    go(host, [GPU])
    records = json.loads(host.read(record.STATE))["functions"]
    assert records == {GPU["address"]: dict(
        {k: v for k, v in GPU.items() if k != "address"}, driver="bochs-drm", module=None, override=None)}


def test_another_card_at_the_same_address_gets_its_own_record(host):
    go(host)
    other = dict(GPU, device="2222")
    add_function(host, other)
    bind(host, GPU["address"], "nouveau")
    go(host, [other])
    assert json.loads(host.read(record.STATE))["functions"][GPU["address"]]["driver"] == "nouveau"


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"device": "1380"}, "0000:01:00.0 is 1234:1111, asked 1234:1380"),
        ({"subsystem_device": "0001"}, "is subsystem 1af4:1100, asked 1af4:0001"),
        ({"class": "030200"}, "is of class 030000, asked 030200"),
        ({"serial": "00-00-00-00-00-00-00-01"}, "has serial number %s, asked 00-00" % SERIAL),
        ({"address": "0000:09:00.0"}, "0000:09:00.0 does not exist"),
    ],
)
def test_what_is_not_the_same_card_is_refused(host, change, reason):
    with pytest.raises(HostError, match=reason):
        go(host, [AUDIO, dict(GPU, **change)])
    assert files(host) == [None, None]


def test_the_right_serial_number_and_class_are_fine(host):
    result = go(host, [dict(GPU, serial=SERIAL, **{"class": "030000"})])
    assert SERIAL in result["content"]


def test_all_mismatches_are_named_at_once(host):
    with pytest.raises(HostError, match="(?s)asked 1234:1380.*asked 8086:0001"):
        go(host, [dict(GPU, device="1380"), dict(AUDIO, device="0001")])


def test_a_serial_number_that_is_not_there_is_refused(host):
    with pytest.raises(HostError, match="has serial number none"):
        go(host, [dict(AUDIO, serial=SERIAL)])


@pytest.mark.parametrize(
    "device_class, config, reason",
    [
        ("060400", config_space(), "is a bridge"),
        ("030000", config_space(header_type=0x01), "is a bridge"),
        ("030000", b"", "configuration space cannot be read"),
    ],
)
def test_bridges_and_unreadable_functions_are_refused(host, device_class, config, reason):
    add_function(host, GPU, device_class=device_class, config=config)
    with pytest.raises(HostError, match=reason):
        go(host)


def test_absent_leaves_nothing(host):
    before = sorted(os.listdir(host.root))
    go(host)
    bind(host, GPU["address"], "vfio-pci")
    predicted = go(host, [], "absent", check=True)
    assert host.exists(asked.DEVICES)
    result = go(host, [], "absent")
    assert predicted == result
    assert result["changed"] is True
    assert result["reboot_required"] is True
    assert not host.exists(asked.ASKED_FOLDER) and not host.exists(asked.STATE_FOLDER)
    assert set(os.listdir(host.root)) - set(before) <= {"etc", "run", "var"}
    again = go(host, [GPU], "absent")
    assert (again["changed"], again["reboot_required"]) == (False, True)
    bind(host, GPU["address"], "bochs-drm")
    assert go(host, [GPU], "absent")["reboot_required"] is False


def test_absent_says_what_each_had_before(host):
    """So that whoever verifies the way home knows which may be on vfio-pci for good."""
    bind(host, AUDIO["address"], "vfio-pci")
    go(host)
    bind(host, GPU["address"], "vfio-pci")
    for wanted in (go(host, [], "absent", check=True), go(host, [], "absent")):
        assert [one["wanted"] for one in wanted["functions"]] == ["bochs-drm", "vfio-pci"]


def test_absent_keeps_folders_with_files_of_others(host):
    go(host)
    host.write(asked.STATE_FOLDER + "/other", "x")
    go(host, [], "absent")
    assert host.read(asked.STATE_FOLDER + "/other") == "x"


def test_a_damaged_record_is_not_overwritten(host):
    host.write(record.STATE, "{")
    with pytest.raises(HostError, match="cannot be understood"):
        go(host)
    assert host.read(record.STATE) == "{"


def test_a_wrong_list_on_the_host_is_replaced(host):
    go(host)
    host.write(asked.DEVICES, "garbage\n")
    assert go(host)["changed"] is True
    assert len(asked.parse(host.read(asked.DEVICES))) == 2


@pytest.mark.parametrize(
    "config, expected",
    [
        (config_space(), SERIAL),
        (config_space(serial=None), None),
        (config_space()[:256], None),
        (b"", None),
        (b"\xff" * 4096, None),
        (config_space()[:0x100] + (0x0001 | (0x100 << 20)).to_bytes(4, "little") + bytes(3836), None),
    ],
)
def test_serial_number(config, expected):
    assert identity.serial_of(config) == expected


def test_a_function_taken_out_of_the_list_needs_a_reboot_until_it_is_released(host):
    go(host)
    bind(host, GPU["address"], "vfio-pci")
    bind(host, AUDIO["address"], "vfio-pci")
    for dummy in range(2):  # the first run that leaves it out, and any further one before the reboot
        assert go(host, [GPU])["reboot_required"] is True
    bind(host, AUDIO["address"], "snd_hda_intel")
    result = go(host, [GPU])
    assert result["reboot_required"] is False
    assert AUDIO["address"] not in host.read(record.STATE)
