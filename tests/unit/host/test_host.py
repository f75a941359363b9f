# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to the machine: paths, files, sysfs writes and commands, without root."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
import time

import pytest

from ansible_collections.vfio.host.plugins.module_utils import _host
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result


@pytest.fixture(autouse=True)
def no_hang():
    """A test of a deadline must fail, not hang, when the deadline is gone."""

    def give_up(number, frame):
        raise RuntimeError("the door blocked")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def tree(tmp_path):
    """A recorded tree with a file beside it that no path may reach."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("outside")
    return root


@pytest.fixture
def host(tree):
    return Host(str(tree))


@pytest.fixture
def live():
    return Host()


def script(path, *lines):
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def gone(pid):
    """True once a process has ended; one that nobody has reaped yet has ended too."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            with open("/proc/%d/stat" % pid) as handle:
                if handle.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# -- paths -----------------------------------------------------------------------------------


def test_real_follows_a_relative_link_from_its_own_folder(host, tree):
    (tree / "sys/bus").mkdir(parents=True)
    (tree / "sys/devices/a").mkdir(parents=True)
    (tree / "sys/bus/dev").symlink_to("../devices/a")
    assert host.real("/sys/bus/dev/vendor") == "/sys/devices/a/vendor"
    assert host.real("/sys/bus/dev/..") == "/sys/devices"
    assert host.path("/sys/bus/dev") == str(tree / "sys/devices/a")


def test_real_resolves_an_absolute_link_below_the_root(host, tree):
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("/usr/bin")
    (tree / "usr/bin/tool").symlink_to("/bin/real-tool")
    assert host.real("/bin/tool") == "/usr/bin/real-tool"


def test_real_keeps_what_does_not_exist_and_drops_dots(host):
    assert host.real("//no/./such/") == "/no/such"
    assert host.real("/no/../such") == "/such"
    assert host.real("/") == "/"


def test_a_loop_of_links_is_nothing_that_can_be_read(host, tree):
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("/a")
    assert host.real("/a/x") == "/a/x"
    assert not host.exists("/a/x") and not host.isdir("/a") and host.listdir("/a") == []
    assert host.read("/a") is None and host.stat("/a") is None and host.readlink("/a/x") is None
    assert host.read_folder("/a", ["x"]) == {"x": None}
    with pytest.raises(HostError, match="/a/x: too many symbolic links"):
        host.path("/a/x")


def test_a_loop_of_links_never_leaves_a_recorded_tree(host, tree):
    (tree / "etc").symlink_to("/etc")  # in the tree: a link to itself
    assert host.read("/etc/passwd") is None and host.listdir("/etc") == []


def test_real_allows_a_chain_of_forty_links(host, tree):
    for number in range(40):
        (tree / str(number)).symlink_to(str(number + 1))
    assert host.real("/0") == "/40"
    (tree / "40").symlink_to("41")
    assert host.real("/0") == "/0"


@pytest.mark.parametrize("text", ["../secret", "../../../../../secret", "/../secret"])
def test_a_link_never_leaves_a_recorded_tree(host, tree, tmp_path, text):
    (tree / "link").symlink_to(text)
    (tree / "absolute").symlink_to(str(tmp_path / "secret"))
    assert host.real("/link") == "/secret"
    for path in ("/link", "/absolute", "/../secret", "../secret", "/link/../../secret"):
        assert host.path(path).startswith(str(tree) + "/")
        assert host.read(path) is None
        assert host.stat(path) is None
        assert not host.exists(path)
    host.write("/link", "inside")
    assert (tree / "secret").read_text() == "inside"
    assert (tmp_path / "secret").read_text() == "outside"


def test_remove_and_readlink_through_a_linked_folder_stay_inside(host, tree, tmp_path):
    (tree / "up").symlink_to("..")
    (tmp_path / "alias").symlink_to("secret")
    assert host.readlink("/up/alias") is None
    assert not host.remove("/up/secret")
    assert not host.remove("/../secret")
    assert (tmp_path / "secret").exists()


def test_exists_and_isdir(host, tree):
    (tree / "folder").mkdir()
    (tree / "file").write_text("")
    (tree / "link").symlink_to("folder")
    (tree / "dangling").symlink_to("nothing")
    assert host.exists("/folder") and host.exists("/file") and host.exists("/link")
    assert not host.exists("/dangling")
    assert host.isdir("/folder") and host.isdir("/link") and not host.isdir("/file")


