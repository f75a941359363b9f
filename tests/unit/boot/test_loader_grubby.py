# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import edits, entries, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, grubby
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grub_editenv
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grubby as stand_in
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import trees
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply, evidence, lines
from ansible_collections.vfio.host.tests.unit.killable import Killed

WANTED = ["intel_iommu=on", "iommu=pt", "pci=noaer"]
TOOLS = {"grubby": stand_in.run, "grub2-editenv": grub_editenv.run}


def probe(host, argv, stdin=None):
    return Result(argv, 0, "xfs\n" if "--target=fs" in argv else "\n")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture(params=["fedora", "rhel8"])
def host(request, tmp_path):
    found = getattr(trees, request.param)(Machine(tmp_path, dict(TOOLS, **{"grub2-probe": probe})))
    found.name = request.param
    return found


@pytest.fixture
def fedora(tmp_path):
    return trees.fedora(Machine(tmp_path, TOOLS))


@pytest.fixture
def rhel8(tmp_path):
    return trees.rhel8(Machine(tmp_path, TOOLS))


def test_it_is_recognised_by_what_booted(host):
    found, against = evidence(grubby, host)
    assert against == []
    assert any("BOOT_IMAGE=(hd0,gpt2)/vmlinuz-" in sentence for sentence in found)


