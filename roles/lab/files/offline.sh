#!/bin/sh
# Prepare the image so that a bare host can install the named packages without a network, and
# without unpacking ninety libraries in emulation: what they depend on is installed now, they
# themselves are only downloaded. Runs inside the tree that is being built.
set -eu
dependencies=$(apt-get install --simulate --no-install-recommends "$@" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -Ev '^(ipxe-qemu|libvirt.*|python3-libvirt|qemu-.*|seabios)$')
# shellcheck disable=SC2086  # package names, one word each
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $dependencies
apt-get clean
apt-get install --yes --quiet --download-only --no-install-recommends "$@"
