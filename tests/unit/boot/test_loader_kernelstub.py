# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import edits
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import kernelstub, systemd_boot
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import kernelstub as stand_in
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply, evidence, lines

WANTED = ["intel_iommu=on", "iommu=pt"]
CURRENT = "/boot/efi/loader/entries/Pop_OS-current.conf"
TOOLS = {"kernelstub": stand_in.run, "bootctl": stand_in.bootctl}


def make(folder):
    found = stand_in.make(Machine(folder, TOOLS))
    found.calls.clear()
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def host(tmp_path):
    return make(tmp_path)


def changed(host, **values):
    found = json.loads(host.read(kernelstub.CONFIGURATION))
    found["user"].update(values)
    host.write(kernelstub.CONFIGURATION, json.dumps(found, indent=2))


def test_it_is_recognised_by_what_booted(host):
    found, against = evidence(kernelstub, host)
    assert against == []
    assert "Pop_OS-current" in found[1] and "Pop_OS-oldkern" in found[1]
    assert any("kernelstub makes" in sentence for sentence in evidence(systemd_boot, host)[1])


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"setup_loader": False}, "kernelstub --loader"),
        ({"live_mode": True}, "live system"),
        ({"kernel_options": "quiet splash"}, "run kernelstub once"),
        ({"config_rev": 2}, "run kernelstub once"),
        ({"esp_path": "/efi"}, "systemd-boot reads /boot/efi"),
    ],
)
def test_what_it_cannot_work_with(host, values, reason):
    changed(host, **values)
    assert any(reason in sentence for sentence in kernelstub.unusable(host))


@pytest.mark.parametrize(
    "path, text, reason",
    [
        (kernelstub.CONFIGURATION, None, "no /etc/kernelstub"),
        (kernelstub.CONFIGURATION, "{", "no list user.kernel_options"),
        (kernelstub.CONFIGURATION, '{"default": {}}', "no list user.kernel_options"),
        ("/usr/sbin/kernelstub", None, "not installed"),
        ("/proc/cmdline", "BOOT_IMAGE=/vmlinuz ro\n", "BOOT_IMAGE="),
        (CURRENT, None, "no longer there"),
    ],
)
def test_what_else_may_have_booted(host, path, text, reason):
    host.remove(path) if text is None else host.write(path, text)
    assert any(reason in sentence for sentence in evidence(kernelstub, host)[1])


@pytest.mark.parametrize("once", ["vfio_host=trial", "vfio_host=off"])
def test_an_entry_that_says_what_only_ours_say_is_refused_in_check_mode_too(host, once):
    host.write(CURRENT, host.read(CURRENT).replace("options ", "options %s " % once))
    before = host.tree()
    said = []
    for check in (True, False):
        with pytest.raises(HostError, match="nothing was changed: %s has %s: " % (CURRENT, once)) as caught:
            loader_contract.go(host, WANTED, check=check)
        said.append(str(caught.value))
        assert host.tree() == before
    assert said[0] == said[1]


def test_both_entries_and_the_configuration_get_ours(host):
    before = lines(kernelstub, host)
    assert sorted(before) == ["Pop_OS-current", "Pop_OS-oldkern"]
    recovery = host.read("/boot/efi/loader/entries/Recovery-1234.conf")
    apply(kernelstub, host, WANTED, [])
    assert lines(kernelstub, host) == {name: line + WANTED for name, line in before.items()}
    assert kernelstub.configured(host)[0][-2:] == WANTED
    assert host.read("/boot/efi/loader/entries/Recovery-1234.conf") == recovery
    assert kernelstub.edits(host, WANTED, WANTED) + kernelstub.fallback(host, WANTED) == []
    assert host.calls == []


