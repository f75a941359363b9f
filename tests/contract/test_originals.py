# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that the stand-ins stand for, run beside them on the same trees: what one does, the other does.

Each part runs where a variable of the environment names the original, and is skipped without it:

- ``VFIO_HOST_GRUBBY``: the script grubby-bls of Fedora or RHEL (several with ``:`` between them), with
  ``VFIO_HOST_GRUB_EDITENV``: a grub-editenv
- ``VFIO_HOST_KERNELSTUB``: the sources of kernelstub
- ``VFIO_HOST_PROXMOX``: the sources of proxmox-kernel-helper (several with ``:`` between them)

    PYTHONPATH=.build/collections VFIO_HOST_GRUBBY=... python -m pytest tests/contract
"""

from __future__ import annotations

import os
import re
import shutil

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grubby as backend
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import proxmox
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.contract import sandbox
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import grub_editenv, grubby, kernelstub, mount
from ansible_collections.vfio.host.tests.unit.boot.stand_ins import proxmox_boot_tool, trees
from ansible_collections.vfio.host.tests.unit.boot.stand_ins.machine import Machine, apply

EDITENV = os.environ.get("VFIO_HOST_GRUB_EDITENV", "")
GRUBBYS = [path for path in os.environ.get("VFIO_HOST_GRUBBY", "").split(":") if path and EDITENV]
KERNELSTUB = os.environ.get("VFIO_HOST_KERNELSTUB", "")
PROXMOXES = [path for path in os.environ.get("VFIO_HOST_PROXMOX", "").split(":") if path]

WANTED = ["intel_iommu=on", "iommu=pt"]

if not GRUBBYS + PROXMOXES and not EDITENV + KERNELSTUB:
    pytest.skip("no original is named", allow_module_level=True)
if not sandbox.possible():
    pytest.skip("needs root and a mount namespace", allow_module_level=True)


def paths(found):
    """So that a part without an original is one skipped test."""
    return found or [pytest.param(None, marks=pytest.mark.skip(reason="no original is named"))]


def same(one, other):
    assert sorted(one) == sorted(other)
    for path in one:
        assert one[path] == other[path], path


# -- grub-editenv ------------------------------------------------------------------------------


@pytest.mark.skipif(not EDITENV, reason="no original is named")
@pytest.mark.parametrize(
    "words",
    [["list"], ["set", "a=1"], ["set", "kernelopts=x y=z"], ["set", "kernelopts="], ["set", "a=1", "b=2"], ["set", "a"],
     ["unset", "kernelopts"], ["unset", "gone"], ["set", "a=" + "x" * 900], ["set", "a=" + "x" * 1000]],
)  # fmt: skip
def test_grub_editenv(tmp_path, words):
    text = trees.block("saved_entry=x\nkernelopts=root=/dev/x ro \nboot_success=0\n")
    results = []
    for name in ("original", "stand-in", "ours"):
        host = Machine(tmp_path / name)
        host.write("/g", text)
        if name == "original":
            os.makedirs(host.root + "/stubs")
            shutil.copy(EDITENV, host.root + "/stubs/grub2-editenv")
            result = sandbox.run(host.root, ["grub2-editenv", "/g"] + words)
        elif name == "stand-in":
            result = grub_editenv.run(host, ["grub2-editenv", "/g"] + words)
        else:
            result = Result([], 0)
            try:
                for word in words[1:]:
                    key, equals, value = word.partition("=")
                    host.write("/g", bls.set_environment(host.read("/g"), key, value if words[0] == "set" else None))
            except ValueError:
                result = Result([], 1)
        results.append((result.rc, host.read("/g"), result.stdout))
    assert results[0] == results[1]
    if words != ["set", "a"] and words[0] != "list":
        assert results[2][:2] == results[0][:2]


# -- grubby --------------------------------------------------------------------------------------


GRUBBY_RUNS = [
    [],
    ["--args=x=1"],
    ["--nonsense"],
    ["--update-kernel=ALL"],
    ["--update-kernel=ALL", "--args=intel_iommu=on iommu=pt"],
    ["--update-kernel=ALL", "--args=pci=noaer"],
    ["--update-kernel=ALL", "--args=console=tty1"],
    ["--update-kernel=ALL", "--remove-args=console"],
    ["--update-kernel=ALL", "--remove-args=console=ttyS0,115200"],
    ["--update-kernel=ALL", "--remove-args=rhgb quiet"],
    ["--update-kernel=ALL", "--remove-args=r.gb"],
    ["--update-kernel=ALL", "--remove-args=", "--args="],
    ["--update-kernel=ALL", "--remove-args=quiet", "--args=quiet"],
    ["--update-kernel=ALL", "--args=path=/a/b"],
    ["--update-kernel=DEFAULT", "--args=x=1"],
    ["--update-kernel=/boot/vmlinuz-6.8.9-300.fc40.x86_64", "--args=x=1"],
    ["--update-kernel=/boot/vmlinuz-none", "--args=x=1"],
    ["--info=ALL"],
    ["--info=DEFAULT"],
]


def grubby_machine(root, path, tree):
    """A host with the script as /stubs/grubby and what it calls."""
    host = getattr(trees, tree)(Machine(root))
    with open(path, encoding="utf-8") as handle:
        text = handle.read()
    os.makedirs(host.root + "/stubs")
    sandbox.stub(host.root, "grubby", text.replace("/usr/libexec/grubby/rpm-sort", "/stubs/rpm-sort"))
    shutil.copy(EDITENV, host.root + "/stubs/grub2-editenv")
    sandbox.stub(host.root, "rpm-sort", "#!/bin/sh\nexec sort -V\n")
    sandbox.stub(host.root, "mountpoint", "#!/bin/sh\nexit 1\n")
    return host


@pytest.mark.parametrize("words", GRUBBY_RUNS, ids=" ".join)
@pytest.mark.parametrize("tree", ["fedora", "rhel8"])
@pytest.mark.parametrize("path", paths(GRUBBYS), ids=str)
@pytest.mark.parametrize("before", ["installed", "ours", "no cmdline"])
def test_grubby(tmp_path, path, tree, words, before):
    original = grubby_machine(tmp_path / "original", path, tree)
    if before == "ours":
        apply(backend, original, WANTED, [])
    elif before == "no cmdline":
        original.remove("/etc/kernel/cmdline")
    sandbox.copy(original.root, str(tmp_path / "copy"))
    with open(path, encoding="utf-8") as handle:
        pattern = "GRUB_CMDLINE_LINUX=" if 's/^GRUB_CMDLINE_LINUX=.*' in handle.read() else "GRUB_CMDLINE_LINUX"
    real = sandbox.run(original.root, ["grubby"] + words)
    ours = grubby.run(Machine(tmp_path / "copy"), ["grubby"] + words, defaults_pattern=pattern)
    assert (real.rc, real.stdout) == (ours.rc, ours.stdout), real.stderr
    same(sandbox.tree(original.root), sandbox.tree(str(tmp_path / "copy")))


@pytest.mark.parametrize("tree", ["fedora", "rhel8"])
@pytest.mark.parametrize("path", paths(GRUBBYS), ids=str)
def test_grubby_shows_what_we_show(tmp_path, path, tree):
    """An administrator who asks grubby after our run sees the command lines that we read back."""
    host = grubby_machine(tmp_path, path, tree)
    apply(backend, host, WANTED, [])
    said = sandbox.run(host.root, ["grubby", "--info=ALL"]).stdout
    shown = dict(zip(re.findall('^id="(.*)"', said, re.M), re.findall('^args="(.*)"', said, re.M)))
    roots = dict(zip(re.findall('^id="(.*)"', said, re.M), re.findall('^root="(.*)"', said, re.M)))
    seen = {entry["source"].rsplit("/", 1)[1][: -len(".conf")]: entry for entry in backend.view(host)["entries"]}
    assert sorted(shown) == sorted(seen)
    for name, entry in seen.items():
        line = [word for word in shown[name].split() if word != "$tuned_params"]
        assert ["root=" + roots[name]] + line == entry["tokens"]
    order = re.findall('^id="(.*)"', said, re.M)
    assert order[-1] == "~vfio-host-fallback"


# -- kernelstub --------------------------------------------------------------------------------


KERNELSTUB_RUNS = [
    [],
    ["--verbose", "--preserve-live-mode"],
    ["-a", "intel_iommu=on iommu=pt"],
    ["-a", "quiet"],
    ["-a", 'dyndbg="file x +p"'],
    ["-o", "quiet splash x=1"],
    ["-n"],
    ["-m", "-l"],
]
DEBIAN = '''
import functools
import subprocess


@functools.total_ordering
class Version:
    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text

    def __gt__(self, other):
        return subprocess.call(["dpkg", "--compare-versions", self.text, "gt", other.text]) == 0
'''


def kernelstub_machine(root):
    host = kernelstub.make(Machine(root))
    host.write("/stubs/lib/debian/__init__.py", "")
    host.write("/stubs/lib/debian/changelog.py", DEBIAN)
    shutil.copytree(KERNELSTUB + "/kernelstub", host.root + "/stubs/lib/kernelstub")
    with open(KERNELSTUB + "/bin/kernelstub", encoding="utf-8") as handle:
        text = handle.read()
    head = "#!/usr/bin/python3\nimport sys\nsys.dont_write_bytecode = True\nsys.path.insert(0, '/stubs/lib')\n"
    sandbox.stub(host.root, "kernelstub", text.replace("#!/usr/bin/python3\n", head, 1))
    sandbox.stub(host.root, "efibootmgr", "#!/bin/sh\necho BootCurrent: 0000\necho BootOrder: 0000\n")
    sandbox.stub(host.root, "findmnt", "#!/bin/sh\necho %s\n" % kernelstub.UUID)
    host.write("/proc/mounts", "/dev/vda2 / ext4 rw 0 0\n/dev/vda1 /boot/efi vfat rw 0 0\n")
    host.write("/dev/vda2", "")
    host.link("/sys/class/block/vda1", "../../devices/pci/vda/vda1")
    os.makedirs(host.root + "/var/log")
    return host


@pytest.mark.skipif(not KERNELSTUB, reason="no original is named")
@pytest.mark.parametrize("words", KERNELSTUB_RUNS, ids=" ".join)
@pytest.mark.parametrize("state", ["installed", "live", "no kernel", "one kernel"])
def test_kernelstub(tmp_path, words, state):
    original = kernelstub_machine(tmp_path / "original")
    if state == "live":
        path = kernelstub.CONFIGURATION
        original.write(path, original.read(path).replace('"live_mode": false', '"live_mode": true'))
    for version in {"no kernel": kernelstub.VERSIONS, "one kernel": kernelstub.VERSIONS[:1]}.get(state, ()):
        original.remove("/boot/vmlinuz-" + version)
        original.remove("/boot/initrd.img-" + version)
    sandbox.copy(original.root, str(tmp_path / "copy"))
    real = sandbox.run(original.root, ["kernelstub"] + words)
    ours = kernelstub.run(Machine(tmp_path / "copy"), ["kernelstub"] + words)
    assert real.rc == ours.rc, real.stderr
    same(sandbox.tree(original.root, ["/var/log/"]), sandbox.tree(str(tmp_path / "copy"), ["/var/log/"]))


@pytest.mark.skipif(not KERNELSTUB, reason="no original is named")
def test_kernelstub_writes_what_we_have_written(tmp_path):
    """After our run the original's next one, for a new kernel, changes nothing; and its delete leaves ours."""
    from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import kernelstub as ours

    host = kernelstub_machine(tmp_path)
    apply(ours, host, WANTED, [])
    before = sandbox.tree(host.root, ["/var/log/"])
    assert sandbox.run(host.root, ["kernelstub", "--verbose", "--preserve-live-mode"]).rc == 0
    same(before, sandbox.tree(host.root, ["/var/log/"]))
    sandbox.run(host.root, ["kernelstub", "-d", "splash"])
    line = ours.configured(host)[0]
    assert sorted(line) == sorted(["quiet", "systemd.show_status=false", "loglevel=0"] + WANTED)


