# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules about isolation, the IOMMU, groups and the plan itself: VH1xx. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._boot import iommu_line, tokens
from ansible_collections.vfio.host.plugins.module_utils._findings.finding import (
    describe,
    listed,
    on_device,
    on_group,
    on_host,
    rule,
)
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs

_NO_ADVICE = ("0600", "0806")
"""Host bridges and IOMMUs: nobody wants to assign them, and the kernel leaves some of them in no group."""

# -- the IOMMU ---------------------------------------------------------------------------------


def _not_covered(view):
    if not any(group["source"] == "actual" for group in view.machine["groups"]):
        return
    for function in view.endpoints():
        if function["group"] is None and not function["class"].startswith(_NO_ADVICE):
            yield on_device(function["address"], "%s has no iommu_group in sysfs, others have" % describe(function))


def _no_table(view):
    iommu = view.host["iommu"]
    if iommu["active"] is False and iommu["firmware_table"] is None and not iommu["units"]:
        yield on_host("iommu", iommu["reason"], "neither DMAR nor IVRS in /sys/firmware/acpi/tables")


def _can_be_turned_on(view):
    iommu = view.host["iommu"]
    if iommu["active"] is False and iommu["firmware_table"] and not _off_tokens(view) and not _should_be_on(view):
        yield on_host("iommu", iommu["reason"], "firmware table %s is there" % iommu["firmware_table"])


def _line(view):
    return tokens.for_kernel(tokens.split(view.host["kernel"]["cmdline"]))


def _off_tokens(view):
    return iommu_line.turned_off(_line(view), view.host["iommu"]["firmware_table"])


def _turned_off(view):
    off = _off_tokens(view)
    if off and view.host["iommu"]["active"] is False:
        yield on_host("iommu", *["%s is on the running command line" % token for token in off])


def _should_be_on(view):
    """Why a kernel should have turned the IOMMU on that is there; None where it takes a parameter, or may."""
    config, table = view.host["kernel"]["config"] or {}, view.host["iommu"]["firmware_table"]
    if table == "IVRS" and config.get("AMD_IOMMU") == "y":
        return "the kernel uses an AMD IOMMU unasked (CONFIG_AMD_IOMMU)"
    if table == "DMAR":
        said = iommu_line.intel_state(_line(view))
        if said == "on":
            return "intel_iommu=on is on the running command line"
        if said is None and iommu_line.intel_default(config) in ("on", "but graphics"):
            return "the kernel turns an Intel IOMMU on unasked (CONFIG_INTEL_IOMMU_DEFAULT_ON...)"
    return None


def _failed(view):
    iommu = view.host["iommu"]
    if iommu["active"] is False and iommu["firmware_table"] and not _off_tokens(view) and _should_be_on(view):
        yield on_host("iommu", "firmware table %s is there, and no PCI function is in a group"
                      % iommu["firmware_table"], _should_be_on(view))


def _remapping_off(view):
    token = iommu_line.remapping_off(_line(view))
    if token and view.host["iommu"]["active"] is not True and not view.host["iommu"]["unsafe_interrupts"]:
        yield on_host("iommu", "%s is on the running command line" % token)


def _covers_nothing(view):
    iommu = view.host["iommu"]
    if iommu["active"] is False and iommu["firmware_table"] is None and iommu["units"]:
        yield on_host("iommu", "%s in /sys/class/iommu, but no PCI function has an iommu_group"
                      % listed(iommu["units"]))


def _no_interrupt_remapping(view):
    iommu = view.host["iommu"]
    if iommu["active"] and iommu["interrupt_remapping"] is False and not iommu["unsafe_interrupts"]:
        yield on_host("iommu", "no interrupt chip in /proc/interrupts is called IR-...")


def _unsafe_interrupts(view):
    if view.host["iommu"]["unsafe_interrupts"]:
        yield on_host("iommu", "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts is Y")


# -- what decides the groups ---------------------------------------------------------------------


