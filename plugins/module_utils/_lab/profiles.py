# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The lab's machines as QEMU arguments. Pure: names and paths in, lists of strings out."""

from __future__ import annotations

import re

IOMMU = {
    "p8h67": "intel-iommu,intremap=on,caching-mode=on",
    "amd": "amd-iommu,intremap=on",
}
"""Profile to its IOMMU. Both are the machine of the how-to; only the vendor of the IOMMU differs."""

LAN = "192.0.2.0/24"
"""What the second NIC is connected to: a network of documentation addresses with a DHCP server."""

# The board of the how-to, function by function: (device, address, properties). A stand-in has the
# class of what it stands for; where QEMU emulates the very chip (xHCI, EHCI, AHCI) it is that.
BOARD = (
    # The CPU's root port: no ACS, so it shares a group with all that is behind it.
    ("pcie-root-port", "01.0", "id=cpu_port,bus=pcie.0,chassis=1,disable-acs=on"),
    ("VGA", "02.0", "bus=pcie.0"),
    ("virtio-serial-pci", "16.0", "bus=pcie.0"),
    ("e1000e", "19.0", "bus=pcie.0,netdev=ssh"),
    ("ich9-usb-ehci2", "1a.0", "bus=pcie.0"),
    ("ich9-intel-hda", "1b.0", "id=hda0,bus=pcie.0"),
    # The chipset's root ports: real ones are isolated by a quirk, these by an ACS capability.
    ("pcie-root-port", "1c.0", "id=pch_port0,bus=pcie.0,chassis=2,multifunction=on"),
    ("pcie-root-port", "1c.5", "id=pch_port5,bus=pcie.0,chassis=3"),
    ("pcie-root-port", "1c.6", "id=pch_port6,bus=pcie.0,chassis=4"),
    ("pcie-root-port", "1c.7", "id=pch_port7,bus=pcie.0,chassis=5"),
    ("ich9-usb-ehci1", "1d.0", "bus=pcie.0"),
    ("secondary-vga", "00.0", "bus=cpu_port,multifunction=on"),
    ("ich9-intel-hda", "00.1", "id=hda1,bus=cpu_port"),
    # Without its option ROM: that one drives VGA's legacy ports, which only the first display has, and a guest
    # in emulation in emulation waits for them for minutes.
    ("ati-vga", "00.0", "bus=pch_port0,multifunction=on,romfile="),
    ("ich9-intel-hda", "00.1", "id=hda2,bus=pch_port0"),
    ("nec-usb-xhci", "00.0", "bus=pch_port5"),
    ("rtl8139", "00.0", "bus=pch_port6,netdev=lan"),
    ("pcie-pci-bridge", "00.0", "bus=pch_port7"),
)
CODECS = tuple("hda-duplex,bus=hda%d.0,audiodev=silence" % number for number in range(3))

BUILT_IN = ("00.0", "1f.0", "1f.2", "1f.3")
"""Slots of the root bus that QEMU's q35 has filled itself: host bridge, LPC, SATA, SMBus."""

PLACE = re.compile(r"^(?:([A-Za-z][A-Za-z0-9_.-]*)/)?([01][0-9a-f]\.[0-7])$")
BUS = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]*$")
DEVICE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
PROPERTIES = re.compile(r"^[A-Za-z0-9_-]+=[^,]*(,[A-Za-z0-9_-]+=[^,]*)*$")
DISK = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}$")
KEYS = {
    "add": {"add", "at", "properties", "disk", "size"},
    "move": {"move", "to"},
    "remove": {"remove"},
}
"""What a change of the board may say, by what it does."""

NO_BUS = ("nvme-subsys",)
"""Devices of QEMU that are on no bus; others name them by their id."""

DISK_SIZE = 1024
"""MiB of a disk that a change of the board adds, unless it says more. Only what is used takes space."""


