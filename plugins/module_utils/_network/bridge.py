# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The module ``bridge`` without Ansible: read, plan, refuse or change, report."""

from __future__ import annotations

import time

from ansible_collections.vfio.host.plugins.module_utils import _own_files
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._network import facts as machine
from ansible_collections.vfio.host.plugins.module_utils._network import guards, links, model, transaction
from ansible_collections.vfio.host.plugins.module_utils._network.backends import networkd

BACKENDS = {backend.NAME: backend for backend in (networkd,)}


@_own_files.tidied
def run(host, params, check_mode=False, clock=time):
    """The module's result as a dict. Raises ValueError for bad options, HostError for all else."""
    state = params.get("state") or "present"
    asked = model.bridges_from(params.get("bridges"), state)
    strays = _strays(host, asked if state == "present" else [])
    if state == "absent":
        result = _absent(host, asked, params, check_mode, clock)
    else:
        result = _present(host, asked, params, check_mode, clock)
    if strays:
        result["changed"] = True
        result["diff"].append({"before_header": transaction.RECORD, "after_header": transaction.RECORD,
                               "before": "".join("%s\n" % port for port in strays), "after": ""})
        result.setdefault("warnings", []).append(
            "a run was killed while it changed a bridge of %s: what was remembered of that goes, the links stay as they are"
            % ", ".join(strays))
        if not check_mode:
            transaction.forget(host, strays)
    return result


def _ours(host, backend, seen):
    """Bridges of ours with their ports; also those whose file went, in a run that was killed, before the port left."""
    found = backend.owned(seen)
    for port in transaction.read_record(host):
        own = found.get((links.read_link(host, port) or {}).get("master"))
        if own is not None and port not in own["ports"]:
            own["ports"].append(port)
    return found


def _strays(host, asked):
    """Ports that the record has and no bridge of ours, wanted ones included."""
    known = {port for bridge in asked for port in bridge["ports"]}
    for backend in BACKENDS.values():
        for own in _ours(host, backend, backend.observe(host)).values():
            known.update(own["ports"])
    return sorted(set(transaction.read_record(host)) - known)


def _present(host, asked, params, check_mode, clock):
    net = machine.read_network(host)
    backend = _backend(params.get("backend") or "auto", *machine.backend(host, net))
    seen = backend.observe(host)
    ours = _ours(host, backend, seen)
    result = {"changed": False, "backend": backend.NAME, "bridges": [], "diff": []}
    names = [bridge["name"] for bridge in asked] + [port for bridge in asked for port in bridge["ports"]]
    present = {name: links.read_link(host, name) for name in names}
    addresses = machine.addresses(net)
    changes, reasons, facts = [], [], None
    for item in asked:
        bridge = item
        own = ours.get(item["name"], {"files": {}, "ports": []})
        wanted, difference = {}, []
        there = all(present[port] for port in item["ports"])
        if there:
            bridge = dict(item, mac=item["mac"] or present[item["ports"][0]]["mac"])
            wanted = backend.files(bridge, present, seen)
            difference = _differences(host, backend, bridge, wanted, present, addresses)
            if wanted == own["files"] and not difference:
                result["bridges"].append(_summary(bridge, wanted))
                continue
        facts = facts or machine.gather(host, net)
        released = [port for port in own["ports"] if port not in item["ports"]]
        # the options as given: whether a MAC address was named matters to the guards
        refused = guards.refusals(item, facts, {name: ours[name]["ports"] for name in ours}, released)
        if refused or not there:
            reasons += refused
            continue
        result["bridges"].append(_summary(bridge, wanted))
        result["diff"] += _file_diffs(own["files"], wanted) + _live_diff(bridge["name"], difference)
        changes.append(_change(host, backend, bridge, own, wanted, present[bridge["name"]], released))
    return _finish(host, backend, changes, reasons, result, params, check_mode, clock)


def _absent(host, asked, params, check_mode, clock):
    result = {"changed": False, "backend": None, "bridges": [], "diff": [], "warnings": []}
    names = [bridge["name"] for bridge in asked]
    backend, ours = None, {}
    for candidate in BACKENDS.values():
        found = _ours(host, candidate, candidate.observe(host))
        if any(name in found for name in names):
            backend, ours = candidate, found
    if backend is not None:
        result["backend"] = backend.NAME
    changes, reasons, facts = [], [], None
    for name in names:
        live = links.read_link(host, name)
        if name not in ours:
            if live is not None:
                result["warnings"].append("%s was not made by this collection and is left as it is" % name)
            continue
        own = ours[name]
        facts = facts or machine.gather(host, machine.read_network(host))
        reasons += guards.removal_refusals(name, own["ports"], facts)
        result["diff"] += _file_diffs(own["files"], {})
        if live is not None:
            result["diff"] += _live_diff(name, [("bridge %s" % name, "there", "missing")])
        changes.append(
            {
                "name": name,
                "keep": False,
                "existed": live is not None,
                "files": {path: None for path in own["files"]},
                "before": dict(own["files"]),
                "ports": [],
                "old_ports": own["ports"],
                "released": own["ports"],
                "tune": [],
                "untune": [],
                "done": _gone(host, name),
            }
        )
    return _finish(host, backend, changes, reasons, result, params, check_mode, clock)


