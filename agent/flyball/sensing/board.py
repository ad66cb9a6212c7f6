"""What machine this is, as the firmware tells it.

device tree | DMI | architecture -> Board;  Jetson facts from tegra.py;  memory;  accelerators on the buses

Never runs a program, never asks the network; a machine that does not say is "generic <architecture>".
"""

from __future__ import annotations

import os
import re

import msgspec

from flyball.sensing.contract import Roots
from flyball.sensing.sysfs import optional_text
from flyball.sensing.tegra import Tegra, tegra

# What firmware says when its maker filled nothing in.
_FILLERS = re.compile(
    r"^(|to be filled by o\.?e\.?m\.?|default string|system product name|system manufacturer|not specified|none|"
    r"not applicable|o\.?e\.?m\.?|unknown|invalid|\W+)$",
    re.IGNORECASE,
)


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is for people and for recognition; `soc` is empty where it is not known; `source` is who said it."""

    name: str
    arch: str
    soc: str = ""
    vendor: str = ""
    source: str = ""  # "device-tree", "dmi" or "" when nothing said
    cpus: int | None = None  # logical processors that the kernel counts
    ram_bytes: int | None = None
    accelerators: tuple[str, ...] = ()  # as the buses show them; whether one works, a backend's probe tells
    tegra: Tegra | None = None  # of a Jetson


def identify(roots: Roots, arch: str | None = None) -> Board:
    """`arch` is for captured trees; by default it is this machine's."""
    jetson = tegra(roots)
    board = _named(roots, arch or os.uname().machine)
    accelerators = (*((jetson.soc,) if jetson else ()), *_accelerators(roots))
    return msgspec.structs.replace(
        board, cpus=_count_cpus(roots), ram_bytes=_ram_bytes(roots), accelerators=accelerators, tegra=jetson
    )


def _named(roots: Roots, arch: str) -> Board:
    tree = roots.proc / "device-tree"
    model = _line(optional_text(tree / "model", roots.read))
    if model:
        # Most specific first, the SoC last: "raspberrypi,4-model-b" NUL "brcm,bcm2711".
        compatible = [c for c in optional_text(tree / "compatible", roots.read).split("\0") if c]
        vendor = _line(compatible[0].partition(",")[0]) if compatible else ""
        soc = _line(compatible[-1].rpartition(",")[2]) if compatible else ""
        return Board(name=model, arch=arch, soc=soc, vendor=vendor, source="device-tree")
    dmi = roots.sys / "class/dmi/id"
    product, vendor = (_filled(optional_text(dmi / file, roots.read)) for file in ("product_name", "sys_vendor"))
    if product:
        return Board(name=product, arch=arch, vendor=vendor, source="dmi")
    return Board(name=f"generic {arch}", arch=arch)


# (vendor, device) on the PCI or USB bus.
_PCI = {("0x1ac1", "0x089a"): "coral-pcie", ("0x1e60", "0x2864"): "hailo-8"}
_USB = {("1a6e", "089a"): "coral-usb", ("18d1", "9302"): "coral-usb"}  # before and after its firmware is loaded
_NVIDIA, _DISPLAYS = "0x10de", ("0x030000", "0x030200")


def _accelerators(roots: Roots) -> list[str]:
    found = []
    for device in sorted((roots.sys / "bus/pci/devices").glob("*")):
        vendor, product, kind = (optional_text(device / file, roots.read) for file in ("vendor", "device", "class"))
        if (vendor, product) in _PCI:
            found.append(_PCI[vendor, product])
        elif vendor == _NVIDIA and kind in _DISPLAYS:
            found.append("nvidia-gpu")
    for device in sorted((roots.sys / "bus/usb/devices").glob("*")):
        vendor, product = (optional_text(device / file, roots.read) for file in ("idVendor", "idProduct"))
        name = _USB.get((vendor, product))
        if name:
            found.append(name)
    return found


def _ram_bytes(roots: Roots) -> int | None:
    match = re.match(r"MemTotal:\s+([1-9][0-9]{0,11}) kB", optional_text(roots.proc / "meminfo", roots.read))
    return int(match[1]) * 1024 if match else None


def _filled(text: str) -> str:
    text = _line(text)
    return "" if _FILLERS.match(text) else text


def _line(text: str) -> str:
    """As one line for people and labels: a firmware may say anything, control characters of a terminal included."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _count_cpus(roots: Roots) -> int | None:
    """From /sys/devices/system/cpu/present: "0-3" or "0-3,6"."""
    count = 0
    for part in optional_text(roots.sys / "devices/system/cpu/present", roots.read).split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            return None
        count += last - first + 1
    return count
