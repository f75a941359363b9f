# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison, against what libvirt 9.0 really made of our definitions."""

from __future__ import annotations

import pathlib

import guest_samples
import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest import canonical as form
from ansible_collections.vfio.host.plugins.module_utils._guest import domain, spec
from ansible_collections.vfio.host.plugins.module_utils._guest.merge import carry_over

RECORDED = pathlib.Path(__file__).parent / "recorded"


def recorded(name):
    return form.canonical(form.parse((RECORDED / (name + ".xml")).read_text()))


def wanted(raw, virt_type="kvm"):
    return form.canonical(domain.build(spec.normalise([raw])[0], guest_samples.MACHINE_ID, virt_type))


def found(raw, name):
    actual = recorded(name)
    return form.differences(carry_over(wanted(raw), actual), actual)


@pytest.mark.parametrize("name", sorted(guest_samples.ALL))
def test_what_libvirt_made_of_a_definition_is_no_difference(name):
    assert found(guest_samples.ALL[name](), name) == []


@pytest.mark.parametrize("name", sorted(guest_samples.ALL))
def test_nothing_even_needs_carrying_over(name):
    assert form.differences(wanted(guest_samples.ALL[name]()), recorded(name)) == []


def test_a_running_guest_as_libvirt_shows_it_is_no_difference():
    raw = {"name": "live", "memory": "128MiB", "vcpus": 2, "display": "vnc", "disks": [{"path": "/srv/r.raw"}]}
    actual = recorded("live")
    mine = carry_over(wanted(raw, "qemu"), actual)
    mine.find("cpu").set("mode", "maximum")  # recorded without hardware virtualisation
    assert form.differences(mine, actual) == []
    mine.find("memory").text = "1"
    assert form.differences(mine, actual) == ["domain/memory: 131072, wanted 1"]


@pytest.mark.parametrize(
    ("name", "change", "difference"),
    [
        ("minimal", {"memory": "64MiB"}, "domain/memory: 131072, wanted 65536"),
        ("minimal", {"vcpus": 2}, "domain/vcpu: 1, wanted 2"),
        ("minimal", {"display": "none"}, "domain/devices/graphics[vnc]: there, not wanted"),
        ("minimal", {"network": "br0"}, "domain/devices/interface[52:54:00:a1:fc:74]: missing"),
        ("minimal", {"disks": [{"path": "/d"}]}, "domain/devices/disk[vda]: missing"),
        ("minimal", {"kernel": "/k"}, "domain/os/kernel: missing"),
        ("kernel", {"cmdline": None}, "domain/os/cmdline: there, not wanted"),
        ("kernel", {"cmdline": "x"}, "domain/os/cmdline: console=ttyS0 a=\"b & <c>\", wanted x"),
        ("kernel", {"serial_log": None}, "domain/devices/serial@type: file, wanted pty"),
        ("devices", {"network": None}, "domain/devices/interface[52:54:00:be:5d:cd]: there, not wanted"),
        ("devices", {"network": "br1"}, "domain/devices/interface[52:54:00:be:5d:cd]/source@bridge: br0, wanted br1"),
        ("devices", {"disks": [{"path": "/srv/a.raw"}]}, "domain/devices/disk[vdb]: there, not wanted"),
        (
            "devices",
            {"disks": [{"path": "/srv/a.raw"}, {"path": "/dev/sdz"}]},
            "domain/devices/disk[vdb]/readonly: there, not wanted",
        ),
        (
            "devices",
            {"devices": guest_samples.devices()["devices"][:1]},
            "domain/devices/hostdev[0000:03:00.2]: there, not wanted",
        ),
    ],
)
def test_each_change_is_seen_with_its_path(name, change, difference):
    assert difference in found(dict(guest_samples.ALL[name](), **change), name)


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("devices/hostdev/address", "multifunction", "off"),
        ("devices/hostdev/address", "bus", "0x09"),
        ("devices/hostdev", "managed", "yes"),
        ("devices/controller[@index='1']", "model", "pcie-to-pci-bridge"),
        ("devices/memballoon", "model", "virtio"),
        ("devices/disk/driver", "type", "qcow2"),
        ("os", "firmware", "efi"),
        ("vcpu", "current", "1"),
        ("os/type", "machine", "pc-i440fx-7.2"),
    ],
)
def test_each_change_by_somebody_else_is_seen(path, attribute, value):
    actual = recorded("devices")
    actual.find(path).set(attribute, value)
    assert form.differences(wanted(guest_samples.devices()), actual)


def test_one_form_for_units_numbers_and_case():
    text = "<d><memory unit='GiB'>1</memory><uuid>AB</uuid><mac address='52:54:00:AA:00:01'/><address bus='%s'/></d>"
    one, two = (form.canonical(form.parse(text % bus)) for bus in ("10", "0x0A"))
    assert form.render(one) == form.render(two)
    assert one.findtext("memory") == "1048576"
    assert one.findtext("uuid") == "ab"
    assert one.find("mac").get("address") == "52:54:00:aa:00:01"


def test_foreign_namespaces_keep_their_prefix():
    text = form.render(form.parse((RECORDED / "foreign.xml").read_text()))
    assert "<qemu:arg value=" in text
    assert "<libosinfo:os id=" in text
    assert "ns0" not in text


def test_passwords_stay_out_of_diffs():
    tree = form.parse("<d><graphics passwd='hush'/></d>")
    assert "hush" not in form.render(form.redact(tree))
    assert "hush" in form.render(tree)


def test_rendering_is_a_fixed_point():
    text = form.render(recorded("devices"))
    assert form.render(form.canonical(form.parse(text))) == text
    assert "\n  <name>" in text
