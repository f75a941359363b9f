# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, edits
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub, proxmox
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import mount
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import proxmox_boot_tool as stand_in
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply, evidence, lines

WANTED = ["intel_iommu=on", "iommu=pt"]
TOOLS = {"proxmox-boot-tool": stand_in.run, "mount": mount.run, "umount": mount.umount}
ONE, TWO = "7A1B-22C3", "7A1C-0F00"
LOADERS = ("systemd-boot", "grub-bios", "grub-efi")


def make(folder, loader):
    found = stand_in.make(Machine(folder, TOOLS), loader)
    found.calls.clear()
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture(params=LOADERS)
def host(request, tmp_path):
    found = make(tmp_path, request.param)
    found.name = request.param
    return found


@pytest.fixture
def sd(tmp_path):
    return make(tmp_path, "systemd-boot")


def test_it_is_recognised_by_what_booted(host):
    found, against = evidence(proxmox, host)
    assert against == []
    assert found[0] == "/etc/kernel/proxmox-boot-uuids has %s, %s" % (ONE, TWO)
    assert any("proxmox-boot-tool" in sentence for sentence in evidence(grub, host)[1])


@pytest.mark.parametrize(
    "path, text, reason",
    [
        ("/etc/kernel/proxmox-boot-uuids", None, "names no partition"),
        ("/etc/kernel/proxmox-boot-uuids", "\n", "names no partition"),
        ("/usr/sbin/proxmox-boot-tool", None, "not installed"),
        ("/etc/kernel/cmdline", None, "running command line"),
        ("/etc/kernel/cmdline", "quiet\nroot=x\n", "no root= in the first line"),
        ("/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", None, "neither systemd-boot nor"),
    ],
)
def test_what_it_is_not_for(sd, path, text, reason):
    sd.remove(path) if text is None else sd.write(path, text)
    assert any(reason in sentence for sentence in evidence(proxmox, sd)[1])


def test_every_entry_of_every_partition_gets_ours(host):
    before = lines(proxmox, host)
    assert len(before) == 4
    apply(proxmox, host, WANTED, [])
    assert lines(proxmox, host) == {name: line + WANTED for name, line in before.items()}
    assert proxmox.view(host)["problems"] == []
    assert proxmox.configured(host)[0][-2:] == WANTED
    assert proxmox.edits(host, WANTED, WANTED) + proxmox.fallback(host, WANTED) == []


def test_nothing_stays_mounted_and_partitions_are_read_only_for_us(host):
    before = host.tree()
    proxmox.view(host)
    assert host.tree() == before
    mounts = [argv for argv in host.calls if argv[0] == "mount"]
    assert len(mounts) == 2
    assert all("ro" in argv[argv.index("-o") + 1].split(",") for argv in mounts)
    assert host.listdir("/run/vfio-host") == []


def test_only_the_first_line_of_the_file_counts(sd):
    sd.write("/etc/kernel/cmdline", "root=ZFS=rpool/ROOT/pve-1 quiet\n# a note\nmore=1\n")
    apply(proxmox, sd, WANTED, [])
    assert sd.read("/etc/kernel/cmdline") == (
        "root=ZFS=rpool/ROOT/pve-1 quiet intel_iommu=on iommu=pt\n# a note\nmore=1\n"
    )
    assert all(line[-2:] == WANTED for line in lines(proxmox, sd).values())
    apply(proxmox, sd, [], WANTED)
    assert sd.read("/etc/kernel/cmdline") == "root=ZFS=rpool/ROOT/pve-1 quiet\n# a note\nmore=1\n"


@pytest.mark.parametrize("text", ["root=x quiet", "root=x quiet\n", "root=x quiet  \n\n"])
def test_the_line_keeps_its_end(text):
    after = proxmox.edit_first_line(text, WANTED, [])
    assert after.split("\n")[0].split() == ["root=x", "quiet"] + WANTED
    assert proxmox.edit_first_line(after, [], WANTED) == text


def test_a_partition_that_the_tool_skips_is_a_failure_and_not_silence(host):
    """The tool ends with 0 all the same."""
    content = mount.CONTENT + TWO
    for path in list(host.tree()):
        if path.startswith(content + "/loader/") or path.startswith(content + "/grub/"):
            host.remove(path)
    if host.name != "systemd-boot":
        os.rmdir(host.root + content + "/grub")
    assert stand_in.run(host, ["proxmox-boot-tool", "refresh"]).rc == 0
    with pytest.raises(HostError, match="skips the partition " + TWO):
        apply(proxmox, host, WANTED, [])


def test_a_partition_that_is_gone_is_a_failure(host):
    host.remove("/dev/disk/by-uuid/" + TWO)
    with pytest.raises(HostError, match="proxmox-boot-tool clean"):
        apply(proxmox, host, WANTED, [])


def test_a_partition_that_cannot_be_mounted_is_a_failure(host):
    host.write("/run/mount-fails", "")
    assert any("wrong fs type" in problem for problem in proxmox.view(host)["problems"])
    with pytest.raises(HostError, match="failed - skipping"):
        apply(proxmox, host, WANTED, [])


def test_a_partition_that_somebody_has_mounted_is_read_there(host):
    os.makedirs(host.root + "/boot/efi")
    mount.run(host, ["mount", "/dev/disk/by-uuid/" + ONE, "/boot/efi"])
    assert len(lines(proxmox, host)) == 4
    assert len([argv for argv in host.calls if argv[0] == "mount"]) == 1
    assert proxmox.view(host)["problems"] == []


