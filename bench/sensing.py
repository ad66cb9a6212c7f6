"""What sensing costs, and whether it is right: on the captured machines of tests/sensing/testcases.

    python bench/sensing.py [--quick] [--json]

agx_orin_10hz_cpu_pct: of one core, the whole sampler at 10 Hz on AGX Orin's tree (of files in memory: a register on a
real bus takes 0.5 ms more, most of it waiting). energy_error_pct: the worst of steps, ramps and sines sampled at 10 and
20 Hz with jitter, against their known energy. fixtures_passed: captured machines that read as expected, of `fixtures`.
false_zero: figures of 0 that appear when one file of a tree cannot be read, is empty or is no number; must be 0.
growth_kb_24h: what the windows and the energy meter gain from hour 1 to hour 24 of one reading a second.
read_us_<sensor>: median of a read on the machine where that sensor has most to read. Ends with 1 where a fixture, a
zero, the energy (0.5 %) or the growth (64 KiB) is not as it must be.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import msgspec
from _rig import arguments, show

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests/sensing/testcases"
sys.path.insert(0, str(ROOT / "tests/sensing"))

from power_signals import SIGNALS  # noqa: E402 - the tests' own signals and replay, so that both judge alike
from sensor_replay import attempt, replay  # noqa: E402

from flyball.clock import SystemClock  # noqa: E402
from flyball.config import Sensing  # noqa: E402
from flyball.events import Events  # noqa: E402
from flyball.ports import Reading  # noqa: E402
from flyball.sensing.board import identify  # noqa: E402
from flyball.sensing.contract import GROUP, Sensor  # noqa: E402
from flyball.sensing.discovery import discover  # noqa: E402
from flyball.sensing.energy import EnergyMeter  # noqa: E402
from flyball.sensing.integral import PowerIntegral  # noqa: E402
from flyball.sensing.sampler import Sampler  # noqa: E402
from flyball.sensing.tree import Tree, parse  # noqa: E402
from flyball.sensing.window import Windows  # noqa: E402

# What takes another's place when that fails, and says 0 itself: rpi_volt's alarm for get_throttled.
HONEST = {("alarm", "under_voltage")}

ENERGY_ERROR_PCT, GROWTH_KB = 0.5, 64.0  # the most that may be; the processor's share depends on the machine

NAMES = ("_label", "/name", "/type", "/compatible", "/model")

PLUGINS: Sequence[EntryPoint] = tuple(entry_points(group=GROUP))


def cases() -> list[Path]:
    return sorted(path.parent for path in CASES.glob("*/expected.json"))


def unpacked(case: Path, folder: Path) -> Tree:
    tree = Tree(folder)
    if (case / "tree.txt").exists():
        tree.unpack(case / "tree.txt")
    return tree


def sensors_of(tree: Tree, arch: str = "aarch64") -> list[Sensor]:
    return discover(tree.roots, Sensing(), board=identify(tree.roots, arch), plugins=PLUGINS)


# ------------------------------------------------------------------------------------------------------------ right


def fixtures(folder: Path) -> tuple[int, list[str]]:
    """How many there are, and those that read otherwise than expected."""
    wrong = []
    for case in cases():
        if replay(case, folder / case.name) != json.loads((case / "expected.json").read_text()):
            wrong.append(case.name)
    return len(cases()), wrong


def energy_error_pct() -> float:
    worst = 0.0
    for signal in SIGNALS:
        for hertz in (10.0, 20.0):
            jitter, integral = random.Random(7), PowerIntegral(0.5)
            for n in range(int(62 * hertz)):
                t_s = (n + jitter.uniform(-0.2, 0.2)) / hertz
                integral.add(t_s, signal.power_w(t_s))
            joules, _ = integral.between(0.7123, 60.7123)
            known_j = signal.energy_j(0.7123, 60.7123)
            worst = max(worst, abs(joules - known_j) / known_j * 100)
    return worst


def zeros(sensors: Sequence[Sensor], tree: Tree, later: Path | None = None) -> set[tuple[str, str]]:
    """(quantity, name) of the readings that are 0 in the second of two reads."""
    for sensor in sensors:
        attempt(sensor, 100.0)
    if later is not None and later.exists():
        tree.unpack(later)
    readings = [r for sensor in sensors for r in attempt(sensor, 101.0)[1]]
    return {(r.quantity, r.name) for r in readings if r.value == 0}


def false_zeros(folder: Path, faults: Sequence[str]) -> tuple[int, int]:
    """(figures of 0 that a fault brought about, faults tried)."""
    invented = tried = 0
    for case in cases():
        if not (case / "tree.txt").exists():
            continue
        tree, later = unpacked(case, folder / case.name), case / "later.txt"
        healthy = zeros(sensors_of(tree), tree) | zeros(sensors_of(tree), tree, later) | HONEST
        tree.unpack(case / "tree.txt")
        entries = [e for e in parse((case / "tree.txt").read_text(), case.name) if e.kind == "file"]
        for entry in entries:
            # A name that reads otherwise is another rail, which may well take nothing: no fault.
            named = any(entry.path.endswith(end) for end in NAMES)
            for fault in faults[:1] if named else faults:
                line = f"{entry.path} ! EIO" if fault == "EIO" else f"{entry.path}: {fault}"
                (folder / "fault.txt").write_text(line + "\n")
                tree.unpack(folder / "fault.txt")
                found = zeros(sensors_of(tree), tree)
                new = found - healthy
                if new:
                    print(f"{case.name}: {line}: {sorted(new)}", file=sys.stderr)
                invented += len(new)
                tried += 1
            tree.unpack(case / "tree.txt")
    return invented, tried


# ------------------------------------------------------------------------------------------------------------ cheap


def read_costs(folder: Path, times: int) -> dict[str, float]:
    """Microseconds of a read, on the machine where the sensor has most readings."""
    most: dict[str, tuple[int, float]] = {}
    for case in cases():
        tree = unpacked(case, folder / case.name)
        for sensor in sensors_of(tree):
            attempt(sensor, 1.0)
            _, readings = attempt(sensor, 2.0)
            if readings and len(readings) > most.get(sensor.name, (0, 0.0))[0]:
                taken = []
                for n in range(times):
                    began = time.perf_counter()
                    attempt(sensor, 3.0 + n)
                    taken.append(time.perf_counter() - began)
                most[sensor.name] = (len(readings), statistics.median(taken) * 1e6)
    return {name: cost_us for name, (_, cost_us) in sorted(most.items())}


def sampler_cpu_pct(folder: Path, seconds: float) -> tuple[float, int]:
    """Of one core at 10 Hz, and how many readings there are each time."""
    tree = unpacked(CASES / "jetson-agx-orin", folder / "sampler")
    sampler = Sampler(sensors_of(tree), 0.1, 60.0, SystemClock(), Events())
    sampler.start()
    try:
        time.sleep(1.0)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        share = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
        return share * 100, len(sampler.latest())
    finally:
        sampler.stop()


class Compressed:
    """A day's readings, one second at a time, as fast as they can be taken in."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings = list(readings)
        self.windows = Windows(window_s=60.0, period_s=1.0)
        self.now_s = 0.0

    def second(self) -> None:
        self.now_s += 1
        by_sensor: dict[str, list[Reading]] = {}
        for reading in self.readings:
            by_sensor.setdefault(reading.sensor, []).append(msgspec.structs.replace(reading, t_s=self.now_s))
        for sensor, its in by_sensor.items():
            taken, problems = self.windows.add(sensor, its, self.now_s)
            if problems or taken != len(its):
                raise SystemExit(f"readings were refused: {problems}")

    def latest(self) -> Sequence[Reading]:
        return self.windows.newest(self.now_s - 5)

    def samples(self, quantity: str, name: str, since_s: float) -> Sequence[tuple[float, float]]:
        return self.windows.samples(quantity, name, since_s)  # type: ignore[arg-type]  # the meter asks for power

    def period_s(self, sensor: str) -> float:
        return 1.0


