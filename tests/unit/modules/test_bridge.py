# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's door: options in, result or message out."""

from __future__ import annotations

import functools

import pytest
import yaml
from ansible_collections.vfio.host.plugins.modules import bridge
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module
from ansible_collections.vfio.host.tests.unit.network.fake_machine import FakeMachine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    fake = FakeMachine(tmp_path)
    monkeypatch.setattr(bridge, "Host", lambda: fake.host)
    monkeypatch.setattr(bridge, "run", functools.partial(bridge.run, clock=fake.clock))
    return fake


ASKED = {"bridges": [{"name": "br0", "ports": ["enp4s0"]}]}


def test_check_then_run_then_again(machine):
    predicted = run_module(bridge, ASKED, check=True)
    assert predicted["changed"] and machine.calls == []
    done = run_module(bridge, ASKED)
    assert done["changed"] and done["diff"] == predicted["diff"] and done["bridges"][0]["name"] == "br0"
    assert not run_module(bridge, ASKED)["changed"]


@pytest.mark.parametrize(
    "item, message",
    [
        ({"name": "a/b", "ports": ["enp4s0"]}, "no interface name"),
        ({"name": "br0", "ports": ["enp0s25"]}, "carries the SSH connection"),
    ],
)
def test_a_refusal_is_a_message(machine, item, message):
    result = run_module(bridge, {"bridges": [item]})
    assert result["failed"] and message in result["msg"] and machine.calls == []


def test_absent_warns_of_a_bridge_of_others(machine):
    machine.bridge("br0")
    result = run_module(bridge, dict(ASKED, state="absent"))
    assert not result["changed"] and "was not made by this collection" in str(result["warnings"])


def test_the_documentation_names_the_same_defaults():
    options = yaml.safe_load(bridge.DOCUMENTATION)["options"]
    assert sorted(options) == ["backend", "bridges", "state", "wait"]
    assert sorted(options["bridges"]["suboptions"]) == [
        "addresses", "dhcp", "forward_delay", "mac", "mtu", "name", "ports", "stp",
    ]  # fmt: skip
