"""A real daemon under a real load: pictures that come at random, burners that come and go, one policy after the other.

Plan -> private daemon, arrivals, burners -> Asked (one for every request) -> scores

The same arrivals and the same burners for every policy: the governor's own choice, or one rung pinned throughout. The
deadline is DEADLINE_X times the top rung's p95 at rest, under those arrivals and with their waits, or at their pace
without any wait.
Two latencies. The daemon's own, from the request read to the answer ready, is what limits and scores are about: the
generator competes with the burners for the same cores, and its share is not the daemon's. The one from the moment at
which the request was due also holds a late generator, the wait for one of SENDERS, HTTP on both sides and the answer's
reading. No request names a timeout: that would let it pick its own rung.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flyball.client import Client
from flyball.demo.burners import Burners
from flyball.demo.private_daemon import private_daemon, set_limit, short_place
from flyball.demo.stolen import quietest, stolen_since
from flyball.demo.stream import Picture, Sample, ask, pictures
from flyball.errors import FlyballError
from flyball.ladder.manifest import FILE_NAME, LadderFolder, load
from flyball.sensing.sensors.host import CpuUtilization

LADDER = Path(__file__).resolve().parents[1] / "examples/defects/ladder"
IMAGENET = Path(__file__).resolve().parents[2] / "shared/data/models/imagenet"
# Top-1 of the models on the shared data's HOLDOUT pictures, as its manifest states them.
MOBILENETS = {"v2_1.0_224": 0.886, "v1_0.75_192": 0.790, "v1_0.5_160": 0.677, "v1_0.25_128": 0.455}
GOVERNED = "governor"
PER_CORE = 3  # burners, as in the standard trace cpu-bursts
DEADLINE_X = 2.0  # times the top rung's p95 at rest, under the arrivals of the run itself
REST_S, UNCOUNTED_S = 5.0, 1.0
LOOKS, MOST_LOOKS = 5, 20  # at rest: the median of the p95 of the quietest counts
PROFILE_S = 3.0  # of every rung
ALLOWED = 0.05
SENDERS = 16
JOIN_S = 60.0  # every sender, for what a rung that is too slow has left over
PICTURES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Phases in turn, the first without burners. `rate_per_s` of arrivals at random."""

    phases_s: tuple[float, ...]
    rate_per_s: float
    cores: int
    calm_s: float = 3.0  # before every policy
    seed: int = 1
    burners_per_core: int = PER_CORE

    def bursts(self) -> list[tuple[float, float]]:
        """When burners are there."""
        found, at_s = [], 0.0
        for index, length_s in enumerate(self.phases_s):
            if index % 2:
                found.append((at_s, at_s + length_s))
            at_s += length_s
        return found

    def ends_s(self) -> float:
        return sum(self.phases_s)

    def arrivals(self) -> list[float]:
        dice, at_s, found = random.Random(self.seed), 0.0, []
        while (at_s := at_s + dice.expovariate(self.rate_per_s)) < self.ends_s():
            found.append(at_s)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request; `due_s` is from the beginning of the run. `latency_s` is the daemon's own figure, `since_due_s` from
    `due_s` until the sender had the answer; without an answer both are None."""

    due_s: float
    latency_s: float | None
    since_due_s: float | None
    rung: str
    right: bool

    def in_time(self, deadline_s: float) -> bool:
        """By the daemon's own figure."""
        return self.latency_s is not None and self.latency_s <= deadline_s


