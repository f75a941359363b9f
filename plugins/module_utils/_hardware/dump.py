# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""PCI functions from the text of ``lspci -D -xxxx``, as people paste it into forums. Pure.

Configuration space is taken from the hex rows and judged as everywhere else; only what it cannot hold
comes from the words of lspci: names, drivers, and groups where ``-v`` printed them. What a dump cannot
tell stays at its unknown value. No text raises, and the work is linear in its length.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space, names, pci

COMMAND = "sudo lspci -D -xxxx > dump.txt"
"""What makes a complete dump."""

UNKNOWN_PARENT = "????:??:??.?"
"""Parent of a function that is behind something of which the dump says nothing; in no list of functions."""

VMD_DOMAIN = 0x10000
"""Linux gives domains from here on to what is behind an Intel VMD endpoint (arch/x86, vmd.c)."""

VMD_ENDPOINTS = frozenset("8086:" + device for device in (
    "201d", "28c0", "467f", "4c3d", "7d0b", "9a0b", "a77f", "ad0b", "b06f", "b60b"))
"""Linux drivers/pci/controller/vmd.c."""

_ON_ROOT_BUSES = {"root_port", "rc_endpoint", "rc_event_collector"}
_BEHIND_A_PORT = {"endpoint", "legacy_endpoint", "upstream_port", "downstream_port", "pcie_to_pci"}
"""Port types that say where a function is; the latter have a link, so something is at its other end."""

_QUOTING = "> \t|`\ufeff\r"
_HEADER = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7]) (\S.*: .*)", re.IGNORECASE)
_ROW = re.compile(r"([0-9a-f]{1,2}0): ((?:[0-9a-f]{2}(?: |$))+)", re.IGNORECASE)
_NOTE = re.compile(r"(Kernel driver in use|Kernel modules|NUMA node|IOMMU group): *(\S.*)")

_REGION = re.compile(
    r"(?:Region ([0-5]): (Memory|I/O ports)|(Expansion ROM)) at ([0-9a-f]+) (.*)\[size=(\d+)([KMGT]?)\]")

_BRIDGES = ("PCI bridge", "CardBus bridge")
_REVISION = re.compile(r" \((?:rev|prog-if) [^()]*\)")
_NAMED = re.compile(r"(?:[^\[\]]*\[([0-9a-f]{4})\]: )?(.*) \[([0-9a-f]{4}):([0-9a-f]{4})\]$", re.IGNORECASE)
_NUMERIC = re.compile(r"([0-9a-f]{4}): ([0-9a-f]{4}):([0-9a-f]{4})$", re.IGNORECASE)
_WITHOUT_NAME = re.compile(r"(?:(.+) )?Device(?: [0-9a-f]{4}(?::[0-9a-f]{4})?)?$", re.IGNORECASE)


def parse(text):
    """``{functions, groups, missing, rcba, privileged}`` of a dump.

    ``functions`` have the form of the machine document, sorted by address, without group and use;
    ``groups`` is ``{address: number}`` where the dump names IOMMU groups, else empty; ``missing`` has the
    form of ``source.missing``; ``rcba`` as ``host.iommu.rcba``; ``privileged``: root took the dump, since
    nobody else is given more than 64 bytes.
    """
    missing = []
    sections = _sections(text, missing)
    functions = [_function(section) for section in sections.values()]
    functions.sort(key=lambda function: sort_key(function["address"]))
    _virtual_functions(functions, sections, missing)
    _parents(functions, missing)
    _note_unread(functions, sections, missing)
    return {
        "functions": functions,
        "groups": {a: section["notes"]["IOMMU group"] for a, section in sections.items()
                   if section["notes"].get("IOMMU group", "").isdigit()},
        "missing": missing,
        "rcba": _rcba(sections.get("0000:00:1f.0")),
        "privileged": any(function["config_bytes"] > config_space.HEADER for function in functions),
    }


# -- text ------------------------------------------------------------------------------------------

