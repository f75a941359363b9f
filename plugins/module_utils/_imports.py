# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Importing from the zip archive in which Ansible sends a module, at half the cost.

Python's zipimport compiles a module in order to tell its file's name, throws that away, and compiles it again to run
it. There is nothing compiled in the archive, so that is most of what a large module costs.
"""

from __future__ import annotations

import sys
import zipimport

_OURS = "/ansible_collections/vfio/host/"


class Importer(zipimport.zipimporter):
    """The standard one, for folders of this collection only, with a file's name that is not looked for in code."""

    def __init__(self, path):
        if _OURS not in path:
            raise ImportError("not of this collection: %s" % path)
        super().__init__(path)

    def get_filename(self, fullname):
        ending = "/__init__.py" if self.is_package(fullname) else ".py"
        return "%s/%s%s%s" % (self.archive, self.prefix, fullname.rpartition(".")[2], ending)


def compile_once():
    """From here on. Does nothing where the collection's files are files, as in tests."""
    if Importer not in sys.path_hooks:
        sys.path_hooks.insert(0, Importer)
        for path, importer in list(sys.path_importer_cache.items()):
            if _OURS in path and isinstance(importer, zipimport.zipimporter) and not isinstance(importer, Importer):
                del sys.path_importer_cache[path]
