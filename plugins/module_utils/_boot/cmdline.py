# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The kernel command line: what runs, what is configured, what boots next, and ours in it."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _own_files
from ansible_collections.vfio.host.plugins.module_utils._boot import booted, edits, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import FALLBACK_ID, OFF, default_of
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

LOADERS = (
    "proxmox", "rpm_ostree", "bootc", "kernelstub", "uki", "systemd_boot", "grubby", "bls", "grub_in_place", "grub",
)  # fmt: skip
"""Names of the backends, in the order in which they are asked whether they started this system."""

ROUNDS = 3
"""How often files are written and entries generated until nothing is left to do: kernels come meanwhile."""

GROWTH = 1 << 18
"""Bytes that a generated file may be larger than the one in place: entries of a menu, a longer command line."""


# -- which loader --------------------------------------------------------------------------


def backend(name):
    """The module of a backend, imported when it is asked for.

    The imports are written out, since Ansible sends to a host only what it finds imported by name.
    """
    # pylint: disable=import-outside-toplevel
    if name == "proxmox":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import proxmox as found
    elif name == "rpm_ostree":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import rpm_ostree as found
    elif name == "bootc":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bootc as found
    elif name == "kernelstub":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import kernelstub as found
    elif name == "uki":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import uki as found
    elif name == "systemd_boot":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import systemd_boot as found
    elif name == "grubby":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grubby as found
    elif name == "bls":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls as found
    elif name == "grub_in_place":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_in_place as found
    elif name == "grub":
        from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub as found
    else:
        raise ValueError("loader: %r is not one of %s" % (name, ", ".join(LOADERS)))
    return found


def backends():
    """All of them, in the order of :data:`LOADERS`."""
    return [backend(name) for name in LOADERS]


def detect(host):
    """``(backend, found)`` of the one loader that started this system.

    Raises HostError when none or more than one did, with what was found for each.
    """
    seen = booted.booted(host)
    claims = []
    refusals = []
    for candidate in backends():
        found, against = candidate.evidence(host, seen)
        if against:
            refusals.append("not %s (%s)" % (candidate.NAME, "; ".join(against)))
        else:
            claims.append((candidate, found))
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise HostError(
            "it is not clear which boot loader started this system: %s. Remove what is left of the one that is not "
            "used, or give loader" % "; ".join("%s (%s)" % (item.NAME, ", ".join(found)) for item, found in claims)
        )
    raise HostError(
        "no supported boot loader was recognised: %s. Supported: %s; give loader if you know better"
        % ("; ".join(refusals), ", ".join(LOADERS))
    )


def choose(host, name):
    """``(backend, found)`` for ``auto`` or a named loader. Raises HostError with what was found."""
    if name == "auto":
        return detect(host)
    found = backend(name)
    reasons = found.unusable(host)
    if reasons:
        raise HostError("loader %s cannot be used here: %s" % (name, "; ".join(reasons)))
    return found, []


def _chosen(host, name, known, absent):
    """As :func:`choose`, by the record too: what was made with one loader is not taken out with another."""
    if known and known["loader"] != name:
        if absent:
            return choose(host, known["loader"])
        loader, found = choose(host, name)
        if loader.NAME != known["loader"]:
            raise HostError(
                "%s says that our parameters were written for loader %s, and now it is %s: run with state absent "
                "first, which takes them out there" % (record.PATH, known["loader"], loader.NAME)
            )
        return loader, found
    return choose(host, name)


# -- the run -------------------------------------------------------------------------------


