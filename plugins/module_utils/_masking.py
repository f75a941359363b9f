# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Replace what tells whose machine it is, in a recorded tree and in a machine document. Pure.

One secret has one mask within a machine, and networks keep their shape, so that a masked tree gives the
same functions, groups, uses and findings. A mask is a keyed digest: without the key nobody can try values.

Masked are MAC addresses (and interface names made of one), serial numbers of devices, disks and boards, UUIDs and
labels, host and user names, and IP addresses (IPv4: the second and third byte; IPv6: all behind the first 16 bits).
Not masked is what the machine is made of, and what its owner named in ways that nothing can recognise.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import config_space, platform

PUBLIC_UUIDS = (platform.LOADER_INFO[-36:], "8be4df61-93ca-11d2-aa0d-00e098032b8c")
"""Vendor GUIDs in the names of EFI variables: systemd-boot's, and the specification's own."""

_SAME_EVERYWHERE = ("/usr/", "/lib/", "/lib64/", "/boot/", "/proc/config.gz", "/proc/cpuinfo")
"""Files that packages or the processor bring; nothing in them is anybody's."""

_MAC = re.compile(
    r"(?<![0-9a-f:.])(?:[0-9a-f]{2}:){5}(?:(?:[0-9a-f]{2}:){14})?[0-9a-f]{2}(?![0-9a-f:.])", re.IGNORECASE)
_MAC_NAME = re.compile(r"(?<![0-9a-z])(enx|wlx|wwx)([0-9a-f]{12})(?![0-9a-z])")
_SERIAL = re.compile(r"(?<![0-9a-f-])[0-9a-f]{2}(?:-[0-9a-f]{2}){7}(?![0-9a-f-])", re.IGNORECASE)
_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(/\d{1,2})?(?![\w.]*\w)")
_IPV6 = re.compile(r"(?<![\w:.])([0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(/\d{1,3})?(?![\w:.])", re.IGNORECASE)

_SECRET_FILES = re.compile(
    r"(?:^|_)(?:serial|serial_number|uuid|wwid|wwn|eui|nguid|hostname|targetname|initiatorname)$")
_SECRET_KEYS = re.compile(
    r"(?:^|[\s:,=])"
    r"(?:\w*SERIAL\w*|\w*WWN\w*|\w*UUID\w*|\w*LABEL|ID_PART_ENTRY_NAME|USER|REMOTE_HOST|REMOTE_USER|DOMAINS)="
    r"([^\s,]+)", re.MULTILINE)
_SECRET_PATHS = re.compile(
    r"^/dev/disk/by-(?:uuid|partuuid|label|partlabel)/(.+)|^/dev/disk/by-id/[^-]+-(.+?)(?:-part\d+)?$")
_HOMES = re.compile(r"/(?:home|media|run/media)/([^/\s]+)")
_REMOTE_FOLDERS = re.compile(r" - (?:nfs4?|cifs|fuse\.sshfs) (?://)?(?:[^\s@:/]*@)?([A-Za-z][\w.-]*)[:/]", re.MULTILINE)

_PLAIN_WORDS = frozenset("root none unknown user admin disk linux localhost host default boot data home swap".split())


