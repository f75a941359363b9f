# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Block devices: what a name in a configuration file means, and the way down to PCI functions.

Sources: /sys/class/block, the links below /dev, and udev's database (/run/udev/data/bMAJOR:MINOR:
``S:`` lines are links below /dev, ``E:`` lines properties that blkid found on the device).
"""

from __future__ import annotations

import os
import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci
from ansible_collections.vfio.host.plugins.module_utils._hardware.inputs import Inputs
from ansible_collections.vfio.host.plugins.module_utils._usage import network

BLOCK = "/sys/class/block"
MOUNTS = "/proc/self/mountinfo"
UDEV = "/run/udev/data"
POOLS = "/proc/spl/kstat/zfs"
POOL_CACHE = "/etc/zfs/zpool.cache"

TAGS = {
    "UUID": ("by-uuid", "ID_FS_UUID"),
    "LABEL": ("by-label", "ID_FS_LABEL"),
    "PARTUUID": ("by-partuuid", "ID_PART_ENTRY_UUID"),
    "PARTLABEL": ("by-partlabel", "ID_PART_ENTRY_NAME"),
}
"""Of ``UUID=`` and the like: the folder in /dev/disk, and udev's property."""

CONTAINERS = ("LVM2_member", "linux_raid_member", "isw_raid_member", "ddf_raid_member", "crypto_LUKS", "bcache")
"""Of udev's ``ID_FS_TYPE``: those of devices that others are made of."""

IN_MEMORY = ("tmpfs", "ramfs", "rootfs", "devtmpfs")

REMOTE = re.compile(r"(nbd|rbd|drbd)\d+$")


def parse_mounts(text):
    """``[{device, point, fstype, source, options}]`` from /proc/self/mountinfo; see proc(5)."""
    mounts = []
    for line in text.splitlines():
        left, dummy, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) >= 6 and len(tail) >= 2:
            mounts.append({
                "device": fields[2],
                "point": unescape(fields[4]),
                "fstype": tail[0],
                "source": unescape(tail[1]),
                "options": parse_options(unescape(tail[2]) if len(tail) > 2 else ""),
            })
    return mounts


def parse_options(text):
    """``{name: value or ""}`` of mount options; of several with one name the last."""
    return {name: value for name, dummy, value in (word.partition("=") for word in text.split(","))}


def unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def parse_udev(text):
    """``(links, properties)`` of an entry of udev's database; links as paths below /dev."""
    links, properties = [], {}
    for line in text.splitlines():
        if line.startswith("S:"):
            links.append("/dev/" + line[2:])
        elif line.startswith("E:"):
            key, dummy, value = line[2:].partition("=")
            properties[key] = value
    return links, properties


def parse_pool_cache(data):
    """``{pool: [paths]}`` of ZFS's zpool.cache: the pools that the next boot imports, and their disks.

    It is a packed XDR name-value list. A pair is its name (length, padded bytes), its type (9 is a
    string), the number of values, and the string as length and bytes; a pool's ``name`` stands
    before the ``path`` of its disks.
    """
    pair = re.compile(rb"\0\0\0\x04(name|path)\0\0\0\x09\0\0\0\x01\0\0(..)", re.DOTALL)
    pools, pool = {}, None
    for match in pair.finditer(data):
        length = int.from_bytes(match.group(2), "big")
        value = data[match.end():match.end() + length].decode("utf-8", "backslashreplace")
        if match.group(1) == b"name":
            pool = value
            pools.setdefault(pool, [])
        elif pool is not None:
            pools[pool].append(value)
    return pools


def lies_on(path, mounts):
    """The mount that a path is on, the last one of the longest point, or None."""
    best = None
    for mount in mounts:
        point = mount["point"].rstrip("/")
        if (path == point or path.startswith(point + "/")) and (
            best is None or len(point) >= len(best["point"].rstrip("/"))
        ):
            best = mount
    return best


