# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong while a host's boot is changed, done to a lab host for real. No one of it may strand the host."""

from __future__ import annotations

import json
import os
import subprocess
import time

import way
from host import BOARDS, BOOT_DEADLINE, Failed, differences
from way import CARDS, arguments, as_before, as_wanted, expect

HERE = os.path.dirname(os.path.abspath(__file__))
PARAMETERS = ["intel_iommu=on"]
KILLER = "/root/interrupt"
MOST_POINTS = 60


def identity(host, address):
    """A line of the list of devices for a function as it is now, driver included."""
    read = "cd /sys/bus/pci/devices/%s && cat vendor device subsystem_vendor subsystem_device" % address
    ids = [line[2:] for line in host.run(read).split()]
    return dict(zip(("vendor", "device", "subsystem_vendor", "subsystem_device"), ids), address=address)


def listed(host, addresses=CARDS):
    """What vfio_binding would write for these functions."""
    devices = [identity(host, address) for address in addresses]
    return devices, host.module("vfio_binding", {"devices": devices}, check_mode=True)["content"]


def stage(host, parameters=None, devices=CARDS, **more):
    dummy, content = listed(host, devices)
    wanted = dict({"state": "staged", "parameters": parameters or PARAMETERS, "devices_content": content, "panic": 10}, **more)
    result = host.module("trial_boot", wanted)
    expect(result.get("available") is not False, "no trial boot here: %s" % result)
    return wanted


def not_again(host, wanted):
    """What fell back is not tried again by itself, and the message says what is known of it."""
    refused = host.module("trial_boot", wanted, fail=True)
    expect("not tried again by itself" in refused["msg"] and "the one-shot is used up" in refused["msg"],
           "trial_boot says %s" % refused["msg"])


def falls_back(host, wanted, deadline):
    """Reboot into the trial, touch nothing, and be back in the old entry."""
    was = host.boot_id()
    before = host.files()
    host.run("systemctl reboot", check=False)
    begun = time.monotonic()
    seen = set()
    while time.monotonic() - begun < deadline:
        try:
            line = host.cmdline()
            boot = host.boot_id()
        except (Failed, subprocess.TimeoutExpired):
            time.sleep(2)
            continue
        if boot != was and "vfio_host=trial" in line:
            seen.add("trial")
        elif boot != was:
            break
        time.sleep(2)
    else:
        raise Failed("not back within %d s; the console ends with:\n%s" % (deadline, host.lab().console()))
    seconds = time.monotonic() - begun
    as_before(host)
    found = [line for line in differences(before, host.files()) if "/var/lib/vfio-host" not in line]
    expect(not found, "the old entry's files are not as they were: %s" % found[:5])
    not_again(host, wanted)
    host.module("trial_boot", {"state": "absent"})
    return seconds, "trial" in seen


# -- the trial entry does not work -------------------------------------------------------------------------------------


def panic(host, seen):
    """An init that ends at once: the kernel panics. (One that is not there: the initramfs would take another.)"""
    before = host.files()
    seconds, dummy = falls_back(host, stage(host, PARAMETERS + ["init=/bin/false"]), 900)
    found = differences(before, host.files())
    expect(not found, "left behind: %s" % found[:5])
    return "back on the old entry by itself after %d s, every file as before" % seconds


def root_disk(host, seen):
    """The trial takes the controller of the root disk away."""
    seconds, dummy = falls_back(host, stage(host, devices=("0000:00:1f.2",)), 1200)
    return "back on the old entry by itself after %d s" % seconds


def network(host, seen):
    """The trial takes the NIC that carries SSH: it boots well, and nobody can reach it."""
    seconds, dummy = falls_back(host, stage(host, devices=("0000:00:19.0",), deadline=120), 900)
    return "back on the old entry by itself after %d s" % seconds


def unconfirmed(host, seen):
    """The trial boots, and whoever wanted it never comes back."""
    seconds, tried = falls_back(host, stage(host, deadline=120), 900)
    expect(tried, "the trial entry was never seen")
    return "the trial ran, and the host was back on the old entry after %d s" % seconds


