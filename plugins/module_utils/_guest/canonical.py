# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""One form for domain XML, and the comparison *wanted is contained in actual*. Pure.

libvirt completes and rewrites what it is given: units, hexadecimal numbers, versioned machine
names, dozens of added elements. Comparing text would always differ, so both sides are brought to
one form and every element and attribute of the wanted side must be found in the actual one. What
libvirt adds is no difference; a disk, network card, assigned device or display more than wanted is.
"""

from __future__ import annotations

import copy
import io
import re
from xml.etree import ElementTree as ET

EXACT_CHILDREN = {
    "os": {"kernel", "initrd", "cmdline", "loader", "nvram"},
    "devices": {"disk", "interface", "hostdev", "graphics", "filesystem", "video"},
    "disk": {"readonly"},
    "graphics": {"listen"},
}
"""Children that may not be in the actual domain unless they are wanted, by parent."""

EXACT_ATTRIBUTES = {"os": {"firmware"}, "vcpu": {"current"}}
"""The same for attributes."""

_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 10**3,
    "k": 2**10,
    "KiB": 2**10,
    "MB": 10**6,
    "M": 2**20,
    "MiB": 2**20,
    "GB": 10**9,
    "G": 2**30,
    "GiB": 2**30,
    "TB": 10**12,
    "T": 2**40,
    "TiB": 2**40,
}
_NUMBERS = {
    "address": {"domain": "0x%04x", "bus": "0x%02x", "slot": "0x%02x", "function": "0x%x", "controller": "%d"},
    "controller": {"index": "%d"},
    "vendor": {"id": "0x%04x"},
    "product": {"id": "0x%04x"},
    "target": {"port": "%d"},
}
_SAME = {"on": "yes", "off": "no"}


def parse(text):
    """Element of domain XML; the prefixes of foreign namespaces survive a later :func:`render`."""
    for dummy, (prefix, uri) in ET.iterparse(io.BytesIO(text.encode("utf-8")), events=("start-ns",)):
        try:
            ET.register_namespace(prefix, uri)
        except ValueError:
            pass  # a prefix that ElementTree keeps for itself (ns0): only spelled differently
    return ET.fromstring(text)


def canonical(domain):
    """A copy in the one form: KiB, numbers spelled one way, lower-case MAC and UUID, no white space."""
    domain = copy.deepcopy(domain)
    for element in domain.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
        _spell(element)
    return domain


def render(domain):
    """Indented text for people and for libvirt."""
    domain = copy.deepcopy(domain)
    _indent(domain, 0)
    return ET.tostring(domain, encoding="unicode") + "\n"


def redact(domain):
    """A copy without passwords (of VNC and SPICE), for diffs."""
    domain = copy.deepcopy(domain)
    for element in domain.iter():
        if "passwd" in element.attrib:
            element.set("passwd", "********")
    return domain


def differences(wanted, actual):
    """What of ``wanted`` is not so in ``actual``: list of str, each with its path; [] when clean.

    Both are Elements in canonical form, ``wanted`` with the identity of ``actual`` carried over.
    """
    found = []
    _compare(wanted, actual, wanted.tag, found)
    return found


def pair_children(wanted, actual):
    """((wanted or None, actual or None), ...) of two parents' children, matched by what they are."""
    mine, theirs = _keyed(wanted), _keyed(actual)
    pairs = [(child, theirs.get(key)) for key, child in mine.items()]
    return pairs + [(None, child) for key, child in theirs.items() if key not in mine]


def source_address(hostdev):
    """``0000:01:00.0`` that a PCI hostdev takes from the host, or None."""
    address = hostdev.find("source/address")
    if hostdev.get("type") != "pci" or address is None:
        return None
    numbers = [int(address.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")]
    return "%04x:%02x:%02x.%x" % tuple(numbers)


def disk_source(disk):
    """(kind, path) of a disk, (None, None) for an empty drive."""
    source = disk.find("source")
    for attribute in ("file", "dev", "name", "volume"):
        if source is not None and source.get(attribute):
            return disk.get("type"), source.get(attribute)
    return None, None


def _spell(element):
    if element.tag in ("memory", "currentMemory", "maxMemory") and (element.text or "").isdigit():
        unit = _UNITS.get(element.get("unit", "KiB"))
        if unit:
            element.text = str(-(-int(element.text) * unit // 1024))
            element.set("unit", "KiB")
    for attribute, form in _NUMBERS.get(element.tag, {}).items():
        value = element.get(attribute)
        if value is not None:
            try:
                element.set(attribute, form % int(value, 0))
            except ValueError:
                pass  # not a number here (a usb bus "1-2"): left as it is
    if element.tag == "mac" and element.get("address"):
        element.set("address", element.get("address").lower())
    if element.tag == "uuid" and element.text:
        element.text = element.text.lower()


def _compare(wanted, actual, path, found):
    for name, value in wanted.attrib.items():
        have = actual.get(name)
        if name == "machine" and have and re.match(r"^pc-%s-[0-9]" % re.escape(value), have):
            continue  # q35 becomes pc-q35-7.2 at the first definition and stays that
        if _SAME.get(have, have) != _SAME.get(value, value):
            found.append("%s@%s: %s, wanted %s" % (path, name, have, value))
    for name in sorted(EXACT_ATTRIBUTES.get(wanted.tag, ())):
        if name in actual.attrib and name not in wanted.attrib:
            found.append("%s@%s: %s, wanted none" % (path, name, actual.get(name)))
    if wanted.text and wanted.text != actual.text:
        found.append("%s: %s, wanted %s" % (path, actual.text, wanted.text))
    exact = EXACT_CHILDREN.get(wanted.tag, ())
    for mine, theirs in pair_children(wanted, actual):
        if mine is None:
            if theirs.tag in exact:
                found.append("%s/%s: there, not wanted" % (path, _label(theirs)))
        elif theirs is None:
            found.append("%s/%s: missing" % (path, _label(mine)))
        else:
            _compare(mine, theirs, "%s/%s" % (path, _label(mine)), found)


def _keyed(parent):
    """Ordered dict (key -> child): by what identifies a device, else by tag and position."""
    children, counts = {}, {}
    for child in parent:
        identity = _identity(child)
        key = (child.tag, identity)
        if identity is None or key in children:
            counts[child.tag] = counts.get(child.tag, 0) + 1
            key = (child.tag, None, counts[child.tag])
        children[key] = child
    return children


def _identity(element):
    if element.tag == "disk":
        target = element.find("target")
        return None if target is None else target.get("dev")
    if element.tag == "hostdev":
        return source_address(element)
    if element.tag == "interface":
        mac = element.find("mac")
        return None if mac is None else mac.get("address")
    if element.tag == "controller":
        return element.get("type"), element.get("index")
    if element.tag == "graphics":
        return element.get("type")
    return None


def _label(element):
    identity = _identity(element)
    if identity is None:
        return element.tag
    if isinstance(identity, tuple):
        identity = " ".join(str(part) for part in identity)
    return "%s[%s]" % (element.tag, identity)


def _indent(element, level):
    # ElementTree.indent() is there only from Python 3.9 on
    if len(element):
        element.text = "\n" + "  " * (level + 1)
        for child in element:
            _indent(child, level + 1)
            child.tail = "\n" + "  " * (level + 1)
        element[-1].tail = "\n" + "  " * level
