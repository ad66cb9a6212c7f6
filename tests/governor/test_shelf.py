"""Profiles beside the ladders in service: read once, told once when they cannot be used."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from test_profile_figures import profile, rung

from flyball.errors import ConfigError
from flyball.governor.shelf import Shelf
from flyball.ladder.manifest import LadderFolder, load
from flyball.ladder.profile import DEEPEST, content_hash, save
from flyball.ladder.profile import load as load_profile

MANIFEST = """
schema = 1
[ladder]
name = "cats"
version = "1"
task = "image-classification"
labels = "labels.txt"
[[rung]]
name = "big"
backend = "onnx"
artifact = "big.onnx"
sha256 = "SHA256"
accuracy = 0.9
[[rung.pre]]
step = "resize"
width = 32
height = 32
[[rung.pre]]
step = "layout"
order = "NHWC"
""".replace("SHA256", hashlib.sha256(b"model").hexdigest())


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


def put(path: Path, ladder: LadderFolder, **more: object) -> None:
    save(profile(rung("big", p50_ms=10.0), content=content_hash(ladder), **more), path)


def test_the_profile_of_the_state_directory_is_taken(ladder: LadderFolder, state: Path) -> None:
    put(state / "cats.json", ladder)
    assert Shelf(state, "25W").figures(ladder)["big"].work_s == pytest.approx(0.0101)


def test_the_one_that_the_configuration_names_goes_before(ladder: LadderFolder, state: Path, tmp_path: Path) -> None:
    put(state / "cats.json", ladder)
    save(profile(rung("big", p50_ms=20.0), content=content_hash(ladder)), tmp_path / "mine.json")
    assert Shelf(state, "").figures(ladder, str(tmp_path / "mine.json"))["big"].work_s == pytest.approx(0.0202)


def test_without_a_profile_there_are_no_figures_and_no_complaint(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert Shelf(state, "").figures(ladder) == {}
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "`flyball bench` measures one" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema": 99}', b'{"schema": 1}'])
def test_one_that_cannot_be_read_is_told_once_and_left_aside(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (state / "cats.json").write_bytes(content)
    shelf = Shelf(state, "")
    assert shelf.figures(ladder) == {}
    assert shelf.figures(ladder) == {}
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "the profile of cats is left aside" in caplog.text


@pytest.mark.parametrize("depth", [100, 300, 480, 600, 700, 900, 980, 990])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_however_deep_it_is_the_governor_has_its_answer(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture, depth: int, opening: str, closing: str
) -> None:
    """Deep enough for whatever walks it, and not for the JSON decoder: each stack has its own end."""
    file = state / "cats.json"
    for place in ("x", "schema"):
        file.write_text(f'{{"schema":1,"{place}":{opening * depth}1{closing * depth}}}')
        with pytest.raises(ConfigError, match="too deep inside each other") as caught:
            load_profile(file)
        assert str(file) in str(caught.value)
    shelf = Shelf(state, "")
    assert shelf.figures(ladder) == {}
    assert shelf.figures(ladder) == {}
    assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_what_is_not_too_deep_is_told_for_what_it_is(state: Path) -> None:
    file = state / "cats.json"
    file.write_text('{"schema":1,"x":' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}")
    with pytest.raises(ConfigError, match="x: unknown key"):
        load_profile(file)
    file.write_text('{"schema":"' + "9" * 100_000 + '"}')
    with pytest.raises(ConfigError, match="schema: expected 1, found '99") as caught:
        load_profile(file)
    assert len(str(caught.value)) < 1000


def test_one_that_is_configured_and_not_there_is_an_error(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Shelf(state, "").figures(ladder, str(state / "nowhere.json")) == {}
    assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_one_of_other_artifacts_or_another_power_mode_is_told_and_left_aside(
    ladder: LadderFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(state / "cats.json", ladder)
    assert Shelf(state, "15W").figures(ladder) == {}
    assert "measured in the power mode 25W, and this is 15W" in caplog.text
    (ladder.root / "flyball-ladder.toml").write_text(MANIFEST + "\n# changed\n")
    assert Shelf(state, "25W").figures(ladder) == {}
    assert "measured with other artifacts" in caplog.text


def test_it_is_read_again_after_a_reload_only(ladder: LadderFolder, state: Path) -> None:
    shelf = Shelf(state, "")
    assert shelf.figures(ladder) == {}
    put(state / "cats.json", ladder)
    assert shelf.figures(ladder) == {}
    shelf.forget()
    assert set(shelf.figures(ladder)) == {"big"}
