"""What is expected of rungs that did not run beside what runs now: from their neighbours, and from themselves."""

import pytest

from flyball.governor import estimator
from flyball.governor.estimator import SlowDown
from flyball.governor.outlook import Scene, outlooks
from flyball.governor.state import LadderState
from flyball.governor.values import LadderView, Rung

WORK_S = {"large": 0.008, "middle": 0.004, "small": 0.002}
RUNGS = tuple(Rung(name=name, accuracy=0.9, work_s=work_s, spread=0.1) for name, work_s in WORK_S.items())
NOW_S = 30.0


def taught(rung: str, *factors: tuple[float, float]) -> SlowDown:
    """(contention, factor), each seen often."""
    slow = SlowDown()
    for contention, factor in factors:
        for second in range(30):
            slow = estimator.observe(
                slow, WORK_S[rung], contention, estimator.Sample(factor, 0.05 * factor, 10), float(second)
            )
    return slow


def factors(contention: float, slow: dict[str, SlowDown], now_s: float = NOW_S) -> dict[str, float]:
    own = LadderState(active="small", slow={f"{rung}@cpu": its for rung, its in slow.items()}, arrivals_per_s=1.0)
    around = Scene(
        now_s=now_s, contention=contention, clock=1.0, cpus=2, base_w=None, available_bytes=None, exhausted_s=None
    )
    found = outlooks(LadderView(name="x", active="small", rungs=RUNGS), own, around)
    return {o.rung.name: (o.work_s or 0.0) / WORK_S[o.rung.name] for o in found}


ENDS = {"large": taught("large", (4.0, 5.0)), "small": taught("small", (4.0, 1.4))}


def test_a_rung_that_never_ran_here_is_expected_between_its_neighbours() -> None:
    """Half way by the logarithm of the work."""
    assert factors(4.0, ENDS)["middle"] == pytest.approx((5.0 + 1.4) / 2, rel=0.05)


def test_one_that_suffered_less_contention_more_than_they_do_now_is_expected_to_suffer_more() -> None:
    suffering = ENDS | {"middle": taught("middle", (0.0, 1.0), (1.0, 3.9))}
    assert factors(4.0, suffering)["middle"] > 3.9


def test_one_that_was_seen_at_rest_only_is_still_expected_between_its_neighbours() -> None:
    at_rest = ENDS | {"middle": taught("middle", (0.0, 1.1))}
    assert factors(4.0, at_rest)["middle"] == pytest.approx((5.0 + 1.4) / 2, rel=0.05)


def test_what_it_suffered_a_little_more_than_they_do_now_is_no_reason_against_them() -> None:
    """Rungs on an accelerator hardly notice the processor: 4 % at rest must not make it one that suffers in full."""
    calm = {"large": taught("large", (4.0, 1.01)), "small": taught("small", (4.0, 1.02))}
    assert factors(4.0, calm | {"middle": taught("middle", (0.0, 1.04))})["middle"] == pytest.approx(1.015, rel=0.02)


def test_what_nobody_counted_at_rest_is_forgotten_here_too() -> None:
    """Another user of its accelerator, say, half an hour ago."""
    hidden = ENDS | {"middle": taught("middle", (0.0, 5.0))}
    assert factors(4.0, hidden)["middle"] > 4.9
    assert factors(4.0, hidden, NOW_S + 1800.0)["middle"] == pytest.approx((5.0 + 1.4) / 2, rel=0.05)


def test_without_two_that_enclose_it_its_own_past_counts() -> None:
    assert factors(4.0, {"middle": taught("middle", (1.0, 3.9))})["middle"] > 3.9
