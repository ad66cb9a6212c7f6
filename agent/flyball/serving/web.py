"""Routes, replies and the error boundary of the HTTP interfaces: the one module that knows Starlette.

ASGI -> Route -> handler(Ask) -> Reply -> ASGI;  every error becomes {"error": "..."} here

A FlyballError tells its own status and text. Anything else is a fault of ours: logged with its trace, and the caller
reads only that it happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp as Asgi
from starlette.types import Receive, Scope, Send

from flyball.errors import FlyballError
from flyball.serving.body import ClientGone, Intake

__all__ = [
    "STOPPING", "Asgi", "Ask", "Endpoint", "Receive", "Reply", "Scope", "Send",
    "error_reply", "json_reply", "refuse", "router", "send",
]  # fmt: skip

log = logging.getLogger(__name__)

_SMALL_BODY = 64 << 10  # bytes; requests other than inference are a line or two
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to an endpoint: the parts of its path in braces, its query, and its (small) body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Reply:
    """`stream` stands in place of the body where that comes piece by piece; it is closed in any case."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    stream: AsyncGenerator[bytes, None] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    handler: Callable[[Ask], Awaitable[Reply]]


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(_encoder.encode(value), status)


def error_reply(status: int, text: str) -> Reply:
    return json_reply({"error": text}, status)


STOPPING = error_reply(503, "the daemon is stopping")  # to what it cancels at the end of the drain


def refuse(error: Exception, where: str) -> Reply:
    """The reply to a request that ended in `error`."""
    if isinstance(error, FlyballError):
        return error_reply(error.http_status, str(error))
    log.error("a fault while answering %s", where, exc_info=error)
    return error_reply(500, "an internal fault; the daemon's log has the details")


async def send(respond: Send, reply: Reply) -> None:
    length = (b"content-length", str(len(reply.body)).encode())
    await respond({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, length]})
    await respond({"type": "http.response.body", "body": reply.body})


def router(endpoints: Sequence[Endpoint]) -> Asgi:
    """An ASGI app of `endpoints`; other paths are 404, other methods 405."""
    intake = Intake(16 * _SMALL_BODY)
    routes = [Route(e.path, _adapt(e.handler, intake), methods=[e.method]) for e in endpoints]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_exception})
    app.router.redirect_slashes = False
    return app


def _adapt(handler: Callable[[Ask], Awaitable[Reply]], intake: Intake) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            declared = request.headers.get("content-length", "0" if request.method in ("GET", "HEAD") else None)
            body = await intake.read(request.receive, None if declared is None else int(declared), _SMALL_BODY)
            try:
                reply = await handler(Ask(request.path_params, request.query_params, request.headers, body))
            finally:
                intake.release(body)
        except asyncio.CancelledError:
            reply = STOPPING
        except ClientGone:
            reply = error_reply(400, "the request's body ended early")  # nobody is left to read it
        except Exception as error:
            # The boundary of one request: no fault of a handler may reach the server.
            reply = refuse(error, f"{request.method} {request.url.path}")
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        if reply.stream is not None:
            return _Stream(reply.stream, reply.status, headers)
        return Response(reply.body, reply.status, headers)

    return endpoint


class _Stream(StreamingResponse):
    """One whose client may go away between two pieces."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(pieces, status, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            pass  # its client has gone, or the drain is over; uvicorn would log what it is told of either
        finally:
            await self._pieces.aclose()


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # what it is registered for
    path = request.url.path
    texts: dict[int, str] = {
        404: f"nothing is served under {path:.200}",
        405: f"{request.method} does not go with {path:.200}",
    }
    reply = error_reply(error.status_code, texts.get(error.status_code, error.detail))
    headers: dict[str, Any] = {"content-type": "application/json", **(error.headers or {})}
    return Response(reply.body, reply.status, headers)