def test_kernelstub_writes_what_is_there_already(host):
    """So a kernel that is installed later gets ours, and our files stay."""
    apply(kernelstub, host, WANTED, [])
    before = host.tree()
    assert stand_in.run(host, ["kernelstub", "--verbose", "--preserve-live-mode"]).rc == 0
    assert host.tree() == before
    assert kernelstub.edits(host, WANTED, WANTED) + kernelstub.fallback(host, WANTED) == []


def test_another_order_and_no_doubles_after_its_delete(host):
    apply(kernelstub, host, WANTED, [])
    stand_in.run(host, ["kernelstub", "-d", "splash"])
    for line in lines(kernelstub, host).values():
        assert set(WANTED) <= set(line)
    apply(kernelstub, host, [], WANTED)
    assert not set(WANTED) & set(json.loads(host.read(kernelstub.CONFIGURATION))["user"]["kernel_options"])
    assert all(not set(WANTED) & set(line) for line in lines(kernelstub, host).values())


def test_a_configuration_of_which_only_the_list_changes(host):
    before = json.loads(host.read(kernelstub.CONFIGURATION))
    apply(kernelstub, host, WANTED, [])
    after = json.loads(host.read(kernelstub.CONFIGURATION))
    assert after["user"].pop("kernel_options") == before["user"].pop("kernel_options") + WANTED
    assert after == before


def test_what_cannot_be_understood_is_refused_before_anything_is_written(host):
    changed(host, config_rev=4)
    before = host.tree()
    with pytest.raises(HostError, match="another revision"):
        kernelstub.edits(host, WANTED, [])
    assert host.tree() == before


def test_the_fallback_entry_is_not_the_default(host):
    apply(kernelstub, host, WANTED, [])
    own = [entry for entry in kernelstub.view(host)["entries"] if entry["id"].startswith("vfio-host-fallback")]
    assert [(entry["default"], entry["managed"], entry["recovery"]) for entry in own] == [(False, False, True)]
    assert "vfio_host=off" in own[0]["tokens"] and not set(WANTED) & set(own[0]["tokens"])
    assert [entry["id"] for entry in kernelstub.view(host)["entries"] if entry["default"]] == ["Pop_OS-current"]


def test_a_new_image_takes_the_old_ones_place_on_the_partition(host):
    version = stand_in.VERSIONS[1]
    host.write("/boot/initrd.img-" + version, "a new image")
    kernelstub.refresh(host, [version])
    assert host.read("/boot/efi/EFI/Pop_OS-%s/initrd.img" % stand_in.UUID) == "a new image"
    assert host.read("/boot/efi/EFI/Pop_OS-%s/initrd.img-previous" % stand_in.UUID) == "image " + stand_in.VERSIONS[0]


def test_a_trial_entry_boots_once(host):
    apply(kernelstub, host, WANTED, [])
    assert kernelstub.trial_obstacles(host) == []
    before = host.tree()
    version = stand_in.VERSIONS[1]
    image = "/boot/vfio-host-trial-%s.img" % version
    host.write(image, "trial image")
    line = ["root=UUID=" + stand_in.UUID, "ro", "iommu=pt", "vfio_host=trial"]
    kernelstub.trial_binary(host, version, image, line)
    edits.write(host, kernelstub.trial(host, version, image, line))
    own = [entry for entry in kernelstub.view(host)["entries"] if entry["id"] == "vfio-host-trial"][0]
    assert (own["tokens"], own["default"], own["managed"]) == (line, False, False)
    assert host.read(own["initrds"][-1]) == "trial image"
    kernelstub.set_once(host, "vfio-host-trial")
    assert kernelstub.once(host) == "vfio-host-trial"
    kernelstub.set_once(host, None)
    assert kernelstub.once(host) is None
    edits.write(host, kernelstub.trial(host, None, None, None))
    kernelstub.trial_binary(host, None, None, None)
    host.remove(image)
    assert host.tree() == before


@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise):
    promise(lambda: make(tmp_path_factory.mktemp("host")), "kernelstub", by_hand=loader_contract.in_options)