# -- proxmox-boot-tool -------------------------------------------------------------------------


STUBS = {
    "mount": '''#!/bin/sh
while [ $# -gt 2 ]; do
    case "$1" in
        -o | -t) shift 2 ;;
        --bind)
            mv "$3" "$3.real"
            exec ln -s "$2" "$3"
            ;;
        *) shift ;;
    esac
done
[ ! -e /run/mount-fails ] || { echo "mount: wrong fs type" >&2; exit 32; }
rmdir "$2" && exec ln -s "/stand-in/partitions/${1##*/}" "$2"
''',
    "umount": '''#!/bin/sh
rm "$1"
[ ! -e "$1.real" ] || exec mv "$1.real" "$1"
exec mkdir "$1"
''',
    "mountpoint": "#!/bin/sh\nexit 1\n",
    "systemd-detect-virt": "#!/bin/sh\nexit 1\n",
    "apt-config": "#!/bin/sh\necho \"DPKG='/stubs/dpkg'\"\n",
    "update-grub": "#!/bin/sh\ncp /menu /boot/grub/grub.cfg\nchmod 600 /boot/grub/grub.cfg\n",
}
DPKG = '''#!/bin/sh
if [ "$1" = --print-architecture ]; then
    echo amd64
    exit
fi
for path in /boot/vmlinuz-*; do
    echo "ii  proxmox-kernel-${path#/boot/vmlinuz-}-signed 1.0 amd64 a kernel"
done
'''


