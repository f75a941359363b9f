#!/bin/sh
# systemd-boot with kernel-install. Runs inside the lab's image: $1 is "customize" while it is built, "finish" in the boot
# that completes it. What belongs on the EFI system partition is made while it is built, since dracut takes minutes in
# emulation, and put there by the finishing boot. Nothing is written to the firmware's variables: each lab begins with
# an empty store, and the firmware starts what has the name for removable disks then.
set -eu
umask 022
stage=/usr/local/lib/vfio-host-lab/esp
mkdir -p /boot/efi
if [ "$1" = customize ]; then
    mount -t tmpfs tmpfs /boot/efi # it must be the root of a file system
    export SYSTEMD_RELAX_ESP_CHECKS=1 SYSTEMD_RELAX_XBOOTLDR_CHECKS=1 # and need be no more than that
    bootctl --esp-path=/boot/efi --no-variables --make-machine-id-directory=auto install
    for kernel in /boot/vmlinuz-*; do
        kernel-install --esp-path=/boot/efi add "${kernel#/boot/vmlinuz-}" "$kernel"
    done
    cp -r /boot/efi "$stage"
    umount /boot/efi
else
    mount /boot/efi
    cp -r "$stage/." /boot/efi/
    rm -r "$stage"
fi
