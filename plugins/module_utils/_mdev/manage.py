# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Mediated devices and vGPU types as wanted, now and at each boot; and the way home.

RECORD: ``{"schema": 1, "cards": {address: {vendor, device, serial, stuck}}, "devices": {key: {"before": state, "ours":
[state], "asked": word, "mdevctl": {path: text}}}}``; keys and states as in parents.py. ``ours``: what runs have made; more
than one while a run is under way. ``asked``: the type in the words of the list, which a vGPU's name needs when the driver
no longer lists it. ``mdevctl``: the definition that was taken over. ``stuck``: id of the boot in which a write about the
function never ended; it is not touched again before another boot.
"""

from __future__ import annotations

import collections

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked_state, _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._binding import live
from ansible_collections.vfio.host.plugins.module_utils._binding.record import boot_id, stuck
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from ansible_collections.vfio.host.plugins.module_utils._mdev import mdevctl, parents, persistence, wanted as asking
from ansible_collections.vfio.host.plugins.module_utils._sriov import held

RECORD = asked_state.STATE_FOLDER + "/mediated_devices.json"
CARD = ("vendor", "device", "serial")
STUCK = files.STUCK % "it"

FOREIGN = ("/etc/systemd/system", ("current_vgpu_type", "mdev_supported_types"))
"""Where others make the same at each boot, and the words that tell."""


@files.tidied
def run(host, params, check_mode, read_machine):
    """Bring mediated devices and vGPU types to what ``params`` asks; the module's result.

    :param params: ``{devices, state, mdevctl: refuse|import}``.
    :param read_machine: ``host -> machine document``; asked only when something may be in use.
    Raises ValueError for what cannot be had, HostError when something is held or a step failed; then everything is as
    before, or the message says what is not.
    """
    change = _Change(host, params, read_machine)
    if change.changed and not check_mode:
        change.apply()
    return change.result()


def read_record(host):
    """``{cards, devices}``. Raises HostError for a record that cannot be understood."""
    def is_state(value):
        return value is None or isinstance(value, list) and list(map(type, value)) == [str, str]

    def check(record):
        return all(card["vendor"] and card["device"] for card in record["cards"].values()) and all(
            is_state(entry["before"]) and entry["ours"] and all(map(is_state, entry["ours"]))
            and isinstance(entry["asked"], str) and isinstance(entry["mdevctl"], dict)
            and all(state[0] in record["cards"] for state in [entry["before"]] + entry["ours"] if state)
            for entry in record["devices"].values())

    found = files.read_record(host, RECORD, check, "a reboot without %s ends them all: remove both files and reboot"
                              % asking.LIST)
    return {name: found.get(name, {}) for name in ("cards", "devices")}


class _Change:
    """What is, what shall be, and the steps between."""

    def __init__(self, host, params, read_machine):
        self.host, self.warnings = host, []
        asked = asking.check((params["devices"] or []) if params["state"] == "present" else [])
        self.record = read_record(host)
        self.boot, self.kept = boot_id(host), {}
        self.stuck = stuck(self.record["cards"], self.boot)
        for item in asked:
            if item["parent"] in self.stuck:  # reading some of it would not end either
                raise HostError("%s.parent: %s: %s" % (item["place"], item["parent"], STUCK))
        known = sorted(({item["parent"] for item in asked} | set(self.record["cards"])) - self.stuck)
        files.wait_for_units(host, [persistence.unit(address) for address in known] if host.exists(asking.LIST) else [])
        self.parents = {address: parents.read(host, address) for address in known}
        if asked and not host.which("systemctl"):
            raise HostError("systemctl is not installed, so the devices would be gone after a reboot; this needs a host "
                            "with systemd")
        self.items = self._resolve(asked)
        self.files = {}
        self.steps = [self._step(item) for item in self.items]
        self.back = self._back()
        self._import(params["mdevctl"])
        self.files.update(persistence.files(self.items, host.which("systemctl")))
        self.texts = {path: host.read(path) for path in self.files}
        self.moved = [step for step in self.back + self.steps if step["now"] != step["target"]]
        self._check_room()
        self._refuse_held(read_machine)
        self.before, self.during = host.read(RECORD), self._record(True)
        self.after = files.render_record(self._record(False))
        self.changed = bool(self.moved or self.before != self.after or self.texts != self.files)

    # -- what to do --------------------------------------------------------------------------

    def _resolve(self, asked):
        """What is asked with ``way``, ``uuid``, ``key`` and ``state``."""
        found, taken, numbers = [], {}, collections.Counter()
        machine_id = self.host.read_attribute("/etc/machine-id")
        for item in asked:
            parent = self.parents[item["parent"]]
            parents.check(item, parent)
            item = dict(item, way=parent["ways"][0], physfn=parent["physfn"])
            for field in ("uuid", "name"):
                if item["way"] == parents.VGPU and item[field]:
                    raise ValueError("%s.%s: %s is given away itself and has none; leave it out"
                                     % (item["place"], field, item["parent"]))
            kind = self._type(item, parent)
            if item["way"] == parents.MDEV and not item["uuid"]:
                if not machine_id:
                    raise HostError("/etc/machine-id is missing or empty, and UUIDs are computed from it; run "
                                    "systemd-machine-id-setup, or give uuid")
                name = item["name"]
                if not name:
                    name = str(numbers[item["parent"], kind])
                    numbers[item["parent"], kind] += 1
                item["uuid"] = asking.device_uuid(machine_id, item["parent"], kind, name)
            item.update(key=item["uuid"] or item["parent"], state=[item["parent"], kind])
            if item["key"] in taken:
                raise ValueError("%s: %s is that of %s too; give each its own" % (
                    item["place"], item["key"], taken[item["key"]]))
            taken[item["key"]] = item["place"]
            found.append(item)
        return found

    def _type(self, item, parent):
        """The id of the type that is asked by id or by name."""
        types, word, place = parent["types"], item["type"], item["place"] + ".type"
        if item["way"] == parents.VGPU and word.isdigit():
            if not int(word):
                raise ValueError("%s: 0 is no type; take the entry out, and the function goes back to what it had" % place)
            return str(int(word))
        found = [word] if word in types else [kind for kind in sorted(types) if types[kind]["name"] == word]
        entry = self.record["devices"].get(item["parent"])
        if not found and item["way"] == parents.VGPU and entry and entry["asked"] == word:
            found = [entry["ours"][-1][1]]
        if len(found) != 1:
            more = "\nOf another type that it can have at other times, give the number" if item["way"] == parents.VGPU else ""
            raise ValueError("%s: %r is %s of %s, which has:%s%s" % (
                place, word, "the name of more than one type" if found else "neither id nor name of a type",
                item["parent"], parents.table(types), more))
        if not asking.TYPE.match(found[0]):
            raise ValueError("%s: the id %r has characters that are not for a script at boot" % (place, found[0]))
        return found[0]

    def _step(self, item):
        key, target, now = item["key"], item["state"], parents.state(self.host, item["key"])
        entry, known = self.record["devices"].get(key), [None, target]
        if entry and self._held(entry):
            raise HostError("%s: %s was part of %s: %s" % (item["place"], key, self._held(entry), STUCK))
        if entry and self._same_cards(entry):
            known += [entry["before"]] + entry["ours"]
        else:
            entry = {"before": now, "ours": [], "mdevctl": entry["mdevctl"] if entry else {}}
        if item["way"] == parents.MDEV and now not in known:
            raise ValueError("%s.uuid: there is a device %s already, %s, asked %s, and it is not one of this list; end it, "
                             "or give another uuid" % (item["place"], key, parents.shown(now), parents.shown(target)))
        return {"key": key, "item": item, "now": now, "target": target, "place": item["place"],
                "entry": dict(entry, asked=item["type"], ours=[target]), "earlier": entry["ours"]}

    def _held(self, entry):
        """The function of a recorded device that is not touched in this boot, or None."""
        return next((state[0] for state in [entry["before"]] + entry["ours"] if state and state[0] in self.stuck), None)

    def _same_cards(self, entry):
        """Whether all functions of a record are there and the cards that were recorded."""
        for address in {state[0] for state in [entry["before"]] + entry["ours"] if state}:
            card, now = self.record["cards"][address], self.parents[address]
            if not now or any(card[field] != now[field] for field in CARD):
                return False
        return True

    def _back(self):
        """Those that go back to what they were, since they are no longer asked for."""
        steps = []
        for key, entry in sorted(self.record["devices"].items()):
            if any(item["key"] == key for item in self.items):
                continue
            if self._held(entry):
                self.kept[key] = entry
                self.warnings.append("%s: it is part of %s: %s; run this again after it" % (key, self._held(entry), STUCK))
                continue
            self._return_definition(entry)
            if not self._same_cards(entry):
                self.warnings.append("%s: the card that it was part of is gone; there is nothing to give back" % key)
                continue
            now, target = parents.state(self.host, key), entry["before"]
            if now not in [None, target] + entry["ours"]:
                self.warnings.append("%s: somebody has made %s of it since; left as it is" % (key, parents.shown(now)))
                continue
            if target and not now and target[1] not in self.parents[target[0]]["types"]:
                self.warnings.append("%s: %s was there before, and its driver does not offer it now; left as it is"
                                     % (key, parents.shown(target)))
                continue
            steps.append({"key": key, "item": None, "now": now, "target": target, "entry": entry, "place": key,
                          "earlier": entry["ours"]})
        return steps

    def _return_definition(self, entry):
        for path, text in entry["mdevctl"].items():
            now = self.host.read(path)
            if now not in (None, text):
                self.warnings.append("%s: somebody has written it anew; left as it is" % path)
                text = now
            self.files[path] = text

    def _import(self, policy):
        """Definitions of mdevctl for what is asked: refused, or taken over."""
        found = mdevctl.definitions(self.host)
        for step in self.steps:
            paths = found.get(step["key"], {})
            if not paths:
                continue
            if policy != "import":
                raise HostError(mdevctl.refusal(step["item"], paths))
            why = mdevctl.obstacle(paths, step["target"])
            if why:
                raise HostError("%s: mdevctl's definition of %s cannot be taken over: %s. Undefine it, or take it off this "
                                "list" % (step["place"], step["key"], why))
            step["entry"]["mdevctl"] = step["entry"]["mdevctl"] or paths
            self.files.update(dict.fromkeys(paths))

    def _check_room(self):
        """Refuse more than the driver says is left; what only trying tells is a warning."""
        needs, frees = collections.defaultdict(list), collections.Counter()
        for step in self.moved:
            if step["target"]:
                needs[self._card(step["target"][0])].append(step)
            if step["now"]:
                frees[tuple(step["now"])] += 1
        for card, steps in sorted(needs.items()):
            unsure = len(steps) > 1 and (len({step["target"][1] for step in steps}) > 1
                                         or parents.is_function(steps[0]["key"]))
            wanted = collections.Counter(tuple(step["target"]) for step in steps)
            freed = any(self._card(address) == card for address, dummy in frees)
            for (address, kind), count in sorted(wanted.items()):
                place = next(step["place"] for step in steps if step["target"] == [address, kind])
                unsure |= self._short(place, address, kind, count - frees[address, kind], freed)
            if unsure:
                self.warnings.append("%s: whether its driver makes all of these side by side is known only by trying, since "
                                     "its types may exclude each other; if it does not, everything is put back" % card)

    def _card(self, address):
        return (self.parents[address] or {}).get("physfn") or address

    def _short(self, place, address, kind, count, freed):
        """Whether the driver does not say now that there is room for ``count``; refused unless this run frees some."""
        parent = self.parents[address]
        types, left = parent["types"], parent["types"].get(kind, {}).get("available")
        if parent["ways"] == [parents.VGPU]:
            if kind not in types and not freed:
                raise ValueError("%s.type: %s cannot be made on %s now, which can have:%s\nOther virtual functions of the "
                                 "card may have what it needs" % (place, kind, address, parents.table(types)))
            return kind not in types
        if left is None:
            raise ValueError("%s.type: how many of %s are left is not known (no available_instances), and %s has:%s"
                             % (place, kind, address, parents.table(types)))
        if count > left and not freed:
            raise ValueError("%s.type: %d more of %s are asked and %d left; %s has:%s\nOthers may have what they need, also "
                             "of other types" % (place, count, kind, left, address, parents.table(types)))
        return count > left

    def _refuse_held(self, read_machine):
        """Nothing is taken from anybody. Raises HostError that names all who hold something."""
        ends = [step for step in self.moved if step["now"]]
        if not ends:
            return
        machine = read_machine(self.host)
        blocked = [path for path in sorted(self.host.blocked) if not any(address in path for address in self.stuck)]
        if blocked:  # what was not read may be what matters
            raise HostError("nothing was changed, since reading %s did not end" % " and ".join(blocked))
        found = []
        for step in ends:
            key = step["key"]
            found += ["%s: %s" % (key, why) for why in (
                held.reasons(machine, key, []) if parents.is_function(key)
                else held.of_nodes(machine, step["now"][0], parents.nodes(self.host, key)))]
        if found:
            raise HostError("nothing was changed, since these are held: %s. Stop who holds them, and run this again"
                            % "; ".join(found))

    def _record(self, unfinished):
        """The record after the run, or while it is under way: then with all that the devices may be."""
        devices = dict(self.record["devices"] if unfinished else self.kept)
        for step in self.steps:
            earlier = [state for state in step["earlier"] if state != step["target"]] if unfinished else []
            devices[step["key"]] = dict(step["entry"], ours=earlier + [step["target"]])
        cards = {}
        for entry in devices.values():
            for state in filter(None, [entry["before"]] + entry["ours"]):
                now = self.parents.get(state[0])
                cards[state[0]] = {field: now[field] for field in CARD} if now else self.record["cards"][state[0]]
        return {"cards": cards, "devices": devices} if devices else {}

    # -- doing it ----------------------------------------------------------------------------

    def apply(self):
        """All of it or nothing. The record is on disk before the first write to sysfs; what ends, ends first."""
        ops = [(step["key"], step["now"], None) for step in self.moved if step["now"]]
        ops += [(step["key"], None, step["target"]) for step in self.moved if step["target"]]
        done, hung = [], set()
        log = live.log_lines(self.host)
        try:
            files.put(self.host, RECORD, files.render_record(self.during))
            for op in ops:
                done.append(op)
                self._put(op[0], op[1], op[2], hung)
            for step in self.back + self.steps:
                now = parents.state(self.host, step["key"])
                if now != step["target"]:
                    raise HostError("%s is %s, asked %s; somebody else changes them too" % (
                        step["key"], parents.shown(now), parents.shown(step["target"])))
            for path, text in sorted(self.files.items()):
                files.put(self.host, path, text)
            self.warnings += files.reload_systemd(self.host) + files.reload_udev(self.host)
            files.put(self.host, RECORD, self.after)
        except (HostError, OSError) as exc:
            said = live.kernel_log(self.host, log, [word for key, was, will in done for word in (key, (was or will)[0])])
            left = self._undo(done, hung)
            text = str(exc) + (". Not put back: %s; the record is kept, so that a later run can" % "; ".join(left)
                               if left else ". Everything is as it was before")
            raise HostError(text + (". The kernel said: " + " | ".join(said) if said else "")) from exc

    def _put(self, key, before, after, hung):
        try:
            parents.put(self.host, key, before, after)
        except HostTimeout:
            hung.add((before or after)[0])
            raise

    def _undo(self, done, hung):
        """Everything as it was, the last first; returns sentences about what is not."""
        left = []
        for key, was, will in reversed(done):
            if (was or will)[0] in hung:
                left.append("%s: left alone, since a write about %s did not end" % (key, (was or will)[0]))
                continue
            try:
                if parents.state(self.host, key) != was:
                    self._put(key, will, was, hung)
            except HostError as exc:
                left.append(str(exc))
        left += files.put_back(self.host, self.texts)
        if not left:
            left += files.put_back(self.host, {RECORD: self.before})
        elif hung:
            cards = {address: dict(card, stuck=self.boot) if address in hung else card
                     for address, card in self.during["cards"].items()}
            left += files.put_back(self.host, {RECORD: files.render_record(dict(self.during, cards=cards))})
        files.reload_systemd(self.host)
        files.reload_udev(self.host)
        return left

    # -- what it says ------------------------------------------------------------------------

    def result(self):
        return {
            "changed": self.changed,
            "devices": [{
                "parent": (step["target"] or step["now"] or step["entry"]["ours"][-1])[0],
                "way": parents.VGPU if parents.is_function(step["key"]) else parents.MDEV,
                "uuid": None if parents.is_function(step["key"]) else step["key"],
                "before": step["now"][1] if step["now"] else None,
                "type": step["target"][1] if step["target"] else None,
                "wanted": step["item"] is not None,
            } for step in self.steps + self.back],
            "warnings": self.warnings + self._foreign(),
            "diff": self._diff(),
        }

    def _foreign(self):
        """Warnings about units of others that make the same at each boot."""
        folder, words = FOREIGN
        found = []
        for path in [folder + "/" + name for name in self.host.listdir(folder)] if self.items else ():
            text = self.host.read(path, 1 << 16) if path not in self.files else None
            found += ["%s: says %s too; if that is about the same function, whoever comes first wins: remove it there, or "
                      "here" % (path, word) for word in words if word in (text or "")]
        return found

    def _diff(self):
        """Files, and what changes of the devices. The record is left out."""
        found = files.diff(self.texts, self.files)
        if self.moved:
            text = {which: "".join("%s: %s\n" % (step["key"], parents.shown(step[which])) for step in self.moved)
                    for which in ("now", "target")}
            found.append({"before_header": "mediated devices", "after_header": "mediated devices",
                          "before": text["now"], "after": text["target"]})
        return found