def power_cut_in_trial(host, seen):
    """The power goes while the trial boots."""
    wanted = stage(host)
    was = host.boot_id()
    host.run("systemctl reboot", check=False)
    lab = host.lab()
    end = time.monotonic() + 300
    while "vfio_host=trial" not in lab.console(400) and time.monotonic() < end:
        time.sleep(0.5)
    lab.power_off()
    lab.power_on(timeout=BOOT_DEADLINE)
    expect(host.boot_id() != was, "the host never rebooted")
    as_before(host)
    not_again(host, wanted)
    return "the next power cycle started the old entry"


# -- /boot ---------------------------------------------------------------------------------------------------------------


def refuses(host, modules, word):
    """Each module refuses with a message that has ``word``, and not one byte is written."""
    before = host.files()
    for name, wanted in modules:
        result = host.module(name, wanted, fail=True)
        expect(word in result["msg"], "%s says: %s" % (name, result["msg"]))
    found = differences(before, host.files())
    expect(not found, "written all the same: %s" % found[:5])


def boot_modules(host):
    dummy, content = listed(host)
    return [
        ("trial_boot", {"state": "staged", "parameters": PARAMETERS, "devices_content": content}),
        ("kernel_cmdline", {"parameters": PARAMETERS}),
    ]


ON_ESP = ("trixie-systemd-boot", "trixie-uki")
"""Images that boot from what is on the EFI partition."""


def fill_boot(host, room):
    """Leave ``room`` MiB where this host's images lie; the command that takes it back."""
    if host.image in ON_ESP:
        host.run("dd if=/dev/zero of=/boot/efi/filler bs=1M count=$(($(df -m --output=avail /boot/efi | tail -n 1) - %d)) && sync" % room, timeout=900)
        return "rm /boot/efi/filler"
    # /boot on a filesystem of its own
    host.run(
        "set -e; size=$(($(du -sm /boot | cut -f1) + 24 + %d)); truncate -s ${size}M /root/boot.img; mke2fs -q -t ext4 -m 0 /root/boot.img; "
        "mount -o loop /root/boot.img /mnt; cp -a /boot/. /mnt/; dd if=/dev/zero of=/mnt/filler bs=1M 2>/dev/null || true; "
        "truncate -s -%dM /mnt/filler; sync; umount /mnt; mount -o loop /root/boot.img /boot" % (room, room), timeout=600)
    return "umount /boot"


def boot_full(host, seen):
    devices, dummy = listed(host)
    modules = boot_modules(host)[:1]
    undo = fill_boot(host, 5)
    refuses(host, modules, "MiB")
    host.module("vfio_binding", {"devices": devices})
    refuses(host, [("initramfs", {})], "MiB")
    host.run(undo)
    return "found before anything was built"


def boot_read_only(host, seen):
    devices, dummy = listed(host)
    modules = boot_modules(host)
    if host.image in ON_ESP:
        host.run("mount -o remount,ro /boot/efi")
    else:
        host.run("mount --bind /boot /boot && mount -o remount,ro,bind /boot")
    refuses(host, modules, "read-only")
    host.module("vfio_binding", {"devices": devices})
    refuses(host, [("initramfs", {})], "read-only")
    host.run("mount -o remount,rw /boot/efi" if host.image in ON_ESP else "umount /boot")
    return "found before anything was written"


COPY = "5.0-copy"
"""Of the kernel that is installed in between."""


