# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Unified kernel images in ``EFI/Linux``, made by kernel-install with ukify or by mkinitcpio's presets.

The command line is in the image, so each image is built again, aside: both tools write over the file that boots. It
is read back, and takes the old one's place only when it is complete and carries what it has to.

Where an administrator has a file for it (``/etc/kernel/cmdline``), all images get what that says. Where there is none
both tools take the running line, a trial's and the fallback's too, so each image is built with the line that it has.

The entries of our own are of the other kind (``loader/entries``): the fallback starts the same image with a command
line of its own, which ``systemd-stub`` takes for as long as Secure Boot is off; the trial starts a copy of the kernel
with the image that is to be tried. With Secure Boot on, or without systemd-boot, there is neither. Where the boots of an
image are counted, systemd-boot gives it another name each time it starts it, so until it was found good nothing can
name it: it has no fallback.
"""

from __future__ import annotations

import json
import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._boot import booted as boots
from ansible_collections.vfio.host.plugins.module_utils._boot import edits as transaction
from ansible_collections.vfio.host.plugins.module_utils._boot import entries, kernel_install, pe, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs.image import ImageError, read_image
from ansible_collections.vfio.host.plugins.module_utils._boot.loader import (
    FALLBACK_ID,
    OFF,
    TRIAL_ID,
    Edit,
    ours,
    stuck,
    view as make_view,
)
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import systemd_boot as menu
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "uki"
REPLACED_HOOKS = menu.REPLACED_HOOKS
LASTING = menu.LASTING

INSTALL_CONF = ("/etc/kernel/install.conf", "/run/kernel/install.conf", "/usr/local/lib/kernel/install.conf",
                "/usr/lib/kernel/install.conf")  # fmt: skip
UKI_CONF = tuple(path.replace("install.conf", "uki.conf") for path in INSTALL_CONF)
DEVICETREE = ("/etc/kernel/devicetree", "/usr/lib/kernel/devicetree")
PRESETS = "/etc/mkinitcpio.d"
DROP_INS = "/etc/cmdline.d"
DROP_IN = DROP_INS + "/90-vfio-host.conf"
ASIDE = "/var/lib/vfio-host/uki"
"""Where images are built before they take the place of those that boot."""

ORIGINALS = "/var/lib/vfio-host/uki-originals"
"""Images as they were before us. What is built on the way back holds the same, and yet is no copy of them: kernel-install
has dracut make the first part of the initramfs anew each time."""

LINES = "/var/lib/vfio-host/uki-lines.json"
"""What images are to be built with, ``{path: command line}``, where no file of others says it: from edits() to
generate(), and only during a run."""

BUILD_TIMEOUT = 900.0
READ_TIMEOUT = 300.0
"""Seconds to unpack and read the initramfs of one image; an emulated machine needs a tenth of it."""

MACHINE = "systemd.machine_id"
"""Put behind the configured line by kernel-install where the images are named by the machine id."""
SETTING = re.compile(r"^\s*(?:export\s+)?(\w+)=(\"[^\"]*\"|'[^']*'|\S*)\s*(?:#.*)?$", re.M)
IMAGE_SETTING = re.compile(r"^(\w+?)_(?:uki|efi_image)$")
HEADER = "# Managed by the vfio.host collection (module kernel_cmdline). Do not edit: it is replaced.\n"


# -- how the images are made ---------------------------------------------------------------


def settings(text):
    """``{name: value}`` of a file of shell assignments, without running it; quotes are taken off."""
    found = {}
    for name, value in SETTING.findall(text or ""):
        found[name] = value[1:-1] if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1 else value
    return found


def install_conf(host):
    """kernel-install's settings as one text: of the first file, and of the drop-ins beside any of them."""
    found = [text for text in (host.read(path) for path in INSTALL_CONF) if text is not None][:1]
    for path in reversed(INSTALL_CONF):
        found += [host.read("%s.d/%s" % (path, name)) or "" for name in host.listdir(path + ".d") if name.endswith(".conf")]
    return "\n".join(found) + "\n"


