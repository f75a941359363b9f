# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run named stages, one of them beside the others: progress, deadlines, a log for each, and a clean end.

Standard library only and Python 3.9, since it works before anything is installed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

PASSED, FAILED, SKIPPED = "passed", "failed", "not run"
QUIET_INTERVAL = 30  # seconds between progress lines when nobody watches a terminal
GRACE = 10  # seconds that a process gets between SIGTERM and SIGKILL
REASON_LINES = 12
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
TELLING = re.compile(r"fatal:|^failed: \[|\bERROR\b|\bFAILED\b|CRITICAL|Traceback|^E: |[Ee]rror:|\[ERROR\]|UNREACHABLE")


class StageError(Exception):
    """A stage cannot go on; the text is the reason that the user reads."""


class Stopped(Exception):
    """The user asked for the end (Ctrl-C, SIGTERM, SIGHUP)."""


@dataclasses.dataclass
class Stage:
    """One step of a command.

    ``work`` is a list of command lines (lists of str), run in order, or a function that gets the
    running ``Run`` and may return a note. ``seconds`` is what it takes the first time; what it
    really took is remembered and shown the next time, unless ``fresh`` says that the first time
    comes again. ``undoes`` names a stage: this one then cleans up after it, whenever that stage
    was started, also after a failure or Ctrl-C, and only after these if not ``after_success``.
    ``note`` turns the log's text into the result shown; ``count`` into (passed, failed).
    A stage that is not ``required`` may fail without ending the run. One that runs ``beside`` the next ones
    is waited for by its cleanup, or else at the end.
    """

    name: str
    work: object
    seconds: int
    deadline: int
    required: bool = True
    beside: bool = False
    fresh: bool = False
    undoes: str = ""
    after_success: bool = True
    env: dict = dataclasses.field(default_factory=dict)
    note: object = None
    count: object = None


@dataclasses.dataclass
class Outcome:
    stage: Stage
    state: str = SKIPPED
    seconds: float = 0.0
    reason: str = ""
    note: str = ""
    log: str = ""
    counts: tuple = (0, 0)


def clock(seconds):
    """``75`` -> ``1:15``."""
    return "%d:%02d" % divmod(int(seconds), 60)


def about(seconds):
    """A rough duration in words: ``40`` -> ``40 s``, ``200`` -> ``3 min``."""
    if seconds < 90:
        return "%d s" % max(1, round(seconds))
    return "%d min" % round(seconds / 60)


