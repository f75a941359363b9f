# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of ``make demo``: run a playbook against the lab, and judge what it did.

``python tools/demo.py STEP LAB_FOLDER RESULTS`` with STEP one of those in STEPS, below.
Each step appends lines ``PASS ...`` or ``FAIL ...`` to RESULTS. What a line claims was read from
the lab: from files there, from its kernel, or from a guest's serial console.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time

VARIABLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "playbooks", "vars", "lab.yml")
MOST_EXECUTIONS = 15
GUEST_DEADLINE = 420
GUESTS = {
    "desk1": {("1234", "1111"), ("8086", "293e")},
    "desk2": {("1002", "5046"), ("8086", "293e")},
}
# Names, types, modes, owners, sizes, link targets, times of change and contents: nothing may move.
TREE = (
    "find /etc /boot -printf '%p %y %m %u %g %s %l %T@\\n' | LC_ALL=C sort | sha256sum; "
    "find /etc /boot -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
)


class Lab:
    """The lab by its state folder."""

    def __init__(self, folder):
        self.inventory = os.path.join(folder, "inventory.yml")
        with open(self.inventory, encoding="utf-8") as handle:
            group = json.loads(handle.read().split("---\n", 1)[1])
        ((dummy, host),) = group["lab"]["hosts"].items()
        self.ssh = ["ssh", "-i", host["ansible_ssh_private_key_file"], "-p", str(host["ansible_port"])]
        self.ssh += shlex.split(host["ansible_ssh_common_args"]) + ["root@" + host["ansible_host"]]

    def run(self, command, timeout=120):
        """Standard output of a command line in the lab."""
        return subprocess.run(self.ssh + [command], check=True, stdout=subprocess.PIPE, timeout=timeout, text=True).stdout

    def playbook(self, name, *arguments):
        """Run a playbook of the collection; returns (rc, output, seconds). Output is shown as it comes."""
        begun = time.monotonic()
        argv = ["ansible-playbook", "-i", self.inventory, "-e", "@" + VARIABLES, "vfio.host." + name, *arguments]
        print("$ " + " ".join(argv), flush=True)
        lines = []
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                lines.append(line)
        return process.returncode, "".join(lines), time.monotonic() - begun


def recap(output):
    """The numbers of the play recap as a dict, {} when there is none."""
    found = re.findall(r"^\S+\s+: (ok=\d+ .*)$", output, re.MULTILINE)
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[-1])} if found else {}


def executions(output):
    """How often a module ran on the host, from the output of ``-vvv``."""
    return len(re.findall(r"Using module file ", output))


def check(lab):
    """site --check --diff on the bare host: shows the plan, changes not one byte."""
    before = lab.run(TREE)
    rc, output, seconds = lab.playbook("site", "--check", "--diff")
    after = lab.run(TREE)
    if rc != 0:
        return False, "check run: ansible-playbook ended with %d" % rc
    if before != after:
        return False, "check run: /etc or /boot is not as it was"
    if not recap(output).get("changed"):
        return False, "check run: predicts no change on a bare host"
    return True, "check run: predicts %d changed tasks in %d s; every byte of /etc and /boot as it was (%s)" % (
        recap(output)["changed"], seconds, before.split()[0][:12])  # fmt: skip


def refuse(lab):
    """What the host needs for itself is refused, before anything is changed."""
    needed = [("display", "0000:00:02.0", "VH203"), ("disk", "0000:00:1f.2", "VH201"), ("ssh", "0000:00:19.0", "VH202")]
    devices = [{"name": name, "address": address, "functions": "listed"} for name, address, dummy in needed]
    before = lab.run(TREE)
    rc, output, dummy = lab.playbook("site", "-e", json.dumps({"vfio_host_devices": devices, "vfio_host_guests": []}))
    if rc == 0 or recap(output).get("changed") != 0:
        return False, "refusals: site ended with %d, changed=%s" % (rc, recap(output).get("changed"))
    missing = ["%s %s" % (code, address) for dummy, address, code in needed
               if not re.search(r"REFUSE %s %s" % (code, re.escape(address)), output)]  # fmt: skip
    if missing:
        return False, "refusals: not refused: %s" % ", ".join(missing)
    if lab.run(TREE) != before:
        return False, "refusals: /etc or /boot is not as it was"
    return True, "refusals: boot display, controller of the root disk and NIC of the SSH connection; nothing changed"


