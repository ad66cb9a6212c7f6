"""The demonstration as a user runs it: the real daemon, real load, and a report that adds up."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flyball.demo.summary import STOLEN, stolen

RUNS = 3


@pytest.mark.alone
def test_load_comes_and_goes_and_no_request_fails(tmp_path: Path) -> None:
    """Where the host of a virtual machine keeps back processor time, it is as much a load as the burners, and comes
    and goes when it likes: then the demonstration may be run again, and shows nothing if it comes to that thrice."""
    kept_back = []
    for _ in range(RUNS):
        said, result = demonstration(tmp_path)
        missing = what_is_missing(said, result)
        if not missing:
            return
        share = result["cpu_stolen"] or 0.0
        assert share >= STOLEN, f"{'; '.join(missing)}\n{said}"
        assert stolen(share) in " ".join(said.split()), "whoever looks is told"
        kept_back.append(f"{share:.0%}")
    pytest.skip(f"the host kept back {', '.join(kept_back)} of the processors' time: {'; '.join(missing)}")


def demonstration(folder: Path) -> tuple[str, dict[str, Any]]:
    """What it printed and its report, after what must hold on any machine."""
    report, picture = folder / "demo.json", folder / "x.svg"
    command = [sys.executable, "-m", "flyball", "demo", "--seconds", "50", "--json", report, "--svg", picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(report.read_text())
    assert result["failures"] == 0
    assert result["power_scope"], "the scope of the watts is always said"
    assert sum(rung["share"] for rung in result["rungs"].values()) == pytest.approx(1, abs=0.01)
    assert all(s["reason"] for s in result["switches"])
    assert "svg" in picture.read_text()[:200]
    assert "rung" in done.stdout
    return done.stdout, result


def what_is_missing(said: str, result: dict[str, Any]) -> list[str]:
    """Of what a machine shows that has its processors to itself."""
    pace = re.search(r"pace: (\d+) pictures a second", said)
    assert pace, "it says how fast it sends, as fast as this machine can"
    directions = [s["direction"] for s in result["switches"]]
    first_down = directions.index("down") if "down" in directions else len(directions)
    expected = {
        f"{result['requests']} requests": result["requests"] > max(300, 0.5 * int(pace[1]) * result["seconds"]),
        f"accuracy {result['accuracy']}": result["accuracy"] > 0.9,
        "3 burners a core did not hurt": "down" in directions,
        "it did not climb again": "up" in directions[first_down:],
    }
    return [what for what, holds in expected.items() if not holds]


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