@pytest.mark.parametrize(
    "path, text, reason",
    [
        ("/proc/cmdline", "ro quiet\n", "no BOOT_IMAGE="),
        ("/proc/cmdline", "BOOT_IMAGE=0 ro\n", "no BOOT_IMAGE= with a path"),
        ("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-5 ro\n", "vmlinuz-5 is in no entry"),
        ("/proc/cmdline", "BOOT_IMAGE=(hd0)/ostree/x/vmlinuz-6 ostree=/ostree/boot.1/x ro\n", "ostree system"),
        ("/run/ostree-booted", "", "ostree system"),
        ("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n', "no GRUB_ENABLE_BLSCFG=true"),
        ("/boot/grub2/grub.cfg", "set default=0\nmenuentry 'x' {\n}\n", "no command blscfg"),
        ("/efi/loader/entries/old.conf", "title old\n", "what is left of another boot loader"),
        ("/proc/sys/kernel/osrelease", "6.9.4-200.fc40.ppc64le\n", "POWER"),
        ("/proc/sys/kernel/osrelease", "6.9.4-200.fc40.s390x\n", "zipl"),
        ("/etc/zipl.conf", "[defaultboot]\n", "zipl"),
        ("/sys/hypervisor/type", "xen\n", "Xen"),
    ],
)
def test_what_else_may_have_booted_or_is_left_over_is_refused(fedora, path, text, reason):
    fedora.write(path, text)
    assert any(reason in sentence for sentence in evidence(grubby, fedora)[1])


def test_it_goes_by_what_makes_the_entries_and_not_by_the_command(fedora):
    fedora.uninstall("grubby")
    assert grubby.unusable(fedora) == []
    assert any("20-grub.install makes the entries" in sentence for sentence in evidence(bls, fedora)[1])
    fedora.install("grubby", stand_in.run)
    fedora.remove(bls.FEDORA)
    assert any("no host of the Fedora family" in reason for reason in grubby.unusable(fedora))
    assert evidence(bls, fedora)[1] == []


def test_every_ordinary_entry_and_the_next_kernel_get_ours_and_nothing_else_moves(host):
    before = lines(grubby, host)
    rescue = [entry for entry in grubby.view(host)["entries"] if entry["recovery"]]
    assert len(before) == 2 and len(rescue) == 1
    apply(grubby, host, WANTED, [])
    assert lines(grubby, host) == {name: line + WANTED for name, line in before.items()}
    assert grubby.configured(host)[0][-3:] == WANTED
    assert grubby.view(host)["problems"] == []
    assert grubby.edits(host, WANTED, WANTED) == []
    assert grubby.fallback(host, WANTED) == []


def test_nothing_is_written_by_asking(host):
    before = host.tree()
    grubby.edits(host, WANTED, [])
    grubby.fallback(host, WANTED)
    grubby.view(host)
    grubby.configured(host)
    evidence(grubby, host)
    assert host.tree() == before
    assert host.calls == []


def test_taking_ours_out_leaves_every_file_as_it_was(host):
    before = host.tree()
    made = apply(grubby, host, WANTED, [])
    created = [edit.path for edit in made if edit.before is None]
    apply(grubby, host, [], WANTED)
    after = host.tree()
    for path in created:
        after.pop(path, None)
    assert after == before


def test_a_value_of_somebody_else_is_never_lost(host):
    """grubby --args=pci=noaer takes pci=nomsi away and --remove-args=console every console."""
    path = "/etc/default/grub"
    host.write(path, host.read(path).replace('LINUX="', 'LINUX="console=tty0 pci=nomsi '))
    before = lines(grubby, host)
    apply(grubby, host, WANTED, [])
    for name, line in lines(grubby, host).items():
        assert tokens.replace(line, WANTED, []) == before[name]
    assert "console=tty0 pci=nomsi" in host.read(path)


def test_a_token_that_somebody_has_already_is_theirs(fedora):
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        fedora.write(path, fedora.read(path).replace(" ro ", " ro iommu=pt "))
    before = lines(grubby, fedora)
    apply(grubby, fedora, ["iommu=pt"], [])
    assert all(line.count("iommu=pt") == 2 for line in lines(grubby, fedora).values())
    assert grubby.edits(fedora, ["iommu=pt"], ["iommu=pt"]) == []
    apply(grubby, fedora, [], ["iommu=pt"])
    assert lines(grubby, fedora) == before


@pytest.mark.parametrize(
    "line, wanted",
    [
        ("intel_iommu=on quiet intel_iommu=off", ["intel_iommu=on"]),
        ("hugepagesz=2M hugepages=4", ["hugepagesz=1G", "hugepages=4"]),
    ],
)
def test_what_somebody_has_too_and_is_not_in_force_stays_his(tmp_path, line, wanted):
    """It is defeated by another, or half of a pair, so it is asked again: as ours, beside his."""
    host = trees.fedora(Machine(tmp_path, TOOLS), "root=UUID=1111 ro " + line)
    host.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.9.4-200.fc40.x86_64 ro\n")
    before, theirs = host.tree(), lines(grubby, host)
    for asked in (wanted, ["iommu=pt"], wanted, wanted + ["iommu=pt"]):
        loader_contract.go(host, asked)
        assert lines(grubby, host) == {name: was + asked for name, was in theirs.items()}
        assert loader_contract.go(host, asked)["changed"] is False
    loader_contract.go(host, (), "absent")
    assert host.tree() == before


def test_what_tuned_adds_to_every_entry_stays(fedora):
    """It is in a variable of GRUB's, which no file of ours has: once more beside ours, and there when ours is gone."""
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        fedora.write(path, fedora.read(path).replace("quiet\n", "quiet $tuned_params\n"))
    fedora.write("/boot/grub2/grubenv", bls.set_environment(fedora.read("/boot/grub2/grubenv"), "tuned_params", "iommu=pt"))
    before, theirs = fedora.tree(), lines(grubby, fedora)
    for asked in (["iommu=pt"], ["pci=noaer"], ["iommu=pt", "pci=noaer"]):
        loader_contract.go(fedora, asked)
        assert {name: sorted(line) for name, line in lines(grubby, fedora).items()} == {
            name: sorted(line + asked) for name, line in theirs.items()}
        assert loader_contract.go(fedora, asked)["changed"] is False
    loader_contract.go(fedora, (), "absent")
    assert fedora.tree() == before


def test_a_run_killed_before_its_first_edit_takes_nothing_of_others_away(tmp_path):
    for point in range(1, 9):
        host = trees.fedora(Machine(tmp_path / str(point), TOOLS), "root=UUID=1111 ro intel_iommu=on quiet intel_iommu=off")
        before = host.tree()
        loader_contract.kill_after(host, point)
        with contextlib.suppress(Killed):
            loader_contract.go(host, ["intel_iommu=on"])
        loader_contract.alive(host)
        loader_contract.go(host, (), "absent")
        assert host.tree() == before


def test_changing_what_is_ours_replaces_exactly_that(host):
    apply(grubby, host, ["iommu=pt", "pci=noaer"], [])
    apply(grubby, host, ["pci=noaer", "intel_iommu=on"], ["iommu=pt", "pci=noaer"])
    for line in lines(grubby, host).values():
        assert line[-2:] == ["pci=noaer", "intel_iommu=on"]
        assert "iommu=pt" not in line


def test_ours_behind_somebodys_later_value_is_put_in_force_again(fedora):
    apply(grubby, fedora, ["intel_iommu=on"], [])
    stand_in.run(fedora, ["grubby", "--update-kernel=ALL", "--args=debug"])
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        fedora.write(path, fedora.read(path).replace(" debug", " intel_iommu=off"))
    apply(grubby, fedora, ["intel_iommu=on"], ["intel_iommu=on"])
    for line in lines(grubby, fedora).values():
        assert line[-2:] == ["intel_iommu=off", "intel_iommu=on"]


def test_what_grubby_does_between_our_runs_is_kept(host):
    apply(grubby, host, WANTED, [])
    stand_in.run(host, ["grubby", "--update-kernel=ALL", "--args=audit=1"])
    assert grubby.edits(host, WANTED, WANTED) == []
    apply(grubby, host, [], WANTED)
    for line in lines(grubby, host).values():
        assert "audit=1" in line
        assert not set(line) & set(WANTED)
    assert not any(token in host.read("/etc/default/grub") for token in WANTED)


def test_a_kernel_that_was_installed_in_between_is_seen_and_edited(host):
    apply(grubby, host, WANTED, [])
    name = "%s-9.9.9-1.x86_64" % trees.MACHINE
    options = "$kernelopts $tuned_params" if host.name == "rhel8" else host.read("/etc/kernel/cmdline").strip()
    host.write("/boot/vmlinuz-9.9.9-1.x86_64", "")
    assert any("9.9.9" in problem for problem in grubby.view(host)["problems"])
    host.write("/boot/initramfs-9.9.9-1.x86_64.img", "")
    host.write(
        "/boot/loader/entries/%s.conf" % name,
        "title New\nversion 9.9.9-1.x86_64\nlinux /vmlinuz-9.9.9-1.x86_64\ninitrd /initramfs-9.9.9-1.x86_64.img\n"
        "options %s\n" % options,
    )
    assert lines(grubby, host)[name][-3:] == WANTED  # made from the files that ours are in
    assert grubby.edits(host, WANTED, WANTED) == []
    path = "/boot/loader/entries/%s.conf" % name
    host.write(path, host.read(path).replace(options, "root=/dev/x ro"))
    assert [edit.path for edit in grubby.edits(host, WANTED, WANTED)] == [path]


def test_the_files_are_written_in_an_order_that_keeps_mkconfig_from_running(fedora):
    order = [edit.path for edit in grubby.edits(fedora, WANTED, [])]
    assert order[0] == "/etc/default/grub"
    assert order[-1] == "/etc/kernel/cmdline"
    assert order == [edit.path for edit in grubby.edits(fedora, WANTED, [])]


def test_the_file_for_the_next_kernel_stays_newer_than_the_settings(fedora):
    """Where it is older or not there, installing a kernel runs grub2-mkconfig, which makes it anew."""
    fedora.remove("/etc/kernel/cmdline")
    for parameters in (WANTED, [], WANTED, WANTED[:1]):
        loader_contract.go(fedora, parameters)
        assert fedora.stat("/etc/kernel/cmdline").st_mtime_ns >= fedora.stat("/etc/default/grub").st_mtime_ns


def test_the_fallback_alone_keeps_its_line_from_the_next_kernel(host):
    """grubby would make /etc/kernel/cmdline of the last entry, which is our fallback."""
    if host.exists("/etc/kernel/cmdline"):
        host.remove("/etc/kernel/cmdline")
    before, shown = host.tree(), lines(grubby, host)
    loader_contract.go(host, ())
    assert host.read("/etc/kernel/cmdline").split() == list(shown.values())[0]
    stand_in.run(host, ["grubby", "--update-kernel=ALL", "--args=audit=1"])
    assert "vfio_host=off" not in host.read("/etc/kernel/cmdline")
    stand_in.run(host, ["grubby", "--update-kernel=ALL", "--remove-args=audit=1"])
    loader_contract.go(host, (), "absent")
    assert sorted(host.tree()) == sorted(before) and lines(grubby, host) == shown


def test_without_a_cmdline_file_one_is_made_from_the_default_entry(fedora):
    fedora.remove("/etc/kernel/cmdline")
    name = "/boot/loader/entries/%s-6.9.4-200.fc40.x86_64.conf" % trees.MACHINE
    fedora.write(name, fedora.read(name).replace("quiet\n", "quiet $tuned_params\n"))
    apply(grubby, fedora, WANTED, [])
    assert fedora.read("/etc/kernel/cmdline") == (
        "root=UUID=1111 ro rootflags=subvol=root rhgb quiet intel_iommu=on iommu=pt pci=noaer\n"
    )


def test_a_killed_run_does_not_take_from_it_what_is_an_administrators(tmp_path):
    def there(point):
        host = trees.fedora(Machine(tmp_path / str(point), TOOLS))
        host.remove("/etc/kernel/cmdline")
        name = "/boot/loader/entries/%s-6.9.4-200.fc40.x86_64.conf" % trees.MACHINE
        host.write(name, host.read(name).replace("quiet\n", "quiet iommu=pt\n"))
        return host

    for point in range(9):
        host = there(point)
        loader_contract.kill_after(host, point)
        with contextlib.suppress(Killed):
            loader_contract.go(host, ["iommu=pt"])
        loader_contract.alive(host)
        loader_contract.go(host, ["iommu=pt"])
        assert host.read("/etc/kernel/cmdline") == "root=UUID=1111 ro rootflags=subvol=root rhgb quiet iommu=pt iommu=pt\n"


def test_without_a_cmdline_file_the_one_of_the_system_is_the_base(fedora):
    fedora.remove("/etc/kernel/cmdline")
    fedora.write("/usr/lib/kernel/cmdline", "root=LABEL=r\n")
    apply(grubby, fedora, ["iommu=pt"], [])
    assert fedora.read("/etc/kernel/cmdline") == "root=LABEL=r iommu=pt\n"


# -- RHEL 8 --------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["8.0", "8.1", "8.4", "8.9", "8.10"])
def test_no_release_of_rhel_8_is_silently_left_without_ours(tmp_path, release):
    host = trees.rhel8(Machine(tmp_path, TOOLS), release)
    assert evidence(grubby, host)[1] == []
    apply(grubby, host, WANTED, [])
    assert all(line[-3:] == WANTED for line in lines(grubby, host).values())
    assert tokens.split(host.read("/etc/kernel/cmdline"))[-3:] == WANTED
    for name in host.listdir("/boot/loader/entries"):
        if not name.startswith("~"):
            assert "$kernelopts" in host.read("/boot/loader/entries/" + name)


def test_grubby_does_not_make_the_next_kernel_of_our_fallback_entry(rhel8):
    """It makes /etc/kernel/cmdline of the last entry where there is none."""
    apply(grubby, rhel8, WANTED, [])
    stand_in.run(rhel8, ["grubby", "--update-kernel=ALL", "--args=audit=1"])
    assert "vfio_host=off" not in rhel8.read("/etc/kernel/cmdline")
    apply(grubby, rhel8, [], WANTED)
    assert "vfio_host=off" not in rhel8.read("/etc/kernel/cmdline")


def test_the_block_keeps_its_size_and_its_link(rhel8):
    apply(grubby, rhel8, WANTED, [])
    text = rhel8.read("/boot/efi/EFI/redhat/grubenv")
    assert len(text) == 1024
    assert rhel8.readlink("/boot/grub2/grubenv") == "../efi/EFI/redhat/grubenv"
    assert rhel8.stat("/boot/efi/EFI/redhat/grubenv").st_mode & 0o777 == 0o700
    assert bls.environment(text)["boot_success"] == "0"


def test_what_does_not_fit_into_the_block_is_refused_before_anything_is_written(rhel8):
    before = rhel8.tree()
    many = ["vfio_pci.ids=" + ",".join("10de:%04x" % number for number in range(90))]
    with pytest.raises(HostError, match="1024 bytes and kernelopts needs"):
        grubby.edits(rhel8, many, [])
    assert rhel8.tree() == before


def test_kernelopts_that_only_grub_cfg_sets_is_the_base(rhel8):
    """grubby makes kernelopts of the new parameters alone here, and the next boot finds no root filesystem."""
    path = "/boot/efi/EFI/redhat/grubenv"
    rhel8.write(path, trees.block("saved_entry=x\n"))
    before = lines(grubby, rhel8)
    apply(grubby, rhel8, WANTED, [])
    assert lines(grubby, rhel8) == {name: line + WANTED for name, line in before.items()}
    assert "root=/dev/mapper/rhel-root" in bls.environment(rhel8.read(path))["kernelopts"]


def test_kernelopts_that_nothing_sets_is_refused(rhel8):
    rhel8.write("/boot/efi/EFI/redhat/grubenv", trees.block(""))
    rhel8.write("/boot/efi/EFI/redhat/grub.cfg", "blscfg\n")
    with pytest.raises(HostError, match="neither GRUB's environment block nor grub.cfg gives"):
        grubby.edits(rhel8, WANTED, [])
    assert any("$kernelopts" in problem for problem in grubby.view(rhel8)["problems"])


def test_kernelopts_of_another_installation_stay(fedora):
    """Its RHEL 8 says $kernelopts, ours does not, and the environment block is the same."""
    path = "/boot/grub2/grubenv"
    text = "saved_entry=%s-6.9.4-200.fc40.x86_64\nkernelopts=root=UUID=2222 ro \n" % trees.MACHINE
    fedora.write(path, trees.block(text), mode=0o600)
    theirs = trees.stranger(fedora, root="$kernelopts")
    before = fedora.tree()
    loader_contract.go(fedora, WANTED)
    assert (fedora.read(path), fedora.read(theirs)) == (trees.block(text), before[theirs][0].decode())
    loader_contract.in_force(fedora, "grubby", WANTED)
    loader_contract.go(fedora, (), "absent")
    assert fedora.tree() == before


def test_an_entry_without_options_is_refused(fedora):
    path = "/boot/loader/entries/%s-6.9.4-200.fc40.x86_64.conf" % trees.MACHINE
    fedora.write(path, "title x\nversion 1\nlinux /vmlinuz-6.9.4-200.fc40.x86_64\n")
    with pytest.raises(HostError, match="no line 'options'"):
        grubby.edits(fedora, WANTED, [])


@pytest.mark.parametrize(
    "path, old",
    [("/boot/loader/entries/%s-6.8.9-300.fc40.x86_64.conf" % trees.MACHINE, b"Forty"),
     ("/etc/kernel/cmdline", b"quiet"), ("/etc/default/grub", b"GRUB_TIMEOUT")],
)  # fmt: skip
def test_bytes_that_are_no_text_are_refused_and_stay(fedora, path, old):
    fedora.write(path, fedora.read_bytes(path).replace(old, b"F\xf6rty" + old))
    before = fedora.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="%s has bytes that are not UTF-8" % path.replace(".", "[.]")):
            loader_contract.go(fedora, WANTED, check=check)
        assert fedora.tree() == before


