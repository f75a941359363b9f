# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What the two GRUB backends share: where GRUB is, its menu read back, and a menu that is never half written."""

from __future__ import annotations

import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import booted as boots
from ansible_collections.vfio.host.plugins.module_utils._boot import loader, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import Edit
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import grub_menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

DEFAULTS = "/etc/default/grub"
SCRIPTS = "/etc/grub.d"
ENTRIES = SCRIPTS + "/10_linux"
FALLBACK = SCRIPTS + "/42_vfio-host"
TRIAL = SCRIPTS + "/43_vfio-host-trial"
OURS = (FALLBACK, TRIAL)
FIRST = SCRIPTS + "/00_header"
"""What writes GRUB_DEFAULT into the menu."""
TOKENS = "/etc/default/vfio-host-grub"
"""Ours, where /etc/default/grub cannot be told apart from an administrator's: what the fallback entry leaves out."""

PROXMOX = "/etc/kernel/proxmox-boot-uuids"
BLS = re.compile(r"^\s*(?:export\s+)?GRUB_ENABLE_BLSCFG=[\"']?(?:true|y|yes|1)\b", re.M)

NEW = ".vfio-host-new"
"""Ending of the menu that is generated beside the one in place."""

ATTEMPTS = 3
"""How often the menu is made when kernels come or go while it is made."""

TIMEOUT = 300.0
"""Seconds for ``grub-mkconfig``: a slow or emulated machine needs half a minute."""

WRITABLE = ("ext2", "fat", "xfs")
"""Filesystems, as ``grub-probe`` names them, on which GRUB can write into its environment block."""

SUPERUSERS = re.compile(r"^\s*(?:set\s+)?superusers=", re.M)
USERS = re.compile(r"^### BEGIN (\S*/01_users) ###$(?=[^#]*user\.cfg).*?^### END \1 ###$", re.M | re.S)
"""What the Fedora family has in every menu: superusers where user.cfg has a password."""
PASSWORD = re.compile(r"^\s*GRUB2_PASSWORD=\S", re.M)

HEADER = "# Managed by the vfio.host collection (module kernel_cmdline). Do not edit: it is replaced.\n"

FALLBACK_TEXT = (
    "#!/bin/sh\n"
    + HEADER
    + r"""
# The kernels of 10_linux once more, without what vfio.host adds and with vfio_host=off: a way in when a device
# was taken that the host needs. Made by 10_linux itself, so that it follows every new kernel.
# It never fails, since a failure would keep the menu from being generated.

entries=/etc/grub.d/10_linux
added=/etc/default/vfio-host-grub

[ -x "$entries" ] || exit 0
if [ -r "$added" ]; then
    VFIO_HOST_TOKENS=
    # shellcheck source=/dev/null
    . "$added"
fi

line=" ${GRUB_CMDLINE_LINUX_DEFAULT-} "
for token in ${VFIO_HOST_TOKENS-}; do
    case $line in
    *" $token "*) line="${line% "$token" *} ${line##*" $token "}" ;;
    esac
done
line=${line# }
line=${line% }

GRUB_CMDLINE_LINUX_DEFAULT="$line${line:+ }vfio_host=off"
GRUB_DISABLE_RECOVERY=true
GRUB_DISABLE_SUBMENU=y
GRUB_SAVEDEFAULT=false
export GRUB_CMDLINE_LINUX_DEFAULT GRUB_DISABLE_RECOVERY GRUB_DISABLE_SUBMENU GRUB_SAVEDEFAULT

if ! made=$("$entries" 2>/dev/null); then
    echo "vfio-host: $entries failed, so there is no fallback entry" >&2
    exit 0
fi
case $made in
*menuentry*) ;;
*) exit 0 ;;
esac

echo "submenu 'Without VFIO (vfio.host)' \$menuentry_id_option 'vfio-host-fallback' {"
# shellcheck disable=SC2016  # GRUB's variable
printf '%s\n' "$made" | sed -n '/^menuentry /,/^}/{
    s/^menuentry \(['\''"]\)/menuentry \1Without VFIO: /
    s/\$menuentry_id_option '\''gnulinux-/$menuentry_id_option '\''vfio-host-fallback-/
    p
}'
echo "}"
exit 0
"""
)

