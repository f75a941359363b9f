# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""mkinitcpio (Arch): a hook of ours, for images that start busybox and for those that start systemd, and a drop-in."""

from __future__ import annotations

import re
import shlex

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import modules, publish, script
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "mkinitcpio"

INSTALL = "/etc/initcpio/install/vfio-host"
HOOK = "/etc/initcpio/hooks/vfio-host"
FOLDER = "/etc/initcpio/vfio-host"
CONFIGURATION = "/etc/mkinitcpio.conf.d/90-vfio-host.conf"
FOLDERS = (FOLDER,)
PRESETS = "/etc/mkinitcpio.d"

IN_IMAGE_SCRIPT = "usr/lib/vfio-host/bind"
IN_IMAGE_DEVICES = asked.DEVICES.lstrip("/")
IN_IMAGE_HOOK = "hooks/vfio-host"
IN_IMAGE_CONFIG = "config"
IN_IMAGE_UNIT = "usr/lib/systemd/system/vfio-host.service"
IN_IMAGE_WANT = "usr/lib/systemd/system/sysinit.target.wants/vfio-host.service"
IN_IMAGE_BACK = "usr/lib/vfio-host/back"
IN_IMAGE_BACK_UNIT = "usr/lib/systemd/system/vfio-host-back.service"
IN_IMAGE_BACK_WANT = "usr/lib/systemd/system/emergency.target.wants/vfio-host-back.service"
SYSTEMD = "usr/lib/systemd/systemd"
TOOLS = ("sh", "modprobe", "readlink", "sleep")

CONFIGURATION_TEXT = """\
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# First, since early hooks run in this order and udev has to come later.
HOOKS=(vfio-host "${HOOKS[@]}")
"""

UNIT_TEXT = """\
[Unit]
Description=Give assigned PCI functions to vfio-pci
DefaultDependencies=no
ConditionPathExists=/etc/vfio-host/devices
Before=systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/bin/sh /usr/lib/vfio-host/bind
TimeoutStartSec=180
StandardInput=null
"""

BACK_TEXT = r"""#!/bin/sh
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Run where a shell would be opened since the root file system is not found. In a trial boot nobody is there for it:
# the machine reboots after the seconds of panic=, and the boot loader starts the old entry.

line=
{ read -r line </proc/cmdline; } 2>/dev/null || :
trial=
seconds=
set -f
for word in $line; do
    case $word in
    --) break ;;
    vfio_host=trial) trial=yes ;;
    panic=-*) seconds=0 ;;
    panic=*)
        seconds=${word#panic=}
        # as for the kernel, 0 is never
        [ "$seconds" != 0 ] || seconds=
        ;;
    esac
done
case $trial:$seconds in
yes: | :* | *[!a-z0-9:]* | yes:*[!0-9]*) exit 0 ;;
esac
{ echo "vfio-host: the trial boot does not come up, rebooting in $seconds s" >/dev/kmsg; } 2>/dev/null || :
sleep "$seconds"
sync
reboot -f || :
echo b >/proc/sysrq-trigger
"""
"""mkinitcpio's init, and its systemd, open a shell where others heed ``panic=`` or ``rd.emergency=``."""

BACK_UNIT_TEXT = """\
[Unit]
Description=Back to the ordinary boot entry: the trial boot does not come up
DefaultDependencies=no
ConditionKernelCommandLine=vfio_host=trial
IgnoreOnIsolate=yes
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=-/bin/sh /usr/lib/vfio-host/back
TimeoutStartSec=infinity
StandardInput=null
"""