# -- faults of others --------------------------------------------------------------------------


def test_all_entries_not_only_the_default_one(host):
    apply(grubby, host, WANTED, [])
    assert len(lines(grubby, host)) == 2
    assert all(tokens.has(line, token) for line in lines(grubby, host).values() for token in WANTED)


def test_names_are_not_regular_expressions(fedora):
    """With sed, vfio.pci would take vfio-pci away, and a name with a bracket fails."""
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        fedora.write(path, fedora.read(path).replace(" quiet", " quiet vfioxpci=1"))
    assert "vfioxpci=1" not in stand_in.changed("a vfioxpci=1 b", "vfio.pci", "")
    apply(grubby, fedora, ["vfio.pci=1"], [])
    apply(grubby, fedora, [], ["vfio.pci=1"])
    assert all("vfioxpci=1" in line for line in lines(grubby, fedora).values())


def test_an_empty_list_matches_nothing(host):
    before = host.tree()
    assert grubby.edits(host, [], []) == []
    assert grubby.edits(host, [], [""]) == []
    assert host.tree() == before


def test_a_token_that_is_the_beginning_of_another_is_another(fedora):
    apply(grubby, fedora, ["iommu=pt"], [])
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        fedora.write(path, fedora.read(path).replace("iommu=pt", "iommu=pt iommu=pt2 xiommu=pt"))
    apply(grubby, fedora, [], ["iommu=pt"])
    assert all(line[-2:] == ["iommu=pt2", "xiommu=pt"] for line in lines(grubby, fedora).values())