class Blocks:
    """Block devices of a host, read as they are asked for."""

    def __init__(self, host):
        self.host = host
        self.names = [name for name in host.listdir(BLOCK) if host.isdir("%s/%s" % (BLOCK, name))]
        self._known = set(self.names)
        self.mounts = parse_mounts(host.read(MOUNTS) or "")
        self._udev = None
        self._mappers = None
        self._net = None
        self._pools = None
        self._depth = 0

    # -- what is known of a device ---------------------------------------------------------

    def home(self, name):
        return self.host.real("%s/%s" % (BLOCK, name))

    def attribute(self, name, attribute):
        return self.host.read_attribute("%s/%s" % (self.home(name), attribute)) or ""

    def held(self, name):
        """Whether another block device is made of this one."""
        return bool(self.host.listdir(self.home(name) + "/holders"))

    def slaves(self, name):
        return self.host.listdir(self.home(name) + "/slaves")

    @property
    def udev(self):
        """``{name: (links, properties)}``; ``{}`` without udev's database."""
        if self._udev is None:
            self._udev = {}
            present = set(self.host.listdir(UDEV))
            for name in self.names if present else ():
                entry = "b" + self.attribute(name, "dev")
                text = self.host.read("%s/%s" % (UDEV, entry)) if entry in present else None
                if text:
                    self._udev[name] = parse_udev(text)
        return self._udev

    def udev_value(self, name, key):
        return self.udev.get(name, ((), {}))[1].get(key, "")

    def having(self, key, value):
        """Names of the devices with a property of udev's, without regard to case (FAT's ids)."""
        return [name for name in self.names if value and self.udev_value(name, key).lower() == value.lower()]

    @property
    def mappers(self):
        """``{name: (dm name, dm uuid)}`` of the device mapper's devices."""
        if self._mappers is None:
            found = [name for name in self.names if name.startswith("dm-")]
            self._mappers = {name: (self.attribute(name, "dm/name"), self.attribute(name, "dm/uuid")) for name in found}
        return self._mappers

    # -- names -----------------------------------------------------------------------------

    def find(self, spec):
        """Names of the devices that ``UUID=...``, ``/dev/...`` or the like means; [] when that is not known.

        There may be several: members of one filesystem, or copies.
        """
        tag, equals, value = spec.partition("=")
        value = value.strip("\"'")
        if tag in TAGS and equals and value:
            folder, key = TAGS[tag]
            link = "/dev/disk/%s/%s" % (folder, re.sub(r"[^\w.:+@#-]", lambda m: "\\x%02x" % ord(m.group()), value))
            found = self._at(link) + self._at(link.lower()) + self.having(key, value)
            if tag.startswith("PART"):  # newer kernels tell these themselves, as PARTNAME and PARTUUID
                key = tag.replace("LABEL", "NAME")
                found += [name for name in self.names if self._uevent(name, key) == value.lower()]
            if tag == "UUID" and not found:
                digits = value.replace("-", "").lower()
                held = [name for name, (dummy, uuid) in self.mappers.items() if "-%s-" % digits in uuid.lower()]
                found += [slave for name in held for slave in self.slaves(name)]
            return list(dict.fromkeys(found))
        return self._at(spec) if spec.startswith("/dev/") else []

    def _uevent(self, name, key):
        return pci.parse_uevent(self.host.read(self.home(name) + "/uevent") or "").get(key, "").lower()

    def _at(self, path):
        """Names of the device at a path below /dev, by the link itself, by udev, by the mapper's name."""
        name = self.host.real(path)[len("/dev/"):].replace("/", "!")
        if name in self._known:
            return [name]
        linked = [name for name in self.udev if path in self.udev[name][0]]
        if linked:
            return linked
        parts = path[len("/dev/"):].split("/")
        if len(parts) == 2:  # mapper/NAME, or VG/LV, which the mapper writes with hyphens doubled
            mapped = parts[1] if parts[0] == "mapper" else "-".join(part.replace("-", "--") for part in parts)
            return [name for name, (dm_name, dummy) in self.mappers.items() if dm_name == mapped]
        return []

    def all_shown(self):
        """Whether it is certain that what no device's name or property matches is on no disk here.

        It is, when udev knows the devices, and none of them holds what is not set up (an inactive
        volume, a closed LUKS container) and could turn into it.
        """
        if not self.udev:
            return False
        pools = self.pools()
        for name in self.names:
            kind = self.udev_value(name, "ID_FS_TYPE")
            if kind == "zfs_member" and self.udev_value(name, "ID_FS_LABEL") not in pools:
                return False
            if kind in CONTAINERS and not self.held(name):
                return False
        return True

    def path(self, name):
        mapped = self.attribute(name, "dm/name")
        return "/dev/mapper/" + mapped if mapped else "/dev/" + name.replace("!", "/")

    # -- ways down -------------------------------------------------------------------------

    def down(self, name):
        """``(ways, problems)`` from a block device to PCI functions.

        ``ways``: ``[(path in /dev, name, ..., function)]``, none when all is known and no function is
        needed (memory, not on PCI); a network disk's go on over interfaces. ``problems``: ``[(kind, why)]``,
        ``kind`` of ``disk`` and ``network``. A device is gone through once.
        """
        ways, problems, seen = [], [], set()
        todo = [(name,)]
        while todo:
            names = todo.pop()
            if names[-1] in seen:
                if names[-1] in names[:-1]:
                    problems.append(("disk", "%s cannot be followed in %s" % (names[-1], BLOCK)))
                continue
            seen.add(names[-1])
            if names[-1] not in self._known:
                problems.append(("disk", "%s cannot be followed in %s" % (names[-1], BLOCK)))
                continue
            lower = self._lower(names[-1])
            todo += [names + (below,) for below in reversed(lower)]
            if not lower:
                tails, whys = self._hardware(names[-1])
                ways += [(self.path(name),) + names[1:] + tail for tail in tails]
                problems += whys
        return ways, problems

    def _lower(self, name):
        """Names of the devices that one is made of; [] for a disk."""
        home = self.home(name)
        if self.host.exists(home + "/partition"):
            return [os.path.basename(os.path.dirname(home))]
        lower = self.slaves(name)
        if not lower and re.match(r"zram\d+$", name):  # compressed memory may be written back to a device
            lower = self._at(self.attribute(name, "backing_dev"))
        return lower

    def _hardware(self, name):
        """``(tails of ways, problems)`` of a disk."""
        home = self.home(name)
        functions = self.functions(home)
        if functions:
            return functions, []
        if re.match(r"loop\d+$", name):
            return self._loop(name)
        if re.match(r"zd\d+$", name):
            return self._volume(name)
        if re.match(r"(ram|zram)\d+$", name):
            return [], []
        if "/nvme-subsystem/" in home:  # native multipath: the disk hangs below no controller
            controllers = [c for c in self.host.listdir(os.path.dirname(home)) if re.match(r"nvme\d+$", c)]
            return self._every(name, [self.host.real("%s/%s" % (os.path.dirname(home), c)) for c in controllers])
        if "/nvme-fabrics/" in home:
            return self._every(name, [os.path.dirname(home)])
        session = re.match(r"(.*/(host\d+)/session\d+)/", home)
        if session:
            return self._iscsi(name, session.group(1), session.group(2))
        interface = re.search(r"/net/([^/]+)/", home)
        if interface:  # Fibre Channel over Ethernet hangs below its interface
            ways, why = network.carried(interface.group(1), self._network())
            return ways, self._lost(name, why)
        if REMOTE.match(name) or "/vhci_hcd" in home:
            return [], self._lost(name, "nothing says over which interface it is reached")
        if "/virtual/" in home:
            return [], [("disk", "%s is reached through something that names no device" % name)]
        return [], []  # not on PCI

    def functions(self, home):
        """``[(function,)]`` that a folder below /sys/devices lies on, with a virtual one's physical one; or []."""
        found = pci.addresses_in(home)[-1:]
        above = network.physical_function(self.host, found[0]) if found else None
        return [tuple(found)] + ([(found[0], above)] if above else []) if found else []

    def _lost(self, name, why):
        """Problems of a disk on the network that cannot be followed: neither it nor the way is known."""
        return [(kind, "%s is a disk on the network: %s" % (name, why)) for kind in ("disk", "network") if why]

    def _network(self):
        if self._net is None:
            self._net = network.read(Inputs(self.host))  # what it misses is noted by whoever reads it for the document
        return self._net

    def reach(self, remote, local=None):
        """``(ways, why)`` from a server's address to the functions that carry it, as network.carried()."""
        net = self._network()
        names = network.between(local, remote, net)
        ways, why = [], None if names else "no route leads to %s" % remote
        for name in names:
            found, reason = network.carried(name, net)
            ways += found
            why = why or reason
        return [(remote,) + way for way in dict.fromkeys(ways)], why

    def _every(self, name, homes):
        """Of an NVMe disk with several controllers: all of them carry it."""
        ways, problems = [], [] if homes else [("disk", "no controller of %s is known" % name)]
        for home in homes:
            functions = self.functions(home)
            if not functions:
                functions, lost = self._fabric(name, home)
                problems += lost
            ways += functions
        return list(dict.fromkeys(ways)), problems

    def _fabric(self, name, home):
        """NVMe over Fabrics: the controller's ``address`` has the target's, and for Fibre Channel our port's."""
        address = parse_options(self.host.read_attribute(home + "/address") or "")
        transport = self.host.read_attribute(home + "/transport")
        if transport in ("tcp", "rdma") and address.get("traddr"):
            ways, why = self.reach(address["traddr"], address.get("src_addr") or address.get("host_traddr"))
            return ways, self._lost(name, why)
        port = address.get("host_traddr", "").rpartition("pn-")[2]
        for adapter in self.host.listdir("/sys/class/fc_host") if port else ():
            folder = "/sys/class/fc_host/" + adapter
            if self.host.read_attribute(folder + "/port_name") == port and self.functions(self.host.real(folder)):
                return self.functions(self.host.real(folder)), []
        return [], self._lost(name, "%s does not say how it is reached" % os.path.basename(home))

    def _iscsi(self, name, session, adapter):
        """Software iSCSI: the session's connections have the target's address."""
        connections = [c for c in self.host.listdir(session) if c.startswith("connection")]
        local = self.host.read_attribute("/sys/class/iscsi_host/%s/ipaddress" % adapter)
        ways, problems = [], [] if connections else self._lost(name, "its session has no connection")
        for connection in connections:
            remote = self.host.read_attribute("%s/%s/iscsi_connection/%s/address" % (session, connection, connection))
            found, why = self.reach(remote, local or None) if remote else ([], "%s has no address" % connection)
            ways += found
            problems += self._lost(name, why)
        return list(dict.fromkeys(ways)), problems

    def _loop(self, name):
        """A loop device lies on the filesystem of its file, which is mounted, or on a device."""
        path = self.attribute(name, "loop/backing_file")
        if path.startswith("/dev/") and self._at(path):
            lower = self._at(path)
        else:
            mount = lies_on(path, self.mounts) if path.startswith("/") else None
            hidden = self.host.live and not self.host.exists(path)  # it would be a path of another mount, or below one
            if mount is None or hidden:
                return [], [("disk", "the file of %s (%s) is on no filesystem that is known" % (name, path or "?"))]
            if mount["fstype"] in IN_MEMORY:
                return [], []
            lower, why = self.under(mount)
            if why:
                return [], [("disk", "the file of %s: %s" % (name, why))]
        if name in lower:
            return [], [("disk", "%s lies on itself" % name)]
        return self._through(lower)

    def _volume(self, name):
        """A ZFS volume lies on its pool's disks; on those of every pool when its own is not known."""
        links = [link.split("/") for link in self.udev.get(name, ((), {}))[0] if link.startswith("/dev/zvol/")]
        pools = [link[3] for link in links[:1]] or self.pools()
        names, problems = [], [] if pools else [("disk", "the pool of %s is not known" % name)]
        for pool in pools:
            members, why = self.members(pool)
            names += members
            problems += [("disk", why)] if why else []
        ways, more = self._through(names)
        return ways, problems + more

    def _through(self, names):
        """As :meth:`down` for several devices below another; a ring of files on devices on files ends."""
        ways, problems = [], []
        self._depth += 1
        for name in names if self._depth < 16 else ():
            found, more = self.down(name)
            ways += found
            problems += more
        if self._depth >= 16:
            problems.append(("disk", "%s: too many layers" % " ".join(names)))
        self._depth -= 1
        return list(dict.fromkeys(ways)), list(dict.fromkeys(problems))

    # -- filesystems -----------------------------------------------------------------------

    def under(self, mount):
        """``(names, why)``: block devices of a mounted filesystem that is on block devices.

        ``why`` is None, or says what is not known. ``([], None)``: none, as far as this can tell
        (in memory, on the network, an interface of the kernel's).
        """
        if not mount["device"].startswith("0:"):
            link = self.host.readlink("/sys/dev/block/" + mount["device"])
            if not link:
                return [], "no block device %s in /sys/dev/block" % mount["device"]
            extra = [mount["options"][key] for key in ("logdev", "rtdev") if key in mount["options"]]  # XFS
            found, why = self._all(extra)
            return [os.path.basename(link)] + found, why
        if mount["fstype"] == "btrfs":
            return self._spanning([mount["source"]], "/sys/fs/btrfs/%s/devices")
        if mount["fstype"] == "bcachefs":
            return self._spanning(mount["source"].split(":"), "/sys/fs/bcachefs/%s")
        if mount["fstype"] == "zfs":
            return self.members(mount["source"].split("/")[0])
        return [], None

    def _all(self, specs):
        """``(names, why)`` of several specifications."""
        found = [(spec, self.find(spec)) for spec in specs]
        lost = [spec for spec, names in found if not names]
        return [name for dummy, names in found for name in names], "%s is not known" % lost[0] if lost else None

    def _spanning(self, sources, pattern):
        """All devices of a filesystem that may have several: mountinfo names one of them, the kernel all."""
        found, why = self._all(sources)
        for folder in self.host.listdir(os.path.dirname(pattern.split("%s")[0])):
            listed = self.of_filesystem(pattern % folder)
            if set(found) & set(listed):
                return listed, None
        return found, why or "the other devices of the filesystem on %s are not known" % sources[0]

    def of_filesystem(self, folder):
        """Devices that btrfs or bcachefs lists in a folder of its filesystem: by name, or as ``dev-N/block``."""
        listed = self.host.listdir(folder)
        links = [self.host.readlink("%s/%s/block" % (folder, name)) for name in listed if name.startswith("dev-")]
        return [os.path.basename(link) for link in links if link] or [n for n in listed if n in self._known]

    def pools(self):
        """Names of the imported ZFS pools."""
        return [name for name in self.host.listdir(POOLS) if self.host.isdir("%s/%s" % (POOLS, name))]

    def cached_pools(self):
        """``{pool: [paths of its disks]}`` of zpool.cache."""
        if self._pools is None:
            self._pools = parse_pool_cache(self.host.read_bytes(POOL_CACHE) or b"")
        return self._pools

    def members(self, pool):
        """``(names, why)``: the disks of a ZFS pool.

        zpool.cache has all of them. A pool that is not in it (``cachefile=none``) has those on which udev
        saw its label; that may miss a disk added since the last boot, and nothing else says so. Cache
        and spare disks carry no pool's name: all of them count.
        """
        labelled = [
            name for name in self.names
            if self.udev_value(name, "ID_FS_TYPE") == "zfs_member" and self.udev_value(name, "ID_FS_LABEL") in (pool, "")
        ]
        paths = [path for path in self.cached_pools().get(pool, ()) if path.startswith("/dev/")]
        listed = [(path, self.find(path)) for path in paths]
        lost = [path for path, names in listed if not names and not self.udev]  # udev knows every link there is
        names = list(dict.fromkeys([name for dummy, names in listed for name in names] + labelled))
        if lost:
            return names, "%s of ZFS pool %s is not known" % (lost[0], pool)
        if not any(found for dummy, found in listed) and not any(self.udev_value(n, "ID_FS_LABEL") for n in labelled):
            return names, "ZFS pool %s does not say which disks it is on" % pool
        return names, None
