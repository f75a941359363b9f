# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What makes the virtual functions again at each boot, and after the driver of a physical function was loaded anew.

A unit of systemd for each physical function runs one POSIX script. It is pulled in at boot, and started by a rule of
udev when the driver has bound the physical function. The rule starts the unit by ``systemctl``: ``SYSTEMD_WANTS``
counts only when the device's unit becomes active, which after a driver reload it does in newer releases of systemd
only. Those from 240 to 246 ignore the bind event, so a new network interface of the card starts it as well.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._assignment.addresses import sort_key
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import script as at_boot
from ansible_collections.vfio.host.plugins.module_utils._sriov import wanted

SCRIPT = "/usr/local/lib/vfio-host/sriov"
UNIT = "/etc/systemd/system/vfio-host-sriov@.service"
PULL = "/etc/systemd/system/multi-user.target.d/90-vfio-host-sriov.conf"
RULES = "/etc/udev/rules.d/90-vfio-host-sriov.rules"

MODES = {SCRIPT: 0o755}

HEAD = "# Managed by the vfio.host collection (module sriov). Do not edit: it is replaced.\n"

# Without RemainAfterExit: a unit that is over can be started again. Without a limit: a card may bind many times.
UNIT_TEXT = HEAD + """\
[Unit]
Description=Virtual functions of %%i
ConditionPathExists=%s
StartLimitIntervalSec=0
Before=libvirtd.service virtqemud.service libvirt-guests.service

[Service]
Type=oneshot
ExecStart=/bin/sh %s %%i
TimeoutStartSec=600
""" % (wanted.LIST, SCRIPT)

RULE = (
    'ACTION=="add|bind", SUBSYSTEM=="pci", KERNEL=="%(address)s", ATTR{vendor}=="0x%(vendor)s", '
    'ATTR{device}=="0x%(device)s", ENV{DRIVER}=="?*", RUN+="%(command)s"\n'
    'ACTION=="add", SUBSYSTEM=="net", KERNELS=="%(address)s", ATTRS{vendor}=="0x%(vendor)s", '
    'ATTRS{device}=="0x%(device)s", RUN+="%(command)s"\n'
)

_START = r"""#!/bin/sh
# Managed by the vfio.host collection (module sriov). Do not edit: it is replaced.
# Makes the virtual functions of one physical function as /etc/vfio-host/sriov asks, if it still is the card that was
# asked: without the host's drivers, with what ip can set, each on its driver. Virtual functions that are there are
# never taken away, and one that has a driver is not touched, since somebody may use it.
# Says in the kernel log what it did and why. vfio_host=off on the kernel command line leaves everything to the host.
# shellcheck disable=SC2317  # functions that are called by their name

list=/etc/vfio-host/sriov
pci=/sys/bus/pci
physical=$1
patience=150
bad=

"""

_FAIL = r"""# fail REASON: says it, and ends
fail()
{
    log "$physical left to the host: $1"
    exit 1
}

"""

WAITING = r"""# doze: a tenth of a second, or a second where sleep knows no fractions
doze()
{
    if sleep 0.1 2>/dev/null; then
        tries=$((tries + 1))
    else
        sleep 1
        tries=$((tries + 10))
    fi
}

# patient COMMAND...: waits about two minutes for it at most: a card may take long to make many
patient()
{
    "$@" >/dev/null 2>&1 &
    pid=$!
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        [ "$tries" -ge 1200 ] && return 1
        doze
    done
    return 0
}

# waited CONDITION...: whether it comes true in time
waited()
{
    tries=0
    until "$@"; do
        [ "$tries" -ge "$patience" ] && return 1
        doze
    done
    return 0
}

"""
"""Shell functions that wait; they want ``patience``. For _mdev too."""

