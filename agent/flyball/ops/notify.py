"""Messages to the service manager, as sd_notify(3) sends them: one datagram each to $NOTIFY_SOCKET.

Without that variable there is nobody to tell: nothing is sent, and `connected` says so. Never raises: a service manager
that does not listen must not stop the daemon.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

_STATUS_CHARACTERS = 500  # a line of `systemctl status`
_SEND_S = 1.0  # systemd reads at once; the event loop must not wait longer for it


class Notifier:
    """Reads the environment once. `watchdog_s`: the time within which systemd wants to hear, None when it does not.
    The methods say whether the message was sent."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._failing = False
        self.watchdog_s = _watchdog_s(environment)

    @property
    def connected(self) -> bool:
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """Also ends a reload."""
        return self._send("READY=1" + (f"\nSTATUS={_line(status)}" if status else ""))

    def status(self, status: str) -> bool:
        return self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def reloading(self) -> bool:
        # systemd 253 wants CLOCK_MONOTONIC, to tell this reload from an older one.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> bool:
        return self._send("STOPPING=1")

    def _send(self, text: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_S)
                sender.sendto(text.encode(errors="replace"), self._address)
        except OSError as error:
            if not self._failing:
                log.warning("the service manager at %r could not be told %r: %s", self._address, text, error)
            self._failing = True
            return False
        if self._failing:
            log.warning("the service manager at %r hears again", self._address)
        self._failing = False
        return True


def _address(name: str) -> str:
    """As the kernel wants it: a name in the abstract namespace, which begins with @, is written with a NUL."""
    if name and name[0] not in "/@":
        log.warning("NOTIFY_SOCKET: expected a path or @name, found %r; the service manager is not told anything", name)
        return ""
    return "\0" + name[1:] if name.startswith("@") else name


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, unless WATCHDOG_PID names another process (sd_watchdog_enabled(3))."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0):
        log.warning("WATCHDOG_USEC: expected microseconds, found %r; the watchdog is not petted", microseconds)
        return None
    return int(microseconds) / 1e6


def _line(text: str) -> str:
    """One line: what follows a line break would be read as another assignment."""
    return " ".join(text.split())[:_STATUS_CHARACTERS]
