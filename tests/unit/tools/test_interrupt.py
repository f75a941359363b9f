# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ends a module in the lab: at the change that was asked, with all that the module had started, and by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

TOOLS = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
sys.path.insert(0, TOOLS)

import stages  # noqa: E402  # pylint: disable=wrong-import-position,import-error

INTERRUPT = os.path.join(TOOLS, "boots", "interrupt.py")
MODULE = textwrap.dedent("""
    import os, subprocess, sys
    if sys.argv[1] == "child":
        if not os.fork():
            os.mkdir("first")
            os.mkdir("second")
        os.wait()
    subprocess.run(["true"])
    subprocess.run(["sh", "-c", "echo $$ >started; exec sleep 60"])
    os.mkdir("third")
""")


@pytest.fixture
def run(tmp_path):
    def ended(how, at, who="itself"):
        shutil.copy(INTERRUPT, str(tmp_path / "sitecustomize.py"))
        for name, text in (("how", how), ("at", str(at)), ("module.py", MODULE)):
            (tmp_path / name).write_text(text)
        done = subprocess.run([sys.executable, "module.py", who], cwd=str(tmp_path), timeout=30, check=False,
                              env=dict(os.environ, PYTHONPATH=str(tmp_path)))
        return done.returncode, (tmp_path / "said").read_text()
    return ended


def test_killed_before_a_change(run, tmp_path):
    assert run("kill", 2) == (-signal.SIGKILL, "subprocess.Popen sh ['sh', '-c', 'echo $$ >started; exec sleep 60']")
    assert not (tmp_path / "started").exists() and not (tmp_path / "third").exists()


def test_a_change_of_a_child_counts_and_ends_the_module(run, tmp_path):
    status, said = run("kill", 2, "child")
    assert status == -signal.SIGKILL and said.startswith("os.mkdir second")
    assert (tmp_path / "first").exists() and not (tmp_path / "second").exists()


def test_killed_during_a_command_with_the_command(run, tmp_path):
    assert run("during", 2)[0] == -signal.SIGKILL
    assert stages.started_at(int((tmp_path / "started").read_text())) is None
    assert not (tmp_path / "third").exists()
