# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, loader
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


# -- another installation in the same /boot ------------------------------------------------------


OTHER = trees.STRANGER
NEW, OLD = "6.9.4-200.fc40.x86_64", "6.8.9-300.fc40.x86_64"
ROOT = "root=UUID=1111 ro rootflags=subvol=root rhgb quiet"


@pytest.fixture(params=["bls", "grubby"])
def shared(request, tmp_path):
    """A host of either backend; ``name`` says which."""
    found = trees.fedora(Machine(tmp_path, {"grub2-editenv": grub_editenv.run}))
    if request.param == "bls":
        found.remove(bls.FEDORA)
    found.name = request.param
    assert cmdline.detect(found)[0].NAME == request.param
    return found


def own(version):
    return trees.entry_path("%s-%s" % (trees.MACHINE, version))


def renamed(host, version, name, old="", new=""):
    """An entry under another name, with this in it changed. Returns its path."""
    text = host.read(own(version))
    assert old in text
    host.remove(own(version))
    host.write(trees.entry_path(name), text.replace(old, new), mode=0o600)
    return trees.entry_path(name)


def saved(host, name):
    host.write("/boot/grub2/grubenv", trees.block("saved_entry=%s\n" % name))


def managed_paths(host):
    return [entry["source"] for entry in loader_contract.managed(host, host.name)]


def test_the_next_kernel_does_not_get_the_root_of_another_installation(shared):
    """Its entry sorts first; and its kernel may be the very one of ours."""
    shared.remove("/etc/kernel/cmdline")
    trees.stranger(shared, version=NEW)
    saved(shared, "%s-%s" % (OTHER, NEW))
    before = shared.tree()
    with pytest.raises(HostError, match="another installation"):
        loader_contract.go(shared, WANTED)
    assert shared.tree() == before
    saved(shared, "%s-%s" % (trees.MACHINE, NEW))
    before = shared.tree()
    loader_contract.go(shared, WANTED)
    assert shared.read("/etc/kernel/cmdline") == "%s %s\n" % (ROOT, " ".join(WANTED))
    for name in shared.listdir("/boot/loader/entries"):
        assert not name.startswith("~") or "root=UUID=1111" in shared.read("/boot/loader/entries/" + name)
    loader_contract.go(shared, (), "absent")
    assert shared.tree() == before


@pytest.mark.parametrize("block", ["saved_entry=%s-9.9.9-1.fc40.x86_64\n" % OTHER, ""], ids=["saved", "first"])
def test_a_default_entry_of_another_installation_is_refused(shared, block):
    """Whoever reboots this host would not find it again."""
    loader_contract.go(shared, WANTED)
    path = trees.stranger(shared)
    shared.write("/boot/grub2/grubenv", trees.block(block))
    before = shared.tree()
    assert loader_contract.go(shared, WANTED)["changed"] is False
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            loader_contract.go(shared, WANTED[:1], check=check)
        said = str(caught.value)
        assert path in said and "root=UUID=2222" in said and "root=UUID=1111" in said
        assert "grub2-set-default %s-%s" % (trees.MACHINE, NEW) in said
        assert shared.tree() == before
    shared.write("/boot/vfio-host-trial-%s.img" % NEW, "image")
    with pytest.raises(HostError, match="grub2-set-default"):
        cmdline.backend(shared.name).trial(shared, NEW, "/boot/vfio-host-trial-%s.img" % NEW, ["ro"])
    loader_contract.go(shared, (), "absent")
    assert "iommu=pt" not in "".join(shared.read(own(version)) for version in (OLD, NEW))


def test_entries_of_an_image_that_was_cloned_are_the_hosts_own(shared):
    """Their names have the machine id of where the image was made."""
    for version in (OLD, NEW):
        renamed(shared, version, "%s-%s" % (OTHER, version))
    rescue = renamed(shared, "0-rescue", "%s-0-rescue" % OTHER)
    saved(shared, "%s-%s" % (OTHER, NEW))
    assert managed_paths(shared) == [trees.entry_path("%s-%s" % (OTHER, version)) for version in (NEW, OLD)]
    before = shared.read(rescue)
    loader_contract.go(shared, WANTED)
    loader_contract.in_force(shared, shared.name, WANTED)
    assert shared.read(rescue) == before


@pytest.mark.parametrize(
    "name, old, new, whose",
    [
        ("custom", "", "", True),
        ("custom", "UUID=1111", "UUID=2222", False),
        ("custom", "UUID=1111", "LABEL=here", True),  # the same device
        ("custom", "UUID=1111", "/dev/vda3", True),
        ("custom", "subvol=root", "subvol=/root", True),
        ("custom", "subvol=root", "subvol=@other", False),
        ("custom", "root=UUID=1111 ", "", False),
        (OTHER + "-6.8", "UUID=1111", "LABEL=here", True),
        (OTHER + "-6.8", "UUID=1111", "UUID=2222", False),
        (OTHER + "-6.8", "root=UUID=1111 ", "", False),
        ("6.8", "title", "machine-id %s\ntitle" % trees.MACHINE, True),
        ("6.8", " quiet", " root=UUID=2222\nmachine-id " + trees.MACHINE, True),
        ("ostree-1-fedora", " ro ", " ro ostree=/ostree/boot.1/fedora/abc/0 ", False),
        ("token-6.8", "UUID=1111", "UUID=2222", False),  # two installations may have the same token
        ("token-6.8", "root=UUID=1111 ", "", True),
        (trees.MACHINE + "-6.8", "UUID=1111", "LABEL=what-it-was", True),
    ],
)
def test_whose_entry_it_is(shared, name, old, new, whose):
    shared.write("/dev/vda3", "")
    shared.link("/dev/disk/by-uuid/1111", "../../vda3")
    shared.link("/dev/disk/by-label/here", "../../vda3")
    shared.write("/etc/kernel/entry-token", "token\n")
    path = renamed(shared, OLD, name, old, new)
    assert set(managed_paths(shared)) == {own(NEW)} | ({path} if whose else set())


