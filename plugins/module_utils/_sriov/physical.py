# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Physical functions as they are: sysfs, and what ``ip link`` says of their virtual functions."""

from __future__ import annotations

import json
import posixpath
import re
import time

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._binding import identity
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

DEVICES = identity.SYSFS
STUBS = ("pci-stub", "pcieport", "uio_pci_generic")
"""Drivers that hold a function and make no virtual ones."""

PATIENCE = 5.0
"""Seconds that a driver may be busy with its virtual functions: meanwhile it leaves one out, or takes no setting."""

BUSY = ("Resource temporarily unavailable", "Device or resource busy")
NO_MAC = "00:00:00:00:00:00"
"""What takes a MAC address away, so that the driver of the virtual function chooses one."""


def number(host, address, name):
    """A number in an attribute of a function, or None. Raises HostTimeout: reading some takes the device's lock."""
    text = host.read_sysfs("%s%s/%s" % (DEVICES, address, name)) or ""
    return int(text) if text.isdigit() else None


def read(host, address):
    """``{vendor, device, serial, driver, physfn, total, numvfs, autoprobe, vfs}``, None when it is not there.

    ``total`` and ``numvfs`` None: no SR-IOV. ``autoprobe`` bool, None: the kernel has no such switch. ``vfs``: the
    addresses of the virtual functions by their index, ``{index: address}``.
    """
    live = identity.read_function(host, address)
    if live is None:
        return None
    folder = DEVICES + address
    physfn = host.readlink(folder + "/physfn")
    autoprobe = number(host, address, "sriov_drivers_autoprobe")
    return {
        "vendor": live["vendor"], "device": live["device"], "serial": live["serial"], "driver": live["driver"],
        "physfn": posixpath.basename(physfn) if physfn else None,
        "total": number(host, address, "sriov_totalvfs"),
        "numvfs": number(host, address, "sriov_numvfs"),
        "autoprobe": None if autoprobe is None else bool(autoprobe),
        "vfs": virtual(host, address),
    }


def virtual(host, address):
    """``{index: address}`` of the virtual functions that are there now."""
    found = {}
    for name in host.listdir(DEVICES + address):
        index = re.match(r"virtfn(\d+)\Z", name)
        target = host.readlink("%s%s/%s" % (DEVICES, address, name)) if index else None
        if target:
            found[int(index.group(1))] = posixpath.basename(target)
    return found


def makes_none(driver):
    """Whether a driver, None for none, is one under which a physical function is not the host's to share out. Pure."""
    return driver is None or driver in STUBS or asked.is_vfio(driver)


def check(wanted, now):
    """Raise ValueError when a physical function is not what was asked, or cannot make what was asked. Pure.

    :param wanted: an entry of wanted.check(). :param now: as of read().
    """
    address, place = wanted["address"], wanted["place"]
    if now is None:
        raise ValueError("%s.address: %s does not exist; lspci -D lists what there is" % (place, address))
    if (now["vendor"], now["device"]) != (wanted["vendor"], wanted["device"]):
        raise ValueError("%s: %s is %s:%s, asked %s:%s; another card is there, read the machine again" % (
            place, address, now["vendor"], now["device"], wanted["vendor"], wanted["device"]))
    if wanted["serial"] and now["serial"] != wanted["serial"]:
        raise ValueError("%s.serial: %s has serial number %s, asked %s; another card is there, read the machine "
                         "again" % (place, address, now["serial"] or "none", wanted["serial"]))
    if now["physfn"]:
        raise ValueError("%s.address: %s is a virtual function itself; give its physical function %s"
                         % (place, address, now["physfn"]))
    if now["total"] is None or now["numvfs"] is None:
        raise ValueError("%s.address: %s has no SR-IOV (no sriov_totalvfs); it may be off in the firmware's setup or "
                         "in the card's own" % (place, address))
    nothing = not wanted["count"] and not now["numvfs"]  # is asked of it and is there, so who has it does not matter
    if asked.is_vfio(now["driver"]) and not nothing:
        raise ValueError("%s.address: %s is on %s; the physical function has to stay with the host, so take it off the "
                         "list of vfio.host.vfio_binding" % (place, address, now["driver"]))
    if makes_none(now["driver"]) and not nothing:
        raise ValueError("%s.address: %s is on %s, which makes no virtual functions; load the driver of the card"
                         % (place, address, now["driver"] or "no driver"))
    if wanted["count"] > now["total"]:
        raise ValueError("%s.count: %d is more than the %d that %s has at most (sriov_totalvfs); ask for fewer, or "
                         "raise it in the card's firmware" % (place, wanted["count"], now["total"], address))
    if now["autoprobe"] is None and any(vf["driver"] != "host" for vf in wanted["vfs"]):
        raise ValueError("%s: the kernel has no sriov_drivers_autoprobe for %s, so the host's drivers would take its "
                         "virtual functions first; start a kernel of 4.12 or newer" % (place, address))


# -- network --------------------------------------------------------------------------------------