# -- entries of our own ------------------------------------------------------------------------


def test_the_fallback_entry_is_last_never_default_and_without_ours(host):
    apply(grubby, host, WANTED, [])
    seen = grubby.view(host)["entries"]
    ordinary = [entry for entry in seen if entry["managed"]]
    assert len(ordinary) == 2 and len(seen) == 5  # and the rescue entry
    for own, entry in zip(seen[-2:], ordinary):
        assert own["id"] == "vfio-host-fallback-" + entry["kernel"]
        assert (own["default"], own["managed"], own["recovery"]) == (False, False, True)
        assert own["tokens"][-1] == "vfio_host=off"
        assert not set(own["tokens"]) & set(WANTED)
        assert own["kernel"] == entry["kernel"]
        assert own["initrds"] == entry["initrds"]
        assert own["tokens"][:-1] == [token for token in entry["tokens"] if token not in WANTED]


@pytest.mark.parametrize("saved", ["", "saved_entry=0\n", "saved_entry=1\n"])
def test_the_fallback_entry_does_not_move_what_boots_by_number(fedora, saved):
    fedora.write("/boot/grub2/grubenv", trees.block(saved))
    before = [entry["id"] for entry in grubby.view(fedora)["entries"] if entry["default"]]
    apply(grubby, fedora, WANTED, [])
    assert [entry["id"] for entry in grubby.view(fedora)["entries"] if entry["default"]] == before


