# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What every form of the audit says about a machine document: the tree's rows, groups, verdicts, counts. Pure."""

from __future__ import annotations

import re
import unicodedata

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import slot_of, sort_key
from ansible_collections.vfio.host.plugins.module_utils._assignment.selectors import functions_of

FOLD = 4
"""So many functions in a row that are alike become one row."""
DEEPEST = 12
"""Rows below this depth are drawn at it. Real machines do not come near."""
LONGEST = 400
"""Characters of one text; a name that is longer was made to annoy."""
PLATFORM = ("05", "06", "08", "11", "13")
"""Base classes of the chipset's own functions, which have a new id each and are not read one by one."""

NUMBER = re.compile(r"^[0-9]{1,9}$")

VERDICTS = {
    "assignable": ("assignable", "nothing stands against it"),
    "card": ("with its card", "together with the other functions of its card"),
    "with_group": ("with others", "only together with other devices of its group"),
    "host_uses": ("host uses", "the host needs it, or a member of its group, or may need it"),
    "never": ("never", "a bridge, the IOMMU itself, or tied down by the firmware"),
    "no_iommu": ("no IOMMU", "nothing confines it"),
    "unknown": ("unknown", "too little was readable to say"),
}
"""Verdict, and ``card`` (see Audit.word): words of a table cell, and what it means."""
SEVERITIES = ("refuse", "warn", "info")
PORTS = {
    "root_port": "root port",
    "upstream_port": "switch upstream port",
    "downstream_port": "switch downstream port",
    "pcie_to_pci": "PCIe-to-PCI bridge",
    "pci_to_pcie": "PCI-to-PCIe bridge",
    "conventional": "PCI bridge",
}


def clean(value, longest=LONGEST):
    """Text of one line for people: without control characters, marks that turn the writing direction, and excess."""
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] in "CZ" and c != " " else c
        for c in str(value)[: longest + 1]
    )
    return text if len(text) <= longest else text[: longest - 3] + "..."


def count(number, noun, plural=None):
    """``1 function``, ``2 functions``"""
    return "%d %s" % (number, noun if number == 1 else plural or noun + "s")


def short(address):
    """``0000:01:00.0`` to ``01:00.0``; another domain stays."""
    return address[5:] if address.startswith("0000:") else address


def listing(items, most=10):
    """``a, b and 3 more``"""
    items = list(items)
    if len(items) <= most:
        return ", ".join(items)
    return "%s and %d more" % (", ".join(items[:most]), len(items) - most)


class Group:
    """An IOMMU group: ``label`` (the kernel's number, or P1, P2, ... for a predicted one), ``members``, ``title``."""

    def __init__(self, entry, label, color):
        self.entry = entry
        self.label = label
        self.members = entry["members"]
        self.actual = entry.get("source") == "actual"
        self.partial = entry.get("confidence") == "partial"
        self.color = color
        self.title = "group %s" % label
        self.reasons = entry.get("reasons") or []


class Row:
    """A line of the tree: a root bus (``bus``), or one function, or several that are alike (``functions``).

    ``depth`` is 0 right on a root bus. ``open`` says of each depth above whether its line goes on
    below this row; ``last`` whether this row ends its own.
    """

    def __init__(self, functions=(), depth=0, open_above=(), last=False, bus=None):
        self.functions = list(functions)
        self.depth = depth
        self.open = open_above
        self.last = last
        self.bus = bus

    @property
    def first(self):
        return self.functions[0]

    @property
    def addresses(self):
        return [function["address"] for function in self.functions]


