# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import booted, cmdline, edits, record
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import FALLBACK_ID
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, grub_common
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
    host.write("/etc/default/grub.d/99-last.cfg", "GRUB_CMDLINE_LINUX_DEFAULT=$(echo intel_iommu=off)\n")  # takes a shell
    before = host.tree()
    with pytest.raises(HostError, match="intel_iommu=on not in force"):
        go(host)
    assert host.tree() == before


@pytest.mark.parametrize("text, said", [
    ("GRUB_CMDLINE_LINUX_DEFAULT=quiet\n", "takes intel_iommu=on, iommu=pt out again"),
    ('GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=off"\n', "takes intel_iommu=on out again"),
])
@pytest.mark.parametrize("check", [True, False])
def test_a_file_that_comes_behind_ours_is_named_before_anything_is_written(host, check, text, said):
    host.write("/etc/default/grub.d/99-last.cfg", text)
    before = host.tree()
    with pytest.raises(HostError, match="nothing was changed: /etc/default/grub.d/99-last.cfg .*%s" % said):
        go(host, ["intel_iommu=on", "iommu=pt"], check=check)
    assert (host.tree(), host.calls) == (before, [])


def test_a_file_that_comes_behind_ours_and_adds_to_it_is_none(host):
    host.write("/etc/default/grub.d/99-last.cfg", 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT z"\n')
    assert go(host, check=True)["changed"] is go(host)["changed"] is True
    assert go(host)["changed"] is False


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
    host.remove(record.REMOVED)  # as a reboot does
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


# -- parameters of others ------------------------------------------------------------------


def test_what_an_administrator_has_is_not_written_and_not_owned(host):
    before = host.read("/etc/default/grub")
    result = go(host, ["quiet", "console=ttyS0", "iommu=pt"])
    assert (result["owned"], result["by_hand"]) == (["iommu=pt"], ["quiet", "console=ttyS0"])
    assert grub.recorded(host) == ["iommu=pt"]
    go(host, state="absent")
    assert host.read("/etc/default/grub") == before
    assert "quiet" in host.read(MENU)


def test_what_is_by_hand_in_the_menu_only_is_written(host):
    """The administrator took it out of the settings and did not generate the menu: the next kernel would lack it."""
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="console=ttyS0"\n')
    assert go(host, ["quiet"])["owned"] == ["quiet"]


def test_one_of_ours_stays_ours_when_an_administrator_adds_it_too(host):
    go(host, ["iommu=pt"])
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="console=ttyS0 iommu=pt"\n')
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    result = go(host, ["iommu=pt"])
    assert (result["changed"], result["owned"]) == (False, ["iommu=pt"])
    go(host, state="absent")
    assert all("iommu=pt" in entry["tokens"] for entry in grub.view(host)["entries"])


@pytest.mark.parametrize("killed", [False, True])
def test_what_the_generator_adds_by_itself_is_not_ours(host, killed):
    host.write("/etc/grub.d/10_linux", host.read("/etc/grub.d/10_linux").replace('args="', 'args="iommu=pt '), mode=0o755)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    before = host.tree()
    go(host, ["iommu=pt"])
    assert all(entry["tokens"].count("iommu=pt") == 2 for entry in grub.view(host)["entries"] if entry["managed"])
    if killed:
        host.fail = lambda argv: (host.mkconfig(argv), die(argv))
        with pytest.raises(Killed):
            go(host, state="absent")
        host.fail = None
    assert go(host, state="absent", check=True)["changed"] is go(host, state="absent")["changed"] is True
    assert host.tree() == before


def test_conflicts_keep(host):
    result = go(host, ["intel_iommu=on", "iommu=pt"], conflicts="keep")
    pair = {"ours": "intel_iommu=on", "theirs": "intel_iommu=off", "file": "/etc/default/grub"}
    assert (result["owned"], result["kept"], result["overridden"]) == (["iommu=pt"], [pair], [])
    assert result["warnings"] == [
        "intel_iommu=off stays in force in /etc/default/grub, and intel_iommu=on was not written (conflicts: keep)"
    ]
    again = go(host, ["intel_iommu=on", "iommu=pt"], conflicts="keep")
    assert (again["changed"], again["kept"]) == (False, [pair])
    host.write("/proc/cmdline", CMDLINE.strip() + " iommu=pt\n")
    assert go(host, ["intel_iommu=on", "iommu=pt"], conflicts="keep")["reboot_required"] is False


def test_conflicts_keep_takes_out_what_override_had_put_in(host):
    go(host)
    result = go(host, conflicts="keep")
    assert (result["changed"], result["owned"]) == (True, [])
    assert not host.exists(grub.DROP_IN)


def test_conflicts_refuse_names_both_the_file_and_the_remedy(host):
    before = host.tree()
    with pytest.raises(HostError) as caught:
        go(host, conflicts="refuse")
    said = str(caught.value)
    assert "intel_iommu=on is asked, and intel_iommu=off is set in /etc/default/grub" in said
    assert "take it out there" in said
    assert (host.tree(), host.calls) == (before, [])


def test_conflicts_refuse_lets_pass_what_does_not_conflict(host):
    assert go(host, ["iommu=pt", "console=tty0"], conflicts="refuse")["changed"] is True


PAIRS = "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=512".split()


def test_pairs_by_position_arrive_as_they_are_given(host):
    go(host, PAIRS)
    for entry in grub.view(host)["entries"]:
        if entry["managed"]:
            assert entry["tokens"][-4:] == PAIRS
    assert go(host, PAIRS)["changed"] is False
    fallback = [entry for entry in grub.view(host)["entries"] if (entry["id"] or "").startswith(FALLBACK_ID)]
    assert not set(fallback[0]["tokens"]) & set(PAIRS)


def set_by_hand(host, line):
    host.write("/etc/default/grub", "GRUB_CMDLINE_LINUX='%s'\n" % line)
    host.mkconfig(["grub-mkconfig", "-o", MENU])


@pytest.mark.parametrize("asked", [PAIRS[2:3] + PAIRS[1:2] + PAIRS[:2], PAIRS[:2] + PAIRS[2:3] + PAIRS[1:2]])
def test_a_count_of_one_size_does_not_make_the_same_count_of_another_size_ours(host, asked):
    set_by_hand(host, "hugepagesz=1G hugepages=4")
    before = host.tree()
    results = [go(host, asked), go(host, asked)]
    assert [result["changed"] for result in results] == [True, False]
    for result in results:
        assert (result["owned"], result["by_hand"]) == (["hugepagesz=2M", "hugepages=4"], PAIRS[:2])
    go(host, state="absent")
    assert host.tree() == before


FIRST = [
    ("hugepagesz=1G hugepages=2", PAIRS[:2], PAIRS[2:]),
    ("hugepagesz=1G", PAIRS[:2], PAIRS[2:]),
    ("isolcpus=2-3", ["isolcpus=4-7"], ["quiet=1"]),
    ("nohz_full=2-3", ["nohz_full=4-7"], ["quiet=1"]),
    ("default_hugepagesz=2M", ["default_hugepagesz=1G"], ["quiet=1"]),
]
"""What the kernel keeps the first of: (of an administrator, asked, asked beside it)."""


@pytest.mark.parametrize("theirs, ours, beside", FIRST)
@pytest.mark.parametrize("policy", ["override", "refuse"])
def test_what_the_kernel_keeps_the_first_of_cannot_be_overridden(host, theirs, ours, beside, policy):
    set_by_hand(host, theirs)
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            go(host, ours + beside, conflicts=policy, check=check)
        said = str(caught.value)
        assert "%s is asked, and %s is set in /etc/default/grub" % (" ".join(ours), theirs) in said
        assert "the kernel keeps the first: take it out there, or set conflicts to keep" in said
        assert (host.tree(), host.calls) == (before, [])


@pytest.mark.parametrize("theirs, ours, beside", FIRST)
def test_and_stays_in_force_where_that_is_asked(host, theirs, ours, beside):
    set_by_hand(host, theirs)
    predicted = go(host, ours + beside, conflicts="keep", check=True)
    done = go(host, ours + beside, conflicts="keep")
    pair = {"ours": " ".join(ours), "theirs": theirs, "file": "/etc/default/grub"}
    assert predicted["kept"] == done["kept"] == [pair]
    assert predicted["diff"] == done["diff"] and done["owned"] == beside
    assert go(host, ours + beside, conflicts="keep")["changed"] is False


def test_ours_that_is_the_first_and_in_force_stays(host):
    """An administrator added his behind ours since: nothing to do, as long as nothing is to be written."""
    go(host, ["isolcpus=4-7"])
    host.write("/etc/default/grub.d/99-local.cfg", 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=2"\n')
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    assert go(host, ["isolcpus=4-7"])["changed"] is False


def test_what_runs_with_another_list_first_needs_a_reboot(host):
    go(host, ["isolcpus=4-7"])
    host.write("/proc/cmdline", CMDLINE.strip() + " isolcpus=2-3 isolcpus=4-7\n")
    assert go(host, ["isolcpus=4-7"])["reboot_required"] is True


def test_the_order_of_others_and_console_do_not_change(host):
    text = 'GRUB_CMDLINE_LINUX="console=tty0 b=1 console=ttyS0,115200 a=2"\nGRUB_CMDLINE_LINUX_DEFAULT="z quiet a=3"\n'
    host.write("/etc/default/grub", text)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    old = [entry["tokens"] for entry in grub.view(host)["entries"] if entry["managed"]]
    go(host, ["iommu=pt", "b=2", "console=hvc0"])
    new = [entry["tokens"] for entry in grub.view(host)["entries"] if entry["managed"]]
    assert new == [line + ["iommu=pt", "b=2", "console=hvc0"] for line in old]
    go(host, ["b=2"])
    assert [entry["tokens"] for entry in grub.view(host)["entries"] if entry["managed"]] == [
        line + ["b=2"] for line in old
    ]


# -- three views ---------------------------------------------------------------------------


def test_three_views(host):
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX="later=1"\n')  # and the menu was not generated
    result = go(host, [], state="absent")
    assert result["running"][-2:] == ["intel_iommu=off", "quiet"]
    assert result["configured"] == ["later=1"]
    assert result["configured_by"] == {"later=1": "/etc/default/grub"}
    default = [entry for entry in result["next_boot"] if entry["default"]]
    assert [entry["tokens"][-1] for entry in default] == ["quiet"]
    assert default[0]["initrds"] == ["/boot/initrd.img-6.1.0-50-amd64"]
    assert {entry["kernel"] for entry in result["next_boot"]} == {"6.1.0-50-amd64", "6.0.0-1-amd64"}


def test_reboot_is_told_by_meaning_and_not_by_text(host):
    go(host, ["vfio-pci.ids=10de:1380,10de:0fbc", "isolcpus=2-3"])
    host.write("/proc/cmdline", CMDLINE.strip() + " vfio_pci.ids=10de:0fbc,10de:1380 isolcpus=2,3\n")
    assert go(host, ["vfio-pci.ids=10de:1380,10de:0fbc", "isolcpus=2-3"])["reboot_required"] is False
    host.write("/proc/cmdline", CMDLINE.strip() + " vfio_pci.ids=10de:0fbc,10de:13801 isolcpus=2,3\n")
    assert go(host, ["vfio-pci.ids=10de:1380,10de:0fbc", "isolcpus=2-3"])["reboot_required"] is True


def test_a_parameter_that_was_taken_out_needs_a_reboot(host):
    go(host, ["intel_iommu=on", "iommu=pt"])
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on iommu=pt\n")
    assert go(host, ["intel_iommu=on", "iommu=pt"])["reboot_required"] is False
    assert go(host, ["intel_iommu=on"])["reboot_required"] is True


@pytest.mark.parametrize("less", (["intel_iommu=on"], []))
def test_and_the_second_run_still_says_so_until_that_boot_ends(host, less):
    line = host.read("/proc/cmdline")
    go(host, ["intel_iommu=on", "iommu=pt"])
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on iommu=pt\n")
    state = "present" if less else "absent"
    for changed in (True, False):
        result = go(host, less, state=state)
        assert (result["changed"], result["reboot_required"]) == (changed, True)
    assert host.listdir("/run/vfio-host") == ["cmdline-removed.json"]
    host.remove(record.REMOVED)  # as a reboot does
    host.write("/proc/cmdline", " ".join([line.strip()] + less) + "\n")
    assert go(host, less, state=state)["reboot_required"] is False


def test_what_was_taken_out_and_is_wanted_again_needs_none(host):
    wanted = ["intel_iommu=on", "iommu=pt"]
    go(host, wanted)
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on iommu=pt\n")
    go(host, state="absent")
    assert go(host, wanted)["reboot_required"] is False
    assert go(host, wanted)["reboot_required"] is False


def test_the_entry_that_boots_by_itself_is_told_by_the_saved_one(host):
    host.write("/etc/default/grub", host.read("/etc/default/grub") + "GRUB_DEFAULT=saved\n")
    host.write(MENU, host.read(MENU).replace('set default="0"', 'set default="${saved_entry}"'))
    host.editenv(["grub-editenv", "/boot/grub/grubenv", "set", "saved_entry=1>2"])
    default = [entry for entry in go(host, state="absent")["next_boot"] if entry["default"]]
    assert [entry["kernel"] for entry in default] == ["6.0.0-1-amd64"]


# -- which loader --------------------------------------------------------------------------


def efi(host, name, text):
    data = b"\x06\0\0\0" + text.encode("utf-16-le") + b"\0\0"
    host.write("%s/%s-%s" % (booted.EFIVARS, name, booted.LOADER_GUID), data)


def test_grub_that_tells_its_name_is_grub(host):
    efi(host, "LoaderInfo", "GRUB 2.12")
    result = go(host)
    assert result["loader"] == "grub" and "LoaderInfo says GRUB 2.12" in result["evidence"]


@pytest.mark.parametrize(
    "prepare, said",
    [
        (lambda host: efi(host, "LoaderInfo", "systemd-boot 252.39-1"), "LoaderInfo says systemd-boot 252.39-1"),
        (lambda host: efi(host, "StubInfo", "systemd-stub 252"), "a unified kernel image"),
        (lambda host: host.write("/proc/cmdline", "BOOT_IMAGE=vmlinuz initrd=i ro\n"), "syslinux or a network"),
        (lambda host: host.write("/proc/cmdline", "ro\n"), "no BOOT_IMAGE="),
    ],
)
def test_what_grub_did_not_boot_is_refused_with_what_was_found(host, prepare, said):
    prepare(host)
    before = host.tree()
    with pytest.raises(HostError) as caught:
        go(host)
    assert said in str(caught.value) and "not grub (" in str(caught.value)
    assert (host.tree(), host.calls) == (before, [])


@pytest.mark.parametrize(
    "path, text",
    [
        ("/boot/loader/entries/0123-6.1.conf", "title x\nlinux /vmlinuz\noptions ro\n"),
        ("/boot/efi/loader/loader.conf", "timeout 3\n"),
        ("/boot/efi/EFI/systemd/systemd-bootx64.efi", ""),
        ("/usr/bin/bootctl", ""),
        ("/usr/sbin/grubby", ""),
        ("/etc/kernel/cmdline", "ro quiet\n"),
        ("/etc/kernel/proxmox-boot-uuids", "\n"),
        ("/usr/bin/kernelstub", ""),
    ],
)
def test_remnants_of_other_loaders_do_not_matter_where_grub_booted(host, path, text):
    host.write(path, text)
    assert go(host)["loader"] == "grub"


def test_two_that_claim_the_system_are_refused(host, monkeypatch):
    class Other:
        NAME = "other"

        @staticmethod
        def evidence(host, seen):
            return ["its mark is there"], []

        @staticmethod
        def recorded(host):
            return None

    known = cmdline.backends()
    monkeypatch.setattr(cmdline, "backends", lambda: known + [Other])
    before = host.tree()
    with pytest.raises(HostError, match=r"not clear.*grub \(BOOT_IMAGE=.*other \(its mark is there\)"):
        go(host)
    assert host.tree() == before


def test_an_unknown_loader_is_no_name_of_ours():
    with pytest.raises(ValueError, match="'lilo' is not one of"):
        cmdline.backend("lilo")


def test_what_was_made_with_one_loader_is_taken_out_there(host):
    go(host)
    efi(host, "LoaderInfo", "systemd-boot 252")
    with pytest.raises(HostError):
        go(host, ["iommu=pt"])
    assert go(host, state="absent")["loader"] == "grub"
    assert not host.exists(grub.DROP_IN)


def test_a_record_of_another_loader_is_told(host):
    go(host)
    record.write(host, dict(record.read(host), loader="grubby"))
    before = host.tree()
    with pytest.raises(HostError, match="written for loader grubby, and now it is grub: run with state absent"):
        go(host)
    assert host.tree() == before


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 2}', "[]", json.dumps(dict(record.new("grub", [], True, {}), theirs=["x"]))])
def test_a_damaged_record_is_refused(host, text):
    host.write(record.PATH, text)
    before = host.tree()
    for state in ("present", "absent"):
        with pytest.raises(HostError, match="cannot be understood"):
            go(host, state=state)
    assert host.tree() == before


def test_a_lost_record_is_made_again_from_our_own_file(host):
    go(host)
    host.remove(record.PATH)
    assert go(host)["owned"] == ["intel_iommu=on"]
    host.remove(record.PATH)
    assert go(host, state="absent")["changed"] is True
    assert not host.exists(grub.DROP_IN)


def test_a_file_of_an_older_version_becomes_one_of_this(host):
    old = grub_common.HEADER + 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on"\n'
    host.write(grub.DROP_IN, old)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    assert go(host, check=True)["owned"] == ["intel_iommu=on"]
    assert go(host)["changed"] is True
    assert go(host)["changed"] is False


# -- before anything is written ------------------------------------------------------------


def room(monkeypatch, read_only=False, free=1 << 30):
    monkeypatch.setattr(edits, "room", lambda host, path: (path.rpartition("/")[0] or "/", 1, read_only, free))


@pytest.mark.parametrize(
    "more, said", [({"read_only": True}, "/boot/grub is on a read-only filesystem"), ({"free": 4096}, "4 KiB free")]
)
@pytest.mark.parametrize("check", [True, False])
def test_a_read_only_or_full_boot_is_found_first(host, monkeypatch, more, said, check):
    before = host.tree()
    room(monkeypatch, **more)
    with pytest.raises(HostError, match="nothing was changed: .*" + said):
        go(host, check=check)
    monkeypatch.undo()
    assert (host.tree(), host.calls) == (before, [])


def test_an_image_is_written_beside_the_old_one_once(host, monkeypatch):
    large = "/boot/grub/large.efi"
    host.write(large, "x" * (16 << 20))
    monkeypatch.setattr(grub, "generated", lambda this: ["/boot/grub/grub.cfg", large])
    room(monkeypatch, free=24 << 20)
    assert go(host, check=True)["changed"] is True
    room(monkeypatch, free=16 << 20)
    with pytest.raises(HostError, match="16384 KiB free"):
        go(host, check=True)


def test_room_is_that_of_the_filesystem(host):
    folder, dummy, read_only, free = edits.room(host, "/not/there/yet/file")
    assert (folder, read_only) == ("/", False) and free > 0


def test_what_a_killed_write_left_is_cleaned(host):
    host.write("/boot/grub/.vfio-host-abcdefg1", "half")
    host.write("/boot/grub/.vfio-host-mine.txt", "not of that kind")
    go(host)
    assert not host.exists("/boot/grub/.vfio-host-abcdefg1")
    assert host.exists("/boot/grub/.vfio-host-mine.txt")


# -- meanwhile -----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kernel_installed_between_plan_and_apply_gets_its_entry(host, when):
    def install(argv):
        host.fail = None
        if when == "before":
            host.write("/boot/vmlinuz-6.9.0-1-amd64", "")
        result = host.mkconfig(argv)
        host.write("/boot/vmlinuz-6.9.0-1-amd64", "")
        return result

    host.fail = install
    result = go(host)
    newest = [entry for entry in result["next_boot"] if entry["kernel"] == "6.9.0-1-amd64" and entry["managed"]]
    assert newest and all("intel_iommu=on" in entry["tokens"] for entry in newest)
    assert go(host)["changed"] is False


def test_a_menu_without_the_former_default_does_not_take_its_place(host):
    title = "Debian GNU/Linux, with Linux 6.0.0-1-amd64"
    header = host.read("/etc/grub.d/00_header")
    chosen = "Advanced options for Debian GNU/Linux>" + title
    host.write("/etc/grub.d/00_header", header.replace('default="0"', 'default="%s"' % chosen), mode=0o755)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    host.write("/etc/default/grub", host.read("/etc/default/grub") + "GRUB_DISTRIBUTOR=Other\n")
    before = host.tree()
    with pytest.raises(HostError, match="the default entry '%s' is no longer there" % title):
        go(host)
    assert host.tree() == before


def test_our_own_entry_never_becomes_the_default(host):
    """A number that was one too many would now be that of the fallback entries."""
    header = host.read("/etc/grub.d/00_header")
    host.write("/etc/grub.d/00_header", header.replace('default="0"', 'default="2"'), mode=0o755)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    before = host.tree()
    with pytest.raises(HostError, match="the default would be 'Without VFIO: Debian.*correct it first"):
        go(host)
    assert host.tree() == before


def test_a_fallback_entry_that_was_chosen_stays_chosen(host):
    go(host)
    header = host.read("/etc/grub.d/00_header")
    host.write("/etc/grub.d/00_header", header.replace('default="0"', 'default="2"'), mode=0o755)
    host.mkconfig(["grub-mkconfig", "-o", MENU])
    result = go(host, ["iommu=pt"])
    assert result["changed"] is True
    assert "boots without iommu=pt" in result["warnings"][-1]


def test_the_menu_keeps_its_language(host):
    host.write("/etc/default/locale", "LANG=de_DE.UTF-8\n")
    go(host)
    assert host.calls == [GENERATE]
    host.calls.clear()
    host.write(MENU, host.read(MENU).replace("Advanced options for", "Erweiterte Optionen für"))
    go(host, ["iommu=pt"])
    assert host.calls == [["env", "-u", "LC_ALL", "-u", "LANGUAGE", "LANG=de_DE.UTF-8"] + GENERATE]


def test_a_menu_behind_a_link_is_replaced_where_it_is(host):
    os.rename(host.path("/boot/grub"), host.path("/boot/grub2"))
    os.symlink("grub2", host.path("/boot/grub"))
    go(host)
    assert host.readlink("/boot/grub") == "grub2"
    assert host.calls == [["grub-mkconfig", "-o", "/boot/grub2/grub.cfg.vfio-host-new"]]
    assert go(host)["changed"] is False


def test_mode_of_the_menu_stays(host):
    os.chmod(host.path(MENU), 0o444)
    go(host)
    assert host.stat(MENU).st_mode & 0o777 == 0o444
