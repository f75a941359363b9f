# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The kernel's quirk tables that decide IOMMU groups, as data.

Facts read from drivers/pci/quirks.c, drivers/pci/search.c and include/linux/pci_ids.h of the stable
trees 5.4.14, 5.10.265, 5.15.215, 6.1.166, 6.6.150, 6.12.15 and 6.18.15. An entry belongs to a series when
it is in that tree or in an older one of these: later stable releases of a series get what older series
got. Between 5.10 and 6.18 nothing else differs, so there are two states: 5.4 and later.

Ids are ``vendor:device``, lower-case hex.
"""

from __future__ import annotations

SERIES = ("5.4", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18")
"""Those examined; another release goes by the newest of these that is not newer than itself."""

MULTIFUNCTION_ENDPOINTS = frozenset("""
    10df:0720 1924:0903 1924:0923 1924:0a03 19a2:0710 8086:105e 8086:105f 8086:1060 8086:10a7 8086:10a9
    8086:10c6 8086:10c9 8086:10d6 8086:10d9 8086:10db 8086:10dd 8086:10e1 8086:10e6 8086:10e7 8086:10e8
    8086:10f1 8086:10f7 8086:10f8 8086:10f9 8086:10fa 8086:10fb 8086:10fc 8086:1507 8086:1509 8086:150a
    8086:150d 8086:150e 8086:150f 8086:1510 8086:1511 8086:1514 8086:1516 8086:1518 8086:151c 8086:1521
    8086:1522 8086:1523 8086:1524 8086:1526 8086:1527 8086:1529 8086:152a 8086:154d 8086:154f 8086:1551
    8086:1558 8086:15b7 8086:15b8
""".split())
"""Vendors say that the functions of these do not reach each other (pci_quirk_mf_endpoint_acs)."""

MULTIFUNCTION_ENDPOINTS_5_10 = frozenset("""
    14e4:16d7 14e4:1750 14e4:1751 14e4:1752 14e4:1760 14e4:1761 14e4:1762 14e4:1763 177d:a026 177d:a059
    177d:a060 1d17:3038 1d17:3104 1d17:9083
""".split())

PORTS = frozenset("""
    10e8:e004 14e4:d714 17cb:0400 17cb:0401 1dbf:0401 1def:e005 1def:e006 1def:e007 1def:e008 1def:e009
    1def:e00a 1def:e00b 1def:e00c
""".split())
"""Ports that isolate without an ACS capability (Qualcomm, APM and Ampere, Broadcom, NXP, Loongson)."""

PORTS_5_10 = frozenset("""
    0014:3c09 0014:3c19 0014:3c29 0014:7a09 0014:7a19 0014:7a29 0014:7a39 0014:7a49 0014:7a59 0014:7a69
    17cb:0111 17cb:0115 17cb:0120 1957:8d80 1957:8d81 1957:8d82 1957:8d83 1957:8d88 1957:8d89 1957:8d8a
    1957:8d8b 1957:8d90 1957:8d91 1957:8d92 1957:8d93 1957:8d98 1957:8d99 1957:8d9a 1957:8d9b 1957:8da0
    1957:8da1 1957:8da8 1957:8da9 1957:8db0 1957:8db1 1957:8db8 1957:8db9
""".split())

AMD_SOUTHBRIDGE = frozenset("""
    1002:4383 1002:4384 1002:4385 1002:4399 1002:439c 1002:439d 1022:7809 1022:780f
