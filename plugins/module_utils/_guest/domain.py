# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The libvirt domain XML of a guest. Pure.

Written with ElementTree, so that nothing a user wrote can become markup.
"""

from __future__ import annotations

import hashlib
import re
from xml.etree import ElementTree as ET

from ansible_collections.vfio.host.plugins.module_utils._guest.identity import guest_mac, guest_uuid


def build(guest, machine_id, virt_type="kvm"):
    """The wanted domain (Element) for a guest of :func:`spec.normalise`.

    Each assigned device sits in its own slot, behind its own root port (bus 1, 2, ...), its functions
    side by side as on the host; libvirt alone would scatter them over slots, and drivers that look
    for function 1 beside function 0 would not find it.
    """
    domain = ET.Element("domain", type=virt_type)
    _add(domain, "name", guest["name"])
    _add(domain, "uuid", guest_uuid(machine_id, guest["name"]))
    for tag in ("memory", "currentMemory"):
        _add(domain, tag, str(guest["memory"] // 1024), unit="KiB")
    _add(domain, "vcpu", str(guest["vcpus"]), placement="static")
    _os(domain, guest)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    cpu = _add(domain, "cpu", mode="host-passthrough")
    # One socket: desktop editions of Windows use only the first socket or two.
    _add(cpu, "topology", sockets="1", dies="1", cores=str(guest["vcpus"]), threads="1")
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "destroy")
    devices = _add(domain, "devices")
    for index, disk in enumerate(guest["disks"]):
        _disk(devices, disk, index)
    for bus, device in enumerate(guest["devices"], 1):
        _add(devices, "controller", type="pci", index=str(bus), model="pcie-root-port")
    if guest["network"]:
        interface = _add(devices, "interface", type="bridge")
        _add(interface, "mac", address=guest_mac(machine_id, guest["name"], 0))
        _add(interface, "source", bridge=guest["network"])
        _add(interface, "model", type="virtio")
    _serial(devices, guest["serial_log"])
    _display(devices, guest["display"])
    for bus, device in enumerate(guest["devices"], 1):
        _hostdevs(devices, device, bus)
    # A balloon cannot give back pinned memory; without one the guest does not try.
    _add(devices, "memballoon", model="none")
    return domain


def guest_functions(addresses):
    """Function number in the guest's slot for each host address (sorted list in, list of ints out).

    The host's numbers when they are of one slot with a function 0, else 0, 1, 2 ...: a slot without
    function 0 is an empty slot to the guest.
    """
    numbers = [int(address[-1]) for address in addresses]
    one_slot = len({address[:-2] for address in addresses}) == 1
    return numbers if one_slot and 0 in numbers else list(range(len(addresses)))


def disk_target(index):
    """``vda`` ... ``vdz``, ``vdaa`` ... for disk ``index`` from 0."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return "vd" + letters


def device_alias(name, function):
    """libvirt's user alias for a function; only letters, digits, ``_`` and ``-`` may stand in it."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if plain != name:
        plain += "-" + hashlib.sha256(name.encode("utf-8")).hexdigest()[:6]
    return "ua-%s-%d" % (plain, function)


def _add(parent, tag, text=None, **attributes):
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _os(domain, guest):
    element = _add(domain, "os")
    _add(element, "type", "hvm", arch="x86_64", machine="q35")
    for option in ("kernel", "initrd", "cmdline"):
        if guest[option]:
            _add(element, option, guest[option])


def _disk(devices, disk, index):
    kind, attribute = ("block", "dev") if disk["block"] else ("file", "file")
    element = _add(devices, "disk", type=kind, device="disk")
    _add(element, "driver", name="qemu", type=disk["format"])
    _add(element, "source", **{attribute: disk["path"]})
    _add(element, "target", dev=disk_target(index), bus="virtio")
    if disk["readonly"]:
        _add(element, "readonly")


def _serial(devices, log):
    element = _add(devices, "serial", type="file" if log else "pty")
    if log:
        _add(element, "source", path=log)
    _add(element, "target", port="0")


def _display(devices, display):
    if display == "vnc":
        graphics = _add(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
        _add(graphics, "listen", type="address", address="127.0.0.1")
    video = _add(devices, "video")
    _add(video, "model", type="vga" if display == "vnc" else "none")


def _hostdevs(devices, device, bus):
    addresses = [function["address"] for function in device["functions"]]
    numbers = guest_functions(addresses)
    for address, number in zip(addresses, numbers):
        # managed='no': the functions were given to vfio-pci at boot, libvirt never touches drivers.
        element = _add(devices, "hostdev", mode="subsystem", type="pci", managed="no")
        source = _add(element, "source")
        _add(source, "address", **_host_address(address))
        _add(element, "alias", name=device_alias(device["name"], number))
        place = _add(
            element, "address", type="pci", domain="0x0000", bus="0x%02x" % bus, slot="0x00", function="0x%x" % number
        )
        if number == 0 and len(numbers) > 1:
            place.set("multifunction", "on")


def _host_address(address):
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    return {"domain": "0x" + domain, "bus": "0x" + bus, "slot": "0x" + slot, "function": "0x" + function}
