"""Workers killed under traffic: is every request answered or refused, and does anything leak?

    python bench/kills.py [--kills 1000] [--quick] [--json] [--write]

Four clients ask without pause while workers, whatever they are doing (starting, loading, warming, answering, on
standby), get SIGKILL, SIGSEGV, SIGABRT, SIGTERM or SIGSTOP at random moments; one kill in ten meets a worker within its
first half second, and half of the kills do not wait until the ladder has recovered from the last. Back-off base 10 ms,
crash-loop limit off: the limit has its own test. Models: MobileNet v1 0.25 128 and v1 0.5 160, LiteRT, one thread, both
kept open.
unanswered: requests with neither answer nor reason 2 s after their limit. leaked_fds, leaked_processes: after the run
minus before. rss_slope_kb_per_kill: the daemon side's resident memory against the number of kills, least squares over
the run without its first tenth. failover_ms: 95th percentile from SIGKILL of the active worker to the first answer of
another rung, where one stands by. recovery_p95_s: from a kill or stop of the active worker that is followed by no other
until the wanted rung answers again; a stopped one is noticed after a second.
--write commits the figures to bench/kills.json; --quick prints those and a fresh run of 20 kills.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import uvloop
from _rig import arguments, missing, show

from flyball.clock import SystemClock
from flyball.config import Engine
from flyball.engine.inspect import inspect
from flyball.engine.memory import resident_bytes
from flyball.engine.runner import LadderRunner
from flyball.engine.standby import Standby
from flyball.errors import FlyballError
from flyball.events import Events
from flyball.ladder.draft import DraftRequest, draft
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.ports import InferRequest, Tensor

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "kills.json"
MODELS = HERE.parents[1] / "shared/data/models/imagenet"
STRONG, WEAK = MODELS / "mobilenet_v1_0.5_160_quant.tflite", MODELS / "mobilenet_v1_0.25_128_quant.tflite"
LABELS = MODELS / "imagenet_labels.txt"
SIGNALS = (signal.SIGKILL,) * 5 + (signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGSTOP)
LIMIT_S = 2.0  # of every request; a worker that finishes nothing for so long is taken for hung
CLIENTS = 4
STORMS = 0.5  # of the kills do not wait until the ladder has recovered from the last one
ENGINE = Engine(
    threads=1, request_timeout_s=LIMIT_S, load_timeout_s=10, restart_backoff_s=0.01, restart_backoff_max_s=0.05,
    crash_loop_limit=0, heartbeat_s=1.0, queue_limit=64,
)  # fmt: skip


class Run:
    def __init__(self, runner: LadderRunner, seed: int) -> None:
        self._runner = runner
        self._random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.failovers_s: list[float] = []
        self.recoveries_s: list[float] = []
        self.resident_kb: list[tuple[int, float]] = []
        self._killed: tuple[float, str] | None = None  # when, and the rung, until another one has answered
        self._stop = False

    async def client(self, request: InferRequest) -> None:
        while not self._stop:
            try:
                answer = await asyncio.wait_for(self._runner.infer(request), LIMIT_S + 2)
            except FlyballError as error:
                self.outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.01)
            except asyncio.TimeoutError:
                self.outcomes["unanswered"] += 1
            else:
                self.outcomes["answered"] += 1
                if self._killed is not None and answer.rung != self._killed[1]:
                    self.failovers_s.append(time.perf_counter() - self._killed[0])
                    self._killed = None

    async def kill(self, kills: int, report: bool) -> None:
        number = 0
        while number < kills:
            young = self._random.random() < 0.1
            await asyncio.sleep(self._random.uniform(0, 0.05 if young else 0.4))
            pids = workers()
            if not pids:
                await asyncio.sleep(0.05)
                pids = workers()
            if not pids:
                continue
            pid = pids[-1] if young else self._random.choice(pids)
            if not await self._one(pid, self._random.choice(SIGNALS), storm=self._random.random() < STORMS):
                continue
            number += 1
            rss = resident_bytes(os.getpid())
            if rss is not None:
                self.resident_kb.append((number, rss / 1024))
            if report and number % 50 == 0:
                print(f"  {number} of {kills} kills, {dict(self.outcomes)}", file=sys.stderr, flush=True)
        self._killed = None

    async def _one(self, pid: int, how: signal.Signals, storm: bool) -> bool:
        """Whether there was somebody to kill. In a storm the next kill does not wait for the recovery from this one."""
        active = self._runner._seats.active  # bench only: which process answers
        mine = active is not None and any(w.pid == pid for w in active.workers)
        standby = any(r.state == "standby" for r in self._runner.status().rungs)
        began = time.perf_counter()
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return False
        self.signals[how.name] += 1
        if not mine or active is None:
            return True
        self._killed = (began, active.rung.name) if standby and how == signal.SIGKILL else None
        if not storm:
            await self._recovered(self._runner._seats.wanted, began)
        return True

    async def _recovered(self, rung: str, began: float) -> None:
        while time.perf_counter() - began < 15:
            await asyncio.sleep(0.01)
            active = self._runner._seats.active
            if active is not None and active.rung.name == rung and active.alive():
                self.recoveries_s.append(time.perf_counter() - began)
                return
        self.recoveries_s.append(15.0)

    def stop(self) -> None:
        self._stop = True


def workers() -> list[int]:
    """This process's children that are workers, oldest first."""
    found = []
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        try:
            if b"flyball.engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            continue
    return found


