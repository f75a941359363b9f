# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage engine: failure, interrupt, deadline, cleanup, running again. With stages that take no time."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools")
sys.path.insert(0, os.path.realpath(TOOLS))

import stages  # noqa: E402  # pylint: disable=wrong-import-position,import-error
from stages import Run, Stage, StageError  # noqa: E402  # pylint: disable=wrong-import-position,import-error


def shell(script):
    return [["sh", "-c", script]]


def make(tmp_path, *table, **options):
    return Run("try", list(table), str(tmp_path), cwd=str(tmp_path), out=io.StringIO(), **options)


def said(run):
    return run.out.getvalue()


def states(run):
    return [outcome.state for outcome in run.outcomes]


def test_all_stages_pass_in_order_and_each_has_a_log(tmp_path):
    run = make(tmp_path, Stage("first one", shell("echo hello"), 1, 9), Stage("second", shell("echo world"), 1, 9))
    assert run.run() == 0
    assert states(run) == [stages.PASSED, stages.PASSED]
    assert "hello" in (tmp_path / "logs/try/01-first-one.log").read_text()
    assert "world" in (tmp_path / "logs/try/02-second.log").read_text()


def test_failure_names_stage_reason_and_log_and_skips_the_rest(tmp_path):
    run = make(tmp_path, Stage("breaks", shell("echo 'fatal: no disk'; exit 3"), 1, 9),
               Stage("later", shell("touch later"), 1, 9))
    assert run.run() == 1
    run.summary()
    assert states(run) == [stages.FAILED, stages.SKIPPED]
    assert not (tmp_path / "later").exists()
    assert "| fatal: no disk" in said(run)
    assert "FAILED breaks: sh -c " in said(run) and "ended with status 3" in said(run)
    assert "logs/try/01-breaks.log" in said(run)


def test_a_stage_that_is_not_required_lets_the_others_run_but_fails_the_command(tmp_path):
    run = make(tmp_path, Stage("breaks", shell("exit 1"), 1, 9, required=False), Stage("later", shell("true"), 1, 9))
    assert run.run() == 1
    assert states(run) == [stages.FAILED, stages.PASSED]


def test_a_command_that_does_not_exist_is_a_failure_with_its_name(tmp_path):
    run = make(tmp_path, Stage("breaks", [["no-such-command-here"]], 1, 9))
    assert run.run() == 1
    assert "cannot start no-such-command-here" in run.outcomes[0].reason


def test_a_function_may_be_the_work_and_its_error_is_the_reason(tmp_path):
    def work(run):
        run.log("looking")
        raise StageError("nothing there")

    run = make(tmp_path, Stage("look", work, 1, 9))
    assert run.run() == 1
    assert run.outcomes[0].reason == "nothing there"


def test_cleanup_runs_after_a_failure(tmp_path):
    run = make(tmp_path, Stage("up", shell("exit 1"), 1, 9), Stage("down", shell("touch cleaned"), 1, 9, undoes="up"))
    assert run.run() == 1
    assert (tmp_path / "cleaned").exists()


def test_cleanup_does_not_run_when_there_is_nothing_to_clean_up(tmp_path):
    run = make(tmp_path, Stage("before", shell("exit 1"), 1, 9), Stage("up", shell("true"), 1, 9),
               Stage("down", shell("touch cleaned"), 1, 9, undoes="up"))
    assert run.run() == 1
    assert not (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("status, cleaned", [(0, False), (1, True)])
def test_cleanup_after_failure_only(tmp_path, status, cleaned):
    run = make(tmp_path, Stage("up", shell("exit %d" % status), 1, 9),
               Stage("down", shell("touch cleaned"), 1, 9, undoes="up", after_success=False))
    run.run()
    assert (tmp_path / "cleaned").exists() is cleaned


def test_deadline_ends_the_whole_tree_and_says_so(tmp_path):
    # the grandchild has a session of its own, as Ansible's workers have
    run = make(tmp_path, Stage("hangs", shell("setsid sh -c 'echo $$ > pid; exec sleep 60' & wait"), 1, 1))
    began = time.monotonic()
    assert run.run() == 1
    assert time.monotonic() - began < 5
    assert run.outcomes[0].reason == "no end after 1 s, its deadline"
    assert stages.started_at(int((tmp_path / "pid").read_text())) is None


def test_a_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.end_processes, "__defaults__", (0.5,))
    run = make(tmp_path, Stage("stubborn", shell("trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done"), 1, 1))
    assert run.run() == 1
    assert stages.started_at(int((tmp_path / "pid").read_text())) is None


