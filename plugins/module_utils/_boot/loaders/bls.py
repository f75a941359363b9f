# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""GRUB that reads Boot Loader Specification entries (``blscfg``), on a host that is not of the Fedora family.

The entries in ``/boot/loader/entries`` are what boots: each one's ``options`` line is edited in place, and
``/etc/kernel/cmdline`` for the kernels to come. Nothing is generated. ``loaders/grubby.py`` is this with the files
that the Fedora family has beside the entries.

Ours are always tokens of our own: where somebody has the same token already, it is there twice. Only so can exactly
ours be taken out again.

Entries of another installation in the same folder are shown and left alone (:mod:`_boot.installation`). Where one of
them boots by default, nothing is changed: a reboot would not come back to this one.

Our own entries (fallback and trial) are files whose names begin with ``~``. GRUB sorts entries by name, the newest
first, as rpm compares versions: ``~`` is older than everything. So where no ``saved_entry`` says what boots, one of
ours is never the first. The names lack the machine id, which also keeps ``grub2-mkconfig --update-bls-cmdline`` and
``kernel-install`` away from them.
"""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import entries, installation, kernel_install, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as boot_loader
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import (
    FALLBACK_ID,
    OFF,
    TRIAL_ID,
    Edit,
    apart,
    ours,
    stuck,
)
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_common, grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "bls"

FOLDERS = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
DEFAULTS = grub_common.DEFAULTS
CMDLINE = kernel_install.CMDLINE
VENDOR_CMDLINE = kernel_install.VENDOR_CMDLINE
LASTING = (CMDLINE,)
"""Made where there is none, it stays until everything of ours goes, see :mod:`_boot.loader`."""
FEDORA = "/usr/lib/kernel/install.d/" + kernel_install.FEDORA
"""What makes the entries of new kernels in the Fedora family."""

ENVIRONMENT_HEADER = "# GRUB Environment Block\n"
FIRST = "~"
"""In front of the names of our own entries: older than any other name."""

BLSCFG = re.compile(r"^\s*GRUB_ENABLE_BLSCFG=[\"']?true\b", re.M)
COMMAND = re.compile(r"^\s*blscfg\s*$", re.M)
KERNELOPTS = re.compile(r"^\s*set (kernelopts|default_kernelopts)=\"([^\"]*)\"", re.M)
RESCUE = re.compile(r"(^|-)0-rescue(-|$)")
OTHER_CPUS = (
    ("s390x", "zipl, not GRUB, starts this machine, and it has to write its entries to the disk again"),
    ("ppc64le", "on POWER the firmware may read a grub.cfg that is made from the entries, which is not supported"),
)


# -- pure: one command line --------------------------------------------------------------------


def settled(line, wanted, owned):
    """Whether a command line (tokens) has what it has to have, by what we own of it and what we want in it."""
    leftover = [token for token in owned if token not in wanted and token in line]
    return not leftover and all(token in owned for token in wanted) and not tokens.lacking(line, wanted)


def change(line, wanted, owned):
    """``(to remove, to add)`` for a command line that is not :func:`settled`."""
    return [token for token in owned if token in line], list(wanted)


# -- pure: GRUB's environment block ------------------------------------------------------------


def environment(text):
    """``{name: value}`` of an environment block, its escapes resolved. {} for what is none."""
    if not (text or "").startswith(ENVIRONMENT_HEADER):
        return {}
    found = {}
    for line in re.sub(r"\\\n", "\0", text[len(ENVIRONMENT_HEADER):]).split("\n"):
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found[name] = re.sub(r"\\(.)", r"\1", value.replace("\0", "\n"), flags=re.S)
    return found


def set_environment(text, name, value):
    """The block with one variable set (``None``: taken out), of the same size.

    As ``grub-editenv`` does it: a variable stays in its place, a new one goes to the end, ``#`` fills the rest.
    Raises ValueError where it is no block or the value does not fit.
    """
    if not text.startswith(ENVIRONMENT_HEADER):
        raise ValueError("it is no environment block of GRUB")
    size = len(text)
    body = text[len(ENVIRONMENT_HEADER):].rstrip("#")
    line = None if value is None else "%s=%s\n" % (name, re.sub(r"([\\\n])", r"\\\1", value))
    found = re.compile(r"^%s=(?:\\.|[^\\\n])*\n" % re.escape(name), re.M | re.S).search(body)
    if found:
        body = body[: found.start()] + (line or "") + body[found.end():]
    elif line:
        body += line
    room = size - len(ENVIRONMENT_HEADER) - len(body)
    if room < 0:
        raise ValueError(
            "the block has %d bytes and %s needs %d more than are free" % (size, name, -room)
        )
    return ENVIRONMENT_HEADER + body + "#" * room


# -- pure: /etc/kernel/cmdline -----------------------------------------------------------------


def edit_line(text, wanted, owned):
    """A file that is one command line, with ``wanted`` as ours; everything else of it stays byte for byte."""
    line = entries.line_tokens(text)
    return text if settled(line, wanted, owned) else entries.edit_line(text, *change(line, wanted, owned))


# -- reading the host --------------------------------------------------------------------------


def folders(host):
    """Folders that hold entries."""
    found = []
    for folder in FOLDERS:
        real = host.real(folder)
        if real not in [host.real(other) for other in found] and _names(host, folder):
            found.append(folder)
    return found


def folder_of(host):
    """The folder with the entries that GRUB reads. Raises HostError."""
    found = folders(host)
    if len(found) != 1:
        raise HostError("; ".join(_folder_reasons(found)))
    return found[0]


def _folder_reasons(found):
    if not found:
        return ["no boot entry (*.conf) in any of %s" % ", ".join(FOLDERS)]
    if len(found) > 1:
        return ["boot entries in %s: what is left of another boot loader has to go first" % " and ".join(found)]
    return []


def _names(host, folder):
    return [name for name in host.listdir(folder) if name.endswith(".conf") and not name.startswith(".")]


def values(host):
    """Variables that GRUB puts into the entries: of its environment block, and of grub.cfg where that has none."""
    found = {}
    for match in KERNELOPTS.finditer(menu_text(host)):
        found[match.group(1)] = match.group(2)
    found.update(environment(host.read(grub_common.environment_path(host))))
    for name in ("tuned_params", "tuned_initrd", "grub_users"):
        found.setdefault(name, "")  # GRUB takes a variable that nobody set for nothing
    return found


def menu_text(host):
    return host.read(grub_common.menu_path(host)) or ""


def read_entries(host):
    """``[{name, path, id, text, fields, line, unknown, belongs}]`` in GRUB's order, the newest first.

    ``line``: the command line with GRUB's variables put in, ``unknown``: those that nothing gives a value.
    """
    folder = folder_of(host)
    known = values(host)
    found = []
    for name in _names(host, folder):
        path = folder + "/" + name
        text = host.read(path)
        if text is None:
            raise HostError("%s cannot be read" % path)
        stem = name[: -len(".conf")]
        fields = entries.parse(text)
        line, unknown = entries.expand(entries.option_tokens(fields), known)
        if not fields.get("options") and known.get("default_kernelopts"):
            line = tokens.split(known["default_kernelopts"])
        names = (stem, re.sub(r"\.conf$", "", posixpath.basename(host.real(path))))
        found.append({"name": stem, "path": path, "id": stem.lstrip(FIRST) if ours(stem.lstrip(FIRST)) else stem,
                      "text": text, "fields": fields, "line": line, "unknown": unknown,
                      "belongs": installation.belongs(host, names, fields, line)})  # fmt: skip
    return sorted(found, key=lambda item: _Name(item["name"]))


class _Name:
    """Sorts names as GRUB's blscfg does: parts between the last two dashes, the newest first."""

    def __init__(self, name):
        self.parts = name.rsplit("-", 2)

    def __lt__(self, other):
        for one, two in zip(self.parts, other.parts):
            found = entries.compare_versions(one, two)
            if found:
                return found > 0
        return len(self.parts) > len(other.parts)


