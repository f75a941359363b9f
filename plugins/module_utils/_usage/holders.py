# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What processes that have device nodes of a function open mean for it. Pure; who they are: processes.py."""

from __future__ import annotations

import re

FINDING = "VH206"

NAMED = 10
"""Uses of one function that are named one by one."""

KEEPERS = ("systemd-logind", "elogind-daemon", "seatd", "systemd-udevd", "(udev-worker)", "udevd", "plymouthd",
           "multipathd")
"""Programs of every host that hold nodes for others, or only watch them: no use by themselves."""


def place(functions, held):
    """Set ``holders`` of every function; of a bridge nobody holds anything. ``held`` as of processes.read()."""
    for function in functions:
        found = (held or {}).get(function["address"], [])
        function["holders"] = None if held is None else [] if function["is_bridge"] else found


def weigh(function, holder):
    """What a process that has a node of a function open means for the function.

    ``guest``: it was given away, and is in use through vfio. ``keeper``: one of every host's programs, see KEEPERS.
    ``input``: whoever reads input devices takes all there are, and copes when one goes; what may be missed then is
    the keyboard, see usb.use(). ``control``: only the controls of a sound card or camera, as sound servers have them
    of every card all the time. Else ``use``.
    """
    node = holder["node"]
    if node.startswith("/dev/vfio/") and "vfio" in (function["driver"] or ""):
        return "guest"
    if holder["command"] in KEEPERS:
        return "keeper"
    if node.startswith("/dev/input/"):
        return "input"
    if re.match(r"/dev/(snd/(control|hw|ump)C\d|media\d)", node):
        return "control"
    return "use"


def use(functions):
    """``(uses, unknowns)`` from ``holders``: see weigh(). A program with a node open several times is one use."""
    uses = []
    for function in functions:
        pairs = {}
        for holder in function["holders"] or ():
            if weigh(function, holder) == "use":
                pairs.setdefault((holder["command"] or "process %d" % holder["pid"], holder["node"]), holder)
        for count, (command, node) in enumerate(sorted(pairs)):
            what = "%s has %s open" % (command, node)
            if count == NAMED:
                what = "and %d more" % (len(pairs) - NAMED)
            chain = [what, node, function["address"]]
            uses.append({"kind": "process", "what": what, "chain": chain, "function": chain[-1], "finding": FINDING})
            if count == NAMED:
                break
    return uses, []
