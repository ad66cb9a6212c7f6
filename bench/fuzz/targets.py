"""What reads bytes from strangers: each a function of bytes that returns, or raises one of EXPECTED.

bytes -> decoder -> value, or a reason. Everything else that happens here is a finding.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from flyball.errors import ConfigError, FlyballError, LadderError, MessageError
from flyball.governor.rules import parse_all
from flyball.uplink import batch, commands, messages, topics
from flyball.uplink.archive import unpack
from flyball.uplink.configuring import tables
from flyball.uplink.download import check_url
from flyball.uplink.membership import Membership
from flyball.uplink.redaction import redact
from flyball.uplink.stamp import Stamp
from flyball.uplink.twin import read_document
from flyball_fleet import intake

EXPECTED = (MessageError, ConfigError, LadderError)
NOW = Stamp(ts=1_700_000_000.0, mono=100.0, boot="b", clk="synced")
HEARD = ("status", "birth", "t/main", "e/x", "gap", "a/x", "twin/reported", "cmd/ping/c1/st", "twin/desired")
KINDS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


def decode_messages(data: bytes) -> None:
    if data:
        messages.decode(data[1:], KINDS[data[0] % len(KINDS)], deflated=data[0] >= 128)


def decode_batch(data: bytes) -> None:
    if data:
        found = batch.decode(data[1:], deflated=data[0] >= 128)
        batch.rows(found)
        again = batch.encode(found)
        assert batch.decode(again.payload, deflated=again.deflated) == found


def parse_topic(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = topics.parse(text)
    assert found.device.root in text


def own_topic(data: bytes) -> None:
    member = Membership(topics.Device("acme", "edge-1"))
    member.become(["press"])
    text = data.decode("utf-8", "surrogateescape")
    own = member.own(text)
    if own != text:  # of a group: then it is an order, and of this device
        assert own.startswith("flyball/v1/acme/edge-1/cmd/")
        topics.parse(own)


def take_in(data: bytes) -> None:
    """What a fleet server hears of a device."""
    if data:
        with contextlib.suppress(intake.Ignored):
            found = intake.read(
                f"flyball/v1/acme/edge-1/{HEARD[data[0] % len(HEARD)]}", data[1:], deflated=data[0] >= 128
            )
            assert found.device == "edge-1"


def parse_rules(data: bytes) -> None:
    parse_all(data.decode("utf-8", "replace").split("\n")[:20], "fuzz")


def take_order(data: bytes) -> None:
    row = commands.receive("ping", "id", data, None, NOW)
    if row.state == "received":
        assert commands.receive("ping", "id", b'{"args":' + row.args + b"}", None, NOW).digest == row.digest


def read_twin(data: bytes) -> None:
    found = read_document(data)
    if isinstance(found, messages.TwinDocument) and found.config:
        keys = {key: value for key, value in found.config.items() if key.startswith(("governor.", "ladder."))}
        with contextlib.suppress(AttributeError, TypeError):  # one key within another: refused before it comes so far
            tables(keys)


def open_archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        archive, folder = Path(place) / "archive", Path(place) / "out"
        archive.write_bytes(data)
        folder.mkdir()
        try:
            unpack(archive, folder, 1 << 20, threading.Event())
        finally:
            assert {p.name for p in Path(place).iterdir()} <= {"archive", "out"}
            assert not any(p.is_symlink() for p in folder.rglob("*"))


def split_url(data: bytes) -> None:
    host, port, _ = check_url(data.decode("utf-8", "replace"), ("models.example", "models.example:8443"))
    assert (host, port) in {("models.example", 443), ("models.example", 8443)}


def hide_secrets(data: bytes) -> None:
    redact(data.decode("utf-8", "replace"))


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "messages": decode_messages,
    "columns": decode_batch,
    "topics": parse_topic,
    "groups": own_topic,
    "intake": take_in,
    "rules": parse_rules,
    "orders": take_order,
    "twin": read_twin,
    "archive": open_archive,
    "url": split_url,
    "redaction": hide_secrets,
}

SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "messages": tuple(
        bytes([n]) + b'{"version":3,"doc":{"tags":{"a":"b"}},"args":{"echo":"x"}}' for n in range(0, 40, 4)
    ),
    "columns": (
        b'\x00{"schema":1,"epoch":"e","first_seq":0,"count":2,"boot":"b","clk":"synced","columns":{"a":[1,2]}}',
    ),
    "topics": (b"flyball/v1/acme/edge-1/cmd/ladder.install/c1/req", b"flyball/v1/acme/edge-1/t/main"),
    "groups": (b"flyball/v1/acme/_g.press/cmd/ladder.install/c1/req", b"flyball/v1/acme/_all/cmd/ping/c1/req"),
    "intake": tuple(
        bytes([n]) + b'{"schema":1,"epoch":"e","session":1,"state":"ready","ts":1.5,"rev":1,"ranges":[[1,2]]}'
        for n in range(8)
    ),
    "rules": (b"when temperature > 80 for 10s then rung <= r112-fp32",),
    "orders": (b'{"args":{"echo":"x"},"ttl_s":5,"expires_at":1.5,"expect_version":2}',),
    "twin": (b'{"groups":["a"],"tags":{"a":"b"},"config":{"governor.dwell_s":1.5,"ladder.a.b.rung":"x"}}',),
    "url": (b"https://models.example:8443/a/b?c=d",),
    "redaction": (b'mqtt://a:b@c password = "x" -----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----',),
}


def check(name: str, data: bytes) -> None:
    """Raises what is a finding."""
    try:
        TARGETS[name](data)
    except EXPECTED as error:
        if not str(error):
            raise AssertionError(f"{name}: refused without a reason") from error
    except FlyballError as error:
        raise AssertionError(f"{name}: {type(error).__name__} is not among the errors of a decoder") from error
