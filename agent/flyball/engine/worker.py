"""The child process that owns one session.

control socket: open, warm, canary, probe, close <- daemon;  requests go past this file, through lanes.py

It may crash or hang without hurting the daemon, and never outlives it: it ends when the control socket closes, and
the kernel kills it when its parent dies. Started as `python -m flyball.engine.worker FD`. Runs on Python 3.8 with
little more than NumPy, so that a backend can bring the interpreter that its vendor's runtime needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from flyball.engine.channel import Channel
from flyball.engine.lanes import Lanes
from flyball.engine.pipeline import Failure, Pipeline
from flyball.engine.slots import SlotPool
from flyball.engine.tasks import NUMPY_NAMES, BadRequest, Outputs, PlanError
from flyball.engine.wire import Decoder, Message, encode
from flyball_backends.contract import BackendError, Session, Signature, TensorSpec
from flyball_backends.options import decode_options
from flyball_backends.registry import find

SAMPLE = 32  # values of each output that a canary is compared by
OOM_SCORE = "500"  # the kernel's killer takes a worker before the daemon, which then starts it again


class Worker:
    """Control messages, one at a time, until the control socket closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._session: Optional[Session] = None
        self._pipeline: Optional[Pipeline] = None

    def serve(self) -> None:
        decoder = Decoder()
        while True:
            data = self._control.recv(65536)
            if not data:
                return
            for message in decoder.feed(data):
                if not self._obey(message):
                    return

    def _obey(self, message: Message) -> bool:
        """Carries out one control message; False ends the worker."""
        operation = message["op"]
        if operation == "close":
            if self._pipeline is not None:
                self._pipeline.close()
            elif self._session is not None:
                self._session.close()
            return False
        try:
            reply = {
                "open": self._open,
                "warm": self._warm,
                "canary": self._canary,
                "trial": self._trial,
                "probe": self._probe,
            }[operation](message)
        except (BackendError, PlanError, BadRequest, Failure, ValueError, OSError) as error:
            reply = {"error": str(error)}
        except MemoryError:
            reply = {"error": "not enough memory"}
        # The number tells whose answer it is: who asked before may have stopped waiting.
        self._control.sendall(encode({**reply, "number": message.get("number")}))
        return True

    def _open(self, message: Message) -> Message:
        started = time.perf_counter()
        _settle(message.get("settle") or {})
        backend = find(message["backend"])
        session = backend.open(Path(message["artifact"]), decode_options(backend, message["options"]))
        self._session = session
        if message.get("plan") is not None:
            self._pipeline = Pipeline(message["plan"], session)
            memory = message["memory"]
            slots = SlotPool(memory["slots_fd"], memory["slots"], memory["input_bytes"], memory["output_bytes"])
            channel = Channel(memory["channel_fd"], memory["slots"], memory["request_fds"], memory["reply_fd"])
            batches = message["plan"]["batch"] > 1
            Lanes(self._pipeline, slots, channel, message["spin"], batches).start()
        return {"signature": _signature(session.signature), "load_s": time.perf_counter() - started}

    def _warm(self, message: Message) -> Message:
        """Runs the canary until `runs` or `seconds` are used up; the first run, which often allocates, counts apart."""
        if self._pipeline is None:
            raise BackendError("nothing is open")
        canary = self._pipeline.canary()
        waited_s, started = _waited_s(), time.perf_counter()
        outputs = self._pipeline.run(canary).outputs
        first_s = time.perf_counter() - started
        first_calm_s = _without(first_s, waited_s, _waited_s())
        durations: List[float] = []
        calm: List[float] = []
        while len(durations) < message["runs"] and time.perf_counter() - started < message["seconds"]:
            waited_s, before = _waited_s(), time.perf_counter()
            self._pipeline.run(canary)
            durations.append(time.perf_counter() - before)
            calm.append(_without(durations[-1], waited_s, _waited_s()))
        return {
            "first_s": first_s,
            "p50_s": sorted(durations)[len(durations) // 2] if durations else first_s,
            "calm_p50_s": sorted(calm)[len(calm) // 2] if calm else first_calm_s,
            "sample": sample(outputs),
        }

    def _canary(self, message: Message) -> Message:
        """One run beside the requests: it waits for its turn in the session like any of them."""
        if self._pipeline is None:
            raise BackendError("nothing is open")
        return {"sample": sample(self._pipeline.run(self._pipeline.canary()).outputs)}

    def _trial(self, message: Message) -> Message:
        """Runs the bare artifact on seeded noise and tells the range and the sum of what comes out."""
        if self._session is None:
            raise BackendError("nothing is open")
        outputs = self._session.run(noise(self._session.signature))
        figures = []
        for tensor in self._session.signature.outputs:
            values = np.asarray(outputs[tensor.name], dtype=np.float64)
            if tensor.quantization is not None:
                values = tensor.quantization.scale * (values - tensor.quantization.zero_point)
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            figures.append({"minimum": low, "maximum": high, "sum": float(values.sum())})
        return {"outputs": figures}

    def _probe(self, message: Message) -> Message:
        found = find(message["backend"]).probe()
        return {"accelerators": [{"kind": a.kind, "id": a.id, "detail": a.detail} for a in found]}


def noise(signature: Signature) -> Dict[str, Any]:
    """An input of the right shapes and dtypes; free dimensions are 1."""
    generator = np.random.default_rng(0)
    tensors = {}
    for tensor in signature.inputs:
        shape = tuple(1 if size < 0 else size for size in tensor.shape)
        kind = np.dtype(tensor.dtype)
        if kind.kind == "f":
            tensors[tensor.name] = generator.uniform(-1, 1, shape).astype(kind)
        elif kind.kind == "b":
            tensors[tensor.name] = generator.integers(0, 2, shape).astype(kind)
        elif kind.kind in "iu":
            bounds = np.iinfo(np.int8 if kind.kind == "i" else np.uint8)
            tensors[tensor.name] = generator.integers(bounds.min, bounds.max + 1, shape).astype(kind)
        else:
            raise BackendError("input {!r}: {} is not a number".format(tensor.name, tensor.dtype))
    return tensors


def _signature(signature: Signature) -> Message:
    return {
        "inputs": [_tensor(t) for t in signature.inputs],
        "outputs": [_tensor(t) for t in signature.outputs],
    }


def _tensor(tensor: TensorSpec) -> Message:
    plain: Message = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
    if tensor.quantization is not None:
        plain["scale"] = tensor.quantization.scale
        plain["zero_point"] = tensor.quantization.zero_point
    return plain


def _waited_s() -> Optional[float]:
    """For how long this thread has been ready to run and had no processor; None where the kernel does not tell it. What
    threads of the vendor's runtime waited, or a queue before an accelerator, is not in it."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _without(took_s: float, before_s: Optional[float], after_s: Optional[float]) -> float:
    """What a run took, less what its thread waited meanwhile. A wait between a look at that and one at the clock can be
    longer than the run itself: then nothing is known of it, and all of it counts."""
    if before_s is None or after_s is None:
        return took_s
    calm_s = took_s - (after_s - before_s)
    return calm_s if calm_s > 0.0 else took_s


def sample(outputs: Outputs) -> List[List[float]]:
    """Of every output of numbers some evenly spaced ones: what a canary is compared by (canary.py)."""
    samples: List[List[float]] = []
    for datatype, _, data in outputs:
        if datatype == "BYTES":
            samples.append([])
            continue
        values = np.frombuffer(data, NUMPY_NAMES[datatype])
        at = np.linspace(0, values.size - 1, min(values.size, SAMPLE)).astype(np.int64)
        samples.append([float(v) for v in values[at]])
    return samples


def _settle(settle: Message) -> None:
    """Where and how urgently this process runs. Raises BackendError, OSError."""
    if settle.get("cpus"):
        try:
            os.sched_setaffinity(0, settle["cpus"])
        except OSError as error:
            raise BackendError(
                "engine.worker_cpus: {} cannot be used here ({}); this process may use {}".format(
                    settle["cpus"], error.strerror, sorted(os.sched_getaffinity(0))
                )
            ) from error
    if settle.get("nice"):
        os.nice(settle["nice"])


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when its parent is gone; checked again in case it already was."""
    pr_set_pdeathsig = 1  # prctl(2)
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: List[str]) -> int:
    control = socket.socket(fileno=int(arguments[1]))
    die_with_parent(int(arguments[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle: it drains first
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)  # not possible in every container; then all processes are equal
    try:
        Worker(control).serve()
    except ConnectionError:
        return 1  # the daemon went away in the middle of an answer
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
