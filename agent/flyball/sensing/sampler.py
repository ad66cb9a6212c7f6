"""Runs the sensors, each in a thread of its own, and keeps what they read.

    sensor A --thread--+
    sensor B --thread--+--> windows <-- latest(), window(), samples()
    sensor C --thread--+      tracks <-- health(); transitions -> log and events

    sampler = Sampler(discover(roots, config.sensing), period_s, window_s, clock, events)
    sampler.start()      # in the event loop, so that events are published there
    sampler.stop()

A sensor that blocks keeps back its own thread and nothing else. All threads wake at the same multiples of the period:
with sensors of 0.1 ms that is one short burst of work per period, not one per sensor. A sensor may have a period and a
phase of its own, and none is asked more often than its hardware bears. The absent are asked once a minute. Never blocks
its callers on hardware, never keeps more than the window, never turns a failure into a figure.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from flyball.clock import Clock
from flyball.events import Event, Events
from flyball.ports import Quantity, Reading, SensorHealth, Stats
from flyball.sensing.contract import Sensor, SensorFailed, Unavailable
from flyball.sensing.total import total_power, without_superseded
from flyball.sensing.track import Change, Outcome, Track
from flyball.sensing.window import MAX_SERIES, Windows, hottest, shown

log = logging.getLogger(__name__)

STALE_PERIODS = 3
STALE_MIN_S = 5.0
SUSPENDED_S = 0.1  # the two clocks are read one after the other
STAND_IN_S = 1.0  # between two readings of an estimate that a measured total supersedes
WATCH_PERIOD_S = 1.0  # between two looks for reads that hang
FASTEST_MAX_S = 3600.0  # as in sensing.periods


class Sampler:
    """Implements ports.Readings. `period_s`, `window_s`, `periods` and `total` are config.sensing's."""

    def __init__(
        self,
        sensors: Sequence[Sensor],
        period_s: float,
        window_s: float,
        clock: Clock,
        events: Events,
        *,
        periods: Mapping[str, float] = MappingProxyType({}),
        total: str = "",
    ) -> None:
        self._period_s = period_s
        self._total = total
        self._clock = clock
        self._events = events
        self._periods = {
            s.name: max(periods.get(s.name, period_s), declared(s, "fastest_s", FASTEST_MAX_S)) for s in sensors
        }
        for name in sorted(periods.keys() - self._periods.keys()):
            log.warning("sensing.periods.%s: no sensor has this name; there are %s", name, ", ".join(self._periods))
        self._windows = Windows(window_s=window_s, period_s=period_s, periods=self._periods)
        self._sensors = [
            (s, Track(s.name, period_s=self._periods[s.name], stale_after_s=stale_after_s(self._periods[s.name])))
            for s in sensors
        ]
        self._asleep_s: dict[tuple[str, str], float] = {}  # by sensor and name of a power: see _over_a_sleep
        self._asleep_at_first_s = clock.boot_s() - clock.monotonic_s()
        self._lock = threading.Lock()  # over the tracks
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------------------------------------ running

    def start(self) -> None:
        """Called once. In a running event loop, events are published in that loop's thread; else in the sampler's."""
        if self._threads:
            raise RuntimeError("the sampler has been started already")
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        for sensor, track in self._sensors:
            # Daemon threads: a read that never returns must not keep the process from ending.
            self._threads.append(
                threading.Thread(target=self._sample, args=(sensor, track), name=f"sensor-{sensor.name}", daemon=True)
            )
        self._threads.append(threading.Thread(target=self._watch, name="sensor-watch", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Ends the threads. One that hangs in a read is left behind; it ends with the process."""
        self._stopping.set()
        deadline_s = self._clock.monotonic_s() + timeout_s
        for thread in self._threads:
            thread.join(min(timeout_s, max(0.0, deadline_s - self._clock.monotonic_s())))

    # ------------------------------------------------------------------------------------------------ reading

    def latest(self) -> Sequence[Reading]:
        """The newest reading of every quantity and name that is neither failed nor stale; the power estimate only
        where no measured total is."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            ok = {track.sensor for _, track in self._sensors if track.health(now_s).state == "ok"}
        longest_s = stale_after_s(max(self._periods.values(), default=self._period_s))
        return without_superseded(
            r
            for r in self._windows.newest(now_s - longest_s)
            if r.sensor in ok and now_s - r.t_s <= stale_after_s(self._periods[r.sensor])
        )

    def everything(self) -> Sequence[Reading]:
        """The newest reading of every quantity and name, whatever has become of its sensor, the estimate included."""
        return self._windows.newest(-math.inf)

    def window(self, quantity: Quantity, seconds: float, name: str | None = None) -> Stats | None:
        """None when nothing was read in that time.

        Without a name: of "power", the machine's total (`flyball.sensing.total`); of "temperature", the hottest zone
        figure by figure; of anything else the only name there is, and None when there are several.
        """
        stats = self._windows.stats(quantity, self._clock.monotonic_s() - seconds)
        if name is None and quantity == "power":
            total = total_power(self.latest())
            if total is None:
                return None
            name = total.name
        if name is not None:
            return stats.get(name)
        if quantity == "temperature":
            return hottest(stats.values())
        return next(iter(stats.values())) if len(stats) == 1 else None

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]:
        """(monotonic seconds, value), oldest first, as far back as the window reaches."""
        return self._windows.samples(quantity, name, since_s)

    def period_s(self, sensor: str) -> float:
        """How often this sensor is read."""
        return self._periods.get(sensor, self._period_s)

    def health(self) -> Sequence[SensorHealth]:
        now_s = self._clock.monotonic_s()
        with self._lock:
            return [track.health(now_s) for _, track in self._sensors]

    # ------------------------------------------------------------------------------------------------ threads

    def _sample(self, sensor: Sensor, track: Track) -> None:
        period_s = self._periods[sensor.name]
        later_s = declared(sensor, "phase", 1.0) * period_s
        while not self._stopping.is_set():
            self._read(sensor, track)
            now_s = self._clock.monotonic_s()
            with self._lock:
                wait_s = track.wait_s()
            rest_s = STAND_IN_S if getattr(sensor, "stands_in", False) and self._is_measured() else 0.0
            self._stopping.wait(next_tick_s(now_s + wait_s, max(period_s, rest_s), later_s) - now_s)

    def _read(self, sensor: Sensor, track: Track) -> None:
        """One read and what follows from it: the boundary that catches whatever a sensor raises."""
        now_s, asleep_s = self._clock.monotonic_s(), self._suspended_s()
        with self._lock:
            track.begin(now_s)
        readings: Sequence[object] = ()
        outcome = Outcome(state="ok")
        try:
            readings = tuple(sensor.read(now_s))
        except Unavailable as error:
            outcome = Outcome(state="unavailable", reason=_said(error))
        except SensorFailed as error:
            outcome, readings = Outcome(state="failed", reason=_said(error)), tuple(getattr(error, "readings", ()))
        except BaseException as error:  # whatever a plug-in raises: this thread is only its own
            outcome = Outcome(state="failed", reason=f"{type(error).__name__}: {_said(error)}")
            log.debug("sensor %s raised", sensor.name, exc_info=True)
        end_s = self._clock.monotonic_s()
        readings = [r for r in readings if not self._over_a_sleep(track.sensor, r, asleep_s)]
        if self._total:
            readings = [self._rescoped(reading) for reading in readings]
        taken, refused = self._windows.add(track.sensor, readings, end_s)
        if refused or (taken and outcome.state == "failed"):
            reasons = [outcome.reason, *refused] if outcome.reason else refused
            outcome = Outcome(state="ok" if taken else "failed", reason="; ".join(reasons))
        with self._lock:
            change = track.finish(end_s, outcome)
        self._tell(track.sensor, change, end_s)

    def _is_measured(self) -> bool:
        total = total_power(self.latest())
        return total is not None and total.scope != "estimated"

    def _suspended_s(self) -> float:
        """How long the machine has been suspended since it was started."""
        return self._clock.boot_s() - self._clock.monotonic_s()

    def _over_a_sleep(self, sensor: str, reading: object, begun_asleep_s: float) -> bool:
        """Whether this is a power that may be the mean over a suspension: what a counter gained then belongs to no time
        that is counted here. Its time reaches back to the beginning of the read that gave it last, whether the machine
        went to sleep after that read or in it, and however many reads have failed since."""
        if not isinstance(reading, Reading) or reading.quantity != "power":
            return False
        key = (sensor, str(reading.name))
        before_s = self._asleep_s.get(key, self._asleep_at_first_s)
        if len(self._asleep_s) >= MAX_SERIES:  # a sensor that makes up names; without its past a reading is left out
            self._asleep_s.clear()
        self._asleep_s[key] = begun_asleep_s
        return self._suspended_s() - before_s > SUSPENDED_S

    def _rescoped(self, reading: object) -> object:
        """The reading that the operator says stands for the machine, as one of the machine."""
        if isinstance(reading, Reading) and reading.quantity == "power" and reading.name == self._total:
            return msgspec.structs.replace(reading, scope="machine")
        return reading

    def _watch(self) -> None:
        period_s = max(WATCH_PERIOD_S, self._period_s)
        while not self._stopping.is_set():
            now_s = self._clock.monotonic_s()
            with self._lock:
                changes = [(track, track.check(now_s)) for _, track in self._sensors]
            for track, change in changes:
                self._tell(track.sensor, change, now_s)
            self._stopping.wait(next_tick_s(now_s, period_s) - now_s)

    def _tell(self, sensor: str, change: Change | None, now_s: float) -> None:
        """Log and publish a transition; called without the lock, since subscribers may ask the sampler."""
        if change is None:
            return
        message, level = {
            "lost": (f"the sensor {sensor} is lost ({change.state}): {change.reason}", logging.WARNING),
            "found": (f"the sensor {sensor} is back", logging.INFO),
            "partly": (f"the sensor {sensor} fails in part: {change.reason}", logging.WARNING),
            "whole": (f"the sensor {sensor} reads everything again", logging.INFO),
        }[change.kind]
        log.log(level, "%s", message)
        if change.kind not in ("lost", "found"):
            return
        self._publish(
            Event(
                kind=f"sensor_{change.kind}",
                t_s=now_s,
                message=message,
                severity="warning" if change.kind == "lost" else "info",
                detail={"sensor": sensor, "state": change.state, "reason": change.reason},
            )
        )

    def _publish(self, event: Event) -> None:
        if self._loop is None:
            self._events.publish(event)
            return
        try:
            self._loop.call_soon_threadsafe(self._events.publish, event)
        except RuntimeError:  # the loop has closed: nobody listens any more
            log.debug("the event %s came after the end", event.kind)


def declared(sensor: Sensor, what: str, most: float) -> float:
    """What the sensor's class says of itself; 0 unless that is a number of 0 to `most`."""
    value = getattr(sensor, what, 0.0)
    if isinstance(value, (int, float)) and 0 <= value <= most:
        return float(value)
    log.warning("the sensor %s: expected %s of 0 to %g, found %s; 0 is taken", sensor.name, what, most, shown(value))
    return 0.0


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "it does not say why: its own text failed"


def stale_after_s(period_s: float) -> float:
    return max(STALE_PERIODS * period_s, STALE_MIN_S)


def next_tick_s(after_s: float, period_s: float, later_s: float = 0.0) -> float:
    """The next multiple of the period, and so much later; at least a thousandth of a period away."""
    return (math.floor((after_s - later_s) / period_s + 0.001) + 1) * period_s + later_s
