# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""All steps of a plan, or none: the number of virtual functions, their settings and their drivers."""

from __future__ import annotations

import time

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._binding import live
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import driver_of
from ansible_collections.vfio.host.plugins.module_utils._binding.record import as_it_is
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from ansible_collections.vfio.host.plugins.module_utils._sriov import (
    persistence,
    physical,
    record,
    wanted as asking,
)
from ansible_collections.vfio.host.plugins.module_utils._sriov.plan import refuse_overrides, some

COUNT_TIMEOUT = 60.0
"""Seconds that the kernel may take to make or end the virtual functions of one card."""

APPEAR_TIMEOUT = 20.0
"""Seconds that these may take to appear after that."""


class Transaction:
    """Doing what a plan says, and undoing it. Where a card numbers its functions otherwise, the plan follows."""

    def __init__(self, host, plan):
        self.host, self.plan = host, plan
        self.during = {}
        self.stuck = set()

    def apply(self):
        """All of it or nothing. The record is on disk before the first write to sysfs."""
        self.during = dict(self.plan.records)
        for step in self.plan.steps + self.plan.back:
            self.during[step["address"]] = step["record"]
        touched = []
        log = live.log_lines(self.host)
        try:
            record.write(self.host, self.during)
            for step in self.plan.back + self.plan.steps:
                if step["moves"]:
                    touched.append(step)
                    self._make(step)
            for step in self.plan.back + self.plan.steps:
                self._set(step)
            self._bind()
            self._give()
            self._read_back()
            self._write_files(self.plan.files)
            record.write(self.host, dict(self.plan.later, **{step["address"]: record.ended(
                step["record"], self.plan.bare[step["address"]]["ours"]) for step in self.plan.steps}))
        except (HostError, OSError) as exc:
            said = live.kernel_log(self.host, log, [step["address"] for step in touched])
            self.stuck |= set(getattr(exc, "stuck", ()))
            left = self._undo(touched)
            text = str(exc) + (". Not put back: %s; the record is kept, so that a later run can" % "; ".join(left)
                               if left else ". Everything is as it was before")
            raise HostError(text + (". The kernel said: " + " | ".join(said) if said else "")) from exc

    def _count_now(self, address):
        try:
            return physical.number(self.host, address, "sriov_numvfs")
        except HostTimeout:
            self.stuck.add(address)
            raise

    def _write_sysfs(self, address, name, value):
        try:
            self.host.write_sysfs("%s%s/%s" % (physical.DEVICES, address, name), value, COUNT_TIMEOUT)
        except HostTimeout:
            self.stuck.add(address)
            raise

    def _probe(self, address):
        try:
            self.host.write_sysfs(live.PROBE, address)
        except HostTimeout:
            self.stuck.add(address)
            raise

    def _make(self, step):
        """Autoprobe and the count of one physical function, 0 first; its virtual functions are there afterwards."""
        address, now = step["address"], step["now"]
        if step["autoprobe"] is not None and step["autoprobe"] != now["autoprobe"]:
            self._write_sysfs(address, "sriov_drivers_autoprobe", "%d" % step["autoprobe"])
        if step["recreate"]:
            self._count(address, step["count"])
            if step["item"]:
                self._found(step)

    def _count(self, address, count):
        if self._count_now(address):
            self._write_sysfs(address, "sriov_numvfs", "0")
        if count:
            try:
                self._write_sysfs(address, "sriov_numvfs", str(count))
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
        self.plan.warnings.append(
            "%s: virtual function %d is at %s, and %s was predicted; the card numbers them anew when their count changes"
            % (step["address"], other[0], really[other[0]], step["vfs"][other[0]]))
        renamed = {step["vfs"][index]: address for index, address in really.items()}
        for index, address in really.items():
            old = self.plan.groups[step["vfs"][index]]
            members = sorted((renamed.get(member, member) for member in old["members"]), key=sort_key)
            self.plan.groups[address] = dict(old, members=members)
        for bind in step["binds"]:
            bind["address"] = renamed[bind["address"]]
        step["probes"] = [renamed[address] for address in step["probes"]]
        step["vfs"] = really
        refuse_overrides(self.host, step)

    def _set(self, step):
        """Settings of the virtual functions of one physical function, what they were kept in the record, read back."""
        if not step["settings"]:
            return
        told = step["told"]
        if step["recreate"]:
            told = physical.read_all_settings(self.host, step["nic"], step["settings"])
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
            self.during[step["address"]] = dict(step["record"], ours=ours)
            record.write(self.host, self.during)
        for index, values in sorted(step["settings"].items()):
            # Of virtual functions just made a card may have the value already.
            for name, argv in physical.commands(step["nic"], index, physical.differing(values, told.get(index, {}))):
                try:
                    physical.set_one(self.host, argv)
                except HostError as exc:
                    if argv[-1] != physical.NO_MAC:
                        raise HostError("%s.%s: %s" % (self._place(step, index), name, exc)) from exc
                    values["mac"] = told.get(index, {}).get("mac")
                    self.plan.warnings.append(
                        "%s: virtual function %d keeps %s until it is made anew, since its driver takes no address away (%s)"
                        % (step["address"], index, values["mac"], exc))
        told = physical.read_all_settings(self.host, step["nic"], step["settings"])
        for index, values in sorted(step["settings"].items()):
            for name, value in physical.differing(values, told.get(index, {})).items():
                is_now = told.get(index, {}).get(name)
                raise HostError("%s.%s: %s was set, and %s" % (
                    self._place(step, index), name, shown(value),
                    "the driver does not tell it" if is_now is None else "it is %s" % shown(is_now)))

    @staticmethod
    def _place(step, index):
        if step["item"]:
            return step["item"]["vfs"][index]["place"]
        return "%s, virtual function %d" % (step["address"], index)

    def _bind(self):
        """All virtual functions of all cards to their driver, in one transaction."""
        binds = [bind for step in self.plan.steps for bind in step["binds"]]
        for step in self.plan.steps:
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
            group = self.plan.groups[address]
            link = self.host.readlink("%s%s/iommu_group" % (physical.DEVICES, address))
            if vf["driver"] in (None, asking.HOST) or not group["isolated"] or not link:
                continue
            members = self.host.listdir("/sys/kernel/iommu_groups/%s/devices" % link.rpartition("/")[2])
            if members != [address]:
                others = some([member for member in members if member != address])
                raise HostError("%s: virtual function %d (%s) was predicted alone in its IOMMU group, and is in one "
                                "with %s" % (vf["place"], vf["index"], address, others))

    def _give(self):
        """Virtual functions that are left to the host, and those that go back to the driver that they had."""
        for step in self.plan.steps:
            for address in step["frees"]:
                live.restore(self.host, address, {"driver": None, "override": None}, self.stuck)
            probes = step["probes"] + step["frees"]
            if not probes:
                continue
            closed = step["autoprobe"] is False  # then the kernel probes by hand too only what has an override
            if closed:
                self._write_sysfs(step["address"], "sriov_drivers_autoprobe", "1")
            for address in probes:
                self._probe(address)
            if closed:
                self._write_sysfs(step["address"], "sriov_drivers_autoprobe", "0")
        for step in self.plan.back:
            there = set(physical.virtual(self.host, step["address"]).values())
            for address in sorted(set(step["restores"]) & there, key=sort_key):
                live.restore(self.host, address, step["restores"][address], self.stuck)

    def _read_back(self):
        for step in self.plan.steps + self.plan.back:
            count = self._count_now(step["address"])
            if count != step["count"]:
                raise HostError("%s has %s virtual functions, asked %d; somebody else sets them too"
                                % (step["address"], count, step["count"]))

    def _write_files(self, texts):
        """Write or remove what differs; have systemd and udev read it."""
        for path, text in sorted(texts.items()):
            if text is None:
                self.host.remove(path)
            elif self.host.read(path) != text or self.plan.mode_is_off(path):
                self.host.write(path, text, persistence.MODES.get(path, 0o644))
        for folder in {path.rpartition("/")[0] for path, text in texts.items() if text is None}:
            if folder.endswith(("/vfio-host", ".target.d")):
                self.host.remove_empty_folder(folder)
        if self.plan.file_changes and self.host.which("systemctl"):
            self.host.run(["systemctl", "daemon-reload"])
            if self.host.which("udevadm"):
                self.host.run(["udevadm", "control", "--reload"])

    # -- undoing it --------------------------------------------------------------------------

    def _undo(self, touched):
        """Everything as it was, the last first; returns sentences about what is not."""
        left = []
        for step in reversed(touched):
            if self._hangs(step):
                left.append("%s: left alone, since a write about it or a virtual function of it did not end (an "
                            "orderly reboot may wait for it too, and then needs the power button)" % step["address"])
                continue
            try:
                self._undo_step(step)
            except (HostError, OSError) as exc:
                left.append(str(exc))
        try:
            self._write_files(self.plan.texts)
            record.write(self.host, self.plan.records if not left else dict(self.during, **{
                step["address"]: dict(self.during[step["address"]], stuck=self.plan.boot)
                for step in touched if self._hangs(step)}))
        except (HostError, OSError) as exc:
            left.append(str(exc))
        return left

    def _hangs(self, step):
        """Whether a write about a physical function or a virtual one of it did not end."""
        return bool(self.stuck & ({step["address"]} | set(physical.virtual(self.host, step["address"]).values())))

    def _undo_step(self, step):
        address, now = step["address"], step["now"]
        recreated = step["recreate"] and (
            self._count_now(address) != now["numvfs"] or not step["drivers"]
            or physical.virtual(self.host, address) != now["vfs"])
        if recreated and self._count_now(address):
            self._write_sysfs(address, "sriov_numvfs", "0")
        probe = physical.number(self.host, address, "sriov_drivers_autoprobe")
        if now["autoprobe"] is not None and probe != now["autoprobe"]:
            self._write_sysfs(address, "sriov_drivers_autoprobe", "%d" % now["autoprobe"])
        if recreated and now["numvfs"]:
            self._count(address, now["numvfs"])
        if step["nic"] and step["told"]:
            told = physical.read_all_settings(self.host, step["nic"], step["told"])
            for index, values in step["told"].items():
                for dummy, argv in physical.commands(step["nic"], index,
                                                     physical.differing(values, told.get(index, {}))):
                    physical.set_one(self.host, argv)
        for virtual, was in step["drivers"].items():
            live.restore(self.host, virtual, was, self.stuck)


def shown(value):
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