def proxmox_machine(root, path, loader):
    host = proxmox_boot_tool.make(Machine(root), loader)
    for name, text in STUBS.items():
        sandbox.stub(host.root, name, text)
    sandbox.stub(host.root, "dpkg", DPKG)
    sandbox.stub(host.root, "awk", '#!/bin/sh\nexec %s "$@"\n' % os.path.realpath(shutil.which("awk")))
    for source, target in (
        ("src/proxmox-boot/functions", "/stubs/functions"), ("src/bin/proxmox-boot-tool", "/stubs/proxmox-boot-tool"),
        ("src/proxmox-boot/zz-proxmox-boot", "/etc/kernel/postinst.d/zz-proxmox-boot"),
    ):  # fmt: skip
        with open(os.path.join(path, source), encoding="utf-8") as handle:
            text = handle.read()
        text = text.replace("/usr/share/proxmox-kernel-helper/scripts/functions", "/stubs/functions")
        host.write(target, text, mode=0o755)
    host.write("/etc/kernel/postinst.d/proxmox-auto-removal", "#!/bin/sh\n", mode=0o755)
    host.write("/menu", host.read(mount.CONTENT + "7A1B-22C3/grub/grub.cfg") or "")
    os.makedirs(host.root + "/var/tmp", exist_ok=True)
    os.makedirs(host.root + "/tmp", exist_ok=True)
    return host


