# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""What belongs on the kernel command line of a machine, and how to read a running one. Pure.

A problem is ``{code, text}``, the code that of a finding: nothing may be applied while there is one.
"""

from __future__ import annotations

import re

from ansible_collections.vfio.host.plugins.module_utils._assignment import isolated_cpus
from ansible_collections.vfio.host.plugins.module_utils._boot import iommu_line, tokens
from ansible_collections.vfio.host.plugins.module_utils._guest.sizing import parse_size
from ansible_collections.vfio.host.plugins.module_utils._memory import boot
from ansible_collections.vfio.host.plugins.module_utils._memory.hugepages import check_pages

UNFIT, NO_TABLE, TURNED_OFF, NO_REMAPPING, OVERRIDE = "VH320", "VH120", "VH122", "VH126", "VH142"
OVERRIDE_HOST = "acs_override"
"""The place of OVERRIDE, by which it is acknowledged: ``{code: VH142, host: acs_override}``."""

OPTIONS = {
    "iommu": True,
    "passthrough": False,
    "hugepages": [],
    "default_hugepage_size": "",
    "host_reserve": "1GiB",
    "isolated_cpus": "",
    "isolated_flags": [],
    "nohz_full": False,
    "rcu_nocbs": False,
    "acs_override": "",
    "parameters": [],
}
"""What can be asked for, with its default."""

PASSTHROUGH_TOKENS = ("iommu.passthrough=1", "iommu.passthrough=y", "iommu.passthrough=on")
_OVERRIDE = re.compile(r"^(downstream|multifunction|id:[0-9a-f]{4}:[0-9a-f]{4})$")


def _number(value):
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_options(options):
    """The options with their defaults. Raises ValueError for an unknown one, or a value of another kind."""
    if not isinstance(options, dict):
        raise ValueError("the options must be a mapping, not %r" % (options,))
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError("unknown option %s; there are %s" % (name, ", ".join(OPTIONS)))
        kind = type(OPTIONS[name])
        if kind is str and value is None or name in ("host_reserve", "isolated_cpus") and _number(value):
            continue
        if not isinstance(value, kind):
            raise ValueError("%s: %r is no %s" % (
                name, value, {bool: "boolean (true or false)", list: "list", str: "text"}[kind]))
    return dict(OPTIONS, **options)


def kernel_parameters(machine, options=None, functions=(), acknowledged=False):
    """``{parameters, problems, notes, hugepages, override}`` for options as in OPTIONS.

    :param functions: addresses that are to be assigned: some need more than the IOMMU itself.
    :param acknowledged: whether OVERRIDE is; else its parameter is left out and it is a problem.
    ``parameters``: tokens in their order, for kernel_cmdline. ``hugepages``: what the module hugepages has to set.
    ``override``: the value of pcie_acs_override= that was asked for, or None.
    """
    asked = check_options(options or {})
    parts = []
    if asked["iommu"]:
        parts.append(_iommu(machine, functions))
    parts.append(_passthrough(machine, asked["passthrough"]))
    pages = boot.parameters(machine, check_pages(_pages(asked["hugepages"])), asked["default_hugepage_size"],
                            parse_size(asked["host_reserve"], "host_reserve"))
    parts.append(pages)
    parts.append(isolated_cpus.parameters(machine, asked["isolated_cpus"], asked["isolated_flags"], asked["nohz_full"],
                                          asked["rcu_nocbs"]))
    parts.append(_others(machine, asked["parameters"], asked["iommu"]))
    wanted = [token for part in parts for token in part["tokens"]]
    problems = [problem if isinstance(problem, dict) else _problem(UNFIT, problem)
                for part in parts for problem in part["problems"]]
    problems += [_problem(UNFIT, text) for text in _contradictions(parts)]
    notes = [note for part in parts for note in part["notes"]]

    override = _override(asked, wanted)
    wanted = [token for token in wanted if tokens.key(token) != "pcie_acs_override"]
    if override and acknowledged:
        wanted.append("pcie_acs_override=%s" % override)
    elif override:
        problems.append(_problem(OVERRIDE, override_text(override)))
    return {"parameters": wanted, "problems": problems, "notes": notes, "hugepages": pages["runtime"],
            "override": override}


def override_text(value):
    return ("pcie_acs_override=%s makes groups look smaller than the hardware isolates; no group that it makes counts "
            "as isolation. A kernel without the patch ignores it, and only its log after a boot tells." % value)


def _problem(code, text):
    return {"code": code, "text": text}


def _part(found=(), problems=(), notes=()):
    return {"tokens": list(found), "problems": list(problems), "notes": list(notes)}


def _line(machine):
    return tokens.for_kernel(tokens.split(machine["host"]["kernel"]["cmdline"]))


def _pages(entries):
    """The entries with numbers for the digits that a template made of them."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not set(entry) <= {"size", "count", "node"} or "count" not in entry:
            raise ValueError("hugepages[%d]: %r must have count, and can have size and node" % (number, entry))
    return [{key: int(value) if key != "size" and isinstance(value, str) and value.isdigit() else value
             for key, value in entry.items()} for entry in entries]


