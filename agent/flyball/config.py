"""The configuration: /etc/flyball/flyball.toml, then conf.d/*.toml over it, into one frozen `Config`.

files -> tables -> merged -> document.decode -> Config, or one ConfigError with every problem

Pure but for reading the files; nothing is probed, opened or resolved here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from flyball.document import decode, read_toml
from flyball.errors import ConfigError

DEFAULT_PATH = Path("/etc/flyball/flyball.toml")
# Judges the rules at a place (file and key), such as governor.rules.parse_all. Raises ConfigError with every problem.
CheckRules: TypeAlias = Callable[[Sequence[str], str], object]
OVERLAY = Path("what the fleet has set")  # where a file's name would stand

# Every number has an end: TOML knows inf, and what is computed with it (windows, sleeps, queues) does not. 1e9 seconds
# are 32 years; MiB, watts and milliseconds come nowhere near it either.
Positive = Annotated[float, Meta(gt=0, le=1e9)]
Mebibytes = Annotated[float, Meta(gt=0, le=1e8)]  # in bytes it is still a number that the governor takes
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=4096)]
Identifier = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", description="1 to 64 letters, digits, '_' or '-'")
]
LadderName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", description="1 to 64 letters, digits, '.', '_' or '-'")
]
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4})"
_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/?#@\[\]]+)"
Endpoint = Annotated[
    str,
    Meta(
        pattern=rf"^\Z|^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):{_PORT}\Z",
        description='HOST:PORT with a port up to 65535, or "" for none',
    ),
]
Broker = Annotated[
    str,
    Meta(
        pattern=rf"^(mqtts?://{_HOST}(:(?!0+\Z){_PORT})?|wss?://{_HOST}(:(?!0+(/|\Z)){_PORT})?(/[!-~]*)?)\Z",
        description="mqtt://HOST[:PORT], mqtts://HOST[:PORT] (TLS), ws:// or wss://HOST[:PORT][/PATH] (WebSocket)",
    ),
]
HttpProxy = Annotated[
    str,
    Meta(
        pattern=rf"^\Z|^http://{_HOST}(:(?!0+\Z){_PORT})?\Z",
        description='http://HOST[:PORT] without a user name, or "" for none',
    ),
]
InstallHost = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:(?!0+\Z){_PORT})?\Z",
        description="HOST or HOST:PORT, without https://",
    ),
]
Command = Literal[
    "ping", "rung", "policy", "config", "ladder.install", "ladder.rollback", "bench", "diag", "logs", "restart"
]


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie. Unset values follow systemd's STATE_DIRECTORY and RUNTIME_DIRECTORY, then, for root,
    /var/lib/flyball and /run/flyball, and for other users the XDG directories."""

    state: str = ""
    socket: str = ""

    def state_dir(self) -> Path:
        return (
            Path(self.state)
            if self.state
            else _default_dir("STATE_DIRECTORY", "/var/lib", "XDG_STATE_HOME", ".local/state")
        )

    def ladders_dir(self) -> Path:
        return self.state_dir() / "ladders"

    def socket_path(self) -> Path:
        if self.socket:
            return Path(self.socket)
        return _default_dir("RUNTIME_DIRECTORY", "/run", "XDG_RUNTIME_DIR", ".local/run") / "flyball.sock"


def _default_dir(systemd: str, system: str, xdg: str, home: str) -> Path:
    if os.environ.get(systemd):
        return Path(os.environ[systemd].split(":")[0])
    if os.geteuid() == 0:
        return Path(system) / "flyball"
    return Path(os.environ.get(xdg) or Path.home() / home) / "flyball"


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Listeners; "" switches one off. Loopback unless changed: TLS and tokens are not there yet, so a network that
    is not trusted must not reach these ports."""

    http: Endpoint = "127.0.0.1:8000"
    metrics: Endpoint = "127.0.0.1:8002"
    allowed_hosts: tuple[str, ...] = ()  # further Host header names that are accepted
    allow_pin: bool = True  # whether TCP callers may name a rung (request parameter `rung`)
    rate_per_s: NotNegative = 0.0  # inference requests of one TCP client, lasting; more are refused with 429; 0 = any
    rate_burst: Count = 32  # that one may send at once after a pause

    def __post_init__(self) -> None:
        if _one_address(self.http, self.metrics):
            raise ValueError(
                f"http, metrics: both would listen on {self.metrics}; give them different ports, or switch one off"
            )


def _one_address(one: str, other: str) -> bool:
    """Whether two listeners would be in each other's way, as far as their text tells. Port 0 is a free one each."""
    if not (one and other):
        return False
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if int(port) != int(other_port) or int(port) == 0:
        return False
    hosts, others = _same_hosts(host), _same_hosts(other_host)
    return bool(hosts & others) or any(_covers(a, b) or _covers(b, a) for a in hosts for b in others)


