"""Orders against a journal in memory: what is written when, and what is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from device_side import until

from flyball.errors import StateError, WorkerError
from flyball.events import Event, Events
from flyball.testing import FakeClock
from flyball.uplink.commands import Handler, Order, Row
from flyball.uplink.execution import MOST_RESULT_BYTES, MOST_WAITING, Execution
from flyball.uplink.stamp import Stamper

pytestmark = pytest.mark.anyio


class NoArgs(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Text(msgspec.Struct):
    text: str


class MemoryJournal:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.broken = False

    async def admit(self, row: Row) -> Row | None:
        known = self.rows.get(row.id)
        if known is None:
            await self.put(row)
        return known

    async def put(self, row: Row) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StateError("disk full")
        self.rows[row.id] = row

    async def open_orders(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows.values() if not r.final() or r.told < r.rev)


class Bench:
    def __init__(self, journal: MemoryJournal | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.clock = FakeClock()
        self.told: list[Row] = []
        self.acknowledged: list[str] = []
        self.events: list[Event] = []
        self.gate = asyncio.Event()
        self.ran = 0
        self.effect = True
        bus = Events()
        bus.subscribe(self.events.append)
        self.execution = Execution(
            handlers={
                name: Handler(name=name, args=NoArgs, run=run)
                for name, run in {
                    "wait": self._wait, "fail": self._fail, "crash": self._crash, "long": self._long,
                    "steps": self._steps,
                }.items()
            }
            | {
                "seen": Handler(name="seen", args=NoArgs, run=self._seen, on_restart="verify", verify=self._look),
                "again": Handler(name="again", args=NoArgs, run=self._wait, on_restart="resume"),
            },
            allowed=("wait", "fail", "crash", "long", "steps", "seen", "again"),
            journal=self.journal,
            tell=self.told.append,
            events=bus,
            stamper=Stamper(self.clock, "b", lambda: True),
        )  # fmt: skip

    async def _wait(self, _: NoArgs, _order: Order) -> Text:
        self.ran += 1
        await self.gate.wait()
        return Text("done")

    async def _fail(self, _: NoArgs, _order: Order) -> None:
        raise WorkerError("the worker died")

    async def _crash(self, _: NoArgs, _order: Order) -> None:
        raise KeyError("oops")

    async def _long(self, _: NoArgs, _order: Order) -> Text:
        return Text("x" * MOST_RESULT_BYTES)

    async def _steps(self, _: NoArgs, order: Order) -> None:
        for number in range(100):
            await order.step("one", number / 100)
        await order.step("two")
        await self.gate.wait()

    async def _seen(self, _: NoArgs, order: Order) -> Text:
        await order.verifying("on its way")
        self.ran += 1
        await self.gate.wait()
        return Text("ran")

    async def _look(self, _: NoArgs) -> Text:
        if not self.effect:
            raise WorkerError("nothing of it is to be seen")
        return Text("seen")

    async def order(self, id: str, kind: str = "wait", payload: bytes = b"{}") -> None:
        await self.execution.receive(kind, id, payload, None, lambda: self.acknowledged.append(id))

    def states(self, id: str) -> list[str]:
        return [r.state for r in self.told if r.id == id]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.execution.work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_every_state_is_written_before_it_is_told() -> None:
    bench = Bench()
    order: list[tuple[str, str]] = []
    put, tell = bench.journal.put, bench.told.append

    async def put_and_note(row: Row) -> None:
        await put(row)
        order.append(("written", row.state))

    bench.journal.put = put_and_note  # type: ignore[method-assign]
    bench.execution._tell = lambda row: (order.append(("told", row.state)), tell(row))[1]
    async with bench.working():
        bench.gate.set()
        await bench.order("c1")
        await until(lambda: "successful" in bench.states("c1"))
    steps = ["received", "accepted", "executing", "successful"]
    assert order == [(what, step) for step in steps for what in ("written", "told")]
    assert [r.rev for r in bench.told] == [1, 2, 3, 4]
    assert bench.told[-1].result == b'{"text":"done"}'


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("fail", "the worker died"), ("crash", "internal error: KeyError: 'oops'"), ("long", "internal error")],
)
async def test_a_handler_that_fails_fails_its_command_and_no_other(kind: str, reason: str) -> None:
    bench = Bench()
    bench.gate.set()
    async with bench.working():
        await bench.order("c1", kind)
        await bench.order("c2")
        await until(lambda: "successful" in bench.states("c2"))
    assert bench.states("c1")[-1] == "failed"
    assert reason in bench.told[[r.state for r in bench.told].index("failed")].reason or kind == "long"


async def test_nothing_is_acknowledged_that_could_not_be_written() -> None:
    bench = Bench()
    bench.journal.broken = True
    with pytest.raises(StateError):
        await bench.order("c1")
    assert (bench.acknowledged, bench.told) == ([], [])
    bench.journal.broken = False
    await bench.order("c1")
    assert bench.acknowledged == ["c1"]
    assert bench.states("c1") == ["received"]


async def test_a_command_does_not_begin_before_executing_is_written() -> None:
    bench = Bench()
    await bench.order("c1")
    bench.journal.broken = True
    async with bench.working():
        await asyncio.sleep(0.05)
        assert (bench.ran, bench.states("c1")) == (0, ["received"])
        bench.journal.broken = False
        bench.gate.set()
        await until(lambda: "successful" in bench.states("c1"))
    assert bench.ran == 1


async def test_repetitions_get_the_stored_state_and_run_nothing() -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1")
        await until(lambda: bench.ran == 1)
        await bench.order("c1", payload=b'{ "args": {} }')
        assert bench.told[-1].state == "executing"
        bench.gate.set()
        await until(lambda: "successful" in bench.states("c1"))
        await bench.order("c1")
    assert bench.told[-1].state == "successful"
    assert (bench.ran, bench.acknowledged) == (1, ["c1"] * 3)


async def test_another_order_under_a_used_id_is_an_event_and_leaves_the_state_alone() -> None:
    bench = Bench()
    bench.gate.set()
    async with bench.working():
        await bench.order("c1")
        await until(lambda: "successful" in bench.states("c1"))
        told = len(bench.told)
        await bench.order("c1", "fail")
    assert len(bench.told) == told
    (event,) = bench.events
    assert event.kind == "command_conflict"
    assert event.detail["known"] != event.detail["refused"]
    assert bench.acknowledged == ["c1", "c1"]


async def test_what_waits_too_long_expires() -> None:
    bench = Bench()
    await bench.order("c1", payload=b'{"ttl_s": 5}')
    bench.clock.advance(6)
    async with bench.working():
        await until(lambda: "expired" in bench.states("c1"))
    assert bench.ran == 0


async def test_what_runs_too_long_is_timed_out_and_cancelled() -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1", payload=b'{"ttl_s": 0.05}')
        await until(lambda: "timed_out" in bench.states("c1"))
        bench.gate.set()
        await bench.order("c2")
        await until(lambda: "successful" in bench.states("c2"))


async def test_too_many_waiting_orders_are_refused() -> None:
    bench = Bench()
    for number in range(MOST_WAITING + 1):
        await bench.order(f"c{number}")
    assert bench.told[-1].state == "rejected"
    assert bench.told[-1].reason.startswith("busy")
    assert [r.state for r in bench.told[:-1]] == ["received"] * MOST_WAITING


async def test_a_stop_in_the_middle_is_told_as_interrupted() -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1")
        await until(lambda: bench.ran == 1)
    await bench.execution.interrupt()
    assert bench.states("c1")[-1] == "failed"
    assert bench.journal.rows["c1"].reason.startswith("interrupted")


async def test_after_a_kill_what_ran_has_failed_and_what_waited_runs() -> None:
    first = Bench()
    async with first.working():
        await first.order("ran")
        await first.order("waited")
        await until(lambda: first.ran == 1)
    second = Bench(first.journal)
    second.gate.set()
    await second.execution.recover()
    async with second.working():
        await until(lambda: "successful" in second.states("waited"))
    assert second.states("ran") == ["failed"]
    assert second.ran == 1


async def test_a_recovery_that_broke_off_runs_nothing_twice() -> None:
    journal = MemoryJournal()
    first = Bench(journal)
    await first.order("c1")
    second = Bench(journal)
    second.gate.set()
    await second.execution.recover()
    await second.execution.recover()
    async with second.working():
        await until(lambda: "successful" in second.states("c1"))
        await asyncio.sleep(0.05)
    assert second.ran == 1


async def test_steps_are_told_and_progress_is_not_told_all_the_time() -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1", "steps")
        await until(lambda: bench.told[-1].step == "two")
        bench.gate.set()
        await until(lambda: "successful" in bench.states("c1"))
    said = [(r.state, r.step, r.progress) for r in bench.told]
    assert said == [
        ("received", "", None), ("accepted", "", None), ("executing", "", None), ("executing", "one", 0.0),
        ("executing", "two", None), ("successful", "", None),
    ]  # fmt: skip
    assert [r.rev for r in bench.told] == list(range(1, len(said) + 1))
    assert bench.journal.rows["c1"].args == b""  # over: its arguments are needed no more


@pytest.mark.parametrize("effect", [True, False])
async def test_what_can_be_verified_is_after_a_kill(effect: bool) -> None:
    first = Bench()
    async with first.working():
        await first.order("c1", "seen", b'{"ttl_s": 1}')
        await until(lambda: first.ran == 1)
    assert first.journal.rows["c1"].state == "verifying"
    second = Bench(first.journal)
    second.effect = effect
    second.clock.advance(1000)  # long past its deadline: that it had its effect is true all the same
    await second.execution.recover()
    async with second.working():
        await until(lambda: second.told[-1].final())
    assert second.states("c1") == ["verifying", "successful" if effect else "failed"]
    assert second.told[-1].result == (b'{"text":"seen"}' if effect else b"null")
    assert second.ran == 0


async def test_a_kill_while_it_is_verified_leads_to_the_same_end() -> None:
    first = Bench()
    async with first.working():
        await first.order("c1", "seen")
        await until(lambda: first.ran == 1)
    for _ in range(3):
        await Bench(first.journal).execution.recover()  # dies before it has looked
    last = Bench(first.journal)
    await last.execution.recover()
    async with last.working():
        await until(lambda: last.told[-1].final())
    assert last.states("c1")[-1] == "successful"
    revs = [r.rev for r in last.told]
    assert revs == sorted(revs)


@pytest.mark.parametrize("kind", ["seen", "again"])
async def test_an_ordered_end_leaves_to_the_next_daemon_what_can_go_on(kind: str) -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1", kind)
        await until(lambda: bench.ran == 1)
    await bench.execution.interrupt()
    assert not bench.journal.rows["c1"].final()
    after = Bench(bench.journal)
    after.gate.set()
    await after.execution.recover()
    async with after.working():
        await until(lambda: after.told[-1].final())
    assert after.states("c1")[-1] == "successful"
    assert after.ran == (1 if kind == "again" else 0)


def test_what_verifies_needs_a_way_to() -> None:
    async def run(_: NoArgs, _order: Order) -> None:
        return None

    with pytest.raises(ValueError, match="verifies"):
        Handler(name="x", args=NoArgs, run=run, on_restart="verify")


async def test_a_result_that_is_too_large_fails_its_command_with_the_reason() -> None:
    bench = Bench()
    async with bench.working():
        await bench.order("c1", "long")
        await until(lambda: bench.told[-1].final())
    assert "expected at most" in bench.told[-1].reason
