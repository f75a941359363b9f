# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""GRUB's generated menu and the settings that it is generated from, as text: nothing here touches a host."""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import loader, tokens

SECTION = re.compile(r"^### (BEGIN|END) (\S+) ###$")
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)(\+?)=(.*)$")
NAMED = re.compile(r"(?<![\w${])GRUB_CMDLINE_LINUX(?:_DEFAULT)?(?!\w)|\$\{GRUB_CMDLINE_LINUX(?:_DEFAULT)?:?=")
"""Where a shell may change one of them: not where it is only read."""
EXPORTED = re.compile(r"^\s*export(?:\s+\w+)+\s*$")
STRING = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"")
JUMP = re.compile(r"(?:^|[;&|({])\s*(?:\.|source|eval|exec|exit|return)(?=[\s;&|)]|$)")
"""At the place of a command: what follows may not be executed, or something else may be."""
OPENS = re.compile(r"(?:^|[;&|({)])\s*(?:(?:if|case|for|while|until|select|function)(?=[\s;]|$)|[({])|\b(?:then|else|do)\s+(?:if|case)\s")
CLOSES = re.compile(r"(?:^|[;&|({)])\s*(?:(?:fi|esac|done)(?=[\s;&|)]|$)|\})")
"""Beginnings and ends of what is executed in a case only. A subshell has no end here: that is rare, and on the safe side."""
DEPENDS = re.compile(r"&&|\|\||\\$")
GARBAGE = re.compile(r"\.dpkg-[^/]*$|\.rpmsave$|\.rpmnew$|\.sig$|\.efi\.signed$|~$|\.bak$")
LINUX = ("linux", "linux16", "linuxefi")
INITRD = ("initrd", "initrd16", "initrdefi")
SAVED = "${saved_entry}"
DEFAULT = re.compile(r"^(?:export[ \t]+)?GRUB_DEFAULT=(.*)$")


def words(line):
    """Words of a line of GRUB's script language, its quoting resolved; variables stay as they are."""
    return [word for dummy, word in raw_words(line)]


def raw_words(line):
    """``[(as it is written, word)]`` of a line, see :func:`words`."""
    found = []
    word = None
    raw = ""
    quote = ""
    escaped = False
    for char in line:
        if word is None and not quote and not escaped:
            if char.isspace():
                continue
            if char == "#":
                break
            word, raw = "", ""
        raw += char
        if escaped:
            word += char
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "'\"":
            quote = char
        elif char.isspace():
            found.append((raw[:-1], word))
            word = None
        else:
            word += char
    if word is not None:
        found.append((raw, word))
    return found


def for_kernel(word):
    """A word as GRUB hands it to the kernel: in quotes when there is a space in it, quotes and backslashes escaped."""
    text = re.sub(r"([\\'\"])", r"\\\1", word)
    return '"%s"' % text if " " in text else text


def version_of(path):
    """Version of a kernel by the name of its file, as ``10_linux`` names entries."""
    name = posixpath.basename(path)
    name = name[: -len(".efi.signed")] if name.endswith(".efi.signed") else name
    return name[len("vmlinuz-"):] if name.startswith("vmlinuz-") else name


def parse_menu(text):
    """The generated menu as ``{entries, all, tops, default, default_by, complete, sections}``.

    ``entries``: ``[{title, id, section, path, kernel, image, initrds, tokens, recovery, body, options, restricted}]``
    in the order of the file. ``path`` is the position as GRUB counts it (``"1>0"``), ``titles`` and ``ids`` those
    of the submenus and the entry, ``section`` the script in ``/etc/grub.d`` that wrote it, ``image`` and
    ``initrds`` the files as GRUB sees them, ``body`` the lines between the braces, ``options`` as written what
    says how it is shown and who may start it, ``restricted`` whether that takes a password, for it or for a submenu
    around it, where GRUB has ``superusers``. ``all`` are these and the entries that start no kernel, ``tops`` the
    sections of what stands at the top, submenus too, as GRUB counts it. ``default`` is the last
    ``set default=`` that is fixed or the saved entry (``"${saved_entry}"``), or None, and ``default_by`` the section
    that it is in. ``complete`` is False when the file ends in the middle: ``grub-mkconfig`` writes it in place.
    """
    entries = []
    default = None
    default_by = None
    section = None
    sections = []
    tops = []
    ended = 0
    blocks = []  # of menuentry and submenu: {kind, position, title, id, entry}
    counters = [0]
    for line in text.splitlines():
        match = SECTION.match(line)
        if match:
            ended += match.group(1) == "END"
            if match.group(1) == "BEGIN":
                sections.append(match.group(2))
            section = match.group(2) if match.group(1) == "BEGIN" else None
            continue
        found = words(line)
        command = found[0] if found else ""
        inside = blocks[-1] if blocks else None
        if command in ("menuentry", "submenu") and len(found) > 1:
            options, restricted = _options(raw_words(line)[2:])
            block = {
                "kind": command, "position": counters[-1], "title": found[1], "id": _entry_id(found),
                "restricted": restricted,
            }  # fmt: skip
            counters[-1] += 1
            if not blocks:
                tops.append(section)
            blocks.append(block)
            if command == "submenu":
                counters.append(0)
            else:
                block["entry"] = {
                    "title": found[1], "id": block["id"], "section": section, "kernel": None, "image": None,
                    "initrds": [], "tokens": [], "recovery": "-recovery-" in (block["id"] or ""), "body": [],
                    "path": ">".join(str(item["position"]) for item in blocks),
                    "titles": [item["title"] for item in blocks],
                    "ids": [item["id"] for item in blocks],
                    "options": options, "restricted": any(item["restricted"] for item in blocks),
                }  # fmt: skip
                entries.append(block["entry"])
            continue
        if command == "}" and inside:
            if blocks.pop()["kind"] == "submenu":
                counters.pop()
            continue
        if inside and inside["kind"] == "menuentry":
            entry = inside["entry"]
            entry["body"].append(line)
            if command in LINUX and len(found) > 1 and entry["image"] is None:
                entry.update(image=found[1], kernel=version_of(found[1]))
                entry["tokens"] = [for_kernel(word) for word in found[2:]]
            elif command in INITRD:
                entry["initrds"] = found[1:]
        elif command == "set" and len(found) > 1 and found[1].startswith("default="):
            value = found[1][len("default="):]
            if "$" not in value or value == SAVED:
                default, default_by = value, section
    return {
        "entries": [entry for entry in entries if entry["kernel"] is not None],
        "all": entries,
        "tops": tops,
        "default": default,
        "default_by": default_by,
        "complete": bool(sections) and len(sections) == ended and not blocks,
        "sections": sections,
    }


