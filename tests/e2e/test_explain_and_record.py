"""What the governor of a real daemon says of itself: explained, recorded, decided again."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from real_daemon import Daemon, flyball

LADDER = Path(__file__).resolve().parents[2] / "examples/defects/ladder"


def test_a_recording_with_a_pin_leads_to_the_same_decisions(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    one = daemon("[governor.limits]\ndeadline_ms = 500\n", (LADDER,)).until_ready()
    recorded = []

    def record() -> None:
        recorded.append(flyball("record", tmp_path / "r.jsonl", "--seconds", "6", "--socket", one.socket))

    recorder = threading.Thread(target=record)
    recorder.start()
    one.until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 0, "it records")
    one.client.switch("defects", "r64-fp32", 2.0)
    second = flyball("record", tmp_path / "s.jsonl", "--socket", one.socket, check=False)
    recorder.join(60)
    assert second.returncode == 1
    assert "somebody else is recording" in second.stderr
    assert recorded[0].stdout.endswith("the time is over\n")
    again = flyball("replay", tmp_path / "r.jsonl")
    assert "the same again" in again.stdout
    told = json.loads(flyball("explain", "defects", "--json", "--socket", one.socket).stdout)
    assert told["changes"][-1]["target"] == "r64-fp32"
    assert {c["rung"] for c in told["last"]["candidates"]} >= {"r224-fp32", "r64-fp32"}
    assert "changes of defects in the last 10 min" in flyball("explain", "defects", "--socket", one.socket).stdout


def test_a_daemon_that_stops_ends_its_recording_at_once(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    one = daemon("", (LADDER,)).until_ready()
    command = [sys.executable, "-m", "flyball", "record", str(tmp_path / "r.jsonl"), "--socket", str(one.socket)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        one.until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 0, "it records")
        assert one.stop() == 0
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the recording ended early: the daemon has ended it" in err
    assert "still unanswered" not in one.log, "it did not wait for the drain"
    assert "Traceback" not in one.log


def test_the_next_one_may_record_as_soon_as_the_last_one_has_left(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """And not only with the next line, a period later."""
    one = daemon("[governor]\nperiod_s = 60\n", (LADDER,)).until_ready()
    command = [sys.executable, "-m", "flyball", "record", str(tmp_path / "r.jsonl"), "--socket", str(one.socket)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        one.until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 0, "it records")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    two = tmp_path / "s.jsonl"
    one.until(
        lambda: flyball("record", two, "--seconds", "1", "--socket", one.socket, check=False).returncode == 0,
        "it records again",
    )
    assert two.stat().st_size > 0
