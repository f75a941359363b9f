# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Choose hardware virtualisation or software emulation by what really works.

A ``/dev/kvm`` that opens may still be unable to run an ordinary kernel (nested virtualisation
that is only half there), so a kernel is booted until it prints, with a deadline.
"""

from __future__ import annotations

import os
import tempfile

from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from ansible_collections.vfio.host.plugins.module_utils._lab import profiles

PROBE_TIMEOUT = 20
"""Seconds; with working hardware virtualisation the kernel's panic comes after two or three."""


def choose(host, image):
    """Return ``(accelerator, reason)``: ``kvm`` or ``tcg`` and one sentence saying why.

    ``image`` is the lab's disk image; its own kernel is what is tried.
    """
    if not os.path.exists("/dev/kvm"):
        return "tcg", "this machine has no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm is not open to this user"
    kernel = os.path.join(os.path.dirname(image), "vmlinuz")
    with tempfile.TemporaryDirectory(prefix="vfio-host-lab-") as folder:
        empty = os.path.join(folder, "initrd")
        with open(empty, "wb"):
            pass
        try:
            command = ["qemu-system-x86_64"] + profiles.probe_arguments(kernel, empty)
            result = host.run(command, PROBE_TIMEOUT, check=False)
        except HostTimeout:
            return "tcg", "/dev/kvm opens, but a kernel did not finish booting within %d s on it" % PROBE_TIMEOUT
        except HostError as exc:
            return "tcg", "QEMU does not start with /dev/kvm: %s" % exc
    if "Kernel panic" in result.stdout:
        return "kvm", "an ordinary kernel boots on /dev/kvm"
    last = (result.stderr.strip() or result.stdout.strip() or "it printed nothing").splitlines()[-1]
    return "tcg", "/dev/kvm opens, but a kernel does not boot on it: %s" % last