def preset_images(host):
    """``[(preset file, preset, path of the image)]`` of mkinitcpio's presets that make a UKI."""
    found = []
    for name in host.listdir(PRESETS):
        if not name.endswith(".preset"):
            continue
        text = host.read("%s/%s" % (PRESETS, name)) or ""
        active = re.search(r"^\s*PRESETS=\(([^)]*)\)", text, re.M)
        active = [word.strip("'\"") for word in active.group(1).split()] if active else []
        for key, value in settings(text).items():
            match = IMAGE_SETTING.match(key)
            if match and match.group(1) in active and value:
                found.append(("%s/%s" % (PRESETS, name), match.group(1), value))
    return found


def maker(host):
    """``("kernel-install" | "mkinitcpio", [])``, or ``(None, [why it cannot be told])``."""
    configured_layout = settings(install_conf(host))
    by_kernel_install = configured_layout.get("layout") == "uki" and host.which("kernel-install")
    images = preset_images(host) if host.which("mkinitcpio") else []
    if by_kernel_install and images:
        return None, ["both kernel-install (layout=uki) and mkinitcpio (%s) make unified kernel images" % images[0][0]]
    if by_kernel_install:
        generator = configured_layout.get("uki_generator") or "ukify"
        if generator != "ukify":
            return None, ["uki_generator=%s in install.conf is not supported" % generator]
        if not host.which("ukify") and not host.exists("/usr/lib/systemd/ukify"):
            return None, ["layout=uki in install.conf, and ukify is not installed"]
        return "kernel-install", []
    if images:
        return "mkinitcpio", _preset_reasons(host, images)
    return None, [
        "nothing that makes the unified kernel images was found (layout=uki in /etc/kernel/install.conf, or a preset "
        "with default_uki in %s), so they would be made by hand: build them again with the parameters" % PRESETS
    ]


def _preset_reasons(host, images):
    reasons = []
    for path, preset, image in images:
        found = settings(host.read(path))
        if "$" in image:
            reasons.append("%s: the path %s needs a shell to be known" % (path, image))
        for key in (preset + "_cmdline", "ALL_cmdline"):
            if found.get(key):
                reasons.append("%s: %s=%s sets a command line of its own" % (path, key, found[key]))
        if "cmdline" in found.get(preset + "_options", "") or re.search(
                r"^\s*%s_options=\(.*cmdline" % preset, host.read(path) or "", re.M):
            reasons.append("%s: %s_options sets a command line of its own" % (path, preset))
    return reasons


def _is_managed(host, item, made_by, presets):
    if item["uki"] is None or ours(item["key"]):
        return False
    if made_by == "mkinitcpio":
        return host.real(item["path"]) in presets
    return made_by == "kernel-install" and menu.by_kernel_install(host, item)


def managed_items(host, items):
    """The images that have to carry ours."""
    made_by = maker(host)[0]
    presets = [host.real(image) for dummy, dummy2, image in preset_images(host)]
    return [item for item in items if item["error"] is None and _is_managed(host, item, made_by, presets)]


# -- the interface: what is there ----------------------------------------------------------


def evidence(host, booted):
    found, against = [], []
    if ours(menu.key_of(booted["entry"] or "")) and (booted["loader"] or "").startswith("systemd-boot"):
        found, against = menu.common_evidence(host, booted)
        found.append("the booted entry is %s, one of our own" % booted["entry"])
        if not against and not unusable(host):
            if not menu.cares_for_default(host, managed_items(host, menu.read_entries(host))):
                against.append("the default entry is no unified kernel image of this system")
    elif booted["stub"]:
        found.append("%s ran: a unified kernel image was started" % booted["stub"])
        if booted["loader"]:
            found, against = found + menu.common_evidence(host, booted)[0], menu.common_evidence(host, booted)[1]
            if not (booted["entry"] or "").lower().endswith((".efi", ".conf")):
                against.append("%s does not say which entry it started" % booted["loader"])
        else:
            found.append("no boot loader has left its name: the firmware started the image")
            against += ["%s (%s)" % (why, path) for path, why in menu.OTHERS if host.exists(path)]
    elif (booted["entry"] or "").lower().endswith(".efi") and (booted["loader"] or "").startswith("systemd-boot"):
        found, against = menu.common_evidence(host, booted)
        found.append("the booted entry is %s" % booted["entry"])
    else:
        against.append("no unified kernel image was started (no StubInfo, and no booted entry *.efi)")
    if not against:
        against.extend(unusable(host))
    return found, against


