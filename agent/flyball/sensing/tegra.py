"""A Jetson by its firmware's word: module, release of its Linux, power mode.

device tree, /etc/nv_tegra_release, /etc/nvpmodel.conf + /var/lib/nvpmodel/status -> Tegra, or None elsewhere

Runs no program. A power mode is known by its name: the numbers mean another mode on every module.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from flyball.sensing.contract import Roots
from flyball.sensing.sysfs import optional_text

# Compatible entries are matched as "nvidia,<this>"; the first that fits counts.
MODULES: tuple[tuple[str, str], ...] = (
    ("p3767-0000", "Orin NX 16GB"),
    ("p3767-0001", "Orin NX 8GB"),
    ("p3767-0003", "Orin Nano 8GB"),
    ("p3767-0004", "Orin Nano 4GB"),
    ("p3767-0005", "Orin Nano 8GB (developer kit)"),
    ("p3701", "AGX Orin"),
    ("p3668", "Xavier NX"),
    ("p2888", "AGX Xavier"),
    ("p3448", "Nano"),
    ("p3636", "TX2 NX"),
    ("p3310", "TX2"),
    ("p3834", "AGX Thor"),
)
JETPACKS = {32: "4", 35: "5", 36: "6", 38: "7", 39: "7"}

MOST_CONF = 1 << 20  # characters; /etc/nvpmodel.conf has some 40,000

_RELEASE = re.compile(r"#\s*R([0-9]{1,4})\s*\(release\),\s*REVISION:\s*([0-9.]{1,20})")
_MODE = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=([0-9]{1,4})\s+NAME=(\S+?)\s*>", re.MULTILINE)  # not in a comment
_STATUS = re.compile(r"pmode:([0-9]{1,4})(?![0-9])")


class Tegra(msgspec.Struct, frozen=True, kw_only=True):
    """Empty text where it is not said. `power_modes` are all that the module has, by name, in the file's order."""

    soc: str
    module: str = ""
    l4t: str = ""  # "36.4.3"
    jetpack: str = ""  # "6"
    power_mode: str = ""
    power_modes: tuple[str, ...] = ()


def tegra(roots: Roots) -> Tegra | None:
    """None where the device tree names no Tegra."""
    compatible = [c for c in optional_text(roots.proc / "device-tree/compatible", roots.read).split("\0") if c]
    soc = next((c.partition(",")[2] for c in compatible if re.fullmatch(r"nvidia,tegra\d+", c)), "")
    if not soc:
        return None
    release = _RELEASE.search(optional_text(roots.etc / "nv_tegra_release", roots.read))
    modes = power_modes(_whole(roots.etc / "nvpmodel.conf"))
    now = _STATUS.search(optional_text(roots.var / "lib/nvpmodel/status", roots.read))
    return Tegra(
        soc=soc,
        module=module_of(compatible),
        l4t=f"{release[1]}.{release[2]}" if release else "",
        jetpack=JETPACKS.get(int(release[1]), "") if release else "",
        power_mode=modes.get(int(now[1]), "") if now else "",
        power_modes=tuple(modes.values()),
    )


def _whole(path: Path) -> str:
    """A file of many pages, where sysfs's have one; "" when it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MOST_CONF)
    except OSError:
        return ""


def module_of(compatible: list[str]) -> str:
    """By the part numbers in the device tree: carrier and module stand in one entry, "p3768-0000+p3767-0005-super"."""
    parts = [part for entry in compatible for part in entry.partition(",")[2].split("+")]
    for number, name in MODULES:
        if any(part == number or part.startswith(f"{number}-") for part in parts):
            return f"Jetson {name}"
    return ""


def power_modes(conf: str) -> dict[int, str]:
    """nvpmodel.conf's modes by number."""
    return {int(number): name for number, name in _MODE.findall(conf)}
