# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules about what the host needs for itself: VH2xx. Pure."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._findings.finding import (
    describe,
    listed,
    on_device,
    on_host,
    rule,
    some,
    stays,
)
from ansible_collections.vfio.host.plugins.module_utils._sriov import wanted as sriov
from ansible_collections.vfio.host.plugins.module_utils._usage.display import WITH_OUTPUTS
from ansible_collections.vfio.host.plugins.module_utils._usage.holders import weigh

_USES = ("VH201", "VH202", "VH203", "VH204", "VH206", "VH207", "VH208", "VH209")
"""Codes that a use may name; VH200 is for the rest."""

_USB = ("0c03",)
_TOUCHES = {
    "disk": ("01", "0805") + _USB,
    "ssh": ("02",) + _USB,
    "network": ("02",) + _USB,
    "display": ("03",),
}
"""What could not be found out -> beginnings of the class codes it may be about (a USB controller can carry the root
disk and the NIC). A word that is not here, as ``other``, is about everything."""

_VFIO = "vfio"


# -- uses that the probe found -------------------------------------------------------------------


def _used(code):
    """The check of a code: functions with uses that name it."""
    def check(view):
        for function in view.machine["functions"]:
            uses = [use for use in function["used_by"] or () if _code(use) == code]
            if uses:
                yield on_device(function["address"], *[_chain(use) for use in uses])
    return check


def _code(use):
    # A use that we have no rule for is a use all the same
    return use.get("finding") if use.get("finding") in _USES else "VH200"


def _chain(use):
    """``disk: / <- /dev/sda2 <- sda <- 0000:00:1f.2``"""
    links = [str(link) for link in use.get("chain") or []] or [str(use.get("what"))]
    return "%s: %s" % (use.get("kind"), " <- ".join(links))


# -- what is unknown -----------------------------------------------------------------------------


def _unknown(view):
    if view.machine["source"]["root"] == "lspci":
        return  # a dump is asked for the groups; a plan refuses all the same, see plan.make_plan()
    needs = _needs(view.machine)
    notes = ["%s (%s)" % (entry["input"], entry["why"].partition(": ")[2])
             for entry in view.machine["source"]["missing"] if str(entry["why"]).startswith("VH205")]
    for function in view.endpoints():
        if stays(function):
            continue
        evidence = ["unknown: %s" % need for need in needs if function["class"].startswith(_TOUCHES.get(need, ""))]
        evidence += some(notes) if evidence else []
        if function["used_by"] is None:
            evidence.append("the machine document says nothing about this function's uses")
        if _unseen_bus(function):
            evidence.append("what hangs off %s is unknown" % describe(function))
        if evidence:
            yield on_device(function["address"], *evidence)


def _needs(machine):
    """Needs of the host that were not followed. A document without the list is one of a probe that did not look."""
    host = machine["host"]
    if host.get("usage_unknown") is None:
        return ["everything, the machine document has no host.usage_unknown"]
    needs = list(host["usage_unknown"])
    if (host.get("ssh") or {}).get("unknown") and "ssh" not in needs:
        needs.append("ssh")
    return needs


def _unseen_bus(function):
    """Whether a driver of the host runs a USB controller and nobody saw what hangs off it."""
    return (function["class"].startswith(_USB) and function["usb_devices"] is None
            and bool(function["driver"]) and _VFIO not in function["driver"])


def _not_looked(view):
    endpoints = view.endpoints()
    if endpoints and view.machine["source"]["root"] != "lspci" and all(f["holders"] is None for f in endpoints):
        yield on_host("processes", *[entry["why"] for entry in view.machine["source"]["missing"]
                                     if entry["input"] == "/proc/*/fd"] or ["no function has holders in the document"])


# -- displays and consoles -----------------------------------------------------------------------


def _consoles(view, kinds):
    return [console["name"] for console in view.host["consoles"] if console["kind"] in kinds]


def _elsewhere(view):
    """Consoles of the host that need no display of its own."""
    return _consoles(view, ("serial", "network", "virtual"))


def _last_display(view):
    """The one display that the host has left: others are on vfio-pci, or are asked for."""
    asked = {entry["address"] for entry in view.host["requested"]}
    left = [f for f in view.endpoints() if f["class_name"] in WITH_OUTPUTS and f["physfn"] is None
            and _VFIO not in (f["driver"] or "") and f["address"] not in asked]
    if len(left) != 1:
        return
    evidence = ["%s is the only display that is the host's" % describe(left[0])]
    gone = [f["address"] for f in view.endpoints() if f["class_name"] in WITH_OUTPUTS and f is not left[0]]
    if gone:
        evidence.append("given away or asked for: %s" % listed(gone))
    other = _elsewhere(view)
    if other:
        evidence.append("the kernel also writes to %s" % ", ".join(other))
    elif view.host["consoles"]:
        evidence.append("there is no serial and no network console either")
    yield on_device(left[0]["address"], *evidence)


def _framebuffer(view):
    found = view.host["framebuffer"]
    if found and found["function"] in view.functions:
        yield on_device(
            found["function"],
            "%s has 0x%x to 0x%x in /proc/iomem, in a BAR of %s"
            % (found["name"], found["start"], found["end"], describe(view.functions[found["function"]])),
            "the running kernel is %s" % (view.host["kernel"]["release"] or "unknown"),
        )


