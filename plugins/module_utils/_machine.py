# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document: one read of the host, put together. Its form: docs/machine_document.md.

Reading (_gathering) and what follows from it (_consequences) are imported where they are needed: a module comes to a
host as source, and there the two are compiled and run side by side.
"""

from __future__ import annotations

import gc

from ansible_collections.vfio.host.plugins.module_utils import _watch

SCHEMA = 2


def read(host, roms=False):
    """collect(), with a deadline for every read. Raises HostTimeout where too many reads hang."""
    def work(watched_host):
        return _gather(watched_host, roms)

    collecting = gc.isenabled()
    gc.disable()  # nothing here lives long, and its passes grow with the document
    try:
        return complete(_watch.watched(host, work, meanwhile=_what_follows))
    finally:
        if collecting:
            gc.enable()


def collect(host, roms=False):
    """The machine document of ``host`` (live or a recorded tree), as plain data.

    :param roms: also read expansion ROMs; see pci.read().
    Raises nothing for what is missing: ``source.missing`` names it.
    """
    return complete(_gather(host, roms))


def complete(machine):
    """Fill in what follows from the rest: predicted groups, reasons, assignment and findings. Pure.

    ``groups`` holds the kernel's groups or nothing; then the predicted ones take their place.
    """
    return _what_follows().complete(machine)


def _gather(host, roms):
    from ansible_collections.vfio.host.plugins.module_utils import _gathering

    return dict(schema=SCHEMA, **_gathering.gather(host, roms))


def _what_follows():
    from ansible_collections.vfio.host.plugins.module_utils import _consequences

    return _consequences