@pytest.mark.parametrize("target, whose", [("%s-%s.conf" % (trees.MACHINE, OLD), True), ("%s-6.8.conf" % OTHER, False)])
def test_a_link_to_an_entry_is_whose_the_entry_is(shared, target, whose):
    renamed(shared, OLD, target[: -len(".conf")], "" if whose else "UUID=1111", "" if whose else "UUID=2222")
    link = trees.entry_path("aaa")
    shared.link(link, target)
    assert (link in managed_paths(shared)) is whose


@pytest.mark.parametrize("machine", ["", "uninitialized\n", None])
def test_without_a_machine_id_the_root_tells(shared, machine):
    trees.stranger(shared)
    shared.remove("/etc/machine-id")
    if machine is not None:
        shared.write("/etc/machine-id", machine)
    assert managed_paths(shared) == [own(NEW), own(OLD)]


def test_no_entry_of_this_system_is_refused(shared):
    for version in (OLD, NEW):
        renamed(shared, version, "%s-%s" % (OTHER, version), "UUID=1111", "UUID=2222")
    backend = cmdline.backend(shared.name)
    for reasons in (backend.unusable(shared), evidence(backend, shared)[1]):
        assert [reason for reason in reasons if "is one of this system" in reason and "root=UUID=1111" in reason]
    before = shared.tree()
    with pytest.raises(HostError, match="is one of this system"):
        loader_contract.go(shared, WANTED)
    assert shared.tree() == before


def test_a_command_line_with_another_root_is_not_for_the_next_kernel(shared):
    """The entries are this system's by their names, and yet start something else than what runs."""
    shared.remove("/etc/kernel/cmdline")
    for version in (OLD, NEW):
        shared.write(own(version), shared.read(own(version)).replace("UUID=1111", "UUID=3333"))
    before = shared.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="/etc/kernel/cmdline does not exist.*root=UUID=1111.*write it"):
            loader_contract.go(shared, WANTED, check=check)
        assert shared.tree() == before
    shared.write(own(OLD), shared.read(own(OLD)).replace("UUID=3333", "UUID=1111"))
    loader_contract.go(shared, WANTED)
    assert shared.read("/etc/kernel/cmdline") == "%s %s\n" % (ROOT, " ".join(WANTED))


def test_ours_are_not_taken_for_another_installations(shared):
    loader_contract.go(shared, WANTED)
    fallbacks = [entry for entry in bls.view(shared)["entries"] if entry["id"].startswith(loader.FALLBACK_ID)]
    assert [entry["kernel"] for entry in fallbacks] == [NEW, OLD]


# -- one line --------------------------------------------------------------------------------------


def test_a_comment_that_the_next_kernel_gets_is_refused(shared):
    """Fedora's 20-grub.install takes every word of the file; what makes the entries elsewhere is not known."""
    shared.write("/etc/kernel/cmdline", ROOT + "\n# iommu=off\n")
    before = shared.tree()
    assert cmdline.backend(shared.name).configured(shared)[0] == ROOT.split() + ["#", "iommu=off"]
    who = "20-grub.install" if shared.name == "grubby" else "90-loaderentry.install"
    for check in (True, False):
        with pytest.raises(HostError, match="/etc/kernel/cmdline, line 2: .*%s.*# iommu=off" % who):
            loader_contract.go(shared, WANTED, check=check)
        assert shared.tree() == before
    shared.write("/etc/kernel/cmdline", ROOT + "\n")
    loader_contract.go(shared, WANTED)
    shared.write("/etc/kernel/cmdline", "# iommu=off\n" + shared.read("/etc/kernel/cmdline"))
    loader_contract.go(shared, (), "absent")
    assert shared.read("/etc/kernel/cmdline") == "# iommu=off\n" + ROOT + "\n"


def test_a_comment_that_is_left_out_stays(host):
    """By systemd's plugin since 257."""
    host.write("/usr/lib/kernel/install.d/90-loaderentry.install", "grep -Gv '^\\s*#' cmdline\n")
    host.write("/etc/kernel/cmdline", ROOT + "\n# iommu=off\n")
    before = host.tree()
    loader_contract.go(host, WANTED)
    assert host.read("/etc/kernel/cmdline") == "%s %s\n# iommu=off\n" % (ROOT, " ".join(WANTED))
    loader_contract.go(host, (), "absent")
    assert host.tree() == before


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

    promise(host, "bls", hindered=hindered, arrives=arrives, stranger=trees.stranger,
            by_hand=loader_contract.in_options)
