# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Reading with a memory of what could not be read."""

from __future__ import annotations


class Inputs:
    """A Host, and the list of inputs that were missing: ``[{input, why}]``.

    ``why`` says what is unknown because of it, so that a reader of the document can judge.
    """

    def __init__(self, host):
        self.host = host
        self.missing = []

    def miss(self, name, why):
        self.missing.append({"input": name, "why": why})

    def text(self, path, why):
        """Text of a file; an empty string, and a note, when it cannot be read."""
        text = self.host.read(path)
        if text is None:
            self.miss(path, why)
            return ""
        return text
