# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe and a transaction cost, as ratios from one run on one machine. ``make bench``.

Each figure is the least of several tries: what disturbs a run only ever makes it longer.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.bench import transaction, tree

HERE = os.path.dirname(os.path.abspath(__file__))
LARGE, SMALL = 4096, 64
TASKS, TRIES = 12, 4

SHELL_LOOP = r"""
shopt -s nullglob
for group in $(ls "$1/sys/kernel/iommu_groups" | sort -n); do
    echo "IOMMU group $group"
    for device in "$1/sys/kernel/iommu_groups/$group/devices/"*; do
        echo "  $(basename "$device") $(grep PCI_ID= "$device/uevent") $(grep PCI_CLASS= "$device/uevent") \
$(basename "$(readlink "$device/driver")")"
    done
done
"""
"""The usual way: a loop over the groups and their devices, a few small commands for each."""

TARGETS = []


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(call, tries):
    """Least CPU seconds of a call in this process."""
    best = None
    for dummy in range(tries):
        began = time.process_time()
        call()
        used = time.process_time() - began
        best = used if best is None else min(best, used)
    return best


def cpu_of_command(argv, tries, **options):
    best = None
    for dummy in range(tries):
        began = children_cpu()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **options)
        used = children_cpu() - began
        best = used if best is None else min(best, used)
    return best


def parse_lspci(root):
    """lspci -vvv on the same tree, its output cut into devices and their capabilities: the other usual way."""
    argv = ["lspci", "-A", "linux-sysfs", "-O", "sysfs.path=%s/sys/bus/pci" % root, "-D", "-nn", "-vvv"]
    text = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace")
    devices = {}
    for block in text.split("\n\n"):
        head, dummy, body = block.partition("\n")
        devices[head.split(" ")[0]] = [line.strip() for line in body.splitlines() if "Capabilities:" in line]
    return devices


def judge(name, value, most, unit=""):
    ok = value <= most
    TARGETS.append(ok)
    print("  %-66s %8.2f%s  (target: at most %g) %s" % (name, value, unit, most, "ok" if ok else "MISSED"))


def playbook(folder, module, root, count):
    """Wall seconds of ansible-playbook with so many tasks of a module."""
    path = os.path.join(folder, "bench.json")
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False,
             "tasks": [{"name": "run", module: {"root": root}} for dummy in range(count)]}]
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(play, handle)
    environment = dict(os.environ, ANSIBLE_LIBRARY=os.path.join(HERE, "library"), ANSIBLE_LOCALHOST_WARNING="false",
                       ANSIBLE_INVENTORY_UNPARSED_WARNING="false")
    began = time.monotonic()
    subprocess.run(["ansible-playbook", path], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - began


def modules(folder, root):
    """Wall seconds of one execution of an empty module, and of ours; controller's start taken off.

    In turns, so that what else the machine does at the time falls on all of them.
    """
    best = {}
    for dummy in range(TRIES):
        for name, count in (("bench_empty", 0), ("bench_empty", TASKS), ("vfio.host.iommu_info", TASKS)):
            used = playbook(folder, name, root, count)
            best[name, count] = min(used, best.get((name, count), used))
    start = best["bench_empty", 0]
    return tuple((best[name, TASKS] - start) / TASKS for name in ("bench_empty", "vfio.host.iommu_info"))


def main():
    folder = tempfile.mkdtemp(prefix="vfio-host-bench-")
    try:
        roots = {}
        for size in (SMALL, LARGE // 2, LARGE):
            print("tree with %d functions ..." % size, flush=True)
            roots[size] = tree.build(os.path.join(folder, str(size)), size)
        gc.disable()  # as in the child that reads
        probe = {size: cpu_of(lambda root=root: _machine.collect(Host(root)), 3) for size, root in roots.items()}
        gc.enable()
        loop = cpu_of_command(["bash", "-c", SHELL_LOOP, "bash", roots[LARGE]], 1)
        print("CPU, %d functions: probe %.2f s, shell loop %.2f s" % (LARGE, probe[LARGE], loop))
        judge("probe, %d functions" % LARGE, probe[LARGE], 1.5, " s")
        judge("doubling %d functions costs, times" % (LARGE // 2), probe[LARGE] / probe[LARGE // 2], 2.2)
        judge("probe : shell loop (which tells the groups' members only)", probe[LARGE] / loop, 1)
        if shutil.which("lspci"):
            began = children_cpu()
            used = cpu_of(lambda: parse_lspci(roots[LARGE]), 1) + children_cpu() - began
            print("  %-66s %8.2f   (lspci reads no groups, no use and no reset methods)" % (
                "probe : lspci -vvv and parsing it", probe[LARGE] / used))
        else:
            print("  lspci is not installed: no comparison with it")
        plain, whole = transaction.measure(folder, SMALL, TRIES)
        print("%d functions bound: bare writes to files %.1f ms, one transaction %.1f ms: %.2f ms more for each function" % (
            SMALL, plain * 1000, whole * 1000, (whole - plain) * 1000 / SMALL))
        empty, ours = modules(folder, roots[SMALL])
        print("one execution, %d functions: empty module %.0f ms, iommu_info %.0f ms" % (SMALL, empty * 1000, ours * 1000))
        judge("iommu_info : empty module", ours / empty, 1.5)
    finally:
        shutil.rmtree(folder)
    print("%d passed, %d failed" % (sum(TARGETS), len(TARGETS) - sum(TARGETS)))
    return 0 if all(TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
