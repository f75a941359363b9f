# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.systemd_boot_host import Arch, Debian


@pytest.mark.parametrize("kind", [Debian, Arch], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_contract(tmp_path_factory, promise, kind):
    promise(lambda: kind(str(tmp_path_factory.mktemp("host"))), "systemd_boot")
