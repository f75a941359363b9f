# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kernel_parameters
short_description: The kernel parameters that a host needs for what is asked of it
version_added: "0.3.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Makes tokens for O(vfio.host.kernel_cmdline#module:parameters) from what is wanted, by the CPU, the memory, the kernel's
    own configuration and the running command line of the machine document.
  - Says what does not fit instead of guessing. Nothing is to be applied while C(problems) of the result is not empty.
  - P(vfio.host.plan#filter) does the same for a whole plan and makes findings of the problems.
positional: options
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  options:
    description: What is asked for.
    type: dict
    default: {}
    suboptions:
      iommu:
        description:
          - Whether the IOMMU is needed. V(intel_iommu=on) is given where the kernel leaves an Intel IOMMU off by
            itself, where that cannot be told, and where V(intel_iommu=off) is on the running command line, which a
            later V(intel_iommu=on) outweighs.
          - Debian's kernel leaves out nothing but the graphics of Intel on the root bus; V(intel_iommu=on) is given
            when these are in O(functions).
          - An AMD IOMMU and an SMMU are on unasked; C(amd_iommu=on) is no value that the kernel knows.
          - V(iommu=off), V(amd_iommu=off) and V(intremap=off) that somebody else wrote are a problem, since nothing
            outweighs the first two, and whoever set them had a reason.
        type: bool
        default: true
      passthrough:
        description:
          - Whether the host's own devices are left untranslated (V(iommu=pt)). That can make the host's disks and
            network faster, and takes away the protection of the host from its own devices. It is not needed for
            assignment, does nothing for guests, whose devices are always translated, and does not change groups.
        type: bool
        default: false
      hugepages:
        description:
          - Huge pages, each with C(count), C(size) (V(2MiB) by default) and, for one NUMA node, C(node).
          - Pages of 1 GiB and more are reserved at boot, by node from Linux 5.16 on. Smaller ones are given back in
            C(hugepages) of the result for M(vfio.host.hugepages).
        type: list
        elements: dict
        default: []
      default_hugepage_size:
        description:
          - Size of the huge pages that programs get which ask for no size, V(1GiB) or V(2MiB). Empty keeps the
            kernel's own.
        type: str
        default: ""
      host_reserve:
        description: Memory that all huge pages together must leave to the host.
        type: str
        default: 1GiB
      isolated_cpus:
        description:
          - CPUs that the host keeps off, as V(2-5,8) (C(isolcpus)). CPU 0 and the other threads of its core stay the
            host's.
          - The scheduler puts nothing there by itself, and does not balance there either. A guest whose vCPUs are not
            pinned to these CPUs one by one does not run there, and one that is pinned to all of them at once stays on
            the first that it was put on. The host has so much less to run its own work on, QEMU's threads included.
          - It takes a reboot to change. Where that is too much, keep CPUs for guests by C(cpuset) cgroups instead.
        type: str
        default: ""
      isolated_flags:
        description:
          - What isolation means, V(domain) (no scheduling, which is also what is meant without flags) and
            V(managed_irq) (the interrupts that the kernel spreads over CPUs itself, as those of NVMe, are kept off
            where possible; Linux 5.6).
        type: list
        elements: str
        default: []
      nohz_full:
        description:
          - Whether the timer tick stops on the isolated CPUs while they run one thread only. Every entry into the
            kernel becomes slower there, so it is for guests that hardly leave guest mode, and useless for CPUs that
            run two threads.
        type: bool
        default: false
      rcu_nocbs:
        description:
          - Whether the kernel's deferred work (RCU callbacks) of the isolated CPUs is done by threads elsewhere.
            C(nohz_full) implies it.
        type: bool
        default: false
      acs_override:
        description:
          - Value of C(pcie_acs_override), of V(downstream), V(multifunction) and V(id:vvvv:dddd), joined by commas. The
            parameter of a patch that is not part of Linux; other kernels ignore it.
          - It makes groups look smaller than the hardware isolates. It is a problem C(VH142) and left out, unless
            O(acknowledge) has an entry with the C(code) V(VH142) and the C(host) V(acs_override).
        type: str
        default: ""
      parameters:
        description: More tokens, written by hand. They come last, and must not contradict the others.
        type: list
        elements: str
        default: []
  functions:
    description: Addresses of the functions that are to be assigned.
    type: list
    elements: str
    default: []
  acknowledge:
    description: Findings that are accepted, as for P(vfio.host.plan#filter).
    type: list
    elements: dict
    default: []
notes:
  - By the running kernel. Another one that is installed beside it may have another default.
seealso:
  - plugin: vfio.host.plan
    plugin_type: filter
  - plugin: vfio.host.iommu_parameters
    plugin_type: filter
  - module: vfio.host.kernel_cmdline
  - module: vfio.host.hugepages
"""

EXAMPLES = r"""
- name: Eight pages of 1 GiB and six CPUs for guests
  ansible.builtin.set_fact:
    wanted: "{{ probe.machine | vfio.host.kernel_parameters(options) }}"
  vars:
    options:
      hugepages:
        - {size: 1GiB, count: 8}
      isolated_cpus: "2-7"
      host_reserve: 4GiB

- name: Stop where that does not fit the machine
  ansible.builtin.assert:
    that: wanted.problems | length == 0
    fail_msg: "{{ wanted.problems | map(attribute='text') | list }}"

- name: Keep them on the command line
  vfio.host.kernel_cmdline:
    parameters: "{{ wanted.parameters }}"
"""

RETURN = r"""
_value:
  description:
    - C(parameters) has the tokens in their order; C(hugepagesz) and the C(hugepages) behind it are a pair.
    - C(problems) has what stands against them, each with C(code), that of a finding, and C(text).
    - C(notes) has sentences worth knowing.
    - C(hugepages) has the pages for M(vfio.host.hugepages), sizes in bytes.
    - C(override) is the value of C(pcie_acs_override) that was asked for, or null.
  type: dict
  sample:
    parameters: [intel_iommu=on, hugepagesz=1G, hugepages=8, "isolcpus=2-7"]
    problems: []
    notes: ["The host keeps CPU 0-1. Nothing runs on CPU 2-7 by itself: pin each vCPU of a guest to one of these."]
    hugepages: []
    override:
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment import parameters
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain


def kernel_parameters(machine, options=None, functions=None, acknowledge=None):
    acknowledged = {"code": parameters.OVERRIDE, "host": parameters.OVERRIDE_HOST}
    return call(
        "kernel_parameters",
        parameters.kernel_parameters,
        plain(machine, "vfio.host.kernel_parameters: the machine document"),
        plain({} if options is None else options, "vfio.host.kernel_parameters: options"),
        plain([] if functions is None else functions, "vfio.host.kernel_parameters: functions"),
        acknowledged in plain([] if acknowledge is None else acknowledge, "vfio.host.kernel_parameters: acknowledge"),
    )


class FilterModule:
    """The filter vfio.host.kernel_parameters."""

    def filters(self):
        return {"kernel_parameters": kernel_parameters}