def test_listdir_is_sorted_and_empty_for_what_is_no_folder(host, tree):
    for name in ("b", "c", "a"):
        (tree / name).write_text("")
    assert host.listdir("/") == ["a", "b", "c"]
    assert host.listdir("/missing") == []
    assert host.listdir("/a") == []


def test_readlink_gives_the_text_of_the_last_link_only(host, tree):
    (tree / "real").mkdir()
    (tree / "folder").symlink_to("/real")
    (tree / "real/driver").symlink_to("../no/such/vfio-pci")
    assert host.readlink("/folder/driver") == "../no/such/vfio-pci"
    assert host.readlink("/folder/") == "/real"
    assert host.readlink("/real") is None
    assert host.readlink("/missing") is None


def test_stat_follows_links(host, tree):
    (tree / "file").write_text("12345")
    (tree / "link").symlink_to("/file")
    assert host.stat("/link").st_size == 5
    assert stat.S_ISREG(host.stat("/link").st_mode)
    assert host.stat("/missing") is None


# -- reading ---------------------------------------------------------------------------------


def test_read_of_what_cannot_be_read_is_none(host, tree):
    (tree / "folder").mkdir()
    for path in ("/missing", "/folder", "/missing/below"):
        assert host.read_bytes(path) is None
        assert host.read(path) is None
        assert host.read_attribute(path) is None


def test_read_of_a_forbidden_file_is_none(host, tree):
    (tree / "file").write_text("x")
    (tree / "file").chmod(0)
    try:
        (tree / "file").read_bytes()
    except PermissionError:
        assert host.read_bytes("/file") is None
    else:
        pytest.skip("root reads everything")


def test_read_of_a_fifo_neither_blocks_nor_reads(host, tree):
    os.mkfifo(str(tree / "fifo"))
    assert host.read_bytes("/fifo") is None
    keeper = os.open(str(tree / "fifo"), os.O_RDWR)
    try:
        os.write(keeper, b"x")
        assert host.read_bytes("/fifo") is None
    finally:
        os.close(keeper)


def test_read_ends_at_the_limit(host, tree):
    (tree / "big").write_bytes(b"x" * 200000)
    assert len(host.read_bytes("/big")) == 200000
    assert len(host.read_bytes("/big", limit=150001)) == 150001
    assert host.read("/big", limit=3) == "xxx"
    assert len(host.read_attribute("/big")) == 65536


def test_read_stops_at_the_default_limit(host, tree):
    with open(str(tree / "sparse"), "wb") as handle:
        handle.truncate(_host.READ_LIMIT + 1)
    assert len(host.read_bytes("/sparse")) == _host.READ_LIMIT


def test_read_escapes_bytes_that_are_no_text_and_strips_nothing(host, tree):
    (tree / "odd").write_bytes("µ".encode() + b" \xff\xfe\n")
    assert host.read("/odd") == "µ \\xff\\xfe\n"
    assert host.read_attribute("/odd") == "µ \\xff\\xfe"
    assert host.read_bytes("/odd").endswith(b"\xff\xfe\n")


# -- writing ---------------------------------------------------------------------------------


def test_write_makes_folders_and_sets_the_mode_whatever_the_umask(host, tree):
    before = os.umask(0o077)
    try:
        host.write("/plain", "µ\n")
    finally:
        os.umask(before)
    host.write("/etc/a/b/script", b"\x00\xff", mode=0o750)
    assert (tree / "plain").read_bytes() == "µ\n".encode()
    assert stat.S_IMODE((tree / "plain").stat().st_mode) == 0o644
    assert (tree / "etc/a/b/script").read_bytes() == b"\x00\xff"
    assert stat.S_IMODE((tree / "etc/a/b/script").stat().st_mode) == 0o750
    assert os.listdir(str(tree / "etc/a/b")) == ["script"]


def test_write_replaces_the_file_and_never_writes_into_it(host, tree):
    (tree / "file").write_text("old and longer")
    with open(str(tree / "file")) as reader:
        host.write("/file", "new")
        assert reader.read() == "old and longer"
    assert (tree / "file").read_text() == "new"


