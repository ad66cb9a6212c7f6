"""What the daemon costs a small machine: start, memory, idle processor time.

ready_s           from exec to the first correct answer of one ladder over its socket (warm caches; median of runs)
pss_mb            PSS in MiB of the daemon and its helper processes, uplink on, after a wait: of a daemon without a
                  ladder, so that no worker takes a share of its pages, or of one with, whichever is more
pss_one_model_mb  the same plus one worker with mobilenet_v1_0.25_128
idle_cpu_pct      of one core, daemon and worker together, over the last part of that wait
version_s         `flyball --version`, median of runs

The wait is 60 s after READY, or 12 s with --quick. Needs mosquitto: the uplink talks to a real broker on loopback.

    python bench/footprint.py [--quick] [--json]
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _rig import arguments, missing

from flyball.client import Client
from flyball.errors import FlyballError
from flyball.measure.accuracy import best_label, encoded_image

DATA = Path(__file__).resolve().parents[2] / "shared/data"
MODEL = DATA / "models/imagenet/mobilenet_v1_0.25_128_quant.tflite"
LABELS = DATA / "models/imagenet/imagenet_labels.txt"
PICTURE = DATA / "images/parrot.jpg"
RIGHT = "macaw"
TICKS = os.sysconf("SC_CLK_TCK")
FLYBALL = [str(Path(sys.executable).with_name("flyball"))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(home: Path) -> Iterator[int]:
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("mosquitto is missing: run  sudo apt-get install mosquitto")
    port = free_port()
    config = home / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def empty_daemon(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """With the configuration that `daemon` has written, and no ladder."""
    command = [sys.executable, "-m", "flyball.daemon", "--config", str(home / "flyball.toml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def daemon(home: Path, ladder: Path, broker_port: int) -> Iterator[tuple[subprocess.Popen[bytes], Client, float]]:
    """The daemon, a client, and the seconds from exec to the first right answer."""
    config = home / "flyball.toml"
    config.write_text(
        f'[paths]\nstate = "{home}/state"\nsocket = "{home}/s"\n[serving]\nhttp = "127.0.0.1:{free_port()}"\n'
        f'metrics = "127.0.0.1:{free_port()}"\n[uplink]\nenabled = true\nbroker = "mqtt://127.0.0.1:{broker_port}"\n'
        'device = "footprint"\n[engine]\nthreads = 1\n'
    )
    tensor = encoded_image(PICTURE.read_bytes())
    client = Client(home / "s")
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flyball.daemon", "--config", str(config), "--ladder", str(ladder)],
        stdout=subprocess.DEVNULL,
        stderr=(home / "log").open("wb"),
    )
    try:
        while True:
            try:
                label = best_label(client.infer("mobilenet", (tensor,)))
                break
            except FlyballError:
                if process.poll() is not None or time.perf_counter() - started_s > 60:
                    raise SystemExit(f"the daemon did not answer:\n{(home / 'log').read_text()}") from None
                time.sleep(0.005)
        ready_s = time.perf_counter() - started_s
        if label != RIGHT:
            raise SystemExit(f"the first answer was wrong: {label}")
        yield process, client, ready_s
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def family(pid: int) -> tuple[list[int], list[int]]:
    """(the daemon and its helpers, the session workers)."""
    helpers, workers = [pid], list[int]()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        (workers if b"flyball.engine.worker" in command else helpers).append(int(child))
    return helpers, workers


def pss_mib(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def cpu_s(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / TICKS


def version_s(runs: int) -> float:
    spans = []
    for _ in range(runs):
        started_s = time.perf_counter()
        subprocess.run([*FLYBALL, "--version"], check=True, stdout=subprocess.DEVNULL)
        spans.append(time.perf_counter() - started_s)
    return statistics.median(spans)


def measure(home: Path, quick: bool, say: bool) -> dict[str, float | int | bool]:
    ladder = home / "mobilenet"
    subprocess.run(
        [*FLYBALL, "ladder", "new", str(MODEL), "--labels", str(LABELS), "--name", "mobilenet", "--out", str(ladder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wait_s, idle_s = (12.0, 8.0) if quick else (60.0, 30.0)
    starts: list[float] = []
    with broker(home) as port:
        for _ in range(2 if quick else 5):
            with daemon(home, ladder, port) as (_, _, ready_s):
                starts.append(ready_s)
        with daemon(home, ladder, port) as (process, client, ready_s):
            starts.append(ready_s)
            if say:
                print(f"waiting {wait_s:.0f} s, idle", flush=True)
            time.sleep(wait_s - idle_s)
            helpers, workers = family(process.pid)
            before_s, at_s = cpu_s(helpers + workers), time.monotonic()
            time.sleep(idle_s)
            idle_cpu_pct = (cpu_s(helpers + workers) - before_s) / (time.monotonic() - at_s) * 100
            uplink = client.status().uplink
            if uplink is None or not uplink.connected:
                raise SystemExit(f"the uplink was not connected: {uplink}")
            shared_mb, one_model_mb = pss_mib(helpers), pss_mib(helpers + workers)
        with empty_daemon(home) as process:
            time.sleep(wait_s)
            alone_mb = max(shared_mb, pss_mib(family(process.pid)[0]))
    return {
        "ready_s": round(statistics.median(starts), 3),
        "pss_mb": round(alone_mb, 1),
        "pss_one_model_mb": round(one_model_mb, 1),
        "idle_cpu_pct": round(idle_cpu_pct, 2),
        "version_s": round(version_s(5 if quick else 15), 3),
        "wait_s": wait_s,
    }


def main() -> int:
    options = arguments(__doc__, "wait 12 s instead of 60, fewer starts").parse_args()
    if missing(MODEL):
        return 1
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as folder:
        result = measure(Path(folder), options.quick, not options.json)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
