# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The machine document: one read of the host, put together. Its form: docs/machine_document.md."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._hardware import groups as iommu_groups
from ansible_collections.vfio.host.plugins.module_utils._hardware import inputs as reading
from ansible_collections.vfio.host.plugins.module_utils._hardware import network_backend, pci, platform
from ansible_collections.vfio.host.plugins.module_utils._usage import display, network, ssh, storage

SCHEMA = 1


def collect(host):
    """The machine document of ``host`` (live or a recorded tree), as plain data.

    Raises nothing for what is missing: ``source.missing`` names it. HostError only for a tree
    with a loop of symbolic links.
    """
    inputs = reading.Inputs(host)
    functions = pci.read(inputs)
    groups = iommu_groups.read(inputs, functions)
    net = network.read(inputs)
    session = ssh.read(inputs)
    uses, unknowns = [], []
    for found, unclear in (storage.read(inputs), network.use(session, net), display.use(functions)):
        uses += found
        unknowns += unclear
    unknowns += assign_uses(functions, uses)
    for unknown in unknowns:
        inputs.miss(unknown["input"], "VH205: " + unknown["why"])
    return {
        "schema": SCHEMA,
        "source": {"root": host.root, "privileged": host.privileged(), "missing": inputs.missing},
        "host": _host(inputs, groups, net, session, unknowns),
        "functions": functions,
        "groups": groups,
        "findings": [],
    }


def _host(inputs, groups, net, session, unknowns):
    cpuinfo = inputs.text("/proc/cpuinfo", "CPUs unknown")
    kernel = platform.kernel(inputs, cpuinfo)
    service = network_backend.read(inputs, net["interfaces"])
    return {
        "kernel": kernel,
        "cpu": platform.cpu(cpuinfo),
        "iommu": platform.iommu(inputs, kernel["cmdline"], groups),
        "boot": platform.boot(inputs, kernel["cmdline"]),
        "initramfs": platform.initramfs(inputs),
        "network": dict(service, interfaces=net["interfaces"], default_routes=net["default_routes"]),
        "ssh": session,
        "libvirt": platform.installed(inputs, platform.LIBVIRT),
        "qemu": platform.installed(inputs, platform.QEMU),
        "memory": platform.memory(inputs),
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
