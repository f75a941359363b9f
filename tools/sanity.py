# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ``ansible-test sanity`` on the collection as a user would install it: built, then unpacked.

ansible-test insists on a real path ``ansible_collections/<namespace>/<name>``; the tarball gives
it one and is tried on the way. Arguments go to ansible-test.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys

import bootstrap

PLACE = os.path.join(bootstrap.BUILD, "sanity")
HOME = os.path.join(bootstrap.BUILD, "sanity-home")
COLLECTION = os.path.join(PLACE, "ansible_collections", "vfio", "host")


def pyenv_folders(environ):
    """The folders of pyenv's real interpreters, newest first; the shims in PATH do not run for ansible-test."""
    root = environ.get("PYENV_ROOT") or os.path.join(environ.get("HOME", "/"), ".pyenv")
    folders = [path for path in glob.glob(os.path.join(root, "versions", "*", "bin"))
               if os.path.basename(os.path.dirname(path)).replace(".", "").isdigit()]
    return sorted(folders, key=lambda path: [int(part) for part in path.split("/")[-2].split(".")], reverse=True)


def sanity_environment(environ):
    """Like ``bootstrap.environment``, with a home of its own and every real Python in PATH."""
    env = bootstrap.environment(environ)
    venv, dummy, rest = env["PATH"].partition(os.pathsep)
    return dict(env, HOME=HOME, PATH=os.pathsep.join([venv] + pyenv_folders(environ) + [rest]))


def make_home(user_home):
    """The home of ansible-test: its caches, our get-pip, and the user's pip settings."""
    cache = os.path.join(HOME, ".ansible", "test", "cache")
    os.makedirs(cache, exist_ok=True)
    script = os.path.join(bootstrap.CHECKOUT, "tools", "get_pip.py")
    for version in pip_versions():
        shutil.copyfile(script, os.path.join(cache, "get_pip_%s.py" % version.replace(".", "_")))
    for name in (".config/pip", ".pip"):
        link, target = os.path.join(HOME, name), os.path.join(user_home, name)
        if os.path.exists(target) and not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(target, link)


def pip_versions():
    """The versions of pip that the installed ansible-test asks get-pip for."""
    package = os.path.dirname(importlib.util.find_spec("ansible_test").origin)
    with open(os.path.join(package, "_internal", "python_requirements.py"), encoding="utf-8") as source:
        return sorted(set(re.findall(r"pip='([0-9.]+)'", source.read())))


def call(argv, env, cwd=bootstrap.CHECKOUT):
    print("$ " + " ".join(argv), flush=True)
    return subprocess.call(argv, env=env, cwd=cwd)


def main():
    make_home(os.path.expanduser("~"))
    shutil.rmtree(PLACE, ignore_errors=True)
    env = dict(sanity_environment(os.environ), ANSIBLE_COLLECTIONS_PATH=PLACE)
    status = call(["ansible-galaxy", "collection", "build", "--output-path", PLACE], env)
    for tarball in glob.glob(os.path.join(PLACE, "*.tar.gz")):
        status = status or call(
            ["ansible-galaxy", "collection", "install", "--force", "--no-deps", "-p", PLACE, tarball], env)
    return status or sanity(sys.argv[1:], env)


def sanity(arguments, env):
    """ansible-test itself. That it found something to test is checked: it calls "nothing to do" a success."""
    # without the variable it would ask the git of the checkout, which ignores this folder
    env = dict(env, ANSIBLE_TEST_CONTENT_ROOT=COLLECTION)
    tests = 0
    argv = ["ansible-test", "sanity", "--color", "no"] + arguments
    with subprocess.Popen(argv, cwd=COLLECTION, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            tests += line.startswith("Running sanity test")
    if process.returncode == 0 and not tests:
        print("ERROR: ansible-test found nothing to test")
        return 1
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
