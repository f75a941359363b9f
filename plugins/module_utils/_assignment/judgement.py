# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What stands between each function and a guest. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._findings.finding import View, stays

_HOST_USES = "VH2"
_NEVER = ("VH406", "VH413")
"""Firmware ties the function down, or vfio-pci refuses its id."""


def judge(machine):
    """Set ``assignment`` of every function, ``{verdict, obstacles, together_with}``, by its group and findings."""
    view = View(machine)
    refusals, everywhere = {}, []
    for found in machine["findings"]:
        if found["severity"] != "refuse":
            continue
        obstacle = {"code": found["code"], "text": "%s: %s" % (found["title"], found["evidence"][0])}
        if "host" in found:
            everywhere.append(obstacle)
        for address in found.get("group") or [found.get("device")]:
            refusals.setdefault(address, []).append(obstacle)
    for address, function in view.functions.items():
        own = refusals.get(address, []) + everywhere
        function["assignment"] = _assignment(view, function, own, refusals)


def _assignment(view, function, own, refusals):
    address = function["address"]
    mates = view.group_mates(address)
    card = [f for f in view.card(address) if f["address"] != address and not f["is_bridge"]]
    if stays(function):
        return _made("never", [{"code": "VH102", "text": "a bridge stays with the host"}], [])
    together = {f["address"] for f in mates}
    if function["physfn"] is None:
        together.update(f["address"] for f in card)
    together = sorted(together)
    # once for each code: the mates' own obstacles, and the findings, have the whole of it
    inherited = {}
    for mate in mates:
        for obstacle in refusals.get(mate["address"], []):
            if obstacle["code"].startswith(_HOST_USES):
                text = "%s, of the same group: %s" % (mate["address"], obstacle["text"])
                inherited.setdefault(obstacle["code"], {"code": obstacle["code"], "text": text})
    obstacles = own + list(inherited.values())
    codes = {obstacle["code"] for obstacle in obstacles}
    if function["class"].startswith("0806") or codes.intersection(_NEVER):
        return _made("never", obstacles, together)
    if view.group(address) is None or codes.intersection(("VH112", "VH120", "VH122", "VH123")):
        return _made("no_iommu", obstacles, together)
    if any(code.startswith(_HOST_USES) for code in codes):
        return _made("host_uses", obstacles, together)
    if function["port_type"] == "unknown" or not _sure(view, address):
        return _made("unknown", obstacles, together)
    if obstacles:
        return _made("never", obstacles, together)
    slot = address.rpartition(".")[0]
    others = [m for m in mates if m["physfn"] or function["physfn"] or m["address"].rpartition(".")[0] != slot]
    return _made("with_group" if others else "assignable", obstacles, together)


def _sure(view, address):
    """Whether a group whose extent is not certain is one that this function fills in every case."""
    bounds = view.group(address)["bounds"]
    if bounds is None:
        return True
    others = [a for a in bounds["largest"] if a != address and a in view.functions and not stays(view.functions[a])]
    return not others


def _made(verdict, obstacles, together):
    return {"verdict": verdict, "obstacles": obstacles, "together_with": together}
