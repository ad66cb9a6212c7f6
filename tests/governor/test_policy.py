"""The law in scenarios: what it does, when, and what it says."""

import itertools
from dataclasses import replace

from simulated_plant import LADDER, MIB, Model, Plant

from flyball import config
from flyball.config import Config
from flyball.config import Governor as Rules
from flyball.governor.constraints import check
from flyball.governor.policy import choose
from flyball.governor.state import CLIMBS_PER_HOUR
from flyball.governor.values import Limits, Observation


def moves(plant: Plant, seconds: float) -> list[tuple[str, str]]:
    return [(d.source, d.target) for d in plant.run(seconds)]


def test_stays_at_the_strongest_rung_while_the_limits_hold() -> None:
    plant = Plant()
    assert moves(plant, 300) == []
    assert plant.log[-1].reason == "the limits hold at the strongest rung"
    assert plant.log[-1].binding == ""


def test_steps_down_within_seconds_and_says_why() -> None:
    plant = Plant()
    plant.run(30)
    plant.contended = True
    (change,) = plant.run(5)
    assert (change.action, change.source, change.binding) == ("down", "a", "latency")
    assert change.t_s - 30 == 2  # the second broken period
    assert change.reason == (
        "latency p95 62.0 ms over the limit 18.0 ms in 2 of the last 3 periods; c is predicted at 8.5 ms"
    )
    assert [(c.rung, bool(c.ruled_out_by)) for c in change.candidates] == [("a", True), ("b", True), ("c", False)]
    assert change.candidates[1].ruled_out_by == "latency: predicted 28.2 ms, limit 18.0 ms"
    assert change.inputs["limit_latency_p95_s"] == 0.018


def test_one_broken_period_of_three_is_not_enough() -> None:
    plant = Plant()
    plant.run(30)
    plant.contended = True
    assert "in 1 of the last 3 periods" in plant.step().reason
    plant.contended = False
    assert moves(plant, 30) == []


def test_the_strongest_rung_that_is_predicted_to_fit_is_chosen() -> None:
    plant = Plant(limits=Limits(latency_p95_s=0.030))
    plant.run(30)
    plant.contended = True
    (change,) = plant.run(5)
    assert change.target == "b"


def test_without_a_profile_the_next_rung_is_tried() -> None:
    plant = Plant()
    plant.run(30)
    plant.contended = True
    plant.step()
    plant.now_s += 1
    view = plant.view()
    unmeasured = replace(view, rungs=tuple(replace(r, profiled_p50_s=None) for r in view.rungs))
    decision, _ = choose(unmeasured, plant.limits, plant.rules, plant.state)
    assert (decision.action, decision.target) == ("down", "b")
    assert decision.reason.endswith("b is next, its latency here is not known yet")


def test_no_weaker_rung_fits_then_the_weakest_that_eases_it() -> None:
    plant = Plant(limits=Limits(latency_p95_s=0.001))
    (first, *_) = plant.run(30)
    assert first.target == "c"
    assert first.reason.endswith("c is predicted at 1.8 ms, the weakest that eases it")
    plant.run(60)
    assert plant.log[-1].reason.endswith("no weaker rung that is allowed would ease that")
    assert plant.log[-1].binding == "latency"


def test_a_rung_that_is_slower_here_is_not_stepped_down_to() -> None:
    slow_int8 = (LADDER[0], replace(LADDER[1], calm_s=0.020), LADDER[2])
    plant = Plant(models=slow_int8)
    plant.run(30)
    plant.contended = True
    assert moves(plant, 5) == [("a", "c")]
    plant.contended = False
    (back,) = plant.run(60)
    assert back.target == "a"  # nor climbed to, since the stronger one outruns it
    assert back.candidates[1].ruled_out_by == "a is stronger and no slower"


def test_does_not_climb_while_the_processors_are_as_busy_as_at_the_breach() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    plant.contended = True
    plant.run(5)
    assert moves(plant, 25) == []  # though c runs as if nothing were the matter
    held = plant.log[-1]
    assert held.binding == "latency"
    assert "a is next: latency: left" in held.reason
    assert "at 62.0 ms; processors 97% busy, 97% after that; considered again in" in held.reason


def test_climbs_soon_after_the_load_has_gone() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    plant.contended = True
    plant.run(25)
    plant.contended = False
    ended_s = plant.now_s
    (back,) = plant.run(60)
    assert back.target == "a"
    assert back.t_s - ended_s <= plant.rules.up_windows
    assert back.reason == (
        "a is predicted at 13.2 ms; safe in 10 of 10 periods; "
        "the processors are clearly less busy than when it was left"
    )
    assert moves(plant, 600) == []


