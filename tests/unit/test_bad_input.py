# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile and broken machines: the probe answers with what it knows, names what it could not read, never raises."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._hardware import acs, config_space, names, platform, prediction
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import config_space as make_config
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67
from ansible_collections.vfio.host.tests.unit.machines import P8H67, build, function, refresh
from ansible_collections.vfio.host.tests.unit.test_document_schema import VALIDATOR

BYTES = st.binary(max_size=300) | st.sampled_from([b"", b"\0" * 64, b"\xff" * 4096, b"\xff" * 64, b"\n", b"-1\n", b"\x80\xfe"])


def document(root):
    """The document of a tree, which must be plain data of the schema."""
    machine = json.loads(json.dumps(_machine.collect(Host(str(root)))))
    errors = ["%s: %s" % ("/".join(map(str, e.absolute_path)), e.message) for e in VALIDATOR.iter_errors(machine)]
    assert errors == []
    return machine


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    p8h67(folder, iommu=False)
    return folder


@pytest.fixture
def tree(original, tmp_path):
    shutil.copytree(str(original), str(tmp_path / "tree"), symlinks=True)
    return tmp_path / "tree"


def files(tree):
    found = []
    for folder, dummy, listed in os.walk(str(tree)):
        found += [os.path.join(folder, name) for name in listed if not os.path.islink(os.path.join(folder, name))]
    return sorted(found)


def links(tree):
    found = []
    for folder, folders, listed in os.walk(str(tree)):
        found += [os.path.join(folder, name) for name in folders + listed if os.path.islink(os.path.join(folder, name))]
    return sorted(found)


# -- bytes --------------------------------------------------------------------------------------------


@given(st.binary(max_size=4096))
@settings(max_examples=400, deadline=None)
def test_any_configuration_space_is_described(data):
    found = config_space.describe(config_space.trim(data))
    assert set(found) == set(config_space.BLANK)
    json.dumps(found)


@given(st.binary(min_size=64, max_size=64), st.integers(0, 4096), st.data())
@settings(max_examples=200, deadline=None)
def test_a_capability_list_with_loops_ends(head, size, data):
    body = bytearray(head + bytes(4032))
    body[0x06] |= 0x10
    for dummy in range(40):  # pointers at random places: loops, and past the end
        at = data.draw(st.integers(0x34, 4092))
        body[at:at + 4] = data.draw(st.integers(0, 0xFFFFFFFF)).to_bytes(4, "little")
    json.dumps(config_space.describe(bytes(body[:size])))


