"""Settings from the fleet: tried on the running daemon, kept if it stays well, taken back if not.

change -> listed keys only -> whole configuration decoded with it -> trial on the disk -> applied -> watched -> kept
                                                                              \\-> unwell, or a crash: as before

Never touches a key that is not listed: no path, credential, listener or backend, and not what the fleet may order. What
the machine's own files say stays as it is; the settings lie over it, in state.db. Only those that have passed their
trial are read at a start, so that a daemon which dies of a setting comes back without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flyball.errors import ConfigError, FlyballError, MessageError, StateError
from flyball.uplink.messages import Setting, decode
from flyball.uplink.state import peek

log = logging.getLogger(__name__)

DOCUMENT = "settings"
MOST_KEYS = 256
LOOK_S = 0.25  # between two looks at the daemon's health during a trial

_LIMITS = (
    "limits.latency_p95_ms", "limits.deadline_ms", "limits.quantile", "limits.temperature_c",
    "limits.memory_available_mib", "limits.accuracy",
)  # fmt: skip
GOVERNOR = (
    "mode", "window_s", "down_windows", "of_windows", "up_windows", "headroom", "dwell_s", "horizon_s",
    "climb_backoff_s", "climb_backoff_max_s", "temperature_margin_c", *_LIMITS, "limits.power_w",
    "limits.energy_wh_per_h",
)  # fmt: skip
LADDER = (*_LIMITS, "rung", "cache.max_mib", "cache.ttl_s", "cascade.threshold", "cascade.budget")

Settings = Mapping[str, Setting]
Tables = Mapping[str, Any]


class Documents(Protocol):
    """Implemented by journal.Journal. Both raise StateError."""

    async def document(self, name: str) -> bytes | None: ...

    async def save_document(self, name: str, body: bytes) -> None: ...


class Configurable(Protocol):
    """The daemon, whose configuration it is."""

    def examine(self, overlay: Tables) -> Sequence[str]:
        """What would be wrong with the whole configuration under these tables. Changes nothing."""
        ...

    async def apply(self, overlay: Tables) -> None:
        """In place of those from before. Raises ConfigError, and then nothing was changed."""
        ...

    def unwell(self) -> Collection[str]:
        """What is wrong with the daemon now."""
        ...


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` hold; `before` is what `rollback` goes back to; `trial` is being tried."""

    settings: dict[str, Setting] = {}
    before: dict[str, Setting] | None = None
    trial: dict[str, Setting] | None = None