""".split())
"""SB7x0 to SB9x0 and FCH: with an IVRS table, multifunction, on a root bus (pci_quirk_amd_sb_acs)."""

INTEL_PCH = {
    "Ibexpeak": frozenset("""
        3b42 3b43 3b44 3b45 3b46 3b47 3b48 3b49 3b4a 3b4b 3b4c 3b4d 3b4e 3b4f 3b50 3b51
    """.split()),
    "Cougarpoint": frozenset("""
        1c10 1c11 1c12 1c13 1c14 1c15 1c16 1c17 1c18 1c19 1c1a 1c1b 1c1c 1c1d 1c1e 1c1f
    """.split()),
    "Pantherpoint": frozenset("""
        1e10 1e11 1e12 1e13 1e14 1e15 1e16 1e17 1e18 1e19 1e1a 1e1b 1e1c 1e1d 1e1e 1e1f
    """.split()),
    "Lynxpoint-H": frozenset("""
        8c10 8c11 8c12 8c13 8c14 8c15 8c16 8c17 8c18 8c19 8c1a 8c1b 8c1c 8c1d 8c1e 8c1f
    """.split()),
    "Lynxpoint-LP": frozenset("""
        9c10 9c11 9c12 9c13 9c14 9c15 9c16 9c17 9c18 9c19 9c1a 9c1b
    """.split()),
    "Wildcat": frozenset("""
        9c90 9c91 9c92 9c93 9c94 9c95 9c96 9c97 9c98 9c99 9c9a 9c9b
    """.split()),
    "Patsburg (X79)": frozenset("""
        1d10 1d12 1d14 1d16 1d18 1d1a 1d1c 1d1e
    """.split()),
    "Wellsburg (X99)": frozenset("""
        8d10 8d11 8d12 8d13 8d14 8d15 8d16 8d17 8d18 8d19 8d1a 8d1b 8d1c 8d1d 8d1e
    """.split()),
    "Lynx Point (9 series)": frozenset("""
        8c90 8c92 8c94 8c96 8c98 8c9a 8c9c 8c9e
    """.split()),
}
"""Device ids of Intel root ports that isolate when the RCBA window is enabled: 5 to 9 series, X79, X99."""

INTEL_SPT = {
    "Sunrise Point-H (100 series)": ((0xa110, 0xa11f), (0xa167, 0xa16a)),
    "Union Point (200 series, Z370)": ((0xa290, 0xa29f), (0xa2e7, 0xa2ee)),
    "7th/8th gen mobile (Sunrise Point-LP)": ((0x9d10, 0x9d1b),),
}
"""Device id ranges of Intel root ports whose ACS registers are double words: capability +4, control +8."""

AL_ROOT_PORT = "1c36:0031"
CAVIUM_ROOT_PORTS = ((0xA000, 0xA7FF), (0xAF84, 0xAF84), (0xB884, 0xB884))
"""177d: ThunderX1, X2, X3."""
ZHAOXIN_PORTS = ((0x0710, 0x071E), (0x0721, 0x0721), (0x0723, 0x0752))
"""1d17, since 5.10: these ports isolate, every other port of the vendor does not, whatever its capability says."""
WANGXUN_NICS = (
    (0x0100, 0x010F), (0x1001, 0x1001), (0x2001, 0x2001), (0x5010, 0x5010), (0x5025, 0x5025), (0x5040, 0x5040),
    (0x5110, 0x5110), (0x5125, 0x5125), (0x5140, 0x5140),
)
"""8088, since 5.10: these isolate, every other function of the vendor does not."""

ALIAS_FUNCTION_0 = frozenset("""
    1180:e476 1180:e832 6766:3d40 6766:3d41
""".split())
"""Each function also makes requests as function 0 of its slot."""

ALIAS_FUNCTION_1 = frozenset("""
    1103:0642 1103:0645 197b:2392 1b4b:9120 1b4b:9123 1b4b:9125 1b4b:9128 1b4b:9130 1b4b:9170 1b4b:9172
    1b4b:917a 1b4b:9182 1b4b:9183 1b4b:91a0 1b4b:9215 1b4b:9220 1b4b:9230 1b4b:9235 1c28:0122
""".split())
"""Each function also makes requests as function 1 of its slot, which need not exist."""

ALIAS_FIXED = {("9005:0285", "9005:02bb"): 0x08, ("9005:0285", "9005:02bc"): 0x08}
"""(id, subsystem) to the devfn it also makes requests as: Adaptec 3405 and 3805."""
ALIAS_MIC = frozenset(("8086:2260", "8086:2264"))
"""Also make requests as 10.0, 11.0 and 12.3 of their bus."""
ALIAS_VCA = frozenset("""
    8086:2954 8086:2955 8086:2956 8086:2958 8086:2959 8086:295a
""".split())
"""Also make requests as functions 0 to 4 of every slot of their bus (since 5.10)."""
ALIAS_WHOLE_BUS = frozenset(("10b5:87b0", "10b5:87b1"))
"""Also make requests as any function of their bus: PLX NTB (since 5.10)."""


def intel_pch(identifier):
    """Name of the chipset whose root port an id is, if the kernel isolates it by the RCBA quirk; else None."""
    vendor, dummy, device = identifier.partition(":")
    if vendor != "8086":
        return None
    return next((name for name, devices in INTEL_PCH.items() if device in devices), None)


def intel_spt(identifier):
    """Name of the chipset whose root port has ACS registers of double words; else None."""
    vendor, dummy, device = identifier.partition(":")
    if vendor != "8086":
        return None
    return next((name for name, ranges in INTEL_SPT.items() if within(device, ranges)), None)


def within(device, ranges):
    """Whether a device id (four hex digits) lies in one of the ranges."""
    number = int(device, 16)
    return any(low <= number <= high for low, high in ranges)


def aliases(function):
    """``[devfn]`` as which a function also makes requests on its own bus, itself left out.

    Without what only the firmware or a device's own memory tells (AMD IVRS aliases, Switchtec).
    """
    slot, own = [int(part, 16) for part in function["address"].rpartition(":")[2].split(".")]
    identifier = function["id"]
    found = ()
    if identifier in ALIAS_FUNCTION_0:
        found = (slot << 3,)
    elif identifier in ALIAS_FUNCTION_1:
        found = (slot << 3 | 1,)
    elif identifier in ALIAS_MIC:
        found = (0x10 << 3, 0x11 << 3, 0x12 << 3 | 3)
    elif identifier in ALIAS_VCA:
        found = tuple(number << 3 | part for number in range(32) for part in range(5))
    elif identifier in ALIAS_WHOLE_BUS:
        found = tuple(range(256))
    else:
        subsystem = "%s:%s" % (function["subsystem_vendor"], function["subsystem_device"])
        if (identifier, subsystem) in ALIAS_FIXED:
            found = (ALIAS_FIXED[(identifier, subsystem)],)
    return [devfn for devfn in found if devfn != slot << 3 | own]