INSTALL_TEXT = r"""#!/bin/bash
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Puts the list of assigned PCI functions, the script that binds them and the VFIO modules into the image.
# shellcheck disable=SC2154  # BUILDROOT and KERNELVERSION are mkinitcpio's

build() {
    local list=${VFIO_HOST_DEVICES:-/etc/vfio-host/devices}
    local address driver

    # another list is for the image of a trial boot, which has to come back without one too
    [[ -f $list || ${VFIO_HOST_DEVICES-} ]] || return 0
    # What runs it all: busybox's init the hook, systemd the units.
    add_runscript
    add_file /etc/initcpio/vfio-host/back /usr/lib/vfio-host/back 755
    add_file /etc/initcpio/vfio-host/vfio-host-back.service /usr/lib/systemd/system/vfio-host-back.service 644
    add_dir /usr/lib/systemd/system/emergency.target.wants
    add_symlink /usr/lib/systemd/system/emergency.target.wants/vfio-host-back.service ../vfio-host-back.service

    [[ -f $list ]] || return 0
    add_file "$list" /etc/vfio-host/devices 644
    add_file /etc/initcpio/vfio-host/bind /usr/lib/vfio-host/bind 755

    # each of them may be built in, or, as vfio_virqfd, a part of another one
    map add_module 'vfio_pci?' 'vfio?' 'vfio_iommu_type1?' 'vfio_virqfd?'
    while read -r address _ _ _ _ _ driver _; do
        [[ $address && $address != '#'* ]] || continue
        [[ $driver =~ ^[a-z0-9][a-z0-9_-]*[_-]vfio[_-]pci$ ]] || continue
        # a variant that this kernel does not have: its devices stay with the host
        add_module "${driver}?"
    done < "$list"

    add_file /etc/initcpio/vfio-host/vfio-host.service /usr/lib/systemd/system/vfio-host.service 644
    add_dir /usr/lib/systemd/system/sysinit.target.wants
    add_symlink /usr/lib/systemd/system/sysinit.target.wants/vfio-host.service ../vfio-host.service
}

help() {
    cat << END
Gives the PCI functions in /etc/vfio-host/devices to vfio-pci before udev loads drivers.
END
}
"""

HOOK_TEXT = r"""#!/usr/bin/ash
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.

run_earlyhook() {
    [ ! -e /usr/lib/vfio-host/bind ] || /bin/sh /usr/lib/vfio-host/bind </dev/null || :
}

run_emergencyhook() {
    /bin/sh /usr/lib/vfio-host/back </dev/null || :
}
"""


# -- pure ----------------------------------------------------------------------------------


def files():
    """``[(path, text, mode)]`` of ours on the host; the drop-in last, since it names what must be there."""
    return [
        (FOLDER + "/bind", script.TEXT, 0o755),
        (FOLDER + "/vfio-host.service", UNIT_TEXT, 0o644),
        (FOLDER + "/back", BACK_TEXT, 0o755),
        (FOLDER + "/vfio-host-back.service", BACK_UNIT_TEXT, 0o644),
        (HOOK, HOOK_TEXT, 0o644),
        (INSTALL, INSTALL_TEXT, 0o644),
        (CONFIGURATION, CONFIGURATION_TEXT, 0o644),
    ]


def wanted_paths():
    """Files of an image whose contents are compared."""
    return frozenset((
        IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES, IN_IMAGE_HOOK, IN_IMAGE_CONFIG, IN_IMAGE_UNIT, IN_IMAGE_BACK, IN_IMAGE_BACK_UNIT,
    ))  # fmt: skip


def early_hooks(text, name="EARLYHOOKS"):
    """The hooks that ``/config`` in an image has run first, in order; or those of another of its variables."""
    match = re.search(r"^%s=(.*)$" % name, text.decode("utf-8", "backslashreplace"), re.M)
    return match.group(1).strip().strip("\"'").split() if match else []


