"""The demonstration itself: the real daemon, pictures at a steady pace, load beside it, and a report.

private daemon -> measure the rungs -> limit = 1.5 x the p95 of the top one -> pictures flow -> load comes -> load goes

Everything that is decided is decided by the daemon; this module only sets the scene, watches and reports.
"""

from __future__ import annotations

import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress import track

from flyball.client import Client
from flyball.control_api import LadderView
from flyball.demo.burners import Burners
from flyball.demo.report import Report, Spending, report
from flyball.demo.stream import Picture, Stream, ask, pictures
from flyball.demo.summary import summary
from flyball.demo.surface import CLASSES
from flyball.demo.view import Frame, line, picture
from flyball.document import quoted
from flyball.errors import EX_CONFIG, ConfigError, ControlError, FlyballError, LadderError
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ports import Decision
from flyball.sensing.sensors.host import CpuUtilization

MEASURE_S = 3.0
SETTLE_S = 2.0  # on the top rung, until the daemon knows the pictures' pace: it remembers that of the measuring
LIMIT_FACTOR = 1.5
BUSY = 0.6  # of one core, by the top rung alone: the pace at which a rival for the core is felt
RATE_MAX_HZ = 60.0
BURNERS_PER_CORE = 3  # weaker load does not hurt a sleeping single-threaded worker: the scheduler favours it
_PICTURES = 240
_START_S = 30.0
_SOCKET_MOST = 107  # bytes of a Unix socket's path (unix(7))
_SOCKET = "flyball.sock"

CONFIG = """\
# The demonstration's own configuration: short dwell times, so that everything is seen within a minute.
[paths]
state = {state}
socket = {socket}
[serving]
http = ""
metrics = ""
[sensing]
period_s = 0.5
[governor]
period_s = 0.5
window_s = 2.0
down_windows = 2
of_windows = 3
up_windows = 4
headroom = 0.9
dwell_s = 2.0
climb_backoff_s = 4.0
climb_backoff_max_s = 8.0
[ladder.{ladder}]
path = {path}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """`burners`: None = the usual 3 for each core, 0 = none."""

    seconds: float
    burners: int | None = None
    json_file: Path | None = None
    svg: Path | None = None
    ladder: Path | None = None


def perform(options: DemoOptions) -> int:
    """Runs the demonstration; 0 when no request failed, 1 otherwise. Raises FlyballError."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width of its own
    signal.signal(signal.SIGTERM, _interrupt)  # so that the daemon and the burners end with it
    # Mistakes are told before anything starts.
    folder = usable(options.ladder or example_ladder())
    for name, file in (("--json", options.json_file), ("--svg", options.svg)):
        if file is not None:
            check_writable(name, file)
    line_up = list(track(pictures(_PICTURES), "drawing pictures", total=_PICTURES, console=console, transient=True))
    with ExitStack() as scene:
        home = Path(scene.enter_context(tempfile.TemporaryDirectory(prefix="flyball-demo-", dir=short_place())))
        client = scene.enter_context(private_daemon(home, folder))
        known = client.status().ladders[0].status.rungs
        rungs = [r.name for r in known if r.state not in ("failed", "no-accelerator")]
        limit_s, rate_hz = measure(client, folder.name, rungs, line_up, console)
        set_limit(client, home, limit_s)
        result, frame = run(options, client, folder.name, rungs, line_up, limit_s, rate_hz, console)
    finish(result, frame, options, console)
    return 1 if result.failures else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def example_ladder() -> Path:
    """The ladder that came with this installation. Raises LadderError."""
    here = Path(__file__).resolve()
    places = [
        here.parents[3] / "examples/defects/ladder",  # a checkout
        Path(sys.prefix) / "share/flyball/examples/defects",
        Path("/usr/share/flyball/examples/defects"),  # the Debian package
    ]
    for place in places:
        if (place / FILE_NAME).is_file():
            return place
    raise LadderError("the example ladder was not found; name one with --ladder", [str(p) for p in places])


def usable(place: Path) -> LadderFolder:
    """The ladder in a folder, if the pictures of the demonstration can be judged by it. Raises LadderError."""
    folder = load(place)
    problems = []
    if folder.manifest.ladder.task != "image-classification" or set(folder.labels) != set(CLASSES):
        problems.append(f"{place}: expected image-classification with the labels {', '.join(CLASSES)}")
    try:
        os.fspath(place.resolve()).encode()
    except UnicodeEncodeError:
        problems.append(f"{os.fspath(place)!r}: the path is not UTF-8 text, which a configuration has to be")
    if problems:
        raise LadderError("the demonstration cannot use this ladder", problems)
    return folder


