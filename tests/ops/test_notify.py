"""sd_notify over real datagram sockets, in the file system and in the abstract namespace."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.ops.notify import Notifier


class Manager:
    """What systemd is to a service: a datagram socket that is read."""

    def __init__(self, address: str) -> None:
        self.name = "@" + address[1:] if address.startswith("\0") else address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(2)

    def heard(self) -> str:
        return self.socket.recv(65536).decode()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"\0flyball-test-{os.getpid()}"
    manager = Manager(address)
    yield manager
    manager.socket.close()


def test_every_message_arrives_as_systemd_wants_it(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.name})
    assert notifier.connected
    assert notifier.ready("serving a")
    assert manager.heard() == "READY=1\nSTATUS=serving a"
    assert notifier.ready()
    assert manager.heard() == "READY=1"
    assert notifier.status("two ladders")
    assert manager.heard() == "STATUS=two ladders"
    assert notifier.watchdog()
    assert manager.heard() == "WATCHDOG=1"
    assert notifier.stopping()
    assert manager.heard() == "STOPPING=1"


def test_a_reload_carries_the_monotonic_time(manager: Manager) -> None:
    before_us = time.monotonic_ns() // 1000
    assert Notifier({"NOTIFY_SOCKET": manager.name}).reloading()
    first, second = manager.heard().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1000


def test_a_status_cannot_smuggle_in_another_assignment(manager: Manager) -> None:
    Notifier({"NOTIFY_SOCKET": manager.name}).status("bad\nSTOPPING=1\r\n" + "x" * 100_000)
    heard = manager.heard()
    assert heard.startswith("STATUS=bad STOPPING=1 x")
    assert "\n" not in heard
    assert len(heard) < 600


def test_a_status_with_broken_text_is_still_sent(manager: Manager) -> None:
    assert Notifier({"NOTIFY_SOCKET": manager.name}).status("caf\udce9")
    assert manager.heard() == "STATUS=caf?"


def test_without_a_service_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.connected
    assert not notifier.ready("x")
    assert not notifier.watchdog()
    assert notifier.watchdog_s is None


def test_an_address_of_another_kind_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "vsock:2:1234"})
    assert not notifier.connected
    assert "expected a path or @name, found 'vsock:2:1234'" in caplog.text


def test_a_manager_that_is_gone_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(path)})
    with caplog.at_level(logging.WARNING):
        assert not notifier.watchdog()
        assert not notifier.watchdog()
        manager = Manager(str(path))
        assert notifier.watchdog()
        manager.socket.close()
    assert ["could not be told" in r.getMessage() for r in caplog.records] == [True, False]


def test_a_path_that_is_too_long_does_not_raise(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": "/" + "x" * 300}).ready()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "nobody"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({}, None),
    ],
)
def test_the_watchdog_period(environment: dict[str, str], expected: float | None) -> None:
    assert Notifier(environment).watchdog_s == expected
