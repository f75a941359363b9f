# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each command does: its stages, in order, with their durations on two cores without hardware virtualisation."""

from __future__ import annotations

import json
import os
import re

import bootstrap
from stages import Stage

DEMO_LAB, TEST_LAB = "demo", "molecule"
DEMO_RESULTS = os.path.join(bootstrap.BUILD, "demo", "results.txt")
DEMO_RESULT_LINES = 10  # two for each guest and for the second run, one for each other step
LABS = os.path.join(bootstrap.BUILD, "lab")

PYTEST_RESULT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)")
BOOTS = re.compile(r"^(\d+) passed, (\d+) failed", re.MULTILINE)
TOPOLOGIES = re.compile(r"^(\d+) agree, (\d+) do not", re.MULTILINE)
SANITY_TEST = re.compile(r'^Running sanity test "?([a-z0-9-]+)"?', re.MULTILINE)
SANITY_PYTHON = re.compile(r'^Running sanity test .* (?:on|with) Python ([0-9.]+)', re.MULTILINE)
SANITY_SKIPPED = re.compile(r'Skipping sanity test .* on Python ([0-9.]+)')
SANITY_FAILED = re.compile(r"The (\d+) sanity test")


def lab_playbook(playbook, name="lab", **variables):
    """Command line of one of the collection's lab playbooks, with the lab's files below .build."""
    variables = dict(variables, lab_name=name, lab_states=LABS, lab_cache=os.path.join(bootstrap.BUILD, "cache", "lab"))
    return ["ansible-playbook", "vfio.host." + playbook, "-e", json.dumps(variables, sort_keys=True)]


def prepare(*groups):
    """The stages that install; ``groups`` as in packages.txt. Without a group only Python is prepared."""
    groups += ("user",) if "lab" in groups and os.geteuid() != 0 else ()
    missing = bootstrap.missing_packages(bootstrap.wanted_packages(groups)) + bootstrap.missing_python()

    def packages(run):
        note = bootstrap.install_packages(run, missing)
        if "lab" in groups:
            bootstrap.check_user_namespaces(run)
        return note

    stages = [
        Stage("Python packages", bootstrap.prepare_python, 60 if not bootstrap.python_ready() else 1, 1200,
              fresh=not bootstrap.python_ready()),
    ]
    if groups or missing:
        stages.insert(0, Stage("system packages", packages, 120 if missing else 1, 1800, fresh=bool(missing)))
    return missing, stages


def demo():
    """Bare host to two running guests, on the lab. ``demo.py`` writes the result lines."""
    def step(name):
        return ["python", "tools/demo.py", name, os.path.join(LABS, DEMO_LAB), DEMO_RESULTS]

    return [
        #     name          command                          seconds  deadline
        Stage("lab image", [lab_playbook("lab_image")], 330, 1200),
        Stage("lab up", [lab_playbook("lab_up", DEMO_LAB)], 90, 600),
        Stage("refusals and check run", [step("refuse"), step("check")], 130, 900),
        Stage("site", [step("site"), step("groups")], 780, 2400),
        Stage("guests", [step("guests")], 60, 900),
        Stage("second run", [step("second_run")], 40, 600),
        Stage("lab down", [lab_playbook("lab_down", DEMO_LAB)], 10, 180, undoes="lab up"),
    ]


def unit():
    return [pytest_stage("unit tests", "tests/unit", 300)]


def pytest_stage(name, folder, seconds):
    argv = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", os.path.join(bootstrap.BUILD, "pytest"), folder]
    return Stage(name, [argv], seconds, 3000, required=False, env={"PYTHONPATH": bootstrap.COLLECTIONS},
                 note=pytest_note, count=pytest_count)


def browser():
    """The audit's pages in a real browser."""
    return [pytest_stage("audit pages in Chromium", "tests/browser", 90)]


def bench():
    return [Stage("benchmark", [["python", "tests/bench/bench.py"]], 150, 1200, required=False,
                  env={"PYTHONPATH": bootstrap.COLLECTIONS})]


def lint():
    return [
        Stage("ansible-lint", [["ansible-lint", "--offline", "--profile", "production"]], 50, 600,
              required=False, count=one_check),
        Stage("changelog lint", [["antsibull-changelog", "lint"]], 2, 120, required=False, count=one_check),
        Stage("documentation lint", [["antsibull-docs", "lint-collection-docs", "--plugin-docs",
                                      "--validate-collection-refs", "self", "."]], 5, 300,
              required=False, count=one_check),
    ]


def sanity(arguments=()):
    return [Stage("ansible-test sanity", [["python", "tools/sanity.py"] + list(arguments)], 300, 1800,
                  required=False, note=sanity_note, count=sanity_count)]


def beside_molecule(stages):
    """Stages that run beside Molecule: its emulated machine has one CPU, which leaves another for them.

    ``reset`` first: a run that was cut short has left a state that makes the next one skip ``create``.
    """
    return [
        Stage("molecule", [["molecule", "reset", "--all"], ["molecule", "test", "--all"]], 2000, 4000,
              required=False, beside=True, count=one_check),
    ] + stages + [
        Stage("lab down", [lab_playbook("lab_down", TEST_LAB)], 10, 180,
              required=False, undoes="molecule"),
    ]


def judged(lab, *names):
    """Command lines of ``demo.py``'s steps against a lab that is no demo."""
    return [["python", "tools/demo.py", name, os.path.join(LABS, lab), os.path.join(bootstrap.BUILD, "test", lab + ".txt")]
            for name in names]


