# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""systemd-boot with Boot Loader Specification entries, made by kernel-install or by hand.

The ``options`` line of every ordinary entry is edited in place, and ``/etc/kernel/cmdline`` for the kernels to
come where kernel-install makes the entries. ``kernel-install add`` is not run for it: it copies kernel and initramfs
over the ones that boot, and a power cut in the middle of that leaves no entry that works.

Entries of another system on the same partition are left alone: by their machine id, entry token or ``root=``.

The files of our own entries have names that begin with ``-``, and no ``sort-key``: systemd-boot puts them behind all
others, whether those have one or not, so that they are never the default.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import booted as boots
from ansible_collections.vfio.host.plugins.module_utils._boot import edits as transaction
from ansible_collections.vfio.host.plugins.module_utils._boot import entries, kernel_install, pe, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.installation import entry_token, machine_ids
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import (
    FALLBACK_ID,
    OFF,
    TRIAL_ID,
    Edit,
    apart,
    entry,
    ours,
    stuck,
    view as make_view,
)
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "systemd_boot"
REPLACED_HOOKS = ("systemd-boot",)
"""Debian's runs ``kernel-install add``, which also drops from the entry an image that another call has put there."""

MOUNTS = "/proc/self/mountinfo"
PLACES = ("/efi", "/boot/efi", "/boot")
"""Where the partitions are mounted by custom; looking there has systemd mount them."""
CONTENTS = ("loader/loader.conf", "loader/entries", "EFI/Linux", "EFI/systemd")

CMDLINE = kernel_install.CMDLINE
VENDOR_CMDLINE = kernel_install.VENDOR_CMDLINE
LASTING = (CMDLINE,)
"""Made where there is none, it stays until everything of ours goes, see :mod:`_boot.loader`."""
PLUGIN = "/etc/kernel/install.d/95-vfio-host.install"
"""Behind 90-loaderentry and 90-uki-copy: it reads the entry that they made."""

OTHERS = (
    ("/etc/kernelstub/configuration", "kernelstub makes the boot entries"),
    ("/etc/kernel/proxmox-boot-uuids", "proxmox-boot-tool manages the boot partitions"),
    ("/run/ostree-booted", "this is an ostree system: its entries are made for each deployment"),
)

LAST = "-"
"""In front of the names of our own entries: lower than any other in the loader's order."""
TRIAL_IMAGE = "vfio-host-trial.img"
TRIAL_KERNEL = "vfio-host-trial.linux"
HEADER = "# Managed by the vfio.host collection. Do not edit: it is replaced.\n"

COPIED = ("linux", "efi", "initrd", "devicetree", "devicetree-overlay", "architecture")
"""Keys of an entry that ours take over."""
ONE_SHOT = 1 << 3
"""Bit of LoaderFeatures: LoaderEntryOneShot is understood."""
RESCUE = re.compile(r"(^|[-_./])(rescue|fallback)([-_./]|$)")
RESCUE_TOKENS = frozenset((
    "single", "s", "S", "1", "emergency", "rescue", "systemd.unit=rescue.target", "systemd.unit=emergency.target",
    "rd.systemd.unit=rescue.target", "rd.systemd.unit=emergency.target",
))  # fmt: skip
GARBAGE = re.compile(r"\.dpkg-[^/]*$|\.rpmsave$|\.rpmnew$|\.sig$|\.efi\.signed$|\.hmac$")
ADDED = ("BOOT_IMAGE=", "initrd=")
"""What loaders put in front of a command line."""
BOOTCTL_TIMEOUT = 60.0


# -- pure: one command line ----------------------------------------------------------------


def settled(line, wanted, owned):
    """Whether a command line has what it has to, by what we own of it and what we want in it.

    A token that somebody else put there is not ours: then ours is there twice, and exactly it can go again.
    """
    leftover = [token for token in owned if token not in wanted and token in line]
    return not leftover and all(token in owned for token in wanted) and not tokens.lacking(line, wanted)


def without(line, owned, add=()):
    """The command line with the last occurrence of each of ``owned`` gone and ``add`` there, in front of ``--``."""
    kept = tokens.replace(line, owned, [])
    end = kept.index("--") if "--" in kept else len(kept)
    return kept[:end] + list(add) + kept[end:]


def ordinary_line(line, owned):
    """The command line without anything of ours, what an entry of our own may have left in it too."""
    return without(apart(line)[0], owned)


def off_line(line, owned):
    """The command line of a fallback entry."""
    return without(ordinary_line(line, owned), [], [OFF])


def fallback_text(title, version, copied, line):
    """A fallback entry; the plugin writes the same. ``copied``: ``[(key, value)]`` of the ordinary entry."""
    rows = [("title", title + " (without vfio)"), ("version", version)] + list(copied)
    rows.append(("options", tokens.join(line)))
    return HEADER + "".join("%s %s\n" % row for row in rows)


