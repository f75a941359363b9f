#!/bin/sh
# Finish the lab's disk image from inside: runs once as init of the freshly built image, in an
# emulated machine, since the boot loader must see the disk that it will live on.
# Takes out what the building left in the tree, so that services start and nothing of the building
# machine stays. Says "vfio-host-lab: finished" on the console when all went well; the builder waits for that.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

clean() {
    # The initramfs hands over /proc, /sys, /dev and /run mounted.
    mount -o remount,rw / &&
        mount -t tmpfs tmpfs /tmp &&
        rm -f /usr/sbin/policy-rc.d /etc/resolv.conf /etc/apt/apt.conf.d/00mmdebstrap /etc/apt/apt.conf.d/99mmdebstrap &&
        if [ -e /sbin/start-stop-daemon.REAL ]; then mv /sbin/start-stop-daemon.REAL /sbin/start-stop-daemon; fi
}

esp() {
    if grep -q ' /boot/efi ' /etc/fstab; then mkdir -p /boot/efi && mount /boot/efi; fi
}

initramfs() {
    if [ -x /usr/sbin/update-initramfs ]; then
        update-initramfs -u -k all
    else
        # Made again here: the one of the installation was made on the building machine, for that machine.
        for kernel in /boot/vmlinuz-*; do
            dracut --quiet --force "/boot/initrd.img-${kernel#/boot/vmlinuz-}" "${kernel#/boot/vmlinuz-}" || return
        done
    fi
}

# Nothing is written to the firmware's variables: each lab begins with an empty store, and the firmware starts
# what has the name for removable disks then.
loader() {
    if [ -d /usr/lib/grub/i386-pc ]; then
        partition=$(findmnt -nro SOURCE /) &&
            disk=/dev/$(basename "$(dirname "$(readlink -f "/sys/class/block/${partition#/dev/}")")") &&
            grub-install --target=i386-pc "$disk" &&
            update-grub
    elif [ -d /usr/lib/grub/x86_64-efi ]; then
        grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --force-extra-removable &&
            update-grub
    else
        bootctl --no-variables --make-machine-id-directory=auto install || return
        for kernel in /boot/vmlinuz-*; do
            kernel-install add "${kernel#/boot/vmlinuz-}" "$kernel" || return
        done
    fi
}

if clean && esp && initramfs && loader; then
    echo "vfio-host-lab: finished"
else
    echo "vfio-host-lab: failed"
fi
if mountpoint -q /boot/efi; then umount /boot/efi; fi
umount /tmp
mount -o remount,ro /
sync
echo o > /proc/sysrq-trigger
sleep 60
