"""Sockets that can be had, and those that cannot."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from flyball.errors import ConfigError
from flyball.serving.sockets import ControlSocket, bind_tcp


def close(*listeners: socket.socket) -> None:
    for listener in listeners:
        listener.close()


def test_a_port_in_use_is_told_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"serving.http: cannot listen on 127.0.0.1:{port}: .*in use.*ss -ltnp"):
            bind_tcp(f"127.0.0.1:{port}", "serving.http")


def test_the_same_port_twice() -> None:
    (first,) = bind_tcp("127.0.0.1:0", "serving.http")
    with pytest.raises(ConfigError, match=r"serving.metrics: .*in use"):
        bind_tcp(f"127.0.0.1:{first.getsockname()[1]}", "serving.metrics")
    close(first)


def test_localhost_is_every_loopback_address_that_there_is() -> None:
    bound = bind_tcp("localhost:0", "serving.http")
    assert {b.getsockname()[0] for b in bound} <= {"127.0.0.1", "::1"}
    close(*bound)


def test_localhost_needs_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minimal Debian has no /etc/hosts."""
    ask = socket.getaddrinfo

    def only_addresses(host: str, *args: int, **more: int) -> object:
        if host == "localhost":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", only_addresses)
    bound = bind_tcp("localhost:0", "serving.http")
    assert bound[0].getsockname()[0] == "127.0.0.1"
    close(*bound)


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    bound = bind_tcp("[::1]:0", "serving.http")
    assert bound[0].family == socket.AF_INET6
    close(*bound)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("127.0.0.1:65536", "expected a port up to 65535"),
        ("192.0.2.1:8000", "no such address"),  # TEST-NET-1: no machine has it
        ("no-such-host.invalid:8000", "not known here"),
        ("..:8000", "not known here|not a host name"),
    ],
)
def test_addresses_that_cannot_be(endpoint: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bind_tcp(endpoint, "serving.http")


def test_the_control_socket_has_its_rights_before_anybody_connects(tmp_path: Path) -> None:
    path = tmp_path / "flyball.sock"
    control = ControlSocket(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    control.remove()
    close(control.listener)
    assert not path.exists()


def test_the_group_that_may(tmp_path: Path) -> None:
    mine = [g.gr_gid for g in grp.getgrall()] if os.geteuid() == 0 else os.getgroups()
    others = [grp.getgrgid(gid).gr_name for gid in mine if gid != os.getegid()]
    if not others:
        pytest.skip("this user is in one group only and may not give a file to another")
    control = ControlSocket(tmp_path / "s", group=others[0])
    assert grp.getgrgid((tmp_path / "s").stat().st_gid).gr_name == others[0]
    close(control.listener)


def test_a_group_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    control = ControlSocket(tmp_path / "s", group="no-such-group-here")
    assert (tmp_path / "s").stat().st_gid == tmp_path.stat().st_gid
    close(control.listener)


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = ControlSocket(path)
    close(first.listener)  # as a kill does: the file stays
    assert path.exists()
    second = ControlSocket(path)
    first.remove()
    assert path.exists(), "the first one took away the second one's file"
    second.remove()
    close(second.listener)


@pytest.mark.parametrize("waiting", [0, 200])
def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path, waiting: int) -> None:
    path = tmp_path / "s"
    control = ControlSocket(path)
    clients = []
    for _ in range(waiting):  # more than the backlog: connecting then says EAGAIN, not "refused"
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect_ex(str(path))
        clients.append(client)
    with pytest.raises(ConfigError, match="another daemon listens"):
        ControlSocket(path)
    assert path.exists()
    close(control.listener, *clients)


def test_other_things_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        ControlSocket(file)
    assert file.read_text() == "precious"
    with pytest.raises(ConfigError, match="no socket"):
        ControlSocket(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        ControlSocket(tmp_path / "none" / "s")
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        ControlSocket(tmp_path / ("x" * 120))
