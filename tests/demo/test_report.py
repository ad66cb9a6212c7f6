"""The demo's report says what the samples and decisions say."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from flyball.control_api import LadderView, Status
from flyball.demo.report import Report, Spending, report, time_by_rung
from flyball.demo.stream import Sample
from flyball.demo.summary import summary
from flyball.ports import Decision, EnergyTotal, LadderStatus
from flyball.testing import NO_TOTALS


def sample(t_s: float, rung: str, latency_s: float = 0.01, right: bool = True, error: str = "") -> Sample:
    return Sample(t_s=t_s, latency_s=latency_s, rung=rung, right=right, error=error)


def decision(t_s: float, source: str, target: str, acted: bool = True) -> Decision:
    return Decision(
        ladder="defects", t_s=t_s, wall_s=0, action="down", source=source, target=target, reason="because", acted=acted
    )


SAMPLES = [
    sample(101, "big", 0.010),
    sample(102, "big", 0.030, right=False),
    sample(103, "small", 0.005),
    sample(104, "", error="no rung"),
    sample(106, "small", 0.007),
]


def test_the_report_adds_up() -> None:
    result = report(
        SAMPLES,
        [
            decision(50, "x", "y"),
            decision(102.5, "big", "small"),
            decision(103, "small", "small"),
            decision(104, "small", "big", acted=False),
        ],
        100.0,
        0.02,
        ["big", "small", "tiny"],
        {"big": 1.0, "tiny": 3.0},
        12.0,
        "estimated",
    )
    assert (result.requests, result.failures, result.errors) == (5, 1, ("no rung",))
    assert result.accuracy == pytest.approx(3 / 4)
    assert [(s.t, s.source, s.target, s.direction) for s in result.switches] == [(2.5, "big", "small", "down")]
    assert result.rungs["big"].share == pytest.approx(2 / 6)
    assert result.rungs["small"].share == pytest.approx(4 / 6)
    assert (result.rungs["tiny"].share, result.rungs["tiny"].p50_ms) == (0.0, None)
    assert (result.rungs["big"].j_per_inference, result.rungs["small"].j_per_inference) == (0.5, None)
    assert result.rungs["tiny"].j_per_inference is None, "no picture, no figure"


def test_the_json_has_the_documented_keys() -> None:
    data = json.loads(
        msgspec.json.encode(report(SAMPLES, [decision(102, "big", "small")], 100.0, 0.02, ["big"], {}, None, "none"))
    )
    assert {"requests", "failures", "accuracy", "switches", "rungs", "power_scope"} <= set(data)
    assert {"t", "from", "to", "direction", "reason"} == set(data["switches"][0])
    assert {"share", "p50_ms", "p95_ms", "j_per_inference"} <= set(data["rungs"]["big"])
    assert data["rungs"]["big"]["j_per_inference"] is None
    assert data["energy_basis"] == "gross"


def test_time_belongs_to_the_rung_that_answered_at_its_end() -> None:
    assert time_by_rung([sample(1, "a"), sample(3, "b"), sample(4, "a")], 0.0) == {"a": 2.0, "b": 2.0}
    assert time_by_rung([], 0.0) == {}


def test_a_report_of_nothing_can_be_shown() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary(report([], [], 0.0, 0.02, ["big"], {}, None, "none")))
    text = console.export_text()
    assert "0 requests" in text
    assert "no change of rung" in text
    assert "no energy figure" in text


def told(cpu_stolen: float | None, after: float | None = None) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    told_of = {"cpu_stolen": cpu_stolen, "cpu_stolen_after": after}
    console.print(summary(report(SAMPLES, [], 100.0, 0.02, ["big"], {}, None, "none", **told_of)))
    return console.export_text()


def test_what_the_host_kept_back_is_told_where_it_matters() -> None:
    assert "kept back 37 % of the processor time that was asked for" in told(0.37)
    assert "kept back" in told(0.05)
    assert "kept back" not in told(0.049)
    assert "kept back" not in told(0.0)
    assert "kept back" not in told(None), "not counted here"
    assert "kept back 3 % of the processor time that was asked for, 30 % after the load went: " in told(0.03, 0.3)
    assert "kept back an unknown part of the processor time that was asked for, 30 % after" in told(None, 0.3)
    assert "kept back" not in told(0.03, 0.04)


def looked(joules: float | None, source: str = "rail", **busy_s: float) -> Status:
    status = LadderStatus(name="defects", version="1", state="ready", active="big", pending=0, rungs=())
    totals = msgspec.structs.replace(NO_TOTALS, busy_s_by_rung=busy_s)
    view = LadderView(status=status, window=None, totals=totals, joules_per_inference={"big": 99.0, "tiny": 99.0})
    energy = None if joules is None else EnergyTotal(joules=joules, covered_s=1, scope="board", source=source)
    return Status(
        version="1", device="d", board="", mode="observe", uptime_s=1, ladders=(view,), readings=(), sensors=(),
        energy=energy, pins=(), uplink=None,
    )  # fmt: skip


def test_only_what_was_spent_since_the_first_look_is_counted() -> None:
    spending = Spending(looked(100, big=5.0, tiny=9.0))  # the measuring: of no concern
    for now in (
        looked(106, big=6.0, tiny=9.0),
        looked(109, big=7.0, small=2.0, tiny=9.0),  # 3 J: one second of three for big
        looked(115, big=7.0, small=2.0, tiny=9.0),  # nothing worked
        looked(None, big=7.0, small=3.0, tiny=9.0),
        looked(120, big=7.0, small=3.0, tiny=9.0),
        looked(1, "shunt", big=8.0, small=3.0, tiny=9.0),  # another source: no difference to be had
        looked(3, "shunt", big=9.0, small=3.0, tiny=9.0),
    ):
        spending.add(now)
    assert spending.joules == pytest.approx({"big": 6 + 1 + 2, "small": 2})


@pytest.mark.parametrize(
    ("newest", "because"),
    [
        (decision(106, "small", "small"), "because"),
        (msgspec.structs.replace(decision(106, "small", "big", acted=False), error="no such file"),
         "big was wanted and not to be had: no such file"),
        (decision(106, "small", "big"), "a change was under way"),
        (decision(99, "small", "small"), ""),  # before the pictures: of the measuring
    ],
)  # fmt: skip
def test_where_it_ended_and_why_is_told_unless_it_is_the_top(newest: Decision, because: str) -> None:
    def shown(ended_on: str) -> tuple[Report, str]:
        before = [] if newest.t_s < 100 else [decision(102, "big", "small")]
        result = report(
            SAMPLES, [*before, newest], 100.0, 0.02, ["big", "small"], {}, None, "none", limit_stolen=0.2,
            cpu_stolen=0.4, cpu_stolen_after=0.3, load_s=(1.5, 3.0), ended_on=ended_on,
        )  # fmt: skip
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(summary(result))
        return result, console.export_text()

    result, text = shown("small")
    assert (result.ended_on, result.ended_because, result.cpu_stolen_after) == ("small", because, 0.3)
    assert (result.limit_stolen, result.cpu_stolen) == (0.2, 0.4)
    assert (result.load_from_s, result.load_until_s) == (1.5, 3.0)
    assert f"at the end on small: {because}".rstrip() in text
    assert "at the end on" not in shown("big")[1]
    assert "at the end on" not in shown("")[1], "no rung was active"
