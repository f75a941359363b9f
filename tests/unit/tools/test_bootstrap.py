# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is missing, how it is installed, which Python is taken; and what the commands make of the logs."""

from __future__ import annotations

import os
import sys

import pytest

TOOLS = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
sys.path.insert(0, TOOLS)

import bootstrap  # noqa: E402  # pylint: disable=wrong-import-position,import-error
import plans  # noqa: E402  # pylint: disable=wrong-import-position,import-error
import sanity  # noqa: E402  # pylint: disable=wrong-import-position,import-error
import vh  # noqa: E402  # pylint: disable=wrong-import-position,import-error
from stages import StageError  # noqa: E402  # pylint: disable=wrong-import-position,import-error


class FakeRun:
    """Remembers the command lines; ``fail`` counts how many of the first ``apt-get install`` fail."""

    def __init__(self, fail=0):
        self.lines, self.fail = [], fail

    def execute(self, argv, foreground=False, check=True):
        self.lines.append(" ".join(argv))
        if " install " in self.lines[-1] and self.fail:
            self.fail -= 1
            if check:
                raise StageError("failed")
            return 100
        return 0

    def pause(self):
        raise StageError("waits")


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)
    return str(path)


def test_every_line_of_the_package_list_can_be_read():
    everything = bootstrap.wanted_packages(["lab", "user", "sanity", "browser", "bench"])
    assert ("mmdebstrap", "mmdebstrap") in everything
    assert ("shellcheck", "shellcheck") in bootstrap.wanted_packages(["sanity"])
    assert bootstrap.wanted_packages([]) == []
    with open(bootstrap.PACKAGES, encoding="utf-8") as lines:
        assert len(everything) == len([line for line in lines if line.strip() and not line.startswith("#")])


def test_missing_packages_are_those_whose_command_or_file_is_not_there(tmp_path):
    executable(tmp_path / "qemu-img", "true")
    (tmp_path / "keyring").write_text("")
    wanted = [("qemu-utils", "qemu-img"), ("zstd", "zstd"), ("keys", str(tmp_path / "keyring")), ("more", "/no/such")]
    assert bootstrap.missing_packages(wanted, path=str(tmp_path)) == ["zstd", "more"]


@pytest.fixture
def apt(monkeypatch):
    monkeypatch.setattr(bootstrap, "as_root", lambda: [])
    monkeypatch.setattr(bootstrap, "has_candidate", lambda package: True)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name, path=None: "/usr/bin/" + name)
    monkeypatch.setattr(bootstrap.glob, "glob", lambda pattern: [])
    return monkeypatch


def test_nothing_missing_runs_nothing(apt):
    run = FakeRun()
    assert bootstrap.install_packages(run, []) == "nothing missing"
    assert run.lines == []


def test_packages_are_installed_without_an_update_when_apt_knows_them(apt):
    run = FakeRun()
    bootstrap.install_packages(run, ["zstd", "cpio"])
    assert len(run.lines) == 1
    assert run.lines[0].endswith("install -y --no-install-recommends zstd cpio")


def test_lists_are_updated_when_apt_does_not_know_a_package(apt):
    apt.setattr(bootstrap, "has_candidate", lambda package: False)
    run = FakeRun()
    bootstrap.install_packages(run, ["zstd"])
    assert [" update" in line for line in run.lines] == [True, False]


def test_lists_that_are_too_old_are_updated_once_and_it_is_tried_again(apt):
    run = FakeRun(fail=1)
    bootstrap.install_packages(run, ["zstd"])
    assert ["update" in line for line in run.lines] == [False, True, False]
    with pytest.raises(StageError):
        bootstrap.install_packages(FakeRun(fail=2), ["zstd"])


def test_an_installation_that_was_cut_short_is_finished_first(apt):
    apt.setattr(bootstrap.glob, "glob", lambda pattern: ["/var/lib/dpkg/updates/0001"])
    run = FakeRun()
    bootstrap.install_packages(run, ["zstd"])
    assert run.lines[0].endswith("dpkg --configure -a")


def test_sudo_is_used_for_every_installing_command(apt):
    apt.setattr(bootstrap, "as_root", lambda: ["sudo", "-n"])
    run = FakeRun(fail=1)
    bootstrap.install_packages(run, ["zstd"])
    assert all(line.startswith("sudo -n ") for line in run.lines)


def test_without_a_way_to_root_the_packages_are_named(apt):
    def refuse():
        raise StageError("neither root nor sudo")

    apt.setattr(bootstrap, "as_root", refuse)
    with pytest.raises(StageError, match="neither root nor sudo; as root, run: apt-get install zstd cpio"):
        bootstrap.install_packages(FakeRun(), ["zstd", "cpio"])


