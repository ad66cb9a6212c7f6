"""Flyball's sensors against real kernel drivers: what they must say when values, faults and devices change.

Board (knobs) -> kernel drivers -> discover() | Sampler -> expectations -> transcript, exit code

Runs on the board, as root, with Flyball installed: `python3 checks.py`. Leaves the board without faults.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from board import CHIPS, INA226, INA3221, Board
from transcript import Machine, Transcript, attempt, near

from flyball import __version__
from flyball.clock import SystemClock
from flyball.config import Sensing
from flyball.events import Event, Events
from flyball.ports import SensorHealth
from flyball.sensing.contract import Roots
from flyball.sensing.discovery import discover
from flyball.sensing.sampler import Sampler
from flyball.sensing.total import total_power
from flyball.sensing.tree import Tree

RAILS = ("ina3221-1", "ina3221-2", "ina3221-3")
PERIOD_S = 0.5


def values(board: Board, machine: Machine, out: Transcript) -> None:
    out.step("registers set: 4984 mV 1856 mA, 1104 mV 500 mA, 3304 mV 200 mA; INA226 12000 mV 1000 mA; zones 45, 47 C")
    board.rail(1, 4984, 1856)
    board.rail(2, 1104, 500)
    board.rail(3, 3304, 200)
    board.ina226(12000, 1000)
    board.zone(0, 45_000)
    board.zone(1, 47_000)
    files = ("in1_input", "curr1_input", "in4_input", "in7_input")
    for file in files:
        out.saw(f"{board.hwmon(INA3221).name}/{file}: {(board.hwmon(INA3221) / file).read_text().strip()}")
    state, _, readings = machine.read("hwmon")
    out.expect(state == "ok", "hwmon reads")
    wanted = {"ina3221-1": 9.250304, "ina3221-2": 0.552, "ina3221-3": 0.6608, "ina226-1": 12.0}
    out.expect(
        near(readings, wanted), "4984 mV x 1856 mA = 9.2503 W, 0.552 W, 0.6608 W, and 12 W from the power register"
    )
    out.expect(set(readings) == set(wanted), "no figure of the shunts, of their sum or of any other channel")
    out.expect({r.scope for r in readings.values()} == {"rail"}, "without labels nothing here is taken for a total")
    out.expect(total_power(readings.values()) is None, "and rails are not added up")
    state, _, readings = machine.read("thermal")
    out.expect(near(readings, {"CPU-therm": 45.0, "GPU-therm": 47.0}), "thermal zones: 45 and 47 C")

    out.step("changed live: rail 1 4800 mV 2000 mA, rail 2 0 mA, INA226 24 W, CPU zone 61 C")
    board.rail(1, 4800, 2000)
    board.rail(2, 1104, 0)
    board.ina226(12000, 2000)
    board.zone(0, 61_000)
    _, _, readings = machine.read("hwmon")
    out.expect(near(readings, {"ina3221-1": 9.6, "ina226-1": 24.0}), "9.6 W and 24 W at the next read")
    out.expect(near(readings, {"ina3221-2": 0.0}), "a rail that carries nothing is measured as 0 W: that zero is real")
    _, _, readings = machine.read("thermal")
    out.expect(near(readings, {"CPU-therm": 61.0}), "61 C")

    out.step("a current that runs backwards: rail 2 -500 mA")
    board.rail(2, 1104, -500)
    state, reason, readings = machine.read("hwmon")
    out.expect("ina3221-2" not in readings and "ina3221-2" in reason, "left out and told; no negative watts, no zero")
    out.expect(near(readings, {"ina3221-1": 9.6, "ina3221-3": 0.6608, "ina226-1": 24.0}), "its neighbours still read")
    board.rail(2, 1104, 500)


def faults(board: Board, machine: Machine, out: Transcript) -> None:
    for name, words in (("EIO", "Input/output error"), ("ENXIO", "No such device"), ("ETIMEDOUT", "timed out")):
        out.step(f"{name} on every transfer to the INA3221")
        board.fault(INA3221, name)
        state, reason, readings = machine.read("hwmon")
        out.expect(state == "failed" and words in reason, f"hwmon says failed: {words}")
        out.expect(all(rail in reason for rail in RAILS), "and names the three rails")
        out.expect(set(readings) == {"ina226-1"}, "the other chip still reads; the rails are absent, not 0")
        board.fault(INA3221, "")
        state, _, readings = machine.read("hwmon")
        out.expect(state == "ok" and near(readings, {"ina3221-1": 9.6}), "fault ended: reads again")

    out.step("EIO on both chips")
    board.fault(INA3221, "EIO")
    board.fault(INA226, "EIO")
    state, _, readings = machine.read("hwmon")
    out.expect(state == "failed" and not readings, "failed, and no power figure at all")
    board.quiet()

    out.step("EAGAIN from the bus (arbitration lost)")
    board.fault(INA3221, "EAGAIN")
    state, reason, readings = machine.read("hwmon")
    out.expect(not set(RAILS) & set(readings), "the rails are absent, not 0")
    out.saw(f"(the sensor says {state!r}: for a hwmon channel EAGAIN counts as powered down)")
    board.quiet()

    out.step("in1_enable = 0: the driver answers ENODATA")
    (board.hwmon(INA3221) / "in1_enable").write_text("0")
    state, _, readings = machine.read("hwmon")
    out.expect(state == "ok", "a channel that is switched off is no fault")
    out.expect("ina3221-1" not in readings and "ina3221-2" in readings, "left out, not 0; the others read")
    (board.hwmon(INA3221) / "in1_enable").write_text("1")
    _, _, readings = machine.read("hwmon")
    out.expect(near(readings, {"ina3221-1": 9.6}), "switched on: back")

    out.step("EIO in the CPU's thermal zone")
    board.zone(0, None)
    state, reason, readings = machine.read("thermal")
    out.expect(state == "failed" and "CPU-therm" in reason, "thermal says which zone failed")
    out.expect(set(readings) == {"GPU-therm"}, "the other zone reads; the failed one is absent")
    board.zone(0, 45_000)
    state, _, readings = machine.read("thermal")
    out.expect(state == "ok" and near(readings, {"CPU-therm": 45.0}), "back: 45 C")


def devices(board: Board, machine: Machine, out: Transcript) -> None:
    wanted = {"ina3221-1": 9.6, "ina3221-2": 0.552, "ina3221-3": 0.6608, "ina226-1": 24.0}
    out.step("the INA3221's driver unbound")
    board.unbind(INA3221)
    for _ in range(2):
        state, reason, readings = machine.read("hwmon")
        out.expect(state == "failed" and all(rail in reason for rail in RAILS), "failed, and says which rails are gone")
        out.expect(set(readings) == {"ina226-1"}, "the other chip still reads")

    out.step("and bound again")
    board.bind(INA3221)
    when, readings = machine.read_until_ok("hwmon")
    out.expect(near(readings, wanted) and len(readings) == 4, f"all rails under their names, none twice ({when})")

    out.step("both unbound and bound the other way round, so that the hwmon numbers move")
    before = {address: board.hwmon(address).name for address in CHIPS}
    for address in CHIPS:
        board.unbind(address)
    for address in sorted(CHIPS, key=lambda address: before[address], reverse=True):  # the lowest free number is given
        board.bind(address)
    for address, chip in CHIPS.items():
        out.saw(f"{chip} was {before[address]}, is {board.hwmon(address).name}")
    out.expect(before[INA3221] == board.hwmon(INA226).name, "each has the other's number")
    when, readings = machine.read_until_ok("hwmon")
    out.expect(near(readings, wanted) and len(readings) == 4, f"every rail has its own watts, none twice ({when})")


def captured(board: Board, machine: Machine, out: Transcript) -> None:
    """hil/capture.py, which lies beside this file on the board."""
    out.step("capture.py: this machine as a file, read again through the same sensors")
    board.fault(INA226, "EIO")
    live = {name: machine.read(name)[2] for name in ("hwmon", "thermal")}
    with tempfile.TemporaryDirectory(prefix="flyball-check-") as scratch:
        file = Path(scratch) / "tree.txt"
        command = ["/usr/bin/python3", str(Path(__file__).with_name("capture.py")), "--output", str(file)]
        out.saw(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr.strip())
        text = file.read_text(encoding="utf-8")
        tree = Tree(Path(scratch) / "machine")
        tree.unpack(file)
        again = {sensor.name: sensor for sensor in discover(tree.roots, Sensing())}
        for name, readings in live.items():
            state, _, found = attempt(again[name])
            same = {r.name: r.value for r in found} == {r.name: r.value for r in readings.values()}
            out.expect(same and len(found) > 0, f"{name}: {state}, the same {len(found)} readings as live")
    out.expect("power1_input ! EIO" in text, "the failing read is written down as such")
    addresses = [path.read_text().strip() for path in Path("/sys/class/net").glob("*/address")]
    secrets = [os.uname().nodename, Path("/etc/machine-id").read_text().strip(), *addresses]
    out.expect(not any(secret in text for secret in secrets if secret), "no host name, machine id or MAC address in it")
    board.quiet()


def sampling(board: Board, out: Transcript) -> None:
    """The sampler's threads on a bus that gets slow."""
    told: list[Event] = []
    events = Events()
    events.subscribe(told.append)
    clock = SystemClock()
    sampler = Sampler(discover(Roots(), Sensing()), PERIOD_S, 60.0, clock, events)

    def health() -> dict[str, SensorHealth]:
        return {one.sensor: one for one in sampler.health()}

    def wait(what: str, limit_s: float, *states: str) -> bool:
        end_s = clock.monotonic_s() + limit_s
        while clock.monotonic_s() < end_s:
            if health()["hwmon"].state in states:
                return True
            time.sleep(0.1)
        out.saw(f"not within {limit_s:g} s: {what}")
        return False

    def power() -> set[str]:
        return {r.name for r in sampler.latest() if r.quantity == "power" and r.sensor == "hwmon"}

    sampler.start()
    try:
        out.step(f"the sampler, every {PERIOD_S:g} s")
        time.sleep(4 * PERIOD_S)
        for name, one in sorted(health().items()):
            cost = "-" if one.cost_s is None else f"{one.cost_s * 1e3:.1f} ms"
            out.saw(f"{name:12} {one.state:12} {cost:>9}  {one.reason}")
        out.expect(power() == {*RAILS, "ina226-1"}, "four rails in the latest readings")
        out.expect(not told, "nothing is lost")

        out.step("a slow bus: 700 ms for each transfer")
        before = health()
        board.delay(700)
        time.sleep(16 * PERIOD_S)
        after = health()
        reads = {name: after[name].reads - before[name].reads for name in ("host", "thermal", "hwmon")}
        out.saw(f"reads in {16 * PERIOD_S:g} s: {reads}")
        out.expect(reads["hwmon"] <= 2, "hwmon is held up")
        out.expect(min(reads["host"], reads["thermal"]) >= 12, "host and thermal are not")
        out.expect(after["hwmon"].state == "stale", f"hwmon says so: {after['hwmon'].state}: {after['hwmon'].reason}")
        out.expect(not power(), "and its old figures are no longer given as the latest")
        out.expect(any(e.kind == "sensor_lost" for e in told), "one event sensor_lost")

        out.step("the bus is quick again")
        board.delay(0)
        out.expect(wait("ok", 20.0, "ok"), "hwmon is ok")
        time.sleep(4 * PERIOD_S)
        out.expect(power() == {*RAILS, "ina226-1"}, "four rails again")
        out.expect([e.kind for e in told] == ["sensor_lost", "sensor_found"], "lost once, found once")

        out.step("EIO on both chips under the sampler")
        told.clear()
        board.fault(INA3221, "EIO")
        board.fault(INA226, "EIO")
        out.expect(wait("failed", 10.0, "failed"), "hwmon says failed")
        out.expect(not power(), "no power reading from it in the latest")
        out.saw(
            f"latest power: {[(r.name, round(r.value, 2), r.scope) for r in sampler.latest() if r.quantity == 'power']}"
        )
        board.quiet()
        out.expect(wait("ok", 20.0, "ok"), "fault ended: ok")
        time.sleep(6 * PERIOD_S)
        out.expect([e.kind for e in told] == ["sensor_lost", "sensor_found"], "lost once, found once")
        for event in told:
            out.saw(f"event {event.kind}: {event.message}")
    finally:
        board.quiet()
        sampler.stop()


def main() -> int:
    out = Transcript()
    board = Board()
    board.add_chips()
    board.quiet()
    out.step(f"the board; flyball {__version__}")
    for line in board.describe():
        out.saw(line)
    machine = Machine(out)
    out.saw(f"sensors: {', '.join(machine.sensors)}")
    try:
        values(board, machine, out)
        faults(board, machine, out)
        devices(board, machine, out)
        captured(board, machine, out)
        sampling(board, out)
    finally:
        board.quiet()
    return out.end()


if __name__ == "__main__":
    sys.exit(main())
