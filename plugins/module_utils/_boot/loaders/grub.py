# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""GRUB as Debian sets it up: a drop-in in ``/etc/default/grub.d``, then ``update-grub``.

``GRUB_CMDLINE_LINUX_DEFAULT`` goes to the ordinary entries only, behind ``GRUB_CMDLINE_LINUX``
(``/etc/grub.d/10_linux``): the recovery entries stay free of ours, which leaves a way in.

The interface of a loader: ``NAME``, ``evidence(host)``, ``record(host)``, ``entries(host)``,
``menu_of(host)``, ``managed(menu)``, ``default_entry(menu)``, ``missing(host, wanted)``,
``configured(host)``, ``render(wanted)`` and ``apply(host, wanted)``.
"""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import tokens
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "grub"

DROP_IN = "/etc/default/grub.d/90-vfio-host.cfg"
DEFAULTS = "/etc/default/grub"
GRUB_CFG = "/boot/grub/grub.cfg"
PROXMOX = "/etc/kernel/proxmox-boot-uuids"

HEADER = "# Managed by the vfio.host collection (module kernel_cmdline). Do not edit: it is replaced.\n"
PENDING = "# pending: the boot menu was not yet generated from this file\n"

TIMEOUT = 300.0
"""Seconds for ``update-grub``: a slow or emulated machine needs half a minute."""

SECTION = re.compile(r"^### (BEGIN|END) (\S+) ###$")
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)(\+?)=(.*)$")
GARBAGE = re.compile(r"\.dpkg-[^/]*$|\.rpmsave$|\.rpmnew$|\.sig$|\.efi\.signed$")


# -- pure ----------------------------------------------------------------------------------


def render(wanted, pending=False):
    """Text of the drop-in for a list of checked tokens."""
    text = HEADER + (PENDING if pending else "")
    if wanted:
        text += 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT %s"\n' % tokens.join(wanted)
    return text


def parse_record(text):
    """Tokens that a drop-in of ours adds. Raises ValueError for a file that is not ours."""
    if not text.startswith("# Managed by the vfio.host collection"):
        raise ValueError("%s exists and is not from this collection: move it away first" % DROP_IN)
    match = re.search(r'^GRUB_CMDLINE_LINUX_DEFAULT="\$GRUB_CMDLINE_LINUX_DEFAULT (.*)"$', text, re.M)
    return tokens.split(match.group(1)) if match else []


def words(line):
    """Words of a line of GRUB's script language, its quoting resolved; variables stay as they are."""
    found = []
    word = None
    quote = ""
    escaped = False
    for char in line:
        if escaped:
            word = (word or "") + char
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "'\"":
            quote = char
            word = word or ""
        elif char.isspace():
            if word is not None:
                found.append(word)
            word = None
        elif char == "#" and word is None:
            break
        else:
            word = (word or "") + char
    if word is not None:
        found.append(word)
    return found


def parse_menu(text):
    """The generated menu as ``{entries, default, complete}``.

    ``entries``: ``[{title, id, section, path, kernel, tokens, recovery}]`` in the order of the
    file; ``path`` is the position as GRUB counts it (``"1>0"``), ``section`` the script in
    ``/etc/grub.d`` that wrote it. ``default`` is the last fixed ``set default=`` or None.
    ``complete`` is False when the file ends in the middle (``update-grub`` writes it in place).
    """
    entries = []
    default = None
    section = None
    begun = ended = 0
    open_blocks = []  # of menuentry and submenu: [kind, position, entry]
    counters = [0]
    for line in text.splitlines():
        match = SECTION.match(line)
        if match:
            begun += match.group(1) == "BEGIN"
            ended += match.group(1) == "END"
            section = match.group(2) if match.group(1) == "BEGIN" else None
            continue
        found = words(line)
        if not found:
            continue
        command = found[0]
        if command in ("menuentry", "submenu") and len(found) > 1:
            position = counters[-1]
            counters[-1] += 1
            entry = {"title": found[1], "id": _entry_id(found), "section": section, "kernel": None, "tokens": []}
            open_blocks.append((command, position, entry))
            if command == "submenu":
                counters.append(0)
            else:
                entry["path"] = ">".join(str(block[1]) for block in open_blocks)
                entry["recovery"] = "-recovery-" in (entry["id"] or "")
                entries.append(entry)
        elif command == "}" and open_blocks:
            if open_blocks.pop()[0] == "submenu":
                counters.pop()
        elif command in ("linux", "linux16", "linuxefi") and len(found) > 1 and open_blocks:
            name = posixpath.basename(found[1])
            name = name[: -len(".efi.signed")] if name.endswith(".efi.signed") else name
            open_blocks[-1][2]["kernel"] = name[len("vmlinuz-"):] if name.startswith("vmlinuz-") else name
            open_blocks[-1][2]["tokens"] = found[2:]
        elif command == "set" and len(found) > 1 and found[1].startswith("default=") and "$" not in found[1]:
            default = found[1][len("default="):]
    return {
        "entries": [entry for entry in entries if entry["kernel"] is not None],
        "default": default,
        "complete": begun > 0 and begun == ended and not open_blocks,
    }