class Audit:
    """A machine document (schema 2) with the look-ups that the terminal, the page and the index share.

    :param name: what the host is called; else the one of its DMI product.
    Raises ValueError for a document of another schema.
    """

    def __init__(self, machine, name=None):
        functions_of(machine)
        self.machine = machine
        self.host = machine["host"]
        self.functions = {function["address"]: function for function in machine["functions"]}
        product = self.host.get("product") or {}
        self.product = " ".join(clean(product[key]) for key in ("vendor", "name") if product.get(key))
        self.name = clean(name or self.product or "this machine")
        self.endpoints = [f for f in machine["functions"] if not f.get("is_bridge")]
        self.groups = self._groups()
        self._group_of = {}
        for group in self.groups:
            for member in group.members:
                self._group_of.setdefault(member, group)
        self.rows = self._rows()
        self.findings = merged(machine["findings"])
        self.active = bool(self.host["iommu"]["active"])

    # -- groups

    def _groups(self):
        entries = sorted(self.machine["groups"], key=_group_order)
        result, colored, predicted = [], 0, 0
        for entry in entries:
            if entry.get("number") is None:
                predicted += 1
            several = len(entry["members"]) > 1
            label = clean(entry["number"], 12) if entry.get("number") is not None else "P%d" % predicted
            result.append(Group(entry, label, colored % 6 + 1 if several else 0))
            colored += several
        return result

    def group_of(self, address):
        """The Group to decide by, or None."""
        return self._group_of.get(address)

    def group_cell(self, row):
        """``11``, or ``41-48`` for alike functions with a group each; empty for none; ``?`` for the cautious answer."""
        groups = []
        for address in row.addresses:
            group = self.group_of(address)
            if group and group not in groups:
                groups.append(group)
        if not groups:
            return ""
        mark = "?" if any(group.partial for group in groups) else ""
        if len(groups) == 1:
            return groups[0].label + mark
        labels = [group.label for group in groups]
        numbers = [int(label.lstrip("P")) if label.lstrip("P").isdigit() else None for label in labels]
        if None not in numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return "%s-%s%s" % (labels[0], labels[-1].lstrip("P"), mark)
        return "%d each%s" % (len(groups), mark)

    # -- the tree

    def _rows(self):
        """Rows in the order of drawing. A function whose parent is missing or below itself stands on a root bus."""
        children, roots = {}, []
        for address in sorted(self.functions, key=sort_key):
            parent = self.functions[address].get("parent")
            if parent in self.functions:
                children.setdefault(parent, []).append(address)
            else:
                roots.append(address)
        rows, seen = [], set()
        self._draw(roots, children, rows, seen)
        for address in sorted(self.functions, key=sort_key):  # loops of parents
            if address not in seen:
                self._draw([address], children, rows, seen)
        return rows

    def _draw(self, roots, children, rows, seen):
        buses = {}
        for address in roots:
            buses.setdefault(address.rpartition(":")[0], []).append(address)
        for bus, members in buses.items():
            rows.append(Row(bus=bus))
            waiting = [(run, 0, (), last) for run, last in self._runs(members, children, seen)]
            waiting.reverse()
            while waiting:
                run, depth, above, last = waiting.pop()
                rows.append(Row([self.functions[a] for a in run], depth, above, last))
                below = [a for a in children.get(run[0], ()) if a not in seen]
                deeper = above + (not last,) if depth < DEEPEST else above
                waiting += [
                    (next_run, min(depth + 1, DEEPEST), deeper, next_last)
                    for next_run, next_last in reversed(self._runs(below, children, seen))
                ]

    def _runs(self, addresses, children, seen):
        """``[(addresses, is the last)]``: siblings, with at least FOLD in a row that are alike as one."""
        addresses = [address for address in addresses if address not in seen]
        seen.update(addresses)
        runs, keys = [], []
        for address in addresses:
            key = None if address in children else self._kind(self.functions[address])
            if runs and key is not None and key == keys[-1]:
                runs[-1].append(address)
            else:
                runs.append([address])
                keys.append(key)
        result = []
        for run in runs:
            result += [run] if len(run) >= FOLD else [[address] for address in run]
        return [(run, position == len(result) - 1) for position, run in enumerate(result)]

    def _kind(self, function):
        """What functions have in common that may share a row."""
        group = self.group_of(function["address"])
        platform = function["class"][:2] in PLATFORM and not function.get("is_bridge")
        assignment = function.get("assignment") or {}
        return (
            function["vendor"] if platform else function["id"],
            function["class"][:2] if platform else function["class"],
            None if platform else function.get("driver"),
            function.get("physfn") is not None,
            (function.get("isolates") or {}).get("answer") if function.get("is_bridge") else None,
            assignment.get("verdict"),
            tuple(sorted({obstacle["code"] for obstacle in assignment.get("obstacles") or []})),
            tuple(sorted({use["what"] for use in function.get("used_by") or []})),
            None if group is None else "alone" if len(group.members) == 1 else group.label,
            bool(group and group.partial),
        )

    # -- verdicts

    def verdict(self, function):
        return (function.get("assignment") or {}).get("verdict") or "unknown"

    def free(self, function):
        """True for a function that can be assigned, alone or with others; while the IOMMU is off: once it is on."""
        return self.verdict(function) in ("assignable", "with_group")

    def word(self, function):
        """The verdict, with ``card`` for a function that only has to go along with the rest of its own slot."""
        verdict = self.verdict(function)
        if verdict not in VERDICTS:
            return "unknown"
        slot = slot_of(function["address"])
        together = (function.get("assignment") or {}).get("together_with") or []
        if self.free(function) and together and all(slot_of(address) == slot for address in together):
            return "card"
        return verdict

    def counts(self):
        """``{verdict: number of endpoints}``, every verdict there."""
        result = {verdict: 0 for verdict in VERDICTS}
        for function in self.endpoints:
            verdict = self.verdict(function)
            result[verdict if verdict in result else "unknown"] += 1
        return result

    def offers(self):
        """What can be assigned, ``[{cards: [[address]], what, together: [address]}]``: alike cards in one entry."""
        cards = {}
        for row in self.rows:
            for function in row.functions:
                if not function.get("is_bridge") and self.free(function):
                    # a folded row is one card, whatever slots its functions are in
                    key = row.first["address"] if len(row.functions) > 1 else slot_of(function["address"])
                    cards.setdefault(key, []).append(function)
        result = {}
        for card in cards.values():
            slots = {slot_of(function["address"]) for function in card}
            together = list(
                dict.fromkeys(
                    address
                    for function in card
                    for address in function["assignment"].get("together_with") or []
                    if slot_of(address) not in slots
                )
            )
            kinds = ", ".join(dict.fromkeys(class_words(function) for function in card))
            name = next((device_name(function) for function in card if device_name(function)), "")
            what = "%s, %s" % (kinds, name or " ".join(dict.fromkeys(function["id"] for function in card[:FOLD])))
            if len(card) >= FOLD:
                what += " (%d functions)" % len(card)
            entry = result.setdefault((what, tuple(together)), {"cards": [], "what": what, "together": together})
            entry["cards"].append([function["address"] for function in card])
        return list(result.values())

    def severities(self):
        """``{severity: number of findings}``"""
        result = {severity: 0 for severity in SEVERITIES}
        for finding in self.machine["findings"]:
            result[finding["severity"]] += 1
        return result

    # -- sentences

    def headline(self):
        """``[(tone, sentence)]``; the tone is ``good``, ``bad``, ``careful`` or ``plain``."""
        return self._iommu() + self._answer() + self._certainty() + self._finding_count()

    def _iommu(self):
        iommu = self.host["iommu"]
        word = "on" if self.active else "off"
        units = ", ".join(clean(unit) for unit in (iommu.get("units") or [])[:8])
        reason = _sentence(clean(iommu.get("reason") or "not known why"))
        if iommu["active"] is None:
            return [("careful", "It is not known whether the IOMMU is on: %s" % reason)]
        text = "The IOMMU is %s%s: %s" % (word, " (%s)" % units if units and self.active else "", reason)
        if self.active and iommu.get("interrupt_remapping") is False:
            text += " Interrupts are not remapped."
        if not self.functions:
            return [
                (
                    "bad",
                    "No PCI function can be seen here, so there is nothing to assign. That is usual in a container "
                    "and in small virtual machines; run the audit on the machine itself.",
                )
            ] + [("plain", text)]
        return [("good" if self.active else "bad", text)]

    def _answer(self):
        if not self.functions:
            return []
        numbers = self.counts()
        free = [f for f in self.endpoints if self.free(f) and self.word(f) != "with_group"]
        shared = sum(1 for f in self.endpoints if self.word(f) == "with_group")
        when = "now" if self.active else "once the IOMMU is on, as far as can be predicted"
        if free:
            devices = len({slot_of(f["address"]) for f in free})
            text = "%d of %s (%s) can be assigned %s" % (
                len(free),
                count(len(self.endpoints), "function"),
                count(devices, "device"),
                when,
            )
            if shared:
                text += "; %d only together with other devices" % shared
        elif shared:
            text = "%d of %s can be assigned %s, only together with other devices" % (
                shared,
                count(len(self.endpoints), "function"),
                when,
            )
        else:
            text = "None of %s can be assigned" % count(len(self.endpoints), "function")
        rest = [
            "%d %s" % (numbers[verdict], words)
            for verdict, words in (
                ("host_uses", "the host uses or may use"),
                ("never", "never can be"),
                ("no_iommu", "no IOMMU confines"),
                ("unknown", "too little is known about"),
            )
            if numbers[verdict]
        ]
        text += "; %s." % ", ".join(rest) if rest else "."
        tone = "bad" if not free and not shared else "good" if self.active else "careful"
        return [(tone, text)]

    def _certainty(self):
        result = []
        predicted = [group for group in self.groups if not group.actual]
        partial = [group for group in self.groups if group.partial]
        if self.groups and not predicted:
            result.append(("plain", "%s, as the kernel formed them." % count(len(self.groups), "IOMMU group")))
        elif predicted:
            result.append(
                (
                    "careful",
                    "%s, predicted (%s): the kernel has formed none yet."
                    % (count(len(predicted), "IOMMU group"), _span([group.label for group in predicted])),
                )
            )
        elif self.functions:
            result.append(
                ("bad", "No IOMMU groups: the kernel has formed none, and too little is known to predict them.")
            )
        if partial:
            result.append(
                (
                    "careful",
                    "Marked with ?: %s of which not all that decides was readable; the larger, cautious "
                    "answer is shown." % count(len(partial), "group"),
                )
            )
        if not self.machine["source"].get("privileged"):
            result.append(
                (
                    "careful",
                    "Read without root's rights: capabilities are unknown, so less is certain than could "
                    "be. Run it as root for the full answer.",
                )
            )
        unknown = self.host.get("usage_unknown") or []
        if self.machine["source"]["root"] == "lspci":
            result.append(
                ("careful", "A dump does not tell what the host uses: its own display, disk and NIC are not for guests.")
            )
        elif unknown:
            result.append(
                (
                    "careful",
                    "It could not be told where the host has its %s from, so nothing that might be it is "
                    "given away." % " and ".join(clean(kind) for kind in unknown),
                )
            )
        return result

    def _finding_count(self):
        numbers = self.severities()
        if not any(numbers.values()):
            return [("plain", "No findings.")]
        return [
            (
                "plain",
                "%s: %d refuse, %d warn, %d for the record."
                % (count(sum(numbers.values()), "finding"), numbers["refuse"], numbers["warn"], numbers["info"]),
            )
        ]

    def facts(self):
        """``[(what, text)]`` about the machine."""
        kernel, boot, cpu = self.host["kernel"], self.host.get("boot") or {}, self.host.get("cpu") or {}
        product, memory = self.host.get("product") or {}, self.host.get("memory") or {}
        firmware = " ".join(clean(product[key]) for key in ("firmware", "firmware_date") if product.get(key))
        result = [
            ("machine", ", ".join(filter(None, (self.product, "a virtual machine" if product.get("virtual") else "")))),
            ("board", product.get("board")),
            ("firmware", " ".join(filter(None, ({"efi": "UEFI", "bios": "BIOS"}.get(boot.get("firmware")), firmware)))),
            (
                "CPU",
                "%s, %s"
                % (cpu.get("model") or cpu.get("vendor") or "unknown", count(cpu.get("count") or 0, "logical CPU")),
            ),
            ("memory", "%.1f GiB" % (memory["total"] / 2.0**30) if memory.get("total") else None),
            ("kernel", " ".join(filter(None, (kernel.get("release"), kernel.get("machine"))))),
            ("command line", kernel.get("cmdline")),
        ]
        return [(what, clean(text)) for what, text in result if text]


