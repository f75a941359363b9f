# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The only door to the machine: files, links, commands and time.

Everything that touches the outside takes a ``Host``; everything else in the collection is a
pure function over plain data. ``Host(root=...)`` reads a recorded tree instead of the machine,
and ``commands=`` replaces command execution, which is how the tests run on any laptop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import threading

from ansible_collections.vfio.host.plugins.module_utils._sysfs import Child, Stuck

COMMAND_TIMEOUT = 60.0
"""Seconds a command may take unless the caller says otherwise."""

SYSFS_TIMEOUT = 10.0
"""Seconds a write to sysfs may take: a driver can block in unbind for ever."""

READ_LIMIT = 4 * 1024 * 1024
"""Bytes read at most from one file unless the caller says otherwise."""

COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MAX_LINKS = 40

TEMPORARY = re.compile(r"^\.vfio-host-[a-z0-9_]{8}$")
"""Name of the temporary file of a write that was killed (tempfile's eight letters)."""

NEW = ".vfio-host-new-"
"""How the name of what is built beside the file that it replaces begins."""

KERNELS = ("/sys/", "/proc/", "/dev/", "/run/")
"""Where no file of ours outlives a boot."""

VFIO_GROUP_GET_STATUS = 0x3B67
VFIO_GROUP_FLAGS_VIABLE = 1
"""include/uapi/linux/vfio.h: _IO(';', 103), and the flag in struct vfio_group_status {argsz, flags}."""


class HostError(Exception):
    """An action on the machine failed; the message names what, where and the remedy if known."""


class HostTimeout(HostError):
    """A command or a sysfs write did not end before its deadline."""


class Result:
    """What a command left behind: ``argv`` (list), ``rc`` (int), ``stdout`` and ``stderr`` (str)."""

    def __init__(self, argv, rc, stdout="", stderr=""):
        self.argv = list(argv)
        self.rc = rc
        self.stdout = stdout
        self.stderr = stderr


