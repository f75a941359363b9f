# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Which functions go to vfio-pci: the list for the boot, and now where nothing stands against it; and the way home."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._binding import (
    driverctl,
    identity,
    live,
    obstacles,
    persistence,
    record,
    variants,
)
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

STUCK = files.STUCK % "it"
UNWRITTEN = "%%s %s or %s could not be written: %%s. Make room there and run this again" % (asked.DEVICES, record.STATE)


@files.tidied
def run(host, params, check_mode, read_machine=None):
    """The wanted state: the list for the boot written, functions bound now or at the next boot.

    :param params: ``{devices: [identity], state: present|absent, when: now|boot|auto, driverctl: refuse|import,
        nvidia_persistence: keep|release}``.
    :param read_machine: ``host -> machine document``, called only when a function is to change its driver now.
    Returns the module's result. Raises ValueError for bad input; HostError when a function is not what was asked, when
    ``now`` is not possible, or when the transaction failed, with every file and function as before.
    """
    found = _Present(host, params) if params["state"] == "present" else _Absent(host, params)
    found.judge(params["when"], read_machine)
    found.plan_overrides()
    if not check_mode:
        found.apply()
    return found.result(check_mode)


class _Change:
    """What is, what shall be, and which functions change their driver now."""

    def __init__(self, host, params):
        self.host = host
        self.text = host.read(asked.DEVICES)
        self.state_text, self.records = record.read(host)
        self.leaving_text, leaving = record.read(host, record.LEAVING)
        self.records = dict(leaving, **self.records)
        given = params["devices"] or []
        self.given = given
        self.wanted = [
            asked.identity(variants.resolved(host, item), "devices[%d]" % index) for index, item in enumerate(given)
        ]
        self.boot = record.boot_id(host)
        self.stuck = record.stuck(self.records, self.boot)
        self.binding, self.returning, self.why = [], {}, {}
        self.drivers = {}
        self.taken, self.overrides = {}, []
        self.release, self.releasing, self.read_machine = params.get("nvidia_persistence") == "release", [], None
        self.when = "boot"

    def judge(self, when, read_machine):
        """Which functions change their driver now, and why the others do not. Raises HostError when they have to."""
        self.when = when
        bind, back = self._to_bind(), self._to_return()
        stuck = {address: [STUCK] for address in self.stuck if address in bind or address in back}
        if when == "boot":
            self.why = stuck
            return
        bind = [address for address in bind if address not in stuck]
        back = {address: old for address, old in back.items() if address not in stuck}
        # A write to driver_override alone takes a function from nobody: a guest that has it goes on.
        moved = self._moved(back)
        if bind or moved:
            self.read_machine = read_machine
            machine = read_machine(self.host)
            if self.release and self.host.which(persistence.COMMAND):
                self.releasing = persistence.held(machine, bind)
                machine = persistence.without(machine, self.releasing)
            against = dict(obstacles.to_bind(machine, bind, self._on_list(), stuck))
            homes = {address: old.get("driver") for address, old in moved.items()}
            known = dict(stuck, **self._without_driver(moved))
            against.update(obstacles.to_return(machine, homes, self._on_list(), known))
            blocked = [path for path in sorted(self.host.blocked) if not any(address in path for address in self.stuck)]
            if blocked:  # what was not read may be what matters, and is not read again here either
                unread = "reading %s did not end" % " and ".join(blocked)
                against = {address: why + [unread] for address, why in against.items()}
            self.why = {address: why for address, why in against.items() if why}
        self.why.update(stuck)
        self.binding = [item for item in self.wanted if item["address"] in bind and item["address"] not in self.why]
        self.returning = {address: old for address, old in back.items() if address not in self.why}
        self.releasing = [address for address in self.releasing if address not in self.why]
        if when == "now" and self.why:
            raise HostError("nothing was changed, since these cannot change their driver now: %s. Free them, or take "
                            "when: auto, which leaves them to the next boot" % "; ".join(
                                "%s: %s" % (address, ", ".join(why)) for address, why in sorted(self.why.items())))
        for driver in sorted({item["driver"] for item in self.binding}):
            missing = live.missing(self.host, driver)
            if missing:
                raise HostError("nothing was changed, since driver %s cannot be loaded: %s. Take vfio-pci or another that is "
                                "there, or reboot where the kernel has been updated" % (driver, missing))

    def _moved(self, back):
        """Those of ``back`` that change their driver; of the others only the override goes back to what it was."""
        return {address: old for address, old in back.items() if self.drivers[address] != old.get("driver")}

    def _without_driver(self, back):
        """Those of ``back`` that would have no driver at home, ``{address: [sentence]}``: on vfio-pci is better than that."""
        missing = {address: live.missing(self.host, old["driver"], old.get("module"))
                   for address, old in back.items() if old.get("driver")}
        return {address: ["its driver %s cannot be loaded: %s" % (back[address]["driver"], why)]
                for address, why in missing.items() if why}

    def plan_overrides(self):
        """What becomes of driverctl's files, ``[(path, text, text after)]``: taken over, or back as they were."""
        self.overrides = [(driverctl.path_of(address), text, None) for address, text in sorted(self.taken.items())]
        for address in sorted(set(self.records) - set(self._records_after() or {})):
            path, text = driverctl.path_of(address), self.records[address].get("driverctl")
            if text is not None and self.host.read(path) is None:
                self.overrides.append((path, None, text))

    def apply(self):
        """Records on disk before the first write to sysfs: a run that is killed is finished or undone by the next."""
        during, after = self._records_during(), self._records_after()
        moves = set(self.returning) | {item["address"] for item in self.binding}
        during = None if during is None else record.moving(during, moves, self.boot)
        leaving = self._leaving_after()
        try:
            if leaving is not None:
                files.put(self.host, record.LEAVING, leaving)
            self._write_state(during)
            files.put(self.host, asked.DEVICES, self._text_after())
            for path, dummy, override in self.overrides:
                if override is None:
                    self.host.remove(path)
            if self.binding:
                self._let_go()
                live.bind(self.host, self.binding, self._before())
        except (HostError, OSError) as exc:
            unlike = self._undo(during, exc)
            text = str(exc) if isinstance(exc, HostError) else UNWRITTEN % ("no function was moved, since", exc)
            raise HostError(text + (". Not as before: %s; run this again" % ", ".join(unlike) if unlike else "")) from exc
        try:
            if self.returning:
                live.give_back(self.host, self.returning)
        except live.LiveError as exc:  # the list is as wanted: a reboot gives it back too
            files.put_back(self.host, {record.STATE: record.render(self._marked(during, exc.stuck))})
            raise
        try:
            for path, dummy, override in self.overrides:
                if override is not None:
                    self.host.write(path, override)
            self._write_state(after)
            files.put(self.host, record.LEAVING, leaving)
        except (HostError, OSError) as exc:
            raise HostError(UNWRITTEN % ("every function is where it was asked, but", exc)) from exc
        failed = persistence.switch_all(self.host, self._kept_again(after or {}))
        if failed:
            raise HostError("every function is back at its driver, but: %s" % "; ".join(failed))

    def _let_go(self):
        """Have NVIDIA's daemon let go of what is to be bound, and see that nobody else came meanwhile."""
        if not self.releasing:
            return
        for address in self.releasing:
            persistence.switch(self.host, address, False)
        binding = [item["address"] for item in self.binding]
        against = obstacles.to_bind(self.read_machine(self.host), binding, self._on_list(), self.why)
        held = ["%s: %s" % (a, ", ".join(why)) for a, why in sorted(against.items()) if why and a not in self.why]
        if held:
            raise HostError("nothing was bound: after %s had let go of %s, %s" % (
                persistence.DAEMON, " and ".join(self.releasing), "; ".join(held)))

    def _kept_again(self, after):
        """What NVIDIA's daemon keeps again: functions that come home, and those that never left when it had let go of them."""
        return [address for address, old in sorted(self.records.items()) if address not in after and old.get("persistence")
                and (address in self.returning or self.boot and old.get("returning") == self.boot
                     and identity.driver_of(self.host, address) == old.get("driver"))]

    def _undo(self, during, exc):
        """The files as before, as far as the functions are (``exc`` says what of them is not); returns paths of those not."""
        left, stuck = getattr(exc, "left", []), getattr(exc, "stuck", set())
        persistence.switch_all(self.host, [item["address"] for item in self.binding if item["address"] not in stuck
                                           and during[item["address"]].get("persistence")])
        texts = {path: text for path, text, dummy in self.overrides}
        texts[record.STATE] = record.render(self._marked(during, stuck)) if left else self.state_text
        texts[asked.DEVICES] = self.text
        texts[record.LEAVING] = self.leaving_text
        unlike = files.put_back(self.host, texts)
        for folder in (asked.ASKED_FOLDER, asked.STATE_FOLDER):
            self.host.remove_empty_folder(folder)
        return unlike

    def _marked(self, records, stuck):
        return {address: dict(old, stuck=self.boot) if address in stuck else old for address, old in records.items()}

    def _write_state(self, records):
        files.put(self.host, record.STATE, record.render(records) if records is not None else None)

    def _leaving_after(self):
        """What the next boot gives back although nothing of ours will be on the disk: only this boot needs to know."""
        return None

    def _driver(self, address, check_mode):
        """The driver it has, in check mode the one it would have."""
        if not check_mode:
            return identity.driver_of(self.host, address)
        if address in self.returning:
            return self.returning[address].get("driver")
        for item in self.binding:
            if item["address"] == address:
                return live.registered(self.host, item["driver"]) or item["driver"]
        return identity.driver_of(self.host, address)

    def result(self, check_mode):
        functions = self._functions(check_mode)
        after = self._records_after()
        state_after = None if after is None else record.render(after)
        diff = self._diff_of_files(state_after) + self._diff_of_drivers(check_mode)
        return {
            "changed": bool(diff),
            "functions": functions,
            "deferred": [{"address": address, "why": why} for address, why in sorted(self.why.items())],
            "content": self._text_after() or "",
            "reboot_required": self._reboot_required(functions),
            "diff": diff,
        }

    def _diff_of_files(self, state_after):
        changes = [(asked.DEVICES, self.text, self._text_after()), (record.STATE, self.state_text, state_after),
                   (record.LEAVING, self.leaving_text, self._leaving_after())]
        changes += self.overrides
        return files.diff({path: before for path, before, dummy in changes}, {path: after for path, dummy, after in changes})

    def _diff_of_drivers(self, check_mode):
        """Who is on which driver, of the functions that change it."""
        moved = sorted([item["address"] for item in self.binding] + list(self._moved(self.returning)))
        if not moved:
            return []
        before = "".join("%s %s\n" % (address, self.drivers[address] or "no driver") for address in moved)
        after = "".join("%s %s\n" % (address, self._driver(address, check_mode) or "no driver") for address in moved)
        return [{"before_header": "drivers", "after_header": "drivers", "before": before, "after": after}]


