"""The daemon's side of one worker: start, handshake, requests, exit.

Worker.start -> open message -> signature -> submit(slot) -> request ring ... reply ring -> callback

Everything happens in the daemon's event loop: readers on the control socket, the reply eventfd, the standard error
pipe and a pidfd. A worker ends in exactly one way, `exited`, and every request it still held is then told; none waits
for ever, not even for a process that a driver holds in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flyball.engine.canary import Sample
from flyball.engine.channel import Channel
from flyball.engine.slots import SlotPool
from flyball.engine.spawn import Opening as Opening
from flyball.engine.spawn import Spawned, new_channel, open_message, spawn
from flyball.engine.stderr import StderrLog
from flyball.engine.wire import Decoder, Message, WireError, encode
from flyball.errors import OpenError, WorkerError

log = logging.getLogger(__name__)

# None = the reply is in the slot; else why there will be none.
Outcome = str | None
_KILL_S = 1.0  # a killed process that is still there after so long hangs in a driver, and may do so for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """Seconds of the canary runs: the first one, the median of the others, and their median less the time in which
    their thread waited for a processor, which is the model's own whatever ran beside it; and a sample of the answer."""

    first_s: float
    p50_s: float
    calm_p50_s: float
    sample: Sample = ()


class Request(NamedTuple):
    """A slot to be answered; `done` is called once, in the loop."""

    generation: int
    slot: int
    done: Callable[[Outcome], None]


@dataclass(slots=True)
class _Batch:
    """What a lane was given together, until the last of it is answered."""

    lane: int
    left: int


_Pending = tuple[int, Callable[[Outcome], None], _Batch]  # slot, whom to tell, together with