def unusable(host):
    reasons = menu.common_reasons(host)
    reasons += maker(host)[1]
    trees = [path for path in DEVICETREE if host.exists(path)]
    if trees and not reasons and maker(host)[0] == "kernel-install" and not _dictated(host):
        reasons.append("%s names a device tree, and %s does not say the command line: write it there" % (
            trees[0], menu.CMDLINE))
    if not reasons and not managed_items(host, menu.read_entries(host)):
        reasons.append("no image in EFI/Linux of %s is one that %s makes for this system" % (
            " or ".join(menu.partitions(host)), maker(host)[0]))
    return reasons


def recorded(host):
    text = host.read(DROP_IN)
    return entries.line_tokens(text) if text is not None and text.startswith(HEADER) else None


def _direct(host):
    """Whether the firmware started the image, so that there is no menu."""
    return not (boots.text_variable(host, "LoaderInfo") or "").startswith("systemd-boot")


# -- the interface: changing ---------------------------------------------------------------


def edits(host, wanted, owned):
    items = menu.read_entries(host)
    managed = managed_items(host, items)
    if maker(host)[0] == "mkinitcpio":
        found = _mkinitcpio_edits(host, items, managed, wanted, owned)
    else:
        read_by = kernel_install.reader(host, kernel_install.UKI)
        found = menu.cmdline_edits(host, wanted, owned, _base(host, items, managed, owned), read_by)
    found.append(_lines_edit(host, managed, wanted, owned))
    return [edit for edit in found if edit.before != edit.after]


def _dictated(host):
    """Whether a file of others says the command line of all images."""
    paths = [path for path in (menu.CMDLINE, menu.VENDOR_CMDLINE) if host.exists(path)]
    if menu.made_here(host):
        paths.remove(menu.CMDLINE)
    if maker(host)[0] == "mkinitcpio":
        paths += [path for path in _mkinitcpio_sources(host) if path.startswith(DROP_INS + "/")]
    return bool(paths)


def _lines_edit(host, managed, wanted, owned):
    """The images that have to get another line of their own."""
    lines = {}
    for item in managed if not _dictated(host) else ():
        line = _own_line(host, item)
        here = record.own(host, item["key"], owned, line)
        after = menu.without(line, [token for token in here if token in line], wanted)
        if after != line and not menu.settled(line, wanted, here):
            lines[item["path"]] = tokens.join(after)
    text = json.dumps(lines, indent=1, sort_keys=True) + "\n" if lines else None
    return Edit(LINES, host.read(LINES), text)


def _own_line(host, item):
    """Command line in an image as it is, what another loader had put in front of it too."""
    data = pe.read_section(host, item["path"], ".cmdline") or b""
    try:
        return tokens.split(data.decode("utf-8").strip("\0 \t\r\n"))
    except UnicodeDecodeError as exc:
        raise HostError("%s: the command line in it is not UTF-8 text (byte %d), so it could not be given back: write "
                        "it to %s" % (item["path"], exc.start, menu.CMDLINE)) from exc


def _base(host, items, managed, owned):
    """What a new ``/etc/kernel/cmdline`` begins with: the default image's line."""
    item = _first(host, items, managed)
    line = menu.line_of(item)
    return _plain(menu.ordinary_line(line, record.own(host, item["key"], owned, line)))


def _first(host, items, managed):
    default = menu.default_item(host, items)
    return ([one for one in managed if one is default] + managed)[0]