@pytest.mark.parametrize("machine", ["7b92", "a3f0", "ffff", "0000"])
def test_our_entries_sort_last_whatever_the_machine_id_begins_with(fedora, machine):
    for name in fedora.listdir("/boot/loader/entries"):
        path = "/boot/loader/entries/" + name
        text = fedora.read(path)
        fedora.remove(path)
        fedora.write(path.replace(trees.MACHINE, machine), text)
    fedora.write("/boot/grub2/grubenv", trees.block(""))
    apply(grubby, fedora, WANTED, [])
    seen = grubby.view(fedora)["entries"]
    assert [entry["id"].startswith("vfio-host-fallback-") for entry in seen] == [False] * (len(seen) - 2) + [True] * 2
    assert [entry["id"] for entry in seen if entry["default"]] == [machine + "-6.9.4-200.fc40.x86_64"]
    ours = "~vfio-host-fallback"
    assert all(entries.compare_versions(ours, entry["source"].rsplit("/", 1)[1]) < 0 for entry in seen[:-2])


def test_a_kernel_that_goes_leaves_the_others_a_fallback_and_its_own_is_told_and_taken_away(fedora):
    loader_contract.go(fedora, WANTED)
    kernels = [entry["kernel"] for entry in grubby.view(fedora)["entries"] if entry["id"].startswith("vfio-host-fallback")]
    assert kernels == ["6.9.4-200.fc40.x86_64", "6.8.9-300.fc40.x86_64"]
    version = kernels[0]
    entry = "/boot/loader/entries/%s-%s.conf" % (trees.MACHINE, version)
    for path in ("/boot/vmlinuz-" + version, "/boot/initramfs-%s.img" % version, entry):
        fedora.remove(path)
    fedora.write("/boot/grub2/grubenv", trees.block("saved_entry=%s-%s\n" % (trees.MACHINE, kernels[1])))
    fedora.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-%s ro\n" % kernels[1])
    own = "/boot/loader/entries/~vfio-host-fallback-%s.conf" % version
    assert grubby.view(fedora)["problems"] == [
        "%s: /vmlinuz-%s, /initramfs-%s.img does not exist" % (own, version, version)]
    predicted = loader_contract.go(fedora, WANTED, check=True)
    assert predicted["changed"] is True and "%s differs" % own in predicted["regenerated_because"]
    assert loader_contract.go(fedora, WANTED)["changed"] is True
    assert not fedora.exists(own) and grubby.view(fedora)["problems"] == []
    assert grubby.view(fedora)["entries"][-1]["kernel"] == kernels[1]
    assert loader_contract.go(fedora, WANTED)["changed"] is False


