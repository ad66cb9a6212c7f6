"""A trace: what happens to a machine and its one ladder, period by period.

JSON lines -> load -> Trace(Header, steps) -> plant.py; Trace -> save -> JSON lines

The first line is the header (`kind` "load"), every other line one period. Seconds, bytes, watts, joules and degrees
Celsius throughout; docs/replay.md has the schema. Nothing here is random and nothing is run: a trace is only data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from flyball.errors import ConfigError
from flyball.governor.constraints import Stated, mistakes
from flyball.governor.values import LARGEST, Limits
from flyball.ladder.profile import write

SCHEMA = 1
MOST_PROBLEMS = 5  # of one file: the rest is likely the same mistake
MOST_ARRIVALS = 1_000_000  # in one period; more is a typing error
MOST_REQUESTS = 20_000_000  # in all, each of which is simulated: half a GB
MOST_BYTES = 1 << 30  # of a file: four days of one ladder
HEADER_BYTES = 64 << 20
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

S = TypeVar("S", bound=msgspec.Struct)
# Squares and products of what is within these bounds are numbers still.
Positive = Annotated[float, Meta(ge=1e-9, le=LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Celsius = Annotated[float, Meta(ge=-273, le=1000)]
# Nothing that steers a terminal.
Name = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
About = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*\Z")]
Spread = Annotated[float, Meta(ge=0, le=2)]
Sensor = Literal["temperature", "power", "memory", "contention"]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rung as the machine really has it. `work_s`, `joules`, `load_s` as in values.Rung, at rest. `slow_down` holds
    (contention, factor on the mean work, relative standard deviation of the work) with rising contention, the first at
    0; between two it is linear, beyond the last it stays."""

    name: Name
    accuracy: Annotated[float, Meta(ge=0, le=1)]
    work_s: Positive
    joules: NotNegative
    rss_bytes: NotNegative
    load_s: NotNegative
    accelerator: Name = "cpu"
    slow_down: tuple[tuple[NotNegative, Positive, Spread], ...]

    def __post_init__(self) -> None:
        levels = [level[0] for level in self.slow_down]
        if not levels or levels[0] != 0.0 or levels != sorted(set(levels)):
            raise ValueError(f"slow_down of {self.name}: expected rising contention from 0 on, found {levels}")

    @property
    def spread(self) -> float:
        """At rest."""
        return self.slow_down[0][2]

    def slowed(self, contention: float) -> tuple[float, float]:
        """Factor and spread at this contention."""
        before = self.slow_down[0]
        for level in self.slow_down:
            if level[0] >= contention:
                span = level[0] - before[0]
                share = (contention - before[0]) / span if span > 0.0 else 0.0
                return before[1] + share * (level[1] - before[1]), before[2] + share * (level[2] - before[2])
            before = level
        return before[1], before[2]


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine. Its one zone settles at ambient + `idle_rise_c` + `r_kw` times the power above `idle_w`, with the
    time constant `tau_s`; above `throttle_c` the clock falls to 0.6 of itself until it is 5 C cooler."""

    cpus: Annotated[int, Meta(ge=1)]
    idle_w: Positive
    busy_w: Positive
    idle_rise_c: Annotated[float, Meta(ge=0, le=1000)]
    r_kw: Annotated[float, Meta(ge=1e-9, le=1000)]
    tau_s: Positive
    throttle_c: Celsius
    memory_bytes: Positive
    zone: Name = "soc"

    def __post_init__(self) -> None:
        if self.busy_w <= self.idle_w:
            raise ValueError(f"busy_w: expected more than idle_w ({self.idle_w}), found {self.busy_w}")

    @property
    def core_w(self) -> float:
        """What one busy core takes."""
        return (self.busy_w - self.idle_w) / self.cpus


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits.power_w` is replaced by a period's `power_cap_w` where that has one. `seed` also draws the noise that the
    plant adds, so that all policies meet the same."""

    schema: Literal[1] = 1
    kind: Literal["load"] = "load"
    name: Name
    seed: Annotated[int, Meta(ge=0)] = 0
    period_s: Positive = 1.0
    ladder: Name
    rungs: Annotated[tuple[Model, ...], Meta(min_length=1)]
    board: Board
    limits: Limits
    about: About = ""

    def __post_init__(self) -> None:
        names = [rung.name for rung in self.rungs]
        if len(set(names)) != len(names):
            raise ValueError(f"rungs: expected different names, found {names}")
        wrong = mistakes(msgspec.structs.asdict(self.limits))
        if wrong:
            raise ValueError("; ".join(wrong))


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One period from `t_s` on. `rate_per_s` is the mean that `arrivals` were drawn from (None: not known).
    `contention`: foreign tasks that run or want to, per processor. `memory_taken_bytes`: by all others."""

    t_s: NotNegative
    arrivals: Annotated[int, Meta(ge=0, le=MOST_ARRIVALS)]
    rate_per_s: NotNegative | None = None
    contention: NotNegative = 0.0
    ambient_c: Celsius = 25.0
    memory_taken_bytes: NotNegative = 0.0
    power_cap_w: Positive | None = None
    unreadable: tuple[Sensor, ...] = ()
    lost: tuple[str, ...] = ()  # accelerators


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    header: Header
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        return len(self.steps) * self.header.period_s


def load(path: Path) -> Trace:
    """Raises ConfigError with every mistake's line."""
    lines = read_lines(path)
    problems: list[str] = []
    header = None
    if lines:
        place = f"{path}:{lines[0][0]}"
        problems += [f"{place}: {mistake}" for mistake in _wrong_limits(lines[0][1])]
        # As they are written: Limits itself takes some that cannot be one for unknown.
        header = decode(lines[0][1], Header, place, problems) if not problems else None
    else:
        problems.append(f"{path}: empty; expected a header line and one line for each period")
    steps: dict[int, Step] = {}
    for number, line in lines[1:]:
        step = decode(line, Step, f"{path}:{number}", problems)
        if step is not None:
            steps[number] = step
    if header is not None and not problems:
        problems += _out_of_place(path, header, steps)
    if problems or header is None:
        raise unusable(path, problems)
    return Trace(header=header, steps=tuple(steps.values()))


