# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands need: system packages, a Python environment, the collection's path, variables.

Standard library only and Python 3.9, since it works before anything is installed.
Only ``install_packages`` uses sudo.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys

from stages import StageError

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(CHECKOUT, ".build")
VENV = os.path.join(BUILD, "venv")
COLLECTIONS = os.path.join(BUILD, "collections")
PACKAGES = os.path.join(CHECKOUT, "tools", "packages.txt")
REQUIREMENTS = [os.path.join(CHECKOUT, name) for name in ("requirements.txt", "meta/ee-requirements.txt")]
OLDEST_PYTHON = (3, 11)  # of the controllers that ansible-core 2.18 runs on
NEWER_PYTHONS = ("3.14", "3.13", "3.12", "3.11")
ADMIN_PATHS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]  # not in a plain user's PATH on Debian
QUESTION = "import sys, ensurepip, venv; print('%d.%d.%d' % sys.version_info[:3])"


def real_paths(paths):
    """PATH without pyenv's shims: a shim of a version that is not active exits 127."""
    return [path for path in paths if path and os.path.basename(path.rstrip("/")) != "shims"]


def search_path(environ=None):
    """Where children find their programs: the venv, PATH without shims, the folders of root's tools."""
    paths = real_paths((os.environ if environ is None else environ).get("PATH", os.defpath).split(os.pathsep))
    return os.pathsep.join([os.path.join(VENV, "bin")] + paths + [path for path in ADMIN_PATHS if path not in paths])