def _rescue(item):
    return bool(RESCUE.search(item["name"]) or RESCUE.search(entries.first(item["fields"], "version", "")))


def ordinary(item):
    return item["belongs"] and _starts_linux(item)


def _starts_linux(item):
    return not ours(item["id"]) and not _rescue(item) and bool(entries.first(item["fields"], "linux"))


def _kernel(item):
    name = posixpath.basename(entries.first(item["fields"], "linux", ""))
    for prefix in ("vmlinuz-", "linux-", "Image-"):
        if name.startswith(prefix):
            return name[len(prefix):]
    return entries.first(item["fields"], "version") or None


def _outside(host, folder, path):
    """A path of an entry (as GRUB sees the filesystem) as a path on the host, or None."""
    path = path.split(")", 1)[-1]
    for base in (folder[: -len("/loader/entries")], "", "/boot"):
        if host.exists(base + path):
            return base + path
    name = "/boot/" + posixpath.basename(path)  # a subvolume in front that GRUB sees and the host does not
    return name if host.exists(name) else None


def _default_name(host, items, known):
    """Name of the entry that boots when nobody chooses, or None. GRUB takes the first where the chosen one is gone."""
    if not items:
        return None
    fixed = re.findall(r"^\s*set default=\"([^\"$]+)\"", menu_text(host), re.M)
    wanted = known.get("saved_entry") or ("" if re.search(r"saved_entry|blscfg", menu_text(host)) else None)
    if wanted is None or (not wanted and fixed and "saved_entry" not in menu_text(host)):
        wanted = fixed[-1] if fixed else ""
    if not wanted or wanted.isdigit():
        index = int(wanted or 0)
        return items[index if index < len(items) else 0]["name"]
    for item in items:
        if wanted in (item["name"], entries.first(item["fields"], "title")):
            return item["name"]
    return items[0]["name"]