def slope(points: list[tuple[int, float]]) -> float:
    points = points[len(points) // 10 :]
    if len(points) < 2:
        return 0.0
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])


def percentile(values: list[float], q: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else None


async def ladder(root: Path) -> LadderFolder:
    facts = tuple([await inspect(model, 60) for model in (STRONG, WEAK)])
    for file in (STRONG, WEAK, LABELS):
        (root / file.name).write_bytes(file.read_bytes())
    request = DraftRequest(
        name="kills", version="1", task="image-classification", models=facts, labels=LABELS.name,
        label_count=len(LABELS.read_text().splitlines()),
    )  # fmt: skip
    (root / FILE_NAME).write_text(draft(request))
    return load(root)


async def measure(kills: int, seed: int, report: bool) -> dict[str, object]:
    image = np.random.default_rng(seed).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    request = InferRequest(inputs=(Tensor("image", "UINT8", image.shape, image.tobytes()),), timeout_s=LIMIT_S)
    with tempfile.TemporaryDirectory() as root:
        folder = await ladder(Path(root))
        before_fds, before_workers = len(os.listdir("/proc/self/fd")), len(workers())
        runner = LadderRunner(folder, ENGINE, Standby(1 << 30), Events(), SystemClock())
        await runner.start()
        await runner.settled()
        run = Run(runner, seed)
        tending = asyncio.create_task(tend(runner))
        clients = [asyncio.create_task(run.client(request)) for _ in range(CLIENTS)]
        await asyncio.sleep(0.5)
        await run.kill(kills, report)
        await asyncio.sleep(1.0)
        run.stop()
        _, late = await asyncio.wait(clients, timeout=LIMIT_S + 3)
        unanswered = run.outcomes["unanswered"] + len(late)
        tending.cancel()
        pending = runner.status().pending
        await runner.close()
        await asyncio.sleep(0.2)
        leaked_fds = len(os.listdir("/proc/self/fd")) - before_fds
        leaked_processes = len(workers()) - before_workers
    failover, recovery = percentile(run.failovers_s, 0.95), percentile(run.recoveries_s, 0.95)
    refused = sum(run.outcomes.values()) - run.outcomes["answered"] - run.outcomes["unanswered"]
    return {
        "kills": sum(run.signals.values()),
        "unanswered": unanswered,
        "leaked_fds": leaked_fds,
        "leaked_processes": leaked_processes,
        "leaked_slots": pending,
        "rss_slope_kb_per_kill": round(slope(run.resident_kb), 3),
        "failover_ms": None if failover is None else round(failover * 1e3, 1),
        "failovers": len(run.failovers_s),
        "recoveries": len(run.recoveries_s),
        "recovery_p95_s": None if recovery is None else round(recovery, 3),
        "answered": run.outcomes["answered"],
        "refused": refused,
        "refusals": {k: v for k, v in run.outcomes.items() if k not in ("answered", "unanswered")},
        "signals": dict(run.signals),
        "restarts": dict(runner.totals().worker_restarts),
    }


async def tend(runner: LadderRunner) -> None:
    while True:
        await asyncio.sleep(1.0)
        runner.tend()


def main() -> int:
    parser = arguments(__doc__, "the committed figures, and 20 fresh kills")
    parser.add_argument("--kills", type=int, default=1000, help="how many (default: 1000, about 10 minutes)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"commit the figures to {COMMITTED.name}")
    options = parser.parse_args()
    if missing(STRONG):
        return 1
    kills = 20 if options.quick else options.kills
    result = uvloop.run(measure(kills, options.seed, not options.json))
    good = result["unanswered"] == 0 and result["leaked_fds"] == 0 and result["leaked_processes"] == 0
    if options.write:
        where = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
        stamp = {"date": datetime.date.today().isoformat(), "commit": where.stdout.strip()}
        COMMITTED.write_text(json.dumps({**stamp, **result}, indent=1) + "\n")
    if options.quick and COMMITTED.exists():
        result = {**json.loads(COMMITTED.read_text()), **{f"fresh_{key}": value for key, value in result.items()}}
    show(result, options.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
