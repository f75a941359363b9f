# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""initramfs-tools (Debian, Ubuntu): our two files, how an image is built, what an image must hold.

The interface of a generator: ``NAME``, ``evidence(host)``, ``refusals(host)``, ``files()``,
``images(host)``, ``builtin_modules(host, version)``, ``wanted_paths()``, ``problems(image, devices,
builtin)``, ``gone(image)`` and ``build(host, version, timeout)``.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

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
MODULES = ("vfio_pci", "vfio", "vfio_iommu_type1")

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

[ -f /etc/vfio-host/devices ] || exit 0

# shellcheck disable=SC1091
. /usr/share/initramfs-tools/hook-functions

mkdir -p "$DESTDIR/etc/vfio-host" || exit 1
cp /etc/vfio-host/devices "$DESTDIR/etc/vfio-host/devices" || exit 1

manual_add_modules vfio_pci vfio vfio_iommu_type1
# a module of its own up to Linux 6.1
if modinfo -k "${version:?}" vfio_virqfd >/dev/null 2>&1; then
    manual_add_modules vfio_virqfd
fi

# The script reads serial numbers with od; an image without busybox has none.
if grep -q '^[^#].* [0-9a-f][0-9a-f]-[0-9a-f].* vfio-pci$' /etc/vfio-host/devices && [ -x /usr/bin/od ]; then
    copy_exec /usr/bin/od /usr/bin
fi
exit 0
"""

SCRIPT_TEXT = r"""#!/bin/sh
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Gives the PCI functions in /etc/vfio-host/devices to vfio-pci before udev loads any driver, each
# one only if it still is what was asked; says in the kernel log what it did and why.
# It never fails the boot. vfio_host=off on the kernel command line leaves everything to the host.

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

list=/etc/vfio-host/devices
pci=/sys/bus/pci

log()
{
    { echo "vfio-host: $*" >/dev/kmsg; } 2>/dev/null
}

# put VALUE FILE: a write to sysfs
put()
{
    { echo "$1" >"$2"; } 2>/dev/null
}

# attribute FILE: sets $got to its first word without 0x, or to nothing
attribute()
{
    got=
    { read -r got <"$1"; } 2>/dev/null
    got=${got#0x}
}

# bounded COMMAND...: waits about twenty seconds for it at most, since a driver can block for ever
bounded()
{
    "$@" &
    pid=$!
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        [ "$tries" -ge 200 ] && return 1
        if sleep 0.1 2>/dev/null; then
            tries=$((tries + 1))
        else
            sleep 1
            tries=$((tries + 10))
        fi
    done
    return 0
}

# register FILE OFFSET: sets $got to 32 bits of configuration space in hex, or to nothing
register()
{
    got=$(od -A n -t x4 -j "$2" -N 4 "$1" 2>/dev/null)
    got=${got# }
    case $got in
    [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) ;;
    *) got= ;;
    esac
}

# serial FILE: sets $number to the device serial number, or to nothing
serial()
{
    number=
    at=256
    hops=0
    while [ "$at" -ge 256 ] && [ "$hops" -lt 64 ]; do
        hops=$((hops + 1))
        register "$1" "$at"
        case $got in
        '' | 00000000 | ffffffff) return ;;
        ????0003) break ;;
        esac
        at=$(((0x$got >> 20) & 0xffc))
    done
    case $got in
    ????0003) ;;
    *) return ;;
    esac
    register "$1" $((at + 8))
    left=$got
    register "$1" $((at + 4))
    [ -n "$left" ] && [ -n "$got" ] || return
    left=$left$got
    while [ -n "$left" ]; do
        rest=${left#??}
        number=${number:+$number-}${left%"$rest"}
        left=$rest
    done
}

# bound ADDRESS: sets $got to the name of its driver, or to nothing
bound()
{
    got=$(readlink "$pci/devices/$1/driver" 2>/dev/null)
    got=${got##*/}
}

# examine ADDRESS VENDOR DEVICE SUBVENDOR SUBDEVICE SERIAL: sets $why when it has to be left alone
examine()
{
    why=
    here=$pci/devices/$1
    if [ ! -d "$here" ]; then
        why="is not there"
        return
    fi
    attribute "$here/vendor"
    now=$got
    attribute "$here/device"
    now=$now:$got
    if [ "$now" != "$2:$3" ]; then
        why="is $now, asked $2:$3"
        return
    fi
    attribute "$here/subsystem_vendor"
    now=$got
    attribute "$here/subsystem_device"
    now=$now:$got
    if [ "$now" != "$4:$5" ]; then
        why="is subsystem $now, asked $4:$5"
        return
    fi
    attribute "$here/class"
    case $got in
    '')
        why="its class cannot be read"
        return
        ;;
    06*)
        why="is a bridge"
        return
        ;;
    esac
    if [ "$6" != - ]; then
        serial "$here/config"
        if [ "$number" != "$6" ]; then
            why="has serial number ${number:-that cannot be read}, asked $6"
            return
        fi
    fi
    if [ ! -e "$here/iommu_group" ]; then
        why="has no IOMMU group (is the IOMMU off?)"
    fi
}

