"""Profiles that are damaged, or made to hurt: refused with the reason, and the governing goes on without them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_profile_figures import profile, rung
from test_shelf import MANIFEST

from flyball import config
from flyball.config import Config
from flyball.errors import ConfigError
from flyball.events import Events
from flyball.governor.governor import Governor
from flyball.governor.replay.profiles import measured
from flyball.governor.shelf import Shelf
from flyball.governor.survey import Sources
from flyball.ladder.manifest import LadderFolder, load
from flyball.ladder.profile import MOST_BYTES, content_hash, encode
from flyball.testing import FakeCatalog, FakeClock, FakeLadder, FakeReadings

DEEP = b'{"rungs":' + b"[" * 200_000
MIB = 1 << 20


@pytest.fixture
def ladder(tmp_path: Path) -> LadderFolder:
    folder = tmp_path / "ladder"
    folder.mkdir()
    (folder / "flyball-ladder.toml").write_text(MANIFEST)
    (folder / "big.onnx").write_bytes(b"model")
    (folder / "labels.txt").write_text("cat\ndog\nowl\n")
    return load(folder)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "profiles"
    folder.mkdir()
    return folder


def whole(ladder: LadderFolder) -> bytes:
    return encode(profile(rung("big", p50_ms=10.0), content=content_hash(ladder)))


def figure(*way: Any) -> Callable[[bytes], bytes]:
    """The last of `way` is written in place of the figure."""

    def change(content: bytes) -> bytes:
        data = json.loads(content)
        inner = data
        for step in way[:-2]:
            inner = inner[step]
        inner[way[-2]] = way[-1]
        return json.dumps(data).encode()

    return change


DAMAGED = {
    "cut off": (lambda content: content[: len(content) // 2], "not JSON"),
    "empty": (lambda content: b"", "not JSON"),
    "zeros": (lambda content: b"\0" * len(content), "not JSON"),
    "no JSON": (lambda content: b"[profile]\nmean_ms = 3\n", "not JSON"),
    "another coding": (lambda content: content.replace(b"Test Board", b"Test \xff\xfe"), "not JSON"),
    "a list": (lambda content: b"[" + content + b"]", "expected a JSON object"),
    "without end": (lambda content: DEEP, "not "),
    "deep": (lambda content: DEEP + b"]" * 200_000 + b"}", "not a profile|not JSON"),
    "50 MB of one text": (lambda content: content[:-2] + b',"x":"' + b"x" * (50 * MIB) + b'"}', "larger than 8 MiB"),
    "50 MB of nothing": (lambda content: content + b" " * (50 * MIB), "larger than 8 MiB"),
    "NaN": (lambda content: content.replace(b"10.1", b"NaN"), "not JSON"),
    "infinity": (lambda content: content.replace(b"10.1", b"1e999"), "not JSON"),
    "negative": (figure("rungs", 0, "latency", "mean_ms", -1.0), r"rungs\[0\]\.latency\.mean_ms: expected a number"),
    "huge latency": (figure("rungs", 0, "latency", "mean_ms", 1e300), r"latency\.mean_ms: expected a number from 0 to"),
    "huge spread": (figure("rungs", 0, "latency", "std_ms", 1e300), r"latency\.std_ms: expected a number from 0 to"),
    "huge memory": (figure("rungs", 0, "rss_bytes", 10**18), r"rungs\[0\]\.rss_bytes: expected a whole number"),
    "huger memory": (figure("rungs", 0, "rss_bytes", 10**300), r"rss_bytes|not JSON"),
    "negative memory": (figure("rungs", 0, "rss_bytes", -1), r"rungs\[0\]\.rss_bytes: expected a whole number"),
    "huge energy": (figure("rungs", 0, "energy", "net_j", 1e300), r"energy\.net_j: expected a number above 0"),
    "huge loading": (figure("rungs", 0, "load_s", 1e16), r"rungs\[0\]\.load_s: expected a number from 0 to"),
    "a text for a figure": (figure("rungs", 0, "latency", "mean_ms", "10"), r"latency\.mean_ms: expected a number"),
    "another schema": (figure("schema", 2), "schema: expected 1, found 2"),
    "another ladder": (figure("content", "b" * 64), "measured with other artifacts"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_it_is_refused_with_the_reason(
    kind: str, ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGED[kind]
    file = state / "cats.json"
    file.write_bytes(whole(ladder))
    assert set(Shelf(state, "").figures(ladder)) == {"big"}, "it is a profile before it is damaged"
    file.write_bytes(damage(whole(ladder)))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert Shelf(state, "").figures(ladder) == {}
    (record,) = caplog.records
    told = record.getMessage()
    assert len(told) < 2000, "a log is no place for the file itself"
    assert str(file) in told
    assert re.search(reason, told), told


def test_a_device_without_end_is_not_read_for_ever(ladder: LadderFolder, state: Path) -> None:
    assert Shelf(state, "").figures(ladder, "/dev/zero") == {}
    assert Shelf(state, "").figures(ladder, str(state)) == {}, "a folder is no profile either"


CURVES = {
    "ladder": "defects", "rung": "a", "accuracy": 0.9, "open_s": 0.3, "rss_bytes": None, "joules": 0.1,
    "levels": [
        {"burners_per_core": 0, "work_mean_s": 0.01, "work_p50_s": 0.01, "work_p95_s": 0.012},
        {"burners_per_core": 2, "work_mean_s": 0.02, "work_p50_s": 0.02, "work_p95_s": 0.024},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-9], "not what bench/contention.py --write gives"),
        (lambda content: b'{"rungs":' + b"[" * 200_000, "not what bench/contention.py --write gives"),
        (lambda content: content.replace(b"defects", b"def\xff"), "not what bench/contention.py --write gives"),
        (figure("rungs", 0, "levels", []), "levels"),
        (figure("rungs", 0, "levels", 0, "work_mean_s", 0.0), "work_mean_s"),
        (figure("rungs", 0, "levels", 1, "work_p50_s", -1.0), "work_p50_s"),
        (figure("rungs", 0, "levels", 0, "burners_per_core", 1), "a: slow_down of a: expected rising contention from"),
        (figure("rungs", 0, "joules", 1e300), "joules"),
        (figure("rungs", 0, "accuracy", 90), "accuracy"),
    ],
)
def test_damaged_curves_are_refused_with_the_reason(
    damage: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "contention.json"
    whole = json.dumps({"rungs": [CURVES]}).encode()
    file.write_bytes(whole)
    assert [model.name for model in measured(file)["defects"]] == ["a"]
    file.write_bytes(damage(whole))
    with pytest.raises(ConfigError, match=reason):
        measured(file)


def test_a_true_profile_is_far_from_the_most_that_is_read() -> None:
    assert len(encode(profile(*(rung(f"r{i}") for i in range(64))))) < MOST_BYTES / 16


@pytest.mark.anyio
async def test_the_governor_goes_on_without_it(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "cats.json").write_bytes(DEEP)
    shelf, clock = Shelf(state, ""), FakeClock()
    served = FakeLadder("cats", rungs=("big", "small"))
    sources = Sources(
        readings=FakeReadings(clock), clock=clock, cpus=2, figures=lambda name, version: shelf.figures(ladder)
    )
    settings = Config(governor=config.Governor(limits=config.Limits(latency_p95_ms=20)))
    governor = Governor(settings, FakeCatalog(served), Events(), sources)
    served.measure(0.005)
    for _ in range(5):
        clock.advance(1)
        governor.tick()
    assert [d.action for d in governor.decisions("cats")] == ["stay"] * 5
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 1, "once, and nothing else"
    assert "the profile of cats is left aside" in told[0].getMessage()
