"""Ways to an answer that cost less than the active rung's run: the cascade and the answer cache, where configured.

request -> cascade (a cheap rung first) -> cache (seen before?) -> compute
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from flyball.clock import Clock
from flyball.config import Cascade as CascadeSettings
from flyball.config import Engine, LadderSettings
from flyball.engine.cache import AnswerCache
from flyball.engine.cascade import Cascade, Plan
from flyball.engine.complexity import Complexity
from flyball.engine.seats import Seats
from flyball.ladder.manifest import LadderFolder
from flyball.ports import Answer, InferRequest

log = logging.getLogger(__name__)


class Shortcuts:
    """Of one ladder; without settings every request goes straight on."""

    def __init__(
        self,
        folder: LadderFolder,
        settings: LadderSettings,
        config: Engine,
        seats: Seats,
        compute: Callable[[InferRequest], Awaitable[Answer]],
        clock: Clock,
    ) -> None:
        self._names = [r.name for r in folder.manifest.rung]
        self._seats = seats
        self._compute = compute
        self._limit_s = config.request_timeout_s
        self._clock = clock
        self._first = ""
        self._cache: AnswerCache | None = None
        self._cascade: Cascade | None = None
        if settings.cache is not None:
            kept_bytes = int(settings.cache.max_mib * (1 << 20))
            self._cache = AnswerCache(kept_bytes, settings.cache.ttl_s, folder.version, clock)
        if settings.cascade is not None:
            self._build_cascade(folder, settings.cascade)

    async def answer(self, request: InferRequest) -> Answer:
        if self._cascade is not None and request.rung is None and not self._above_active(self._first):
            return await self._cascade.answer(request, self._looked_up)
        return await self._looked_up(request)

    @property
    def none(self) -> bool:
        """Whether every request goes straight on."""
        return self._cascade is None and self._cache is None

    def counts(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Of the cache and of the cascade; empty for what is not there."""
        cache = {} if self._cache is None else msgspec.structs.asdict(self._cache.stats())
        cascade = {} if self._cascade is None else msgspec.structs.asdict(self._cascade.stats())
        return cache, cascade

    def forget(self) -> None:
        """A rung was found to answer wrongly: what it has said lately may be wrong too."""
        if self._cache is not None:
            self._cache.clear()

    def retire(self) -> None:
        """Others take its place; requests that are in here are answered nonetheless."""
        if self._cache is not None:
            self._cache.retire()

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    async def _looked_up(self, request: InferRequest) -> Answer:
        if self._cache is None:
            return await self._compute(request)
        limit_s = self._limit_s if request.timeout_s is None else min(self._limit_s, request.timeout_s)
        return await self._cache.answer(request, self._active, self._compute, limit_s)

    def _active(self) -> str | None:
        return None if self._seats.active is None else self._seats.active.rung.name

    def _build_cascade(self, folder: LadderFolder, wanted: CascadeSettings) -> None:
        unknown = [name for name in (wanted.first, wanted.then) if name not in self._names]
        why = ""
        if unknown:
            why = f"the ladder has no rung {unknown[0]!r}"
        elif folder.manifest.ladder.task != "image-classification":
            why = "only for the task image-classification"
        elif self._names.index(wanted.then) >= self._names.index(wanted.first):
            why = f"{wanted.then!r} is not stronger than {wanted.first!r}"
        if why:
            log.error("[ladder.%s.cascade] is left aside: %s", folder.name, why)
            return
        above = []
        if wanted.complexity_bits is not None:
            above.append(Complexity("entropy-bits", wanted.complexity_bits))
        if wanted.complexity_file_bits is not None:
            above.append(Complexity("file-bits-per-pixel", wanted.complexity_file_bits))
        plan = Plan(
            first=wanted.first,
            then=wanted.then,
            measure=wanted.measure,
            threshold=wanted.threshold,
            share=wanted.budget,
            start_above=tuple(above),
        )
        self._first = wanted.first
        self._cascade = Cascade(plan, len(folder.labels), self._predicted_s, self._clock, self._limit_s)

    def _above_active(self, rung: str) -> bool:
        """Stronger than what the governor allows now."""
        active = self._active()
        return active is None or self._names.index(rung) < self._names.index(active)

    def _predicted_s(self, rung: str) -> float | None:
        """What an answer of the rung takes; endless while it may not answer."""
        if self._above_active(rung):
            return math.inf
        opened = next((o for o in self._seats.opened() if o.rung.name == rung), None)
        return None if opened is None else opened.pace.own_s
