"""The runner under MLPerf LoadGen 6.0.17: SingleStream, MultiStream, Server and Offline, PerformanceOnly.

MobileNet v2 uint8 (150,528 bytes in, one thread) in one LadderRunner, default settings; the query sample library is 8
images of random bytes, and every answer is compared with the one given before the load. This process keeps to the first
core, the worker to the last one. The runner's event loop has the main thread; LoadGen runs in another, hands queries
over with call_soon_threadsafe, and is told from the loop's thread when they are answered, with the answer's bytes. At
most 16 samples are with the runner at once, the others wait before it, on LoadGen's clock.

Server: Poisson arrivals at 60 % of the capacity found by a short closed-loop probe just before; 99 % of the answers
must come within 100 ms. MultiStream: 8 samples a query. Every scenario lasts at least 60 s, and 100 queries but
for Offline, which is one; that is LoadGen's own default (submissions to MLPerf ask for 600 s). A --quick run is a trial
of a few seconds, in which LoadGen calls INVALID what has too few queries for its early stopping.

valid_<scenario>           LoadGen's own word, "Result is : VALID", and no answer was wrong or missing
early_stopping_<scenario>  whether its early-stopping criterion was met
singlestream_p90_ms, multistream_p99_ms  as measured; with _estimate_ms LoadGen's early-stopping estimate, which is what
                           MLPerf publishes, left out where there were too few queries for one
server_qps, server_p99_ms, offline_qps   completed samples per second and the 99th percentile as LoadGen states them
capacity_qps, capacity_after_qps         of that probe, and of one at the end: far apart where the machine was not quiet
wrong_answers, failed_answers            over all scenarios

    python bench/loadgen.py [--quick] [--json] [--logs FOLDER]     (needs: pip install -e '.[bench]')
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import uvloop
from _rig import (
    IN_FLIGHT,
    LARGE,
    answers_of,
    arguments,
    closed_loop,
    images,
    missing,
    output_bytes,
    percentile,
    running,
)

from flyball.config import Engine
from flyball.engine.runner import LadderRunner
from flyball.errors import FlyballError
from flyball.ports import InferRequest, Tensor

SAMPLES = 8
AT_ONCE = 16  # samples with the runner; more would be refused by its bounded queue
SERVER_SHARE = 0.6  # of the capacity
SERVER_BOUND_S = 0.1
PER_QUERY = 8  # samples, MultiStream
FULL_S = {"singlestream": 60.0, "multistream": 60.0, "server": 60.0, "offline": 60.0}
QUICK_S = {"singlestream": 4.0, "multistream": 5.0, "server": 8.0, "offline": 4.0}


class Bridge:
    """The system under test: `issue` is called by LoadGen's threads, everything else runs in the loop's."""

    def __init__(
        self, lg: ModuleType, runner: LadderRunner, pictures: Sequence[Tensor], expected: Sequence[bytes]
    ) -> None:
        self._lg = lg
        self._runner = runner
        self._requests = [InferRequest(inputs=(picture,)) for picture in pictures]
        self._expected = expected
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, int]] = deque()  # (LoadGen's id of the sample, its index in the library)
        self._tasks: set[asyncio.Task[None]] = set()
        self.wrong = 0
        self.failed = 0

    def issue(self, samples: Sequence[Any]) -> None:
        # LoadGen's objects are not kept: they belong to it once this returns.
        self._loop.call_soon_threadsafe(self._take, [(sample.id, sample.index) for sample in samples])

    def _take(self, samples: Sequence[tuple[int, int]]) -> None:
        self._waiting.extend(samples)
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < AT_ONCE:
            task = self._loop.create_task(self._answer(*self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    async def _answer(self, sample_id: int, index: int) -> None:
        data = b""
        try:
            data = output_bytes((await self._runner.infer(self._requests[index])).outputs)
            self.wrong += data != self._expected[index]
        except FlyballError as error:
            self.failed += 1
            if self.failed == 1:
                print(f"a sample failed: {error}", file=sys.stderr)
        finally:  # LoadGen waits for every sample, also for one that has no answer
            buffer = (ctypes.c_char * len(data)).from_buffer_copy(data)
            self._lg.QuerySamplesComplete(
                [self._lg.QuerySampleResponse(sample_id, ctypes.addressof(buffer), len(data))]
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What mlperf_log_summary.txt says of one scenario. `early_stopping` is None where it does not speak of it."""

    valid: bool
    early_stopping: bool | None
    percentile_ms: float | None  # what a stream is judged by: p90 or p99
    estimate_ms: float | None  # of the same percentile, by early stopping
    per_s: float | None
    p99_ms: float | None


