"""A synchronous client of the control socket, for the command line and for programs on the machine.

call -> HTTP over the Unix socket (one connection, kept) -> control_api Struct, or an error of the daemon's own kind

Not for several threads at once: each takes a client of its own. Tensors go in binary, both ways.
"""

from __future__ import annotations

import grp
import http.client
import os
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from flyball import errors
from flyball.config import LadderName
from flyball.control_api import RECORDING_END, Decisions, Devices, RungOrder, Status
from flyball.errors import ControlError, FlyballError
from flyball.ports import (
    AcceleratorInfo,
    Answer,
    Decision,
    Interface,
    ReloadReport,
    SwitchReport,
    Tensor,
    Timing,
)

T = TypeVar("T")

QUIET_S = 150.0  # between two lines of a recording: the governor looks once a minute at the least

_BY_STATUS: dict[int, type[FlyballError]] = {
    400: errors.RequestError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    413: errors.TooLargeError,
    429: errors.QueueFullError,
    503: errors.UnavailableError,
    504: errors.DeadlineError,
}


class _Refusal(msgspec.Struct):
    error: str


class _OutputParameters(msgspec.Struct):
    binary_data_size: int


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _OutputParameters


class _AnswerParameters(msgspec.Struct):
    rung: str
    queue_ns: int
    pre_ns: int
    run_ns: int
    post_ns: int
    total_ns: int


