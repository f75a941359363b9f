# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: plan
short_description: Decide which PCI functions of a host are handed to guests
version_added: "0.1.0"
author:
  - vfio.host contributors (@vfio-host)
description:
  - Computes from the machine document which functions a list of devices means, which IOMMU groups they close
    over, and every finding that speaks for or against handing them over.
  - Changes nothing and asks nobody. The same input always gives the same plan.
  - While the IOMMU is active the plan works on its actual groups, else on a conservative prediction,
    which finding C(VH110) says.
positional: devices
requirements:
  - jmespath on the controller, for a device selected by C(match)
options:
  _input:
    description:
      - The machine document, RV(vfio.host.iommu_info#module:machine).
    type: dict
    required: true
  devices:
    description:
      - The devices to hand over. Each has a C(name) that no other has, and exactly one of C(address), C(slot), C(id),
        C(serial), C(behind), C(usb_of), C(vf_of) and C(match).
      - C(address) is a function like V(0000:01:00.0) or a whole slot like V(0000:01:00); V(0000:) may be left out.
        Write it in quotes, YAML reads V(01:00.0) as a number.
      - C(id) is vendor and device, like V(10de:1380).
      - C(slot) is a slot like V(0000:01:00).
      - C(serial) is the device serial number, like V(52-54-00-ff-ff-12-34-56); it tells twins apart wherever they are.
      - C(behind) is the address of a port or bridge; everything below it but further bridges is meant, whatever the bus
        numbers are today.
      - C(usb_of) is a USB port as in C(/sys/bus/usb/devices), like V(1-3) or V(usb1-port3), or the id of a device that
        is plugged in, like V(046d:c52b); the controller that it is on is meant.
      - C(vf_of) is the address of a physical function of SR-IOV; its virtual functions are meant, with C(index) the one
        of this number, which P(vfio.host.sriov#role) gives it too. They must be there.
      - C(match) is a JMESPath expression over one function of the machine document.
      - C(functions) is V(all) (the default, every function of the slot) or V(listed) (only what was selected). A
        virtual function is a device of its own in either case, and a physical one does not come with its virtual ones.
      - C(count) is the number of slots the selector must give, V(1) by default; each virtual function counts as one.
      - C(exclude) is a list of addresses, slots and ids that are left out, before it is counted.
      - C(driver) is V(vfio-pci) (the default), a variant of it like V(mlx5_vfio_pci), or V(best), as
        O(vfio.host.vfio_binding#module:devices[].driver) takes it.
    type: list
    elements: dict
    required: true
  acknowledge:
    description:
      - Findings that are accepted, each by C(code) for exactly one C(device), the address of a function. An
        acknowledged finding no longer refuses the plan.
      - A finding about the host as a whole is accepted by C(code) and C(host), the word that the finding has there,
        like the C(code) V(VH142) with the C(host) V(acs_override).
    type: list
    elements: dict
    default: []
  kernel:
    description:
      - What is asked of the kernel command line, the options of P(vfio.host.kernel_parameters#filter). C(iommu) is by
        default whether there are O(devices). What does not fit the machine is a finding.
    type: dict
    default: {}
    version_added: "0.3.0"
seealso:
  - plugin: vfio.host.report
    plugin_type: filter
  - plugin: vfio.host.verify
    plugin_type: filter
  - plugin: vfio.host.kernel_parameters
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Probe the host
  vfio.host.iommu_info:
  register: probe

- name: Decide, and stop where the host would lose something it needs
  ansible.builtin.assert:
    that: not plan.refused
    fail_msg: "{{ plan | vfio.host.report(probe.machine) | join('\n') }}"
  vars:
    devices:
      - name: gaming_gpu
        match: "vendor == '10de' && class_name == 'vga'"
    plan: "{{ probe.machine | vfio.host.plan(devices, acknowledge=[{'code': 'VH203', 'device': '0000:01:00.0'}]) }}"
"""

RETURN = r"""
_value:
  description:
    - The plan. C(devices) has for each device its C(name), the C(selected) addresses, the C(functions) as
      identities, the C(group_members), the bridges among them that are left alone (C(companions)), and whether the
      groups are V(actual) or V(predicted) (C(confidence)).
    - C(identities) has every function to bind, sorted by address, with C(address), C(vendor), C(device),
      C(subsystem_vendor), C(subsystem_device), C(class), C(serial), the C(name) of its device, and C(driver) where the
      device names one. It is filled for a refused plan too.
    - C(findings) has the findings, the worst first, each with C(code), C(severity) (V(refuse), V(warn), V(info)),
      C(title), C(evidence), C(remedy), C(docs), C(acknowledged), and C(device) or C(host).
    - C(parameters) has the tokens for the kernel command line, C(hugepages) the pools for M(vfio.host.hugepages), and
      C(notes) what is worth knowing of both, see P(vfio.host.kernel_parameters#filter).
    - C(refused) is V(true) when a finding refuses the plan.
  type: dict
"""

from ansible_collections.vfio.host.plugins.module_utils._assignment.plan import make_plan
from ansible_collections.vfio.host.plugins.plugin_utils._filters import call, plain
from ansible_collections.vfio.host.plugins.plugin_utils._jmespath import matching


def plan(machine, devices, acknowledge=None, kernel=None):
    return call(
        "plan",
        make_plan,
        plain(machine, "vfio.host.plan: the machine document"),
        plain(devices, "vfio.host.plan: devices"),
        plain([] if acknowledge is None else acknowledge, "vfio.host.plan: acknowledge"),
        matching,
        plain({} if kernel is None else kernel, "vfio.host.plan: kernel"),
    )


class FilterModule:
    """The filter vfio.host.plan."""

    def filters(self):
        return {"plan": plan}
