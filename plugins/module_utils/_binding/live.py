# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Functions to vfio-pci and back on the running host. Each is a transaction over all of them.

By address, with driver_override: nothing is said about an id, so a twin stays where it is. Documentation/ABI/testing/
sysfs-bus-pci of the kernel has the files.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._binding.identity import SYSFS, driver_of
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout

DRIVERS = "/sys/bus/pci/drivers/"
PROBE = "/sys/bus/pci/drivers_probe"

MODPROBE_TIMEOUT = 60.0
LINES = 8
"""Lines of the kernel log that an error quotes at most."""
STAMP = re.compile(r"^(<\d+>)?(\[ *\d+\.\d+\] ?(\[ *[TC]\d+\] )?)?")
"""What dmesg may put before a line: its level, its time, and who said it (CONFIG_PRINTK_CALLER)."""


class LiveError(HostError):
    """Not done. ``stuck``: addresses about which a write never ended; ``left``: what is not as it was, sentences."""

    def __init__(self, text, stuck, left):
        super().__init__(text)
        self.stuck, self.left = stuck, left


def bind(host, wanted, before):
    """Take every function of ``wanted`` from its driver and give it to the one asked for, or none of them.

    :param wanted: ``[{address, driver}]`` in the order in which they are bound; unbound in reverse.
    :param before: ``{address: {driver, module, override}}``, what they are now.
    Raises LiveError once every function is back at the driver that it had, as far as the kernel lets it.
    """
    log, stuck = log_lines(host), set()
    try:
        names = {driver: load(host, driver) for driver in sorted({item["driver"] for item in wanted})}
        # Nothing later loads what a guest's memory is mapped with: the kernel only hints at it.
        _modprobe(host, ["-q", "vfio_iommu_type1"])
        for item in wanted:
            _override(host, item["address"], names[item["driver"]], stuck)
        for item in reversed(wanted):
            _unbind(host, item["address"], stuck)
        for item in wanted:
            _write(host, item["address"], PROBE, item["address"], stuck)
            _expect(host, item["address"], names[item["driver"]])
        for item in wanted:
            _viable(host, item["address"])
    except HostError as exc:
        said = kernel_log(host, log, before)
        left = []
        for item in reversed(wanted):
            try:
                if item["address"] in stuck:
                    raise HostError("%s: left alone, since a write about it did not end (an orderly reboot may wait for it too, "
                                    "and then needs the power button)" % item["address"])
                restore(host, item["address"], before[item["address"]], stuck)
            except HostError as more:
                left.append(str(more))
        raise LiveError(_told(exc, said, left), stuck, left) from exc


def give_back(host, records):
    """Every function back to the driver and the override of its record; one that fails does not stop the others.

    Raises LiveError that names all that failed; those that did not are at home.
    """
    log, stuck, left = log_lines(host), set(), []
    for address in sorted(records, reverse=True):
        try:
            restore(host, address, records[address], stuck)
        except HostError as exc:
            left.append(str(exc))
    if left:
        said = kernel_log(host, log, records)
        text = "; ".join(left) + ("" if not said else ". The kernel said: " + " | ".join(said))
        raise LiveError(text + ". The record is kept: run this again, or reboot", stuck, left)


def restore(host, address, was, stuck):
    """A function to the driver and the override in ``was``; does only what is not so already."""
    driver, override = was.get("driver"), was.get("override")
    if driver_of(host, address) != driver:
        _unbind(host, address, stuck)
        if driver:
            # An override names the only driver that gets a function, and some get none without: until it is bound, this one.
            _override(host, address, driver, stuck)
            try:
                _attach(host, address, driver, was.get("module"), stuck)
            except HostError:
                if address not in stuck:
                    _override(host, address, override, stuck)
                raise
    _override(host, address, override, stuck)


# -- one step --------------------------------------------------------------------------------


def registered(host, driver):
    """What the kernel calls a driver (``-`` and ``_`` are one to modprobe, not to sysfs), or None."""
    for name in (driver, driver.replace("-", "_"), driver.replace("_", "-")):
        if host.isdir(DRIVERS + name):
            return name
    return None