def _default_elsewhere(host, items):
    """Why nothing is to be changed where what boots by default is not this installation, or None."""
    name = _default_name(host, items, values(host))
    for item in items:
        if item["name"] == name and not item["belongs"]:
            here = [one["name"] for one in items if ordinary(one)]
            return (
                "%s boots by default, and is an entry of another installation (%s, and what runs here has %s): a reboot "
                "would not come back here, so have one of this installation boot first (grub2-set-default %s)"
                % (item["path"], installation.spoken(item["line"]), installation.spoken(installation.running(host)),
                   here[0] if here else "NAME")
            )
    return None


# -- the interface: what is there --------------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found, against = common_evidence(host, booted)
    if family(host):
        against.append("%s: the backend grubby is for this host" % family(host))
    against.extend(unusable(host))
    return found, against


def family(host):
    """What says that this is a host of the Fedora family, or None. Not the command grubby: others have it too."""
    return "%s makes the entries" % FEDORA if host.exists(FEDORA) else None


def common_evidence(host, booted):
    """What this backend and grubby's have in common."""
    found = []
    against = []
    image = booted["boot_image"]
    if (booted["loader"] or "").startswith("systemd-boot"):
        against.append("%s started this system" % booted["loader"])
    if image is None or "/" not in image:
        against.append("no BOOT_IMAGE= with a path on the running command line, so GRUB did not boot this system")
    else:
        found.append("BOOT_IMAGE=%s on the running command line" % image)
        names = []
        try:
            names = [posixpath.basename(entries.first(item["fields"], "linux", "")) for item in read_entries(host)]
        except HostError:
            pass  # unusable() says it
        if names and posixpath.basename(image) in names:
            found.append("%s is in an entry of %s" % (posixpath.basename(image), folder_of(host)))
        elif names:
            against.append(
                "the running kernel %s is in no entry of %s, so something else has started it"
                % (posixpath.basename(image), folder_of(host))
            )
    if any(token.startswith("ostree=") for token in booted["tokens"]) or host.exists("/run/ostree-booted"):
        against.append("this is an ostree system: its entries are made for each deployment")
    return found, against


def unusable(host):
    reasons = common_reasons(host)
    if host.which("sdbootutil"):
        reasons.append(
            "sdbootutil owns the entries (and what the TPM is to measure of them): add the parameters to %s and run "
            "sdbootutil update-all-entries" % CMDLINE
        )
    return reasons


