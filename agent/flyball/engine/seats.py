"""Which rung of a ladder answers, and which are kept open beside it.

open a rung's workers -> seat it (the pointer that every request follows) -> standby, within a memory budget -> close

Orders (switch.py) and the recovery from a crash (recovery.py) change the seats. Opening takes long and holds nobody
up; seating takes effect at once, without an await, so that no lock is needed. Which rung it should be is decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Sequence

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.book import RungBook
from flyball.engine.memory import available_bytes
from flyball.engine.opened import OpenedRung
from flyball.engine.openings import Openings
from flyball.engine.process import Worker
from flyball.engine.share import Shares
from flyball.engine.slots import SlotPool
from flyball.engine.standby import Standby
from flyball.errors import LadderError, NotFoundError, UnavailableError, WorkerError
from flyball.events import Event, Events
from flyball.ladder.manifest import LadderFolder, Rung

log = logging.getLogger(__name__)

# A second session takes 2 to 3 times its file, and ONNX Runtime 54 to 88 MiB for 25 MB (measured).
_FILE_FACTOR = 3
_RUNTIME_BYTES = 64 << 20


class Seats:
    """`active` is the rung that answers; None while there is none. `wanted` is what `active` should be. `on_exit` is
    called when a worker ends, with the rung that it was of and the cause."""

    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        slots: SlotPool,
        book: RungBook,
        standby: Standby,
        shares: Shares,
        events: Events,
        clock: Clock,
    ) -> None:
        self.active: OpenedRung | None = None
        self.wanted = ""
        self.error = ""  # why there is no active rung, once every rung was tried
        self.closing = False
        self.swapping = False  # an order has closed the active rung to make room for the next
        self.on_exit: Callable[[OpenedRung, str], None] = _ignore
        self._folder = folder
        self._config = config
        self._book = book
        self._standby = standby
        self._events = events
        self._clock = clock
        self._changed = asyncio.Event()
        failed = functools.partial(self.tell, "rung_failed", severity="error")
        self._openings = Openings(folder, config, slots, book, shares, self._on_made, self._unwanted, failed)
        self._made: set[OpenedRung] = set()  # all that were opened and not closed yet, wherever they are
        self._leaving: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------ looked at

    def weaker(self) -> Sequence[OpenedRung]:
        """The warm rungs below the active one, strongest first."""
        names = [r.name for r in self._folder.manifest.rung]
        if self.active is None:
            return ()
        below = names[names.index(self.active.rung.name) + 1 :]
        return sorted(
            (o for o in self._standby.of(self) if o.rung.name in below),
            key=lambda o: names.index(o.rung.name),
        )

    def opened(self) -> Sequence[OpenedRung]:
        """The active rung and those on standby."""
        active = [self.active] if self.active is not None else []
        return [*active, *self._standby.of(self)]

    def opening(self) -> bool:
        return self._openings.any()

    def workers(self) -> Sequence[Worker]:
        """Every process of this ladder, those that are opening or leaving included."""
        return [*self._openings.starting, *(worker for opened in self._made for worker in opened.workers)]

    async def answering(self, timeout_s: float) -> OpenedRung:
        """The active rung; waits for one while the ladder is between two. Raises UnavailableError."""
        if self.active is None and not self.error and not self.closing:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until_changed(), timeout_s)
        if self.active is None:
            why = self.error or ("it is being unloaded" if self.closing else "no rung became ready in time")
            raise UnavailableError(f"ladder {self._folder.name} cannot answer now: {why}")
        return self.active

    def open_already(self, name: str) -> OpenedRung | None:
        if self.active is not None and self.active.rung.name == name:
            return self.active
        return self._standby.find(self, name)

    def other_than(self, opened: OpenedRung) -> OpenedRung | None:
        """Another rung that is open, nearest to it."""
        if self.active is not None and self.active is not opened:
            return self.active
        return self.nearest(opened.rung)

    def nearest(self, lost: Rung) -> OpenedRung | None:
        """What stands by nearest to `lost`, its declared twin first; None when nothing does."""
        names = [r.name for r in self._folder.manifest.rung]
        at = names.index(lost.name)
        rest = self._standby.of(self)
        return min(rest, key=lambda o: (o.rung.name != lost.twin, abs(names.index(o.rung.name) - at)), default=None)

    def usable(self, name: str) -> Rung:
        """Raises NotFoundError; UnavailableError where none of its accelerators is present."""
        rung = self._folder.rung(name)
        if rung is None:
            known = ", ".join(r.name for r in self._folder.manifest.rung)
            raise NotFoundError(f"ladder {self._folder.name} has no rung {name!r} (it has: {known})")
        if not self._book.usable(name):
            raise UnavailableError(f"ladder {self._folder.name}, rung {name}: {self._book.why_not(name)}")
        return rung

    def refuse_when_closing(self) -> None:
        """Raises UnavailableError."""
        if self.closing:
            raise UnavailableError(f"ladder {self._folder.name} cannot answer now: it is being unloaded")

    def too_little_memory(self, rung: Rung) -> bool:
        """For this rung beside what is open: by what it took when it was last open here, else by its file."""
        available = available_bytes()
        if available is None:
            return False
        return available < (self.known_bytes(rung) or self.file_bytes(rung) * _FILE_FACTOR + _RUNTIME_BYTES)

    def known_bytes(self, rung: Rung) -> int | None:
        """What it took when it was last open here."""
        return next((e.rss_bytes for e in self._book.entries() if e.name == rung.name), None)

    def file_bytes(self, rung: Rung) -> int:
        """0 where there is no file: opening it will say so."""
        try:
            return self._folder.artifact(rung).stat().st_size
        except OSError:
            return 0

    # ------------------------------------------------------------------------------------------------ changed

    async def open(self, rung: Rung) -> OpenedRung:
        """Its workers, warm and right about the canary; not seated yet. Who wants a rung that somebody opens already
        gets the same one. Raises WorkerError, LadderError, UnavailableError."""
        self.refuse_when_closing()
        return await self._openings.open(rung)

    def _on_made(self, opened: OpenedRung) -> None:
        self._made.add(opened)
        for worker in opened.workers:
            worker.exited.add_done_callback(functools.partial(self._on_exit, opened, worker))

    def _on_exit(self, opened: OpenedRung, worker: Worker, cause: asyncio.Future[str]) -> None:
        if not opened.alive():
            self._made.discard(opened)
        if worker.lingers():
            self._openings.starting.add(worker)
        self.on_exit(opened, cause.result())  # first: what it refuses then is tried again on another rung
        opened.worker_ended()

    async def open_one_of(self, names: Iterable[str]) -> OpenedRung:
        """Seats the first rung that opens, unless another has been seated meanwhile. Raises UnavailableError."""
        errors = []
        for name in names:
            if not self._book.usable(name):
                errors.append(f"{name}: {self._book.why_not(name)}")
                continue
            try:
                opened = await self.open(self.usable(name))
            except (WorkerError, LadderError) as error:
                errors.append(str(error))
                continue
            if self.active is None:
                self.seat(opened)
            elif self.active is not opened:
                await self.keep(opened)
            if self.active is not None:
                return self.active
        self.error = "no rung could be opened: " + ("; ".join(errors) or "there is no other")
        self._changed.set()
        raise UnavailableError(f"ladder {self._folder.name}: {self.error}")

    def seat(self, opened: OpenedRung) -> OpenedRung | None:
        """From now on `opened` answers. What answered until now is the caller's to retire."""
        twice = self._standby.take(self, opened.rung.name)
        old, self.active = self.active, opened
        self.error = ""
        self._book.opened(opened, "active")
        self._changed.set()
        if twice is not None and twice is not opened:
            self._leave(twice)
        return None if old is opened else old

    def lose(self) -> None:
        """The active rung has ended."""
        self.active = None
        self._changed.clear()

    def _leave(self, opened: OpenedRung) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._close(opened))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    def _unwanted(self, opened: OpenedRung) -> None:
        self._leave(opened)

    async def retire(self, old: OpenedRung | None) -> None:
        """The old rung finishes what it has and goes on standby as far as the budget allows."""
        if old is None or old is self.active:
            return
        if not old.alive() or self.closing:
            await self.close([old])
        else:
            await self.keep(old)

    async def vacate(self) -> None:
        """Ends every worker, so that their memory comes back; requests wait from here on."""
        old, self.active = self.active, None
        self._changed.clear()
        await self.close([*self._standby.take_all(self), *([old] if old is not None else [])])

    async def close(self, leaving: Iterable[OpenedRung]) -> None:
        """Drains and ends them, all at once; goes on to the end when its caller is cancelled."""
        await asyncio.shield(asyncio.gather(*map(self._leave, leaving)))

    async def _close(self, opened: OpenedRung) -> None:
        try:
            await asyncio.wait_for(opened.drained(), self._config.drain_timeout_s)
        except asyncio.TimeoutError:
            log.warning("%s: %d requests did not finish in time", opened.label, opened.in_flight)
        await opened.stop(self._config.drain_timeout_s)
        self._made.discard(opened)
        seated = self.open_already(opened.rung.name)
        if seated is None and self._folder.rung(opened.rung.name) is opened.rung:
            self._book.closed(opened.rung)

    def _distance(self, rung: str) -> int:
        """From the rung that should be active; a twin of it is as near as can be."""
        names = [r.name for r in self._folder.manifest.rung]
        wanted = self._folder.rung(self.wanted)
        if wanted is None or wanted.twin == rung:
            return 0
        return abs(names.index(rung) - names.index(wanted.name))

    def standing_by(self, name: str) -> OpenedRung | None:
        return self._standby.find(self, name)

    def has_room_for(self, rung: Rung) -> bool:
        """Whether the budget lets it stand by. True as long as nobody knows what it takes."""
        known = self.known_bytes(rung)
        return known is None or self._standby.has_room(known)

    async def keep(self, opened: OpenedRung) -> bool:
        """On standby, as far as the budget allows; whether it stayed open."""
        if opened is self.active:
            return True
        self._book.opened(opened, "standby")
        leaving = self._standby.keep(self, opened, self._distance)
        await self.close(leaving)
        return opened not in leaving

    async def empty(self) -> None:
        """Drains and ends every worker of this ladder, wherever it is."""
        await self._openings.cancel()
        self.active = None
        self._changed.set()
        self._standby.take_all(self)
        await self.close(list(self._made))
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _until_changed(self) -> None:
        while self.active is None and not self.error and not self.closing:
            self._changed.clear()
            await self._changed.wait()

    def tell(self, kind: str, message: str, severity: str) -> None:
        level = logging.ERROR if severity == "error" else logging.INFO
        log.log(level, "%s", message)
        self._events.publish(
            Event(
                kind=kind,
                t_s=self._clock.monotonic_s(),
                message=message,
                ladder=self._folder.name,
                severity="error" if severity == "error" else "info",
            )
        )


def _ignore(opened: OpenedRung, cause: str) -> None:
    """Until somebody looks after exits."""
