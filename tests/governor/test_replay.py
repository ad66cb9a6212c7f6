"""Policies on traces, what is asked of them, and recordings decided again."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from made_traces import BOARD, LADDER, made, model

from flyball.config import Governor as Rules
from flyball.errors import ConfigError
from flyball.governor.recording import SCHEMA, Begun, Done, Ended, Looked
from flyball.governor.replay import profiles, standard
from flyball.governor.replay.baselines import Hysteresis, Pid, Static, Threshold
from flyball.governor.replay.baselines import Path as Way
from flyball.governor.replay.page import page
from flyball.governor.replay.plant import Plant
from flyball.governor.replay.policies import Governed
from flyball.governor.replay.recorded import check
from flyball.governor.replay.run import Run, policy, rules_for, run
from flyball.governor.replay.sample import draw
from flyball.governor.replay.study import changed, compare, everything
from flyball.governor.replay.trace import Trace
from flyball.governor.values import LadderView, Limits, Rung, Seen, View
from flyball.ports import Pin

DEFECTS = profiles.STAND_INS["defects"]
BURSTS = standard.standard("cpu-bursts", "defects", DEFECTS, 2, minutes=8)


def view(now_s: float, ratio: float | None, active: str = "middle", late: float | None = 0.0,
         unusable: tuple[str, ...] = ()) -> View:  # fmt: skip
    rungs = tuple(Rung(name=m.name, accuracy=m.accuracy, usable=m.name not in unusable) for m in LADDER)
    seen = Seen(p95_s=None if ratio is None else 0.02 * ratio, late=late)
    ladder = LadderView(name="made", active=active, rungs=rungs, seen=seen, limits=Limits(deadline_s=0.02))
    return View(now_s=now_s, wall_s=now_s, ladders=(ladder,))


# ------------------------------------------------------------------------------------------------------- baselines


def test_the_plain_threshold_answers_at_once() -> None:
    threshold = Threshold()
    assert threshold.decide(view(1, 1.1)).target == "small"
    assert threshold.decide(view(2, 0.7)).target == "middle"
    assert threshold.decide(view(3, 0.4)).target == "big"
    assert threshold.decide(view(4, None)).target == "middle", "nothing was measured"
    assert threshold.decide(view(5, None, late=0.9)).target == "small", "all were refused"


def test_hysteresis_waits_for_its_windows_and_its_dwell() -> None:
    rule = Hysteresis(down=1.0, up=0.5, down_windows=2, up_windows=3, dwell_s=10.0)
    patient = Threshold(rule)
    assert [patient.decide(view(i, 1.1)).target for i in (1, 2)] == ["middle", "small"]
    patient.moved(patient.decide(view(2, 1.1)), 2.0)
    # The counts begin anew on another rung, and nothing moves before 12 s.
    targets = [patient.decide(view(i, 0.3, active="small")).target for i in range(3, 14)]
    assert targets == ["small"] * 9 + ["middle"] * 2
    assert [patient.decide(view(i, r)).target for i, r in ((30, 1.1), (31, 0.9), (32, 1.1))] == ["middle"] * 3


def test_rungs_that_cannot_run_are_passed_over() -> None:
    threshold = Threshold()
    assert threshold.decide(view(1, 1.1, active="big", unusable=("middle",))).target == "small"
    assert threshold.decide(view(2, 1.1, active="small")).target == "small", "there is nothing below"
    assert Static("big").decide(view(1, 0.5, unusable=("big",))).target == "middle"
    assert Static("big").decide(view(1, 0.5)).action == "up"
    assert Way(["big", "small"], 0.0, 1.0).decide(view(1, None)).target == "small"
    assert Way(["big", "small"], 0.0, 1.0).decide(view(0, None, unusable=("big",))).target == "middle"


def test_the_pid_goes_down_under_load_and_up_without() -> None:
    pid = Pid()
    loaded = [pid.decide(view(i, 2.0)).target for i in range(60)]
    calm = [pid.decide(view(i, 0.1)).target for i in range(60, 180)]
    assert (loaded[-1], calm[-1]) == ("small", "big")
    assert pid.decide(view(200, None)).target == "middle"


# ------------------------------------------------------------------------------------------------------------ runs


def test_the_governor_misses_far_less_than_the_strongest_rung() -> None:
    compared = compare(BURSTS, everything(BURSTS))
    scores = {found.policy: found for found in compared.scores}
    governed, strongest, best = scores["governor"], scores["static:r224-fp32"], scores["oracle"]
    assert strongest.violations is not None
    assert governed.violations is not None
    assert strongest.violations > 0.2
    assert governed.violations < 0.3 * strongest.violations
    assert best.regret == 0.0
    assert all((found.regret or 0.0) > -1e-3 for found in compared.scores)
    assert compared.best_static is not None
    assert scores[compared.best_static].worth == max(s.worth for n, s in scores.items() if n.startswith("static:"))


def test_every_policy_meets_the_same_requests() -> None:
    compared = compare(BURSTS, everything(BURSTS))
    arrivals = {tuple(period.arrivals for period in done.periods) for done in compared.runs}
    assert len(arrivals) == 1
    assert {found.requests for found in compared.scores} == {sum(step.arrivals for step in BURSTS.steps)}


def test_a_run_is_the_same_again() -> None:
    def once() -> Run:
        return run(BURSTS, policy("governor", BURSTS, Rules()), "governor")

    one, other = once(), once()
    assert one.changes
    assert (one.periods, one.changes) == (other.periods, other.changes)


def test_no_decision_is_asked_for_while_a_switch_is_on_its_way() -> None:
    asked: list[float] = []

    class Flapping(Static):
        def decide(self, view):  # type: ignore[no-untyped-def]
            asked.append(view.now_s)
            self._rung = "small" if view.ladders[0].active == "slow" else "slow"
            return super().decide(view)

    rungs = (model("slow", load_s=0.1), model("small", accuracy=0.5, work_s=0.001, load_s=2.5))
    run(made([{}] * 6, rungs=rungs), Flapping("small"))
    assert asked == [1.0, 4.0, 5.0, 6.0]


def test_an_accelerator_that_goes_while_a_rung_loads_is_a_refusal() -> None:
    refused: list[str] = []

    class Eager(Static):
        def refused(self, decision, error, now_s):  # type: ignore[no-untyped-def]
            refused.append(error)

    rungs = (*LADDER[1:], model("npu-rung", accuracy=0.95, accelerator="npu", load_s=5.0))
    rows = [{"lost": ("npu",) if i >= 3 else ()} for i in range(8)]
    done = run(made(rows, rungs=rungs), Eager("npu-rung"))
    assert refused == ["the accelerator went while it loaded"]
    assert {period.rung for period in done.periods} == {"middle"}


def test_unknown_policies_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="hysteresis"):
        policy("histeresis", BURSTS)
    with pytest.raises(ConfigError, match="r112-fp32"):
        policy("static:r113", BURSTS)


def test_rules_follow_the_period() -> None:
    rules = rules_for(standard.standard("summer-day", "defects", DEFECTS, minutes=5), Rules(window_s=5.0))
    assert (rules.period_s, rules.window_s) == (10.0, 10.0)


# --------------------------------------------------------------------------------------------------------- what-if


def test_other_limits_on_the_same_requests() -> None:
    trace = made([{"rate_per_s": 20.0}] * 60, board=BOARD)
    tight = changed(trace, deadline_s=0.004)
    assert [step.arrivals for step in tight.steps] == [step.arrivals for step in trace.steps]
    usual, hurried = (run(t, policy("governor", t), "governor") for t in (trace, tight))
    assert usual.periods[-1].rung == "big"
    assert hurried.periods[-1].rung == "small", "only its work fits"
    warm = changed(trace, ambient_c=45.0, power_cap_w=6.3)
    assert {step.ambient_c for step in warm.steps} == {45.0}
    saving = run(warm, policy("oracle", warm), "oracle")
    assert saving.periods[-1].rung == "middle"
    assert changed(trace) == trace


# ------------------------------------------------------------------------------------------------------------ page


def test_the_page_shows_every_run_and_needs_nothing_from_elsewhere() -> None:
    compared = compare(BURSTS, ["governor", "hysteresis", "oracle"])
    text = page(compared.runs, compared.scores)
    plots = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(plots) == 7
    ways = [len(plot.findall(".//path[@d]")) for plot in plots]
    assert min(ways) > 3
    for name in ("governor", "hysteresis", "oracle", "r224-fp32", "r56-fp32"):
        assert name in text
    assert "http" not in text
    assert "<script" not in text
    assert "nan" not in text.lower()
    assert text.count('class="line s2"') >= 2


def plotted(text: str) -> dict[str, list[tuple[str, str]]]:
    """Class and way of every line, in the order in which they are drawn, by the heading of the plot."""
    parts = re.findall(r"<h2>([^<]+)</h2><figure>(.*?)</figure>", text, re.DOTALL)
    return {title: re.findall(r'<path class="([a-z0-9 ]+)" d="([^"]+)"/></g>', plot) for title, plot in parts}


def test_the_first_run_is_drawn_over_the_others() -> None:
    compared = compare(BURSTS, ["governor", "static:r112-fp32", "oracle"])
    plots = plotted(page(compared.runs, compared.scores))
    for title in ("Latency", "Missed", "Rung", "Temperature", "Power"):
        own = [kind for kind, _ in plots[title] if kind.startswith("line")]
        assert own == ["line s2", "line s1", "line s0"], title


def test_what_is_around_is_drawn_of_every_run_that_has_its_own() -> None:
    usual = standard.standard("heat-ramp", "defects", DEFECTS, 0, minutes=5)
    other = changed(usual, ambient_c=45.0)
    both = [compare(trace, ["static:r112-fp32"]) for trace in (usual, other)]
    runs, scores = [one.runs[0] for one in both], [one.scores[0] for one in both]
    heat = plotted(page(runs, scores, ("as it is", "ambient 45 °C")))["Temperature"]
    around = [way for kind, way in heat if kind == "around"]
    assert len(around) == 2
    heights = [{point.split(" ")[1] for point in re.findall(r"[\d.]+ [\d.]+", way)} for way in around]
    assert sorted(len(some) > 1 for some in heights) == [False, True], "one rises, the other is level at 45 °C"
    same = plotted(page([runs[0], runs[0]], [scores[0], scores[0]], ("a", "b")))["Temperature"]
    assert len([way for kind, way in same if kind == "around"]) == 1


def test_of_many_policies_the_page_draws_the_ones_that_say_most() -> None:
    trace = standard.standard("steady", "defects", DEFECTS, 1, minutes=2)
    compared = compare(trace, everything(trace))
    text = page(compared.runs, compared.scores)
    table, _, plots = text.partition("</table>")
    assert all(f"<td>static:{rung.name}</td>" in table for rung in DEFECTS)
    assert compared.best_static is not None
    drawn = set(re.findall(r"<title>([^<]+)</title><path", plots))
    assert {"governor", "oracle", "pid", compared.best_static} <= drawn
    assert len({name for name in drawn if name.startswith("static:")}) == 1
    assert "Contention" not in plots, "there is none"


def test_a_day_fits_on_a_page() -> None:
    trace = standard.standard("summer-day", "defects", DEFECTS, 1, minutes=600)
    done = run(trace, policy("static:r112-fp32", trace), "<still>")
    text = page([done], compare(trace, ["static:r112-fp32"]).scores)
    assert len(text) < 200_000
    assert "&lt;still&gt;" in text
    assert ">h</text>" in text


# ------------------------------------------------------------------------------------------------------- recordings


def recorded(trace: Trace, file: Path, rules: Rules) -> None:
    """As the daemon records it: a pin and its release are new beginnings."""
    plant, governed = Plant(trace, draw(trace)), Governed(rules)
    lines: list[object] = []

    def begin() -> None:
        lines.append(Begun(schema=SCHEMA, flyball="0", board="board", rules=rules, state=governed.state))

    begin()
    for i in range(len(trace.steps)):
        plant.advance(i)
        seen = plant.view()
        decision = governed.decide(seen)
        lines.append(Looked(view=seen, decisions=(decision,)))
        if decision.target != decision.source:
            plant.switch(decision.target)
            governed.moved(decision, seen.now_s)
            lines.append(Done(decision=decision, now_s=seen.now_s))
        if i in (100, 150):
            pin = Pin(ladder="defects", rung="r80-fp32", until_s=None) if i == 100 else None
            governed.state = governed.state.pinned("defects", pin)
            begin()
    lines.append(Ended(why="the daemon has ended it"))
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "recorded.jsonl"
    recorded(BURSTS, file, Rules())
    return file


def test_a_recording_leads_to_the_same_decisions(recording: Path) -> None:
    found = check(recording)
    assert found.differs == ()
    assert found.looks == found.decisions == len(BURSTS.steps)
    assert found.changes > 2
    assert (found.cut, found.ended) == (False, "the daemon has ended it")


def test_decisions_that_differ_are_found_with_their_line(recording: Path) -> None:
    lines = recording.read_text().splitlines()
    line = json.loads(lines[50])
    line["decisions"][0]["target"] = "r56-fp32"
    lines[50] = json.dumps(line)
    recording.write_text("\n".join(lines))
    (differs,) = check(recording).differs
    assert (differs.line, differs.recorded.target) == (51, "r56-fp32")
    assert differs.now is not None
    assert differs.now.target != "r56-fp32"


def test_decisions_that_were_not_made_then_differ_too(recording: Path) -> None:
    lines = [json.loads(line) for line in recording.read_text().splitlines()]
    looks = [line for line in lines if line["kind"] == "looked"]
    for line in looks:
        line["decisions"] = []
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = check(recording)
    assert found.decisions == 0
    assert len(found.differs) == len(looks)
    assert all(one.recorded is None and one.now is not None for one in found.differs)


def test_a_recording_under_other_rules_differs(recording: Path) -> None:
    lines = recording.read_text().splitlines()
    begun = json.loads(lines[0])
    begun["rules"]["mode"] = "energy-first"
    recording.write_text("\n".join([json.dumps(begun), *lines[1:]]))
    assert check(recording).differs


def test_a_recording_that_was_cut_off_is_read_to_there(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-100])
    found = check(recording)
    assert found.cut
    assert found.ended == ""
    assert found.differs == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[1:], '"begun" first'),
        (lambda lines: [*lines[:3], "{}", *lines[4:]], ":4"),
        (lambda lines: [lines[0].replace(f'"schema":{SCHEMA}', '"schema":7')], "found 7"),
        (lambda lines: lines[:1], "nothing was recorded"),
        (
            lambda lines: [lines[0].replace('"thresholds":{}', '"thresholds":{"defects":["when"]}'), lines[1]],
            "thresholds",
        ),
        (
            lambda lines: [lines[0], *(one.replace('"quantile":0.95', '"quantile":2.0') for one in lines[1:])],
            "limits.quantile: expected 0.5 to 0.9999, found 2",
        ),
        (
            lambda lines: [re.sub(r'"window_answers":\d+', '"window_answers":-1', one) for one in lines],
            "no decision can be made",
        ),
    ],
)
def test_what_is_no_recording_is_told(recording: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    recording.write_text("\n".join(change(recording.read_text().splitlines())))
    with pytest.raises(ConfigError) as error:
        check(recording)
    assert said in str(error.value)
