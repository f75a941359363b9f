# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the kernel knows about devices that do not reset or interrupt as they should, as data.

Facts read from drivers/pci/quirks.c, drivers/vfio/pci/vfio_pci.c and drivers/vfio/pci/vfio_pci_core.c of
the stable trees 5.4.14, 5.10.265, 5.15.215, 6.1.166, 6.6.150, 6.12.15 and 6.18.15. The tables are the
union of these trees: what one of them knows about a device is true under the others as well.

Ids are ``vendor:device``, lower-case hex.
"""

from __future__ import annotations

NO_BUS_RESET = frozenset("""
    104c:b005 10de:22ce 10de:22d0 168c:0030 168c:0032 168c:0033 168c:0034 168c:003c 168c:003e 177d:a100
    1b21:1164
""".split())
"""Do not come back from a reset of their bus (quirk_no_bus_reset)."""

NO_FLR = frozenset("""
    1022:1487 1022:148c 1022:149c 1022:7901 14c3:0616 8086:1502 8086:1503
""".split())
"""Announce a function level reset that fails (quirk_no_flr)."""

NO_FLR_REVISIONS = frozenset({("d063:1000", "01")})
"""The same, one revision only (quirk_no_flr_snet)."""

NO_PM_RESET = frozenset("""
    15b3:cb84 15b3:cf6c 15b3:cf70 15b3:cf80
""".split())
"""Are not reset by D3hot and back although they say so (quirk_no_pm_reset)."""

BROKEN_INTX_MASKING = frozenset("""
    10ec:8169 1102:000b 1425:0030 1814:0601 1b7c:0004 15b3:1003 15b3:1007 15b3:6340 15b3:634a 15b3:6354
    15b3:6368 15b3:6372 15b3:6732 15b3:673c 15b3:6746 15b3:6750 15b3:675a 15b3:6764 15b3:676e
""".split())
"""The kernel cannot mask their INTx (quirk_broken_intx_masking; mellanox_broken_intx_devs, up to
ConnectX-3). Left out: Intel's i40e family, whose INTx vfio hides from the guest (vfio_pci_nointx), and
ConnectX-4, where the firmware's version decides."""

VFIO_PCI_DENYLIST = {
    "8086:0435": "QAT DH895XCC",
    "8086:0443": "QAT DH895XCC VF",
    "8086:0b25": "DSA of Sapphire Rapids",
    "8086:0cfe": "IAX of Sapphire Rapids",
    "8086:19e2": "QAT C3XXX",
    "8086:19e3": "QAT C3XXX VF",
    "8086:37c8": "QAT C62X",
    "8086:37c9": "QAT C62X VF",
}
"""vfio-pci refuses to bind to these unless its option disable_denylist is set (vfio_pci_dev_in_denylist)."""


def nvidia_no_bus_reset(vendor, device):
    """The accelerators whose bus must not be reset, by a masked id (quirk_nvidia_no_bus_reset)."""
    return vendor == "10de" and int(device, 16) & 0xFFC0 == 0x2340


def faulty_resets(function, on_root_bus):
    """Reset methods that are known not to work for a function of the machine document.

    :return: tuple of the kernel's words for them, as in ``reset_methods``; ``()`` when none is known.
    """
    found = ()
    if function["id"] in NO_FLR or (function["id"], function["revision"]) in NO_FLR_REVISIONS:
        found += ("flr", "af_flr")
    # On a root bus there is no bus reset to use instead, so the kernel keeps this one there
    amd_vga = function["vendor"] == "1002" and function["class"].startswith("0300")
    if not on_root_bus and (amd_vga or function["id"] in NO_PM_RESET):
        found += ("pm",)
    if function["id"] in NO_BUS_RESET or nvidia_no_bus_reset(function["vendor"], function["device"]):
        found += ("bus",)
    return found
