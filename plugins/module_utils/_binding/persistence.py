# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""NVIDIA's persistence daemon, which keeps a GPU open for nobody's sake, and is told to let go of one.

nvidia-smi(1), --persistence-mode: while the daemon runs, it is asked to open or close the GPU; that lasts until the
driver is loaded again.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

DAEMON = "nvidia-persistenced"[:15]
"""As /proc/PID/stat has it: a name has 15 characters there (TASK_COMM_LEN)."""
COMMAND = "nvidia-smi"
TIMEOUT = 60.0


def held(machine, addresses):
    """Those of ``addresses`` that the daemon has open, sorted. Pure."""
    return sorted(
        function["address"] for function in machine["functions"]
        if function["address"] in addresses and any(_daemon(holder) for holder in function["holders"] or ())
    )


def without(machine, addresses):
    """The machine document as it is when the daemon has let go of ``addresses``. Pure."""
    functions = []
    for function in machine["functions"]:
        if function["address"] in addresses and function["holders"]:
            function = dict(function, holders=[holder for holder in function["holders"] if not _daemon(holder)])
        functions.append(function)
    return dict(machine, functions=functions)


def switch(host, address, keep):
    """Have the daemon keep a GPU open, or let go of it. Raises HostError with what nvidia-smi said."""
    host.run([COMMAND, "-i", address, "-pm", "1" if keep else "0"], timeout=TIMEOUT)


def switch_all(host, addresses):
    """Have it keep all of these again; what does not work is in the sentences that are returned."""
    failed = []
    for address in addresses:
        try:
            switch(host, address, True)
        except HostError as exc:
            failed.append(str(exc))
    return failed


def _daemon(holder):
    return holder["command"] == DAEMON
