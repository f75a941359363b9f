# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo makes of a playbook's output and of a guest's own report."""

from __future__ import annotations

import os
import sys

import pytest
from ansible_collections.vfio.host.plugins.module_utils._lab import machine

TOOLS = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools"))
sys.path.insert(0, TOOLS)

import demo  # noqa: E402  # pylint: disable=wrong-import-position,import-error

WANTED = {("1234", "1111"), ("8086", "293e")}
# address, ids, class and driver; then what interrupts and memory it has
HOST_BRIDGE = ("0000:00:00.0 vendor=0x8086 device=0x1237 class=0x060000 driver=none"
               " irq=0 pin=0 msi=0 bars=0 unset_bars=0")
CARD = ("0000:00:05.0 vendor=0x1234 device=0x1111 class=0x030000 driver=bochs-drm"
        " irq=0 pin=0 msi=0 bars=3 unset_bars=0")
AUDIO = ("0000:00:05.1 vendor=0x8086 device=0x293e class=0x040300 driver=snd_hda_intel"
         " irq=26 pin=1 msi=1 bars=1 unset_bars=0")
INTERRUPTS = "interrupts 26: 17 PCI-MSI snd_hda_intel:card0"
DISK = "disk vda sectors=131072 label=desk1"
NIC = "nic eth0 mac=52:54:00:00:00:01 carrier=1 lease=1"


def console(name="desk1", functions=(HOST_BRIDGE, CARD, AUDIO), others=(INTERRUPTS, DISK, NIC), ends=True):
    lines = ["begin"] + ["function " + function for function in functions] + list(others) + (["end"] if ends else [])
    return "Linux version 6.1\r\n" + "".join("vfio-host-guest %s %s\r\n" % (name, line) for line in lines)


# the output of ansible-playbook

RECAP = """
TASK [Say] ***
ok: [demo] => ok=99 changed=99

PLAY RECAP *********************************************************************
demo                       : ok=41   changed=12   unreachable=0    failed=0    skipped=7    rescued=0    ignored=0
"""


def test_recap():
    numbers = demo.recap(RECAP)
    assert (numbers["ok"], numbers["changed"], numbers["failed"], numbers["ignored"]) == (41, 12, 0, 0)
    assert demo.recap("ERROR! no such playbook\n") == {}


def test_executions_are_counted_by_what_ran_on_the_host():
    text = "<127.0.0.1> ESTABLISH SSH CONNECTION\nUsing module file /a.py\nok: [demo]\nUsing module file /b.py\n"
    assert demo.executions(text) == 2
    assert demo.executions(RECAP) == 0


# a guest's report


def test_report_of_a_guest():
    functions, others = demo.parse_guest(console(), "desk1")
    assert [function["address"] for function in functions] == ["0000:00:00.0", "0000:00:05.0", "0000:00:05.1"]
    assert functions[2] == {
        "address": "0000:00:05.1", "vendor": "0x8086", "device": "0x293e", "class": "0x040300",
        "driver": "snd_hda_intel", "irq": "26", "pin": "1", "msi": "1", "bars": "1", "unset_bars": "0",
    }  # fmt: skip
    assert others == [INTERRUPTS, DISK, NIC]


@pytest.mark.parametrize(
    "text", ["", "Linux version 6.1\n", console(ends=False), console("desk2"), "vfio-host-guest desk1 end\n"]
)
def test_no_report_yet(text):
    assert demo.parse_guest(text, "desk1") is None


def test_reports_of_others_do_not_mix():
    text = console("desk2", functions=[AUDIO]) + console("desk1")
    assert len(demo.parse_guest(text, "desk1")[0]) == 3 and len(demo.parse_guest(text, "desk2")[0]) == 1


def judge(functions=(HOST_BRIDGE, CARD, AUDIO), others=(INTERRUPTS, DISK, NIC)):
    return demo.judge_guest(*demo.parse_guest(console(functions=functions, others=others), "desk1"), WANTED)


def test_a_guest_that_owns_its_card():
    passed, *texts = judge()
    assert passed
    assert "0000:00:05.0 [1234:1111] and 0000:00:05.1 [8086:293e]" in texts[0]
    assert "05.0: no interrupt pin, 3 BARs; 05.1: MSI, 1 BARs" in " ".join(texts)


def test_intx_will_do():
    passed, *texts = judge((CARD, AUDIO.replace("msi=1", "msi=0")))
    assert passed and "05.1: INTx" in " ".join(texts)


@pytest.mark.parametrize(
    "functions, message",
    [
        ((HOST_BRIDGE,), "lists no slot with just"),
        ((CARD,), "lists no slot with just"),
        ((CARD, AUDIO.replace("05.1", "06.1")), "lists no slot with just"),
        ((CARD, AUDIO, HOST_BRIDGE.replace("00.0", "05.2")), "lists no slot with just"),
        ((CARD.replace("bars=3", "bars=0"), AUDIO), "0000:00:05.0 has no usable BARs"),
        ((CARD, AUDIO.replace("unset_bars=0", "unset_bars=1")), "0000:00:05.1 has no usable BARs"),
        ((CARD, AUDIO.replace("irq=26", "irq=0").replace("msi=1", "msi=0")), "0000:00:05.1 has neither INTx nor MSI"),
        ((CARD, AUDIO.replace("snd_hda_intel", "none")), "0000:00:05.1 is driven by nothing"),
    ],
)
def test_a_card_that_is_not_right(functions, message):
    passed, text = judge(functions)[:2]
    assert not passed and message in text


