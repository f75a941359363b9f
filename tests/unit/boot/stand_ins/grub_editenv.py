# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""grub-editenv (grub2-editenv): list, set and unset in an environment block."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._host import Result

HEADER = "# GRUB Environment Block\n"


def run(host, argv, stdin=None):
    path, action, rest = argv[1], argv[2], argv[3:]
    path = "/boot/grub2/grubenv" if path == "-" else path
    text = host.read(path)
    if text is None:
        return Result(argv, 1, "", "grub-editenv: error: cannot open `%s': No such file or directory.\n" % path)
    if not text.startswith(HEADER):
        return Result(argv, 1, "", "grub-editenv: error: invalid environment block.\n")
    size = len(text)
    pairs = [line.split("=", 1) for line in text[len(HEADER):].split("\n") if "=" in line and line[0] != "#"]
    if action == "list":
        return Result(argv, 0, "".join("%s=%s\n" % tuple(pair) for pair in pairs))
    for item in rest:
        name, equals, value = item.partition("=")
        if action == "set" and not equals:
            return Result(argv, 1, "", "grub-editenv: error: invalid parameter %s.\n" % item)
        if action == "set" and name in [pair[0] for pair in pairs]:
            pairs = [[name, value] if pair[0] == name else pair for pair in pairs]
        elif action == "set":
            pairs.append([name, value])
        else:
            pairs = [pair for pair in pairs if pair[0] != name]
    body = HEADER + "".join("%s=%s\n" % tuple(pair) for pair in pairs)
    if len(body) > size:
        return Result(argv, 1, "", "grub-editenv: error: environment block too small.\n")
    with open(host.path(path), "r+", encoding="utf-8") as handle:
        handle.write(body + "#" * (size - len(body)))
    return Result(argv, 0)