def _finish(host, backend, changes, reasons, result, params, check_mode, clock):
    if reasons:
        raise HostError("refused, nothing was changed: " + "; ".join(reasons))
    result["changed"] = bool(changes)
    if changes and not check_mode:
        transaction.apply(host, backend, changes, params.get("wait", 30), clock)
    return result


def _backend(asked, found, evidence):
    if asked == "auto":
        asked = found
    elif asked != found:
        raise HostError("backend %s was asked for, but this host uses %s (%s)" % (asked, found, "; ".join(evidence)))
    if asked not in BACKENDS:
        raise HostError(
            "the network of this host is run by: %s (%s); bridges can be built with %s only so far"
            % (asked, "; ".join(evidence), ", ".join(sorted(BACKENDS)))
        )
    return BACKENDS[asked]


def _differences(host, backend, bridge, wanted, present, addresses):
    subjects = [bridge["name"]] + bridge["ports"]
    # an address without a connected route (/32) is placed nowhere, though it is there
    there = addresses.get(bridge["name"], []) + addresses.get(machine.UNPLACED, [])
    strangers = {name: backend.stranger(host, present[name], wanted) for name in subjects if present[name]}
    return model.differences(bridge, present, there, strangers)


def _change(host, backend, bridge, own, wanted, live, released):
    paths = set(own["files"]) | set(wanted)
    return {
        "name": bridge["name"],
        "keep": True,
        "existed": live is not None,
        "files": {path: wanted.get(path) for path in paths},
        "before": {path: own["files"].get(path) for path in paths},
        "ports": bridge["ports"],
        "old_ports": own["ports"],
        "released": released,
        "tune": _tune(live, bridge),
        "untune": _tune(bridge, live) if live else [],
        "done": _built(host, backend, bridge, wanted, released),
    }


def _tune(now, wanted):
    """Words for ``ip link set``: networkd gives a bridge these when it makes it, and never again."""
    if now is None:
        return []
    words = []
    if now["mac"] != wanted["mac"]:
        words += ["address", wanted["mac"]]
    if wanted["mtu"] is not None and now["mtu"] != wanted["mtu"]:
        words += ["mtu", str(wanted["mtu"])]
    kind = []
    if now["stp"] != wanted["stp"]:
        kind += ["stp_state", "1" if wanted["stp"] else "0"]
    if wanted["stp"] and now["forward_delay"] != wanted["forward_delay"]:
        kind += ["forward_delay", str(100 * wanted["forward_delay"])]
    return words + (["type", "bridge"] + kind if kind else [])


def _built(host, backend, bridge, wanted, released):
    def done():
        subjects = [bridge["name"]] + bridge["ports"]
        present = {name: links.read_link(host, name) for name in subjects}
        addresses = machine.addresses(machine.read_network(host)) if bridge["addresses"] else {}
        found = _differences(host, backend, bridge, wanted, present, addresses)
        left = [port for port in released if (links.read_link(host, port) or {}).get("master") == bridge["name"]]
        found += [("port %s master" % port, bridge["name"], "none") for port in left]
        return ["%s: %s, not %s" % difference for difference in found]

    return done


def _gone(host, name):
    def done():
        return ["bridge %s is still there" % name] if links.read_link(host, name) else []

    return done


def _summary(bridge, wanted):
    return {"name": bridge["name"], "mac": bridge["mac"], "ports": bridge["ports"], "files": sorted(wanted)}


def _file_diffs(before, after):
    return [
        {"before": before.get(path, ""), "after": after.get(path, ""), "before_header": path, "after_header": path}
        for path in sorted(set(before) | set(after))
        if before.get(path) != after.get(path)
    ]


def _live_diff(name, differences):
    if not differences:
        return []
    header = "%s in the running network" % name
    return [
        {
            "before": "".join("%s: %s\n" % (what, now) for what, now, dummy in differences),
            "after": "".join("%s: %s\n" % (what, wanted) for what, dummy, wanted in differences),
            "before_header": header,
            "after_header": header,
        }
    ]