def _leaky_switches(view):
    """Downstream ports of one switch in groups of their own, and no ACS between them."""
    for upstream in view.functions.values():
        if upstream["port_type"] != "upstream_port":
            continue
        ports = [f for f in view.children(upstream["address"])
                 if f["port_type"] == "downstream_port" and not f["isolates"]["answer"] and f["isolates"]["certain"]]
        used = [f for f in ports if view.children(f["address"])]
        groups = {id(view.group(f["address"])) for f in ports}
        if used and len(ports) > 1 and len(groups) > 1:
            yield on_device(
                upstream["address"],
                "ports %s of this switch have no ACS" % listed(f["address"] for f in ports),
                "behind them: %s" % listed(describe(c) for f in used for c in view.children(f["address"])),
            )


def _cards(view, members):
    """``{slot: [functions]}`` of the endpoints among the members that are behind a bridge."""
    cards = {}
    for address in members:
        function = view.functions.get(address)
        if function and not function["is_bridge"] and function["parent"] and function["physfn"] is None:
            cards.setdefault(address.rpartition(".")[0], []).append(function)
    return cards


def _open_root_ports(view, group):
    """Root ports of a group that do not isolate, for certain."""
    found = [view.functions[a] for a in group["members"] if a in view.functions]
    return [f for f in found
            if f["port_type"] == "root_port" and not f["isolates"]["answer"] and f["isolates"]["certain"]]


def _shared_root_port(view):
    for group in view.machine["groups"]:
        ports = _open_root_ports(view, group)
        cards = _cards(view, group["members"])
        if ports and len(cards) > 1:
            yield on_group(
                group["members"],
                "%s: %s" % (listed(p["address"] for p in ports), ports[0]["isolates"]["why"]),
                "so these share one group: %s" % listed(describe(functions[0]) for functions in cards.values()),
            )


def _neighbour_would_join(view):
    for group in view.machine["groups"]:
        ports = _open_root_ports(view, group)
        if not ports or len(_cards(view, group["members"])) > 1:
            continue
        slots = sorted({p["address"].rpartition(".")[0] for p in ports})
        yield on_group(
            group["members"],
            "root port%s %s without ACS" % ("" if len(ports) == 1 else "s", listed(p["address"] for p in ports)),
            "a card on any port of %s would be in this group" % listed(slots),
        )


def _quirk_ports(view, answer):
    return [f for f in view.functions.values()
            if f["vendor"] == "8086" and f["port_type"] == "root_port" and f["isolates"]["by"] == "quirk"
            and f["isolates"]["answer"] is answer]


def _quirk_applied(view):
    ports = _quirk_ports(view, True)
    if ports:
        yield on_host("isolation", "%s: %s" % (listed(p["address"] for p in ports), ports[0]["isolates"]["why"]))


def _quirk_missing(view):
    ports = _quirk_ports(view, False)
    if ports:
        yield on_host("isolation", "%s: %s" % (listed(p["address"] for p in ports), ports[0]["isolates"]["why"]))
    for function in view.functions.values():
        if function["id"] == "8086:244e" and function["port_type"] == "root_port":
            yield on_device(function["address"], "%s has no ACS and is not in the kernel's quirk list"
                            % describe(function))


def _newer_kernel(view):
    if view.host["kernel"]["quirk_table"] != "5.4":
        return
    newer = dict(acs.of_machine(view.machine), kernel="all")
    gained = [f["address"] for f in view.functions.values()
              if not f["isolates"]["answer"] and f["isolates"]["certain"] and f["multifunction"] is not None
              and acs.judge(f, f["multifunction"], newer)["by"] == "quirk"
              and acs.judge(f, f["multifunction"], newer)["answer"]]
    if gained:
        yield on_host("isolation", "Linux %s does not know that these isolate, later kernels do: %s"
                      % (view.host["kernel"]["release"], listed(gained)))


def _split_card(view):
    for function in view.endpoints():
        slot = [f for f in view.card(function["address"]) if not f["is_bridge"]]
        if not slot or function is not slot[0] or function["parent"] is None:
            continue  # a slot of virtual functions alone is none of a card
        groups = {id(view.group(f["address"])) for f in slot}
        if len(groups) > 1 and any(f["class"].startswith("03") for f in slot):
            yield on_device(function["address"], "functions of this card are in %d groups: %s"
                            % (len(groups), listed(describe(f) for f in slot)))


