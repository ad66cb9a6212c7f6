"""The loop around the law: looks, decides, acts, and keeps the reasons.

catalog + readings -> survey -> policy.decide -> Switchable.switch -> Decision -> journal, and an event when it is news

One wake-up a period for all ladders. A change of rung may take a minute (a worker opens its artifact), so it is made
in a task of its own: meanwhile the other ladders are decided on, and this one is left alone. Never decides itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from flyball.config import Config
from flyball.errors import FlyballError
from flyball.events import Event, Events
from flyball.governor import news, pins, warnings
from flyball.governor.constraints import check
from flyball.governor.insight import Insight
from flyball.governor.journal import Entry, Journal
from flyball.governor.policy import against_order, decide
from flyball.governor.recording import Recording
from flyball.governor.rules import Rule, rules_of, unknown_rungs
from flyball.governor.sources import losses
from flyball.governor.state import State
from flyball.governor.survey import Sources, Survey
from flyball.governor.values import LadderView, View, limits_of
from flyball.ports import Catalog, Decision, GovernorFigures, Ladder, Pin, SwitchReport

log = logging.getLogger(__name__)

Key = tuple[str, str]  # name and version: another version is another ladder, with other rungs
OUTCOME_S = 10.0  # after a change: what came of it


@dataclass(slots=True)
class _Governed:
    """What is kept of one ladder beside its State. `change` is held while its rung is being changed."""

    change: asyncio.Lock = field(default_factory=asyncio.Lock)
    acting: asyncio.Task[None] | None = None
    rules: tuple[Rule, ...] = ()


class Governor:
    """Implements ports.Steering."""

    def __init__(self, config: Config, catalog: Catalog, events: Events, sources: Sources) -> None:
        self._config = config
        self._catalog = catalog
        self._events = events
        self._clock = sources.clock
        self._survey = Survey(sources)
        self._state = State()
        self._warned = warnings.State()
        self._governed: dict[Key, _Governed] = {}
        self._journals: dict[str, Journal] = {}
        self._recording: Recording | None = None
        self._insight = Insight()
        self._faulty = False

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
            self.record(None)
            acting = [g.acting for g in self._governed.values() if g.acting is not None]
            for task in acting:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)

    def apply(self, config: Config) -> None:
        """New limits, modes, rules and pins take effect at the next period; what was learnt is kept."""
        before, self._config = self._config, config
        for (name, _), governed in self._governed.items():
            self._take_rules(name, governed)
            old, new = pins.configured(before, name), pins.configured(config, name)
            if new != old:
                self._pin_as_configured(name, new)

    def mode(self) -> str:
        return self._config.governor.mode

    def pins(self) -> Sequence[Pin]:
        now_s = self._clock.monotonic_s()
        held = [own.pin for own in self._state.ladders.values()]
        return tuple(p for p in held if p is not None and (p.until_s is None or p.until_s > now_s))

    def record(self, recording: Recording | None) -> None:
        """From now on every look and decision also goes there, until another is given or it is over."""
        if self._recording is not None:
            self._recording.close()
        self._recording = recording
        if recording is not None:
            recording.follow(self._config.governor, self._state)

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
            held_back = "" if force else self._against(target, rung)
            if source != rung and not held_back:
                self._state = self._state.begun(ladder, pins.takes_bytes(target, rung), self._clock.monotonic_s())
                report = await target.switch(rung, "pin")
            now_s = self._clock.monotonic_s()
            pin = Pin(ladder=ladder, rung=rung, until_s=None if for_s is None else now_s + for_s, force=force)
            if source == rung and self._state.of(ladder).pin == pin:
                return None
            decision = self._order(ladder, source or "", rung, f"held at {rung} {pins.until(for_s)}, as asked for")
            if held_back:
                decision, report = pins.put_off(decision, held_back)
            elif report is not None:
                self._state = self._state.moved(decision, now_s, self._config.governor)
            self._state = self._state.pinned(ladder, pin)
        self._journal(ladder).keep(Entry(decision=decision), steady=1)
        self._tell("pin", ladder, decision.reason)
        return report

    async def release(self, ladder: str) -> None:
        self._of(self._catalog.get(ladder))
        if self._state.of(ladder).pin is not None:
            self._state = self._state.pinned(ladder, None)
            self._tell("unpin", ladder, f"{ladder} is released: the governor chooses again")

    def figures(self) -> GovernorFigures:
        """For those who watch from outside."""
        return self._insight.figures()

    def decisions(self, ladder: str | None = None) -> Sequence[Decision]:
        journals = [j for name, j in self._journals.items() if ladder in (None, name)]
        return sorted((d for journal in journals for d in journal.decisions()), key=lambda d: d.t_s)

    # ------------------------------------------------------------------------------------------------ the loop

    def tick(self) -> None:
        """One decision for every ladder whose rung is not being changed right now."""
        present = self._catalog.ladders()
        self._forget({(ladder.name, ladder.version) for ladder in present})
        free = [one for one in present if self._is_free(self._of(one))]
        try:
            self._consider(free, [one for one in present if one not in free])
            if self._faulty:
                self._faulty = False
                log.warning("decisions work again")
        except Exception:
            # The boundary of this loop: whatever is wrong with one look, the next is taken.
            if not self._faulty:
                self._faulty = True
                log.exception("no decision could be made")

    def _is_free(self, governed: _Governed) -> bool:
        return governed.acting is None and not governed.change.locked()

    def _consider(self, ladders: Sequence[Ladder], changing: Sequence[Ladder]) -> None:
        settings = self._config.governor
        view = self._survey.look(ladders, self._config, self._state, changing)
        seen_names = {seen.name for seen in view.ladders}
        ladders = [one for one in ladders if one.name in seen_names]
        thresholds = {one.name: self._of(one).rules for one in ladders if self._of(one).rules}
        before = self._state
        started_s = self._clock.monotonic_s()
        decisions, self._state = decide(view, settings, before, thresholds)
        self._insight.look(view, decisions, self._state, self._clock.monotonic_s() - started_s)
        if self._recording is not None:
            self._recording.follow(settings, before, thresholds)
            if not self._recording.keep(view, decisions, self._state):
                self.record(None)
        self._early(view)
        for ladder, seen, decision in zip(ladders, view.ladders, decisions, strict=True):
            pin = self._state.of(ladder.name).pin
            old = before.of(ladder.name).pin
            if old is not None and pin is None:
                self._tell("unpin", ladder.name, f"the time for which {ladder.name} was held at {old.rung} is over")
            self._conclude(ladder.name, seen, view)
            if decision.notice:
                self._tell("rule", ladder.name, decision.notice)
            if decision.target == decision.source or (settings.mode == "observe" and decision.action != "pin"):
                self._keep(ladder, decision, seen, view)
                continue
            governed = self._of(ladder)
            task = asyncio.get_running_loop().create_task(self._act(ladder, governed, decision, seen, view, pin))
            governed.acting = task
            task.add_done_callback(lambda _, governed=governed: _finish(governed))  # type: ignore[misc]

    async def _act(
        self, ladder: Ladder, governed: _Governed, decision: Decision, seen: LadderView, view: View, pin: Pin | None
    ) -> None:
        async with governed.change:
            own = self._state.of(ladder.name)
            if own.pin != pin or own.active != decision.source:
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
            rules, now_s, before = self._config.governor, self._clock.monotonic_s(), self._state
            if error:
                self._state = self._state.refused(decision, error, now_s, rules)
            else:
                self._state = self._state.moved(decision, now_s, rules)
            if self._recording is not None:
                self._recording.follow(rules, before)
                self._recording.done(decision, error, now_s, self._state)
            self._keep(ladder, msgspec.structs.replace(decision, acted=not error, error=error), seen, view)

    def _early(self, view: View) -> None:
        """Warnings of what is coming, told once."""
        names = [ladder.name for ladder in self._catalog.ladders()] or [""]  # none: what holds for every ladder
        kept, zones = [limits_of(self._config, name) for name in names], tuple(view.machine.zones)
        self._warned, told = warnings.warn(
            self._warned,
            view.now_s,
            self._state.zones,
            self._state.memory,
            warnings.limits_for(kept, zones, self._survey.trips_c(zones)),
            warnings.Horizons(),
        )
        for warning in told:
            event = warnings.event(warning, view.now_s)
            log.log(logging.WARNING if event.severity != "info" else logging.INFO, "%s", event.message)
            self._events.publish(event)

    # ------------------------------------------------------------------------------------------------ what is kept

    def _of(self, ladder: Ladder) -> _Governed:
        key = (ladder.name, ladder.version)
        governed = self._governed.get(key)
        if governed is None:
            governed = self._governed[key] = _Governed()
            self._take_rules(ladder.name, governed)
            pinned = pins.configured(self._config, ladder.name)
            if pinned:
                self._pin_as_configured(ladder.name, pinned)
        return governed

    def _take_rules(self, name: str, governed: _Governed) -> None:
        """Those that the configuration states; it was checked when it was read. Rungs are known only here."""
        fresh = rules_of(self._config, name)
        if fresh != governed.rules:
            known = [r.name for r in self._catalog.get(name).status().rungs]
            for sentence in unknown_rungs(fresh, known):
                self._tell("rule", name, sentence, severity="error")
        governed.rules = fresh

    def _pin_as_configured(self, name: str, rung: str) -> None:
        if not rung:
            if self._state.of(name).pin is not None:
                self._state = self._state.pinned(name, None)
                self._tell("unpin", name, f"{name} is no longer pinned in the configuration: the governor chooses")
            return
        try:
            pins.check_rung(self._catalog.get(name), rung)
        except FlyballError as error:
            self._tell("pin", name, f"[ladder.{name}] rung is left aside: {error}", severity="error")
            return
        self._state = self._state.pinned(name, Pin(ladder=name, rung=rung, until_s=None))
        self._tell("pin", name, f"held at {rung} until released, as configured in [ladder.{name}]")

    def _forget(self, present: set[Key]) -> None:
        names = {name for name, _ in present}
        for key in [key for key in self._governed if key not in present]:
            del self._governed[key]
            if self._state.of(key[0]).pin is not None and key[0] in names:
                self._tell("unpin", key[0], f"{key[0]} was replaced by another version: the pin has ended with it")
            ladders = {name: own for name, own in self._state.ladders.items() if name != key[0]}
            self._state = msgspec.structs.replace(self._state, ladders=ladders)
        self._journals = {name: journal for name, journal in self._journals.items() if name in names}
        self._insight.forget(frozenset(names))

    def _journal(self, ladder: str) -> Journal:
        return self._journals.setdefault(ladder, Journal())

    def _against(self, ladder: Ladder, rung: str) -> str:
        view = self._survey.look([ladder], self._config, self._state)
        return against_order(view, self._config.governor, self._state, ladder.name, rung)

    def _conclude(self, name: str, seen: LadderView, view: View) -> None:
        """What came of the last change, once there was time for it to show."""
        self._journal(name).conclude(seen.active or "", view.now_s - OUTCOME_S, news.outcome(seen, view))

    # ------------------------------------------------------------------------------------------------ telling

    def _keep(self, ladder: Ladder, decision: Decision, seen: LadderView, view: View) -> None:
        rules = self._config.governor
        checks = check(view.machine, seen, rules, self._state.power_w)
        gone = losses(self._state.sensed, view.machine, frozenset(c.constraint for c in checks))
        lost = ",".join(loss.name() for loss in gone)
        health = f"{ladder.status().state} {lost}".strip()
        steady = max(rules.up_windows, rules.of_windows)
        if not self._journal(ladder.name).keep(Entry(decision=decision, health=health), steady):
            return
        log.log(logging.WARNING if decision.error else logging.INFO, "%s", news.headline(decision))
        self._events.publish(news.decided(decision, health, any(c.broken for c in checks)))

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
