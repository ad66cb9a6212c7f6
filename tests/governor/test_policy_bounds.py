"""What must hold whatever comes in."""

import itertools
import math
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_plant import LADDER, Plant

from flyball.config import Governor as Rules
from flyball.governor.forecast import below_floor
from flyball.governor.policy import choose
from flyball.governor.state import CLIMBS_PER_HOUR, Calm, Left, Rest, State
from flyball.governor.values import Limits, Observation, Rung, View
from flyball.ports import Decision, Pin

NAMES = ("a", "b", "c", "d")
ORDER = {name: i for i, name in enumerate(NAMES)}

odd = st.floats(allow_nan=True, allow_infinity=True)
seldom = st.integers(0, 5).map(lambda i: i == 0)


def mostly(usual: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.one_of(usual, usual, usual, st.none(), odd)


latency = mostly(st.floats(0.001, 0.1))
figure = mostly(st.floats(1e7, 4e9))
heat = mostly(st.floats(20, 110))
share = mostly(st.floats(0, 1))

rules = st.builds(
    Rules,
    down_windows=st.integers(1, 3),
    of_windows=st.integers(3, 5),
    up_windows=st.integers(1, 12),
    headroom=st.floats(0.5, 1),
    dwell_s=st.floats(0, 60),
    climb_backoff_s=st.floats(0, 60),
    climb_backoff_max_s=st.floats(0, 900),
    temperature_margin_c=st.floats(0, 10),
)
limits = st.builds(Limits, latency_p95_s=latency, temperature_c=heat, memory_available_bytes=figure)
observations = st.builds(
    Observation,
    window_s=st.just(5.0),
    answers=st.integers(0, 100),
    p50_s=latency,
    p95_s=latency,
    newest_p95_s=latency,
    temperature_c=heat,
    memory_available_bytes=figure,
    cpu_utilization=share,
)
lefts = st.builds(
    Left,
    cause=st.sampled_from(["latency", "temperature", "memory"]),
    at_s=st.floats(0, 1000),
    wait_s=st.floats(0, 900),
    p95_s=st.one_of(st.none(), st.floats(0, 1)),
    level=st.one_of(st.none(), st.floats(0, 1)),
    failures=st.integers(0, 6),
    misled=st.booleans(),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[View, Limits, Rules, State]:
    names = NAMES[: draw(st.sampled_from((1, 2, 3, 4, 4, 4)))]
    active = draw(st.sampled_from(names))
    seen = draw(observations)
    if not draw(seldom):
        seen = replace(seen, newest_p95_s=seen.p95_s)
    view = View(
        ladder="x",
        now_s=1000.0,
        wall_s=1e9,
        active=active,
        rungs=tuple(
            Rung(
                name=n,
                accuracy=draw(st.one_of(st.none(), st.floats(0.5, 1))),
                usable=not draw(seldom) or n == active,
                failed=draw(seldom) and n != active,
                profiled_p50_s=draw(latency),
                rss_bytes=draw(figure),
                leave_alone_s=30.0 if draw(seldom) and n != active else 0.0,
                resident=draw(st.booleans()),
            )
            for n in names
        ),
        seen=seen,
        accuracy_floor=draw(st.one_of(st.none(), st.none(), st.floats(0.4, 1))),
    )
    flags = st.lists(st.tuples(st.floats(900, 999), st.booleans()), min_size=2, max_size=5).map(
        lambda drawn: tuple(sorted(drawn))
    )
    sensed = st.dictionaries(
        st.sampled_from([("temperature", ""), ("temperature", "thermal/cpu"), ("memory", "")]), st.floats(800, 1000)
    )
    state = State(
        active=draw(st.sampled_from((active, active, active, "z"))),
        since_s=draw(st.floats(0, 1000)),
        flags={c: draw(flags) for c in ("latency", "temperature", "memory")},
        sensed=draw(sensed),
        kept_s=draw(st.dictionaries(st.sampled_from(["temperature", "memory"]), st.floats(0, 1000))),
        proven=draw(st.dictionaries(st.sampled_from(["temperature", "memory"]), st.sampled_from(names))),
        streak=draw(st.integers(0, 12)),
        streak_for=draw(st.sampled_from(names)),
        entered=draw(st.sampled_from(["", "free", "load", "wait"])),
        entered_c=draw(st.one_of(st.none(), st.floats(0, 120))),
        calm=draw(st.dictionaries(st.sampled_from(names), st.builds(Calm, p95_s=st.floats(0, 1), stay_s=st.just(0.0)))),
        left=draw(st.dictionaries(st.sampled_from(names), lefts)),
        rests=draw(
            st.dictionaries(
                st.sampled_from(names),
                st.builds(Rest, until_s=st.floats(0, 1200), failures=st.integers(0, 5), error=st.just("e")),
            )
        ),
        climbs_s=tuple(sorted(draw(st.lists(st.floats(0, 1000), max_size=CLIMBS_PER_HOUR)))),
    )
    return view, draw(limits), draw(rules), state


def decide(situation: tuple[View, Limits, Rules, State]) -> Decision:
    return choose(*situation)[0]


@given(situations())
def test_the_same_values_give_the_same_decision(situation: tuple[View, Limits, Rules, State]) -> None:
    assert choose(*situation) == choose(*situation)


@given(situations())
def test_only_rungs_that_may_be_chosen_are(situation: tuple[View, Limits, Rules, State]) -> None:
    view, _, chosen_rules, state = situation
    decision = decide(situation)
    if decision.target == decision.source:
        assert decision.action == "stay"
        return
    target = next(r for r in view.rungs if r.name == decision.target)
    assert target.usable
    assert below_floor(target, view.accuracy_floor) == ""
    assert target.leave_alone_s == 0
    rest = state.rests.get(target.name)
    assert rest is None or rest.until_s <= view.now_s
    if state.active == view.active:
        assert view.now_s - state.since_s >= chosen_rules.dwell_s
    assert (decision.action == "down") == (ORDER[decision.target] > ORDER[decision.source])


@given(situations())
def test_the_explanation_fits_the_choice(situation: tuple[View, Limits, Rules, State]) -> None:
    decision = decide(situation)
    by_name = {c.rung: c for c in decision.candidates}
    assert list(by_name) == [r.name for r in situation[0].rungs]
    assert decision.reason
    assert "nan" not in decision.reason.lower()
    if decision.action == "up" and decision.binding == "headroom":
        assert by_name[decision.target].ruled_out_by == ""
        assert decision.target in decision.reason
    if decision.action == "down" and decision.binding == "sensor":
        assert decision.target in decision.reason
    if decision.action == "down" and decision.binding not in ("accuracy", "sensor"):
        assert by_name[decision.source].ruled_out_by != ""
        assert decision.target in decision.reason
        stronger_fits = [
            n for n, c in by_name.items() if ORDER[decision.source] < ORDER[n] < ORDER[decision.target]
            and not c.ruled_out_by
        ]  # fmt: skip
        assert not stronger_fits


@given(situations())
def test_no_odd_number_comes_out(situation: tuple[View, Limits, Rules, State]) -> None:
    decision, state = choose(*situation)
    figures = [*decision.inputs.values(), *(c.predicted_p95_s for c in decision.candidates)]
    figures += [c.p95_s for c in state.calm.values()]
    assert all(math.isfinite(x) for x in figures if x is not None)


@given(situations(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_limit_never_gives_a_stronger_rung(
    situation: tuple[View, Limits, Rules, State], tighter: float, cooler: float, roomier: float
) -> None:
    view, lax, chosen_rules, state = situation
    strict = Limits(
        latency_p95_s=None if lax.latency_p95_s is None else lax.latency_p95_s * tighter,
        temperature_c=None if lax.temperature_c is None else lax.temperature_c * cooler,
        memory_available_bytes=None
        if lax.memory_available_bytes is None
        else lax.memory_available_bytes / max(roomier, 0.01),
    )
    under_lax, _ = choose(view, lax, chosen_rules, state)
    under_strict, _ = choose(view, strict, chosen_rules, state)
    assert ORDER[under_strict.target] >= ORDER[under_lax.target]


@given(situations(), st.sampled_from(NAMES), st.one_of(st.none(), st.floats(0, 2000)), st.booleans())
def test_a_pin_is_overruled_by_nothing_but_heat_and_memory_and_not_even_those_by_force(
    situation: tuple[View, Limits, Rules, State], rung: str, until_s: float | None, force: bool
) -> None:
    view, lax, chosen_rules, state = situation
    pinned = replace(state, pin=Pin(ladder="x", rung=rung, until_s=until_s, force=force))
    decision, after = choose(view, lax, chosen_rules, pinned)
    if until_s is not None and until_s <= view.now_s:
        assert after.pin is None
        return
    assert after.pin == pinned.pin
    if decision.target not in (view.active, rung):
        assert not force
        assert decision.action == "down"
        assert decision.binding in ("temperature", "memory", "sensor")


@given(situations())
def test_no_climb_while_a_reading_is_lost(situation: tuple[View, Limits, Rules, State]) -> None:
    view, lax, _, state = situation
    lost = [
        constraint
        for (constraint, zone) in state.sensed
        if (constraint == "temperature" and lax.temperature_c is not None and (zone or view.seen.temperature_c is None))
        or (constraint == "memory" and lax.memory_available_bytes is not None and not view.seen.memory_available_bytes)
    ]
    decision = decide(situation)
    if lost and decision.binding != "accuracy":  # below the ladder's floor it may not stay either way
        assert decision.action in ("stay", "down")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 90), st.booleans(), st.floats(20, 60)), min_size=1, max_size=60),
    st.sampled_from([Rules(), Rules(dwell_s=0, climb_backoff_s=0, up_windows=1, down_windows=1)]),
)
@example([(True, 3, True, 25.0), (False, 12, True, 25.0)] * 30, Rules())
def test_switches_are_bounded_whatever_the_load_does(
    episodes: list[tuple[bool, int, bool, float]], chosen_rules: Rules
) -> None:
    plant = Plant(
        models=LADDER, rules=chosen_rules, limits=Limits(latency_p95_s=0.018, temperature_c=75.0), temp_c=40.0
    )
    times: list[tuple[float, str]] = []
    for contended, seconds, cpu_known, ambient_c in episodes:
        plant.contended, plant.cpu_known, plant.ambient_c = contended, cpu_known, ambient_c
        times += [(d.t_s, d.action) for d in plant.run(seconds)]
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(times)]
    assert all(gap >= chosen_rules.dwell_s for gap in gaps)
    for start, _ in times:
        hour = [action for t, action in times if start <= t < start + 3600]
        assert hour.count("up") <= CLIMBS_PER_HOUR
        assert len(hour) <= 2 * CLIMBS_PER_HOUR + len(LADDER) - 1
