# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""A change of how the host boots, started once: an entry of its own beside the default, which stays as it is.

The record (STATE) is written before anything else and removed after everything else, so whatever a
run that was killed has left can be found: staging again, or taking it back, begins with it. The
one-shot is chosen last and taken back first: it never names an entry that is not complete.
"""

from __future__ import annotations

import hashlib
import json
import posixpath

from ansible_collections.vfio.host.plugins.module_utils import _assignment_state as asked, _own_files
from ansible_collections.vfio.host.plugins.module_utils._binding import record as binding_record
from ansible_collections.vfio.host.plugins.module_utils._binding.identity import driver_of
from ansible_collections.vfio.host.plugins.module_utils._boot import cmdline, edits, tokens
from ansible_collections.vfio.host.plugins.module_utils._boot import loader as loaders
from ansible_collections.vfio.host.plugins.module_utils._boot import record as ownership
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs import manage
from ansible_collections.vfio.host.plugins.module_utils._boot.initramfs.image import ImageError
from ansible_collections.vfio.host.plugins.module_utils._host import NEW, HostError

STATE = binding_record.TRIAL
FOLDER = asked.STATE_FOLDER + "/trial"
DEVICES = FOLDER + "/devices"
"""The list that goes into the trial's image in the place of the host's own."""
EXPIRED = FOLDER + "/expired"
"""Written by the timer's service: the host goes back since nobody confirmed in time. It does so once for each staging:
an ordinary entry may have the trial's command line too, of a kernel that was installed while it ran."""
CONFIRMED = FOLDER + "/confirmed"
"""Keeps the timer from being started once more: whenever a unit starts, systemd starts what sysinit.target wants and
is not active, so a timer that was only stopped comes back with the next login."""

UNITS = "/etc/systemd/system"
UNIT = "vfio-host-trial"
SERVICE = "%s/%s.service" % (UNITS, UNIT)
TIMER = "%s/%s.timer" % (UNITS, UNIT)
WANTS = UNITS + "/sysinit.target.d/vfio-host-trial.conf"
"""A drop-in and no link in a ``.wants`` folder: one kind of file to write, read back and take away."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"
IMAGES = "/boot"
IMAGE_PREFIX = "vfio-host-trial-"

EXTRAS = {"dracut": ("rd.shell=0", "rd.emergency=reboot")}
"""What has a generator's image reboot where it would open a shell. initramfs-tools goes by ``panic=``, and so does our
hook in mkinitcpio's."""
WATCHDOG = "systemd.watchdog_sec=60"
INSTEAD = "the change goes to the ordinary entries at once; %s"
FALLBACK = "the entry %s starts the host without it" % loaders.FALLBACK_ID

SYSTEMCTL_TIMEOUT = 60.0
JOURNAL_TIMEOUT = 60.0
JOURNAL_BOOTS = 3
"""How many boots back a journal is searched for the one of the trial."""
JOURNAL_LINES = 50
HASH_TIMEOUT = 300.0

HEADER = "# Managed by the vfio.host collection (module trial_boot). Do not edit: it is taken away.\n"

SERVICE_TEXT = HEADER + """\
[Unit]
Description=Back to the ordinary boot entry: the trial boot was not confirmed in time
DefaultDependencies=no
ConditionKernelCommandLine=vfio_host=trial
ConditionPathExists=!%(confirmed)s
ConditionPathExists=!%(expired)s

[Service]
Type=oneshot
ExecStart=-/bin/sh -c 'echo "vfio-host: trial boot not confirmed within %(deadline)d s, rebooting" >/dev/kmsg'
ExecStart=-/bin/sh -c 'mkdir -p %(folder)s && echo "not confirmed within %(deadline)d s" >%(expired)s || rm -f %(wants)s; sync'
ExecStart=-/bin/systemctl --no-block reboot
ExecStart=-/bin/sleep 180
ExecStart=-/bin/systemctl --force reboot
ExecStart=-/bin/sleep 60
ExecStart=-/bin/systemctl --force --force reboot
"""
TIMER_TEXT = HEADER + """\
[Unit]
Description=Deadline of the trial boot
DefaultDependencies=no
ConditionKernelCommandLine=vfio_host=trial
ConditionPathExists=!%(confirmed)s
ConditionPathExists=!%(expired)s

[Timer]
OnBootSec=%(deadline)ds
AccuracySec=1s
"""
WANTS_TEXT = HEADER + """\
[Unit]
Wants=vfio-host-trial.timer
"""
"""sysinit.target: pulled in before anything can send the host into emergency mode, and without
dependencies of its own the timer stays there then. The service takes it away where it cannot write EXPIRED; on a
disk where it can do neither, it reboots all the same: a root file system that is not writable is a reason to go back."""