class Host:
    """A machine, live (``root='/'``) or recorded.

    :param root: folder that holds the tree; absolute links inside are resolved below it.
    :param commands: callable ``(argv, input) -> Result`` used instead of running anything.
        A recorded tree without it has no commands at all: :meth:`run` raises ``HostError``.
    """

    def __init__(self, root="/", commands=None):
        self.root = os.path.abspath(root)
        self.commands = commands
        self._prefix = "" if self.root == "/" else self.root
        self.remember = False
        """Whether a folder found to be no link is taken to stay none: for one pass of reading only."""
        self._plain = set()
        self.blocked = set()
        """Paths that are not read again since a read did not end (see _watch)."""
        self.current = None
        """Path of the read that is under way, or was last."""
        self.accesses = 0
        self.looked = set()
        """Folders outside the kernel's filesystems in which a file was looked for."""
        self._child = None

    @property
    def live(self):
        """True when this is the machine itself and not a recorded tree."""
        return self.root == "/"

    # -- paths -----------------------------------------------------------------------------

    def real(self, path):
        """The path with every link followed, as seen inside ``root`` (always absolute).

        A link never leaves a recorded tree. What does not exist is kept as it is, and so is a path
        with a loop of links (more than 40): nothing can be read there.
        """
        resolved = self._resolve(path)
        return "/" + "/".join(p for p in path.split("/") if p and p != ".") if resolved is None else resolved

    def _resolve(self, path):
        """The path with every link followed; None for a loop, or for what blocks."""
        self.accesses += 1
        self.current = path
        if path in self.blocked:
            return None
        head, dummy, tail = path.rpartition("/")
        if head in self._plain and tail not in ("", ".", ".."):
            done, todo = head, [tail]
        else:
            done, todo = "", [p for p in path.split("/") if p and p != "."][::-1]
        seen = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            here = done + "/" + part
            target = None if here in self._plain else self._link(here)
            if target is None:
                done = here
                if todo and self.remember:
                    self._plain.add(here)
                continue
            seen += 1
            if seen > MAX_LINKS:
                return None
            if target.startswith("/"):
                done = ""
            todo += [p for p in target.split("/") if p and p != "."][::-1]
        return done or "/"

    def _link(self, inside):
        """Text of the link at a path whose folder is followed already; None when it is none."""
        try:
            return os.readlink(self._prefix + inside)
        except (OSError, ValueError):  # no link, or a name that no file can have
            return None

    def path(self, path):
        """Where ``path`` (absolute, inside) is for the operating system, links followed.

        Raises HostError for a loop of links.
        """
        resolved = self._resolve(path)
        if resolved is None:
            raise HostError("%s: too many symbolic links" % path)
        return self._prefix + resolved

    def _look(self, path):
        if not path.startswith(KERNELS):
            self.looked.add(path.rpartition("/")[0])

    def exists(self, path):
        """Whether something is there; a loop of links is nothing."""
        self._look(path)
        try:
            return os.path.lexists(self.path(path))
        except HostError:
            return False

    def isdir(self, path):
        try:
            return os.path.isdir(self.path(path))
        except HostError:
            return False

    def listdir(self, path):
        """Sorted names in a folder; an empty list when it is missing or unreadable."""
        try:
            return sorted(os.listdir(self.path(path)))
        except (OSError, HostError):
            return []

    def readlink(self, path):
        """The text of a link, or None when there is none (the last component is not followed)."""
        head, tail = os.path.split(path.rstrip("/"))
        try:
            return os.readlink(os.path.join(self.path(head or "/"), tail))
        except (OSError, HostError):
            return None

    def stat(self, path):
        """``os.stat_result`` of what ``path`` leads to, or None."""
        self._look(path)
        try:
            return os.stat(self.path(path))
        except (OSError, HostError):
            return None

    # -- reading ---------------------------------------------------------------------------

    def read_bytes(self, path, limit=READ_LIMIT):
        """At most ``limit`` bytes, or None when the file is missing or unreadable.

        Opened without blocking, and only regular files are read: a FIFO cannot hold us up.
        """
        self._look(path)
        try:
            fd = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, HostError):
            return None
        try:
            return self._drain(fd, limit)
        except OSError:
            return None
        finally:
            os.close(fd)

    def read_folder(self, path, names, limit=READ_LIMIT, links=()):
        """``{name: bytes or None}`` of attributes in one folder of sysfs, which is looked up and opened once.

        An attribute comes in one read; one that is a link is followed as everywhere. For the names in
        ``links`` it is the text of the link.
        """
        found = dict.fromkeys(links)
        try:
            folder = os.open(self.path(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, HostError):
            return dict(found, **dict.fromkeys(names))
        try:
            for name in names:
                found[name] = self._read_in(path, folder, name, limit)
            for name in links:
                try:
                    found[name] = os.readlink(name, dir_fd=folder)
                except OSError:
                    pass
        finally:
            os.close(folder)
        return found

    def _read_in(self, path, folder, name, limit):
        self.accesses += 1
        self.current = path + "/" + name
        if self.blocked and self.current in self.blocked:
            return None
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as exc:
            return self.read_bytes(path + "/" + name, limit) if exc.errno == errno.ELOOP else None
        try:
            return self._drain(fd, limit, whole=True)
        except OSError:
            return None
        finally:
            os.close(fd)

    @staticmethod
    def _drain(fd, limit, whole=False):
        """At most ``limit`` bytes of an open file; None of what is no regular file. ``whole``: in one read."""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        if whole:
            return os.read(fd, limit)
        chunks = []
        left = limit
        while left > 0:
            chunk = os.read(fd, min(left, 1 << 16))
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)

    def read(self, path, limit=READ_LIMIT):
        """Text of a file (UTF-8, bad bytes escaped), or None.

        Only zero bytes at its end are taken off: an archiver pads with them what it copied of sysfs.
        """
        data = self.read_bytes(path, limit)
        return None if data is None else data.rstrip(b"\0").decode("utf-8", "backslashreplace")

    def read_attribute(self, path):
        """A one-line sysfs attribute without its newline, or None."""
        text = self.read(path, 1 << 16)
        return None if text is None else text.strip()

    # -- writing ---------------------------------------------------------------------------

    def write(self, path, data, mode=0o644):
        """Replace a file atomically (temporary file in the same folder, fsync, rename).

        ``data`` is str or bytes. Missing folders are made, mode 0755. Owner is the caller.
        """
        if isinstance(data, str):
            data = data.encode("utf-8")
        target = self.path(path)
        folder = os.path.dirname(target)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".vfio-host-", dir=folder)
        try:
            with os.fdopen(fd, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fchmod(handle.fileno(), mode)
                os.fsync(handle.fileno())
            os.rename(temporary, target)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
        self._sync_folder(folder)

    def remove(self, path):
        """Remove a file (a link itself is removed, not its target). True if there was one."""
        self._look(path)
        head, tail = os.path.split(path.rstrip("/"))
        outside = os.path.join(self.path(head), tail)
        if not os.path.lexists(outside):
            return False
        os.unlink(outside)
        self._sync_folder(os.path.dirname(outside))
        return True

    def copy(self, source, target, mode=0o600):
        """Copy a large file. Atomic like :meth:`write`, and ``target`` may be on another filesystem."""
        for path in self.leftovers([posixpath.dirname(target)], built=False):
            self.remove(path)
        outside = self.path(target)
        folder = os.path.dirname(outside)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".vfio-host-", dir=folder)
        try:
            with os.fdopen(fd, "wb") as sink, open(self.path(source), "rb") as handle:
                shutil.copyfileobj(handle, sink, 1 << 20)
                sink.flush()
                os.fsync(sink.fileno())
            if os.stat(temporary).st_mode & 0o7777 != mode:
                os.chmod(temporary, mode)
            os.rename(temporary, outside)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
        self._sync_folder(folder)

    def leftovers(self, folders=None, built=True):
        """Paths of what killed runs left half written (or half built), in these folders or in all that were looked into."""
        found = []
        for folder in sorted(self.looked if folders is None else set(folders)):
            found += [posixpath.join(folder, name) for name in self.listdir(folder)
                      if TEMPORARY.match(name) or built and name.startswith(NEW)]
        return found

    def replace(self, source, target, mode=None):
        """Put a finished file in the place of another one in the same folder; a power cut leaves either whole."""
        inside = self.path(source)
        fd = os.open(inside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if mode is not None and os.fstat(fd).st_mode & 0o7777 != mode:  # FAT has no modes to change
                os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        outside = self.path(target)
        os.rename(inside, outside)
        self._sync_folder(os.path.dirname(outside))

    def remove_empty_folder(self, path):
        """Remove a folder of ours when nothing is left in it. True if it went."""
        try:
            os.rmdir(self.path(path))
        except OSError:
            return False
        return True

    def set_owner(self, path, uid, gid, mode):
        """Owner, group and mode of a device node or file, numbers all. Raises HostError.

        At no moment can anybody do more with it than before or after.
        """
        try:
            outside = self.path(path)
            fewer = os.stat(outside).st_mode & mode & 0o7777
            os.chmod(outside, fewer)
            os.chown(outside, uid, gid)
            os.chmod(outside, mode)
        except OSError as exc:
            raise HostError("%s: it cannot be given to %d:%d with mode %04o: %s" % (
                path, uid, gid, mode, exc.strerror)) from exc

    @staticmethod
    def _sync_folder(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError:
            pass  # some filesystems cannot sync a folder; the rename is atomic all the same
        finally:
            os.close(fd)

    def write_sysfs(self, path, value, timeout=SYSFS_TIMEOUT):
        """Write ``value`` to a sysfs attribute in a child with a deadline.

        Raises HostTimeout when the kernel does not return (with the kernel's stack of the child where that can be
        read), HostError with its errno text when it refuses. A child stuck in the kernel is left behind: nothing can
        end it.
        """
        data = value.encode("ascii")
        target = self.path(path)
        code = self._in_child("writing %r to %s" % (value, path), timeout, lambda child: child.write(target, data, timeout))
        if code:
            raise HostError("writing %r to %s: %s" % (value, path, os.strerror(code)))

    def read_sysfs(self, path, timeout=SYSFS_TIMEOUT):
        """A one-line attribute whose reading may block as a write does (it takes the device's lock), or None.

        Raises HostTimeout when the kernel does not return.
        """
        try:
            target = self.path(path)
        except HostError:
            return None
        code, data = self._in_child("reading %s" % path, timeout, lambda child: child.read(target, timeout))
        return None if code else data.rstrip(b"\0").decode("utf-8", "backslashreplace").strip()

    def _in_child(self, what, timeout, work):
        if self._child is None or self._child.owner != os.getpid():
            self._child = Child()
        try:
            answer = work(self._child)
        except Stuck as exc:
            self._child = None
            raise HostTimeout("%s did not end within %g s%s" % (what, timeout, exc)) from exc
        if answer is None or answer == (None, b""):
            self._child = None
            raise HostError("%s: the child that does it died" % what)
        return answer

    def vfio_open(self, path, timeout=SYSFS_TIMEOUT):
        """Open and close a function's own node like /dev/vfio/devices/vfio0, which does nothing to the function.

        Raises HostTimeout when the kernel does not return, HostError when the node cannot be opened.
        """
        target = self.path(path)
        code = self._in_child("opening %s" % path, timeout, lambda child: child.open(target, timeout))
        if code:
            raise HostError("%s: %s" % (path, os.strerror(code)))

    def vfio_viable(self, path, timeout=SYSFS_TIMEOUT):
        """Whether the kernel calls the group of a node like /dev/vfio/7 viable; None when somebody has it open.

        Raises HostTimeout when the kernel does not return, HostError when the node cannot be opened or asked.
        """
        target = self.path(path)
        code, status = self._in_child(
            "asking %s" % path, timeout,
            lambda child: child.ioctl(target, VFIO_GROUP_GET_STATUS, struct.pack("II", 8, 0), timeout))
        if code == errno.EBUSY:  # a group is opened once
            return None
        if code:
            raise HostError("%s: %s" % (path, os.strerror(code)))
        return bool(struct.unpack("II", status)[1] & VFIO_GROUP_FLAGS_VIABLE)

    # -- commands --------------------------------------------------------------------------

    def which(self, name):
        """Absolute path of a command on the live machine, or None; a recorded tree has none."""
        if self.commands is not None or not self.live:
            for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
                if self.exists(folder + "/" + name):
                    return folder + "/" + name
            return None
        return shutil.which(name, path=COMMAND_PATH)

    def run(self, argv, timeout=COMMAND_TIMEOUT, stdin=None, check=True, log=None, env=None):
        """Run a command without a shell, in the C locale, with a deadline.

        ``env``: variables for it, beside those of this process. ``commands`` is told of them, as a
        third argument, only when there are any.
        ``log`` is a file outside ``root`` that both output streams are appended to, for commands
        that take minutes; ``stderr`` of the result then holds the end of that file.
        Returns a Result. Raises HostTimeout at the deadline (the whole process group is ended),
        HostError when it cannot be started or, with ``check``, when it ends non-zero.
        """
        if self.commands is not None:
            result = self.commands(list(argv), stdin, dict(env)) if env else self.commands(list(argv), stdin)
        elif not self.live:
            raise HostError("%s: a recorded tree runs no commands" % argv[0])
        else:
            result = self._execute(argv, timeout, stdin, log, env)
        if check and result.rc != 0:
            raise HostError(
                "%s ended with %d: %s"
                % (" ".join(result.argv), result.rc, (result.stderr or result.stdout).strip()[-2000:])
            )
        return result

    def _execute(self, argv, timeout, stdin, log=None, env=None):
        environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
        # An ordinary user's path often lacks the folders where sfdisk and mke2fs are.
        environment["PATH"] = os.pathsep.join(filter(None, (environment.get("PATH"), COMMAND_PATH)))
        environment.update(env or {})
        sink = open(log, "ab") if log else subprocess.PIPE
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as exc:
            raise HostError("%s: %s" % (argv[0], exc.strerror)) from exc
        finally:
            if log:
                sink.close()
        data = stdin.encode("utf-8") if isinstance(stdin, str) else stdin
        try:
            out, err = process.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired as exc:
            self._end(process)
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                pass
            raise HostTimeout("%s did not end within %g s" % (" ".join(argv), timeout)) from exc
        if log:
            with open(log, "rb") as handle:
                handle.seek(max(0, os.path.getsize(log) - 4000))
                out, err = b"", handle.read()
        return Result(
            argv,
            process.returncode,
            out.decode("utf-8", "backslashreplace"),
            err.decode("utf-8", "backslashreplace"),
        )

    @contextlib.contextmanager
    def pipe(self, argv, path, offset=0, timeout=COMMAND_TIMEOUT, length=None):
        """Feed a file from ``offset`` on, or ``length`` bytes of it, to a filter (a decompressor), yield its
        output as a binary file.

        Nothing is held in memory. The filter sees only the open file, so this works for a recorded
        tree too. It may be left early. Raises HostTimeout at the deadline, HostError when the filter
        cannot be started or ends non-zero after it was read to its end.
        """
        expired = threading.Event()

        def expire():
            expired.set()
            self._end(process)

        with tempfile.TemporaryFile() as errors:
            try:
                with open(self.path(path), "rb") as source:
                    os.lseek(source.fileno(), offset, os.SEEK_SET)
                    process = subprocess.Popen(
                        list(argv),
                        stdin=source.fileno() if length is None else subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        env=dict(os.environ, LC_ALL="C", LANGUAGE="C"),
                        start_new_session=True,
                    )
                    if length is not None:
                        feeder = threading.Thread(
                            target=self._feed, args=(os.dup(source.fileno()), process.stdin, length), daemon=True
                        )
                        feeder.start()
            except OSError as exc:
                raise HostError("%s < %s: %s" % (argv[0], path, exc.strerror)) from exc
            timer = threading.Timer(timeout, expire)
            timer.daemon = True
            timer.start()
            ended = None
            try:
                yield process.stdout
                if not process.stdout.read(1):
                    ended = process.wait()
            except Exception as exc:
                if not expired.is_set():
                    raise
                raise HostTimeout("%s < %s did not end within %g s" % (argv[0], path, timeout)) from exc
            finally:
                timer.cancel()
                if process.returncode is None:  # once waited for, its number may be another's
                    self._end(process)
                process.stdout.close()
                process.wait()
            if expired.is_set():
                raise HostTimeout("%s < %s did not end within %g s" % (argv[0], path, timeout))
            if ended:
                errors.seek(0)
                said = errors.read(2000).decode("utf-8", "backslashreplace").strip()
                raise HostError("%s < %s ended with %d: %s" % (argv[0], path, ended, said))

    @staticmethod
    def _feed(source, sink, length):
        """Copy ``length`` bytes to a filter; one that left early is no error here."""
        try:
            with os.fdopen(source, "rb", buffering=0) as handle:
                with sink:
                    while length > 0:
                        data = handle.read(min(length, 1 << 16))
                        if not data:
                            break
                        length -= len(data)
                        sink.write(data)
        except (OSError, ValueError):
            pass

    @staticmethod
    def _end(process):
        """End a command that was started in a session of its own, with all that it has started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass

    # -- the process's own surroundings ------------------------------------------------------

    def privileged(self):
        """True when everything on the machine can be read (root on a live host)."""
        return not self.live or os.geteuid() == 0

    def environment(self, name):
        """An environment variable of this process; a recorded tree has none."""
        return os.environ.get(name) if self.live else None

    def pid(self):
        """Our process id on a live host, else None."""
        return os.getpid() if self.live else None
