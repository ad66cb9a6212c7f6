"""The Open Inference Protocol over HTTP, the same on TCP and on the control socket.

ASGI -> inference.decode -> Ladder.infer -> response.encode -> ASGI      (POST .../infer, straight)
ASGI -> web.router -> description -> JSON                                 (everything else)

Inference does not go through the router: at tens of microseconds in the engine, matching routes and building request
objects would be a good part of the answer's time. Nothing is logged per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from flyball import __version__
from flyball.errors import ForbiddenError, NotFoundError, RequestError, UnsupportedEncodingError
from flyball.ports import Catalog, Ladder
from flyball.serving.body import ClientGone, Intake
from flyball.serving.description import ServerMetadata, answers, config, index, metadata, statistics
from flyball.serving.inference import Call, decode
from flyball.serving.rate import RateLimit
from flyball.serving.response import Encoded, encode
from flyball.serving.web import (
    STOPPING,
    Asgi,
    Ask,
    Endpoint,
    Receive,
    Reply,
    Scope,
    Send,
    json_reply,
    refuse,
    router,
    send,
)

JSON_EXPANSION = 8  # characters per byte of a tensor: FP16 needs up to 8 ("-0.00012207,"), UINT8 up to 5 ("255, ")
JSON_MAX_BYTES = 16 << 20  # converting takes four times that in memory; more belongs into binary tensors
HEADER_ALLOWANCE = 64 << 10  # bytes for the JSON before binary tensors
_ASIDE_BYTES = 1 << 20  # JSON from here on is converted in a thread, or it would hold up everything else
_PREFIX = "/v2/models/"
_JSON_HEADERS = (b"content-type", b"application/json")
_BINARY_HEADERS = (b"content-type", b"application/octet-stream")


class Exposition(Protocol):
    """The metrics page."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that `accept` (a header's value, may be "") prefers."""
        ...


class HttpApi:
    """An ASGI app. `max_input_bytes` tells the limit of a ladder in service; `allow_pin` whether callers may name a
    rung; `rate` how many requests one of them may send; `more` are endpoints that only this listener has."""

    def __init__(
        self,
        catalog: Catalog,
        exposition: Exposition,
        max_input_bytes: Callable[[str], int],
        intake: Intake,
        *,
        allow_pin: bool,
        rate: RateLimit | None = None,
        more: Sequence[Endpoint] = (),
    ) -> None:
        self._catalog = catalog
        self._max_input_bytes = max_input_bytes
        self._intake = intake
        self._allow_pin = allow_pin
        self._rate = rate
        self._rest = router([*_Reads(catalog).endpoints(), metrics_endpoint(exposition), *more])

    async def __call__(self, scope: Scope, receive: Receive, respond: Send) -> None:
        path: str = scope["path"]
        if path.endswith("/infer") and path.startswith(_PREFIX) and scope["method"] == "POST":
            parts = path[len(_PREFIX) : -len("/infer")].split("/")
            if len(parts) == 1:
                await self._infer(parts[0], None, scope, receive, respond)
                return
            if len(parts) == 3 and parts[1] == "versions":
                await self._infer(parts[0], parts[2], scope, receive, respond)
                return
        await self._rest(scope, receive, respond)

    async def _infer(self, name: str, version: str | None, scope: Scope, receive: Receive, respond: Send) -> None:
        try:
            if self._rate is not None:
                self._rate.take(_client(scope))
            ladder = self._catalog.get(name, version)
            declared, header_length = _lengths(scope)
            limit = self._limit(name, header_length)
            body = await self._intake.read(receive, declared, limit)
            try:
                ladder = self._catalog.get(name, version)  # while the body came, a new version may have replaced it
                call = await self._call(ladder, body, header_length)
                ladder = self._catalog.get(name, version)  # and again while a large body was decoded in a thread
                encoded = await self._answer(ladder, call)
            finally:
                self._intake.release(body)
        except ClientGone:
            return
        except asyncio.CancelledError:
            await send(respond, STOPPING)
            return
        except Exception as error:
            # The boundary of one request: whatever goes wrong in it becomes its own reply.
            await send(respond, refuse(error, scope["path"]))
            return
        headers = [(b"content-length", b"%d" % len(encoded.body))]
        if encoded.header_length is None:
            headers.append(_JSON_HEADERS)
        else:
            headers += (_BINARY_HEADERS, (b"inference-header-content-length", b"%d" % encoded.header_length))
        await respond({"type": "http.response.start", "status": 200, "headers": headers})
        await respond({"type": "http.response.body", "body": encoded.body})

    async def _call(self, ladder: Ladder, body: bytes | bytearray, header_length: int | None) -> Call:
        if header_length is None and len(body) >= _ASIDE_BYTES:
            call = await asyncio.to_thread(decode, body, header_length, ladder.interface)
        else:
            call = decode(body, header_length, ladder.interface)
        if call.request.rung is not None and not self._allow_pin:
            raise ForbiddenError(
                "parameters.rung: this listener does not let callers name a rung (serving.allow_pin); "
                "the control socket does"
            )
        return call

    async def _answer(self, ladder: Ladder, call: Call) -> Encoded:
        answer = await ladder.infer(call.request)
        if _json_bytes(call, [(t.name, len(memoryview(t.data))) for t in answer.outputs]) * 4 >= _ASIDE_BYTES:
            return await asyncio.to_thread(encode, answer, call, ladder.name, ladder.version)
        return encode(answer, call, ladder.name, ladder.version)

    def _limit(self, name: str, header_length: int | None) -> int:
        largest = self._max_input_bytes(name)
        if header_length is not None:
            return largest + HEADER_ALLOWANCE
        return min(largest * JSON_EXPANSION, JSON_MAX_BYTES) + HEADER_ALLOWANCE


