# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every boot loader backend has to do, shown on a recorded host.

``make()`` gives a fresh recorded host that was started by the loader, with at least one kernel, and on
which the loader's commands have stand-ins. Each function is one promise and fails by assertion:

    @pytest.mark.parametrize("promise", loader_contract.PROMISES)
    def test_contract(tmp_path_factory, promise):
        promise(lambda: MyHost(str(tmp_path_factory.mktemp("host"))), "grubby")

``broken(host)`` makes the loader's generator fail; leave it out where there is none. ``hindered(host)`` makes
something that a run can only fail for, and not mend; leave it out where nothing is known. ``arrives(host)`` is
what a package with a new kernel does; leave it out where no loader's tool takes the running line for it.
``stranger(host)`` puts an entry of another installation beside the host's own and returns its path; leave it out where
there is no such folder. ``by_hand(host, entry, text)`` puts a text on the line of that ordinary entry alone; leave it
out where entries have no line of their own.
``ignore``: paths that are not looked at when trees are compared (what the stand-in itself leaves, say a log).
"""

from __future__ import annotations

import os
import re

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, loader, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.killable import Killed, half_written

STAY = ("/etc", "/run", "/run/vfio-host", "/var", "/var/lib",
        "/efi/loader/entries", "/etc/cmdline.d", "/etc/default/grub.d", "/etc/grub.d", "/etc/kernel", "/etc/kernel/install.d")  # fmt: skip
"""Folders of every machine, which a recorded one may lack, and of the loader's own tools: those stay, empty."""
WANTED = ("vfio_contract=1", "iommu.contract=a,b")
OTHER = ("iommu.contract=a,b", "vfio_later=2")


def tree(host, ignore=()):
    """``{path: (content, link or None of a folder, mode)}`` of everything on the host."""
    found = {}
    for folder, names, files in os.walk(host.root):
        for name in files + names:
            outside = os.path.join(folder, name)
            path = outside[len(host.root):]
            if path in ignore:
                continue
            if os.path.islink(outside):
                found[path] = (os.readlink(outside), None)
            elif name in names and path not in STAY:
                found[path] = (None, os.stat(outside).st_mode & 0o7777)
            elif name in files:
                with open(outside, "rb") as handle:
                    found[path] = (handle.read(), os.stat(outside).st_mode & 0o7777)
    return found


def go(host, parameters=WANTED, state="present", check=False, **more):
    asked = {"parameters": list(parameters), "state": state, "loader": "auto"}
    return cmdline.run(host, dict(asked, **more), check)


def managed(host, name):
    return [entry for entry in cmdline.backend(name).view(host)["entries"] if entry["managed"]]


def in_force(host, name, wanted):
    """The tokens are on each ordinary entry, for the next kernel too, and nothing else has moved."""
    seen = cmdline.backend(name).view(host)
    assert seen["problems"] == []
    assert managed(host, name)
    for entry in managed(host, name):
        assert tokens.lacking(entry["tokens"], wanted) == [], entry["title"]
    settings = cmdline.backend(name).configured(host)[0]
    assert settings is None or tokens.lacking(settings, wanted) == []
    for entry in seen["entries"]:
        if (entry["id"] or "").startswith(loader.FALLBACK_ID):
            assert not entry["managed"] and not entry["default"] and entry["recovery"]
            assert loader.OFF in entry["tokens"]
            assert not set(entry["tokens"]) & set(wanted)


def same_tree(host, before, ignore):
    after = tree(host, ignore)
    assert sorted(after) == sorted(before), sorted(set(after) ^ set(before))
    assert [path for path in before if before[path] != after[path]] == []


# -- the promises --------------------------------------------------------------------------


def is_detected(make, name, **more):
    """By what booted, and no other backend claims the host."""
    assert cmdline.detect(make())[0].NAME == name


def applies_once(make, name, ignore=(), **more):
    """Check mode writes no byte and says what happens; then it happens; the second time there is nothing to do."""
    host = make()
    before = tree(host, ignore)
    old = {entry["id"]: entry["tokens"] for entry in managed(host, name)}
    predicted = go(host, check=True)
    same_tree(host, before, ignore)
    done = go(host)
    assert predicted["changed"] is done["changed"] is True
    assert predicted["diff"] == done["diff"]
    in_force(host, name, WANTED)
    for entry in managed(host, name):
        if entry["id"] in old:
            assert tokens.in_order(entry["tokens"], old[entry["id"]])
    assert done["owned"] == list(WANTED)
    after = tree(host, ignore)
    again = go(host)
    assert (again["changed"], again["diff"], again["regenerated_because"]) == (False, [], [])
    same_tree(host, after, ignore)
    assert cmdline.backend(name).edits(host, list(WANTED), list(WANTED)) == []


