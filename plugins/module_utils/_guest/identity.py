# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Names of a guest that must not change from run to run: UUID and MAC addresses. Pure.

Both come from the host's machine-id and the guest's name, so that a check on a bare host predicts
them and two hosts with a guest of one name do not collide on one network.
"""

from __future__ import annotations

import hashlib
import uuid

NAMESPACE = uuid.UUID("5b0d1f5e-3d0c-5a43-9c55-8f1de2a4c9b7")


def guest_uuid(machine_id, name):
    """Version 5 UUID (str) of guest ``name`` on the host with ``machine_id``."""
    return str(uuid.uuid5(NAMESPACE, "%s/%s" % (machine_id, name)))


def guest_mac(machine_id, name, index):
    """MAC address of network card ``index`` (from 0), in QEMU's range 52:54:00."""
    digest = hashlib.sha256(("%s/%s/%d" % (machine_id, name, index)).encode("utf-8")).digest()
    return "52:54:00:%02x:%02x:%02x" % (digest[0], digest[1], digest[2])
