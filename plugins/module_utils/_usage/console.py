# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the kernel writes to, who is logged in, and the firmware's framebuffer.

Sources: /proc/consoles (proc(5)), logind's files in /run/systemd/sessions, /proc/iomem, and what the boot loader told
the kernel of the screen (Documentation/arch/x86/zero-page.rst, struct screen_info).
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci

FINDING = "VH200"
CONSOLES = "/proc/consoles"
ACTIVE = "/sys/class/tty/console/active"
SESSIONS = "/run/systemd/sessions"
IOMEM = "/proc/iomem"
BOOT_PARAMS = "/sys/kernel/boot_params/data"
VIDEO_VLFB, VIDEO_EFI = 0x23, 0x70
"""orig_video_isVGA of a screen that is a framebuffer."""

KINDS = (
    (re.compile(r"tty\d+$"), "screen"),
    (re.compile(r"(ttyS|ttyAMA|ttyUSB|ttyACM|ttyMFD|ttyLP|ttySIF|ttyPS|uart)\d+$"), "serial"),
    (re.compile(r"netcon"), "network"),
    (re.compile(r"(hvc|hvsi|xvc|sclp|ttysclp)"), "virtual"),
)

FRAMEBUFFERS = ("BOOTFB", "simplefb", "simpledrm", "efifb", "efidrm", "vesafb", "vesadrm", "offb", "ofdrm")
"""Names that a framebuffer which the firmware has set up has in /proc/iomem: the kernel's own (sysfb) and those of
the drivers on it. A driver made for the GPU puts an end to all of them."""


def read(inputs, functions):
    """``{consoles, sessions, framebuffer}`` as the document has them, ``uses``: consoles on serial cards, and
    ``firmware``: the function that the firmware's framebuffer was on when the kernel started, or None."""
    consoles = _consoles(inputs)
    return {
        "consoles": consoles,
        "sessions": _sessions(inputs.host),
        "framebuffer": _framebuffer(inputs, functions),
        "firmware": _bar(screen_base(inputs.host.read_bytes(BOOT_PARAMS, 0x40) or b""), functions),
        "uses": _uses(inputs.host, consoles),
    }


def parse_consoles(text):
    """``[{name, kind}]`` of the enabled ones in /proc/consoles: ``ttyS0  -W- (EC  p a)  4:64``."""
    rows = re.findall(r"^(\S+)\s+\S+ \(([^)]*)\)", text, re.MULTILINE)
    return [_console(name) for name, flags in rows if "E" in flags]


def _console(name):
    return {"name": name, "kind": next((kind for pattern, kind in KINDS if pattern.match(name)), "other")}


def _consoles(inputs):
    found = parse_consoles(inputs.host.read(CONSOLES) or "")
    if not found:
        found = [_console(name) for name in (inputs.host.read_attribute(ACTIVE) or "").split()]
    if not found:
        inputs.miss(CONSOLES, "what the kernel writes its messages to is unknown")
    return found


def _uses(host, consoles):
    """A console on a serial port of a PCI function; those of the board are on no function."""
    uses = []
    for console in consoles:
        home = host.real("/sys/class/tty/" + console["name"])
        functions = pci.addresses_in(home)
        if console["kind"] == "serial" and functions:
            what, address = "serial console", functions[-1]
            chain = [what, console["name"], address]
            uses.append({"kind": "console", "what": what, "chain": chain, "function": address, "finding": FINDING})
    return uses


def parse_session(number, text):
    """A session of the document from logind's file; what the file does not say is null."""
    values = pci.parse_uevent(text)

    def flag(name):
        return {"0": False, "1": True}.get(values.get(name))

    return {
        "id": number,
        "user": values.get("USER") or values.get("UID") or None,
        "type": values.get("TYPE") or None,
        "seat": values.get("SEAT") or None,
        "active": flag("ACTIVE"),
        "remote": flag("REMOTE"),
    }


def _sessions(host):
    """Sessions of logind, [] without one. A session's FIFO is beside its file and is not read."""
    names = [name for name in host.listdir(SESSIONS) if not name.endswith(".ref")]
    texts = [(name, host.read("%s/%s" % (SESSIONS, name))) for name in names]
    return [parse_session(name, text) for name, text in texts if text]


def parse_iomem(text):
    """``[(depth, start, end, name)]`` of /proc/iomem; each level is indented by two blanks."""
    found = re.findall(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$", text, re.MULTILINE)
    return [(len(blanks) // 2, int(start, 16), int(end, 16), name.strip()) for blanks, start, end, name in found]


def find_framebuffer(rows, functions):
    """``{name, start, end, function}`` of the firmware's framebuffer, None without one; ``rows`` as of parse_iomem().

    Of nested ones the innermost: that is the driver's. The function is the one in whose BAR it lies.
    """
    best, path = None, []
    for depth, start, end, name in rows:
        path = path[:depth] + [name]
        if name in FRAMEBUFFERS and (best is None or depth > best[0]):
            owner = next((above for above in reversed(path) if pci.ADDRESS.match(above)), None)
            best = (depth, {"name": name, "start": start, "end": end, "function": owner or _bar(start, functions)})
    return best[1] if best else None


def screen_base(params):
    """Address of the framebuffer that the firmware has set up, by struct boot_params; None without one. Pure.

    It tells what /proc/iomem no longer does once a GPU's own driver runs, and will do again without that driver.
    """
    if len(params) < 0x3E or params[0x0F] not in (VIDEO_VLFB, VIDEO_EFI):
        return None
    base = int.from_bytes(params[0x18:0x1C], "little")
    if int.from_bytes(params[0x36:0x3A], "little") & 2:  # VIDEO_CAPABILITY_64BIT_BASE
        base |= int.from_bytes(params[0x3A:0x3E], "little") << 32
    return base or None


def _bar(start, functions):
    if start is None:
        return None
    for function in functions:
        for resource in function["resources"]:
            if "mem" in resource["flags"] and 0 <= start - resource["start"] < resource["size"]:
                return function["address"]
    return None


def _framebuffer(inputs, functions):
    rows = parse_iomem(inputs.host.read(IOMEM) or "")
    if not any(end for dummy, dummy, end, dummy in rows):
        # The kernel shows an ordinary user zeros for addresses; archivers copy such files as empty
        inputs.miss(IOMEM, "whether the firmware's framebuffer is in use is unknown: %s"
                    % ("only root sees addresses" if rows else "it cannot be read"))
        return None
    return find_framebuffer(rows, functions)
