"""Traces as files, and the standard ten as they were agreed."""

import json
import math
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from made_traces import LADDER, made, model

from flyball.errors import ConfigError
from flyball.governor.replay import profiles, standard
from flyball.governor.replay.misses import missed
from flyball.governor.replay.sample import draw
from flyball.governor.replay.trace import Trace, kind_of, load, save

DEFECTS = profiles.STAND_INS["defects"]
MIB = 1 << 20


def of(name: str, seed: int = 0, ladder: str = "defects") -> Trace:
    return standard.standard(name, ladder, profiles.STAND_INS[ladder], seed)


def spans(flags: list[bool]) -> list[int]:
    """Lengths of the runs of True."""
    lengths, length = [], 0
    for flag in [*flags, False]:
        if flag:
            length += 1
        elif length:
            lengths.append(length)
            length = 0
    return lengths


# ---------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", standard.NAMES)
def test_a_trace_is_the_same_after_writing_and_reading(name: str, tmp_path: Path) -> None:
    trace = standard.standard(name, "defects", DEFECTS, 7, minutes=3)
    save(trace, tmp_path / "trace.jsonl")
    assert load(tmp_path / "trace.jsonl") == trace
    assert kind_of(tmp_path / "trace.jsonl") == "load"


def broken(tmp_path: Path, line: int, **change: object) -> str:
    """What is said of a trace in which one line is changed."""
    file = tmp_path / "trace.jsonl"
    save(made([{}] * 4), file)
    lines = file.read_text().splitlines()
    lines[line - 1] = json.dumps({**json.loads(lines[line - 1]), **change})
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as error:
        load(file)
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "change", "said"),
    [
        (3, {"arrivals": -1}, ["trace.jsonl:3", "arrivals", ">= 0"]),
        (3, {"arivals": 2}, ["trace.jsonl:3", "arivals"]),
        (4, {"t_s": 7.0}, ["trace.jsonl:4", "expected 2", "found 7"]),
        (2, {"contention": "much"}, ["trace.jsonl:2", "contention"]),
        (5, {"lost": ["tpu"]}, ["'tpu'", "cpu"]),
        (1, {"schema": 9}, ["trace.jsonl:1", "schema"]),
        (1, {"rungs": []}, ["trace.jsonl:1", "rungs"]),
        (1, {"period_s": 0}, ["trace.jsonl:1", "period_s"]),
        (1, {"period_s": 1e300}, ["trace.jsonl:1", "period_s"]),
        (1, {"name": "a\x1b[2J"}, ["trace.jsonl:1", "name"]),
        (1, {"limits": {"deadline": 0.1}}, ["trace.jsonl:1", "deadline"]),
        (1, {"limits": {"deadline_s": 0.0}}, ["trace.jsonl:1", "limits.deadline_s"]),
        (1, {"limits": {"quantile": 1.0}}, ["trace.jsonl:1", "limits.quantile"]),
        (1, {"limits": {"quantile": 0.0, "power_w": 0.0}}, ["trace.jsonl:1", "limits.quantile", "limits.power_w"]),
        (3, {"ambient_c": 1e308}, ["trace.jsonl:3", "ambient_c"]),
        (3, {"power_cap_w": 5e-324}, ["trace.jsonl:3", "power_cap_w"]),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, line: int, change: dict[str, object], said: list[str]) -> None:
    message = broken(tmp_path, line, **change)
    assert [part for part in said if part not in message] == []


def test_rungs_must_differ_and_slow_downs_rise() -> None:
    with pytest.raises(ValueError, match="different names"):
        made([{}], rungs=(model("a"), model("a")))
    with pytest.raises(ValueError, match="rising contention"):
        model(slow_down=((0.0, 1.0, 0.1), (2.0, 2.0, 0.1), (1.0, 1.5, 0.1)))
    with pytest.raises(ValueError, match="rising contention"):
        model(slow_down=((1.0, 1.0, 0.1),))


def test_empty_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    save(made([{}]), file)
    file.write_text("\n" + file.read_text().replace("\n", "\n\n") + "{}\n")
    assert kind_of(file) == "load"
    with pytest.raises(ConfigError, match=r"trace\.jsonl:6: "):
        load(file)