def check_writable(option: str, file: Path) -> None:
    """Before a minute is spent on what is to be written there. Raises ConfigError."""
    new = not file.exists()
    try:
        file.open("ab").close()
        if new:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {file}: cannot be written: {error.strerror}") from None


def short_place() -> str | None:
    """Where the demonstration's folder goes: in TMPDIR, unless a socket's path would be too long there."""
    inside = Path(tempfile.gettempdir()) / "flyball-demo-12345678" / _SOCKET
    return "/tmp" if len(os.fsencode(inside)) > _SOCKET_MOST else None  # noqa: S108 - a folder of mkdtemp's in it


def configuration(home: Path, folder: LadderFolder) -> str:
    return CONFIG.format(
        state=quoted(str(home / "state")),
        socket=quoted(str(home / _SOCKET)),
        ladder=quoted(folder.name),
        path=quoted(str(folder.root.resolve())),
    )


@contextmanager
def private_daemon(home: Path, folder: LadderFolder) -> Iterator[Client]:
    """The real daemon with a configuration of its own, and a client on its socket. Raises ControlError, and
    ConfigError or LadderError for what is to be corrected first."""
    socket = home / _SOCKET
    config = home / "flyball.toml"
    config.write_text(configuration(home, folder), encoding="utf-8")
    log = home / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flyball.daemon", "--config", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    client = Client(socket)
    try:
        wait_until_ready(client, process, log)
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            told = log.read_text(errors="replace").strip()
            if process.returncode == EX_CONFIG:
                raise ConfigError(told.removeprefix("error: "))
            raise ControlError(f"the daemon ended with exit code {process.returncode}:\n{told}")
        ladders: Sequence[LadderView] = ()  # none until its accelerators have been looked for
        with suppress(ControlError):  # not there yet
            ladders = client.status().ladders
        failed = [f"{e.status.name}: {e.status.error}" for e in ladders if e.status.state == "failed"]
        if failed:
            raise LadderError("the ladder cannot be served here", failed)
        if ladders and all(entry.status.state == "ready" for entry in ladders):
            return
        time.sleep(0.05)
    raise ControlError(f"the daemon was not ready within {_START_S:g} s:\n{log.read_text(errors='replace')}")


def measure(
    client: Client, ladder: str, rungs: Sequence[str], line_up: Sequence[Picture], console: Console
) -> tuple[float, float]:
    """Measures every rung; gives the limit (1.5 x the top rung's p95, in seconds) and the pace (pictures a second)."""
    p50_s: dict[str, float] = {}
    p95_s: dict[str, float] = {}
    # The top rung carries the limit: it gets half of the time.
    shares = {name: MEASURE_S / 2 if name == rungs[0] else MEASURE_S / 2 / max(1, len(rungs) - 1) for name in rungs}
    # Weakest first, so that the strongest is active, and warm, when the pictures begin to flow.
    for name in track(list(reversed(rungs)), "measuring the rungs", console=console, transient=True):
        client.switch(ladder, name, None)
        latencies: list[float] = []
        end_s = time.monotonic() + shares[name]
        while time.monotonic() < end_s or len(latencies) < 5:
            sample = ask(client, ladder, line_up[len(latencies) % len(line_up)])
            if sample.error:
                raise FlyballError(f"the rung {name} could not be measured: {sample.error}")
            latencies.append(sample.latency_s)
            time.sleep(sample.latency_s / 2)  # not back to back: the pictures will not flow so either
        p95_s[name] = statistics.quantiles(latencies, n=20)[-1]
        p50_s[name] = statistics.median(latencies)
        console.print(f"  {name:<14} p50 {p50_s[name] * 1e3:6.2f} ms   p95 {p95_s[name] * 1e3:6.2f} ms")
    limit_s, rate_hz = LIMIT_FACTOR * p95_s[rungs[0]], min(RATE_MAX_HZ, BUSY / p50_s[rungs[0]])
    console.print(f"latency limit: {LIMIT_FACTOR} x the p95 of {rungs[0]} = {limit_s * 1e3:.1f} ms")
    console.print(f"pace: {rate_hz:.0f} pictures a second\n")
    return limit_s, rate_hz