def _mkinitcpio_edits(host, items, managed, wanted, owned):
    """A drop-in of ours, where this mkinitcpio reads them and what it has is not ended by ``--``."""
    script = host.which("mkinitcpio")
    sources = _mkinitcpio_sources(host)
    line = [token for path in sources for token in _mkinitcpio_tokens(host, path)]
    for path in sources if wanted else ():
        kernel_install.refuse_comments(path, host.read(path) or "", kernel_install.MKINITCPIO)
    there = host.read(DROP_IN)
    if there is not None and not there.startswith(HEADER):
        raise HostError("%s exists and is not from this collection: move it away first" % DROP_IN)
    if "cmdline.d" not in (host.read(script) or "") or "--" in line:
        return menu.cmdline_edits(host, wanted, owned, _base(host, items, managed, owned), kernel_install.MKINITCPIO)
    found = []
    if wanted and not sources:
        # mkinitcpio takes the running line only for as long as there is no file at all
        base = tokens.join(_base(host, items, managed, owned)) + "\n"
        found.append(Edit(menu.CMDLINE, None, base, own=False))
    text = HEADER + tokens.join(wanted) + "\n" if wanted else None
    if text != there:
        found.append(Edit(DROP_IN, there, text))
    return found


def _sources(host, with_ours=False):
    """Files that the next image gets its command line from; without any it gets the running one."""
    if maker(host)[0] == "mkinitcpio":
        return _mkinitcpio_sources(host, with_ours)
    return [path for path in (menu.CMDLINE, menu.VENDOR_CMDLINE) if host.exists(path)][:1]


def _mkinitcpio_sources(host, with_ours=False):
    """Files that mkinitcpio puts together, in its order."""
    found = [path for path in (menu.CMDLINE, menu.VENDOR_CMDLINE) if host.read(path) is not None][:1]
    names = [name for name in host.listdir(DROP_INS) if name.endswith(".conf")]
    paths = ["%s/%s" % (DROP_INS, name) for name in sorted(names, key=_natural)]
    return found + [path for path in paths if with_ours or path != DROP_IN]


def _mkinitcpio_tokens(host, path):
    return entries.line_tokens(host.read(path) or "", kernel_install.MKINITCPIO[1])


def _natural(name):
    """Sorts numbers in names as numbers, as ``sort -V`` does."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def configured(host):
    """Where no file says it, what one of ours would say: the running line is taken, and that may be any."""
    paths = _sources(host, with_ours=True)
    items = [] if paths else menu.read_entries(host)
    managed = managed_items(host, items)
    if managed:
        line = _base(host, items, managed, [])
        return line, {token: _first(host, items, managed)["path"] for token in line}
    if maker(host)[0] != "mkinitcpio":
        return menu.kernel_install_line(host, kernel_install.reader(host, kernel_install.UKI))
    found = []
    origin = {}
    for path in paths:
        for token in _mkinitcpio_tokens(host, path):
            found.append(token)
            origin[token] = path
    return found, origin


def generated(host):
    return [item["path"] for item in managed_items(host, menu.read_entries(host))]


def generate(host):
    """Build the images again that do not carry the configured command line, or the one that is wanted for each."""
    items = managed_items(host, menu.read_entries(host))
    lines = _lines(host)
    if lines:
        work = [(item, tokens.split(lines[item["path"]])) for item in items if item["path"] in lines]
    elif _dictated(host):
        work = [(item, None) for item in items]
    else:
        work = []
    build(host, [(item, line) for item, line in work if _plain(menu.line_of(item)) != _expected(host, line)])


def _lines(host):
    try:
        return json.loads(host.read(LINES) or "{}")
    except ValueError:
        return {}  # cut off by somebody: edits() says anew what is to be done


def _expected(host, line):
    """What has to be in an image that is built with a line of its own, or as it is configured (None)."""
    return _plain(configured(host)[0] if line is None else line)


def _plain(line):
    return [token for token in line if tokens.key(token) != MACHINE and not token.startswith(menu.ADDED)]


def refresh(host, kernels):
    """Build the images of these kernels again unless the initramfs that was built for them is in them already."""
    work = []
    for item in managed_items(host, menu.read_entries(host)):
        kernel = menu.kernel_of(host, item)
        if kernel in kernels and not _carries(host, item, kernel):
            work.append((item, None if _dictated(host) else _own_line(host, item)))
    build(host, work)


def _carries(host, item, kernel):
    """Whether the initramfs in /boot is (the end of) the one in the image. mkinitcpio makes both in one go."""
    where = item["uki"]["sections"].get(".initrd")
    return where is not None and maker(host)[0] == "kernel-install" and _ends_with(host, item["path"], where, kernel)


def _ends_with(host, image, where, kernel):
    """Whether the initramfs in an image, ``where`` (offset, length) says, ends with the one in /boot."""
    path = "/boot/initrd.img-" + kernel
    status = host.stat(path)
    offset, length = where
    for padding in range(4):  # several are put together on bounds of four bytes
        begin = length - padding - status.st_size if status and status.st_size else -1
        if begin >= 0 and _same_part(host, image, offset + begin, path, 0, status.st_size):
            return True
    return False


def _same_part(host, one, at, other, there, size):
    """Whether ``size`` bytes of two files are the same, from these offsets on."""
    with open(host.path(one), "rb") as left, open(host.path(other), "rb") as right:
        left.seek(at)
        right.seek(there)
        while size > 0:
            data = right.read(min(size, 1 << 20))
            if not data or left.read(len(data)) != data:
                return False
            size -= len(data)
    return True


def build(host, work):
    """Build images aside, read them back, and put each in the place of the old one.

    ``work``: ``[(entry, command line | None)]``; None: as it is configured.
    """
    _clean(host)  # of a run that was killed
    if not work:
        _forget(host)
        return
    items = [item for item, dummy in work]
    sizes = {ASIDE + "/x": 2 * sum(host.stat(item["path"]).st_size for item in items)}
    largest = max(items, key=lambda item: host.stat(item["path"]).st_size)
    sizes[largest["path"]] = host.stat(largest["path"]).st_size + (4 << 20)  # one after the other
    problems = transaction.obstacles(host, sizes)
    if problems:
        raise HostError("the unified kernel images were not built: %s" % "; ".join(problems))
    try:
        ready = []
        for item, line in work:
            _keep(host, item)
            ready.append((item, line, _build_one(host, item, line)))
        for item, line, path in ready:
            _check(host, item, path, line)
        for item, dummy, path in ready:
            original = _kept(item) if _same(host, path, _kept(item), menu.kernel_of(host, item)) else path
            menu.copy(host, original, item["path"])
    finally:
        _clean(host)
    _forget(host)


GIVEN = """\
if [[ ${%(name)s_options@a} == *a* ]]; then
    %(name)s_options+=(--cmdline '%(path)s')