@pytest.mark.parametrize(
    "others, message",
    [
        ((DISK, NIC), "no interrupt of the audio function ever fired"),
        ((INTERRUPTS.replace("17", "0"), DISK, NIC), "no interrupt of the audio function ever fired"),
        ((INTERRUPTS.replace("snd_hda_intel:card0", "virtio0"), DISK, NIC), "no interrupt of the audio function"),
        ((INTERRUPTS, NIC), "no virtio disk"),
        ((INTERRUPTS, DISK.replace("131072", "2048"), NIC), "no virtio disk"),
        ((INTERRUPTS, DISK), "no lease through the virtio NIC"),
        ((INTERRUPTS, DISK, NIC.replace("carrier=1", "carrier=0")), "no lease through the virtio NIC"),
        ((INTERRUPTS, DISK, NIC.replace("lease=1", "lease=0")), "no lease through the virtio NIC"),
    ],
)
def test_a_guest_that_is_not_right(others, message):
    passed, text = judge(others=others)[:2]
    assert not passed and message in text


# the steps, on a lab that only pretends


GROUPS = "0000:00:01.0 0000:01:00.0 0000:01:00.1 \n0000:02:00.0 0000:02:00.1 \n0000:00:02.0 \n"
REFUSED = "REFUSE VH203 0000:00:02.0\nREFUSE VH201 0000:00:1f.2\nREFUSE VH202 0000:00:19.0\n"


class FakeLab:
    """``boots`` and ``trees`` are what the lab says before and after the run of a playbook."""

    def __init__(self, rc=0, changed=12, modules=9, boots="ab", trees="aa", kernel=GROUPS, left="", says=REFUSED):
        output = says + RECAP.replace("changed=12", "changed=%d" % changed) + "Using module file x\n" * modules
        self.answer = rc, output, 61.0
        self.answers = {"sha256sum": list(trees), "boot_id": list(boots), "iommu_groups": [kernel],
                        "class/iommu": ["dmar0\n"], "grub.cfg": [left]}  # fmt: skip
        self.calls = []

    def run(self, command):
        (answers,) = [answers for part, answers in self.answers.items() if part in command]
        return answers.pop(0)

    def playbook(self, *arguments):
        self.calls.append(arguments)
        return self.answer


def outcomes(step, lab):
    """A step's lines, whether it gives one or several."""
    outcome = demo.STEPS[step](lab)
    return outcome if isinstance(outcome, list) else [outcome]


@pytest.mark.parametrize(
    "step, lab, message",
    [
        ("refuse", {"rc": 2, "changed": 0}, "nothing changed"),
        ("check", {}, "predicts 12 changed tasks in 61 s"),
        ("site", {}, "in 61 s, with one reboot (12 changed)"),
        ("groups", {}, "dmar0"),
        ("second_run", {"changed": 0, "boots": "aa"}, "9 module executions"),
        ("revert", {}, "nothing of ours is left"),
    ],
)
def test_steps_that_pass(step, lab, message):
    found = outcomes(step, FakeLab(**lab))
    assert all(passed for passed, dummy in found) and message in " ".join(text for dummy, text in found)


def test_the_check_run_is_one():
    lab = FakeLab()
    demo.check(lab)
    assert lab.calls == [("site", "--check", "--diff")]


@pytest.mark.parametrize(
    "step, lab, message",
    [
        ("refuse", {"rc": 0, "changed": 0}, "site ended with 0"),
        ("refuse", {"rc": 2, "changed": 1}, "changed=1"),
        ("refuse", {"rc": 2, "changed": 0, "says": REFUSED.replace("VH202", "VH999")}, "refused: VH202 0000:00:19.0"),
        ("refuse", {"rc": 2, "changed": 0, "trees": "ab"}, "/etc or /boot is not as it was"),
        ("check", {"rc": 2}, "ended with 2"),
        ("check", {"trees": "ab"}, "/etc or /boot is not as it was"),
        ("check", {"changed": 0}, "predicts no change"),
        ("site", {"rc": 2}, "ended with 2"),
        ("site", {"boots": "aa"}, "was not rebooted"),
        ("groups", {"kernel": GROUPS.replace("0000:02:00.0 ", "")}, "the kernel's are"),
        ("groups", {"kernel": ""}, "the kernel's are"),
        ("second_run", {"changed": 0, "boots": "aa", "rc": 4}, "ended with 4"),
        ("second_run", {"changed": 1, "boots": "aa"}, "changed=1"),
        ("second_run", {"changed": 0, "boots": "ab"}, "rebooted the host"),
        ("second_run", {"changed": 0, "boots": "aa", "modules": 0}, "0 module executions"),
        ("second_run", {"changed": 0, "boots": "aa", "modules": demo.MOST_EXECUTIONS + 1}, "16 module executions"),
        ("revert", {"rc": 2}, "ended with 2"),
        ("revert", {"trees": "ab"}, "changed something"),
        ("revert", {"left": "/etc/vfio-host\n"}, "left behind: ['/etc/vfio-host']"),
    ],
)
def test_steps_that_fail(step, lab, message):
    ((passed, text),) = outcomes(step, FakeLab(**lab))
    assert not passed and message in text


