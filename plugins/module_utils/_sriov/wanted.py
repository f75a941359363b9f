# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is asked of physical functions, checked; and the list of it that the unit reads at boot. Pure.

``/etc/vfio-host/sriov`` has one line for each physical function and one for each virtual function of it, fields parted
by a blank, ``-`` for what is not asked::

    pf address vendor device serial count autoprobe
    vf pf_address index driver mac vlan qos trust spoof_check
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import normalise, slot_of, sort_key

LIST = asked.ASKED_FOLDER + "/sriov"
HEADER = (
    "# Managed by the vfio.host collection (module sriov). Do not edit: it is replaced.\n"
    "# pf address vendor device serial count autoprobe\n"
    "# vf pf_address index driver mac vlan qos trust spoof_check\n"
)

HOST = "host"
"""Word for the driver of a virtual function that is left to the host."""

SETTINGS = ("mac", "vlan", "qos", "trust", "spoof_check")
MOST = 0xFFFF
"""Virtual functions that the capability has room for."""
MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


def check(functions):
    """``[{place, address, vendor, device, serial, count, vfs}]`` of the option ``functions``.

    ``vfs``: one entry for each index, also those that were not given: ``{index, place, driver, mac, vlan, qos, trust,
    spoof_check}``; a setting is None when it is not asked. Raises ValueError that names value, place and remedy.
    """
    found, macs = [], {}
    for number, given in enumerate(functions):
        place = "functions[%d]" % number
        address = normalise(given.get("address"), place + ".address")
        if address == slot_of(address):
            raise ValueError("%s.address: %r is a slot; give the function, like %s.0"
                             % (place, given["address"], address))
        if any(other["address"] == address for other in found):
            raise ValueError("%s.address: %s is given twice; put all of it into one entry" % (place, address))
        count = given.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST:
            raise ValueError("%s.count: %r is not a number of virtual functions; give 0 or more, as many as "
                             "sriov_totalvfs says at most" % (place, count))
        found.append({
            "place": place, "address": address, "count": count,
            "vendor": _id(given.get("vendor"), place + ".vendor"),
            "device": _id(given.get("device"), place + ".device"),
            "serial": _serial(given.get("serial"), place + ".serial"),
            "vfs": _all(given, count, place, macs),
        })
    return found


def _id(value, place):
    text = str(value).lower()
    if not asked.ID.match(text):
        raise ValueError('%s: %r is not %s; lspci -n shows it, and quotes keep it text: "8086"'
                         % (place, value, "four hexadecimal digits"))
    return text


def _serial(value, place):
    if value in (None, "", "-"):
        return None
    pattern, example = asked.PATTERNS["serial"]
    text = str(value).lower()
    if not pattern.match(text):
        raise ValueError("%s: %r is not a serial number %s; leave it out where the card has none"
                         % (place, value, example))
    return text


def driver_of(value, place):
    """``host``, ``vfio-pci`` or a variant of it. Raises ValueError."""
    value = asked.DRIVER if value == "vfio_pci" else value
    if value != HOST and not asked.is_vfio(value):
        raise ValueError("%s: %r is neither %s nor a variant of it like mlx5_vfio_pci; give one of these, or %s to "
                         "leave it to the host's drivers" % (place, value, asked.DRIVER, HOST))
    return value


def _all(given, count, place, macs):
    """Every index with what is asked of it."""
    driver = driver_of(given.get("driver") or asked.DRIVER, place + ".driver")
    blank = dict.fromkeys(SETTINGS)
    whole = [dict(blank, index=index, place=place, driver=driver) for index in range(count)]
    seen = {}
    for number, entry in enumerate(given.get("vfs") or []):
        spot = "%s.vfs[%d]" % (place, number)
        index = entry.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise ValueError("%s.index: %r is not the number of a virtual function; with count %d there %s" % (
                spot, index, count, "are none" if not count else "is 0" if count == 1 else "are 0 to %d" % (count - 1)))
        if index in seen:
            raise ValueError("%s.index: %d is in %s already; put both into one entry" % (spot, index, seen[index]))
        seen[index] = spot
        whole[index].update(_settings(entry, spot, macs), place=spot)
        if entry.get("driver"):
            whole[index]["driver"] = driver_of(entry["driver"], spot + ".driver")
    return whole


def _settings(entry, spot, macs):
    mac, vlan, qos = entry.get("mac"), entry.get("vlan"), entry.get("qos")
    if mac is not None:
        mac = str(mac).lower().replace("-", ":")
        if not MAC.match(mac):
            raise ValueError('%s.mac: %r is not a MAC address; write it in quotes, like "52:54:00:12:34:56"'
                             % (spot, entry["mac"]))
        if int(mac[:2], 16) & 1:
            raise ValueError("%s.mac: %s is a multicast address, which no interface can have; make its first byte even"
                             % (spot, mac))
        if mac == "00:00:00:00:00:00":
            raise ValueError("%s.mac: %s is no address; leave mac out, and the driver chooses one" % (spot, mac))
        if mac in macs:
            raise ValueError("%s.mac: %s is that of %s too; give each its own" % (spot, mac, macs[mac]))
        macs[mac] = spot
    if vlan is not None and (not isinstance(vlan, int) or isinstance(vlan, bool) or not 0 <= vlan <= 4094):
        raise ValueError("%s.vlan: %r is not a VLAN; give 1 to 4094, or 0 for none" % (spot, vlan))
    if qos is not None and (not isinstance(qos, int) or isinstance(qos, bool) or not 0 <= qos <= 7):
        raise ValueError("%s.qos: %r is not a priority; give 0 to 7" % (spot, qos))
    if qos is not None and vlan is None:
        raise ValueError("%s.qos: %d goes into the VLAN tag, and no vlan is given; add one" % (spot, qos))
    if vlan is not None and qos is None:
        qos = 0  # ip sets both in one go, and takes 0 where it is not told
    return {"mac": mac, "vlan": vlan, "qos": qos, "trust": entry.get("trust"), "spoof_check": entry.get("spoof_check")}


def autoprobe(vfs):
    """Whether the kernel may give new virtual functions to the host's drivers by itself: when all are the host's."""
    return all(vf["driver"] == HOST for vf in vfs)


def render(functions):
    """Text of LIST, by address; None when there is nothing to do at boot.

    A ``driver`` None is a virtual function that gets none.
    """
    lines = []
    for function in sorted(functions, key=lambda one: sort_key(one["address"])):
        if not function["count"]:
            continue
        lines.append("pf %s %s %s %s %d %d\n" % (
            function["address"], function["vendor"], function["device"], function["serial"] or "-", function["count"],
            autoprobe(function["vfs"])))
        for vf in function["vfs"]:
            lines.append(" ".join(["vf", function["address"], str(vf["index"]), vf["driver"] or "-"]
                                  + [_word(vf[name]) for name in SETTINGS]) + "\n")
    return HEADER + "".join(lines) if lines else None


def _word(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value is None else str(value)


def listed(text):
    """``{address: count}`` of the physical functions in the text of LIST; a line that is none of ours is left out."""
    found = {}
    for line in (text or "").splitlines():
        words = line.split()
        if words[:1] == ["pf"] and len(words) > 5 and words[5].isdigit():
            found[words[1]] = int(words[5])
    return found