def save(trace: Trace, path: Path) -> None:
    """Whole or not at all: half a trace would be read as a shorter one. Raises OSError."""
    encode = msgspec.json.encode
    write(path, b"".join(encode(line) + b"\n" for line in (trace.header, *trace.steps)))


def kind_of(path: Path) -> str:
    """ "load" (a trace) or "recorded" (of `flyball record`), by the first line alone. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            first = next((line for line in iter(lambda: file.readline(HEADER_BYTES), b"") if line.strip()), b"")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        head = msgspec.json.decode(first)
    except UNREADABLE:
        head = None
    kind = head.get("kind") if isinstance(head, dict) else None
    if kind not in ("load", "begun"):
        raise ConfigError(f'{path}:1: expected a header with "kind": "load" (a trace) or "begun" (a recording)')
    return "recorded" if kind == "begun" else "load"


def read_lines(path: Path) -> list[tuple[int, bytes]]:
    """Those that are not empty, with their numbers. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: larger than the {MOST_BYTES >> 20} MiB that can be replayed")
    return [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]


def decode(line: bytes, kind: type[S], place: str, problems: list[str]) -> S | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except UNREADABLE as error:  # ValidationError is one, and has the key's path
        problems.append(f"{place}: {legible(str(error))}")
        return None


def legible(text: str) -> str:
    """Of a file that somebody else made: what a terminal would obey is shown as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def unusable(path: Path, problems: list[str]) -> ConfigError:
    more = len(problems) - MOST_PROBLEMS
    shown = problems[:MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
    return ConfigError(f"{path} cannot be replayed", shown)


def _wrong_limits(line: bytes) -> list[str]:
    """Of a header as it is written; none where it cannot be read."""
    try:
        return [legible(mistake) for mistake in mistakes(msgspec.json.decode(line, type=Stated).limits)]
    except UNREADABLE:
        return []


def _out_of_place(path: Path, header: Header, steps: Mapping[int, Step]) -> Iterator[str]:
    """`steps` by the numbers of their lines."""
    if not steps:
        yield f"{path}: no periods; expected one line for each"
    first_s = next((step.t_s for step in steps.values()), 0.0)
    for place, (number, step) in enumerate(steps.items()):
        due_s = first_s + place * header.period_s
        if not math.isclose(step.t_s, due_s, rel_tol=1e-12, abs_tol=0.01 * header.period_s):
            yield f"{path}:{number}: t_s: expected {due_s:g} (every period_s), found {step.t_s:g}"
    requests = sum(step.arrivals for step in steps.values())
    if requests > MOST_REQUESTS:
        yield f"{path}: arrivals: expected at most {MOST_REQUESTS} in all, found {requests}"
    known = {rung.accelerator for rung in header.rungs}
    for name in sorted({name for step in steps.values() for name in step.lost} - known):
        yield f"{path}: lost: no rung runs on accelerator {name!r}; there are {', '.join(sorted(known))}"
