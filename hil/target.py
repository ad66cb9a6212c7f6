"""The machine under test, seen as three verbs.

"local" | "ssh://user@host[:port]" -> Target: run a command, put a file, tell what is there
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Prints key=value lines; POSIX sh, no program beyond coreutils. `has` lines name what hil cases may need.
_FACTS = r"""
echo "hostname=$(uname -n)"; echo "machine=$(uname -m)"; echo "kernel=$(uname -r)"
. /etc/os-release 2>/dev/null && echo "os=$PRETTY_NAME"
for f in /proc/device-tree/model /sys/class/dmi/id/product_name; do
  [ -r $f ] && echo "board=$(tr -d '\0' <$f)" && break
done
echo "cores=$(nproc)"; echo "memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
for program in python3 systemctl mosquitto flyball; do
  PATH=$PATH:/usr/sbin command -v $program >/dev/null && echo "has=$program"
done
ls /sys/class/thermal/thermal_zone*/temp >/dev/null 2>&1 && echo "has=thermal-zone"
ls /sys/class/hwmon/hwmon*/power*_input /sys/class/hwmon/hwmon*/curr*_input >/dev/null 2>&1 && echo "has=power-sensor"
[ -e /dev/apex_0 ] && echo "has=edgetpu-pcie"
exit 0
"""


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str

    def checked(self) -> str:
        """stdout. Raises AssertionError with everything that was printed unless the command succeeded."""
        if self.code != 0:
            raise AssertionError(f"exit code {self.code}\n{self.stdout}\n{self.stderr}")
        return self.stdout


@dataclass(frozen=True)
class Facts:
    """What the machine is. `values`: hostname, machine, kernel, os, board, cores, memory_kib, as far as known."""

    values: Mapping[str, str] = field(default_factory=dict)
    abilities: frozenset[str] = frozenset()

    def has(self, ability: str) -> bool:
        return ability in self.abilities


class Target(Protocol):
    def run(self, command: Sequence[str], *, timeout_s: float = 60.0) -> Result: ...

    def put(self, data: bytes, name: str) -> str:
        """Writes a file into a scratch folder of the target and returns its path there."""
        ...

    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Address:
    """Where an ssh target is; `port` None leaves it to ssh's own configuration."""

    host: str
    port: int | None


def parse(text: str) -> Address | None:
    """None for "local". Raises ValueError that says what was expected."""
    if text == "local":
        return None
    found = re.fullmatch(
        r"ssh://((?:[A-Za-z0-9_.-]+@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*))(?::(\d{1,5}))?", text
    )
    if found is None or (found[2] and not 0 < int(found[2]) < 65536):
        raise ValueError(f'--target: expected "local" or "ssh://user@host[:port]", found {text!r}')
    return Address(found[1].replace("[", "").replace("]", ""), int(found[2]) if found[2] else None)


def read_facts(target: Target) -> Facts:
    values: dict[str, str] = {}
    abilities = set()
    for line in target.run(["sh", "-c", _FACTS]).checked().splitlines():
        key, _, value = line.partition("=")
        if key == "has":
            abilities.add(value)
        else:
            values[key] = value
    return Facts(values, frozenset(abilities))


def shell_line(command: Sequence[str]) -> str:
    return shlex.join(command)