def groups(lab):
    """The kernel's own groups have the pattern of the how-to's machine."""
    listing = lab.run("for g in /sys/kernel/iommu_groups/*/devices; do ls $g | tr '\\n' ' '; echo; done")
    found = {tuple(sorted(line.split())) for line in listing.splitlines()}
    wanted = {("0000:00:01.0", "0000:01:00.0", "0000:01:00.1"), ("0000:02:00.0", "0000:02:00.1")}
    if not wanted <= found:
        return False, "groups: the kernel's are %s" % sorted(found)
    units = " ".join(lab.run("ls /sys/class/iommu").split())
    return True, "groups: 00:01.0 + 01:00.0 + 01:00.1 together, 02:00.0 + 02:00.1 alone (%s)" % units


def revert(lab):
    """revert takes out what site put in: no file, no parameter, no binding of ours is left."""
    tree = lab.run(TREE)
    rc, dummy, dummy = lab.playbook("revert", "--check", "-e", "vfio_host_force_off=true")
    if rc != 0 or lab.run(TREE) != tree:
        return False, "revert: its check run ended with %d, or changed something" % rc
    rc, dummy, seconds = lab.playbook("revert", "-e", "vfio_host_force_off=true")
    if rc != 0:
        return False, "revert: ended with %d" % rc
    left = lab.run(
        # Silence proves nothing where the tool or the file to look into is missing.
        "command -v lsinitramfs > /dev/null || echo no-lsinitramfs; ls /boot/initrd.img-* > /dev/null || echo no-image; "
        "test -r /boot/grub/grub.cfg || echo no-grub.cfg; "
        "find / -xdev \\( -path '*vfio-host*' -o -name '*vfio_host*' \\) -not -path '*vfio-host-lab*' "
        "-not -path '/proc/*' -not -path '/sys/*'; lsinitramfs /boot/initrd.img-* | grep vfio-host; "
        "grep -n intel_iommu=on /boot/grub/grub.cfg /proc/cmdline; "
        "ls -d /sys/bus/pci/drivers/vfio-pci/0000* 2>/dev/null; true"
    )
    if left.strip():
        return False, "revert: left behind: %s" % left.split()
    return True, "revert: nothing of ours is left, every function is back on its host driver (%d s)" % seconds


def site(lab):
    """site on the bare host: one run, one reboot."""
    boots = lab.run("cat /proc/sys/kernel/random/boot_id")
    rc, output, seconds = lab.playbook("site")
    if rc != 0:
        return False, "site: ansible-playbook ended with %d" % rc
    if lab.run("cat /proc/sys/kernel/random/boot_id") == boots:
        return False, "site: the host was not rebooted"
    return True, "site: bare host to started guests in %d s, with one reboot (%d changed)" % (
        seconds, recap(output)["changed"])  # fmt: skip


def parse_guest(text, name):
    """The last complete report of a guest: (functions, other lines), or None.

    A function is a dict with ``address`` and the report's fields, all str.
    """
    prefix = "vfio-host-guest %s " % name
    lines = [line.strip()[len(prefix):] for line in text.replace("\r", "").splitlines() if line.strip().startswith(prefix)]
    if "end" not in lines or "begin" not in lines:
        return None
    end = len(lines) - 1 - lines[::-1].index("end")
    begins = [number for number, line in enumerate(lines[:end]) if line == "begin"]
    if not begins:
        return None
    lines = lines[begins[-1] + 1:end]
    functions = []
    for line in lines:
        if line.startswith("function "):
            fields = dict(part.split("=", 1) for part in line.split()[2:])
            functions.append(dict(fields, address=line.split()[1]))
    return functions, [line for line in lines if not line.startswith("function ")]


def fired(line):
    """How often an interrupt fired, over all CPUs: the numbers that follow ``NN:`` in /proc/interrupts."""
    counts = re.match(r"interrupts \s*\d+:((?:\s+\d+)+)\s", line)
    return sum(int(count) for count in counts.group(1).split()) if counts else 0


