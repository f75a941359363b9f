# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Settings of single PCI functions in sysfs: how the kernel resets them, and whether it may switch them off.

RECORD: ``{"schema": 1, "functions": {address: {vendor, device, serial, stuck, settings: {attribute: {"before": value,
"ours": [value]}}}}, "unfinished": true}``. ``ours`` are the values that runs have set; more than one while a run is
under way, which ``unfinished`` says. A value is a list of methods for ``reset_method``, a bool for ``d3cold_allowed``.
``stuck``: id of the boot in which a write about the function never ended; it is not touched again before another boot.

Who has a function does not matter here: neither write resets it, changes its registers or takes its lock. The kernel
looks which of the methods it has, keeps their order for the next reset, and at most wakes the function up.

Which reset methods a function has is known without a write: the kernel shows them all until somebody has written to
the file (Documentation/ABI/testing/sysfs-bus-pci), so they are what is shown now, and what was shown before our first
write.
"""

from __future__ import annotations

import errno
import os
import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files as files
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import SYSFS, read_function
from ansible_collections.vfio.host.plugins.module_utils._binding.record import boot_id, stuck
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout

RECORD = asked.STATE_FOLDER + "/pci_settings.json"
RULES = "/etc/udev/rules.d/90-vfio-host-pci-settings.rules"
HEADER = (
    "# Written by the Ansible collection vfio.host (module pci_settings), which replaces this file as a whole.\n"
    "# A rule counts only while a card of this make is at this address.\n"
)

STUCK = files.STUCK % "it"
HOTPLUG = "/sys/bus/pci_express/drivers/pciehp"

ATTRIBUTES = ("reset_method", "d3cold_allowed")
METHOD = re.compile(r"^[a-z][a-z0-9_]*\Z")
VENDOR_RESET = "/sys/module/vendor_reset"
"""A module outside the kernel that adds the method device_specific when it is loaded. The kernel made its list of
methods before, so the file never shows this one until it was written."""


# -- what is asked -----------------------------------------------------------------------------------


def check_functions(functions):
    """``[{place, address, vendor, device, serial, reset_method, d3cold_allowed}]``, None for what is not asked.

    Raises ValueError that names the value, the place and the remedy.
    """
    found = []
    for number, given in enumerate(functions):
        place = "functions[%d]" % number
        item = {"place": place}
        for field in ("address", "vendor", "device", "serial"):
            item[field] = identity_field(given.get(field), field, "%s.%s" % (place, field))
        for other in found:
            if other["address"] == item["address"]:
                raise ValueError("%s.address: %s is given twice, by %s too; make one entry of them"
                                 % (place, item["address"], other["place"]))
        item["reset_method"] = _methods(given.get("reset_method"), place + ".reset_method")
        item["d3cold_allowed"] = given.get("d3cold_allowed")
        if item["d3cold_allowed"] is not None and not isinstance(item["d3cold_allowed"], bool):
            raise ValueError("%s.d3cold_allowed: %r is neither true nor false" % (place, item["d3cold_allowed"]))
        if item["reset_method"] is None and item["d3cold_allowed"] is None:
            raise ValueError("%s: nothing is asked of %s; give reset_method or d3cold_allowed, or take the entry out"
                             % (place, item["address"]))
        found.append(item)
    return found


def identity_field(value, field, place):
    """``address``, ``vendor``, ``device`` or ``serial`` in lower case. Raises ValueError."""
    if field == "serial" and value in (None, ""):
        return None
    pattern, example = asked.PATTERNS.get(field, (asked.ID, "four hexadecimal digits"))
    if not pattern.match(str(value).lower()):
        raise ValueError("%s: %r is not %s" % (place, value, example))
    return str(value).lower()


def _methods(given, place):
    if given is None:
        return None
    if not isinstance(given, list):
        raise ValueError("%s: %r is not a list of methods like [flr, bus]" % (place, given))
    for method in given:
        if method == "default":
            raise ValueError("%s: 'default' is no method; leave reset_method out, and the function has again what it "
                             "had before" % place)
        if not isinstance(method, str) or not METHOD.match(method):
            raise ValueError("%s: %r is no reset method; the kernel has words like flr, bus, pm, device_specific"
                             % (place, method))
        if given.count(method) > 1:
            raise ValueError("%s: %s is given twice; the order is that of the first try to the last" % (place, method))
    return list(given)


# -- what is -------------------------------------------------------------------------------------------


def path_of(address, attribute):
    return "%s%s/%s" % (SYSFS, address, attribute)


def read_setting(host, address, attribute):
    """The value now, None when the kernel has no such file for this function or it cannot be understood."""
    text = host.read_attribute(path_of(address, attribute))
    if text is None:
        return None
    if attribute == "reset_method":
        return text.split()
    return {"0": False, "1": True}.get(text)


def _encode(value):
    """What is written for a value. No method is an empty line: of a write of nothing sysfs tells the kernel nothing."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return " ".join(value) or "\n"