class _Present(_Change):
    def __init__(self, host, params):
        super().__init__(host, params)
        self.content = asked.render(self.wanted)
        self.live = {item["address"]: identity.read_function(host, item["address"]) for item in self.wanted}
        problems = []
        for item, raw in zip(self.wanted, self.given):
            device_class = (raw.get("class") or "").lower() or None
            problems.extend(identity.mismatches(item, self.live[item["address"]], device_class))
        if problems:
            raise HostError(
                "nothing was changed, since these are not what was asked: %s. "
                "Cards may have moved: read the machine again and plan again" % "; ".join(problems)
            )
        both = obstacles.both_listed(host.read(obstacles.sriov.LIST), [item["address"] for item in self.wanted])
        if both:
            raise HostError("nothing was changed: %s" % "; ".join(both))
        self.taken = driverctl.overrides(host, [item["address"] for item in self.wanted])
        if self.taken and params.get("driverctl") != "import":
            raise HostError(driverctl.refusal(self.taken))
        self.now = {
            item["address"]: record.as_it_is(host, item["address"]) if item["address"] not in self.stuck
            else dict(self.records[item["address"]]) for item in self.wanted
        }
        self.released = record.still_given(host, self.records, {item["address"] for item in self.wanted} | self.stuck)
        self.merged = record.merge(self.records, self.wanted, self.now, record.before_trial(host))
        for address, text in self.taken.items():
            self.merged[address] = dict(self.merged[address], driverctl=text)
        self.drivers = {address: self.now[address]["driver"] for address in self.now}
        self.drivers.update({address: identity.driver_of(host, address) for address in self.released})

    def _to_bind(self):
        return [item["address"] for item in self.wanted
                if not _bound(self.live[item["address"]]["driver"], item["driver"])]

    def _to_return(self):
        return self.released

    def _on_list(self):
        return {item["address"] for item in self.wanted}

    def _before(self):
        """What each function was; where a run did not end, what it was before that one."""
        return {address: self.merged[address] if record.unfinished(self.merged[address], now, self.boot) else now
                for address, now in self.now.items()}

    def _text_after(self):
        return self.content

    def _records_during(self):
        return dict(self._merged(), **self.released)

    def _merged(self):
        return dict(self.merged, **{a: dict(self.merged[a], persistence=True) for a in self.releasing})

    def _records_after(self):
        there = {item["address"] for item in self.wanted
                 if item in self.binding or _bound(self.now[item["address"]]["driver"], item["driver"])}
        left = {address: old for address, old in self.released.items() if address not in self.returning}
        return dict(record.settled(self._merged(), there), **left)

    def _functions(self, check_mode):
        functions = []
        for item, raw in sorted(zip(self.wanted, self.given), key=lambda pair: pair[0]["address"]):
            driver = self._driver(item["address"], check_mode)
            functions.append({
                "address": item["address"], "name": raw.get("name"), "driver": driver, "wanted": item["driver"],
                "bound": _bound(driver, item["driver"]),
            })
        return functions

    def _reboot_required(self, functions):
        return len(self.returning) < len(self.released) or not all(function["bound"] for function in functions)