class Rig:
    """The daemon with one ladder, and the pictures."""

    def __init__(
        self,
        client: Client,
        home: Path,
        folder: LadderFolder,
        rate_per_s: float,
        waits: bool,
        quantile: float,
        looks: int,
        most_looks: int,
    ) -> None:
        self.client, self._home, self.ladder = client, home, folder.name
        (served,) = client.status().ladders
        self.rungs = [r.name for r in served.status.rungs if r.state != "no-accelerator"]
        self._socket = home / "flyball.sock"
        self._line = list(pictures(PICTURES))
        self.stolen: float | None = None  # in the newest run, of the processor time asked for; None: cannot be told

        seeds = itertools.count()

        def look() -> tuple[float | None, float]:
            p95_s = self._p95_s(rate_per_s, next(seeds)) if waits else self._alone_s(rate_per_s)
            return self.stolen, p95_s

        counted = quietest(look, looks, most_looks)
        self.stolen_at_rest = [stolen for stolen, _ in counted]
        self.deadline_s = DEADLINE_X * statistics.median(p95_s for _, p95_s in counted)
        self.client.switch(self.ladder, "auto")
        set_limit(client, home, self.deadline_s, quantile)

    def _p95_s(self, rate_per_s: float, seed: int) -> float:
        """Of the top rung at rest: what waits its turn among these arrivals counts, as it does in the run."""
        plan = Plan(phases_s=(UNCOUNTED_S + REST_S,), rate_per_s=rate_per_s, cores=1, calm_s=0.5, seed=seed)
        asked = between(self.run(self.rungs[0], plan), UNCOUNTED_S, UNCOUNTED_S + REST_S)
        took = [a.latency_s for a in asked if a.latency_s is not None]
        if len(took) < len(asked) or len(took) < 20:
            raise FlyballError(f"{self.rungs[0]} at rest: {len(took)} of {len(asked)} requests were answered")
        return statistics.quantiles(took, n=20)[-1]

    def _alone_s(self, rate_per_s: float) -> float:
        """The same of requests that never wait, at that pace: one after the other they would find its caches warm."""
        self.client.switch(self.ladder, self.rungs[0], force=True)
        took: list[float] = []
        cpu = CpuUtilization(Path("/proc"))
        stolen_since(cpu)
        with Client(self._socket) as client:
            for _ in range(round(REST_S * rate_per_s)):
                time.sleep(1.0 / rate_per_s)
                sample = ask(client, self.ladder, self._line[len(took) % len(self._line)])
                if sample.error:
                    raise FlyballError(f"{self.rungs[0]} at rest: {sample.error}")
                took.append(sample.latency_s)
        self.stolen = stolen_since(cpu)
        return statistics.quantiles(took, n=20)[-1]

    def run(self, policy: str, plan: Plan) -> list[Asked]:
        """`policy` is GOVERNED or a rung to hold. Raises FlyballError, also when the daemon or a sender did not live to
        the end: what was not answered then says nothing of the policy."""
        if policy == GOVERNED:
            self.client.switch(self.ladder, "auto")
            time.sleep(plan.calm_s)  # it may have to climb first
        else:
            self.client.switch(self.ladder, policy, force=True)
        time.sleep(plan.calm_s)
        due: queue.SimpleQueue[tuple[float, Picture] | None] = queue.SimpleQueue()
        found: list[Asked] = []
        trouble: list[str] = []
        cpu = CpuUtilization(Path("/proc"))
        stolen_since(cpu)
        began_s = time.monotonic() + 0.1
        args = (due, found, began_s, trouble)
        senders = [threading.Thread(target=self._send, args=args, daemon=True) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        burning = threading.Thread(target=_burn, args=(plan, began_s), daemon=True)
        burning.start()
        for number, at_s in enumerate(plan.arrivals()):
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            due.put((at_s, self._line[number % len(self._line)]))
        for _ in senders:
            due.put(None)
        for thread in (*senders, burning):
            thread.join(JOIN_S)
        if trouble:
            raise FlyballError(f"{policy}: {len(trouble)} of {SENDERS} senders ended early, the first by {trouble[0]}")
        try:
            self.client.status()
        except FlyballError as error:
            raise FlyballError(f"{policy}: the daemon did not live to the end: {error}\n{self._last_words()}") from None
        self.stolen = stolen_since(cpu)
        return complete(plan, found)

    def _send(
        self,
        due: queue.SimpleQueue[tuple[float, Picture] | None],
        found: list[Asked],
        began_s: float,
        trouble: list[str],
    ) -> None:
        try:
            with Client(self._socket) as client:
                while (item := due.get()) is not None:
                    at_s, picture = item
                    found.append(asked_of(ask(client, self.ladder, picture), at_s, began_s))
        except Exception as error:  # the boundary of this thread
            trouble.append(f"{type(error).__name__}: {error}")

    def _last_words(self) -> str:
        log = self._home / "daemon.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-3:]) if log.is_file() else "it left no log"


def stolen_pct(shares: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """The worst run of each policy: those that were not given the same machine cannot be compared."""
    known = {policy: [s for s in its if s is not None] for policy, its in shares.items()}
    return {f"stolen_pct_{policy}": round(100 * max(its), 1) for policy, its in known.items() if its}


def asked_of(sample: Sample, due_s: float, began_s: float) -> Asked:
    """`sample` is of the request that was due `due_s` after `began_s`, which is monotonic."""
    return Asked(
        due_s=due_s,
        latency_s=None if sample.error else sample.latency_s,
        since_due_s=None if sample.error else sample.t_s - (began_s + due_s),
        rung=sample.rung,
        right=sample.right,
    )


def complete(plan: Plan, found: Sequence[Asked]) -> list[Asked]:
    """One for every arrival of the plan, in order. What has not ended yet was not answered: left out, it would be to
    the good of the rung that is too slow."""
    ended = {asked.due_s: asked for asked in tuple(found)}  # a sender may still be at it
    lost = Asked(due_s=0.0, latency_s=None, since_due_s=None, rung="", right=False)
    return [ended.get(at_s) or dataclasses.replace(lost, due_s=at_s) for at_s in plan.arrivals()]


@contextmanager
def rig(
    ladder: Path = LADDER,
    *,
    quick: bool,
    rate_per_s: float = 20.0,
    waits: bool = True,
    quantile: float = 1.0 - ALLOWED,
) -> Iterator[Rig]:
    """`quantile` of the answers are to come within the deadline; `waits` says whether waits count in what it is of. The
    daemon has the profile that `flyball bench` makes,
    but not when `quick`."""
    folder = load(ladder)
    with tempfile.TemporaryDirectory(prefix="flyball-live-", dir=short_place()) as place:
        if not quick:
            _profile(folder, PROFILE_S, Path(place) / "state/profiles")
        with private_daemon(Path(place), folder) as client:
            looks = (1, 1) if quick else (LOOKS, MOST_LOOKS)
            yield Rig(client, Path(place), folder, rate_per_s, waits, quantile, *looks)


def _profile(folder: LadderFolder, seconds: float, shelf: Path) -> None:
    """Where a daemon that keeps its state beside `shelf` finds it."""
    shelf.mkdir(parents=True)
    document = shelf / f"{folder.name}.json"
    told = _flyball("bench", folder.root, "--seconds", str(seconds), "--json", document)[1]
    if not document.is_file():  # short runs are not valid by MLPerf's measure, which the exit code tells
        raise FlyballError(f"flyball bench left no profile: {told}")


def _flyball(*arguments: str | Path) -> tuple[int, str]:
    """The command line's exit code and the end of what it told on stderr."""
    command: list[str | Path] = [sys.executable, "-m", "flyball", *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stderr.decode(errors="replace")[-500:]


def mobilenets(place: Path) -> Path:
    """A ladder of the shared MobileNets with the accuracies that their manifest states, made as a user makes one.
    Raises FlyballError."""
    models = [IMAGENET / f"mobilenet_{name}_quant.tflite" for name in MOBILENETS]
    labels = IMAGENET / "imagenet_labels.txt"
    code, told = _flyball("ladder", "new", *models, "--labels", labels, "--name", "imagenet", "--out", place)
    if code:
        raise FlyballError(f"flyball ladder new ended with exit code {code}: {told}")
    manifest = place / FILE_NAME
    text = manifest.read_text()
    for name, accuracy in MOBILENETS.items():
        table = f'artifact = "mobilenet_{name}_quant.tflite"'
        if table not in text:
            raise FlyballError(f"{manifest}: no rung has {table}")
        text = text.replace(table, f"{table}\naccuracy = {accuracy}")
    manifest.write_text(text)
    return place


def late_share(asked: Sequence[Asked], deadline_s: float) -> float:
    return sum(not a.in_time(deadline_s) for a in asked) / len(asked)


def between(asked: Sequence[Asked], begin_s: float, end_s: float) -> list[Asked]:
    return [a for a in asked if begin_s <= a.due_s < end_s]


def _burn(plan: Plan, began_s: float) -> None:
    for begin_s, end_s in plan.bursts():
        time.sleep(max(0.0, began_s + begin_s - time.monotonic()))
        with Burners(plan.burners_per_core * plan.cores, end_s - begin_s + 30.0):
            time.sleep(max(0.0, began_s + end_s - time.monotonic()))