def _only_screen(view):
    uses = [use for function in view.endpoints() for use in function["used_by"] or ()]
    bmc = any(use["finding"] == "VH208" and use["what"] == "BMC" for use in uses)
    screens = _consoles(view, ("screen",))
    if screens and not _elsewhere(view) and not bmc:
        yield on_host("console", "the kernel writes to %s only" % ", ".join(screens),
                      "no management controller is known")


# -- USB -----------------------------------------------------------------------------------------


def _controllers(view):
    controllers = [f for f in view.endpoints() if f["class"].startswith(_USB) and f["usb_devices"] is not None]
    if len(controllers) > 1:
        yield on_host("usb", *some(["%s: %s" % (describe(f), _devices(f)) for f in controllers]))


def _devices(function):
    texts = ["%s %s at %s" % ("+".join(device["kinds"]), device["product"] or device["id"] or "device", device["path"])
             for device in function["usb_devices"] if device["kinds"] != ["hub"]]
    return listed(texts) or "nothing"


# -- processes -----------------------------------------------------------------------------------


def _held(view, meaning):
    """``(function, sentences)`` of the functions with holders of one meaning, see holders.weigh()."""
    for function in view.endpoints():
        said = ["%s (process %d) has %s open" % (holder["command"] or "a program", holder["pid"], holder["node"])
                for holder in function["holders"] or () if weigh(function, holder) == meaning]
        if said:
            yield on_device(function["address"], *some(said))


def _guest(view):
    return _held(view, "guest")


def _controls(view):
    return _held(view, "control")


# -- virtual functions ----------------------------------------------------------------------------


def _virtual(view):
    """Physical functions whose virtual ones end when another driver takes them. On vfio-pci it is done already."""
    asked = {entry["address"]: entry["count"] for entry in view.host.get("sriov") or ()}
    made = {}
    for function in view.endpoints():
        made.setdefault(function["physfn"], []).append(function["address"])
    for function in view.endpoints():
        evidence = []
        virtual = made.get(function["address"])
        if virtual and _VFIO not in (function["driver"] or ""):
            evidence.append("%s has %d of them, %s to %s" % (describe(function), len(virtual), virtual[0], virtual[-1]))
        if asked.get(function["address"]):
            evidence.append("%s asks for %d virtual functions of %s" % (
                sriov.LIST, asked[function["address"]], describe(function)))
        if evidence:
            yield on_device(function["address"], *evidence)


RULES = (
    rule("VH200", "The host uses this function", "refuse",
         "Move what the evidence names to another device first.", _used("VH200")),
    rule("VH201", "A disk the host uses is behind this function", "refuse",
         "Choose another controller, or move the file systems and swap named to a disk behind another one.",
         _used("VH201")),
    rule("VH202", "The SSH connection runs over this function", "refuse",
         "Choose another NIC, or manage the host over another one.", _used("VH202")),
    rule("VH203", "The host's display is on this function", "refuse",
         "Make another GPU the primary one in the firmware setup, or acknowledge that the host loses its screen.",
         _used("VH203")),
    rule("VH204", "The host's default route goes over this function", "refuse",
         "Choose another NIC, or move the default route to another one.", _used("VH204")),
    rule("VH205", "It is unknown whether the host needs this function", "refuse",
         "Let the probe see what it missed (run it as root, on the host itself), or make sure by hand and acknowledge.",
         _unknown),
    rule("VH206", "A program has this function's device open", "refuse",
         "Stop the program named, or configure it to leave this device alone; a display or sound server lets go when "
         "its session ends. Acknowledge what may lose the device.", _used("VH206")),
    rule("VH207", "The host's only keyboard hangs off this function", "refuse",
         "Plug the keyboard, or a second one, into a port of another controller; acknowledge on a host that needs "
         "none.",
         _used("VH207")),
    rule("VH208", "This function is part of the machine itself", "refuse",
         "Choose another function. Where it is only a neighbour in the IOMMU group, use another slot for your device.",
         _used("VH208")),
    rule("VH209", "A graphical session runs on this display", "refuse",
         "Log out of it and start the host in text mode (systemctl set-default multi-user.target), or have the session "
         "on another GPU.", _used("VH209")),
    rule("VH210", "The host would be left without a display", "refuse",
         "Keep a display for the host, or set up a serial console or remote management, try it, and acknowledge.",
         _last_display),
    rule("VH211", "The firmware's framebuffer lies on this function", "warn",
         "Best, make another GPU the primary one in the firmware setup. Else the page says what works on which kernel; "
         "look at /proc/iomem again after the reboot.", _framebuffer),
    rule("VH212", "The screen is the only console", "info",
         "Before you give a display away, add a serial console (console=tty0 console=ttyS0,115200) and try it.",
         _only_screen),
    rule("VH213", "Several USB controllers: what hangs off each", "info",
         "To give a guest a whole controller, plug what it should have into the ports of one the host can spare.",
         _controllers),
    rule("VH215", "A guest uses this function now", "info",
         "Nothing to do. Stop the guest before you change what it was given.", _guest),
    rule("VH216", "A program watches this function's controls", "warn",
         "Nothing plays or records there now. Sound servers let go of a card when it is taken away; end the session "
         "first if you take it from a running host.", _controls),
    rule("VH217", "Nobody looked which programs use the devices", "warn",
         "Run the probe as root, on the host itself and not in a container.", _not_looked, acknowledgeable=False),
    rule("VH218", "This function has virtual functions, which would end", "refuse",
         "Select its virtual functions instead and leave it to the host. To give it away as a whole, have none first: "
         "the role sriov with count: 0.", _virtual),
)