@given(st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_any_rom_and_any_dmar_table_is_read(data):
    json.dumps(config_space.rom_images(b"\x55\xaa" + data))
    json.dumps(platform.parse_rmrr(bytes(48) + data, {}))
    json.dumps(platform.parse_rmrr(bytes(48) + b"\x01\x00" + data, {"0000:00:01.0": 1}))
    platform.parse_drhd(bytes(48) + data, {"0000:00:01.0": 1})
    platform.parse_ivrs(bytes(48) + b"\x10\x00" + data)


@given(st.text(max_size=400), st.sampled_from(["8086", "ffff", "\x00", ""]))
@settings(max_examples=200, deadline=None)
def test_hostile_pci_ids_and_modules_alias(text, vendor):
    names.pci_names(text + "\n8086  \t\n\t10d3", {("8086", "10d3"), (vendor, "0001")})
    names.modules_for("alias pci:v" + text + "\nalias pci:v*", ["pci:v00008086d000010D3sv*", "", "pci:" + vendor])
    names.builtin_for(text + "\0x.alias=pci:v[", ["pci:v00008086d000010D3"])
    platform.parse_config(text)
    platform.cpu(text)
    platform.machine(text)


# -- whole trees --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_files_with_other_contents(tree, seed):
    rng = random.Random(seed)
    for path in rng.sample(files(tree), 40):
        data = rng.choice([b"", b"\0" * 4096, b"\xff" * 4096, bytes(rng.randrange(256) for dummy in range(300)), b"\x80\n", b"-1\n",
                           b"99999999999999999999999\n", b"0x\n", b"/../../..\n"])
        with open(path, "wb") as handle:
            handle.write(data)
    document(tree)


@pytest.mark.parametrize("seed", range(25))
def test_files_and_links_that_are_gone_or_something_else(tree, seed):
    rng = random.Random(seed)
    for path in rng.sample(files(tree), 25) + rng.sample(links(tree), 15):
        os.unlink(path)
        kind = rng.randrange(6)
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            os.mkdir(path)
        elif kind == 2:
            os.symlink(os.path.basename(path), path)  # a loop
        elif kind == 3:
            os.symlink("../nowhere", path)
        elif kind == 4:
            os.symlink("/", path)
    document(tree)


def test_what_vanishes_between_two_reads_is_missing(original):
    class Vanishing(Host):
        """Every third read finds nothing any more."""

        def read_bytes(self, path, *args, **options):
            return None if self.accesses % 3 == 0 else super().read_bytes(path, *args, **options)

        def read_folder(self, path, *args, **options):
            found = super().read_folder(path, *args, **options)
            return {name: None if number % 3 == 0 else data for number, (name, data) in enumerate(found.items())}

    machine = _machine.collect(Vanishing(str(original)))
    assert machine["source"]["missing"]
    assert not list(VALIDATOR.iter_errors(json.loads(json.dumps(machine))))


def test_names_that_are_no_utf8(tree):
    for folder in ("sys/bus/pci/devices", "sys/class/net", "sys/class/block", "sys/kernel/iommu_groups", "sys/class/iommu"):
        os.makedirs(os.fsencode(str(tree / folder)), exist_ok=True)
        os.mkdir(os.path.join(os.fsencode(str(tree / folder)), b"\xff\xfe:\x80"))
    document(tree)


def test_a_group_without_members(tree):
    os.makedirs(str(tree / "sys/kernel/iommu_groups/7/devices"))
    os.makedirs(str(tree / "sys/kernel/iommu_groups/none/devices"))
    assert {group["source"] for group in document(tree)["groups"]} == {"predicted"}


def test_a_link_to_a_group_that_is_not_there(tmp_path):
    machine = p8h67(tmp_path)
    shutil.rmtree(machine.outside("/sys/kernel/iommu_groups/5"))
    found = document(tmp_path)
    assert ["0000:00:19.0"] in [group["members"] for group in found["groups"]]


def test_only_ids_and_class(tree):
    """A tree of vendor, device and class alone: the ids of the chipset's ports are all there is."""
    bare = tree.parent / "bare"
    for address, identifier, code in (("0000:00:1c.0", "8086:1c10", "060400"), ("0000:00:1c.5", "8086:1c1a", "060400")):
        home = bare / "sys/devices/pci0000:00" / address
        home.mkdir(parents=True)
        for name, value in (("vendor", identifier[:4]), ("device", identifier[5:]), ("class", code)):
            (home / name).write_bytes(b"0x" + value.encode() + b"\n" + b"\0" * 4000)
        (bare / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
        os.symlink("../../../devices/pci0000:00/" + address, str(bare / "sys/bus/pci/devices" / address))
    machine = document(bare)
    assert [f["id"] for f in machine["functions"]] == ["8086:1c10", "8086:1c1a"]
    assert {group["confidence"] for group in machine["groups"]} == {"partial"}
    assert {f["assignment"]["verdict"] for f in machine["functions"]} == {"never"}


def test_a_tree_copied_without_privilege(original, tmp_path):
    """tar pads the 64 bytes that it gets with zeros to the size it was told, and copies /proc files as empty."""
    copied = tmp_path / "copied"
    shutil.copytree(str(original), str(copied), symlinks=True)
    for path in files(copied):
        inside = os.path.relpath(path, str(copied))
        size = os.path.getsize(path)
        if inside.startswith("sys"):
            keep = 64 if path.endswith("/config") else size
            with open(path, "rb+") as handle:
                handle.truncate(keep)
                handle.truncate(max(size, 4096) if not path.endswith("/config") else size)
        elif inside.startswith("proc"):
            with open(path, "wb"):
                pass
    machine = document(copied)
    whole = document(original)
    assert [f["id"] for f in machine["functions"]] == [f["id"] for f in whole["functions"]]
    assert [f["driver"] for f in machine["functions"]] == [f["driver"] for f in whole["functions"]]
    by_address = {f["address"]: f for f in machine["functions"]}
    assert by_address["0000:01:00.0"]["capabilities"] is None and by_address["0000:01:00.0"]["config_bytes"] == 64
    assert {"disk", "ssh"} <= set(machine["host"]["usage_unknown"])
    assert by_address["0000:02:00.0"]["assignment"]["verdict"] != "assignable"


def test_ten_thousand_functions(tmp_path):
    text = "\n".join("%04x:%02x:%02x.%d endpoint 8086:10ca ethernet" % (n >> 16, n >> 8 & 0xFF, n >> 3 & 0x1F, n & 7)
                     for n in range(10000))
    functions = [function(line) for line in text.splitlines()]
    assert len(prediction.predict(functions, acs.assumptions())) == 10000
    machine = build("")
    machine["functions"] = functions
    found = refresh(machine)
    assert len(found["groups"]) == 10000 and len(found["findings"]) < 200


@pytest.mark.parametrize("seed", range(20))
def test_documents_with_unknowns_anywhere_are_judged(seed):
    """Each field that may be null is null at random: rules and verdicts cope, and nothing becomes assignable by it."""
    rng = random.Random(seed)
    machine = build(P8H67)
    for one in machine["functions"]:
        for field in ("capabilities", "multifunction", "is_bridge", "driver", "reset_methods", "link", "resizable_bars", "rmrr",
                      "holders", "modalias", "revision", "numa_node", "irq", "power_state", "d3cold_allowed"):
            if rng.random() < 0.4:
                one[field] = None
        if rng.random() < 0.3:
            one["port_type"] = "unknown"
        if rng.random() < 0.2:
            one["parent"] = rng.choice(["0000:7f:00.0", machine["functions"][0]["address"], one["address"]])
    host = machine["host"]
    for section in ("kernel", "iommu", "product", "cpu", "memory"):
        for field in list(host[section]):
            if field not in ("cmdline", "active", "units", "reason", "quirk_table", "hugepages", "count") and rng.random() < 0.4:
                host[section][field] = None
    found = refresh(machine)
    for one in found["functions"]:
        if one["port_type"] == "unknown" and not one["is_bridge"]:
            assert one["assignment"]["verdict"] != "assignable", one["address"]


def test_a_silent_function_is_never_assignable(tmp_path):
    machine = p8h67(tmp_path, iommu=False)
    for data in (b"\xff" * 4096, b"", b"\0" * 4096, make_config(0x8086, 1, 0x020000, express=0)[:65]):
        machine.write(machine.homes["0000:02:00.0"] + "/config", data)
        found = {f["address"]: f for f in document(tmp_path)["functions"]}["0000:02:00.0"]
        assert found["capabilities"] is None
        assert found["assignment"]["verdict"] not in ("assignable", "with_group")