# -- the IOMMU -----------------------------------------------------------------------------------


def _iommu(machine, functions):
    host = machine["host"]
    iommu, config, line = host["iommu"], host["kernel"]["config"] or {}, _line(machine)
    table = iommu.get("firmware_table")
    if table is None and not iommu.get("active"):
        return _part(problems=[_problem(NO_TABLE, (
            "host.iommu.firmware_table is None: the firmware offers no IOMMU, no kernel parameter helps; turn on VT-d, "
            "AMD-Vi or the SMMU in the firmware setup (docs/findings/VH120.md)"))])
    if table not in ("DMAR", "IVRS"):
        return _part()  # an SMMU is on by itself
    problems = [_problem(TURNED_OFF, "%s turns the IOMMU off, and no other parameter turns it on again%s: take it out "
                         "where the boot loader is configured." % (
                             token, " (amd_iommu=on is no value that the kernel knows)" if "amd" in token else ""))
                for token in iommu_line.turned_off(line, table)]
    off = iommu_line.remapping_off(line)
    if off and not iommu.get("unsafe_interrupts"):
        problems.append(_problem(NO_REMAPPING, "%s turns the remapping of interrupts off, and vfio refuses to assign "
                                 "anything then: take it out where the boot loader is configured." % off))
    driver = {"DMAR": "INTEL_IOMMU", "IVRS": "AMD_IOMMU"}[table]
    if config.get(driver) == "n":
        problems.append(_problem(UNFIT, "Kernel %s is built without CONFIG_%s and cannot use this machine's IOMMU; "
                                 "boot another one." % (host["kernel"]["release"], driver)))
    if table == "IVRS":
        return _part(problems=problems)
    found = _intel(machine, line, config, functions)
    found["problems"] = problems + found["problems"]
    return found


def _intel(machine, line, config, functions):
    graphics = [f["address"] for f in machine["functions"] if f["address"] in functions and f["vendor"] == "8086"
                and f["class"].startswith("03") and f["parent"] is None]
    options = [option for option, dummy in iommu_line.options(line, "intel_iommu")]
    problems, notes = [], []
    if "igfx_off" in options and graphics:
        problems.append("intel_iommu=igfx_off keeps the graphics of Intel out of the IOMMU, no other parameter "
                        "outweighs it, and %s is to be assigned: take it out where the boot loader is configured."
                        % ", ".join(graphics))
    elif "igfx_off" in options:
        notes.append("intel_iommu=igfx_off keeps the graphics of Intel out of the IOMMU: these cannot be assigned.")
    default, needed = iommu_line.intel_default(config), True
    if default is None:
        notes.append("Whether the kernel turns an Intel IOMMU on by itself is not known: its configuration cannot be "
                     "read. intel_iommu=on does no harm.")
    elif "off" in options:
        notes.append("The running command line has intel_iommu=off. A later intel_iommu=on outweighs it.")
    elif graphics and (default == "but graphics" or "intgpu_off" in options):
        notes.append("This kernel leaves the graphics of Intel on the root bus out of the IOMMU unless intel_iommu=on "
                     "is given, and %s is to be assigned." % ", ".join(graphics))
    elif default != "off":
        needed = False
        notes.append("Kernel %s turns an Intel IOMMU on by itself%s: intel_iommu=on is not needed."
                     % (machine["host"]["kernel"]["release"],
                        ", apart from the graphics of Intel on the root bus" if default == "but graphics" else ""))
    return _part(["intel_iommu=on"] if needed else [], problems, notes)


