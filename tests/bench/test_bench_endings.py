"""How the benchmarks end: by an error, by a signal, on a full disk, with a daemon that died."""

import argparse
import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flyball.errors import ControlError, FlyballError

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def rig() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_rig")


@pytest.fixture(scope="module")
def live() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_live")


WAITING = """
import contextlib, sys, time
sys.path.insert(0, sys.argv[1])
from _rig import ended

@contextlib.contextmanager
def daemon():
    try:
        yield
    finally:
        print("taken down", flush=True)

def main():
    with daemon():
        print("running", flush=True)
        time.sleep(60)
    return 0

sys.exit(ended(main))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_down_what_was_started(how: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING, str(BENCH)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("taken down\n", "interrupted: no result\n", 130)


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _rig import ended, replace

def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    replace(Path(sys.argv[2]), b"y" * 100_000)
    return 0

sys.exit(ended(main))
"""


def test_on_a_full_disk_what_was_there_stays(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text("old")
    command = [sys.executable, "-c", FULL, str(BENCH), str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert figures.read_text() == "old"
    assert list(tmp_path.iterdir()) == [figures]


def test_what_is_written_is_there_in_whole(rig: ModuleType, tmp_path: Path) -> None:
    rig.replace(tmp_path / "figures.json", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("figures.json", b"new")]


def test_an_error_is_one_line(rig: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise FlyballError("the daemon did not start")

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert rig.ended(main) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr() == ("", "error: the daemon did not start\n")


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "", "many"])
def test_a_number_out_of_its_range_is_refused(rig: ModuleType, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"from 0\.5 to 600, found"):
        rig.within(0.5, 600.0)(text)
    assert rig.within(0.5, 600.0)("2.5") == 2.5


class Daemon:
    """What a Rig asks of its client."""

    def __init__(self, alive: bool) -> None:
        self.alive = alive

    def switch(self, *_: object, **__: object) -> None: ...

    def status(self) -> None:
        if not self.alive:
            raise ControlError("no daemon at flyball.sock")


def rig_of(live: ModuleType, home: Path, alive: bool, line: list[Any]) -> Any:
    """A Rig without its start: nobody listens on the socket."""
    made = live.Rig.__new__(live.Rig)
    made.client, made._home, made.ladder, made._line = Daemon(alive), home, "defects", line
    made._socket = home / "flyball.sock"
    return made


def test_a_daemon_that_died_is_no_rung_that_was_late(live: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "daemon.log").write_text("killed by the kernel")
    plan = live.Plan(phases_s=(0.2,), rate_per_s=50.0, cores=1, calm_s=0.0)
    dead = rig_of(live, tmp_path, False, list(live.pictures(1)))
    with pytest.raises(FlyballError, match=r"r112: the daemon did not live to the end: no daemon(.|\n)*by the kernel"):
        dead.run("r112", plan)
    alive = rig_of(live, tmp_path, True, list(live.pictures(1)))
    asked = alive.run("r112", plan)
    assert len(asked) == len(plan.arrivals()) > 0
    assert all(a.latency_s is None for a in asked), "an answer that did not come is late, if the daemon lives"


def test_a_sender_that_ended_is_no_rung_that_was_late(live: ModuleType, tmp_path: Path) -> None:
    plan = live.Plan(phases_s=(0.2,), rate_per_s=50.0, cores=1, calm_s=0.0)
    broken = rig_of(live, tmp_path, True, [None])  # no picture
    with pytest.raises(FlyballError, match=r"r112: \d+ of 16 senders ended early, the first by AttributeError"):
        broken.run("r112", plan)


SCRIPTS = ("governor", "forecast", "contention", "live_governor", "headline", "joint")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_proof_ends_so(name: str) -> None:
    assert (BENCH / f"{name}.py").read_text().endswith("sys.exit(ended(main))\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--seconds", "0"), "from 0.5 to 600, found '0'"),
        (("--seconds", "nan"), "from 0.5 to 600, found 'nan'"),
        (("--quick", "--seconds", "3"), "leave out --seconds"),
    ],
)
def test_contention_refuses_what_it_cannot_measure(arguments: tuple[str, ...], told: str) -> None:
    command = [sys.executable, str(BENCH / "contention.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr


def test_the_pool_of_the_governor_ends_with_it() -> None:
    """SIGTERM to the script alone, as from timeout(1): no process of it stays."""
    command = [sys.executable, str(BENCH / "governor.py"), "--quick", "--workers", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end_s = time.monotonic() + 30
        while not at_work(children(process.pid)):
            assert time.monotonic() < end_s, "the pool never started"
            time.sleep(0.05)
        pool = children(process.pid)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: no result"
    assert "Traceback" not in err
    assert not [pid for pid in pool if Path(f"/proc/{pid}").exists()]


def at_work(pids: list[int]) -> bool:
    """Two processes that compute: what is still being forked swallows exceptions."""
    ticks = []
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks.append(int(fields[11]) + int(fields[12]))
    return len([t for t in ticks if t > 20]) >= 2


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found