def comes_back(make, name, ignore=(), **more):
    """``state: absent`` gives the tree back byte for byte; so does an empty list without a fallback entry."""
    for parameters, state in (((), "absent"), ((), "present")):
        host = make()
        before = tree(host, ignore)
        go(host)
        predicted = go(host, parameters, state, check=True, fallback_entry=False)
        done = go(host, parameters, state, fallback_entry=False)
        assert predicted["changed"] is done["changed"] is True
        assert predicted["diff"] == done["diff"]
        same_tree(host, before, ignore)
        assert go(host, parameters, state, fallback_entry=False)["changed"] is False


def changes_its_mind(make, name, ignore=(), **more):
    """Another list takes out exactly what is no longer in it, and the way back still is exact."""
    host = make()
    before = tree(host, ignore)
    go(host)
    go(host, OTHER)
    in_force(host, name, OTHER)
    for entry in managed(host, name):
        assert WANTED[0] not in entry["tokens"]
    assert go(host, OTHER)["changed"] is False
    go(host, state="absent")
    same_tree(host, before, ignore)


def an_empty_list_matches_nothing(make, name, ignore=(), **more):
    """With nothing of ours on the host an empty list changes nothing."""
    host = make()
    before = tree(host, ignore)
    for state in ("present", "absent"):
        assert go(host, (), state, fallback_entry=False)["changed"] is False
        same_tree(host, before, ignore)


def what_the_run_refuses_check_mode_refuses_too(make, name, ignore=(), hindered=None, **more):
    """In the same words: site goes by what check mode says, and would reboot the host for nothing."""
    if hindered is None:
        pytest.skip("nothing is known that cannot be mended")
    host = make()
    hindered(host)
    before = tree(host, ignore)
    said = []
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            go(host, check=check)
        said.append(str(caught.value))
        same_tree(host, before, ignore)
    assert said[0] == said[1]


def says_what_is_there_without_a_fallback_entry(make, name, ignore=(), **more):
    """Whoever cannot start the host looks for that entry: it is there, or there is a sentence that says what is."""
    host = make()
    go(host)
    backend = cmdline.backend(name)
    why = getattr(backend, "fallback_unavailable", lambda this: None)(host)
    found = [entry for entry in backend.view(host)["entries"] if (entry["id"] or "").startswith(loader.FALLBACK_ID)]
    assert bool(found) is (why is None)


def a_failing_generator_puts_everything_back(make, name, ignore=(), broken=None, **more):
    if broken is None:
        pytest.skip("nothing is generated")
    for parameters, state in ((WANTED, "present"), (OTHER, "present"), ((), "absent")):
        host = make()
        if parameters != WANTED:
            go(host)
        broken(host)
        before = tree(host, ignore)
        with pytest.raises(HostError):
            go(host, parameters, state)
        same_tree(host, before, ignore)


def what_fails_after_generating_is_taken_back_too(make, name, ignore=(), **more):
    """The entries are what they were, also where they lie on partitions that nobody has mounted."""
    for parameters, state in ((WANTED, "present"), (OTHER, "present"), ((), "absent")):
        host = make()
        if parameters != WANTED:
            go(host)
        before = tree(host, ignore)
        lines = [sorted(entry["tokens"]) for entry in managed(host, name)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cmdline.record, "settled", _no_room)
            with pytest.raises(HostError, match="no room"):
                go(host, parameters, state)
        same_tree(host, before, ignore)
        assert [sorted(entry["tokens"]) for entry in managed(host, name)] == lines


def _no_room(host, originals):
    raise HostError("no room")


def a_killed_run_is_finished_by_the_next(make, name, ignore=(), **more):
    """Killed after each single write, removal and command, on the way there."""
    def finished(host):
        go(host)
        in_force(host, name, WANTED)
        assert record.read(host)["pending"] is False
        assert go(host)["changed"] is False

    _each_death(make, ignore, lambda host: None, go, finished)