def copied_rows(text):
    """``[(key, value)]`` that an entry of ours takes over, in their order."""
    found = []
    for line in text.splitlines():
        match = None if line.lstrip().startswith("#") else entries.LINE.match(line)
        if match and match.group(1) in COPIED:
            found.append((match.group(1), match.group(2) or ""))
    return found


PLUGIN_TEXT = """\
#!/bin/sh
# Managed by the vfio.host collection (module kernel_cmdline). Do not edit: it is replaced.
# Makes the boot entry without vfio beside the ordinary one of each kernel, and removes it with its kernel.

record=@RECORD@
version=${2:-}
token=${KERNEL_INSTALL_ENTRY_TOKEN:-}
root=${KERNEL_INSTALL_BOOT_ROOT:-}
[ -n "$version" ] && [ -n "$token" ] && [ -d "$root" ] || exit 0
folder=$root/loader/entries
fallback=$folder/-vfio-host-fallback-$version.conf

case "${1:-}" in
    add) ;;
    remove)
        rm -f "$fallback"
        exit 0
        ;;
    *) exit 0 ;;
esac

title='' options='' copied=''
case "${KERNEL_INSTALL_LAYOUT:-bls}" in
    bls)
        entry=''
        for file in "$folder/$token-$version.conf" "$folder/$token-$version+"*.conf; do
            [ -f "$file" ] && entry=$file
        done
        [ -n "$entry" ] || exit 0
        while read -r key value || [ -n "$key" ]; do
            case "$key" in
                title) title=$value ;;
                options) options="$options $value" ;;
                linux | efi | initrd | devicetree | devicetree-overlay | architecture)
                    copied="$copied$key $value
"
                    ;;
            esac
        done <"$entry"
        ;;
    uki)
        # Not for one with a counter in its name: the loader gives it another when it starts it.
        image=$token-$version.efi
        if [ ! -f "$root/EFI/Linux/$image" ]; then
            rm -f "$fallback"
            exit 0
        fi
        [ -f /etc/kernel/cmdline ] || exit 0
        while read -r line || [ -n "$line" ]; do
            case "$line" in
                '#'*) ;;
                *) options="$options $line" ;;
            esac
        done </etc/kernel/cmdline
        case " $options " in
            *' systemd.machine_id='*) ;;
            *) [ "$token" != "${KERNEL_INSTALL_MACHINE_ID:-}" ] || options="$options systemd.machine_id=$token" ;;
        esac
        # shellcheck source=/dev/null
        title=$(. /etc/os-release && echo "${PRETTY_NAME:-}")
        copied="efi /EFI/Linux/$image
"
        ;;
    *) exit 0 ;;
esac

# The last of each of ours goes: the words are taken from the end.
ours=
[ ! -r "$record" ] || ours=$(
    sed -n '/^ "tokens": \\[$/,/^ \\]/s/^  "\\([^"]*\\)",\\{0,1\\}$/\\1/p' "$record" |
        tr '\\n' ' '
)
set -f
reversed='' trial=''
for word in $options; do
    case "$word" in
        vfio_host=off) trial='' ;;
        vfio_host=trial) trial=1 ;;
        panic=*[!0-9]* | panic=) trial='' ;;
        panic=* | systemd.watchdog_sec=60 | rd.shell=0 | rd.emergency=reboot) [ -z "$trial" ] || continue ;;
        *) trial='' ;;
    esac
    reversed="$word $reversed"
done
left=" $ours"
line=''
for word in $reversed; do
    case "$word" in
        vfio_host=off | vfio_host=trial) continue ;;
    esac
    case "$left" in
        *" $word "*) left="${left%%" $word "*} ${left#*" $word "}" ;;
        *) line="$word${line:+ $line}" ;;
    esac
done
options='' off=vfio_host=off
for word in $line; do
    if [ "$word" = -- ]; then
        options="$options${off:+ $off}"
        off=''
    fi
    options="$options $word"
done
options="$options${off:+ $off}"

temporary=$folder/.vfio-host-fallback
if {
    echo '# Managed by the vfio.host collection. Do not edit: it is replaced.'
    printf 'title %s (without vfio)\\nversion %s\\n%s' "${title:-Linux $version}" "$version" "$copied"
    printf 'options %s\\n' "${options# }"
} >"$temporary" && mv -f "$temporary" "$fallback"; then
    exit 0
fi
rm -f "$temporary"
echo "vfio-host: $fallback was not written" >&2
exit 0
""".replace("@RECORD@", record.PATH)


# -- the partitions ------------------------------------------------------------------------


def mounts(host):
    """``[(mount point, options, type, source)]`` in the order in which they were made."""
    found = []
    for line in (host.read(MOUNTS) or "").splitlines():
        front, dummy, back = line.partition(" - ")
        front, back = front.split(), back.split()
        if len(front) > 5 and len(back) > 2:
            options = front[5].split(",") + back[2].split(",")
            found.append((_unescaped(front[4]), options, back[0], _unescaped(back[1])))
    return found