TRIAL_HEAD = "#!/bin/sh\n" + HEADER.replace("kernel_cmdline", "trial_boot") + "cat <<'VFIO_HOST_TRIAL'\n"
TRIAL_TAIL = "VFIO_HOST_TRIAL\n"
TRIAL_TITLE = "Trial boot (vfio.host)"
TRIAL_LOADED = '\tset vfio_host_trial="$?"'
TRIAL_END = '\tif [ "${vfio_host_trial}" = 0 ]; then boot; fi\n\tconfigfile ${prefix}/grub.cfg'
"""What cannot be loaded or started, a kernel that was removed since for one, leads to the menu once more, which has taken
the one-shot back by then and starts what a reboot would. Without that GRUB waits at the menu without an end. ``fallback``
is no way: of numbers it takes only those of the top, and no ids, so it may be another kernel, or nothing."""


# -- where GRUB is -------------------------------------------------------------------------


def tool(host, name):
    """Name of a command of GRUB, which some distributions call grub2-..., or None."""
    for prefix in ("grub-", "grub2-"):
        if host.which(prefix + name):
            return prefix + name
    return None


def menu_path(host):
    """The menu that GRUB reads, its links followed; where none is yet, where it would be."""
    links = ["/etc/grub2.cfg"]
    if host.isdir(boots.EFI):
        links.insert(0, "/etc/grub2-efi.cfg")
    for path in links + ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]:
        real = host.real(path)
        if host.stat(real):
            return real
    return "/boot/grub2/grub.cfg" if tool(host, "mkconfig") == "grub2-mkconfig" else "/boot/grub/grub.cfg"


def environment_path(host):
    """GRUB's environment block."""
    for folder in (posixpath.dirname(menu_path(host)), "/boot/grub", "/boot/grub2"):
        real = host.real(folder + "/grubenv")
        if host.stat(real):
            return real
    return posixpath.dirname(menu_path(host)) + "/grubenv"


def drop_ins_are_read(host):
    """Whether ``grub-mkconfig`` sources ``/etc/default/grub.d``: a patch of Debian that others do not have."""
    name = tool(host, "mkconfig")
    text = host.read(host.which(name)) if name else None
    return "/default/grub.d/" in (text or "")


def started_by_grub(found_by, against, booted):
    """Sentences about whether GRUB, and not something else, handed the kernel its command line."""
    if booted["stub"]:
        against.append("%s started this system, a unified kernel image" % booted["stub"])
    if booted["loader"] and not booted["loader"].startswith("GRUB"):
        against.append("LoaderInfo says %s" % booted["loader"])
    if booted["boot_image"] is None:
        against.append("no BOOT_IMAGE= on the running command line, so GRUB did not boot this system")
    elif any(token.startswith("initrd=") for token in booted["tokens"]):
        against.append("initrd= beside BOOT_IMAGE= on the running command line: that is syslinux or a network boot")
    else:
        found_by.append("BOOT_IMAGE= on the running command line")
    if booted["loader"] and booted["loader"].startswith("GRUB"):
        found_by.append("LoaderInfo says %s" % booted["loader"])


def unusable(host):
    """Why GRUB's menu cannot be made here."""
    reasons = []
    text = host.read(DEFAULTS)
    if text is None:
        reasons.append("no %s" % DEFAULTS)
    elif BLS.search(text):
        reasons.append("GRUB_ENABLE_BLSCFG=true in %s: the entries are not made from it" % DEFAULTS)
    if tool(host, "mkconfig") is None:
        reasons.append("neither grub-mkconfig nor grub2-mkconfig is installed")
    menu = host.read(menu_path(host)) or ""
    if re.search(r"^\s*blscfg\b", menu, re.M):
        reasons.append("%s takes its entries from /boot/loader/entries (blscfg)" % menu_path(host))
    wrapper = host.which("update-grub")
    if wrapper and "mkconfig" not in (host.read(wrapper) or "mkconfig"):
        reasons.append("%s does not run grub-mkconfig: what would follow a new kernel is not known" % wrapper)
    if (host.read(PROXMOX) or "").strip():
        reasons.append("proxmox-boot-tool manages the boot partitions (%s)" % PROXMOX)
    return reasons


