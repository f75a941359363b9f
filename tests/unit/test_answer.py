# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick end of a module says what the usual one says, and steps back where the usual one does more."""

from __future__ import annotations

import types

import pytest

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vfio.host.plugins.module_utils import _answer
from ansible_collections.vfio.host.tests.unit.modules.harness import run_module

RESULT = {"changed": False, "machine": {"text": "caf\u00e9 \udcff", "list": [1, None, True, {"x": "swordfish"}], "none": {}}}


def module(end, secret=False):
    def main():
        end(AnsibleModule(argument_spec={"root": {"type": "path"}, "secret": {"type": "str", "no_log": secret}}))
    return types.SimpleNamespace(main=main)


def quick(made):
    _answer.exit_json(made, **RESULT)


def usual(made):
    made.exit_json(**RESULT)


@pytest.fixture
def walks(monkeypatch):
    """How often the usual end was taken."""
    taken = []
    original = AnsibleModule._return_formatted

    def counting(self, kwargs):
        taken.append(kwargs)
        return original(self, kwargs)

    counting.__module__ = "ansible.module_utils.basic"
    monkeypatch.setattr(AnsibleModule, "_return_formatted", counting)
    return taken


def test_it_is_the_same_result_without_the_walk(walks):
    given = {"root": "/srv", "secret": None}
    expected = run_module(module(usual), given)
    assert expected["machine"]["list"][3] == {"x": "swordfish"} and len(walks) == 1
    assert run_module(module(quick), given) == expected
    assert len(walks) == 1


def test_a_secret_is_taken_out(walks):
    found = run_module(module(quick, secret=True), {"secret": "swordfish"})
    assert found["machine"]["list"][3] == {"x": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"}
    assert len(walks) == 1


@pytest.mark.parametrize("kind", ["get_warning_messages", "get_deprecation_messages"])
def test_warnings_are_left_to_the_usual_end(walks, monkeypatch, kind):
    monkeypatch.setattr(_answer.warnings, kind, lambda: ("beware",))
    assert run_module(module(quick), {})["machine"]
    assert len(walks) == 1


def test_who_takes_the_place_of_the_usual_end_gets_the_result(monkeypatch):
    seen = []

    def mine(self, **result):
        seen.append(result)
        raise SystemExit(0)

    monkeypatch.setattr(AnsibleModule, "exit_json", mine)
    made = types.SimpleNamespace(main=lambda: quick(AnsibleModule(argument_spec={})))
    with pytest.raises(IndexError):  # nothing was written
        run_module(made, {})
    assert seen == [RESULT]