def problems(image, devices, builtin=None):
    """How an image differs from what is wanted: sentences, empty when it is right."""
    if devices is None:
        return ["its /%s is not the one of the host" % IN_IMAGE_DEVICES] if IN_IMAGE_DEVICES in image.names else []
    found = []
    if IN_IMAGE_SCRIPT not in image.names:
        found.append("our script is not in it")
    elif image.files.get(IN_IMAGE_SCRIPT) != script.TEXT.encode("utf-8"):
        found.append("its %s is an older one or damaged" % IN_IMAGE_SCRIPT)
    if image.files.get(IN_IMAGE_BACK) != BACK_TEXT.encode("utf-8"):
        found.append("its %s is missing, an older one or damaged" % IN_IMAGE_BACK)
    if SYSTEMD in image.names:
        if image.files.get(IN_IMAGE_UNIT) != UNIT_TEXT.encode("utf-8") or IN_IMAGE_WANT not in image.names:
            found.append("systemd in it does not start vfio-host.service")
        if image.files.get(IN_IMAGE_BACK_UNIT) != BACK_UNIT_TEXT.encode("utf-8") or IN_IMAGE_BACK_WANT not in image.names:
            found.append("systemd in it does not start vfio-host-back.service in an emergency")
    else:
        if image.files.get(IN_IMAGE_HOOK) != HOOK_TEXT.encode("utf-8"):
            found.append("its %s is missing, an older one or damaged" % IN_IMAGE_HOOK)
        early = early_hooks(image.files.get(IN_IMAGE_CONFIG, b""))
        if "vfio-host" not in early:
            found.append("it does not run our hook early")
        elif "udev" in early and early.index("udev") < early.index("vfio-host"):
            found.append("it runs udev before our hook")
        if "vfio-host" not in early_hooks(image.files.get(IN_IMAGE_CONFIG, b""), "EMERGENCYHOOKS"):
            found.append("it does not run our hook in an emergency")
    if image.files.get(IN_IMAGE_DEVICES) != devices:
        found.append("its /%s is not the one of the host" % IN_IMAGE_DEVICES)
    lacking = modules.lacking_tools(image, TOOLS)
    return found + [sentence + " (the hook base brings it)" for sentence in lacking] + modules.lacking(image, builtin)


def gone(image):
    """What of ours is still in an image."""
    ours = (IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES, IN_IMAGE_HOOK, IN_IMAGE_UNIT, IN_IMAGE_BACK, IN_IMAGE_BACK_UNIT)
    return ["%s is still in it" % name for name in ours if name in image.names]