def _sections(text, missing):
    """``{address: {title, data, read, notes, regions}}``; what is no part of a dump is passed over."""
    sections, section, conflicts = {}, None, []
    for line in text.replace("\xa0", " ").splitlines():
        line = line.strip(_QUOTING)
        row = _ROW.match(line)
        if row:
            if section is not None:
                _take_row(section, int(row.group(1), 16), line[row.start(2):])
            continue
        header = _HEADER.match(line)
        if header:
            if section is not None:
                _close(sections, section, conflicts)
            domain, bus, slot, number, title = header.groups()
            address = ("%s:%s:%s.%s" % (domain or "0000", bus, slot, number)).lower()
            section = {"address": address, "title": title, "rows": {}, "notes": {}, "regions": {}}
            continue
        if section is not None:
            _take_words(section, line)
    if section is not None:
        _close(sections, section, conflicts)
    if conflicts:
        missing.append({
            "input": "second dump of " + " ".join(sorted(set(conflicts), key=sort_key)),
            "why": "the text shows two different devices at one address; the first was taken: give one machine's dump",
        })
    return sections


def _take_row(section, offset, digits):
    data = []
    for pair in digits.split(" "):
        if len(pair) != 2:
            break
        try:
            data.append(int(pair, 16))
        except ValueError:
            break
    if len(data) > len(section["rows"].get(offset, b"")):  # a row cut short, or a time of day in the text around
        section["rows"][offset] = bytes(data[:16])


def _take_words(section, line):
    note, region = _NOTE.match(line), _REGION.match(line)
    if note:
        section["notes"].setdefault(note.group(1), note.group(2).strip())
    elif region:
        number, kind, rom, start, words, size, unit = region.groups()
        place = "rom" if rom else int(number)
        flags = [flag for flag, there in (
            ("io", kind == "I/O ports"), ("mem", kind != "I/O ports"),
            ("prefetchable", "prefetchable" in words and "non-prefetchable" not in words), ("64bit", "64-bit" in words),
        ) if there]
        length = int(size) << 10 * " KMGT".index(unit or " ")
        section["regions"].setdefault(place, {"bar": place, "start": int(start, 16), "size": length, "flags": flags})


def _close(sections, section, conflicts):
    """Put the rows together and join what another part of the text said of the same function."""
    data = b""
    while len(data) % 16 == 0 and section["rows"].get(len(data)):
        data += section["rows"][len(data)]
        if len(data) >= pci.CONFIG_LIMIT:
            break
    section["read"] = len(data)
    # lspci prints 64, 256 or 4096 bytes. Of a text that was cut in between, the rest is unknown and not zero.
    section["data"] = data[:max(size for size in (0, config_space.HEADER, config_space.PLAIN, pci.CONFIG_LIMIT)
                                if size <= len(data))]
    before = sections.setdefault(section["address"], section)
    if before is section:
        return
    if before["data"] and section["data"] and before["data"][:4] != section["data"][:4]:
        conflicts.append(section["address"])
        return
    if len(section["data"]) > len(before["data"]):
        before.update(data=section["data"], read=section["read"])
    if _title(section["title"])["vendor"] and not _title(before["title"])["vendor"]:
        before["title"] = section["title"]
    for part in ("notes", "regions"):
        before[part] = dict(section[part], **before[part])


def _title(title):
    """``{class, vendor, device, vendor_name, device_name}`` from lspci's first line, None for what it does not tell.

    Without ``-nn`` it does not part vendor and device: both are in ``device_name`` then.
    """
    title = _REVISION.sub("", title).strip()
    code = vendor = device = None
    numeric, named = _NUMERIC.match(title), _NAMED.match(title)
    if numeric:
        code, vendor, device = numeric.groups()
        name = ""
    elif named:
        code, name, vendor, device = named.groups()
        name = name if code else name.partition(": ")[2] or name
    else:
        name = title.partition(": ")[2]
    plain = _WITHOUT_NAME.match(name)
    vendor_name, device_name = (plain.group(1), None) if plain else (None, name or None)
    return {
        "class": code and code.lower() + "00",
        "vendor": vendor and vendor.lower(),
        "device": device and device.lower(),
        "vendor_name": vendor_name,
        "device_name": device_name,
    }


# -- functions -------------------------------------------------------------------------------------

def _word(data, at):
    return "%04x" % int.from_bytes(data[at:at + 2], "little")