def _unescaped(text):
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def partitions(host):
    """Mount points of the partitions that systemd-boot reads, its own (the ESP) first. Raises HostError."""
    for place in PLACES:
        host.listdir(place)  # an automount only shows what it is when it is used
    found = {}
    for point, dummy, kind, source in mounts(host):
        if kind == "vfat" and any(host.exists(_join(point, name)) for name in CONTENTS):
            if source not in [known for other, known in found.items() if other != point]:
                found[point] = source
    if not found:
        raise HostError("no EFI partition with the files of systemd-boot is mounted: mount it, /efi or /boot/efi")
    uuid = (boots.text_variable(host, "LoaderDevicePartUUID") or "").lower()
    if uuid:
        device = host.real("/dev/disk/by-partuuid/" + uuid)
        own = [point for point, source in found.items() if host.real(source) == device]
        if not own:
            raise HostError(
                "the partition that systemd-boot was started from (PARTUUID %s) is not among the mounted ones (%s): "
                "mount it" % (uuid, ", ".join("%s at %s" % (found[point], point) for point in found))
            )
    else:
        own = [point for point in found if host.exists(_join(point, "EFI/systemd"))]
        own = own or [point for point in found if point != "/boot"] or list(found)
        if len(own) > 1:
            raise HostError("files of systemd-boot in %s: it cannot be told which it reads" % " and ".join(own))
    return own[:1] + [point for point in found if point == "/boot" and point not in own[:1]]


def _join(point, name):
    return posixpath.join(point, name.lstrip("/"))


# -- reading the host ----------------------------------------------------------------------


def read_entries(host):
    """What systemd-boot finds, in its order, the first choice first. Raises HostError.

    Each a dict: ``id`` (as in the loader's variables, without boot counting), ``key`` (as in a view), ``root``,
    ``path``, ``left`` (tries), ``fields``, ``text`` (type 1), ``uki`` (type 2: what :func:`pe.uki` says, or None),
    ``error``.
    """
    found = []
    for root in partitions(host):
        folder = _join(root, "loader/entries")
        for name in host.listdir(folder):
            if not name.lower().endswith(".conf") or name.startswith((".", "auto-")):
                continue
            path = folder + "/" + name
            text = host.read(path)
            item = _item(root, path, name, ".conf", entries.parse(text or ""))
            item["text"] = text
            item["error"] = "%s cannot be read" % path if text is None else None
            found.append(item)
        folder = _join(root, "EFI/Linux")
        for name in host.listdir(folder):
            if not name.lower().endswith(".efi") or name.startswith((".", "auto-")):
                continue
            path = folder + "/" + name
            image = None
            error = None
            try:
                image = pe.uki(host, path)
            except pe.PeError as exc:
                error = str(exc)
            item = _item(root, path, name, ".efi", _uki_fields(image))
            item["uki"] = image
            item["error"] = error
            found.append(item)
    return _ordered(host, found)


def _item(root, path, name, suffix, fields):
    stem, left, dummy = entries.split_name(name)
    key = stem.lstrip(LAST) if ours(stem.lstrip(LAST)) else stem
    return {"id": stem.lower() + suffix, "key": key, "stem": stem, "root": root, "path": path, "left": left,
            "fields": fields, "text": None, "uki": None, "error": None}  # fmt: skip


def _uki_fields(image):
    """As systemd-boot takes them from a UKI (``bootspec_pick_name_version_sort_key``)."""
    osrel = image["osrel"] if image else {}
    fields = {}
    for key, names in (
        ("title", ("PRETTY_NAME", "IMAGE_ID", "NAME", "ID")),
        ("version", ("IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID")),
        ("sort-key", ("IMAGE_ID", "ID")),
    ):
        values = [osrel[name] for name in names if osrel.get(name)]
        if values:
            fields[key] = values[:1]
    return fields


def _ordered(host, items):
    release = re.match(r"systemd-boot (\d+)", boots.text_variable(host, "LoaderInfo") or "")
    if release and int(release.group(1)) < 250:  # it goes by the id alone
        by_id = [dict(item, fields={}) for item in items]
        order = [item["path"] for item in entries.order(by_id)]
        return sorted(items, key=lambda item: order.index(item["path"]))
    return entries.order(items)


def line_of(item):
    """Command line of an entry as tokens."""
    if item["uki"] is not None:
        # made of a running line, it has what another loader put in front of that
        line = tokens.split(item["uki"]["cmdline"] or "")
        return [token for token in line if not token.startswith(ADDED)]
    return entries.option_tokens(item["fields"])