def assignments(path, text):
    """``{name: [words]}`` of a preset, which is a shell file. Raises HostError for what only a shell can tell."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        words = list(lexer)
    except ValueError as exc:
        raise HostError("%s cannot be understood: %s" % (path, exc)) from exc
    found = {}
    at = 0
    while at < len(words):
        match = re.match(r"(\w+)=(.*)\Z", words[at], re.S)
        at += 1
        if not match or re.search(r"[$`;&|<>\\]", match.group(2)):
            raise HostError(
                "%s cannot be understood at %r: expected are assignments of plain words, as mkinitcpio's own presets "
                "have" % (path, words[at - 1])
            )
        name, value = match.groups()
        if value or at >= len(words) or not words[at].startswith("("):
            found[name] = [value] if value else []
            continue
        found[name] = []
        if words[at] == "()":
            at += 1
            continue
        at += 1
        while at < len(words) and words[at] != ")":
            found[name].append(words[at])
            at += 1
        at += 1
    return found


# -- with a host ---------------------------------------------------------------------------


def unusable(host):
    return [] if host.which("mkinitcpio") else ["no command mkinitcpio"]


def evidence(host):
    """``(found, against)``: mkinitcpio counts where it has presets, since these build the images of new kernels."""
    against = unusable(host)
    if against:
        return [], against
    said = re.search(r"^\s*initrd_generator\s*=\s*(\S+)", host.read("/etc/kernel/install.conf") or "", re.M)
    if said and said.group(1) != "mkinitcpio":
        return [], ["initrd_generator=%s in /etc/kernel/install.conf" % said.group(1)]
    found = ["%s/%s" % (PRESETS, name) for name in host.listdir(PRESETS) if name.endswith(".preset")]
    if not found:
        return [], ["no preset in %s" % PRESETS]
    return found, []


def _presets(host):
    """``[(path of the preset, name in it, its settings)]``."""
    found = []
    for file_name in host.listdir(PRESETS):
        if not file_name.endswith(".preset"):
            continue
        path = "%s/%s" % (PRESETS, file_name)
        text = host.read(path)
        if text is None:
            raise HostError("%s cannot be read" % path)
        known = assignments(path, text)
        for name in known.get("PRESETS", []):
            setting = {}
            for key in ("kver", "config", "image", "uki", "efi_image", "options"):
                setting[key] = known.get("%s_%s" % (name, key)) or known.get("ALL_" + key) or []
            found.append((path, name, setting))
    return found


def _version(host, kernel):
    """Version of a kernel that a preset names by path or by version; None when it is not there."""
    if host.isdir("/lib/modules/" + kernel.strip("/")) and "/" not in kernel:
        return kernel
    base = kernel.rsplit("/", 1)[-1]
    for version in host.listdir("/lib/modules"):
        package = (host.read("/lib/modules/%s/pkgbase" % version) or "").strip()
        if package and base == "vmlinuz-" + package and host.exists("/lib/modules/%s/vmlinuz" % version):
            return version
        if base == "vmlinuz-" + version:
            return version
    return None


def images(host):
    """``([{kernel, path, options}], [versions without an image])`` of the installed kernels.

    A preset that only makes a UKI is the boot loader's: its image is checked where it is carried.
    """
    found = []
    seen = set()
    for path, name, setting in _presets(host):
        if not setting["image"]:
            continue
        kernel = (setting["kver"] or [""])[0]
        version = _version(host, kernel)
        if version is None:
            raise HostError("%s: the kernel %r of %s is not installed: remove the preset or install it" % (
                path, kernel, name))
        options = setting["options"]
        if len(options) == 1:  # a string of options, which mkinitcpio splits
            options = options[0].split()
        seen.add(version)
        if host.exists(setting["image"][0]):
            found.append({"kernel": version, "path": setting["image"][0], "options": tuple(options)})
    without = [
        version for version in host.listdir("/lib/modules")
        if host.exists("/lib/modules/%s/vmlinuz" % version)
        and version not in {image["kernel"] for image in found}
    ]
    return found, without


def refusals(host):
    """Why images would not stay right although we build them: drop-ins are not read where a configuration is named."""
    found = []
    for path, name, setting in _presets(host):
        if setting["config"]:
            found.append(
                "%s names the configuration %s for %s, so mkinitcpio reads no drop-in: comment it out "
                "or put HOOKS of %s into it" % (path, setting["config"][0], name, CONFIGURATION)
            )
    if not _reads_drop_ins(host):
        found.append("this mkinitcpio reads no drop-ins (%s): 37 or newer is needed" % CONFIGURATION)
    return found


def _reads_drop_ins(host):
    """Whether its own text speaks of the folder; it is a shell script."""
    command = host.which("mkinitcpio")
    text = host.read(command) if command else None
    return text is None or "_d_config" in text


builtin_modules = modules.builtin


def build(host, version, path, timeout, devices=None, options=()):
    """Build an image of one kernel at ``path``. ``devices``: path of another list. Returns what the tool said.

    It ends with 1 when the image may not be complete, which is a failure here too.
    """
    argv = ["mkinitcpio", "--nocolor", "-k", version, "-g", path] + list(options)
    if "--nopost" in (host.read(host.which("mkinitcpio") or "/usr/bin/mkinitcpio") or ""):
        argv.append("--nopost")  # hooks for finished images; this one has its name only later
    result = host.run(argv, timeout=timeout, env={asked.VARIABLE: devices} if devices else None)
    return (result.stdout + result.stderr).strip()[-2000:]


def published(host, version, path, timeout, without=()):
    publish.run(host, version, path, timeout, without)