class _AnswerHead(msgspec.Struct):
    parameters: _AnswerParameters
    outputs: list[_Output]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Of the daemon that listens on `socket_path`. Connects at the first call. Every call raises ControlError when
    the daemon cannot be reached or fails, and its other errors (NotFoundError, RequestError, ...) as they are."""

    def __init__(self, socket_path: Path, timeout_s: float = 60.0) -> None:
        self.socket_path = socket_path
        self._timeout_s = timeout_s
        self._connection = _UnixConnection(socket_path, timeout_s)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ control

    def status(self) -> Status:
        return self._get("/control/status", Status)

    def decisions(self, ladder: str | None = None, limit: int | None = None) -> Sequence[Decision]:
        """The newest last."""
        asked = {"ladder": ladder if ladder is None else _name(ladder), "limit": limit}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        return self._get(f"/control/decisions?{query}", Decisions).decisions

    def devices(self) -> Sequence[AcceleratorInfo]:
        return self._get("/control/devices", Devices).devices

    def interface(self, ladder: str) -> Interface:
        return self._get(f"/control/ladders/{_name(ladder)}", Interface)

    def switch(self, ladder: str, rung: str, for_s: float | None = None, force: bool = False) -> SwitchReport | None:
        """Hold a rung (for `for_s` seconds, or without a limit), or with "auto" let the governor choose; None when
        nothing had to be switched. A report whose target is not `rung` says that a limit of temperature or memory
        stands against it for now; `force` holds it nonetheless."""
        body = msgspec.json.encode(RungOrder(rung=rung, for_s=for_s, force=force))
        reply, _ = self._ask("POST", f"/control/ladders/{_name(ladder)}/rung", body)
        return None if reply == b"{}" else self._decode(reply, SwitchReport)

    def reload(self) -> ReloadReport:
        reply, _ = self._ask("POST", "/control/reload", b"")
        return self._decode(reply, ReloadReport)

    def record(self, seconds: float | None = None) -> Generator[bytes, None, None]:
        """What the governor sees and decides from now on, as whole JSON lines (docs/replay.md): for so long, or until
        the daemon ends it or the iterator is closed. Over a connection of its own. Raises UnavailableError while
        somebody else records."""
        end_s = None if seconds is None else time.monotonic() + seconds
        connection = _UnixConnection(self.socket_path, self._timeout_s)
        response, line = None, b""
        try:
            connection.request("GET", "/control/recording")
            sock = connection.sock
            response = connection.getresponse()
            if response.status >= 400:
                raise self._refused(response.status, response.read())
            while True:
                left_s = QUIET_S if end_s is None else min(QUIET_S, end_s - time.monotonic())
                if left_s <= 0:
                    return
                sock.settimeout(left_s)
                before, line = line, response.readline()
                if line:
                    yield line
                elif before.startswith(RECORDING_END):
                    return
                else:  # a broken connection reads like an end
                    raise http.client.IncompleteRead(b"")
        except (OSError, http.client.HTTPException) as error:
            if not isinstance(error, TimeoutError):
                raise self._unreachable(error) from None
            if end_s is None or time.monotonic() < end_s:
                raise ControlError(f"the daemon on {self.socket_path} has said nothing for {QUIET_S:g} s") from None
        finally:
            if response is not None:
                response.close()  # it holds the socket too
            connection.close()

    # ---------------------------------------------------------------------------------------------------- inference

    def infer(
        self, ladder: str, tensors: Sequence[Tensor], *, rung: str | None = None, timeout_s: float | None = None
    ) -> Answer:
        """The daemon's answer; `timing` is what the daemon measured, without the way over the socket."""
        parameters: dict[str, Any] = {"binary_data_output": True}
        if rung is not None:
            parameters["rung"] = rung
        if timeout_s is not None:
            parameters["timeout"] = max(1, round(timeout_s * 1e6))
        inputs = [
            {
                "name": t.name,
                "datatype": t.datatype,
                "shape": t.shape,
                "parameters": {"binary_data_size": len(memoryview(t.data))},
            }
            for t in tensors
        ]
        head = msgspec.json.encode({"inputs": inputs, "parameters": parameters})
        body = b"".join([head, *(t.data for t in tensors)])
        path = f"/v2/models/{_name(ladder)}/infer"
        reply, header_length = self._ask("POST", path, body, {"Inference-Header-Content-Length": str(len(head))})
        return self._answer(reply, header_length)

    def _answer(self, reply: bytes, header_length: int | None) -> Answer:
        view = memoryview(reply)
        head = self._decode(view[:header_length], _AnswerHead)
        tail = view[len(reply) if header_length is None else header_length :]
        p = head.parameters
        timing = Timing(
            queue_s=p.queue_ns / 1e9,
            pre_s=p.pre_ns / 1e9,
            run_s=p.run_ns / 1e9,
            post_s=p.post_ns / 1e9,
            total_s=p.total_ns / 1e9,
        )
        return Answer(outputs=tuple(_outputs(head.outputs, tail)), rung=p.rung, timing=timing)

    # ---------------------------------------------------------------------------------------------------- transport

    def _get(self, path: str, kind: type[T]) -> T:
        reply, _ = self._ask("GET", path, b"")
        return self._decode(reply, kind)

    def _decode(self, reply: bytes | memoryview, kind: type[T]) -> T:
        decoder: Any = msgspec.json.Decoder(kind)
        try:
            value: T = decoder.decode(reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ControlError(
                f"the daemon on {self.socket_path} answered something else than expected ({error}); "
                "is it of another version than this program?"
            ) from None
        return value

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[bytes, int | None]:
        """The reply's body, and the length of its JSON where binary tensors follow."""
        try:
            response, reply = self._exchange(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._unreachable(error) from None
        if response.status >= 400:
            raise self._refused(response.status, reply)
        length = response.headers.get("Inference-Header-Content-Length")
        return reply, None if length is None else int(length)

    def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        for may_retry in (self._connection.sock is not None, False):
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                return response, response.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A kept connection that the daemon closed in the meantime (idle, or restarted): once more on a new
                # one. The daemon closes only connections on which no request is under way.
                self._connection.close()
                if not may_retry:
                    raise
        raise AssertionError("unreachable: the second round returns or raises")

    def _refused(self, status: int, reply: bytes) -> FlyballError:
        try:
            text = msgspec.json.decode(reply, type=_Refusal).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = f"the daemon on {self.socket_path} answered with HTTP status {status}"
        return _BY_STATUS.get(status, ControlError)(text)

    def _unreachable(self, error: Exception) -> ControlError:
        path = self.socket_path
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            why = "there is no such socket" if isinstance(error, FileNotFoundError) else "nobody listens on it"
            return ControlError(
                f"the daemon is not running: {path}: {why}; start it with `systemctl start flyball` or `flyball run`"
            )
        if isinstance(error, PermissionError):
            return ControlError(f"{path}: permission denied; {_who_may(path)}")
        if isinstance(error, TimeoutError):
            return ControlError(f"the daemon on {path} did not answer within {self._timeout_s:.3g} s")
        reason = str(error) or type(error).__name__
        return ControlError(f"the connection to the daemon on {path} broke: {reason}")


def _name(ladder: str) -> str:
    """For a path. What can be no ladder's name is refused here, in clear words: ".." or "a/b" would be another path,
    and the daemon's answer about something else. Raises NotFoundError."""
    try:
        msgspec.convert(ladder, LadderName)
    except msgspec.ValidationError:
        raise errors.NotFoundError(
            f"{ladder!r} is no name of a ladder: expected 1 to 64 letters, digits, '.', '_' or '-' (`flyball ls` lists "
            "those in service)"
        ) from None
    return quote(ladder, safe="")


def _outputs(heads: Sequence[_Output], tail: memoryview) -> Iterator[Tensor]:
    position = 0
    for head in heads:
        end = position + head.parameters.binary_data_size
        yield Tensor(head.name, head.datatype, head.shape, tail[position:end])
        position = end


def _who_may(path: Path) -> str:
    try:
        gid = os.stat(path).st_gid
    except OSError:
        return f"you may not look into {path.parent}"
    try:
        name = grp.getgrgid(gid).gr_name
    except KeyError:
        name = str(gid)
    return f"members of the group {name!r} may use it (`sudo usermod -aG {name} $USER`, then log in again)"
