"""The console as people and scripts use it: real processes, real exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fleet_rig import Hand, Process, ServerProcess, birth, broker, free_port, run_cli, status, telemetry, until


@dataclass
class Fleet:
    broker: str
    port: int
    db: str
    devices: Process

    def run(self, command: str, *arguments: str, **more: Any) -> Any:
        """stdout of a command that needs the broker or the file; with --json decoded. Also the exit code."""
        where = ["--db", self.db] if command in ("ls", "show", "watch", "ledger") else ["--broker", self.broker]
        words = [*command.split(), *arguments, *where]
        found = run_cli(*words, **more)
        assert "Traceback" not in found.stderr, found.stderr
        return (json.loads(found.stdout) if "--json" in arguments else found.stdout + found.stderr), found.returncode


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Six devices that the tests share; each leaves it with those six and no others, but for the last one."""
    folder = tmp_path_factory.mktemp("console")
    with broker(folder) as mosquitto:
        db, address = folder / "fleet.db", f"mqtt://127.0.0.1:{mosquitto.port}"
        server = ServerProcess(mosquitto.port, db)
        devices = Process(
            "simulate", "6", "--rate", "5", "--batch", "0.5s", "--broker", address, log=folder / "devices.log"
        )
        made = Fleet(address, mosquitto.port, str(db), devices)
        until(lambda: sum(r["state"] == "ready" and bool(r["record"]) for r in made.run("ls", "--json")[0]) == 6, 30)
        yield made
        assert devices.end() == 0, devices.said()
        assert server.end() == 0, server.said()


def test_groups_and_tags_are_set_and_choose_devices(fleet: Fleet) -> None:
    for name in ("sim-0001", "sim-0002"):
        told, code = fleet.run("twin set", name, "groups=press", "tags.site=oslo")
        assert (code, told) == (0, f"{name}: version 1 in force\n")
    assert fleet.run("twin set", "sim-0003", "tags.site=oslo")[1] == 0
    told, code = fleet.run("send", "@press", "ping", "echo=hello", "--json")
    assert code == 0
    assert {n: (s["state"], s["result"]) for n, s in told["devices"].items()} == {
        "sim-0001": ("successful", {"echo": "hello"}),
        "sim-0002": ("successful", {"echo": "hello"}),
    }
    assert fleet.run("send", "site=oslo", "ping", "--dry-run", "--json")[0] == ["sim-0001", "sim-0002", "sim-0003"]
    told, code = fleet.run("twin get", "sim-0001", "--json")
    assert (code, told["sim-0001"]["reported"]["desired_version"]) == (0, 1)
    until(lambda: [r["device"] for r in fleet.run("ls", "@press", "--json")[0]] == ["sim-0001", "sim-0002"])
    # A refused document: the device goes on with the one before.
    told, code = fleet.run("twin set", "sim-0001", "tags.bad name!=x")
    assert code == 1
    assert "refused" in told
    assert fleet.run("twin get", "sim-0001")[1] == 1


def test_an_order_for_all_is_followed_to_its_end(fleet: Fleet) -> None:
    told, code = fleet.run("send", "@all", "rung", "ladder=defects", "rung=r64-int8")
    assert code == 0, told
    assert "6 successful, 0 failed, 0 without an answer" in told
    until(lambda: all(r["record"]["defects/rung"] == "r64-int8" for r in fleet.run("ls", "--json")[0]))
    told, code = fleet.run("send", "@all", "rung", "ladder=defects", "rung=none", "--sample", "50%", "--json")
    assert (code, len(told["devices"])) == (1, 3)
    assert {s["state"] for s in told["devices"].values()} == {"failed"}
    told, code = fleet.run("send", "sim-0001", "format_disk")
    assert code == 1
    assert "unknown command 'format_disk'" in told
    order = "same-order-1"
    first = fleet.run("send", "sim-0001", "ping", "echo=a", "--id", order, "--json")[0]
    again = fleet.run("send", "sim-0001", "ping", "echo=a", "--id", order, "--json")[0]
    assert first["devices"]["sim-0001"]["rev"] == again["devices"]["sim-0001"]["rev"]