class _Absent(_Change):
    def __init__(self, host, params):
        super().__init__(host, params)
        listed = set(self.records) | {item["address"] for item in self.wanted}
        if self.text is not None:
            try:
                listed |= {item["address"] for item in asked.parse(self.text)}
            except ValueError:
                pass  # it goes anyway; the record names the functions too
        self.listed = sorted(listed)
        self.away = record.still_given(host, self.records, self.stuck)
        self.away.update({address: self.records[address] for address in self.stuck})
        self.drivers = {address: identity.driver_of(host, address) for address in self.listed}

    def _to_bind(self):
        return []

    def _to_return(self):
        return self.away

    def _on_list(self):
        return set()

    def _text_after(self):
        return None

    def _records_during(self):
        return self.records if self.returning else self._records_after()

    def _records_after(self):
        """Of a function that a guest still has the record is kept, so that the next run can give it back."""
        left = {address: old for address, old in self.away.items() if address not in self.returning}
        return left if left and self.when != "boot" else None

    def _leaving_after(self):
        left = {address: {field: value for field, value in old.items() if field != "driverctl"}  # its file is there again
                for address, old in self.away.items()}
        return record.render(left) if left and self.when == "boot" else None

    def _functions(self, check_mode):
        functions = []
        for address in self.listed:
            driver = self._driver(address, check_mode)
            functions.append({
                "address": address, "name": None, "driver": driver, "wanted": self.records.get(address, {}).get("driver"),
                "bound": asked.is_vfio(driver),
            })
        return functions

    def _reboot_required(self, functions):
        return any(function["bound"] for function in functions) or len(self.returning) < len(self.away)


def _bound(driver, wanted):
    return driver is not None and asked.module_of(driver) == asked.module_of(wanted)
