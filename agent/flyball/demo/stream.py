"""Inspection pictures sent to the daemon at a steady pace, and what came back.

seeds -> pictures (drawn before the clock starts) -> client.infer every 1/rate s -> Sample

An answer that takes longer than the pace delays the next picture: the line waits, it does not pile up.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flyball.client import Client
from flyball.demo.surface import CLASSES, DEMO_SEEDS, draw
from flyball.errors import FlyballError
from flyball.ports import Answer, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    tensor: Tensor
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request. `t_s` is monotonic, at the answer; `error` says why there was none.

    latency_s is the daemon's own figure, from the request read to the answer ready: that is what limits are about. The
    sender's share would be added to it by any client, and under load it competes for the same cores.
    """

    t_s: float
    latency_s: float
    rung: str
    right: bool
    error: str = ""


def pictures(count: int) -> Iterator[Picture]:
    for seed in DEMO_SEEDS[:count]:
        image, label = draw(seed)
        yield Picture(tensor=Tensor("image", "UINT8", image.shape, image.tobytes()), label=CLASSES[label])


def ask(client: Client, ladder: str, picture: Picture) -> Sample:
    started_s = time.monotonic()
    try:
        answer = client.infer(ladder, (picture.tensor,))
    except FlyballError as error:
        now_s = time.monotonic()
        return Sample(t_s=now_s, latency_s=now_s - started_s, rung="", right=False, error=str(error))
    right = _best(answer) == picture.label
    return Sample(t_s=time.monotonic(), latency_s=answer.timing.total_s, rung=answer.rung, right=right)


def _best(answer: Answer) -> str:
    data = bytes(next(t.data for t in answer.outputs if t.name == "labels"))
    (size,) = struct.unpack_from("<I", data)
    return data[4 : 4 + size].decode()


class Stream(threading.Thread):
    """Sends until `stop`; `samples` only grows, so other threads may read it at any time."""

    def __init__(self, client: Client, ladder: str, line: Sequence[Picture], rate_hz: float) -> None:
        super().__init__(name="pictures", daemon=True)
        self.samples: list[Sample] = []
        self._client = client
        self._ladder = ladder
        self._line = line
        self._interval_s = 1 / rate_hz
        self._stop_asked = threading.Event()

    def run(self) -> None:
        due_s = time.monotonic()
        position = 0
        while not self._stop_asked.wait(max(0.0, due_s - time.monotonic())):
            self.samples.append(self._one(self._line[position % len(self._line)]))
            position += 1
            due_s = max(due_s + self._interval_s, time.monotonic())

    def _one(self, picture: Picture) -> Sample:
        started_s = time.monotonic()
        try:
            return ask(self._client, self._ladder, picture)
        except Exception as error:
            # The boundary of this thread: whatever went wrong is a request that failed, and the report says so. An end
            # of the thread would look like no failure at all.
            now_s = time.monotonic()
            text = f"{type(error).__name__}: {error}"
            return Sample(t_s=now_s, latency_s=now_s - started_s, rung="", right=False, error=text)

    def check(self) -> None:
        """Raises FlyballError when pictures do not flow although nobody asked for an end."""
        if not self.is_alive() and not self._stop_asked.is_set():
            raise FlyballError(f"the pictures stopped after {len(self.samples)} requests: the sending thread has ended")

    def stop(self) -> None:
        """Raises FlyballError as `check` does."""
        self.check()
        self._stop_asked.set()
        self.join()