def kernel_between(host, seen):
    """A kernel is installed between plan and apply. A copy, which calls itself older: it would not find its modules."""
    devices, content = listed(host)
    host.module("kernel_cmdline", {"parameters": PARAMETERS}, check_mode=True)
    host.run(
        "set -e; v=$(uname -r); new=%s; cp -a /lib/modules/$v /lib/modules/$new; cp /boot/vmlinuz-$v /boot/vmlinuz-$new; "
        "cp /boot/config-$v /boot/config-$new; depmod $new; "
        "if command -v update-initramfs >/dev/null && [ -d /usr/share/initramfs-tools/scripts ]; then update-initramfs -c -k $new; "
        "else dracut --force --kver $new /boot/initrd.img-$new; fi; "
        "for hook in zz-systemd-boot zz-update-grub; do h=/etc/kernel/postinst.d/$hook; [ ! -x $h ] || $h $new /boot/vmlinuz-$new; done"
        % COPY, timeout=900)
    host.module("vfio_binding", {"devices": devices})
    initramfs = host.module("initramfs", {})
    cmdline = host.module("kernel_cmdline", {"parameters": PARAMETERS})
    new = [entry for entry in cmdline["next_boot"] if entry["kernel"] == COPY and entry["managed"]]
    expect(new and all("intel_iommu=on" in entry["tokens"] for entry in new), "entries: %s" % cmdline["next_boot"])
    built = [image for image in initramfs["images"] if image["kernel"] == COPY]
    expect(built, "images: %s" % initramfs["images"])
    host.reboot()
    as_wanted(host)
    running = host.run("uname -r").strip()
    for name, wanted in (("initramfs", {}), ("kernel_cmdline", {"parameters": PARAMETERS})):
        expect(not host.module(name, wanted)["changed"], "%s: the second run changed something" % name)
    return "both kernels have ours; the host runs %s" % running


# -- a parameter that never shows up -------------------------------------------------------------------------------------


def never_shows_up(host, seen):
    """The role kernel_cmdline by itself: one reboot; and where another entry is started each time, one more, not one a run."""
    variables = {"kernel_cmdline_parameters": PARAMETERS, "kernel_cmdline_reboot_ok": True}

    def role(fail=False, **more):
        boot = host.boot_id()
        output, recap, dummy = host.playbook(os.path.join(HERE, "kernel_cmdline.yml"), "-e", json.dumps(dict(variables, **more)), fail=fail)
        return output, recap.get("changed"), host.boot_id() != boot

    before = host.files()
    expect(role()[2] and PARAMETERS[0] in host.cmdline(), "not rebooted, or the line is %s" % host.cmdline())
    output, changed, rebooted = role()
    expect(changed == 0 and not rebooted, "the second run changed %s" % changed)
    # somebody has the entry without VFIO started at each boot
    host.run("printf '[Service]\\nType=oneshot\\nExecStart=/usr/sbin/grub-reboot \"%s\"\\n[Install]\\nWantedBy=multi-user.target\\n' "
             ">/etc/systemd/system/other.service && systemctl enable --now other.service" % way.in_menu(host, way.fallback_id(host)))
    host.reboot()
    expect("vfio_host=off" in host.cmdline(), "not the fallback entry: %s" % host.cmdline())
    output, changed, rebooted = role(fail=True)
    expect(rebooted and "was rebooted, but its command line is" in output, "rebooted: %s; it says %s" % (rebooted, output[-900:]))
    output, changed, rebooted = role(fail=True)
    expect(not rebooted and "was rebooted for this change already" in output, "rebooted: %s; it says %s" % (rebooted, output[-900:]))
    host.run("systemctl disable other.service && rm /etc/systemd/system/other.service && grub-editenv - unset next_entry")
    host.reboot()
    expect(not role()[2], "rebooted although the parameter is there")
    role(kernel_cmdline_state="absent")
    as_before(host)
    found = differences(before, host.files())
    expect(not found, "left behind: %s" % found[:5])
    return "one reboot for the change, one for the line that was not it, none for the run after it"


# -- the machine is changed --------------------------------------------------------------------------------------------


def moved(host, seen):
    """Cards move, and a twin comes: what is at the old address is not what was asked."""
    way.apply(host, seen)
    lab = host.lab()
    report = []
    for title, board, expected, verify_says in MOVES:
        lab.power_off()
        lab.power_on(board=BOARDS.get(host.image, []) + board, timeout=BOOT_DEADLINE)
        said = host.log()
        on_vfio = host.run("cd /sys/bus/pci/drivers/vfio-pci && ls -d 0000* || true").split()
        expect(sorted(on_vfio) == sorted(expected), "%s: on vfio-pci are %s; the script said: %s" % (title, on_vfio, said))
        own = host.run("for f in /sys/bus/pci/devices/0000:00:*; do readlink $f/driver; done", check=False)
        expect("vfio" not in own, "%s: the host's own devices: %s" % (title, own))
        left = [line for line in said if "left to the host" in line]
        expect(len(left) == len(CARDS) - len(expected), "%s: the script said: %s" % (title, said))
        output = host.playbook("verify", *arguments(), fail=bool(verify_says))[0]
        expect(verify_says in output, "%s: verify says: %s" % (title, output[-1500:]))
        report.append("%s: %d taken, %d left" % (title, len(expected), len(left)))
    return "; ".join(report)