def _entry_id(found):
    for option in ("$menuentry_id_option", "${menuentry_id_option}", "--id"):
        if option in found[:-1]:
            return found[found.index(option) + 1]
    return None


def _options(parts):
    """``(options of an entry that another may have too, whether superusers have to say yes)`` of its :func:`raw_words`.

    GRUB asks unless there is ``--unrestricted``, and heeds ``--users`` before that.
    """
    kept = []
    free = named = value = False
    for raw, word in parts:
        name = word.split("=", 1)[0]
        if value and not word.startswith("-"):
            kept.append(raw)
            value = False
            continue
        value = word in ("--class", "--users")
        if name in ("--class", "--users", "--unrestricted"):
            kept.append(raw)
        free = free or name == "--unrestricted"
        named = named or name == "--users"
    return kept, named or not free


def ordinary(entry):
    """Whether ``GRUB_CMDLINE_LINUX_DEFAULT`` goes to a parsed entry."""
    script = posixpath.basename(entry["section"] or "")
    return script.startswith("10_linux") and not entry["recovery"] and not loader.ours(entry["id"])


def default_entry(menu, saved=None):
    """The entry that boots when nobody chooses, or None when that cannot be told.

    ``saved``: value of ``saved_entry`` in the environment block.
    """
    wanted = asked(menu, saved)
    if not wanted:
        return None
    for entry in menu["entries"]:
        if wanted in (entry["path"], entry["id"], entry["title"]):
            return entry
    steps = wanted.split(">")
    for entry in menu["entries"]:
        # each step is a position, a title or an identifier; a submenu alone means its first entry
        names = list(zip(entry["path"].split(">"), entry["titles"], entry["ids"]))
        if len(steps) <= len(names) and all(step in known for step, known in zip(steps, names)):
            return entry
    return None


def asked(menu, saved=None):
    """What chooses the default entry, the saved one resolved; None when that cannot be told."""
    return (saved or "0") if menu["default"] == SAVED else menu["default"]


def by_number(wanted):
    return any(step.isdigit() for step in (wanted or "").split(">"))


def started(entries, wanted, level=0):
    """The entry that GRUB starts for a default: the first of a menu in which a step names nothing. None: cannot be told."""
    if not wanted and not level or not entries:
        return None
    step, dummy, rest = wanted.partition(">")
    named = [entry for entry in entries if step in (_position(entry, level), entry["titles"][level], entry["ids"][level])]
    inside = [entry for entry in entries if _position(entry, level) == _position((named or entries)[0], level)]
    return inside[0] if level + 1 == len(inside[0]["titles"]) else started(inside, rest, level + 1)


def _position(entry, level):
    return entry["path"].split(">")[level]


def alike(one, other):
    """Whether two entries, of two menus, are the same thing to start: an ordinary one is as good as another."""
    if one is None or other is None:
        return True
    if ordinary(one) or ordinary(other):
        return ordinary(one) and ordinary(other)
    same = one["title"] == other["title"] or bool(one["id"]) and one["id"] == other["id"]
    return same and one["section"] == other["section"]


def name_of(entry):
    """What names an entry wherever it stands."""
    return ">".join(known or title for known, title in zip(entry["ids"], entry["titles"]))


