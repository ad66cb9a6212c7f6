"""What the demonstration refuses before it starts, and what it shows on a small terminal."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flyball.client import Client
from flyball.config import load as load_config
from flyball.control_api import LadderView, Status
from flyball.demo.private_daemon import configuration, example_ladder, short_place, usable
from flyball.demo.stage import LIMIT_FACTOR, check_writable, measure
from flyball.demo.stream import Picture, Stream
from flyball.demo.view import Frame, picture
from flyball.errors import ConfigError, FlyballError, LadderError
from flyball.ladder.manifest import load
from flyball.ports import Answer, Decision, LadderStatus, Tensor
from flyball.testing import NO_TIME, NO_TOTALS

RUNGS = ("r224-fp32", "r224-fp16", "r112-fp32", "r80-fp32", "r64-fp32", "r56-fp32")
IMAGE = Picture(tensor=Tensor("image", "UINT8", (1,), b"x"), label="ok")


def demo(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flyball", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


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


def test_paths_and_names_of_any_kind_reach_the_configuration(tmp_path: Path) -> None:
    place = tmp_path / 'a "quoted" \\ [place]'
    shutil.copytree(example_ladder(), place)
    manifest = place / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "defects"', 'name = "my.own"', 1))
    home = tmp_path / 'ho"me'
    home.mkdir()
    (home / "flyball.toml").write_text(configuration(home, usable(place)))
    config = load_config(home / "flyball.toml")
    assert {name: s.path for name, s in config.ladder.items()} == {"my.own": str(place)}
    assert config.paths.socket == str(home / "flyball.sock")


def test_a_ladder_of_other_classes_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(example_ladder(), place)
    (place / "labels.txt").write_text("cat\ndog\nowl\nfox\ncow\nant\n")
    with pytest.raises(LadderError, match="expected image-classification with the labels ok, scratch"):
        usable(place)
    done = demo("--ladder", place)
    assert done.returncode == 78
    assert "the demonstration cannot use this ladder" in done.stderr


def test_a_ladder_that_does_not_open_is_told_at_once(tmp_path: Path) -> None:
    place = tmp_path / "broken"
    shutil.copytree(example_ladder(), place)
    for file in place.glob("*.onnx"):
        os.truncate(file, 100)
    started_s = time.monotonic()
    done = demo("--ladder", place)
    assert done.returncode == 78, done.stderr
    assert "the ladder cannot be served here" in done.stderr
    assert "expected sha256" in done.stderr
    assert time.monotonic() - started_s < 25


def test_a_long_tmpdir_makes_no_long_socket(tmp_path: Path) -> None:
    assert short_place() is None or len(tempfile.gettempdir()) > 60
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = "from flyball.demo.private_daemon import short_place; print(short_place())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "TMPDIR": str(long)},
    )
    assert done.stdout == "/tmp\n"


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


def test_the_example_is_of_this_installation() -> None:
    assert load(example_ladder()).name == "defects"


class Slower(Client):
    """Every look of five answers takes 2 ms longer than the one before."""

    asked = 0

    def switch(self, ladder: str, rung: str, for_s: float | None = None) -> None:
        self.rung = rung

    def infer(self, *_: object, **__: object) -> Answer:
        took_s = 0.002 * (self.asked // 5)
        self.asked += 1
        labels = Tensor("labels", "BYTES", (1,), b"\x02\0\0\0ok")
        timing = replace(NO_TIME, total_s=took_s)
        return Answer(outputs=(labels,), rung=self.rung, timing=timing)


@pytest.mark.parametrize(
    ("stolen", "chosen", "warns"),
    [
        ([0.0], 1, False),
        ([None], 1, False),
        ([0.9, 0.2, 0.01], 3, False),
        ([0.9, 0.4, 0.3, 0.2, 0.5, 0.6, 0.7, 0.8], 4, True),
    ],
)
def test_the_top_rung_is_looked_at_until_the_machine_was_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stolen: list[float | None], chosen: int, warns: bool
) -> None:
    told: list[float | None] = [None, 0.9]  # of the weak rung, which gets one look: before it and after it
    for share in stolen:
        told += [None, share]
    monkeypatch.setattr("flyball.demo.stage.stolen_since", lambda _: told.pop(0))
    monkeypatch.setattr("flyball.demo.stage.MEASURE_S", 0.0)  # five answers a look
    console = Console(width=200, file=io.StringIO(), record=True)
    client = Slower(tmp_path / "s")
    limit_s, _ = measure(client, "defects", ["top", "weak"], [IMAGE], console)
    assert (client.asked, told) == (5 + 5 * len(stolen), [])
    assert limit_s == pytest.approx(LIMIT_FACTOR * 0.002 * chosen)
    assert ("kept back 20 %" in console.export_text()) is warns
