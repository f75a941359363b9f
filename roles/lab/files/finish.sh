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

# Only initramfs-tools is quick enough in emulation; dracut's images are those of the installation.
initramfs() {
    if [ -x /usr/sbin/update-initramfs ]; then update-initramfs -u -k all; fi
}

# GRUB for BIOS unless the image has a script of its own for its loader.
loader() {
    if [ -x /usr/local/lib/vfio-host-lab/loader ]; then
        /usr/local/lib/vfio-host-lab/loader finish
    else
        partition=$(findmnt -nro SOURCE /) &&
            disk=/dev/$(basename "$(dirname "$(readlink -f "/sys/class/block/${partition#/dev/}")")") &&
            grub-install --target=i386-pc "$disk" &&
            update-grub
    fi
}

if clean && initramfs && loader; then
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
