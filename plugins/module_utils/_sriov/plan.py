# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is to be done for the virtual functions that are asked for, and what stands in the way."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._binding import driverctl
from ansible_collections.vfio.host.plugins.module_utils._binding.record import as_it_is, boot_id, stuck
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._sriov import (
    held,
    persistence,
    physical,
    prediction,
    record,
    wanted as asking,
)

STUCK = files.STUCK % "it or a virtual function of it"


class Plan:
    """What is, what shall be, and the steps between. Only reads."""

    def __init__(self, host, params, read_machine):
        self.host = host
        self.warnings = []
        self.wanted = asking.check((params["functions"] or []) if params["state"] == "present" else [])
        self.records = record.read(host)
        self.boot = boot_id(host)
        self.stuck = {address: self.records[address] for address in stuck(self.records, self.boot)}
        self.later = dict(self.stuck)  # records that another run will need
        for item in self.wanted:
            if item["address"] in self.stuck:  # reading some of it would not end either
                raise HostError("%s.address: %s: %s" % (item["place"], item["address"], STUCK))
        known = {item["address"] for item in self.wanted}.union(self.records).difference(self.stuck)
        at_boot = known.intersection(asking.listed(host.read(asking.LIST)))
        files.wait_for_units(host, [persistence.unit(address) for address in sorted(at_boot, key=sort_key)])
        self.now = {item["address"]: physical.read(host, item["address"]) for item in self.wanted}
        for item in self.wanted:
            physical.check(item, self.now[item["address"]])
        self._check_list()
        self._check_commands()
        self.steps = [self._step(item) for item in self.wanted]
        self.back = self._back()
        self.machine = read_machine(host) if self.steps or self.back else None
        alone = set(self.stuck).union(*(physical.virtual(host, address).values() for address in self.stuck))
        blocked = [path for path in sorted(host.blocked) if not any(address in path for address in alone)]
        if blocked:  # what was not read may be what matters
            raise HostError("nothing was changed, since reading %s did not end" % " and ".join(blocked))
        self._predict(params["allow_shared_group"])
        for step in self.steps:
            refuse_overrides(host, step)
        self._decide()
        self._refuse_held()
        self.files = persistence.files(self.wanted, host.which("systemctl"))
        self.texts = {path: host.read(path) for path in self.files}
        self.bare = {step["address"]: self._bare(step["record"], step["item"]) for step in self.steps}
        old = {address: dict({key: entry[key] for key in ("vendor", "device", "numvfs", "autoprobe", "wanted", "ours")},
                             counts=entry.get("counts", []))
               for address, entry in self.records.items() if address not in self.later}
        moved = any(step["moves"] for step in self.steps + self.back)
        self.file_changes = [path for path in self.files
                             if self.texts[path] != self.files[path] or self.mode_is_off(path)]
        self.changed = bool(moved or self.file_changes or old != self.bare)

    def _check_list(self):
        """No physical function that makes some goes to a driver for guests at the next boot. Raises ValueError."""
        for item in self.wanted:
            line = self._listed(item["address"]) if item["count"] else None
            if line:
                raise ValueError(
                    "%s.address: %s is in %s, so the next boot gives it to %s and it makes no virtual functions; the "
                    "physical function has to stay with the host, so take it off the list of vfio.host.vfio_binding"
                    % (item["place"], item["address"], asked.DEVICES, line["driver"]))

    def _listed(self, address):
        """The line about a physical function in the list of what the next boot gives to guests, or None. Raises ValueError."""
        way = asked.path_of(self.host.readlink(physical.DEVICES + address))
        return next((line for line in asked.parse(self.host.read(asked.DEVICES) or "") if line["address"] == address
                     or line["path"] is not None and line["path"] == way), None)

    def _check_commands(self):
        if any(item["count"] for item in self.wanted) and not self.host.which("systemctl"):
            raise HostError("systemctl is not installed, so the virtual functions would be gone after a reboot; this "
                            "needs a host with systemd")
        for item in self.wanted:
            vf = next((vf for vf in item["vfs"] if _asks(vf)), None)
            if vf and not self.host.which("ip"):
                raise HostError("%s: ip is not installed, which sets it; install iproute2" % vf["place"])

    def _step(self, item):
        """What becomes of one wanted physical function; ``moves`` and predictions come later."""
        address, now = item["address"], self.now[item["address"]]
        entry = self.records.get(address)
        vf_drivers = {vf: as_it_is(self.host, vf) for vf in now["vfs"].values()}
        nic = self._nic(item)
        told = physical.read_all_settings(self.host, nic, now["vfs"]) if nic and now["numvfs"] else {}
        if not record.same_card(entry, now):
            entry = {
                "vendor": now["vendor"], "device": now["device"], "numvfs": now["numvfs"],
                "autoprobe": now["autoprobe"], "wanted": item["count"], "settings": {}, "ours": {},
                "drivers": vf_drivers, "found": {str(index): values for index, values in told.items()},
                "kept": self.boot,
            }
        count = item["count"]
        recreate = now["numvfs"] != count
        if not recreate and sorted(now["vfs"]) != list(range(count)):
            raise HostError("%s: it says that it has %d virtual functions, and %d are there; run this again, or reload its driver"
                            % (address, count, len(now["vfs"])))
        autoprobe = entry["autoprobe"] if not count else asking.autoprobe(item["vfs"])
        if physical.makes_none(now["driver"]):  # none are asked and none are there; whoever has it is let alone
            autoprobe = now["autoprobe"]
        return {"address": address, "item": item, "now": now, "record": record.begun(entry, count, not recreate),
                "count": count, "nic": nic, "told": told, "recreate": recreate, "place": item["place"],
                "autoprobe": now["autoprobe"] if now["autoprobe"] is None else autoprobe, "drivers": vf_drivers}

    def _nic(self, item):
        vf = next((vf for vf in item["vfs"] if _asks(vf)), None)
        try:
            name = physical.interface(self.host, item["address"]) if self.host.which("ip") else None
        except HostError:
            if vf:
                raise
            return None
        if name is None and vf:
            raise ValueError("%s.%s: %s has no network interface, so there is nothing to set it with; leave it out"
                             % (vf["place"], _asks(vf), item["address"]))
        return name

    def _back(self):
        """Physical functions that go back to what they were, since they are no longer asked for."""
        steps = []
        named = {item["address"] for item in self.wanted}
        self.warnings += ["%s: %s; run this again after it" % (address, STUCK) for address in sorted(self.stuck)]
        for address in sorted(set(self.records) - named - set(self.stuck), key=sort_key):
            entry, now = self.records[address], physical.read(self.host, address)
            if not record.same_card(entry, now) or now["numvfs"] is None:
                self.warnings.append("%s: the card that was there is gone; there is nothing to give back" % address)
                continue
            if now["numvfs"] not in record.counts(entry):
                self.warnings.append("%s: %d virtual functions were asked for and there are %d, so somebody has set "
                                     "them since; left as they are" % (address, entry["wanted"], now["numvfs"]))
                continue
            why = self._away(address, entry, now)
            if why:
                self.warnings.append("%s: %s, so what it had before does not come back yet, and its record is kept; run this "
                                     "again once it is the host's again" % (address, why))
                self.later[address] = entry
                continue
            nic = physical.interface(self.host, address) if entry["ours"] or entry["found"] else None
            recreate = now["numvfs"] != entry["numvfs"]
            steps.append({
                "address": address, "item": None, "now": now, "count": entry["numvfs"], "nic": nic,
                "record": dict(entry, kept=None if recreate else entry.get("kept")),
                "told": physical.read_all_settings(self.host, nic, now["vfs"]) if nic and now["numvfs"] else {},
                "recreate": recreate, "autoprobe": entry["autoprobe"], "place": address,
                "drivers": {vf: as_it_is(self.host, vf) for vf in now["vfs"].values()},
            })
        return steps

    def _away(self, address, entry, now):
        """Why a physical function cannot have again what it had, or None. Raises ValueError."""
        if not entry["numvfs"] and not now["numvfs"] and entry["autoprobe"] == now["autoprobe"]:
            return None  # it has
        if physical.makes_none(now["driver"]):
            return "it is on %s" % (now["driver"] or "no driver")
        line = self._listed(address) if entry["numvfs"] not in (0, now["numvfs"]) else None
        return "%s gives it to %s at the next boot" % (asked.DEVICES, line["driver"]) if line else None

    def _predict(self, allow_shared):
        """Addresses and groups of the virtual functions, and which of them no guest could use."""
        made, gone = {}, set()
        functions = {f["address"]: f for f in self.machine["functions"]} if self.machine else {}
        for step in self.steps:
            if step["address"] not in functions:
                raise HostError("%s: the machine document does not have %s" % (step["place"], step["address"]))
        for step in self.steps + self.back:
            if step["recreate"]:
                gone |= set(step["now"]["vfs"].values())
        for step in self.steps:
            address, item = step["address"], step["item"]
            step["vfs"] = dict(step["now"]["vfs"])
            if not step["recreate"]:
                continue
            function = functions[address]
            step["vfs"] = {}
            if not step["count"]:
                continue
            try:
                found = prediction.addresses(function, step["count"])
            except ValueError as exc:
                raise ValueError("%s.count: where the virtual functions of %s will be is not known: %s"
                                 % (step["place"], address, exc)) from exc
            why = prediction.room(self.machine, function, found)
            if why:
                raise ValueError("%s.count: %d is too many for %s here: %s"
                                 % (step["place"], item["count"], address, why))
            made[address] = found
            step["vfs"] = dict(enumerate(found))
        groups = prediction.predict(self.machine, made, gone) if made else {}
        there = [vf for step in self.steps if not step["recreate"] for vf in step["vfs"].values()]
        groups.update(prediction.existing(self.machine, there) if there else {})
        self.groups = groups
        self._judge(functions, allow_shared)

    def _judge(self, functions, allow_shared):
        """Refuse what no guest could use; where that is accepted, what would spoil a group gets no driver."""
        ours = {step["vfs"][vf["index"]] for step in self.steps for vf in step["item"]["vfs"]
                if vf["driver"] != asking.HOST}
        for step in self.steps:
            vfs = step["item"]["vfs"]
            if functions[step["address"]]["group"] is None and any(vf["driver"] != asking.HOST for vf in vfs):
                raise ValueError("%s: %s has no IOMMU group, so no guest could get its virtual functions: the IOMMU is "
                                 "off. Turn it on (vfio.host.kernel_cmdline), or take driver: host"
                                 % (step["place"], step["address"]))
            for vf in step["item"]["vfs"]:
                address = step["vfs"][vf["index"]]
                group = self.groups[address]
                group["isolated"] = prediction.isolated(address, group)
                if vf["driver"] == asking.HOST or group["isolated"]:
                    continue
                others = [member for member in group["members"] if member != address]
                spoilt = prediction.in_the_way(self.machine, address, group["members"], ours)
                said = ("shares its IOMMU group with %s" % some(others) if others
                        else "may share its IOMMU group with others")
                if not allow_shared:
                    raise ValueError(
                        "%s: virtual function %d (%s) %s: %s. A guest could not have it alone; put the card behind a "
                        "port that isolates, take driver: host, or accept it with allow_shared_group: true" % (
                            vf["place"], vf["index"], address, said, "; ".join(group["reasons"])))
                if spoilt:
                    vf["driver"] = None
                    said += ", and %s stay with the host, so no guest can use it; it gets no driver" % some(spoilt)
                self.warnings.append("%s: virtual function %d (%s) %s" % (vf["place"], vf["index"], address, said))

    def _decide(self):
        """``settings``, ``binds``, ``frees`` and ``moves`` of every step."""
        for step in self.steps:
            item, entry = step["item"], step["record"]
            step["settings"], step["binds"], step["frees"], step["probes"] = {}, [], [], []
            for vf in item["vfs"]:
                index, address = vf["index"], step["vfs"][vf["index"]]
                target = {name: vf[name] for name in asking.SETTINGS}
                if not step["recreate"]:
                    was = entry["settings"].get(str(index), {})
                    for name in entry["ours"].get(str(index), []):
                        target[name] = was.get(name) if target[name] is None else target[name]
                    if any(value is not None for value in target.values()) and index not in step["told"]:
                        raise HostError("%s: %s does not tell what virtual function %d has" % (
                            vf["place"], step["nic"], index))
                    target = physical.differing(target, step["told"].get(index, {}))
                else:
                    target = {name: value for name, value in target.items() if value is not None}
                if target:
                    step["settings"][index] = target
                self._driver_step(step, vf, address)
            step["moves"] = bool(step["recreate"] or step["settings"] or step["binds"] or step["frees"]
                                 or step["autoprobe"] != step["now"]["autoprobe"])
        for step in self.back:
            entry = step["record"]
            step["settings"] = {int(index): dict(values) for index, values in entry["found"].items()}
            if step["nic"] is None:
                step["settings"] = {}  # nothing is there any more to set them with
            elif not step["recreate"]:
                step["settings"] = self._as_before(entry, step["told"])
            step["restores"] = {vf: was for vf, was in entry["drivers"].items()
                                if step["recreate"] and entry["numvfs"] or step["drivers"].get(vf, was) != was}
            step["moves"] = bool(step["recreate"] or step["settings"] or step["restores"]
                                 or step["autoprobe"] != step["now"]["autoprobe"])

    def _as_before(self, entry, told):
        """Settings that virtual functions which are there already lack to be what was before, ``{index: {...}}``."""
        lacking = {}
        for index, now in told.items():
            was = entry["settings"].get(str(index), {})
            target = {name: was.get(name) for name in entry["ours"].get(str(index), [])}
            if not self.boot or entry.get("kept") != self.boot:  # not those that were there before, so all of it counts
                target.update(entry["found"].get(str(index), {}))
            lacking[index] = physical.differing(target, now)
        return {index: values for index, values in lacking.items() if values}

    def _driver_step(self, step, vf, address):
        now = None if step["recreate"] else step["drivers"][address]
        if vf["driver"] is None:
            return
        if vf["driver"] == asking.HOST:
            if now is None and step["autoprobe"] is False:
                step["probes"].append(address)
            elif now and (asked.is_vfio(now["driver"]) or asked.is_vfio(now["override"])):
                step["frees"].append(address)
        elif now is None or now["driver"] is None or asked.module_of(now["driver"]) != asked.module_of(vf["driver"]):
            step["binds"].append({"address": address, "driver": vf["driver"]})

    def _refuse_held(self):
        """Nothing is taken from anybody. Raises HostError that names all who hold something."""
        found = []
        for step in self.steps + self.back:
            if step["recreate"]:
                touched = sorted(step["now"]["vfs"].values(), key=sort_key)
            else:
                touched = {step["now"]["vfs"][index] for index in step["settings"] if index in step["now"]["vfs"]}
                touched |= {item["address"] for item in step.get("binds", [])} | set(step.get("frees", []))
                touched |= set(step.get("restores", {})) & set(step["drivers"])
                touched = sorted(touched, key=sort_key)
            if step["recreate"] and len(touched) != step["now"]["numvfs"]:
                found.append("%s has %d virtual functions, of which %d can be seen" % (
                    step["address"], step["now"]["numvfs"], len(touched)))
            for address in touched:
                found += ["%s: %s" % (address, why) for why in held.reasons(
                    self.machine, address, physical.interfaces_of(self.host, address))]
            if step["recreate"]:
                self._warn_of_link(step)
        if found:
            raise HostError("nothing was changed, since these virtual functions are held: %s. Stop who holds them, and "
                            "run this again" % "; ".join(found))

    def _warn_of_link(self, step):
        function = next((f for f in self.machine["functions"] if f["address"] == step["address"]), None)
        uses = [use["what"] for use in (function or {}).get("used_by", []) if use["kind"] == "network"]
        if uses:
            self.warnings.append("%s carries %s; its link may be down for seconds while its virtual functions change"
                                 % (step["address"], ", ".join(uses)))

    @staticmethod
    def _bare(entry, item):
        """What is compared of a record: the rest is only known once virtual functions are there."""
        ours = {str(vf["index"]): [name for name in asking.SETTINGS if vf[name] is not None] for vf in item["vfs"]}
        return {"vendor": entry["vendor"], "device": entry["device"], "numvfs": entry["numvfs"],
                "autoprobe": entry["autoprobe"], "wanted": item["count"], "counts": [],
                "ours": {index: names for index, names in ours.items() if names}}

    def mode_is_off(self, path):
        stat = self.host.stat(path) if self.files[path] is not None else None
        return stat is not None and stat.st_mode & 0o777 != persistence.MODES.get(path, 0o644)


