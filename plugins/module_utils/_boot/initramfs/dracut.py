# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""dracut (Fedora, RHEL, openSUSE, Debian with it): a module of ours and a drop-in that asks for it."""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import initramfs_tools, modules, publish, script

NAME = "dracut"

CONFIGURATION = "/etc/dracut.conf.d/90-vfio-host.conf"
"""dracut reads nothing in this folder whose name does not end in .conf."""
MODULE = "/usr/lib/dracut/modules.d/90vfio-host"
FOLDERS = (MODULE,)

IN_IMAGE_SCRIPT = "usr/lib/vfio-host/bind"
IN_IMAGE_DEVICES = asked.DEVICES.lstrip("/")
HOOK = "pre-udev/00-vfio-host.sh"
HOOK_FOLDERS = ("var/lib/dracut/hooks/", "usr/lib/dracut/hooks/", "lib/dracut/hooks/")
"""Where dracut has put its hooks over the years; inst_hook knows, the image says."""
UNIT = "dracut-pre-udev.service"
TOOLS = ("sh", "modprobe", "readlink", "sleep")

CONFIGURATION_TEXT = """\
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# The module is in %s.
add_dracutmodules+=" vfio-host "
""" % MODULE

SETUP_TEXT = r"""#!/bin/bash
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Puts the list of assigned PCI functions, the script that binds them and the VFIO modules into the image.
# shellcheck disable=SC2154  # initdir, kernel and moddir are dracut's

vfio_host_list=${VFIO_HOST_DEVICES:-/etc/vfio-host/devices}

# In host-only images too: what the host has bound now says nothing about the next boot.
check() {
    return 0
}

depends() {
    return 0
}

installkernel() {
    local address driver

    [[ -f $vfio_host_list ]] || return 0
    hostonly='' instmods vfio_pci vfio vfio_iommu_type1
    # a module of its own up to Linux 6.1
    if modinfo -k "$kernel" vfio_virqfd > /dev/null 2>&1; then
        hostonly='' instmods vfio_virqfd
    fi
    while read -r address _ _ _ _ _ driver _; do
        [[ $address && $address != '#'* ]] || continue
        [[ $driver =~ ^[a-z0-9][a-z0-9_-]*[_-]vfio[_-]pci$ ]] || continue
        # a variant that this kernel does not have: its devices stay with the host
        if modinfo -k "$kernel" "$driver" > /dev/null 2>&1; then
            hostonly='' instmods "${driver//-/_}"
        fi
    done < "$vfio_host_list"
    return 0
}

install() {
    [[ -f $vfio_host_list ]] || return 0
    inst_simple "$vfio_host_list" /etc/vfio-host/devices
    inst_simple "$moddir/bind" /usr/lib/vfio-host/bind
    inst_multiple modprobe readlink sleep
    inst_multiple -o od
    inst_hook pre-udev 00 "$moddir/vfio-host.sh"
}
"""

HOOK_TEXT = r"""#!/bin/sh
# Managed by the vfio.host collection (module initramfs). Do not edit: it is replaced.
# Hooks are read into the shell that runs the boot: what binds has one of its own.
/bin/sh /usr/lib/vfio-host/bind </dev/null || :
"""

KERNEL_HOOKS = (
    "/etc/kernel/postinst.d/dracut",
    "/usr/lib/kernel/install.d/50-dracut.install",
    "/usr/lib/module-init-tools/regenerate-initrd-posttrans",
    "/usr/share/libalpm/hooks/90-dracut-install.hook",
    "/etc/pacman.d/hooks/90-dracut-install.hook",
)
"""What has dracut build the image of a new kernel: Debian, kernel-install, openSUSE, Arch."""

BOOTS = ("/efi", "/boot", "/boot/efi")


# -- pure ----------------------------------------------------------------------------------


def files():
    """``[(path, text, mode)]`` of ours on the host."""
    return [
        (MODULE + "/bind", script.TEXT, 0o755),
        (MODULE + "/vfio-host.sh", HOOK_TEXT, 0o755),
        (MODULE + "/module-setup.sh", SETUP_TEXT, 0o755),
        (CONFIGURATION, CONFIGURATION_TEXT, 0o644),
    ]


def wanted_paths():
    """Files of an image whose contents are compared."""
    return frozenset((IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES) + tuple(folder + HOOK for folder in HOOK_FOLDERS))


