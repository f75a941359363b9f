# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of other tools in initramfs images, and that ours has them not."""

from __future__ import annotations

import re

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import (
    dracut,
    initramfs_tools,
    manage,
    mkinitcpio,
    script,
)
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import test_dracut, test_mkinitcpio
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU

GENERATORS = [initramfs_tools, dracut, mkinitcpio]
MANY = [
    dict(GPU, driver="mlx5_vfio_pci"),
    dict(AUDIO, driver="nvgrace-gpu-vfio-pci"),
    dict(AUDIO, address="0000:02:00.0"),
    dict(AUDIO, address="0000:03:00.0", driver="qat_vfio_pci", path="0000:00/01.0/00.0"),
]


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.NAME)
def test_every_drop_in_has_a_name_that_is_read(generator):
    """A file in dracut.conf.d without .conf at its end: dracut never reads it."""
    folders = [path for path, dummy, dummy2 in generator.files() if ".conf.d/" in path]
    assert all(path.endswith(".conf") for path in folders)
    assert bool(folders) is (generator is not initramfs_tools)


def test_dracut_is_asked_for_our_module_by_its_own_words():
    """``add_driver`` for ``add_drivers``: a variable that dracut does not have. A list without blanks around it is
    glued to its neighbours."""
    lines = [line for line in dracut.CONFIGURATION_TEXT.splitlines() if not line.startswith("#")]
    assert lines == ['add_dracutmodules+=" vfio-host "']
    assert re.match(r"\d\dvfio-host\Z", dracut.MODULE.rsplit("/", 1)[1])


def test_all_drivers_of_the_list_go_into_an_image_and_not_only_the_last_ones(tmp_path):
    """The list of modules was set anew in each round of the loop."""
    text = asked.render([asked.identity(item) for item in MANY])
    lines = test_dracut.lines_of(tmp_path, text, has="mlx5_vfio_pci nvgrace-gpu-vfio-pci qat_vfio_pci")
    words = [line.split()[2:] for line in lines if line.startswith("instmods")]
    assert words[1:] == [["mlx5_vfio_pci"], ["nvgrace_gpu_vfio_pci"], ["qat_vfio_pci"]]
    (tmp_path / "hook").write_text(mkinitcpio.INSTALL_TEXT)
    found = test_mkinitcpio.install(
        str(tmp_path / "hook"), str(tmp_path / "list"), "vfio_pci mlx5_vfio_pci nvgrace_gpu_vfio_pci qat_vfio_pci")
    assert [item[1] for item in found if item[0] == "module"] == [
        "vfio_pci", "mlx5_vfio_pci", "nvgrace_gpu_vfio_pci", "qat_vfio_pci"]  # fmt: skip


@pytest.mark.parametrize("driver", ["nouveau", "vfio-pci-not", "pci-stub"])
def test_a_driver_that_is_none_of_vfio_is_told_apart(tmp_path, driver):
    """``[ "$mod"="vfio-pci" ]`` is one word, and so always true."""
    text = asked.render([]) + "0000:01:00.0 1234 1111 1af4 1100 - %s\n" % driver
    assert not [line for line in test_dracut.lines_of(tmp_path, text, has=driver) if driver in line]
    (tmp_path / "hook").write_text(mkinitcpio.INSTALL_TEXT)
    found = test_mkinitcpio.install(str(tmp_path / "hook"), str(tmp_path / "list"), driver.replace("-", "_"))
    assert not [item for item in found if item[0] == "module"]


@pytest.mark.parametrize(
    "text",
    [script.TEXT, initramfs_tools.HOOK_TEXT, dracut.SETUP_TEXT, dracut.HOOK_TEXT, mkinitcpio.INSTALL_TEXT,
     mkinitcpio.HOOK_TEXT],
)  # fmt: skip
def test_no_test_of_ours_is_one_word(text):
    assert not re.search(r"\[\[? *[^]\n ]*[^ !=]==?[^ ~=]", re.sub(r"[\"']\$[^\"']*[\"']", '"x"', text))


@pytest.mark.parametrize("state", ["present", "absent"])
def test_every_kernel_is_rebuilt_and_not_only_the_running_one(tmp_path, state):
    host = test_dracut.Machine(str(tmp_path))
    host.write("/proc/sys/kernel/osrelease", test_dracut.KERNELS[0] + "\n")
    test_dracut.go(host)
    host.calls.clear()
    if state == "present":
        host.write(asked.DEVICES, asked.render([asked.identity(GPU)]))
    test_dracut.go(host, state)
    assert {argv[-1] for argv, dummy in host.calls} == set(test_dracut.KERNELS)


def test_a_kernel_without_vfio_virqfd_is_no_error_and_one_with_it_needs_it(tmp_path):
    """A fixed list of modules names one that newer kernels do not have."""
    host = test_dracut.Machine(str(tmp_path))
    path = "/lib/modules/%s/modules.dep" % test_dracut.KERNELS[0]
    assert test_dracut.go(host)["changed"] is True
    host.write(path, host.read(path) + "kernel/drivers/vfio/vfio_virqfd.ko:\n")
    host.remove(manage.STATE)
    reason = "%s.img was built, but read back: the module vfio_virqfd" % test_dracut.KERNELS[0]
    with pytest.raises(HostError, match=reason):
        test_dracut.go(host)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.NAME)
def test_nothing_of_ours_is_an_option_of_a_module(generator):
    """Ids in modprobe.d are of no use where vfio-pci is built in, and take each card of that kind where they are."""
    for path, text, dummy in generator.files():
        assert "modprobe.d" not in path
        assert not re.search(r"\boptions\s+vfio|\bids=|new_id", text)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.NAME)
def test_with_vfio_pci_built_in_no_module_file_is_wanted(generator, tmp_path):
    host = test_dracut.Machine(str(tmp_path))
    version = test_dracut.KERNELS[0]
    host.write("/lib/modules/%s/modules.dep" % version, "")
    host.write("/lib/modules/%s/modules.builtin" % version, "".join(
        "kernel/drivers/vfio/%s.ko\n" % name for name in ("pci/vfio-pci", "vfio", "vfio_iommu_type1")))
    wanted, lacking = manage.modules.needed(host, version, asked.render([asked.identity(GPU)]).encode())
    assert (wanted, lacking) == (set(), [])
