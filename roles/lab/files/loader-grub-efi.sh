#!/bin/sh
# GRUB for UEFI. Runs inside the lab's image: $1 is "customize" while it is built, "finish" in the boot that completes it.
# Nothing is written to the firmware's variables: each lab begins with an empty store, and the firmware starts
# what has the name for removable disks then.
set -eu
[ "$1" = finish ] || exit 0
mkdir -p /boot/efi
mount /boot/efi
grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --force-extra-removable
update-grub
