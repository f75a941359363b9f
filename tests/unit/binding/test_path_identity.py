# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two cards of one make: bus numbers shift, and the twin has the address. The way to it tells."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment import plan
from ansible_collections.vfio.host.plugins.module_utils._binding import identity
from ansible_collections.vfio.host.tests.unit.boot.functions import GPU
from ansible_collections.vfio.host.tests.unit.boot.test_boot_script import SHELLS, Machine

HERE, ELSEWHERE = "0000:00/01.0/00.0", "0000:00/1c.0/00.0"
ADDRESS = GPU["address"]


def put(host, address, *ports):
    """Put a function behind ports, as sysfs has it: the folder there, a link in its place."""
    flat = host.root + "/sys/bus/pci/devices/" + address
    real = host.root + "/sys/devices/pci0000:00/" + "/".join(ports + (address,))
    os.makedirs(os.path.dirname(real))
    for name in os.listdir(flat):
        link = os.path.join(flat, name)
        if os.path.islink(link):
            target = os.path.realpath(link)
            os.unlink(link)
            os.symlink(target, link)
    os.rename(flat, real)
    os.symlink(os.path.relpath(real, os.path.dirname(flat)), flat)


@pytest.fixture
def machine(tmp_path):
    return Machine(str(tmp_path))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_the_same_card_behind_the_same_port_is_taken(machine, shell):
    put(machine, ADDRESS, "0000:00:01.0")
    machine.list([dict(GPU, path=HERE)])
    assert machine.boot(shell) == ["0000:01:00.0 taken"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda argv: argv[0])
def test_a_twin_behind_another_port_is_left(machine, shell):
    put(machine, ADDRESS, "0000:00:01.0")
    machine.list([dict(GPU, path=ELSEWHERE)])
    assert machine.boot(shell) == ["0000:01:00.0 left to the host: is at %s, asked %s" % (HERE, ELSEWHERE)]
    assert machine.driver() is None


def test_bus_numbers_on_the_way_do_not_count(machine):
    put(machine, ADDRESS, "0000:00:01.0", "0000:05:02.0", "0000:09:00.0")
    machine.list([dict(GPU, path="0000:00/01.0/02.0/00.0/00.0")])
    assert machine.boot() == ["0000:01:00.0 taken"]


def test_a_place_that_cannot_be_read_is_no_match(machine):
    machine.list([dict(GPU, path=HERE)])
    assert machine.boot() == ["0000:01:00.0 left to the host: is at an unknown place, asked " + HERE]


def test_a_line_of_an_older_list_has_no_path_and_is_as_good_as_before(machine):
    text = asked.render([asked.identity(GPU)])
    assert len(text.splitlines()[-1].split()) == asked.REQUIRED
    assert asked.parse(text)[0]["path"] is None
    assert asked.parse(asked.render([asked.identity(dict(GPU, path=HERE))]))[0]["path"] == HERE


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0", HERE),
        ("../../../devices/pci0000:00/0000:00:02.0", "0000:00/02.0"),
        ("../../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", "10000:e0/06.0/00.0"),
        ("../../../devices/platform/thing", None),
        ("", None),
        (None, None),
    ],
)
def test_the_path_of_a_link(link, path):
    assert asked.path_of(link) == path


def test_a_bad_path_is_named():
    with pytest.raises(ValueError, match="path '01.0' is not like 0000:00/01.0/00.0"):
        asked.identity(dict(GPU, path="01.0"))


def test_the_module_compares_it_before_it_writes(machine):
    put(machine, ADDRESS, "0000:00:01.0")
    live = identity.read_function(machine, ADDRESS)
    assert live["path"] == HERE
    assert identity.mismatches(asked.identity(dict(GPU, path=HERE)), live) == []
    assert identity.mismatches(asked.identity(dict(GPU, path=ELSEWHERE)), live) == [
        "0000:01:00.0 is at %s, asked %s" % (HERE, ELSEWHERE)
    ]
    assert identity.mismatches(asked.identity(GPU), live) == []


def test_a_plan_says_it_where_the_way_is_known():
    functions = {
        item["address"]: item
        for item in (
            {"address": "0000:00:01.0", "parent": None},
            {"address": "0000:01:00.0", "parent": "0000:00:01.0"},
            {"address": "0000:07:00.0", "parent": "0000:06:00.0"},
            {"address": "0000:00:0e.0", "parent": None},
            {"address": "10000:e1:00.0", "parent": "10000:e0:06.0"},
            {"address": "10000:e0:06.0", "parent": "0000:00:0e.0"},
        )
    }
    paths = {address: plan.identity(item, "x", functions)["path"] for address, item in functions.items()}
    assert paths["0000:01:00.0"] == HERE
    assert paths["0000:00:0e.0"] == "0000:00/0e.0"
    assert paths["0000:07:00.0"] is None
    assert paths["10000:e1:00.0"] == "10000:e0/06.0/00.0"
