# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What a rule is, what a finding is, and how a rule looks at a machine. Pure.

A rule is a dict: code, title, severity, remedy, acknowledgeable, and ``check``: a function of a View
that gives a place and its evidence for each time that the rule holds, or None for a rule that only
the plan can judge.
"""

from __future__ import annotations

DOCS = "docs/findings"
SEVERITIES = ("refuse", "warn", "info")


def rule(code, title, severity, remedy, check=None, acknowledgeable=True):
    """An entry of a table of rules. ``remedy`` is for a person at a console: what to do next."""
    return {
        "code": code,
        "title": title,
        "severity": severity,
        "remedy": remedy,
        "check": check,
        "acknowledgeable": acknowledgeable,
    }


def on_device(address, *evidence):
    """What a check gives for a function: one fact in each sentence of ``evidence``."""
    return {"device": address, "evidence": list(evidence)}


def on_group(members, *evidence):
    """What a check gives for an IOMMU group, named by its members and never by its number."""
    return {"group": list(members), "evidence": list(evidence)}


def on_host(topic, *evidence):
    """What a check gives for the machine; ``topic`` is a word such as ``iommu`` or ``memory``."""
    return {"host": topic, "evidence": list(evidence)}


def make(entry, place):
    """The finding of a rule at a place that on_device(), on_group() or on_host() made."""
    result = {
        "code": entry["code"],
        "severity": entry["severity"],
        "title": entry["title"],
        "remedy": entry["remedy"],
        "docs": "%s/%s.md" % (DOCS, entry["code"]),
        "acknowledged": False,
    }
    result.update(place)
    return result


def rank(item):
    """Sort key of a finding: the worst first, then by code and place."""
    place = item.get("device") or " ".join(item.get("group") or []) or item.get("host") or ""
    return (SEVERITIES.index(item["severity"]), item["code"], place)


def describe(function):
    """``0000:01:00.0 10de:1380 vga``: a function in a sentence."""
    return "%s %s %s" % (function["address"], function["id"], function["class_name"])


_MANY = 10
"""As many of a kind are named in a finding; the rest is counted."""


def some(words):
    """The first ten of them as a list, and how many more as a last one."""
    words = list(words)
    more = len(words) - _MANY
    return words[:_MANY] + (["and %d more" % more] if more > 0 else [])


def listed(words):
    """some() in a sentence."""
    found = some(words)
    return " ".join([", ".join(found[:_MANY])] + found[_MANY:])


def stays(function):
    """Whether a member of a group stays with the host and is no obstacle to assigning the others.

    Bridges do, whatever their driver is but a foreign one; so do host bridges without a driver, such as those
    that AMD puts in front of its root ports.
    """
    return bool(function["is_bridge"]) or function["class"].startswith("0600") and function["driver"] is None


class View:
    """A machine document with its look-ups made once, for checks that see one function after another."""

    def __init__(self, machine):
        self.machine = machine
        self.host = machine["host"]
        self.functions = {function["address"]: function for function in machine["functions"]}
        self._slots = {}
        self._children = {}
        for address, function in self.functions.items():
            self._slots.setdefault(address.rpartition(".")[0], []).append(address)
            self._children.setdefault(function["parent"], []).append(address)
        self._groups = {}
        for group in machine["groups"]:
            for member in group["members"]:
                self._groups[member] = group

    def endpoints(self):
        """Functions that are no bridges, in the order of their addresses."""
        return [function for function in self.machine["functions"] if not function["is_bridge"]]

    def slot(self, address):
        """Functions of the slot of ``address``, itself among them."""
        return [self.functions[a] for a in self._slots.get(address.rpartition(".")[0], ())]

    def card(self, address):
        """Functions of one card with ``address``, itself among them: its slot, virtual functions left out.

        In a processor of AMD graphics, security processor, USB controllers and SATA share slots and are no card: there
        only functions of another vendor (the graphics and its audio) belong together.
        """
        slot = [f for f in self.slot(address) if f["physfn"] is None]
        if any(f["id"].startswith("1022:") and f["class"].startswith(("1080", "1300")) for f in slot):
            if self.functions[address]["vendor"] == "1022":
                return [self.functions[address]]
            return [f for f in slot if f["vendor"] != "1022"]
        return slot

    def children(self, address):
        """Functions right behind a bridge; of None, those on the root buses."""
        return [self.functions[a] for a in self._children.get(address, ())]

    def above(self, address):
        """Functions above, nearest first: bridges, and a VMD endpoint. Ends at a loop of parents."""
        chain = []
        here = self.functions[address]["parent"]
        while here in self.functions and here not in chain:
            chain.append(here)
            here = self.functions[here]["parent"]
        return [self.functions[a] for a in chain]

    def group(self, address):
        """The group to decide by, or None."""
        return self._groups.get(address)

    def group_mates(self, address):
        """Other functions of the group that do not stay with the host: they would have to go along."""
        group = self._groups.get(address) or {"members": []}
        return [self.functions[a] for a in group["members"]
                if a != address and a in self.functions and not stays(self.functions[a])]
