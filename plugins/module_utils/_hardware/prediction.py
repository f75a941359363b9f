# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""IOMMU groups as Linux forms them, from topology, ACS and the quirk tables. Pure.

The algorithm is pci_device_group() of drivers/iommu/iommu.c, the same from 5.4 to 6.18, as a union of
sets: parents are probed before children, so a function ends in the group of the highest bridge above it
that does not isolate, and functions of one slot that do not isolate share one.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, quirks

VMD_DOMAIN = 0x10000
"""Domains from here on hang below an Intel VMD endpoint, which makes their requests (since 5.6)."""


def predict(functions, taken):
    """Groups of ``functions`` (of a machine document), in the form of the document's groups.

    :param taken: acs.assumptions(). Sets ``isolates`` of every function. Linear in functions.
    Functions that no IOMMU covers are in no group: the AMD IOMMU itself.
    """
    machine = _Machine(functions, taken)
    for address, function in machine.functions.items():
        seen = dict(function, port_type=machine.kinds[address])
        function["isolates"] = acs.judge(seen, machine.multifunction[address], taken)
    answers = {a: f["isolates"]["answer"] for a, f in machine.functions.items()}
    parts = machine.partition(answers)
    unsure = [a for a, f in machine.functions.items() if not f["isolates"]["certain"]]
    if unsure or machine.phantoms:
        fine = machine.partition(dict(answers, **dict.fromkeys(unsure, True)), phantom=True)
        coarse = machine.partition(dict(answers, **dict.fromkeys(unsure, False)))
    else:
        fine = coarse = parts
    return [_group(machine, members, fine, coarse) for members in _sets(parts)]


def explainer(functions):
    """``members -> reasons`` for groups that the kernel formed; ``functions`` carry ``isolates`` already."""
    machine = _Machine(functions, acs.assumptions())
    return lambda members: machine.reasons([m for m in members if m in machine.functions])


def _sets(parts):
    """The distinct sets of ``{address: frozenset}``, by their first member."""
    return sorted({id(part): sorted(part, key=sort_key) for part in parts.values()}.values(),
                  key=lambda members: sort_key(members[0]))


def _group(machine, members, fine, coarse):
    smallest = _sets({a: fine[a] for a in members if a in fine})
    largest = sorted(coarse[members[0]], key=sort_key)
    sure = smallest == [members] and largest == members and machine.phantoms.isdisjoint(map(machine.parent, members))
    return {
        "number": None,
        "members": members,
        "source": "predicted",
        "confidence": "predicted" if sure else "partial",
        "reasons": machine.reasons(members),
        "bounds": None if sure else {"smallest": smallest, "largest": largest},
        "type": None,
        "reserved_regions": None,
    }