def test_probes_wait_twice_as_long_after_every_failure() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.contended = True
    ups = [d.t_s for d in plant.run(3600) if d.action == "up"]
    waits = [round(b - a) for a, b in itertools.pairwise(ups)]
    assert len(ups) <= 8
    assert all(b > a for a, b in itertools.pairwise(waits[:5])), waits
    assert max(waits) <= 900 + 60  # and never longer than the limit plus what a probe takes


def test_a_load_that_ends_after_failed_probes_is_still_believed() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.contended = True
    plant.run(600)
    while plant.active != "c" or plant.now_s - plant.state.since_s < 30:
        plant.step()
    plant.contended = False
    assert moves(plant, 15) == [("c", "a")]


def test_utilization_that_misled_is_not_believed_again() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    ups = []
    for _ in range(3600):
        # A load that pauses a while after every step down, and comes back with the climb.
        plant.contended = plant.active == "a" or plant.now_s - plant.state.since_s < 12
        plant.step()
        if plant.log[-1].action == "up":
            ups.append(plant.now_s)
    assert len(ups) <= 10


def test_a_load_that_sets_in_slowly_does_not_forbid_the_way_back() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.run(30)
    plant.stretch = 1.3  # within the limit, but not within its headroom
    plant.run(3)
    plant.stretch, plant.contended = 1.0, True
    plant.run(20)
    plant.contended = False
    assert moves(plant, 30) == [("c", "a")]


def test_without_utilization_only_the_wait_counts() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]), cpu_known=False)
    plant.contended = True
    plant.run(20)
    down_s = plant.state.since_s
    plant.contended = False
    (back,) = plant.run(100)
    assert back.t_s - down_s >= plant.rules.climb_backoff_s
    assert back.reason.endswith("the wait since it was left is over")


def test_no_answers_is_neither_good_nor_bad_news() -> None:
    plant = Plant(models=(LADDER[0], LADDER[2]))
    plant.contended = True
    plant.run(20)
    assert plant.active == "c"
    plant.contended, plant.answers = False, 0
    assert moves(plant, 300) == []
    assert plant.log[-1].reason == "no new answers: latency is unknown, which speaks for nothing"
    plant.answers = 50
    assert moves(plant, 30) == [("c", "a")]


def test_never_below_the_accuracy_floor() -> None:
    plant = Plant(floor=0.85)
    plant.contended = True
    assert moves(plant, 60) == [("a", "b")]
    plant.limits = Limits(latency_p95_s=0.010)
    plant.run(60)
    stuck = plant.log[-1]
    assert plant.active == "b"
    assert stuck.reason.endswith("no weaker rung that is allowed would ease that")
    assert stuck.candidates[2].ruled_out_by == "accuracy 0.8 is below the ladder's floor 0.85"


def test_leaves_a_rung_below_the_floor_that_it_finds_active() -> None:
    plant = Plant(active="c", floor=0.85)
    (first, *_) = plant.run(30)
    assert (first.target, first.binding) == ("b", "accuracy")


def test_unusable_and_failed_rungs_are_passed_over() -> None:
    plant = Plant(unusable=frozenset("b"), limits=Limits(latency_p95_s=0.030))
    plant.contended = True
    (change,) = plant.run(30)
    assert change.target == "c"
    assert change.candidates[1].ruled_out_by == "it broke"


def test_a_failed_rung_is_tried_again_after_a_while() -> None:
    plant = Plant(active="c", failed=frozenset("b"), unusable=frozenset("a"))
    assert moves(plant, plant.rules.climb_backoff_s - 1) == []
    assert "it failed (it broke); tried again in" in plant.log[-1].candidates[1].ruled_out_by
    assert moves(plant, 30) == [("c", "b")]


def test_a_refused_switch_is_left_alone_for_longer_every_time() -> None:
    plant = Plant(active="c", unusable=frozenset("a"), refusing=frozenset("b"))
    tries = [d.t_s for d in plant.run(2000) if d.action == "up"]
    waits = [b - a for a, b in itertools.pairwise(tries)]
    assert len(tries) > 3
    assert waits == sorted(waits)
    assert waits[1] > waits[0] * 1.5


def test_a_rung_that_the_engine_asks_to_leave_alone_is_passed_over() -> None:
    plant = Plant(active="c", unusable=frozenset("a"), leave_alone_s={"b": 40.0})
    assert moves(plant, 60) == []
    assert plant.log[-1].candidates[1].ruled_out_by == (
        "it failed (no reason given); the engine asks to leave it alone for another 40 s"
    )
    plant.leave_alone_s.clear()
    assert moves(plant, 60) == [("c", "b")]


def test_heat_steps_down_before_the_limit_and_climbs_after_it_cooled() -> None:
    plant = Plant(limits=Limits(temperature_c=80.0), temp_c=70.0)  # a settles at 85 C, b at 65 C
    down, *_ = plant.run(120)
    assert (down.source, down.target, down.binding) == ("a", "b", "temperature")
    assert "(cpu) within 5 °C of the limit 80.0 °C" in down.reason
    assert max(d.inputs["temperature_c"] for d in plant.log) < 80
    changes = plant.run(3600)
    assert 0 < len(changes) < 16  # it climbs again, and waits longer when that was too early
    assert max(d.inputs["temperature_c"] for d in plant.log) < 80


