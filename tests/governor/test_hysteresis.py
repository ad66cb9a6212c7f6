"""When a wanted rung is taken."""

import msgspec
import pytest

from flyball.config import Governor as Rules
from flyball.governor import hysteresis
from flyball.governor.constraints import Check
from flyball.governor.hysteresis import Verdict
from flyball.governor.outlook import Outlook
from flyball.governor.perception import EVENNESS_OF
from flyball.governor.state import CLIMBS_PER_HOUR, LadderState
from flyball.governor.values import LadderView, Limits, Rung, Seen

RULES = Rules()
LADDER = LadderView(name="x", active="b", rungs=(), limits=Limits(deadline_s=0.02))
LATE = Check(constraint="latency", broken=True, text="late")


def outlook(index: int, accuracy: float = 0.9, **more: object) -> Outlook:
    figures: dict[str, object] = {"resident": True, "load_s": None} | more
    rung = Rung(name="abc"[index], accuracy=accuracy, work_s=0.01, **figures)  # type: ignore[arg-type]
    return Outlook(rung, index, 0.01, 0.001, 0.1, 0.001, None, "", "")


A, B, C = outlook(0, 0.9), outlook(1, 0.8), outlook(2, 0.7)


def climb(own: LadderState, now_s: float, target: Outlook = A, here: Outlook = B) -> tuple[Verdict, LadderState]:
    return hysteresis.climb(LADDER, own, here, target, RULES, "accuracy-first", now_s)


def test_a_quicker_rung_that_brings_more_answers_in_time_is_taken_as_soon_as_a_breach_would_be() -> None:
    rules = Rules(down_windows=2, up_windows=5)
    here, quicker = outlook(1, 0.8), outlook(2, 0.7)
    here.missed, quicker.missed, quicker.work_s = 0.4, 0.0, 0.001
    own, taken = LadderState(climbs_s=tuple(map(float, range(CLIMBS_PER_HOUR)))), []  # it is not rationed
    for now_s in (100.0, 101.0, 102.0):
        verdict, own = hysteresis.climb(LADDER, own, here, quicker, rules, "accuracy-first", now_s)
        taken.append((verdict.action, verdict.target, verdict.binding))
    assert taken == [("stay", "", "headroom"), ("down", "c", "latency"), ("down", "c", "latency")]
    assert verdict.reason.startswith("40% predicted late; c is predicted to take 1.0 ms")
    own, above = LadderState(), outlook(0, 0.9)
    above.missed, above.work_s = 0.0, 0.001  # as quick, but a step up
    streak = []
    for now_s in range(100, 105):
        verdict, own = hysteresis.climb(LADDER, own, here, above, rules, "accuracy-first", float(now_s))
        streak.append(verdict.action)
    assert streak == ["stay"] * 4 + ["up"]


def test_a_queue_that_is_predicted_has_to_be_seen_before_a_step_is_taken_that_no_limit_asks_for() -> None:
    here, quicker = outlook(1, 0.8), outlook(2, 0.79)
    here.missed, quicker.missed, quicker.work_s = 0.04, 0.0, 0.001
    here.tests = ((0.0, 0.01, 0.05),)  # nothing would be late without waiting

    def taken(own: LadderState) -> str:
        for now_s in (100.0, 101.0, 102.0):
            verdict, own = climb(own, now_s, quicker, here)
        return verdict.action

    assert taken(LadderState()) == "stay"
    assert taken(LadderState(late=0.0, late_of=600)) == "stay", "none of 24 that were to be expected came"
    assert taken(LadderState(late=0.1, late_of=20)) == "stay", "two of twenty may be chance"
    assert taken(LadderState(late=0.03, late_of=600)) == "down"
    here.tests = ((0.04, 0.01, 0.05),)  # its work alone would be late
    assert taken(LadderState()) == "down"


def doubt(here: Outlook, own: LadderState | None = None, busy: float = 0.5, seen: Seen | None = None) -> str:
    ladder = LADDER if seen is None else msgspec.structs.replace(LADDER, seen=seen)
    return hysteresis.by_wait_alone(here, busy, own or LadderState(), ladder)


