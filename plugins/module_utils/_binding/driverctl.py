# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What driverctl keeps: a file for each device, named by its address, with the driver that it gets.

A udev rule (05-driverctl.rules) loads it whenever a device appears there, whatever device that is, so it is not left
beside a list of ours: two would decide about one function, and one of them does not look which card it is.
"""

from __future__ import annotations

FOLDER = "/etc/driverctl.d"


def path_of(address):
    return "%s/pci-%s" % (FOLDER, address)


def overrides(host, addresses):
    """``{address: text of the file}`` of those that have one."""
    found = {address: host.read(path_of(address)) for address in addresses}
    return {address: text for address, text in found.items() if text is not None}


def refusal(found):
    """Why a run ends here, with the remedy. Pure; ``found`` as of overrides()."""
    return "nothing was changed, since driverctl decides about these already: %s. Run %s, or set driverctl: import" % (
        ", ".join("%s (%s: %s)" % (address, path_of(address), text.strip()) for address, text in sorted(found.items())),
        " and ".join("driverctl unset-override %s" % address for address in sorted(found)))
