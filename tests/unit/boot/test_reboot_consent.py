# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role reboot asks each host of a batch on the terminal.

Nothing is rebooted: it runs in check mode, and Ansible refuses to reboot where it runs, which shows who got so far.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
import time

import ansible_collections
import pytest

PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  roles:
    - role: vfio.host.reboot
      vars:
        reboot_consent: %s
"""
PLAYER = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
DEADLINE = 240


def play(folder, consent, answers, terminal=True):
    """Run the role on three hosts in check mode; ``answers``: {host: what is typed}. Returns the output."""
    path = os.path.join(str(folder), "play.yml")
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(PLAYBOOK % consent)
    environment = dict(
        os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.dirname(list(ansible_collections.__path__)[0]),
        ANSIBLE_HOME=str(folder), ANSIBLE_NOCOLOR="1",
    )  # fmt: skip
    pid, fd = pty.fork()
    if pid == 0:
        if not terminal:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        variables = json.dumps({"ansible_python_interpreter": sys.executable})
        os.execve(PLAYER, [PLAYER, "-i", "a,b,c,", "--check", "-e", variables, path], environment)
    output = ""
    answered = set()
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if not select.select([fd], [], [], 1)[0]:
            continue
        try:
            data = os.read(fd, 4096)
        except OSError:  # the other side has ended
            break
        output += data.decode("utf-8", "replace")
        for host in set(re.findall(r"Reboot (\w) now\?", output)) - answered:
            answered.add(host)
            time.sleep(0.5)
            os.write(fd, answers[host].encode() + b"\r")
    os.waitpid(pid, 0)
    return output


def rebooted(output):
    """The hosts that would have been rebooted."""
    return sorted(set(re.findall(r"fatal: \[(\w)\]: .*would reboot the control node", output)))


@pytest.mark.skipif(not os.path.exists(PLAYER), reason="no ansible-playbook beside this Python")
def test_each_host_is_asked_by_its_name(tmp_path):
    output = play(tmp_path, "ask", {"a": "yes", "b": "no", "c": "yes"})
    assert rebooted(output) == ["a", "c"], output
    assert "b must be rebooted" in output


@pytest.mark.skipif(not os.path.exists(PLAYER), reason="no ansible-playbook beside this Python")
def test_without_a_terminal_no_host_is_rebooted(tmp_path):
    output = play(tmp_path, "ask", {"a": "yes", "b": "yes", "c": "yes"}, terminal=False)
    assert rebooted(output) == [] and set(re.findall(r"(\w) must be rebooted", output)) == set("abc"), output


@pytest.mark.skipif(not os.path.exists(PLAYER), reason="no ansible-playbook beside this Python")
def test_never_stops_before_anything(tmp_path):
    output = play(tmp_path, "never", {})
    assert rebooted(output) == [] and set(re.findall(r"(\w) must be rebooted", output)) == set("abc"), output
