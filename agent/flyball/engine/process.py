"""The daemon's side of one worker: start, handshake, requests, exit.

Worker.start -> open message -> signature -> submit(slot) -> request ring ... reply ring -> callback

Everything happens in the daemon's event loop: readers on the control socket, the reply eventfd, the standard error
pipe and a pidfd. A worker ends in exactly one way, `exited`, and every request it still held is then told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flyball.engine.canary import Sample
from flyball.engine.channel import Channel, memory_for
from flyball.engine.slots import SlotPool
from flyball.engine.wire import Decoder, Message, WireError, encode
from flyball.errors import OpenError, WorkerError

log = logging.getLogger(__name__)

# None = the reply is in the slot; else why there will be none.
Outcome = str | None
# Kernels work on small arrays, for which BLAS threads only cost memory; and no runtime reports anything to anybody
# (ONNX Runtime 1.31 writes a device id and events under ~/.cache unless told not to before it is imported).
_WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
_STDERR_LINES = 6  # kept for the message when a worker dies while it opens
_STDERR_LINE_BYTES = 4096  # a longer line is cut: a worker must not fill the daemon's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a worker is asked to open. `plan` is None when only the artifact's signature is wanted."""

    label: str  # for logs and messages: "imagenet/v2-224"
    backend: str
    artifact: Path
    options: dict[str, Any]
    plan: dict[str, Any] | None = None
    lanes: int = 1  # threads that answer
    depth: int = 1  # requests, or batches of them, that a lane has at once: one under way, the others ready for it
    spin: bool = False  # lanes poll before they sleep
    settle: dict[str, Any] = field(default_factory=dict)  # "nice": int, "cpus": list of int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """Seconds of the canary runs: the first one, and the median of the others; and a sample of the answer."""

    first_s: float
    p50_s: float
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


