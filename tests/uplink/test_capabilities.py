"""Brokers that can do less, played by us; and topic aliases."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from device_side import linked, until
from fleet_side import Fleet
from hypothesis import given
from hypothesis import strategies as st

from flyball.events import Event, Events
from flyball.uplink.aliases import MOST, Aliases
from flyball.uplink.capabilities import EVERYTHING, LEAST_PACKET, Capabilities, offered
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


@dataclass
class Packet:
    kind: int
    flags: int
    body: bytes


@dataclass
class Played:
    """A broker of one client at a time: says `connack`, acknowledges everything, and ends the connection with `end`
    when a packet satisfies `refuses`."""

    connack: bytes = b""  # properties
    refuses: Any = None
    end: int = 0
    packets: list[Packet] = field(default_factory=list)
    sessions: int = 0

    def of(self, kind: int) -> list[Packet]:
        return [p for p in self.packets if p.kind == kind]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        try:
            while True:
                packet = await _packet(reader)
                self.packets.append(packet)
                if self.refuses is not None and self.refuses(packet):
                    if packet.kind == 1:
                        writer.write(bytes([0x20, 3, 0, self.end, 0]))
                    else:
                        writer.write(bytes([0xE0, 1, self.end]))
                    await writer.drain()
                    return
                writer.write(self._answer(packet))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, packet: Packet) -> bytes:
        if packet.kind == 1:
            properties = bytes([len(self.connack)]) + self.connack
            return bytes([0x20, 2 + len(properties), 0, 0]) + properties
        if packet.kind == 8:
            return bytes([0x90, 6]) + packet.body[:2] + b"\0" + b"\x01\x01\x01"
        if packet.kind == 3 and packet.flags & 6:
            length = struct.unpack("!H", packet.body[:2])[0]
            return bytes([0x40, 2]) + packet.body[2 + length : 4 + length]
        return b"\xd0\0" if packet.kind == 12 else b""


async def _packet(reader: asyncio.StreamReader) -> Packet:
    head = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return Packet(head >> 4, head & 15, await reader.readexactly(length))


@asynccontextmanager
async def played(broker: Played) -> AsyncIterator[int]:
    server = await asyncio.start_server(broker.talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


MAXIMUM_QOS, RETAIN, WILDCARDS = b"\x24", b"\x25", b"\x28"
PACKET = b"\x27"


def topic(packet: Packet) -> bytes:
    return packet.body[2 : 2 + struct.unpack("!H", packet.body[:2])[0]]


async def ready(broker: Played) -> None:
    await until(lambda: sum(b'"ready"' in p.body for p in broker.of(3)) >= 1)


async def test_without_retained_messages(tmp_path: Path) -> None:
    broker = Played(connack=RETAIN + b"\0")
    async with played(broker) as port, linked(port, tmp_path):
        await ready(broker)
    assert [p.flags & 1 for p in broker.of(3)] == [0] * len(broker.of(3))


async def test_without_retained_messages_the_will_is_told_at_the_second_attempt(tmp_path: Path) -> None:
    broker = Played(end=0x9A, refuses=lambda p: p.kind == 1 and p.body[7] & 0x20)  # will retain
    async with played(broker) as port, linked(port, tmp_path):
        await ready(broker)
    assert broker.sessions == 2
    assert all(p.flags & 1 == 0 for p in broker.of(3))


async def test_without_qos_1(tmp_path: Path) -> None:
    broker = Played(connack=MAXIMUM_QOS + b"\0")
    async with played(broker) as port, linked(port, tmp_path) as uplink:
        await ready(broker)
        await until(lambda: uplink.state().queued == 0)
    assert {p.flags & 6 for p in broker.of(3)} == {0}


async def test_a_will_of_qos_1_that_is_refused(tmp_path: Path) -> None:
    broker = Played(end=0x9B, refuses=lambda p: p.kind == 1 and p.body[7] & 0x18)
    async with played(broker) as port, linked(port, tmp_path):
        await ready(broker)
    assert broker.sessions == 2


async def test_without_wildcards_no_command_can_come(tmp_path: Path) -> None:
    broker = Played(connack=WILDCARDS + b"\0")
    async with played(broker) as port, linked(port, tmp_path) as uplink:
        await ready(broker)
        assert uplink.state().commands == "denied"
    (subscription,) = broker.of(8)
    assert b"+" not in subscription.body
    assert b"/sig/rebirth" in subscription.body


async def test_smaller_packets(tmp_path: Path) -> None:
    broker = Played(connack=PACKET + struct.pack("!I", 2000))
    events = Events()
    async with played(broker) as port, linked(port, tmp_path, events=events) as uplink:
        await ready(broker)
        events.publish(Event(kind="large", t_s=1.0, message="".join(map(chr, range(33, 5000)))))
        events.publish(Event(kind="small", t_s=1.0, message="x"))
        await until(lambda: any(topic(p).endswith(b"e/small") for p in broker.of(3)))
        assert (uplink.state().dropped, uplink.state().session) == (1, 1)
    assert max(len(p.body) for p in broker.of(3)) < 2000


async def test_a_packet_that_ends_the_connection_is_not_sent_for_ever(tmp_path: Path) -> None:
    """A broker may refuse what it never said it would."""
    broker = Played(end=0x95, refuses=lambda p: p.kind == 3 and len(p.body) > 3000)
    events = Events()
    async with played(broker) as port, linked(port, tmp_path, events=events) as uplink:
        await ready(broker)
        events.publish(Event(kind="large", t_s=1.0, message="".join(map(chr, range(33, 9000)))))
        events.publish(Event(kind="small", t_s=1.0, message="x"))
        await until(lambda: any(topic(p).endswith(b"e/small") for p in broker.of(3)) and uplink.state().connected)
        await until(lambda: uplink.state().dropped == 1)
        assert broker.sessions == 2


async def test_aliases_are_used_where_they_are_offered_and_only_there(tmp_path: Path) -> None:
    for properties, shorter in ((b"", False), (b"\x22\x00\x05", True)):
        broker = Played(connack=properties)
        async with played(broker) as port, linked(port, tmp_path, telemetry_period_s=0.1, batch_records=1) as uplink:
            await until(lambda: len(broker.of(3)) > 15)  # noqa: B023  # used up within the round
            await until(lambda: uplink.state().queued == 0)
        assert any(topic(p) == b"" for p in broker.of(3)) is shorter


async def test_a_real_broker_puts_aliases_back_into_topics(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.stop()
    mosquitto.start(["max_topic_alias 2"])
    events = Events()
    with Fleet(mosquitto.port) as fleet:
        async with linked(mosquitto.port, tmp_path, events=events) as uplink:
            await until(lambda: uplink.state().queued == 0)
            for number in range(30):
                kind = f"kind{number % 5}" if number < 15 else f"kind{number // 8}"
                events.publish(Event(kind=kind, t_s=1.0, message=str(number)))
                await until(lambda: uplink.state().queued == 0)
            await until(lambda: fleet.find("e/kind3", lambda d: d["message"] == "29") is not None)
            assert uplink.state().dropped == 0
        await fleet.waits("status", lambda d: d["state"] == "disconnected")
        told = {h.doc["message"]: h.suffix for h in fleet.heard if h.suffix.startswith("e/kind")}
    assert len(told) == 30
    assert all(told[str(n)] == (f"e/kind{n % 5}" if n < 15 else f"e/kind{n // 8}") for n in range(30))


@given(st.lists(st.sampled_from([f"t{n}" for n in range(30)]), max_size=300), st.integers(0, 40))
def test_a_receiver_always_finds_the_topic_again(topics: list[str], offer: int) -> None:
    aliases = Aliases(offer)
    known: dict[int, str] = {}
    for wanted in topics:
        sent, number = aliases.shorten(wanted)
        if number is None:
            assert sent == wanted
            continue
        assert 1 <= number <= min(offer, MOST)
        if sent:
            known[number] = sent
        assert known[number] == wanted


def test_offered_and_spared() -> None:
    assert offered(SimpleNamespace()) == Capabilities(topic_aliases=0)
    small = offered(SimpleNamespace(MaximumPacketSize=100, ReceiveMaximum=3, TopicAliasMaximum=7, MaximumQoS=0))
    assert small == Capabilities(maximum_packet=100, receive_maximum=3, topic_aliases=7, qos=0)
    assert offered(SimpleNamespace(MaximumPacketSize=2**31)).maximum_packet == EVERYTHING.maximum_packet
    assert EVERYTHING.after(None) == EVERYTHING.after(0x87) == EVERYTHING
    assert EVERYTHING.after(0x95) == EVERYTHING
    assert EVERYTHING.after(0x95, 5000).maximum_packet == 4999
    assert EVERYTHING.after(0x95, 5000).after(0x95, 9000).maximum_packet == 4999
    assert EVERYTHING.after(0x95, 10).maximum_packet == LEAST_PACKET
    assert EVERYTHING.after(0x94).topic_aliases == 0
    assert (small & EVERYTHING.after(0x9A)) == Capabilities(
        maximum_packet=100, receive_maximum=3, topic_aliases=7, qos=0, retain=False
    )
    assert len(EVERYTHING.after(0x9A).after(0x9B).after(0xA2).missing()) == 3
    assert EVERYTHING.missing() == ()
