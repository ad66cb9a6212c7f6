"""What `status` and `ls` tell: the state, what holds it, and why."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import pytest
from scripted_daemon import ScriptedDaemon, decided, flyball, ladder, status

from flyball.ports import Decision, Pin, SensorHealth


def decision(action: str, source: str, target: str, reason: str, ago_s: float, acted: bool = True) -> Decision:
    return Decision(
        ladder="defects", t_s=time.monotonic() - ago_s, wall_s=0.0, action=action, source=source, target=target,
        reason=reason, acted=acted,
    )  # fmt: skip


DOWN = ("down", "r224-fp32", "r112", "p95 32 ms is over the limit of 20 ms", 300.0)
STAY = ("stay", "r112", "r112", "p95 [12 ms] fits", 1.0)


def test_status_says_why(tmp_path: Path) -> None:
    pin = Pin(ladder="defects", rung="r112", until_s=time.monotonic() + 599)
    script = {
        "/control/status": status(ladder(), ladder("other"), pins=(pin,)),
        "/control/decisions": [decided(decision(*DOWN), decision(*STAY)), decided()],
    }
    with ScriptedDaemon(tmp_path / "s.sock", script) as daemon:
        done = flyball("status", "--socket", daemon.path)
    assert done.returncode == 0, done.stderr
    assert "defects: held on r112 for 10 min more" in done.stdout
    assert "defects: r224-fp32 -> r112: p95 32 ms is over the limit of 20 ms (5 min ago)" in done.stdout
    assert re.search(r"^defects: stays on r112: p95 \[12 ms\] fits \(\d+ s ago\)$", done.stdout, re.MULTILINE)
    assert "other: " not in done.stdout


def test_status_tells_of_sensors_that_fail_and_of_those_that_fail_in_part(tmp_path: Path) -> None:
    sensors = (
        SensorHealth(sensor="thermal", state="failed", reason="cpu-thermal: EIO"),
        SensorHealth(sensor="hwmon", state="stale", reason="no answer for 9 s"),
        SensorHealth(sensor="jetson", state="ok", reason="VDD_CPU: EAGAIN"),
        SensorHealth(sensor="host", state="ok"),
        SensorHealth(sensor="coral", state="unavailable", reason="no such device"),
    )
    now = msgspec.structs.replace(status(ladder()), sensors=sensors)
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/status": now, "/control/decisions": decided()}) as daemon:
        shown = flyball("status", "--socket", daemon.path).stdout
    assert [line for line in shown.splitlines() if line.startswith("sensor ")] == [
        "sensor thermal failed: cpu-thermal: EIO",
        "sensor hwmon stale: no answer for 9 s",
        "sensor jetson in part: VDD_CPU: EAGAIN",
    ]


@pytest.mark.parametrize("mode", ["energy-first", "throughput-first", "pinned", "observe"])
def test_status_names_the_mode_and_a_forced_pin(tmp_path: Path, mode: str) -> None:
    pin = Pin(ladder="defects", rung="r112", until_s=None, force=True)
    now = msgspec.structs.replace(status(ladder(), pins=(pin,)), mode=mode)
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/status": now, "/control/decisions": decided()}) as daemon:
        shown = flyball("status", "--socket", daemon.path).stdout
    assert f"  governor {mode}  " in shown.splitlines()[0]
    assert "defects: held on r112 until released, against the limits of temperature and memory too" in shown


def test_status_as_json_has_the_reasons_too(tmp_path: Path) -> None:
    advice = decision("down", "r224-fp32", "r112", "too hot", 2, acted=False)
    script = {"/control/status": status(ladder()), "/control/decisions": decided(decision(*DOWN), advice)}
    with ScriptedDaemon(tmp_path / "s.sock", script) as daemon:
        data = json.loads(flyball("status", "--json", "--socket", daemon.path).stdout)
        text = flyball("status", "--socket", daemon.path).stdout
    assert data["decisions"]["defects"]["last"]["reason"] == "too hot"
    assert data["decisions"]["defects"]["last_change"]["reason"] == DOWN[3]
    assert {"version", "ladders", "pins"} <= set(data)
    assert "r224-fp32 -> r112 advised only: too hot" in text


def test_status_waits_for_the_ladders(tmp_path: Path) -> None:
    views = [status(), status(ladder(state="loading")), status(ladder())]
    script = {"/control/status": views, "/control/decisions": decided()}
    with ScriptedDaemon(tmp_path / "s.sock", script) as daemon:
        done = flyball("status", "--wait", "20s", "--socket", daemon.path)
        assert done.returncode == 0, done.stderr
        assert daemon.asked.count("/control/status") == 3
    assert "ready" in done.stdout


def test_a_wait_that_is_over_says_for_what(tmp_path: Path) -> None:
    done = flyball("status", "--wait", "0.2s", "--socket", tmp_path / "none.sock")
    assert done.returncode == 1
    assert "not ready within 0.2 s: the daemon is not running" in done.stderr
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/status": status(ladder(state="loading"))}) as daemon:
        done = flyball("status", "--wait", "0.2s", "--socket", daemon.path)
    assert done.returncode == 1
    assert "still loading: defects" in done.stderr


def test_names_stay_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    long = "a-rung-with-a-rather-long-name-fp32"
    script = {"/control/status": status(ladder(rungs=(long, "r112"))), "/control/decisions": decided()}
    with ScriptedDaemon(tmp_path / "s.sock", script) as daemon:
        narrow = {"COLUMNS": "40"}
        for command in ("ls", "status"):
            shown = flyball(command, "--socket", daemon.path, environment=narrow).stdout
            assert long in shown, shown
        assert "precision" not in flyball("ls", "--socket", daemon.path, environment=narrow).stdout
        assert "precision" in flyball("ls", "--socket", daemon.path, environment={"COLUMNS": "100"}).stdout


def test_the_accelerators_that_a_daemon_sees(tmp_path: Path) -> None:
    found = {"devices": [{"backend": "onnx", "kind": "cpu", "id": "[0]", "detail": "[b]8 cores[/b]"}]}
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/devices": found}) as daemon:
        shown = flyball("devices", "--socket", daemon.path).stdout
    assert "[0]" in shown
    assert "[b]8 cores[/b]" in shown


def test_a_hold_has_an_end_that_makes_sense(tmp_path: Path) -> None:
    done = flyball("switch", "defects", "r112", "--for", "99999999999999999999999d", "--socket", tmp_path / "none.sock")
    assert done.returncode == 2
    assert "expected at most 30d" in done.stderr


def test_a_hold_that_a_limit_stands_against_says_so(tmp_path: Path) -> None:
    here = {"ladder": "defects", "source": "r80", "target": "r80", "open_s": 0, "warm_s": 0, "gap_s": 0}
    with ScriptedDaemon(tmp_path / "s.sock", {"/control/ladders/defects/rung": here}) as daemon:
        held = flyball("switch", "defects", "r224", "--socket", daemon.path)
        there = flyball("switch", "defects", "r80", "--force", "--socket", daemon.path)
    assert "defects: stays on r80; a limit stands against r224 now" in held.stdout
    assert "defects: held on r80, which was active already" in there.stdout
