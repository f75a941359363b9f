# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules about a device itself, whatever it is: VH130, VH132, VH400 to VH449. Pure.

What is about one device and decides something is found at that device. Advice that is the same for
many devices is one finding of the host which names them, so that a server's report stays readable.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment_state import is_vfio
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import (
    describe,
    listed,
    on_device,
    on_host,
    rule,
    some,
)
from ansible_collections.vfio.host.plugins.module_utils._hardware import reset_quirks

_PLATFORM = ("00", "05", "06", "08", "0780", "0c05", "0c07", "0c80", "1080", "11", "13", "ff")
"""Beginnings of class codes that belong to the board and that nobody gives to a guest: memory and
bridges, timers and the like, MEI, SMBus, IPMI, SPI, security processors, counters, dummies."""

_CONVENTIONAL = ("conventional", "pcie_to_pci")
_ASMEDIA = "1b21"


def _candidates(view):
    """Functions that somebody may want to assign, whether or not they can be: no bridges, no platform."""
    return [f for f in view.endpoints() if f["class"].startswith("0805") or not f["class"].startswith(_PLATFORM)]


def _free(view):
    """Candidates that the host has no use for."""
    return [f for f in _candidates(view) if not f["used_by"]]


def _physical(functions):
    return [f for f in functions if f["physfn"] is None]


def _addresses(functions):
    return listed(f["address"] for f in functions)


def _by(key, functions):
    """``[(value, functions)]`` of the functions that have one, in the order of the values."""
    found = {}
    for function in functions:
        if key(function) is not None:
            found.setdefault(key(function), []).append(function)
    return sorted(found.items())


def _summary(topic, sentences):
    """One finding of the host for all that is alike, or none."""
    return [on_host(topic, *some(sentences))] if sentences else []


# What is poor, and what is alike

def _poor(view):
    for function in view.endpoints():
        evidence = []
        if function["vendor"] == "10ec" and function["class"].startswith("0200"):
            evidence.append("%s %s is a Realtek NIC" % (function["address"], function["id"]))
        if function["vendor"] == _ASMEDIA:
            evidence.append("%s is an ASMedia controller" % describe(function))
        bridge = next((b for b in view.above(function["address"]) if _conventional(b)), None)
        if bridge:
            evidence.append("%s is behind the conventional PCI bridge %s %s"
                            % (function["address"], bridge["address"], bridge["id"]))
        if evidence:
            yield on_device(function["address"], *evidence)
    for bridge in view.machine["functions"]:
        if bridge["vendor"] == _ASMEDIA and _conventional(bridge) and not view.children(bridge["address"]):
            yield on_device(bridge["address"], "%s %s is an ASMedia bridge to conventional PCI, with nothing behind it"
                            % (bridge["address"], bridge["id"]))


def _conventional(bridge):
    return bridge["is_bridge"] and bridge["port_type"] in _CONVENTIONAL


def _twins(view):
    return _twins_found(view, used=False)


def _used_twins(view):
    return _twins_found(view, used=True)


def _twins_found(view, used):
    for (ident, dummy), twins in _by(lambda f: (f["id"], f["class"]), _physical(_candidates(view))):
        users = [f for f in twins if f["used_by"]]
        if len(twins) < 2 or bool(users) != used:
            continue
        evidence = ["%d functions are %s %s: %s" % (len(twins), ident, twins[0]["class_name"], _addresses(twins))]
        evidence += ["the host uses %s: %s %s" % (f["address"], f["used_by"][0]["kind"], f["used_by"][0]["what"])
                     for f in users]
        if len({(f["subsystem_vendor"], f["subsystem_device"]) for f in twins}) == len(twins):
            evidence.append("their subsystem ids differ, each from every other")
        yield on_host(ident, *evidence)


# Reset

def _without_reset(view):
    """``(function, functions that a reset of its bus resets, what forbids that or None)``"""
    buses = {}
    for function in _candidates(view):
        if function["reset_methods"] == []:
            parent = function["parent"]
            if parent not in buses:
                buses[parent] = _bus_reset(view, parent)
            yield (function,) + buses[parent]


