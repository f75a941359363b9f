# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""Rules about GPUs: VH450 to VH499. Pure.

A GPU here is a function of class 03xx that is neither virtual nor the display of a server's
management controller; a card is a GPU that is behind a port and no part of the CPU.
"""

from __future__ import annotations

from ansible_collections.vfio.host.plugins.module_utils._findings.finding import describe, listed, on_device, on_host, rule
from ansible_collections.vfio.host.plugins.module_utils._findings.kernel import GIB, named, size

MIB = 2**20
SMALL_WINDOW = 256 * MIB
LARGE_WINDOW = 4 * GIB

MANAGEMENT_IDS = ("1a03:2000", "1002:515e", "18ca:0020", "19e5:1711")
"""ASPEED, ES1000, XGI Z9, Huawei iBMC. Matrox G200 in a server chip: 102b:0522 to 053f."""

NVIDIA_AUDIO_SINCE = 0x08A0
"""GeForce 320M: quirk_nvidia_hda of the kernel takes it and what came later to have an audio function."""
KEPLER = 0x0FC0
FERMI_RANGES = ((0x1040, 0x10DF), (0x1140, 0x117F), (0x1200, 0x127F))
"""NVIDIA's display ids below 0x0fc0 are older than Kepler; later ids are not, but for these
ranges of Fermi and GT2xx (names in pci.ids of 2023; device ids are not handed out in order)."""

AMD_FAMILIES = {
    "Polaris 10": frozenset("67c0 67c1 67c2 67c4 67c7 67c8 67c9 67ca 67cc 67cf 67d0 67df 6fdf".split()),
    "Polaris 11": frozenset("67e0 67e1 67e3 67e7 67e8 67e9 67eb 67ef 67ff".split()),
    "Polaris 12": frozenset("6980 6981 6985 6986 6987 6995 6997 699f".split()),
    "Vega 10": frozenset("6860 6861 6862 6863 6864 6867 6868 6869 686a 686b 686c 686d 686e 686f 687f".split()),
    "Vega 20": frozenset("66a0 66a1 66a2 66a3 66a4 66a7 66af".split()),
    "Navi 10": frozenset("7310 7312 7318 7319 731a 731b 731e 731f".split()),
    "Navi 12": frozenset("7360 7362".split()),
    "Navi 14": frozenset("7340 7341 7347 734f".split()),
}
"""The families that the module vendor-reset was written for; which id is which family is from the id
table of the kernel's amdgpu driver."""

AMD_SWITCH = ("1002:1478", "1002:1479", "1022:1470", "1022:1471")


def _gpus(view):
    return [function for function in view.endpoints()
            if function["class"].startswith("03") and function["physfn"] is None and not _management(function)]


def _management(function):
    return function["id"] in MANAGEMENT_IDS or (
        function["vendor"] == "102b" and 0x0522 <= int(function["device"], 16) <= 0x053F)


def _integrated(view, gpu):
    """Whether a GPU is part of an Intel or AMD CPU. In a virtual machine a root bus says nothing."""
    on_root_bus = gpu["vendor"] in ("8086", "1002") and gpu["parent"] is None and not view.host["product"]["virtual"]
    return on_root_bus or _beside_processor(view, gpu)


def _beside_processor(view, gpu):
    """An APU's GPU shares its slot with AMD's (1022) security processor and USB; a card is all ATI (1002)."""
    return any(function["vendor"] == "1022" for function in view.slot(gpu["address"]))


def _cards(view):
    return [gpu for gpu in _gpus(view) if gpu["parent"] is not None and not _beside_processor(view, gpu)]


def _card_functions(view, gpu):
    """All functions of a GPU's card, itself among them; no bridges and no virtual functions."""
    return [function for function in view.slot(gpu["address"])
            if not function["is_bridge"] and function["physfn"] is None]


def _audio(view, gpu):
    return next((f for f in _card_functions(view, gpu) if f["class"].startswith("0403")), None)


def _nvidia_outputs(gpu):
    """NVIDIA with outputs of its own: class 0300, not the 3D controllers of class 0302."""
    return gpu["vendor"] == "10de" and gpu["class"].startswith("0300")


def _no_audio(view):
    cards = _cards(view)
    with_audio = {gpu["id"]: gpu["address"] for gpu in cards if _audio(view, gpu)}
    for gpu in cards:
        if _audio(view, gpu):
            continue
        missing = "No function beside %s is of class 0403." % describe(gpu)
        if gpu["id"] in with_audio:
            yield on_device(gpu["address"], missing,
                            "%s has the same id, and an audio function." % with_audio[gpu["id"]])
        elif _nvidia_outputs(gpu) and int(gpu["device"], 16) >= NVIDIA_AUDIO_SINCE:
            yield on_device(gpu["address"], missing, "NVIDIA's GPUs with outputs have one since the GeForce 320M.")