def _siblings(host, address):
    """Other functions that would be reset with the bus of this one. None behind a hot-plug port that resets the slot alone.

    As pci_reset_bus_function() of the kernel decides. What is at the root of a bus it never resets so.
    """
    above = (host.readlink(SYSFS + address) or "").split("/")[-2:-1]
    if above and (above[0].startswith("pci") or _resets_slot(host, address, above[0])):
        return []
    bus = address.rpartition(":")[0] + ":"
    return [name for name in host.listdir(SYSFS) if name.startswith(bus) and name != address]


def _resets_slot(host, address, port):
    if _virtual(host, address) or not any(
            name.startswith(port + ":pcie") for name in host.listdir(HOTPLUG)):
        return False
    config = host.read_bytes(SYSFS + address + "/config", 64) or b""
    return len(config) == 64 and not config[0x0E] & 0x80  # a card of one function


def _virtual(host, address):
    return host.exists(SYSFS + address + "/physfn")


def _some(addresses):
    return ", ".join(addresses[:4]) + (" and %d more" % (len(addresses) - 4) if len(addresses) > 4 else "")


def possible(value, siblings):
    """What the kernel takes of a value that it has shown.

    At boot it lists ``bus`` for the first function on a bus before it has seen the others. A bus that is shared is
    never reset for one function, so this method does nothing there, and is refused when it is written again.
    """
    if isinstance(value, list) and siblings:
        return [method for method in value if method != "bus"]
    return value


def read_record(host):
    """The record, {} without one. Raises HostError for one that cannot be understood."""
    def check(record):
        return all(
            asked.PATTERNS["address"][0].match(address) and asked.ID.match(entry["vendor"])
            and asked.ID.match(entry["device"]) and all(
                attribute in ATTRIBUTES and _is_value(attribute, one["before"])
                and one["ours"] and all(_is_value(attribute, value) for value in one["ours"])
                for attribute, one in entry["settings"].items())
            for address, entry in record["functions"].items())

    return files.read_record(host, RECORD, check, "a reboot without %s brings the kernel's own settings back: remove "
                             "both files and reboot" % RULES)


def _is_value(attribute, value):
    if attribute == "d3cold_allowed":
        return isinstance(value, bool)
    return isinstance(value, list) and all(METHOD.match(method) for method in value)


def _problems(item, live):
    """Why this is not the function that was asked for, as sentences."""
    place, address = item["place"], item["address"]
    if live is None:
        return ["%s.address: %s does not exist" % (place, address)]
    found = []
    for field in ("vendor", "device", "serial"):
        if item[field] is not None and live[field] != item[field]:
            found.append("%s.%s: %s has %s, asked %s" % (place, field, address, live[field] or "none", item[field]))
    if (live["class"] or "").startswith("06") or live["header_type"] not in (None, 0):
        found.append("%s.address: %s is a bridge; name the functions behind it" % (place, address))
    return found


def _check_there(host, item, attribute, now):
    """Refuse what this kernel cannot set."""
    if now is not None:
        return
    place, address = "%s.%s" % (item["place"], attribute), item["address"]
    if host.exists(path_of(address, attribute)):
        raise ValueError("%s: %s cannot be understood; leave it out" % (place, path_of(address, attribute)))
    if attribute == "d3cold_allowed":
        raise ValueError("%s: the kernel has no d3cold_allowed for %s, since it was built without power management or "
                         "ACPI; leave it out" % (place, address))
    if any(host.exists(path_of(name, attribute)) for name in host.listdir(SYSFS)):
        raise ValueError("%s: the kernel knows no way to reset %s alone, so there is nothing to choose from; leave it "
                         "out" % (place, address))
    raise ValueError("%s: no function of this machine has a file reset_method; Linux 5.15 is the first that has it. "
                     "Leave it out, or take a newer kernel" % place)


