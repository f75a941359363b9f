# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Virtual functions as wanted: their number, settings and drivers, now and at each boot; and the way home.

A physical function's count goes 0 -> N -> 0: the kernel takes another number only from 0, which ends the virtual
functions that are there. So nothing is done while somebody has one of these.
"""

from __future__ import annotations

import time

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._binding import live
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import driver_of
from ansible_collections.vfio.host.plugins.module_utils._binding.record import as_it_is
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from ansible_collections.vfio.host.plugins.module_utils._sriov import (
    held,
    persistence,
    physical,
    prediction,
    record,
    wanted as asking,
)

COUNT_TIMEOUT = 60.0
"""Seconds that the kernel may take to make or end the virtual functions of one card."""

APPEAR_TIMEOUT = 20.0
"""Seconds that these may take to appear after that."""

FOREIGN = (
    ("/etc/udev/rules.d", "sriov_numvfs"), ("/etc/sysfs.d", "sriov_numvfs"), ("/etc/systemd/system", "sriov_numvfs"),
    ("/etc/systemd/network", "SR-IOVVirtualFunctions"), ("/etc/NetworkManager/system-connections", "[sriov]"),
)
"""Where others set the same at each boot, and the word that tells."""


def run(host, params, check_mode, read_machine):
    """Bring the virtual functions to what ``params`` asks; the module's result.

    :param params: ``{functions, state, allow_shared_group}``.
    :param read_machine: ``host -> machine document``.
    Raises ValueError for bad input and for what would share a group, HostError when something is held or a step failed;
    then everything is as before, or the message says what is not.
    """
    change = _Change(host, params, read_machine)
    if change.changed and not check_mode:
        change.apply()
    return change.result()


class _Change:
    """What is, what shall be, and the steps between."""

    def __init__(self, host, params, read_machine):
        self.host = host
        self.warnings = []
        self.wanted = asking.check((params["functions"] or []) if params["state"] == "present" else [])
        self.records = record.read(host)
        self.now = {item["address"]: physical.read(host, item["address"]) for item in self.wanted}
        for item in self.wanted:
            physical.check(item, self.now[item["address"]])
        self._check_commands()
        self.steps = [self._step(item) for item in self.wanted]
        self.back = self._back()
        self.machine = read_machine(host) if self.steps or self.back else None
        blocked = sorted(host.blocked)
        if blocked:  # what was not read may be what matters
            raise HostError("nothing was changed, since reading %s did not end" % " and ".join(blocked))
        self._predict(params["allow_shared_group"])
        self._decide()
        self._refuse_held()
        self.files = persistence.files(self.wanted, host.which("systemctl"))
        self.texts = {path: host.read(path) for path in self.files}
        self.bare = {step["address"]: self._bare(step["record"], step["item"]) for step in self.steps}
        old = {address: {key: entry[key] for key in ("vendor", "device", "numvfs", "autoprobe", "wanted", "ours")}
               for address, entry in self.records.items()}
        moved = any(step["moves"] for step in self.steps + self.back)
        self.file_changes = [path for path in self.files
                             if self.texts[path] != self.files[path] or self._mode_is_off(path)]
        self.changed = bool(moved or self.file_changes or old != self.bare)
        self.during = {}

    # -- what to do --------------------------------------------------------------------------

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
        told = physical.read_settings(self.host, nic) if nic and now["numvfs"] else {}
        if not record.same_card(entry, now):
            entry = {
                "vendor": now["vendor"], "device": now["device"], "numvfs": now["numvfs"],
                "autoprobe": now["autoprobe"], "wanted": item["count"], "settings": {}, "ours": {},
                "drivers": vf_drivers, "found": {str(index): values for index, values in told.items()},
            }
        count = item["count"]
        recreate = now["numvfs"] != count
        if not recreate and sorted(now["vfs"]) != list(range(count)):
            raise HostError("%s: it says that it has %d virtual functions, and %d are there; reload its driver"
                            % (address, count, len(now["vfs"])))
        autoprobe = entry["autoprobe"] if not count else asking.autoprobe(item["vfs"])
        return {"address": address, "item": item, "now": now, "record": entry, "count": count, "nic": nic, "told": told,
                "recreate": recreate, "autoprobe": now["autoprobe"] if now["autoprobe"] is None else autoprobe,
                "drivers": vf_drivers, "place": item["place"]}

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
        for address in sorted(set(self.records) - named, key=sort_key):
            entry, now = self.records[address], physical.read(self.host, address)
            if not record.same_card(entry, now) or now["numvfs"] is None:
                self.warnings.append("%s: the card that was there is gone; there is nothing to give back" % address)
                continue
            if now["numvfs"] not in (0, entry["wanted"], entry["numvfs"]):
                self.warnings.append("%s: %d virtual functions were asked for and there are %d, so somebody has set "
                                     "them since; left as they are" % (address, entry["wanted"], now["numvfs"]))
                continue
            nic = physical.interface(self.host, address) if entry["ours"] or entry["found"] else None
            steps.append({
                "address": address, "item": None, "now": now, "record": entry, "count": entry["numvfs"], "nic": nic,
                "told": physical.read_settings(self.host, nic) if nic and now["numvfs"] else {},
                "recreate": now["numvfs"] != entry["numvfs"], "autoprobe": entry["autoprobe"], "place": address,
                "drivers": {vf: as_it_is(self.host, vf) for vf in now["vfs"].values()},
            })
        return steps

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
                said = ("shares its IOMMU group with %s" % _some(others) if others
                        else "may share its IOMMU group with others")
                if not allow_shared:
                    raise ValueError(
                        "%s: virtual function %d (%s) %s: %s. A guest could not have it alone; put the card behind a "
                        "port that isolates, take driver: host, or accept it with allow_shared_group: true" % (
                            vf["place"], vf["index"], address, said, "; ".join(group["reasons"])))
                if spoilt:
                    vf["driver"] = None
                    said += ", and %s stay with the host, so no guest can use it; it gets no driver" % _some(spoilt)
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
            step["settings"] = {int(index): values for index, values in entry["found"].items()}
            if step["nic"] is None:
                step["settings"] = {}  # nothing is there any more to set them with
            elif not step["recreate"]:
                step["settings"] = {int(index): values for index, values in (
                    (index, physical.differing({name: entry["settings"].get(index, {}).get(name) for name in names},
                                               step["told"].get(int(index), {})))
                    for index, names in entry["ours"].items() if int(index) in step["told"]) if values}
            step["restores"] = {vf: was for vf, was in entry["drivers"].items()
                                if step["recreate"] and entry["numvfs"] or step["drivers"].get(vf, was) != was}
            step["moves"] = bool(step["recreate"] or step["settings"] or step["restores"]
                                 or step["autoprobe"] != step["now"]["autoprobe"])

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
                "autoprobe": entry["autoprobe"], "wanted": item["count"],
                "ours": {index: names for index, names in ours.items() if names}}

    def _mode_is_off(self, path):
        stat = self.host.stat(path) if self.files[path] is not None else None
        return stat is not None and stat.st_mode & 0o777 != persistence.MODES.get(path, 0o644)

    # -- doing it ----------------------------------------------------------------------------

    def apply(self):
        """All of it or nothing. The record is on disk before the first write to sysfs."""
        self.during = dict(self.records)
        for step in self.steps:
            self.during[step["address"]] = dict(step["record"], wanted=step["count"])
        stuck, touched = set(), []
        since = float((self.host.read("/proc/uptime") or "0").split()[0])
        try:
            record.write(self.host, self.during)
            for step in self.back + self.steps:
                if step["moves"]:
                    touched.append(step)
                    self._make(step, stuck)
            for step in self.back + self.steps:
                self._set(step)
            self._bind()
            self._give(stuck)
            self._read_back()
            self._write_files(self.files)
            record.write(self.host, {step["address"]: dict(
                step["record"], **{key: self.bare[step["address"]][key] for key in ("wanted", "ours")})
                for step in self.steps})
        except (HostError, OSError) as exc:
            said = live.kernel_log(self.host, since, [step["address"] for step in touched])
            stuck |= set(getattr(exc, "stuck", ()))
            left = self._undo(touched, stuck)
            text = str(exc) + (". Not put back: %s; the record is kept, so that a later run can" % "; ".join(left)
                               if left else ". Everything is as it was before")
            raise HostError(text + (". The kernel said: " + " | ".join(said) if said else "")) from exc

    def _write_sysfs(self, address, name, value, stuck):
        try:
            self.host.write_sysfs("%s%s/%s" % (physical.DEVICES, address, name), value, COUNT_TIMEOUT)
        except HostTimeout:
            stuck.add(address)
            raise

    def _probe(self, address, stuck):
        try:
            self.host.write_sysfs(live.PROBE, address)
        except HostTimeout:
            stuck.add(address)
            raise

    def _make(self, step, stuck):
        """Autoprobe and the count of one physical function, 0 first; its virtual functions are there afterwards."""
        address, now = step["address"], step["now"]
        if step["autoprobe"] is not None and step["autoprobe"] != now["autoprobe"]:
            self._write_sysfs(address, "sriov_drivers_autoprobe", "%d" % step["autoprobe"], stuck)
        if step["recreate"]:
            self._count(address, step["count"], stuck)
            if step["item"]:
                self._found(step)

    def _count(self, address, count, stuck):
        if physical.number(self.host, address, "sriov_numvfs"):
            self._write_sysfs(address, "sriov_numvfs", "0", stuck)
        if count:
            try:
                self._write_sysfs(address, "sriov_numvfs", str(count), stuck)
            except HostTimeout:
                raise
            except HostError as exc:
                driver = driver_of(self.host, address)
                more = ": driver %s makes no virtual functions (it has no sriov_configure)" % driver
                raise HostError(str(exc) + (more if "No such file" in str(exc) else "")) from exc
        end = time.monotonic() + APPEAR_TIMEOUT
        while sorted(physical.virtual(self.host, address)) != list(range(count)):
            if time.monotonic() > end:
                raise HostError("%s: %d virtual functions were asked for, and %d are there after %g s" % (
                    address, count, len(physical.virtual(self.host, address)), APPEAR_TIMEOUT))
            time.sleep(0.1)

    def _found(self, step):
        """Take what the card made for what was predicted, and tell where that differs."""
        really = physical.virtual(self.host, step["address"])
        other = sorted(index for index in really if really[index] != step["vfs"][index])
        if not other:
            return
        self.warnings.append("%s: virtual function %d is at %s, and %s was predicted; the card numbers them anew when "
                             "their count changes"
                             % (step["address"], other[0], really[other[0]], step["vfs"][other[0]]))
        renamed = {step["vfs"][index]: address for index, address in really.items()}
        for index, address in really.items():
            old = self.groups[step["vfs"][index]]
            self.groups[address] = dict(old, members=sorted((renamed.get(m, m) for m in old["members"]), key=sort_key))
        for bind in step["binds"]:
            bind["address"] = renamed[bind["address"]]
        step["probes"] = [renamed[address] for address in step["probes"]]
        step["vfs"] = really

    def _set(self, step):
        """Settings of the virtual functions of one physical function, what they were kept in the record, read back."""
        if not step["settings"]:
            return
        told = step["told"]
        if step["recreate"]:
            told = physical.read_settings(self.host, step["nic"])
            step["record"] = dict(step["record"], settings={}, ours={})
        if step["item"]:
            kept = dict(step["record"]["settings"])
            for index, values in step["settings"].items():
                before = told.get(index, {})
                fresh = [name for name in values if name not in step["record"]["ours"].get(str(index), [])]
                kept[str(index)] = dict(kept.get(str(index), {}), **{name: before.get(name) for name in fresh})
            ours = dict(step["record"]["ours"])
            for index, values in step["settings"].items():
                ours[str(index)] = sorted(set(ours.get(str(index), [])) | set(values))
            step["record"] = dict(step["record"], settings=kept)
            self.during[step["address"]] = dict(step["record"], wanted=step["count"], ours=ours)
            record.write(self.host, self.during)
        for index, values in sorted(step["settings"].items()):
            # Of virtual functions just made a card may have the value already.
            for name, argv in physical.commands(step["nic"], index, physical.differing(values, told.get(index, {}))):
                try:
                    self.host.run(argv)
                except HostError as exc:
                    raise HostError("%s.%s: %s" % (self._place(step, index), name, exc)) from exc
        told = physical.read_settings(self.host, step["nic"])
        for index, values in sorted(step["settings"].items()):
            for name, value in physical.differing(values, told.get(index, {})).items():
                is_now = told.get(index, {}).get(name)
                raise HostError("%s.%s: %s was set, and %s" % (
                    self._place(step, index), name, _shown(value),
                    "the driver does not tell it" if is_now is None else "it is %s" % _shown(is_now)))

    @staticmethod
    def _place(step, index):
        if step["item"]:
            return step["item"]["vfs"][index]["place"]
        return "%s, virtual function %d" % (step["address"], index)

    def _bind(self):
        """All virtual functions of all cards to their driver, in one transaction."""
        binds = [bind for step in self.steps for bind in step["binds"]]
        for step in self.steps:
            self._check_groups(step)
        if binds:
            before = {bind["address"]: as_it_is(self.host, bind["address"]) for bind in binds}
            live.bind(self.host, binds, before)

    def _check_groups(self, step):
        """The kernel's groups of what was just made are those that were predicted."""
        if not step["recreate"]:
            return
        for vf in step["item"]["vfs"]:
            address = step["vfs"][vf["index"]]
            group = self.groups[address]
            link = self.host.readlink("%s%s/iommu_group" % (physical.DEVICES, address))
            if vf["driver"] in (None, asking.HOST) or not group["isolated"] or not link:
                continue
            members = self.host.listdir("/sys/kernel/iommu_groups/%s/devices" % link.rpartition("/")[2])
            if members != [address]:
                others = _some([member for member in members if member != address])
                raise HostError("%s: virtual function %d (%s) was predicted alone in its IOMMU group, and is in one "
                                "with %s" % (vf["place"], vf["index"], address, others))

    def _give(self, stuck):
        """Virtual functions that are left to the host, and those that go back to the driver that they had."""
        for step in self.steps:
            for address in step["frees"]:
                live.restore(self.host, address, {"driver": None, "override": None}, stuck)
            probes = step["probes"] + step["frees"]
            if not probes:
                continue
            closed = step["autoprobe"] is False  # then the kernel probes by hand too only what has an override
            if closed:
                self._write_sysfs(step["address"], "sriov_drivers_autoprobe", "1", stuck)
            for address in probes:
                self._probe(address, stuck)
            if closed:
                self._write_sysfs(step["address"], "sriov_drivers_autoprobe", "0", stuck)
        for step in self.back:
            there = set(physical.virtual(self.host, step["address"]).values())
            for address in sorted(set(step["restores"]) & there, key=sort_key):
                live.restore(self.host, address, step["restores"][address], stuck)

    def _read_back(self):
        for step in self.steps + self.back:
            count = physical.number(self.host, step["address"], "sriov_numvfs")
            if count != step["count"]:
                raise HostError("%s has %s virtual functions, asked %d; somebody else sets them too"
                                % (step["address"], count, step["count"]))

    def _write_files(self, texts):
        """Write or remove what differs; have systemd and udev read it."""
        for path, text in sorted(texts.items()):
            if text is None:
                self.host.remove(path)
            elif self.host.read(path) != text or self._mode_is_off(path):
                self.host.write(path, text, persistence.MODES.get(path, 0o644))
        for folder in {path.rpartition("/")[0] for path, text in texts.items() if text is None}:
            if folder.endswith(("/vfio-host", ".target.d")):
                self.host.remove_empty_folder(folder)
        if self.file_changes and self.host.which("systemctl"):
            self.host.run(["systemctl", "daemon-reload"])
            if self.host.which("udevadm"):
                self.host.run(["udevadm", "control", "--reload"])

    # -- undoing it --------------------------------------------------------------------------

    def _undo(self, touched, stuck):
        """Everything as it was, the last first; returns sentences about what is not."""
        left = []
        for step in reversed(touched):
            mine = {step["address"]} | set(physical.virtual(self.host, step["address"]).values())
            if mine & stuck:
                left.append("%s: left alone, since a write about it or a virtual function of it did not end (an "
                            "orderly reboot may wait for it too, and then needs the power button)" % step["address"])
                continue
            try:
                self._undo_step(step, stuck)
            except (HostError, OSError) as exc:
                left.append(str(exc))
        try:
            self._write_files(self.texts)
            if not left:
                record.write(self.host, self.records)
        except (HostError, OSError) as exc:
            left.append(str(exc))
        return left

    def _undo_step(self, step, stuck):
        address, now = step["address"], step["now"]
        recreated = step["recreate"] and (
            physical.number(self.host, address, "sriov_numvfs") != now["numvfs"] or not step["drivers"]
            or physical.virtual(self.host, address) != now["vfs"])
        if recreated and physical.number(self.host, address, "sriov_numvfs"):
            self._write_sysfs(address, "sriov_numvfs", "0", stuck)
        probe = physical.number(self.host, address, "sriov_drivers_autoprobe")
        if now["autoprobe"] is not None and probe != now["autoprobe"]:
            self._write_sysfs(address, "sriov_drivers_autoprobe", "%d" % now["autoprobe"], stuck)
        if recreated and now["numvfs"]:
            self._count(address, now["numvfs"], stuck)
        if step["nic"] and step["told"]:
            told = physical.read_settings(self.host, step["nic"])
            for index, values in step["told"].items():
                for dummy, argv in physical.commands(step["nic"], index,
                                                     physical.differing(values, told.get(index, {}))):
                    self.host.run(argv)
        for virtual, was in step["drivers"].items():
            live.restore(self.host, virtual, was, stuck)

    # -- what it says ------------------------------------------------------------------------

    def result(self):
        vfs = [self._virtual(step, vf) for step in self.steps for vf in step["item"]["vfs"]]
        return {
            "changed": self.changed,
            "functions": [{"address": step["address"], "before": step["now"]["numvfs"], "count": step["count"],
                           "wanted": step["count"] if step["item"] else None} for step in self.steps + self.back],
            "vfs": vfs,
            "warnings": self.warnings + self._foreign(),
            "diff": self._diff() if self.changed else [],
        }

    def _virtual(self, step, vf):
        address = step["vfs"][vf["index"]]
        group = self.groups[address]
        reasons = list(group["reasons"])
        if step["recreate"]:
            reasons.append(prediction.RENUMBERED)
        return {
            "address": address, "index": vf["index"], "pf": step["address"], "driver": vf["driver"],
            "bound": vf["driver"] not in (None, asking.HOST), "group_members": group["members"],
            "isolated": group["isolated"], "reasons": reasons,
            **{name: vf[name] for name in asking.SETTINGS}
        }

    def _foreign(self):
        """Warnings about files of others that set the same at each boot."""
        if not any(step["count"] for step in self.steps):
            return []
        found = []
        for folder, word in FOREIGN:
            for name in self.host.listdir(folder):
                path = folder + "/" + name
                if path not in self.files and word in (self.host.read(path, 1 << 16) or ""):
                    found.append(path)
        return ["%s: says %s too; if that is about the same card, whoever comes first wins: remove it there, or here"
                % (path, dict(FOREIGN)[path.rpartition("/")[0]]) for path in found]

    def _diff(self):
        """Files, and what each physical function has. The record is left out: it is only known afterwards."""
        found = [{"before_header": path, "after_header": path, "before": self.texts[path] or "",
                  "after": self.files[path] or ""}
                 for path in sorted(self.files) if self.texts[path] != self.files[path]]
        moved = [step for step in self.steps + self.back if step["moves"]]
        if moved:
            found.append({"before_header": "virtual functions", "after_header": "virtual functions",
                          "before": "".join(self._lines(step, False) for step in moved),
                          "after": "".join(self._lines(step, True) for step in moved)})
        return found

    @staticmethod
    def _lines(step, after):
        now = step["now"]
        count, probe = (step["count"], step["autoprobe"]) if after else (now["numvfs"], now["autoprobe"])
        lines = ["%s: count %d, autoprobe %s\n" % (step["address"], count, {True: "on", False: "off"}.get(probe, "-"))]
        for index, values in sorted(step["settings"].items()):
            told = {} if step["recreate"] else step["told"].get(index, {})
            for name in asking.SETTINGS:
                if name in values and (after or not step["recreate"]):
                    lines.append("%s %d: %s %s\n" % (step["address"], index, name,
                                                     _shown(values[name] if after else told.get(name))))
        drivers = {bind["address"]: bind["driver"] for bind in step.get("binds", [])}
        drivers.update({vf: was["driver"] for vf, was in step.get("restores", {}).items()})
        drivers.update(dict.fromkeys(step.get("frees", []), asking.HOST))
        for address in sorted(drivers, key=sort_key):
            if after:
                lines.append("%s %s\n" % (address, drivers[address] or "no driver"))
            elif address in step["drivers"]:
                lines.append("%s %s\n" % (address, step["drivers"][address]["driver"] or "no driver"))
        return "".join(lines)


def _asks(vf):
    """Name of the first setting that is asked of a virtual function, or None."""
    return next((name for name in asking.SETTINGS if vf[name] is not None), None)


def _shown(value):
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _some(addresses):
    return ", ".join(addresses[:4]) + (" and %d more" % (len(addresses) - 4) if len(addresses) > 4 else "")
