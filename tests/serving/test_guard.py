"""Web pages of strangers do not reach the TCP listeners."""

from __future__ import annotations

import pytest
from served import Served


def status(served: Served, *headers: str, version: str = "1.1") -> int:
    lines = [f"GET /v2/health/live HTTP/{version}", "Connection: close", *headers, "", ""]
    return int(served.raw("\r\n".join(lines).encode()).split()[1])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:{port}", "127.9.9.9", "[::1]:8000", "box.local",
     "box.local.:80"],
)  # fmt: skip
def test_our_own_names(served: Served, host: str) -> None:
    host = host.format(port=served.port)
    assert status(served, f"Host: {host}") == 200
    assert status(served, f"Host: {host}", f"Origin: http://{host}") == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.168.7.7", "10.0.0.1:8000", "[::2]", "", "127.0.0.1.evil"]
)
def test_names_of_others(served: Served, host: str) -> None:
    assert status(served, f"Host: {host}") == 421


def test_a_host_is_refused_again_after_good_ones(served: Served) -> None:
    assert [status(served, f"Host: {h}") for h in ("localhost", "evil.example", "localhost")] == [200, 421, 200]


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://localhost", "http://localhost:9999", "http://127.0.0.1", "file://", ""],
)
def test_pages_from_elsewhere(served: Served, origin: str) -> None:
    assert status(served, "Host: localhost", f"Origin: {origin}") == 403


def test_no_host_and_two_hosts(served: Served) -> None:
    assert status(served) in (400, 421)
    assert status(served, version="1.0") == 200
    assert status(served, "Host: localhost", "Host: localhost") in (400, 421)
    assert status(served, "Origin: http://localhost", version="1.0") == 403


def test_inference_is_guarded_too(served: Served) -> None:
    assert "allowed_hosts" in served.error(421, "POST", "/v2/models/echo/infer", b"{}", {"Host": "evil.example"})
    assert served.error(403, "POST", "/v2/models/echo/infer", b"{}", {"Origin": "http://evil.example"})
