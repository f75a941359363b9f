# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deadlines and error texts of the door to libvirt."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.vfio.host.plugins.module_utils._guest.connection import Libvirt, call
from ansible_collections.vfio.host.plugins.module_utils._host import HostError, HostTimeout
from fake_libvirt import FakeConnection, FakeError


def test_a_call_that_does_not_come_back_is_left_behind():
    release = threading.Event()
    begin = time.monotonic()
    with pytest.raises(HostTimeout, match="starting it: libvirt did not answer within 0.05 s"):
        call("starting it", 0.05, release.wait, 5)
    assert time.monotonic() - begin < 2
    release.set()


def test_errors_name_the_guest_and_keep_the_text():
    connection = FakeConnection()
    with pytest.raises(HostError, match="guest desk1: starting it: Domain not found"):
        Libvirt(connection).start("desk1")


def test_open_silences_the_binding_and_reports_who_does_not_listen():
    class Binding:
        handler = None

        def registerErrorHandler(self, handler, context):
            self.handler = handler

        def open(self, uri):
            raise FakeError("Failed to connect socket to '/var/run/libvirt/libvirt-sock'")

    binding = Binding()
    with pytest.raises(HostError, match="libvirt at qemu:///system: Failed to connect socket"):
        Libvirt.open(binding, "qemu:///system", 5)
    assert binding.handler is not None