# -- pure ----------------------------------------------------------------------------------


def digest_of(wanted, content):
    """What was wanted, in one word."""
    text = json.dumps({"parameters": list(wanted), "devices": content}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def trial_line(base, owned, wanted, extras):
    """The command line of the trial: ours replaced in the default entry's, and what makes it a trial behind it."""
    kernel = tokens.for_kernel(base)
    rest = base[len(kernel):]  # what is behind "--" is for init
    return tokens.replace(kernel, tokens.common(owned, kernel), list(wanted) + list(extras)) + rest


def lacks(line, owned, wanted, trial):
    """How a command line differs from what is wanted: sentences, empty when it is as wanted.

    ``trial``: the line of the trial. An administrator may have a token of ours too, and his is in it.
    """
    found = ["%s is not in force" % token for token in tokens.lacking(line, wanted)]
    gone = [token for token in tokens.beyond(owned, wanted) if line.count(token) > trial.count(token)]
    return found + ["%s is there" % token for token in gone]


def unit_files(deadline):
    """``[(path, text)]`` of the dead man's timer."""
    values = {"deadline": deadline, "folder": FOLDER, "expired": EXPIRED, "confirmed": CONFIRMED, "wants": WANTS}
    return [(SERVICE, SERVICE_TEXT % values), (TIMER, TIMER_TEXT % values), (WANTS, WANTS_TEXT)]


def render(record):
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


# -- what is there -------------------------------------------------------------------------


def read_record(host):
    """The record, or None. Raises HostError for one that cannot be understood."""
    text = host.read(STATE)
    if text is None:
        return None
    try:
        record = json.loads(text)
        if record["schema"] != 1:
            raise ValueError("unknown schema")
        for name in ("step", "digest", "boot_id", "loader", "generator", "kernel", "image", "line", "deadline"):
            record[name]
    except (ValueError, KeyError, TypeError) as exc:
        raise HostError(
            "%s cannot be understood (%s): it records what a trial boot has put where; "
            "repair it or move it away, then run state=absent" % (STATE, exc)
        ) from exc
    return record


def boot_id(host):
    return (host.read(BOOT_ID) or "").strip()


def running_line(host):
    return tokens.split(host.read("/proc/cmdline") or "")


def supports(loader):
    """Whether a backend can start an entry once at all."""
    return all(hasattr(loader, name) for name in ("trial", "trial_obstacles", "once", "set_once"))


def instead(host, loader):
    """What is done where an entry cannot be started once, and what the way back is then."""
    why = getattr(loader, "fallback_unavailable", lambda host_: None)(host)
    return INSTEAD % (why or FALLBACK)


def _once(host, loader):
    return loader.once(host) if loader is not None and supports(loader) else None


def _may_be_used(host, loader):
    """Whether a one-shot may have been set, or used: False only where the loader would leave a trace of that."""
    traces = getattr(loader, "once_traces", None)
    return traces is None or traces(host)


def _entries(host, loader):
    """The trial's entry in the boot menu, as a list."""
    return [entry for entry in loader.view(host)["entries"] if (entry["id"] or "").startswith(loaders.TRIAL_ID)]


def in_trial(host, record):
    """Whether this boot is the trial of the record."""
    running = running_line(host)
    if loaders.TRIAL not in tokens.for_kernel(running) or boot_id(host) == record["boot_id"]:
        return False
    left = iter(running)
    return all(token in left for token in record["line"])  # all of it, in this order


def observe(host, loader, record):
    """``(outcome, evidence)``: ``none``, ``staged``, ``running`` or ``fell_back``, and what says so."""
    if record is None:
        return "none", []
    step = record["step"]
    once = _once(host, loader)
    if step != "preparing" and in_trial(host, record):
        return "running", ["%s is on the running command line" % loaders.TRIAL]
    if boot_id(host) == record["boot_id"]:
        if step != "preparing" and once == loaders.TRIAL_ID:
            return "staged", ["the next boot starts %s once" % loaders.TRIAL_ID]
        return "none", ["staging was cut off, or the one-shot was taken back"]
    if step == "confirmed":
        return "none", ["the trial was confirmed in an earlier boot, but not made permanent"]
    if step == "preparing":
        return "none", ["staging was cut off"]
    if step == "arming" and not _may_be_used(host, loader):
        return "none", ["staging was cut off before the boot loader was told to start %s" % loaders.TRIAL_ID]
    if once == loaders.TRIAL_ID:
        return "staged", [
            "the host was rebooted without its boot loader, which still has to start %s once" % loaders.TRIAL_ID
        ]
    return "fell_back", _why(host, record)


def _why(host, record):
    """What is known of a trial boot that the host did not stay in."""
    found = ["the one-shot is used up, and the running command line is another entry's: %s" % tokens.join(
        running_line(host))]
    expired = host.read(EXPIRED)
    if expired is not None:
        found.append("it ran, and went back by itself: %s" % expired.strip())
    log = _journal(host)
    if log is not None:
        found.append("last lines of its kernel log:\n%s" % log)
    elif expired is None:
        found.append("no journal has a boot with %s: it ended before one was written, or journals are not kept"
                     % loaders.TRIAL)
    return found


def _journal(host):
    """The end of the trial boot's kernel log, or None."""
    if not host.which("journalctl"):
        return None
    for back in range(1, JOURNAL_BOOTS + 1):
        try:
            result = host.run(
                ["journalctl", "-k", "-b", "-%d" % back, "-o", "cat", "-q", "--no-pager"],
                timeout=JOURNAL_TIMEOUT, check=False,
            )  # fmt: skip
        except HostError:
            return None
        lines = result.stdout.splitlines()
        if any("ommand line:" in line and loaders.TRIAL in line.split() for line in lines):
            return "\n".join(lines[-JOURNAL_LINES:])
    return None


def _binding_log(host, because):
    """What the script in the initramfs said, where devices are not as wanted."""
    if not because:
        return []
    try:
        lines = host.run(["dmesg"], check=False).stdout.splitlines()
    except HostError:
        return []
    return [line[line.index("vfio-host: "):] for line in lines if "vfio-host: " in line]


# -- the parts of it ------------------------------------------------------------------------


def choose_loader(host, name):
    return cmdline.choose(host, name)[0]


def choose_generator(host, name):
    return manage.choose(host, name)[0]


def named_loader(name):
    """The backend that a record names, or None when this release has none of that name."""
    try:
        return cmdline.backend(name)
    except ValueError:
        return None


def _owned(host, loader):
    """Tokens of the collection on the ordinary entries."""
    found = ownership.read(host)
    return list(loader.recorded(host) or []) if found is None else list(found["tokens"])


def _content(host, given):
    """Text of the list to try, or None: what is given, else what the host has."""
    if given and given.strip():
        return given.rstrip("\n") + "\n"  # templating may take the last newline
    return host.read(asked.DEVICES)


def _image_path(kernel):
    return "%s/%s%s.img" % (IMAGES, IMAGE_PREFIX, kernel)


def _sha256(host, path):
    """Digest of a file on the host, without holding it in memory."""
    with host.pipe(["sha256sum"], path, timeout=HASH_TIMEOUT) as stream:
        return stream.read().decode("ascii").split()[0]


def _loaded(entry):
    """Paths of what a boot entry loads beside the kernel, or of its UKI."""
    return [entry["image"]] if entry["image"] else list(entry["initrds"])


def _remove_folders(host, generator):
    for folder in generator.FOLDERS if generator else ():
        host.remove_empty_folder(folder)


def _print_of(host, loader):
    """What must stay as it is: the default entry with its files, and what every other entry says."""
    seen = loader.view(host)
    default = loaders.default_of(seen)
    if default is None:
        raise HostError("which entry starts by default cannot be told any more")
    return {
        "default": default["id"],
        "title": default["title"],
        "kernel": default["kernel"],
        "tokens": default["tokens"],
        "files": {path: _sha256(host, path) for path in _loaded(default) if host.exists(path)},
        "entries": [
            [entry["id"], entry["title"], entry["tokens"], entry["initrds"]]
            for entry in seen["entries"] if not loaders.ours(entry["id"])
        ],
    }


def _says_trial(entry):
    return "the default entry %r has %s, as if each of its boots were a trial: take %s out of its command line first" % (
        entry["title"], loaders.TRIAL, tokens.join(loaders.apart(entry["tokens"])[1]))


class _Plan:
    """What staging would do, from what is there. Only reads."""

    def __init__(self, host, params):
        self.host = host
        self.params = params
        self.wanted = tokens.check(params["parameters"] or [])
        self.content = _content(host, params["devices_content"])
        self.functions = asked.parse(self.content) if self.content else []
        self.digest = digest_of(self.wanted, self.content)
        self.loader = choose_loader(host, params["loader"])
        self.generator = choose_generator(host, params["generator"])
        self.owned = _owned(host, self.loader)
        self.obstacles = self._obstacles()
        seen = self.loader.view(host) if supports(self.loader) else loaders.view([])
        self.default = loaders.default_of(seen)
        if not self.obstacles:
            if self.default is None:
                self.obstacles.append("which entry starts by default cannot be told")
            elif not self.default["kernel"]:
                self.obstacles.append("which kernel the entry %r starts cannot be told" % self.default["title"])
            elif loaders.OFF in self.default["tokens"]:
                self.obstacles.append("the default entry has %s: nothing would be tried" % loaders.OFF)
            elif loaders.TRIAL in self.default["tokens"]:
                self.obstacles.append(_says_trial(self.default))
        self.kernel = None if self.obstacles else self.default["kernel"]
        self.image = None if self.obstacles else _image_path(self.kernel)
        self.line = [] if self.obstacles else trial_line(
            self.default["tokens"], self.owned, self.wanted, self._extras())

    def _obstacles(self):
        if not supports(self.loader):
            say = getattr(self.loader, "trial_obstacles", None)
            return ["the boot loader %s cannot start an entry once" % self.loader.NAME] + (say(self.host) if say else [])
        reasons = list(self.loader.trial_obstacles(self.host))
        if not self.host.isdir("/run/systemd/system"):
            reasons.append("systemd does not run here: nothing would take the host back when nobody confirms")
        reasons += self.generator.refusals(self.host)
        return reasons

    def _extras(self):
        found = [loaders.TRIAL]
        if self.params["panic"]:
            found.append("panic=%d" % self.params["panic"])
        if self.params["watchdog"]:
            found.append(WATCHDOG)
        return found + list(EXTRAS.get(self.generator.NAME, ()))

    def running(self, line):
        """How the running system differs from what is wanted: sentences. ``line``: of the trial."""
        host = self.host
        found = lacks(running_line(host), self.owned, self.wanted, line)
        for item in self.functions:
            driver = driver_of(host, item["address"])
            if driver is None or asked.module_of(driver) != asked.module_of(item["driver"]):
                found.append("%s is on %s" % (item["address"], driver or "no driver"))
        released = binding_record.still_given(
            host, binding_record.read(host)[1], {item["address"] for item in self.functions})
        return found + ["%s is still given away" % address for address in sorted(released)]

    def differences(self):
        """``(running, ordinary)``: how the running system, and the default entry, differ from what is wanted."""
        host = self.host
        running = self.running(self.line)
        ordinary = lacks(self.default["tokens"], self.owned, self.wanted, self.line)
        paths = _loaded(self.default)
        if not ordinary and paths:
            data = None if self.content is None else self.content.encode("utf-8")
            try:
                image = manage.open_image(host, paths, self.generator.wanted_paths())
                ordinary = manage.check_image(host, self.generator, image, data, self.kernel)
            except ImageError as exc:
                ordinary = [str(exc)]
        return running, ordinary

    def entry_edits(self):
        return self.loader.trial(self.host, self.kernel, self.image, self.line)

    def shelter(self):
        """Edits that keep the running line from a kernel that is installed in the trial."""
        make = getattr(self.loader, "shelter", None)
        return make(self.host, self.owned) if make else []

    def files(self):
        """Edits of the files that are ours alone."""
        wanted = unit_files(self.params["deadline"])
        wanted.append((DEVICES, self.content))
        return [
            loaders.Edit(path, self.host.read(path), text)
            for path, text in wanted
            if self.host.read(path) != text
        ]  # fmt: skip

    def record(self):
        return {
            "schema": 1,
            "step": "preparing",
            "digest": self.digest,
            "parameters": self.wanted,
            "boot_id": boot_id(self.host),
            "loader": self.loader.NAME,
            "generator": self.generator.NAME,
            "kernel": self.kernel,
            "image": self.image,
            "line": self.line,
            "deadline": self.params["deadline"],
            "drivers": {item["address"]: driver_of(self.host, item["address"]) for item in self.functions},
            "temporary": {},
        }

    def check_space(self):
        """Room for one more image, in /boot and where the default entry's are (the EFI partition)."""
        sizes = {IMAGES: 0}
        for path in _loaded(self.default):
            status = self.host.stat(path)
            folder = posixpath.dirname(path)
            sizes[folder] = sizes.get(folder, 0) + (status.st_size if status else 0)
        for folder in sorted(sizes):
            if self.host.isdir(folder):
                own = folder == IMAGES
                manage.check_room(
                    self.host, folder, max(sizes.values()) if own else sizes[folder],
                    manage.SPACE_RESERVE if own else manage.CARRIER_RESERVE,
                )  # fmt: skip

    def staged_already(self, record):
        """Whether what the record says is there and still fits: then staging has nothing to do."""
        if (record["line"], record["kernel"]) != (self.line, self.kernel):
            return False
        if record["temporary"] or self.files() or self.host.exists(EXPIRED):
            return False
        if not self.host.exists(self.image) or self.entry_edits() or self.shelter():
            return False
        return not self._binary(check=True)

    def _binary(self, check):
        make = getattr(self.loader, "trial_binary", None)
        return bool(make and make(self.host, self.kernel, self.image, self.line, check=check))

    # -- doing it --------------------------------------------------------------------------

    def stage(self):
        """All of it, in order. Raises HostError with the step that failed, after everything was taken back."""
        host = self.host
        record = self.record()
        untouched = _print_of(host, self.loader)
        generated = edits.kept(host, self.loader.generated(host))
        doing = "writing the record"
        try:
            host.write(STATE, render(record))
            doing = "building the image %s" % self.image
            if self.content is not None:
                host.write(DEVICES, self.content)
            self._build(record)
            doing = "writing the entry %s" % loaders.TRIAL_ID
            self._binary(check=False)
            edits.write(host, self.entry_edits())
            self.loader.generate(host)
            self._check_entry()
            doing = "writing the timer that takes the host back"
            edits.write(host, self.files())
            host.remove(EXPIRED)
            host.remove(CONFIRMED)
            _reload(host)
            doing = "keeping the trial's command line from the next kernel"
            self._take_shelter()
            doing = "comparing the default entry with what it was"
            after = _print_of(host, self.loader)
            if after != untouched:
                differ = _compare(untouched, after)
                raise HostError("the default entry would not be what it was: %s" % "; ".join(differ))
            doing = "choosing the entry for the next boot"
            if _may_be_used(host, self.loader):
                self.loader.set_once(host, None)  # of an earlier boot: from here on, a trace is of this trial
            record["step"] = "arming"
            host.write(STATE, render(record))
            self.loader.set_once(host, loaders.TRIAL_ID)
            if self.loader.once(host) != loaders.TRIAL_ID:
                raise HostError("the boot loader does not say that it starts %s once" % loaders.TRIAL_ID)
            record["step"] = "staged"
            host.write(STATE, render(record))
        except (HostError, OSError, ValueError) as exc:
            problem = "the trial boot was not staged: %s failed: %s" % (doing, exc)
            try:
                take_back(host, self.loader, record)
                edits.put_back(host, generated)
            except (HostError, OSError, ValueError) as second:
                raise HostError(
                    "%s. Taking it back failed too: %s. Run it with state=absent" % (problem, second)) from exc
            raise HostError("%s. Everything was taken back" % problem) from exc
        return record

    def _take_shelter(self):
        """The same file that kernel_cmdline makes, in its record: it stays for as long as either needs it."""
        made = self.shelter()
        if made:
            known = ownership.read(self.host) or ownership.new(self.loader.NAME, self.owned, False, {})
            new = {edit.path: {"text": None, "mode": edit.mode, "after": ownership.digest(edit.after)} for edit in made}
            ownership.write(self.host, dict(known, originals=dict(known["originals"], **new)))
            edits.write(self.host, made)

    def _build(self, record):
        host = self.host
        ours = [(path, text, mode) for path, text, mode in self.generator.files() if host.read(path) != text]
        before = edits.kept(host, [path for path, dummy, dummy2 in ours])
        if ours:
            # the generator needs its files for this one image; every other image is built without them until
            # the change is permanent
            record["temporary"] = {
                path: None if was is None else {"text": was[0].decode("utf-8", "backslashreplace"), "mode": was[1]}
                for path, was in before.items()
            }
            host.write(STATE, render(record))
        for path, text, mode in ours:
            host.write(path, text, mode=mode)
        options = [item["options"] for item in self.generator.images(host)[0] if item["kernel"] == self.kernel]
        manage.build_image(
            host, self.generator, self.kernel, self.image, self.params["rebuild_timeout"],
            devices_path=DEVICES, options=options[0] if options else (),  # named without a list too: so it is a trial's
        )  # fmt: skip
        if ours:
            edits.put_back(host, before)
            _remove_folders(host, self.generator)
            record["temporary"] = {}
            host.write(STATE, render(record))

    def _check_entry(self):
        found = _entries(self.host, self.loader)
        if not found:
            raise HostError("the boot menu has no entry %s" % loaders.TRIAL_ID)
        if found[0]["tokens"] != self.line:
            shown = tokens.join(found[0]["tokens"])
            raise HostError("its command line is %s, not %s" % (shown, tokens.join(self.line)))
        if found[0]["default"]:
            raise HostError("it would be the default")


def _compare(before, after):
    return ["%s was %r and is %r" % (name, before[name], after[name]) for name in before if before[name] != after[name]]


def _reload(host):
    """Have systemd know the files. Of no consequence for the next boot, so it may fail."""
    if host.isdir("/run/systemd/system"):
        try:
            host.run(["systemctl", "daemon-reload"], timeout=SYSTEMCTL_TIMEOUT, check=False)
        except HostError:
            pass


# -- taking it back ------------------------------------------------------------------------


def _borrowed(host, loader):
    """``(record of kernel_cmdline, [path])``: the files of LASTING in it that nothing but a trial needs.

    What cannot be told is left to kernel_cmdline.
    """
    names = getattr(loader, "LASTING", ())
    try:
        known = ownership.read(host) if names else None
    except HostError:
        return None, []
    if known is None or known["pending"] or known["tokens"]:
        return known, []
    shown = [entry["id"] or "" for entry in loader.view(host)["entries"]]
    if not shown or any(entry_id.startswith(loaders.FALLBACK_ID) for entry_id in shown):
        return known, []
    return known, [path for path, was in known["originals"].items() if path in names and was["text"] is None]


def _leave_shelter(host, loader):
    known, gone = _borrowed(host, loader)
    for path in gone:
        if ownership.ours(host.read(path), known["originals"][path]):
            host.remove(path)
    left = {path: was for path, was in known["originals"].items() if path not in gone} if gone else {}
    if left:
        ownership.write(host, dict(known, originals=left))
    elif gone:
        ownership.remove(host)


def leftovers(host, loader, record):
    """What of a trial boot is on the host: sentences, empty when there is nothing."""
    found = []
    if _once(host, loader) == loaders.TRIAL_ID:
        found.append("the next boot starts %s once" % loaders.TRIAL_ID)
    if loader is not None and supports(loader):
        found += [edit.path for edit in loader.trial(host, None, None, [])]
        if _entries(host, loader):
            found.append("the entry %s" % loaders.TRIAL_ID)
        make = getattr(loader, "trial_binary", None)
        if make and make(host, None, None, [], check=True):
            found.append("the files of %s" % loaders.TRIAL_ID)
    paths = [SERVICE, TIMER, WANTS, DEVICES, EXPIRED, CONFIRMED] + _images(host, record)
    found += [path for path in paths if host.exists(path)]
    found += _borrowed(host, loader)[1]
    if record is not None:
        found += sorted(record["temporary"])
        found.append(STATE)
    return found


def _images(host, record):
    begins = (IMAGE_PREFIX, NEW + IMAGE_PREFIX)
    found = [IMAGES + "/" + name for name in host.listdir(IMAGES) if name.startswith(begins)]
    if record is not None and record["image"] and record["image"] not in found:
        found.append(record["image"])
    return found


def take_back(host, loader, record):
    """Everything of a trial boot goes, the one-shot first and the record last."""
    if _once(host, loader) == loaders.TRIAL_ID:
        loader.set_once(host, None)
        if loader.once(host) == loaders.TRIAL_ID:
            raise HostError("the boot loader still says that it starts %s once" % loaders.TRIAL_ID)
    if loader is not None and supports(loader):
        changes = loader.trial(host, None, None, [])
        shown = bool(_entries(host, loader))
        edits.write(host, changes)
        if changes or shown:
            loader.generate(host)
        make = getattr(loader, "trial_binary", None)
        if make:
            make(host, None, None, [])
        if _entries(host, loader):
            raise HostError("the boot menu still has the entry %s" % loaders.TRIAL_ID)
    for path in _images(host, record):
        host.remove(path)
    if record is not None and record["temporary"] and not host.exists(manage.STATE):
        # with that file, the module initramfs has made them permanent meanwhile
        edits.put_back(host, {
            path: None if was is None else (was["text"].encode("utf-8"), was["mode"])
            for path, was in record["temporary"].items()
        })  # fmt: skip
        _remove_folders(host, manage.GENERATORS.get(record["generator"]))
    _stop_timer(host)
    gone = [host.remove(path) for path in (WANTS, TIMER, SERVICE)]
    host.remove_empty_folder(posixpath.dirname(WANTS))
    if any(gone):
        _reload(host)
    for path in (DEVICES, EXPIRED, CONFIRMED):
        host.remove(path)
    _leave_shelter(host, loader)
    host.remove_empty_folder(FOLDER)
    host.remove(STATE)
    host.remove_empty_folder(asked.STATE_FOLDER)


def _stop_timer(host):
    """In the trial boot, the deadline: without its file systemd would still have it."""
    if loaders.TRIAL in running_line(host) and host.exists(TIMER) and host.isdir("/run/systemd/system"):
        host.run(["systemctl", "stop", UNIT + ".timer"], timeout=SYSTEMCTL_TIMEOUT)


# -- the module ----------------------------------------------------------------------------


@_own_files.tidied
def run(host, params, check_mode):
    """Stage, confirm or take back a trial boot.

    ``params``: ``{state: staged|confirmed|absent, parameters: [str], devices_content: str | None, loader: str,
    generator: str, panic: int, deadline: int, watchdog: bool, retry: bool, rebuild_timeout: int}``. Returns
    the module's result. Raises ValueError for bad input, HostError with the reason and what was done about it.
    """
    record = read_record(host)
    if params["state"] == "absent":
        return _absent(host, params, record, check_mode)
    if params["state"] == "confirmed":
        return _confirmed(host, params, record, check_mode)
    return _staged(host, params, record, check_mode)


def _result(changed, outcome, evidence, record=None, plan=None, **more):
    found = {
        "changed": changed,
        "available": True,
        "obstacles": [],
        "instead": None,
        "needed": False,
        "because": [],
        "outcome": outcome,
        "evidence": list(evidence),
        "confirmed": bool(record and record["step"] == "confirmed" and outcome == "running"),
        "digest": record["digest"] if record else plan.digest if plan else None,
        "loader": plan.loader.NAME if plan else record["loader"] if record else None,
        "generator": plan.generator.NAME if plan else record["generator"] if record else None,
        "kernel": plan.kernel if plan else record["kernel"] if record else None,
        "line": record["line"] if record else plan.line if plan else [],
        "deadline": record["deadline"] if record else None,
        "warnings": [],
        "diff": [],
    }
    found.update(more)
    return found


def _check_input(host, params):
    if not 60 <= params["deadline"] <= 86400:
        raise ValueError("deadline: %d is not between 60 and 86400 seconds" % params["deadline"])
    if not 0 <= params["panic"] <= 3600:
        raise ValueError("panic: %d is not between 0 and 3600 seconds" % params["panic"])
    if params["watchdog"] and not host.exists("/dev/watchdog"):
        raise ValueError("watchdog: no /dev/watchdog: load the driver of the machine's watchdog, or leave it off")


def _staged(host, params, record, check_mode):
    _check_input(host, params)
    plan = _Plan(host, params)
    loader = plan.loader if record is None else named_loader(record["loader"]) or plan.loader
    outcome, evidence = observe(host, loader, record)
    same = record is not None and record["digest"] == plan.digest
    if outcome == "running":
        if same:
            because = plan.running(record["line"])
            return _result(False, outcome, evidence + _binding_log(host, because), record, plan, because=because)
        raise HostError(
            "this boot is the trial of something else (%s): confirm it and make it permanent, or reboot to be back in "
            "the ordinary entry, before another one" % (tokens.join(record["parameters"]) or "no parameters")
        )
    if plan.obstacles:
        return _result(False, outcome, evidence, None, plan, available=False, obstacles=plan.obstacles,
                       instead=instead(host, plan.loader))
    running, ordinary = plan.differences()
    if not running or not ordinary:
        why = "the host runs with it" if not running else "the ordinary entries have it already"
        stale = outcome == "staged"  # of something that is no longer wanted
        if stale and not check_mode:
            take_back(host, loader, record)
        return _result(stale, "none" if stale else outcome, evidence + [why], None, plan)
    if outcome == "staged" and same and plan.staged_already(record):
        return _result(False, outcome, evidence, record, plan, needed=True, because=running)
    if outcome == "fell_back" and same and record["kernel"] == plan.kernel and not params["retry"]:
        raise HostError(
            "the trial boot of just this was started, or was to be, and the host is in another entry now, so it is not "
            "tried again by itself: %s. When the cause is gone, say retry" % ". ".join(evidence)
        )
    lost = tokens.lacking(plan.line, plan.wanted)
    if lost:
        raise HostError(
            "%s would not be in force in the trial, for the kernel keeps the first of its kind and the default entry %r "
            "has another: take that out first" % (", ".join(lost), plan.default["title"])
        )
    plan.check_space()
    diff = edits.diff(plan.files() + plan.entry_edits() + plan.shelter()) + [_line_diff(plan)]
    if not check_mode:
        if record is not None:
            take_back(host, loader, record)
        record = plan.stage()
    else:
        record = dict(plan.record(), step="staged")
    return _result(
        True, "staged", ["the next boot starts %s once" % loaders.TRIAL_ID], record, plan,
        needed=True, because=running, diff=diff,
    )  # fmt: skip


def _line_diff(plan):
    header = "next boot, once"
    return {
        "before_header": header, "after_header": header,
        "before": tokens.join(plan.default["tokens"]) + "\n", "after": tokens.join(plan.line) + "\n",
    }  # fmt: skip


def _confirmed(host, params, record, check_mode):
    loader = None if record is None else named_loader(record["loader"])
    outcome, evidence = observe(host, loader, record)
    if outcome != "running":
        raise HostError("this boot is not the trial (%s): %s" % (
            outcome.replace("_", " "), ". ".join(evidence) or "nothing was staged"))
    if host.exists(EXPIRED):
        default = loaders.default_of(loader.view(host)) if loader is not None else None
        if default is not None and loaders.TRIAL in default["tokens"]:
            raise HostError("the deadline has passed, and this may be the ordinary entry: %s" % _says_trial(default))
        raise HostError("the deadline has passed: the host goes back to its ordinary entry just now")
    warnings = []
    again = _once(host, loader) == loaders.TRIAL_ID
    if again:
        warnings.append("the boot loader did not take the one-shot back by itself; it is taken back here")
    changed = record["step"] != "confirmed" or again
    if not check_mode:
        if again:
            loader.set_once(host, None)
        if record["step"] != "confirmed":
            host.write(CONFIRMED, "")
            host.run(["systemctl", "stop", UNIT + ".timer"], timeout=SYSTEMCTL_TIMEOUT)
            state = host.run(["systemctl", "is-active", UNIT + ".timer"], timeout=SYSTEMCTL_TIMEOUT, check=False)
            if state.stdout.strip() in ("active", "activating"):
                raise HostError("the timer %s.timer does not stop: the host would go back at the deadline" % UNIT)
            host.write(STATE, render(dict(record, step="confirmed")))
    return _result(changed, outcome, evidence, dict(record, step="confirmed"), warnings=warnings)


def _absent(host, params, record, check_mode):
    loader = None
    if record is not None:
        loader = named_loader(record["loader"])
    if loader is None:
        try:
            loader = choose_loader(host, params["loader"])
        except HostError:
            loader = None  # then there are only files to look for
    found = leftovers(host, loader, record)
    outcome, evidence = observe(host, loader, record)
    if found and not check_mode:
        take_back(host, loader, record)
    diff = [{
        "before_header": "trial boot", "after_header": "trial boot",
        "before": "".join(line + "\n" for line in found), "after": "",
    }] if found else []  # fmt: skip
    return _result(bool(found), "none", evidence if outcome != "none" else [], None, None, diff=diff,
                   loader=loader.NAME if loader else None)
