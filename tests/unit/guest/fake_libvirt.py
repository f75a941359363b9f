# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt connection in memory. It completes a definition a little, as the real one does."""

from __future__ import annotations

from xml.etree import ElementTree as ET


class FakeError(Exception):
    """Stands for libvirt.libvirtError."""


class FakeDomain:
    def __init__(self, connection, text):
        self.connection = connection
        self.inactive = text
        self.live = None
        self.persistent = True
        self.auto = 0
        self.deaf = False

    def name(self):
        return ET.fromstring(self.inactive).findtext("name")

    def isActive(self):
        return int(self.live is not None)

    def isPersistent(self):
        return int(self.persistent)

    def autostart(self):
        return self.auto

    def maxMemory(self):
        return int(ET.fromstring(self.live or self.inactive).findtext("memory"))

    def XMLDesc(self, flags):
        return self.inactive if flags & 2 or self.live is None else self.live

    def _did(self, what):
        self.connection.calls.append((what, self.name()))

    def create(self):
        self._did("create")
        if self.connection.refuse_start:
            raise FakeError(self.connection.refuse_start)
        self.live = self.inactive

    def shutdown(self):
        self._did("shutdown")
        if not self.deaf:
            self._end()

    def destroy(self):
        self._did("destroy")
        self._end()

    def _end(self):
        self.live = None
        if not self.persistent:
            del self.connection.domains[self.name()]

    def setAutostart(self, value):
        self._did("autostart")
        self.auto = value

    def undefineFlags(self, flags):
        self._did("undefine")
        del self.connection.domains[self.name()]


class FakeConnection:
    def __init__(self):
        self.domains = {}
        self.calls = []
        self.refuse_start = None
        self.drop = None
        self.closed = False

    def listAllDomains(self, flags):
        return list(self.domains.values())

    def lookupByName(self, name):
        if name not in self.domains:
            raise FakeError("Domain not found: no domain with matching name '%s'" % name)
        return self.domains[name]

    def defineXML(self, text):
        domain = ET.fromstring(text)
        name = domain.findtext("name")
        self.calls.append(("define", name))
        kind = domain.find("os/type")
        kind.set("machine", {"q35": "pc-q35-7.2"}.get(kind.get("machine"), kind.get("machine")))
        if self.drop:
            parent = domain.find(self.drop + "/..")
            for child in parent.findall(self.drop.rsplit("/", 1)[-1]):
                parent.remove(child)
        if domain.find("clock") is None:
            ET.SubElement(domain, "clock", offset="utc")
        for video in domain.findall("devices/video"):
            video.find("model").set("heads", "1")
        text = ET.tostring(domain, encoding="unicode")
        if name in self.domains:
            self.domains[name].inactive = text
            self.domains[name].persistent = True
        else:
            self.domains[name] = FakeDomain(self, text)

    def close(self):
        self.closed = True