_REST = r"""ready()
{
    bound "$physical"
    [ -n "$got" ] && [ -e "$here/sriov_numvfs" ]
}

all_there()
{
    [ -e "$here/virtfn$((count - 1))" ]
}

# interface: sets $name to the network interface of the physical function; representors have another kind of port name
interface()
{
    name=
    for path in "$here"/net/*; do
        [ -e "$path" ] || continue
        attribute "$path/phys_port_name"
        case $got in
        '') ;;
        p | p*[!0-9]* | [!p]*) continue ;;
        esac
        name=${path##*/}
        return 0
    done
    return 1
}

# set_one WHAT...: sets one thing of virtual function $index; sets $why when that did not work
set_one()
{
    [ -z "$why" ] || return
    tries=0
    until said=$(LC_ALL=C ip link set dev "$nic" vf "$index" "$@" 2>&1); do
        case $said in
        *"Resource temporarily unavailable"* | *"Device or resource busy"*) ;;
        *) tries=$patience ;;
        esac
        if [ "$tries" -ge "$patience" ]; then
            why="$nic does not take its $1"
            return
        fi
        doze
    done
}

# settings INDEX MAC VLAN QOS TRUST SPOOF: sets $why when one did not work
settings()
{
    index=$1
    [ "$2$3$5$6" != "----" ] || return
    if [ -z "$nic" ]; then
        why="$physical has no network interface to set it with"
        return
    fi
    [ "$2" = - ] || set_one mac "$2"
    if [ "$3" != - ]; then
        qos=$4
        [ "$qos" != - ] || qos=0
        set_one vlan "$3" qos "$qos"
    fi
    [ "$6" = - ] || set_one spoofchk "$6"
    [ "$5" = - ] || set_one trust "$5"
}

# each FUNCTION: calls it with the fields of each sound line of this physical function, the first two left out
each()
{
    while read -r kind address one two three four five six seven rest; do
        case $kind in
        vf) ;;
        *) continue ;;
        esac
        [ "$address" = "$physical" ] || continue
        case $one$two$three$four$five$six$seven in
        *[!0-9a-z:_-]*) rest=damaged ;;
        esac
        case $one in
        '' | *[!0-9]*) rest=damaged ;;
        esac
        case $two in
        - | host | vfio-pci | *[_-]vfio[_-]pci) ;;
        *) rest=damaged ;;
        esac
        if [ -z "$seven" ] || [ -n "$rest" ]; then
            log "$physical: the line of its virtual function $one in $list is damaged"
            bad=yes
            continue
        fi
        "$1" "$one" "$two" "$three" "$four" "$five" "$six" "$seven"
    done <"$list"
}

# handle INDEX DRIVER MAC VLAN QOS TRUST SPOOF
handle()
{
    virtual=$(readlink "$here/virtfn$1" 2>/dev/null)
    virtual=${virtual##*/}
    if [ -z "$virtual" ]; then
        log "$physical: its virtual function $1 is not there"
        bad=yes
        return
    fi
    bound "$virtual"
    # Whoever has it got it with its settings. Of those just made only the host's have a driver.
    if [ -n "$got" ] && ! { [ -n "$fresh" ] && [ "$2" = host ]; }; then
        case $2 in
        host | - | "$got") return ;;
        esac
        registered "$2"
        if [ "$got" != "$name" ]; then
            log "$virtual left alone: it is on $got, asked $2"
            bad=yes
        fi
        return
    fi
    case $fresh$2 in
    host | -) return ;;
    esac
    why=
    settings "$1" "$3" "$4" "$5" "$6" "$7"
    case $2 in
    - | host)
        if [ -n "$why" ]; then
            log "$virtual: $why"
            bad=yes
        fi
        return
        ;;
    esac
    if [ -z "$why" ] && [ ! -e "$pci/devices/$virtual/iommu_group" ]; then
        why="has no IOMMU group (is the IOMMU off?)"
    fi
    if [ -z "$why" ]; then
        load "$2"
        # Nothing later loads what a guest's memory is mapped with: the kernel only hints at it.
        [ -d /sys/module/vfio_iommu_type1 ] || bounded modprobe -q vfio_iommu_type1
    fi
    if [ -z "$why" ]; then
        put "$name" "$pci/devices/$virtual/driver_override"
        bounded put "$virtual" "$pci/drivers_probe"
        bound "$virtual"
        [ "$got" = "$name" ] || why="$2 did not take it"
    fi
    if [ -n "$why" ]; then
        log "$virtual left without a driver: $why"
        bad=yes
    else
        log "$virtual taken by $name"
    fi
}

# shared INDEX DRIVER...: of those just made, those that are the host's while others are not
shared()
{
    [ "$2" = host ] || return
    virtual=$(readlink "$here/virtfn$1" 2>/dev/null)
    bounded put "${virtual##*/}" "$pci/drivers_probe"
}

"""

