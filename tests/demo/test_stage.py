"""What the demonstration refuses before it starts, and what it shows on a small terminal."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from demo_command import demo
from rich.console import Console

from flyball.client import Client
from flyball.control_api import LadderView, Status
from flyball.demo.stage import LIMIT_FACTOR, check_writable, measure
from flyball.demo.stream import Picture, Stream
from flyball.demo.view import Frame, picture
from flyball.errors import ConfigError, FlyballError
from flyball.ports import Answer, Decision, LadderStatus, Tensor
from flyball.sensing.sensors.host import CpuUtilization
from flyball.testing import NO_TIME, NO_TOTALS

RUNGS = ("r224-fp32", "r224-fp16", "r112-fp32", "r80-fp32", "r64-fp32", "r56-fp32")
IMAGE = Picture(tensor=Tensor("image", "UINT8", (1,), b"x"), label="ok")


@pytest.mark.parametrize("option", ["--json", "--svg"])
def test_a_file_that_cannot_be_written_is_told_first(tmp_path: Path, option: str) -> None:
    started_s = time.monotonic()
    done = demo(option, tmp_path / "no/such/x")
    assert done.returncode == 78
    assert done.stderr == f"error: {option} {tmp_path}/no/such/x: cannot be written: No such file or directory\n"
    assert time.monotonic() - started_s < 15, "before the demonstration, not after it"


def test_trying_a_file_leaves_none_behind(tmp_path: Path) -> None:
    check_writable("--json", tmp_path / "new.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.json").write_text("old")
    check_writable("--json", tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "old"
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        check_writable("--svg", tmp_path)


class OddClient(Client):
    """Answers so that the stream trips over it."""

    def infer(self, *_: object, **__: object) -> Answer:
        return Answer(outputs=(), rung="big", timing=NO_TIME)


def test_whatever_goes_wrong_is_a_failed_request(tmp_path: Path) -> None:
    stream = Stream(OddClient(tmp_path / "s"), "defects", [IMAGE], 200.0)
    stream.start()
    while len(stream.samples) < 3:
        assert stream.is_alive()
        time.sleep(0.01)
    stream.stop()
    assert all(s.error.startswith("StopIteration") for s in stream.samples)


def test_a_stream_that_ended_by_itself_is_no_success(tmp_path: Path) -> None:
    stream = Stream(OddClient(tmp_path / "s"), "defects", [IMAGE], 200.0)  # never started: not alive either
    with pytest.raises(FlyballError, match="the pictures stopped after 0 requests"):
        stream.check()
    with pytest.raises(FlyballError, match="the pictures stopped"):
        stream.stop()


def frame() -> Frame:
    ladder = LadderStatus(name="defects", version="1", state="ready", active=RUNGS[2], pending=0, rungs=())
    now = Status(
        version="1", device="d", board="", mode="accuracy-first", uptime_s=1,
        ladders=(LadderView(status=ladder, window=None, totals=NO_TOTALS, joules_per_inference={}),),
        readings=(), sensors=(), energy=None, pins=(), uplink=None,
    )  # fmt: skip
    decisions = [
        Decision(ladder="defects", t_s=100.0 + i, wall_s=0, action="down", source="a", target="b", acted=True,
                 reason=f"reason number {i}: p95 31.2 ms is over the limit of 20.0 ms in 2 of 3 periods")
        for i in range(6)
    ]  # fmt: skip
    return Frame(
        elapsed_s=20, total_s=50, phase="calm", limit_s=0.02, rungs=RUNGS, samples=[], now=now, decisions=decisions,
        joules={}, started_s=100.0,
    )  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(60, 15), (80, 24), (120, 40)])
def test_the_reasons_are_seen_on_any_terminal(width: int, height: int) -> None:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(picture(frame(), height))
    seen = "\n".join(console.export_text().splitlines()[:height])
    assert "reason number 5" in seen
    assert "reason number 4" in seen
    assert "p95" in seen


def test_the_help_says_where_the_daemon_listens() -> None:
    shown = demo("--help", COLUMNS="200").stdout
    assert "Unix socket" in shown
    assert "free port" not in shown


class Slower(Client):
    """Every look of five answers takes 2 ms longer than the one before, and a share of what was asked for is stolen."""

    asked = 0

    def __init__(self, proc: Path, stolen: list[float | None]) -> None:
        super().__init__(proc / "s")
        self.proc, self.shares = proc, stolen
        self.busy, self.steal = 1000.0, 1000.0
        self.count()

    def count(self, share: float | None = 0.0) -> None:
        """None: no such column, as in files that are no kernel's."""
        self.busy, self.steal = self.busy + 100 * (1 - (share or 0.0)), self.steal + 100 * (share or 0.0)
        row = f"{self.busy:.0f} 0 0 {self.busy:.0f} 0 0 0" + ("" if share is None else f" {self.steal:.0f} 0 0")
        (self.proc / "stat").write_text(f"cpu  {row}\ncpu0 {row}\nbtime 1\n")

    def switch(self, ladder: str, rung: str, for_s: float | None = None) -> None:
        self.rung = rung

    def infer(self, *_: object, **__: object) -> Answer:
        took_s = 0.002 * (self.asked // 5)
        self.asked += 1
        if self.asked % 5 == 0:
            self.count(self.shares.pop(0))
        labels = Tensor("labels", "BYTES", (1,), b"\x02\0\0\0ok")
        return Answer(outputs=(labels,), rung=self.rung, timing=replace(NO_TIME, total_s=took_s))


@pytest.mark.parametrize(
    ("stolen", "until_s", "chosen", "warns"),
    [
        ([0.0], math.inf, 1, ""),
        ([None, None], math.inf, 1, ""),
        ([0.9, 0.2, 0.01], math.inf, 3, ""),
        ([0.9, 0.4, 0.3, 0.2, 0.5, 0.6, 0.7, 0.8], math.inf, 4, "kept back 20 %"),
        ([0.9], 0.0, 1, "kept back 90 %"),  # no time for another look
    ],
)
def test_the_top_rung_is_looked_at_until_the_machine_was_its_own(
    tmp_path: Path, stolen: list[float | None], until_s: float, chosen: int, warns: str
) -> None:
    console = Console(width=60, file=io.StringIO(), record=True)
    client = Slower(tmp_path, [0.9, *stolen])  # the weak rung gets one look
    aim = measure(client, "defects", ["top", "weak"], [IMAGE], console, CpuUtilization(tmp_path), until_s, 0.0)
    assert (client.asked, client.shares) == (5 + 5 * len(stolen), [])
    assert aim.limit_s == pytest.approx(LIMIT_FACTOR * 0.002 * chosen)
    assert aim.stolen == (None if stolen[0] is None else pytest.approx(stolen[chosen - 1]))
    shown = console.export_text()
    assert ("kept back" in shown) == bool(warns)
    if warns:
        assert f"{warns} of the processor time that was asked for at the best: the limit may be too long" in shown
