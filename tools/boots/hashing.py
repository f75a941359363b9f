# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a lab host, from standard input: ``{path: type, mode, owner and hash or target}`` of all below the arguments."""

import hashlib
import json
import os
import stat
import sys

found = {}


def look(path):
    status = os.lstat(path)
    owner = "%o:%d:%d" % (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        found[path] = "link " + os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        digest = hashlib.sha256()
        with open(path, "rb") as handle:
            for chunk in iter(lambda: handle.read(1 << 20), b""):  # a file that fills a disk is larger than the memory
                digest.update(chunk)
        found[path] = "file %s %s" % (owner, digest.hexdigest())
    elif stat.S_ISDIR(status.st_mode):
        found[path] = "folder " + owner
        for name in os.listdir(path):
            look(path + "/" + name)


for folder in sys.argv[1:]:
    if os.path.lexists(folder):
        look(folder)
print(json.dumps(found, sort_keys=True))