def judge_guest(functions, others, wanted):
    """(passed, text[, details]) for a guest's own report against the wanted set of (vendor, device)."""
    by_slot = {}
    for function in functions:
        by_slot.setdefault(function["address"].rsplit(".", 1)[0], []).append(function)
    for slot in by_slot.values():
        if {(f["vendor"][2:], f["device"][2:]) for f in slot} == wanted:
            break
    else:
        return False, "guest kernel lists no slot with just %s" % sorted(wanted)
    for function in slot:
        if function["bars"] == "0" or function["unset_bars"] != "0":
            return False, "%s has no usable BARs: %s" % (function["address"], function)
        if function["pin"] != "0" and function["irq"] == "0" and function["msi"] == "0":
            return False, "%s has neither INTx nor MSI: %s" % (function["address"], function)
        if function["driver"] == "none" and function["class"].startswith("0x0403"):
            return False, "%s is driven by nothing: %s" % (function["address"], function)
    if not any("snd_hda" in line and fired(line) for line in others):
        return False, "no interrupt of the audio function ever fired"
    if not any(line.startswith("disk vda sectors=131072") for line in others):
        return False, "no virtio disk: %s" % others
    if not any("carrier=1 lease=1" in line for line in others):
        return False, "no lease through the virtio NIC and the bridge: %s" % others
    listed = " and ".join("%s [%s:%s]" % (f["address"], f["vendor"][2:], f["device"][2:]) for f in slot)
    details = "; ".join(
        "%s: %s, %s BARs" % (f["address"][-4:], "MSI" if f["msi"] != "0" else "INTx" if f["irq"] != "0" else "no interrupt pin", f["bars"])
        for f in slot
    )
    return True, "guest kernel lists %s" % listed, "%s; virtio disk, DHCP lease through virtio and the bridge" % details


def guests(lab):
    """Both guests at the same time: what each guest's own kernel says on its serial console."""
    end = time.monotonic() + GUEST_DEADLINE
    reports = {}
    while time.monotonic() < end and len(reports) < len(GUESTS):
        for name in GUESTS:
            text = lab.run("cat /var/log/libvirt/qemu/%s-console.log 2>/dev/null || true" % name)
            report = parse_guest(text, name)
            if report:
                reports[name] = report
            print("%s: %d characters on its console" % (name, len(text)), flush=True)
        time.sleep(5)
    running = lab.run("virsh list --name").split()
    results = []
    for name, wanted in GUESTS.items():
        if name not in reports:
            text = lab.run("tail -c 1500 /var/log/libvirt/qemu/%s*.log || true" % name)
            print(text)
            results.append((False, "%s: said nothing within %d s" % (name, GUEST_DEADLINE)))
        elif set(running) != set(GUESTS):
            results.append((False, "%s: running at the same time are only: %s" % (name, ", ".join(running) or "none")))
        else:
            for function in reports[name][0]:
                print(name, function)
            print("\n".join(reports[name][1]))
            passed, text, *details = judge_guest(*reports[name], wanted)
            results.append((passed, "%s: %s" % (name, text)))
            results[:0] = [(passed, "guest %s: %s" % (name, detail)) for detail in details]
    return results


def second_run(lab):
    """site again: nothing changes, nothing reboots, few module executions."""
    boots = lab.run("cat /proc/sys/kernel/random/boot_id")
    rc, output, seconds = lab.playbook("site", "-vvv")
    numbers = recap(output)
    count = executions(output)
    if rc != 0 or numbers.get("changed") != 0:
        return False, "site: second run ended with %d, changed=%s" % (rc, numbers.get("changed"))
    if lab.run("cat /proc/sys/kernel/random/boot_id") != boots:
        return False, "site: the second run rebooted the host"
    if not 0 < count <= MOST_EXECUTIONS:
        return False, "site: the second run took %d module executions, %d are allowed" % (count, MOST_EXECUTIONS)
    return [
        (True, "second run: %d module executions on the host (%d allowed) in %d s, no reboot" % (count, MOST_EXECUTIONS, seconds)),
        (True, "site: second run changed=0"),
    ]


STEPS = {
    "refuse": refuse, "check": check, "site": site, "groups": groups, "guests": guests, "second_run": second_run,
    "revert": revert,
}  # fmt: skip


def last_words(folder, lines=40):
    """The ends of what the lab said on its console and QEMU on its own: both are gone once the lab is."""
    told = []
    for name in ("console.previous.log", "console.log", "qemu.log"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as handle:
                told += ["-- %s ends with:" % name] + handle.read().splitlines()[-lines:]
        except OSError:
            told.append("-- %s: there is none" % name)
    return "\n".join(told)


def main(step, folder, results):
    try:
        outcome = STEPS[step](Lab(folder))
    except (subprocess.SubprocessError, OSError):
        print(last_words(folder), flush=True)
        raise
    outcome = outcome if isinstance(outcome, list) else [outcome]
    os.makedirs(os.path.dirname(os.path.abspath(results)), exist_ok=True)
    with open(results, "a", encoding="utf-8") as handle:
        for passed, text in outcome:
            line = "%s %s" % ("PASS" if passed else "FAIL", text)
            print(line, flush=True)
            handle.write(line + "\n")
    return 0 if all(passed for passed, dummy in outcome) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