class _Machine:
    """The functions with their look-ups made once."""

    def __init__(self, functions, taken):
        self.functions = {function["address"]: function for function in functions}
        self.taken = taken
        self.slots = {}
        self.buses = {}
        for address in self.functions:
            self.slots.setdefault(address.rpartition(".")[0], []).append(address)
            self.buses.setdefault(address.rpartition(":")[0], []).append(address)
        self.multifunction = {a: self._multifunction(f) for a, f in self.functions.items()}
        self.kinds = self._kinds()
        self.phantoms = {f["parent"] for f in functions if f["parent"] and f["parent"] not in self.functions}
        self.remap_vmd = acs.quirk_table(taken["kernel"]) != "5.4"

    def _multifunction(self, function):
        if function["multifunction"] is not None:
            return function["multifunction"]
        return function["physfn"] is None and len(self.slots[function["address"].rpartition(".")[0]]) > 1

    def _kinds(self):
        """``{address: port type}`` as Linux takes it, which corrects what cannot be (set_pcie_port_type()).

        A downstream port right below a port, and an upstream port right below an upstream port, are meant to become
        the other kind, but the new type is written without its shift: what is left is an endpoint's.
        """
        kinds = {}
        for address, function in self.functions.items():  # parents come first
            kind, above = function["port_type"], kinds.get(function["parent"])
            if (kind == "downstream_port" and above in ("root_port", "downstream_port", "pci_to_pcie")
                    or kind == above == "upstream_port"):
                kind = "endpoint"
            kinds[address] = kind
        return kinds

    def covered(self, address):
        """Whether an IOMMU covers the function at all: that of AMD and Hygon is a function itself, and outside."""
        function = self.functions[address]
        if (function["physfn"] or address) in self.taken["uncovered"]:
            return False
        return not (function["class"].startswith("0806") and function["vendor"] in ("1022", "1d94"))

    def parent(self, address):
        return self.functions[address]["parent"] if address in self.functions else None

    def is_vmd(self, address):
        """A function that other domains hang below, and that is no bridge."""
        return address in self.functions and self.functions[address]["is_bridge"] is False

    def takes_over(self, address):
        """A bridge that makes the requests of what is behind it its own, whatever a quirk says of it."""
        function = self.functions.get(address)
        return bool(function and function["is_bridge"]
                    and function["port_type"] in ("conventional", "pcie_to_pci", "pci_to_pcie"))

    def partition(self, answers, phantom=False):
        """``{address: frozenset of its group}`` with these answers.

        A parent that nobody could read (a phantom) does not isolate, unless ``phantom`` says so.
        """
        leader = {}

        def find(address):
            leader.setdefault(address, address)
            while leader[address] != address:
                leader[address] = leader[leader[address]]
                address = leader[address]
            return address

        def union(one, other):
            leader[find(one)] = find(other)

        tops = self._tops(answers, phantom)
        for address in self.functions:
            if self.covered(address):
                union(address, tops[address])
        for addresses in self.slots.values():
            mixed = [a for a in addresses if not answers[a] and self.covered(a)]
            if any(self.multifunction[a] for a in mixed):
                for other in mixed[1:]:
                    union(mixed[0], other)
        for address in self.functions:
            if tops[address] == address and self.covered(address):
                for other in self.alias_partners(address):
                    union(address, other)
        members = {}
        for address in self.functions:
            if self.covered(address):
                members.setdefault(find(address), []).append(address)
        made = {head: frozenset(addresses) for head, addresses in members.items()}
        return {address: made[find(address)] for addresses in made.values() for address in addresses}

    def _tops(self, answers, phantom):
        """For each address the highest function whose group it joins by its place in the tree."""
        pulled = {None: None}  # address -> the highest one at or above it that does not isolate, or None
        for start in self.functions:
            chain, here = [], start
            while here not in pulled:
                pulled[here] = None  # a loop of parents ends here
                chain.append(here)
                here = self.parent(here)
            for address in reversed(chain):
                above = pulled.get(self.parent(address))
                if self.is_vmd(address):
                    # what hangs below makes its requests as this function; above it, it is an endpoint
                    above = (above or address) if self.remap_vmd else None
                elif above is None and (self.takes_over(address) or not answers.get(address, phantom)):
                    above = address
                pulled[address] = above
        return {a: pulled.get(self.parent(a)) or a for a in self.functions}

    def alias_partners(self, address):
        """Functions of the same bus as which this one makes requests too."""
        bus = address.rpartition(":")[0]
        names = ["%s:%02x.%d" % (bus, devfn >> 3, devfn & 7) for devfn in quirks.aliases(self.functions[address])]
        return [name for name in names if name in self.functions and self.covered(name)]

    # -- why -------------------------------------------------------------------------------------

    def name(self, address):
        function = self.functions[address]
        kind = acs.KIND_NAMES.get(function["port_type"], function["class_name"])
        return "%s (%s %s)" % (address, kind, function["id"])

    def reasons(self, members):
        """Sentences that say why these are together, and why they are parted from the rest."""
        inside = set(members)
        holding = {self.parent(a) for a in members} & inside
        said = []
        for address in members:
            function = self.functions[address]
            if self.is_vmd(address) and address in holding:
                said.append("%s makes the requests of all that is behind it: one group" % self.name(address))
            elif address in holding and not function["isolates"]["answer"]:
                said.append("%s does not isolate: %s. What is behind it shares its group"
                            % (self.name(address), function["isolates"]["why"]))
        for slot in sorted({a.rpartition(".")[0] for a in members}, key=sort_key):
            mixed = [a for a in self.slots[slot] if a in inside and not self.functions[a]["isolates"]["answer"]]
            if len(mixed) > 1:
                said.append("%s are functions of one slot that do not isolate from one another: %s"
                            % (_listed(mixed), "; ".join(sorted({self.functions[a]["isolates"]["why"] for a in mixed}))))
        for address in members:
            for other in self.alias_partners(address):
                if other in inside:
                    said.append("%s makes requests as %s too (a quirk of the device)" % (self.name(address), other))
        slots = set()
        for address in members:
            slot = address.rpartition(".")[0]
            if self.parent(address) not in inside and slot not in slots:
                slots.add(slot)
                said.append(self._parted(address))
        return said

    def _parted(self, address):
        """Why the group ends here, towards the root."""
        above = self.parent(address)
        if above is None:
            own = self.functions[address]["isolates"]
            if own["answer"] and len(self.slots[address.rpartition(".")[0]]) > 1:
                return "%s is on a root bus and isolated from the other functions of its slot: %s" % (
                    self.name(address), own["why"])
            return "%s is on a root bus" % self.name(address)
        if above not in self.functions:
            return "%s is behind %s, of which nothing is known" % (self.name(address), above)
        return "%s is behind %s, which isolates: %s" % (
            self.name(address), self.name(above), self.functions[above]["isolates"]["why"])


def _listed(addresses):
    if len(addresses) <= 8:
        return ", ".join(addresses)
    return "%s and %d more" % (", ".join(addresses[:8]), len(addresses) - 8)
