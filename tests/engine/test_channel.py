"""Rings: every entry arrives once, in order, however the counts coalesce."""

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from flyball.engine.channel import Channel, memory_for


def new(capacity: int) -> Channel:
    flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
    return Channel(memory_for(capacity, 1), capacity, [os.eventfd(0, flags)], os.eventfd(0, flags))


def other_end(channel: Channel) -> Channel:
    memory, reply, *requests = (os.dup(fd) for fd in channel.fds())
    return Channel(memory, channel.capacity, requests, reply)


@given(st.lists(st.integers(1, 5), max_size=60))
def test_entries_arrive_once_and_in_order(bursts: list[int]) -> None:
    ours = new(5)
    theirs = other_end(ours)
    try:
        generation = 0
        for burst in bursts:
            sent = []
            for _ in range(burst):
                generation += 1
                ours.requests[0].push([(generation, generation % 5)])
                sent.append((generation, generation % 5))
            assert theirs.requests[0].pop_all() == sent
            assert theirs.requests[0].pop_all() == []
            assert theirs.replies.pop_all() == []
    finally:
        ours.close()
        theirs.close()


def test_between_processes() -> None:
    channel = new(4)
    fds = channel.fds()
    code = (
        "import sys, select\nfrom flyball.engine.channel import Channel\n"
        f"c = Channel({fds[0]}, 4, [{fds[2]}], {fds[1]})\np = select.poll(); p.register({fds[2]}, select.POLLIN)\n"
        "seen = 0\nwhile seen < 1000:\n    p.poll()\n    for g, s in c.requests[0].pop_all():\n"
        "        seen += 1; c.replies.push([(g * 2, s)])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=fds)
    try:
        answered = 0
        outstanding = 0
        for generation in range(1, 1001):
            while outstanding == 4:
                for doubled, slot in channel.replies.pop_all():
                    answered += 1
                    outstanding -= 1
                    assert doubled == answered * 2
                    assert slot == answered % 4
            channel.requests[0].push([(generation, generation % 4)])
            outstanding += 1
        while answered < 1000:
            for doubled, _ in channel.replies.pop_all():
                answered += 1
                assert doubled == answered * 2
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        channel.close()