def common_reasons(host):
    """Why neither this backend nor grubby's can work here."""
    reasons = _folder_reasons(folders(host)) or _strangers(host)
    text = host.read(DEFAULTS)
    enabled = text is not None and bool(BLSCFG.search(text))
    used = bool(COMMAND.search(menu_text(host)))
    if text is not None and not enabled:
        reasons.append("no GRUB_ENABLE_BLSCFG=true in %s: GRUB's menu is generated from it" % DEFAULTS)
    elif not used:
        reasons.append("grub.cfg has no command blscfg, so GRUB does not read the entries: run grub2-mkconfig first")
    for cpu, why in OTHER_CPUS:
        if cpu == architecture(host):
            reasons.append("%s: %s" % (cpu, why))
    if host.exists("/etc/zipl.conf") and architecture(host) != "s390x":
        reasons.append("/etc/zipl.conf exists: zipl is not supported")
    return reasons


def _strangers(host):
    """Why none of the entries is for us, where there are some."""
    try:
        items = [item for item in read_entries(host) if _starts_linux(item)]
    except HostError:
        return []  # what reads them says it
    if not items or any(item["belongs"] for item in items):
        return []
    return [
        "no entry in %s is one of this system, by the machine id in its name (%s) or by the root= that runs (%s): have "
        "kernel-install add make one" % (
            folder_of(host), " or ".join(installation.machine_ids(host)) or "this system has none",
            installation.spoken(installation.running(host)))
    ]  # fmt: skip


def architecture(host):
    """What the kernel was built for, by its own word or its release as the Fedora family writes it; None: unknown."""
    said = host.read("/proc/sys/kernel/arch") or host.read("/proc/sys/kernel/osrelease") or ""
    for cpu, dummy in OTHER_CPUS:
        if said.strip().endswith(cpu):
            return cpu
    return "ppc64le" if host.exists("/sys/firmware/opal") else None


def recorded(host):
    return None


# -- the interface: changing -------------------------------------------------------------------


def edits(host, wanted, owned):
    return entry_edits(host, wanted, owned) + cmdline_edits(host, wanted, owned)


def entry_edits(host, wanted, owned):
    """Edits of the ``options`` of every ordinary entry. Raises HostError for one that has none."""
    found = []
    known = values(host)
    for item in read_entries(host):
        line = entries.option_tokens(item["fields"])
        here = record.own(host, item["id"], owned, entries.expand(line, known)[0])
        if not ordinary(item) or "kernelopts" in entries.variables(line) or settled(line, wanted, here):
            continue
        try:
            after = entries.edit(item["text"], *change(line, wanted, here))
        except ValueError as exc:
            raise HostError("%s: %s" % (item["path"], exc)) from exc
        found.append(edited(host, item["path"], item["text"], after))
    return [edit for edit in found if edit.before != edit.after]


def cmdline_edits(host, wanted, owned):
    """Edit of ``/etc/kernel/cmdline``. It is made where there is none: else the next kernel gets the running line."""
    text = host.read(CMDLINE)
    if text is None and not wanted:
        return []
    base = text if text is not None else host.read(VENDOR_CMDLINE)
    if base is None:
        base = _cmdline_from_default(host, owned)
    elif wanted:
        kernel_install.refuse_comments(CMDLINE if text is not None else VENDOR_CMDLINE, base, _reader(host))
    after = edit_line(base, wanted, owned if text is not None else [])
    return [edited(host, CMDLINE, text, after)] if after != text else []


def _reader(host):
    """Who makes the next kernel's line of that file. Elsewhere than in the Fedora family it is not sure to be systemd's."""
    return kernel_install.reader(host, kernel_install.FEDORA if family(host) else kernel_install.ENTRY)


def _cmdline_from_default(host, owned):
    """Of an entry that starts what runs: with another root= the next kernel would not boot, or boot something else."""
    items = read_entries(host)
    name = _default_name(host, items, values(host))
    line = installation.running(host)
    for item in [item for item in items if item["name"] == name] + items:
        if ordinary(item) and installation.root(host, item["line"]) == installation.root(host, line):
            found = apart(item["line"])[0]
            return tokens.join(tokens.without(found, record.own(host, item["id"], owned, found))) + "\n"
    raise HostError(
        "%s does not exist, and no ordinary entry in %s has what runs (%s), so it is not known what the next kernel needs: "
        "write it, one line as in /proc/cmdline behind BOOT_IMAGE="
        % (CMDLINE, folder_of(host), installation.spoken(line))
    )


