"""A control socket that gives prepared answers: the command line's side of it, without a daemon."""

from __future__ import annotations

import json
import os
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec

from flyball.control_api import Decisions, LadderView, Status
from flyball.ports import Decision, Interface, LadderStatus, Pin, PublicTensor, RungStatus
from flyball.testing import NO_TOTALS


def flyball(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command line as users have it."""
    environment = {**os.environ, "COLUMNS": "200", **more.pop("environment", {})}
    streams = {} if "stdout" in more else {"stdout": subprocess.PIPE}
    return subprocess.run(
        [sys.executable, "-m", "flyball", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=environment,
        **streams,
        **more,
    )


class ScriptedDaemon:
    """Answers GET and POST by path (without the query); a list is given one by one, the last one for ever. `asked` has
    the paths with their queries. A context manager."""

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        self.path = path
        self.asked: list[str] = []
        replies = {key: value if isinstance(value, list) else [value] for key, value in answers.items()}
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append(self.path)
                waiting = replies.get(self.path.partition("?")[0])
                if waiting is None:
                    self._reply(404, b'{"error": "no such ladder"}', {})
                    return
                answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                body, headers = answer if isinstance(answer, tuple) else (msgspec.json.encode(answer), {})
                self._reply(200, body, headers)

            do_POST = do_GET

            def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> ScriptedDaemon:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


PICTURES = Interface(
    task="image-classification",
    inputs=(PublicTensor(name="image", datatype="UINT8", shape=(-1, -1, 3), alternative=("BYTES", (1,))),),
    outputs=(
        PublicTensor(name="scores", datatype="FP32", shape=(2,)),
        PublicTensor(name="labels", datatype="BYTES", shape=(2,)),
    ),
)


def labelled(*labels: str) -> tuple[bytes, Mapping[str, str]]:
    """An answer of a classification ladder, as the daemon sends it."""
    scores = struct.pack(f"<{len(labels)}f", *[1 / (i + 1) for i in range(len(labels))])
    texts = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in labels)
    outputs = [
        {"name": name, "datatype": kind, "shape": [len(labels)], "parameters": {"binary_data_size": len(data)}}
        for name, kind, data in (("scores", "FP32", scores), ("labels", "BYTES", texts))
    ]
    times = {f"{name}_ns": 1_000_000 for name in ("queue", "pre", "run", "post", "total")}
    head = json.dumps({"parameters": {"rung": "big", **times}, "outputs": outputs}).encode()
    return head + scores + texts, {"Inference-Header-Content-Length": str(len(head))}


def status(*ladders: LadderStatus, pins: tuple[Pin, ...] = ()) -> Status:
    return Status(
        version="9.9",
        device="here",
        board="",
        mode="accuracy-first",
        uptime_s=5.0,
        ladders=tuple(LadderView(status=s, window=None, totals=NO_TOTALS, joules_per_inference={}) for s in ladders),
        readings=(),
        sensors=(),
        energy=None,
        pins=pins,
        uplink=None,
    )


def ladder(name: str = "defects", state: Any = "ready", rungs: tuple[str, ...] = ("r224-fp32", "r112")) -> LadderStatus:
    return LadderStatus(
        name=name,
        version="1",
        state=state,
        active=rungs[0],
        pending=0,
        rungs=tuple(
            RungStatus(
                name=r, state="active" if i == 0 else "closed", precision="fp32", accuracy=0.9, rss_bytes=1 << 20
            )
            for i, r in enumerate(rungs)
        ),
    )


def decided(*decisions: Decision) -> Decisions:
    return Decisions(decisions=decisions)