def test_the_one_fallback_entry_of_an_earlier_release_goes(fedora):
    fedora.write("/boot/loader/entries/~vfio-host-fallback.conf", "title x\nlinux /vmlinuz-gone\noptions ro\n")
    apply(grubby, fedora, WANTED, [])
    assert not fedora.exists("/boot/loader/entries/~vfio-host-fallback.conf")


def test_the_trial_entry_boots_once_and_nothing_else_changes(host):
    apply(grubby, host, WANTED, [])
    assert grubby.trial_obstacles(host) == []
    before = host.tree()
    kernel = [entry for entry in grubby.view(host)["entries"] if entry["default"]][0]["kernel"]
    host.write("/boot/vfio-host-trial-%s.img" % kernel, "image")
    line = ["root=UUID=1111", "ro", "iommu=pt", "vfio_host=trial"]
    edits.write(host, grubby.trial(host, kernel, "/boot/vfio-host-trial-%s.img" % kernel, line))
    own = [entry for entry in grubby.view(host)["entries"] if entry["id"] == "vfio-host-trial"][0]
    assert (own["tokens"], own["kernel"], own["managed"], own["default"]) == (line, kernel, False, False)
    assert own["initrds"] == ["/boot/vfio-host-trial-%s.img" % kernel]
    assert grubby.once(host) is None
    grubby.set_once(host, "vfio-host-trial")
    assert grubby.once(host) == "vfio-host-trial"
    path = "/boot/efi/EFI/redhat/grubenv" if host.name == "rhel8" else "/boot/grub2/grubenv"
    assert bls.environment(host.read(path))["next_entry"] == "~vfio-host-trial"
    assert host.exists("/boot/loader/entries/~vfio-host-trial.conf")
    grubby.set_once(host, None)
    assert grubby.once(host) is None
    edits.write(host, grubby.trial(host, None, None, None))
    host.remove("/boot/vfio-host-trial-%s.img" % kernel)
    assert host.tree() == before