def a_killed_run_can_be_taken_back(make, name, ignore=(), **more):
    _each_death(make, ignore, lambda host: None, go, lambda host: go(host, state="absent"))


def a_killed_change_of_mind_is_finished_by_the_next(make, name, ignore=(), **more):
    """Killed while one list takes the place of another: nothing of the first may stay behind."""
    def finished(host):
        go(host, OTHER)
        in_force(host, name, OTHER)
        for entry in managed(host, name):
            assert WANTED[0] not in entry["tokens"]
        settings = cmdline.backend(name).configured(host)[0]
        assert settings is None or WANTED[0] not in settings

    _each_death(make, ignore, go, lambda host: go(host, OTHER), finished)


def a_killed_way_back_is_finished_by_the_next(make, name, ignore=(), **more):
    """Killed while everything of ours goes."""
    back = {"state": "absent"}
    _each_death(make, ignore, go, lambda host: go(host, **back), lambda host: go(host, **back))


def comes_back_after_a_reboot(make, name, ignore=(), **more):
    """The host runs with ours when they go: what the kernel was started with is no part of what anything is made of."""
    ignore = tuple(ignore) + ("/proc/cmdline", record.REMOVED)
    host = make()
    before = tree(host, ignore)
    lines = sorted(entry["tokens"] for entry in managed(host, name))
    go(host)
    restart(host, name)
    assert go(host)["changed"] is False
    predicted = go(host, state="absent", check=True)
    done = go(host, state="absent")
    assert predicted["changed"] is done["changed"] is True
    assert done["reboot_required"] is True
    assert sorted(entry["tokens"] for entry in managed(host, name)) == lines
    same_tree(host, before, ignore)
    assert go(host, state="absent")["changed"] is False
    same_tree(host, before, ignore)


ONCE = (
    (loader.TRIAL, "panic=30", "rd.shell=0", "rd.emergency=reboot"),
    (loader.OFF,),
    ("init=/bin/sh",),
)
"""What a host may run with for one boot: a trial's, the fallback's, what somebody typed at the menu."""


def what_runs_once_gets_nowhere(make, name, ignore=(), **more):
    """Neither with parameters, nor without any, nor on the way back."""
    ignore = tuple(ignore) + ("/proc/cmdline", record.REMOVED)
    for once in ONCE:
        for first in (WANTED, ()):
            host = make()
            restart(host, name)
            before = tree(host, ignore)
            restart(host, name, once)
            for parameters, state in ((first, "present"), ((), "present"), ((), "absent")):
                go(host, parameters, state)
                assert go(host, parameters, state)["changed"] is False
                for entry in managed(host, name):
                    assert not set(once) & set(entry["tokens"]), entry["title"]
            same_tree(host, before, ignore)


def what_runs_once_is_not_for_the_next_kernel(make, name, ignore=(), arrives=None, **more):
    """A kernel that is installed meanwhile gets the ordinary line, also where no parameters are asked."""
    if arrives is None:
        pytest.skip("the running line is not taken")
    ignore = tuple(ignore) + ("/proc/cmdline", record.REMOVED)
    for once in ONCE:
        for first in (WANTED, ()):
            host = make()
            before = tree(host, ignore)
            go(host, first)
            restart(host, name, once)
            sheltered = tree(host, ignore)
            arrives(host)
            arrived = {path for path, what in tree(host, ignore).items() if sheltered.get(path) != what}
            for parameters, state in ((first, "present"), ((), "absent")):
                go(host, parameters, state)
                assert go(host, parameters, state)["changed"] is False
                for entry in managed(host, name):
                    assert not set(once) & set(entry["tokens"]), entry["title"]
                    assert tokens.lacking(entry["tokens"], parameters) == [], entry["title"]
            after = tree(host, ignore)
            assert {path: after.get(path) for path in before if path not in arrived} == {
                path: what for path, what in before.items() if path not in arrived}
            assert set(after) - set(before) <= arrived