def default_item(host, items):
    """The entry that boots when nobody chooses, or None when that cannot be told."""
    patterns = [boots.text_variable(host, "LoaderEntryPreferred"), _setting(host, items, "preferred"),
                boots.text_variable(host, "LoaderEntryDefault"), _setting(host, items, "default")]  # fmt: skip
    candidates = [item for item in items if item["error"] is None]
    first = candidates[0] if candidates else None
    for pattern in patterns:
        if pattern == "@saved":
            pattern = boots.text_variable(host, "LoaderEntryLastBooted")
        if not pattern:
            continue
        pattern = pattern.lower()
        for item in candidates:
            if fnmatch.fnmatchcase(item["id"], pattern):
                return item
        if pattern.startswith("auto-"):
            return None  # the firmware setup or another system, found when the loader runs
        short = [item for item in candidates if fnmatch.fnmatchcase(item["stem"].lower(), pattern)]
        if short:  # older loaders had ids without .conf
            return short[0] if short[0] is first else None
    return first


def _setting(host, items, name):
    for root in partitions(host):
        text = host.read(_join(root, "loader/loader.conf"))
        if text is not None:
            return entries.first(entries.parse(text), name)
    return None


def entry_tokens(host):
    """What the names of kernel-install's entries may begin with on this system."""
    token = entry_token(host)
    if token:
        return [token]
    osrel = pe.os_release(host.read("/etc/os-release") or host.read("/usr/lib/os-release") or "")
    return machine_ids(host) + [osrel[name] for name in ("IMAGE_ID", "ID") if osrel.get(name)] + ["Default"]


def by_kernel_install(host, item):
    """Whether kernel-install made this entry, going by its name."""
    version = kernel_of(host, item)
    names = ["%s-%s" % (token, version) for token in entry_tokens(host)] if version else []
    return item["stem"].lower() in [name.lower() for name in names]


def kernel_of(host, item):
    """Version of the kernel of an entry, or None."""
    if item["uki"] is not None:
        linux = item["uki"]["sections"][".linux"][0]
        return item["uki"]["uname"] or pe.kernel_version(host, item["path"], linux)
    linux = entries.first(item["fields"], "linux")
    said = pe.kernel_version(host, _join(item["root"], linux)) if linux else None
    return said or entries.first(item["fields"], "version") or None


def belongs(host, item):
    """Whether an entry starts this system, and not another one on the same partition."""
    machine = entries.first(item["fields"], "machine-id")
    if machine:
        return machine in machine_ids(host)
    if any(item["stem"].lower().startswith(token.lower() + "-") for token in machine_ids(host)):
        return True
    if item["id"] == (boots.text_variable(host, "LoaderEntrySelected") or "").lower():
        return True
    running = tokens.split(host.read("/proc/cmdline") or "")
    return _root(line_of(item)) == _root(running) and (_root(running) is not None or by_kernel_install(host, item))


def _root(line):
    found = [tokens.value(token) for token in tokens.for_kernel(line) if tokens.key(token) == "root"]
    return found[-1] if found else None


def is_rescue(item):
    names = [item["stem"]] + [posixpath.basename(path) for path in entries.initrds(item["fields"])]
    return any(RESCUE.search(name) for name in names) or bool(RESCUE_TOKENS & set(line_of(item)))


def ordinary(host, items):
    """The type 1 entries that have to carry ours."""
    return [
        item for item in items
        if item["uki"] is None and item["error"] is None and not ours(item["key"]) and not is_rescue(item)
        and (item["fields"].get("linux") or item["fields"].get("efi")) and belongs(host, item)
    ]  # fmt: skip


def installed_kernels(host):
    """``{version: path of the image}`` of the kernels that packages have put there."""
    found = {}
    for version in host.listdir("/lib/modules"):
        if host.exists("/lib/modules/%s/vmlinuz" % version):
            found[version] = "/lib/modules/%s/vmlinuz" % version
    for name in host.listdir("/boot"):
        if name.startswith("vmlinuz-") and not GARBAGE.search(name):
            version = name[len("vmlinuz-"):]
            if host.isdir("/lib/modules/" + version):
                found[version] = "/boot/" + name
    return found


# -- the interface: what is there ----------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against systemd-boot having started this system from an entry, see :mod:`_boot.loader`."""
    found, against = common_evidence(host, booted)
    selected = booted["entry"] or ""
    own = ours(key_of(selected))
    if booted["stub"] and not own:
        against.append("%s ran: a unified kernel image was started" % booted["stub"])
    elif own:  # of both backends
        found.append("the booted entry is %s, one of our own" % selected)
        if not against and not unusable(host) and not cares_for_default(host, ordinary(host, read_entries(host))):
            against.append("the default entry is not one of loader/entries")
    elif selected.lower().endswith(".efi"):
        against.append("the booted entry %s is a unified kernel image" % selected)
    elif selected:
        found.append("the booted entry is %s" % selected)
    against.extend(unusable(host))
    return found, against