def waiting(missed: float = 0.2, alone: float = 0.0) -> Outlook:
    """A rung of which so many are predicted late, and so many of those without a wait; 5 % are allowed."""
    one = outlook(1, 0.8)
    one.missed, one.broken, one.tests = missed, "latency", ((alone, 0.01, 0.05),)
    return one


def test_a_queue_is_doubted_until_it_is_seen_or_known_how_evenly_requests_come() -> None:
    assert doubt(waiting()) == "20% predicted late as requests wait for each other; no answer tells yet"
    assert doubt(waiting(), LadderState(late=0.01, late_of=600)).endswith("1.0% of the last 600 were")
    assert doubt(waiting(), LadderState(dispersion_of=EVENNESS_OF - 1))
    assert doubt(waiting(), LadderState(dispersion_of=EVENNESS_OF)) == ""
    assert doubt(waiting(), LadderState(late=0.1, late_of=15)) == ""
    assert doubt(waiting(), LadderState(late=0.1, late_of=14))
    assert doubt(waiting(), seen=Seen(answers=10, window_answers=30, window_late=0.15)) == "", "the newest tell it"


def test_what_no_queue_explains_is_not_doubted() -> None:
    assert doubt(waiting(), busy=0.97)
    assert doubt(waiting(), busy=0.98) == "", "more come than can be answered"
    assert doubt(waiting(alone=0.05))
    assert doubt(waiting(alone=0.051)) == "", "late without a wait"
    hot = waiting()
    hot.broken = "temperature"
    assert doubt(hot) == ""
    proved = waiting()
    proved.failing = 0.1
    assert doubt(proved) == "", "measured"


def test_a_thriftier_rung_is_a_climb_wherever_it_stands() -> None:
    rules = Rules(down_windows=2, up_windows=5)
    here, thrifty = outlook(1, 0.8, joules=1.0), outlook(2, 0.7, joules=0.1)
    here.missed, thrifty.missed, thrifty.work_s = 0.04, 0.0, 0.001
    own, found = LadderState(), []
    for second in range(5):
        verdict, own = hysteresis.climb(LADDER, own, here, thrifty, rules, "energy-first", 100.0 + second)
        found.append((verdict.action, verdict.binding))
    assert found == [("stay", "headroom")] * 4 + [("down", "headroom")]


@pytest.mark.parametrize(
    ("late", "mode", "expected"),
    [
        (None, "accuracy-first", False),
        (0.15, "accuracy-first", False),  # 0.68 in time here, 0.70 there
        (0.5, "accuracy-first", True),
        (0.5, "throughput-first", False),
    ],
)
def test_many_more_in_time_are_told_by_the_newest_answers(late: float | None, mode: str, expected: bool) -> None:
    here, target = outlook(1, 0.8), outlook(2, 0.7)
    here.missed, target.missed = 0.9, 0.0
    ladder = msgspec.structs.replace(LADDER, seen=Seen(answers=20, window_answers=100, window_late=late))
    assert hysteresis.many_more(ladder, here, target, mode) is expected


# ------------------------------------------------------------------------------------------------ down


@pytest.mark.parametrize(
    ("flags", "ripe"), [((True,), False), ((True, True), True), ((True, False, True), True), ((False, True), False)]
)
def test_k_of_n(flags: tuple[bool, ...], ripe: bool) -> None:
    own = LadderState(flags={"latency": tuple((float(i), f) for i, f in enumerate(flags))})
    assert bool(hysteresis.ripe(own, [LATE], RULES)) is ripe


def test_what_is_not_broken_now_is_not_ripe() -> None:
    own = LadderState(flags={"latency": ((1.0, True), (2.0, True), (3.0, False))})
    passed = msgspec.structs.replace(LATE, broken=False)
    assert hysteresis.ripe(own, [passed], RULES) == []


@pytest.mark.parametrize(
    ("broken", "missed", "quantile", "expected"),
    [
        (None, 0.0, 0.95, False),
        ("latency", 0.10, 0.95, False),
        ("latency", 0.16, 0.95, True),
        ("latency", 0.16, 0.90, False),  # three times what is allowed
        ("latency", 0.31, 0.90, True),
        ("latency", 0.59, 0.50, False),
        ("latency", 0.61, 0.50, True),  # twice what is allowed cannot be
        ("temperature", None, 0.95, True),
        ("power", None, 0.95, True),
    ],
)
def test_what_is_certain(broken: str | None, missed: float | None, quantile: float, expected: bool) -> None:
    one = outlook(0)
    one.broken, one.missed = broken, missed  # type: ignore[assignment]
    ladder = msgspec.structs.replace(LADDER, limits=Limits(deadline_s=0.02, quantile=quantile))
    assert hysteresis.certain(one, ladder) is expected