else
    %(name)s_options="${%(name)s_options:+$%(name)s_options }--cmdline %(path)s"
fi
"""
"""Lines of a preset that have mkinitcpio take a command line from a file. It may have options as an array or as text."""


def _build_one(host, item, line):
    """Path of a new image for the kernel of an entry. ``line``: what it is built with, or None as it is configured."""
    kernel = menu.kernel_of(host, item)
    if maker(host)[0] == "mkinitcpio":
        for preset_file, preset, image in preset_images(host):
            if host.real(image) != host.real(item["path"]):
                continue
            out = "%s/%s-%s.efi" % (ASIDE, posixpath.basename(preset_file), preset)
            # the same preset, but for where its image goes, and without an initramfs of its own
            text = ". '%s'\nPRESETS=('%s')\n%s_uki='%s'\n%s_image=''\n" % (preset_file, preset, preset, out, preset)
            if line is not None:
                host.write(ASIDE + "/cmdline", tokens.join(line) + "\n")
                text += GIVEN % {"name": preset, "path": ASIDE + "/cmdline"}
            name = "%s/%s" % (ASIDE, posixpath.basename(preset_file))
            host.write(name, text)
            host.run(["mkinitcpio", "-p", name], timeout=BUILD_TIMEOUT)
            return out
        raise HostError("no preset makes %s" % item["path"])
    image = menu.installed_kernels(host).get(kernel)
    if image is None:
        raise HostError(
            "%s: the kernel %s is not installed, so its image cannot be built again" % (item["path"], kernel)
        )
    token = item["stem"][: -len("-" + kernel)]
    root = "%s/%s" % (ASIDE, kernel)
    host.write(root + "/EFI/Linux/.made-aside", "")
    argv = ["kernel-install", "--entry-token=literal:" + token, "add", kernel, image]
    env = {"BOOT_ROOT": root}
    if line is not None:
        env["KERNEL_INSTALL_CONF_ROOT"] = _conf_root(host, kernel, line)
    result = host.run(argv, timeout=BUILD_TIMEOUT, env=env)
    made = [name for name in host.listdir(root + "/EFI/Linux") if name.endswith(".efi")]
    if len(made) != 1:
        said = (result.stderr or result.stdout).strip()[-500:]
        raise HostError("kernel-install made no image for %s. It said: %s" % (kernel, said or "nothing"))
    return "%s/EFI/Linux/%s" % (root, made[0])


def _conf_root(host, kernel, line):
    """A folder of settings for kernel-install: those of this host, and a command line. It looks into no other then."""
    folder = "%s/%s.conf" % (ASIDE, kernel)
    host.write(folder + "/cmdline", tokens.join(line) + "\n")
    host.write(folder + "/install.conf", install_conf(host))
    for path in UKI_CONF:
        if host.exists(path):
            host.copy(path, folder + "/uki.conf")
            break
    return folder


def _check(host, item, path, line):
    """Raises HostError for a new image that is not what has to take the old one's place."""
    new = pe.uki(host, path)
    reasons = []
    wanted = _expected(host, line)
    if _plain(tokens.split(new["cmdline"] or "")) != wanted:
        reasons.append("its command line is %r and not %r" % (new["cmdline"], tokens.join(wanted)))
        if line is not None:
            reasons.append("%s does not take a line for one image: write it to %s" % (maker(host)[0], menu.CMDLINE))
    if new["uname"] and new["uname"] != menu.kernel_of(host, item):
        reasons.append("it is for the kernel %s" % new["uname"])
    if ".initrd" in item["uki"]["sections"] and not new["sections"].get(".initrd", (0, 0))[1]:
        reasons.append("it has no initramfs")
    if not pe.signed(host, path) and (pe.signed(host, item["path"]) or boots.secure_boot(host)):
        reasons.append("it is not signed: name ukify's keys in uki.conf (SecureBootPrivateKey, SecureBootCertificate)")
    if reasons:
        raise HostError("the new image for %s is not used: %s" % (item["path"], "; ".join(reasons)))


