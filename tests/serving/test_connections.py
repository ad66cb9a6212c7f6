"""Clients that are broken, slow or hostile, on real sockets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from served import LIMIT, Served, World, infer_body

from flyball.ports import InferRequest, Tensor
from flyball.serving.listen import Patience

ECHO = "/v2/models/echo/infer"
X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.1, -2]}
JSON = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}).encode()


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", path: str = ECHO) -> bytes:
    lines = [b"POST %s HTTP/%s" % (path.encode(), version), b"Host: localhost", *headers]
    if not any(h.lower().startswith((b"content-length", b"transfer-encoding")) for h in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def statuses(received: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        threading.Event().wait(0.005)


def close(request: bytes) -> bytes:
    return request.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1)


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with_id = [JSON[:-1] + b',"id":"%d"}' % i for i in range(5)]
    requests = [post(body) for body in with_id]
    received = served.raw(b"".join(requests))
    assert statuses(received) == [200] * 5
    assert [part[0:1] for part in received.split(b'"id":"')[1:]] == [b"0", b"1", b"2", b"3", b"4"]


def test_http_1_0(served: Served) -> None:
    assert statuses(served.raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")) == [200]
    assert statuses(served.raw(post(JSON, version=b"1.0"))) == [200]


def test_a_chunked_upload(served: Served) -> None:
    pieces = [JSON[i : i + 7] for i in range(0, len(JSON), 7)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    assert statuses(served.raw(close(post(body, b"Transfer-Encoding: chunked")))) == [200]


def test_a_chunked_upload_has_the_same_limit(world: World, served: Served) -> None:
    chunk = b"%x\r\n%b\r\n" % (65536, bytes(65536))
    request = post(b"", b"Transfer-Encoding: chunked", b"Inference-Header-Content-Length: 4")
    received = served.raw(request, chunk * (LIMIT // 65536 + 4) + b"0\r\n\r\n")
    assert statuses(received) == [413]
    assert world.intake.held_bytes == 0


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (b"-1", 400),
        (b"12x", 400),
        (b"1 2", 400),
        (b"99999999999999999999999", 400),
        (b"9999999999", 413),
        (b"1\r\nContent-Length: 2", 400),
    ],
)
def test_bad_content_lengths(served: Served, length: bytes, status: int) -> None:
    assert statuses(served.raw(close(post(JSON, b"Content-Length: " + length)))) == [status]


def test_both_lengths_at_once_are_refused(served: Served) -> None:
    request = post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked")
    assert statuses(served.raw(request)) == [400]


@pytest.mark.parametrize("length", [b"-1", b"+4", b"1_0", b"x", b"", b"4\r\nInference-Header-Content-Length: 4"])
def test_bad_header_lengths(served: Served, length: bytes) -> None:
    received = served.raw(close(post(JSON, b"Inference-Header-Content-Length: " + length)))
    assert statuses(received) == [400]
    assert b"error" in received


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"HELLO\r\n\r\n", b"GET /v2 HTTP/1.1\r\nA\0: b\r\n\r\n"],
)
def test_garbage_is_a_400_in_json(served: Served, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    received = served.raw(garbage)
    assert statuses(received) == [400]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert caplog.records == []


def test_bytes_in_the_path_that_are_not_ascii(served: Served) -> None:
    assert statuses(served.raw(b"GET /v2/\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n")) in ([400], [404])
    assert statuses(served.raw(b"GET /v2/%C3%A9%FF%00 HTTP/1.1\r\nHost: localhost\r\n\r\n")) == [404]


@pytest.mark.parametrize("piece", [b"A: " + b"x" * 30_000 + b"\r\n", b"x" * 30_000], ids=["many", "one"])
@pytest.mark.parametrize("where", ["headers", "trailers", "chunk extensions"])
def test_endless_headers_are_cut_off(served: Served, where: str, piece: bytes) -> None:
    start = {
        "headers": b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nB: ",
        "trailers": post(b"2\r\n{}\r\n0\r\nB: ", b"Transfer-Encoding: chunked"),
        "chunk extensions": post(b"2;a=", b"Transfer-Encoding: chunked"),
    }[where]
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(start)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            connection.sendall(piece * 2000)


def test_10_mb_of_brackets(served: Served) -> None:
    served.json("POST", ECHO, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]})
    assert "larger" in served.error(413, "POST", ECHO, b"[" * 10_000_000)
    assert "nested too deeply" in served.error(400, "POST", ECHO, b'{"more":' + b"[" * 1_000_000)


def test_a_body_that_ends_early_leaves_nothing(world: World, served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(post(JSON + bytes(100_000), b"Content-Length: 200000"))
        wait_until(lambda: 0 < world.intake.held_bytes < 200_000)  # what has come, not what was announced
    wait_until(lambda: world.intake.held_bytes == 0)
    assert world.ladders[1].requests == []


def test_announcing_large_bodies_without_sending_them_keeps_nobody_out(world: World, served: Served) -> None:
    """Four packets of some hundred bytes, with the deadline of the request before them already ended."""
    first = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as open_ones:
        for _ in range(12):
            one = open_ones.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            one.sendall(first + post(b"{", b"Content-Length: 1000000"))
        time.sleep(0.2)
        served.json("POST", ECHO, {"inputs": [X]})
    wait_until(lambda: world.intake.held_bytes == 0)


def test_a_connection_with_many_requests_ahead_of_its_answers_is_closed(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as greedy:
        greedy.settimeout(5)
        request = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with contextlib.suppress(OSError):
            greedy.sendall(request * 5000)
            while greedy.recv(1 << 16):
                pass
        with contextlib.suppress(OSError):
            assert greedy.recv(1) == b""
    served.json("POST", ECHO, {"inputs": [X]})


def test_a_client_that_leaves_before_the_answer_harms_nobody(
    world: World, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(request: InferRequest) -> tuple[Tensor, ...]:
        asked.set()
        assert go_on.wait(10)
        return request.inputs

    world.ladders[1].respond = slowly
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(post(JSON))
        assert asked.wait(5)
    go_on.set()
    wait_until(lambda: world.intake.held_bytes == 0)
    served.json("GET", "/v2/health/live")
    assert caplog.records == []


def test_slow_clients_hold_up_nobody_and_are_cut_off(serve: Callable[..., Served]) -> None:
    served = serve(Patience(request_s=1, drain_s=1))
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(20)]
    for index, connection in enumerate(slow):
        connection.sendall(b"POST /v2" if index % 2 else post(JSON, b"Content-Length: 5000"))
    started_s = time.monotonic()
    body, headers = infer_body("x", "FP32", [1], bytes(4))
    assert served.ask("POST", ECHO, body, headers)[0].status == 200
    assert time.monotonic() - started_s < 0.5
    for connection in slow:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert connection.recv(1000) == b""
        connection.close()


def test_a_connection_without_a_word_is_closed(serve: Callable[..., Served]) -> None:
    served = serve(Patience(keep_alive_s=1, drain_s=1))
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        assert connection.recv(10) == b""


GET = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_connections_are_bounded_and_that_is_said_once(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(Patience(connections=3, drain_s=1))
    busy = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(3)]
    for connection in busy:
        connection.sendall(GET[:-2])  # a request is on its way on each, so that none may be closed for another
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 503")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    for connection in busy:
        connection.close()

    def taken() -> bool:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(GET)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")

    wait_until(taken)


def test_the_longest_idle_connection_makes_room(serve: Callable[..., Served]) -> None:
    served = serve(Patience(connections=3, drain_s=1))
    held = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(3)]
    for connection in (held[1], held[0], held[2]):
        connection.sendall(GET)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as newcomer:
        newcomer.sendall(GET)
        assert newcomer.recv(4096).startswith(b"HTTP/1.1 200")
        assert held[1].recv(10) == b"", "it was idle for longest"
        for connection in (held[0], held[2]):
            connection.sendall(GET)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    for connection in held:
        connection.close()


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_an_upgrade_is_not_followed(served: Served, upgrade: bytes) -> None:
    lines = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: " + upgrade
    get = b"GET /v2/health/live HTTP/1.1\r\n" + lines + b"\r\n\r\n"
    assert statuses(served.raw(get)) == [200]
    assert statuses(served.raw(get + b"\x00\xff more of another protocol")) == [200]
    received = served.raw(post(JSON, b"Connection: Upgrade", b"Upgrade: " + upgrade))
    assert statuses(received) == [501]
    assert b"plain HTTP/1.1" in received


def test_garbage_after_a_request_is_not_its_answer(served: Served) -> None:
    assert statuses(served.raw(post(JSON) + b"\0\0garbage\r\n\r\n")) in ([], [200])


def test_connect_is_not_followed(served: Served) -> None:
    received = served.raw(b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert statuses(received) in ([400], [404], [405])


def test_a_request_in_flight_is_answered_before_the_end(world: World, serve: Callable[..., Served]) -> None:
    served = serve(Patience(drain_s=5))
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(post(JSON, b"Content-Length: %d" % len(JSON))[:-10])
        idle = socket.create_connection(("127.0.0.1", served.port), timeout=10)
        idle.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(4096)
        wait_until(lambda: world.intake.held_bytes > 0)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        assert idle.recv(10) == b""
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            wait_until(lambda: not socket.create_connection(("127.0.0.1", served.port), timeout=1).close() and False)
        connection.sendall(JSON[-10:])
        assert statuses(connection.recv(65536)) == [200]
        assert connection.recv(10) == b""
        stopping.join(5)
    assert not stopping.is_alive()


def test_what_cannot_be_drained_is_cut_off(serve: Callable[..., Served], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(Patience(drain_s=0.2))
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(post(JSON, b"Content-Length: 5000"))
        body, headers = infer_body("x", "FP32", [1], bytes(4))
        served.ask("POST", ECHO, body, headers)
        started_s = time.monotonic()
        served.stop()
        assert time.monotonic() - started_s < 2
        assert "1 requests were still unanswered" in caplog.text
        assert connection.recv(10) == b"HTTP/1.1 5"
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_idle_listeners_do_not_wake_the_processor(served: Served) -> None:
    served.json("GET", "/v2/health/live")
    thread = Path(f"/proc/self/task/{served.thread_id}/status")

    def wakeups() -> int:
        return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", thread.read_text(), re.M)[0])

    for _ in range(100):  # until the request's own ending is over
        before = wakeups()
        threading.Event().wait(0.05)
        if wakeups() == before:
            break
    before = wakeups()
    threading.Event().wait(0.6)  # uvicorn's own server would have woken up six times
    assert wakeups() - before <= 1