def load(host, driver, module=None):
    """The registered name of a driver, its module loaded if it has to be. Raises HostError."""
    name = registered(host, driver)
    if name is None:
        result = _modprobe(host, ["-q", module or driver])
        name = registered(host, driver)
        if name is None:
            raise HostError("driver %s: %s and there is no %s%s afterwards%s" % (
                driver, _ended(result), DRIVERS, driver, _said(result)))
    return name


def missing(host, driver, module=None):
    """Why a driver could not be loaded, or None. Loads nothing."""
    if registered(host, driver) is not None:
        return None
    result = _modprobe(host, ["-n", "-q", module or driver])
    return None if result.rc == 0 else _ended(result) + _said(result)


def _modprobe(host, options):
    return host.run(["modprobe"] + options, timeout=MODPROBE_TIMEOUT, check=False)


def _ended(result):
    return "%s ended with %d" % (" ".join(result.argv), result.rc)


def _said(result):
    said = (result.stderr or result.stdout).strip()
    return ": " + said if said else ""


def _write(host, address, path, value, stuck):
    try:
        host.write_sysfs(path, value)
    except HostTimeout:
        stuck.add(address)
        raise


def _override(host, address, name, stuck):
    path = SYSFS + address + "/driver_override"
    try:
        now = host.read_sysfs(path)
    except HostTimeout:
        stuck.add(address)
        raise
    if (None if now in ("", "(null)") else now) != name:
        _write(host, address, path, (name or "") + "\n", stuck)


def _unbind(host, address, stuck):
    if driver_of(host, address) is not None:
        _write(host, address, SYSFS + address + "/driver/unbind", address, stuck)


def _attach(host, address, driver, module, stuck):
    """A function that has no driver to this one, whose module may take it at once when it is loaded."""
    name = load(host, driver, module)
    if driver_of(host, address) != name:
        try:
            _write(host, address, DRIVERS + name + "/bind", address, stuck)
        except HostError:
            if address in stuck or driver_of(host, address) != name:  # else udev was first
                raise
        _expect(host, address, name)


def _expect(host, address, name):
    found = driver_of(host, address)
    if found != name:
        raise HostError("%s: driver %s did not take it (%s)" % (
            address, name, "it has none" if found is None else "it is on %s" % found))


def _viable(host, address):
    """The node of the group is there, opens, and the kernel calls the group viable; or the node of the function is, and opens."""
    folder = SYSFS + address
    link = host.readlink(folder + "/iommu_group")
    group = (link or "").rpartition("/")[2]
    if not group.isdigit():
        raise HostError("%s: it has no IOMMU group" % address)
    node = "/dev/vfio/" + group
    if host.exists(node):
        if host.vfio_viable(node) is False:
            raise HostError("%s: the kernel does not call its group viable (%s): a member is on a driver of the host"
                            % (address, node))
        return
    own = host.listdir(folder + "/vfio-dev")  # a kernel that has devices of its own instead of groups
    if not own:
        raise HostError("%s: there is no %s, so no guest could use it" % (address, node))
    for name in own:
        host.vfio_open("/dev/vfio/devices/" + name)


# -- what the kernel said ---------------------------------------------------------------------


def log_lines(host):
    """Lines of the kernel log, None where it cannot be read: for kernel_log(), before something is done."""
    try:
        result = host.run(["dmesg"], timeout=10, check=False)
    except HostError:
        return None
    return result.stdout.splitlines() if result.rc == 0 else None


def after(before, now):
    """Lines of ``now`` that came after those of ``before``, of which the log may have lost the oldest since. Pure."""
    for start, line in enumerate(before):
        kept = before[start:] if now[:1] == [line] else None
        if kept and now[:len(kept)] == kept:
            return now[len(kept):]
    return now


def kernel_log(host, before, addresses):
    """The last lines of the kernel log since ``before`` that concern these addresses, vfio or a crash.

    :param before: as of log_lines(). By no clock: the stamps stand still while the host sleeps, unlike /proc/uptime.
    """
    now = log_lines(host)
    found = []
    for line in after(before, now) if before is not None and now is not None else ():
        words = STAMP.sub("", line, count=1)
        if "vfio" in words or re.search(r"BUG|WARNING|Oops", words) or any(a in words for a in addresses):
            found.append(words)
    return found[-LINES:]


def _told(exc, said, left):
    text = str(exc)
    text += ". Not put back: " + "; ".join(left) if left else ". Every function is back at the driver that it had"
    return text + (". The kernel said: " + " | ".join(said) if said else "")