def set_limit(client: Client, home: Path, limit_s: float, quantile: float = 0.95) -> None:
    """Writes the limit beside the configuration and has the daemon read it again, as an operator would."""
    (home / "conf.d").mkdir()
    limits = f"[governor.limits]\ndeadline_ms = {limit_s * 1e3:.3f}\nquantile = {quantile:g}\n"
    (home / "conf.d/limit.toml").write_text(limits)
    problems = client.reload().problems
    if problems:
        raise ControlError("the daemon did not take the limit: " + "; ".join(problems))


def run(
    options: DemoOptions,
    client: Client,
    ladder: str,
    rungs: Sequence[str],
    line_up: Sequence[Picture],
    limit_s: float,
    rate_hz: float,
    console: Console,
) -> tuple[Report, Frame]:
    """Pictures flow; load comes after a fifth of the time and stays for a quarter of it."""
    burners = BURNERS_PER_CORE * (os.cpu_count() or 1) if options.burners is None else options.burners
    total_s = options.seconds - MEASURE_S
    load_from_s, load_until_s = 0.2 * total_s, 0.45 * total_s
    cpu = CpuUtilization(Path("/proc"))
    stolen_since(cpu)
    watcher = Client(client.socket_path)
    stream = Stream(client, ladder, line_up, rate_hz)
    started_s = time.monotonic()
    before = watcher.status()
    spending = Spending(before)
    stream.start()
    load: ExitStack | None = None
    settling = True
    changes: dict[float, Decision] = {}  # the daemon's ring is bounded: what matters is collected on the way
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console, auto_refresh=False)) if console.is_terminal else None
        while (elapsed_s := time.monotonic() - started_s) < total_s:
            if settling and elapsed_s >= min(SETTLE_S, load_from_s):
                watcher.switch(ladder, "auto", None)
                settling = False
            if load is None and burners and load_from_s <= elapsed_s < load_until_s:
                load = stack.enter_context(ExitStack())
                load.enter_context(Burners(burners, load_until_s - elapsed_s + 5.0))
            if load is not None and elapsed_s >= load_until_s:
                load.close()
            phase = f"{burners} burners beside it" if load_from_s <= elapsed_s < load_until_s and burners else "calm"
            stream.check()
            recent = watcher.decisions(ladder, limit=50)
            changes.update({d.t_s: d for d in recent if d.t_s >= started_s and (d.source != d.target or d.error)})
            now = watcher.status()
            spending.add(now)
            frame = Frame(
                elapsed_s=elapsed_s,
                total_s=total_s,
                phase=phase,
                limit_s=limit_s,
                rungs=rungs,
                samples=list(stream.samples),
                now=now,
                decisions=list(changes.values()),
                joules=dict(spending.joules),
                started_s=started_s,
            )
            if live is not None:
                live.update(picture(frame, console.height), refresh=True)
            else:
                console.print(line(frame), soft_wrap=True)
            time.sleep(0.5 if live is not None else 1.0)
    stream.stop()
    after = watcher.status()
    spending.add(after)
    watcher.close()
    energy_j = after.energy.joules - before.energy.joules if after.energy and before.energy else None
    result = report(
        stream.samples,
        list(changes.values()),
        started_s,
        limit_s,
        rungs,
        spending.joules,
        energy_j,
        after.energy.scope if after.energy else "none",
        stolen_since(cpu),
    )
    return result, frame


def stolen_since(cpu: CpuUtilization) -> float | None:
    """Of the processor time asked for since the call before, the share that a hypervisor gave to others; None at the
    first call and where it cannot be told."""
    with suppress(OSError, ValueError):
        if (shares := cpu.since_last()) is not None:
            return shares.steal / shares.busy if shares.steal else 0.0
    return None


def save_picture(frame: Frame, path: Path) -> None:
    canvas = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    canvas.print(picture(frame))
    canvas.save_svg(str(path), title="flyball demo")


def finish(result: Report, frame: Frame, options: DemoOptions, console: Console) -> None:
    console.print(summary(result))
    if options.svg is not None:
        save_picture(frame, options.svg)
        console.print(f"written: {options.svg}", soft_wrap=True)
    if options.json_file is not None:
        options.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        console.print(f"written: {options.json_file}", soft_wrap=True)
