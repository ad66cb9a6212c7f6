"""What machine this is, as the firmware tells it.

device tree | DMI | architecture -> Board

Never runs a program, never asks the network; a machine that does not say is "generic <architecture>".
"""

from __future__ import annotations

import os
import re

import msgspec

from flyball.sensing.contract import Roots
from flyball.sensing.sysfs import optional_text

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


def identify(roots: Roots, arch: str | None = None) -> Board:
    """`arch` is for captured trees; by default it is this machine's."""
    arch = arch or os.uname().machine
    cpus = _count_cpus(roots)
    tree = roots.proc / "device-tree"
    model = optional_text(tree / "model").strip("\0\n ")
    if model:
        # Most specific first, the SoC last: "raspberrypi,4-model-b" NUL "brcm,bcm2711".
        compatible = [c for c in optional_text(tree / "compatible").split("\0") if c]
        vendor = compatible[0].partition(",")[0] if compatible else ""
        soc = compatible[-1].rpartition(",")[2] if compatible else ""
        return Board(name=model, arch=arch, soc=soc, vendor=vendor, source="device-tree", cpus=cpus)
    dmi = roots.sys / "class/dmi/id"
    product, vendor = (_filled(optional_text(dmi / file)) for file in ("product_name", "sys_vendor"))
    if product:
        return Board(name=product, arch=arch, vendor=vendor, source="dmi", cpus=cpus)
    return Board(name=f"generic {arch}", arch=arch, cpus=cpus)


def _filled(text: str) -> str:
    text = text.strip()
    return "" if _FILLERS.match(text) else text


def _count_cpus(roots: Roots) -> int | None:
    """From /sys/devices/system/cpu/present: "0-3" or "0-3,6"."""
    count = 0
    for part in optional_text(roots.sys / "devices/system/cpu/present").split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            return None
        count += last - first + 1
    return count
