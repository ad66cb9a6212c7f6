"""The loop around the law: looks, decides, acts, and keeps the reasons.

catalog + readings -> survey -> policy.choose -> Switchable.switch -> Decision -> journal, and an event when it is news

One wake-up a period for all ladders. A change of rung may take a minute (a worker opens its artifact), so it is made
in a task of its own: meanwhile the other ladders are decided on, and this one is left alone. Never decides itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from flyball.clock import Clock
from flyball.config import Config
from flyball.errors import FlyballError
from flyball.events import Event, Events
from flyball.governor import pins
from flyball.governor.constraints import check
from flyball.governor.journal import Entry, Journal
from flyball.governor.policy import against, choose
from flyball.governor.state import State
from flyball.governor.survey import survey
from flyball.governor.values import Limits, Observation, View
from flyball.ports import Catalog, Decision, Ladder, Pin, Readings, SwitchReport

log = logging.getLogger(__name__)

Key = tuple[str, str]  # name and version: another version is another ladder, with other rungs


@dataclass(slots=True)
class _Governed:
    """What is kept of one ladder. `change` is held while its rung is being changed."""

    state: State = field(default_factory=State)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)
    acting: asyncio.Task[None] | None = None
    faulty: bool = False


class Governor:
    """Implements ports.Steering. `floor` gives a ladder's accuracy floor, None where it has none."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        readings: Readings,
        events: Events,
        clock: Clock,
        floor: Callable[[str], float | None] = lambda ladder: None,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._readings = readings
        self._events = events
        self._clock = clock
        self._floor = floor
        self._governed: dict[Key, _Governed] = {}
        self._journals: dict[str, Journal] = {}

    async def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Until cancelled; `beat` is called every period."""
        try:
            while True:
                started_s = self._clock.monotonic_s()
                self.tick()
                beat()
                spent_s = self._clock.monotonic_s() - started_s
                period_s = self._config.governor.period_s
                await asyncio.sleep(max(period_s - spent_s, period_s / 10))
        finally:
            acting = [g.acting for g in self._governed.values() if g.acting is not None]
            for task in acting:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)

    def apply(self, config: Config) -> None:
        """New limits, modes and pins take effect at the next period; what was learnt is kept."""
        before, self._config = self._config, config
        for (name, _), governed in self._governed.items():
            old, new = pins.configured(before, name), pins.configured(config, name)
            if new != old:
                self._pin_as_configured(name, governed, new)

    def mode(self) -> str:
        return self._config.governor.mode

    def pins(self) -> Sequence[Pin]:
        now_s = self._clock.monotonic_s()
        held = [g.state.pin for g in self._governed.values()]
        return tuple(p for p in held if p is not None and (p.until_s is None or p.until_s > now_s))

    # ------------------------------------------------------------------------------------------------ steering

    async def pin(self, ladder: str, rung: str, for_s: float | None, force: bool = False) -> SwitchReport | None:
        """A pin that cannot be had changes nothing; one that a limit of temperature or memory stands against is kept,
        and its rung taken once that allows it."""
        target = self._catalog.get(ladder)
        pins.check_time(for_s)
        pins.check_rung(target, rung)
        governed = self._of(target)
        async with governed.change:
            source, report = target.status().active, None
            held_back = "" if force else self._against(target, governed, rung)
            if source != rung and not held_back:
                report = await target.switch(rung, "pin")
            now_s = self._clock.monotonic_s()
            pin = Pin(ladder=ladder, rung=rung, until_s=None if for_s is None else now_s + for_s, force=force)
            if source == rung and governed.state.pin == pin:
                return None
            decision = self._order(ladder, source or "", rung, f"held at {rung} {pins.until(for_s)}, as asked for")
            if held_back:
                decision, report = pins.put_off(decision, held_back)
            elif report is not None:
                governed.state = governed.state.moved(decision, Observation(), self._config.governor, now_s)
            governed.state = replace(governed.state, pin=pin)
        self._journal(ladder).keep(Entry(decision=decision), steady=1)
        self._tell("pin", ladder, decision.reason)
        return report

    async def release(self, ladder: str) -> None:
        governed = self._of(self._catalog.get(ladder))
        if governed.state.pin is not None:
            governed.state = replace(governed.state, pin=None)
            self._tell("unpin", ladder, f"{ladder} is released: the governor chooses again")

    def decisions(self, ladder: str | None = None) -> Sequence[Decision]:
        journals = [j for name, j in self._journals.items() if ladder in (None, name)]
        return sorted((d for journal in journals for d in journal.decisions()), key=lambda d: d.t_s)

    # ------------------------------------------------------------------------------------------------ the loop

    def tick(self) -> None:
        """One decision for every ladder whose rung is not being changed right now."""
        present = self._catalog.ladders()
        self._forget({(ladder.name, ladder.version) for ladder in present})
        for ladder in present:
            governed = self._of(ladder)
            try:
                if governed.acting is None and not governed.change.locked():
                    self._consider(ladder, governed)
                if governed.faulty:
                    governed.faulty = False
                    log.warning("decisions for the ladder %s work again", ladder.name)
            except Exception:
                # The boundary of this loop: one ladder's fault must not end the governing of the others.
                if not governed.faulty:
                    governed.faulty = True
                    log.exception("no decision could be made for the ladder %s", ladder.name)

    def _consider(self, ladder: Ladder, governed: _Governed) -> None:
        settings, pin = self._config.governor, governed.state.pin
        view = self._look(ladder, governed)
        decision, governed.state = choose(view, self._limits(ladder.name), settings, governed.state)
        if pin is not None and governed.state.pin is None:
            self._tell("unpin", ladder.name, f"the time for which {ladder.name} was held at {pin.rung} is over")
        if decision.target == decision.source or (settings.mode == "observe" and decision.action != "pin"):
            self._keep(ladder, decision, view, governed)
            return
        task = asyncio.get_running_loop().create_task(self._act(ladder, governed, decision, view, governed.state.pin))
        governed.acting = task
        task.add_done_callback(lambda _: _finish(governed))

    async def _act(self, ladder: Ladder, governed: _Governed, decision: Decision, view: View, pin: Pin | None) -> None:
        async with governed.change:
            if governed.state.pin != pin or governed.state.active != decision.source:
                return  # somebody gave an order between the decision and now
            error = ""
            try:
                await ladder.switch(decision.target, decision.binding)
            except FlyballError as refusal:
                error = str(refusal)
            except Exception as fault:
                # The boundary of this task: what the rung above did wrong is told as any other failure to switch.
                log.exception("the ladder %s could not be switched to %s", ladder.name, decision.target)
                error = f"{type(fault).__name__}: {fault}"
            rules, now_s = self._config.governor, self._clock.monotonic_s()
            if error:
                governed.state = governed.state.refused(decision.target, error, rules, now_s)
            else:
                governed.state = governed.state.moved(decision, view.seen, rules, now_s)
            self._keep(ladder, msgspec.structs.replace(decision, acted=not error, error=error), view, governed)

    # ------------------------------------------------------------------------------------------------ what is kept

    def _of(self, ladder: Ladder) -> _Governed:
        key = (ladder.name, ladder.version)
        governed = self._governed.get(key)
        if governed is None:
            governed = self._governed[key] = _Governed()
            pinned = pins.configured(self._config, ladder.name)
            if pinned:
                self._pin_as_configured(ladder.name, governed, pinned)
        return governed

    def _pin_as_configured(self, name: str, governed: _Governed, rung: str) -> None:
        if not rung:
            if governed.state.pin is not None:
                governed.state = replace(governed.state, pin=None)
                self._tell("unpin", name, f"{name} is no longer pinned in the configuration: the governor chooses")
            return
        try:
            pins.check_rung(self._catalog.get(name), rung)
        except FlyballError as error:
            self._tell("pin", name, f"[ladder.{name}] rung is left aside: {error}", severity="error")
            return
        governed.state = replace(governed.state, pin=Pin(ladder=name, rung=rung, until_s=None))
        self._tell("pin", name, f"held at {rung} until released, as configured in [ladder.{name}]")

    def _forget(self, present: set[Key]) -> None:
        for key in [key for key in self._governed if key not in present]:
            gone = self._governed.pop(key)
            if gone.state.pin is not None and key[0] in {name for name, _ in present}:
                self._tell("unpin", key[0], f"{key[0]} was replaced by another version: the pin has ended with it")
        names = {name for name, _ in present}
        self._journals = {name: journal for name, journal in self._journals.items() if name in names}

    def _journal(self, ladder: str) -> Journal:
        return self._journals.setdefault(ladder, Journal())

    def _look(self, ladder: Ladder, governed: _Governed) -> View:
        floor = self._floor(ladder.name)
        return survey(ladder, self._readings, floor, self._config.governor, governed.state, self._clock)

    def _against(self, ladder: Ladder, governed: _Governed, rung: str) -> str:
        view = self._look(ladder, governed)
        return against(view, self._limits(ladder.name), self._config.governor, governed.state, rung)

    def _limits(self, ladder: str) -> Limits:
        return Limits.of(self._config, ladder)

    # ------------------------------------------------------------------------------------------------ telling

    def _keep(self, ladder: Ladder, decision: Decision, view: View, governed: _Governed) -> None:
        rules = self._config.governor
        checks = check(view.seen, self._limits(ladder.name), rules)
        lost = ",".join(loss.name() for loss in governed.state.lost(view.seen, checks))
        health = f"{ladder.status().state} {lost}".strip()
        steady = max(rules.up_windows, rules.of_windows)
        if not self._journal(ladder.name).keep(Entry(decision=decision, health=health), steady):
            return
        move = f"{decision.source} -> {decision.target}" if decision.source != decision.target else decision.source
        failure = f" ({decision.error})" if decision.error else ""
        level = logging.WARNING if decision.error else logging.INFO
        log.log(level, "%s: %s: %s%s", ladder.name, move or "no rung", decision.reason, failure)
        broken = any(c.broken for c in checks)
        self._events.publish(
            Event(
                kind="decision",
                t_s=decision.t_s,
                message=decision.reason + failure,
                ladder=decision.ladder,
                severity="warning" if decision.error or broken else "info",
                detail={
                    "action": decision.action,
                    "from": decision.source,
                    "to": decision.target,
                    "binding": decision.binding,
                    "acted": decision.acted,
                    "error": decision.error,
                    "health": health,
                },
            )
        )

    def _order(self, ladder: str, source: str, rung: str, reason: str) -> Decision:
        return Decision(
            ladder=ladder,
            t_s=self._clock.monotonic_s(),
            wall_s=self._clock.wall_s(),
            action="pin",
            source=source,
            target=rung,
            reason=reason,
            binding="pin",
            acted=True,
        )

    def _tell(self, kind: str, ladder: str, message: str, severity: str = "info") -> None:
        failed = severity == "error"
        log.log(logging.ERROR if failed else logging.INFO, "%s", message)
        self._events.publish(
            Event(
                kind=kind,
                t_s=self._clock.monotonic_s(),
                message=message,
                ladder=ladder,
                severity="error" if failed else "info",
            )
        )


def _finish(governed: _Governed) -> None:
    governed.acting = None