def _entry_id(found):
    for option in ("$menuentry_id_option", "--id"):
        if option in found[:-1]:
            return found[found.index(option) + 1]
    return None


def managed(menu):
    """The entries that ``GRUB_CMDLINE_LINUX_DEFAULT`` goes to."""
    return [
        entry
        for entry in menu["entries"]
        if posixpath.basename(entry["section"] or "").startswith("10_linux") and not entry["recovery"]
    ]


def default_entry(menu):
    """The entry that boots when nobody chooses, or None when that cannot be told from the file."""
    wanted = menu["default"]
    for entry in menu["entries"]:
        if wanted is not None and wanted in (entry["path"], entry["id"], entry["title"]):
            return entry
        if wanted and ">" in wanted and entry["id"] == wanted.rsplit(">", 1)[1]:
            return entry
    return None


def missing_in(menu, kernels, wanted):
    """Why the menu does not carry ``wanted``: a list of reasons, empty when it does everywhere."""
    if menu is None:
        return ["%s cannot be read" % GRUB_CFG]
    reasons = []
    if not menu["complete"]:
        reasons.append("%s ends in the middle" % GRUB_CFG)
    ours = managed(menu)
    if not ours:
        reasons.append("%s has no entry from /etc/grub.d/10_linux" % GRUB_CFG)
    for kernel in kernels:
        if ours and kernel not in [entry["kernel"] for entry in ours]:
            reasons.append("%s has no entry for the installed kernel %s" % (GRUB_CFG, kernel))
    for entry in ours:
        lacks = [token for token in wanted if not tokens.has(entry["tokens"], token)]
        if lacks:
            reasons.append("entry %r of %s: %s not in force" % (entry["title"], GRUB_CFG, ", ".join(lacks)))
    return reasons


def evaluate(files):
    """What the settings come to, read without running them.

    ``files``: ``[(path, text)]`` in the order in which ``grub-mkconfig`` sources them. Returns
    ``(tokens | None, {token: path})``; None when a value needs a shell to be known.
    """
    values = {"GRUB_CMDLINE_LINUX": "", "GRUB_CMDLINE_LINUX_DEFAULT": ""}
    origin = {}
    known = True
    for path, text in files:
        for line in text.splitlines():
            match = ASSIGNMENT.match(line)
            if not match:
                continue
            name, plus, raw = match.groups()
            expanded, literal, sure = _shell_word(raw, values)
            known = known and sure
            values[name] = (values[name] if plus else "") + expanded
            for token in tokens.split(literal):
                origin.setdefault(token, path)
    line = "%s %s" % (values["GRUB_CMDLINE_LINUX"], values["GRUB_CMDLINE_LINUX_DEFAULT"])
    return (tokens.split(line) if known else None), origin


def _shell_word(raw, values):
    """The first shell word of ``raw``: ``(expanded, literal part of it, True when nothing was left unknown)``."""
    expanded = literal = ""
    quote = ""
    index = 0
    while index < len(raw):
        char = raw[index]
        variable = re.match(r"\$(?:\{(\w+)\}|(\w+))", raw[index:])
        if quote != "'" and variable:
            name = variable.group(1) or variable.group(2)
            if name not in values:
                return expanded, literal, False
            expanded += values[name]
            literal += " "
            index += variable.end()
            continue
        if quote != "'" and char in "$`":
            return expanded, literal, False
        if quote != "'" and char == "\\" and index + 1 < len(raw):
            index += 1
            expanded += raw[index]
            literal += raw[index]
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and (char.isspace() or char in ";&|"):
            return expanded, literal, True
        else:
            expanded += char
            literal += char
        index += 1
    return expanded, literal, not quote  # an open quote goes on in the next line


# -- with a host ---------------------------------------------------------------------------


