# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a boot configuration on one lab host: there, proven by booting, and back byte for byte."""

from __future__ import annotations

import json
import re

from host import Failed, differences

CARDS = ("0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:02:00.1")
HOSTS_OWN = {"0000:00:02.0": "bochs-drm", "0000:00:1f.2": "ahci", "0000:00:19.0": "e1000e"}
VARIABLES = {
    "vfio_host_devices": [
        {"name": "first_card", "match": "id == '1234:1111' && parent != `null`"},
        {"name": "second_card", "id": "1002:5046"},
    ],
    "vfio_host_reboot": "allowed",
    "vfio_host_libvirt": False,
    "vfio_host_trial_deadline": 600,
}
"""As in playbooks/vars/lab.yml, without guests and bridges: those have their own proofs."""


def arguments(**more):
    return ["-e", json.dumps(dict(VARIABLES, **more))]


def expect(condition, text):
    if not condition:
        raise Failed(text)


def bound(host, wanted="vfio-pci", cards=CARDS):
    """Every card is on vfio-pci (or, with None, none is), and the host has what is its own."""
    found = host.drivers(*cards)
    wrong = {address: driver for address, driver in found.items() if (driver == "vfio-pci") != (wanted == "vfio-pci")}
    expect(not wrong, "drivers: %s" % wrong)
    own = host.drivers(*HOSTS_OWN)
    expect(own == HOSTS_OWN, "the host's own devices: %s" % own)
    trouble = host.kernel_trouble()
    expect(not trouble, "the kernel log has %s" % trouble[:3])


def as_wanted(host, cards=CARDS):
    if host.profile != "amd":  # its IOMMU is on by default
        expect("intel_iommu=on" in host.cmdline(), "the running line is %s" % " ".join(host.cmdline()))
    bound(host, cards=cards)
    taken = {line.split()[0] for line in host.log() if line.endswith("taken")}
    expect(taken == set(cards), "the kernel log says of our script: %s" % host.log())


def as_before(host):
    expect("intel_iommu=on" not in host.cmdline(), "the running line is %s" % " ".join(host.cmdline()))
    bound(host, None)


# -- steps: each takes the host and what earlier steps remembered, and returns a line about what was seen -----------------


def settle(host, seen):
    """The host as it was made; of GRUB's menu the way that its own tools write it on this host."""
    host.run("if command -v update-grub >/dev/null && [ -d /boot/grub ]; then update-grub; fi", timeout=600)
    host.reboot()
    seen["before"] = host.files()
    return "%d files, folders and links remembered" % len(seen["before"])


def check(host, seen):
    before = host.files()
    output, recap, dummy = host.playbook("site", "--check", "--diff", *arguments())
    expect(recap.get("changed"), "the check run predicts nothing on a bare host")
    found = differences(before, host.files())
    expect(not found, "the check run wrote: %s" % found[:5])
    seen["predicted"] = recap["changed"]
    return "predicts %d changed tasks, writes nothing" % recap["changed"]


def apply(host, seen):
    boots = host.boot_id()
    output, recap, seconds = host.playbook("site", *arguments())
    expect(host.boot_id() != boots, "the host was not rebooted")
    as_wanted(host)
    seen["trial"] = "vfio_host=trial" in host.cmdline()
    left = host.run("ls /etc/systemd/system | grep vfio-host-trial; ls /boot | grep vfio-host-trial; ls /var/lib/vfio-host", check=False)
    expect("vfio-host-trial" not in left, "left of the trial: %s" % left)
    return "%d s, %s, %d changed" % (seconds, "through a trial boot" if seen["trial"] else "without a trial", recap["changed"])


def second_run(host, seen):
    boots = host.boot_id()
    dummy, recap, seconds = host.playbook("site", *arguments())
    expect(recap.get("changed") == 0, "the second run changed %s" % recap)
    expect(host.boot_id() == boots, "the second run rebooted the host")
    return "changed=0 in %d s" % seconds


def ordinary_boot(host, seen):
    """The default entry, with nothing chosen by anybody."""
    host.reboot()
    as_wanted(host)
    expect(not [token for token in host.cmdline() if token.startswith("vfio_host=")], "not the ordinary entry: %s" % host.cmdline())
    dummy, recap, dummy = host.playbook("site", *arguments())
    expect(recap.get("changed") == 0, "a run after an ordinary boot changed %s" % recap)
    return "all four functions taken; a run after it changed=0"


def fallback(host, seen):
    """The entry without VFIO, chosen once, and the ordinary one after it."""
    once(host, fallback_id(host))
    host.reboot()
    expect("vfio_host=off" in host.cmdline(), "not the fallback entry: %s" % " ".join(host.cmdline()))
    as_before(host)
    host.reboot()
    as_wanted(host)
    return "boots without VFIO; the boot after it is the ordinary one"


def fallback_id(host):
    grub = host.run("cat /boot/grub/grub.cfg 2>/dev/null", check=False)
    found = re.findall(r"(?:menuentry_id_option|--id)\s+'?(vfio-host-fallback-[^\s'{]+)", grub)
    if found:
        return found[0] if "submenu" not in grub.split(found[0])[0].splitlines()[-1] else found[1]
    entries = host.run("ls /boot/efi/loader/entries /efi/loader/entries /boot/loader/entries 2>/dev/null", check=False).split()
    ours = sorted(name for name in entries if name.lstrip("-").startswith("vfio-host-fallback"))
    expect(ours, "there is no fallback entry")
    return ours[-1]


def once(host, entry):
    """Have the next boot start an entry, with the loader's own tools."""
    if entry.endswith(".conf"):
        host.run("bootctl set-oneshot -- %s" % entry)
        return
    host.run("grub-reboot '%s'" % in_menu(host, entry))


def in_menu(host, entry):
    """Where GRUB finds an entry: its id, behind that of its submenu."""
    submenu = re.search(r"submenu [^\n]*'(vfio-host-fallback[^']*)' \{", host.run("cat /boot/grub/grub.cfg"))
    return submenu.group(1) + ">" + entry if submenu and submenu.group(1) != entry else entry


def revert(host, seen):
    boots = host.boot_id()
    dummy, dummy, seconds = host.playbook("revert", *arguments())
    expect(host.boot_id() != boots, "the host was not rebooted")
    as_before(host)
    return "%d s" % seconds


def as_it_was(host, seen):
    """After one more boot, which must need nothing of ours."""
    host.reboot()
    as_before(host)
    found = differences(seen["before"], host.files())
    expect(not found, "not as it was: %s" % "; ".join(found[:12]))
    return "every one of %d files, folders and links is byte for byte as it was" % len(seen["before"])


STEPS = (settle, check, apply, second_run, ordinary_boot, fallback, revert, as_it_was)
