"""The suite of hil/ runs against this machine and writes a report that says what happened."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def hil(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "hil", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)


def test_five_cases_pass_on_this_machine(tmp_path: Path) -> None:
    place = tmp_path / "hil.json"
    run = hil("--target", "local", "--report", str(place))
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr
    report = json.loads(place.read_text())
    outcomes = {case["name"]: case["outcome"] for case in report["cases"]}
    always = {"test_service_starts", "test_infer", "test_reading[memory]", "test_reading[cpu]", "test_service_stops"}
    if shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"):
        always.add("test_mqtt_ping")
    assert {name for name, outcome in outcomes.items() if outcome == "passed"} >= always
    assert set(outcomes.values()) <= {"passed", "skipped"}
    assert report["facts"]["kernel"]
    assert report["versions"]["flyball"]
    assert all(case["duration_s"] >= 0 for case in report["cases"])


def test_failed_start_fails_the_cases_and_names_the_cause(tmp_path: Path) -> None:
    place = tmp_path / "hil.json"
    run = hil("--target", "local", "--report", str(place), "--ladder", str(tmp_path / "nowhere"))
    report = json.loads(place.read_text())
    assert run.returncode == 1
    [start] = [case for case in report["cases"] if case["name"] == "test_service_starts"]
    assert start["outcome"] == "failed"
    assert "nowhere" in start["reason"]


@pytest.mark.parametrize("target", ["board", "ssh://", "ssh://-oProxyCommand=x", "ssh://root@board:0", "ssh://a b"])
def test_other_targets_are_refused(target: str) -> None:
    run = hil(f"--target={target}")
    assert run.returncode == 4  # pytest: wrong usage
    assert 'expected "local" or "ssh://user@host[:port]"' in run.stderr