@_own_files.tidied
def run(host, params, check_mode):
    """Bring the command line of the next boot to what ``params`` asks.

    ``params``: the options of the module. Returns the module's result, ``warnings`` in it. Raises
    ValueError and HostError, and then nothing has changed.
    """
    asked = tokens.check(params["parameters"] or [])
    absent = params["state"] == "absent"
    policy = params.get("conflicts") or "override"
    with_fallback = not absent and params.get("fallback_entry") is not False
    known = record.read(host)
    try:
        loader, found = _chosen(host, params["loader"], known, absent)
    except HostError as exc:
        if (absent or not asked) and not known and all(item.recorded(host) is None for item in backends()):
            return _nothing(host, absent, exc)  # whatever boots this machine, there is nothing to do
        raise
    plan = _Plan(host, loader, known, [] if absent else asked, policy, with_fallback, absent)
    plan.make()
    if plan.changed:
        plan.refuse_obstacles()
    shown = _shown(plan.seen)
    line_before = list(shown["tokens"]) if shown else []
    predicted = tokens.replace(line_before, tokens.common(plan.owned, line_before), plan.written)
    if not plan.changed:
        predicted = line_before
    differences = edits.diff(plan.edits)
    if plan.changed:
        entry = "next boot: %s" % (shown["title"] if shown else "no entry known")
        differences.append(
            {
                "before_header": entry,
                "after_header": entry,
                "before": tokens.join(line_before) + "\n",
                "after": tokens.join(predicted) + "\n",
            }
        )
    because = plan.because
    changed = plan.changed
    if changed and not check_mode:
        plan.apply()
        shown = _shown(plan.seen)
        predicted = list(shown["tokens"]) if shown else []
    return _result(host, plan, asked, absent, found, predicted, changed, because, differences, check_mode)