def _many_functions(view):
    for gpu in _cards(view):
        functions = _card_functions(view, gpu)
        if len(functions) > 2 and [f for f in functions if f["class"].startswith("03")][0] is gpu:
            yield on_device(gpu["address"], "The card has %d functions: %s." % (len(functions), named(functions)))


def _kinds(gpu):
    return {image["kind"] for image in gpu["rom"] or ()}


def _no_efi_image(view):
    for gpu in _cards(view):
        if "legacy" in _kinds(gpu) and "efi" not in _kinds(gpu):
            evidence = ["The ROM of %s has a legacy image and no EFI image." % describe(gpu)]
            if gpu["boot_vga"]:
                evidence.append("The firmware used this GPU: what was read may be its copy, not the card's own ROM.")
            yield on_device(gpu["address"], *evidence)


def _only_efi_image(view):
    found = [gpu for gpu in _cards(view) if "efi" in _kinds(gpu) and "legacy" not in _kinds(gpu)]
    if found:
        yield on_host("gpu", "The ROM has an EFI image and no legacy image: %s." % named(found))


def _shadow_rom(view):
    for gpu in _cards(view):
        if gpu["boot_vga"]:
            yield on_device(gpu["address"], "boot_vga of %s is 1." % describe(gpu))


def before_kepler(device):
    """Whether a device id (four hex digits) of an NVIDIA display function is older than Kepler."""
    number = int(device, 16)
    return number < KEPLER or any(low <= number <= high for low, high in FERMI_RANGES)


def _nvidia_old(view):
    for gpu in _cards(view):
        if gpu["vendor"] == "10de" and before_kepler(gpu["device"]):
            yield on_device(gpu["address"], "%s is older than Kepler by its device id." % describe(gpu))


def _nvidia_new(view):
    found = [gpu for gpu in _cards(view) if _nvidia_outputs(gpu) and not before_kepler(gpu["device"])]
    if found:
        yield on_host("gpu", "Kepler or later by the device id: %s." % named(found))


def _no_outputs(view):
    found = [gpu for gpu in _cards(view) if gpu["class"].startswith("0302")]
    if found:
        yield on_host("gpu", "Class 0302, 3D controller: %s." % named(found))


def _in_the_cpu(view):
    for gpu in _gpus(view):
        if _integrated(view, gpu):
            others = [function for function in _card_functions(view, gpu) if function is not gpu]
            yield on_device(gpu["address"], "%s is part of the CPU." % describe(gpu),
                            *(["In its slot there is also: %s." % named(others)] if others else []))


def amd_family(identifier):
    """The family with reset faults that an id such as ``1002:67df`` is of, or None."""
    vendor, dummy, device = identifier.partition(":")
    if vendor != "1002":
        return None
    return next((name for name, devices in AMD_FAMILIES.items() if device in devices), None)


def _amd_reset(view):
    for gpu in _gpus(view):
        family = amd_family(gpu["id"])
        methods = gpu["reset_methods"]
        if family and (methods or [None])[0] != "device_specific":
            yield on_device(gpu["address"], "%s is a %s by its id." % (describe(gpu), family), _reset_sentence(methods))


def _reset_sentence(methods):
    if methods is None:
        return "How the kernel would reset it is not known."
    if methods == ["unknown"]:
        return "This kernel can reset it and does not say how."
    if not methods:
        return "The kernel has no reset for it alone, so vendor-reset is not at work."
    if "device_specific" in methods:
        return "reset_method has device_specific (vendor-reset), but %s is tried first." % methods[0]
    return "reset_method is %s: without device_specific, vendor-reset is not at work." % " ".join(methods)


def _own_switch(view):
    for gpu in _cards(view):
        switch = [bridge for bridge in view.above(gpu["address"]) if bridge["id"] in AMD_SWITCH]
        if switch:
            yield on_device(gpu["address"], "Above %s: %s." % (describe(gpu), named(switch)))


def _window(gpu):
    """The entry of resizable_bars that can become the largest: the window to the GPU's memory. None without one."""
    windows = [entry for entry in gpu["resizable_bars"] or () if entry["sizes"]]
    return max(windows, key=lambda entry: max(entry["sizes"])) if windows else None