def down(own: LadderState, now_s: float, target: Outlook, rules: Rules = RULES) -> Verdict:
    return hysteresis.down(LADDER, own, B, target, "why", "latency", rules, now_s, unforeseen=True)


def test_down_is_taken_after_two_periods_whatever_the_dwell() -> None:
    own = LadderState(active="b", since_s=100.0)
    early = down(own, 101.0, C, Rules(dwell_s=60))
    assert (early.action, early.target) == ("stay", "")
    assert "the last change was 1.0 s ago" in early.reason
    late = down(own, 102.0, C, Rules(dwell_s=60))
    assert (late.action, late.target, late.binding, late.unforeseen) == ("down", "c", "latency", True)
    assert down(own, 100.5, C, Rules(dwell_s=0)).target == "c"


def test_aside_to_a_rung_that_stands_above_is_up_by_name() -> None:
    assert down(LadderState(active="b"), 100.0, A).action == "up"


def test_nowhere_to_go_is_said() -> None:
    assert down(LadderState(active="b"), 100.0, B).reason == "why; no other rung that is allowed would ease that"


# ------------------------------------------------------------------------------------------------ up


def test_up_takes_a_row_of_safe_periods_for_the_same_rung() -> None:
    own, verdicts = LadderState(active="b"), []
    for second, target in enumerate((A, A, C, A, A, A)):
        verdict, own = climb(own, 100.0 + second, target)
        verdicts.append(verdict.target)
    assert verdicts == ["", "", "", "", "", "a"]


def test_up_waits_for_the_dwell_from_the_last_change() -> None:
    own = LadderState(active="b", since_s=100.0, streak=50, streak_for="a")
    verdict, own = climb(own, 104.9)
    assert (verdict.action, verdict.binding) == ("stay", "dwell")
    verdict, own = climb(own, 105.0)
    assert (verdict.action, verdict.target, verdict.binding) == ("up", "a", "headroom")


def test_up_is_rationed() -> None:
    own = LadderState(active="b", streak=50, streak_for="a", climbs_s=tuple(map(float, range(CLIMBS_PER_HOUR))))
    verdict, _ = climb(own, 1000.0)
    assert (verdict.target, verdict.binding) == ("", "climbs")


@pytest.mark.parametrize(
    ("arrivals_per_s", "stay_s", "taken"), [(5.0, 60.0, False), (5.0, 900.0, True), (0.0, 60.0, True)]
)
def test_up_must_be_worth_its_opening(arrivals_per_s: float, stay_s: float, taken: bool) -> None:
    """10 points for as long as stays last, against half of all answers for the 20 s that it takes to open it."""
    dear = outlook(0, 0.9, resident=False, load_s=20.0)
    own = LadderState(
        active="b", since_s=990.0, streak=50, streak_for="a", arrivals_per_s=arrivals_per_s, stay_s=stay_s
    )
    verdict, _ = climb(own, 1000.0, dear)
    assert (verdict.target == "a") is taken
    assert (verdict.binding == "cost") is not taken


def test_a_rung_that_is_open_costs_nothing() -> None:
    own = LadderState(active="b", streak=50, streak_for="a", arrivals_per_s=100.0, stay_s=1.0)
    verdict, _ = climb(own, 1000.0, outlook(0, 0.9, resident=True, load_s=20.0))
    assert verdict.target == "a"


def test_the_streak_does_not_grow_for_ever() -> None:
    own = LadderState(active="b", since_s=1e9, streak=999, streak_for="a")
    for _ in range(5):
        _, own = climb(own, 1e9)
    assert own.streak == hysteresis.LONGEST_STREAK


def test_the_least_of_evils_is_told_as_such_even_of_an_unknown_rung() -> None:
    one = outlook(0)
    one.broken = "latency"
    assert hysteresis.expected(one, LADDER).endswith(": the least of the evils")
    one.work_s = None
    assert hysteresis.expected(one, LADDER).endswith("not known yet: the least of the evils")
