# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""kernelstub (Pop!_OS): systemd-boot, with the entries ``Pop_OS-current`` and ``Pop_OS-oldkern`` that it writes.

Whenever a kernel or an initramfs is installed, kernelstub writes both entries from ``user.kernel_options`` in
``/etc/kernelstub/configuration``, a list. So that list and the ``options`` of both entries are edited in the same way,
and the next run of kernelstub writes what is there already.

``kernelstub`` itself is not run. It copies kernel and initramfs over the ones that boot, in place, which a power cut
can halve; it ends with 0 where it found nothing to copy; outside of ``manage_mode`` it makes the firmware's boot entry
anew; ``-d`` puts the whole list into another order (it goes through a set) and takes doubles away.

Fallback and trial entries are as with systemd-boot: files of our own beside those of kernelstub.
"""

from __future__ import annotations

import json

from ansible_collections.vfio.host.plugins.module_utils._boot import booted as boots
from ansible_collections.vfio.host.plugins.module_utils._boot import entries, loader, record, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot.loaders import bls, systemd_boot
from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "kernelstub"

CONFIGURATION = "/etc/kernelstub/configuration"
REVISION = 3


# -- pure --------------------------------------------------------------------------------------


def parse(text):
    """``(configuration, reasons why it cannot be worked with)``."""
    try:
        found = json.loads(text)
        user = found["user"]
        options = user["kernel_options"]
        revision = user["config_rev"]
    except (ValueError, KeyError, TypeError):
        return None, ["%s has no list user.kernel_options: run kernelstub once, which writes it" % CONFIGURATION]
    reasons = []
    if revision != REVISION or not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        reasons.append(
            "%s is of another revision (%r) than %d: run kernelstub once, which renews it"
            % (CONFIGURATION, revision, REVISION)
        )
    if user.get("live_mode"):
        reasons.append("%s says that this is a live system (live_mode)" % CONFIGURATION)
    if not user.get("setup_loader"):
        reasons.append(
            "kernelstub puts the command line into the firmware's boot entry here (setup_loader is false in %s): "
            "run kernelstub --loader first" % CONFIGURATION
        )
    return found, reasons


def edit_configuration(text, wanted, owned):
    """The configuration with ``wanted`` as ours at the end of the list, written as kernelstub writes it."""
    found, dummy = parse(text)
    options = found["user"]["kernel_options"]
    if bls.settled(options, wanted, owned):
        return text
    found["user"]["kernel_options"] = tokens.replace(options, *bls.change(options, wanted, owned))
    return json.dumps(found, indent=2)


# -- the interface -----------------------------------------------------------------------------


def evidence(host, booted):
    """Sentences for and against this loader having started the system, see :mod:`_boot.loader`."""
    found = []
    against = []
    if (booted["loader"] or "").startswith("systemd-boot"):
        found.append("%s started this system" % booted["loader"])
    else:
        against.append("LoaderInfo is %r, so systemd-boot did not start this system" % booted["loader"])
    if booted["boot_image"] is not None:
        against.append("BOOT_IMAGE= on the running command line, which systemd-boot does not put there")
    reasons = unusable(host)
    against.extend(reasons)
    if not reasons:
        names = [item["stem"] for item in _ordinary(host)]
        found.append("%s, and the entries %s" % (CONFIGURATION, ", ".join(names)))
        selected = (booted["entry"] or "").lower()
        if selected and selected not in [item["id"] for item in systemd_boot.read_entries(host)]:
            against.append("the booted entry %s is no longer there" % booted["entry"])
    return found, against


def unusable(host):
    text = host.read(CONFIGURATION)
    if text is None:
        return ["no %s" % CONFIGURATION]
    found, reasons = parse(text)
    if not host.which("kernelstub"):
        reasons.append("kernelstub is not installed")
    try:
        root = (found or {}).get("user", {}).get("esp_path", "/boot/efi")
        if host.real(root) not in [host.real(one) for one in systemd_boot.partitions(host)]:
            reasons.append("esp_path in %s is %s, and systemd-boot reads %s"
                           % (CONFIGURATION, root, " and ".join(systemd_boot.partitions(host))))  # fmt: skip
        elif not _ordinary(host):
            reasons.append("no entry ...-current of kernelstub in %s/loader/entries" % root)
    except HostError as exc:
        reasons.append(str(exc))
    return reasons


def _ordinary(host, items=None):
    items = systemd_boot.read_entries(host) if items is None else items
    return [item for item in systemd_boot.ordinary(host, items) if item["stem"].endswith(("-current", "-oldkern"))]


def recorded(host):
    return None


def edits(host, wanted, owned):
    text = host.read(CONFIGURATION)
    found, reasons = parse(text or "")
    if reasons:
        raise HostError("; ".join(reasons))
    made = [_edit(host, CONFIGURATION, text, edit_configuration(text, wanted, owned))]
    for item in _ordinary(host):
        line = systemd_boot.line_of(item)
        here = record.own(host, item["key"], owned, line)
        if not bls.settled(line, wanted, here):
            after = entries.edit(item["text"], *bls.change(line, wanted, here), base=[])
            made.append(_edit(host, item["path"], item["text"], after))
    return [edit for edit in made if edit.before != edit.after]


def _edit(host, path, before, after):
    return bls.edited(host, path, before, after)


def configured(host):
    """What kernelstub writes next; in front of it come root= and ro, which it adds."""
    found, reasons = parse(host.read(CONFIGURATION) or "")
    if reasons:
        return None, {}
    line = tokens.split(" ".join(found["user"]["kernel_options"]))
    return line, {token: CONFIGURATION for token in line}


def view(host):
    try:
        items = systemd_boot.read_entries(host)
        found, problems = systemd_boot.view_items(host, items, _ordinary(host, items))
        default = default_item(host, items)
    except HostError as exc:
        return loader.view([], [str(exc)])
    if default is not None and loader.default_of({"entries": found}) is None:
        for item in found:
            item["default"] = item["source"] == default["path"]
        problems = [problem for problem in problems if not problem.startswith("what boots by default")]
    return loader.view(found, problems)


def hindrances(host, edits, wanted):
    """See :mod:`_boot.loader`."""
    return systemd_boot.hindrances_of(view(host))


def default_item(host, items):
    """The entry that boots when nobody chooses, or None.

    kernelstub writes ``default Pop_OS-current``, without ``.conf``, which not every systemd-boot takes for that
    entry. That this one does is known when it has started it.
    """
    found = systemd_boot.default_item(host, items)
    if found is not None:
        return found
    said = None
    for root in systemd_boot.partitions(host)[:1]:
        said = entries.first(entries.parse(host.read(root + "/loader/loader.conf") or ""), "default")
    selected = (boots.text_variable(host, "LoaderEntrySelected") or "").lower()
    for item in items:
        if said and item["stem"].lower() == said.lower() and item["id"] == selected:
            return item
    return None


def fallback(host, owned):
    """The default entry once more, without ours."""
    items = systemd_boot.read_entries(host)
    wanted = {}
    if owned is not None:
        default = default_item(host, items)
        managed = _ordinary(host, items)
        for item in ([one for one in managed if one is default] or managed)[:1]:
            path = "%s/loader/entries/%s%s-%s.conf" % (
                item["root"].rstrip("/"), systemd_boot.LAST, loader.FALLBACK_ID, item["stem"],
            )  # fmt: skip
            version = systemd_boot.kernel_of(host, item) or item["stem"]
            wanted[path] = systemd_boot.fallback_text(
                entries.first(item["fields"], "title") or item["stem"], version,
                systemd_boot.copied_rows(item["text"]), systemd_boot.off_line(systemd_boot.line_of(item), owned),
            )  # fmt: skip
    return systemd_boot.own_edits(host, items, loader.FALLBACK_ID, wanted)


def trial_obstacles(host):
    reasons = systemd_boot.one_shot_obstacles(host)
    try:
        items = systemd_boot.read_entries(host)
        default = default_item(host, items)
        if default is None or not any(default is item for item in _ordinary(host, items)):
            reasons.append("the default entry is none of kernelstub's")
    except HostError as exc:
        reasons.append(str(exc))
    return reasons


generated = systemd_boot.generated
generate = systemd_boot.generate
refresh = systemd_boot.refresh
trial = systemd_boot.trial
trial_binary = systemd_boot.trial_binary
once = systemd_boot.once
set_once = systemd_boot.set_once
