# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module in this process and return what it would have told Ansible."""

from __future__ import annotations

import contextlib
import io
import json
from unittest import mock

import pytest


def run_module(module, args, check=False, diff=True):
    """``module`` is the imported module file; returns its JSON result as a dict."""
    testing = pytest.importorskip("ansible.module_utils.testing")
    arguments = dict(args, _ansible_check_mode=check, _ansible_diff=diff, _ansible_remote_tmp="/tmp")
    out = io.StringIO()
    # A test that imports from the controller (a filter's) would make warnings go to the screen instead.
    on_target = mock.patch("ansible.module_utils._internal.is_controller", False)
    # Warnings are kept for the whole process, and a module that runs in one of its own has none from before.
    fresh = mock.patch.dict("ansible.module_utils.common.warnings._global_warnings", clear=True)
    with testing.patch_module_args(arguments), on_target, fresh, contextlib.redirect_stdout(out):
        with pytest.raises(SystemExit):
            module.main()
    return json.loads(out.getvalue().strip().splitlines()[-1])
