# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What makes the parts again at each boot, and after the driver of a function was loaded anew.

As with virtual functions (_sriov/persistence.py): a unit for each function runs one POSIX script, pulled in at boot and
started by udev. The kernel tells of a function that offers mediated devices with a change event (MDEV_STATE); vGPU
types are there when the driver has bound a function. Virtual functions are made first: the unit waits for theirs.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import script as at_boot
from ansible_collections.vfio.host.plugins.module_utils._mdev import wanted
from ansible_collections.vfio.host.plugins.module_utils._sriov import persistence as sriov

SCRIPT = "/usr/local/lib/vfio-host/mediated_devices"
UNIT = "/etc/systemd/system/vfio-host-mediated@.service"
PULL = "/etc/systemd/system/multi-user.target.d/90-vfio-host-mediated.conf"
RULES = "/etc/udev/rules.d/90-vfio-host-mediated.rules"

HEAD = "# Managed by the vfio.host collection (module mediated_devices). Do not edit: it is replaced.\n"

# Without RemainAfterExit and without a limit: see _sriov/persistence.py. vgpud tells NVIDIA's driver which types it has.
UNIT_TEXT = HEAD + """\
[Unit]
Description=Mediated devices and vGPU types of %%%%i
ConditionPathExists=%s
StartLimitIntervalSec=0
After=nvidia-vgpud.service nvidia-vgpu-mgr.service%%s
Before=libvirtd.service virtqemud.service libvirt-guests.service

[Service]
Type=oneshot
ExecStart=/bin/sh %s %%%%i
TimeoutStartSec=600
""" % (wanted.LIST, SCRIPT)

RULE = (
    'ACTION=="add|bind", SUBSYSTEM=="pci", KERNEL=="%(parent)s", ATTR{vendor}=="0x%(vendor)s", '
    'ATTR{device}=="0x%(device)s", ENV{DRIVER}=="?*", RUN+="%(command)s"\n'
    'ACTION=="change", SUBSYSTEM=="pci", KERNEL=="%(parent)s", ATTR{vendor}=="0x%(vendor)s", '
    'ATTR{device}=="0x%(device)s", ENV{MDEV_STATE}=="registered", RUN+="%(command)s"\n'
)

_START = r"""#!/bin/sh
# Managed by the vfio.host collection (module mediated_devices). Do not edit: it is replaced.
# Makes the mediated devices of one function, or gives it its vGPU type, as /etc/vfio-host/mediated_devices asks, if it
# still is the card that was asked. What is there already is never taken away or changed, since somebody may use it.
# Says in the kernel log what it did and why. vfio_host=off on the kernel command line leaves everything to the host.
# shellcheck disable=SC2317,SC2329  # functions that are called by their name, or not at all

list=/etc/vfio-host/mediated_devices
pci=/sys/bus/pci
mdev=/sys/bus/mdev/devices
parent=$1
patience=300
bad=

"""