def refuse_overrides(host, step):
    """Raise HostError where driverctl gives a virtual function another driver than is asked, before we can."""
    drivers = {step["vfs"][vf["index"]]: vf["driver"] for vf in step["item"]["vfs"]}
    found = {address: text.strip() for address, text in driverctl.overrides(host, drivers).items()}
    others = [address for address in sorted(found, key=sort_key) if not _agrees(found[address], drivers[address])]
    if others:
        raise HostError("%s: driverctl decides about virtual functions of %s already: %s. Run %s (or remove the file of one "
                        "that is not there), or ask for that driver" % (
                            step["place"], step["address"],
                            ", ".join("%s (%s: %s)" % (address, driverctl.path_of(address), found[address])
                                      for address in others),
                            " and ".join("driverctl unset-override %s" % address for address in others)))


def _agrees(override, driver):
    """Whether an override of driverctl's does what is asked; ``host`` is any driver that is the host's."""
    if driver == asking.HOST:
        return not asked.is_vfio(override)
    return driver is not None and asked.module_of(override) == asked.module_of(driver)


def _asks(vf):
    """Name of the first setting that is asked of a virtual function, or None."""
    return next((name for name in asking.SETTINGS if vf[name] is not None), None)


def some(addresses):
    return ", ".join(addresses[:4]) + (" and %d more" % (len(addresses) - 4) if len(addresses) > 4 else "")
