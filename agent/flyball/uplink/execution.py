"""Orders, one after another: written down, acknowledged, carried out, told.

message -> receive -> journal row committed -> PUBACK -> accepted -> [queue] -> executing -> handler -> final state

Never acknowledges an order that is not in the journal, never begins one whose "executing" is not, and never runs one
twice: a repetition gets the stored state again. Progress is written down too, so that `rev` never goes back, and
therefore not oftener than every PROGRESS_S. The states and their rules are in commands.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import msgspec

from flyball.errors import FlyballError, MessageError, StateError
from flyball.events import Event, Events
from flyball.uplink import commands
from flyball.uplink.commands import Handlers, Row, State
from flyball.uplink.stamp import Stamp, Stamper

log = logging.getLogger(__name__)

MOST_WAITING = 64
PROGRESS_S = 2.0
MOST_RESULT_BYTES = 64 * 1024
MOST_REPEATED = 64  # final states, for a broker that lost them
RETRY_MAX_S = 60.0
VERIFY_S = 300.0


class OrderJournal(Protocol):
    async def admit(self, row: Row) -> Row | None: ...

    async def put(self, row: Row) -> None: ...

    async def open_orders(self) -> tuple[Row, ...]: ...

    async def finished_orders(self, most: int) -> tuple[Row, ...]: ...


class Execution:
    """`tell` publishes a state; `version` is that of the desired document in force."""

    def __init__(
        self,
        *,
        handlers: Handlers,
        allowed: Collection[str],
        journal: OrderJournal,
        tell: Callable[[Row], None],
        events: Events,
        stamper: Stamper,
        version: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._handlers = handlers
        self._allowed = allowed
        self._journal = journal
        self._tell = tell
        self._events = events
        self._stamper = stamper
        self._version = version
        self._waiting: asyncio.Queue[Row] = asyncio.Queue()
        self._running: Row | None = None
        self._unfinished: dict[str, Row] = {}

    async def recover(self) -> None:
        """Takes up what the last daemon left. Raises StateError."""
        for row in await self._journal.open_orders():
            if row.id in self._unfinished:
                continue  # taken up by an attempt that failed half way
            kept = commands.after_restart(row, self._handlers)
            if kept is not row:
                await self._journal.put(kept)
            if not kept.final():
                self._enqueue(kept)
            self._tell(kept)

    async def receive(
        self,
        kind: str,
        id: str,
        payload: bytes,
        expiry_s: float | None,
        acknowledge: Callable[[], None],
        deflated: bool = False,
    ) -> None:
        """Raises StateError without having acknowledged: the broker then sends the order again."""
        row = commands.receive(
            kind, id, payload, expiry_s, self._stamper.now(), version=self._version(), deflated=deflated
        )
        if row.state == "received":
            refusal = self._refusal(row)
            if refusal:
                row = commands.refuse(row, refusal)
        known = await self._journal.admit(row)
        acknowledge()
        if known is None:
            self._tell(row)
            if not row.final():
                self._enqueue(row)
        elif commands.same_order(known, row):
            self._tell(self._unfinished.get(known.id, known))
        else:
            self._conflict(known, row)

    async def work(self) -> None:
        """Runs orders for ever; cancelled by the daemon's end."""
        while True:
            row = await self._waiting.get()
            try:
                await self._carry_out(row)
            except Exception:
                # The boundary of this loop: whatever one order does, the next is still carried out.
                log.exception("command %s (%s) could not be carried out", row.id, row.type)
            finally:
                self._unfinished.pop(row.id, None)

    async def interrupt(self) -> None:
        """Once work() is cancelled: what it was doing has failed, and the fleet hears so."""
        if self._running is None or self._running.state not in ("executing", "verifying"):
            return
        if commands.survives(self._running, self._handlers):
            return  # the next start takes it up, as it does after a kill
        row = commands.advance(self._running, "failed", reason="interrupted: the daemon is stopping")
        try:
            await self._journal.put(row)
        except StateError as error:
            log.error("%s", error)  # the next start finds it executing, and says so then
            return
        self._tell(row)

    def repeat(self) -> None:
        """Tells the state of every unfinished order again."""
        for row in self._unfinished.values():
            self._tell(row)

    async def repeat_finished(self) -> None:
        """Tells the newest final states again, for a broker that has forgotten them. Raises StateError."""
        for row in await self._journal.finished_orders(MOST_REPEATED):
            self._tell(row)

    def _refusal(self, row: Row) -> str:
        found = commands.examine(row, self._handlers, self._allowed)
        if isinstance(found, str):
            return found
        if len(self._unfinished) >= MOST_WAITING:
            return f"busy: {MOST_WAITING} orders are waiting already; send it again later, under a new id"
        return ""

    def _conflict(self, known: Row, refused: Row) -> None:
        self._events.publish(
            Event(
                kind="command_conflict",
                t_s=refused.mono,
                severity="warning",
                message=f"command id {known.id} was used before, with other arguments; nothing was done",
                detail={"id": known.id, "type": refused.type, "known": known.digest, "refused": refused.digest},
            )
        )

    def _enqueue(self, row: Row) -> None:
        self._unfinished[row.id] = row
        self._waiting.put_nowait(row)

    async def _carry_out(self, row: Row) -> None:
        self._running = None
        # An order found after a restart may no longer be allowed.
        args = commands.examine(row, self._handlers, self._allowed)
        now = self._stamper.now()
        if isinstance(args, str) and row.state == "received":
            await self._become(commands.advance(row, "rejected", reason=args))
        elif isinstance(args, str):
            await self._become(commands.advance(row, "failed", reason=args))
        elif row.state in ("received", "accepted") and commands.remaining_s(row, now) <= 0:
            await self._become(commands.advance(row, "expired", reason=_why_expired(row, now)))
        elif row.state == "verifying":
            verify = self._handlers[row.type].verify
            if verify is None:
                raise ValueError(f"command {row.id}: {row.type} cannot be verified")
            # How long it may take is no longer the order's deadline: that it had its effect is true or not.
            await self._finish(row, verify(args), VERIFY_S)
        else:
            if row.state == "received":
                row = await self._become(commands.advance(row, "accepted"))
            row = await self._become(commands.advance(row, "executing"))
            order = _Running(self, row)
            limit_s = max(commands.remaining_s(row, self._stamper.now()), 0.0)
            await self._finish(row, self._handlers[row.type].run(args, order), limit_s)

    async def _finish(self, row: Row, work: Awaitable[msgspec.Struct | None], limit_s: float) -> None:
        self._running = row
        end = await self._await(asyncio.ensure_future(work), limit_s)
        final = commands.advance(self._running, end.state, reason=end.reason, result=end.result)
        self._running = final
        await self._become(final)
        self._running = None

    async def _await(self, work: asyncio.Future[msgspec.Struct | None], limit_s: float) -> _End:
        try:
            done, _ = await asyncio.wait({work}, timeout=limit_s)
            if not done:
                await _cancel(work)
                return _End("timed_out", "the deadline passed while it was executing")
            result = msgspec.json.encode(work.result())
            if len(result) > MOST_RESULT_BYTES:
                raise MessageError(f"the result has {len(result)} bytes, expected at most {MOST_RESULT_BYTES}")
            return _End("successful", result=result)
        except asyncio.CancelledError:
            await _cancel(work)
            raise
        except FlyballError as error:
            return _End("failed", str(error))
        except Exception as error:
            log.error("the handler of a command failed", exc_info=error)
            return _End("failed", f"internal error: {type(error).__name__}: {error}")

    async def say(self, state: State, step: str, progress: float | None) -> None:
        """Of the command that is running."""
        if self._running is not None and not self._running.final():
            self._running = await self._become(commands.advance(self._running, state, step=step, progress=progress))

    async def _become(self, row: Row) -> Row:
        """Writes the state down, however long that takes, then tells it."""
        wait_s = 1.0
        while True:
            try:
                await self._journal.put(row)
                break
            except StateError as error:
                if wait_s == 1.0:
                    log.error("command %s waits to be written down as %s: %s", row.id, row.state, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
        self._unfinished[row.id] = row
        self._tell(row)
        return row


@dataclass(frozen=True, slots=True)
class _End:
    state: State
    reason: str = ""
    result: bytes = b"null"


class _Running:
    """Implements commands.Order for the one that is carried out."""

    def __init__(self, execution: Execution, row: Row) -> None:
        self._execution = execution
        self._state: State = row.state
        self._step = ""
        self._said_s = -PROGRESS_S

    async def step(self, name: str, progress: float | None = None) -> None:
        now_s = asyncio.get_running_loop().time()
        if name == self._step and now_s - self._said_s < PROGRESS_S:
            return
        self._step, self._said_s = name, now_s
        await self._execution.say(self._state, name, progress)

    async def verifying(self, step: str) -> None:
        self._state, self._step = "verifying", step
        await self._execution.say("verifying", step, None)


def _why_expired(row: Row, now: Stamp) -> str:
    if row.boot == now.boot:
        return "its time had passed before it could begin"
    return "its time passed while the machine was off, or the clock cannot tell"


async def _cancel(work: asyncio.Future[msgspec.Struct | None]) -> None:
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled() and work.exception() is not None:
        log.error("a cancelled command ended with an error", exc_info=work.exception())
