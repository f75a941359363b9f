#!/usr/bin/env python
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of the machine that runs it: the report on the terminal, JSON and a page below .build/audit.

    python3 tools/audit.py [FOLDER]

Reads only; root sees more. Needs Python 3.8 and this checkout, no Ansible and nothing installed.
"""

from __future__ import annotations

import os
import platform
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from record_tree import HERE, import_collection


def write(folder, name, text):
    """Write a file for its owner only, through a new one, so that an old file's mode or link does not matter."""
    path = os.path.join(folder, name)
    new = "%s.%d" % (path, os.getpid())
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)
    return path


def main(arguments):
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 2
    if not sys.platform.startswith("linux"):
        print("audit: needs Linux, this is %s" % sys.platform, file=sys.stderr)
        return 1
    folder = arguments[0] if arguments else os.path.join(HERE, ".build", "audit")
    import_collection()
    from ansible_collections.vfio.host.plugins.module_utils import _host, _machine
    from ansible_collections.vfio.host.plugins.module_utils._report import html, index, saved, terminal

    name = platform.node() or "this machine"
    machine = _machine.collect(_host.Host())
    print("\n".join(terminal.report(machine, name)), flush=True)
    try:
        os.makedirs(folder, exist_ok=True)
        written = [
            write(folder, index.file_name(name, "json"), saved.text(machine)),
            write(folder, index.file_name(name, "html"), html.page(machine, name)),
        ]
    except OSError as error:
        print("\naudit: the files were not written: %s" % error, file=sys.stderr)
        return 1
    print("\nWritten: %s" % "\n         ".join(written))
    return 0


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        STATUS = 0
    sys.exit(STATUS)
