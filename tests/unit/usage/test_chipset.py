# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that are the machine itself."""

from __future__ import annotations

from ansible_collections.vfio.host.tests.unit.usage.desks import LPC, Found, machine, node, opens

BMC, SMBUS = "0000:02:00.0", "0000:00:1f.4"


def test_the_lpc_bridge_and_its_companions(tmp_path):
    assert Found(machine(tmp_path)).of("VH208") == {(LPC, "chipset"), (SMBUS, "chipset")}  # not the audio in its slot


def test_a_headless_server(tmp_path):
    made = machine(tmp_path)
    made.pci(BMC, "1a03:2000", "030000", parent="0000:00:01.0", driver="ast")
    home = made.homes[SMBUS] + "/iTCO_wdt/watchdog/watchdog0"
    made.write(home + "/state", "inactive\n")
    made.link("/sys/class/watchdog/watchdog0", home)
    node(made, "249:0", SMBUS, "iTCO_wdt/watchdog/watchdog0", "watchdog0")
    made.folder("/sys/devices/platform/IPI0001:00/ipmi/ipmi0")
    made.link("/sys/class/ipmi/ipmi0", "/sys/devices/platform/IPI0001:00/ipmi/ipmi0")
    found = Found(made)
    assert (BMC, "BMC") in found.of("VH208") and (SMBUS, "watchdog") not in found.of("VH208")
    made.write(home + "/state", "active\n")
    opens(made, 1, "systemd")
    made.link("/proc/1/fd/7", "/dev/watchdog0")
    found = Found(made)
    assert (SMBUS, "watchdog") in found.of("VH208")
    assert found.of("VH206") == {(SMBUS, "systemd has /dev/watchdog0 open")}


def test_another_display_is_no_bmc(tmp_path):
    made = machine(tmp_path)
    made.pci(BMC, "102b:0534", "030000", parent="0000:00:01.0")
    made.pci("0000:02:01.0", "102b:0520", "030000", parent="0000:00:01.0")  # a plain Matrox card
    assert [address for address, what in Found(made).of("VH208") if what == "BMC"] == [BMC]


def test_tpm_on_the_flash_controller_and_the_iommus_function(tmp_path):
    made = machine(tmp_path)
    made.pci("0000:00:1f.5", "8086:a324", "0c8000")
    made.pci("0000:00:00.2", "1022:1451", "080600")
    for name, home in (("tpm/tpm0", made.homes["0000:00:1f.5"] + "/spi_master/spi0/spi0.0/tpm/tpm0"),
                       ("iommu/ivhd0", made.homes["0000:00:00.2"] + "/iommu/ivhd0"),
                       ("tpm/tpm1", "/sys/devices/LNXSYSTM:00/MSFT0101:00/tpm/tpm1")):
        made.folder(home)
        made.link("/sys/class/" + name, home)
    found = Found(made)
    assert len([use for use in found.uses if use["finding"] == "VH208"]) == 5
    found = found.of("VH208")
    assert {("0000:00:1f.5", "TPM"), ("0000:00:1f.5", "chipset"), ("0000:00:00.2", "IOMMU")} <= found
    assert len(found) == 5
