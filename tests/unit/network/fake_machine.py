# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine in a folder whose networkctl and ip do to the tree what the real ones do to sysfs."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import struct

from ansible_collections.vfio.host.plugins.module_utils._host import Host, Result
from ansible_collections.vfio.host.plugins.module_utils._network.backends import networkd

NIC = {
    "enp0s25": ("0000:00:19.0", "52:54:00:00:00:19", "e1000e"),
    "enp4s0": ("0000:04:00.0", "52:54:00:00:04:00", "8139cp"),
    "enp5s0": ("0000:05:00.0", "52:54:00:00:05:00", "r8169"),
}
ETC = "/etc/systemd/network/"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FakeMachine:
    """Three NICs on PCI; SSH from 192.0.2.9 to 192.0.2.2 on enp0s25, which has the default route."""

    def __init__(self, root):
        self.root = str(root)
        self.host = Host(root=self.root, commands=self.command)
        self.clock = Clock()
        self.calls = []
        self.broken = set()  # words that make a command of ours fail: "reload", "reconfigure", "join", ...
        self.addresses = {"lo": ["127.0.0.1/8"], "enp0s25": ["192.0.2.2/24"]}
        self.defaults = [("enp0s25", "192.0.2.1")]
        self.vanishing = None  # a link that goes at the first reconfigure
        self.next_index = 1
        self.loaded = {}  # files as networkd read them last
        self.put("/proc/self/environ", "HOME=/root\0SSH_CONNECTION=192.0.2.9 50000 192.0.2.2 22\0")
        self.put("/proc/self/stat", "77 (python3) S 1 0 0")
        self.put("/proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.disk("pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda")
        self.link("lo", kind=772, mac="00:00:00:00:00:00")
        for name in sorted(NIC):
            self.nic(name, *NIC[name])
        self.set("enp0s25", "flags", "0x1003")
        for name in ("system.slice/systemd-networkd.service",):
            os.makedirs(self.out("/sys/fs/cgroup/" + name))
        os.makedirs(self.out("/run/systemd/system"))
        os.makedirs(self.out(ETC))
        self.put(ETC + "10-ssh.network", "[Match]\nName=enp0s25\n[Network]\nDHCP=yes\n")
        self.netif("enp0s25", ETC + "10-ssh.network")
        self.routes()
        self.reload()
        self.calls = []

    # -- the tree

    def out(self, path):
        """Where ``path`` is in the folder, its last component not followed. Never outside: a link
        that led to the real /sys would have the tests write to the machine they run on."""
        head, tail = os.path.split(path.rstrip("/"))
        found = os.path.join(self.host.path(head), tail)
        if not os.path.realpath(found).startswith(os.path.realpath(self.root) + "/"):
            raise AssertionError("%s leads out of the tree, to %s" % (path, os.path.realpath(found)))
        return found

    def put(self, path, text):
        os.makedirs(os.path.dirname(self.out(path)), exist_ok=True)
        with open(self.out(path), "w", encoding="utf-8") as handle:
            handle.write(text)

    def symlink(self, path, target):
        here = self.out(path)
        os.makedirs(os.path.dirname(here), exist_ok=True)
        # relative, so that it stays inside for the operating system too
        os.symlink(os.path.relpath(self.host.path(target), os.path.dirname(here)), here)

    def set(self, name, attribute, value):
        self.put("/sys/class/net/%s/%s" % (name, attribute), "%s\n" % value)

    def disk(self, folder):
        self.put("/sys/devices/%s/sda1/partition" % folder, "1\n")
        self.symlink("/sys/class/block/sda", "/sys/devices/" + folder)
        self.symlink("/sys/class/block/sda1", "/sys/devices/%s/sda1" % folder)
        self.symlink("/sys/dev/block/8:1", "/sys/devices/%s/sda1" % folder)

    def link(self, name, kind=1, mac="52:54:00:00:00:01", home=None):
        home = home or "/sys/devices/virtual/net/" + name
        os.makedirs(self.out(home))
        self.symlink("/sys/class/net/" + name, home)
        values = {
            "ifindex": self.next_index, "type": kind, "address": mac, "addr_assign_type": 0, "mtu": 1500,
            "flags": "0x1002", "operstate": "down",
        }  # fmt: skip
        for attribute, value in values.items():
            self.set(name, attribute, value)
        self.set(name, "uevent", "INTERFACE=%s\nIFINDEX=%d" % (name, self.next_index))
        self.next_index += 1

    def nic(self, name, address, mac, driver, bus="pci"):
        function = "/sys/devices/pci0000:00/" + address
        self.symlink(function + "/subsystem", "/sys/bus/" + bus)
        self.symlink(function + "/driver", "/sys/bus/pci/drivers/" + driver)
        self.link(name, mac=mac, home="%s/net/%s" % (function, name))
        self.symlink("/sys/class/net/%s/device" % name, function)

    def bridge(self, name, mac="52:54:00:00:00:01", stp=0):
        self.link(name, mac=mac)
        os.makedirs(self.out("/sys/class/net/%s/brif" % name))
        self.set(name, "bridge/stp_state", stp)
        self.set(name, "bridge/forward_delay", 1500)
        self.set(name, "uevent", "DEVTYPE=bridge\nINTERFACE=%s\nIFINDEX=%d" % (name, self.next_index - 1))

    def join(self, port, master):
        self.leave(port)
        net = "/sys/class/net/"
        self.symlink(net + port + "/master", net + master)
        self.symlink(net + port + "/upper_" + master, net + master)
        self.symlink(net + master + "/lower_" + port, net + port)
        self.symlink("%s%s/brif/%s" % (net, master, port), net + port)

    def leave(self, port):
        master = os.path.basename(self.host.readlink("/sys/class/net/%s/master" % port) or "")
        if master:
            net = "/sys/class/net/"
            for path in ("%s/master", "%s/upper_{0}", "{0}/lower_%s", "{0}/brif/%s"):
                os.unlink(self.out(net + path.format(master) % port))

    def delete(self, name):
        for port in self.host.listdir("/sys/class/net/%s/brif" % name):
            self.leave(port)
        shutil.rmtree(self.host.path("/sys/class/net/" + name))
        os.unlink(self.out("/sys/class/net/" + name))
        self.addresses.pop(name, None)
        self.routes()

    def netif(self, name, path):
        index = self.host.read_attribute("/sys/class/net/%s/ifindex" % name)
        text = "ADMIN_STATE=configured\nNETWORK_FILE=%s\n" % path if path else "ADMIN_STATE=unmanaged\n"
        self.put("/run/systemd/netif/links/" + index, "# private\n" + text)

    def routes(self):
        route, trie, six = ["Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"], [], []
        for name, gateway in self.defaults:
            route.append("%s 00000000 %s 0003 0 0 1024 00000000 0 0 0" % (name, number(gateway)))
        for name in sorted(self.addresses):
            for address in self.addresses[name]:
                one = ipaddress.ip_interface(address)
                if one.version == 6:
                    six.append("%032x 01 %02x 00 80 %s" % (int(one.ip), one.network.prefixlen, name))
                    continue
                trie.append("           |-- %s\n              /32 host LOCAL" % one.ip)
                if name != "lo" and one.network.prefixlen < 32:
                    net = one.network
                    route.append(
                        "%s %s 00000000 0001 0 0 0 %s 0 0 0"
                        % (name, number(str(net.network_address)), number(str(net.netmask)))
                    )
        self.put("/proc/net/route", "\n".join(route) + "\n")
        self.put("/proc/net/fib_trie", "Local:\n" + "\n".join(trie) + "\n")
        self.put("/proc/net/if_inet6", "".join(line + "\n" for line in six))

    def files(self):
        """Every file below /etc and /var with its text."""
        found = {}
        for top in ("/etc", "/var"):
            for folder, dummy, names in os.walk(self.out(top)):
                for name in names:
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as handle:
                        found[path[len(self.root):]] = handle.read()
        return found

    def ports(self, name):
        return self.host.listdir("/sys/class/net/%s/brif" % name)

    def attribute(self, name, attribute):
        return self.host.read_attribute("/sys/class/net/%s/%s" % (name, attribute))

    # -- the commands

    def command(self, argv, dummy):
        self.calls.append(" ".join(argv))
        for word in self.broken:
            if word in argv:
                return Result(argv, 1, stderr="%s is broken" % word)
        if argv[:2] == ["networkctl", "reload"]:
            self.reload()
        elif argv[:2] == ["networkctl", "reconfigure"]:
            for name in argv[2:]:
                if not self.host.exists("/sys/class/net/" + name):
                    return Result(argv, 1, stderr='Failed to find link "%s"' % name)
                self.configure(name)
            if self.vanishing:
                os.unlink(self.out("/sys/class/net/" + self.vanishing))
                self.vanishing = None
        elif argv[:3] == ["ip", "link", "delete"]:
            self.delete(argv[4])
        elif argv[:3] == ["ip", "link", "set"]:
            self.ip_set(argv[4], argv[5:])
        elif argv[0] == "journalctl":
            return Result(argv, 0, stdout="networkd says so\n")
        else:
            raise AssertionError(argv)
        return Result(argv, 0)

    def ip_set(self, name, words):
        pairs = {"address": "address", "mtu": "mtu"}
        words = [word for word in words if word not in ("type", "bridge")]
        while words:
            word = words.pop(0)
            if word == "nomaster":
                self.leave(name)
            elif word in ("up", "down"):
                self.set(name, "flags", "0x1003" if word == "up" else "0x1002")
            else:
                self.set(name, pairs.get(word, "bridge/" + word), words.pop(0))

    def reload(self):
        self.loaded = {
            folder + "/" + name: self.host.read(folder + "/" + name) or ""
            for folder in networkd.FOLDERS
            for name in self.host.listdir(folder)
        }
        for path, text in sorted(self.loaded.items()):
            if path.endswith(".netdev"):
                unit = networkd.settings(text, "NetDev")
                if not self.host.exists("/sys/class/net/" + unit["Name"][0]):
                    bridge = networkd.settings(text, "Bridge")
                    self.bridge(unit["Name"][0], unit["MACAddress"][0], int(bridge["STP"] == ["yes"]))
                    if bridge["STP"] == ["yes"]:
                        self.set(unit["Name"][0], "bridge/forward_delay", 100 * int(bridge["ForwardDelaySec"][0]))
        for name in self.host.listdir("/sys/class/net"):
            self.configure(name, force=False)

    def configure(self, name, force=True):
        home = "/sys/class/net/" + name
        mac = self.attribute(name, "address")
        for path, text in sorted(self.loaded.items(), key=lambda item: os.path.basename(item[0])):
            match = networkd.settings(text, "Match")
            if path.endswith(".network") and (match.get("Name") == [name] or match.get("PermanentMACAddress") == [mac]):
                if match.get("PermanentMACAddress") and not self.host.exists(home + "/device"):
                    continue
                break
        else:
            return self.netif(name, None)
        self.netif(name, path)
        network = networkd.settings(text, "Network")
        self.set(name, "flags", "0x1003")
        for mtu in networkd.settings(text, "Link").get("MTUBytes", []):
            self.set(name, "mtu", mtu)
        if network.get("Bridge") and "join" not in self.broken:
            self.join(name, network["Bridge"][0])
        if name not in NIC:
            self.addresses[name] = network.get("Address", [])
            self.routes()
        return None


def number(text):
    return "%08X" % struct.unpack("<L", socket.inet_aton(text))
