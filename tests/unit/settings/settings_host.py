# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose kernel takes settings of PCI functions as Linux does, and whose device nodes have owners."""

from __future__ import annotations

import os
import re
import shlex
import stat

from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result
from ansible_collections.vfio.host.tests.unit.boot import functions
from ansible_collections.vfio.host.tests.unit.killable import Killed, half_written

DEVICES = "/sys/bus/pci/devices/"
GPU, AUDIO = functions.GPU, functions.AUDIO
NIC = dict(functions.SUBSYSTEM, address="0000:03:00.0", vendor="8086", device="10d3")
PORT = dict(functions.SUBSYSTEM, address="0000:00:01.0", vendor="8086", device="0101")

GROUPS = "root:x:0:\nkvm:x:106:alice,carol\nvfio:x:990:\nusers:x:100:\nstaff:x:1001:alice\n"
PASSWD = ("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1002:106::/home/bob:/bin/sh\n"
          "dave:x:1003:1003::/home/dave:/bin/sh\n")
PAM = "session required pam_limits.so\n"


class Owned:
    """What os.stat says of a device node."""

    def __init__(self, uid, gid, mode):
        self.st_uid, self.st_gid, self.st_mode = uid, gid, stat.S_IFCHR | mode


class SettingsHost(Host):
    """A graphics card with two functions, a NIC, a root port; users, groups, PAM, udev and systemd.

    ``methods``: what the kernel can do for each function; ``hang``, ``broken``: paths whose write never ends, or is
    refused; ``kill_at``: number of the change before which the run is killed.
    """

    def __init__(self, root):
        super().__init__(root, commands=self._command)
        self.hang, self.broken, self.writes, self.ran, self.fail = set(), set(), [], [], set()
        self.kill_at, self.changes = None, 0
        self.nodes = {}
        self.methods = {GPU["address"]: ["flr", "pm"], NIC["address"]: ["flr", "pm", "bus"]}
        for identity, device_class in ((GPU, "030000"), (AUDIO, "040300"), (NIC, "020000")):
            functions.add_function(self, identity, driver="vfio-pci", device_class=device_class)
        functions.add_function(self, PORT, device_class="060400", config=functions.config_space(header_type=1))
        for name in ("/usr/bin/udevadm", "/run/udev/control", "/run/systemd/system/x",
                     "/usr/lib/systemd/system/user@.service"):
            self.put(name, "")
        self.put("/etc/group", GROUPS)
        self.put("/etc/passwd", PASSWD)
        self.put("/etc/pam.d/login", PAM)
        self.put("/etc/pam.d/sshd", PAM)
        self.put("/usr/lib/pam.d/systemd-user", "# of systemd\n" + PAM)
        self.boot()

    def put(self, path, text):
        where = self.path(path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "w", encoding="utf-8") as file:
            file.write(text)

    def _command(self, argv, dummy):
        self.ran.append(argv)
        return Result(argv, 1 if argv[0] in self.fail else 0, "", "cannot")

    # -- changes, any of which may be the last thing that happens --------------------------------------

    def _change(self, written=None):
        self.changes += 1
        if self.kill_at == self.changes:
            if written:
                half_written(self, written)
            raise Killed()

    def write(self, path, data, mode=0o644):
        if path.startswith(("/etc/udev/", "/etc/security/", "/etc/systemd/", "/var/")):
            self._change(path)
            if path in self.broken:
                raise OSError(28, "No space left on device", path)
            self.modes = dict(getattr(self, "modes", {}), **{path: mode})
        super().write(path, data, mode)

    def remove(self, path):
        self._change()
        return super().remove(path)

    def write_sysfs(self, path, value, timeout=10.0):
        assert timeout > 0
        self._change()
        self.writes.append((path, value))
        if path in self.hang:
            raise HostTimeout("writing %r to %s did not end within 10 s" % (value, path))
        if path in self.broken or not self.kernel(path, value):
            raise HostError("writing %r to %s: Invalid argument" % (value, path))

    def kernel(self, path, value):
        """One write as Linux takes it; False for an error. A write of nothing reaches nobody."""
        address, name = path.split("/")[5:7]
        assert self.exists(path), path
        if not value:
            return True
        if name == "d3cold_allowed":
            self.put(path, value.strip() + "\n")
            return True
        assert name == "reset_method"
        words = value.split()
        if words == ["default"]:
            words = self._able(address)
        if any(word not in self._able(address) for word in words):
            return False
        self.put(path, " ".join(words) + "\n" if words else "")
        return True

    def _able(self, address):
        found = list(self.methods[address])
        if self.exists("/sys/module/vendor_reset") and address == GPU["address"]:
            found.insert(0, "device_specific")
        return found

    # -- the boot --------------------------------------------------------------------------------------

    def boot(self):
        """The kernel's own settings, where the first function of a card is taken to be alone on its bus; then udev."""
        for address, methods in self.methods.items():
            shown = methods + ["bus"] if address == GPU["address"] else methods
            self.put(DEVICES + address + "/reset_method", " ".join(shown) + "\n")
        for identity in (GPU, AUDIO, NIC, PORT):
            self.put(DEVICES + identity["address"] + "/d3cold_allowed", "1\n")
        self.put("/proc/sys/kernel/random/boot_id", "boot %d\n" % (getattr(self, "boots", 0) + 1))
        self.boots = getattr(self, "boots", 0) + 1
        for name in self.listdir("/etc/udev/rules.d"):
            for line in self.read("/etc/udev/rules.d/" + name).splitlines():
                if line and not line.startswith("#"):
                    for address in self.listdir(DEVICES):
                        self._udev(line, address)

    def _udev(self, line, address):
        """A rule for a PCI function: all its matches first, then what it does."""
        words = [re.match(r'([A-Z]+(?:\{\w+\})?)(==|\+=|=)"(.*)"\Z', part).groups() for part in line.split(", ")]
        for key, operator, value in words:
            found = {"ACTION": "add", "SUBSYSTEM": "pci", "KERNEL": address}.get(key)
            if key.startswith("ATTR{") and operator == "==":
                found = self.read_attribute(DEVICES + address + "/" + key[5:-1])
            if operator == "==" and found != value:
                return
        for key, operator, value in words:
            if key.startswith("ATTR{") and operator == "=":
                self.kernel(DEVICES + address + "/" + key[5:-1], value)
            elif key == "RUN{builtin}":
                assert value == "kmod load vendor-reset"
                self.put("/sys/module/vendor_reset/initstate", "live\n")
            elif key == "RUN":
                shell, option, script = shlex.split(value.replace("%p", "/bus/pci/devices/" + address))
                assert (shell, option) == ("/bin/sh", "-c")
                said, dummy, path = script.partition("> ")
                self.kernel(path, said.replace("echo", "", 1).strip() + "\n")

    # -- device nodes ----------------------------------------------------------------------------------

    def node(self, path, uid=0, gid=0, mode=0o600):
        self.put(path, "")
        self.nodes[path] = (uid, gid, mode)

    def stat(self, path):
        return Owned(*self.nodes[path]) if path in self.nodes else super().stat(path)

    def set_owner(self, path, uid, gid, mode):
        self._change()
        if path in self.broken:
            raise HostError("%s: Operation not permitted" % path)
        assert not mode & 0o007
        self.nodes[path] = (uid, gid, mode)

    # -- what is ---------------------------------------------------------------------------------------

    def setting(self, address, name="reset_method"):
        return self.read_attribute(DEVICES + address + "/" + name)

    def tree(self):
        """Everything but time, as ``{path: bytes}``, with the owners of the nodes."""
        found = {"owner of " + path: owner for path, owner in self.nodes.items()}
        for folder, dummy, names in os.walk(self.root):
            for name in names:
                if not os.path.islink(os.path.join(folder, name)):
                    with open(os.path.join(folder, name), "rb") as file:
                        found[os.path.join(folder, name)] = file.read()
        return found
