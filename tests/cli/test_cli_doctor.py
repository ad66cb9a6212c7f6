"""`flyball doctor` as users have it: on this machine, whatever it is, with and without a daemon's configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_daemon import flyball

from flyball.cli.doctor import _indent
from flyball.ops.doctor import CHECKS

CODES = {"ok": 0, "info": 0, "unknown": 0, "warning": 1, "error": 2}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "a folder with [brackets] and a rather long name" / "flyball.toml"
    file.parent.mkdir()
    file.write_text("[engine]\nslots = 0\n")
    return file


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "flyball.toml"
    file.write_text(f'[paths]\nstate = "{tmp_path}"\n')
    return file


def report(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = flyball("doctor", "--json", *arguments)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_json_has_every_check_and_the_exit_code_says_the_worst(sound: Path) -> None:
    code, data = report("--config", sound)
    assert {f["id"] for f in data["findings"]} == {check.id for check in CHECKS}
    assert code == data["exit_code"] == max(CODES[f["severity"]] for f in data["findings"])
    assert data["worst"] == data["findings"][0]["severity"]


def test_a_broken_configuration_is_an_error_with_its_place_and_not_the_end(broken: Path) -> None:
    code, data = report("--config", broken)
    first = data["findings"][0]
    assert code == 2
    assert (first["id"], first["severity"]) == ("configuration", "error")
    assert f"{broken}: engine.slots" in first["found"]
    assert first["fix"].startswith("flyball config check")
    assert len(data["findings"]) == len(CHECKS)


def test_the_configuration_may_be_named_in_the_environment(broken: Path) -> None:
    done = flyball("doctor", environment={"FLYBALL_CONFIG": str(broken)})
    assert done.returncode == 2
    assert "engine.slots" in done.stdout


def test_what_is_ok_shows_only_when_asked_for(sound: Path) -> None:
    _, data = report("--config", sound)
    states = {f["id"]: f["severity"] for f in data["findings"]}
    assert states["configuration"] == "ok"
    short, long = (flyball("doctor", "--config", sound, *more).stdout for more in ((), ("--verbose",)))
    for name, state in states.items():
        assert any(line.startswith(f"{state} ") and f" {name} " in line for line in long.splitlines()), name
        assert any(line.startswith(f"{state} ") and f" {name} " in line for line in short.splitlines()) is (
            state != "ok"
        )
    assert short.splitlines()[-1].startswith(f"{len(CHECKS)} checks: ")


@pytest.mark.parametrize("columns", [40, 80])
def test_commands_stay_in_one_piece_and_the_table_in_its_width(broken: Path, columns: int) -> None:
    lines = flyball("doctor", "--config", broken, environment={"COLUMNS": str(columns)}).stdout.splitlines()
    fixes = [line for line in lines if line.startswith("    ") and str(broken) in line]
    assert len(fixes) == 1, lines
    table = lines[: lines.index("")]
    assert len(table) > 2
    assert max(map(len, table)) <= columns


def test_a_state_directory_and_a_ladder_that_are_wrong(tmp_path: Path, sound: Path) -> None:
    sound.write_text(sound.read_text() + f'[ladder.x]\npath = "{tmp_path}/gone"\n')
    code, data = report("--config", sound)
    ladders = next(f for f in data["findings"] if f["id"] == "ladders")
    assert code == 2
    assert f"{tmp_path}/gone" in ladders["found"]


@pytest.mark.parametrize("width", [40, 80, 400])
def test_a_long_command_is_the_same_when_it_is_pasted(width: int) -> None:
    command = "printf 1 && printf '2 %s' a && printf 3 > /dev/stdout"
    shown = _indent(command, width)
    assert shown.startswith("    printf 1")
    assert ("\\\n" in shown) is (width == 40)
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "12 a3"


def test_other_commands_do_not_load_the_checks() -> None:
    code = "import sys, flyball.cli.doctor; print(any(name.startswith('flyball.ops.doctor') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_wrong_usage_prints_no_report() -> None:
    done = flyball("doctor", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_sensor_that_fails_is_a_finding_and_no_noise_beside_it(tmp_path: Path, sound: Path) -> None:
    (tmp_path / "broken_sensor.py").write_text(
        "class Broken:\n"
        "    name = 'broken'\n"
        "    def __init__(self, roots, settings): pass\n"
        "    def read(self, now): raise OSError(5, 'it does not answer')\n"
    )
    info = tmp_path / "broken_sensor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-sensor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flyball.sensors]\nbroken = broken_sensor:Broken\n")
    done = flyball("doctor", "--json", "--config", sound, environment={"PYTHONPATH": str(tmp_path)})
    assert done.stderr == ""
    power = next(f for f in json.loads(done.stdout)["findings"] if f["id"] == "power-sensor")
    assert power["severity"] == "ok" or "it does not answer" in power["found"]
