"""A backend whose artifact, a JSON file, says how to misbehave: the stand-in for vendor libraries that do.

{"open": "ok|error|segfault|abort|exit|hang|slow|hoard", "run": the same or "grow", "factor": 2, "marker": path}

"warm": the same for the canary, which is 1 long. `run` misbehaves only while the file `marker` exists (or always,
without one). y = factor * x. "free": its first size is free, so that it takes batches; "log": a file that gets a line
per run with its rows; "canary": "wrong" once `marker` exists; "work" takes 20 ms of a processor, "toil" 300 ms, "grow"
64 MiB more each time; "child" starts a process of its own, "spew" writes 5000 lines to standard error.
"""

import ctypes
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from flyball_backends.contract import Accelerator, BackendError, Signature, TensorSpec


@dataclass(frozen=True)
class Options:
    threads: int = 1


_hoard = []


def misbehave(how):
    if how == "grow":
        _hoard.append(b"x" * (64 << 20))
    if how == "error":
        raise BackendError("this artifact says no")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(0)
    if how == "hang":
        time.sleep(3600)
    if how == "slow":
        time.sleep(0.3)
    if how in ("work", "toil"):
        until = time.thread_time() + (0.02 if how == "work" else 0.3)
        while time.thread_time() < until:
            pass
    if how == "hoard":
        for _ in range(20):
            _hoard.append(b"x" * (32 << 20))
            time.sleep(0.1)
    if how == "surprise":
        raise RuntimeError("not a BackendError")
    if how == "child":
        subprocess.Popen(["sleep", "3600"])
    if how == "spew":
        os.write(2, b"".join(b"line %d of too many\n" % n for n in range(5000)))


class Session:
    def __init__(self, script):
        self._script = script
        shape = (-1, -1) if script.get("free") else (1, -1)
        self.signature = Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", shape),))

    def run(self, inputs):
        marker = self._script.get("marker")
        # The canary is 1 long: only real requests misbehave, so that the rung opens.
        if inputs["x"].shape[1] > 1 and (marker is None or Path(marker).exists()):
            misbehave(self._script.get("run", "ok"))
        if inputs["x"].shape[1] == 1:
            misbehave(self._script.get("warm", "ok"))
        if "log" in self._script and inputs["x"].shape[1] > 1:
            with open(self._script["log"], "a") as log:
                log.write("{}\n".format(inputs["x"].shape[0]))
        factor = self._script.get("factor", 2)
        if inputs["x"].shape[1] == 1 and self._script.get("canary") == "wrong" and Path(marker).exists():
            factor = -7
        return {"y": inputs["x"] * factor}

    def close(self):
        pass


class FaultyBackend:
    name = "faulty"
    Options = Options

    def probe(self):
        return [Accelerator("faulty", "faulty:0")]

    def open(self, artifact, options):
        try:
            script = json.loads(Path(artifact).read_text())
        except ValueError as error:
            raise BackendError(f"{artifact}: not a script: {error}") from error
        misbehave(script.get("open", "ok"))
        return Session(script)
