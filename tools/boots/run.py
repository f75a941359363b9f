# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove on booted lab hosts that a boot configuration goes in, comes back, and strands no host.

    python tools/boots/run.py way                                   the whole way on Debian 12 with GRUB
    python tools/boots/run.py way --image trixie-systemd-boot       on another image of the role lab
    python tools/boots/run.py way --image trixie-uki --without /etc/kernel/cmdline
    python tools/boots/run.py live                                  drivers changed while the host runs
    python tools/boots/run.py faults --image trixie-uki --only panic
    python tools/boots/run.py kills                                 SIGKILL and power cuts at each change: hours
    python tools/boots/run.py kills --only power_cut_trial_boot --points 9-12
    python tools/boots/run.py way --keep                            leave the host running after a failure
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(HERE)), ".build", "collections"))

# pylint: disable=wrong-import-position
import faults
import live
import way
from host import LABS, Failed, Skipped, TestHost


def points(text):
    """``"9-12"``, ``"9-"`` or ``"9"`` to the first and the last number."""
    first, dash, last = text.partition("-")
    return int(first), int(last or (sys.maxsize if dash else first))


def options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["way", "live", "faults", "kills"])
    parser.add_argument("--image", default="bookworm-grub")
    parser.add_argument("--profile", default="p8h67")
    parser.add_argument("--without", default="", metavar="FILE", help="remove this file of the image first, as on a host that never had it")
    parser.add_argument("--only", default="", metavar="NAME,...", help="only these steps or faults")
    parser.add_argument("--from", dest="start", default="", metavar="STEP", help="on a host that --keep has left, from this step on")
    parser.add_argument("--points", type=points, default="1-", metavar="FIRST-LAST", help="of kills: only before these changes; 9- is from the ninth on")
    parser.add_argument("--keep", action="store_true", help="leave the host running when something failed")
    return parser.parse_args(arguments)


def alone(name):
    """The open file that keeps a second run off this lab as long as it is open: two would spoil each other without a word."""
    os.makedirs(LABS, exist_ok=True)
    lock = open(os.path.join(LABS, name + ".lock"), "w", encoding="utf-8")  # pylint: disable=consider-using-with
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        sys.exit("another run of these tests uses the lab %s" % name)
    return lock


def one(host, step, seen):
    begun = time.monotonic()
    print("... %s" % step.__name__, flush=True)
    try:
        text = step(host, seen)
    except Skipped as error:
        print("SKIP %s: %s: %s" % (host.image, step.__name__, error), flush=True)
        return None
    except (Failed, OSError, ValueError, KeyError, IndexError, TimeoutError, subprocess.SubprocessError) as error:
        print("FAIL %s: %s: %s" % (host.image, step.__name__, error), flush=True)
        return False
    print("PASS %s: %s: %s (%d s)" % (host.image, step.__name__, text, time.monotonic() - begun), flush=True)
    return True


def main(arguments):
    args = options(arguments)
    names = [name for name in args.only.split(",") if name]
    name = "-".join([args.what, args.image] + [args.without.rpartition("/")[2]] * bool(args.without))
    host = TestHost(name, args.image, args.profile, args.without)
    host.points = args.points
    lock = alone(host.name)
    passed = failed = 0
    if not args.start:
        begun = time.monotonic()
        host.up()
        print("host %s is up after %d s" % (host.name, time.monotonic() - begun), flush=True)
    try:
        if args.what in ("way", "live"):
            every = {"way": way, "live": live}[args.what].STEPS
            steps = [step for step in every if not names or step.__name__ in names]
            start = [step.__name__ for step in steps].index(args.start) if args.start else 0
            seen = host.remembered() if args.start else {}
            for step in steps[start:]:
                outcome = one(host, step, seen)
                if outcome is False:
                    failed += 1
                    break
                passed += bool(outcome)
                host.remember(seen)
        else:
            every = {"faults": faults.FAULTS + faults.WITH_GRUB * ("grub" in host.image), "kills": faults.KILLS}[args.what]
            for number, fault in enumerate(fault for fault in every if not names or fault.__name__ in names):
                if number:
                    host.down()
                    host.up()  # from a fresh disk each
                if one(host, fault, {}):
                    passed += 1
                else:
                    failed += 1
                    if args.keep:
                        break
    finally:
        if not (failed and args.keep):
            host.down()
        lock.close()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
