# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot one machine in emulation until it has printed its functions."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading

QEMU = "qemu-system-x86_64"
DEADLINE = 90
"""Seconds; a boot takes about 3 on an idle core."""

MEMORY = "384"  # MiB

OFF = {"intel": "intel_iommu=off", "amd": "amd_iommu=off"}
ON = {"intel": "intel_iommu=on", "amd": "amd_iommu=on iommu=pt"}
"""The nvme driver gets no answer through QEMU's AMD IOMMU, so there DMA passes through; the groups are the same."""

RUNNING = set()
ENDED = threading.Event()

KERNEL_WORDS = "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check"
"""no_timer_check: a kernel that gets no CPU for a while takes the emulated timer to be broken, and panics."""


class BootError(Exception):
    """The machine did not print its functions to the end; the text says what it did instead."""


def available():
    """Names of the devices that this QEMU has."""
    said = subprocess.run([QEMU, "-device", "help"], stdin=subprocess.DEVNULL, capture_output=True, check=True,
                          timeout=60)
    words = said.stdout.decode("utf-8", "replace").replace(",", " ").split()
    return {word.strip('"') for word in words if word.startswith('"')}


def arguments(topology, kernel, active, console):
    """QEMU's arguments. ``kernel`` as kernels.ready() gives it, ``active``: the IOMMU is on."""
    word = (ON if active else OFF)[topology.iommu]
    argv = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
            "-accel", "tcg", "-cpu", "qemu64", "-m", MEMORY, "-smp", "1",
            "-kernel", kernel["kernel"], "-initrd", kernel["initrd"],
            "-append", KERNEL_WORDS + " " + word, "-serial", "file:" + console]
    return argv + topology.arguments()


def boot(topology, kernel, active, deadline=DEADLINE):
    """The text that the machine printed. Raises BootError. QEMU has ended when this returns, however it does."""
    with tempfile.TemporaryDirectory(prefix="vfio-host-topology-") as folder:
        console = os.path.join(folder, "console")
        # timeout ends QEMU even if this process is killed and cannot
        if ENDED.is_set():
            raise BootError("not started: the run ends")
        argv = ["timeout", "--kill-after=2", str(deadline)] + arguments(topology, kernel, active, console)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        RUNNING.add(process)
        try:
            said = process.communicate()[1].decode("utf-8", "replace").strip()
        finally:
            process.terminate()
            process.wait()
            RUNNING.discard(process)
        text = ""
        if os.path.exists(console):
            with open(console, encoding="utf-8", errors="replace") as handle:
                text = handle.read().replace("\r", "")
    if "vfio.host topology ends" not in text:
        raise BootError("the print has no end (exit %d): %s\n...%s" % (process.returncode, said[-500:], text[-1000:]))
    return text


def end_all():
    """End every QEMU that another thread waits for, and let it start no other."""
    ENDED.set()
    for process in list(RUNNING):
        process.terminate()