def what_only_ours_say_is_told_of_an_ordinary_entry(make, name, ignore=(), arrives=None, **more):
    """Of a kernel that was installed while one of ours ran, and nothing kept the running line from it."""
    if arrives is None:
        pytest.skip("the running line is not taken")
    for once in ONCE[:2]:
        host = make()
        restart(host, name, once)
        arrives(host)
        found = [entry for entry in managed(host, name) if once[0] in entry["tokens"]]
        if not found:
            pytest.skip("the running line is not taken")
        before = tree(host, ignore)
        for entry in found:
            assert [reason for reason in cmdline.backend(name).view(host)["problems"]
                    if entry["source"] in reason and tokens.join(once) in reason]  # fmt: skip
        for parameters in (WANTED, ()):
            said = []
            for check in (True, False):
                with pytest.raises(HostError, match="nothing was changed: .* has %s: " % once[0]) as caught:
                    go(host, parameters, check=check)
                said.append(str(caught.value))
                same_tree(host, before, ignore)
            assert said[0] == said[1]


def restart(host, name, once=()):
    """The host was rebooted into its default entry, with these words more."""
    entry = loader.default_of(cmdline.backend(name).view(host))
    line = (entry if entry and entry["managed"] else managed(host, name)[0])["tokens"]
    running = tokens.split(host.read("/proc/cmdline"))
    line = [token for token in running if token.startswith(("BOOT_IMAGE=", "initrd="))] + line
    host.write("/proc/cmdline", tokens.join(line + list(once)) + "\n")
    host.remove(record.REMOVED)


def _each_death(make, ignore, first, dying, finish):
    """``dying`` is cut off after each change that it makes, ``finish`` mends it, and the way back is exact."""
    point = 0
    while True:
        host = make()
        before = tree(host, ignore)
        first(host)
        killed = kill_after(host, point)
        try:
            dying(host)
        except Killed:
            pass
        alive(host)
        finish(host)
        go(host, state="absent")
        same_tree(host, before, ignore)
        if not killed():
            break
        point += 1
    assert point > 1


def kill_after(host, point):
    """Have the host die right after its ``point``-th change. Returns a function that tells whether it did."""
    count = [0]

    def dying(real):
        def call(*args, **kwargs):
            found = real(*args, **kwargs)
            count[0] += 1
            if count[0] == point + 1:
                if real.__name__ == "write" and "/stand-in/" not in host.real(args[0]):  # that is its tool
                    half_written(host, args[0])
                raise Killed()
            return found

        return call

    for method in ("write", "remove", "replace", "run"):
        setattr(host, method, dying(getattr(host, method)))
    return lambda: count[0] > point


def alive(host):
    for method in ("write", "remove", "replace", "run"):
        delattr(host, method)


PROMISES = (
    is_detected,
    applies_once,
    comes_back,
    changes_its_mind,
    an_empty_list_matches_nothing,
    a_failing_generator_puts_everything_back,
    what_fails_after_generating_is_taken_back_too,
    a_killed_run_is_finished_by_the_next,
    a_killed_run_can_be_taken_back,
    a_killed_change_of_mind_is_finished_by_the_next,
    a_killed_way_back_is_finished_by_the_next,
    what_the_run_refuses_check_mode_refuses_too,
    says_what_is_there_without_a_fallback_entry,
    comes_back_after_a_reboot,
    what_runs_once_gets_nowhere,
    what_runs_once_is_not_for_the_next_kernel,
    what_only_ours_say_is_told_of_an_ordinary_entry,
)


def exchanged_counts_of_huge_pages(make, name, **more):
    """The same tokens in another order: which count belongs to which size is what the kernel reads of them."""
    first = ("hugepagesz=1G", "hugepages=4", "hugepagesz=2M", "hugepages=8")
    other = ("hugepagesz=1G", "hugepages=8", "hugepagesz=2M", "hugepages=4")
    host = make()
    go(host, first)
    predicted = go(host, other, check=True)
    done = go(host, other)
    assert predicted["changed"] is done["changed"] is True
    in_force(host, name, other)
    for entry in managed(host, name):
        assert [token for token in entry["tokens"] if token in first] == list(other), entry["title"]
    settings = cmdline.backend(name).configured(host)[0]
    assert settings is None or [token for token in settings if token in first] == list(other)
    assert go(host, other)["changed"] is False