# -- the next boot -------------------------------------------------------------------------


def kernels(host):
    """Versions that ``10_linux`` makes entries for."""
    return [
        name[len("vmlinuz-"):]
        for name in host.listdir("/boot")
        if name.startswith("vmlinuz-") and not grub_menu.GARBAGE.search(name)
    ]


def host_path(host, path):
    """Where a file is that GRUB names from the root of its filesystem."""
    tries = [path, "/boot" + path]
    if "/boot/" in path:
        tries.insert(1, path[path.index("/boot/"):])  # below a subvolume
    tries.append("/boot/" + posixpath.basename(path))  # a subvolume or a dataset that only GRUB sees
    for attempt in tries:
        if host.stat(attempt):
            return attempt
    return tries[0] if path.startswith("/boot/") else "/boot" + path


def menu_of(host, path=None):
    """The parsed menu, or None when there is none."""
    text = host.read(path or menu_path(host))
    return None if text is None else grub_menu.parse_menu(text)


def saved_entry(host):
    return grub_menu.environment(host.read(environment_path(host))).get("saved_entry")


def view(host, path=None):
    """The next boot, see :func:`_boot.loader.view`. ``path``: of a menu other than the one in place."""
    shown = menu_path(host)
    menu = menu_of(host, path)
    if menu is None:
        return loader.view([], ["%s cannot be read" % shown])
    default = grub_menu.default_entry(menu, saved_entry(host))
    entries = [
        loader.entry(
            item["id"], item["title"], item["kernel"], item["tokens"],
            managed=grub_menu.ordinary(item), default=item is default,
            initrds=[host_path(host, name) for name in item["initrds"]],
            recovery=item["recovery"] or loader.ours(item["id"]), source=item["section"],
        )
        for item in menu["entries"]
    ]  # fmt: skip
    problems = []
    if not menu["complete"]:
        problems.append("%s ends in the middle" % shown)
    ordinary = [item for item in menu["entries"] if grub_menu.ordinary(item)]
    if not ordinary:
        problems.append("%s has no entry from %s" % (shown, ENTRIES))
    for kernel in kernels(host) if ordinary else []:
        if kernel not in [item["kernel"] for item in ordinary]:
            problems.append("%s has no entry for the installed kernel %s" % (shown, kernel))
    for item in ordinary:
        lost = [name for name in [item["image"]] + item["initrds"] if not host.stat(host_path(host, name))]
        if lost:
            problems.append("entry %r of %s: %s is not there" % (item["title"], shown, ", ".join(lost)))
    if path is None:
        # grub-mkconfig removes its own when it has copied it over the menu
        problems += [
            "%s is there: generating the menu was cut off" % name for name in leftovers(host) if host.exists(name)
        ]
    if host.exists(FALLBACK):
        safe = [item["kernel"] for item in menu["entries"] if (item["id"] or "").startswith(loader.FALLBACK_ID)]
        for kernel in kernels(host):
            if kernel not in safe:
                problems.append(
                    "%s has no fallback entry for the installed kernel %s (fallback_entry: false does without)"
                    % (shown, kernel)
                )
    return loader.view(entries, problems)


def leftovers(host):
    path = menu_path(host)
    return [path + ".new", path + NEW, path + NEW + ".new"]


# -- generating ----------------------------------------------------------------------------


def generated(host):
    return [menu_path(host)]


def language(host):
    """LANG that the titles of the menu in place were made in; None for English.

    A title may be what somebody has chosen as default, and a menu in another language lacks it.
    """
    if "'Advanced options for " in (host.read(menu_path(host)) or ""):
        return None
    for path in ("/etc/default/locale", "/etc/locale.conf"):
        match = re.search(r"^\s*LANG=[\"']?([A-Za-z0-9_.@-]+)", host.read(path) or "", re.M)
        if match and match.group(1) not in ("C", "POSIX", "C.UTF-8"):
            return match.group(1)
    return None


