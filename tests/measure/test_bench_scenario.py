"""Load in the four scenarios: how many, how far apart, from when latency counts, and what becomes of errors."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import pytest

from flyball.errors import WorkerError
from flyball.ladder.profile import Scenario
from flyball.measure.scenario import MOST_ERRORS, PER_QUERY, Load, arrivals, drive
from flyball.testing import FakeClock

RUN_S = 1 / 128  # exact in binary, so that 128 of them are 1 s


class Answering:
    """Every inference takes RUN_S of the fake clock; `in_flight` at once are one after the other."""

    def __init__(self, clock: FakeClock, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.clock = clock
        self.asked: list[int] = []
        self.most_at_once = 0
        self._fails = fails
        self._at_once = 0

    async def __call__(self, number: int) -> object:
        self.asked.append(number)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0)
        self.clock.advance(RUN_S)
        self._at_once -= 1
        if self._fails(number):
            raise WorkerError("it broke")
        return None


def driven(scenario: Scenario, answering: Answering, seconds: float = 1.0, in_flight: int = 1) -> Load:
    async def run() -> Load:
        now = answering.clock.monotonic_s
        return await drive(scenario, answering, seconds, now, asyncio.Event(), in_flight=in_flight)

    return asyncio.run(run())


def test_single_asks_one_after_the_other() -> None:
    answering = Answering(FakeClock())
    load = driven("single", answering)
    assert load.latencies_s == [RUN_S] * 128
    assert load.inferences == load.per_s == 128
    assert answering.most_at_once == 1
    assert answering.asked == list(range(len(answering.asked)))


def test_a_query_of_eight_is_over_with_the_last_of_them() -> None:
    answering = Answering(FakeClock())
    load = driven("multi", answering)
    assert PER_QUERY == 8
    assert answering.most_at_once == 8
    assert load.latencies_s == [8 * RUN_S] * 16
    assert load.inferences == load.per_s == 128
    assert sorted(answering.asked) == list(range(128))


def test_offline_keeps_so_many_in_flight() -> None:
    answering = Answering(FakeClock())
    load = driven("offline", answering, in_flight=4)
    assert answering.most_at_once == 4
    assert sorted(answering.asked) == list(range(len(answering.asked))), "every number once"
    assert load.per_s == pytest.approx(128, rel=0.05), "they share the one processor"


def test_errors_are_counted_and_no_latency_is_made_of_them() -> None:
    load = driven("single", Answering(FakeClock(), fails=lambda number: number % 4 == 3))
    assert load.errors == {"it broke": 32}
    assert load.inferences == len(load.latencies_s) == 96


def test_a_query_with_one_failed_inference_has_no_latency() -> None:
    load = driven("multi", Answering(FakeClock(), fails=lambda number: number == 3))
    assert load.errors == {"it broke": 1}
    assert len(load.latencies_s) == 15
    assert load.inferences == 127


@pytest.mark.parametrize("scenario", ["single", "multi", "offline"])
def test_a_rung_that_only_fails_is_given_up(scenario: Scenario) -> None:
    load = driven(scenario, Answering(FakeClock(), fails=lambda _: True), seconds=1e6)
    assert MOST_ERRORS <= load.errors.total() < MOST_ERRORS + 8
    assert load.inferences == 0
    assert load.per_s == 0


def test_stop_ends_a_run_with_what_there_is() -> None:
    async def run() -> Load:
        stop, answering = asyncio.Event(), Answering(FakeClock())

        async def ask(number: int) -> object:
            if number == 9:
                stop.set()
            return await answering(number)

        return await drive("single", ask, 1e6, answering.clock.monotonic_s, stop)

    load = asyncio.run(run())
    assert load.inferences == len(load.latencies_s) == 10


# --------------------------------------------------------------------------------------------------------- server


def test_arrivals_are_poisson_and_the_seed_says_which() -> None:
    times = arrivals(200, 100, seed=3)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert statistics.fmean(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(1, rel=0.03), "as an exponential law has it"
    assert times == sorted(times)
    assert times[-1] < 100
    assert arrivals(200, 100, seed=3) == times != arrivals(200, 100, seed=4)


@pytest.mark.parametrize(("rate_per_s", "seconds"), [(0.0, 30.0), (-1.0, 30.0), (1e9, 30.0)])
def test_a_rate_that_is_none(rate_per_s: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="arrivals"):
        arrivals(rate_per_s, seconds, 0)


def served(ask: Callable[[int], Awaitable[object]], seconds: float, stop_after: int | None = None) -> Load:
    async def run() -> Load:
        stop = asyncio.Event()

        async def counted(number: int) -> object:
            if number == stop_after:
                stop.set()
            return await ask(number)

        return await drive("server", counted, seconds, time.monotonic, stop, rate_per_s=400, seed=7)

    return asyncio.run(run())


def test_every_arrival_is_asked_for_whether_or_not_those_before_are_answered() -> None:
    asked: list[int] = []
    together = 0

    async def ask(number: int) -> object:
        nonlocal together
        asked.append(number)
        waiting = len(asked) - together
        if waiting < 20:
            await asyncio.sleep(0.05)
        together += 1
        return None

    load = served(ask, 0.5)
    assert asked == list(range(len(arrivals(400, 0.5, 7))))
    assert load.inferences == len(load.latencies_s) == len(asked)
    assert load.duration_s >= 0.5, "the window counts to its end, though nothing arrives just then"


def test_latency_counts_from_when_a_query_was_due() -> None:
    async def ask(number: int) -> object:
        if number == 0:
            time.sleep(0.2)  # noqa: ASYNC251 - nothing can be asked meanwhile: those that were due wait
        return None

    load = served(ask, 0.3)
    late = [latency_s for latency_s in load.latencies_s if latency_s > 0.05]
    due_meanwhile = [t_s for t_s in arrivals(400, 0.3, 7) if t_s < arrivals(400, 0.3, 7)[0] + 0.15]
    assert len(late) >= len(due_meanwhile), "all of them, not the first alone"


def test_the_server_scenario_stops_when_told() -> None:
    async def ask(_: int) -> object:
        return None

    load = served(ask, 600.0, stop_after=20)
    assert 21 <= load.inferences < 200
    assert load.duration_s < 60


def test_the_server_scenario_gives_up_when_everything_fails() -> None:
    async def ask(_: int) -> object:
        raise WorkerError("it broke")

    load = served(ask, 600.0)
    assert load.errors.total() >= MOST_ERRORS
    assert load.duration_s < 60
