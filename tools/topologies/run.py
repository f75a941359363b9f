# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove the prediction of IOMMU groups: small machines in emulation, booted with the IOMMU off and on.

What is predicted from the boot with it off must equal the groups that the kernel forms with it on.

    python tools/topologies/run.py                              the fixed topologies, one kernel
    python tools/topologies/run.py --random 50 --seed 1         fifty random ones for each IOMMU vendor
    python tools/topologies/run.py --only seed-7-amd --keep .   one again, and keep what it printed

Needs QEMU, mmdebstrap and zstd, and no root rights. Kernels come from packages of Debian releases, with the mirror
that this machine uses.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import lzma
import os
import re
import signal
import sys
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.append(os.path.join(CHECKOUT, ".build", "collections"))

# pylint: disable=wrong-import-position
import boot
import kernels
import shapes
from ansible_collections.vfio.host.tools.topologies import comparison

CACHE = os.path.join(CHECKOUT, ".build", "cache", "kernels")
AT_ONCE = 2
SEED = re.compile(r"seed-(\d+)-(intel|amd)")


def options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", default="bookworm", metavar="RELEASE,...",
                        help="Debian releases whose kernels to boot; topologies are dealt out to them in turn")
    parser.add_argument("--random", type=int, default=0, metavar="N",
                        help="N random topologies for each vendor, not the fixed")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; those that follow are counted up")
    parser.add_argument("--only", metavar="NAME,...", help="only these, fixed ones or seed-N-intel and seed-N-amd")
    parser.add_argument("--all-kernels", action="store_true", help="each topology on each kernel")
    parser.add_argument("--keep", metavar="FOLDER", help="write what was printed to FOLDER/NAME.txt.xz")
    parser.add_argument("--budget", type=int, default=3600, metavar="SECONDS", help="start no topology after that")
    return parser.parse_args(arguments)


def chosen(args):
    """The shapes that the options ask for."""
    if args.only:
        named = {shape.name: shape for shape in shapes.fixed()}
        available = boot.available()
        for name in args.only.split(","):
            seed = SEED.fullmatch(name)
            if not seed and name not in named:
                sys.exit("no topology %s; there are: %s" % (name, " ".join(named)))
            yield shapes.from_seed(int(seed.group(1)), seed.group(2), available) if seed else named[name]
    elif args.random:
        available = boot.available()
        for seed in range(args.seed, args.seed + args.random):
            for iommu in shapes.IOMMUS:
                yield shapes.from_seed(seed, iommu, available)
    else:
        yield from shapes.fixed()


def prove(shape, kernel, keep):
    """``(passed, line)`` of one topology on one kernel."""
    begun = time.monotonic()
    try:
        prints = [boot.boot(shape, kernel, active) for active in (False, True)]
        if keep:
            with lzma.open(os.path.join(keep, shape.name + ".txt.xz"), "wt", encoding="utf-8") as handle:
                handle.write("\n".join(prints))
        functions, groups, differences = comparison.compare(*prints)
    except (boot.BootError, ValueError) as error:
        return False, "FAIL %-24s %s: %s" % (shape.name, kernel["release"], error)
    line = "%-24s %-22s %4.1f s %3d functions %3d groups" % (
        shape.name, kernel["release"], time.monotonic() - begun, functions, groups)
    if differences:
        return False, "FAIL %s\n     %s" % (line, "\n     ".join(differences))
    return True, "PASS %s" % line


def main(arguments):
    args = options(arguments)
    signal.signal(signal.SIGTERM, lambda *dummy: sys.exit(143))
    begun = time.monotonic()
    booted = [kernels.ready(CACHE, suite) for suite in args.kernels.split(",")]
    names = " ".join(kernel["release"] for kernel in booted)
    print("kernels: %s, ready in %.0f s" % (names, time.monotonic() - begun), flush=True)
    work = []
    for number, shape in enumerate(chosen(args)):
        # In pairs, so that both vendors' machines meet both kernels
        work += [(shape, kernel) for kernel in (booted if args.all_kernels else [booted[number // 2 % len(booted)]])]

    def one(task):
        if time.monotonic() - begun > args.budget:
            return None
        return prove(*task, args.keep)

    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for result in pool.map(one, work):
                if result is None:
                    continue
                print(result[1], flush=True)
                passed, failed = passed + result[0], failed + (not result[0])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            boot.end_all()
            raise
    left = len(work) - passed - failed
    late = ", %d were not started within %d s" % (left, args.budget) if left else ""
    print("%d agree, %d do not%s; %.0f s" % (passed, failed, late, time.monotonic() - begun))
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
