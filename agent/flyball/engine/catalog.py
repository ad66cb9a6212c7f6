"""The ladders in service, by name: loaded, replaced by another version, removed, without losing a request.

folder -> LadderRunner -> started -> in the catalog;  the one it replaces is drained and closed
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from flyball.clock import Clock
from flyball.config import Engine, LadderSettings
from flyball.engine.devices import probe_backend
from flyball.engine.runner import DEFAULTS, LadderRunner
from flyball.engine.share import Shares
from flyball.engine.standby import Standby
from flyball.errors import NotFoundError, UnavailableError
from flyball.events import Event, Events
from flyball.ladder.manifest import LadderFolder

_LOADS_AT_ONCE = 2  # more would only fight for the same cores


class EngineCatalog:
    """Implements ports.Catalog."""

    def __init__(self, config: Engine, events: Events, clock: Clock) -> None:
        self._config = config
        self._events = events
        self._clock = clock
        self._standby = Standby(int(config.standby_memory_mib * (1 << 20)))
        self._shares = Shares()
        self._loading = asyncio.Semaphore(_LOADS_AT_ONCE)
        self._runners: dict[str, LadderRunner] = {}
        self._made: set[LadderRunner] = set()  # all that are not closed, those that are loading or leaving included
        self._changes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by ladder, while one is changed
        self._closed = False
        self._kinds: dict[str, frozenset[str]] = {}

    def get(self, name: str, version: str | None = None) -> LadderRunner:
        runner = self._runners.get(name)
        if runner is None or (version is not None and runner.version != version):
            what = f"ladder {name!r}" + (f" version {version!r}" if version is not None else "")
            known = ", ".join(f"{r.name} ({r.version})" for r in self._runners.values()) or "none"
            raise NotFoundError(f"no {what} is in service (in service: {known})")
        return runner

    def ladders(self) -> Sequence[LadderRunner]:
        return tuple(self._runners.values())

    def tend(self) -> None:
        """Once a second or so: looks after the workers."""
        for runner in self._runners.values():
            runner.tend()

    async def load(self, folder: LadderFolder, first: str = "", settings: LadderSettings = DEFAULTS) -> None:
        """Puts the ladder into service, in place of another version of it; returns when its first rung answers. Raises
        UnavailableError: then a version that was in service stays, and one that is new is listed as failed and tried
        again. Changes of one ladder happen one after the other."""
        async with self._change_of(folder.name):
            await self._load(folder, first, settings)

    async def _load(self, folder: LadderFolder, first: str, settings: LadderSettings) -> None:
        self._refuse_when_closed()
        runner = LadderRunner(folder, self._config, self._standby, self._events, self._clock, settings, self._shares)
        self._made.add(runner)
        old = self._runners.get(folder.name)
        if old is None:
            self._runners[folder.name] = runner  # requests that come before its first rung is open wait for it
        try:
            async with self._loading:
                runner.limit_to(await self._accelerators(folder))
                await runner.start(first)
            self._refuse_when_closed()
        except BaseException as error:
            if old is None and isinstance(error, UnavailableError) and not self._closed:
                runner.keep_trying(first)
                raise
            if self._runners.get(folder.name) is runner:
                del self._runners[folder.name]
            await self._end(runner)
            raise
        self._runners[folder.name] = runner
        message = f"ladder {folder.name} {folder.version} is in service"
        self._events.publish(
            Event(kind="ladder_loaded", t_s=self._clock.monotonic_s(), message=message, ladder=folder.name)
        )
        if old is not None:
            await self._end(old)

    def configure(self, settings: Mapping[str, LadderSettings]) -> None:
        """After a reload: the cascade and the cache of every ladder as they are configured now."""
        for name, runner in self._runners.items():
            runner.configure(settings.get(name, DEFAULTS))

    async def remove(self, name: str) -> None:
        """Raises NotFoundError."""
        async with self._change_of(name):
            runner = self.get(name)
            del self._runners[name]
            await self._end(runner)
            message = f"ladder {name} {runner.version} is out of service"
            self._events.publish(
                Event(kind="ladder_removed", t_s=self._clock.monotonic_s(), message=message, ladder=name)
            )

    async def close(self) -> None:
        """Also what is being loaded: its load fails then."""
        self._closed = True
        self._runners = {}
        await asyncio.gather(*map(self._end, list(self._made)))

    def _change_of(self, name: str) -> asyncio.Lock:
        return self._changes.setdefault(name, asyncio.Lock())

    async def _end(self, runner: LadderRunner) -> None:
        await runner.close()
        self._made.discard(runner)

    def _refuse_when_closed(self) -> None:
        """Raises UnavailableError."""
        if self._closed:
            raise UnavailableError("no ladder can be loaded: the engine is closing")

    async def _accelerators(self, folder: LadderFolder) -> frozenset[str]:
        """The kinds of accelerator that the ladder's backends find. A processor is always there; a backend is asked
        only when a rung wants more than that."""
        kinds = {"cpu"}
        for rung in folder.manifest.rung:
            if set(rung.accelerators) - {"cpu"}:
                kinds |= await self._kinds_of(rung.backend)
        return frozenset(kinds)

    async def _kinds_of(self, backend: str) -> frozenset[str]:
        if backend not in self._kinds:
            self._kinds[backend] = frozenset(a.kind for a in await probe_backend(backend))
        return self._kinds[backend]
