# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.systemd_boot_host import DebianUki


def broken(host):
    def fail(argv, env):
        host.put("%s/EFI/Linux/half.efi" % env["BOOT_ROOT"], "MZ")
        return Result(argv, 1, "", "no space left")

    host.fail = fail


@pytest.mark.parametrize("kind", [DebianUki], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_contract(tmp_path_factory, promise, kind):
    promise(lambda: kind(str(tmp_path_factory.mktemp("host"))), "uki", broken=broken)