def interface(host, address):
    """Name of the network interface of a physical function, or None.

    Representors (switchdev) are listed beside it, and have a port name that tells them. Raises HostError when it
    cannot be told which one it is.
    """
    folder = "%s%s/net" % (DEVICES, address)
    names = host.listdir(folder)
    if len(names) > 1:
        port = {name: host.read_attribute("%s/%s/phys_port_name" % (folder, name)) for name in names}
        names = [name for name in names if not port[name] or re.match(r"p\d+\Z", port[name])]
        if len(names) != 1:
            raise HostError("%s has the interfaces %s; which of them sets its virtual functions is not known"
                            % (address, ", ".join(sorted(port))))
    return names[0] if names else None


def interfaces_of(host, address):
    """``[{name, master, upper}]`` of the interfaces of a virtual function; ``upper``: what lies on it."""
    folder = "%s%s/net" % (DEVICES, address)
    found = []
    for name in host.listdir(folder):
        home = folder + "/" + name
        master = host.readlink(home + "/master")
        found.append({
            "name": name,
            "master": posixpath.basename(master) if master else None,
            "upper": [entry[len("upper_"):] for entry in host.listdir(home) if entry.startswith("upper_")],
        })
    return found


def read_all_settings(host, name, indexes):
    """read_settings() of all these virtual functions, once the driver tells them; {} when it tells of none.

    Raises HostError when it tells of some only: what it leaves out could not be given back.
    """
    end = time.monotonic() + PATIENCE
    while True:
        found = read_settings(host, name)
        missing = sorted(set(indexes) - set(found))
        if not missing:
            return found
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    if found:
        raise HostError("%s does not tell what virtual function %s has (ip -details link show), so nothing could give it "
                        "back; run this again, or reload its driver" % (name, ", ".join(map(str, missing))))
    return found


def read_settings(host, name):
    """``{index: {mac, vlan, qos, trust, spoof_check}}`` as ``ip`` tells them; None for what the driver does not tell.

    Raises HostError when its answer cannot be understood, or has what could not be set again.
    """
    argv = ["ip", "-json", "-details", "link", "show", "dev", name]
    text = host.run(argv).stdout
    try:
        found = parse_settings(text)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise HostError("%s: what it says cannot be understood (%s)" % (" ".join(argv), exc)) from exc
    for index, values in sorted(found.items()):
        protocol = values.pop("protocol")
        if protocol not in (None, "802.1Q"):
            raise HostError("%s: virtual function %d is in VLAN %d of protocol %s, which is not known here; take it out: ip "
                            "link set dev %s vf %d vlan 0" % (name, index, values["vlan"], protocol, name, index))
    return found


def parse_settings(text):
    """The same from the JSON, with ``protocol`` of the VLAN, None for the usual one. Pure.

    Older releases say ``mac`` for ``address`` and have no list of VLANs.
    """
    found = {}
    for entry in json.loads(text)[0].get("vfinfo_list", []):
        vlans = entry.get("vlan_list") or [entry]
        mac = entry.get("address", entry.get("mac"))
        found[int(entry["vf"])] = {
            "mac": mac.lower() if mac else None,
            "vlan": int(vlans[0].get("vlan", 0)), "qos": int(vlans[0].get("qos", 0)),
            "trust": entry.get("trust"), "spoof_check": entry.get("spoofchk"), "protocol": vlans[0].get("protocol"),
        }
    return found


def differing(wanted, now):
    """Settings of one virtual function that are to be set: ``{name: value}``. Pure. None in ``wanted``: not asked."""
    found = {name: wanted[name] for name in ("mac", "vlan", "qos", "trust", "spoof_check")
             if wanted.get(name) is not None and wanted[name] != now.get(name)}
    if "vlan" in found or "qos" in found:  # one command sets both
        found.update({name: wanted[name] for name in ("vlan", "qos") if wanted.get(name) is not None})
    return found


def commands(name, index, values):
    """``[(setting, argv)]`` that set ``values``, one each so that a refusal tells which. VLAN and priority are one.

    A spoof check needs a MAC address with some drivers: one is set before it, and taken away after it.
    """
    head = ["ip", "link", "set", "dev", name, "vf", str(index)]
    found = []
    mac = [("mac", head + ["mac", values["mac"]])] if "mac" in values else []
    if mac and values["mac"] != NO_MAC:
        found += mac
    if "vlan" in values:
        found.append(("vlan", head + ["vlan", str(values["vlan"]), "qos", str(values.get("qos") or 0)]))
    if "spoof_check" in values:
        found.append(("spoof_check", head + ["spoofchk", "on" if values["spoof_check"] else "off"]))
    if "trust" in values:
        found.append(("trust", head + ["trust", "on" if values["trust"] else "off"]))
    return found + (mac if mac and values["mac"] == NO_MAC else [])


def set_one(host, argv):
    """Run one of commands(), again while the driver is busy. Raises HostError."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            host.run(argv)
            return
        except HostError as exc:
            if time.monotonic() > end or not any(word in str(exc) for word in BUSY):
                raise
        time.sleep(0.1)