def _conventional_bridge(view):
    for bridge in view.functions.values():
        if not bridge["is_bridge"] or bridge["port_type"] not in ("conventional", "pcie_to_pci"):
            continue
        behind = [f for f in view.children(bridge["address"]) if not f["is_bridge"]]
        if len(behind) > 1:
            yield on_device(bridge["address"], "behind %s: %s"
                            % (describe(bridge), listed(describe(f) for f in behind)))


def _alias(view):
    for group in view.machine["groups"]:
        for reason in group["reasons"]:
            if "makes requests as" in reason:
                yield on_group(group["members"], reason)


def _firmware_acs(view):
    ports = [f for f in view.functions.values()
             if f["vendor"] == "1022" and f["port_type"] == "root_port" and f["isolates"]["by"] == "none"
             and view.children(f["address"])]
    if ports:
        yield on_host("isolation", "AMD root ports with a card and without an ACS capability: %s"
                      % listed(p["address"] for p in ports))


# -- prediction, override, and change -------------------------------------------------------------


def _partition(groups, only):
    """``{address: frozenset}`` of the groups' members among ``only``."""
    parts = {}
    for group in groups:
        part = frozenset(a for a in group["members"] if a in only)
        parts.update(dict.fromkeys(part, part))
    return parts


def _disagreements(view):
    """``[(actual members, predicted members)]`` where the kernel decided otherwise, bounds allowed for."""
    actual = [group for group in view.machine["groups"]
              if group["source"] == "actual" or view.machine["source"].get("what_if")]
    only = {a for group in actual for a in group["members"] if a in view.functions}
    predicted = _partition(view.machine["predicted_groups"], only)
    bounds = {a: g["bounds"] for g in view.machine["predicted_groups"] if g["bounds"] for a in g["members"]}
    found = []
    for group in actual:
        members = frozenset(a for a in group["members"] if a in only)
        for address in sorted(members):
            if predicted.get(address) != members:
                if not (address in bounds and members <= set(bounds[address]["largest"])):
                    found.append((members, predicted.get(address, frozenset())))
                break
    return found


def _prediction_differs(view):
    for members, predicted in _disagreements(view):
        yield on_group(
            sorted(members),
            "the kernel's group: %s" % listed(sorted(members)),
            "by topology, ACS and quirks: %s" % listed(sorted(predicted)),
        )


def _override_option(view):
    option = view.host["kernel"]["acs_override"]
    if option is None:
        return
    evidence = ["pcie_acs_override=%s is on the running command line" % option]
    if view.host["iommu"]["active"] and not any(predicted - members for members, predicted in _disagreements(view)):
        evidence.append("no group is smaller than without it: this kernel seems to lack the patch")
    yield on_host("isolation", *evidence)


def _override_fakes(view):
    if view.host["kernel"]["acs_override"] is None:
        return
    for members, predicted in _disagreements(view):
        torn = [view.functions[a] for a in sorted(predicted - members) if not view.functions[a]["is_bridge"]]
        if torn and any(not view.functions[a]["is_bridge"] for a in members):
            yield on_group(sorted(members), "without the patch it would share a group with %s"
                           % listed(describe(f) for f in torn))


def _groups_changed(view):
    previous = view.host["previous"]
    if previous is None or not any(group["source"] == "actual" for group in view.machine["groups"]):
        return
    before = {a: frozenset(group) for group in previous["groups"] for a in group}
    for group in view.machine["groups"]:
        members = frozenset(group["members"])
        old = [before[a] for a in group["members"] if a in before]
        if old and any(part != members for part in old):
            yield on_group(group["members"], "now: %s" % listed(group["members"]),
                           "at the last run: %s" % "; ".join(listed(sorted(part)) for part in dict.fromkeys(old)))


def _identity(item):
    return "%s:%s %s:%s" % (item["vendor"], item["device"], item["subsystem_vendor"], item["subsystem_device"])


def _moved(view):
    for wanted in view.host["requested"]:
        here = view.functions.get(wanted["address"])
        same = [f for f in view.functions.values()
                if _identity(f) == _identity(wanted) and (wanted["serial"] is None or f["serial"] == wanted["serial"])]
        if here in same:
            continue
        asked = "%s was asked for as %s" % (wanted["address"], _identity(wanted))
        now = "there is now %s" % describe(here) if here else "there is no function at this address now"
        for function in same:  # each of them may be the one: the host's own display can be a twin of the card
            yield on_device(function["address"], asked, now,
                            "the same device is at %s" % listed(f["address"] for f in same))
        if not same:
            yield on_host("devices", asked, now)