def _check_methods(host, item, now, known):
    """Refuse methods that the kernel does not offer for this function. ``known``: values that it once showed."""
    place, address, wanted = item["place"] + ".reset_method", item["address"], item["reset_method"]
    siblings = _siblings(host, address)
    if wanted == now and ("bus" not in wanted or all(_virtual(host, name) for name in siblings)):
        return  # nothing is to be written; those that are made and ended at run time may have come since
    offered = []
    for value in [now] + known:
        offered += [method for method in possible(value, siblings) if method not in offered]
    if "bus" in wanted and siblings:
        raise ValueError("%s: 'bus' would reset %s too, and the kernel refuses that for one function; it offers %s for "
                         "%s" % (place, _some(siblings), " ".join(offered) or "no method", address))
    for method in wanted:
        if method in offered or (method == "device_specific" and host.exists(VENDOR_RESET)):
            continue
        raise ValueError(
            "%s: the kernel does not offer %r for %s; it offers %s. If somebody has left it out of %s, write the word "
            "default into that file first" % (place, method, address, " ".join(offered) or "no method",
                                              path_of(address, "reset_method")))


# -- what is to be done -----------------------------------------------------------------------------


def render(wanted, before):
    """Text of the rules, None for none. ``before``: ``{(address, attribute): value}``."""
    lines = []
    for item in sorted(wanted, key=lambda one: one["address"]):
        parts = ['ACTION=="add"', 'SUBSYSTEM=="pci"', 'KERNEL=="%s"' % item["address"],
                 'ATTR{vendor}=="0x%s"' % item["vendor"], 'ATTR{device}=="0x%s"' % item["device"]]
        if item["reset_method"] is not None:
            parts += _reset_actions(item["reset_method"], before[item["address"], "reset_method"])
        if item["d3cold_allowed"] is not None:
            parts.append('ATTR{d3cold_allowed}="%s"' % _encode(item["d3cold_allowed"]))
        lines.append(", ".join(parts) + "\n")
    return HEADER + "".join(lines) if lines else None


def _reset_actions(methods, before):
    outside = "device_specific" in methods and "device_specific" not in before
    if methods and not outside:
        return ['ATTR{reset_method}="%s"' % " ".join(methods)]
    # udev writes an empty value as nothing at all, which changes nothing; and a method that comes with a module is
    # there only once that is loaded
    write = "RUN+=\"/bin/sh -c 'echo %s> /sys%%p/reset_method'\"" % "".join(method + " " for method in methods)
    return (['RUN{builtin}+="kmod load vendor-reset"'] if outside else []) + [write]


def _plan(host, wanted, record, held):
    """``(steps, warnings)``; a step is ``{address, attribute, now, target, before, wanted, back, later}``.

    ``wanted`` is None for a setting that goes back to what it was; ``back`` is what undoes the step; ``later``: another
    run may bring more of it back. ``held``: functions that are not touched in this boot.
    """
    steps, warnings, problems = [], [], []
    for item in wanted:
        if item["address"] in held:
            raise HostError("%s.address: %s: %s" % (item["place"], item["address"], STUCK))
    live = {item["address"]: read_function(host, item["address"]) for item in wanted}
    for item in wanted:
        problems += _problems(item, live[item["address"]])
    if problems:
        raise ValueError("nothing was changed, since these are not what was asked: %s. Cards may have moved: look at "
                         "the addresses again" % "; ".join(problems))
    for item in wanted:
        old = _recorded(record, item)
        for attribute in ATTRIBUTES:
            if item[attribute] is None:
                continue
            now = read_setting(host, item["address"], attribute)
            _check_there(host, item, attribute, now)
            one = old.get(attribute)
            if attribute == "reset_method":
                _check_methods(host, item, now, [one["before"]] + one["ours"] if one else [])
            steps.append(_step(host, item["address"], attribute, now, item[attribute], item[attribute],
                               one["before"] if one else now))
    named = {(step["address"], step["attribute"]) for step in steps}
    warnings += ["%s: %s; run this again after it" % (address, STUCK) for address in sorted(held)]
    for address, entry in sorted(record.get("functions", {}).items()):
        if address in held:
            continue
        gone = [attribute for attribute in ATTRIBUTES
                if attribute in entry["settings"] and (address, attribute) not in named]
        if gone and not _same(entry, read_function(host, address)):
            warnings.append("%s: the card that had settings of ours is no longer there" % address)
            continue
        for attribute in gone:
            one, now = entry["settings"][attribute], read_setting(host, address, attribute)
            if now is None:
                warnings.append("%s: there is no such file any more" % path_of(address, attribute))
                continue
            siblings = _siblings(host, address)
            target = possible(one["before"], siblings) if now != one["before"] else now
            ends = [name for name in siblings if _virtual(host, name)]
            later = target != one["before"] and ends == siblings
            if now not in [one["before"], target] + one["ours"]:
                warnings.append("%s: somebody has set it to %s since; left as it is"
                                % (path_of(address, attribute), _shown(now)))
                target, later = now, False
            if later:
                warnings.append("%s: bus does not come back while %s is there; run this again when it is gone, or reboot"
                                % (path_of(address, attribute), _some(ends)))
            steps.append(dict(_step(host, address, attribute, now, target, None, one["before"]), later=later))
    return steps, warnings


