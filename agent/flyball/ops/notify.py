"""Messages to the service manager, as sd_notify(3) sends them: one datagram to $NOTIFY_SOCKET.

Without that variable there is nobody to tell, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Reads the environment once. `watchdog_s`: the time within which systemd wants to hear, None when it does not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(environment)

    @property
    def connected(self) -> bool:
        return bool(self._address)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        # systemd 253 wants the time, to tell this reload from an older one.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace, which the kernel writes with a NUL.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), address)
        except OSError as error:
            log.warning("the service manager at %s could not be told %r: %s", self._address, text, error)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, unless WATCHDOG_PID names another process (sd_watchdog_enabled(3))."""
    try:
        period_s = int(environment["WATCHDOG_USEC"]) / 1e6
        if int(environment.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
    except (KeyError, ValueError):
        return None
    return period_s if period_s > 0 else None


def _line(text: str) -> str:
    return text.replace("\n", " ")
