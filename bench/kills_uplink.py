"""A device killed under orders: does every order end and have its effect once, and does the ledger add up?

    python bench/kills_uplink.py [--kills 1000] [--whole 50] [--quick] [--json] [--write]

A real mosquitto; the device is a process of its own with the real uplink and stores on disk
(tests/uplink/killing_device.py: the uplink alone, which starts faster than a daemon), measuring ten records a second,
and sealing five of them, or what there is when sig/sync asks. It gets SIGKILL at a random moment of its first 0.6 s of
orders; one kill in three it does itself, at a commit or a transition drawn at random, and half of the starts are killed
before the device is ready. Two orders a start, one in three sent twice; each appends its id to a file. Every RESTARTS
kills the broker is restarted in good order, with orders sent to it before and after. `--whole`: so many kills more, of
the whole daemon (whole_daemon.py: flyball.daemon with that one command added), on top of the same state.

commands_lost: orders without a final state at the end, or told successful without their effect. commands_twice: effects
beyond the first of an order. interrupted: orders that ended as failed for that reason. ledger_ok: of every epoch and
stream (telemetry, events), numbers received, numbers declared in gaps and the last few that still wait on the device's
disk are together all that it has given out, and no number came with two contents; records_lost: how many were none of
these; records_declared: how many were declared.
--write commits the figures to bench/kills_uplink.json; --quick prints those and a fresh run of 20 kills.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from _rig import arguments, show

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMMITTED = HERE / "kills_uplink.json"
UPLINK = ROOT / "tests/uplink"
sys.path[:0] = [str(ROOT / "tests"), str(UPLINK)]

from fleet_side import Fleet  # noqa: E402 - the tests' own fleet and broker
from received import Ledger  # noqa: E402

from real_broker import Mosquitto  # noqa: E402

FINAL = ("successful", "failed", "timed_out", "expired", "rejected")
STATES = ("received", "accepted", "executing", "successful", "told")
POINTS = [f"{when}:{state}" for when in ("before", "after") for state in STATES]
PACE = ("0.1", "5")  # a record every 0.1 s, five to a batch
ALIVE_S = 0.6
RESTARTS = 25  # kills between two restarts of the broker
SETTLE_S = 3.0  # at the end, for what is on its way
BROKER = ("max_queued_messages 0", "log_type none")


class Run:
    def __init__(self, broker: Mosquitto, folder: Path, seed: int, pause: Path | None) -> None:
        self._broker = broker
        self._state, self._marks = folder / "state", folder / "marks"
        self._dice = random.Random(seed)
        self._pause = pause
        self.orders: list[str] = []
        self.kills = self.whole = self.restarts = 0

    def start(self, point: str = "", whole: bool = False) -> subprocess.Popen[bytes]:
        program = UPLINK / ("whole_daemon.py" if whole else "killing_device.py")
        device = [sys.executable, str(program), str(self._broker.port)]
        return subprocess.Popen([*device, str(self._state), str(self._marks), point, *PACE], stderr=subprocess.DEVNULL)

    def kill_once(self, fleet: Fleet, whole: bool = False) -> None:
        while self._pause is not None and self._pause.exists():
            time.sleep(0.5)
        since = len(fleet.heard)
        point = self._dice.choice(POINTS) if self._dice.random() < 1 / 3 and not whole else ""
        device = self.start(point, whole)
        try:
            if not self.kills or whole or self._dice.random() < 0.5:
                while device.poll() is None and not ready(fleet, since):
                    time.sleep(0.005)
            self.order_two(fleet)
            if self.kills % RESTARTS == RESTARTS - 1:
                self.restart_broker(fleet)
                self.order_two(fleet)
            half_s = self._dice.uniform(0, ALIVE_S / 2)
            time.sleep(half_s)
            fleet.send("sig/sync", expiry_s=60)  # what it has measured is sealed now
            time.sleep(half_s)
            if device.poll() is not None and not point:
                raise SystemExit(f"the device has ended by itself, with {device.returncode}")
        finally:
            device.kill()
            device.wait(10)
        self.kills += 1
        self.whole += whole

    def order_two(self, fleet: Fleet) -> None:
        for _ in range(2):
            id = f"k{len(self.orders)}"
            self.orders.append(id)
            for _ in range(2 if self._dice.random() < 1 / 3 else 1):
                fleet.order("mark", id, {"name": id})

    def restart_broker(self, fleet: Fleet) -> None:
        self._broker.stop()
        fleet.until_connected(False)
        self._broker.start(BROKER)
        fleet.until_connected(True)
        self.restarts += 1

    def settle(self, fleet: Fleet) -> None:
        device = self.start()
        try:
            end_s = time.monotonic() + 60
            while time.monotonic() < end_s and set(self.orders) - set(ends(fleet)):
                time.sleep(0.2)
            time.sleep(SETTLE_S)
        finally:
            device.kill()
            device.wait(10)
        time.sleep(0.5)  # for what the broker has taken

    def ledger(self, fleet: Fleet) -> Ledger:
        ledger = Ledger.of(fleet.heard)
        ledger.add_disk(self._state)
        return ledger

    def effects(self) -> Counter[str]:
        return Counter(self._marks.read_text().split() if self._marks.exists() else [])


def ready(fleet: Fleet, since: int) -> bool:
    return any(h.suffix == "status" and b'"ready"' in h.payload for h in fleet.heard[since:])


def ends(fleet: Fleet) -> dict[str, dict[str, object]]:
    """The final state that was told last, of every order."""
    found = {}
    for heard in list(fleet.heard):
        if heard.suffix.startswith("cmd/mark/") and heard.suffix.endswith("/st") and heard.doc["state"] in FINAL:
            found[heard.suffix.split("/")[2]] = heard.doc
    return found


def measure(kills: int, whole: int, seed: int, pause: Path | None, talk: bool) -> dict[str, object]:
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("mosquitto is missing: run  sudo apt-get install mosquitto")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(program, Path(folder))
        broker.start(BROKER)
        try:
            run = Run(broker, Path(folder), seed, pause)
            with Fleet(broker.port) as fleet:
                for kill in range(kills + whole):
                    run.kill_once(fleet, whole=kill >= kills)
                    if talk and (kill + 1) % 50 == 0:
                        print(f"{kill + 1} kills, {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
                run.settle(fleet)
                found: dict[str, object] = {
                    "kills": run.kills,
                    "whole_daemon": run.whole,
                    "broker_restarts": run.restarts,
                }
                found |= figures(run.orders, ends(fleet), run.effects(), run.ledger(fleet))
                return {**found, "seconds": round(time.monotonic() - began_s)}
        finally:
            broker.kill()


def figures(
    orders: Sequence[str], told: Mapping[str, Mapping[str, object]], effects: Counter[str], ledger: Ledger
) -> dict[str, object]:
    states = Counter(str(end["state"]) for end in told.values())
    without = [id for id, end in told.items() if end["state"] == "successful" and not effects[id]]
    return {
        "commands": len(orders),
        "commands_lost": len(set(orders) - set(told)) + len(without),
        "commands_twice": sum(count - 1 for count in effects.values() if count > 1),
        "successful": states["successful"],
        "interrupted": sum(str(end["reason"]).startswith("interrupted") for end in told.values()),
        "records": ledger.received(),
        "records_declared": ledger.declared(),
        "records_lost": ledger.missing(),
        "streams": ledger.streams(),
        "ledger_ok": ledger.adds_up(),
    }


def main() -> int:
    parser = arguments(__doc__, f"20 kills, and the figures of {COMMITTED.name}")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--whole", type=int, default=None, help="of the whole daemon, on top (default: 50; quick: 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause-file", type=Path, help="no kill while it exists: for others who measure meanwhile")
    parser.add_argument("--write", action="store_true", help=f"commit the figures to {COMMITTED.name}")
    options = parser.parse_args()
    kills, whole = (18, 2) if options.quick else (options.kills, 50)
    whole = whole if options.whole is None else options.whole
    result = measure(kills, whole, options.seed, options.pause_file, not options.json)
    good = result["ledger_ok"] and not (result["commands_lost"] or result["commands_twice"] or result["records_lost"])
    if options.write:
        where = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
        stamp = {"date": datetime.date.today().isoformat(), "commit": where.stdout.strip()}
        COMMITTED.write_text(json.dumps({**stamp, **result}, indent=1) + "\n")
    if options.quick and COMMITTED.exists():
        result = {**json.loads(COMMITTED.read_text()), **{f"fresh_{key}": value for key, value in result.items()}}
    show(result, options.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