def test_an_image_elsewhere_makes_no_trial_entry(fedora):
    with pytest.raises(HostError, match="not in the folder of the kernel"):
        grubby.trial(fedora, "6.9.4-200.fc40.x86_64", "/var/x.img", ["ro"])


# -- /etc/default/grub ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ('GRUB_CMDLINE_LINUX="a b"\nX=1\n', 'GRUB_CMDLINE_LINUX="a b n=1"\nX=1\n'),
        ("GRUB_CMDLINE_LINUX='a'  # mine\n", "GRUB_CMDLINE_LINUX='a n=1'  # mine\n"),
        ('GRUB_CMDLINE_LINUX=""\n', 'GRUB_CMDLINE_LINUX="n=1"\n'),
        ("GRUB_CMDLINE_LINUX=a\n", 'GRUB_CMDLINE_LINUX="a n=1"\n'),
        ("GRUB_CMDLINE_LINUX=\n", "GRUB_CMDLINE_LINUX=n=1\n"),
        ('export GRUB_CMDLINE_LINUX="a"', 'export GRUB_CMDLINE_LINUX="a n=1"'),
        ("X=1\n", 'X=1\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX n=1"\n'),
        ("X=1", 'X=1\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX n=1"\n'),
        ('GRUB_CMDLINE_LINUX="$(x)"\n', 'GRUB_CMDLINE_LINUX="$(x)"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX n=1"\n'),
        ('GRUB_CMDLINE_LINUX="a\\\nb"\n',
         'GRUB_CMDLINE_LINUX="a\\\nb"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX n=1"\n'),
        ('GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="b"\n', 'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="b n=1"\n'),
        ('#GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX_DEFAULT="b"\n',
         '#GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX_DEFAULT="b"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX n=1"\n'),
    ],
)  # fmt: skip
def test_ours_in_the_settings_and_out_again(text, expected):
    after = grubby.edit_defaults(text, ["n=1"], [])
    assert after == expected
    assert grubby.edit_defaults(after, ["n=1"], ["n=1"]) == after
    back = grubby.edit_defaults(after, [], ["n=1"])
    assert back.rstrip("\n").replace('"a"', "a") == text.rstrip("\n").replace('"a"', "a")