def _bus_reset(view, parent):
    bridge = view.functions.get(parent)
    if bridge is None or not bridge["is_bridge"]:
        return [], "it is on a root bus, which cannot be reset"
    mates = view.children(bridge["address"])
    for mate in mates:
        if "bus" in reset_quirks.faulty_resets(mate, on_root_bus=False):
            return mates, "%s %s does not come back from a reset of its bus" % (mate["address"], mate["id"])
        if mate["is_bridge"]:
            return mates, "a reset of its bus would also reset the bridge %s and all behind it" % mate["address"]
    if len(mates) < 2:
        return mates, "it is alone on its bus, and still the kernel lists no bus reset"
    return mates, None


def _no_reset(view):
    for function, dummy, obstacle in _without_reset(view):
        if obstacle and not function["used_by"]:
            yield on_device(function["address"], "%s has no reset method" % describe(function), obstacle)


def _reset_together(view):
    seen = set()
    for function, mates, obstacle in _without_reset(view):
        if obstacle or function["parent"] in seen:
            continue
        seen.add(function["parent"])
        users = [f for f in mates if f["used_by"]]
        if len(users) == len(mates):
            continue
        evidence = ["%s has no reset of its own" % describe(function),
                    "a reset of the bus behind %s resets %s" % (function["parent"], _addresses(mates))]
        if users:
            evidence.append("the host uses %s: as long as it does, that bus is not reset" % _addresses(users))
        yield on_device(function["address"], *evidence)


def _faulty(view):
    """``(function, faulty methods)``"""
    for function in _free(view):
        faulty = reset_quirks.faulty_resets(function, on_root_bus=function["parent"] is None)
        if faulty:
            yield function, faulty


def _faulty_reset_in_use(view):
    for function, faulty in _faulty(view):
        methods = function["reset_methods"] or []
        used = [method for method in methods if method in faulty]
        if used:
            left = [method for method in methods if method not in faulty]
            yield on_device(
                function["address"],
                "the kernel lists these reset methods for %s: %s" % (describe(function), " ".join(methods)),
                "%s is known not to work on it" % " and ".join(used),
                "without it there is left: %s" % (" ".join(left) or "nothing"),
            )


def _faulty_reset_avoided(view):
    sentences = []
    for function, faulty in _faulty(view):
        methods = function["reset_methods"]
        if methods is None or methods == ["unknown"]:
            left = "what this kernel uses is unknown"
        elif set(methods) & set(faulty):
            continue
        else:
            left = "left: %s" % (" ".join(methods) or "none of its own")
        sentences.append("%s: %s does not work; %s" % (describe(function), " or ".join(faulty), left))
    return _summary("reset", sentences)


# Links and power

def _link_limits(view):
    """``(function, port, kind, now, own, other)`` of each link that runs below what the function can.

    ``kind`` is width or speed; ``other`` is what the port above can, None when that is unknown.
    """
    for function in view.machine["functions"]:
        link = function["link"]
        if not link or function["physfn"] or (function["is_bridge"] and function["port_type"] != "upstream_port"):
            continue
        if view.slot(function["address"])[0] is not function:
            continue  # the functions of a card share its link
        port = view.functions.get(function["parent"])
        for kind in ("width", "speed"):
            now, own = link[kind], link["max_" + kind]
            if now and own and now < own:
                yield function, port, kind, now, own, ((port or {}).get("link") or {}).get("max_" + kind)


def _idle(view, function):
    """Whether its link may be slow because there is nothing to do: a display, or a function that sleeps.

    A Radeon's link to the slot is that of the switch on the card, two bridges above the GPU.
    """
    below = [f for bridge in view.children(function["address"]) for f in view.children(bridge["address"])]
    return (any(f["class"].startswith("03") for f in [function] + below)
            or function["power_state"] not in ("D0", None))


def _form(kind, value):
    return "x%d" % value if kind == "width" else "%g GT/s" % value


def _degraded(view, function, kind, now, own, other):
    """True where both ends can do better and nothing explains why they do not."""
    return bool(other) and now < min(own, other) and not (kind == "speed" and _idle(view, function))


