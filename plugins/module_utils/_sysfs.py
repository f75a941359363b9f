# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Accesses that the kernel may never return from: one child does them all, and is left behind when it hangs."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import time

STACK_LINES = 12
KILL_TIMEOUT = 0.2
"""Seconds that a child gets to die: one in an uninterruptible wait never does."""


READ_LIMIT = 1 << 16
READ, WRITE, OPEN, IOCTL = b"r", b"w", b"o", b"i"
MODES = {READ: os.O_RDONLY, WRITE: os.O_WRONLY, OPEN: os.O_RDWR, IOCTL: os.O_RDWR}


class Stuck(Exception):
    """The access did not end; the text is the kernel's stack of the child, or empty."""


class Child:
    """Reads, writes, opens and asks what it is told, one after the other. It ends with its parent."""

    def __init__(self):
        wanted, self._wanted = os.pipe()
        self._answers, answers = os.pipe()
        self.owner = parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._wanted)
                os.close(self._answers)
                null = os.open(os.devnull, os.O_RDWR)
                for standard in (0, 1, 2):  # whoever waits for the end of our output must not wait for a stuck child
                    os.dup2(null, standard)
                _serve(wanted, answers, parent)
            finally:
                os._exit(1)
        os.close(wanted)
        os.close(answers)

    def write(self, path, data, timeout):
        """errno, 0 for success, None when the child died. Raises Stuck after ``timeout`` seconds."""
        return self._ask(WRITE, path, data, timeout)[0]

    def read(self, path, timeout):
        """``(errno, bytes)``, the same."""
        return self._ask(READ, path, b"", timeout)

    def open(self, path, timeout):
        """errno as of write(), for opening a device node to read and write; it is closed again."""
        return self._ask(OPEN, path, b"", timeout)[0]

    def ioctl(self, path, request, data, timeout):
        """``(errno, bytes)`` as of read(): a device node is opened, asked ``request`` with the buffer ``data``, and closed."""
        return self._ask(IOCTL, path, struct.pack("<I", request) + data, timeout)

    def _ask(self, what, path, data, timeout):
        name = os.fsencode(path)
        try:
            os.write(self._wanted, what + struct.pack("<II", len(name), len(data)) + name + data)
            if not select.select([self._answers], [], [], timeout)[0]:
                stack = self._stack()
                self.close()
                raise Stuck(stack)
            code, size = struct.unpack("<II", _exactly(self._answers, 8))
            return code, _exactly(self._answers, size)
        except (OSError, EOFError):
            self.close()
            return None, b""

    def close(self):
        """End the child, if it can be ended. Only its own parent may."""
        if self.pid is None or self.owner != os.getpid():
            return
        pid, self.pid = self.pid, None
        os.close(self._wanted)
        os.close(self._answers)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + KILL_TIMEOUT
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < end:
            time.sleep(0.002)

    def __del__(self):
        try:
            self.close()
        except (OSError, AttributeError, TypeError):
            pass  # at the end of the interpreter; the child sees that its parent is gone

    def _stack(self):
        try:
            with open("/proc/%d/stack" % self.pid, encoding="ascii", errors="replace") as handle:
                lines = [line.strip() for line in handle.read().splitlines()[:STACK_LINES]]
        except OSError:
            return ""
        return "; the kernel is in: " + ", ".join(lines) if lines else ""


def _serve(wanted, answers, parent):
    while True:
        # Other children may hold the parent's end of the pipe, so its end alone does not tell.
        while not select.select([wanted], [], [], 1.0)[0]:
            if os.getppid() != parent:
                os._exit(0)
        try:
            what, name_size, size = struct.unpack("<cII", _exactly(wanted, 9))
            name, data = _exactly(wanted, name_size), _exactly(wanted, size)
        except EOFError:
            os._exit(0)
        code, found = 0, b""
        try:
            fd = os.open(name, MODES[what] | os.O_CLOEXEC)
            try:
                if what == READ:
                    found = os.read(fd, READ_LIMIT)
                elif what == WRITE:
                    os.write(fd, data)
                elif what == IOCTL:
                    buffer = bytearray(data[4:])
                    fcntl.ioctl(fd, struct.unpack("<I", data[:4])[0], buffer)
                    found = bytes(buffer)
            finally:
                os.close(fd)
        except OSError as exc:
            code = exc.errno or 5
        os.write(answers, struct.pack("<II", code, len(found)) + found)


def _exactly(fd, size):
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
