# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rpm-ostree: kargs and status, over deployments in one file of the recorded host (:data:`SYSROOT`)."""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils._host import Result

SYSROOT = "/ostree/deployments.json"
"""``[{osname, checksum, serial, version, booted, staged, kargs: [str]}]``, the one that boots next first."""


def run(host, argv, stdin=None):
    found = json.loads(host.read(SYSROOT))
    if argv[1:] == ["status", "--json"]:
        shown = [{key: value for key, value in one.items() if key != "kargs"} for one in found]
        return Result(argv, 0, json.dumps({"deployments": shown, "transaction": None}))
    if argv[1] != "kargs":
        return Result(argv, 1, "", "error: Unknown command '%s'\n" % argv[1])
    options = {}
    for word in argv[2:]:
        name, equals, value = word.partition("=")
        if name not in ("--append", "--delete", "--append-if-missing", "--delete-if-present", "--deploy-index",
                        "--unchanged-exit-77"):  # fmt: skip
            return Result(argv, 1, "", "error: Unknown option %s\n" % name)
        options.setdefault(name, []).append(value)
    index = int(options.pop("--deploy-index", ["0"])[0])
    if index >= len(found):
        return Result(argv, 1, "", "error: Out of range deployment index %d, expected < %d\n" % (index, len(found)))
    line = list(found[index]["kargs"])
    unchanged = options.pop("--unchanged-exit-77", None)
    if not options:
        return Result(argv, 0, " ".join(line) + "\n")
    if host.read("/run/rpm-ostree-busy"):
        return Result(
            argv, 1, "", "error: Transaction in progress: upgrade\n You can cancel the current transaction with "
            "`rpm-ostree cancel`\n",
        )  # fmt: skip
    before = list(line)
    changed = False
    for arg in options.get("--delete", []):
        error = delete(line, arg)
        if error:
            return Result(argv, 1, "", "error: %s\n" % error)
        changed = True
    for arg in options.get("--append", []):
        line.append(arg)
        changed = True
    for arg in options.get("--append-if-missing", []):
        if arg not in line:
            line.append(arg)
            changed = True
    for arg in options.get("--delete-if-present", []):
        if arg in before:
            error = delete(line, arg)
            if error:
                return Result(argv, 1, "", "error: %s\n" % error)
            changed = True
    if not changed:
        return Result(argv, 77 if unchanged else 0, "No changes.\n")
    new = dict(found[0], kargs=line, booted=False, staged=True)
    new["serial"] = found[0]["serial"] if found[0]["staged"] else found[0]["serial"] + 1
    # a staged deployment is replaced; what runs and what was before it stays
    host.write(SYSROOT, json.dumps([new] + [one for one in found if not one["staged"]], indent=1))
    return Result(
        argv, 0, "Staging deployment... done\nKernel arguments updated.\nRun \"systemctl reboot\" to start a reboot\n"
    )


def delete(line, arg):
    """As libostree's kernel arguments do it; the text of its error, or None."""
    key, equals, value = arg.partition("=")
    same = [index for index, one in enumerate(line) if one.partition("=")[0] == key]
    if not same:
        return "No key '%s' found" % key
    if len(same) == 1:
        if equals and line[same[0]] != arg:
            return "No karg '%s=%s' found" % (key, value)
        del line[same[0]]  # a bare key takes its only value away, whatever it is
        return None
    for index in same:
        if line[index] == arg:
            del line[index]
            return None
    return "No karg '%s' found" % arg if equals else "Multiple values for key '%s' found" % arg


def make(host, kargs, version="40.1"):
    """A host that runs its only deployment."""
    path = "ostree=/ostree/boot.1/fedora/abc/0"
    one = {"osname": "fedora", "checksum": "abc", "serial": 0, "version": version, "booted": True, "staged": False,
           "kargs": kargs.split() + [path]}  # fmt: skip
    host.write(SYSROOT, json.dumps([one], indent=1))
    host.write("/ostree/deploy/fedora/deploy/abc.0/usr/lib/modules/6.9.4-200.fc40.x86_64/vmlinuz", "kernel")
    host.write("/ostree/deploy/fedora/deploy/abc.1/usr/lib/modules/6.9.4-200.fc40.x86_64/vmlinuz", "kernel")
    host.write("/run/ostree-booted", "")
    host.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/ostree/fedora-abc/vmlinuz-6.9.4 %s %s\n" % (kargs, path))
    return host
