# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a script of a host (of its image, or of a unit) on a recorded sysfs, whose paths are written into a copy of it.

A recorded sysfs does nothing by itself: ``/bin/kernel`` of the recorded machine, if it has one, is told of each write.
"""

from __future__ import annotations

import shutil
import subprocess

SHELLS = [argv for argv in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(argv[0])]
FOLDERS = ("/sys/bus", "/sys/module", "/proc/cmdline", "/dev/kmsg", "/etc/vfio-host")
COMMANDS = ("modprobe", "ip link set")
"""As the scripts call them; given with their path, since busybox prefers its own."""
WRITE = '{ echo "$1" >"$2"; } 2>/dev/null\n'


def run(host, text, arguments=(), shell=None, patience=None, rc=0):
    """What it said to the kernel log, without the prefix.

    ``patience``: its own seconds of waiting, which become 1.
    """
    for folder in FOLDERS:
        text = text.replace(folder, host.root + folder)
    text = text.replace(">%s/dev/kmsg" % host.root, ">>%s/dev/kmsg" % host.root)
    for command in COMMANDS:
        if host.exists("/bin/" + command.split()[0]):
            text = text.replace(" %s " % command, " %s " % host.path("/bin/" + command))
    if patience:
        assert "\npatience=%d\n" % patience in text
        text = text.replace("\npatience=%d\n" % patience, "\npatience=1\n")
    assert WRITE in text
    text = text.replace(WRITE, WRITE.rstrip() + ' && %s "$1" "$2"\n' % host.path("/bin/kernel"))
    host.write("/script", text)
    host.write("/dev/kmsg", "")
    with open(host.path("/output"), "w+", encoding="utf-8") as output:  # a pipe would wait for what is stuck
        done = subprocess.run((shell or SHELLS[0]) + [host.path("/script"), *arguments], timeout=120, stdout=output, stderr=output,
                              check=False)
        output.seek(0)
        assert (output.read(), done.returncode) == ("", rc), host.read("/dev/kmsg")
    lines = host.read("/dev/kmsg").splitlines()
    assert all(line.startswith("vfio-host: ") for line in lines)
    return [line[len("vfio-host: "):] for line in lines]
