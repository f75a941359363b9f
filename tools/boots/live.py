# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions change their driver while the host runs: there and back, held, hanging, killed. One host for all of it."""

from __future__ import annotations

import json
import os
import subprocess
import time

import faults
import way
from host import BOOT_DEADLINE, BUILD, CHECKOUT, Skipped, differences
from way import HOSTS_OWN, expect

HERE = os.path.dirname(os.path.abspath(__file__))
BOARD = [
    {"add": "pcie-root-port", "at": "1e.0", "properties": "id=nvme_port,chassis=9"},
    {"add": "nvme", "at": "nvme_port/00.0", "properties": "serial=first", "disk": "first", "size": 64},
    {"add": "pcie-root-port", "at": "03.0", "properties": "id=twin_port,chassis=10"},
    {"add": "nvme", "at": "twin_port/00.0", "properties": "serial=second", "disk": "second", "size": 64},
    {"add": "nvme-subsys", "properties": "id=vault"},
    {"add": "pcie-root-port", "at": "04.0", "properties": "id=vf_port,chassis=11"},
    {"add": "nvme", "at": "vf_port/00.0", "properties": "serial=vault,subsys=vault,max_ioqpairs=130,msix_qsize=130,"
                                                        "sriov_max_vfs=64,sriov_vq_flexible=128,sriov_vi_flexible=64"},
    {"add": "edu", "at": "05.0"},
]
NETWORK_CARD = [
    {"add": "pcie-root-port", "at": "06.0", "properties": "id=igb_port,chassis=12"},
    {"add": "igb", "at": "igb_port/00.0"},
]
MOST = 64
"""Virtual functions of the last one."""
MEDIATED = "vfio_host_mediated"
"""Driver of QEMU's function for teaching, that is built from tests/drivers (see its Makefile)."""
LOADED = "modprobe vfio-pci; modprobe snd_hda_intel"
"""On a host that has just started."""
MANAGED = """
<domain type='qemu'>
  <name>managed</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x%s' bus='0x%s' slot='0x%s' function='0x%s'/></source>
    </hostdev>
  </devices>
</domain>
"""
"""A guest for which libvirt takes a function from the host's driver, and gives it back."""
USERS, USER = "vfio-lab", "vfio-lab-user"
HOLD = """
import os, socket, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "hidden":  # in flight between two sockets: no process is seen to have it
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [fd])
    os.close(fd)
time.sleep(3600)
"""
GUEST = """
import fcntl, os, struct, sys, time
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(group, 0x3B68, struct.pack("i", container))  # VFIO_GROUP_SET_CONTAINER
fcntl.ioctl(container, 0x3B66, 1)  # VFIO_SET_IOMMU, type 1
device = fcntl.ioctl(group, 0x3B6A, sys.argv[2].encode() + bytes(1))  # VFIO_GROUP_GET_DEVICE_FD
time.sleep(3600)
"""
"""What QEMU does with a function that its guest is given (include/uapi/linux/vfio.h)."""
AGAIN = """
import json, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ansible_collections.vfio.host.plugins.module_utils._binding import manage
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import read

asked = {"driverctl": "refuse", "nvidia_persistence": "keep", "when": "now"}

def now():
    return len(os.listdir("/proc/self/fd")), sum(name.isdigit() for name in os.listdir("/proc"))

ways = [dict(asked, state="present", devices=json.load(sys.stdin)), dict(asked, state="absent", devices=[])]
seen = []
for number in range(50):
    for way in ways:
        done = manage.run(Host(), way, False, read)
        assert done["changed"] and not done["deferred"] and not done["reboot_required"], done
    seen.append(now())
files, processes = zip(*seen)
assert len(set(files)) == 1, "open files: %s" % (files,)
assert processes[-1] <= processes[0] + 5, "processes: %s" % (processes,)
print("%d open files after the first and the last; %d and %d processes" % (files[0], processes[0], processes[-1]))
"""

# QEMU 7.2's AMD-Vi loses what the host's own NVMe controllers ask for, unless the host's DMA goes past it: a guest's
# never does. What the sound cards ask of their codecs is lost then too, unless they ask without DMA; and Linux 6.1
# takes no more cards once it has failed with 32. Not ours, or site would take it for what is wanted no more.
AMD_LINE = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX iommu=pt snd_hda_intel.single_cmd=1"\n'


