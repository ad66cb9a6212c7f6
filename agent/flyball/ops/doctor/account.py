"""Who the daemon runs as on this machine, and what that account may open.

flyball.service with its drop-ins, /etc/passwd, /etc/group -> Account;  Account, a node's mode -> may it be opened

Where the service is installed its account counts, whoever asks; otherwise the user who asks. Never switches users.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

UNIT = "flyball.service"
_LISTS = ("SupplementaryGroups", "DeviceAllow")  # further lines add to these, an empty one empties them (systemd.exec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`devices` has the unit's DeviceAllow= when its DevicePolicy= hides all others, and is None when it does not."""

    name: str
    uid: int
    gids: frozenset[int]
    is_service: bool = False
    devices: tuple[str, ...] | None = None

    def has_device(self, patterns: Iterable[str]) -> bool:
        """Whether the service's device policy lets it see a device, named in any of the ways of `patterns`."""
        allowed = {line.split()[0] for line in self.devices or () if line.split()}
        return self.devices is None or not allowed.isdisjoint(patterns)


def may_open(account: Account, status: os.stat_result, write: bool) -> bool:
    """By owner, group and mode, as the kernel decides it without access lists."""
    if account.uid == 0:
        return True
    wanted = 0o6 if write else 0o4
    if status.st_uid == account.uid:
        return status.st_mode >> 6 & wanted == wanted
    if status.st_gid in account.gids:
        return status.st_mode >> 3 & wanted == wanted
    return status.st_mode & wanted == wanted


def find_account(etc: Path, usr: Path, uid: int, gids: Iterable[int]) -> Account:
    """The service's account, else that of the process (`uid`, `gids`). Raises OSError, ValueError (a unit whose user is
    not in /etc/passwd)."""
    unit = read_unit(etc, usr)
    users, groups = read_names(etc / "passwd"), read_names(etc / "group")
    if unit is None:
        name = next((name for name, fields in users.items() if fields[2] == str(uid)), str(uid))
        return Account(name=name, uid=uid, gids=frozenset(gids))
    name = (unit.get("User") or ["root"])[-1]
    if name not in users:
        raise ValueError(f"{UNIT} runs as {name!r}, which is not in {etc / 'passwd'}")
    extra = {group for line in unit.get("SupplementaryGroups", ()) for group in line.split()}
    member = {group for group, fields in groups.items() if name in fields[3].split(",")}
    own = {int(users[name][3])}
    closed = (unit.get("DevicePolicy") or ["auto"])[-1] in ("closed", "strict")
    return Account(
        name=name,
        uid=int(users[name][2]),
        gids=frozenset(own | {int(groups[group][2]) for group in extra | member if group in groups}),
        is_service=True,
        devices=tuple(unit.get("DeviceAllow", ())) if closed else None,
    )


def read_unit(etc: Path, usr: Path) -> Mapping[str, list[str]] | None:
    """The values of every key of the unit and its drop-ins in systemd's order; None where it is not installed. Raises
    OSError."""
    folders = (etc / "systemd/system", usr / "lib/systemd/system")
    main = next((folder / UNIT for folder in folders if (folder / UNIT).is_file()), None)
    if main is None:
        return None
    # Drop-ins are sorted by name over all folders; of one name, that in /etc wins.
    extras = {file.name: file for folder in reversed(folders) for file in (folder / f"{UNIT}.d").glob("*.conf")}
    values: dict[str, list[str]] = {}
    for file in (main, *(extras[name] for name in sorted(extras))):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, separator, value = (part.strip() for part in line.partition("="))
            if not separator or key.startswith(("#", ";")):
                continue
            if not value and key in _LISTS:
                values[key] = []
            else:
                values.setdefault(key, []).append(value)
    return values


def read_names(file: Path) -> dict[str, list[str]]:
    """The fields of every whole line of /etc/passwd or /etc/group, by name. Raises OSError."""
    lines = (line.split(":") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {fields[0]: fields for fields in lines if len(fields) >= 4 and fields[2].isdigit()}
