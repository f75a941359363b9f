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
import time

import pytest
import yaml
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, Result
from ansible_collections.vfio.host.plugins.module_utils._lab import machine, profiles

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


@pytest.mark.parametrize("name", ["qemu-system-x86_64", "/opt/qemu/bin/qemu-system-x86_64"])
def test_the_labs_own_process(lab, sleeper, name):
    pid = sleeper("if=none,file=" + lab.file("root.qcow2").replace(",", ",,"), name=name)
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


# power


FAKE_QEMU = """
import json, os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *dummy: open("terminated", "w").close() or os._exit(0))
open("console.log", "w").write("booted\\n")
monitor = socket.socket(socket.AF_UNIX)
if os.path.exists("monitor.sock"):
    os.unlink("monitor.sock")
monitor.bind("monitor.sock")
monitor.listen(1)
while True:
    connection = monitor.accept()[0].makefile("rw")
    print(json.dumps({"QMP": {}}), file=connection, flush=True)
    for line in connection:
        request = json.loads(line)
        print(json.dumps({"event": "NOISE"}), file=connection)
        known = request["execute"] in ("qmp_capabilities", "echo")
        answer = {"return": request.get("arguments")} if known else {"error": {"desc": "no such command"}}
        print(json.dumps(answer), file=connection, flush=True)
"""