def problems(image, devices, builtin=None):
    """How an image differs from what is wanted: sentences, empty when it is right."""
    if devices is None:
        return ["its /%s is not the one of the host" % IN_IMAGE_DEVICES] if IN_IMAGE_DEVICES in image.names else []
    found = []
    if IN_IMAGE_SCRIPT not in image.names:
        found.append("our script is not in it")
    elif image.files.get(IN_IMAGE_SCRIPT) != script.TEXT.encode("utf-8"):
        found.append("its %s is an older one or damaged" % IN_IMAGE_SCRIPT)
    hooks = [folder + HOOK for folder in HOOK_FOLDERS if folder + HOOK in image.names]
    if not hooks:
        found.append("the hook %s is not in it" % HOOK)
    elif all(image.files.get(hook) != HOOK_TEXT.encode("utf-8") for hook in hooks):
        found.append("its %s is an older one or damaged" % hooks[0])
    if any(name.endswith("lib/systemd/systemd") for name in image.names):
        if not any(name.endswith(".wants/" + UNIT) for name in image.names):
            found.append("systemd in it does not start %s, so our hook is not run" % UNIT)
    if image.files.get(IN_IMAGE_DEVICES) != devices:
        found.append("its /%s is not the one of the host" % IN_IMAGE_DEVICES)
    return found + modules.lacking_tools(image, TOOLS) + modules.lacking(image, builtin)


def gone(image):
    """What of ours is still in an image."""
    ours = [IN_IMAGE_SCRIPT, IN_IMAGE_DEVICES] + [folder + HOOK for folder in HOOK_FOLDERS]
    return ["%s is still in it" % name for name in ours if name in image.names]


# -- with a host ---------------------------------------------------------------------------


def unusable(host):
    if host.which("dracut") is None:
        return ["no command dracut"]
    if not host.isdir("/usr/lib/dracut/modules.d"):
        return ["no /usr/lib/dracut/modules.d"]
    return []


def evidence(host):
    """``(found, against)``: dracut counts where it builds the images of new kernels, not where it is only installed."""
    against = unusable(host)
    if against:
        return [], against
    if not initramfs_tools.unusable(host):
        return [], ["%s builds the images" % initramfs_tools.UPDATE]
    said = re.search(r"^\s*initrd_generator\s*=\s*(\S+)", host.read("/etc/kernel/install.conf") or "", re.M)
    if said and said.group(1) != "dracut":
        return [], ["initrd_generator=%s in /etc/kernel/install.conf" % said.group(1)]
    if host.which("mkinitcpio") and any(name.endswith(".preset") for name in host.listdir("/etc/mkinitcpio.d")):
        return [], ["mkinitcpio has presets in /etc/mkinitcpio.d"]
    found = [path for path in KERNEL_HOOKS if host.exists(path)]
    if not found:
        return [], ["nothing has it build the image of a new kernel (none of %s)" % ", ".join(KERNEL_HOOKS)]
    return found, []


def images(host):
    """``([{kernel, path, options}], [versions without an image])`` of the installed kernels."""
    found = []
    without = []
    for version in host.listdir("/lib/modules"):
        # left behind by a kernel that was removed, or by modules built for it
        if not host.exists("/lib/modules/%s/modules.dep" % version):
            continue
        paths = [path for path in _candidates(host, version) if host.exists(path)]
        if paths:
            found.append({"kernel": version, "path": paths[0], "options": ()})
        elif any(host.exists(path % version) for path in ("/boot/vmlinuz-%s", "/lib/modules/%s/vmlinuz")):
            without.append(version)
    return found, without


def _candidates(host, version):
    yield "/boot/initrd.img-" + version
    yield "/boot/initramfs-%s.img" % version
    yield "/boot/initrd-" + version
    package = (host.read("/lib/modules/%s/pkgbase" % version) or "").strip()
    if package and "/" not in package:
        yield "/boot/initramfs-%s.img" % package
    for boot in BOOTS:
        for token in host.listdir(boot):
            yield "%s/%s/%s/initrd" % (boot, token, version)


def refusals(dummy):
    """Why images would not stay right although we build them."""
    return []


builtin_modules = modules.builtin


def build(host, version, path, timeout, devices=None, options=()):
    """Build an image of one kernel at ``path``. ``devices``: path of another list. Returns what the tool said."""
    env = {"NO_POST_UPDATE_HOOKS": "1"}  # Debian's dracut runs them itself, and would name this path
    if devices:
        env[asked.VARIABLE] = devices
    argv = ["dracut", "--quiet", "--force", "--no-uefi"] + list(options) + [path, version]
    result = host.run(argv, timeout=timeout, env=env)
    return (result.stdout + result.stderr).strip()[-2000:]


def published(host, version, path, timeout, without=()):
    publish.run(host, version, path, timeout, without)
