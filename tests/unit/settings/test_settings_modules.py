# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.modules import pci_settings, vfio_access
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module
from ansible_collections.vfio.host.tests.unit.settings.settings_host import SettingsHost

NIC = {"address": "0000:03:00.0", "vendor": "8086", "device": "10d3"}
CASES = [
    (pci_settings, {"functions": [dict(NIC, reset_method=["flr"], d3cold_allowed=False)]}),
    (pci_settings, {"functions": [dict(NIC, reset_method=[])]}),
    (vfio_access, {"group": "kvm", "memlock": "8GiB"}),
]


@pytest.fixture
def host(tmp_path, monkeypatch):
    found = SettingsHost(str(tmp_path))
    found.node("/dev/vfio/7")
    for module, dummy in CASES:
        monkeypatch.setattr(module, "Host", lambda: found)
    return found


@pytest.mark.parametrize("module, arguments", CASES)
def test_check_run_and_second_run(host, module, arguments):
    before = host.tree()
    predicted = run_module(module, arguments, check=True)
    assert host.tree() == before
    done = run_module(module, arguments)
    assert predicted["changed"] is done["changed"] is True and predicted["diff"] == done["diff"] and done["diff"]
    again = run_module(module, arguments, diff=False)
    assert again["changed"] is False and "diff" not in again
    assert run_module(module, {"state": "absent"})["changed"] is True and host.tree() == before


@pytest.mark.parametrize("module, arguments, words", [
    (pci_settings, {"functions": [dict(NIC, reset_method=["acpi"])]}, "functions[0].reset_method: the kernel does not"),
    (vfio_access, {}, "group: name the group"),
])
def test_a_refusal_is_a_failure(host, module, arguments, words):
    result = run_module(module, arguments)
    assert result["failed"] is True and words in result["msg"]
