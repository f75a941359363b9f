# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded Debian host with GRUB, on which update-grub does what the real one does with the command lines."""

from __future__ import annotations

import os
import re

from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub
from ansible_collections.vfio.host.plugins.module_utils._host import Host, Result

MENU = os.path.join(os.path.dirname(__file__), "debian12_grub.cfg")
"""By Debian 12's grub-mkconfig: two kernels, a recovery entry each, intel_iommu=off from the administrator."""

CUSTOM = """
### BEGIN /etc/grub.d/40_custom ###
menuentry 'mine' {
 linux /vmlinuz-5 ro
}
### END /etc/grub.d/40_custom ###
"""

DEFAULTS = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=ttyS0 intel_iommu=off"\n'
CMDLINE = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-amd64 root=UUID=1 ro console=ttyS0 intel_iommu=off quiet\n"


def menu_text():
    with open(MENU, encoding="utf-8") as handle:
        return handle.read()


class GrubHost(Host):
    """``calls``: the commands that ran. ``fail``: None, or a callable that takes the place of update-grub."""

    def __init__(self, root):
        super().__init__(root, commands=self.command)
        self.calls = []
        self.fail = None
        self.write("/proc/cmdline", CMDLINE)
        self.write("/etc/default/grub", DEFAULTS)
        self.write("/usr/sbin/update-grub", "")
        self.write("/boot/grub/grub.cfg", menu_text(), mode=0o600)
        for version in ("6.1.0-50-amd64", "6.0.0-1-amd64"):
            self.write("/boot/vmlinuz-" + version, "")
        self.write("/boot/vmlinuz-6.1.0-50-amd64.dpkg-new", "")
        self.calls.clear()

    def command(self, argv, stdin):
        self.calls.append(argv)
        if self.fail is not None:
            return self.fail(argv)
        self.write("/boot/grub/grub.cfg", self.generated(), mode=0o600)
        return Result(argv, 0, "", "done")

    def generated(self):
        files = ["/etc/default/grub"]
        files += ["/etc/default/grub.d/" + name for name in self.listdir("/etc/default/grub.d")]
        line, dummy = grub.evaluate([(path, self.read(path)) for path in files])
        args = " ".join(line)
        ordinary = re.compile(r"(\tlinux\t\S+ root=/dev/sda1 ro) (?!single).*")
        return ordinary.sub(lambda match: match.group(1) + " " + args, menu_text())

    def tree(self):
        """Every file with its content and mode, to show that nothing was touched."""
        found = {}
        for folder, dummy, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as handle:
                    found[path] = (handle.read(), os.stat(path).st_mode)
        return found
