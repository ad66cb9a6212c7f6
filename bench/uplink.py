"""What telemetry costs on the wire and on the flash, and how fast it catches up. A real mosquitto, a real disk.

    python bench/uplink.py [--quick] [--json]

The record is the standard one of 19 figures, from the noisy trace in bench/uplink_trace.jsonl, with both clocks.

bytes_per_record: of batches of 60, with PUBLISH header, topic and properties. Bar: 32.
flash_mb_per_day: at 1 Hz, with the broker there: every page that the process makes the kernel write (write_bytes of
/proc/self/io) in a day told in a shorter time, flushed every 30 s of it, as the kernel does; flash_mb_per_day_flushed:
flushed after every commit, the most that it can be. Bar: 60.
drain_records_s: a backlog of batches of 60, from the first that is sent to the last that is deleted after its PUBACK;
no token bucket. Bar: 5,000.
open_full_minus_empty_ms: opening a spool of 64 MiB that a SIGKILL has left with its log, less opening an empty one;
median of 11, each in a process of its own, which ends by SIGKILL too. Bar: 5.
daemon_cpu_pct: of one core, the whole daemon without a ladder, 1 Hz, linked; daemon_cpu_off_pct: uplink switched off.
reconnect_500_s: until 500 simulated devices are ready again after a broker's restart; bar: 90. reconnect_connects: the
CONNECTs that this took; 500 when no second storm follows. See bench/fleet_reconnect.py; null with --quick.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from _records import BATCH, BOOT, EPOCH, STARTS, bytes_per_record, encoded, records
from _rig import arguments, show

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/uplink")]

from device_side import make, until  # noqa: E402 - the tests' own device and broker

from flyball.uplink import spoolfile  # noqa: E402
from flyball.uplink.record import Record, row  # noqa: E402
from flyball.uplink.spool import SpoolFile  # noqa: E402
from flyball.uplink.spooled import Rows, Work  # noqa: E402
from real_broker import Mosquitto  # noqa: E402

BOUND = 64 * 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------------------------------------------- flash


def flash_mb_per_day(folder: Path, made: Sequence[Record], hours: float, every: int) -> float:
    """Commits of ten records, as a linked daemon makes them; the log is flushed after `every` of them."""
    file = SpoolFile(folder)
    file.begin(EPOCH, STARTS)
    file.grant(dict.fromkeys(STARTS, 1 << 40))
    cells = [row(record) for record in made]
    acknowledged: list[tuple[int, int]] = []
    before, commits = written_bytes(), int(hours * 360)
    for n in range(commits):
        at = n * 10 % len(cells)
        work = Work(rows={"main": [Rows(boot=BOOT, clk="synced", rows=cells[at : at + 10])]}, acknowledged=acknowledged)
        acknowledged = [sealed.key for sealed in file.commit(work)]
        if n % every == every - 1:
            flush(folder / "spool.db-wal")
    total = written_bytes() - before
    file.close()
    return total / hours * 24 / 1e6


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


# ------------------------------------------------------------------------------------------------------- drain and open


def fill(folder: Path, made: Sequence[Record], batches: int, epoch: str) -> None:
    """As if they had been sealed while the broker was away; the bodies repeat, the numbers do not."""
    bodies = [encoded(made[i : i + BATCH], 0) for i in range(0, len(made), BATCH)]
    file = SpoolFile(folder)
    file.begin(epoch, STARTS)
    file.close()
    db = spoolfile.connect(folder / "spool.db")
    (stream,) = db.execute("SELECT id FROM stream WHERE name = 'main' AND epoch = ?", (epoch,)).fetchone()
    db.execute("BEGIN")
    db.execute("DELETE FROM batch2")
    pairs = zip(range(batches), itertools.cycle(bodies), strict=False)
    db.executemany(
        "INSERT INTO batch2 VALUES (?, ?, ?, ?, '', ?, ?)",
        ((n + 1, stream, n * BATCH, BATCH, body.deflated, body.payload) for n, body in pairs),
    )
    size = db.execute("SELECT sum(length(body) + 48) FROM batch2").fetchone()[0]
    values = (batches * BATCH, size, batches * BATCH, stream)
    db.execute("UPDATE stream SET next = ?, bytes = ?, records = ? WHERE id = ?", values)
    db.execute("COMMIT")
    db.close()


async def drain_records_s(folder: Path, made: Sequence[Record], batches: int) -> float:
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("mosquitto is missing: run  sudo apt-get install mosquitto")
    state, broker_home = folder / "state", folder / "broker"
    broker_home.mkdir(parents=True)
    broker = Mosquitto(program, broker_home)
    uplink = make(broker.port, state, drain_records_s=0)
    await uplink.start()  # nobody answers; it makes the store and its epoch
    await until(lambda: (state / "spool.db").exists() and uplink.state().spool_records is not None)
    await uplink.stop()
    with spoolfile.connect(state / "spool.db") as db:
        (epoch,) = db.execute("SELECT epoch FROM stream LIMIT 1").fetchone()
    db.close()
    fill(state, made, batches, epoch)
    broker.start(["log_type none"])
    uplink = make(broker.port, state, drain_records_s=0)
    try:
        await uplink.start()
        await until(lambda: (uplink.state().spool_records or 0) >= batches * BATCH)
        await until(lambda: (uplink.state().spool_records or 0) < batches * BATCH)
        began_s, began = time.perf_counter(), uplink.state().spool_records or 0
        await until(lambda: (uplink.state().spool_records or 0) < BATCH, 300)
        return (began - (uplink.state().spool_records or 0)) / (time.perf_counter() - began_s)
    finally:
        await uplink.stop()
        broker.stop()


OPEN = """
import os, signal, sys, time
from pathlib import Path
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY, Start
began = time.perf_counter()
file = SpoolFile(Path(sys.argv[1]))
file.begin(sys.argv[2], {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)})
file.marks(), file.oldest(TELEMETRY, 0, 1)
print((time.perf_counter() - began) * 1000, file.totals().bytes, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def open_ms(folder: Path) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder), EPOCH], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != -signal.SIGKILL:
        raise SystemExit("the spool could not be opened")
    took, size = done.stdout.split()
    return float(took), int(size)


