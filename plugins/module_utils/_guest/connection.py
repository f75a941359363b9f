# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The door to libvirt: a few calls with deadlines and plain errors.

The Python binding is used and not virsh: one connection for all guests instead of a process for
each question.

libvirt's calls have no deadline, and a signal cannot give them one: Python runs signal handlers
only after the C call has come back. So each call runs in a thread of its own, and the module stops
waiting for it. The thread ends with the process; what the daemon does by then is not undone.
"""

from __future__ import annotations

import threading

from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout

XML_SECURE = 1
XML_INACTIVE = 2
UNDEFINE_MANAGED_SAVE = 1
UNDEFINE_SNAPSHOTS_METADATA = 2
UNDEFINE_KEEP_NVRAM = 8
"""Values of libvirt's own enums (stable ABI), so that nothing here needs the binding imported."""


def call(what, timeout, function, *args):
    """``function(*args)``, or HostTimeout after ``timeout`` seconds, or HostError with ``what``."""
    outcome = {}

    def work():
        try:
            outcome["value"] = function(*args)
        except Exception as exc:  # pylint: disable=broad-except  # handed over below
            outcome["error"] = exc

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise HostTimeout("%s: libvirt did not answer within %g s" % (what, timeout))
    if "error" in outcome:
        raise HostError("%s: %s" % (what, outcome["error"])) from outcome["error"]
    return outcome["value"]


class Libvirt:
    """An open connection. Errors are HostError that begin with the guest's name."""

    def __init__(self, connection, timeout=300.0):
        self.connection = connection
        self.timeout = timeout

    @classmethod
    def open(cls, binding, uri, timeout=300.0):
        """Connect with the imported ``libvirt`` module; HostError when nobody listens there."""
        # The binding prints each error to stderr by itself otherwise.
        binding.registerErrorHandler(lambda context, error: None, None)
        return cls(call("libvirt at %s" % uri, timeout, binding.open, uri), timeout)

    def domains(self):
        """{name: {active, persistent, autostart (bool), memory (bytes at most)}}."""
        return call("listing the guests", self.timeout, self._domains)

    def _domains(self):
        return {
            domain.name(): {
                "active": bool(domain.isActive()),
                "persistent": bool(domain.isPersistent()),
                "autostart": bool(domain.isPersistent() and domain.autostart()),
                "memory": domain.maxMemory() * 1024,
            }
            for domain in self.connection.listAllDomains(0)
        }

    def xml(self, name, live=False):
        """Domain XML, passwords included: a definition without them would lose them."""
        return self._of(name, "reading it", "XMLDesc", XML_SECURE if live else XML_SECURE | XML_INACTIVE)

    def active(self, name):
        """False as well when the guest is gone: a transient one vanishes as it ends."""
        return self.domains().get(name, {"active": False})["active"]

    def define(self, name, text):
        call("guest %s: defining it" % name, self.timeout, self.connection.defineXML, text)

    def start(self, name):
        self._of(name, "starting it", "create")

    def shutdown(self, name):
        self._of(name, "asking it to shut down", "shutdown")

    def destroy(self, name):
        self._of(name, "turning it off", "destroy")

    def autostart(self, name, wanted):
        self._of(name, "setting autostart", "setAutostart", int(wanted))

    def undefine(self, name):
        """Remove the definition. A saved state and snapshot records go with it, NVRAM and disks stay."""
        flags = UNDEFINE_MANAGED_SAVE | UNDEFINE_SNAPSHOTS_METADATA | UNDEFINE_KEEP_NVRAM
        self._of(name, "removing its definition", "undefineFlags", flags)

    def close(self):
        call("closing the connection to libvirt", self.timeout, self.connection.close)

    def _of(self, name, doing, method, *args):
        def work():
            return getattr(self.connection.lookupByName(name), method)(*args)

        return call("guest %s: %s" % (name, doing), self.timeout, work)