def slots(host):
    """``{name: address}`` of what is bound here, by what it is: bus numbers follow from the board."""
    found = {}
    for line in host.run("cd /sys/bus/pci/devices && for f in *; do echo $f $(cat $f/vendor $f/device); done").splitlines():
        address, vendor, device = line.split()
        found.setdefault((vendor[2:], device[2:]), []).append(address)
    physical = host.run("cd /sys/bus/pci/devices && ls -d */sriov_totalvfs").split("/")[0]
    nvme = [address for address in found["1b36", "0010"] if address != physical]
    return {
        "physical": physical,
        "gpu": found["1234", "1111"][-1], "audio": found["8086", "293e"][1] if len(found["8086", "293e"]) > 1 else None,
        "second": found["1002", "5046"][0], "nic": found["10ec", "8139"][0], "xhci": found["1033", "0194"][0],
        "nvme": nvme[0], "twin": nvme[1], "edu": found["1234", "11e8"][0],
    }


def devices(host, seen, *names):
    """Identities of these, each card with all its functions."""
    wanted = []
    for name in names or ("gpu", "second", "nic", "xhci", "nvme"):
        slot = seen["slots"][name].rpartition(".")[0]
        addresses = host.run("ls -d /sys/bus/pci/devices/%s.*" % slot).split()
        wanted += [faults.identity(host, os.path.basename(address)) for address in sorted(addresses)]
    return wanted


def binding(host, wanted, when="now", **more):
    return host.module("vfio_binding", dict({"devices": wanted, "when": when}, **more.pop("options", {})), **more)


def home(host, **more):
    return host.module("vfio_binding", {"state": "absent", "when": "now"}, **more)


def state(host, without=()):
    """Driver and override of every function of the machine. The override of one that hangs cannot be read, by nobody."""
    skipped = "".join("%s) continue ;; " % address for address in without)
    return dict(line.split(" ", 1) for line in host.run(
        "cd /sys/bus/pci/devices && for f in *; do case $f in %s*) ;; esac; "
        "echo $f $(basename $(readlink $f/driver || echo none)) $(cat $f/driver_override); done" % skipped).splitlines())


def sound(host, seen, hangs=False):
    trouble = host.kernel_trouble(hangs)
    expect(not trouble, "the kernel log has %s" % trouble[:3])
    own = host.drivers(*HOSTS_OWN)
    expect(own == HOSTS_OWN, "the host's own devices: %s" % own)


def as_at_first(host, seen, left=()):
    now = state(host, left)
    wrong = {a: (seen["state"][a], now[a]) for a in now if now[a] != seen["state"][a]}
    expect(not wrong, "not as before: %s" % wrong)
    found = differences(seen["files"], host.files())
    expect(not found or left, "files are not as before: %s" % found[:5])
    nodes = host.run("ls /dev/vfio").split()
    expect(nodes == ["vfio"] or left, "nodes left: %s" % nodes)
    sound(host, seen, bool(left))


def start_with(host, board):
    """The host off and on again with other changes of its board."""
    lab = host.lab()
    host.run("sync")
    lab.power_off()
    lab.power_on(board=board, timeout=BOOT_DEADLINE)
    host.run(LOADED + "; systemctl is-system-running --wait", check=False, timeout=BOOT_DEADLINE)


# -- steps -------------------------------------------------------------------------------------------------------------


def iommu_on(host, seen):
    """The IOMMU on, and the board with two NVMe controllers of one make."""
    if host.profile == "amd":  # on by default
        host.run("cat > /etc/default/grub.d/administrator.cfg && update-grub", given=AMD_LINE, timeout=BOOT_DEADLINE)
    else:
        host.module("kernel_cmdline", {"parameters": ["intel_iommu=on"]})
    host.run("groupadd --system %s && useradd --system --groups %s --shell /bin/sh %s" % (USERS, USERS, USER))
    start_with(host, BOARD)
    seen["slots"] = slots(host)
    seen["state"], seen["files"] = state(host), host.files()
    idle = [slot for slot in ("physical", "nvme", "nic") if seen["state"][seen["slots"][slot]].startswith("none")]
    expect(not idle, "without a driver from the start: %s" % idle)
    for slot in ("gpu", "second"):
        host.run("ls -d /sys/bus/pci/devices/%s1/sound/card*" % seen["slots"][slot][:-1])
    return "%s" % seen["slots"]


