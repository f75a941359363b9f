# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What is inside an initramfs image, read here and not asked of the tool that made it.

An image is one or more cpio archives ("newc", ``Documentation/driver-api/early-userspace/
buffer-format.rst`` of the kernel), each compressed or not, with zeros between them: most have an
uncompressed one first (microcode), then a compressed one. As the kernel does, all are read; it may
be a part of a file (the ``.initrd`` section of a UKI). Names are kept, contents only of the few
files that are wanted.
"""

from __future__ import annotations

import bz2
import hashlib
import re
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

NOTED = "/dracut/build-parameter.txt"
"""Says with which options dracut was called, not what the image does."""

SHADOW = "etc/shadow"
CHANGED = re.compile(rb"^([^:\n]*:[^:\n]*:)[0-9]+(?=:)", re.MULTILINE)
"""The day of the last change, which systemd-sysusers sets to the day of the build in an image that dracut makes."""

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
    """``names``: set of paths without a leading slash; ``files``: {path: bytes} of what was wanted and there.

    ``members``: {path: what it is, times left out}, when that was asked for.
    """

    def __init__(self):
        self.names = set()
        self.files = {}
        self.members = {}

    def versions(self):
        """Kernels whose modules are in it."""
        found = (re.match(r"(?:usr/)?lib/modules/([^/]+)/.", name) for name in self.names)
        return {match.group(1) for match in found if match}

    def content(self):
        """A digest of everything that an unpacked image has, apart from times and inode numbers."""
        text = "".join("%s\0%s\n" % item for item in sorted(self.members.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class _Window:
    """A part of an open file, as a file."""

    def __init__(self, handle, start, length):
        self.handle = handle
        self.start = start
        self.end = handle.seek(0, 2) if length is None else start + length
        self.seek(0)

    def read(self, count):
        return self.handle.read(max(0, min(count, self.end - self.handle.tell())))

    def seek(self, offset, whence=0):
        return self.handle.seek(offset if whence else self.start + offset, whence)

    def tell(self):
        return self.handle.tell() - self.start


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


class _Gzip:
    """zlib's decoder with the face of the others."""

    def __init__(self):
        self.decoder = zlib.decompressobj(31)

    @property
    def eof(self):
        return self.decoder.eof

    @property
    def unused_data(self):
        return self.decoder.unused_data

    @property
    def needs_input(self):
        return not self.decoder.unconsumed_tail

    def decompress(self, data, count):
        return self.decoder.decompress(self.decoder.unconsumed_tail + data, count)


class _Unpacked:
    """A file object over a decompressor that never inflates more than asked.

    It ends where something else than a further stream of the same ``magic`` follows; ``rest`` says
    how many bytes were read from ``handle`` beyond that.
    """

    def __init__(self, handle, make, magic):
        self.handle = handle
        self.make = make
        self.magic = magic
        self.decoder = make()
        self.rest = None

    def read(self, count):
        data = b""
        while not data and self.rest is None:
            if self.decoder.eof:
                rest = self.decoder.unused_data
                while len(rest.lstrip(b"\0")) < len(self.magic):
                    more = self.handle.read(CHUNK)
                    if not more:
                        break
                    rest = rest.lstrip(b"\0") + more
                if not rest.lstrip(b"\0").startswith(self.magic):
                    self.rest = len(rest)
                    return b""
                self.decoder = self.make()
                data = self.decoder.decompress(rest.lstrip(b"\0"), count)
                continue
            given = self.handle.read(CHUNK) if self.decoder.needs_input else b""
            if self.decoder.needs_input and not given:
                raise ValueError("its compressed part ends too early")
            data = self.decoder.decompress(given, count)
        return data


def read_image(host, path, wanted, timeout=300.0, offset=0, length=None, members=False):
    """Read an image to its end. ``wanted``: paths inside (no leading slash) to return the contents of.

    ``offset`` and ``length``: the part of the file that it is. ``members``: note each member too.
    Later archives replace files of earlier ones, as in the kernel. Raises ImageError.
    """
    image = Image()
    deadline = time.monotonic() + timeout
    if not host.exists(path):
        raise ImageError("%s does not exist" % path)
    reader = _Reader(host, path, wanted, image, deadline, members)
    try:
        with open(host.path(path), "rb") as handle:
            reader.segments(_Window(handle, offset, length))
    except ERRORS as exc:
        raise ImageError("%s cannot be read: %s" % (path, exc)) from exc
    if not image.names:
        raise ImageError("%s cannot be read: there is no archive in it" % path)
    return image


def _format(start):
    for magic, name in MAGIC:
        if start.startswith(magic):
            return magic, name
    raise ValueError("unknown format, it goes on with %s" % start.hex())


