# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

from __future__ import annotations


class ModuleDocFragment:
    """The guarantees that every module states, in one table each."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode), predicts exactly what the run would change, and changes nothing.
    support: full
  diff_mode:
    description: Returns what would be or was changed, when in diff mode.
    support: full
  idempotent:
    description: A second run with the same options on an unchanged host changes nothing.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode). This module only reads.
    support: full
  diff_mode:
    description: Returns what would be or was changed, when in diff mode.
    support: N/A
    details: This module changes nothing.
  idempotent:
    description: A second run with the same options on an unchanged host changes nothing.
    support: full
"""
