# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each thing that must be there before a guest starts, with and without it."""

from __future__ import annotations

import shutil

import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import preflight, spec
from ansible_collections.vfio.host.plugins.module_utils._host import Host

RAW = {
    "name": "a",
    "memory": "64MiB",
    "vcpus": 1,
    "devices": [
        {"name": "gpu", "functions": [{"address": "0000:01:00.0", "vendor": "1234", "device": "1111"}]},
    ],
    "disks": [{"path": "/srv/old.raw"}, {"path": "/srv/new.qcow2", "size": "1MiB"}],
    "network": "br0",
    "kernel": "/boot/k",
    "initrd": "/boot/i",
}


@pytest.fixture(name="root")
def root_(tmp_path):
    for name in ("dev/kvm", "srv/old.raw", "boot/k", "boot/i", "usr/bin/qemu-img"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "sys/class/net/br0/bridge").mkdir(parents=True)
    function = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    function.mkdir(parents=True)
    (function / "vendor").write_text("0x1234\n")
    (function / "device").write_text("0x1111\n")
    (function / "driver").symlink_to("../../drivers/vfio-pci")
    return tmp_path


def problems(root, starting=True, **change):
    return preflight.problems(Host(root), spec.normalise([dict(RAW, **change)])[0], starting)


def test_a_ready_host_has_none(root):
    assert problems(root) == []


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("dev/kvm", "/dev/kvm is missing: turn on virtualisation"),
        ("srv/old.raw", "disk /srv/old.raw does not exist: give it a size"),
        ("srv", "the folder /srv does not exist: create or mount it"),
        ("usr/bin/qemu-img", "qemu-img is missing: install qemu-utils"),
        ("boot/k", "kernel /boot/k does not exist"),
        ("boot/i", "initrd /boot/i does not exist"),
        ("sys/class/net/br0/bridge", "network br0 is not a bridge"),
        ("sys/bus/pci/devices/0000:01:00.0", "device gpu: there is no function 0000:01:00.0"),
        ("sys/bus/pci/devices/0000:01:00.0/driver", "has driver none and not vfio-pci"),
    ],
)
def test_what_is_gone_is_a_problem(root, gone, message):
    path = root / gone
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    else:
        path.unlink()
    assert message in "; ".join(problems(root))


def test_another_driver(root):
    link = root / "sys/bus/pci/devices/0000:01:00.0/driver"
    link.unlink()
    link.symlink_to("../../drivers/nouveau")
    assert "0000:01:00.0 has driver nouveau and not vfio-pci or a variant of it: bind it" in problems(root)[0]
    assert problems(root, starting=False) == []


@pytest.mark.parametrize("driver", ["mlx5_vfio_pci", "nvgrace-gpu-vfio-pci", "vfio-pci"])
def test_a_variant_of_vfio_pci_is_one(root, driver):
    link = root / "sys/bus/pci/devices/0000:01:00.0/driver"
    link.unlink()
    link.symlink_to("../../drivers/" + driver)
    assert problems(root) == []


def test_another_card_in_the_slot(root):
    (root / "sys/bus/pci/devices/0000:01:00.0/device").write_text("0x2222\n")
    assert "device of 0000:01:00.0 is 0x2222 and not 0x1111" in problems(root)[0]


def test_a_path_below_dev_must_be_a_block_device(root):
    (root / "dev/sdb").write_text("")
    assert "disk /dev/sdb is not a block device" in problems(root, disks=[{"path": "/dev/sdb"}])[0]


def test_a_guest_that_is_only_defined_needs_less(root):
    shutil.rmtree(str(root / "sys"))
    shutil.rmtree(str(root / "boot"))
    (root / "srv/old.raw").unlink()
    assert problems(root, starting=False) == []
