# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit's filters, and the script behind ``make audit``."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.vfio.host.plugins.filter import audit_file, audit_html, audit_index, audit_json, audit_text
from ansible_collections.vfio.host.tests.unit.report import documents


def test_filters_give_what_a_playbook_writes():
    machine = documents.listing1()
    assert audit_text.audit_text(machine, "desk")[0] == "desk"
    assert "<h1>desk</h1>" in audit_html.audit_html(machine, "desk") and "All hosts" not in audit_html.audit_html(
        machine, "desk"
    )
    assert 'href="index.html">All hosts' in audit_html.audit_html(machine, "desk", index="index.html")
    assert json.loads(audit_json.audit_json(machine))["schema"] == machine["schema"]
    assert audit_file.audit_file("desk", "html") == "desk.html"


def test_index_takes_results_of_the_module():
    results = [
        {"machine": documents.listing1()},
        {"unreachable": True, "msg": "No route"},
        {},
        {"module_stderr": "no python"},
    ]
    page = audit_index.audit_index(["a", "b", "c", "d"], results, pages=["a", "b"])
    assert 'href="a.html"' in page and "b.html" not in page
    assert "No route" in page and "the host gave no answer" in page and "no python" in page
    with pytest.raises(AnsibleFilterError, match="2 names and 1 results"):
        audit_index.audit_index(["a", "b"], results[:1])


@pytest.mark.parametrize("call", [audit_text.audit_text, audit_html.audit_html, audit_json.audit_json])
def test_what_is_no_document_is_an_error_that_names_the_filter(call):
    with pytest.raises(AnsibleFilterError, match="vfio.host." + call.__name__):
        call({"schema": 1})


def test_make_audit_without_ansible_on_this_machine(tmp_path):
    script = os.path.join(documents.CHECKOUT, "tools", "audit.py")
    for dummy in range(2):
        done = subprocess.run(
            [sys.executable, "-S", "-E", script, str(tmp_path / "out")],
            check=True,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath},
        )
        text = done.stdout.decode()
        assert "The IOMMU is o" in text and "Written: " in text
    files = sorted(os.listdir(str(tmp_path / "out")))
    assert [name.rpartition(".")[2] for name in files] == ["html", "json"]
    assert all(stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) == 0o600 for name in files)


def test_make_audit_says_when_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, os.path.join(documents.CHECKOUT, "tools", "audit.py"), str(tmp_path / "file" / "below")],
        check=False,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 1 and b"not written" in done.stderr and b"The IOMMU is o" in done.stdout