@pytest.fixture
def powered(tmp_path, monkeypatch):
    """A lab whose QEMU is a process that only waits for its monitor; yields (lab, calls of machine_arguments)."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "qemu-system-x86_64").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(machine, "QUIET_START", 0.2)
    made = []

    def arguments(*given):
        made.append(given)
        return ["-S", "-c", FAKE_QEMU, given[5]]

    monkeypatch.setattr(profiles, "machine_arguments", arguments)
    commands = []

    def run(argv, dummy):
        commands.append(argv)
        if argv[0] == "ssh-keygen":
            for ending, text in (("", "private\n"), (".pub", "ssh-ed25519 AAAA vfio-host-lab\n")):
                with open(argv[-1] + ending, "w", encoding="ascii") as handle:
                    handle.write(text)
        elif argv[0] == "qemu-img":
            disks = [word for word in argv if word.startswith(str(tmp_path)) and word.endswith(".qcow2")]
            open(disks[0], "wb").close()
        return Result(argv, 0, "")

    lab = machine.Lab(Host(commands=run), "demo", str(tmp_path / "a long folder of states, " / ("x" * 120)))
    lab.commands = commands
    yield lab, made
    lab.stop()


def switch_on(lab, **changed):
    asked = dict({"image": "/i/disk.img", "profile": "p8h67", "accelerator": "tcg", "memory": 512, "cpus": 1,
                  "internet": False, "timeout": 10}, **changed)  # fmt: skip
    return lab.start(**asked)


def content(lab, name):
    with open(lab.file(name), encoding="utf-8") as handle:
        return handle.read()


def test_a_power_cut_leaves_the_guest_no_chance_and_keeps_all(powered):
    lab = powered[0]
    switch_on(lab)
    before = {name: content(lab, name) for name in ("host_key", "user_key", "known_hosts", "inventory.yml")}
    assert lab.running() and lab.power_off() and not lab.running()
    assert not os.path.exists(lab.file("terminated"))  # SIGTERM would let QEMU, and its caches, come to an end
    assert not lab.power_off()
    assert {name: content(lab, name) for name in before} == before


def test_absent_ends_qemu_in_order(powered):
    lab = powered[0]
    switch_on(lab)
    assert lab.stop() and os.path.exists(lab.file("terminated"))


def test_the_same_machine_is_switched_on_again(powered):
    lab, made = powered
    facts = switch_on(lab)
    lab.power_off()
    lab.commands.clear()
    again = lab.power_on()
    assert lab.running() and again["pid"] != facts["pid"]
    assert {key: again[key] for key in facts if key not in ("pid", "boot_seconds")} == {
        key: facts[key] for key in facts if key not in ("pid", "boot_seconds")}
    assert made[1] == made[0]
    assert [argv[0] for argv in lab.commands] == ["ssh"]  # no overlay and no key was made


def test_a_port_that_was_taken_meanwhile_is_replaced_everywhere(powered, monkeypatch):
    lab, made = powered
    facts = switch_on(lab)
    lab.power_off()
    launch, taken = lab._launch, []

    def refuse_once(port, facts):
        taken.append(port)
        return None if len(taken) == 1 else launch(port, facts)

    monkeypatch.setattr(lab, "_launch", refuse_once)
    port = lab.power_on()["port"]
    assert taken[0] == facts["port"] and taken[1] == port
    assert content(lab, "known_hosts") == "[127.0.0.1]:%d ssh-ed25519 AAAA\n" % port
    assert yaml.safe_load(content(lab, "inventory.yml"))["lab"]["hosts"]["demo"]["ansible_port"] == port


def test_without_waiting_nothing_is_asked_over_ssh(powered):
    lab = powered[0]
    assert "boot_seconds" not in switch_on(lab, wait=False)
    lab.power_off()
    assert "boot_seconds" not in lab.power_on(wait=False)
    assert "ssh" not in [argv[0] for argv in lab.commands]
    assert "boot_seconds" in lab.power_on()


def test_a_machine_that_is_on_stays_as_it_is(powered):
    lab, made = powered
    pid = switch_on(lab)["pid"]
    assert lab.power_on(board=[{"remove": "hda1"}])["pid"] == pid and len(made) == 1
    assert lab.facts()["board"] == []


def test_the_board_changes_when_it_is_said_and_stays_so(powered):
    lab, made = powered
    switch_on(lab, board=[{"remove": "hda2"}])
    changes = [{"add": "ide-hd", "at": "ide.1", "disk": "second", "size": 64}]
    for board, expected in ((None, [{"remove": "hda2"}]), (changes, changes), (None, changes), ([], [])):
        lab.power_off()
        assert lab.power_on(board=board)["board"] == expected and made[-1][12] == expected
    # made once, and kept while the board is without it
    assert len([argv for argv in lab.commands if "disk-second.qcow2" in argv[-2]]) == 1


def test_a_board_that_cannot_be_leaves_the_lab_as_it_was(powered):
    lab = powered[0]
    switch_on(lab)
    lab.power_off()
    with pytest.raises(ValueError, match="there is no hda9"):
        lab.power_on(board=[{"remove": "hda9"}])
    assert lab.facts()["board"] == [] and not lab.running()
    with pytest.raises(ValueError, match="there is no hda9"):
        switch_on(lab, board=[{"remove": "hda9"}])
    assert lab.exists()


def test_what_the_machine_said_before_is_kept_once(powered):
    lab = powered[0]
    switch_on(lab)
    with open(lab.file("console.log"), "a", encoding="ascii") as handle:
        handle.write("the end of the first life\n")
    lab.power_off()
    lab.power_on()
    assert lab.console() == "booted" and content(lab, "console.previous.log").endswith("first life\n")


def test_the_variables_of_the_firmware_are_the_labs_own_and_stay(powered, monkeypatch, tmp_path):
    lab, made = powered
    code, empty = tmp_path / "code.fd", tmp_path / "vars.fd"
    for path in (code, empty):
        path.write_text("empty")
    monkeypatch.setattr(machine, "FIRMWARES", (("/missing", "/missing"), (str(code), str(empty))))
    switch_on(lab, firmware="efi")
    assert made[0][11] == (str(code), lab.file("efivars.fd")) and content(lab, "efivars.fd") == "empty"
    with open(lab.file("efivars.fd"), "w", encoding="ascii") as handle:
        handle.write("written by the guest")
    lab.power_off()
    lab.power_on()
    assert content(lab, "efivars.fd") == "written by the guest" and empty.read_text() == "empty"
    switch_on(lab, firmware="efi")
    assert content(lab, "efivars.fd") == "empty"
    switch_on(lab)
    assert made[-1][11] is None and not os.path.exists(lab.file("efivars.fd"))


def test_uefi_that_is_not_installed_is_said_before_the_old_lab_goes(powered, monkeypatch):
    lab = powered[0]
    switch_on(lab)
    monkeypatch.setattr(machine, "FIRMWARES", (("/missing", "/missing"),))
    with pytest.raises(HostError, match="package ovmf"):
        switch_on(lab, firmware="efi")
    assert lab.running()


def test_only_a_lab_that_there_is_can_be_switched_on(lab):
    with pytest.raises(HostError, match="no lab demo in .* to switch on"):
        lab.power_on()


def test_a_machine_that_does_not_answer_stays_on_for_a_look(powered, monkeypatch):
    lab = powered[0]
    switch_on(lab)
    lab.power_off()
    monkeypatch.setattr(lab.host, "commands", lambda argv, dummy: Result(argv, 255, ""))
    with pytest.raises(HostError, match="(?s)did not come up within 1 s.*booted"):
        lab.power_on(timeout=1)
    assert lab.running()


def test_the_monitor_answers_past_events_and_says_what_it_refuses(powered):
    lab = powered[0]
    with pytest.raises(HostError, match="lab demo is off"):
        lab.monitor("echo")
    switch_on(lab)
    assert lab.monitor("echo", value=1) == {"value": 1}
    with pytest.raises(HostError, match="does not answer nonsense: no such command"):
        lab.monitor("nonsense")


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


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call")
def test_a_process_whose_other_threads_still_run_is_not_gone():
    """QEMU after SIGKILL: the lock of its disk is free only when the last thread has ended."""
    program = (
        "import ctypes, os, threading, time\n"
        "def other():\n"
        "    while ' Z ' not in open('/proc/self/stat').read():\n"
        "        time.sleep(0.01)\n"
        "    print('alone', flush=True)\n"
        "    time.sleep(60)\n"
        "threading.Thread(target=other).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit of the first thread alone
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "alone\n"
        assert not machine._gone(process.pid)
    finally:
        process.kill()
    end = time.monotonic() + 20
    while not machine._gone(process.pid):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.stdout.close()


def test_a_process_that_ended_and_that_its_parent_has_not_waited_for_is_gone():
    code = "import subprocess, sys; child = subprocess.Popen(['true']); print(child.pid, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        for dummy in range(200):
            if machine._gone(child):
                break
            time.sleep(0.05)
        else:
            pytest.fail("process %d is a zombie, and counts as running" % child)
        assert os.path.exists("/proc/%d" % child) and not machine._gone(parent.pid)
        parent.stdin.close()
