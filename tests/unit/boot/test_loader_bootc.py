# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bootc, rpm_ostree
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, evidence

WANTED = ["intel_iommu=on", "iommu=pt"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def host(tmp_path):
    found = Machine(tmp_path)
    found.write("/usr/bin/bootc", "")
    found.write("/run/ostree-booted", "")
    for number, more in ((1, ""), (2, " intel_iommu=on iommu=pt")):
        found.write(
            "/boot/loader/entries/ostree-%d.conf" % number,
            "title CentOS Stream 9 (ostree:%d)\nversion %d\n"
            "options root=UUID=1 rw%s ostree=/ostree/boot.1/default/x/0\n"
            "linux /boot/ostree/default-x/vmlinuz-5.14\ninitrd /boot/ostree/default-x/initramfs-5.14.img\n"
            % (2 - number, number, more),
        )
    found.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt3)/boot/ostree/x ostree=/ostree/boot.1/default/x/0 rw\n")
    return found


def go(host, parameters, state="present", check=False):
    return cmdline.run(host, {"parameters": parameters, "state": state, "loader": "auto"}, check)


@pytest.mark.parametrize("running", ["ostree=/ostree/boot.1/default/x/0", "composefs=abcdef"])
def test_it_is_for_bootc_without_rpm_ostree(host, running):
    host.write("/proc/cmdline", running + "\n")
    assert evidence(bootc, host) == (["%s on the running command line" % running], [])
    assert cmdline.detect(host)[0] is bootc
    host.write("/usr/bin/rpm-ostree", "")
    assert cmdline.detect(host)[0] is (rpm_ostree if running.startswith("ostree=") else bootc)


@pytest.mark.parametrize("line, image", [("container-image-reference=ostree-unverified-image:x", True),
                                         ("refspec=fedora:fedora/x86_64/silverblue", False)])  # fmt: skip
def test_a_deployment_that_is_no_image_is_not_its(host, line, image):
    """bootc may be installed on any host of ostree."""
    host.link("/ostree/boot.1/default/x/0", "../../../deploy/default/deploy/abc.0")
    host.write("/ostree/deploy/default/deploy/abc.0/usr/bin/true", "")
    host.write("/ostree/deploy/default/deploy/abc.0.origin", "[origin]\n%s\n" % line)
    assert any("not made from a container image" in sentence for sentence in evidence(bootc, host)[1]) is not image
    assert (evidence(bootc, host)[1] == []) is image


def test_no_image_of_bootc_is_running(host):
    host.write("/proc/cmdline", "root=/dev/x\n")
    assert any("no image of bootc" in sentence for sentence in evidence(bootc, host)[1])
    assert evidence(rpm_ostree, host)[1] != []


def test_an_image_that_is_one_file_is_refused(host):
    for name in host.listdir("/boot/loader/entries"):
        host.remove("/boot/loader/entries/" + name)
    assert any("cannot be changed" in reason for reason in bootc.unusable(host))


def test_what_the_image_has_is_in_force_and_nothing_is_written(host):
    before = host.tree()
    result = go(host, WANTED)
    assert (result["by_hand"], result["owned"]) == (WANTED, [])
    assert result["reboot_required"] is True
    assert bootc.fallback_unavailable(host) in result["warnings"]
    assert go(host, WANTED)["changed"] is False
    go(host, [], "absent")
    assert host.tree() == before


def test_the_highest_version_boots(host):
    assert [(entry["id"], entry["default"]) for entry in bootc.view(host)["entries"]] == [
        ("ostree-2", True), ("ostree-1", False),
    ]  # fmt: skip


def test_what_the_image_lacks_is_refused_with_the_file_that_it_needs(host):
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            go(host, ["intel_iommu=on", "pci=noaer"], check=check)
        assert "10-vfio-host.toml" in str(caught.value)
        assert 'kargs = ["pci=noaer"]' in str(caught.value)
        assert "set-options-for-source --source vfio-host" in str(caught.value)
    assert host.tree() == before


def test_a_staged_deployment_is_not_guessed_at(host):
    host.write("/run/ostree/staged-deployment", "x")
    with pytest.raises(HostError, match="reboot first"):
        go(host, WANTED)
    assert "bootc rollback" in bootc.fallback_unavailable(host) + bootc.trial_obstacles(host)[0]
