# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""A deadline for every read.

A read of sysfs or /proc can stay in the kernel for ever (a controller that hangs, a process that
holds a lock, a dead server), and nothing can end it. So the reading is done by a child. When one
read takes too long the child is left behind, and another one reads all but that.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
import struct
import threading
import time

from ansible_collections.vfio.host.plugins.module_utils._host import HostTimeout

READ_TIMEOUT = 5.0
"""Seconds that one read may take."""

STARVED_TIMEOUT = 60.0
"""The same for one that never sleeps in all the time: most likely there is no read at all, and only the CPU is late."""

ATTEMPTS = 8
"""Children at most: a machine where more reads hang is not one to decide about."""

_DONE, _BLOCKED, _FAILED = b"D", b"B", b"F"


def watched(host, work, timeout=READ_TIMEOUT, meanwhile=None):
    """``work(host)``, done by a child; what it returns must be plain data.

    Reads that did not end within ``timeout`` seconds are in ``host.blocked`` afterwards, and were taken as
    missing. Raises HostTimeout when ATTEMPTS reads hang, RuntimeError with the child's own traceback.

    :param meanwhile: called here once, while the child is at work.
    """
    for number in range(ATTEMPTS):
        kind, data = _attempt(host, work, timeout, None if number else meanwhile)
        if kind == _DONE:
            return marshal.loads(data)
        text = data.decode("utf-8", "backslashreplace")
        if kind == _FAILED:
            raise RuntimeError(text)
        host.blocked.add(text)
    raise HostTimeout("%d reads did not end within %g s each: %s" % (ATTEMPTS, timeout, " ".join(sorted(host.blocked))))


def _attempt(host, work, timeout, meanwhile):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(host, work, timeout, writing)
    os.close(writing)
    try:
        if meanwhile:
            meanwhile()
        kind, data = _message(reading)
    finally:
        os.close(reading)
    if kind == _BLOCKED:
        os.kill(pid, signal.SIGKILL)  # nothing waits for it: it may never end
    else:
        os.waitpid(pid, 0)
    return kind, data


def _child(host, work, timeout, writing):
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # whoever waits for the end of our output must not wait for a stuck child
            os.dup2(null, standard)
        gc.disable()  # nothing here lives long, and its passes grow with the document
        host.current = None  # what the parent has read is read
        lock = threading.Lock()
        threading.Thread(target=_watchdog, args=(host, timeout, writing, lock), daemon=True).start()
        try:
            kind, data = _DONE, marshal.dumps(work(host))
        except Exception:
            import traceback

            kind, data = _FAILED, traceback.format_exc().encode("utf-8", "backslashreplace")
        with lock:
            _send(writing, kind, data)
    finally:
        os._exit(0)


def _watchdog(host, timeout, writing, lock):
    seen, since, slept = None, time.monotonic(), None
    while True:
        time.sleep(timeout / 20)
        now, clock = (host.accesses, host.current), time.monotonic()
        if now != seen or host.current is None:
            seen, since, slept = now, clock, clock
            continue
        if not _asleep():  # it computes, or waits for a CPU
            slept = clock
        if clock - slept > timeout or clock - since > max(timeout, STARVED_TIMEOUT):
            with lock:
                _send(writing, _BLOCKED, host.current.encode("utf-8", "surrogateescape"))
            os._exit(0)


def _asleep():
    """Whether the main thread waits for something other than a CPU. What cannot be told counts as that."""
    try:
        with open("/proc/self/task/%d/stat" % os.getpid(), "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[0] != b"R"
    except (OSError, IndexError):
        return True


def _send(fd, kind, data):
    data = kind + struct.pack("<Q", len(data)) + data
    while data:
        data = data[os.write(fd, data[:1 << 20]):]


def _message(fd):
    head = _exactly(fd, 9)
    return head[:1], _exactly(fd, struct.unpack("<Q", head[1:])[0])


def _exactly(fd, size):
    chunks = []
    while size:
        chunk = os.read(fd, min(size, 1 << 20))
        if not chunk:
            raise RuntimeError("the child that reads the machine ended without a word (killed for want of memory?)")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