class FakeGuests:
    """A lab by the text of each guest's console and the names that virsh lists."""

    def __init__(self, consoles, running):
        self.consoles, self.running = consoles, running

    def run(self, command):
        if command.startswith("virsh"):
            return "\n".join(self.running) + "\n"
        return next((text for name, text in self.consoles.items() if name in command), "")


@pytest.fixture
def no_waiting(monkeypatch):
    """Time that passes only by sleeping."""
    now = [0.0]
    monkeypatch.setattr(demo.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(demo.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


DESK1 = console()
DESK2 = console("desk2").replace("0x1234 device=0x1111", "0x1002 device=0x5046")


def verdicts(consoles, running):
    """The last lines of the step, one for each guest."""
    return outcomes("guests", FakeGuests(consoles, running))[-len(demo.GUESTS):]


def test_both_guests(no_waiting):
    found = outcomes("guests", FakeGuests({"desk1": DESK1, "desk2": DESK2}, ["desk1", "desk2"]))
    assert all(passed for passed, dummy in found)
    assert [text.split(":")[0] for dummy, text in found[-2:]] == ["desk1", "desk2"]


@pytest.mark.parametrize(
    "consoles, running, expected",
    [
        ({"desk1": DESK1}, ["desk1", "desk2"], [(True, "desk1"), (False, "said nothing within")]),
        ({"desk1": DESK1, "desk2": DESK2}, ["desk2"], [(False, "only: desk2"), (False, "only: desk2")]),
        ({"desk1": DESK1, "desk2": console("desk2")}, ["desk1", "desk2"], [(True, "desk1"), (False, "no slot")]),
    ],
)
def test_a_guest_is_missing(no_waiting, consoles, running, expected):
    found = verdicts(consoles, running)
    assert [passed for passed, dummy in found] == [passed for passed, dummy in expected]
    assert all(part in text for (dummy, text), (dummy2, part) in zip(found, expected))


def test_results_are_appended_and_decide_the_status(tmp_path, monkeypatch):
    results = tmp_path / "new" / "results.txt"
    monkeypatch.setattr(demo, "Lab", lambda folder: folder)
    steps = {"good": lambda lab: (True, "a"), "bad": lambda lab: [(True, "b"), (False, "c")]}
    monkeypatch.setattr(demo, "STEPS", steps)
    assert demo.main("good", "x", str(results)) == 0
    assert demo.main("bad", "x", str(results)) == 1
    assert results.read_text() == "PASS a\nPASS b\nFAIL c\n"


def test_the_lab_is_found_by_the_inventory_that_was_written(tmp_path):
    folder = tmp_path / "a lab, demo"
    folder.mkdir()
    facts = {"name": "demo", "port": 2222, "profile": "p8h67", "accelerator": "tcg", "folder": str(folder),
             "console": "c"}  # fmt: skip
    (folder / "inventory.yml").write_text(machine.inventory(facts))
    options = ["-F", "none"] + machine.ssh_options(str(folder))
    assert demo.Lab(str(folder)).ssh == (
        ["ssh", "-i", str(folder / "user_key"), "-p", "2222"] + options + ["root@127.0.0.1"])  # fmt: skip


# what the demo does not see yet


@pytest.mark.parametrize("controller", ["PCI-MSI 98304-edge", "IO-APIC 11-fasteoi"])
def test_an_interrupt_that_never_fired_as_linux_writes_it(controller):
    assert not judge(others=("interrupts 26: 0 %s snd_hda_intel:card0" % controller, DISK, NIC))[0]


def test_the_last_report_counts():
    assert len(demo.parse_guest(console(functions=[CARD]) + console(), "desk1")[0]) == 3


# when the lab is gone


def test_a_step_that_loses_the_lab_leaves_what_it_said_last(tmp_path, monkeypatch, capsys):
    def lost(lab):
        raise demo.subprocess.CalledProcessError(255, ["ssh"])

    (tmp_path / "console.log").write_text("".join("line %d\n" % number for number in range(1000)) + "Kernel panic\n")
    (tmp_path / "qemu.log").write_bytes(b"qemu: \xff aborted\n")
    monkeypatch.setattr(demo, "Lab", str)
    monkeypatch.setitem(demo.STEPS, "guests", lost)
    with pytest.raises(demo.subprocess.CalledProcessError):
        demo.main("guests", str(tmp_path), str(tmp_path / "results"))
    said = capsys.readouterr().out
    assert "Kernel panic" in said and "aborted" in said and "line 999" in said and "line 900\n" not in said
    assert not (tmp_path / "results").exists()
