"""A device that lies, a broker that stalls, files that are not ours: what the fleet's side makes of them."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fleet_rig import STAMP, birth, document, free_port, gap, run_cli, status, telemetry
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from flyball.clock import SystemClock
from flyball.errors import LinkError, MessageError, StateError
from flyball.uplink.messages import Alarm, Birth, CommandState, EventMessage, LadderFacts, RungFacts, encode
from flyball_fleet import intake, link, schema, view
from flyball_fleet.address import parse
from flyball_fleet.counters import Counters
from flyball_fleet.limits import Limits
from flyball_fleet.link import Link, Message, Terms
from flyball_fleet.metrics import Exporter, _Described
from flyball_fleet.server import MOST_QOS_0, Server, Settings
from flyball_fleet.store import Store
from flyball_fleet.tables import plain
from flyball_fleet.writer import Writer

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb\nc"  # a title, a wiped screen, red, reversed writing, another line
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e")


class Shelf:
    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self.db = schema.open_writer(path)
        self.store = Store(self.db, limits or Limits())
        self.now = SystemClock().wall_s()

    def take(self, suffix: str, payload: bytes, device: str = "d1", deflated: bool = False) -> None:
        arrival = intake.read(f"flyball/v1/default/{device}/{suffix}", payload, deflated=deflated)
        self.store.apply(arrival, payload, deflated, self.now)

    def count(self, table: str) -> int:
        return int(self.db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "fleet.db")
    yield made
    made.db.close()


@pytest.mark.parametrize("cell", [10**400, -(2**64), "x" * 2000])
def test_a_cell_that_no_reader_could_use_is_refused(cell: object) -> None:
    payload = document(schema=1, epoch="e", first_seq=0, count=1, boot="b", clk="synced", columns={"power_w": [cell]})
    with pytest.raises(MessageError, match="power_w"):
        intake.read("flyball/v1/default/d1/t/main", payload)


def test_a_message_that_inflates_to_a_thousand_times_its_size_is_refused() -> None:
    event = EventMessage(epoch="e1", seq=0, stamp=STAMP, kind="x", severity="info", message="a" * 2_000_000)
    payload = zlib.compress(msgspec.json.encode(event))
    assert len(payload) < 4096
    with pytest.raises(MessageError, match="inflated"):
        intake.read("flyball/v1/default/d1/e/x", payload, deflated=True)


@pytest.mark.parametrize("name", ["", "a" * 65, 'x"} 1', "line\nbreak", EVIL])
def test_a_birth_with_names_that_no_manifest_has_is_refused(name: str) -> None:
    with pytest.raises(MessageError, match="ladders"):
        intake.read("flyball/v1/default/d1/birth", birth(1, rungs=("small", name)))


def test_reasons_of_gaps_are_bounded_and_their_ranges_stay(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", Limits(reasons=10))
    for last in range(1, 40):
        shelf.take("gap", gap([(0, last)]))
    assert shelf.count("gap_reason") == 10
    assert view.spans([shelf.path])["d1", "e1", "main"] == ([], [(0, 39)])
    shelf.db.close()


def test_the_newest_reasons_of_gaps_stay_when_the_clock_goes_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", Limits(reasons=3))
    for last in range(8):
        shelf.now -= 3600
        shelf.take("gap", gap([(0, last)]))
    assert [g["last"] for g in view.details([shelf.path], "d1")["gaps"]] == [7, 6, 5]
    shelf.db.close()


def test_made_up_epochs_do_not_push_out_the_one_in_force(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "f.db", Limits(epochs=4))
    shelf.take("status", status("ready", 1, "real"))
    shelf.take("t/main", telemetry(0, 5, "real"))
    for number in range(20):
        shelf.now += 1
        shelf.take("t/main", telemetry(0, 1, f"fake{number}"))
    assert view.spans([shelf.path])["d1", "real", "main"] == ([(0, 4)], [])
    assert shelf.count("epoch") <= 5
    shelf.db.close()


def test_nothing_that_a_device_says_reaches_the_terminal_as_it_is(shelf: Shelf) -> None:
    shelf.take("status", status("ready", 1))
    shelf.take("birth", birth(1).replace(b"test board", msgspec.json.encode(EVIL)[1:-1]))
    shelf.take("t/main", telemetry(0, 1, **{"shapes/rung": [EVIL], EVIL: [1.0], "power_w": [1e300]}))
    shelf.take("a/spool", encode(Alarm(epoch="e1", stamp=STAMP, message=EVIL)).payload)
    event = EventMessage(epoch="e1", seq=0, stamp=STAMP, kind=EVIL, severity="info", message=EVIL)
    shelf.take("e/x", encode(event).payload)
    shelf.take("cmd/ping/c1/st", encode(CommandState(state=EVIL, rev=1, ts=1, epoch="e1", reason=EVIL)).payload)
    shelf.take("twin/desired", document(schema=1, version=1, doc={"groups": [EVIL, "press"], "tags": {"a": EVIL}}))
    shelf.store.reject(f"flyball/v1/default/d1/{EVIL}", EVIL, 1, shelf.now)
    for arguments in (["ls"], ["ls", "--json"], ["show", "d1"], ["show", "d1", "--json"], ["watch", "--for", "0.1s"]):
        found = run_cli(*arguments, "--db", str(shelf.path))
        assert found.returncode == 0, found.stderr
        assert [c for c in OBEYED if c in found.stdout] == [], arguments
        assert "d1" in found.stdout
        assert arguments != ["ls"] or max(map(len, found.stdout.splitlines())) <= 80


def test_plain_text_stays_as_it_is() -> None:
    assert plain("größe 5 °C") == "größe 5 °C"
    assert plain("a\nb\x1b") == "a\\nb\\x1b"
    assert plain("x" * 30, 10) == f"{'x' * 10}... (30 characters)"


def test_a_ladder_that_stands_twice_in_a_birth_gives_one_sample(shelf: Shelf) -> None:
    ladder = LadderFacts(name="shapes", version="1", rungs=(RungFacts(name="big"),))
    found = msgspec.json.decode(birth(1), type=Birth)
    shelf.take("status", status("ready", 1))
    shelf.take("birth", encode(msgspec.structs.replace(found, ladders=(ladder, ladder))).payload)
    shelf.take("t/main", telemetry(0, 1, **{"shapes/rung": ["big"], "shapes/p95_s": [0.1]}))
    lines = _page(shelf.path).splitlines()
    assert len([line for line in lines if line.startswith("flyball_fleet_ladder_rung{")]) == 1


def test_with_a_file_that_cannot_be_read_the_server_still_speaks_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    schema.open_writer(path).close()
    path.write_bytes(b"no database any more, and long enough to be looked at" * 100)
    page = _page(path)
    assert "flyball_fleet_server_database_readable 0.0" in page
    assert "flyball_fleet_server_write_failures_total" in page
    assert "flyball_fleet_server_devices" not in page


def test_a_damaged_file_is_an_error_and_no_traceback(shelf: Shelf) -> None:
    shelf.db.execute("DROP TABLE latest")
    found = run_cli("ls", "--db", str(shelf.path))
    assert (found.returncode, "latest" in found.stderr, "Traceback" in found.stderr) == (3, True, False)


def test_another_programs_database_gets_no_tables_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmark (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(StateError, match="another program"):
        schema.open_writer(path)
    assert path.read_bytes() == before


def test_messages_without_acknowledgement_cannot_fill_the_memory(tmp_path: Path) -> None:
    server = Server(Settings(address=parse("mqtt://127.0.0.1"), db=tmp_path / "f.db", id="one"), SystemClock())
    message = Message(topic="t", payload=b"", deflated=False, retain=False, qos=0, id=0, expiry_s=None)
    for _ in range(MOST_QOS_0 + 50):
        server._received(None, message)  # type: ignore[arg-type]  # nothing writes here, so all of them wait
    assert (server.writer.waiting(), server.counters.messages["dropped"]) == (MOST_QOS_0, 50)
    server._received(None, msgspec_replace(message, qos=1))  # type: ignore[arg-type]
    assert server.writer.waiting() == MOST_QOS_0 + 1


def msgspec_replace(message: Message, *, qos: int) -> Message:
    return Message(**{**vars(message), "qos": qos})


@pytest.mark.parametrize("doing", ["subscribe", "deliver"])
def test_a_broker_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    monkeypatch.setattr(link, "ANSWER_S", 0.2)

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes([0x20, 3, 0, 0, 0]))  # CONNACK: accepted
        while await reader.read(1024):
            pass
        writer.close()

    async def talk() -> None:
        port = free_port()
        async with await asyncio.start_server(stall, "127.0.0.1", port):
            made = await Link.open(parse(f"mqtt://127.0.0.1:{port}"), Terms(client_id="c"), lambda *_: None)
            with pytest.raises(LinkError, match=r"in 0\.2 s"):
                await (made.subscribe(["a/b"]) if doing == "subscribe" else made.deliver("a/b", b""))
            assert made.closed

    asyncio.run(asyncio.wait_for(talk(), 10))


@pytest.mark.parametrize("option", ["--ca", "--password-file"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, option: str) -> None:
    more = ["--username", "u"] if option == "--password-file" else []
    found = run_cli("twin", "get", "d1", "--broker", "mqtts://127.0.0.1:1", option, str(tmp_path / "nothing"), *more)
    assert found.returncode == 3
    assert f"{option} {tmp_path / 'nothing'}" in found.stderr.replace("\n", "")


def _page(path: Path) -> str:
    writer = Writer(path, Limits(), SystemClock(), lambda _: None, lambda _: None)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Described(Exporter(path, Counters(), writer, SystemClock())))
    return generate_latest(registry).decode()


def test_a_ledger_over_nothing_proves_nothing(shelf: Shelf) -> None:
    assert run_cli("ledger", "--db", str(shelf.path)).returncode == 3
    shelf.take("t/main", telemetry(0, 5))
    assert run_cli("ledger", "d1", "--db", str(shelf.path)).returncode == 0
    unknown = run_cli("ledger", "d1", "d2", "--db", str(shelf.path))
    assert (unknown.returncode, "nothing has come from d2" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["a/b", "ping"], ["d1", "ping", "--ttl", "0s"], ["d1", "pi#ng"]])
def test_an_order_that_cannot_be_given_is_refused_before_anybody_is_asked(arguments: list[str]) -> None:
    found = run_cli("send", *arguments, "--broker", "mqtt://127.0.0.1:1")  # where nobody listens: that would be 3
    assert (found.returncode, found.stdout) == (2, "")
