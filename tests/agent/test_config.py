"""Configuration: defaults, layers, and every mistake at once."""

from pathlib import Path

import pytest

from flyball.config import Config, load
from flyball.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path / "flyball.toml", ""))
    assert config == Config()
    assert config.serving.http == "127.0.0.1:8000"
    assert not config.uplink.enabled


def test_conf_d_is_laid_over_the_main_file_in_order(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", '[governor]\nperiod_s = 2\ndwell_s = 3\n[ladder.a]\nrung = "x"\n')
    write(tmp_path / "conf.d/20-b.toml", "[governor]\nperiod_s = 5\n")
    write(tmp_path / "conf.d/10-a.toml", '[governor]\nperiod_s = 4\n[ladder.b]\nrung = "y"\n')
    config = load(main)
    assert config.governor.period_s == 5
    assert config.governor.dwell_s == 3
    assert {name: s.rung for name, s in config.ladder.items()} == {"a": "x", "b": "y"}


def test_every_mistake_is_reported_with_its_file_and_key(tmp_path: Path) -> None:
    main = write(
        tmp_path / "flyball.toml",
        'schema = 2\n[servin]\n[serving]\nhttp = "x"\n[engine]\nslots = 0\nqueue_limit = "a"\n'
        '[governor.limits]\nlatency_p95_ms = -1\n[ladder."a/b"]\n[ladder.x]\npat = "/x"\n',
    )
    other = write(tmp_path / "conf.d/10.toml", "[sensing]\nidle_w = 1\nperiods_s = 3\n")
    with pytest.raises(ConfigError) as caught:
        load(main)
    problems = "\n".join(caught.value.problems)
    for expected in (
        f"{main}: schema: ",
        f"{main}: servin: unknown key; did you mean 'serving'?",
        f"{main}: serving.http: expected HOST:PORT",
        f"{main}: engine.slots: ",
        f"{main}: engine.queue_limit: ",
        f"{main}: governor.limits.latency_p95_ms: ",
        f"{main}: ladder.a/b",
        f"{main}: ladder.x.pat: unknown key; did you mean 'path'?",
        f"{other}: sensing.periods_s: unknown key; did you mean 'period_s'?",
    ):
        assert expected in problems
    assert len(caught.value.problems) == 9


def test_what_no_single_key_shows_is_checked_too(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", "[sensing]\nidle_w = 1\n[governor]\ndown_windows = 4\nof_windows = 2\n")
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert [("idle_w" in p, "down_windows" in p) for p in caught.value.problems] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a = ", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (b"engine = 3", "expected a table, found 3")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "flyball.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(path)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["device\\n", "a b", "-a", "a/b", "", "x" * 65])
def test_an_identifier_is_one_to_its_very_end(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 64 letters"):
        load(write(tmp_path / "flyball.toml", f'[uplink]\ndevice = "{name}"\n'))