def board(changes=()):
    """The machine's board after ``changes``, in the order that QEMU needs: a bus before what is on it.

    Each change is a dict, and they are made one after the other:

    - ``add`` (QEMU's name of a device), ``at`` (its place), and perhaps ``properties`` (``"id=x,serial=y"``),
      ``disk`` (name of a disk of this lab for it) with ``size`` (MiB);
    - ``move`` (an id or a place) and ``to`` (a place);
    - ``remove`` (an id or a place).

    A place is ``BUS/SLOT.FUNCTION``, as in ``cpu_port/00.0``; without a bus it is on the root bus. A device that has
    no address, such as ``ide-hd``, is at a bus alone: ``ide.1``. One on no bus (NO_BUS) has an id and no ``at``.
    Returns ``((device, address, properties), ...)`` like BOARD; ``address`` is "" where there is none.
    Raises ValueError with the change that cannot be made and why.
    """
    entries = [_entry(*parts) for parts in BOARD]
    for change in changes or ():
        try:
            _change(entries, {key: value for key, value in change.items() if value is not None})
        except ValueError as exc:
            raise ValueError("change of the lab's board %s: %s" % (_said(change), exc)) from None
    _check(entries)
    return tuple((entry["device"], entry["address"], entry["properties"]) for entry in _ordered(entries))


def disks(changes=()):
    """``{name: MiB}`` of the disks that changes of the board add."""
    return {change["disk"]: change.get("size") or DISK_SIZE for change in changes or () if change.get("disk")}


def _said(change):
    return "{%s}" % ", ".join("%s: %s" % (key, value) for key, value in change.items() if value is not None)


def _entry(device, address, properties):
    values = dict(part.split("=", 1) for part in properties.split(",") if part)
    return {"device": device, "address": address, "properties": properties,
            "bus": values.get("bus"), "id": values.get("id")}


def _place(text):
    """``(bus, address)`` of a place."""
    found = PLACE.match(text)
    if found:
        return found.group(1) or "pcie.0", found.group(2)
    if BUS.match(text) and "/" not in text:
        return text, ""
    raise ValueError("%r is no place; write BUS/SLOT.FUNCTION, such as cpu_port/00.0, or SLOT.FUNCTION" % text)


def _change(entries, change):
    kinds = [kind for kind in KEYS if kind in change]
    if len(kinds) != 1:
        raise ValueError("it must say one of add, move and remove")
    kind = kinds[0]
    unknown = sorted(set(change) - KEYS[kind])
    if unknown:
        raise ValueError("%s does not go with %s" % (", ".join(unknown), kind))
    if kind == "add":
        _add(entries, change)
        return
    entry = _find(entries, change[kind])
    if "netdev=ssh" in entry["properties"].split(",") and kind == "remove":
        raise ValueError("this is the NIC that the lab is reached by")
    entries.remove(entry)
    if kind == "move":
        if "to" not in change:
            raise ValueError("to where?")
        bus, address = _place(change["to"])
        rest = [part for part in entry["properties"].split(",") if part and not part.startswith("bus=")]
        _put(entries, _entry(entry["device"], address, ",".join(rest + ["bus=" + bus])))


def _add(entries, change):
    properties = change.get("properties") or ""
    if not DEVICE.match(change["add"]):
        raise ValueError("%r is no name of a QEMU device" % change["add"])
    bare = change["add"] in NO_BUS
    if bare and ("at" in change or "disk" in change):
        raise ValueError("%s is on no bus and has no disk" % change["add"])
    if not bare and "at" not in change:
        raise ValueError("at which place?")
    if properties and not PROPERTIES.match(properties):
        raise ValueError("properties are written name=value,name=value")
    taken = {part.split("=")[0] for part in properties.split(",")} & {"bus", "addr", "drive"}
    if taken:
        raise ValueError("%s follows from the place and the disk" % ", ".join(sorted(taken)))
    if "size" in change and "disk" not in change:
        raise ValueError("size is that of a disk, and there is none")
    if "disk" in change:
        if not DISK.match(change["disk"]):
            raise ValueError("disk %r: use up to 31 small letters, digits and hyphens" % change["disk"])
        drive = "drive=disk-" + change["disk"]
        if any(drive in entry["properties"].split(",") for entry in entries):
            raise ValueError("there is a disk %s already" % change["disk"])
        properties = ",".join(filter(None, [properties, drive]))
    if bare:
        entry = _entry(change["add"], "", properties)
        if not entry["id"]:
            raise ValueError("it needs an id")
        _put(entries, entry)
        return
    bus, address = _place(change["at"])
    _put(entries, _entry(change["add"], address, ",".join(filter(None, [properties, "bus=" + bus]))))


