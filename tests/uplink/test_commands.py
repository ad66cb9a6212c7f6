"""The life of a command, without a clock, a disk or a broker."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink import commands
from flyball.uplink.commands import FINAL, NEXT, Row, State
from flyball.uplink.handlers import PingArgs, ping, rung
from flyball.uplink.stamp import Stamp

STATES: list[State] = [*NEXT, *FINAL]


def stamp(mono: float = 100.0, **more: Any) -> Stamp:
    return Stamp(**{"ts": 1_700_000_000.0 + mono, "mono": mono, "boot": "b1", "clk": "synced", **more})


class NoSteering:
    async def pin(self, ladder: str, rung: str, for_s: float | None) -> None: ...

    async def release(self, ladder: str) -> None: ...

    def decisions(self, ladder: str | None = None) -> tuple[()]:
        return ()


KNOWN: commands.Handlers = {"ping": ping(), "rung": rung(NoSteering())}


def receive(payload: bytes | dict[str, Any], kind: str = "ping", expiry_s: float | None = None) -> Row:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return commands.receive(kind, "c1", data, expiry_s, stamp())


def test_the_same_arguments_are_the_same_order_however_they_are_written() -> None:
    one = receive(b'{"args": {"a": 1, "b": [1, 2]}, "ttl_s": 5}')
    other = receive(b'{ "ttl_s": 9, "args": {"b":[1,2],\n"a":1}}')
    assert commands.same_order(one, other)
    assert not commands.same_order(one, receive({"args": {"a": 1, "b": [2, 1]}}))
    assert not commands.same_order(one, receive({"args": {"a": 1, "b": [1, 2]}}, kind="rung"))


@given(st.binary(max_size=300))
def test_any_bytes_are_received_or_rejected(payload: bytes) -> None:
    row = receive(payload)
    assert row.state in ("received", "rejected")
    assert (row.reason == "") == (row.state == "received")
    assert commands.same_order(row, receive(payload))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
def test_any_arguments_are_taken_or_refused_with_a_reason(args: object) -> None:
    row = receive({"args": args})
    if row.state == "received":
        found = commands.examine(row, KNOWN, ("ping",))
        assert isinstance(found, PingArgs) or found.startswith("args: ")
    else:
        assert row.reason


@pytest.mark.parametrize(
    ("kind", "args", "reason"),
    [
        ("reboot", {}, "unknown command 'reboot'; this device knows ping, rung"),
        ("rung", {"ladder": "m", "rung": "big"}, "not allowed here"),
        ("ping", {"echo": 5}, r"args: .*str.*\$\.echo"),
        ("ping", {"eco": "x"}, "args: .*unknown field `eco`"),
    ],
)
def test_refusals_say_what_is_wrong(kind: str, args: dict[str, Any], reason: str) -> None:
    found = commands.examine(receive({"args": args}, kind), KNOWN, ("ping",))
    assert isinstance(found, str)
    assert re.search(reason, found)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"ladder": "m"}, "rung"),
        ({"ladder": "m", "rung": "big", "for_s": -1}, "for_s"),
        ({"ladder": "m", "rung": "auto", "for_s": 5}, "for_s"),
        ({"ladder": "", "rung": "big"}, "ladder"),
        ({"ladder": ["m"], "rung": "big"}, "ladder"),
    ],
)
def test_arguments_of_rung(args: dict[str, Any], reason: str) -> None:
    found = commands.examine(receive({"args": args}, "rung"), KNOWN, ("rung",))
    assert isinstance(found, str)
    assert reason in found


def test_an_order_that_expects_a_document_version_is_rejected() -> None:
    assert "expect_version" in receive({"args": {}, "expect_version": 3}).reason


def test_a_reason_that_quotes_a_stranger_is_cut() -> None:
    row = receive({"args": {"x" * 100_000: 1}})
    found = commands.examine(row, KNOWN, ("ping",))
    assert isinstance(found, str)
    assert len(commands.refuse(row, found).reason) == commands.MOST_REASON


@given(st.sampled_from(STATES), st.sampled_from(STATES))
def test_rev_grows_and_final_states_are_final(before: State, after: State) -> None:
    row = msgspec.structs.replace(receive({}), state=before, rev=3)
    if after in NEXT.get(before, ()):
        assert commands.advance(row, after).rev == 4
        assert not row.final()
    else:
        with pytest.raises(ValueError, match="no way from"):
            commands.advance(row, after)


def test_the_deadline_is_the_shorter_of_ttl_and_message_expiry() -> None:
    assert commands.remaining_s(receive({"ttl_s": 50}), stamp(110)) == 40
    assert commands.remaining_s(receive({"ttl_s": 50}, expiry_s=20), stamp(110)) == 10
    assert commands.remaining_s(receive({}, expiry_s=20), stamp(125)) == -5
    assert commands.remaining_s(receive({}), stamp(100)) == commands.DEFAULT_TTL_S


def test_a_jump_of_the_wall_clock_neither_expires_nor_revives() -> None:
    row = receive({"ttl_s": 50})
    assert commands.remaining_s(row, stamp(110, ts=9e9)) == 40
    assert commands.remaining_s(row, stamp(160, ts=0.0)) == -10


def test_expires_at_counts_only_with_a_clock_to_trust() -> None:
    row = receive({"ttl_s": 500, "expires_at": 1_700_000_000.0 + 130})
    assert commands.remaining_s(row, stamp(110)) == 20
    assert commands.remaining_s(row, stamp(110, clk="unsynced")) == 490


def test_after_a_reboot_the_wall_clock_decides_if_it_can() -> None:
    row = receive({"ttl_s": 500})
    later = {"boot": "b2", "ts": 1_700_000_000.0 + 200}  # 100 s after receipt
    assert commands.remaining_s(row, stamp(5, **later)) == 400
    assert commands.remaining_s(row, stamp(5, **later, clk="unsynced")) == 0


@pytest.mark.parametrize("state", ["received", "accepted"])
def test_what_had_not_begun_goes_on_after_a_restart(state: State) -> None:
    row = msgspec.structs.replace(receive({}), state=state)
    assert commands.after_restart(row, KNOWN) is row


@pytest.mark.parametrize("kind", ["ping", "rung", "gone"])
def test_what_was_executing_has_failed_after_a_restart(kind: str) -> None:
    row = msgspec.structs.replace(receive({}, kind), state="executing", rev=3)
    after = commands.after_restart(row, KNOWN)
    assert (after.state, after.rev) == ("failed", 4)
    assert after.reason.startswith("interrupted")


def test_capabilities_are_the_allowed_commands_with_their_schema() -> None:
    (only,) = commands.capabilities(KNOWN, ("ping", "diag"))
    assert only.command == "ping"
    schema = json.loads(bytes(only.args))
    assert schema["$defs"]["PingArgs"]["properties"]["echo"]["type"] == "string"