def test_write_syncs_before_it_renames(host, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda old, new: (steps.append("rename"), rename(old, new)))
    host.write("/file", "x")
    assert steps == ["fsync", "rename", "fsync"]


def test_write_through_a_link_keeps_the_link(host, tree):
    (tree / "target").write_text("old")
    (tree / "link").symlink_to("/target")
    host.write("/link", "new")
    assert os.readlink(str(tree / "link")) == "/target"
    assert (tree / "target").read_text() == "new"


def test_write_that_fails_leaves_the_old_file_and_no_temporary(host, tree, monkeypatch):
    (tree / "file").write_text("old")

    def refuse(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        host.write("/file", "new")
    assert os.listdir(str(tree)) == ["file"]
    assert (tree / "file").read_text() == "old"


def test_write_interrupted_at_the_rename_leaves_no_temporary(host, tree, monkeypatch):
    def interrupt(old, new):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.write("/file", "new")
    assert os.listdir(str(tree)) == []


def test_write_lives_with_a_filesystem_that_cannot_sync_a_folder(host, tree, monkeypatch):
    fsync = os.fsync

    def files_only(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", files_only)
    host.write("/file", "x")
    assert (tree / "file").read_text() == "x"


def test_remove_takes_the_link_and_not_its_target(host, tree):
    (tree / "target").write_text("x")
    (tree / "link").symlink_to("target")
    (tree / "dangling").symlink_to("nothing")
    assert host.remove("/link") is True
    assert host.remove("/dangling") is True
    assert host.remove("/link") is False
    assert os.listdir(str(tree)) == ["target"]
    assert host.remove("/target") is True
    assert os.listdir(str(tree)) == []


def test_remove_empty_folder_takes_only_an_empty_one(host, tree):
    (tree / "ours").mkdir()
    (tree / "ours/file").write_text("")
    assert host.remove_empty_folder("/ours") is False
    (tree / "ours/file").unlink()
    assert host.remove_empty_folder("/ours") is True
    assert host.remove_empty_folder("/ours") is False
    assert not (tree / "ours").exists()


# -- sysfs -----------------------------------------------------------------------------------


def test_write_sysfs_writes_the_value(host, tree):
    (tree / "driver_override").write_text("")
    host.write_sysfs("/driver_override", "vfio-pci\n")
    assert (tree / "driver_override").read_text() == "vfio-pci\n"


def test_write_sysfs_names_value_place_and_error(host, tree):
    (tree / "sys").mkdir()
    with pytest.raises(HostError) as caught:
        host.write_sysfs("/sys/none", "0000:01:00.0")
    assert str(caught.value) == "writing '0000:01:00.0' to /sys/none: No such file or directory"
    assert not isinstance(caught.value, HostTimeout)
    assert not host.exists("/sys/none"), "an attribute is never created"


def test_write_sysfs_reports_an_error_of_the_write_itself(live):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises(HostError, match="No space left on device"):
        live.write_sysfs("/dev/full", "1")


def test_read_sysfs(host, tree):
    (tree / "driver_override").write_text("(null)\n")
    assert host.read_sysfs("/driver_override") == "(null)"
    assert host.read_sysfs("/none") is None
    host.write_sysfs("/driver_override", "vfio-pci\n")
    assert host.read_sysfs("/driver_override") == "vfio-pci"


def test_read_sysfs_gives_up_at_its_deadline(host, tree):
    os.mkfifo(str(tree / "override"))
    start = time.monotonic()
    with pytest.raises(HostTimeout, match="reading /override did not end within 0.2 s"):
        host.read_sysfs("/override", timeout=0.2)
    assert 0.2 <= time.monotonic() - start < 1.2
    (tree / "other").write_text("x")
    assert host.read_sysfs("/other") == "x"


def test_one_child_does_many_writes_and_ends_with_its_host(tree, monkeypatch):
    children, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    host = Host(str(tree))
    for number in range(20):
        (tree / str(number)).write_text("")
        host.write_sysfs("/%d" % number, "x")
    assert len(children) == 1
    del host
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


def test_write_sysfs_gives_up_at_its_deadline(host, tree, monkeypatch):
    os.mkfifo(str(tree / "unbind"))  # opening it blocks until somebody reads
    children = []
    fork = os.fork

    def note():
        pid = fork()
        if pid:
            children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", note)
    start = time.monotonic()
    try:
        with pytest.raises(HostTimeout, match="writing 'x' to /unbind did not end within 0.2 s"):
            host.write_sysfs("/unbind", "x", timeout=0.2)
        assert 0.2 <= time.monotonic() - start < 1.2
    finally:
        for pid in children:
            kill(pid)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
    assert len(children) == 1


def test_vfio_open_opens_and_closes_a_node_or_says_why_not(host, tree):
    (tree / "vfio0").write_text("as it is")
    host.vfio_open("/vfio0")
    assert (tree / "vfio0").read_text() == "as it is"
    with pytest.raises(HostError, match="/vfio1: No such file or directory"):
        host.vfio_open("/vfio1")
    assert not host.exists("/vfio1")


def test_vfio_open_gives_up_at_its_deadline(host, tree, monkeypatch):
    (tree / "vfio0").write_text("")
    really = os.open
    monkeypatch.setattr(os, "open", lambda path, *more: time.sleep(60) if b"vfio0" in os.fsencode(path) else really(path, *more))
    with pytest.raises(HostTimeout, match="opening /vfio0 did not end within 0.2 s"):
        host.vfio_open("/vfio0", timeout=0.2)


def test_vfio_viable_says_what_the_node_is_not(host, tree):
    (tree / "7").write_text("as it is")
    with pytest.raises(HostError, match="/7: Inappropriate ioctl for device"):
        host.vfio_viable("/7")
    with pytest.raises(HostError, match="/8: No such file or directory"):
        host.vfio_viable("/8")
    assert (tree / "7").read_text() == "as it is" and not host.exists("/8")


@pytest.mark.parametrize("flags, viable", [(0, False), (1, True), (2, False), (3, True)])
def test_vfio_viable_reads_the_first_flag(host, tree, monkeypatch, flags, viable):
    (tree / "7").write_text("")

    def ioctl(fd, request, buffer):
        assert (request, struct.unpack("II", buffer)) == (0x3B67, (8, 0))
        buffer[:] = struct.pack("II", 8, flags)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert host.vfio_viable("/7") is viable


def test_vfio_viable_knows_no_more_of_a_group_that_somebody_has(host, tree, monkeypatch):
    (tree / "7").write_text("")
    really = os.open

    def busy(path, *more):
        if os.fsencode(path).endswith(b"/7"):
            raise OSError(errno.EBUSY, "busy")
        return really(path, *more)

    monkeypatch.setattr(os, "open", busy)
    assert host.vfio_viable("/7") is None


def test_vfio_viable_gives_up_at_its_deadline(host, tree, monkeypatch):
    (tree / "7").write_text("")
    monkeypatch.setattr(fcntl, "ioctl", lambda *more: time.sleep(60))
    with pytest.raises(HostTimeout, match="asking /7 did not end within 0.2 s"):
        host.vfio_viable("/7", timeout=0.2)


# -- commands --------------------------------------------------------------------------------


def test_run_returns_what_the_command_left(live):
    result = live.run(["sh", "-c", "echo out; printf '\\377' >&2"])
    assert (result.argv[0], result.rc, result.stdout, result.stderr) == ("sh", 0, "out\n", "\\xff")


def test_run_uses_no_shell(live):
    assert live.run(["echo", "$HOME; `id` *"]).stdout == "$HOME; `id` *\n"


def test_run_checks_the_exit_code(live):
    argv = ["sh", "-c", "echo out; echo no such disk >&2; exit 3"]
    with pytest.raises(HostError, match="ended with 3: no such disk$"):
        live.run(argv)
    result = live.run(argv, check=False)
    assert (result.rc, result.stdout) == (3, "out\n")
    with pytest.raises(HostError, match="ended with 1: only out$"):
        live.run(["sh", "-c", "echo only out; exit 1"])


def test_run_of_a_missing_command_names_it(live):
    with pytest.raises(HostError, match="^vfio-host-no-such-command: No such file or directory$"):
        live.run(["vfio-host-no-such-command"])


def test_run_hands_over_stdin(live):
    assert live.run(["cat"], stdin="µ\n").stdout == "µ\n"
    assert live.run(["cat"], stdin=b"bytes").stdout == "bytes"


def test_run_never_lets_a_command_wait_for_our_own_stdin(live):
    reader, writer = os.pipe()
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert live.run(["cat"], timeout=2).stdout == ""
    finally:
        os.dup2(saved, 0)
        for fd in (saved, reader, writer):
            os.close(fd)


def test_run_ends_the_whole_process_group_at_the_deadline(live, tmp_path):
    argv = ["sh", "-c", "sleep 30 & echo $$ $! > \"$1\"; wait", "sh", str(tmp_path / "pids")]
    start = time.monotonic()
    with pytest.raises(HostTimeout, match="sh -c .* did not end within 0.7 s"):
        live.run(argv, timeout=0.7)
    took = time.monotonic() - start
    parent, child = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    try:
        assert gone(child), "the child of the command is still there"
        assert gone(parent)
        assert 0.7 <= took < 3
    finally:
        kill(child)
        kill(parent)


def test_run_with_a_log_ends_at_the_deadline_too(live, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(HostTimeout):
        live.run(["sh", "-c", "echo begun; exec sleep 30"], timeout=0.3, log=str(log))
    assert log.read_text() == "begun\n"


def test_run_appends_both_streams_to_the_log_and_keeps_its_end(live, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n" + "x" * 5000 + "\n")
    result = live.run(["sh", "-c", "echo out; echo err >&2; cat"], log=str(log), stdin="in\n")
    assert log.read_text() == "before\n" + "x" * 5000 + "\nout\nerr\nin\n"
    assert result.stdout == ""
    assert result.stderr == log.read_text()[-4000:]
    with pytest.raises(HostError, match="ended with 2: .*last words$"):
        live.run(["sh", "-c", "echo; echo last words >&2; exit 2"], log=str(tmp_path / "other"))


def test_run_speaks_the_c_locale_and_keeps_the_rest(live, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("VFIO_HOST_TEST", "kept")
    assert live.run(["printenv", "LC_ALL", "LANGUAGE", "VFIO_HOST_TEST"]).stdout == "C\nC\nkept\n"


def test_run_adds_the_system_folders_behind_the_path_of_the_caller(live, tmp_path, monkeypatch):
    script(tmp_path / "say-path", 'echo "$PATH"')
    monkeypatch.setenv("PATH", str(tmp_path))
    folders = live.run(["say-path"]).stdout.strip().split(":")
    assert folders[0] == str(tmp_path)
    assert {"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} <= set(folders)
    monkeypatch.delenv("PATH")
    assert live.run(["printenv", "PATH"]).stdout == _host.COMMAND_PATH + "\n"


def test_run_finds_a_command_that_only_the_system_folders_have(live, tmp_path, monkeypatch):
    (tmp_path / "sbin").mkdir()
    (tmp_path / "empty").mkdir()
    script(tmp_path / "sbin/mke2fs-like", "echo found")
    monkeypatch.setattr(_host, "COMMAND_PATH", str(tmp_path / "sbin"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert live.run(["mke2fs-like"]).stdout == "found\n"
    assert live.which("mke2fs-like") == str(tmp_path / "sbin/mke2fs-like")
    assert live.which("vfio-host-no-such-command") is None


def test_a_recorded_tree_runs_no_commands(host, tmp_path):
    with pytest.raises(HostError, match="^touch: a recorded tree runs no commands$"):
        host.run(["touch", str(tmp_path / "trace")], check=False)
    assert not (tmp_path / "trace").exists()


def test_which_looks_only_inside_a_recorded_tree(host, tree):
    assert host.which("sh") is None
    (tree / "usr/sbin").mkdir(parents=True)
    (tree / "usr/sbin/update-grub").write_text("")
    assert host.which("update-grub") == "/usr/sbin/update-grub"


@pytest.mark.parametrize("recorded", [True, False])
def test_commands_stand_in_for_execution(tree, tmp_path, recorded):
    calls = []

    def commands(argv, stdin):
        calls.append((argv, stdin))
        return Result(argv, 4, "", "made up")

    host = Host(str(tree) if recorded else "/", commands=commands)
    argv = ("touch", str(tmp_path / "trace"))
    assert host.run(argv, stdin="in", check=False).rc == 4
    with pytest.raises(HostError, match="ended with 4: made up"):
        host.run(argv)
    assert calls == [(list(argv), "in"), (list(argv), None)]
    assert not (tmp_path / "trace").exists()


# -- filters ---------------------------------------------------------------------------------


def test_pipe_feeds_a_file_of_a_recorded_tree_from_an_offset(host, tree):
    (tree / "image").write_bytes(b"skipped" + b"abc" * 100000)
    with host.pipe(["tr", "a-c", "A-C"], "/image", offset=7) as stream:
        assert stream.read() == b"ABC" * 100000


def test_pipe_may_be_left_early_and_leaves_no_process(host, tree):
    (tree / "image").write_bytes(b"")
    start = time.monotonic()
    with host.pipe(["sh", "-c", "echo $$; echo more; exec sleep 30"], "/image", timeout=4) as stream:
        pid = int(stream.readline())
    assert time.monotonic() - start < 2
    assert not os.path.exists("/proc/%d" % pid)


def test_pipe_passes_on_an_error_of_its_user_and_leaves_no_process(host, tree):
    (tree / "image").write_bytes(b"")
    with pytest.raises(KeyError):
        with host.pipe(["sh", "-c", "echo $$; exec sleep 30"], "/image") as stream:
            pid = int(stream.readline())
            raise KeyError("bad archive")
    assert not os.path.exists("/proc/%d" % pid)


def test_pipe_reports_a_filter_that_fails(host, tree):
    (tree / "image").write_bytes(b"x")
    with pytest.raises(HostError, match="^sh < /image ended with 3: not in gzip format$"):
        with host.pipe(["sh", "-c", "cat; echo not in gzip format >&2; exit 3"], "/image") as stream:
            assert stream.read() == b"x"


@pytest.mark.parametrize("argv, path", [(["cat"], "/missing"), (["vfio-host-no-such-command"], "/image")])
def test_pipe_that_cannot_start(host, tree, argv, path):
    (tree / "image").write_bytes(b"x")
    with pytest.raises(HostError, match="^%s < %s: No such file or directory$" % (argv[0], path)):
        with host.pipe(argv, path):
            pass


def test_pipe_gives_up_at_its_deadline(host, tree):
    (tree / "image").write_bytes(b"")
    start = time.monotonic()
    with pytest.raises(HostTimeout, match="sh < /image did not end within 0.3 s"):
        with host.pipe(["sh", "-c", "echo $$; exec sleep 30"], "/image", timeout=0.3) as stream:
            pid = int(stream.readline())
            assert stream.read() == b""
    assert 0.3 <= time.monotonic() - start < 2
    assert not os.path.exists("/proc/%d" % pid)


def test_pipe_names_the_deadline_when_its_user_trips_over_the_cut(host, tree):
    (tree / "image").write_bytes(b"")
    with pytest.raises(HostTimeout):
        with host.pipe(["sleep", "30"], "/image", timeout=0.2) as stream:
            if not stream.read():
                raise ValueError("archive is cut off")


def test_pipe_speaks_the_c_locale(host, tree, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    (tree / "image").write_bytes(b"")
    with host.pipe(["printenv", "LC_ALL", "LANGUAGE"], "/image") as stream:
        assert stream.read() == b"C\nC\n"


# -- surroundings ----------------------------------------------------------------------------


def test_a_recorded_tree_knows_nothing_of_this_process(host, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not host.live
    assert host.privileged() is True
    assert host.environment("SSH_CONNECTION") is None
    assert host.pid() is None


def test_a_live_host_knows_its_process(live, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
    monkeypatch.delenv("VFIO_HOST_TEST", raising=False)
    assert live.live
    assert live.environment("SSH_CONNECTION") == "192.0.2.1 1 192.0.2.2 22"
    assert live.environment("VFIO_HOST_TEST") is None
    assert live.pid() == os.getpid()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert live.privileged() is False
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert live.privileged() is True


def test_a_value_that_is_not_ascii_is_never_reported_as_written(tmp_path):
    (tmp_path / "attribute").write_text("before")
    with pytest.raises(UnicodeEncodeError):
        Host(str(tmp_path)).write_sysfs("/attribute", "vfio\u2013pci")
    assert (tmp_path / "attribute").read_text() == "before"


def test_a_write_that_is_given_up_leaves_no_child_that_can_be_ended(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    with pytest.raises(HostTimeout):
        Host(str(tmp_path)).write_sysfs("/fifo", "1", timeout=0.1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