def test_a_cleanup_has_a_deadline_too(tmp_path):
    run = make(tmp_path, Stage("up", shell("true"), 1, 9), Stage("down", shell("exec sleep 60"), 1, 1, undoes="up"))
    assert run.run() == 1
    assert states(run) == [stages.PASSED, stages.FAILED]


PROGRAM = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[1])
    from stages import Run, Stage
    run = Run("try", [
        Stage("up", [["sh", "-c", "echo $$ > pid; exec sleep 60"]], 1, 90),
        Stage("never", [["touch", "never"]], 1, 9),
        Stage("down", [["sh", "-c", "sleep 0.5; touch cleaned"]], 1, 9, undoes="up"),
    ], sys.argv[2], cwd=sys.argv[2])
    status = run.run()
    run.summary()
    sys.exit(status)
""")


def wait_for(path):
    end = time.monotonic() + 10
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_ends_the_child_cleans_up_and_exits_130(tmp_path, number):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, os.path.realpath(TOOLS), str(tmp_path)],
                          stdout=subprocess.PIPE, encoding="utf-8") as program:
        wait_for(tmp_path / "pid")
        program.send_signal(number)
        time.sleep(0.2)
        program.send_signal(number)  # a second one does not cut the cleanup short
        out = program.communicate(timeout=20)[0]
    assert program.returncode == 130
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "never").exists()
    assert stages.started_at(int((tmp_path / "pid").read_text())) is None
    assert "can be run again" in out


def test_a_reader_that_goes_away_ends_the_run_with_its_cleanup(tmp_path):
    program = PROGRAM.replace("exec sleep 60", "sleep 1").replace("cwd=", "interval=0.1, cwd=")
    with subprocess.Popen([sys.executable, "-c", program, os.path.realpath(TOOLS), str(tmp_path)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=20)
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "never").exists()


# -- beside the others

def until(path):
    return "until [ -e %s ]; do sleep 0.02; done" % path


def test_a_stage_beside_the_next_ones_is_waited_for_by_its_cleanup(tmp_path):
    run = make(tmp_path, Stage("lab", shell("%s; sleep 2; touch lab" % until("next")), 100, 9, beside=True),
               Stage("next", shell("[ ! -e lab ] && touch next && sleep 1.5"), 60, 9),
               Stage("lab down", shell("[ -e lab ] && touch down"), 5, 9, undoes="lab"),
               Stage("after", shell("[ -e down ]"), 7, 9))
    assert run.estimate_together() == 112
    assert run.run() == 0
    assert states(run) == [stages.PASSED] * 4
    assert run.seconds < sum(outcome.seconds for outcome in run.outcomes)


def test_a_stage_beside_the_others_without_a_cleanup_is_waited_for_at_the_end(tmp_path):
    run = make(tmp_path, Stage("lab", shell("%s; sleep 0.3; touch lab" % until("next")), 100, 9, beside=True),
               Stage("next", shell("touch next"), 60, 9))
    run.announce()
    assert "100 s" not in said(run) and "lab      2 min  beside the next ones" in said(run)
    assert run.run() == 0
    assert (tmp_path / "lab").exists()


@pytest.mark.parametrize("how", ["status", "count"])
def test_what_fails_beside_the_others_fails_the_command(tmp_path, how):
    def count(text, passed):
        raise ValueError("no number in %r" % text)

    lab = Stage("lab", shell("exit %d" % (how == "status")), 1, 9, beside=True, required=False, count=count if how == "count" else None)
    run = make(tmp_path, lab, Stage("next", shell("touch next"), 1, 9), Stage("lab down", shell("touch down"), 1, 9, undoes="lab"))
    assert run.run() == 1
    assert states(run) == [stages.FAILED, stages.PASSED, stages.PASSED]
    assert ("ended with status 1" if how == "status" else "ValueError: no number in") in run.outcomes[0].reason


def test_interrupt_ends_what_runs_beside_the_others_too(tmp_path):
    program = PROGRAM.replace("1, 90)", "1, 90, beside=True)").replace('["touch", "never"]', '["sleep", "60"]')
    with subprocess.Popen([sys.executable, "-c", program, os.path.realpath(TOOLS), str(tmp_path)],
                          stdout=subprocess.PIPE, encoding="utf-8") as process:
        wait_for(tmp_path / "pid")
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()
    assert stages.started_at(int((tmp_path / "pid").read_text())) is None
    assert out.count("interrupted after") == 2


# -- again

def test_it_can_be_run_again_with_fresh_logs_and_remembers_the_times(tmp_path):
    table = [Stage("one", shell("echo run >> runs"), 500, 9)]
    assert make(tmp_path, *table).run() == 0
    (tmp_path / "logs/try/99-old.log").write_text("old")
    again = make(tmp_path, *table)
    assert again.run() == 0
    assert (tmp_path / "runs").read_text() == "run\nrun\n"
    assert os.listdir(str(tmp_path / "logs/try")) == ["01-one.log"]
    assert again.estimate(table[0]) < 5
    assert again.estimate(Stage("one", [], 500, 9, fresh=True)) == 500


def test_a_failure_is_not_remembered_as_a_duration(tmp_path):
    table = [Stage("one", shell("exit 1"), 500, 9)]
    make(tmp_path, *table).run()
    assert make(tmp_path, *table).estimate(table[0]) == 500


def test_a_broken_times_file_is_no_obstacle(tmp_path):
    (tmp_path / "times.json").write_text("{broken")
    assert make(tmp_path, Stage("one", shell("true"), 1, 9)).run() == 0


def test_progress_without_a_terminal_is_a_line_now_and_then(tmp_path):
    run = make(tmp_path, Stage("slow", shell("echo 'TASK [a]'; sleep 0.6"), 60, 9), interval=0.2)
    assert run.run() == 0
    assert "      slow: 0:00 of about 1:00: TASK [a]" in said(run)


def test_announcement_lists_the_stages_and_their_sum(tmp_path):
    run = make(tmp_path, Stage("one", shell("true"), 40, 9), Stage("two", shell("true"), 200, 9))
    run.announce()
    assert "one" in said(run) and "40 s" in said(run) and "3 min" in said(run) and "together     4 min" in said(run)


def test_counts_add_what_the_stages_count_and_each_other_failure(tmp_path):
    run = make(tmp_path,
               Stage("tests", shell("exit 1"), 1, 9, required=False, count=lambda text, passed: (10, 2)),
               Stage("prepared", shell("true"), 1, 9),
               Stage("lint", shell("true"), 1, 9, count=lambda text, passed: (1, 0)),
               Stage("breaks", shell("exit 1"), 1, 9))
    assert run.run() == 1
    assert run.counts() == (11, 3)


def test_telling_lines_are_the_errors_and_the_end():
    text = "\n".join(["start", "\x1b[31mfatal: [lab]: FAILED!\x1b[0m"] + ["line %d" % n for n in range(50)] + ["RECAP"])
    lines = stages.telling_lines(text)
    assert lines[0] == "fatal: [lab]: FAILED!"
    assert lines[-1] == "RECAP"
    assert len(lines) <= stages.REASON_LINES


def test_telling_lines_name_the_task_of_each_error():
    text = "\n".join(["TASK [Read the machine] ***", "ok: [lab]", "TASK [Look] ***", "ok: [lab] => (item=1)",
                      "failed: [lab] (item=2) => {}", "[ERROR]: Task failed", "NO MORE HOSTS"] + ["line %d" % n for n in range(50)])
    assert stages.telling_lines(text)[:3] == ["TASK [Look] ***", "failed: [lab] (item=2) => {}", "[ERROR]: Task failed"]


def test_last_line_has_no_colours_and_is_not_blank(tmp_path):
    (tmp_path / "log").write_text("TASK [x] ****\n\x1b[32mok: [lab]\x1b[0m\n\n  \n")
    assert stages.last_line(str(tmp_path / "log")) == "ok: [lab]"
    assert stages.last_line(str(tmp_path / "none")) == ""