def _put(entries, entry):
    if entry["bus"] == "pcie.0" and entry["address"] in BUILT_IN:
        raise ValueError("%s is the chipset's own" % entry["address"])
    for other in entries:
        if entry["bus"] and (other["bus"], other["address"]) == (entry["bus"], entry["address"]):
            raise ValueError("%s is there" % other["device"])
        if entry["id"] and other["id"] == entry["id"]:
            raise ValueError("the id %s is that of another device, %s" % (entry["id"], other["device"]))
    if entry["bus"] == "ide.0":
        raise ValueError("ide.0 has the root disk")
    entries.append(entry)


def _find(entries, text):
    for entry in entries:
        if entry["id"] == text:
            return entry
    place = _place(text)
    for entry in entries:
        if (entry["bus"], entry["address"]) == place:
            return entry
    raise ValueError("there is no %s; ids are %s" % (text, ", ".join(sorted(e["id"] for e in entries if e["id"]))))


def _on(entry, ids):
    """The id that an entry's bus comes from, None for a bus of the machine itself."""
    bus = entry["bus"]
    if bus in (None, "pcie.0") or re.match(r"^ide\.[0-5]$", bus):
        return None
    owner = bus if bus in ids else bus.rsplit(".", 1)[0]
    return owner


def _check(entries):
    ids = {entry["id"] for entry in entries if entry["id"]}
    for entry in entries:
        if _on(entry, ids) not in ids | {None}:
            raise ValueError("the lab's board: %s is on %s, and no device has that id any more; move or remove it too"
                             % (entry["device"], entry["bus"]))
    taken = {(entry["bus"], entry["address"]) for entry in entries}
    for entry in entries:
        # A slot whose function 0 is missing is an empty one for whoever looks.
        if entry["address"] and (entry["bus"], entry["address"][:-1] + "0") not in taken:
            raise ValueError("the lab's board: %s at %s/%s cannot be seen, for there is no function 0 in its slot"
                             % (entry["device"], entry["bus"], entry["address"]))


def _ordered(entries):
    ids = {entry["id"] for entry in entries if entry["id"]}
    done, left, order = {None}, list(entries), []
    while left:
        ready = [entry for entry in left if _on(entry, ids) in done]
        if not ready:
            raise ValueError("the lab's board: %s is behind itself" % left[0]["device"])
        order.append(ready[0])
        done.add(ready[0]["id"])
        left.remove(ready[0])
    return order


