# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.plugins.module_utils._memory.hugepages import (
    DROP_IN, MACHINE, RECORD, check_pages, folder_of, run)
from ansible_collections.vfio.host.tests.unit.memory.hugepages_host import SIZE, HugepagesHost

WHOLE = folder_of(SIZE, None)


@pytest.fixture
def host(tmp_path):
    return HugepagesHost(str(tmp_path))


def go(host, *pages, check=False, **more):
    params = dict({"pages": list(pages), "state": "present", "host_reserve": "1GiB", "partial": False, "timeout": 5},
                  **more)
    return run(host, params, check)


def total(count, **more):
    return dict({"size": "2MiB", "count": count, "node": None}, **more)


def test_set_read_back_and_a_second_run_changes_nothing(host):
    result = go(host, total(512))
    assert result["changed"] and host.total() == 512
    assert result["pages"] == [{"size": SIZE, "node": None, "wanted": 512, "before": 0, "count": 512, "free": 512}]
    assert host.read(DROP_IN).splitlines()[1:] == ["w /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages - - - - 512"]
    before, writes = host.tree(), list(host.writes)
    again = go(host, total(512))
    assert not again["changed"] and again["diff"] == [] and again["warnings"] == []
    assert (host.tree(), host.writes) == (before, writes)


@pytest.mark.parametrize("pages", [[total(512)], [total(100, node=0), total(200, node=1)]])
def test_check_mode_predicts_and_writes_nothing(host, pages):
    before = host.tree()
    predicted = go(host, *pages, check=True)
    assert host.tree() == before and host.writes == []
    done = go(host, *pages)
    assert predicted["changed"] and predicted["diff"] == done["diff"]
    assert [page["count"] for page in predicted["pages"]] == [page["count"] for page in done["pages"]]


def test_by_node(host):
    go(host, total(100, node=0), total(200, node=1))
    assert (host.total(0), host.total(1), host.total()) == (100, 200, 300)
    go(host, total(200, node=1))
    assert (host.total(0), host.total(1)) == (0, 200)


def test_it_is_there_after_a_reboot(host):
    go(host, total(512))
    host.boot()
    assert host.total() == 512 and not go(host, total(512))["changed"]


def test_absent_gives_back_what_was_and_leaves_no_file(host):
    host.write_sysfs(WHOLE + "/nr_hugepages", "10")
    before = host.tree()
    go(host, total(512))
    go(host, total(600))
    assert go(host, state="absent", check=True)["changed"] and host.total() == 600
    assert go(host, state="absent")["changed"]
    assert host.tree() == before and not host.exists("/var/lib/vfio-host")
    assert not go(host, state="absent")["changed"]


def test_absent_on_a_bare_machine_does_nothing(host):
    before = host.tree()
    assert not go(host, state="absent")["changed"] and host.tree() == before


def test_an_empty_list_is_absent(host):
    go(host, total(512))
    assert go(host)["changed"] and host.total() == 0 and not host.exists(RECORD) and not host.exists(DROP_IN)


@pytest.mark.parametrize("pages, more, words", [
    ([total(1600)], {}, r"take 3200 MiB, and 1024 MiB are reserved for the host: 4224 MiB of 4096 MiB"),
    ([total(1100)], {}, r"take 2200 MiB more, and 1024 MiB are reserved for the host, but only 3072 MiB are available"),
    ([total(800, node=1)], {}, r"take 1600 MiB more, and node 1 has 1536 MiB"),
    ([total(10, node=7)], {}, r"no 2 MiB pages of node 7; it has 2 MiB pages of the machine"),
    ([total(1, size="1GiB")], {}, "no 1 GiB pages of the machine"),
    ([total(1), total(1, node=0)], {}, "both for the machine and for a node"),
    ([total(1, node=0), total(2, node=0)], {}, "given twice"),
    ([total(-1)], {}, "count: -1 is not a number of pages"),
    ([total(1, node=-1)], {}, "node: -1 is not the number"),
    ([total(1, size="2MB")], {}, "size: '2MB' is not a size"),
    ([total(1)], {"host_reserve": "much"}, "host_reserve: 'much'"),
])
def test_refused_with_its_reason_and_nothing_changed(host, pages, more, words):
    before = host.tree()
    for check in (True, False):
        with pytest.raises(ValueError, match=words):
            go(host, *pages, check=check, **more)
    assert host.tree() == before and host.writes == []


def test_memory_is_not_asked_for_what_is_there_already(host):
    go(host, total(900))
    host.put("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1000000 kB\nHugepagesize: 2048 kB\n")
    assert not go(host, total(900))["changed"]
    with pytest.raises(ValueError, match="only 976 MiB are available"):
        go(host, total(1000))
    assert go(host, total(800))["changed"] and host.total() == 800


def test_fragmented_memory_puts_the_former_number_back(host):
    go(host, total(100))
    before = host.tree()
    host.most = 200
    with pytest.raises(HostError, match=r"512 were asked for, the kernel gave 400.*It is back at 100.*partial: true"):
        go(host, total(512))
    assert host.tree() == before


def test_partial_accepts_fewer_once_and_is_honest(host):
    host.most = 200
    result = go(host, total(512), partial=True)
    assert result["changed"] and result["pages"][0]["count"] == 400 and "the kernel gave 400" in result["warnings"][0]
    before = host.tree()
    again = go(host, total(512), partial=True)
    assert not again["changed"] and "the kernel gave 400" in again["warnings"][0] and host.tree() == before
    host.most = 10**6
    host.boot()
    assert host.total() == 512
    assert not go(host, total(512), partial=True)["changed"]
    assert go(host, total(512), partial=True)["warnings"] == []