def evidence(host):
    """``(found, against)``: what speaks for this loader and what rules it out, as sentences."""
    found = []
    against = []
    if any(token.startswith("BOOT_IMAGE=") for token in tokens.split(host.read("/proc/cmdline") or "")):
        found.append("BOOT_IMAGE= on the running command line")
    else:
        against.append("no BOOT_IMAGE= on the running command line, so GRUB did not boot this system")
    against.extend(unusable(host))
    if not unusable(host):
        found.append("%s and %s" % (DEFAULTS, command(host)[0]))
    return found, against


def unusable(host):
    """Why this backend cannot work here, whatever booted."""
    reasons = []
    text = host.read(DEFAULTS)
    if text is None:
        reasons.append("no %s" % DEFAULTS)
    elif re.search(r"^\s*GRUB_ENABLE_BLSCFG=[\"']?true", text, re.M):
        reasons.append("GRUB_ENABLE_BLSCFG=true in %s: the entries are not made from it" % DEFAULTS)
    if command(host) is None:
        reasons.append("neither update-grub nor grub-mkconfig is installed")
    if host.exists(PROXMOX):
        reasons.append("proxmox-boot-tool manages the boot partitions (%s), which is not supported yet" % PROXMOX)
    return reasons


def command(host):
    """How the menu is generated, as argv, or None."""
    if host.which("update-grub"):
        return ["update-grub"]
    if host.which("grub-mkconfig"):
        return ["grub-mkconfig", "-o", GRUB_CFG]
    return None


def kernels(host):
    """Versions that ``10_linux`` makes entries for."""
    return [
        name[len("vmlinuz-"):]
        for name in host.listdir("/boot")
        if name.startswith("vmlinuz-") and not GARBAGE.search(name)
    ]


def menu_of(host):
    """The parsed menu, or None when there is none."""
    text = host.read(GRUB_CFG)
    return None if text is None else parse_menu(text)


def missing(host, wanted):
    """Why the menu on the host does not carry ``wanted``, see :func:`missing_in`."""
    reasons = missing_in(menu_of(host), kernels(host), wanted)
    if host.exists(GRUB_CFG + ".new"):
        # grub-mkconfig removes it after it has copied it over the menu
        reasons.append("%s.new is there: generating the menu was cut off" % GRUB_CFG)
    return reasons


def record(host):
    """``(text, tokens)`` of our drop-in, or ``(None, [])``. Raises ValueError when a foreign file is in its place."""
    text = host.read(DROP_IN)
    if text is None:
        if host.exists(DROP_IN):
            raise ValueError("%s exists and cannot be read as a file: move it away first" % DROP_IN)
        return None, []
    return text, parse_record(text)


def configured(host):
    """``(tokens | None, {token: file})``: the settings as they are now, see :func:`evaluate`."""
    paths = [DEFAULTS]
    paths += ["/etc/default/grub.d/" + name for name in host.listdir("/etc/default/grub.d") if name.endswith(".cfg")]
    return evaluate([(path, host.read(path) or "") for path in paths])


def apply(host, wanted):
    """Write the drop-in (``wanted=None``: take it away), generate the menu and read it back.

    The drop-in says "pending" until the menu has been read back, and on removal it goes last:
    a run that was killed is seen by the next one. On failure drop-in and menu are put back as
    they were and HostError tells why.
    """
    drop_in = _saved(host, DROP_IN)
    menu = _saved(host, GRUB_CFG)
    try:
        host.write(DROP_IN, render(wanted or [], pending=True))
        result = host.run(command(host), timeout=TIMEOUT)
        reasons = missing(host, wanted or [])
        if reasons:
            said = (result.stderr or result.stdout).strip()[-500:]
            raise HostError("%s ran, but: %s. It said: %s" % (result.argv[0], "; ".join(reasons), said))
        if wanted is None:
            host.remove(DROP_IN)
        else:
            host.write(DROP_IN, render(wanted))
    except (HostError, OSError) as exc:
        _put_back(host, DROP_IN, drop_in)
        _put_back(host, GRUB_CFG, menu)
        host.remove(GRUB_CFG + ".new")
        raise HostError(
            "the boot menu was not changed, %s and %s are as they were: %s" % (DROP_IN, GRUB_CFG, exc)
        ) from exc


def _saved(host, path):
    data = host.read_bytes(path)
    return None if data is None else (data, host.stat(path).st_mode & 0o7777)


def _put_back(host, path, saved):
    if saved is None:
        host.remove(path)
    elif _saved(host, path) != saved:
        host.write(path, saved[0], mode=saved[1])
