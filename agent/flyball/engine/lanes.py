"""The threads of a worker that answer requests: pre and post of one overlap the run of another.

request ring of the lane -> slots -> Pipeline.answer (pre | run, one at a time | post) -> slots -> reply ring

The daemon gives a lane its next batch only after the last was answered, so all that a signal brings is one batch; or,
to a rung without batches, a few requests that it takes one after the other. Each lane sleeps in its own eventfd:
nothing is handed from thread to thread. Runs on Python 3.8.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import traceback

from flyball.engine.channel import Channel, Entry, Ring
from flyball.engine.pipeline import Failure, Pipeline, Result, TooLate, Work
from flyball.engine.slots import BAD_REQUEST, FAILED, TOO_LATE, SlotOverflow, SlotPool
from flyball.engine.tasks import BadRequest

# Python lets a thread that computes go on for 5 ms before another gets its turn: a lane that has just finished its
# run would wait that long for one that scales a picture.
_SWITCH_INTERVAL_S = 0.0005
_SPIN_S = 0.002  # how long a lane looks for its next request before it sleeps, where the configuration asks for it
_STALE = "the slot holds another request"
_EXIT_CODE = 70  # EX_SOFTWARE: a fault of this file itself


class Lanes:
    """`spin` trades a processor for the wake-up's microseconds: the lane polls before it sleeps."""

    def __init__(self, pipeline: Pipeline, slots: SlotPool, channel: Channel, spin: bool, batches: bool) -> None:
        self._pipeline = pipeline
        self._slots = slots
        self._channel = channel
        self._spin = spin
        self._batches = batches
        self._reply = threading.Lock()

    def start(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        for number, ring in enumerate(self._channel.requests):
            threading.Thread(target=self._run, args=(ring,), name=f"lane-{number}", daemon=True).start()

    def _run(self, ring: Ring) -> None:
        try:
            signalled = select.poll()  # select() itself takes no descriptor above 1023, and a worker keeps the daemon's
            signalled.register(ring.eventfd, select.POLLIN)
            while True:
                entries = _next(ring, signalled if self._spin else None)
                if self._batches:
                    self._many(entries)
                else:
                    for entry in entries:
                        self._one(entry)
        except BaseException:
            # A lane that ended silently would leave its requests to their deadlines: the whole worker ends instead,
            # and the daemon starts another.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(_EXIT_CODE)

    def _one(self, entry: Entry) -> None:
        """As straight as can be: right after a run, with all caches cold, every call costs a microsecond or two."""
        generation, slot = entry
        found, deadline_s, inputs = self._slots.read_request(slot)
        if found == generation:
            self._write(generation, slot, self._pipeline.alone(inputs, deadline_s))
        else:
            self._slots.write_refusal(slot, generation, FAILED, _STALE)
        with self._reply:
            self._channel.replies.push((entry,))

    def _many(self, entries: list[Entry]) -> None:
        batch: list[Work] = []
        stale: list[Entry] = []
        for generation, slot in entries:
            found, deadline_s, inputs = self._slots.read_request(slot)
            if found == generation:
                batch.append(Work(generation, slot, deadline_s, inputs))
            else:
                stale.append((generation, slot))
        for work, outcome in zip(batch, self._pipeline.answer(batch)):  # noqa: B905 - strict= is Python 3.10
            self._write(work.generation, work.slot, outcome)
        for generation, slot in stale:
            self._slots.write_refusal(slot, generation, FAILED, _STALE)
        with self._reply:
            self._channel.replies.push(entries)

    def _write(self, generation: int, slot: int, outcome: object) -> None:
        slots = self._slots
        if isinstance(outcome, Result):
            try:
                slots.write_reply(slot, generation, outcome.outputs, outcome.durations_ns)
            except SlotOverflow as error:
                message = f"the outputs do not fit (max_output_bytes): {error}"
                slots.write_refusal(slot, generation, FAILED, message)
        elif isinstance(outcome, BadRequest):
            slots.write_refusal(slot, generation, BAD_REQUEST, str(outcome))
        elif isinstance(outcome, TooLate):
            slots.write_refusal(slot, generation, TOO_LATE, str(outcome))
        else:
            assert isinstance(outcome, Failure)
            slots.write_refusal(slot, generation, FAILED, str(outcome))


def _next(ring: Ring, signalled: select.poll | None) -> list[Entry]:
    """`signalled` is what a lane that polls sleeps in at last; without it, reading the eventfd sleeps."""
    if signalled is not None:
        until_s = time.monotonic() + _SPIN_S
        while time.monotonic() < until_s:
            entries = ring.pop_all()
            if entries:
                return entries
        signalled.poll()
    return ring.pop_all()
