# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""grubby as the Fedora family has it since entries of the Boot Loader Specification: a shell script over sed.

Its regular expressions are built of the arguments as they are, and that is the point: what it takes away and
what it rewrites beside is what a backend has to live with.
"""

from __future__ import annotations

import functools
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grub_editenv

FOLDER = "/boot/loader/entries"
ENVIRONMENT = "/boot/grub2/grubenv"
DEFAULTS = "/etc/default/grub"
CMDLINE = "/etc/kernel/cmdline"

SPACE = "[ \t\n\r\f\v]"
NOTHING = (
    "add-kernel", "make-default", "set-default", "remove-kernel", "initrd", "title", "default-kernel",
    "no-etc-grub-update",
)  # fmt: skip


def run(host, argv, stdin=None, defaults_pattern="GRUB_CMDLINE_LINUX="):
    """``defaults_pattern``: what Fedora's rewrites, every line that begins so (GRUB_CMDLINE_LINUX_DEFAULT too)."""
    options = {}
    rest = argv[1:]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            return Result(argv, 1, "\n", 'grubby: invalid option "%s"\n' % word)
        name, equals, value = word[2:].partition("=")
        if name in NOTHING:
            raise NotImplementedError(name)
        if name not in ("update-kernel", "args", "remove-args", "info", "env"):
            return Result(argv, 1, "", "grubby: unrecognized option '--%s'\n" % name)
        options[name] = value if equals else rest.pop(0)
    if len(argv) == 1:
        return Result(argv, 1, "", "no action specified\n")
    if "update-kernel" not in options and (options.get("args") or options.get("remove-args")):
        return Result(argv, 1, "", "no action specified\n")
    environment = options.get("env", ENVIRONMENT)
    items = _entries(host)
    if options.get("info"):
        return _info(host, argv, items, environment, options["info"])
    if options.get("update-kernel"):
        return _update(host, argv, items, environment, options, defaults_pattern)
    return Result(argv, 0)


def _entries(host):
    names = [name[: -len(".conf")] for name in host.listdir(FOLDER) if name.endswith(".conf")]
    names.sort(key=functools.cmp_to_key(entries.compare_versions), reverse=True)
    return [[name, host.read("%s/%s.conf" % (FOLDER, name))] for name in names]


def _value(text, key):
    return "\n".join(line[len(key):].lstrip(" \t") for line in text.split("\n") if re.match(key + "[ \t]", line))


def _list(host, environment):
    return grub_editenv.run(host, ["grub2-editenv", environment, "list"]).stdout


def _kernelopts(host, environment):
    return " ".join(
        line.replace("kernelopts=", "", 1) for line in _list(host, environment).splitlines() if "kernelopts" in line
    )


def _line(host, environment, text):
    args = _value(text, "options")
    for word in args.split():
        if word == "$kernelopts":
            found = [row for row in _list(host, environment).splitlines() if "kernelopts" in row]
            value = " ".join(row.replace("kernelopts=", "", 1) for row in found)
            args = args.replace(word, value or word, 1)
    return " ".join(args.split())


def _indexes(host, items, environment, param):
    if param == "ALL":
        return list(range(len(items)))
    if param == "DEFAULT":
        saved = re.search("^saved_entry=(.*)$", host.read(environment) or "", re.M)
        saved = saved.group(1) if saved else ""
        number = int(saved or 0) if not saved or saved.isdigit() else -1
        for index, (name, text) in enumerate(items):
            if saved in (name, _value(text, "title")) or index == number:
                return [index]
        return []
    return [
        index for index, (name, text) in enumerate(items)
        if _value(text, "linux") in (param, "/" + param.rsplit("/", 1)[-1])
        or param in ("TITLE=" + _value(text, "title"), str(index))
    ] or None  # fmt: skip


def _info(host, argv, items, environment, param):
    indexes = _indexes(host, items, environment, param)
    if indexes is None:
        return Result(argv, 1, "", "The param %s is incorrect\n" % param)
    out = ""
    for index in indexes:
        name, text = items[index]
        line = _line(host, environment, text)
        root = next((word[len("root="):] for word in line.split() if word.startswith("root=")), None)
        if root is not None:
            line = re.sub("root=" + root + "[ \t]*", "", line, count=1)
        out += 'index=%d\nkernel="%s"\nargs="%s"\n' % (index, _value(text, "linux"), line)
        out += '' if root is None else 'root="%s"\n' % root
        out += 'initrd="%s"\ntitle="%s"\nid="%s"\n' % (_value(text, "initrd"), _value(text, "title"), name)
    return Result(argv, 0, out)


def _without(line, name, once=False):
    """sed with the name as it is: a regular expression."""
    if once:
        return re.sub("(^|%s)%s(%s|$)" % (SPACE, name, SPACE), " ", line, count=1)
    return re.sub("(^|%s)%s((%s|$)|([=][^ ]*([$]*)))" % (SPACE, name, SPACE), " ", line)


def changed(line, remove, add):
    """Its ``update_args``."""
    for word in remove.split():
        line = " ".join(_without(line, word, once="=" in word).split())
    for word in add.split():
        line = " ".join(_without(line, word.split("=", 1)[0]).split())
    return " ".join((line + " " + add).split())


def _set(text, value):
    return re.sub("^options.*", lambda match: "options " + value, text, flags=re.M)


def _update(host, argv, items, environment, options, defaults_pattern):
    param = options["update-kernel"]
    remove, add = options.get("remove-args", ""), options.get("args", "")
    indexes = _indexes(host, items, environment, param)
    if indexes is None:
        return Result(argv, 1, "", "The param %s is incorrect\n" % param)
    if not remove and not add:
        return Result(argv, 0)
    if param == "ALL":
        text = host.read(DEFAULTS)
        if text is not None:
            old = _shell(text)
            if old:
                new = 'GRUB_CMDLINE_LINUX="%s"' % changed(old, remove, add)
                _in_place(host, DEFAULTS, re.sub("^%s.*" % defaults_pattern, lambda match: new, text, flags=re.M))
        old = _kernelopts(host, environment)
        if old:
            grub_editenv.run(host, ["grub2-editenv", environment, "set", "kernelopts=" + changed(old, remove, add)])
    for index in indexes:
        name, text = items[index]
        line = changed(_line(host, environment, text), remove, add)
        if param != "ALL" or "$kernelopts" not in _value(text, "options").split():
            _in_place(host, "%s/%s.conf" % (FOLDER, name), _set(text, line))
    if param == "ALL":
        text = host.read(CMDLINE)
        if text is None:
            text = _line(host, environment, host.read("%s/%s.conf" % (FOLDER, items[-1][0]))) + "\n"
        _in_place(host, CMDLINE, changed(text.split("\n")[0], remove, add) + "\n")
    return Result(argv, 0)


def _shell(text):
    """What bash makes of GRUB_CMDLINE_LINUX, for the assignments that the recorded hosts have."""
    value = ""
    for line in text.splitlines():
        match = re.match(r"GRUB_CMDLINE_LINUX=(?:\"(.*)\"|'(.*)'|(\S*))\s*(?:#.*)?$", line)
        if match:
            new = match.group(1) or match.group(2) or match.group(3) or ""
            value = new.replace("$GRUB_CMDLINE_LINUX", value) if match.group(2) is None else new
    return " ".join(value.split())


def _in_place(host, path, text):
    mode = host.stat(path).st_mode & 0o7777 if host.exists(path) else 0o644
    host.write(path, text, mode=mode)