def growth_kb(folder: Path) -> tuple[float, int]:
    tree = unpacked(CASES / "jetson-agx-orin", folder / "growth")
    readings = [r for sensor in sensors_of(tree) for t in (1.0, 2.0) for r in attempt(sensor, t)[1]]
    newest = {(r.quantity, r.name): r for r in readings}
    day = Compressed(list(newest.values()))
    meter = EnergyMeter(day)
    tracemalloc.start()
    sizes: list[int] = []
    for _ in hours(day, meter, 24):
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    total = meter.energy()
    if total is None or abs(total.covered_s - (24 * 3600 - 1)) > 1:
        raise SystemExit(f"the day's energy does not cover the day: {total}")
    return (sizes[-1] - sizes[0]) / 1024, len(newest) * 24 * 3600


def hours(day: Compressed, meter: EnergyMeter, count: int) -> Iterator[int]:
    for hour in range(count):
        for _ in range(3600):
            day.second()
            meter.account(day.now_s, {("defects", "r224"): 0.5}, {("defects", "r224"): 20})
        yield hour


def main() -> int:
    options = arguments(__doc__, "fewer reads, and unreadable files only").parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="flyball-sensing-") as name:
        folder = Path(name)
        cpu_pct, readings = sampler_cpu_pct(folder, 5.0 if options.quick else 30.0)
        result["agx_orin_10hz_cpu_pct"] = round(cpu_pct, 3)
        result["agx_orin_readings"] = readings
        error_pct = energy_error_pct()
        result["energy_error_pct"] = round(error_pct, 4)
        count, wrong = fixtures(folder / "replay")
        for case in wrong:
            print(f"{case} does not read as expected", file=sys.stderr)
        result["fixtures"], result["fixtures_passed"] = count, count - len(wrong)
        invented, tried = false_zeros(folder / "faults", ["EIO"] if options.quick else ["EIO", "", "x", "-", "nan"])
        result["false_zero"], result["faults_tried"] = invented, tried
        grown_kb, taken = growth_kb(folder)
        result["growth_kb_24h"], result["readings_24h"] = round(grown_kb, 1), taken
        for sensor, cost_us in read_costs(folder / "costs", 50 if options.quick else 500).items():
            result[f"read_us_{sensor}"] = round(cost_us, 1)
    show(result, options.json)
    return 1 if wrong or invented or error_pct > ENERGY_ERROR_PCT or grown_kb > GROWTH_KB else 0


if __name__ == "__main__":
    sys.exit(main())
