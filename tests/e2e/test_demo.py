"""The demonstration as a user runs it: the real daemon, real load, and a report that adds up."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flyball.demo.summary import STOLEN

ATTEMPTS = 3  # where the machine is taken away while it should be calm


@pytest.mark.alone
def test_load_comes_and_goes_and_no_request_fails(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS):
        result, shown = demonstration(tmp_path)
        directions = [s["direction"] for s in result["switches"]]
        if "down" in directions and "up" in directions[directions.index("down") :]:
            return
        # A host that keeps back processor time is a load that did not go: then, and only then, is it tried again.
        stolen = max(result["cpu_stolen"] or 0.0, result["cpu_stolen_after"] or 0.0)
        assert stolen >= STOLEN, f"3 burners a core did not hurt, or it did not climb again: {shown}"
        assert "kept back" in shown
        assert result["ended_on"] == next(iter(result["rungs"])) or f"at the end on {result['ended_on']}: " in shown
    pytest.skip(f"the host of this machine kept back {stolen:.0%} of the processor time while load should have gone")


def demonstration(tmp_path: Path) -> tuple[dict[str, Any], str]:
    """Its report and what it printed, after what holds on any machine was seen to hold."""
    report, picture = tmp_path / "demo.json", tmp_path / "x.svg"
    command = [sys.executable, "-m", "flyball", "demo", "--seconds", "50", "--json", report, "--svg", picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(report.read_text())
    assert result["failures"] == 0
    pace = re.search(r"pace: (\d+) pictures a second", done.stdout)
    assert pace, "it says how fast it sends, as fast as this machine can"
    assert result["requests"] > max(300, 0.5 * int(pace[1]) * result["seconds"]), done.stdout
    assert result["power_scope"], "the scope of the watts is always said"
    assert result["accuracy"] > 0.9
    assert sum(rung["share"] for rung in result["rungs"].values()) == pytest.approx(1, abs=0.01)
    assert all(s["reason"] for s in result["switches"])
    assert result["ended_on"] in result["rungs"]
    assert result["ended_because"]
    assert "svg" in picture.read_text()[:200]
    assert "rung" in done.stdout
    return result, done.stdout


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