def test_nobody_answers(fleet: Fleet) -> None:
    began = time.monotonic()
    told, code = fleet.run("send", "never-seen", "ping", "--timeout", "1s")
    assert (code, "no answer" in told) == (3, True)
    assert time.monotonic() - began < 15
    with Hand(fleet.port, "flyball/v1/default/never-seen/cmd/+/+/req") as hand:
        told, code = fleet.run("twin set", "never-seen", "groups=a", "--timeout", "1s")
        assert (code, "no report in time" in told) == (3, True)
        hand.say("never-seen", "twin/desired", b"", retain=True)


def test_one_device_is_shown_whole(fleet: Fleet) -> None:
    assert fleet.run("send", "sim-0004", "ping")[1] == 0
    told, code = fleet.run("show", "sim-0004", "--json")
    assert code == 0
    assert (told["state"], told["birth"]["hardware"]["board"]) == ("ready", "simulated")
    until(lambda: fleet.run("show", "sim-0004", "--json")[0]["commands"])
    text, _ = fleet.run("show", "sim-0004")
    assert "ladder defects 1.0.0: r64-int8, r96-int8, r112-fp32" in text
    assert "takes ping, rung" in text
    assert "successful" in text
    assert max(map(len, text.splitlines())) <= 80


def test_tables_fit_a_small_terminal(fleet: Fleet) -> None:
    text, code = fleet.run("ls")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80, text
    assert [line.split()[:2] for line in text.splitlines()[1:7]] == [[f"sim-000{i}", "ready"] for i in range(1, 7)]
    assert text.splitlines()[-1].startswith("6 devices: 6 ready; ")
    lines = fleet.run("watch", "--every", "0.2s", "--for", "1s")[0].splitlines()
    assert len(lines) >= 2
    assert {row["device"] for row in json.loads(lines[-1])} == {f"sim-000{i}" for i in range(1, 7)}


def test_wrong_usage_and_unreachable_places_have_codes_of_their_own(tmp_path: Path) -> None:
    nowhere = f"mqtt://127.0.0.1:{free_port()}"
    for arguments, code, words in (
        (("send", "@all", "ping", "--broker", nowhere), 3, "no connection"),
        (("twin", "get", "d1", "--broker", "http://x"), 2, "expected mqtt://"),
        (("send", "d1", "ping", "echo", "--broker", nowhere), 2, "NAME=VALUE"),
        (("ls", "--db", str(tmp_path / "none.db")), 3, "is not there"),
        (("ledger", "--db", str(tmp_path / "none.db")), 3, "is not there"),
        (("nonsense",), 2, "No such command"),
    ):
        found = run_cli(*arguments)
        assert found.returncode == code, (arguments, found.stderr)
        assert words in found.stderr, found.stderr


def test_the_ledger_adds_up_until_something_is_missing(fleet: Fleet) -> None:
    text, code = fleet.run("ledger")
    assert (code, "adds up" in text) == (0, True), text
    with Hand(fleet.port) as hand:
        hand.say("d1", "birth", birth(1))
        hand.say("d1", "t/main", telemetry(0, 4))
        hand.say("d1", "t/main", telemetry(9, 4))
        hand.say("d1", "status", status("ready", 1))
    until(lambda: fleet.run("ledger", "d1", "--json")[0]["lines"] != [])
    told, code = fleet.run("ledger", "d1", "--json")
    assert (code, told["adds_up"], told["lines"][0]["ranges"]) == (1, False, [[4, 8]])
    text, code = fleet.run("ledger")
    assert code == 1
    assert "5 missing: 4-8" in text
    assert "1 of 13 streams do not add up" in text
