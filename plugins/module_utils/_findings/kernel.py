# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules about the kernel, the boot and what the host has to give: VH3xx. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment_state import is_vfio
from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import describe, listed, on_host, rule

GIB = 2**30
HOST_RESERVE = 1 * GIB
"""What is kept for the host where nobody says more: the default of vfio_host_memory_reserve."""
LITTLE_MEMORY = 4 * GIB
LITTLE_BESIDE_HUGEPAGES = 2 * GIB
FEW_CPUS = 4

LOADERS = ("grub", "systemd-boot")
GENERATORS = ("initramfs-tools", "dracut", "mkinitcpio")
"""What the collection configures, in the words of the machine document: the backends of _boot/cmdline.py are all kinds
of these two loaders; GENERATORS of _boot/initramfs/manage.py."""

NOT_FOR_GUESTS = ("00", "05", "06", "08", "0780", "0c05", "0c07", "0c80", "10", "11", "13", "ff")
"""Beginnings of the classes of a board's own functions, which nobody assigns."""

PASSTHROUGH_TOKENS = ("iommu.passthrough=1", "iommu.passthrough=y", "iommu.passthrough=on")
FRAMEBUFFER_TOKENS = ("video=efifb:off", "video=vesafb:off", "video=simplefb:off", "initcall_blacklist=sysfb_init")

ANY_ID = 0xFFFFFFFF


def named(functions):
    """Functions in a sentence, at most ten of them."""
    return listed(describe(function) for function in functions)


def size(number):
    """``15.6 GiB`` of bytes."""
    return "%.1f GiB" % (number / GIB)


def _candidates(view):
    """Functions that a person might assign, virtual functions left out: they follow their physical one."""
    return [function for function in view.endpoints()
            if not function["class"].startswith(NOT_FOR_GUESTS) and function["physfn"] is None]


def _cmdline(view):
    return tokens.for_kernel(tokens.split(view.host["kernel"]["cmdline"]))


def _vfio_builtin(view):
    kernel = view.host["kernel"]
    if "vfio_pci" in (kernel["builtin"] or ()):
        yield on_host("kernel", "vfio_pci is in the list of built-in modules of kernel %s." % kernel["release"])
    elif (kernel["config"] or {}).get("VFIO_PCI") == "y":
        yield on_host("kernel", "The configuration of kernel %s has CONFIG_VFIO_PCI=y." % kernel["release"])


def _driver_builtin(view):
    by_module = {}
    for function in _candidates(view):
        if not function["used_by"]:
            for module in function["builtin_modules"]:
                by_module.setdefault(module, []).append(function)
    by_module.pop("vfio_pci", None)
    if by_module:
        yield on_host("kernel", *("%s is built into the kernel and claims %s." % (module, named(by_module[module]))
                                  for module in sorted(by_module)))


def _little_memory(view):
    memory = view.host["memory"]
    if memory["total"] and memory["total"] < LITTLE_MEMORY:
        left = max(0, memory["total"] - HOST_RESERVE)
        yield on_host(
            "memory", "The kernel has %s of memory." % size(memory["total"]),
            "With %s kept for the host, guests with assigned devices can have %s together."
            % (size(HOST_RESERVE), size(left)))


def _few_cpus(view):
    count = view.host["cpu"]["count"]
    if count and count < FEW_CPUS:
        yield on_host("cpu", "The host has %d logical CPU%s." % (count, "" if count == 1 else "s"))


def _by_node(view):
    nodes = {}
    for function in _candidates(view):
        nodes.setdefault(function["numa_node"], []).append(function)
    return nodes


def _numa(view):
    numa = view.host["numa"]
    if len(numa) < 2:
        return
    near = _by_node(view)
    evidence = ["Node %s has %s CPUs and %s of memory; near it: %s."
                % (node["node"], _or_unknown(node["cpus"]),
                   "an unknown amount" if node["memory"] is None else size(node["memory"]),
                   named(near.get(node["node"], [])) or "no function that one would assign")
                for node in numa]
    if near.get(None):
        evidence.append("The firmware does not say which node these are near: %s." % named(near[None]))
    yield on_host("numa", *evidence)


def _or_unknown(value):
    return "an unknown number of" if value is None else value


