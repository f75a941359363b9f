# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What must be so on the host before a guest can start. Reads only."""

from __future__ import annotations

import stat

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked


def problems(host, guest, starting):
    """Why the run for ``guest`` would fail: list of str, each with a remedy; [] when nothing is in the way.

    ``starting`` is False for a guest that is only defined or runs already: then its parts need not
    be there. All of it may still come from earlier steps that check mode only predicts.
    """
    found = []
    if not host.exists("/dev/kvm"):
        found.append(
            "/dev/kvm is missing: turn on virtualisation (VT-x or AMD-V) in the firmware and load kvm_intel or kvm_amd"
        )
    for disk in guest["disks"]:
        found.extend(_disk(host, disk, starting))
    if starting:
        for device in guest["devices"]:
            for function in device["functions"]:
                found.extend(_function(host, device["name"], function))
        for option in ("kernel", "initrd"):
            if guest[option] and host.stat(guest[option]) is None:
                found.append("%s %s does not exist: correct the path" % (option, guest[option]))
        if guest["network"] and not host.isdir("/sys/class/net/%s/bridge" % guest["network"]):
            found.append("network %s is not a bridge of this host: create it first" % guest["network"])
    return found


def _disk(host, disk, starting):
    path = disk["path"]
    there = host.stat(path)
    if there is not None:
        if disk["block"] and not stat.S_ISBLK(there.st_mode):
            return ["disk %s is not a block device: correct the path" % path]
        return []
    if disk["size"] is None:
        return ["disk %s does not exist: give it a size to have it created" % path] if starting else []
    folder = path.rsplit("/", 1)[0] or "/"
    if not host.isdir(folder):
        # Not made for the user: a path below a mount that is missing would fill the root disk.
        return ["disk %s: the folder %s does not exist: create or mount it" % (path, folder)]
    if disk["format"] == "qcow2" and host.which("qemu-img") is None:
        return ["disk %s: qemu-img is missing: install qemu-utils (role libvirt does)" % path]
    return []


def _function(host, name, function):
    address = function["address"]
    base = "/sys/bus/pci/devices/" + address
    if not host.isdir(base):
        return ["device %s: there is no function %s: correct the plan" % (name, address)]
    found = []
    for key in ("vendor", "device"):
        wanted = function[key]
        have = host.read_attribute("%s/%s" % (base, key))
        if wanted is not None and have != "0x" + wanted:
            found.append(
                "device %s: %s of %s is %s and not 0x%s: another card is there; make a new plan"
                % (name, key, address, have, wanted)
            )
    link = host.readlink(base + "/driver")
    driver = link.rsplit("/", 1)[-1] if link else None
    if not asked.is_vfio(driver):
        found.append(
            "device %s: %s has driver %s and not %s or a variant of it: bind it (role vfio_devices) and reboot"
            % (name, address, driver or "none", asked.DRIVER)
        )
    return found
