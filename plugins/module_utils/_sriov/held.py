# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Why a virtual function must not be taken away or changed now. Pure. Unknown means that it must not."""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._usage import holders, network

IN_USE = ("use", "guest", "control")


def reasons(machine, address, interfaces):
    """Sentences, empty when nobody has it.

    :param interfaces: its network interfaces, as of physical.interfaces_of().
    """
    function = next((f for f in machine["functions"] if f["address"] == address), None)
    if function is None:
        return ["the machine document does not have it"]
    found = ["the host uses it: %s" % use["what"] for use in function["used_by"] if use["kind"] != "process"]
    found += _opened(function, lambda holder: holders.weigh(function, holder) in IN_USE)
    if function["driver"] is None or asked.is_vfio(function["driver"]):
        return found
    addresses = {i["name"]: i["addresses"] for i in machine["host"]["network"]["interfaces"]}
    found += network.held(function, [dict(i, addresses=addresses.get(i["name"], [])) for i in interfaces])
    unknown = machine["host"]["usage_unknown"]
    if unknown:
        found.append("what the host uses is not known in full (%s)" % ", ".join(unknown))
    return found


def of_nodes(machine, address, nodes):
    """The same about device nodes of a part of a function, like ``/dev/vfio/7`` of a mediated device."""
    function = next((f for f in machine["functions"] if f["address"] == address), None)
    if function is None:
        return ["the machine document does not have %s" % address]
    return _opened(function, lambda holder: holder["node"] in nodes)


def _opened(function, counts):
    if function["holders"] is None:
        return ["which processes have it open is not known"]
    pairs = sorted({(holder["command"] or "a process", holder["pid"], holder["node"])
                    for holder in function["holders"] if counts(holder)})
    return ["%s (process %d) has %s open" % pair for pair in pairs]