def _poor_node(view):
    near = _by_node(view)
    evidence = []
    for node in view.host["numa"]:
        lacks = [what for what, amount in (("CPUs", node["cpus"]), ("memory", node["memory"])) if amount == 0]
        if lacks and near.get(node["node"]):
            evidence.append("Node %s has no %s, and near it are: %s."
                            % (node["node"], " and no ".join(lacks), named(near[node["node"]])))
    if evidence:
        yield on_host("numa", *evidence)


def _no_vfio(view):
    kernel = view.host["kernel"]
    if not kernel["config"] or kernel["config"].get("VFIO_PCI", "n") != "n":
        return
    # What is seen to work outweighs a configuration file, which can be another kernel's
    if "vfio_pci" in (kernel["builtin"] or ()) or any(is_vfio(f["driver"]) for f in view.functions.values()):
        return
    yield on_host("kernel", "The configuration of kernel %s has no CONFIG_VFIO_PCI." % kernel["release"])


def _virtual(view):
    product = view.host["product"]
    if product["virtual"]:
        words = " ".join(word for word in (product["vendor"], product["name"]) if word)
        yield on_host("machine", "The machine is virtual%s." % (": " + words if words else ""))


def _boot_chain(view):
    boot = view.host["boot"]
    if boot["firmware"] is None or not view.host["kernel"]["cmdline"]:
        return  # nothing is known about how this machine boots
    generator = view.host["initramfs"]["generator"]
    evidence = []
    if boot["loader"] not in LOADERS:
        why = "".join(": " + sentence for sentence in boot["evidence"][:1])
        evidence.append("The boot loader is %s%s." % (boot["loader"], why))
    if generator not in GENERATORS:
        evidence.append("The initramfs generator is %s." % generator)
    if evidence:
        yield on_host("boot", *evidence)


def _hugepages(view):
    memory = view.host["memory"]
    reserved = sum(pages["size"] * pages["total"] for pages in memory["hugepages"])
    if reserved and memory["total"] and memory["total"] - reserved < LITTLE_BESIDE_HUGEPAGES:
        yield on_host("memory", "%s of %s are reserved as huge pages." % (size(reserved), size(memory["total"])),
                      "%s remain for the host and for guests without huge pages."
                      % size(max(0, memory["total"] - reserved)))


def _idle_tokens(view):
    evidence = []
    for token in _cmdline(view):
        name, options = tokens.key(token), (tokens.value(token) or "").split(",")
        if name == "amd_iommu" and "on" in options:
            evidence.append("%s: the kernel knows no such value, and uses an AMD IOMMU without being asked." % token)
        elif (name == "iommu" and "pt" in options) or token in PASSTHROUGH_TOKENS:
            evidence.append("%s: is about the host's own drivers, not about assigned devices or groups." % token)
    if evidence:
        yield on_host("cmdline", *evidence)


def _claimed_by_id(view):
    by_id = {}
    for function in view.endpoints():
        by_id.setdefault((int(function["vendor"], 16), int(function["device"], 16)), []).append(function)
    evidence = []
    for entry in _vfio_ids(view):
        numbers = _numbers(entry)
        taken = [function for function in by_id.get(numbers[:2], ()) if _fits(numbers, function)]
        if len(taken) > 1 or any(function["used_by"] for function in taken):
            evidence.append("%s means %s." % (entry, listed(_with_use(function) for function in taken)))
    if evidence:
        yield on_host("cmdline", *evidence)


def _vfio_ids(view):
    """Entries of vfio-pci.ids= on the command line, each once."""
    entries = []
    for token in _cmdline(view):
        if tokens.key(token) == "vfio_pci.ids":
            entries.extend((tokens.value(token) or "").split(","))
    return list(dict.fromkeys(entries))


def _numbers(entry):
    """The hex numbers of ``vendor:device[:subvendor[:subdevice[:class[:mask]]]]``; () for what is no such entry."""
    try:
        return tuple(int(field, 16) for field in entry.split(":"))
    except ValueError:
        return ()


def _fits(numbers, function):
    """Whether an entry whose vendor and device fit means a function (pci_match_one_device of the kernel)."""
    subvendor, subdevice, code, mask = (numbers[2:] + (ANY_ID, ANY_ID, 0, 0)[len(numbers) - 2:])[:4]
    return (subvendor in (ANY_ID, int(function["subsystem_vendor"], 16))
            and subdevice in (ANY_ID, int(function["subsystem_device"], 16))
            and not (code ^ int(function["class"], 16)) & mask)