_MAIN = r"""
case $physical in
'' | *[!0-9a-f:.]* | *..* | *.*.* | .*)
    log "$physical is no physical function"
    exit 1
    ;;
esac
count=
while read -r kind address one two three four five rest; do
    if [ "$kind" = pf ] && [ "$address" = "$physical" ]; then
        vendor=$one
        device=$two
        number_asked=$three
        count=$four
        autoprobe=$five
        [ -z "$rest" ] || autoprobe=
    fi
done <"$list"
[ -n "$count" ] || exit 0
case $count in
0* | *[!0-9]*) fail "its line in $list is damaged" ;;
esac
case $autoprobe in
0 | 1) ;;
*) fail "its line in $list is damaged" ;;
esac

here=$pci/devices/$physical
waited ready || fail "it is not there, or no driver of it"
attribute "$here/vendor"
now=$got
attribute "$here/device"
now=$now:$got
[ "$now" = "$vendor:$device" ] || fail "is $now, asked $vendor:$device"
if [ "$number_asked" != - ]; then
    serial "$here/config"
    [ "$number" = "$number_asked" ] || fail "has serial number ${number:-that cannot be read}, asked $number_asked"
fi
bound "$physical"
case $got in
vfio-pci | *[_-]vfio[_-]pci) fail "is on $got itself" ;;
esac

fresh=
attribute "$here/sriov_numvfs"
case $got in
"$count") ;;
0)
    if [ -e "$here/sriov_drivers_autoprobe" ]; then
        put "$autoprobe" "$here/sriov_drivers_autoprobe"
    fi
    attribute "$here/sriov_drivers_autoprobe"
    [ "$autoprobe" = 1 ] || [ "$got" = 0 ] || fail "the host's drivers cannot be kept off its virtual functions"
    patient put "$count" "$here/sriov_numvfs" || fail "making $count virtual functions does not end"
    attribute "$here/sriov_numvfs"
    [ "$got" = "$count" ] || fail "its driver made no $count virtual functions"
    waited all_there || fail "its $count virtual functions do not appear"
    fresh=yes
    log "$physical has $count virtual functions"
    ;;
*)
    fail "has $got virtual functions, asked $count; they are not taken away, since somebody may use them"
    ;;
esac

asks=
asked_settings()
{
    [ "$3$4$6$7" = "----" ] || asks=yes
}
each asked_settings
nic=
if [ -n "$asks" ] && waited interface; then
    nic=$name
fi
each handle
if [ -n "$fresh" ] && [ "$autoprobe" = 0 ]; then
    # Only those that are named are probed.
    mixed=
    has_host()
    {
        [ "$2" != host ] || mixed=yes
    }
    each has_host
    if [ -n "$mixed" ]; then
        put 1 "$here/sriov_drivers_autoprobe"
        each shared
        put 0 "$here/sriov_drivers_autoprobe"
    fi
fi
[ -z "$bad" ]
"""

SCRIPT_TEXT = _START + at_boot.FUNCTIONS + _FAIL + WAITING + _REST + at_boot.OFF + _MAIN


def files(functions, systemctl):
    """``{path: text | None}`` of everything that makes these again; None for a file that shall not be. Pure.

    :param functions: of wanted.check(). :param systemctl: path of the command.
    """
    text = wanted.render(functions)
    if text is None:
        return dict.fromkeys((wanted.LIST, SCRIPT, UNIT, PULL, RULES))
    there = sorted((f for f in functions if f["count"]), key=lambda one: sort_key(one["address"]))
    rules = "".join(RULE % dict(function, command="%s --no-block start %s" % (systemctl, unit(function["address"])))
                    for function in there)
    pull = "[Unit]\nWants=%s\n" % " ".join(unit(function["address"]) for function in there)
    return {wanted.LIST: text, SCRIPT: SCRIPT_TEXT, UNIT: UNIT_TEXT, PULL: HEAD + pull, RULES: HEAD + rules}


def unit(address):
    return "vfio-host-sriov@%s.service" % address
