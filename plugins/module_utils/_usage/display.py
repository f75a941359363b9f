# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The display that the host boots on, and those that show a graphical session."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

FINDING = "VH203"
FINDING_SESSION = "VH209"
DRM = "/sys/class/drm"

WITH_OUTPUTS = ("vga", "xga", "display")
"""Classes with a connector to look at; a ``3d`` controller has none."""


def read(inputs):
    """DRM cards: ``{card0: {function, connected}}``.

    ``function`` is None for one that is on no PCI function (the firmware's framebuffer); ``connected``: names of
    the outputs where the kernel last saw a monitor.
    """
    host = inputs.host
    cards = {}
    names = host.listdir(DRM)
    for name in names:
        if re.match(r"^card\d+$", name):
            functions = pci.addresses_in(host.real("%s/%s" % (DRM, name)))
            cards[name] = {"function": functions[-1] if functions else None, "connected": []}
    for name in names:
        card, dummy, output = name.partition("-")
        if output and card in cards and host.read_attribute("%s/%s/status" % (DRM, name)) == "connected":
            cards[card]["connected"].append(output)
    return cards


def use(functions, framebuffer=None, sessions=(), cards=None, firmware=None):
    """``(uses, unknowns)``: the firmware's display, or the only one there is; the displays of graphical sessions. Pure.

    :param framebuffer: ``{name, start, end, function}`` or None; sessions: as in the document.
    :param firmware: the function that the firmware's framebuffer was on at the start, or None.
    :param cards: as of read(). ``holders`` of the functions are set already where they are known.
    """
    uses, unknowns = _boot_display(functions, framebuffer, firmware)
    boot = [use["function"] for use in uses]
    for session in sessions:
        if session["active"] and session["type"] in ("x11", "wayland") and session["seat"] and not session["remote"]:
            found = _showing(functions, cards or {}, framebuffer, boot)
            what = "graphical session of %s" % (session["user"] or "somebody")
            if not found:
                unknowns.append({"kind": "display", "input": what, "why": "which display shows it is unknown"})
            uses += [_use(what, card, address, FINDING_SESSION) for card, address in found]
    return uses, unknowns


def _use(what, link, address, finding):
    return {"kind": "display", "what": what, "chain": [what, link, address], "function": address, "finding": finding}


def _boot_display(functions, framebuffer, firmware):
    displays = [function for function in functions if function["class_name"] in WITH_OUTPUTS]
    chosen = {function["address"]: "boot_vga" for function in displays if function["boot_vga"]}
    if framebuffer and framebuffer["function"]:
        # Also when boot_vga says otherwise: a GPU without VGA registers has no such attribute
        chosen.setdefault(framebuffer["function"], "framebuffer %s" % framebuffer["name"])
    if firmware:
        # Its own driver has ended the framebuffer; given away, the function would have it again at the next boot
        chosen.setdefault(firmware, "the firmware's framebuffer at the start")
    if not chosen and len(displays) == 1:
        chosen = {displays[0]["address"]: "the only display"}
    if not chosen and displays:
        why = "none of %s is marked boot_vga" % " ".join(function["address"] for function in displays)
        return [], [{"kind": "display", "input": "boot display", "why": why}]
    return [_use("boot display", how, address, FINDING) for address, how in sorted(chosen.items())], []


def _showing(functions, cards, framebuffer, boot):
    """``[(card, function)]`` that may show the session on the seat.

    Of the cards that a process has open (a display server opens all there are) those with a monitor. Where nobody
    could look who has them open, all with a monitor; without any monitor the open ones, and at last the boot display.
    """
    open_nodes = {h["node"] for f in functions for h in f["holders"] or ()} if functions else set()
    looked = any(f["holders"] is not None for f in functions)
    firmware = framebuffer["function"] if framebuffer else None
    known = [(card, of["function"] or firmware, bool(of["connected"])) for card, of in sorted(cards.items())]
    known = [(card, address, monitor) for card, address, monitor in known if address]
    held = [entry for entry in known if "/dev/dri/" + entry[0] in open_nodes or not looked]
    found = [entry for entry in held if entry[2]] or (held if looked else []) or [entry for entry in known if entry[2]]
    return [entry[:2] for entry in found] or [("boot display", address) for address in boot]
