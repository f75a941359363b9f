#!/usr/bin/env python
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explain a machine of which there is only a dump of lspci, as people paste it into forums.

    sudo lspci -D -xxxx > dump.txt          # on that machine
    python3 tools/explain.py dump.txt       # here; or make explain FILE=dump.txt

Needs Python 3.8 and the collection's ``plugins`` folder beside this one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from record_tree import import_collection


def main(arguments):
    """0, or 1 with a sentence on stderr."""
    import_collection()
    from ansible_collections.vfio.host.plugins.module_utils import _dump_machine
    from ansible_collections.vfio.host.plugins.module_utils._hardware import dump
    from ansible_collections.vfio.host.plugins.module_utils._report import terminal

    parser = argparse.ArgumentParser(description="Explain a machine from the output of: %s" % dump.COMMAND)
    parser.add_argument("file", metavar="FILE", help="the dump, or a message that has it in it; - for standard input")
    parser.add_argument("--kernel", help="release of the machine's kernel, to use its quirk tables")
    parser.add_argument("--firmware-table", choices=sorted(_dump_machine.TABLES), help="the firmware's IOMMU table")
    parser.add_argument("--cmdline", help="the machine's kernel command line")
    parser.add_argument("--out", metavar="FILE", help="also write a page (.html) or the machine document (.json)")
    chosen = parser.parse_args(arguments)
    if chosen.out and not chosen.out.endswith((".html", ".json")):
        parser.error("--out: %s ends with neither .html nor .json" % chosen.out)
    try:
        if chosen.file == "-":
            text, name = sys.stdin.buffer.read(), "standard input"
        else:
            with open(chosen.file, "rb") as handle:
                text, name = handle.read(), os.path.basename(chosen.file)
        machine = _dump_machine.from_dump(text.decode("utf-8", "replace"), {
            "kernel": chosen.kernel, "firmware_table": chosen.firmware_table, "cmdline": chosen.cmdline})
    except (OSError, ValueError) as error:
        print("explain: %s" % error, file=sys.stderr)
        return 1
    if not machine["functions"]:
        print("explain: %s has no line that begins like one of lspci (0000:01:00.0 VGA compatible controller: ...)\n"
              "make a dump on that machine with: %s" % (name, dump.COMMAND), file=sys.stderr)
        return 1
    if chosen.out:
        try:
            save(machine, name, chosen.out)
        except OSError as error:
            print("explain: --out: %s" % error, file=sys.stderr)
            return 1
    for line in terminal.report(machine, name):
        print(line)
    if not machine["source"]["privileged"]:
        print("\nThe dump was not taken as root: it has 64 bytes of each function, and the rest decides.\n"
              "Take it again on that machine with: %s" % dump.COMMAND)
    if chosen.out:
        print("\nWritten to %s" % chosen.out)
    return 0


def save(machine, name, path):
    """Write the machine document, or the page about it, as the name of the file says."""
    if path.endswith(".json"):
        data = json.dumps(machine, indent=1) + "\n"
    else:
        from ansible_collections.vfio.host.plugins.module_utils._report import html

        data = html.page(machine, name)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(data)


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        STATUS = 0
    sys.exit(STATUS)
