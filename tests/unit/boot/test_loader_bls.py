# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, grubby
from ansible_collections.vfio.host.plugins.module_utils._host import HostError
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grub_editenv, trees
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply, evidence, lines

WANTED = ["intel_iommu=on", "iommu=pt"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: None)


def make(folder, tools=None):
    found = trees.fedora(Machine(folder, tools))
    found.remove(bls.FEDORA)
    return found


@pytest.fixture
def host(tmp_path):
    return make(tmp_path, {"grub2-editenv": grub_editenv.run})


def test_it_is_for_a_host_that_is_not_of_the_fedora_family(host):
    """Debian and others have a package grubby too: the command says nothing."""
    host.write("/usr/sbin/grubby", "")
    assert evidence(bls, host)[1] == []
    assert evidence(grubby, host)[1] != []
    host.write(bls.FEDORA, "")
    assert any("backend grubby" in sentence for sentence in evidence(bls, host)[1])
    assert evidence(grubby, host)[1] == []


@pytest.mark.parametrize(
    "path, text, reason",
    [
        ("/usr/bin/sdbootutil", "", "sdbootutil update-all-entries"),
        ("/boot/efi/loader/entries/old.conf", "title x\n", "what is left of another boot loader"),
        ("/run/ostree-booted", "", "ostree"),
        ("/proc/cmdline", "ro\n", "no BOOT_IMAGE="),
        ("/boot/grub2/grub.cfg", "menuentry x {\n}\n", "no command blscfg"),
    ],
)
def test_what_it_is_not_for(host, path, text, reason):
    host.write(path, text)
    assert any(reason in sentence for sentence in evidence(bls, host)[1])


def test_started_by_systemd_boot_is_against_it(host):
    name = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    host.write(name, b"\7\0\0\0" + "systemd-boot 255\0".encode("utf-16-le"))
    assert any("systemd-boot 255 started" in sentence for sentence in evidence(bls, host)[1])


def test_no_entry_is_refused(host):
    for name in host.listdir("/boot/loader/entries"):
        host.remove("/boot/loader/entries/" + name)
    assert any("no boot entry" in reason for reason in bls.unusable(host))
    assert bls.view(host)["problems"] != []
    assert bls.fallback(host, None) == []


def test_there_and_back(host):
    before = host.tree()
    shown = lines(bls, host)
    apply(bls, host, WANTED, [])
    assert lines(bls, host) == {name: line + WANTED for name, line in shown.items()}
    assert bls.configured(host)[0][-2:] == WANTED
    assert bls.edits(host, WANTED, WANTED) + bls.fallback(host, WANTED) == []
    assert host.read("/etc/default/grub") == before["/etc/default/grub"][0].decode()
    apply(bls, host, [], WANTED)
    assert host.tree() == before


def test_what_makes_the_next_boot_unsafe_is_told(host):
    host.remove("/boot/initramfs-6.9.4-200.fc40.x86_64.img")
    host.write("/boot/vmlinuz-7.0", "")
    host.write("/boot/vmlinuz-8.0.rpmsave", "")
    problems = "\n".join(bls.view(host)["problems"])
    assert "/initramfs-6.9.4-200.fc40.x86_64.img does not exist" in problems
    assert "the installed kernel 7.0 has no entry" in problems
    assert "rescue" not in problems and "8.0" not in problems


def test_a_kernel_that_got_the_line_of_a_trial_is_told(host):
    """kernel-install takes the running line where there is no /etc/kernel/cmdline."""
    path = "/boot/loader/entries/%s-6.9.4-200.fc40.x86_64.conf" % trees.MACHINE
    host.write(path, host.read(path).replace(" quiet", " quiet vfio_host=trial panic=30"))
    with pytest.raises(HostError, match="has vfio_host=trial: its kernel was installed while a trial boot ran"):
        loader_contract.go(host, WANTED)


def test_a_saved_entry_that_is_gone_means_the_first(host):
    host.write("/boot/grub2/grubenv", trees.block("saved_entry=gone\n"))
    default = [entry["kernel"] for entry in bls.view(host)["entries"] if entry["default"]]
    assert default == ["6.9.4-200.fc40.x86_64"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a b\n", "a b n=1\n"),
        ("a b", "a b n=1"),
        ("", "n=1\n"),
        ("# note\na\n", "# note\na n=1\n"),
        ("a\nb\n\n", "a\nb n=1\n\n"),
        ("a -- b\n", "a n=1 -- b\n"),
        ("a  \n", "a n=1  \n"),
    ],
)
def test_one_line_of_tokens(text, expected):
    after = bls.edit_line(text, ["n=1"], [])
    assert after == expected
    assert bls.edit_line(after, ["n=1"], ["n=1"]) == after
    back = bls.edit_line(after, [], ["n=1"])
    assert back.split() == text.split()


def test_names_that_only_look_like_ours_are_left():
    assert bls.edit_line("xn=1 n=12 n=1 n=1.\n", [], ["n=1"]) == "xn=1 n=12 n=1.\n"


def arrives(host):
    trees.install(host, "6.10.1-200.fc40.x86_64")


def hindered(host):
    """A kernel for which nobody has made an entry."""
    host.write("/boot/vmlinuz-9.9.9", "")


@pytest.mark.parametrize("file", ["a file", "no file"])
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_the_promises_of_every_loader(tmp_path_factory, promise, file):
    def host():
        found = make(tmp_path_factory.mktemp("host"))
        if file == "no file":
            found.remove(bls.CMDLINE)
        return found

    promise(host, "bls", hindered=hindered, arrives=arrives)
