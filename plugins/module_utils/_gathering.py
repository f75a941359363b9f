# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is read of a machine for its document: everything that does not follow from the rest."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _watch
from ansible_collections.vfio.host.plugins.module_utils._hardware import groups as iommu_groups
from ansible_collections.vfio.host.plugins.module_utils._hardware import inputs as reading
from ansible_collections.vfio.host.plugins.module_utils._hardware import network_backend, pci, platform
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


def gather(host, roms=False):
    """The document of ``host`` without its version and what _consequences.complete() adds; see _machine.collect()."""
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
        display.use(functions, seen["framebuffer"], seen["sessions"], display.read(inputs), seen.pop("firmware")),
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
    return {
        "source": {"root": host.root, "privileged": host.privileged(), "missing": inputs.missing},
        "host": _host(inputs, functions, groups, net, session, seen, unknowns),
        "functions": functions,
        "groups": groups,
        "predicted_groups": [],
        "findings": [],
    }


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
        "sriov": platform.sriov_requested(inputs),
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
