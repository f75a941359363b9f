# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab's state folder: its name, its process, its inventory."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._lab import machine

FOLDER = "/home/a user/state, of labs/demo"
FACTS = {
    "name": "demo", "pid": 1, "port": 2222, "profile": "p8h67", "accelerator": "tcg", "reason": "asked for",
    "folder": FOLDER, "console": FOLDER + "/console.log", "inventory": FOLDER + "/inventory.yml",
}  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    states = tmp_path / "states, of labs"
    (states / "demo").mkdir(parents=True)
    return machine.Lab(Host(commands=lambda argv, dummy: pytest.fail("runs %s" % argv)), "demo", str(states))


def remember(lab, **facts):
    with open(lab.file("lab.json"), "w", encoding="utf-8") as handle:
        json.dump(facts, handle)


@pytest.fixture
def sleeper():
    """Starts a process with the given name and argument that only sleeps; it is ended with the test."""
    started = []

    def start(argument, name="qemu-system-x86_64"):
        code = "import time; print(flush=True); time.sleep(60)"
        argv = [name, "-c", code, argument]
        started.append(subprocess.Popen(argv, executable=sys.executable, stdout=subprocess.PIPE))
        started[-1].stdout.readline()  # until it says something, its command line may not be readable yet
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


# names


@pytest.mark.parametrize("name", ["lab", "a", "0", "demo-2", "a" * 31])
def test_names(name):
    assert machine.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-lab", "Lab", "a/b", "..", "a b", "a_b", "a" * 32, "lab\n../x"])
def test_names_that_are_refused(name):
    with pytest.raises(ValueError, match="use up to 31 small letters"):
        machine.check_name(name)


def test_a_lab_of_a_bad_name_is_not_even_made(tmp_path):
    with pytest.raises(ValueError):
        machine.Lab(Host(), "../demo", str(tmp_path))


# processes


def test_no_process_without_facts(lab):
    assert lab.pid() is None
    remember(lab, name="demo")
    assert lab.pid() is None
    with open(lab.file("lab.json"), "w", encoding="utf-8") as handle:
        handle.write("{")
    assert lab.facts() == {} and lab.pid() is None


def test_a_process_that_ended(lab):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    remember(lab, pid=ended.pid)
    assert lab.pid() is None


def test_the_labs_own_process(lab, sleeper):
    pid = sleeper("if=none,file=" + lab.file("root.qcow2").replace(",", ",,"))
    remember(lab, pid=pid)
    assert lab.pid() == pid


def test_a_recycled_pid_is_not_the_lab(lab, sleeper):
    remember(lab, pid=os.getpid())
    assert lab.pid() is None and not lab.stop()
    remember(lab, pid=sleeper("if=none,file=" + lab.file("root.qcow2").replace("demo", "other").replace(",", ",,")))
    assert lab.pid() is None


def test_another_program_that_names_the_overlay_is_not_the_lab(lab, sleeper):
    remember(lab, pid=sleeper(lab.file("root.qcow2"), name="less"))
    assert lab.pid() is None and not lab.stop()


def test_stop_and_remove_end_the_process_and_take_the_folder(lab, sleeper):
    remember(lab, pid=sleeper(lab.file("root.qcow2")))
    assert lab.remove() and lab.pid() is None and not lab.exists()
    assert not lab.remove()
    assert os.path.isdir(os.path.dirname(lab.folder))


def test_the_end_of_the_console_is_readable(lab):
    assert lab.console() == ""
    with open(lab.file("console.log"), "w", encoding="utf-8") as handle:
        handle.write("first\r\n\x1b[0;32m ok \x1b[0m\r\n\r\n\x1b[2Jlast\r\n")
    assert lab.console() == "first\n ok \nlast"
    assert lab.console(lines=1) == "last"


# the way in


def options(argv):
    return [value for name, value in zip(argv, argv[1:]) if name == "-o"]


def test_ssh_takes_only_the_labs_own_keys_and_asks_nothing():
    found = dict(option.split("=", 1) for option in options(machine.ssh_options(FOLDER)))
    assert found["UserKnownHostsFile"] == '"%s/known_hosts"' % FOLDER
    assert (found["GlobalKnownHostsFile"], found["StrictHostKeyChecking"]) == ("none", "yes")
    assert (found["IdentitiesOnly"], found["BatchMode"]) == ("yes", "yes")


def test_ssh_command_ignores_the_users_configuration():
    argv = machine.ssh_command(FACTS)
    assert argv[:7] == ["ssh", "-F", "none", "-i", FOLDER + "/user_key", "-p", "2222"]
    assert argv[-1] == "root@127.0.0.1"


def test_inventory_is_yaml_whatever_the_folder():
    text = machine.inventory(FACTS)
    assert text.startswith("---\n")
    host = yaml.safe_load(text)["lab"]["hosts"]["demo"]
    assert host["ansible_ssh_private_key_file"] == FOLDER + "/user_key"
    assert (host["ansible_host"], host["ansible_port"], host["ansible_user"]) == ("127.0.0.1", 2222, "root")
    assert shlex.split(host["ansible_ssh_common_args"]) == ["-F", "none"] + machine.ssh_options(FOLDER)
    assert host["vfio_host_lab_console"] == FACTS["console"]


def test_a_free_port_can_be_taken():
    assert 1024 <= machine.free_port() <= 65535