# -- the environment block ------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["x", "a=b c=d", "with\\slash", "", "y" * 300])
def test_the_block_is_written_as_grub_editenv_writes_it(tmp_path, value):
    host = Machine(tmp_path)
    before = trees.block("saved_entry=x\nkernelopts=root=/dev/x ro \nboot_success=0\n")
    for name in ("kernelopts", "new"):
        host.write("/g", before)
        if "\\" not in value:
            assert grub_editenv.run(host, ["grub-editenv", "/g", "set", "%s=%s" % (name, value)]).rc == 0
            assert bls.set_environment(before, name, value) == host.read("/g")
        after = bls.set_environment(before, name, value)
        assert bls.environment(after)[name] == value
        assert len(after) == 1024
        assert bls.environment(bls.set_environment(after, name, None)).get(name) is None
    with pytest.raises(ValueError, match="more than are free"):
        bls.set_environment(before, "n", "z" * 1000)
    with pytest.raises(ValueError, match="no environment block"):
        bls.set_environment("x", "n", "1")


def hindered(host):
    """A kernel for which nobody has made an entry."""
    host.write("/boot/vmlinuz-9.9.9", "")


def arrives(host):
    trees.install(host, "6.10.1-200.fc40.x86_64")


@pytest.mark.parametrize("tree", ["fedora", "fedora without a file", "rhel8"])
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise, tree):
    def make():
        host = getattr(trees, tree.split()[0])(Machine(tmp_path_factory.mktemp("host"), TOOLS))
        if "without" in tree:
            host.remove(bls.CMDLINE)
        return host

    promise(make, "grubby", hindered=hindered, arrives=arrives, stranger=trees.stranger,
            by_hand=loader_contract.in_options)