def _slow_link(view):
    evidence = {}
    for function, port, kind, now, own, other in _link_limits(view):
        if _degraded(view, function, kind, now, own, other):
            evidence.setdefault(function["address"], []).append(
                "the link of %s runs at %s; it can %s, and the port %s above it %s"
                % (describe(function), _form(kind, now), _form(kind, own), port["address"], _form(kind, other)))
    return [on_device(address, *sentences) for address, sentences in evidence.items()]


def _limited_link(view):
    sentences = []
    for function, dummy, kind, now, own, other in _link_limits(view):
        if _degraded(view, function, kind, now, own, other):
            continue
        if not other:
            why = "what the port above it can is unknown"
        elif now >= other:
            why = "the port above it can no more"
        else:
            why = "it may be idle"
        sentences.append("%s: %s of %s; %s" % (describe(function), _form(kind, now), _form(kind, own), why))
    return _summary("links", sentences)


def _silent(function):
    """Whether enough of configuration space was read to hold capabilities, and it held nothing but ones."""
    return function["capabilities"] is None and function["config_bytes"] >= 256


def _does_not_answer(view):
    for function in view.machine["functions"]:
        if _silent(function):
            yield on_device(function["address"], "the configuration space of %s reads all ones" % describe(function))


def _d3cold(view):
    for function in _candidates(view):
        if not function["d3cold_allowed"]:
            continue
        if _silent(function):
            state = "it does not answer"
        elif function["power_state"] in ("D3cold", "error"):
            state = "its power state is %s" % function["power_state"]
        else:
            continue
        yield on_device(function["address"], "%s may be switched off while it is idle (d3cold_allowed is 1)"
                        % describe(function), state)


# What the firmware and the kernel forbid

def _rmrr(view):
    regions = {}
    for region in view.host["iommu"]["rmrr"] or []:
        for address in region["functions"]:
            regions.setdefault(address, []).append("0x%x to 0x%x" % (region["start"], region["end"]))
    for function in view.endpoints():
        if function["rmrr"]:
            evidence = ["the firmware keeps memory for %s that it must go on reaching (RMRR)" % describe(function)]
            named = regions.get(function["address"])
            if named:
                evidence.append("the regions: %s" % listed(named))
            yield on_device(function["address"], *evidence)


def _denied(view):
    for function in view.endpoints():
        name = reset_quirks.VFIO_PCI_DENYLIST.get(function["id"])
        if name and not is_vfio(function["driver"]):
            yield on_device(function["address"], "%s (%s) is on the denylist in vfio-pci" % (describe(function), name))


def _broken_intx(view):
    lines = dict(_by(lambda f: f["irq"], view.machine["functions"]))
    for function in _free(view):
        if function["id"] not in reset_quirks.BROKEN_INTX_MASKING:
            continue
        evidence = ["the kernel cannot mask the interrupt line of %s" % describe(function)]
        sharing = lines.get(function["irq"], [])
        if not sharing:
            evidence.append("which line it has is unknown")
        elif len(sharing) > 1:
            evidence.append("line %d is that of %s" % (function["irq"], _addresses(sharing)))
        else:
            evidence.append("no other PCI function has line %d now" % function["irq"])
        yield on_device(function["address"], *evidence)


# Virtual functions and drivers

def _can_split(view):
    """``(function, its SR-IOV capability, what puts its virtual functions into one group or None, certain)``

    Only what is above decides: to the kernel a virtual function is the only one of its device.
    """
    for function in view.endpoints():
        sriov = (function["capabilities"] or {}).get("sriov")
        if sriov and sriov["total_vfs"]:
            above = view.above(function["address"])
            merging = next((b for b in above if _merges(b)), None)
            yield function, sriov, merging, all(b["isolates"]["certain"] for b in above)


def _merges(above):
    # A VMD controller is no bridge: everything behind it goes by its requester id
    return above["is_bridge"] is False or not above["isolates"]["answer"] and above["isolates"]["certain"]


def _sriov(view):
    return _summary("sriov", [
        "%s: %d virtual functions are possible, %d are there%s"
        % (describe(f), sriov["total_vfs"], sriov["num_vfs"],
           "" if certain else "; whether each would be a group of its own is not certain")
        for f, sriov, merging, certain in _can_split(view) if not merging
    ])


