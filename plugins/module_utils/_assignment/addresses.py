# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""PCI addresses as people write them, and the form everything else uses: ``0000:01:00.0``."""

from __future__ import annotations

import functools
import re

_ADDRESS = re.compile(r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])(?:\.([0-7]))?$")


def normalise(value, place):
    """``01:00.0`` or ``0000:01:00.0`` to ``0000:01:00.0``; without a function, to the slot ``0000:01:00``.

    :param place: where the value stands, for the message.
    Raises ValueError naming value, place and remedy.
    """
    if not isinstance(value, str):
        # YAML 1.1 reads an unquoted 01:00.0 as a number in base 60.
        raise ValueError(
            '%s: %r is not text but a number or a structure; put the address in quotes: "0000:01:00.0"'
            % (place, value)
        )
    found = _ADDRESS.match(value.strip().lower())
    if not found:
        raise ValueError(
            "%s: %r is not a PCI address; write a function like 0000:01:00.0 or a slot like 0000:01:00 "
            "(lspci -D lists them)" % (place, value)
        )
    domain, bus, slot, function = found.groups()
    text = "%s:%s:%s" % (domain or "0000", bus, slot)
    return text if function is None else "%s.%s" % (text, function)


def slot_of(address):
    """``0000:01:00.1`` to ``0000:01:00``."""
    return address.split(".")[0]


def device_of(function):
    """What a function is a part of and goes with: its slot; of a virtual one, itself alone."""
    return function["address"] if function.get("physfn") else slot_of(function["address"])


@functools.lru_cache(maxsize=1 << 14)  # sorted again and again: members, slots, findings
def sort_key(address):
    """Order of addresses as numbers: a domain of five digits comes after one of four.

    Other names come last: an IOMMU group can hold platform devices.
    """
    found = _ADDRESS.match(address)
    if not found:
        return (1, address)
    return (0, "") + tuple(int(part or "0", 16) for part in found.groups())