def counted(menu, gone, new):
    """All entries as GRUB would count them without what the scripts ``gone`` wrote, and with an entry of each in ``new``.

    ``new``: ``{script: title}``. ``place``: where each of them is in ``menu``; None for what is new.
    """
    order = [(section or "", position) for position, section in enumerate(menu["tops"]) if section not in gone]
    for script in new:
        order.insert(len([section for section, dummy in order if section < script]), (script, None))
    found = []
    for index, (section, position) in enumerate(order):
        if position is None:
            found.append({"path": str(index), "titles": [new[section]], "ids": [None], "title": new[section], "place": None})
        for entry in menu["all"]:
            if _position(entry, 0) == str(position):
                path = ">".join([str(index)] + entry["path"].split(">")[1:])
                found.append(dict(entry, path=path, place=entry["path"]))
    return found


def means_another(menu, saved, block, now, was):
    """The sentence about a default that would start ``now`` where it starts ``was``. ``block``: path of the saved entry."""
    wanted = asked(menu, saved)
    name = "'%s'" % name_of(was).replace("'", "'\\''")
    if menu["default"] == SAVED:
        place, remedy = "saved_entry=%s in %s" % (wanted, block), "grub-set-default " + name
    elif posixpath.basename(menu["default_by"] or "") in ("", "00_header"):
        place, remedy = "GRUB_DEFAULT=%s" % wanted, "GRUB_DEFAULT=" + name
    else:
        place, remedy = "set default=%s in %s" % (wanted, menu["default_by"]), "set default=" + name
    said = "the default would be %r instead of %r, for %s " % (now["title"], was["title"], place)
    if loader.ours(was["id"]):
        return said + "means an entry of ours, which goes: choose another there first"
    return said + (
        "counts the entries of the menu, and there are others then: correct it first, and name the entry there by its id "
        "or title (%s)" % remedy
    )


def environment(text):
    """Variables of GRUB's environment block, ``{name: value}``."""
    found = {}
    for line in (text or "").splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found[name] = value
    return found


def evaluate(files):
    """What the settings come to, read without running them.

    ``files``: ``[(path, text)]`` in the order in which ``grub-mkconfig`` sources them. Returns
    ``(tokens | None, {token: path})``; None when a value needs a shell to be known, or whether it is set at all.
    """
    values = {"GRUB_CMDLINE_LINUX": "", "GRUB_CMDLINE_LINUX_DEFAULT": ""}
    origin = {}
    known = True
    for path, text in files:
        known = known and decided_by_shell(text) is None
        for line in text.splitlines():
            match = ASSIGNMENT.match(line)
            if not match:
                known = known and (not NAMED.search(_code(line)) or bool(EXPORTED.match(_code(line))))
                continue
            name, plus, raw = match.groups()
            expanded, literal, sure = _shell_word(raw, values)
            known = known and sure
            values[name] = (values[name] if plus else "") + expanded
            for token in tokens.split(literal):
                origin.setdefault(token, path)
    line = "%s %s" % (values["GRUB_CMDLINE_LINUX"], values["GRUB_CMDLINE_LINUX_DEFAULT"])
    return (tokens.split(line) if known else None), origin


def default_setting(files):
    """What the settings have in the menu as default; None where they do not say it, or only to a shell."""
    found = None
    for dummy, text in files:
        for line in text.splitlines():
            match = DEFAULT.match(line)
            if match:
                value, dummy2, known = _shell_word(match.group(1), {})
                found = {"saved": SAVED, "": "0"}.get(value, value) if known else None
            elif re.search(r"\bGRUB_DEFAULT=", _code(line)):
                return None
    return found


def decided_by_shell(text):
    """Number of the line of settings from which on only a shell knows what is executed of them; None where all is."""
    depth = start = 0
    goes_on = False
    for number, line in enumerate(text.splitlines(), 1):
        code = _code(line)
        opened = len(OPENS.findall(code))
        if not depth:
            start = number
        if JUMP.search(code) or NAMED.search(code) and (depth or opened or goes_on or DEPENDS.search(code)):
            return start
        depth = max(0, depth + opened - len(CLOSES.findall(code)))
        goes_on = bool(re.search(r"(?:&&|\|\||\||\\)\s*$", code))
    return None


def _code(line):
    """A line of shell without its strings and its comment."""
    return re.sub(r"(^|\s)#.*", "", STRING.sub("''", line))


def _shell_word(raw, values):
    """The first shell word of ``raw``: ``(expanded, literal part of it, True when nothing was left unknown)``."""
    expanded = literal = ""
    quote = ""
    index = 0
    while index < len(raw):
        char = raw[index]
        variable = re.match(r"\$(?:\{(\w+)\}|(\w+))", raw[index:])
        if quote != "'" and variable:
            name = variable.group(1) or variable.group(2)
            if name not in values:
                return expanded, literal, False
            expanded += values[name]
            literal += " "
            index += variable.end()
            continue
        if quote != "'" and char in "$`":
            return expanded, literal, False
        if quote != "'" and char == "\\" and index + 1 < len(raw):
            index += 1
            expanded += raw[index]
            literal += raw[index]
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and (char.isspace() or char in ";&|"):
            return expanded, literal, not _code(raw[index:]).strip(" \t;")  # else it may be for one command only
        else:
            expanded += char
            literal += char
        index += 1
    return expanded, literal, not quote  # an open quote goes on in the next line
