"""Topics: built and parsed the same way, and nothing that comes from outside adds a level or a wildcard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import MessageError
from flyball.uplink.topics import Command, Device, Plain, group, parse, server_state

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)


@given(IDS, IDS, WORDS, IDS)
def test_what_is_built_is_parsed_again(tenant: str, device: str, word: str, id: str) -> None:
    me = Device(tenant, device)
    built = {
        me.status: Plain(me, "status"),
        me.birth: Plain(me, "birth"),
        me.gap: Plain(me, "gap"),
        me.telemetry(word): Plain(me, "t", word),
        me.event(word): Plain(me, "e", word),
        me.alarm(word): Plain(me, "a", word),
        me.signal(word): Plain(me, "sig", word),
        me.request(word, id): Command(me, word, id, "req"),
        me.command_state(word, id): Command(me, word, id, "st"),
    }
    for topic, meant in built.items():
        assert parse(topic) == meant
        assert topic.count("/") <= 7


@given(st.text())
def test_any_text_is_parsed_or_refused(topic: str) -> None:
    for text in (topic, f"flyball/v1/{topic}", f"flyball/v1/a/b/{topic}", f"flyball/v1/a/b/cmd/{topic}/req"):
        try:
            parse(text)
        except MessageError as error:
            assert str(error)  # noqa: PT017  # any other exception fails the test


@pytest.mark.parametrize(
    "bad", ["", "a/b", "+", "#", "_all", "-x", "a b", "a\n", "a\0", "é", "a" * 65, "a.b"], ids=lambda b: repr(b)[:12]
)
def test_bad_ids_are_refused_both_ways(bad: str) -> None:
    with pytest.raises(MessageError):
        Device("acme", bad)
    with pytest.raises(MessageError):
        Device(bad, "edge-1")
    with pytest.raises(MessageError):
        Device("acme", "edge-1").request("ping", bad)
    with pytest.raises(MessageError):
        parse(f"flyball/v1/acme/edge-1/cmd/ping/{bad}/req")


def test_the_message_names_the_part_that_is_wrong() -> None:
    with pytest.raises(MessageError, match=r"command id: expected 1 to 64 letters.*found 'a b'"):
        parse("flyball/v1/acme/edge-1/cmd/ping/a b/req")
    with pytest.raises(MessageError, match="'twin/unknown' is no suffix"):
        parse("flyball/v1/acme/edge-1/twin/unknown")


def test_servers_and_groups_stand_where_no_device_can() -> None:
    assert server_state("acme", "hq-1") == "flyball/v1/acme/_server/hq-1/state"
    assert group("acme", "line4") == "flyball/v1/acme/_g.line4"
    assert group("acme") == "flyball/v1/acme/_all"
    for topic in (server_state("acme", "hq-1"), f"{group('acme', 'line4')}/status", f"{group('acme')}/sig/sync"):
        with pytest.raises(MessageError, match="device id"):
            parse(topic)
    for bad in ("a/b", "+", "#", "a.b"):
        with pytest.raises(MessageError):
            server_state("acme", bad)
        with pytest.raises(MessageError):
            group("acme", bad)