class _Plan:
    """What is to be done, and doing it. ``make`` only reads; ``apply`` reads again before it writes."""

    def __init__(self, host, loader, known, asked, policy, with_fallback, absent):
        self.host = host
        self.loader = loader
        self.known = known
        self.asked = asked
        self.policy = policy
        self.with_fallback = with_fallback
        self.absent = absent
        before = loader.recorded(host)
        if known:
            self.owned = list(known["tokens"])
            self.owned += [token for token in before or [] if token not in self.owned]
        else:
            self.owned = list(before or [])
        self.originals = dict(known["originals"]) if known else {}
        self.theirs = {}

    def make(self):
        """Look, and decide what is written, and whether anything is to be done and why."""
        self.look()
        self.decide()
        self.note_theirs(self.owned, (self.known or {}).get("theirs", {}))
        self.edits = self.needed(self.owned)
        self.because = [] if self.idle() else self.lacks()
        self.because += ["%s differs" % edit.path for edit in self.edits if edit.before != edit.after]
        if self.known and self.known["pending"]:
            self.because.append("a run before this one did not end")
        self.changed = bool(self.because or self.edits or self.record() != self.known)
        if self.changed:
            self.refuse_hindrances()

    def look(self):
        self.seen = self.loader.view(self.host)
        self.settings, self.origin = self.loader.configured(self.host)

    def note_theirs(self, owned, known):
        """Which of our tokens others have on each ordinary entry that is not noted yet: ``{id: tokens}``.

        ``known``: the same by the record of a run that was cut off. Without it, what may be ours is.
        """
        ours = self.everything()
        for entry in self.seen["entries"]:
            if entry["managed"] and _name(entry) not in self.theirs:
                line = entry["tokens"]
                mine = tokens.own(owned, line, known.get(_name(entry), []))
                theirs = tokens.beyond(line, tokens.common(mine, line))
                self.theirs[_name(entry)] = [token for token in theirs if token in ours]

    def idle(self):
        """Nothing of ours is there or wanted: what is wrong with the menu is not for us to repair."""
        return not self.owned and not self.asked and not self.with_fallback

    def full_lines(self):
        """Command lines of each ordinary entry, and of the next kernel."""
        found = [entry["tokens"] for entry in self.seen["entries"] if entry["managed"]]
        return found if self.settings is None else found + [self.settings]

    def lines(self):
        """The same without ours."""
        return [tokens.without(line, tokens.common(self.owned, line)) for line in self.full_lines()]

    def decide(self):
        """What of the asked is written by us, and what an administrator has or says otherwise."""
        lines = self.lines()
        there = any(entry["managed"] for entry in self.seen["entries"])
        self.written = []
        self.kept = []
        self.by_hand = []
        stubborn = []
        for unit in tokens.units(self.asked):
            if there and unit not in tokens.units(self.owned) and not any(tokens.lacking(line, unit) for line in lines):
                self.by_hand += unit
                continue
            pairs = []
            for line in lines:
                pairs += [pair for pair in tokens.opposed(line, unit) if pair not in pairs]
            if pairs and self.policy == "refuse":
                raise self.refusal(pairs, first=tokens.first_wins(unit))
            if pairs and self.policy == "keep":
                self.kept += [pair for pair in pairs if pair not in self.kept]
                continue
            self.written += unit
            if pairs and tokens.first_wins(unit):
                stubborn.append((unit, pairs))
        for unit, pairs in stubborn:
            if any(tokens.lacking(self.after(line), unit) for line in self.full_lines()):
                raise self.refusal(pairs, first=True)

    def refusal(self, pairs, first):
        """The HostError for what others have said otherwise; ``first``: the kernel keeps theirs."""
        remedy = ": take it out there, or set conflicts to override or keep"
        if first:
            remedy = ", and the kernel keeps the first: take it out there, or set conflicts to keep"
        return HostError(
            "; ".join(
                "%s is asked, and %s is set%s%s"
                % (pair["ours"], pair["theirs"], _where(_origin(self.origin, pair["theirs"])), remedy)
                for pair in pairs
            )
        )

    def after(self, line):
        """A command line as it will be, where ours is put behind what is there."""
        present = tokens.common(self.owned, line)
        if all(token in self.written for token in present) and not tokens.lacking(line, self.written):
            return line
        return tokens.replace(line, present, self.written)

    def dropped(self):
        """Tokens that we had written and that are not to be there any more; also what runs before this one took out."""
        found = self.owned + [token for token in record.removed(self.host) if token not in self.owned]
        return [token for token in found if token not in self.written]

    def everything(self):
        """Each token of ours that is or will be there, as often as it may be (``hugepages=4`` of two sizes)."""
        return self.owned + tokens.beyond(self.written, self.owned)

    def needed(self, owned, made=None):
        """The edits that are still to be made, by what is there now: a kernel may have been installed meanwhile.

        ``made``: ``{path: text}`` of what this run has made of somebody's files. A token in such a text that had to go
        and still is there is not ours.
        """
        found = self.loader.edits(self.host, self.written, owned)
        if not self.written:
            staying = self.lasting()
            back = {path: was for path, was in self.originals.items() if path not in staying}
            found = record.restored(self.host, found, back)
            found.sort(key=lambda edit: edit.path in staying)  # last, as with parameters: it must not look stale
        if made is not None:
            found = [edit for edit in found if edit.path not in made or made[edit.path] != edit.before]
        ours = self.everything() if found or made is None else self.written
        own = self.loader.fallback(self.host, ours if self.with_fallback else None)
        there = [edit.path for edit in found]
        return found + [edit for edit in own if edit.path not in there]

    def lasting(self):
        """Originals of files that were not there before us and stay for as long as an entry of ours does, a trial's too."""
        if not self.with_fallback and not self.host.exists(record.TRIAL):
            return {}
        names = getattr(self.loader, "LASTING", ())
        return {path: was for path, was in self.originals.items() if path in names and was["text"] is None}

    def expected(self):
        """What has to be in force on each ordinary entry."""
        return self.written + self.by_hand

    def lacks(self):
        """What is wrong with the next boot: ``[reason]``."""
        reasons = list(self.seen["problems"])
        ordinary = [entry for entry in self.seen["entries"] if entry["managed"]]
        if not ordinary and not reasons:
            reasons.append("there is no ordinary boot entry")
        gone = tokens.beyond(self.owned, self.written)
        for entry in ordinary:
            lacks = tokens.lacking(entry["tokens"], self.expected())
            if lacks:
                reasons.append("entry %r: %s not in force" % (entry["title"], ", ".join(lacks)))
            mine = tokens.beyond(entry["tokens"], self.theirs.get(_name(entry), []))
            left = [token for token in tokens.common(gone, mine) if self.settings and token not in self.settings]
            if left:
                reasons.append("entry %r still has %s" % (entry["title"], ", ".join(left)))
        return reasons

    def unfinished(self):
        """The record for as long as it is not known how far the run has come."""
        theirs = {name: line for name, line in self.theirs.items() if line}
        return record.new(self.loader.NAME, self.everything(), True, self.originals, theirs)

    def record(self):
        """The record as it has to be when nothing is pending; None for no record."""
        originals = self.originals if self.written else self.lasting()
        if not self.written and not self.with_fallback and not originals:
            return None
        return record.new(self.loader.NAME, self.written, False, originals)

    def refuse_hindrances(self):
        """Raise HostError for what no edit and no generating mends, so that check mode says it too."""
        find = getattr(self.loader, "hindrances", None)
        reasons = find(self.host, self.edits, self.written) if find else []
        if reasons:
            raise HostError("nothing was changed: %s" % "; ".join(reasons))

    def refuse_obstacles(self):
        """Raise HostError when something could not be written, before anything is."""
        host = self.host
        sizes = {record.PATH: 1 << 16}
        for edit in self.edits:
            sizes[edit.path] = len(edit.after or "")
        for path in self.loader.generated(host):
            status = host.stat(path)
            sizes[path] = (status.st_size if status else 0) + GROWTH
        reasons = edits.obstacles(host, sizes)
        if reasons:
            raise HostError("nothing was changed: %s" % "; ".join(reasons))

    def apply(self):
        """Write, generate, read back. Raises HostError with everything put back as it was."""
        host, loader = self.host, self.loader
        edits.clean(host, [record.PATH] + [edit.path for edit in self.edits] + loader.generated(host))
        before = edits.kept(host, [record.PATH] + loader.generated(host))
        seen = self.seen
        touched = []
        made = {}
        try:
            found = self.needed(self.owned)
            for dummy in range(ROUNDS):
                touched += [edit.path for edit in found]
                new = [edit.path for edit in found] + loader.generated(host)
                before.update(edits.kept(host, [path for path in new if path not in before]))
                self.originals = record.noted(host, found, self.originals, self.owned)
                record.write(host, self.unfinished())
                edits.write(host, found)
                made.update((edit.path, edit.after) for edit in found if not edit.own)
                loader.generate(host)
                found = self.needed(self.everything(), made)
                if not found:
                    break
                self.look()
                self.note_theirs(self.everything(), {})  # of entries that have come meanwhile
            else:
                raise HostError("after %d rounds %s would still be changed" % (ROUNDS, found[0].path))
            self.look()
            reasons = self.lacks()
            if reasons:
                raise HostError("; ".join(reasons))
            running = tokens.split(host.read("/proc/cmdline") or "")
            record.note_removed(host, [token for token in self.dropped() if tokens.has(running, token)])
            self.originals = record.settled(host, self.originals)
            final = self.record()
            if final is None:
                record.remove(host)
            else:
                record.write(host, final)
        except (HostError, OSError, ValueError) as exc:
            self.put_back(before, seen, touched, exc)

    def put_back(self, before, seen, touched, why):
        """Make everything what it was and raise HostError; when that does not succeed, the next run has to finish it."""
        host, loader = self.host, self.loader
        edits.put_back(host, before)
        failed = _undo(host, loader, self.owned, self.everything(), seen)
        if failed:
            record.write(host, self.unfinished())
            raise HostError(
                "%s. The files are as before, but what boots could not be put back (%s): run again when that is mended"
                % (why, failed)
            ) from why
        if before[record.PATH] is None:
            host.remove_empty_folder(record.FOLDER)
        raise HostError(
            "the boot entries were not changed, %s as before: %s"
            % (", ".join(sorted(set(touched + loader.generated(host)))), why)
        ) from why


