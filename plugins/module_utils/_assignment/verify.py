# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Whether a machine, after its reboot, is what its plan needs. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.closure import Groups
from ansible_collections.vfio.host.plugins.module_utils._assignment.parameters import effective
from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import IDENTITY
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import functions_of
from ansible_collections.vfio.host.plugins.module_utils._binding.variants import BEST
from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import show_size
from ansible_collections.vfio.host.plugins.module_utils._memory import boot


def verify(machine, plan, parameters):
    """List of ``{check, ok, wanted, found, text}``, readable as they are (``ok`` is a bool).

    :param machine: machine document read after the reboot.
    :param plan: what make_plan returned.
    :param parameters: kernel tokens that must be in effect on the running kernel.
    """
    functions_of(machine)
    groups = Groups(machine)
    checks = _parameters(machine, parameters) + _hugepages(machine, parameters) + _override(machine, parameters)
    iommu = machine["host"]["iommu"]
    if plan["identities"]:
        checks.append(_check("IOMMU", bool(iommu["active"]), "active",
                             "active" if iommu["active"] else "inactive: %s" % iommu.get("reason")))
    for device in plan["devices"]:
        checks += [_group(groups, device, address) for address in device["selected"]]
    for wanted in plan["identities"]:
        checks += _function(groups.functions.get(wanted["address"]), wanted)
    return checks


def _check(check, ok, wanted, found):
    text = "ok: %s: %s" % (check, found) if ok else "NOT: %s: wanted %s, found %s" % (check, wanted, found)
    return {"check": check, "ok": ok, "wanted": wanted, "found": found, "text": text}


def _parameters(machine, parameters):
    cmdline = machine["host"]["kernel"]["cmdline"]
    checks = []
    for wanted in parameters:
        if tokens.key(wanted) in ("hugepages", "hugepagesz"):
            continue  # a pair, see _hugepages
        found = effective(cmdline, wanted)
        checks.append(_check("kernel parameter %s" % wanted, found == wanted, wanted, found or "not there"))
    return checks


def _hugepages(machine, parameters):
    """Whether the pages that were to be reserved at boot are there: a parameter that is there may have given fewer."""
    checks = []
    line = boot.pairs(tokens.for_kernel(tokens.split(machine["host"]["kernel"]["cmdline"])))
    pools = {pool["size"]: pool["total"] for pool in machine["host"]["memory"]["hugepages"]}
    for size, value in boot.pairs(parameters):
        if not size:
            continue
        what = "pages of %s reserved at boot" % show_size(size)
        first = next((text for other, text in line if other == size), None)
        if first != value:
            checks.append(_check(what, False, "hugepages=%s" % value,
                                 "not there" if first is None else "hugepages=%s" % first))
        else:
            checks.append(_check(what, pools.get(size, 0) >= boot.total(value), str(boot.total(value)),
                                 str(pools.get(size, 0))))
    return checks


def _override(machine, parameters):
    """What is to be said each time as long as the override patch is asked for; it fails nothing by itself."""
    running = machine["host"]["kernel"]["acs_override"]
    wanted = [tokens.value(token) for token in parameters if tokens.key(token) == "pcie_acs_override"]
    if running is None and not wanted:
        return []
    where = "on the running command line" if running is not None else "wanted and not on the running command line"
    found = "pcie_acs_override=%s is %s" % (running if running is not None else wanted[-1], where)
    return [{"check": "isolation", "ok": True, "wanted": "isolation by the hardware", "found": found,
             "text": "NOT VERIFIED: isolation: %s" % found}]


def _group(groups, device, address):
    check = "IOMMU group of %s (%s)" % (address, device["name"])
    wanted = "only functions of %s and bridges" % device["name"]
    if address not in groups.functions:
        return _check(check, False, wanted, "no function at this address")
    members = groups.members(address) if groups.actual else None
    if members is None:
        return _check(check, False, wanted, "no group")
    foreign = [a for a in members if a not in device["selected"] and not groups.stays(a)]
    found = "also " + "; ".join(groups.describe(a) for a in foreign) if foreign else wanted
    return _check(check, not foreign, wanted, found)


def _function(function, wanted):
    address = wanted["address"]
    if function is None:
        return [_check("function %s" % address, False, _identity(wanted), "no function at this address")]
    same = all(function.get(key) == wanted.get(key) for key in IDENTITY)
    driver, should = function.get("driver"), wanted.get("driver") or asked.DRIVER
    right = asked.is_vfio(driver) and (should == BEST or asked.module_of(driver) == asked.module_of(should))
    return [
        _check("identity of %s" % address, same, _identity(wanted), _identity(function)),
        _check("driver of %s" % address, right, "%s or a variant of it" % asked.DRIVER if should == BEST else should,
               driver or "none"),
    ]


def _identity(function):
    """``10de:1380 subsystem 1043:84bb class 030000 serial -``"""
    return "%s:%s subsystem %s:%s class %s serial %s" % tuple(
        function.get(key) or "-" for key in IDENTITY[1:])