def cares_for_default(host, managed):
    """Whether the default entry is among these: in a trial or a fallback it tells what the host ordinarily boots."""
    default = default_item(host, read_entries(host))
    return default is not None and default["path"] in [item["path"] for item in managed]


def common_evidence(host, booted):
    """What this backend and the one for UKIs have in common."""
    found = []
    against = []
    if (booted["loader"] or "").startswith("systemd-boot"):
        found.append("%s started this system" % booted["loader"])
    elif booted["loader"]:
        against.append("%s started this system" % booted["loader"])
    else:
        against.append("no boot loader has left its name (LoaderInfo), as systemd-boot does")
    if booted["boot_image"] is not None:
        against.append("BOOT_IMAGE= on the running command line, which systemd-boot does not put there")
    for path, why in OTHERS:
        if host.exists(path):
            against.append("%s (%s)" % (why, path))
    if any(token.startswith("ostree=") for token in booted["tokens"]) and not host.exists(OTHERS[-1][0]):
        against.append("%s (ostree= on the running command line)" % OTHERS[-1][1])
    return found, against


def unusable(host):
    reasons = common_reasons(host)
    if not reasons and not ordinary(host, read_entries(host)):
        reasons.append(
            "no entry in loader/entries of %s is one of this system (by machine id, entry token or root=)"
            % " or ".join(partitions(host))
        )
    return reasons


def common_reasons(host):
    reasons = []
    try:
        partitions(host)
    except HostError as exc:
        reasons.append(str(exc))
    if host.which("sdbootutil"):
        reasons.append(
            "sdbootutil owns the entries (and what the TPM is to measure of them): add the parameters to %s and run "
            "sdbootutil update-all-entries" % CMDLINE
        )
    return reasons


def recorded(host):
    return None


# -- the interface: changing ---------------------------------------------------------------


def edits(host, wanted, owned):
    items = read_entries(host)
    managed = ordinary(host, items)
    found = []
    for item in managed:
        line = line_of(item)
        here = record.own(host, item["key"], owned, line)
        if not settled(line, wanted, here):
            remove = [token for token in here if token in line]
            after = entries.edit(item["text"], remove, wanted, base=[])
            found.append(_edit(host, item["path"], item["text"], after, own=False))
    if _has_kernel_install(host, managed):
        read_by = kernel_install.reader(host, kernel_install.ENTRY)
        found += cmdline_edits(host, wanted, owned, _base(host, items, managed, owned), read_by)
    return [edit for edit in found if edit.before != edit.after]


def _has_kernel_install(host, managed):
    return host.which("kernel-install") is not None and any(by_kernel_install(host, item) for item in managed)


def _base(host, items, managed, owned):
    """What a new ``/etc/kernel/cmdline`` begins with: kernel-install would take the running line, a trial's too."""
    default = default_item(host, items)
    item = default if any(default is one for one in managed) else managed[0]
    line = line_of(item)
    line = ordinary_line(line, record.own(host, item["key"], owned, line))
    if by_kernel_install(host, item) and any(item["stem"].startswith(one) for one in machine_ids(host)):
        line = [token for token in line if tokens.key(token) != "systemd.machine_id"]  # it adds it by itself
    return line


def cmdline_edits(host, wanted, owned, base, read_by):
    """Edit of ``/etc/kernel/cmdline``; where there is none it is made from the vendor's, or from ``base``.

    ``read_by``: who makes the next kernel's line of it, see :func:`kernel_install.reader`.
    """
    text = host.read(CMDLINE)
    if text is None and (not wanted or host.exists(CMDLINE)):
        if wanted:
            raise HostError("%s exists and cannot be read as a file" % CMDLINE)
        return []
    if text is None:
        before, owned = host.read(VENDOR_CMDLINE), []
        _refuse_other_text(host, VENDOR_CMDLINE, before)
        before = tokens.join(base) + "\n" if before is None else before
    else:
        before = text
    if wanted:
        kernel_install.refuse_comments(CMDLINE if text is not None else VENDOR_CMDLINE, before, read_by)
    after = before
    line = entries.line_tokens(before)
    if not settled(line, wanted, owned):
        after = entries.edit_line(before, [token for token in owned if token in line], wanted)
    return [_edit(host, CMDLINE, text, after, own=False)] if after != text else []


def shelter(host, owned):
    """Edit that makes ``/etc/kernel/cmdline`` where the running line would be taken: an entry of ours says ``vfio_host=``.

    Whoever installs a kernel while such an entry runs would have it for good.
    """
    items = read_entries(host)
    managed = ordinary(host, items)
    if not _has_kernel_install(host, managed) or host.exists(CMDLINE) or host.exists(VENDOR_CMDLINE):
        return []
    return new_cmdline(host, _base(host, items, managed, owned))


