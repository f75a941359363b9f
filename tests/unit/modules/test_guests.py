# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's shell: options, the missing binding, and what comes out."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from harness import run_module

guests = pytest.importorskip("ansible_collections.vfio.host.plugins.modules.guests")

GUEST = {"name": "a", "memory": "64MiB", "vcpus": 1}


@pytest.fixture(name="no_binding")
def no_binding_(monkeypatch):
    monkeypatch.setattr(guests, "libvirt", None)
    monkeypatch.setattr(guests, "use_system_python", lambda: None)


def test_no_guests_need_no_binding(no_binding):
    result = run_module(guests, {"guests": []})
    assert result["changed"] is False
    assert result["guests"] == []


def test_the_missing_binding_is_an_error_in_a_run_and_a_prediction_in_check_mode(no_binding, monkeypatch):
    warned = []
    assert "python3-libvirt" in run_module(guests, {"guests": [GUEST]})["msg"]
    seen = {}

    def run(host, params, check_mode, connect):
        with pytest.raises(HostError, match="python3-libvirt"):
            connect()
        seen.update(params, check_mode=check_mode)
        return {"changed": True, "guests": [], "warnings": ["predicted"], "diff": []}

    monkeypatch.setattr(guests, "run", run)
    monkeypatch.setattr(guests.AnsibleModule, "warn", lambda self, text: warned.append(text))
    result = run_module(guests, {"guests": [GUEST]}, check=True)
    assert result["changed"] is True
    assert warned == ["predicted"]
    assert seen["check_mode"] is True
    assert seen["host_reserve"] == "1GiB"
    assert seen["uri"] == "qemu:///system"
    assert seen["guests"][0]["state"] == "running"


def test_what_users_write_wrong_is_a_plain_message(no_binding):
    result = run_module(guests, {"guests": [dict(GUEST, memory="1GB")]}, check=True)
    assert result["failed"] is True
    assert result["msg"].startswith("guest a: memory: '1GB' is not a size")


def test_unknown_options_of_a_guest_are_refused(no_binding):
    assert "Unsupported parameters" in run_module(guests, {"guests": [dict(GUEST, memroy="1GiB")]})["msg"]


def test_the_respawn_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(guests, "has_respawned", lambda: True)
    monkeypatch.setattr(guests, "probe_interpreters_for_module", lambda *args: tried.append(args))
    guests.use_system_python()
    assert tried == []
    monkeypatch.setattr(guests, "has_respawned", lambda: False)
    monkeypatch.setattr(guests, "SYSTEM_PYTHON", "/nowhere/python3")
    guests.use_system_python()
    assert tried == [(["/nowhere/python3"], "libvirt")]
