# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine document against its JSON Schema, and the schema against the page that explains it."""

from __future__ import annotations

import json
import os
import re
import tarfile

import jsonschema
import pytest

from ansible_collections.vfio.host.plugins.module_utils._hardware import pci
from ansible_collections.vfio.host.plugins.module_utils._host import Host
from ansible_collections.vfio.host.plugins.module_utils._machine import collect
from ansible_collections.vfio.host.tests.unit.hardware.fake_machine import p8h67
from ansible_collections.vfio.host.tests.unit.machines import build, p8h67_on

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(os.path.join(CHECKOUT, "docs", "machine_document.schema.json"), encoding="utf-8") as handle:
    SCHEMA = json.load(handle)
with open(os.path.join(CHECKOUT, "docs", "machine_document.md"), encoding="utf-8") as handle:
    PAGE = handle.read()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def recorded(name, folder):
    with tarfile.open(os.path.join(CHECKOUT, "tests", "corpus", "lab-%s.tar.xz" % name)) as archive:
        archive.extractall(str(folder), **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return collect(Host(str(folder)))


DOCUMENTS = {
    "lab off": lambda folder: recorded("off", folder),
    "lab on": lambda folder: recorded("on", folder),
    "lab amd": lambda folder: recorded("amd", folder),
    "fake on": lambda folder: collect(Host(p8h67(folder).root)),
    "fake off": lambda folder: collect(Host(p8h67(folder, iommu=False).root)),
    "nothing": lambda folder: collect(Host(str(folder))),
    "this machine": lambda folder: collect(Host()),
    "built off": lambda folder: build(),
    "built on": lambda folder: p8h67_on(),
}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_document_is_of_the_schema_and_has_no_field_that_it_does_not_name(name, tmp_path):
    machine = json.loads(json.dumps(DOCUMENTS[name](tmp_path)))
    errors = ["%s: %s" % ("/".join(map(str, e.absolute_path)), e.message) for e in VALIDATOR.iter_errors(machine)]
    assert errors == []
    assert list(unnamed(machine, SCHEMA, "")) == []


def unnamed(value, schema, place):
    """Fields of a document that the schema does not name."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", ()):
        yield from unnamed(value, option, place)
    if isinstance(value, dict) and "properties" in schema:
        for key, below in value.items():
            if key in schema["properties"]:
                yield from unnamed(below, schema["properties"][key], place + "/" + key)
            elif not (key in ("device", "group", "host") and "code" in value):
                yield place + "/" + key
    if isinstance(value, list) and "items" in schema:
        for below in value:
            yield from unnamed(below, schema["items"], place)


@pytest.mark.parametrize("change", [
    lambda m: m.update(schema=1),
    lambda m: m["functions"][0].update(port_type="bridge"),
    lambda m: m["functions"][0].pop("isolates"),
    lambda m: m["groups"][0].update(source="guess"),
    lambda m: m["groups"][0].update(members=[]),
    lambda m: m["host"].update(usage_unknown=["what"]),
    lambda m: m["findings"][0].pop(next(k for k in ("device", "group", "host") if k in m["findings"][0])),
])
def test_another_form_is_not_of_the_schema(change):
    machine = build()
    change(machine)
    assert not VALIDATOR.is_valid(machine)


def test_a_blank_function_has_every_field():
    assert set(pci.blank("0000:00:00.0")) == set(SCHEMA["$defs"]["function"]["properties"])


def test_the_page_names_every_field():
    for part in ("function", "group", "interface"):
        for field in SCHEMA["$defs"][part]["properties"]:
            assert re.search(r"`%s`" % field, PAGE), "%s of %s" % (field, part)
    for section, schema in SCHEMA["$defs"]["host"]["properties"].items():
        assert re.search(r"`%s[`.]" % section, PAGE), section
        for field in schema.get("properties", {}):
            assert re.search(r"`(%s\.)?%s`|[`{ ]%s[,}:]" % (section, field, field), PAGE), "%s.%s" % (section, field)