def there(host, seen):
    """Two cards, a NIC, a USB controller and an NVMe controller in one transaction; its twin stays."""
    wanted = devices(host, seen)
    predicted = binding(host, wanted, check_mode=True)
    expect(state(host) == seen["state"], "the check run moved something")
    begun = time.monotonic()
    done = binding(host, wanted)
    seconds = time.monotonic() - begun
    for field in ("changed", "functions", "deferred", "reboot_required", "content"):
        expect(predicted[field] == done[field], "%s predicted as %s, and is %s" % (field, predicted[field], done[field]))
    now = state(host)
    moved = {item["address"] for item in wanted}
    wrong = {a: now[a] for a in now if (now[a] == "vfio-pci vfio-pci") != (a in moved)}
    expect(not wrong, "drivers: %s" % wrong)
    begun = time.monotonic()
    expect(not binding(host, wanted)["changed"], "the second run changes something")
    sound(host, seen)
    return "%d functions in %d s, predicted exactly; second run changed=0 in %d s; the twin stays" % (
        len(wanted), seconds, time.monotonic() - begun)


def guest_has_it(host, seen):
    """The NIC is open through vfio, as QEMU opens it for a guest: nothing takes it away."""
    nic = seen["slots"]["nic"]
    group = host.run("basename $(readlink /sys/bus/pci/devices/%s/iommu_group)" % nic).strip()
    node = "/dev/vfio/" + group
    host.run("cat > /run/guest.py", given=GUEST)
    host.run("systemd-run --unit=holder-guest python3 /run/guest.py %s %s; sleep 5; systemctl is-active holder-guest" % (node, nic))
    before = state(host)
    refused = home(host, fail=True)
    expect("has %s open" % node in refused["msg"] and nic in refused["msg"], "said: %s" % refused["msg"])
    expect(state(host) == before, "it moved something")
    auto = host.module("vfio_binding", {"state": "absent", "when": "auto"})
    expect([one["address"] for one in auto["deferred"]] == [nic], "deferred: %s" % auto["deferred"])
    expect(host.drivers(nic)[nic] == "vfio-pci", "it was taken from the guest")
    host.run("systemctl is-active holder-guest && systemctl stop holder-guest")
    home(host)
    as_at_first(host, seen)
    return "now: refused, %s is named; auto: the others went home, and it once the guest had ended" % node


def driverctl_has_it(host, seen):
    """An override of driverctl is refused, or taken over and given back."""
    nic = seen["slots"]["nic"]
    override = "/etc/driverctl.d/pci-" + nic
    host.run("mkdir -p /etc/driverctl.d && echo vfio-pci >" + override)
    wanted = devices(host, seen, "nic")
    refused = binding(host, wanted, fail=True)
    expect("driverctl unset-override " + nic in refused["msg"], "said: %s" % refused["msg"])
    binding(host, wanted, options={"driverctl": "import"})
    expect(host.run("ls /etc/driverctl.d").split() == [], "the override is still there")
    expect(not binding(host, wanted)["changed"], "the second run changes something")
    home(host)
    expect(host.run("cat " + override) == "vfio-pci\n", "the override is not as it was")
    host.run("rm -r /etc/driverctl.d")
    as_at_first(host, seen)
    return "refused with the command that takes it out; with import, taken over and back"


def reset_settings(host, seen):
    """Reset methods and D3cold of one NVMe controller: now, at the next boot, and back."""
    address = seen["slots"]["nvme"]
    folder = "/sys/bus/pci/devices/%s/" % address

    def shown():
        return host.run("cd %s && cat reset_method d3cold_allowed" % folder).splitlines()

    before = shown()
    last = before[0].split()[-1]
    one = {field: faults.identity(host, address)[field] for field in ("address", "vendor", "device")}
    refused = host.module("pci_settings", {"functions": [dict(one, reset_method=["device_specific"])]}, fail=True)
    expect(before[0] in refused["msg"], "said: %s" % refused["msg"])
    wanted = {"functions": [dict(one, reset_method=[last], d3cold_allowed=before[1] != "1")]}
    predicted = host.module("pci_settings", wanted, check_mode=True)
    expect(shown() == before, "the check run wrote something")
    done = host.module("pci_settings", wanted)
    expect(predicted["functions"] == done["functions"] and done["changed"], "predicted %s, and is %s" % (predicted, done))
    changed = [last, "0" if before[1] == "1" else "1"]
    expect(shown() == changed, "now it is %s" % shown())
    expect(not host.module("pci_settings", wanted)["changed"], "the second run changes something")
    host.reboot()
    expect(shown() == changed, "after a reboot it is %s" % shown())
    expect(not host.module("pci_settings", wanted)["changed"], "a run after a reboot changes something")
    host.module("pci_settings", {"state": "absent"})
    expect(shown() == before, "not as before: %s" % shown())
    host.run(LOADED, check=False)
    as_at_first(host, seen)
    return "%s became %s, at the next boot too, and is as before" % (before, changed)


