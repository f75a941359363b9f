# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The table of findings: what each code means, how bad it is and what to do about it.

Codes are stable: a user can look one up in docs/findings.md and acknowledge one for one device.
VH1xx: isolation, the IOMMU and the plan itself. VH2xx: what the host needs for itself.
"""

from __future__ import annotations

DOCS = "docs/findings.md"
SEVERITIES = ("refuse", "warn", "info")


def _rule(title, severity, remedy, acknowledgeable=True):
    return {"title": title, "severity": severity, "remedy": remedy, "acknowledgeable": acknowledgeable}


RULES = {
    "VH101": _rule(
        "The IOMMU group has members outside the device", "refuse",
        "A group goes to one guest as a whole. Add the members to this device if the host can spare them, "
        "move the card to another slot, or look for ACS in the firmware setup.",
        acknowledgeable=False,
    ),
    "VH102": _rule(
        "A bridge cannot be assigned", "refuse",
        "Select the functions behind the bridge. Where the bridge shares a slot with endpoints, select those "
        "and set functions: listed.",
        acknowledgeable=False,
    ),
    "VH110": _rule(
        "Groups are predicted; verified after the reboot before any device is handed over", "info",
        "Nothing to do: the plan is made again on the actual groups after the reboot.",
    ),
    "VH111": _rule(
        "Too little is readable to decide", "refuse",
        "Run the probe as root (become: true). If it was, turn the IOMMU on first (see the kernel parameters of "
        "this machine), reboot and plan on the actual groups.",
        acknowledgeable=False,
    ),
    "VH112": _rule(
        "No IOMMU covers this function", "refuse",
        "The IOMMU is active, yet this function is in no group: it cannot be assigned. Choose another one.",
        acknowledgeable=False,
    ),
    "VH120": _rule(
        "The firmware offers no IOMMU", "refuse",
        "Enter the firmware setup and turn on VT-d (Intel) or AMD-Vi/IOMMU (AMD); VT-x or SVM alone is not it. "
        "No kernel parameter helps while the table is missing.",
        acknowledgeable=False,
    ),
    "VH121": _rule(
        "The IOMMU is off and can be turned on", "info",
        "Nothing to do: the kernel command line and one reboot turn it on.",
    ),
    "VH122": _rule(
        "The kernel command line turns the IOMMU off", "refuse",
        "Remove the token from the boot loader's configuration; nothing added to the command line outweighs it.",
        acknowledgeable=False,
    ),
    "VH130": _rule(
        "A poor choice for assignment", "warn",
        "It may work. Keep Realtek NICs in a bridge and give guests virtio; replace a card behind a conventional "
        "PCI bridge by a PCI Express one.",
    ),
    "VH131": _rule(
        "Two devices of the plan claim the same function", "refuse",
        "Make the selectors disjoint, or join the two entries into one device.",
        acknowledgeable=False,
    ),
    "VH190": _rule(
        "An acknowledgement has no effect", "warn",
        "Correct its code or its device, or remove it.",
        acknowledgeable=False,
    ),
    "VH200": _rule(
        "The host uses this function", "refuse",
        "Move what the evidence names to another device first.",
    ),
    "VH201": _rule(
        "A disk the host uses is behind this function", "refuse",
        "Choose another controller, or move the file systems and swap named to a disk behind another one.",
    ),
    "VH202": _rule(
        "The SSH connection runs over this function", "refuse",
        "Choose another NIC, or manage the host over another one.",
    ),
    "VH203": _rule(
        "The host's display is on this function", "refuse",
        "Make another GPU the primary one in the firmware setup, or acknowledge that the host loses its screen.",
    ),
    "VH204": _rule(
        "The host's default route goes over this function", "refuse",
        "Choose another NIC, or move the default route to another one.",
    ),
    "VH205": _rule(
        "It is unknown whether the host needs this function", "refuse",
        "Let the probe see what it missed (run it as root, on the host itself), or make sure by hand and acknowledge.",
    ),
}


def finding(code, evidence, device=None, host=None):
    """A finding dict about one function (``device``, an address) or about the machine (``host``, a topic).

    :param evidence: list of str, one fact each. Raises KeyError for a code that is not in the table.
    """
    rule = RULES[code]
    result = {
        "code": code,
        "severity": rule["severity"],
        "title": rule["title"],
        "evidence": list(evidence),
        "remedy": rule["remedy"],
        "docs": "%s#%s" % (DOCS, code.lower()),
        "acknowledged": False,
    }
    if device is not None:
        result["device"] = device
    else:
        result["host"] = host
    return result


def rank(item):
    """Sort key of a finding: the worst first, then by code and place."""
    return (SEVERITIES.index(item["severity"]), item["code"], str(item.get("device") or item.get("host") or ""))
