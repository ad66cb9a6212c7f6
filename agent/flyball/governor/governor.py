"""The loop around the law: looks, decides, acts, and keeps the reasons.

catalog + readings -> view -> policy.choose -> Switchable.switch -> Decision -> ring, and an event when it matters

One wake-up a period for all ladders. A fault in one ladder's decision is logged once and does not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from flyball.clock import Clock
from flyball.config import Config, Limits
from flyball.errors import FlyballError, NotFoundError
from flyball.events import Event, Events
from flyball.governor.policy import broken_limit, choose, moved
from flyball.governor.view import Bounds, Observation, RungView, State, bounds
from flyball.ports import Catalog, Decision, Ladder, LadderStatus, LatencyWindow, Pin, Readings, SwitchReport

log = logging.getLogger(__name__)

_KEPT = 256  # decisions per ladder
# How long a rung that could not be switched to is left alone, doubled at every failure in a row.
_RETRY_S = 30.0
_RETRY_MAX_S = 3600.0


class Governor:
    """Implements ports.Steering. `floors` gives a ladder's accuracy floor, None where it has none."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        readings: Readings,
        events: Events,
        clock: Clock,
        floors: Callable[[str], float | None],
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._readings = readings
        self._events = events
        self._clock = clock
        self._floors = floors
        self._states: dict[tuple[str, str], State] = {}
        self._pins: dict[str, Pin] = {}
        self._rings: dict[str, deque[Decision]] = {}
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}  # failures in a row, monotonic end of the wait
        self._faulty: set[str] = set()
        self._bindings: dict[str, str] = {}

    async def run(self, beat: Callable[[], None]) -> None:
        """Until cancelled; `beat` is called every period."""
        while True:
            await self.tick()
            beat()
            await asyncio.sleep(self._config.governor.period_s)

    def apply(self, config: Config) -> None:
        """New limits and modes take effect at the next period; what was learnt is kept."""
        self._config = config

    def mode(self) -> str:
        return self._config.governor.mode

    # ------------------------------------------------------------------------------------------------ steering

    async def pin(self, ladder: str, rung: str, for_s: float | None) -> SwitchReport | None:
        target = self._catalog.get(ladder)
        status = target.status()
        if rung not in {r.name for r in status.rungs}:
            known = ", ".join(r.name for r in status.rungs)
            raise NotFoundError(f"ladder {ladder} has no rung {rung!r} (it has: {known})")
        report = None if status.active == rung else await target.switch(rung, "pin")
        now_s = self._clock.monotonic_s()
        self._pins[ladder] = Pin(ladder=ladder, rung=rung, until_s=None if for_s is None else now_s + for_s)
        until = "until it is released" if for_s is None else f"for {for_s:.0f} s"
        reason = f"held on {rung} {until}, as asked for"
        self._keep(
            self._pinned(target.status(), rung, report.source or "" if report else rung, reason), report is not None
        )
        return report

    async def release(self, ladder: str) -> None:
        self._catalog.get(ladder)
        if self._pins.pop(ladder, None) is not None:
            self._tell("unpin", ladder, f"{ladder} is released: the governor chooses again")

    def pins(self) -> Sequence[Pin]:
        return tuple(self._pins.values())

    def decisions(self, ladder: str | None = None) -> Sequence[Decision]:
        if ladder is not None:
            return tuple(self._rings.get(ladder, ()))
        return tuple(sorted((d for ring in self._rings.values() for d in ring), key=lambda d: d.t_s))

    # ------------------------------------------------------------------------------------------------ the loop

    async def tick(self) -> None:
        """One decision for every ladder."""
        present = self._catalog.ladders()
        self._forget({(ladder.name, ladder.version) for ladder in present})
        for ladder in present:
            try:
                await self._decide(ladder)
                if ladder.name in self._faulty:
                    self._faulty.remove(ladder.name)
                    log.warning("decisions for %s work again", ladder.name)
            except Exception:
                # The boundary of this loop: one ladder's fault must not end the governing of the others.
                if ladder.name not in self._faulty:
                    self._faulty.add(ladder.name)
                    log.exception("no decision could be made for %s", ladder.name)

    async def _decide(self, ladder: Ladder) -> None:
        status = ladder.status()
        settings = self._config.governor
        window = ladder.window(settings.window_s)
        if status.active is None or window is None or window.rung != status.active:
            return  # between two rungs, or none could be opened: the engine's concern
        now_s = self._clock.monotonic_s()
        observed = self._observe(window)
        limits = self._bounds(ladder.name)
        pin = self._pin(ladder.name, now_s)
        if pin is not None:
            await self._hold(ladder, status, pin, broken_limit(observed, limits))
            return
        key = (ladder.name, ladder.version)
        state = self._states.get(key)
        if state is None:
            state = State(active=status.active, since_s=now_s)
        elif state.active != status.active:  # moved by a pin, or by recovery from a crash
            state = msgspec.structs.replace(state, active=status.active, since_s=now_s, broken=(), clear=0)
        rungs = self._rungs(status, now_s)
        decision, state = choose(ladder.name, rungs, observed, limits, settings, state, now_s, self._clock.wall_s())
        self._states[key] = state
        if decision.target == decision.source or settings.mode == "observe":
            self._keep(decision, changed=False)
            return
        try:
            await ladder.switch(decision.target, decision.binding or "headroom")
        except FlyballError as error:
            self._leave_alone(ladder.name, decision.target)
            self._keep(msgspec.structs.replace(decision, error=str(error)), changed=True)
            return
        self._failed.pop((ladder.name, decision.target), None)
        self._states[key] = moved(state, decision, observed, settings, self._clock.monotonic_s())
        self._keep(msgspec.structs.replace(decision, acted=True), changed=True)

    async def _hold(self, ladder: Ladder, status: LadderStatus, pin: Pin, broken: str) -> None:
        if status.active != pin.rung and not self._is_left_alone(ladder.name, pin.rung):
            try:
                await ladder.switch(pin.rung, "pin")
            except FlyballError as error:
                self._leave_alone(ladder.name, pin.rung)
                why = f"held on {pin.rung}, which cannot be opened"
                decision = self._pinned(status, pin.rung, status.active or "", why)
                self._keep(msgspec.structs.replace(decision, error=str(error), acted=False), changed=True)
                return
        reason = f"held on {pin.rung}" + (f"; the {broken} limit is broken meanwhile" if broken else "")
        self._keep(self._pinned(ladder.status(), pin.rung, pin.rung, reason, broken), changed=False)

    def _pinned(self, status: LadderStatus, rung: str, source: str, reason: str, binding: str = "") -> Decision:
        return Decision(
            ladder=status.name,
            t_s=self._clock.monotonic_s(),
            wall_s=self._clock.wall_s(),
            action="pin",
            source=source,
            target=rung,
            reason=reason,
            binding=binding,
            acted=True,
        )

    # ------------------------------------------------------------------------------------------------ looking

    def _observe(self, window: LatencyWindow) -> Observation:
        """Readings that are failed or stale are absent, and with them the constraints that rest on them."""
        newest = self._readings.latest()
        zones = [r for r in newest if r.quantity == "temperature"]
        hottest = max(zones, key=lambda r: r.value, default=None)
        cpu = self._readings.window("cpu_utilization", self._config.governor.window_s)
        memory = next((r.value for r in newest if r.quantity == "memory_available"), None)
        return Observation(
            window=window,
            cpu=cpu.mean if cpu is not None else None,
            memory_available_bytes=memory,
            temperature_c=hottest.value if hottest is not None else None,
            zone=hottest.name if hottest is not None else "",
        )

    def _bounds(self, ladder: str) -> Bounds:
        own = self._config.ladder.get(ladder)
        limits: Limits = own.limits if own is not None and own.limits is not None else self._config.governor.limits
        return bounds(limits, self._config.governor, self._floors(ladder))

    def _rungs(self, status: LadderStatus, now_s: float) -> list[RungView]:
        views = []
        for rung in status.rungs:
            why_not = ""
            if rung.state == "no-accelerator":
                why_not = rung.error
            elif self._is_left_alone(status.name, rung.name):
                why_not = f"it could not be opened: {rung.error}" if rung.error else "it failed a short while ago"
            views.append(
                RungView(
                    name=rung.name,
                    accuracy=rung.accuracy,
                    why_not="" if rung.name == status.active else why_not,
                    profiled_p50_s=rung.profiled_p50_s,
                    resident_bytes=rung.rss_bytes,
                )
            )
        return views

    def _leave_alone(self, ladder: str, rung: str) -> None:
        failures = self._failed.get((ladder, rung), (0, 0.0))[0] + 1
        wait_s = min(_RETRY_S * 2.0 ** min(failures - 1, 20), _RETRY_MAX_S)
        self._failed[ladder, rung] = (failures, self._clock.monotonic_s() + wait_s)

    def _is_left_alone(self, ladder: str, rung: str) -> bool:
        return self._failed.get((ladder, rung), (0, 0.0))[1] > self._clock.monotonic_s()

    def _pin(self, ladder: str, now_s: float) -> Pin | None:
        pin = self._pins.get(ladder)
        if pin is not None and pin.until_s is not None and now_s >= pin.until_s:
            del self._pins[ladder]
            self._tell("unpin", ladder, f"the time for which {ladder} was held on {pin.rung} is over")
            return None
        return pin

    def _forget(self, present: set[tuple[str, str]]) -> None:
        for key in [key for key in self._states if key not in present]:
            del self._states[key]

    # ------------------------------------------------------------------------------------------------ telling

    def _keep(self, decision: Decision, changed: bool) -> None:
        self._rings.setdefault(decision.ladder, deque(maxlen=_KEPT)).append(decision)
        binding_changed = self._bindings.get(decision.ladder, "") != decision.binding
        self._bindings[decision.ladder] = decision.binding
        if not (changed or binding_changed):
            return
        level = logging.WARNING if decision.error else logging.INFO
        move = f"{decision.source} -> {decision.target}" if decision.source != decision.target else decision.source
        log.log(
            level,
            "%s: %s: %s%s",
            decision.ladder,
            move,
            decision.reason,
            f" ({decision.error})" if decision.error else "",
        )
        self._events.publish(
            Event(
                kind="decision",
                t_s=decision.t_s,
                message=decision.reason,
                ladder=decision.ladder,
                severity="warning" if decision.error else "info",
                detail={
                    "action": decision.action,
                    "from": decision.source,
                    "to": decision.target,
                    "binding": decision.binding,
                    "acted": decision.acted,
                    "error": decision.error,
                },
            )
        )

    def _tell(self, kind: str, ladder: str, message: str) -> None:
        log.info("%s", message)
        self._events.publish(Event(kind=kind, t_s=self._clock.monotonic_s(), message=message, ladder=ladder))
