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
from ansible_collections.vfio.host.plugins.module_utils._host import Host

SCHEMA = 2


def read(host, roms=False, first=None):
    """collect(), with a deadline for every read. Raises HostTimeout where too many reads hang.

    :param first: see _watch.watched().
    """
    def work(watched_host):
        return _gather(watched_host, roms)

    collecting = gc.isenabled()
    gc.disable()  # nothing here lives long, and its passes grow with the document
    try:
        return complete(_watch.watched(host, work, meanwhile=_what_follows, first=first))
    finally:
        if collecting:
            gc.enable()


def read_early():
    """For the head of a module that reads a machine in any case, and for its main program only.

    ``.ask(root, roms)`` of what is returned is ``read(Host(root), roms)``. Meanwhile one process compiles what reads,
    and one what follows from it.
    """
    return _watch.Early(_prepare)


def _prepare(dummy):
    reader = _watch.Early(_prepare_reader)
    _what_follows()
    return lambda root, roms: read(Host(root), roms, lambda: reader.outcome(root, roms))


def _prepare_reader(watch):
    _reading()

    def work(root, roms):
        host = Host(root)
        watch(host)
        return _gather(host, roms)

    return work


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
    return dict(schema=SCHEMA, **_reading().gather(host, roms))


def _reading():
    from ansible_collections.vfio.host.plugins.module_utils import _gathering

    return _gathering


def _what_follows():
    from ansible_collections.vfio.host.plugins.module_utils import _consequences

    return _consequences
