# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Read what bridges need to know of the machine's links, from sysfs alone: no command, no change."""

from __future__ import annotations

import os

SYS = "/sys/class/net"

ARPHRD_ETHER = 1  # include/uapi/linux/if_arp.h
NET_ADDR_PERM = 0  # include/uapi/linux/netdevice.h: the address is the hardware's own
NET_ADDR_RANDOM = 1  # made up by the kernel, another one after each boot
IFF_UP = 1  # include/uapi/linux/if.h


def read_link(host, name):
    """One link as a dict, or None when there is none of that name.

    ``{name, index, type, mac, assigned, mtu, up, bridge, master, ports, uppers, wireless, bus, driver,
    stp, forward_delay}``: type is ARPHRD_*, assigned is NET_ADDR_*, bus is pci, usb or None, ports
    and uppers are names, forward_delay is in seconds.
    """
    here = "%s/%s" % (SYS, name)
    if not host.isdir(here):
        return None
    master = host.readlink(here + "/master")
    bridge = host.isdir(here + "/bridge")
    delay = _number(host, here + "/bridge/forward_delay")  # hundredths of a second
    return {
        "name": name,
        "index": _number(host, here + "/ifindex"),
        "type": _number(host, here + "/type"),
        "mac": host.read_attribute(here + "/address"),
        "assigned": _number(host, here + "/addr_assign_type"),
        "mtu": _number(host, here + "/mtu"),
        "up": bool((_number(host, here + "/flags") or 0) & IFF_UP),
        "bridge": bridge,
        "master": None if master is None else os.path.basename(master),
        "ports": host.listdir(here + "/brif") if bridge else [],
        "uppers": [entry[6:] for entry in host.listdir(here) if entry.startswith("upper_")],
        "wireless": host.exists(here + "/wireless") or host.exists(here + "/phy80211"),
        "bus": _bus(host, here + "/device"),
        "driver": os.path.basename(host.readlink(here + "/device/driver") or "") or None,
        "stp": bool(_number(host, here + "/bridge/stp_state")) if bridge else None,
        "forward_delay": None if delay is None else delay // 100,
    }


def _number(host, path):
    text = host.read_attribute(path)
    try:
        return int(text, 0)
    except (TypeError, ValueError):
        return None


def _bus(host, device):
    """``pci`` or ``usb`` when the link hangs on such a device, however far up (virtio sits between)."""
    if not host.exists(device):
        return None
    path = host.real(device)
    while path not in ("/", ""):
        bus = os.path.basename(host.readlink(path + "/subsystem") or "")
        if bus in ("pci", "usb"):
            return bus
        path = os.path.dirname(path)
    return None
