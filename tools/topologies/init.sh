#!/bin/sh
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The only process of a machine of tools/topologies: print what lspci -n -D -xxxx would, with path, group and
# physical function, and switch the machine off. The form is read by printed.py and by _hardware/dump.py.
# busybox runs its own commands by their names; loops use what the shell has built in, for emulation is slow.

/bin/busybox mount -t proc proc /proc # without it busybox does not find its other commands
mount -t sysfs sysfs /sys
echo 1 >/proc/sys/kernel/printk
stty raw 2>/dev/null

# Virtual functions of NVMe controllers, as many as there can be; nobody needs a driver for them.
for total in /sys/bus/pci/devices/*/sriov_totalvfs; do
    [ -e "$total" ] || continue
    function=${total%/*}
    read -r class <"$function/class"
    [ "$class" = 0x010802 ] || continue
    if [ -z "$loaded" ]; then
        loaded=1
        while read -r module; do insmod "/modules/$module"; done </modules/order
    fi
    waited=0
    while [ ! -e "$function/driver" ] && [ $waited -lt 100 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    read -r count <"$total"
    echo 0 >"$function/sriov_drivers_autoprobe"
    echo "$count" >"$function/sriov_numvfs"
done

echo
echo "vfio.host topology begins"
read -r value </proc/sys/kernel/osrelease
echo "Kernel: $value"
read -r value </proc/cmdline
echo "Command line: $value"
for table in DMAR IVRS; do
    [ -e /sys/firmware/acpi/tables/$table ] || continue
    echo "ACPI $table: $(hexdump -v -e '1/1 "%02x"' /sys/firmware/acpi/tables/$table)"
done
count=0
for function in /sys/bus/pci/devices/*; do
    [ -e "$function" ] || continue
    count=$((count + 1))
    cd -P "$function" || continue
    path=$PWD
    read -r vendor <"$path/vendor"
    read -r device <"$path/device"
    read -r class <"$path/class"
    class=${class#0x}
    echo "${path##*/} ${class%??}: ${vendor#0x}:${device#0x}"
    echo "	Path: $path"
    if cd -P "$path/physfn" 2>/dev/null; then echo "	Physical function: ${PWD##*/}"; fi
    if cd -P "$path/iommu_group" 2>/dev/null; then echo "	IOMMU group: ${PWD##*/}"; fi
    hexdump -v -e '"%02_ax:" 16/1 " %02x" "\n"' "$path/config"
    echo
done
echo "vfio.host topology ends: $count functions"
stty -raw 2>/dev/null # waits until all of it is out
poweroff -f