# take ADDRESS: binds it to vfio-pci; sets $why when that did not work
take()
{
    here=$pci/devices/$1
    bound "$1"
    [ "$got" = vfio-pci ] && return
    if ! put vfio-pci "$here/driver_override"; then
        why="its driver_override cannot be written"
        return
    fi
    if [ -n "$got" ]; then
        was=$got
        if ! bounded put "$1" "$here/driver/unbind"; then
            why="$was does not let go of it"
            put "" "$here/driver_override"
            return
        fi
    fi
    bounded put "$1" "$pci/drivers_probe"
    bound "$1"
    [ "$got" = vfio-pci ] && return
    why="vfio-pci did not take it"
    put "" "$here/driver_override"
    bounded put "$1" "$pci/drivers_probe"
}

[ -r "$list" ] || exit 0
{ read -r cmdline </proc/cmdline; } 2>/dev/null
case " $cmdline " in
*" vfio_host=off "*)
    log "off on the kernel command line, everything is left to the host"
    exit 0
    ;;
esac

ready=
while read -r address vendor device subvendor subdevice number_asked driver rest; do
    case $address in
    '' | '#'*)
        continue
        ;;
    *[!0-9a-f:.]* | *..*)
        log "a line of $list is damaged: $address"
        continue
        ;;
    esac
    if [ "$driver" != vfio-pci ] || [ -n "$rest" ]; then
        log "$address left to the host: its line in $list is damaged"
        continue
    fi
    examine "$address" "$vendor" "$device" "$subvendor" "$subdevice" "$number_asked"
    if [ -z "$why" ] && [ -z "$ready" ]; then
        ready=yes
        [ -d "$pci/drivers/vfio-pci" ] || bounded modprobe -q vfio-pci
        # Nothing later loads what a guest's memory is mapped with: the kernel only hints at it.
        [ -d /sys/module/vfio_iommu_type1 ] || bounded modprobe -q vfio_iommu_type1
    fi
    if [ -z "$why" ] && [ ! -d "$pci/drivers/vfio-pci" ]; then
        why="vfio-pci cannot be loaded"
    fi
    [ -z "$why" ] && take "$address"
    if [ -z "$why" ]; then
        log "$address taken"
    else
        log "$address left to the host: $why"
    fi
done <"$list"
exit 0
"""


# -- pure ----------------------------------------------------------------------------------


def files():
    """``[(path, text, mode)]`` of ours on the host."""
    return [(HOOK, HOOK_TEXT, 0o755), (SCRIPT, SCRIPT_TEXT, 0o755)]


def wanted_paths():
    """Files of an image whose contents are compared."""
    return frozenset((IN_IMAGE_SCRIPT, IN_IMAGE_ORDER, IN_IMAGE_DEVICES))


def order(text):
    """Names of the scripts that an ORDER file runs, in order (lines ``/scripts/init-top/NAME "$@"``)."""
    return re.findall(r"^/scripts/[\w.-]+/(\S+)", text.decode("utf-8", "backslashreplace"), re.M)


def problems(image, devices, builtin):
    """How an image differs from what is wanted: sentences, empty when it is right.

    ``devices`` is the bytes of the list, or None when nothing is assigned; ``builtin`` the names
    of modules (with ``_``) that the kernel needs no file for.
    """
    found = []
    if IN_IMAGE_SCRIPT not in image.names:
        found.append("our script is not in it")
    elif image.files.get(IN_IMAGE_SCRIPT) != SCRIPT_TEXT.encode("utf-8"):
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
    if devices is not None:
        there = builtin | {_module(name) for name in image.names if ".ko" in name}
        for module in MODULES:
            if module not in there:
                found.append("the module %s is not in it" % module)
    return found


def _module(path):
    """Name of a module as the kernel says it: ``kernel/drivers/vfio/pci/vfio-pci.ko.xz`` is ``vfio_pci``."""
    return re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")


def gone(image):
    """What of ours is still in an image."""
    return ["%s is still in it" % name for name in (IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES) if name in image.names]


# -- with a host ---------------------------------------------------------------------------


def evidence(host):
    """``(found, against)``: what speaks for this generator and what rules it out.

    Dracut and others bring an ``update-initramfs`` of their own: the real one runs ``mkinitramfs``.
    """
    text = host.read(UPDATE)
    if text is None:
        return [], ["no %s" % UPDATE]
    if "mkinitramfs" not in text:
        return [], ["%s does not run mkinitramfs, so it is another generator's" % UPDATE]
    if not host.exists("/usr/share/initramfs-tools/init"):
        return [], ["no /usr/share/initramfs-tools/init"]
    return [UPDATE], []


def images(host):
    """``({version: image path}, [versions without an image])`` of the installed kernels."""
    found = {}
    without = []
    names = host.listdir("/boot")
    for name in names:
        version = name[len("vmlinuz-"):]
        if not name.startswith("vmlinuz-") or not version or not host.isdir("/lib/modules/" + version):
            continue
        if "initrd.img-" + version in names:
            found[version] = "/boot/initrd.img-" + version
        else:
            without.append(version)
    return found, without


def builtin_modules(host, version):
    text = host.read("/lib/modules/%s/modules.builtin" % version) or ""
    return {_module(line) for line in text.splitlines()}


def refusals(host):
    """Why no image would be built although the tool ends with success."""
    if re.search(r"^\s*update_initramfs=[\"']?no\b", host.read(CONFIGURATION) or "", re.M):
        return ["update_initramfs=no in %s" % CONFIGURATION]
    return []


def build(host, version, timeout):
    """Build one image. The old one stays until the new one is complete. Returns what the tool said."""
    try:
        result = host.run(["update-initramfs", "-u", "-k", version], timeout=timeout)
    except HostError:
        host.remove("/boot/initrd.img-%s.new" % version)
        raise
    return (result.stdout + result.stderr).strip()[-2000:]
