"""The way to the broker: a TCP connection, straight or through an HTTP proxy.

Settings -> dial (resolve, connect, CONNECT) -> socket, or LinkError that says how far it came

Blocking, and therefore run by `in_thread` in a short-lived thread of its own. Knows nothing of MQTT; TLS and WebSocket
are put on top by others.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flyball.errors import CredentialError, LinkError
from flyball.uplink.tls import Tls

MOST_ANSWER = 16 * 1024  # of a proxy, before the tunnel begins

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """An HTTP proxy that tunnels (CONNECT)."""

    host: str
    port: int
    username: str = ""
    password_file: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One broker and who we are there. `path` is that of a WebSocket, None for plain TCP."""

    host: str
    port: int
    client_id: str
    keepalive_s: int
    connect_timeout_s: float
    resolve_timeout_s: float = 30.0  # what a resolver may take by itself
    username: str = ""
    password_file: str = ""  # read at every attempt, so that a new password needs no restart
    path: str | None = None
    tls: Tls | None = None
    proxy: Proxy | None = None

    @property
    def server_name(self) -> str:
        """The name in the broker's certificate."""
        return (self.tls.server_name if self.tls is not None else "") or self.host


def dial(settings: Settings) -> socket.socket:
    """Connected, with the timeout still set. Raises LinkError."""
    proxy = settings.proxy
    host, port, what = (proxy.host, proxy.port, "proxy") if proxy else (settings.host, settings.port, "broker")
    try:
        sock = socket.create_connection((host, port), timeout=settings.connect_timeout_s)
    except socket.gaierror as error:
        raise LinkError(f"the {what}'s name {host!r} cannot be resolved: {error.strerror}") from error
    except OSError as error:
        raise LinkError(f"no connection to {what} {host}:{port}: {error.strerror or error}") from error
    try:
        # Small packets that wait for each other's acknowledgement are what Nagle's algorithm is worst at.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A peer that vanished without a word is noticed as soon as something was sent to it for so long (tcp(7));
            # the default is 15 to 25 minutes of retransmission.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.keepalive_s * 1000)
        if proxy is not None:
            _tunnel(sock, proxy, settings)
    except BaseException:
        sock.close()
        raise
    return sock


def secret(file: str, key: str) -> str | None:
    """The file's text without its line end; None where no file is named. Raises CredentialError."""
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"{key}: {file} cannot be read: {error}") from error


def _tunnel(sock: socket.socket, proxy: Proxy, settings: Settings) -> None:
    """RFC 9110, 9.3.6."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    lines = [f"CONNECT {host}:{settings.port} HTTP/1.1", f"Host: {host}:{settings.port}"]
    if proxy.username:
        password = secret(proxy.password_file, "uplink.proxy_password_file") or ""
        token = base64.b64encode(f"{proxy.username}:{password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    where = f"the proxy {proxy.host}:{proxy.port}"
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        status = _status_line(sock, time.monotonic() + settings.connect_timeout_s)
    except OSError as error:
        raise LinkError(f"{where} took the connection and then broke off: {error.strerror or error}") from error
    code = status.split(" ", 2)[1:2]
    if not status.startswith("HTTP/1.") or not code:
        raise LinkError(f"{where} answers {status[:60]!r}: expected an HTTP proxy (uplink.proxy)")
    if code[0] == "407":
        raise CredentialError(f"{where} wants a user name and password, or others: {status[:80]} (uplink.proxy)")
    if not code[0].startswith("2"):
        raise LinkError(f"{where} does not connect to {host}:{settings.port}: {status[:80]}")


def _status_line(sock: socket.socket, deadline_s: float) -> str:
    """The first line of the answer, all of whose header is read: byte by byte, since what follows is the broker's."""
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte or len(answer) > MOST_ANSWER or time.monotonic() > deadline_s:
            raise ConnectionError("no complete answer")
        answer += byte
    return answer.split(b"\r\n", 1)[0].decode("latin-1")


async def in_thread(work: Callable[[], T], discard: Callable[[T], None], limit_s: float) -> T:
    """The result of blocking work, in a thread of its own that the interpreter does not wait for at its end: it may
    sit in a resolver for half a minute. A result for which nobody waits any more is discarded. Raises
    asyncio.TimeoutError."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if error is None and result is not None:
            discard(result) if future.done() else future.set_result(result)
        elif error is not None and not future.done():
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # every kind, or the waiting side would wait for ever
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop has ended
            if result is not None:
                discard(result)

    threading.Thread(target=run, name="flyball-connect", daemon=True).start()
    try:
        await asyncio.wait({future}, timeout=limit_s)  # not wait_for(), which may swallow a cancellation (before 3.12)
    except asyncio.CancelledError:
        if future.done() and future.exception() is None:
            discard(future.result())  # delivered in the moment in which the waiting side left
        raise
    finally:
        future.cancel()  # what comes from now on is discarded
    if future.cancelled():
        raise asyncio.TimeoutError
    return future.result()
