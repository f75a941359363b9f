# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The script that binds in the initramfs: one POSIX text, run by whatever each generator starts it with."""

from __future__ import annotations

_HEAD = r"""#!/bin/sh
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Gives the PCI functions in /etc/vfio-host/devices to vfio-pci, or to the variant driver that their
# line names, before udev loads any driver; each one only if it, and every listed function of the
# same card, still is what was asked. Says in the kernel log what it did and why.
# It never fails the boot. vfio_host=off on the kernel command line leaves everything to the host.
# shellcheck disable=SC2317  # functions that are called by their name

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

"""

FUNCTIONS = r"""log()
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
    "$@" >/dev/null 2>&1 &
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

# swapped NAME FROM TO: sets $got to NAME with every FROM as TO
swapped()
{
    left=$1
    got=
    while :; do
        case $left in
        *"$2"*)
            got=$got${left%%"$2"*}$3
            left=${left#*"$2"}
            ;;
        *)
            got=$got$left
            return
            ;;
        esac
    done
}

# registered DRIVER: sets $name to what the kernel calls it (- and _ are one to modprobe, not to sysfs), or to nothing
registered()
{
    name=$1
    [ -d "$pci/drivers/$name" ] && return
    swapped "$1" - _
    name=$got
    [ -d "$pci/drivers/$name" ] && return
    swapped "$1" _ -
    name=$got
    [ -d "$pci/drivers/$name" ] && return
    name=
}

# load DRIVER: loads its module; sets $name as registered does, and $why when it is not there afterwards
load()
{
    registered "$1"
    [ -n "$name" ] || bounded modprobe -q "$1"
    registered "$1"
    [ -n "$name" ] || why="$1 cannot be loaded"
}

"""
"""Shell functions that know nothing of a list: they want ``pci``, the folder of the bus. For _sriov and _mdev too."""

_TAIL = r"""# way ADDRESS: sets $got to the root bus and the slot and function at each bridge, or to nothing
way()
{
    left=$(readlink "$pci/devices/$1" 2>/dev/null)
    case $left in
    */pci*/*) left=${left##*/pci} ;;
    *) left= ;;
    esac
    got=${left%%/*}
    while [ "$left" != "${left#*/}" ]; do
        left=${left#*/}
        step=${left%%/*}
        got=$got/${step##*:}
    done
}

# examine ADDRESS VENDOR DEVICE SUBVENDOR SUBDEVICE SERIAL DRIVER PATH: sets $why when it has to be left alone
examine()
{
    why=
    here=$pci/devices/$1
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
    # Of two cards of one make nothing else tells which one took the address when bus numbers shifted.
    if [ "${8:--}" != - ]; then
        way "$1"
        if [ "$got" != "$8" ]; then
            why="is at ${got:-an unknown place}, asked $8"
            return
        fi
    fi
    if [ ! -e "$here/iommu_group" ]; then
        why="has no IOMMU group (is the IOMMU off?)"
    fi
}

# take ADDRESS NAME: binds it to that driver; sets $why when that did not work
take()
{
    here=$pci/devices/$1
    bound "$1"
    [ "$got" = "$2" ] && return
    if ! put "$2" "$here/driver_override"; then
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
    [ "$got" = "$2" ] && return
    why="$2 did not take it"
    put "" "$here/driver_override"
    bounded put "$1" "$pci/drivers_probe"
}

# left_alone ADDRESS REASON
left_alone()
{
    log "$1 left to the host: $2"
}

# each FUNCTION: calls it with the fields of each sound line; a damaged line is logged when $tell is set
each()
{
    while read -r address vendor device subvendor subdevice asked_number driver asked_way rest; do
        case $address in
        '' | '#'*)
            continue
            ;;
        *[!0-9a-f:.]* | *..* | *.*.* | .*)
            [ -n "$tell" ] && log "a line of $list is damaged: $address"
            continue
            ;;
        esac
        case $driver in
        *[!a-z0-9_-]* | [_-]*) sound= ;;
        vfio-pci | *[_-]vfio[_-]pci) sound=yes ;;
        *) sound= ;;
        esac
        case $asked_way in
        *[!0-9a-f:./-]*) sound= ;;
        esac
        if [ -z "$sound" ] || [ -n "$rest" ]; then
            [ -n "$tell" ] && left_alone "$address" "its line in $list is damaged"
            continue
        fi
        "$1" "$address" "$vendor" "$device" "$subvendor" "$subdevice" "$asked_number" "$driver" "$asked_way"
    done <"$list"
}

# judge, of each line: a card of which one function is not what was asked is left alone as a whole
judge()
{
    [ -d "$pci/devices/$1" ] || return
    examine "$@"
    [ -n "$why" ] && foreign="$foreign${1%.*} "
}

# handle, of each line: takes it or says why not
handle()
{
    if [ ! -d "$pci/devices/$1" ]; then
        left_alone "$1" "is not there"
        return
    fi
    examine "$@"
    if [ -z "$why" ]; then
        case $foreign in
        *" ${1%.*} "*) why="another function of its card is not what was asked" ;;
        esac
    fi
    if [ -z "$why" ]; then
        load "$7"
        # Nothing later loads what a guest's memory is mapped with: the kernel only hints at it.
        [ -d /sys/module/vfio_iommu_type1 ] || bounded modprobe -q vfio_iommu_type1
    fi
    if [ -z "$why" ]; then
        take "$1" "$name"
    fi
    if [ -n "$why" ]; then
        left_alone "$1" "$why"
    elif [ "$name" = vfio-pci ]; then
        log "$1 taken"
    else
        log "$1 taken by $name"
    fi
}

"""

OFF = r"""[ -r "$list" ] || exit 0
{ read -r cmdline </proc/cmdline; } 2>/dev/null
case " $cmdline " in
*" vfio_host=off "*)
    log "off on the kernel command line, everything is left to the host"
    exit 0
    ;;
esac
"""
"""Shell code that ends a script where there is no list, or where the kernel command line says so: the way in."""

_MAIN = r"""
foreign=" "
tell=
each judge
tell=yes
each handle
exit 0
"""

TEXT = _HEAD + FUNCTIONS + _TAIL + OFF + _MAIN
