#!/bin/sh
# Turn the freshly installed packages into the lab's host. Runs inside the tree that is being built.
set -eu
lib=/usr/local/lib/vfio-host-lab
systemctl --quiet enable systemd-networkd.service vfio-host-lab-identity.service serial-getty@ttyS0.service
# Jobs that would wake up in the middle of a test, and a wait that a host with an unused NIC never ends.
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer systemd-networkd-wait-online.service
rm -f /etc/ssh/ssh_host_*
systemd-machine-id-setup
"$lib/guest-image" /var/lib/vfio-host-lab/guest
if [ -x "$lib/loader" ]; then "$lib/loader" customize; fi