def _with_use(function):
    uses = function["used_by"]
    return describe(function) + (" (the host uses it: %s)" % uses[0]["what"] if uses else "")


def _stubborn_framebuffer(view):
    framebuffer = view.host["framebuffer"]
    asked = [token for token in _cmdline(view) if _turns_framebuffer_off(token)]
    if framebuffer and asked:
        where = " in a BAR of %s" % framebuffer["function"] if framebuffer["function"] else ""
        yield on_host("framebuffer", "%s on the running command line." % " and ".join(asked),
                      "/proc/iomem still shows %s%s." % (framebuffer["name"], where))


def _turns_framebuffer_off(token):
    name = tokens.key(token)
    return any("%s=%s" % (name, part) in FRAMEBUFFER_TOKENS for part in (tokens.value(token) or "").split(","))


RULES = (
    rule(
        "VH301", "vfio-pci is built into the kernel", "info",
        "Nothing to do here: binding is by address and needs no option. Whoever binds by ids has to write "
        "vfio-pci.ids= on the kernel command line; options in modprobe.d reach modules only.",
        _vfio_builtin,
    ),
    rule(
        "VH302", "Drivers of functions that could be assigned are built into the kernel", "info",
        "Bind these by address: driver_override, then unbind and probe, in the initramfs or at run time. A softdep, a "
        "blacklist or ids in modprobe.d come too late for a driver that is no module.",
        _driver_builtin,
    ),
    rule(
        "VH303", "Little memory to pin", "warn",
        "Plan small guests, or fit more memory: all memory of a guest with an assigned device is pinned, whether "
        "the guest uses it or not.",
        _little_memory, acknowledgeable=False,
    ),
    rule(
        "VH304", "Few CPUs for a guest beside the host", "warn",
        "Expect stutter when guest and host are busy at once. Give the guest fewer vCPUs than the host has CPUs.",
        _few_cpus, acknowledgeable=False,
    ),
    rule(
        "VH305", "Several NUMA nodes: devices have a near and a far side", "info",
        "Give a guest the CPUs and the memory of the node that its device is near (vcpupin, numatune).",
        _numa,
    ),
    rule(
        "VH306", "This kernel has no vfio-pci", "refuse",
        "Boot a kernel with CONFIG_VFIO_PCI, y or m. One made for clouds or small boards may lack it.",
        _no_vfio, acknowledgeable=False,
    ),
    rule(
        "VH308", "This machine is itself virtual", "info",
        "Assignment works here if the hypervisor gives this machine an emulated IOMMU. What is assigned are the "
        "functions that the hypervisor shows, and their groups are its work.",
        _virtual,
    ),
    rule(
        "VH309", "The collection does not configure this boot loader or initramfs generator", "info",
        "Write the kernel parameters by hand, and bind after the boot or with a hook of your generator: the page says "
        "how.",
        _boot_chain,
    ),
    rule(
        "VH310", "Huge pages leave little memory", "warn",
        "Reserve fewer huge pages: hugepages= on the kernel command line, or vm.nr_hugepages at run time.",
        _hugepages, acknowledgeable=False,
    ),
    rule(
        "VH313", "Devices near a NUMA node without CPUs or without memory", "warn",
        "Populate the memory slots beside that CPU, or move the card to a slot of a node that has both.",
        _poor_node, acknowledgeable=False,
    ),
    rule(
        "VH314", "The command line has parameters that do nothing for assignment", "info",
        "Take them out if they were meant for assignment. They do no harm there.",
        _idle_tokens,
    ),
    rule(
        "VH315", "vfio-pci.ids means more than one function, or one that the host uses", "warn",
        "Take the entry out of the command line and bind by address: twins cannot be told apart by their ids.",
        _claimed_by_id, acknowledgeable=False,
    ),
    rule(
        "VH316", "The firmware's framebuffer is still there although the command line turns it off", "warn",
        "Take the parameter out: it does not work with this kernel. Make another GPU the primary one in the firmware "
        "setup, or let the GPU's own driver take over from the framebuffer before the GPU is handed over.",
        _stubborn_framebuffer, acknowledgeable=False,
    ),
    rule(
        "VH320", "The kernel parameters that are asked for do not fit this machine", "refuse",
        "Correct the variables as the evidence says.",
        acknowledgeable=False,
    ),
)