_REST = r"""# left_alone REASON
left_alone()
{
    log "$parent left to the host: $1"
    bad=yes
}

ready()
{
    bound "$parent"
    [ -n "$got" ]
}

# same VENDOR DEVICE SERIAL: sets $why when another card is there
same()
{
    attribute "$here/vendor"
    now=$got
    attribute "$here/device"
    now=$now:$got
    if [ "$now" != "$1:$2" ]; then
        why="is $now, asked $1:$2"
    elif [ "$3" != - ]; then
        serial "$here/config"
        [ "$number" = "$3" ] || why="has serial number ${number:-that cannot be read}, asked $3"
    fi
}

# offered TYPE: whether the driver lists it among those that can be made
offered()
{
    {
        while read -r number name; do
            [ "${number%:}" = "$1" ] && return 0
        done <"$here/nvidia/creatable_vgpu_types"
    } 2>/dev/null
    return 1
}

# vgpu TYPE: sets $why when it did not come out
vgpu()
{
    current=$here/nvidia/current_vgpu_type
    if ! waited test -e "$current"; then
        why="its driver offers no vGPU types"
        return
    fi
    attribute "$current"
    case $got in
    "$1") return ;;
    0) ;;
    *)
        why="has type ${got:-that cannot be read}, asked $1; it is not changed, since somebody may use it"
        return
        ;;
    esac
    waited offered "$1" || why="its driver does not offer type $1 now"
    [ -z "$why" ] || return
    patient put "$1" "$current" || why="giving it type $1 does not end"
    [ -z "$why" ] || return
    attribute "$current"
    if [ "$got" = "$1" ]; then
        log "$parent has vGPU type $1"
    else
        why="its driver did not take type $1"
    fi
}

# mediated TYPE UUID: sets $why when it did not come out
mediated()
{
    kind=$(readlink "$mdev/$2/mdev_type" 2>/dev/null)
    if [ -e "$mdev/$2" ]; then
        whose=$(readlink "$mdev/$2" 2>/dev/null)
        whose=${whose%/*}
        now="${kind##*/} of ${whose##*/}"
        [ "$now" = "$1 of $parent" ] || why="$2 is $now, asked $1; it is not changed, since somebody may use it"
        return
    fi
    create=$here/mdev_supported_types/$1/create
    if ! waited test -e "$create"; then
        why="its driver does not offer $1"
        return
    fi
    patient put "$2" "$create" || why="making $2 does not end"
    [ -z "$why" ] || return
    if [ -e "$mdev/$2" ]; then
        log "$2 made, $1 of $parent"
    else
        why="its driver did not make $2, type $1 (is one left?)"
    fi
}

# handle VENDOR DEVICE SERIAL WAY TYPE UUID
handle()
{
    why=
    same "$1" "$2" "$3"
    if [ -z "$why" ]; then
        case $4 in
        vgpu) vgpu "$5" ;;
        mdev) mediated "$5" "$6" ;;
        esac
    fi
    [ -z "$why" ] || left_alone "$why"
}

"""

_MAIN = r"""
case $parent in
'' | *[!0-9a-f:.]* | *..* | *.*.* | .*)
    log "$parent is no function"
    exit 1
    ;;
esac
here=$pci/devices/$parent
there=
while read -r address vendor device asked_number way kind uuid rest; do
    [ "$address" = "$parent" ] || continue
    case $vendor$device$asked_number in
    '' | *[!0-9a-f-]*) rest=damaged ;;
    esac
    case $way:$kind in
    vgpu:0* | vgpu:*[!0-9]* | *: | *:.* | *[!A-Za-z0-9_.+:-]*) rest=damaged ;;
    vgpu:* | mdev:*) ;;
    *) rest=damaged ;;
    esac
    case $uuid in
    '' | *[!0-9a-f-]*) rest=damaged ;;
    esac
    if [ -n "$rest" ]; then
        left_alone "its line in $list is damaged"
        continue
    fi
    if [ -z "$there" ] && ! waited ready; then
        left_alone "it is not there, or no driver of it"
        break
    fi
    there=yes
    handle "$vendor" "$device" "$asked_number" "$way" "$kind" "$uuid"
done <"$list"
[ -z "$bad" ]
"""

SCRIPT_TEXT = _START + at_boot.FUNCTIONS + sriov.WAITING + _REST + at_boot.OFF + _MAIN


def files(items, systemctl):
    """``{path: text | None}`` of everything that makes these again; None for a file that shall not be. Pure.

    :param items: see wanted.render(), with ``physfn``. :param systemctl: path of the command.
    """
    text = wanted.render(items)
    if text is None:
        return dict.fromkeys((wanted.LIST, SCRIPT, UNIT, PULL, RULES))
    parents = {item["parent"]: item for item in items}
    there = [parents[address] for address in sorted(parents, key=sort_key)]
    first = sorted({item["physfn"] for item in there if item["physfn"]}, key=sort_key)
    rules = "".join(RULE % dict(item, command="%s --no-block start %s" % (systemctl, unit(item["parent"])))
                    for item in there)
    pull = "[Unit]\nWants=%s\n" % " ".join(unit(item["parent"]) for item in there)
    return {wanted.LIST: text, SCRIPT: SCRIPT_TEXT, PULL: HEAD + pull, RULES: HEAD + rules,
            UNIT: UNIT_TEXT % "".join(" " + sriov.unit(address) for address in first)}


def unit(address):
    return "vfio-host-mediated@%s.service" % address