def test_without_apt_the_packages_are_named(apt):
    apt.setattr(bootstrap.shutil, "which", lambda name, path=None: None)
    with pytest.raises(StageError, match="no apt-get; install what these Debian packages bring: zstd"):
        bootstrap.install_packages(FakeRun(), ["zstd"])


def test_a_python_that_does_not_run_is_too_old_or_is_incomplete_is_passed_over(tmp_path):
    answer = "echo %s"
    executable(tmp_path / "shims" / "python3.13", answer % "3.13.0")  # never looked at
    executable(tmp_path / "bin" / "python3.13", "exit 127")
    executable(tmp_path / "bin" / "python3", answer % "3.9.2")
    good = executable(tmp_path / "bin" / "python3.12", answer % "3.12.1")
    path = os.pathsep.join([str(tmp_path / "shims"), str(tmp_path / "bin")])
    assert bootstrap.find_python(path, system=str(tmp_path / "none")) == good
    assert bootstrap.find_python(str(tmp_path / "shims"), system=str(tmp_path / "none")) is None


def test_the_systems_python_comes_first_when_it_is_good_enough(tmp_path):
    executable(tmp_path / "bin" / "python3.13", "echo 3.13.0")
    system = executable(tmp_path / "system" / "python3", "echo 3.11.2")
    assert bootstrap.find_python(str(tmp_path / "bin"), system=system) == system
    executable(tmp_path / "system" / "python3", "echo 3.10.12")
    assert bootstrap.find_python(str(tmp_path / "bin"), system=system) == str(tmp_path / "bin" / "python3.13")


def test_the_environment_is_ours():
    env = bootstrap.environment({"PATH": "/home/me/.pyenv/shims:/usr/bin", "ANSIBLE_HOST_KEY_CHECKING": "false",
                                 "PYTHONPATH": "/x", "HOME": "/home/me"})
    assert env["PATH"].split(":") == [os.path.join(bootstrap.VENV, "bin"), "/usr/bin"] + bootstrap.ADMIN_PATHS
    assert env["ANSIBLE_HOST_KEY_CHECKING"] == "true"
    assert "PYTHONPATH" not in env
    assert env["HOME"] == "/home/me"


def test_a_venv_without_its_stamp_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path))
    monkeypatch.setattr(bootstrap, "python_version", lambda python: (3, 11, 2))
    assert not bootstrap.python_ready()
    (tmp_path / "complete").write_text("other")
    assert not bootstrap.python_ready()
    (tmp_path / "complete").write_text(bootstrap.python_stamp() + "\n")
    assert bootstrap.python_ready()
    monkeypatch.setattr(bootstrap, "python_version", lambda python: None)
    assert not bootstrap.python_ready()


def test_the_collections_path_leads_to_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "BUILD", str(tmp_path))
    monkeypatch.setattr(bootstrap, "COLLECTIONS", str(tmp_path / "collections"))
    link = tmp_path / "collections/ansible_collections/vfio/host"
    link.parent.mkdir(parents=True)
    link.symlink_to("/nowhere")
    for dummy in range(2):
        bootstrap.link_collection()
        assert os.path.realpath(str(link)) == bootstrap.CHECKOUT
    assert (tmp_path / "ansible/ansible.cfg").exists()


def test_two_runs_of_a_command_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "BUILD", str(tmp_path))
    with bootstrap.lock("demo"):
        with pytest.raises(StageError, match="another run"):
            with bootstrap.lock("demo"):
                pass
        with pytest.raises(StageError, match="waits"):
            with bootstrap.lock("demo", wait=FakeRun().pause):
                pass
        with bootstrap.lock("test"):
            pass
    with bootstrap.lock("demo"):
        pass


def test_pyenvs_real_interpreters_come_before_the_path(tmp_path):
    for version in ("3.9.18", "3.13.0", "system-copy"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
    folders = sanity.pyenv_folders({"PYENV_ROOT": str(tmp_path)})
    assert [path.split("/")[-2] for path in folders] == ["3.13.0", "3.9.18"]
    path = sanity.sanity_environment({"PYENV_ROOT": str(tmp_path), "PATH": "/usr/bin"})["PATH"].split(":")
    assert path[:4] == [os.path.join(bootstrap.VENV, "bin")] + folders + ["/usr/bin"]
    assert sanity.pyenv_folders({"HOME": str(tmp_path / "none")}) == []


@pytest.mark.parametrize("script, status", [
    ("echo 'WARNING: All targets skipped.'", 1),
    ("echo 'Running sanity test \"pep8\"'", 0),
    ("echo 'Running sanity test \"pep8\"'; exit 3", 3),
])
def test_sanity_that_tests_nothing_is_a_failure(tmp_path, monkeypatch, script, status):
    executable(tmp_path / "ansible-test", script)
    monkeypatch.setattr(sanity, "COLLECTION", str(tmp_path))
    assert sanity.sanity([], {"PATH": "%s:/usr/bin:/bin" % tmp_path}) == status


def test_ansible_test_finds_our_get_pip_under_each_name_it_asks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sanity, "HOME", str(tmp_path / "home"))
    (tmp_path / "user/.config/pip").mkdir(parents=True)
    for dummy in range(2):
        sanity.make_home(str(tmp_path / "user"))
    assert sanity.pip_versions()
    for version in sanity.pip_versions():
        assert (tmp_path / "home/.ansible/test/cache" / ("get_pip_%s.py" % version.replace(".", "_"))).exists()
    assert (tmp_path / "home/.config/pip").is_symlink()


