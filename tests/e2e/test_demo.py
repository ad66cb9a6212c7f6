"""The demonstration as a user runs it: the real daemon, real load, and a report that adds up."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.alone
def test_load_comes_and_goes_and_no_request_fails(tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    picture = tmp_path / "x.svg"
    command = [sys.executable, "-m", "flyball", "demo", "--seconds", "50", "--json", report, "--svg", picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(report.read_text())
    assert result["failures"] == 0
    pace = re.search(r"pace: (\d+) pictures a second", done.stdout)
    assert pace, "it says how fast it sends, as fast as this machine can"
    assert result["requests"] > max(300, 0.5 * int(pace[1]) * result["seconds"])
    assert result["power_scope"], "the scope of the watts is always said"
    assert result["accuracy"] > 0.9
    assert sum(rung["share"] for rung in result["rungs"].values()) == pytest.approx(1, abs=0.01)
    directions = [s["direction"] for s in result["switches"]]
    assert "down" in directions, f"3 burners a core did not hurt: {done.stdout}"
    assert "up" in directions[directions.index("down") :], "it climbed again"
    assert all(s["reason"] for s in result["switches"])
    assert "svg" in picture.read_text()[:200]
    assert "rung" in done.stdout


def test_the_demonstration_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball", "demo", "--no-load", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "latency limit" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children, "the daemon is a process of its own"
    process.terminate()
    process.wait(20)
    end_s = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/exe").exists() for pid in children):
        assert time.monotonic() < end_s, "a daemon was left behind"
        time.sleep(0.1)