# -- images as they were before us ---------------------------------------------------------


def _kept(item):
    """Where the copy of an image is kept."""
    path = "%s/%s.efi" % (posixpath.dirname(item["path"]), item["stem"])  # a counter in its name comes and goes
    return "%s/%s" % (ORIGINALS, path.strip("/").replace("/", "-"))


def _initramfs(host, path, members=False):
    offset, length = pe.sections(host, path)[".initrd"]
    return read_image(host, path, (), READ_TIMEOUT, offset=offset, length=length, members=members)


def _without_ours(host, item):
    """Whether nothing of ours is in an image. Raises HostError and KeyError when that cannot be told."""
    known, line = record.read(host), menu.line_of(item)
    if any(token in line for token in (record.own(host, item["key"], known["tokens"], line) if known else ())):
        return False
    return not any("vfio-host" in name for name in _initramfs(host, item["path"]).names)


def _keep(host, item):
    """Keep a copy of an image that has nothing of ours in it, if there is room for it."""
    try:
        copy, size = _kept(item), host.stat(item["path"]).st_size
        if not host.exists(copy) and transaction.room_for_copy(host, copy, size) and _without_ours(host, item):
            host.copy(item["path"], copy)
    except (HostError, OSError, KeyError):
        pass  # a convenience: without it, the image that is built on the way back stays


def _same(host, new, kept, kernel):
    """Whether two images are the same but for what kernel-install's own call of dracut packs anew each time.

    The initramfs in /boot tells: it is again the one that was in the original, so what dracut goes by has not changed.
    Without it, both hold the same files.
    """
    try:
        if not host.exists(kept):
            return False
        left, right = pe.sections(host, new), pe.sections(host, kept)
        if list(left) != list(right):
            return False
        for name, (at, length) in left.items():
            there, size = right[name]
            if name != ".initrd" and not (length == size and _same_part(host, new, at, kept, there, size)):
                return False
        image = _initramfs(host, new, True)
        if any("vfio-host" in name for name in image.names):
            return False
        if _ends_with(host, new, left[".initrd"], kernel) and _ends_with(host, kept, right[".initrd"], kernel):
            return True
        return image.content() == _initramfs(host, kept, True).content()
    except (ImageError, HostError, OSError, KeyError):
        return False


