#!/bin/sh
# Init of a demo guest: say on the serial console what the guest's own kernel sees, and stay up.
# One line a PCI function: address, ids, class, driver, interrupts, memory regions.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in virtio_pci virtio_blk virtio_net bochs snd_hda_intel; do
    modprobe "$module"
done
name=$(sed -n 's/.*vfio_host_guest=\([^ ]*\).*/\1/p' /proc/cmdline)
ip link set eth0 up
udhcpc -i eth0 -n -q -t 8 -T 2 -s /bin/true > /tmp/lease 2>&1
say() { echo "vfio-host-guest $name $*"; }
report() {
    say begin
    for path in /sys/bus/pci/devices/*; do
        function=${path##*/}
        read -r vendor < "$path/vendor"
        read -r device < "$path/device"
        read -r class < "$path/class"
        read -r irq < "$path/irq"
        driver=none
        [ -e "$path/driver" ] && driver=$(basename "$(readlink "$path/driver")")
        msi=0
        [ -d "$path/msi_irqs" ] && msi=$(find "$path/msi_irqs" -type f | wc -l)
        # Interrupt pin at 0x3d: 0 is a function that has no INTx at all.
        pin=$(dd if="$path/config" bs=1 skip=61 count=1 2> /dev/null | od -An -tu1 | tr -d ' ')
        bars=0
        unset_bars=0
        line=0
        while read -r start end flags && [ "$line" -lt 6 ]; do
            line=$((line + 1))
            [ "$flags" = 0x0000000000000000 ] && continue
            if [ "$start" = 0x0000000000000000 ]; then unset_bars=$((unset_bars + 1)); else bars=$((bars + 1)); fi
            : "$end"
        done < "$path/resource"
        say "function $function vendor=$vendor device=$device class=$class driver=$driver irq=$irq pin=$pin msi=$msi bars=$bars unset_bars=$unset_bars"
    done
    # How often the interrupts of each driver really fired, from the kernel's own table.
    sed -n '/snd_hda_intel\|virtio/p' /proc/interrupts | while read -r counts; do say "interrupts $counts"; done
    [ -b /dev/vda ] && say "disk vda sectors=$(cat /sys/block/vda/size) label=$(dd if=/dev/vda bs=16 count=1 2> /dev/null | tr -cd 'a-z0-9')"
    say "nic eth0 mac=$(cat /sys/class/net/eth0/address) carrier=$(cat /sys/class/net/eth0/carrier) lease=$(grep -c 'lease of' /tmp/lease)"
    say end
}
report
while :; do
    sleep 60
done
