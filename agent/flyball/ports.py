"""The values and protocols by which the rooms know each other.

serving, uplink, governor and the demo see the engine as a `Catalog` of `Runner`s, the sampler as `Readings` and the
governor as `Steering`; the daemon connects them. Values are frozen; protocols have at most three methods. Times named
`t_s` are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

# ---------------------------------------------------------------------------------------------------- inference


class PublicTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a ladder's public interface. `datatype` is an Open Inference Protocol name; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    alternative: tuple[str, tuple[int, ...]] | None = None  # another (datatype, shape) accepted under this name


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What a ladder takes and gives, the same whatever rung is active."""

    task: str
    inputs: tuple[PublicTensor, ...]
    outputs: tuple[PublicTensor, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor on the move: little-endian bytes in C order as the Open Inference Protocol's binary extension has
    them; BYTES elements are each a 4-byte length and the data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    inputs: tuple[Tensor, ...]
    rung: str | None = None  # answer from this rung only (the caller must be allowed to pin)
    timeout_s: float | None = None  # the caller's own limit, from now
    priority: int | None = None  # 1 is the highest; None for the ordinary one


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where one request's time went, seconds."""

    queue_s: float
    pre_s: float
    run_s: float
    post_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    outputs: tuple[Tensor, ...]
    rung: str
    timing: Timing


class LatencyWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one rung's answers in the last `seconds`; the percentiles are None when there were none.

    Work is pre + run + post of an answer, without what it waited before and between: its mean, and its sample standard
    deviation, which takes two answers. `late` answers took longer in all than the deadline that was asked about; None
    when none was."""

    rung: str
    seconds: float
    count: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    work_mean_s: float | None = None
    work_std_s: float | None = None
    late: int | None = None


class RungStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: Literal["active", "standby", "closed", "failed", "no-accelerator"]
    precision: str = ""
    accuracy: float | None = None
    profiled_p50_s: float | None = None  # of the last opening's warm-up, without waiting for a processor
    load_s: float | None = None
    rss_bytes: int | None = None
    error: str = ""
    leave_alone_s: float = 0.0  # after failures: for so long the engine asks not to be sent back to this rung
    accelerator: str = ""  # the kind that it runs on, or would: rungs of one kind take turns; "" when none is present


class LadderTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative since the ladder was loaded; durations in nanoseconds, summed over answered requests.

    Every request that the ladder was given counts once, when it is done with: in `success`, or, refused or failed, in
    `failure`. Requests that came are therefore success + all failures + those still with it (LadderStatus.pending)."""

    success: int
    failure: Mapping[str, int]  # by reason: REJECTED, CANCELED, BACKEND, OTHER
    executions: int
    request_ns: int
    queue_ns: int
    pre_ns: int
    run_ns: int
    post_ns: int
    answers_by_rung: Mapping[str, int]  # inferences: none for an answer from the cache, two for an escalated request
    busy_s_by_rung: Mapping[str, float] = {}  # time in which it had at least one under way, finished or not
    switches: Mapping[str, int]  # "from>to:reason-code" -> count
    worker_restarts: Mapping[str, int]  # by cause
    latency_buckets: Mapping[float, int]  # upper bound in seconds -> count (cumulative), as Prometheus has them
    cache: Mapping[str, int] = {}  # hits, misses, shared, entries, bytes, evicted, expired; empty without a cache
    cascade: Mapping[str, int] = {}  # requests, escalated, kept_by_budget, ...; empty without a cascade


class LadderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """ready: the wanted rung answers; degraded: another one does; silent: a rung is open, but for some time nothing,
    not even its canary, was answered; loading, failed: no rung is open."""

    name: str
    version: str
    state: Literal["loading", "ready", "degraded", "silent", "failed"]
    active: str | None
    pending: int
    rungs: tuple[RungStatus, ...]
    error: str = ""
    answered_s_ago: float | None = None  # since the active rung last gave an answer, its canary's included


class SwitchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of rung did. `gap_s` is the time without an open rung (0 unless swapped in place)."""

    ladder: str
    source: str | None
    target: str
    open_s: float
    warm_s: float
    gap_s: float


class Runner(Protocol):
    """The face of one ladder: requests go in, answers come out, whatever rung is active."""

    @property
    def interface(self) -> Interface: ...

    async def infer(self, request: InferRequest) -> Answer:
        """Raises RequestError, UnavailableError, DeadlineError, WorkerError."""
        ...

    def status(self) -> LadderStatus: ...


class Measured(Protocol):
    """What the governor, metrics and telemetry read off a runner."""

    def status(self) -> LadderStatus: ...

    def window(self, seconds: float, deadline_s: float | None = None) -> LatencyWindow | None:
        """Latency of the active rung, and how many answers took longer than `deadline_s`; None while no rung is
        active."""
        ...

    def totals(self) -> LadderTotals: ...


class Switchable(Protocol):
    """What the governor may do to a ladder."""

    async def switch(self, rung: str, reason: str) -> SwitchReport:
        """Raises NotFoundError, WorkerError; the active rung then goes on."""
        ...


class Ladder(Runner, Measured, Switchable, Protocol):
    """A ladder in service, seen whole."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


class Catalog(Protocol):
    """The ladders in service."""

    def get(self, name: str, version: str | None = None) -> Ladder:
        """Raises NotFoundError."""
        ...

    def ladders(self) -> Sequence[Ladder]: ...


# ------------------------------------------------------------------------------------------------------ sensing

Quantity = Literal[
    "power", "energy", "voltage", "current", "temperature", "temperature_limit", "cpu_utilization", "utilization",
    "memory_available", "memory_total", "memory_used", "memory_limit", "load_1m", "frequency", "frequency_limit",
    "pressure", "fan", "cooling", "throttled", "alarm", "over_current", "runnable", "cpu_steal",
]  # fmt: skip
UNITS: Mapping[Quantity, str] = {
    "power": "W", "energy": "J", "voltage": "V", "current": "A", "temperature": "C", "temperature_limit": "C",
    "cpu_utilization": "ratio", "utilization": "ratio", "memory_available": "B", "memory_total": "B",
    "memory_used": "B", "memory_limit": "B", "load_1m": "tasks", "frequency": "Hz", "frequency_limit": "Hz",
    "pressure": "ratio", "fan": "ratio", "cooling": "ratio", "throttled": "flag", "alarm": "flag",
    "over_current": "1/s", "runnable": "tasks", "cpu_steal": "ratio",
}  # fmt: skip
Scope = Literal["machine", "module", "board", "soc", "chip", "rail", "wall", "zone", "estimated"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value. `unit` is W, J, V, A, C, B, Hz, tasks (load, runnable), ratio (0..1), 1/s (over_current:
    events) or flag (throttled, alarm: 1 while so, else 0; `name` is the cause). `uncertainty` is relative, None if
    unknown."""

    quantity: Quantity
    name: str
    value: float
    unit: str
    scope: Scope
    sensor: str
    t_s: float
    uncertainty: float | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Of one quantity over a window that held `count` > 0 readings."""

    count: int
    mean: float
    minimum: float
    maximum: float
    last: float
    p50: float
    p95: float
    p99: float


class SensorHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Absent, failed and stale are three different things; a zero is never invented."""

    sensor: str
    state: Literal["ok", "unavailable", "failed", "stale"]
    reason: str = ""
    cost_s: float | None = None  # of the last read
    reads: int = 0
    failures: int = 0


class EnergyTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Joules since start, of the most trustworthy power source there is; scope "estimated" says it is a model."""

    joules: float
    covered_s: float  # seconds that the figure covers; gaps are left out, never filled in
    scope: Scope
    source: str
    uncertainty: float | None = None  # relative, of the source's power; None: not known


class Readings(Protocol):
    """The sampler's latest window."""

    def latest(self) -> Sequence[Reading]:
        """The newest reading of every quantity that is neither failed nor stale now."""
        ...

    def window(self, quantity: Quantity, seconds: float, name: str | None = None) -> Stats | None:
        """None when nothing was read in that time: no data is never zero."""
        ...

    def health(self) -> Sequence[SensorHealth]: ...


class EnergyMeter(Protocol):
    def energy(self) -> EnergyTotal | None: ...

    def joules_per_inference(self, ladder: str, rung: str) -> float | None:
        """Gross: all energy while the rung was active, by busy share, over its answers. None without data."""
        ...

    def net_joules_per_inference(self, ladder: str, rung: str) -> float | None:
        """Less what the machine takes with its ladders open and nothing to do. None until that was seen."""
        ...

    def idle_w(self) -> float | None: ...


# ----------------------------------------------------------------------------------------------------- governing


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One rung as the governor saw it."""

    rung: str
    accuracy: float | None
    predicted_p95_s: float | None  # at the limit's quantile, 95 % unless another was asked for
    predicted_late: float | None = None  # share of the answers that would miss the deadline
    predicted_power_w: float | None = None  # of the machine
    predicted_temperature_c: float | None = None  # of the zone nearest to trouble, at the horizon
    ruled_out_by: str = ""  # the constraint, in words; empty when it fits


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, explained. `binding` names the constraint that decided ("" when none did)."""

    ladder: str
    t_s: float
    wall_s: float
    action: Literal["stay", "down", "up", "pin"]
    source: str
    target: str
    reason: str
    binding: str = ""
    inputs: Mapping[str, float] = {}
    candidates: tuple[Candidate, ...] = ()
    acted: bool = False  # False in observe mode, or when the switch failed
    error: str = ""
    notice: str = ""  # what a rule of the configuration wants to be told
    unforeseen: bool = False  # a limit broke that was predicted to hold
    narrow: bool = False  # it is predicted to break only just
    outcome: Mapping[str, float] = {}  # what came of it, some seconds later: latency, late share, power, temperature


class GovernorFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be watched of the governor. `decisions` counts since the start, by ladder and action. The rest is of
    the newest look, by ladder and rung, and has only what is known: the share of answers that would miss the deadline,
    and how many times its profiled work a rung is expected to take beside what else runs."""

    decisions: Mapping[str, Mapping[str, int]] = {}
    predicted_late: Mapping[str, Mapping[str, float]] = {}
    slow_down: Mapping[str, Mapping[str, float]] = {}
    looks: int = 0  # each decides for every ladder
    deciding_s: float = 0.0  # all of them together


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    ladder: str
    rung: str
    until_s: float | None  # monotonic; None = until released
    force: bool = False  # also against the limits of temperature and memory


class Steering(Protocol):
    """Orders to the governor, and its reasons."""

    async def pin(self, ladder: str, rung: str, for_s: float | None, force: bool = False) -> SwitchReport | None:
        """Hold a rung; None when it was already active. A report whose target is another rung says that a limit of
        temperature or memory keeps the ladder there for now; `force` holds the rung against those too. Raises
        NotFoundError, RequestError, WorkerError."""
        ...

    async def release(self, ladder: str) -> None:
        """Let the governor choose again. Raises NotFoundError."""
        ...

    def decisions(self, ladder: str | None = None) -> Sequence[Decision]:
        """The newest last; bounded."""
        ...


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did; `problems` are reasons why something stays as it was."""

    applied: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Reloading(Protocol):
    async def reload(self) -> ReloadReport: ...


# -------------------------------------------------------------------------------------------------------- devices


class AcceleratorInfo(msgspec.Struct, frozen=True, kw_only=True):
    backend: str
    kind: str
    id: str
    detail: str = ""


class Probing(Protocol):
    async def devices(self) -> Sequence[AcceleratorInfo]:
        """Every backend asked in a child process of its own."""
        ...


# --------------------------------------------------------------------------------------------------------- uplink


class UplinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the uplink stands. Spool figures are what waits on disk for the broker; None when not known."""

    connected: bool
    broker: str
    spool_records: int | None = None
    spool_bytes: int | None = None
    error: str = ""  # why it is not connected
    since_s: float | None = None  # when `connected` last changed
    session: int | None = None  # counts CONNECTs over the life of the state store
    commands: Literal["unverified", "verified", "denied"] = "unverified"  # whether orders are known to arrive here
    queued: int = 0  # publications that the broker has not acknowledged
    dropped: int = 0  # publications given up since the start: their queue was full, or the broker refused them