def _step(host, address, attribute, now, target, wanted, before):
    return {"address": address, "attribute": attribute, "now": now, "target": target, "wanted": wanted,
            "before": before, "back": possible(now, _siblings(host, address)), "later": False}


def _recorded(record, item):
    """Settings that the record has of this card; another card at its address had none of them."""
    entry = record.get("functions", {}).get(item["address"])
    return entry["settings"] if entry and _same(entry, item) else {}


def _same(entry, other):
    """Whether a card is the recorded one, as far as both are known."""
    if other is None or any(entry[field] != other[field] for field in ("vendor", "device")):
        return False
    return None in (entry.get("serial"), other["serial"]) or entry["serial"] == other["serial"]


def _shown(value):
    if isinstance(value, bool):
        return _encode(value)
    return " ".join(value) or "no method"


def _records(wanted, steps, record, held, unfinished):
    """The record after the run, or while it is under way: then with all that the settings may be."""
    known = record.get("functions", {})
    functions = dict(known) if unfinished else {address: known[address] for address in held}
    for item in wanted:
        earlier = _recorded(record, item)
        settings = dict(earlier) if unfinished else {}
        for step in steps:
            if step["address"] != item["address"] or step["wanted"] is None:
                continue
            ours = [step["wanted"]]
            if unfinished:
                ours += [value for value in earlier.get(step["attribute"], {}).get("ours", []) if value not in ours]
            settings[step["attribute"]] = {"before": step["before"], "ours": ours}
        functions[item["address"]] = {"vendor": item["vendor"], "device": item["device"], "serial": item["serial"],
                                      "settings": settings}
    for step in steps:
        if step["later"]:
            address, attribute = step["address"], step["attribute"]
            ours = known[address]["settings"][attribute]["ours"] if unfinished else []
            entry = functions.get(address) or _unmarked(dict(known[address], settings={}))
            functions[address] = dict(entry, settings=dict(entry["settings"], **{attribute: {
                "before": step["before"], "ours": ours + [step["target"]]}}))
    if not functions:
        return {}
    return {"functions": functions, "unfinished": True} if unfinished else {"functions": functions}


def _unmarked(entry):
    return {name: value for name, value in entry.items() if name != "stuck"}


# -- doing it --------------------------------------------------------------------------------------------


@files.tidied
def run(host, params, check_mode):
    """Bring the settings to what ``params`` asks; the module's result.

    ``params``: ``{functions, state}``. Raises ValueError and HostError, after which settings, rules and record are what
    they were; where one of them could not be put back, the error says so and the record stays.
    """
    wanted = check_functions(params["functions"] or [])
    if params["state"] == "absent":
        wanted = []
    record = read_record(host)
    texts = {path: host.read(path) for path in (RECORD, RULES)}
    if wanted and not host.which("udevadm"):
        raise HostError("udevadm is not installed, so settings would be gone after a reboot; install udev")
    boot = boot_id(host)
    held = stuck(record.get("functions", {}), boot)
    steps, warnings = _plan(host, wanted, record, held)
    warnings += _foreign(host, wanted)
    if texts[RULES] is not None and not record and not wanted:
        warnings.append("%s is removed; what the settings were before is not known, so they stay until the next boot"
                        % RULES)
    before = {(step["address"], step["attribute"]): step["before"] for step in steps}
    after = {RECORD: files.render_record(_records(wanted, steps, record, held, False)), RULES: render(wanted, before)}
    moved = [step for step in steps if step["target"] != step["now"]]
    changed = bool(moved) or texts != after
    if changed and not check_mode:
        during = _records(wanted, steps, record, held, True)
        warnings += _apply(host, moved, texts, during, after, boot)
    return {
        "changed": changed,
        "functions": _functions(host, steps, wanted),
        "warnings": warnings,
        "diff": files.diff({RULES: texts[RULES]}, {RULES: after[RULES]}) + _diff(moved),
    }