def leaves_another_installation_alone(make, name, ignore=(), stranger=None, **more):
    """Its entry is shown, and no byte of it changes: not on the way there, nor later, nor on the way back."""
    if stranger is None:
        pytest.skip("the entries are nobody else's")
    host = make()
    ours = [entry["source"] for entry in managed(host, name)]
    path = stranger(host)
    before = tree(host, ignore)
    for parameters, state in ((WANTED, "present"), (OTHER, "present"), ((), "present"), ((), "absent")):
        predicted = go(host, parameters, state, check=True)
        assert predicted["changed"] is go(host, parameters, state)["changed"] is True
        assert tree(host)[path] == before[path]
        shown = {entry["source"]: entry["managed"] for entry in cmdline.backend(name).view(host)["entries"]}
        assert shown[path] is False
        assert [source for source, cared_for in shown.items() if cared_for] == ours
        assert go(host, parameters, state)["changed"] is False
    same_tree(host, before, ignore)


PAIR = ("hugepagesz=1G", "hugepages=4")
OTHER_PAIR = ("hugepagesz=2M", "hugepages=4")
BY_HAND = ((WANTED[0], WANTED, OTHER), (tokens.join(PAIR), OTHER_PAIR + PAIR, OTHER_PAIR))
"""``(what an administrator has on one entry only, a list that has it too, one that has it no longer)``."""


def what_an_administrator_has_on_one_entry_stays_his(make, name, ignore=(), by_hand=None, **more):
    """Ours is put beside it, and exactly ours goes again."""
    for text, first, other in BY_HAND:
        for number in (0, 1):
            host = _by_hand(make, name, by_hand, number, text)()
            before = tree(host, ignore)
            old = managed(host, name)
            for parameters, state in ((first, "present"), (other, "present"), (first, "present"), ((), "absent")):
                predicted = go(host, parameters, state, check=True)
                done = go(host, parameters, state)
                assert predicted["changed"] is done["changed"] is True
                assert predicted["diff"] == done["diff"]
                _beside(host, name, old, parameters)
                assert go(host, parameters, state)["changed"] is False
            same_tree(host, before, ignore)


def what_an_administrator_has_on_one_entry_outlives_a_killed_run(make, name, ignore=(), by_hand=None, **more):
    """Whatever that run was about, and whether the next one finishes it or takes it back."""
    def there(parameters, state="present"):
        def run(host):
            go(host, parameters, state)
            _beside(host, name, old, parameters)
        return run

    def nothing(host):
        pass

    def next_kernel_too(host):
        there(WANTED)(host)
        assert cmdline.backend(name).configured(host)[0] == settings

    for text, first, other in BY_HAND:
        one = _by_hand(make, name, by_hand, 1, text)
        old = managed(one(), name)
        first, other = there(first), there(other)
        _each_death(one, ignore, other, first, first)
        if text == WANTED[0]:
            _each_death(one, ignore, nothing, first, first)
            _each_death(one, ignore, nothing, first, nothing)
            _each_death(one, ignore, other, first, other)
            _each_death(one, ignore, first, other, other)
            _each_death(one, ignore, first, there((), "absent"), nothing)
    one = _by_hand(make, name, by_hand, 0, WANTED[0])
    host = one()
    old = managed(host, name)
    go(host)
    settings = cmdline.backend(name).configured(host)[0]
    _each_death(one, ignore, nothing, go, next_kernel_too)


def _by_hand(make, name, by_hand, number, text):
    """As ``make``, with a text on the line of one ordinary entry."""
    if by_hand is None:
        pytest.skip("entries have no line of their own")

    def made():
        host = make()
        by_hand(host, managed(host, name)[number], text)
        return host

    return made


def _beside(host, name, old, ours):
    """Each ordinary entry has what it had, and ours; that without ours has what it had."""
    seen = cmdline.backend(name).view(host)["entries"]
    assert {entry["id"]: sorted(entry["tokens"]) for entry in seen if entry["managed"]} == {
        entry["id"]: sorted(entry["tokens"] + list(ours)) for entry in old}
    for entry in seen:
        if (entry["id"] or "").startswith(loader.FALLBACK_ID):
            assert sorted(entry["tokens"]) in [sorted(was["tokens"] + [loader.OFF]) for was in old]


def in_options(host, entry, text):
    """``by_hand`` where entries are files of the Boot Loader Specification."""
    content = host.read(entry["source"])
    assert "options" in content
    host.write(entry["source"], re.sub(r"(?m)^(options\s+\S+)", r"\1 " + text, content))


PROMISES += (
    exchanged_counts_of_huge_pages,
    leaves_another_installation_alone,
    what_an_administrator_has_on_one_entry_stays_his,
    what_an_administrator_has_on_one_entry_outlives_a_killed_run,
)
