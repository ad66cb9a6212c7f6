"""The profile as a file: what was written is read again, and whatever is wrong in it is told with its field."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from measured_rungs import energy, profile, rung

from flyball.errors import ConfigError
from flyball.ladder.profile import EarlyStopping, Energy, Latency, Profile, RungProfile, encode, load, save


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    broken = rung("small", valid=False, error="it did not open", latency=None, energy=None, early_stopping=None)
    whole = profile(rung(), rung("mid", energy=energy(uncertainty=None, net_j=None)), broken)
    save(whole, path)
    assert load(path) == whole
    data = json.loads(path.read_text())
    assert data["rungs"][2]["latency"] is None, "what was not measured is null, not 0 and not left out"
    assert data["rungs"][0]["energy"]["scope"] == "module"


def test_a_profile_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "profile.json"
    save(profile(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(profile(seconds=60.0), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "nothing half-written is left"


def test_a_circle_of_links_is_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.symlink_to(path.name)
    with pytest.raises(OSError, match=r"profile\.json"):
        save(profile(rung()), path)


def test_others_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        save(profile(), tmp_path / "profile.json")
    finally:
        os.umask(old)
    assert (tmp_path / "profile.json").stat().st_mode & 0o777 == 0o644


def set_in(*way: Any) -> Callable[[Any], None]:
    """The last of `way` is the value."""

    def change(data: Any) -> None:
        for step in way[:-2]:
            data = data[step]
        data[way[-2]] = way[-1]

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_in("schema", 2), "schema: expected 1, found 2"),
        (lambda data: data.pop("schema"), "schema: expected 1, found None"),
        (set_in("scenario", "burst"), "scenario:"),
        (set_in("measured", "yesterday"), "measured:"),
        (set_in("content", "abc"), "content:"),
        (set_in("speed", 3), "speed: unknown key"),
        (lambda data: data.pop("machine"), "machine: missing"),
        (set_in("rungs", 0, "latency", "p95_ms", "fast"), "rungs[0].latency.p95_ms:"),
        (set_in("rungs", 0, "latency", "p95_ms", -1.0), "rungs[0].latency.p95_ms:"),
        (set_in("rungs", 0, "latency", "p999_ms", 1.0), "rungs[0].latency.p999_ms: unknown key"),
        (set_in("rungs", 0, "accuracy", 90), "rungs[0].accuracy:"),
        (set_in("rungs", 0, "energy", "scope", "somewhere"), "rungs[0].energy.scope:"),
        (set_in("rungs", 0, "energy", "power_w", 0), "rungs[0].energy.power_w:"),
        (set_in("rungs", 0, "latency", "p50_ms", None), "rungs[0].latency.p50_ms: missing"),
        (set_in("rungs", 0, "reasons", ["too short"]), "rungs[0]: rung big: valid, but with reasons"),
        (set_in("rungs", 0, "valid", False), "rungs[0]: rung big: not valid, but without a reason"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: Callable[[Any], None], expected: str) -> None:
    path = tmp_path / "profile.json"
    data = json.loads(encode(profile()))
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert expected in str(raised.value)


def test_every_wrong_field_is_told_at_once(tmp_path: Path) -> None:
    data = json.loads(encode(profile()))
    data["rungs"][0]["errors"] = -1
    data["seconds"] = "30"
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "p.json")
    assert len(raised.value.problems) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not JSON"),
        (b'{"schema": NaN}', "not JSON"),
        (b"[]", "expected a JSON object, found list"),
        (b"\xff", "not JSON"),
    ],
)
def test_what_is_no_profile_at_all(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path / "p.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "p.json")


def test_whole_profiles_count_as_valid_by_the_rungs_that_can_run_here() -> None:
    skipped = rung("gpu", valid=False, skipped="no GPU", latency=None)
    short = rung("short", valid=False, reasons=("too short",))
    failed = rung("failed", valid=False, error="it did not open", latency=None)
    assert profile(rung(), skipped).valid
    assert not profile(rung(), short).valid
    assert not profile(rung(), failed).valid
    assert not profile(skipped).valid, "nothing was measured"


def test_every_field_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/bench.md").read_text()
    named = set(re.findall(r"`(?:rungs\[\]\.)?([a-z_0-9]+)`", text))
    kinds = (Profile, RungProfile, Latency, EarlyStopping, Energy)
    fields = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    assert fields - named - {"flyball", "rungs", "name"} == set()