def test_accepted_fewer_are_not_tried_again_when_another_pool_changes(host):
    host.most = 200
    go(host, total(300, node=0), total(50, node=1), partial=True)
    host.most = 10**6
    go(host, total(300, node=0), total(60, node=1), partial=True)
    assert (host.total(0), host.total(1)) == (200, 60)
    assert not go(host, total(300, node=0), total(60, node=1), partial=True)["changed"]


def test_a_second_try_may_give_what_the_first_did_not(host):
    host.first_try = 100
    assert go(host, total(512))["changed"] and host.total() == 512


def test_without_partial_what_is_missing_is_asked_for_again(host):
    host.most = 200
    go(host, total(512), partial=True)
    with pytest.raises(HostError, match="It is back at 400"):
        go(host, total(512))
    host.most = 10**6
    assert go(host, total(512))["changed"] and host.total() == 512


def test_given_back_after_fewer_were_accepted(host):
    host.most = 200
    go(host, total(512), partial=True)
    go(host, state="absent")
    assert host.total() == 0 and not host.exists(RECORD)


def test_a_write_that_the_kernel_refuses_leaves_everything_as_it_was(host):
    go(host, total(100, node=0), total(100, node=1))
    before = host.tree()
    host.broken.add(folder_of(SIZE, 1) + "/nr_hugepages")
    with pytest.raises(HostError, match="Device or resource busy"):
        go(host, total(50, node=0), total(200, node=1))
    assert host.tree() == before


@pytest.mark.parametrize("state, pages", [("present", [total(100)]), ("absent", [])])
def test_pages_in_use_are_never_taken(host, state, pages):
    go(host, total(512))
    host.used[0] = 150
    host.show()
    before = host.tree()
    with pytest.raises(ValueError, match="150 are in use"):
        go(host, *pages, state=state)
    assert host.tree() == before
    host.used[0] = 0
    host.show()
    assert go(host, *pages, state=state)["changed"]


@pytest.mark.parametrize("pages", [[total(100)], [total(50, node=0), total(50, node=1)]])
def test_promised_pages_are_never_taken(host, pages):
    go(host, *(dict(page, count=page["count"] + 200) for page in pages))
    host.reserved = 150
    host.show()
    with pytest.raises(ValueError, match="150 of these are promised"):
        go(host, *pages)
    host.reserved = 20
    host.show()
    assert go(host, *pages)["changed"]


@pytest.mark.parametrize("first, then", [([total(48)], [total(40, node=0)]), ([total(40, node=0)], [total(48)])])
def test_from_the_machine_to_its_nodes_by_way_of_absent(host, first, then):
    go(host, *first)
    before = host.tree()
    with pytest.raises(ValueError, match="were set by an earlier run.*state: absent first"):
        go(host, *then)
    assert host.tree() == before
    go(host, state="absent")
    assert go(host, *then)["changed"] and not go(host, *then)["changed"]


def test_what_somebody_has_set_since_stays(host):
    go(host, total(100))
    host.write_sysfs(WHOLE + "/nr_hugepages", "300")
    result = go(host, state="absent")
    assert "somebody has set them since" in result["warnings"][0]
    assert host.total() == 300 and not host.exists(RECORD) and not host.exists(DROP_IN)


@pytest.mark.parametrize("path, text", [
    ("/etc/sysctl.conf", "vm.nr_hugepages = 64\n"), ("/usr/lib/sysctl.d/50-x.conf", "-vm/nr_hugepages=64\n"),
    ("/etc/tmpfiles.d/mine.conf", "w %s/hugepages-2048kB/nr_hugepages - - - - 64\n" % MACHINE),
])
def test_a_pool_that_others_set_at_each_boot(host, path, text):
    host.put(path, text)
    with pytest.raises(ValueError, match=path + ".*64"):
        go(host, total(100))
    host.put(path, "# " + text)
    assert go(host, total(100))["changed"]


def test_the_same_number_elsewhere_is_no_contradiction(host):
    host.put("/etc/sysctl.d/50-x.conf", "vm.nr_hugepages = 100\n")
    assert go(host, total(100))["changed"]


def test_without_systemd_they_would_not_last(host):
    host.remove("/usr/bin/systemd-tmpfiles")
    with pytest.raises(HostError, match="systemd-tmpfiles"):
        go(host, total(100))
    assert not go(host, state="absent")["changed"]


def test_a_record_that_cannot_be_read_refuses(host):
    host.put(RECORD, "{}")
    with pytest.raises(HostError, match=RECORD):
        go(host, total(100))


def test_killed_after_the_record_the_next_run_knows_what_was(host):
    host.write_sysfs(WHOLE + "/nr_hugepages", "10")
    host.put(RECORD, json.dumps({"schema": 1, "pools": {WHOLE: {"before": 10, "wanted": 512}}}))
    assert go(host, total(512))["changed"] and host.total() == 512
    go(host, state="absent")
    assert host.total() == 10


def test_surplus_pages_are_not_the_pools(host):
    go(host, total(100))
    host.put(WHOLE + "/nr_hugepages", "120\n")
    host.put(WHOLE + "/surplus_hugepages", "20\n")
    assert not go(host, total(100))["changed"]


def test_sizes_without_one_are_2_mib():
    assert check_pages([{"size": None, "count": 1, "node": None}]) == [{"size": SIZE, "node": None, "count": 1}]
