"""A deadline that many answers may miss: what counts is how many are right and in time, for an hour of bursts."""

import msgspec

from flyball.governor.replay import profiles, run, standard
from flyball.governor.replay.run import Run
from flyball.governor.replay.trace import Trace

MODELS = profiles.STAND_INS["mobilenets"]
BURST_S, EVERY_S = 40, 100


def bursts(contention: float, minutes: int) -> Trace:
    """The first 60 s of every 100 are calm."""
    made = standard.standard("steady", "mobilenets", MODELS, seed=1)
    steps = tuple(
        msgspec.structs.replace(
            made.steps[i % len(made.steps)],
            t_s=float(i),
            contention=contention * (1.0 + 0.1 * (i % 3 - 1)) if i % EVERY_S >= EVERY_S - BURST_S else 0.0,
        )
        for i in range(minutes * 60)
    )
    limits = msgspec.structs.replace(made.header.limits, quantile=0.5)
    return Trace(header=msgspec.structs.replace(made.header, limits=limits), steps=steps)


def in_time(one: Run, begin_s: int, end_s: int) -> float:
    """Right answers in time, as a share of the arrivals."""
    periods = one.periods[begin_s:end_s]
    return sum(p.accuracy_on_time for p in periods) / sum(p.arrivals for p in periods)


def asked(policy: str, trace: Trace) -> Run:
    return run.run(trace, run.policy(policy, trace))


def test_an_hour_of_bursts_does_not_use_up_the_steps_down() -> None:
    trace = bursts(1.5, 60)
    governed, held = asked("governor", trace), asked("static:v1_0.75_192", trace)
    for begin_s in range(0, 3000, 600):
        assert in_time(governed, begin_s, begin_s + 600) > in_time(held, begin_s, begin_s + 600) + 0.01


def test_a_burst_that_makes_most_answers_late_is_met_whatever_the_hundreds_before_it_say() -> None:
    """More than half are late there, and it stays within 60 % as often as not."""
    governed = asked("governor", bursts(2.0, 10))
    for burst in range(6):
        begin = burst * EVERY_S + EVERY_S - BURST_S
        assert MODELS[0].name not in {p.rung for p in governed.periods[begin + 12 : begin + BURST_S]}


def test_a_climb_that_a_step_for_more_answers_in_time_takes_back_has_failed() -> None:
    """Contention that stays where both rungs are worth the same: what was wanted comes and goes with chance."""
    made = bursts(0.0, 20)
    steps = tuple(msgspec.structs.replace(s, contention=0.55 * (1.0 + 0.1 * (i % 3 - 1)))
                  for i, s in enumerate(made.steps))  # fmt: skip
    changes = asked("governor", Trace(header=made.header, steps=steps)).changes
    assert len(changes) <= 20