def _small_window(view):
    found = []
    for gpu in _cards(view):
        window = _window(gpu)
        if window and window["size"] <= SMALL_WINDOW and max(window["sizes"]) > window["size"]:
            found.append("%s (BAR %s: %d of %d MiB)"
                         % (describe(gpu), window["bar"], window["size"] // MIB, max(window["sizes"]) // MIB))
    if found:
        yield on_host("gpu", "Resizable, and small now: %s." % listed(found))


def _large_window(view):
    found = []
    for gpu in _cards(view):
        windows = [entry for entry in gpu["resources"] if entry["bar"] != "rom" and entry["size"] >= LARGE_WINDOW]
        if windows:
            largest = max(windows, key=lambda entry: entry["size"])
            found.append("%s (BAR %s: %s)" % (describe(gpu), largest["bar"], size(largest["size"])))
    if found:
        yield on_host("gpu", "4 GiB or more: %s." % listed(found))


def _only_gpu(view):
    displays = [f for f in view.endpoints() if f["class"].startswith("03") and f["physfn"] is None]
    if len(displays) == 1 and displays[0]["boot_vga"] and not _management(displays[0]):
        yield on_host("gpu", "%s is the only GPU, and its boot_vga is 1." % describe(displays[0]))


RULES = (
    rule(
        "VH450", "A GPU is without its audio function", "info",
        "Look for it in the firmware setup, and read the functions again after every boot and every card change: "
        "when it appears, it has to go along with the GPU.",
        _no_audio,
    ),
    rule(
        "VH451", "All functions of this graphics card go together", "info",
        "Give all of them to the same guest, in one slot there. Assigning by slot does that.",
        _many_functions,
    ),
    rule(
        "VH452", "The GPU's ROM has no EFI image", "warn",
        "With OVMF the screen stays dark until the guest's driver starts; accept that, or use SeaBIOS for this guest, "
        "or look for a firmware update of the card.",
        _no_efi_image,
    ),
    rule(
        "VH453", "The GPU's ROM has only an EFI image", "info",
        "Use OVMF for the guest. With SeaBIOS the screen stays dark until the guest's driver starts.",
        _only_efi_image,
    ),
    rule(
        "VH454", "The firmware used this GPU: its ROM may be a changed copy", "info",
        "If the guest shows no picture, give it a ROM file that was read while another GPU was the primary one.",
        _shadow_rom,
    ),
    rule(
        "VH455", "An NVIDIA GPU from before Kepler: its drivers may refuse to run in a guest", "warn",
        "For a GeForce, hide the hypervisor from the guest (kvm hidden, and a Hyper-V vendor id), or choose a Kepler "
        "or later. Quadro and Tesla drivers did not refuse.",
        _nvidia_old,
    ),
    rule(
        "VH456", "GPUs without outputs", "info",
        "Plan how to see the guest: a remote protocol or an emulated display. No monitor can be plugged in.",
        _no_outputs,
    ),
    rule(
        "VH457", "A GPU that is part of the CPU is a special case", "info",
        "Keep it for the host, where it is the best display to have. To assign it, read the page first.",
        _in_the_cpu,
    ),
    rule(
        "VH458", "This GPU's family is known not to reset well", "warn",
        "Expect to reboot the host when a guest stops uncleanly. The module vendor-reset can help: build it for this "
        "kernel, and put device_specific first in reset_method with the role pci_settings, which loads it at each boot.",
        _amd_reset,
    ),
    rule(
        "VH459", "The graphics card brings a switch of its own", "info",
        "Nothing to do: leave its bridges to pcieport, and assign the functions behind them.",
        _own_switch,
    ),
    rule(
        "VH460", "A GPU's memory window is smaller than it could be", "info",
        "Turn on Above 4G Decoding and Resizable BAR in the firmware setup, if you want the larger one: a guest "
        "cannot resize it.",
        _small_window,
    ),
    rule(
        "VH461", "The only GPU is the host's display", "info",
        "Fit a second GPU, or turn on the one in the CPU, for the host. Or run the host without a screen, over the "
        "network.",
        _only_gpu,
    ),
    rule(
        "VH463", "NVIDIA's drivers run in a guest since R465", "info",
        "Install R465 or later in the guest and do not hide the hypervisor. Older GeForce drivers need it hidden.",
        _nvidia_new,
    ),
    rule(
        "VH464", "GPUs with large memory windows", "info",
        "Use OVMF for the guest. If its driver says Code 12 or finds no resources, enlarge the firmware's 64-bit "
        "window.",
        _large_window,
    ),
)
