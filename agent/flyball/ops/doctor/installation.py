"""Flyball's own affairs: configuration, ladders, runtimes, the state directory, the clock.

configuration, ladder folders, installed modules, statvfs, the wall clock -> Verdict

Reads text files only: no artifact is hashed, no runtime is imported.
"""

from __future__ import annotations

import os
import shlex
from datetime import datetime, timezone
from pathlib import Path

from flyball.config import config_files
from flyball.errors import ConfigError, LadderError
from flyball.ladder.manifest import load
from flyball.ladder.store import Store
from flyball.ops.doctor.finding import Verdict, error, info, ok, unknown, warning
from flyball.ops.doctor.machine import Machine

MIB = 1 << 20
EARLIEST_S = datetime(2024, 1, 1, tzinfo=timezone.utc).timestamp()  # before any release of Flyball
LOW_DISK_MIB, NO_DISK_MIB = 1024, 64  # ladders are tens of MiB; the spool and SQLite's journal need a few

# backend -> the modules of which one is enough, and the extra that brings it
RUNTIMES = {"onnx": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}


def check_configuration(machine: Machine) -> Verdict:
    config = machine.config
    if not isinstance(config, ConfigError):
        found = [str(file) for file in config_files(machine.config_file) if file.exists()]
        return ok(f"{', '.join(found) or 'no file, so the defaults'}: loads")
    hidden = [f for f in config_files(machine.config_file) if os.path.lexists(f) and not machine.access(f, os.R_OK)]
    if hidden:
        return unknown(f"{hidden[0]}: this user may not read it", "sudo flyball doctor")
    fix = shlex.join(["flyball", "config", "check", str(machine.config_file)])
    return error("; ".join(config.problems) or config.summary, f"{fix}  # after correcting the file")


def check_ladders(machine: Machine) -> Verdict:
    """Those of the configuration and those installed."""
    if isinstance(machine.config, ConfigError):
        return unknown("which ladders are configured is not known: the configuration does not load")
    folders = {name: Path(s.path) for name, s in machine.config.ladder.items() if s.path}
    root = machine.state_dir() / "ladders"
    if not _may_list(machine, root):
        return unknown(f"{root}: this user may not look into it", "sudo flyball doctor")
    store = Store(root)
    damaged = [f"{root / name}: its link `current` leads nowhere" for name in set(store.names()) - set(store.current())]
    folders = {**store.current(), **folders}
    problems, fixes = sorted(damaged), ["flyball ladder rm NAME && flyball ladder add FOLDER"] if damaged else []
    for folder in folders.values():
        try:
            load(folder)
        except LadderError as problem:
            problems += problem.problems or (problem.summary,)
            fixes.append(f"{shlex.join(['flyball', 'ladder', 'check', str(folder)])}  # after correcting it")
    if problems:
        return error("; ".join(problems), "\n".join(fixes))
    if not folders:
        return info("no ladder is configured or installed", "flyball ladder add FOLDER")
    return ok(f"{', '.join(sorted(folders))}: manifest and labels are readable")


def _may_list(machine: Machine, root: Path) -> bool:
    """False also where a folder above is closed, so that nobody takes what is hidden for what is not there."""
    for place in (root, *root.parents):
        if os.path.lexists(place):
            return machine.access(place, os.R_OK | os.X_OK) if place == root else machine.access(place, os.X_OK)
    return True


def check_runtimes(machine: Machine) -> Verdict:
    found = {backend: next(filter(machine.installed, names), "") for backend, names in RUNTIMES.items()}
    here = [f"{backend} ({module})" for backend, module in found.items() if module]
    missing = [backend for backend, module in found.items() if not module]
    if not here:
        return error("neither ONNX Runtime nor LiteRT is installed for this Python", "pip install 'flyball[onnx]'")
    if missing:
        return info(f"{', '.join(here)}; not {', '.join(missing)}", f"pip install 'flyball[{','.join(missing)}]'")
    return ok(", ".join(here))


def check_state_disk(machine: Machine) -> Verdict:
    """Raises OSError."""
    place = machine.state_dir()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent  # made by the daemon at its first start
    status = machine.statvfs(place)
    free_mib = status.f_bavail * status.f_frsize / MIB
    clear = "sudo apt-get clean && sudo journalctl --vacuum-size=50M"
    if status.f_flag & os.ST_RDONLY:
        return error(f"{place} is mounted read-only", f"sudo mount -o remount,rw $(findmnt -no TARGET -T {place})")
    if free_mib < NO_DISK_MIB:
        return error(f"{free_mib:.0f} MiB free at {place}", clear)
    if free_mib < LOW_DISK_MIB:
        return warning(f"{free_mib:.0f} MiB free at {place}, less than {LOW_DISK_MIB}", clear)
    if status.f_files and not status.f_favail:  # Btrfs counts no inodes at all
        return error(
            f"no inode is free at {place}", "# remove small files, or make the file system anew with more inodes"
        )
    return ok(f"{free_mib / 1024:.1f} GiB free at {place}")


def check_clock(machine: Machine) -> Verdict:
    day = datetime.fromtimestamp(machine.wall_s, timezone.utc).date().isoformat()
    if machine.wall_s < EARLIEST_S:
        return error(f"the clock says {day}", "sudo timedatectl set-ntp true && timedatectl timesync-status")
    if machine.synchronized is None:
        return unknown("the kernel does not say whether the clock is synchronised")
    if not machine.synchronized:
        return warning(f"the clock ({day}) is not synchronised", "sudo timedatectl set-ntp true")
    return ok(f"synchronised, {day}")