def _forget(host):
    """Copies go when nothing of ours is in the image that they are of, or it is gone."""
    if not host.exists(ORIGINALS):
        return
    needed = set()
    for item in managed_items(host, menu.read_entries(host)):
        try:
            clean = _without_ours(host, item)
        except (HostError, KeyError):
            clean = False
        if not clean:
            needed.add(posixpath.basename(_kept(item)))
    for name in host.listdir(ORIGINALS):
        if name not in needed:
            host.remove("%s/%s" % (ORIGINALS, name))
    host.remove_empty_folder(ORIGINALS)
    host.remove_empty_folder(posixpath.dirname(ORIGINALS))


def _clean(host):
    def clear(folder):
        for name in host.listdir(folder):
            path = folder + "/" + name
            if host.isdir(path):
                clear(path)
            else:
                host.remove(path)
        host.remove_empty_folder(folder)

    if host.exists(ASIDE):
        clear(ASIDE)
        host.remove_empty_folder(posixpath.dirname(ASIDE))


# -- the interface: reading back -----------------------------------------------------------


def view(host):
    try:
        items = menu.read_entries(host)
    except HostError as exc:
        return make_view([], [str(exc)])
    managed = managed_items(host, items)
    found, problems = menu.view_items(host, items, managed)
    if _direct(host):
        # the firmware knows which image it starts, by its own list; this boot's is the best that is known
        name = (boots.text_variable(host, "LoaderImageIdentifier") or "").replace("\\", "/").lower()
        for one in found:
            one["default"] = bool(name) and bool(one["image"]) and one["image"].lower().endswith(name)
        problems = [reason for reason in problems if "by default" not in reason]
        if not any(one["default"] for one in found):
            problems.append("what boots by default cannot be told: the firmware starts the image")
    for item in items:
        if item["error"] and item["id"].endswith(".efi") and _named_as_ours(host, item):
            problems.append(item["error"])
    if maker(host)[0] == "kernel-install":
        problems += menu.missing_kernels(host, found, "EFI/Linux")
    return make_view(found, problems)


def hindrances(host, edits, wanted):
    """An image for a kernel that has none is kernel-install's to make, and each keeps what its line is made of."""
    reasons = []
    if maker(host)[0] == "kernel-install":
        reasons = menu.missing_kernels(host, view(host)["entries"], "EFI/Linux")
        reasons = ["%s: mend that first (kernel-install add)" % reason for reason in reasons]
    if _dictated(host):
        found = stuck(" and ".join(_sources(host)), configured(host)[0])
    else:
        items = managed_items(host, menu.read_entries(host))
        found = [reason for item in items for reason in stuck(item["path"], menu.line_of(item), menu.CMDLINE)]
    return reasons + ["%s: mend that first" % reason for reason in found]


def _named_as_ours(host, item):
    presets = [host.real(image) for dummy, dummy2, image in preset_images(host)]
    return host.real(item["path"]) in presets or any(
        item["stem"].lower().startswith(token.lower() + "-") for token in menu.entry_tokens(host))


# -- the interface: entries of our own -----------------------------------------------------


def fallback(host, owned):
    items = menu.read_entries(host)
    wanted = {}
    automatic = maker(host)[0] == "kernel-install"
    managed = managed_items(host, items)
    possible = owned is not None and bool(managed) and fallback_unavailable(host) is None
    if possible:
        for item in managed if automatic else [_first(host, items, managed)]:
            if _counted(item):
                continue
            version = menu.kernel_of(host, item)
            name = version if automatic else item["stem"]
            path = "%s/loader/entries/%s%s-%s.conf" % (item["root"].rstrip("/"), menu.LAST, FALLBACK_ID, name)
            wanted[path] = menu.fallback_text(
                entries.first(item["fields"], "title") or "Linux %s" % version, version or name,
                [("efi", item["path"][len(item["root"].rstrip("/")):])], menu.off_line(menu.line_of(item), owned),
            )  # fmt: skip
    # Also for what gets its entry later, when its boots are no longer counted.
    made = [] if owned is None or _direct(host) or boots.secure_boot(host) else shelter(host, owned)
    return made + menu.own_edits(host, items, FALLBACK_ID, wanted) + menu.plugin_edits(
        host, menu.PLUGIN_TEXT if possible and automatic else None)