def _name(entry):
    return entry["id"] or entry["title"]


def _undo(host, loader, owned, tried, seen):
    """Put back what no file on the host holds; why it is not as it was in ``seen``, or None."""
    undo = getattr(loader, "undo", None)
    if undo is None:
        return None
    failed = "the entries read back differ"
    try:
        undo(host, tried, seen)
    except (HostError, OSError, ValueError) as exc:
        failed = str(exc)
    now = loader.view(host)
    same = now["problems"] == seen["problems"] and _carried(now, owned + tried) == _carried(seen, owned + tried)
    return None if same else failed


def _carried(seen, ours):
    """What ordinary entries have of ours: not their names, for a deployment that is put back is a new one."""
    return {tuple(sorted(set(entry["tokens"]) & set(ours))) for entry in seen["entries"] if entry["managed"]}


def _result(host, plan, asked, absent, found, predicted, changed, because, differences, check_mode):
    running = tokens.split(host.read("/proc/cmdline") or "")
    dropped = plan.dropped()
    wanted = plan.expected()
    if absent:
        dropped += [token for token in asked if token not in dropped]
    reboot = bool(tokens.lacking(running, wanted)) or any(
        tokens.has(running, token) and not tokens.has(predicted, token) for token in dropped
    )
    defeated = tokens.overridden(predicted, plan.written)
    for pair in defeated + plan.kept:
        pair["file"] = _origin(plan.origin, pair["theirs"])
    fallbacks = [entry for entry in plan.seen["entries"] if (entry["id"] or "").startswith(FALLBACK_ID)]
    return {
        "changed": changed,
        "loader": plan.loader.NAME,
        "evidence": found,
        "owned": list(plan.written),
        "by_hand": list(plan.by_hand),
        "regenerated_because": because,
        "running": running,
        "configured": plan.settings,
        "configured_by": plan.origin,
        "next_boot": plan.seen["entries"],
        "problems": plan.seen["problems"],
        "overridden": defeated,
        "kept": plan.kept,
        "reboot_required": reboot,
        "warnings": _warnings(plan, defeated, fallbacks, changed, check_mode),
        "diff": differences,
    }


