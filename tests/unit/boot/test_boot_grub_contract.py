# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB keeps the promises of every boot loader, with drop-ins and without."""

from __future__ import annotations

import pytest
from ansible_collections.vfio.host.plugins.module_utils._host import Result
from ansible_collections.vfio.host.tests.unit.boot import loader_contract
from ansible_collections.vfio.host.tests.unit.boot.grub_host import GrubHost


def broken(host):
    def fail(argv):
        host.write(argv[2], "half")
        host.write(argv[2] + ".new", "half")
        return Result(argv, 1, "", "no space left")

    host.fail = fail


def hindered(host):
    """What comes behind our drop-in sets the variable anew; without drop-ins only a shell knows what it comes to."""
    if host.drop_ins:
        host.write("/etc/default/grub.d/99-local.cfg", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    else:
        host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="$(cat /etc/more)"\n')


SUSE = "A=1\nGRUB_CMDLINE_LINUX_DEFAULT='quiet  '"  # no end of line

HOSTS = {
    "grub": {},
    "grub_in_place grub2": {"drop_ins": False, "prefix": "grub2", "defaults": SUSE},
}


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("promise", loader_contract.PROMISES, ids=lambda promise: promise.__name__)
def test_contract(tmp_path_factory, promise, name):
    def make():
        return GrubHost(str(tmp_path_factory.mktemp("host")), **HOSTS[name])

    promise(make, name.split(" ")[0], broken=broken, hindered=hindered)
