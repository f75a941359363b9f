# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions change their driver while the host runs: all of them or none, and back again."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding import live, manage, obstacles, record
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout, Result
from ansible_collections.vfio.host.tests.unit.binding import kernel
from ansible_collections.vfio.host.tests.unit.binding.kernel import AUDIO, GPU, NIC, Kernel, interface

GPU_AT, AUDIO_AT, NIC_AT = GPU["address"], AUDIO["address"], NIC["address"]
ALL = (GPU, AUDIO, NIC)
VFIO = ("vfio-pci", "vfio-pci")


@pytest.fixture
def host(tmp_path):
    return Kernel(str(tmp_path))


def go(host, devices=ALL, state="present", when="auto", check=False, driverctl="refuse", persistence="keep", **changes):
    params = {"devices": [dict(device) for device in devices], "state": state, "when": when, "driverctl": driverctl,
              "nvidia_persistence": persistence}
    return manage.run(host, params, check, lambda machine: machine.machine(**changes))


def ours(host):
    return [host.read(asked.DEVICES), host.read(record.STATE), host.isdir(asked.ASKED_FOLDER), host.isdir(asked.STATE_FOLDER)]


def test_all_go_to_vfio_now_and_no_reboot_is_needed(host):
    result = go(host)
    assert host.state() == dict.fromkeys([GPU_AT, AUDIO_AT, NIC_AT], VFIO)
    assert result["changed"] and not result["reboot_required"] and result["deferred"] == []
    assert [(f["driver"], f["bound"]) for f in result["functions"]] == [("vfio-pci", True)] * 3
    assert {"before_header": "drivers", "after_header": "drivers",
            "before": "%s bochs-drm\n%s snd_hda_intel\n%s e1000e\n" % (GPU_AT, AUDIO_AT, NIC_AT),
            "after": "%s vfio-pci\n%s vfio-pci\n%s vfio-pci\n" % (GPU_AT, AUDIO_AT, NIC_AT)} in result["diff"]


def test_a_second_run_changes_nothing_and_reads_no_machine(host):
    go(host)
    writes = list(host.writes)
    params = {"devices": [dict(device) for device in ALL], "state": "present", "when": "now"}
    assert not manage.run(host, params, False, None)["changed"]
    assert host.writes == writes


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("when", ["boot", "auto", "now"])
def test_check_mode_predicts_what_the_run_does_and_writes_nothing(host, state, when):
    if state == "absent":
        go(host)
    before, writes, files = host.state(), len(host.writes), ours(host)
    predicted = go(host, state=state, when=when, check=True)
    assert (host.state(), len(host.writes), ours(host)) == (before, writes, files)
    assert predicted == go(host, state=state, when=when)


def test_at_the_next_boot_means_that_nothing_is_bound_now(host):
    result = go(host, when="boot")
    assert host.writes == [] and result["reboot_required"] and result["changed"] and result["deferred"] == []


def test_the_way_home_leaves_nothing(host):
    before = host.state()
    go(host)
    result = go(host, (), state="absent")
    assert result["changed"] and not result["reboot_required"]
    assert host.state() == before and ours(host) == [None, None, False, False]
    assert not go(host, (), state="absent")["changed"]


def test_home_is_where_each_function_was_and_not_just_any_driver(host):
    """One without a driver and one with an override by hand, as before."""
    host.write_sysfs("/sys/bus/pci/devices/%s/driver/unbind" % AUDIO_AT, AUDIO_AT)
    host.write_sysfs("/sys/bus/pci/devices/%s/driver_override" % NIC_AT, "e1000e\n")
    before = host.state()
    go(host)
    assert host.state()[NIC_AT] == VFIO
    go(host, (), state="absent")
    assert host.state() == before


DRIVER_OVERRIDE = "/sys/bus/pci/devices/%s/driver_override"
PROBE = "/sys/bus/pci/drivers_probe"


def override_by_hand(host, address, driver):
    host.write_sysfs(DRIVER_OVERRIDE % address, driver + "\n")


def give(host, address, driver):
    """What libvirt does for a guest of its own, and after it (``driver`` empty)."""
    live.load(host, "vfio-pci")
    host.write_sysfs("/sys/bus/pci/devices/%s/driver/unbind" % address, address)
    override_by_hand(host, address, driver)
    host.write_sysfs(PROBE, address)


@pytest.mark.parametrize("how", ["on the way back", "when it fails"])
@pytest.mark.parametrize("driver, override", [("e1000e", "vfio-pci"), ("e1000e", "pci-stub"), ("mlx5_vfio_pci", None)])
def test_home_is_the_override_too_although_the_kernel_would_not_bind_with_it(host, driver, override, how):
    if driver != "e1000e":
        live.load(host, driver)
        give(host, NIC_AT, driver)
    override_by_hand(host, NIC_AT, override or "")
    before = host.state()
    assert before[NIC_AT] == (driver, override)
    if how == "when it fails":
        host.fail.add("vfio-pci")
        with pytest.raises(HostError, match="Every function is back at the driver that it had"):
            go(host, (NIC,))
    else:
        go(host, (NIC,))
        assert host.state()[NIC_AT] == VFIO
        go(host, (), state="absent")
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


@pytest.mark.parametrize("lonely", [False, True])
def test_the_module_of_the_former_driver_takes_its_function_when_it_is_loaded(host, lonely):
    """On a host that has booted with its only card of a kind on vfio-pci its driver is not loaded, and may not stay so."""
    before = host.state()
    go(host)
    for driver in ("e1000e", "bochs-drm", "snd_hda_intel"):
        host.unload(driver)
        host.lonely.update([driver] if lonely else [])
    assert go(host, (), state="absent")["changed"]
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def test_a_module_that_is_unloaded_meanwhile_takes_its_function_back(host, monkeypatch):
    before, release = host.state(), host._release
    host.lonely.add("e1000e")
    host.refuse.add(("drivers_probe", GPU_AT))

    def without_its_last(address):
        driver = host.driver(address)
        release(address)
        if driver == "e1000e":
            host.unload(driver)

    monkeypatch.setattr(host, "_release", without_its_last)
    with pytest.raises(HostError, match="Every function is back at the driver that it had"):
        go(host)
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def test_what_udev_has_bound_meanwhile_is_at_home(host, monkeypatch):
    go(host)
    before, write = host.state(), host.write_sysfs

    def late(path, value, timeout=10.0):
        if path.endswith("/e1000e/bind"):
            host._probe(NIC_AT, "e1000e")
        write(path, value, timeout)

    monkeypatch.setattr(host, "write_sysfs", late)
    go(host, (), state="absent")
    assert host.state()[NIC_AT] == ("e1000e", None) != before[NIC_AT] and ours(host) == [None, None, False, False]