def merged(findings):
    """Findings that say the same of several places as one: ``[{finding, places: [(place, evidence)], severity}]``.

    The worst first. A place is ``("device", address)``, ``("group", members)`` or ``("host", word)``.
    """
    result = {}
    for finding in sorted(findings, key=lambda finding: SEVERITIES.index(finding["severity"])):
        key = tuple(str(finding.get(name)) for name in ("code", "severity", "title", "remedy", "acknowledged"))
        entry = result.setdefault(key, {"finding": finding, "severity": finding["severity"], "places": []})
        place = next(
            ((kind, finding[kind]) for kind in ("device", "group", "host") if finding.get(kind)), ("host", "host")
        )
        entry["places"].append((place, finding.get("evidence") or []))
    return list(result.values())


def span(addresses):
    """``00:18.0-7``, ``00:1f.0,2,3``, ``02:10.0 to 02:11.7``: several functions in few characters."""
    first, last = addresses[0], addresses[-1]
    if len(addresses) == 1:
        return short(first)
    if slot_of(first) != slot_of(last):
        return "%s to %s" % (short(first), short(last))
    numbers = [address.rpartition(".")[2] for address in addresses]
    if int(numbers[-1], 16) - int(numbers[0], 16) == len(numbers) - 1:
        return "%s-%s" % (short(first), numbers[-1])
    return "%s.%s" % (slot_of(short(first)), ",".join(numbers))


