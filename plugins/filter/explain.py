# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: explain
short_description: The machine document of a machine of which there is only a dump of lspci
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Reads the output of C(lspci -D -xxxx), taken as root, from a text such as a message in a forum, and computes from
    the configuration space in it what M(vfio.host.iommu_info) computes on the machine itself, the IOMMU groups that
    Linux will form among it.
  - The bridges' bus numbers give the topology. Text around the dump, quoting, and the output of C(-v), C(-nn) and
    C(-k) in between are understood; groups that C(lspci -v) names are taken for the actual ones.
  - What a dump cannot tell is unknown in the document and named in its C(source.missing), above all what the host
    itself needs. With fewer than four C(x), or not taken as root, the groups are the cautious answer.
positional: kernel, firmware_table, cmdline
options:
  _input:
    description: The text.
    type: str
    required: true
  kernel:
    description:
      - Release of the machine's kernel, as C(uname -r) prints it, to use its quirk tables. Without it those of all
        kernels are used.
    type: str
  firmware_table:
    description:
      - The firmware's table for the IOMMU. Without it the vendor of the host bridge says which one it would be.
    type: str
    choices: [DMAR, IVRS]
  cmdline:
    description: The machine's kernel command line.
    type: str
seealso:
  - plugin: vfio.host.what_if
    plugin_type: filter
  - module: vfio.host.iommu_info
"""

EXAMPLES = r"""
- name: Show the groups of a machine somebody asks about
  ansible.builtin.debug:
    msg: "{{ (lookup('file', 'dump.txt') | vfio.host.explain(kernel='6.1.0')).groups }}"
"""

RETURN = r"""
_value:
  description: The machine document, of the form of RV(vfio.host.iommu_info#module:machine).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.vfio.host.plugins.module_utils import _dump_machine
from ansible_collections.vfio.host.plugins.module_utils._hardware import dump
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def explain(text, kernel=None, firmware_table=None, cmdline=None):
    text = plain(text, "vfio.host.explain: the text")
    if not isinstance(text, str):
        raise AnsibleFilterError("vfio.host.explain: a %s is not the text of a dump; pass what the command printed: %s"
                                 % (type(text).__name__, dump.COMMAND))
    context = {"kernel": kernel, "firmware_table": firmware_table, "cmdline": cmdline}
    machine = call("explain", _dump_machine.from_dump, text, plain(context, "vfio.host.explain: options"))
    if not machine["functions"]:
        raise AnsibleFilterError("vfio.host.explain: the text of %d characters has no line that begins like one of "
                                 "lspci (0000:01:00.0 VGA compatible controller: ...); make a dump with: %s"
                                 % (len(text), dump.COMMAND))
    return machine


class FilterModule:
    """The filter vfio.host.explain."""

    def filters(self):
        return {"explain": explain}
