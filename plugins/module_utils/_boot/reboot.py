# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""At most one reboot for each change: what a reboot was for is remembered until it had its effect."""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

STATE = asked.STATE_FOLDER + "/reboot.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def read(host):
    """``(text | None, record | None)``. Raises HostError for a record that cannot be understood."""
    text = host.read(STATE)
    if text is None:
        return None, None
    try:
        record = json.loads(text)
        right = record["schema"] == 1 and all(isinstance(record[name], str) for name in ("digest", "boot_id"))
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise HostError("%s cannot be understood: it records what the host was rebooted for; remove it" % STATE)
    return text, record


@_own_files.tidied
def run(host, params, check_mode):
    """Remember what the next reboot is for, or forget it.

    ``params``: ``{digest: str | None, state: present|absent}``. Returns the module's result;
    ``rebooted`` says that the host was rebooted since just this digest was remembered.
    """
    before, record = read(host)
    current = (host.read(BOOT_ID) or "").strip()
    if not current:
        raise HostError("%s cannot be read: whether the host was rebooted is not known" % BOOT_ID)
    rebooted = False
    after = None
    if params["state"] == "present":
        if not params["digest"]:
            raise ValueError("digest: what the reboot is for must be given")
        same = record is not None and record["digest"] == params["digest"]
        rebooted = same and record["boot_id"] != current
        kept = record["boot_id"] if same else current  # a boot that was for it stays the one that counts
        after = json.dumps({"schema": 1, "digest": params["digest"], "boot_id": kept}, indent=1, sort_keys=True) + "\n"
    changed = before != after
    if changed and not check_mode:
        if after is None:
            host.remove(STATE)
            host.remove_empty_folder(asked.STATE_FOLDER)
        else:
            host.write(STATE, after)
    return {
        "changed": changed,
        "rebooted": rebooted,
        "boot_id": current,
        "diff": [{"before_header": STATE, "after_header": STATE, "before": before or "", "after": after or ""}]
        if changed
        else [],
    }  # fmt: skip
