# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline
from ansible_collections.vfio.host.plugins.module_utils._boot import record
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import FALLBACK_ID
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.grub_host import CMDLINE, CUSTOM, GrubHost


@pytest.fixture
def host(tmp_path):
    return GrubHost(str(tmp_path))


MENU = "/boot/grub/grub.cfg"
GENERATE = ["grub-mkconfig", "-o", MENU + ".vfio-host-new"]


class Killed(BaseException):
    pass


def die(argv):
    raise Killed


def go(host, parameters=("intel_iommu=on",), state="present", loader="auto", check=False, **more):
    return cmdline.run(host, dict(more, parameters=list(parameters), state=state, loader=loader), check)


def test_check_predicts_and_touches_nothing_then_the_run_does_it(host):
    before = host.tree()
    predicted = go(host, check=True)
    assert host.tree() == before
    assert host.calls == []
    done = go(host)
    assert host.calls == [GENERATE]
    assert predicted["changed"] is done["changed"] is True
    assert predicted["diff"] == done["diff"]
    assert done["diff"][-1]["after"].endswith("quiet intel_iommu=on\n")
    for entry in done["next_boot"]:
        assert ("intel_iommu=on" in entry["tokens"]) is entry["managed"] is not entry["recovery"]
    assert len([entry for entry in done["next_boot"] if entry["managed"]]) == 3
    assert record.read(host) == record.new("grub", ["intel_iommu=on"], False, {})


def test_second_run_executes_nothing(host):
    go(host)
    host.calls.clear()
    before = host.tree()
    result = go(host)
    assert (result["changed"], result["diff"], host.calls) == (False, [], [])
    assert host.tree() == before
    assert result["reboot_required"] is True
    assert result["warnings"] == []
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on\n")
    assert go(host)["reboot_required"] is False


def test_what_ours_override_is_told_with_its_file(host):
    result = go(host)
    pair = {"ours": "intel_iommu=on", "theirs": "intel_iommu=off", "file": "/etc/default/grub"}
    assert result["overridden"] == [pair]
    assert result["warnings"] == ["intel_iommu=on overrides intel_iommu=off from /etc/default/grub"]
    assert result["configured"] == ["console=ttyS0", "intel_iommu=off", "quiet", "intel_iommu=on"]


def test_a_menu_that_lost_ours_is_generated_again(host):
    menu = host.read(MENU)
    go(host)
    host.write(MENU, menu)
    assert go(host, check=True)["changed"] is True
    assert go(host)["changed"] is True
    assert go(host)["changed"] is False


def test_a_new_kernel_without_an_entry_is_seen(host):
    go(host)
    host.write("/boot/vmlinuz-6.9", "")
    assert go(host, check=True)["changed"] is True


def test_a_generation_that_was_cut_off_is_seen(host):
    go(host)
    host.write(MENU + ".new", "")
    assert go(host, check=True)["changed"] is True


def test_a_killed_removal_is_finished_by_the_next_run(host):
    go(host)
    host.fail = die
    with pytest.raises(Killed):
        go(host, state="absent")
    host.fail = None
    assert record.read(host)["pending"] is True
    assert go(host, state="absent")["changed"] is True
    assert not host.exists(grub.DROP_IN) and not host.exists(record.PATH)
    assert "intel_iommu=on" not in host.read(MENU)


def test_a_killed_change_is_finished_by_the_next_run(host):
    go(host, ["intel_iommu=on", "iommu=pt"])
    host.fail = die
    with pytest.raises(Killed):
        go(host)
    host.fail = None
    assert go(host)["changed"] is True
    assert "iommu=pt" not in host.read(MENU)


@pytest.mark.parametrize("after", ["first", "second"])
def test_failure_puts_back_what_was(host, after):
    if after == "second":
        go(host)
    before = host.tree()

    def fail(argv):
        host.write(MENU, "half")
        host.write(MENU + ".new", "half")
        return Result(argv, 1, "", "no space left")

    host.fail = fail
    with pytest.raises(HostError, match="no space left"):
        go(host, ["iommu=pt"])
    assert host.tree() == before


