# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the get-pip script that ansible-test would download, so that sanity needs only the package index.

ansible-test runs it with the Python of a new virtual environment: ``get_pip.py <pip options> pip==25.2 ...``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

OPTIONS = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
# as a child: in this process ensurepip would hide pip's configuration from the installation that follows
if subprocess.call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL) == 0:
    PIP = [sys.executable, "-m", "pip"]
else:  # Debian's Python without python3-venv: let the pip of our environment do it
    PIP = [shutil.which("pip"), "--python", sys.executable]
subprocess.check_call(PIP + ["install", "--quiet"] + OPTIONS)