def virtual(host, address):
    """``{address: driver}`` of the virtual functions of one."""
    text = host.run("cd /sys/bus/pci/devices/%s && for f in virtfn*; do [ ! -e $f ] || echo $(basename $(readlink $f)) "
                    "$(basename $(readlink $f/driver || echo none)); done" % address)
    return dict(line.split() for line in text.splitlines())


def comes(host, address, count, seconds=180):
    """Wait until so many virtual functions are there and on vfio-pci."""
    end = time.monotonic() + seconds
    while list(virtual(host, address).values()) != ["vfio-pci"] * count:
        expect(time.monotonic() < end, "after %d s: %s; the log: %s" % (seconds, virtual(host, address), host.log()))
        time.sleep(2)


def virtual_functions(host, seen):
    """All that a controller can have, in one transaction; held; at the next boot; after its driver was away; and back."""
    address = seen["slots"]["physical"]
    folder = "/sys/bus/pci/devices/%s/" % address
    one = {field: faults.identity(host, address)[field] for field in ("address", "vendor", "device")}

    def sriov(count, **more):
        return host.module("sriov", {"functions": [dict(one, count=count)]}, **more)

    before = host.run("cd %s && cat sriov_numvfs sriov_drivers_autoprobe" % folder)
    refused = sriov(MOST + 1, fail=True)
    expect(str(MOST) in refused["msg"] and "count" in refused["msg"], "said: %s" % refused["msg"])
    predicted = sriov(MOST, check_mode=True)
    expect(virtual(host, address) == {}, "the check run made some")
    begun = time.monotonic()
    done = sriov(MOST)
    seconds = time.monotonic() - begun
    for field in ("changed", "functions", "vfs"):
        expect(predicted[field] == done[field], "%s predicted as %s, and is %s" % (field, predicted[field], done[field]))
    expect(all(vf["isolated"] for vf in done["vfs"]), "not each in a group of its own: %s" % done["vfs"][0])
    expect(virtual(host, address) == {vf["address"]: "vfio-pci" for vf in done["vfs"]}, "drivers: %s" % virtual(host, address))
    nodes = len(host.run("ls /dev/vfio").split()) - 1
    expect(nodes == MOST, "%d groups have a node" % nodes)
    expect(not sriov(MOST)["changed"], "the second run changes something")
    sound(host, seen)

    taken = done["vfs"][0]["address"]
    group = host.run("basename $(readlink /sys/bus/pci/devices/%s/iommu_group)" % taken).strip()
    holder(host, "virtual", "/dev/vfio/" + group)
    refused = sriov(2, fail=True)
    expect(taken in refused["msg"] and "/dev/vfio/" + group in refused["msg"], "said: %s" % refused["msg"])
    expect(len(virtual(host, address)) == MOST, "some are gone")
    host.run("systemctl stop holder-virtual")
    sriov(2)
    expect(list(virtual(host, address).values()) == ["vfio-pci"] * 2, "drivers: %s" % virtual(host, address))

    host.run("echo 0 >%ssriov_numvfs && echo %s >/sys/bus/pci/drivers/nvme/unbind" % (folder, address))
    host.run("echo %s >/sys/bus/pci/drivers/nvme/bind" % address)
    comes(host, address, 2)
    host.reboot()
    comes(host, address, 2)
    expect(not sriov(2)["changed"], "a run after a reboot changes something")
    host.module("sriov", {"state": "absent"})
    expect(virtual(host, address) == {}, "some are left")
    expect(host.run("cd %s && cat sriov_numvfs sriov_drivers_autoprobe" % folder) == before, "not as before")
    host.run(LOADED, check=False)
    as_at_first(host, seen)
    return "%d predicted exactly and bound in %d s; one that is held keeps all; there again with the driver and at boot" % (
        MOST, seconds)


