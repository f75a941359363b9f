# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Goes into a lab host as sitecustomize.py: ends a module, or the machine, right before its N-th change.

The changes (writes to sysfs are some of them) are counted by Python's own audit events, so the module under test is the one that users run. What to do is
read from the folder of this file: ``at`` (N) and ``how``: ``kill`` (SIGKILL to the module and all that it started), ``cut``
(the machine restarts at once, nothing is synced) or ``during`` (SIGKILL one second into the N-th command; nothing else
is counted). ``said`` tells what it was.
"""

import mmap
import os
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "subprocess.Popen")
READERS = ("sha256sum", "sha1sum", "dmesg", "journalctl", "grub-probe", "zstd", "gzip", "xz", "lz4", "lzop", "bzip2")
"""Commands that change nothing."""
WRITES = os.O_WRONLY | os.O_RDWR
MAIN = os.getpid()
COUNTED = mmap.mmap(-1, 4)
"""Shared with the children: one of them writes to sysfs."""


def read(name):
    with open(os.path.join(HERE, name), encoding="ascii") as handle:
        return handle.read().strip()


AT, HOW = int(read("at")), read("how")


def below(pid):
    """Process ids of all that a process has started."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % int(name), encoding="ascii", errors="replace") as handle:
                parent = int(handle.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [int(name)] + below(int(name))
    return found


def end():
    if HOW == "cut":
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as handle:
            handle.write("b")
        time.sleep(60)
    if os.fork():  # whoever stops the module must not be part of it
        time.sleep(60)
    os.kill(MAIN, signal.SIGSTOP)  # it must not see its children end
    for pid in below(MAIN):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    os.kill(MAIN, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def later():
    time.sleep(1)
    end()


def hook(event, arguments):
    if event == "open":
        if not (os.fsdecode(arguments[0] if isinstance(arguments[0], (str, bytes)) else "").startswith("/sys/")
                and (arguments[2] or 0) & WRITES):
            return
    elif event not in CHANGES or HOW == "during" and event != "subprocess.Popen":
        return
    elif event == "os.mkdir" and os.path.isdir(arguments[0]) or event == "subprocess.Popen" and (
            os.path.basename(str(arguments[0])) in READERS):
        return
    text = "%s %s" % (event, " ".join(str(part)[:120] for part in arguments[:2]))
    if " /tmp/" in text or "ansible" in text and "vfio" not in text.replace("vfio.host", ""):
        return  # temporary files of its own
    count = int.from_bytes(COUNTED[:4], "little") + 1
    COUNTED[:4] = count.to_bytes(4, "little")
    if count != AT:
        return
    fd = os.open(os.path.join(HERE, "said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, text.encode("utf-8", "replace"))
    os.fsync(fd)
    os.close(fd)
    if HOW != "during":
        end()
    else:
        threading.Thread(target=later, daemon=True).start()


sys.addaudithook(hook)