@pytest.mark.parametrize("text, passed, counts", [
    ("....\n4 passed in 0.10s\n", True, (4, 0)),
    ("= 3 failed, 20 passed, 1 skipped, 2 errors in 1.00s =\n", False, (20, 5)),
    ("no tests ran in 0.01s\n", False, (0, 1)),
    ("ImportError while loading conftest\n", False, (0, 1)),
    ("collected: 5 passed somewhere\n1 passed in 75.21s (0:01:15)\n", True, (1, 0)),
])
def test_pytests_closing_line(text, passed, counts):
    assert plans.pytest_count(text, passed) == counts


SANITY = """WARNING: Skipping sanity test "compile" on Python 3.14 because it could not be found.
Running sanity test "compile" on Python 3.8
Running sanity test "compile" on Python 3.13
Running sanity test "pep8"
"""


def test_sanity_tells_its_pythons_and_runs():
    assert plans.sanity_note(SANITY) == "2 tests (3 runs), Python 3.8 3.13; not on this machine: 3.14"
    assert plans.sanity_count(SANITY, True) == (3, 0)
    failed = SANITY + "ERROR: The 2 sanity test(s) listed below (out of 3) failed. See error output above.\n"
    assert plans.sanity_count(failed, False) == (1, 2)
    assert plans.sanity_count("crash", False) == (0, 1)


class Said:
    def __init__(self):
        self.lines = []

    def say(self, text=""):
        self.lines.append(text)


@pytest.mark.parametrize("results, status, expected", [
    (["PASS"] * plans.DEMO_RESULT_LINES, 0, 0),
    (["PASS"] * (plans.DEMO_RESULT_LINES - 1), 0, 1),
    (["PASS"] * plans.DEMO_RESULT_LINES + ["FAIL desk1: no device"], 0, 1),
    (["PASS"], 130, 130),
    ([], 1, 1),
])
def test_the_demo_fails_on_a_fail_and_on_a_missing_line(tmp_path, monkeypatch, results, status, expected):
    monkeypatch.setattr(plans, "DEMO_RESULTS", str(tmp_path / "results.txt"))
    if results:
        (tmp_path / "results.txt").write_text("\n".join(results) + "\n")
    run = Said()
    assert vh.demo_closing(run, status) == expected
    assert all(line in run.lines for line in results)


def test_lab_variables_come_from_the_command_line():
    assert vh.lab_variables([]) == ("lab", {})
    assert vh.lab_variables(["lab_profile=amd", "lab_name=try"]) == ("try", {"lab_profile": "amd"})
    with pytest.raises(StageError, match="try: write variables of the role lab"):
        vh.lab_variables(["try"])


def test_clean_takes_the_labs_down_first_and_stops_if_one_stays(tmp_path, monkeypatch):
    build = tmp_path / ".build"
    (build / "lab" / "demo").mkdir(parents=True)
    monkeypatch.setattr(bootstrap, "BUILD", str(build))
    monkeypatch.setattr(bootstrap, "CHECKOUT", str(tmp_path))
    monkeypatch.setattr(plans, "LABS", str(build / "lab"))
    taken = []
    for status, left in ((1, True), (0, False)):
        monkeypatch.setattr(vh, "carry_out", lambda command, groups, table, code=status: taken.append(table) or code)
        assert vh.clean([]) == status
        assert build.exists() is left
    assert [[stage.name for stage in table] for table in taken] == [["lab demo down"]] * 2


def test_an_unknown_command_is_refused(capsys):
    assert vh.main(["dmeo"]) == 2
    assert "there are: help demo test" in capsys.readouterr().err


def test_help_and_makefile_know_the_same_commands(capsys):
    assert vh.main([]) == 0
    shown = capsys.readouterr().out
    with open(os.path.join(bootstrap.CHECKOUT, "Makefile"), encoding="utf-8") as lines:
        targets = [line.split(":")[1].split() for line in lines if line.startswith(".PHONY")][0]
    assert targets == list(vh.COMMANDS)
    assert all("  %s " % name in shown for name in targets)
