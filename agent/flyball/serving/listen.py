"""Runs HTTP listeners inside the daemon's event loop: the one module that knows uvicorn.

bound socket + ASGI app -> Listeners.start -> connections -> app;  stop: no new ones, those in flight answered

uvicorn's protocol class is used without its Server: that one ticks ten times a second, per server, to renew a Date
header that we do not send (boards often have no valid clock), which would be most of the daemon's idle wake-ups. With
nothing to do, nothing here runs. Every wait for a client has an end: for its first byte, for a whole request, for the
next request, and for the drain at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from flyball.serving.web import Asgi, Receive, Scope, Send

log = logging.getLogger(__name__)

_BACKLOG = 128
_HIGH_WATER = 256 << 10  # bytes of a body that wait for the app before the socket is left alone; uvloop's read size
_PIPELINE_MAX = 16  # requests that one connection may have waiting for the answer to an earlier one
_OVERHEAD_MAX = 128 << 10  # the parser keeps headers without a limit of its own
_ERROR = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and for how many. `request_s`: for a whole request to arrive, from its first byte."""

    keep_alive_s: int = 75
    request_s: float = 60.0
    drain_s: float = 10.0
    connections: int = 128  # per listener


@dataclass(frozen=True, slots=True)
class Listener:
    sockets: Sequence[socket.socket]  # bound
    app: Asgi


class Listeners:
    """`async with Listeners([...])`, or start and stop."""

    def __init__(self, listeners: Sequence[Listener], patience: Patience = Patience()) -> None:
        self._listeners = listeners
        self._patience = patience
        self._doors: list[_Door] = []
        self._servers: list[asyncio.AbstractServer] = []

    async def start(self) -> None:
        """Must run in the event loop that will serve."""
        _let_heap_keep_bodies()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            door = _Door(listener.app, self._patience)
            self._doors.append(door)
            for sock in listener.sockets:
                if sock.family == socket.AF_UNIX:
                    server: asyncio.AbstractServer = await loop.create_unix_server(
                        door.protocol, sock=sock, backlog=_BACKLOG
                    )
                else:
                    server = await loop.create_server(door.protocol, sock=sock, backlog=_BACKLOG)
                self._servers.append(server)

    async def stop(self) -> None:
        """Takes no new connection or request; those in flight have drain_s to be answered."""
        for server in self._servers:
            server.close()
        for door in self._doors:
            for connection in list(door.state.connections):
                connection.shutdown()
        deadline_s = asyncio.get_running_loop().time() + self._patience.drain_s
        tasks = [task for door in self._doors for task in door.state.tasks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._patience.drain_s)
            if late:
                log.warning(
                    "%d requests were still unanswered after %.3g s; cut off", len(late), self._patience.drain_s
                )
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        # Answers that are written but not yet taken: only the clients know when.
        for door in self._doors:
            left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(door.empty.wait(), left_s)
            for connection in list(door.state.connections):
                connection.transport.abort()
        self._servers.clear()
        self._doors.clear()

    async def __aenter__(self) -> Listeners:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _let_heap_keep_bodies() -> None:
    """One large block, freed at once, lifts glibc's dynamic threshold above the size of usual bodies (mallopt(3)).

    Below it every buffer of a body comes from and returns to the kernel, and its page faults are most of a request's
    time: measured with 602 KB, 0.77 ms before and 0.20 ms after. It may keep 4 MiB free for the next one.
    """
    bytearray(2 << 20)


class _Door:
    """What the connections of one listener share."""

    def __init__(self, app: Asgi, patience: Patience) -> None:
        self.patience = patience
        self.state = ServerState()
        self.full = False
        self.empty = asyncio.Event()
        self.empty.set()
        self.config = Config(
            app,
            http=HttpToolsProtocol,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=patience.keep_alive_s,
        )
        self.config.load()

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def admit(self, newest: _Connection) -> bool:
        """Whether the newest connection may stay: where all places are taken, the one that has been idle for longest
        makes room for it, so that nobody keeps others out by holding connections open. The end of a shortage is told
        once a quarter is free again, so that nobody can fill the log by connecting at the limit."""
        limit, count = self.patience.connections, len(self.state.connections)
        if self.full and count <= limit * 3 // 4:
            self.full = False
            log.info("connections on %s are few again", newest.server)
        if count <= limit:
            return True
        if not self.full:
            self.full = True
            log.warning("%d connections are open on %s: closing idle ones, else refusing more", limit, newest.server)
        others = (c for c in self.state.connections if c is not newest and isinstance(c, _Connection))
        idle = [c for c in others if c.idle_since_s is not None]
        if not idle:
            return False
        min(idle, key=lambda c: c.idle_since_s or 0.0).leave()
        return True


