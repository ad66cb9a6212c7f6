"""What the kernel was started with and set to: pressure figures, memory cgroup, clock of the processor, swap.

/proc/pressure, /sys/fs/cgroup, cpufreq, /proc/swaps, mountinfo -> Verdict
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from flyball.ops.doctor.finding import Verdict, info, ok, unknown, warning
from flyball.ops.doctor.machine import Machine, boot_argument, has_boot_argument, whole_text
from flyball.sensing.sysfs import optional_text

_CARD = re.compile(r"mmcblk\d+")
_SELF_CLOCKED = ("intel_pstate", "amd-pstate-epp")  # their "powersave" follows the load; the processor clocks itself


def check_psi(machine: Machine) -> Verdict:
    """Raises OSError."""
    folder = machine.roots.proc / "pressure"
    if (folder / "memory").exists():
        return ok(f"{folder} is there")
    if has_boot_argument(machine, "psi=1"):
        return info(f"{folder} is not there although psi=1 is given: a kernel without CONFIG_PSI")
    return info(f"the kernel counts no pressure: {folder} is not there", boot_argument(machine, "psi=1"))


def check_memory_cgroup(machine: Machine) -> Verdict:
    """Raises OSError."""
    root = machine.roots.sys / "fs/cgroup"
    if (root / "cgroup.controllers").exists():
        controllers = whole_text(root / "cgroup.controllers").split()
    elif (root / "memory").is_dir():  # version 1
        controllers = ["memory"]
    elif (machine.roots.proc / "cgroups").exists():  # version 2 mounted elsewhere, or not at all
        rows = [line.split() for line in whole_text(machine.roots.proc / "cgroups").splitlines()]
        controllers = [row[0] for row in rows if len(row) == 4 and row[3] == "1"]
        if "memory" not in controllers and "memory" not in (row[0] for row in rows if row):
            return unknown(f"{root} is not mounted, and /proc/cgroups does not name the memory controller")
    else:
        return unknown(f"neither {root} nor {machine.roots.proc / 'cgroups'} tells of controllers")
    if "memory" in controllers:
        return ok("the memory controller is on")
    argument = "cgroup_enable=memory"
    if has_boot_argument(machine, argument):
        return warning(
            f"the memory controller is off although {argument} is given: a kernel without CONFIG_MEMCG, or "
            "cgroup_disable=memory stands after it",
            "cat /proc/cmdline",
        )
    return warning("the memory controller is off", boot_argument(machine, argument))


def check_cpu_governor(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    cpu = machine.roots.sys / "devices/system/cpu"
    patterns = ("cpufreq/policy*/scaling_governor", "cpu[0-9]*/cpufreq/scaling_governor")
    pattern, files = next(((p, files) for p in patterns if (files := sorted(cpu.glob(p)))), ("", []))
    if not files:
        return unknown("the kernel has no cpufreq: whoever runs this machine sets its clock")
    read = machine.roots.read
    governors = Counter(read(file) for file in files)
    drivers = {optional_text(file.parent / "scaling_driver", read) for file in files}
    told = ", ".join(governors)
    fix = f"echo performance | sudo tee {cpu}/{pattern}  # until the next boot"
    if "powersave" in governors and not drivers <= set(_SELF_CLOCKED):
        return warning(f"{told}: the processor is held at its lowest clock", fix)
    if {"powersave", "ondemand", "conservative"} & set(governors):
        return info(f"{told}: the clock follows the load, a step behind it", fix)
    return ok(told)


def check_swap_on_card(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    # proc(5): a header, then name, type, size, used (KiB) and priority; blanks in names are \040.
    rows = [line.split() for line in whole_text(machine.roots.proc / "swaps").splitlines()[1:] if line.strip()]
    if not rows:
        return ok("no swap")
    if any(len(row) < 3 for row in rows):
        raise ValueError(f"{machine.roots.proc / 'swaps'}: expected lines of name, type and size")
    unclear = []
    for row in rows:
        place, kind, size_kib = Path(row[0].replace("\\040", " ")), row[1], int(row[2])
        device = place.name if kind == "partition" else _device_below(machine, place)
        card = _CARD.match(device)
        if card:
            medium = optional_text(machine.roots.sys / "block" / card[0] / "device/type", machine.roots.read)
            name = {"SD": "an SD card", "MMC": "eMMC"}.get(medium, "an SD card or eMMC")
            found = f"{place} ({size_kib // 1024} MiB) lies on {name} ({card[0]})"
            return warning(found, f"sudo swapoff {place} && sudo apt-get install zram-tools  # {_for_good(machine)}")
        if not device:
            unclear.append(str(place))
    if unclear:
        return unknown(f"on what {', '.join(unclear)} lies cannot be told")
    return ok(f"{', '.join(row[0] for row in rows)}: not on a card")


def _for_good(machine: Machine) -> str:
    if (machine.roots.etc / "dphys-swapfile").exists():
        return "for good: sudo systemctl disable --now dphys-swapfile"
    return "for good: take its line out of /etc/fstab"


def _device_below(machine: Machine, file: Path) -> str:
    """The block device of the file system that `file` is on; "" where it cannot be told. Raises OSError."""
    best: tuple[int, str] = (-1, "")
    for line in whole_text(machine.roots.proc / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), (after.split() or ["", ""])
        if len(fields) < 5 or len(source) < 2:
            continue
        mount = Path(fields[4].replace("\\040", " "))
        if file.is_relative_to(mount) and len(mount.parts) >= best[0]:  # later mounts lie over earlier ones
            link = machine.roots.sys / "dev/block" / fields[2]
            name = os.path.basename(os.readlink(link)) if link.is_symlink() else source[1].removeprefix("/dev/")
            best = (len(mount.parts), name if name != "root" else "")
    return best[1]