# -- where home is ----------------------------------------------------------------------------


def test_home_is_not_the_guest_that_had_it_at_first(host):
    before = host.state()
    for address in (GPU_AT, AUDIO_AT):
        give(host, address, "vfio-pci")
    go(host)
    for address in (GPU_AT, AUDIO_AT):  # the guest ends
        give(host, address, "")
    assert host.state()[GPU_AT] == before[GPU_AT]
    predicted = go(host, check=True)
    assert predicted == go(host) and predicted["changed"]
    assert not go(host)["changed"]
    go(host, (), state="absent")
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def by_id(host, address):
    """What vfio-pci.ids on the command line does: on vfio-pci without an override."""
    give(host, address, "vfio-pci")
    override_by_hand(host, address, "")


def booted(host, *addresses):
    """What the script in the image does at a boot to functions that vfio-pci has already."""
    for address in addresses:
        override_by_hand(host, address, "vfio-pci")


@pytest.mark.parametrize("devices, state", [((GPU, AUDIO), "present"), ((), "absent")])
@pytest.mark.parametrize("when", ["auto", "now"])
def test_home_on_vfio_is_without_our_override(host, devices, state, when):
    by_id(host, NIC_AT)
    before = host.state()
    assert before[NIC_AT] == ("vfio-pci", None)
    go(host)
    booted(host, NIC_AT)
    writes = len(host.writes)
    predicted = go(host, devices, state=state, when=when, check=True)
    assert predicted == go(host, devices, state=state, when=when) and predicted["deferred"] == []
    assert host.state()[NIC_AT] == before[NIC_AT] and NIC_AT not in record.read(host)[1]
    assert [write for write in host.writes[writes:] if write[1] == NIC_AT] == [("driver_override", NIC_AT, "")]
    assert not any(NIC_AT in entry["before"] for entry in predicted["diff"] if entry["before_header"] == "drivers")
    assert not go(host, devices, state=state, when=when)["changed"]
    go(host, (), state="absent")
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


