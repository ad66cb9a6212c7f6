"""Which rung of a ladder is active, and how that changes without losing a request.

start:     the rung that loads fastest -> the first answer -> the strongest beside it -> as below
to(rung):  open beside the active one -> warm up -> compare its canary -> swap one pointer -> the old one on standby
crash:     the pointer goes to a standby rung if there is one -> the wanted rung is opened again, with back-off

Where memory is too short for two, the active rung is closed first; requests then wait out the gap, which is
reported. One change at a time; a change that fails leaves the active rung as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Sequence

from flyball.clock import Clock
from flyball.config import Engine
from flyball.engine.backoff import Backoff
from flyball.engine.book import RungBook
from flyball.engine.memory import available_bytes
from flyball.engine.opened import OpenedRung, open_rung
from flyball.engine.share import Shares
from flyball.engine.slots import SlotPool
from flyball.engine.standby import Standby
from flyball.engine.tally import Tally
from flyball.errors import FlyballError, LadderError, NotFoundError, UnavailableError, WorkerError
from flyball.events import Event, Events
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ports import SwitchReport

log = logging.getLogger(__name__)

# A second session takes 2 to 3 times its file, and ONNX Runtime 54 to 88 MiB for 25 MB (measured).
_FILE_FACTOR = 3
_RUNTIME_BYTES = 64 << 20


class Switch:
    """`active` is the rung that answers; None while there is none. `wanted` is what `active` should be."""

    def __init__(
        self,
        folder: LadderFolder,
        config: Engine,
        slots: SlotPool,
        book: RungBook,
        tally: Tally,
        standby: Standby,
        shares: Shares,
        events: Events,
        clock: Clock,
    ) -> None:
        self.active: OpenedRung | None = None
        self.wanted = ""
        self.error = ""  # why there is no active rung, once every rung was tried
        self._folder = folder
        self._config = config
        self._slots = slots
        self._book = book
        self._tally = tally
        self._standby = standby
        self._shares = shares
        self._events = events
        self._clock = clock
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._backoff = Backoff(config.restart_backoff_s, config.restart_backoff_max_s, clock)

    # ------------------------------------------------------------------------------------------------ asked for

    async def start(self, first: str = "") -> None:
        """Opens `first`; without it the rung that loads fastest, from which a task climbs to the strongest. Raises
        UnavailableError when none opens."""
        rungs = [r for r in self._folder.manifest.rung if self._book.usable(r.name)]
        quickest = sorted(rungs, key=lambda r: self._folder.artifact(r).stat().st_size)
        everything = (r.name for r in self._folder.manifest.rung)  # of those without an accelerator the reason is told
        order = dict.fromkeys([*([first] if first else []), *(r.name for r in quickest), *everything])
        async with self._lock:
            opened = await self._open_one_of(order)
        self.wanted = opened.rung.name
        if opened.rung.name not in (first, rungs[0].name):
            self.wanted = rungs[0].name
            self._spawn(self._climb([r.name for r in rungs[: rungs.index(opened.rung)]]))

    async def _climb(self, names: Sequence[str]) -> None:
        """To the strongest of `names` that opens, unless somebody asks for another rung meanwhile."""
        for name in names:
            rung = self._usable(name)
            if self.wanted not in names or self._too_little_memory(rung):
                break
            try:
                await self.to(name, "start")
                return
            except FlyballError:
                continue  # reported by _open; the rung that answers goes on
        if self.active is not None and self.wanted in names:
            self.wanted = self.active.rung.name

    async def settled(self) -> None:
        """Until the climb of the start, or a recovery, has come to its end."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def to(self, name: str, reason: str) -> SwitchReport:
        """Makes `name` the active rung. Raises NotFoundError, WorkerError, LadderError; then nothing has changed."""
        rung = self._usable(name)
        async with self._lock:
            self._refuse_when_closing()
            old = self.active
            if old is not None and old.rung.name == name:
                self.wanted = name
                return SwitchReport(ladder=self._folder.name, source=name, target=name, open_s=0, warm_s=0, gap_s=0)
            started_s = self._clock.monotonic_s()
            opened = self._standby.take(self, name)
            gap_s = 0.0
            if opened is None and old is not None and self._too_little_memory(rung):
                await self._vacate(old)
                try:
                    opened = await self._open(rung)
                except FlyballError:
                    await self._open_one_of([old.rung.name, *(r.name for r in self._folder.manifest.rung)])
                    raise
                gap_s = self._clock.monotonic_s() - started_s
            elif opened is None:
                opened = await self._open(rung)
            open_s = self._clock.monotonic_s() - started_s
            self.wanted = name
            self._seat(opened)
            source = old.rung.name if old is not None else None
            self._tally.switched(source or "", name, reason)
            if old is not None and gap_s == 0.0:
                await self._retire(old)
            return SwitchReport(
                ladder=self._folder.name,
                source=source,
                target=name,
                open_s=open_s,
                warm_s=opened.warmth.first_s,
                gap_s=gap_s,
            )

    async def lend(self, name: str) -> OpenedRung:
        """The rung for a request that asks for it by name: active, on standby, or opened for it and kept on standby.

        Raises NotFoundError, WorkerError, LadderError.
        """
        rung = self._usable(name)
        opened = self._open_already(name)
        if opened is None:
            rest_s = self._book.leave_alone_s(name)
            if rest_s > 0:  # or every caller could make the machine try again
                why = self._book.why_not(name)
                raise WorkerError(f"ladder {self._folder.name}, rung {name}: tried again in {rest_s:.0f} s: {why}")
            async with self._lock:
                self._refuse_when_closing()
                opened = self._open_already(name)
                if opened is None:
                    if self._too_little_memory(rung):
                        raise UnavailableError(
                            f"ladder {self._folder.name}: too little memory to open the rung {name} beside what is open"
                        )
                    opened = await self._open(rung)
                    self._book.opened(opened, "standby")
                    leaving = self._standby.keep(self, opened, self._distance)
                    await self._close(leaving)
                    if opened in leaving:
                        raise UnavailableError(
                            f"ladder {self._folder.name}: the rung {name} is not active, and "
                            "engine.standby_memory_mib has no room to keep it open beside the active one"
                        )
        return opened

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

    async def answering(self, timeout_s: float) -> OpenedRung:
        """The active rung; waits for one while the ladder is between two. Raises UnavailableError."""
        if self.active is None and not self.error and not self._closing:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until_changed(), timeout_s)
        if self.active is None:
            why = self.error or ("it is being unloaded" if self._closing else "no rung became ready in time")
            raise UnavailableError(f"ladder {self._folder.name} cannot answer now: {why}")
        return self.active

    async def close(self) -> None:
        """Drains and ends every worker of this ladder."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._lock:
            active, self.active = self.active, None
            self._changed.set()
            leaving = self._standby.take_all(self)
            if active is not None:
                leaving.append(active)
            await self._close(leaving)

    # ------------------------------------------------------------------------------------------------ changing

    async def _until_changed(self) -> None:
        while self.active is None and not self.error and not self._closing:
            self._changed.clear()
            await self._changed.wait()

    def _refuse_when_closing(self) -> None:
        """Raises UnavailableError."""
        if self._closing:
            raise UnavailableError(f"ladder {self._folder.name} cannot answer now: it is being unloaded")

    def _usable(self, name: str) -> Rung:
        rung = self._folder.rung(name)
        if rung is None:
            known = ", ".join(r.name for r in self._folder.manifest.rung)
            raise NotFoundError(f"ladder {self._folder.name} has no rung {name!r} (it has: {known})")
        if not self._book.usable(name):
            raise WorkerError(f"ladder {self._folder.name}, rung {name}: {self._book.why_not(name)}")
        return rung

    def _open_already(self, name: str) -> OpenedRung | None:
        if self.active is not None and self.active.rung.name == name:
            return self.active
        return self._standby.find(self, name)

    async def _open(self, rung: Rung) -> OpenedRung:
        try:
            expected = self._book.expected(rung.name)
            share = self._shares.of(self._book.kind(rung))
            opened = await open_rung(self._folder, rung, self._config, self._slots, expected, share)
        except OSError as error:
            # No more descriptors, processes or memory: the machine's trouble, which may pass.
            self._book.refused(rung, str(error))
            raise WorkerError(f"{self._folder.name}/{rung.name} could not be opened: {error}") from error
        except FlyballError as error:
            self._book.refused(rung, str(error))
            self._tell("rung_failed", f"{self._folder.name}/{rung.name} could not be opened: {error}", "error")
            raise
        for worker in opened.workers:
            worker.exited.add_done_callback(lambda cause: self._on_exit(opened, cause.result()))
        return opened

    async def _open_one_of(self, names: Iterable[str]) -> OpenedRung:
        """Seats the first rung that opens. Raises UnavailableError."""
        errors = []
        for name in names:
            if not self._book.usable(name):
                errors.append(f"{name}: {self._book.why_not(name)}")
                continue
            try:
                opened = await self._open(self._usable(name))
                self._seat(opened)
                return opened
            except (WorkerError, LadderError) as error:
                errors.append(str(error))
        self.error = "no rung could be opened: " + ("; ".join(errors) or "there is no other")
        self._changed.set()
        raise UnavailableError(f"ladder {self._folder.name}: {self.error}")

    def _seat(self, opened: OpenedRung) -> None:
        self.active = opened
        self.error = ""
        self._book.opened(opened, "active")
        self._changed.set()

    async def _retire(self, old: OpenedRung) -> None:
        """The old rung finishes what it has and goes on standby as far as the budget allows."""
        if not old.alive() or self._closing:
            await self._close([old])
            return
        self._book.opened(old, "standby")
        await self._close(self._standby.keep(self, old, self._distance))

    async def _vacate(self, old: OpenedRung) -> None:
        self.active = None
        self._changed.clear()
        await self._close([*self._standby.take_all(self), old])

    async def _close(self, leaving: Iterable[OpenedRung]) -> None:
        for opened in leaving:
            try:
                await asyncio.wait_for(opened.drained(), self._config.drain_timeout_s)
            except asyncio.TimeoutError:
                log.warning("%s: %d requests did not finish in time", opened.label, opened.in_flight)
            await opened.stop(self._config.drain_timeout_s)
            if self._folder.rung(opened.rung.name) is opened.rung:
                self._book.closed(opened.rung)

    def _distance(self, rung: str) -> int:
        """From the rung that should be active; a twin of it is as near as can be."""
        names = [r.name for r in self._folder.manifest.rung]
        wanted = self._folder.rung(self.wanted)
        if wanted is None or wanted.twin == rung:
            return 0
        return abs(names.index(rung) - names.index(wanted.name))

    def _too_little_memory(self, rung: Rung) -> bool:
        """For this rung beside what is open: by what it took when it was last open here, else by its file."""
        available = available_bytes()
        if available is None:
            return False
        known = next((e.rss_bytes for e in self._book.entries() if e.name == rung.name), None)
        file_bytes = self._folder.artifact(rung).stat().st_size
        return available < (known or file_bytes * _FILE_FACTOR + _RUNTIME_BYTES)

    # ------------------------------------------------------------------------------------------------ recovery

    def _on_exit(self, opened: OpenedRung, cause: str) -> None:
        if self._closing or cause.startswith("stopped"):
            return
        known = next((c for c in ("hung", "memory", "canary") if cause.startswith(c)), None)
        self._tally.restarted(known or ("signal" if "signal" in cause else "exit"))
        looping = self._book.ended(opened.rung, f"its worker ended: {cause}")
        self._tell("worker_exited", f"the worker of {opened.label} ended: {cause}", "error")
        if opened.alive():  # one of several instances: the others answer, and the rung is opened afresh beside them
            self._spawn(self._replace(opened))
            return
        if opened is not self.active:
            self._spawn(self._restore(opened.rung))
            return
        self.active = None
        rest = self._standby.of(self)
        if rest:
            names = [r.name for r in self._folder.manifest.rung]
            at = names.index(opened.rung.name)
            nearest = min(rest, key=lambda o: (o.rung.name != opened.rung.twin, abs(names.index(o.rung.name) - at)))
            taken = self._standby.take(self, nearest.rung.name)
            if taken is not None:
                self._seat(taken)
        self._spawn(self._recover(opened.rung, looping))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, opened: OpenedRung) -> None:
        """The rung again with all its instances, in place of one that lost some of them."""
        await asyncio.sleep(self._backoff.next_s())
        async with self._lock:
            if self._closing or self.active is not opened or not opened.alive():
                return
            try:
                whole = await self._open(opened.rung)
            except (WorkerError, LadderError):
                return  # reported; what is left of it goes on
            self._seat(whole)
            await self._close([opened])

    async def _restore(self, lost: Rung) -> None:
        """A rung on standby again, after its worker ended: it is what answers when the active one's does."""
        while not self._closing:
            await asyncio.sleep(max(self._backoff.next_s(), self._book.leave_alone_s(lost.name)))
            async with self._lock:
                if self._closing or self._open_already(lost.name) is not None or self._too_little_memory(lost):
                    return
                try:
                    opened = await self._open(lost)
                except (WorkerError, LadderError):
                    continue  # reported, and the book says how long to rest
                self._book.opened(opened, "standby")
                await self._close(self._standby.keep(self, opened, self._distance))
                return

    async def _recover(self, lost: Rung, looping: bool) -> None:
        """Until the lost rung is back (or no longer wanted): open it, else let another answer, wait, again. A rung in
        a crash loop rests first."""
        while not self._closing and self.wanted == lost.name:
            if looping and self.active is None:
                async with self._lock:
                    if self.active is None:
                        await self._fall_back(lost)
            await asyncio.sleep(self._book.leave_alone_s(lost.name) if looping else self._backoff.next_s())
            looping = False
            async with self._lock:
                if self.wanted != lost.name or (self.active is not None and self.active.rung.name == lost.name):
                    return
                try:
                    opened = await self._open(lost)
                except (WorkerError, LadderError):
                    if self.active is None:
                        await self._fall_back(lost)
                    continue
                old = self.active
                self._seat(opened)
                self._tell("worker_restarted", f"{opened.label} answers again", "info")
                if old is not None:
                    await self._retire(old)
                return

    async def _fall_back(self, lost: Rung) -> None:
        """Its declared twin first, then the weaker rungs (they are quicker to load), then the stronger ones."""
        names = [r.name for r in self._folder.manifest.rung]
        at = names.index(lost.name)
        order = dict.fromkeys([lost.twin, *names[at + 1 :], *reversed(names[:at])])
        order.pop("", None)
        try:
            await self._open_one_of(order)
        except UnavailableError as error:
            self.error = "; ".join(filter(None, [f"{lost.name}: {self._book.why_not(lost.name)}", self.error]))
            log.error("%s", error)

    def _tell(self, kind: str, message: str, severity: str) -> None:
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