def _sriov_useless(view):
    virtual = dict(_by(lambda f: f["physfn"], view.endpoints()))
    for function, sriov, merging, dummy in _can_split(view):
        if not merging:
            continue
        if merging["is_bridge"]:
            why = "%s does not isolate what is behind it: %s" % (describe(merging), merging["isolates"]["why"])
        else:
            why = "%s is a VMD controller: all behind it is one group" % describe(merging)
        evidence = ["%s can have %d virtual functions" % (describe(function), sriov["total_vfs"]), why]
        group = view.group(function["address"])
        inside = [f for f in virtual.get(function["address"], []) if group and view.group(f["address"]) is group]
        if inside:
            evidence.append("in its group now: %s" % _addresses(inside))
        yield on_device(function["address"], *evidence)


def _used_physfn(view):
    for address, virtual in _by(lambda f: f["physfn"], view.endpoints()):
        function = view.functions.get(address)
        if function and function["used_by"]:
            use = function["used_by"][0]
            yield on_device(address, "the host uses %s: %s %s" % (describe(function), use["kind"], use["what"]),
                            "its virtual functions: %s" % _addresses(virtual))


def _variants(view):
    offers = {}
    for function in view.endpoints():
        for module in function["variant_modules"]:
            if (function["driver"] or "").replace("-", "_") != module:
                offers.setdefault(module, []).append(function)
    return _summary("vfio variants", [
        "%s is made for %s" % (module, _addresses(functions)) for module, functions in sorted(offers.items())
    ])


# What kind of device is worth it

def _disk_controllers(view):
    if "disk" in view.host.get("usage_unknown", ("disk",)):
        return []  # whether the host uses them is what nobody knows
    return _summary("disk controllers", [
        "%s is a disk controller that the host does not use" % describe(f)
        for f in _physical(_free(view)) if f["class"].startswith("01")
    ])


def _speeds(view):
    """``(function, interface)`` of NICs the host does not use and whose link is up."""
    free = {f["address"]: f for f in _physical(_free(view)) if f["class"].startswith("02")}
    for interface in view.host["network"]["interfaces"]:
        if interface["kind"] == "physical" and interface["speed"] and not interface["wireless"]:
            if interface["function"] in free:
                yield free[interface["function"]], interface


def _nic_sentence(function, interface):
    return "%s: %s runs at %d Mb/s" % (describe(function), interface["name"], interface["speed"])


def _fast_nics(view):
    return _summary("nics", [_nic_sentence(f, i) for f, i in _speeds(view) if i["speed"] >= 10000])


def _slow_nics(view):
    return _summary("nics", [_nic_sentence(f, i) for f, i in _speeds(view) if i["speed"] <= 1000])


def _wireless(view):
    radios = {i["function"]: i["name"] for i in view.host["network"]["interfaces"] if i["wireless"]}
    for function in view.endpoints():
        name = radios.get(function["address"])
        if name:
            yield on_device(function["address"], "%s is the wireless interface %s" % (describe(function), name))
        elif function["class"].startswith("0280"):
            yield on_device(function["address"], "%s is of the class of wireless adapters" % describe(function))


def _usb4(view):
    for function in view.endpoints():
        if function["class"] == "0c0340":
            yield on_device(function["address"], "%s %s is a USB4 or Thunderbolt host interface (class 0c0340)"
                            % (function["address"], function["id"]))


