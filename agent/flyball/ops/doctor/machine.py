"""Everything that the checks look things up with, so that a captured machine can stand in for this one.

roots, clocks, configuration, account -> Machine

Building it reads the configuration and the account database; hardware is the checks' affair. Never writes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flyball.clock import SystemClock, wall_is_synchronized
from flyball.config import Config, Sensing, load
from flyball.errors import ConfigError
from flyball.ops.doctor.account import Account, find_account, may_open
from flyball.sensing.contract import Roots, Sensor
from flyball.sensing.discovery import discover
from flyball.sensing.sysfs import describe

CONFIG = "flyball/flyball.toml"  # below /etc


def is_installed(module: str) -> bool:
    """Whether Python could import it; it is not imported, since vendors' libraries may end the process that does."""
    return find_spec(module) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`account` and `config` are what could not be had where it could not."""

    roots: Roots
    boot: Path = Path("/boot")
    run: Path = Path("/run")
    usr: Path = Path("/usr")
    account: Account | str
    config: Config | ConfigError
    config_file: Path
    wall_s: float
    synchronized: bool | None
    library_folders: tuple[Path, ...] = ()  # that the loader is told of besides the system's
    installed: Callable[[str], bool] = is_installed
    access: Callable[[Path, int], bool] = os.access
    stat: Callable[[Path], os.stat_result] = os.stat
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    sensors: Callable[[Roots, Sensing], Sequence[Sensor]] = discover
    pause: Callable[[float], None] = time.sleep

    def known_account(self) -> Account:
        """Raises ValueError."""
        if isinstance(self.account, str):
            raise ValueError(f"who the daemon runs as is not known: {self.account}")
        return self.account

    def can_open(self, path: Path, write: bool) -> bool:
        """Whether the daemon's account may open `path`. Raises OSError, ValueError."""
        account = self.known_account()
        if account.is_service:
            return may_open(account, self.stat(path), write)
        return self.access(path, os.R_OK | (os.W_OK if write else 0))  # knows access lists too

    def settings(self) -> Config:
        """The configuration, or the defaults where it cannot be used: the check of its own tells that."""
        return self.config if isinstance(self.config, Config) else Config()

    def state_dir(self) -> Path:
        """Where the daemon keeps its state: under systemd not where this user's own daemon would."""
        paths = self.settings().paths
        if not paths.state and isinstance(self.account, Account) and self.account.is_service:
            return self.roots.var / "lib/flyball"
        return paths.state_dir()


def this_machine(config_file: Path | None = None) -> Machine:
    """`config_file` as given on the command line. Raises nothing: what could not be had is told by the checks."""
    roots = Roots()
    usr, run = Path("/usr"), Path("/run")
    config: Config | ConfigError
    try:
        config = load(config_file, roots.etc / CONFIG)
    except ConfigError as problem:
        config = problem
    return Machine(
        roots=roots,
        run=run,
        usr=usr,
        account=_account(roots.etc, usr),
        config=config,
        config_file=config_file or roots.etc / CONFIG,
        wall_s=SystemClock().wall_s(),
        synchronized=_synchronized(run / "systemd/timesync/synchronized"),
        library_folders=tuple(Path(f) for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f),
    )


def _account(etc: Path, usr: Path) -> Account | str:
    try:
        return find_account(etc, usr, os.geteuid(), {os.getegid(), *os.getgroups()})
    except (OSError, ValueError) as problem:
        return describe(problem)


def _synchronized(marker: Path) -> bool | None:
    try:
        return wall_is_synchronized(marker)
    except (OSError, AttributeError):  # a C library without adjtimex
        return None


def whole_text(path: Path) -> str:
    """A file of any length, such as those of /etc; `Roots.read` stops at a page. Raises OSError."""
    return path.read_text(encoding="utf-8", errors="replace")


def must_exist(folder: Path) -> Path:
    """For folders whose absence means that nothing was looked at. Raises FileNotFoundError."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "not there, so that nothing can be told", str(folder))
    return folder


def boot_argument(machine: Machine, argument: str) -> str:
    """The command that adds `argument` to the kernel's command line with this machine's boot loader."""
    for file in (machine.boot / "firmware/cmdline.txt", machine.boot / "cmdline.txt"):  # Raspberry Pi OS 12, before
        if file.exists():
            return f"sudo sed -i '1 s/$/ {argument}/' {file} && sudo reboot"
    extlinux = machine.boot / "extlinux/extlinux.conf"  # Jetson and many other boards
    if extlinux.exists():
        return f"sudo sed -i '/^[[:space:]]*APPEND/ s/$/ {argument}/' {extlinux} && sudo reboot"
    grub = machine.roots.etc / "default/grub"
    if grub.exists():
        edit = f"sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{argument} /' {grub}"
        return f"{edit} && sudo update-grub && sudo reboot"
    return f"# add {argument} to the kernel's command line in your boot loader, then reboot"


def has_boot_argument(machine: Machine, argument: str) -> bool:
    """Raises OSError."""
    return argument in whole_text(machine.roots.proc / "cmdline").split()