def device_name(function):
    """``NVIDIA Corporation GM107 [GeForce GTX 750]``, or empty."""
    return " ".join(clean(function[key], 120) for key in ("vendor_name", "device_name") if function.get(key))


def model_name(function):
    """``GM107 [GeForce GTX 750]``, else the vendor, else empty."""
    return clean(function.get("device_name") or function.get("vendor_name") or "", 120)


def class_words(function):
    """``pci bridge``, ``vga``, ``class 1101``"""
    name = clean(function["class_name"], 40)
    return "class %s" % name if name.isalnum() and name[:1].isdigit() and len(name) == 4 else name.replace("_", " ")


def port_words(function):
    return PORTS.get(function.get("port_type"), "bridge")


def bus_words(function):
    """``bus 02`` or ``buses 05-06`` behind a bridge; empty when unknown."""
    bus = function.get("bus")
    if not bus or bus.get("secondary") is None:
        return ""
    first, last = bus["secondary"], bus.get("subordinate") or bus["secondary"]
    return "bus %02x" % first if first == last else "buses %02x-%02x" % (first, last)


def open_port(function):
    """True for a bridge that does not isolate, though it could matter: what is behind it."""
    isolates = function.get("isolates") or {}
    return bool(function.get("is_bridge")) and isolates.get("answer") is False


def uses(function):
    """What the host uses it for, each once."""
    return list(dict.fromkeys(clean(use["what"]) for use in function.get("used_by") or []))


def _sentence(text):
    return text if text.endswith((".", "!", "?")) else text + "."


def _span(labels):
    return labels[0] if len(labels) == 1 else "%s to %s" % (labels[0], labels[-1])


def _group_order(entry):
    number = entry.get("number")
    place = min([sort_key(member) for member in entry["members"]] or [(1, "")])
    return (0, int(number)) if NUMBER.match(str(number)) else (1, place[0], place[1:])