def test_a_menu_without_ours_after_success_is_a_failure_and_put_back(host):
    host.write("/etc/default/grub.d/99-last.cfg", "GRUB_CMDLINE_LINUX_DEFAULT=intel_iommu=off\n")
    before = host.tree()
    with pytest.raises(HostError, match="intel_iommu=on not in force"):
        go(host)
    assert host.tree() == before


def test_absent_takes_out_exactly_ours(host):
    menu = host.read(MENU)
    before = host.tree()
    go(host)
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on\n")
    predicted = go(host, [], "absent", check=True)
    result = go(host, [], "absent")
    assert predicted["diff"] == result["diff"]
    assert result["reboot_required"] is predicted["reboot_required"] is True
    host.write("/proc/cmdline", CMDLINE)
    assert host.read(MENU) == menu
    assert host.tree() == before
    host.calls.clear()
    assert go(host, [], "absent")["changed"] is False
    assert host.calls == []


def test_an_empty_list_owns_nothing(host):
    assert go(host, [], fallback_entry=False)["changed"] is False
    go(host)
    assert go(host, [])["changed"] is True
    assert not host.exists(grub.DROP_IN)


def test_with_nothing_asked_there_still_is_a_way_in(host):
    """Where the IOMMU is on by itself nothing is asked, and devices are bound all the same."""
    result = go(host, [])
    assert result["changed"] is True and result["owned"] == []
    safe = [entry for entry in result["next_boot"] if entry["id"].startswith(FALLBACK_ID)]
    assert [entry["kernel"] for entry in safe] == ["6.1.0-50-amd64", "6.0.0-1-amd64"]
    assert all(entry["tokens"][-1] == "vfio_host=off" for entry in safe)
    assert go(host, [])["changed"] is False


def test_a_foreign_file_in_our_place_is_refused(host):
    host.write(grub.DROP_IN, "GRUB_TIMEOUT=1\n")
    before = host.tree()
    for state in ("present", "absent"):
        with pytest.raises(ValueError, match="not from this collection"):
            go(host, state=state)
    assert host.tree() == before


def test_auto_refuses_what_grub_did_not_boot(host):
    host.write("/proc/cmdline", "ro quiet\n")
    with pytest.raises(HostError, match="no BOOT_IMAGE="):
        go(host)
    assert go(host, loader="grub", check=True)["changed"] is True


@pytest.mark.parametrize("loader", ["auto", "grub"])
@pytest.mark.parametrize(
    "path, text, reason",
    [
        ("/etc/default/grub", None, "no /etc/default/grub"),
        ("/usr/sbin/grub-mkconfig", None, "neither grub-mkconfig"),
        ("/usr/sbin/update-grub", "#!/bin/sh\nmy-own-tool\n", "does not run grub-mkconfig"),
        (MENU, "insmod blscfg\nblscfg\n", "from /boot/loader/entries"),
        ("/etc/default/grub", "GRUB_ENABLE_BLSCFG=true\n", "GRUB_ENABLE_BLSCFG"),
        ("/etc/kernel/proxmox-boot-uuids", "1\n", "proxmox-boot-tool"),
    ],
)
def test_what_cannot_be_driven_is_refused(host, loader, path, text, reason):
    host.remove(path) if text is None else host.write(path, text)
    before = host.tree()
    with pytest.raises(HostError, match=reason):
        go(host, loader=loader)
    assert host.tree() == before


def test_nothing_wanted_on_an_unknown_loader_is_no_failure(host):
    host.write("/proc/cmdline", "ro quiet\n")
    result = go(host, [])
    assert (result["changed"], result["loader"]) == (False, None)
    host.write(grub.DROP_IN, grub.render(["a"]))
    with pytest.raises(HostError):
        go(host, [])


def test_a_default_entry_of_others_is_warned_of(host):
    menu = host.read(MENU).replace('set default="0"', 'set default="mine"')
    host.write(MENU, menu + CUSTOM)
    result = go(host, check=True)
    assert any("'mine' comes from /etc/grub.d/40_custom" in warning for warning in result["warnings"])


def test_grub_mkconfig_does_where_there_is_no_update_grub(host):
    host.remove("/usr/sbin/update-grub")
    go(host)
    assert host.calls == [GENERATE]
