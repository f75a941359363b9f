# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests as users write them; ``recorded/NAME.xml`` is what libvirt 9.0 made of each one."""

from __future__ import annotations

MACHINE_ID = "0123456789abcdef0123456789abcdef"


def functions(*addresses):
    return [{"address": address} for address in addresses]


def minimal():
    return {"name": "minimal", "memory": "128MiB", "vcpus": 1}


def devices():
    return {
        "name": "two & <x>",
        "memory": "256MiB",
        "vcpus": 2,
        "devices": [
            {"name": "gaming_gpu", "functions": functions("0000:01:00.0", "0000:01:00.1")},
            {"name": "usb ctl", "functions": functions("0000:03:00.2")},
        ],
        "network": "br0",
        "disks": [{"path": "/srv/a.raw"}, {"path": "/dev/sdz", "readonly": True}],
    }


def kernel():
    return {
        "name": "kernel",
        "memory": 134217728,
        "vcpus": 1,
        "kernel": "/srv/k",
        "initrd": "/srv/i",
        "cmdline": 'console=ttyS0 a="b & <c>"',
        "serial_log": "/srv/log.txt",
        "display": "none",
    }


def vnc():
    return {
        "name": "vnc",
        "memory": "128MiB",
        "vcpus": 3,
        "display": "vnc",
        "devices": [{"name": "g", "functions": functions("0000:02:00.0")}],
        "disks": [{"path": "/srv/b.qcow2"}],
    }


ALL = {"minimal": minimal, "devices": devices, "kernel": kernel, "vnc": vnc}
