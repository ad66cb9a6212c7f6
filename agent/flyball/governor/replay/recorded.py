"""A recording of `flyball record`, decided again: the same views must lead to the same decisions.

JSON lines (governor/recording.py) -> check -> Checked, every decision that differs

A recording holds what the sensors said of a machine that really ran, so that another policy cannot be tried on it: what
that would have led to was never measured. What was decided with other rules can be seen, as long as it is not acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flyball.config import Governor as Rules
from flyball.errors import ConfigError
from flyball.governor.constraints import Stated, mistakes
from flyball.governor.policy import decide
from flyball.governor.recording import SCHEMA, Begun, Done, Ended, Line, Looked
from flyball.governor.replay.trace import UNREADABLE, legible, read_lines, unusable
from flyball.governor.rules import Rule, parse_all
from flyball.governor.state import State
from flyball.ports import Decision

LOOK_EVERY = 500  # lines between two calls of `progress`


class _Named(Stated, frozen=True, kw_only=True):
    name: str


class _View(msgspec.Struct, frozen=True, kw_only=True):
    ladders: tuple[_Named, ...] = ()


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    view: _View


@dataclass(frozen=True, slots=True, kw_only=True)
class Differs:
    """A decision that is another one now. `line` is that of the file, from 1; `recorded` is None when nothing was
    decided for a ladder that was seen, `now` when nothing is decided for it any more. One of them is there."""

    line: int
    recorded: Decision | None
    now: Decision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`cut` says that the last line is not whole: the device stopped while it was written. `ended` is why the recording
    did by itself, "" when its reader ended it."""

    looks: int
    decisions: int
    changes: int
    seconds: float
    differs: tuple[Differs, ...]
    cut: bool
    ended: str = ""


def check(path: Path, progress: Callable[[float], None] | None = None) -> Checked:
    """Raises ConfigError."""
    lines = read_lines(path)
    decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
    state, rules = State(), Rules()
    thresholds: Mapping[str, tuple[Rule, ...]] = {}
    begun = cut = False
    ended = ""
    looks = decisions = changes = 0
    times: list[float] = []
    differs: list[Differs] = []
    last = lines[-1][0] if lines else 0
    for number, text in lines:
        try:
            line = decoder.decode(text)
        except UNREADABLE as error:
            if number == last and begun:
                cut = True
                break
            raise unusable(path, [f"{path}:{number}: {legible(str(error))}"]) from None
        if isinstance(line, Begun):
            if line.schema != SCHEMA:
                raise ConfigError(f"{path}:{number}: expected schema {SCHEMA}, found {line.schema}: of another Flyball")
            state, rules, begun = line.state, line.rules, True
            place = f"{path}:{number}: thresholds"
            thresholds = {name: parse_all(texts, f"{place}.{legible(name)}") for name, texts in line.thresholds.items()}
        elif not begun:
            raise ConfigError(f'{path}:{number}: expected a line with "kind": "begun" first')
        elif isinstance(line, Looked):
            wrong = _wrong_limits(text)
            if wrong:
                raise unusable(path, [f"{path}:{number}: {legible(mistake)}" for mistake in wrong])
            looks += 1
            times.append(line.view.now_s)
            try:
                decided, state = decide(line.view, rules, state, thresholds)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                why = legible(f"{type(error).__name__}: {error}")
                raise ConfigError(f"{path}:{number}: no decision can be made of such figures ({why})") from None
            decisions += len(line.decisions)
            differs += _differing(number, line.decisions, decided)
        elif isinstance(line, Done):
            changes += 1
            if line.error:
                state = state.refused(line.decision, line.error, line.now_s, rules)
            else:
                state = state.moved(line.decision, line.now_s, rules)
        elif isinstance(line, Ended):
            ended = line.why
        if progress is not None and number % LOOK_EVERY == 0:
            progress(number / last)
    if not looks:
        raise ConfigError(f"{path}: nothing was recorded after the first line")
    return Checked(looks=looks, decisions=decisions, changes=changes, seconds=times[-1] - times[0],
                   differs=tuple(differs), cut=cut, ended=ended)  # fmt: skip


def _wrong_limits(line: bytes) -> list[str]:
    view = msgspec.json.decode(line, type=_Look).view
    return [f"ladder {ladder.name}: {mistake}" for ladder in view.ladders for mistake in mistakes(ladder.limits)]


def _differing(line: int, recorded: Sequence[Decision], decided: Sequence[Decision]) -> list[Differs]:
    """In both directions: a daemon decides for every ladder that it looks at."""
    then = {decision.ladder: decision for decision in recorded}
    now = {decision.ladder: decision for decision in decided}
    pairs = [(then.get(name), now.get(name)) for name in {**then, **now}]
    return [Differs(line=line, recorded=one, now=other) for one, other in pairs if not same(one, other)]


def same(then: Decision | None, now: Decision | None) -> bool:
    """In what was chosen and why; what came of it is not part of a decision."""
    if then is None or now is None:
        return then is now
    return (then.action, then.source, then.target, then.binding, then.reason) == (
        now.action, now.source, now.target, now.binding, now.reason
    )  # fmt: skip