IGNORED = ["/menu", "/etc/systemd/system-generators", "/var/tmp/espmounts"]


@pytest.mark.parametrize("state", [
    "as made", "other line", "several lines", "no newline", "no root", "no file", "no partition", "no mount",
    "not initialised", "bad uuid", "new kernel", "old kernel", "no image", "pinned", "own entry",
])  # fmt: skip
@pytest.mark.parametrize("loader", ["systemd-boot", "grub-bios", "grub-efi"])
@pytest.mark.parametrize("path", paths(PROXMOXES), ids=str)
def test_proxmox_boot_tool(tmp_path, path, loader, state):
    original = proxmox_machine(tmp_path / "original", path, loader)
    prepare(original, state)
    sandbox.copy(original.root, str(tmp_path / "copy"))
    real = sandbox.run(
        original.root, ["env", "PVE_EFIBOOT_UNSHARED=1", "sh", "/stubs/proxmox-boot-tool", "refresh"])
    copy = Machine(tmp_path / "copy")
    ours = proxmox_boot_tool.run(copy, ["proxmox-boot-tool", "refresh"])
    assert real.rc == ours.rc, real.stderr
    content = mount.CONTENT
    if loader != "systemd-boot":  # the menu is update-grub's, and a stub's on both sides
        for uuid in ("7A1B-22C3", "7A1C-0F00"):
            for host in (original, copy):
                host.write(content + uuid + "/grub/grub.cfg", "")
    same(sandbox.tree(original.root, IGNORED), sandbox.tree(copy.root, IGNORED))
    words = ("skipping", "failed", "Removing", "No root=")
    said = [line.strip() for line in real.stderr.splitlines() if any(word in line for word in words)]
    assert said == [line.strip() for line in ours.stderr.splitlines() if any(word in line for word in words)]


def prepare(host, state):
    one, two = mount.CONTENT + "7A1B-22C3", mount.CONTENT + "7A1C-0F00"
    line = "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet intel_iommu=on"
    if state == "other line":
        host.write(proxmox.CMDLINE, line + "\n")
    elif state == "several lines":
        host.write(proxmox.CMDLINE, line + "\nmore=1\n# a note\n")
    elif state == "no newline":
        host.write(proxmox.CMDLINE, line)
    elif state == "no root":
        host.write(proxmox.CMDLINE, "quiet\nroot=/dev/x\n")
    elif state == "no file":
        host.remove(proxmox.CMDLINE)
    elif state == "no partition":
        host.remove("/dev/disk/by-uuid/7A1C-0F00")
    elif state == "no mount":
        host.write("/run/mount-fails", "")
    elif state == "not initialised":
        host.remove(two + "/loader/loader.conf")
        shutil.rmtree(host.root + two + "/grub", ignore_errors=True)
    elif state == "bad uuid":
        host.write(proxmox.UUIDS, "nonsense\n\n7A1B-22C3\n")
    elif state == "new kernel":
        host.write("/boot/vmlinuz-6.11.0-1-pve", "kernel")
        host.write("/boot/initrd.img-6.11.0-1-pve", "image")
        host.remove("/boot/vmlinuz-6.5.13-6-pve")
        host.remove("/boot/initrd.img-6.5.13-6-pve")
    elif state == "old kernel":
        host.remove("/boot/vmlinuz-6.5.13-6-pve")
    elif state == "no image":
        host.remove("/boot/initrd.img-6.8.12-4-pve")
    elif state == "pinned":
        host.write("/etc/kernel/proxmox-boot-pin", "6.5.13-6-pve\n")
        host.write("/boot/grub/grub.cfg", "")
    elif state == "own entry":
        host.write(one + "/loader/entries/mine.conf", "title mine\noptions x\n")