def accelerator_arguments(accelerator):
    """``kvm`` or ``tcg`` to QEMU's arguments; both show every CPU feature they can.

    Emulated, that has to be so: with five-level paging taken away (``max,la57=off``) QEMU 7.2 lets the
    lab's kernel crash as soon as two guests run in it. The store of translated code is small (64 MiB; QEMU takes
    1 GiB): a write to a page of memory that code was once translated from makes QEMU search all of that code, and
    after a reset that is every page. A reboot took 173 s with the default and takes 100 s.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max"]


def machine_arguments(profile, accelerator, name, memory, cpus, disk, console, monitor, ssh_port, keys, internet=False,
                      firmware=None, changes=(), disk_file="disk-%s.qcow2"):
    """QEMU's arguments for a lab.

    :param memory: MiB. :param disk: the overlay. :param console: file for the serial console.
    :param monitor: path of the monitor socket. :param ssh_port: loopback port for SSH.
    :param keys: dict with the paths ``host_key`` and ``authorized_key``.
    :param internet: whether the machine may open connections to the outside.
    :param firmware: ``(code, variables)``: UEFI's two flash files; None is QEMU's BIOS.
    :param changes: of the board, see :func:`board`. :param disk_file: path of the disks that they add, with ``%s``
        for a disk's name.
    Raises ValueError for a profile that does not exist and for a change that cannot be made.
    """
    if profile not in IOMMU:
        raise ValueError("lab profile %r: known are %s" % (profile, ", ".join(sorted(IOMMU))))
    argv = ["-name", "vfio-host-lab-" + name, "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", "q35,kernel-irqchip=split" if accelerator == "kvm" else "q35"]
    argv += accelerator_arguments(accelerator)
    argv += ["-m", str(memory), "-smp", str(cpus)]
    if firmware:
        argv += ["-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + _comma(firmware[0])]
        argv += ["-drive", "if=pflash,unit=1,format=raw,file=" + _comma(firmware[1])]
        # The firmware would try each NIC in four ways, for minutes, when a disk does not boot.
        argv += ["-global", "e1000e.romfile=", "-global", "rtl8139.romfile="]
    if profile != "amd":
        argv += ["-device", IOMMU[profile]]
    restrict = "off" if internet else "on"
    argv += ["-netdev", "user,id=ssh,restrict=%s,hostfwd=tcp:127.0.0.1:%d-:22" % (restrict, ssh_port)]
    argv += ["-netdev", "user,id=lan,restrict=on,net=" + LAN]
    argv += ["-audiodev", "none,id=silence"]
    placed = board(changes)
    for name in disks(changes):
        argv += ["-drive", "if=none,id=disk-%s,format=qcow2,cache=unsafe,discard=unmap,file=%s"
                 % (name, _comma(disk_file % name))]
    for device, address, properties in placed:
        argv += ["-device", ",".join(filter(None, [device, address and "addr=" + address, properties]))]
    if profile == "amd":
        # Behind the board: its own PCI function takes the first slot that is free, which is 03 then.
        argv += ["-device", IOMMU[profile]]
    ids = [part for dummy, dummy, properties in placed for part in properties.split(",") if part.startswith("id=")]
    for number, codec in enumerate(CODECS):
        if "id=hda%d" % number in ids:
            argv += ["-device", codec]
    argv += ["-drive", "if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file=" + _comma(disk)]
    argv += ["-device", "ide-hd,bus=ide.0,drive=root"]
    argv += ["-fw_cfg", "name=opt/vfio.host/host_key,file=" + _comma(keys["host_key"])]
    argv += ["-fw_cfg", "name=opt/vfio.host/authorized_key,file=" + _comma(keys["authorized_key"])]
    argv += ["-serial", "file:" + console]
    argv += ["-qmp", "unix:%s,server=on,wait=off" % _comma(monitor)]
    return argv


def finish_arguments(disk, kernel, initrd, console, init):
    """QEMU's arguments for the one boot that installs the boot loader from inside the fresh image."""
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
        "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-smp", "2",
        "-drive", "if=none,id=root,format=raw,cache=unsafe,file=" + _comma(disk),
        "-device", "ide-hd,bus=ide.0,drive=root",
        "-kernel", kernel, "-initrd", initrd,
        "-append", "root=/dev/sda2 ro quiet console=ttyS0 panic=-1 init=" + init,
        "-serial", "file:" + console,
    ]  # fmt: skip


def probe_arguments(kernel, initrd):
    """QEMU's arguments to see whether hardware virtualisation can run an ordinary kernel.

    Without a usable init the kernel panics and, with ``panic=-1``, resets: QEMU then ends.
    """
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
        "-accel", "kvm", "-cpu", "host", "-m", "512",
        "-kernel", kernel, "-initrd", initrd,
        "-append", "console=ttyS0 panic=-1 rdinit=/none init=/none root=/dev/ram0",
        "-serial", "stdio",
    ]  # fmt: skip


def _comma(path):
    """QEMU's own escape for a comma inside an option's value."""
    return path.replace(",", ",,")