class Worker:
    """One child process. Made by `start`; `stop` or `kill` ends it."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.label = label
        self.pid = process.pid
        self.load_s = 0.0
        self.signature: Message = {}
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._control = control
        self._decoder = Decoder()
        self._answer: asyncio.Future[Message] | None = None
        self._channel: Channel | None = None
        self._pending: dict[int, tuple[Callable[[Outcome], None], _Batch]] = {}  # by generation
        self._idle: list[int] = []  # lanes with room for a batch, each as often as it has room
        self._progress_s = 0.0  # loop time of the last sign of life while requests were pending
        self._watch: asyncio.TimerHandle | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._stderr_rest = b""
        self._cause = ""
        self._pidfd = os.pidfd_open(process.pid)
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(process.stderr.fileno(), self._on_stderr)
        self._loop.add_reader(control.fileno(), self._on_control)

    @classmethod
    def spawn(cls, label: str, channel: Channel | None = None, slots: SlotPool | None = None, depth: int = 1) -> Worker:
        """A process that waits for its first control message. The interpreter is the daemon's own."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fds = [theirs.fileno(), *(channel.fds() if channel else ()), *([slots.fd] if slots else [])]
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            process = subprocess.Popen(
                [sys.executable, "-m", "flyball.engine.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                start_new_session=True,  # a terminal's Ctrl-C reaches the daemon alone
                env={**os.environ, **_WORKER_ENVIRONMENT},
            )
            undo.pop_all()
        worker = cls(label, process, ours)
        worker._channel = channel
        if channel is not None:
            worker._idle = list(range(len(channel.requests))) * depth
            worker._loop.add_reader(channel.replies.eventfd, worker._on_replies)
        return worker

    @classmethod
    async def start(
        cls, opening: Opening, slots: SlotPool | None, timeout_s: float, starting: set[Worker] | None = None
    ) -> Worker:
        """A worker with `opening` opened in it; it is in `starting` from its birth on, and until it has failed. Raises
        OpenError (the backend refused), WorkerError (it died or took longer than `timeout_s`); the process is then
        gone."""
        channel = _new_channel(slots.count, opening) if slots is not None else None
        try:
            worker = cls.spawn(opening.label, channel, slots, opening.depth)
        except OSError as error:  # no more descriptors, processes or memory
            if channel is not None:
                channel.close()
            raise WorkerError(f"{opening.label}: no worker could be started: {error.strerror}") from error
        starting = set() if starting is None else starting
        starting.add(worker)
        message: Message = {
            "op": "open",
            "backend": opening.backend,
            "artifact": str(opening.artifact),
            "options": opening.options,
            "plan": opening.plan,
            "spin": opening.spin,
            "settle": opening.settle,
        }
        if slots is not None and channel is not None:
            fd, reply_fd, *request_fds = channel.fds()
            message["memory"] = {
                "slots_fd": slots.fd,
                "slots": slots.count,
                "input_bytes": slots.input_bytes,
                "output_bytes": slots.output_bytes,
                "channel_fd": fd,
                "request_fds": request_fds,
                "reply_fd": reply_fd,
            }
        try:
            reply = await worker.ask(message, timeout_s)
        except BaseException:
            await worker.stop(0)
            starting.discard(worker)
            raise
        worker.signature = reply["signature"]
        worker.load_s = reply["load_s"]
        return worker

    async def ask(self, message: Message, timeout_s: float) -> Message:
        """Sends a control message and waits for its answer; one at a time. Raises OpenError, WorkerError."""
        self._answer = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._control, encode(message))
            reply = await asyncio.wait_for(self._answer, timeout_s)
        except asyncio.TimeoutError:
            self.kill("hung")
            await self.exited
            what = f"the worker did not finish {message['op']!r} within {timeout_s:g} s and was killed"
            raise WorkerError(f"{self.label}: {what}{self._said()}") from None
        except OSError:  # the socket broke because the process died: its exit says why
            raise WorkerError(f"{self.label}: the worker ended: {await self.exited}{self._said()}") from None
        finally:
            self._answer = None
        if "error" in reply:
            raise OpenError(f"{self.label}: {reply['error']}")
        return reply

    async def warm(self, runs: int, seconds: float, timeout_s: float) -> Warmth:
        """Runs the canary. Raises OpenError when the rung cannot answer it, WorkerError when the worker dies."""
        reply = await self.ask({"op": "warm", "runs": runs, "seconds": seconds}, timeout_s)
        return Warmth(first_s=reply["first_s"], p50_s=reply["p50_s"], sample=reply["sample"])

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
        for generation, _, done in batch:
            self._pending[generation] = done, together
        self._channel.requests[lane].push([(generation, slot) for generation, slot, _ in batch])

    def alive(self) -> bool:
        return not self.exited.done()

    def kill(self, cause: str) -> None:
        self._cause = self._cause or cause
        if not self.exited.done():
            self._process.kill()

    async def stop(self, timeout_s: float) -> None:
        """Asks the worker to close, and kills it when it has not done so in time."""
        self._cause = self._cause or "stopped"
        if timeout_s > 0 and not self.exited.done():
            try:
                await self._loop.sock_sendall(self._control, encode({"op": "close"}))
                await asyncio.wait_for(asyncio.shield(self.exited), timeout_s)
            except (asyncio.TimeoutError, OSError):
                log.warning("%s: the worker did not close within %g s and is killed", self.label, timeout_s)
        self.kill("stopped")
        await self.exited

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
        self._progress_s = self._loop.time()
        try:
            replies = self._channel.replies.pop_all()
        except OverflowError:
            replies = [(-1, 0)]
        answered = [self._pending.pop(generation) for generation, _ in replies if generation in self._pending]
        if len(answered) < len(replies):  # those that were asked for count nonetheless
            log.error("%s: the worker signalled answers that nobody had asked for and is killed", self.label)
            self.kill("protocol")
        for _, batch in answered:
            batch.left -= 1
            if not batch.left:
                self._idle.append(batch.lane)
        for done, _ in answered:
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
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)

    def _on_stderr(self) -> None:
        assert self._process.stderr is not None
        try:
            data = os.read(self._process.stderr.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._process.stderr.fileno())
        *lines, self._stderr_rest = (self._stderr_rest + data).split(b"\n")
        if not data or len(self._stderr_rest) > _STDERR_LINE_BYTES:
            lines, self._stderr_rest = [*lines, self._stderr_rest], b""
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                log.log(_level(text), "[%s] %s", self.label, text)
                self._stderr.append(text)

    def _on_exit(self) -> None:
        code = self._process.wait()
        how = f"killed by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        self._cause = f"{self._cause} ({how})" if self._cause else how
        if self._channel is not None:
            self._on_replies()  # answers that were finished before the end count
            self._loop.remove_reader(self._channel.replies.eventfd)
            self._channel.close()
            self._channel = None
        self._on_stderr()
        self._on_stderr()  # the rest, or the end, of what it wrote before it died
        assert self._process.stderr is not None
        for fd in (self._pidfd, self._control.fileno(), self._process.stderr.fileno()):
            self._loop.remove_reader(fd)
        os.close(self._pidfd)
        self._control.close()
        self._process.stderr.close()
        self.exited.set_result(self._cause)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WorkerError(f"{self.label}: the worker ended: {self._cause}{self._said()}"))
        pending, self._pending = self._pending, {}
        if self._watch is not None:
            self._watch.cancel()
        for done, _ in pending.values():
            done(f"the worker ended: {self._cause}")

    def _said(self) -> str:
        return f"; it wrote: {' | '.join(self._stderr)}" if self._stderr else ""


def _level(line: str) -> int:
    """Runtimes chat on standard error; what calls itself information is kept as that."""
    return logging.INFO if line.startswith(("INFO:", "I0", "I1")) else logging.WARNING


def _new_channel(capacity: int, opening: Opening) -> Channel:
    flags = os.EFD_CLOEXEC
    # A lane that polls must not block in its read; one that sleeps should, which saves it a system call.
    lane_flags = flags | os.EFD_NONBLOCK if opening.spin else flags
    requests = [os.eventfd(0, lane_flags) for _ in range(opening.lanes)]
    return Channel(memory_for(capacity, opening.lanes), capacity, requests, os.eventfd(0, flags | os.EFD_NONBLOCK))


async def probe(backend: str, timeout_s: float) -> list[dict[str, str]]:
    """The accelerators that a backend finds, asked in a child process. Raises OpenError, WorkerError."""
    worker = Worker.spawn(f"probe/{backend}")
    try:
        reply = await worker.ask({"op": "probe", "backend": backend}, timeout_s)
    finally:
        await worker.stop(2.0)
    return list(reply["accelerators"])
