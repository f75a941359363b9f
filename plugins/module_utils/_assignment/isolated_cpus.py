# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Kernel parameters that keep the host's work off some CPUs: isolcpus, nohz_full, rcu_nocbs. Pure."""

from __future__ import annotations

import re

FLAGS = ("domain", "managed_irq")
MANAGED_IRQ_SINCE = (5, 6)


def parse(text):
    """Set of numbers of a list as ``2-5,8``. Raises ValueError for anything else."""
    found = set()
    for part in str(text).split(","):
        match = re.match(r"^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$", part)
        if not match or int(match.group(2) or match.group(1)) < int(match.group(1)):
            raise ValueError("isolated_cpus: %r is not a list of CPUs such as 2-5,8" % (text,))
        found.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return found


def show(numbers):
    """``2-5,8``"""
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join("%d" % first if first == last else "%d-%d" % (first, last) for first, last in runs)


def parameters(machine, cpus, flags, nohz_full, rcu_nocbs):
    """``{tokens, problems, notes}``; ``cpus`` is a text, empty for none."""
    for flag in flags:
        if flag not in FLAGS:
            raise ValueError("isolated_flags: %r is not one of %s" % (flag, ", ".join(FLAGS)))
    if not str(cpus or "").strip():
        asked = [name for name, value in (("isolated_flags", flags), ("nohz_full", nohz_full), ("rcu_nocbs", rcu_nocbs))
                 if value]
        return {"tokens": [], "notes": [],
                "problems": ["%s: needs isolated_cpus, the CPUs that it is about." % name for name in asked]}
    wanted = parse(cpus)
    text = show(wanted)
    found = ["isolcpus=%s" % ",".join([flag for flag in FLAGS if flag in flags] + [text])]
    found += ["nohz_full=%s" % text] if nohz_full else []
    found += ["rcu_nocbs=%s" % text] if rcu_nocbs else []
    problems = _cpu_problems(machine, wanted) + _kernel_problems(machine, flags, nohz_full, rcu_nocbs)
    notes = [] if problems else _notes(machine, wanted, flags)
    return {"tokens": found, "problems": problems, "notes": notes}


def _cpu_problems(machine, wanted):
    cores = machine["host"]["cpu"].get("threads")
    if not cores:
        return ["Which CPUs share a core is not known on this machine, so CPUs are not isolated."]
    there = {cpu for core in cores for cpu in core}
    if wanted - there:
        return ["There is no CPU %s; there are %s." % (show(wanted - there), show(there))]
    first = next((core for core in cores if 0 in core), [])
    if not first or wanted & set(first):
        return ["isolated_cpus has %s: CPU 0 and the other threads of its core (%s) are the host's, which runs its own "
                "work and its interrupts there." % (show(wanted & set(first or wanted)), show(first or {0}))]
    return []


def _kernel_problems(machine, flags, nohz_full, rcu_nocbs):
    kernel = machine["host"]["kernel"]
    config = kernel["config"] or {}
    found = ["%s does nothing on kernel %s, which is built without CONFIG_%s."
             % (name, kernel["release"], option)
             for name, option, asked in (("isolated_cpus", "CPU_ISOLATION", True),
                                         ("nohz_full", "NO_HZ_FULL", nohz_full),
                                         ("rcu_nocbs", "RCU_NOCB_CPU", rcu_nocbs))
             if asked and config.get(option) == "n"]
    release = re.match(r"^(\d+)\.(\d+)", kernel["release"] or "")
    if "managed_irq" in flags and (not release or (int(release.group(1)), int(release.group(2))) < MANAGED_IRQ_SINCE):
        found.append("isolated_flags: managed_irq needs Linux 5.6, and this is %s."
                     % (kernel["release"] or "unknown"))
    return found


def _notes(machine, wanted, flags):
    cores = machine["host"]["cpu"]["threads"]
    left = {cpu for core in cores for cpu in core} - wanted
    notes = ["The host keeps CPU %s. Nothing runs on CPU %s by itself: pin each vCPU of a guest to one of these."
             % (show(left), show(wanted))]
    torn = [core for core in cores if wanted & set(core) and not wanted >= set(core)]
    if torn:
        notes.append("Threads of one core are on both sides (%s): what the host runs on one slows the other down."
                     % "; ".join(show(core) for core in torn))
    if flags and "domain" not in flags:
        notes.append("isolated_flags without domain: the scheduler still places the host's work on these CPUs.")
    return notes