def generate(host, settings=None):
    """Make the menu beside the one in place, check it, and put it in place in one step.

    ``settings``: tokens that every ordinary entry has to have, in this order, or None when not known.
    """
    path = menu_path(host)
    beside = path + NEW
    spoken = language(host)
    argv = [tool(host, "mkconfig"), "-o", beside]
    if spoken:
        argv = ["env", "-u", "LC_ALL", "-u", "LANGUAGE", "LANG=" + spoken] + argv
    before = menu_of(host)
    status = host.stat(path)
    for name in leftovers(host):
        host.remove(name)
    try:
        for attempt in range(ATTEMPTS):
            installed = kernels(host)
            result = host.run(argv, timeout=TIMEOUT)
            data = host.read_bytes(beside)
            reasons = ["it wrote no menu"] if data is None else unfit(host, before, beside, settings)
            if not reasons:
                break
            if attempt == ATTEMPTS - 1 or kernels(host) == installed:  # else one came or went meanwhile
                said = (result.stderr or result.stdout).strip()[-500:]
                raise HostError("%s ran, but: %s. It said: %s" % (argv[-3], "; ".join(reasons), said))
        host.write(path, data, mode=status.st_mode & 0o7777 if status else 0o600)
    finally:
        for name in leftovers(host):
            host.remove(name)


def unfit(host, before, path, settings):
    """Why a new menu must not take the place of the old: ``[reason]``."""
    seen = view(host, path)
    reasons = list(seen["problems"])
    expected = [grub_menu.for_kernel(word) for word in grub_menu.words(tokens.join(settings or []))]
    for entry in seen["entries"]:
        if entry["managed"] and not tokens.in_order(entry["tokens"], expected):
            reasons.append(
                "entry %r has %s, expected is %s"
                % (entry["title"], tokens.join(entry["tokens"]), tokens.join(expected))
            )
    was = grub_menu.default_entry(before, saved_entry(host)) if before else None
    default = loader.default_of(seen)
    another = another_default(host, before, menu_of(host, path)) if before else []
    if another:
        reasons += another
    elif was is not None and default is None:
        reasons.append("the default entry %r is no longer there" % was["title"])
    elif default is not None and loader.ours(default["id"]) and not (was and loader.ours(was["id"])):
        reasons.append(
            "the default would be %r: GRUB_DEFAULT names no entry of the menu as it is, correct it first"
            % default["title"]
        )
    return reasons


def hindrances(host, edits, files):
    """A default that would mean another entry when ours come, or go. ``files``: the settings, with ``edits``."""
    menu = menu_of(host)
    return [] if menu is None else default_moves(host, menu, saved_entry(host), environment_path(host), edits, files)


def default_moves(host, menu, saved, block, edits, files):
    """The same for one menu: ``[reason]``. ``saved``: the saved entry, in the environment block ``block``."""
    default = grub_menu.default_setting(files)
    if default is not None and menu["default_by"] == FIRST:
        menu = dict(menu, default=default)  # of the next menu
    changed = {edit.path: edit.after is not None for edit in edits}
    scripts = [script for script in OURS if changed.get(script, host.exists(script))]
    pair = with_and_without(menu, saved, scripts) if menu["complete"] else None
    return [grub_menu.means_another(menu, saved, block, pair[1], pair[0])] if pair else []


def another_default(host, before, menu):
    """Why a new menu would start another entry than the old one: ``[reason]``. Kernels that came or went are no reason."""
    saved, block = saved_entry(host), environment_path(host)
    if not before["complete"]:
        return []
    pair = with_and_without(menu, saved, [script for script in OURS if script in before["tops"]])
    if pair:
        return [grub_menu.means_another(menu, saved, block, pair[0], pair[1])]
    same = before["default"] == menu["default"] and _kernels_of(before) == _kernels_of(menu)
    if not same or not grub_menu.by_number(grub_menu.asked(menu, saved)):
        return []
    was, now = [grub_menu.started(item["all"], grub_menu.asked(item, saved)) for item in (before, menu)]
    return [] if grub_menu.alike(was, now) else [grub_menu.means_another(menu, saved, block, now, was)]