def _nothing(host, absent, why):
    """The result for a host without anything of ours on which nothing is asked, whatever boots it."""
    return {
        "changed": False,
        "loader": None,
        "evidence": [],
        "owned": [],
        "by_hand": [],
        "regenerated_because": [],
        "running": tokens.split(host.read("/proc/cmdline") or ""),
        "configured": None,
        "configured_by": {},
        "next_boot": [],
        "problems": [],
        "overridden": [],
        "kept": [],
        "reboot_required": False,
        "warnings": [] if absent else ["there is no fallback entry: %s" % why],
        "diff": [],
    }


def _shown(seen):
    """The entry to show: what boots by default when it is one of ours to care for, else the first such."""
    entry = default_of(seen)
    if entry is not None and entry["managed"]:
        return entry
    managed = [candidate for candidate in seen["entries"] if candidate["managed"]]
    return managed[0] if managed else None


def _origin(origin, text):
    """The file that sets a token, or a pair of them, or None."""
    found = [origin[token] for token in reversed(tokens.split(text)) if token in origin]
    return found[0] if found else None


def _where(path):
    return " in %s" % path if path else ""


def _warnings(plan, defeated, fallbacks, changed, check_mode):
    found = []
    for pair in defeated if changed else []:
        where = " from %s" % pair["file"] if pair["file"] else ""
        found.append("%s overrides %s%s" % (pair["ours"], pair["theirs"], where))
    for pair in plan.kept:
        found.append(
            "%s stays in force%s, and %s was not written (conflicts: keep)"
            % (pair["theirs"], _where(pair["file"]), pair["ours"])
        )
    entry = default_of(plan.seen)
    wanted = plan.expected()
    if entry is not None and not entry["managed"] and tokens.lacking(entry["tokens"], wanted):
        found.append(
            "the default boot entry %r comes from %s and is not changed: it boots without %s"
            % (entry["title"], entry["source"] or "an unknown place", ", ".join(wanted))
        )
    if plan.with_fallback:
        why = getattr(plan.loader, "fallback_unavailable", lambda host: None)(plan.host)
        if why:
            found.append(why)
        elif fallbacks or changed and check_mode:
            found += getattr(plan.loader, "fallback_gaps", lambda host: [])(plan.host)
        else:
            found.append("loader %s has no fallback entry with %s" % (plan.loader.NAME, OFF))
    return found