def network_virtual_functions(host, seen):
    """What the card lets each virtual function of a NIC do: now, after its driver was away, at the next boot, and back."""
    asked = ["qemu-system-x86_64", "-device", "igb,help"]  # of one that it does not have it says so, and ends with 0
    offered = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False).stdout
    if "igb options" not in offered:
        raise Skipped("this QEMU has no NIC with virtual functions (igb, since 8.0; for Debian 12 there is one in its backports)")
    start_with(host, BOARD + NETWORK_CARD)
    drivers, before = state(host), host.files()
    address = host.run("cd /sys/bus/pci/devices && grep -l 0x10c9 */device").split("/")[0]
    nic = host.run("ls /sys/bus/pci/devices/%s/net" % address).strip()
    one = {field: faults.identity(host, address)[field] for field in ("address", "vendor", "device")}
    first = {"mac": "52:54:00:00:07:01", "vlan": 7, "qos": 3, "trust": True, "spoof_check": False}
    second = {"mac": "52:54:00:00:07:02"}

    def sriov(*asked, **more):
        vfs = [dict(settings, index=index) for index, settings in enumerate(asked) if settings]
        return host.module("sriov", {"functions": [dict(one, count=3, vfs=vfs)]}, **more)

    def lets():
        """``[{mac, vlan, qos, trust, spoof_check}]`` as the kernel tells it."""
        (link,) = json.loads(host.run("ip -j -d link show dev " + nic))
        return [{"mac": vf["address"], "vlan": vf["vlan_list"][0].get("vlan", 0), "qos": vf["vlan_list"][0].get("qos", 0),
                 "trust": vf["trust"], "spoof_check": vf["spoofchk"]} for vf in link["vfinfo_list"]]

    predicted = sriov(first, second, check_mode=True)
    expect(virtual(host, address) == {}, "the check run made some")
    done = sriov(first, second)
    for field in ("changed", "functions", "vfs"):
        expect(predicted[field] == done[field], "%s predicted as %s, and is %s" % (field, predicted[field], done[field]))
    expect(list(virtual(host, address).values()) == ["vfio-pci"] * 3, "drivers: %s" % virtual(host, address))
    left = lets()[2]
    wanted = [first, dict(left, mac=second["mac"])]
    expect(lets()[:2] == wanted, "the kernel says %s" % lets())
    expect(not sriov(first, second)["changed"], "the second run changes something")

    host.run("echo %s >/sys/bus/pci/drivers/igb/unbind && echo %s >/sys/bus/pci/drivers/igb/bind" % (address, address))
    comes(host, address, 3)
    expect(lets()[:2] == wanted, "after its driver was away the kernel says %s" % lets())
    host.reboot()
    comes(host, address, 3)
    expect(lets()[:2] == wanted, "after a reboot the kernel says %s" % lets())
    expect(not sriov(first, second)["changed"], "a run after a reboot changes something")
    sound(host, seen)

    sriov(None, second)
    now = dict(lets()[0], mac=left["mac"])  # this driver makes one up for each
    expect(now == left, "no longer asked, but the kernel says %s" % lets()[0])
    host.module("sriov", {"state": "absent"})
    expect(virtual(host, address) == {}, "some are left")
    host.run(LOADED, check=False)
    expect(state(host) == drivers and not differences(before, host.files()), "not as before: %s" % differences(before, host.files()))
    sound(host, seen)
    start_with(host, BOARD)
    as_at_first(host, seen)
    return "MAC, VLAN, priority, trust and spoof check as asked, again with the driver and at boot, and back"


