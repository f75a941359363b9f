# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The plan: which functions are to be handed over, and every finding that speaks for or against it. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked_for
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import normalise, sort_key
from ansible_collections.vfio.host.plugins.module_utils._assignment.closure import Groups, close
from ansible_collections.vfio.host.plugins.module_utils._assignment.parameters import (
    NO_TABLE, OVERRIDE, OVERRIDE_HOST, kernel_parameters, override_text)
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import check_spec, functions_of, select
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import View, on_device, on_host, rank
from ansible_collections.vfio.host.plugins.module_utils._findings.rules import RULES, evaluate, finding

IDENTITY = ("address", "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "serial")


def make_plan(machine, devices, acknowledge, matcher, kernel=None):
    """``{devices, identities, parameters, hugepages, notes, findings, refused}`` for the entries of the user.

    :param machine: machine document, schema 2.
    :param devices: list of device entries, see selectors.check_spec.
    :param acknowledge: list of ``{code, device: address}`` or ``{code, host: word}``.
    :param matcher: ``(expression, functions) -> functions``.
    :param kernel: what is asked of the kernel, see parameters.OPTIONS; ``iommu`` is by default whether there are
        devices.
    ``identities`` is filled for a refused plan too: look at ``refused`` first.
    Raises ValueError with every bad entry, one paragraph each.
    """
    functions_of(machine)
    selections = _select_all(machine, devices, matcher)
    asked = _acknowledgements(acknowledge)
    groups = Groups(machine)

    owners = {}
    drivers = {spec["name"]: spec.get("driver") for spec in devices}
    for name, functions in selections:
        for function in functions:
            owners.setdefault(function["address"], []).append(name)

    findings = _relevant(machine, set(owners)) if selections else []
    if selections and not groups.actual:
        findings.append(finding("VH110", on_host("iommu", "the IOMMU is not active, so there are no actual groups")))
    if machine["source"]["root"] == "lspci":
        findings += [finding("VH205", on_device(address, "a dump of lspci does not tell what the host uses"))
                     for address in sorted(owners, key=sort_key)]
    planned = []
    for name, functions in selections:
        selected = [f["address"] for f in functions]
        closed = close(groups, selected, owners)
        findings += [f for f in closed["findings"] if not _said(findings, f)]
        planned.append({
            "name": name,
            "functions": [identity(f, name, groups.functions, drivers[name]) for f in functions],
            "selected": selected,
            "group_members": closed["members"],
            "companions": closed["companions"],
            "confidence": "actual" if groups.actual else "predicted",
        })
    identities = []
    for address in sorted(owners, key=sort_key):
        function = groups.functions[address]
        identities.append(identity(function, owners[address][0], groups.functions, drivers[owners[address][0]]))
        if len(owners[address]) > 1:
            findings.append(finding("VH131", on_device(
                address, "%s is selected by %s" % (address, " and ".join(owners[address])))))
    made = kernel_parameters(machine, dict({"iommu": bool(selections)}, **kernel or {}), set(owners),
                             (OVERRIDE, OVERRIDE_HOST) in asked)
    findings += _kernel_findings(machine, made, {f["code"] for f in findings})
    given = {a for a in owners if asked_for.is_vfio(groups.functions[a].get("driver"))}
    findings = sorted(_acknowledge(findings, asked, given), key=rank)
    return {
        "devices": planned,
        "identities": identities,
        "parameters": made["parameters"],
        "hugepages": made["hugepages"],
        "notes": made["notes"],
        "findings": findings,
        "refused": any(f["severity"] == "refuse" for f in findings),
    }


def _kernel_findings(machine, made, said):
    """Findings of what stands against the wanted parameters, but for what the machine's own findings say."""
    evidence = {}
    for problem in made["problems"]:
        unknown = problem["code"] == NO_TABLE and machine["host"]["iommu"]["active"] is None
        if problem["code"] not in said and problem["code"] != OVERRIDE and not unknown:
            evidence.setdefault(problem["code"], []).append(problem["text"])
    found = [finding(code, on_host("cmdline", *texts)) for code, texts in evidence.items()]
    if made["override"]:
        found.append(finding(OVERRIDE, on_host(OVERRIDE_HOST, override_text(made["override"]))))
    return found


SHOWN = ("VH121",)
"""Findings of severity info that a plan shows; the audit shows them all."""


def _relevant(machine, selected):
    """The machine's findings that concern the selected functions, a bridge above one, a group, or the whole host."""
    view = View(machine)
    above = {bridge["address"] for address in selected for bridge in view.above(address)}
    result = []
    for found in evaluate(machine):
        if found["severity"] == "info" and found["code"] not in SHOWN:
            continue
        if "device" in found:
            concerned = found["device"] in selected or found["device"] in above
        elif "group" in found:
            concerned = not selected.isdisjoint(found["group"])
        else:
            concerned = True
        if concerned:
            result.append(found)
    return result


def _said(findings, new):
    return any(f["code"] == new["code"] and f.get("device") == new.get("device") for f in findings)


def identity(function, name, functions, driver=None):
    """What makes a function this function and no twin of it; and the driver that it shall have, where one is named."""
    result = {key: function.get(key) for key in IDENTITY}
    result["path"] = _path(function, functions)
    result["name"] = name
    if driver is not None:
        result["driver"] = driver
    return result


def _path(function, functions):
    """``0000:00/01.0/00.0``, see _assignment_state.path_of; None when a bridge on the way is not known."""
    domain = function["address"].split(":")[0]
    steps = []
    while function is not None and function["address"].startswith(domain + ":"):
        steps.insert(0, function["address"].rpartition(":")[2])
        root = function["address"].rpartition(":")[0]
        if function.get("parent") and function["parent"] not in functions:
            return None
        function = functions.get(function.get("parent"))
    return "/".join([root] + steps)


def _select_all(machine, devices, matcher):
    if not isinstance(devices, list):
        raise ValueError("devices must be a list of device entries, not %r" % (devices,))
    errors = []
    result = []
    seen = set()
    for spec in devices:
        try:
            name, dummy = check_spec(spec)
            if name in seen:
                errors.append("device %s: the name is used twice; guests refer to a device by its name" % name)
            seen.add(name)
            result.append((name, select(machine, spec, matcher)))
        except ValueError as exc:
            errors.append(str(exc))
    if errors:
        raise ValueError("\n".join(errors))
    return result


def _acknowledgements(acknowledge):
    """``[(code, address or word for the host)]``; ValueError on an entry of another form."""
    if not isinstance(acknowledge, list):
        raise ValueError("acknowledge must be a list of {code, device}, not %r" % (acknowledge,))
    result = []
    for entry in acknowledge:
        if not isinstance(entry, dict) or set(entry) not in ({"code", "device"}, {"code", "host"}):
            raise ValueError(
                "acknowledge: %r must have exactly code and device, like {code: VH203, device: \"0000:00:02.0\"}, or "
                "for the host as a whole code and host, like {code: VH142, host: acs_override}" % (entry,)
            )
        if "host" in entry:
            if not isinstance(entry["host"], str):
                raise ValueError("acknowledge %s, host: %r is no word" % (entry["code"], entry["host"]))
            result.append((str(entry["code"]), entry["host"]))
            continue
        address = normalise(entry["device"], "acknowledge %s, device" % entry["code"])
        if "." not in address:
            raise ValueError("acknowledge %s: %s is a slot; name each function, like %s.0"
                             % (entry["code"], entry["device"], address))
        result.append((str(entry["code"]), address))
    return result


def _acknowledge(findings, asked, given):
    """Findings with the acknowledged ones as warnings, and VH190 for acknowledgements in vain.

    :param given: selected addresses that are on vfio-pci already: a use that was acknowledged once
        has ended there, and the acknowledgement is still right.
    """
    result = list(findings)
    for code, place in asked:
        if code not in RULES:
            why = "there is no finding %s" % code
        elif not RULES[code]["acknowledgeable"]:
            why = "%s cannot be acknowledged" % code
        else:
            hits = [f for f in findings if f["code"] == code and (
                place in (f.get("device"), f.get("host")) or place in f.get("group", ()))]
            for hit in hits:
                hit["acknowledged"] = True
                hit["severity"] = "warn"
            if hits or place in given:
                continue
            why = "%s has no finding %s in this plan" % (place, code)
        result.append(finding("VH190", on_host("acknowledge", "acknowledged %s for %s: %s" % (code, place, why))))
    return result
