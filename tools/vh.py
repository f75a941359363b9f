# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of this checkout: ``python3 tools/vh.py help``. The Makefile only calls them.

Standard library only and Python 3.9, since it works before anything is installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import bootstrap
import plans
from stages import Run, Stage, StageError


def carry_out(command, groups, stages, closing=None):
    """Say what will happen, prepare, run the stages, sum up. ``closing(run, status)`` has the last word."""
    missing, first = plans.prepare(*groups)
    os.makedirs(bootstrap.BUILD, exist_ok=True)
    run = Run(command, first + stages, bootstrap.BUILD, env=bootstrap.environment(), cwd=bootstrap.CHECKOUT)
    with bootstrap.lock(command):
        announce(run, command, missing)
        status = run.run()
        run.summary()
        return closing(run, status) if closing else status


def announce(run, command, missing):
    run.say("vfio.host: %s" % command)
    run.say()
    run.say("To be installed:")
    sudo = "" if os.geteuid() == 0 else " through sudo, the only thing that uses it"
    run.say("  system packages (apt-get%s): %s" % (sudo, " ".join(missing) or "nothing is missing"))
    run.say("  Python packages (into .build/venv): %s" % (
        "nothing is missing" if bootstrap.python_ready() else " ".join(bootstrap.required_packages())))
    run.say("All else is written below .build and .ansible in this folder.")
    run.say()
    run.announce()


def demo(dummy):
    if os.path.exists(plans.DEMO_RESULTS):
        os.unlink(plans.DEMO_RESULTS)
    os.makedirs(os.path.dirname(plans.DEMO_RESULTS), exist_ok=True)
    return carry_out("demo", ["lab"], plans.demo(), demo_closing)


def demo_closing(run, status):
    """The lines that the demo's playbooks have written are the result; one FAIL or one too few is a failure."""
    lines = []
    if os.path.exists(plans.DEMO_RESULTS):
        with open(plans.DEMO_RESULTS, encoding="utf-8") as results:
            lines = [line.rstrip() for line in results if line.strip()]
    if status == 0 and len(lines) < plans.DEMO_RESULT_LINES:
        lines.append("FAIL demo: %d results instead of %d" % (len(lines), plans.DEMO_RESULT_LINES))
    run.say()
    for line in lines:
        run.say(line)
    return status or int(any(not line.startswith("PASS") for line in lines))


def test(dummy):
    return carry_out("test", ["lab", "sanity", "browser"], plans.test(), count_closing)


def test_all(dummy):
    return carry_out("test-all", ["lab", "sanity", "browser"], plans.test_all(), count_closing)


def unit(dummy):
    return carry_out("unit", [], plans.unit(), count_closing)


def lint(dummy):
    return carry_out("lint", [], plans.lint(), count_closing)


def sanity(arguments):
    return carry_out("sanity", ["sanity"], plans.sanity(arguments), count_closing)


def bench(dummy):
    return carry_out("bench", ["bench"], plans.bench(), bench_closing)


def bench_closing(run, status):
    """What the benchmark printed is the result."""
    log = run.outcomes[-1].log
    if log and os.path.exists(log):
        with open(log, encoding="utf-8") as lines:
            run.say()
            run.say(lines.read().rstrip())
    return status


def audit(arguments):
    """With the system's Python and nothing installed: an audit must not need one."""
    return subprocess.call([sys.executable, os.path.join(bootstrap.CHECKOUT, "tools", "audit.py")] + list(arguments))


def explain(arguments):
    return subprocess.call([sys.executable, os.path.join(bootstrap.CHECKOUT, "tools", "explain.py")] + list(arguments))


def count_closing(run, status):
    """The last line counts pytest's tests, ansible-test's tests, and one for each other check."""
    if status != 130:
        run.say()
        run.say("%d passed, %d failed" % run.counts())
    return status


