"""How long a fleet takes to be back after its broker has restarted: simulated devices, a real mosquitto.

    python bench/fleet_reconnect.py [--quick] [--json] [--devices N]

reconnect_500_s: from the start of the new broker until every device has introduced itself (birth acknowledged, status
ready). The broker is killed, so that nobody is told, and is away for 10 s, in which back-off has grown. Bar: 90 s.
reconnect_connects: CONNECTs that this took, of the devices that were accepted; as many as devices when no second storm
follows; 40 s of calm are watched for a late one (quick: 5 s). reconnect_peak_per_s: the most of them in one second.
--quick: 100 devices; the keys keep their names.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _rig import arguments, show

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from flyball.clock import SystemClock  # noqa: E402
from flyball_fleet import address  # noqa: E402
from flyball_fleet.simulate.device import Habits  # noqa: E402
from flyball_fleet.simulate.fleet import Fleet  # noqa: E402
from real_broker import Mosquitto  # noqa: E402

AWAY_S = 10.0
CALM_S = 40.0
LIMIT_S = 300.0


async def reconnect(n: int, away_s: float = AWAY_S) -> float:
    """Seconds until all of `n` devices are ready again."""
    return (await measure(n, away_s, 0.0))["reconnect_500_s"]


async def measure(n: int, away_s: float, calm_s: float) -> dict[str, float]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, 4 * n),) * 2)
    executable = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if executable is None:
        raise SystemExit("mosquitto is not installed")
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(executable, Path(folder))
        quiet = ["log_type none"]
        broker.start(quiet)
        fleet = Fleet(address.parse(f"mqtt://127.0.0.1:{broker.port}"), "bench", n, Habits(), SystemClock())
        try:
            await fleet.start()
            await _until(lambda: fleet.ready() == n)
            before = fleet.connects()
            broker.kill()
            await asyncio.sleep(away_s)
            broker.start(quiet)
            began = time.monotonic()
            peak: Counter[int] = Counter()
            seen = before
            while fleet.ready() < n:
                await asyncio.sleep(0.05)
                peak[int(time.monotonic() - began)] += fleet.connects() - seen
                seen = fleet.connects()
                if time.monotonic() - began > LIMIT_S:
                    raise SystemExit(f"only {fleet.ready()} of {n} devices are back after {LIMIT_S:g} s")
            took_s = time.monotonic() - began
            await asyncio.sleep(calm_s)
            return {
                "reconnect_500_s": round(took_s, 2),
                "reconnect_connects": fleet.connects() - before,
                "reconnect_peak_per_s": max(peak.values()),
            }
        finally:
            await fleet.stop()
            broker.kill()


async def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the devices do not become ready")
        await asyncio.sleep(0.05)


def main() -> None:
    parser = arguments(__doc__, "100 devices and 5 s of calm")
    parser.add_argument("--devices", type=int, default=0)
    options = parser.parse_args()
    number = options.devices or (100 if options.quick else 500)
    result = asyncio.run(measure(number, AWAY_S, 5.0 if options.quick else CALM_S))
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    show({**result, "reconnect_cpu_s": round(cpu.ru_utime + cpu.ru_stime, 2)}, options.json)


if __name__ == "__main__":
    main()