def _kernels_of(menu):
    return {entry["kernel"] for entry in menu["entries"] if grub_menu.ordinary(entry)}


def with_and_without(menu, saved, scripts):
    """What a menu starts by default, and what it would if of our scripts just these wrote an entry. None: the same."""
    wanted = grub_menu.asked(menu, saved)
    first = [entry["title"] for entry in menu["entries"] if grub_menu.ordinary(entry)][:1]
    titles = {FALLBACK: "Without VFIO: " + "".join(first), TRIAL: TRIAL_TITLE}
    gone = [script for script in OURS if script not in scripts]
    new = {script: titles[script] for script in scripts if script not in menu["tops"]}
    now, then = [grub_menu.started(items, wanted) for items in (menu["all"], grub_menu.counted(menu, gone, new))]
    return (now, then) if now and then and then["place"] != now["path"] else None


def refresh(host, kernels):
    """GRUB reads the images where they are built."""


# -- our own entries -----------------------------------------------------------------------


def fallback(host, owned):
    """See :mod:`_boot.loader`. What it leaves out is told to the script when the menu is generated."""
    wanted = None if owned is None else FALLBACK_TEXT
    return own_file(host, FALLBACK, wanted, mode=0o755)


def own_file(host, path, after, mode=0o644):
    """The edits, one or none, that make a file of ours what it has to be. Refuses one that is not ours."""
    before = host.read(path)
    if before is None and host.exists(path):
        raise ValueError("%s exists and cannot be read as a file: move it away first" % path)
    if before is not None and "# Managed by the vfio.host collection" not in before[:200]:
        raise ValueError("%s exists and is not from this collection: move it away first" % path)
    status = host.stat(path)
    if before == after and (after is None or status.st_mode & 0o7777 == mode):
        return []
    return [Edit(path, before, after, mode=mode)]


def quoted(word):
    """A word as GRUB's script language and ``10_linux`` write it."""
    return word if re.match(r"^[A-Za-z0-9_.,:=/@%+-]+$", word) else "'%s'" % word.replace("'", "'\\''")


def trial_text(host, kernel, image, line):
    """Text of the script that writes the trial entry: the default entry, with another line and image."""
    menu = menu_of(host)
    found = grub_menu.default_entry(menu, saved_entry(host)) if menu else None
    if found is None or not grub_menu.ordinary(found):
        raise HostError("%s has no ordinary default entry that a trial entry could be made from" % menu_path(host))
    if found["kernel"] != kernel:
        raise HostError("the default entry starts kernel %s, not %s" % (found["kernel"], kernel))
    folder = posixpath.dirname(found["image"])
    if posixpath.dirname(image) != posixpath.dirname(host_path(host, found["image"])):
        raise HostError("%s is not in the folder of the kernel, so GRUB's way to it is not known" % image)
    raw = {}
    starts = [text for text in found["body"] if (grub_menu.words(text) or [""])[0] in grub_menu.LINUX]
    if len(starts) > 1:
        raise HostError(
            "the default entry %r starts the kernel in %d ways (GRUB_FORCE_PARTUUID, without an initramfs first), so "
            "no trial entry can be made from it" % (found["title"], len(starts))
        )
    for text in found["body"]:
        if (grub_menu.words(text) or [""])[0] in grub_menu.LINUX:
            raw = {grub_menu.for_kernel(word): written for written, word in grub_menu.raw_words(text)[2:]}
    own = folder.rstrip("/") + "/" + posixpath.basename(image)
    body = []
    for text in found["body"]:
        parts = grub_menu.words(text)
        command = parts[0] if parts else ""
        if command == "savedefault":  # it would make a trial the rule
            continue
        indent = "\t"
        if command in grub_menu.LINUX:
            words = [raw.get(token, quoted(token)) for token in line]
            text = indent + "\t".join([command, " ".join([quoted(parts[1])] + words)])
        elif command in grub_menu.INITRD:
            text = indent + "\t".join([command, " ".join([quoted(name) for name in parts[1:-1]] + [quoted(own)])])
        else:
            text = indent + text.strip()
        body.append(text)
        if command in grub_menu.LINUX and not found["initrds"]:
            body += [indent + "initrd\t" + quoted(own), TRIAL_LOADED]
        elif command in grub_menu.INITRD:
            body.append(TRIAL_LOADED)
    # who may start the default entry: GRUB would ask for a password on the console, and the host wait there
    begin = ["menuentry '%s'" % TRIAL_TITLE] + found["options"] + ["--id '%s' {" % loader.TRIAL_ID]
    lines = [" ".join(begin)] + body + [TRIAL_END, "}"]
    if any(text == TRIAL_TAIL.strip() for text in lines):
        raise HostError("the default entry holds the line %s" % TRIAL_TAIL.strip())
    return TRIAL_HEAD + "\n".join(lines) + "\n" + TRIAL_TAIL