def _client(scope: Scope) -> str:
    """The caller's address: one machine, one bucket."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _json_bytes(call: Call, sizes: Sequence[tuple[str, int]]) -> int:
    binary = dict(call.outputs)
    return sum(size for name, size in sizes if not binary.get(name, True))


def _lengths(scope: Scope) -> tuple[int | None, int | None]:
    """Content-Length and Inference-Header-Content-Length; None where the header is absent. Raises RequestError."""
    declared = header_length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            declared = _number(name, value)
        elif name == b"inference-header-content-length":
            if header_length is not None:
                raise RequestError("the header Inference-Header-Content-Length stands more than once")
            header_length = _number(name, value)
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedEncodingError(
                f"Content-Encoding {value[:40].decode('latin-1')!r} is not supported: send the body uncompressed"
            )
    return declared, header_length


def _number(name: bytes, value: bytes) -> int:
    # isdigit() alone: int() would also take "+1", "1_0" and blanks.
    if not value.isdigit() or len(value) > 18:
        raise RequestError(f"the header {name.decode()}: expected a number of bytes, found {value[:40]!r}")
    return int(value)


class _RepositoryFilter(msgspec.Struct):
    ready: bool = False


class _Reads:
    """Everything that only looks."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def endpoints(self) -> list[Endpoint]:
        found = [
            Endpoint("GET", "/v2", self.server),
            Endpoint("GET", "/v2/health/live", self.live),
            Endpoint("GET", "/v2/health/ready", self.ready),
            Endpoint("GET", "/v2/models/stats", self.all_statistics),
            Endpoint("POST", "/v2/repository/index", self.index),
        ]
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                Endpoint("GET", path, self.metadata),
                Endpoint("GET", path + "/ready", self.model_ready),
                Endpoint("GET", path + "/config", self.config),
                Endpoint("GET", path + "/stats", self.statistics),
                Endpoint("POST", path + "/infer", _never),  # HttpApi takes these; here it makes other methods a 405
            ]
        return found

    def _ladder(self, ask: Ask) -> Ladder:
        return self._catalog.get(ask.path["model"], ask.path.get("version"))

    async def server(self, ask: Ask) -> Reply:
        return json_reply(ServerMetadata("flyball", __version__))

    async def live(self, ask: Ask) -> Reply:
        return json_reply({"live": True})

    async def ready(self, ask: Ask) -> Reply:
        ready = all(answers(ladder.status()) for ladder in self._catalog.ladders())
        # The specification's ready object has "live" in it; both words are there.
        return json_reply({"live": True, "ready": ready}, 200 if ready else 503)

    async def model_ready(self, ask: Ask) -> Reply:
        status = self._ladder(ask).status()
        ready = answers(status)
        return json_reply({"name": status.name, "ready": ready}, 200 if ready else 503)

    async def metadata(self, ask: Ask) -> Reply:
        return json_reply(metadata(self._ladder(ask)))

    async def config(self, ask: Ask) -> Reply:
        return json_reply(config(self._ladder(ask)))

    async def statistics(self, ask: Ask) -> Reply:
        return json_reply(statistics([self._ladder(ask)]))

    async def all_statistics(self, ask: Ask) -> Reply:
        return json_reply(statistics(self._catalog.ladders()))

    async def index(self, ask: Ask) -> Reply:
        try:
            wanted = msgspec.json.decode(ask.body, type=_RepositoryFilter) if ask.body else _RepositoryFilter()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f'the request\'s body: expected nothing or {{"ready": true}}: {error}') from None
        return json_reply(index(self._catalog.ladders(), wanted.ready))


async def _never(ask: Ask) -> Reply:
    raise NotFoundError("nothing is served here")


def metrics_endpoint(exposition: Exposition) -> Endpoint:
    async def metrics(ask: Ask) -> Reply:
        page, content_type = exposition.render(ask.headers.get("accept", ""))
        return Reply(page, 200, ((b"content-type", content_type.encode()),))

    return Endpoint("GET", "/metrics", metrics)


def metrics_app(exposition: Exposition) -> Asgi:
    """An app of the metrics page alone, for a listener of its own."""
    return router([metrics_endpoint(exposition)])