def new_cmdline(host, base):
    return [_edit(host, CMDLINE, None, tokens.join(base) + "\n", own=False)]


def made_here(host):
    """Whether ``/etc/kernel/cmdline`` is as we made it where there was none, so that nobody has said what is in it."""
    known = record.read(host)
    was = known["originals"].get(CMDLINE) if known else None
    return was is not None and was["text"] is None and record.ours(host.read(CMDLINE), was)


def _refuse_other_text(host, path, text):
    """Raise HostError for a file of others that could not be written back as it is."""
    data = None if text is None else host.read_bytes(path)
    if data is not None and data != text.encode("utf-8"):
        raise HostError("%s is not UTF-8 text, so it could not be given back byte for byte: have it in UTF-8 (iconv)" % path)


def _edit(host, path, before, after, own=True, mode=0o644):
    if not own:
        _refuse_other_text(host, path, before)
    status = host.stat(path)
    return Edit(path, before, after, status.st_mode & 0o7777 if status else mode, own)


def generated(host):
    return []


def generate(host):
    """Nothing is generated: systemd-boot reads what was edited."""


def refresh(host, kernels):
    """Copy the images of these kernels over those that their entries name on the EFI partition.

    Each copy is complete before it takes the old one's place. Where the entry names the very file that was built,
    there is nothing to do.
    """
    work = []
    for item in read_entries(host):
        kernel = kernel_of(host, item)
        if item["uki"] is not None or item["error"] or ours(item["key"]) or kernel not in kernels:
            continue
        if not belongs(host, item):
            continue
        paths = entries.initrds(item["fields"])
        for index, path in enumerate(paths):
            target = _join(item["root"], path)
            source = _built(host, target, kernel, main=index == len(paths) - 1)
            if source is not None and not same(host, source, target) and (source, target) not in work:
                work.append((source, target))
    problems = transaction.obstacles(host, {target: host.stat(source).st_size for source, target in work})
    if problems:
        raise HostError("the new images do not get onto the EFI partition: %s" % "; ".join(problems))
    for source, target in work:
        copy(host, source, target)


def _built(host, target, kernel, main):
    """The image that a generator built for an entry's file, or None where it builds that very file."""
    names = [posixpath.basename(target)]
    if main:
        names += ["initrd.img-" + kernel, "initramfs-%s.img" % kernel]
    for name in names:
        if host.exists("/boot/" + name):
            return None if host.real("/boot/" + name) == host.real(target) else "/boot/" + name
    return None


def same(host, one, other):
    """Whether two files have the same content."""
    if not (host.stat(one) and host.stat(other)) or host.stat(one).st_size != host.stat(other).st_size:
        return False
    with open(host.path(one), "rb") as left, open(host.path(other), "rb") as right:
        while True:
            data = left.read(1 << 20)
            if data != right.read(1 << 20):
                return False
            if not data:
                return True


def copy(host, source, target):
    """A file put in the place of another once it is complete. Raises HostError."""
    aside = posixpath.dirname(target) + "/.vfio-host-complete"  # what is left of it is cleaned away like any other
    there = host.stat(target)
    try:
        transaction.clean(host, [target])
        host.copy(source, aside, mode=there.st_mode & 0o7777 if there else 0o644)
        host.replace(aside, target)
    except OSError as exc:
        host.remove(aside)
        raise HostError("copying %s to %s: %s" % (source, target, exc.strerror)) from exc


# -- the interface: reading back -----------------------------------------------------------


def view(host):
    try:
        items = read_entries(host)
    except HostError as exc:
        return make_view([], [str(exc)])
    managed = ordinary(host, items)
    found, problems = view_items(host, items, managed)
    if _has_kernel_install(host, managed):  # by hand, a kernel may well have no entry
        problems += missing_kernels(host, found, "loader/entries")
    return make_view(found, problems)


def view_items(host, items, managed):
    """``(entries, problems)`` of what systemd-boot shows."""
    default = default_item(host, items)
    found = []
    problems = []
    for item in items:
        fields = item["fields"]
        paths = entries.initrds(fields)
        needed = [fields[key][-1] for key in ("linux", "efi") if fields.get(key)] + paths
        missing = [path for path in needed if not host.exists(_join(item["root"], path))]
        mine = any(item is one for one in managed) or ours(item["key"])
        if item["error"] and (item["text"] is None and item["id"].endswith(".conf") or mine):
            problems.append(item["error"])
        elif missing and mine:
            problems.append("%s: %s does not exist" % (item["path"], ", ".join(missing)))
        if mine and not ours(item["key"]):
            problems += stuck(item["path"], line_of(item), None if item["uki"] is None else CMDLINE)
        found.append(entry(
            item["key"], entries.first(fields, "title", item["key"]), kernel_of(host, item), line_of(item),
            managed=mine and not ours(item["key"]), default=item is default,
            initrds=[_join(item["root"], path) for path in paths if path not in missing],
            image=item["path"] if item["uki"] is not None else None,
            recovery=item["key"].startswith(FALLBACK_ID) or is_rescue(item), source=item["path"],
        ))  # fmt: skip
    if default is None:
        problems.append("what boots by default cannot be told: it is none of the entries that were read")
    elif ours(default["key"]):
        problems.append("%s, which is not an ordinary entry, would boot by default" % default["path"])
    return found, problems