def edited(host, path, before, after):
    """The edit of a file that is not ours alone, its mode kept. Raises HostError where it could not be given back."""
    if before is not None and host.read_bytes(path) != before.encode("utf-8"):
        raise HostError(
            "%s has bytes that are not UTF-8 text, and would not be what they were when it is written: "
            "take them out, or write them as UTF-8" % path
        )
    status = host.stat(path)
    return Edit(path, before, after, status.st_mode & 0o7777 if status else 0o644, False)


def generated(host):
    return []


def generate(host):
    """Nothing is generated: GRUB reads what was edited."""


def refresh(host, kernels):
    """The images are used where they are built."""


# -- the interface: reading back ---------------------------------------------------------------


def view(host):
    try:
        items = read_entries(host)
    except HostError as exc:
        return boot_loader.view([], [str(exc)])
    folder = folder_of(host)
    default = _default_name(host, items, values(host))
    found = []
    problems = []
    for item in items:
        fields, line = item["fields"], item["line"]
        managed = ordinary(item)
        paths = [path for path in entries.initrds(fields) if not path.startswith("$")]
        images = [_outside(host, folder, path) for path in paths]
        missing = [path for path, outside in zip(paths, images) if outside is None]
        linux = entries.first(fields, "linux")
        if linux and _outside(host, folder, linux) is None:
            missing.insert(0, linux)
        if missing and (managed or item["id"].startswith(FALLBACK_ID)):
            problems.append("%s: %s does not exist" % (item["path"], ", ".join(missing)))
        if managed:
            problems += stuck(item["path"], line)
        if item["unknown"] and managed:
            problems.append("%s: nothing gives a value to $%s" % (item["path"], ", $".join(item["unknown"])))
        found.append(boot_loader.entry(
            item["id"], entries.first(fields, "title", item["id"]), _kernel(item), line, managed=managed,
            default=item["name"] == default, initrds=[image for image in images if image],
            recovery=_rescue(item) or item["id"].startswith(FALLBACK_ID), source=item["path"],
        ))  # fmt: skip
    with_entry = [one["kernel"] for one in found if not ours(one["id"])]
    for name in host.listdir("/boot"):
        version = name[len("vmlinuz-"):]
        if not name.startswith("vmlinuz-") or grub_menu.GARBAGE.search(name) or RESCUE.search(version):
            continue
        if version not in with_entry:
            problems.append("the installed kernel %s has no entry in %s" % (version, folder))
    return boot_loader.view(found, problems)


def hindrances(host, edits, wanted):
    """Nothing but our own entries is made here: what is wrong with the others stays so."""
    seen = view(host)
    own = tuple(one["source"] + ":" for one in seen["entries"] if ours(one["id"]))
    found = ["%s: mend that first" % reason for reason in seen["problems"]
             if not reason.startswith(own) and "nothing gives a value" not in reason]
    elsewhere = _default_elsewhere(host, read_entries(host)) if wanted else None
    return found + [elsewhere] if elsewhere else found


def configured(host):
    for path in (CMDLINE, VENDOR_CMDLINE):
        text = host.read(path)
        if text is not None:
            line = entries.line_tokens(text, _reader(host)[1])
            return line, {token: path for token in line}
    return None, {}


# -- the interface: entries of our own ---------------------------------------------------------


def fallback(host, owned):
    """For each kernel one more entry, without ours, that sorts behind all others; one whose kernel is gone goes too."""
    wanted = {}
    if owned is not None:
        folder, known = folder_of(host), _kernelopts(host)
        for item in _templates(host):
            line, dummy = entries.expand(entries.option_tokens(item["fields"]), known)
            line = tokens.without(apart(line)[0], owned)
            end = line.index("--") if "--" in line else len(line)
            text = _own_text(item, "without vfio", entries.initrds(item["fields"]), line[:end] + [OFF] + line[end:])
            path = "%s/%s%s-%s.conf" % (folder, FIRST, FALLBACK_ID, _kernel(item) or item["name"])
            wanted.setdefault(path, text)
    made = [] if owned is None else shelter(host, owned)
    return made + _own_edits(host, FALLBACK_ID, wanted)