def amd(*steps):
    """The machine with AMD-Vi: boots, and its kernel forms the same groups."""
    return [
        Stage("lab with AMD-Vi", [lab_playbook("lab_up", "amd", lab_profile="amd")] + judged("amd", "groups", *steps), 90, 2400,
              required=False, count=one_check),
        Stage("lab with AMD-Vi down", [lab_playbook("lab_down", "amd")], 5, 180, required=False, undoes="lab with AMD-Vi"),
    ]


IMAGES = ("bookworm-grub", "bookworm-grub-efi-dracut", "trixie-grub-efi-dracut", "trixie-systemd-boot", "trixie-uki",
          "trixie-grub-two-kernels")  # fmt: skip
FAULTY = ("bookworm-grub", "trixie-systemd-boot", "trixie-uki")
"""Where faults are tried: one image of each way of booting."""


def boots(what, image, seconds, profile="p8h67", without=""):
    """A boot configuration there and back, its faults, or drivers changed in use, on booted hosts."""
    more = ["--without", without] if without else []
    name = "-".join([what, image] + [os.path.basename(without)] * bool(without))
    title = "boot %s, %s, %s" % (what, image, " ".join([profile] + more))
    return [
        Stage(title, [["python", "tools/boots/run.py", what, "--image", image, "--profile", profile] + more], seconds, 4 * seconds,
              required=False, count=boots_count),
        Stage(title + ", down", [lab_playbook("lab_down", name)], 5, 180, required=False, undoes=title),
    ]


def topologies(name, seconds, *arguments):
    """Groups predicted with the IOMMU off against the kernel's with it on, on small emulated machines."""
    return [Stage(name, [["python", "tools/topologies/run.py"] + list(arguments)], seconds, 4 * seconds,
                  required=False, note=topology_note, count=topology_count)]


def checks():
    """What needs no lab that stays."""
    return unit() + browser() + lint() + sanity() + topologies("groups of emulated machines", 200)


def test():
    return beside_molecule(checks() + amd())


def test_all():
    """``test`` and what is too slow for it: every step of the demo and the way back, on both IOMMU vendors."""
    return beside_molecule(checks()) + topologies(
        "groups of random machines", 1200, "--random", "50", "--kernels", "bookworm,trixie") + [
        Stage("lab of the whole way", [lab_playbook("lab_up", "all")], 90, 600),
        Stage("the whole way and back", judged("all", "refuse", "check", "site", "groups", "guests", "second_run", "revert"),
              1200, 4000, required=False, count=one_check),
        Stage("lab of the whole way down", [lab_playbook("lab_down", "all")], 5, 180, required=False, undoes="lab of the whole way"),
    ] + amd("site", "guests", "second_run", "revert") + [
        stage for image in IMAGES for stage in boots("way", image, 1500)] + boots(
        "way", "trixie-uki", 2400, without="/etc/kernel/cmdline") + [
        stage for image in FAULTY for stage in boots("faults", image, 6600)] + boots("kills", IMAGES[0], 25000) + [
        stage for profile in ("p8h67", "amd") for stage in boots("live", "bookworm-grub", 3600, profile)]


def lab_up(name, variables):
    return [
        Stage("lab up", [lab_playbook("lab_up", name, **variables)], 400, 1500),
        Stage("lab down", [lab_playbook("lab_down", name)], 10, 180, undoes="lab up", after_success=False),
    ]


def lab_down(names):
    return [Stage("lab %s down" % name, [lab_playbook("lab_down", name)], 10, 180) for name in names]


# what the logs say

def one_check(dummy, passed):
    return (1, 0) if passed else (0, 1)


def _pytest_closing(text):
    """pytest's closing line without its decoration, empty when it never came to that."""
    lines = [line.strip("= ") for line in text.splitlines()
             if PYTEST_RESULT.search(line) and re.search(r" in [\d.]+s", line)]
    return lines[-1] if lines else ""


def pytest_note(text):
    return _pytest_closing(text)


def pytest_count(text, passed):
    counted = {kind: int(number) for number, kind in PYTEST_RESULT.findall(_pytest_closing(text))}
    failed = counted.get("failed", 0) + counted.get("error", 0) + counted.get("errors", 0)
    return counted.get("passed", 0), failed if passed else max(1, failed)


def boots_count(text, passed):
    found = BOOTS.search(text)
    good, bad = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    return good, bad if passed else max(1, bad)


def topology_count(text, passed):
    found = TOPOLOGIES.search(text)
    agree, differ = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    return agree, differ if passed else max(1, differ)


def topology_note(text):
    found = TOPOLOGIES.search(text)
    return found.group(0) if found else ""


def sanity_note(text):
    def versions(pattern):
        return " ".join(sorted(set(pattern.findall(text)), key=lambda version: int(version.split(".")[1])))

    names = SANITY_TEST.findall(text)
    note = "%d tests (%d runs), Python %s" % (len(set(names)), len(names), versions(SANITY_PYTHON) or "none")
    if SANITY_SKIPPED.search(text):
        note += "; not on this machine: %s" % versions(SANITY_SKIPPED)
    return note


def sanity_count(text, passed):
    """ansible-test runs some tests once for each Python, and counts (and lists as failed) every such run."""
    runs = len(SANITY_TEST.findall(text))
    found = SANITY_FAILED.search(text)
    failed = 0 if passed else int(found.group(1)) if found else 1
    return max(0, runs - failed), failed
