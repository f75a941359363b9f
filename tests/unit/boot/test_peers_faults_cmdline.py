# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that public tools have with the kernel command line. Each test shows that ours has it not."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, record
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, Result
from ansible_collections.vfio.host.tests.unit.boot.grub_host import CMDLINE, GrubHost

MENU = "/boot/grub/grub.cfg"


@pytest.fixture(params=["drop-ins", "in place"])
def host(request, tmp_path):
    return GrubHost(str(tmp_path), drop_ins=request.param == "drop-ins")


def go(host, parameters=("intel_iommu=on",), state="present", check=False, **more):
    asked = {"parameters": list(parameters), "state": state, "loader": "auto"}
    return cmdline.run(host, dict(asked, **more), check)


def ordinary(host):
    return [entry["tokens"] for entry in grub.view(host)["entries"] if entry["managed"]]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_an_empty_list_to_remove_matches_nothing(host, state):
    """A pattern made of an empty list matches every argument: quiet, console= and root= were dropped."""
    before = ordinary(host)
    go(host, [], state)
    assert ordinary(host) == before
    go(host, ["iommu=pt"])
    go(host, [], state)
    assert ordinary(host) == before
    go(host, [], state)
    assert ordinary(host) == before


def test_a_dot_is_a_dot(host):
    """Names went into patterns as they are: vfio-pci.ids also removed what only looks like it."""
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="vfio-pcixids=1:2 a.b=1 aXb=1"\n')
    host.mkconfig(["mkconfig", "-o", MENU])
    before = ordinary(host)
    go(host, ["vfio-pci.ids=1:2", "a.b=2"])
    go(host, [], "absent")
    assert ordinary(host) == before


def test_a_system_that_no_branch_knows_is_an_error(host):
    """Branches for "<= 8.0" and ">= 9.0": releases between did nothing and reported ok."""
    host.write("/proc/cmdline", CMDLINE)
    host.remove("/usr/sbin/grub-mkconfig")
    host.write("/etc/os-release", 'ID="rhel"\nVERSION_ID="8.10"\n')
    before = host.tree()
    for check in (True, False):
        with pytest.raises(HostError, match="no supported boot loader was recognised"):
            go(host, check=check)
    assert (host.tree(), host.calls) == (before, [])


@pytest.mark.parametrize("release", ["8.0", "8.1", "8.10", "9.0", "10.1", "rolling"])
def test_the_release_of_the_system_is_not_asked(host, release):
    host.write("/etc/os-release", 'ID="rhel"\nVERSION_ID="%s"\n' % release)
    assert go(host)["changed"] is True
    assert all("intel_iommu=on" in line for line in ordinary(host))


@pytest.mark.parametrize(
    "running, required",
    [
        ("xintel_iommu=on ro", True),
        ("intel_iommu=on_not", True),
        ("intel_iommu=on,sm_on", False),
        ("quiet intel_iommu=on ro", False),
        ("a=intel_iommu=on", True),
        ("intel_iommu=on intel_iommu=off", True),
        ("intel-iommu=on", False),
        ("-- intel_iommu=on", True),
    ],
)
def test_whether_to_reboot_goes_by_tokens(host, running, required):
    """A substring of the line was looked for: a reboot that never satisfies it is followed by the next one."""
    go(host)
    host.write("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-1 %s\n" % running)
    assert go(host)["reboot_required"] is required


def test_no_reboot_is_asked_for_what_runs_already(host):
    """"Needs a reboot" was counted although the argument was there."""
    host.write("/proc/cmdline", CMDLINE.strip() + " intel_iommu=on\n")
    result = go(host)
    assert (result["changed"], result["reboot_required"]) == (True, False)


def test_check_mode_writes_nothing(host):
    """Check mode rewrote the boot entries."""
    for parameters, state in ((["iommu=pt"], "present"), ([], "absent"), (["a=b"], "present")):
        before = host.tree()
        host.calls.clear()
        go(host, parameters, state, check=True)
        assert (host.tree(), host.calls) == (before, [])
        if state == "present":
            go(host, parameters)


def test_a_failure_between_file_and_menu_is_repaired(host):
    """The menu was generated only by the run that changed the file, so a failure in between stayed."""
    class Killed(BaseException):
        pass

    def die(argv):
        raise Killed

    host.fail = die
    with pytest.raises(Killed):
        go(host)
    host.fail = None
    assert not any("intel_iommu=on" in line for line in ordinary(host))
    assert go(host)["changed"] is True
    assert all("intel_iommu=on" in line for line in ordinary(host))


def test_a_generator_that_does_nothing_and_says_ok_is_a_failure(host):
    """Return codes were all that counted, or not even these."""
    before = host.tree()
    host.fail = lambda argv: Result(argv, 0, "", "done")
    with pytest.raises(HostError, match="wrote no menu"):
        go(host)
    host.fail = lambda argv: [host.write(argv[2], host.read(MENU)), Result(argv, 0)][1]
    with pytest.raises(HostError, match="expected is .*intel_iommu=on"):
        go(host)
    assert host.tree() == before


def test_every_kernel_gets_them_and_not_the_default_only(host):
    go(host)
    kernels = {entry["kernel"] for entry in grub.view(host)["entries"] if "intel_iommu=on" in entry["tokens"]}
    assert kernels == {"6.1.0-50-amd64", "6.0.0-1-amd64"}


def test_a_command_that_is_there_does_not_say_what_booted(host):
    """The loader was the first command that is found: grubby won on hosts that boot otherwise."""
    for name in ("grubby", "kernelstub", "bootctl", "kernel-install", "proxmox-boot-tool", "rpm-ostree"):
        host.write("/usr/bin/" + name, "", mode=0o755)
    assert go(host)["loader"] in ("grub", "grub_in_place")


def test_tokens_are_not_sorted(host):
    """Sorted tokens moved console=, and the last console= is where the system speaks."""
    text = 'GRUB_CMDLINE_LINUX="z=1 console=ttyS0 a=1 console=tty0"\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
    host.write("/etc/default/grub", text)
    host.mkconfig(["mkconfig", "-o", MENU])
    go(host, ["m=1", "b=1"])
    assert all(line[-6:] == "z=1 console=ttyS0 a=1 console=tty0 m=1 b=1".split() for line in ordinary(host))


def test_settings_of_others_survive(host):
    """The settings were written anew from a stock file, or only where a line had one certain form."""
    text = "# mine\nGRUB_TIMEOUT=1 # short\nexport GRUB_CMDLINE_LINUX_DEFAULT='quiet'\nGRUB_THEME=/x\n"
    host.write("/etc/default/grub", text)
    host.mkconfig(["mkconfig", "-o", MENU])
    go(host)
    assert [line for line in text.splitlines() if "DEFAULT" not in line] == [
        line for line in host.read("/etc/default/grub").splitlines() if "DEFAULT" not in line
    ]
    go(host, [], "absent")
    assert host.read("/etc/default/grub") == text


def test_an_emptied_list_leaves_no_file(host):
    before = host.tree()
    go(host)
    go(host, [], fallback_entry=False)
    assert host.tree() == before and not host.exists(record.PATH)


def test_the_menu_is_not_generated_by_every_run(host):
    go(host)
    host.calls.clear()
    go(host)
    assert host.calls == []