class _Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, with deadlines for clients that send slowly or not at all, refusals in JSON,
    and no log line that a client could cause at will."""

    def __init__(self, door: _Door) -> None:
        super().__init__(config=door.config, server_state=door.state, app_state={})
        self._door = door
        self._whole_app = self.app
        self.app = self._serve
        self._serving: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._overhead = 0  # bytes of this request that are not its body: headers, trailers, chunk sizes
        self.idle_since_s: float | None = None  # monotonic; None while a request arrives or is answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it
        super().connection_made(transport)
        self._door.empty.clear()
        self.idle_since_s = time.monotonic()
        if self._door.admit(self):
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self._refuse(b"503 Service Unavailable", b'{"error":"too many connections; close some, or retry later"}')

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._end_deadline()
        for task in self._serving:
            task.cancel()  # nobody is left to take the answer
        super().connection_lost(exc)
        if not self.connections:
            self._door.empty.set()

    def leave(self) -> None:
        """Called while idle: its client connects again with the next request."""
        self.connections.discard(self)  # its place is free from now on, whenever the transport has ended
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline is None and not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self.idle_since_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self.idle_since_s = None
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._door.patience.request_s, self._too_slow)
        self._overhead += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded. A request without a body is answered, and then the connection ends; of one with a
            # body (`curl --http2 -d`) the parser does not read the body.
            self.cycle.keep_alive = False
            if any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
                self.cycle.more_body = True
                self._refuse(b"501 Not Implemented", b'{"error":"no protocol upgrade here: use plain HTTP/1.1"}')
            elif self.cycle.response_complete:
                self.transport.close()
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request", b'{"error":"not a valid HTTP/1.1 request"}')
        else:
            if len(self.pipeline) > _PIPELINE_MAX:
                self.pipeline.clear()
                self.transport.close()
            elif self._overhead > _OVERHEAD_MAX:
                self._refuse(b"431 Request Header Fields Too Large", b'{"error":"too many or too long headers"}')

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn narrows it
        # A client may close its side once it has sent everything, and still wait for its answer. Of one that has begun
        # to hear it, it is the end: an answer that goes on until its client leaves would learn of that when it writes.
        cycle = self.cycle
        if cycle is None or cycle.response_started or cycle.response_complete or cycle.more_body:
            return None
        cycle.keep_alive = False
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._whole_app(scope, receive, send)
        finally:
            self._serving.discard(task)

    def on_message_begin(self) -> None:
        # Also of one that was sent before the answer to the last: on_message_complete has ended that one's deadline.
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._door.patience.request_s, self._too_slow)
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        # uvicorn would append to a bytearray and copy that again for the app: at 150 KB a third of the request's time.
        cycle = self.cycle
        self._overhead -= len(body)
        if cycle.response_complete:
            return
        cycle.body = cycle.body + body if cycle.body else body  # type: ignore[assignment]  # bytes do as well
        if len(cycle.body) > _HIGH_WATER:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._end_deadline()
        self._overhead = 0
        super().on_message_complete()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(b"408 Request Timeout", b'{"error":"the request did not arrive in time"}')

    def _refuse(self, status: bytes, body: bytes) -> None:
        """Ends the connection, with a last word where that cannot be taken for the answer to an earlier request."""
        cycle = self.cycle
        arriving = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if arriving:
            cycle.disconnected = True  # its app stops
            cycle.message_event.set()
        if arriving or cycle is None or cycle.response_complete:
            self.transport.write(_ERROR % (status, len(body), body))
        self.transport.close()