def mediated(host, seen):
    """Both parts of a function that a driver shares out: held, at boot, after its driver was away, and back."""
    address = seen["slots"]["edu"]
    one = {field: faults.identity(host, address)[field] for field in ("vendor", "device")}
    module = os.path.join(BUILD, "drivers", MEDIATED + ".ko")
    if not os.path.exists(module):
        raise Skipped("no driver for it: make -C tests/drivers KERNEL=<headers of the lab's kernel>")
    installed = "/lib/modules/%s/updates/%s.ko" % (host.run("uname -r").strip(), MEDIATED)
    with open(module, "rb") as handle:
        host.run("mkdir -p $(dirname %s) && cat >%s && depmod && modprobe %s" % (installed, installed, MEDIATED), given=handle.read())

    def parts(*types, **more):
        asked = [dict(one, parent=address, type=kind, name="part%d" % number) for number, kind in enumerate(types)]
        return host.module("mediated_devices", {"devices": asked}, **more)

    def there():
        return host.run("ls /sys/bus/mdev/devices").split()

    def come(uuids, seconds=180):
        end = time.monotonic() + seconds
        while there() != uuids:
            expect(time.monotonic() < end, "after %d s: %s; the log: %s" % (seconds, there(), host.log()))
            time.sleep(2)

    both = (MEDIATED + "-large", "Small part")
    refused = parts(*both[:1] * 3, fail=True)
    expect("3 more of %s-large are asked and 2 left" % MEDIATED in refused["msg"], "said: %s" % refused["msg"])
    predicted = parts(*both, check_mode=True)
    expect(there() == [], "the check run made some")
    done = parts(*both)
    for field in ("changed", "devices"):
        expect(predicted[field] == done[field], "%s predicted as %s, and is %s" % (field, predicted[field], done[field]))
    uuids = sorted(part["uuid"] for part in done["devices"])
    expect(there() == uuids, "there are %s" % there())
    expect(not parts(*both)["changed"], "the second run changes something")

    group = host.run("basename $(readlink /sys/bus/mdev/devices/%s/iommu_group)" % uuids[0]).strip()
    holder(host, "part", "/dev/vfio/" + group)
    refused = host.module("mediated_devices", {"state": "absent"}, fail=True)
    expect("python3" in refused["msg"] and "/dev/vfio/" + group in refused["msg"], "said: %s" % refused["msg"])
    expect(there() == uuids, "some are gone")
    host.run("systemctl stop holder-part")

    host.run("modprobe -r %s && modprobe %s" % (MEDIATED, MEDIATED))
    come(uuids)
    host.reboot()
    come(uuids)
    expect(not parts(*both)["changed"], "a run after a reboot changes something")
    host.module("mediated_devices", {"state": "absent"})
    expect(there() == [], "some are left")
    host.run("modprobe -r %s && rm %s && depmod" % (MEDIATED, installed))
    host.run(LOADED, check=False)
    as_at_first(host, seen)
    return "two types predicted exactly; one that is held keeps both; there again with the driver and at boot"


def for_a_group(host, seen):
    """A group of users has the device nodes, and may lock memory; nobody else does."""
    wanted = {"group": USERS, "memlock": "512MiB"}
    host.module("vfio_access", wanted)
    expect(not host.module("vfio_access", wanted)["changed"], "the second run changes something")
    binding(host, devices(host, seen, "nvme"))
    link = host.run("readlink /sys/bus/pci/devices/%s/iommu_group" % seen["slots"]["nvme"])
    node = "/dev/vfio/" + os.path.basename(link.strip())
    host.run("udevadm settle")
    expect(host.run("stat -c %%U:%%G:%%a %s" % node).strip() == "root:%s:660" % USERS, "a new node is %s" % host.run("ls -l " + node))
    opened = "runuser -u %s -- python3 -c 'import os; os.open(\"%s\", os.O_RDWR)'"
    host.run(opened % (USER, node))
    expect("denied" in host.run(opened % ("nobody", node) + " 2>&1 || true"), "everybody can open " + node)
    limit = host.run("su - %s -c 'ulimit -l'" % USER).strip()
    expect(limit == str(512 << 10), "the user may lock %s KiB" % limit)
    host.module("vfio_access", {"state": "absent"})
    expect(host.run("stat -c %%U:%%G:%%a %s" % node).strip() == "root:root:600", "given back as %s" % host.run("ls -l " + node))
    home(host)
    as_at_first(host, seen)
    return "%s: the group opens it and locks %s KiB, others do not" % (node, limit)


def fifty_times(host, seen):
    """There and back fifty times: no file, node, override, open file or line of the kernel log is left.

    All in one process, since an emulated host takes longer to start Python than to move the functions.
    """
    wanted = devices(host, seen)
    folder = "/run/vfio-host-fifty"
    inside = folder + "/ansible_collections/vfio/host/plugins"
    host.run("mkdir -p %s && cat >%s/again.py" % (inside, folder), given=AGAIN)
    archive = subprocess.run(["tar", "-C", os.path.join(CHECKOUT, "plugins"), "--exclude", "__pycache__", "-c", "module_utils"],
                             stdout=subprocess.PIPE, timeout=60, check=True).stdout
    host.run("tar -C %s -x" % inside, given=archive)
    begun = time.monotonic()
    said = host.run("python3 -B %s/again.py" % folder, timeout=3600, given=json.dumps(wanted)).splitlines()
    seconds = time.monotonic() - begun
    host.run("rm -r " + folder)
    as_at_first(host, seen)
    return "100 transactions of %d functions in %d s; %s" % (len(wanted), seconds, said[-1])