def shelter(host, owned):
    """As :func:`menu.shelter`; mkinitcpio takes the running line too."""
    items = menu.read_entries(host)
    managed = managed_items(host, items)
    if not managed or _sources(host):
        return []
    return menu.new_cmdline(host, _base(host, items, managed, owned))


def _counted(item):
    """Whether the name of an image has a counter in it, and so will not stay."""
    return item["left"] is not None


def fallback_gaps(host):
    """What has no fallback entry for now."""
    if _direct(host) or boots.secure_boot(host):
        return []
    try:
        items = menu.read_entries(host)
    except HostError:
        return []  # the view says it
    return [
        "there is no fallback entry for %s (%s) yet: its boots are counted (/etc/kernel/tries), and systemd-boot gives it "
        "another name when it starts it. Once it has booted well, run it again" % (item["path"], menu.kernel_of(host, item))
        for item in managed_items(host, items) if _counted(item)
    ]


def fallback_unavailable(host):
    """Why there is no fallback entry, and what is there instead. None where there is one."""
    if _direct(host):
        return (
            "the firmware starts the image, so there is no boot menu and no fallback entry in it: start another system "
            "by the firmware's own menu (a medium for rescue), or install systemd-boot"
        )
    if boots.secure_boot(host):
        return (
            "Secure Boot is on, and an image takes no command line but its own then, so there is no fallback entry: turn "
            "it off in the firmware's setup, press e in the boot menu and add %s" % OFF
        )
    gaps = fallback_gaps(host)
    if gaps and len(gaps) == len(managed_items(host, menu.read_entries(host))):
        return "; ".join(gaps) + ". Until then press e in the boot menu and add %s" % OFF
    return None


def trial_obstacles(host):
    if _direct(host):
        return ["the firmware starts the image, so there is no boot loader that could start another one once"]
    reasons = menu.one_shot_obstacles(host)
    if boots.secure_boot(host):
        reasons.append("Secure Boot is on, and the trial would have to be an image signed as the others are")
    try:
        items = menu.read_entries(host)
        default = menu.default_item(host, items)
        if default is None or not any(default is item for item in managed_items(host, items)):
            reasons.append("the default entry is none that this backend cares for")
        elif menu.kernel_of(host, default) not in menu.installed_kernels(host):
            reasons.append("the kernel %s of the default entry is not installed" % menu.kernel_of(host, default))
    except HostError as exc:
        reasons.append(str(exc))
    return reasons


def _trial_file(item, name):
    return item["root"].rstrip("/") + "/" + name


def trial(host, kernel, image, line):
    items = menu.read_entries(host)
    if kernel is None:
        return menu.own_edits(host, items, TRIAL_ID, {})
    item = _template(host, items, kernel)
    rows = [("linux", "/" + menu.TRIAL_KERNEL), ("initrd", "/" + menu.TRIAL_IMAGE)]
    title = entries.first(item["fields"], "title") or "Linux %s" % kernel
    return menu.own_edits(host, items, TRIAL_ID, {
        menu.trial_path(item["root"]): menu.trial_text(title, kernel, rows, line)})


def trial_binary(host, kernel, image, line, check=False):
    """Kernel and initramfs of the trial on the EFI partition."""
    wanted = {}
    if kernel is not None:
        item = _template(host, menu.read_entries(host), kernel)
        wanted[_trial_file(item, menu.TRIAL_KERNEL)] = menu.installed_kernels(host)[kernel]
        wanted[_trial_file(item, menu.TRIAL_IMAGE)] = image
    return menu.put_binaries(host, wanted, check)


def _template(host, items, kernel):
    default = menu.default_item(host, items)
    managed = managed_items(host, items)
    for item in [one for one in managed if one is default] + managed:
        if menu.kernel_of(host, item) == kernel and kernel in menu.installed_kernels(host):
            return item
    raise HostError("no ordinary entry starts the kernel %s, or it is not installed" % kernel)


once = menu.once
set_once = menu.set_once
