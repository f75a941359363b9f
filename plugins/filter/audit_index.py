# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_index
short_description: One page of HTML for all hosts of an audit
version_added: "0.2.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - One row for each host, with the state of its IOMMU, how many functions can be assigned, how many findings refuse and
    warn, and a link to its own page. Hosts that need attention come first, and first of all those that gave no answer.
positional: results
options:
  _input:
    description:
      - Names of the hosts.
    type: list
    elements: str
    required: true
  results:
    description:
      - What M(vfio.host.iommu_info) returned for each of them, in the same order. A result without C(machine) is of a
        host that could not be read; its C(msg) says why.
    type: list
    elements: dict
    required: true
  pages:
    description:
      - Names of the hosts whose own page exists, as P(vfio.host.audit_file#filter) names it, beside this one.
    type: list
    elements: str
    default: []
seealso:
  - plugin: vfio.host.audit_html
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the page of the fleet
  ansible.builtin.copy:
    content: "{{ ansible_play_hosts_all | vfio.host.audit_index(results, pages=ansible_play_hosts) }}"
    dest: index.html
    mode: "0600"
  delegate_to: localhost
  run_once: true
  vars:
    results: "{{ ansible_play_hosts_all | map('extract', hostvars) | map(attribute='probe', default={}) }}"
"""

RETURN = r"""
_value:
  description: A document of HTML.
  type: str
"""

from ansible_collections.vfio.host.plugins.module_utils._report import index
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def _why(result):
    return result.get("msg") or result.get("module_stderr")


def _hosts(names, results, pages):
    if len(names) != len(results):
        raise ValueError("%d names and %d results: pass one result for each host" % (len(names), len(results)))
    return [
        {"name": name, "machine": result.get("machine"), "why": _why(result), "page": name in pages}
        for name, result in zip(names, results)
    ]


def audit_index(names, results, pages=None):
    def page(*parts):
        return index.index(_hosts(*parts))

    return call(
        "audit_index",
        page,
        plain(list(names), "vfio.host.audit_index: the names"),
        plain(list(results), "vfio.host.audit_index: results"),
        plain(list(pages or []), "vfio.host.audit_index: pages"),
    )


class FilterModule:
    """The filter vfio.host.audit_index."""

    def filters(self):
        return {"audit_index": audit_index}