_PERCENTILE = {"singlestream": "90.0th percentile", "multistream": "99.0th percentile"}
_PER_S = ("Completed samples per second", "Samples per second")


def parse(text: str, scenario: str) -> Summary:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        found = re.match(r"\s*\*?\s*(.+?)\s*:\s*(.*\S)\s*$", line)
        if found:
            fields.setdefault(found[1], found[2])
    if "Result is" not in fields:
        raise SystemExit(f"LoadGen's summary of {scenario} has no result:\n{text}")

    def ms(name: str) -> float | None:
        return float(fields[name]) / 1e6 if name in fields else None

    early = fields.get("Early stopping satisfied")
    judged_by = _PERCENTILE.get(scenario, "")
    return Summary(
        valid=fields["Result is"] == "VALID",
        early_stopping=None if early is None else early == "Yes",
        percentile_ms=ms(f"{judged_by} latency (ns)"),
        estimate_ms=ms(f"Early stopping {judged_by} estimate"),
        per_s=next((float(fields[name]) for name in _PER_S if name in fields), None),
        p99_ms=ms("99.00 percentile latency (ns)"),
    )


def settings(lg: ModuleType, scenario: str, seconds: float, p50_s: float, capacity: float) -> Any:
    result = lg.TestSettings()
    result.mode = lg.TestMode.PerformanceOnly
    result.min_duration_ms = int(seconds * 1e3)
    result.min_query_count = 1 if scenario == "offline" else 100
    if scenario == "singlestream":
        result.scenario = lg.TestScenario.SingleStream
        result.single_stream_expected_latency_ns = int(p50_s * 1e9)
        result.single_stream_target_latency_percentile = 0.9
    elif scenario == "multistream":
        result.scenario = lg.TestScenario.MultiStream
        result.multi_stream_samples_per_query = PER_QUERY
        result.multi_stream_expected_latency_ns = int(PER_QUERY / capacity * 1e9)
        result.multi_stream_target_latency_percentile = 0.99
    elif scenario == "server":
        result.scenario = lg.TestScenario.Server
        result.server_target_qps = SERVER_SHARE * capacity
        result.server_target_latency_ns = int(SERVER_BOUND_S * 1e9)
        result.server_target_latency_percentile = 0.99
    else:
        result.scenario = lg.TestScenario.Offline
        result.offline_expected_qps = capacity
    return result


def drive(lg: ModuleType, bridge: Bridge, test: Any, logs: Path) -> None:
    """One scenario from its start to its log files; blocks, so not in the loop's thread."""
    logs.mkdir(parents=True, exist_ok=True)
    log = lg.LogSettings()
    log.enable_trace = False
    log.log_output.outdir = str(logs)
    log.log_output.copy_summary_to_stdout = False
    sut = lg.ConstructSUT(bridge.issue, lambda: None)
    library = lg.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, library, test, log, str(logs / "no-audit.config"))
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)