NEW_PORT = [{"move": "cpu_port", "to": "03.0"}, {"add": "pcie-root-port", "at": "01.0", "properties": "id=new_port,chassis=9"}]
"""One more port in front of all others: what was on bus 1 is on bus 2 now, and so on."""

# (what was done, changes of the board, addresses that have to be taken all the same, what verify says when it is not content)
MOVES = (
    ("an empty port shifted the numbers", NEW_PORT, (), "VH151"),
    # All that can be read of it is the same but for the port that it is behind.
    ("a twin of the second card took its address",
     NEW_PORT + [{"remove": "cpu_port/00.0"}, {"remove": "cpu_port/00.1"},
                 {"add": "ati-vga", "at": "cpu_port/00.0", "properties": "multifunction=on,romfile="},
                 {"add": "ich9-intel-hda", "at": "cpu_port/00.1"}], (), "selects 0 devices"),
    ("a twin came beside the card", [{"add": "pcie-root-port", "at": "1e.0", "properties": "id=new_port,chassis=9"},
                                     {"add": "secondary-vga", "at": "new_port/00.0"}], CARDS,
     "selects 2 devices, wanted 1"),
    ("the card's audio function is gone", [{"remove": "pch_port0/00.1"}], CARDS[:3], ""),  # the plan is of what is there
    ("as it was", [], CARDS, ""),
)


# -- killed, or without power, at each step ----------------------------------------------------------------------------


def install_killer(host, at, how):
    with open(os.path.join(HERE, "interrupt.py"), encoding="utf-8") as handle:
        text = handle.read()
    host.run("mkdir -p %s && cd %s && rm -f said && echo %d > at && echo %s > how && cat > sitecustomize.py" % (KILLER, KILLER, at, how),
             given=text)
    host.run("cd %s && cat > python && chmod 755 python && sync" % KILLER,
             given='#!/bin/sh\nPYTHONPATH=%s exec /usr/bin/python3 "$@"\n' % KILLER)


def interrupted(host, name, wanted, at, how, line=None):
    """Run a module that ends right before its ``at``-th change; what that was, or None when there are fewer.

    After a power cut the host boots, with its old command line ``line``, or with all of the new one where it was in place.
    """
    install_killer(host, at, how)
    was, lab = host.boot_id(), host.lab()
    if how == "cut":  # the end of the machine, not a reset: the next boot is the one that is looked at
        lab.monitor("set-action", reboot="shutdown")
    try:
        host.module(name, wanted, fail=None, interpreter=KILLER + "/python")
    except subprocess.TimeoutExpired as error:
        raise Failed("%s neither ended nor was killed" % name) from error
    if how == "cut":
        end = time.monotonic() + 5
        while lab.running() and time.monotonic() < end:
            time.sleep(0.2)
        if lab.running():
            lab.monitor("set-action", reboot="reset")
            said = host.run("cat %s/said 2>/dev/null" % KILLER, check=False).strip()
            expect(not said, "the machine goes on after %s" % said)
            return None
        lab.power_on(timeout=BOOT_DEADLINE)
        host.wait_for_boot(was)
        if name == "trial_boot" and "vfio_host=trial" in host.cmdline():
            host.reboot()  # the one-shot was set: it is used up
        now = host.cmdline()
        expect(now == line or name == "kernel_cmdline" and now == line + PARAMETERS, "it booted with %s" % " ".join(now))
        way.bound(host, None)
        # fsync of a file that a restart must not lose may itself have been lost: the boot id says that it happened
        return host.run("cat %s/said 2>/dev/null" % KILLER, check=False).strip() or "change %d" % at
    return host.run("cat %s/said 2>/dev/null" % KILLER, check=False).strip() or None