def _foreign(host, wanted):
    """Warnings about rules of others that may set the same at each boot."""
    found = []
    asked_for = [attribute for attribute in ATTRIBUTES if any(item[attribute] is not None for item in wanted)]
    for path, rule in files.foreign_rules(host, RULES) if asked_for else []:
        for attribute in asked_for:
            if re.search(r"ATTR\{%s\}\s*=[^=]" % attribute, rule):
                found.append("%s sets %s too, and the last rule wins: %s" % (path, attribute, rule))
    return found


def _apply(host, moved, texts, during, after, boot):
    """Record first, then the rules, then the settings; everything goes back when one of them does not come out."""
    done, warnings = [], []
    try:
        files.put(host, RECORD, files.render_record(during))
        files.put(host, RULES, after[RULES])
        warnings += files.reload_udev(host)
        for step in moved:
            done.append(step)
            warnings += _do(host, step)
        files.put(host, RECORD, after[RECORD])
    except (HostError, OSError) as exc:
        left, hung = _undo(host, done, texts, during, exc, boot)
        raise HostError("%s. %s" % (exc, "Settings and rules are as before" if not left else
                                    "Everything else is as before, but not %s: run this again%s"
                                    % (", ".join(left), " after the next boot" if hung else ""))) from exc
    return warnings


def _do(host, step):
    """One step; [] or a warning. Where the kernel no longer takes what was before, it has its own order again."""
    address, attribute = step["address"], step["attribute"]
    try:
        _set(host, address, attribute, step["target"])
        return []
    except HostError as exc:
        if step["wanted"] is not None or attribute != "reset_method" or os.strerror(errno.EINVAL) not in str(exc):
            raise
    host.write_sysfs(path_of(address, attribute), "default")
    refused, step["target"] = step["target"], read_setting(host, address, attribute)
    return ["%s: the kernel takes '%s' no longer, so it has its own order: it is %s now"
            % (path_of(address, attribute), _shown(refused), _shown(step["target"] or []))]


def _set(host, address, attribute, value):
    """Write a setting and read it back."""
    path = path_of(address, attribute)
    host.write_sysfs(path, _encode(value))
    now = read_setting(host, address, attribute)
    if now != value:
        raise HostError("%s: %s was written, and the kernel says %s" % (
            path, _shown(value), "nothing" if now is None else _shown(now)))


def _undo(host, done, texts, during, reason, boot):
    """Put back what was done. The places that could not be, and the functions about which a write did not end.

    The record stays for those.
    """
    left, hung = [], {step["address"] for step in done[-1:] if isinstance(reason, HostTimeout)}
    for step in reversed(done):
        address, attribute = step["address"], step["attribute"]
        if address in hung:
            left.append(path_of(address, attribute))  # whatever hangs there, more would hang behind it
            continue
        try:
            if read_setting(host, address, attribute) not in (step["now"], step["back"]):
                _set(host, address, attribute, step["back"])
        except HostError as exc:
            left.append(path_of(address, attribute))
            if isinstance(exc, HostTimeout):
                hung.add(address)
    marked = {address: dict(entry, stuck=boot) if address in hung else entry
              for address, entry in during.get("functions", {}).items()}
    left += files.put_back(host, {RULES: texts[RULES], RECORD: files.render_record(dict(during, functions=marked))
                                  if left else texts[RECORD]})
    files.reload_udev(host)
    return left, hung


def _functions(host, steps, wanted):
    """What the functions have now, or would have."""
    shown = {}
    for step in steps:
        one = shown.setdefault(step["address"], {"address": step["address"]})
        one[step["attribute"]] = step["target"]
    for address, one in shown.items():
        for attribute in ATTRIBUTES:
            if attribute not in one:
                one[attribute] = read_setting(host, address, attribute)
        one["managed"] = [attribute for item in wanted if item["address"] == address
                          for attribute in ATTRIBUTES if item[attribute] is not None]
    return [shown[address] for address in sorted(shown)]


def _diff(moved):
    if not moved:
        return []

    def lines(which):
        return "".join("%s: %s\n" % (path_of(step["address"], step["attribute"]), _shown(step[which]))
                       for step in moved)

    return [{"before_header": "PCI functions", "after_header": "PCI functions", "before": lines("now"),
             "after": lines("target")}]