def test_heat_is_given_time_to_leave() -> None:
    plant = Plant(limits=Limits(temperature_c=80.0), temp_c=79.0)
    plant.run(120)
    assert plant.active == "b"
    assert any(d.reason.endswith("and falling since the last step down") for d in plant.log)


def test_short_memory_steps_down_to_a_smaller_rung() -> None:
    bigger_b = (LADDER[0], replace(LADDER[1], rss_mib=200.0), LADDER[2])
    plant = Plant(models=bigger_b, limits=Limits(memory_available_bytes=64 * MIB), memory_mib=50.0)
    (change,) = plant.run(20)
    assert change.target == "c"
    assert change.reason.startswith("available memory 50 MiB under the limit 64 MiB in 3 of the last 3 periods")
    assert change.candidates[1].ruled_out_by == "memory: takes 200 MiB, no less than a"
    plant.memory_mib = 100.0
    assert moves(plant, 200) == []  # a would leave less than nothing
    assert "memory: would leave 0 MiB available" in plant.log[-1].candidates[0].ruled_out_by
    plant.memory_mib = 400.0
    assert plant.run(200)[-1].target == "a"


def test_a_rung_on_standby_takes_no_more_memory() -> None:
    plant = Plant(active="b", limits=Limits(memory_available_bytes=64 * MIB), memory_mib=100.0)
    assert moves(plant, 60) == []
    plant.standby = frozenset("a")
    assert moves(plant, 60) == [("b", "a")]


def test_climbs_only_when_it_is_a_margin_cooler_than_where_it_steps_down() -> None:
    plant = Plant(active="b", limits=Limits(temperature_c=80.0))
    plant.temp_c, plant.ambient_c = 72.0, 32.0  # b holds it there
    assert moves(plant, 120) == []
    assert plant.log[-1].candidates[0].ruled_out_by == "temperature: 72.0 °C, climbs up to 70.0 °C"
    plant.temp_c, plant.ambient_c = 69.0, 29.0
    assert plant.run(15)[0].target == "a"


def test_a_late_answer_that_still_stands_in_the_window_breaks_nothing() -> None:
    limits, rules = Limits(latency_p95_s=0.018), Rules()
    (passed,) = check(Observation(p95_s=0.031, newest_p95_s=0.009), limits, rules)
    (lasting,) = check(Observation(p95_s=0.031, newest_p95_s=0.031), limits, rules)
    (unknown,) = check(Observation(p95_s=0.031), limits, rules)
    assert [passed.broken, lasting.broken, unknown.broken] == [False, True, None]


def test_no_active_rung_is_explained() -> None:
    plant = Plant()
    view = replace(plant.view(), active=None, error="no rung could be opened")
    decision, state = choose(view, plant.limits, plant.rules, plant.state)
    assert decision.reason == "no rung is active: no rung could be opened"
    assert (decision.source, decision.target, state.active) == ("", "", "")


def test_never_twice_within_the_dwell_time() -> None:
    plant = Plant(limits=Limits(latency_p95_s=0.001), rules=Rules(dwell_s=40))
    changes = plant.run(3600)
    times = [d.t_s for d in changes]
    assert all(b - a >= 40 for a, b in itertools.pairwise(times))


def test_climbs_are_rationed_by_the_hour() -> None:
    eager = Rules(dwell_s=0, climb_backoff_s=0, climb_backoff_max_s=0, up_windows=1, down_windows=1, of_windows=1)
    plant = Plant(models=(LADDER[0], LADDER[2]), rules=eager, contended=True)
    ups = [d for d in plant.run(3600) if d.action == "up"]
    assert len(ups) == CLIMBS_PER_HOUR
    assert plant.log[-1].binding in ("climbs", "latency")


def test_limits_of_a_ladder_win_key_by_key() -> None:
    settings = Config(
        governor=Rules(limits=config.Limits(temperature_c=70, latency_p95_ms=100)),
        ladder={"x": config.LadderSettings(limits=config.LadderLimits(latency_p95_ms=20))},
    )
    assert Limits.of(settings, "x") == Limits(latency_p95_s=0.02, temperature_c=70, memory_available_bytes=64 * MIB)
    assert Limits.of(settings, "y").latency_p95_s == 0.1


def test_one_model_alone_has_nowhere_to_go() -> None:
    plant = Plant(models=(Model(name="a", calm_s=0.5),))
    assert moves(plant, 60) == []
    assert plant.log[-1].reason.endswith("no weaker rung that is allowed would ease that")