def _same_hosts(host: str) -> set[str]:
    name = host.lower().removeprefix("[").removesuffix("]")
    return {"127.0.0.1", "::1"} if name.rstrip(".") == "localhost" else {name}


def _covers(wide: str, narrow: str) -> bool:
    """IPv6 listeners take IPv6 only (serving/sockets.py)."""
    return (wide == "0.0.0.0" and ":" not in narrow) or (wide == "::" and ":" in narrow)  # noqa: S104 - nothing is bound


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    queue_limit: Count = 64  # requests waiting per ladder; one more is refused with 429
    slots: Annotated[int, Meta(ge=1, le=64)] = 4  # requests held in shared memory per ladder
    lanes: Annotated[int, Meta(ge=1, le=8)] = 2  # requests inside a worker at once: pre and post beside a run
    wake: Literal["sleep", "poll"] = "sleep"  # poll: a worker keeps one core busy to save a wake-up per request
    request_timeout_s: Positive = 10.0  # a worker that takes longer on one request is taken for hung
    load_timeout_s: Positive = 60.0
    drain_timeout_s: Positive = 10.0
    heartbeat_s: Positive = 10.0  # without an answer for so long, a worker must answer its canary
    restart_backoff_s: Positive = 0.5  # doubled at every failure in a row
    restart_backoff_max_s: Positive = 30.0
    crash_loop_limit: Annotated[int, Meta(ge=0, le=1000)] = 5  # ends of a rung's worker in crash_loop_window_s; 0 = any
    crash_loop_window_s: Positive = 60.0
    rest_s: Positive = 300.0  # how long a rung in a crash loop is left alone
    standby_memory_mib: NotNegative = 256.0  # kept for warm standby rungs, all ladders together
    worker_memory_mib: Positive | None = None  # a worker that takes more is killed
    worker_nice: Annotated[int, Meta(ge=0, le=19)] = 0
    worker_cpus: tuple[Annotated[int, Meta(ge=0, le=4095)], ...] = ()  # the cores that workers may use; none = all
    threads: Annotated[int, Meta(ge=0, le=256)] = 0  # of a rung that does not say; 0 = the backend's own default


class Sensing(msgspec.Struct, frozen=True, kw_only=True):
    period_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    periods: dict[str, Annotated[float, Meta(ge=0.01, le=3600)]] = {}  # of single sensors, by name
    total: str = ""  # the power reading that stands for the whole machine, where nobody could know
    window_s: Annotated[float, Meta(gt=0, le=86400)] = 60.0  # every reading of that time is kept in memory
    idle_w: Positive | None = None  # of this machine, for the estimate where no power sensor is
    load_w: Positive | None = None  # the same with every core busy

    def __post_init__(self) -> None:
        if self.window_s < self.period_s:
            raise ValueError(f"window_s: expected at least period_s, found {self.window_s}")
        if (self.idle_w is None) != (self.load_w is None):
            raise ValueError("idle_w and load_w: give both or none (watts at idle and with every core busy)")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None = no such limit. The share `quantile` of all requests is to be answered within `deadline_ms`;
    `latency_p95_ms` says the same with 95 %. Power and energy are the whole machine's."""

    latency_p95_ms: Positive | None = None
    deadline_ms: Positive | None = None
    quantile: Annotated[float, Meta(ge=0.5, le=0.9999)] = 0.95  # of `deadline_ms`
    temperature_c: Positive | None = 85.0
    memory_available_mib: Mebibytes | None = 64.0
    power_w: Positive | None = None
    energy_wh_per_h: Positive | None = None
    accuracy: Annotated[float, Meta(gt=0, le=1)] | None = None  # beside the ladder's own floor

    def __post_init__(self) -> None:
        _one_deadline(self.latency_p95_ms, self.deadline_ms)


def _one_deadline(p95_ms: float | None, deadline_ms: float | None) -> None:
    if p95_ms is not None and deadline_ms is not None:
        raise ValueError("latency_p95_ms, deadline_ms: both name the deadline; give one of them")


class LoadWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What counts how much in the load score; only their proportions matter."""

    cpu: NotNegative = 0.4
    memory: NotNegative = 0.3
    io: NotNegative = 0.2
    network: NotNegative = 0.1

    def __post_init__(self) -> None:
        if not self.cpu + self.memory + self.io + self.network > 0:
            raise ValueError("cpu, memory, io, network: expected one of them above 0, found nothing that counts")


class Governor(msgspec.Struct, frozen=True, kw_only=True):
    """Down at once when a breach is certain, else when a limit was broken in `down_windows` of the last `of_windows`
    periods; up after `up_windows` periods in a row in which a better rung is predicted to stay under `headroom` of the
    limits; no climb within `dwell_s` of the last change; a climb that has to be taken back doubles the wait for the
    next one. Heat is predicted for `horizon_s`."""

    mode: Literal["accuracy-first", "energy-first", "throughput-first", "pinned", "observe"] = "accuracy-first"
    period_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    window_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    down_windows: Count = 2
    of_windows: Count = 3
    up_windows: Count = 3
    headroom: Annotated[float, Meta(gt=0, le=1)] = 0.85
    dwell_s: NotNegative = 5.0
    horizon_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    climb_backoff_s: NotNegative = 30.0
    climb_backoff_max_s: NotNegative = 900.0
    temperature_margin_c: NotNegative = 5.0
    limits: Limits = Limits()
    load: LoadWeights = LoadWeights()
    rules: tuple[str, ...] = ()  # docs/rules.md; their text is not judged here

    def __post_init__(self) -> None:
        if self.down_windows > self.of_windows:
            raise ValueError(f"down_windows: expected at most of_windows ({self.of_windows})")


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet may order. Whoever may publish under the device's topics may order what `allow` lists."""

    allow: tuple[Command, ...] = ("ping", "rung", "diag")
    install_hosts: tuple[InstallHost, ...] = ()  # where ladder.install may fetch from, by https; none = nowhere
    install_ca_file: str = ""  # certificates that those hosts are checked against; "" = the system's
    install_max_mib: Annotated[float, Meta(gt=0, le=1 << 20)] = 512.0  # of a download
    trial_s: Annotated[float, Meta(ge=1, le=600)] = 10.0  # the daemon has to be well for so long with new settings


class UplinkTls(msgspec.Struct, frozen=True, kw_only=True):
    """For mqtts:// and wss://. Files are PEM and are read anew when they change."""

    ca_file: str = ""  # certificates that the broker is checked against; "" = the system's
    certificate_file: str = ""  # ours, whose common name is the device's id
    key_file: str = ""
    server_name: str = ""  # in the broker's certificate, where it is not the host of `broker`
    ignore_dates_unsynced: bool = False  # do not judge the broker's dates while the wall clock is not synchronized

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file, key_file: give both or none")


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = False
    broker: Broker = "mqtt://127.0.0.1:1883"
    tenant: Identifier = "default"
    device: Identifier | None = None  # unset: the host name
    username: str = ""
    password_file: str = ""
    tls: UplinkTls = UplinkTls()
    proxy: HttpProxy = ""  # the way to the broker, if it is not straight
    proxy_username: str = ""
    proxy_password_file: str = ""
    keepalive_s: Annotated[int, Meta(ge=10, le=3600)] = 45
    telemetry_period_s: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    batch_records: Annotated[int, Meta(ge=1, le=600)] = 60
    batch_s: Positive = 60.0
    spool_mib: Annotated[float, Meta(ge=1, le=65536)] = 64.0  # of sealed batches, kept while the broker is away
    drain_records_s: Annotated[float, Meta(ge=0, le=1e6)] = 500.0  # of what has waited, when it is back; 0: no limit
    commands: Commands = Commands()
    homeassistant: bool = False  # tell Home Assistant of this device, and take rungs from there
    homeassistant_prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 letters, digits, '_' or '-'")
    ] = "homeassistant"
    homeassistant_s: Annotated[float, Meta(ge=1, le=3600)] = 10.0  # between two states

    def __post_init__(self) -> None:
        if self.tls != UplinkTls() and not self.broker.startswith(("mqtts://", "wss://")):
            raise ValueError(f"tls: it counts with mqtts:// and wss:// only; broker is {self.broker}")
        if self.password_file and not self.username:
            raise ValueError("password_file: give username, too")
        if (self.proxy_username or self.proxy_password_file) and not self.proxy:
            raise ValueError("proxy_username, proxy_password_file: give proxy, too")

    def device_id(self) -> str:
        return self.device or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64].lstrip("-_") or "device"


class LadderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """None = as `[governor.limits]` says."""

    latency_p95_ms: Positive | None = None
    deadline_ms: Positive | None = None
    quantile: Annotated[float, Meta(ge=0.5, le=0.9999)] | None = None  # of `deadline_ms`
    temperature_c: Positive | None = None
    memory_available_mib: Mebibytes | None = None
    accuracy: Annotated[float, Meta(gt=0, le=1)] | None = None

    def __post_init__(self) -> None:
        _one_deadline(self.latency_p95_ms, self.deadline_ms)


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Answers to inputs that were seen before, byte for byte."""

    max_mib: Positive
    ttl_s: Positive = 60.0


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """`first` answers; what it is not sure of goes on to `then`."""

    first: LadderName
    then: LadderName
    measure: Literal["max-softmax", "margin", "entropy"] = "max-softmax"
    threshold: Annotated[float, Meta(ge=0, le=1)]
    budget: Annotated[float, Meta(ge=0.01, le=1)] = 1.0  # the share that may go on, of the last 1,000
    # Pictures of more begin at `then`: of raw ones the entropy in bits, of encoded ones the file's bits per pixel.
    complexity_bits: Annotated[float, Meta(ge=0, le=8)] | None = None
    complexity_file_bits: Annotated[float, Meta(ge=0, le=32)] | None = None

    def __post_init__(self) -> None:
        if self.first == self.then:
            raise ValueError(f"then: expected another rung than first ({self.first})")


class LadderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one ladder, by its name: `[ladder.imagenet]`. Limits here win, key by key, over `[governor.limits]`."""

    path: str = ""  # serve this folder, besides what is installed
    rung: str = ""  # pinned at start
    profile: str = ""  # what `flyball bench` measured here; "" = profiles/NAME.json in the state directory, if there
    limits: LadderLimits | None = None
    rules: tuple[str, ...] = ()  # after those of [governor]
    cache: Cache | None = None
    cascade: Cascade | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal[1] = 1
    log: Literal["text", "json"] = "text"
    paths: Paths = Paths()
    serving: Serving = Serving()
    engine: Engine = Engine()
    sensing: Sensing = Sensing()
    governor: Governor = Governor()
    uplink: Uplink = Uplink()
    ladder: dict[LadderName, LadderSettings] = {}


def config_files(path: Path) -> list[Path]:
    """The main file and what lies in conf.d beside it, in the order in which they are laid over each other."""
    return [path, *sorted((path.parent / "conf.d").glob("*.toml"))]


def load(
    path: Path | None,
    default: Path = DEFAULT_PATH,
    *,
    overlay: Mapping[str, Any] | None = None,
    rules: CheckRules | None = None,
) -> Config:
    """The configuration at `path`; without one, `default` if it is there, and in any case the conf.d beside it.
    `overlay` are tables that are laid over all of it: what the fleet has set. Without `rules`, the text of the
    governor's rules is not looked at.

    Raises ConfigError with every problem of every file.
    """
    main = path or default
    problems: list[str] = []
    layers: list[tuple[Path, dict[str, Any]]] = []
    for file in config_files(main):
        if file == main and path is None and not os.path.lexists(file):
            continue
        data = read_toml(file, problems)
        # Each by itself, so that a problem names the file it is in; what several keys say together, and what is
        # missing, can only be told of all layers together.
        decode(data, Config, str(file), problems, fragment=True)
        layers.append((file, data))
    if overlay:
        layers.append((OVERLAY, dict(overlay)))
    if rules is not None:
        for file, data in layers:
            _check_rules(file, data, rules, problems)
    if not problems:
        merged = _merge([data for _, data in layers])
        config = decode(merged, Config, lambda key: _files_of(key, layers) or str(main), problems)
        if config is not None:
            return config
    raise ConfigError(f"the configuration has {len(problems)} problem(s); nothing was changed", problems)


def _check_rules(file: Path, data: Mapping[str, Any], check: CheckRules, problems: list[str]) -> None:
    for key, texts in _rule_lists(data):
        # What is no list of texts was told of by `decode`.
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            try:
                check(texts, f"{file}: {key}")
            except ConfigError as error:
                problems += error.problems


def _rule_lists(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    ladders = data.get("ladder")
    tables = {"governor": data.get("governor")}
    if isinstance(ladders, Mapping):
        tables |= {f"ladder.{name}": table for name, table in ladders.items()}
    for key, table in tables.items():
        if isinstance(table, Mapping) and "rules" in table:
            yield f"{key}.rules", table["rules"]


def _files_of(key: str, layers: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """The files that say most of the way to `key`: one that sets it, or has its table."""
    depths = [(_depth(key, data), file) for file, data in layers]
    most = max((depth for depth, _ in depths), default=0)
    return ", ".join(str(file) for depth, file in depths if depth == most) if most else ""


def _depth(key: str, data: Any) -> int:
    """How many tables and keys of `data` lie on the dotted way to `key`. Names of ladders may have dots."""
    if not isinstance(data, Mapping):
        return 0
    ways = [1 + _depth(key[len(name) + 1 :], value) for name, value in data.items() if f"{key}.".startswith(f"{name}.")]
    return max(ways, default=0)


def _merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win key by key; tables are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = _merge([old, value]) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
