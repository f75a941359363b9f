# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""From a wanted domain and the one that exists to the one to define. Pure.

The guest keeps its identity (UUID, MAC addresses, machine version, the slots of its devices), and
what others added to the domain and we do not manage stays in it. Both inputs are canonical.
"""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree as ET

from ansible_collections.vfio.host.plugins.module_utils._guest.canonical import (
    EXACT_ATTRIBUTES,
    EXACT_CHILDREN,
    disk_source,
    pair_children,
    source_address,
)

_Q35 = re.compile(r"^(pc-)?q35(-.*)?$")


def carry_over(wanted, actual):
    """A copy of ``wanted`` that has the identity of ``actual``."""
    wanted = copy.deepcopy(wanted)
    if actual.find("uuid") is not None:
        wanted.find("uuid").text = actual.findtext("uuid")
    if _is_q35(actual) and actual.find("devices") is not None:
        wanted.find("os/type").set("machine", actual.find("os/type").get("machine"))
        _carry_buses(wanted.find("devices"), actual.find("devices"))
    _carry_macs(wanted, actual)
    return wanted


def merge(wanted, actual):
    """The domain to define: ``actual`` with everything of ``wanted`` laid over it."""
    domain = copy.deepcopy(actual)
    if not _is_q35(actual):
        _forget_places(domain)
    devices = domain.find("devices")
    if devices is None:
        devices = ET.SubElement(domain, "devices")
    _overlay(domain, wanted)
    # _overlay leaves devices to us: they are matched by what they are, not by position
    _merge_devices(devices, wanted.find("devices"))
    return domain


def _is_q35(domain):
    kind = domain.find("os/type")
    return kind is not None and bool(_Q35.match(kind.get("machine", "")))


def _forget_places(domain):
    """Addresses and buses of another machine type mean nothing on a q35."""
    for device in domain.findall("devices/*"):
        for address in device.findall("address"):
            device.remove(address)
    for controller in domain.findall("devices/controller"):
        domain.find("devices").remove(controller)


def _carry_macs(wanted, actual):
    spare = list(actual.findall("devices/interface"))
    for mine in wanted.findall("devices/interface"):
        bridge = mine.find("source").get("bridge")
        sources = [(card, card.find("source")) for card in spare]
        same = [card for card, source in sources if source is not None and source.get("bridge") == bridge]
        for card in (same or spare)[:1]:
            spare.remove(card)
            if card.find("mac") is not None:
                mine.find("mac").set("address", card.find("mac").get("address"))


def _carry_buses(wanted, actual):
    """Give each wanted device the guest bus that it has, else a free root port, else a new one."""
    occupants = {}
    for device in actual:
        place = device.find("address")
        if place is not None and place.get("type") == "pci":
            occupants.setdefault(int(place.get("bus", "0"), 0), []).append(device)
    ports = {
        int(controller.get("index", "0")): controller.get("model")
        for controller in actual.findall("controller")
        if controller.get("type") == "pci"
    }
    slots = {}
    for hostdev in wanted.findall("hostdev"):
        slots.setdefault(int(hostdev.find("address").get("bus"), 0), []).append(hostdev)
    free = sorted(bus for bus, model in ports.items() if model == "pcie-root-port" and bus not in occupants)
    moves, taken = {}, set()
    for bus, hostdevs in slots.items():
        kept = _bus_of(hostdevs, occupants, ports)
        if kept is not None and kept not in taken:
            moves[bus] = kept
            taken.add(kept)
    for bus in slots:
        if bus not in moves:
            moves[bus] = free.pop(0) if free else max(list(ports) + list(moves.values()) + [0]) + 1
    controllers = {int(controller.get("index")): controller for controller in wanted.findall("controller")}
    for bus, hostdevs in slots.items():
        controllers[bus].set("index", str(moves[bus]))
        for hostdev in hostdevs:
            hostdev.find("address").set("bus", "0x%02x" % moves[bus])


def _bus_of(hostdevs, occupants, ports):
    """The bus where ``hostdevs`` are, when it is a root port's and nothing else is on it."""
    aliases = {hostdev.find("alias").get("name") for hostdev in hostdevs}
    sources = {source_address(hostdev) for hostdev in hostdevs}

    def is_ours(device):
        alias = device.find("alias")
        named = alias is not None and alias.get("name") in aliases
        return device.tag == "hostdev" and (named or source_address(device) in sources)

    for bus, devices in sorted(occupants.items()):
        if ports.get(bus) == "pcie-root-port" and all(is_ours(device) for device in devices):
            return bus
    return None


def _overlay(base, wanted):
    for name in EXACT_ATTRIBUTES.get(wanted.tag, ()):
        base.attrib.pop(name, None)
    if wanted.tag == "cpu" and base.get("mode") != wanted.get("mode"):
        base.attrib.clear()  # a model and its features mean nothing in another mode
        base[:] = []
    base.attrib.update(wanted.attrib)
    if wanted.text:
        base.text = wanted.text
    exact = EXACT_CHILDREN.get(wanted.tag, ())
    for mine, theirs in pair_children(wanted, base):
        if mine is None:
            if theirs.tag in exact:
                base.remove(theirs)
        elif theirs is None:
            base.append(copy.deepcopy(mine))
        elif mine.tag != "devices":
            _overlay(theirs, mine)


def _merge_devices(base, wanted):
    exact = EXACT_CHILDREN["devices"]
    serial_changed = False
    for mine, theirs in pair_children(wanted, base):
        if mine is None:
            if theirs.tag in exact:
                base.remove(theirs)
        elif theirs is None:
            base.append(copy.deepcopy(mine))
        elif _signature(mine) == _signature(theirs):
            _overlay(theirs, mine)
        else:
            serial_changed = serial_changed or mine.tag == "serial"
            fresh = copy.deepcopy(mine)
            place = theirs.find("address")
            if mine.tag in ("disk", "interface") and place is not None and place.get("type") == "pci":
                fresh.append(copy.deepcopy(place))
            base[list(base).index(theirs)] = fresh
    if serial_changed:
        # libvirt mirrors the first serial port as a console, and writes the mirror anew
        for console in base.findall("console"):
            if console.find("target") is not None and console.find("target").get("type") == "serial":
                base.remove(console)


def _signature(device):
    """What makes a device another device, for which the old one's details no longer hold."""
    if device.tag == "disk":
        return device.get("device", "disk"), disk_source(device), device.find("target").get("bus")
    if device.tag == "video":
        model = device.find("model")
        return None if model is None else model.get("type")
    if device.tag in ("controller", "memballoon"):
        return device.get("model")
    return device.get("type")
