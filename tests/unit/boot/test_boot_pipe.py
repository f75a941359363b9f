# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Host, HostError, HostTimeout, Result


@pytest.fixture
def host(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789" * 100000)
    return Host(str(tmp_path))


def test_the_filter_is_fed_from_the_offset(host):
    with host.pipe(["cat"], "/f", offset=999995) as stream:
        assert stream.read() == b"56789"


def test_it_may_be_left_early(host):
    with host.pipe(["cat"], "/f") as stream:
        assert stream.read(3) == b"012"


def test_a_failure_at_the_end_is_told(host):
    with pytest.raises(HostError, match="ended with 3: oops"):
        with host.pipe(["sh", "-c", "cat; echo oops >&2; exit 3"], "/f") as stream:
            while stream.read(1 << 16):
                pass


def test_the_deadline_ends_it(host):
    started = time.monotonic()
    with pytest.raises(HostTimeout, match="0.3 s"):
        with host.pipe(["sleep", "60"], "/f", timeout=0.3) as stream:
            stream.read()
    assert time.monotonic() - started < 20


def test_the_deadline_wins_over_what_it_causes(host):
    with pytest.raises(HostTimeout):
        with host.pipe(["sleep", "60"], "/f", timeout=0.3) as stream:
            if not stream.read():
                raise ValueError("cut")


def test_an_error_of_the_reader_passes(host):
    with pytest.raises(ValueError, match="mine"):
        with host.pipe(["cat"], "/f"):
            raise ValueError("mine")


def test_what_cannot_be_started_or_read_is_named(host):
    for argv, path in ((["no-such-filter"], "/f"), (["cat"], "/none")):
        with pytest.raises(HostError, match="No such file"):
            with host.pipe(argv, path):
                pass


def test_a_part_of_a_file_is_fed(host):
    with host.pipe(["cat"], "/f", offset=5, length=7) as stream:
        assert stream.read() == b"5678901"
    with host.pipe(["cat"], "/f", offset=999990, length=1 << 20) as stream:
        assert stream.read() == b"0123456789"


def test_a_part_may_be_left_early(host):
    with host.pipe(["cat"], "/f", length=900000) as stream:
        assert stream.read(3) == b"012"
    with host.pipe(["true"], "/f", length=900000) as stream:
        assert stream.read() == b""


def test_variables_reach_a_command_beside_those_that_are_there(tmp_path):
    told = []

    def commands(argv, stdin, env=None):
        told.append(env)
        return Result(argv, 0)

    fake = Host(str(tmp_path), commands=commands)
    fake.run(["x"])
    fake.run(["x"], env={"A": "1"})
    assert told == [None, {"A": "1"}]
    said = Host().run(["sh", "-c", 'echo "$A $LC_ALL"'], env={"A": "b c"}).stdout
    assert said == "b c C\n"


def test_a_finished_file_takes_the_place_of_another_with_a_mode(host):
    host.write("/new", "new", mode=0o600)
    host.replace("/new", "/f", mode=0o640)
    assert (host.read("/f"), host.exists("/new"), host.stat("/f").st_mode & 0o7777) == ("new", False, 0o640)
    host.write("/new", "newer", mode=0o600)
    host.replace("/new", "/f")
    assert host.stat("/f").st_mode & 0o7777 == 0o600


def test_a_copy_is_whole_or_not_there(host):
    host.copy("/f", "/folder/copy", mode=0o644)
    assert host.read_bytes("/folder/copy") == host.read_bytes("/f")
    assert host.stat("/folder/copy").st_mode & 0o7777 == 0o644
    with pytest.raises(OSError):
        host.copy("/none", "/folder/other")
    assert host.listdir("/folder") == ["copy"]