def test_more_requests_than_can_be_simulated_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    save(made([{"arrivals": 1_000_000}] * 21), file)
    with pytest.raises(ConfigError, match="21000000"):
        load(file)


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.governor.replay.trace.MOST_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match="larger than the 1 MiB"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text", ["", "not json\n", '{"kind": "other"}\n', "[1]\n", '{"kind": ' + "[" * 100_000, '{"kind": "\udcff"}\n']
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match="jsonl"):
        kind_of(file)
    with pytest.raises(ConfigError, match="jsonl"):
        load(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.jsonl"):
        load(tmp_path / "gone.jsonl")


def test_only_a_few_of_many_mistakes_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    save(made([{}]), file)
    file.write_text(file.read_text() + "{}\n" * 50)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert "45 more" in str(error.value)


def test_between_two_measured_levels_the_slow_down_is_linear() -> None:
    rung = model(slow_down=((0.0, 1.0, 0.1), (2.0, 2.0, 0.3), (4.0, 6.0, 0.3)))
    assert rung.slowed(0.0) == (1.0, 0.1)
    assert rung.slowed(1.0) == (1.5, pytest.approx(0.2))
    assert rung.slowed(3.0)[0] == pytest.approx(4.0)
    assert rung.slowed(50.0) == (6.0, 0.3)


# -------------------------------------------------------------------------------------------------------- chance


def test_the_same_seed_draws_the_same() -> None:
    one, other = draw(of("cpu-bursts", 3)), draw(of("cpu-bursts", 3))
    assert one.normals.tolist() == other.normals.tolist()
    assert one.offsets.tolist() == other.offsets.tolist()
    assert (one.contention, one.power) == (other.contention, other.power)
    assert draw(of("cpu-bursts", 4)).normals[:50].tolist() != one.normals[:50].tolist()


def test_arrivals_rise_within_their_period_and_sensors_are_off_by_what_is_said() -> None:
    trace = of("arrival-bursts")
    sample = draw(trace)
    assert sample.first[-1] == sum(step.arrivals for step in trace.steps)
    for begin, end in pairwise(sample.first):
        offsets = sample.offsets[begin:end].tolist()
        assert offsets == sorted(offsets)
        assert all(0.0 <= offset <= 1.0 for offset in offsets)
    assert max(map(abs, sample.contention)) <= 0.3
    assert 0.01 < math.sqrt(sum((p - 1.0) ** 2 for p in sample.power) / len(sample.power)) < 0.03


# ------------------------------------------------------------------------------------------------------- standard


@pytest.mark.parametrize("ladder", ["defects", "mobilenets"])
@pytest.mark.parametrize("name", standard.NAMES)
def test_the_standard_traces_are_made_of_a_seed(name: str, ladder: str) -> None:
    trace = of(name, 5, ladder)
    assert trace == of(name, 5, ladder)
    assert [s.arrivals for s in trace.steps] != [s.arrivals for s in of(name, 6, ladder).steps]
    assert trace.header.about
    if name != "summer-day":
        assert (len(trace.steps), trace.header.period_s) == (1200, 1.0)


def test_twenty_requests_a_second_and_twice_the_top_rungs_p95() -> None:
    trace = of("steady")
    count = sum(step.arrivals for step in trace.steps)
    assert abs(count - 24_000) < 5 * math.sqrt(24_000)
    top = trace.header.rungs[0]
    assert trace.header.limits.deadline_s == pytest.approx(2 * standard.p95_s(top, 0.0))
    assert {step.ambient_c for step in trace.steps} == {25.0}


@pytest.mark.parametrize("seed", range(5))
def test_bursts_of_burners(seed: int) -> None:
    trace = of("cpu-bursts", seed)
    assert {step.contention for step in trace.steps} == {0.0, 3.0}
    lengths = spans([step.contention > 0 for step in trace.steps])
    assert all(0.8 * 30 - 1 <= length <= 1.2 * 60 + 1 for length in lengths[1:-1])
    assert 6 <= len(lengths) <= 17


def test_a_leak_goes_on_until_nine_tenths_are_taken() -> None:
    trace = of("memory-leak", 2)
    taken = [step.memory_taken_bytes for step in trace.steps]
    most = 0.9 * trace.header.board.memory_bytes
    assert most - 5 * MIB < max(taken) <= most
    growth = sorted(b - a for a, b in pairwise(taken) if b > a)
    assert 0.8 * 4 * MIB <= growth[0] <= growth[-1] <= 1.2 * 4 * MIB
    drops = [a for a, b in pairwise(taken) if b < a]
    assert drops
    assert all(a > most - 5 * MIB for a in drops)
    # The largest rung breaks the reserve at the peak, and the smallest does not.
    room = trace.header.board.memory_bytes - max(taken)
    sizes = [rung.rss_bytes for rung in trace.header.rungs]
    reserve = trace.header.limits.memory_available_bytes or 0.0
    assert room - max(sizes) < reserve < room - min(sizes)


@pytest.mark.parametrize("ladder", ["defects", "mobilenets"])
def test_heat_leaves_a_rung_that_fits(ladder: str) -> None:
    for name, hottest_c in (("heat-ramp", 55.0), ("summer-day", 48.0)):
        trace = of(name, 1, ladder)
        per_s = max(step.rate_per_s or 0.0 for step in trace.steps)
        ambient = [step.ambient_c for step in trace.steps]
        assert max(ambient) == pytest.approx(hottest_c, abs=0.1)
        assert min(ambient) == pytest.approx(25.0 if name == "heat-ramp" else 22.0, abs=0.1)
        board = trace.header.board
        settled = [max(ambient) + board.idle_rise_c + board.r_kw * per_s * rung.joules for rung in trace.header.rungs]
        assert settled[0] > board.throttle_c > settled[-1] + 6.0
        assert trace.header.limits.temperature_c == board.throttle_c


def test_a_summer_day_has_nights() -> None:
    trace = of("summer-day")
    assert trace.seconds == 86_400
    rates = [step.rate_per_s or 0.0 for step in trace.steps]
    assert max(rates[:1000]) < 0.1 * max(rates)


def test_the_power_cap_is_of_the_top_rungs_power() -> None:
    trace = of("power-cap")
    caps = list(dict.fromkeys(step.power_cap_w for step in trace.steps))
    idle_w = trace.header.board.idle_w
    assert len(caps) == 3
    full, least, middle = ((cap or 0.0) - idle_w for cap in caps)
    assert (least / full, middle / full) == (pytest.approx(0.6, abs=0.001), pytest.approx(0.8, abs=0.001))
    watts = [20.0 * rung.joules for rung in trace.header.rungs]
    assert full > watts[0] > least > watts[1], "a rung is left that fits"


def test_the_power_cap_of_a_machine_whose_rungs_matter_is_of_all_its_power() -> None:
    hungry = tuple(msgspec.structs.replace(rung, joules=rung.joules * 20) for rung in DEFECTS)
    trace = standard.standard("power-cap", "defects", hungry)
    top = hungry[0]
    assert trace.steps[0].power_cap_w == pytest.approx(profiles.IDLE_W + top.joules / top.work_s, abs=0.001)


def test_bursts_of_requests() -> None:
    trace = of("arrival-bursts")
    assert {step.rate_per_s for step in trace.steps} == {5.0, 60.0}
    assert all(15 <= length <= 25 for length in spans([step.rate_per_s == 60.0 for step in trace.steps])[:-1])


def test_sensors_drop_out_three_times_during_bursts() -> None:
    trace, bursts = of("sensor-drop-out", 3), of("cpu-bursts", 3)
    lengths = spans([step.unreadable == ("temperature", "power") for step in trace.steps])
    assert len(lengths) == 3
    assert all(59 <= length <= 181 for length in lengths)
    assert {step.contention for step in trace.steps} == {step.contention for step in bursts.steps}


@pytest.mark.parametrize("ladder", ["defects", "mobilenets"])
def test_at_the_boundary_a_rung_misses_a_few_more_than_it_may(ladder: str) -> None:
    trace = of("boundary", 1, ladder)
    levels = [step.contention for step in trace.steps]
    middle = sum(levels) / len(levels)
    deviation = math.sqrt(sum((level - middle) ** 2 for level in levels) / len(levels))
    assert deviation / middle == pytest.approx(0.03, abs=0.004)
    limits = trace.header.limits
    shares = [missed(rung, middle, 20.0, limits.deadline_s or 0.0) for rung in trace.header.rungs]
    assert min(abs(share - 0.065) for share in shares) < 0.01


def test_the_accelerator_of_the_top_two_rungs_is_lost_twice() -> None:
    trace = of("accelerator-lost")
    lengths = spans([step.lost == ("npu",) for step in trace.steps])
    assert len(lengths) == 2
    assert all(95 <= length <= 145 for length in lengths)
    assert [rung.accelerator for rung in trace.header.rungs] == ["npu", "npu", "cpu", "cpu", "cpu"]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="cpu-bursts"):
        standard.standard("cpu-burst", "made", LADDER)