def environment(environ=None):
    """The variables of every child: our collection, our Ansible home, plain output, nobody else's configuration."""
    environ = os.environ if environ is None else environ
    kept = {name: value for name, value in environ.items()
            if not name.startswith(("ANSIBLE_", "MOLECULE_", "PYENV_", "PYTEST_"))
            and name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LANGUAGE", "MAKEFLAGS", "MAKELEVEL")}
    home = os.path.join(BUILD, "ansible")
    sockets = os.path.join(home, "cp")
    if len(sockets) > 70:  # a socket's path may have 107 bytes, and ssh adds 28 to this
        sockets = os.path.expanduser("~/.ansible/cp")
    return dict(
        kept,
        PATH=search_path(environ),
        LC_ALL="C.UTF-8",
        NO_COLOR="1",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONUNBUFFERED="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1",
        ANSIBLE_CONFIG=os.path.join(home, "ansible.cfg"),
        ANSIBLE_HOME=home,
        ANSIBLE_LOCAL_TEMP=os.path.join(home, "tmp"),
        ANSIBLE_COLLECTIONS_PATH=COLLECTIONS,
        ANSIBLE_PIPELINING="true",
        ANSIBLE_SSH_CONTROL_PATH_DIR=sockets,
        ANSIBLE_HOST_KEY_CHECKING="true",
        ANSIBLE_FORCE_COLOR="false",
        ANSIBLE_NOCOLOR="true",
    )


# system packages

def wanted_packages(groups, path=PACKAGES):
    """``[(package, command or path), ...]`` of the groups (``lab``, ``user``, ``sanity``) out of packages.txt."""
    wanted = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = line.split("#")[0].split(None, 3)
            if fields and fields[2] in groups:
                wanted.append((fields[0], fields[1]))
    return wanted


def missing_packages(wanted, path=None):
    """The packages whose command or file is not there. ``path`` is a PATH to look in."""
    path = search_path() if path is None else path
    return [package for package, probe in wanted
            if not (os.path.exists(probe) if probe.startswith("/") else shutil.which(probe, path=path))]


def as_root():
    """Prefix of a command line that needs root; raises StageError when there is no way to get it."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        raise StageError("neither root nor sudo")
    if subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL, check=False).returncode != 0:
        # asks on the terminal, if there is one
        if not sys.stdin.isatty() or subprocess.run(["sudo", "-v"], check=False).returncode != 0:
            raise StageError("sudo gives no root rights here")
    return ["sudo", "-n"]


def install_packages(run, packages):
    """Stage: install what is missing through the package manager."""
    if not packages:
        return "nothing missing"
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise StageError("this machine has no apt-get; install what these Debian packages bring: %s" % names)
    try:
        root = as_root()
    except StageError as error:
        raise StageError("%s; as root, run: apt-get install %s" % (error, names)) from error
    apt = root + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q",
                  "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    install = apt + ["install", "-y", "--no-install-recommends"] + packages

    if glob.glob("/var/lib/dpkg/updates/[0-9]*"):  # an earlier installation was cut short
        run.execute(root + ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--configure", "-a"], foreground=True)
    updated = not all(has_candidate(package) for package in packages)
    if updated:
        run.execute(apt + ["update"], foreground=True)
    if run.execute(install, foreground=True, check=updated) != 0:  # old lists name packages that are gone
        run.execute(apt + ["update"], foreground=True)
        run.execute(install, foreground=True)
    return "installed: %s" % names


def has_candidate(package):
    """Does apt know where to get it, without asking the network?"""
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", package], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return shown.returncode == 0


def check_user_namespaces(run):
    """Stage: a user who is no root builds images in a user namespace; say early if that cannot work."""
    if os.geteuid() == 0:
        return ""
    if run.execute(["mmdebstrap", "--unshare-helper", "true"], check=False) != 0:
        raise StageError(
            "user namespaces do not work for this user, and the host image is built in one. Needed: a line for the "
            "user in /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
            "USER), kernel.unprivileged_userns_clone=1, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0 "
            "or a profile that allows mmdebstrap. Root needs none of it")
    return ""


# Python

def python_version(python):
    """``(3, 11, 2)`` of an interpreter that runs and can make virtual environments, else None."""
    try:
        answer = subprocess.run([python, "-c", QUESTION], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, timeout=30, check=False)
        return tuple(int(part) for part in answer.stdout.decode().split(".")) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def find_python(path=None, system="/usr/bin/python3"):
    """The first interpreter that is new enough and complete, the system's own first; None if none is."""
    path = os.pathsep.join(real_paths((path or os.environ.get("PATH", os.defpath)).split(os.pathsep)))
    for name in (system,) + tuple("python" + version for version in NEWER_PYTHONS[1:]) + ("python3",):
        python = shutil.which(name, path=path)
        python = python and os.path.realpath(python)  # out of a virtual environment that happens to be active
        if python and (python_version(python) or (0,)) >= OLDEST_PYTHON:
            return python
    return None


def missing_python():
    """Packages to install when no interpreter is good enough; empty when one is."""
    if find_python():
        return []
    try:
        question = "import sys; print(sys.version_info >= %r)" % (OLDEST_PYTHON,)
        shown = subprocess.run(["/usr/bin/python3", "-c", question],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        new_enough = shown.stdout.strip() == b"True"
    except OSError:
        new_enough = False
    if new_enough or not shutil.which("apt-cache"):
        return ["python3-venv"]
    for version in NEWER_PYTHONS:
        if has_candidate("python%s-venv" % version):
            return ["python%s" % version, "python%s-venv" % version]
    return ["python3-venv"]


def required_packages():
    """The names in the requirements files, for the user to read."""
    names = []
    for path in REQUIREMENTS:
        with open(path, encoding="utf-8") as lines:
            names += [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return names


def python_stamp():
    """What the virtual environment was made from: another answer means making it again."""
    digest = hashlib.sha256(CHECKOUT.encode())
    for path in REQUIREMENTS:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def python_ready():
    """Is the virtual environment complete, current and running?"""
    try:
        with open(os.path.join(VENV, "complete"), encoding="utf-8") as file:
            if file.read().strip() != python_stamp():
                return False
    except OSError:
        return False
    return python_version(os.path.join(VENV, "bin", "python")) is not None


@contextlib.contextmanager
def lock(name, wait=None):
    """Hold ``.build/locks/<name>``. ``wait`` is called while another run holds it; without it that is an error."""
    path = os.path.join(BUILD, "locks", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if wait is None:
                    raise StageError("another run of it is at work in this checkout") from error
                wait()
        yield


def prepare_python(run):
    """Stage: the virtual environment with Ansible and the tools, and the collection's path."""
    with lock("python", wait=run.pause):
        link_collection()
        return make_venv(run)


def make_venv(run):
    """The virtual environment from scratch, unless it is current. Cut short, it is made again next time."""
    note = "present"
    if not python_ready():
        python = find_python()
        if not python:
            raise StageError(
                "no Python %d.%d or newer with the modules venv and ensurepip (Debian: python3-venv)" % OLDEST_PYTHON)
        run.execute([python, "-m", "venv", "--clear", VENV])
        run.execute([os.path.join(VENV, "bin", "python"), "-m", "pip", "install", "-r", REQUIREMENTS[0]])
        run.execute([os.path.join(VENV, "bin", "python"), "-m", "pip", "freeze"])  # into the log
        with open(os.path.join(VENV, "complete"), "w", encoding="utf-8") as file:
            file.write(python_stamp() + "\n")
        note = "made with Python %d.%d.%d" % python_version(python)
    return note


def link_collection():
    """``.build/collections/ansible_collections/vfio/host`` is this checkout; an empty Ansible configuration."""
    parent = os.path.join(COLLECTIONS, "ansible_collections", "vfio")
    os.makedirs(parent, exist_ok=True)
    link = os.path.join(parent, "host")
    if not os.path.islink(link) or os.path.realpath(link) != os.path.realpath(CHECKOUT):
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(os.path.relpath(CHECKOUT, parent), link)
    config = os.path.join(BUILD, "ansible", "ansible.cfg")
    os.makedirs(os.path.dirname(config), exist_ok=True)
    if not os.path.exists(config):
        with open(config, "w", encoding="utf-8") as file:
            file.write("# Empty on purpose: the commands of this checkout set what they need in the environment.\n")