class SettingsRefused(MessageError):
    """Nothing was changed; `problems` by key, "" for those of no single key."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {text}" if key else text for key, text in problems))


class Configuring:
    """`trial_s`: for so long the daemon has to be well with new settings before they are kept."""

    def __init__(self, daemon: Configurable, documents: Documents, trial_s: float) -> None:
        self._daemon = daemon
        self._documents = documents
        self._trial_s = trial_s
        self._changing = asyncio.Lock()
        self._known: Kept | None = None
        self.changed: Callable[[], None] = lambda: None  # called when other settings hold

    async def settings(self) -> Settings:
        """Those that hold. Raises StateError."""
        return (await self._kept()).settings

    async def recover(self) -> str:
        """After a start, which has taken up what had passed its trial: what the last daemon left on trial is given
        up. "" or what was. Raises StateError."""
        kept = await self._kept()
        if kept.trial is None:
            return ""
        await self._save(msgspec.structs.replace(kept, trial=None))
        keys = ", ".join(_changed(kept.settings, kept.trial))
        return f"settings were taken back, since the daemon ended while it tried them: {keys}"

    def check(self, settings: Settings) -> None:
        """Raises SettingsRefused."""
        problems = [(key, text) for key, value in settings.items() if (text := _refusal(key, value))]
        if len(settings) > MOST_KEYS:
            problems.append(("", f"{len(settings)} settings, expected at most {MOST_KEYS}"))
        if not problems:
            problems = [(_key_in(line, settings), line) for line in self._daemon.examine(tables(settings))]
        if problems:
            raise SettingsRefused(problems)

    async def change(self, changes: Settings) -> Sequence[str]:
        """Lays `changes` over the settings that hold; None takes one away. Gives the keys that are different now.
        Raises SettingsRefused, ConfigError (taken back), StateError."""
        async with self._changing:
            kept = await self._kept()
            merged = {**kept.settings, **changes}
            unknown = [(key, text) for key in changes if (text := _refusal(key, changes[key]))]
            if unknown:
                raise SettingsRefused(unknown)
            return await self._try(kept, {key: value for key, value in merged.items() if value is not None})

    async def replace(self, settings: Settings) -> Sequence[str]:
        """As change(), but these are all there are."""
        async with self._changing:
            return await self._try(await self._kept(), {k: v for k, v in settings.items() if v is not None})

    async def rollback(self) -> Sequence[str]:
        """To the settings from before the last change that was kept. Raises as change(), and ConfigError when there
        are none."""
        async with self._changing:
            kept = await self._kept()
            if kept.before is None:
                raise ConfigError("there are no earlier settings to go back to")
            return await self._try(kept, kept.before)

    async def _try(self, kept: Kept, wanted: dict[str, Setting]) -> Sequence[str]:
        changed = _changed(kept.settings, wanted)
        self.check(wanted)
        if not changed:
            return changed
        unwell_before = frozenset(self._daemon.unwell())
        await self._save(msgspec.structs.replace(kept, trial=wanted))
        try:
            await self._daemon.apply(tables(wanted))
            await self._watch(unwell_before)
            await self._save(Kept(settings=wanted, before=kept.settings))
            self.changed()
        except BaseException as error:
            # A cancelled trial too (the order's deadline, or the daemon's end) leaves nothing half done.
            await self._take_back(kept)
            if isinstance(error, FlyballError) and not isinstance(error, StateError):
                raise ConfigError(f"the settings were taken back: {error}") from error
            raise
        return changed

    async def _watch(self, unwell_before: Collection[str]) -> None:
        """Raises ConfigError when something is wrong that was not before."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._trial_s
        while True:
            left_s = end_s - loop.time()
            await asyncio.sleep(max(min(LOOK_S, left_s), 0.0))
            fresh = sorted(set(self._daemon.unwell()) - set(unwell_before))
            if fresh:
                raise ConfigError(f"with them the daemon was not well: {'; '.join(fresh)}")
            if left_s <= LOOK_S:
                return

    async def _take_back(self, kept: Kept) -> None:
        try:
            await self._daemon.apply(tables(kept.settings))
            await self._save(msgspec.structs.replace(kept, trial=None))
        except FlyballError as error:
            # What is on the disk as a trial is given up at the next start in any case.
            log.error("uplink: settings could not be taken back entirely: %s", error)

    async def _kept(self) -> Kept:
        if self._known is None:
            self._known = _read(await self._documents.document(DOCUMENT))
        return self._known

    async def _save(self, kept: Kept) -> None:
        await self._documents.save_document(DOCUMENT, msgspec.json.encode(kept))
        self._known = kept


def at_start(state_dir: Path) -> Tables:
    """The settings that hold, for the configuration's loader. A store that cannot be read is logged, and the machine's
    own files are all there is."""
    try:
        kept = _read(peek(state_dir, DOCUMENT)).settings
        return tables({k: v for k, v in kept.items() if not _refusal(k, v)})  # an older version may have listed more
    except (StateError, MessageError) as error:
        log.error("what the fleet has set cannot be read, so it does not hold: %s", error)
        return {}


def tables(settings: Settings) -> Tables:
    """Dotted keys as the tables that TOML would give."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = _parts(key)
        table = result
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
    return result


def _read(body: bytes | None) -> Kept:
    return Kept() if body is None else decode(body, Kept)


def _parts(key: str) -> list[str]:
    """The names of ladders may have dots."""
    for suffix in LADDER:
        if key.startswith("ladder.") and key.endswith(f".{suffix}"):
            return ["ladder", key[len("ladder.") : -len(suffix) - 1], *suffix.split(".")]
    return key.split(".")


def _refusal(key: str, value: Setting) -> str:
    parts = _parts(key)
    ladder = parts[0] == "ladder" and len(parts) > 2 and 0 < len(parts[1]) <= 64 and ".".join(parts[2:]) in LADDER
    if not ladder and not (parts[0] == "governor" and ".".join(parts[1:]) in GOVERNOR):
        return "not among the settings that the fleet may change (docs/orders.md lists them)"
    if isinstance(value, str) and len(value) > 256:
        return "expected at most 256 characters"
    return ""


def _changed(before: Settings, after: Settings) -> list[str]:
    return sorted(k for k in {*before, *after} if before.get(k) != after.get(k))


def _key_in(problem: str, settings: Settings) -> str:
    """The setting that a line of the configuration's loader speaks of: `FILE: KEY: ...`."""
    return next((key for key in sorted(settings, key=len, reverse=True) if f": {key}: " in problem), "")