def shelter(host, owned):
    """Edit that makes ``/etc/kernel/cmdline`` where a kernel would get the running line: an entry of ours says ``vfio_host=``.

    ``grubby`` would make it of the last entry, which is our fallback.
    """
    if host.exists(CMDLINE) or host.exists(VENDOR_CMDLINE):
        return []
    return [edited(host, CMDLINE, None, _cmdline_from_default(host, owned))]


def _kernelopts(host):
    """Only what holds ours is expanded: what tuned sets stays a variable."""
    return {"tuned_params": "$tuned_params", **{
        name: value for name, value in values(host).items() if name in ("kernelopts", "default_kernelopts")
    }}  # fmt: skip


def _templates(host, kernel=None):
    """The ordinary entries, or those of a kernel, the one that boots by default first. Raises HostError without one."""
    items = read_entries(host)
    default = _default_name(host, items, values(host))
    items = [item for item in items if ordinary(item) and kernel in (None, _kernel(item))]
    if not items:
        raise HostError(
            "%s has no ordinary entry%s" % (folder_of(host), " for the kernel %s" % kernel if kernel else "")
        )
    return sorted(items, key=lambda item: item["name"] != default)


def _own_text(item, title, images, line):
    fields = item["fields"]
    text = "title %s (%s)\n" % (entries.first(fields, "title", _kernel(item)), title)
    for key in ("version", "machine-id", "linux"):
        if fields.get(key):
            text += "%s %s\n" % (key, entries.first(fields, key))
    text += "initrd %s\n" % " ".join(images)
    text += "options %s\n" % tokens.join(line)
    for key in ("devicetree", "grub_users", "grub_arg", "grub_class"):
        if fields.get(key):
            text += "%s %s\n" % (key, entries.first(fields, key))
    return text


def _own_edits(host, prefix, wanted):
    """Edits that leave just these files (``{path: text}``) of our entries whose id begins with ``prefix``."""
    folder = folder_of(host) if folders(host) else FOLDERS[0]
    paths = ["%s/%s" % (folder, name) for name in host.listdir(folder) if name.startswith(FIRST + prefix)]
    found = [Edit(path, host.read(path), None) for path in paths if path.endswith(".conf") and path not in wanted]
    return found + [Edit(path, host.read(path), wanted[path]) for path in sorted(wanted)
                    if host.read(path) != wanted[path]]  # fmt: skip


trial_obstacles = grub_common.trial_obstacles


def trial(host, kernel, image, line):
    """The entry of a kernel with another image and command line, as an entry that sorts behind all others."""
    if kernel is None:
        return _own_edits(host, TRIAL_ID, {})
    elsewhere = _default_elsewhere(host, read_entries(host))
    if elsewhere:
        raise HostError(elsewhere)
    item = _templates(host, kernel)[0]
    linux = entries.first(item["fields"], "linux")
    outside = _outside(host, folder_of(host), linux)
    if outside is None or posixpath.dirname(host.real(outside)) != posixpath.dirname(host.real(image)):
        raise HostError("%s is not in the folder of the kernel (%s), so GRUB's way to it is not known" % (image, linux))
    path = posixpath.join(posixpath.dirname(linux), posixpath.basename(image))
    text = _own_text(item, "trial boot", [path], list(line))
    return _own_edits(host, TRIAL_ID, {"%s/%s%s.conf" % (folder_of(host), FIRST, TRIAL_ID): text})


def once(host):
    chosen = grub_common.once(host)
    return chosen.lstrip(FIRST) if chosen and ours(chosen.lstrip(FIRST)) else chosen


once_traces = grub_common.once_traces


def set_once(host, entry_id):
    grub_common.set_once(host, FIRST + entry_id if ours(entry_id) else entry_id)