def not_the_whole_group(host, seen):
    """A display without its audio function, behind a port without ACS: the group also has a bridge, which stays."""
    wanted = [faults.identity(host, seen["slots"]["gpu"])]
    refused = binding(host, wanted, fail=True)
    expect("is in the same group and on driver snd_hda_intel" in refused["msg"], "said: %s" % refused["msg"])
    as_at_first(host, seen)
    return "refused: %s" % refused["msg"][:160]


def holder(host, name, node, how="seen"):
    host.run("cat > /run/hold.py", given=HOLD)
    host.run("systemd-run --unit=holder-%s python3 /run/hold.py %s %s; sleep 3" % (name, node, how))


def control_node(host, address):
    return "/dev/snd/" + host.run("basename $(ls -d /sys/bus/pci/devices/%s/sound/card*/controlC*)" % address).strip()


def held(host, seen):
    """A program has the mixer of the card's audio function open."""
    audio = seen["slots"]["gpu"][:-1] + "1"
    node = control_node(host, audio)
    holder(host, "mixer", node)
    wanted = devices(host, seen, "gpu", "nic")
    refused = binding(host, wanted, fail=True)
    expect(node in refused["msg"] and "python3" in refused["msg"], "said: %s" % refused["msg"])
    as_at_first(host, seen)
    auto = binding(host, wanted, when="auto")
    expect(sorted(one["address"] for one in auto["deferred"]) == [audio[:-1] + "0", audio], "deferred: %s" % auto["deferred"])
    expect(auto["reboot_required"] and host.drivers(seen["slots"]["nic"]).popitem()[1] == "vfio-pci", "the NIC is not bound")
    host.run("systemctl stop holder-mixer")
    home(host)
    as_at_first(host, seen)
    return "now: refused, %s is named; auto: the card waits, the NIC is bound" % node


def probe_fails_on_the_way_back(host, seen):
    """The sound driver is told to take no device; then the way home of the card's audio function is closed."""
    wanted = devices(host, seen, "gpu", "nic")
    binding(host, wanted)
    audio = seen["slots"]["gpu"][:-1] + "1"
    host.run("modprobe -r snd_hda_intel && modprobe snd_hda_intel enable=0,0,0,0,0,0,0,0")
    failed = home(host, fail=True)
    expect(audio in failed["msg"] and "snd_hda_intel/bind" in failed["msg"], "said: %s" % failed["msg"])
    now = state(host)
    expect(now[seen["slots"]["gpu"]] == seen["state"][seen["slots"]["gpu"]], "the others are not home: %s" % now)
    host.run("modprobe -r snd_hda_intel && modprobe snd_hda_intel")
    home(host)
    as_at_first(host, seen)
    return "said %r; home once the driver took it" % failed["msg"][:150]


def driver_was_unloaded(host, seen):
    """The sound driver is not there any more: loaded for the way home, it takes the function before it is told to."""
    binding(host, devices(host, seen, "gpu", "nic"))
    host.run("modprobe -r snd_hda_intel")
    home(host)
    as_at_first(host, seen)
    return "loaded, and everything is home"


def killed(host, seen):
    """SIGKILL before each change, there and back; by turns the next run finishes it or takes it back."""
    wanted = devices(host, seen, "gpu", "nic")
    there = {"devices": wanted, "when": "now"}
    points = faults.each_point(host, "kill", "vfio_binding", there, {"state": "absent", "when": "now"})
    as_at_first(host, seen)
    at = 1
    while at < faults.MOST_POINTS:
        host.module("vfio_binding", there)
        what = faults.interrupted(host, "vfio_binding", {"state": "absent", "when": "now"}, at, "kill")
        if what is None:
            break
        print("    back: killed before change %d: %s" % (at, what), flush=True)
        if at % 2:
            host.module("vfio_binding", there)
        home(host)
        as_at_first(host, seen)
        at += 1
    host.run("rm -rf " + faults.KILLER)
    as_at_first(host, seen)
    return "%d points there, %d back" % (points, at - 1)


