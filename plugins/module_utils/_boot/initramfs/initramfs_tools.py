# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""initramfs-tools (Debian, Ubuntu): our two files, how an image is built, what an image must hold."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import modules, publish, script

NAME = "initramfs-tools"

HOOK = "/etc/initramfs-tools/hooks/vfio-host"
SCRIPT = "/etc/initramfs-tools/scripts/init-top/00-vfio-host"
"""Scripts without prerequisites run in the order of their names, and only ``tsort`` knows more:
a script can ask to run after another, never before. The digits put ours before ``udev``; what
came of it is read from ORDER in each image."""

UPDATE = "/usr/sbin/update-initramfs"
CONFIGURATION = "/etc/initramfs-tools/update-initramfs.conf"

IN_IMAGE_SCRIPT = "scripts/init-top/00-vfio-host"
IN_IMAGE_ORDER = "scripts/init-top/ORDER"
IN_IMAGE_UDEV = "scripts/init-top/udev"
IN_IMAGE_DEVICES = asked.DEVICES.lstrip("/")

STATE = "/var/lib/initramfs-tools/"
"""Where older releases note the checksum of each image; update-initramfs then touches none that was altered."""

FOLDERS = ()
HOOK_TEXT = r"""#!/bin/sh
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Puts the list of assigned PCI functions and the VFIO modules into the image.

PREREQ=""
prereqs()
{
    echo "$PREREQ"
}
case "$1" in
prereqs)
    prereqs
    exit 0
    ;;
esac

list=${VFIO_HOST_DEVICES:-/etc/vfio-host/devices}
[ -f "$list" ] || exit 0

# shellcheck disable=SC1091
. /usr/share/initramfs-tools/hook-functions

mkdir -p "$DESTDIR/etc/vfio-host" || exit 1
cp "$list" "$DESTDIR/etc/vfio-host/devices" || exit 1
chmod 644 "$DESTDIR/etc/vfio-host/devices" || exit 1

manual_add_modules vfio_pci vfio vfio_iommu_type1
# a module of its own up to Linux 6.1
if modinfo -k "${version:?}" vfio_virqfd >/dev/null 2>&1; then
    manual_add_modules vfio_virqfd
fi

serials=
while read -r address _ _ _ _ serial driver _; do
    case $address in
    '' | '#'*) continue ;;
    esac
    case $serial in
    ??-*) serials=yes ;;
    esac
    case $driver in
    *[!a-z0-9_-]* | vfio-pci) ;;
    *[_-]vfio[_-]pci)
        # a variant that this kernel does not have: its devices stay with the host
        if modinfo -k "${version:?}" "$driver" >/dev/null 2>&1; then
            manual_add_modules "$driver"
        fi
        ;;
    esac
done <"$list"

# The script reads serial numbers with od; an image without busybox has none.
if [ -n "$serials" ] && [ -x /usr/bin/od ]; then
    copy_exec /usr/bin/od /usr/bin
fi
exit 0
"""


# -- pure ----------------------------------------------------------------------------------


def files():
    """``[(path, text, mode)]`` of ours on the host."""
    return [(HOOK, HOOK_TEXT, 0o755), (SCRIPT, script.TEXT, 0o755)]


def wanted_paths():
    """Files of an image whose contents are compared."""
    return frozenset((IN_IMAGE_SCRIPT, IN_IMAGE_ORDER, IN_IMAGE_DEVICES))


def order(text):
    """Names of the scripts that an ORDER file runs, in order (lines ``/scripts/init-top/NAME "$@"``)."""
    return re.findall(r"^/scripts/[\w.-]+/(\S+)", text.decode("utf-8", "backslashreplace"), re.M)


def problems(image, devices, builtin=None):
    """How an image differs from what is wanted: sentences, empty when it is right.

    ``devices`` is the bytes of the list, or None when nothing is assigned: then there only must be no list.
    ``builtin``: modules that the kernel needs no file for; None leaves the modules to the caller.
    """
    if devices is None:
        return ["its /%s is not the one of the host" % IN_IMAGE_DEVICES] if IN_IMAGE_DEVICES in image.names else []
    found = []
    if IN_IMAGE_SCRIPT not in image.names:
        found.append("our script is not in it")
    elif image.files.get(IN_IMAGE_SCRIPT) != script.TEXT.encode("utf-8"):
        found.append("its %s is an older one or damaged" % IN_IMAGE_SCRIPT)
    scripts = order(image.files.get(IN_IMAGE_ORDER, b""))
    ours = IN_IMAGE_SCRIPT.rsplit("/", 1)[1]
    if ours not in scripts:
        found.append("%s does not run our script" % IN_IMAGE_ORDER)
    elif "udev" in scripts and scripts.index("udev") < scripts.index(ours):
        found.append("%s runs udev before our script" % IN_IMAGE_ORDER)
    elif "udev" not in scripts:
        found.append("%s does not run udev, so it is not known when drivers are loaded" % IN_IMAGE_ORDER)
    if image.files.get(IN_IMAGE_DEVICES) != devices:
        found.append("its /%s is not the one of the host" % IN_IMAGE_DEVICES)
    return found + modules.lacking(image, builtin)


def gone(image):
    """What of ours is still in an image."""
    return ["%s is still in it" % name for name in (IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES) if name in image.names]


# -- with a host ---------------------------------------------------------------------------


def unusable(host):
    """Dracut and others bring an ``update-initramfs`` of their own: the real one runs ``mkinitramfs``."""
    text = host.read(UPDATE)
    if text is None:
        return ["no %s" % UPDATE]
    if "mkinitramfs" not in text:
        return ["%s does not run mkinitramfs, so it is another generator's" % UPDATE]
    if not host.exists("/usr/share/initramfs-tools/init"):
        return ["no /usr/share/initramfs-tools/init"]
    return []


def evidence(host):
    """``(found, against)``: what speaks for this generator and what rules it out."""
    against = unusable(host)
    return ([] if against else [UPDATE]), against


def images(host):
    """``([{kernel, path, options}], [versions without an image])`` of the installed kernels."""
    found = []
    without = []
    names = host.listdir("/boot")
    for name in names:
        version = name[len("vmlinuz-"):]
        if not name.startswith("vmlinuz-") or not version or not host.isdir("/lib/modules/" + version):
            continue
        if "initrd.img-" + version in names:
            found.append({"kernel": version, "path": "/boot/initrd.img-" + version, "options": ()})
        else:
            without.append(version)
    return found, without


def refusals(host):
    """Why images would not stay right although we build them."""
    if re.search(r"^\s*update_initramfs=[\"']?no\b", host.read(CONFIGURATION) or "", re.M):
        return ["update_initramfs=no in %s" % CONFIGURATION]
    return []


builtin_modules = modules.builtin


def build(host, version, path, timeout, devices=None, options=()):
    """Build an image of one kernel at ``path``. ``devices``: path of another list. Returns what the tool said."""
    env = {asked.VARIABLE: devices} if devices else None
    result = host.run(["mkinitramfs"] + list(options) + ["-o", path, version], timeout=timeout, env=env)
    return (result.stdout + result.stderr).strip()[-2000:]


def published(host, version, path, timeout, without=()):
    """What update-initramfs does after it put an image in place."""
    if host.exists(STATE + version):
        host.write(STATE + version, host.run(["sha1sum", path], timeout=timeout).stdout)
    publish.run(host, version, path, timeout, without)
