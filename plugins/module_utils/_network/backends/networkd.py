# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""systemd-networkd: a bridge is a .netdev, a .network for itself and one for each port.

The interface of a backend, which ``bridge.py`` calls:

- ``NAME``
- ``observe(host) -> seen``: everything of the backend's that later steps need, in plain data
- ``owned(seen) -> {bridge: {"files": {path: text}, "ports": [name]}}``: what is ours on the host
- ``files(bridge, links, seen) -> {path: text}``: what should be there; ValueError when it cannot work
- ``stranger(host, link, wanted) -> path | None``: a file in force for the link that is none of the wanted
- ``marker(paths) -> path``: the file to write first and remove last, so that ownership is never lost
- ``activate(host, names)``: make the files count, now, for these links
- ``claims(link, seen) -> bool``: would something that is not ours configure this link
- ``log(host) -> str``: the service's last words, for an error message
"""

from __future__ import annotations

import fnmatch
import posixpath
import re

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

NAME = "networkd"

FOLDER = "/etc/systemd/network"
# systemd.network(5): a name in an earlier folder hides the same name in a later one
FOLDERS = (
    FOLDER,
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
)
LINKS = "/run/systemd/netif/links"

OWN = re.compile(r"(?P<prefix>\d\d)-vfio-host-(?P<bridge>.+?)(-port-(?P<port>.+))?\.(?P<kind>netdev|network)\Z")
PREFIXES = ("25", "15", "05")
"""The first file in name order that matches a link is the only one used: go forward where others sit."""

HEADER = "# Written by the Ansible collection vfio.host (module bridge); its next run replaces what is changed here.\n"

COMMAND_TIMEOUT = 60.0
LOG_TIMEOUT = 10.0


def observe(host):
    """``{own: {path: text}, foreign: [(path, text)]}``, foreign in the order in which networkd tries them."""
    found, own = {}, {}
    for folder in FOLDERS:
        for name in host.listdir(folder):
            if not name.endswith((".network", ".netdev")):
                continue
            path = posixpath.join(folder, name)
            if folder == FOLDER and OWN.match(name):
                own[path] = host.read(path) or ""
            elif name not in found:
                found[name] = (path, host.read(path) or "")  # masked by /dev/null: not read, so empty
    return {"own": own, "foreign": [found[name] for name in sorted(found)]}


def owned(seen):
    bridges = {}
    for path in sorted(seen["own"]):
        match = OWN.match(posixpath.basename(path))
        entry = bridges.setdefault(match.group("bridge"), {"files": {}, "ports": []})
        entry["files"][path] = seen["own"][path]
        if match.group("port"):
            entry["ports"].append(match.group("port"))
    return bridges


def marker(paths):
    """The .netdev: while it is there, the bridge is ours."""
    return next((path for path in sorted(paths) if path.endswith(".netdev")), None)


def files(bridge, links, seen):
    name = bridge["name"]
    if "-port-" in name:
        raise ValueError("bridge %s: '-port-' has a meaning in our file names: choose another name" % name)
    for path, text in seen["foreign"]:
        if path.endswith(".netdev") and _last(text, "NetDev", "Name") == name:
            raise ValueError("bridge %s is defined by %s already: remove it or choose another name" % (name, path))
    base = "%s/%s-vfio-host-%s" % (FOLDER, _prefix(bridge, links, seen), name)
    wanted = {base + ".netdev": _netdev(bridge), base + ".network": _network(bridge)}
    for port in bridge["ports"]:
        wanted["%s-port-%s.network" % (base, port)] = _port(bridge, links[port])
    return wanted


def _netdev(bridge):
    return _unit(
        ("NetDev", [("Name", bridge["name"]), ("Kind", "bridge"), ("MACAddress", bridge["mac"])]),
        (
            "Bridge",
            [("STP", "yes" if bridge["stp"] else "no"), ("ForwardDelaySec", str(bridge["forward_delay"]))],
        ),
    )


def _network(bridge):
    network, more = [], []
    if bridge["dhcp"]:
        network += [("DHCP", "yes")]
        # the switch and the lease know the host by the NIC's address, not by an id made from "br0";
        # the metric keeps a default route that the host has already (1024) in front of the lease's
        more += [
            ("DHCPv4", [("ClientIdentifier", "mac"), ("RouteMetric", "2048")]),
            ("IPv6AcceptRA", [("RouteMetric", "2048")]),
        ]
    else:
        # guests can use the bridge while the cable is out
        network += [("ConfigureWithoutCarrier", "yes"), ("IPv6AcceptRA", "no")]
    if not bridge["dhcp"] and not bridge["addresses"]:
        network += [("LinkLocalAddressing", "no")]
    network += [("Address", address) for address in bridge["addresses"]]
    return _unit(("Match", [("Name", bridge["name"])]), ("Link", _link(bridge)), ("Network", network), *more)


def _port(bridge, link):
    return _unit(
        ("Match", [_match(link)]),
        ("Link", _link(bridge)),
        ("Network", [("Bridge", bridge["name"]), ("LinkLocalAddressing", "no"), ("IPv6AcceptRA", "no")]),
    )


def _match(link):
    """The NIC's own address where it has one: a card added later renames enp4s0, and the file must
    neither lose its NIC nor catch another one, such as that of the running connection."""
    if link["assigned"] == 0:
        return ("PermanentMACAddress", link["mac"])
    return ("Name", link["name"])


def _link(bridge):
    settings = [("RequiredForOnline", "no")]  # a cable that is out must not hold up the boot
    if bridge["mtu"] is not None:
        settings.append(("MTUBytes", str(bridge["mtu"])))
    return settings


def _unit(*sections):
    parts = ["[%s]\n%s" % (title, "".join("%s=%s\n" % pair for pair in settings)) for title, settings in sections]
    return HEADER + "\n" + "\n".join(parts)


# -- other people's files -------------------------------------------------------------------


def _prefix(bridge, links, seen):
    """The number our files need so that no other file takes the bridge or a port before them."""
    name = bridge["name"]
    subjects = [dict(links.get(name) or {"driver": None}, name=name, mac=bridge["mac"], bridge=True, type=1)]
    subjects += [links[port] for port in bridge["ports"]]
    rivals = []
    for path, text in seen["foreign"]:
        if path.endswith(".network"):
            caught = [link["name"] for link in subjects if matches(text, link)]
            if caught:
                rivals.append((path, caught))
    current = owned(seen).get(name, {"files": {}})["files"]
    present = [OWN.match(posixpath.basename(path)).group("prefix") for path in current]
    for prefix in sorted(set(present), reverse=True) + list(PREFIXES):
        ours = "%s-vfio-host-%s" % (prefix, name)
        if not any(posixpath.basename(path) < ours for path, dummy in rivals):
            return prefix
    path, caught = rivals[0]
    raise ValueError(
        "bridge %s: %s matches %s and its name comes before every one that we may take (%s-...), so networkd would "
        "use it instead of ours: narrow its [Match] or give it a higher number"
        % (name, path, " and ".join(caught), PREFIXES[-1])
    )


def matches(text, link):
    """Whether a .network file may apply to a link. A condition that cannot be judged here counts as met."""
    conditions = settings(text, "Match")
    if not any(values for values in conditions.values()):
        return False  # networkd ignores a file without a valid [Match]
    kind = "bridge" if link.get("bridge") else "ether"
    for key, values in conditions.items():
        words = " ".join(values).split()
        if not words:
            continue
        if key == "Name":
            met = _globs(words, link["name"])
        elif key in ("MACAddress", "PermanentMACAddress"):
            if key == "PermanentMACAddress" and link.get("assigned") not in (None, 0):
                continue  # the permanent address is another one than sysfs shows
            met = _plain(link["mac"]) in [_plain(word) for word in words]
        elif key == "Type":
            met = _globs(words, kind)
        elif key == "Kind":
            met = _globs(words, "bridge" if kind == "bridge" else "")
        elif key == "Driver" and link.get("driver"):
            met = _globs(words, link["driver"])
        else:
            continue
        if not met:
            return False
    return True


def _globs(words, value):
    """systemd.network(5): whitespace-separated globs; a leading '!' turns the whole list round."""
    inverted = words[0].startswith("!")
    if inverted:
        words = [words[0][1:]] + words[1:]
    found = any(fnmatch.fnmatchcase(value, word.strip('"')) for word in words)
    return found != inverted


def _plain(mac):
    return re.sub(r"[:.-]", "", mac or "").lower()


def settings(text, section):
    """``{key: [values]}`` of one section of a unit file; an empty value forgets the earlier ones."""
    found, inside = {}, False
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            inside = line == "[%s]" % section
        elif inside and "=" in line:
            key, dummy, value = line.partition("=")
            values = found.setdefault(key.strip(), [])
            if value.strip():
                values.append(value.strip())
            else:
                del values[:]
    return found


def _last(text, section, key):
    values = settings(text, section).get(key)
    return values[-1] if values else None


def claims(link, seen):
    return any(path.endswith(".network") and matches(text, link) for path, text in seen["foreign"])


# -- the running service ----------------------------------------------------------------------


def _state(host, index):
    text = host.read("%s/%s" % (LINKS, index)) or ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def stranger(host, link, wanted):
    """The file that networkd uses for the link when it is none of ``wanted`` (paths), else None."""
    path = _state(host, link["index"]).get("NETWORK_FILE")
    return path if path and path not in wanted else None


def activate(host, names):
    host.run(["networkctl", "reload"], timeout=COMMAND_TIMEOUT)
    if names:
        host.run(["networkctl", "reconfigure"] + list(names), timeout=COMMAND_TIMEOUT)


def log(host):
    try:
        result = host.run(
            ["journalctl", "--unit=systemd-networkd", "--lines=15", "--no-pager", "--output=cat"],
            timeout=LOG_TIMEOUT,
            check=False,
        )
    except HostError:
        return ""
    return result.stdout.strip() if result.rc == 0 else ""
