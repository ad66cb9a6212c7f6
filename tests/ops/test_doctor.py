"""The loop over the checks, the page, captured machines, and Flyball's own affairs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doctor_machine import SERVICE, Looker, machine_in, space

from flyball.config import Config, Paths, Sensing
from flyball.errors import ConfigError
from flyball.ops.doctor import CHECKS, Machine, diagnose, exit_code, this_machine, worst
from flyball.ops.doctor.finding import Check, Verdict, warning
from flyball.sensing.contract import Roots, Sensor
from flyball.sensing.sensors.hwmon import HwmonSensor
from flyball.sensing.sensors.thermal import ThermalSensor

ROOT = Path(__file__).resolve().parents[2]
CAPTURED = sorted((ROOT / "tests/sensing/testcases").glob("*/tree.txt"))
SEEN_IN = {
    "psi": ["proc/pressure"],
    "memory-cgroup": ["sys/fs/cgroup", "proc/cgroups"],
    "cpu-governor": ["sys/devices/system/cpu/cpufreq", "sys/devices/system/cpu/cpu0/cpufreq"],
    "swap-on-card": ["proc/swaps"],
    "memory": ["proc/meminfo"],
    "memory-pressure": ["proc/pressure", "proc/vmstat"],
    "coral-usb": ["sys/bus"],
    "gpu-access": ["dev"],
    "trip-points": ["sys/class/thermal"],
}


@pytest.fixture
def look(tmp_path: Path) -> Looker:
    return Looker(tmp_path)


def verdicts(*severities: Any) -> list[Check]:
    return [
        Check(id=f"{s}-{i}", why="it matters", look=lambda machine, s=s: Verdict(severity=s, found="x", fix="do"))
        for i, s in enumerate(severities)
    ]


@pytest.mark.parametrize(
    ("severities", "code", "first"),
    [
        ((), 0, None),
        (("ok", "info", "unknown"), 0, "unknown"),
        (("ok", "warning", "info"), 1, "warning"),
        (("warning", "error", "ok"), 2, "error"),
    ],
)
def test_the_worst_comes_first_and_makes_the_exit_code(
    tmp_path: Path, severities: Sequence[str], code: int, first: str | None
) -> None:
    found = diagnose(machine_in(tmp_path), verdicts(*severities))
    assert exit_code(found) == code
    assert [f.severity for f in found][:1] == ([first] if first else [])
    assert worst(found) == (first or "ok")


def test_what_is_ok_has_neither_reason_nor_fix(tmp_path: Path) -> None:
    bad, good = diagnose(machine_in(tmp_path), verdicts("ok", "warning"))
    assert (bad.why, bad.fix) == ("it matters", "do")
    assert (good.why, good.fix) == ("", "")


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied", "/x/y"), ValueError("odd text")])
def test_a_check_that_cannot_look_says_so_and_the_others_go_on(tmp_path: Path, problem: Exception) -> None:
    def fails(machine: Machine) -> Verdict:
        raise problem

    checks = [Check(id="a", why="w", look=fails), Check(id="b", why="w", look=lambda machine: warning("seen", "fix"))]
    found = diagnose(machine_in(tmp_path), checks)
    assert [(f.id, f.severity) for f in found] == [("b", "warning"), ("a", "unknown")]
    assert ("/x/y: Permission denied" if isinstance(problem, OSError) else "odd text") in found[1].found


def test_the_ids_are_unique_and_every_check_says_why() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) >= 25
    assert all(check.why for check in CHECKS)


def test_every_check_is_on_the_page_and_nothing_else() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    table = page[page.index("| check |") :]
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z]+) \| .+ \| .+ \|$", table, re.MULTILINE)
    assert [name for name, _ in rows] == [check.id for check in CHECKS]
    assert {severity for _, severity in rows} <= {"error", "warning", "info"}


@pytest.mark.parametrize("archive", CAPTURED, ids=lambda path: path.parent.name)
def test_a_captured_machine_gets_an_answer_to_every_check(tmp_path: Path, archive: Path) -> None:
    def sensors(roots: Roots, settings: Sensing) -> list[Sensor]:
        return [HwmonSensor(roots, settings), ThermalSensor(roots, settings)]

    found = {f.id: f for f in diagnose(machine_in(tmp_path, archive.read_text(), sensors=sensors), CHECKS)}
    assert set(found) == {check.id for check in CHECKS}
    # What an archive does not hold must not be called healthy.
    for name, places in SEEN_IN.items():
        if not any((tmp_path / "tree" / place).exists() for place in places):
            assert found[name].severity != "ok", found[name]


def test_an_empty_machine_is_never_ok_about_hardware(tmp_path: Path) -> None:
    found = {f.id: f.severity for f in diagnose(machine_in(tmp_path), CHECKS)}
    seen = {name for name, severity in found.items() if severity == "ok"}
    # A board that does not say that it is a Pi or a Jetson is none.
    board = {"firmware-access", "bus-access", "under-voltage", "throttled", "power-supply", "nvpmodel"}
    assert seen == {"configuration", "clock", "state-disk"} | board


def test_this_machine_is_diagnosed_without_a_daemon() -> None:
    found = diagnose(this_machine(), CHECKS)
    assert len(found) == len(CHECKS)
    assert [f for f in found if f.severity not in ("ok", "unknown") and not f.why] == []


@pytest.mark.parametrize(
    ("given", "severity", "told"),
    [
        (space(8 << 30), "ok", "8.0 GiB"),
        (space(500 << 20), "warning", "500 MiB"),
        (space(5 << 20), "error", "5 MiB"),
        (space(8 << 30, os.ST_RDONLY), "error", "read-only"),
        (space(8 << 30, 0, (1000, 0)), "error", "inode"),
        (space(8 << 30, 0, (0, 0)), "ok", "8.0 GiB"),
    ],
)
def test_the_disk(look: Looker, tmp_path: Path, given: os.statvfs_result, severity: str, told: str) -> None:
    asked = []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        return given

    finding = look("state-disk", statvfs=statvfs)
    assert (finding.severity, told in finding.found) == (severity, True), finding
    assert asked == [tmp_path], "the state directory is not there yet: the folder that it will be made in counts"


def test_the_state_of_the_service_is_where_systemd_puts_it(tmp_path: Path) -> None:
    machine = machine_in(tmp_path, config=Config(), account=SERVICE)
    assert machine.state_dir() == tmp_path / "tree/var/lib/flyball"
    own = machine_in(tmp_path, config=Config(paths=Paths(state="/srv/x")), account=SERVICE)
    assert own.state_dir() == Path("/srv/x")


@pytest.mark.parametrize(
    ("wall_s", "synchronized", "severity"),
    [(1.8e9, True, "ok"), (1.8e9, False, "warning"), (1.8e9, None, "unknown"), (100.0, False, "error")],
)
def test_the_wall_clock(look: Looker, wall_s: float, synchronized: bool | None, severity: str) -> None:
    finding = look("clock", wall_s=wall_s, synchronized=synchronized)
    assert finding.severity == severity
    assert severity != "error" or "1970-01-01" in finding.found


def test_a_configuration_that_does_not_load(look: Looker) -> None:
    broken = ConfigError("the configuration has 1 problem(s)", ["/etc/flyball/flyball.toml: engine.slots: too many"])
    finding = look("configuration", config=broken)
    assert finding.severity == "error"
    assert "engine.slots: too many" in finding.found
    assert look("ladders", config=broken).severity == "unknown"


def test_a_configuration_that_this_user_may_not_read(look: Looker) -> None:
    broken = ConfigError("the configuration has 1 problem(s)", ["cannot be read"])
    finding = look("configuration", "etc/flyball/flyball.toml: x", config=broken, access=lambda path, mode: False)
    assert (finding.severity, finding.fix) == ("unknown", "sudo flyball doctor")


def ladders(state: Path, folders: Mapping[str, Path | str]) -> Config:
    settings = {name: {"path": str(folder)} for name, folder in folders.items()}
    return msgspec.convert({"paths": {"state": str(state)}, "ladder": settings}, Config)


def test_ladders(look: Looker, tmp_path: Path) -> None:
    good = ROOT / "examples/defects/ladder"
    assert look("ladders").severity == "info"
    assert look("ladders", config=ladders(tmp_path / "state", {"defects": good})).severity == "ok"
    finding = look("ladders", config=ladders(tmp_path / "state", {"defects": good, "gone": tmp_path / "gone"}))
    assert finding.severity == "error"
    assert f"{tmp_path}/gone: not a folder" in finding.found
    assert finding.fix.startswith(f"flyball ladder check {tmp_path}/gone")


def test_an_installed_ladder_whose_link_leads_nowhere(look: Looker, tmp_path: Path) -> None:
    (tmp_path / "state/ladders/imagenet").mkdir(parents=True)
    finding = look("ladders")
    assert (finding.severity, "imagenet" in finding.found) == ("error", True)


def test_ladders_that_are_hidden_from_this_user_are_not_absent(look: Looker, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    finding = look("ladders", access=lambda path, mode: path != tmp_path / "state")
    assert (finding.severity, finding.fix) == ("unknown", "sudo flyball doctor")


@pytest.mark.parametrize(
    ("modules", "severity"),
    [
        ((), "error"),
        (("onnxruntime",), "info"),
        (("tflite_runtime",), "info"),
        (("onnxruntime", "ai_edge_litert"), "ok"),
    ],
)
def test_runtimes(look: Looker, modules: tuple[str, ...], severity: str) -> None:
    assert look("runtimes", installed=lambda name: name in modules).severity == severity