WRITE = """
import os, signal, sys
from pathlib import Path
from _records import BOOT, EPOCH, STARTS, records
from flyball.uplink.record import row
from flyball.uplink.spool import SpoolFile
from flyball.uplink.spooled import Rows, Work
file = SpoolFile(Path(sys.argv[1]))
file.begin(EPOCH, STARTS)
file.grant(dict.fromkeys(STARTS, 1 << 40))
cells = [row(record) for record in records()]
for n in range(int(sys.argv[2])):
    file.commit(Work(rows={"main": [Rows(boot=BOOT, clk="synced", rows=cells[n * 10 % 600 : n * 10 % 600 + 10])]}))
os.kill(os.getpid(), signal.SIGKILL)
"""


def open_full_minus_empty_ms(folder: Path, made: Sequence[Record], times: int) -> float:
    """Both were killed while they wrote, so that both have a log, and thirty records that are not sealed."""
    full, empty = folder / "full", folder / "empty"
    size = sum(len(encoded(made[i : i + BATCH], 0).payload) + 48 for i in range(0, len(made), BATCH))
    per_batch = size / (len(made) / BATCH)
    full.mkdir(parents=True)
    fill(full, made, int(BOUND * 0.968 / per_batch), EPOCH)
    for place, commits in ((full, 123), (empty, 3)):
        place.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-c", WRITE, str(place), str(commits)], cwd=ROOT / "bench", check=False)
    if (full / "spool.db-wal").stat().st_size == 0 or open_ms(full)[1] < 0.95 * BOUND:
        raise SystemExit("the full spool is not full, or has no log")
    took = [(open_ms(full)[0], open_ms(empty)[0]) for _ in range(times)]
    return statistics.median(a for a, _ in took) - statistics.median(b for _, b in took)


# ------------------------------------------------------------------------------------------------------------------ cpu


def daemon_cpu_pct(folder: Path, seconds: float, broker_port: int | None) -> float:
    folder.mkdir(parents=True)
    config = folder / "flyball.toml"
    config.write_text(
        f'[paths]\nstate = "{folder}/state"\nsocket = "{folder}/s"\n[serving]\nhttp = ""\n[uplink]\n'
        + (f'enabled = true\nbroker = "mqtt://127.0.0.1:{broker_port}"\ndevice = "bench"\n' if broker_port else "")
    )
    command = [sys.executable, "-m", "flyball.daemon", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        before = cpu_s(process.pid)
        time.sleep(seconds)
        if process.poll() is not None:
            raise SystemExit(f"the daemon has ended; run  {' '.join(command)}  to see why")
        return (cpu_s(process.pid) - before) / seconds * 100
    finally:
        process.terminate()
        process.wait(30)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu(folder: Path, seconds: float) -> Iterator[tuple[str, float]]:
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"
    folder.mkdir()
    broker = Mosquitto(program, folder)
    broker.start(["log_type none"])
    try:
        yield "daemon_cpu_pct", round(daemon_cpu_pct(folder / "on", seconds, broker.port), 2)
    finally:
        broker.stop()
    yield "daemon_cpu_off_pct", round(daemon_cpu_pct(folder / "off", seconds, None), 2)


def reconnect() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/fleet_reconnect.py"), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {key: found[key] for key in ("reconnect_500_s", "reconnect_connects")}


def main() -> int:
    options = arguments(__doc__, "a day in 2 hours, 1,000 batches, 5 openings, 8 s; no fleet: under 45 s").parse_args()
    quick, made = options.quick, records()
    result: dict[str, object] = {"bytes_per_record": round(bytes_per_record(made), 2)}
    # /tmp may be in memory, where nothing is written to a disk.
    with tempfile.TemporaryDirectory(prefix="flyball-uplink-", dir="/var/tmp") as name:
        folder = Path(name)
        hours = 2.0 if quick else 24.0
        result["flash_mb_per_day"] = round(flash_mb_per_day(folder / "a", made, hours, 3), 1)
        result["flash_mb_per_day_flushed"] = round(flash_mb_per_day(folder / "b", made, hours, 1), 1)
        result["drain_records_s"] = round(asyncio.run(drain_records_s(folder / "c", made, 1000 if quick else 5000)))
        result["open_full_minus_empty_ms"] = round(open_full_minus_empty_ms(folder / "d", made, 5 if quick else 11), 2)
        result |= dict(cpu(folder / "e", 8.0 if quick else 60.0))
    result |= {"reconnect_500_s": None, "reconnect_connects": None} if quick else reconnect()
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
