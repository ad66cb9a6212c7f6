"""docs/orders.md names every command, argument and setting that there is."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from flyball.config import Command
from flyball.uplink import configuring, diagnosis, handlers, install
from flyball.uplink.twin import MOST_STEP

TEXT = (Path(__file__).resolve().parents[2] / "docs/orders.md").read_text()
ARGUMENTS: dict[str, type[msgspec.Struct]] = {
    "ping": handlers.PingArgs,
    "rung": handlers.RungArgs,
    "policy": handlers.PolicyArgs,
    "config": handlers.ConfigArgs,
    "ladder.install": install.InstallArgs,
    "ladder.rollback": install.RollbackArgs,
    "bench": handlers.BenchArgs,
    "diag": diagnosis.DiagArgs,
    "logs": diagnosis.LogsArgs,
    "restart": handlers.RestartArgs,
}


def test_every_command_is_there() -> None:
    assert set(ARGUMENTS) == set(get_args(Command))


@pytest.mark.parametrize("command", ARGUMENTS)
def test_its_row_names_its_arguments(command: str) -> None:
    (row,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{command}` |"))
    named = set(re.findall(r"`(\w+)`", row.split("|")[2]))
    missing = {f.name for f in msgspec.structs.fields(ARGUMENTS[command])} - named
    assert missing == set()


def test_every_setting_is_there() -> None:
    named = set(re.findall(r"`([a-z0-9_.]+)`", TEXT))
    assert {*configuring.GOVERNOR, *configuring.LADDER} - named == set()
    assert f"{MOST_STEP:,}" in TEXT