def _hardware_changed(view):
    previous = view.host["previous"]
    if previous is None:
        return
    before, now = previous["functions"], view.functions
    gone = [a for a in sorted(before) if a not in now]
    new = [a for a in sorted(now) if a not in before and now[a]["physfn"] is None]
    other = [a for a in sorted(now) if a in before and before[a].get("id") != now[a]["id"]]
    evidence = ["%s: %s" % (what, listed(addresses))
                for what, addresses in (("gone", gone), ("new", new), ("another device", other)) if addresses]
    if evidence:
        yield on_host("devices", *evidence)


RULES = (
    rule(
        "VH101", "The IOMMU group has members outside the device", "refuse",
        "A group goes to one guest as a whole. Add the members to this device if the host can spare them, "
        "move the card to another slot, or look for ACS in the firmware setup.",
        acknowledgeable=False,
    ),
    rule(
        "VH102", "A bridge cannot be assigned", "refuse",
        "Select the functions behind the bridge. Where the bridge shares a slot with endpoints, select those "
        "and set functions: listed.",
        acknowledgeable=False,
    ),
    rule(
        "VH103", "Switch ports that look isolated and are not", "warn",
        "Linux gives these ports separate groups, yet devices behind them can reach each other's memory past the "
        "IOMMU. Give what is behind one switch to one guest, or keep the rest of it idle.",
        _leaky_switches,
    ),
    rule(
        "VH104", "Root ports without ACS put several cards in one group", "warn",
        "Give all of them to one guest, or move a card to a slot on the chipset or on another root port that isolates. "
        "What has no ACS on this CPU gets it from no setting.",
        _shared_root_port,
    ),
    rule(
        "VH105", "The chipset's root ports are isolated by a quirk of the kernel", "info",
        "Nothing to do. The isolation is the chipset vendor's word, which Linux arms at boot.",
        _quirk_applied,
    ),
    rule(
        "VH106", "A chipset root port misses the quirk that isolates it", "warn",
        "Update the kernel (5.8 and 5.9 are known to fail) and look for 'Intel PCH root port ACS workaround enabled' "
        "in its log. For 8086:244e there is no quirk: leave what is behind it to the host.",
        _quirk_missing,
    ),
    rule(
        "VH107", "A card's functions are in different groups", "info",
        "Assign all of them to the same guest nevertheless: they are reset together.",
        _split_card,
    ),
    rule(
        "VH108", "The kernel's groups are not the predicted ones", "warn",
        "The kernel's groups are used. Compare the reasons of both; report it with the output of lspci -D -xxxx, "
        "since one of the two misjudges this machine.",
        _prediction_differs,
    ),
    rule(
        "VH109", "A newer kernel would isolate more", "info",
        "Update the kernel to 5.10 or later and look at the groups again.",
        _newer_kernel,
    ),
    rule(
        "VH110", "Groups are predicted; verified after the reboot before any device is handed over", "info",
        "Nothing to do: the plan is made again on the actual groups after the reboot.",
    ),
    rule(
        "VH111", "Too little is readable to decide", "refuse",
        "Run the probe as root (become: true). If it was, turn the IOMMU on first (see the kernel parameters of "
        "this machine), reboot and plan on the actual groups.",
        acknowledgeable=False,
    ),
    rule(
        "VH112", "No IOMMU covers this function", "refuse",
        "The IOMMU is active, yet this function is in no group: it cannot be assigned. Choose another one.",
        _not_covered,
        acknowledgeable=False,
    ),
    rule(
        "VH113", "Conventional PCI: all behind one bridge share a group", "info",
        "Assign them together, or replace the card by a PCI Express one.",
        _conventional_bridge,
    ),
    rule(
        "VH114", "A device makes requests in another function's name", "info",
        "Assign the functions of the group together.",
        _alias,
    ),
    rule(
        "VH115", "Another card next to this one would join its group", "info",
        "Nothing to do while the slot stays as it is. Before buying a second card, plan a slot whose port "
        "isolates, and "
        "look at the groups again after any change of hardware.",
        _neighbour_would_join,
    ),
    rule(
        "VH116", "AMD root ports show no ACS, which firmware may turn on", "warn",
        "Look in the firmware setup for 'ACS Enable' (it often needs 'AER' or 'AER Cap' enabled too, under AMD "
        "CBS, NBIO), "
        "update the firmware, and look at the groups again.",
        _firmware_acs,
    ),
    rule(
        "VH120", "The firmware offers no IOMMU", "refuse",
        "Enter the firmware setup and turn on VT-d (Intel), AMD-Vi/IOMMU (AMD) or the SMMU (Arm); VT-x or SVM alone is "
        "not it. "
        "No kernel parameter helps while the table is missing.",
        _no_table,
        acknowledgeable=False,
    ),
    rule(
        "VH121", "The IOMMU is off and can be turned on", "info",
        "Nothing to do: the kernel command line and one reboot turn it on.",
        _can_be_turned_on,
    ),
    rule(
        "VH122", "The kernel command line turns the IOMMU off", "refuse",
        "Remove the token from the boot loader's configuration; nothing added to the command line outweighs it.",
        _turned_off,
        acknowledgeable=False,
    ),
    rule(
        "VH123", "There is an IOMMU, but none for PCI", "refuse",
        "The platform's IOMMU serves other devices only. No setting changes that: PCI functions of this machine "
        "cannot be "
        "assigned safely.",
        _covers_nothing,
        acknowledgeable=False,
    ),
    rule(
        "VH124", "Interrupts are not remapped", "refuse",
        "vfio refuses to assign anything then. Look for interrupt remapping or x2APIC in the firmware setup, "
        "update the "
        "firmware, and remove intremap=off or nointremap from the kernel command line.",
        _no_interrupt_remapping,
        acknowledgeable=False,
    ),
    rule(
        "VH125", "Guests may send any interrupt to the host", "warn",
        "Remove allow_unsafe_interrupts=1 from modprobe.d and the kernel command line unless every guest is "
        "trusted; it "
        "is needed only where interrupts cannot be remapped.",
        _unsafe_interrupts,
    ),
    rule(
        "VH126", "The command line turns the remapping of interrupts off", "refuse",
        "Remove the token from the boot loader's configuration: vfio refuses to assign anything without it.",
        _remapping_off,
        acknowledgeable=False,
    ),
    rule(
        "VH127", "The IOMMU is off although the kernel should have turned it on", "warn",
        "No parameter helps. Look for DMAR or AMD-Vi in the kernel log for the reason, update the firmware, or boot "
        "another kernel.",
        _failed, acknowledgeable=False,
    ),
    rule(
        "VH131", "Two devices of the plan claim the same function", "refuse",
        "Make the selectors disjoint, or join the two entries into one device.",
        acknowledgeable=False,
    ),
    rule(
        "VH140", "The ACS override patch is asked for", "warn",
        "Remove pcie_acs_override= from the kernel command line: it changes what the groups say, not what the "
        "hardware does. "
        "Choose other slots or other hardware instead.",
        _override_option,
    ),
    rule(
        "VH141", "The ACS override patch fakes this isolation", "refuse",
        "The devices named can reach each other past the IOMMU: memory corruption, or a way out of the guest. "
        "Assign them "
        "together, move the card, or acknowledge that isolation is not verified.",
        _override_fakes,
    ),
    rule(
        "VH142", "The ACS override patch is to be asked for", "refuse",
        "Leave acs_override out. Or accept it with {code: VH142, host: acs_override} in vfio_host_acknowledge: then "
        "the parameter is set, and every report says that isolation is not verified.",
    ),
    rule(
        "VH150", "An IOMMU group changed since the last run", "warn",
        "Find out what changed (kernel, firmware, cards), and look at the plan again before a guest starts.",
        _groups_changed,
    ),
    rule(
        "VH151", "A device that was handed over is not where it was", "warn",
        "Nothing is bound at the old address: the identity is checked at boot. Correct vfio_host_devices and run "
        "site again.",
        _moved,
    ),
    rule(
        "VH152", "The hardware changed since the last run", "info",
        "Addresses behind an added or removed bridge may have moved: compare them with vfio_host_devices.",
        _hardware_changed,
    ),
    rule(
        "VH190", "An acknowledgement has no effect", "warn",
        "Correct its code or its device, or remove it.",
        acknowledgeable=False,
    ),
)
