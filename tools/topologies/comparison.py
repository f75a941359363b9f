# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the prediction against what the kernel did, on the prints of two boots of one machine."""

from __future__ import annotations

import tempfile

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, dump, prediction
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tools.topologies import printed


def compare(off, on):
    """``(functions, groups, differences)``: two counts and a list of sentences, empty when all agrees.

    :param off, on: what the machine printed with the IOMMU off and on. The prediction of the first is made from its
        own print only.
    """
    before, after = printed.read(off), printed.read(on)
    real = printed.groups(after)
    if printed.groups(before):
        return len(after["functions"]), len(real), ["the kernel formed groups with the IOMMU off"]
    if not real:
        return len(after["functions"]), 0, ["the kernel formed no groups with the IOMMU on"]
    if printed.parents(before) != printed.parents(after):
        return len(after["functions"]), len(real), ["the two boots have different functions or bus numbers"]
    differences = []
    for name, text, found in (("off", off, before), ("on", on, after)):
        machine = probe(found)
        predicted = as_sets(machine["predicted_groups"])
        differences += told("predicted with the IOMMU " + name, predicted, real, machine)
        unsure = [group["members"] for group in machine["predicted_groups"] if group["confidence"] != "predicted"]
        if unsure:
            differences.append("IOMMU %s: not certain of %s, though all was readable" % (name, unsure))
        differences += dumped(name, text, found, machine, predicted)
    if as_sets(machine["groups"]) != real:
        differences.append("the probe reads other groups than the kernel shows")
    return len(after["functions"]), len(real), differences


def probe(found):
    """The machine document of a print."""
    with tempfile.TemporaryDirectory(prefix="vfio-host-topology-") as root:
        printed.write_tree(found, root)
        return _machine.collect(Host(root))


def dumped(name, text, found, machine, predicted):
    """The same print as a dump of lspci: its bus numbers must give the tree that sysfs nests.

    Of a root bus other than 00 a dump need not tell that it is one: an unknown parent is no difference there.
    """
    functions = dump.parse(text)["functions"]
    nested, numbered = printed.parents(found), {function["address"]: function["parent"] for function in functions}
    unknown = {a for a, above in nested.items() if above is None and numbered.get(a) == dump.UNKNOWN_PARENT}
    differences = [
        "IOMMU %s: %s is below %s in sysfs, below %s by bus numbers" % (
            name, address, nested[address], numbered.get(address))
        for address in sorted(set(nested) - unknown) if nested[address] != numbered.get(address, "nothing")
    ]
    if not unknown and not differences and as_sets(prediction.predict(functions, acs.of_machine(machine))) != predicted:
        differences.append("IOMMU %s: the dump predicts other groups than the tree" % name)
    return differences


def as_sets(groups):
    return {frozenset(group["members"]) for group in groups}


def told(what, predicted, real, machine):
    """Each set that is on one side only, with what the prediction knows of its members."""
    functions = {function["address"]: function for function in machine["functions"]}
    lines = ["%s, not so: %s" % (what, _addresses(group)) for group in _sorted(predicted - real)]
    lines += ["%s, missing: %s" % (what, _addresses(group)) for group in _sorted(real - predicted)]
    concerned = set().union(*(predicted ^ real))
    for address in sorted(concerned):
        function = functions[address]
        found = (function["capabilities"] or {}).get("acs")
        lines.append("  %s %s %s below %s%s, acs %s, isolates %s: %s" % (
            address, function["id"], function["port_type"], function["parent"],
            ", multifunction" if function["multifunction"] else "", found,
            function["isolates"]["answer"], function["isolates"]["why"]))
    return lines


def _addresses(group):
    return " ".join(sorted(group))


def _sorted(groups):
    return sorted(groups, key=sorted)