def _function(section):
    function = pci.blank(section["address"])
    data, notes, title = section["data"], section["notes"], _title(section["title"])
    function.update(vendor_name=title["vendor_name"], device_name=title["device_name"], config_bytes=len(data))
    if title["vendor"]:
        _set_ids(function, title["vendor"], title["device"])
    if title["class"]:
        function["class"] = title["class"]
    if config_space.readable(data):
        if _word(data, 0) != "ffff":
            _set_ids(function, _word(data, 0), _word(data, 2))
        function["class"] = "%06x" % int.from_bytes(data[9:12], "little")
        function["revision"] = "%02x" % data[8]
        function["subsystem_vendor"], function["subsystem_device"] = _subsystem(data)
    function["class_name"] = names.class_name(function["class"])
    function.update(config_space.describe(data))
    if function["is_bridge"] is None:
        function["is_bridge"] = function["class"][:4] in ("0604", "0607") or section["title"].startswith(_BRIDGES)
    if not function["multifunction"] and function["multifunction"] is not None:
        function["multifunction"] = not function["address"].endswith(".0")  # as the kernel does
    function["driver"] = notes.get("Kernel driver in use")
    function["modules"] = sorted(re.findall(r"[\w-]+", notes.get("Kernel modules", "")))
    function["resources"] = list(section["regions"].values())
    function["numa_node"] = int(notes["NUMA node"]) if notes.get("NUMA node", "").isdigit() else None
    return function


def _set_ids(function, vendor, device):
    function.update(vendor=vendor, device=device, id="%s:%s" % (vendor, device))


def _subsystem(data):
    """Subsystem ids of an endpoint's header; of a bridge those of its capability 0x0d, as Linux reads them."""
    kind = data[0x0E] & 0x7F
    at = {0: 0x2C, 2: 0x40}.get(kind)
    if kind == 1:
        found = (config_space.capabilities(data) or {}).get(0x0D)
        at = found + 4 if found else None
    if at is None or at + 4 > len(data):
        return "0000", "0000"
    return _word(data, at), _word(data, at + 2)


def _virtual_functions(functions, sections, missing):
    """Ids and ``physfn`` of virtual functions, whose own ids read all ones, from the SR-IOV capability above.

    Virtual function ``n`` answers at the routing id of the physical one + offset + n * stride.
    """
    by_address = {function["address"]: function for function in functions}
    hidden = {a for a, section in sections.items()
              if config_space.readable(section["data"]) and section["data"][:2] == b"\xff\xff"}
    left = 4 * len(functions) + 1024  # a hostile capability claims 65,535 functions
    for physical in functions:
        sriov = (physical["capabilities"] or {}).get("sriov")
        if not sriov or not hidden or physical["address"] in hidden:
            continue
        domain, bus, slot, number = re.split("[:.]", physical["address"])
        first = (int(bus, 16) << 8 | int(slot, 16) << 3 | int(number)) + sriov["offset"]
        for index in range(min(sriov["num_vfs"], left)):
            left -= 1
            routing = first + index * sriov["stride"]
            if routing > 0xFFFF:
                break
            address = "%s:%02x:%02x.%d" % (domain, routing >> 8, routing >> 3 & 0x1F, routing & 7)
            if address in hidden:
                virtual = by_address[address]
                _set_ids(virtual, physical["vendor"], sriov["vf_device"])
                virtual.update(physfn=physical["address"], multifunction=False)
                hidden.discard(address)
    for address in sorted(hidden, key=sort_key):
        by_address[address]["multifunction"] = None
        missing.append({
            "input": "physical function of " + address,
            "why": "no SR-IOV capability in the dump leads to this virtual function; take one as root: " + COMMAND,
        })


