# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.tests.unit.boot.functions import AUDIO, GPU, SERIAL


def test_the_file_is_what_the_contract_says():
    text = asked.render([asked.identity(AUDIO), asked.identity(dict(GPU, serial=SERIAL))])
    assert text.splitlines()[2:] == [
        "0000:01:00.0 1234 1111 1af4 1100 %s vfio-pci" % SERIAL,
        "0000:01:00.1 8086 293e 1af4 1100 - vfio-pci",
    ]
    assert all(line.startswith("#") for line in text.splitlines()[:2])
    assert asked.parse(text)[0]["serial"] == SERIAL
    assert asked.render(asked.parse(text)) == text


def test_upper_case_is_one_way_of_writing_it():
    assert asked.identity(dict(GPU, subsystem_vendor="1AF4", serial=""))["subsystem_vendor"] == "1af4"


@pytest.mark.parametrize(
    "field, value",
    [
        ("address", "01:00.0"),
        ("address", "0000:01:00.8"),
        ("address", "../../x"),
        ("vendor", "0x1234"),
        ("vendor", None),
        ("device", "11111"),
        ("serial", "1234"),
        ("serial", SERIAL + "\n0000:00:02.0"),
        ("driver", "nouveau"),
        ("driver", "mlx5_vfio_pci\n"),
        ("driver", "vfio-pci -"),
        ("vendor", "1234\n"),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match="devices: %s" % field):
        asked.identity(dict(GPU, **{field: value}))


def test_twice_is_refused():
    with pytest.raises(ValueError, match="0000:01:00.0 is given twice"):
        asked.render([asked.identity(GPU), asked.identity(GPU)])


@pytest.mark.parametrize("line", ["0000:01:00.0 1234", "0000:01:00.0 1234 1111 1af4 1100 - vfio-pci more"])
def test_a_damaged_line_is_named(line):
    with pytest.raises(ValueError, match="line 2: "):
        asked.parse("# header\n%s\n" % line)


def test_variant_drivers_are_drivers():
    for name in ("mlx5_vfio_pci", "nvgrace-gpu-vfio-pci", "virtio_vfio_pci"):
        assert asked.identity(dict(GPU, driver=name))["driver"] == name
        assert asked.is_vfio(name)
        assert asked.parse(asked.render([asked.identity(dict(GPU, driver=name))]))[0]["driver"] == name
    assert asked.identity(dict(GPU, driver="vfio_pci"))["driver"] == "vfio-pci"
    assert asked.module_of("nvgrace-gpu-vfio-pci") == "nvgrace_gpu_vfio_pci"
    assert not asked.is_vfio(None)
