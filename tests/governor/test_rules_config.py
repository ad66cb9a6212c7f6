"""Rules in the configuration: every problem with its file, key, place in the list and column."""

from pathlib import Path

import pytest

from flyball.cli.serve import check
from flyball.config import Config, load
from flyball.errors import ConfigError
from flyball.governor.rules import parse, parse_all, rules_of

GOOD = "when throttled then step_down"
BAD = '[governor]\nrules = ["when throttled then hold", "when cpu > 80 then hold"]\n'


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, rules=parse_all)
    return tuple(problem.split("\n")[0] for problem in caught.value.problems)


def test_the_rules_of_a_ladder_come_after_the_general_ones(tmp_path: Path) -> None:
    text = f'[governor]\nrules = ["{GOOD}"]\n[ladder.a]\nrules = ["when cpu > 80 % then hold"]\n[ladder.b]\n'
    config = load(write(tmp_path / "flyball.toml", text), rules=parse_all)
    assert rules_of(config, "a") == (parse(GOOD), parse("when cpu > 80 % then hold"))
    assert rules_of(config, "b") == rules_of(config, "unheard-of") == (parse(GOOD),)
    assert rules_of(Config(), "a") == ()


def test_every_problem_is_told_in_one_go(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", BAD + "dwell_s = -1\n")
    other = write(tmp_path / "conf.d/10.toml", '[ladder."a.b"]\nrules = ["when latency_p95 > 3 then hold"]\n')
    assert problems(main) == (
        f"{main}: governor.dwell_s: expected a number from 0 to 1000000000, found -1",
        f"{main}: governor.rules[1]: column 12: cpu is never above 1 (100 %), so that this says nothing; "
        "did you mean 80 %?",
        f"{other}: ladder.a.b.rules[0]: column 21: latency_p95 needs a unit: ms, s, min or h",
    )


@pytest.mark.parametrize("value", ['"when"', "3", "[1]", '["when throttled then hold", 1]', "{}"])
def test_what_is_no_list_of_texts_is_told_once(tmp_path: Path, value: str) -> None:
    (problem,) = problems(write(tmp_path / "flyball.toml", f"[governor]\nrules = {value}\n"))
    assert "governor.rules: expected a list, each text" in problem


@pytest.mark.parametrize("text", ["governor = 3\n", "ladder = []\n", "ladder.a = 3\n"])
def test_tables_that_are_none_are_no_place_for_rules(tmp_path: Path, text: str) -> None:
    assert len(problems(write(tmp_path / "flyball.toml", text))) == 1


def test_what_is_laid_over_the_files_is_judged_too(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", "")
    with pytest.raises(ConfigError, match=r"fleet.*: governor\.rules\[0\]: column 1: "):
        load(main, overlay={"governor": {"rules": ["never"]}}, rules=parse_all)
    assert load(main, overlay={"governor": {"rules": [GOOD]}}, rules=parse_all).governor.rules == (GOOD,)


def test_the_check_of_a_configuration_points_at_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(write(tmp_path / "flyball.toml", BAD))
    (problem,) = caught.value.problems
    assert problem.split("\n")[1:] == ["      when cpu > 80 then hold", "                 ^"]