def hangs(host, seen):
    """The mixer is open where nobody sees it: the driver waits for it in unbind, for ever."""
    audio = seen["slots"]["gpu"][:-1] + "1"
    holder(host, "hidden", control_node(host, audio), "hidden")
    wanted = devices(host, seen, "gpu", "nic")
    begun = time.monotonic()
    failed = binding(host, wanted, fail=True)
    seconds = time.monotonic() - begun
    for words in ("did not end within 10 s", "the kernel is in", "snd_card_free", "Not put back: " + audio):
        expect(words in failed["msg"], "%r is not in: %s" % (words, failed["msg"]))
    as_at_first(host, seen, left=(audio,))
    again = binding(host, wanted, when="auto")
    expect({one["address"] for one in again["deferred"]} == {audio, seen["slots"]["gpu"]}, "deferred: %s" % again["deferred"])
    # An orderly reboot takes the lock of every device, and waits for that one for ever.
    lab = host.lab()
    host.run("sync")
    lab.power_off()
    lab.power_on(timeout=BOOT_DEADLINE)
    host.run(LOADED, check=False)
    binding(host, wanted)
    home(host)
    as_at_first(host, seen)
    return "given up after %d s, with the kernel's stack; not tried again in that boot; the host stayed usable" % seconds


def site_without_a_reboot(host, seen):
    """The IOMMU is on already: site binds at once, and the next boot finds everything as wanted."""
    boots = host.boot_id()
    cards = [seen["slots"][name][:-1] + function for name in ("gpu", "second") for function in "01"]
    variables = way.arguments(vfio_host_bind="auto")
    dummy, recap, seconds = host.playbook("site", *variables)
    expect(recap.get("changed") and host.boot_id() == boots, "rebooted, or nothing done: %s" % recap)
    way.bound(host, cards=cards)
    dummy, recap, dummy = host.playbook("site", *variables)
    expect(recap.get("changed") == 0, "the second run changed %s" % recap)
    host.reboot()
    way.as_wanted(host, cards)
    return "%d s without a reboot, second run changed=0; all taken at the next boot" % seconds


def managed_by_libvirt(host, seen):
    """Guests whose devices libvirt manages: it came first, then we did; none loses its device, and all go home in the end."""
    cards, nic = ("gpu", "second"), seen["slots"]["nic"]
    its_own = seen["state"][nic].split()[0]
    dummy, recap, dummy = host.playbook("site", *way.arguments(vfio_host_bind="auto", vfio_host_libvirt=True))
    host.run("cat > /run/managed.xml && virsh define /run/managed.xml", given=MANAGED % tuple(nic.replace(".", ":").split(":")))

    def guest(verb):
        host.run("virsh %s managed" % verb, timeout=600)
        return host.drivers(nic)[nic]

    def runs():
        return host.run("virsh domstate managed").strip() == "running" and host.drivers(nic)[nic] == "vfio-pci"

    # libvirt has taken it from its driver
    expect(guest("start") == "vfio-pci", "libvirt did not take %s" % nic)
    done = binding(host, devices(host, seen, *cards, "nic"))
    expect(runs() and not done["deferred"], "runs: %s; deferred: %s" % (runs(), done["deferred"]))
    binding(host, devices(host, seen, *cards))
    expect(runs(), "what libvirt had taken was taken from its guest")
    binding(host, devices(host, seen, *cards, "nic"))
    came_back = guest("destroy")
    expect(came_back == its_own, "libvirt gave it back to %s" % came_back)
    sound(host, seen)

    # it is on our list, and on vfio-pci before the guest starts
    expect(binding(host, devices(host, seen, *cards, "nic"))["changed"], "nothing to do although it is back on %s" % its_own)
    expect(guest("start") == "vfio-pci", "libvirt did not take %s" % nic)
    expect(not binding(host, devices(host, seen, *cards, "nic"))["changed"], "changed while a guest has it")
    refused = home(host, fail=True)
    expect(nic in refused["msg"] and "qemu-system" in refused["msg"], "said: %s" % refused["msg"])
    expect(runs(), "it was taken from its guest")
    after = guest("destroy")
    binding(host, devices(host, seen, *cards, "nic"))
    expect(host.drivers(nic)[nic] == "vfio-pci", "not on vfio-pci")
    home(host)
    now = state(host)
    wrong = {a: (seen["state"][a], now[a]) for a in now if now[a] != seen["state"][a]}
    expect(not wrong, "not as before: %s" % wrong)
    sound(host, seen)
    return "taken by libvirt before us it stays with its guest and goes back to %s; bound by us, a guest ends with it on %s" % (its_own, after)


STEPS = (iommu_on, there, guest_has_it, driverctl_has_it, reset_settings, for_a_group, virtual_functions, network_virtual_functions,
         mediated, fifty_times, not_the_whole_group, held, probe_fails_on_the_way_back, driver_was_unloaded, killed, hangs,
         site_without_a_reboot, managed_by_libvirt)