# ------------------------------------------------------------------------------------------------------- measured


def level(burners: int, mean_s: float) -> dict[str, object]:
    return {"burners_per_core": burners, "work_mean_s": mean_s, "work_p50_s": mean_s, "work_p95_s": mean_s * 1.3,
            "n": 100, "runnable": None}  # fmt: skip


def test_measured_curves_become_rungs(tmp_path: Path) -> None:
    usual = {"ladder": "mobilenet", "open_s": 0.4, "rss_bytes": None, "joules": 0.03}
    rungs = [
        {**usual, "rung": "weak", "accuracy": 0.5, "levels": [level(8, 0.002), level(0, 0.001)]},
        {**usual, "rung": "strong", "accuracy": 0.9, "levels": [level(0, 0.010), level(8, 0.047)]},
        {**usual, "rung": "unrated", "accuracy": None, "levels": [level(0, 0.010)]},
    ]
    file = tmp_path / "contention.json"
    file.write_text(json.dumps({"date": "2026-01-01", "rungs": rungs}))
    (found,) = profiles.measured(file).values()
    assert [rung.name for rung in found] == ["strong", "weak"]
    assert (found[0].work_s, found[0].load_s) == (0.010, 0.4)
    assert found[0].slowed(8.0)[0] == pytest.approx(4.7)
    assert found[0].spread == pytest.approx(math.log(1.3) / 1.645)


def test_what_are_no_measured_curves_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "contention.json"
    file.write_text('{"rungs": [{}]}')
    with pytest.raises(ConfigError, match=r"contention\.json"):
        profiles.measured(file)
