"""A new worker process and what it shares with the daemon, up to its first message.

Opening -> channel -> process, control socket, pidfd -> the message that opens the rung

Leaves nothing behind when it fails: no descriptor, no process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flyball.engine.channel import Channel, memory_for
from flyball.engine.slots import SlotPool
from flyball.engine.wire import Message

# Kernels work on small arrays, for which BLAS threads only cost memory; and no runtime reports anything to anybody
# (ONNX Runtime 1.31 writes a device id and events under ~/.cache unless told not to before it is imported).
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

_POPEN_TAKES = 5  # descriptors: the null device, a pipe for standard error, and a pipe of its own


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


class Spawned(NamedTuple):
    process: subprocess.Popen[bytes]
    control: socket.socket
    pidfd: int


def spawn(channel: Channel | None, slots: SlotPool | None) -> Spawned:
    """A process that waits for its first control message. The interpreter is the daemon's own. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        ours.setblocking(False)
        _see_that_there_is_room()
        process = subprocess.Popen(
            [sys.executable, "-m", "flyball.engine.worker", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno(), *(channel.fds() if channel else ()), *([slots.fd] if slots else [])],
            start_new_session=True,  # a terminal's Ctrl-C reaches the daemon alone
            env={**os.environ, **_ENVIRONMENT},
        )
        undo.callback(_discard, process)
        pidfd = os.pidfd_open(process.pid)
        undo.pop_all()
    return Spawned(process, ours, pidfd)


def _see_that_there_is_room() -> None:
    """Raises OSError when Popen would not get its descriptors: before Python 3.11.4 it leaks one of them then."""
    with contextlib.ExitStack() as held:
        for _ in range(_POPEN_TAKES):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def _discard(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def new_channel(capacity: int, opening: Opening) -> Channel:
    """Raises OSError."""
    flags = os.EFD_CLOEXEC
    # A lane that polls must not block in its read; one that sleeps should, which saves it a system call.
    lane_flags = flags | os.EFD_NONBLOCK if opening.spin else flags
    with contextlib.ExitStack() as undo:

        def owned(fd: int) -> int:
            undo.callback(os.close, fd)
            return fd

        requests = [owned(os.eventfd(0, lane_flags)) for _ in range(opening.lanes)]
        replies = owned(os.eventfd(0, flags | os.EFD_NONBLOCK))
        channel = Channel(owned(memory_for(capacity, opening.lanes)), capacity, requests, replies)
        undo.pop_all()
    return channel


def open_message(opening: Opening, channel: Channel | None, slots: SlotPool | None) -> Message:
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
            "slots": slots.places,
            "input_bytes": slots.input_bytes,
            "output_bytes": slots.output_bytes,
            "channel_fd": fd,
            "request_fds": request_fds,
            "reply_fd": reply_fd,
        }
    return message