def last_line(path, size=4096):
    """The last line with something in it, without colours; empty when there is none."""
    try:
        with open(path, "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - size))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    for line in reversed(text.splitlines()):
        line = ESCAPES.sub("", line).strip(" *")
        if line:
            return line
    return ""


def telling_lines(text, limit=REASON_LINES):
    """The lines of a log that say why: the last errors, each with the task it is of, and how it ended."""
    lines = [line for line in (ESCAPES.sub("", raw).rstrip() for raw in text.splitlines()) if line.strip()]
    ending = set(range(max(0, len(lines) - limit // 2), len(lines)))
    errors = [number for number, line in enumerate(lines) if TELLING.search(line) and number not in ending]
    errors = errors[-(limit - len(ending)):]
    tasks = {max((at for at in range(number) if lines[at].startswith("TASK [")), default=number) for number in errors}
    keep = sorted(ending | set(errors) | tasks)
    return [lines[number][:300] for number in keep]


def processes_below(pid):
    """``{pid: start time}`` of a process and all that it started.

    Ansible's workers have sessions of their own, so a signal to the process group misses them.
    The start time tells whether a number still means the same process.
    """
    parents, starts = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)], starts[int(name)] = int(fields[1]), fields[19]
    found, fresh = {}, [pid]
    while fresh:
        current = fresh.pop()
        if current in starts:
            found[current] = starts[current]
        fresh += [child for child, parent in parents.items() if parent == current and child not in found]
    return found


def started_at(pid):
    """Start time of a live process (as in ``processes_below``), None when it is gone or a zombie."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def end_processes(process, grace=GRACE):
    """End a child and everything below it: SIGTERM, some seconds, SIGKILL."""
    targets = processes_below(process.pid)

    def alive():
        process.poll()
        return [pid for pid, start in targets.items() if started_at(pid) == start]

    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
        targets.update(processes_below(process.pid))
        for pid in alive():
            try:
                os.kill(pid, number)
            except OSError:  # gone meanwhile, or root's
                pass
        end = time.monotonic() + wait
        while alive() and time.monotonic() < end:
            time.sleep(0.05)
        if not alive():
            return


class Run:
    """The stages of one command (``demo``, ``test`` ...), their logs, and what became of them."""

    def __init__(self, command, stages, build, env=None, cwd=None, out=None, interval=QUIET_INTERVAL):
        """``build`` is the folder for everything written; ``env`` the environment of the children."""
        self.command, self.stages = command, stages
        self.env, self.cwd, self.out = env, cwd, out or sys.stdout
        self.interval = interval
        self.logs = os.path.join(build, "logs", command)
        self.times_path = os.path.join(build, "times.json")
        self.times = self._read_times()
        self.outcomes = [Outcome(stage) for stage in stages]
        self.stop = None  # number of the signal that asked for the end
        self.seconds = 0.0
        self._now = threading.local()  # of the stage that this thread runs: outcome, log, began, end, said, told
        self._beside = {}  # {name of a stage that runs beside the others: its thread}
        self._moving = {}  # {name of a running stage: its part of the moving line}
        self._lock = threading.RLock()

    # what the user sees

    def say(self, text=""):
        with self._lock:
            try:
                print(text, file=self.out, flush=True)
            except (BrokenPipeError, ValueError):  # the reader has gone: end as if asked to
                self.out = open(os.devnull, "w", encoding="utf-8")
                self.stop = self.stop or signal.SIGPIPE

    def estimate(self, stage):
        remembered = self.times.get("%s/%s" % (self.command, stage.name))
        return stage.seconds if stage.fresh or remembered is None else remembered

    def estimate_together(self):
        """Seconds for all stages, a stage beside others ending where it is waited for."""
        passed, ends = 0.0, {}
        for stage in self.stages:
            if stage.beside:
                ends[stage.name] = passed + self.estimate(stage)
            else:
                passed = max(passed, ends.pop(stage.undoes, 0.0)) + self.estimate(stage)
        return max([passed] + list(ends.values()))

    def announce(self):
        """The table of the stages with their rough durations."""
        width = max(len(stage.name) for stage in self.stages)
        self.say("Stages, and roughly how long each takes:")
        for number, stage in enumerate(self.stages, 1):
            self.say(("  %2d  %-*s  %8s  %s" % (
                number, width, stage.name, about(self.estimate(stage)), "beside the next ones" if stage.beside else "")).rstrip())
        self.say("      %-*s  %8s" % (width, "together", about(self.estimate_together())))
        self.say("Logs: %s. Ctrl-C ends it and cleans up; it can be run again at any time." % self._short(self.logs))
        self.say()

    def summary(self):
        """The closing table: one line a stage."""
        width = max(len(stage.name) for stage in self.stages)
        self.say()
        for number, outcome in enumerate(self.outcomes, 1):
            time_taken = clock(outcome.seconds) if outcome.state != SKIPPED else "-"
            text = "  %2d  %-*s  %-7s %6s  %s" % (
                number, width, outcome.stage.name, outcome.state, time_taken, outcome.note)
            self.say(text.rstrip())
        self.say("      %-*s  %-7s %6s" % (width, "together", "", clock(self.seconds)))
        for outcome in self.outcomes:
            if outcome.state == FAILED:
                self.say("FAILED %s: %s (log: %s)" % (outcome.stage.name, outcome.reason, outcome.log))

    # running

    def run(self):
        """Run every stage that can run; returns 0, 1 (a stage failed) or 130 (interrupted)."""
        shutil.rmtree(self.logs, ignore_errors=True)
        os.makedirs(self.logs, exist_ok=True)
        previous = {number: signal.signal(number, self._asked_to_stop)
                    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        began = time.monotonic()
        try:
            ended = False
            for number, outcome in enumerate(self.outcomes, 1):
                self._wait_for(outcome.stage.undoes)
                ended = ended or self.stop is not None
                if not self._wanted(outcome.stage, ended):
                    continue
                if outcome.stage.beside:
                    self._beside[outcome.stage.name] = threading.Thread(target=self._stage_beside, args=(number, outcome))
                    self._beside[outcome.stage.name].start()
                    continue
                self._stage(number, outcome)
                if outcome.state == FAILED and outcome.stage.required:
                    ended = True
            for name in list(self._beside):
                self._wait_for(name)
            interrupted = self.stop is not None
        finally:
            self.seconds = time.monotonic() - began
            for number, handler in previous.items():
                signal.signal(number, handler)
        if interrupted:
            self.say("Interrupted; what was started is taken down. It can be run again.")
            return 130
        return 1 if any(outcome.state == FAILED for outcome in self.outcomes) else 0

    def _stage_beside(self, number, outcome):
        try:
            self._stage(number, outcome)
        except Exception as error:  # pylint: disable=broad-except  # nobody above a thread would see it
            outcome.state, outcome.reason = FAILED, "%s: %s" % (type(error).__name__, error)

    def _wait_for(self, name):
        """Until the stage beside the others that has this name, if there is one, has ended."""
        thread = self._beside.pop(name, None)
        while thread and thread.is_alive():
            thread.join(0.5)
            if self._watched():
                self._move()

    def counts(self):
        """(passed, failed) over all stages: their own counts, and each failed stage that counted nothing."""
        passed = sum(outcome.counts[0] for outcome in self.outcomes)
        failed = sum(outcome.counts[1] or (outcome.state == FAILED) for outcome in self.outcomes)
        return passed, failed

    def execute(self, argv, env=None, foreground=False, check=True):
        """Run one command line within the current stage; its output goes to the stage's log.

        ``foreground`` keeps it in our session and process group, for what may talk to the
        terminal (sudo) and must not be killed half-way (the package manager).
        Returns the exit status; a status other than 0 raises StageError unless ``check`` is false.
        """
        if self.stop is not None and not self._now.outcome.stage.undoes:
            raise Stopped()
        self._now.log.write("$ %s\n" % " ".join(argv))
        self._now.log.flush()
        merged = dict(os.environ if self.env is None else self.env, **(self._now.outcome.stage.env or {}), **(env or {}))
        try:
            process = subprocess.Popen(
                argv, env=merged, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=self._now.log,
                stderr=subprocess.STDOUT, start_new_session=not foreground)
        except OSError as error:
            raise StageError("cannot start %s: %s" % (argv[0], error.strerror)) from error
        while True:
            try:
                status = process.wait(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                self._watch(process, foreground)
        if self.stop is not None and not self._now.outcome.stage.undoes:
            raise Stopped()
        if status and check:
            raise StageError("%s ended with status %d" % (" ".join(argv)[:60], status))
        return status

    def pause(self):
        """Wait a moment for something else, within the stage's deadline."""
        time.sleep(0.2)
        self._progress()
        if self.stop is not None:
            raise Stopped()
        if time.monotonic() > self._now.end:
            raise StageError("no end after %s, its deadline" % about(self._now.outcome.stage.deadline))

    def log(self, text):
        """Write a line into the stage's log."""
        self._now.log.write(text + "\n")
        self._now.log.flush()

    def _watch(self, process, foreground):
        """One look at a running command: progress, the deadline, the wish to stop."""
        self._progress()
        late = time.monotonic() > self._now.end
        stopping = self.stop is not None and not self._now.outcome.stage.undoes
        if self.stop is not None and not stopping and not self._now.told:
            self._now.told = True
            self._line("      cleaning up first, at most %s" % about(self._now.end - time.monotonic()))
        if foreground and (late or stopping):
            # the terminal has sent Ctrl-C to the package manager too: let it end in order
            try:
                process.terminate()
            except OSError:
                pass
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                pass
        elif late or stopping:
            end_processes(process)
        if late and not stopping:
            raise StageError("no end after %s, its deadline" % about(self._now.outcome.stage.deadline))
        if stopping:
            raise Stopped()

    def _stage(self, number, outcome):
        stage = self._begins(number, outcome)
        path = os.path.join(self.logs, "%02d-%s.log" % (number, re.sub(r"[^a-z0-9]+", "-", stage.name.lower())))
        outcome.log = self._short(path)
        try:
            with open(path, "w", encoding="utf-8") as self._now.log:
                if callable(stage.work):
                    outcome.note = stage.work(self) or ""
                else:
                    for argv in stage.work:
                        self.execute(argv)
            outcome.state = PASSED
        except Stopped:
            outcome.reason = "interrupted"
        except (StageError, OSError) as error:
            outcome.state, outcome.reason = FAILED, str(error)
        outcome.seconds = time.monotonic() - self._now.began
        with open(path, encoding="utf-8", errors="replace") as log:
            text = log.read()
        if stage.note and outcome.state != SKIPPED:
            outcome.note = stage.note(text)
        if stage.count and outcome.state != SKIPPED:
            outcome.counts = stage.count(text, outcome.state == PASSED)
        self._finished(number, outcome, text)

    def _begins(self, number, outcome):
        self._now.outcome, self._now.told = outcome, False
        self._now.began = self._now.said = time.monotonic()
        self._now.end = self._now.began + outcome.stage.deadline
        if not self._watched():
            self.say("[%d/%d] %s (about %s)" % (
                number, len(self.stages), outcome.stage.name, about(self.estimate(outcome.stage))))
        return outcome.stage

    def _finished(self, number, outcome, text):
        stage = outcome.stage
        self._moving.pop(stage.name, None)
        head = "[%d/%d] %s: " % (number, len(self.stages), stage.name)
        if outcome.state == PASSED:
            self._remember(stage, outcome.seconds)
            self._line(head + "%s in %s%s" % (
                outcome.state, clock(outcome.seconds), "  " + outcome.note if outcome.note else ""))
        elif outcome.state == FAILED:
            self._line(head + "FAILED after %s: %s" % (clock(outcome.seconds), outcome.reason))
            for line in telling_lines(text):
                self.say("      | " + line)
            self.say("      log: " + outcome.log)
        else:
            self._line(head + "interrupted after %s" % clock(outcome.seconds))
            outcome.note = "interrupted"

    def _wanted(self, stage, ended):
        if stage.undoes:
            return any(o.stage.name == stage.undoes and o.log and (stage.after_success or o.state != PASSED)
                       for o in self.outcomes)
        return not ended

    def _progress(self):
        now, taken = time.monotonic(), time.monotonic() - self._now.began
        watched = self._watched()
        if now - self._now.said < (0.5 if watched else self.interval):
            return
        self._now.said = now
        text = "%s: %s of about %s: %s" % (
            self._now.outcome.stage.name, clock(taken), clock(self.estimate(self._now.outcome.stage)), last_line(self._now.log.name))
        if watched:
            self._moving[self._now.outcome.stage.name] = "[%d/%d] %s" % (
                self.outcomes.index(self._now.outcome) + 1, len(self.outcomes), text)
            if not self._now.outcome.stage.beside:
                self._move()
        else:
            self.say("      " + text[:160])

    def _move(self):
        """The moving line: what runs, side by side."""
        with self._lock:
            parts = list(self._moving.values())
            columns = shutil.get_terminal_size().columns - 3
            each = columns // max(1, len(parts)) - 3
            text = " | ".join(part if len(parts) == 1 else part[:each] for part in parts)
            self._put("\r\x1b[K%s %s" % ("|/-\\"[int(time.monotonic() * 2) % 4], text[:columns]))

    def _line(self, text):
        """A lasting line, in the place of the moving one."""
        with self._lock:
            if self._watched():
                self._put("\r\x1b[K")
            self.say(text)

    def _put(self, text):
        try:
            self.out.write(text)
            self.out.flush()
        except (BrokenPipeError, ValueError):
            self.say()

    def _watched(self):
        return self.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def _asked_to_stop(self, number, dummy):
        self.stop = number

    def _short(self, path):
        return os.path.relpath(path, self.cwd or os.getcwd())

    def _read_times(self):
        try:
            with open(self.times_path, encoding="utf-8") as times:
                return {name: float(seconds) for name, seconds in json.load(times).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _remember(self, stage, seconds):
        with self._lock:
            self.times = dict(self._read_times(), **{"%s/%s" % (self.command, stage.name): round(seconds, 1)})
            temporary = "%s.%d" % (self.times_path, os.getpid())
            with open(temporary, "w", encoding="utf-8") as times:
                json.dump(self.times, times, indent=1, sort_keys=True)
            os.replace(temporary, self.times_path)
