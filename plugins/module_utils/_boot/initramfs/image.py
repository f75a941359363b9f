# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is inside an initramfs image, read here and not asked of the tool that made it.

An image is one or more cpio archives ("newc", ``Documentation/driver-api/early-userspace/
buffer-format.rst`` of the kernel): uncompressed ones first (microcode), then a compressed one.
It is read as a stream: names are kept, contents only of the few files that are wanted.
"""

from __future__ import annotations

import bz2
import gzip
import time
import zlib

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

try:
    import lzma
except ImportError:  # a Python that was built without it
    lzma = None

CHUNK = 1 << 16
FILE_LIMIT = 1 << 20
"""Bytes of a wanted file at most."""
NAME_LIMIT = 4096
NAMES_LIMIT = 200000
SIZE_LIMIT = 4 << 30
"""Bytes of unpacked image at most: what a decompression bomb is stopped at."""
MEMORY_LIMIT = 256 << 20
"""Bytes that a decompressor may take."""

HEADER_SIZE = 110
CPIO = (b"070701", b"070702")

MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x89LZO", "lzop"),
)
FILTERS = {
    "zstd": ["zstd", "-d", "-q", "-c", "--memory=%d" % MEMORY_LIMIT],
    "lz4": ["lz4", "-d", "-q", "-c"],
    "lzop": ["lzop", "-d", "-q", "-c"],
}
"""Formats that Python has no decoder for, and the filter that every host with such an image has."""

ERRORS = (ValueError, OSError, EOFError, zlib.error, HostError) + ((lzma.LZMAError,) if lzma else ())


class ImageError(HostError):
    """An image cannot be read to its end; the message names it and what is wrong."""


class Image:
    """``names``: set of paths without a leading slash; ``files``: {path: bytes} of what was wanted and there."""

    def __init__(self):
        self.names = set()
        self.files = {}


class _Source:
    """Buffered reading with a deadline; skipping hops where the handle can seek."""

    def __init__(self, handle, deadline, seekable=False):
        self.handle = handle
        self.deadline = deadline
        self.seekable = seekable
        self.buffer = b""
        self.total = 0

    def _fill(self):
        if time.monotonic() > self.deadline:
            raise ValueError("the deadline passed while it was read")
        data = self.handle.read(CHUNK)
        self.total += len(data)
        if self.total > SIZE_LIMIT:
            raise ValueError("it unpacks to more than %d bytes" % SIZE_LIMIT)
        self.buffer += data
        return bool(data)

    def peek(self, count):
        while len(self.buffer) < count and self._fill():
            pass
        return self.buffer[:count]

    def take(self, count):
        data = self.peek(count)
        if len(data) < count:
            raise ValueError("it ends in the middle of an archive")
        self.buffer = self.buffer[count:]
        return data

    def skip(self, count):
        if self.seekable and count > len(self.buffer):
            self.handle.seek(count - len(self.buffer), 1)  # beyond the end, the next header is missed
            self.buffer = b""
            return
        while count > len(self.buffer):
            count -= len(self.buffer)
            self.buffer = b""
            if not self._fill():
                raise ValueError("it ends in the middle of an archive")
        self.buffer = self.buffer[count:]

    def skip_zeros(self):
        """Go to the next byte that is not padding; False at the end."""
        while True:
            self.buffer = self.buffer.lstrip(b"\0")
            if self.buffer:
                return True
            if not self._fill():
                return False

    def position(self):
        """Where the next byte is in the file (handles that can seek only)."""
        return self.handle.tell() - len(self.buffer)


class _Unpacked:
    """A file object over a decompressor of the ``lzma``/``bz2`` kind that never inflates more than asked."""

    def __init__(self, handle, make):
        self.handle = handle
        self.make = make
        self.decoder = make()

    def read(self, count):
        data = b""
        while not data:
            if self.decoder.eof:
                rest = self.decoder.unused_data.lstrip(b"\0") or self.handle.read(CHUNK).lstrip(b"\0")
                if not rest:
                    return b""
                self.decoder = self.make()
                data = self.decoder.decompress(rest, count)
                continue
            given = self.handle.read(CHUNK) if self.decoder.needs_input else b""
            if self.decoder.needs_input and not given:
                raise ValueError("its compressed part ends too early")
            data = self.decoder.decompress(given, count)
        return data


def read_image(host, path, wanted, timeout=300.0):
    """Read an image to its end. ``wanted``: paths inside (no leading slash) to return the contents of.

    Later archives replace files of earlier ones, as in the kernel. Raises ImageError.
    """
    image = Image()
    deadline = time.monotonic() + timeout
    if not host.exists(path):
        raise ImageError("%s does not exist" % path)
    try:
        with open(host.path(path), "rb") as handle:
            source = _Source(handle, deadline, seekable=True)
            while source.skip_zeros():
                if source.peek(6) in CPIO:
                    _archive(source, wanted, image)
                    continue
                form = _format(source.peek(6))
                _compressed(host, path, handle, source.position(), form, wanted, image, deadline)
                break
    except ERRORS as exc:
        raise ImageError("%s cannot be read: %s" % (path, exc)) from exc
    if not image.names:
        raise ImageError("%s cannot be read: there is no archive in it" % path)
    return image


def _format(start):
    for magic, name in MAGIC:
        if start.startswith(magic):
            return name
    raise ValueError("unknown format, it goes on with %s" % start.hex())


def _compressed(host, path, handle, offset, form, wanted, image, deadline):
    if form in FILTERS:
        left = max(1.0, deadline - time.monotonic())
        with host.pipe(FILTERS[form], path, offset, left) as stream:
            _archives(_Source(stream, deadline), wanted, image)
        return
    handle.seek(offset)
    if form == "gzip":
        stream = gzip.GzipFile(fileobj=handle)
    elif form == "bzip2":
        stream = _Unpacked(handle, bz2.BZ2Decompressor)
    elif lzma is None:
        raise ValueError("it is compressed with %s, which this Python cannot read" % form)
    else:
        stream = _Unpacked(handle, lambda: lzma.LZMADecompressor(memlimit=MEMORY_LIMIT))
    _archives(_Source(stream, deadline), wanted, image)


def _archives(source, wanted, image):
    found = False
    while source.skip_zeros():
        if source.peek(6) not in CPIO:
            raise ValueError("its compressed part is not a cpio archive")
        _archive(source, wanted, image)
        found = True
    if not found:
        raise ValueError("its compressed part is empty")


def _archive(source, wanted, image):
    """One newc archive, from its first header to its trailer."""
    at = 0
    while True:
        header = source.take(HEADER_SIZE)
        if header[:6] not in CPIO:
            raise ValueError("a header of its archive is damaged")
        try:
            size = int(header[54:62], 16)
            name_size = int(header[94:102], 16)
        except ValueError:
            raise ValueError("a header of its archive is damaged") from None
        if not 0 < name_size <= NAME_LIMIT:
            raise ValueError("a name in its archive is too long")
        name = source.take(name_size)[:-1].decode("utf-8", "backslashreplace")
        at = _pad(source, at + HEADER_SIZE + name_size)
        if name == "TRAILER!!!":
            return
        name = name[2:] if name.startswith("./") else name.lstrip("/")
        image.names.add(name)
        if len(image.names) > NAMES_LIMIT:
            raise ValueError("it holds more than %d files" % NAMES_LIMIT)
        if name in wanted:
            if size > FILE_LIMIT:
                raise ValueError("%s in it has %d bytes" % (name, size))
            image.files[name] = source.take(size)
        else:
            source.skip(size)
        at = _pad(source, at + size)


def _pad(source, at):
    """Names and contents end on a multiple of four bytes, counted from the start of the archive."""
    source.skip(-at % 4)
    return at + -at % 4
