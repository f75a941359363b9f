#!/bin/sh
# Make the demo guests' kernel and initramfs from the host image's own kernel and busybox.
# Runs inside the image while it is being built. $1: folder for the result.
set -eu
out=$1
version=$(find /lib/modules -mindepth 1 -maxdepth 1 -printf "%f\n" | sort -V | tail -n 1)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/tmp" "$out"
cp /bin/busybox "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh"
ln -s bin "$tree/sbin" # the kernel asks /sbin/modprobe for a codec's driver
cp /usr/local/lib/vfio-host-lab/guest-init "$tree/init"
for module in virtio_pci virtio_blk virtio_net bochs snd_hda_intel snd_hda_codec_generic; do
    modprobe -S "$version" --show-depends "$module" || echo "no module $module" >&2
done | while read -r verb path _; do
    [ "$verb" = insmod ] || continue
    mkdir -p "$tree$(dirname "$path")"
    cp -n "$path" "$tree$path"
done
cp "/lib/modules/$version/modules.order" "/lib/modules/$version/modules.builtin" "$tree/lib/modules/$version/"
depmod -b "$tree" "$version"
cp "/boot/vmlinuz-$version" "$out/vmlinuz"
(cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) > "$out/initrd.img"