def missing_kernels(host, found, where):
    known = [one["kernel"] for one in found if one["managed"]]
    return [
        "the installed kernel %s has no entry in %s" % (version, where)
        for version in sorted(installed_kernels(host)) if version not in known
    ]  # fmt: skip


def hindrances(host, edits, wanted):
    return hindrances_of(view(host))


def hindrances_of(seen):
    """Nothing but our own entries is made here: what is wrong with the others stays so."""
    own = tuple(one["source"] for one in seen["entries"] if ours(one["id"]))
    return ["%s: mend that first" % reason for reason in seen["problems"] if not reason.startswith(own)]


def configured(host):
    """What kernel-install would give the next kernel. With entries by hand nothing is known: a kernel that needs
    a new entry gets what a person writes into it."""
    items = read_entries(host)
    managed = ordinary(host, items)
    if not _has_kernel_install(host, managed):
        return None, {token: item["path"] for item in managed for token in line_of(item)}
    return kernel_install_line(host, kernel_install.reader(host, kernel_install.ENTRY))


def kernel_install_line(host, read_by):
    for path in (CMDLINE, VENDOR_CMDLINE):
        text = host.read(path)
        if text is not None:
            line = entries.line_tokens(text, read_by[1])
            return line, {token: path for token in line}
    line = tokens.split(host.read("/proc/cmdline") or "")
    line = [token for token in line if not token.startswith(ADDED)]
    return line, {token: "/proc/cmdline" for token in line}


# -- the interface: entries of our own -----------------------------------------------------


def fallback(host, owned):
    """An entry for each kernel of kernel-install, and the plugin that keeps it so; one for the default else."""
    items = read_entries(host)
    wanted = {}
    if owned is not None:
        managed = ordinary(host, items)
        automatic = [item for item in managed if by_kernel_install(host, item)] if host.which("kernel-install") else []
        default = default_item(host, items)
        by_hand = [item for item in managed if item is default] or managed[:1]
        for item in automatic or by_hand:
            version = kernel_of(host, item)
            name = version if automatic else item["stem"]
            path = _join(item["root"], "loader/entries/%s%s-%s.conf" % (LAST, FALLBACK_ID, name))
            wanted[path] = fallback_text(
                entries.first(item["fields"], "title") or "Linux %s" % version,
                entries.first(item["fields"], "version") or version or name,
                copied_rows(item["text"]), off_line(line_of(item), owned),
            )  # fmt: skip
    made = [] if owned is None else shelter(host, owned)
    return made + own_edits(host, items, FALLBACK_ID, wanted) + plugin_edits(
        host, PLUGIN_TEXT if owned is not None and automatic else None)


def own_edits(host, items, prefix, wanted):
    """Edits that leave just these files (``{path: text}``) of our entries whose id begins with ``prefix``."""
    found = [
        _edit(host, item["path"], item["text"], None)
        for item in items if item["key"].startswith(prefix) and item["uki"] is None and item["path"] not in wanted
    ]  # fmt: skip
    for path in sorted(wanted):
        if host.read(path) != wanted[path]:
            found.append(_edit(host, path, host.read(path), wanted[path]))
    return found


def plugin_edits(host, text):
    """Edit of the plugin of kernel-install. Raises HostError where somebody else's file has its name."""
    there = host.read(PLUGIN)
    if there == text:
        return []
    if there is not None and "vfio.host collection" not in there:
        if text is None:
            return []
        raise HostError("%s exists and is not from this collection: move it away first" % PLUGIN)
    return [Edit(PLUGIN, there, text, 0o755)]


def trial_obstacles(host):
    reasons = one_shot_obstacles(host)
    try:
        items = read_entries(host)
        default = default_item(host, items)
        if default is None or not any(default is item for item in ordinary(host, items)):
            reasons.append("the default entry is none that this backend cares for")
        elif not entries.initrds(default["fields"]):
            reasons.append("the default entry %s has no initramfs" % default["path"])
    except HostError as exc:
        reasons.append(str(exc))
    return reasons