def trial(host, kernel, image, line):
    """See :mod:`_boot.loader`."""
    return own_file(host, TRIAL, None if kernel is None else trial_text(host, kernel, image, line), mode=0o755)


def superusers_in(host):
    """The file in which GRUB is given superusers, so that it asks for a password; None where it is not."""
    path = menu_path(host)
    text = host.read(path) or ""
    if not PASSWORD.search(host.read(posixpath.dirname(path) + "/user.cfg") or ""):
        text = USERS.sub("", text)
    custom = posixpath.dirname(path) + "/custom.cfg"  # 41_custom takes it in
    for name, content in ((path, text), (custom, host.read(custom) or "")):
        if SUPERUSERS.search(content):
            return name
    return None


def trial_obstacles(host):
    """Why GRUB cannot start an entry once here."""
    reasons = []
    path = environment_path(host)
    text = host.read(menu_path(host)) or ""
    default = grub_menu.default_entry(grub_menu.parse_menu(text), saved_entry(host))
    asking = superusers_in(host)
    if asking and default is not None and grub_menu.ordinary(default) and default["restricted"]:
        reasons.append(
            "GRUB asks for a password before it starts the default entry %r (superusers in %s), so the host would not "
            "come back by itself: give that entry, and a submenu that it is in, --unrestricted" % (default["title"], asking)
        )
    if "next_entry" not in text or "load_env" not in text:
        reasons.append("%s does not look at next_entry, so GRUB starts nothing once" % menu_path(host))
    block = host.read_bytes(path)
    if block is None:
        reasons.append("there is no environment block %s (%s create makes one)" % (path, tool(host, "editenv")))
    elif len(block) != 1024 or not block.startswith(b"# GRUB Environment Block"):
        reasons.append("%s is not an environment block of GRUB" % path)
    if tool(host, "editenv") is None:
        reasons.append("grub-editenv is not installed")
    probe = tool(host, "probe")
    if probe is None:
        reasons.append("grub-probe is not installed, so whether GRUB can write to %s is not known" % path)
        return reasons
    folder = posixpath.dirname(path)
    try:
        layers = host.run([probe, "--target=abstraction", folder]).stdout.split()
        kind = host.run([probe, "--target=fs", folder]).stdout.strip()
    except HostError as exc:
        reasons.append("whether GRUB can write to %s is not known: %s" % (path, exc))
        return reasons
    stays = "%s is on %s, where GRUB cannot write: an entry chosen once would stay"
    if layers:
        reasons.append(stays % (path, " ".join(layers)))
    if kind not in WRITABLE:
        reasons.append(stays % (path, kind or "?"))
    return reasons


def once(host):
    """Id of the entry that the next boot starts once."""
    return grub_menu.environment(host.read(environment_path(host))).get("next_entry") or None


def once_traces(host):
    """GRUB empties ``next_entry`` when it uses it, and never removes it: ``next_entry=`` stays in the block."""
    return "next_entry" in grub_menu.environment(host.read(environment_path(host)))


def set_once(host, entry_id):
    path = environment_path(host)
    change = ["unset", "next_entry"] if entry_id is None else ["set", "next_entry=" + entry_id]
    host.run([tool(host, "editenv") or "grub-editenv", path] + change)