class _Reader:
    """Reads one image into an Image."""

    def __init__(self, host, path, wanted, image, deadline, members):
        self.host = host
        self.path = path
        self.wanted = wanted
        self.image = image
        self.deadline = deadline
        self.members = members

    def segments(self, window):
        """All archives of the image, compressed or not, one after the other."""
        position = 0
        while True:
            window.seek(position)
            source = _Source(window, self.deadline, seekable=True)
            if not source.skip_zeros():
                return
            if source.peek(6) in CPIO:
                self.archive(source)
                position = source.position()
                continue
            magic, form = _format(source.peek(6))
            position = self.compressed(window, source.position(), magic, form)

    def compressed(self, window, at, magic, form):
        """One compressed segment at ``at``; returns where it ends."""
        if form in FILTERS:
            end = SEGMENT_ENDS[form](window, at)
            left = max(1.0, self.deadline - time.monotonic())
            with self.host.pipe(FILTERS[form], self.path, window.start + at, left, end - at) as stream:
                self.archives(_Source(stream, self.deadline))
            return end
        window.seek(at)
        if form == "gzip":
            stream = _Unpacked(window, _Gzip, magic)
        elif form == "bzip2":
            stream = _Unpacked(window, bz2.BZ2Decompressor, magic)
        elif lzma is None:
            raise ValueError("it is compressed with %s, which this Python cannot read" % form)
        else:
            stream = _Unpacked(window, lambda: lzma.LZMADecompressor(memlimit=MEMORY_LIMIT), magic)
        self.archives(_Source(stream, self.deadline))
        return window.tell() - stream.rest

    def archives(self, source):
        """The archives in one compressed segment."""
        found = False
        while source.skip_zeros():
            if source.peek(6) not in CPIO:
                raise ValueError("its compressed part is not a cpio archive")
            self.archive(source)
            found = True
        if not found:
            raise ValueError("its compressed part is empty")

    def archive(self, source):
        """One newc archive, from its first header to its trailer."""
        image = self.image
        at = 0
        while True:
            header = source.take(HEADER_SIZE)
            if header[:6] not in CPIO:
                raise ValueError("a header of its archive is damaged")
            try:
                fields = [int(header[start: start + 8], 16) for start in range(6, HEADER_SIZE, 8)]
            except ValueError:
                raise ValueError("a header of its archive is damaged") from None
            size, name_size = fields[6], fields[11]
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
            content = None
            if name in self.wanted:
                if size > FILE_LIMIT:
                    raise ValueError("%s in it has %d bytes" % (name, size))
                content = source.take(size)
                image.files[name] = content
            if self.members and not name.endswith(NOTED):
                # mode, owner, group and the device of a device file; no inode, links, times
                kept = [fields[1], fields[2], fields[3], fields[9], fields[10], size]
                if name == SHADOW and size <= FILE_LIMIT:
                    content = CHANGED.sub(rb"\1", source.take(size) if content is None else content)
                image.members[name] = "%s %s" % (kept, _digest(source, size, content))
            elif content is None:
                source.skip(size)
            at = _pad(source, at + size)


def _digest(source, size, content):
    if content is not None:
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    while size > 0:
        part = source.take(min(size, CHUNK))
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()


def _pad(source, at):
    """Names and contents end on a multiple of four bytes, counted from the start of the archive."""
    source.skip(-at % 4)
    return at + -at % 4


# -- where a segment ends that a filter decompresses --------------------------------------


def _number(window, at, size):
    window.seek(at)
    data = window.read(size)
    if len(data) < size:
        raise ValueError("its compressed part ends too early")
    return int.from_bytes(data, "little")


def _whole(window, at):
    """Where the file has no more than ``at`` bytes, the segment is cut."""
    if at > window.end - window.start:
        raise ValueError("its compressed part ends too early")
    return at


def _after_zstd(window, at):
    """RFC 8878, 3.1: frames of blocks that say their size."""
    size = window.end - window.start
    while at + 4 <= size:
        magic = _number(window, at, 4)
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            at = _whole(window, at + 8 + _number(window, at + 4, 4))
            continue
        if magic != 0xFD2FB528:
            break
        kind = _number(window, at + 4, 1)
        single = kind >> 5 & 1
        at += 5 + (1 - single) + (0, 1, 2, 4)[kind & 3] + (single, 2, 4, 8)[kind >> 6]
        last = 0
        while not last:
            block = _number(window, at, 3)
            last = block & 1
            at = _whole(window, at + 3 + (1 if block >> 1 & 3 == 1 else block >> 3))
        at = _whole(window, at + (4 if kind >> 2 & 1 else 0))
    return at


LZ4_BLOCK = 9 << 20
"""Bytes of a compressed block of the legacy format at most (8 MiB and what cannot be compressed)."""


def _after_lz4(window, at):
    """The legacy format has no end mark: it ends where no size of a block can be. The frame format has one."""
    size = window.end - window.start
    if _number(window, at, 4) == 0x184D2204:
        flags = _number(window, at + 4, 1)
        at += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
        while True:
            block = _number(window, at, 4) & 0x7FFFFFFF
            if not block:
                return _whole(window, at + 4 + (4 if flags & 4 else 0))
            at = _whole(window, at + 4 + block + (4 if flags & 16 else 0))
    at += 4
    while at + 4 <= size:
        block = _number(window, at, 4)
        if block == 0x184C2102:
            at += 4
        elif 0 < block <= LZ4_BLOCK:
            at = _whole(window, at + 4 + block)
        else:
            break
    return at


def _to_the_end(window, dummy):
    return window.end - window.start


SEGMENT_ENDS = {"zstd": _after_zstd, "lz4": _after_lz4, "lzop": _to_the_end}