RULES = (
    rule("VH130", "A poor choice for assignment", "warn",
         "It may work. Keep a Realtek NIC in a bridge and give guests virtio, which is enough for 1 Gb/s; where "
         "assignment pays, use an Intel NIC. Replace a card behind a conventional PCI bridge, or an ASMedia "
         "controller, by another PCI Express one.", _poor),
    rule("VH132", "Ids cannot tell identical devices apart", "info",
         "Select and bind these by address, as this collection does; vfio-pci.ids= would take them all.", _twins),
    rule("VH401", "The function cannot be reset", "warn",
         "The guest gets the device as the last user left it, and starting the guest again may need a reboot of "
         "the host. Try that before you rely on it, or choose a device that has FLR.", _no_reset),
    rule("VH402", "The kernel would use a reset that is known not to work", "warn",
         "Update the kernel, or leave the method out with the role pci_settings: reset_method with the remaining ones.",
         _faulty_reset_in_use),
    rule("VH403", "The functions of a card are only reset together", "info",
         "Give all of them to the same guest.", _reset_together),
    rule("VH404", "A link runs below what both its ends can", "warn",
         "Reseat the card, leave out a riser or an extension cable, look in the manual which slots share lanes, "
         "and in the firmware setup for the slot's speed.", _slow_link),
    rule("VH405", "The device may not come back from D3cold", "info",
         "If the guest fails to start with it, keep it awake: d3cold_allowed: false with the role pci_settings, or "
         "options vfio-pci disable_idle_d3=1 in /etc/modprobe.d. A cold start brings it back.", _d3cold),
    rule("VH406", "The firmware forbids to assign this function (RMRR)", "refuse",
         "Look in the firmware setup for what uses the function there (management, shared memory, SMI) and turn "
         "it off for this slot, update the firmware, or choose another function.", _rmrr, acknowledgeable=False),
    rule("VH407", "The device can be split into virtual functions (SR-IOV)", "info",
         "Consider to give guests a virtual function each and leave the physical one to the host: the role sriov makes "
         "them.", _sriov),
    rule("VH408", "Virtual functions would all be in one group here", "warn",
         "Do not create them for several guests. Move the card to a slot behind a port with ACS (often one of the "
         "chipset's), look for ACS in the firmware setup, or give the whole card to one guest.", _sriov_useless),
    rule("VH409", "There is a vfio driver made for this device", "info",
         "It adds what vfio-pci cannot know, such as migration. A libvirt that knows of it takes it by itself "
         "for managed devices; vfio-pci works too.", _variants),
    rule("VH410", "A disk controller is seldom worth assigning", "info",
         "Prefer a virtual disk (virtio): it costs less than the disk's own latency and boots anywhere. An NVMe "
         "drive that belongs to one guest alone is the exception.", _disk_controllers),
    rule("VH411", "A fast NIC is worth assigning", "info",
         "At 10 Gb/s and more, or where latency counts, assign it, or a virtual function of it.", _fast_nics),
    rule("VH412", "A NIC of 1 Gb/s is better bridged", "info",
         "Put it in a bridge and give guests virtio: as fast, and shared by all of them.", _slow_nics),
    rule("VH413", "vfio-pci refuses this device", "refuse",
         "Choose another device. The option disable_denylist=1 of vfio-pci lifts it for guests that you trust "
         "like the host; acknowledge this only then.", _denied),
    rule("VH414", "The device needs an interrupt line of its own", "warn",
         "Where it shares one, move the card to another slot, or take the driver off the function it shares it "
         "with.", _broken_intx),
    rule("VH415", "The function does not answer", "warn",
         "Switch the machine off, wait, and start it again; a warm reboot may not be enough. If it stays, check "
         "the seat and the power of the card.", _does_not_answer),
    rule("VH417", "Virtual functions hang on a device that the host uses", "info",
         "The guests that have them depend on the host's driver: do not unload or reset it, and do not change "
         "the number of virtual functions, while they run.", _used_physfn),
    rule("VH418", "The host needs one of several identical devices", "warn",
         "Bind by address, as this collection does. Take these ids out of vfio-pci.ids= and of options vfio-pci "
         "in /etc/modprobe.d, if they are there.", _used_twins),
    rule("VH419", "A reset is known not to work, and the kernel leaves it out", "info",
         "Nothing to do. Restart a guest with the device once before you rely on it.", _faulty_reset_avoided),
    rule("VH420", "A link runs below what the device can", "info",
         "Nothing is wrong. For full speed use a slot that offers it; look at an idle GPU again under load.",
         _limited_link),
    rule("VH421", "A wireless adapter cannot be a port of a bridge", "info",
         "To bring a guest into the wireless network, route it through the host, or assign the adapter and lose "
         "it for the host.", _wireless),
    rule("VH422", "A USB4 or Thunderbolt controller is not its ports", "info",
         "Leave it to the host. What is plugged in appears as a device of its own, behind other bridges; look at "
         "the groups again when it is there.", _usb4),
)
