# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device names replaced by what the plan chose."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest.resolve import resolve

PLAN = {
    "devices": [
        {"name": "gpu", "functions": [{"address": "0000:01:00.0"}, {"address": "0000:01:00.1"}], "selected": []},
        {"name": "usb", "functions": [{"address": "0000:03:00.0"}]},
    ]
}


def test_names_become_functions_and_the_rest_stays():
    guests = [{"name": "a", "memory": "1GiB", "devices": ["usb", "gpu"]}, {"name": "b"}]
    before = copy.deepcopy(guests)
    assert resolve(guests, PLAN) == [
        {
            "name": "a",
            "memory": "1GiB",
            "devices": [
                {"name": "usb", "functions": [{"address": "0000:03:00.0"}]},
                {"name": "gpu", "functions": [{"address": "0000:01:00.0"}, {"address": "0000:01:00.1"}]},
            ],
        },
        {"name": "b", "devices": []},
    ]
    assert guests == before


def test_unknown_names_come_with_the_known_ones():
    with pytest.raises(ValueError, match="guest a: device gup is not in the plan; known are: gpu, usb"):
        resolve([{"name": "a", "devices": ["gup"]}], PLAN)
    with pytest.raises(ValueError, match="known are: none"):
        resolve([{"name": "a", "devices": ["gup"]}], {"devices": []})


def test_one_device_runs_in_one_guest():
    guests = [{"name": "a", "devices": ["gpu"]}, {"name": "b", "state": "running", "devices": ["gpu"]}]
    with pytest.raises(ValueError, match="device gpu: guests a and b shall both run"):
        resolve(guests, PLAN)
    guests[0]["state"] = "shutoff"
    assert len(resolve(guests, PLAN)) == 2
    with pytest.raises(ValueError, match="guest a: device gpu is listed twice"):
        resolve([{"name": "a", "devices": ["gpu", "gpu"]}], PLAN)


def test_the_filter_reports_it_as_a_filter_does():
    errors = pytest.importorskip("ansible.errors")
    from ansible_collections.vfio.host.plugins.filter.resolve_guests import FilterModule

    filters = FilterModule().filters()
    assert filters["resolve_guests"]([{"name": "a"}], PLAN) == [{"name": "a", "devices": []}]
    with pytest.raises(errors.AnsibleFilterError, match="resolve_guests: guest a: device x"):
        filters["resolve_guests"]([{"name": "a", "devices": ["x"]}], PLAN)
