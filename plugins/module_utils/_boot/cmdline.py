# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The kernel command line: what runs, what is configured, what boots next, and ours in it."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

LOADERS = {grub.NAME: grub}


def choose(host, name):
    """The backend for ``auto`` or a named loader. Raises HostError with what was found."""
    if name != "auto":
        reasons = LOADERS[name].unusable(host)
        if reasons:
            raise HostError("loader %s cannot be used here: %s" % (name, "; ".join(reasons)))
        return LOADERS[name], []
    refusals = []
    for candidate in LOADERS.values():
        found, against = candidate.evidence(host)
        if not against:
            return candidate, found
        refusals.append("not %s (%s)" % (candidate.NAME, "; ".join(against)))
    raise HostError(
        "no supported boot loader was recognised: %s. Supported: %s; give loader if you know better"
        % ("; ".join(refusals), ", ".join(LOADERS))
    )


def run(host, params, check_mode):
    """Bring the command line of the next boot to what ``params`` asks.

    ``params``: ``{parameters: [str], state: present|absent, loader: auto|grub}``. Returns the
    module's result without ``warnings`` being shown. Raises ValueError and HostError.
    """
    asked = tokens.check(params["parameters"] or [])
    absent = params["state"] == "absent" or not asked  # to own nothing and to be absent are the same
    try:
        loader, found = choose(host, params["loader"])
    except HostError:
        if absent and all(candidate.record(host)[0] is None for candidate in LOADERS.values()):
            return _nothing(host)  # whatever boots this machine, there is nothing to do
        raise
    before, recorded = loader.record(host)
    menu = loader.menu_of(host)
    wanted = [] if absent else asked
    after = None if absent else loader.render(asked)

    missing = [] if absent else loader.missing(host, wanted)
    changed = before != after or bool(missing)
    shown = _default(loader, menu)
    line_before = list(shown["tokens"]) if shown else []
    predicted = line_before
    if changed:
        predicted = tokens.replace(line_before, _present(line_before, recorded), wanted)
    if changed and not check_mode:
        loader.apply(host, None if absent else asked)
        menu = loader.menu_of(host)
        shown = _default(loader, menu)
        predicted = list(shown["tokens"]) if shown else []

    running = tokens.split(host.read("/proc/cmdline") or "")
    settings, origin = loader.configured(host)
    entries = [
        {"kernel": entry["kernel"], "id": entry["id"], "title": entry["title"], "tokens": entry["tokens"]}
        for entry in (loader.managed(menu) if menu else [])
    ]
    if absent:
        ours = recorded + [token for token in asked if token not in recorded]
        reboot = any(tokens.has(running, token) and not tokens.has(predicted, token) for token in ours)
        defeated = []
    else:
        reboot = any(not tokens.has(running, token) for token in wanted)
        defeated = tokens.overridden(predicted, wanted)
    for pair in defeated:
        pair["file"] = origin.get(pair["theirs"])
    return {
        "changed": changed,
        "loader": loader.NAME,
        "evidence": found,
        "owned": wanted,
        "regenerated_because": missing or (["%s differs" % loader.DROP_IN] if changed else []),
        "running": running,
        "configured": settings,
        "next_boot": entries,
        "overridden": defeated,
        "reboot_required": reboot,
        "warnings": _warnings(loader, menu, wanted, defeated, changed),
        "diff": _diff(loader, before, after, shown, line_before, predicted) if changed else [],
    }


def _nothing(host):
    return {
        "changed": False,
        "loader": None,
        "evidence": [],
        "owned": [],
        "regenerated_because": [],
        "running": tokens.split(host.read("/proc/cmdline") or ""),
        "configured": None,
        "next_boot": [],
        "overridden": [],
        "reboot_required": False,
        "warnings": [],
        "diff": [],
    }


def _default(loader, menu):
    """The entry to show: what boots by default when it is one of ours to care for, else the first such."""
    if menu is None:
        return None
    ours = loader.managed(menu)
    entry = loader.default_entry(menu)
    if entry is not None and any(entry is candidate for candidate in ours):
        return entry
    return ours[0] if ours else None


def _present(line, recorded):
    return [token for token in recorded if token in line]


def _warnings(loader, menu, wanted, defeated, changed):
    found = []
    for pair in defeated if changed else []:
        where = " from %s" % pair["file"] if pair["file"] else ""
        found.append("%s overrides %s%s" % (pair["ours"], pair["theirs"], where))
    entry = loader.default_entry(menu) if menu else None
    if entry is not None and not all(tokens.has(entry["tokens"], token) for token in wanted):
        if not any(entry is candidate for candidate in loader.managed(menu)):
            found.append(
                "the default boot entry %r comes from %s and is not changed: it boots without %s"
                % (entry["title"], entry["section"] or "outside /etc/grub.d", ", ".join(wanted))
            )
    return found


def _diff(loader, before, after, shown, line_before, line_after):
    entry = "next boot: %s" % (shown["title"] if shown else "no entry known")
    return [
        {
            "before_header": loader.DROP_IN,
            "after_header": loader.DROP_IN,
            "before": before or "",
            "after": after or "",
        },
        {
            "before_header": entry,
            "after_header": entry,
            "before": tokens.join(line_before) + "\n",
            "after": tokens.join(line_after) + "\n",
        },
    ]