class Masker:
    """Masks for one machine.

    :param key: bytes; who has them can try values until one gives the mask.
    :param touched: paths of the recorded tree, and ``contents`` ``{path: bytes}``: searched for the words
        (user names, serial numbers) that only their place shows to be secret.
    :param names: of the machine itself.
    """

    def __init__(self, key, touched=(), contents=None, names=()):
        self.key = key
        self.words = {}
        self.pattern = None
        parts = {part for path in touched if not path.startswith("/dev/") for part in path.split("/")}
        for word in _words(touched, contents or {}, names):
            # a name that is also the system's own cannot be told from it, and says as little
            if len(word) >= 3 and word not in parts and word.lower() not in _PLAIN_WORDS and not _known_form(word):
                self.words[word] = "masked" + self._digest("word", word)[:8].hex()
        if self.words:
            listed = sorted(self.words, key=lambda word: (-len(word), word))
            self.pattern = re.compile(r"(?<!\w)(?:%s)(?!\w)" % "|".join(map(re.escape, listed)))

    def _digest(self, kind, value):
        said = ("%s %s" % (kind, value)).encode("utf-8", "backslashreplace")
        return hmac.new(self.key, said, hashlib.sha256).digest()

    # -- text ----------------------------------------------------------------------------------

    def text(self, text):
        """Text with every secret in it replaced."""
        if self.pattern:
            text = self.pattern.sub(lambda found: self.words[found.group()], text)
        text = _MAC.sub(lambda found: self.mac(found.group()), text)
        text = _MAC_NAME.sub(lambda found: found.group(1) + self._mac(found.group(2)), text)
        text = _SERIAL.sub(lambda found: self.serial(found.group()), text)
        text = _UUID.sub(lambda found: self.uuid(found.group()), text)
        text = _IPV4.sub(self._ip, text)
        return _IPV6.sub(self._ip, text)

    def mac(self, text):
        """A MAC address, ``52:54:00:12:34:56``; the broadcast address and zeros stay."""
        digits = text.replace(":", "").lower()
        if not digits.strip("0") or not digits.strip("f"):
            return text
        masked = self._mac(digits)
        return ":".join(masked[at:at + 2] for at in range(0, len(masked), 2))

    def _mac(self, digits):
        return "02" + self._digest("mac", digits).hex()[:len(digits) - 2]  # locally administered, of one station

    def serial(self, text):
        """A device serial number, ``52-54-00-ff-ff-12-34-56``; zeros and all ones are none and stay."""
        digits = text.replace("-", "").lower()
        if not digits.strip("0") or not digits.strip("f"):
            return text
        masked = "02" + self._digest("serial", digits).hex()[:14]
        return "-".join(masked[at:at + 2] for at in range(0, 16, 2))

    def uuid(self, text):
        if text.lower() in PUBLIC_UUIDS:
            return text
        digits = self._digest("uuid", text.lower()).hex()
        return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], "8" + digits[17:20], digits[20:32]))

    def _ip(self, found):
        try:
            address = ipaddress.ip_address(found.group(1))
        except ValueError:
            return found.group()
        length = found.group(2) or ""
        number = self.number(int(address), address.max_prefixlen, int(length[1:]) if length else None)
        return str(type(address)(number)) + length

    def number(self, number, bits, length=None):
        """An IP address as an int. Addresses of one network stay in one network, and a network stays one.

        :param bits: 32 or 128. :param length: of its prefix, where it is known.
        """
        kept_above, kept_below = (8, 8) if bits == 32 else (16, 0)
        first = number >> (bits - 8)
        if number <= 1 or (first in (0, 127, 169) or first >= 224 if bits == 32 else first == 0xFF):
            return number  # unspecified, loopback, link-local of IPv4, multicast
        if bits == 128 and number >> 32 == 0xFFFF:
            return 0xFFFF << 32 | self.number(number & 0xFFFFFFFF, 32)
        if bits == 128 and number >> 118 == 0xFE80 >> 6:
            kept_above = 64
        result = number
        for at in range(kept_above, bits - kept_below):
            above = number >> (bits - at)
            result ^= (self._digest("ip%d %d" % (bits, at), "%x" % above)[0] & 1) << (bits - at - 1)
        if length is not None and 0 <= length <= bits:
            host_part = (1 << (bits - length)) - 1
            if not number & host_part:
                result &= ~host_part
        return result

    # -- files ---------------------------------------------------------------------------------

    def path(self, path):
        return path if path.startswith(_SAME_EVERYWHERE) else self.text(path)

    def content(self, path, data):
        """What a file holds, masked; ``path`` as it was recorded."""
        if not data or path.startswith(_SAME_EVERYWHERE):
            return data
        name = path.rpartition("/")[2]
        if name == "config" and path.startswith("/sys/devices/"):
            return self.config(data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return data  # binary: tables of the firmware, a ROM
        if "/net/" in path and name in _TABLES:
            text = _TABLES[name](self, text)
        return self.text(text).encode("utf-8")

    def config(self, data):
        """Configuration space with its serial number masked."""
        at = (config_space.extended_capabilities(data) or {}).get(config_space.EXT_DSN)
        if at is None or at + 12 > len(data):
            return data
        shown = "-".join("%02x" % byte for byte in data[at + 4:at + 12][::-1])
        masked = bytes.fromhex(self.serial(shown).replace("-", ""))[::-1]
        return data[:at + 4] + masked + data[at + 12:]

    def _route4(self, text):
        def masked(fields):
            destination, gateway, mask = [int.from_bytes(bytes.fromhex(fields[n]), "little") for n in (1, 2, 7)]
            length = bin(mask).count("1")
            for place, number, bits in ((1, destination, length), (2, gateway, None)):
                fields[place] = self.number(number, 32, bits).to_bytes(4, "little").hex().upper()
            return "\t".join(fields)

        return _rows(text, masked, 8, skip=1)

    def _inet6(self, text):
        return _rows(text, lambda fields: " ".join(
            ["%032x" % self.number(int(fields[0], 16), 128)] + fields[1:]), 6)

    def _route6(self, text):
        def masked(fields):
            for place, length in ((0, int(fields[1], 16)), (2, int(fields[3], 16)), (4, None)):
                fields[place] = "%032x" % self.number(int(fields[place], 16), 128, length)
            return " ".join(fields)

        return _rows(text, masked, 10)

    # -- documents -----------------------------------------------------------------------------

    def document(self, value):
        """A machine document, or a part of it, with every text in it masked."""
        if isinstance(value, dict):
            return {self.text(key): self.document(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.document(part) for part in value]
        return self.text(value) if isinstance(value, str) else value


_TABLES = {"route": Masker._route4, "if_inet6": Masker._inet6, "ipv6_route": Masker._route6}
"""Files of /proc/net that hold addresses as hex digits."""


def _rows(text, masked, width, skip=0):
    """Rows of a table with ``masked(fields)`` in the place of each that has its form."""
    rows = text.split("\n")
    for at, row in enumerate(rows):
        fields = row.split()
        if at >= skip and len(fields) >= width:
            try:
                rows[at] = masked(fields)
            except ValueError:
                continue
    return "\n".join(rows)


def _known_form(word):
    """Whether a pattern masks it already, so that it looks the same as in other places."""
    return any(pattern.fullmatch(word) for pattern in (_MAC, _SERIAL, _UUID, _IPV4, _IPV6))


def _words(touched, contents, names):
    """Words that are secret by their place: names of people, machines and disks, serial numbers."""
    words = set()
    for name in names:
        words.update((name, name.partition(".")[0], name.partition(".")[0].replace("-", "--")))  # the last is LVM's
    for path in touched:
        found = _SECRET_PATHS.match(path)
        if found:
            words.update(filter(None, found.groups()))
    for path, data in contents.items():
        if path.startswith(_SAME_EVERYWHERE) or len(data) > 1 << 20:
            continue
        text = data.rstrip(b"\0").decode("utf-8", "backslashreplace")
        if _SECRET_FILES.search(path.rpartition("/")[2]):
            if path.endswith("/dm/uuid"):  # its first part says of what kind the device is
                words.update(re.findall(r"[0-9A-Za-z]{16,}", text))
            else:
                words.add(text.strip())
        elif path.startswith(("/run/", "/proc/", "/etc/")):
            words.update(found.strip("\"'") for found in _SECRET_KEYS.findall(text))
            words.update(_HOMES.findall(text))
            words.update(_REMOTE_FOLDERS.findall(text))
    return words