class Worker:
    """One child process. Made by `start`; `stop` or `kill` ends it. One that does not even end when it is killed is
    given up: for all others it has exited, but the memory that it may still write to is withheld until it is gone."""

    def __init__(self, label: str, spawned: Spawned, channel: Channel | None, slots: SlotPool | None) -> None:
        self.label = label
        self.pid = spawned.process.pid
        self.load_s = 0.0
        self.signature: Message = {}
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._process, self._control, self._pidfd = spawned
        self._decoder = Decoder()
        self._answers: dict[int, asyncio.Future[Message]] = {}  # by the number of what was asked
        self._numbers = itertools.count(1)
        self._channel = channel
        self._slots = slots
        self._places: Sequence[int] = slots.place if slots is not None else ()
        self._withheld: list[int] = []  # places of slots, from when it is given up until it is gone
        self._pending: dict[int, _Pending] = {}  # by generation
        self._idle: list[int] = []  # lanes with room for a batch, each as often as it has room
        self.answered_s = self._loop.time()  # monotonic: of the last answer, to a request or to the canary
        self._progress_s = 0.0  # loop time of the last sign of life while requests were pending
        self._watch: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None  # since it was killed
        self._cause = ""
        assert self._process.stderr is not None
        self._stderr = StderrLog(label, self._process.stderr)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._control.fileno(), self._on_control)

    @classmethod
    def spawn(cls, label: str, channel: Channel | None = None, slots: SlotPool | None = None, depth: int = 1) -> Worker:
        """A process that waits for its first control message. Raises OSError."""
        worker = cls(label, spawn(channel, slots), channel, slots)
        if channel is not None:
            worker._idle = list(range(len(channel.requests))) * depth
            worker._loop.add_reader(channel.replies.eventfd, worker._on_replies)
        return worker

    @classmethod
    async def start(
        cls, opening: Opening, slots: SlotPool | None, timeout_s: float, starting: set[Worker] | None = None
    ) -> Worker:
        """A worker with `opening` opened in it; it is in `starting` from its birth on, and until it is gone. Raises
        OpenError (the backend refused), WorkerError (it died or took longer than `timeout_s`); the process is then
        gone, or given up."""
        channel = None
        try:
            channel = new_channel(slots.places, opening) if slots is not None else None
            worker = cls.spawn(opening.label, channel, slots, opening.depth)
        except OSError as error:  # no more descriptors, processes or memory
            if channel is not None:
                channel.close()
            raise WorkerError(f"{opening.label}: no worker could be started: {error.strerror}") from error
        starting = set() if starting is None else starting
        starting.add(worker)
        try:
            reply = await worker.ask(open_message(opening, channel, slots), timeout_s)
        except BaseException:
            try:
                await worker.stop(0)
            finally:
                if not worker.lingers():
                    starting.discard(worker)
            raise
        worker.signature = reply["signature"]
        worker.load_s = reply["load_s"]
        return worker

    async def ask(self, message: Message, timeout_s: float) -> Message:
        """Sends a control message and waits for its answer. Raises OpenError, WorkerError."""
        number = next(self._numbers)
        answer = self._answers[number] = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._control, encode({**message, "number": number}))
            reply: Message = await asyncio.wait_for(answer, timeout_s)
        except asyncio.TimeoutError:
            self.kill("hung")
            await asyncio.shield(self.exited)
            what = f"the worker did not finish {message['op']!r} within {timeout_s:g} s and was killed"
            raise WorkerError(f"{self.label}: {what}{self._stderr.said()}") from None
        except OSError:  # the socket broke because the process died: its exit says why
            del self._answers[number]
            cause = await asyncio.shield(self.exited)
            raise WorkerError(f"{self.label}: the worker ended: {cause}{self._stderr.said()}") from None
        finally:
            self._answers.pop(number, None)  # an answer that comes after all is then nobody's
        if "error" in reply:
            raise OpenError(f"{self.label}: {reply['error']}")
        self.answered_s = self._loop.time()
        return reply

    async def warm(self, runs: int, seconds: float, timeout_s: float) -> Warmth:
        """Runs the canary. Raises OpenError when the rung cannot answer it, WorkerError when the worker dies."""
        reply = await self.ask({"op": "warm", "runs": runs, "seconds": seconds}, timeout_s)
        return Warmth(
            first_s=reply["first_s"], p50_s=reply["p50_s"], calm_p50_s=reply["calm_p50_s"], sample=reply["sample"]
        )

    async def canary(self, timeout_s: float) -> Sample:
        """One canary run beside the requests. Raises OpenError, WorkerError."""
        sample: Sample = (await self.ask({"op": "canary"}, timeout_s))["sample"]
        return sample

    def idle_lanes(self) -> int:
        return 0 if self.exited.done() else len(self._idle)

    def submit(self, batch: Sequence[Request], limit_s: Callable[[], float]) -> None:
        """Hands slots to an idle lane, which answers them together; there must be one. A worker that finishes nothing
        for `limit_s()` while requests wait is taken for hung and killed."""
        assert self._channel is not None
        lane = self._idle.pop()
        if not self._pending:
            self._progress_s = self._loop.time()
            if self._watch is None:
                after_s = limit_s()
                self._watch = self._loop.call_later(after_s, self._look, after_s)
        together = _Batch(lane, len(batch))
        for generation, slot, done in batch:
            self._pending[generation] = slot, done, together
        self._channel.requests[lane].push([(generation, self._places[slot]) for generation, slot, _ in batch])

    def alive(self) -> bool:
        return not self.exited.done()

    def lingers(self) -> bool:
        """Whether it was given up, and its process is still there."""
        return self.exited.done() and self._process.returncode is None

    def kill(self, cause: str) -> None:
        self._cause = self._cause or cause
        if self.exited.done() or _has_ended(self._pidfd):  # then `Popen.kill` would reap it, and `_on_exit` is to
            return
        self._process.kill()
        if self._grace is None:
            self._grace = self._loop.call_later(_KILL_S, self._give_up)

    async def stop(self, timeout_s: float) -> None:
        """Asks the worker to close, and kills it when it has not done so in time."""
        self._cause = self._cause or "stopped"
        try:
            if timeout_s > 0 and not self.exited.done():
                await self._loop.sock_sendall(self._control, encode({"op": "close"}))
                await asyncio.wait_for(asyncio.shield(self.exited), timeout_s)
        except asyncio.TimeoutError:
            log.warning("%s: the worker did not close within %g s and is killed", self.label, timeout_s)
        except OSError:
            pass  # it is ending already
        finally:
            self.kill("stopped")
        await asyncio.shield(self.exited)

    def _look(self, limit_s: float) -> None:
        """The only timer of a worker: it runs while requests are pending, not once per request."""
        self._watch = None
        if not self._pending:
            return
        left_s = self._progress_s + limit_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look, limit_s)
            return
        log.error("%s: no answer for %g s: the worker is taken for hung and killed", self.label, limit_s)
        self.kill("hung")

    def _on_replies(self) -> None:
        assert self._channel is not None
        self._progress_s = self.answered_s = self._loop.time()
        try:
            replies = self._channel.replies.pop_all()
        except OverflowError:
            replies = [(-1, 0)]
        answered = [self._pending.pop(generation) for generation, _ in replies if generation in self._pending]
        if len(answered) < len(replies):  # those that were asked for count nonetheless
            log.error("%s: the worker signalled answers that nobody had asked for and is killed", self.label)
            self.kill("protocol")
        for _, _, batch in answered:
            batch.left -= 1
            if not batch.left:
                self._idle.append(batch.lane)
        for _, done, _ in answered:
            done(None)

    def _on_control(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return  # the exit itself comes through the pidfd
        try:
            messages = self._decoder.feed(data)
        except WireError as error:
            log.error("%s: the worker sent nonsense and is killed: %s", self.label, error)
            self.kill("protocol")
            return
        for message in messages:
            answer = self._answers.get(message.get("number", 0))
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _give_up(self) -> None:
        """It was killed and does not end: a driver holds it. It goes on existing, but nobody waits for it any more."""
        log.error("%s: process %d was killed and is still there after %g s: given up", self.label, self.pid, _KILL_S)
        if self._watch is not None:
            self._watch.cancel()
        self._cause = f"{self._cause} (killed, but its process {self.pid} does not end)"
        if self._channel is not None:
            self._loop.remove_reader(self._channel.replies.eventfd)
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # should it ever run again, it ends by itself
        self.exited.set_result(self._cause)
        pending, self._pending = self._pending, {}
        for generation, (slot, done, batch) in pending.items():
            assert self._slots is not None
            place = self._slots.move(slot)
            if place is None:  # no other memory for the request: its caller waits until it is gone, or for his deadline
                self._pending[generation] = slot, done, batch
                continue
            self._withheld.append(place)
            done(f"the worker ended: {self._cause}")
        self._fail_answers()

    def _on_exit(self) -> None:
        if self._process.returncode is None:  # not reaped: its number, which is its group's, is nobody else's yet
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)  # the children that a session has started
        code = self._process.wait()
        how = f"killed by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        for timer in (self._watch, self._grace):
            if timer is not None:
                timer.cancel()
        given_up = self.exited.done()
        if given_up:
            log.warning("%s: process %d, which was given up, has ended: %s", self.label, self.pid, how)
        else:
            self._cause = f"{self._cause} ({how})" if self._cause else how
        if self._channel is not None:
            if not given_up:
                self._on_replies()  # answers that were finished before the end count
                self._loop.remove_reader(self._channel.replies.eventfd)
            self._channel.close()
            self._channel = None
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._control.fileno())
        os.close(self._pidfd)
        self._control.close()
        self._stderr.close()
        for place in self._withheld:
            assert self._slots is not None
            self._slots.vacated(place)
        if not given_up:
            self.exited.set_result(self._cause)
        self._fail_answers()
        pending, self._pending = self._pending, {}
        for _, done, _ in pending.values():
            done(f"the worker ended: {self._cause}")

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                what = f"{self.label}: the worker ended: {self._cause}{self._stderr.said()}"
                answer.set_exception(WorkerError(what))


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def probe(backend: str, timeout_s: float) -> list[dict[str, str]]:
    """The accelerators that a backend finds, asked in a child process. Raises OpenError, WorkerError."""
    worker = Worker.spawn(f"probe/{backend}")
    try:
        reply = await worker.ask({"op": "probe", "backend": backend}, timeout_s)
    finally:
        await worker.stop(2.0)
    return list(reply["accelerators"])