def _passthrough(machine, wanted):
    host = machine["host"]
    line = _line(machine)
    if not wanted:
        there = [token for token in line if token in PASSTHROUGH_TOKENS
                 or tokens.key(token) == "iommu" and "pt" in (tokens.value(token) or "").split(",")]
        return _part(notes=["%s on the running command line is about the host's own devices: assignment neither needs "
                            "it nor minds it." % token for token in dict.fromkeys(there)])
    if (host["kernel"]["config"] or {}).get("IOMMU_DEFAULT_PASSTHROUGH") == "y" and not (
            any(option == "nopt" for option, dummy in iommu_line.options(line, "iommu"))
            or any(tokens.key(token) == "iommu.passthrough" for token in line)):
        return _part(notes=["passthrough: kernel %s does that by itself." % host["kernel"]["release"]])
    x86 = host["iommu"].get("firmware_table") or host["kernel"]["machine"] == "x86_64"
    return _part(["iommu=pt" if x86 else "iommu.passthrough=1"], notes=[
        "passthrough: the host's own devices are not translated, which can make them faster. What a guest has is "
        "translated all the same, and groups do not change."])


def iommu_parameters(machine):
    """Kernel tokens this machine needs for an active IOMMU. Raises ValueError where none can help.

    AMD needs none: the kernel uses the IOMMU whenever the IVRS table is there, and amd_iommu=on is
    no valid value (kernel-parameters.txt).
    """
    found = _iommu(machine, ())
    if found["problems"]:
        raise ValueError("; ".join(problem if isinstance(problem, str) else problem["text"]
                                   for problem in found["problems"]))
    return found["tokens"]


# -- what was written by hand ----------------------------------------------------------------------


def _others(machine, asked, iommu):
    for token in asked:
        if not isinstance(token, str):
            raise ValueError("parameters: %r is no text" % (token,))
    problems = ["%s: the kernel knows no such value, and uses an AMD IOMMU without being asked; leave it out." % token
                for option, token in iommu_line.options(asked, "amd_iommu") if option == "on"]
    if iommu:
        off = iommu_line.turned_off(asked, machine["host"]["iommu"].get("firmware_table"))
        off += [token for option, token in iommu_line.options(asked, "intel_iommu") if option == "off"]
        if off:
            problems.append("parameters: %s turns the IOMMU off, which devices are assigned with." % ", ".join(off))
        if iommu_line.remapping_off(asked):
            problems.append("parameters: %s turns the remapping of interrupts off, and vfio refuses to assign anything "
                            "then." % iommu_line.remapping_off(asked))
    return _part(asked, problems)


def _contradictions(parts):
    """Sentences about tokens of two parts that cannot both be in force; the last part is what was written by hand."""
    made = [token for part in parts[:-1] for token in part["tokens"]]
    return ["parameters: %s contradicts %s, which follows from the other options; give one of them." % (token, other)
            for token in parts[-1]["tokens"] for other in made
            if tokens.key(token) != "hugepages" and tokens.conflicts(other, token)]


def _override(asked, wanted):
    """The value of pcie_acs_override= from the option and from what was written by hand, or None."""
    said = [asked["acs_override"] or ""] + [tokens.value(token) or "" for token in wanted
                                            if tokens.key(token) == "pcie_acs_override"]
    words = [word for text in said for word in text.split(",") if word]
    for word in words:
        if not _OVERRIDE.match(word):
            raise ValueError("acs_override: %r is not downstream, multifunction or id:vvvv:dddd" % word)
    return ",".join(dict.fromkeys(words)) or None


def effective(cmdline, wanted):
    """What a command line says about one wanted token: the token itself when it is in force, else the token
    of the same key that counts, or None.
    """
    line = tokens.for_kernel(tokens.split(cmdline))
    if tokens.has(line, wanted):
        return wanted
    same = [token for token in line if tokens.key(token) == tokens.key(wanted)]
    return tokens.counting(tokens.key(wanted), same) if same else None
