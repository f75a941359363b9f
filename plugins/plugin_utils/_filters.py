# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What every filter does around its pure function. Controller only."""

from __future__ import annotations

import json

from ansible.errors import AnsibleFilterError


def plain(value, place):
    """Plain dicts, lists and scalars from what templating hands over: lazy, tagged containers."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError("%s: cannot be read as plain data: %s" % (place, exc)) from exc


def call(name, function, *arguments):
    """``function(*arguments)``, with bad input as an error that names the filter."""
    try:
        return function(*arguments)
    except ValueError as exc:
        raise AnsibleFilterError("vfio.host.%s: %s" % (name, exc)) from exc
    except (KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(
            "vfio.host.%s: the input has not the documented form (%s: %s); pass the machine document of "
            "vfio.host.iommu_info and, where asked for, the plan of vfio.host.plan as they are"
            % (name, type(exc).__name__, exc)
        ) from exc
