"""Who is meant by an order, and what it says."""

from __future__ import annotations

import random

import pytest

from flyball.errors import RequestError
from flyball_fleet.targets import Member, arguments, changed, sample, select

MEMBERS = {
    "line1": Member("ready", ("press",), {"site": "oslo"}),
    "line2": Member("lost", ("press", "hall2"), {"site": "bergen"}),
    "line3": Member("ready", (), {}),
}


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("@all", ["line1", "line2", "line3"]),
        ("@press", ["line1", "line2"]),
        ("site=bergen", ["line2"]),
        ("line3", ["line3"]),
        ("never-seen", ["never-seen"]),
    ],
)
def test_a_target_names_devices(target: str, names: list[str]) -> None:
    assert select(target, MEMBERS) == names


@pytest.mark.parametrize("target", ["@nobody", "site=paris", "@"])
def test_a_target_that_means_nobody_says_what_there_is(target: str) -> None:
    with pytest.raises(RequestError, match=r"@all, @hall2, @press, site=bergen, site=oslo"):
        select(target, MEMBERS)


def test_a_sample_is_at_least_one_and_at_most_all() -> None:
    names = [f"d{i}" for i in range(40)]
    source = random.Random(1)
    assert len(sample(names, "5%", source)) == 2
    assert len(sample(names, "0.1%", source)) == 1
    assert len(sample(names, "7", source)) == 7
    assert sample(names, "100%", source) == sorted(names)
    assert sample(["one"], "99", source) == ["one"]
    assert set(sample(names, "5%", random.Random(2))) != set(sample(names, "5%", random.Random(3)))


@pytest.mark.parametrize("wanted", ["0", "0%", "101%", "-1", "2.5", "many", ""])
def test_a_sample_that_makes_no_sense_is_refused(wanted: str) -> None:
    with pytest.raises(RequestError, match="--sample"):
        sample(["a", "b"], wanted, random.Random(0))


def test_arguments_are_json_where_they_read_as_json() -> None:
    words = ["ladder=defects", "for_s=600", 'rung="8"', "force=true", "echo=a=b", "empty="]
    assert arguments(words) == {
        "ladder": "defects", "for_s": 600, "rung": "8", "force": True, "echo": "a=b", "empty": "",
    }  # fmt: skip
    with pytest.raises(RequestError, match="NAME=VALUE"):
        arguments(["ladder"])


def test_a_document_is_changed_member_by_member() -> None:
    before = {"groups": ["a"], "tags": {"site": "oslo", "hall": "2"}, "config": {"governor.mode": "observe"}}
    after = changed(before, ["groups=b,c", "tags.site=", "tags.owner=ann", "config.governor.period_s=2.5"])
    assert after == {
        "groups": ["b", "c"],
        "tags": {"hall": "2", "owner": "ann"},
        "config": {"governor.mode": "observe", "governor.period_s": 2.5},
    }
    assert before["tags"] == {"site": "oslo", "hall": "2"}


@pytest.mark.parametrize("setting", ["groups", "tags=a", "groups.a=b", "colour=red", "tags.a"])
def test_a_setting_of_no_form_is_refused(setting: str) -> None:
    with pytest.raises(RequestError, match="expected groups=a,b"):
        changed({}, [setting])
