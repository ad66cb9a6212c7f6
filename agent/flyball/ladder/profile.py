"""What this machine measured of a ladder's rungs, as a file.

Profile -> JSON, written whole or not at all -> load -> Profile, or one ConfigError that names every wrong field

What was not measured is null, never 0. Times are in the unit that their name says; energy is per inference.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from flyball.config import LadderName
from flyball.document import decode
from flyball.errors import ConfigError
from flyball.ladder.manifest import FILE_NAME, Fraction, LadderFolder, Sha256
from flyball.ports import Scope

SCHEMA = 1
Scenario = Literal["single", "multi", "server", "offline"]

MOST_BYTES = 8 << 20  # of a file; a rung takes 2 KiB
DEEPEST = 64  # lists and objects inside each other; a profile has 5
# Every figure has an end: what is beyond it was not measured, and whoever computes with it must not meet infinity.
NotNegative = Annotated[float, Meta(ge=0, le=1e15)]
Positive = Annotated[float, Meta(gt=0, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=10**15)]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Figures hold for this machine in this power mode. Empty: it does not say."""

    board: str
    arch: str
    kernel: str
    cpu: str = ""
    cpus: Annotated[int, Meta(ge=1)] | None = None
    soc: str = ""
    power_mode: str = ""
    cpu_governor: str = ""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's settings that change the figures."""

    lanes: Count
    slots: Count
    threads: Count
    wake: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of whole queries. Percentiles are nearest-rank; `std_ms` is the sample's, null of a single query."""

    queries: Annotated[int, Meta(ge=1)]
    mean_ms: NotNegative
    std_ms: NotNegative | None = None
    p50_ms: NotNegative
    p90_ms: NotNegative
    p95_ms: NotNegative
    p99_ms: NotNegative
    max_ms: NotNegative


class EarlyStopping(msgspec.Struct, frozen=True, kw_only=True):
    """`estimate_ms` bounds the percentile from above with this confidence; null for too few queries."""

    percentile: Annotated[float, Meta(gt=0, lt=1)]
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    queries_needed: Count
    estimate_ms: NotNegative | None = None


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Gross holds everything in the scope while the rung worked; net is without what the loaded, idle machine takes,
    null where that is not known or no less. Uncertainties are relative: what the sensor states of itself and the 95 %
    interval of the mean, null where the sensor states nothing. `fps_per_watt` is gross."""

    scope: Scope
    source: str
    power_w: Positive
    uncertainty: NotNegative | None = None
    idle_w: NotNegative | None = None
    gross_j: Positive
    net_j: Positive | None = None
    net_uncertainty: NotNegative | None = None
    fps_per_watt: Positive
    coverage: Fraction
    updates: Count  # of the sensor: how often its value changed


class RungProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One rung. Figures are there also when the run is not valid; `reasons` say why it is not, `notes` what else to
    know. `error`: why it could not be measured; `skipped`: why that was not tried."""

    name: LadderName
    sha256: Sha256
    backend: str
    precision: str = ""
    accuracy: Fraction | None = None  # the manifest's
    valid: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    skipped: str = ""
    duration_s: NotNegative = 0.0
    inferences: Count = 0
    errors: Count = 0
    latency: Latency | None = None
    early_stopping: EarlyStopping | None = None
    throughput_per_s: NotNegative | None = None
    rate_per_s: Positive | None = None  # of the arrivals, in the scenario server
    load_s: NotNegative | None = None  # from the start of the worker to the opened session
    rss_bytes: Count | None = None  # proportional share (PSS) of the workers, warm, before the run
    peak_rss_bytes: Count | None = None  # their largest resident set since they began, shared pages counted in full
    energy: Energy | None = None
    throttled_s: NotNegative | None = None  # null: nothing here tells
    temperature_max_c: float | None = None
    others_cpu: Fraction | None = None  # of all processors' time, what neither Flyball nor its workers used

    def __post_init__(self) -> None:
        against = self.reasons or self.error or self.skipped
        if self.valid and (against or self.latency is None):
            raise ValueError(f"rung {self.name}: valid, but with reasons against it or without latency")
        if not self.valid and not against:
            raise ValueError(f"rung {self.name}: not valid, but without a reason")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """`content` is the SHA-256 of the manifest and the labels; the manifest holds those of the artifacts."""

    schema: Literal[1]
    flyball: str
    measured: Annotated[
        str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", description="a date as 2026-01-31T12:00:00Z")
    ]
    clock_synchronized: bool
    machine: Machine
    ladder: LadderName
    version: str
    content: Sha256
    scenario: Scenario
    seconds: Positive  # asked for, per rung
    inputs: str
    setup: Setup
    rungs: tuple[RungProfile, ...]

    @property
    def valid(self) -> bool:
        """Whether every rung that can run here was measured, under conditions that count."""
        tried = [rung for rung in self.rungs if not rung.skipped]
        return bool(tried) and all(rung.valid for rung in tried)


def content_hash(folder: LadderFolder) -> str:
    """Of the manifest, which has the artifacts' hashes, and the labels: SHA-256 in hexadecimal. Raises OSError."""
    digest = hashlib.sha256((folder.root / FILE_NAME).read_bytes())
    digest.update("\n".join(folder.labels).encode())
    return digest.hexdigest()


def encode(profile: Profile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"


def save(profile: Profile, path: Path) -> None:
    write(path, encode(profile))


def write(path: Path, content: bytes) -> None:
    """Whole or not at all: a reader sees the old file or the new one. What a link names is written, and what is no file
    (a device, a pipe) is written to. Raises OSError."""
    path = Path(os.path.realpath(path))
    if path.is_symlink():  # of a circle; resolve() raises RuntimeError for one, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)  # mkstemp's own would keep others from reading
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def load(path: Path) -> Profile:
    """Raises ConfigError with every problem, each with its field."""
    problems: list[str] = []
    data = _read(path, problems)
    profile = None
    if isinstance(data, dict):
        if data.get("schema") == SCHEMA:
            profile = decode(data, Profile, str(path), problems)
        else:
            problems.append(f"{path}: schema: expected {SCHEMA}, found {data.get('schema')!r:.60}")
    elif not problems:
        problems.append(f"{path}: expected a JSON object, found {type(data).__name__}")
    if profile is None or problems:
        raise ConfigError("the profile cannot be used; `flyball bench` measures a new one", problems)
    return profile


def _read(path: Path, problems: list[str]) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            problems.append(f"{path}: larger than {MOST_BYTES >> 20} MiB, which no profile is")
            return None
        return _without_nulls(msgspec.json.decode(content))
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not JSON: {error}")
    except RecursionError:
        problems.append(f"{path}: not a profile: lists or objects are too deep inside each other (at most {DEEPEST})")
    return None


def _without_nulls(value: Any, levels: int = DEEPEST) -> Any:
    """`decode` is for TOML, which has no null: a field that is null is one that is not there. Raises RecursionError as
    the JSON decoder does, but for a depth that everything behind it can take, whoever calls."""
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        raise RecursionError
    if isinstance(value, dict):
        return {key: _without_nulls(inner, levels - 1) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner, levels - 1) for inner in value]
