"""Ways to the broker that are not straight: WebSocket, TLS below it, an HTTP proxy."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_side import linked, until
from fleet_side import Fleet
from secure_broker import authority
from test_mqtt import WILL, Deaf, peer

from flyball import config
from flyball.errors import CredentialError, LinkError
from flyball.uplink import address
from flyball.uplink.connection import Connection
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def connect(broker: str, **more: Any) -> Connection:
    settings = config.Uplink(broker=broker, device="edge-1", **more)
    return await Connection.open(address.broker(settings, 1.0), WILL, Deaf())


class HttpProxy:
    """Tunnels to where it is asked to, and keeps what it was asked."""

    def __init__(self, password: str = "") -> None:
        self._password = password
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        if self._password and base64.b64encode(self._password.encode()).decode() not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
            return
        host, _, port = head.split(" ")[1].rpartition(":")
        try:
            up_reader, up_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def http_proxy(password: str = "") -> AsyncIterator[tuple[str, HttpProxy]]:
    proxy = HttpProxy(password)
    async with peer(proxy.serve) as port:
        yield f"http://127.0.0.1:{port}", proxy


def with_websocket(mosquitto: Mosquitto, lines: Sequence[str] = ()) -> int:
    port = free_port()
    mosquitto.stop()
    mosquitto.start([f"listener {port}", "protocol websockets", *lines])
    return port


async def test_a_session_over_a_websocket(mosquitto: Mosquitto, tmp_path: Path) -> None:
    port = with_websocket(mosquitto)
    with Fleet(mosquitto.port) as fleet:
        async with linked(port, tmp_path, broker=f"ws://127.0.0.1:{port}/mqtt"):
            await fleet.waits("status", lambda d: d["state"] == "ready")
            for number in range(12):
                fleet.order("ping", f"p{number}", {"echo": "x" * 4000})
            for number in range(12):
                await fleet.waits(f"cmd/ping/p{number}/st", lambda d: d["state"] == "successful")
        await fleet.waits("status", lambda d: d["state"] == "disconnected")


async def test_a_session_over_a_websocket_with_tls_through_a_proxy(mosquitto: Mosquitto, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    authority(pki, "edge-1")
    port = with_websocket(mosquitto, [f"certfile {pki}/server.crt", f"keyfile {pki}/server.key"])
    with Fleet(mosquitto.port) as fleet:
        async with http_proxy() as (url, proxy):
            more = {"tls": config.UplinkTls(ca_file=f"{pki}/ca.crt"), "proxy": url}
            async with linked(port, tmp_path, broker=f"wss://localhost:{port}", **more):
                await fleet.waits("status", lambda d: d["state"] == "ready")
                fleet.order("ping", "p", {"echo": "x" * 4000})
                await fleet.waits("cmd/ping/p/st", lambda d: d["state"] == "successful")
            assert proxy.asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n")


async def test_http_that_is_no_websocket() -> None:
    left = asyncio.Event()

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await reader.read()
        left.set()

    async with peer(page) as port:
        with pytest.raises(LinkError, match=rf"WebSocket at 127\.0\.0\.1:{port}/mqtt") as caught:
            await connect(f"ws://127.0.0.1:{port}")
        await asyncio.wait_for(left.wait(), 5)  # also while somebody still holds the error
        assert caught.value.code is None


async def test_through_a_proxy_with_a_password(mosquitto: Mosquitto, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass\n")
    more = {"proxy_username": "me", "proxy_password_file": str(secret)}
    async with http_proxy("me:pass") as (url, _):
        await (await connect(f"mqtt://127.0.0.1:{mosquitto.port}", proxy=url, **more)).close()
        secret.write_text("wrong-one")
        with pytest.raises(CredentialError, match=r"407.*uplink\.proxy") as caught:
            await connect(f"mqtt://127.0.0.1:{mosquitto.port}", proxy=url, **more)
        assert "wrong-one" not in str(caught.value)


async def test_a_proxy_that_cannot_reach_the_broker() -> None:
    async with http_proxy() as (url, _):
        with pytest.raises(LinkError, match=r"does not connect to 127\.0\.0\.1:\d+: HTTP/1\.1 502 Bad Gateway"):
            await connect(f"mqtt://127.0.0.1:{free_port()}", proxy=url)
    with pytest.raises(LinkError, match=r"no connection to proxy 127\.0\.0\.1"):
        await connect("mqtt://127.0.0.1", proxy=f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"x" * 20000],
    ids=["nothing", "ssh", "short", "long"],
)
async def test_a_proxy_that_is_none(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with peer(talk) as port:
        with pytest.raises(LinkError, match="proxy"):
            await connect("mqtt://broker.example", proxy=f"http://127.0.0.1:{port}")


async def test_a_proxy_that_says_nothing() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(talk) as port:
        with pytest.raises(LinkError, match="proxy"):
            await connect("mqtt://broker.example", proxy=f"http://127.0.0.1:{port}")


async def test_over_ipv6(mosquitto: Mosquitto) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    mosquitto.stop()
    mosquitto.start([f"listener {port} ::1"])
    await (await connect(f"mqtt://[::1]:{port}")).close()
    async with http_proxy() as (url, proxy):
        await (await connect(f"mqtt://[::1]:{port}", proxy=url)).close()
    assert proxy.asked[0].startswith(f"CONNECT [::1]:{port} ")


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "tls"),
    [
        ("mqtt://a", "a", 1883, None, False),
        ("mqtts://a", "a", 8883, None, True),
        ("mqtts://a:443", "a", 443, None, True),
        ("ws://a", "a", 80, "/mqtt", False),
        ("wss://a/x/y?z=1", "a", 443, "/x/y", True),
        ("mqtt://[fe80::1]:7", "fe80::1", 7, None, False),
    ],
)
def test_addresses(url: str, host: str, port: int, path: str | None, tls: bool) -> None:
    made = address.broker(config.Uplink(broker=url), 1.0)
    assert (made.host, made.port, made.path, made.tls is not None) == (host, port, path, tls)


def test_what_is_watched() -> None:
    settings = config.Uplink(
        broker="mqtts://a",
        username="u",
        password_file="/p",
        tls=config.UplinkTls(certificate_file="/c", key_file="/k"),
    )
    assert address.watched_files(settings) == ("/c", "/k", "/p")


async def test_giving_up_wakes_the_thread_that_waits_for_a_proxy() -> None:
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1):
                writer.write(b"x")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with peer(drip) as port:
        settings = address.broker(config.Uplink(broker="mqtt://a.example", proxy=f"http://127.0.0.1:{port}"), 1.0)
        with pytest.raises(LinkError, match="is not reached in"):
            await Connection.open(replace(settings, resolve_timeout_s=-2.9), WILL, Deaf())
        await until(gone.is_set)