def one_shot_obstacles(host):
    """Why LoaderEntryOneShot does not work here."""
    reasons = []
    info = boots.text_variable(host, "LoaderInfo")
    features = boots.variable(host, "LoaderFeatures")
    read_only = [point for point, options, kind, dummy in mounts(host) if kind == "efivarfs" and "ro" in options]
    if not host.listdir(boots.EFIVARS):
        reasons.append("there are no EFI variables")
    elif not (info or "").startswith("systemd-boot"):
        reasons.append("systemd-boot did not start this system, so it is not known to start the next one")
    elif features is None or len(features) != 8 or not int.from_bytes(features, "little") & ONE_SHOT:
        reasons.append("%s does not say that it can start an entry once: update it (bootctl update)" % info)
    if read_only:
        reasons.append("the EFI variables are read-only (%s)" % read_only[0])
    if host.which("bootctl") is None:
        reasons.append("bootctl is not installed")
    return reasons


def trial(host, kernel, image, line):
    items = read_entries(host)
    if kernel is None:
        return own_edits(host, items, TRIAL_ID, {})
    item = _trial_template(host, items, kernel)
    rows = copied_rows(item["text"])
    images = [index for index, row in enumerate(rows) if row[0] == "initrd"]
    if not images:
        raise HostError("%s has no initramfs that the trial's could take the place of" % item["path"])
    rows[images[-1]] = ("initrd", _inside(host, item, image))
    text = trial_text(entries.first(item["fields"], "title") or "Linux %s" % kernel, kernel, rows, line)
    return own_edits(host, items, TRIAL_ID, {trial_path(item["root"]): text})


def trial_path(root):
    return _join(root, "loader/entries/%s%s.conf" % (LAST, TRIAL_ID))


def trial_text(title, version, rows, line):
    rows = [("title", title + " (vfio trial)"), ("version", version)] + rows + [("options", tokens.join(line))]
    return HEADER + "".join("%s %s\n" % row for row in rows)


def trial_binary(host, kernel, image, line, check=False):
    """The trial's image beside the default entry's kernel, where the loader can read it."""
    items = read_entries(host)
    wanted = {}
    if kernel is not None:
        item = _trial_template(host, items, kernel)
        if _trial_image(item) == _join(item["root"], _inside(host, item, image)):
            wanted[_trial_image(item)] = image
    return put_binaries(host, wanted, check)


def put_binaries(host, wanted, check):
    """Have just these binaries of ours (``{path: source}``) on the partitions; True when something was to do."""
    stale = [path for path in own_binaries(host) if path not in wanted]
    work = {target: source for target, source in wanted.items() if not same(host, source, target)}
    if check:
        return bool(stale or work)
    problems = transaction.obstacles(host, {target: host.stat(source).st_size for target, source in work.items()})
    if problems:
        raise HostError("the trial's files do not get onto the EFI partition: %s" % "; ".join(problems))
    for path in stale:
        host.remove(path)
    for target, source in work.items():
        copy(host, source, target)
    return bool(stale or work)


def own_binaries(host):
    """Images of a trial on the partitions."""
    found = []
    for root in partitions(host):
        folders = [root]
        for dummy in range(3):
            for name in (TRIAL_IMAGE, TRIAL_KERNEL):
                found += [_join(one, name) for one in folders if host.exists(_join(one, name))]
            inside = [_join(one, name) for one in folders for name in host.listdir(one)]
            folders = [one for one in inside if host.isdir(one)]
    return found


def _trial_template(host, items, kernel):
    default = default_item(host, items)
    managed = ordinary(host, items)
    for item in [item for item in managed if item is default] + managed:
        if kernel_of(host, item) == kernel and item["fields"].get("linux"):
            return item
    raise HostError("no ordinary entry starts the kernel %s" % kernel)


def _trial_image(item):
    return _join(item["root"], posixpath.dirname(entries.first(item["fields"], "linux")) + "/" + TRIAL_IMAGE)


def _inside(host, item, image):
    """Path of the trial's image as the loader sees it: as it is when it is on the partition, else that of its copy."""
    root = host.real(item["root"])
    real = host.real(image)
    if real.startswith(root.rstrip("/") + "/") and _mount_of(host, real) == root:
        return real[len(root.rstrip("/")):]
    return _trial_image(item)[len(item["root"].rstrip("/")):]


def _mount_of(host, path):
    points = [point for point, dummy, kind, dummy2 in mounts(host) if kind != "autofs"]
    points = [point for point in points if path.startswith(point.rstrip("/") + "/")]
    return max(points, key=len, default="/")


def once(host):
    said = boots.text_variable(host, "LoaderEntryOneShot")
    return key_of(said) if said else None


def key_of(name):
    """An id of the loader's as a view has it."""
    stem = entries.split_name(name)[0]
    return stem.lstrip(LAST) if ours(stem.lstrip(LAST)) else stem


def set_once(host, entry_id):
    name = ""
    if entry_id is not None:
        names = [item["id"] for item in read_entries(host) if item["key"] == entry_id]
        if not names:
            raise HostError("there is no entry %s to start once" % entry_id)
        name = names[0]
    host.run(["bootctl", "set-oneshot", "--", name], timeout=BOOTCTL_TIMEOUT)
