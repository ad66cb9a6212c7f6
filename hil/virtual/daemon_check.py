"""The daemon on a board whose power monitors fail and come back: `python3 daemon_check.py LADDER`.

python -m flyball.daemon <- flyball status --json, its metrics page <- Board (knobs) -> transcript, exit code

Runs on the board, as root, beside no other daemon: own folder, own socket, ports above 18000.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from board import INA226, INA3221, Board
from checks import RAILS
from transcript import Transcript

HTTP, METRICS = "127.0.0.1:18000", "127.0.0.1:18002"
READY_S, CHANGE_S, STOP_S = 180.0, 30.0, 30.0


class Daemon:
    def __init__(self, folder: Path, ladder: str) -> None:
        self._folder = folder
        self._log = folder / "daemon.log"
        config = f'[paths]\nstate = "{folder}/state"\nsocket = "{folder}/socket"\n'
        config += f'[serving]\nhttp = "{HTTP}"\nmetrics = "{METRICS}"\n[sensing]\nperiod_s = 0.5\n'
        (folder / "flyball.toml").write_text(config)
        command = [sys.executable, "-m", "flyball.daemon", "--config", str(folder / "flyball.toml"), "--ladder", ladder]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def flyball(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "flyball", *arguments]
        environment = {**os.environ, "FLYBALL_SOCKET": f"{self._folder}/socket", "COLUMNS": "120"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=READY_S + 30)
        if done.returncode:
            raise RuntimeError(f"flyball {' '.join(arguments)}: {done.stderr}\n{self._log.read_text()[-3000:]}")
        return done.stdout

    def sensor(self, name: str) -> tuple[str, str, dict[str, float]]:
        """State, reason, and the values of its readings by name, as `flyball status` says."""
        status: dict[str, Any] = json.loads(self.flyball("status", "--json"))
        (health,) = (one for one in status["sensors"] if one["sensor"] == name)
        return (
            health["state"],
            health["reason"],
            {r["name"]: r["value"] for r in status["readings"] if r["sensor"] == name},
        )

    def metrics(self, name: str) -> list[str]:
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
            return [line for line in answer.read().decode().splitlines() if line.startswith(name)]

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def until(holds: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + CHANGE_S
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.5)
    return False


def check(board: Board, daemon: Daemon, out: Transcript) -> None:
    out.step("the daemon with a ladder in service")
    for line in daemon.flyball("status", "--wait", f"{READY_S:g}s").splitlines():
        out.saw(line)
    board.rail(1, 4984, 1856)
    out.expect(until(lambda: abs(daemon.sensor("hwmon")[2].get("ina3221-1", 0) - 9.250304) < 5e-4), "rail 1: 9.2503 W")
    for line in daemon.metrics("flyball_power_watts") + daemon.metrics("flyball_temperature_celsius"):
        out.saw(line)
    out.expect(any('rail="ina3221-1"' in line for line in daemon.metrics("flyball_power_watts")), "on the metrics page")

    out.step("EIO on both chips")
    board.fault(INA3221, "EIO")
    board.fault(INA226, "EIO")
    out.expect(until(lambda: daemon.sensor("hwmon")[0] == "failed"), "status says that hwmon failed")
    state, reason, readings = daemon.sensor("hwmon")
    out.saw(f"{state}: {reason[:90]}...")
    out.expect(not readings, "no reading of it in the status")
    lines = daemon.metrics("flyball_power_watts")
    out.expect(
        not any(rail in line for rail in (*RAILS, "ina226") for line in lines), "nor on the metrics page, not as 0"
    )
    up = daemon.metrics('flyball_sensor_up{sensor="hwmon"}')
    out.expect(bool(up) and up[0].endswith(" 0.0"), f"{''.join(up)}")

    board.quiet()
    out.step("the fault ended")
    out.expect(until(lambda: len(daemon.sensor("hwmon")[2]) == 4), "four rails again")
    answer = json.loads(daemon.flyball("ls", "--json"))
    out.expect(answer[0]["state"] == "ready", f"the ladder {answer[0]['name']} was in service all the time")


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("usage: python3 daemon_check.py LADDER")
    out = Transcript()
    board = Board()
    board.add_chips()
    board.quiet()
    with tempfile.TemporaryDirectory(prefix="flyball-check-") as folder:
        daemon = Daemon(Path(folder), sys.argv[1])
        try:
            check(board, daemon, out)
        finally:
            board.quiet()
            code = daemon.stop()
        out.expect(code == 0, f"the daemon ended with exit code {code}")
    return out.end()


if __name__ == "__main__":
    sys.exit(main())
