# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What started this system, as firmware, loader and kernel have left it: nothing here looks at what is installed."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens

EFI = "/sys/firmware/efi"
EFIVARS = EFI + "/efivars"
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Vendor of the variables of the Boot Loader Interface (systemd.io/BOOT_LOADER_INTERFACE)."""
GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Vendor of the variables of the UEFI specification itself (SecureBoot, BootOrder)."""

HEADER = 4
"""Bytes of attributes before the value of a variable in efivarfs."""


def variable(host, name, guid=LOADER_GUID):
    """The value of an EFI variable as bytes without its attributes, or None."""
    data = host.read_bytes("%s/%s-%s" % (EFIVARS, name, guid), 1 << 16)
    return None if data is None or len(data) < HEADER else data[HEADER:]


def text_variable(host, name):
    """A variable of the Boot Loader Interface as text, or None."""
    data = variable(host, name)
    return None if data is None else data.decode("utf-16-le", "replace").rstrip("\0")


def secure_boot(host):
    """True or False; None where there is no such variable."""
    data = variable(host, "SecureBoot", GLOBAL_GUID)
    return None if not data else data[0] == 1


def booted(host):
    """What is known of this boot.

    ``efi`` (bool), ``variables`` (bool: EFI variables can be read), ``loader`` (``LoaderInfo``:
    ``systemd-boot 252.39-1``, ``GRUB 2.12`` or None), ``stub`` (``StubInfo`` of a UKI or None),
    ``entry`` (``LoaderEntrySelected`` or None), ``boot_image`` (value of ``BOOT_IMAGE=``, which GRUB
    and syslinux put in front, or None), ``secure_boot`` (bool or None), ``tokens`` (the running line).
    """
    running = tokens.split(host.read("/proc/cmdline") or "")
    images = [token.split("=", 1)[1] for token in running if token.startswith("BOOT_IMAGE=")]
    return {
        "efi": host.isdir(EFI),
        "variables": bool(host.listdir(EFIVARS)),
        "loader": text_variable(host, "LoaderInfo"),
        "stub": text_variable(host, "StubInfo"),
        "entry": text_variable(host, "LoaderEntrySelected"),
        "boot_image": images[0] if images else None,
        "secure_boot": secure_boot(host),
        "tokens": running,
    }
