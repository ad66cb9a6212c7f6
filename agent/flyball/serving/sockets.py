"""Listening sockets: TCP addresses from the configuration, and the control socket with its rights.

"HOST:PORT" or a path -> bound, not yet listening socket(s), or ConfigError with what to do. Never takes a socket away
from a process that still listens on it.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from flyball.errors import ConfigError

log = logging.getLogger(__name__)

_Address = tuple[int, int, int, str, tuple[object, ...]]  # what getaddrinfo gives

_SOCKET_MODE = 0o660
_PATH_MAX = 107  # bytes: sun_path of unix(7), without its end


def bind_tcp(endpoint: str, key: str) -> list[socket.socket]:
    """Every address that `endpoint` ("HOST:PORT", "[V6]:PORT") stands for; `key` is its place in the configuration.
    Raises ConfigError."""
    host, _, digits = endpoint.rpartition(":")
    host, port = host.removeprefix("[").removesuffix("]"), int(digits)
    if port > 65535:
        raise ConfigError(f"{key}: expected a port up to 65535, found {port}")
    found = [address for name in _names(host) for address in _look_up(name, port, key)]
    bound: list[socket.socket] = []
    failures: list[OSError] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            bound.append(_bind_one(family, kind, protocol, address))
        except OSError as error:
            # "localhost" is ::1 too, which a machine without IPv6 does not have: one address is enough.
            failures.append(error)
    serious = [e for e in failures if e.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)]
    if serious or not bound:
        for listener in bound:
            listener.close()
        raise ConfigError(f"{key}: cannot listen on {endpoint}: {_advice((serious or failures)[0], port)}")
    return bound


def _names(host: str) -> tuple[str, ...]:
    """ "localhost" is the loopback by definition (RFC 6761); a small system may have no file that says so."""
    return ("127.0.0.1", "::1") if host.lower().rstrip(".") == "localhost" else (host,)


def _look_up(host: str, port: int, key: str) -> Sequence[_Address]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError(f"{key}: the host {host!r} is not known here: {reason}; give an address") from None


def _bind_one(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1)  # now, because another listener on the same port shows only here
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _advice(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use (`ss -ltnp sport = :{port}` shows by whom); stop that, or choose another port"
    if error.errno == errno.EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address (`ip address` lists them)"
    return error.strerror or str(error)


class ControlSocket:
    """The Unix socket at `path`, bound and with its rights set before anybody can connect."""

    def __init__(self, path: Path, group: str = "flyball") -> None:
        """Mode 0660, and the group `group` where there is such a group and we may. Raises ConfigError."""
        self.path = path
        self.listener = _bind_unix(path)
        os.chmod(path, _SOCKET_MODE)
        _give_to_group(path, group)
        self._identity = _identity(path)
        self.listener.listen(1)
        self.listener.setblocking(False)

    def remove(self) -> None:
        """Takes the file away, if it is still ours."""
        if _identity(self.path) == self._identity:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


def _bind_unix(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _PATH_MAX:
        raise ConfigError(f"paths.socket: expected a path of at most {_PATH_MAX} bytes, found {path}")
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        advice = f"the folder {path.parent} does not exist" if error.errno == errno.ENOENT else error.strerror
        raise ConfigError(f"paths.socket: cannot listen on {path}: {advice}") from None
    return listener


def _clear(path: Path) -> None:
    """Removes a socket that a daemon left behind when it was killed."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"paths.socket: {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"paths.socket: {path} exists and is no socket; remove it, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog connect would wait; EAGAIN tells that somebody listens
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except BlockingIOError:
            raise ConfigError(_taken(path)) from None
        except OSError as error:
            raise ConfigError(f"paths.socket: {path}: {error.strerror}; remove it, or name another path") from None
        else:
            raise ConfigError(_taken(path))
    with contextlib.suppress(FileNotFoundError):
        try:
            path.unlink()
        except PermissionError as error:
            raise ConfigError(f"paths.socket: the old {path} cannot be removed: {error.strerror}") from None


def _taken(path: Path) -> str:
    return f"paths.socket: another daemon listens on {path}; stop it (systemctl stop flyball), or name another path"


def _give_to_group(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.debug("there is no group %s: only the owner of %s may use it", group, path)
    except PermissionError:
        log.info("%s could not be given to the group %s: only its owner may use it", path, group)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Of the file, also against a new one that got the old one's inode."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
