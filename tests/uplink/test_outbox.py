"""What waits for the broker."""

from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.outbox import LANES, Lane, Outbox, Publication

LIMITS: dict[Lane, int] = {"state": 4, "event": 3, "telemetry": 2}


def publication(name: str, lane: Lane = "telemetry", retain: bool = False) -> Publication:
    return Publication(name, b"x", lane, retain=retain)


def drain(outbox: Outbox) -> list[str]:
    taken = []
    while (found := outbox.take()) is not None:
        taken.append(found.topic)
    return taken


def test_states_go_before_events_and_events_before_telemetry() -> None:
    outbox = Outbox()
    for lane in reversed(LANES):
        outbox.add(publication(lane, lane))
        outbox.add(publication(lane + "2", lane))
    assert drain(outbox) == ["state", "state2", "event", "event2", "telemetry", "telemetry2"]


def test_a_full_lane_gives_up_its_oldest() -> None:
    outbox = Outbox(LIMITS)
    dropped = [d.topic for n in "abcd" for d in outbox.add(publication(n))]
    assert dropped == ["a", "b"]
    assert drain(outbox) == ["c", "d"]


def test_a_newer_value_of_a_retained_topic_replaces_the_older() -> None:
    outbox = Outbox()
    outbox.add(publication("status", "state", retain=True))
    outbox.add(publication("other", "state", retain=True))
    latest = publication("status", "state", retain=True)
    assert outbox.add(latest) == []
    assert drain(outbox) == ["other", "status"]


def test_what_was_under_way_comes_first_after_a_reconnect() -> None:
    outbox = Outbox()
    for name in "abcd":
        outbox.add(publication(name))
    for id in (1, 2, 3):
        taken = outbox.take()
        assert taken is not None
        outbox.sent(id, taken)
    assert outbox.acknowledged(2) is not None
    assert outbox.acknowledged(2) is None
    assert outbox.link_lost() == []
    assert drain(outbox) == ["a", "c", "d"]


def test_an_older_retained_value_under_way_does_not_come_back_behind_a_newer() -> None:
    outbox = Outbox()
    outbox.add(publication("status", "state", retain=True))
    old = outbox.take()
    assert old is not None
    outbox.sent(1, old)
    outbox.add(publication("status", "state", retain=True))
    outbox.link_lost()
    assert drain(outbox) == ["status"]


@given(st.lists(st.tuples(st.sampled_from(["add", "send", "ack", "lost"]), st.sampled_from(LANES)), max_size=80))
def test_nothing_vanishes(steps: list[tuple[str, Lane]]) -> None:
    """Every publication is in exactly one place: waiting, under way, acknowledged or dropped."""
    outbox, added, gone, sent = Outbox(LIMITS), 0, [], []
    for number, (step, lane) in enumerate(steps):
        if step == "add":
            added += 1
            gone += outbox.add(publication(str(number), lane))
        elif step == "send" and (taken := outbox.take()) is not None:
            outbox.sent(number, taken)
            sent.append(number)
        elif step == "ack" and sent:
            found = outbox.acknowledged(sent.pop())
            assert found is not None
            gone.append(found)
        elif step == "lost":
            gone += outbox.link_lost()
            sent = []
        assert len({p.topic for p in gone}) == len(gone)
        assert len(outbox) == added - len(gone)
        assert outbox.under_way() == len(sent)
