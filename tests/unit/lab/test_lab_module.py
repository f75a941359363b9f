# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module lab: what each state does to a machine that is off, on or not there, and what it says about it."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._lab import machine
from ansible_collections.vfio.host.plugins.modules import lab as module
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module


class Power:
    """A lab's machine that is only said to be on; what was done to it is in ``done``."""

    def __init__(self, monkeypatch, states, there, on):
        self.on, self.done, self.states = on, [], str(states)
        folder = os.path.join(self.states, "demo")
        if there:
            os.makedirs(folder)
            with open(os.path.join(folder, "lab.json"), "w", encoding="utf-8") as handle:
                json.dump({"name": "demo", "board": []}, handle)
        monkeypatch.setattr(machine.Lab, "running", lambda lab: self.on)
        monkeypatch.setattr(machine.Lab, "start", self._do("start", True))
        monkeypatch.setattr(machine.Lab, "power_on", self._do("power_on", True))
        monkeypatch.setattr(machine.Lab, "power_off", self._do("power_off", False))
        monkeypatch.setattr(machine.Lab, "remove", self._do("remove", False))
        monkeypatch.setattr(module, "_need_tools", lambda *dummy: None)

    def _do(self, name, on):
        def do(dummy, *arguments):
            if name != "power_on" or not self.on:
                self.done.append((name,) + arguments)
            self.on = on
        return do

    def run(self, state, check=False, **options):
        if state == "present":
            options = dict({"image": "/i/disk.img", "accelerator": "tcg"}, **options)
        return run_module(module, dict({"name": "demo", "states": self.states, "state": state}, **options), check=check)

    def names(self):
        return [entry[0] for entry in self.done]


#      state        there  on     what is done
CASES = [
    ("present", False, False, ["start"]),
    ("present", True, False, ["start"]),
    ("present", True, True, []),
    ("absent", False, False, []),
    ("absent", True, False, ["remove"]),
    ("absent", True, True, ["remove"]),
    ("stopped", True, False, []),
    ("stopped", True, True, ["power_off"]),
    ("started", True, False, ["power_off", "power_on"]),
    ("started", True, True, []),
    ("restarted", True, False, ["power_off", "power_on"]),
    ("restarted", True, True, ["power_off", "power_on"]),
]


@pytest.mark.parametrize("state, there, on, done", CASES)
def test_what_a_state_does_and_that_check_mode_says_it(monkeypatch, tmp_path, state, there, on, done):
    power = Power(monkeypatch, tmp_path, there, on)
    predicted = power.run(state, check=True)
    assert power.done == [] and power.on == on
    told = power.run(state)
    assert power.names() == done
    assert told["changed"] == predicted["changed"] == bool(done)
    assert told["diff"] == predicted["diff"]
    assert (told["diff"]["before"] != told["diff"]["after"]) == bool(done)
    assert ("lab" in told) == (state != "absent")


@pytest.mark.parametrize("state", ["stopped", "started", "restarted"])
@pytest.mark.parametrize("check", [False, True])
def test_a_lab_that_is_not_there_cannot_be_switched(monkeypatch, tmp_path, state, check):
    power = Power(monkeypatch, tmp_path, False, False)
    told = power.run(state, check=check)
    assert told["failed"] and "there is no lab demo in %s; state present starts one" % tmp_path in told["msg"]
    assert power.done == []


@pytest.mark.parametrize("state", ["present", "started", "restarted", "stopped"])
def test_a_board_that_cannot_be_is_refused_before_anything(monkeypatch, tmp_path, state):
    power = Power(monkeypatch, tmp_path, True, True)
    told = power.run(state, check=True, board=[{"remove": "hda9"}])
    assert told["failed"] and "change of the lab's board {remove: hda9}: there is no hda9" in told["msg"]
    assert power.done == []


def test_the_board_that_is_said_is_that_of_the_next_start(monkeypatch, tmp_path):
    power = Power(monkeypatch, tmp_path, True, False)
    changes = [{"add": "nvme", "at": "05.0", "size": 64, "disk": "a"}]
    power.run("started", board=changes, wait=False, timeout=7)
    assert power.done[-1] == ("power_on", False, changes, 7)
    power.run("restarted")
    assert power.done[-1] == ("power_on", True, None, 300)
    power.on = False
    power.run("present", board=changes)
    assert power.done[-1][0] == "start" and changes in power.done[-1]


@pytest.mark.parametrize("firmware, recipe, expected", [
    ("auto", {"esp": 64}, "efi"), ("auto", {"esp": 0}, "bios"), ("auto", None, "bios"),
    ("efi", None, "efi"), ("bios", {"esp": 64}, "bios"),
])
def test_an_image_says_what_it_boots_with(monkeypatch, tmp_path, firmware, recipe, expected):
    power = Power(monkeypatch, tmp_path / "states", False, False)
    if recipe is not None:
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    power.run("present", image=str(tmp_path / "disk.img"), firmware=firmware)
    assert power.done[0][9] == expected
