"""A sensor's state: worse at once, better after three reads, told once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flyball.sensing.track import RETRY_ABSENT_S, RETRY_FAILED_MAX_S, Change, Outcome, Track

OK = Outcome(state="ok")
PARTLY = Outcome(state="ok", reason="one rail")
FAILED = Outcome(state="failed", reason="EIO")
ABSENT = Outcome(state="unavailable", reason="not here")


class Run:
    """A track read once a second."""

    def __init__(self) -> None:
        self.track = Track("x", period_s=1.0, stale_after_s=5.0)
        self.now_s = 100.0

    def read(self, outcome: Outcome, cost_s: float = 0.001) -> Change | None:
        self.now_s += 1
        self.track.begin(self.now_s)
        self.now_s += cost_s
        return self.track.finish(self.now_s, outcome)

    def state(self) -> str:
        return self.track.health(self.now_s).state


def kinds(run: Run, outcomes: list[Outcome]) -> list[str]:
    return [change.kind for change in map(run.read, outcomes) if change]


def test_a_sensor_that_was_never_here_is_no_loss() -> None:
    run = Run()
    assert run.state() == "unavailable"
    assert kinds(run, [ABSENT, ABSENT]) == []
    assert (run.state(), run.track.wait_s()) == ("unavailable", RETRY_ABSENT_S)


def test_a_sensor_that_comes_later_is_found_at_once() -> None:
    assert kinds(Run(), [ABSENT, OK, OK, OK]) == ["found"]
    assert kinds(Run(), [OK, OK]) == []


def test_a_loss_is_told_once_and_the_return_after_three_reads() -> None:
    run = Run()
    assert kinds(run, [OK, FAILED, FAILED, FAILED]) == ["lost"]
    assert run.state() == "failed"
    assert kinds(run, [OK, OK]) == []
    assert run.state() == "ok"
    assert kinds(run, [OK, OK]) == ["found"]


def test_hardware_that_goes_away_is_lost() -> None:
    run = Run()
    assert kinds(run, [OK, ABSENT, ABSENT, OK, OK, OK]) == ["lost", "found"]


def test_a_sensor_that_comes_and_goes_is_told_of_once() -> None:
    assert kinds(Run(), [OK] + [FAILED, OK, OK] * 50) == ["lost"]


def test_part_failures_count_and_do_not_lose_the_sensor() -> None:
    run = Run()
    assert kinds(run, [OK, PARTLY, PARTLY]) == ["partly"]
    health = run.track.health(run.now_s)
    assert (health.state, health.reason, health.reads, health.failures) == ("ok", "one rail", 3, 2)
    assert run.track.wait_s() == 0
    assert kinds(run, [OK, OK, OK]) == ["whole"]


def test_a_failing_sensor_is_asked_ever_more_rarely() -> None:
    run, waits = Run(), []
    for _ in range(40):
        run.read(FAILED)
        waits.append(run.track.wait_s())
    assert waits[:5] == [0, 0, 0, 2, 4]
    assert max(waits) == waits[-1] == RETRY_FAILED_MAX_S
    run.read(OK)
    assert run.track.wait_s() == 0


def test_a_read_that_hangs_is_stale_and_told_once() -> None:
    run = Run()
    run.read(OK)
    run.track.begin(run.now_s)
    assert run.track.check(run.now_s + 4.9) is None
    change = run.track.check(run.now_s + 5.1)
    assert change is not None
    assert (change.kind, change.state) == ("lost", "stale")
    assert run.track.check(run.now_s + 60) is None
    assert "has not come back" in run.track.health(run.now_s + 60).reason
    run.now_s += 60
    assert run.track.finish(run.now_s, OK) is None
    assert run.state() == "stale"  # what it brought is a minute old
    assert kinds(run, [OK, OK, OK]) == ["found"]
    assert run.state() == "ok"


def test_a_first_read_that_hangs_is_stale_too() -> None:
    run = Run()
    run.track.begin(run.now_s)
    assert run.track.check(run.now_s + 6) is not None
    assert run.track.health(run.now_s + 6).state == "stale"


def test_a_sensor_that_is_always_too_slow_is_lost_for_good() -> None:
    run = Run()
    assert [change.kind for change in (run.read(OK, cost_s=8) for _ in range(10)) if change] == ["lost"]


@given(st.lists(st.sampled_from([OK, PARTLY, FAILED, ABSENT]), max_size=80))
def test_losses_and_returns_alternate(outcomes: list[Outcome]) -> None:
    run = Run()
    told = [kind for kind in kinds(run, outcomes) if kind in ("lost", "found")]
    if outcomes and outcomes[0] is ABSENT and told[:1] == ["found"]:
        told = told[1:]
    assert all(a != b for a, b in pairwise(told))
    assert told[:1] in ([], ["lost"])
    health = run.track.health(run.now_s)
    assert health.reads == len(outcomes)
    assert health.failures == sum(o in (PARTLY, FAILED) for o in outcomes)
