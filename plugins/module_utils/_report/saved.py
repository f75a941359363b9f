# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document as the audit's JSON file. Pure."""

from __future__ import annotations

import json


def text(machine):
    """JSON, the same for an unchanged machine: free memory and power states, which change by themselves, are null."""
    host = dict(machine["host"])
    if host.get("memory"):
        host["memory"] = dict(host["memory"], available=None)
    functions = [dict(function, power_state=None) for function in machine["functions"]]
    return json.dumps(dict(machine, host=host, functions=functions), indent=1, sort_keys=True) + "\n"