def lab_variables(arguments):
    """``["lab_name=try", "lab_profile=amd"]`` -> ``("try", {"lab_profile": "amd"})``: variables of the role lab."""
    for argument in arguments:
        if not argument.startswith("lab_") or "=" not in argument:
            raise StageError("%s: write variables of the role lab, such as lab_name=try" % argument)
    variables = dict(argument.split("=", 1) for argument in arguments)
    return variables.pop("lab_name", "lab"), variables


def lab_up(arguments):
    name, variables = lab_variables(arguments)

    def closing(run, status):
        if status == 0:
            run.say("Its inventory: .build/lab/%s/inventory.yml. It runs until make lab-down NAME=%s." % (name, name))
        return status

    return carry_out("lab-up", ["lab"], plans.lab_up(name, variables), closing)


def lab_down(arguments):
    return carry_out("lab-down", [], plans.lab_down([lab_variables(arguments)[0]]))


def clean(dummy):
    """Take down every lab that is still there, then remove what the commands have made."""
    labs = sorted(os.listdir(plans.LABS)) if os.path.isdir(plans.LABS) else []
    status = carry_out("clean", [], plans.lab_down(labs)) if labs else 0
    if status == 0:
        for path in (bootstrap.BUILD, os.path.join(bootstrap.CHECKOUT, ".ansible")):
            if os.path.exists(path):
                shutil.rmtree(path)
        print("Removed .build and .ansible.")
    return status


def ensure_make(dummy):
    missing = bootstrap.missing_packages([("make", "make")])
    if not missing:
        return 0
    stages = [Stage("make", lambda run: bootstrap.install_packages(run, missing), 30, 900)]
    return Run("ensure-make", stages, bootstrap.BUILD, cwd=bootstrap.CHECKOUT).run()


def env(dummy):
    """For ``eval "$(python3 tools/vh.py env)"``: ansible-playbook, molecule and the rest as the commands use them."""
    for name, value in sorted(bootstrap.environment().items()):
        if value != os.environ.get(name):
            print("export %s=%s" % (name, shlex.quote(value)))
    return 0


def show_help(dummy):
    print("usage: make COMMAND, or python3 tools/vh.py COMMAND\n")
    for name, (dummy, text) in COMMANDS.items():
        print("  %-9s %s" % (name, text))
    return 0


COMMANDS = {
    "help": (show_help, "this list"),
    "demo": (demo, "install what is missing, boot the lab host, run site against it, print what was proved"),
    "test": (test, "install what is missing and run every test: unit, lint, sanity, molecule on the lab"),
    "test-all": (test_all, "test, and what is too slow for it"),
    "unit": (unit, "the unit tests only; minutes, no root, no lab"),
    "lint": (lint, "ansible-lint, changelog and documentation only"),
    "sanity": (sanity, "ansible-test sanity only"),
    "audit": (audit, "what this machine is, what can be assigned and why not; reads only, installs nothing"),
    "explain": (explain, "the same from the text of lspci -D -xxxx (FILE=dump.txt, OUT=page.html)"),
    "bench": (bench, "what the probe costs, as ratios"),
    "lab-up": (lab_up, "boot a lab host and leave it running (NAME=lab PROFILE=p8h67 IMAGE=bookworm-grub)"),
    "lab-down": (lab_down, "take a lab host down (NAME=lab)"),
    "clean": (clean, "take every lab down, then remove .build: logs, environment, image cache"),
}
HIDDEN = {"ensure-make": ensure_make, "env": env}


def main(arguments):
    name = arguments[0] if arguments else "help"
    if name in ("-h", "--help"):
        name = "help"
    work = COMMANDS[name][0] if name in COMMANDS else HIDDEN.get(name)
    if work is None:
        print("no command %s; there are: %s" % (name, " ".join(COMMANDS)), file=sys.stderr)
        return 2
    if not sys.platform.startswith("linux"):
        print("needs Linux, this is %s" % sys.platform, file=sys.stderr)
        return 1
    try:
        return work(arguments[1:])
    except StageError as error:
        print("%s: %s" % (name, error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    STATUS = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(STATUS)
