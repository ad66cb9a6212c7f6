"""A machine for the doctor: captured files and fakes of what is no file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flyball.config import Config, Paths
from flyball.ops.doctor import CHECKS, Finding, Machine, diagnose
from flyball.ops.doctor.account import Account
from flyball.sensing.tree import Tree

USER = Account(name="pat", uid=1000, gids=frozenset({1000}))
SERVICE = Account(name="flyball", uid=990, gids=frozenset({990}), is_service=True)
GROUPS = """
etc/group:
| root:x:0:
| plugdev:x:46:
| apex:x:985:
| video:x:44:
| i2c:x:998:
"""
PI_4 = r"""
proc/device-tree/model: Raspberry Pi 4 Model B Rev 1.4\0
proc/device-tree/compatible: raspberrypi,4-model-b\0brcm,bcm2711\0
"""
PI_5 = PI_4.replace("Pi 4", "Pi 5")
STICK = """
sys/bus/usb/devices/1-1/idVendor: 18d1
sys/bus/usb/devices/1-1/idProduct: 9302
sys/bus/usb/devices/1-1/busnum: 1
sys/bus/usb/devices/1-1/devnum: 7
dev/bus/usb/001/007: x
"""


def status(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((0o020000 | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def space(free: int, flags: int = 0, inodes: tuple[int, int] = (1000, 500)) -> os.statvfs_result:
    return os.statvfs_result((1, 1, 10**9, free, free, inodes[0], inodes[1], inodes[1], flags, 255))


def machine_in(folder: Path, text: str = "", **more: Any) -> Machine:
    tree = Tree(folder / "tree")
    (folder / "tree").mkdir(parents=True, exist_ok=True)
    (folder / "archive.txt").write_text(text)
    tree.unpack(folder / "archive.txt")
    values: dict[str, Any] = {
        "roots": tree.roots,
        "boot": folder / "boot",
        "run": folder / "run",
        "usr": folder / "usr",
        "account": USER,
        "config": Config(paths=Paths(state=str(folder / "state"))),
        "config_file": tree.roots.etc / "flyball/flyball.toml",
        "wall_s": 1.8e9,
        "synchronized": True,
        "installed": lambda name: False,
        "statvfs": lambda path: space(1 << 40),
        "sensors": lambda roots, settings: [],
        "pause": lambda seconds: None,
    }
    return Machine(**{**values, **more})


class Looker:
    """The finding of one check on a machine of the given files, laid over those of the calls before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, text: str = "", **more: Any) -> Finding:
        check = next(check for check in CHECKS if check.id == name)
        return diagnose(machine_in(self.folder, text, **more), [check])[0]
