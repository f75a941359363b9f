# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Importing from the archive that Ansible sends, in a Python of its own: only then does anything come out of a zip."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.vfio.host.plugins.module_utils import _imports

UTILS = pathlib.Path(_imports.__file__).resolve().parent
INSIDE = "ansible_collections/vfio/host/plugins/module_utils/"

COUNTING = """
import collections, json, os, sys, traceback
archive, steps = sys.argv[1], sys.argv[2:]
sys.path.insert(0, archive)
compiled = collections.Counter()
def audit(event, args):
    if event == "compile" and args[1]:
        name = args[1] if isinstance(args[1], str) else args[1].decode()
        if name.startswith(archive):
            compiled[name[len(archive) + 1:]] += 1
sys.addaudithook(audit)
"""
"""Which files out of the archive were compiled, and how often."""

SCRIPT = COUNTING + """
from ansible_collections.vfio.host.plugins.module_utils import _imports
if "once" in steps:
    _imports.compile_once()
    _imports.compile_once()
from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._hardware import platform
from ansible_collections.vfio.host.plugins.module_utils import _hardware
from ansible_collections.vfio.host.plugins.module_utils import _consequences
try:
    _machine.collect(None)
except AttributeError:
    text = traceback.format_exc()
json.dump({"compiled": compiled, "files": [_machine.__file__, _hardware.__file__, platform.__file__], "traceback": text,
           "hooks": len(sys.path_hooks)}, sys.stdout)
"""

READING = COUNTING + """
from ansible_collections.vfio.host.plugins.module_utils import _machine
from ansible_collections.vfio.host.plugins.module_utils._host import Host
machine = _machine.read(Host(os.devnull))
json.dump({"compiled": compiled, "findings": len(machine["findings"])}, sys.stdout)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("payload") / "payload.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for folder in ("", "vfio/", "vfio/host/", "vfio/host/plugins/", "vfio/host/plugins/module_utils/"):
            target.writestr("ansible_collections/%s__init__.py" % folder, "")
        for file in sorted(UTILS.rglob("*.py")):
            target.write(file, INSIDE + str(file.relative_to(UTILS)))
    return str(path)


def run(archive, *steps, script=SCRIPT):
    argv = [sys.executable, "-c", script, archive, *steps]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=120)
    return json.loads(done.stdout)


def test_each_module_is_compiled_once(archive):
    seen = run(archive, "once")
    ours = {name: count for name, count in seen["compiled"].items()
            if name.startswith(INSIDE) and name not in (INSIDE + "_imports.py", INSIDE + "__init__.py")}
    assert INSIDE + "_machine.py" in ours and INSIDE + "_usage/network.py" in ours
    assert set(ours.values()) == {1}


def test_modules_are_named_as_without_it(archive):
    with_it, without = run(archive, "once"), run(archive)
    assert with_it["files"] == without["files"]
    assert with_it["traceback"] == without["traceback"] and "host.remember = True" in with_it["traceback"]
    assert with_it["hooks"] == without["hooks"] + 1


def test_rules_are_compiled_beside_the_child_that_reads_and_readers_in_it_alone(archive):
    seen = run(archive, script=READING)
    assert seen["findings"]
    assert INSIDE + "_findings/isolation.py" in seen["compiled"]
    readers = {INSIDE + name for name in ("_gathering.py", "_hardware/platform.py", "_usage/block.py")}
    assert not readers & set(seen["compiled"])


def test_other_folders_are_left_to_others(archive, tmp_path):
    for path in (archive, str(tmp_path), str(UTILS)):
        with pytest.raises(ImportError):
            _imports.Importer(path)