@pytest.mark.parametrize("holders", [None, [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/8"}]])
def test_an_override_alone_is_given_back_under_a_guest(host, holders):
    by_id(host, NIC_AT)
    before = host.state()
    go(host, (NIC,))
    booted(host, NIC_AT)
    go(host, (), state="absent", when="now", **{NIC_AT: {"holders": holders}})
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def test_for_an_override_alone_no_machine_is_read(host):
    by_id(host, NIC_AT)
    go(host, (NIC,))
    booted(host, NIC_AT)
    assert manage.run(host, {"devices": [], "state": "absent", "when": "now"}, False, None)["changed"]


def test_an_override_of_somebody_else_is_left_alone(host):
    by_id(host, NIC_AT)
    go(host, (NIC,))
    override_by_hand(host, NIC_AT, "e1000e")
    go(host, (), state="absent")
    assert host.state()[NIC_AT] == ("vfio-pci", "e1000e") and ours(host) == [None, None, False, False]


def test_our_override_on_vfio_is_left_to_the_next_boot_where_that_is_asked(host):
    by_id(host, NIC_AT)
    go(host, (NIC,))
    booted(host, NIC_AT)
    result = go(host, (), state="absent", when="boot")
    assert result["reboot_required"] and host.state()[NIC_AT] == VFIO and host.exists(record.LEAVING)
    assert go(host, (), state="absent", when="now")["changed"] and host.state()[NIC_AT] == ("vfio-pci", None)
    assert not host.isdir("/run/vfio-host")


def test_home_is_the_driver_that_it_was_taken_from_last(host, monkeypatch):
    go(host)
    monkeypatch.setitem(kernel.NATIVE, NIC_AT, "igb")  # somebody has put in another driver, and has given it the card
    live.load(host, "igb")
    give(host, NIC_AT, "igb")
    go(host)
    go(host, (), state="absent")
    assert host.driver(NIC_AT) == "igb"


def test_driverctl_was_there_before_whatever_the_function_is_on_since(overridden):
    before = overridden.state()
    go(overridden, driverctl="import")
    give(overridden, NIC_AT, "")
    assert overridden.driver(NIC_AT) == "e1000e"
    go(overridden)
    go(overridden, (), state="absent")
    assert (overridden.state(), overridden.read(OVERRIDE)) == (before, "vfio-pci\n")


@pytest.mark.parametrize("devices", [ALL, (NIC,), ()])
def test_the_way_home_at_the_next_boot_is_remembered_until_then(host, devices):
    before = host.state()
    go(host)
    predicted = go(host, (), state="absent", when="boot", check=True)
    assert predicted == go(host, (), state="absent", when="boot") and predicted["changed"]
    assert ours(host) == [None, None, False, False] and host.exists(record.LEAVING)
    again = go(host, (), state="absent", when="boot")
    assert not again["changed"] and again["reboot_required"]
    if devices:
        predicted = go(host, devices, check=True)
        assert predicted == go(host, devices)
        assert host.state() == {a: VFIO if a in [d["address"] for d in devices] else before[a] for a in before}
        assert not host.isdir("/run/vfio-host") and not go(host, devices)["changed"]
    predicted = go(host, (), state="absent", check=True)
    assert predicted == go(host, (), state="absent") and predicted["changed"] and not predicted["reboot_required"]
    assert (host.state(), ours(host)) == (before, [None, None, False, False]) and not host.isdir("/run/vfio-host")
    assert not go(host, (), state="absent")["changed"]


def test_after_that_boot_nothing_is_left_of_it(host):
    before = host.state()
    go(host)
    go(host, (), state="absent", when="boot")
    host.reboot()
    result = go(host, (), state="absent", when="boot")
    assert not result["changed"] and not result["reboot_required"] and result["functions"] == []
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def test_a_wrong_note_of_what_leaves_is_not_overwritten(host):
    host.put(record.LEAVING, "{")
    with pytest.raises(HostError, match="%s cannot be understood" % record.LEAVING):
        go(host)
    assert host.read(record.LEAVING) == "{"


def test_what_is_taken_off_the_list_goes_home_now(host):
    go(host)
    result = go(host, (NIC,))
    assert host.state() == {GPU_AT: ("bochs-drm", None), AUDIO_AT: ("snd_hda_intel", None), NIC_AT: VFIO}
    assert not result["reboot_required"] and sorted(record.read(host)[1]) == [NIC_AT]


SPLIT = "%s is in the same group and stays given away, and a group goes as a whole: list both, or neither"


def test_a_group_is_not_split_by_taking_one_function_off_the_list(host):
    before = host.state()
    go(host, (GPU, AUDIO))
    given, writes = host.state(), list(host.writes)
    with pytest.raises(HostError, match="%s: %s" % (AUDIO_AT, SPLIT % GPU_AT)):
        go(host, (GPU,), when="now")
    predicted = go(host, (GPU,), check=True)
    assert predicted == go(host, (GPU,)) and predicted["reboot_required"]
    assert predicted["deferred"] == [{"address": AUDIO_AT, "why": [SPLIT % GPU_AT]}]
    again = go(host, (GPU,))
    assert not again["changed"] and again["deferred"] == predicted["deferred"] and again["reboot_required"]
    assert (host.state(), host.writes) == (given, writes) and host.vfio_viable("/dev/vfio/7")
    assert go(host, (GPU, AUDIO))["deferred"] == [] and host.writes == writes
    assert go(host, (GPU,))["deferred"] and go(host, ())["deferred"] == []
    assert host.state() == before


def test_a_group_is_not_split_although_the_function_that_stays_is_not_bound_yet(host):
    go(host, (GPU, AUDIO))
    give(host, GPU_AT, "")
    assert host.driver(GPU_AT) == "bochs-drm"
    result = go(host, (GPU,))
    assert result["deferred"] == [{"address": AUDIO_AT, "why": [SPLIT % GPU_AT]}] and host.vfio_viable("/dev/vfio/7")


def test_what_had_no_driver_goes_home_from_a_group_that_stays(host):
    host.write_sysfs("/sys/bus/pci/devices/%s/driver/unbind" % AUDIO_AT, AUDIO_AT)
    go(host, (GPU, AUDIO))
    result = go(host, (GPU,), when="now")
    assert result["deferred"] == [] and host.state()[AUDIO_AT] == (None, None) and host.vfio_viable("/dev/vfio/7")


@pytest.mark.parametrize("state, devices, why", [
    ("present", (GPU,), [SPLIT % GPU_AT]), ("present", (), []), ("absent", (GPU,), []), ("absent", (), [])])
def test_nothing_goes_home_from_a_group_that_a_guest_has_by_the_node_of_another_function(host, state, devices, why):
    """With iommufd only the guest's own function is open; the kernel refuses the group to drivers of the host all the same."""
    host.groups = False
    give(host, GPU_AT, "vfio-pci")
    go(host, (AUDIO,))
    given, writes = host.state(), list(host.writes)
    host.refuse.add(("bind", AUDIO_AT))
    guest = {GPU_AT: {"holders": [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/devices/vfio0"}]}}
    open_there = "%s of the same group: qemu-system-x86 (process 9) has /dev/vfio/devices/vfio0 open" % GPU_AT
    with pytest.raises(HostError, match="has /dev/vfio/devices/vfio0 open"):
        go(host, devices, state=state, when="now", **guest)
    predicted = go(host, devices, state=state, check=True, **guest)
    assert predicted == go(host, devices, state=state, **guest) and predicted["reboot_required"]
    assert predicted["deferred"] == [{"address": AUDIO_AT, "why": why + [open_there]}]
    assert (host.state(), host.writes) == (given, writes)
    host.refuse.clear()
    assert go(host, (), state="absent")["deferred"] == [] and host.driver(AUDIO_AT) == "snd_hda_intel"


def test_who_else_of_the_group_is_open_must_be_known(host):
    give(host, GPU_AT, "vfio-pci")
    go(host, (AUDIO,))
    result = go(host, (), **{GPU_AT: {"holders": None}})
    assert result["deferred"] == [{"address": AUDIO_AT, "why": [
        "%s of the same group: which processes have it open is not known" % GPU_AT]}]


# -- not now -----------------------------------------------------------------------------------


USED = {"kind": "disk", "what": "/srv is mounted from it", "chain": [], "finding": "VH201"}
CONTROL = [{"pid": 8, "command": "wireplumber", "node": "/dev/snd/controlC0"}]
OPEN = [{"pid": 7, "command": "Xorg", "node": "/dev/dri/card0"}]


@pytest.mark.parametrize("changes, word", [
    ({GPU_AT: {"used_by": [USED]}}, "the host uses it: /srv is mounted from it"),
    ({GPU_AT: {"holders": OPEN}}, "Xorg (process 7) has /dev/dri/card0 open"),
    ({GPU_AT: {"holders": CONTROL}}, "wireplumber (process 8) has /dev/snd/controlC0 open"),
    ({GPU_AT: {"holders": None}}, "which processes have it open is not known"),
    ({GPU_AT: {"group": None}}, "it has no IOMMU group: the IOMMU is off"),
])
def test_a_card_that_is_held_is_left_to_the_next_boot_as_a_whole(host, changes, word):
    result = go(host, **changes)
    assert host.state() == {GPU_AT: ("bochs-drm", None), AUDIO_AT: ("snd_hda_intel", None), NIC_AT: VFIO}
    assert result["deferred"] == [
        {"address": GPU_AT, "why": [word]},
        {"address": AUDIO_AT, "why": ["%s goes with it, and is held" % GPU_AT]},
    ]
    assert result["reboot_required"]
    assert not go(host, **changes)["changed"]


@pytest.mark.parametrize("changes, word", [
    ({GPU_AT: {"holders": OPEN}}, "Xorg"), ({"unknown": ["disk"]}, "what the host uses is not known in full (disk)")])
def test_now_refuses_before_anything_is_touched(host, changes, word):
    with pytest.raises(HostError) as caught:
        go(host, when="now", **changes)
    assert word in str(caught.value) and GPU_AT in str(caught.value) and "when: auto" in str(caught.value)
    assert host.writes == [] and ours(host) == [None, None, False, False]


def test_a_member_on_another_driver_would_spoil_the_group(host):
    result = go(host, (GPU, NIC))
    assert [d["address"] for d in result["deferred"]] == [GPU_AT]
    assert "%s is in the same group and on driver snd_hda_intel" % AUDIO_AT in result["deferred"][0]["why"][0]
    assert host.driver(GPU_AT) == "bochs-drm"


@pytest.mark.parametrize("driver, release, free", [
    ("shpchp", "6.1.0-13-amd64", False), ("shpchp", "5.19.0", False), ("shpchp", None, False),
    ("shpchp", "5.10.0-26-amd64", True), ("pcieport", "6.1.0", True), (None, "6.1.0", True), ("pci-stub", "6.1.0", True),
])
def test_a_bridge_in_the_group_whose_driver_keeps_its_dma_would_spoil_the_group(host, driver, release, free):
    bridge = {"address": "0000:00:05.0", "driver": driver, "group": 8, "is_bridge": True, "class": "060400",
              "group_members": ["0000:00:05.0", NIC_AT], "used_by": [], "holders": []}
    machine = host.machine(**{NIC_AT: {"group_members": bridge["group_members"]}})
    machine["functions"].append(bridge)
    machine["host"]["kernel"] = {"release": release}
    params = {"devices": [dict(NIC)], "state": "present", "when": "auto"}
    result = manage.run(host, params, True, lambda dummy: machine)
    assert [d["why"] for d in result["deferred"]] == ([] if free else [[
        "bridge 0000:00:05.0 is in the same group and on driver shpchp: the kernel would not call the group viable; keep "
        "that driver off it"]])


def test_who_only_watches_a_card_does_not_hold_it(host):
    watching = [{"pid": 1, "command": "systemd-logind", "node": "/dev/dri/card0"}]
    assert go(host, **{GPU_AT: {"holders": watching}})["deferred"] == []


def test_what_a_running_guest_has_is_not_taken_from_it(host):
    go(host)
    before = host.state()
    guest = {GPU_AT: {"holders": [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/7"}]}}
    result = go(host, (), state="absent", **guest)
    assert [d["address"] for d in result["deferred"]] == [GPU_AT, AUDIO_AT]
    assert {a: s for a, s in host.state().items() if a != NIC_AT} == {a: s for a, s in before.items() if a != NIC_AT}
    assert host.state()[NIC_AT] == ("e1000e", None) and result["reboot_required"]
    again = go(host, (), state="absent")
    assert again["changed"] and host.driver(GPU_AT) == "bochs-drm" and ours(host) == [None, None, False, False]


def test_what_is_not_in_the_document_is_left_alone(host):
    go(host)
    before = host.state()
    without = dict(host.machine(), functions=[f for f in host.machine()["functions"] if f["address"] != NIC_AT])
    params = {"devices": [], "state": "absent", "when": "auto"}
    result = manage.run(host, params, False, lambda dummy: without)
    assert result["deferred"] == [{"address": NIC_AT, "why": ["the machine document does not have %s" % NIC_AT]}]
    assert host.state()[NIC_AT] == before[NIC_AT]


def test_a_read_that_did_not_end_leaves_everything_alone(host):
    go(host)
    before = host.state()
    host.blocked.add("/sys/bus/pci/devices/%s/config" % NIC_AT)
    with pytest.raises(HostError, match="reading .*%s/config did not end" % NIC_AT):
        go(host, (), state="absent", when="now")
    assert host.state() == before


@pytest.mark.parametrize("interfaces, word", [
    ([interface(master="br0"), interface(name="br0", function=None, lower=["enp3s0"])], "its interface enp3s0 is a port of br0"),
    ([interface(), interface(name="enp3s0.7", function=None, lower=["enp3s0"])], "enp3s0.7 lies on its interface enp3s0"),
    ([interface(addresses=["fe80::1/64", "10.0.0.1/24"])], "its interface enp3s0 has the address 10.0.0.1/24"),
    ([], "driver e1000e has it and no interface of it is here: it may be in another network namespace, that of a container"),
])
def test_a_nic_that_the_host_uses_otherwise_is_left_to_the_next_boot(host, interfaces, word):
    result = go(host, interfaces=interfaces)
    assert result["deferred"] == [{"address": NIC_AT, "why": [word]}] and host.driver(NIC_AT) == "e1000e"
    with pytest.raises(HostError, match="enp3s0|another network namespace"):
        go(host, when="now", interfaces=interfaces)


@pytest.mark.parametrize("addresses", [[], ["fe80::1/64"], ["169.254.3.4/16"]])
def test_a_nic_that_is_only_up_is_free(host, addresses):
    assert go(host, when="now", interfaces=[interface(addresses=addresses)])["deferred"] == []


@pytest.mark.parametrize("driver", ["pci-stub", "uio_pci_generic", "igb_uio"])
def test_a_nic_on_a_driver_without_interfaces_is_in_no_other_namespace(host, driver):
    assert go(host, check=True, interfaces=[], **{NIC_AT: {"driver": driver}})["deferred"] == []


# -- virtual functions ---------------------------------------------------------------------------


VF_AT = "0000:03:10.0"


def with_virtual(host, **fields):
    """The machine document with a virtual function of the NIC."""
    document = host.machine()
    virtual = dict(document["functions"][0], address=VF_AT, driver="vfio-pci", group=20, group_members=[VF_AT], holders=[],
                   used_by=[], physfn=NIC_AT, parent=None, **{"class": "020000"})
    document["functions"].append(dict(virtual, **fields))
    return document


def bind_nic(host, document, state="present", when="auto"):
    return manage.run(host, {"devices": [dict(NIC)] if state == "present" else [], "state": state, "when": when}, False,
                      lambda dummy: document)


GUEST = [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/20"}]


@pytest.mark.parametrize("fields, word", [
    ({"holders": GUEST}, "%s, a virtual function of it: qemu-system-x86 (process 9) has /dev/vfio/20 open" % VF_AT),
    ({"holders": None}, "%s, a virtual function of it: which processes have it open is not known" % VF_AT),
    ({"used_by": [USED], "driver": "nvme"}, "%s, a virtual function of it: the host uses it: /srv is mounted from it" % VF_AT),
])
def test_a_physical_function_takes_its_virtual_ones_from_nobody(host, fields, word):
    ends = "it has virtual functions (%s), which end with its driver: have none first (role sriov, count: 0)" % VF_AT
    result = bind_nic(host, with_virtual(host, **fields))
    assert result["deferred"] == [{"address": NIC_AT, "why": [ends, word]}] and host.driver(NIC_AT) == "e1000e"
    with pytest.raises(HostError, match=VF_AT):
        bind_nic(host, with_virtual(host, **fields), when="now")
    assert bind_nic(host, with_virtual(host))["deferred"] == [{"address": NIC_AT, "why": [ends]}]


def test_a_physical_function_does_not_go_home_under_a_guest(host):
    bind_nic(host, host.machine())
    result = bind_nic(host, with_virtual(host, holders=GUEST), state="absent")
    assert host.driver(NIC_AT) == "vfio-pci" and VF_AT in result["deferred"][0]["why"][0]


OTHER_VF = "0000:03:10.2"


def two_virtual(group_members):
    """The machine document with two virtual functions in one slot, of which the host uses the second."""
    members = dict(zip((VF_AT, OTHER_VF), group_members))
    functions = [{
        "address": address, "driver": "igbvf", "group": 20, "group_members": members[address], "is_bridge": False,
        "class": "020000", "used_by": [USED] if address == OTHER_VF else [], "holders": [], "physfn": NIC_AT, "parent": None,
    } for address in (VF_AT, OTHER_VF)]
    interfaces = [interface(name="v%d" % number, function=address) for number, address in enumerate((VF_AT, OTHER_VF))]
    return {"functions": functions, "host": {"usage_unknown": [], "network": {"interfaces": interfaces}}}


@pytest.mark.parametrize("members, together", [([[VF_AT], [OTHER_VF]], False), ([[VF_AT, OTHER_VF]] * 2, True),
                                               ([[VF_AT, OTHER_VF], [OTHER_VF]], True)])
def test_a_virtual_function_goes_with_another_of_its_slot_only_in_one_group(members, together):
    machine, both = two_virtual(members), [VF_AT, OTHER_VF]
    used = ["the host uses it: /srv is mounted from it"]
    assert obstacles.to_bind(machine, both, set(both), {}) == {
        VF_AT: ["%s goes with it, and is held" % OTHER_VF] if together else [], OTHER_VF: used}
    stuck = obstacles.to_bind(machine, [VF_AT], set(both), {OTHER_VF: [manage.STUCK]})
    assert stuck[VF_AT] == (["%s goes with it, and is held" % OTHER_VF] if together else [])


def test_a_controller_takes_what_is_behind_it_from_nobody(host):
    behind = {"physfn": None, "parent": NIC_AT, "holders": GUEST}
    result = bind_nic(host, with_virtual(host, **behind))
    assert result["deferred"] == [{"address": NIC_AT, "why": [
        "%s, behind it: qemu-system-x86 (process 9) has /dev/vfio/20 open" % VF_AT]}]
    assert bind_nic(host, with_virtual(host, physfn=None, parent=NIC_AT))["deferred"] == []


def test_a_physical_function_that_is_to_have_virtual_ones_is_refused(host):
    host.put("/etc/vfio-host/sriov", "# made\npf %s 8086 10d3 - 2 0\nvf %s 0 vfio-pci - - - - -\n" % (NIC_AT, NIC_AT))
    for when in ("boot", "auto", "now"):
        with pytest.raises(HostError) as caught:
            go(host, when=when)
        for word in (NIC_AT, "/etc/vfio-host/sriov", "2 virtual functions", "count: 0"):
            assert word in str(caught.value)
    assert host.writes == [] and host.read(asked.DEVICES) is None
    assert go(host, (GPU, AUDIO))["deferred"] == []


# -- it does not work -----------------------------------------------------------------------------


STEPS = [("driver_override", NIC_AT), ("unbind", GPU_AT), ("unbind", NIC_AT), ("drivers_probe", NIC_AT)]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_puts_everything_back_and_says_which(host, step):
    before = host.state()
    host.refuse.add(step)
    host.said = ["vfio-pci %s: something" % step[1], "e1000e: of no interest"]
    with pytest.raises(HostError) as caught:
        go(host)
    text = str(caught.value)
    assert step[0] in text and step[1] in text and "Device or resource busy" in text
    assert "Every function is back at the driver that it had" in text
    assert "The kernel said: vfio-pci %s: something" % step[1] in text and "of no interest" not in text
    host.refuse.clear()
    assert host.state() == before and ours(host) == [None, None, False, False]


OLD = ["vfio-pci %s: of another day" % NIC_AT, "vfio-pci %s: probe failed" % NIC_AT]
NEW = ["e1000e %s: unbound" % NIC_AT, "vfio-pci %s: probe failed" % NIC_AT]


@pytest.mark.parametrize("stamps", [True, False])
@pytest.mark.parametrize("ring", [1000, 4, 3, 2])
def test_what_the_kernel_said_in_this_run_is_told_and_no_more(host, ring, stamps):
    """Whatever its stamps are, and although its log loses the oldest lines."""
    host.ring, host.stamps = ring, stamps
    host.say("of no interest", "of no interest", *OLD)
    host.said = list(NEW)
    host.fail.add("vfio-pci")
    with pytest.raises(HostError) as caught:
        go(host, (NIC,))
    assert str(caught.value).endswith("The kernel said: " + " | ".join(NEW))


def test_what_the_kernel_said_on_the_way_back_is_told(host):
    go(host)
    host.say(*OLD)
    host.fail.add("e1000e")
    host.said = ["e1000e: probe of %s failed with error -5" % NIC_AT]
    with pytest.raises(HostError) as caught:
        go(host, (), state="absent")
    assert str(caught.value).endswith(
        ". The kernel said: e1000e: probe of %s failed with error -5. The record is kept: run this again, or reboot" % NIC_AT)


@pytest.mark.parametrize("how", ["no command", "not allowed", "from now on"])
def test_a_log_that_cannot_be_read_is_not_told(host, monkeypatch, how):
    """Nor is all of it told as new where it could not be read before."""
    command, asked_for = host.commands, []

    def unreadable(argv, given):
        if argv[0] != "dmesg":
            return command(argv, given)
        asked_for.append(argv)
        if how == "no command" or how == "from now on" and len(asked_for) == 1:
            raise HostError("dmesg: No such file or directory")
        return Result(argv, 1, "", "not permitted") if how == "not allowed" else command(argv, given)

    monkeypatch.setattr(host, "commands", unreadable)
    host.say(*OLD)
    host.fail.add("vfio-pci")
    with pytest.raises(HostError) as caught:
        go(host, (NIC,))
    assert str(caught.value).endswith("Every function is back at the driver that it had")


@pytest.mark.parametrize("before, now, new", [
    ([], ["a"], ["a"]), (["a"], ["a"], []), (["a", "b"], ["a", "b", "c"], ["c"]), (["a", "b"], ["b", "c"], ["c"]),
    (["a", "b"], ["c", "d"], ["c", "d"]), (["a", "b"], [], []), (["a", "a"], ["a", "a", "a"], ["a"]),
    (["x", "a", "x"], ["x", "a", "x", "a"], ["a"]), (["x", "a", "x"], ["a", "x", "y"], ["y"])])
def test_lines_that_came_after_others(before, now, new):
    assert live.after(before, now) == new


@pytest.mark.parametrize("line", ["[    1.000000] vfio: x", "<6>[    1.000000] vfio: x", "[    1.000000][  T123] vfio: x",
                                  "[    1.000000] [    C0] vfio: x", "vfio: x"])
def test_the_stamp_of_a_line_is_not_told(host, line):
    host.log = [line]
    assert live.kernel_log(host, [], []) == ["vfio: x"]


def test_a_driver_that_does_not_take_a_function_puts_everything_back(host):
    before = host.state()
    host.fail.add("vfio-pci")
    with pytest.raises(HostError, match="driver vfio-pci did not take it"):
        go(host)
    assert host.state() == before


def test_a_group_that_the_kernel_does_not_call_viable_puts_everything_back(host, monkeypatch):
    before = host.state()
    monkeypatch.setattr(host, "vfio_viable", lambda path: not path.endswith("8"))
    with pytest.raises(HostError, match="does not call its group viable .*/dev/vfio/8"):
        go(host)
    assert host.state() == before


def test_where_functions_have_nodes_instead_of_groups_these_are_opened(host):
    host.groups = False
    assert go(host)["changed"]
    assert host.opened == ["/dev/vfio/devices/vfio%d" % number for number in range(3)]


@pytest.mark.parametrize("how", ["no node", "it does not open"])
def test_a_node_of_a_function_that_does_not_open_puts_everything_back(host, monkeypatch, how):
    host.groups = False
    before, put = host.state(), host.put

    def refuse(path, timeout=10.0):
        raise HostTimeout("opening %s did not end within 10 s" % path)

    if how == "no node":
        monkeypatch.setattr(host, "put", lambda path, text: path.endswith("vfio2") or put(path, text))
    else:
        monkeypatch.setattr(host, "vfio_open", refuse)
    with pytest.raises(HostError, match="/dev/vfio/devices/vfio"):
        go(host)
    assert host.state() == before and ours(host) == [None, None, False, False]


@pytest.mark.parametrize("when", ["auto", "now", "boot"])
@pytest.mark.parametrize("check", [True, False])
def test_an_address_given_twice_is_refused_before_anything_is_touched(host, when, check):
    before = host.state()
    with pytest.raises(ValueError, match="devices: %s is given twice" % GPU_AT):
        go(host, (GPU, AUDIO, dict(GPU, address=GPU_AT.upper())), when=when, check=check)
    assert (host.state(), host.changes, ours(host)) == (before, 0, [None, None, False, False])


FULL = [asked.DEVICES, record.STATE]


@pytest.mark.parametrize("path", FULL)
@pytest.mark.parametrize("when", ["auto", "boot"])
def test_a_disk_without_room_is_told_and_nothing_has_moved(host, path, when):
    before = host.state()
    host.full.add(path)
    with pytest.raises(HostError) as caught:
        go(host, when=when)
    text = str(caught.value)
    assert path in text and "No space left on device" in text and "no function was moved" in text
    assert (host.state(), host.writes, ours(host)) == (before, [], [None, None, False, False])


@pytest.mark.parametrize("path", FULL)
def test_a_disk_without_room_leaves_the_list_as_it_was(host, path):
    go(host, (NIC,))
    before, writes = (host.state(), ours(host)), list(host.writes)
    host.full.add(path)
    with pytest.raises(HostError, match="No space left on device"):
        go(host)
    assert ((host.state(), ours(host)), host.writes) == (before, writes)


@pytest.mark.parametrize("wanted", [ALL, (NIC,)])
def test_a_disk_that_becomes_full_meanwhile_is_told_and_the_next_run_ends_it(host, monkeypatch, wanted):
    before, write = host.state(), host.write_sysfs
    go(host, (GPU, AUDIO))

    def fill(path, value, timeout=10.0):
        host.full.update(FULL)
        write(path, value, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(host, "write_sysfs", fill)
        with pytest.raises(HostError, match="No space left on device"):
            go(host, wanted)
    host.full.clear()
    go(host, wanted)
    assert {a for a, now in host.state().items() if now == VFIO} == {device["address"] for device in wanted}
    assert not go(host, wanted)["changed"]
    go(host, (), state="absent")
    assert (host.state(), ours(host)) == (before, [None, None, False, False])


def test_a_group_that_a_guest_has_open_is_viable(host):
    host.open_groups.add("7")
    assert go(host)["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_a_module_that_is_not_there_is_refused_before_anything_is_touched(host, check):
    before = host.state()
    with pytest.raises(HostError, match="driver xyz_vfio_pci cannot be loaded: modprobe -n -q xyz_vfio_pci ended with 1"):
        go(host, (dict(NIC, driver="xyz_vfio_pci"),), check=check)
    assert host.state() == before and host.writes == [] and ours(host) == [None, None, False, False]


def test_a_module_that_cannot_be_loaded_after_all_changes_nothing(host, monkeypatch):
    before, modprobe = host.state(), host._modprobe
    monkeypatch.setattr(host, "_modprobe", lambda name, dry: (dry or name != "vfio-pci") and modprobe(name, dry))
    with pytest.raises(HostError, match="driver vfio-pci: modprobe -q vfio-pci ended with 1"):
        go(host)
    assert host.state() == before and ours(host) == [None, None, False, False]


def test_for_the_next_boot_no_module_is_asked_for(host):
    assert go(host, (dict(NIC, driver="xyz_vfio_pci"),), when="boot")["changed"]


def test_what_has_lost_its_driver_stays_for_the_next_boot_instead_of_without_any(host):
    go(host)
    host.unload("e1000e")
    host.missing.add("e1000e")
    with pytest.raises(HostError, match="%s: its driver e1000e cannot be loaded: modprobe -n -q e1000e" % NIC_AT):
        go(host, (), state="absent", when="now")
    predicted = go(host, (), state="absent", check=True)
    assert predicted == go(host, (), state="absent")
    assert [d["address"] for d in predicted["deferred"]] == [NIC_AT] and predicted["reboot_required"]
    assert host.state() == {GPU_AT: ("bochs-drm", None), AUDIO_AT: ("snd_hda_intel", None), NIC_AT: VFIO}
    assert sorted(record.read(host)[1]) == [NIC_AT]


def test_a_card_does_not_go_home_by_halves_where_one_driver_is_missing(host):
    go(host)
    before, writes = host.state(), list(host.writes)
    host.unload("bochs-drm")
    host.missing.add("bochs-drm")
    missing = "its driver bochs-drm cannot be loaded: modprobe -n -q bochs-drm ended with 1"
    with pytest.raises(HostError) as caught:
        go(host, (), state="absent", when="now")
    assert "%s: %s; %s: %s goes with it, and cannot go home now" % (GPU_AT, missing, AUDIO_AT, GPU_AT) in str(caught.value)
    assert host.writes == writes
    predicted = go(host, (), state="absent", check=True)
    assert predicted == go(host, (), state="absent") and predicted["reboot_required"]
    assert predicted["deferred"] == [{"address": GPU_AT, "why": [missing]},
                                     {"address": AUDIO_AT, "why": ["%s goes with it, and cannot go home now" % GPU_AT]}]
    assert host.state() == dict(before, **{NIC_AT: ("e1000e", None)}) and sorted(record.read(host)[1]) == [GPU_AT, AUDIO_AT]
    assert not go(host, (), state="absent")["changed"]
    host.missing.clear()
    assert go(host, (), state="absent")["deferred"] == [] and ours(host) == [None, None, False, False]


def test_a_card_that_is_held_and_whose_driver_is_missing_says_both(host):
    go(host)
    host.unload("bochs-drm")
    host.missing.add("bochs-drm")
    guest = {GPU_AT: {"holders": [{"pid": 9, "command": "qemu-system-x86", "node": "/dev/vfio/7"}]}}
    why = {one["address"]: one["why"] for one in go(host, (), state="absent", **guest)["deferred"]}
    assert why == {GPU_AT: ["its driver bochs-drm cannot be loaded: modprobe -n -q bochs-drm ended with 1",
                            "qemu-system-x86 (process 9) has /dev/vfio/7 open"],
                   AUDIO_AT: ["%s goes with it, and cannot go home now" % GPU_AT]}


def test_a_driver_whose_probe_fails_on_the_way_back_is_told_and_the_others_are_home(host):
    go(host)
    host.fail.add("e1000e")
    with pytest.raises(HostError) as caught:
        go(host, (), state="absent")
    assert "writing %r to /sys/bus/pci/drivers/e1000e/bind: No such device" % NIC_AT in str(caught.value)
    assert host.state() == {GPU_AT: ("bochs-drm", None), AUDIO_AT: ("snd_hda_intel", None), NIC_AT: (None, None)}
    assert NIC_AT in record.read(host)[1]
    host.fail.clear()
    assert go(host, (), state="absent")["changed"]
    assert host.driver(NIC_AT) == "e1000e" and ours(host) == [None, None, False, False]


def test_the_list_stays_as_wanted_when_only_the_way_home_fails(host):
    go(host)
    host.fail.add("e1000e")
    with pytest.raises(HostError):
        go(host, (GPU, AUDIO))
    assert NIC_AT not in host.read(asked.DEVICES) and host.state()[GPU_AT] == VFIO and NIC_AT in record.read(host)[1]
    host.fail.clear()
    go(host, (GPU, AUDIO))
    assert host.driver(NIC_AT) == "e1000e" and sorted(record.read(host)[1]) == [GPU_AT, AUDIO_AT]


def test_what_cannot_be_bound_keeps_what_was_to_go_home(host):
    go(host, (NIC,))
    before, files = host.state(), ours(host)
    host.refuse.add(("unbind", GPU_AT))
    with pytest.raises(HostError):
        go(host, (GPU, AUDIO))
    assert (host.state(), ours(host)) == (before, files)


# -- it hangs ----------------------------------------------------------------------------------------


def test_a_driver_that_hangs_in_unbind_is_written_to_once_and_the_others_are_put_back(host):
    before = host.state()
    host.hang.add(("unbind", GPU_AT))
    with pytest.raises(HostError) as caught:
        go(host)
    assert "did not end within" in str(caught.value) and "Not put back: %s" % GPU_AT in str(caught.value)
    assert {a: s for a, s in host.state().items() if a != GPU_AT} == {a: s for a, s in before.items() if a != GPU_AT}
    assert [address for name, address, value in host.writes if address == GPU_AT].count(GPU_AT) == 2  # override, unbind
    assert record.read(host)[1][GPU_AT]["stuck"] == "first"


def test_what_hangs_is_not_tried_again_before_a_reboot(host):
    before = host.state()
    host.hang.add(("unbind", GPU_AT))
    with pytest.raises(HostError):
        go(host)
    writes = len(host.writes)
    result = go(host, (GPU, AUDIO))
    assert [w for w in host.writes[writes:] if w[1] == GPU_AT] == []
    assert "not touched before a reboot" in result["deferred"][0]["why"][0] and result["reboot_required"]
    host.blocked.add("/sys/bus/pci/devices/%s/driver_override" % GPU_AT)  # the probe cannot read it either
    assert go(host, (GPU, AUDIO, NIC))["deferred"] == result["deferred"] and host.driver(NIC_AT) == "vfio-pci"
    host.blocked.clear()
    with pytest.raises(HostError, match="not touched before a reboot"):
        go(host, (GPU, AUDIO), when="now")
    assert go(host, (), state="absent")["reboot_required"]
    host.reboot()
    assert go(host)["deferred"] == [] and host.driver(GPU_AT) == "vfio-pci"
    go(host, (), state="absent")
    assert host.state() == before and ours(host) == [None, None, False, False]


# -- driverctl decides about a function already --------------------------------------------------------


OVERRIDE = "/etc/driverctl.d/pci-" + NIC_AT


@pytest.fixture
def overridden(host):
    """As driverctl set-override leaves it."""
    host.put(OVERRIDE, "vfio-pci\n")
    host.write_sysfs("/sys/bus/pci/devices/%s/driver_override" % NIC_AT, "vfio-pci\n")
    host.write_sysfs("/sys/bus/pci/devices/%s/driver/unbind" % NIC_AT, NIC_AT)
    live.load(host, "vfio-pci")
    host.write_sysfs("/sys/bus/pci/drivers_probe", NIC_AT)
    assert host.state()[NIC_AT] == VFIO
    return host


def test_an_override_of_driverctl_is_refused_with_the_remedy(overridden):
    before = overridden.state(), overridden.read(OVERRIDE), ours(overridden)
    with pytest.raises(HostError, match="%s: vfio-pci.*driverctl unset-override %s" % (OVERRIDE, NIC_AT)):
        go(overridden)
    assert (overridden.state(), overridden.read(OVERRIDE), ours(overridden)) == before
    assert go(overridden, (GPU, AUDIO))["changed"]


@pytest.mark.parametrize("when", ["boot", "auto"])
def test_an_imported_override_of_driverctl_comes_back(overridden, when):
    before = overridden.state()
    predicted = go(overridden, when=when, check=True, driverctl="import")
    assert overridden.read(OVERRIDE) == "vfio-pci\n"
    assert predicted == go(overridden, when=when, driverctl="import")
    assert predicted["changed"] and {"before_header": OVERRIDE, "after_header": OVERRIDE,
                                     "before": "vfio-pci\n", "after": ""} in predicted["diff"]
    assert overridden.read(OVERRIDE) is None and overridden.isdir("/etc/driverctl.d")
    assert not go(overridden, when=when)["changed"]
    predicted = go(overridden, (GPU, AUDIO), when=when, check=True)
    assert predicted == go(overridden, (GPU, AUDIO), when=when) and predicted["changed"]
    assert overridden.read(OVERRIDE) == "vfio-pci\n"
    go(overridden, (), state="absent")
    assert (overridden.state(), ours(overridden)) == (before, [None, None, False, False])
    assert overridden.read(OVERRIDE) == "vfio-pci\n"


def test_an_override_that_was_set_again_meanwhile_stays(overridden):
    go(overridden, driverctl="import")
    overridden.put(OVERRIDE, "e1000e\n")
    with pytest.raises(HostError, match="e1000e"):
        go(overridden)
    go(overridden, (), state="absent")
    assert overridden.read(OVERRIDE) == "e1000e\n"


def test_an_imported_override_is_back_when_the_transaction_fails(overridden):
    overridden.fail.add("vfio-pci")
    before = overridden.state()
    with pytest.raises(HostError):
        go(overridden, driverctl="import")
    assert (overridden.state(), ours(overridden)) == (before, [None, None, False, False])
    assert overridden.read(OVERRIDE) == "vfio-pci\n"


# -- NVIDIA's daemon has a card open -------------------------------------------------------------------


@pytest.fixture
def kept(host):
    host.put("/usr/bin/nvidia-smi", "")
    host.persistent.add(GPU_AT)
    return host


def test_the_daemon_is_a_user_like_any_other(kept):
    with pytest.raises(HostError, match="nvidia-persiste .process 812. has /dev/nvidia0 open"):
        go(kept, when="now")
    assert kept.smi == []


def test_the_daemon_lets_go_and_keeps_again_on_the_way_back(kept):
    before = kept.state()
    predicted = go(kept, when="now", persistence="release", check=True)
    assert kept.smi == [] and kept.persistent == {GPU_AT}
    assert predicted == go(kept, when="now", persistence="release")
    assert kept.smi == [["-i", GPU_AT, "-pm", "0"]] and kept.state() == dict.fromkeys(before, VFIO)
    assert not go(kept, when="now", persistence="release")["changed"]
    go(kept, (), state="absent")
    assert kept.smi[1:] == [["-i", GPU_AT, "-pm", "1"]] and kept.persistent == {GPU_AT}
    assert (kept.state(), ours(kept)) == (before, [None, None, False, False])


def test_without_the_command_the_daemon_keeps_the_card(host):
    host.persistent.add(GPU_AT)
    with pytest.raises(HostError, match="nvidia-persiste"):
        go(host, when="now", persistence="release")


def test_a_card_that_somebody_else_uses_too_is_left_to_the_daemon(kept):
    holders = [{"pid": 812, "command": "nvidia-persiste", "node": "/dev/nvidia0"},
               {"pid": 99, "command": "python3", "node": "/dev/nvidia0"}]
    result = go(kept, persistence="release", **{GPU_AT: {"holders": holders}})
    assert kept.smi == [] and [d["address"] for d in result["deferred"]] == [GPU_AT, AUDIO_AT]


@pytest.mark.parametrize("how", ["it fails", "it does not let go", "the driver fails"])
def test_when_the_daemon_does_not_let_go_all_is_as_before(kept, how):
    before = kept.state()
    changes = {}
    if how == "it fails":
        kept.smi_fails = True
    elif how == "the driver fails":
        kept.fail.add("vfio-pci")
    else:
        changes[GPU_AT] = {"holders": [{"pid": 812, "command": "nvidia-persiste", "node": "/dev/nvidia0"}]}
    with pytest.raises(HostError):
        go(kept, persistence="release", **changes)
    assert (kept.state(), ours(kept), kept.persistent) == (before, [None, None, False, False], {GPU_AT})


def test_fifty_times_there_and_back_leave_nothing(host):
    before = host.state()
    for dummy in range(50):
        go(host)
        go(host, (), state="absent")
    assert host.state() == before and ours(host) == [None, None, False, False]