def again(host, how, name, wanted):
    """Run it to the end. Only GRUB tells of a one-shot that was about to be set when the power went that it was not started."""
    if how == "cut" and name == "trial_boot" and "grub" not in host.image:
        result = host.module(name, wanted, check_mode=True, fail=None)
        if "was started, or was to be" in result.get("msg", "") and "say retry" in result["msg"]:
            wanted = dict(wanted, retry=True)
            print("    %s: asks for retry" % name, flush=True)
    host.module(name, wanted)


def each_point(host, how, name, wanted, back):
    """Interrupt a module at every change; by turns it is then run again to the end, or taken back. Number of points.

    ``host.points``: the first and the last change that are tried, for a part of the whole.
    """
    before, line = host.files(), host.cmdline()
    first, last = host.points
    tried = 0
    for at in range(first, min(last, MOST_POINTS) + 1):
        what = interrupted(host, name, wanted, at, how, line)
        if what is None:
            host.module(name, back)
            break
        print("    %s: %s before change %d: %s" % (name, how, at, what), flush=True)
        if at % 2:
            again(host, how, name, wanted)
            expect(not host.module(name, wanted)["changed"], "%s, interrupted at %d (%s), run again, changes at every run" % (name, at, what))
        host.module(name, back)
        found = [line for line in differences(before, host.files()) if "/initrd" not in line]
        expect(not found, "%s, interrupted at %d (%s) and taken back: %s" % (name, at, what, found[:5]))
        tried += 1
    else:
        expect(last < MOST_POINTS, "%s still makes changes after %d" % (name, MOST_POINTS))
    expect(tried, "%s was never interrupted" % name)
    return tried


INTERRUPTIONS = (
    ("killed", "kill", "SIGKILL before each change"),
    ("killed_during", "during", "SIGKILL a second into each command"),
    ("power_cut", "cut", "power cut before each change, and the host booted each time"),
)
INTERRUPTED = ("trial_boot", "kernel_cmdline", "initramfs")


def small_images(host):
    """Images are built some thirty times here: with what this machine boots with only, and packed lightly.

    What is changed, and in which order, is the same.
    """
    if host.image in ON_ESP or host.run("ls -d /usr/share/initramfs-tools/scripts 2>/dev/null", check=False) == "":
        return
    host.run("sed -i -e 's/^MODULES=.*/MODULES=dep/' -e 's/^# COMPRESSLEVEL=.*/COMPRESSLEVEL=1/' /etc/initramfs-tools/initramfs.conf && "
             "cd /usr/share/initramfs-tools/hooks && chmod -x dmsetup fsck keymap resume thermal && "  # a third of the time
             "update-initramfs -u -k all", timeout=900)


def interruption(title, how, text, module):
    """The fault of one way to end one module, named after both."""
    def fault(host, seen):
        devices, content = listed(host)
        wanted = {
            "trial_boot": {"state": "staged", "parameters": PARAMETERS, "devices_content": content},
            "kernel_cmdline": {"parameters": PARAMETERS},
            "initramfs": {},
        }[module]
        if module != "kernel_cmdline":
            small_images(host)
        if module == "initramfs":
            host.module("vfio_binding", {"devices": devices})
        points = each_point(host, how, module, wanted, {"state": "absent"})
        host.module("vfio_binding", {"state": "absent"})
        host.reboot()
        as_before(host)
        return "%s: %d points" % (text, points)

    fault.__name__ = "%s_%s" % (title, module)
    return fault


FAULTS = (
    panic, root_disk, network, unconfirmed, power_cut_in_trial, boot_full, boot_read_only, kernel_between, moved,
)
WITH_GRUB = (never_shows_up,)
"""What is not the loader's to do, and tried with one."""
KILLS = tuple(interruption(*way_to_end, module) for way_to_end in INTERRUPTIONS for module in INTERRUPTED)