def _parents(functions, missing):
    """``parent`` of every function, from the secondary bus numbers of the bridges."""
    owners, unclear = {}, set()
    for function in functions:
        domain, bus = function["address"].split(":")[:2]
        secondary = (function["bus"] or {}).get("secondary")
        if not secondary:
            continue  # no bridge, not read, or a bridge that leads nowhere
        if secondary <= int(bus, 16):
            # Linux calls that invalid and numbers anew; without it, no chain of parents can be a loop
            missing.append({"input": "secondary bus number of " + function["address"],
                            "why": "%02x is not above the bridge's own bus: what is behind it is unknown" % secondary})
            owners.setdefault((domain, "%02x" % secondary), UNKNOWN_PARENT)
            continue
        below = (domain, "%02x" % secondary)
        if owners.setdefault(below, function["address"]) == UNKNOWN_PARENT:
            owners[below] = function["address"]
        elif owners[below] != function["address"]:
            unclear.add(below)
    owners.update(dict.fromkeys(unclear, UNKNOWN_PARENT))
    endpoints = [function["address"] for function in functions if function["id"] in VMD_ENDPOINTS]
    blind = {f["address"].split(":")[0] for f in functions if f["is_bridge"] and f["bus"] is None}
    lost = []
    for (domain, bus), members in _buses(functions).items():
        parent = owners.get((domain, bus))
        if parent is None:
            parent = _above_root(domain, bus, members, endpoints, blind)
        if parent == UNKNOWN_PARENT:
            lost.append("%s:%s" % (domain, bus))
        for function in members:
            function["parent"] = parent
    by_address = {function["address"]: function for function in functions}
    for function in functions:
        if function["physfn"] is not None:
            # also on a bus of its own it is right behind the bridge above its physical function
            function["parent"] = by_address[function["physfn"]]["parent"]
    if lost:
        missing.append({"input": "bridge above bus " + " ".join(lost),
                        "why": "no bridge of the dump leads there for certain, so its groups are the cautious answer"})


def _buses(functions):
    buses = {}
    for function in functions:
        if function["physfn"] is None:
            buses.setdefault(tuple(function["address"].split(":")[:2]), []).append(function)
    return buses


def _above_root(domain, bus, members, endpoints, blind):
    """Parent of a bus that no bridge claims: a root bus (None), below the one VMD endpoint, or unknown."""
    if int(domain, 16) >= VMD_DOMAIN:
        return endpoints[0] if len(endpoints) == 1 else UNKNOWN_PARENT
    kinds = {function["port_type"] for function in members}
    if bus == "00" or kinds & _ON_ROOT_BUSES or any(f["class"].startswith("0600") for f in members):
        return None
    if domain in blind or kinds & _BEHIND_A_PORT:
        return UNKNOWN_PARENT
    return None


def _rcba(section):
    """Bit 0 of 0xf0 of Intel's LPC bridge, see pci.rcba_enabled()."""
    data = section["data"] if section else b""
    if len(data) < config_space.PLAIN or data[:2] != b"\x86\x80":
        return None
    return bool(data[0xF0] & 1)


def _note_unread(functions, sections, missing):
    """Name what the dump does not hold, and the command that would have put it there."""
    def note(chosen, what, why):
        if chosen:
            missing.append({"input": what + " ".join(chosen), "why": why})

    unread = {f["address"]: sections[f["address"]] for f in functions if f["capabilities"] is None}
    note([a for a, s in unread.items() if not s["data"]], "config of ",
         "the dump has no or no whole row of hex digits for it; take one as root: " + COMMAND)
    note([a for a, s in unread.items() if s["data"] and not config_space.readable(s["data"])], "config of ",
         "all ones: the function did not answer, it may be powered down")
    note([a for a, s in unread.items() if config_space.readable(s["data"])], "config of ",
         "capabilities and port type unknown: 64 bytes only, as an ordinary user reads; take one as root: " + COMMAND)
    note([f["address"] for f in functions if f["capabilities"] and not f["capabilities"]["complete"]],
         "extended config of ",
         "ACS, ATS, SR-IOV and serial number unknown: 256 bytes only; take one with four x: " + COMMAND)
    note([a for a, s in sections.items() if s["read"] not in (len(s["data"]), 128)], "rest of the config of ",
         "the text was cut within it")  # 128 bytes are all that lspci -x prints of a CardBus bridge
    note([f["address"] for f in functions if f["id"] == "ffff:ffff"], "ids of ",
         "they are neither in its bytes nor in its first line")
    if functions and not any("Kernel driver in use" in s["notes"] for s in sections.values()):
        missing.append({"input": "drivers", "why": "which driver has a function is unknown: lspci -k would have told"})
