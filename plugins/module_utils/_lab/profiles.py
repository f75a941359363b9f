# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The lab's machines as QEMU arguments. Pure: names and paths in, lists of strings out."""

from __future__ import annotations

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


def accelerator_arguments(accelerator):
    """``kvm`` or ``tcg`` to QEMU's arguments; both show every CPU feature they can.

    Emulated, that has to be so: with five-level paging taken away (``max,la57=off``) QEMU 7.2 lets the
    lab's kernel crash as soon as two guests run in it.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def machine_arguments(profile, accelerator, name, memory, cpus, disk, console, monitor, ssh_port, keys, internet=False):
    """QEMU's arguments for a lab.

    :param memory: MiB. :param disk: the overlay. :param console: file for the serial console.
    :param monitor: path of the monitor socket. :param ssh_port: loopback port for SSH.
    :param keys: dict with the paths ``host_key`` and ``authorized_key``.
    :param internet: whether the machine may open connections to the outside.
    Raises ValueError for a profile that does not exist.
    """
    if profile not in IOMMU:
        raise ValueError("lab profile %r: known are %s" % (profile, ", ".join(sorted(IOMMU))))
    argv = ["-name", "vfio-host-lab-" + name, "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", "q35,kernel-irqchip=split" if accelerator == "kvm" else "q35"]
    argv += accelerator_arguments(accelerator)
    argv += ["-m", str(memory), "-smp", str(cpus)]
    if profile != "amd":
        argv += ["-device", IOMMU[profile]]
    restrict = "off" if internet else "on"
    argv += ["-netdev", "user,id=ssh,restrict=%s,hostfwd=tcp:127.0.0.1:%d-:22" % (restrict, ssh_port)]
    argv += ["-netdev", "user,id=lan,restrict=on,net=" + LAN]
    argv += ["-audiodev", "none,id=silence"]
    for device, address, properties in BOARD:
        argv += ["-device", "%s,addr=%s,%s" % (device, address, properties)]
    if profile == "amd":
        # Behind the board: its own PCI function takes the first slot that is free, which is 03 then.
        argv += ["-device", IOMMU[profile]]
    for codec in CODECS:
        argv += ["-device", codec]
    argv += ["-drive", "if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file=" + _comma(disk)]
    argv += ["-device", "ide-hd,bus=ide.0,drive=root"]
    argv += ["-fw_cfg", "name=opt/vfio.host/host_key,file=" + _comma(keys["host_key"])]
    argv += ["-fw_cfg", "name=opt/vfio.host/authorized_key,file=" + _comma(keys["authorized_key"])]
    argv += ["-serial", "file:" + console]
    argv += ["-qmp", "unix:%s,server=on,wait=off" % _comma(monitor)]
    return argv


def finish_arguments(disk, kernel, initrd, console, init):
    """QEMU's arguments for the one boot that installs GRUB from inside the fresh image."""
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