def test_what_a_killed_run_left_mounted_does_not_keep_the_tool_out(host):
    os.makedirs(host.root + "/run/vfio-host/esp-" + ONE)
    mount.run(host, ["mount", "-o", "ro", "/dev/disk/by-uuid/" + ONE, "/run/vfio-host/esp-" + ONE])
    apply(proxmox, host, WANTED, [])
    assert all(line[-2:] == WANTED for line in lines(proxmox, host).values())
    assert "/run/vfio-host" not in host.read("/proc/self/mounts")


def test_a_stale_image_on_a_partition_is_seen(host):
    host.write("/boot/initrd.img-6.8.12-4-pve", "a longer image")
    problems = proxmox.view(host)["problems"]
    assert len(problems) == 2 and all("is not the one in /boot" in problem for problem in problems)
    proxmox.refresh(host, ["6.8.12-4-pve"])
    assert proxmox.view(host)["problems"] == []


def test_after_a_refresh_images_are_compared_byte_by_byte(host):
    version = "6.8.12-4-pve"
    host.tools["proxmox-boot-tool"] = lambda host, argv, stdin: None
    host.write("/boot/initrd.img-" + version, "imagE " + version)  # of the same size
    assert proxmox.view(host)["problems"] == []
    with pytest.raises(HostError, match="is not /boot/initrd.img-6.8.12-4-pve"):
        proxmox.refresh(host, [version])
    proxmox.refresh(host, ["not-kept"])


def test_an_entry_whose_kernel_is_gone_is_a_problem(sd):
    sd.remove(mount.CONTENT + ONE + "/EFI/proxmox/6.8.12-4-pve/vmlinuz-6.8.12-4-pve")
    assert any("does not exist" in problem for problem in proxmox.view(sd)["problems"])


def test_the_pinned_kernel_is_the_default(sd):
    assert [entry["kernel"] for entry in proxmox.view(sd)["entries"] if entry["default"]] == ["6.8.12-4-pve"] * 2
    sd.write("/etc/kernel/proxmox-boot-pin", "6.5.13-6-pve\n")
    proxmox.refresh(sd, [])
    assert [entry["kernel"] for entry in proxmox.view(sd)["entries"] if entry["default"]] == ["6.5.13-6-pve"] * 2


def test_an_entry_of_an_administrator_is_left(sd):
    text = "title mine\noptions root=x\nlinux /mine\n"
    sd.write(mount.CONTENT + ONE + "/loader/entries/mine.conf", text)
    apply(proxmox, sd, WANTED, [])
    assert sd.read(mount.CONTENT + ONE + "/loader/entries/mine.conf") == text
    shown = [entry for entry in proxmox.view(sd)["entries"] if entry["id"].startswith("mine")]
    assert (shown[0]["managed"], shown[0]["default"]) == (False, False)


def test_what_there_is_instead_of_a_fallback_entry(host):
    if host.name == "systemd-boot":
        assert proxmox.fallback(host, WANTED) == []
        assert "vfio_host=off" in proxmox.fallback_unavailable(host)
    else:
        edits.write(host, proxmox.fallback(host, WANTED))
        proxmox.generate(host)
        own = [entry for entry in proxmox.view(host)["entries"] if entry["id"].startswith("vfio-host-fallback")]
        assert len(own) == 4 and all("vfio_host=off" in entry["tokens"] for entry in own)
        assert proxmox.fallback_unavailable(host) is None
    assert "vfio_host=off" in proxmox.trial_obstacles(host)[0]


@pytest.mark.parametrize("partitions", [(ONE,), (ONE, TWO)])
@pytest.mark.parametrize("loader", ["grub-bios", "grub-efi"])
def test_a_number_is_refused_that_would_mean_another_entry(tmp_path, loader, partitions):
    """By the menu of each partition, and in check mode too."""
    host = make(tmp_path, loader)
    mine = "".join("menuentry '%s' {\n linux /%s\n}\n" % (name, name) for name in ("A", "B"))
    for uuid in partitions:
        path = mount.CONTENT + uuid + "/grub/grub.cfg"
        text = host.read(path).replace('default="0"', 'default="3"')
        host.write(path, text + "### BEGIN /etc/grub.d/45_mine ###\n%s### END /etc/grub.d/45_mine ###\n" % mine)
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            loader_contract.go(host, WANTED, check=check)
        assert str(caught.value).count("the default would be 'A' instead of 'B', for GRUB_DEFAULT=3 counts") == 1
        assert host.tree() == before
    assert not [argv for argv in host.calls if argv[0] == "proxmox-boot-tool"]


def test_what_could_not_be_put_back_is_finished_by_the_next_run(host, monkeypatch):
    """The partitions have it and the tool fails from then on: without a record it would be taken for an administrator's."""
    before = {path: found for path, found in host.tree().items() if path != "/run/refresh-fails"}

    def fails(host, originals):
        broken(host)
        raise HostError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(cmdline.record, "settled", fails)
        with pytest.raises(HostError, match="no room.*could not be put back.*run again"):
            loader_contract.go(host, WANTED)
    host.remove("/run/refresh-fails")
    loader_contract.go(host, (), "absent")
    assert host.tree() == before


def broken(host):
    host.write("/run/refresh-fails", "")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise, loader):
    if loader == "grub-efi" and promise is loader_contract.a_killed_run_is_finished_by_the_next:
        pytest.skip("takes long, and differs from grub-bios in one file on the partition")
    promise(lambda: make(tmp_path_factory.mktemp("host"), loader), "proxmox", broken=broken)
