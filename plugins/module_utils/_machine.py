# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document: one read of the host, put together. Its form: docs/machine_document.md."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _watch
from ansible_collections.vfio.host.plugins.module_utils._assignment import judgement
from ansible_collections.vfio.host.plugins.module_utils._findings import rules
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, network_backend, pci, platform, prediction
from ansible_collections.vfio.host.plugins.module_utils._hardware import groups as iommu_groups
from ansible_collections.vfio.host.plugins.module_utils._hardware import inputs as reading
from ansible_collections.vfio.host.plugins.module_utils._usage import (
    boot_storage,
    chipset,
    console,
    display,
    holders,
    network,
    processes,
    ssh,
    storage,
    usb,
)

SCHEMA = 2


def read(host, roms=False):
    """collect(), with a deadline for every read. Raises HostTimeout where too many reads hang."""
    return _watch.watched(host, lambda watched_host: collect(watched_host, roms))


def collect(host, roms=False):
    """The machine document of ``host`` (live or a recorded tree), as plain data.

    :param roms: also read expansion ROMs; see pci.read().
    Raises nothing for what is missing: ``source.missing`` names it.
    """
    host.remember = True
    inputs = reading.Inputs(host)
    functions = pci.read(inputs, roms)
    groups = iommu_groups.read(inputs, functions)
    net = network.read(inputs)
    session = ssh.read(inputs)
    holders.place(functions, processes.read(inputs))
    trees = usb.read(inputs, functions)
    for function in functions:
        function["usb_devices"] = trees.get(function["address"])
    seen = console.read(inputs, functions)
    uses, unknowns = list(seen.pop("uses")), []
    for found, unclear in (
        storage.read(inputs),
        boot_storage.read(inputs),
        network.use(session, net),
        display.use(functions, seen["framebuffer"], seen["sessions"], display.read(inputs)),
        holders.use(functions),
        usb.use(inputs, functions),
        chipset.uses(inputs, functions),
    ):
        uses += found
        unknowns += unclear
    unknowns += assign_uses(functions, uses)
    for unknown in unknowns:
        inputs.miss(unknown["input"], "VH205: " + unknown["why"])
    for path in sorted(host.blocked):
        inputs.miss(path, "reading it did not end within %g s" % _watch.READ_TIMEOUT)
    host.current = None  # no read is under way from here on
    return complete({
        "schema": SCHEMA,
        "source": {"root": host.root, "privileged": host.privileged(), "missing": inputs.missing},
        "host": _host(inputs, functions, groups, net, session, seen, unknowns),
        "functions": functions,
        "groups": groups,
        "predicted_groups": [],
        "findings": [],
    })


def complete(machine):
    """Fill in what follows from the rest: predicted groups, reasons, assignment and findings. Pure.

    ``groups`` holds the kernel's groups or nothing; then the predicted ones take their place.
    """
    functions = machine["functions"]
    machine["predicted_groups"] = prediction.predict(functions, acs.of_machine(machine))
    if machine["groups"]:
        reasons = prediction.explainer(functions)
        for group in machine["groups"]:
            group["reasons"] = reasons(group["members"])
    else:
        machine["groups"] = [dict(group) for group in machine["predicted_groups"]]
        by_address = {function["address"]: function for function in functions}
        for group in machine["groups"]:
            for address in group["members"]:
                by_address[address].update(group_members=group["members"], confidence=group["confidence"])
    _reserve(machine)
    machine["findings"] = rules.evaluate(machine)
    judgement.judge(machine)
    return machine


def _reserve(machine):
    """Set ``rmrr``: by the group's own regions where there are any, else by the firmware's table."""
    listed = machine["host"]["iommu"]["rmrr"]
    tied = {address for region in listed or [] for address in region["functions"]}
    regions = {a: g["reserved_regions"] for g in machine["groups"] for a in g["members"]}
    for function in machine["functions"]:
        known = regions.get(function["address"])
        if function["is_bridge"]:
            function["rmrr"] = False
        elif known is not None:
            function["rmrr"] = any(region["type"] == "direct" for region in known)
        elif listed is not None:
            # The kernel lets USB controllers and displays go (device_rmrr_is_relaxable)
            function["rmrr"] = function["address"] in tied and not function["class"].startswith(("0c03", "03"))


def _host(inputs, functions, groups, net, session, seen, unknowns):
    cpuinfo = inputs.text("/proc/cpuinfo", "CPUs unknown")
    kernel = platform.kernel(inputs, cpuinfo)
    service = network_backend.read(inputs, net["interfaces"])
    return {
        "kernel": kernel,
        "product": platform.product(inputs, cpuinfo),
        "cpu": platform.cpu(cpuinfo),
        "numa": platform.numa(inputs),
        "iommu": platform.iommu(inputs, kernel["cmdline"], groups, pci.rcba_enabled(inputs, functions), functions),
        "boot": platform.boot(inputs, kernel["cmdline"]),
        "initramfs": platform.initramfs(inputs),
        "network": dict(service, interfaces=net["interfaces"], default_routes=net["default_routes"]),
        "ssh": session,
        "libvirt": platform.installed(inputs, platform.LIBVIRT),
        "qemu": platform.installed(inputs, platform.QEMU),
        "memory": platform.memory(inputs),
        "consoles": seen["consoles"],
        "sessions": seen["sessions"],
        "framebuffer": seen["framebuffer"],
        "requested": platform.requested(inputs),
        "previous": platform.previous(inputs),
        "usage_unknown": sorted({unknown["kind"] for unknown in unknowns}),
    }


def assign_uses(functions, uses):
    """Put each use on its function, and on every endpoint above it (a VMD controller); pure.

    Fills ``used_by``; returns unknowns for uses of functions that are not in the document.
    """
    known = {function["address"]: function for function in functions}
    for function in functions:
        function["used_by"] = []
    unknowns = []
    for use in uses:
        entry = {key: use[key] for key in ("kind", "what", "chain", "finding")}
        address = use["function"]
        if address not in known:
            kind = "ssh" if use["finding"] == network.FINDING_SSH else use["kind"]
            unknowns.append({"kind": kind, "input": use["what"], "why": "%s was not read" % address})
        while address in known:
            function = known[address]
            if not function["is_bridge"]:
                function["used_by"].append(entry)
            address = function["parent"]
    return unknowns