def say(scenario: str, summary: Summary, seconds: float, trial: bool) -> None:
    figures = [
        "VALID" if summary.valid else "INVALID",
        f"{_PERCENTILE[scenario]} {summary.percentile_ms:.2f} ms" if summary.percentile_ms else "",
        f"estimate {summary.estimate_ms:.2f} ms" if summary.estimate_ms else "",
        f"{summary.per_s:.1f} per s" if summary.per_s else "",
        f"p99 {summary.p99_ms:.2f} ms" if scenario == "server" and summary.p99_ms else "",
        "" if summary.early_stopping is None else f"early stopping {'met' if summary.early_stopping else 'not met'}",
    ]
    note = f" (a trial of {seconds:g} s: no result by the rules)" if trial else ""
    print(f"{scenario:<13} {', '.join(f for f in figures if f)}{note}", flush=True)


async def measure(lg: ModuleType, logs: Path, quick: bool, talk: bool) -> dict[str, float | bool]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    durations = QUICK_S if quick else FULL_S
    result: dict[str, float | bool] = {}
    async with running(LARGE, Engine(threads=1, worker_cpus=(cores[-1],))) as runner:
        pictures = images(runner.interface, SAMPLES)
        expected = await answers_of(runner, pictures)
        await closed_loop(runner, pictures, IN_FLIGHT, 1.0)
        probe_s = 2.0 if quick else 5.0
        p50_s = percentile((await closed_loop(runner, pictures, 1, probe_s / 2)).latencies_s, 0.5)
        capacity = (await closed_loop(runner, pictures, IN_FLIGHT, probe_s)).per_s
        if talk:
            print(f"probe: {capacity:.0f} per s, p50 alone {p50_s * 1e3:.2f} ms", flush=True)
        wrong = failed = 0
        found: dict[str, Summary] = {}
        for scenario, seconds in durations.items():
            if scenario == "server":
                capacity = (await closed_loop(runner, pictures, IN_FLIGHT, probe_s)).per_s
            bridge = Bridge(lg, runner, pictures, expected)
            test = settings(lg, scenario, seconds, p50_s, capacity)
            await asyncio.to_thread(drive, lg, bridge, test, logs / scenario)
            summary = parse((logs / scenario / "mlperf_log_summary.txt").read_text(), scenario)
            found[scenario] = summary
            wrong, failed = wrong + bridge.wrong, failed + bridge.failed
            result[f"valid_{scenario}"] = summary.valid and not bridge.wrong and not bridge.failed
            if summary.early_stopping is not None:
                result[f"early_stopping_{scenario}"] = summary.early_stopping
            if talk:
                say(scenario, summary, seconds, quick)
        after = (await closed_loop(runner, pictures, IN_FLIGHT, probe_s)).per_s
    figures = {
        "singlestream_p90_ms": found["singlestream"].percentile_ms,
        "singlestream_p90_estimate_ms": found["singlestream"].estimate_ms,
        "multistream_p99_ms": found["multistream"].percentile_ms,
        "multistream_p99_estimate_ms": found["multistream"].estimate_ms,
        "server_qps": found["server"].per_s,
        "server_p99_ms": found["server"].p99_ms,
        "offline_qps": found["offline"].per_s,
        "server_target_qps": SERVER_SHARE * capacity,
        "capacity_qps": capacity,
        "capacity_after_qps": after,
        "server_bound_ms": SERVER_BOUND_S * 1e3,
        "min_duration_s": min(durations.values()),
    }
    result |= {name: round(value, 3) for name, value in figures.items() if value is not None}
    return result | {"wrong_answers": wrong, "failed_answers": failed}


def main() -> int:
    parser = arguments(__doc__, "a trial: 4 to 8 s for each scenario instead of 60 s")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep LoadGen's logs there")
    options = parser.parse_args()
    if missing(LARGE):
        return 1
    try:
        lg = importlib.import_module("mlperf_loadgen")
    except ImportError:
        print("MLPerf LoadGen is missing: run  pip install -e '.[bench]'", file=sys.stderr)
        return 1
    uvloop.install()
    with tempfile.TemporaryDirectory(prefix="flyball-loadgen-") as folder:
        result = asyncio.run(measure(lg, options.logs or Path(folder), options.quick, not options.json))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
